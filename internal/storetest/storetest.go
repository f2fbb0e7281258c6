// Package storetest is the conformance suite of the engines: what every one of
// them must do, whatever it is built on, and a model check that compares one
// with a plain map. An engine's own tests hold only what is its own. Imports:
// account, delivery, figures, fleet, guess, keyring, pickup, redemption, refusal, testing
// and the standard library.
package storetest

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/figures"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// Engine is a handle on an open database.
type Engine interface {
	account.Store
	redemption.Store
	fleet.Store
	pickup.Store
	delivery.Store
	figures.Store
	// Keys are the database's data keys.
	Keys() *keyring.Keys
	// Rotate gives the database new data keys and seals everything under them, or
	// resumes one that was cut off. After each step it calls progress.
	Rotate(ctx context.Context, progress func(done, total int64)) error
	// Ping reports whether the database answers.
	Ping(ctx context.Context) error
	// Close waits for what is under way. Calls that come later fail.
	Close() error
}

// Options says how to open a handle.
type Options struct {
	Secrets []string // newest first
	Now     func() time.Time
}

// Opener opens handles on one database: at first it is empty, later it holds
// what was written, and two may be open at once.
type Opener func(ctx context.Context, o Options) (Engine, error)

// Run runs the suite. Create makes an empty database for one test, which
// cleans up after itself.
func Run(t *testing.T, create func(t *testing.T) Opener) {
	t.Helper()
	for _, group := range []struct {
		name  string
		tests map[string]func(w *world)
	}{
		{"Issue", issueTests()},
		{"Redeem", redeemTests()},
		{"Race", raceTests()},
		{"Change", changeTests()},
		{"List", listTests()},
		{"Find", findTests()},
		{"Many", manyTests()},
		{"Jobs", jobTests()},
		{"Sweep", sweepTests()},
		{"Purge", purgeTests()},
		{"Fleet", fleetTests()},
		{"Pickup", pickupTests()},
		{"Delivery", deliveryTests()},
		{"Claim", claimTests()},
		{"Once", onceTests()},
		{"Account", accountTests()},
		{"Access", accessTests()},
		{"Ledger", ledgerTests()},
		{"Keys", keyTests()},
		{"Figures", figuresTests()},
		{"Handles", handleTests()},
	} {
		runGroup(t, create, group.name, group.tests)
	}
}

// RunInBubble runs the tests of the suite that set the time of all timers, with
// testing/synctest: they are for engines that need no network.
func RunInBubble(t *testing.T, create func(t *testing.T) Opener) {
	t.Helper()
	runGroup(t, create, "Outbox", outboxTests())
	runGroup(t, create, "Relay", relayTests())
}

func runGroup(t *testing.T, create func(t *testing.T) Opener, name string, tests map[string]func(w *world)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) { test(newWorld(t, create)) })
		}
	})
}

// Clock is the time that the tests set. It is safe for concurrent use.
type Clock struct{ millis atomic.Int64 }

// NewClock returns a Clock that stands in the middle of a second.
func NewClock() *Clock {
	c := new(Clock)
	c.Set(time.Date(2026, 3, 4, 5, 6, 7, 500_000_000, time.UTC))
	return c
}

// Now is what it shows.
func (c *Clock) Now() time.Time { return time.UnixMilli(c.millis.Load()) }

// Set sets it.
func (c *Clock) Set(t time.Time) { c.millis.Store(t.UnixMilli()) }

// Add moves it, back if d is negative.
func (c *Clock) Add(d time.Duration) { c.millis.Add(d.Milliseconds()) }

const (
	testSecret = "a secret of the conformance suite"
	rootToken  = "the root token"
)

// world is a database with its services, a root admin and a clock.
type world struct {
	*testing.T
	ctx   context.Context // the test's
	clock *Clock
	// create makes another database, open opens this one.
	create func(t *testing.T) Opener
	open   Opener

	engine   Engine
	accounts *account.Service
	codes    *redemption.Service
	fleet    *fleet.Service
	pickups  *pickup.Service
	figures  *figures.Service
	root     account.Actor
}

func newWorld(t *testing.T, create func(t *testing.T) Opener) *world {
	t.Helper()
	w := &world{T: t, ctx: t.Context(), clock: NewClock(), create: create, open: create(t)}
	w.use(w.handle(testSecret))
	made, err := w.accounts.Bootstrap(w.ctx, rootToken)
	if err != nil || !made {
		t.Fatalf("Bootstrap: made %v, %v", made, err)
	}
	w.root = account.Actor{ID: 1, Role: account.RoleRoot, Address: "192.0.2.1"}
	return w
}

// handle opens another handle, which the test's end closes.
func (w *world) handle(secrets ...string) Engine {
	w.Helper()
	e, err := w.open(w.ctx, Options{Secrets: secrets, Now: w.clock.Now})
	if err != nil {
		w.Fatalf("opening the database: %v", err)
	}
	w.Cleanup(func() {
		if err := e.Close(); err != nil {
			w.Errorf("closing the database: %v", err)
		}
	})
	return e
}

// use puts the services on that handle.
func (w *world) use(e Engine) {
	w.engine = e
	w.accounts = account.NewService(e, nil, w.clock.Now)
	w.codes = redemption.NewService(e, e.Keys(), nil, w.clock.Now)
	w.fleet = fleet.NewService(e, e.Keys(), guess.New(20, 10*time.Minute, w.clock.Now), w.clock.Now, nil)
	w.pickups = pickup.NewService(e, e.Keys(), w.clock.Now, nil)
	w.figures = figures.NewService(e, w.clock.Now)
}

// on is a world of the same database, over another handle.
func (w *world) on(e Engine) *world {
	other := *w
	other.use(e)
	return &other
}

// guarded is a code service that counts guesses against limiter.
func (w *world) guarded(l *guess.Limiter) *redemption.Service {
	return redemption.NewService(w.engine, w.engine.Keys(), l, w.clock.Now)
}

// check fails the test on an error.
func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// refused fails the test unless err is that refusal.
func (w *world) refused(err error, code refusal.Code) {
	w.Helper()
	if refusal.CodeOf(err) != code {
		w.Fatalf("error %v, want a refusal of %q", err, code)
	}
}

// allow marks the test as failed unless err is nil or one of those refusals.
func (w *world) allow(err error, codes ...refusal.Code) {
	w.Helper()
	if err != nil && !slices.Contains(codes, refusal.CodeOf(err)) {
		w.Error(err)
	}
}

// stale fails the test unless err says that the keys have moved on.
func (w *world) stale(err error) {
	w.Helper()
	if !errors.Is(err, keyring.ErrStale) {
		w.Fatalf("error %v, want ErrStale", err)
	}
}

func (w *world) user(name string, quota int64) account.Actor {
	w.Helper()
	return w.person(name, account.RoleUser, quota)
}

func (w *world) person(name string, role account.Role, quota int64) account.Actor {
	w.Helper()
	u, err := w.accounts.Create(w.ctx, account.Operator(), account.CreateRequest{
		Username: name, Role: role, Quota: quota,
	})
	w.check(err)
	return account.Actor{ID: u.ID, Role: role, Address: "198.51.100.7"}
}

// issue makes codes and returns them as they are now. Nobody else may issue at
// the same time.
func (w *world) issue(name string, count, quota int64, expires time.Time) []redemption.View {
	w.Helper()
	keys, err := w.codes.Issue(w.ctx, w.root, redemption.IssueRequest{
		Name: name, Count: count, Quota: quota, Expires: expires,
	})
	w.check(err)
	e := w.lastEntry()
	if e.Kind != account.KindIssue || e.Count != count || e.LastID-e.FirstID != count-1 || len(keys) != int(count) {
		w.Fatalf("issuing %d codes left the entry %+v and %d keys", count, e, len(keys))
	}
	views, _, err := w.codes.List(w.ctx, w.root, redemption.FilterAll, 0, count)
	w.check(err)
	slices.Reverse(views)
	for i, v := range views {
		if v.ID != e.FirstID+int64(i) || v.Key != keys[i] {
			w.Fatalf("the list shows %+v, want code %d", v, e.FirstID+int64(i))
		}
	}
	return views
}

// issueOne is issue of one code that never expires.
func (w *world) issueOne(quota int64) redemption.View {
	w.Helper()
	return w.issue("one", 1, quota, time.Time{})[0]
}

func (w *world) get(id int64) redemption.View {
	w.Helper()
	v, err := w.codes.Get(w.ctx, w.root, id)
	w.check(err)
	return v
}

func (w *world) balance(id int64) int64 {
	w.Helper()
	u, err := w.engine.UserByID(w.ctx, id)
	w.check(err)
	return u.Quota
}

func (w *world) wantBalance(id, want int64) {
	w.Helper()
	if got := w.balance(id); got != want {
		w.Fatalf("account %d has %d, want %d", id, got, want)
	}
}

func (w *world) redeem(by account.Actor, key string) int64 {
	w.Helper()
	n, err := w.codes.Redeem(w.ctx, by, key, nil)
	w.check(err)
	return n
}

func (w *world) disable(id int64) {
	w.Helper()
	w.change(id, redemption.Change{Status: new(redemption.StatusDisabled)})
}

func (w *world) change(id int64, ch redemption.Change) redemption.View {
	w.Helper()
	v, err := w.codes.Change(w.ctx, w.root, id, ch)
	w.check(err)
	return v
}

func (w *world) total(f redemption.Filter) int64 {
	w.Helper()
	_, total, err := w.codes.List(w.ctx, w.root, f, 0, 1)
	w.check(err)
	return total
}

func (w *world) lastEntry() account.Entry {
	w.Helper()
	entries, err := w.engine.Ledger(w.ctx, account.LedgerFilter{Limit: 1})
	w.check(err)
	if len(entries) != 1 {
		w.Fatalf("the ledger lists %d entries, want the last one", len(entries))
	}
	return entries[0]
}

// entries is the number of ledger entries.
func (w *world) entries() int64 {
	w.Helper()
	heads, err := w.engine.Heads(w.ctx)
	w.check(err)
	var n int64
	for _, h := range heads {
		n += h.Count
	}
	return n
}

// unchanged returns a check that nothing was written since: no entry, no code,
// no balance.
func (w *world) unchanged() func() {
	w.Helper()
	entries, codes := w.entries(), w.allCodes()
	users, _, err := w.engine.Users(w.ctx, 0, 1000)
	w.check(err)
	return func() {
		w.Helper()
		if n := w.entries(); n != entries {
			w.Errorf("the ledger has %d entries, it had %d", n, entries)
		}
		sameViews(w.T, w.allCodes(), codes)
		now, _, err := w.engine.Users(w.ctx, 0, 1000)
		w.check(err)
		if len(now) != len(users) {
			w.Fatalf("%d users, there were %d", len(now), len(users))
		}
		for i := range now {
			if now[i] != users[i] {
				w.Errorf("account %d is %+v, it was %+v", now[i].ID, now[i], users[i])
			}
		}
	}
}

// eventually is a context that gives up long after every test should be done,
// for tests of what could wait for ever.
func (w *world) eventually() context.Context {
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	w.Cleanup(cancel)
	return ctx
}
