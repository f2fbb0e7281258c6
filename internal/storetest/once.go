package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func onceTests() map[string]func(*world) {
	return map[string]func(*world){
		"Replay":   testOnceReplay,
		"Twins":    testOnceTwins,
		"Old":      testOnceOld,
		"Stale":    testOnceStale,
		"Refused":  testOnceRefused,
		"Remember": testOnceRemember,
	}
}

// once makes a Once of that scope and body, whose answer is the result as text,
// sealed under the ring.
func (w *world) once(ring *keyring.Ring, scope, body string) *account.Once {
	hash := account.Hash(sha256.Sum256([]byte(scope)))
	return &account.Once{
		Scope: hash, Request: sha256.Sum256([]byte(body)), At: w.clock.Now(), Epoch: ring.Epoch(),
		Answer: func(result any) []byte {
			return ring.Seal(account.AnswerContext(hash), fmt.Append(nil, result))
		},
	}
}

// effect is a request that may carry a Once. It returns its result as text.
type effect struct {
	name string
	do   func(*account.Once) (string, error)
}

// effects are the requests that take effect once, each on its own code or name.
func (w *world) effects(prefix string) []effect {
	w.Helper()
	user := w.user(prefix+"-user", 0)
	code := w.issueOne(5)
	machine := w.machine("00000001")
	w.product(machine, 7)
	return []effect{
		{"issue", func(o *account.Once) (string, error) {
			keys, err := w.codes.Issue(w.ctx, w.root, redemption.IssueRequest{Name: prefix, Count: 3, Quota: 1, Once: o})
			return fmt.Sprint(keys), err
		}},
		{"job", func(o *account.Once) (string, error) {
			j, err := w.codes.StartIssue(w.ctx, w.root, redemption.IssueRequest{Name: prefix, Count: 101, Quota: 1, Once: o})
			return fmt.Sprint(j), err
		}},
		{"redeem", func(o *account.Once) (string, error) {
			n, err := w.codes.Redeem(w.ctx, user, code.Key, o)
			return fmt.Sprint(n), err
		}},
		{"create", func(o *account.Once) (string, error) {
			u, err := w.accounts.Create(w.ctx, account.Operator(), account.CreateRequest{
				Username: prefix + "-new", Quota: 3, Once: o,
			})
			return fmt.Sprint(u), err
		}},
		{"merchant", func(o *account.Once) (string, error) {
			m, err := w.fleet.CreateMerchant(w.ctx, w.root, fleet.Merchant{Name: prefix}, o)
			return fmt.Sprint(m), err
		}},
		{"machine", func(o *account.Once) (string, error) {
			m, err := w.fleet.CreateMachine(w.ctx, w.root, fleet.Machine{
				MerchantID: machine.MerchantID, No: "00000002", Name: prefix, Zone: "UTC", PurchaseLimit: 1,
			}, "password", o)
			return fmt.Sprint(m), err
		}},
		{"password", func(o *account.Once) (string, error) {
			return "<nil>", w.fleet.RenewPassword(w.ctx, w.root, machine.No, "password", o)
		}},
		{"product", func(o *account.Once) (string, error) {
			p, err := w.fleet.CreateProduct(w.ctx, w.root, machine.No, fleet.Product{Name: prefix, Slot: "1"}, o)
			return fmt.Sprint(p), err
		}},
		{"pickup", func(o *account.Once) (string, error) {
			c, err := w.pickups.Create(w.ctx, w.root, pickup.Request{
				MachineNo: machine.No, ProductID: 7, Quantity: 2, Once: o,
			})
			return fmt.Sprint(c), err
		}},
	}
}

// try is the effect under the current keys, as a transport tries it.
func (w *world) try(e effect, scope, body string) (result string, err error) {
	w.Helper()
	err = w.engine.Keys().Use(w.ctx, func(ring *keyring.Ring) error {
		result, err = e.do(w.once(ring, scope, body))
		return err
	})
	return result, err
}

// replayed fails the test unless err is a replay of that answer to that body.
func (w *world) replayed(err error, scope, body, answer string) {
	w.Helper()
	r, ok := errors.AsType[*account.Replay](err)
	if !ok {
		w.Fatalf("error %v, want a replay", err)
	}
	if r.Request != sha256.Sum256([]byte(body)) {
		w.Error("the replay is of another body")
	}
	if got := w.opened(r, scope); got != answer {
		w.Errorf("the replay answers %q, want %q", got, answer)
	}
}

func (w *world) opened(r *account.Replay, scope string) string {
	w.Helper()
	var plain []byte
	w.check(w.engine.Keys().Use(w.ctx, func(ring *keyring.Ring) (err error) {
		plain, err = ring.Open(account.AnswerContext(sha256.Sum256([]byte(scope))), r.Answer)
		return err
	}))
	return string(plain)
}

func testOnceReplay(w *world) {
	for _, e := range w.effects("once") {
		result, err := w.try(e, e.name, "body")
		w.check(err)
		unchanged := w.unchanged()
		for _, body := range []string{"body", "another body"} {
			_, err = w.try(e, e.name, body)
			w.replayed(err, e.name, "body", result)
			unchanged()
		}
		r, err := w.accounts.Recall(w.ctx, sha256.Sum256([]byte(e.name)))
		w.check(err)
		if r == nil || w.opened(r, e.name) != result {
			w.Errorf("%s: it recalls %v", e.name, r)
		}
		if r, err := w.accounts.Recall(w.ctx, sha256.Sum256([]byte("of another"))); r != nil || err != nil {
			w.Errorf("it recalls %v, %v for another scope", r, err)
		}
	}
	w.audit()
}

// Of twins that arrive together one takes effect, and the others replay it.
func testOnceTwins(w *world) {
	for _, e := range w.effects("twins") {
		const twins = 12
		var wg sync.WaitGroup
		results, errs := make([]string, twins), make([]error, twins)
		before := w.entries()
		for i := range twins {
			wg.Go(func() {
				errs[i] = w.engine.Keys().Use(w.ctx, func(ring *keyring.Ring) (err error) {
					results[i], err = e.do(w.once(ring, e.name, "body"))
					return err
				})
			})
		}
		wg.Wait()
		first := -1
		for i, err := range errs {
			if err == nil {
				if first >= 0 {
					w.Fatalf("%s took effect twice", e.name)
				}
				first = i
			}
		}
		if first < 0 {
			w.Fatalf("%s: none took effect: %v", e.name, errs)
		}
		for i, err := range errs {
			if i != first {
				w.replayed(err, e.name, "body", results[first])
			}
		}
		if n := w.entries() - before; e.name != "create" && n != 1 {
			w.Errorf("%s left %d entries", e.name, n)
		}
	}
	w.audit()
}

// After 24 hours a scope is free again, swept or not.
func testOnceOld(w *world) {
	issue := w.effects("old")[0]
	first, err := w.try(issue, "scope", "body")
	w.check(err)
	w.clock.Add(account.OnceFor - time.Millisecond)
	w.check(w.accounts.Forget(w.ctx))
	_, err = w.try(issue, "scope", "body")
	w.replayed(err, "scope", "body", first)

	w.clock.Add(time.Millisecond)
	if r, err := w.accounts.Recall(w.ctx, sha256.Sum256([]byte("scope"))); r != nil || err != nil {
		w.Errorf("after 24 hours it recalls %v, %v", r, err)
	}
	second, err := w.try(issue, "scope", "another body")
	w.check(err)
	if second == first {
		w.Error("it took no effect anew")
	}
	_, err = w.try(issue, "scope", "body")
	w.replayed(err, "scope", "another body", second)

	w.clock.Add(account.OnceFor)
	w.check(w.accounts.Forget(w.ctx))
	more, err := w.engine.Forget(w.ctx, w.clock.Now())
	if more || err != nil {
		w.Errorf("there is more to forget: %v, %v", more, err)
	}
	// Even with the clock back there is nothing left to recall.
	w.clock.Add(-account.OnceFor)
	if r, err := w.accounts.Recall(w.ctx, sha256.Sum256([]byte("scope"))); r != nil || err != nil {
		w.Errorf("it recalls %v, %v, which was forgotten", r, err)
	}
	w.audit()
}

// An answer that would be sealed under keys that are gone is not stored, and
// its effect does not take place.
func testOnceStale(w *world) {
	effects := w.effects("stale")
	old, err := w.engine.Keys().Reload(w.ctx)
	w.check(err)
	w.check(w.engine.Rotate(w.ctx, nil))
	_, err = w.engine.Keys().Reload(w.ctx)
	w.check(err)
	unchanged := w.unchanged()
	for _, e := range effects {
		_, err := e.do(w.once(old, e.name, "body"))
		w.stale(err)
		unchanged()
	}
	w.stale(w.accounts.Remember(w.ctx, w.once(old, "remember", "body")))
	for _, e := range effects {
		result, err := w.try(e, e.name, "body")
		w.check(err)
		_, err = w.try(e, e.name, "body")
		w.replayed(err, e.name, "body", result)
	}
	w.audit()
}

// A refusal has no effect, so its answer is the transport's to store.
func testOnceRefused(w *world) {
	user, code := w.user("u", 0), w.issueOne(5)
	w.disable(code.ID)
	redeem := effect{"redeem", func(o *account.Once) (string, error) {
		n, err := w.codes.Redeem(w.ctx, user, code.Key, o)
		return fmt.Sprint(n), err
	}}
	_, err := w.try(redeem, "scope", "body")
	w.refused(err, refusal.RedemptionDisabled)
	if r, err := w.accounts.Recall(w.ctx, sha256.Sum256([]byte("scope"))); r != nil || err != nil {
		w.Errorf("it recalls %v, %v", r, err)
	}
	w.change(code.ID, redemption.Change{Status: new(redemption.StatusEnabled)})
	_, err = w.try(redeem, "scope", "body")
	w.check(err)
	_, err = w.try(redeem, "scope", "body")
	w.replayed(err, "scope", "body", "5")
	w.audit()
}

func testOnceRemember(w *world) {
	ring, err := w.engine.Keys().Reload(w.ctx)
	w.check(err)
	remember := func(ctx context.Context, body string) error {
		return w.accounts.Remember(ctx, w.once(ring, "scope", body))
	}
	w.check(remember(w.ctx, "first"))
	w.replayed(remember(w.ctx, "second"), "scope", "first", "<nil>")

	// Twins of refusals: one is stored.
	var wg sync.WaitGroup
	var stored atomic.Int64
	for range 8 {
		wg.Go(func() {
			err := w.accounts.Remember(w.ctx, w.once(ring, "twins", "body"))
			if _, ok := errors.AsType[*account.Replay](err); err == nil {
				stored.Add(1)
			} else if !ok {
				w.Error(err)
			}
		})
	}
	wg.Wait()
	if n := stored.Load(); n != 1 {
		w.Errorf("%d of 8 twins were stored", n)
	}
	// Stored answers are sealed.
	r, err := w.accounts.Recall(w.ctx, sha256.Sum256([]byte("scope")))
	w.check(err)
	if bytes.Contains(r.Answer, []byte("<nil>")) {
		w.Error("the stored answer can be read")
	}
	// More than one step's worth is forgotten all the same.
	for i := range 40 {
		w.check(w.accounts.Remember(w.ctx, w.once(ring, fmt.Sprint("more ", i), "body")))
	}
	w.clock.Add(account.OnceFor)
	w.check(w.accounts.Forget(w.ctx))
}
