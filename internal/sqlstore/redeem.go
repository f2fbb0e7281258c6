package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"math"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// Redeem implements redemption.Store.
func (d *Store) Redeem(ctx context.Context, a redemption.Attempt) (credited int64, err error) {
	err = d.engine.Grouped(ctx, 1, func(ctx context.Context, t *Tx) (err error) {
		credited, err = t.redeem(ctx, &a)
		return err
	})
	if err != nil {
		return 0, err
	}
	return credited, nil
}

// redeem decides one attempt and writes all but the new balance, which the
// transaction writes once for each account.
func (t *Tx) redeem(ctx context.Context, a *redemption.Attempt) (int64, error) {
	t.Redeems++
	if err := t.fresh(a.Epoch); err != nil {
		return 0, err
	}
	if err := t.replayed(ctx, a.Once); err != nil {
		return 0, err
	}
	if err := a.Guesses.Admit(ctx, a.Guessers...); err != nil {
		return 0, err
	}
	if err := t.dialect.LockCodes(ctx, t, a.Indexes); err != nil {
		return 0, err
	}
	// Read before the code is touched: a refusal here must leave it alone.
	had, err := t.balance(ctx, a.By.ID)
	if err != nil {
		return 0, err
	}
	c, err := t.use(ctx, a)
	if err != nil {
		return 0, err
	}
	if had > math.MaxInt64-c.quota {
		if err := t.unuse(ctx, c); err != nil {
			return 0, err
		}
		return 0, refusal.New(refusal.AccountBalanceFull)
	}
	t.setBalance(a.By.ID, balance{had + c.quota, true})
	t.count(c, -1)
	c.state = stateUsed
	t.count(c, 1)
	t.Append(account.Entry{
		Kind: account.KindRedeem, AccountID: a.By.ID, FirstID: c.id, LastID: c.id, Count: 1, Amount: c.quota,
	}, a.By, a.At)
	return c.quota, t.remember(ctx, a.Once, c.quota)
}

const markUsed = `UPDATE redemptions SET state = 3, redeemed = ?, used_by = ? `

// use marks the code used if it is enabled and in time, and returns it as it was:
// one conditional update, never a read before it. Only if that changes nothing is
// the row read, to say why.
func (t *Tx) use(ctx context.Context, a *redemption.Attempt) (counted, error) {
	at, second := a.At.UnixMilli(), redemption.Second(a.At).UnixMilli()
	for _, index := range a.Indexes {
		c := counted{state: stateEnabled}
		err := t.Row(ctx, markUsed+`WHERE key_index = ? AND state = 1 AND (expires = 0 OR expires >= ?)
			RETURNING id, name_id, expires, quota`, at, a.By.ID, index, second).Scan(&c.id, &c.name, &c.expires, &c.quota)
		if !errors.Is(err, sql.ErrNoRows) {
			t.Wrote = true
			return c, err
		}
	}
	for _, index := range a.Indexes {
		c, state, err := scanCode(t.Row(ctx, selectCode+`WHERE key_index = ? FOR UPDATE OF r`, index))
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return counted{}, err
		}
		if err := c.Refuse(a.By.ID, a.At); err != nil {
			return counted{}, err
		}
		return t.useSwept(ctx, c.ID, state, a)
	}
	// Indexed anew after the transaction began and before the code was looked for, it
	// is there all the same.
	if err := t.sameKeys(ctx, a.Epoch); err != nil {
		return counted{}, err
	}
	if err := a.Guesses.Failed(ctx, a.Guessers...); err != nil {
		return counted{}, err
	}
	return counted{}, refusal.New(refusal.RedemptionUnknown)
}

// useSwept marks a code used that was swept as expired and is in time all the
// same: the clock was set back.
func (t *Tx) useSwept(ctx context.Context, id, state int64, a *redemption.Attempt) (counted, error) {
	c := counted{state: state}
	t.Wrote = true
	err := t.Row(ctx, markUsed+`WHERE id = ? AND state = ? RETURNING id, name_id, expires, quota`,
		a.At.UnixMilli(), a.By.ID, id, state).Scan(&c.id, &c.name, &c.expires, &c.quota)
	return c, err
}

// unuse takes back what use did.
func (t *Tx) unuse(ctx context.Context, c counted) error {
	_, err := t.change(ctx, `UPDATE redemptions SET state = ?, redeemed = 0, used_by = 0 WHERE id = ?`, c.state, c.id)
	return err
}

// balance is the account's so far, read from the database the first time.
func (t *Tx) balance(ctx context.Context, id int64) (int64, error) {
	if b, ok := t.balances[id]; ok {
		return b.quota, nil
	}
	var b balance
	err := t.Row(ctx, `SELECT quota FROM users WHERE id = ? AND status = 1 FOR UPDATE`, id).Scan(&b.quota)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, refusal.New(refusal.Unauthenticated) // disabled since the request came in
	}
	if err == nil {
		t.setBalance(id, b)
	}
	return b.quota, err
}
