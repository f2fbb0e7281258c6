package postgres_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scrip-codes/scrip/internal/figures"
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

func (f *fixture) summary() (s figures.Summary, worth string) {
	f.Helper()
	s, err := f.overview().Summary(f.ctx, f.root)
	f.check(err)
	worth = "unknown"
	if s.Worth != nil {
		worth = fmt.Sprint(s.Worth.Live, s.Worth.Disabled, s.Worth.Used)
	}
	return s, worth
}

// folded waits until all changes have been added to the counts.
func (f *fixture) folded(raw *pgx.Conn) {
	f.Helper()
	_, err := f.db.Sweep(f.ctx, f.clock.Now())
	f.check(err)
	if n := f.number(raw, `SELECT count(*) FROM redemption_changes`); n != 0 {
		f.Fatalf("%d changes are left", n)
	}
}

// TestWorthBesideOlderProgram has codes used as a program does that knows of no
// worth, folds what it has written or has it fold the rest: what codes are worth
// is not known then, and counted again soon.
func TestWorthBesideOlderProgram(t *testing.T) {
	const (
		use     = `UPDATE redemptions SET state = 3, redeemed = 1, used_by = 1 WHERE id = %d`
		changes = `INSERT INTO redemption_changes (first, last, name_id, state, expires, n)
			SELECT ARRAY[id, id], ARRAY[id, id], ARRAY[name_id, name_id], ARRAY[1, 3], ARRAY[0, 0], ARRAY[-1, 1]
			FROM redemptions WHERE id = %d`
		fold = `UPDATE redemption_counts c SET enabled = c.enabled - 1, used = c.used + 1 FROM redemptions r
			WHERE r.id = %d AND c.name_id IN (0, r.name_id) AND c.block = r.id >> CAST(c.level AS INT)`
		price  = `UPDATE redemptions SET quota = quota + 5 WHERE id = %d`
		priced = `INSERT INTO redemption_changes (first, last, name_id, state, expires, n)
			SELECT ARRAY[id, id], ARRAY[id, id], ARRAY[name_id, name_id], ARRAY[1, 1], ARRAY[0, 0], ARRAY[-1, 1]
			FROM redemptions WHERE id = %d`
	)
	f := newFixture(t)
	f.issue(10, 7)
	raw := f.raw()
	f.folded(raw)
	f.check(f.overview().Recount(f.ctx))
	var used, more int64
	for i, c := range []struct {
		what, how  string
		used, more int64
	}{
		{use, changes, 1, 0}, // one of the new ones folds it
		{use, fold, 1, 0},    // it has folded it itself
		{price, priced, 0, 5},
	} {
		used, more = used+c.used, more+c.more
		id := i + 1
		f.exec(raw, `BEGIN`, fmt.Sprintf(c.what, id), fmt.Sprintf(c.how, id), `COMMIT`)
		if s, worth := f.summary(); worth != "unknown" || s.Codes.Used != used {
			t.Errorf("step %d: %d used, worth %s", i, s.Codes.Used, worth)
		}
		f.folded(raw)
		if s, worth := f.summary(); worth != "unknown" || s.Codes.Used != used {
			t.Errorf("step %d, folded: %d used, worth %s", i, s.Codes.Used, worth)
		}
		f.clock.Add(2 * time.Minute)
		f.check(f.overview().Recount(f.ctx))
		s, worth := f.summary()
		if want := fmt.Sprint(7*s.Codes.Live+more, 0, 7*used); worth != want {
			t.Errorf("step %d: worth %s after a recount, want %s", i, worth, want)
		}
		f.exec(raw, `UPDATE redemption_worth SET units = units + 5`)
		f.recountAtOnce()
		if _, got := f.summary(); got != worth {
			t.Errorf("step %d: worth %s after recounts at once, want %s", i, got, worth)
		}
	}
}

// TestWorthDroppedByOlderProgram has an older program fold what a newer one wrote,
// as many codes as before: nothing speaks against the worths, so they are counted
// every hour, until a day has passed in which they were right.
func TestWorthDroppedByOlderProgram(t *testing.T) {
	f := newFixture(t)
	f.issue(10, 7)
	raw := f.raw()
	f.folded(raw)
	f.check(f.overview().Recount(f.ctx))
	want := int64(70)
	wantWorth := func(what string, want int64) {
		t.Helper()
		f.check(f.overview().Recount(f.ctx))
		if _, worth := f.summary(); worth != fmt.Sprint(want, 0, 0) {
			t.Errorf("%s: worth %s, want %d", what, worth, want)
		}
	}
	for range 2 {
		f.clock.Add(22 * time.Hour)
		f.check(f.overview().Recount(f.ctx))
		f.exec(raw, `UPDATE redemptions SET quota = quota + 5 WHERE id = 1`)
		f.clock.Add(time.Hour - time.Millisecond)
		wantWorth("before an hour has passed", want)
		want += 5
		f.clock.Add(time.Millisecond)
		wantWorth("after an hour", want)
	}
	f.clock.Add(24 * time.Hour)
	wantWorth("a day later", want)
	f.exec(raw, `UPDATE redemptions SET quota = quota + 5 WHERE id = 1`)
	f.clock.Add(24*time.Hour - time.Millisecond)
	wantWorth("no more than once a day", want)
	f.clock.Add(time.Millisecond)
	wantWorth("after another day", want+5)
}

// TestRecountsRest has an older program redeem all the time: what codes are worth is
// counted more and more seldom, and as soon as ever once that has ended.
func TestRecountsRest(t *testing.T) {
	f := newFixture(t)
	f.issue(10, 7)
	raw := f.raw()
	f.folded(raw)
	const untold = `INSERT INTO redemption_changes (first, last, name_id, state, expires, n)
		SELECT ARRAY[id, id], ARRAY[id, id], ARRAY[name_id, name_id], ARRAY[1, 1], ARRAY[0, 0], ARRAY[-1, 1]
		FROM redemptions WHERE id = 1`
	counted := func() time.Time {
		t.Helper()
		f.check(f.overview().Recount(f.ctx))
		c, err := f.db.WorthCounted(f.ctx)
		f.check(err)
		return c.At
	}
	last := counted()
	for i, rest := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		f.exec(raw, untold)
		rest *= time.Minute
		f.clock.Set(last.Add(rest - time.Millisecond))
		if at := counted(); !at.Equal(last) {
			t.Fatalf("recount %d: after %v already", i, at.Sub(last))
		}
		f.clock.Add(time.Millisecond)
		if at := counted(); at.Sub(last) != rest {
			t.Fatalf("recount %d: not after %v", i, rest)
		}
		last = f.clock.Now()
	}
	f.clock.Add(time.Hour)
	last = counted() // and nothing has spoken against it
	f.exec(raw, untold)
	f.clock.Add(time.Minute)
	if at := counted(); at.Sub(last) != time.Minute {
		t.Errorf("once it had ended: after %v", at.Sub(last))
	}
}

// TestRecountBesideUnfolded counts while changes wait to be folded that an older
// program wrote: it need not be done again when they are.
func TestRecountBesideUnfolded(t *testing.T) {
	f := newFixture(t)
	f.issue(10, 7)
	f.check(f.overview().Recount(f.ctx))
	f.clock.Add(time.Minute)
	raw, holder := f.raw(), f.raw()
	f.exec(raw, `BEGIN`, `UPDATE redemptions SET state = 2 WHERE id = 1`,
		`INSERT INTO redemption_changes (first, last, name_id, state, expires, n)
			SELECT ARRAY[id, id], ARRAY[id, id], ARRAY[name_id, name_id], ARRAY[1, 2], ARRAY[0, 0], ARRAY[-1, 1]
			FROM redemptions WHERE id = 1`)
	f.exec(raw, `COMMIT`)
	f.exec(holder, `BEGIN`, `SELECT id FROM redemption_changes FOR UPDATE`)
	f.check(f.overview().Recount(f.ctx))
	f.exec(holder, `COMMIT`)
	f.folded(raw)
	if s, worth := f.summary(); worth != fmt.Sprint(7*s.Codes.Live, 7, 0) {
		t.Errorf("worth %s of %+v", worth, s.Codes)
	}
}
