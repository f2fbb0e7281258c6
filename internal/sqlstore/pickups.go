package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// states of a pickup code in the database.
const (
	pickupUsed      = 2
	pickupWithdrawn = 3
	// 4 is live, and swept as past its time.
)

// pickupColumns: the last is how far the last message has come, as unheard says
// it, from the outbox if it still is there.
const pickupColumns = `c.id, c.machine_id, c.product_id, c.quantity, c.state, c.late, c.acknowledged, c.user_id,
	c.created, c.expires, c.used, c.withdrawn, c.code_index, c.sealed, m.machine_no,
	coalesce((SELECT sent + 1 FROM outbox WHERE code_id = c.id AND code_id > 0), c.unheard)`

const selectPickup = `SELECT ` + pickupColumns + ` FROM pickup_codes c JOIN machines m ON m.id = c.machine_id `

// pickupRow is where a row of pickupColumns goes.
type pickupRow struct {
	pickup.Stored
	state, late, acknowledged         int64
	unheard                           int64
	created, expires, used, withdrawn int64
}

func (r *pickupRow) columns() []any {
	return []any{
		&r.ID, &r.MachineID, &r.ProductID, &r.Quantity, &r.state, &r.late, &r.acknowledged, &r.CreatorID,
		&r.created, &r.expires, &r.used, &r.withdrawn, &r.Index, &r.Sealed, &r.MachineNo, &r.unheard,
	}
}

func (r *pickupRow) code() pickup.Stored {
	r.Marked, r.LateUse, r.Acknowledged = marked(r.state), r.late != 0, r.acknowledged != 0
	switch r.unheard {
	case 0:
		r.Delivery = pickup.Received
	case 2:
		r.Delivery = pickup.Sent
	default:
		r.Delivery = pickup.Queued
	}
	r.Created, r.Expires = fromMillis(r.created), fromMillis(r.expires)
	r.Used, r.Withdrawn = fromMillis(r.used), fromMillis(r.withdrawn)
	return r.Stored
}

// marked is what a state says.
func marked(state int64) pickup.State {
	switch state {
	case pickupUsed:
		return pickup.StateUsed
	case pickupWithdrawn:
		return pickup.StateWithdrawn
	}
	return pickup.StateLive
}

func scanPickup(row Scanner) (pickup.Stored, error) {
	var r pickupRow
	err := row.Scan(r.columns()...)
	return r.code(), err
}

// pickup finds a code.
func (s Conn) pickup(ctx context.Context, id int64) (pickup.Stored, error) {
	c, err := scanPickup(s.Row(ctx, selectPickup+`WHERE c.id = ?`, id))
	return c, notFound(err, refusal.PickupNotFound)
}

// lockPickup finds a code whose state, and what its machine is told, may be
// changed. Machines are locked before codes: that of a code never changes.
func (t *Tx) lockPickup(ctx context.Context, id int64) (c pickup.Stored, err error) {
	if _, err = t.Exec(ctx, `SELECT id FROM machines WHERE id = (SELECT machine_id FROM pickup_codes WHERE id = ?)
		FOR UPDATE`, id); err != nil {
		return c, err
	}
	c, err = scanPickup(t.Row(ctx, selectPickup+`WHERE c.id = ? FOR UPDATE OF c`, id))
	return c, notFound(err, refusal.PickupNotFound)
}

// CreatePickup implements pickup.Store.
func (d *Store) CreatePickup(ctx context.Context, o pickup.Order) (c pickup.Stored, err error) {
	err = d.engine.Grouped(ctx, 1, func(ctx context.Context, t *Tx) error {
		c, err = t.createPickup(ctx, &o)
		return err
	})
	if err != nil {
		return pickup.Stored{}, err
	}
	return c, nil
}

func (t *Tx) createPickup(ctx context.Context, o *pickup.Order) (c pickup.Stored, err error) {
	if err := t.fresh(o.Epoch); err != nil {
		return c, err
	}
	if err := t.replayed(ctx, o.Once); err != nil {
		return c, err
	}
	facts, err := t.facts(ctx, o)
	if err != nil {
		return c, err
	}
	if err := facts.Refuse(o.Quantity, o.AllowMore); err != nil {
		return c, err
	}
	digits, err := t.freeDigits(ctx, o)
	if err != nil {
		return c, err
	}
	c = pickup.Stored{Index: digits.Indexes[0], Sealed: digits.Sealed, Code: pickup.Code{
		MachineID: facts.Machine.ID, MachineNo: facts.Machine.No, ProductID: o.ProductID, Digits: digits.Digits,
		Quantity: o.Quantity, Marked: pickup.StateLive, Delivery: pickup.Queued, CreatorID: o.By.ID,
		Created: stored(o.At), Expires: stored(o.Expires),
	}}
	if c.ID, err = t.insert(ctx, `INSERT INTO pickup_codes
		(machine_id, product_id, quantity, user_id, created, expires, code_index, sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		c.MachineID, c.ProductID, c.Quantity, c.CreatorID, Millis(c.Created), Millis(c.Expires), c.Index, c.Sealed); err != nil {
		return c, fmt.Errorf("creating a pickup code: %w", err)
	}
	if err := t.enqueue(ctx, &c.Code, delivery.KindCreate, o.At); err != nil {
		return c, err
	}
	t.Append(aboutPickup(account.KindPickupCreate, &c.Code, map[string]any{
		"product_id": c.ProductID, "product": facts.Product.Name, "quantity": c.Quantity, "expires_at": Millis(c.Expires),
	}), o.By, o.At)
	return c, t.remember(ctx, o.Once, c.Code)
}

// aboutPickup is an entry about a pickup code.
func aboutPickup(kind account.Kind, c *pickup.Code, detail map[string]any) account.Entry {
	e := account.Entry{Kind: kind, MachineID: c.MachineID, FirstID: c.ID, LastID: c.ID, Count: 1}
	if detail != nil {
		e.Detail = fleet.Detail(detail)
	}
	return e
}

// facts finds what decides about an order.
func (t *Tx) facts(ctx context.Context, o *pickup.Order) (f pickup.Facts, err error) {
	if f.Machine, err = t.lockMachine(ctx, o.MachineNo); err != nil {
		return f, err
	}
	if f.Product, err = t.product(ctx, f.Machine.ID, o.ProductID); err != nil {
		if refusal.CodeOf(err) == refusal.ProductNotFound {
			err = nil // which decides
		}
		return f, err
	}
	at := o.At.UnixMilli()
	if err := t.Row(ctx, countLive(o.ProductID, 1), f.Machine.ID, at, o.ProductID).Scan(&f.OfProduct); err != nil {
		return f, err
	}
	err = t.Row(ctx, countLive(0, pickup.LiveMax), f.Machine.ID, at).Scan(&f.Live)
	return f, err
}

// liveCodes selects columns of the codes of machine ?1 that are live at ?2: of
// product ?3 or, if that is 0, of all. Those that were swept before the clock was
// set back are few, if there are any.
func liveCodes(columns string, product int64) string {
	which := `c.machine_id = ?1 AND c.expires > ?2`
	if product != 0 {
		which += ` AND c.product_id = ?3`
	}
	return live(columns, which)
}

// live selects columns of codes that are not over, of which a machine and what
// expires mean must say the rest.
func live(columns, which string) string {
	return `SELECT ` + columns + ` FROM pickup_codes c INDEXED BY pickup_codes_live WHERE c.state = 1 AND ` + which + `
		UNION ALL SELECT ` + columns + ` FROM pickup_codes c INDEXED BY pickup_codes_swept WHERE c.state = 4 AND ` + which
}

// countLive counts them, to most at most.
func countLive(product, most int64) string {
	return `SELECT count(*) FROM (` + liveCodes(`1`, product) + Limit(most) + `) AS live`
}

// Limit ends a query after n rows. The number is written out, since SQLite
// plans a statement again whenever a parameter of its LIMIT is bound, which
// costs more than a look-up.
func Limit[N int | int64](n N) string { return ` LIMIT ` + strconv.FormatInt(int64(n), 10) }

// freeDigits chooses those of an order that no other code of the machine has.
func (t *Tx) freeDigits(ctx context.Context, o *pickup.Order) (pickup.NewDigits, error) {
	free := o.At.Add(-pickup.ReuseAfter).UnixMilli() // codes that expired by then are done with
	for _, n := range o.Digits {
		taken := false
		for _, index := range n.Indexes {
			var id int64
			err := t.Row(ctx, `SELECT id FROM pickup_codes WHERE code_index = ? AND expires > ? LIMIT 1`, index, free).Scan(&id)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return n, err
			}
			taken = taken || err == nil
		}
		if !taken {
			return n, nil
		}
	}
	return pickup.NewDigits{}, pickup.ErrTaken
}

// Pickup implements pickup.Store.
func (d *Store) Pickup(ctx context.Context, id int64) (c pickup.Stored, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		c, err = s.pickup(context.WithoutCancel(ctx), id)
		return err
	})
	return c, err
}

// Pickups implements pickup.Store.
func (d *Store) Pickups(ctx context.Context, q pickup.Query) (list []pickup.Stored, err error) {
	const ofMachine = `m.id = ?1 AND c.machine_id = ?1 AND c.id < ?2`
	which := `INDEXED BY pickup_codes_machine WHERE ` + ofMachine
	args := []any{int64(0), upTo(q.Before)}
	switch {
	case q.LateUse:
		which = `INDEXED BY pickup_codes_late WHERE c.late = 1 AND ` + ofMachine
	case q.Live:
		which = `WHERE m.id = ?1 AND c.id IN (SELECT id FROM (` +
			live(`c.id`, `c.machine_id = ?1 AND c.expires > ?3 AND c.id < ?2`) + `) AS live ORDER BY id DESC` + Limit(q.Limit) + `)`
		args = append(args, q.At.UnixMilli())
	case !q.Ended.IsZero():
		which += ` AND c.id >= coalesce((SELECT id FROM pickup_codes WHERE machine_id = ?1 ORDER BY id DESC` +
			Limit(1) + ` OFFSET ` + strconv.Itoa(pickup.EndedAmong-1) + `), 0)
			AND (c.used >= ?3 OR c.withdrawn >= ?3 OR c.state IN (1, 4) AND c.expires >= ?3 AND c.expires <= ?4)`
		args = append(args, q.Ended.UnixMilli(), q.At.UnixMilli())
	}
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		m, err := s.machineNo(ctx, q.MachineNo)
		if err != nil {
			return err
		}
		args[0] = m.ID
		list, err = s.pickups(ctx, `FROM machines m, pickup_codes c `+which+` ORDER BY c.id DESC`+Limit(q.Limit), args...)
		return err
	})
	return list, err
}

// pickups lists codes c of machines m.
func (s Conn) pickups(ctx context.Context, from string, args ...any) (list []pickup.Stored, err error) {
	err = s.Each(ctx, func(row Scanner) error {
		c, err := scanPickup(row)
		list = append(list, c)
		return err
	}, `SELECT `+pickupColumns+` `+from, args...)
	return list, err
}

// WaitingOf implements pickup.Store.
func (d *Store) WaitingOf(ctx context.Context, machines []int64, at time.Time) (found map[int64]pickup.Waiting, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		found, err = d.waitingOf(context.WithoutCancel(ctx), s, machines, at)
		return err
	})
	return found, err
}

func (d *Store) waitingOf(
	ctx context.Context, s Conn, machines []int64, at time.Time,
) (map[int64]pickup.Waiting, error) {
	found := make(map[int64]pickup.Waiting, len(machines))
	if len(machines) == 0 {
		return found, nil
	}
	// As about says: in the order of ids alone those of all machines may be walked.
	waits := func(what string) string {
		return `(SELECT ` + what + ` FROM (SELECT sent, at FROM outbox INDEXED BY outbox_machine WHERE machine_id BETWEEN m.id AND m.id
			AND code_id > 0 AND expires > ?2 ORDER BY machine_id, id` + Limit(pickup.WaitingMax) + `) AS waiting)`
	}
	in, arg := d.dialect.In(machines)
	err := s.Each(ctx, func(row Scanner) error {
		var id, oldest int64
		var w pickup.Waiting
		var waiting int
		err := row.Scan(&id, &w.Live, &waiting, &w.Sent, &oldest)
		w.Queued, w.Oldest = waiting-w.Sent, fromMillis(oldest)
		if w != (pickup.Waiting{}) {
			found[id] = w
		}
		return err
	}, `SELECT m.id, (SELECT count(*) FROM (`+live(`1`, `c.machine_id = m.id AND c.expires > ?2`)+Limit(pickup.LiveMax)+`) AS live), `+
		waits(`count(*)`)+`, `+waits(`count(CASE sent WHEN 1 THEN 1 END)`)+`, `+waits(`coalesce(min(at), 0)`)+`
		FROM machines m WHERE m.deleted = 0 AND m.id `+in, arg, at.UnixMilli())
	return found, err
}

// SilentMachines implements pickup.Store. It goes from one machine to the next for
// which something waits, however much that is.
func (d *Store) SilentMachines(ctx context.Context, limit int, at time.Time) (list []pickup.Silent, err error) {
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		var ids []int64
		if err := s.Each(ctx, func(row Scanner) error {
			var oldest sql.NullInt64
			m, err := scanMachine(row, &oldest)
			if !oldest.Valid { // what waits is no code
				return cmp.Or(err, ErrEnough)
			}
			list, ids = append(list, pickup.Silent{Machine: m}), append(ids, m.ID)
			return err
		}, `WITH RECURSIVE waiting (machine_id, n) AS (
				SELECT CAST(0 AS BIGINT), CAST(0 AS BIGINT)
				UNION ALL SELECT (SELECT min(o.machine_id) FROM outbox o WHERE o.machine_id > w.machine_id), w.n + 1
					FROM waiting w WHERE w.machine_id IS NOT NULL AND w.n < `+strconv.Itoa(pickup.SilentAmong)+`)
			SELECT `+machineColumns+`, (SELECT o.at FROM outbox o WHERE o.machine_id BETWEEN m.id AND m.id AND o.code_id > 0
				AND o.expires > ?2 ORDER BY o.machine_id, o.id LIMIT 1) AS oldest
			FROM waiting w JOIN machines m ON m.id = w.machine_id WHERE m.deleted = 0
				AND NOT (m.presence = 1 OR m.presence > 1 AND m.last_seen > ?1)
			ORDER BY oldest NULLS LAST, m.id`+Limit(max(limit, 0)), silentSince(at), at.UnixMilli()); err != nil {
			return err
		}
		found, err := d.waitingOf(ctx, s, ids, at)
		for i := range list {
			list[i].Waiting = found[list[i].ID]
		}
		return err
	})
	// Of one that was told again the oldest need not be the first.
	slices.SortStableFunc(list, func(a, b pickup.Silent) int { return a.Oldest.Compare(b.Oldest) })
	return list, err
}

// LateUses implements pickup.Store.
func (d *Store) LateUses(ctx context.Context, before int64, limit int) (list []pickup.Stored, count int, err error) {
	const late = `FROM pickup_codes c INDEXED BY pickup_codes_look `
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		if err := s.Row(ctx, `SELECT count(*) FROM (SELECT 1 `+late+`WHERE c.late = 1 AND c.acknowledged = 0 AND c.id > 0`+
			Limit(pickup.LateMax)+`) AS late`).Scan(&count); err != nil || limit <= 0 {
			return err
		}
		list, err = s.pickups(ctx, late+`JOIN machines m ON m.id = c.machine_id
			WHERE c.late = 1 AND c.acknowledged = 0 AND c.id < ? ORDER BY c.id DESC`+Limit(limit), upTo(before))
		return err
	})
	return list, count, err
}

// AcknowledgeLate implements pickup.Store.
func (d *Store) AcknowledgeLate(ctx context.Context, id int64, by account.Actor, at time.Time) error {
	return d.engine.Grouped(ctx, 1, func(ctx context.Context, t *Tx) error {
		c, err := t.lockPickup(ctx, id)
		if err != nil || !c.LateUse || c.Acknowledged {
			return err
		}
		return t.acknowledgeLate(ctx, &c.Code, by, at)
	})
}

func (t *Tx) acknowledgeLate(ctx context.Context, c *pickup.Code, by account.Actor, at time.Time) error {
	if _, err := t.change(ctx, `UPDATE pickup_codes SET acknowledged = 1 WHERE id = ?`, c.ID); err != nil {
		return fmt.Errorf("acknowledging a late use: %w", err)
	}
	t.Append(aboutPickup(account.KindPickupAcknowledge, c, nil), by, at)
	return nil
}

// acknowledgeStep bounds the late uses that are acknowledged in one transaction.
const acknowledgeStep = 100

// AcknowledgeLateOf implements pickup.Store.
func (d *Store) AcknowledgeLateOf(ctx context.Context, machineNo string, by account.Actor, at time.Time) (n int, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		m, err := t.lockMachine(ctx, machineNo)
		if err != nil {
			return err
		}
		var codes []pickup.Code
		if err := t.Each(ctx, func(row Scanner) error {
			c := pickup.Code{MachineID: m.ID}
			err := row.Scan(&c.ID)
			codes = append(codes, c)
			return err
		}, `SELECT id FROM pickup_codes c INDEXED BY pickup_codes_late WHERE late = 1 AND machine_id = ? AND acknowledged = 0
			ORDER BY id`+Limit(acknowledgeStep), m.ID); err != nil {
			return err
		}
		for i := range codes {
			if err := t.acknowledgeLate(ctx, &codes[i], by, at); err != nil {
				return err
			}
		}
		n = len(codes)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Withdraw implements pickup.Store.
func (d *Store) Withdraw(ctx context.Context, id int64, by account.Actor, at time.Time) error {
	return d.engine.Grouped(ctx, 1, func(ctx context.Context, t *Tx) error {
		found, err := t.lockPickup(ctx, id)
		if err != nil {
			return err
		}
		c, changes, err := found.Withdraw(at)
		if err != nil || !changes {
			return err
		}
		return t.withdraw(ctx, &c, by, at)
	})
}

// withdraw writes that a code is withdrawn, and that its machine is to be told.
func (t *Tx) withdraw(ctx context.Context, c *pickup.Code, by account.Actor, at time.Time) error {
	if err := t.dequeue(ctx, c); err != nil {
		return err
	}
	if err := t.enqueue(ctx, c, delivery.KindDelete, at); err != nil {
		return err
	}
	return t.markWithdrawn(ctx, c, 0, by, at)
}

func (t *Tx) markWithdrawn(ctx context.Context, c *pickup.Code, unheard int, by account.Actor, at time.Time) error {
	if _, err := t.change(ctx, `UPDATE pickup_codes SET state = 3, withdrawn = ?, unheard = ? WHERE id = ?`,
		at.UnixMilli(), unheard, c.ID); err != nil {
		return fmt.Errorf("withdrawing a pickup code: %w", err)
	}
	t.Append(aboutPickup(account.KindPickupWithdraw, c, nil), by, at)
	return nil
}

// withdrawAll withdraws the live codes of a product or, if that is 0, of a
// machine that is being deleted, and is told nothing any more.
func (t *Tx) withdrawAll(ctx context.Context, machine, product int64, by account.Actor, at time.Time) error {
	var codes []pickup.Code
	args := []any{machine, at.UnixMilli(), product}
	if product == 0 {
		args = args[:2]
	}
	if err := t.Each(ctx, func(row Scanner) error {
		c := pickup.Code{MachineID: machine}
		var expires int64
		err := row.Scan(&c.ID, &expires)
		c.Expires = fromMillis(expires)
		codes = append(codes, c)
		return err
	}, liveCodes(`c.id, c.expires`, product)+` ORDER BY 1`, args...); err != nil {
		return err
	}
	for i := range codes {
		var err error
		if product == 0 {
			err = t.markWithdrawn(ctx, &codes[i], -1, by, at)
		} else {
			err = t.withdraw(ctx, &codes[i], by, at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Use implements pickup.Store.
func (d *Store) Use(ctx context.Context, r pickup.Report) (c pickup.Code, err error) {
	err = d.engine.Grouped(ctx, 1, func(ctx context.Context, t *Tx) error {
		c, err = t.usePickup(ctx, &r)
		return err
	})
	if err != nil {
		return pickup.Code{}, err
	}
	return c, nil
}

// succeeds refuses with PickupNotFound unless a machine has the number of one
// that was deleted: it may be the same iron, with the codes of the other.
func (t *Tx) succeeds(ctx context.Context, machine, deleted int64) error {
	var found bool
	err := t.Row(ctx, `SELECT EXISTS (SELECT 1 FROM machines m JOIN machines d ON d.machine_no = m.machine_no
		WHERE m.id = ? AND d.id = ? AND d.deleted = 1)`, machine, deleted).Scan(&found)
	if err == nil && !found {
		err = refusal.New(refusal.PickupNotFound)
	}
	return err
}

func (t *Tx) usePickup(ctx context.Context, r *pickup.Report) (pickup.Code, error) {
	found, err := t.lockPickup(ctx, r.CodeID)
	if err == nil && found.MachineID != r.MachineID {
		err = t.succeeds(ctx, r.MachineID, found.MachineID)
	}
	if err != nil {
		return pickup.Code{}, err
	}
	c, kind := found.Use(r.At)
	if kind == "" {
		return c, nil
	}
	c.Used, c.Delivery = stored(c.Used), pickup.Received
	if err := t.dequeue(ctx, &c); err != nil {
		return c, err
	}
	if _, err := t.change(ctx, `UPDATE pickup_codes SET state = 2, used = ?, late = ?, unheard = 0 WHERE id = ?`,
		Millis(c.Used), flag(c.LateUse), c.ID); err != nil {
		return c, fmt.Errorf("using a pickup code: %w", err)
	}
	detail := map[string]any{"quantity": c.Quantity, "product_id": c.ProductID}
	if !r.Claimed.IsZero() {
		detail["reported_at"] = r.Claimed.Unix()
	}
	t.Append(aboutPickup(kind, &c, detail), r.By, r.At)
	return c, nil
}

// Message implements pickup.Store.
func (d *Store) Message(ctx context.Context, id int64) (m pickup.Material, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		var state, expires int64
		code, machine, merchant := &m.Stored, &m.Machine, &m.Merchant
		err := s.Row(context.WithoutCancel(ctx), `SELECT c.id, c.product_id, c.quantity, c.state, c.expires, c.code_index,
			c.sealed, m.id, m.machine_no, m.timezone, o.id, o.app_key, o.payload, o.signature, o.expiry_unit
			FROM pickup_codes c JOIN machines m ON m.id = c.machine_id JOIN merchants o ON o.id = m.merchant_id
			WHERE c.id = ? AND m.deleted = 0`, id).Scan(
			&code.ID, &code.ProductID, &code.Quantity, &state, &expires, &code.Index,
			&code.Sealed, &machine.ID, &machine.No, &machine.Zone, &merchant.ID, &merchant.Sealed,
			(*string)(&merchant.Payload), (*string)(&merchant.Signature), (*string)(&merchant.Expiry))
		code.Marked, code.Expires = marked(state), fromMillis(expires)
		return notFound(err, refusal.PickupNotFound)
	})
	return m, err
}
