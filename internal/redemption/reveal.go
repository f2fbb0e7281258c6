package redemption

import (
	"context"
	"slices"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// RevealMax bounds how many keys one Reveal shows.
const RevealMax = 100

// Reveal shows the keys of up to RevealMax codes, in the order of the ids, for an
// admin, and writes into the ledger that it has. Codes that are not there are left
// out. It refuses with RedemptionNotFound if none is, and with InvalidRequest
// more ids than that, or none.
func (s *Service) Reveal(ctx context.Context, by account.Actor, ids []int64) (views []View, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	if len(ids) == 0 || len(ids) > RevealMax {
		return nil, refusal.New(refusal.InvalidRequest)
	}
	sorted := slices.Compact(slices.Sorted(slices.Values(ids)))
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		rows, err := s.store.Reveal(ctx, Revelation{Epoch: ring.Epoch(), IDs: sorted, By: by, At: s.now()})
		if err != nil {
			return err
		}
		views, err = viewAll(ring, rows)
		return err
	})
	if err != nil {
		return nil, err
	}
	place := func(v View) int { return slices.Index(ids, v.ID) }
	slices.SortFunc(views, func(a, b View) int { return place(a) - place(b) })
	return views, nil
}

// Guessing lists the accounts and addresses that have tried most keys that nobody
// knows, for an admin.
func (s *Service) Guessing(ctx context.Context, by account.Actor) ([]guess.Suspect, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	return s.guesses.Limited(ctx)
}

// Forgive forgets the failed guesses of a guess.Suspect's Subject, as that of
// account.Service does.
func (s *Service) Forgive(ctx context.Context, by account.Actor, subject string) error {
	f, err := account.NewForgiving(by, "redeem", subject, s.now())
	if err != nil {
		return err
	}
	if _, err := s.store.Forgive(ctx, f); err != nil {
		return err
	}
	return s.guesses.Forgive(ctx, subject)
}

// RefreshGuesses has this server learn whose guesses another has forgiven. It is to
// be called every few seconds.
func (s *Service) RefreshGuesses(ctx context.Context) error { return s.guesses.Refresh(ctx) }
