package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	// starts is how often the server is started to time it.
	starts = 3
	// readyWithin bounds a start, stopWithin a stop.
	readyWithin = time.Minute
	stopWithin  = 20 * time.Second
)

// footprint fills a database and measures the server on it, in a process of
// its own: how soon it is ready, and how much memory it takes.
func (s *settings) footprint(ctx context.Context) error {
	r, err := s.prepare(ctx, filling{codes: s.codes, names: s.names, expired: 1, users: s.clients})
	if err != nil {
		return err
	}
	return s.footprintOf(ctx, r)
}

// footprintOf closes the database and serves it with the program itself.
func (s *settings) footprintOf(ctx context.Context, r *ready) error {
	if err := r.close(); err != nil {
		return err
	}
	s.progress.say("starting the server %d times", starts)
	var ready []float64
	for i := range starts {
		p, err := s.start(ctx, r.database)
		if err != nil {
			return err
		}
		ready = append(ready, p.ready.Seconds())
		if i == starts-1 {
			err = s.use(ctx, p, r)
		}
		if err := errors.Join(err, p.stop()); err != nil {
			return err
		}
		if over(ctx) {
			return nil
		}
	}
	s.report.check(check{
		Bench: "footprint", Kind: fmt.Sprintf("start with %s codes, until /readyz answers", grouped(r.contents.codes)),
		Value: median(ready), Unit: "s", Bound: atMost, Target: 0.5,
	})
	return nil
}

// process is a server that runs beside this one.
type process struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	output *tail
	target *target
	mqtt   string        // the address for machines
	ready  time.Duration // from its start until it was
}

// start runs "scrip serve" on the database and waits until it is ready.
func (s *settings) start(ctx context.Context, d *database) (*process, error) {
	program := s.env.Executable
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	p := &process{output: &tail{}}
	if p.mqtt, err = freeAddress(ctx); err != nil {
		return nil, err
	}
	if p.target, err = newTarget("http://"+address, s.env.Now); err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	p.cmd = exec.CommandContext(life, program, "serve") //nolint:gosec // G204: it is this very program
	p.cmd.Env = append(
		withoutSettings(os.Environ()),
		"SCRIP_DATA_DIR="+d.dir, "SCRIP_SECRET="+d.secret, "SCRIP_HTTP_ADDR="+address, "SCRIP_MQTT_ADDR="+p.mqtt,
	)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(os.Interrupt) }
	p.cmd.WaitDelay = stopWithin
	begun := s.env.Now()
	if err := p.cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("starting the server: %w", err)
	}
	if err := p.await(ctx, s.env.Now, begun); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// await asks until the server is ready.
func (p *process) await(ctx context.Context, now func() time.Time, begun time.Time) error {
	c := p.target.caller(identity{})
	defer c.close()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		status, _, err := c.call(ctx, "GET", "/readyz", nil)
		p.ready = now().Sub(begun)
		switch {
		case err == nil && status == 200:
			return nil
		case p.ready > readyWithin:
			return fmt.Errorf("the server was not ready after %s; the end of what it said: %s", readyWithin, p.output)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// stop ends the server as an operator would.
func (p *process) stop() error {
	p.cancel()
	err := p.cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.Is(err, context.Canceled) || errors.As(err, &exit) {
		if code := p.cmd.ProcessState.ExitCode(); code > 0 {
			return fmt.Errorf("the server ended with code %d; the end of what it said: %s", code, p.output)
		}
		return nil
	}
	return err
}

// use sends the server all kinds of requests for a while, and then reads how
// much memory it has.
func (s *settings) use(ctx context.Context, p *process, r *ready) error {
	r.server = &server{target: p.target}
	warm := *s
	warm.report, warm.clients, warm.compare = newReport(""), 4, 0
	if err := warm.pages(ctx, r.shelf([]string{benchList, benchSearch})); err != nil {
		return err
	}
	admin := &remote{target: p.target, admin: r.root}
	codes := &supply{rate: assumedRemote, least: 1, make: func(ctx context.Context, n int64, take func(string)) error {
		return admin.fresh(ctx, nameOf(0), n, take)
	}}
	callers := callersOf(p.target, r.users, s.clients)
	defer closeAll(callers)
	kept, err := rounds(ctx, s.duration, codes.load(s.env.Now, callers, func(context.Context) error { return nil }))
	s.report.add(result{
		Bench: "footprint", Kind: "redeem over HTTP, server in a process of its own", Codes: r.contents.codes, Clients: s.clients,
	}, kept[0], 1)
	if err != nil || over(ctx) {
		return err
	}
	now, most, err := memory(p.cmd.Process.Pid)
	if err != nil {
		s.report.note("footprint: how much memory a process has is read on Linux only (%v).", err)
		return nil
	}
	s.report.check(check{
		Bench: "footprint", Kind: fmt.Sprintf("memory with %s codes, after all kinds of requests", grouped(r.contents.codes)),
		Value: now, Unit: "MiB", Bound: atMost, Target: 80,
	})
	s.report.note("footprint: at its most the server had %.1f MiB.", most)
	return nil
}

// memory is the resident memory of a process, now and at its most, in MiB.
func memory(pid int) (now, most float64, err error) {
	if runtime.GOOS != "linux" {
		return 0, 0, errors.ErrUnsupported
	}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		into := &now
		switch name {
		case "VmHWM":
			into = &most
		case "VmRSS":
		default:
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
		if err != nil {
			return 0, 0, err
		}
		*into = n / 1024
	}
	return now, most, nil
}

// freeAddress is a loopback address with a port that nobody listens on.
func freeAddress(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", loopback)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// withoutSettings leaves out the settings of whoever runs the bench.
func withoutSettings(environ []string) []string {
	var out []string
	for _, kv := range environ {
		if !strings.HasPrefix(kv, "SCRIP_") {
			out = append(out, kv)
		}
	}
	return out
}

// tail keeps the end of what is written to it. One goroutine writes at a time.
type tail struct{ b []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	const kept = 2 << 10
	t.b = append(t.b, p...)
	if len(t.b) > 2*kept {
		t.b = append(t.b[:0], t.b[len(t.b)-kept:]...)
	}
	return len(p), nil
}

// String is what was kept.
func (t *tail) String() string { return strings.TrimSpace(string(t.b)) }
