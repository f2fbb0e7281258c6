package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/web"
)

// TestBodies: what is no JSON object of the right types is refused before
// anything is done with it.
func TestBodies(t *testing.T) {
	w := newWorld(t, options{})
	deep := `{"key":"x","more":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`
	cases := map[string]refusal.Code{
		"":                               refusal.InvalidJSON,
		" \n":                            refusal.InvalidJSON,
		"{":                              refusal.InvalidJSON,
		"}":                              refusal.InvalidJSON,
		"key":                            refusal.InvalidJSON,
		"{'key':'x'}":                    refusal.InvalidJSON,
		`{"key":"x",}`:                   refusal.InvalidJSON,
		`{"key":"x"} x`:                  refusal.InvalidJSON,
		`{"key":"x"}{"key":"y"}`:         refusal.InvalidJSON,
		`{"key":"x"}` + "\n[]":           refusal.InvalidJSON,
		`{"key":"x"} null`:               refusal.InvalidJSON,
		"\ufeff" + `{"key":"x"}`:         refusal.InvalidJSON,
		"{\"key\":\"a\nb\"}":             refusal.InvalidJSON,
		`{"key":"x","n":01}`:             refusal.InvalidJSON,
		`{"key":"x","n":NaN}`:            refusal.InvalidJSON,
		"key=x&key=y":                    refusal.InvalidJSON,
		deep:                             refusal.InvalidJSON,
		"null":                           refusal.InvalidRequest,
		"5":                              refusal.InvalidRequest,
		`"key"`:                          refusal.InvalidRequest,
		"true":                           refusal.InvalidRequest,
		` [{"key":"x"}]`:                 refusal.InvalidRequest,
		"[]":                             refusal.InvalidRequest,
		`{"key":5}`:                      refusal.InvalidRequest,
		`{"key":{}}`:                     refusal.InvalidRequest,
		`{"key":["x"]}`:                  refusal.InvalidRequest,
		`{"key":false}`:                  refusal.InvalidRequest,
		"{\"key\":\"\xff\"}":             refusal.NotUTF8,
		"\xfe\xff\x00{":                  refusal.NotUTF8,
		"{\"key\":\"x\",\"\xc0\x80\":1}": refusal.NotUTF8,
		`{"key":"unknown","more":{"a":[1,2.5,1e99]},"key2":null}`: refusal.RedemptionUnknown,
		" \t\r\n{\"key\":\"unknown\"}\n ":                         refusal.RedemptionUnknown,
	}
	for body, code := range cases {
		name := body
		if len(name) > 40 {
			name = name[:40]
		}
		t.Run(name, func(t *testing.T) {
			r := w.do(t, request{method: "POST", path: "/api/user/topup", as: w.alice, body: body, broken: true})
			(&scenario{code: code}).check(t, r)
		})
	}
	for _, number := range []string{"100.0", "1e2", "1E2", `"5"`, "true", "[]", "{}", "9223372036854775808", "-9223372036854775809", "1e400"} {
		for _, member := range []string{"count", "quota", "expired_time"} {
			t.Run(member+" "+number, func(t *testing.T) {
				r := w.do(t, request{
					method: "POST", path: "/api/redemption/", as: w.admin, broken: true,
					body: fmt.Sprintf(`{"name":"x","count":1,"quota":1,%q:%s}`, member, number),
				})
				(&scenario{
					code: refusal.InvalidRequest, message: "参数 " + member + " 必须是 64 位范围内的整数，不带引号、小数点和指数",
				}).check(t, r)
			})
		}
	}
	t.Run("whatever the Content-Type", func(t *testing.T) {
		for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "nonsense"} {
			r := w.do(t, request{
				method: "POST", path: "/api/user/topup", as: w.alice, body: `{"key":"unknown"}`, broken: true,
				header: http.Header{"Content-Type": {kind}},
			})
			(&scenario{code: refusal.RedemptionUnknown}).check(t, r)
		}
	})
	if p := data[page[redemptionObject]](t, w.do(t, request{method: "GET", path: "/api/redemption/", as: w.admin})); p.Total != 0 {
		t.Errorf("%d codes were made", p.Total)
	}
}

func TestBodySize(t *testing.T) {
	w := newWorld(t, options{})
	pad := func(size int) string { return `{"key":"unknown"}` + strings.Repeat(" ", size-len(`{"key":"unknown"}`)) }
	post := request{method: "POST", path: "/api/user/topup", as: w.alice, body: pad(bodyMax)}
	(&scenario{code: refusal.RedemptionUnknown}).check(t, w.do(t, post))

	post.broken = true
	for _, size := range []int{bodyMax + 1, bodyMax + 1000, 2 * bodyMax} {
		post.body = pad(size)
		(&scenario{status: 413, code: refusal.BodyTooLarge}).check(t, w.do(t, post))
	}
	// Of no length known beforehand.
	req := httptest.NewRequestWithContext(t.Context(), "POST", "/api/user/topup",
		io.MultiReader(strings.NewReader(pad(bodyMax)), strings.NewReader(" ")))
	req.Header.Set("Authorization", w.alice.token)
	req.Header.Set("New-Api-User", fmt.Sprint(w.alice.id))
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, req)
	if rec.Code != http.StatusRequestEntityTooLarge || !strings.Contains(rec.Body.String(), `"success":false`) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	// One that breaks off.
	req = httptest.NewRequestWithContext(t.Context(), "POST", "/api/user/topup",
		io.MultiReader(strings.NewReader(`{"key":`), brokenReader{}))
	req.Header.Set("Authorization", w.alice.token)
	req.Header.Set("New-Api-User", fmt.Sprint(w.alice.id))
	rec = httptest.NewRecorder()
	w.handler.ServeHTTP(rec, req)
	if rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), `"code":"invalid_request"`) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

// TestLargeBodies: they are read in so many places and no more, while small
// ones need none.
func TestLargeBodies(t *testing.T) {
	w := newWorld(t, options{})
	login := func(body io.Reader) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "POST", "/api/user/login", body))
		return rec
	}
	large := `{"username":"x","password":"y"}` + strings.Repeat(" ", bodySmall)
	var slow sync.WaitGroup
	var ends []*io.PipeWriter
	for range largeBodies {
		r, end := io.Pipe()
		ends = append(ends, end)
		slow.Go(func() {
			if rec := login(r); !strings.Contains(rec.Body.String(), `"code":"user_wrong_password"`) {
				t.Errorf("%d %s", rec.Code, rec.Body)
			}
		})
		// Its end is read in a place only.
		if _, err := io.WriteString(end, large); err != nil {
			t.Fatal(err)
		}
	}
	for name, body := range map[string]io.Reader{
		"of a known length": strings.NewReader(large),
		"that grows":        io.MultiReader(strings.NewReader(large)),
		"too large":         strings.NewReader(strings.Repeat(" ", bodyMax+1)),
	} {
		rec := login(body)
		if rec.Code != http.StatusTooManyRequests || rec.Header().Get("Retry-After") != "1" ||
			!strings.Contains(rec.Body.String(), `"code":"too_busy"`) {
			t.Errorf("%s: %d %v %s", name, rec.Code, rec.Header(), rec.Body)
		}
	}
	small := request{method: "POST", path: "/api/user/login", body: large[:bodySmall]}
	(&scenario{code: refusal.AccountWrongPassword}).check(t, w.do(t, small))
	for _, end := range ends {
		if err := end.Close(); err != nil {
			t.Error(err)
		}
	}
	slow.Wait()
	small.body = large
	(&scenario{code: refusal.AccountWrongPassword}).check(t, w.do(t, small)) // the places are free again
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestNoSuchRoute: 404 and 405 have the envelope too, and nothing redirects.
func TestNoSuchRoute(t *testing.T) {
	w := newWorld(t, options{})
	w.server.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, path := range []string{
		"/", "/api", "/api/", "/api/redemptions", "/api/redemption/1/2", "/api//redemption/", "//api/redemption/",
		"/api/redemption//", "/api/./redemption/", "/api/user/../redemption/", "/API/redemption/", "/docs/x", "/metrics/x",
		"/api/user/self/x", "/favicon.ico",
	} {
		r := w.do(t, request{method: "GET", path: path, as: w.root, unchecked: true})
		t.Run(path, func(t *testing.T) {
			(&scenario{status: 404, code: refusal.NoRoute}).check(t, r)
			if r.header.Get("Location") != "" {
				t.Error("a redirect:", r.header)
			}
		})
	}
	for _, c := range []struct{ method, path, allow string }{
		{"PATCH", "/api/redemption/", "GET, HEAD, POST, PUT"},
		{"DELETE", "/api/redemption", "GET, HEAD, POST, PUT"},
		{"PUT", "/api/redemption/5", "DELETE, GET, HEAD"},
		{"POST", "/api/redemption/search", "DELETE, GET, HEAD"},
		{"OPTIONS", "/api/user/self", "GET, HEAD"},
		{"BREW", "/api/user/", "GET, HEAD, POST"},
		{"PUT", "/api/user/topup/", "GET, HEAD, POST"},
		{"POST", "/healthz", "GET, HEAD"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			r := w.do(t, request{method: c.method, path: c.path, as: w.root, unchecked: true})
			(&scenario{status: 405, code: refusal.MethodNotAllowed}).check(t, r)
			if r.header.Get("Allow") != c.allow {
				t.Errorf("Allow %q, want %q", r.header.Get("Allow"), c.allow)
			}
		})
	}
}

func TestLanguages(t *testing.T) {
	w := newWorld(t, options{})
	texts := web.Messages()[refusal.RedemptionNotFound]
	for accept, want := range map[string]web.Tongue{
		"": web.Chinese, "zh": web.Chinese, "zh-CN,zh;q=0.9,en;q=0.8": web.Chinese, "zh-TW": web.Chinese, "*": web.Chinese, "fr": web.Chinese, "xx": web.Chinese,
		"en": web.English, "en-GB,en;q=0.9": web.English, "fr-FR, en;q=0.5, ja;q=0.4": web.English, "EN-us": web.English,
		"ja": web.Japanese, "ja-JP,ja;q=0.9,en-US;q=0.8": web.Japanese, "en;q=0.1,ja": web.Japanese,
		"garbage;;;q=": web.Chinese, strings.Repeat("en,", 300): web.Chinese,
	} {
		r := w.do(t, request{
			method: "GET", path: "/api/redemption/77", as: w.admin, header: http.Header{"Accept-Language": {accept}},
		})
		if r.Message != texts.In(want) || r.header.Get("Content-Language") != want.Tag() || r.header.Get("Vary") != "Accept-Language" {
			t.Errorf("%q: %s in %q", accept, r.text, r.header.Get("Content-Language"))
		}
	}
	for accept, want := range map[string]string{
		"en": "quota must be a whole number that fits 64 bits, without quotes, decimal point or exponent.",
		"ja": "quota は 64 ビットに収まる整数で、引用符・小数点・指数を付けずに指定してください",
	} {
		r := w.do(t, request{
			method: "POST", path: "/api/redemption/", as: w.admin, broken: true, body: `{"quota":"5"}`,
			header: http.Header{"Accept-Language": {accept}},
		})
		if r.Message != want {
			t.Errorf("%s: %s", accept, r.Message)
		}
	}
}

// TestFailures: a failure inside Scrip is answered with the documented message
// and HTTP 200; what it was stands in the log, under the request's id.
func TestFailures(t *testing.T) {
	w := newWorld(t, options{})
	key := w.issue(t, "codes", 1, 5)[0]
	id := w.mustFind(t, key).ID
	fail := func() error { return errBroken }
	crash := func() error { panic(errBroken) }
	for _, c := range []struct {
		broken string
		r      request
		code   refusal.Code
		zh     string
	}{
		{"List", request{method: "GET", path: "/api/redemption/", as: w.admin}, refusal.RedemptionListFailed, "获取兑换码列表失败"},
		{"List", request{method: "GET", path: "/api/redemption/search?keyword=x", as: w.admin}, refusal.RedemptionSearchFailed, "搜索兑换码失败"},
		{"Purge", request{method: "DELETE", path: "/api/redemption/invalid", as: w.admin}, refusal.RedemptionDeleteFailed, "删除失败"},
		{"Get", request{method: "GET", path: fmt.Sprintf("/api/redemption/%d", id), as: w.admin}, refusal.Unavailable, ""},
		{"Issue", request{method: "POST", path: "/api/redemption/", as: w.admin, body: `{"name":"x","count":1,"quota":1}`}, refusal.Unavailable, ""},
		{"Redeem", request{method: "POST", path: "/api/user/topup", as: w.alice, body: `{"key":"` + key + `"}`}, refusal.Unavailable, ""},
		{"Users", request{method: "GET", path: "/api/user/", as: w.admin}, refusal.Unavailable, ""},
		{"UserByToken", request{method: "GET", path: "/api/user/self", as: w.alice}, refusal.Unavailable, ""},
		{"UserByToken", request{method: "GET", path: "/api/redemption/", as: w.admin}, refusal.RedemptionListFailed, "获取兑换码列表失败"},
	} {
		for name, hook := range map[string]func() error{"error": fail, "panic": crash} {
			if c.broken == "Purge" && name == "panic" {
				continue // it runs beside the request
			}
			t.Run(c.broken+" "+name+" "+c.r.path, func(t *testing.T) {
				w.store.fail(c.broken, hook, nil)
				defer w.store.fail(c.broken, nil, nil)
				r := w.do(t, c.r)
				(&scenario{code: c.code, message: c.zh, hasNot: []string{"disk", "secret/path", "panic"}}).check(t, r)
				line := "request_id=" + r.header.Get("X-Request-Id")
				if !slices.ContainsFunc(strings.Split(w.logs.text(), "\n"), func(l string) bool {
					return strings.Contains(l, line) && strings.Contains(l, "level=ERROR") && strings.Contains(l, errBroken.Error())
				}) {
					t.Error("the log does not have the cause")
				}
			})
		}
	}
	(&scenario{has: []string{`"data":5`}}).check(t, w.topUp(t, w.alice, key))
}

// TestLeavingClient: a client that leaves is no failure, and a removal that it
// began goes on.
func TestLeavingClient(t *testing.T) {
	w := newWorld(t, options{})
	for _, k := range w.issue(t, "codes", 3, 5) {
		w.topUp(t, w.alice, k)
	}
	began, goOn := make(chan struct{}, 8), make(chan struct{})
	w.store.fail("Purge", func() error {
		began <- struct{}{}
		<-goOn
		return nil
	}, nil)
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		req, err := http.NewRequestWithContext(ctx, "DELETE", w.server.URL+"/api/redemption/invalid", nil)
		if err != nil {
			gone <- err
			return
		}
		req.Header.Set("Authorization", w.admin.token)
		req.Header.Set("New-Api-User", fmt.Sprint(w.admin.id))
		resp, err := w.server.Client().Do(req)
		if err == nil {
			err = errors.Join(errors.New("it was answered"), resp.Body.Close())
		}
		gone <- err
	}()
	<-began
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(goOn)
	(&scenario{}).check(t, w.do(t, request{method: "DELETE", path: "/api/redemption/invalid", as: w.admin}))
	if p := data[page[redemptionObject]](t, w.do(t, request{method: "GET", path: "/api/redemption/", as: w.admin})); p.Total != 0 {
		t.Errorf("%d are left", p.Total)
	}
	if strings.Contains(w.logs.text(), "level=ERROR") {
		t.Error("the log speaks of an error")
	}
}

func TestSessions(t *testing.T) {
	w := newWorld(t, options{})
	create := request{
		method: "POST", path: "/api/user/", as: w.admin,
		body: `{"username":"carol","password":"` + w.secret("correct horse battery") + `"}`,
	}
	(&scenario{}).check(t, w.do(t, create))
	login := request{method: "POST", path: "/api/user/login", body: `{"username":" carol ","password":"correct horse battery"}`}
	r := w.do(t, login)
	carol := data[userObject](t, r)
	resp := http.Response{Header: r.header}
	if len(resp.Cookies()) != 1 {
		t.Fatal(r.header)
	}
	c := resp.Cookies()[0]
	w.secret(c.Value)
	if c.Name != "scrip_session" || len(c.Value) != 32 || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" ||
		c.Secure || c.MaxAge != int(account.SessionFor.Seconds()) {
		t.Errorf("%+v", c)
	}

	self := func(cookie, id, token string) request {
		h := http.Header{"Cookie": {"scrip_session=" + cookie}}
		if id != "" {
			h.Set("New-Api-User", id)
		}
		if token != "" {
			h.Set("Authorization", token)
		}
		return request{method: "GET", path: "/api/user/self", header: h}
	}
	id := fmt.Sprint(carol.ID)
	good := scenario{has: []string{`"username":"carol"`}, hasNot: []string{c.Value}}
	bad := scenario{status: 401, code: refusal.Unauthenticated}
	good.check(t, w.do(t, self(c.Value, id, "")))
	good.check(t, w.do(t, self(c.Value, id, "Bearer ")))
	bad.check(t, w.do(t, self(c.Value, "", "")))
	bad.check(t, w.do(t, self(c.Value, "1", "")))
	bad.check(t, w.do(t, self(c.Value, "0", "")))
	bad.check(t, w.do(t, self(c.Value, "x", "")))
	bad.check(t, w.do(t, self("", id, "")))
	bad.check(t, w.do(t, self(strings.Repeat("0", 32), id, "")))
	bad.check(t, w.do(t, self(c.Value, id, "wrong"))) // a token, if there is one, is what counts

	// A session may do what its user may: redeem, but not list codes.
	key := w.issue(t, "codes", 1, 5)[0]
	h := self(c.Value, id, "").header
	(&scenario{has: []string{`"data":5`}}).check(t, w.do(t, request{method: "POST", path: "/api/user/topup", body: `{"key":"` + key + `"}`, header: h}))
	(&scenario{status: 403, code: refusal.Forbidden}).check(t, w.do(t, request{method: "GET", path: "/api/redemption/", header: h}))

	// A new token leaves the session alone.
	(&scenario{}).check(t, w.do(t, request{method: "GET", path: "/api/user/token", header: h}))
	good.check(t, w.do(t, self(c.Value, id, "")))
	w.clock.advance(account.SessionFor - time.Second)
	good.check(t, w.do(t, self(c.Value, id, "")))
	w.clock.advance(time.Second)
	bad.check(t, w.do(t, self(c.Value, id, "")))

	// The disabled are told so if they know the password, and get no session.
	if err := w.accounts.SetStatus(t.Context(), account.Operator(), carol.ID, account.StatusDisabled); err != nil {
		t.Fatal(err)
	}
	(&scenario{code: refusal.AccountDisabled, then: noCookie}).check(t, w.do(t, login))
	login.body = `{"username":"carol","password":"incorrect horse"}`
	(&scenario{code: refusal.AccountWrongPassword, then: noCookie}).check(t, w.do(t, login))
}

func TestSecureCookies(t *testing.T) {
	w := newWorld(t, options{secure: true})
	w.do(t, request{method: "POST", path: "/api/user/", as: w.admin, body: `{"username":"carol","password":"correct horse battery"}`})
	r := w.do(t, request{method: "POST", path: "/api/user/login", body: `{"username":"carol","password":"correct horse battery"}`})
	if c := r.header.Get("Set-Cookie"); !strings.Contains(c, "; Secure") {
		t.Error("the cookie is not marked Secure")
	}
}

func TestReady(t *testing.T) {
	var err error
	w := newWorld(t, options{ready: func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			return errors.New("no deadline")
		}
		return err
	}})
	get := request{method: "GET", path: "/readyz"}
	if r := w.do(t, get); r.status != http.StatusOK || r.text != "ok\n" {
		t.Errorf("%d %s", r.status, r.text)
	}
	err = NotReady("starting")
	if r := w.do(t, get); r.status != http.StatusServiceUnavailable || r.text != "not ready: starting\n" {
		t.Errorf("%d %s", r.status, r.text)
	}
	err = errBroken
	if r := w.do(t, get); r.status != http.StatusServiceUnavailable || r.text != "not ready: the database does not answer\n" {
		t.Errorf("%d %s", r.status, r.text)
	}
	if !strings.Contains(w.logs.text(), errBroken.Error()) {
		t.Error("the log does not have the cause")
	}
}

// TestDocs: the page may load its style from here, and nothing else.
func TestDocs(t *testing.T) {
	w := newWorld(t, options{})
	r := w.do(t, request{method: "GET", path: "/docs/"})
	policy := r.header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'self';") || strings.Contains(policy, "unsafe") {
		t.Error(policy)
	}
	if r := w.do(t, request{method: "GET", path: "/docs/style.css", unchecked: true}); r.status != 200 ||
		strings.Contains(r.text, "url(") || strings.Contains(r.text, "@import") {
		t.Error(r.status)
	}
	if r := w.do(t, request{method: "HEAD", path: "/docs"}); r.status != 200 || r.text != "" {
		t.Error(r.status)
	}
}

// TestMetrics: requests are counted, and no request can make a label.
func TestMetrics(t *testing.T) {
	w := newWorld(t, options{})
	for i := range 50 {
		w.do(t, request{method: fmt.Sprintf("M%d", i), path: fmt.Sprintf("/%d", i), unchecked: true})
		w.do(t, request{method: "GET", path: fmt.Sprintf("/api/redemption/%d", i), as: w.admin})
	}
	text := w.do(t, request{method: "GET", path: "/metrics"}).text
	for _, want := range []string{
		`scrip_http_requests_total{method="other",route="none",status="404"} 50`,
		`scrip_http_requests_total{method="GET",route="GET /api/redemption/{id}",status="200"} 50`,
		`scrip_refusals_total{code="redemption_not_found"} 50`,
		`scrip_refusals_total{code="no_route"} 50`,
		`scrip_http_request_seconds_count{route="GET /api/redemption/{id}"} 50`,
		`scrip_build_info{version="test"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if n := strings.Count(text, "scrip_http_requests_total{"); n > 42 {
		t.Errorf("%d series", n)
	}
}

// TestRequestLog: a request's line says who and where, and not what was sent.
func TestRequestLog(t *testing.T) {
	w := newWorld(t, options{})
	key := w.issue(t, "codes", 1, 5)[0]
	w.do(t, request{method: "GET", path: "/api/redemption/search?keyword=" + key, as: w.admin})
	w.do(t, request{method: "GET", path: "/api/redemption/" + key, as: w.admin, broken: true})
	w.do(t, request{method: "GET", path: "/" + key, unchecked: true})
	r := w.topUp(t, w.alice, key)
	w.topUp(t, w.bob, key)
	text := w.logs.text()
	for _, want := range []string{
		fmt.Sprintf(`request_id=%s method=POST route="POST /api/user/topup" status=200 code="" user=%d address=127.0.0.1 duration=0s`,
			r.header.Get("X-Request-Id"), w.alice.id),
		fmt.Sprintf("code=redemption_used user=%d", w.bob.id),
		"route=none status=404 code=no_route user=0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestUntrustedProxy: the header is ignored, with one warning.
func TestUntrustedProxy(t *testing.T) {
	w := newWorld(t, options{guesses: 2})
	for i := range 4 {
		r := w.do(t, request{
			method: "POST", path: "/api/user/topup", as: w.alice, body: `{"key":"unknown"}`,
			header: http.Header{"X-Forwarded-For": {fmt.Sprintf("198.51.100.%d", i)}},
		})
		want := http.StatusOK
		if i >= 2 {
			want = http.StatusTooManyRequests
		}
		if r.status != want {
			t.Errorf("%d: status %d", i, r.status)
		}
	}
	if n := strings.Count(w.logs.text(), "forwarding header"); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// TestTrustedProxy: guesses count against the client behind it, and the ledger
// names that one.
func TestTrustedProxy(t *testing.T) {
	w := newWorld(t, options{guesses: 2, proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	try := func(as member, key, from string) reply {
		t.Helper()
		return w.do(t, request{
			method: "POST", path: "/api/user/topup", as: as, body: `{"key":"` + key + `"}`,
			header: http.Header{"X-Forwarded-For": {"203.0.113.99, " + from}},
		})
	}
	limited := scenario{status: 429, code: refusal.AccountTooManyGuesses}
	unknown := scenario{code: refusal.RedemptionUnknown}
	unknown.check(t, try(w.alice, "unknown", "2001:db8:0:1::1"))
	unknown.check(t, try(w.alice, "unknown", "2001:db8:0:1::1"))
	key := w.issue(t, "codes", 1, 5)[0]
	limited.check(t, try(w.bob, key, "2001:db8:0:1:ffff::2")) // the same /64
	limited.check(t, try(w.alice, key, "2001:db8:0:2::1"))    // the same account
	(&scenario{}).check(t, try(w.bob, key, "2001:db8:0:2::1"))
	entries, err := w.accounts.Ledger(t.Context(), account.Operator(), account.LedgerFilter{UserID: w.bob.id, Limit: 1})
	if err != nil || len(entries) != 1 || entries[0].Address != "2001:db8:0:2::1" {
		t.Errorf("%+v %v", entries, err)
	}
	if strings.Contains(w.logs.text(), "forwarding header") {
		t.Error("a warning")
	}
}

// TestSilentProxy: a trusted proxy that does not say for whom it asks makes all
// clients one, which is warned of once; what its machine asks for itself is not.
func TestSilentProxy(t *testing.T) {
	w := newWorld(t, options{proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	const warning = "without X-Forwarded-For"
	w.do(t, request{method: "GET", path: "/healthz"})
	if strings.Contains(w.logs.text(), warning) {
		t.Error("a probe is warned of")
	}
	for range 3 {
		w.do(t, request{
			method: "GET", path: "/api/user/self", as: w.alice, header: http.Header{"X-Real-Ip": {"198.51.100.7"}},
		})
	}
	if n := strings.Count(w.logs.text(), warning); n != 1 {
		t.Errorf("%d warnings", n)
	}
}
