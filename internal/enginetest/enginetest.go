// Package enginetest gives tests that go through the front door a database of
// the engine under test: SQLite, or PostgreSQL if SCRIP_TEST_ENGINE is postgres.
// Tests of one engine alone are named after it, TestSQLite… or TestPostgres…,
// ask for it by name, and are the same whatever is under test. Imports: the
// engines, rig, storetest, PostgreSQL's driver, testing and the standard library.
package enginetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/scrip-codes/scrip/internal/postgres"
	"github.com/scrip-codes/scrip/internal/rig"
	"github.com/scrip-codes/scrip/internal/sqlite"
	"github.com/scrip-codes/scrip/internal/storetest"
)

const (
	setting = "SCRIP_TEST_ENGINE"
	// template is the database that all others of a server are copies of.
	template = "scrip"
)

// Main is the tests of a package, for its TestMain: what they have started ends
// with them.
type Main struct{ *testing.M }

// Run runs the tests and returns the exit code.
func (m Main) Run() int {
	switch engine := os.Getenv(setting); engine {
	case "", "sqlite", "postgres":
	default:
		_, _ = fmt.Fprintf(os.Stderr, "%s: %q is no engine: write sqlite or postgres\n", setting, engine)
		return 1
	}
	code := m.M.Run()
	if err := shared.stop(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Server is a PostgreSQL with a database to copy.
type Server struct {
	*rig.Postgres
	alone     bool         // it serves one test
	databases atomic.Int64 // made so far
}

// sharedServer is the server of all tests that leave it alone. It starts with
// the first of them.
type sharedServer struct {
	mu     sync.Mutex
	server *Server
}

var shared sharedServer //nolint:gochecknoglobals // one for a test binary

func (s *sharedServer) get(ctx context.Context) (*Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return s.server, nil
	}
	var err error
	s.server, err = startServer(ctx, rig.PostgresOptions{})
	return s.server, err
}

func (s *sharedServer) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil
	}
	return s.server.Stop()
}

func startServer(ctx context.Context, o rig.PostgresOptions) (*Server, error) {
	p, err := rig.StartPostgres(ctx, o)
	if err != nil {
		return nil, err
	}
	url, err := p.Create(ctx, template, "")
	if err == nil {
		_, _, err = postgres.Migrate(ctx, url)
	}
	if err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return &Server{Postgres: p}, nil
}

// NewServer starts a PostgreSQL for one test, which may crash it: what it has
// committed is durable.
func NewServer(tb testing.TB) *Server {
	tb.Helper()
	s, err := startServer(tb.Context(), rig.PostgresOptions{Durable: true})
	if err != nil {
		tb.Fatal(err)
	}
	s.alone = true
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// New makes an empty database.
func (s *Server) New(ctx context.Context) (*Database, error) {
	url, err := s.Create(ctx, fmt.Sprintf("test%d", s.databases.Add(1)), template)
	if err != nil {
		return nil, err
	}
	return &Database{server: s, url: url}, nil
}

// Database is a database of one test.
type Database struct {
	path   string  // of SQLite's file
	server *Server // nil: SQLite
	url    string  // of a PostgreSQL database
}

// New makes an empty database of the engine under test. If that is SQLite, it is
// in dir, with the name that the program gives it.
func New(tb testing.TB, dir string) *Database {
	tb.Helper()
	d, err := Create(tb.Context(), dir)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// NewAlone is New with a server that this test alone has, if it has one at all.
func NewAlone(tb testing.TB, dir string) *Database {
	tb.Helper()
	if os.Getenv(setting) != "postgres" {
		return New(tb, dir)
	}
	d, err := NewServer(tb).New(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// Create is New where there is no test at hand.
func Create(ctx context.Context, dir string) (*Database, error) {
	if os.Getenv(setting) != "postgres" {
		return SQLite(dir), nil
	}
	return Postgres(ctx)
}

// SQLite makes an empty SQLite database in dir, with the name that the program
// gives it.
func SQLite(dir string) *Database { return &Database{path: filepath.Join(dir, "scrip.db")} }

// Postgres makes an empty PostgreSQL database, on the server that tests share.
func Postgres(ctx context.Context) (*Database, error) {
	s, err := shared.get(ctx)
	if err != nil {
		return nil, err
	}
	return s.New(ctx)
}

// Open opens a handle. Several may be open at once.
func (d *Database) Open(ctx context.Context, o storetest.Options) (storetest.Engine, error) {
	if d.server != nil {
		db, err := postgres.Open(ctx, postgres.Options{URL: d.url, Secrets: o.Secrets, Now: o.Now})
		if err != nil {
			return nil, err // not a nil *postgres.DB in an Engine
		}
		return db, nil
	}
	db, err := sqlite.Open(ctx, sqlite.Options{Path: d.path, Secrets: o.Secrets, Now: o.Now})
	if err != nil {
		return nil, err
	}
	return db, nil
}

// Settings are what the program needs to be told to use the database, as
// NAME=VALUE: nothing for SQLite if its data directory is the one of New.
func (d *Database) Settings() []string {
	if d.server == nil {
		return nil
	}
	return []string{"SCRIP_DATABASE_URL=" + d.url, "SCRIP_SECRET=a-secret-for-tests-of-the-program"}
}

// Alter executes a statement behind the back of the program.
func (d *Database) Alter(tb testing.TB, statement string) {
	tb.Helper()
	if d.server != nil {
		if _, err := d.ask(tb.Context(), statement); err != nil {
			tb.Fatal(err)
		}
		return
	}
	db, err := sql.Open("sqlite", d.path)
	if err != nil {
		tb.Fatal(err)
	}
	_, err = db.ExecContext(tb.Context(), statement)
	if err = errors.Join(err, db.Close()); err != nil {
		tb.Fatal(err)
	}
}

// Look returns all that somebody has who has copied the database from a running
// server, by where it stands: the files, and what a dump of PostgreSQL says,
// which compresses long values in its files. PostgreSQL's journal is that of the
// whole server: it is looked at if that is the test's own.
func (d *Database) Look(tb testing.TB) map[string][]byte {
	tb.Helper()
	look := map[string][]byte{}
	if d.server == nil {
		files, err := filepath.Glob(d.path + "*")
		if err != nil {
			tb.Fatal(err)
		}
		for _, name := range files {
			read(tb, look, name)
		}
		if len(look[d.path]) == 0 {
			tb.Fatalf("%s is empty: nothing was looked at", d.path)
		}
		return look
	}
	dump, err := exec.CommandContext(tb.Context(), d.server.Bin("pg_dump"), "--dbname="+d.url).Output() //nolint:gosec // G204: the server's own program
	if err != nil {
		tb.Fatal(err)
	}
	look["the dump"] = dump
	if _, err := d.ask(tb.Context(), `CHECKPOINT`); err != nil {
		tb.Fatal(err)
	}
	dir, err := d.ask(tb.Context(), `SELECT current_setting('data_directory')`)
	if err != nil {
		tb.Fatal(err)
	}
	oid, err := d.ask(tb.Context(), `SELECT CAST(oid AS TEXT) FROM pg_database WHERE datname = current_database()`)
	if err != nil {
		tb.Fatal(err)
	}
	parts := []string{filepath.Join("base", oid)}
	if d.server.alone {
		parts = append(parts, "pg_wal")
	}
	for _, part := range parts {
		err := filepath.WalkDir(filepath.Join(dir, part), func(name string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				read(tb, look, name)
			}
			return err
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	return look
}

// read reads a file, unless it is empty or has gone meanwhile.
func read(tb testing.TB, look map[string][]byte, name string) {
	tb.Helper()
	b, err := os.ReadFile(name) //nolint:gosec // G304: of the database under test
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Fatal(err)
	}
	if len(b) > 0 {
		look[name] = b
	}
}

// ask executes a statement on a PostgreSQL database and returns the first value
// of its answer, if it has one.
func (d *Database) ask(ctx context.Context, statement string) (answer string, err error) {
	conn, err := pgx.Connect(ctx, d.url)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	err = conn.QueryRow(ctx, statement).Scan(&answer)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return answer, err
}
