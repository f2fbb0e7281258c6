package sqlstore

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
func (t *Tx) enqueue(ctx context.Context, c *pickup.Code, kind delivery.Kind, at time.Time) error {
	return t.insertItem(ctx, delivery.Item{MachineID: c.MachineID, Kind: kind, CodeID: c.ID}, at, Millis(c.Expires))
}

// disconnect asks for the end of a machine's connection.
func (t *Tx) disconnect(ctx context.Context, machine int64, at time.Time) error {
	return t.insertItem(ctx, delivery.Item{MachineID: machine, Kind: delivery.KindDisconnect}, at, never)
}

func (t *Tx) insertItem(ctx context.Context, i delivery.Item, at time.Time, expires int64) error {
	if _, err := t.change(ctx, `INSERT INTO outbox (machine_id, kind, code_id, at, expires) VALUES (?, ?, ?, ?, ?)`,
		i.MachineID, int64(i.Kind), i.CodeID, at.UnixMilli(), expires); err != nil {
		return fmt.Errorf("writing to the outbox: %w", err)
	}
	return nil
}

// dequeue takes back what was to be told of a code.
func (t *Tx) dequeue(ctx context.Context, c *pickup.Code) error {
	if _, err := t.change(ctx, `DELETE FROM outbox WHERE code_id = ? AND code_id > 0`, c.ID); err != nil {
		return fmt.Errorf("removing from the outbox: %w", err)
	}
	return nil
}

// DropDisconnects drops what asks for the end of connections.
func (t *Tx) DropDisconnects(ctx context.Context) error {
	if _, err := t.change(ctx, `DELETE FROM outbox WHERE expires = ? AND kind = ?`,
		int64(never), int64(delivery.KindDisconnect)); err != nil {
		return fmt.Errorf("removing from the outbox: %w", err)
	}
	return nil
}

// Waiting implements delivery.Store.
func (d *Store) Waiting(ctx context.Context, machine, after int64, most int) ([]delivery.Item, error) {
	return d.items(ctx, selectItem+`WHERE machine_id = ? AND id > ? ORDER BY id`+Limit(most), machine, after)
}

// Holding implements delivery.Store.
func (d *Store) Holding(ctx context.Context, machine, after int64, most int) ([]delivery.Item, error) {
	return d.items(ctx, `SELECT CAST(0 AS BIGINT), machine_id, CAST(1 AS BIGINT), id FROM pickup_codes c INDEXED BY pickup_codes_live
		WHERE state = 1 AND machine_id = ? AND id > ?
			AND NOT EXISTS (SELECT 1 FROM outbox WHERE code_id = c.id AND code_id > 0)
		ORDER BY id`+Limit(most), machine, after)
}

// ItemColumns are the columns of an entry of the outbox that ScanItem reads.
const ItemColumns = `id, machine_id, kind, code_id`

const selectItem = `SELECT ` + ItemColumns + ` FROM outbox `

// ScanItem reads a row of ItemColumns.
func ScanItem(row Scanner) (i delivery.Item, err error) {
	err = row.Scan(&i.ID, &i.MachineID, (*int)(&i.Kind), &i.CodeID)
	return i, err
}

func (d *Store) items(ctx context.Context, text string, args ...any) (items []delivery.Item, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			i, err := ScanItem(row)
			items = append(items, i)
			return err
		}, text, args...)
	})
	return items, err
}

// Advance implements delivery.Store.
func (d *Store) Advance(ctx context.Context, progress []delivery.Progress) error {
	var ids [2][]int64 // by stage
	for _, p := range progress {
		if p.Stage != delivery.Relayed {
			ids[p.Stage] = append(ids[p.Stage], p.ID)
		}
	}
	return d.engine.Grouped(ctx, len(progress), func(ctx context.Context, t *Tx) error {
		if err := t.relayed(ctx, progress); err != nil {
			return err
		}
		for stage, text := range [...]string{
			delivery.Sent:     `UPDATE outbox SET sent = 1 WHERE id `,
			delivery.Received: `DELETE FROM outbox WHERE id `,
		} {
			if ids[stage] == nil {
				continue
			}
			in, arg := t.dialect.In(ids[stage])
			if _, err := t.change(ctx, text+in, arg); err != nil {
				return fmt.Errorf("writing how far messages have come: %w", err)
			}
		}
		return nil
	})
}

// oldestOf bounds the entries among which the one is looked for that has waited
// for longest to be sent: one that is sent again keeps its place, and waits anew.
const oldestOf = 1000

// Backlog implements delivery.Store.
func (d *Store) Backlog(ctx context.Context, all bool) (b delivery.Backlog, err error) {
	const pending = `FROM outbox INDEXED BY outbox_pending WHERE pending > 0 AND id > 0`
	text := `SELECT (SELECT count(*) FROM (SELECT 1 ` + pending + Limit(delivery.BacklogMax) + `) AS found),
		coalesce((SELECT min(at) FROM (SELECT at ` + pending + ` ORDER BY id` + Limit(oldestOf) + `) AS oldest), 0)`
	if all {
		text = `SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox` + Limit(delivery.BacklogMax) + `) AS found),
			coalesce((SELECT at FROM outbox ORDER BY id LIMIT 1), 0)`
	}
	err = d.engine.Read(ctx, func(s Conn) error {
		var oldest int64
		err := s.Row(context.WithoutCancel(ctx), text).Scan(&b.Entries, &oldest)
		b.Oldest = fromMillis(oldest)
		return err
	})
	return b, err
}

// SweepPickups implements pickup.Store. What a sweep has put aside is taken back
// if the clock was set back: the code is live again, and what had not been heard
// of it is still to be told.
func (d *Store) SweepPickups(ctx context.Context, now time.Time) (moved int64, err error) {
	at := now.UnixMilli()
	var due bool
	// A look first, that takes no writer's turn: most of the time nothing is due.
	if err := d.engine.Read(ctx, func(s Conn) error {
		return s.Row(context.WithoutCancel(ctx), `SELECT EXISTS (SELECT 1 FROM outbox WHERE expires <= ?1)
			OR EXISTS (SELECT 1 FROM pickup_codes WHERE state = 1 AND expires <= ?1)
			OR EXISTS (SELECT 1 FROM pickup_codes WHERE state = 4 AND expires > ?1)
			OR EXISTS (SELECT 1 FROM pickup_codes WHERE unheard > 0 AND expires > ?1)`, at).Scan(&due)
	}); err != nil || !due {
		return 0, err
	}
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		moved = 0
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

func (t *Tx) sweepCodes(ctx context.Context, at int64) (int64, error) {
	return t.change(ctx, `UPDATE pickup_codes SET state = 4 WHERE +state = 1 AND id IN
		(SELECT id FROM pickup_codes WHERE state = 1 AND expires <= ?`+Limit(sweepStep)+`)`, at)
}

func (t *Tx) unsweepCodes(ctx context.Context, at int64) (int64, error) {
	return t.change(ctx, `UPDATE pickup_codes SET state = 1 WHERE +state = 4 AND id IN
		(SELECT id FROM pickup_codes WHERE state = 4 AND expires > ?`+Limit(sweepStep)+`)`, at)
}

// dropItems drops what is of no use to a machine any more, and notes how far it
// had come.
func (t *Tx) dropItems(ctx context.Context, at int64) (int64, error) {
	type item struct{ code, sent int64 }
	var gone []item
	err := t.Each(ctx, func(row Scanner) error {
		var i item
		err := row.Scan(&i.code, &i.sent)
		gone = append(gone, i)
		t.Wrote = true
		return err
	}, `DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE expires <= ?`+Limit(sweepStep)+`) RETURNING code_id, sent`,
		at)
	for _, i := range gone {
		_, failed := t.change(ctx, `UPDATE pickup_codes SET unheard = ? WHERE id = ?`, i.sent+1, i.code)
		err = errors.Join(err, failed)
	}
	return int64(len(gone)), err
}

// restoreItems is the reverse of dropItems.
func (t *Tx) restoreItems(ctx context.Context, at int64) (int64, error) {
	n, err := t.change(ctx, `INSERT INTO outbox (machine_id, kind, code_id, sent, at, expires)
		SELECT machine_id, CASE state WHEN 3 THEN 2 ELSE 1 END, id, unheard - 1, CAST(?1 AS BIGINT), expires FROM pickup_codes
		WHERE unheard > 0 AND expires > ?1 ORDER BY expires, id`+Limit(sweepStep), at)
	if err != nil || n == 0 {
		return 0, err
	}
	return t.change(ctx, `UPDATE pickup_codes SET unheard = 0 WHERE id IN
		(SELECT id FROM pickup_codes WHERE unheard > 0 AND expires > ? ORDER BY expires, id`+Limit(sweepStep)+`)`, at)
}
