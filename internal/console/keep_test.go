package console

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// keptLog is what was logged, to be read while more is.
type keptLog struct {
	mu  sync.Mutex
	out strings.Builder
}

func (l *keptLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(b)
}

func (l *keptLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.String()
}

// TestLiveLogs: what keeps failing is said at once, then once a minute with how
// often, and when it works again.
func TestLiveLogs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		work, stop := context.WithCancel(t.Context())
		var out keptLog
		var down atomic.Bool
		down.Store(true)
		l := newLive(work, slog.New(slog.NewTextHandler(&out, nil)), time.Now) //nolint:forbidigo // that of the test's own world
		topic, err := l.join("overview", func(context.Context) ([]byte, error) {
			if down.Load() {
				return nil, errors.New("the database is away")
			}
			return []byte("content"), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		said := func(after time.Duration, failures, again int) {
			t.Helper()
			<-time.After(after)
			synctest.Wait()
			text := out.String()
			if n, m := strings.Count(text, "is away"), strings.Count(text, "works again"); n != failures || m != again {
				t.Errorf("%d failures and %d times again are logged, want %d and %d:\n%s", n, m, failures, again, text)
			}
		}
		said(liveEvery/2, 1, 0)
		said(59*time.Second, 1, 0)
		said(2*time.Second, 2, 0)
		said(time.Minute, 3, 0)
		if !strings.Contains(out.String(), "topic=overview") || !strings.Contains(out.String(), "times=60") {
			t.Errorf("the log has %s", out.String())
		}
		down.Store(false)
		said(10*time.Second, 3, 1)
		down.Store(true)
		said(2*time.Second, 4, 1)
		l.leave("overview", topic)
		stop()
		synctest.Wait()
	})
}
