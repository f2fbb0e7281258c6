package bench

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
)

// chaosChecked is how much was checked.
type chaosChecked struct {
	Entries  int64 `json:"ledger_entries"`
	Accounts int64 `json:"accounts"`
	Codes    int64 `json:"codes"`
	Attempts int64 `json:"attempts"`
	Pickups  int64 `json:"pickup_codes"`
	Messages int64 `json:"messages"`
	Repeated int64 `json:"repeated_answers"`
}

// linearWithin bounds the check of all histories.
const linearWithin = 5 * time.Minute

// books is what the ledger says.
type books struct {
	redeems  map[int64][]account.Entry // by code
	pickups  map[int64]map[account.Kind]int
	balances map[int64]int64
}

func newBooks() *books {
	return &books{redeems: map[int64][]account.Entry{}, pickups: map[int64]map[account.Kind]int{}, balances: map[int64]int64{}}
}

// Entry implements account.Auditor.
func (b *books) Entry(e account.Entry) error {
	switch e.Kind { //nolint:exhaustive // the others are not about what was recorded
	case account.KindRedeem:
		b.redeems[e.FirstID] = append(b.redeems[e.FirstID], e)
	case account.KindPickupCreate, account.KindPickupWithdraw, account.KindPickupUse, account.KindPickupLateUse:
		if b.pickups[e.FirstID] == nil {
			b.pickups[e.FirstID] = make(map[account.Kind]int)
		}
		b.pickups[e.FirstID][e.Kind]++
	}
	return nil
}

// Head implements account.Auditor.
func (*books) Head(account.Head) error { return nil }

// Balance implements account.Auditor.
func (b *books) Balance(account, quota int64) error {
	b.balances[account] = quota
	return nil
}

// check holds what was answered against what is on record.
func (x *chaos) check(ctx context.Context) (err error) {
	db, err := x.cluster.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var key []byte
	if err := db.Keys().Use(ctx, func(r *keyring.Ring) error {
		key = r.LedgerKey()
		return nil
	}); err != nil {
		return err
	}
	verified, err := account.Verify(ctx, db, key, nil, nil)
	if err != nil {
		return err
	}
	for _, fault := range verified.Faults {
		x.violated("the ledger: %s", fault)
	}
	b := newBooks()
	if err := db.Audit(ctx, b); err != nil {
		return err
	}
	x.checked = chaosChecked{Entries: verified.Entries, Accounts: verified.Accounts}
	x.checkRedeems(b, func(codes []*codeHistory) []string { return linearizable(codes, x.dir, linearWithin, x.env.Now) })
	x.checkPickups(b)
	return nil
}

// checkRedeems checks that each redeem that was acknowledged is in the ledger,
// once, and in the balance of its user; and that the answers about each code
// can be explained: explain says what cannot.
func (x *chaos) checkRedeems(b *books, explain func([]*codeHistory) []string) {
	h := x.history
	end := h.now()
	owed := map[int64]int64{}
	for _, entries := range b.redeems {
		for _, e := range entries {
			owed[e.AccountID] += e.Amount
		}
	}
	for user, owns := range b.balances {
		if owns != owed[user] {
			x.violated("user %d owns %d, and has redeemed %d", user, owns, owed[user])
		}
	}
	for _, c := range h.codes {
		x.checked.Attempts += int64(len(c.attempts))
		entries := b.redeems[c.id]
		if len(entries) > 1 {
			x.violated("DOUBLED: code %d was paid out %d times", c.id, len(entries))
		}
		var by int64
		if len(entries) > 0 {
			by = entries[0].AccountID
		}
		for _, a := range c.attempts {
			if a.deed != deedRedeem || a.outcome != outcomeDone {
				continue
			}
			if !slices.ContainsFunc(entries, func(e account.Entry) bool { return e.AccountID == a.user && e.Amount == a.quota }) {
				x.violated("LOST: code %d was acknowledged to user %d for %d, and the ledger does not say so", c.id, a.user, a.quota)
			}
			if a.quota != c.quota {
				x.violated("code %d is worth %d, and %d was acknowledged", c.id, c.quota, a.quota)
			}
		}
		c.attempts = append(c.attempts, attempt{
			deed: deedLook, outcome: outcomeDone, client: chaosUsers + chaosAdmins, user: by, call: end, back: end,
		})
	}
	x.checked.Codes, x.checked.Repeated = int64(len(h.codes)), h.repeated
	for _, wrong := range explain(h.codes) {
		x.violated("%s", wrong)
	}
}

// checkPickups checks that what operators were told, and what machines did, is
// in the ledger, once.
func (x *chaos) checkPickups(b *books) {
	h := x.history
	for id := range h.made {
		if n := b.pickups[id][account.KindPickupCreate]; n != 1 {
			x.violated("pickup code %d was acknowledged, and the ledger says %d times that it was made", id, n)
		}
	}
	for id := range h.withdrawn {
		if n := b.pickups[id][account.KindPickupWithdraw]; n != 1 {
			x.violated("the withdrawal of pickup code %d was acknowledged, and is in the ledger %d times", id, n)
		}
	}
	uses := func(id int64) int {
		return b.pickups[id][account.KindPickupUse] + b.pickups[id][account.KindPickupLateUse]
	}
	used := map[int64]bool{}
	for _, m := range x.cluster.machines {
		for id := range m.used {
			used[id] = true
			if uses(id) == 0 {
				x.violated("LOST: machine %s was used with code %d, and the ledger does not say so", m.no, id)
			}
		}
	}
	for id := range b.pickups {
		switch n := uses(id); {
		case n > 1:
			x.violated("DOUBLED: the use of pickup code %d is in the ledger %d times", id, n)
		case n == 1 && !used[id]:
			x.violated("the ledger says that pickup code %d was used, and no machine does", id)
		}
	}
	x.checked.Pickups, x.checked.Messages = int64(len(b.pickups)), x.cluster.spy.messages
}
