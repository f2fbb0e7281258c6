package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// session is one connection with its prepared statements. It serves one
// goroutine at a time.
//
// Statements run to their end even if the caller has left: each is bounded, and
// a write whose outcome nobody knows would be worse. So sessions are given
// contexts that are not cancelled.
type session struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

func newSession(ctx context.Context, db *sql.DB) (*session, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	return &session{conn: conn, stmts: map[string]*sql.Stmt{}}, nil
}

// close gives the connection back. Neither it nor its statements would be closed
// by closing the pool: SQLite would keep the files open, and not write the log
// back.
func (s *session) close() error {
	var errs []error
	for _, st := range s.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, s.conn.Close())...)
}

func (s *session) stmt(ctx context.Context, text string) (*sql.Stmt, error) {
	if st, ok := s.stmts[text]; ok {
		return st, nil
	}
	st, err := s.conn.PrepareContext(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("preparing %q: %w", text, err)
	}
	s.stmts[text] = st
	return st, nil
}

func (s *session) exec(ctx context.Context, text string, args ...any) (sql.Result, error) {
	st, err := s.stmt(ctx, text) //nolint:sqlclosecheck // kept for the connection's life
	if err != nil {
		return nil, err
	}
	return st.ExecContext(ctx, args...)
}

// row is the one row of a query; its errors come out of Scan.
func (s *session) row(ctx context.Context, text string, args ...any) scanner {
	st, err := s.stmt(ctx, text) //nolint:sqlclosecheck // kept for the connection's life
	if err != nil {
		return failed{err}
	}
	return st.QueryRowContext(ctx, args...)
}

// each calls scan for each row of a query, until it fails; errEnough ends it
// without a failure.
func (s *session) each(ctx context.Context, scan func(scanner) error, text string, args ...any) error {
	st, err := s.stmt(ctx, text) //nolint:sqlclosecheck // kept for the connection's life
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // rows.Err has its error
	for rows.Next() {
		if err := scan(rows); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return rows.Err()
}

// errEnough says that the rows that are left are not wanted.
var errEnough = errors.New("enough rows")

type scanner interface{ Scan(dest ...any) error }

type failed struct{ err error }

func (f failed) Scan(...any) error { return f.err }

// read calls do with a connection that sees one consistent state.
func (d *DB) read(ctx context.Context, do func(*session) error) error {
	var s *session
	select {
	case s = <-d.readPool:
	case <-ctx.Done():
		return ctx.Err()
	case <-d.closing:
		return errClosed
	}
	defer func() { d.readPool <- s }()
	return do(s)
}

// snapshot is read, with several statements that see the same state.
//
// It leaves one connection to those who need a row or two: however many lists
// are under way, a token is still looked up at once.
func (d *DB) snapshot(ctx context.Context, do func(*session) error) error {
	select {
	case d.snapshots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.snapshots }()
	return d.read(ctx, func(s *session) error {
		ctx := context.WithoutCancel(ctx)
		if _, err := s.exec(ctx, `BEGIN`); err != nil {
			return err
		}
		err := do(s)
		_, end := s.exec(ctx, `ROLLBACK`)
		return errors.Join(err, end)
	})
}

var errClosed = errors.New("the database is closed")

// tx is a write transaction: its session, the ledger's head as read inside it,
// and what is to be written before the commit.
type tx struct {
	*session
	chain    *account.Chain
	epoch    int64
	head     account.Head
	counts   counts
	balances map[int64]balance
	appended bool // to the ledger
	wrote    bool // anything at all: else there is nothing to commit
}

// write runs do in a write transaction and commits, or rolls back if it fails.
func (d *DB) write(ctx context.Context, do func(context.Context, *tx) error) error {
	select {
	case <-d.writeTurn:
	case <-ctx.Done():
		return ctx.Err()
	case <-d.closing:
		return errClosed
	}
	defer func() { d.writeTurn <- struct{}{} }()
	return d.transact(context.WithoutCancel(ctx), do)
}

// transact is write for who has the writer's turn.
func (d *DB) transact(ctx context.Context, do func(context.Context, *tx) error) error {
	w := d.writer
	if _, err := w.exec(ctx, `BEGIN IMMEDIATE`); err != nil {
		d.failing.Store(true)
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	t := &tx{session: w, chain: d.chain}
	err := t.begin(ctx)
	if err == nil {
		err = do(ctx, t)
	}
	if err == nil && t.wrote {
		err = t.finish(ctx)
	}
	if err == nil && t.wrote {
		if _, err = w.exec(ctx, `COMMIT`); err == nil {
			d.failing.Store(false)
			return nil
		}
		err = fmt.Errorf("committing: %w", err)
	}
	// Some errors, a full disk for one, have rolled back already: then this
	// fails, and there is nothing to roll back.
	_, _ = w.exec(ctx, `ROLLBACK`)
	if t.wrote && err != nil && !decided(err) {
		d.failing.Store(true)
	}
	return err
}

// decided reports whether err is what a transaction decided, and no failure.
func decided(err error) bool {
	_, refused := errors.AsType[*refusal.Error](err)
	_, replayed := errors.AsType[*account.Replay](err)
	return refused || replayed || errors.Is(err, keyring.ErrStale) || errors.Is(err, pickup.ErrTaken)
}

// begin reads what every write transaction needs. Nothing that the database
// says is kept from one transaction to the next: other processes write too.
func (t *tx) begin(ctx context.Context) error {
	t.head.Lane = lane
	err := t.row(ctx, `SELECT h.count, h.mac, s.value FROM ledger_heads h, settings s
		WHERE h.lane = ? AND s.name = 'key_epoch'`, lane).Scan(&t.head.Count, &t.head.MAC, &t.epoch)
	if err != nil {
		return fmt.Errorf("reading the ledger's head: %w", err)
	}
	return nil
}

// finish writes the balances, the counts and the ledger's head.
func (t *tx) finish(ctx context.Context) error {
	if err := t.writeBalances(ctx); err != nil {
		return err
	}
	if err := t.writeCounts(ctx); err != nil {
		return err
	}
	return t.writeHead(ctx)
}

// fresh fails with keyring.ErrStale if epoch is not the database's.
func (t *tx) fresh(epoch int64) error {
	if epoch != t.epoch {
		return keyring.ErrStale
	}
	return nil
}

// change is exec for statements that write.
func (t *tx) change(ctx context.Context, text string, args ...any) (sql.Result, error) {
	t.wrote = true
	return t.exec(ctx, text, args...)
}
