package sqlite

import (
	"context"
	"fmt"
	"strings"

	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// writeCounts adds the differences to the stored counts and drops what has come
// to nothing.
func writeCounts(ctx context.Context, t *sqlstore.Tx) error {
	var counts sqlstore.Counts
	for _, ch := range t.Changes {
		counts.Add(ch)
	}
	var rows, dues []any
	var gone []sqlstore.Cell
	for c, n := range counts.Cells {
		if n == (sqlstore.Tally{}) {
			continue
		}
		rows = append(rows, c.Name, c.Level, c.Block, n[0], n[1], n[2], n[3])
		if n.Total() < 0 {
			gone = append(gone, c)
		}
	}
	for c, n := range counts.Due {
		if n != 0 {
			dues = append(dues, c.Expires, c.Name, c.Block, n)
		}
	}
	if err := addRows(ctx, t, rows, `INSERT INTO redemption_counts VALUES (?, ?, ?, ?, ?, ?, ?)`,
		`ON CONFLICT DO UPDATE SET enabled = enabled + excluded.enabled, disabled = disabled + excluded.disabled,
			used = used + excluded.used, expired = expired + excluded.expired`); err != nil {
		return err
	}
	// Those that count none any more are dropped by the sweep, once their time is
	// past: a redeem has enough to write.
	if err := addRows(ctx, t, dues, `INSERT INTO redemption_due VALUES (?, ?, ?, ?)`,
		`ON CONFLICT DO UPDATE SET enabled = enabled + excluded.enabled`); err != nil {
		return err
	}
	if err := t.WriteWorth(ctx, counts.Worth); err != nil {
		return err
	}
	return dropCounts(ctx, t, gone)
}

// addRows runs an INSERT of one row for all the rows in args, several at a time:
// as many as make it worth while, in few sizes, since each is a statement of
// its own to prepare.
func addRows(ctx context.Context, t *sqlstore.Tx, args []any, insert, conflict string) error {
	at := strings.IndexByte(insert, '(')
	head, row := insert[:at], insert[at:]
	width := strings.Count(row, "?")
	for _, n := range [...]int{64, 16, 4, 1} {
		for len(args) >= n*width {
			text := head + strings.Repeat(row+", ", n-1) + row + " " + conflict
			if _, err := t.Exec(ctx, text, args[:n*width]...); err != nil {
				return fmt.Errorf("writing the counts: %w", err)
			}
			args = args[n*width:]
		}
	}
	return nil
}

// dropCounts drops those of the cells that count nothing any more, and names
// that no code has.
func dropCounts(ctx context.Context, t *sqlstore.Tx, cells []sqlstore.Cell) error {
	names := map[int64]bool{}
	for _, c := range cells {
		names[c.Name] = true
		if _, err := t.Exec(ctx, `DELETE FROM redemption_counts WHERE name_id = ? AND level = ? AND block = ?
			AND enabled = 0 AND disabled = 0 AND used = 0 AND expired = 0`, c.Name, c.Level, c.Block); err != nil {
			return fmt.Errorf("dropping counts: %w", err)
		}
	}
	for name := range names {
		if _, err := t.Exec(ctx, `DELETE FROM redemption_names WHERE id = ?1
			AND NOT EXISTS (SELECT 1 FROM redemption_counts WHERE name_id = ?1)`, name); err != nil {
			return fmt.Errorf("dropping names: %w", err)
		}
	}
	return nil
}
