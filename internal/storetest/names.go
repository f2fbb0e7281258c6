package storetest

import (
	"fmt"
	"maps"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// testNames asks for the names of accounts and machines, those that are no more and
// those that never were, and shows an app key.
func testNames(w *world) {
	alice := w.user("alice", 0)
	names, err := w.accounts.Names(w.ctx, w.root, []int64{1, alice.ID, 999, 0, -1})
	w.check(err)
	if want := map[int64]string{1: "root", alice.ID: "alice"}; !maps.Equal(names, want) {
		w.Errorf("accounts are called %v, want %v", names, want)
	}
	there, gone := w.machine("16327138"), w.machine("16327139")
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, gone.No))
	machines, err := w.fleet.Names(w.ctx, w.root, []int64{there.ID, gone.ID, 999})
	w.check(err)
	want := map[int64]fleet.Named{
		there.ID: {No: there.No, Name: there.Name}, gone.ID: {No: gone.No, Name: gone.Name, Deleted: true},
	}
	if !maps.Equal(machines, want) {
		w.Errorf("machines are called %v, want %v", machines, want)
	}
	for _, none := range [][]int64{nil, {}} {
		names, err := w.accounts.Names(w.ctx, w.root, none)
		if err != nil || len(names) > 0 {
			w.Errorf("%v, %v for no ids", names, err)
		}
	}
	_, err = w.accounts.Names(w.ctx, account.Actor{ID: alice.ID, Role: account.RoleUser}, nil)
	w.refused(err, refusal.Forbidden)
	_, err = w.fleet.Names(w.ctx, account.Actor{ID: alice.ID, Role: account.RoleUser}, nil)
	w.refused(err, refusal.Forbidden)

	m, err := w.fleet.RevealAppKey(w.ctx, w.root, there.MerchantID)
	w.check(err)
	known, err := w.fleet.Merchant(w.ctx, w.root, there.MerchantID)
	w.check(err)
	if m != known || m.AppKey == "" {
		w.Errorf("shown is %+v of %+v", m, known)
	}
	w.wantEntry(account.KindReveal, 0, fmt.Sprintf(`{"merchant_id":%d,"name":%q}`, m.ID, m.Name))
	_, err = w.fleet.RevealAppKey(w.ctx, w.root, 999)
	w.refused(err, refusal.MerchantNotFound)
	_, err = w.fleet.RevealAppKey(w.ctx, account.Actor{ID: alice.ID, Role: account.RoleUser}, there.MerchantID)
	w.refused(err, refusal.Forbidden)
}
