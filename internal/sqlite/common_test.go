package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/pickup"
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
	fleet    *fleet.Service
	pickups  *pickup.Service
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
	f.fleet = fleet.NewService(db, db.Keys(), guess.New(20, time.Minute, f.clock.Now), f.clock.Now, nil)
	f.pickups = pickup.NewService(db, db.Keys(), f.clock.Now, nil)
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

// The machine of machine, and what it sells.
const (
	machineNo  = "16327138"
	machineKey = "the machine's own password"
	appKey     = "the app key of the merchant"
)

// machine makes a machine with product 1, and a merchant for it.
func (f *fixture) machine() fleet.Machine {
	f.Helper()
	owner, err := f.fleet.CreateMerchant(f.ctx, f.root, fleet.Merchant{Name: "owner", AppKey: appKey}, nil)
	f.check(err)
	m, err := f.fleet.CreateMachine(f.ctx, f.root, fleet.Machine{
		MerchantID: owner.ID, No: machineNo, Name: "n", Zone: "UTC", PurchaseLimit: 3, PickupCodes: true,
	}, machineKey, nil)
	f.check(err)
	_, err = f.fleet.CreateProduct(f.ctx, f.root, machineNo, fleet.Product{ID: 1, Name: "n", Slot: "1"}, nil)
	f.check(err)
	return m
}

// order creates a pickup code of product 1.
func (f *fixture) order() (pickup.Code, error) {
	return f.pickups.Create(f.ctx, f.root, pickup.Request{MachineNo: machineNo, ProductID: 1, Quantity: 1, AllowMore: true})
}

func (f *fixture) pickup() pickup.Code {
	f.Helper()
	c, err := f.order()
	f.check(err)
	return c
}

// state is all that grouped writes may change, as text.
func (f *fixture) state(db *sql.DB) string {
	f.Helper()
	var out string
	for _, text := range []string{
		`SELECT group_concat(id || ':' || state || ':' || used_by || ':' || redeemed) FROM redemptions`,
		`SELECT group_concat(id || ':' || quota) FROM users`,
		`SELECT count(*) || ' ' || hex(max(mac)) FROM ledger`,
		`SELECT count || ' ' || hex(mac) || ' ' || hex(seal) FROM ledger_heads`,
		`SELECT group_concat(id || ':' || state || ':' || used || ':' || withdrawn) FROM pickup_codes`,
		`SELECT group_concat(id || ':' || kind || ':' || code_id || ':' || sent) FROM outbox`,
		`SELECT group_concat(id || ':' || presence || ':' || last_seen) FROM machines`,
		`SELECT group_concat(name_id || ':' || level || ':' || block || ':' || enabled || ':' || used) FROM redemption_counts`,
		`SELECT group_concat(state || ':' || codes || ':' || billions || ':' || units) FROM redemption_worth`,
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
