// Package api is HTTP for programs: the redemption and user routes that existing
// clients of the redemption API call, /api/v1 with merchants, machines, products
// and pickup codes, and what operators read (health, metrics, the OpenAPI
// document). It decodes, calls one use case, and encodes; the rules are the
// domain's. Imports: the domain packages, x/text, the Prometheus client and the
// standard library.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/web"
)

// Config is what the API needs of the program around it.
type Config struct {
	Accounts    *account.Service
	Redemptions *redemption.Service
	Fleet       *fleet.Service
	Pickups     *pickup.Service
	// Keys seal the answers that are kept for an Idempotency-Key.
	Keys *keyring.Keys
	Log  *slog.Logger
	Now  func() time.Time
	// TrustedProxies may say, in X-Forwarded-For, for whom they ask.
	TrustedProxies []netip.Prefix
	// Ready says whether every part of the program does its work. What it says
	// in a NotReady is shown; the text of any other error is only logged.
	Ready    func(context.Context) error
	Registry *prometheus.Registry
	// Work is the life of what goes on when the client who asked for it is gone.
	Work context.Context
	// SecureCookies marks session cookies Secure also where TLS ends at a proxy.
	SecureCookies bool
	Version       string
	MQTT          MQTT
}

// NotReady is a reason for not being ready that anyone may read.
type NotReady string

// Error returns the reason.
func (n NotReady) Error() string { return string(n) }

// routes is the whole drop-in surface. Each path also answers with a slash at
// its end. The last column is what a failure inside Scrip is answered with.
func (s *server) routes() []route {
	return []route{
		{"GET /api/redemption", admins, s.listCodes, refusal.RedemptionListFailed},
		{"GET /api/redemption/search", admins, s.searchCodes, refusal.RedemptionSearchFailed},
		{"GET /api/redemption/{id}", admins, s.getCode, refusal.Unavailable},
		{"POST /api/redemption", admins, s.issueCodes, refusal.Unavailable},
		{"PUT /api/redemption", admins, s.changeCode, refusal.Unavailable},
		{"DELETE /api/redemption/invalid", admins, s.deleteInvalidCodes, refusal.RedemptionDeleteFailed},
		{"DELETE /api/redemption/{id}", admins, s.deleteCode, refusal.Unavailable},

		{"POST /api/user/topup", redeemers, s.topUp, refusal.Unavailable},
		{"GET /api/user/self", users, s.getSelf, refusal.Unavailable},
		{"GET /api/user/token", users, s.renewToken, refusal.Unavailable},
		{"POST /api/user/login", anyone, s.login, refusal.Unavailable},
		{"GET /api/user", admins, s.listUsers, refusal.Unavailable},
		{"GET /api/user/{id}", admins, s.getUser, refusal.Unavailable},
		{"POST /api/user", admins, s.createUser, refusal.Unavailable},
	}
}

// plainRoutes are those that answer in other forms than the envelope.
func (s *server) plainRoutes() []plainRoute {
	return []plainRoute{
		{"GET /healthz", s.healthz},
		{"GET /readyz", s.readyz},
		{"GET /metrics", s.metrics.handler()},
		{"POST /mqtt/auth", s.asked(s.mayLogIn)},
		{"POST /mqtt/acl", s.asked(s.mayUse)},
		{"GET /openapi.yaml", asset("application/yaml", openAPI)},
		{"GET /docs", asset("text/html; charset=utf-8", docsPage)},
		{"GET /docs/style.css", asset("text/css; charset=utf-8", docsStyle)},
	}
}

// Serves reports whether a path is one of the API's: all that begin like a route
// of it.
func Serves(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "api", "mqtt", "healthz", "readyz", "metrics", "openapi.yaml", "docs":
		return true
	}
	return false
}

// access is who may call a route.
type access int

const (
	anyone access = iota
	users
	redeemers // users who have not guessed too many keys
	admins
)

type route struct {
	pattern string
	who     access
	// do does the request's work and returns the answer's data; nil for none.
	do func(*call) (any, error)
	// failed is what to say when Scrip itself has failed.
	failed refusal.Code
}

type plainRoute struct {
	pattern string
	do      http.HandlerFunc
}

// server is immutable once made, but for what it has warned of and what is
// under way.
type server struct {
	Config

	mux       *http.ServeMux
	metrics   *metrics
	refusals  map[refusal.Code]refusalAnswer
	hints     map[hint]web.Words
	languages web.Matcher
	addresses *web.Addresses
	places    chan struct{} // for large bodies
	runs      runs
}

// New returns the API as one handler.
func New(c Config) http.Handler {
	s := &server{
		Config:    c,
		mux:       http.NewServeMux(),
		metrics:   newMetrics(c.Registry, c.Version),
		refusals:  refusalAnswers(),
		hints:     hints(),
		languages: web.NewMatcher(),
		addresses: web.NewAddresses(c.Log, c.TrustedProxies),
		places:    make(chan struct{}, largeBodies),
		runs:      runs{bodies: make(map[account.Hash]account.Hash)},
	}
	for _, rt := range append(s.routes(), s.routesV1()...) {
		m := s.metrics.route(rt.pattern)
		s.mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) {
			c := w.(*call) // ServeHTTP passes nothing else
			c.route, c.metrics = rt.pattern, m
			c.write(c.serve(r.Context(), &rt))
		})
	}
	for _, rt := range s.plainRoutes() {
		m := s.metrics.route(rt.pattern)
		s.mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) {
			c := w.(*call) // as above
			c.route, c.metrics, c.plain = rt.pattern, m, true
			rt.do(c, r)
		})
	}
	// A GET pattern answers HEAD too. Here that would replace the token and show
	// nobody the new one.
	s.mux.HandleFunc("HEAD /api/user/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", http.MethodGet)
		w.WriteHeader(http.StatusMethodNotAllowed)
	})
	return s
}
