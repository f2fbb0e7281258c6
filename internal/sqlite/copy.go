package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// Export calls do with one state of the whole database.
func (d *DB) Export(ctx context.Context, do func(sqlstore.Source) error) (err error) {
	return d.longRead(ctx, func(s *session) error {
		from := source{state: state{s, dialect{}}, d: d}
		return errors.Join(do(&from), from.release(context.WithoutCancel(ctx)))
	})
}

// Long implements sqlstore.Engine.
func (d *DB) Long(ctx context.Context, do func(sqlstore.Conn) error) error {
	return d.longRead(ctx, func(s *session) error { return do(sqlstore.Conn{Driver: s}) })
}

// longRead calls do with one state of the database, on a connection of its own: it
// takes as long as it takes, and others have need of the pool.
func (d *DB) longRead(ctx context.Context, do func(*session) error) (err error) {
	db, err := connect(d.path, readerCache, "_pragma=query_only(1)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	s, err := newSession(ctx, db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if _, err := s.Exec(ctx, `BEGIN`); err != nil {
		return err
	}
	err = do(s)
	_, end := s.Exec(context.WithoutCancel(ctx), `ROLLBACK`)
	return errors.Join(err, end)
}

type state struct {
	*session
	dialect
}

// source implements sqlstore.Source.
type source struct {
	state

	d    *DB
	held bool
}

// Hold implements sqlstore.Source: other processes wait for the lock, this one for
// the writer's turn.
func (s *source) Hold(ctx context.Context) ([]account.Head, error) {
	select {
	case <-s.d.writeTurn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if _, err := s.d.writer.Exec(ctx, `BEGIN IMMEDIATE`); err != nil {
		s.d.writeTurn <- struct{}{}
		return nil, fmt.Errorf("waiting for all who write: %w", err)
	}
	s.held = true
	return sqlstore.ReadHeads(ctx, sqlstore.Conn{Driver: s.d.writer})
}

func (s *source) release(ctx context.Context) error {
	if !s.held {
		return nil
	}
	defer func() { s.d.writeTurn <- struct{}{} }()
	_, err := s.d.writer.Exec(ctx, `ROLLBACK`)
	return err
}

// target implements sqlstore.Target.
type target struct{ state }

// fillCache is the page cache of a database that is being filled, in KiB.
const fillCache = 16 << 10

// Import makes a database in a new file and calls do with it. Until it has ended
// the file is worth nothing, and if it fails the caller is to remove it: there is
// no journal, and nothing waits for the disk.
func Import(ctx context.Context, file string, do func(sqlstore.Target) error) (err error) {
	if err := createPrivate(file); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dsnOf(file)+"?_pragma=locking_mode(exclusive)&_pragma=journal_mode(off)&_pragma=synchronous(off)"+
		fmt.Sprintf("&_pragma=cache_size(-%d)", fillCache)+"&_pragma=temp_store(file)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	// Where there is room for the file there is some for sorting.
	if _, err := db.ExecContext(ctx, `PRAGMA temp_store_directory = '`+strings.ReplaceAll(filepath.Dir(file), `'`, `''`)+`'`); err != nil {
		return err
	}
	if _, _, err := migrate(ctx, db); err != nil {
		return err
	}
	s, err := newSession(ctx, db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if _, err := s.Exec(ctx, `BEGIN`); err != nil {
		return err
	}
	indexes, err := s.dropIndexes(ctx)
	if err != nil {
		return err
	}
	if err := do(target{state{s, dialect{}}}); err != nil {
		return err
	}
	for _, text := range append(indexes, `COMMIT`) {
		if _, err := s.conn.ExecContext(ctx, text); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return nil
}

// dropIndexes drops all indexes but those of the keys, and returns what makes them
// again: it takes less time to sort once than to find each row's place.
func (s *session) dropIndexes(ctx context.Context) (texts []string, err error) {
	var names []string
	err = s.Each(ctx, func(row sqlstore.Scanner) error {
		var name, text string
		err := row.Scan(&name, &text)
		names, texts = append(names, name), append(texts, text)
		return err
	}, `SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL`)
	for _, name := range names {
		if err == nil {
			_, err = s.conn.ExecContext(ctx, `DROP INDEX `+name)
		}
	}
	return texts, err
}

// Insert implements sqlstore.Target.
func (t target) Insert(ctx context.Context, table sqlstore.Table, rows [][]any) error {
	columns := slices.Clone(table.Columns)
	if at := slices.Index(columns, "seq"); at >= 0 { // of the ledger: it is what id and ahead say
		columns[at] = "ahead"
		for _, row := range rows {
			id, _ := row[0].(int64)
			seq, _ := row[at].(int64)
			row[at] = id - seq
		}
	}
	insert := `INSERT INTO ` + table.Name + ` (` + strings.Join(columns, `, `) + `) VALUES `
	one := `(` + strings.TrimSuffix(strings.Repeat(`?, `, len(columns)), `, `) + `)`
	for len(rows) > 0 {
		n := insertRows
		if len(rows) < n {
			n = 1
		}
		if _, err := t.Exec(ctx, insert+strings.TrimSuffix(strings.Repeat(one+`, `, n), `, `), slices.Concat(rows[:n]...)...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// SetCounter implements sqlstore.Target.
func (t target) SetCounter(ctx context.Context, table string, last int64) error {
	if table == "ledger" { // nothing of it is ever removed
		return nil
	}
	n, err := t.Exec(ctx, `UPDATE sqlite_sequence SET seq = ? WHERE name = ?`, last, table)
	if err == nil && n == 0 {
		_, err = t.Exec(ctx, `INSERT INTO sqlite_sequence (seq, name) VALUES (?, ?)`, last, table)
	}
	return err
}

// PutSalt implements sqlstore.Target.
func (t target) PutSalt(ctx context.Context, salt []byte) error {
	_, err := t.Exec(ctx, `INSERT INTO settings (name, value) VALUES ('key_salt', ?)`, salt)
	return err
}

// Lanes implements sqlstore.Target.
func (target) Lanes() int64 { return lane }
