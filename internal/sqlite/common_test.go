package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/sqlite"
	"github.com/scrip-codes/scrip/internal/storetest"
)

const secret = "the secret of the engine's own tests"

// fixture is a database with its services, a root admin, and the path of its file.
type fixture struct {
	*testing.T
	ctx      context.Context // the test's
	path     string
	clock    *storetest.Clock
	db       *sqlite.DB
	accounts *account.Service
	codes    *redemption.Service
	root     account.Actor
}

func newFixture(t *testing.T, onCommit func(int, time.Duration)) *fixture {
	t.Helper()
	f := &fixture{
		T: t, ctx: t.Context(), path: filepath.Join(t.TempDir(), "scrip.db"), clock: storetest.NewClock(),
		root: account.Actor{ID: 1, Role: account.RoleRoot, Address: "192.0.2.1"},
	}
	f.open(onCommit)
	_, err := f.accounts.Bootstrap(f.ctx, "the root token")
	f.check(err)
	return f
}

func (f *fixture) open(onCommit func(int, time.Duration)) {
	f.Helper()
	db, err := sqlite.Open(f.ctx, sqlite.Options{
		Path: f.path, Secrets: []string{secret}, Now: f.clock.Now, OnCommit: onCommit,
	})
	f.check(err)
	f.Cleanup(func() {
		if err := db.Close(); err != nil {
			f.Error(err)
		}
	})
	f.db = db
	f.accounts = account.NewService(db, nil, f.clock.Now)
	f.codes = redemption.NewService(db, db.Keys(), nil, f.clock.Now)
}

// in is the fixture in a subtest.
func (f *fixture) in(t *testing.T) *fixture {
	t.Helper()
	sub := *f
	sub.T, sub.ctx = t, t.Context()
	return &sub
}

func (f *fixture) check(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// raw is another connection to the file, past the engine.
func (f *fixture) raw() *sql.DB {
	f.Helper()
	db, err := sql.Open("sqlite", "file:"+f.path+"?_pragma=busy_timeout(15000)")
	f.check(err)
	f.Cleanup(func() { f.check(db.Close()) })
	db.SetMaxOpenConns(1)
	return db
}

func (f *fixture) exec(db *sql.DB, text string) {
	f.Helper()
	if _, err := db.ExecContext(f.ctx, text); err != nil {
		f.Fatalf("%s: %v", text, err)
	}
}

// user makes a user without money.
func (f *fixture) user() account.Actor {
	f.Helper()
	u, err := f.accounts.Create(f.ctx, f.root, account.CreateRequest{Username: "u"})
	f.check(err)
	return account.Actor{ID: u.ID, Role: u.Role, Address: "198.51.100.7"}
}

func (f *fixture) issue(name string, count, quota int64) []string {
	f.Helper()
	keys, err := f.codes.Issue(f.ctx, f.root, redemption.IssueRequest{Name: name, Count: count, Quota: quota})
	f.check(err)
	return keys
}

// state is all that a redeem may change, as text.
func (f *fixture) state(db *sql.DB) string {
	f.Helper()
	var out string
	for _, text := range []string{
		`SELECT group_concat(id || ':' || state || ':' || used_by || ':' || redeemed) FROM redemptions`,
		`SELECT group_concat(id || ':' || quota) FROM users`,
		`SELECT count(*) || ' ' || hex(max(mac)) FROM ledger`,
		`SELECT count || ' ' || hex(mac) || ' ' || hex(seal) FROM ledger_heads`,
		`SELECT group_concat(name_id || ':' || level || ':' || block || ':' || enabled || ':' || used) FROM redemption_counts`,
	} {
		var s sql.NullString
		f.check(db.QueryRowContext(f.ctx, text).Scan(&s))
		out += fmt.Sprintln(s.String)
	}
	return out
}

func (f *fixture) faults(since ...account.Checkpoint) []string {
	f.Helper()
	ring, err := f.db.Keys().Reload(f.ctx)
	f.check(err)
	r, err := account.Verify(f.ctx, f.db, ring.LedgerKey(), since, nil)
	f.check(err)
	return r.Faults
}

func (f *fixture) whole() {
	f.Helper()
	if faults := f.faults(); faults != nil {
		f.Errorf("the ledger does not verify: %q", faults)
	}
}

func issueRequest(name string, count int64) redemption.IssueRequest {
	return redemption.IssueRequest{Name: name, Count: count, Quota: 3}
}

func disabling() redemption.Change {
	return redemption.Change{Status: new(redemption.StatusDisabled)}
}
