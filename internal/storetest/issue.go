package storetest

import (
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func issueTests() map[string]func(*world) {
	return map[string]func(*world){
		"Fields":         testIssueFields,
		"Refusals":       testIssueRefusals,
		"WholeOrNothing": testIssueWholeOrNothing,
		"Stale":          testIssueStale,
	}
}

func testIssueFields(w *world) {
	admin := w.person("admin", account.RoleAdmin, 0)
	expires := w.clock.Now().Truncate(time.Second).Add(time.Hour)
	for _, batch := range []struct {
		name    string
		count   int64
		quota   int64
		expires time.Time
	}{
		{"新年活动兑换码", 1, 100000, expires},
		{" trimmed <b>&\"'\\%_ ", 100, 1<<63 - 1, time.Time{}},
		{strings.Repeat("字", 20), 20, 1, time.Unix(253402300799, 0)},
		{"now is soon enough", 21, 5, w.clock.Now().Truncate(time.Second)},
	} {
		keys, err := w.codes.Issue(w.ctx, admin, redemption.IssueRequest{
			Name: batch.name, Count: batch.count, Quota: batch.quota, Expires: batch.expires,
		})
		w.check(err)
		views, _, err := w.codes.List(w.ctx, w.root, redemption.FilterAll, 0, batch.count)
		w.check(err)
		got := map[string]bool{}
		for _, v := range views {
			got[v.Key] = true
			want := redemption.Code{
				ID: v.ID, CreatorID: admin.ID, Name: strings.TrimSpace(batch.name), Status: redemption.StatusEnabled,
				Quota: batch.quota, Created: w.clock.Now(), Expires: batch.expires,
			}
			if !sameCode(v.Code, want) {
				w.Errorf("code %+v, want %+v", v.Code, want)
			}
		}
		for _, key := range keys {
			if len(key) != 32 || strings.Trim(key, "0123456789abcdef") != "" {
				w.Errorf("key %q is not 32 characters of 0-9a-f", key)
			}
			if !got[key] {
				w.Errorf("the list does not show the key %q", key)
			}
		}
		if len(got) != int(batch.count) || len(keys) != int(batch.count) {
			w.Errorf("%d keys and %d different ones in the list, want %d", len(keys), len(got), batch.count)
		}
		e := w.lastEntry()
		if e.ActorID != admin.ID || e.Address != admin.Address || e.Amount != batch.quota || !e.At.Equal(w.clock.Now()) {
			w.Errorf("the entry is %+v", e)
		}
		w.clock.Add(time.Millisecond)
	}
	w.audit()
}

func testIssueRefusals(w *world) {
	good := redemption.IssueRequest{Name: "n", Count: 1, Quota: 1}
	second := w.clock.Now().Truncate(time.Second)
	user := w.user("u", 0)
	unchanged := w.unchanged()
	for _, c := range []struct {
		code refusal.Code
		edit func(*redemption.IssueRequest)
	}{
		{refusal.RedemptionNameLength, func(r *redemption.IssueRequest) { r.Name = " \t " }},
		{refusal.RedemptionNameLength, func(r *redemption.IssueRequest) { r.Name = strings.Repeat("字", 21) }},
		{refusal.RedemptionNameCharacters, func(r *redemption.IssueRequest) { r.Name = "a\x00b" }},
		{refusal.RedemptionNameCharacters, func(r *redemption.IssueRequest) { r.Name = "a\nb" }},
		{refusal.RedemptionNameCharacters, func(r *redemption.IssueRequest) { r.Name = "a\xff" }},
		{refusal.RedemptionCountTooSmall, func(r *redemption.IssueRequest) { r.Count = 0 }},
		{refusal.RedemptionCountTooSmall, func(r *redemption.IssueRequest) { r.Count = -1 << 63 }},
		{refusal.RedemptionCountTooLarge, func(r *redemption.IssueRequest) { r.Count = 101 }},
		{refusal.RedemptionCountTooLarge, func(r *redemption.IssueRequest) { r.Count = 1<<63 - 1 }},
		{refusal.RedemptionQuota, func(r *redemption.IssueRequest) { r.Quota = 0 }},
		{refusal.RedemptionQuota, func(r *redemption.IssueRequest) { r.Quota = -1 }},
		{refusal.RedemptionExpiry, func(r *redemption.IssueRequest) { r.Expires = second.Add(-time.Second) }},
		{refusal.RedemptionExpiry, func(r *redemption.IssueRequest) { r.Expires = time.Unix(-1, 0) }},
		{refusal.RedemptionExpiryRange, func(r *redemption.IssueRequest) { r.Expires = time.Unix(253402300800, 0) }},
		{refusal.RedemptionExpiryRange, func(r *redemption.IssueRequest) { r.Expires = time.Unix(1<<62, 0) }},
	} {
		r := good
		c.edit(&r)
		_, err := w.codes.Issue(w.ctx, w.root, r)
		w.refused(err, c.code)
	}
	_, err := w.codes.Issue(w.ctx, user, good)
	w.refused(err, refusal.Forbidden)
	unchanged()
}

// newBatch is a batch for the store itself, of so many random keys.
func (w *world) newBatch(name string, count int, quota int64, expires time.Time) (redemption.Batch, []string) {
	w.Helper()
	keys := make([]string, count)
	for i := range keys {
		keys[i] = account.NewToken()
	}
	return w.batchOf(name, quota, expires, keys), keys
}

func (w *world) batchOf(name string, quota int64, expires time.Time, keys []string) redemption.Batch {
	w.Helper()
	ring, err := w.engine.Keys().Reload(w.ctx)
	w.check(err)
	b := redemption.Batch{
		Epoch: ring.Epoch(), Creator: w.root, Name: name, Quota: quota, Created: w.clock.Now(), Expires: expires,
		Keys: make([]redemption.NewKey, len(keys)),
	}
	for i, key := range keys {
		b.Keys[i] = newKey(ring, key)
	}
	return b
}

func newKey(ring *keyring.Ring, key string) redemption.NewKey {
	indexes := ring.Indexes(key)
	context := append([]byte("redemption key "), indexes[0]...)
	return redemption.NewKey{Sealed: ring.Seal(context, []byte(key)), Indexes: indexes}
}

// A batch of which one key is taken, the last, leaves nothing: no code, no
// name, no count, no entry.
func testIssueWholeOrNothing(w *world) {
	old := w.issueOne(5)
	unchanged := w.unchanged()

	_, keys := w.newBatch("", 99, 7, time.Time{})
	for _, taken := range []string{old.Key, keys[0], keys[98]} {
		err := w.engine.Issue(w.ctx, w.batchOf("half", 7, time.Time{}, append(keys[:99:99], taken)))
		if err == nil || refusal.CodeOf(err) != "" {
			w.Fatalf("a batch with a key that is taken: %v", err)
		}
		unchanged()
	}
	views, total, err := w.codes.Search(w.ctx, w.root, "half", redemption.FilterAll, 0, 10)
	w.check(err)
	if total != 0 || len(views) != 0 {
		w.Errorf("the name is found: %d", total)
	}
	w.check(w.engine.Issue(w.ctx, w.batchOf("half", 7, time.Time{}, keys)))
	if n := w.total(redemption.FilterAll); n != 100 {
		w.Errorf("%d codes, want 100", n)
	}
	w.audit()
}

func testIssueStale(w *world) {
	b, _ := w.newBatch("stale", 3, 7, time.Time{})
	w.check(w.engine.Rotate(w.ctx, nil))
	unchanged := w.unchanged()
	w.stale(w.engine.Issue(w.ctx, b))
	unchanged()
}
