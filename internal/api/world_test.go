package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/enginetest"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/storetest"
)

// start is when every test begins.
const start = 1_800_000_000

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// logs collects what is logged, to be searched for what must not be in it.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// member is a user with the token that the tests know.
type member struct {
	id    int64
	name  string
	token string
}

// world is a whole API over the engine under test.
type world struct {
	clock    *clock
	database *enginetest.Database
	db       storetest.Engine
	store    *faulty
	accounts *account.Service
	config   Config
	handler  http.Handler
	server   *httptest.Server
	logs     *logs
	registry *prometheus.Registry
	document *document
	// subscribed is the machine that a broker last let subscribe.
	subscribed atomic.Int64

	root, admin, alice, bob member

	mu      sync.Mutex
	secrets []string
}

type options struct {
	guesses, logins int // limits; 0 for none
	proxies         []netip.Prefix
	ready           func(context.Context) error
	secure          bool
	mute            bool                 // no broker may ask
	database        *enginetest.Database // nil: one of the engine under test
}

func newWorld(tb testing.TB, o options) *world {
	tb.Helper()
	ctx := tb.Context()
	w := &world{
		clock: &clock{t: time.Unix(start, 0)}, logs: &logs{}, registry: prometheus.NewRegistry(), document: openDocument(tb),
	}
	if w.database = o.database; w.database == nil {
		w.database = enginetest.New(tb, tb.TempDir())
	}
	db := w.open(tb, w.database, "a secret for tests")
	w.db = db
	w.store = &faulty{Engine: db}
	w.accounts = account.NewService(w.store, w.limiter("logins", o.logins), w.clock.now)
	w.config = Config{
		Accounts:       w.accounts,
		Redemptions:    redemption.NewService(w.store, db.Keys(), w.limiter("redeems", o.guesses), w.clock.now),
		Fleet:          fleet.NewService(w.store, db.Keys(), w.limiter("machines", o.logins), w.clock.now, nil),
		Pickups:        pickup.NewService(w.store, db.Keys(), w.clock.now, nil),
		Keys:           db.Keys(),
		Log:            slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now:            w.clock.now,
		TrustedProxies: o.proxies,
		Ready:          o.ready,
		Registry:       w.registry,
		Work:           ctx,
		SecureCookies:  o.secure,
		Version:        "test",
		MQTT: MQTT{
			Token: w.secret("the broker's token"), Username: "scrip", Password: w.secret("scrip's MQTT password"),
			Subscribes: func(machine int64) { w.subscribed.Store(machine) },
		},
	}
	if o.mute {
		w.config.MQTT.Token = ""
	}
	w.handler = New(w.config)
	w.server = httptest.NewServer(w.handler)
	tb.Cleanup(w.server.Close)
	w.server.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	tb.Cleanup(func() { w.checkLogs(tb) })

	w.root = member{id: 1, name: "root", token: w.secret(account.NewToken())}
	if made, err := w.accounts.Bootstrap(ctx, w.root.token); err != nil || !made {
		tb.Fatal(made, err)
	}
	w.admin = w.newMember(tb, "admin", account.RoleAdmin)
	w.alice = w.newMember(tb, "alice", account.RoleUser)
	w.bob = w.newMember(tb, "bob", account.RoleUser)
	return w
}

// open opens a handle on a database.
func (w *world) open(tb testing.TB, d *enginetest.Database, secret string) storetest.Engine {
	tb.Helper()
	db, err := d.Open(tb.Context(), storetest.Options{Secrets: []string{secret}, Now: w.clock.now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db
}

// limiter limits guesses as the program does with the engine.
func (w *world) limiter(name string, limit int) *guess.Limiter {
	const window = 10 * time.Minute
	if store, ok := w.db.(guess.Store); ok {
		return guess.Shared(name, limit, window, w.clock.now, store)
	}
	return guess.New(limit, window, w.clock.now)
}

func (w *world) newMember(tb testing.TB, name string, role account.Role) member {
	tb.Helper()
	m := member{name: name, token: w.secret(account.NewToken())}
	u, err := w.accounts.Create(tb.Context(), account.Operator(), account.CreateRequest{
		Username: name, Role: role, Token: m.token,
	})
	if err != nil {
		tb.Fatal(err)
	}
	m.id = u.ID
	return m
}

// secret notes a text that must never be logged.
func (w *world) secret(s string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets = append(w.secrets, s)
	return s
}

func (w *world) checkLogs(tb testing.TB) {
	tb.Helper()
	text := w.logs.text()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.secrets {
		if strings.Contains(text, s) {
			tb.Errorf("the log holds the secret %q", s)
		}
	}
}

// faulty is a store that can be told to fail.
type faulty struct {
	storetest.Engine

	mu     sync.Mutex
	before map[string]func() error // by method: fail without doing anything
	after  map[string]func() error // by method: fail once it is done
}

func (f *faulty) fail(method string, before, after func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before == nil {
		f.before, f.after = map[string]func() error{}, map[string]func() error{}
	}
	f.before[method], f.after[method] = before, after
}

func (f *faulty) run(method string, do func() error) error {
	f.mu.Lock()
	before, after := f.before[method], f.after[method]
	f.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	if after != nil {
		return after()
	}
	return nil
}

func (f *faulty) Redeem(ctx context.Context, a redemption.Attempt) (credited int64, err error) {
	err = f.run("Redeem", func() (err error) { credited, err = f.Engine.Redeem(ctx, a); return err })
	return credited, err
}

func (f *faulty) Issue(ctx context.Context, b redemption.Batch) error {
	return f.run("Issue", func() error { return f.Engine.Issue(ctx, b) })
}

func (f *faulty) Get(ctx context.Context, id int64) (c redemption.Stored, err error) {
	err = f.run("Get", func() (err error) { c, err = f.Engine.Get(ctx, id); return err })
	return c, err
}

func (f *faulty) List(ctx context.Context, q redemption.Query) (rows []redemption.Stored, total int64, err error) {
	err = f.run("List", func() (err error) { rows, total, err = f.Engine.List(ctx, q); return err })
	return rows, total, err
}

func (f *faulty) Purge(ctx context.Context, after int64, by account.Actor, at time.Time) (n, next int64, err error) {
	err = f.run("Purge", func() (err error) { n, next, err = f.Engine.Purge(ctx, after, by, at); return err })
	return n, next, err
}

func (f *faulty) Users(ctx context.Context, offset, limit int64) (users []account.User, total int64, err error) {
	err = f.run("Users", func() (err error) { users, total, err = f.Engine.Users(ctx, offset, limit); return err })
	return users, total, err
}

func (f *faulty) UserByToken(ctx context.Context, token account.Hash) (u account.User, err error) {
	err = f.run("UserByToken", func() (err error) { u, err = f.Engine.UserByToken(ctx, token); return err })
	return u, err
}

func (f *faulty) CreateMerchant(ctx context.Context, n fleet.NewMerchant) (m fleet.StoredMerchant, err error) {
	err = f.run("CreateMerchant", func() (err error) { m, err = f.Engine.CreateMerchant(ctx, n); return err })
	return m, err
}

func (f *faulty) Machine(ctx context.Context, no string) (m fleet.Machine, err error) {
	err = f.run("Machine", func() (err error) { m, err = f.Engine.Machine(ctx, no); return err })
	return m, err
}

func (f *faulty) Login(ctx context.Context, no string) (m fleet.Machine, h account.Hash, err error) {
	err = f.run("Login", func() (err error) { m, h, err = f.Engine.Login(ctx, no); return err })
	return m, h, err
}

func (f *faulty) Speaker(ctx context.Context, no string) (machine int64, m fleet.StoredMerchant, err error) {
	err = f.run("Speaker", func() (err error) { machine, m, err = f.Engine.Speaker(ctx, no); return err })
	return machine, m, err
}

func (f *faulty) CreatePickup(ctx context.Context, o pickup.Order) (c pickup.Stored, err error) {
	err = f.run("CreatePickup", func() (err error) { c, err = f.Engine.CreatePickup(ctx, o); return err })
	return c, err
}

func (f *faulty) Remember(ctx context.Context, once *account.Once) error {
	return f.run("Remember", func() error { return f.Engine.Remember(ctx, once) })
}

// request is one to be made.
type request struct {
	method, path, body string
	as                 member // zero: without credentials
	header             http.Header
	// broken requests are not what the document describes; their answers are.
	broken bool
	// unchecked ones are not held to the document: there are too many of them.
	unchecked bool
}

// reply is the answer to one.
type reply struct {
	status int
	header http.Header
	text   string
	v1     bool
	// envelope has what /api/v1 says in its own form too: its object as the data,
	// a problem's detail as the message.
	envelope
}

type envelopeReply struct {
	Success bool
	Message string
	Code    refusal.Code
	Data    json.RawMessage
}

// do makes a request over HTTP and holds it and its answer to the document.
func (w *world) do(t *testing.T, r request) reply {
	t.Helper()
	reply, err := w.try(t, r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	return reply
}

// try is do for goroutines, which may not end the test.
func (w *world) try(tb testing.TB, r request) (reply, error) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), r.method, w.server.URL+r.path, strings.NewReader(r.body))
	if err != nil {
		return reply{}, err
	}
	v1 := surfaceOf(req.URL.Path) == v1
	if r.as.id != 0 {
		req.Header.Set("Authorization", "Bearer "+r.as.token)
		if !v1 {
			req.Header.Set("New-Api-User", fmt.Sprint(r.as.id))
		}
	}
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(req.Header, r.header)
	resp, err := w.server.Client().Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read to its end
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	out := reply{status: resp.StatusCode, header: resp.Header, text: string(body), v1: v1}
	switch {
	case v1:
		if out.envelope, err = readV1(out); err != nil {
			return reply{}, fmt.Errorf("answer %q: %w", body, err)
		}
	case strings.HasPrefix(req.URL.Path, "/mqtt/"): // in the form of those who ask
	case strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") && len(body) > 0:
		var e envelopeReply
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			return reply{}, fmt.Errorf("answer %q: %w", body, err)
		}
		out.envelope = envelope{Success: e.Success, Message: e.Message, Code: e.Code}
		if e.Data != nil {
			out.Data = e.Data
		}
	}
	if r.unchecked {
		return out, nil
	}
	return out, w.document.check(tb.Context(), req, r, out)
}

// readV1 reads an answer of /api/v1, and holds a problem to its form.
func readV1(r reply) (envelope, error) {
	kind := r.header.Get("Content-Type")
	if r.status < 300 {
		if r.status != http.StatusNoContent && kind != "application/json; charset=utf-8" {
			return envelope{}, errors.New(kind)
		}
		return envelope{Success: true, Data: json.RawMessage(r.text)}, nil
	}
	var p problem
	d := json.NewDecoder(strings.NewReader(r.text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil && r.text != "" {
		return envelope{}, err
	}
	want := problem{
		Type: "about:blank", Title: http.StatusText(r.status), Status: r.status, Detail: p.Detail, Code: p.Code,
		RequestID: r.header.Get("X-Request-Id"),
	}
	if r.header.Get("Idempotency-Replayed") != "" {
		want.RequestID = p.RequestID
	}
	switch {
	case kind != "application/problem+json":
		return envelope{}, errors.New(kind)
	case r.text != "" && p != want: // a HEAD has none
		return envelope{}, fmt.Errorf("want %+v", want)
	case (r.status == 429 || r.status == 503) && r.header.Get("Retry-After") == "":
		return envelope{}, errors.New("no Retry-After")
	case (r.status == 401) != (r.header.Get("WWW-Authenticate") == "Bearer"):
		return envelope{}, errors.New("WWW-Authenticate")
	}
	return envelope{Message: p.Detail, Code: p.Code}, nil
}

// data reads the answer's data.
func data[T any](t *testing.T, r reply) T {
	t.Helper()
	var v T
	raw, _ := r.Data.(json.RawMessage)
	if !r.Success {
		t.Fatalf("refused: %s", r.text)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("data of %s: %v", r.text, err)
	}
	return v
}

// document is the OpenAPI document, and what of it has been exercised.
type document struct {
	doc    *openapi3.T
	router routers.Router

	mu   sync.Mutex
	seen map[string]map[refusal.Code]bool // by operation id; the empty code is success
}

func openDocument(tb testing.TB) *document {
	tb.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		tb.Fatal(err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		tb.Fatal(err)
	}
	return &document{doc: doc, router: router, seen: map[string]map[refusal.Code]bool{}}
}

func noRouteExpected(status int) bool {
	return status == http.StatusNotFound || status == http.StatusMethodNotAllowed
}

func (d *document) check(ctx context.Context, req *http.Request, r request, got reply) error {
	if req.Method == http.MethodHead {
		return nil
	}
	u := *req.URL
	switch u.Path = strings.TrimSuffix(u.Path, "/"); u.Path {
	case "/api/redemption", "/api/user": // the document has the collections with the slash
		u.Path += "/"
	}
	req = req.Clone(ctx)
	req.URL = &u
	route, params, err := d.router.FindRoute(req)
	if err != nil {
		if noRouteExpected(got.status) {
			return nil
		}
		return fmt.Errorf("the document has no such route: %w", err)
	}
	d.mu.Lock()
	if d.seen[route.Operation.OperationID] == nil {
		d.seen[route.Operation.OperationID] = make(map[refusal.Code]bool)
	}
	d.seen[route.Operation.OperationID][got.Code] = true
	d.mu.Unlock()

	req.Body = io.NopCloser(strings.NewReader(r.body))
	in := &openapi3filter.RequestValidationInput{
		Request: req, PathParams: params, Route: route,
		Options: &openapi3filter.Options{
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true,
			ExcludeResponseBody: strings.HasPrefix(got.header.Get("Content-Type"), "text/html"),
		},
	}
	if !r.broken {
		if err := openapi3filter.ValidateRequest(ctx, in); err != nil {
			return fmt.Errorf("the request is not as documented: %w", err)
		}
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: got.status, Header: got.header, Options: in.Options,
	}
	out.SetBodyBytes([]byte(got.text))
	if err := openapi3filter.ValidateResponse(ctx, out); err != nil {
		return fmt.Errorf("the answer %.300q is not as documented: %w", got.text, err)
	}
	if got.Code != "" && !saysAll(got.status) {
		listed, _ := route.Operation.Extensions["x-refusals"].([]any)
		if !slices.Contains(listed, any(string(got.Code))) {
			return fmt.Errorf("the document does not list %s among the refusals of %s", got.Code, route.Operation.OperationID)
		}
	}
	return nil
}

// saysAll reports whether a status alone says what was refused, so that the
// document lists no codes for it.
func saysAll(status int) bool {
	switch status {
	case http.StatusOK, http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity:
		return false
	}
	return true
}

// issue makes codes and returns their keys.
func (w *world) issue(t *testing.T, name string, count int, quota int64) []string {
	t.Helper()
	r := w.do(t, request{
		method: "POST", path: "/api/redemption/", as: w.admin,
		body: fmt.Sprintf(`{"name":%q,"count":%d,"quota":%d}`, name, count, quota),
	})
	keys := data[[]string](t, r)
	for _, k := range keys {
		w.secret(k)
	}
	return keys
}

// find is the code with that key, as an admin sees it.
func (w *world) find(t *testing.T, key string) (redemptionObject, bool) {
	t.Helper()
	p := data[page[redemptionObject]](t, w.do(t, request{
		method: "GET", path: "/api/redemption/search?keyword=" + key, as: w.admin,
	}))
	if len(p.Items) != 1 {
		return redemptionObject{}, false
	}
	return p.Items[0], true
}

func (w *world) mustFind(t *testing.T, key string) redemptionObject {
	t.Helper()
	o, ok := w.find(t, key)
	if !ok {
		t.Fatalf("no code has the key")
	}
	return o
}

func (w *world) topUp(t *testing.T, as member, key string) reply {
	t.Helper()
	return w.do(t, request{method: "POST", path: "/api/user/topup", as: as, body: fmt.Sprintf(`{"key":%q}`, key)})
}

func (w *world) balance(t *testing.T, m member) int64 {
	t.Helper()
	u, err := w.db.UserByID(t.Context(), m.id)
	if err != nil {
		t.Fatal(err)
	}
	return u.Quota
}

// verify walks the ledger: it must be whole, and every balance its sum.
func (w *world) verify(t *testing.T) account.Report {
	t.Helper()
	var report account.Report
	err := w.db.Keys().Use(t.Context(), func(r *keyring.Ring) (err error) {
		report, err = account.Verify(t.Context(), w.db, r.LedgerKey(), nil, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Faults {
		t.Error("ledger:", f)
	}
	return report
}

var errBroken = errors.New("the disk says: no /secret/path today")
