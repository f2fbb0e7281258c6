package sqlite

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// groupMax bounds how much is written in one commit, counted in redeems: beyond
// it a larger group gains nothing and makes the first wait for the last.
const groupMax = 256

// job is a write that shares its commit with others. It refuses, having changed
// nothing, or writes.
type job struct {
	do   func(context.Context, *sqlstore.Tx) error
	size int // how much it writes, counted in redeems
}

func (j job) sizeOf() int { return j.size }

// run does the job. One that panics fails, and its group with it: the writer's
// turn must go on.
func (j job) run(ctx context.Context, t *sqlstore.Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return j.do(ctx, t)
}

// Grouped implements sqlstore.Engine.
func (d *DB) Grouped(ctx context.Context, size int, do func(context.Context, *sqlstore.Tx) error) error {
	return d.group.Do(ctx, job{do, size})
}

// commitGroup decides each of the group in its order, in one transaction.
func (d *DB) commitGroup(ctx context.Context, group []*sqlstore.Job[job]) {
	begun := d.now()
	redeems := 0
	err := d.transact(ctx, func(ctx context.Context, t *sqlstore.Tx) error {
		for _, j := range group {
			if j.Err = j.Value.run(ctx, t); j.Err != nil && !sqlstore.Decided(j.Err) {
				return j.Err
			}
		}
		redeems = t.Redeems
		return nil
	})
	if err != nil {
		for _, j := range group {
			j.Err = err
		}
	}
	if d.onCommit != nil && redeems > 0 {
		d.onCommit(redeems, d.now().Sub(begun))
	}
}
