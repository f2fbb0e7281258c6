package console_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/console"
)

// stream is what somebody who looks at a page is sent.
type stream struct {
	header http.Header
	lines  *bufio.Scanner
}

func (p *people) look(t *testing.T, who, at string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.server.URL+at, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Language", "en")
	res, err := p.as[who].Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if kind := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || kind != "text/event-stream" {
		t.Fatalf("%d %s", res.StatusCode, kind)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	return &stream{res.Header, lines}
}

// until reads up to a line with the text in it.
func (s *stream) until(t *testing.T, text string) {
	t.Helper()
	for s.lines.Scan() {
		if strings.Contains(s.lines.Text(), text) {
			return
		}
	}
	t.Fatalf("%q was not sent: %v", text, s.lines.Err())
}

// ends reads to the end, in which the text must not be.
func (s *stream) ends(t *testing.T, without string) {
	t.Helper()
	for s.lines.Scan() {
		if strings.Contains(s.lines.Text(), without) {
			t.Errorf("%q was sent", without)
		}
	}
	if err := s.lines.Err(); err != nil {
		t.Errorf("it does not end: %v", err)
	}
}

// TestLive: who looks at a page sees what happens.
func TestLive(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.post(t, "admin", "/codes", "name", "many", "count", "250", "quota", "2").to(t, "/jobs/1")
	overview, job := p.look(t, "admin", "/overview/events"), p.look(t, "root", "/jobs/1/events")
	if got := overview.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q", got)
	}
	overview.until(t, "event: now")
	overview.until(t, "100 live codes")
	job.until(t, "event: progress")
	job.until(t, "100 of 250")
	if err := p.codes.RunJobs(t.Context()); err != nil {
		t.Fatal(err)
	}
	overview.until(t, "250 live codes")
	job.until(t, "Hand them out")
	p.use(t, p.codeOf(t, 7).Key)
	overview.until(t, "redeemed code")
}

// TestLiveEnds: who has signed out, or is no admin any more, is shown nothing new.
func TestLiveEnds(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.withPassword(t, "admin")
	one := p.look(t, "admin", "/overview/events")
	one.until(t, "event: now")
	p.post(t, "admin", "/signout", "everywhere", "1").to(t, "/signin")
	p.batch(t, "unseen", 1, time.Time{})
	one.ends(t, "unseen")

	token := account.NewToken()
	u, err := p.accounts.Create(t.Context(), account.Operator(), account.CreateRequest{Username: "carol", Role: account.RoleAdmin, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	p.as["carol"], p.ids["carol"] = p.signIn(t, token), u.ID
	two := p.look(t, "carol", "/overview/events")
	two.until(t, "event: now")
	p.post(t, "root", p.at("carol")+"/role", "role", "1").to(t, p.at("carol"))
	p.batch(t, "unseen too", 1, time.Time{})
	two.ends(t, "unseen too")
}

// TestLiveEndsAtShutdown: a server that stops does not wait for who looks.
func TestLiveEndsAtShutdown(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	s := p.look(t, "admin", "/overview/events")
	s.until(t, "event: now")
	p.stop()
	s.ends(t, "never sent")
}

// TestLiveIsBounded: a thousand may look; one more is told to come later, and let in
// when another has left.
func TestLiveIsBounded(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	h := p.server.Config.Handler
	session := p.session(t, "admin")
	look := func(ctx context.Context, v *viewer) {
		h.ServeHTTP(v, request(ctx, session, "GET", "/overview/events", ""))
	}
	ctx, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer leave()
	first, leaveFirst := context.WithCancel(ctx)
	gone := make(chan struct{})
	for i := range console.StreamsMax {
		v := newViewer()
		of := ctx
		if i == 0 {
			of = first
		}
		all.Go(func() {
			look(of, v)
			if i == 0 {
				close(gone)
			}
		})
		<-v.seen
	}
	v := newViewer()
	all.Go(func() { look(ctx, v) })
	if <-v.seen; v.Code != http.StatusTooManyRequests || v.Header().Get("Retry-After") != "30" {
		t.Errorf("one more: %d, %v", v.Code, v.Header())
	}
	leaveFirst()
	<-gone
	v = newViewer()
	all.Go(func() { look(ctx, v) })
	if <-v.seen; v.Code == http.StatusTooManyRequests {
		t.Error("the place of who has left is not free")
	}
}

// TestLiveSurvivesPanics: what goes wrong with one page does not end the program.
func TestLiveSurvivesPanics(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	config := p.config
	config.Figures = nil
	h, err := console.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	v, session := newViewer(), p.session(t, "admin")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.ServeHTTP(v, request(ctx, session, "GET", "/overview/events", ""))
	}()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(p.logs.String(), "panic: "); { //nolint:forbidigo // a deadline of the test's own
		if time.Now().After(end) { //nolint:forbidigo // the same
			t.Fatalf("the log has %s", p.logs.String())
		}
	}
	leave()
	<-ended
	if v.Code != http.StatusOK {
		t.Errorf("%d", v.Code)
	}
}
