package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

const (
	// tries bounds how often a transaction is tried that fails for no fault of its
	// own: others were in its way, or the connection was lost before its commit.
	// With the pauses that is some five seconds: a server that is restarted is back
	// by then.
	tries = 11
	// lookTries bounds how often it is looked what has become of a commit: half a
	// minute, in which a standby may take over.
	lookTries = 32
	// Between two tries passes a time that doubles from the first to the last of
	// these.
	pauseFirst = 5 * time.Millisecond
	pauseLast  = time.Second
)

// session is a connection, in a transaction or not. It serves one goroutine at a
// time.
type session struct {
	d    *DB
	conn *pgx.Conn
	// ctx bounds all that is done with it. What callers give is not used: a
	// statement runs to its end even if they have left, since a write whose outcome
	// nobody knows would be worse.
	ctx  context.Context
	gave bool // a row, to somebody who may have kept it
}

// Row implements sqlstore.Driver.
func (s *session) Row(_ context.Context, text string, args ...any) sqlstore.Scanner {
	return s.conn.QueryRow(s.ctx, s.d.text(text), clean(args)...) //nolint:contextcheck // a session has its own, as it says
}

// Each implements sqlstore.Driver.
func (s *session) Each(_ context.Context, scan func(sqlstore.Scanner) error, text string, args ...any) error {
	rows, err := s.conn.Query(s.ctx, s.d.text(text), clean(args)...) //nolint:contextcheck // a session has its own, as it says
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		s.gave = true
		if err := scan(rows); errors.Is(err, sqlstore.ErrEnough) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return rows.Err()
}

// Exec implements sqlstore.Driver.
func (s *session) Exec(_ context.Context, text string, args ...any) (rows int64, err error) {
	tag, err := s.conn.Exec(s.ctx, s.d.text(text), clean(args)...) //nolint:contextcheck // a session has its own, as it says
	return tag.RowsAffected(), err
}

// text is a shared text as PostgreSQL wants it: its parameters numbered, without
// hints for the planner, and with what a step works on chosen before the rest.
func (d *DB) text(shared string) string {
	if text, ok := d.texts.Load(shared); ok {
		return text.(string)
	}
	plain := chosenFirst(regexp.MustCompile(`INDEXED BY \w+`).ReplaceAllString(shared, ""))
	n := 0
	text := regexp.MustCompile(`\?\d*`).ReplaceAllStringFunc(plain, func(p string) string {
		if p != "?" {
			return "$" + p[1:]
		}
		n++
		return "$" + strconv.Itoa(n)
	})
	d.texts.Store(shared, text)
	return text
}

// chosenFirst has each subquery with a LIMIT that IN looks into run once, at the
// beginning. As a table to join with, PostgreSQL may run it again for each row that
// could be meant: a step of 128 codes out of a million would be 128 million.
func chosenFirst(text string) string {
	in := regexp.MustCompile(`(\w+) IN\s+\(SELECT `)
	for from := 0; ; {
		m := in.FindStringSubmatchIndex(text[from:])
		if m == nil {
			return text
		}
		begin := from + m[3] // behind the column
		open := begin + strings.IndexByte(text[begin:], '(')
		end := open + 1
		for depth := 1; depth > 0 && end < len(text); end++ {
			switch text[end] {
			case '(':
				depth++
			case ')':
				depth--
			}
		}
		from += m[1]
		if inner := text[open:end]; text[from-m[1]+m[2]:begin] != "NOT" && strings.Contains(inner, " LIMIT ") {
			text = text[:begin] + ` = ANY (ARRAY` + inner + `)` + text[end:]
		}
	}
}

// clean makes arguments fit for PostgreSQL: its texts are UTF-8 without NUL,
// which no name has, and a nil slice of bytes is an empty one.
func clean(args []any) []any {
	for i, arg := range args {
		switch a := arg.(type) {
		case string:
			args[i] = cleanText(a)
		case []byte:
			if a == nil {
				args[i] = []byte{}
			}
		}
	}
	return args
}

func cleanText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// Read implements sqlstore.Engine.
func (d *DB) Read(ctx context.Context, do func(sqlstore.Conn) error) error {
	return d.reading(ctx, func(s *session) error { return do(sqlstore.Conn{Driver: s}) })
}

// Snapshot implements sqlstore.Engine.
//
// It leaves connections to those who need a row or two: however many lists are
// under way, a token is still looked up at once.
func (d *DB) Snapshot(ctx context.Context, do func(sqlstore.Conn) error) error {
	select {
	case d.snapshots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.snapshots }()
	return d.reading(ctx, func(s *session) error {
		if _, err := s.conn.Exec(s.ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`); err != nil {
			return err
		}
		err := do(sqlstore.Conn{Driver: s})
		_, end := s.conn.Exec(s.ctx, `ROLLBACK`)
		if err == nil {
			err = end
		}
		return err
	})
}

// reading calls do with a connection, and once more with another if it was lost
// before it has given anything.
func (d *DB) reading(ctx context.Context, do func(*session) error) error {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), workTimeout)
	defer cancel()
	if end, ok := ctx.Deadline(); ok {
		work, cancel = context.WithDeadline(work, end)
		defer cancel()
	}
	for try := 0; ; try++ {
		gave := false
		err := d.with(ctx, work, d.pool, func(s *session) error {
			err := do(s)
			gave = s.gave
			return err
		})
		if gave || !retriable(err) || try == tries {
			return err
		}
		if err := pause(ctx, try, d.closing); err != nil {
			return err
		}
	}
}

// with calls do with a connection of the pool. The wait for it ends with ctx, the
// work with work.
func (d *DB) with(ctx, work context.Context, pool *pgxpool.Pool, do func(*session) error) error {
	select {
	case <-d.closing:
		return sqlstore.ErrClosed
	default:
	}
	return d.borrow(ctx, work, pool, do)
}

// borrow is with, while the database is being closed too: for what belongs to a
// call that is under way.
func (d *DB) borrow(ctx, work context.Context, pool *pgxpool.Pool, do func(*session) error) error {
	wait, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	c, err := pool.Acquire(wait)
	if err != nil {
		return fmt.Errorf("connecting to the database: %w", err)
	}
	defer c.Release() // one that is inside a transaction, or broken, is closed
	return do(&session{d: d, conn: c.Conn(), ctx: work})
}

// Grouped implements sqlstore.Engine: the server lets transactions that commit at
// the same time share a wait for the disk.
func (d *DB) Grouped(ctx context.Context, _ int, do func(context.Context, *sqlstore.Tx) error) error {
	return d.Write(ctx, do)
}

// Write implements sqlstore.Engine.
func (d *DB) Write(ctx context.Context, do func(context.Context, *sqlstore.Tx) error) error {
	return d.retry(ctx, func(s *session) error { return d.transact(s, do) }) //nolint:contextcheck // the session has it
}

// retry calls do with a connection until it fails for another reason than that
// somebody was in its way, or the tries are used up.
func (d *DB) retry(ctx context.Context, do func(*session) error) error {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), workTimeout)
	defer cancel()
	for try := 0; ; try++ {
		err := d.with(ctx, work, d.pool, do)
		if !retriable(err) || try == tries {
			return err
		}
		if err := pause(ctx, try, d.closing); err != nil {
			return err
		}
	}
}

// transact runs do in a transaction on s.
func (d *DB) transact(s *session, do func(context.Context, *sqlstore.Tx) error) error {
	t, err := d.begin(s)
	if err == nil {
		err = do(s.ctx, t)
	}
	if err == nil && t.Wrote {
		err = d.finish(s, t)
	}
	if err == nil && t.Wrote {
		d.failing.Store(false)
		return nil
	}
	if s.conn.PgConn().TxStatus() != 'I' {
		_, _ = s.conn.Exec(s.ctx, `ROLLBACK`) // if it fails, the connection is not used again
	}
	if t != nil && t.Wrote && err != nil && !sqlstore.Decided(err) && !conflict(err) {
		d.failing.Store(true)
	}
	return err
}

// begin begins a transaction and reads what each needs.
func (d *DB) begin(s *session) (*sqlstore.Tx, error) {
	var epoch int64
	b := &pgx.Batch{}
	b.Queue(`BEGIN`)
	b.Queue(sqlstore.SelectEpoch).QueryRow(func(row pgx.Row) error { return row.Scan(&epoch) })
	if err := s.conn.SendBatch(s.ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("beginning a transaction: %w", err)
	}
	return d.Tx(sqlstore.Conn{Driver: s}, epoch), nil
}

// finish writes what the transaction has left to be written at its end, and
// commits.
func (d *DB) finish(s *session, t *sqlstore.Tx) error {
	if err := t.WriteBalances(s.ctx); err != nil {
		return err
	}
	b := &pgx.Batch{}
	if t.Changes != nil {
		queueChanges(b, t.Changes)
		defer d.foldSoon()
	}
	if t.Entries == nil && !t.Sealed {
		b.Queue(`COMMIT`)
		if err := s.conn.SendBatch(s.ctx, b).Close(); err != nil {
			return fmt.Errorf("committing: %w", err)
		}
		return nil
	}
	l, err := lockLane(s)
	if err != nil {
		return err
	}
	if l.epoch != t.Epoch && !t.Alone {
		return errKeysMoved
	}
	return d.commit(s, b, l.head, t.Entries)
}

// errKeysMoved says that the data keys were changed while a transaction was under
// way: it is tried again, and finds out itself.
var errKeysMoved = errors.New("the data keys were changed meanwhile")

// commit writes the entries behind a lane's head, together with what stands in
// the batch, and commits. If the connection is lost in between it looks what has
// become of them.
func (d *DB) commit(s *session, b *pgx.Batch, head account.Head, entries []account.Entry) error {
	before := head.Count
	d.queueEntries(b, &head, entries)
	b.Queue(`COMMIT`)
	err := s.conn.SendBatch(s.ctx, b).Close()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("committing: %w", err)
	if e, told := errors.AsType[*pgconn.PgError](err); told && !s.conn.IsClosed() && e.Code != unsure || entries == nil {
		return err // the server says that it has not, or it may be done again
	}
	last := entries[len(entries)-1]
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), workTimeout)
	defer cancel()
	for try := 0; try <= lookTries; try++ {
		committed, looked := d.committed(ctx, head.Lane, before+int64(len(entries)), last.MAC)
		if looked == nil && committed {
			return nil
		}
		if looked == nil {
			return lost{err}
		}
		if pause(ctx, try, nil) != nil {
			break
		}
	}
	return fmt.Errorf("%w: %s", errUnknown, err.Error()) // not to be taken for what it was
}

// unsure is the code of a server that does not know either what has become of a
// commit: one of several that had it.
const unsure = "40003"

// errUnknown says that a connection was lost during a commit, and that nobody
// could look what has become of it.
var errUnknown = errors.New("nobody knows whether it was written, since the database does not answer: look before you try again")

// committed looks whether the entry with that place and MAC is in the ledger. It
// waits for the lane, and so for the end of the transaction that has it, which
// may go on without its connection.
func (d *DB) committed(ctx context.Context, lane, seq int64, mac []byte) (found bool, err error) {
	err = d.borrow(ctx, ctx, d.side, func(s *session) error {
		b := &pgx.Batch{}
		b.Queue(`BEGIN`)
		b.Queue(`SELECT lane FROM ledger_heads WHERE lane = $1 FOR UPDATE`, lane)
		b.Queue(`SELECT EXISTS (SELECT 1 FROM ledger WHERE lane = $1 AND seq = $2 AND mac = $3)`, lane, seq, mac).
			QueryRow(func(row pgx.Row) error { return row.Scan(&found) })
		b.Queue(`ROLLBACK`)
		return s.conn.SendBatch(s.ctx, b).Close()
	})
	return found, err
}

// lost says that a transaction was not committed since its connection was lost.
type lost struct{ error }

func (l lost) Unwrap() error { return l.error }

// conflict reports whether a transaction failed because of others.
func conflict(err error) bool {
	if errors.Is(err, errKeysMoved) {
		return true
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch e.Code {
	case "40001", "40P01", "55P03": // serialization failure, deadlock, lock timeout
		return true
	}
	return false
}

// retriable reports whether a transaction that failed so has not been committed
// and may succeed another time.
func retriable(err error) bool {
	if err == nil || sqlstore.Decided(err) || errors.Is(err, sql.ErrNoRows) || errors.Is(err, sqlstore.ErrClosed) {
		return false
	}
	if conflict(err) {
		return true
	}
	if _, ok := errors.AsType[lost](err); ok {
		return true
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code {
		case "57014": // statement_timeout, or a person has cancelled it
			return false
		case "25006", "53300", unsure: // read only: a standby that is about to take over; too many connections; a commit that can be repeated
			return true
		}
		// Connection failures; shutting down, starting up.
		return strings.HasPrefix(e.Code, "08") || strings.HasPrefix(e.Code, "57")
	}
	// What the driver says of a connection: it was not made, or was lost before the
	// commit was sent, or with a commit that can be repeated.
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	return pgconn.SafeToRetry(err) || lostConnection(err)
}

// lostConnection reports whether err is of a connection, and no word from the
// server.
func lostConnection(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return false
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed)
}

// pause waits before the next try, with some chance in it.
func pause(ctx context.Context, try int, closing <-chan struct{}) error {
	d := min(pauseFirst<<min(try, 20), pauseLast)
	t := time.NewTimer(d/2 + rand.N(d)) //nolint:gosec // G404: it is only to spread load
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-closing:
		return sqlstore.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
