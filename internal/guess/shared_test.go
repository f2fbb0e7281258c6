package guess_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// database is a Store in memory. It stands in for what engines do in SQL.
type database struct {
	mu     sync.Mutex
	counts map[string]guess.Count
	names  map[string]string
	reads  int
	err    error // what it fails with
}

func newDatabase() *database {
	return &database{counts: map[string]guess.Count{}, names: map[string]string{}}
}

func (d *database) Guesses(ctx context.Context, subjects [][]byte, since time.Time) (counts []guess.Count, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	for _, s := range subjects {
		if c, ok := d.counts[string(s)]; ok && c.Began.After(since) {
			counts = append(counts, c)
		}
	}
	return counts, errors.Join(ctx.Err(), d.err)
}

func (d *database) AddGuesses(ctx context.Context, name string, failures []guess.Failure, now, since time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := errors.Join(ctx.Err(), d.err); err != nil {
		return err
	}
	for _, f := range failures {
		c, ok := d.counts[string(f.Subject)]
		if !ok || !c.Began.After(since) || c.Began.After(now) {
			c = guess.Count{Subject: f.Subject, Label: f.Label, Began: now}
		}
		c.Failed++
		d.counts[string(f.Subject)] = c
		d.names[string(f.Subject)] = name
	}
	return nil
}

func (d *database) WorstGuesses(
	ctx context.Context, name string, least int64, since time.Time, most int,
) (counts []guess.Count, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s, c := range d.counts {
		if d.names[s] == name && c.Label != "" && c.Failed >= least && c.Began.After(since) {
			counts = append(counts, c)
		}
	}
	slices.SortFunc(counts, func(a, b guess.Count) int { return cmp.Compare(b.Failed, a.Failed) })
	return counts[:min(len(counts), most)], errors.Join(ctx.Err(), d.err)
}

func (d *database) ForgiveGuesses(ctx context.Context, subjects [][]byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range subjects {
		if c, ok := d.counts[string(s)]; ok {
			c.Failed = 0
			c.Forgiven++
			d.counts[string(s)] = c
		}
	}
	return errors.Join(ctx.Err(), d.err)
}

// server is one of several that share a database.
type server struct {
	*testing.T
	*guess.Limiter
}

func (c *clock) servers(t *testing.T, d *database, name string, limit int) [2]server {
	t.Helper()
	var s [2]server
	for i := range s {
		s[i] = server{t, guess.Shared(name, limit, time.Minute, c.now, d)}
	}
	return s
}

func (s server) fail(n int, subjects ...string) {
	s.Helper()
	for range n {
		if err := s.Failed(s.Context(), subjects...); err != nil {
			s.Fatal(err)
		}
	}
}

// want checks how long one waits who asks.
func (s server) want(millis int64, subjects ...string) {
	s.Helper()
	if got := wait(s.T, s.Admit(s.Context(), subjects...)); got != millis {
		s.Errorf("%q: to wait %d ms, want %d", subjects, got, millis)
	}
}

// What fails on one server is refused on the other at once, and each window ends
// on both together.
func TestSharedWindow(t *testing.T) {
	c := newClock()
	s := c.servers(t, newDatabase(), "x", 3)
	s[0].fail(1, "a", "b")
	c.add(20 * time.Second)
	s[1].fail(1, "a")
	s[0].want(0, "a")
	s[1].want(0, "a")
	s[1].fail(1, "a")
	c.add(10 * time.Second)
	for _, server := range s {
		server.want(30_000, "a")
		server.want(30_000, "other", "a")
		server.want(0, "b")
		if server.Left("b") != 2 || server.Left("a", "b") != 0 {
			t.Errorf("left %d and %d", server.Left("b"), server.Left("a", "b"))
		}
	}
	c.add(30*time.Second - time.Millisecond)
	s[0].want(1, "a")
	s[1].want(1, "a")
	c.add(time.Millisecond)
	s[0].want(0, "a")
	s[1].want(0, "a")
	s[1].fail(2, "a")
	s[0].want(0, "a")
	s[0].fail(1, "a")
	s[0].want(60_000, "a")
	s[1].want(60_000, "a")
}

// A server that starts anew knows nothing, and asks.
func TestSharedRestart(t *testing.T) {
	c, d := newClock(), newDatabase()
	c.servers(t, d, "x", 2)[0].fail(2, "a")
	s := c.servers(t, d, "x", 2)[0]
	if err := s.Known("a"); err != nil {
		t.Errorf("known without having asked: %v", err)
	}
	s.want(60_000, "a")
	if got := wait(t, s.Known("a")); got != 60_000 {
		t.Errorf("known are %d ms", got)
	}
}

// Who is refused is not looked up again: it costs the database nothing.
func TestSharedKnown(t *testing.T) {
	c, d := newClock(), newDatabase()
	s := c.servers(t, d, "x", 2)
	s[0].fail(2, "a")
	s[1].want(60_000, "a")
	for i, server := range s {
		d.reads = 0
		for range 10 {
			server.want(60_000, "b", "a")
		}
		if d.reads != 0 {
			t.Errorf("server %d asked %d times", i, d.reads)
		}
		server.want(0, "b", "c")
		if d.reads != 1 {
			t.Errorf("server %d asked %d times for two subjects", i, d.reads)
		}
	}
}

// Limiters of different names do not mix, whatever the subjects; the database
// does not say who they are.
func TestSharedNames(t *testing.T) {
	c, d := newClock(), newDatabase()
	x, y, xa := c.servers(t, d, "x", 1), c.servers(t, d, "y", 1), c.servers(t, d, "xa", 1)
	address := guess.Address("192.0.2.1")
	x[0].fail(1, "a"+address)
	y[1].want(0, "a"+address)
	xa[1].want(0, address)
	x[1].want(60_000, "a"+address)
	stored := x[0].Subjects("a"+address, "b")
	if len(stored) != 2 || d.counts[string(stored[0])].Failed != 1 || len(stored[0]) != 32 || len(stored[1]) != 32 {
		t.Errorf("the subjects %x, the counts %+v", stored, d.counts)
	}
	if s := guess.New(1, time.Minute, c.now).Subjects("a"); s != nil {
		t.Errorf("a limiter that nobody shares has the subjects %x", s)
	}
}

// A clock that is set back, or one server's that is ahead, locks nobody out for
// longer than a window.
func TestSharedClockSetBack(t *testing.T) {
	c, d := newClock(), newDatabase()
	s := c.servers(t, d, "x", 1)
	c.add(1000 * time.Hour)
	s[0].fail(1, "a")
	c.add(-1000 * time.Hour)
	s[0].want(0, "a")
	s[1].want(0, "a")
	s[1].fail(1, "a")
	s[0].want(60_000, "a")
	s[1].want(60_000, "a")
}

// While the database fails nobody is admitted, but for who is refused anyway; a
// guess that could not be written down is known here.
func TestSharedStoreFails(t *testing.T) {
	c, d := newClock(), newDatabase()
	s := c.servers(t, d, "x", 1)
	s[0].fail(1, "known")
	d.err = errors.New("no connection")
	for name, err := range map[string]error{
		"Admit":  s[0].Admit(t.Context(), "a"),
		"Failed": s[0].Failed(t.Context(), "a"),
		"Save":   s[0].Save(t.Context(), "b"),
	} {
		if !errors.Is(err, d.err) || refusal.CodeOf(err) != "" {
			t.Errorf("%s: error %v", name, err)
		}
	}
	s[0].want(60_000, "known")
	s[0].want(60_000, "a")
	if err := s[1].Admit(t.Context(), "a"); !errors.Is(err, d.err) {
		t.Errorf("admitted without asking: %v", err)
	}
	d.err = nil
	s[1].want(0, "a")
	s[0].want(60_000, "a")
}

// Who hangs up right after a guess has guessed.
func TestSharedHangUp(t *testing.T) {
	c := newClock()
	s := c.servers(t, newDatabase(), "x", 1)
	ctx, hangUp := context.WithCancel(t.Context())
	hangUp()
	if err := s[0].Failed(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	s[1].want(60_000, "a")
}

// However many fail at once, on whatever server, each is counted.
func TestSharedConcurrent(t *testing.T) {
	const each, many = 20, 16
	for limit, want := range map[int]bool{each*many + 1: true, each * many: false} {
		s := newClock().servers(t, newDatabase(), "x", limit)
		var wg sync.WaitGroup
		for i := range many {
			wg.Go(func() {
				for range each {
					if err := s[i%2].Failed(t.Context(), "a", "b"); err != nil {
						t.Error(err)
					}
					_ = s[i%2].Admit(t.Context(), "b")
				}
			})
		}
		wg.Wait()
		for i, server := range s {
			if admitted := server.Admit(t.Context(), "b") == nil; admitted != want {
				t.Errorf("after %d failures of %d: server %d admitted: %v", each*many, limit, i, admitted)
			}
		}
	}
}

// A store that decides a group reads all counts at once, and writes them at once.
func TestSharedGroup(t *testing.T) {
	c, d := newClock(), newDatabase()
	s := c.servers(t, d, "x", 3)
	s[1].fail(1, "a")
	c.add(time.Second)
	group := func(server server, attempts int) (refused int) {
		counts, err := d.Guesses(t.Context(), server.Subjects("a"), c.t.Add(-time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		server.Learn(counts)
		var noted []string
		for range attempts {
			if server.Known("a") != nil {
				refused++
				continue
			}
			server.Note("a")
			noted = append(noted, "a")
		}
		// Another group begins before this one is written down.
		server.Learn(counts)
		if want := int64(3 - 1 - len(noted)); server.Left("a") != want {
			t.Errorf("left %d, want %d: counts that were read before made it forget", server.Left("a"), want)
		}
		if err := server.Save(t.Context(), noted...); err != nil {
			t.Fatal(err)
		}
		return refused
	}
	if n := group(s[0], 5); n != 3 {
		t.Errorf("%d of 5 refused, want all but the 2 that were left", n)
	}
	if n := d.counts[string(s[0].Subjects("a")[0])].Failed; n != 3 {
		t.Errorf("the database counts %d, want 3", n)
	}
	s[1].want(59_000, "a")
}

// Learn takes what is news: not what has passed or is to come, nor less than is
// known, and of two beginnings the earlier.
func TestLearn(t *testing.T) {
	c := newClock()
	for _, step := range []struct {
		noted  int
		began  time.Duration // from now
		failed int64
		left   int64
		wait   int64 // for one who has all used up
	}{
		{0, 0, 2, 8, 60_000},
		{0, -20 * time.Second, 2, 8, 40_000},
		{0, -time.Minute, 2, 10, 60_000},
		{0, -time.Minute + time.Millisecond, 2, 8, 1},
		{0, time.Millisecond, 2, 10, 60_000},
		{3, -20 * time.Second, 2, 7, 40_000},
		{3, -20 * time.Second, 5, 5, 40_000},
		{3, -time.Minute, 5, 7, 60_000},
		{3, time.Millisecond, 5, 7, 60_000},
	} {
		l := server{t, guess.Shared("x", 10, time.Minute, c.now, newDatabase())}
		for range step.noted {
			l.Note("a")
		}
		l.Learn([]guess.Count{{Subject: l.Subjects("a")[0], Began: c.t.Add(step.began), Failed: step.failed}})
		if left := l.Left("a"); left != step.left {
			t.Errorf("%+v: left %d", step, left)
		}
		for range step.left {
			l.Note("a")
		}
		if got := wait(t, l.Known("a")); got != step.wait {
			t.Errorf("%+v: to wait %d ms", step, got)
		}
	}
}

// What is learned is bounded like what is counted, and windows that were learned
// late end in time behind others that last.
func TestLearnBound(t *testing.T) {
	c := newClock()
	s := server{t, guess.Shared("x", 1, time.Minute, c.now, newDatabase())}
	learn := func(subject string, began time.Duration) {
		s.Learn([]guess.Count{{Subject: s.Subjects(subject)[0], Began: c.t.Add(began), Failed: 1}})
	}
	learn("first", 0)
	learn("late", -50*time.Second)
	for i := range guess.SubjectsMax - 2 {
		learn(fmt.Sprint(i), 0)
	}
	c.add(10 * time.Second)
	if wait(t, s.Known("first")) != 50_000 || wait(t, s.Known("late")) != 0 {
		t.Error("the window that was learned late does not end in time")
	}
	learn("room", 0) // that of late
	if wait(t, s.Known("first")) == 0 {
		t.Error("forgotten while there was room")
	}
	learn("one more", 0)
	if wait(t, s.Known("first")) != 0 || wait(t, s.Known("0")) == 0 {
		t.Error("what is forgotten beyond the bound is not the first")
	}
}
