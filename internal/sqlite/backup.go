package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Backup writes a consistent copy of the database to a new file, beside whoever
// is writing, and checks it. The copy holds the data keys, wrapped: the secret
// is needed with it.
func (d *DB) Backup(ctx context.Context, file string) (err error) {
	temp := file + ".part"
	if err := createPrivate(temp); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	// Of its own, since those of the pool only read, and have other work.
	db, err := connect(d.path, readerCache, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, `VACUUM INTO ?`, temp); err != nil {
		return fmt.Errorf("copying the database: %w", err)
	}
	if err := Check(ctx, temp); err != nil {
		return err
	}
	if err := syncFile(temp); err != nil {
		return err
	}
	if err := os.Link(temp, file); err != nil { // unlike a rename, never over another
		return fmt.Errorf("naming the backup: %w", err)
	}
	if err := os.Remove(temp); err != nil {
		return err
	}
	return syncFile(filepath.Dir(file))
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

// syncFile makes a file's, or a directory's, content durable.
func syncFile(path string) error {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
