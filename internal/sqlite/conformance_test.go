package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/scrip-codes/scrip/internal/sqlite"
	"github.com/scrip-codes/scrip/internal/storetest"
)

// create makes an empty database in a file of its own.
func create(t *testing.T) storetest.Opener {
	t.Helper()
	return openerOf(filepath.Join(t.TempDir(), "scrip.db"))
}

// openerOf opens handles on the database in that file.
func openerOf(path string) storetest.Opener {
	return func(ctx context.Context, o storetest.Options) (storetest.Engine, error) {
		d, err := sqlite.Open(ctx, sqlite.Options{Path: path, Secrets: o.Secrets, Now: o.Now})
		if err != nil {
			return nil, err
		}
		return d, nil
	}
}

func TestConformance(t *testing.T) { storetest.Run(t, create) }

func TestConformanceInBubble(t *testing.T) { storetest.RunInBubble(t, create) }

func TestModel(t *testing.T) { storetest.Model(t, create) }

func TestModelPickup(t *testing.T) { storetest.ModelPickup(t, create) }
