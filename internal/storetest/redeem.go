package storetest

import (
	"errors"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func redeemTests() map[string]func(*world) {
	return map[string]func(*world){
		"Success":      testRedeemSuccess,
		"Refusals":     testRedeemRefusals,
		"Normalised":   testRedeemNormalised,
		"ExactSecond":  testRedeemExactSecond,
		"ClockSetBack": testRedeemClockSetBack,
		"Overflow":     testRedeemOverflow,
		"DisabledUser": testRedeemDisabledUser,
		"Guesses":      testRedeemGuesses,
		"Stale":        testRedeemStale,
		"AfterClose":   testRedeemAfterClose,
	}
}

func testRedeemSuccess(w *world) {
	code := w.issueOne(250)
	user := w.user("u", 40)
	w.clock.Add(1234 * time.Millisecond)
	if n := w.redeem(user, code.Key); n != 250 {
		w.Errorf("credited %d, want 250", n)
	}
	w.wantBalance(user.ID, 290)
	want := code.Code
	want.Status, want.Redeemed, want.UsedBy = redemption.StatusUsed, w.clock.Now(), user.ID
	if got := w.get(code.ID); !sameCode(got.Code, want) || got.Key != code.Key {
		w.Errorf("the code is %+v, want %+v", got.Code, want)
	}
	e := w.lastEntry()
	if e.Kind != account.KindRedeem || e.ActorID != user.ID || e.AccountID != user.ID || e.Address != user.Address ||
		e.FirstID != code.ID || e.Amount != 250 || !e.At.Equal(w.clock.Now()) {
		w.Errorf("the entry is %+v", e)
	}
	// Taking the code away leaves the record.
	w.check(w.codes.Delete(w.ctx, w.root, code.ID))
	entries, err := w.engine.Ledger(w.ctx, account.LedgerFilter{CodeID: code.ID, Limit: 10})
	w.check(err)
	if len(entries) != 3 || entries[1].Kind != account.KindRedeem {
		w.Errorf("the ledger says of the removed code: %+v", entries)
	}
	w.wantBalance(user.ID, 290)
	w.audit()
}

func testRedeemRefusals(w *world) {
	one, two := w.user("one", 0), w.user("two", 0)
	soon := w.clock.Now().Truncate(time.Second).Add(time.Minute)
	codes := w.issue("some", 4, 10, soon)
	used, disabled, deleted, expired := codes[0], codes[1], codes[2], codes[3]
	w.redeem(one, used.Key)
	w.disable(disabled.ID)
	w.check(w.codes.Delete(w.ctx, w.root, deleted.ID))
	usedExpired := used.Key // a used code stays used when its time has passed

	w.clock.Add(time.Hour)
	unchanged := w.unchanged()
	for _, swept := range []string{"before the sweep", "after the sweep"} {
		for _, c := range []struct {
			by   account.Actor
			key  string
			want refusal.Code
		}{
			{one, "", refusal.RedemptionKeyMissing},
			{one, " - - ", refusal.RedemptionKeyMissing},
			{one, "nonsense", refusal.RedemptionUnknown},
			{one, strings.Repeat("f", 32), refusal.RedemptionUnknown},
			{one, used.Key[:31], refusal.RedemptionUnknown},
			{one, used.Key + "0", refusal.RedemptionUnknown},
			{one, deleted.Key, refusal.RedemptionUnknown},
			{one, usedExpired, refusal.RedemptionUsedByYou},
			{two, usedExpired, refusal.RedemptionUsed},
			{one, disabled.Key, refusal.RedemptionDisabled},
			{one, expired.Key, refusal.RedemptionExpired},
			{account.Actor{ID: 999, Role: account.RoleUser}, expired.Key, refusal.Unauthenticated},
		} {
			n, err := w.codes.Redeem(w.ctx, c.by, c.key, nil)
			if refusal.CodeOf(err) != c.want || n != 0 {
				w.Errorf("%s: %q by %d: %d, %v, want %s", swept, c.key, c.by.ID, n, err, c.want)
			}
		}
		unchanged()
		w.check(w.codes.Sweep(w.ctx))
	}
	w.audit()
}

func testRedeemNormalised(w *world) {
	user := w.user("u", 0)
	for _, write := range []func(string) string{
		strings.ToUpper,
		func(k string) string { return "  " + k + "\t\n" },
		func(k string) string { return k[:8] + "-" + k[8:16] + "-" + k[16:] },
		func(k string) string { return "-- " + strings.ToUpper(k[:4]) + "--" + k[4:] + " -" },
	} {
		code := w.issueOne(3)
		text := write(code.Key)
		w.redeem(user, text)
		_, err := w.codes.Redeem(w.ctx, user, code.Key, nil)
		w.refused(err, refusal.RedemptionUsedByYou)
		views, total, err := w.codes.Search(w.ctx, w.root, text, redemption.FilterAll, 0, 10)
		w.check(err)
		if total != 1 || len(views) != 1 || views[0].ID != code.ID {
			w.Errorf("searching %q finds %v of %d", text, ids(views), total)
		}
	}
	w.wantBalance(user.ID, 12)
}

// A code lives to the end of the second that it names.
func testRedeemExactSecond(w *world) {
	user := w.user("u", 0)
	last := w.clock.Now().Truncate(time.Second).Add(time.Minute)
	codes := w.issue("n", 4, 1, last)
	w.clock.Set(last)
	w.redeem(user, codes[0].Key)
	w.clock.Set(last.Add(999 * time.Millisecond))
	w.redeem(user, codes[1].Key)
	if n := w.total(redemption.FilterLive); n != 2 {
		w.Errorf("%d codes are live in their last millisecond, want 2", n)
	}
	w.check(w.codes.Sweep(w.ctx))
	w.clock.Set(last.Add(time.Second))
	_, err := w.codes.Redeem(w.ctx, user, codes[2].Key, nil)
	w.refused(err, refusal.RedemptionExpired)
	if n := w.total(redemption.FilterExpired); n != 2 {
		w.Errorf("%d codes have expired, want 2", n)
	}
	w.check(w.codes.Sweep(w.ctx))
	_, err = w.codes.Redeem(w.ctx, user, codes[3].Key, nil)
	w.refused(err, refusal.RedemptionExpired)
	w.audit()
}

// A code that was swept as expired is redeemable when the clock turns out to
// have been ahead, swept back or not.
func testRedeemClockSetBack(w *world) {
	user := w.user("u", math.MaxInt64-1)
	last := w.clock.Now().Truncate(time.Second).Add(time.Minute)
	codes := w.issue("n", 5, 1, last)
	w.clock.Set(last.Add(time.Hour))
	w.check(w.codes.Sweep(w.ctx))
	w.clock.Set(last)
	if n := w.total(redemption.FilterLive); n != 5 {
		w.Errorf("%d codes are live, want 5", n)
	}
	w.disable(codes[1].ID)
	w.redeem(user, codes[0].Key)
	_, err := w.codes.Redeem(w.ctx, user, codes[2].Key, nil) // it was swept, and must be as it was
	w.refused(err, refusal.AccountBalanceFull)
	w.audit()
	w.check(w.codes.Sweep(w.ctx))
	w.audit()
	other := w.user("other", 0)
	w.redeem(other, codes[2].Key)
	w.clock.Set(last.Add(time.Hour))
	w.check(w.codes.Sweep(w.ctx))
	_, err = w.codes.Redeem(w.ctx, other, codes[3].Key, nil)
	w.refused(err, refusal.RedemptionExpired)
	w.audit()
}

// A redeem that would overflow the balance leaves the code as it was, and does
// not touch those that share its commit, of the same account or of others.
func testRedeemOverflow(w *world) {
	const small, large = 10, math.MaxInt64 - 100
	rich, poor := w.user("rich", math.MaxInt64-35), w.user("poor", 0)
	smalls := w.issue("small", 20, small, time.Time{})
	larges := w.issue("large", 2, large, time.Time{})

	var wg sync.WaitGroup
	errs := make([]error, len(smalls))
	start := make(chan struct{})
	for i, c := range smalls {
		by := rich
		if i%2 == 0 {
			by = poor
		}
		wg.Go(func() {
			<-start
			_, errs[i] = w.codes.Redeem(w.ctx, by, c.Key, nil)
		})
	}
	close(start)
	wg.Wait()
	full := 0
	for i, err := range errs {
		switch {
		case i%2 == 0 || err == nil:
			w.check(err)
		default:
			w.refused(err, refusal.AccountBalanceFull)
			full++
			if got := w.get(smalls[i].ID); !sameCode(got.Code, smalls[i].Code) {
				w.Errorf("the refused code is %+v, it was %+v", got.Code, smalls[i].Code)
			}
		}
	}
	if full != 7 {
		w.Errorf("%d of 10 were refused, want 7", full)
	}
	w.wantBalance(rich.ID, math.MaxInt64-5)
	w.wantBalance(poor.ID, 100)

	w.redeem(poor, larges[0].Key)
	w.wantBalance(poor.ID, math.MaxInt64)
	_, err := w.codes.Redeem(w.ctx, poor, larges[1].Key, nil)
	w.refused(err, refusal.AccountBalanceFull)
	w.audit()
	other := w.user("other", 0)
	w.redeem(other, larges[1].Key)
	w.audit()
}

func testRedeemDisabledUser(w *world) {
	user, code := w.user("u", 3), w.issueOne(4)
	w.check(w.accounts.SetStatus(w.ctx, account.Operator(), user.ID, account.StatusDisabled))
	unchanged := w.unchanged()
	_, err := w.codes.Redeem(w.ctx, user, code.Key, nil)
	w.refused(err, refusal.Unauthenticated)
	unchanged()
	w.check(w.accounts.SetStatus(w.ctx, account.Operator(), user.ID, account.StatusEnabled))
	w.redeem(user, code.Key)
	w.audit()
}

// Only look-ups that found nothing count, exactly as many pass as are allowed
// however many run at once, and over the limit nothing is looked up.
func testRedeemGuesses(w *world) {
	const allowed = 5
	w.redeemGuesses(allowed, guess.New(allowed, guessWindow, w.clock.Now))
}

func (w *world) redeemGuesses(allowed int, l *guess.Limiter) {
	w.Helper()
	codes := w.guarded(l)
	user := w.user("u", 0)
	good := w.issue("n", 50, 1, time.Time{})
	redeem := func(key string) error {
		_, err := codes.Redeem(w.ctx, user, key, nil)
		return err
	}
	var wg sync.WaitGroup
	for _, c := range good[:40] { // known ones consume nothing, however many at once
		for range 3 {
			wg.Go(func() {
				if err := redeem(c.Key); err != nil && refusal.CodeOf(err) != refusal.RedemptionUsedByYou {
					w.Errorf("a known key: %v", err)
				}
			})
		}
	}
	wg.Wait()

	var mu sync.Mutex
	got := make(map[refusal.Code]int)
	for range 30 {
		wg.Go(func() {
			err := redeem(account.NewToken())
			mu.Lock()
			defer mu.Unlock()
			got[refusal.CodeOf(err)]++
		})
	}
	wg.Wait()
	if got[refusal.RedemptionUnknown] != allowed || got[refusal.AccountTooManyGuesses] != 30-allowed {
		w.Errorf("of 30 guesses at once: %v, want %d unknown and the rest too many", got, allowed)
	}
	unchanged := w.unchanged()
	err := redeem(good[40].Key)
	w.refused(err, refusal.AccountTooManyGuesses)
	var r *refusal.Error
	if !errors.As(err, &r) || r.RetryAfter != guessWindow {
		w.Errorf("to come back after %v, want 10 minutes", r.RetryAfter)
	}
	unchanged()
	w.clock.Add(guessWindow)
	w.check(redeem(good[40].Key))
	w.audit()
}

func testRedeemStale(w *world) {
	user, code := w.user("u", 0), w.issueOne(4)
	ring, err := w.engine.Keys().Reload(w.ctx)
	w.check(err)
	w.check(w.engine.Rotate(w.ctx, nil))
	unchanged := w.unchanged()
	guesses := guess.New(1, guessWindow, w.clock.Now)
	attempt := redemption.Attempt{
		Epoch: ring.Epoch(), Indexes: ring.Indexes(code.Key), By: user, At: w.clock.Now(),
		Guesses: guesses, Guessers: []string{"u"},
	}
	_, err = w.engine.Redeem(w.ctx, attempt)
	w.stale(err)
	if guesses.Left("u") != 1 {
		w.Error("a stale attempt is a guess")
	}
	guesses.Note("u")
	_, err = w.engine.Redeem(w.ctx, attempt) // not refused: nobody is asked to admit it
	w.stale(err)
	unchanged()
}

// Every call after Close fails, and none waits for ever; what was acknowledged
// before is there.
func testRedeemAfterClose(w *world) {
	const n = 64
	user := w.user("u", 0)
	codes := w.issue("n", n, 1, time.Time{})
	e := w.handle(testSecret)
	other := w.on(e)
	var wg sync.WaitGroup
	var acknowledged sync.Map
	started := make(chan struct{}, n)
	for _, c := range codes {
		wg.Go(func() {
			started <- struct{}{}
			if _, err := other.codes.Redeem(w.ctx, user, c.Key, nil); err == nil {
				acknowledged.Store(c.ID, true)
			}
		})
	}
	for range n / 2 {
		<-started
	}
	w.check(e.Close())
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-w.eventually().Done():
		w.Fatal("a redeem hangs after Close")
	}
	acknowledged.Range(func(id, _ any) bool {
		if c := w.get(id.(int64)); c.Status != redemption.StatusUsed {
			w.Errorf("code %d was acknowledged and is %+v", c.ID, c.Code)
		}
		return true
	})
	for range 20 { // a call that may pass by chance must not
		if _, err := other.codes.Redeem(w.ctx, user, codes[0].Key, nil); err == nil || refusal.CodeOf(err) != "" {
			w.Fatalf("Redeem after Close: %v", err)
		}
		if _, err := e.Get(w.ctx, codes[0].ID); err == nil {
			w.Fatal("Get works after Close")
		}
		if err := e.Delete(w.ctx, codes[0].ID, w.root, w.clock.Now()); err == nil {
			w.Fatal("Delete works after Close")
		}
		if err := e.Ping(w.ctx); err == nil {
			w.Fatal("Ping works after Close")
		}
	}
	w.check(e.Close()) // again: nothing
	w.audit()
}
