package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// What servers that share a database share beside the domain's data.

// guessesFor bounds how long counts of failed guesses are kept: longer than any
// window, and than clocks differ.
const guessesFor = 8 * 24 * time.Hour

const selectGuesses = `SELECT subject, began, failed FROM guesses WHERE subject = ANY($1) AND began > $2`

func scanGuess(row sqlstore.Scanner) (c guess.Count, err error) {
	var began int64
	err = row.Scan(&c.Subject, &began, &c.Failed)
	c.Began = time.UnixMilli(began)
	return c, err
}

// Guesses implements guess.Store.
func (d *DB) Guesses(ctx context.Context, subjects [][]byte, since time.Time) (counts []guess.Count, err error) {
	rows, err := d.side.Query(ctx, selectGuesses, subjects, since.UnixMilli())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		c, err := scanGuess(rows)
		if err != nil {
			return nil, err
		}
		counts = append(counts, c)
	}
	return counts, rows.Err()
}

// AddGuesses implements guess.Store.
func (d *DB) AddGuesses(ctx context.Context, subjects [][]byte, now, since time.Time) error {
	_, err := d.side.Exec(ctx, `INSERT INTO guesses AS g (subject, began, failed)
		SELECT s, $2, count(*) FROM unnest($1::bytea[]) AS s GROUP BY s ORDER BY s
		ON CONFLICT (subject) DO UPDATE SET
			began = CASE WHEN g.began > $3 AND g.began <= $2 THEN g.began ELSE excluded.began END,
			failed = CASE WHEN g.began > $3 AND g.began <= $2 THEN g.failed ELSE 0 END + excluded.failed`,
		subjects, now.UnixMilli(), since.UnixMilli())
	return err
}

// Forget implements account.Store: counts of failed guesses go too.
func (d *DB) Forget(ctx context.Context, now time.Time) (more bool, err error) {
	if _, err := d.side.Exec(ctx, `DELETE FROM guesses WHERE subject IN
		(SELECT subject FROM guesses WHERE began < $1 LIMIT 1000)`, now.Add(-guessesFor).UnixMilli()); err != nil {
		return false, fmt.Errorf("forgetting: %w", err)
	}
	return d.Store.Forget(ctx, now)
}

// Duty reports whether holder is to do the work of that name from now on, for a
// time: nobody else is told so before that has passed. It may ask again before.
// The time is the database's.
func (d *DB) Duty(ctx context.Context, name, holder string, lasting time.Duration) (bool, error) {
	tag, err := d.side.Exec(ctx, `WITH clock AS (SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now)
		INSERT INTO duties AS d (name, holder, until) SELECT $1, $2, now + $3 FROM clock
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
			WHERE d.holder = excluded.holder OR d.until <= excluded.until - $3`,
		name, holder, lasting.Milliseconds())
	if err != nil {
		return false, fmt.Errorf("asking who does %q: %w", name, err)
	}
	return tag.RowsAffected() == 1, nil
}

// Resign gives up a duty.
func (d *DB) Resign(ctx context.Context, name, holder string) error {
	_, err := d.side.Exec(ctx, `DELETE FROM duties WHERE name = $1 AND holder = $2`, name, holder)
	return err
}
