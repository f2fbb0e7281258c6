package account

import "context"

// Names are the usernames of the accounts with these ids, for an admin. Those of
// whom there is none are not in it.
func (s *Service) Names(ctx context.Context, by Actor, ids []int64) (map[int64]string, error) {
	if err := by.MustBe(RoleAdmin); err != nil {
		return nil, err
	}
	return s.store.Usernames(ctx, ids)
}
