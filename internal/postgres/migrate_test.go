package postgres_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/scrip-codes/scrip/internal/postgres"
	"github.com/scrip-codes/scrip/internal/storetest"
)

// upTo makes a database with the schema of that version.
func upTo(t *testing.T, version int64) (url string) {
	t.Helper()
	url, err := server.Create(t.Context(), fmt.Sprintf("test%d", databases.Add(1)), "")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	p, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("migrations"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	return url
}

// TestMigrateBesideWriters: while a migration waits for who writes, all others write
// on, and one that is cut off is done from where it was.
func TestMigrateBesideWriters(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	f := &fixture{T: t, ctx: ctx, url: upTo(t, 2), clock: storetest.NewClock()}
	const write = `LOCK TABLE %s IN ROW EXCLUSIVE MODE`
	const invalid = `SELECT count(*) FROM pg_index WHERE NOT indisvalid`
	raw, writer := f.raw(), f.raw()
	f.exec(writer, `BEGIN`, fmt.Sprintf(write, `users, ledger`))
	cut, end := context.WithCancel(ctx)
	defer end()
	done := make(chan error, 1)
	go func() {
		_, _, err := postgres.Migrate(cut, f.url)
		done <- err
	}()
	f.waiting(raw, 1)
	f.exec(raw, `SET lock_timeout = '1s'`, `BEGIN`,
		fmt.Sprintf(write, `users, ledger, pickup_codes, guesses, redemption_changes`), `COMMIT`)
	end()
	if err := <-done; err == nil {
		t.Error("it was cut off, and reports that all is done")
	}
	f.eventually("the build ends", func() bool {
		return f.number(raw, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 0
	})
	if n := f.number(raw, invalid); n != 1 {
		t.Errorf("%d indexes are not valid, want the one whose build was cut off", n)
	}
	f.exec(writer, `COMMIT`)
	if _, _, err := postgres.Migrate(ctx, f.url); err != nil {
		t.Fatal(err)
	}
	if n := f.number(raw, invalid); n != 0 {
		t.Errorf("%d indexes are not valid", n)
	}
	for what, want := range map[string]int64{
		`'users_name', 'users_role', 'users_status', 'pickup_codes_look', 'guesses_failed',
			'ledger_actor_at', 'ledger_account_at', 'ledger_machine_at'`: 8,
		`'ledger_actor', 'ledger_account', 'ledger_machine'`: 0,
	} {
		if n := f.number(raw, `SELECT count(*) FROM pg_indexes WHERE indexname IN (`+what+`)`); n != want {
			t.Errorf("there are %d of %s, want %d", n, what, want)
		}
	}
	newFixtureAt(t, f.url).issue(3, 7)
}
