package sqlite

import (
	"context"
	"fmt"
	"strconv"

	"github.com/scrip-codes/scrip/internal/redemption"
)

// Codes are counted in blocks of consecutive ids, for each name and for all
// together, so that a page is found by its position without walking to it. See
// docs/decisions/flat-pages.md.

// Levels of the tree of blocks: a block at a level is id >> level. The leaves
// are small enough to scan; each other block has 64 children.
const (
	leafLevel = 8
	levelStep = 6
	topLevel  = leafLevel + 2*levelStep
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

// writeCounts adds the differences to the stored counts, in one statement, and
// drops what has come to nothing.
func (t *tx) writeCounts(ctx context.Context) error {
	var b, gone []byte
	names := map[int64]bool{}
	for c, n := range t.counts {
		if n == (tally{}) {
			continue
		}
		b = appendRow(b, c.name, c.level, c.block, n[0], n[1], n[2], n[3])
		if n.total() < 0 {
			gone = appendRow(gone, c.name, c.level, c.block)
			names[c.name] = true
		}
	}
	if b == nil {
		return nil
	}
	if _, err := t.change(ctx, `INSERT INTO redemption_counts
		SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6 FROM json_each(?) WHERE true
		ON CONFLICT DO UPDATE SET enabled = enabled + excluded.enabled, disabled = disabled + excluded.disabled,
			used = used + excluded.used, expired = expired + excluded.expired`, string(append(b, ']'))); err != nil {
		return fmt.Errorf("writing the counts: %w", err)
	}
	if gone == nil {
		return nil
	}
	if _, err := t.change(ctx, `DELETE FROM redemption_counts WHERE (name_id, level, block) IN
			(SELECT value->>0, value->>1, value->>2 FROM json_each(?))
		AND enabled = 0 AND disabled = 0 AND used = 0 AND expired = 0`, string(append(gone, ']'))); err != nil {
		return fmt.Errorf("dropping counts: %w", err)
	}
	for name := range names {
		if _, err := t.change(ctx, `DELETE FROM redemption_names WHERE id = ?1
			AND NOT EXISTS (SELECT 1 FROM redemption_counts WHERE name_id = ?1)`, name); err != nil {
			return fmt.Errorf("dropping names: %w", err)
		}
	}
	return nil
}

// appendRow appends a JSON array of numbers to the array of arrays in b, which
// it opens if b is empty; the caller closes it.
func appendRow(b []byte, row ...int64) []byte {
	sep := byte(',')
	if b == nil {
		sep = '['
	}
	b = append(b, sep)
	sep = '['
	for _, n := range row {
		b = strconv.AppendInt(append(b, sep), n, 10)
		sep = ','
	}
	return append(b, ']')
}
