package sqlstore

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
	leafSize  = 1 << leafLevel
	dueLevel  = 12 // codes are counted by their expiry in its blocks
	topLevel  = 21
)

// levels are all of them, the leaves first.
func levels() [4]int64 { return [...]int64{leafLevel, dueLevel, 17, topLevel} }

// aboveLeaves are all but the leaves.
func aboveLeaves() []int64 {
	all := levels()
	return all[1:]
}

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

// Change is a change of the counts: so many codes more of a name, in a state,
// that expire then and are worth Quota each, for each of the ids from First to Last.
type Change struct {
	First, Last, Name, State, Expires, N, Quota int64
	// Untold says that it was written by a program that did not tell the quota.
	Untold bool
}

// ids is for how many ids it is.
func (ch Change) ids() int64 { return ch.Last - ch.First + 1 }

// Cell is a block of a name at a level.
type Cell struct{ Name, Level, Block int64 }

// Due is the enabled codes of a name that expire then, in a block.
type Due struct{ Expires, Name, Block int64 }

// Counts are changes added up: how many codes more there are in each state, the
// first of them enabled, how many more are due, and what they are worth.
type Counts struct {
	Cells map[Cell]Tally
	Due   map[Due]int64
	Worth Worth
}

// Tally is how many codes are in each state; its index is the state less 1.
type Tally [4]int64

// Total is how many there are in all.
func (t Tally) Total() int64 { return t[0] + t[1] + t[2] + t[3] }

// Add adds a change.
func (c *Counts) Add(ch Change) {
	if c.Cells == nil {
		c.Cells, c.Due = map[Cell]Tally{}, map[Due]int64{}
	}
	c.Worth.add(ch)
	for _, level := range levels() {
		for block := ch.First >> level; block <= ch.Last>>level; block++ {
			in := ch.N * ch.within(block, level)
			for _, name := range [...]int64{allNames, ch.Name} {
				n := c.Cells[Cell{name, level, block}]
				n[ch.State-1] += in
				c.Cells[Cell{name, level, block}] = n
			}
			if level == dueLevel && ch.State == stateEnabled && ch.Expires > 0 {
				c.Due[Due{ch.Expires, ch.Name, block}] += in
			}
		}
	}
}

// within is how many of the ids are in a block.
func (ch Change) within(block, level int64) int64 {
	return min(ch.Last, (block+1)<<level-1) - max(ch.First, block<<level) + 1
}

// counted is what a code is counted by.
type counted struct{ id, name, state, expires, quota int64 }

// count adds n codes like c.
func (t *Tx) count(c counted, n int64) { t.countRange(c, c.id, n) }

// countRange adds n codes like c for each of the ids from c.id to last.
func (t *Tx) countRange(c counted, last, n int64) {
	t.Changes = append(t.Changes, Change{
		First: c.id, Last: last, Name: c.name, State: c.state, Expires: c.expires, N: n, Quota: c.quota,
	})
}

// Used are the changes that the redeem of an enabled code makes.
func Used(id, name, expires, quota int64) []Change {
	return []Change{
		{First: id, Last: id, Name: name, State: stateEnabled, Expires: expires, N: -1, Quota: quota},
		{First: id, Last: id, Name: name, State: stateUsed, Expires: expires, N: 1, Quota: quota},
	}
}

// billion is what sums are kept in, and units beside: each of the two fits one
// number for a billion codes of any worth.
const billion = 1_000_000_000

// Sum is so many codes, and what they are worth together: a billion times
// Billions, and Units.
type Sum struct{ Codes, Billions, Units int64 }

func (s *Sum) add(other Sum) {
	s.Codes += other.Codes
	s.Billions += other.Billions
	s.Units += other.Units
}

// Worth is what the codes in each state are worth together; its index is the
// state. Codes of 0 counts the changes of which nobody has told.
type Worth [stateExpired + 1]Sum

func (w *Worth) add(ch Change) {
	if ch.Untold {
		w[0].Codes++
		return
	}
	n := ch.N * ch.ids()
	w[ch.State].add(Sum{n, n * (ch.Quota / billion), n * (ch.Quota % billion)})
}

// WriteWorth adds to what the codes in each state are worth.
func (t *Tx) WriteWorth(ctx context.Context, more Worth) error {
	var rows []string
	var args []any
	for state, s := range more {
		if s != (Sum{}) {
			rows = append(rows, `(?, ?, ?, ?)`)
			args = append(args, int64(state), s.Codes, s.Billions, s.Units)
		}
	}
	if rows == nil {
		return nil
	}
	if _, err := t.change(ctx, `INSERT INTO redemption_worth (state, codes, billions, units) VALUES `+strings.Join(rows, `, `)+`
		ON CONFLICT (state) DO UPDATE SET codes = redemption_worth.codes + excluded.codes,
			billions = redemption_worth.billions + excluded.billions, units = redemption_worth.units + excluded.units`,
		args...); err != nil {
		return fmt.Errorf("writing what codes are worth: %w", err)
	}
	return nil
}
