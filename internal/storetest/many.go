package storetest

import (
	"maps"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func manyTests() map[string]func(*world) {
	return map[string]func(*world){
		"Change":   testManyChange,
		"Delete":   testManyDelete,
		"Refusals": testManyRefusals,
	}
}

// sameRefusals fails the test unless those are the ids that were refused.
func (w *world) sameRefusals(got, want map[int64]refusal.Code, err error) {
	w.Helper()
	if err != nil || !maps.Equal(got, want) {
		w.Errorf("refused were %v, %v, want %v", got, err, want)
	}
}

// What can be changed is, what cannot is named, and each code has its own entry.
func testManyChange(w *world) {
	user, admin := w.user("u", 0), w.person("admin", account.RoleAdmin, 0)
	codes := w.issue("first", 100, 10, w.clock.Now().Truncate(time.Second).Add(time.Hour))
	for _, i := range []int{3, 50} {
		w.redeem(user, codes[i].Key)
	}
	w.disable(codes[7].ID)
	w.check(w.codes.Delete(w.ctx, w.root, codes[9].ID))
	want := map[int64]refusal.Code{
		codes[3].ID: refusal.RedemptionUsedUnchanging, codes[50].ID: refusal.RedemptionUsedUnchanging,
		codes[9].ID: refusal.RedemptionNotFound,
	}
	before := w.entries()
	refused, err := w.codes.ChangeMany(w.ctx, admin, ids(codes), redemption.Change{Status: new(redemption.StatusDisabled)})
	w.sameRefusals(refused, want, err)
	if n := w.total(redemption.FilterDisabled); n != 97 {
		w.Errorf("%d are disabled, want 97", n)
	}
	entries := w.ledger()[before:]
	for _, e := range entries {
		if e.Kind != account.KindDisable || e.ActorID != admin.ID || e.Address != admin.Address || e.Count != 1 {
			w.Errorf("the entry is %+v", e)
		}
	}
	if len(entries) != 96 {
		w.Errorf("%d entries, want 96", len(entries))
	}
	w.audit()

	// A name only: used codes may have it too. And twice is once.
	refused, err = w.codes.ChangeMany(w.ctx, admin, append(ids(codes[:20]), ids(codes[:20])...), redemption.Change{Name: new("second")})
	w.sameRefusals(refused, map[int64]refusal.Code{codes[9].ID: refusal.RedemptionNotFound}, err)
	if n := w.entries() - before; n != 96+19 {
		w.Errorf("%d entries, want %d", n, 96+19)
	}
	w.audit()

	unchanged := w.unchanged()
	refused, err = w.codes.ChangeMany(w.ctx, admin, ids(codes[20:22]), redemption.Change{Quota: new(int64(0))})
	w.sameRefusals(refused, map[int64]refusal.Code{
		codes[20].ID: refusal.RedemptionQuota, codes[21].ID: refusal.RedemptionQuota,
	}, err)
	unchanged()
}

func testManyDelete(w *world) {
	user, admin := w.user("u", 0), w.person("admin", account.RoleAdmin, 0)
	codes := w.issue("n", 50, 10, time.Time{})
	w.redeem(user, codes[3].Key)
	w.check(w.codes.Delete(w.ctx, w.root, codes[9].ID))
	before := w.entries()
	refused, err := w.codes.DeleteMany(w.ctx, admin, append(ids(codes[:40]), 1<<40))
	w.sameRefusals(refused, map[int64]refusal.Code{
		codes[9].ID: refusal.RedemptionNotFound, 1 << 40: refusal.RedemptionNotFound,
	}, err)
	sameIDs := ids(w.allCodes())
	if len(sameIDs) != 10 {
		w.Errorf("%v are left, want 10", sameIDs)
	}
	for _, e := range w.ledger()[before:] {
		if e.Kind != account.KindDelete || e.ActorID != admin.ID || e.Count != 1 {
			w.Errorf("the entry is %+v", e)
		}
	}
	if n := w.entries() - before; n != 39 {
		w.Errorf("%d entries, want 39", n)
	}
	w.wantBalance(user.ID, 10)
	w.audit()
}

func testManyRefusals(w *world) {
	user := w.user("u", 0)
	code := w.issueOne(1)
	unchanged := w.unchanged()
	tooMany := make([]int64, redemption.CountMax+1)
	for i := range tooMany {
		tooMany[i] = int64(i)
	}
	disable := redemption.Change{Status: new(redemption.StatusDisabled)}
	for _, c := range []struct {
		by   account.Actor
		ids  []int64
		want refusal.Code
	}{
		{user, []int64{code.ID}, refusal.Forbidden},
		{w.root, tooMany, refusal.RedemptionCountTooLarge},
	} {
		_, err := w.codes.ChangeMany(w.ctx, c.by, c.ids, disable)
		w.refused(err, c.want)
		_, err = w.codes.DeleteMany(w.ctx, c.by, c.ids)
		w.refused(err, c.want)
	}
	refused, err := w.codes.ChangeMany(w.ctx, w.root, nil, disable)
	w.sameRefusals(refused, nil, err)
	refused, err = w.codes.DeleteMany(w.ctx, w.root, []int64{})
	w.sameRefusals(refused, nil, err)
	unchanged()
}
