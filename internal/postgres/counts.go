package postgres

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// What transactions change in the counts is written beside them and added to them
// later, by whoever comes first: a redeem does not wait for the row that another
// one changes. See docs/decisions/postgres.md.

const (
	// foldEvery is how long changes are gathered: what is gathered, lists add up.
	foldEvery = 500 * time.Millisecond
	// foldIdle is how often changes are looked for that others have left.
	foldIdle = 30 * time.Second
	// foldStep bounds how many transactions' changes are added at once.
	foldStep = 1024
)

// queueChanges writes changes of the counts.
func queueChanges(b *pgx.Batch, changes []sqlstore.Change) {
	n := len(changes)
	first, last, name := make([]int64, n), make([]int64, n), make([]int64, n)
	state, expires, count, quota := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, ch := range changes {
		first[i], last[i], name[i] = ch.First, ch.Last, ch.Name
		state[i], expires[i], count[i], quota[i] = ch.State, ch.Expires, ch.N, ch.Quota
	}
	b.Queue(`INSERT INTO redemption_changes (first, last, name_id, state, expires, n, quota) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		first, last, name, state, expires, count, quota)
}

const changeColumns = `first, last, name_id, state, expires, n, quota`

// eachChange reads the changes in a row of changeColumns.
func eachChange(row sqlstore.Scanner, do func(sqlstore.Change) error) error {
	var first, last, name, state, expires, count, quota []int64
	if err := row.Scan(&first, &last, &name, &state, &expires, &count, &quota); err != nil {
		return err
	}
	for i := range first {
		ch := sqlstore.Change{First: first[i], Last: last[i], Name: name[i], State: state[i], Expires: expires[i], N: count[i]}
		if ch.Untold = quota == nil; !ch.Untold {
			ch.Quota = quota[i]
		}
		if err := do(ch); err != nil {
			return err
		}
	}
	return nil
}

// Unfolded implements sqlstore.Dialect.
func (dialect) Unfolded(ctx context.Context, s sqlstore.Conn, do func(sqlstore.Change) error) error {
	return s.Each(ctx, func(row sqlstore.Scanner) error { return eachChange(row, do) },
		`SELECT `+changeColumns+` FROM redemption_changes`)
}

// foldSoon says that there are changes.
func (d *DB) foldSoon() {
	d.unclean.Store(true)
	select {
	case d.fold <- struct{}{}:
	default:
	}
}

// keepFolding adds changes to the counts until the database is closed.
func (d *DB) keepFolding() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	idle := time.NewTicker(foldIdle)
	defer idle.Stop()
	gather := time.NewTimer(0)
	for {
		select {
		case <-d.closing:
			return
		case <-gather.C:
		case <-idle.C:
			d.unclean.Store(true)
		}
		for d.unclean.Swap(false) {
			n, err := d.foldSome(ctx)
			if err != nil || n < foldStep {
				break // if it failed the next tick, or whoever writes next, begins again
			}
			d.unclean.Store(true)
		}
		select {
		case <-d.closing:
			return
		case <-d.fold:
			gather.Reset(foldEvery)
		case <-idle.C:
			d.unclean.Store(true)
			gather.Reset(0)
		}
	}
}

// foldSome adds some changes to the counts, and reports of how many transactions:
// less than foldStep once no more are left. It waits for whoever adds some at the
// same time: who goes by the counts next must see those too.
func (d *DB) foldSome(ctx context.Context) (rows int64, err error) {
	err = d.Write(ctx, func(ctx context.Context, t *sqlstore.Tx) error {
		var counts sqlstore.Counts
		rows = 0
		if err := t.Each(ctx, func(row sqlstore.Scanner) error {
			rows++
			return eachChange(row, func(ch sqlstore.Change) error {
				counts.Add(ch)
				return nil
			})
		}, `DELETE FROM redemption_changes WHERE id IN
			(SELECT id FROM redemption_changes ORDER BY id`+sqlstore.Limit(foldStep)+` FOR UPDATE)
			RETURNING `+changeColumns); err != nil || rows == 0 {
			return err
		}
		t.Wrote = true
		gone, err := addCells(ctx, t, counts.Cells)
		if err != nil {
			return fmt.Errorf("writing the counts: %w", err)
		}
		if err := addDue(ctx, t, counts.Due); err != nil {
			return fmt.Errorf("writing the counts: %w", err)
		}
		if err := t.WriteWorth(ctx, counts.Worth); err != nil {
			return err
		}
		return dropNames(ctx, t, gone)
	})
	return rows, err
}

// addCells adds to the counts, in one order, so that two who do that at the same
// time do not wait for each other in turns. It drops the blocks that count
// nothing any more, and returns their names.
func addCells(ctx context.Context, t *sqlstore.Tx, cells map[sqlstore.Cell]sqlstore.Tally) (gone []int64, err error) {
	maps.DeleteFunc(cells, func(_ sqlstore.Cell, n sqlstore.Tally) bool { return n == sqlstore.Tally{} })
	var name, level, block []int64
	var n [4][]int64
	lost := false
	for _, c := range slices.SortedFunc(maps.Keys(cells), func(a, b sqlstore.Cell) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Level, b.Level), cmp.Compare(a.Block, b.Block))
	}) {
		name, level, block = append(name, c.Name), append(level, c.Level), append(block, c.Block)
		tally := cells[c]
		for i := range n {
			n[i] = append(n[i], tally[i])
		}
		lost = lost || tally.Total() < 0
	}
	if name == nil {
		return nil, nil
	}
	if _, err := t.Exec(ctx, `INSERT INTO redemption_counts AS c (name_id, level, block, enabled, disabled, used, expired)
		SELECT * FROM unnest(CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]),
			CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]))
		ON CONFLICT (name_id, level, block) DO UPDATE SET enabled = c.enabled + excluded.enabled,
			disabled = c.disabled + excluded.disabled, used = c.used + excluded.used, expired = c.expired + excluded.expired`,
		name, level, block, n[0], n[1], n[2], n[3]); err != nil || !lost {
		return nil, err
	}
	err = t.Each(ctx, func(row sqlstore.Scanner) error {
		var id int64
		err := row.Scan(&id)
		gone = append(gone, id)
		return err
	}, `DELETE FROM redemption_counts c USING unnest(CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]))
			AS u (name_id, level, block)
		WHERE c.name_id = u.name_id AND c.level = u.level AND c.block = u.block
			AND c.enabled = 0 AND c.disabled = 0 AND c.used = 0 AND c.expired = 0 RETURNING c.name_id`, name, level, block)
	slices.Sort(gone)
	return slices.Compact(gone), err
}

func addDue(ctx context.Context, t *sqlstore.Tx, due map[sqlstore.Due]int64) error {
	var expires, name, block, n []int64
	for _, c := range slices.SortedFunc(maps.Keys(due), func(a, b sqlstore.Due) int {
		return cmp.Or(cmp.Compare(a.Expires, b.Expires), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Block, b.Block))
	}) {
		if due[c] != 0 {
			expires, name, block, n = append(expires, c.Expires), append(name, c.Name), append(block, c.Block), append(n, due[c])
		}
	}
	if expires == nil {
		return nil
	}
	_, err := t.Exec(ctx, `INSERT INTO redemption_due AS d (expires, name_id, block, enabled)
		SELECT * FROM unnest(CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]))
		ON CONFLICT (expires, name_id, block) DO UPDATE SET enabled = d.enabled + excluded.enabled`, expires, name, block, n)
	return err
}

// dropNames drops those of the names that no code has any more. Whoever is about
// to give one to a code has it locked, and is waited for.
func dropNames(ctx context.Context, t *sqlstore.Tx, names []int64) error {
	for _, name := range names {
		if _, err := t.Exec(ctx, `SELECT id FROM redemption_names WHERE id = ? FOR UPDATE`, name); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `DELETE FROM redemption_names WHERE id = ?1
			AND NOT EXISTS (SELECT 1 FROM redemption_counts WHERE name_id = ?1)
			AND NOT EXISTS (SELECT 1 FROM redemption_changes WHERE ?1 = ANY(name_id))`, name); err != nil {
			return fmt.Errorf("dropping names: %w", err)
		}
	}
	return nil
}

// Purge implements redemption.Store. It goes by the counts, and so begins by
// bringing them up to date.
func (d *DB) Purge(ctx context.Context, after int64, by account.Actor, at time.Time) (removed, next int64, err error) {
	if after == 0 {
		if err := d.foldAll(ctx); err != nil {
			return 0, 0, err
		}
	}
	return d.Store.Purge(ctx, after, by, at)
}

// Sweep implements redemption.Store, and goes by the counts too.
func (d *DB) Sweep(ctx context.Context, now time.Time) (moved int64, err error) {
	if err := d.foldAll(ctx); err != nil {
		return 0, err
	}
	return d.Store.Sweep(ctx, now)
}

// foldAll adds all changes to the counts.
func (d *DB) foldAll(ctx context.Context) error {
	for n := int64(foldStep); n == foldStep; {
		var some bool
		err := d.Read(ctx, func(s sqlstore.Conn) error {
			return s.Row(ctx, `SELECT EXISTS (SELECT 1 FROM redemption_changes)`).Scan(&some)
		})
		if err != nil || !some {
			return err
		}
		if n, err = d.foldSome(ctx); err != nil {
			return err
		}
	}
	return nil
}
