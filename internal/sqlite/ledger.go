package sqlite

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
)

// lane is the ledger's only one: SQLite has one writer at a time.
const lane = 1

const (
	// auditStep is how many entries Audit reads at once, so that a long walk
	// does not hold back the write-ahead log.
	auditStep = 20_000
	// widestRange bounds how many ids apart the first and last code of an entry
	// are: neither a batch nor a step of Purge is wider.
	widestRange = 1 << 14
)

// append writes the next entry of the ledger.
func (t *tx) append(ctx context.Context, e account.Entry, by account.Actor, at time.Time) error {
	e.ActorID, e.Address, e.At = by.ID, by.Address, at.Truncate(time.Millisecond)
	t.chain.Append(&t.head, &e)
	t.appended = true
	if _, err := t.change(ctx, `INSERT INTO ledger
		(seq, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount, detail, mac)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, e.Seq, e.At.UnixMilli(), string(e.Kind), e.ActorID, e.Address,
		e.AccountID, e.MachineID, e.FirstID, e.LastID, e.Count, e.Amount, e.Detail, e.MAC); err != nil {
		return fmt.Errorf("writing to the ledger: %w", err)
	}
	return nil
}

func (t *tx) writeHead(ctx context.Context) error {
	if !t.appended {
		return nil
	}
	t.chain.SealHead(&t.head)
	if _, err := t.change(ctx, `UPDATE ledger_heads SET count = ?, mac = ?, seal = ? WHERE lane = ?`,
		t.head.Count, t.head.MAC, t.head.Seal, t.head.Lane); err != nil {
		return fmt.Errorf("writing the ledger's head: %w", err)
	}
	return nil
}

const selectEntry = `SELECT seq, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount,
	detail, mac FROM ledger `

func scanEntry(row scanner) (account.Entry, error) {
	e := account.Entry{Lane: lane}
	var at int64
	err := row.Scan(&e.Seq, &at, (*string)(&e.Kind), &e.ActorID, &e.Address, &e.AccountID, &e.MachineID, &e.FirstID,
		&e.LastID, &e.Count, &e.Amount, &e.Detail, &e.MAC)
	e.At = time.UnixMilli(at)
	return e, err
}

// Ledger implements account.Store.
func (d *DB) Ledger(ctx context.Context, f account.LedgerFilter) (entries []account.Entry, err error) {
	text, args := ledgerQuery(f)
	err = d.read(ctx, func(s *session) error {
		return s.each(context.WithoutCancel(ctx), func(row scanner) error {
			e, err := scanEntry(row)
			entries = append(entries, e)
			return err
		}, text, args...)
	})
	return entries, err
}

// ledgerQuery writes the query as a union of arms, each of which walks one
// index from its end and stops at the limit. Times beside a user, a code or a machine
// only choose among that one's entries.
func ledgerQuery(f account.LedgerFilter) (text string, args []any) {
	type arm struct {
		where string
		args  []any
	}
	arms := []arm{{where: `true`}}
	and := func(more ...arm) {
		var product []arm
		for _, a := range arms {
			for _, b := range more {
				product = append(product, arm{a.where + ` AND ` + b.where, append(slices.Clone(a.args), b.args...)})
			}
		}
		arms = product
	}
	order := `seq DESC`
	if f.CodeID != 0 {
		and(arm{`first_id = ? AND first_id = last_id AND first_id > 0 AND machine_id = 0`, []any{f.CodeID}},
			arm{
				`machine_id = 0 AND first_id < last_id AND first_id BETWEEN ? AND ? AND last_id >= ?`,
				[]any{f.CodeID - widestRange, f.CodeID, f.CodeID},
			})
	}
	if f.PickupID != 0 {
		and(arm{`first_id = ? AND first_id = last_id AND first_id > 0 AND machine_id > 0`, []any{f.PickupID}})
	}
	if f.MachineID != 0 {
		and(arm{`machine_id = ? AND machine_id > 0`, []any{f.MachineID}})
	}
	about := f.CodeID != 0 || f.PickupID != 0 || f.MachineID != 0
	switch {
	case f.UserID > 0:
		and(arm{`actor_id = ?`, []any{f.UserID}},
			arm{`account_id = ? AND account_id > 0 AND account_id <> actor_id`, []any{f.UserID}})
	case f.UserID < 0:
		and(arm{`actor_id = 0`, nil})
	case !about && (!f.From.IsZero() || !f.To.IsZero()):
		order = `at DESC, seq DESC` // which is not quite that of seq: clocks are set back, and redeems wait
	}
	if !f.From.IsZero() {
		and(arm{`at >= ?`, []any{f.From.UnixMilli()}})
	}
	if !f.To.IsZero() {
		and(arm{`at < ?`, []any{f.To.UnixMilli()}})
	}
	switch {
	case f.Before > 0 && order == `seq DESC`:
		and(arm{`seq < ?`, []any{f.Before}})
	case f.Before > 0:
		and(arm{
			`(at, seq) < (ifnull((SELECT at FROM ledger WHERE seq = ?), ?), ?)`,
			[]any{f.Before, int64(math.MaxInt64), f.Before},
		})
	}
	var union []string
	for _, a := range arms {
		union = append(union, `SELECT seq FROM (SELECT seq FROM ledger WHERE `+a.where+` ORDER BY `+order+` LIMIT ?)`)
		args = append(append(args, a.args...), f.Limit)
	}
	return selectEntry + `WHERE seq IN (` + strings.Join(union, ` UNION ALL `) + `) ORDER BY ` + order + ` LIMIT ?`,
		append(args, f.Limit)
}

// Heads implements account.Store.
func (d *DB) Heads(ctx context.Context) (heads []account.Head, err error) {
	err = d.read(ctx, func(s *session) error {
		heads, err = readHeads(context.WithoutCancel(ctx), s)
		return err
	})
	return heads, err
}

func readHeads(ctx context.Context, s *session) (heads []account.Head, err error) {
	err = s.each(ctx, func(row scanner) error {
		var h account.Head
		err := row.Scan(&h.Lane, &h.Count, &h.MAC, &h.Seal)
		heads = append(heads, h)
		return err
	}, `SELECT lane, count, mac, seal FROM ledger_heads ORDER BY lane`)
	return heads, err
}

// Audit implements account.Store. It walks the entries in steps, each a short
// read, which an append-only table allows; the last of them, the heads and the
// balances come from one state.
func (d *DB) Audit(ctx context.Context, a account.Auditor) error {
	var after int64
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := d.snapshot(ctx, func(s *session) error {
			ctx := context.WithoutCancel(ctx)
			n := 0
			if err := s.each(ctx, func(row scanner) error {
				e, err := scanEntry(row)
				if err != nil {
					return err
				}
				n, after = n+1, e.Seq
				return a.Entry(e)
			}, selectEntry+`WHERE seq > ? ORDER BY seq LIMIT ?`, after, auditStep); err != nil {
				return err
			}
			if more = n == auditStep; more {
				return nil
			}
			heads, err := readHeads(ctx, s)
			if err != nil {
				return err
			}
			for _, h := range heads {
				if err := a.Head(h); err != nil {
					return err
				}
			}
			return s.each(ctx, func(row scanner) error {
				var id, quota int64
				if err := row.Scan(&id, &quota); err != nil {
					return err
				}
				return a.Balance(id, quota)
			}, `SELECT id, quota FROM users ORDER BY id`)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
