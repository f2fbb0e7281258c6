package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

const (
	// committers is how many groups of redeems are written at the same time: while
	// one waits for the disk the other is decided. More gain nothing.
	committers = 2
	// redeemsMax bounds a group.
	redeemsMax = 256
)

// redeem is an attempt in a group.
type redeem struct {
	redemption.Attempt

	credited int64
	refused  error
	// alone is set once it must be decided by itself: something speaks against it,
	// or it is not the first in its group on that key.
	alone bool
	// used is the code that it has marked used in the transaction under way, as it
	// was before; its id is 0 if there is none.
	used struct{ id, name, expires, quota int64 }
}

// Redeem implements redemption.Store. Attempts that arrive together and that
// nothing speaks against are written by a few statements over arrays. Any other
// is decided by itself, as it would be if it had come alone.
func (d *DB) Redeem(ctx context.Context, a redemption.Attempt) (credited int64, err error) {
	r := &redeem{Attempt: a, alone: a.Once != nil}
	if !r.alone {
		if err := d.redeems.Do(ctx, r); err != nil {
			return 0, err
		}
	}
	if r.alone {
		return d.Store.Redeem(ctx, a)
	}
	return r.credited, nil
}

// commitRedeems writes those of a group that can be written together.
func (d *DB) commitRedeems(ctx context.Context, jobs []*sqlstore.Job[*redeem]) {
	begun := d.now()
	seen := map[string]bool{}
	for _, j := range jobs {
		for _, index := range j.Value.Indexes {
			// The first on a key wins; the others find out.
			j.Value.alone = j.Value.alone || seen[string(index)]
			seen[string(index)] = true
		}
	}
	var err error
	for again := true; again && err == nil; {
		again = false
		var group []*redeem
		for _, j := range jobs {
			if !j.Value.alone && j.Value.refused == nil {
				group = append(group, j.Value)
			}
		}
		if group == nil {
			break
		}
		err = d.retry(ctx, func(s *session) error {
			err := d.redeemTogether(s, group)
			if again = errors.Is(err, errAgain); again {
				err = nil
			}
			if s.conn.PgConn().TxStatus() != 'I' {
				_, _ = s.conn.Exec(s.ctx, `ROLLBACK`) // if it fails, the connection is not used again
			}
			return err
		})
	}
	d.failing.Store(err != nil)
	for _, j := range jobs {
		switch r := j.Value; {
		case r.refused != nil:
			j.Err = r.refused
			if refusal.CodeOf(r.refused) == refusal.RedemptionUnknown {
				j.Err = cmp.Or(r.Guesses.Save(ctx, r.Guessers...), r.refused)
			}
		case !r.alone:
			j.Err = err
		}
	}
	if d.onCommit != nil {
		d.onCommit(len(jobs), d.now().Sub(begun))
	}
}

// errAgain says that an attempt has used a code and is not to have it: the others
// are tried without it.
var errAgain = errors.New("a redeem was refused")

// useCodes marks the codes used that are enabled and in time, each locked in the
// order of ids, and says which attempt has which.
const useCodes = `UPDATE redemptions r SET state = 3, redeemed = a.at, used_by = a.by
	FROM (SELECT c.id, u.at, u.by, u.second, u.place
		FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) AS u (key, at, by, second, place)
		JOIN redemptions c ON c.key_index = u.key ORDER BY c.id FOR UPDATE OF c) a
	WHERE r.id = a.id AND r.state = 1 AND (r.expires = 0 OR r.expires >= a.second)
	RETURNING a.place, r.id, r.name_id, r.expires, r.quota`

// redeemTogether writes a group in one transaction. Those that cannot be written
// so are marked to be decided alone.
func (d *DB) redeemTogether(s *session, group []*redeem) error {
	found, err := d.useTogether(s, group)
	if err != nil {
		return fmt.Errorf("redeeming: %w", err)
	}
	entries, changes, again := d.decide(group, found)
	switch {
	case again:
		return errAgain
	case entries == nil:
		return nil
	}
	b := &pgx.Batch{}
	ids := slices.Sorted(maps.Keys(found.credited))
	quotas := make([]int64, len(ids))
	for i, id := range ids {
		quotas[i] = found.quotas[id]
	}
	b.Queue(`UPDATE users u SET quota = a.quota FROM unnest($1::bigint[], $2::bigint[]) AS a (id, quota) WHERE u.id = a.id`,
		ids, quotas)
	queueChanges(b, changes)
	defer d.foldSoon()
	return d.commit(s, b, found.head, entries)
}

// decide says what becomes of each attempt, in their order. Again is set if one
// has used a code that it is not to have.
func (d *DB) decide(group []*redeem, found together) (entries []account.Entry, changes []sqlstore.Change, again bool) {
	d.deciding.Lock() // of guesses in two groups each is counted before the next is admitted
	defer d.deciding.Unlock()
	for i, r := range group {
		quota, enabled := found.quotas[r.By.ID]
		guessed := r.Guesses.Known(r.Guessers...)
		switch {
		case r.Epoch != found.epoch || !enabled:
			r.alone = true
		case r.used.id == 0 && found.known[int64(i)]:
			r.alone = true // it knows better why
		case guessed != nil:
			r.refused = guessed
		case r.used.id == 0:
			r.Guesses.Note(r.Guessers...)
			r.refused = refusal.New(refusal.RedemptionUnknown)
		case quota > math.MaxInt64-r.used.quota:
			r.alone = true
		}
		if r.alone || r.refused != nil {
			again = again || r.used.id != 0
			continue
		}
		found.quotas[r.By.ID] += r.used.quota
		found.credited[r.By.ID] = true
		r.credited = r.used.quota
		entries = append(entries, account.Entry{
			Kind: account.KindRedeem, AccountID: r.By.ID, FirstID: r.used.id, LastID: r.used.id, Count: 1, Amount: r.used.quota,
			ActorID: r.By.ID, Address: r.By.Address, At: r.At,
		})
		changes = append(changes, sqlstore.Used(r.used.id, r.used.name, r.used.expires)...)
	}
	return entries, changes, again
}

// together is what the first statements of a group find out.
type together struct {
	quotas   map[int64]int64 // of the accounts that are enabled
	credited map[int64]bool  // those of them that have been
	known    map[int64]bool  // attempts, by their place, whose key is that of a code
	epoch    int64
	head     account.Head
}

// useTogether begins a group's transaction, marks the codes used and reads what
// decides about them.
func (d *DB) useTogether(s *session, group []*redeem) (found together, err error) {
	var keys, guessers [][]byte
	var at, by, second, place, accounts []int64
	limits := map[string]*guess.Limiter{}
	for i, r := range group {
		r.used.id = 0
		for _, index := range r.Indexes {
			keys, place, by = append(keys, index), append(place, int64(i)), append(by, r.By.ID)
			at, second = append(at, r.At.UnixMilli()), append(second, redemption.Second(r.At).UnixMilli())
		}
		accounts = append(accounts, r.By.ID)
		for _, subject := range r.Guesses.Subjects(r.Guessers...) {
			guessers = append(guessers, subject)
			limits[string(subject)] = r.Guesses
		}
	}
	slices.SortFunc(guessers, bytes.Compare)
	guessers = slices.CompactFunc(guessers, bytes.Equal)
	found.quotas, found.credited, found.known = map[int64]int64{}, map[int64]bool{}, map[int64]bool{}
	b := &pgx.Batch{}
	b.Queue(`BEGIN`)
	b.Queue(useCodes, keys, at, by, second, place).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var i, id, name, expires, quota int64
			if err := rows.Scan(&i, &id, &name, &expires, &quota); err != nil {
				return err
			}
			u := &group[i].used
			u.id, u.name, u.expires, u.quota = id, name, expires, quota
		}
		return rows.Err()
	})
	b.Queue(`SELECT id, quota FROM users WHERE id = ANY($1) AND status = 1 ORDER BY id FOR UPDATE`, accounts).
		Query(func(rows pgx.Rows) error {
			for rows.Next() {
				var id, quota int64
				if err := rows.Scan(&id, &quota); err != nil {
					return err
				}
				found.quotas[id] = quota
			}
			return rows.Err()
		})
	if guessers != nil {
		b.Queue(selectGuesses, guessers, int64(0)).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				c, err := scanGuess(rows)
				if err != nil {
					return err
				}
				limits[string(c.Subject)].Learn([]guess.Count{c})
			}
			return rows.Err()
		})
	}
	b.Queue(selectFreeLane).QueryRow(func(row pgx.Row) error {
		return ifAny(row.Scan(&found.head.Lane, &found.head.Count, &found.head.MAC))
	})
	b.Queue(selectEpoch).QueryRow(func(row pgx.Row) error { return row.Scan(&found.epoch) })
	if err := s.conn.SendBatch(s.ctx, b).Close(); err != nil {
		return found, err
	}
	if found.head.Lane == 0 {
		if found.head, found.epoch, err = d.lockLane(s); err != nil {
			return found, err
		}
	}
	return found, found.findKnown(s, group)
}

// findKnown finds out which of the attempts that have used no code have the key
// of one.
func (f *together) findKnown(s *session, group []*redeem) error {
	var keys [][]byte
	places := map[string]int64{}
	for i, r := range group {
		for _, index := range r.Indexes {
			if r.used.id == 0 {
				keys, places[string(index)] = append(keys, index), int64(i)
			}
		}
	}
	if keys == nil {
		return nil
	}
	return s.Each(s.ctx, func(row sqlstore.Scanner) error {
		var index []byte
		err := row.Scan(&index)
		f.known[places[string(index)]] = true
		return err
	}, `SELECT key_index FROM redemptions WHERE key_index = ANY(CAST(? AS BYTEA[]))`, keys)
}
