package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/config"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/figures"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/postgres"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/sqlite"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// engine is an open database, of either kind.
type engine interface {
	account.Store
	redemption.Store
	fleet.Store
	pickup.Store
	delivery.Store
	figures.Store
	Keys() *keyring.Keys
	Rotate(ctx context.Context, progress func(done, total int64)) error
	Export(ctx context.Context, do func(sqlstore.Source) error) error
	Ping(ctx context.Context) error
	Close() error
}

// openEngine opens the database that the configuration names, and brings its
// schema up to date.
func openEngine(ctx context.Context, c *config.Config, secrets []string, onCommit func(int, time.Duration)) (engine, error) {
	if !c.Embedded() {
		db, err := postgres.Open(ctx, postgres.Options{URL: c.Postgres.Reveal(), Secrets: secrets, Now: now, OnCommit: onCommit})
		if err != nil {
			return nil, err // not a nil *postgres.DB in an engine
		}
		return db, nil
	}
	db, err := sqlite.Open(ctx, sqlite.Options{Path: c.Database, Secrets: secrets, Now: now, OnCommit: onCommit})
	if err != nil {
		return nil, err
	}
	return db, nil
}

// shared is what a database that several servers may share can do beside.
type shared interface {
	// Duty reports whether holder is to do the work of that name, for a time.
	Duty(ctx context.Context, name, holder string, lasting time.Duration) (bool, error)
	// Resign gives up a duty.
	Resign(ctx context.Context, name, holder string) error
	// Checkpoint ties the ledger's lanes together.
	Checkpoint(ctx context.Context) error
}

// inboxDuty is the duty of the one server that keeps the inbox at another broker,
// and dutyFor how long it and that of the broker last unless they are taken again.
const (
	brokerDutyWait = 10 * time.Second
	inboxDuty      = "mqtt inbox"
	dutyFor        = 6 * time.Second
	dutyEvery      = dutyFor / 3
)

// duties are this server's share of the work that one of several does.
type duties struct {
	db     shared // nil: there is no other server
	holder string
	log    *slog.Logger
}

func newDuties(db engine, log *slog.Logger) *duties {
	s, _ := db.(shared)
	return &duties{db: s, holder: rand.Text(), log: log}
}

// once returns do for one server at a time: it does nothing while another does it.
// Every is how often that is tried.
func (d *duties) once(name string, every time.Duration, do func(context.Context) error) func(context.Context) error {
	if d.db == nil {
		return do
	}
	return func(ctx context.Context) error {
		mine, err := d.db.Duty(ctx, name, d.holder, 3*every)
		if err != nil || !mine {
			return err
		}
		return do(ctx)
	}
}

// takeBroker waits until no other server has a broker in it: the machines are
// connected to one, or to one beside them all.
func (d *duties) takeBroker(ctx context.Context) error {
	if d.db == nil {
		return nil
	}
	// Another one may have ended a moment ago without saying so.
	until, said := now().Add(brokerDutyWait), false
	tick := time.NewTicker(dutyFor / 6)
	defer tick.Stop()
	for {
		mine, err := d.db.Duty(ctx, postgres.BrokerDuty, d.holder, dutyFor)
		if err != nil || mine {
			return err
		}
		if !said {
			said = true
			d.log.InfoContext(ctx, "another server of this database has the MQTT broker in it: waiting for a while, it may have just ended")
		}
		if now().After(until) {
			return errors.New("SCRIP_MQTT_ADDR: another server of this database has the MQTT broker in it: " +
				"set SCRIP_MQTT_URL on all of them to use a broker beside them, or SCRIP_MQTT_ADDR=off on this one")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// keepBroker keeps the duty until ctx ends, and gives it up. It calls lost if
// another server has taken it, since this one had not been heard of.
func (d *duties) keepBroker(ctx context.Context, lost func(error)) {
	if d.db == nil {
		return
	}
	tick := time.NewTicker(dutyEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dutyFor)
			defer cancel()
			_ = d.db.Resign(ctx, postgres.BrokerDuty, d.holder) // else it ends by itself
			return
		}
		if mine, err := d.ask(ctx, postgres.BrokerDuty); err == nil && !mine {
			lost(fmt.Errorf("another server of this database has taken over the MQTT broker, since this one could not reach the database for %v", dutyFor))
			return
		}
	}
}

// alone runs do while no other server does what has that name: it waits until then,
// and ends do's context when this one may have lost the duty. It returns what do
// does, or why ctx has ended.
func (d *duties) alone(ctx context.Context, name string, do func(context.Context) error) error {
	if d.db == nil {
		return do(ctx)
	}
	tick := time.NewTicker(dutyEvery)
	defer tick.Stop()
	for {
		asked := now()
		if mine, err := d.ask(ctx, name); err == nil && mine {
			return d.during(ctx, name, asked, do)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ask takes a duty, or takes it again, if the database answers soon.
func (d *duties) ask(ctx context.Context, name string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, dutyEvery)
	defer cancel()
	return d.db.Duty(ctx, name, d.holder, dutyFor)
}

// during runs do while the duty is kept that was asked for then, and gives it up.
func (d *duties) during(ctx context.Context, name string, asked time.Time, do func(context.Context) error) error {
	work, end := context.WithCancel(ctx)
	var keeping sync.WaitGroup
	keeping.Go(func() {
		defer end()
		tick := time.NewTicker(dutyEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-work.Done():
				return
			}
			again := now()
			switch mine, err := d.ask(work, name); {
			case err == nil && mine:
				asked = again
			case err == nil || now().Sub(asked) >= dutyFor-dutyEvery: // by the next look it would have ended
				return
			}
		}
	})
	err := do(work)
	end()
	keeping.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dutyEvery)
	defer cancel()
	_ = d.db.Resign(ctx, name, d.holder) // else it ends by itself
	return err
}

type migrateCommand struct{}

// Help is shown with the command's flags.
func (*migrateCommand) Help() string {
	return "Servers do that when they start. By itself it is for upgrades of several servers: those of the version before go on meanwhile."
}

// Run brings the database's schema up to date.
func (*migrateCommand) Run(ctx context.Context, p *program) error {
	c, err := p.configure()
	if err != nil {
		return err
	}
	var from, to int64
	if c.Embedded() {
		from, to, err = sqlite.Migrate(ctx, c.Database)
	} else {
		from, to, err = postgres.Migrate(ctx, c.Postgres.Reveal())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.Database, err)
	}
	if from >= to {
		_, err = fmt.Fprintf(p.Stdout, "The schema of %s is up to date: version %d.\n", c.Database, from)
		return err
	}
	_, err = fmt.Fprintf(p.Stdout, "Brought the schema of %s from version %d to %d.\n", c.Database, from, to)
	return err
}
