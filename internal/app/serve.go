package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/api"
	"github.com/scrip-codes/scrip/internal/config"
	"github.com/scrip-codes/scrip/internal/console"
	"github.com/scrip-codes/scrip/internal/figures"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// Limits of the HTTP server. Removing ten million codes answers when it is done:
// that request lifts its timeouts.
const (
	connectionsMax    = 10_000
	headerTimeout     = 10 * time.Second
	readTimeout       = 30 * time.Second // headers and body
	writeTimeout      = time.Minute      // from the end of the headers to that of the answer
	idleTimeout       = 2 * time.Minute
	headerBytesMax    = 64 << 10
	streamsMax        = 100      // of one HTTP/2 connection
	unreadBytesMax    = 64 << 10 // of the bodies on one HTTP/2 connection
	drainTimeout      = 15 * time.Second
	sweepEvery        = time.Second
	jobsEvery         = time.Second
	forgetEvery       = time.Minute
	checkpointEvery   = time.Minute
	foldEvery         = time.Second
	noteEvery         = 10 * time.Second
	recountEvery      = 10 * time.Second // to look whether it is time to
	refreshEvery      = 5 * time.Second
	repeatedErrorRest = time.Minute
)

type serveCommand struct{}

// Help is shown with the command's flags.
func (*serveCommand) Help() string {
	return "The first start makes the database, the secret that locks it and the account root. It prints root's access token, " +
		"and a link that sets root's password, once."
}

// Run serves until the first interrupt, then finishes what is under way.
func (*serveCommand) Run(ctx context.Context, p *program) error {
	c, err := p.configure()
	if err != nil {
		return err
	}
	err = p.serve(ctx, &c, nil)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil // stopped while starting
	}
	return err
}

// running is a server that is ready.
type running struct {
	HTTP, MQTT  string // addresses, as URLs
	accounts    *account.Service
	redemptions *redemption.Service
	machines    *machines
}

// serve starts the parts in the order in which they need each other, and stops
// them in reverse. Ready, if not nil, is called once all are there.
func (p *program) serve(ctx context.Context, c *config.Config, ready func(*running)) (err error) {
	log := slog.New(slog.NewTextHandler(p.Stderr, &slog.HandlerOptions{Level: c.LogLevel}))
	m := newMeters()

	log.InfoContext(ctx, "starting", "version", p.Version, "database", where(c))
	s, err := open(ctx, c, opening{create: true, write: true, token: p.Stdout, limited: true, onCommit: m.committed})
	for _, w := range c.Warnings {
		log.WarnContext(ctx, "check the configuration", "warning", w)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, s.Close()); err == nil {
			log.InfoContext(ctx, "stopped")
		}
	}()

	listener, err := listen(ctx, "SCRIP_HTTP_ADDR", c.HTTPAddr)
	if err != nil {
		return err
	}
	duties := newDuties(s.engine, log)
	machines := newMachines(s, c, log, limiter(c, "machines", s.engine))
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	mqttAddress, err := machines.start(ctx, c, duties, giveUp, m.registry)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, machines.stop(context.WithoutCancel(ctx))) }()

	// Background work stops when draining begins, at its next step.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	redemptions := redemption.NewService(s.engine, s.Keys(), limiter(c, "redeems", s.engine), now)
	overview := figures.NewService(s.engine, now)
	verifications := account.NewVerifications(account.VerificationsConfig{
		Store: s.engine, Keys: s.Keys(), Walk: s.verify, Work: work, Log: log, Now: now,
	})
	var serving atomic.Bool
	people, err := console.New(console.Config{
		Accounts:       s.accounts,
		Redemptions:    redemptions,
		Fleet:          machines.fleet,
		Pickups:        machines.pickups,
		Figures:        overview,
		Keys:           s.Keys(),
		Log:            log,
		Now:            now,
		TrustedProxies: c.TrustedProxies,
		SecureCookies:  c.Certificate != nil,
		Work:           work,
		Version:        p.Version,
		MQTTAddress:    mqttAddress,
		Database:       kind(c),
		GuessLimit:     c.GuessLimit,
		GuessWindow:    c.GuessWindow,
		Verifications:  verifications,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	programs := api.New(api.Config{
		Accounts:       s.accounts,
		Redemptions:    redemptions,
		Fleet:          machines.fleet,
		Pickups:        machines.pickups,
		Keys:           s.Keys(),
		Log:            log,
		Now:            now,
		TrustedProxies: c.TrustedProxies,
		Ready:          readiness(&serving, s.Ping),
		Registry:       m.registry,
		Work:           work,
		SecureCookies:  c.Certificate != nil,
		Version:        p.Version,
		MQTT:           machines.mayAsk(c),
	})
	server := newServer(log, compose(programs, people, machines.web()))
	var jobs sync.WaitGroup
	jobs.Go(func() { limitMemory(work) })
	for _, j := range []job{
		{"sweeping expired codes", sweepEvery, redemptions.Sweep},
		{"sweeping expired pickup codes", sweepEvery, machines.pickups.Sweep},
		{"forgetting old answers and sessions", forgetEvery, s.accounts.Forget},
		{"tying the ledger's lanes together", checkpointEvery, s.checkpoint},
		{"adding up activity", foldEvery, overview.Fold},
		{"noting who is online", noteEvery, overview.NotePresence},
		{"noting what is outstanding", noteEvery, overview.NoteOutstanding},
		{"counting what codes are worth", recountEvery, overview.Recount},
	} {
		jobs.Go(func() { every(work, j.every, log, j.what, duties.once(j.what, j.every, j.do)) })
	}
	jobs.Go(func() { every(work, jobsEvery, log, "making and removing many codes", redemptions.RunJobs) })
	for _, refresh := range []func(context.Context) error{
		s.accounts.RefreshGuesses, redemptions.RefreshGuesses, machines.fleet.RefreshGuesses,
	} {
		jobs.Go(func() { every(work, refreshEvery, log, "asking whose guesses were forgiven", refresh) })
	}
	defer func() {
		stopWork()
		jobs.Wait()
		verifications.Wait()
	}()

	served := make(chan error, 1)
	go func() { served <- serveOn(server, listener, c.Certificate) }()
	serving.Store(true)
	r := &running{
		HTTP: address("http", listener, c.Certificate != nil), MQTT: mqttAddress,
		accounts: s.accounts, redemptions: redemptions, machines: machines,
	}
	if s.newRoot {
		if err := s.welcome(ctx, p.Stdout, listener.Addr().String(), c.Certificate != nil); err != nil {
			return errors.Join(err, server.Close())
		}
	}
	log.InfoContext(ctx, "ready", "address", r.HTTP, "mqtt", r.MQTT)
	if ready != nil {
		ready(r)
	}

	select {
	case err := <-served:
		return fmt.Errorf("serving HTTP: %w", err)
	case <-ctx.Done():
	}
	log.InfoContext(work, "stopping: finishing what is under way; a second signal ends at once")
	serving.Store(false)
	stopWork()
	err = drain(ctx, log, server)
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// compose is HTTP for programs, for people, and for machines.
func compose(programs, people, machines http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/mqtt" && r.Method == http.MethodGet:
			machines.ServeHTTP(w, r)
		case api.Serves(r.URL.Path):
			programs.ServeHTTP(w, r)
		default:
			people.ServeHTTP(w, r)
		}
	})
}

// limiter limits the guesses at what name says, of all servers together if the
// database keeps their counts.
func limiter(c *config.Config, name string, engine any) *guess.Limiter {
	if store, ok := engine.(guess.Store); ok {
		return guess.Shared(name, c.GuessLimit, c.GuessWindow, now, store)
	}
	return guess.New(c.GuessLimit, c.GuessWindow, now)
}

// job is work that is done now and then, by one of the servers of a database.
type job struct {
	what  string
	every time.Duration
	do    func(context.Context) error
}

// readiness asks ping once the server serves, and until it stops. Why it is not
// ready is told in a few words; what ping says is for the log.
func readiness(serving *atomic.Bool, ping func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if !serving.Load() {
			return api.NotReady("starting or stopping")
		}
		if err := ping(ctx); err != nil {
			return fmt.Errorf("%w: %w", api.NotReady("database not writable or keys not usable"), err)
		}
		return nil
	}
}

// newServer returns the HTTP server, with every limit that it has.
func newServer(log *slog.Logger, h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytesMax,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          streamsMax,
			MaxReceiveBufferPerConnection: unreadBytesMax,
			MaxReceiveBufferPerStream:     unreadBytesMax,
			WriteByteTimeout:              writeTimeout,
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

func serveOn(server *http.Server, l net.Listener, certificate *config.Redacted[tls.Certificate]) error {
	l = netutil.LimitListener(l, connectionsMax)
	if certificate == nil {
		return server.Serve(l)
	}
	server.TLSConfig = tlsConfig(certificate)
	return server.ServeTLS(l, "", "")
}

func tlsConfig(certificate *config.Redacted[tls.Certificate]) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate.Reveal()}}
}

// drain lets requests that are under way finish, for a while.
func drain(ctx context.Context, log *slog.Logger, server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		log.WarnContext(ctx, "some requests did not finish in time and were cut off", "after", drainTimeout)
		err = server.Close()
	}
	if err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	return nil
}

// listen opens the address that a setting names.
func listen(ctx context.Context, setting, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is taken by another program: stop that, or choose another port", setting, addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: this user may not listen on %s: choose a port above 1023", setting, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: %s is not an address of this machine: use one of its own, or :PORT for all", setting, addr)
	}
	return nil, fmt.Errorf("%s: cannot listen on %s: %w", setting, addr, err)
}

// address is where a protocol is served, as a URL.
func address(protocol string, l net.Listener, secure bool) string {
	if secure {
		protocol += "s"
	}
	return protocol + "://" + l.Addr().String()
}

// where is where the database is, as a person looks for it.
func where(c *config.Config) string {
	if c.Embedded() {
		if abs, err := filepath.Abs(c.Database); err == nil {
			return abs
		}
	}
	return c.Database
}

// kind is the name of the database's kind.
func kind(c *config.Config) string {
	if c.Embedded() {
		return "SQLite"
	}
	return "PostgreSQL"
}

// every runs do at intervals until ctx ends. An error that repeats is logged
// once in a while, with how often it came.
func every(ctx context.Context, interval time.Duration, log *slog.Logger, what string, do func(context.Context) error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var said time.Time
	failed := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := do(ctx); err != nil && ctx.Err() == nil {
			failed++
			if t := now(); t.Sub(said) >= repeatedErrorRest {
				log.ErrorContext(ctx, "background work failed", "work", what, "error", err, "times", failed)
				said, failed = t, 0
			}
		}
	}
}
