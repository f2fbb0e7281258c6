package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Tries bounds how often a transaction is tried.
const Tries = tries + 1

// Text is a shared text as PostgreSQL wants it.
func Text(shared string) string { return new(DB).text(shared) }

// Clean makes arguments fit for PostgreSQL.
func Clean(args ...any) []any { return clean(args) }

// Setting is what the connections of both pools have a setting at.
func (d *DB) Setting(ctx context.Context, name string) (main, side string, err error) {
	show := func(pool *pgxpool.Pool, value *string) error {
		return pool.QueryRow(ctx, `SELECT current_setting($1)`, name).Scan(value)
	}
	err = errors.Join(show(d.pool, &main), show(d.side, &side))
	return main, side, err
}
