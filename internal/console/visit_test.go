package console_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/scrip-codes/scrip/internal/console"
)

// forget is what was logged, which is then nothing.
func (l *logs) forget() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.Builder.String()
	l.Reset()
	return text
}

// TestHeaders: of every page, whatever it answers, and that it keeps to its own
// policy.
func TestHeaders(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.machine(t)
	p.issue(t, 1)
	p.post(t, "admin", "/codes", "name", "x", "count", "1", "quota", "1").to(t, "/jobs/1")
	inline := regexp.MustCompile(`<script(>| type="(?:text/javascript|module)")|<style|\sstyle=|\son[a-z]+=|javascript:|https?://[^"]*\.js`)
	check := func(at string, r reply) {
		t.Helper()
		csp := r.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: %q is not in the policy %q", at, want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
			t.Errorf("%s: the policy is %q", at, csp)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin", "Content-Language": "en",
		} {
			if got := r.header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", at, name, got, want)
			}
		}
		if r.status != http.StatusSeeOther && r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control is %q", at, r.header.Get("Cache-Control"))
		}
		if len(r.header.Get("X-Request-Id")) != 16 {
			t.Errorf("%s: X-Request-Id is %q", at, r.header.Get("X-Request-Id"))
		}
		if m := inline.FindString(r.body); m != "" && strings.Contains(r.header.Get("Content-Type"), "html") {
			t.Errorf("%s: %q is in the page", at, m)
		}
	}
	for _, rt := range console.Routes() {
		if rt.Method == "GET" && !strings.HasSuffix(rt.Path, "/events") {
			check(rt.Path, p.get(t, "root", path(rt.Path)))
		}
	}
	check("forbidden", p.get(t, "alice", "/codes"))
	check("nothing", p.get(t, "nobody", "/nothing"))
	check("no method", p.ask(t, "nobody", "DELETE", "/codes", nil, "Accept-Language", "en"))
	check("csv", p.post(t, "admin", "/codes/many", "id", "1", "do", "csv"))
	p.get(t, "nobody", "/nothing").has(t, 404, "There is nothing at this address")

	zipped := p.ask(t, "admin", "GET", "/codes", nil, "Accept-Encoding", "gzip")
	if got := zipped.header.Get("Content-Encoding"); got != "gzip" {
		t.Fatalf("Content-Encoding is %q", got)
	}
	z, err := gzip.NewReader(strings.NewReader(zipped.body))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(z); err != nil || !strings.HasSuffix(strings.TrimSpace(string(b)), "</html>") {
		t.Errorf("%v: %s", err, b)
	}
}

func TestAssets(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.machine(t)
	found := map[string]bool{}
	for _, at := range []string{"/", "/redeem", "/codes/new", "/machines", "/users/new", "/machines/" + machineNo + "/virtual"} {
		for _, m := range regexp.MustCompile(`(?:src|href)="(/assets/[^"]+)"`).FindAllStringSubmatch(p.get(t, "admin", at).body, -1) {
			found[m[1]] = true
		}
	}
	if len(found) < 8 {
		t.Errorf("pages load %v", found)
	}
	for at := range found {
		plain := p.ask(t, "nobody", "GET", at, nil, "Accept-Encoding", "identity")
		if plain.status != 200 || plain.header.Get("Cache-Control") != "public, max-age=31536000, immutable" || plain.header.Get("Content-Encoding") != "" ||
			plain.header.Get("X-Content-Type-Options") != "nosniff" || plain.header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: %d %v", at, plain.status, plain.header)
		}
		want := map[string]string{".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}[at[strings.LastIndex(at, "."):]]
		if got := plain.header.Get("Content-Type"); want == "" || !strings.HasPrefix(got, want) {
			t.Errorf("%s is %q", at, got)
		}
		zipped := p.ask(t, "nobody", "GET", at, nil, "Accept-Encoding", "gzip, br")
		z, err := gzip.NewReader(strings.NewReader(zipped.body))
		if err != nil || zipped.header.Get("Content-Encoding") != "gzip" {
			t.Fatalf("%s: %v, %v", at, err, zipped.header)
		}
		if b, err := io.ReadAll(z); err != nil || string(b) != plain.body {
			t.Errorf("%s: zipped it is something else, %v", at, err)
		}
	}
	for _, at := range []string{"/assets/", "/assets/app.css", "/assets/app.000000000000.css", "/assets/vendor/", "/assets/vendor/LICENSE", "/assets/%2e%2e/console.go"} {
		r := p.get(t, "nobody", at)
		if r.status != 404 || strings.Contains(r.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d, %q", at, r.status, r.header.Get("Cache-Control"))
		}
	}
}

func TestLanguages(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	for _, c := range []struct{ cookie, accept, want string }{
		{"", "", "en"},
		{"", "zh-TW,zh;q=0.9,en;q=0.5", "zh-CN"},
		{"", "ja", "ja"},
		{"", "fr-FR, ja;q=0.3", "ja"},
		{"", "fr", "en"},
		{"zh", "ja", "zh-CN"},
		{"ja", "zh", "ja"},
		{"en", "zh", "en"},
		{"xx", "ja", "ja"},
		{"", ";;;q=9,,*", "en"},
	} {
		headers := []string{"Accept-Language", c.accept}
		if c.cookie != "" {
			headers = append(headers, "Cookie", "scrip_lang="+c.cookie)
		}
		r := p.ask(t, "nobody", "GET", "/signin", nil, headers...)
		r.has(t, 200, `<html lang="`+c.want+`"`)
		if got := r.header.Get("Content-Language"); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	r := p.get(t, "nobody", "/language?to=ja&next=%2Fsignin%3Fby%3Dtoken")
	r.to(t, "/signin?by=token")
	if c := r.cookie("scrip_lang"); c == nil || c.Value != "ja" || c.MaxAge < 1<<20 {
		t.Errorf("the cookie is %+v", c)
	}
	p.get(t, "nobody", "/signin").has(t, 200, `<html lang="ja"`, "アクセストークン") // whatever the browser likes
	// The filters in the address may be newer than the page.
	p.ask(t, "nobody", "GET", "/language?to=ja&next=%2Fcodes", nil, "Referer", p.server.URL+"/codes?q=x").to(t, "/codes?q=x")
	p.ask(t, "nobody", "GET", "/language?to=ja&next=%2Fcodes", nil, "Referer", "https://evil.example/codes?q=x").to(t, "/codes")
	for _, to := range []string{"xx", "", "en-US", "../en", "%00", strings.Repeat("z", 2000)} {
		r := p.get(t, "nobody", "/language?to="+to)
		if r.status != 422 || r.cookie("scrip_lang") != nil {
			t.Errorf("%q: %d", to, r.status)
		}
	}
	// Refusals and problems too.
	p.get(t, "nobody", "/nothing").has(t, 404, `<html lang="ja"`)
	p.post(t, "nobody", "/signin", "username", "a", "password", "b").has(t, 422, "ユーザー名")
}

// TestTimeZoneIsHarmless: the cookie is the browser's, and may be anything.
func TestTimeZoneIsHarmless(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	for _, zone := range []string{"Local", "../../etc/passwd", "/etc/localtime", strings.Repeat("x", 3000), "%00", "Asia/Nowhere", ""} {
		p.zone(t, zone)
		p.get(t, "admin", "/?by=hours").has(t, 200, "05-18 03:00") // as in UTC
	}
	p.zone(t, "Asia/Tokyo")
	p.get(t, "admin", "/?by=hours").has(t, 200, "05-18 12:00", "!05-18 13:00")
}

// TestFailures: what goes wrong here is told with the number under which the log
// has it, and nothing else.
func TestFailures(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.machine(t)
	p.database.Alter(t, `ALTER TABLE jobs RENAME TO gone`)
	for name, r := range map[string]reply{
		"page": p.get(t, "admin", "/codes"),
		"job":  p.get(t, "admin", "/jobs/1"),
		"form": p.post(t, "admin", "/codes", "name", "x", "count", "1", "quota", "1"),
		"part": p.ask(t, "admin", "GET", "/jobs/1", nil, "HX-Request", "true"),
	} {
		r.has(t, 500, "!SELECT", "!gone", "!relation", "!no such table", "!sql", "!.go:")
		id := r.header.Get("X-Request-Id")
		if !strings.Contains(r.body, id) || !strings.Contains(p.logs.String(), `level=ERROR msg="request failed" request_id=`+id) {
			t.Errorf("%s: the request is %q\n%s", name, id, r.body)
		}
		if whole := strings.Contains(r.body, "<html"); whole == (name == "part") || !whole && r.header.Get("HX-Retarget") != "#problems" {
			t.Errorf("%s:\n%s", name, r.body)
		}
	}
	p.logs.forget()

	// A panic is a failure too.
	config := p.config
	config.Figures = nil
	h, err := console.New(config)
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	req.Header.Set("Cookie", "scrip_session="+p.session(t, "admin"))
	h.ServeHTTP(rec, req)
	r := reply{rec.Code, "", rec.Header(), rec.Body.String()}
	r.has(t, 500, r.header.Get("X-Request-Id"), "!nil", "!goroutine", "!panic", "!.go:")
	if log := p.logs.forget(); !strings.Contains(log, "panic: ") || !strings.Contains(log, r.header.Get("X-Request-Id")) {
		t.Errorf("the log has %s", log)
	}
}

// TestBodies: what is no form is refused.
func TestBodies(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	before := p.kinds(t, 1)
	send := func(kind, body string) reply {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", p.server.URL+"/codes", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", kind)
		req.Header.Set("Accept-Language", "en")
		return p.answer(t, "admin", req)
	}
	const form = "application/x-www-form-urlencoded"
	whole := "name=x&count=1&quota=1"
	for name, r := range map[string]reply{
		"too large":      send(form, whole+"&more="+strings.Repeat("x", 64<<10)),
		"far too large":  send(form, whole+"&more="+strings.Repeat("x", 1<<20)),
		"percent":        send(form, whole+"&x=%zz"),
		"semicolon":      send(form, "name=x;count=1;quota=1"),
		"another kind":   send("application/json", `{"name":"x","count":1,"quota":1}`),
		"no kind":        send("", whole),
		"broken kind":    send("multipart/form-data", whole),
		"large parts":    send("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\n"+strings.Repeat("x", 1<<20)+"\r\n--b--"),
		"broken letters": send(form, "name=%ff%fe&count=1&quota=1"),
	} {
		if r.status != 422 || len(r.body) == 0 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	if after := p.kinds(t, 1); after != before {
		t.Errorf("the ledger has %s on top", after)
	}
	// Below the limit it is taken.
	if r := send(form, whole+"&more="+strings.Repeat("x", 60<<10)); r.status != http.StatusSeeOther {
		t.Errorf("%d", r.status)
	}
}
