package storetest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// stepMax bounds the rows that one step of a sweep or a removal may touch: it
// bounds how long a redeem waits behind it.
const stepMax = 2048

func sweepTests() map[string]func(*world) {
	return map[string]func(*world){
		"ForwardAndBack": testSweepForwardAndBack,
		"Steps":          testSweepSteps,
	}
}

func purgeTests() map[string]func(*world) {
	return map[string]func(*world){
		"Numbers":       testPurgeNumbers,
		"Steps":         testPurgeSteps,
		"JoinAndLeave":  testPurgeJoinAndLeave,
		"WorkEnds":      testPurgeWorkEnds,
		"ClockSetBack":  testPurgeClockSetBack,
		"BesideRedeems": testPurgeBesideRedeems,
	}
}

// What a list shows does not depend on how far the sweep has come, and a sweep
// changes no code and leaves no entry.
func testSweepForwardAndBack(w *world) {
	start := w.clock.Now().Truncate(time.Second)
	for i := range 6 {
		w.issue([]string{"a", "b"}[i%2], 50, 1, start.Add(time.Duration(i)*time.Minute))
	}
	w.issue("a", 50, 1, time.Time{})
	all := w.allCodes()
	entries := w.entries()
	counts := func() (out [6]int64) {
		for i, f := range allFilters() {
			out[i] = w.total(f)
		}
		_, n, err := w.codes.Search(w.ctx, w.root, "b", redemption.FilterExpired, 0, 1)
		w.check(err)
		out[5] = n
		return out
	}
	for _, c := range []struct{ minutes, expired, ofB int64 }{
		{0, 0, 0}, {2, 100, 50}, {10, 300, 150}, {3, 150, 50}, {-5, 0, 0}, {1, 50, 0}, {10, 300, 150},
	} {
		w.clock.Set(start.Add(time.Duration(c.minutes) * time.Minute))
		want := [6]int64{350, 350 - c.expired, 0, 0, c.expired, c.ofB}
		if got := counts(); got != want {
			w.Errorf("minute %d, not swept: %v, want %v", c.minutes, got, want)
		}
		w.check(w.codes.Sweep(w.ctx))
		if got := counts(); got != want {
			w.Errorf("minute %d, swept: %v, want %v", c.minutes, got, want)
		}
		n, err := w.engine.Sweep(w.ctx, w.clock.Now())
		if err != nil || n != 0 {
			w.Errorf("a sweep after the last moved %d, %v", n, err)
		}
	}
	sameViews(w.T, w.allCodes(), all)
	if n := w.entries(); n != entries {
		w.Errorf("%d entries, there were %d", n, entries)
	}
	w.audit()
}

func testSweepSteps(w *world) {
	const count = 5000
	b, _ := w.newBatch("n", count, 1, w.clock.Now().Truncate(time.Second))
	w.check(w.engine.Issue(w.ctx, b))
	w.clock.Add(time.Hour)
	var sum int64
	for {
		n, err := w.engine.Sweep(w.ctx, w.clock.Now())
		w.check(err)
		if n > stepMax {
			w.Errorf("a step moved %d", n)
		}
		if sum += n; n == 0 {
			break
		}
		if got := w.total(redemption.FilterExpired); got != count {
			w.Fatalf("after %d were swept %d have expired, want %d", sum, got, count)
		}
	}
	if sum != count {
		w.Errorf("%d were swept, want %d", sum, count)
	}
}

// purgeable makes codes in every state and returns how many of them a removal
// is to take, and those that it must leave.
func (w *world) purgeable(each int64) (invalid int64, left []redemption.View) {
	w.Helper()
	user := w.user("redeemer", 0)
	soon := w.clock.Now().Truncate(time.Second).Add(time.Minute)
	for _, c := range w.issue("used", each, 1, soon) {
		w.redeem(user, c.Key)
	}
	left = append(left, w.issue("live", each, 1, soon.Add(24*time.Hour))...)
	for i, c := range w.issue("mixed", each, 1, time.Time{}) {
		if i%2 == 0 {
			w.disable(c.ID)
			invalid++
		} else {
			left = append(left, w.get(c.ID))
		}
	}
	w.issue("expired", each, 1, soon)
	w.clock.Add(time.Hour)
	return invalid + 2*each, left
}

func testPurgeNumbers(w *world) {
	invalid, left := w.purgeable(60)
	admin := w.person("admin", account.RoleAdmin, 0)
	before := w.entries()
	n, err := w.codes.DeleteInvalid(w.ctx, w.ctx, admin)
	w.check(err)
	if n != invalid {
		w.Errorf("removed %d, want %d", n, invalid)
	}
	codes := w.allCodes()
	if len(codes) != len(left) {
		w.Errorf("%d are left, want %d", len(codes), len(left))
	}
	for _, v := range left {
		if got := w.get(v.ID); !sameCode(got.Code, v.Code) {
			w.Errorf("code %+v, it was %+v", got.Code, v.Code)
		}
	}
	var named int64
	for _, e := range w.ledger()[before:] {
		if e.Kind != account.KindPurge || e.ActorID != admin.ID || e.Address != admin.Address {
			w.Errorf("the entry is %+v", e)
		}
		named += e.Count
	}
	if named != invalid {
		w.Errorf("the ledger counts %d removed, want %d", named, invalid)
	}
	if n, err = w.codes.DeleteInvalid(w.ctx, w.ctx, admin); n != 0 || err != nil {
		w.Errorf("a second call removed %d, %v", n, err)
	}
	w.audit() // it also checks that each entry names exactly what went
}

func testPurgeSteps(w *world) {
	const invalid, live = 9000, 300
	for range 3 {
		b, _ := w.newBatch("invalid", invalid/3, 1, w.clock.Now().Truncate(time.Second))
		w.check(w.engine.Issue(w.ctx, b))
		b, _ = w.newBatch("live", live/3, 1, time.Time{})
		w.check(w.engine.Issue(w.ctx, b))
	}
	w.clock.Add(time.Hour)
	w.check(w.codes.Sweep(w.ctx))
	var sum int64
	for after, steps := int64(0), 0; ; steps++ {
		before := w.entries()
		n, next, err := w.engine.Purge(w.ctx, after, w.root, w.clock.Now())
		w.check(err)
		if sum += n; n > stepMax {
			w.Errorf("a step removed %d", n)
		}
		if made := w.entries() - before; made > 1 || n == 0 && made != 0 {
			w.Errorf("a step that removed %d left %d entries", n, made)
		}
		if next == 0 {
			break
		}
		if next <= after || steps > 1000 {
			w.Fatalf("step %d goes from %d to %d", steps, after, next)
		}
		after = next
	}
	if got := w.total(redemption.FilterAll); sum != invalid || got != live {
		w.Errorf("removed %d and left %d, want %d and %d", sum, got, invalid, live)
	}
	w.audit()
}

// gated is an engine whose removal steps wait for leave.
type gated struct {
	Engine
	arrived chan struct{}
	leave   chan struct{}
}

func (g gated) Purge(
	ctx context.Context, after int64, by account.Actor, at time.Time,
) (removed, next int64, err error) {
	select {
	case g.arrived <- struct{}{}:
	default:
	}
	<-g.leave
	return g.Engine.Purge(ctx, after, by, at)
}

// joining is a context that tells when somebody begins to wait for its end,
// which DeleteInvalid does once it has joined.
type joining struct {
	context.Context
	once  *sync.Once
	waits chan struct{}
}

func newJoining(ctx context.Context) joining {
	return joining{ctx, new(sync.Once), make(chan struct{})}
}

func (j joining) Done() <-chan struct{} {
	j.once.Do(func() { close(j.waits) })
	return j.Context.Done()
}

// A removal goes on when its caller has left; a call that comes meanwhile joins
// it and is answered the same number.
func testPurgeJoinAndLeave(w *world) {
	invalid, _ := w.purgeable(20)
	g := gated{w.engine, make(chan struct{}, 1), make(chan struct{})}
	codes := redemption.NewService(g, w.engine.Keys(), nil, w.clock.Now)

	first, leave := context.WithCancel(w.ctx)
	left := make(chan error)
	go func() {
		_, err := codes.DeleteInvalid(first, w.ctx, w.root)
		left <- err
	}()
	<-g.arrived
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		w.Errorf("the caller that left is told %v", err)
	}

	type answer struct {
		n   int64
		err error
	}
	answers := make(chan answer, 3)
	for range 3 {
		ctx := newJoining(w.ctx)
		go func() {
			n, err := codes.DeleteInvalid(ctx, w.ctx, w.root)
			answers <- answer{n, err}
		}()
		<-ctx.waits
	}
	close(g.leave)
	for range 3 {
		if a := <-answers; a.err != nil || a.n != invalid {
			w.Errorf("a call that joined is told %d, %v, want %d", a.n, a.err, invalid)
		}
	}
	if n, err := codes.DeleteInvalid(w.ctx, w.ctx, w.root); n != 0 || err != nil {
		w.Errorf("the next call removed %d, %v", n, err)
	}
	w.audit()
}

// When the program ends, a removal stops between two steps, and says so.
func testPurgeWorkEnds(w *world) {
	invalid, left := w.purgeable(20)
	g := gated{w.engine, make(chan struct{}, 1), make(chan struct{})}
	codes := redemption.NewService(g, w.engine.Keys(), nil, w.clock.Now)
	work, end := context.WithCancel(w.ctx)
	stopped := make(chan error)
	go func() {
		_, err := codes.DeleteInvalid(w.ctx, work, w.root)
		stopped <- err
	}()
	<-g.arrived
	end()
	close(g.leave)
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		w.Errorf("the caller is told %v", err)
	}
	w.audit()
	rest := w.total(redemption.FilterAll) - int64(len(left))
	if n, err := w.codes.DeleteInvalid(w.ctx, w.ctx, w.root); n != rest || err != nil || n > invalid {
		w.Errorf("the next call removed %d, %v, want %d", n, err, rest)
	}
	w.audit()
}

// What was swept as expired and is in time after all stays.
func testPurgeClockSetBack(w *world) {
	last := w.clock.Now().Truncate(time.Second).Add(time.Minute)
	codes := w.issue("n", 30, 1, last)
	w.clock.Set(last.Add(time.Hour))
	w.check(w.codes.Sweep(w.ctx))
	w.clock.Set(last)
	w.disable(codes[3].ID)
	n, next, err := w.engine.Purge(w.ctx, 0, w.root, w.clock.Now()) // no sweep before it
	if n != 1 || next == 0 || err != nil {
		w.Errorf("a step removed %d, %v, want the disabled one", n, err)
	}
	if n, err := w.codes.DeleteInvalid(w.ctx, w.ctx, w.root); n != 0 || err != nil {
		w.Errorf("removed %d, %v", n, err)
	}
	if n := w.total(redemption.FilterLive); n != 29 {
		w.Errorf("%d are live, want 29", n)
	}
	w.audit()
}

// A code that is redeemed while the removal runs is paid, removed or not.
func testPurgeBesideRedeems(w *world) {
	user := w.user("u", 0)
	codes := w.issue("n", 100, 1, time.Time{})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := w.codes.DeleteInvalid(w.ctx, w.ctx, w.root); err != nil {
				w.Error(err)
				return
			}
		}
	})
	var redeems sync.WaitGroup
	for i := range 4 {
		redeems.Go(func() {
			for _, c := range codes[25*i : 25*i+25] {
				if _, err := w.codes.Redeem(w.ctx, user, c.Key, nil); err != nil {
					w.Error(err)
				}
			}
		})
	}
	redeems.Wait()
	close(stop)
	wg.Wait()
	w.wantBalance(user.ID, 100)
	w.audit()
}
