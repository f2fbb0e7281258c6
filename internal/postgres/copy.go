package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// connectAlone makes a connection for what takes as long as it takes.
func connectAlone(ctx context.Context, config *pgxpool.Config) (*pgx.Conn, error) {
	c := config.ConnConfig.Copy()
	maps.Copy(c.RuntimeParams, map[string]string{"idle_in_transaction_session_timeout": "0", "statement_timeout": "0"})
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connecting to the database: %w", err)
	}
	return conn, nil
}

// Export calls do with one state of the whole database.
func (d *DB) Export(ctx context.Context, do func(sqlstore.Source) error) error {
	for try := 0; ; try++ {
		if err := d.foldAll(ctx); err != nil {
			return err
		}
		folded := true
		err := d.longRead(ctx, func(s *session) error {
			if err := s.Row(ctx, `SELECT NOT EXISTS (SELECT 1 FROM redemption_changes)`).Scan(&folded); err != nil {
				return err
			}
			if !folded {
				return sqlstore.ErrWritten
			}
			from := source{state: state{s, dialect{d}}}
			defer from.release(ctx)
			return do(&from)
		})
		if folded || try == tries {
			return err
		}
		// The one that folds beside may not have ended.
		if err := pause(ctx, try, d.closing); err != nil {
			return err
		}
	}
}

type state struct {
	*session
	dialect
}

// source implements sqlstore.Source.
type source struct {
	state

	holder *pgx.Conn // nil: nobody is held
}

// Hold implements sqlstore.Source. It is not for the connection that reads: that
// one sees no state but its own.
func (s *source) Hold(ctx context.Context) (heads []account.Head, err error) {
	d := s.dialect.d
	if s.holder, err = connectAlone(ctx, d.pool.Config()); err != nil {
		return nil, err
	}
	if _, err := s.holder.Exec(ctx, `BEGIN ISOLATION LEVEL READ COMMITTED`); err != nil {
		return nil, err
	}
	t := d.Tx(sqlstore.Conn{Driver: &session{d: d, conn: s.holder, ctx: ctx}}, 0)
	if err := s.Alone(ctx, t); err != nil {
		return nil, err
	}
	return sqlstore.ReadHeads(ctx, t.Conn)
}

func (s *source) release(ctx context.Context) {
	if s.holder != nil {
		_ = s.holder.Close(context.WithoutCancel(ctx)) // it has only read
	}
}

// target implements sqlstore.Target.
type target struct{ state }

// A setting of this name says that the database is being filled, or was to be, and
// is for nobody else until that has ended.
const (
	insertCopying = `INSERT INTO settings (name, value) SELECT 'copying', 1
		WHERE NOT EXISTS (SELECT 1 FROM settings WHERE name = 'keys_made') ON CONFLICT DO NOTHING`
	selectCopying = `SELECT name FROM settings WHERE name = 'copying'`
	deleteCopying = `DELETE FROM settings WHERE name = 'copying'`
)

// Import brings the schema of the empty database at the address up to date and
// calls do with it, in one transaction, and last when nothing is left but to commit
// it. From its beginning to its end, or to that of another one if it does not
// succeed, Open fails. It fails with sqlstore.ErrNotEmpty if there is anything in
// the database.
func Import(ctx context.Context, url string, do func(sqlstore.Target) error, last func(context.Context) error) error {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("reading the database's address: %w", err)
	}
	set(config, url)
	if _, _, err := migrate(ctx, config.ConnConfig); err != nil {
		return err
	}
	conn, err := connectAlone(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // what was not committed is rolled back
	if err := config.AfterConnect(ctx, conn); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, insertCopying); err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, conn, func(pgx.Tx) error {
		d := &DB{}
		t := target{state{&session{d: d, conn: conn, ctx: ctx}, dialect{d}}}
		if err := t.claim(ctx); err != nil {
			return err
		}
		if err := do(t); err != nil {
			return err
		}
		for _, table := range sqlstore.Tables() { // else the first lists are planned without knowing
			if _, err := conn.Exec(ctx, `ANALYZE `+table.Name); err != nil {
				return err
			}
		}
		if _, err := conn.Exec(ctx, deleteCopying); err != nil {
			return err
		}
		return last(ctx)
	})
	if errors.Is(err, sqlstore.ErrNotEmpty) {
		_, undo := conn.Exec(ctx, deleteCopying)
		err = errors.Join(err, undo)
	}
	return err
}

// claim has whoever else wants to fill the database, or opens it, wait or fail.
func (t target) claim(ctx context.Context) error {
	var name string
	err := t.Row(ctx, selectCopying+` FOR UPDATE`).Scan(&name)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "55P03" { // lock timeout
		return errors.New("another scrip copy is writing to it")
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return sqlstore.ErrNotEmpty
	}
	if err != nil {
		return err
	}
	n, err := t.Exec(ctx, `INSERT INTO settings (name, value) VALUES ('keys_made', 1) ON CONFLICT DO NOTHING`)
	if err == nil && n == 0 { // by a server that was opening it
		err = sqlstore.ErrNotEmpty
	}
	return err
}

// notCopying fails if a copy to the database has begun and not ended.
func (d *DB) notCopying(ctx context.Context) (err error) {
	var copying bool
	err = d.Read(ctx, func(s sqlstore.Conn) error {
		return s.Row(ctx, `SELECT EXISTS (`+selectCopying+`)`).Scan(&copying)
	})
	if err == nil && copying {
		err = errors.New("a copy to it has begun and not ended: wait for it or, if it was interrupted, run the same scrip copy again")
	}
	return err
}

// Insert implements sqlstore.Target.
func (t target) Insert(ctx context.Context, table sqlstore.Table, rows [][]any) error {
	if at := slices.Index(table.Columns, "pickup_codes"); at >= 0 { // a BOOLEAN here
		for _, row := range rows {
			row[at] = row[at] == int64(1)
		}
	}
	_, err := t.conn.CopyFrom(ctx, pgx.Identifier{table.Name}, table.Columns, pgx.CopyFromRows(rows))
	return err
}

// SetCounter implements sqlstore.Target.
func (t target) SetCounter(ctx context.Context, table string, last int64) (err error) {
	switch {
	case counted(table):
		_, err = t.Exec(ctx, `UPDATE counters SET value = ? WHERE name = ?`, last, table)
	case last > 0:
		_, err = t.Exec(ctx, `SELECT setval('`+table+`_id_seq', ?)`, last)
	}
	return err
}

// PutSalt implements sqlstore.Target.
func (t target) PutSalt(ctx context.Context, salt []byte) error {
	_, err := t.Exec(ctx, `INSERT INTO key_salt (value) VALUES (?)`, salt)
	return err
}

// Lanes implements sqlstore.Target.
func (target) Lanes() int64 { return lanes }
