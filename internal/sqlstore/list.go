package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// List implements redemption.Store.
func (d *Store) List(ctx context.Context, q redemption.Query) (rows []redemption.Stored, total int64, err error) {
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		l := &lister{Conn: s, dialect: d.dialect, query: q, second: redemption.Second(q.Now).UnixMilli()}
		exact, err := l.choose(ctx)
		if err != nil {
			return err
		}
		ids, n, err := l.page(ctx, exact)
		if err != nil {
			return err
		}
		total = n
		rows, err = d.codesByID(ctx, s, ids)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("listing codes: %w", err)
	}
	return rows, total, nil
}

// lister finds one page of codes through the counts: what stands before the
// page is skipped in whole blocks, and only the leaf blocks that hold the page
// are scanned. All it reads is one snapshot.
type lister struct {
	Conn
	dialect Dialect
	query   redemption.Query
	second  int64

	// first and last are between which ids the listed codes are.
	first, last int64
	// only is the one name whose codes are listed, -1 if no code bears it, 0 if there
	// are others.
	only int64

	// The names whose codes are listed: those in names, or with except all but
	// those. Except without names is all codes, nil names without it is none.
	names  []int64
	except bool
	inName map[int64]bool

	// unswept is, by level and block above the leaves, how many codes more are in
	// the filter's state than are counted there: they have passed their time (or,
	// after the clock was set back, have not), and the sweep has not reached them.
	unswept map[int64]map[int64]int64
	// leaves is unswept for the leaves of the block of the level above that was
	// looked at last.
	leaves struct {
		parent int64
		counts map[int64]int64
	}
	// unfolded is, by level and block, how many codes more are in the filter's state
	// than are counted there, since the counts are behind.
	unfolded map[int64]map[int64]int64
	// newest is the highest id of all codes.
	newest int64
}

// choose finds which names, ids and times the query means, and the ids of the
// codes that it finds by no name.
func (l *lister) choose(ctx context.Context) (exact []int64, err error) {
	if err := l.chooseNames(ctx); err != nil {
		return nil, err
	}
	if err := l.Row(ctx, `SELECT coalesce(max(id), 0) FROM redemptions`).Scan(&l.newest); err != nil {
		return nil, err
	}
	l.first, l.last = 1, math.MaxInt64
	if !l.query.From.IsZero() {
		if l.first, err = l.firstSince(ctx, l.query.From); err != nil {
			return nil, err
		}
	}
	if !l.query.To.IsZero() {
		next, err := l.firstSince(ctx, l.query.To)
		if err != nil {
			return nil, err
		}
		l.last = next - 1
	}
	return l.exact(ctx)
}

// firstSince finds the id from which on codes were made at t or later, as far as
// ids follow the time: codes made at nearly the same time may stand on either
// side. It is some 2 log2(n) look-ups.
func (l *lister) firstSince(ctx context.Context, t time.Time) (int64, error) {
	low, high := int64(1), l.newest+1
	for low < high {
		middle := low + (high-low)/2
		var id, created int64
		if err := l.Row(ctx, `SELECT id, created FROM redemptions WHERE id >= ? ORDER BY id`+Limit(1), middle).
			Scan(&id, &created); err != nil {
			return 0, err
		}
		if created < t.UnixMilli() {
			low = id + 1
		} else {
			high = middle
		}
	}
	return low, nil
}

// chooseName finds the one name that the query says, if the search's fragment
// matches it too.
func (l *lister) chooseName(ctx context.Context) error {
	var matches bool
	err := l.Row(ctx, `SELECT id, CASE WHEN `+l.dialect.Contains(`name`)+` THEN true ELSE false END FROM redemption_names
		WHERE name = ?`, l.dialect.Pattern(l.query.Fragment), *l.query.Name).Scan(&l.only, &matches)
	if errors.Is(err, sql.ErrNoRows) {
		l.only = -1
		return nil
	}
	if err == nil && matches && (!l.query.Search || l.query.Fragment != "") {
		l.names, l.inName[l.only] = []int64{l.only}, true
	}
	return err
}

// chooseNames finds the names that the search's fragment matches.
func (l *lister) chooseNames(ctx context.Context) error {
	l.inName = map[int64]bool{}
	switch {
	case l.query.Name != nil:
		return l.chooseName(ctx)
	case !l.query.Search:
		l.except = true
		return nil
	case l.query.Fragment == "":
		return nil
	}
	pattern, matches := l.dialect.Pattern(l.query.Fragment), l.dialect.Contains(`name`)
	var all, matching int64
	if err := l.Row(ctx, `SELECT count(*), count(CASE WHEN `+matches+` THEN 1 END) FROM redemption_names`, pattern).
		Scan(&all, &matching); err != nil {
		return err
	}
	if matching <= all/2 {
		return l.readNames(ctx, `SELECT id FROM redemption_names WHERE `+matches, pattern)
	}
	// Most match: it is less work to leave out the others.
	l.except = true
	return l.readNames(ctx, `SELECT id FROM redemption_names WHERE NOT `+matches, pattern)
}

func (l *lister) readNames(ctx context.Context, text, pattern string) error {
	return l.Each(ctx, func(row Scanner) error {
		var id int64
		err := row.Scan(&id)
		l.names = append(l.names, id)
		l.inName[id] = true
		return err
	}, text, pattern)
}

// listed reports whether codes with that name are.
func (l *lister) listed(name int64) bool { return l.inName[name] != l.except }

// page finds the ids of the page, newest first, and how many codes there are
// in all, exact included: those found by id or key.
func (l *lister) page(ctx context.Context, exact []int64) (ids []int64, total int64, err error) {
	if l.first > l.last {
		return nil, 0, nil
	}
	if err := errors.Join(l.countUnswept(ctx), l.countUnfolded(ctx)); err != nil {
		return nil, 0, err
	}
	top, err := l.blocks(ctx, topLevel, 0, math.MaxInt64)
	if err != nil {
		return nil, 0, err
	}
	newer, named, err := l.inRange(ctx, top)
	if err != nil {
		return nil, 0, err
	}
	total = named + int64(len(exact))
	skip, want := l.query.Offset, min(l.query.Limit, total-l.query.Offset)
	if want <= 0 {
		return nil, total, nil
	}
	// Codes found by id or key and by no name stand between the others, where
	// their ids put them.
	var within []int64
	for i, id := range exact {
		before, err := l.newerThan(ctx, top, id)
		if err != nil {
			return nil, 0, err
		}
		switch at := before - newer + int64(i); {
		case at < l.query.Offset:
			skip--
		case at < l.query.Offset+want:
			within = append(within, id)
		}
	}
	w := walk{lister: l, skip: newer + skip, want: int(want)}
	for _, b := range top {
		if enough, err := w.visit(ctx, b, topLevel); err != nil || enough {
			if err != nil {
				return nil, 0, err
			}
			break
		}
	}
	ids = append(w.ids, within...)
	slices.SortFunc(ids, func(a, b int64) int { return cmp.Compare(b, a) })
	return ids[:min(len(ids), int(want))], total, nil
}

// inRange counts the listed codes that are newer than the last of the ids, and
// those that are between the ids.
func (l *lister) inRange(ctx context.Context, top []block) (newer, within int64, err error) {
	if l.last < math.MaxInt64 {
		if newer, err = l.newerThan(ctx, top, l.last); err != nil {
			return 0, 0, err
		}
	}
	if l.first > 1 {
		within, err = l.newerThan(ctx, top, l.first-1)
		return newer, within - newer, err
	}
	for _, b := range top {
		within += b.n
	}
	return newer, within - newer, nil
}

// block is a block of ids and how many listed codes it holds.
type block struct{ number, n int64 }

// blocks reads the blocks of a level from first to last, newest first.
func (l *lister) blocks(ctx context.Context, level, first, last int64) (out []block, err error) {
	text, names := l.countsText()
	if text == "" {
		return nil, nil
	}
	unswept := l.unswept[level]
	if parent := first >> (dueLevel - leafLevel); level == leafLevel && l.unswept[dueLevel][parent] != 0 {
		if unswept, err = l.unsweptLeaves(ctx, parent); err != nil {
			return nil, err
		}
	}
	missing := maps.Clone(unswept) // what no row of the counts speaks of
	for number, n := range l.unfolded[level] {
		if missing == nil {
			missing = map[int64]int64{}
		}
		missing[number] += n
	}
	err = l.Each(ctx, func(row Scanner) error {
		var b block
		if err := row.Scan(&b.number, &b.n); err != nil {
			return err
		}
		b.n += missing[b.number]
		delete(missing, b.number)
		if b.n > 0 {
			out = append(out, b)
		}
		return nil
	}, text, names, level, first, last)
	added := len(out)
	for number, n := range missing {
		if number >= first && number <= last && n > 0 {
			out = append(out, block{number, n})
		}
	}
	if len(out) > added {
		slices.SortFunc(out, func(a, b block) int { return cmp.Compare(b.number, a.number) })
	}
	return out, err
}

// countsText is the query that adds up the listed names' counts by block, and
// the argument that says which names; empty if there are none.
func (l *lister) countsText() (text string, names any) {
	where := ` AND level = ?2 AND block BETWEEN ?3 AND ?4 `
	if len(l.unswept) == 0 && len(l.unfolded) == 0 {
		where += `AND (` + l.counted() + `) > 0 ` // else a block of none may hold some all the same
	}
	switch {
	case l.except && l.names == nil:
		return `SELECT block, ` + l.counted() + ` FROM redemption_counts WHERE name_id = ?1` + where +
			`ORDER BY block DESC`, allNames
	case l.except:
		// The names' counts are taken from those of all.
		in, arg := l.dialect.In(append([]int64{allNames}, l.names...))
		return `SELECT block, CAST(sum(CASE name_id WHEN 0 THEN 1 ELSE -1 END * (` + l.counted() + `)) AS BIGINT)
			FROM redemption_counts WHERE name_id ` + in + where + `GROUP BY block ORDER BY block DESC`, arg
	case l.names == nil:
		return "", nil
	case len(l.names) == 1:
		return `SELECT block, ` + l.counted() + ` FROM redemption_counts WHERE name_id = ?1` + where +
			`ORDER BY block DESC`, l.names[0]
	}
	in, arg := l.dialect.In(l.names)
	return `SELECT block, CAST(sum(` + l.counted() + `) AS BIGINT) FROM redemption_counts
		WHERE name_id ` + in + where + `GROUP BY block ORDER BY block DESC`, arg
}

// children calls do for the children of a block, newest first, until it says
// that it has enough. Skip is how many codes the caller will pass over: the page
// lies among the newest children if that is little, and they are read first.
func (l *lister) children(
	ctx context.Context, b block, level, skip int64, do func(block) (enough bool, err error),
) error {
	lower := below(level)
	first, all := b.number<<(level-lower), int64(1)<<(level-lower)
	last := min(first+all-1, l.newest>>lower)
	slice := int64(2)
	if b.n < all || skip > b.n/16 { // thinly spread, or further on
		slice = all
	}
	for ; last >= first; slice = all {
		blocks, err := l.blocks(ctx, lower, max(first, last-slice+1), last)
		if err != nil {
			return err
		}
		for _, child := range blocks {
			if enough, err := do(child); err != nil || enough {
				return err
			}
		}
		last -= slice
	}
	return nil
}

// counted is which counts the filter adds up.
func (l *lister) counted() string {
	switch l.query.Filter {
	case redemption.FilterLive:
		return `enabled`
	case redemption.FilterDisabled:
		return `disabled`
	case redemption.FilterUsed:
		return `used`
	case redemption.FilterExpired:
		return `expired`
	case redemption.FilterAll:
	}
	return `enabled + disabled + used + expired`
}

// state is the only one that the listed codes are in, if an index finds it; 0
// if there is none.
func (l *lister) state() int64 {
	switch l.query.Filter {
	case redemption.FilterDisabled:
		return stateDisabled
	case redemption.FilterUsed:
		return stateUsed
	case redemption.FilterExpired:
		if len(l.unswept) == 0 {
			return stateExpired
		}
	case redemption.FilterAll, redemption.FilterLive:
	}
	return 0
}

// passes adds the filter, as the clock has it, to a condition with arguments.
func (l *lister) passes(where string, args ...any) (string, []any) {
	second := `?` + strconv.Itoa(len(args)+1)
	switch l.query.Filter {
	case redemption.FilterLive:
		return where + ` AND state IN (1, 4) AND (expires = 0 OR expires >= ` + second + `)`, append(args, l.second)
	case redemption.FilterDisabled:
		return where + ` AND state = 2`, args
	case redemption.FilterUsed:
		return where + ` AND state = 3`, args
	case redemption.FilterExpired:
		return where + ` AND state IN (1, 4) AND expires > 0 AND expires < ` + second, append(args, l.second)
	case redemption.FilterAll:
	}
	return where, args
}

// unsweptSign is what a code that should have been swept adds to the count of
// the filter's state.
func (l *lister) unsweptSign() int64 {
	switch l.query.Filter {
	case redemption.FilterLive:
		return -1
	case redemption.FilterExpired:
		return 1
	case redemption.FilterAll, redemption.FilterDisabled, redemption.FilterUsed:
	}
	return 0
}

// countUnswept counts the codes that the sweep has not reached. Those past
// their time are counted by it, so that a million of them are a few rows.
func (l *lister) countUnswept(ctx context.Context) error {
	sign := l.unsweptSign()
	if sign == 0 {
		return nil
	}
	add := func(sign int64) func(Scanner) error {
		return func(row Scanner) error {
			var name, block, n int64
			if err := row.Scan(&name, &block, &n); err != nil || !l.listed(name) {
				return err
			}
			first := block << dueLevel // any id of the block will do
			addBlocks(&l.unswept, Change{First: first, Last: first, N: sign * n}, aboveLeaves())
			return nil
		}
	}
	if err := l.Each(ctx, add(sign), `SELECT name_id, block, CAST(sum(enabled) AS BIGINT) FROM redemption_due
		WHERE expires < ? AND enabled <> 0 GROUP BY 1, 2`, l.second); err != nil {
		return err
	}
	return l.Each(ctx, add(-sign), fmt.Sprintf(`SELECT name_id, id >> %d, count(*) FROM redemptions
		WHERE state = 4 AND expires >= ? GROUP BY 1, 2`, dueLevel), l.second)
}

// countUnfolded reads what the counts do not say yet.
func (l *lister) countUnfolded(ctx context.Context) error {
	sign := l.unsweptSign()
	return l.dialect.Unfolded(ctx, l.Conn, func(ch Change) error {
		if !l.listed(ch.Name) {
			return nil
		}
		if ch.State == stateEnabled && ch.Expires > 0 && ch.Expires < l.second { // it is not in redemption_due either
			ch := ch
			ch.N *= sign
			addBlocks(&l.unswept, ch, aboveLeaves())
		}
		if l.counts(ch.State) {
			all := levels()
			addBlocks(&l.unfolded, ch, all[:])
		}
		return nil
	})
}

// addBlocks adds a change to the counts of blocks at some levels.
func addBlocks(counts *map[int64]map[int64]int64, ch Change, levels []int64) {
	if ch.N == 0 {
		return
	}
	if *counts == nil {
		*counts = map[int64]map[int64]int64{}
		for _, level := range levels {
			(*counts)[level] = map[int64]int64{}
		}
	}
	for level, blocks := range *counts {
		for b := ch.First >> level; b <= ch.Last>>level; b++ {
			blocks[b] += ch.N * ch.within(b, level)
		}
	}
}

// counts reports whether the filter adds up the count of that state.
func (l *lister) counts(state int64) bool {
	switch l.query.Filter {
	case redemption.FilterLive:
		return state == stateEnabled
	case redemption.FilterDisabled:
		return state == stateDisabled
	case redemption.FilterUsed:
		return state == stateUsed
	case redemption.FilterExpired:
		return state == stateExpired
	case redemption.FilterAll:
	}
	return true
}

// unsweptLeaves is unswept for the leaves of one block.
func (l *lister) unsweptLeaves(ctx context.Context, parent int64) (map[int64]int64, error) {
	if l.leaves.counts != nil && l.leaves.parent == parent {
		return l.leaves.counts, nil
	}
	leaves := map[int64]int64{}
	err := l.Each(ctx, func(row Scanner) error {
		var id, name, state int64
		if err := row.Scan(&id, &name, &state); err != nil || !l.listed(name) {
			return err
		}
		sign := l.unsweptSign()
		if state == stateExpired {
			sign = -sign
		}
		leaves[id>>leafLevel] += sign
		return nil
	}, `SELECT id, name_id, state FROM redemptions WHERE id BETWEEN ?2 AND ?3 AND expires > 0
		AND (state = 1 AND expires < ?1 OR state = 4 AND expires >= ?1)`,
		l.second, parent<<dueLevel, (parent+1)<<dueLevel-1)
	l.leaves.parent, l.leaves.counts = parent, leaves
	return leaves, err
}

// allowed reports whether a code that is found by its id or key passes the other
// filters.
func (l *lister) allowed(id, name int64) bool {
	return id >= l.first && id <= l.last && (l.only == 0 || l.only == name)
}

// exact finds the codes that the search's id and key name and that no name
// does, newest first.
func (l *lister) exact(ctx context.Context) (ids []int64, err error) {
	if !l.query.Search {
		return nil, nil
	}
	find := func(where string, arg any) error {
		where, args := l.passes(where, arg)
		return l.Each(ctx, func(row Scanner) error {
			var id, name int64
			if err := row.Scan(&id, &name); err != nil {
				return err
			}
			if !l.listed(name) && l.allowed(id, name) && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
			return nil
		}, `SELECT id, name_id FROM redemptions WHERE `+where, args...)
	}
	if l.query.ID != 0 {
		if err := find(`id = ?1`, l.query.ID); err != nil {
			return nil, err
		}
	}
	if l.query.Indexes != nil {
		if err := l.sameKeys(ctx, l.query.Epoch); err != nil {
			return nil, err
		}
	}
	for _, index := range l.query.Indexes {
		if err := find(`key_index = ?1`, index); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(ids, func(a, b int64) int { return cmp.Compare(b, a) })
	return ids, nil
}

// newerThan counts the listed codes with a larger id.
func (l *lister) newerThan(ctx context.Context, top []block, id int64) (n int64, err error) {
	blocks := top
	for level := int64(topLevel); ; level = below(level) {
		in := block{number: -1}
		for _, b := range blocks {
			if b.number > id>>level {
				n += b.n
			} else if b.number == id>>level {
				in = b
			}
		}
		if in.number < 0 {
			return n, nil
		}
		if level == leafLevel {
			return n, l.scan(ctx, in.number, id+1, func(int64) bool { n++; return false })
		}
		// Only what is not older counts.
		lower := below(level)
		if blocks, err = l.blocks(ctx, lower, id>>lower, (in.number+1)<<(level-lower)-1); err != nil {
			return 0, err
		}
	}
}

// scan calls do for each listed code of a leaf block, newest first, from the id
// first on, until it says that it has enough.
func (l *lister) scan(ctx context.Context, leaf, first int64, do func(id int64) (enough bool)) error {
	only := int64(allNames)
	if len(l.names) == 1 && !l.except {
		only = l.names[0]
	}
	where, args := l.passes(`id BETWEEN ?1 AND ?2 AND (CAST(?3 AS BIGINT) = 0 OR name_id = ?3)`,
		max(first, leaf<<leafLevel), (leaf+1)<<leafLevel-1, only)
	return l.Each(ctx, func(row Scanner) error {
		var id, name int64
		if err := row.Scan(&id, &name); err != nil {
			return err
		}
		if l.listed(name) && do(id) {
			return ErrEnough
		}
		return nil
	}, `SELECT id, name_id FROM redemptions WHERE `+where+` ORDER BY id DESC`, args...)
}

// follow is scan for all codes in the state, of whatever name, from a leaf block
// on, most of them at most: the index leads from one to the next.
func (l *lister) follow(ctx context.Context, leaf, state, most int64, do func(id int64) (enough bool)) error {
	return l.Each(ctx, func(row Scanner) error {
		var id int64
		if err := row.Scan(&id); err != nil {
			return err
		}
		if do(id) {
			return ErrEnough
		}
		return nil
	}, `SELECT id FROM redemptions INDEXED BY redemptions_state
		WHERE state = `+strconv.FormatInt(state, 10)+` AND state <> 1 AND id <= ?1 ORDER BY id DESC`+Limit((most|leafSize-1)+1),
		(leaf+1)<<leafLevel-1)
}

// walk goes down the tree, newest first, and collects ids.
type walk struct {
	*lister
	skip int64 // still to be passed over
	want int   // ids in all
	ids  []int64
}

func (w *walk) visit(ctx context.Context, b block, level int64) (enough bool, err error) {
	switch {
	case len(w.ids) >= w.want:
		return true, nil
	case w.skip >= b.n:
		w.skip -= b.n
		return false, nil
	case level == leafLevel:
		take := func(id int64) bool {
			if w.skip > 0 {
				w.skip--
				return false
			}
			w.ids = append(w.ids, id)
			return len(w.ids) >= w.want
		}
		if state := w.state(); state != 0 && w.except && w.names == nil {
			return true, w.follow(ctx, b.number, state, w.skip+int64(w.want-len(w.ids)), take)
		}
		err = w.scan(ctx, b.number, 0, take)
	default:
		err = w.children(ctx, b, level, w.skip, func(child block) (bool, error) { return w.visit(ctx, child, below(level)) })
	}
	return len(w.ids) >= w.want, err
}

// codesByID reads codes, newest first.
func (d *Store) codesByID(ctx context.Context, s Conn, ids []int64) (codes []redemption.Stored, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	in, arg := d.dialect.In(ids)
	err = s.Each(ctx, func(row Scanner) error {
		c, _, err := scanCode(row)
		codes = append(codes, c)
		return err
	}, selectCode+`WHERE r.id `+in+` ORDER BY r.id DESC`, arg)
	return codes, err
}

// usedWalk bounds how many entries of the ledger ListUsed reads.
const usedWalk = 1000

// ListUsed implements redemption.Store. The ledger knows who has redeemed what by
// an index that it has anyway.
func (d *Store) ListUsed(ctx context.Context, q redemption.Query, by, before int64) (p redemption.Used, err error) {
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		l := &lister{Conn: s, dialect: d.dialect, query: q, second: redemption.Second(q.Now).UnixMilli()}
		exact, err := l.choose(ctx)
		if err != nil {
			return err
		}
		p = redemption.Used{Total: -1}
		hits, end, err := l.redeemed(ctx, exact, by, before)
		if err != nil {
			return err
		}
		if before == 0 && end == 0 {
			p.Total = int64(len(hits))
		}
		if p.Next = end; int64(len(hits)) > q.Limit {
			hits = hits[:q.Limit]
			p.Next = hits[q.Limit-1].entry
		}
		place, ids := map[int64]int{}, make([]int64, len(hits))
		for i, h := range hits {
			ids[i], place[h.code] = h.code, i
		}
		p.Rows, err = d.codesByID(ctx, s, ids)
		slices.SortFunc(p.Rows, func(a, b redemption.Stored) int { return cmp.Compare(place[a.ID], place[b.ID]) })
		return err
	})
	if err != nil {
		return redemption.Used{}, fmt.Errorf("listing used codes: %w", err)
	}
	return p, nil
}

// redeem is an entry of the ledger and the code that it is about.
type redeem struct{ entry, code int64 }

// redeemed finds the codes that pass and that the account has redeemed, the last
// one first, in the entries behind before; and the entry at which it has stopped,
// 0 if that was the end.
func (l *lister) redeemed(ctx context.Context, exact []int64, by, before int64) (hits []redeem, end int64, err error) {
	if before == 0 {
		before = math.MaxInt64
	}
	n := 0
	if err := l.Each(ctx, func(row Scanner) error {
		var r redeem
		var kind string
		if err := row.Scan(&r.entry, &kind, &r.code); err != nil {
			return err
		}
		n, end = n+1, r.entry
		if kind == string(account.KindRedeem) && r.code >= l.first && r.code <= l.last {
			hits = append(hits, r)
		}
		return nil
	}, `SELECT id, kind, first_id FROM ledger WHERE actor_id >= ?1 AND (actor_id, at, id) < (?1, `+after(`?2`)+`)
		ORDER BY `+about(`actor_id`, newestFirst)+Limit(usedWalk),
		by, before); err != nil {
		return nil, 0, err
	}
	if n < usedWalk {
		end = 0
	}
	if hits == nil {
		return nil, end, nil
	}
	ids, passed := make([]int64, len(hits)), map[int64]bool{}
	for i, h := range hits {
		ids[i] = h.code
	}
	in, arg := l.dialect.In(ids)
	where, args := l.passes(`id `+in+` AND used_by = ?2`, arg, by)
	err = l.Each(ctx, func(row Scanner) error {
		var id, name int64
		err := row.Scan(&id, &name)
		passed[id] = l.listed(name) || slices.Contains(exact, id)
		return err
	}, `SELECT id, name_id FROM redemptions WHERE `+where, args...)
	return slices.DeleteFunc(hits, func(r redeem) bool { return !passed[r.code] }), end, err
}

// tallies counts the codes of each of those names by their state, as the clock
// has it.
func (d *Store) tallies(ctx context.Context, s Conn, names []int64, now time.Time) (map[int64]*Tally, error) {
	second := redemption.Second(now).UnixMilli()
	out := map[int64]*Tally{}
	for _, name := range names {
		out[name] = &Tally{}
	}
	add := func(name, state, n int64) {
		for _, name := range [...]int64{allNames, name} {
			if t := out[name]; t != nil {
				t[state-1] += n
			}
		}
	}
	in, arg := d.dialect.In(names)
	if err := s.Each(ctx, func(row Scanner) error {
		var name int64
		var t Tally
		err := row.Scan(&name, &t[0], &t[1], &t[2], &t[3])
		*out[name] = t
		return err
	}, `SELECT name_id, CAST(sum(enabled) AS BIGINT), CAST(sum(disabled) AS BIGINT), CAST(sum(used) AS BIGINT),
		CAST(sum(expired) AS BIGINT) FROM redemption_counts WHERE name_id `+in+` AND level = `+
		strconv.Itoa(topLevel)+` GROUP BY name_id`, arg); err != nil {
		return nil, err
	}
	// What the sweep has not reached, as in countUnswept.
	swept := func(from, to int64) func(Scanner) error {
		return func(row Scanner) error {
			var name, n int64
			err := row.Scan(&name, &n)
			add(name, from, -n)
			add(name, to, n)
			return err
		}
	}
	if err := s.Each(ctx, swept(stateEnabled, stateExpired), `SELECT name_id, CAST(sum(enabled) AS BIGINT) FROM redemption_due
		WHERE expires < ? AND enabled <> 0 GROUP BY 1`, second); err != nil {
		return nil, err
	}
	if err := s.Each(ctx, swept(stateExpired, stateEnabled), `SELECT name_id, count(*) FROM redemptions
		WHERE state = 4 AND expires >= ? GROUP BY 1`, second); err != nil {
		return nil, err
	}
	err := d.dialect.Unfolded(ctx, s, func(ch Change) error {
		state := ch.State
		if state == stateEnabled && ch.Expires > 0 && ch.Expires < second {
			state = stateExpired
		}
		add(ch.Name, state, ch.N*(ch.Last-ch.First+1))
		return nil
	})
	return out, err
}

// Batches implements redemption.Store.
func (d *Store) Batches(
	ctx context.Context, fragment string, before, limit int64, now time.Time,
) (batches []redemption.BatchCount, next int64, err error) {
	if before == 0 {
		before = math.MaxInt64
	}
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		batches, next = nil, 0
		var found []redemption.BatchCount
		var ids []int64
		if err := s.Each(ctx, func(row Scanner) error {
			var b redemption.BatchCount
			err := row.Scan(&b.ID, &b.Name)
			found, ids = append(found, b), append(ids, b.ID)
			return err
		}, `SELECT id, name FROM redemption_names WHERE `+d.dialect.Contains(`name`)+` AND id < ? ORDER BY id DESC`+Limit(limit+1),
			d.dialect.Pattern(fragment), before); err != nil || found == nil {
			return err
		}
		if int64(len(found)) > limit {
			found, ids = found[:limit], ids[:limit]
			next = ids[limit-1]
		}
		counts, err := d.tallies(ctx, s, ids, now)
		if err != nil {
			return err
		}
		for _, b := range found {
			t := counts[b.ID]
			b.Live, b.Disabled, b.Used, b.Expired = t[0], t[1], t[2], t[3]
			if t.Total() > 0 { // else it is about to be dropped
				batches = append(batches, b)
			}
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("listing names: %w", err)
	}
	return batches, next, nil
}

// CountInvalid implements redemption.Store.
func (d *Store) CountInvalid(ctx context.Context, now time.Time) (n int64, err error) {
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		counts, err := d.tallies(context.WithoutCancel(ctx), s, []int64{allNames}, now)
		if err == nil {
			t := counts[allNames]
			n = t.Total() - t[stateEnabled-1]
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("counting invalid codes: %w", err)
	}
	return n, nil
}

// LikeAnywhere is the pattern of LIKE for texts that contain the fragment, with \
// as the escape.
func LikeAnywhere(fragment string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(fragment) + "%"
}
