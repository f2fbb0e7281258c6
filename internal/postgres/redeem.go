package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
	// used is the code that it has marked used in the transaction under way; its id
	// is 0 if there is none.
	used usedCode
}

// usedCode is a code as it was before it was used, and whether it was credited.
type usedCode struct {
	id, name, expires, quota int64
	credited                 bool
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
		err = d.retry(ctx, func(s *session) error { //nolint:contextcheck // the session has it
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
	saved := saveGuesses(ctx, jobs)
	for _, j := range jobs {
		switch r := j.Value; {
		case r.refused != nil:
			j.Err = r.refused
			if refusal.CodeOf(r.refused) == refusal.RedemptionUnknown {
				j.Err = cmp.Or(saved[r.Guesses], r.refused)
			}
		case !r.alone:
			j.Err = err
		}
	}
	if d.onCommit != nil {
		d.onCommit(len(jobs), d.now().Sub(begun))
	}
}

// saveGuesses lets other servers know of a group's wrong keys, and says for which
// limits that has failed.
func saveGuesses(ctx context.Context, jobs []*sqlstore.Job[*redeem]) map[*guess.Limiter]error {
	guessers := map[*guess.Limiter][]string{}
	for _, j := range jobs {
		if r := j.Value; refusal.CodeOf(r.refused) == refusal.RedemptionUnknown {
			guessers[r.Guesses] = append(guessers[r.Guesses], r.Guessers...)
		}
	}
	saved := map[*guess.Limiter]error{}
	for limit, who := range guessers {
		saved[limit] = limit.Save(ctx, who...)
	}
	return saved
}

// errAgain says that an attempt has used a code and is not to have it: the others
// are tried without it.
var errAgain = errors.New("a redeem was refused")

// useCodes marks the codes used that are enabled and in time, credits whoever is
// enabled with what they are worth, and says which attempt has which code. Rows are
// locked in the order of the keys given, and of the accounts' ids, so that two groups
// do not wait for each other in turns.
const useCodes = `WITH used AS (
		UPDATE redemptions r SET state = 3, redeemed = a.at, used_by = a.by
		FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) AS a (key, at, by, second, place)
		WHERE r.key_index = a.key AND r.state = 1 AND (r.expires = 0 OR r.expires >= a.second)
		RETURNING a.place, a.by, r.id, r.name_id, r.expires, r.quota
	), credited AS (
		UPDATE users u SET quota = u.quota + c.quota
		FROM (SELECT by, CAST(sum(quota) AS BIGINT) AS quota FROM used GROUP BY by ORDER BY by) c
		WHERE u.id = c.by AND u.status = 1 RETURNING u.id
	)
	SELECT place, id, name_id, expires, quota, by IN (SELECT id FROM credited) FROM used`

// redeemTogether writes a group in one transaction. Those that cannot be written
// so are marked to be decided alone.
func (d *DB) redeemTogether(s *session, group []*redeem) error {
	found, err := d.useTogether(s, group)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == outOfRange {
		for _, r := range group {
			r.alone = true // somebody owns too much for what they would get
		}
		return errAgain
	}
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
	queueChanges(b, changes)
	defer d.foldSoon()
	return d.commit(s, b, found.head, entries)
}

// outOfRange is what PostgreSQL says of a number that is too large.
const outOfRange = "22003"

// decide says what becomes of each attempt, in their order. Again is set if one
// has used a code that it is not to have.
func (d *DB) decide(group []*redeem, found together) (entries []account.Entry, changes []sqlstore.Change, again bool) {
	d.deciding.Lock() // of guesses in two groups each is counted before the next is admitted
	defer d.deciding.Unlock()
	for i, r := range group {
		guessed := r.Guesses.Known(r.Guessers...)
		switch {
		case r.refused != nil || r.alone: // by an earlier try, and counted then
		case r.Epoch != found.epoch || found.better[int64(i)]:
			r.alone = true
		case guessed != nil:
			r.refused = guessed
		case r.used.id == 0:
			r.Guesses.Note(r.Guessers...)
			r.refused = refusal.New(refusal.RedemptionUnknown)
		case !r.used.credited:
			r.alone = true
		}
		if r.alone || r.refused != nil {
			again = again || r.used.id != 0
			continue
		}
		r.credited = r.used.quota
		entries = append(entries, account.Entry{
			Kind: account.KindRedeem, AccountID: r.By.ID, FirstID: r.used.id, LastID: r.used.id, Count: 1, Amount: r.used.quota,
			ActorID: r.By.ID, Address: r.By.Address, At: r.At,
		})
		changes = append(changes, sqlstore.Used(r.used.id, r.used.name, r.used.expires, r.used.quota)...)
	}
	return entries, changes, again
}

// together is what the first statements of a group find out.
type together struct {
	lane

	// better has the attempts, by their place, that have used no code for a reason
	// that they find out alone: it is there, or their account is disabled.
	better map[int64]bool
}

// attempted is a key that an attempt may be about.
type attempted struct {
	index []byte
	place int
}

// useTogether begins a group's transaction, marks the codes used, credits them and
// reads what decides about them.
func (d *DB) useTogether(s *session, group []*redeem) (found together, err error) {
	attempts := make([]attempted, 0, len(group))
	for i, r := range group {
		r.used.id = 0
		for _, index := range r.Indexes {
			attempts = append(attempts, attempted{index, i})
		}
	}
	slices.SortFunc(attempts, func(a, b attempted) int { return bytes.Compare(a.index, b.index) })
	n := len(attempts)
	keys := make([][]byte, n)
	at, by, second, place := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, a := range attempts {
		r := group[a.place]
		keys[i], place[i], by[i] = a.index, int64(a.place), r.By.ID
		at[i], second[i] = r.At.UnixMilli(), redemption.Second(r.At).UnixMilli()
	}
	b := &pgx.Batch{}
	b.Queue(`BEGIN`)
	b.Queue(useCodes, keys, at, by, second, place).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var i int64
			var u usedCode
			if err := rows.Scan(&i, &u.id, &u.name, &u.expires, &u.quota, &u.credited); err != nil {
				return err
			}
			group[i].used = u
		}
		return rows.Err()
	})
	queueGuesses(b, group)
	found.queueFree(b)
	if err := s.conn.SendBatch(s.ctx, b).Close(); err != nil {
		return found, err
	}
	if err := found.wait(s); err != nil {
		return found, err
	}
	return found, found.findBetter(s, group)
}

// queueGuesses reads what other servers know of the guesses of those who try.
func queueGuesses(b *pgx.Batch, group []*redeem) {
	limits := map[string]*guess.Limiter{}
	for _, r := range group {
		for _, subject := range r.Guesses.Subjects(r.Guessers...) {
			limits[string(subject)] = r.Guesses
		}
	}
	if len(limits) == 0 {
		return
	}
	subjects := make([][]byte, 0, len(limits))
	for subject := range limits {
		subjects = append(subjects, []byte(subject))
	}
	b.Queue(selectGuesses, subjects, int64(0)).Query(func(rows pgx.Rows) error {
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

// findBetter finds out which of the attempts that have used no code have the key
// of one, or a disabled account.
func (f *together) findBetter(s *session, group []*redeem) error {
	var places, accounts []int64
	var keys [][]byte
	for i, r := range group {
		for _, index := range r.Indexes {
			if r.used.id == 0 {
				keys, places, accounts = append(keys, index), append(places, int64(i)), append(accounts, r.By.ID)
			}
		}
	}
	if keys == nil {
		return nil
	}
	f.better = map[int64]bool{}
	return s.Each(s.ctx, func(row sqlstore.Scanner) error {
		var place int64
		err := row.Scan(&place)
		f.better[place] = true
		return err
	}, `SELECT a.place FROM unnest(CAST(? AS BYTEA[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[])) AS a (key, place, by)
		WHERE EXISTS (SELECT 1 FROM redemptions r WHERE r.key_index = a.key)
			OR NOT EXISTS (SELECT 1 FROM users u WHERE u.id = a.by AND u.status = 1)`, keys, places, accounts)
}
