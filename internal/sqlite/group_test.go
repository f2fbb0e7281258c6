package sqlite_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// commits collects what OnCommit is told.
type commits struct {
	mu    sync.Mutex
	sizes []int
}

func (c *commits) add(n int, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sizes = append(c.sizes, n)
}

func (c *commits) take() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.sizes
	c.sizes = nil
	return out
}

// together redeems the keys at the same time. It returns the error of each.
func (f *fixture) together(by account.Actor, keys []string) []error {
	f.Helper()
	writes := make([]func() error, len(keys))
	for i, key := range keys {
		writes[i] = func() error {
			_, err := f.codes.Redeem(f.ctx, by, key, nil)
			return err
		}
	}
	return f.atOnce(writes)
}

// atOnce calls grouped writes while the writer is held, each once the one before
// it has arrived: they make one group, in this order. It returns the error of each.
func (f *fixture) atOnce(writes []func() error) []error {
	f.Helper()
	release := f.db.Hold()
	errs := make([]error, len(writes))
	var wg sync.WaitGroup
	for i := range writes {
		wg.Go(func() { errs[i] = writes[i]() })
		for f.db.Queued() <= i {
			runtime.Gosched()
		}
	}
	release()
	wg.Wait()
	return errs
}

func TestGroupCommit(t *testing.T) {
	var c commits
	f := newFixture(t, c.add)
	user := f.user()
	keys := f.issue("n", 100, 3)

	t.Run("alone", func(t *testing.T) {
		for _, key := range keys[:3] {
			if _, err := f.codes.Redeem(t.Context(), user, key, nil); err != nil {
				t.Fatal(err)
			}
			if sizes := c.take(); len(sizes) != 1 || sizes[0] != 1 {
				t.Errorf("a lone redeem made the commits %v", sizes)
			}
		}
	})
	t.Run("together", func(t *testing.T) {
		for i, err := range f.together(user, keys[3:63]) {
			if err != nil {
				t.Errorf("redeem %d: %v", i, err)
			}
		}
		if sizes := c.take(); len(sizes) != 1 || sizes[0] != 60 {
			t.Errorf("60 redeems made the commits %v, want one", sizes)
		}
	})
	t.Run("refused together", func(t *testing.T) {
		batch := append([]string{keys[0], "unknown", keys[63], keys[63], keys[3]}, keys[64:70]...)
		errs := f.together(user, batch)
		used := 0
		for i, err := range errs {
			switch code := refusal.CodeOf(err); {
			case code == refusal.RedemptionUsedByYou:
				used++
			case code == refusal.RedemptionUnknown && i == 1, err == nil:
			default:
				t.Errorf("redeem %d: %v", i, err)
			}
		}
		if used != 3 {
			t.Errorf("%d were refused as used, want 3", used)
		}
		if sizes := c.take(); len(sizes) != 1 {
			t.Errorf("they made the commits %v", sizes)
		}
	})
	f.whole()
}

// When too many wait, the next is refused at once, and those are all answered.
func TestQueueFull(t *testing.T) {
	f := newFixture(t, nil)
	user := f.user()
	release := f.db.Hold()
	redeem := func() error {
		_, err := f.codes.Redeem(f.ctx, user, "unknown", nil)
		return err
	}
	var busy atomic.Int64
	var wg sync.WaitGroup
	for range sqlstore.QueueLength + 300 {
		wg.Go(func() {
			switch err := redeem(); refusal.CodeOf(err) { //nolint:exhaustive // it may be one of two
			case refusal.RedemptionUnknown:
			case refusal.TooBusy:
				busy.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	for busy.Load() < 300 {
		runtime.Gosched()
	}
	err := redeem()
	if r, ok := errors.AsType[*refusal.Error](err); !ok || r.Code != refusal.TooBusy || r.RetryAfter <= 0 {
		t.Errorf("with a full queue: %v", err)
	}
	release()
	wg.Wait()
	if n := busy.Load(); n != 300 {
		t.Errorf("%d of %d were refused", n, sqlstore.QueueLength+300)
	}
	if err := redeem(); refusal.CodeOf(err) != refusal.RedemptionUnknown {
		t.Errorf("afterwards: %v", err)
	}
}

// An error in the middle of a group, wherever it comes from, fails the whole
// group and leaves nothing of it. The next one works.
func TestGroupFails(t *testing.T) {
	f := newFixture(t, nil)
	user := f.user()
	keys := f.issue("n", 80, 3)
	raw := f.raw()
	for i, where := range []string{
		`BEFORE UPDATE ON redemptions WHEN old.id % 10 = 6`,
		`BEFORE INSERT ON ledger WHEN new.first_id % 10 = 6`,
		`BEFORE UPDATE ON users`,
		`BEFORE UPDATE ON redemption_counts`,
		`BEFORE UPDATE ON redemption_worth`,
		`BEFORE UPDATE ON ledger_heads`,
	} {
		mine := keys[10*i+1 : 10*i+10] // ids 10i+2 to 10i+10
		before := f.state(raw)
		f.exec(raw, `CREATE TRIGGER broken `+where+` BEGIN SELECT RAISE(ABORT, 'broken'); END`)
		errs := f.together(user, mine)
		f.exec(raw, `DROP TRIGGER broken`)
		failed := 0
		for _, err := range errs {
			if err == nil {
				continue
			}
			failed++
			if !strings.Contains(err.Error(), "broken") || refusal.CodeOf(err) != "" {
				t.Errorf("%s: %v", where, err)
			}
		}
		if failed != len(mine) {
			t.Errorf("%s: %d of %d failed", where, failed, len(mine))
		}
		if f.state(raw) != before {
			t.Errorf("%s: the group left\n%safter\n%s", where, f.state(raw), before)
		}
		f.whole()
		if err := f.db.Idle(f.ctx); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		for _, err := range f.together(user, mine) {
			if err != nil {
				t.Errorf("%s: afterwards: %v", where, err)
			}
		}
		f.whole()
		u, err := f.accounts.Get(f.ctx, f.root, user.ID)
		f.check(err)
		if want := int64(27 * (i + 1)); u.Quota != want {
			t.Errorf("%s: the balance is %d, want %d", where, u.Quota, want)
		}
	}
}

// taken stands for pickup.ErrTaken.
const taken refusal.Code = "taken"

// mixed is a group of every kind of grouped write, half of which is refused or
// changes nothing, with what each should end with.
func (f *fixture) mixed(
	m fleet.Machine, user account.Actor, key string, codes []pickup.Code,
) (writes []func() error, want []refusal.Code) {
	f.Helper()
	add := func(code refusal.Code, write func() error) {
		writes, want = append(writes, write), append(want, code)
	}
	redeem := func(key string) func() error {
		return func() error {
			_, err := f.codes.Redeem(f.ctx, user, key, nil)
			return err
		}
	}
	create := func(product int64) func() error {
		return func() error {
			_, err := f.pickups.Create(f.ctx, f.root, pickup.Request{
				MachineNo: machineNo, ProductID: product, Quantity: 1, AllowMore: true,
			})
			return err
		}
	}
	use := func(machine, code int64) func() error {
		return func() error {
			_, err := f.pickups.Used(f.ctx, machine, code, "203.0.113.9", time.Time{})
			return err
		}
	}
	add(refusal.RedemptionUnknown, redeem("unknown"))
	add("", redeem(key))
	add(refusal.RedemptionUnknown, redeem("unknown too"))
	add("", create(1))
	add(refusal.ProductNotFound, create(2))
	add(taken, func() error {
		c, err := f.db.Pickup(f.ctx, codes[2].ID)
		f.check(err)
		ring, err := f.db.Keys().Reload(f.ctx)
		f.check(err)
		_, err = f.db.CreatePickup(f.ctx, pickup.Order{
			Epoch: ring.Epoch(), MachineNo: machineNo, ProductID: 1, Quantity: 1, AllowMore: true, By: f.root,
			At: f.clock.Now(), Expires: f.clock.Now(), Digits: []pickup.NewDigits{{Indexes: [][]byte{c.Index}}},
		})
		if errors.Is(err, pickup.ErrTaken) {
			err = refusal.New(taken)
		}
		return err
	})
	add("", func() error { return f.pickups.Withdraw(f.ctx, f.root, codes[0].ID) })
	add(refusal.PickupNotFound, func() error { return f.pickups.Withdraw(f.ctx, f.root, 9999) })
	add("", use(m.ID, codes[1].ID))
	add(refusal.PickupNotFound, use(m.ID+1, codes[2].ID))
	add("", func() error {
		return f.db.Advance(f.ctx, []delivery.Progress{{ID: codes[2].ID, Stage: delivery.Received}})
	})
	add("", func() error {
		return f.db.See(f.ctx, []fleet.Sighting{{MachineID: m.ID, Presence: fleet.Heard, At: f.clock.Now()}})
	})
	return writes, want
}

// Writes of all kinds share a commit, and the refusal of one touches no other.
func TestGroupOfAll(t *testing.T) {
	var c commits
	f := newFixture(t, c.add)
	user, m := f.user(), f.machine()
	key := f.issue("n", 1, 3)[0]
	codes := []pickup.Code{f.pickup(), f.pickup(), f.pickup()}
	c.take()
	writes, want := f.mixed(m, user, key, codes)
	for i, err := range f.atOnce(writes) {
		if refusal.CodeOf(err) != want[i] || (err == nil) != (want[i] == "") {
			t.Errorf("write %d: %v, want %q", i, err, want[i])
		}
	}
	if sizes := c.take(); len(sizes) != 1 || sizes[0] != 3 {
		t.Errorf("three redeems made the commits %v, want one", sizes)
	}
	states := []pickup.State{pickup.StateWithdrawn, pickup.StateUsed, pickup.StateLive, pickup.StateLive}
	for i, want := range states {
		got, err := f.pickups.Get(f.ctx, f.root, int64(i+1))
		f.check(err)
		if got.Marked != want {
			t.Errorf("code %d is %+v, want %s", i+1, got, want)
		}
	}
	u, err := f.accounts.Get(f.ctx, f.root, user.ID)
	f.check(err)
	if u.Quota != 3 {
		t.Errorf("the balance is %d", u.Quota)
	}
	f.whole()
}

// Such a group fails as a whole, and leaves nothing, wherever the error comes
// from; the next one works.
func TestGroupOfAllFails(t *testing.T) {
	f := newFixture(t, nil)
	user, m := f.user(), f.machine()
	key := f.issue("n", 1, 3)[0]
	codes := []pickup.Code{f.pickup(), f.pickup(), f.pickup()}
	raw := f.raw()
	for _, where := range []string{
		`BEFORE INSERT ON pickup_codes`, `BEFORE UPDATE ON pickup_codes WHEN old.id = 1`, `BEFORE UPDATE ON pickup_codes WHEN old.id = 2`,
		`BEFORE INSERT ON outbox WHEN new.kind = 1`, `BEFORE INSERT ON outbox WHEN new.kind = 2`,
		`BEFORE DELETE ON outbox WHEN old.code_id = 3`, `BEFORE UPDATE ON machines`, `BEFORE UPDATE ON users`,
		`BEFORE INSERT ON ledger WHEN new.kind = 'pickup_use'`, `BEFORE UPDATE ON ledger_heads`,
	} {
		before := f.state(raw)
		f.exec(raw, `CREATE TRIGGER broken `+where+` BEGIN SELECT RAISE(ABORT, 'broken'); END`)
		writes, _ := f.mixed(m, user, key, codes)
		errs := f.atOnce(writes)
		f.exec(raw, `DROP TRIGGER broken`)
		for i, err := range errs {
			if err == nil || !strings.Contains(err.Error(), "broken") || refusal.CodeOf(err) != "" {
				t.Errorf("%s: write %d: %v", where, i, err)
			}
		}
		if got := f.state(raw); got != before {
			t.Errorf("%s: the group left\n%safter\n%s", where, got, before)
		}
		f.check(f.db.Idle(f.ctx))
	}
	writes, want := f.mixed(m, user, key, codes)
	for i, err := range f.atOnce(writes) {
		if refusal.CodeOf(err) != want[i] || (err == nil) != (want[i] == "") {
			t.Errorf("afterwards, write %d: %v, want %q", i, err, want[i])
		}
	}
	f.whole()
}

// A large job is bounded by its own caller; behind it a group ends.
func TestGroupSize(t *testing.T) {
	var c commits
	f := newFixture(t, c.add)
	user := f.user()
	keys := f.issue("n", 40, 1)
	c.take()
	var writes []func() error
	redeem := func(key string) func() error {
		return func() error {
			_, err := f.codes.Redeem(f.ctx, user, key, nil)
			return err
		}
	}
	writes = append(writes, redeem(keys[0]))
	for n := range 3 {
		writes = append(writes, func() error { return f.db.Advance(f.ctx, make([]delivery.Progress, 512)) }, redeem(keys[n+1]))
	}
	for i, err := range f.atOnce(writes) {
		if err != nil {
			t.Errorf("write %d: %v", i, err)
		}
	}
	if sizes := c.take(); !slices.Equal(sizes, []int{1, 1, 1, 1}) {
		t.Errorf("four redeems with a large job behind each of three made the commits %v", sizes)
	}
}

// Every other write fails the same way: whole, and without a trace.
func TestWriteFails(t *testing.T) {
	f := newFixture(t, nil)
	f.issue("n", 10, 3)
	m := f.machine()
	f.pickup()
	raw := f.raw()
	for _, table := range []string{"ledger", "ledger_heads", "redemption_counts", "redemption_worth"} {
		for _, event := range []string{"INSERT", "UPDATE"} {
			f.exec(raw, fmt.Sprintf(
				`CREATE TRIGGER broken_%s BEFORE %s ON %s BEGIN SELECT RAISE(ABORT, 'broken'); END`, event, event, table))
		}
		before := f.state(raw)
		for name, do := range map[string]func() error{
			"issue": func() error {
				_, err := f.codes.Issue(f.ctx, f.root, issueRequest("new", 40))
				return err
			},
			"delete": func() error { return f.codes.Delete(f.ctx, f.root, 3) },
			"change": func() error {
				_, err := f.codes.Change(f.ctx, f.root, 4, disabling())
				return err
			},
			"machine delete":   func() error { return f.fleet.DeleteMachine(f.ctx, f.root, m.No) },
			"machine product":  func() error { return f.fleet.DeleteProduct(f.ctx, f.root, m.No, 1) },
			"machine password": func() error { return f.fleet.RenewPassword(f.ctx, f.root, m.No, "new", nil) },
		} {
			if strings.HasPrefix(table, "redemption_") && strings.HasPrefix(name, "machine") {
				continue // it counts no redemption codes
			}
			if err := do(); err == nil || !strings.Contains(err.Error(), "broken") {
				t.Errorf("%s, %s broken: %v", name, table, err)
			}
			if got := f.state(raw); got != before {
				t.Errorf("%s, %s broken: it left\n%safter\n%s", name, table, got, before)
			}
			f.check(f.db.Idle(f.ctx))
		}
		f.exec(raw, `DROP TRIGGER broken_INSERT`)
		f.exec(raw, `DROP TRIGGER broken_UPDATE`)
	}
	f.check(f.codes.Delete(f.ctx, f.root, 3))
	f.whole()
}
