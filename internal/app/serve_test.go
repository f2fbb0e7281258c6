package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/api"
)

// TestSlowRequests gives a server short limits: a body that trickles in is cut
// off, an answer that takes its time is not.
func TestSlowRequests(t *testing.T) {
	t.Parallel()
	const limit = 200 * time.Millisecond
	read := make(chan error, 1)
	server := newServer(slog.New(slog.DiscardHandler), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			_, err := io.ReadAll(r.Body)
			read <- err
			return
		}
		select {
		case <-r.Context().Done():
			t.Error("the request was given up")
		case <-time.After(3 * limit):
			_, _ = io.WriteString(w, "done")
		}
	}))
	if server.ReadTimeout == 0 || server.ReadHeaderTimeout == 0 || server.IdleTimeout == 0 || server.WriteTimeout == 0 {
		t.Errorf("got %+v", server)
	}
	server.ReadTimeout, server.ReadHeaderTimeout = limit, limit
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = serveOn(server, l, nil) }()
	t.Cleanup(func() { _ = server.Close() })

	for _, method := range []string{http.MethodDelete, http.MethodPost} {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+l.Addr().String()+"/long", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil || string(text) != "done" {
			t.Errorf("%s: got %q, %v", method, text, err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}

	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nx"); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if err := <-read; !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("the body ended with %v", err)
	}
}

// TestDeafClient gives a server a short limit: a client that asks and asks, and
// never reads, is cut off.
func TestDeafClient(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	server := newServer(log, api.New(api.Config{Log: log, Now: now, Registry: prometheus.NewRegistry()}))
	server.WriteTimeout = 200 * time.Millisecond
	closed := make(chan struct{})
	server.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(closed)
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = serveOn(server, l, nil) }()
	t.Cleanup(func() { _ = server.Close() })
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const wait = 20 * time.Second
	if err := conn.SetDeadline(now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	asks := strings.Repeat("GET /docs HTTP/1.1\r\nHost: test\r\n\r\n", 100)
	for err == nil {
		_, err = io.WriteString(conn, asks)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("it is not cut off")
	}
	<-closed
}

// TestReadiness: anyone may learn that the server does not do its work, and the
// log why.
func TestReadiness(t *testing.T) {
	t.Parallel()
	var serving atomic.Bool
	var broken error
	ready := readiness(&serving, func(context.Context) error { return broken })
	shown := func() string {
		n, _ := errors.AsType[api.NotReady](ready(t.Context()))
		return string(n)
	}
	if got := shown(); got != "starting or stopping" {
		t.Errorf("got %q", got)
	}
	serving.Store(true)
	if err := ready(t.Context()); err != nil {
		t.Error(err)
	}
	broken = errors.New("no space left on /secret/path")
	if got := shown(); got != "database not writable or keys not usable" {
		t.Errorf("got %q", got)
	}
	if err := ready(t.Context()); !errors.Is(err, broken) || !strings.Contains(err.Error(), broken.Error()) {
		t.Errorf("got %v", err)
	}
}

// TestEvery checks that what keeps failing is said once a minute, with how
// often, and that it ends with its context.
func TestEvery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out strings.Builder
		calls := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			every(ctx, time.Second, slog.New(slog.NewTextHandler(&out, nil)), "work", func(context.Context) error {
				calls++
				return errors.New("no space")
			})
		}()
		<-time.After(2*time.Minute + time.Second/2)
		cancel()
		<-done
		if calls != 120 || strings.Count(out.String(), "no space") != 2 || !strings.Contains(out.String(), "times=60") {
			t.Errorf("%d calls:\n%s", calls, out.String())
		}
	})
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for used, want := range map[int64]int64{0: 48 * mib, 20 * mib: 48 * mib, 40 * mib: 52 * mib, 400 * mib: 500 * mib} {
		if got := memoryLimitFor(used); got != want {
			t.Errorf("with %d MiB in use the limit is %d MiB, want %d", used/mib, got/mib, want/mib)
		}
	}
}
