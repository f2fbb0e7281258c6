package browsertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// patience is how long anything may take to show up.
const patience = 30 * time.Second

// shared is what all tests use: the program, built, and one browser.
type shared struct {
	program string
	browser context.Context
}

var all shared //nolint:gochecknoglobals // one for the test binary

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "scrip-browser-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	all.program = filepath.Join(dir, "scrip")
	build := exec.CommandContext(context.Background(), "go", "build", "-o", all.program, "../../cmd/scrip") //nolint:gosec // G204: into a directory of ours
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("building the program: %w\n%s", err, out)
	}
	path, err := chromium()
	if err != nil {
		return 1, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.UserDataDir(filepath.Join(dir, "profile")),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-search-engine-choice-screen", true), chromedp.Flag("font-render-hinting", "none"))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	browser, end := chromedp.NewContext(allocator)
	defer end()
	if err := chromedp.Do(browser); err != nil {
		return 1, fmt.Errorf("starting %s: %w", path, err)
	}
	all.browser = browser
	return m.Run(), nil
}

// chromium finds the browser; without one the tests fail.
func chromium() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no browser: install Debian's package chromium")
}

// program is a running server with a database of its own.
type program struct {
	testing.TB
	base, mqtt string
	welcome    string // root's one-time link
	token      string // root's access token
	dir        string
	client     *http.Client // signed in as root
}

// start runs the program until the test ends.
func start(tb testing.TB) *program {
	tb.Helper()
	p := &program{TB: tb, dir: tb.TempDir()}
	cmd := exec.CommandContext(context.WithoutCancel(tb.Context()), all.program, "serve") //nolint:gosec // G204: what was built above
	cmd.Env = append(os.Environ(), "SCRIP_DATA_DIR="+p.dir, "SCRIP_HTTP_ADDR=127.0.0.1:0", "SCRIP_MQTT_ADDR=127.0.0.1:0")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = patience
	stderr, err := cmd.StderrPipe()
	p.check(err)
	stdout, err := cmd.StdoutPipe()
	p.check(err)
	p.check(cmd.Start())
	ready, welcome := make(chan struct{}), make(chan struct{})
	var reading sync.WaitGroup
	var said strings.Builder
	reading.Go(func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if _, token, ok := strings.Cut(lines.Text(), "shown only this once: "); ok {
				p.token = token
			}
			if link := regexp.MustCompile(`https?://\S+/welcome/\S+`).FindString(lines.Text()); link != "" {
				p.welcome = link
				close(welcome)
			}
		}
	})
	reading.Go(func() {
		address := regexp.MustCompile(`msg=ready address=(\S+) mqtt=(\S+)`)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			said.WriteString(lines.Text() + "\n")
			if m := address.FindStringSubmatch(lines.Text()); m != nil {
				p.base, p.mqtt = m[1], m[2]
				close(ready)
			}
			if strings.Contains(lines.Text(), "level=ERROR") {
				tb.Errorf("the server says %s", lines.Text())
			}
		}
	})
	for _, done := range []chan struct{}{welcome, ready} {
		select {
		case <-done:
		case <-time.After(patience):
			p.Fatal("the server does not start, or prints no link")
		}
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		reading.Wait()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("the server ended with %v:\n%s", err, said.String())
		}
	})
	p.client = p.signedIn(p.token)
	return p
}

// signedIn is a client with a session.
func (p *program) signedIn(token string) *http.Client {
	p.Helper()
	jar, err := cookiejar.New(nil)
	p.check(err)
	c := &http.Client{Jar: jar, Timeout: patience}
	res := p.submit(c, "/signin", url.Values{"by": {"token"}, "token": {token}, "next": {"/redeem"}})
	p.check(res.Body.Close())
	if res.Request.URL.Path != "/redeem" {
		p.Fatalf("signing in leads to %s, %s", res.Request.URL, res.Status)
	}
	return c
}

// api calls the API as root and returns the body of its answer.
func (p *program) api(method, path, body string) string {
	p.Helper()
	req, err := http.NewRequestWithContext(p.Context(), method, p.base+path, strings.NewReader(body))
	p.check(err)
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("New-Api-User", "1")
	res, err := p.client.Do(req)
	p.check(err)
	defer func() { _ = res.Body.Close() }()
	var b strings.Builder
	_, err = bufio.NewReader(res.Body).WriteTo(&b)
	p.check(err)
	if res.StatusCode >= 300 {
		p.Fatalf("%s %s: %s\n%s", method, path, res.Status, b.String())
	}
	return b.String()
}

// submit sends a form of the console.
func (p *program) submit(c *http.Client, path string, form url.Values) *http.Response {
	p.Helper()
	req, err := http.NewRequestWithContext(p.Context(), http.MethodPost, p.base+path, strings.NewReader(form.Encode()))
	p.check(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := c.Do(req)
	p.check(err)
	return res
}

func (p *program) check(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}
