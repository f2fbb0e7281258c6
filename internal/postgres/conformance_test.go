package postgres_test

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/scrip-codes/scrip/internal/postgres"
	"github.com/scrip-codes/scrip/internal/rig"
	"github.com/scrip-codes/scrip/internal/storetest"
)

// server is the PostgreSQL of all tests.
var server *rig.Postgres //nolint:gochecknoglobals // started once, by TestMain

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx := context.Background()
	var err error
	if server, err = rig.StartPostgres(ctx, rig.PostgresOptions{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	if _, err := server.Create(ctx, "scrip", ""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if _, _, err := postgres.Migrate(ctx, server.URL("scrip")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// databases counts those that tests have made.
var databases atomic.Int64 //nolint:gochecknoglobals // names must differ

// newDatabase makes an empty database and returns its address.
func newDatabase(t *testing.T) string {
	t.Helper()
	url, err := server.Create(t.Context(), fmt.Sprintf("test%d", databases.Add(1)), "scrip")
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// create makes an empty database.
func create(t *testing.T) storetest.Opener {
	t.Helper()
	return openerOf(t, newDatabase(t))
}

// openerOf opens handles on the database at that address.
func openerOf(t *testing.T, url string) storetest.Opener {
	t.Helper()
	return func(ctx context.Context, o storetest.Options) (storetest.Engine, error) {
		d, err := postgres.Open(ctx, postgres.Options{URL: url, Secrets: o.Secrets, Now: o.Now})
		if err != nil {
			return nil, err
		}
		return planned{d, t}, nil
	}
}

func TestConformance(t *testing.T) { storetest.Run(t, create) }

func TestShared(t *testing.T) { storetest.RunShared(t, create) }

func TestModel(t *testing.T) { storetest.Model(t, create) }

func TestModelPickup(t *testing.T) { storetest.ModelPickup(t, create) }
