package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/scrip-codes/scrip/internal/enginetest"
)

// TestPostgresAnswersAsSQLiteDoes sends the same requests, in the same order, to a
// server over each engine: the answers are the same but for what is random in
// them. What the engines take differently is put wherever a client may put a text
// or a number.
func TestPostgresAnswersAsSQLiteDoes(t *testing.T) {
	onServer, err := enginetest.Postgres(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	one := newWorld(t, options{database: enginetest.SQLite(t.TempDir())})
	other := newWorld(t, options{database: onServer})
	for i, r := range strangeRequests() {
		a, b := one.answer(t.Context(), r), other.answer(t.Context(), r)
		if a != b {
			t.Errorf("%d: %s %.200s %.200q\nSQLite:     %.1000s\nPostgreSQL: %.1000s", i, r.method, r.path, r.body, a, b)
		}
		// Nothing has failed: this is not for a client to bring about.
		if strings.HasPrefix(b, "5") || strings.Contains(b, "unavailable") || strings.Contains(b, "_failed") {
			t.Errorf("%d: %s %.200s %.200q: %.1000s", i, r.method, r.path, r.body, b)
		}
	}
	one.verify(t)
	other.verify(t)
}

// answer is what is answered to root, but for what is random.
func (w *world) answer(ctx context.Context, r request) string {
	req := httptest.NewRequestWithContext(ctx, r.method, "/", strings.NewReader(r.body))
	path, query, _ := strings.Cut(r.path, "?")
	req.URL.RawPath, req.URL.RawQuery = path, query
	if req.URL.Path, _ = url.PathUnescape(path); req.URL.Path == "" {
		req.URL.Path = path
	}
	req.Header.Set("Authorization", "Bearer "+w.root.token)
	req.Header.Set("New-Api-User", "1")
	maps.Copy(req.Header, r.header)
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, req)
	text := rec.Body.String()
	for _, random := range []*regexp.Regexp{
		regexp.MustCompile(`\b[0-9a-f]{32}\b`), // keys, tokens, passwords
		regexp.MustCompile(`"request_id":"[0-9a-f]*"`),
		regexp.MustCompile(`"code":"\d{8}"`), // digits of a pickup code
		regexp.MustCompile(`"next_cursor":"[^"]*"`),
	} {
		text = random.ReplaceAllString(text, "…")
	}
	return fmt.Sprintf("%d %s %s", rec.Code, text, rec.Header().Get("Retry-After"))
}

// strangeRequests are requests with everything in every place.
func strangeRequests() (out []request) {
	send := func(method, path, body string) {
		out = append(out, request{method: method, path: path, body: body})
	}
	texts := []string{
		"", " ", "a", "\x00", "a\x00b", "\x00\x00\x00", "\xff", "a\xc3\x28b", "\xed\xa0\x80", "%", "_", "a_c%", `\`, `\\%`, "'", `"`, "'; DROP TABLE users; --",
		"abc", "ABC", "ÄÖÜ", "äöü", "ß", "İ", "ı", "é", "e\u0301", "中文", "😀", "\u202e", "\u2028", "\ufffd", "\U0010ffff", "a\tb\nc\r", "\x7f",
		"1", "-1", "1.5", "1e3", "0x10", "٣", "NaN", "null", "true", "2147483647", "2147483648", "-2147483649", "9007199254740993",
		"9223372036854775807", "9223372036854775808", "-9223372036854775808", "99999999999999999999999999",
		"$1", "?", "?1", ":a", "{}", "[]", "E'\\x00'", "2026-01-01", "infinity", "-infinity",
		strings.Repeat("x", 64), strings.Repeat("é", 65), strings.Repeat("中", 3000), strings.Repeat("%", 5000), strings.Repeat("a\x00", 3000),
	}
	numbers := []string{
		"0", "-0", "1", "-1", "2", "100", "10000", "2147483647", "2147483648", "-2147483648", "-2147483649", "4294967296", "9007199254740991",
		"9007199254740992", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "1e400", "1.5", `"1"`, "null", "true", "[]",
	}
	// A little of everything, to be found.
	send("POST", "/api/v1/merchants", `{"name":"Acme","app_key":"the app key"}`)
	send("POST", "/api/v1/machines", `{"merchant_id":1,"machine_no":"10000001","name":"Lobby","timezone":"Asia/Kathmandu","purchase_limit":3}`)
	send("POST", "/api/v1/machines/10000001/products", `{"id":5,"name":"Tea","slot":"A1"}`)
	for i, name := range []string{"abc", "ABC", "a_c%", `\`, "äöü", "ÄÖÜ", "İ", "e\u0301", "中文", "😀", "' OR 1=1", "%", "\ufffd"} {
		send("POST", "/api/redemption", fmt.Sprintf(`{"name":%s,"count":2,"quota":%d}`, quoted(name), i+1))
	}
	for i, text := range texts {
		q, path, body := url.QueryEscape(text), url.PathEscape(text), quoted(text)
		for _, raw := range []string{q, strings.NewReplacer("%", "%25", "&", "%26", "#", "%23", ";", "%3B", "+", "%2B").Replace(text)} {
			send("GET", "/api/redemption/search?keyword="+raw, "")
			send("GET", "/api/redemption/search?status="+raw+"&keyword=a", "")
		}
		send("GET", "/api/redemption?p="+q+"&page_size="+q, "")
		send("GET", "/api/redemption?p=2&page_size="+q+"&status="+q, "")
		send("GET", "/api/user?p="+q+"&page_size="+q, "")
		send("GET", "/api/redemption/"+path, "")
		send("DELETE", "/api/redemption/"+path+"x", "")
		send("GET", "/api/user/"+path, "")
		for _, list := range []string{"/api/v1/merchants", "/api/v1/machines", "/api/v1/machines/10000001/products", "/api/v1/machines/10000001/pickup-codes"} {
			send("GET", list+"?limit="+q, "")
			send("GET", list+"?cursor="+q, "")
			send("GET", list+"?late_use="+q+"&merchant_id="+q, "")
		}
		send("GET", "/api/v1/merchants/"+path, "")
		send("GET", "/api/v1/machines/"+path, "")
		send("GET", "/api/v1/machines/"+path+"/products", "")
		send("GET", "/api/v1/pickup-codes/"+path, "")
		send("PATCH", "/api/v1/machines/10000001/products/"+path, `{"name":"x"}`)
		for _, name := range []string{body, `"` + text + `"`} { // as it is escaped, and raw
			send("POST", "/api/redemption", `{"name":`+name+`,"count":1,"quota":1}`)
			send("PUT", "/api/redemption", `{"id":1,"name":`+name+`,"quota":5}`)
			send("PUT", "/api/redemption?status_only="+q, `{"id":1,"name":`+name+`,"quota":5,"status":`+name+`}`)
			send("POST", "/api/user/topup", `{"key":`+name+`}`)
			send("POST", "/api/v1/merchants", `{"name":`+name+`}`)
			send("PATCH", "/api/v1/merchants/1", `{"app_key":`+name+`}`)
			send("PATCH", "/api/v1/machines/10000001", `{"name":`+name+`}`)
			send("PATCH", "/api/v1/machines/10000001", `{"timezone":`+name+`}`)
			send("POST", "/api/v1/machines", `{"merchant_id":1,"machine_no":`+name+`,"name":"x","timezone":"UTC"}`)
			send("POST", "/api/v1/machines/10000001/products", `{"name":`+name+`,"slot":`+name+`}`)
		}
		if i < 15 { // a password costs time
			send("POST", "/api/user", `{"username":`+body+`,"password":"correct horse"}`)
			send("POST", "/api/user", fmt.Sprintf(`{"username":"user%d","display_name":%s,"password":"correct horse"}`, i, body))
			send("POST", "/api/user/login", `{"username":`+body+`,"password":`+body+`}`)
		}
		broker := http.Header{"Authorization": {"Bearer the broker's token"}}
		header := http.Header{"Authorization": {"Bearer " + text}, "New-Api-User": {text}}
		out = append(out,
			request{method: "GET", path: "/api/user/self", header: header},
			request{method: "GET", path: "/api/v1/merchants", header: header},
			request{method: "GET", path: "/api/user/self", header: http.Header{"Authorization": nil, "Cookie": {sessionCookie + "=" + text}}},
			request{method: "POST", path: "/api/v1/merchants", body: `{"name":"x"}`, header: http.Header{"Idempotency-Key": {text}}},
			request{method: "POST", path: "/api/v1/merchants", body: `{"name":"x"}`, header: http.Header{"Idempotency-Key": {text}, "Accept-Language": {text}}},
			request{method: "POST", path: "/mqtt/acl", body: `{"username":` + body + `,"clientid":` + body + `,"topic":` + body + `,"action":"publish"}`, header: broker},
			request{method: "POST", path: "/mqtt/auth", body: `{"username":` + body + `,"clientid":` + body + `,"password":` + body + `,"peerhost":` + body + `}`, header: broker},
			request{method: "POST", path: "/mqtt/auth", body: `{"username":"10000001","clientid":"10000001","password":` + body + `,"peerhost":` + body + `}`, header: broker},
		)
	}
	for _, n := range numbers {
		send("GET", "/api/redemption/"+n, "")
		send("GET", "/api/v1/pickup-codes/"+n, "")
		send("DELETE", "/api/v1/pickup-codes/"+n, "")
		send("DELETE", "/api/v1/machines/10000001/products/"+n, "")
		send("POST", "/api/redemption", `{"name":"n","count":1,"quota":`+n+`}`)
		if n != "100" && n != "10000" {
			send("POST", "/api/redemption", `{"name":"n","count":`+n+`,"quota":1}`)
		}
		send("POST", "/api/redemption", `{"name":"n","count":1,"quota":1,"expired_time":`+n+`}`)
		send("PUT", "/api/redemption", `{"id":`+n+`,"name":"n","quota":5}`)
		send("PUT", "/api/redemption", `{"id":2,"name":"n","quota":`+n+`,"expired_time":`+n+`}`)
		send("PUT", "/api/redemption?status_only=1", `{"id":`+n+`,"status":`+n+`}`)
		send("PUT", "/api/redemption?status_only=1", `{"id":2,"status":`+n+`}`)
		send("POST", "/api/user", `{"username":"n`+strings.NewReplacer(`"`, "q", ".", "p", "[]", "l").Replace(n)+`","password":"correct horse","quota":`+n+`,"role":`+n+`}`)
		send("POST", "/api/v1/machines", `{"merchant_id":`+n+`,"machine_no":"20000002","name":"x","timezone":"UTC","purchase_limit":1}`)
		send("PATCH", "/api/v1/machines/10000001", `{"purchase_limit":`+n+`}`)
		send("POST", "/api/v1/machines/10000001/products", `{"id":`+n+`,"name":"x","slot":`+n+`}`)
		send("POST", "/api/v1/machines/10000001/pickup-codes", `{"product_id":`+n+`,"quantity":1}`)
		send("POST", "/api/v1/machines/10000001/pickup-codes", `{"product_id":5,"quantity":`+n+`,"allow_more":true}`)
		send("POST", "/api/v1/machines/10000001/pickup-codes", `{"product_id":5,"quantity":1,"ttl_seconds":`+n+`,"allow_more":true}`)
		for _, m := range numbers {
			send("GET", "/api/redemption?p="+n+"&page_size="+m, "")
		}
		send("GET", "/api/redemption/search?keyword=a&p="+n+"&page_size="+n, "")
		send("GET", "/api/user?p="+n+"&page_size="+n, "")
	}
	// All that is there by now, in its order.
	for p := range 8 {
		send("GET", fmt.Sprintf("/api/redemption?p=%d&page_size=100", p+1), "")
		send("GET", fmt.Sprintf("/api/user?p=%d&page_size=100", p+1), "")
	}
	for _, list := range []string{"merchants", "machines", "machines/10000001/products", "machines/10000001/pickup-codes"} {
		send("GET", "/api/v1/"+list+"?limit=100", "")
	}
	for _, keyword := range []string{"a", "A", "ä", "Ä", "i", "I", "ss", "%25", "_", "%5C", "n", "\ufffd", "1", "e", "é"} {
		send("GET", "/api/redemption/search?page_size=100&keyword="+keyword, "")
	}
	send("DELETE", "/api/redemption/invalid", "")
	return out
}

// quoted is a text as JSON, with what is no UTF-8 as it is said there.
func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string always marshals
	}
	return string(b)
}
