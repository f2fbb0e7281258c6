package redemption

import (
	"context"
	"slices"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// ChangeMany makes one change to each of up to CountMax codes that it can, in one
// transaction, and says why not to the others: as Change would. For an admin. It
// refuses with RedemptionCountTooLarge.
func (s *Service) ChangeMany(
	ctx context.Context, by account.Actor, ids []int64, ch Change,
) (refused map[int64]refusal.Code, err error) {
	return s.many(by, ids, func(ids []int64, now time.Time) (map[int64]refusal.Code, error) {
		return s.store.ChangeMany(ctx, ids, Edit{Change: ch, By: by, At: now})
	})
}

// DeleteMany removes up to CountMax codes, in one transaction, and says which of
// them were not there, for an admin. It refuses with RedemptionCountTooLarge.
func (s *Service) DeleteMany(
	ctx context.Context, by account.Actor, ids []int64,
) (refused map[int64]refusal.Code, err error) {
	return s.many(by, ids, func(ids []int64, now time.Time) (map[int64]refusal.Code, error) {
		return s.store.DeleteMany(ctx, ids, by, now)
	})
}

// many calls do with the ids in order and each once.
func (s *Service) many(
	by account.Actor, ids []int64, do func(ids []int64, now time.Time) (map[int64]refusal.Code, error),
) (map[int64]refusal.Code, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	switch {
	case len(ids) > CountMax:
		return nil, refusal.New(refusal.RedemptionCountTooLarge)
	case len(ids) == 0:
		return nil, nil //nolint:nilnil // nothing is refused
	}
	return do(ids, s.now())
}
