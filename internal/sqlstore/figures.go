package sqlstore

import (
	"context"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/figures"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/redemption"
)

const (
	// recountStep is how many ids are read at once when codes are counted: in
	// between it is seen whether that is to end.
	recountStep = 1 << 18
	// activityStep bounds how many entries of a lane are added up at once, and
	// activityRows into how many rows: if they are spread over more, fewer are.
	activityStep = 10_000
	activityRows = 256
)

// standing is how codes stand by the counts and the worths, and by what those do
// not say yet.
type standing struct {
	Worth
	tally   Tally
	overdue int64 // of the enabled ones
}

// sound reports whether nothing speaks against the worths.
func (s *standing) sound() bool {
	for i, n := range s.tally {
		if s.Worth[i+1].Codes != n {
			return false
		}
	}
	return s.Worth[0].Codes == 0
}

// standing reads how codes stand in that second, from a snapshot; for 0 without what
// is overdue, which would be all that ever expired.
func (d *Store) standing(ctx context.Context, s Conn, second int64) (st standing, err error) {
	if err := s.Each(ctx, func(row Scanner) error {
		var state int64
		var sum Sum
		err := row.Scan(&state, &sum.Codes, &sum.Billions, &sum.Units)
		if err == nil {
			st.Worth[state].add(sum)
		}
		return err
	}, `SELECT state, codes, billions, units FROM redemption_worth`); err != nil {
		return st, err
	}
	if err := s.Row(ctx, `SELECT CAST(coalesce(sum(enabled), 0) AS BIGINT), CAST(coalesce(sum(disabled), 0) AS BIGINT),
			CAST(coalesce(sum(used), 0) AS BIGINT), CAST(coalesce(sum(expired), 0) AS BIGINT)
		FROM redemption_counts WHERE name_id = ? AND level = ?`, int64(allNames), int64(topLevel)).
		Scan(&st.tally[0], &st.tally[1], &st.tally[2], &st.tally[3]); err != nil {
		return st, err
	}
	// The second term is 0 but after the clock was set back.
	if second > 0 {
		if err := s.Row(ctx, `SELECT CAST(coalesce((SELECT sum(enabled) FROM redemption_due WHERE expires < ?1), 0) AS BIGINT)
			- (SELECT count(*) FROM redemptions WHERE state = 4 AND expires >= ?1)`, second).Scan(&st.overdue); err != nil {
			return st, err
		}
	}
	err = d.dialect.Unfolded(ctx, s, func(ch Change) error {
		st.add(ch)
		n := ch.N * ch.ids()
		st.tally[ch.State-1] += n
		if ch.State == stateEnabled && ch.Expires > 0 && ch.Expires < second {
			st.overdue += n
		}
		return nil
	})
	return st, err
}

// number is a sum kept in billions and units.
func number(billions, units int64) *big.Int {
	n := new(big.Int).Mul(big.NewInt(billions), big.NewInt(billion))
	return n.Add(n, big.NewInt(units))
}

// countMachines counts machines, and those that are online: connected, or heard of
// not longer ago than that.
const countMachines = `SELECT count(*), count(CASE WHEN presence = ? OR presence >= ? AND last_seen > ? THEN 1 END)
	FROM machines WHERE deleted = 0`

func scanMachines(ctx context.Context, s Conn, now time.Time) (all, online int64, err error) {
	err = s.Row(ctx, countMachines, int64(fleet.Connected), int64(fleet.Heard), now.Add(-fleet.SilentFor).UnixMilli()).
		Scan(&all, &online)
	return all, online, err
}

// Summary implements figures.Store.
func (d *Store) Summary(ctx context.Context, now time.Time) (sum figures.Summary, err error) {
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		st, err := d.standing(ctx, s, redemption.Second(now).UnixMilli())
		if err != nil {
			return err
		}
		sum.Codes = figures.Codes{
			Live: st.tally[0] - st.overdue, Disabled: st.tally[1], Used: st.tally[2], Expired: st.tally[3] + st.overdue,
		}
		if st.sound() {
			of := func(state int) *big.Int { return number(st.Worth[state].Billions, st.Worth[state].Units) }
			sum.Worth = &figures.Worth{
				Live: of(int(stateEnabled)), Disabled: of(int(stateDisabled)), Used: of(int(stateUsed)), Expired: of(stateExpired),
			}
		}
		if sum.Machines, sum.Online, err = scanMachines(ctx, s, now); err != nil {
			return err
		}
		var oldest int64
		err = s.Row(ctx, `SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox WHERE code_id > 0`+Limit(figures.WaitingMax)+`) AS found),
			coalesce((SELECT at FROM outbox WHERE code_id > 0 ORDER BY id LIMIT 1), 0)`).Scan(&sum.Waiting, &oldest)
		sum.WaitingSince = fromMillis(oldest)
		return err
	})
	if err != nil {
		return figures.Summary{}, fmt.Errorf("summing up: %w", err)
	}
	return sum, nil
}

// worthCounted is the settings that say when what codes are worth was last added
// up, when that was last wrong, how often in a row something spoke against it, and
// how often it was added up in all; 0 if never.
const worthCounted = `SELECT coalesce((SELECT value FROM settings WHERE name = 'worth_counted'), 0),
	coalesce((SELECT value FROM settings WHERE name = 'worth_wrong'), 0),
	coalesce((SELECT value FROM settings WHERE name = 'worth_vain'), 0),
	coalesce((SELECT value FROM settings WHERE name = 'worth_counts'), 0)`

// WorthCounted implements figures.Store.
func (d *Store) WorthCounted(ctx context.Context) (c figures.Counted, err error) {
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		var at, wrong, counts int64
		if err := s.Row(ctx, worthCounted).Scan(&at, &wrong, &c.Vain, &counts); err != nil {
			return err
		}
		st, err := d.standing(ctx, s, 0)
		c.At, c.Wrong, c.Sound = fromMillis(at), fromMillis(wrong), st.sound()
		return err
	})
	return c, err
}

// CountWorth implements figures.Store.
func (d *Store) CountWorth(ctx context.Context, now time.Time) error {
	var at, wrong, vain, counts int64
	var drift Worth
	var sound bool
	err := d.engine.Long(ctx, func(s Conn) error {
		if err := s.Row(ctx, worthCounted).Scan(&at, &wrong, &vain, &counts); err != nil {
			return err
		}
		recorded, err := d.standing(ctx, s, 0)
		if err != nil {
			return err
		}
		if drift, err = countAll(ctx, s); err != nil {
			return err
		}
		sound = recorded.sound()
		for state, sum := range recorded.Worth {
			drift[state].add(Sum{-sum.Codes, -sum.Billions, -sum.Units})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("counting what codes are worth: %w", err)
	}
	at = now.UnixMilli()
	if vain++; sound {
		vain = 0
	}
	if counts == 0 || !sound || drift != (Worth{}) {
		wrong = at
	}
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		// If somebody else has counted meanwhile, what was wrong has been put right.
		n, err := t.change(ctx, `INSERT INTO settings (name, value) VALUES ('worth_counts', ?)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE settings.value = ?`, counts+1, counts)
		if err != nil || n == 0 {
			return err
		}
		if _, err := t.change(ctx, `INSERT INTO settings (name, value) VALUES ('worth_counted', ?), ('worth_wrong', ?), ('worth_vain', ?)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`, at, wrong, vain); err != nil {
			return err
		}
		return t.WriteWorth(ctx, drift)
	})
}

// countAll adds up all codes.
func countAll(ctx context.Context, s Conn) (all Worth, err error) {
	var first, last int64
	if err := s.Row(ctx, `SELECT coalesce((SELECT min(id) FROM redemptions), 0), coalesce((SELECT max(id) FROM redemptions), 0)`).
		Scan(&first, &last); err != nil {
		return all, err
	}
	for ; first <= last; first += recountStep {
		if err := ctx.Err(); err != nil {
			return all, err
		}
		if err := s.Each(ctx, func(row Scanner) error {
			var state int64
			var sum Sum
			err := row.Scan(&state, &sum.Codes, &sum.Billions, &sum.Units)
			if err == nil {
				all[state].add(sum)
			}
			return err
		}, `SELECT state, count(*), CAST(sum(quota / 1000000000) AS BIGINT), CAST(sum(quota % 1000000000) AS BIGINT)
			FROM redemptions WHERE id BETWEEN ? AND ? GROUP BY state`, first, first+recountStep-1); err != nil {
			return all, err
		}
	}
	return all, nil
}

// behind is a lane of the ledger, and up to where activity adds it up.
type behind struct{ lane, place int64 }

// FoldActivity implements figures.Store.
func (d *Store) FoldActivity(ctx context.Context) (more bool, err error) {
	text, _, _ := d.dialect.LedgerLanes()
	var lanes []behind
	if err := d.engine.Read(ctx, func(s Conn) error {
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			var b behind
			err := row.Scan(&b.lane, &b.place)
			lanes = append(lanes, b)
			return err
		}, text)
	}); err != nil {
		return false, fmt.Errorf("adding up activity: %w", err)
	}
	for _, b := range lanes {
		some, err := d.foldLane(ctx, b)
		if err != nil {
			return false, fmt.Errorf("adding up activity: %w", err)
		}
		more = more || some
	}
	return more, nil
}

// foldLane adds up entries of a lane, and reports whether there may be more.
func (d *Store) foldLane(ctx context.Context, from behind) (more bool, err error) {
	_, in, place := d.dialect.LedgerLanes()
	var rows [][]any
	var read, last int64
	for _, most := range [...]int64{activityStep, activityRows} {
		rows, read, last = nil, 0, 0
		if err := d.engine.Read(ctx, func(s Conn) error {
			return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
				var reached, quarter, entries, count, billions, units int64
				var kind string
				if err := row.Scan(&reached, &quarter, &kind, &entries, &count, &billions, &units); err != nil {
					return err
				}
				rows = append(rows, []any{quarter, kind, entries, count, billions, units})
				read, last = read+entries, max(last, reached)
				return nil
			}, `SELECT max(place), quarter, kind, count(*), CAST(sum(count) AS BIGINT),
					CAST(sum(times * (amount / 1000000000)) AS BIGINT), CAST(sum(times * (amount % 1000000000)) AS BIGINT)
				FROM (SELECT `+place+` AS place, at / ?3 AS quarter, kind, count, amount,
						CASE kind WHEN '`+string(account.KindIssue)+`' THEN count ELSE 1 END AS times
					FROM ledger WHERE `+in+` AND `+place+` > ?2 ORDER BY `+place+Limit(most)+`) AS entries
				GROUP BY quarter, kind ORDER BY quarter, kind`, from.lane, from.place,
				figures.Quarter.Milliseconds())
		}); err != nil {
			return false, err
		}
		if more = read == most; len(rows) <= activityRows {
			break
		}
	}
	if rows == nil {
		return false, nil
	}
	return more, d.engine.Grouped(ctx, len(rows), func(ctx context.Context, t *Tx) error {
		// Who finds that somebody else has added up entries from here on leaves it at
		// that: each counts once.
		n, err := t.Exec(ctx, `INSERT INTO activity_heads (lane, seq) VALUES (?, ?)
			ON CONFLICT (lane) DO UPDATE SET seq = excluded.seq WHERE activity_heads.seq = ?`, from.lane, last, from.place)
		if err != nil || n == 0 {
			return err
		}
		for _, row := range rows {
			if _, err := t.change(ctx, `INSERT INTO activity (quarter, kind, entries, count, billions, units) VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT (quarter, kind) DO UPDATE SET entries = activity.entries + excluded.entries,
					count = activity.count + excluded.count, billions = activity.billions + excluded.billions,
					units = activity.units + excluded.units`, row...); err != nil {
				return err
			}
		}
		return nil
	})
}

// Activity implements figures.Store. It is added up where it lies: a month of
// quarters is many rows to read. They are read by kind: of most others nobody asks.
func (d *Store) Activity(ctx context.Context, kinds []account.Kind, times []time.Time) (list []figures.Activity, err error) {
	quarter := figures.Quarter.Milliseconds()
	// The first that begins at that time or later.
	first := func(t time.Time) int64 { return (t.Add(figures.Quarter).UnixMilli() - 1) / quarter }
	slots := `(CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT))` + strings.Repeat(`, (?, ?, ?)`, len(times)-2)
	var args []any
	for i, t := range times[1:] {
		args = append(args, i, first(times[i]), first(t))
	}
	asked := `(CAST(? AS TEXT))` + strings.Repeat(`, (?)`, len(kinds)-1)
	for _, k := range kinds {
		args = append(args, string(k))
	}
	err = d.engine.Read(ctx, func(s Conn) error {
		list = nil
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			var a figures.Activity
			var slot, billions, units int64
			err := row.Scan(&slot, (*string)(&a.Kind), &a.Entries, &a.Count, &billions, &units)
			a.From, a.Amount = times[slot], number(billions, units)
			list = append(list, a)
			return err
		}, `WITH slots (slot, first, behind) AS (VALUES `+slots+`), asked (of) AS (VALUES `+asked+`) `+d.dialect.ActivityIn(), args...)
	})
	return list, err
}

// NotePresence implements figures.Store.
func (d *Store) NotePresence(ctx context.Context, at, now, before time.Time) error {
	var noted bool
	var all, online int64
	if err := d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		err := s.Row(ctx, `SELECT EXISTS (SELECT 1 FROM presence_history WHERE at = ?)`, at.UnixMilli()).Scan(&noted)
		if err == nil && !noted {
			all, online, err = scanMachines(ctx, s, now)
		}
		return err
	}); err != nil || noted {
		return err
	}
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if _, err := t.change(ctx, `INSERT INTO presence_history (at, machines, online) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
			at.UnixMilli(), all, online); err != nil {
			return fmt.Errorf("noting who is online: %w", err)
		}
		if _, err := t.change(ctx, `DELETE FROM presence_history WHERE at < ?`, before.UnixMilli()); err != nil {
			return fmt.Errorf("dropping who was online: %w", err)
		}
		return nil
	})
}

// Presence implements figures.Store.
func (d *Store) Presence(ctx context.Context, from, to time.Time) (list []figures.Presence, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			var p figures.Presence
			var at int64
			err := row.Scan(&at, &p.Machines, &p.Online)
			p.At = time.UnixMilli(at)
			list = append(list, p)
			return err
		}, `SELECT at, machines, online FROM presence_history WHERE at >= ? AND at < ? ORDER BY at`, from.UnixMilli(), to.UnixMilli())
	})
	return list, err
}

// NoteOutstanding implements figures.Store.
func (d *Store) NoteOutstanding(ctx context.Context, at, before time.Time) error {
	var noted bool
	var st standing
	if err := d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		err := s.Row(ctx, `SELECT EXISTS (SELECT 1 FROM worth_history WHERE at = ?)`, at.UnixMilli()).Scan(&noted)
		if err == nil && !noted {
			st, err = d.standing(ctx, s, 0)
		}
		return err
	}); err != nil || noted || !st.sound() {
		return err
	}
	live := st.Worth[stateEnabled]
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if _, err := t.change(ctx, `INSERT INTO worth_history (at, billions, units) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
			at.UnixMilli(), live.Billions, live.Units); err != nil {
			return fmt.Errorf("noting what is outstanding: %w", err)
		}
		if _, err := t.change(ctx, `DELETE FROM worth_history WHERE at < ?`, before.UnixMilli()); err != nil {
			return fmt.Errorf("dropping what was outstanding: %w", err)
		}
		return nil
	})
}

// Outstanding implements figures.Store.
func (d *Store) Outstanding(ctx context.Context, times []time.Time) (list []figures.Outstanding, err error) {
	slots := `(CAST(? AS BIGINT), CAST(? AS BIGINT))` + strings.Repeat(`, (?, ?)`, len(times)-1)
	var args []any
	for i, t := range times {
		args = append(args, i, t.UnixMilli())
	}
	err = d.engine.Read(ctx, func(s Conn) error {
		list = nil
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			var slot, billions, units int64
			err := row.Scan(&slot, &billions, &units)
			list = append(list, figures.Outstanding{At: times[slot], Worth: number(billions, units)})
			return err
		}, `WITH slots (slot, behind) AS (VALUES `+slots+`)
			SELECT slot, billions, units FROM slots JOIN worth_history
				ON worth_history.at = (SELECT max(at) FROM worth_history WHERE at <= behind)
			ORDER BY slot`, args...)
	})
	return list, err
}
