package sqlstore

import (
	"slices"

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
// that expire then, for each of the ids from First to Last.
type Change struct{ First, Last, Name, State, Expires, N int64 }

// Cell is a block of a name at a level.
type Cell struct{ Name, Level, Block int64 }

// Due is the enabled codes of a name that expire then, in a block.
type Due struct{ Expires, Name, Block int64 }

// Counts are changes added up: how many codes more there are in each state, the
// first of them enabled, and how many more are due.
type Counts struct {
	Cells map[Cell]Tally
	Due   map[Due]int64
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
type counted struct{ id, name, state, expires int64 }

// count adds n codes like c.
func (t *Tx) count(c counted, n int64) { t.countRange(c, c.id, n) }

// countRange adds n codes like c for each of the ids from c.id to last.
func (t *Tx) countRange(c counted, last, n int64) {
	t.Changes = append(t.Changes, Change{First: c.id, Last: last, Name: c.name, State: c.state, Expires: c.expires, N: n})
}

// Used are the changes that the redeem of an enabled code makes.
func Used(id, name, expires int64) []Change {
	return []Change{
		{First: id, Last: id, Name: name, State: stateEnabled, Expires: expires, N: -1},
		{First: id, Last: id, Name: name, State: stateUsed, Expires: expires, N: 1},
	}
}
