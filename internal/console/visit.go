package console

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
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

// The console's cookies.
const (
	sessionCookie  = "scrip_session" // the API's too
	languageCookie = "scrip_lang"
	themeCookie    = "scrip_theme" // written by the page's script
	zoneCookie     = "scrip_zone"  // likewise: the browser's time zone
	saidCookie     = "scrip_said"
)

const (
	formMax     = 64 << 10 // bytes
	cookieFor   = 365 * 24 * time.Hour
	saidFor     = time.Minute
	saidTextMax = 1024
	stepTimeout = 30 * time.Second // for one step of a long answer to be made and read
)

// visit is one request on its way through.
type visit struct {
	s       *server
	w       http.ResponseWriter
	r       *http.Request
	id      string
	address string
	lang    web.Tongue
	user    account.User // zero for anyone
	session string
	status  int
	gone    bool // nobody reads the answer any more
}

// handle is the one adapter between the mux and the handlers.
func (s *server) handle(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := s.Now()
		v := &visit{s: s, r: r, id: web.RequestID(), address: s.addresses.Of(r), lang: s.language(r)}
		v.w = &statusWriter{ResponseWriter: w, status: &v.status, gone: &v.gone}
		v.guard()
		err := v.try(rt) //nolint:contextcheck // a visit carries its request's
		half := err != nil && v.status != 0
		if err != nil {
			v.fail(err) //nolint:contextcheck // likewise
		}
		s.Log.LogAttrs(r.Context(), slog.LevelInfo, "request",
			slog.String("request_id", v.id), slog.String("method", r.Method), slog.String("route", rt.pattern),
			slog.Int("status", v.status), slog.Int64("user", v.user.ID), slog.String("address", v.address),
			slog.Duration("duration", s.Now().Sub(start)))
		if half {
			panic(http.ErrAbortHandler) // who reads it is to see that it is not whole
		}
	}
}

// guard says what a page may load and who may show it.
func (v *visit) guard() {
	h := v.w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "+
		"connect-src 'self'; manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Content-Language", v.lang.Tag())
	h.Set("X-Request-Id", v.id)
}

func (v *visit) try(rt route) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if e, ok := p.(error); ok && errors.Is(e, http.ErrAbortHandler) {
				panic(p)
			}
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if err := v.authenticate(rt.who); err != nil {
		return err
	}
	if v.r.Method == http.MethodPost {
		v.r.Body = http.MaxBytesReader(v.w, v.r.Body, formMax)
		if err := v.r.ParseForm(); err != nil {
			return refusal.New(refusal.InvalidRequest)
		}
	}
	return rt.do(v)
}

// authenticate finds who asks. Pages for anyone know it too.
func (v *visit) authenticate(who access) error {
	if c, err := v.r.Cookie(sessionCookie); err == nil && c.Value != "" {
		u, err := v.s.Accounts.Session(v.ctx(), c.Value)
		switch {
		case err == nil:
			v.user, v.session = u, c.Value
		case refusal.CodeOf(err) != refusal.Unauthenticated:
			return err
		}
	}
	switch {
	case who == anyone:
		return nil
	case v.user.ID == 0:
		return refusal.New(refusal.Unauthenticated)
	case who == admins:
		return v.actor().MustBe(account.RoleAdmin)
	}
	return nil
}

func (v *visit) ctx() context.Context { return v.r.Context() }

func (v *visit) actor() account.Actor {
	return account.Actor{ID: v.user.ID, Role: v.user.Role, Address: v.address}
}

// t is a text in the visitor's language.
func (v *visit) t(key string, values ...any) string { return v.s.texts.in(v.lang, key, values...) }

// isHTMX reports whether a part of a page is asked for. Who goes back is shown a
// whole one.
func (v *visit) isHTMX() bool {
	return v.r.Header.Get("HX-Request") == "true" && v.r.Header.Get("HX-History-Restore-Request") != "true"
}

// redirect sends the visitor elsewhere, after something was done.
func (v *visit) redirect(to string) error {
	if v.isHTMX() {
		v.w.Header().Set("HX-Redirect", to)
		v.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
	return nil
}

// cameFrom is the page of this console that the request was sent from; empty if
// that is not known.
func (v *visit) cameFrom() string {
	u, err := url.Parse(v.r.Referer())
	if err != nil || u.Host != v.r.Host {
		return ""
	}
	if !v.readable(u) { // where a form was refused
		return ""
	}
	return local(u.RequestURI(), "")
}

// readable reports whether there is a page at an address of this console.
func (v *visit) readable(u *url.URL) bool {
	_, pattern := v.s.mux.Handler(&http.Request{Method: http.MethodGet, Host: v.r.Host, URL: u})
	return strings.HasPrefix(pattern, "GET /")
}

// local is an address of this console that a visitor has brought along; else, or
// if it is none, otherwise.
func local(text, otherwise string) string {
	u, err := url.Parse(text)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") ||
		strings.ContainsAny(text, "\\\r\n") {
		return otherwise
	}
	return text
}

// fail answers with what went wrong.
func (v *visit) fail(err error) {
	e, refused := errors.AsType[*refusal.Error](err)
	if !refused {
		if v.ctx().Err() == nil && !v.gone {
			v.logFailure(v.ctx(), err)
		}
		e = &refusal.Error{Code: refusal.Unavailable}
	}
	if v.status != 0 {
		return // half an answer is out already
	}
	if e.Code == refusal.Unauthenticated {
		next := v.r.URL.RequestURI()
		if v.r.Method != http.MethodGet || v.isHTMX() { // back to the page that it came from
			next = v.cameFrom()
			v.sayLater(said{Text: v.t("signin.ended"), Bad: true})
		}
		to := "/signin"
		if next != "" {
			to += "?next=" + url.QueryEscape(next)
		}
		_ = v.redirect(to)
		return
	}
	status := v.s.refusals.status[e.Code].HTTP
	if !refused {
		status = http.StatusInternalServerError
	}
	v.later(e)
	data := map[string]any{"Status": status, "Text": v.explain(e), "ID": v.id}
	part := "layout"
	if v.isHTMX() {
		part = "problem"
		v.w.Header().Set("HX-Retarget", "#problems")
		v.w.Header().Set("HX-Reswap", "innerHTML")
	}
	var rendered error
	if part == "layout" {
		rendered = v.page(status, "problem", "", data)
	} else {
		rendered = v.execute(status, "problem", part, data)
	}
	if rendered != nil {
		v.s.Log.LogAttrs(v.ctx(), slog.LevelError, "rendering a problem failed", slog.Any("error", rendered))
		http.Error(v.w, v.explain(e), status)
	}
}

func (v *visit) logFailure(ctx context.Context, err error) {
	v.s.Log.LogAttrs(ctx, slog.LevelError, "request failed", slog.String("request_id", v.id), slog.Any("error", err))
}

// later says when to try again, if the refusal does.
func (v *visit) later(e *refusal.Error) {
	if e.RetryAfter > 0 {
		v.w.Header().Set("Retry-After", strconv.FormatInt(int64(math.Ceil(e.RetryAfter.Seconds())), 10))
	}
}

// explain is what to tell the visitor of a refusal.
func (v *visit) explain(e *refusal.Error) string {
	if e.Code == refusal.IdempotencyKeyReused { // whose words are for who sends the header
		return v.t("list.sent_before")
	}
	return v.s.refusals.words[e.Code].In(v.lang)
}

// refused is the words of err if it is a refusal, for a form that is shown again;
// any other error comes back.
func (v *visit) refused(err error) (string, error) {
	e, ok := errors.AsType[*refusal.Error](err)
	if !ok || e.Code == refusal.Unauthenticated {
		return "", err
	}
	v.later(e)
	return v.explain(e), nil
}

// refusals are the words and status of each.
type refusals struct {
	words  map[refusal.Code]web.Words
	status map[refusal.Code]web.Status
}

func newRefusals() refusals { return refusals{web.Messages(), web.Statuses()} }

// nothing answers to what is no page.
func (s *server) nothing(*visit) error { return refusal.New(refusal.NoRoute) }

// language is the one chosen, or else the one that the browser likes.
func (s *server) language(r *http.Request) web.Tongue {
	if c, err := r.Cookie(languageCookie); err == nil {
		if t, ok := fileTongues()[c.Value]; ok {
			return t
		}
	}
	return s.languages.Match(r.Header, web.English)
}

// chooseLanguage remembers a language.
func (s *server) chooseLanguage(v *visit) error {
	to := v.r.FormValue("to")
	if _, ok := fileTongues()[to]; !ok {
		return refusal.New(refusal.InvalidRequest)
	}
	v.setCookie(languageCookie, to, cookieFor)
	// What the page knows may be older than its address, in which filters stand.
	return v.redirect(cmp.Or(v.cameFrom(), local(v.r.FormValue("next"), "/")))
}

func (v *visit) theme() string {
	if c, err := v.r.Cookie(themeCookie); err == nil && (c.Value == "light" || c.Value == "dark") {
		return c.Value
	}
	return ""
}

// zone is the visitor's, or UTC before it is known.
func (v *visit) zone() *time.Location {
	if c, err := v.r.Cookie(zoneCookie); err == nil && c.Value != "" && c.Value != "Local" && len(c.Value) <= 64 {
		if l, err := time.LoadLocation(c.Value); err == nil {
			return l
		}
	}
	return time.UTC
}

// goOn gives an answer that is made step by step stepTimeout for the next one.
func (v *visit) goOn() error {
	return http.NewResponseController(v.w).SetWriteDeadline(v.s.Now().Add(stepTimeout))
}

// setCookie sets a cookie that scripts cannot read; for 0 it ends.
func (v *visit) setCookie(name, value string, lasts time.Duration) {
	age := int(lasts / time.Second)
	if lasts <= 0 {
		age = -1
	}
	http.SetCookie(v.w, &http.Cookie{ //nolint:gosec // G124: Secure is set where there is TLS
		Name: name, Value: value, Path: "/", MaxAge: age, HttpOnly: true,
		Secure: v.secure(), SameSite: http.SameSiteLaxMode,
	})
}

// secure reports whether the visitor's connection is encrypted.
func (v *visit) secure() bool { return v.s.SecureCookies || v.s.addresses.Secure(v.r) }

// said is what the next page says on top: that something was done, or why not.
type said struct {
	Text string
	Bad  bool
}

// say has the next page say that something was done.
func (v *visit) say(text string) { v.sayLater(said{Text: text}) }

func (v *visit) sayLater(what said) {
	if len(what.Text) > saidTextMax {
		what.Text = strings.ToValidUTF8(what.Text[:saidTextMax], "")
	}
	b, err := json.Marshal(what)
	if err != nil {
		panic(err) // a text always marshals
	}
	v.setCookie(saidCookie, base64.RawURLEncoding.EncodeToString(b), saidFor)
}

// heard is what the last request wanted said.
func (v *visit) heard() *said {
	c, err := v.r.Cookie(saidCookie)
	if err != nil {
		return nil
	}
	v.setCookie(saidCookie, "", 0)
	var what said
	b, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || json.Unmarshal(b, &what) != nil || what.Text == "" {
		return nil
	}
	return &what
}

// statusWriter notes the status, and when it cannot write.
type statusWriter struct {
	http.ResponseWriter
	status *int
	gone   *bool
}

// WriteHeader notes the status.
func (w *statusWriter) WriteHeader(status int) {
	if *w.status == 0 {
		*w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write writes the body.
func (w *statusWriter) Write(b []byte) (int, error) {
	if *w.status == 0 {
		*w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	if err != nil {
		*w.gone = true
	}
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
