package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// forgetStep bounds how many rows a step of Forget drops.
const forgetStep = 1000

const selectUser = `SELECT u.id, u.username, u.display_name, u.role, u.status, u.quota, u.created FROM users u `

func scanUser(row Scanner, more ...any) (u account.User, err error) {
	var created int64
	err = row.Scan(append([]any{&u.ID, &u.Username, &u.DisplayName, &u.Role, &u.Status, &u.Quota, &created}, more...)...)
	u.Created = fromMillis(created)
	return u, notFound(err, refusal.AccountNotFound)
}

func (d *Store) oneUser(ctx context.Context, where string, args ...any) (u account.User, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		u, err = scanUser(s.Row(context.WithoutCancel(ctx), selectUser+where, args...))
		return err
	})
	return u, err
}

// UserByToken implements account.Store.
func (d *Store) UserByToken(ctx context.Context, token account.Hash) (account.User, error) {
	return d.oneUser(ctx, `WHERE u.token_hash = ?`, token[:])
}

// UserBySession implements account.Store.
func (d *Store) UserBySession(ctx context.Context, session account.Hash, now time.Time) (account.User, error) {
	return d.oneUser(ctx, `JOIN sessions s ON s.user_id = u.id WHERE s.hash = ? AND s.ends > ?`,
		session[:], now.UnixMilli())
}

// UserByID implements account.Store.
func (d *Store) UserByID(ctx context.Context, id int64) (account.User, error) {
	return d.oneUser(ctx, `WHERE u.id = ?`, id)
}

// UserByName implements account.Store.
func (d *Store) UserByName(ctx context.Context, username string) (u account.User, passwordHash string, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		u, err = scanUser(s.Row(context.WithoutCancel(ctx), `SELECT u.id, u.username, u.display_name, u.role, u.status,
			u.quota, u.created, u.password_hash FROM users u WHERE u.username = ?`, username), &passwordHash)
		return err
	})
	return u, passwordHash, err
}

// Users implements account.Store. Ids have no gaps: the page and the number of
// users follow from the highest.
func (d *Store) Users(ctx context.Context, offset, most int64) (users []account.User, total int64, err error) {
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		if err := s.Row(ctx, `SELECT coalesce(max(id), 0) FROM users`).Scan(&total); err != nil {
			return err
		}
		return s.Each(ctx, func(row Scanner) error {
			u, err := scanUser(row)
			users = append(users, u)
			return err
		}, selectUser+`WHERE u.id <= ? ORDER BY u.id DESC`+Limit(most), total-offset)
	})
	return users, total, err
}

// CreateUser implements account.Store.
func (d *Store) CreateUser(
	ctx context.Context, n account.NewUser, by account.Actor, at time.Time, once *account.Once,
) (u account.User, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if err := t.replayed(ctx, once); err != nil {
			return err
		}
		id, err := t.dialect.NextUser(ctx, t)
		if err != nil {
			return err
		}
		var taken int64
		err = t.Row(ctx, `SELECT id FROM users WHERE username = ?`, n.Username).Scan(&taken)
		if err == nil {
			return refusal.New(refusal.AccountNameTaken)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if u, err = t.insertUser(ctx, id, n, by, at); err != nil {
			return err
		}
		return t.remember(ctx, once, u)
	})
	return u, err
}

// CreateRoot implements account.Store.
func (d *Store) CreateRoot(ctx context.Context, n account.NewUser, at time.Time) (created bool, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		id, err := t.dialect.NextUser(ctx, t)
		if created = err == nil && id == 1; !created {
			return err
		}
		_, err = t.insertUser(ctx, id, n, account.Operator(), at)
		return err
	})
	return created && err == nil, err
}

func (t *Tx) insertUser(
	ctx context.Context, id int64, n account.NewUser, by account.Actor, at time.Time,
) (account.User, error) {
	var token any
	if n.Token != (account.Hash{}) {
		token = n.Token[:]
	}
	if _, err := t.change(ctx, `INSERT INTO users
		(id, username, display_name, role, status, quota, password_hash, token_hash, created)
		VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?)`,
		id, n.Username, n.DisplayName, int64(n.Role), n.Quota, n.PasswordHash, token, at.UnixMilli()); err != nil {
		return account.User{}, fmt.Errorf("creating a user: %w", err)
	}
	t.Append(account.Entry{Kind: account.KindUserCreate, AccountID: id}, by, at)
	if n.Quota != 0 {
		e := account.Entry{Kind: account.KindQuota, AccountID: id, Amount: n.Quota}
		t.Append(e, by, at)
	}
	return account.User{
		ID: id, Username: n.Username, DisplayName: n.DisplayName, Role: n.Role, Status: account.StatusEnabled,
		Quota: n.Quota, Created: time.UnixMilli(at.UnixMilli()),
	}, nil
}

// SetToken implements account.Store.
func (d *Store) SetToken(ctx context.Context, id int64, token account.Hash, by account.Actor, at time.Time) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		n, err := t.change(ctx, `UPDATE users SET token_hash = ? WHERE id = ?`, token[:], id)
		if err != nil {
			return fmt.Errorf("setting a token: %w", err)
		}
		if n == 0 {
			return refusal.New(refusal.AccountNotFound)
		}
		t.Append(account.Entry{Kind: account.KindUserToken, AccountID: id}, by, at)
		return nil
	})
}

// SetUserStatus implements account.Store.
func (d *Store) SetUserStatus(
	ctx context.Context, id int64, status account.Status, by account.Actor, at time.Time,
) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		u, err := scanUser(t.Row(ctx, selectUser+`WHERE u.id = ? FOR UPDATE`, id))
		if err != nil || u.Status == status {
			return err
		}
		kind := account.KindUserEnable
		if status == account.StatusDisabled {
			kind = account.KindUserDisable
			if err := t.otherRoot(ctx, u); err != nil {
				return err
			}
			if _, err := t.change(ctx, `DELETE FROM sessions WHERE user_id = ?`, id); err != nil {
				return err
			}
		}
		if _, err := t.change(ctx, `UPDATE users SET status = ? WHERE id = ?`, int64(status), id); err != nil {
			return fmt.Errorf("setting a user's status: %w", err)
		}
		t.Append(account.Entry{Kind: kind, AccountID: id}, by, at)
		return nil
	})
}

// otherRoot refuses if u is the last enabled root.
func (t *Tx) otherRoot(ctx context.Context, u account.User) error {
	if u.Role < account.RoleRoot {
		return nil
	}
	// Of two that disable each other one is refused.
	if _, err := t.Exec(ctx, `SELECT id FROM users WHERE role >= ? ORDER BY id FOR UPDATE`, int64(account.RoleRoot)); err != nil {
		return err
	}
	var other bool
	if err := t.Row(ctx, `SELECT EXISTS (SELECT 1 FROM users WHERE role >= ? AND status = 1 AND id <> ?)`,
		int64(account.RoleRoot), u.ID).Scan(&other); err != nil {
		return err
	}
	if !other {
		return refusal.New(refusal.AccountLastRoot)
	}
	return nil
}

// StartSession implements account.Store.
func (d *Store) StartSession(ctx context.Context, id int64, session account.Hash, ends time.Time) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		// It may be there, by a try whose commit was lost on its way back.
		if _, err := t.change(ctx, `INSERT INTO sessions (hash, user_id, ends) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
			session[:], id, ends.UnixMilli()); err != nil {
			return fmt.Errorf("starting a session: %w", err)
		}
		_, err := t.change(ctx, `DELETE FROM sessions WHERE user_id = ?1 AND hash <> ?2 AND hash NOT IN
			(SELECT hash FROM sessions WHERE user_id = ?1 AND hash <> ?2 ORDER BY ends DESC`+Limit(account.SessionsMax-1)+`)`,
			id, session[:])
		return err
	})
}

// Recall implements account.Store.
func (d *Store) Recall(ctx context.Context, scope account.Hash, now time.Time) (r *account.Replay, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		r, err = recall(context.WithoutCancel(ctx), s, scope, now)
		return err
	})
	return r, err
}

func recall(ctx context.Context, s Conn, scope account.Hash, now time.Time) (*account.Replay, error) {
	var r account.Replay
	var request []byte
	err := s.Row(ctx, `SELECT request, answer FROM answers WHERE scope = ? AND at > ? AND length(answer) > 0`,
		scope[:], now.Add(-account.OnceFor).UnixMilli()).Scan(&request, &r.Answer)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // no answer yet is the usual case, and no failure
	}
	copy(r.Request[:], request)
	return &r, err
}

// replayed fails with an *account.Replay if the request has been answered, and
// with keyring.ErrStale if its answer would be sealed under old keys.
func (t *Tx) replayed(ctx context.Context, once *account.Once) error {
	if once == nil {
		return nil
	}
	if err := t.fresh(once.Epoch); err != nil {
		return err
	}
	if err := t.dialect.Claim(ctx, t, once); err != nil {
		return fmt.Errorf("claiming a request: %w", err)
	}
	r, err := recall(ctx, t.Conn, once.Scope, once.At)
	if err == nil && r != nil {
		return r
	}
	return err
}

// remember stores the answer to a request that has taken effect.
func (t *Tx) remember(ctx context.Context, once *account.Once, result any) error {
	return t.store(ctx, once, result, false)
}

func (t *Tx) store(ctx context.Context, once *account.Once, result any, refused bool) error {
	if once == nil {
		return nil
	}
	// One past its time may stand in the way until Forget has dropped it.
	if _, err := t.change(ctx, `INSERT INTO answers (scope, caller, refused, request, answer, at)
		VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (scope) DO UPDATE SET caller = excluded.caller, refused = excluded.refused,
			request = excluded.request, answer = excluded.answer, at = excluded.at`,
		once.Scope[:], once.Caller, flag(refused), once.Request[:], once.Answer(result), once.At.UnixMilli()); err != nil {
		return fmt.Errorf("remembering an answer: %w", err)
	}
	return nil
}

// Remember implements account.Store.
func (d *Store) Remember(ctx context.Context, once *account.Once) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if err := t.replayed(ctx, once); err != nil {
			return err
		}
		var stored int64
		if err := t.Row(ctx, `SELECT count(*) FROM (SELECT 1 FROM answers WHERE caller = ? AND refused = 1`+
			Limit(account.OnceMax)+`) AS found`, once.Caller).Scan(&stored); err != nil || stored == account.OnceMax {
			return err
		}
		return t.store(ctx, once, nil, true)
	})
}

// Forget implements account.Store.
func (d *Store) Forget(ctx context.Context, now time.Time) (more bool, err error) {
	cutoff := now.Add(-account.OnceFor).UnixMilli()
	var due bool
	if err := d.engine.Read(ctx, func(s Conn) error {
		return s.Row(context.WithoutCancel(ctx), `SELECT EXISTS (SELECT 1 FROM answers WHERE at <= ?)
			OR EXISTS (SELECT 1 FROM sessions WHERE ends <= ?)`, cutoff, now.UnixMilli()).Scan(&due)
	}); err != nil || !due {
		return false, err
	}
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		more = false
		for _, drop := range []struct {
			text   string
			before int64
		}{
			{`DELETE FROM answers WHERE at <= ?1 AND id IN (SELECT id FROM answers WHERE at <= ?1` + Limit(forgetStep) + `)`, cutoff},
			{
				`DELETE FROM sessions WHERE hash IN (SELECT hash FROM sessions WHERE ends <= ?` + Limit(forgetStep) + `)`,
				now.UnixMilli(),
			},
		} {
			n, err := t.change(ctx, drop.text, drop.before)
			if err != nil {
				return fmt.Errorf("forgetting: %w", err)
			}
			more = more || n == forgetStep
		}
		return nil
	})
	return more, err
}
