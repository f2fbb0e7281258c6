package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/config"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/postgres"
	"github.com/scrip-codes/scrip/internal/sqlite"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

type copyCommand struct {
	From string `required:"" placeholder:"URL" help:"Database to copy: sqlite:PATH or postgres://USER@HOST/DATABASE. A password is better in PGPASSWORD or in ~/.pgpass: other users of the machine can see flags."`
	To   string `required:"" placeholder:"URL" help:"Database to copy it to, written like that. With SQLite the file must not exist; with PostgreSQL the database must be there, and new."`
	JSON bool   `help:"Print JSON."`
}

// Help is shown with the command's flags.
func (*copyCommand) Help() string {
	return `Stop all servers of the database first: what they write while it is copied would be missing, and so that makes the copy fail. The secret is the same for both, that of SCRIP_SECRET or of the file in the data directory, and stays as it is.

Everything is read back, the ledger and the balances are verified, and only then is the copy there at all: one that fails or is interrupted leaves nothing that looks like a database. To go on, run it again: it begins anew.

Afterwards start servers on the copy only: codes can still be redeemed in the other.`
}

type copyJSON struct {
	From       string           `json:"from"`
	To         string           `json:"to"`
	Rows       map[string]int64 `json:"rows"`
	Lanes      int              `json:"lanes"`
	Entries    int64            `json:"entries"`
	Accounts   int64            `json:"accounts"`
	Checkpoint string           `json:"checkpoint"`
}

// Run copies a database.
func (c *copyCommand) Run(ctx context.Context, p *program) error {
	from, err := p.configureFor("--from", c.From)
	if err != nil {
		return err
	}
	to, err := p.configureFor("--to", c.To)
	if err != nil {
		return err
	}
	exists, err := from.DatabaseExists()
	if err == nil && !exists {
		err = fmt.Errorf("--from: there is no database %s", from.Database)
	}
	if err != nil {
		return err
	}
	secrets, err := from.OpenSecrets()
	for _, w := range from.Warnings {
		_, _ = fmt.Fprintln(p.Stderr, "scrip: warning:", w)
	}
	if err != nil {
		return err
	}
	copied, err := copyDatabase(ctx, &from, &to, secrets, newProgress(p.Stderr))
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("interrupted: nothing was copied to %s; run it again to begin anew", to.Database)
	}
	if err != nil {
		return err
	}
	return c.print(p.Stdout, &from, &to, copied)
}

// configureFor loads the settings with another database, that of a flag.
func (p *program) configureFor(flag, url string) (config.Config, error) {
	f := *p.flags
	f.DatabaseURL = &url
	c, err := config.Load(f, p.Environ)
	if e, ok := errors.AsType[*config.Error](err); ok && e.Setting == "SCRIP_DATABASE_URL" {
		e.Setting = flag
	}
	return c, err
}

func copyDatabase(ctx context.Context, from, to *config.Config, secrets []string, bar *progress) (copied sqlstore.Copied, err error) {
	if to.Embedded() {
		if err := mustNotBe(to.Database); err != nil {
			return copied, err
		}
	}
	db, err := openEngine(ctx, from, secrets, nil)
	if errors.Is(err, keyring.ErrWrongSecret) {
		return copied, wrongSecret(from)
	}
	if err != nil {
		return copied, fmt.Errorf("opening the database %s: %w", from.Database, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c := sqlstore.Copying{
		Secrets: secrets, Heads: db.Heads,
		Progress: func(doing string, done, total int64) {
			bar.say("%.0f%% %s", 100*float64(done)/float64(max(total, 1)), doing)
		},
	}
	of := func(err error) error {
		if err != nil {
			err = fmt.Errorf("copying %s: %w", from.Database, err)
		}
		return err
	}
	err = db.Export(ctx, func(source sqlstore.Source) error {
		err := importTo(ctx, to, func(target sqlstore.Target) (err error) {
			copied, err = sqlstore.Copy(ctx, source, target, c)
			return of(err)
		}, func(ctx context.Context) error { return of(copied.Unchanged(ctx, source)) })
		if errors.Is(err, sqlstore.ErrNotEmpty) {
			err = fmt.Errorf("%s: %w", to.Database, err)
		}
		return err
	})
	return copied, err
}

// importTo calls fill with the database that is to be made or filled, and last when
// nothing is left but to have it be there.
func importTo(ctx context.Context, c *config.Config, fill func(sqlstore.Target) error, last func(context.Context) error) error {
	if !c.Embedded() {
		return postgres.Import(ctx, c.Postgres.Reveal(), fill, last)
	}
	dir := filepath.Dir(c.Database)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return inScratch(dir, func(scratch string) error {
		file := filepath.Join(scratch, "copy")
		if err := sqlite.Import(ctx, file, fill); err != nil {
			return err
		}
		if err := sqlite.Check(ctx, file); err != nil {
			return err
		}
		if err := last(ctx); err != nil {
			return err
		}
		return settle(file, c.Database)
	})
}

// mustNotBe fails if there is a database in the file of that name, or what one
// has left.
func mustNotBe(database string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := mustNotExist(database + suffix); err != nil {
			return err
		}
	}
	return nil
}

func (c *copyCommand) print(w io.Writer, from, to *config.Config, copied sqlstore.Copied) error {
	r := &copied.Report
	if c.JSON {
		return printJSON(w, copyJSON{
			from.Database, to.Database, copied.Rows, r.Lanes, r.Entries, r.Accounts, account.Checkpoints(r.Heads),
		})
	}
	_, err := fmt.Fprintf(w, "Copied %s to %s, and read it back: %d accounts, %d redemption codes, %d machines, %d pickup codes.\n"+
		"The ledger is whole: %d entries, and the balances of %d accounts are their sums.\n"+
		"Checkpoint: %s\n"+
		"Start servers on the copy, with the same secret, and on the other no more: its codes could be redeemed once more there.\n",
		from.Database, to.Database, copied.Rows["users"], copied.Rows["redemptions"], copied.Rows["machines"], copied.Rows["pickup_codes"],
		r.Entries, r.Accounts, account.Checkpoints(r.Heads))
	return err
}
