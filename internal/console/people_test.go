package console_test

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/console"
	"github.com/scrip-codes/scrip/internal/enginetest"
	"github.com/scrip-codes/scrip/internal/figures"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/storetest"
)

// people is a console with people before it.
type people struct {
	server *httptest.Server
	// config is what the console is made of, engine what is below it, and stop ends
	// its work.
	config   console.Config
	database *enginetest.Database
	engine   storetest.Engine
	stop     context.CancelFunc
	now      atomic.Int64 // seconds
	accounts *account.Service
	codes    *redemption.Service
	fleet    *fleet.Service
	pickups  *pickup.Service
	logs     *logs
	verify   func(ctx context.Context, progress func(done, total int64)) (account.Report, error)
	// Their ids, by name: root, admin, alice and bob.
	ids map[string]int64
	as  map[string]*http.Client
}

// logs is what the console logged.
type logs struct {
	mu sync.Mutex
	strings.Builder
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.Write(b)
}

// String is all of it, also while somebody writes.
func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.String()
}

const limitOfGuesses = 4

func newPeople(tb testing.TB) *people {
	tb.Helper()
	p := &people{logs: new(logs), ids: map[string]int64{"root": 1}, as: map[string]*http.Client{}}
	// The clock stands still, on the 18th of May 2033: what is to be sent by then is
	// sent in time.
	p.now.Store(2_000_000_000)
	now := func() time.Time { return time.Unix(p.now.Load(), 0) }
	p.database = enginetest.New(tb, tb.TempDir())
	db, err := p.database.Open(tb.Context(), storetest.Options{Secrets: []string{"a secret for tests"}, Now: now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	limiter := func(name string) *guess.Limiter {
		if store, ok := db.(guess.Store); ok {
			return guess.Shared(name, limitOfGuesses, 10*time.Minute, now, store)
		}
		return guess.New(limitOfGuesses, 10*time.Minute, now)
	}
	p.engine = db
	p.accounts = account.NewService(db, limiter("logins"), now)
	p.codes = redemption.NewService(db, db.Keys(), limiter("redeems"), now)
	p.fleet = fleet.NewService(db, db.Keys(), limiter("machines"), now, nil)
	p.pickups = pickup.NewService(db, db.Keys(), now, nil)
	work, stop := context.WithCancel(context.WithoutCancel(tb.Context()))
	p.stop = stop
	verifications := account.NewVerifications(account.VerificationsConfig{
		Store: db, Keys: db.Keys(),
		Walk: func(ctx context.Context, progress func(done, total int64)) (account.Report, error) {
			return p.verify(ctx, progress)
		},
		Work: work, Log: slog.New(slog.NewTextHandler(p.logs, nil)), Now: now,
	})
	tb.Cleanup(verifications.Wait)
	tb.Cleanup(stop)
	p.config = console.Config{
		Accounts: p.accounts, Redemptions: p.codes, Fleet: p.fleet, Pickups: p.pickups,
		Figures: figures.NewService(db, now),
		Keys:    db.Keys(), Log: slog.New(slog.NewTextHandler(p.logs, nil)), Now: now, Work: work, Version: "v9.8.7",
		Database: "SQLite", MQTTAddress: "mqtt://broker.example:1883", GuessLimit: limitOfGuesses, GuessWindow: 10 * time.Minute,
		Verifications: verifications,
	}
	h, err := console.New(p.config)
	if err != nil {
		tb.Fatal(err)
	}
	p.server = httptest.NewServer(h)
	tb.Cleanup(p.server.Close)
	tb.Cleanup(func() {
		if strings.Contains(p.logs.String(), "level=ERROR") {
			tb.Errorf("the log has errors:\n%s", p.logs.String())
		}
	})

	token := account.NewToken()
	if _, err := p.accounts.Bootstrap(tb.Context(), token); err != nil {
		tb.Fatal(err)
	}
	p.as["root"] = p.signIn(tb, token)
	for name, role := range map[string]account.Role{"admin": account.RoleAdmin, "alice": account.RoleUser, "bob": account.RoleUser} {
		token := account.NewToken()
		u, err := p.accounts.Create(tb.Context(), account.Operator(), account.CreateRequest{Username: name, Role: role, Token: token})
		if err != nil {
			tb.Fatal(err)
		}
		p.ids[name], p.as[name] = u.ID, p.signIn(tb, token)
	}
	p.as["nobody"] = p.client(tb)
	return p
}

func (p *people) client(tb testing.TB) *http.Client {
	tb.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return &http.Client{Jar: jar, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (p *people) signIn(tb testing.TB, token string) *http.Client {
	tb.Helper()
	c := p.client(tb)
	if r := p.send(tb, c, "POST", "/signin", url.Values{"by": {"token"}, "token": {token}}); r.status != http.StatusSeeOther {
		tb.Fatalf("signing in: %d", r.status)
	}
	return c
}

// reply is what the console answered.
type reply struct {
	status   int
	location string
	header   http.Header
	body     string
}

func (p *people) send(tb testing.TB, c *http.Client, method, path string, form url.Values) reply {
	tb.Helper()
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(tb.Context(), method, p.server.URL+path, body)
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Accept-Language", "en")
	if method == "POST" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := c.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return reply{res.StatusCode, res.Header.Get("Location"), res.Header, string(b)}
}

// get is a page as somebody sees it.
func (p *people) get(t *testing.T, who, path string) reply {
	t.Helper()
	return p.send(t, p.as[who], "GET", path, nil)
}

// post is a form that somebody sends, by pairs of names and values.
func (p *people) post(t *testing.T, who, path string, pairs ...string) reply {
	t.Helper()
	form := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	return p.send(t, p.as[who], "POST", path, form)
}

func (r reply) has(t *testing.T, status int, texts ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d", r.status, status)
	}
	for _, text := range texts {
		absent := strings.HasPrefix(text, "!")
		if strings.Contains(r.body, strings.TrimPrefix(text, "!")) == absent {
			t.Errorf("with %q in it is wrong:\n%s", text, r.body)
		}
	}
}

func (r reply) to(t *testing.T, location string) {
	t.Helper()
	if r.status != http.StatusSeeOther || r.location != location {
		t.Errorf("%d to %q, want %q\n%s", r.status, r.location, location, r.body)
	}
}

func (p *people) at(name string) string { return fmt.Sprintf("/users/%d", p.ids[name]) }

// kinds are the kinds of the newest entries, newest first.
func (p *people) kinds(t *testing.T, n int) string {
	t.Helper()
	list, err := p.accounts.Ledger(t.Context(), account.Operator(), account.LedgerFilter{Limit: n})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range list {
		kinds = append(kinds, string(e.Kind))
	}
	return strings.Join(kinds, " ")
}

func (p *people) issue(t *testing.T, n int64) []string {
	t.Helper()
	keys, err := p.codes.Issue(t.Context(), account.Operator(), redemption.IssueRequest{Name: "spring <b>", Count: n, Quota: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestRedeem(t *testing.T) {
	p := newPeople(t)
	keys := p.issue(t, 3)
	wide := strings.Map(func(r rune) rune { return r - '!' + '！' }, keys[1])

	p.get(t, "alice", "/redeem").has(t, 200, "What you redeem will be listed here", "Your balance")
	shown := regexp.MustCompile(`(?s)<textarea[^>]*>(.*?)</textarea>`)
	r := p.get(t, "alice", "/redeem?key="+keys[0])
	r.has(t, 200, "Press the button")
	if field := shown.FindStringSubmatch(r.body); field == nil || strings.ReplaceAll(field[1], " ", "") != keys[0] {
		t.Errorf("the field holds %v", field)
	}
	if got := p.kinds(t, 1); got == "redeem" {
		t.Fatal("looking at the page has redeemed")
	}

	p.post(t, "alice", "/redeem", "key", " "+strings.ToUpper(keys[0][:5])+"  "+keys[0][5:9]+"-"+keys[0][9:]+"\n").to(t, "/redeem")
	p.get(t, "alice", "/redeem").has(t, 200, "100,000 has been added", `redeem-sum">100,000<`, "+100,000", "Code no. 1 redeemed")
	p.get(t, "alice", "/redeem").has(t, 200, "!has been added") // said once
	// Pressed twice is good news, and changes nothing.
	p.post(t, "alice", "/redeem", "key", keys[0]).to(t, "/redeem")
	p.get(t, "alice", "/redeem").has(t, 200, "Good news", `redeem-sum">100,000<`)
	p.post(t, "bob", "/redeem", "key", keys[0]).has(t, 422, "already been used", `aria-describedby="redeem-hint redeem-problem"`)
	p.post(t, "bob", "/redeem", "key", wide).to(t, "/redeem")

	// Who is not signed in comes back with the key.
	r = p.get(t, "nobody", "/redeem?key="+keys[2])
	r.to(t, "/signin?next="+url.QueryEscape("/redeem?key="+keys[2]))
	p.post(t, "nobody", "/redeem", "key", keys[2]).to(t, "/signin?next="+url.QueryEscape("/redeem?key="+keys[2]))

	for range limitOfGuesses {
		p.post(t, "alice", "/redeem", "key", "<script>alert").has(t, 422, "not valid", "!<script>alert", "&lt;script&gt;alert")
	}
	r = p.post(t, "alice", "/redeem", "key", keys[2])
	r.has(t, 429, "Too many wrong attempts", "data-until=")
	if r.header.Get("Retry-After") != "600" {
		t.Errorf("Retry-After is %q", r.header.Get("Retry-After"))
	}
	// An admin lets them in again.
	list := p.get(t, "admin", "/settings")
	list.has(t, 200, ">alice</a>", "refused", "redeeming", "!"+keys[2])
	for _, m := range regexp.MustCompile(`name="subject" value="([^"]+)"`).FindAllStringSubmatch(list.body, -1) {
		p.post(t, "admin", "/settings/forgive", "where", "redeem", "subject", m[1]).to(t, "/settings")
	}
	p.get(t, "admin", "/ledger").has(t, 200, "forgave the wrong codes of <a href=\""+p.at("alice"), "forgave the wrong codes of <b>127.0.0.1</b>")
	p.post(t, "alice", "/redeem", "key", keys[2]).to(t, "/redeem")
	p.get(t, "alice", "/redeem").has(t, 200, `redeem-sum">200,000<`)

	// Only who may is offered to.
	for range limitOfGuesses {
		p.post(t, "root", "/redeem", "key", "nonsense").has(t, 422)
	}
	p.get(t, "admin", "/settings").has(t, 200, ">root</a>", `!value="u1"`, `name="subject" value="a127.0.0.1"`)
	p.get(t, "root", "/settings").has(t, 200, ">root</a>", `name="subject" value="u1"`)
}

func TestOwnAccount(t *testing.T) {
	p := newPeople(t)
	p.get(t, "alice", "/account").has(t, 200, "Set a password", "!Password so far", "alice")
	p.post(t, "alice", "/account/name", "display_name", "Alice <3").to(t, "/account")
	p.post(t, "alice", "/account/name", "display_name", "").has(t, 422, `class="notice bad"`)
	p.get(t, "alice", "/account").has(t, 200, "Alice &lt;3", "!Alice <3")
	p.post(t, "alice", "/account/password", "password", "correct horse", "again", "other horse").has(t, 422, "differ")
	p.post(t, "alice", "/account/password", "password", "short", "again", "short").has(t, 422, `class="notice bad"`)

	p.post(t, "alice", "/account/password", "password", "correct horse", "again", "correct horse").to(t, "/account")
	p.get(t, "alice", "/account").has(t, 200, "Your password is set", "Password so far") // still signed in here
	p.post(t, "alice", "/account/password", "old", "wrong horse", "password", "battery staple", "again", "battery staple").
		has(t, 422, "password is wrong", "!wrong horse")

	r := p.post(t, "alice", "/account/token")
	token := regexp.MustCompile(`data-copy="([0-9a-f]{32})"`).FindStringSubmatch(r.body)
	if r.status != 200 || token == nil {
		t.Fatalf("%d: no token in\n%s", r.status, r.body)
	}
	if u, err := p.accounts.AuthenticateToken(t.Context(), token[1]); err != nil || u.Username != "alice" {
		t.Errorf("the token is of %q, %v", u.Username, err)
	}
	p.get(t, "alice", "/account").has(t, 200, "!"+token[1])
	if got, want := p.kinds(t, 3), "user_token user_password user_change"; got != want {
		t.Errorf("the ledger has %s, want %s", got, want)
	}
	p.post(t, "alice", "/signout", "everywhere", "1").to(t, "/signin")
	p.get(t, "alice", "/account").to(t, "/signin?next=%2Faccount")
}

func TestUsers(t *testing.T) {
	p := newPeople(t)
	p.get(t, "admin", "/users").has(t, 200, ">alice</a>", ">root</a>", "Add a user")
	p.get(t, "admin", "/users?q=ali").has(t, 200, ">alice</a>", "!>bob</a>")
	p.get(t, "admin", "/users?role=10").has(t, 200, ">admin</a>", "!>bob</a>")
	p.get(t, "admin", "/users?q=zzz").has(t, 200, "Nobody found", "Clear the filters")
	for _, junk := range []string{"?role=7&status=x", "?before=-1", "?before=9999999999999999999", "?q=%00%ff", "?q=" + strings.Repeat("x", 5000), "?before=77"} {
		if r := p.get(t, "admin", "/users"+junk); r.status != 200 {
			t.Errorf("%s: %d", junk, r.status)
		}
	}

	// A new user is given a link that sets the password.
	p.get(t, "admin", "/users/new").has(t, 200, "!name=\"role\"")
	p.get(t, "root", "/users/new").has(t, 200, "name=\"role\"")
	p.post(t, "admin", "/users", "username", "carol", "role", "10").has(t, 422, `class="notice bad"`, `value="carol"`)
	p.post(t, "admin", "/users", "username", "alice").has(t, 422, `class="notice bad"`)
	p.post(t, "admin", "/users", "username", "carol", "quota", "ten").has(t, 422, `class="notice bad"`)
	r := p.post(t, "admin", "/users", "username", "carol", "quota", "１２,000")
	r.has(t, 200, "One-time link for carol", "Send it to carol alone", `data-address="/users/`, "<svg", ">12,000<")
	link := regexp.MustCompile(`<code>` + regexp.QuoteMeta(p.server.URL) + `(/welcome/[0-9a-f]{32})</code>`).FindStringSubmatch(r.body)
	if link == nil {
		t.Fatalf("no link in\n%s", r.body)
	}
	p.get(t, "nobody", link[1]).has(t, 200, "carol")
	if got, want := p.kinds(t, 3), "user_link quota user_create"; got != want {
		t.Errorf("the ledger has %s, want %s", got, want)
	}

	// A balance changes once, however often the button is pressed.
	once := regexp.MustCompile(`name="once" value="([^"]+)"`).FindStringSubmatch(p.get(t, "admin", p.at("alice")).body)
	if once == nil {
		t.Fatal("the form has no mark")
	}
	for range 3 {
		p.post(t, "admin", p.at("alice")+"/quota", "once", once[1], "way", "more", "amount", "5,000", "reason", "a <present>").to(t, p.at("alice"))
	}
	p.get(t, "admin", p.at("alice")).has(t, 200, `"big">5,000<`, "a &lt;present&gt;", "credited <b>5,000</b> to", "5,000 has been added")
	p.get(t, "alice", "/redeem").has(t, 200, "+5,000", "a &lt;present&gt;")
	// Gone back to and sent with something else, it says so and does nothing.
	p.post(t, "admin", p.at("alice")+"/quota", "once", once[1], "way", "more", "amount", "6,000", "reason", "a <present>").
		has(t, 422, "sent before", `"big">5,000<`, "!"+once[1])
	for _, form := range [][]string{
		{"way", "less", "amount", "5001", "reason", "x"},
		{"way", "more", "amount", "0", "reason", "x"},
		{"way", "more", "amount", "-5", "reason", "x"},
		{"way", "more", "amount", "5", "reason", ""},
		{"amount", "lots"},
		{},
	} {
		p.post(t, "admin", p.at("alice")+"/quota", append(form, "once", "another")...).has(t, 422, `class="notice bad"`, `"big">5,000<`)
	}
	p.post(t, "admin", p.at("alice")+"/quota", "once", "2", "way", "less", "amount", "1", "reason", "x").to(t, p.at("alice"))

	// Roles, states, tokens and sessions.
	p.get(t, "admin", p.at("alice")).has(t, 200, "!/role\"", "/status\"", "/token\"")
	p.get(t, "admin", p.at("root")).has(t, 200, "Only somebody of a higher role", "!/status\"", "!/token\"")
	p.get(t, "root", p.at("root")).has(t, 200, "!/status\"", "!/role\"", "!A higher role signs")
	p.get(t, "root", p.at("alice")).has(t, 200, "/role\"", "<p class=\"quiet\">A higher role signs the user out everywhere")
	// Nobody takes from who is not below them.
	for _, whom := range []string{"root", "admin"} {
		p.get(t, "admin", p.at(whom)).has(t, 200, `type="hidden" name="way" value="more"`, `!value="less"`)
		p.post(t, "admin", p.at(whom)+"/quota", "once", "give "+whom, "way", "more", "amount", "9", "reason", "x").to(t, p.at(whom))
		p.post(t, "admin", p.at(whom)+"/quota", "once", "take "+whom, "way", "less", "amount", "9", "reason", "x").
			has(t, 422, `class="notice bad"`, `"big">9<`)
	}
	p.post(t, "admin", "/settings/forgive", "where", "signin", "subject", "u1").has(t, 403)
	p.post(t, "root", "/settings/forgive", "where", "signin", "subject", "u1").to(t, "/settings")
	p.post(t, "root", "/settings/forgive", "where", "machine", "subject", "m16327138 a192.0.2.9").to(t, "/settings")
	p.get(t, "admin", "/ledger").has(t, 200, "forgave the failed sign-ins of <a href=\"/users/1\"",
		"forgave the failed sign-ins of machine <b>16327138</b> from <b>192.0.2.9</b>")
	p.post(t, "admin", p.at("alice")+"/role", "role", "10").has(t, 422, `class="notice bad"`)
	p.post(t, "admin", p.at("root")+"/status", "status", "2").has(t, 422, `class="notice bad"`)
	p.post(t, "root", p.at("alice")+"/role", "role", "10").to(t, p.at("alice"))
	p.post(t, "root", p.at("alice")+"/role", "role", "junk").has(t, 422, `class="notice bad"`)
	p.get(t, "root", p.at("alice")).has(t, 200, "changed the role of", "from <b>user</b> to <b>admin</b>")
	p.post(t, "root", p.at("alice")+"/role", "role", "1").to(t, p.at("alice"))
	p.post(t, "admin", p.at("bob")+"/name", "display_name", "Robert").to(t, p.at("bob"))
	p.post(t, "admin", p.at("bob")+"/token").has(t, 200, "New access token of bob")
	p.post(t, "admin", p.at("bob")+"/link").has(t, 200, "One-time link for bob")
	p.get(t, "bob", "/redeem").has(t, 200)
	p.post(t, "admin", p.at("bob")+"/signout").to(t, p.at("bob"))
	p.get(t, "bob", "/redeem").to(t, "/signin?next=%2Fredeem")
	p.post(t, "admin", p.at("alice")+"/status", "status", "2").to(t, p.at("alice"))
	p.get(t, "alice", "/redeem").to(t, "/signin?next=%2Fredeem")
	p.get(t, "admin", p.at("alice")).has(t, 200, "disabled", "!/link\"")
	p.get(t, "admin", "/users?status=2").has(t, 200, ">alice</a>", "!>bob</a>")

	for _, path := range []string{"/users/999", "/users/x", "/users/-1", "/users/99999999999999999999"} {
		p.get(t, "admin", path).has(t, 404)
		p.post(t, "admin", path+"/quota", "once", "z", "way", "more", "amount", "1", "reason", "x").has(t, 404)
	}
}

// TestUsersOlder: a list of more than a page goes on with its filter.
func TestUsersOlder(t *testing.T) {
	p := newPeople(t)
	for i := range 60 {
		if _, err := p.accounts.Create(t.Context(), account.Operator(), account.CreateRequest{Username: fmt.Sprintf("many%02d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	pages := 0
	for at := "/users?q=many"; at != ""; pages++ {
		r := p.get(t, "admin", at)
		r.has(t, 200)
		for _, m := range regexp.MustCompile(`>(many\d\d)</a>`).FindAllStringSubmatch(r.body, -1) {
			if seen[m[1]] {
				t.Errorf("%s is listed twice", m[1])
			}
			seen[m[1]] = true
		}
		at = ""
		if m := regexp.MustCompile(`href="([^"]+)">Older<`).FindStringSubmatch(r.body); m != nil {
			at = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if len(seen) != 60 || pages != 2 {
		t.Errorf("%d of 60 on %d pages", len(seen), pages)
	}
}

// TestOnlyAdmins: what is not a user's own is an admin's.
func TestOnlyAdmins(t *testing.T) {
	p := newPeople(t)
	for _, path := range []string{
		"/users", "/users/new", "/users/1", "/ledger", "/ledger.csv", "/ledger/verify", "/settings", "/settings/example",
		"/settings/merchants/new", "/settings/merchants/1", "/find?q=a",
	} {
		p.get(t, "alice", path).has(t, 403, "!<table")
		if r := p.get(t, "nobody", path); r.status != 303 {
			t.Errorf("%s: %d for nobody", path, r.status)
		}
	}
	for _, path := range []string{
		"/users", "/users/1/quota", "/users/1/name", "/users/1/role", "/users/1/status", "/users/1/token", "/users/1/link",
		"/users/1/signout", "/ledger/verify", "/ledger/verify/stop", "/settings/forgive", "/settings/merchants",
		"/settings/merchants/1", "/settings/merchants/1/key", "/settings/merchants/1/newkey",
	} {
		p.post(t, "alice", path, "amount", "1", "reason", "x", "way", "more", "status", "2").has(t, 403)
		p.post(t, "nobody", path).to(t, "/signin")
	}
}

func TestLedger(t *testing.T) {
	p := newPeople(t)
	keys := p.issue(t, 2)
	p.post(t, "alice", "/redeem", "key", keys[1]).to(t, "/redeem")
	p.post(t, "admin", p.at("bob")+"/quota", "once", "1", "way", "more", "amount", "7", "reason", "=1+1").to(t, p.at("bob"))
	p.get(t, "admin", "/ledger").has(t, 200,
		"redeemed code <a href=\"/codes/2\">#2</a>: <b>100,000</b> credited", "spring &lt;b&gt;", "!spring <b>", ">alice</a>", "=1+1")
	p.get(t, "admin", "/ledger?code=2").has(t, 200, "redeemed code", "made <b>2</b> codes", "!credited <b>7</b>")
	p.get(t, "admin", "/ledger?code=1").has(t, 200, "!redeemed code", "made <b>2</b> codes")
	p.get(t, "admin", "/ledger?user=bob").has(t, 200, "credited <b>7</b>", "!redeemed code")
	p.get(t, "admin", fmt.Sprintf("/ledger?user=%d", p.ids["bob"])).has(t, 200, "credited <b>7</b>")
	p.get(t, "admin", "/ledger?user=0").has(t, 200, "The command line", "!credited <b>7</b>")
	p.get(t, "admin", "/ledger?from=2033-05-18&to=2033-05-18").has(t, 200, "redeemed code")
	p.get(t, "admin", "/ledger?from=2033-05-19").has(t, 200, "No such entries", "Clear the filters")
	p.get(t, "admin", "/ledger?user=nobody").has(t, 200, "There is no user nobody")
	p.get(t, "admin", "/ledger?machine=12345678").has(t, 200, "There is no machine 12345678")
	p.get(t, "admin", "/ledger?code=abc").has(t, 200, "is no number of a code")
	for _, junk := range []string{"?from=junk&to=9999-99-99", "?before=x", "?before=-5", "?code=-1", "?code=99999999999999999999", "?user=%00", "?user=-1", "?from=0001-01-01", "?to=9999-12-31"} {
		if r := p.get(t, "admin", "/ledger"+junk); r.status != 200 {
			t.Errorf("%s: %d", junk, r.status)
		}
	}

	r := p.get(t, "admin", "/ledger.csv?user=bob")
	r.has(t, 200, "!redeem")
	if kind := r.header.Get("Content-Disposition"); !strings.HasPrefix(kind, `attachment; filename="ledger-`) {
		t.Errorf("Content-Disposition is %s", kind)
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(r.body, "\ufeff"))).ReadAll()
	if err != nil || len(rows) != 3 {
		t.Fatalf("%v, %v", rows, err)
	}
	all, err := csv.NewReader(strings.NewReader(p.get(t, "admin", "/ledger.csv").body)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range all {
		for _, text := range row {
			if strings.ContainsAny(text[:min(1, len(text))], "=+@") {
				t.Errorf("%q is a formula", text)
			}
		}
	}
	// A username is anybody's to choose.
	if _, err := p.accounts.Create(t.Context(), account.Operator(), account.CreateRequest{Username: "=cmd|'/c'!A1"}); err != nil {
		t.Fatal(err)
	}
	p.get(t, "admin", "/ledger.csv").has(t, 200, "'=cmd|", "!,=cmd|")
}

// TestLedgerOlder: pages and the export hold every entry once.
func TestLedgerOlder(t *testing.T) {
	p := newPeople(t)
	const n = 1100
	for i := range n {
		if _, err := p.accounts.AddQuota(t.Context(), account.Operator(), p.ids["bob"], int64(i+1), "many", nil); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := csv.NewReader(strings.NewReader(p.get(t, "admin", "/ledger.csv?user=bob&from=2033-05-01").body)).ReadAll()
	if err != nil || len(rows) != n+2 { // a head, and that the user was made
		t.Errorf("%d rows, %v", len(rows), err)
	}
	ids := map[string]bool{}
	for _, row := range rows[1:] {
		ids[row[0]] = true
	}
	if len(ids) != n+1 {
		t.Errorf("%d ids", len(ids))
	}
	first := p.get(t, "admin", "/ledger?user=bob")
	older := regexp.MustCompile(`href="([^"]+)">Older<`).FindStringSubmatch(first.body)
	if older == nil {
		t.Fatal("there is no next page")
	}
	next := p.get(t, "admin", strings.ReplaceAll(older[1], "&amp;", "&"))
	next.has(t, 200, "credited <b>1,050</b> to", "!credited <b>1,051</b> to", "Newest")
	first.has(t, 200, "credited <b>1,051</b> to", "!credited <b>1,050</b> to")
}

func TestVerification(t *testing.T) {
	p := newPeople(t)
	goOn, begun, further, calls := make(chan error), make(chan struct{}), make(chan struct{}), 0
	p.verify = func(ctx context.Context, progress func(done, total int64)) (account.Report, error) {
		calls++
		progress(4096, 10_000)
		begun <- struct{}{}
		for {
			select {
			case err := <-goOn:
				r := account.Report{Lanes: 1, Entries: 10_000, Accounts: 4}
				if err != nil {
					r.Faults = []string{err.Error()}
				}
				return r, nil
			case <-further:
				progress(8192, 10_000)
			case <-ctx.Done():
				begun <- struct{}{}
				return account.Report{}, ctx.Err()
			}
		}
	}
	ended := func(text string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; { //nolint:forbidigo // a deadline of the test's own
			r := p.get(t, "root", "/ledger")
			if strings.Contains(r.body, text) {
				return
			}
			if time.Now().After(end) { //nolint:forbidigo // the same
				t.Fatalf("%q does not come:\n%s", text, r.body)
			}
		}
	}
	p.post(t, "admin", "/ledger/verify").to(t, "/ledger")
	<-begun
	p.post(t, "root", "/ledger/verify").to(t, "/ledger") // not a second one
	p.get(t, "root", "/ledger").has(t, 200, "4,096 of 10,000 entries", `value="40"`, "asked for by admin", "every 1s")
	p.now.Add(1)
	further <- struct{}{}
	ended("8,192 of 10,000 entries")
	p.get(t, "root", "/ledger").has(t, 200, "about one second left")
	goOn <- nil
	ended("The ledger is whole.")

	p.post(t, "admin", "/ledger/verify").to(t, "/ledger")
	<-begun
	goOn <- errors.New("lane 1: entry 3 was altered <b>")
	ended("entry 3 was altered &lt;b&gt;")

	p.post(t, "admin", "/ledger/verify").to(t, "/ledger")
	<-begun
	p.post(t, "admin", "/ledger/verify/stop").to(t, "/ledger")
	p.get(t, "root", "/ledger").has(t, 200, "was stopped")
	<-begun // it ends
	p.get(t, "root", "/ledger").has(t, 200, "was stopped")
	if calls != 3 {
		t.Errorf("verified %d times", calls)
	}
}

func TestSettings(t *testing.T) {
	p := newPeople(t)
	p.get(t, "admin", "/settings").has(t, 200, "No merchants yet", "fails 4 times within 10 minutes", "SCRIP_GUESS_LIMIT",
		"Nobody is near the limit", "v9.8.7", "SQLite", "broker.example:1883")
	p.post(t, "admin", "/settings/merchants", "once", "1", "name", "").has(t, 422, `class="notice bad"`)
	for range 2 { // pressed twice, there is one
		p.post(t, "admin", "/settings/merchants", "once", "1", "name", "Acme <b>", "app_key", "a secret key", "payload", "base64")
	}
	r := p.get(t, "admin", "/settings")
	r.has(t, 200, "Acme &lt;b&gt;", "Base64", "!a secret key", "!/settings/merchants/2")
	p.get(t, "admin", "/settings/merchants/1").has(t, 200, "!a secret key", "••••", "Acme &lt;b&gt;")
	p.post(t, "admin", "/settings/merchants/1/key").has(t, 200, "a secret key")
	if got := p.kinds(t, 1); got != "reveal" {
		t.Errorf("showing the app key is on record as %s", got)
	}
	p.get(t, "admin", "/ledger").has(t, 200, "looked at the app key of <a href=\"/settings/merchants/1\">Acme &lt;b&gt;</a>", "!a secret key")

	p.post(t, "admin", "/settings/merchants/1", "name", "Beta", "payload", "json", "signature", "percent-encoded", "expiry", "s").
		to(t, "/settings/merchants/1")
	m, err := p.fleet.Merchant(t.Context(), account.Operator(), 1)
	if want := (fleet.Style{Payload: "json", Signature: "percent-encoded", Expiry: "s"}); err != nil || m.Style != want || m.Name != "Beta" {
		t.Errorf("the merchant is %+v, %v", m, err)
	}
	p.post(t, "admin", "/settings/merchants/1", "name", "").has(t, 422, `class="notice bad"`)
	p.post(t, "admin", "/settings/merchants/1/newkey", "app_key", "another key").has(t, 200, "another key", "!a secret key")
	p.post(t, "admin", "/settings/merchants/1/newkey", "app_key", strings.Repeat("x", 500)).has(t, 422, `class="notice bad"`)
	p.post(t, "admin", "/settings/merchants/1/newkey").has(t, 200)
	if m, err = p.fleet.Merchant(t.Context(), account.Operator(), 1); err != nil || len(m.AppKey) != 32 {
		t.Errorf("the app key made up is %q, %v", m.AppKey, err)
	}
	p.get(t, "admin", "/settings/example?expiry=s").has(t, 200, "&#34;expired_at&#34;:&#34;1798732799&#34;")
	p.get(t, "admin", "/settings/example?payload=base64").has(t, 200, "!&#34;code&#34;")
	p.get(t, "admin", "/settings/example?signature=percent-encoded").has(t, 200, "23%3A59%3A59")
	p.get(t, "admin", "/settings/merchants/77").has(t, 404)
	p.post(t, "admin", "/settings/merchants/77/key").has(t, 404)
	p.post(t, "admin", "/settings/merchants/77/newkey").has(t, 404)
	p.post(t, "admin", "/settings/forgive", "where", "nowhere").has(t, 422)
	p.get(t, "admin", "/settings?before=junk").has(t, 200)
}

func TestFind(t *testing.T) {
	p := newPeople(t)
	keys := p.issue(t, 2)
	m, err := p.fleet.CreateMerchant(t.Context(), account.Operator(), fleet.Merchant{Name: "Acme"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.fleet.CreateMachine(t.Context(), account.Operator(), fleet.Machine{
		MerchantID: m.ID, No: "16327138", Name: "Lobby", Zone: "Asia/Tokyo", PurchaseLimit: 1,
	}, fleet.NewPassword(), nil); err != nil {
		t.Fatal(err)
	}
	for q, want := range map[string][]string{
		"":      {`href="/ledger"`, `href="/users"`, "!/codes/1"},
		"2":     {`href="/codes/2"`, "!" + keys[1], `role="option"`},
		"ali":   {p.at("alice"), "!" + p.at("bob")},
		"lobby": {"/machines/16327138"},
		"1632":  {"/machines/16327138"},
		"LEDG":  {`href="/ledger"`, "!/users"},
		"sprin": {"/codes?batch=spring", "spring &lt;b&gt;", "!spring <b>"},
		"zzzz":  {"Nothing found"},
		strings.ToUpper(keys[0][:8]) + " " + keys[0][8:]: {`href="/codes/1"`, "!" + keys[0]},
		"\x00":                    {},
		strings.Repeat("x", 3000): {},
	} {
		p.get(t, "admin", "/find?q="+url.QueryEscape(q)).has(t, 200, want...)
	}
}
