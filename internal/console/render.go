package console

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"math/big"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/sheet"
	"github.com/scrip-codes/scrip/internal/web"
)

//go:embed pages/*.html
var pageFiles embed.FS

// pages are the templates of each page by its name, in each tongue. A page
// defines title and content; layout.html puts the frame around them, and
// parts.html has what several pages use. Each is parsed when it is first looked at:
// all of them are 13 MiB, and a server that only programs ask needs none.
type pages [web.Tongues]map[string]func() (*template.Template, error)

func loadPages(t texts, a assets) (pages, error) {
	var all pages
	names, err := fs.Glob(pageFiles, "pages/*.html")
	if err != nil {
		return all, err
	}
	for tongue := range web.Tongues {
		all[tongue] = map[string]func() (*template.Template, error){}
		for _, name := range names {
			page := strings.TrimSuffix(path.Base(name), ".html")
			if page == "layout" || page == "parts" {
				continue
			}
			all[tongue][page] = sync.OnceValues(func() (*template.Template, error) {
				return template.New("").Funcs(functions(t, a, tongue)).ParseFS(pageFiles, "pages/layout.html", "pages/parts.html", name)
			})
		}
	}
	return all, nil
}

// of finds the templates of a page.
func (p *pages) of(tongue web.Tongue, page string) (*template.Template, error) {
	parse := p[tongue][page]
	if parse == nil {
		return nil, fmt.Errorf("no page is named %q", page)
	}
	return parse()
}

// functions are what templates call.
func functions(t texts, a assets, tongue web.Tongue) template.FuncMap {
	return template.FuncMap{
		"t":     func(key string, values ...any) string { return t.in(tongue, key, values...) },
		"asset": a.path,
		"num":   number,
		// time and ago are a moment: the browser shows it in its own zone, as a date
		// and as how long ago it is.
		"time": func(at time.Time) template.HTML { return moment("at", at) },
		"day":  func(at time.Time) template.HTML { return moment("day", at) },
		"ago":  func(at time.Time) template.HTML { return moment("ago", at) },
		// timein is a moment where something else is.
		"timein": timeIn,
		"key":    grouped,
		"code":   func(digits string) string { return spaced(digits, 4) },
		"unix":   func(at time.Time) int64 { return at.UnixMilli() },
		"json": func(v any) (template.JS, error) {
			b, err := json.Marshal(v)  // escapes <, > and &
			return template.JS(b), err //nolint:gosec // G203: JSON that encoding/json made
		},
		"qr":   sheet.QR,
		"dict": dict,
		"list": func(v ...any) []any { return v },
		"lang": tongue.Tag,
	}
}

// number writes a whole number in groups of three digits.
func number(v any) (string, error) {
	var digits string
	switch n := v.(type) {
	case int:
		digits = strconv.Itoa(n)
	case int64:
		digits = strconv.FormatInt(n, 10)
	case *big.Int:
		digits = n.String()
	default:
		return "", fmt.Errorf("%T is no whole number", v)
	}
	sign := ""
	if digits[0] == '-' {
		sign, digits = "−", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits, nil
}

func moment(form string, at time.Time) template.HTML {
	if at.IsZero() {
		return "–"
	}
	utc := at.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s" data-%s>%s</time>`, //nolint:gosec // G203: of dates alone
		utc.Format(time.RFC3339Nano), form, utc.Format("2006-01-02 15:04:05 UTC")))
}

// timeIn writes a moment in a zone, with the zone's name.
func timeIn(at time.Time, zone string) string {
	l, err := time.LoadLocation(zone)
	if err != nil {
		l = time.UTC
	}
	return at.In(l).Format("2006-01-02 15:04 MST")
}

// grouped writes a key in groups of four characters.
func grouped(key string) string { return spaced(key, 4) }

func spaced(text string, every int) string {
	var b strings.Builder
	for i, r := range text {
		if i > 0 && i%every == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// dict makes a map of names and values, for a template that takes several.
func dict(pairs ...any) (map[string]any, error) {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("%v is no name", pairs[i])
		}
		m[name] = pairs[i+1]
	}
	return m, nil
}

// frame is what every page is given.
type frame struct {
	// Section is the item of the navigation that the page belongs to.
	Section string
	User    account.User
	Admin   bool
	Root    bool
	Theme   string // light, dark, or empty: as the system has it
	// Here is the page's own address, for links that come back to it.
	Here    string
	Version string
	Said    *said
	Data    any
}

// page answers with a whole page.
func (v *visit) page(status int, name, section string, data any) error {
	f := frame{
		Section: section, User: v.user, Admin: v.user.Role >= account.RoleAdmin, Root: v.user.Role >= account.RoleRoot,
		Theme: v.theme(), Here: v.here(), Version: v.s.Version, Said: v.heard(), Data: data,
	}
	return v.execute(status, name, "layout", f)
}

// here is the address of the page, or of the one that sent the form.
func (v *visit) here() string {
	if v.r.Method == http.MethodGet {
		return v.r.URL.RequestURI()
	}
	if from := v.cameFrom(); from != "" {
		return from
	}
	at := *v.r.URL
	at.RawQuery = ""
	for at.Path != "/" && !v.readable(&at) { // a form's page is above what it is sent to
		at.Path = path.Dir(at.Path)
	}
	return at.RequestURI()
}

// part answers with one template of a page, which htmx puts in its place.
func (v *visit) part(name, part string, data any) error {
	return v.execute(http.StatusOK, name, part, data)
}

// partAt is part for a list that is narrowed down, whose address the browser then has.
func (v *visit) partAt(address, name, part string, data any) error {
	v.w.Header().Set("HX-Push-Url", address)
	return v.part(name, part, data)
}

func (v *visit) execute(status int, name, part string, data any) error {
	set, err := v.s.pages.of(v.lang, name)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := set.ExecuteTemplate(&b, part, data); err != nil {
		return fmt.Errorf("rendering %s of %s: %w", part, name, err)
	}
	return v.send(status, "text/html; charset=utf-8", b.Bytes())
}

// zipFrom is the size from which compressing pays.
const zipFrom = 1 << 10

// send answers with a body.
func (v *visit) send(status int, kind string, body []byte) error {
	h := v.w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept-Encoding, Accept-Language, Cookie, HX-Request")
	if len(body) >= zipFrom && acceptsGzip(v.r) {
		var b bytes.Buffer
		z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		if err != nil {
			return err
		}
		_, _ = z.Write(body) // into memory
		_ = z.Close()
		h.Set("Content-Encoding", "gzip")
		body = b.Bytes()
	}
	v.w.WriteHeader(status)
	_, _ = v.w.Write(body) // a client that is gone needs no answer
	return nil
}
