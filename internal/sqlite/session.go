package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/sqlstore"
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
	st, err := s.conn.PrepareContext(ctx, withoutLocks(text))
	if err != nil {
		return nil, fmt.Errorf("preparing %q: %w", text, err)
	}
	s.stmts[text] = st
	return st, nil
}

// Exec implements sqlstore.Driver.
func (s *session) Exec(ctx context.Context, text string, args ...any) (rows int64, err error) {
	st, err := s.stmt(ctx, text) //nolint:sqlclosecheck // kept for the connection's life
	if err != nil {
		return 0, err
	}
	res, err := st.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Row implements sqlstore.Driver.
func (s *session) Row(ctx context.Context, text string, args ...any) sqlstore.Scanner {
	st, err := s.stmt(ctx, text) //nolint:sqlclosecheck // kept for the connection's life
	if err != nil {
		return failed{err}
	}
	return st.QueryRowContext(ctx, args...)
}

// Each implements sqlstore.Driver.
func (s *session) Each(ctx context.Context, scan func(sqlstore.Scanner) error, text string, args ...any) error {
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
		if err := scan(rows); errors.Is(err, sqlstore.ErrEnough) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return rows.Err()
}

// withoutLocks leaves out FOR UPDATE and its kin: there is one writer.
func withoutLocks(text string) string {
	at := strings.LastIndex(text, "FOR ")
	if at < 0 || !strings.HasPrefix(text[at:], "FOR UPDATE") && !strings.HasPrefix(text[at:], "FOR SHARE") {
		return text
	}
	return text[:at]
}

type failed struct{ err error }

func (f failed) Scan(...any) error { return f.err }

// Read implements sqlstore.Engine.
func (d *DB) Read(ctx context.Context, do func(sqlstore.Conn) error) error {
	var s *session
	select {
	case s = <-d.readPool:
	case <-ctx.Done():
		return ctx.Err()
	case <-d.closing:
		return sqlstore.ErrClosed
	}
	defer func() { d.readPool <- s }()
	return do(sqlstore.Conn{Driver: s})
}

// Snapshot implements sqlstore.Engine.
//
// It leaves one connection to those who need a row or two: however many lists
// are under way, a token is still looked up at once.
func (d *DB) Snapshot(ctx context.Context, do func(sqlstore.Conn) error) error {
	select {
	case d.snapshots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.snapshots }()
	return d.Read(ctx, func(s sqlstore.Conn) error {
		ctx := context.WithoutCancel(ctx)
		if _, err := s.Exec(ctx, `BEGIN`); err != nil {
			return err
		}
		err := do(s)
		_, end := s.Exec(ctx, `ROLLBACK`)
		return errors.Join(err, end)
	})
}

// Write implements sqlstore.Engine.
func (d *DB) Write(ctx context.Context, do func(context.Context, *sqlstore.Tx) error) error {
	select {
	case <-d.writeTurn:
	case <-ctx.Done():
		return ctx.Err()
	case <-d.closing:
		return sqlstore.ErrClosed
	}
	defer func() { d.writeTurn <- struct{}{} }()
	return d.transact(context.WithoutCancel(ctx), do)
}

// transact is Write for who has the writer's turn.
func (d *DB) transact(ctx context.Context, do func(context.Context, *sqlstore.Tx) error) error {
	w := d.writer
	if _, err := w.Exec(ctx, `BEGIN IMMEDIATE`); err != nil {
		d.failing.Store(true)
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	t, at, err := d.begin(ctx)
	if err == nil {
		err = do(ctx, t)
	}
	if err == nil && t.Wrote {
		err = d.finish(ctx, t, at)
	}
	if err == nil && t.Wrote {
		if _, err = w.Exec(ctx, `COMMIT`); err == nil {
			d.failing.Store(false)
			return nil
		}
		err = fmt.Errorf("committing: %w", err)
	}
	// Some errors, a full disk for one, have rolled back already: then this
	// fails, and there is nothing to roll back.
	_, _ = w.Exec(ctx, `ROLLBACK`)
	if t.Wrote && err != nil && !sqlstore.Decided(err) {
		d.failing.Store(true)
	}
	return err
}

// begin reads what every write transaction needs. Nothing that the database
// says is kept from one transaction to the next: other processes write too.
func (d *DB) begin(ctx context.Context) (*sqlstore.Tx, end, error) {
	at := end{Head: account.Head{Lane: lane}}
	var epoch int64
	err := d.writer.Row(ctx, `SELECT h.count, h.mac, s.value, (SELECT coalesce(max(id), 0) FROM ledger)
		FROM ledger_heads h, settings s WHERE h.lane = ? AND s.name = 'key_epoch'`, lane).
		Scan(&at.Count, &at.MAC, &epoch, &at.id)
	if err != nil {
		err = fmt.Errorf("reading the ledger's head: %w", err)
	}
	return d.Tx(sqlstore.Conn{Driver: d.writer}, epoch), at, err
}

// finish writes what the transaction has left to be written at its end.
func (d *DB) finish(ctx context.Context, t *sqlstore.Tx, at end) error {
	if err := t.WriteBalances(ctx); err != nil {
		return err
	}
	if err := writeCounts(ctx, t); err != nil {
		return err
	}
	return d.writeLedger(ctx, t, at)
}
