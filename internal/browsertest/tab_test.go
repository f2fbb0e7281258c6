package browsertest

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// look is how somebody looks at the console.
type look struct {
	width int64
	lang  string // of the browser
	dark  bool
}

func (l look) String() string {
	theme := "light"
	if l.dark {
		theme = "dark"
	}
	return fmt.Sprintf("%s-%d-%s", l.lang, l.width, theme)
}

// looks are how the tests look: in every language, at both widths, in both themes.
// With SCRIP_LOOKS=all they are all twelve together, which takes three times as long.
func looks() (list []look) {
	if os.Getenv("SCRIP_LOOKS") != "all" {
		return []look{{1280, "en", false}, {390, "zh", true}, {1280, "ja", true}, {390, "ja", false}}
	}
	for _, lang := range []string{"en", "zh", "ja"} {
		for _, width := range []int64{1280, 390} {
			list = append(list, look{width, lang, false}, look{width, lang, true})
		}
	}
	return list
}

// tab is a tab of the browser, with cookies of its own. When its test ends it
// fails if anything went wrong in it: an error in a script or on the console, an
// answer that failed, a request to another host.
type tab struct {
	testing.TB
	ctx  context.Context
	base string

	mu     sync.Mutex
	faults []string
	// tolerated are answers that a test provokes, by a part of their address.
	tolerated []string
}

func (p *program) tab(tb testing.TB, l look) *tab {
	tb.Helper()
	t := &tab{TB: tb, base: p.base}
	ctx, end := chromedp.NewContext(all.browser, chromedp.WithNewBrowserContext(), chromedp.WithListener(t.hear))
	tb.Cleanup(end)
	ctx, cancel := context.WithTimeout(ctx, 4*patience)
	tb.Cleanup(cancel)
	t.ctx = ctx
	if err := chromedp.Do(ctx); err != nil { // the tab lives as long as the context of the first call
		tb.Fatal(err)
	}
	theme := "light"
	if l.dark {
		theme = "dark"
	}
	accept := map[string]string{"en": "en-GB,en", "zh": "zh-CN,zh", "ja": "ja-JP,ja"}[l.lang]
	t.do(
		chromedp.Func(func(ctx context.Context, at *chromedp.Target) error {
			_, err := cdp.Call(ctx, at, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: theme},
				{Name: "prefers-reduced-motion", Value: "reduce"},
			}})
			return err
		}),
		chromedp.Func(func(ctx context.Context, at *chromedp.Target) error {
			_, err := cdp.Call(ctx, at, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{
				UserAgent: "Mozilla/5.0 (X11; Linux x86_64) Chrome", AcceptLanguage: accept, Platform: "Linux",
			})
			return err
		}),
		chromedp.Func(func(ctx context.Context, at *chromedp.Target) error {
			_, err := cdp.Call(ctx, at, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Asia/Tokyo"})
			return err
		}),
		chromedp.Func(func(ctx context.Context, at *chromedp.Target) error {
			height := int64(800)
			if l.width < 500 {
				height = 844
			}
			_, err := cdp.Call(ctx, at, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
				Width: l.width, Height: height, DeviceScaleFactor: 1, Mobile: l.width < 500,
			})
			return err
		}),
	)
	tb.Cleanup(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, f := range t.faults {
			tb.Error(f)
		}
	})
	return t
}

// hear notes what goes wrong in the tab.
func (t *tab) hear(event any) {
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			text += " " + x.Description
		}
		t.fault("a script failed: " + text)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			args, _ := json.Marshal(e.Args)
			t.fault("the console says " + string(args))
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			t.fault(fmt.Sprintf("the browser says %s (%s)", e.Entry.Text, e.Entry.URL))
		}
	case *network.EventRequestWillBeSent:
		u := e.Request.URL
		if !strings.HasPrefix(u, t.base) && !strings.HasPrefix(u, "data:") && !strings.HasPrefix(u, "about:") {
			t.fault("it asks for " + u)
		}
	}
}

func (t *tab) fault(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, part := range t.tolerated {
		if strings.Contains(text, part) {
			return
		}
	}
	t.faults = append(t.faults, text)
}

// tolerate lets faults with this text pass.
func (t *tab) tolerate(part string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tolerated = append(t.tolerated, part)
}

func (t *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	for _, step := range steps {
		ctx, cancel := context.WithTimeout(t.ctx, patience)
		err := chromedp.Do(ctx, step)
		cancel()
		if err != nil {
			t.stuck(err)
		}
	}
}

// stuck fails with what the page shows.
func (t *tab) stuck(err error) {
	t.Helper()
	shown, _ := chromedp.Run(t.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
	t.Fatalf("%v; the page is %s", err, shown)
}

// open goes to a page and waits until it is there.
func (t *tab) open(path string) {
	t.Helper()
	t.do(chromedp.Navigate(t.base + path))
}

// signIn signs in through the page, by token, and goes to a page.
func (t *tab) signIn(token, next string) {
	t.Helper()
	t.open("/signin?by=token&next=" + url.QueryEscape(next))
	t.fill(`input[name=token]`, token)
	t.follow(`main form button`)
}

// back goes back in the history, and waits.
func (t *tab) back(until string) {
	t.Helper()
	eval[bool](t, `setTimeout(() => history.back()) > 0`)
	t.until(until)
}

func (t *tab) click(css string) {
	t.Helper()
	t.do(chromedp.Click(chromedp.CSS(css), chromedp.NodeVisible))
}

// touch is click for a part that is drawn anew when it likes: between finding a node
// and clicking on it, it may be another.
func (t *tab) touch(css string) {
	t.Helper()
	t.until(fmt.Sprintf(`document.querySelector(%q)`, css))
	t.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`document.querySelector(%q).click()`, css)))
}

// follow clicks what leads to another page, and waits for that.
func (t *tab) follow(css string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.WaitEvent(page.LoadEventFired, nil,
		chromedp.Click(chromedp.CSS(css), chromedp.NodeVisible))); err != nil {
		t.stuck(fmt.Errorf("%s: %w", css, err))
	}
}

// fill types into a field, in place of what is in it.
func (t *tab) fill(css, text string) {
	t.Helper()
	t.do(chromedp.WaitVisible(chromedp.CSS(css)),
		chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`document.querySelector(%q).value = ""`, css)),
		chromedp.SendKeys(chromedp.CSS(css), text))
}

// press sends keys to whatever has the focus.
func (t *tab) press(keys string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.KeyEvent(keys)); err != nil && !gaveWay(err) {
		t.stuck(err)
	}
}

// gaveWay reports whether err says that the page gave way to another one meanwhile.
func gaveWay(err error) bool {
	for _, text := range []string{"context with specified id", "context was destroyed", "target navigated or closed"} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

func (t *tab) text(css string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(css)))
	if err != nil {
		t.stuck(fmt.Errorf("%s: %w", css, err))
	}
	return text
}

// until waits for an expression of JavaScript to be true.
func (t *tab) until(expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	for {
		_, err := chromedp.Run(ctx, chromedp.Poll[bool]("!!("+expression+")"))
		switch {
		case err == nil:
			return
		case ctx.Err() == nil && gaveWay(err):
			continue
		}
		t.stuck(fmt.Errorf("%s: %w", expression, err))
	}
}

// shows waits for a text in what matches.
func (t *tab) shows(css, text string) {
	t.Helper()
	t.until(fmt.Sprintf(`[...document.querySelectorAll(%q)].some(e => e.innerText.includes(%q))`, css, text))
}

// eval is the value of an expression of JavaScript.
func eval[T any](t *tab, expression string) T {
	t.Helper()
	v, err := chromedp.Run(t.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.stuck(fmt.Errorf("%s: %w", expression, err))
	}
	return v
}

//go:embed testdata/axe.min.js
var axe string

// violation is a fault that axe finds.
type violation struct {
	ID, Impact, Help string
	Nodes            []struct {
		HTML           string
		FailureSummary string
	}
}

// fits fails if the page is wider than the window.
func (t *tab) fits(what string) {
	t.Helper()
	if n := eval[int](t, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); n > 0 {
		t.Errorf("%s: the page is %d pixels wider than the window", what, n)
	}
}

// sound fails if the page shows anything that those who use a keyboard or a screen
// reader cannot use, or is wider than the window.
func (t *tab) sound(what string) {
	t.Helper()
	t.fits(what)
	t.do(chromedp.Evaluate[chromedp.Void](axe))
	list := eval[[]violation](t, `axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations)`)
	for _, v := range list {
		if v.Impact != "serious" && v.Impact != "critical" {
			continue
		}
		for _, n := range v.Nodes[:min(3, len(v.Nodes))] {
			t.Errorf("%s: %s, %s: %s\n%s", what, v.ID, v.Help, n.HTML, n.FailureSummary)
		}
	}
}

// screenshots names the directory where pictures are written to; none if empty.
const screenshots = "SCRIP_SCREENSHOTS"

// picture writes a picture of the whole page.
func (t *tab) picture(name string) { t.capture(name, chromedp.FullScreenshot(100)) }

// window writes a picture of what the window shows.
func (t *tab) window(name string) { t.capture(name, chromedp.CaptureScreenshot()) }

func (t *tab) capture(name string, how chromedp.Action[[]byte]) {
	t.Helper()
	dir := os.Getenv(screenshots)
	if dir == "" {
		return
	}
	shot, err := chromedp.Run(t.ctx, how)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), shot, 0o600) //nolint:gosec // G703: where whoever runs the test wants it
	}
	if err != nil {
		t.Fatal(err)
	}
}
