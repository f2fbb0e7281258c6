package fleet

import (
	"context"

	"github.com/scrip-codes/scrip/internal/account"
)

// Named is what a machine is called.
type Named struct {
	No, Name string
	// Deleted says that the machine is no more: another may have its number.
	Deleted bool
}

// Names are what the machines with these ids are called, or were, for an admin.
func (s *Service) Names(ctx context.Context, by account.Actor, ids []int64) (map[int64]Named, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	return s.store.MachineNames(ctx, ids)
}

// RevealAppKey finds a merchant and writes into the ledger that its app key was
// shown, for an admin.
func (s *Service) RevealAppKey(ctx context.Context, by account.Actor, id int64) (m Merchant, err error) {
	return s.editMerchant(ctx, by, id, account.KindReveal, func(old Merchant) (Merchant, string) {
		return old, Detail(map[string]any{"merchant_id": id, "name": old.Name})
	})
}
