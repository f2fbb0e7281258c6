package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const (
	// sweepStep and purgeStep bound how many codes one step changes, and so how
	// long a redeem may wait behind it: some 3 ms.
	sweepStep = 128
	purgeStep = 128
)

const selectCode = `SELECT r.id, r.user_id, n.name, r.state, r.quota, r.created, r.redeemed, r.expires, r.used_by,
	r.key_index, r.sealed FROM redemptions r JOIN redemption_names n ON n.id = r.name_id `

// scanCode reads a row of selectCode, and the state as stored.
func scanCode(row Scanner) (c redemption.Stored, state int64, err error) {
	var created, redeemed, expires int64
	err = row.Scan(&c.ID, &c.CreatorID, &c.Name, &state, &c.Quota, &created, &redeemed, &expires, &c.UsedBy,
		&c.Index, &c.Sealed)
	c.Status = redemption.Status(state)
	if state == stateExpired {
		c.Status = redemption.StatusEnabled
	}
	c.Created, c.Redeemed, c.Expires = fromMillis(created), fromMillis(redeemed), fromMillis(expires)
	return c, state, err
}

// stateOf is the state to store a code in.
func stateOf(c *redemption.Code, now time.Time) int64 {
	if c.Expired(now) {
		return stateExpired
	}
	return int64(c.Status)
}

// fromMillis is the time of a stored number; 0 is the zero time.
func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n)
}

// Millis is the number that stands for a time; the zero time is 0.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// flag is the number that stands for a condition.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// Issue implements redemption.Store.
func (d *Store) Issue(ctx context.Context, b redemption.Batch) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if err := t.fresh(b.Epoch); err != nil {
			return err
		}
		if err := t.replayed(ctx, b.Once); err != nil {
			return err
		}
		if _, err := t.issue(ctx, &b); err != nil {
			return err
		}
		return t.remember(ctx, b.Once, nil)
	})
}

// issue writes the codes of a batch, and returns the first id: they follow each
// other.
func (t *Tx) issue(ctx context.Context, b *redemption.Batch) (first int64, err error) {
	name, err := t.nameID(ctx, b.Name)
	if err != nil {
		return 0, err
	}
	if first, err = t.dialect.InsertCodes(ctx, t, b, name); err != nil {
		return 0, fmt.Errorf("issuing: %w", err)
	}
	last := first + int64(len(b.Keys)) - 1
	t.countRange(counted{first, name, stateEnabled, Millis(b.Expires), b.Quota}, last, 1)
	detail, err := json.Marshal(map[string]any{"name": b.Name, "expired_time": Millis(b.Expires) / 1000})
	if err != nil {
		return 0, err
	}
	t.Append(account.Entry{
		Kind: account.KindIssue, FirstID: first, LastID: last, Count: int64(len(b.Keys)), Amount: b.Quota,
		Detail: string(detail),
	}, b.Creator, b.Created)
	return first, nil
}

// Unindexed fails if a code stands under one of those indexes. The newest
// index is unique by itself; those of a generation that is on its way out are
// looked up.
func (t *Tx) Unindexed(ctx context.Context, indexes [][]byte) error {
	for _, index := range indexes {
		var id int64
		err := t.Row(ctx, `SELECT id FROM redemptions WHERE key_index = ?`, index).Scan(&id)
		if err == nil {
			return fmt.Errorf("code %d has that key", id)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	return nil
}

// nameID finds the name, or adds it, and keeps it from being dropped.
func (t *Tx) nameID(ctx context.Context, name string) (id int64, err error) {
	err = t.Row(ctx, `SELECT id FROM redemption_names WHERE name = ? FOR SHARE`, name).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	if id, err = t.insert(ctx, `INSERT INTO redemption_names (name) VALUES (?)
		ON CONFLICT (name) DO UPDATE SET name = excluded.name`, name); err != nil {
		return 0, fmt.Errorf("adding a name: %w", err)
	}
	return id, nil
}

// Get implements redemption.Store.
func (d *Store) Get(ctx context.Context, id int64) (c redemption.Stored, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		c, _, err = scanCode(s.Row(context.WithoutCancel(ctx), selectCode+`WHERE r.id = ?`, id))
		return notFound(err, refusal.RedemptionNotFound)
	})
	return c, err
}

// notFound turns the absence of a row into a refusal.
func notFound(err error, code refusal.Code) error {
	if errors.Is(err, sql.ErrNoRows) {
		return refusal.New(code)
	}
	return err
}

// Change implements redemption.Store.
func (d *Store) Change(ctx context.Context, e redemption.Edit) (c redemption.Stored, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		old, state, err := scanCode(t.Row(ctx, selectCode+`WHERE r.id = ? FOR UPDATE OF r`, e.ID))
		if err != nil {
			return notFound(err, refusal.RedemptionNotFound)
		}
		c, err = t.edit(ctx, old, state, e)
		return err
	})
	return c, err
}

// edit changes a code that is locked.
func (t *Tx) edit(ctx context.Context, old redemption.Stored, oldState int64, e redemption.Edit) (redemption.Stored, error) {
	c := old
	var entries []account.Entry
	var err error
	if c.Code, entries, err = e.Change.Apply(old.Code, e.At); err != nil || len(entries) == 0 {
		return c, err
	}
	oldName, err := t.nameID(ctx, old.Name)
	if err != nil {
		return c, err
	}
	name, err := t.nameID(ctx, c.Name)
	if err != nil {
		return c, err
	}
	state := stateOf(&c.Code, e.At)
	if _, err := t.change(ctx, `UPDATE redemptions SET name_id = ?, quota = ?, expires = ?, state = ? WHERE id = ?`,
		name, c.Quota, Millis(c.Expires), state, c.ID); err != nil {
		return c, fmt.Errorf("changing a code: %w", err)
	}
	t.count(counted{c.ID, oldName, oldState, Millis(old.Expires), old.Quota}, -1)
	t.count(counted{c.ID, name, state, Millis(c.Expires), c.Quota}, 1)
	for _, entry := range entries {
		t.Append(entry, e.By, e.At)
	}
	return c, nil
}

// ChangeMany implements redemption.Store.
func (d *Store) ChangeMany(ctx context.Context, ids []int64, e redemption.Edit) (refused map[int64]refusal.Code, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		type locked struct {
			redemption.Stored

			state int64
		}
		var codes []locked
		in, arg := d.dialect.In(ids)
		if err := t.Each(ctx, func(row Scanner) error {
			c, state, err := scanCode(row)
			codes = append(codes, locked{c, state})
			return err
		}, selectCode+`WHERE r.id `+in+` ORDER BY r.id FOR UPDATE OF r`, arg); err != nil {
			return err
		}
		refused = notThere(ids)
		for _, c := range codes {
			delete(refused, c.ID)
			_, err := t.edit(ctx, c.Stored, c.state, e)
			if code := refusal.CodeOf(err); code != "" {
				refused[c.ID] = code
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	return refused, err
}

// notThere is what becomes of those of the ids that are not found.
func notThere(ids []int64) map[int64]refusal.Code {
	out := make(map[int64]refusal.Code, len(ids))
	for _, id := range ids {
		out[id] = refusal.RedemptionNotFound
	}
	return out
}

// DeleteMany implements redemption.Store.
func (d *Store) DeleteMany(
	ctx context.Context, ids []int64, by account.Actor, at time.Time,
) (refused map[int64]refusal.Code, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		in, arg := d.dialect.In(ids)
		if _, err := t.Exec(ctx, `SELECT id FROM redemptions WHERE id `+in+` ORDER BY id FOR UPDATE`, arg); err != nil {
			return err
		}
		refused = notThere(ids)
		var entries []account.Entry
		if err := t.Each(ctx, func(row Scanner) error {
			var c counted
			e := account.Entry{Kind: account.KindDelete, Count: 1}
			if err := row.Scan(&c.id, &c.name, &c.state, &c.expires, &c.quota); err != nil {
				return err
			}
			delete(refused, c.id)
			t.count(c, -1)
			e.FirstID, e.LastID, e.Amount = c.id, c.id, c.quota
			entries = append(entries, e)
			return nil
		}, `DELETE FROM redemptions WHERE id `+in+` RETURNING id, name_id, state, expires, quota`, arg); err != nil {
			return err
		}
		slices.SortFunc(entries, func(a, b account.Entry) int { return cmp.Compare(a.FirstID, b.FirstID) })
		for _, e := range entries {
			t.Append(e, by, at)
		}
		return nil
	})
	return refused, err
}

// Delete implements redemption.Store.
func (d *Store) Delete(ctx context.Context, id int64, by account.Actor, at time.Time) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		c := counted{id: id}
		err := t.Row(ctx, `DELETE FROM redemptions WHERE id = ? RETURNING name_id, state, expires, quota`, id).
			Scan(&c.name, &c.state, &c.expires, &c.quota)
		if err != nil {
			return notFound(err, refusal.RedemptionNotFound)
		}
		t.Wrote = true
		t.count(c, -1)
		t.Append(account.Entry{
			Kind: account.KindDelete, FirstID: id, LastID: id, Count: 1, Amount: c.quota,
		}, by, at)
		return nil
	})
}

// Codes whose state is not what the clock says. The second kind is there only
// after the clock was set back. Behind a + a column is not looked up in an index:
// a step has its ids already.
const (
	overdue  = `state = 1 AND expires > 0 AND expires < ?2`
	tooEarly = `state = 4 AND expires >= ?2`
)

// Sweep implements redemption.Store.
func (d *Store) Sweep(ctx context.Context, now time.Time) (moved int64, err error) {
	second := redemption.Second(now).UnixMilli()
	var due bool
	// A look first, that takes no writer's turn: most of the time nothing is due.
	if err := d.engine.Read(ctx, func(s Conn) error {
		return s.Row(context.WithoutCancel(ctx), `SELECT EXISTS (SELECT 1 FROM redemption_due WHERE expires < ?1)
			OR EXISTS (SELECT 1 FROM redemptions WHERE state = 4 AND expires >= ?1)`, second).Scan(&due)
	}); err != nil || !due {
		return 0, err
	}
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		moved = 0
		for _, move := range []struct {
			which    string
			from, to int64
		}{{overdue, stateEnabled, stateExpired}, {tooEarly, stateExpired, stateEnabled}} {
			err := t.Each(ctx, func(row Scanner) error {
				c := counted{state: move.from}
				if err := row.Scan(&c.id, &c.name, &c.expires, &c.quota); err != nil {
					return err
				}
				t.count(c, -1)
				c.state = move.to
				t.count(c, 1)
				moved++
				t.Wrote = true
				return nil
			}, `UPDATE redemptions SET state = ?1 WHERE +`+move.which+` AND id IN
				(SELECT id FROM redemptions WHERE `+move.which+Limit(sweepStep)+`) RETURNING id, name_id, expires, quota`, move.to, second)
			if err != nil {
				return fmt.Errorf("sweeping: %w", err)
			}
		}
		// What the step itself brings to nothing is left to the next.
		if _, err := t.change(ctx, `DELETE FROM redemption_due WHERE enabled = 0 AND (expires, name_id, block) IN
			(SELECT expires, name_id, block FROM redemption_due WHERE expires < ? AND enabled = 0`+Limit(sweepStep)+`)`,
			second); err != nil {
			return fmt.Errorf("dropping counts: %w", err)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return moved, nil
}

// Purge implements redemption.Store.
func (d *Store) Purge(
	ctx context.Context, after int64, by account.Actor, at time.Time,
) (removed, next int64, err error) {
	first, last, err := d.nextInvalid(ctx, after)
	if err != nil || last == 0 {
		return 0, 0, err
	}
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		removed, err = t.purge(ctx, first, last, by, at)
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("removing invalid codes: %w", err)
	}
	return removed, last, nil
}

// purge removes the invalid codes with the ids from first to last, and reports how
// many.
func (t *Tx) purge(ctx context.Context, first, last int64, by account.Actor, at time.Time) (removed int64, err error) {
	var gone idRanges
	if err := t.Each(ctx, func(row Scanner) error {
		var c counted
		if err := row.Scan(&c.id, &c.name, &c.state, &c.expires, &c.quota); err != nil {
			return err
		}
		t.count(c, -1)
		gone = append(gone, c.id)
		t.Wrote = true
		return nil
	}, `DELETE FROM redemptions WHERE id BETWEEN ?1 AND ?2
		AND (state IN (2, 3) OR state IN (1, 4) AND expires > 0 AND expires < ?3)
		RETURNING id, name_id, state, expires, quota`,
		first, last, redemption.Second(at).UnixMilli()); err != nil || gone == nil {
		return 0, err
	}
	t.Append(gone.entry(), by, at)
	return int64(len(gone)), nil
}

// nextInvalid finds the ids that the next step looks at: behind after, from the
// first block that has codes to remove on, over as many blocks as make up a
// step. The counts say which have; last is 0 if none does.
func (d *Store) nextInvalid(ctx context.Context, after int64) (first, last int64, err error) {
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		from, to := after+1, int64(math.MaxInt64)
		// Large blocks first; if the first of them is too much, its leaves.
		for _, level := range [...]int64{dueLevel, leafLevel} {
			var found int64
			if err := s.Each(ctx, func(row Scanner) error {
				var block, n int64
				if err := row.Scan(&block, &n); err != nil {
					return err
				}
				end := (block+1)<<level - 1
				if found == 0 {
					first = max(from, block<<level)
				} else if found+n > purgeStep || end-first >= widestRange {
					return ErrEnough
				}
				found += n
				last = end
				return nil
			}, `SELECT block, disabled + used + expired FROM redemption_counts WHERE name_id = 0 AND level = ?
				AND block BETWEEN ? AND ? AND disabled + used + expired > 0 ORDER BY block`+Limit(purgeStep+widestRange>>level+1),
				level, from>>level, to>>level); err != nil || found <= purgeStep {
				return err
			}
			from, to = first, last
		}
		return nil
	})
	return first, last, err
}

// idRanges are ids, in no order.
type idRanges []int64

// entry is the ledger entry of their removal: it names every one, as ranges.
func (ids idRanges) entry() account.Entry {
	var b strings.Builder
	first, last := ids.write(&b)
	return account.Entry{
		Kind: account.KindPurge, FirstID: first, LastID: last, Count: int64(len(ids)),
		Detail: `{"ids":"` + b.String() + `"}`,
	}
}

// write writes the ids in order as 1-3,5,7-9 and returns the ends.
func (ids idRanges) write(b *strings.Builder) (first, last int64) {
	slices.Sort(ids)
	for i := 0; i < len(ids); {
		j := i
		for j+1 < len(ids) && ids[j+1] == ids[j]+1 {
			j++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(ids[i], 10))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.FormatInt(ids[j], 10))
		}
		i = j + 1
	}
	return ids[0], ids[len(ids)-1]
}
