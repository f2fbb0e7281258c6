package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/api"
	"github.com/scrip-codes/scrip/internal/broker"
	"github.com/scrip-codes/scrip/internal/console"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/figures"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/postgres"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/sqlite"
)

// databaseFile is what scrip serve calls it, so that it can serve it too.
const databaseFile = "scrip.db"

// engine is what is measured of a database of either kind.
type engine interface {
	account.Store
	redemption.Store
	fleet.Store
	pickup.Store
	delivery.Store
	figures.Store
	Keys() *keyring.Keys
	Close() error
}

// database is one in a directory of its own or on a PostgreSQL, with the accounts
// that redeem.
type database struct {
	engine
	now      func() time.Time
	dir      string // of SQLite's
	address  string // of PostgreSQL's
	secret   string
	accounts *account.Service
	root     identity
	users    []identity

	groups, grouped atomic.Int64 // commits of redeems, and the redeems in them
}

// newDatabase makes an empty database of the engine that is measured.
func (s *settings) newDatabase(ctx context.Context) (*database, error) {
	if s.postgres == nil {
		return newDatabase(ctx, s.dir, s.env.Now)
	}
	address, err := s.postgres.create(ctx)
	if err != nil {
		return nil, err
	}
	return begin(ctx, &database{now: s.env.Now, address: address})
}

// newDatabase makes an empty SQLite database in a new directory below dir.
func newDatabase(ctx context.Context, dir string, now func() time.Time) (*database, error) {
	dir, err := os.MkdirTemp(dir, "database-")
	if err != nil {
		return nil, err
	}
	return begin(ctx, &database{now: now, dir: dir})
}

// begin opens an empty database and makes its first account.
func begin(ctx context.Context, d *database) (*database, error) {
	d.secret, d.root = account.NewToken(), identity{1, account.NewToken()}
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	if _, err := d.accounts.Bootstrap(ctx, d.root.token); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *database) path() string { return filepath.Join(d.dir, databaseFile) }

func (d *database) open(ctx context.Context) error {
	onCommit := func(redeems int, _ time.Duration) {
		d.groups.Add(1)
		d.grouped.Add(int64(redeems))
	}
	secrets := []string{d.secret}
	if d.address != "" {
		db, err := postgres.Open(ctx, postgres.Options{URL: d.address, Secrets: secrets, Now: d.now, OnCommit: onCommit})
		if err != nil {
			return fmt.Errorf("opening a database to measure: %w", err)
		}
		d.engine = db
	} else {
		db, err := sqlite.Open(ctx, sqlite.Options{Path: d.path(), Secrets: secrets, Now: d.now, OnCommit: onCommit})
		if err != nil {
			return fmt.Errorf("opening a database to measure: %w", err)
		}
		d.engine = db
	}
	d.accounts = account.NewService(d.engine, nil, d.now)
	return nil
}

// backup copies an SQLite database to another file.
func (d *database) backup(ctx context.Context, path string) error {
	db, ok := d.engine.(*sqlite.DB)
	if !ok {
		return fmt.Errorf("%T is copied by its own programs", d.engine)
	}
	return db.Backup(ctx, path)
}

// addUsers makes n accounts, since those who redeem are many.
func (d *database) addUsers(ctx context.Context, n int) error {
	for range n {
		token := account.NewToken()
		u, err := d.accounts.Create(ctx, account.Operator(), account.CreateRequest{
			Username: fmt.Sprintf("bench-%d", len(d.users)+1), Token: token,
		})
		if err != nil {
			return fmt.Errorf("making accounts: %w", err)
		}
		d.users = append(d.users, identity{u.ID, token})
	}
	return nil
}

// actor is the root account, as the one who issues.
func (d *database) actor() account.Actor {
	return account.Actor{ID: d.root.id, Role: account.RoleRoot, Address: "127.0.0.1"}
}

// server is the API and the console on a loopback port of this process.
type server struct {
	target *target
	url    string
	stop   func() error
}

// serve serves the database as scrip serve does, but for machines.
func (d *database) serve(ctx context.Context) (*server, error) {
	return serve(ctx, loopback, d.stores(), d.newMachines(), d.Keys(), d.limiter(), d.now)
}

// limiter limits failed guesses as scrip serve does: together with other servers
// if there may be some.
func (d *database) limiter() *guess.Limiter {
	store, _ := d.engine.(guess.Store)
	return guess.Shared("redemption", 20, 10*time.Minute, d.now, store)
}

// stores is what a server asks. Without figures nobody asks for them.
type stores struct {
	accounts account.Store
	codes    redemption.Store
	figures  figures.Store
}

func (d *database) stores() stores { return stores{d.engine, d.engine, d.engine} }

// loopback is a port of this machine that is free.
const loopback = "127.0.0.1:0"

// serve serves stores. Requests are logged as scrip serve logs them, though to
// nowhere. What is done every second there is done here.
func serve(
	ctx context.Context, address string, from stores, machines *machines,
	keys *keyring.Keys, guesses *guess.Limiter, now func() time.Time,
) (_ *server, err error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	log := slog.New(slog.NewTextHandler(io.Writer(nowhere), nil))
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	accounts := account.NewService(from.accounts, nil, now)
	redemptions := redemption.NewService(from.codes, keys, guesses, now)
	overview := figures.NewService(from.figures, now)
	people, err := console.New(console.Config{
		Accounts:    accounts,
		Redemptions: redemptions,
		Fleet:       machines.fleet,
		Pickups:     machines.pickups,
		Figures:     overview,
		Keys:        keys,
		Log:         log,
		Now:         now,
		Work:        work,
		Version:     "bench",
		Verifications: account.NewVerifications(account.VerificationsConfig{
			Store: from.accounts, Keys: keys, Work: work, Log: log, Now: now,
		}),
	})
	if err != nil {
		stopWork()
		return nil, errors.Join(err, nowhere.Close(), listener.Close())
	}
	programs := api.New(api.Config{
		Accounts:    accounts,
		Redemptions: redemptions,
		Fleet:       machines.fleet,
		Pickups:     machines.pickups,
		Keys:        keys,
		Log:         log,
		Now:         now,
		Registry:    prometheus.NewRegistry(),
		Work:        work,
		Version:     "bench",
	})
	h := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if api.Serves(r.URL.Path) {
				programs.ServeHTTP(w, r)
			} else {
				people.ServeHTTP(w, r)
			}
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	var jobs sync.WaitGroup
	jobs.Go(func() { _ = h.Serve(listener) }) // it ends when it is closed
	jobs.Go(func() { everySecond(work, redemptions.Sweep) })
	if from.figures != nil {
		jobs.Go(func() { everySecond(work, overview.Fold) })
	}
	s := &server{url: "http://" + listener.Addr().String()}
	s.stop = func() error {
		stopWork()
		err := h.Close()
		jobs.Wait()
		return errors.Join(err, nowhere.Close())
	}
	if s.target, err = newTarget(s.url, now); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// machines is the part of a server that is for vending machines: the use cases,
// the outbox and the broker, as scrip serve has them.
type machines struct {
	fleet   *fleet.Service
	pickups *pickup.Service
	outbox  *delivery.Outbox
	watch   *fleet.Watch
	broker  *broker.Embedded
	address string

	work     context.Context
	stopWork context.CancelFunc
	jobs     sync.WaitGroup
	failed   error // of the outbox
}

// newMachines returns the use cases alone.
func (d *database) newMachines() *machines {
	log := slog.New(slog.DiscardHandler)
	m := &machines{outbox: delivery.New(d.engine, log), watch: fleet.NewWatch(d.engine, d.now, log)}
	m.fleet = fleet.NewService(d.engine, d.Keys(), nil, d.now, m.outbox.Changed)
	m.pickups = pickup.NewService(d.engine, d.Keys(), d.now, m.outbox.Changed)
	return m
}

// serveMachines lets machines connect. They are sent nothing before send.
func (d *database) serveMachines(ctx context.Context, address string) (*machines, error) {
	if err := d.Begin(ctx); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	m := d.newMachines()
	m.address = listener.Addr().String()
	m.broker, err = broker.Start(broker.Config{
		Listener: listener, Fleet: m.fleet, Watch: m.watch, Pickups: m.pickups, Outbox: m.outbox,
		Log: slog.New(slog.DiscardHandler), Now: d.now, Registry: prometheus.NewRegistry(),
	})
	if err != nil {
		return nil, err
	}
	m.work, m.stopWork = context.WithCancel(context.WithoutCancel(ctx))
	m.jobs.Go(func() { m.watch.Run(m.work) })
	return m, nil
}

// send sends the machines what waits for them, from now on.
func (m *machines) send() {
	m.jobs.Go(func() {
		if m.failed = m.outbox.Begin(m.work); m.failed == nil {
			m.outbox.Run(m.work, m.broker)
		}
	})
}

func (m *machines) stop() error {
	err := m.broker.Close()
	m.stopWork()
	m.jobs.Wait()
	return errors.Join(err, m.failed)
}

func everySecond(ctx context.Context, do func(context.Context) error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = do(ctx) // what it leaves, the next one does
		}
	}
}

// instantAccounts and instantCodes answer at once what a database would have to
// find out: what is left of a redeem's time is that of HTTP and of the rules.
type instantAccounts struct {
	account.Store
	users map[account.Hash]account.User
}

type instantCodes struct{ redemption.Store }

func newInstantAccounts(users []identity) instantAccounts {
	s := instantAccounts{users: map[account.Hash]account.User{}}
	for _, u := range users {
		s.users[account.HashToken(u.token)] = account.User{
			ID: u.id, Username: "bench", Role: account.RoleUser, Status: account.StatusEnabled,
		}
	}
	return s
}

// UserByToken implements account.Store.
func (s instantAccounts) UserByToken(_ context.Context, token account.Hash) (account.User, error) {
	return s.users[token], nil
}

// Redeem implements redemption.Store.
func (instantCodes) Redeem(context.Context, redemption.Attempt) (int64, error) { return quota, nil }

// Sweep implements redemption.Store.
func (instantCodes) Sweep(context.Context, time.Time) (int64, error) { return 0, nil }
