package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// guessWindow is the window of the suite's limiters.
const guessWindow = 10 * time.Minute

// RunShared runs what an engine must do beyond Run when several servers share
// its database: each handle stands for a server, and it is a guess.Store.
func RunShared(t *testing.T, create func(t *testing.T) Opener) {
	t.Helper()
	for name, test := range map[string]func(*world){
		"Redeem":       testSharedRedeem,
		"RedeemAtOnce": testSharedRedeemAtOnce,
		"Login":        testSharedLogin,
		"LoginAtOnce":  testSharedLoginAtOnce,
		"MachineLogin": testSharedMachineLogin,
		"Guessing":     testSharedGuessing,
		"Forgiven":     testSharedForgiven,
		"Worst":        testSharedWorst,
		"Apart":        testSharedApart,
		"AddUp":        testSharedAddUp,
		"Window":       testSharedWindow,
		"AfterClose":   testSharedAfterClose,
	} {
		t.Run("Guesses/"+name, func(t *testing.T) { test(newWorld(t, create)) })
	}
}

// guesses is the handle as what keeps the counts.
func (w *world) guesses() guess.Store {
	w.Helper()
	store, ok := w.engine.(guess.Store)
	if !ok {
		w.Fatalf("%T keeps no counts of guesses", w.engine)
	}
	return store
}

func (w *world) shared(name string, allowed int) *guess.Limiter {
	w.Helper()
	return guess.Shared(name, allowed, guessWindow, w.clock.Now, w.guesses())
}

// tooMany fails the test unless err is a refusal of too many guesses, until wait
// has passed.
func (w *world) tooMany(err error, wait time.Duration) {
	w.Helper()
	w.refused(err, refusal.AccountTooManyGuesses)
	if r, ok := errors.AsType[*refusal.Error](err); !ok || r.RetryAfter != wait {
		w.Errorf("to come back after %v, want %v", r.RetryAfter, wait)
	}
}

// servers are two worlds of one database, on a handle each.
func (w *world) servers() [2]*world { return [2]*world{w, w.on(w.handle(testSecret))} }

// spread calls guess allowed times, a second apart: all but the last on one
// server, which knows nearly enough, the last on the other, which knows nearly
// nothing. Then it calls try on each: both must refuse, until the window has passed.
func (w *world) spread(allowed int, code refusal.Code, guess, try func(server int) error) {
	w.Helper()
	for i := range allowed {
		w.refused(guess(i/(allowed-1)), code)
		w.clock.Add(time.Second)
	}
	for server := range 2 {
		w.tooMany(try(server), guessWindow-time.Duration(allowed)*time.Second)
	}
	w.clock.Add(guessWindow - time.Duration(allowed)*time.Second - time.Millisecond)
	for server := range 2 {
		w.tooMany(try(server), time.Millisecond)
	}
	w.clock.Add(time.Millisecond)
	for server := range 2 {
		w.check(try(server))
	}
}

func testSharedRedeem(w *world) {
	const allowed = 4
	user, good := w.user("u", 0), w.issue("n", 2, 1, time.Time{})
	var redeem [2]func(key string) error
	for i, server := range w.servers() {
		codes := server.guarded(server.shared("redeems", allowed))
		redeem[i] = func(key string) error {
			_, err := codes.Redeem(w.ctx, user, key, nil)
			return err
		}
	}
	w.spread(allowed, refusal.RedemptionUnknown,
		func(i int) error { return redeem[i](account.NewToken()) },
		func(i int) error { return redeem[i](good[i].Key) })
	w.wantBalance(user.ID, 2)
	w.audit()
}

// On one server the limit is exact, however many guess at once.
func testSharedRedeemAtOnce(w *world) { w.redeemGuesses(5, w.shared("redeems", 5)) }

func testSharedLogin(w *world) {
	const allowed = 4
	_, err := w.accounts.Create(w.ctx, w.root, account.CreateRequest{Username: "ann", Password: "correct horse"})
	w.check(err)
	var login [2]func(password, address string) error
	for i, server := range w.servers() {
		accounts := account.NewService(server.engine, server.shared("logins", allowed), w.clock.Now)
		login[i] = func(password, address string) error {
			_, _, err := accounts.Login(w.ctx, "ann", password, address)
			return err
		}
	}
	address := [2]string{"192.0.2.1", "192.0.2.2"}
	w.spread(allowed, refusal.AccountWrongPassword,
		func(i int) error { return login[i]("wrong horse", address[i]) },
		func(i int) error { return login[i]("correct horse", address[i]) })
}

func testSharedLoginAtOnce(w *world) { w.loginGuesses(3, w.shared("logins", 3)) }

func testSharedMachineLogin(w *world) {
	const allowed = 4
	m := w.machine("00000001")
	var login [2]func(password string) error
	for i, server := range w.servers() {
		machines := fleet.NewService(server.engine, server.engine.Keys(), server.shared("machines", allowed), w.clock.Now, nil)
		login[i] = func(password string) error {
			_, err := machines.Login(w.ctx, m.No, password, machineAddress)
			return err
		}
	}
	w.spread(allowed, refusal.MachineWrongPassword,
		func(i int) error { return login[i]("wrong") },
		func(i int) error { return login[i]("password of " + m.No) })
}

func testSharedGuessing(w *world) {
	w.guessing(func(name string) *guess.Limiter { return w.shared(name, 4) })
}

// A server that refuses somebody learns that another has forgiven them.
func testSharedForgiven(w *world) {
	servers := w.servers()
	one, other := servers[0].shared("logins", 2), servers[1].shared("logins", 2)
	address := guess.Address("192.0.2.1")
	for round := range 3 {
		for range 2 {
			w.check(other.Failed(w.ctx, address))
		}
		w.tooMany(one.Admit(w.ctx, address), guessWindow)
		w.tooMany(other.Known(address), guessWindow)
		w.check(other.Refresh(w.ctx))
		w.tooMany(other.Known(address), guessWindow)
		w.check(one.Forgive(w.ctx, address))
		w.check(one.Admit(w.ctx, address))
		w.tooMany(other.Admit(w.ctx, address), guessWindow) // by what it knows
		w.check(other.Refresh(w.ctx))
		w.check(other.Known(address))
		if left := other.Left(address); left != 2 {
			w.Errorf("round %d: %d guesses are left, want 2", round, left)
		}
	}
	// What fails afterwards counts, on both.
	w.check(one.Failed(w.ctx, address))
	w.check(other.Failed(w.ctx, address))
	w.tooMany(one.Admit(w.ctx, address), guessWindow)
	w.tooMany(other.Admit(w.ctx, address), guessWindow)
	w.clock.Add(guessWindow)
	w.check(one.Failed(w.ctx, address))
	w.check(other.Admit(w.ctx, address))
	w.check(other.Refresh(w.ctx))
}

// WorstGuesses is of one limiter, of labelled subjects, and bounded.
func testSharedWorst(w *world) {
	now := w.clock.Now()
	since := now.Add(-guessWindow)
	add := func(name, label string, n int, at time.Time) {
		subject := bytes.Repeat([]byte(fmt.Sprintf("%8s", label)), 4)
		for range n {
			w.check(w.guesses().AddGuesses(w.ctx, name, []guess.Failure{{Subject: subject, Label: label}}, at, at.Add(-guessWindow)))
		}
	}
	add("logins", "a1", 5, now)
	add("logins", "a22", 9, now)
	add("logins", "a333", 2, now)
	add("logins", "", 8, now)
	add("logins", "a4444", 7, since)
	add("redeems", "a55555", 6, now)
	for most, want := range map[int][]string{100: {"a22", "a1"}, 1: {"a22"}} {
		counts, err := w.guesses().WorstGuesses(w.ctx, "logins", 3, since, most)
		w.check(err)
		var got []string
		for _, c := range counts {
			got = append(got, c.Label)
			if !c.Began.Equal(now) {
				w.Errorf("the count is %+v", c)
			}
		}
		if !slices.Equal(got, want) {
			w.Errorf("at most %d: %q, want %q", most, got, want)
		}
	}
}

// Limiters of different names count apart, for all that they share.
func testSharedApart(w *world) {
	logins, redeems := w.shared("logins", 1), w.shared("redeems", 1)
	w.check(logins.Failed(w.ctx, "a"))
	w.check(redeems.Admit(w.ctx, "a"))
	w.check(logins.Admit(w.ctx, "b"))
	w.tooMany(logins.Admit(w.ctx, "a"), guessWindow)
}

// guessesOf reads one subject's count; zero if there is none.
func (w *world) guessesOf(subject []byte, since time.Time) guess.Count {
	w.Helper()
	counts, err := w.guesses().Guesses(w.ctx, [][]byte{subject}, since)
	w.check(err)
	switch len(counts) {
	case 0:
		return guess.Count{}
	case 1:
		if bytes.Equal(counts[0].Subject, subject) {
			return counts[0]
		}
	}
	w.Fatalf("asked for %x, the counts are %+v", subject, counts)
	return guess.Count{}
}

func failures(subjects ...[]byte) (f []guess.Failure) {
	for _, s := range subjects {
		f = append(f, guess.Failure{Subject: s})
	}
	return f
}

// However many add at once, from however many servers and in whatever order,
// each is counted, as often as it is listed.
func testSharedAddUp(w *world) {
	const each, many = 10, 16
	subjects := make([][]byte, 8)
	for i := range subjects {
		subjects[i] = bytes.Repeat([]byte{byte(i)}, 32)
	}
	backwards := slices.Clone(subjects)
	slices.Reverse(backwards)
	backwards = append(backwards, subjects[3], subjects[3])
	now := w.clock.Now()
	since := now.Add(-guessWindow)
	servers := w.servers()
	var wg sync.WaitGroup
	for i := range many {
		list := subjects
		if i%4 < 2 {
			list = backwards
		}
		wg.Go(func() {
			for range each {
				if err := servers[i%2].guesses().AddGuesses(w.ctx, "logins", failures(list...), now, since); err != nil {
					w.Error(err)
				}
			}
		})
	}
	wg.Wait()
	counts, err := w.guesses().Guesses(w.ctx, append(backwards, []byte("nobody")), since)
	w.check(err)
	slices.SortFunc(counts, func(a, b guess.Count) int { return bytes.Compare(a.Subject, b.Subject) })
	if len(counts) != len(subjects) {
		w.Fatalf("%d counts, want %d: %+v", len(counts), len(subjects), counts)
	}
	for i, c := range counts {
		want := int64(each * many)
		if i == 3 {
			want *= 2 // twice more, by half of them
		}
		if !bytes.Equal(c.Subject, subjects[i]) || c.Failed != want || !c.Began.Equal(now) {
			w.Errorf("the count %+v, want %d of %x since %v", c, want, subjects[i], now)
		}
	}
}

// A window begins with its first guess, and anew when it has passed or begins in
// the future.
func testSharedWindow(w *world) {
	subject := bytes.Repeat([]byte{7}, 32)
	start := w.clock.Now()
	for i, step := range []struct {
		at     time.Duration // from the start
		began  time.Duration
		failed int64
	}{
		{0, 0, 1},
		{time.Second, 0, 2},
		{guessWindow - time.Millisecond, 0, 3},
		{guessWindow, guessWindow, 1}, // passed
		{guessWindow + time.Second, guessWindow, 2},
		{guessWindow, guessWindow, 3},                               // set back, but not before it began
		{guessWindow - time.Millisecond, guessWindow - 1e6, 1},      // set back before
		{5 * guessWindow, 5 * guessWindow, 1},                       // long passed
		{5 * guessWindow, 5 * guessWindow, 2},                       //
		{-100 * guessWindow, -100 * guessWindow, 1},                 // long before
		{-99*guessWindow - time.Millisecond, -100 * guessWindow, 2}, //
		{-99 * guessWindow, -99 * guessWindow, 1},                   // passed
		{-99*guessWindow + time.Millisecond, -99 * guessWindow, 2},  //
		{-98*guessWindow + time.Second, -98*guessWindow + 1e9, 1},   // passed
	} {
		now := start.Add(step.at)
		since := now.Add(-guessWindow)
		w.check(w.guesses().AddGuesses(w.ctx, "logins", failures(subject), now, since))
		got := w.guessesOf(subject, since)
		if got.Failed != step.failed || !got.Began.Equal(start.Add(step.began)) {
			w.Errorf("step %d: %d failed since %v, want %d since %v", i, got.Failed, got.Began.Sub(start), step.failed, step.began)
		}
		if c := w.guessesOf(subject, got.Began); c.Failed != 0 {
			w.Errorf("step %d: found after it began: %+v", i, c)
		}
		if c := w.guessesOf(subject, got.Began.Add(-time.Millisecond)); c.Failed != step.failed {
			w.Errorf("step %d: right before it began: %+v", i, c)
		}
	}
}

// While the database does not answer, nothing is admitted.
func testSharedAfterClose(w *world) {
	e := w.handle(testSecret)
	closed := w.on(e).shared("logins", 1)
	w.check(closed.Admit(w.ctx, "a"))
	w.check(e.Close())
	if err := closed.Admit(w.ctx, "a"); err == nil || refusal.CodeOf(err) != "" {
		w.Errorf("admitted by a closed database: %v", err)
	}
	if err := closed.Failed(w.ctx, "a"); err == nil || refusal.CodeOf(err) != "" {
		w.Errorf("counted by a closed database: %v", err)
	}
	w.tooMany(closed.Admit(w.ctx, "a"), guessWindow) // this it knows
	w.check(w.shared("logins", 1).Admit(w.ctx, "a"))
}
