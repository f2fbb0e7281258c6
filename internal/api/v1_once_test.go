package api

import (
	"strings"
	"sync"
	"testing"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// posts is one request for each POST of /api/v1, which each make something.
func (w *world) posts(t *testing.T) map[string]request {
	t.Helper()
	m := w.merchant(t)
	w.machine(t, m.ID, "10000001", "")
	w.product(t, "10000001", 5)
	return map[string]request{
		"merchant":    w.v1("POST", "/merchants", `{"name":"twin"}`),
		"machine":     w.v1("POST", "/machines", `{"merchant_id":1,"machine_no":"20000001","name":"twin","timezone":"UTC"}`),
		"password":    w.v1("POST", "/machines/10000001/mqtt-password", ""),
		"product":     w.v1("POST", "/machines/10000001/products", `{"name":"twin","slot":1}`),
		"pickup code": w.v1("POST", "/machines/10000001/pickup-codes", `{"product_id":5,"quantity":1}`),
	}
}

// TestV1Idempotency: the same request with the same key is answered the same,
// Location and status too, and has no second effect; another body is refused.
func TestV1Idempotency(t *testing.T) {
	w := newWorld(t, options{})
	for name, r := range w.posts(t) {
		t.Run(name, func(t *testing.T) {
			first := w.do(t, withKey(r, "k"))
			if !first.Success || replayed(first) || (first.header.Get("Location") == "") != (name == "password") {
				t.Fatal(first.status, first.header, first.text)
			}
			for _, secret := range []string{"mqtt_password", "app_key", "code"} {
				if v, ok := object[map[string]any](t, first)[secret].(string); ok {
					w.secret(v)
				}
			}
			look := func() string {
				return w.fleetList(t, "/merchants") + w.fleetList(t, "/machines") + w.fleetList(t, "/machines/10000001/products") +
					w.fleetList(t, "/machines/10000001/pickup-codes")
			}
			before := look()
			again := withKey(r, "k")
			again.path += "/"
			again.header.Set("Accept-Language", "ja")
			got := w.do(t, again)
			if got.text != first.text || got.status != first.status || !replayed(got) || got.header.Get("Location") != first.header.Get("Location") {
				t.Errorf("answered %d %s, %v", got.status, got.text, got.header)
			}
			other := withKey(r, "k")
			other.body += " "
			(&scenario{status: 422, code: refusal.IdempotencyKeyReused}).check(t, w.do(t, other))
			if after := look(); after != before {
				t.Errorf("it was\n%s, is\n%s", before, after)
			}
		})
	}
	// A refusal is kept too, with its words and its name in the log.
	taken := withKey(w.v1("POST", "/machines", `{"merchant_id":1,"machine_no":"20000001","name":"x","timezone":"UTC"}`), "refused")
	first := w.do(t, taken)
	(&scenario{status: 409, code: refusal.MachineNoTaken}).check(t, first)
	w.must(t, w.v1("DELETE", "/machines/20000001", ""))
	if got := w.do(t, taken); got.text != first.text || got.status != 409 || !replayed(got) {
		t.Error(got.status, got.text)
	}
	w.clock.advance(account.OnceFor)
	if got := w.do(t, taken); !got.Success || replayed(got) {
		t.Error(got.text)
	}
	missing := withKey(w.v1("POST", "/machines/77777777/mqtt-password", ""), "missing")
	w.do(t, missing)
	if got := w.do(t, missing); got.status != 404 || !replayed(got) {
		t.Error(got.text)
	}
	broken := withKey(w.v1("POST", "/merchants", `{`), "broken")
	broken.broken = true
	w.do(t, broken)
	if got := w.do(t, broken); got.status != 400 || !replayed(got) {
		t.Error(got.text)
	}

	w.sealed(t)
}

// sealed looks for the secrets that were answered in a copy of the database.
func (w *world) sealed(t *testing.T) {
	t.Helper()
	for name, b := range w.database.Look(t) {
		for _, s := range w.secrets {
			if strings.Contains(string(b), s) {
				t.Errorf("%s holds the secret %q", name, s)
			}
		}
	}
}

// TestV1IdempotencyNotKept: answers that are for who asks, or that another try
// may well change, leave the key free.
func TestV1IdempotencyNotKept(t *testing.T) {
	w := newWorld(t, options{})
	r := withKey(w.v1("POST", "/merchants", `{"name":"x"}`), "k")
	other := r
	other.as = w.alice
	(&scenario{status: 403, code: refusal.Forbidden}).check(t, w.do(t, other))
	other.as = member{id: w.admin.id, token: "0123456789abcdef0123456789abcdef"}
	(&scenario{status: 401, code: refusal.Unauthenticated}).check(t, w.do(t, other))
	other = r
	other.body += strings.Repeat(" ", bodyMax)
	(&scenario{status: 413, code: refusal.BodyTooLarge}).check(t, w.do(t, other))
	for _, c := range []struct {
		status int
		code   refusal.Code
		err    error
	}{
		{429, refusal.TooBusy, refusal.New(refusal.TooBusy)},
		{503, refusal.Unavailable, refusal.New(refusal.Unavailable)},
		{503, refusal.Unavailable, errBroken},
	} {
		w.store.fail("CreateMerchant", func() error { return c.err }, nil)
		(&scenario{status: c.status, code: c.code}).check(t, w.do(t, r))
	}
	// It is done, and the answer lost: the next try learns it.
	w.store.fail("CreateMerchant", nil, func() error { return errBroken })
	(&scenario{status: 503, code: refusal.Unavailable}).check(t, w.do(t, r))
	w.store.fail("CreateMerchant", nil, nil)
	if got := w.do(t, r); got.status != 201 || !replayed(got) {
		t.Error(got.status, got.text)
	}
	if n := strings.Count(w.fleetList(t, "/merchants"), `"id"`); n != 1 {
		t.Errorf("%d merchants", n)
	}
}

// TestV1IdempotencyBusy: while the first request is under way its twin is
// refused, and afterwards it is answered the same.
func TestV1IdempotencyBusy(t *testing.T) {
	w := newWorld(t, options{})
	r := withKey(w.posts(t)["pickup code"], "k")
	entered, goOn := make(chan struct{}), make(chan struct{})
	letGo := sync.OnceFunc(func() { close(goOn) })
	defer letGo() // or a failed test would wait for the first request for good
	w.store.fail("CreatePickup", func() error {
		entered <- struct{}{}
		<-goOn
		return nil
	}, nil)
	first := make(chan reply)
	go func() {
		got, err := w.try(t, r)
		if err != nil {
			t.Error(err)
		}
		first <- got
	}()
	<-entered
	for range 3 {
		got := w.do(t, r)
		(&scenario{status: 409, code: refusal.IdempotencyKeyBusy}).check(t, got)
		if got.header.Get("Retry-After") != "1" || replayed(got) {
			t.Error(got.header)
		}
	}
	other := r
	other.body = `{"product_id":5,"quantity":2}`
	(&scenario{status: 422, code: refusal.IdempotencyKeyReused}).check(t, w.do(t, other))
	stranger := r
	stranger.as = w.root // another caller's key is another key
	w.store.fail("CreatePickup", nil, nil)
	if got := w.do(t, stranger); !got.Success || replayed(got) {
		t.Error(got.text)
	}
	w.must(t, w.v1("DELETE", "/pickup-codes/1", ""))
	letGo()
	done := <-first
	if done.status != 201 || replayed(done) {
		t.Error(done.text)
	}
	if got := w.do(t, r); got.text != done.text || got.status != 201 || !replayed(got) {
		t.Error(got.text)
	}
}
