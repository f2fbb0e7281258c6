package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
)

const (
	// auditStep is how many entries Audit reads at once, so that a long walk
	// does not hold back the write-ahead log.
	auditStep = 20_000
	// widestRange bounds how many ids apart the first and last code of an entry
	// are: neither a batch nor a step of Purge is wider.
	widestRange = 1 << 14
)

// selectEntry is how entries are read.
const selectEntry = `SELECT id, lane, seq, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount,
	detail, mac FROM ledger `

func scanEntry(row Scanner) (account.Entry, error) {
	var e account.Entry
	var at int64
	err := row.Scan(&e.ID, &e.Lane, &e.Seq, &at, (*string)(&e.Kind), &e.ActorID, &e.Address, &e.AccountID, &e.MachineID, &e.FirstID,
		&e.LastID, &e.Count, &e.Amount, &e.Detail, &e.MAC)
	e.At = time.UnixMilli(at)
	return e, err
}

// Ledger implements account.Store.
func (d *Store) Ledger(ctx context.Context, f account.LedgerFilter) (entries []account.Entry, err error) {
	text, args := ledgerQuery(f)
	err = d.engine.Read(ctx, func(s Conn) error {
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			e, err := scanEntry(row)
			entries = append(entries, e)
			return err
		}, text, args...)
	})
	return entries, err
}

// newestFirst is the order of an account's or a machine's entries, and of those of a
// time: that of the indexes, so that times are a part of them. It is not quite that
// of id: clocks are set back, and redeems wait.
const newestFirst = `at DESC, id DESC`

// after is where newestFirst comes to an entry, whose id is the parameter: it is
// written twice. After one that does not exist comes all.
func after(parameter string) string {
	return `coalesce((SELECT at FROM ledger WHERE id = ` + parameter + `), ` + strconv.FormatInt(math.MaxInt64, 10) + `), ` + parameter
}

// about is the order of the entries with one value in a column, of which newestFirst
// is a part. With the column in the order, and a range of it in place of one value,
// no other index will do than that of the column: a planner that takes what it has
// seen of others for this value's walks past all that are not about it.
func about(column, order string) string { return column + ` DESC, ` + order }

// byOthers is what the index of entries about an account asks for: what the account
// did itself is found as that.
const byOthers = ` AND account_id > 0 AND account_id <> actor_id`

// arm is a part of a query of the ledger, which one index answers.
type arm struct {
	where string
	args  []any
	order string
}

// ledgerQuery writes the query as a union of arms, each of which walks one
// index from its end and stops at the limit. Times beside a code only choose among
// that one's entries, which are few.
func ledgerQuery(f account.LedgerFilter) (text string, args []any) {
	order := `id DESC`
	if f.CodeID == 0 && f.PickupID == 0 && (f.MachineID != 0 || f.UserID != 0 || !f.From.IsZero() || !f.To.IsZero()) {
		order = newestFirst
	}
	var union []string
	for _, a := range ledgerArms(f, order) {
		union = append(union, `SELECT * FROM (SELECT id FROM ledger WHERE `+a.where+` ORDER BY `+a.order+Limit(f.Limit)+`) AS arm`)
		args = append(args, a.args...)
	}
	return selectEntry + `WHERE id IN (` + strings.Join(union, ` UNION ALL `) + `) ORDER BY ` + order + Limit(f.Limit), args
}

func ledgerArms(f account.LedgerFilter, order string) []arm {
	if f.CodeID == 0 && f.PickupID == 0 {
		switch {
		case f.MachineID != 0 && f.UserID == 0:
			return []arm{lately(`machine_id`, f.MachineID, ` AND machine_id > 0`, f)}
		case f.MachineID == 0 && f.UserID > 0:
			return []arm{lately(`actor_id`, f.UserID, ``, f), lately(`account_id`, f.UserID, byOthers, f)}
		case f.MachineID == 0 && f.UserID < 0:
			return []arm{lately(`actor_id`, 0, ``, f)}
		}
	}
	arms := []arm{{where: `true`, order: order}}
	and := func(more ...arm) {
		var product []arm
		for _, a := range arms {
			for _, b := range more {
				product = append(product, arm{a.where + ` AND ` + b.where, append(slices.Clone(a.args), b.args...), cmp.Or(b.order, a.order)})
			}
		}
		arms = product
	}
	// single is about one code, as far as f goes back.
	single := func(id int64, more string) arm {
		a := arm{where: `first_id >= ? AND (first_id, id) < (?, ?) AND first_id = last_id AND first_id > 0` + more, order: about(`first_id`, `id DESC`)}
		a.args = []any{id, id, cmp.Or(max(0, f.Before), math.MaxInt64)}
		return a
	}
	if f.CodeID != 0 {
		and(single(f.CodeID, ` AND machine_id = 0`), arm{
			where: `machine_id = 0 AND first_id < last_id AND first_id BETWEEN ? AND ? AND last_id >= ?`,
			args:  []any{f.CodeID - widestRange, f.CodeID, f.CodeID},
			order: `id + 0 DESC`, // not to be walked
		})
	}
	if f.PickupID != 0 {
		and(single(f.PickupID, ` AND machine_id > 0`))
	}
	if f.MachineID != 0 {
		and(arm{where: `machine_id = ? AND machine_id > 0`, args: []any{f.MachineID}})
	}
	switch {
	case f.UserID > 0:
		and(arm{where: `actor_id = ?`, args: []any{f.UserID}}, arm{where: `account_id = ?` + byOthers, args: []any{f.UserID}})
	case f.UserID < 0:
		and(arm{where: `actor_id = 0`})
	}
	if !f.From.IsZero() {
		and(arm{where: `at >= ?`, args: []any{f.From.UnixMilli()}})
	}
	if !f.To.IsZero() {
		and(arm{where: `at < ?`, args: []any{f.To.UnixMilli()}})
	}
	switch {
	case f.Before > 0 && order == newestFirst:
		and(arm{where: `(at, id) < (` + after(`?`) + `)`, args: []any{f.Before, f.Before}})
	case f.Before > 0:
		and(arm{where: `id < ?`, args: []any{f.Before}})
	}
	return arms
}

// lately is the entries with a value in a column, of the times that f chooses, and
// behind where it says. More is what else the column's index asks for.
func lately(column string, value int64, more string, f account.LedgerFilter) arm {
	a := arm{order: about(column, newestFirst)}
	and := func(where string, args ...any) {
		a.where += where
		a.args = append(a.args, args...)
	}
	if f.From.IsZero() {
		and(column+` >= ?`, value)
	} else {
		and(`(`+column+`, at) >= (?, ?)`, value, f.From.UnixMilli())
	}
	switch {
	case f.Before > 0:
		and(` AND (`+column+`, at, id) < (?, `+after(`?`)+`)`, value, f.Before, f.Before)
		if !f.To.IsZero() { // which only matters for one that is not in those times
			and(` AND at < ?`, f.To.UnixMilli())
		}
	case f.To.IsZero():
		and(` AND `+column+` <= ?`, value)
	default:
		and(` AND (`+column+`, at) < (?, ?)`, value, f.To.UnixMilli())
	}
	and(more)
	return a
}

// Heads implements account.Store.
func (d *Store) Heads(ctx context.Context) (heads []account.Head, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		heads, err = ReadHeads(context.WithoutCancel(ctx), s)
		return err
	})
	return heads, err
}

// ReadHeads reads the ends of all lanes.
func ReadHeads(ctx context.Context, s Conn) (heads []account.Head, err error) {
	err = s.Each(ctx, func(row Scanner) error {
		var h account.Head
		err := row.Scan(&h.Lane, &h.Count, &h.MAC, &h.Seal)
		heads = append(heads, h)
		return err
	}, `SELECT lane, count, mac, seal FROM ledger_heads ORDER BY lane`)
	return heads, err
}

// Audit implements account.Store. It walks the entries in steps, each a short
// read, which an append-only table with one writer allows; the last of them, the
// heads and the balances come from one state.
func (d *Store) Audit(ctx context.Context, a account.Auditor) error {
	after := int64(math.MinInt64) // an entry that was made up may be anywhere
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := d.engine.Snapshot(ctx, func(s Conn) (err error) {
			after, more, err = AuditStep(context.WithoutCancel(ctx), s, a, after)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// AuditAll shows the whole ledger to a, from one state that s sees.
func AuditAll(ctx context.Context, s Conn, a account.Auditor) (err error) {
	after := int64(math.MinInt64) // an entry that was made up may be anywhere
	for more := true; more && err == nil; {
		after, more, err = AuditStep(ctx, s, a, after)
	}
	return err
}

// AuditStep walks the next entries behind the one with the ID after, and
// reports where that ended and whether there are more; with the last of them it
// walks the heads and balances.
func AuditStep(ctx context.Context, s Conn, a account.Auditor, after int64) (last int64, more bool, err error) {
	n := 0
	if err := s.Each(ctx, func(row Scanner) error {
		e, err := scanEntry(row)
		if err != nil {
			return err
		}
		n, after = n+1, e.ID
		return a.Entry(e)
	}, selectEntry+`WHERE id > ? ORDER BY id`+Limit(auditStep), after); err != nil {
		return 0, false, err
	}
	if n == auditStep {
		return after, true, nil
	}
	heads, err := ReadHeads(ctx, s)
	if err != nil {
		return 0, false, err
	}
	for _, h := range heads {
		if err := a.Head(h); err != nil {
			return 0, false, err
		}
	}
	return after, false, s.Each(ctx, func(row Scanner) error {
		var id, quota int64
		if err := row.Scan(&id, &quota); err != nil {
			return err
		}
		return a.Balance(id, quota)
	}, `SELECT id, quota FROM users ORDER BY id`)
}

// Verification implements account.Store.
func (d *Store) Verification(ctx context.Context) (turn int64, value []byte, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		err := s.Row(context.WithoutCancel(ctx), `SELECT turn, value FROM verification WHERE id = 1`).Scan(&turn, &value)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return turn, value, err
}

// PutVerification implements account.Store.
func (d *Store) PutVerification(ctx context.Context, turn int64, value []byte) (ours bool, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		n, err := t.change(ctx, `INSERT INTO verification (id, turn, value) VALUES (1, ?, ?)
			ON CONFLICT (id) DO UPDATE SET turn = excluded.turn, value = excluded.value WHERE verification.turn = ?`, turn+1, value, turn)
		if ours = n == 1; err != nil || ours {
			return err
		}
		// It may have been written before, and the answer lost.
		return t.Row(ctx, `SELECT EXISTS (SELECT 1 FROM verification WHERE id = 1 AND turn = ? AND value = ?)`, turn+1, value).Scan(&ours)
	})
	return ours && err == nil, err
}
