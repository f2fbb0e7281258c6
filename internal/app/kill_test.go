package app_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// seed is the random seed of a test: SCRIP_MODEL_SEED, or a new one. It is
// printed when the test fails.
func seed(t *testing.T) *rand.Rand {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if s := os.Getenv("SCRIP_MODEL_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SCRIP_MODEL_SEED=%d", n)
	return rand.New(rand.NewPCG(n, n)) //nolint:gosec // G404: it must be repeatable
}

// crowd redeems and issues until told to stop, and keeps what was acknowledged.
type crowd struct {
	users []user
	keys  chan string

	mu       sync.Mutex
	redeemed map[string]user // acknowledged
	issued   map[string]bool // keys of acknowledged batches
	wrong    []error
	acked    atomic.Int64
	batches  atomic.Int64

	// full says that the disk is: requests may then fail, and refused counts
	// how many did.
	full    atomic.Bool
	refused atomic.Int64
}

func newCrowd(users []user) *crowd {
	return &crowd{
		users: users, keys: make(chan string, 4096), redeemed: map[string]user{}, issued: map[string]bool{},
	}
}

// run lets every user redeem, one at a time each, and root issue, on s, until
// ctx ends or the server is gone. Several race for the same code. It calls
// enough after that many acknowledged redeems.
func (c *crowd) run(ctx context.Context, s *server, after int64, enough func()) {
	target := c.acked.Load() + after
	var once sync.Once
	var wg sync.WaitGroup
	// A request that was sent is waited for: one that is given up may still take
	// effect, while the codes are being counted.
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx = context.WithoutCancel(ctx)
	wg.Go(func() {
		defer cancel()
		for stop.Err() == nil {
			if !c.issue(ctx, stop.Done(), s) {
				return
			}
		}
	})
	for _, u := range c.users {
		wg.Go(func() {
			for {
				select {
				case <-stop.Done():
					return
				case key := <-c.keys:
					if !c.redeem(ctx, s, u, key) {
						cancel()
						return
					}
					if c.acked.Load() >= target {
						once.Do(enough)
					}
				}
			}
		})
	}
	wg.Wait()
}

// batchSize is how many codes a batch of the crowd has.
const batchSize = 20

// issue makes a batch and puts each of its keys up twice. It reports whether to
// go on: not when the server is gone.
func (c *crowd) issue(ctx context.Context, stop <-chan struct{}, s *server) bool {
	n := c.batches.Add(1)
	a, err := s.call(ctx, root(), http.MethodPost, "/api/redemption/", batch{fmt.Sprintf("batch %d", n), batchSize, n})
	if err != nil {
		c.note(err)
		return false
	}
	if !a.Success {
		if !c.excused(a) {
			c.note(fmt.Errorf("issue: %w: %s %s", errRefused, a.Code, a.Message))
		}
		return true
	}
	keys, err := a.keys()
	if err != nil || len(keys) != batchSize {
		c.note(fmt.Errorf("issue: %d keys, %w", len(keys), err))
	}
	c.mu.Lock()
	for _, key := range keys {
		c.issued[key] = true
	}
	c.mu.Unlock()
	for range 2 {
		for _, key := range keys {
			select {
			case c.keys <- key:
			case <-stop:
				return false
			}
		}
	}
	return true
}

// redeem tries a key once. It reports whether the server is still there.
func (c *crowd) redeem(ctx context.Context, s *server, u user, key string) bool {
	a, err := s.redeem(ctx, u, key)
	if err != nil {
		c.note(err)
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch before, ok := c.redeemed[key]; {
	case a.Success && ok:
		c.wrong = append(c.wrong, fmt.Errorf("%s was redeemed by %d and %d", key, before.ID, u.ID))
	case a.Success:
		c.redeemed[key] = u
		c.acked.Add(1)
	case a.Code != "redemption_used" && a.Code != "redemption_used_by_you" && !c.excused(a):
		c.wrong = append(c.wrong, fmt.Errorf("redeem: %w: %s %s", errRefused, a.Code, a.Message))
	}
	return true
}

// excused reports whether a refusal is that of a full disk, and counts it.
func (c *crowd) excused(a answer) bool {
	if a.Code != "unavailable" || !c.full.Load() {
		return false
	}
	c.refused.Add(1)
	return true
}

// errRefused is an answer that says no.
var errRefused = errors.New("refused")

// note keeps errors that no loss of connection explains.
func (c *crowd) note(err error) {
	if errors.Is(err, errServer) || errors.Is(err, errRefused) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.wrong = append(c.wrong, err)
	}
}

// check reports what went wrong, and audits the server with what was
// acknowledged.
func (c *crowd) check(t *testing.T, s *server, env []string) {
	t.Helper()
	for _, err := range c.wrong {
		t.Error(err)
	}
	s.audit(t, env, c.users, c.redeemed)
	all := s.codes(t)
	for key := range c.issued {
		if _, ok := all[key]; !ok {
			t.Errorf("LOST: an acknowledged batch misses a code")
		}
	}
	batches := map[string]int{}
	for _, code := range all {
		batches[code.Name]++
	}
	for name, n := range batches {
		if n%batchSize != 0 {
			t.Errorf("%s has %d codes: a batch is made whole or not at all", name, n)
		}
	}
}

// TestKill ends the server with SIGKILL in the middle of redeems, many times.
// What was acknowledged must be there afterwards, balances must be exact, the
// ledger whole, and a redeem whose answer was lost can be told from one that
// did not happen.
func TestKill(t *testing.T) {
	t.Parallel()
	random := seed(t)
	env := settings(t, "SCRIP_ROOT_TOKEN="+rootToken, "SCRIP_GUESS_LIMIT=0")
	var users []user
	for i := range 8 {
		users = append(users, createUser(t, env, fmt.Sprintf("user%d", i)))
	}
	c := newCrowd(users)
	rounds := 15
	for round := range rounds {
		s := start(t, env)
		c.retry(t, s)
		c.run(t.Context(), s, 1+random.Int64N(120), func() { _ = s.cmd.Process.Kill() })
		s.kill(t)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	s := start(t, env)
	c.retry(t, s)
	c.check(t, s, env)
	if len(c.redeemed) < rounds {
		t.Errorf("only %d redeems were acknowledged", len(c.redeemed))
	}
	s.stop(t)
	scrip(t, env, "ledger", "verify")
}

// retry sends some acknowledged redeems again, as a client does that lost the
// answer: the same user is told that it was its own.
func (c *crowd) retry(t *testing.T, s *server) {
	t.Helper()
	n := 0
	for key, u := range c.redeemed {
		a, err := s.redeem(t.Context(), u, key)
		if err != nil || a.Success || a.Code != "redemption_used_by_you" {
			t.Errorf("LOST: the retry of an acknowledged redeem answers %+v, %v", a, err)
		}
		if n++; n == 50 {
			return
		}
	}
}

// TestCommandsBesideLoad writes with the command line while the server redeems
// as fast as it can.
func TestCommandsBesideLoad(t *testing.T) {
	t.Parallel()
	env := settings(t, "SCRIP_ROOT_TOKEN="+rootToken)
	besideLoad(t, env, func() {
		slowest := time.Duration(0)
		for i := range 3 {
			for _, do := range []func(){
				func() { createUser(t, env, fmt.Sprintf("late%d", i), "--quota", "5") },
				func() { scrip(t, env, "user", "token", "late0") },
				func() { scrip(t, env, "user", "disable", "late0") },
				func() { scrip(t, env, "user", "enable", "late0") },
				func() { scrip(t, env, "ledger", "verify") },
			} {
				began := time.Now()
				do()
				slowest = max(slowest, time.Since(began))
			}
		}
		scrip(t, env, "secret", "rotate")
		if slowest > 20*time.Second {
			t.Errorf("a command took %v beside load", slowest)
		}
		t.Logf("slowest command %v", slowest)
	})
}

// TestSQLiteBackupBesideLoad: a backup is of a moment in the middle of it, and
// whole.
func TestSQLiteBackupBesideLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := settingsIn(dir, "SCRIP_ROOT_TOKEN="+rootToken)
	besideLoad(t, env, func() { scrip(t, env, "backup", dir+"/backup.db") })
	restored := settingsIn(t.TempDir(), "SCRIP_SECRET="+readSecret(t, env))
	scrip(t, restored, "restore", dir+"/backup.db")
	scrip(t, restored, "ledger", "verify")
}

// besideLoad calls do while a server redeems as fast as it can, and audits it.
func besideLoad(t *testing.T, env []string, do func()) {
	t.Helper()
	var users []user
	for i := range 8 {
		users = append(users, createUser(t, env, fmt.Sprintf("user%d", i)))
	}
	s := start(t, env)
	c := newCrowd(users)
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(ctx, s, 1, func() { close(running) })
	}()
	<-running
	do()
	cancel()
	<-done
	t.Logf("%d redeems", c.acked.Load())
	c.check(t, s, env)
	s.stop(t)
}
