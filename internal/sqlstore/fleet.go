package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const merchantColumns = `o.id, o.name, o.app_key, o.payload, o.signature, o.expiry_unit, o.created`

const selectMerchant = `SELECT ` + merchantColumns + ` FROM merchants o `

// merchantRow is where a row of merchantColumns goes.
type merchantRow struct {
	fleet.StoredMerchant
	created int64
}

func (r *merchantRow) columns() []any {
	return []any{
		&r.ID, &r.Name, &r.Sealed, (*string)(&r.Payload), (*string)(&r.Signature), (*string)(&r.Expiry), &r.created,
	}
}

func (r *merchantRow) merchant() fleet.StoredMerchant {
	r.Created = fromMillis(r.created)
	return r.StoredMerchant
}

func scanMerchant(row Scanner) (fleet.StoredMerchant, error) {
	var r merchantRow
	err := row.Scan(r.columns()...)
	return r.merchant(), err
}

const machineColumns = `m.id, m.merchant_id, m.machine_no, m.name, m.timezone, m.purchase_limit, m.pickup_codes,
	m.presence, m.last_seen, m.created`

const selectMachine = `SELECT ` + machineColumns + ` FROM machines m `

// machineRow is where a row of machineColumns goes.
type machineRow struct {
	fleet.Machine
	lastSeen, created int64
}

func (r *machineRow) columns() []any {
	return []any{
		&r.ID, &r.MerchantID, &r.No, &r.Name, &r.Zone, &r.PurchaseLimit, &r.PickupCodes,
		(*int)(&r.Presence), &r.lastSeen, &r.created,
	}
}

func (r *machineRow) machine() fleet.Machine {
	r.LastSeen, r.Created = fromMillis(r.lastSeen), fromMillis(r.created)
	return r.Machine
}

func scanMachine(row Scanner, more ...any) (fleet.Machine, error) {
	var r machineRow
	err := row.Scan(append(r.columns(), more...)...)
	return r.machine(), err
}

const selectProduct = `SELECT machine_id, id, name, slot, created FROM products `

func scanProduct(row Scanner) (p fleet.Product, err error) {
	var created int64
	err = row.Scan(&p.MachineID, &p.ID, &p.Name, &p.Slot, &created)
	p.Created = fromMillis(created)
	return p, err
}

// machineNo finds the machine that has that number.
func (s Conn) machineNo(ctx context.Context, no string) (fleet.Machine, error) {
	m, err := scanMachine(s.Row(ctx, selectMachine+`WHERE m.machine_no = ? AND m.deleted = 0`, no))
	return m, notFound(err, refusal.MachineNotFound)
}

// lockMachine is machineNo for who changes what it has: codes, products, entries
// of the outbox.
func (t *Tx) lockMachine(ctx context.Context, no string) (fleet.Machine, error) {
	m, err := scanMachine(t.Row(ctx, selectMachine+`WHERE m.machine_no = ? AND m.deleted = 0 FOR UPDATE`, no))
	return m, notFound(err, refusal.MachineNotFound)
}

// upTo is the end of a list that begins behind the id before.
func upTo(before int64) int64 {
	if before == 0 {
		return 1<<63 - 1
	}
	return before
}

// stored is a time as it comes back from the database.
func stored(t time.Time) time.Time { return fromMillis(Millis(t)) }

// CreateMerchant implements fleet.Store.
func (d *Store) CreateMerchant(ctx context.Context, n fleet.NewMerchant) (m fleet.StoredMerchant, err error) {
	m.Merchant, m.Created = n.Merchant, stored(n.Created)
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if err := t.fresh(n.Epoch); err != nil {
			return err
		}
		if err := t.replayed(ctx, n.Once); err != nil {
			return err
		}
		// The app key is sealed for the id, which is known once the row is there.
		if m.ID, err = t.insert(ctx, `INSERT INTO merchants (name, app_key, payload, signature, expiry_unit, created)
			VALUES (?, ?, ?, ?, ?, ?)`, m.Name, []byte{}, string(m.Payload), string(m.Signature), string(m.Expiry),
			Millis(m.Created)); err != nil {
			return fmt.Errorf("creating a merchant: %w", err)
		}
		m.Sealed = n.Seal(m.ID)
		if _, err := t.change(ctx, `UPDATE merchants SET app_key = ? WHERE id = ?`, m.Sealed, m.ID); err != nil {
			return fmt.Errorf("creating a merchant: %w", err)
		}
		t.Append(account.Entry{Kind: account.KindMerchantCreate, Detail: fleet.Detail(map[string]any{
			"merchant_id": m.ID, "name": m.Name, "payload": m.Payload, "signature": m.Signature, "expiry_unit": m.Expiry,
		})}, n.By, n.Created)
		return t.remember(ctx, n.Once, m.Merchant)
	})
	return m, err
}

// Merchant implements fleet.Store.
func (d *Store) Merchant(ctx context.Context, id int64) (m fleet.StoredMerchant, err error) {
	return d.oneMerchant(ctx, `WHERE o.id = ?`, id, refusal.MerchantNotFound)
}

// OwnerOf implements fleet.Store.
func (d *Store) OwnerOf(ctx context.Context, machine int64) (m fleet.StoredMerchant, err error) {
	return d.oneMerchant(ctx, `JOIN machines m ON m.merchant_id = o.id WHERE m.id = ? AND m.deleted = 0`, machine,
		refusal.MachineNotFound)
}

func (d *Store) oneMerchant(
	ctx context.Context, where string, id int64, otherwise refusal.Code,
) (m fleet.StoredMerchant, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		m, err = scanMerchant(s.Row(context.WithoutCancel(ctx), selectMerchant+where, id))
		return notFound(err, otherwise)
	})
	return m, err
}

// Merchants implements fleet.Store.
func (d *Store) Merchants(ctx context.Context, before int64, most int) (list []fleet.StoredMerchant, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			m, err := scanMerchant(row)
			list = append(list, m)
			return err
		}, selectMerchant+`WHERE o.id < ? ORDER BY o.id DESC`+Limit(most), upTo(before))
	})
	return list, err
}

// ChangeMerchant implements fleet.Store.
func (d *Store) ChangeMerchant(
	ctx context.Context, id int64, e fleet.Edit[fleet.StoredMerchant],
) (m fleet.StoredMerchant, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if e.Epoch != 0 {
			if err := t.fresh(e.Epoch); err != nil {
				return err
			}
		}
		old, err := scanMerchant(t.Row(ctx, selectMerchant+`WHERE o.id = ? FOR UPDATE`, id))
		if err != nil {
			return notFound(err, refusal.MerchantNotFound)
		}
		var detail string
		if m, detail, err = e.Apply(old); err != nil || detail == "" {
			return err
		}
		if _, err := t.change(ctx, `UPDATE merchants SET name = ?, app_key = ?, payload = ?, signature = ?, expiry_unit = ?
			WHERE id = ?`, m.Name, m.Sealed, string(m.Payload), string(m.Signature), string(m.Expiry), id); err != nil {
			return fmt.Errorf("changing a merchant: %w", err)
		}
		t.Append(account.Entry{Kind: cmp.Or(e.Kind, account.KindMerchantChange), Detail: detail}, e.By, e.At)
		return nil
	})
	return m, err
}

// CreateMachine implements fleet.Store.
func (d *Store) CreateMachine(ctx context.Context, n fleet.NewMachine) (m fleet.Machine, err error) {
	m = n.Machine
	m.Created, m.LastSeen = stored(n.Created), stored(n.LastSeen)
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if err := t.replayed(ctx, n.Once); err != nil {
			return err
		}
		if _, err := scanMerchant(t.Row(ctx, selectMerchant+`WHERE o.id = ?`, m.MerchantID)); err != nil {
			return notFound(err, refusal.MerchantNotFound)
		}
		id, err := t.insert(ctx, `INSERT INTO machines (merchant_id, machine_no, name, timezone, purchase_limit,
			pickup_codes, password_hash, presence, last_seen, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO NOTHING`,
			m.MerchantID, m.No, m.Name, m.Zone, m.PurchaseLimit, m.PickupCodes, n.Password[:], int64(m.Presence),
			Millis(m.LastSeen), Millis(m.Created))
		if errors.Is(err, sql.ErrNoRows) {
			return refusal.New(refusal.MachineNoTaken)
		}
		if err != nil {
			return fmt.Errorf("creating a machine: %w", err)
		}
		m.ID = id
		t.Append(account.Entry{
			Kind: account.KindMachineCreate, MachineID: m.ID, Detail: fleet.Detail(map[string]any{
				"machine_no": m.No, "merchant_id": m.MerchantID, "name": m.Name, "timezone": m.Zone,
				"purchase_limit": m.PurchaseLimit, "pickup_codes_enabled": m.PickupCodes,
			}),
		}, n.By, n.Created)
		return t.remember(ctx, n.Once, m)
	})
	return m, err
}

// Machine implements fleet.Store.
func (d *Store) Machine(ctx context.Context, no string) (m fleet.Machine, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		m, err = s.machineNo(context.WithoutCancel(ctx), no)
		return err
	})
	return m, err
}

// Machines implements fleet.Store.
func (d *Store) Machines(ctx context.Context, before int64, most int) (list []fleet.Machine, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			m, err := scanMachine(row)
			list = append(list, m)
			return err
		}, selectMachine+`INDEXED BY machines_there WHERE m.deleted = 0 AND m.id < ? ORDER BY m.id DESC`+Limit(most),
			upTo(before))
	})
	return list, err
}

// online is a condition that machine m is online, as fleet.Machine.Online says, of
// one parameter: when one was last heard of at most that is not any more.
const online = `(m.presence = 1 OR m.presence > 1 AND m.last_seen > ?)`

// silentSince is the argument of online.
func silentSince(now time.Time) int64 { return now.Add(-fleet.SilentFor).UnixMilli() }

// FindMachines implements fleet.Store.
func (d *Store) FindMachines(ctx context.Context, q fleet.MachineQuery) (list []fleet.Machine, err error) {
	where, args := `m.deleted = 0 AND m.id < ?`, []any{upTo(q.Before)}
	if q.Merchant != 0 {
		where, args = where+` AND m.merchant_id = ?`, append(args, q.Merchant)
	}
	if q.Online != nil {
		is := ` AND `
		if !*q.Online {
			is = ` AND NOT `
		}
		where, args = where+is+online, append(args, silentSince(q.At))
	}
	if q.Search != "" {
		where += ` AND (` + d.dialect.Contains(`m.name`) + ` OR substr(m.machine_no, 1, length(?)) = ?)`
		args = append(args, d.dialect.Pattern(q.Search), q.Search, q.Search)
	}
	err = d.engine.Read(ctx, func(s Conn) error {
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			m, err := scanMachine(row)
			list = append(list, m)
			return err
		}, selectMachine+`INDEXED BY machines_there WHERE `+where+` ORDER BY m.id DESC`+Limit(max(q.Limit, 0)), args...)
	})
	return list, err
}

// ChangeMachine implements fleet.Store.
func (d *Store) ChangeMachine(ctx context.Context, no string, e fleet.Edit[fleet.Machine]) (m fleet.Machine, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		old, err := t.lockMachine(ctx, no)
		if err != nil {
			return err
		}
		var detail string
		if m, detail, err = e.Apply(old); err != nil || detail == "" {
			return err
		}
		if _, err := t.change(ctx, `UPDATE machines SET name = ?, timezone = ?, purchase_limit = ?, pickup_codes = ?
			WHERE id = ?`, m.Name, m.Zone, m.PurchaseLimit, m.PickupCodes, old.ID); err != nil {
			return fmt.Errorf("changing a machine: %w", err)
		}
		t.Append(account.Entry{
			Kind: account.KindMachineChange, MachineID: old.ID, Detail: detail,
		}, e.By, e.At)
		return nil
	})
	return m, err
}

// SetPassword implements fleet.Store.
func (d *Store) SetPassword(
	ctx context.Context, no string, password account.Hash, by account.Actor, at time.Time, once *account.Once,
) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if err := t.replayed(ctx, once); err != nil {
			return err
		}
		m, err := t.lockMachine(ctx, no)
		if err != nil {
			return err
		}
		if _, err := t.change(ctx, `UPDATE machines SET password_hash = ? WHERE id = ?`, password[:], m.ID); err != nil {
			return fmt.Errorf("setting a machine's password: %w", err)
		}
		if err := t.disconnect(ctx, m.ID, at); err != nil {
			return err
		}
		t.Append(aboutMachine(account.KindMachinePassword, &m), by, at)
		return t.remember(ctx, once, nil)
	})
}

// aboutMachine is an entry that says which machine it is about.
func aboutMachine(kind account.Kind, m *fleet.Machine) account.Entry {
	return account.Entry{
		Kind: kind, MachineID: m.ID, Detail: fleet.Detail(map[string]any{"machine_no": m.No}),
	}
}

// DeleteMachine implements fleet.Store.
func (d *Store) DeleteMachine(ctx context.Context, no string, by account.Actor, at time.Time) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		m, err := t.lockMachine(ctx, no)
		if err != nil {
			return err
		}
		// From here on nobody is to tell it anything.
		if _, err := t.change(ctx, `UPDATE pickup_codes SET unheard = -1
			WHERE id IN (SELECT code_id FROM outbox WHERE machine_id = ?)`, m.ID); err != nil {
			return fmt.Errorf("deleting a machine: %w", err)
		}
		if _, err := t.change(ctx, `DELETE FROM outbox WHERE machine_id = ?`, m.ID); err != nil {
			return fmt.Errorf("deleting a machine: %w", err)
		}
		if err := t.withdrawAll(ctx, m.ID, 0, by, at); err != nil {
			return err
		}
		if _, err := t.change(ctx, `UPDATE machines SET deleted = 1, presence = 0 WHERE id = ?`, m.ID); err != nil {
			return fmt.Errorf("deleting a machine: %w", err)
		}
		if err := t.disconnect(ctx, m.ID, at); err != nil {
			return err
		}
		t.Append(aboutMachine(account.KindMachineDelete, &m), by, at)
		return nil
	})
}

// CreateProduct implements fleet.Store.
func (d *Store) CreateProduct(ctx context.Context, n fleet.NewProduct) (p fleet.Product, err error) {
	p = n.Product
	p.Created = stored(n.Created)
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if err := t.replayed(ctx, n.Once); err != nil {
			return err
		}
		m, err := t.lockMachine(ctx, n.MachineNo)
		if err != nil {
			return err
		}
		p.MachineID = m.ID
		if p.ID, err = t.productID(ctx, m.ID, n.ID); err != nil {
			return err
		}
		// One that was deleted may stand there.
		if _, err := t.change(ctx, `INSERT INTO products (machine_id, id, name, slot, created) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (machine_id, id) DO UPDATE SET name = excluded.name, slot = excluded.slot, created = excluded.created, deleted = 0`,
			p.MachineID, p.ID, p.Name, p.Slot, Millis(p.Created)); err != nil {
			return fmt.Errorf("creating a product: %w", err)
		}
		t.Append(aboutProduct(account.KindProductCreate, &p), n.By, n.Created)
		return t.remember(ctx, n.Once, p)
	})
	return p, err
}

// productID is the id that a new product of a machine gets: that one, or, for 0,
// the next after all that there ever were.
func (t *Tx) productID(ctx context.Context, machine, id int64) (int64, error) {
	if id != 0 {
		_, err := t.product(ctx, machine, id)
		if err == nil {
			return 0, refusal.New(refusal.ProductIDTaken)
		}
		if refusal.CodeOf(err) == refusal.ProductNotFound {
			err = nil
		}
		return id, err
	}
	if err := t.Row(ctx, `SELECT coalesce(max(id), 0) + 1 FROM products WHERE machine_id = ?`, machine).
		Scan(&id); err != nil {
		return 0, err
	}
	if id > fleet.ProductIDMax {
		return 0, refusal.New(refusal.ProductID)
	}
	return id, nil
}

// product finds a product of a machine.
func (t *Tx) product(ctx context.Context, machine, id int64) (fleet.Product, error) {
	p, err := scanProduct(t.Row(ctx, selectProduct+`WHERE machine_id = ? AND id = ? AND deleted = 0`, machine, id))
	return p, notFound(err, refusal.ProductNotFound)
}

// aboutProduct is an entry that says which product it is about.
func aboutProduct(kind account.Kind, p *fleet.Product) account.Entry {
	return account.Entry{Kind: kind, MachineID: p.MachineID, Detail: fleet.Detail(map[string]any{
		"product_id": p.ID, "name": p.Name, "slot": p.Slot,
	})}
}

// Products implements fleet.Store.
func (d *Store) Products(ctx context.Context, no string, before int64, most int) (list []fleet.Product, err error) {
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		m, err := s.machineNo(ctx, no)
		if err != nil {
			return err
		}
		return s.Each(ctx, func(row Scanner) error {
			p, err := scanProduct(row)
			list = append(list, p)
			return err
		}, selectProduct+`INDEXED BY products_there WHERE machine_id = ? AND deleted = 0 AND id < ?
			ORDER BY id DESC`+Limit(most), m.ID, upTo(before))
	})
	return list, err
}

// ChangeProduct implements fleet.Store.
func (d *Store) ChangeProduct(
	ctx context.Context, no string, id int64, e fleet.Edit[fleet.Product],
) (p fleet.Product, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		m, err := t.lockMachine(ctx, no)
		if err != nil {
			return err
		}
		old, err := t.product(ctx, m.ID, id)
		if err != nil {
			return err
		}
		var detail string
		if p, detail, err = e.Apply(old); err != nil || detail == "" {
			return err
		}
		if _, err := t.change(ctx, `UPDATE products SET name = ?, slot = ? WHERE machine_id = ? AND id = ?`,
			p.Name, p.Slot, m.ID, id); err != nil {
			return fmt.Errorf("changing a product: %w", err)
		}
		t.Append(account.Entry{
			Kind: account.KindProductChange, MachineID: m.ID, Detail: detail,
		}, e.By, e.At)
		return nil
	})
	return p, err
}

// DeleteProduct implements fleet.Store.
func (d *Store) DeleteProduct(ctx context.Context, no string, id int64, by account.Actor, at time.Time) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		m, err := t.lockMachine(ctx, no)
		if err != nil {
			return err
		}
		p, err := t.product(ctx, m.ID, id)
		if err != nil {
			return err
		}
		if err := t.withdrawAll(ctx, m.ID, id, by, at); err != nil {
			return err
		}
		if _, err := t.change(ctx, `UPDATE products SET deleted = 1 WHERE machine_id = ? AND id = ?`, m.ID, id); err != nil {
			return fmt.Errorf("deleting a product: %w", err)
		}
		t.Append(aboutProduct(account.KindProductDelete, &p), by, at)
		return nil
	})
}

// Login implements fleet.Store.
func (d *Store) Login(ctx context.Context, no string) (m fleet.Machine, hash account.Hash, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		var password []byte
		m, err = scanMachine(s.Row(context.WithoutCancel(ctx), `SELECT `+machineColumns+`, m.password_hash FROM machines m
			WHERE m.machine_no = ? AND m.deleted = 0`, no), &password)
		copy(hash[:], password)
		return notFound(err, refusal.MachineNotFound)
	})
	return m, hash, err
}

// See implements fleet.Store.
func (d *Store) See(ctx context.Context, sightings []fleet.Sighting) error {
	return d.engine.Grouped(ctx, len(sightings), func(ctx context.Context, t *Tx) error {
		for _, s := range slices.SortedFunc(slices.Values(sightings), byMachine) {
			stale, err := t.back(ctx, &s)
			if err != nil {
				return err
			}
			if stale {
				continue
			}
			if _, err := t.change(ctx, `UPDATE machines SET presence = ?, last_seen = coalesce(?, last_seen)
				WHERE id = ? AND deleted = 0`, int64(s.Presence), known(s.At), s.MachineID); err != nil {
				return fmt.Errorf("writing who is online: %w", err)
			}
		}
		return nil
	})
}

// back has a machine told everything again that has come back to a broker which
// is not ours. What it has said may be from before it left, as several servers
// hear it: unless it is sure to be back it counts as Missed, so that the next it
// says has it told everything once more.
func (t *Tx) back(ctx context.Context, s *fleet.Sighting) (stale bool, err error) {
	if s.Presence != fleet.Heard && s.Presence != fleet.Missed {
		return false, nil
	}
	var m fleet.Machine
	var lastSeen int64
	err = t.Row(ctx, `SELECT presence, last_seen FROM machines WHERE id = ? AND deleted = 0 FOR UPDATE`, s.MachineID).
		Scan((*int)(&m.Presence), &lastSeen)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("writing who is online: %w", err)
	}
	m.LastSeen = fromMillis(lastSeen)
	switch {
	case s.Back:
	case m.Presence == fleet.Offline && s.At.Before(m.LastSeen):
		return true, nil // another server has heard since that it left
	case m.Presence == fleet.Connected || !m.Online(s.At): // to the broker of a server that was killed, perhaps
		s.Presence = fleet.Missed
	case m.Presence == fleet.Heard:
		return false, nil
	}
	return false, t.returned(ctx, s.MachineID, s.At)
}

// byMachine is the order in which machines are changed that are changed together.
func byMachine(a, b fleet.Sighting) int { return cmp.Compare(a.MachineID, b.MachineID) }

// known is the number that stands for a time, or NULL for the zero time.
func known(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: Millis(t), Valid: !t.IsZero()}
}

// Begin implements fleet.Store.
func (d *Store) Begin(ctx context.Context) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if _, err := t.change(ctx, `UPDATE machines SET presence = ? WHERE presence = ?`,
			int64(fleet.Offline), int64(fleet.Connected)); err != nil {
			return fmt.Errorf("writing who is online: %w", err)
		}
		return nil
	})
}
