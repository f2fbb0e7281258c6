package api

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/enginetest"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/web"
)

func withKey(r request, key string) request {
	h := r.header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("Idempotency-Key", key)
	r.header = h
	return r
}

func replayed(r reply) bool { return r.header.Get("Idempotency-Replayed") == "true" }

func (w *world) codes(t *testing.T) int64 {
	t.Helper()
	return data[page[redemptionObject]](t, w.do(t, request{method: "GET", path: "/api/redemption/", as: w.admin})).Total
}

func TestIdempotency(t *testing.T) {
	w := newWorld(t, options{})
	issue := request{method: "POST", path: "/api/redemption/", as: w.admin, body: `{"name":"x","count":2,"quota":5}`}

	first := w.do(t, withKey(issue, "k"))
	if !first.Success || replayed(first) || w.codes(t) != 2 {
		t.Fatal(first.text)
	}
	for _, k := range data[[]string](t, first) {
		w.secret(k)
	}
	again := withKey(issue, "k")
	again.path = "/api/redemption"
	again.header.Set("Accept-Language", "ja")
	for range 3 {
		r := w.do(t, again)
		if r.text != first.text || !replayed(r) || r.header.Get("X-Request-Id") == first.header.Get("X-Request-Id") {
			t.Errorf("%s, %v", r.text, r.header)
		}
	}
	if w.codes(t) != 2 {
		t.Error("a second batch")
	}

	t.Run("another body", func(t *testing.T) {
		other := withKey(issue, "k")
		other.body = `{"name":"x","count":2,"quota":6}`
		(&scenario{code: refusal.IdempotencyKeyReused, hasNot: []string{"data"}}).check(t, w.do(t, other))
		if w.codes(t) != 2 {
			t.Error("a second batch")
		}
	})
	t.Run("another caller", func(t *testing.T) {
		other := withKey(issue, "k")
		other.as = w.root
		if r := w.do(t, other); !r.Success || replayed(r) || r.text == first.text {
			t.Error(r.text)
		}
	})
	t.Run("another route", func(t *testing.T) {
		create := request{method: "POST", path: "/api/user/", as: w.admin, body: `{"username":"carol","password":"correct horse"}`}
		r := w.do(t, withKey(create, "k"))
		if !r.Success || replayed(r) {
			t.Error(r.text)
		}
		create.path = "/api/user"
		if r2 := w.do(t, withKey(create, "k")); r2.text != r.text || !replayed(r2) {
			t.Error(r2.text)
		}
		(&scenario{code: refusal.AccountNameTaken}).check(t, w.do(t, create))
	})
	t.Run("another key", func(t *testing.T) {
		before := w.codes(t)
		if r := w.do(t, withKey(issue, strings.Repeat("k", 255))); !r.Success || replayed(r) {
			t.Error(r.text)
		}
		if w.codes(t) != before+2 {
			t.Error("no second batch")
		}
	})
	t.Run("after a day", func(t *testing.T) {
		w.clock.advance(account.OnceFor - time.Second)
		if r := w.do(t, again); !replayed(r) {
			t.Error("forgotten too soon")
		}
		w.clock.advance(time.Second)
		if r := w.do(t, again); replayed(r) || !r.Success || r.text == first.text {
			t.Error("remembered too long")
		}
		if r := w.do(t, again); !replayed(r) {
			t.Error("the second life is not remembered")
		}
	})
}

func TestIdempotentTopUp(t *testing.T) {
	w := newWorld(t, options{guesses: 2})
	keys := w.issue(t, "codes", 4, 5)
	topUp := func(key string) request {
		return request{method: "POST", path: "/api/user/topup", as: w.alice, body: `{"key":"` + key + `"}`}
	}

	// The answer is lost after the commit: with a key the client learns it, and
	// without one it can tell.
	w.store.fail("Redeem", nil, func() error { return errBroken })
	(&scenario{code: refusal.Unavailable}).check(t, w.do(t, withKey(topUp(keys[0]), "a")))
	(&scenario{code: refusal.Unavailable}).check(t, w.do(t, topUp(keys[1])))
	w.store.fail("Redeem", nil, nil)
	if r := w.do(t, withKey(topUp(keys[0]), "a")); !r.Success || data[int64](t, r) != 5 || !replayed(r) {
		t.Error(r.text)
	}
	(&scenario{code: refusal.RedemptionUsedByYou}).check(t, w.do(t, topUp(keys[1])))
	if b := w.balance(t, w.alice); b != 10 {
		t.Errorf("balance %d", b)
	}

	// A failure before it is not kept: the same key works later.
	w.store.fail("Redeem", func() error { return errBroken }, nil)
	(&scenario{code: refusal.Unavailable}).check(t, w.do(t, withKey(topUp(keys[2]), "b")))
	w.store.fail("Redeem", nil, nil)
	if r := w.do(t, withKey(topUp(keys[2]), "b")); !r.Success || replayed(r) {
		t.Error(r.text)
	}

	// A refusal is kept, in the language that it was given in.
	id := w.mustFind(t, keys[3]).ID
	status := request{method: "PUT", path: "/api/redemption/?status_only=1", as: w.admin, body: fmt.Sprintf(`{"id":%d,"status":2}`, id)}
	w.do(t, status)
	english := withKey(topUp(keys[3]), "c")
	english.header.Set("Accept-Language", "en")
	first := w.do(t, english)
	if first.Code != refusal.RedemptionDisabled || first.Message != "This redemption code has been disabled." || replayed(first) {
		t.Error(first.text)
	}
	status.body = fmt.Sprintf(`{"id":%d,"status":1}`, id)
	w.do(t, status)
	if r := w.do(t, withKey(topUp(keys[3]), "c")); r.text != first.text || !replayed(r) || r.header.Get("Content-Language") != "en" {
		t.Error(r.text)
	}
	if r := w.do(t, withKey(topUp(keys[3]), "d")); !r.Success {
		t.Error(r.text)
	}

	// Broken bodies are kept too; a store that cannot keep them says so.
	broken := withKey(topUp(keys[3]), "e")
	broken.body, broken.broken = "{", true
	(&scenario{code: refusal.InvalidJSON}).check(t, w.do(t, broken))
	if r := w.do(t, broken); !replayed(r) || r.Code != refusal.InvalidJSON {
		t.Error(r.text)
	}
	w.store.fail("Remember", func() error { return errBroken }, nil)
	broken = withKey(broken, "f")
	(&scenario{code: refusal.Unavailable}).check(t, w.do(t, broken))
	w.store.fail("Remember", nil, nil)
}

// TestIdempotencyNotKept: answers that another try may well change are not kept.
func TestIdempotencyNotKept(t *testing.T) {
	w := newWorld(t, options{guesses: 2})
	key := w.issue(t, "codes", 1, 5)[0]
	topUp := withKey(request{method: "POST", path: "/api/user/topup", as: w.alice, body: `{"key":"` + key + `"}`}, "k")

	// 429.
	w.topUp(t, w.alice, "unknown1")
	w.topUp(t, w.alice, "unknown2")
	for range 2 {
		r := w.do(t, topUp)
		(&scenario{status: 429, code: refusal.AccountTooManyGuesses}).check(t, r)
		if replayed(r) {
			t.Error("kept")
		}
	}
	w.clock.advance(10 * time.Minute)
	// 401.
	stranger := topUp
	stranger.as.token = "0123456789abcdef0123456789abcdef"
	(&scenario{status: 401, code: refusal.Unauthenticated}).check(t, w.do(t, stranger))
	// 413.
	large := topUp
	large.body, large.broken = large.body+strings.Repeat(" ", bodyMax), true
	(&scenario{status: 413, code: refusal.BodyTooLarge}).check(t, w.do(t, large))
	if r := w.do(t, topUp); !r.Success || replayed(r) {
		t.Error(r.text)
	}
	// A replay is held up by the limit too, and there when that has passed.
	w.topUp(t, w.alice, "unknown1")
	w.topUp(t, w.alice, "unknown2")
	(&scenario{status: 429, code: refusal.AccountTooManyGuesses}).check(t, w.do(t, topUp))
	w.clock.advance(10 * time.Minute)
	if r := w.do(t, topUp); !r.Success || !replayed(r) {
		t.Error(r.text)
	}

	// 403.
	issue := withKey(request{method: "POST", path: "/api/redemption/", as: w.alice, body: `{"name":"x","count":1,"quota":5}`}, "k")
	(&scenario{status: 403, code: refusal.Forbidden}).check(t, w.do(t, issue))
	issue.as = w.admin
	if r := w.do(t, issue); !r.Success || replayed(r) {
		t.Error(r.text)
	}

	// Each login is a session of its own.
	if _, err := w.accounts.Create(t.Context(), account.Operator(), account.CreateRequest{Username: "carol", Password: "correct horse"}); err != nil {
		t.Fatal(err)
	}
	login := withKey(request{method: "POST", path: "/api/user/login", body: `{"username":"carol","password":"correct horse"}`}, "k")
	one, two := w.do(t, login), w.do(t, login)
	if c := one.header.Get("Set-Cookie"); c == "" || c == two.header.Get("Set-Cookie") || replayed(two) {
		t.Error("one session for two logins")
	}
}

func TestIdempotencyKeys(t *testing.T) {
	w := newWorld(t, options{})
	for _, c := range []struct {
		values []string
		code   refusal.Code
	}{
		{[]string{strings.Repeat("k", 256)}, refusal.IdempotencyKeyTooLong},
		{[]string{""}, refusal.InvalidRequest},
		{[]string{"a", "b"}, refusal.InvalidRequest},
		{[]string{"日本"}, ""},
		{[]string{`"4f9c2f0e-2f6b-4b0e-9a51"`}, ""},
		{[]string{"with spaces"}, ""},
	} {
		req := httptest.NewRequestWithContext(t.Context(), "POST", "/api/redemption/", strings.NewReader(`{"name":"x","count":1,"quota":1}`))
		req.Header.Set("Authorization", w.admin.token)
		req.Header.Set("New-Api-User", fmt.Sprint(w.admin.id))
		req.Header["Idempotency-Key"] = c.values
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, req)
		want := fmt.Sprintf(`"code":%q`, c.code)
		if c.code == "" {
			want = `"success":true`
		}
		if rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), want) {
			t.Errorf("%q: %d %s", c.values, rec.Code, rec.Body)
		}
	}
}

// TestIdempotentTwins: of requests with one key that come together, one takes
// effect, and all are answered alike.
func TestIdempotentTwins(t *testing.T) {
	w := newWorld(t, options{})
	key := w.issue(t, "codes", 1, 5)[0]
	for name, r := range map[string]request{
		"issue":  {method: "POST", path: "/api/redemption/", as: w.admin, body: `{"name":"x","count":3,"quota":5}`},
		"topup":  {method: "POST", path: "/api/user/topup", as: w.alice, body: `{"key":"` + key + `"}`},
		"create": {method: "POST", path: "/api/user/", as: w.admin, body: `{"username":"carol","password":"correct horse"}`},
		"refuse": {method: "POST", path: "/api/user/topup", as: w.bob, body: `{"key":"unknown"}`},
	} {
		t.Run(name, func(t *testing.T) {
			firsts := 0
			answers := gather(t, 16, func(int) (string, error) {
				r, err := w.try(t, withKey(r, "twins"))
				return fmt.Sprintf("%t %s", replayed(r), r.text), err
			})
			texts := map[string]bool{}
			for a, n := range answers {
				again, text, _ := strings.Cut(a, " ")
				texts[text] = true
				if again == "false" {
					firsts += n
				}
			}
			if len(texts) != 1 || firsts != 1 {
				t.Errorf("%d first answers, in all %v", firsts, answers)
			}
		})
	}
	if n := w.codes(t); n != 4 {
		t.Errorf("%d codes", n)
	}
	if b := w.balance(t, w.alice); b != 5 {
		t.Errorf("balance %d", b)
	}
	w.verify(t)
}

// TestIdempotencyAndKeys: the data keys may change between a request and its
// replay, and an answer that no key opens any more is a failure, not a success.
func TestIdempotencyAndKeys(t *testing.T) {
	w := newWorld(t, options{})
	issue := withKey(request{method: "POST", path: "/api/redemption/", as: w.admin, body: `{"name":"x","count":2,"quota":5}`}, "k")
	first := w.do(t, issue)

	// Other keys over the same store.
	other := w.open(t, enginetest.New(t, t.TempDir()), "another secret")
	c := w.config
	c.Keys, c.Registry = other.Keys(), prometheus.NewRegistry()
	req := httptest.NewRequestWithContext(t.Context(), "POST", "/api/redemption/", strings.NewReader(issue.body))
	req.Header.Set("Authorization", w.admin.token)
	req.Header.Set("New-Api-User", fmt.Sprint(w.admin.id))
	req.Header.Set("Idempotency-Key", "k")
	rec := httptest.NewRecorder()
	New(c).ServeHTTP(rec, req)
	if rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), `"code":"unavailable"`) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}

	// A rotation by another process, of which this one does not know yet.
	if err := rotate(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if r := w.do(t, withKey(issue, "new")); !r.Success || replayed(r) {
		t.Error(r.text)
	}
	if r := w.do(t, withKey(issue, "new")); !r.Success || !replayed(r) {
		t.Error(r.text)
	}
	if r := w.do(t, issue); r.text != first.text || !replayed(r) {
		t.Error(r.text)
	}
}

func rotate(ctx context.Context, w *world) error {
	return w.db.Rotate(ctx, func(int64, int64) {})
}

func TestStoredAnswers(t *testing.T) {
	a := answer{status: 200, lang: web.Japanese, code: refusal.RedemptionUsed, body: []byte("{\n}")}
	got, err := restored(a.stored())
	if err != nil || got.status != 200 || got.lang != web.Japanese || got.code != a.code || string(got.body) != "{\n}" || !got.replayed {
		t.Errorf("%+v %v", got, err)
	}
	a = answer{status: 201, lang: web.English, location: "/api/v1/merchants/5", body: []byte("{}")}
	got, err = restored(a.stored())
	if err != nil || got.status != 201 || got.location != a.location || got.code != "" || string(got.body) != "{}" {
		t.Errorf("%+v %v", got, err)
	}
	for _, bad := range []string{"", "200,0,", "200,0\n", "x,0,\n", "200,9,\n", "200,-1,\n", "200,0,a,b,c\n{}"} {
		if _, err := restored([]byte(bad)); err == nil {
			t.Errorf("%q was restored", bad)
		}
	}
}
