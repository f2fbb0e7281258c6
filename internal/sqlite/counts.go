package sqlite

import (
	"context"
	"fmt"
	"strings"

	"github.com/scrip-codes/scrip/internal/redemption"
)

// Codes are counted in blocks of consecutive ids, for each name and for all
// together, so that a page is found by its position without walking to it. See
// docs/decisions/flat-pages.md.

// Levels of the tree of blocks: a block at a level is id >> level. The leaves
// are small enough to scan; each other block has 64 children. One block of the
// top level holds 16 million ids.
const (
	leafLevel = 6
	levelStep = 6
	topLevel  = leafLevel + 3*levelStep
)

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

// counts are the differences that a transaction makes, added up before they
// are written.
type counts map[cell]tally

// count adds n codes with that id, name and state.
func (t *tx) count(id, name, state, n int64) { t.countRange(id, id, name, state, n) }

// countRange adds n for each of the codes from first to last.
func (t *tx) countRange(first, last, name, state, n int64) {
	if t.counts == nil {
		t.counts = counts{}
	}
	for level := int64(leafLevel); level <= topLevel; level += levelStep {
		for block := first >> level; block <= last>>level; block++ {
			in := min(last, (block+1)<<level-1) - max(first, block<<level) + 1
			for _, who := range [...]int64{allNames, name} {
				c := t.counts[cell{who, level, block}]
				c[state-1] += in * n
				t.counts[cell{who, level, block}] = c
			}
		}
	}
}

// writeCounts adds the differences to the stored counts and drops what has come
// to nothing.
func (t *tx) writeCounts(ctx context.Context) error {
	var rows []any
	var gone []cell
	for c, n := range t.counts {
		if n == (tally{}) {
			continue
		}
		rows = append(rows, c.name, c.level, c.block, n[0], n[1], n[2], n[3])
		if n.total() < 0 {
			gone = append(gone, c)
		}
	}
	for len(rows) > 0 {
		n := countRows(len(rows) / countColumns)
		if _, err := t.change(ctx, addCounts(n), rows[:n*countColumns]...); err != nil {
			return fmt.Errorf("writing the counts: %w", err)
		}
		rows = rows[n*countColumns:]
	}
	return t.dropCounts(ctx, gone)
}

const countColumns = 7

// countRows is how many of the rows left one statement writes: as many as make
// it worth while, in few sizes, since each is a prepared statement.
func countRows(left int) int {
	for _, n := range [...]int{64, 16, 4} {
		if left >= n {
			return n
		}
	}
	return 1
}

func addCounts(rows int) string {
	return `INSERT INTO redemption_counts VALUES ` + strings.Repeat(`(?, ?, ?, ?, ?, ?, ?), `, rows-1) + `(?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET enabled = enabled + excluded.enabled, disabled = disabled + excluded.disabled,
			used = used + excluded.used, expired = expired + excluded.expired`
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
