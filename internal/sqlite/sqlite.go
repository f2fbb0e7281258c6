// Package sqlite is the embedded engine: connections, migrations and group commit
// on one SQLite file, for the transactions of sqlstore. Imports: sqlstore and
// what that may import, the driver, goose and the standard library.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
	driver "modernc.org/sqlite" // pure Go: docs/decisions/sqlite-driver.md
	lib "modernc.org/sqlite/lib"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

const (
	// readers is how many connections read at once. Each has its own cache.
	readers = 4
	// busyTimeout is how long a connection waits for another process's write.
	busyTimeout = 15 * time.Second
	// reachAgain is how long reach waits between two tries.
	reachAgain = 20 * time.Millisecond
	// Page caches in KiB: the writer's holds the upper levels of every index.
	writerCache = 16 << 10
	readerCache = 2 << 10
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options says how to open a database.
type Options struct {
	Path    string
	Secrets []string // newest first; at least one
	Now     func() time.Time
	// OnCommit, if not nil, is told of each group with redeems that was tried: how
	// many of them shared the commit and how long it took.
	OnCommit func(redeems int, took time.Duration)
}

// DB is an open database. It is the Store of every domain package, and safe for
// concurrent use, also beside other processes that have it open.
type DB struct {
	*sqlstore.Store

	path     string
	now      func() time.Time
	onCommit func(int, time.Duration)

	writeDB, readDB *sql.DB
	sessions        []*session // all of them, to be closed
	readPool        chan *session
	snapshots       chan struct{} // as many as may be under way
	failing         atomic.Bool   // the last transaction that should have written did not

	// writer is the one connection that writes; whoever has received from
	// writeTurn may use it and chain.
	writeTurn chan struct{}
	writer    *session
	chain     *account.Chain

	group     sqlstore.Group[job]
	closing   chan struct{} // closed by Close
	closed    chan struct{} // closed when nothing is written any more
	closeOnce sync.Once
}

var (
	_ sqlstore.Engine = (*DB)(nil)
	_ delivery.Store  = (*DB)(nil)
)

// Open opens the database at o.Path, or makes it, brings its schema up to date
// and unlocks its keys. It fails with keyring.ErrWrongSecret if the secrets do
// not open them.
func Open(ctx context.Context, o Options) (*DB, error) {
	d := &DB{
		path: o.Path, now: o.Now, onCommit: o.OnCommit,
		readPool:  make(chan *session, readers),
		snapshots: make(chan struct{}, readers-1),
		writeTurn: make(chan struct{}, 1),
		closing:   make(chan struct{}),
		closed:    make(chan struct{}),
	}
	d.group = sqlstore.Group[job]{
		Commit: d.commitGroup, Size: job.sizeOf, Max: groupMax, Turns: d.writeTurn, Closed: d.closed,
	}
	d.group.Open()
	d.Store = sqlstore.New(d, dialect{}, o.Secrets, o.Now)
	if err := d.open(ctx, o.Path); err != nil {
		return nil, errors.Join(err, d.disconnect())
	}
	d.writeTurn <- struct{}{}
	return d, nil
}

func (d *DB) open(ctx context.Context, path string) (err error) {
	if err := createPrivate(path); err != nil {
		return err
	}
	if d.writeDB, err = connect(path, writerCache, "_txlock=immediate"); err != nil {
		return err
	}
	d.writeDB.SetMaxOpenConns(1)
	if err := reach(ctx, d.writeDB); err != nil {
		return err
	}
	if _, _, err := migrate(ctx, d.writeDB); err != nil {
		return err
	}
	if d.writer, err = newSession(ctx, d.writeDB); err != nil {
		return err
	}
	d.sessions = append(d.sessions, d.writer)
	if d.readDB, err = connect(path, readerCache, "_pragma=query_only(1)"); err != nil {
		return err
	}
	d.readDB.SetMaxOpenConns(readers)
	for range readers {
		s, err := newSession(ctx, d.readDB)
		if err != nil {
			return err
		}
		d.sessions = append(d.sessions, s)
		d.readPool <- s
	}
	if err := d.createKeys(ctx); err != nil {
		return err
	}
	ring, err := d.Keys().Reload(ctx)
	if err != nil {
		return err
	}
	d.chain = account.NewChain(ring.LedgerKey())
	return nil
}

// createPrivate makes the file readable by its owner only, before SQLite makes
// it, and its -wal and -shm after it, as the umask likes.
func createPrivate(path string) error {
	f, err := os.OpenFile(filepath.Clean(path), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	return f.Close()
}

// connect opens a pool. All pragmas stand in the DSN, so that every connection
// has them; busy_timeout is first, since the others can be busy too.
func connect(path string, cacheKiB int, more string) (*sql.DB, error) {
	dsn := dsnOf(path) + fmt.Sprintf("?_pragma=busy_timeout(%d)", busyTimeout.Milliseconds()) +
		"&_pragma=journal_mode(wal)&_pragma=synchronous(full)" +
		fmt.Sprintf("&_pragma=cache_size(-%d)", cacheKiB) +
		"&_pragma=temp_store(memory)&_pragma=secure_delete(fast)&_pragma=wal_autocheckpoint(4000)&_pragma=journal_size_limit(67108864)&" + more
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	return db, nil
}

// reach makes a pool's first connection. Of several processes that turn a new
// file's write-ahead log on together some are told at once that it is busy,
// whatever their timeout is: they try again for that long.
func reach(ctx context.Context, db *sql.DB) error {
	for left := busyTimeout; ; left -= reachAgain {
		err := db.PingContext(ctx)
		if e, ok := errors.AsType[*driver.Error](err); !ok || e.Code()&0xff != lib.SQLITE_BUSY || left <= 0 {
			return err
		}
		select {
		case <-time.After(reachAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func dsnOf(path string) string { return "file:" + (&url.URL{Path: path}).EscapedPath() }

// Migrate brings the schema of the database at path, which must be there, up to
// date.
func Migrate(ctx context.Context, path string) (from, to int64, err error) {
	if _, err := os.Stat(path); err != nil {
		return 0, 0, err
	}
	db, err := connect(path, readerCache, "_txlock=immediate")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	if err := reach(ctx, db); err != nil {
		return 0, 0, err
	}
	return migrate(ctx, db)
}

func migrate(ctx context.Context, db *sql.DB) (from, to int64, err error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return 0, 0, err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, sub)
	if err != nil {
		return 0, 0, fmt.Errorf("reading the migrations: %w", err)
	}
	from, to, err = p.GetVersions(ctx)
	for have := from; ; {
		if err != nil {
			return from, to, fmt.Errorf("reading the schema's version: %w", err)
		}
		if have > to {
			return from, to, fmt.Errorf("the database's schema is version %d, this program knows %d: use the newer program", have, to)
		}
		if have == to {
			return from, to, nil
		}
		_, failed := p.Up(ctx)
		before := have
		// Another process that starts at the same moment may have been first: then
		// what is left is tried again.
		if have, to, err = p.GetVersions(ctx); failed != nil && err == nil && have == before {
			return from, to, fmt.Errorf("bringing the schema up to date: %w", failed)
		}
	}
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
func (d *DB) Close() (err error) {
	d.closeOnce.Do(func() {
		close(d.closing)
		<-d.writeTurn
		close(d.closed)
		for range readers {
			<-d.readPool
		}
		err = d.disconnect()
	})
	return err
}

func (d *DB) disconnect() error {
	var errs []error
	for _, s := range d.sessions {
		errs = append(errs, s.close())
	}
	for _, db := range []*sql.DB{d.readDB, d.writeDB} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}
