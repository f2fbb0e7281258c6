package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

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

const selectWithHash = `SELECT u.id, u.username, u.display_name, u.role, u.status, u.quota, u.created, u.password_hash
	FROM users u `

// UserByName implements account.Store.
func (d *Store) UserByName(ctx context.Context, username string) (u account.User, passwordHash string, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		u, err = scanUser(s.Row(context.WithoutCancel(ctx), selectWithHash+`WHERE u.username = ?`, username), &passwordHash)
		return err
	})
	return u, passwordHash, err
}

// UserAndPassword implements account.Store.
func (d *Store) UserAndPassword(ctx context.Context, id int64) (u account.User, passwordHash string, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		u, err = scanUser(s.Row(context.WithoutCancel(ctx), selectWithHash+`WHERE u.id = ?`, id), &passwordHash)
		return err
	})
	return u, passwordHash, err
}

// UserByLink implements account.Store.
func (d *Store) UserByLink(ctx context.Context, link account.Hash, now time.Time) (account.User, error) {
	return d.oneUser(ctx, `JOIN links l ON l.user_id = u.id WHERE l.hash = ? AND l.ends > ?`, link[:], now.UnixMilli())
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
		u, err := t.lockUser(ctx, id)
		if err != nil {
			return err
		}
		if err := by.MayChange(u); err != nil {
			return err
		}
		if _, err := t.change(ctx, `UPDATE users SET token_hash = ? WHERE id = ?`, token[:], id); err != nil {
			return fmt.Errorf("setting a token: %w", err)
		}
		t.Append(account.Entry{Kind: account.KindUserToken, AccountID: id}, by, at)
		return nil
	})
}

// lockUser reads a user that nobody else changes before the transaction has ended.
// Users are locked before their sessions and links.
func (t *Tx) lockUser(ctx context.Context, id int64) (account.User, error) {
	return scanUser(t.Row(ctx, selectUser+`WHERE u.id = ? FOR UPDATE`, id))
}

// ChangeUser implements account.Store.
func (d *Store) ChangeUser(ctx context.Context, e account.UserEdit) (u account.User, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		old, err := t.lockUser(ctx, e.ID)
		if err != nil {
			return err
		}
		var entries []account.Entry
		if u, entries, err = e.Apply(old); err != nil || len(entries) == 0 {
			return err
		}
		if rules(old) && !rules(u) {
			if err := t.otherRoot(ctx, u.ID); err != nil {
				return err
			}
		}
		if u.Status != account.StatusEnabled || u.Role > old.Role {
			if err := t.signOut(ctx, u.ID); err != nil {
				return err
			}
			if _, err := t.change(ctx, `DELETE FROM links WHERE user_id = ?`, u.ID); err != nil {
				return err
			}
		}
		if u.Role > old.Role {
			// Whoever was over the user until now may know them.
			if _, err := t.change(ctx, `UPDATE users SET token_hash = NULL, password_hash = '' WHERE id = ?`, u.ID); err != nil {
				return fmt.Errorf("ending a token and a password: %w", err)
			}
		}
		if _, err := t.change(ctx, `UPDATE users SET display_name = ?, role = ?, status = ? WHERE id = ?`,
			u.DisplayName, int64(u.Role), int64(u.Status), u.ID); err != nil {
			return fmt.Errorf("changing a user: %w", err)
		}
		for _, entry := range entries {
			t.Append(entry, e.By, e.At)
		}
		return nil
	})
	return u, err
}

// rules reports whether u is an enabled root.
func rules(u account.User) bool {
	return u.Role >= account.RoleRoot && u.Status == account.StatusEnabled
}

// otherRoot refuses if there is no enabled root but the one with that id.
func (t *Tx) otherRoot(ctx context.Context, id int64) error {
	// Of two that disable each other one is refused.
	if _, err := t.Exec(ctx, `SELECT id FROM users WHERE role >= ? ORDER BY id FOR UPDATE`, int64(account.RoleRoot)); err != nil {
		return err
	}
	var other bool
	if err := t.Row(ctx, `SELECT EXISTS (SELECT 1 FROM users WHERE role >= ? AND status = 1 AND id <> ?)`,
		int64(account.RoleRoot), id).Scan(&other); err != nil {
		return err
	}
	if !other {
		return refusal.New(refusal.AccountLastRoot)
	}
	return nil
}

// StartSession implements account.Store.
func (d *Store) StartSession(ctx context.Context, n account.NewSession) error {
	checked, hash, wrong := `password_hash`, any(n.Password), refusal.AccountWrongPassword
	if n.Token != (account.Hash{}) {
		checked, hash, wrong = `token_hash`, n.Token[:], refusal.AccountWrongToken
	}
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		u, err := scanUser(t.Row(ctx, selectUser+`WHERE u.id = ? AND u.`+checked+` = ? FOR UPDATE`, n.UserID, hash))
		switch {
		case refusal.CodeOf(err) == refusal.AccountNotFound: // it was right when it was looked at
			return refusal.New(wrong)
		case err != nil:
			return err
		case u.Status != account.StatusEnabled:
			return refusal.New(refusal.AccountDisabled)
		}
		if err := t.signIn(ctx, n.UserID, n.Session, n.Ends); err != nil {
			return err
		}
		_, err = t.change(ctx, `DELETE FROM sessions WHERE user_id = ?1 AND hash <> ?2 AND hash NOT IN
			(SELECT hash FROM sessions WHERE user_id = ?1 AND hash <> ?2 ORDER BY ends DESC`+Limit(account.SessionsMax-1)+`)`,
			n.UserID, n.Session[:])
		return err
	})
}

func (t *Tx) signIn(ctx context.Context, id int64, session account.Hash, ends time.Time) error {
	// It may be there, by a try whose commit was lost on its way back.
	if _, err := t.change(ctx, `INSERT INTO sessions (hash, user_id, ends) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
		session[:], id, ends.UnixMilli()); err != nil {
		return fmt.Errorf("starting a session: %w", err)
	}
	return nil
}

// signOut ends all sessions of a user.
func (t *Tx) signOut(ctx context.Context, id int64) error {
	if _, err := t.change(ctx, `DELETE FROM sessions WHERE user_id = ?`, id); err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	return nil
}

// EndSession implements account.Store.
func (d *Store) EndSession(ctx context.Context, session account.Hash) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if _, err := t.change(ctx, `DELETE FROM sessions WHERE hash = ?`, session[:]); err != nil {
			return fmt.Errorf("ending a session: %w", err)
		}
		return nil
	})
}

// EndSessions implements account.Store.
func (d *Store) EndSessions(ctx context.Context, id int64, by account.Actor, at time.Time) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		u, err := t.lockUser(ctx, id)
		if err != nil {
			return err
		}
		if err := by.MayChange(u); err != nil {
			return err
		}
		if err := t.signOut(ctx, id); err != nil {
			return err
		}
		t.Append(account.Entry{Kind: account.KindUserSignOut, AccountID: id}, by, at)
		return nil
	})
}

// PutLink implements account.Store.
func (d *Store) PutLink(
	ctx context.Context, id int64, link account.Hash, ends time.Time, by account.Actor, at time.Time,
) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		u, err := t.lockUser(ctx, id)
		if err != nil {
			return err
		}
		if err := by.MustBeOver(u); err != nil {
			return err
		}
		if u.Status != account.StatusEnabled {
			return refusal.New(refusal.AccountDisabled)
		}
		if _, err := t.change(ctx, `INSERT INTO links (user_id, hash, ends) VALUES (?, ?, ?)
			ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, ends = excluded.ends`,
			id, link[:], ends.UnixMilli()); err != nil {
			return fmt.Errorf("making a link: %w", err)
		}
		t.Append(account.Entry{Kind: account.KindUserLink, AccountID: id}, by, at)
		return nil
	})
}

// SetUserPassword implements account.Store.
func (d *Store) SetUserPassword(ctx context.Context, p account.NewPassword) (u account.User, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if u, err = t.mayGetPassword(ctx, &p); err != nil {
			return err
		}
		if u.Status != account.StatusEnabled {
			return refusal.New(refusal.AccountDisabled)
		}
		if _, err := t.change(ctx, `UPDATE users SET password_hash = ? WHERE id = ?`, p.Hash, u.ID); err != nil {
			return fmt.Errorf("setting a password: %w", err)
		}
		if _, err := t.change(ctx, `DELETE FROM links WHERE user_id = ?`, u.ID); err != nil {
			return fmt.Errorf("using up a link: %w", err)
		}
		if err := t.signOut(ctx, u.ID); err != nil {
			return err
		}
		if err := t.signIn(ctx, u.ID, p.Session, p.Ends); err != nil {
			return err
		}
		e := account.Entry{Kind: account.KindUserPassword, AccountID: u.ID}
		if p.Link != (account.Hash{}) {
			e.Detail = `{"link":true}`
		}
		t.Append(e, account.Actor{ID: u.ID, Role: u.Role, Address: p.By.Address}, p.At)
		return nil
	})
	return u, err
}

// mayGetPassword finds whose password it is, and refuses unless what p has for it
// holds once the user is locked.
func (t *Tx) mayGetPassword(ctx context.Context, p *account.NewPassword) (account.User, error) {
	if p.Link == (account.Hash{}) {
		var hash string
		u, err := scanUser(t.Row(ctx, selectWithHash+`WHERE u.id = ? FOR UPDATE`, p.By.ID), &hash)
		if err == nil && hash != p.Old {
			return u, refusal.New(refusal.AccountWrongPassword)
		}
		return u, err
	}
	const live = `SELECT user_id FROM links WHERE hash = ? AND ends > ?`
	var id, still int64
	if err := t.Row(ctx, live, p.Link[:], p.At.UnixMilli()).Scan(&id); err != nil {
		return account.User{}, notFound(err, refusal.AccountLink)
	}
	u, err := t.lockUser(ctx, id)
	if err != nil {
		return u, err
	}
	return u, notFound(t.Row(ctx, live, p.Link[:], p.At.UnixMilli()).Scan(&still), refusal.AccountLink)
}

// AddQuota implements account.Store.
func (d *Store) AddQuota(ctx context.Context, g account.Grant) (u account.User, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if err := t.replayed(ctx, g.Once); err != nil {
			return err
		}
		if u, err = t.lockUser(ctx, g.ID); err != nil {
			return err
		}
		if u.Quota, err = g.Balance(u); err != nil {
			return err
		}
		if _, err := t.change(ctx, `UPDATE users SET quota = ? WHERE id = ?`, u.Quota, u.ID); err != nil {
			return fmt.Errorf("adding to a balance: %w", err)
		}
		t.Append(account.Entry{Kind: account.KindQuota, AccountID: u.ID, Amount: g.Amount, Detail: g.Detail}, g.By, g.At)
		return t.remember(ctx, g.Once, u)
	})
	return u, err
}

// Forgive implements account.Store.
func (d *Store) Forgive(ctx context.Context, f account.Forgiving) (u account.User, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if id := f.Suspect.AccountID; id != 0 {
			if u, err = t.lockUser(ctx, id); err != nil {
				return err
			}
			if err := f.By.MustBeOver(u); err != nil {
				return err
			}
		}
		t.Append(f.Entry(), f.By, f.At)
		return nil
	})
	return u, err
}

// SearchUsers implements account.Store.
func (d *Store) SearchUsers(ctx context.Context, q account.UserQuery) (users []account.User, err error) {
	text, args := d.usersQuery(q)
	err = d.engine.Read(ctx, func(s Conn) error {
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			u, err := scanUser(row)
			users = append(users, u)
			return err
		}, text, args...)
	})
	return users, err
}

// usersQuery writes the query. Nearly all users are enabled and plain ones: of
// those a page is found in the order of the ids or names, whatever else is asked.
// Of others there are few, that have indexes of their own.
func (d *Store) usersQuery(q account.UserQuery) (text string, args []any) {
	only, few := ``, false
	for _, f := range []struct {
		column string
		value  int64
	}{{`role`, int64(q.Role)}, {`status`, int64(q.Status)}} {
		if f.value > 1 {
			only, few = only+` AND u.`+f.column+` <> 1`, true
		}
		if f.value > 0 {
			only += ` AND u.` + f.column + ` = ` + strconv.FormatInt(f.value, 10)
		}
	}
	if q.Prefix == "" {
		before := q.Before
		if before == 0 {
			before = math.MaxInt64
		}
		return selectUser + `WHERE u.id < ?` + only + ` ORDER BY u.id DESC` + Limit(q.Limit), []any{before}
	}
	name := d.dialect.Bytes(`u.username`)
	by := name
	if few {
		by = d.dialect.Bytes(`(u.username || '')`) // not by the index of the names
	}
	args = []any{q.Prefix, q.Prefix + strings.Repeat(string(utf8.MaxRune), account.UsernameMax)}
	if q.Before != 0 {
		args = append(args, q.Before)
		only += ` AND ` + by + ` > (SELECT ` + name + ` FROM users u WHERE u.id = ?3)`
	}
	found := `SELECT id FROM (SELECT u.id FROM users u WHERE ` + by + ` >= ?1 AND ` + by + ` <= ?2` + only + ` ORDER BY ` + by +
		Limit(q.Limit) + `) AS named`
	if id, err := strconv.ParseInt(q.Prefix, 10, 64); err == nil {
		args = append(args, id)
		found += ` UNION ALL SELECT u.id FROM users u WHERE u.id = ?` + strconv.Itoa(len(args)) + only
	}
	return selectUser + `WHERE u.id IN (` + found + `) ORDER BY ` + name + Limit(q.Limit), args
}

// historyWalk is how many entries by or about an account History looks at for each
// that it is to find. Nearly all entries of who redeems are redeems.
const historyWalk = 10

// History implements account.Store.
func (d *Store) History(
	ctx context.Context, id, before int64, limit int,
) (entries []account.Entry, next int64, err error) {
	if before == 0 {
		before = math.MaxInt64
	}
	walk := historyWalk * limit
	arm := func(column, more string) string {
		return `SELECT * FROM (` + selectEntry + `WHERE ` + column + ` >= ?1 AND (` + column + `, at, id) < (?1, ` + after(`?2`) + `)` + more +
			` ORDER BY ` + about(column, newestFirst) + Limit(walk) + `) AS arm`
	}
	err = d.engine.Read(ctx, func(s Conn) error {
		entries, next = nil, 0
		own, others := 0, 0
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			e, err := scanEntry(row)
			if err != nil {
				return err
			}
			if e.ActorID == id {
				own++
			} else {
				others++
			}
			if e.Kind.Credits() && e.AccountID == id {
				entries = append(entries, e)
			}
			// Behind the last of one arm the other may have left some out.
			if len(entries) == limit || own == walk || others == walk {
				next = e.ID
				return ErrEnough
			}
			return nil
		}, arm(`actor_id`, ``)+` UNION ALL `+arm(`account_id`, byOthers)+` ORDER BY `+newestFirst,
			id, before)
	})
	return entries, next, err
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
		return s.Row(context.WithoutCancel(ctx), `SELECT EXISTS (SELECT 1 FROM answers WHERE at <= ?1)
			OR EXISTS (SELECT 1 FROM sessions WHERE ends <= ?2) OR EXISTS (SELECT 1 FROM links WHERE ends <= ?2)`,
			cutoff, now.UnixMilli()).Scan(&due)
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
			{
				`DELETE FROM links WHERE ends <= ?1 AND user_id IN (SELECT user_id FROM links WHERE ends <= ?1` + Limit(forgetStep) + `)`,
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
