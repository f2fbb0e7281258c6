package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"testing"
	"time"
)

// serveEnv makes the test binary what the program is to bench footprint and
// push: a server on the directory and addresses that the environment names.
const serveEnv = "BENCH_TEST_SERVE"

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) == "" {
		os.Exit(m.Run())
	}
	if err := serveForTest(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveForTest() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	d := &database{now: clock, dir: os.Getenv("SCRIP_DATA_DIR"), secret: os.Getenv("SCRIP_SECRET")}
	if err := d.open(ctx); err != nil {
		return err
	}
	m, err := d.serveMachines(ctx, os.Getenv("SCRIP_MQTT_ADDR"))
	if err != nil {
		return err
	}
	m.send()
	s, err := serve(ctx, os.Getenv("SCRIP_HTTP_ADDR"), d.stores(), m, d.Keys(), d.limiter(), d.now)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return errors.Join(s.stop(), m.stop(), d.Close())
}

// clock is the real one: a test stands in for internal/app, which owns it.
func clock() time.Time { return time.Now() } //nolint:forbidigo // see above

// small is settings of a size for tests.
func small(t *testing.T) common {
	t.Helper()
	return common{Duration: 60 * time.Millisecond, Dir: t.TempDir(), Names: 20, JSON: true}
}

// stream is an output that tests read.
type stream struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

type command interface {
	Run(ctx context.Context, env *Env) error
}

// measured runs a command that prints JSON and reads what it printed.
func measured(t *testing.T, c command) report {
	t.Helper()
	var out, progress stream
	if err := c.Run(t.Context(), &Env{Stdout: &out, Stderr: &progress, Now: clock, Version: "test"}); err != nil {
		t.Fatalf("%v\n%s%s", err, &out, &progress)
	}
	r := readReport(t, out.String())
	if r.Interrupted {
		t.Error("the report says that it was interrupted")
	}
	for _, x := range r.Results {
		if x.Operations == 0 || x.Errors > 0 || x.Rate <= 0 || x.P50 <= 0 || x.P90 < x.P50 || x.P99 < x.P90 || x.Max < x.P99*0.98 || x.Seconds <= 0 {
			t.Errorf("not a sound result: %+v", x)
		}
	}
	return r
}

func readReport(t *testing.T, text string) report {
	t.Helper()
	var r report
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return r
}

// wantResults checks that there is a result for each kind and nothing else.
func wantResults(t *testing.T, r report, bench string, kinds ...string) {
	t.Helper()
	var got []string
	for _, x := range r.Results {
		if x.Bench == bench {
			got = append(got, x.Kind)
		}
	}
	if strings.Join(got, "; ") != strings.Join(kinds, "; ") {
		t.Errorf("%s: kinds %q, want %q", bench, got, kinds)
	}
}

// wantChecks checks that there is a check whose kind contains each text, with a
// value.
func wantChecks(t *testing.T, r report, bench string, texts ...string) {
	t.Helper()
	n := 0
	for _, c := range r.Checks {
		if c.Bench != bench {
			continue
		}
		if n < len(texts) && (!strings.Contains(c.Kind, texts[n]) || c.Value <= 0 || c.Target <= 0) {
			t.Errorf("check %+v, want one of %q", c, texts[n])
		}
		n++
	}
	if n != len(texts) {
		t.Errorf("%s: %d checks, want %d: %+v", bench, n, len(texts), r.Checks)
	}
}

// noLeftovers checks that nothing stays on the disk.
func noLeftovers(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("%s was left behind", e.Name())
	}
}
