package sqlite

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/scrip-codes/scrip/internal/redemption"
)

// Codes are counted in blocks of consecutive ids, for each name and for all
// together, so that a page is found by its position without walking to it. See
// docs/decisions/flat-pages.md.

// Levels of the tree of blocks: a block at a level is id >> level. The leaves
// are small enough to scan. The other levels are closer together where a block
// holds codes of most names: a search for many names reads each one's counts of
// all children of a block.
const (
	leafLevel = 6
	dueLevel  = 12 // codes are counted by their expiry in its blocks
	topLevel  = 21
)

// levels are all of them, the leaves first.
func levels() [4]int64 { return [...]int64{leafLevel, dueLevel, 17, topLevel} }

// below is the level of the children of blocks at a level above the leaves.
func below(level int64) int64 {
	all := levels()
	return all[slices.Index(all[:], level)-1]
}

// allNames is the name_id under which codes of all names are counted.
const allNames = 0

// states of a code in the database. The first three are redemption.Status.
const (
	stateEnabled  = int64(redemption.StatusEnabled)
	stateDisabled = int64(redemption.StatusDisabled)
	stateUsed     = int64(redemption.StatusUsed)
	// stateExpired is enabled, and swept as past its time.
	stateExpired = 4
)

// tally is how many codes are in each state; its index is the state less 1.
type tally [4]int64

func (t tally) total() int64 { return t[0] + t[1] + t[2] + t[3] }

type cell struct{ name, level, block int64 }

type due struct{ expires, name, block int64 }

// counts are the differences that a transaction makes, added up before they
// are written.
type counts struct {
	cells map[cell]tally
	due   map[due]int64
}

// counted is what a code is counted by.
type counted struct{ id, name, state, expires int64 }

// count adds n codes like c.
func (t *tx) count(c counted, n int64) { t.countRange(c, c.id, n) }

// countRange adds n codes like c for each of the ids from c.id to last.
func (t *tx) countRange(c counted, last, n int64) {
	if t.counts.cells == nil {
		t.counts = counts{map[cell]tally{}, map[due]int64{}}
	}
	for _, level := range levels() {
		for block := c.id >> level; block <= last>>level; block++ {
			in := n * (min(last, (block+1)<<level-1) - max(c.id, block<<level) + 1)
			for _, name := range [...]int64{allNames, c.name} {
				n := t.counts.cells[cell{name, level, block}]
				n[c.state-1] += in
				t.counts.cells[cell{name, level, block}] = n
			}
			if level == dueLevel && c.state == stateEnabled && c.expires > 0 {
				t.counts.due[due{c.expires, c.name, block}] += in
			}
		}
	}
}

// writeCounts adds the differences to the stored counts and drops what has come
// to nothing.
func (t *tx) writeCounts(ctx context.Context) error {
	var rows, dues []any
	var gone []cell
	for c, n := range t.counts.cells {
		if n == (tally{}) {
			continue
		}
		rows = append(rows, c.name, c.level, c.block, n[0], n[1], n[2], n[3])
		if n.total() < 0 {
			gone = append(gone, c)
		}
	}
	for c, n := range t.counts.due {
		if n != 0 {
			dues = append(dues, c.expires, c.name, c.block, n)
		}
	}
	if err := t.addRows(ctx, rows, `INSERT INTO redemption_counts VALUES (?, ?, ?, ?, ?, ?, ?)`,
		`ON CONFLICT DO UPDATE SET enabled = enabled + excluded.enabled, disabled = disabled + excluded.disabled,
			used = used + excluded.used, expired = expired + excluded.expired`); err != nil {
		return err
	}
	// Those that count none any more are dropped by the sweep, once their time is
	// past: a redeem has enough to write.
	if err := t.addRows(ctx, dues, `INSERT INTO redemption_due VALUES (?, ?, ?, ?)`,
		`ON CONFLICT DO UPDATE SET enabled = enabled + excluded.enabled`); err != nil {
		return err
	}
	return t.dropCounts(ctx, gone)
}

// addRows runs an INSERT of one row for all the rows in args, several at a time:
// as many as make it worth while, in few sizes, since each is a statement of
// its own to prepare.
func (t *tx) addRows(ctx context.Context, args []any, insert, conflict string) error {
	at := strings.IndexByte(insert, '(')
	head, row := insert[:at], insert[at:]
	width := strings.Count(row, "?")
	for _, n := range [...]int{64, 16, 4, 1} {
		for len(args) >= n*width {
			text := head + strings.Repeat(row+", ", n-1) + row + " " + conflict
			if _, err := t.change(ctx, text, args[:n*width]...); err != nil {
				return fmt.Errorf("writing the counts: %w", err)
			}
			args = args[n*width:]
		}
	}
	return nil
}

// dropCounts drops those of the cells that count nothing any more, and names
// that no code has.
func (t *tx) dropCounts(ctx context.Context, cells []cell) error {
	names := map[int64]bool{}
	for _, c := range cells {
		names[c.name] = true
		if _, err := t.change(ctx, `DELETE FROM redemption_counts WHERE name_id = ? AND level = ? AND block = ?
			AND enabled = 0 AND disabled = 0 AND used = 0 AND expired = 0`, c.name, c.level, c.block); err != nil {
			return fmt.Errorf("dropping counts: %w", err)
		}
	}
	for name := range names {
		if _, err := t.change(ctx, `DELETE FROM redemption_names WHERE id = ?1
			AND NOT EXISTS (SELECT 1 FROM redemption_counts WHERE name_id = ?1)`, name); err != nil {
			return fmt.Errorf("dropping names: %w", err)
		}
	}
	return nil
}
