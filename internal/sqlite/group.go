package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/scrip-codes/scrip/internal/refusal"
)

// groupMax bounds how much is written in one commit, counted in redeems: beyond
// it a larger group gains nothing and makes the first wait for the last. The job
// that reaches it may go beyond it.
const groupMax = 256

// job is a write that shares its commit with others. It refuses, having changed
// nothing, or writes.
type job struct {
	do     func(context.Context, *tx) error
	size   int // how much it writes, counted in redeems
	redeem bool
	err    error
	done   chan struct{}
}

// run does the job. One that panics fails, and its group with it: the writer's
// turn must go on.
func (j *job) run(ctx context.Context, t *tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return j.do(ctx, t)
}

// grouped queues a write and waits until somebody has committed it. Whoever
// gets the writer's turn first commits all that have arrived by then: a lone
// job waits for no company and for no other goroutine, and whatever arrives
// during a commit makes the next group.
//
// It does not stop waiting when ctx ends: an answer must not be lost between
// the two. What do has found out counts only if the error is nil.
func (d *DB) grouped(ctx context.Context, size int, do func(context.Context, *tx) error) error {
	return d.queue(ctx, &job{do: do, size: size})
}

func (d *DB) queue(ctx context.Context, j *job) error {
	j.done = make(chan struct{})
	select {
	case d.jobs <- j:
	default:
		return refusal.Later(refusal.TooBusy, time.Second)
	}
	for {
		select {
		case <-j.done:
			return j.err
		case <-d.writeTurn:
			d.commitArrived(context.WithoutCancel(ctx))
			d.writeTurn <- struct{}{}
		case <-d.closed:
			select {
			case <-j.done: // by the last group
				return j.err
			default: // nobody will
				return errClosed
			}
		}
	}
}

// commitArrived commits the jobs that have arrived, for who has the writer's
// turn. All are told before the turn goes on: else those of them who wait for
// it would get it for nothing.
func (d *DB) commitArrived(ctx context.Context) {
	var group []*job
	for size := 0; size < groupMax && len(d.jobs) > 0; { // nobody else takes them out
		j := <-d.jobs
		size += j.size
		group = append(group, j)
	}
	if group == nil {
		return
	}
	d.commitGroup(ctx, group)
	for _, j := range group {
		close(j.done)
	}
}

// commitGroup decides each of the group in its order, in one transaction.
func (d *DB) commitGroup(ctx context.Context, group []*job) {
	begun := d.now()
	redeems := 0
	err := d.transact(ctx, func(ctx context.Context, t *tx) error {
		for _, j := range group {
			if j.redeem {
				redeems++
			}
			if j.err = j.run(ctx, t); j.err != nil && !decided(j.err) {
				return j.err
			}
		}
		return nil
	})
	if err != nil {
		for _, j := range group {
			j.err = err
		}
	}
	if d.onCommit != nil && redeems > 0 {
		d.onCommit(redeems, d.now().Sub(begun))
	}
}

// balance is what an account will have at the end of a transaction.
type balance struct {
	quota   int64
	changed bool
}

// balance is the account's so far, read from the database the first time.
func (t *tx) balance(ctx context.Context, id int64) (int64, error) {
	if b, ok := t.balances[id]; ok {
		return b.quota, nil
	}
	var b balance
	err := t.row(ctx, `SELECT quota FROM users WHERE id = ? AND status = 1`, id).Scan(&b.quota)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, refusal.New(refusal.Unauthenticated) // disabled since the request came in
	}
	if err == nil {
		t.setBalance(id, b)
	}
	return b.quota, err
}

func (t *tx) setBalance(id int64, b balance) {
	if t.balances == nil {
		t.balances = map[int64]balance{}
	}
	t.balances[id] = b
}

// writeBalances writes each that has changed, once.
func (t *tx) writeBalances(ctx context.Context) error {
	for id, b := range t.balances {
		if !b.changed {
			continue
		}
		if _, err := t.change(ctx, `UPDATE users SET quota = ? WHERE id = ?`, b.quota, id); err != nil {
			return fmt.Errorf("crediting: %w", err)
		}
	}
	return nil
}
