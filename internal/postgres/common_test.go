package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/postgres"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/storetest"
)

const (
	secret = "the secret of the engine's own tests"
	// patience bounds every wait for something that must happen.
	patience = 60 * time.Second
)

// fixture is a handle on a database with its services, a root admin, and the
// database's address.
type fixture struct {
	*testing.T
	ctx      context.Context // the test's, with an end to it
	url      string
	clock    *storetest.Clock
	db       *postgres.DB
	accounts *account.Service
	codes    *redemption.Service
	fleet    *fleet.Service
	pickups  *pickup.Service
	root     account.Actor
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureAt(t, newDatabase(t))
}

func newFixtureAt(t *testing.T, url string) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	f := &fixture{
		T: t, ctx: ctx, clock: storetest.NewClock(),
		root: account.Actor{ID: 1, Role: account.RoleRoot, Address: "192.0.2.1"},
	}
	f = f.through(url)
	_, err := f.accounts.Bootstrap(f.ctx, "the root token")
	f.check(err)
	return f
}

// through is another handle on the same database, at another address of it.
func (f *fixture) through(url string) *fixture {
	f.Helper()
	db, err := postgres.Open(f.ctx, postgres.Options{URL: url, Secrets: []string{secret}, Now: f.clock.Now})
	f.check(err)
	f.Cleanup(func() {
		if err := db.Close(); err != nil {
			f.Error(err)
		}
	})
	other := *f
	other.url, other.db = url, db
	other.accounts = account.NewService(db, nil, f.clock.Now)
	other.codes = redemption.NewService(db, db.Keys(), nil, f.clock.Now)
	other.fleet = fleet.NewService(db, db.Keys(), guess.New(20, time.Minute, f.clock.Now), f.clock.Now, nil)
	other.pickups = pickup.NewService(db, db.Keys(), f.clock.Now, nil)
	return &other
}

// with is an address with more settings.
func with(url, settings string) string { return url + "&" + settings }

// in is the fixture in a subtest.
func (f *fixture) in(t *testing.T) *fixture {
	t.Helper()
	sub := *f
	sub.T = t
	return &sub
}

func (f *fixture) check(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// raw is another connection to the database, past the engine.
func (f *fixture) raw() *pgx.Conn {
	f.Helper()
	conn, err := pgx.Connect(f.ctx, f.url)
	f.check(err)
	f.Cleanup(func() { f.check(conn.Close(context.WithoutCancel(f.ctx))) })
	return conn
}

func (f *fixture) exec(conn *pgx.Conn, texts ...string) {
	f.Helper()
	for _, text := range texts {
		if _, err := conn.Exec(f.ctx, text); err != nil {
			f.Fatalf("%s: %v", text, err)
		}
	}
}

// number is the one number that a query finds.
func (f *fixture) number(conn *pgx.Conn, text string) (n int64) {
	f.Helper()
	if err := conn.QueryRow(f.ctx, text).Scan(&n); err != nil {
		f.Fatalf("%s: %v", text, err)
	}
	return n
}

// eventually calls try, with short breaks, until it returns true.
func (f *fixture) eventually(what string, try func() bool) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !try() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// waiting waits until so many connections to the database wait for a lock.
func (f *fixture) waiting(conn *pgx.Conn, n int64) {
	f.Helper()
	f.eventually(fmt.Sprintf("%d connections wait for a lock", n), func() bool {
		return f.number(conn, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`) >= n
	})
}

// begin calls do beside the test and returns what waits for its error.
func begin(do func() error) (end func() error) {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return func() error { return <-done }
}

// user makes a user without money.
func (f *fixture) user(name string) account.Actor {
	f.Helper()
	u, err := f.accounts.Create(f.ctx, f.root, account.CreateRequest{Username: name})
	f.check(err)
	return account.Actor{ID: u.ID, Role: u.Role, Address: "198.51.100.7"}
}

func (f *fixture) issue(count, quota int64) []string {
	f.Helper()
	keys, err := f.codes.Issue(f.ctx, f.root, redemption.IssueRequest{Name: "n", Count: count, Quota: quota})
	f.check(err)
	return keys
}

func (f *fixture) redeem(by account.Actor, key string) error {
	_, err := f.codes.Redeem(f.ctx, by, key, nil)
	return err
}

func (f *fixture) balance(id int64) int64 {
	f.Helper()
	u, err := f.db.UserByID(f.ctx, id)
	f.check(err)
	return u.Quota
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

// says fails the test unless err says that.
func (f *fixture) says(err error, text string) {
	f.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		f.Fatalf("error %v, want one that says %q", err, text)
	}
}

// The machine of machine, and what its merchant keeps secret.
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

// pickup orders a pickup code of product 1.
func (f *fixture) pickup() pickup.Code {
	f.Helper()
	c, err := f.pickups.Create(f.ctx, f.root, pickup.Request{MachineNo: machineNo, ProductID: 1, Quantity: 1, AllowMore: true})
	f.check(err)
	return c
}
