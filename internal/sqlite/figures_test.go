package sqlite_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/figures"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// recountAtOnce has many count at once what codes are worth, which is wrong: it is
// put right once.
func (f *fixture) recountAtOnce() {
	f.Helper()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := f.db.CountWorth(f.ctx, f.clock.Now()); err != nil {
				f.Error(err)
			}
		})
	}
	wg.Wait()
}

func (f *fixture) overview() *figures.Service { return figures.NewService(f.db, f.clock.Now) }

// summedUp adds everything up and looks at it.
func (f *fixture) summedUp() {
	f.Helper()
	o := f.overview()
	for _, do := range []func(context.Context) error{o.Fold, o.NotePresence, o.NoteOutstanding, o.Recount} {
		f.check(do(f.ctx))
	}
	_, err := o.Summary(f.ctx, f.root)
	f.check(err)
	_, err = o.Activity(f.ctx, f.root, []account.Kind{account.KindIssue}, f.clock.Now(), f.clock.Now())
	f.check(err)
	_, err = o.Presence(f.ctx, f.root, f.clock.Now(), f.clock.Now())
	f.check(err)
	_, err = o.Outstanding(f.ctx, f.root, f.clock.Now())
	f.check(err)
}

// worth is what live, disabled and used codes are worth, as text; "unknown" if
// that is not known.
func (f *fixture) worth() string {
	f.Helper()
	s, err := f.overview().Summary(f.ctx, f.root)
	f.check(err)
	if s.Worth == nil {
		return "unknown"
	}
	return fmt.Sprint(s.Worth.Live, s.Worth.Disabled, s.Worth.Used)
}

// TestWorthRepairs has what codes are worth be missing or wrong: it is counted
// again soon if that shows, and once a day if it does not.
func TestWorthRepairs(t *testing.T) {
	f := newFixture(t, nil)
	user := f.user()
	keys := f.issue("n", 10, 7)
	_, err := f.codes.Change(f.ctx, f.root, 10, redemption.Change{Status: new(redemption.StatusDisabled)})
	f.check(err)
	_, err = f.codes.Redeem(f.ctx, user, keys[0], nil)
	f.check(err)
	const right = "56 7 7"
	if got := f.worth(); got != right {
		t.Fatalf("worth %s, want %s", got, right)
	}
	raw := f.raw()
	for _, c := range []struct {
		what, wrong string
		after       time.Duration
	}{
		{`DELETE FROM redemption_worth`, "unknown", time.Minute}, // as it is in a database from before
		{`UPDATE redemption_worth SET codes = codes + 1 WHERE state = 3`, "unknown", time.Minute},
		{`INSERT INTO redemption_worth VALUES (0, 1, 0, 0) ON CONFLICT DO UPDATE SET codes = 1`, "unknown", time.Minute},
		{`UPDATE redemption_worth SET billions = billions - 1, units = units + 5`, "-999999939 -999999988 -999999988", time.Hour},
	} {
		f.clock.Add(time.Second) // past those counted at once
		f.check(f.db.CountWorth(f.ctx, f.clock.Now()))
		f.exec(raw, c.what)
		f.clock.Add(c.after - time.Millisecond)
		f.check(f.overview().Recount(f.ctx))
		if got := f.worth(); got != c.wrong {
			t.Errorf("%s: worth %s, want %s", c.what, got, c.wrong)
		}
		if c.wrong == "unknown" { // and is not noted as anything
			f.check(f.overview().NoteOutstanding(f.ctx))
			list, err := f.overview().Outstanding(f.ctx, f.root, f.clock.Now())
			if err != nil || len(list) != 0 {
				t.Errorf("%s: noted as %v, %v", c.what, list, err)
			}
		}
		f.clock.Add(time.Millisecond)
		f.check(f.overview().Recount(f.ctx))
		if got := f.worth(); got != right {
			t.Errorf("%s: worth %s after a recount, want %s", c.what, got, right)
		}
		f.exec(raw, c.what)
		f.recountAtOnce()
		if got := f.worth(); got != right {
			t.Errorf("%s: worth %s after recounts at once, want %s", c.what, got, right)
		}
	}
}

// TestWorthCost sees that a group of redeems writes the two states' rows once,
// however many they are.
func TestWorthCost(t *testing.T) {
	f := newFixture(t, nil)
	user := f.user()
	keys := f.issue("n", 20, 7)
	raw := f.raw()
	f.exec(raw, `CREATE TABLE written (state)`)
	f.exec(raw, `CREATE TRIGGER writes AFTER UPDATE ON redemption_worth BEGIN INSERT INTO written VALUES (old.state); END`)
	f.exec(raw, `CREATE TRIGGER adds AFTER INSERT ON redemption_worth BEGIN INSERT INTO written VALUES (new.state); END`)
	for _, err := range f.together(user, keys) {
		f.check(err)
	}
	var got string
	f.check(raw.QueryRowContext(f.ctx, `SELECT group_concat(state) FROM written`).Scan(&got))
	if got != "1,3" {
		t.Errorf("it wrote the rows of the states %s", got)
	}
}
