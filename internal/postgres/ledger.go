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

// lane is what a transaction has locked to commit: the end of a lane, and the
// epoch of the data keys, which nobody changes without all lanes.
type lane struct {
	head  account.Head // its Lane is 0 if others have all of them
	epoch int64
}

// queueFree locks a lane that nobody has, if there is one.
func (l *lane) queueFree(b *pgx.Batch) {
	l.queue(b, `ORDER BY lane LIMIT 1 FOR UPDATE SKIP LOCKED`)
}

// queue locks the lane that the end of the query chooses.
func (l *lane) queue(b *pgx.Batch, which string, args ...any) {
	b.Queue(`SELECT lane, count, mac FROM ledger_heads `+which, args...).QueryRow(func(row pgx.Row) error {
		return ifAny(row.Scan(&l.head.Lane, &l.head.Count, &l.head.MAC))
	})
	b.Queue(sqlstore.SelectEpoch).QueryRow(func(row pgx.Row) error { return row.Scan(&l.epoch) })
}

// wait waits for a lane, if all of them were taken.
func (l *lane) wait(s *session) error {
	if l.head.Lane != 0 {
		return nil
	}
	b := &pgx.Batch{}
	l.queue(b, `WHERE lane = $1 FOR UPDATE`, 1+rand.Int64N(lanes)) //nolint:gosec // G404: it is only to spread load
	err := s.conn.SendBatch(s.ctx, b).Close()
	if err == nil && l.head.Lane == 0 {
		err = pgx.ErrNoRows
	}
	return err
}

// lockLane locks a lane that nobody has, or waits for one.
func lockLane(s *session) (l lane, err error) {
	b := &pgx.Batch{}
	l.queueFree(b)
	if err = s.conn.SendBatch(s.ctx, b).Close(); err == nil {
		err = l.wait(s)
	}
	if err != nil {
		return l, fmt.Errorf("reading the ledger's head: %w", err)
	}
	return l, nil
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
	chain := account.NewChain(d.ledgerKey)
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

// Long implements sqlstore.Engine.
func (d *DB) Long(ctx context.Context, do func(sqlstore.Conn) error) error {
	return d.longRead(ctx, func(s *session) error { return do(sqlstore.Conn{Driver: s}) })
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
