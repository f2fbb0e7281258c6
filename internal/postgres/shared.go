package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// What servers that share a database share beside the domain's data.

const (
	// asideTimeout bounds what is asked beside a transaction.
	asideTimeout = 10 * time.Second
	// guessesFor is how long counts of failed guesses are kept of which nobody says
	// for how long: longer than any window.
	guessesFor = 8 * 24 * time.Hour
	// forgetStep bounds how many of them are dropped at once.
	forgetStep = 10_000
	// BrokerDuty is the duty of the one server that has the MQTT broker in it.
	BrokerDuty = "mqtt broker"
)

const selectGuesses = `SELECT subject, began, failed, forgiven FROM guesses WHERE subject = ANY($1) AND began > $2`

func scanGuess(row sqlstore.Scanner) (c guess.Count, err error) {
	var began int64
	err = row.Scan(&c.Subject, &began, &c.Failed, &c.Forgiven)
	c.Began = time.UnixMilli(began)
	return c, err
}

// Guesses implements guess.Store.
func (d *DB) Guesses(ctx context.Context, subjects [][]byte, since time.Time) (counts []guess.Count, err error) {
	ctx, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
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

// AddGuesses implements guess.Store. A count is kept for twice its window, since
// the clocks of servers differ.
func (d *DB) AddGuesses(ctx context.Context, name string, failures []guess.Failure, now, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	subjects, labels := make([][]byte, len(failures)), make([]string, len(failures))
	for i, f := range failures {
		subjects[i], labels[i] = f.Subject, f.Label
	}
	_, err := d.side.Exec(ctx, `INSERT INTO guesses AS g (subject, began, failed, ends, limiter, label)
		SELECT s, $2, count(*), $4, $5, min(l) FROM unnest($1::bytea[], $6::text[]) AS f (s, l) GROUP BY s ORDER BY s
		ON CONFLICT (subject) DO UPDATE SET
			began = CASE WHEN g.began > $3 AND g.began <= $2 THEN g.began ELSE excluded.began END,
			failed = CASE WHEN g.began > $3 AND g.began <= $2 THEN g.failed ELSE 0 END + excluded.failed,
			forgiven = CASE WHEN g.began > $3 AND g.began <= $2 THEN g.forgiven ELSE 0 END,
			ends = excluded.ends, limiter = excluded.limiter, label = excluded.label`,
		subjects, now.UnixMilli(), since.UnixMilli(), now.Add(2*now.Sub(since)).UnixMilli(), name, labels)
	return err
}

// WorstGuesses implements guess.Store.
func (d *DB) WorstGuesses(
	ctx context.Context, name string, least int64, since time.Time, most int,
) (counts []guess.Count, err error) {
	ctx, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	rows, err := d.side.Query(ctx, `SELECT subject, began, failed, forgiven, label FROM guesses
		WHERE limiter = $1 AND label <> '' AND failed >= $2 AND began > $3 ORDER BY failed DESC LIMIT $4`,
		name, least, since.UnixMilli(), most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c guess.Count
		var began int64
		if err := rows.Scan(&c.Subject, &began, &c.Failed, &c.Forgiven, &c.Label); err != nil {
			return nil, err
		}
		c.Began = time.UnixMilli(began)
		counts = append(counts, c)
	}
	return counts, rows.Err()
}

// ForgiveGuesses implements guess.Store. The rows are locked in the order in which
// AddGuesses locks them.
func (d *DB) ForgiveGuesses(ctx context.Context, subjects [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	_, err := d.side.Exec(ctx, `WITH found AS (SELECT subject FROM guesses WHERE subject = ANY($1) ORDER BY subject FOR UPDATE)
		UPDATE guesses g SET failed = 0, forgiven = g.forgiven + 1 FROM found WHERE g.subject = found.subject`, subjects)
	return err
}

// Forget implements account.Store: counts of failed guesses go too.
func (d *DB) Forget(ctx context.Context, now time.Time) (more bool, err error) {
	aside, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	tag, err := d.side.Exec(aside, `DELETE FROM guesses WHERE ends < $1 AND (ends > 0 OR began < $2) AND subject = ANY (ARRAY
		(SELECT subject FROM guesses WHERE ends < $1 AND (ends > 0 OR began < $2) LIMIT $3))`,
		now.UnixMilli(), now.Add(-guessesFor).UnixMilli(), forgetStep)
	if err != nil {
		return false, fmt.Errorf("forgetting: %w", err)
	}
	more, err = d.Store.Forget(ctx, now)
	return more || tag.RowsAffected() == forgetStep, err
}

// Duty reports whether holder is to do the work of that name from now on, for a
// time: nobody else is told so before that has passed. It may ask again before.
// The time is the database's.
func (d *DB) Duty(ctx context.Context, name, holder string, lasting time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	tag, err := d.side.Exec(ctx, `WITH clock AS (SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now)
		INSERT INTO duties AS d (name, holder, until) SELECT $1, $2, now + $3 FROM clock
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
			WHERE d.holder = excluded.holder OR d.until <= excluded.until - $3`,
		name, holder, lasting.Milliseconds())
	if err != nil {
		return false, fmt.Errorf("asking who does %q: %w", name, err)
	}
	mine := tag.RowsAffected() == 1
	if mine && name == BrokerDuty {
		d.follower.Store(&holder)
	}
	return mine, nil
}

// Resign gives up a duty.
func (d *DB) Resign(ctx context.Context, name, holder string) error {
	ctx, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	_, err := d.side.Exec(ctx, `DELETE FROM duties WHERE name = $1 AND holder = $2`, name, holder)
	return err
}
