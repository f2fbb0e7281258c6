package storetest

import (
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func changeTests() map[string]func(*world) {
	return map[string]func(*world){
		"Fields":   testChangeFields,
		"Refusals": testChangeRefusals,
		"Used":     testChangeUsed,
		"Expired":  testChangeExpired,
		"Delete":   testDelete,
	}
}

func testChangeFields(w *world) {
	later := w.clock.Now().Truncate(time.Second).Add(time.Hour)
	code := w.issue("first", 1, 10, time.Time{})[0]
	want := code.Code
	for _, c := range []struct {
		change  redemption.Change
		edit    func(*redemption.Code)
		entries int64
	}{
		{redemption.Change{}, func(*redemption.Code) {}, 0},
		{redemption.Change{Name: new(" second ")}, func(c *redemption.Code) { c.Name = "second" }, 1},
		{redemption.Change{Quota: new(int64(99))}, func(c *redemption.Code) { c.Quota = 99 }, 1},
		{redemption.Change{Expires: new(later)}, func(c *redemption.Code) { c.Expires = later }, 1},
		{
			redemption.Change{Status: new(redemption.StatusDisabled)},
			func(c *redemption.Code) { c.Status = redemption.StatusDisabled }, 1,
		},
		{redemption.Change{Status: new(redemption.StatusDisabled)}, func(*redemption.Code) {}, 0},
		{
			redemption.Change{Expires: new(time.Time{}), Name: new("\"third\" \\ <b>"), Quota: new(int64(1))},
			func(c *redemption.Code) { c.Expires, c.Name, c.Quota = time.Time{}, "\"third\" \\ <b>", 1 }, 1,
		},
		{
			redemption.Change{Status: new(redemption.StatusEnabled), Quota: new(int64(2))},
			func(c *redemption.Code) { c.Status, c.Quota = redemption.StatusEnabled, 2 }, 2,
		},
		{ // the whole object sent back, as panels do
			redemption.Change{Name: new("\"third\" \\ <b>"), Quota: new(int64(2)), Expires: new(time.Time{})},
			func(*redemption.Code) {}, 0,
		},
	} {
		w.clock.Add(time.Second)
		before := w.entries()
		got := w.change(code.ID, c.change)
		c.edit(&want)
		if !sameCode(got.Code, want) || got.Key != code.Key {
			w.Fatalf("the answer is %+v, want %+v", got, want)
		}
		if got := w.get(code.ID); !sameCode(got.Code, want) || got.Key != code.Key {
			w.Fatalf("the code is %+v, want %+v", got, want)
		}
		if n := w.entries() - before; n != c.entries {
			w.Errorf("%d new entries for %+v, want %d", n, c.change, c.entries)
		}
	}
	// Names without codes are gone from the search.
	for name, want := range map[string]int64{"first": 0, "second": 0, "third": 1} {
		_, total, err := w.codes.Search(w.ctx, w.root, name, redemption.FilterAll, 0, 1)
		w.check(err)
		if total != want {
			w.Errorf("searching %q finds %d, want %d", name, total, want)
		}
	}
	w.audit()
}

func testChangeRefusals(w *world) {
	code := w.issueOne(10)
	user := w.user("u", 0)
	past := w.clock.Now().Truncate(time.Second).Add(-time.Second)
	unchanged := w.unchanged()
	for _, c := range []struct {
		change redemption.Change
		want   refusal.Code
	}{
		{redemption.Change{Name: new("")}, refusal.RedemptionNameLength},
		{redemption.Change{Name: new(strings.Repeat("x", 21))}, refusal.RedemptionNameLength},
		{redemption.Change{Name: new("a\x7fb")}, refusal.RedemptionNameCharacters},
		{redemption.Change{Quota: new(int64(0))}, refusal.RedemptionQuota},
		{redemption.Change{Quota: new(int64(-5))}, refusal.RedemptionQuota},
		{redemption.Change{Expires: &past}, refusal.RedemptionExpiry},
		{redemption.Change{Expires: new(time.Unix(253402300800, 0))}, refusal.RedemptionExpiryRange},
		{redemption.Change{Status: new(redemption.StatusUsed)}, refusal.RedemptionStatus},
		{redemption.Change{Status: new(redemption.Status(0))}, refusal.RedemptionStatus},
		{redemption.Change{Status: new(redemption.Status(4))}, refusal.RedemptionStatus},
		// Good and bad together change nothing.
		{redemption.Change{Name: new("good"), Quota: new(int64(5)), Status: new(redemption.Status(9))}, refusal.RedemptionStatus},
		{redemption.Change{Name: new("good"), Expires: &past}, refusal.RedemptionExpiry},
	} {
		_, err := w.codes.Change(w.ctx, w.root, code.ID, c.change)
		w.refused(err, c.want)
		unchanged()
	}
	for _, id := range []int64{0, -1, code.ID + 1, 1 << 62} {
		_, err := w.codes.Change(w.ctx, w.root, id, redemption.Change{Name: new("good")})
		w.refused(err, refusal.RedemptionNotFound)
		_, err = w.codes.Get(w.ctx, w.root, id)
		w.refused(err, refusal.RedemptionNotFound)
		w.refused(w.codes.Delete(w.ctx, w.root, id), refusal.RedemptionNotFound)
	}
	_, err := w.codes.Change(w.ctx, user, code.ID, redemption.Change{})
	w.refused(err, refusal.Forbidden)
	_, err = w.codes.Get(w.ctx, user, code.ID)
	w.refused(err, refusal.Forbidden)
	w.refused(w.codes.Delete(w.ctx, user, code.ID), refusal.Forbidden)
	_, _, err = w.codes.List(w.ctx, user, redemption.FilterAll, 0, 1)
	w.refused(err, refusal.Forbidden)
	_, _, err = w.codes.Search(w.ctx, user, "one", redemption.FilterAll, 0, 1)
	w.refused(err, refusal.Forbidden)
	_, err = w.codes.DeleteInvalid(w.ctx, w.ctx, user)
	w.refused(err, refusal.Forbidden)
	unchanged()
}

// A used code stays used: only its name may change.
func testChangeUsed(w *world) {
	last := w.clock.Now().Truncate(time.Second).Add(time.Minute)
	code := w.issue("n", 1, 10, last)[0]
	user := w.user("u", 0)
	w.redeem(user, code.Key)
	used := w.get(code.ID)
	unchanged := w.unchanged()
	for _, ch := range []redemption.Change{
		{Status: new(redemption.StatusEnabled)},
		{Status: new(redemption.StatusDisabled)},
		{Quota: new(int64(11))},
		{Expires: new(time.Time{})},
		{Expires: new(last.Add(time.Second))},
		{Name: new("other"), Quota: new(int64(11))},
	} {
		_, err := w.codes.Change(w.ctx, w.root, code.ID, ch)
		w.refused(err, refusal.RedemptionUsedUnchanging)
		unchanged()
	}
	w.clock.Set(last.Add(time.Hour)) // the same expiry may be sent back even when it has passed
	want := used.Code
	want.Name = "other"
	got := w.change(code.ID, redemption.Change{Name: new("other"), Quota: new(int64(10)), Expires: new(last)})
	if !sameCode(got.Code, want) {
		w.Errorf("the code is %+v, want %+v", got.Code, want)
	}
	w.audit()
}

// An expired code may be changed, and lives again with a later expiry, whether
// the sweep has been there or not.
func testChangeExpired(w *world) {
	user := w.user("u", 0)
	last := w.clock.Now().Truncate(time.Second).Add(time.Minute)
	codes := w.issue("n", 6, 10, last)
	w.clock.Set(last.Add(time.Hour))
	for i, swept := range []bool{false, true} {
		if swept {
			w.check(w.codes.Sweep(w.ctx))
		}
		mine := codes[3*i : 3*i+3]
		w.change(mine[0].ID, redemption.Change{Name: new("renamed"), Quota: new(int64(3)), Expires: new(last)})
		_, err := w.codes.Redeem(w.ctx, user, mine[0].Key, nil)
		w.refused(err, refusal.RedemptionExpired)
		w.audit()
		w.change(mine[0].ID, redemption.Change{Expires: new(last.Add(2 * time.Hour))})
		w.redeem(user, mine[0].Key)
		w.disable(mine[1].ID)
		w.audit()
		w.change(mine[1].ID, redemption.Change{Status: new(redemption.StatusEnabled)})
		_, err = w.codes.Redeem(w.ctx, user, mine[1].Key, nil)
		w.refused(err, refusal.RedemptionExpired)
		w.change(mine[1].ID, redemption.Change{Expires: new(time.Time{})})
		w.redeem(user, mine[1].Key)
		w.audit()
	}
	w.wantBalance(user.ID, 2*(3+10))
}

func testDelete(w *world) {
	user := w.user("u", 0)
	codes := w.issue("n", 4, 10, w.clock.Now().Add(time.Minute).Truncate(time.Second))
	w.redeem(user, codes[0].Key)
	w.disable(codes[1].ID)
	w.clock.Add(time.Hour)
	w.check(w.codes.Sweep(w.ctx))
	for i, c := range codes {
		w.check(w.codes.Delete(w.ctx, w.root, c.ID))
		if e := w.lastEntry(); e.Kind != account.KindDelete || e.FirstID != c.ID || e.ActorID != w.root.ID {
			w.Errorf("the entry is %+v", e)
		}
		w.refused(w.codes.Delete(w.ctx, w.root, c.ID), refusal.RedemptionNotFound)
		if n := w.total(redemption.FilterAll); n != int64(3-i) {
			w.Errorf("%d codes, want %d", n, 3-i)
		}
	}
	w.wantBalance(user.ID, 10)
	// Ids are never given again: the ledger would not tell them apart.
	if c := w.issueOne(1); c.ID <= codes[3].ID {
		w.Errorf("the new code has the id %d of a removed one", c.ID)
	}
	w.audit()
}
