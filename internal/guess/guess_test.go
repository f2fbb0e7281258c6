package guess_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// clock is a time that the test sets.
type clock struct{ t time.Time }

func newClock() *clock { return &clock{time.Unix(1_000_000, 0)} }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) add(d time.Duration)     { c.t = c.t.Add(d) }
func (c *clock) limiter(n int) *limiter  { return &limiter{guess.New(n, time.Minute, c.now)} }
func wait(t *testing.T, err error) int64 { t.Helper(); return waitOf(t, err).Milliseconds() }

type limiter struct{ *guess.Limiter }

func (l *limiter) fail(n int, subjects ...string) {
	for range n {
		l.Note(subjects...)
	}
}

func waitOf(t *testing.T, err error) time.Duration {
	t.Helper()
	if err == nil {
		return 0
	}
	r, ok := errors.AsType[*refusal.Error](err)
	if !ok || r.Code != refusal.AccountTooManyGuesses || r.RetryAfter <= 0 {
		t.Fatalf("refused with %v", err)
	}
	return r.RetryAfter
}

func TestWindow(t *testing.T) {
	c := newClock()
	l := c.limiter(3)
	l.fail(1, "a")
	c.add(20 * time.Second)
	l.fail(1, "a")
	if wait(t, l.Admit(t.Context(), "a")) != 0 {
		t.Error("refused below the limit")
	}
	l.fail(1, "a")
	for _, step := range []struct {
		add  time.Duration
		want int64
	}{{0, 40_000}, {15 * time.Second, 25_000}, {25*time.Second - time.Millisecond, 1}, {time.Millisecond, 0}} {
		c.add(step.add)
		if got := wait(t, l.Admit(t.Context(), "a")); got != step.want {
			t.Errorf("to wait %d ms, want %d", got, step.want)
		}
	}
	// The window has passed: it begins anew, with all guesses.
	l.fail(2, "a")
	if wait(t, l.Admit(t.Context(), "a")) != 0 {
		t.Error("refused in a new window")
	}
	l.fail(1, "a")
	if got := wait(t, l.Admit(t.Context(), "a")); got != 60_000 {
		t.Errorf("to wait %d ms, want a minute", got)
	}
}

func TestSubjects(t *testing.T) {
	c := newClock()
	l := c.limiter(2)
	l.fail(2, "a", "b")
	c.add(10 * time.Second)
	l.fail(2, "c")
	for _, step := range []struct {
		subjects []string
		want     int64
	}{
		{[]string{"a"}, 50_000},
		{[]string{"b", "x"}, 50_000},
		{[]string{"a", "c"}, 60_000}, // until the last has passed
		{[]string{"c", "a"}, 60_000},
		{[]string{"x", "y"}, 0},
		{nil, 0},
	} {
		if got := wait(t, l.Admit(t.Context(), step.subjects...)); got != step.want {
			t.Errorf("%q: to wait %d ms, want %d", step.subjects, got, step.want)
		}
	}
}

func TestOff(t *testing.T) {
	for _, limit := range []int{0, -1} {
		l := guess.New(limit, time.Minute, newClock().now)
		for range 100 {
			if err := l.Failed(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			if err := l.Admit(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
		if l.Subjects("a") != nil || l.Known("a") != nil || l.Left("a") < 1<<40 {
			t.Errorf("with a limit of %d it is not off", limit)
		}
	}
}

// However many fail at once, each is counted.
func TestConcurrent(t *testing.T) {
	const each, many = 50, 32
	for limit, want := range map[int]bool{each*many + 1: true, each * many: false} {
		l := newClock().limiter(limit)
		var wg sync.WaitGroup
		for range many {
			wg.Go(func() {
				for range each {
					if err := l.Failed(t.Context(), "a", "b"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if admitted := l.Admit(t.Context(), "b") == nil; admitted != want {
			t.Errorf("after %d failures of %d: admitted is %v", each*many, limit, admitted)
		}
	}
}

// Memory is bounded: the subject whose window ends first is forgotten, and not
// one that came later.
func TestBound(t *testing.T) {
	c := newClock()
	l := c.limiter(1)
	l.fail(1, "first")
	c.add(time.Second)
	l.fail(1, "second")
	c.add(time.Second)
	for i := range guess.SubjectsMax - 2 {
		l.fail(1, fmt.Sprint(i))
	}
	if wait(t, l.Admit(t.Context(), "first")) == 0 {
		t.Error("forgotten while there was room")
	}
	l.fail(1, "one more")
	if wait(t, l.Admit(t.Context(), "first")) != 0 {
		t.Error("the first is remembered beyond the bound")
	}
	for _, s := range []string{"second", "0", "one more"} {
		if wait(t, l.Admit(t.Context(), s)) == 0 {
			t.Errorf("%q was forgotten", s)
		}
	}
}

// A clock that is set back does not lock anybody out for as long as it was
// ahead.
func TestClockSetBack(t *testing.T) {
	c := newClock()
	l := c.limiter(1)
	c.add(1000 * time.Hour)
	l.fail(1, "a")
	c.add(-1000 * time.Hour)
	if got := wait(t, l.Admit(t.Context(), "a")); got > 60_000 {
		t.Errorf("to wait %d ms", got)
	}
}

func TestAddress(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"::ffff:192.0.2.1", "::ffff:192.0.2.2", false},
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"2001:db8:1:2::1", "2001:0DB8:1:2::9", true},
		{"fe80::1%eth0", "fe80::2%eth1", true},
		{"::", "0.0.0.0", false},
		{"local", "local", true},
		{"local", "other", false},
		{"", "local", false},
	} {
		if same := guess.Address(c.a) == guess.Address(c.b); same != c.same {
			t.Errorf("%q and %q are one subject: %v", c.a, c.b, same)
		}
	}
}

// Accounts, names and addresses never stand for each other.
func TestKindsDiffer(t *testing.T) {
	seen := map[string]string{}
	for what, s := range map[string]string{
		"account 1": guess.Account(1), "account 256": guess.Account(256), "account -1": guess.Account(-1),
		"name 1": guess.Name("1"), "name u1": guess.Name("u1"), "name a1": guess.Name("a1"), "no name": guess.Name(""),
		"address 1": guess.Address("1"), "address": guess.Address("192.0.2.1"), "no address": guess.Address(""),
		"address ::1": guess.Address("::1"),
	} {
		if other, ok := seen[s]; ok {
			t.Errorf("%s and %s are one subject", what, other)
		}
		seen[s] = what
	}
}
