// Package bench is the scrip bench command: it measures a running server, or
// one that it starts itself over a database in a temporary directory, on the
// machine at hand, and holds what it finds against the ceilings of that machine:
// the same durable transactions straight through the driver, the same handler
// over a store that answers at once, and the same messages through the bare
// broker. It also breaks servers, PostgreSQL and Mosquitto under load, and checks
// that nothing is lost or doubled (chaos.go). Imports: the domain packages, api,
// broker, console, device, rig, the engines, wire, the drivers, the MQTT libraries,
// porcupine and the Prometheus client.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
)

// Env is what a measurement needs of the program that it runs in.
type Env struct {
	Stdout  io.Writer // for the report
	Stderr  io.Writer // for progress
	Now     func() time.Time
	Version string
	// Executable is the program whose "serve" is measured as a process of its
	// own; empty: this one.
	Executable string
}

// Command is the command line of scrip bench, for kong. Its Run methods are
// given the context, whose end cuts a run short and still prints what it has
// measured, and the *Env.
type Command struct {
	Redeem    redeemCommand    `cmd:"" help:"Users redeem codes, each one code after the other."`
	Issue     issueCommand     `cmd:"" help:"Admins make batches of 100 codes."`
	List      listCommand      `cmd:"" help:"Pages of the list: first, middle and last, and each status."`
	Search    searchCommand    `cmd:"" help:"Searches by name, id and key."`
	Console   consoleCommand   `cmd:"" help:"Every page of the console, and redeems while it is looked at."`
	Purge     purgeCommand     `cmd:"" help:"Removal of invalid codes, and redeems meanwhile."`
	Push      pushCommand      `cmd:"" help:"Pickup codes on their way to vending machines, connected and coming back."`
	Footprint footprintCommand `cmd:"" help:"Time to start, and memory, of the server as a process."`
	Chaos     chaosCommand     `cmd:"" help:"Break servers, PostgreSQL and Mosquitto under load, and check that nothing is lost or doubled."`
	All       allCommand       `cmd:"" help:"All of these, one after the other."`
}

// common is what every measurement is told.
type common struct {
	Duration time.Duration `default:"10s" help:"How long to measure each thing, without what it takes to prepare."`
	Dir      string        `placeholder:"DIR" help:"Put the databases in a directory below this one, and remove them at the end. Choose the disk that matters; the default is the system's directory for temporary files."`
	Names    int64         `default:"1000" help:"How many distinct names the codes have."`
	JSON     bool          `help:"Print JSON."`
}

// where says which database is measured.
type where struct {
	Engine      string `default:"sqlite" enum:"sqlite,postgres" help:"What to measure: ${enum}. PostgreSQL is one of its own, durable and with its defaults, unless --postgres-url names one."`
	PostgresURL string `name:"postgres-url" placeholder:"URL" help:"With --engine postgres: measure on that PostgreSQL, in databases that are made there and dropped at the end, as a role that may make them."`
}

// elsewhere names a server that is running.
type elsewhere struct {
	URL    string `name:"url" placeholder:"URL" help:"Measure this server, instead of one of its own. What is made there for it stays there."`
	Token  string `placeholder:"TOKEN" env:"SCRIP_BENCH_TOKEN" setting:"SCRIP_BENCH_TOKEN" help:"Access token of an admin there. Better set in the environment: other users of the machine can see flags."`
	UserID int64  `name:"user-id" placeholder:"N" help:"Id of that admin."`
}

type redeemCommand struct {
	common
	where
	elsewhere

	Codes   int64 `default:"10000" help:"How many codes are in the database, beside those to be redeemed."`
	Clients int   `default:"64" help:"How many redeem at once."`
	Ceiling bool  `help:"Measure in turns with the bare driver, with a store that answers at once, and with one client alone, and print the ratios."`
}

// Run measures redeems.
func (c *redeemCommand) Run(ctx context.Context, env *Env) error {
	s := settings{codes: c.Codes, clients: c.Clients, ceiling: c.Ceiling, where: c.where}
	return c.run(ctx, env, &s, &c.elsewhere, s.redeem)
}

type issueCommand struct {
	common
	where
	elsewhere

	Codes   int64 `default:"10000" help:"How many codes are in the database at the start."`
	Clients int   `default:"64" help:"How many issue at once."`
	Ceiling bool  `help:"Measure in turns with the bare driver, and print the ratio."`
}

// Run measures batches.
func (c *issueCommand) Run(ctx context.Context, env *Env) error {
	s := settings{codes: c.Codes, clients: c.Clients, ceiling: c.Ceiling, where: c.where}
	return c.run(ctx, env, &s, &c.elsewhere, s.issue)
}

// paging is what list and search are told.
type paging struct {
	common
	where
	elsewhere

	Codes   int64 `default:"10000" help:"How many codes are in the database; up to 10000000."`
	Clients int   `default:"1" help:"How many ask at once."`
	Compare int64 `placeholder:"N" help:"Ask a second database with N codes too, in turns, and print how much longer each request takes in the first."`
}

func (p *paging) settings() *settings {
	return &settings{codes: p.Codes, clients: p.Clients, compare: p.Compare, where: p.where}
}

type listCommand struct{ paging }

// Run measures pages of the list.
func (c *listCommand) Run(ctx context.Context, env *Env) error {
	s := c.settings()
	return c.run(ctx, env, s, &c.elsewhere, s.list)
}

type searchCommand struct{ paging }

// Run measures searches.
func (c *searchCommand) Run(ctx context.Context, env *Env) error {
	s := c.settings()
	return c.run(ctx, env, s, &c.elsewhere, s.search)
}

type purgeCommand struct {
	common
	where

	Codes   int64 `default:"200000" help:"How many codes are in the database; nearly all have expired."`
	Clients int   `default:"64" help:"How many redeem meanwhile."`
	Compare int64 `placeholder:"N" help:"Measure the steps of cleaning up too, in turns with those in a second database with N codes."`
}

// Run measures the removal of invalid codes.
func (c *purgeCommand) Run(ctx context.Context, env *Env) error {
	s := settings{codes: c.Codes, clients: c.Clients, compare: c.Compare, where: c.where}
	return c.run(ctx, env, &s, nil, s.purge)
}

type footprintCommand struct {
	common

	Codes   int64 `default:"100000" help:"How many codes are in the database."`
	Clients int   `default:"64" help:"How many redeem at once."`
}

// Run measures the server as a process.
func (c *footprintCommand) Run(ctx context.Context, env *Env) error {
	s := settings{codes: c.Codes, clients: c.Clients}
	return c.run(ctx, env, &s, nil, s.footprint)
}

type allCommand struct {
	common

	Codes   int64 `default:"100000" help:"How many codes are in the database for lists, searches, the console and footprint; up to 10000000."`
	Compare int64 `default:"10000" placeholder:"N" help:"How many are in the one that lists, searches and the console are compared with."`
	Clients int   `default:"64" help:"How many redeem or issue at once."`
	Ceiling bool  `help:"Measure redeems, issues and backlogs against their ceilings."`

	Machines int `default:"1000" help:"How many virtual machines are connected, for push."`

	Engine      string `default:"both" enum:"both,sqlite,postgres" help:"What to measure: ${enum}. Machines and the footprint are measured with SQLite alone."`
	PostgresURL string `name:"postgres-url" placeholder:"URL" help:"Measure on that PostgreSQL, in databases that are made there and dropped at the end, as a role that may make them, instead of on one of its own."`
}

// Run measures everything.
func (c *allCommand) Run(ctx context.Context, env *Env) error {
	s := settings{
		codes: c.Codes, clients: c.Clients, compare: c.Compare, ceiling: c.Ceiling,
		machines: c.Machines, rate: min(1000, 50*c.Machines), backlog: min(20_000, 50*c.Machines),
		where: where{c.Engine, c.PostgresURL},
	}
	if err := s.checkPush(min(c.Duration, pushMost)); err != nil {
		return err
	}
	return c.run(ctx, env, &s, nil, s.all)
}

// settings is what a measurement works with.
type settings struct {
	env      *Env
	report   *report
	progress *progress
	dir      string // a directory of its own
	remote   *remote
	where    where
	postgres *postgresServer // nil: SQLite is measured

	codes, names, compare int64
	clients               int
	machines              int // virtual ones, for push; and what they are sent
	rate, backlog         int
	duration              time.Duration
	ceiling               bool

	left error // of what was closed
}

// title is what a kind of measurement is called in the report.
func (s *settings) title(bench string) string {
	if s.postgres == nil {
		return bench
	}
	return bench + ", PostgreSQL"
}

// closing keeps the error of closing something that has been measured.
func (s *settings) closing(err error) { s.left = errors.Join(s.left, err) }

// The most that may be asked for.
const (
	codesMax   = 10_000_000
	namesMax   = 100_000
	clientsMax = 4096

	durationMax = time.Hour
)

func (c *common) check(s *settings) error {
	switch {
	case s.codes < 1 || s.codes > codesMax:
		return fmt.Errorf("--codes: give a number between 1 and %d", codesMax)
	case s.compare < 0 || s.compare > codesMax:
		return fmt.Errorf("--compare: give a number between 1 and %d", codesMax)
	case c.Names < 1 || c.Names > namesMax:
		return fmt.Errorf("--names: give a number between 1 and %d", namesMax)
	case s.clients < 1 || s.clients > clientsMax:
		return fmt.Errorf("--clients: give a number between 1 and %d", clientsMax)
	case c.Duration <= 0 || c.Duration > durationMax:
		return fmt.Errorf("--duration: give a time up to %s, like 10s or 1m", durationMax)
	}
	return nil
}

// run prepares a measurement, makes it, and prints what it found, also when it
// was interrupted.
func (c *common) run(
	ctx context.Context, env *Env, s *settings, from *elsewhere, measure func(context.Context) error,
) (err error) {
	if err := c.check(s); err != nil {
		return err
	}
	s.env, s.names, s.duration = env, c.Names, c.Duration
	s.report, s.progress = newReport(env.Version), newProgress(env.Stderr, env.Now)
	defer s.progress.end()
	if from != nil && from.URL != "" {
		err = s.goElsewhere(ctx, from)
	} else {
		if s.dir, err = os.MkdirTemp(c.Dir, "scrip-bench-"); err == nil {
			defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
			s.warnOfMemory()
			if s.where.Engine == enginePostgres || s.where.Engine == engineBoth {
				if s.postgres, err = startPostgres(ctx, s.where.PostgresURL, s.dir); err == nil {
					server := s.postgres
					defer func() { err = errors.Join(err, server.stop(ctx)) }()
				}
			}
		}
	}
	if err != nil {
		return err
	}
	err = errors.Join(measure(ctx), s.left)
	s.progress.end()
	if over(ctx) {
		s.report.Interrupted = true
		err = nil
	}
	if err != nil && len(s.report.Results) == 0 {
		return err
	}
	return errors.Join(s.report.write(env.Stdout, c.JSON), err)
}

// warnOfMemory notes that the databases are where nothing is ever on a disk.
func (s *settings) warnOfMemory() {
	if inMemory(s.dir) {
		s.report.note("The databases were in memory, where a durable commit costs nothing: " +
			"choose a directory on the disk that matters with --dir.")
	}
}

func (s *settings) goElsewhere(ctx context.Context, from *elsewhere) error {
	if s.where.Engine == enginePostgres {
		return errors.New("--engine is that of a server of its own: leave out --url")
	}
	if s.ceiling || s.compare > 0 {
		return errors.New("--ceiling and --compare need a server of their own: leave out --url")
	}
	if from.Token == "" || from.UserID < 1 {
		return errors.New("--url needs --token and --user-id of an admin of that server")
	}
	t, err := newTarget(from.URL, s.env.Now)
	if err != nil {
		return err
	}
	s.remote = &remote{target: t, admin: identity{from.UserID, from.Token}}
	return s.remote.check(ctx)
}

// mustBeAdmin checks the account that the server says is asking.
func mustBeAdmin(data json.RawMessage) error {
	var u struct {
		Username string       `json:"username"`
		Role     account.Role `json:"role"`
	}
	if err := json.Unmarshal(data, &u); err != nil {
		return fmt.Errorf("the server's account is not one: %w", err)
	}
	if u.Role < account.RoleAdmin {
		return errors.New("--token: " + strconv.Quote(u.Username) + " is no admin of that server")
	}
	return nil
}

// measuring says what is being measured, if it takes long enough to wonder.
func (s *settings) measuring(format string, args ...any) {
	if s.duration >= quietFor {
		s.progress.say(format, args...)
	}
}

// apart makes a measurement with other settings, for the same report.
func (s *settings) apart(
	ctx context.Context, measure func(*settings, context.Context) error, change func(*settings),
) error {
	if over(ctx) {
		return nil
	}
	other := *s
	other.left = nil
	change(&other)
	err := measure(&other, ctx)
	return errors.Join(err, other.left)
}

// all measures everything, with one engine after the other.
func (s *settings) all(ctx context.Context) error {
	if s.where.Engine != enginePostgres {
		onSQLite := func(c *settings) { c.postgres = nil }
		if err := s.apart(ctx, (*settings).allOf, onSQLite); err != nil {
			return err
		}
	}
	if s.postgres == nil {
		return nil
	}
	return s.apart(ctx, (*settings).allOf, func(*settings) {})
}

// allOf measures everything with one engine, the large database filled once for all
// that need it.
func (s *settings) allOf(ctx context.Context) error {
	small := func(c *settings) { c.codes = min(s.codes, 10_000) }
	if err := s.apart(ctx, (*settings).redeem, small); err != nil {
		return err
	}
	if err := s.apart(ctx, (*settings).issue, small); err != nil {
		return err
	}
	if err := s.apart(ctx, (*settings).purge, func(c *settings) { c.codes, c.compare = min(s.codes, 200_000), 0 }); err != nil {
		return err
	}
	if s.postgres == nil {
		if err := s.apart(ctx, (*settings).push, func(c *settings) { c.duration = min(s.duration, pushMost) }); err != nil {
			return err
		}
	}
	if over(ctx) {
		return nil
	}
	r, err := s.prepare(ctx, filling{codes: s.codes, names: s.names, expired: 1, users: s.clients})
	if err != nil {
		return err
	}
	err = s.apart(ctx, func(c *settings, ctx context.Context) error {
		return c.pagesIn(ctx, r, benchList, benchSearch)
	}, func(c *settings) { c.clients = 1 })
	if err == nil && !over(ctx) {
		err = s.apart(ctx, func(c *settings, ctx context.Context) error { return c.consoleIn(ctx, r) }, func(*settings) {})
	}
	if err == nil && !over(ctx) {
		err = s.apart(ctx, (*settings).live, small)
	}
	if err != nil || over(ctx) {
		return errors.Join(err, r.close())
	}
	if s.postgres == nil {
		// It leaves the database closed.
		if err := s.footprintOf(ctx, r); err != nil || over(ctx) {
			return err
		}
		r.server, r.raw = nil, nil
		if err := r.open(ctx); err != nil {
			return err
		}
	}
	return errors.Join(s.cleanUp(ctx, r), r.close())
}
