package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// groupMax bounds how many redeems share a commit: beyond it a larger group
// gains nothing and makes the first wait for the last.
const groupMax = 256

type redeemJob struct {
	redemption.Attempt
	credited int64
	err      error
	done     chan struct{}
}

// Redeem queues the attempt and waits until somebody has committed it. Whoever
// gets the writer's turn first commits all that have arrived by then: a lone
// redeem waits for no company and for no other goroutine, and whatever arrives
// during a commit makes the next group.
//
// It does not stop waiting when ctx ends: an answer must not be lost between
// the two.
func (d *DB) Redeem(ctx context.Context, a redemption.Attempt) (int64, error) {
	j := &redeemJob{Attempt: a, done: make(chan struct{})}
	select {
	case d.redeems <- j:
	default:
		return 0, refusal.Later(refusal.TooBusy, time.Second)
	}
	for {
		select {
		case <-j.done:
			return j.credited, j.err
		case <-d.writeTurn:
			d.redeemArrived(context.WithoutCancel(ctx))
			d.writeTurn <- struct{}{}
		case <-d.closed:
			select {
			case <-j.done: // by the last group
				return j.credited, j.err
			default: // nobody will
				return 0, errClosed
			}
		}
	}
}

// redeemArrived commits the attempts that have arrived, for who has the
// writer's turn. All are told before the turn goes on: else those of them who
// wait for it would get it for nothing.
func (d *DB) redeemArrived(ctx context.Context) {
	var group []*redeemJob
	for len(group) < groupMax && len(d.redeems) > 0 { // nobody else takes them out
		group = append(group, <-d.redeems)
	}
	if group == nil {
		return
	}
	d.redeemGroup(ctx, group)
	for _, j := range group {
		close(j.done)
	}
}

// redeemGroup decides each of the group in its order, in one transaction.
func (d *DB) redeemGroup(ctx context.Context, group []*redeemJob) {
	begun := d.now()
	err := d.transact(ctx, func(ctx context.Context, t *tx) error {
		balances := balances{}
		for _, j := range group {
			if j.credited, j.err = t.redeem(ctx, &j.Attempt, balances); j.err != nil && !decided(j.err) {
				return j.err
			}
		}
		return balances.write(ctx, t)
	})
	if err != nil {
		for _, j := range group {
			j.credited, j.err = 0, err
		}
	}
	if d.onCommit != nil {
		d.onCommit(len(group), d.now().Sub(begun))
	}
}

// redeem decides one attempt and writes all but the new balance, which the
// group writes once for each account.
func (t *tx) redeem(ctx context.Context, a *redemption.Attempt, balances balances) (int64, error) {
	if err := t.fresh(a.Epoch); err != nil {
		return 0, err
	}
	if err := t.replayed(ctx, a.Once); err != nil {
		return 0, err
	}
	if err := a.Admit(); err != nil {
		return 0, err
	}
	// Read before the code is touched: a refusal here must leave it alone.
	balance, err := balances.of(ctx, t, a.By.ID)
	if err != nil {
		return 0, err
	}
	c, err := t.use(ctx, a)
	if err != nil {
		return 0, err
	}
	if balance > math.MaxInt64-c.quota {
		if err := t.unuse(ctx, c); err != nil {
			return 0, err
		}
		return 0, refusal.New(refusal.AccountBalanceFull)
	}
	balances[a.By.ID] = balance + c.quota
	t.count(c.counted, -1)
	c.state = stateUsed
	t.count(c.counted, 1)
	if err := t.append(ctx, account.Entry{
		Kind: account.KindRedeem, AccountID: a.By.ID, FirstID: c.id, LastID: c.id, Count: 1, Amount: c.quota,
	}, a.By, a.At); err != nil {
		return 0, err
	}
	return c.quota, t.remember(ctx, a.Once, c.quota)
}

// usedCode is a code that has just been marked used, as it was before.
type usedCode struct {
	counted

	quota int64
}

const markUsed = `UPDATE redemptions SET state = 3, redeemed = ?, used_by = ? `

// use marks the code used if it is enabled and in time: one conditional update,
// never a read before it. Only if that changes nothing is the row read, to
// say why.
func (t *tx) use(ctx context.Context, a *redemption.Attempt) (usedCode, error) {
	at, second := a.At.UnixMilli(), redemption.Second(a.At).UnixMilli()
	for _, index := range a.Indexes {
		c := usedCode{counted: counted{state: stateEnabled}}
		err := t.row(ctx, markUsed+`WHERE key_index = ? AND state = 1 AND (expires = 0 OR expires >= ?)
			RETURNING id, name_id, expires, quota`, at, a.By.ID, index, second).Scan(&c.id, &c.name, &c.expires, &c.quota)
		if !errors.Is(err, sql.ErrNoRows) {
			t.wrote = true
			return c, err
		}
	}
	for _, index := range a.Indexes {
		c, state, err := scanCode(t.row(ctx, selectCode+`WHERE key_index = ?`, index))
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return usedCode{}, err
		}
		if err := c.Refuse(a.By.ID, a.At); err != nil {
			return usedCode{}, err
		}
		return t.useSwept(ctx, c.ID, state, a)
	}
	a.Unknown()
	return usedCode{}, refusal.New(refusal.RedemptionUnknown)
}

// useSwept marks a code used that was swept as expired and is in time all the
// same: the clock was set back.
func (t *tx) useSwept(ctx context.Context, id, state int64, a *redemption.Attempt) (usedCode, error) {
	c := usedCode{counted: counted{state: state}}
	t.wrote = true
	err := t.row(ctx, markUsed+`WHERE id = ? AND state = ? RETURNING id, name_id, expires, quota`,
		a.At.UnixMilli(), a.By.ID, id, state).Scan(&c.id, &c.name, &c.expires, &c.quota)
	return c, err
}

// unuse takes back what use did.
func (t *tx) unuse(ctx context.Context, c usedCode) error {
	_, err := t.change(ctx, `UPDATE redemptions SET state = ?, redeemed = 0, used_by = 0 WHERE id = ?`, c.state, c.id)
	return err
}

// balances are those of the accounts of a group, as they will be.
type balances map[int64]int64

// of is the account's balance so far, read from the database the first time.
func (b balances) of(ctx context.Context, t *tx, id int64) (int64, error) {
	if n, ok := b[id]; ok {
		return n, nil
	}
	var n int64
	err := t.row(ctx, `SELECT quota FROM users WHERE id = ? AND status = 1`, id).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, refusal.New(refusal.Unauthenticated) // disabled since the request came in
	}
	if err == nil {
		b[id] = n
	}
	return n, err
}

func (b balances) write(ctx context.Context, t *tx) error {
	if !t.wrote {
		return nil
	}
	for id, n := range b {
		if _, err := t.exec(ctx, `UPDATE users SET quota = ? WHERE id = ?`, n, id); err != nil {
			return fmt.Errorf("crediting: %w", err)
		}
	}
	return nil
}
