package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func findTests() map[string]func(*world) {
	return map[string]func(*world){
		"Reference": testFindReference,
		"Skew":      testFindSkew,
		"UsedFar":   testFindUsedFar,
		"Batches":   testFindBatches,
		"Forbidden": testFindForbidden,
	}
}

// history is codes as they should be, and which ones each user has redeemed, in
// that order.
type history struct {
	reference

	used  map[int64][]int64
	times []time.Time // at which codes were made
}

// live makes codes as time goes by, and has random fates befall them.
func (w *world) live(r *rand.Rand, batches int) history {
	w.Helper()
	h := history{reference: reference{}, used: map[int64][]int64{}}
	users := []account.Actor{w.user("ann", 0), w.user("ben", 0), w.root}
	for range batches {
		w.clock.Add(time.Duration(r.IntN(3)) * 700 * time.Millisecond)
		var expires time.Time
		if r.IntN(3) == 0 {
			expires = w.clock.Now().Truncate(time.Second).Add(time.Duration(1+r.IntN(40)) * time.Second)
		}
		h.times = append(h.times, w.clock.Now())
		for _, v := range w.issue(names()[r.IntN(len(names()))], 1+r.Int64N(40), 1+r.Int64N(1000), expires) {
			h.reference[v.ID] = &v
		}
		for range 6 {
			all := h.sorted()
			v := h.reference[all[r.IntN(len(all))]]
			switch by := users[r.IntN(len(users))]; r.IntN(6) {
			case 0, 1, 2:
				if v.Status == redemption.StatusEnabled && !v.Expired(w.clock.Now()) {
					w.redeem(by, v.Key)
					v.Status, v.Redeemed, v.UsedBy = redemption.StatusUsed, w.clock.Now(), by.ID
					h.used[by.ID] = append(h.used[by.ID], v.ID)
				}
			case 3:
				if v.Status == redemption.StatusEnabled {
					w.disable(v.ID)
					v.Status = redemption.StatusDisabled
				}
			case 4:
				v.Name = names()[r.IntN(len(names()))]
				w.change(v.ID, redemption.Change{Name: &v.Name})
			case 5:
				w.check(w.codes.Delete(w.ctx, w.root, v.ID))
				delete(h.reference, v.ID)
			}
		}
	}
	return h
}

// find is what a search should find, in order.
func (h history) find(s redemption.Search, now time.Time) []redemption.View {
	out := slices.DeleteFunc(h.search(s.Keyword, s.Filter, now), func(v redemption.View) bool {
		return s.Batch != nil && v.Name != *s.Batch || v.Created.Before(s.From) || !s.To.IsZero() && !v.Created.Before(s.To) ||
			s.UsedBy != 0 && v.UsedBy != s.UsedBy
	})
	if order := h.used[s.UsedBy]; s.UsedBy != 0 {
		slices.SortFunc(out, func(a, b redemption.View) int { return slices.Index(order, b.ID) - slices.Index(order, a.ID) })
	}
	return out
}

// some is a random search.
func (h history) some(r *rand.Rand) (s redemption.Search) {
	s.Filter = allFilters()[r.IntN(5)]
	if r.IntN(2) == 0 {
		s.Filter = redemption.FilterAll
	}
	all := h.sorted()
	v := h.reference[all[r.IntN(len(all))]]
	switch r.IntN(8) {
	case 0:
		s.Keyword = keywords()[r.IntN(len(keywords()))]
	case 1:
		s.Keyword = v.Key
	case 2:
		s.Keyword = fmt.Sprint(v.ID)
	case 3:
		s.Keyword = "a"
	case 4: // names, and an id between theirs
		s.Keyword = []string{"1", "12", "512"}[r.IntN(3)]
	}
	switch r.IntN(4) {
	case 0:
		s.Batch = new(v.Name)
	case 1:
		s.Batch = new(append(names(), "no such name", "", strings.Repeat("x", 100))[r.IntN(len(names())+3)])
	}
	some := func() time.Time {
		return h.times[r.IntN(len(h.times))].Add(time.Duration(r.IntN(3)-1) * time.Millisecond)
	}
	if r.IntN(2) == 0 {
		s.From = some()
	}
	if r.IntN(2) == 0 {
		s.To = some()
	}
	return s
}

// Every combination of filters, against the reference, as time goes on and the
// sweep comes or does not.
func testFindReference(w *world) {
	r := seeded(3)
	h := w.live(r, 60)
	for stage := range 4 {
		if stage%2 == 1 {
			w.check(w.codes.Sweep(w.ctx))
		}
		for range 150 {
			s := h.some(r)
			if r.IntN(3) == 0 {
				s.UsedBy = 1 + r.Int64N(4) // one of them has none
				w.compareUsed(h, s, 1+r.Int64N(12))
				continue
			}
			w.compareFound(r, h, s)
		}
		w.clock.Add(15 * time.Second)
	}
	w.audit()
}

func (w *world) compareFound(r *rand.Rand, h history, s redemption.Search) {
	w.Helper()
	want := h.find(s, w.clock.Now())
	n := int64(len(want))
	offset := []int64{0, r.Int64N(n + 1), max(n-3, 0), n, n + 7, 1<<63 - 1}[r.IntN(6)]
	limit := []int64{1, 3, 20, 100}[r.IntN(4)]
	f, err := w.codes.Find(w.ctx, w.root, s, offset, limit)
	w.check(err)
	from := min(offset, n)
	sameViews(w.T, f.Codes, want[from:min(from+limit, n)])
	if f.Total != n || f.Next != 0 || w.Failed() {
		w.Fatalf("%+v, offset %d, limit %d: total %d, next %d, want %d", s, offset, limit, f.Total, f.Next, n)
	}
}

func (w *world) compareUsed(h history, s redemption.Search, limit int64) {
	w.Helper()
	want := h.find(s, w.clock.Now())
	var got []redemption.View
	total := int64(len(want))
	for {
		f, err := w.codes.Find(w.ctx, w.root, s, 5, limit)
		w.check(err)
		if int64(len(f.Codes)) > limit || f.Total != total {
			w.Fatalf("%+v: %d codes of %d, want %d of %d", s, len(f.Codes), f.Total, limit, total)
		}
		got = append(got, f.Codes...)
		if f.Next == 0 {
			break
		}
		if s.Before != 0 && f.Next >= s.Before {
			w.Fatalf("from %d on to %d", s.Before, f.Next)
		}
		s.Before, total = f.Next, -1
	}
	sameViews(w.T, got, want)
	if w.Failed() {
		w.Fatalf("%+v, limit %d", s, limit)
	}
}

// Codes that were made at nearly the same time, in another order than their ids:
// what is found is all of one range of ids, and wrong by no more than the skew.
func testFindSkew(w *world) {
	const skew = 20 * time.Millisecond
	r := seeded(4)
	start := w.clock.Now()
	for i := range 150 {
		b, _ := w.newBatch("n", 1+r.IntN(5), 1, time.Time{})
		b.Created = start.Add(time.Duration(i)*5*time.Millisecond + time.Duration(r.Int64N(int64(skew))))
		w.check(w.engine.Issue(w.ctx, b))
	}
	all := w.allCodes()
	for range 50 {
		s := redemption.Search{From: start.Add(time.Duration(r.IntN(800)) * time.Millisecond)}
		s.To = s.From.Add(time.Duration(r.IntN(300)) * time.Millisecond)
		var got []int64
		for {
			f, err := w.codes.Find(w.ctx, w.root, s, int64(len(got)), 30)
			w.check(err)
			got = append(got, ids(f.Codes)...)
			if len(f.Codes) == 0 {
				if f.Total != int64(len(got)) {
					w.Errorf("%d codes on all pages, total %d", len(got), f.Total)
				}
				break
			}
		}
		if n := len(got); n > 0 && got[0]-got[n-1] != int64(n)-1 {
			w.Errorf("the ids %v are no range", got)
		}
		for _, v := range all {
			found := slices.Contains(got, v.ID)
			surely := !v.Created.Before(s.From.Add(skew)) && v.Created.Before(s.To.Add(-skew))
			never := v.Created.Before(s.From.Add(-skew)) || !v.Created.Before(s.To.Add(skew))
			if surely && !found || never && found {
				w.Errorf("a code made at %v is found: %t, from %v to %v", v.Created, found, s.From, s.To)
			}
		}
	}
}

// Whoever does much beside redeeming codes is looked through in pages too.
func testFindUsedFar(w *world) {
	codes := w.issue("n", 100, 1, time.Time{})
	rest := codes[10:]
	for i := range 4 {
		w.redeem(w.root, codes[i].Key)
	}
	for i := range 24 {
		status := redemption.StatusDisabled
		if i%2 == 1 {
			status = redemption.StatusEnabled
		}
		refused, err := w.codes.ChangeMany(w.ctx, w.root, ids(rest), redemption.Change{Status: &status})
		if err != nil || len(refused) != 0 {
			w.Fatalf("%v, %v", refused, err)
		}
	}
	for i := range 3 {
		w.redeem(w.root, codes[4+i].Key)
	}
	s := redemption.Search{UsedBy: w.root.ID}
	var got []int64
	pages := 0
	for ; ; pages++ {
		f, err := w.codes.Find(w.ctx, w.root, s, 0, 50)
		w.check(err)
		if got = append(got, ids(f.Codes)...); f.Total != -1 {
			w.Errorf("page %d has a total of %d", pages, f.Total)
		}
		if f.Next == 0 {
			break
		}
		s.Before = f.Next
	}
	want := []int64{codes[6].ID, codes[5].ID, codes[4].ID, codes[3].ID, codes[2].ID, codes[1].ID, codes[0].ID}
	if !slices.Equal(got, want) || pages < 2 {
		w.Errorf("%v on %d pages, want %v", got, pages+1, want)
	}
}

// batches lists all names that contain the query, in pages.
func (w *world) batches(query string, limit int64) (out []redemption.BatchCount) {
	w.Helper()
	for before := int64(0); ; {
		page, next, err := w.codes.Batches(w.ctx, w.root, query, before, limit)
		w.check(err)
		if out = append(out, page...); next == 0 {
			return out
		}
		if before != 0 && next >= before || int64(len(page)) > limit {
			w.Fatalf("%d names from %d, and on to %d", len(page), before, next)
		}
		before = next
	}
}

// auditCounts compares what is counted by name and as invalid with the codes.
func (w *world) auditCounts(codes []redemption.View) {
	w.Helper()
	want := map[string]redemption.BatchCount{}
	var invalid int64
	for _, v := range codes {
		b := want[v.Name]
		switch b.Name = v.Name; {
		case v.Expired(w.clock.Now()):
			b.Expired++
		case v.Status == redemption.StatusEnabled:
			b.Live++
		case v.Status == redemption.StatusDisabled:
			b.Disabled++
		default:
			b.Used++
		}
		want[v.Name] = b
		if !passes(&v.Code, redemption.FilterLive, w.clock.Now()) {
			invalid++
		}
	}
	got := w.batches("", 7)
	for i, b := range got {
		if i > 0 && b.ID >= got[i-1].ID {
			w.Errorf("name %d is listed behind %d", b.ID, got[i-1].ID)
		}
		b.ID = 0
		if b != want[b.Name] {
			w.Errorf("the name %q has %+v, want %+v", b.Name, b, want[b.Name])
		}
	}
	if len(got) != len(want) {
		w.Errorf("%d names, want %d", len(got), len(want))
	}
	if n, err := w.codes.CountInvalid(w.ctx, w.root); err != nil || n != invalid {
		w.Errorf("%d codes are invalid, %v, want %d", n, err, invalid)
	}
}

func testFindBatches(w *world) {
	h := w.live(seeded(5), 40)
	start := w.clock.Now()
	for _, step := range []struct {
		seconds int
		swept   bool
	}{{0, false}, {10, false}, {20, true}, {12, false}, {12, true}, {60, false}} { // it is set back too
		w.clock.Set(start.Add(time.Duration(step.seconds) * time.Second))
		if step.swept {
			w.check(w.codes.Sweep(w.ctx))
		}
		w.auditCounts(w.allCodes())
	}
	there := map[string]bool{}
	for _, v := range h.reference {
		there[v.Name] = true
	}
	for _, query := range append(keywords(), names()...) {
		var want []string
		for name := range there {
			if strings.Contains(lowerASCII(name), lowerASCII(query)) {
				want = append(want, name)
			}
		}
		var got []string
		for _, b := range w.batches(query, 3) {
			got = append(got, b.Name)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			w.Errorf("%q finds the names %q, want %q", query, got, want)
		}
	}
	w.audit()
}

func testFindForbidden(w *world) {
	user := w.user("u", 0)
	_, err := w.codes.Find(w.ctx, user, redemption.Search{}, 0, 1)
	w.refused(err, refusal.Forbidden)
	_, _, err = w.codes.Batches(w.ctx, user, "", 0, 1)
	w.refused(err, refusal.Forbidden)
	_, err = w.codes.CountInvalid(w.ctx, user)
	w.refused(err, refusal.Forbidden)
}
