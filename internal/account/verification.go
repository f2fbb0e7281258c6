package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const (
	// verificationEvery is how often it is written how far a verification has come,
	// and seen whether it is to stop.
	verificationEvery = time.Second
	// verificationSilence is after which time without a word of it a verification has
	// ended with its server.
	verificationSilence = 30 * time.Second
	// verificationTries bounds how often a stop is tried while the verification goes
	// on.
	verificationTries = 10
)

// VerificationState is what has become of a Verification.
type VerificationState int

// States of a Verification.
const (
	VerificationNone     VerificationState = iota // nobody has asked for one yet
	VerificationUnderWay                          // it goes on
	VerificationDone                              // it has a Report
	VerificationStopped                           // by somebody, or with its server
	VerificationFailed                            // the ledger could not be read to its end
)

// Verification is the walk through the whole ledger that somebody asked for last,
// on whichever server.
type Verification struct {
	State       VerificationState
	Writer      string // tells what one server writes from what others do at the same moment
	By          string // username
	Started     time.Time
	Updated     time.Time // when the rest was so
	Done, Total int64     // entries; Total is about how many there are
	Report      *Report   // without Heads; nil unless it is done
}

// Walk walks the whole ledger and says what is wrong with it. Progress is called
// with how many entries it has walked, and how many there are about.
type Walk func(ctx context.Context, progress func(done, total int64)) (Report, error)

// Verifications has the ledger verified for people who look at it on any of the
// servers: one at a time, which goes on when they leave. How far it has come, and
// what it found, is in the database, under a MAC. It is safe for concurrent use.
type Verifications struct {
	VerificationsConfig
	walks sync.WaitGroup

	mu  sync.Mutex
	end context.CancelFunc // of the walk of this server; nil: there is none
}

// VerificationsConfig is what Verifications needs.
type VerificationsConfig struct {
	Store Store
	Keys  *keyring.Keys
	Walk  Walk
	// Work is the life of the walks.
	Work context.Context
	Log  *slog.Logger
	Now  func() time.Time
}

// NewVerifications returns the verifications of a server.
func NewVerifications(c VerificationsConfig) *Verifications {
	return &Verifications{VerificationsConfig: c}
}

// Wait waits for the walks of this server, which end with Work.
func (s *Verifications) Wait() { s.walks.Wait() }

// Last is how far the last one has come, for an admin.
func (s *Verifications) Last(ctx context.Context, by Actor) (Verification, error) {
	if err := by.MustBe(RoleAdmin); err != nil {
		return Verification{}, err
	}
	key, err := s.Keys.LedgerKey(ctx)
	if err != nil {
		return Verification{}, err
	}
	v, _, err := s.last(ctx, key)
	return v, err
}

// last reads the last one, and at which turn it is.
func (s *Verifications) last(ctx context.Context, key []byte) (v Verification, turn int64, err error) {
	turn, value, err := s.Store.Verification(ctx)
	if err != nil || turn == 0 {
		return Verification{}, 0, err
	}
	v, genuine := openVerification(key, value)
	if !genuine { // somebody else has written it
		return Verification{}, turn, nil
	}
	if v.State == VerificationUnderWay && s.Now().Sub(v.Updated) > verificationSilence {
		v.State = VerificationStopped
	}
	return v, turn, nil
}

// Begin has the ledger verified by this server, for an admin, unless that is under
// way. While this server has not yet ended one that was stopped it refuses with
// refusal.TooBusy.
//
//nolint:contextcheck // the walk goes on when whoever asked has left
func (s *Verifications) Begin(ctx context.Context, by Actor, username string) error {
	if err := by.MustBe(RoleAdmin); err != nil {
		return err
	}
	key, err := s.Keys.LedgerKey(ctx)
	if err != nil {
		return err
	}
	v, turn, err := s.last(ctx, key)
	if err != nil || v.State == VerificationUnderWay || s.Work.Err() != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return refusal.Later(refusal.TooBusy, verificationEvery)
	}
	now := s.Now()
	w := &walk{
		Verifications: s, key: key, turn: turn,
		is: Verification{State: VerificationUnderWay, Writer: NewToken(), By: username, Started: now, Updated: now},
	}
	if ours, err := w.put(ctx); err != nil || !ours { // somebody else was faster
		return err
	}
	work, end := context.WithCancel(s.Work)
	s.end = end
	s.walks.Go(func() {
		w.run(work, end)
		s.mu.Lock()
		defer s.mu.Unlock()
		end()
		s.end = nil
	})
	return nil
}

// Stop stops the one that is under way, for an admin: its server sees that at once,
// if it is this one, or soon. It refuses with refusal.TooBusy.
func (s *Verifications) Stop(ctx context.Context, by Actor) error {
	if err := by.MustBe(RoleAdmin); err != nil {
		return err
	}
	key, err := s.Keys.LedgerKey(ctx)
	if err != nil {
		return err
	}
	for range verificationTries {
		v, turn, err := s.last(ctx, key)
		if err != nil || v.State != VerificationUnderWay {
			return err
		}
		v.State, v.Writer, v.Updated = VerificationStopped, NewToken(), s.Now()
		w := &walk{Verifications: s, key: key, turn: turn, is: v}
		if ours, err := w.put(ctx); err != nil || ours {
			s.cancel()
			return err
		}
	}
	return refusal.Later(refusal.TooBusy, time.Second)
}

// cancel ends the walk of this server, if there is one.
func (s *Verifications) cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		s.end()
	}
}

// walk is one verification, on the server that does it.
type walk struct {
	*Verifications
	key  []byte
	turn int64 // which is ours
	is   Verification
}

// put writes how far it has come, unless somebody else has written meanwhile.
func (w *walk) put(ctx context.Context) (ours bool, err error) {
	value, err := sealVerification(w.key, &w.is)
	if err != nil {
		return false, err
	}
	ours, err = w.Store.PutVerification(ctx, w.turn, value)
	if ours && err == nil {
		w.turn++
	}
	return ours, err
}

// run walks, and writes what that finds, unless it is stopped. End ends ctx.
func (w *walk) run(ctx context.Context, end context.CancelFunc) {
	taken := false // it was stopped
	report, err := w.safely(ctx, func(done, total int64) {
		now := w.Now()
		first := w.is.Done == 0
		w.is.Done, w.is.Total = done, max(done, total)
		if since := now.Sub(w.is.Updated); taken || !first && since < verificationEvery && since >= 0 {
			return
		}
		w.is.Updated = now
		ours, err := w.put(ctx)
		switch {
		case err != nil: // it is tried again, and the walk goes on
			w.Log.LogAttrs(ctx, slog.LevelWarn, "writing how far a verification has come failed", slog.Any("error", err))
		case !ours:
			taken = true
			end()
		}
	})
	if taken {
		return
	}
	w.is.Updated = w.Now()
	switch {
	case err == nil:
		report.Heads = nil
		w.is.State, w.is.Done, w.is.Report = VerificationDone, report.Entries, &report
	case ctx.Err() != nil:
		w.is.State = VerificationStopped
	default:
		w.is.State = VerificationFailed
		w.Log.LogAttrs(ctx, slog.LevelWarn, "verifying the ledger failed", slog.Any("error", err))
	}
	if _, err := w.put(context.WithoutCancel(ctx)); err != nil {
		w.Log.LogAttrs(ctx, slog.LevelWarn, "writing what a verification found failed", slog.Any("error", err))
	}
}

// safely is Walk, whose panics are errors: it runs by itself, and nobody else would
// catch them.
func (w *walk) safely(ctx context.Context, progress func(done, total int64)) (r Report, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return w.Walk(ctx, progress)
}

// sealVerification writes v, behind its MAC.
func sealVerification(key []byte, v *Verification) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(NewChain(key).verificationMAC(b), b...), nil
}

// openVerification reads what sealVerification wrote, and reports whether it did.
func openVerification(key, value []byte) (v Verification, genuine bool) {
	if len(value) < sha256.Size {
		return v, false
	}
	mac, b := value[:sha256.Size], value[sha256.Size:]
	if !hmac.Equal(NewChain(key).verificationMAC(b), mac) || json.Unmarshal(b, &v) != nil {
		return Verification{}, false
	}
	return v, true
}
