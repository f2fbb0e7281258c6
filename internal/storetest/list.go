package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/redemption"
)

func listTests() map[string]func(*world) {
	return map[string]func(*world){
		"Empty":     testListEmpty,
		"Reference": testListReference,
		"Blocks":    testListBlocks,
	}
}

func testListEmpty(w *world) {
	for _, keyword := range []string{"", "n", "1", "%", strings.Repeat("0", 32)} {
		for _, f := range allFilters() {
			for _, offset := range []int64{0, 20, 1 << 62} {
				views, total, err := w.codes.Search(w.ctx, w.root, keyword, f, offset, 20)
				w.check(err)
				if len(views) != 0 || total != 0 {
					w.Errorf("%q: %v of %d, want none", keyword, ids(views), total)
				}
			}
		}
	}
}

// reference is the codes as they should be, searched the simple way.
type reference map[int64]*redemption.View

func (r reference) search(keyword string, f redemption.Filter, now time.Time) []redemption.View {
	var out []redemption.View
	for _, v := range r {
		if (strings.TrimSpace(keyword) == "" || found(v, keyword)) && passes(&v.Code, f, now) {
			out = append(out, *v)
		}
	}
	slices.SortFunc(out, func(a, b redemption.View) int { return int(b.ID - a.ID) })
	return out
}

// found is by a part of the name, the letters a to z in either case, by the id,
// or by the whole key.
func found(v *redemption.View, word string) bool {
	id, err := strconv.ParseInt(strings.TrimSpace(word), 10, 64)
	return err == nil && id == v.ID || strings.Contains(lowerASCII(v.Name), lowerASCII(word)) ||
		strings.ToLower(strings.TrimSpace(strings.ReplaceAll(word, "-", ""))) == v.Key
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// compare asks for pages of what keyword finds and compares them with want.
func (w *world) compare(r *rand.Rand, ref reference, keyword string, f redemption.Filter) {
	w.Helper()
	want := ref.search(keyword, f, w.clock.Now())
	n := int64(len(want))
	for range 3 {
		var offset int64
		switch r.IntN(6) {
		case 0, 1:
			offset = r.Int64N(n + 1)
		case 2:
			offset = max(n-3, 0)
		case 3:
			offset = []int64{n, n + 1, n + 1000, 1<<63 - 1}[r.IntN(4)]
		}
		limit := []int64{1, 3, 20, 100}[r.IntN(4)]
		page, total, err := w.codes.Search(w.ctx, w.root, keyword, f, offset, limit)
		w.check(err)
		if total != n {
			w.Errorf("searching %q, filter %d: total %d, want %d", keyword, f, total, n)
		}
		from := min(offset, n)
		sameViews(w.T, page, want[from:min(from+limit, n)])
		if w.Failed() {
			w.Fatalf("searching %q, filter %d, offset %d, limit %d: not as the reference has it", keyword, f, offset, limit)
		}
	}
}

// walk compares every page from the first to the last.
func (w *world) walk(ref reference, keyword string, f redemption.Filter, limit int64) {
	w.Helper()
	want := ref.search(keyword, f, w.clock.Now())
	var got []redemption.View
	for {
		page, _, err := w.codes.Search(w.ctx, w.root, keyword, f, int64(len(got)), limit)
		w.check(err)
		if got = append(got, page...); len(page) < int(limit) {
			break
		}
	}
	sameViews(w.T, got, want)
	if w.Failed() {
		w.Fatalf("searching %q, filter %d, %d a page: not as the reference has it", keyword, f, limit)
	}
}

func names() []string {
	return []string{
		"alpha", "ALPHAbet", "beta", "alphabeta", "新年活动", "新年快乐", "年", "夏祭り", "ハロー", "emoji 🎁🎉",
		"100%", "50%_off", "a_b", "axb", `back\slash`, `\`, "%", "_", "1", "12", "512", "id 7", "é è", "é è",
		"<b>bold</b>", "it's", `"quoted"`, "a--b", "; DROP TABLE x", "ÀÉÎ", "àéî",
	}
}

func keywords() []string {
	return []string{
		"", "alpha", "ALPHA", "bet", "年", "新年", "年活", "祭", "ロ", "🎁", "%", "_", `\`, "%%", "a_b", "0%", `k\s`, "1", "2",
		"12", "7", "300", "00012", "-1", "999999999", "é", "é", "zzz", " alpha ", "o", "'", `"`, "<b>", "--", ";", "àé",
		strings.Repeat("年", 20), strings.Repeat("x", 21), strings.Repeat("x", 5000), "a\x00b", "\xff", "0x1", "1e2",
	}
}

// populate makes random codes with random fates, over several blocks of ids, and
// returns them as they should be.
func (w *world) populate(r *rand.Rand, batches int) reference {
	w.Helper()
	ref := reference{}
	user := w.user("someone", 0)
	start := w.clock.Now().Truncate(time.Second)
	for range batches {
		var expires time.Time
		if r.IntN(2) == 0 {
			expires = start.Add(time.Duration(1+r.IntN(8)) * time.Minute)
		}
		name := names()[r.IntN(len(names()))]
		for _, v := range w.issue(name, 1+r.Int64N(40), 1+r.Int64N(1000), expires) {
			ref[v.ID] = &v
		}
	}
	for _, id := range ref.sorted() {
		switch r.IntN(10) {
		case 0:
			w.redeem(user, ref[id].Key)
			ref[id].Status, ref[id].Redeemed, ref[id].UsedBy = redemption.StatusUsed, w.clock.Now(), user.ID
		case 1:
			w.disable(id)
			ref[id].Status = redemption.StatusDisabled
		case 2:
			name := names()[r.IntN(len(names()))]
			w.change(id, redemption.Change{Name: &name})
			ref[id].Name = name
		case 3:
			w.check(w.codes.Delete(w.ctx, w.root, id))
			delete(ref, id)
		}
	}
	return ref
}

func (r reference) sorted() []int64 {
	out := make([]int64, 0, len(r))
	for id := range r {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// Every filter, keyword and page, against the reference, as time goes on and
// back and the sweep comes or does not.
func testListReference(w *world) {
	r := seeded(1)
	ref := w.populate(r, 40)
	start := w.clock.Now()
	for _, stage := range []struct {
		minutes int
		swept   bool
	}{{0, false}, {3, false}, {6, true}, {2, false}, {2, true}, {20, false}} {
		w.clock.Set(start.Add(time.Duration(stage.minutes) * time.Minute))
		if stage.swept {
			w.check(w.codes.Sweep(w.ctx))
		}
		some := ref.sorted()
		for _, keyword := range keywords() {
			w.compare(r, ref, keyword, allFilters()[r.IntN(5)])
		}
		for _, f := range allFilters() {
			w.compare(r, ref, "", f)
			w.compare(r, ref, "a", f)
			w.compare(r, ref, "1", f)
			// A key, and an id that parts of names match too.
			v := ref[some[r.IntN(len(some))]]
			w.compare(r, ref, v.Key, f)
			w.compare(r, ref, strings.ToUpper(v.Key[:9]+"-"+v.Key[9:]), f)
			w.compare(r, ref, fmt.Sprint(v.ID), f)
			w.compare(r, ref, v.Name, f)
		}
		w.walk(ref, "", redemption.FilterAll, 100)
		w.walk(ref, "", redemption.FilterLive, 33)
		w.walk(ref, "a", redemption.FilterExpired, 7)
		w.walk(ref, "1", redemption.FilterAll, 10)
	}
	w.audit()
}

// Ids far apart, with most of what was between them gone: over the borders of
// blocks of every size up to more than ten thousand.
func testListBlocks(w *world) {
	r := seeded(2)
	ref := reference{}
	start := w.clock.Now().Truncate(time.Second)
	for made := 0; made < 18_000; {
		count, lives := 1+r.IntN(3000), false
		if r.IntN(4) == 0 {
			count, lives = 1+r.IntN(60), true
		}
		expires := start.Add(time.Minute)
		if lives {
			expires = time.Time{}
		}
		b, keys := w.newBatch(names()[r.IntN(5)], count, 5, expires)
		w.check(w.engine.Issue(w.ctx, b))
		first := w.lastEntry().FirstID
		for i, key := range keys {
			if lives {
				ref[first+int64(i)] = &redemption.View{Key: key, Code: redemption.Code{
					ID: first + int64(i), CreatorID: w.root.ID, Name: b.Name, Status: redemption.StatusEnabled, Quota: 5,
					Created: w.clock.Now(),
				}}
			}
		}
		made += count
	}
	all := w.total(redemption.FilterAll)
	w.clock.Add(time.Hour)
	if n := w.total(redemption.FilterExpired); n != all-int64(len(ref)) {
		w.Errorf("%d have expired and are not swept, want %d", n, all-int64(len(ref)))
	}
	removed, err := w.codes.DeleteInvalid(w.ctx, w.ctx, w.root)
	w.check(err)
	if removed != all-int64(len(ref)) {
		w.Errorf("removed %d, want %d", removed, all-int64(len(ref)))
	}
	w.walk(ref, "", redemption.FilterAll, 100)
	w.walk(ref, "alpha", redemption.FilterLive, 61)
	for _, keyword := range []string{"", "alpha", "年", "zzz"} {
		for _, f := range allFilters() {
			w.compare(r, ref, keyword, f)
		}
	}
	for range 20 {
		id := ref.sorted()[r.IntN(len(ref))]
		w.compare(r, ref, fmt.Sprint(id), redemption.FilterAll)
	}
	w.audit()
}
