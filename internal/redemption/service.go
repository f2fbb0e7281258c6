package redemption

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// Service is the use cases of redemption codes.
type Service struct {
	store   Store
	keys    *keyring.Keys
	guesses *guess.Limiter
	now     func() time.Time
	holder  string // of jobs: this server, since it was started

	purge purge
}

// NewService returns the use cases over store. Look-ups of unknown keys count
// against guesses.
func NewService(store Store, keys *keyring.Keys, guesses *guess.Limiter, now func() time.Time) *Service {
	return &Service{store: store, keys: keys, guesses: guesses, now: now, holder: rand.Text()}
}

// View is a code with its key, as admins see it.
type View struct {
	Code
	Key string
}

// IssueRequest asks for a batch.
type IssueRequest struct {
	Name    string
	Count   int64
	Quota   int64
	Expires time.Time     // zero: never
	Once    *account.Once // its Answer is given the keys, a []string; by StartIssue the Job
}

// Issue makes a batch of codes and returns their keys, for an admin. All are
// made, or none.
func (s *Service) Issue(ctx context.Context, by account.Actor, r IssueRequest) ([]string, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	now := s.now()
	name, err := s.checkIssue(&r, now)
	if err != nil {
		return nil, err
	}
	keys := newKeys(r.Count)
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		b := batch(ring, keys)
		b.Creator, b.Name, b.Quota, b.Created, b.Expires = by, name, r.Quota, now, r.Expires
		if r.Once != nil {
			once := *r.Once
			once.Answer = func(any) []byte { return r.Once.Answer(keys) }
			b.Once = &once
		}
		return s.store.Issue(ctx, b)
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// batch seals keys for a batch of codes.
func batch(ring *keyring.Ring, keys []string) Batch {
	b := Batch{Epoch: ring.Epoch(), Keys: make([]NewKey, len(keys))}
	for i, key := range keys {
		indexes := ring.Indexes(key)
		b.Keys[i] = NewKey{Sealed: ring.Seal(sealContext(indexes[0]), []byte(key)), Indexes: indexes}
	}
	return b
}

func (s *Service) checkIssue(r *IssueRequest, now time.Time) (name string, err error) {
	if name, err = cleanName(r.Name); err != nil {
		return "", err
	}
	if r.Count <= 0 {
		return "", refusal.New(refusal.RedemptionCountTooSmall)
	}
	if r.Count > CountMax {
		return "", refusal.New(refusal.RedemptionCountTooLarge)
	}
	if err := checkQuota(r.Quota); err != nil {
		return "", err
	}
	return name, checkExpiry(r.Expires, now)
}

// newKeys makes the keys of n codes.
func newKeys(n int64) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = newKey()
	}
	return keys
}

// newKey makes the key of a code: 128 random bits in 32 characters of 0-9a-f.
func newKey() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Admit refuses, with refusal.AccountTooManyGuesses, an actor of whom this server
// knows that they have guessed too many keys.
func (s *Service) Admit(by account.Actor) error { return s.guesses.Known(guessers(by)...) }

// guessers are whom a wrong key counts against.
func guessers(by account.Actor) []string {
	return []string{guess.Account(by.ID), guess.Address(by.Address)}
}

// Redeem redeems the key in text for the actor and returns the quota credited.
// Keys that nobody knows count as guesses of the account and the address; too
// many are refused with refusal.AccountTooManyGuesses, before the key is looked up.
func (s *Service) Redeem(ctx context.Context, by account.Actor, text string, once *account.Once) (int64, error) {
	if err := s.Admit(by); err != nil {
		return 0, err
	}
	key := Normalize(text)
	if key == "" {
		return 0, refusal.New(refusal.RedemptionKeyMissing)
	}
	var credited int64
	err := s.keys.Use(ctx, func(ring *keyring.Ring) (err error) {
		credited, err = s.store.Redeem(ctx, Attempt{
			Epoch: ring.Epoch(), Indexes: ring.Indexes(key), By: by, At: s.now(), Once: once,
			Guesses: s.guesses, Guessers: guessers(by),
		})
		return err
	})
	return credited, err
}

// Get finds a code, for an admin.
func (s *Service) Get(ctx context.Context, by account.Actor, id int64) (View, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return View{}, err
	}
	return s.get(ctx, id)
}

func (s *Service) get(ctx context.Context, id int64) (v View, err error) {
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		c, err := s.store.Get(ctx, id)
		if err != nil {
			return err
		}
		v, err = view(ring, c)
		return err
	})
	return v, err
}

// List finds a page of the codes that pass the filter, newest first, and how
// many there are on all pages, for an admin.
func (s *Service) List(ctx context.Context, by account.Actor, f Filter, offset, limit int64) ([]View, int64, error) {
	return s.Search(ctx, by, "", f, offset, limit)
}

// Search is List for the codes that keyword finds: by id, by a part of the
// name, or by the whole key. An empty keyword finds all.
func (s *Service) Search(
	ctx context.Context, by account.Actor, keyword string, f Filter, offset, limit int64,
) ([]View, int64, error) {
	found, err := s.Find(ctx, by, Search{Keyword: keyword, Filter: f}, offset, limit)
	return found.Codes, found.Total, err
}

func view(ring *keyring.Ring, c Stored) (View, error) {
	key, err := ring.Open(sealContext(c.Index), c.Sealed)
	return View{Code: c.Code, Key: string(key)}, err
}

// Change changes a code and returns it as it is then, for an admin.
func (s *Service) Change(ctx context.Context, by account.Actor, id int64, ch Change) (View, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return View{}, err
	}
	c, err := s.store.Change(ctx, Edit{ID: id, Change: ch, By: by, At: s.now()})
	if err != nil {
		return View{}, err
	}
	var v View
	err = s.keys.Use(ctx, func(ring *keyring.Ring) (err error) {
		v, err = view(ring, c)
		return err
	})
	if errors.Is(err, keyring.ErrStale) { // a rotation ended in between and sealed it anew
		return s.get(ctx, id)
	}
	return v, err
}

// Delete removes a code, for an admin. What the ledger says of it stays.
func (s *Service) Delete(ctx context.Context, by account.Actor, id int64) error {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return err
	}
	return s.store.Delete(ctx, id, by, s.now())
}

// Sweep moves codes past their time between the counts until none is left, or
// ctx ends. Between steps it makes way for others.
func (s *Service) Sweep(ctx context.Context) error {
	for {
		n, err := s.store.Sweep(ctx, s.now())
		if err != nil || n == 0 {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// purge is the removal of invalid codes that is under way, if one is.
type purge struct {
	mu      sync.Mutex
	running *purgeRun
}

type purgeRun struct {
	done    chan struct{}
	removed int64
	err     error
}

// DeleteInvalid removes all codes that are used, disabled or expired, in steps
// between which others get their turn, and returns how many, for an admin. It
// goes on when the caller has left, until work ends; a call that comes while
// one is under way waits for that one's answer.
func (s *Service) DeleteInvalid(ctx, work context.Context, by account.Actor) (int64, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return 0, err
	}
	s.purge.mu.Lock()
	run := s.purge.running
	if run == nil {
		run = &purgeRun{done: make(chan struct{})}
		s.purge.running = run
		go func() {
			run.removed, run.err = s.deleteInvalid(work, by)
			s.purge.mu.Lock()
			s.purge.running = nil
			s.purge.mu.Unlock()
			close(run.done)
		}()
	}
	s.purge.mu.Unlock()
	select {
	case <-run.done:
		return run.removed, run.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *Service) deleteInvalid(ctx context.Context, by account.Actor) (removed int64, err error) {
	if err := s.Sweep(ctx); err != nil {
		return 0, err
	}
	for after := int64(0); ; {
		n, next, err := s.store.Purge(ctx, after, by, s.now())
		removed += n
		if err != nil || next == 0 {
			return removed, err
		}
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		after = next
	}
}
