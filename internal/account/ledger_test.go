package account_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
)

// book is a ledger in memory, of one or more lanes.
type book struct {
	account.Store // nil: only Audit is called
	entries       []account.Entry
	heads         []account.Head
	balances      map[int64]int64
	err           error
}

func (b *book) Audit(_ context.Context, a account.Auditor) error {
	for _, e := range b.entries {
		if err := a.Entry(e); err != nil {
			return err
		}
	}
	for _, h := range b.heads {
		if err := a.Head(h); err != nil {
			return err
		}
	}
	for id, n := range b.balances {
		if err := a.Balance(id, n); err != nil {
			return err
		}
	}
	return b.err
}

func key() []byte { return bytes.Repeat([]byte{7}, 32) }

// add appends an entry to a lane, which is made if it is not there.
func (b *book) add(lane int64, e account.Entry) {
	chain := account.NewChain(key())
	at := slices.IndexFunc(b.heads, func(h account.Head) bool { return h.Lane == lane })
	if at < 0 {
		at = len(b.heads)
		b.heads = append(b.heads, account.Head{Lane: lane})
	}
	chain.Append(&b.heads[at], &e)
	chain.SealHead(&b.heads[at])
	b.entries = append(b.entries, e)
}

func (b *book) faults(t *testing.T) []string {
	t.Helper()
	r, err := account.Verify(t.Context(), b, key(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r.Faults
}

// Lanes are verified each for itself, however their entries are mixed.
func TestVerifyLanes(t *testing.T) {
	b := &book{balances: map[int64]int64{1: 30, 2: 15}}
	for i := range int64(10) {
		b.add(1+i%3, account.Entry{Kind: account.KindRedeem, AccountID: 1 + i%2, FirstID: i + 1, Amount: 3 + 3*(1-i%2)})
	}
	if faults := b.faults(t); faults != nil {
		t.Errorf("a whole ledger: %q", faults)
	}
	// Between lanes nothing can be moved either.
	moved := *b
	moved.entries = slices.Clone(b.entries)
	moved.entries[0].Lane, moved.entries[1].Lane = 2, 1
	if faults := moved.faults(t); len(faults) < 2 {
		t.Errorf("entries moved between lanes: %q", faults)
	}
	lost := *b
	lost.heads = b.heads[:2]
	if faults := lost.faults(t); len(faults) != 1 || !strings.Contains(faults[0], "no head") {
		t.Errorf("a lane without a head: %q", faults)
	}
	twice := *b
	twice.entries, twice.heads = slices.Clone(b.entries), slices.Clone(b.heads)
	twice.balances = map[int64]int64{1: 36, 2: 15}
	twice.add(2, account.Entry{Kind: account.KindRedeem, AccountID: 1, FirstID: 1, Amount: 6})
	if faults := twice.faults(t); len(faults) != 1 || !strings.Contains(faults[0], "a second time") {
		t.Errorf("a code redeemed in two lanes: %q", faults)
	}
}

// Sums do not wrap: no set of entries beyond 64 bits makes a balance right.
func TestVerifySums(t *testing.T) {
	b := &book{balances: map[int64]int64{1: math.MaxInt64}}
	b.add(1, account.Entry{Kind: account.KindQuota, AccountID: 1, Amount: math.MaxInt64})
	if faults := b.faults(t); faults != nil {
		t.Errorf("the largest balance: %q", faults)
	}
	for range 2 {
		b.add(1, account.Entry{Kind: account.KindQuota, AccountID: 1, Amount: math.MaxInt64})
	}
	for _, balance := range []int64{math.MaxInt64, math.MaxInt64 - 2, -3, 0} {
		b.balances[1] = balance
		if faults := b.faults(t); len(faults) != 1 || !strings.Contains(faults[0], "more than 64 bits") {
			t.Errorf("a balance of %d: %q", balance, faults)
		}
	}
	b.add(1, account.Entry{Kind: account.KindQuota, AccountID: 1, Amount: -math.MaxInt64})
	b.add(1, account.Entry{Kind: account.KindQuota, AccountID: 1, Amount: math.MinInt64})
	b.balances[1] = math.MaxInt64 - 1
	if faults := b.faults(t); faults != nil {
		t.Errorf("back within 64 bits: %q", faults)
	}
	b.balances[1]++
	if faults := b.faults(t); len(faults) != 1 {
		t.Errorf("one too many: %q", faults)
	}
}

func TestVerifyBounds(t *testing.T) {
	b := &book{balances: map[int64]int64{}}
	for id := range int64(3 * account.MaxFaults) {
		b.balances[id+1] = 1
	}
	b.add(1, account.Entry{Kind: account.KindIssue})
	calls := 0
	r, err := account.Verify(t.Context(), b, key(), nil, func(int64) { calls++ })
	if err != nil || len(r.Faults) != account.MaxFaults || r.MoreFaults != 2*account.MaxFaults || calls != 0 {
		t.Errorf("%d and %d faults, %v, %d calls", len(r.Faults), r.MoreFaults, err, calls)
	}
	for range 10_000 {
		b.add(1, account.Entry{Kind: account.KindChange})
	}
	r, err = account.Verify(t.Context(), b, key(), nil, func(int64) { calls++ })
	if err != nil || r.Entries != 10_001 || calls != 2 {
		t.Errorf("%d entries, %d calls, %v", r.Entries, calls, err)
	}
	b.err = errors.New("cannot be read")
	if _, err := account.Verify(t.Context(), b, key(), nil, nil); !errors.Is(err, b.err) {
		t.Errorf("a ledger that cannot be read: %v", err)
	}
	if faults := (&book{}).faults(t); len(faults) != 1 {
		t.Errorf("nothing at all: %q", faults)
	}
}

// The MACs are of the form that is written down, or ledgers that are kept could
// no longer be verified. These two were computed by another program.
func TestChainVector(t *testing.T) {
	h := account.Head{Lane: 3, Count: 42, MAC: make([]byte, 32)}
	for i := range h.MAC {
		h.MAC[i] = byte(i)
	}
	e := account.Entry{
		At: time.UnixMilli(1772600767500), Kind: account.KindRedeem, ActorID: 2, Address: "2001:db8::1", AccountID: 5,
		FirstID: 8, LastID: 9, Count: 2, Amount: -7, Detail: `{"name":["a","新年"]}`,
	}
	chain := account.NewChain(key())
	chain.Append(&h, &e)
	chain.SealHead(&h)
	if got, want := hex.EncodeToString(e.MAC), "cc5b08d7b3300b8dade3d6665dfb0a398a1db8a689c939e9f4d3d8f48916475f"; got != want {
		t.Errorf("the entry's MAC is %s, want %s", got, want)
	}
	if got, want := hex.EncodeToString(h.Seal), "f17856fb41612f546ba6f3289f268b4e7042d3bf96cccfd6e568070b4ed0435d"; got != want {
		t.Errorf("the head's seal is %s, want %s", got, want)
	}
}

// An entry that was genuine in another copy of the ledger, at the same place, is
// none in this one.
func TestVerifySpliced(t *testing.T) {
	one, other := &book{}, &book{}
	for i := range int64(6) {
		e := account.Entry{Kind: account.KindDelete, FirstID: i}
		one.add(1, e)
		if i == 3 {
			e.FirstID = 99
		}
		other.add(1, e)
	}
	head := one.heads[0]
	one.heads[0] = other.heads[0]
	if faults := one.faults(t); len(faults) != 1 || !strings.Contains(faults[0], "not the one that the head names") {
		t.Errorf("with the head of another copy: %q", faults)
	}
	one.heads[0] = head
	one.entries[3] = other.entries[3]
	if faults := one.faults(t); len(faults) != 1 || !strings.Contains(faults[0], "entry 5 was altered or moved") {
		t.Errorf("with an entry of another copy: %q", faults)
	}
}

// Each field is in the MAC, and none can be taken for another.
func TestChainFields(t *testing.T) {
	chain := account.NewChain(key())
	macs := map[string]string{}
	for name, e := range map[string]account.Entry{
		"none":     {},
		"at":       {At: time.UnixMilli(1)},
		"kind":     {Kind: "x"},
		"address":  {Address: "x"},
		"detail":   {Detail: "x"},
		"both":     {Address: "x", Detail: "x"},
		"joined":   {Address: "xx"},
		"actor":    {ActorID: 1},
		"account":  {AccountID: 1},
		"first":    {FirstID: 1},
		"last":     {LastID: 1},
		"count":    {Count: 1},
		"amount":   {Amount: 1},
		"minus":    {Amount: -1},
		"embedded": {Kind: "x\x00\x00\x00\x00\x00\x00\x00\x01x"},
	} {
		if name != "at" {
			e.At = time.UnixMilli(0)
		}
		h := account.Head{Lane: 1}
		chain.Append(&h, &e)
		if e.Seq != 1 || h.Count != 1 || !bytes.Equal(h.MAC, e.MAC) || len(e.MAC) != 32 {
			t.Errorf("%s: the head is %+v, the entry %+v", name, h, e)
		}
		if other, ok := macs[string(e.MAC)]; ok {
			t.Errorf("%s and %s have one MAC", name, other)
		}
		macs[string(e.MAC)] = name
		again := account.Head{Lane: 2}
		chain.Append(&again, &e)
		if macs[string(e.MAC)] != "" {
			t.Errorf("%s has the same MAC in another lane", name)
		}
	}
}

func TestCheckpoints(t *testing.T) {
	mac := bytes.Repeat([]byte{0xab}, 32)
	heads := []account.Head{{Lane: 1, Count: 42, MAC: mac}, {Lane: 7, Count: math.MaxInt64, MAC: mac}, {Lane: 9}}
	text := account.Checkpoints(heads)
	points, err := account.ParseCheckpoints(" " + text + "\n")
	if err != nil || len(points) != 3 {
		t.Fatalf("%q is read as %v, %v", text, points, err)
	}
	for i, p := range points {
		if p.Lane != heads[i].Lane || p.Count != heads[i].Count || !bytes.Equal(p.MAC, heads[i].MAC) {
			t.Errorf("%+v is read as %+v", heads[i], p)
		}
	}
	digits := strings.Repeat("ab", 32)
	for _, bad := range []string{
		"", ",", "1:42", "1:42:", "1:42:ab", "0:42:" + digits, "-1:42:" + digits, "1:-1:" + digits, "1:0:" + digits, "x:42:" + digits,
		"1:42:" + digits + ",", "1:42:" + digits + ":", "1:42:" + digits + "ab", "1 :42:" + digits, "1:42:" + strings.Repeat("zz", 32),
		"9223372036854775808:1:" + digits, "1:42:" + digits + " 2:42:" + digits,
	} {
		if points, err := account.ParseCheckpoints(bad); err == nil {
			t.Errorf("%q is read as %v", bad, points)
		}
	}
}

func FuzzParseCheckpoints(f *testing.F) {
	f.Add("1:42:" + strings.Repeat("ab", 32))
	f.Add("1:0:,2:1:" + strings.Repeat("00", 32))
	f.Add("::")
	f.Add("+1:042:" + strings.Repeat("AB", 32))
	f.Fuzz(func(t *testing.T, text string) {
		points, err := account.ParseCheckpoints(text)
		if err != nil {
			if points != nil {
				t.Errorf("%q: %v and %v", text, points, err)
			}
			return
		}
		heads := make([]account.Head, len(points))
		for i, p := range points {
			if p.Lane < 1 || p.Count < 0 || p.Count > 0 != (len(p.MAC) == 32) {
				t.Errorf("%q is read as %+v", text, p)
			}
			heads[i] = account.Head{Lane: p.Lane, Count: p.Count, MAC: p.MAC}
		}
		again, err := account.ParseCheckpoints(account.Checkpoints(heads))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(points) {
			t.Errorf("%q is read as %v, and that as %v, %v", text, points, again, err)
		}
	})
}
