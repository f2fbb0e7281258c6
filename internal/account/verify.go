package account

import (
	"bytes"
	"context"
	"crypto/hmac"
	"fmt"
	"math/bits"
	"slices"
)

// Report is what a verification of the ledger found.
type Report struct {
	Lanes    int
	Entries  int64
	Accounts int64
	// Faults are what is wrong, at most MaxFaults of them; none means that the
	// ledger is whole.
	Faults []string
	// MoreFaults is how many there were beyond those.
	MoreFaults int64
	// Heads are the lanes' ends as verified.
	Heads []Head
}

// MaxFaults bounds how many faults a Report spells out.
const MaxFaults = 100

// Verify walks the whole ledger: every entry's MAC over the one before, every
// lane's head, that each code was redeemed once at most, and that each balance
// is the sum of its entries. With checkpoints, also that the ledger still holds
// what it held then. Progress, if not nil, is called now and then with the
// number of entries walked.
func Verify(
	ctx context.Context, ledger interface {
		Audit(ctx context.Context, a Auditor) error
	}, key []byte, since []Checkpoint, progress func(int64),
) (Report, error) {
	v := &verifier{
		chain: NewChain(key), progress: progress, since: since, lanes: map[int64]Head{},
		sums: map[int64]sum128{}, redeemed: map[int64]*[64]uint64{},
	}
	if err := ledger.Audit(ctx, v); err != nil {
		return Report{}, err
	}
	v.finish()
	return v.report, nil
}

type verifier struct {
	chain    *Chain
	progress func(int64)
	since    []Checkpoint
	report   Report

	lanes    map[int64]Head // where the walk is in each
	sums     map[int64]sum128
	redeemed map[int64]*[64]uint64 // a bit for each code, 4096 to a page
}

func (v *verifier) fault(format string, args ...any) {
	if len(v.report.Faults) == MaxFaults {
		v.report.MoreFaults++
		return
	}
	v.report.Faults = append(v.report.Faults, fmt.Sprintf(format, args...))
}

// Entry checks the next entry of a lane.
func (v *verifier) Entry(e Entry) error {
	at := v.lanes[e.Lane]
	if e.Seq != at.Count+1 {
		// The chain cannot be followed over the gap: go on behind it.
		v.fault("lane %d: entries %d to %d are missing", e.Lane, at.Count+1, e.Seq-1)
	} else if !hmac.Equal(v.chain.entryMAC(at.MAC, &e), e.MAC) {
		v.fault("lane %d: entry %d was altered or moved, or the one before it was", e.Lane, e.Seq)
	}
	if e.Kind == KindCheckpoint {
		v.checkpoint(e)
	}
	v.lanes[e.Lane] = Head{Lane: e.Lane, Count: e.Seq, MAC: e.MAC}
	for _, p := range v.since {
		if p.Lane == e.Lane && p.Count == e.Seq && !bytes.Equal(p.MAC, e.MAC) {
			v.fault("lane %d: entry %d is not the one of the checkpoint: this ledger has another past", p.Lane, p.Count)
		}
	}
	if e.Kind.Credits() {
		v.sums[e.AccountID] = v.sums[e.AccountID].add(e.Amount)
	}
	if e.Kind == KindRedeem {
		v.redeem(e)
	}
	v.report.Entries++
	if v.progress != nil && v.report.Entries%4096 == 0 {
		v.progress(v.report.Entries)
	}
	return nil
}

// checkpoint compares where the walk is in each lane with where the lane was when
// the entry was written: nobody wrote anything meanwhile.
func (v *verifier) checkpoint(e Entry) {
	heads, err := checkpointed(e.Detail)
	if err != nil {
		v.fault("lane %d: entry %d is a checkpoint that cannot be read", e.Lane, e.Seq)
	}
	for _, p := range heads {
		if at := v.lanes[p.Lane]; at.Count != p.Count || !bytes.Equal(at.MAC, p.MAC) {
			v.fault("lane %d: it ends at entry %d, where a checkpoint says %d, or at another: it was put back, or added to",
				p.Lane, at.Count, p.Count)
		}
	}
}

func (v *verifier) redeem(e Entry) {
	page := v.redeemed[e.FirstID>>12]
	if page == nil {
		page = new([64]uint64)
		v.redeemed[e.FirstID>>12] = page
	}
	word, bit := e.FirstID>>6&63, uint64(1)<<(e.FirstID&63)
	if page[word]&bit != 0 {
		v.fault("lane %d: entry %d redeems code %d a second time", e.Lane, e.Seq, e.FirstID)
	}
	page[word] |= bit
}

// Head compares a lane's stored head with where the walk ended.
func (v *verifier) Head(h Head) error {
	v.report.Lanes++
	v.report.Heads = append(v.report.Heads, h)
	at := v.lanes[h.Lane]
	delete(v.lanes, h.Lane)
	switch {
	case !v.chain.Genuine(h):
		v.fault("lane %d: the head row was altered", h.Lane)
	case h.Count > at.Count:
		v.fault("lane %d: cut off: it ends at entry %d, its head says %d", h.Lane, at.Count, h.Count)
	case h.Count < at.Count:
		v.fault("lane %d: it ends at entry %d, its head says %d: entries were added, or the head was put back",
			h.Lane, at.Count, h.Count)
	case !bytes.Equal(h.MAC, at.MAC):
		v.fault("lane %d: the last entry is not the one that the head names", h.Lane)
	}
	for _, p := range v.since {
		if p.Lane == h.Lane && p.Count > at.Count {
			v.fault("lane %d: it has %d entries, at the checkpoint it had %d: this is an older copy, or its tail was cut",
				p.Lane, at.Count, p.Count)
		}
	}
	return nil
}

// Balance compares one account's balance with the sum of its entries.
func (v *verifier) Balance(account, quota int64) error {
	if want := v.sums[account]; want != (sum128{}).add(quota) {
		v.fault("account %d: the balance is %d, its entries add up to %s", account, quota, want)
	}
	delete(v.sums, account)
	v.report.Accounts++
	return nil
}

func (v *verifier) finish() {
	for lane := range v.lanes {
		v.fault("lane %d: it has entries but no head", lane)
	}
	for account := range v.sums {
		v.fault("account %d: entries credit it, but there is no such account", account)
	}
	for _, p := range v.since {
		if !slices.ContainsFunc(v.report.Heads, func(h Head) bool { return h.Lane == p.Lane }) {
			v.fault("lane %d: it has no head, at the checkpoint it had %d entries", p.Lane, p.Count)
		}
	}
	if v.report.Lanes == 0 {
		v.fault("the ledger has no head")
	}
}

// sum128 is a sum of 64-bit integers that cannot overflow.
type sum128 struct {
	hi int64
	lo uint64
}

func (s sum128) add(n int64) sum128 {
	lo, carry := bits.Add64(s.lo, uint64(n), 0)    //nolint:gosec // G115: two's complement
	return sum128{s.hi + n>>63 + int64(carry), lo} //nolint:gosec // G115: 0 or 1
}

// String writes the sum, plainly where it fits 64 bits.
func (s sum128) String() string {
	if n := int64(s.lo); s.hi == n>>63 { //nolint:gosec // G115: two's complement
		return fmt.Sprint(n)
	}
	return "more than 64 bits hold"
}
