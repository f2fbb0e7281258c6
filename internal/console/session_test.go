package console_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/console"
)

// ask is send with headers, as pairs of names and values.
func (p *people) ask(t *testing.T, who, method, path string, form url.Values, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return p.answer(t, who, req)
}

// answer sends a request as somebody, and reads what comes back.
func (p *people) answer(t *testing.T, who string, req *http.Request) reply {
	t.Helper()
	res, err := p.as[who].Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header.Get("Location"), res.Header, string(b)}
}

// cookie is what the answer sets.
func (r reply) cookie(name string) *http.Cookie {
	for _, c := range (&http.Response{Header: r.header}).Cookies() {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// zone has the admin's browser be in that zone.
func (p *people) zone(t *testing.T, zone string) {
	t.Helper()
	at, err := url.Parse(p.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	p.as["admin"].Jar.SetCookies(at, []*http.Cookie{{Name: "scrip_zone", Value: zone}}) //nolint:gosec // G124: as scripts set it
}

// session is the cookie that somebody has.
func (p *people) session(t *testing.T, who string) string {
	t.Helper()
	at, err := url.Parse(p.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range p.as[who].Jar.Cookies(at) {
		if c.Name == "scrip_session" {
			return c.Value
		}
	}
	t.Fatalf("%s has no session", who)
	return ""
}

const thePassword = "correct horse"

// withPassword gives somebody the password, and a session.
func (p *people) withPassword(t *testing.T, who string) {
	t.Helper()
	link, _, err := p.accounts.NewLink(t.Context(), account.Operator(), p.ids[who])
	if err != nil {
		t.Fatal(err)
	}
	p.as[who] = p.client(t)
	p.send(t, p.as[who], "POST", "/welcome/"+link, url.Values{"password": {thePassword}, "again": {thePassword}}).to(t, "/")
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.withPassword(t, "alice")
	p.get(t, "nobody", "/signin").has(t, 200, `name="username"`, `name="password"`, `!name="token"`, "/signin?by=token")
	p.get(t, "nobody", "/signin?by=token&next=/codes").has(t, 200, `name="token"`, `!name="username"`, `name="next" value="/codes"`)

	for name, form := range map[string]url.Values{
		"wrong password":  {"username": {"alice"}, "password": {"correct house"}, "next": {"/account"}},
		"no such user":    {"username": {"alic"}, "password": {"correct house"}, "next": {"/account"}},
		"no token at all": {"by": {"token"}, "token": {""}, "next": {"/account"}},
	} {
		r := p.send(t, p.client(t), "POST", "/signin", form)
		r.has(t, 422, `role="alert"`, `name="next" value="/account"`, "!correct house")
		if name != "no token at all" {
			r.has(t, 422, "The username or the password is wrong", `value="`+form.Get("username")+`"`)
		}
		if c := r.cookie("scrip_session"); c != nil {
			t.Errorf("%s: a session begins", name)
		}
	}

	in := p.send(t, p.client(t), "POST", "/signin", url.Values{"username": {"alice"}, "password": {"correct horse"}, "next": {"/account?x=1"}})
	in.to(t, "/account?x=1")
	c := in.cookie("scrip_session")
	if c == nil || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.MaxAge != int(account.SessionFor.Seconds()) || c.Secure {
		t.Fatalf("the cookie is %+v", c)
	}
	if strings.Contains(p.logs.String(), c.Value) || strings.Contains(p.logs.String(), "correct") {
		t.Error("the log has secrets")
	}
	p.get(t, "alice", "/signin?next=/account").to(t, "/account")

	// Behind TLS cookies are for TLS alone.
	config := p.config
	config.SecureCookies = true
	h, err := console.New(config)
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(t.Context(), "POST", "/signin", strings.NewReader("username=alice&password=correct+horse"))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	h.ServeHTTP(rec, req)
	if c := (reply{header: rec.Header()}).cookie("scrip_session"); c == nil || !c.Secure {
		t.Errorf("the cookie is %+v", c)
	}
}

// TestSignInIsThrottled: who has guessed too often is told to wait, and let in after
// that.
func TestSignInIsThrottled(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]url.Values{
		"passwords": {"username": {"alice"}, "password": {"a wrong one"}},
		"tokens":    {"by": {"token"}, "token": {"a wrong one"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeople(t)
			p.withPassword(t, "alice")
			right := url.Values{"username": {"alice"}, "password": {"correct horse"}}
			for range limitOfGuesses {
				p.send(t, p.as["nobody"], "POST", "/signin", wrong).has(t, 422)
			}
			for _, form := range []url.Values{wrong, right} {
				r := p.send(t, p.as["nobody"], "POST", "/signin", form)
				r.has(t, 429, `role="alert"`, "Too many")
				if got := r.header.Get("Retry-After"); got != "600" {
					t.Errorf("Retry-After is %q", got)
				}
				if r.cookie("scrip_session") != nil {
					t.Error("a session begins")
				}
			}
			p.get(t, "alice", "/account").has(t, 200) // who is in stays in
			p.now.Add(600)
			p.send(t, p.as["nobody"], "POST", "/signin", right).to(t, "/")
		})
	}
}

// TestNextIsLocal: nobody is sent to another site.
func TestNextIsLocal(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	token := account.NewToken()
	if _, err := p.accounts.Create(t.Context(), account.Operator(), account.CreateRequest{Username: "carol", Token: token}); err != nil {
		t.Fatal(err)
	}
	for next, want := range map[string]string{
		"/codes?q=a&at=50":         "/codes?q=a&at=50",
		"/machines/16327138":       "/machines/16327138",
		"":                         "/",
		"codes":                    "/",
		"//evil.example":           "/",
		"///evil.example":          "/",
		"https://evil.example":     "/",
		"http:/evil.example":       "/",
		"https:evil.example":       "/",
		`\\evil.example`:           "/",
		`/\evil.example`:           "/",
		`/codes\..\\evil.example`:  "/",
		"/\t/evil.example":         "/",
		" //evil.example":          "/",
		"javascript:alert(1)":      "/",
		"/a\r\nSet-Cookie: x=y":    "/",
		"/%zz":                     "/",
		"/.//evil.example":         "/evil.example",
		"/../..//evil.example/a/b": "/evil.example/a/b",
	} {
		q := url.QueryEscape(next)
		p.get(t, "admin", "/signin?next="+q).to(t, want)
		p.send(t, p.client(t), "POST", "/signin", url.Values{"by": {"token"}, "token": {token}, "next": {next}}).to(t, want)
		p.get(t, "nobody", "/language?to=ja&next="+q).to(t, want)
	}
}

func TestSignOut(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.withPassword(t, "alice")
	here, there := p.as["alice"], p.client(t)
	p.send(t, there, "POST", "/signin", url.Values{"username": {"alice"}, "password": {"correct horse"}}).to(t, "/")
	session := p.session(t, "alice")

	out := p.send(t, here, "POST", "/signout", nil)
	out.to(t, "/signin")
	if c := out.cookie("scrip_session"); c == nil || c.MaxAge >= 0 || c.Value != "" {
		t.Errorf("the cookie is %+v", c)
	}
	p.ask(t, "nobody", "GET", "/account", nil, "Cookie", "scrip_session="+session).to(t, "/signin?next=%2Faccount")
	p.send(t, there, "GET", "/account", nil).has(t, 200)

	p.as["alice"] = p.client(t)
	p.send(t, p.as["alice"], "POST", "/signin", url.Values{"username": {"alice"}, "password": {"correct horse"}}).to(t, "/")
	p.send(t, there, "POST", "/signout", url.Values{"everywhere": {"1"}}).to(t, "/signin")
	p.get(t, "alice", "/account").to(t, "/signin?next=%2Faccount")

	// What is sent from a page that was left open comes back to it, and does nothing.
	for referer, want := range map[string]string{
		p.server.URL + "/account?x=1":       "/signin?next=%2Faccount%3Fx%3D1",
		p.server.URL + "/users/1/quota":     "/signin", // where a form was refused there is nothing to read
		"https://elsewhere.example/account": "/signin",
		"":                                  "/signin",
		"%":                                 "/signin",
	} {
		r := p.ask(t, "nobody", "POST", "/account/name", url.Values{"display_name": {"Eve"}}, "Referer", referer)
		r.to(t, want)
		if r := p.get(t, "nobody", "/signin"); !strings.Contains(r.body, "You were signed out, and nothing was changed") {
			t.Error("nobody says what happened")
		}
	}
	if got := p.kinds(t, 1); got != string(account.KindUserSignOut) {
		t.Errorf("the ledger has %s", got)
	}
	p.get(t, "nobody", "/signout").has(t, 404)
	// Parts of a page send the whole of it to sign in.
	if r := p.ask(t, "nobody", "GET", "/codes", nil, "HX-Request", "true"); r.status != 204 || r.header.Get("HX-Redirect") != "/signin" {
		t.Errorf("%d to %q", r.status, r.header.Get("HX-Redirect"))
	}
	for _, junk := range []string{"x", strings.Repeat("y", 4000), "%00", session + "0"} {
		p.ask(t, "nobody", "GET", "/account", nil, "Cookie", "scrip_session="+junk).to(t, "/signin?next=%2Faccount")
	}
}

// TestWelcome: a link sets a password once.
func TestWelcome(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	link, _, err := p.accounts.NewLink(t.Context(), account.Operator(), p.ids["bob"])
	if err != nil {
		t.Fatal(err)
	}
	at := "/welcome/" + link
	for range 2 { // looking at it does not use it up
		p.get(t, "nobody", at).has(t, 200, "For the account bob", `name="again"`)
	}
	p.post(t, "nobody", at, "password", "correct horse", "again", "correct house").has(t, 422, `role="alert"`, "differ", "!correct ho")
	p.post(t, "nobody", at, "password", "short", "again", "short", "username", "bob").has(t, 422, `role="alert"`, "bob")
	p.get(t, "bob", "/account").has(t, 200)
	r := p.post(t, "nobody", at, "password", "correct horse", "again", "correct horse")
	r.to(t, "/")
	if c := r.cookie("scrip_session"); c == nil || !c.HttpOnly {
		t.Errorf("the cookie is %+v", c)
	}
	p.get(t, "nobody", "/account").has(t, 200, "bob")
	p.get(t, "bob", "/account").to(t, "/signin?next=%2Faccount") // what was open before
	p.as["nobody"] = p.client(t)
	p.get(t, "nobody", at).has(t, 404, "!bob")
	p.post(t, "nobody", at, "password", "another horse", "again", "another horse").has(t, 404)
	p.send(t, p.client(t), "POST", "/signin", url.Values{"username": {"bob"}, "password": {"correct horse"}}).to(t, "/")

	// A link that nobody has is no guess: any page can have its readers ask for one.
	for range limitOfGuesses + 1 {
		p.get(t, "nobody", "/welcome/"+strings.Repeat("0", 32)).has(t, 404)
	}
	p.send(t, p.client(t), "POST", "/signin", url.Values{"username": {"bob"}, "password": {"correct horse"}}).to(t, "/")
}

// path is an address of a route, in a world with a machine and a code.
func path(route string) string {
	return strings.NewReplacer("{$}", "", "{no}", machineNo, "{id}", "1", "{link}", strings.Repeat("0", 32)).Replace(route)
}

// TestWhoMayAsk: of every route.
func TestWhoMayAsk(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.machine(t)
	p.issue(t, 1)
	before := p.kinds(t, 1)
	// Whatever is not here is for admins.
	others := []string{
		"GET /signin", "POST /signin", "POST /signout", "GET /welcome/{link}", "POST /welcome/{link}", "GET /language", "POST /redeem", // anyone
		"GET /{$}", "GET /redeem", "GET /account", "POST /account/name", "POST /account/password", "POST /account/token",
	}
	for _, rt := range console.Routes() {
		if name := rt.Method + " " + rt.Path; rt.Admins == slices.Contains(others, name) {
			t.Errorf("%s: for admins alone is %t", name, rt.Admins)
		}
		if rt.Anyone {
			continue
		}
		at := path(rt.Path)
		form := url.Values{"id": {"1"}, "do": {"delete"}, "amount": {"1"}, "reason": {"x"}, "way": {"more"}, "once": {"1"}, "everywhere": {"1"}}
		if rt.Method == http.MethodGet {
			p.get(t, "nobody", at).to(t, "/signin?next="+url.QueryEscape(at))
		} else {
			p.send(t, p.as["nobody"], rt.Method, at, form).to(t, "/signin")
		}
		if !rt.Admins {
			continue
		}
		if r := p.send(t, p.as["alice"], rt.Method, at, form); r.status != 403 || strings.Contains(r.body, "spring") || strings.Contains(r.body, "Lobby") {
			t.Errorf("%s %s: %d\n%s", rt.Method, at, r.status, r.body)
		}
	}
	if after := p.kinds(t, 1); after != before {
		t.Errorf("the ledger has %s on top", after)
	}
	p.get(t, "alice", "/").to(t, "/redeem")
	p.get(t, "alice", "/redeem").has(t, 200, `!href="/codes"`, `!class="rail"`, `!id="palette"`)
}

// TestCrossOrigin: what another site's page sends is refused and changes nothing.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.machine(t)
	p.issue(t, 1)
	before := p.kinds(t, 5)
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
	} {
		for _, rt := range console.Routes() {
			if rt.Method != "POST" {
				continue
			}
			form := url.Values{
				"id": {"1"}, "do": {"delete"}, "name": {"x"}, "count": {"1"}, "quota": {"1"}, "amount": {"1"}, "reason": {"x"},
				"way": {"more"}, "once": {"1"}, "username": {"eve"}, "status": {"2"}, "role": {"10"}, "everywhere": {"1"},
			}
			if r := p.ask(t, "root", "POST", path(rt.Path), form, headers...); r.status != 403 || len(r.header["Set-Cookie"]) > 0 {
				t.Errorf("%s %v: %d", rt.Path, headers, r.status)
			}
		}
	}
	if after := p.kinds(t, 5); after != before {
		t.Errorf("the ledger has %s on top", after)
	}
	p.get(t, "root", "/account").has(t, 200)
	p.ask(t, "root", "POST", "/codes", url.Values{"name": {"x"}, "count": {"1"}, "quota": {"1"}}, "Sec-Fetch-Site", "same-origin", "Origin", p.server.URL).
		to(t, "/jobs/1")
}
