package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func keyTests() map[string]func(*world) {
	return map[string]func(*world){
		"WrongSecret":  testKeysWrongSecret,
		"NewSecret":    testKeysNewSecret,
		"Resealed":     testKeysResealed,
		"Interrupted":  testKeysInterrupted,
		"TakenUp":      testKeysTakenUp,
		"Uniqueness":   testKeysUniqueness,
		"TwoRotators":  testKeysTwoRotators,
		"BesideOthers": testKeysBesideOthers,
	}
}

func handleTests() map[string]func(*world) {
	return map[string]func(*world){
		"Writers":   testHandlesWriters,
		"Rotation":  testHandlesRotation,
		"RootOnce":  testHandlesRootOnce,
		"Reopening": testHandlesReopening,
	}
}

func (w *world) generations() int {
	w.Helper()
	ring, err := w.engine.Keys().Reload(w.ctx)
	w.check(err)
	return ring.Generations()
}

// sealedUnder checks that every code is sealed under the newest generation, and
// can be read and found.
func (w *world) sealedUnder(newest int64) {
	w.Helper()
	rows, _, err := w.engine.List(w.ctx, redemption.Query{Now: w.clock.Now(), Limit: 1 << 20})
	w.check(err)
	for _, row := range rows {
		if n := keyring.SealedUnder(row.Sealed); n != newest {
			w.Errorf("code %d is sealed under generation %d, want %d", row.ID, n, newest)
		}
	}
}

func (w *world) newest() int64 {
	w.Helper()
	ring, err := w.engine.Keys().Reload(w.ctx)
	w.check(err)
	return ring.Newest()
}

// findable checks that the key of each code finds it.
func (w *world) findable(codes []redemption.View) {
	w.Helper()
	for _, c := range codes {
		page, total, err := w.codes.Search(w.ctx, w.root, c.Key, redemption.FilterAll, 0, 10)
		w.check(err)
		if total != 1 || page[0].ID != c.ID || page[0].Key != c.Key {
			w.Fatalf("the key of code %d finds %v of %d", c.ID, ids(page), total)
		}
	}
}

func testKeysWrongSecret(w *world) {
	unchanged := w.unchanged()
	for _, secrets := range [][]string{{"wrong"}, {"wrong", "wrong too"}, {testSecret + " "}} {
		e, err := w.open(w.ctx, Options{Secrets: secrets, Now: w.clock.Now})
		if !errors.Is(err, keyring.ErrWrongSecret) {
			w.Errorf("opening with %q: %v", secrets, err)
		}
		if err == nil {
			w.check(e.Close())
		}
	}
	unchanged()
	w.on(w.handle("wrong", testSecret)).audit()
}

// After a rotation the new secret is enough, and the old one is worth nothing.
func testKeysNewSecret(w *world) {
	codes := w.issue("n", 5, 1, time.Time{})
	other := w.on(w.handle("new secret", testSecret))
	w.check(other.engine.Rotate(w.ctx, nil))
	_, err := w.open(w.ctx, Options{Secrets: []string{testSecret}, Now: w.clock.Now})
	if !errors.Is(err, keyring.ErrWrongSecret) {
		w.Errorf("the old secret opens the keys after the rotation: %v", err)
	}
	fresh := w.on(w.handle("new secret"))
	fresh.findable(codes)
	fresh.redeem(w.user("u", 0), codes[0].Key)
	fresh.audit()
}

func testKeysResealed(w *world) {
	user := w.user("u", 0)
	codes := w.issue("n", 100, 1, time.Time{})
	for range 6 {
		codes = append(codes, w.issue("m", 100, 1, time.Time{})...)
	}
	w.redeem(user, codes[0].Key)
	w.disable(codes[1].ID)
	used := codes[2:]
	codes[0], codes[1] = w.get(codes[0].ID), w.get(codes[1].ID)
	issue := w.effects("resealed")[0]
	var answers [3]string
	for i := range answers {
		var err error
		answers[i], err = w.try(issue, fmt.Sprint("scope", i), "body")
		w.check(err)
	}
	all := w.allCodes()

	for round := range int64(2) {
		was := w.newest()
		var last [2]int64
		w.check(w.engine.Rotate(w.ctx, func(done, total int64) {
			if done < last[0] || done > total || total < last[1] {
				w.Errorf("progress went from %v to %d of %d", last, done, total)
			}
			last = [2]int64{done, total}
		}))
		if n := w.newest(); n != was+1 || w.generations() != 1 || last[0] != last[1] {
			w.Errorf("newest is %d after %d, of %d; progress ended at %v", n, was, w.generations(), last)
		}
		w.sealedUnder(was + 1)
		for i := range answers {
			scope := fmt.Sprint("scope", i)
			_, err := w.try(issue, scope, "body")
			w.replayed(err, scope, "body", answers[i])
			if r, _ := errors.AsType[*account.Replay](err); keyring.SealedUnder(r.Answer) != was+1 {
				w.Errorf("the answer is sealed under generation %d", keyring.SealedUnder(r.Answer))
			}
		}
		sameViews(w.T, w.allCodes(), all)
		w.findable(used[round*300 : round*300+20])
		w.audit()
	}
	w.redeem(user, used[0].Key)
	entries := w.ledger()
	rotations := 0
	for _, e := range entries {
		if e.Kind == account.KindRotate {
			rotations++
		}
	}
	if rotations != 4 {
		w.Errorf("%d entries say that keys were rotated, want 4", rotations)
	}
	w.audit()
}

// rotateStep rotates until a step is done, as if it was killed then.
func (w *world) rotateStep() error {
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	return w.engine.Rotate(ctx, func(int64, int64) { cancel() })
}

// A rotation that was cut off goes on where it was. Meanwhile, everything works
// under both generations.
// A rotation that was cut off and is taken up with a new secret leaves nothing
// that needs the old one.
func testKeysTakenUp(w *world) {
	var codes []redemption.View
	for range 8 {
		codes = append(codes, w.issue("n", 100, 1, time.Time{})...)
	}
	if err := w.rotateStep(); !errors.Is(err, context.Canceled) {
		w.Fatalf("the interrupted rotation: %v", err)
	}
	other := w.on(w.handle("new secret", testSecret))
	w.check(other.engine.Rotate(w.ctx, nil))
	fresh := w.on(w.handle("new secret"))
	fresh.sealedUnder(2)
	fresh.findable(codes[:3])
	fresh.audit()
	if _, err := w.open(w.ctx, Options{Secrets: []string{testSecret}, Now: w.clock.Now}); !errors.Is(err, keyring.ErrWrongSecret) {
		w.Errorf("the old secret still opens the keys: %v", err)
	}
}

func testKeysInterrupted(w *world) {
	user := w.user("u", 0)
	var codes []redemption.View
	for range 8 {
		codes = append(codes, w.issue("n", 100, 1, time.Time{})...)
	}
	first := w.newest()
	err := w.rotateStep()
	if !errors.Is(err, context.Canceled) {
		w.Fatalf("the interrupted rotation: %v", err)
	}
	if n := w.generations(); n != 2 || w.newest() != first+1 {
		w.Fatalf("%d generations are live, the newest is %d", n, w.newest())
	}
	sameViews(w.T, w.allCodes(), reversed(codes))
	for _, i := range []int{0, 1, 798, 799} { // those not reached yet, and those done
		w.findable(codes[i : i+1])
	}
	w.redeem(user, codes[0].Key)
	w.redeem(user, codes[799].Key)
	w.change(codes[1].ID, redemption.Change{Quota: new(int64(5))})
	w.check(w.codes.Delete(w.ctx, w.root, codes[2].ID))
	between := w.issue("between", 50, 1, time.Time{})
	w.audit()

	// A restart in between.
	other := w.on(w.handle(testSecret))
	err = other.rotateStep()
	if !errors.Is(err, context.Canceled) || other.newest() != first+1 {
		w.Fatalf("the second interrupted rotation: %v, newest %d", err, other.newest())
	}
	other.findable(between[:1])
	w.check(other.engine.Rotate(w.ctx, nil))
	if n := w.generations(); n != 1 || w.newest() != first+1 {
		w.Errorf("%d generations are live, the newest is %d", n, w.newest())
	}
	w.sealedUnder(first + 1)
	w.findable(codes[3:40])
	w.findable(between)
	w.redeem(user, codes[3].Key)
	_, err = w.codes.Redeem(w.ctx, user, codes[0].Key, nil)
	w.refused(err, refusal.RedemptionUsedByYou)
	w.audit()
}

func reversed(views []redemption.View) []redemption.View {
	out := make([]redemption.View, len(views))
	for i, v := range views {
		out[len(views)-1-i] = v
	}
	return out
}

// During a rotation a key that stands under the old index is taken all the same.
func testKeysUniqueness(w *world) {
	var codes []redemption.View
	for range 4 {
		codes = append(codes, w.issue("n", 100, 1, time.Time{})...)
	}
	if err := w.rotateStep(); !errors.Is(err, context.Canceled) {
		w.Fatal(err)
	}
	unchanged := w.unchanged()
	for _, taken := range []redemption.View{codes[0], codes[399]} {
		_, keys := w.newBatch("", 30, 1, time.Time{})
		err := w.engine.Issue(w.ctx, w.batchOf("twice", 1, time.Time{}, append(keys, taken.Key)))
		if err == nil || refusal.CodeOf(err) != "" || errors.Is(err, keyring.ErrStale) {
			w.Fatalf("the key of code %d was issued again: %v", taken.ID, err)
		}
	}
	unchanged()
	w.check(w.engine.Rotate(w.ctx, nil))
	w.audit()
}

// Two rotate at once: together they end at least one rotation, and nothing is
// lost.
func testKeysTwoRotators(w *world) {
	var codes []redemption.View
	for range 8 {
		codes = append(codes, w.issue("n", 100, 1, time.Time{})...)
	}
	first := w.newest()
	const rotators, rounds = 3, 3
	var wg sync.WaitGroup
	for i := range rotators {
		e := w.engine
		if i > 0 {
			e = w.handle(testSecret)
		}
		wg.Go(func() {
			for range rounds {
				if err := e.Rotate(w.ctx, nil); err != nil {
					w.Error(err)
				}
			}
		})
	}
	wg.Wait()
	n := w.newest()
	if n < first+rounds || n > first+rotators*rounds || w.generations() != 1 {
		w.Errorf("newest %d after %d, %d generations", n, first, w.generations())
	}
	w.sealedUnder(n)
	sameViews(w.T, w.allCodes(), reversed(codes))
	w.findable(codes[:10])
	w.audit()

	// The worst that can meet: one is held up inside a rotation that the other
	// ends, and finds the next one under way. It must not do that one's work with
	// its own keys, of which the other knows nothing when it goes on.
	held := w.handle(testSecret)
	steps := 0
	w.check(held.Rotate(w.ctx, func(int64, int64) {
		switch steps++; steps {
		case 1:
			w.check(w.engine.Rotate(w.ctx, nil))
			if err := w.rotateStep(); !errors.Is(err, context.Canceled) {
				w.Errorf("the next rotation: %v", err)
			}
		case 2:
			w.check(w.engine.Rotate(w.ctx, nil))
		}
	}))
	if steps < 2 {
		w.Errorf("the rotation that was held up had %d steps", steps)
	}
	w.check(w.engine.Rotate(w.ctx, nil))
	w.sealedUnder(w.newest())
	sameViews(w.T, w.allCodes(), reversed(codes))
	w.audit()
}

// Rotations beside writers and readers: nobody notices.
func testKeysBesideOthers(w *world) {
	user := w.user("u", 0)
	var codes []redemption.View
	for range 4 {
		codes = append(codes, w.issue("n", 100, 1, time.Time{})...)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var turns [5]atomic.Int64
	repeat := func(i int, do func(n int) error) {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := do(n); err != nil {
					w.Errorf("worker %d: %v", i, err)
					return
				}
				turns[i].Add(1)
			}
		})
	}
	repeat(0, func(n int) error {
		keys, err := w.codes.Issue(w.ctx, w.root, redemption.IssueRequest{Name: "during", Count: 3, Quota: 1})
		if err != nil {
			return err
		}
		_, err = w.codes.Redeem(w.ctx, user, keys[n%3], nil)
		return err
	})
	repeat(1, func(n int) error {
		if n >= 200 {
			return nil
		}
		_, err := w.codes.Redeem(w.ctx, user, codes[n].Key, nil)
		return err
	})
	repeat(2, func(n int) error {
		c := codes[n*7%400]
		page, total, err := w.codes.Search(w.ctx, w.root, c.Key, redemption.FilterAll, 0, 5)
		if err == nil && (total != 1 || page[0].ID != c.ID || page[0].Key != c.Key) {
			err = fmt.Errorf("the key of code %d finds %v of %d", c.ID, ids(page), total)
		}
		return err
	})
	repeat(3, func(n int) error {
		page, _, err := w.codes.Search(w.ctx, w.root, "n", redemption.FilterAll, int64(n%4)*100, 100)
		for _, v := range page {
			if err == nil && len(v.Key) != 32 {
				err = fmt.Errorf("code %d shows the key %q", v.ID, v.Key)
			}
		}
		return err
	})
	repeat(4, func(n int) error {
		id := codes[200+n%200].ID
		if _, err := w.codes.Get(w.ctx, w.root, id); err != nil {
			return err
		}
		v, err := w.codes.Change(w.ctx, w.root, id, redemption.Change{Quota: new(int64(1 + n%5))})
		if err == nil && v.Key != codes[200+n%200].Key {
			err = fmt.Errorf("the changed code %d shows the key %q", id, v.Key)
		}
		return err
	})
	for round := 0; round < 4 || !everybody(turns[:]); round++ {
		if err := w.engine.Rotate(w.ctx, nil); err != nil {
			w.Error(err)
			break
		}
		if w.Failed() {
			break
		}
	}
	close(stop)
	wg.Wait()
	w.sealedUnder(w.newest())
	w.audit()
}

// everybody reports whether each has had a few turns.
func everybody(turns []atomic.Int64) bool {
	for i := range turns {
		if turns[i].Load() < 3 {
			return false
		}
	}
	return true
}

// Two handles write at once, like the command line beside a server: the ledger
// stays whole, and no balance is lost.
func testHandlesWriters(w *world) {
	const each = 60
	user := w.user("u", 0)
	codes := w.issue("n", 2*each-20, 1, time.Time{})
	both := []*world{w, w.on(w.handle(testSecret))}
	var wg sync.WaitGroup
	for i, mine := range both {
		wg.Go(func() {
			for n := range each {
				c := codes[(i*40+n)%len(codes)] // 20 of them are both's
				_, err := mine.codes.Redeem(w.ctx, user, c.Key, nil)
				if err != nil && refusal.CodeOf(err) != refusal.RedemptionUsedByYou {
					w.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range each / 4 {
				if _, err := mine.codes.Issue(w.ctx, w.root, redemption.IssueRequest{
					Name: "more", Count: 2, Quota: 1,
				}); err != nil {
					w.Error(err)
				}
				if _, err := mine.accounts.RenewToken(w.ctx, account.Operator(), user.ID); err != nil {
					w.Error(err)
				}
			}
		})
	}
	wg.Wait()
	w.wantBalance(user.ID, int64(len(codes)))
	for _, mine := range both {
		mine.audit()
	}
}

// A handle picks up the keys that another has rotated, by itself, in whatever
// it does first.
func testHandlesRotation(w *world) {
	user := w.user("u", 0)
	codes := w.issue("n", 30, 1, time.Time{})
	rotator := w.handle(testSecret)
	stages := []func() error{
		func() error {
			err := w.on(rotator).rotateStep()
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
		func() error { return rotator.Rotate(w.ctx, nil) },
		func() error { return rotator.Rotate(w.ctx, nil) },
	}
	next := 0
	for name, do := range map[string]func(w *world) error{
		"issue": func(w *world) error {
			_, err := w.codes.Issue(w.ctx, w.root, redemption.IssueRequest{Name: "x", Count: 2, Quota: 1})
			return err
		},
		"redeem": func(w *world) error {
			next++
			_, err := w.codes.Redeem(w.ctx, user, codes[next].Key, nil)
			return err
		},
		"get": func(w *world) error {
			v, err := w.codes.Get(w.ctx, w.root, codes[0].ID)
			if v.Key != codes[0].Key {
				err = errors.Join(err, errors.New("it shows another key"))
			}
			return err
		},
		"list": func(w *world) error {
			views, _, err := w.codes.List(w.ctx, w.root, redemption.FilterAll, 0, 100)
			if len(views) < 30 {
				err = errors.Join(err, errors.New("it lists too few"))
			}
			return err
		},
		"search": func(w *world) error {
			views, _, err := w.codes.Search(w.ctx, w.root, codes[29].Key, redemption.FilterAll, 0, 100)
			if len(views) != 1 {
				err = errors.Join(err, errors.New("it does not find the key"))
			}
			return err
		},
		"change": func(w *world) error {
			v, err := w.codes.Change(w.ctx, w.root, codes[28].ID, redemption.Change{Quota: new(int64(next + 5))})
			if v.Key != codes[28].Key {
				err = errors.Join(err, errors.New("it shows another key"))
			}
			return err
		},
		"unknown": func(w *world) error {
			_, err := w.codes.Redeem(w.ctx, user, "unknown", nil)
			if refusal.CodeOf(err) == refusal.RedemptionUnknown {
				return nil
			}
			return fmt.Errorf("an unknown key: %w", err)
		},
		"once": func(w *world) error {
			next++
			_, err := w.try(effect{"issue", func(o *account.Once) (string, error) {
				_, err := w.codes.Issue(w.ctx, w.root, redemption.IssueRequest{Name: "x", Count: 1, Quota: 1, Once: o})
				return "", err
			}}, fmt.Sprint("scope", next), "")
			return err
		},
	} {
		server := w.on(w.handle(testSecret))
		for i, stage := range stages {
			w.check(stage())
			if err := do(server); err != nil {
				w.Errorf("%s after stage %d: %v", name, i, err)
			}
		}
	}
	w.audit()
}

// Of many that start on an empty database at once, one makes the root, and all
// have the same keys.
func testHandlesRootOnce(w *world) {
	const starters = 4
	open := w.create(w.T)
	engines := make([]Engine, starters)
	var made atomic.Int64
	var wg sync.WaitGroup
	for i := range engines {
		wg.Go(func() {
			e, err := open(w.ctx, Options{Secrets: []string{testSecret}, Now: w.clock.Now})
			if err != nil {
				w.Error(err)
				return
			}
			engines[i] = e
			ok, err := w.on(e).accounts.Bootstrap(w.ctx, fmt.Sprint("token ", i))
			if err != nil {
				w.Error(err)
			}
			if ok {
				made.Add(1)
			}
		})
	}
	wg.Wait()
	if w.Failed() {
		return
	}
	if n := made.Load(); n != 1 {
		w.Errorf("%d roots were made", n)
	}
	var ledgerKey []byte
	for _, e := range engines {
		other := w.on(e)
		ring, err := e.Keys().Reload(w.ctx)
		w.check(err)
		if ledgerKey == nil {
			ledgerKey = ring.LedgerKey()
		}
		if !bytes.Equal(ring.LedgerKey(), ledgerKey) {
			w.Error("their keys differ")
		}
		other.issueOne(1)
		other.audit()
	}
	for _, e := range engines {
		w.check(e.Close())
	}
}

// What was written is there after a restart, and the keys are the same.
func testHandlesReopening(w *world) {
	user := w.user("u", 0)
	codes := w.issue("n", 5, 3, time.Time{})
	w.redeem(user, codes[0].Key)
	ring, err := w.engine.Keys().Reload(w.ctx)
	w.check(err)
	all := w.allCodes()
	w.check(w.engine.Close())
	again := w.on(w.handle(testSecret))
	fresh, err := again.engine.Keys().Reload(w.ctx)
	w.check(err)
	if !bytes.Equal(ring.LedgerKey(), fresh.LedgerKey()) || ring.Newest() != fresh.Newest() {
		w.Error("the keys are others")
	}
	sameViews(w.T, again.allCodes(), all)
	again.redeem(user, codes[1].Key)
	again.wantBalance(user.ID, 6)
	again.audit()
}
