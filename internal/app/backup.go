package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/scrip-codes/scrip/internal/config"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/sqlite"
)

type backupCommand struct {
	File string `arg:"" help:"File to write. It must not exist."`
}

// Help is shown with the command's flags.
func (*backupCommand) Help() string {
	return "The backup is of one moment, however long it takes, and is read back before it gets its name. " +
		"It is worth nothing without the secret: keep that too, but elsewhere."
}

// Run writes a backup.
func (c *backupCommand) Run(ctx context.Context, p *program) error {
	if err := mustNotExist(c.File); err != nil {
		return err
	}
	err := p.with(ctx, opening{}, func(s *store) error {
		db, ok := s.engine.(*sqlite.DB)
		if !ok {
			return notSQLite("pg_dump")
		}
		return inScratch(filepath.Dir(c.File), func(dir string) error {
			file := filepath.Join(dir, "backup")
			if err := db.Backup(ctx, file); err != nil { // and reads it back
				return fmt.Errorf("writing the backup: %w", err)
			}
			return settle(file, c.File)
		})
	})
	if err != nil {
		return err
	}
	secret, err := p.secretPlace()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.Stdout, "Backup written to %s and verified. It opens only with the secret, which is not in it: %s.\n",
		c.File, secret)
	return err
}

// secretPlace says where the secret is that a backup needs.
func (p *program) secretPlace() (string, error) {
	c, err := p.configure()
	if err != nil {
		return "", err
	}
	if c.Secrets != nil {
		return "keep a copy of SCRIP_SECRET", nil
	}
	return "keep a copy of " + c.SecretFile(), nil
}

// notSQLite says which of PostgreSQL's commands does what this one does.
func notSQLite(command string) error {
	return errors.New("SCRIP_DATABASE_URL: this is for SQLite; use PostgreSQL's " + command + ", as docs/operations.md says")
}

type restoreCommand struct {
	File string `arg:"" help:"Backup to restore."`
}

// Help is shown with the command's flags.
func (*restoreCommand) Help() string {
	return "There must be no database in the data directory. Put the secret that the backup was made with there first, " +
		"or set it: the restored database is then tried with it."
}

// Run puts a backup in place of a database that does not exist.
func (c *restoreCommand) Run(ctx context.Context, p *program) error {
	cfg, err := p.configure()
	if err != nil {
		return err
	}
	if !cfg.Embedded() {
		return notSQLite("pg_restore")
	}
	if err := mustNotBe(cfg.Database); err != nil {
		return fmt.Errorf("%w; or set SCRIP_DATA_DIR to an empty directory", err)
	}
	if err := cfg.MakeDirs(); err != nil {
		return err
	}
	tried := cfg.HasSecret()
	err = inScratch(filepath.Dir(cfg.Database), func(dir string) error {
		file := filepath.Join(dir, "restored")
		if err := copyFile(c.File, file); err != nil {
			return fmt.Errorf("copying the backup: %w", err)
		}
		if err := sqlite.Check(ctx, file); err != nil {
			return fmt.Errorf("%s is not a whole backup, nothing was restored: %w", c.File, err)
		}
		if tried {
			if err := try(ctx, &cfg, c.File, file); err != nil {
				return err
			}
		}
		return settle(file, cfg.Database)
	})
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		_, _ = fmt.Fprintln(p.Stderr, "scrip: warning:", w)
	}
	if tried {
		_, err = fmt.Fprintf(p.Stdout, "Restored %s to %s. The secret opens it: start scrip serve.\n", c.File, cfg.Database)
		return err
	}
	_, err = fmt.Fprintf(p.Stdout, "Restored %s to %s.\nIt needs the secret that was in use when the backup was made: "+
		"set SCRIP_SECRET to it, or write it to %s (chmod 600), then start scrip serve.\n", c.File, cfg.Database, cfg.SecretFile())
	return err
}

// try opens a restored database with the secret that is there.
func try(ctx context.Context, c *config.Config, backup, file string) error {
	secrets, err := c.OpenSecrets()
	if err != nil {
		return err
	}
	db, err := sqlite.Open(ctx, sqlite.Options{Path: file, Secrets: secrets, Now: now})
	if errors.Is(err, keyring.ErrWrongSecret) {
		wrong := *c
		wrong.Database = backup
		return wrongSecret(&wrong)
	}
	if err != nil {
		return fmt.Errorf("opening what was restored: %w", err)
	}
	if err := db.Close(); err != nil {
		return err
	}
	// Only the file itself is given its place.
	if info, err := os.Stat(file + "-wal"); err == nil && info.Size() > 0 {
		return errors.New("what was restored did not close: nothing was restored")
	}
	return nil
}

func mustNotExist(file string) error {
	_, err := os.Lstat(file)
	if err == nil {
		return fmt.Errorf("%s exists: move it away, it is not overwritten", file)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking whether it exists: %w", err)
	}
	return nil
}

// inScratch runs do with a new directory in dir that only this user can read,
// and removes it.
func inScratch(dir string, do func(string) error) error {
	scratch, err := os.MkdirTemp(dir, ".scrip-*.tmp")
	if err != nil {
		return err
	}
	return errors.Join(do(scratch), os.RemoveAll(scratch))
}

// settle gives a finished file its name, which nothing may have taken
// meanwhile, once its bytes are on the disk.
func settle(file, name string) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0) //nolint:gosec // G304: made by this program
	if err != nil {
		return err
	}
	err = f.Sync()
	if err = errors.Join(err, f.Close(), os.Chmod(file, 0o600)); err != nil {
		return err
	}
	if err := os.Link(file, name); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return mustNotExist(name)
		}
		// No hard links here: the check a moment ago must do.
		if err := errors.Join(mustNotExist(name), os.Rename(file, name)); err != nil {
			return err
		}
	}
	return config.SyncDir(filepath.Dir(name))
}

func copyFile(from, to string) error {
	in, err := os.Open(from) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // G304: made by this program
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
