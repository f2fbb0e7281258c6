// Package postgres is the scale-out engine: connections, migrations, lanes of the
// ledger and groups of redeems on PostgreSQL, or on a distributed database that
// speaks its protocol, for the transactions of sqlstore. Several servers may
// share a database. Imports: guess, sqlstore and what that may import, the
// driver, goose and the standard library.
package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

const (
	// sideConnections are for what is asked beside a transaction that has a
	// connection already: they wait for nobody who waits for one of the others.
	sideConnections = 4
	// connectTimeout bounds how long it takes to connect.
	connectTimeout = 5 * time.Second
	// workTimeout bounds a read or a write with all its tries.
	// It is less than what an HTTP answer may take: the caller is told.
	workTimeout = 45 * time.Second
	// migrateTries bounds how often a migration is tried beside others.
	migrateTries = 5
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options says how to open a database.
type Options struct {
	URL     string   // postgres://…, as libpq writes it
	Secrets []string // newest first; at least one
	Now     func() time.Time
	// OnCommit, if not nil, is told of each group of redeems that was tried: how
	// many of them shared the commit and how long it took.
	OnCommit func(redeems int, took time.Duration)
}

// DB is an open database. It is the Store of every domain package, and safe for
// concurrent use, also beside other processes that have it open.
type DB struct {
	*sqlstore.Store

	now      func() time.Time
	onCommit func(int, time.Duration)

	pool, side *pgxpool.Pool
	snapshots  chan struct{}          // as many as may be under way
	texts      sync.Map               // of string: texts as PostgreSQL wants them
	follower   atomic.Pointer[string] // who has taken the BrokerDuty through this handle; nil: nobody
	failing    atomic.Bool            // the last transaction that should have written did not
	ledgerKey  []byte

	redeems  sqlstore.Group[*redeem]
	deciding sync.Mutex
	unclean  atomic.Bool   // there may be changes of the counts to be folded
	fold     chan struct{} // says so

	closing   chan struct{} // closed by Close
	closed    chan struct{} // closed when no group is committed any more
	closeOnce sync.Once
	work      sync.WaitGroup // what Close waits for
}

var (
	_ sqlstore.Engine = (*DB)(nil)
	_ delivery.Store  = (*DB)(nil)
	_ guess.Store     = (*DB)(nil)
)

// Open connects to the database, makes or brings up to date its schema and
// unlocks its keys. It fails with keyring.ErrWrongSecret if the secrets do not
// open them.
func Open(ctx context.Context, o Options) (*DB, error) {
	d := &DB{
		now: o.Now, onCommit: o.OnCommit,
		fold:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		closed:  make(chan struct{}),
	}
	d.redeems = sqlstore.Group[*redeem]{
		Commit: d.commitRedeems, Size: func(*redeem) int { return 1 }, Max: redeemsMax,
		Turns: make(chan struct{}, committers), Closed: d.closed,
	}
	d.redeems.Open()
	d.Store = sqlstore.New(d, dialect{d}, o.Secrets, o.Now)
	if err := d.open(ctx, o.URL); err != nil {
		d.disconnect()
		return nil, err
	}
	for range committers {
		d.redeems.Turns <- struct{}{}
	}
	d.unclean.Store(true) // whoever was here before may have left some
	d.work.Go(d.keepFolding)
	return d, nil
}

func (d *DB) open(ctx context.Context, url string) (err error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("reading the database's address: %w", err)
	}
	set(config, url)
	if _, _, err := migrate(ctx, config.ConnConfig); err != nil {
		return err
	}
	side := config.Copy()
	side.MaxConns = sideConnections
	side.MinConns = 0
	if d.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	if d.side, err = pgxpool.NewWithConfig(ctx, side); err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	// Lists leave connections to those who need a row or two.
	d.snapshots = make(chan struct{}, max(1, config.MaxConns/2))
	if err := d.notCopying(ctx); err != nil {
		return err
	}
	if err := d.createKeys(ctx); err != nil {
		return err
	}
	ring, err := d.Keys().Reload(ctx)
	if err != nil {
		return err
	}
	d.ledgerKey = ring.LedgerKey()
	return nil
}

// set makes the settings that the address leaves open.
func set(c *pgxpool.Config, url string) {
	if !strings.Contains(url, "pool_max_conns=") {
		c.MaxConns = int32(max(16, 4*runtime.NumCPU())) //nolint:gosec // G115: a small number
	}
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	for name, value := range map[string]string{
		"application_name":                    "scrip",
		"default_transaction_isolation":       "read committed",
		"lock_timeout":                        "15s",
		"idle_in_transaction_session_timeout": "60s",
	} {
		if _, ok := c.ConnConfig.RuntimeParams[name]; !ok {
			c.ConnConfig.RuntimeParams[name] = value
		}
	}
	c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		// An answer of success is durable, whatever this role or database is set to.
		if _, err := conn.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false)
			WHERE current_setting('synchronous_commit') = 'off'`); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, setPlans)
		return err
	}
}

// setPlans has each statement planned as the walk along an index that it was
// written for, once for each connection. What the planner knows of a table is
// minutes old, and nothing of one that is new: it would read a table from end to
// end that was empty when it looked, and holds a million codes now. Nor does it start
// workers for what it takes to be much: they take longer to come than the few rows
// that there are. A database that does not know a setting is left alone.
const setPlans = `SELECT set_config(name, setting, false) FROM (VALUES
		('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('jit', 'off'),
		('max_parallel_workers_per_gather', '0'), ('plan_cache_mode', 'force_generic_plan')) AS s (name, setting)
	WHERE current_setting(name, true) IS NOT NULL`

// Migrate brings the schema of the database at the address up to date.
func Migrate(ctx context.Context, url string) (from, to int64, err error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return 0, 0, fmt.Errorf("reading the database's address: %w", err)
	}
	return migrate(ctx, config)
}

// migrate brings the schema up to date, under a lock that a row of a table
// is, since not every database has others.
func migrate(ctx context.Context, config *pgx.ConnConfig) (from, to int64, err error) {
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }()
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return 0, 0, err
	}
	locker, err := lock.NewPostgresTableLocker(lock.WithTableLockTimeout(time.Second, 300))
	if err != nil {
		return 0, 0, err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, sub, goose.WithLocker(locker))
	if err != nil {
		return 0, 0, fmt.Errorf("reading the migrations: %w", err)
	}
	for try := 0; ; try++ {
		from, to, err = p.GetVersions(ctx)
		switch {
		case err == nil && from > to:
			return from, to, newer(ctx, config, from, to)
		case err == nil && from == to:
			return from, to, nil
		case err == nil:
			if _, err = p.Up(ctx); err == nil {
				return from, to, nil
			}
		}
		// Another process that starts at the same moment may have been first.
		if try == migrateTries || ctx.Err() != nil {
			return from, to, fmt.Errorf("bringing the schema up to date: %w", err)
		}
		if err := pause(ctx, try, nil); err != nil {
			return from, to, err
		}
	}
}

// newer reports whether a schema that is newer than the program serves it all the
// same: migrations say in a setting what the oldest program is that they leave
// alone.
func newer(ctx context.Context, config *pgx.ConnConfig, have, want int64) (err error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	var oldest int64
	if err := conn.QueryRow(ctx, `SELECT value FROM settings WHERE name = 'oldest_program'`).Scan(&oldest); err != nil {
		return fmt.Errorf("reading what the schema serves: %w", err)
	}
	if want < oldest {
		return fmt.Errorf("the database's schema is version %d, this program knows %d: use the newer program", have, want)
	}
	return nil
}

// Ping reports whether the database can be read, whether its keys can, and, if
// the last attempt to write has failed, whether it can be written to now.
func (d *DB) Ping(ctx context.Context) error {
	if _, err := d.Keys().Reload(ctx); err != nil {
		return err
	}
	if !d.failing.Load() {
		return nil
	}
	return d.Write(ctx, func(ctx context.Context, t *sqlstore.Tx) error {
		t.Wrote = true
		_, err := t.Exec(ctx, `UPDATE settings SET value = value WHERE name = 'key_epoch'`)
		return err
	})
}

// Close waits for what is under way and closes the database. Calls that come
// later fail.
func (d *DB) Close() error {
	d.closeOnce.Do(func() {
		close(d.closing)
		for range committers {
			<-d.redeems.Turns
		}
		close(d.closed)
		d.work.Wait()
		d.disconnect()
	})
	return nil
}

func (d *DB) disconnect() {
	for _, pool := range []*pgxpool.Pool{d.pool, d.side} {
		if pool != nil {
			pool.Close() // waits for the connections to come back
		}
	}
}
