package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/pickup"
)

// never is the expiry of an entry that does not expire.
const never = math.MaxInt64

// enqueue promises to tell a machine of a code.
func (t *tx) enqueue(ctx context.Context, c *pickup.Code, kind delivery.Kind, at time.Time) error {
	return t.insertItem(ctx, delivery.Item{MachineID: c.MachineID, Kind: kind, CodeID: c.ID}, at, millis(c.Expires))
}

// disconnect asks for the end of a machine's connection.
func (t *tx) disconnect(ctx context.Context, machine int64, at time.Time) error {
	return t.insertItem(ctx, delivery.Item{MachineID: machine, Kind: delivery.KindDisconnect}, at, never)
}

func (t *tx) insertItem(ctx context.Context, i delivery.Item, at time.Time, expires int64) error {
	if _, err := t.change(ctx, `INSERT INTO outbox (machine_id, kind, code_id, at, expires) VALUES (?, ?, ?, ?, ?)`,
		i.MachineID, int(i.Kind), i.CodeID, at.UnixMilli(), expires); err != nil {
		return fmt.Errorf("writing to the outbox: %w", err)
	}
	return nil
}

// dequeue takes back what was to be told of a code.
func (t *tx) dequeue(ctx context.Context, c *pickup.Code) error {
	if _, err := t.change(ctx, `DELETE FROM outbox WHERE code_id = ? AND code_id > 0`, c.ID); err != nil {
		return fmt.Errorf("removing from the outbox: %w", err)
	}
	return nil
}

// Newest implements delivery.Store.
func (d *DB) Newest(ctx context.Context) (id int64, err error) {
	err = d.write(ctx, func(ctx context.Context, t *tx) error {
		if _, err := t.change(ctx, `DELETE FROM outbox WHERE expires = ? AND kind = ?`,
			int64(never), int(delivery.KindDisconnect)); err != nil {
			return fmt.Errorf("removing from the outbox: %w", err)
		}
		return t.row(ctx, `SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'`).Scan(&id)
	})
	return id, err
}

// Since implements delivery.Store.
func (d *DB) Since(ctx context.Context, after int64, most int) ([]delivery.Item, error) {
	return d.items(ctx, selectItem+`WHERE id > ? ORDER BY id`+limit(most), after)
}

// Waiting implements delivery.Store.
func (d *DB) Waiting(ctx context.Context, machine, after int64, most int) ([]delivery.Item, error) {
	return d.items(ctx, selectItem+`WHERE machine_id = ? AND id > ? ORDER BY id`+limit(most), machine, after)
}

// Holding implements delivery.Store.
func (d *DB) Holding(ctx context.Context, machine, after int64, most int) ([]delivery.Item, error) {
	return d.items(ctx, `SELECT 0, machine_id, 1, id FROM pickup_codes c INDEXED BY pickup_codes_live
		WHERE state = 1 AND machine_id = ? AND id > ?
			AND NOT EXISTS (SELECT 1 FROM outbox WHERE code_id = c.id AND code_id > 0)
		ORDER BY id`+limit(most), machine, after)
}

const selectItem = `SELECT id, machine_id, kind, code_id FROM outbox `

func (d *DB) items(ctx context.Context, text string, args ...any) (items []delivery.Item, err error) {
	err = d.read(ctx, func(s *session) error {
		return s.each(context.WithoutCancel(ctx), func(row scanner) error {
			var i delivery.Item
			err := row.Scan(&i.ID, &i.MachineID, (*int)(&i.Kind), &i.CodeID)
			items = append(items, i)
			return err
		}, text, args...)
	})
	return items, err
}

// Advance implements delivery.Store.
func (d *DB) Advance(ctx context.Context, progress []delivery.Progress) error {
	var ids [2][]int64 // by stage
	for _, p := range progress {
		ids[p.Stage] = append(ids[p.Stage], p.ID)
	}
	return d.grouped(ctx, len(progress), func(ctx context.Context, t *tx) error {
		for stage, text := range [...]string{
			delivery.Sent:     `UPDATE outbox SET sent = 1 WHERE id IN (SELECT value FROM json_each(?))`,
			delivery.Received: `DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))`,
		} {
			if ids[stage] == nil {
				continue
			}
			if _, err := t.change(ctx, text, jsonArray(ids[stage])); err != nil {
				return fmt.Errorf("writing how far messages have come: %w", err)
			}
		}
		return nil
	})
}

// Backlog implements delivery.Store.
func (d *DB) Backlog(ctx context.Context) (b delivery.Backlog, err error) {
	err = d.read(ctx, func(s *session) error {
		var oldest int64
		err := s.row(context.WithoutCancel(ctx), `SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT ?)),
			coalesce((SELECT at FROM outbox ORDER BY id LIMIT 1), 0)`, delivery.BacklogMax).Scan(&b.Entries, &oldest)
		b.Oldest = fromMillis(oldest)
		return err
	})
	return b, err
}

// SweepPickups implements pickup.Store. What a sweep has put aside is taken back
// if the clock was set back: the code is live again, and what had not been heard
// of it is still to be told.
func (d *DB) SweepPickups(ctx context.Context, now time.Time) (moved int64, err error) {
	at := now.UnixMilli()
	var due bool
	// A look first, that takes no writer's turn: most of the time nothing is due.
	if err := d.read(ctx, func(s *session) error {
		return s.row(context.WithoutCancel(ctx), `SELECT EXISTS (SELECT 1 FROM outbox WHERE expires <= ?1)
			OR EXISTS (SELECT 1 FROM pickup_codes WHERE state = 1 AND expires <= ?1)
			OR EXISTS (SELECT 1 FROM pickup_codes WHERE state = 4 AND expires > ?1)
			OR EXISTS (SELECT 1 FROM pickup_codes WHERE unheard > 0 AND expires > ?1)`, at).Scan(&due)
	}); err != nil || !due {
		return 0, err
	}
	err = d.write(ctx, func(ctx context.Context, t *tx) error {
		for _, move := range []func(context.Context, int64) (int64, error){
			t.sweepCodes, t.unsweepCodes, t.dropItems, t.restoreItems,
		} {
			n, err := move(ctx, at)
			if err != nil {
				return fmt.Errorf("sweeping pickup codes: %w", err)
			}
			moved += n
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return moved, nil
}

func (t *tx) sweepCodes(ctx context.Context, at int64) (int64, error) {
	return t.moved(ctx, `UPDATE pickup_codes SET state = 4 WHERE id IN
		(SELECT id FROM pickup_codes WHERE state = 1 AND expires <= ? LIMIT ?)`, at, sweepStep)
}

func (t *tx) unsweepCodes(ctx context.Context, at int64) (int64, error) {
	return t.moved(ctx, `UPDATE pickup_codes SET state = 1 WHERE id IN
		(SELECT id FROM pickup_codes WHERE state = 4 AND expires > ? LIMIT ?)`, at, sweepStep)
}

// moved is change for statements whose rows are counted.
func (t *tx) moved(ctx context.Context, text string, args ...any) (int64, error) {
	res, err := t.change(ctx, text, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// dropItems drops what is of no use to a machine any more, and notes how far it
// had come.
func (t *tx) dropItems(ctx context.Context, at int64) (int64, error) {
	type item struct{ code, sent int64 }
	var gone []item
	err := t.each(ctx, func(row scanner) error {
		var i item
		err := row.Scan(&i.code, &i.sent)
		gone = append(gone, i)
		t.wrote = true
		return err
	}, `DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE expires <= ? LIMIT ?) RETURNING code_id, sent`,
		at, sweepStep)
	for _, i := range gone {
		_, failed := t.change(ctx, `UPDATE pickup_codes SET unheard = ? WHERE id = ?`, i.sent+1, i.code)
		err = errors.Join(err, failed)
	}
	return int64(len(gone)), err
}

// restoreItems is the reverse of dropItems.
func (t *tx) restoreItems(ctx context.Context, at int64) (int64, error) {
	n, err := t.moved(ctx, `INSERT INTO outbox (machine_id, kind, code_id, sent, at, expires)
		SELECT machine_id, iif(state = 3, 2, 1), id, unheard - 1, ?1, expires FROM pickup_codes
		WHERE unheard > 0 AND expires > ?1 ORDER BY expires, id LIMIT ?2`, at, sweepStep)
	if err != nil || n == 0 {
		return 0, err
	}
	return t.moved(ctx, `UPDATE pickup_codes SET unheard = 0 WHERE id IN
		(SELECT id FROM pickup_codes WHERE unheard > 0 AND expires > ? ORDER BY expires, id LIMIT ?)`, at, sweepStep)
}
