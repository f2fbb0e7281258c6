package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
)

// Backup writes a consistent copy of the database to a new file, beside whoever
// is writing, and checks it. The copy holds the data keys, wrapped: the secret
// is needed with it. If it fails, what there is of the file is the caller's to
// remove.
func (d *DB) Backup(ctx context.Context, file string) (err error) {
	if err := createPrivate(file); err != nil {
		return err
	}
	// Of its own, since those of the pool only read, and have other work.
	db, err := connect(d.path, readerCache, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, `VACUUM INTO ?`, file); err != nil { // refuses all but an empty file
		return fmt.Errorf("copying the database: %w", err)
	}
	return Check(ctx, file)
}

// Check opens a database file that nobody writes to and verifies that it is
// whole and one of Scrip's.
func Check(ctx context.Context, file string) (err error) {
	if _, err := os.Stat(file); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dsnOf(file)+"?mode=ro&immutable=1")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var result string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&result); err != nil {
		return fmt.Errorf("%s is no database that can be read: %w", file, err)
	}
	if result != "ok" {
		return fmt.Errorf("%s is damaged: %s", file, result)
	}
	var heads int64
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM ledger_heads`).Scan(&heads); err != nil || heads == 0 {
		return errors.Join(fmt.Errorf("%s is not a Scrip database", file), err)
	}
	return nil
}
