// Package console is HTTP for people: pages in Chinese, Japanese and English,
// their sessions and assets. A handler reads the request, calls a use case and
// renders; the rules are the domain's. Pages are html/template files in pages/,
// their texts in text/, what browsers load in assets/. Imports: the domain
// packages, web, sheet, x/text, the Prometheus client and the standard library.
package console

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/figures"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/web"
)

// Config is what the console needs of the program around it.
type Config struct {
	Accounts    *account.Service
	Redemptions *redemption.Service
	Fleet       *fleet.Service
	Pickups     *pickup.Service
	Figures     *figures.Service
	// Keys seal what is kept of a form that was sent, so that it is done once.
	Keys *keyring.Keys
	Log  *slog.Logger
	Now  func() time.Time
	// TrustedProxies may say, in X-Forwarded-For, for whom they ask.
	TrustedProxies []netip.Prefix
	// SecureCookies marks cookies Secure also where TLS ends at a proxy.
	SecureCookies bool
	// Work is the life of what goes on when the client who asked for it is gone.
	Work    context.Context
	Version string
	// MQTTAddress is where machines find the broker, as a URL without credentials;
	// empty if there is none.
	MQTTAddress string
	// Database is the name of the kind that it is.
	Database string
	// GuessLimit is how many guesses may fail in a GuessWindow; 0: as many as there are.
	GuessLimit  int
	GuessWindow time.Duration
	// Verifications has the ledger verified.
	Verifications *account.Verifications
}

// routes is every page and what it may be asked to do.
func (s *server) routes() []route {
	return []route{
		{"GET /signin", anyone, s.signInPage},
		{"POST /signin", anyone, s.signIn},
		{"POST /signout", users, s.signOut},
		{"GET /welcome/{link}", anyone, s.welcomePage},
		{"POST /welcome/{link}", anyone, s.welcome},
		{"GET /language", anyone, s.chooseLanguage},

		{"GET /{$}", users, s.overview},
		{"GET /overview/events", admins, s.overviewEvents},

		{"GET /redeem", users, s.redeemPage},
		{"POST /redeem", anyone, s.redeem},
		{"GET /account", users, s.accountPage},
		{"POST /account/name", users, s.setOwnName},
		{"POST /account/password", users, s.setOwnPassword},
		{"POST /account/token", users, s.renewOwnToken},

		{"GET /users", admins, s.usersPage},
		{"GET /users/new", admins, s.newUserPage},
		{"POST /users", admins, s.newUser},
		{"GET /users/{id}", admins, s.userPage},
		{"POST /users/{id}/quota", admins, s.setUserQuota},
		{"POST /users/{id}/name", admins, s.setUserName},
		{"POST /users/{id}/role", admins, s.setUserRole},
		{"POST /users/{id}/status", admins, s.setUserStatus},
		{"POST /users/{id}/token", admins, s.renewUserToken},
		{"POST /users/{id}/link", admins, s.newUserLink},
		{"POST /users/{id}/signout", admins, s.signOutUser},

		{"GET /ledger", admins, s.ledgerPage},
		{"GET /ledger.csv", admins, s.exportLedger},
		{"GET /ledger/verify", admins, s.verificationPage},
		{"POST /ledger/verify", admins, s.startVerification},
		{"POST /ledger/verify/stop", admins, s.stopVerification},

		{"GET /settings", admins, s.serverSettings},
		{"POST /settings/forgive", admins, s.forgive},
		{"GET /settings/example", admins, s.exampleMessage},
		{"GET /settings/merchants/new", admins, s.newMerchantPage},
		{"POST /settings/merchants", admins, s.newMerchant},
		{"GET /settings/merchants/{id}", admins, s.merchantPage},
		{"POST /settings/merchants/{id}", admins, s.changeMerchant},
		{"POST /settings/merchants/{id}/key", admins, s.revealAppKey},
		{"POST /settings/merchants/{id}/newkey", admins, s.newAppKey},

		{"GET /find", admins, s.findAnything},

		{"GET /codes", admins, s.codes},
		{"GET /codes/new", admins, s.newCodes},
		{"POST /codes", admins, s.makeCodes},
		{"POST /codes/many", admins, s.manyCodes},
		{"GET /codes/invalid", admins, s.invalidPage},
		{"POST /codes/invalid", admins, s.removeInvalid},
		{"GET /codes/{id}", admins, s.code},
		{"POST /codes/{id}", admins, s.changeCode},
		{"POST /codes/{id}/key", admins, s.revealCode},
		{"GET /batches", admins, s.batches},
		{"GET /jobs/{id}", admins, s.job},
		{"GET /jobs/{id}/events", admins, s.jobEvents},
		{"POST /jobs/{id}/stop", admins, s.stopJob},
		{"POST /jobs/{id}/codes", admins, s.jobCodes},

		{"GET /machines", admins, s.machines},
		{"GET /machines/events", admins, s.machinesEvents},
		{"GET /machines/new", admins, s.newMachine},
		{"POST /machines", admins, s.addMachine},
		{"GET /machines/{no}", admins, s.machine},
		{"GET /machines/{no}/events", admins, s.machineEvents},
		{"GET /machines/{no}/make", admins, s.newPickup},
		{"POST /machines/{no}/make", admins, s.makePickup},
		{"GET /machines/{no}/pickups/{id}", admins, s.pickupDelivery},
		{"POST /machines/{no}/pickups/{id}/withdraw", admins, s.withdrawPickup},
		{"POST /machines/{no}/late", admins, s.acknowledge},
		{"POST /machines/{no}/late/all", admins, s.acknowledgeOf},
		{"GET /machines/{no}/settings", admins, s.machineSettings},
		{"POST /machines/{no}/settings", admins, s.changeMachine},
		{"POST /machines/{no}/delete", admins, s.deleteMachine},
		{"POST /machines/{no}/products", admins, s.addProduct},
		{"POST /machines/{no}/products/{id}", admins, s.changeProduct},
		{"POST /machines/{no}/products/{id}/delete", admins, s.deleteProduct},
		{"GET /machines/{no}/connection", admins, s.machineConnection},
		{"POST /machines/{no}/connection", admins, s.changeConnection},
		{"GET /machines/{no}/virtual", admins, s.virtual},
		{"POST /machines/{no}/virtual", admins, s.virtual},
		{"GET /late", admins, s.late},
		{"POST /late", admins, s.acknowledge},
	}
}

// access is who may call a route.
type access int

const (
	anyone access = iota
	users
	admins
)

// route is one thing that the console can be asked for.
type route struct {
	pattern string
	who     access
	do      func(*visit) error
}

// server is immutable once made.
type server struct {
	Config
	embedded

	mux       *http.ServeMux
	languages web.Matcher
	refusals  refusals
	addresses *web.Addresses
	live      *live
	sheets    sheets
}

// embedded is what the program carries, the same for all servers.
type embedded struct {
	assets assets
	texts  texts
	pages  pages
}

// load reads it, once.
var load = sync.OnceValues(func() (e embedded, err error) { //nolint:gochecknoglobals // it does not change
	if e.assets, err = loadAssets(); err != nil {
		return e, err
	}
	if e.texts, err = loadTexts(); err != nil {
		return e, err
	}
	e.pages, err = loadPages(e.texts, e.assets)
	return e, err
})

// New returns the console as one handler.
func New(c Config) (http.Handler, error) {
	s := &server{
		Config: c, mux: http.NewServeMux(), languages: web.NewMatcher(), refusals: newRefusals(),
		addresses: web.NewAddresses(c.Log, c.TrustedProxies), live: newLive(c.Work, c.Log, c.Now),
		sheets: newSheets(),
	}
	var err error
	if s.embedded, err = load(); err != nil {
		return nil, err
	}
	for _, rt := range s.routes() {
		s.mux.HandleFunc(rt.pattern, s.handle(rt))
	}
	s.mux.Handle("GET /assets/", s.assets)
	s.mux.HandleFunc("/", s.handle(route{"/", anyone, s.nothing}))
	return http.NewCrossOriginProtection().Handler(s.mux), nil
}
