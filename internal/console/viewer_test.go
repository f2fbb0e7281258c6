package console_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/console"
)

// viewer is a browser that says when it is sent something.
type viewer struct {
	*httptest.ResponseRecorder
	seen chan struct{} // closed by the first write
	once sync.Once
	read func() error // called by each write; nil: all is read
}

func newViewer() *viewer {
	return &viewer{ResponseRecorder: httptest.NewRecorder(), seen: make(chan struct{})}
}

// Write writes, and then says so.
func (v *viewer) Write(b []byte) (int, error) {
	defer v.once.Do(func() { close(v.seen) })
	if v.read != nil {
		if err := v.read(); err != nil {
			return 0, err
		}
	}
	return v.ResponseRecorder.Write(b)
}

// SetWriteDeadline is for http.ResponseController.
func (*viewer) SetWriteDeadline(time.Time) error { return nil }

// request is one that a browser with that session sends.
func request(ctx context.Context, session, method, at, form string) *http.Request {
	req := httptest.NewRequestWithContext(ctx, method, at, strings.NewReader(form))
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Cookie", "scrip_session="+session)
	return req
}

// reveals is how often keys were shown.
func (p *people) reveals(t *testing.T) int {
	t.Helper()
	n := 0
	for before := int64(0); ; {
		list, err := p.accounts.Ledger(t.Context(), account.Operator(), account.LedgerFilter{Before: before, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			before = e.ID
			if e.Kind == account.KindReveal {
				n++
			}
		}
		if len(list) < 100 {
			return n
		}
	}
}

// TestSheetsAreBounded: of sheets a few are drawn at a time, a few wait, and one
// more is refused before a key is shown.
func TestSheetsAreBounded(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.batch(t, "spring", 1, time.Time{})
	h := p.server.Config.Handler
	session := p.session(t, "admin")
	const n = console.SheetsMax + console.SheetsWaiting
	release, answers := make(chan struct{}), make(chan *viewer)
	var drawn, most atomic.Int64
	for range n + 1 {
		v := newViewer()
		begun := false
		v.read = func() error {
			if v.Header().Get("Content-Type") == "application/pdf" {
				if !begun {
					begun = true
					now := drawn.Add(1)
					for is := most.Load(); now > is && !most.CompareAndSwap(is, now); is = most.Load() {
					}
				}
				<-release
			}
			return nil
		}
		go func() {
			h.ServeHTTP(v, request(t.Context(), session, "POST", "/codes/many", "id=1&do=a4"))
			answers <- v
		}()
	}
	// Nobody reads: the first answer is a refusal.
	var v *viewer
	select {
	case v = <-answers:
	case <-time.After(time.Minute):
		close(release)
		t.Fatal("all wait")
	}
	if v.Code != http.StatusTooManyRequests || v.Header().Get("Retry-After") == "" || v.Header().Get("Content-Disposition") != "" {
		t.Errorf("one more is answered %d %v", v.Code, v.Header())
	}
	for end := time.Now().Add(time.Minute); drawn.Load() < console.SheetsMax; { //nolint:forbidigo // a deadline of the test's own
		if time.Now().After(end) { //nolint:forbidigo // the same
			t.Fatalf("%d are drawn", drawn.Load())
		}
	}
	if got := p.reveals(t); got > console.SheetsMax {
		t.Errorf("keys of %d sheets were shown", got)
	}
	if most.Load() != console.SheetsMax {
		t.Errorf("%d are drawn at the same time", most.Load())
	}
	close(release)
	for range n {
		if v := <-answers; v.Code != http.StatusOK || !strings.HasPrefix(v.Body.String(), "%PDF-") {
			t.Errorf("%d %.20s", v.Code, v.Body)
		}
	}
	if got := p.reveals(t); got != n {
		t.Errorf("keys were shown %d times, want %d", got, n)
	}
}

// TestExportsEndWithTheirReader: to who has left no more keys are shown.
func TestExportsEndWithTheirReader(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.post(t, "admin", "/codes", "name", "many", "count", "1000", "quota", "2").to(t, "/jobs/1")
	if err := p.codes.RunJobs(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := p.server.Config.Handler
	session := p.session(t, "admin")
	for name, read := range map[string]func(leave func()) error{
		"leaves":       func(leave func()) error { leave(); return nil },
		"cannot write": func(func()) error { return errors.New("connection reset") },
	} {
		before := p.reveals(t)
		ctx, leave := context.WithCancel(t.Context())
		v := newViewer()
		v.read = func() error { return read(leave) }
		func() {
			defer func() {
				if err := recover(); err != nil && err != http.ErrAbortHandler { //nolint:errorlint // a value of recover
					panic(err)
				}
			}()
			h.ServeHTTP(v, request(ctx, session, "POST", "/jobs/1/codes", "do=csv"))
		}()
		leave()
		if got := p.reveals(t) - before; got > 2 {
			t.Errorf("%s: keys were shown %d times", name, got)
		}
	}
}
