package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestHistogram(t *testing.T) {
	var h histogram
	if h.quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // G404: a fixed seed is the point
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(1) << r.IntN(40)
		d += time.Duration(r.Int64N(int64(d)))
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999} {
		want, got := all[int(q*float64(len(all)))], h.quantile(q)
		if off := float64(got-want) / float64(want); off > 0.01 || off < -0.01 {
			t.Errorf("quantile %g: %d, want %d", q, got, want)
		}
	}
	if h.most != all[len(all)-1] || h.quantile(1) != h.most {
		t.Errorf("the most is %d and %d, want %d", h.most, h.quantile(1), all[len(all)-1])
	}
	for b := range len(h.counts) {
		if got := bucketOf(middleOf(b)); got != b {
			t.Fatalf("the middle of bucket %d is in bucket %d", b, got)
		}
	}
	h.add(-1)
	h.add(1 << 62)
	if h.counts[0] == 0 || h.counts[len(h.counts)-1] == 0 {
		t.Error("what is out of range is not counted")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v is %g, want %g", c.in, got, c.want)
		}
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := clock()
		s := run(t.Context(), clock, 3, time.Second, func(_ context.Context, client int) error {
			<-time.After(100 * time.Millisecond)
			if client == 2 && clock().Sub(start) > time.Second/2 {
				return errNoMore
			}
			return nil
		})
		if s.hist.n != 25 || s.elapsed != time.Second || !s.ranOut || s.errors != 0 || s.rate() != 25 {
			t.Errorf("%d calls in %s, ran out: %t", s.hist.n, s.elapsed, s.ranOut)
		}
		if p50 := s.hist.quantile(0.5); p50 < 99*time.Millisecond || p50 > 100*time.Millisecond {
			t.Errorf("p50 %s", p50)
		}
	})

	broken := errors.New("broken")
	s := run(t.Context(), clock, 2, time.Hour, func(context.Context, int) error { return broken })
	if s.errors != 2*errorsInRow || !errors.Is(s.first, broken) || failed(t.Context(), s) == nil {
		t.Errorf("%d errors, %v", s.errors, s.first)
	}
}

func TestRounds(t *testing.T) {
	n := 0
	phase := func(context.Context, time.Duration) (*sample, error) {
		n++
		s := &sample{elapsed: time.Second, each: int64(n)}
		s.hist.add(1)
		return s, nil
	}
	kept, err := rounds(t.Context(), 9*time.Second, phase, phase)
	if err != nil || len(kept[0]) != 4 || len(kept[1]) != 4 || n != 10 {
		t.Fatalf("%d phases, %v", n, err)
	}
	if got := paired(kept[0], kept[1], (*sample).rate); math.Abs(got-(5.0/6+7.0/8)/2) > 1e-9 {
		t.Errorf("paired %g", got)
	}

	ctx, cancel := context.WithCancel(t.Context())
	kept, err = rounds(ctx, time.Second, phase, func(context.Context, time.Duration) (*sample, error) {
		cancel()
		return &sample{}, ctx.Err()
	})
	if err != nil || len(kept[0]) != 1 || len(kept[1]) != 1 {
		t.Errorf("interrupted: %v, %v", kept, err)
	}
	broken := errors.New("broken")
	if _, err = rounds(t.Context(), time.Second, func(context.Context, time.Duration) (*sample, error) {
		return nil, broken
	}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// TestCaller reads answers of all forms from a server that writes them as they
// stand here, and each on a new connection if the one before has ended it.
func TestCaller(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, c := range []struct {
		answer, want string
		status       int
		closes       bool
		fails        bool
	}{
		{answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\nok", want: "ok", status: 200},
		{answer: "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", status: 204},
		{answer: "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + long, want: long, status: 200},
		{answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\n!!!\r\n0\r\n\r\n", want: "ok!!!", status: 200},
		{answer: "HTTP/1.1 500 Oh\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", want: "no", status: 500, closes: true},
		{answer: "HTTP/1.0 200 OK\r\n\r\nto the end", want: "to the end", status: 200, closes: true},
		{answer: "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", fails: true},
		{answer: "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", fails: true},
		{answer: "HTTP/1.1 2x0 OK\r\n\r\n", fails: true},
		{answer: "SSH-2.0-OpenSSH_9.2p1\r\n", fails: true},
		{answer: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno", fails: true, closes: true},
		{answer: "", fails: true, closes: true},
	} {
		asked := make(chan string, 2)
		target, connections := scripted(t, c.answer, c.closes, asked)
		caller := target.caller(identity{7, "secret"})
		for range 2 {
			status, body, err := caller.call(t.Context(), "POST", "/path?q=1", []byte("body"))
			if (err != nil) != c.fails || status != c.status && !c.fails || string(body) != c.want && !c.fails {
				t.Errorf("%.60q: HTTP %d, %.60q, %v", c.answer, status, body, err)
			}
			want := "POST /base/path?q=1 HTTP/1.1\r\nHost: " + target.host +
				"\r\nAuthorization: Bearer secret\r\nNew-Api-User: 7\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nbody"
			if got := <-asked; got != want {
				t.Errorf("it asked %q, want %q", got, want)
			}
		}
		caller.close()
		want := 1
		if c.closes || c.fails {
			want = 2
		}
		if got := connections(); got != want {
			t.Errorf("%.60q: %d connections, want %d", c.answer, got, want)
		}
	}
}

// scripted is a server that gives every request the same answer.
func scripted(t *testing.T, answer string, closes bool, asked chan<- string) (*target, func() int) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan int)
	go func() {
		n := 0
		defer func() { done <- n }()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n++
			for r := bufio.NewReader(conn); ; {
				var head []byte
				for !bytes.HasSuffix(head, []byte("\r\n\r\nbody")) {
					b, err := r.ReadByte()
					if err != nil {
						break
					}
					head = append(head, b)
				}
				if len(head) == 0 {
					break
				}
				asked <- string(head)
				if _, err := io.WriteString(conn, answer); err != nil || closes {
					break
				}
			}
			_ = conn.Close()
		}
	}()
	target, err := newTarget("http://"+l.Addr().String()+"/base/", clock)
	if err != nil {
		t.Fatal(err)
	}
	return target, func() int {
		_ = l.Close()
		return <-done
	}
}

// TestCallerInterrupted cuts off a call that nobody answers.
func TestCallerInterrupted(t *testing.T) {
	asked := make(chan string, 1)
	target, connections := scripted(t, "", false, asked)
	ctx, cancel := context.WithCancel(t.Context())
	caller := target.caller(identity{})
	go func() {
		<-asked
		cancel()
	}()
	if _, _, err := caller.call(ctx, "GET", "/", []byte("body")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if n := connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestTarget(t *testing.T) {
	for text, want := range map[string]string{
		"http://host:81":       "host:81",
		"http://host/":         "host:80",
		"https://host/a/b/":    "host:443",
		"https://[::1]":        "[::1]:443",
		"http://[::1]:8080/x/": "[::1]:8080",
	} {
		got, err := newTarget(text, clock)
		if err != nil || got.address != want || strings.HasSuffix(got.prefix, "/") || (got.secure != nil) != (text[4] == 's') {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "host:80", "ftp://host", "http://", "http://%zz"} {
		if got, err := newTarget(text, clock); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out stream
		p := newProgress(&out, clock)
		p.begin("filling", "codes", 4_000_000)
		for n := int64(0); n <= 4_000_000; n += 1_000_000 {
			p.done(n)
			<-time.After(10 * time.Second)
		}
		p.begin("indexing", "", 0)
		p.say("%d done", 1)
		p.end()
		want := `filling [######------------------]  25% 1,000,000 of 4,000,000 codes, 100,000/s, 30s left
filling [############------------]  50% 2,000,000 of 4,000,000 codes, 100,000/s, 20s left
filling [##################------]  75% 3,000,000 of 4,000,000 codes, 100,000/s, 10s left
filling [########################] 100% 4,000,000 of 4,000,000 codes, 100,000/s
indexing…
1 done
`
		if got := out.String(); got != want {
			t.Errorf("it said\n%s, want\n%s", got, want)
		}

		var quick stream
		p = newProgress(&quick, clock)
		p.begin("filling", "codes", 2)
		p.done(1)
		p.done(2)
		p.end()
		if got := quick.String(); got != "" {
			t.Errorf("of something quick it said %q", got)
		}
	})
}

func TestReportTable(t *testing.T) {
	r := newReport("1.2")
	r.Machine = machine{"plan9", "mips", 3}
	s := &sample{elapsed: time.Second, errors: 1, first: errors.New("no luck"), ranOut: true}
	for range 1500 {
		s.hist.add(250 * time.Microsecond)
	}
	r.add(result{Bench: "redeem", Kind: "over HTTP", Codes: 10_000, Clients: 64}, []*sample{s}, 1)
	r.add(result{Bench: "redeem", Kind: "nothing"}, nil, 1)
	r.check(check{Bench: "redeem", Kind: "a", Value: 0.4, Bound: atLeast, Target: 0.5, Or: "b"})
	r.check(check{Bench: "redeem", Kind: "b", Value: 0.9, Bound: atLeast, Target: 0.8, Or: "a"})
	r.check(check{Bench: "footprint", Kind: "c", Value: 81.5, Unit: "MiB", Bound: atMost, Target: 80})
	r.Interrupted = true
	var out stream
	if err := r.write(&out, false); err != nil {
		t.Fatal(err)
	}
	want := `scrip 1.2 on plan9/mips, 3 processors

redeem      codes  clients  operations  errors  rate/s     p50     p90     p99     max
over HTTP  10,000       64       1,500       1   1,500  250 µs  250 µs  250 µs  250 µs

redeem, over HTTP: the first error was: no luck

against the targets   measured             target
redeem: a                 0.40      at least 0.50  not needed
redeem: b                 0.90      at least 0.80         met
footprint: c         81.50 MiB  at most 80.00 MiB      MISSED

redeem, over HTTP: the codes made for it ran out before the time was over

Interrupted: these are the measurements until then.
`
	if got := out.String(); got != want {
		t.Errorf("it printed\n%s, want\n%s", got, want)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 12_345_678: "12,345,678", -1000: "-1,000", -100: "-100"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is written %s", n, got)
		}
	}
	for ms, want := range map[float64]string{
		0.0123: "12 µs", 1.5: "1.5 ms", 12.34: "12.3 ms", 1234.5: "1234 ms", 14_230: "14.2s", 90_000: "1m30s",
	} {
		if got := duration(ms); got != want {
			t.Errorf("%g ms is written %s, want %s", ms, got, want)
		}
	}
}
