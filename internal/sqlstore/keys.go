package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
)

const (
	// rotateStep is how many rows are sealed anew in one transaction.
	rotateStep = 256
	// beginTries bounds how often a rotation tries to begin, between those of
	// others.
	beginTries = 10
)

// storedKeys reads the wrapped keys.
func (d *Store) storedKeys(ctx context.Context) (keys keyring.Stored, err error) {
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		keys, err = readKeys(context.WithoutCancel(ctx), spoken{s.Driver, d.dialect})
		return err
	})
	return keys, err
}

// spoken is a Database of a connection of the store.
type spoken struct {
	Driver
	Dialect
}

// SelectEpoch reads the epoch of the data keys.
const SelectEpoch = `SELECT value FROM settings WHERE name = 'key_epoch'`

// sameKeys fails with keyring.ErrStale if the keys have another epoch by now.
func (s Conn) sameKeys(ctx context.Context, epoch int64) error {
	var now int64
	err := s.Row(ctx, SelectEpoch).Scan(&now)
	if err == nil && now != epoch {
		err = keyring.ErrStale
	}
	return err
}

func readKeys(ctx context.Context, s Database) (keys keyring.Stored, err error) {
	if err := s.Row(ctx, SelectEpoch).Scan(&keys.Epoch); err != nil {
		return keys, err
	}
	if err := s.Row(ctx, s.Salt()).Scan(&keys.Salt); err != nil {
		return keys, err
	}
	err = s.Each(ctx, func(row Scanner) error {
		var r keyring.Row
		err := row.Scan(&r.Generation, &r.Wrapped)
		keys.Rows = append(keys.Rows, r)
		return err
	}, `SELECT generation, wrapped FROM data_keys`)
	return keys, err
}

// PutKeys writes the first keys, but for the salt.
func (t *Tx) PutKeys(ctx context.Context, keys keyring.Stored) error {
	for _, row := range keys.Rows {
		if err := t.putKey(ctx, row); err != nil {
			return err
		}
	}
	_, err := t.change(ctx, `INSERT INTO settings (name, value) VALUES ('key_epoch', ?)`, keys.Epoch)
	return err
}

func (t *Tx) putKey(ctx context.Context, row keyring.Row) error {
	_, err := t.change(ctx, `INSERT INTO data_keys (generation, wrapped) VALUES (?, ?)
		ON CONFLICT (generation) DO UPDATE SET wrapped = excluded.wrapped`, row.Generation, row.Wrapped)
	return err
}

// resealed is a table with rows to be sealed anew. A rotation keeps its place in
// each in a setting, which is there only while it is under way: the id below
// which rows are still to be sealed anew.
type resealed struct {
	place, table string
	// next selects id, what its seal is bound to, and sealed bytes.
	next   string
	reseal func(ctx context.Context, t *Tx, ring *keyring.Ring, r sealed) error
}

// allResealed is all such tables.
func allResealed() []resealed {
	return []resealed{
		{
			"rotate_codes", "redemptions",
			`SELECT id, key_index, sealed FROM redemptions`, resealCode,
		},
		{
			"rotate_pickups", "pickup_codes",
			`SELECT id, code_index, sealed FROM pickup_codes`, resealPickup,
		},
		{
			"rotate_merchants", "merchants",
			`SELECT id, app_key, app_key FROM merchants`, resealMerchant,
		},
		{
			"rotate_answers", "answers",
			`SELECT id, scope, answer FROM answers`, resealAnswer,
		},
	}
}

// Rotate gives the database a new generation of data keys, seals and indexes
// everything under it in small steps beside whoever is serving, drops the old
// one, and locks all keys with the first secret. One that was cut off goes on where it was. Progress, if not nil, is
// called after each step with the number of rows passed and to pass.
func (d *Store) Rotate(ctx context.Context, progress func(done, total int64)) error {
	err := d.beginRotation(ctx)
	for try := 0; errors.Is(err, keyring.ErrStale) && try < beginTries; try++ { // another has just ended one
		err = d.beginRotation(ctx)
	}
	if err != nil {
		return err
	}
	ring, err := d.keys.Reload(ctx)
	if err != nil {
		return err
	}
	var total int64
	for left := int64(1); left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if left, err = d.rotateStep(ctx, ring); err != nil {
			return fmt.Errorf("sealing anew: %w", err)
		}
		total = max(total, left)
		if progress != nil {
			progress(total-left, total)
		}
	}
	if err := d.rewrap(ctx); err != nil {
		return err
	}
	_, err = d.keys.Reload(ctx)
	return err
}

// rewrap sees to it that the first secret alone opens every key: one that was
// wrapped by an earlier rotation, by the one that this took up where it had
// been cut off, or by another process beside it, may need an older secret.
func (d *Store) rewrap(ctx context.Context) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if err := t.dialect.Alone(ctx, t); err != nil {
			return err
		}
		stored, err := readKeys(ctx, spoken{t.Driver, t.dialect})
		if err != nil {
			return err
		}
		rows, err := d.keys.Rewrap(stored)
		if err != nil || rows == nil {
			return err
		}
		for _, row := range rows {
			if err := t.putKey(ctx, row); err != nil {
				return err
			}
		}
		t.Append(account.Entry{Kind: account.KindRotate, Detail: `{"step":"secret"}`}, account.Operator(), d.now())
		return nil
	})
}

// beginRotation adds the new generation, unless a rotation is under way.
func (d *Store) beginRotation(ctx context.Context) error {
	stored, err := d.storedKeys(ctx)
	if err != nil {
		return err
	}
	next, err := d.keys.Rotation(stored) // slow: not while others wait
	if err != nil {
		return err
	}
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		// Whoever writes now is done before the new generation is there, or begins
		// again after it.
		if err := t.dialect.Alone(ctx, t); err != nil {
			return err
		}
		var underway bool
		if err := t.Row(ctx, `SELECT EXISTS (SELECT 1 FROM settings WHERE name = ?)`, allResealed()[0].place).
			Scan(&underway); err != nil || underway {
			return err
		}
		if err := t.fresh(stored.Epoch); err != nil {
			return err
		}
		if err := t.putKey(ctx, next); err != nil {
			return err
		}
		// Whatever is written from here on is under the new generation: the epoch
		// tells everybody. So only the rows that are there now are to be passed.
		for _, table := range allResealed() {
			if _, err := t.change(ctx, `INSERT INTO settings (name, value)
				SELECT '`+table.place+`', coalesce(max(id), 0) + 1 FROM `+table.table); err != nil {
				return err
			}
		}
		return t.newEpoch(ctx, d, `{"step":"begin"}`)
	})
}

func (t *Tx) newEpoch(ctx context.Context, d *Store, detail string) error {
	if _, err := t.change(ctx, `UPDATE settings SET value = value + 1 WHERE name = 'key_epoch'`); err != nil {
		return err
	}
	t.Append(account.Entry{Kind: account.KindRotate, Detail: detail}, account.Operator(), d.now())
	return nil
}

// rotateStep seals the next few rows anew and returns about how many are left,
// 0 once the old generation is gone.
func (d *Store) rotateStep(ctx context.Context, ring *keyring.Ring) (left int64, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		left = 0
		if t.Epoch != ring.Epoch() {
			return nil // another process has ended this rotation, and may have begun the next
		}
		t.Sealed = true // nor may one do so before this is committed
		for _, table := range allResealed() {
			if left, err = t.resealNext(ctx, ring, table); err != nil || left > 0 {
				return err
			}
		}
		if err := t.dialect.Alone(ctx, t); err != nil || t.Epoch != ring.Epoch() {
			return err
		}
		if n, err := t.change(ctx, `DELETE FROM settings WHERE name LIKE 'rotate_%'`); err != nil || n == 0 {
			return err // another process, which resumed the same rotation, has ended it
		}
		if _, err := t.change(ctx, `DELETE FROM data_keys WHERE generation BETWEEN 1 AND ?`, ring.Newest()-1); err != nil {
			return err
		}
		return t.newEpoch(ctx, d, `{"step":"end"}`)
	})
	if errors.Is(err, keyring.ErrStale) {
		// A row is sealed under newer keys: another process has ended this rotation
		// while the step waited for it.
		return 0, nil
	}
	return left, err
}

// sealed is a row to be sealed anew.
type sealed struct {
	id             int64
	context, bytes []byte
}

// nextSealed reads the next rows below a rotation's place; none if it has passed
// all, or there is no rotation.
func (t *Tx) nextSealed(ctx context.Context, table resealed) (rows []sealed, err error) {
	var below int64
	err = t.Row(ctx, `SELECT value FROM settings WHERE name = ?`, table.place).Scan(&below)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	err = t.Each(ctx, func(row Scanner) error {
		var r sealed
		err := row.Scan(&r.id, &r.context, &r.bytes)
		rows = append(rows, r)
		return err
	}, table.next+` WHERE id IN (SELECT id FROM `+table.table+` WHERE id < ? ORDER BY id DESC`+Limit(rotateStep)+`)
		ORDER BY id FOR UPDATE`, below)
	return rows, err
}

// resealNext seals the next rows of a table anew, and returns about how many are
// left.
func (t *Tx) resealNext(ctx context.Context, ring *keyring.Ring, table resealed) (left int64, err error) {
	rows, err := t.nextSealed(ctx, table)
	if err != nil || rows == nil {
		return 0, err
	}
	for _, r := range rows {
		if keyring.SealedUnder(r.bytes) == ring.Newest() {
			continue
		}
		if err := table.reseal(ctx, t, ring, r); err != nil {
			return 0, fmt.Errorf("row %d of %s: %w", r.id, table.table, err)
		}
	}
	below := rows[0].id
	return below, t.movePlace(ctx, table.place, below)
}

func resealCode(ctx context.Context, t *Tx, ring *keyring.Ring, r sealed) error {
	index, bytes, err := redemption.Reseal(ring, r.context, r.bytes)
	if err == nil {
		_, err = t.change(ctx, `UPDATE redemptions SET key_index = ?, sealed = ? WHERE id = ?`, index, bytes, r.id)
	}
	return err
}

func resealPickup(ctx context.Context, t *Tx, ring *keyring.Ring, r sealed) error {
	index, bytes, err := pickup.Reseal(ring, r.context, r.bytes)
	if err == nil {
		_, err = t.change(ctx, `UPDATE pickup_codes SET code_index = ?, sealed = ? WHERE id = ?`, index, bytes, r.id)
	}
	return err
}

func resealMerchant(ctx context.Context, t *Tx, ring *keyring.Ring, r sealed) error {
	bytes, err := fleet.Reseal(ring, r.id, r.bytes)
	if err == nil {
		_, err = t.change(ctx, `UPDATE merchants SET app_key = ? WHERE id = ?`, bytes, r.id)
	}
	return err
}

func resealAnswer(ctx context.Context, t *Tx, ring *keyring.Ring, r sealed) error {
	context := account.AnswerContext(account.Hash(r.context))
	plain, err := ring.Open(context, r.bytes)
	if err == nil {
		_, err = t.change(ctx, `UPDATE answers SET answer = ? WHERE id = ?`, ring.Seal(context, plain), r.id)
	}
	return err
}

func (t *Tx) movePlace(ctx context.Context, place string, below int64) error {
	_, err := t.change(ctx, `UPDATE settings SET value = ? WHERE name = ?`, below, place)
	return err
}
