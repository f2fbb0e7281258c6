package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/jackc/pgx/v5"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// lanes is how many chains the ledger has, and so how many transactions may
// commit at the same time that write to it.
const lanes = 8

const selectFreeLane = `SELECT lane, count, mac FROM ledger_heads ORDER BY lane LIMIT 1 FOR UPDATE SKIP LOCKED`

// lockLane locks a lane that nobody has, or waits for one, and reads its head. It
// reads the epoch of the data keys too, which nobody changes without all lanes.
func (d *DB) lockLane(s *session) (head account.Head, epoch int64, err error) {
	const one = `SELECT lane, count, mac FROM ledger_heads WHERE lane = $1 FOR UPDATE`
	b := &pgx.Batch{}
	b.Queue(selectFreeLane).QueryRow(func(row pgx.Row) error { return ifAny(row.Scan(&head.Lane, &head.Count, &head.MAC)) })
	b.Queue(selectEpoch).QueryRow(func(row pgx.Row) error { return row.Scan(&epoch) })
	if err = s.conn.SendBatch(s.ctx, b).Close(); err == nil && head.Lane == 0 {
		b = &pgx.Batch{}
		b.Queue(one, 1+rand.Int64N(lanes)). //nolint:gosec // G404: it is only to spread load
							QueryRow(func(row pgx.Row) error { return row.Scan(&head.Lane, &head.Count, &head.MAC) })
		b.Queue(selectEpoch).QueryRow(func(row pgx.Row) error { return row.Scan(&epoch) })
		err = s.conn.SendBatch(s.ctx, b).Close()
	}
	if err != nil {
		return head, 0, fmt.Errorf("reading the ledger's head: %w", err)
	}
	return head, epoch, nil
}

// ifAny passes over the absence of a row.
func ifAny(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}

// queueEntries puts entries behind a lane's head, which it moves.
func (d *DB) queueEntries(b *pgx.Batch, head *account.Head, entries []account.Entry) {
	if entries == nil {
		return
	}
	chain := d.chain()
	n := len(entries)
	var (
		seq, at, actor, about, machine = make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
		first, last, count, amount     = make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
		kind, address, detail          = make([]string, n), make([]string, n), make([]string, n)
		mac                            = make([][]byte, n)
	)
	for i := range entries {
		e := &entries[i]
		// As they come back: the MAC is over that.
		e.Address, e.Detail = cleanText(e.Address), cleanText(e.Detail)
		chain.Append(head, e)
		seq[i], at[i], actor[i], about[i], machine[i] = e.Seq, e.At.UnixMilli(), e.ActorID, e.AccountID, e.MachineID
		first[i], last[i], count[i], amount[i] = e.FirstID, e.LastID, e.Count, e.Amount
		kind[i], address[i], detail[i], mac[i] = string(e.Kind), e.Address, e.Detail, e.MAC
	}
	chain.SealHead(head)
	b.Queue(`INSERT INTO ledger
		(lane, seq, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount, detail, mac)
		SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::bigint[],
			$8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[], $14::bytea[])`,
		head.Lane, seq, at, kind, actor, address, about, machine, first, last, count, amount, detail, mac)
	b.Queue(`UPDATE ledger_heads SET count = $2, mac = $3, seal = $4 WHERE lane = $1`,
		head.Lane, head.Count, head.MAC, head.Seal)
}

// Audit implements account.Store. All comes from one state: entries of other lanes
// may become visible behind one that has been read.
func (d *DB) Audit(ctx context.Context, a account.Auditor) error {
	return d.longRead(ctx, func(s *session) error { return sqlstore.AuditAll(ctx, sqlstore.Conn{Driver: s}, a) })
}

// longRead calls do with one state of the database, on a connection of its own: it
// takes as long as it takes, and others have need of the pool.
func (d *DB) longRead(ctx context.Context, do func(*session) error) error {
	conn, err := connectAlone(ctx, d.pool.Config())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it has only read
	if _, err := conn.Exec(ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`); err != nil {
		return err
	}
	return do(&session{d: d, conn: conn, ctx: ctx})
}

// Checkpoint writes the ends of all lanes into the ledger, unless there is nothing
// new since the last: so that no lane can be put back alone.
func (d *DB) Checkpoint(ctx context.Context) error {
	return d.Write(ctx, func(ctx context.Context, t *sqlstore.Tx) error {
		if err := (dialect{d}).Alone(ctx, t); err != nil {
			return err
		}
		heads, err := sqlstore.ReadHeads(ctx, t.Conn)
		if err != nil {
			return err
		}
		var kind string
		err = t.Row(ctx, `SELECT kind FROM ledger ORDER BY id DESC LIMIT 1`).Scan(&kind)
		if ifAny(err) != nil || kind == "" || kind == string(account.KindCheckpoint) {
			return ifAny(err)
		}
		t.Append(account.Entry{Kind: account.KindCheckpoint, Detail: account.CheckpointDetail(heads)}, account.Operator(), d.now())
		return nil
	})
}
