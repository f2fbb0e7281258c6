package storetest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// audit checks that all that the database says agrees: the ledger is whole,
// the balances are its sums, and the codes are what it says of them, each
// entry being possible after those before it.
func (w *world) audit() {
	w.Helper()
	w.verify(nil)
	told := w.replayLedger()
	now := w.clock.Now()
	codes := w.allCodes()
	seen := map[int64]bool{}
	for _, v := range codes {
		seen[v.ID] = true
		c := told[v.ID]
		if c == nil || !sameCode(v.Code, *c) {
			w.Errorf("code %d is %+v, by the ledger %+v", v.ID, v.Code, c)
		}
	}
	for id := range told {
		if !seen[id] {
			w.Errorf("code %d is gone, and the ledger does not say so", id)
		}
	}
	w.auditPickups()
	w.auditCounts(codes)
	for _, f := range allFilters() {
		var want int64
		for _, v := range codes {
			if passes(&v.Code, f, now) {
				want++
			}
		}
		if got := w.total(f); got != want {
			w.Errorf("filter %d: total %d, there are %d", f, got, want)
		}
	}
	w.wantWorth(codes)
}

func (w *world) verify(since []account.Checkpoint) {
	w.Helper()
	if faults := w.faults(since); len(faults) > 0 {
		w.Errorf("the ledger does not verify: %s", strings.Join(faults, "; "))
	}
}

func (w *world) faults(since []account.Checkpoint) []string {
	w.Helper()
	r, err := account.Verify(w.ctx, w.engine, w.ledgerKey(), since, nil)
	w.check(err)
	return r.Faults
}

func (w *world) ledger() (entries []account.Entry) {
	w.Helper()
	w.check(w.engine.Audit(w.ctx, collector{&entries}))
	return entries
}

// collector is an account.Auditor that keeps the entries.
type collector struct{ entries *[]account.Entry }

func (c collector) Entry(e account.Entry) error {
	*c.entries = append(*c.entries, e)
	return nil
}
func (c collector) Head(account.Head) error    { return nil }
func (c collector) Balance(int64, int64) error { return nil }

// replayLedger follows the ledger from its beginning and returns what the
// codes are at its end.
func (w *world) replayLedger() map[int64]*redemption.Code {
	w.Helper()
	codes := map[int64]*redemption.Code{}
	for _, e := range w.ledger() {
		if err := follow(codes, e); err != nil {
			w.Errorf("entry %d %+v: %v", e.Seq, e, err)
		}
	}
	return codes
}

// follow does to codes what e says, and fails if that was not possible.
func follow(codes map[int64]*redemption.Code, e account.Entry) error {
	if e.Kind == account.KindIssue {
		return followIssue(codes, e)
	}
	if e.Kind == account.KindPurge {
		return followPurge(codes, e)
	}
	if e.FirstID == 0 || e.MachineID > 0 {
		return nil
	}
	if e.Kind == account.KindReveal {
		return followReveal(codes, e)
	}
	c := codes[e.FirstID]
	if c == nil || e.FirstID != e.LastID || e.Count != 1 {
		return fmt.Errorf("it is about a code that is not there")
	}
	want, ok := redemption.Status(0), true
	switch e.Kind {
	case account.KindRedeem:
		want, ok = redemption.StatusEnabled, e.Amount == c.Quota && !c.Expired(e.At) && e.AccountID == e.ActorID
		if c.Status == want {
			c.Status, c.Redeemed, c.UsedBy = redemption.StatusUsed, e.At, e.ActorID
			want = c.Status
		}
	case account.KindDisable:
		want = redemption.StatusEnabled
		if c.Status == want {
			c.Status = redemption.StatusDisabled
			want = c.Status
		}
	case account.KindEnable:
		want = redemption.StatusDisabled
		if c.Status == want {
			c.Status = redemption.StatusEnabled
			want = c.Status
		}
	case account.KindDelete:
		want, ok = c.Status, e.Amount == c.Quota
		delete(codes, c.ID)
	case account.KindChange:
		return followChange(c, e)
	case account.KindIssue, account.KindPurge, account.KindQuota, account.KindUserCreate, account.KindUserToken,
		account.KindUserEnable, account.KindUserDisable, account.KindRotate, account.KindCheckpoint, account.KindMerchantCreate,
		account.KindMerchantChange, account.KindMachineCreate, account.KindMachineChange, account.KindMachinePassword,
		account.KindMachineDelete, account.KindProductCreate, account.KindProductChange, account.KindProductDelete,
		account.KindPickupCreate, account.KindPickupWithdraw, account.KindPickupUse, account.KindPickupLateUse,
		account.KindPickupAcknowledge, account.KindUserChange, account.KindUserRole, account.KindUserPassword,
		account.KindUserSignOut, account.KindUserLink, account.KindGuessForgive, account.KindReveal:
		return fmt.Errorf("it names a code")
	}
	if c.Status != want || !ok {
		return fmt.Errorf("the code was %+v", *c)
	}
	return nil
}

func followIssue(codes map[int64]*redemption.Code, e account.Entry) error {
	var d struct {
		Name    string `json:"name"`
		Expires int64  `json:"expired_time"`
	}
	if err := json.Unmarshal([]byte(e.Detail), &d); err != nil {
		return err
	}
	if e.LastID-e.FirstID+1 != e.Count {
		return fmt.Errorf("%d codes from %d to %d", e.Count, e.FirstID, e.LastID)
	}
	for id := e.FirstID; id <= e.LastID; id++ {
		if codes[id] != nil {
			return fmt.Errorf("code %d was there", id)
		}
		codes[id] = &redemption.Code{
			ID: id, CreatorID: e.ActorID, Name: d.Name, Status: redemption.StatusEnabled, Quota: e.Amount,
			Created: e.At, Expires: fromUnix(d.Expires),
		}
	}
	return nil
}

// followReveal sees that what was shown was there.
func followReveal(codes map[int64]*redemption.Code, e account.Entry) error {
	var ids []int64
	if e.Detail != "" {
		var err error
		if ids, err = purged(e); err != nil {
			return err
		}
	} else {
		for id := e.FirstID; id <= e.LastID; id++ {
			ids = append(ids, id)
		}
	}
	if int64(len(ids)) != e.Count || ids[0] != e.FirstID || ids[len(ids)-1] != e.LastID {
		return fmt.Errorf("it names %d codes from %d to %d", len(ids), ids[0], ids[len(ids)-1])
	}
	for _, id := range ids {
		if codes[id] == nil {
			return fmt.Errorf("code %d was not there", id)
		}
	}
	return nil
}

func followPurge(codes map[int64]*redemption.Code, e account.Entry) error {
	ids, err := purged(e)
	if err != nil {
		return err
	}
	if int64(len(ids)) != e.Count || ids[0] != e.FirstID || ids[len(ids)-1] != e.LastID {
		return fmt.Errorf("it names %d codes from %d to %d", len(ids), ids[0], ids[len(ids)-1])
	}
	for _, id := range ids {
		c := codes[id]
		if c == nil || c.Status == redemption.StatusEnabled && !c.Expired(e.At) {
			return fmt.Errorf("it removed %d, which was %+v", id, c)
		}
		delete(codes, id)
	}
	return nil
}

// purged is the ids that a purge entry names.
func purged(e account.Entry) (ids []int64, err error) {
	var d struct {
		IDs string `json:"ids"`
	}
	if err := json.Unmarshal([]byte(e.Detail), &d); err != nil {
		return nil, err
	}
	for part := range strings.SplitSeq(d.IDs, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.ParseInt(from, 10, 64)
		if err != nil {
			return nil, err
		}
		last := first
		if isRange {
			if last, err = strconv.ParseInt(to, 10, 64); err != nil {
				return nil, err
			}
		}
		for ; first <= last; first++ {
			ids = append(ids, first)
		}
	}
	return ids, nil
}

func followChange(c *redemption.Code, e account.Entry) error {
	var d struct {
		Name    *[2]string `json:"name"`
		Quota   *[2]int64  `json:"quota"`
		Expires *[2]int64  `json:"expired_time"`
	}
	if err := json.Unmarshal([]byte(e.Detail), &d); err != nil {
		return err
	}
	was := *c
	if d.Name != nil {
		if d.Name[0] != c.Name {
			return fmt.Errorf("the code was %+v", was)
		}
		c.Name = d.Name[1]
	}
	if d.Quota != nil {
		if d.Quota[0] != c.Quota || c.Status == redemption.StatusUsed {
			return fmt.Errorf("the code was %+v", was)
		}
		c.Quota = d.Quota[1]
	}
	if d.Expires != nil {
		if d.Expires[0] != toUnix(c.Expires) || c.Status == redemption.StatusUsed {
			return fmt.Errorf("the code was %+v", was)
		}
		c.Expires = fromUnix(d.Expires[1])
	}
	if e.Amount != c.Quota || sameCode(was, *c) {
		return fmt.Errorf("the code became %+v", *c)
	}
	return nil
}

func fromUnix(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0)
}

func toUnix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// sameCode compares codes with their times as instants.
func sameCode(a, b redemption.Code) bool {
	if !a.Created.Equal(b.Created) || !a.Redeemed.Equal(b.Redeemed) || !a.Expires.Equal(b.Expires) {
		return false
	}
	a.Created, a.Redeemed, a.Expires = b.Created, b.Redeemed, b.Expires
	return a == b
}

func sameViews(t *testing.T, got, want []redemption.View) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d codes %v, want %d %v", len(got), ids(got), len(want), ids(want))
		return
	}
	for i := range got {
		if got[i].Key != want[i].Key || !sameCode(got[i].Code, want[i].Code) {
			t.Errorf("code %+v, want %+v", got[i], want[i])
			return
		}
	}
}

func ids(views []redemption.View) []int64 {
	out := make([]int64, len(views))
	for i := range views {
		out[i] = views[i].ID
	}
	return out
}

// allCodes lists all codes, newest first.
func (w *world) allCodes() (all []redemption.View) {
	w.Helper()
	const step = 500
	for {
		page, total, err := w.codes.List(w.ctx, w.root, redemption.FilterAll, int64(len(all)), step)
		w.check(err)
		all = append(all, page...)
		if len(page) < step {
			if int64(len(all)) != total {
				w.Errorf("%d codes on all pages, the total is %d", len(all), total)
			}
			return all
		}
	}
}

func allFilters() []redemption.Filter {
	return []redemption.Filter{
		redemption.FilterAll, redemption.FilterLive, redemption.FilterDisabled, redemption.FilterUsed,
		redemption.FilterExpired,
	}
}

// passes is the filter, told the simple way.
func passes(c *redemption.Code, f redemption.Filter, now time.Time) bool {
	expired := !c.Expires.IsZero() && c.Expires.Unix() < now.Unix()
	switch f {
	case redemption.FilterAll:
	case redemption.FilterLive:
		return c.Status == redemption.StatusEnabled && !expired
	case redemption.FilterExpired:
		return c.Status == redemption.StatusEnabled && expired
	case redemption.FilterDisabled:
		return c.Status == redemption.StatusDisabled
	case redemption.FilterUsed:
		return c.Status == redemption.StatusUsed
	}
	return true
}
