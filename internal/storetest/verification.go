package storetest

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// verifier is a server that verifies the ledger as the test says.
type verifier struct {
	*account.Verifications
	begun   chan struct{}
	reach   chan int64    // entries, of a hundred
	reached chan struct{} // and it has said so
	end     chan account.Report
}

func (w *world) verifier() *verifier {
	v := &verifier{
		begun: make(chan struct{}, 2), reach: make(chan int64), reached: make(chan struct{}), end: make(chan account.Report),
	}
	v.Verifications = w.verifications(func(ctx context.Context, progress func(done, total int64)) (account.Report, error) {
		v.begun <- struct{}{}
		for {
			select {
			case n := <-v.reach:
				progress(n, 100)
				v.reached <- struct{}{}
			case r := <-v.end:
				return r, nil
			case <-ctx.Done():
				return account.Report{}, ctx.Err()
			}
		}
	})
	return v
}

func (w *world) verifications(walk account.Walk) *account.Verifications {
	return account.NewVerifications(account.VerificationsConfig{
		Store: w.engine, Keys: w.engine.Keys(), Walk: walk,
		Work: w.ctx, Log: slog.New(slog.DiscardHandler), Now: w.clock.Now,
	})
}

func (w *world) ledgerKey() []byte {
	w.Helper()
	ring, err := w.engine.Keys().Reload(w.ctx)
	w.check(err)
	return ring.LedgerKey()
}

// to has the walk come to where n entries are done.
func (v *verifier) to(n int64) {
	v.reach <- n
	<-v.reached
}

// A verification goes on on one server, and is seen, and stopped, on any.
func testLedgerVerification(w *world) {
	both := w.servers()
	a, b := w.verifier(), both[1].verifier()
	want := func(state account.VerificationState, done int64) account.Verification {
		w.Helper()
		var last account.Verification
		for _, s := range []*verifier{a, b} {
			var err error
			last, err = s.Last(w.ctx, w.root)
			w.check(err)
			if last.State != state || last.Done != done || (last.Report != nil) != (state == account.VerificationDone) {
				w.Errorf("the verification is %+v, want state %d at %d", last, state, done)
			}
		}
		return last
	}
	for _, by := range []account.Actor{w.user("u", 0), {}} {
		_, err := a.Last(w.ctx, by)
		for _, err := range []error{err, a.Begin(w.ctx, by, "u"), a.Stop(w.ctx, by)} {
			w.refused(err, refusal.Forbidden)
		}
	}
	want(account.VerificationNone, 0)
	w.check(a.Stop(w.ctx, w.root))

	w.check(a.Begin(w.ctx, w.root, "root"))
	<-a.begun
	w.check(b.Begin(w.ctx, w.root, "other"))
	w.check(a.Begin(w.ctx, w.root, "other"))
	a.to(50)
	a.to(60) // too soon to be told
	if last := want(account.VerificationUnderWay, 50); last.By != "root" || last.Total != 100 || !last.Started.Equal(w.clock.Now()) {
		w.Errorf("the verification is %+v", last)
	}
	w.clock.Add(time.Second)
	a.to(70)
	want(account.VerificationUnderWay, 70)
	w.check(b.Stop(w.ctx, w.root))
	want(account.VerificationStopped, 70)
	w.refused(a.Begin(w.ctx, w.root, "root"), refusal.TooBusy) // one at a time
	w.clock.Add(time.Second)
	a.to(80) // and sees that
	a.Wait()
	want(account.VerificationStopped, 70)

	w.check(b.Begin(w.ctx, w.root, "root"))
	<-b.begun
	b.end <- account.Report{Lanes: 1, Entries: 90, Accounts: 3, Faults: []string{"lane 1: entry 3 was altered"}, MoreFaults: 1}
	b.Wait()
	if r := want(account.VerificationDone, 90).Report; r == nil || r.Lanes != 1 || r.Accounts != 3 || len(r.Faults) != 1 || r.MoreFaults != 1 {
		w.Errorf("it found %+v", r)
	}
	// Its own server stops it at once.
	w.check(a.Begin(w.ctx, w.root, "root"))
	<-a.begun
	w.check(a.Stop(w.ctx, w.root))
	a.Wait()
	want(account.VerificationStopped, 0)
	if len(a.begun)+len(b.begun) > 0 {
		w.Error("it was begun twice")
	}
}

// A verification ends with its server, and one that comes back to life leaves the
// next one alone.
func testLedgerVerificationDies(w *world) {
	both := w.servers()
	a, b := w.verifier(), both[1].verifier()
	state := func() account.VerificationState {
		w.Helper()
		last, err := b.Last(w.ctx, w.root)
		w.check(err)
		return last.State
	}
	w.check(a.Begin(w.ctx, w.root, "root"))
	<-a.begun
	w.clock.Add(30 * time.Second)
	if got := state(); got != account.VerificationUnderWay {
		w.Errorf("after half a minute it is in state %d", got)
	}
	w.clock.Add(time.Millisecond)
	if got := state(); got != account.VerificationStopped {
		w.Errorf("after more than half a minute it is in state %d", got)
	}
	w.check(b.Begin(w.ctx, w.root, "root"))
	<-b.begun
	a.to(10)
	a.Wait()
	if got := state(); got != account.VerificationUnderWay {
		w.Errorf("when the first has come back to life it is in state %d", got)
	}
	b.end <- account.Report{Lanes: 1}
	b.Wait()

	// Of two that begin at once, one does.
	begun := make(chan error)
	for _, s := range []*verifier{a, b} {
		go func() { begun <- s.Begin(w.ctx, w.root, "root") }()
	}
	w.check(errors.Join(<-begun, <-begun))
	select {
	case <-a.begun:
		a.end <- account.Report{Lanes: 1}
	case <-b.begun:
		b.end <- account.Report{Lanes: 1}
	}
	a.Wait()
	b.Wait()
	if len(a.begun)+len(b.begun) > 0 {
		w.Error("both began")
	}
}

// Whoever can write to the database cannot say that the ledger is whole.
func testLedgerVerificationForged(w *world) {
	w.issue("n", 2, 1, time.Time{})
	whole := w.verifications(func(ctx context.Context, _ func(done, total int64)) (account.Report, error) {
		return account.Verify(ctx, w.engine, w.ledgerKey(), nil, nil)
	})
	w.check(whole.Begin(w.ctx, w.root, "root"))
	whole.Wait()
	last, err := whole.Last(w.ctx, w.root)
	w.check(err)
	if last.State != account.VerificationDone || len(last.Report.Faults) > 0 || last.Report.Entries == 0 {
		w.Errorf("the verification is %+v", last)
	}
	turn, value, err := w.engine.Verification(w.ctx)
	w.check(err)
	put := func(at int64, value []byte, ours bool, state account.VerificationState) {
		w.Helper()
		got, err := w.engine.PutVerification(w.ctx, at, value)
		w.check(err)
		if got != ours {
			w.Errorf("writing at turn %d: %t, want %t", at, got, ours)
		}
		last, err := whole.Last(w.ctx, w.root)
		w.check(err)
		if last.State != state {
			w.Errorf("the verification is %+v, want state %d", last, state)
		}
	}
	forged := bytes.Replace(value, []byte(`"root"`), []byte(`"boss"`), 1)
	put(turn-1, forged, false, account.VerificationDone)
	put(turn+1, forged, false, account.VerificationDone)
	put(turn, forged, true, account.VerificationNone)
	put(turn, forged, true, account.VerificationNone) // once more, as if the answer had been lost
	put(turn+1, []byte("x"), true, account.VerificationNone)
	put(turn+2, value, true, account.VerificationDone) // an old one says when it was
	w.check(whole.Begin(w.ctx, w.root, "root"))
	whole.Wait()
}
