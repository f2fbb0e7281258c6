package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/web"
)

// call is one request on its way through, and the writer of its answer. The
// mux is given the call itself, so that what the mux answers for itself (no
// such route, no such method, a redirect) can be answered in the API's form.
type call struct {
	http.ResponseWriter
	s       *server
	r       *http.Request
	start   time.Time
	id      string
	address string
	surface surface

	route   string // its pattern; empty while none has matched
	metrics *routeMetrics
	plain   bool

	lang   web.Tongue
	user   account.User // zero for anyone
	body   []byte       // once read
	placed bool         // in one of the places for large bodies
	unique *unique      // set with an Idempotency-Key

	status int
	code   refusal.Code
}

// ServeHTTP is the one adapter between the mux and the handlers.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{ResponseWriter: w, s: s, r: withoutSlash(r), start: s.Now(), id: web.RequestID()}
	c.address = s.addresses.Of(r)
	c.surface = surfaceOf(c.r.URL.Path)
	c.lang = s.languages.Match(r.Header, c.surface.tongue())
	v := []string{c.id, "nosniff"}
	w.Header()["X-Request-Id"], w.Header()["X-Content-Type-Options"] = v[0:1:1], v[1:2:2]
	s.mux.ServeHTTP(c, c.r)
	if c.route == "" {
		c.metrics = s.metrics.none(r.Method)
		c.write(c.unmatched())
	}
	c.record(r.Context())
}

// withoutSlash takes the slash from the end of the path. A redirect would do it
// too, and lose the body of a POST in some clients.
func withoutSlash(r *http.Request) *http.Request {
	if len(r.URL.Path) < 2 || !strings.HasSuffix(r.URL.Path, "/") {
		return r
	}
	u := new(url.URL)
	*u = *r.URL
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawPath = strings.TrimSuffix(u.RawPath, "/")
	r2 := new(http.Request)
	*r2 = *r
	r2.URL = u
	return r2
}

// WriteHeader notes the status. What the mux says before a route has matched
// goes no further.
func (c *call) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	if c.route != "" {
		c.ResponseWriter.WriteHeader(status)
	}
}

// Write writes the body, but for the mux's own.
func (c *call) Write(b []byte) (int, error) {
	if c.route == "" {
		return len(b), nil
	}
	if c.status == 0 {
		c.status = http.StatusOK
	}
	return c.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (c *call) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// unmatched is the answer to a request that no route takes. The mux has set
// Allow if it is only the method.
func (c *call) unmatched() answer {
	code := refusal.NoRoute
	if c.status == http.StatusMethodNotAllowed {
		code = refusal.MethodNotAllowed
	}
	c.status = 0
	c.Header().Del("Location")
	return c.refuse(&refusal.Error{Code: code})
}

// serve makes the answer of a route.
func (c *call) serve(ctx context.Context, rt *route) (a answer) {
	defer c.leavePlace()
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p)
		}
		c.logFailure(ctx, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		a = c.refuse(&refusal.Error{Code: rt.failed})
	}()
	a, err := c.try(ctx, rt)
	if err == nil {
		return a
	}
	if e, ok := asRefusal(err); ok {
		return c.explain(e, err)
	}
	c.logFailure(ctx, err)
	return c.refuse(&refusal.Error{Code: rt.failed})
}

// try authenticates, looks at what the caller may do, and only then at the rest.
func (c *call) try(ctx context.Context, rt *route) (answer, error) {
	if err := c.authenticate(ctx, rt.who); err != nil {
		return answer{}, err
	}
	if rt.who != anyone && c.r.Method == http.MethodPost {
		if keys := c.r.Header["Idempotency-Key"]; keys != nil {
			return c.tryOnce(ctx, rt, keys)
		}
	}
	data, err := rt.do(c)
	if err != nil {
		return answer{}, err
	}
	return c.success(data)
}

func (c *call) authenticate(ctx context.Context, who access) error {
	if who == anyone {
		return nil
	}
	u, err := c.sender(ctx)
	if err != nil {
		return err
	}
	c.user = u
	switch who {
	case admins:
		return c.actor().MustBe(account.RoleAdmin)
	case redeemers:
		return c.s.Redemptions.Admit(c.actor())
	case anyone, users:
	}
	return nil
}

// sender finds who sent the request.
func (c *call) sender(ctx context.Context) (account.User, error) {
	if c.surface == v1 {
		return c.bearer(ctx)
	}
	cred := credentials(c.r)
	if cred.UserID <= 0 {
		return account.User{}, refusal.New(refusal.Unauthenticated)
	}
	return c.s.Accounts.Authenticate(ctx, cred)
}

func (c *call) actor() account.Actor {
	return account.Actor{ID: c.user.ID, Role: c.user.Role, Address: c.address}
}

// write sends an answer.
func (c *call) write(a answer) {
	if c.route == "" {
		c.route = noRoute
	}
	c.code = a.code
	h := c.Header()
	// One allocation for all that every answer has, instead of one each.
	v := []string{c.surface.contentType(&a), "no-store", "Accept-Language", a.lang.Tag()}
	h["Content-Type"], h["Cache-Control"] = v[0:1:1], v[1:2:2]
	h["Vary"], h["Content-Language"] = v[2:3:3], v[3:4:4]
	if a.status == http.StatusNoContent {
		h.Del("Content-Type")
	}
	if a.location != "" {
		h.Set("Location", a.location)
	}
	if a.replayed {
		h.Set("Idempotency-Replayed", "true")
	}
	if a.wait > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(a.wait.Seconds())), 10))
	}
	if a.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	c.WriteHeader(a.status)
	_, _ = c.Write(a.body) // a client that is gone needs no answer
}

func (c *call) logFailure(ctx context.Context, err error) {
	level := slog.LevelError
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		level = slog.LevelInfo // nothing failed: the client has left
	}
	c.s.Log.LogAttrs(ctx, level, "request failed",
		slog.String("request_id", c.id), slog.String("route", c.route), slog.Any("error", err))
}

// record logs and counts the request. The path and the query stay out of the
// log: people paste keys into both.
func (c *call) record(ctx context.Context) {
	took := c.s.Now().Sub(c.start)
	c.metrics.observe(c.status, took)
	if c.code != "" {
		c.s.metrics.refused(c.code)
	}
	level := slog.LevelInfo
	if c.plain {
		level = slog.LevelDebug // probes, every few seconds
	}
	if !c.s.Log.Enabled(ctx, level) {
		return
	}
	c.s.Log.LogAttrs(ctx, level, "request",
		slog.String("request_id", c.id),
		slog.String("method", knownMethod(c.r.Method)),
		slog.String("route", c.route),
		slog.Int("status", c.status),
		slog.String("code", string(c.code)),
		slog.Int64("user", c.user.ID),
		slog.String("address", c.address),
		slog.Duration("duration", took))
}
