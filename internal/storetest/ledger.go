package storetest

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
)

func ledgerTests() map[string]func(*world) {
	return map[string]func(*world){
		"Filters":            testLedgerFilters,
		"Verify":             testLedgerVerify,
		"Checkpoints":        testLedgerCheckpoints,
		"Verification":       testLedgerVerification,
		"VerificationDies":   testLedgerVerificationDies,
		"VerificationForged": testLedgerVerificationForged,
	}
}

// busy fills the ledger with entries of every kind, with a clock that also goes
// back.
func (w *world) busy() (users []account.Actor, codes []redemption.View) {
	w.Helper()
	r := seeded(3)
	for i := range 3 {
		users = append(users, w.user(fmt.Sprint("u", i), int64(i)))
	}
	for range 16 {
		w.clock.Add(time.Duration(r.IntN(4000)-1000) * time.Millisecond)
		codes = append(codes, w.issue("n", 1+r.Int64N(8), 2, w.clock.Now().Add(time.Hour).Truncate(time.Second))...)
	}
	for i, c := range codes {
		w.clock.Add(time.Duration(r.IntN(4000)-1500) * time.Millisecond)
		switch i % 5 {
		case 0:
			w.redeem(users[r.IntN(3)], c.Key)
		case 1:
			w.disable(c.ID)
			w.change(c.ID, redemption.Change{Status: new(redemption.StatusEnabled), Quota: new(int64(9))})
		case 2:
			w.check(w.codes.Delete(w.ctx, w.root, c.ID))
		case 3:
			w.disable(c.ID)
			_, err := w.accounts.RenewToken(w.ctx, account.Operator(), users[r.IntN(3)].ID)
			w.check(err)
		}
	}
	n, err := w.codes.DeleteInvalid(w.ctx, w.ctx, w.root)
	w.check(err)
	if n == 0 {
		w.Fatal("nothing was removed")
	}
	w.check(w.engine.Rotate(w.ctx, nil))
	return users, codes
}

// chosen is the filter, told the simple way.
func chosen(e account.Entry, f account.LedgerFilter) bool {
	code := f.CodeID == 0 || e.MachineID == 0 && e.FirstID != 0 && e.FirstID <= f.CodeID && f.CodeID <= e.LastID
	code = code && (f.PickupID == 0 || e.MachineID != 0 && e.FirstID == f.PickupID)
	code = code && (f.MachineID == 0 || e.MachineID == f.MachineID)
	user := f.UserID == 0 || f.UserID == -1 && e.ActorID == 0 ||
		f.UserID > 0 && (e.ActorID == f.UserID || e.AccountID == f.UserID)
	return code && user && (f.From.IsZero() || !e.At.Before(f.From)) && (f.To.IsZero() || e.At.Before(f.To))
}

func testLedgerFilters(w *world) {
	users, codes := w.busy()
	all := w.ledger()
	var times []time.Time
	for _, e := range all {
		times = append(times, e.At)
	}
	slices.SortFunc(times, time.Time.Compare)
	n := len(times)
	matched := 0
	for _, code := range []int64{0, codes[0].ID, codes[1].ID, codes[4].ID, codes[len(codes)-1].ID, 9999} {
		for _, user := range []int64{0, -1, 1, users[0].ID, users[2].ID, 9999} {
			for _, span := range [][2]time.Time{
				{}, {times[n/3], times[2*n/3]}, {times[n/2]}, {{}, times[n/2]}, {times[n-1].Add(time.Millisecond)},
			} {
				f := account.LedgerFilter{CodeID: code, UserID: user, From: span[0], To: span[1]}
				matched += w.compareLedger(all, f)
			}
		}
	}
	if matched < 500 {
		w.Errorf("the filters chose %d entries in all: too few to say anything", matched)
	}
	entries, err := w.engine.Ledger(w.ctx, account.LedgerFilter{Before: all[4].ID, Limit: 100})
	w.check(err)
	if len(entries) != 4 || entries[0].ID != all[3].ID {
		w.Errorf("before the fifth entry there are %d entries", len(entries))
	}
}

// compareLedger pages through what f chooses and compares it with all. It
// returns how many it chose.
func (w *world) compareLedger(all []account.Entry, f account.LedgerFilter) int {
	w.Helper()
	want := map[int64]account.Entry{}
	for _, e := range all {
		if chosen(e, f) {
			want[e.ID] = e
		}
	}
	n := len(want)
	for _, limit := range []int{3, 1000} {
		left := maps.Clone(want)
		f := f
		var before account.Entry
		for f.Limit = limit; ; {
			page, err := w.engine.Ledger(w.ctx, f)
			w.check(err)
			for _, e := range page {
				if !sameEntry(e, left[e.ID]) {
					w.Fatalf("%+v lists %+v, want %+v", f, e, left[e.ID])
				}
				delete(left, e.ID)
				if before.ID > 0 && !newer(before, e, f) {
					w.Fatalf("%+v lists %+v before %+v", f, before, e)
				}
				before = e
			}
			if len(page) > limit {
				w.Fatalf("%+v lists %d", f, len(page))
			}
			if len(page) < limit {
				break
			}
			f.Before = page[limit-1].ID
		}
		if len(left) > 0 {
			w.Fatalf("%+v, %d a page: %d of %d entries are on no page", f, limit, len(left), n)
		}
	}
	return n
}

// newer reports whether a is listed before b: by time, where something else than a
// code chooses.
func newer(a, b account.Entry, f account.LedgerFilter) bool {
	byTime := f.CodeID == 0 && f.PickupID == 0 && (f.MachineID != 0 || f.UserID != 0 || !f.From.IsZero() || !f.To.IsZero())
	if c := a.At.Compare(b.At); byTime && c != 0 {
		return c > 0
	}
	return a.ID > b.ID
}

func sameEntry(a, b account.Entry) bool {
	if !a.At.Equal(b.At) {
		return false
	}
	a.At = b.At
	return reflect.DeepEqual(a, b)
}

func testLedgerVerify(w *world) {
	w.busy()
	ring, err := w.engine.Keys().Reload(w.ctx)
	w.check(err)
	r, err := account.Verify(w.ctx, w.engine, ring.LedgerKey(), nil, nil)
	w.check(err)
	heads, err := w.engine.Heads(w.ctx)
	w.check(err)
	if r.Faults != nil || r.Entries != w.entries() || r.Accounts != 4 || r.Lanes != len(heads) ||
		!reflect.DeepEqual(r.Heads, heads) {
		w.Errorf("the report is %+v, the heads are %+v", r, heads)
	}
	r, err = account.Verify(w.ctx, w.engine, []byte("another key, of whoever guesses it"), nil, nil)
	w.check(err)
	if int64(len(r.Faults))+r.MoreFaults <= w.entries() {
		w.Errorf("under another key there are %d faults in %d entries", len(r.Faults), w.entries())
	}
	w.audit()
}

func testLedgerCheckpoints(w *world) {
	var since []account.Checkpoint
	point := func() {
		heads, err := w.engine.Heads(w.ctx)
		w.check(err)
		parsed, err := account.ParseCheckpoints(account.Checkpoints(heads))
		w.check(err)
		since = append(since, parsed...)
	}
	point()
	w.busy()
	point()
	w.verify(since)
	w.issueOne(1)
	w.verify(since)
	point()
	longest := slices.MaxFunc(since, func(a, b account.Checkpoint) int { return cmp.Compare(a.Count, b.Count) })
	forged, later := longest, longest
	forged.MAC = slices.Clone(forged.MAC)
	forged.MAC[0] ^= 1
	later.Count++
	for _, c := range []struct {
		point account.Checkpoint
		says  string
	}{
		{forged, "another past"},
		{later, "older copy"},
		{account.Checkpoint{Lane: 99, Count: 1, MAC: forged.MAC}, "no head"},
	} {
		faults := w.faults([]account.Checkpoint{c.point})
		if len(faults) != 1 || !strings.Contains(faults[0], c.says) {
			w.Errorf("since %v: %q, want one that says %q", c.point, faults, c.says)
		}
	}
}
