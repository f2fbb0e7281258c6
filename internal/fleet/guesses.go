package fleet

import (
	"context"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/guess"
)

// Guessing lists the machines at which most wrong passwords were tried, and from
// where, for an admin.
func (s *Service) Guessing(ctx context.Context, by account.Actor) ([]guess.Suspect, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	return s.logins.Limited(ctx)
}

// Forgive forgets the failed guesses of a guess.Suspect's Subject, as that of
// account.Service does.
func (s *Service) Forgive(ctx context.Context, by account.Actor, subject string) error {
	f, err := account.NewForgiving(by, "machine", subject, s.now())
	if err != nil {
		return err
	}
	if _, err := s.store.Forgive(ctx, f); err != nil {
		return err
	}
	return s.logins.Forgive(ctx, subject)
}

// RefreshGuesses has this server learn whose guesses another has forgiven. It is to
// be called every few seconds.
func (s *Service) RefreshGuesses(ctx context.Context) error { return s.logins.Refresh(ctx) }
