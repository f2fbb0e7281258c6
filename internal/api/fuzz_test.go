package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/scrip-codes/scrip/internal/refusal"
)

// FuzzDecodeObject: only one JSON object in UTF-8 is accepted, and whatever else
// comes is refused with a reason.
func FuzzDecodeObject(f *testing.F) {
	for _, s := range []string{
		`{"name":"x","count":1,"quota":9223372036854775807,"expired_time":null}`, `{}`, `[]`, `null`, `{"count":1.0}`, `{"a":1}{}`,
		"\xff", "\ufeff{}", `{"name":"\ud800"}`, `{"COUNT":5}`, ` {"count":1e5} `, "", " ",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var in struct {
			Name  string `json:"name"`
			Count *int64 `json:"count"`
		}
		err := decodeObject(body, &in)
		object := utf8.Valid(body) && json.Valid(body) && bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{"))
		if err == nil && !object {
			t.Errorf("%q was accepted", body)
		}
		if err == nil {
			return
		}
		if refusal.CodeOf(err) == "" {
			t.Errorf("%q: %v is no refusal", body, err)
		}
		if fault, ok := errors.AsType[*fault](err); object && (!ok || fault.hint != hintInteger && fault.hint != hintText) {
			t.Errorf("%q: %v", body, err)
		}
	})
}

// FuzzPage: a page is within bounds, and its offset is what it should be or
// past the end of anything.
func FuzzPage(f *testing.F) {
	for _, s := range [][2]string{{"1", "20"}, {"0", "0"}, {"-1", "x"}, {"9223372036854775807", "100"}, {"99999999999999999999", "1"}, {"+3", "1e2"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, p, size string) {
		n := pageOf(url.Values{"p": {p}, "page_size": {size}})
		if n.page < 1 || n.size < 1 || n.size > pageSizeMax {
			t.Fatalf("%+v", n)
		}
		offset := n.offset()
		if offset < 0 || offset+n.size < offset {
			t.Fatalf("%+v: offset %d", n, offset)
		}
		want := new(big.Int).Mul(big.NewInt(n.page-1), big.NewInt(n.size))
		if want.Cmp(big.NewInt(offset)) != 0 && (want.Cmp(big.NewInt(offset)) < 0 || offset < 1<<62) {
			t.Errorf("%+v: offset %d, want %s", n, offset, want)
		}
	})
}

// FuzzV1: whatever the body, a POST or PATCH is done or refused with a problem.
func FuzzV1(f *testing.F) {
	w := newWorld(f, options{})
	m := w.merchant(f)
	w.machine(f, m.ID, "10000001", "")
	w.product(f, "10000001", 5)
	targets := []request{
		w.v1("POST", "/merchants", `{"name":"x","app_key":"k","payload":"base64","signature":"raw","expiry_unit":"s"}`),
		w.v1("PATCH", "/merchants/1", `{"name":"x","payload":null}`),
		w.v1("POST", "/machines", `{"merchant_id":1,"machine_no":"20000001","name":"x","timezone":"Asia/Kathmandu","purchase_limit":3}`),
		w.v1("PATCH", "/machines/10000001", `{"timezone":"Local","pickup_codes_enabled":true}`),
		w.v1("POST", "/machines/10000001/mqtt-password", ``),
		w.v1("POST", "/machines/10000001/products", `{"id":9007199254740991,"name":"x","slot":-12}`),
		w.v1("PATCH", "/machines/10000001/products/5", `{"slot":"\u0000","name":"\ud800"}`),
		w.v1("POST", "/machines/10000001/pickup-codes", `{"product_id":5,"quantity":1,"ttl_seconds":9223372036854775807,"allow_more":true}`),
	}
	for i := range targets {
		for _, other := range targets {
			f.Add(uint8(i), other.body)
		}
	}
	f.Fuzz(func(t *testing.T, target uint8, body string) {
		r := targets[int(target)%len(targets)]
		req := httptest.NewRequestWithContext(t.Context(), r.method, r.path, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+w.admin.token)
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, req)
		got := reply{status: rec.Code, header: rec.Header(), text: rec.Body.String()}
		if _, err := readV1(got); err != nil || got.status >= 500 {
			t.Errorf("%s %s %q: %d %s: %v", r.method, r.path, body, got.status, got.text, err)
		}
	})
}
