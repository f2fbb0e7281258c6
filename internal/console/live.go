package console

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const (
	liveEvery  = time.Second      // how often a topic is looked at
	liveCheck  = 30 * time.Second // how often a viewer's session is, and how long a stream is silent at most
	streamsMax = 1000
	// liveErrorRest is how long a topic's failure is not logged again.
	liveErrorRest = time.Minute
)

// live sends parts of pages to those who look at them, as server-sent events,
// when they have changed. However many look at one topic, it is rendered once. It
// is safe for concurrent use.
type live struct {
	work  context.Context
	log   *slog.Logger
	clock func() time.Time

	mu      sync.Mutex
	topics  map[string]*topic
	streams int
}

// topic is what several viewers look at.
type topic struct {
	viewers int
	stop    context.CancelFunc
	content []byte
	changed chan struct{} // closed when content changes
}

func newLive(work context.Context, log *slog.Logger, clock func() time.Time) *live {
	return &live{work: work, log: log, clock: clock, topics: map[string]*topic{}}
}

// join begins to look at a topic, which render makes. It refuses with
// refusal.TooBusy if too many look already.
func (l *live) join(name string, render func(context.Context) ([]byte, error)) (*topic, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams >= streamsMax {
		return nil, refusal.Later(refusal.TooBusy, liveCheck)
	}
	l.streams++
	t := l.topics[name]
	if t == nil {
		ctx, stop := context.WithCancel(l.work)
		t = &topic{stop: stop, changed: make(chan struct{})}
		l.topics[name] = t
		go l.keep(ctx, name, t, render)
	}
	t.viewers++
	return t, nil
}

func (l *live) leave(name string, t *topic) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams--
	if t.viewers--; t.viewers == 0 {
		t.stop()
		delete(l.topics, name)
	}
}

// keep renders a topic until nobody looks any more. An error that repeats is
// logged once in a while, with how often it came, and that it is over.
func (l *live) keep(ctx context.Context, name string, t *topic, render func(context.Context) ([]byte, error)) {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	var said time.Time // zero: it works
	failed := 0
	for {
		content, err := render(ctx)
		if err != nil && ctx.Err() == nil {
			failed++
			if now := l.clock(); now.Sub(said) >= liveErrorRest {
				l.log.LogAttrs(ctx, slog.LevelWarn, "rendering what is looked at live failed",
					slog.String("topic", name), slog.Any("error", err), slog.Int("times", failed))
				said, failed = now, 0
			}
		}
		if err == nil {
			if !said.IsZero() {
				l.log.LogAttrs(ctx, slog.LevelInfo, "rendering what is looked at live works again", slog.String("topic", name))
				said, failed = time.Time{}, 0
			}
			l.mu.Lock()
			if !bytes.Equal(content, t.content) {
				t.content = content
				close(t.changed)
				t.changed = make(chan struct{})
			}
			l.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// now is what a topic shows, and what ends when it shows something else.
func (l *live) now(t *topic) ([]byte, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return t.content, t.changed
}

// stream sends a part of a page whenever it changes, until the visitor leaves or
// may not see it any more. Data is asked for what the part shows; name says of
// what it is, among all parts, for all admins alike.
func (v *visit) stream(name, page, part string, data func(context.Context) (any, error)) error {
	name = v.lang.Tag() + " " + name
	by := v.s
	set, err := by.pages.of(v.lang, page)
	if err != nil {
		return err
	}
	t, err := by.live.join(name, func(ctx context.Context) (content []byte, err error) {
		defer func() { // it runs by itself: nobody else would catch it
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		d, err := data(ctx)
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		err = set.ExecuteTemplate(&b, part, d)
		return b.Bytes(), err
	})
	if err != nil {
		return err
	}
	defer by.live.leave(name, t)
	h := v.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	check := time.NewTicker(liveCheck)
	defer check.Stop()
	if err := v.event(": hello\n\n"); err != nil {
		return nil // the visitor has left
	}
	for {
		content, changed := by.live.now(t)
		if content != nil {
			if !v.still(v.ctx()) {
				return nil
			}
			if err := v.event("event: " + part + "\ndata: " + strings.ReplaceAll(string(content), "\n", "\ndata: ") + "\n\n"); err != nil {
				return nil
			}
		}
		for waiting := true; waiting; {
			select {
			case <-changed:
				waiting = false
			case <-v.ctx().Done():
				return nil
			case <-by.Work.Done():
				return nil
			case <-check.C:
				if !v.still(v.ctx()) {
					return nil
				}
				if err := v.event(": still here\n\n"); err != nil {
					return nil
				}
			}
		}
	}
}

// still reports whether the visitor is signed in, and an admin, as when the request
// began.
func (v *visit) still(ctx context.Context) bool {
	u, err := v.s.Accounts.Session(ctx, v.session)
	return err == nil && u.Role >= account.RoleAdmin
}

// eventTimeout is how long a viewer may take to read.
const eventTimeout = 10 * time.Second

func (v *visit) event(text string) error {
	c := http.NewResponseController(v.w)
	if err := c.SetWriteDeadline(v.s.Now().Add(eventTimeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(v.w, text); err != nil {
		return err
	}
	return c.Flush()
}
