package postgres_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/postgres"
)

// duty asks for a duty as the holder.
func (f *fixture) duty(name, holder string, lasting time.Duration) bool {
	f.Helper()
	mine, err := f.db.Duty(f.ctx, name, holder, lasting)
	f.check(err)
	return mine
}

func TestDuty(t *testing.T) {
	f := newFixture(t)
	other := f.through(f.url)
	for i, step := range []struct {
		f            *fixture
		name, holder string
		want         bool
	}{
		{f, "sweep", "a", true},
		{other, "sweep", "b", false},
		{f, "sweep", "a", true}, // again
		{other, "sweep", "a", true},
		{other, "purge", "b", true}, // another
		{f, "purge", "a", false},
		{f, "sweep", "", false},
	} {
		if got := step.f.duty(step.name, step.holder, time.Hour); got != step.want {
			t.Errorf("step %d: %s does %q: %v", i, step.holder, step.name, got)
		}
	}
	f.check(f.db.Resign(f.ctx, "sweep", "b")) // who does not have it
	if other.duty("sweep", "b", time.Hour) {
		t.Error("one resigned for another")
	}
	f.check(f.db.Resign(f.ctx, "sweep", "a"))
	if !other.duty("sweep", "b", time.Hour) || f.duty("sweep", "a", time.Hour) {
		t.Error("a duty that was given up was not taken")
	}
	f.check(f.db.Close())
	if _, err := f.db.Duty(f.ctx, "sweep", "b", time.Hour); err == nil {
		t.Error("a closed database gives a duty")
	}
}

// TestDutyAtOnce has many ask at once, again and again as the duty ends: one at a
// time is told that it has it.
func TestDutyAtOnce(t *testing.T) {
	f := newFixture(t)
	servers := []*fixture{f, f.through(f.url)}
	for round := range 5 {
		var mine atomic.Int64
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if servers[i%2].duty("d", fmt.Sprint(round, "/", i), time.Hour) {
					mine.Add(1)
				}
			})
		}
		wg.Wait()
		if mine.Load() != 1 {
			t.Fatalf("%d have the duty", mine.Load())
		}
		f.exec(f.raw(), `UPDATE duties SET until = 0`)
	}
}

// TestDutyEnds takes a duty over, not before its time has passed on the clock of
// the database: those of the servers stand still.
func TestDutyEnds(t *testing.T) {
	const lasting = 300 * time.Millisecond
	f := newFixture(t)
	raw := f.raw()
	const now = `SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint`
	began := f.number(raw, now)
	if !f.duty("d", "a", lasting) {
		t.Fatal("nobody had it")
	}
	f.clock.Add(24 * time.Hour) // which is of no account
	f.eventually("the duty is taken over", func() bool { return f.duty("d", "b", time.Hour) })
	if took := f.number(raw, now) - began; took < lasting.Milliseconds() {
		t.Errorf("it was taken over after %d ms of %v", took, lasting)
	}
	if f.duty("d", "a", lasting) {
		t.Error("who had it before has it too")
	}
}

// TestFollowerWithoutDuty has a server that has lost the broker to another one
// leave new entries of the outbox to that one.
func TestFollowerWithoutDuty(t *testing.T) {
	f := newFixture(t)
	other := f.through(f.url)
	f.machine()
	if !f.duty(postgres.BrokerDuty, "a", 50*time.Millisecond) {
		t.Fatal("nobody has the broker, and it was not given")
	}
	for !other.duty(postgres.BrokerDuty, "b", time.Hour) { // once the other's time is over
		runtime.Gosched()
	}
	c := f.pickup()
	if got, err := f.db.Since(f.ctx, 0, 10); err != nil || len(got) != 0 {
		t.Errorf("who has not got the broker is told %+v, %v", got, err)
	}
	if got, err := other.db.Since(f.ctx, 0, 10); err != nil || len(got) != 1 || got[0].CodeID != c.ID {
		t.Errorf("who has the broker is told %+v, %v", got, err)
	}
}
