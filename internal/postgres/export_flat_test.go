package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// EachIdle calls do with each connection that nobody uses.
func (d *DB) EachIdle(ctx context.Context, do func(*pgx.Conn) error) error {
	var errs []error
	for _, pool := range []*pgxpool.Pool{d.pool, d.side} {
		for _, c := range pool.AcquireAllIdle(ctx) {
			errs = append(errs, do(c.Conn()))
			c.Release()
		}
	}
	return errors.Join(errs...)
}
