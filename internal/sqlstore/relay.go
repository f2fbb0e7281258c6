package sqlstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// The column pending of an entry is its round while it is to be sent through a
// broker that is not ours, and the negative of that once it was.

// found is what waits, and the lease on it.
type found struct {
	items  []delivery.Item
	leases map[int64]time.Time // on the machines of items; zero: not for long enough
	last   int64
}

// Claim implements delivery.Store.
func (d *Store) Claim(ctx context.Context, c delivery.Claim) (delivery.Claimed, error) {
	var f found
	if c.Most > 0 {
		var err error
		if f, err = d.pending(ctx, &c); err != nil {
			return delivery.Claimed{}, fmt.Errorf("looking for what waits: %w", err)
		}
	}
	got := delivery.Claimed{Items: f.items, Leases: f.leases, Last: f.last}
	wanted := slices.Clone(c.Held)
	for machine, until := range f.leases {
		if until.IsZero() {
			wanted = append(wanted, machine)
		}
	}
	if len(wanted) == 0 && c.Tidy.IsZero() {
		return got, nil
	}
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	err := d.engine.Grouped(ctx, len(wanted), func(ctx context.Context, t *Tx) (err error) {
		if got, err = t.claim(ctx, &c, &f, wanted); err != nil {
			return fmt.Errorf("leasing machines: %w", err)
		}
		return nil
	})
	if err != nil {
		return delivery.Claimed{}, err
	}
	return got, nil
}

// pending finds what waits, as far as nobody else has leased it.
func (d *Store) pending(ctx context.Context, c *delivery.Claim) (f found, err error) {
	f.leases = map[int64]time.Time{}
	// A lease that has half of its time left needs no write.
	enough := c.Now.Add(c.Until.Sub(c.Now) / 2)
	err = d.engine.Read(ctx, func(s Conn) error {
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			var i delivery.Item
			var until int64
			err := row.Scan(&i.ID, &i.MachineID, (*int)(&i.Kind), &i.CodeID, &i.Round, &until)
			f.items, f.last = append(f.items, i), i.ID
			f.leases[i.MachineID] = time.Time{}
			if t := fromMillis(until); !t.Before(enough) {
				f.leases[i.MachineID] = t
			}
			return err
		}, `SELECT o.id, o.machine_id, o.kind, o.code_id, o.pending,
			CASE WHEN l.holder = ?1 THEN l.until ELSE 0 END
			FROM outbox o INDEXED BY outbox_pending LEFT JOIN leases l ON l.machine_id = o.machine_id
			WHERE o.pending > 0 AND o.id > ?2 AND (l.machine_id IS NULL OR l.holder = ?1 OR l.until <= ?3)
			ORDER BY o.id`+Limit(c.Most), c.Holder, c.After, Millis(c.Began))
	})
	if len(f.items) < c.Most {
		f.last = 0
	}
	return f, err
}

// claim leases machines and looks again at what was found: some of it may have
// been sent by who had the lease before.
func (t *Tx) claim(ctx context.Context, c *delivery.Claim, f *found, wanted []int64) (got delivery.Claimed, err error) {
	got = delivery.Claimed{Leases: maps.Clone(f.leases), Last: f.last}
	maps.DeleteFunc(got.Leases, func(_ int64, until time.Time) bool { return until.IsZero() })
	if !c.Tidy.IsZero() {
		if _, err := t.change(ctx, `DELETE FROM leases WHERE until < ?1 AND machine_id IN
			(SELECT machine_id FROM leases WHERE until < ?1`+Limit(sweepStep)+`)`, Millis(c.Tidy)); err != nil {
			return got, err
		}
	}
	if len(wanted) > 0 {
		if got.Leases == nil {
			got.Leases = map[int64]time.Time{}
		}
		t.Wrote = true
		in, arg := t.dialect.In(wanted)
		if err := t.Each(ctx, func(row Scanner) error {
			var machine int64
			err := row.Scan(&machine)
			got.Leases[machine] = stored(c.Until)
			return err
		}, `INSERT INTO leases (machine_id, holder, until)
			SELECT id, CAST(?2 AS TEXT), CAST(?3 AS BIGINT) FROM machines WHERE id `+in+` ORDER BY id
			ON CONFLICT (machine_id) DO UPDATE SET holder = excluded.holder, until = excluded.until
				WHERE leases.holder = excluded.holder OR leases.until <= ?4
			RETURNING machine_id`, arg, c.Holder, Millis(c.Until), Millis(c.Began)); err != nil {
			return got, err
		}
	}
	if len(f.items) == 0 {
		return got, nil
	}
	ids := make([]int64, len(f.items))
	for i := range f.items {
		ids[i] = f.items[i].ID
	}
	in, arg := t.dialect.In(ids)
	err = t.Each(ctx, func(row Scanner) error {
		var i delivery.Item
		err := row.Scan(&i.ID, &i.MachineID, (*int)(&i.Kind), &i.CodeID, &i.Round)
		if _, ours := got.Leases[i.MachineID]; ours {
			got.Items = append(got.Items, i)
		}
		return err
	}, `SELECT id, machine_id, kind, code_id, pending FROM outbox WHERE pending > 0 AND id `+in+` ORDER BY id`, arg)
	return got, err
}

// relayed writes that another broker has entries. What was to be sent once more
// since they were claimed still is.
func (t *Tx) relayed(ctx context.Context, progress []delivery.Progress) error {
	rounds := map[int64][]int64{} // hardly ever more than two
	for _, p := range progress {
		if p.Stage == delivery.Relayed {
			rounds[p.Round] = append(rounds[p.Round], p.ID)
		}
	}
	for _, round := range slices.Sorted(maps.Keys(rounds)) {
		in, arg := t.dialect.In(rounds[round])
		if _, err := t.change(ctx, `UPDATE outbox SET sent = 1, pending = CASE WHEN pending = ?2 THEN -pending ELSE pending END
			WHERE id `+in, arg, round); err != nil {
			return fmt.Errorf("writing how far messages have come: %w", err)
		}
	}
	return nil
}

// Speaker implements fleet.Store.
func (d *Store) Speaker(ctx context.Context, no string) (machine int64, m fleet.StoredMerchant, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		var r merchantRow
		err := s.Row(context.WithoutCancel(ctx), `SELECT m.id, `+merchantColumns+` FROM machines m
			JOIN merchants o ON o.id = m.merchant_id WHERE m.machine_no = ? AND m.deleted = 0`, no).
			Scan(append([]any{&machine}, r.columns()...)...)
		m = r.merchant()
		return notFound(err, refusal.MachineNotFound)
	})
	return machine, m, err
}

// Miss implements fleet.Store.
func (d *Store) Miss(ctx context.Context) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if _, err := t.change(ctx, `UPDATE machines SET presence = ?1 WHERE presence = ?2 OR presence = ?3`,
			int(fleet.Missed), int(fleet.Heard), int(fleet.Connected)); err != nil {
			return fmt.Errorf("writing who is online: %w", err)
		}
		return nil
	})
}

// returned has all sent again that a machine should hold: it may have missed, or
// lost, what it was told. It is called with the machine locked.
func (t *Tx) returned(ctx context.Context, machine int64, at time.Time) error {
	now := at.UnixMilli()
	if _, err := t.change(ctx, `UPDATE outbox SET at = CASE WHEN pending > 0 THEN at ELSE ?2 END, pending = abs(pending) + 1
		WHERE machine_id = ?1 AND code_id > 0 AND expires > ?2`, machine, now); err != nil {
		return fmt.Errorf("telling a machine everything again: %w", err)
	}
	if _, err := t.change(ctx, `INSERT INTO outbox (machine_id, kind, code_id, sent, at, expires)
		SELECT machine_id, 1, id, 1, CAST(?1 AS BIGINT), expires FROM pickup_codes c INDEXED BY pickup_codes_live
		WHERE state = 1 AND machine_id = ?2 AND expires > ?1
			AND NOT EXISTS (SELECT 1 FROM outbox WHERE code_id = c.id AND code_id > 0)
		ORDER BY id`, now, machine); err != nil {
		return fmt.Errorf("telling a machine everything again: %w", err)
	}
	return nil
}
