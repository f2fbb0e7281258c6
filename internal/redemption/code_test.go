package redemption

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func TestNormalize(t *testing.T) {
	for text, want := range map[string]string{
		"":                    "",
		" \t\r\n":             "",
		"-":                   "",
		" - - ":               "",
		"abc":                 "abc",
		" ABC ":               "abc",
		"ab-cd-EF":            "abcdef",
		"-- ab\u00a0":         "ab",
		"\u3000全角\u3000":      "全角",
		"a b":                 "a b", // one inside is not around
		"– dash":              "– dash",
		"0123456789-abcdef\n": "0123456789abcdef",
	} {
		if got := Normalize(text); got != want {
			t.Errorf("Normalize(%q) = %q, want %q", text, got, want)
		}
	}
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"", " - ", "- -a", "AB-cd", "İ", "\xff-\xfe", "K", "ẞ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := Normalize(text)
		if again := Normalize(got); again != got {
			t.Errorf("%q becomes %q, and that %q", text, got, again)
		}
		for _, same := range []string{" " + text + "\n", "-" + text + "-", " - " + text} {
			if other := Normalize(same); other != got {
				t.Errorf("%q becomes %q, but %q becomes %q", text, got, same, other)
			}
		}
		if strings.Contains(got, "-") || strings.TrimSpace(got) != got || strings.ToLower(got) != got {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}

func TestCleanName(t *testing.T) {
	for name, want := range map[string]refusal.Code{
		"a":                           "",
		strings.Repeat("字", 20):       "",
		" " + strings.Repeat("x", 20): "",
		"<b>&amp;\"'%_\\":             "",
		"🎉🎉":                          "",
		"":                            refusal.RedemptionNameLength,
		"   ":                         refusal.RedemptionNameLength,
		"\n":                          refusal.RedemptionNameLength,
		strings.Repeat("x", 21):       refusal.RedemptionNameLength,
		strings.Repeat("字", 21):       refusal.RedemptionNameLength,
		"a\x00b":                      refusal.RedemptionNameCharacters,
		"a\nb":                        refusal.RedemptionNameCharacters,
		"a\x1bb":                      refusal.RedemptionNameCharacters,
		"a\u0085b":                    refusal.RedemptionNameCharacters,
		"a\xffb":                      refusal.RedemptionNameCharacters,
		"a\ufffdb":                    refusal.RedemptionNameCharacters,
	} {
		if _, err := cleanName(name); refusal.CodeOf(err) != want {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

func FuzzCleanName(f *testing.F) {
	for _, s := range []string{"", " a ", "新年", "a\x00", "\xff", strings.Repeat("é", 21), "\u200b", "\ufffd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, err := cleanName(text)
		if err != nil {
			if refusal.CodeOf(err) == "" || name != "" {
				t.Errorf("%q: %q, %v", text, name, err)
			}
			return
		}
		n := utf8.RuneCountInString(name)
		if !utf8.ValidString(name) || n < 1 || n > NameMax || strings.TrimSpace(name) != name ||
			strings.ContainsFunc(name, unicode.IsControl) || strings.TrimSpace(text) != name {
			t.Errorf("%q is taken as %q", text, name)
		}
		if again, err := cleanName(name); err != nil || again != name {
			t.Errorf("%q is taken as %q, and that as %q, %v", text, name, again, err)
		}
	})
}

func TestExpired(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		status  Status
		expires time.Time
		now     time.Time
		want    bool
	}{
		{StatusEnabled, at, at, false},
		{StatusEnabled, at, at.Add(999 * time.Millisecond), false},
		{StatusEnabled, at, at.Add(time.Second), true},
		{StatusEnabled, time.Time{}, at, false},
		{StatusDisabled, at, at.Add(time.Hour), false},
		{StatusUsed, at, at.Add(time.Hour), false},
	} {
		code := Code{Status: c.status, Expires: c.expires}
		if got := code.Expired(c.now); got != c.want {
			t.Errorf("%+v at %v is expired: %v", code, c.now, got)
		}
	}
}

// FuzzChange checks what must hold of any change to any code.
func FuzzChange(f *testing.F) {
	f.Add(int8(1), int64(5), int64(0), uint8(0), "name", int64(5), int64(0), int8(1))
	f.Add(int8(3), int64(5), int64(2_000_000), uint8(0b0110), "", int64(6), int64(0), int8(2))
	f.Add(int8(2), int64(1), int64(1), uint8(0b1111), " other ", int64(-1), int64(1<<62), int8(3))
	f.Add(int8(1), int64(1), int64(900), uint8(0b0100), "", int64(0), int64(900), int8(0))
	f.Fuzz(func(t *testing.T, status int8, quota, expires int64, which uint8, name string, newQuota, newExpires int64, newStatus int8) {
		now := time.Unix(1_000_000, 0)
		old := Code{
			ID: 7, Name: "old", Status: Status(1 + abs(status)%3), Quota: 1 + quota&(1<<62-1), Expires: seconds(expires & (1<<37 - 1)),
		}
		if old.Status == StatusUsed {
			old.UsedBy, old.Redeemed = 3, now
		}
		var ch Change
		if which&1 != 0 {
			ch.Name = &name
		}
		if which&2 != 0 {
			ch.Quota = &newQuota
		}
		if which&4 != 0 {
			ch.Expires = new(seconds(newExpires))
		}
		if which&8 != 0 {
			ch.Status = new(Status(newStatus))
		}
		c, entries, err := ch.Apply(old, now)
		if err != nil {
			if refusal.CodeOf(err) == "" || c != old || entries != nil {
				t.Errorf("refused with %v, and %+v, %+v", err, c, entries)
			}
			return
		}
		checkChanged(t, old, c, entries, now)
		// The same again changes nothing, and neither does nothing.
		if c2, e2, err := ch.Apply(c, now); err != nil || c2 != c || e2 != nil {
			t.Errorf("again it is %+v, %+v, %v", c2, e2, err)
		}
		if c2, e2, err := (Change{}).Apply(c, now); err != nil || c2 != c || e2 != nil {
			t.Errorf("no change is %+v, %+v, %v", c2, e2, err)
		}
		back := Change{Name: &old.Name, Quota: &old.Quota}
		if c2, _, err := back.Apply(c, now); err != nil || c2.Name != old.Name || c2.Quota != old.Quota {
			t.Errorf("back it is %+v, %v", c2, err)
		}
	})
}

func checkChanged(t *testing.T, old, c Code, entries []account.Entry, now time.Time) {
	t.Helper()
	if c.ID != old.ID || c.UsedBy != old.UsedBy || c.Redeemed != old.Redeemed || c.Created != old.Created {
		t.Errorf("what no change is about became %+v", c)
	}
	if old.Status == StatusUsed && (c.Status != StatusUsed || c.Quota != old.Quota || c.Expires != old.Expires) {
		t.Errorf("a used code became %+v", c)
	}
	if c.Status != old.Status && c.Status != StatusEnabled && c.Status != StatusDisabled || c.Quota <= 0 {
		t.Errorf("it became %+v", c)
	}
	if c.Expires != old.Expires && !c.Expires.IsZero() && (c.Expires.Before(now) || c.Expires.Unix() > latestExpiry) {
		t.Errorf("it expires at %v", c.Expires)
	}
	if clean, err := cleanName(c.Name); err != nil || clean != c.Name {
		t.Errorf("its name is %q", c.Name)
	}
	want := 0
	if c.Name != old.Name || c.Quota != old.Quota || c.Expires != old.Expires {
		want++
	}
	if c.Status != old.Status {
		want++
	}
	if len(entries) != want {
		t.Errorf("%d entries for %+v becoming %+v", len(entries), old, c)
	}
	for _, e := range entries {
		if e.FirstID != c.ID || e.LastID != c.ID || e.Count != 1 || e.Amount != c.Quota ||
			(e.Kind == account.KindChange) != json.Valid([]byte(e.Detail)) {
			t.Errorf("the entry %+v", e)
		}
	}
}

func abs(n int8) int {
	if n < 0 {
		return -int(n)
	}
	return int(n)
}

func seconds(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0)
}
