package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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
	if server.ReadTimeout == 0 || server.ReadHeaderTimeout == 0 || server.IdleTimeout == 0 || server.WriteTimeout != 0 {
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
