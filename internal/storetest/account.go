package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func accountTests() map[string]func(*world) {
	return map[string]func(*world){
		"Create":        testAccountCreate,
		"Refusals":      testAccountRefusals,
		"List":          testAccountList,
		"RootOnce":      testAccountRootOnce,
		"Tokens":        testAccountTokens,
		"Sessions":      testAccountSessions,
		"LastRoot":      testAccountLastRoot,
		"LoginGuesses":  testAccountLoginGuesses,
		"SessionsEnded": testAccountSessionsEnded,
	}
}

func testAccountCreate(w *world) {
	u, err := w.accounts.Create(w.ctx, w.root, account.CreateRequest{
		Username: " ann ", DisplayName: " Ann 安 ", Role: account.RoleAdmin, Quota: 77, Token: "ann's token",
	})
	w.check(err)
	want := account.User{
		ID: 2, Username: "ann", DisplayName: "Ann 安", Role: account.RoleAdmin, Status: account.StatusEnabled, Quota: 77,
		Created: w.clock.Now(),
	}
	for _, find := range []func() (account.User, error){
		func() (account.User, error) { return u, nil },
		func() (account.User, error) { return w.accounts.Get(w.ctx, w.root, 2) },
		func() (account.User, error) { return w.accounts.ByName(w.ctx, w.root, "ann") },
		func() (account.User, error) {
			return w.accounts.Authenticate(w.ctx, account.Credentials{Token: "ann's token", UserID: 2})
		},
	} {
		got, err := find()
		w.check(err)
		if !got.Created.Equal(want.Created) {
			w.Errorf("created at %v, want %v", got.Created, want.Created)
		}
		if got.Created = want.Created; got != want {
			w.Errorf("the user is %+v, want %+v", got, want)
		}
	}
	entries, err := w.accounts.Ledger(w.ctx, w.root, account.LedgerFilter{UserID: 2, Limit: 10})
	w.check(err)
	if len(entries) != 2 || entries[1].Kind != account.KindUserCreate || entries[0].Kind != account.KindQuota ||
		entries[0].Amount != 77 || entries[0].ActorID != w.root.ID {
		w.Errorf("the entries are %+v", entries)
	}
	w.audit()
}

func testAccountRefusals(w *world) {
	admin, user := w.person("admin", account.RoleAdmin, 0), w.user("user", 0)
	unchanged := w.unchanged()
	for _, c := range []struct {
		by   account.Actor
		r    account.CreateRequest
		want refusal.Code
	}{
		{user, account.CreateRequest{Username: "x"}, refusal.Forbidden},
		{admin, account.CreateRequest{Username: "user"}, refusal.AccountNameTaken},
		{admin, account.CreateRequest{Username: " user "}, refusal.AccountNameTaken},
		{admin, account.CreateRequest{Username: ""}, refusal.AccountNameInvalid},
		{admin, account.CreateRequest{Username: "a b"}, refusal.AccountNameInvalid},
		{admin, account.CreateRequest{Username: "a\x00"}, refusal.AccountNameInvalid},
		{admin, account.CreateRequest{Username: strings.Repeat("x", 65)}, refusal.AccountNameInvalid},
		{admin, account.CreateRequest{Username: "x", DisplayName: "a\nb"}, refusal.AccountDisplayName},
		{admin, account.CreateRequest{Username: "x", Password: "short"}, refusal.AccountPassword},
		{admin, account.CreateRequest{Username: "x", Password: strings.Repeat("x", 129)}, refusal.AccountPassword},
		{admin, account.CreateRequest{Username: "x", Quota: -1}, refusal.AccountQuota},
		{admin, account.CreateRequest{Username: "x", Role: 5}, refusal.AccountRole},
		{admin, account.CreateRequest{Username: "x", Role: account.RoleAdmin}, refusal.AccountRoleTooHigh},
		{w.root, account.CreateRequest{Username: "x", Role: account.RoleRoot}, refusal.AccountRoleTooHigh},
	} {
		_, err := w.accounts.Create(w.ctx, c.by, c.r)
		w.refused(err, c.want)
	}
	_, err := w.accounts.Get(w.ctx, w.root, 99)
	w.refused(err, refusal.AccountNotFound)
	_, err = w.accounts.ByName(w.ctx, w.root, "nobody")
	w.refused(err, refusal.AccountNotFound)
	_, err = w.accounts.RenewToken(w.ctx, account.Operator(), 99)
	w.refused(err, refusal.AccountNotFound)
	w.refused(w.accounts.SetStatus(w.ctx, w.root, 99, account.StatusDisabled), refusal.AccountNotFound)
	w.refused(w.accounts.SetStatus(w.ctx, user, admin.ID, account.StatusDisabled), refusal.Forbidden)
	_, err = w.accounts.RenewToken(w.ctx, user, admin.ID)
	w.refused(err, refusal.Forbidden)
	_, err = w.accounts.Get(w.ctx, user, user.ID)
	w.refused(err, refusal.Forbidden)
	_, _, err = w.accounts.List(w.ctx, user, 0, 1)
	w.refused(err, refusal.Forbidden)
	_, err = w.accounts.Ledger(w.ctx, user, account.LedgerFilter{Limit: 1})
	w.refused(err, refusal.Forbidden)
	unchanged()
}

func testAccountList(w *world) {
	for i := range 24 {
		w.user(fmt.Sprint("u", i), 0)
	}
	// A refusal uses up no id.
	_, err := w.accounts.Create(w.ctx, w.root, account.CreateRequest{Username: "u3"})
	w.refused(err, refusal.AccountNameTaken)
	w.user("last", 0)
	for _, c := range []struct{ offset, limit, first, n int64 }{
		{0, 10, 26, 10}, {20, 10, 6, 6}, {25, 1, 1, 1}, {26, 10, 0, 0}, {1 << 62, 10, 0, 0}, {0, 100, 26, 26},
	} {
		users, total, err := w.accounts.List(w.ctx, w.root, c.offset, c.limit)
		w.check(err)
		if total != 26 || int64(len(users)) != c.n {
			w.Errorf("offset %d: %d of %d users, want %d of 26", c.offset, len(users), total, c.n)
		}
		for i, u := range users {
			if u.ID != c.first-int64(i) {
				w.Errorf("offset %d: user %d at %d", c.offset, u.ID, i)
			}
		}
	}
}

func testAccountRootOnce(w *world) {
	made, err := w.accounts.Bootstrap(w.ctx, "another")
	if made || err != nil {
		w.Errorf("a second root was made: %v, %v", made, err)
	}
	u, err := w.accounts.Authenticate(w.ctx, account.Credentials{Token: "the root token", UserID: 1})
	if err != nil || u.Username != "root" || u.Role != account.RoleRoot || u.ID != 1 {
		w.Errorf("the root is %+v, %v", u, err)
	}
	w.audit()
}

func testAccountTokens(w *world) {
	user := w.user("u", 0)
	auth := func(token string, id int64) error {
		_, err := w.accounts.Authenticate(w.ctx, account.Credentials{Token: token, UserID: id})
		return err
	}
	first, err := w.accounts.RenewToken(w.ctx, user, user.ID)
	w.check(err)
	w.check(auth(first, user.ID))
	w.refused(auth(first, 1), refusal.Unauthenticated)
	w.refused(auth(first, 0), refusal.Unauthenticated)
	w.refused(auth("the root token", user.ID), refusal.Unauthenticated)
	w.refused(auth("", user.ID), refusal.Unauthenticated)
	w.refused(auth("nonsense", user.ID), refusal.Unauthenticated)
	second, err := w.accounts.RenewToken(w.ctx, account.Operator(), user.ID)
	w.check(err)
	if e := w.lastEntry(); e.Kind != account.KindUserToken || e.AccountID != user.ID || e.ActorID != 0 || e.Address != "local" {
		w.Errorf("the entry is %+v", e)
	}
	w.refused(auth(first, user.ID), refusal.Unauthenticated)
	w.check(auth(second, user.ID))
	w.check(w.accounts.SetStatus(w.ctx, account.Operator(), user.ID, account.StatusDisabled))
	w.refused(auth(second, user.ID), refusal.Unauthenticated)
	unchanged := w.unchanged()
	w.check(w.accounts.SetStatus(w.ctx, account.Operator(), user.ID, account.StatusDisabled)) // again: nothing
	unchanged()
	w.check(w.accounts.SetStatus(w.ctx, account.Operator(), user.ID, account.StatusEnabled))
	w.check(auth(second, user.ID))
	w.audit()
}

func testAccountSessions(w *world) {
	_, err := w.accounts.Create(w.ctx, w.root, account.CreateRequest{Username: "ann", Password: "correct horse"})
	w.check(err)
	w.user("nopassword", 0)
	for _, c := range [][2]string{
		{"ann", "wrong horse"},
		{"ann", ""},
		{"nobody", "correct horse"},
		{"nopassword", ""},
		{"nopassword", "correct horse"},
		{"ann\xff", "correct horse"},
	} {
		_, _, err := w.accounts.Login(w.ctx, c[0], c[1], "192.0.2.9")
		w.refused(err, refusal.AccountWrongPassword)
	}
	u, session, err := w.accounts.Login(w.ctx, " ann ", "correct horse", "192.0.2.9")
	w.check(err)
	if u.Username != "ann" {
		w.Errorf("logged in as %+v", u)
	}
	auth := func(session string, id int64) error {
		_, err := w.accounts.Authenticate(w.ctx, account.Credentials{Session: session, UserID: id})
		return err
	}
	w.check(auth(session, u.ID))
	w.refused(auth(session, u.ID+1), refusal.Unauthenticated)
	w.refused(auth(session+"0", u.ID), refusal.Unauthenticated)

	_, second, err := w.accounts.Login(w.ctx, "ann", "correct horse", "192.0.2.9")
	w.check(err)
	// Of more than there may be, the oldest ends.
	for i := range account.SessionsMax - 1 {
		ends := w.clock.Now().Add(account.SessionFor + time.Duration(i+1)*time.Second)
		w.begin(u.ID, fmt.Sprint("more", i), ends)
	}
	if one, other := auth(session, u.ID), auth(second, u.ID); (one == nil) == (other == nil) {
		w.Errorf("of the two oldest sessions, which began together, one must have ended: %v, %v", one, other)
	}
	w.check(auth("more0", u.ID))
	_, second, err = w.accounts.Login(w.ctx, "ann", "correct horse", "192.0.2.9")
	w.check(err)
	w.check(auth(second, u.ID))

	w.check(w.accounts.SetStatus(w.ctx, account.Operator(), u.ID, account.StatusDisabled))
	w.refused(auth(second, u.ID), refusal.Unauthenticated)
	_, _, err = w.accounts.Login(w.ctx, "ann", "correct horse", "192.0.2.9")
	w.refused(err, refusal.AccountDisabled)
	_, _, err = w.accounts.Login(w.ctx, "ann", "wrong horse", "192.0.2.9")
	w.refused(err, refusal.AccountWrongPassword)
	w.check(w.accounts.SetStatus(w.ctx, account.Operator(), u.ID, account.StatusEnabled))
	w.refused(auth(second, u.ID), refusal.Unauthenticated) // disabling ended it for good

	_, third, err := w.accounts.Login(w.ctx, "ann", "correct horse", "192.0.2.9")
	w.check(err)
	w.clock.Add(account.SessionFor - time.Millisecond)
	w.check(w.accounts.Forget(w.ctx))
	w.check(auth(third, u.ID))
	w.clock.Add(time.Millisecond)
	w.refused(auth(third, u.ID), refusal.Unauthenticated)
	w.audit()
}

func testAccountSessionsEnded(w *world) {
	user := w.user("u", 0)
	now := w.clock.Now()
	for i := range 30 {
		w.begin(user.ID, fmt.Sprint(i), now.Add(time.Duration(i)*time.Second))
	}
	w.clock.Set(now.Add(9 * time.Second))
	w.check(w.accounts.Forget(w.ctx))
	w.clock.Set(now) // those forgotten are gone even if the clock comes back
	for i := range 30 {
		_, err := w.engine.UserBySession(w.ctx, account.HashToken(fmt.Sprint(i)), now)
		if alive := err == nil; alive != (i > 9) {
			w.Errorf("session %d is alive: %v", i, alive)
		}
	}
}

// However many are disabled at once, one root stays.
func testAccountLastRoot(w *world) {
	w.refused(w.accounts.SetStatus(w.ctx, account.Operator(), 1, account.StatusDisabled), refusal.AccountLastRoot)
	roots := []int64{1}
	for i := range 5 {
		roots = append(roots, w.person(fmt.Sprint("root", i), account.RoleRoot, 0).ID)
	}
	w.person("admin", account.RoleAdmin, 0)
	var wg sync.WaitGroup
	var refusedN atomic.Int64
	for _, id := range roots {
		wg.Go(func() {
			err := w.accounts.SetStatus(w.ctx, account.Operator(), id, account.StatusDisabled)
			if refusal.CodeOf(err) == refusal.AccountLastRoot {
				refusedN.Add(1)
			} else if err != nil {
				w.Error(err)
			}
		})
	}
	wg.Wait()
	enabled := 0
	for _, id := range roots {
		u, err := w.engine.UserByID(w.ctx, id)
		w.check(err)
		if u.Status == account.StatusEnabled {
			enabled++
		}
	}
	if enabled != 1 || refusedN.Load() != 1 {
		w.Errorf("%d roots are enabled, %d calls were refused", enabled, refusedN.Load())
	}
	w.audit()
}

func testAccountLoginGuesses(w *world) {
	const allowed = 3
	w.loginGuesses(allowed, guess.New(allowed, guessWindow, w.clock.Now))
}

func (w *world) loginGuesses(allowed int, l *guess.Limiter) {
	w.Helper()
	_, err := w.accounts.Create(w.ctx, w.root, account.CreateRequest{Username: "ann", Password: "correct horse"})
	w.check(err)
	accounts := account.NewService(w.engine, l, w.clock.Now)
	login := func(name, password, address string) error {
		_, _, err := accounts.Login(w.ctx, name, password, address)
		return err
	}
	for range 2 * allowed { // right ones consume nothing
		w.check(login("ann", "correct horse", "192.0.2.1"))
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := make(map[refusal.Code]int)
	for i := range 8 {
		wg.Go(func() {
			err := login("ann", "wrong horse", fmt.Sprint("192.0.2.", 10+i))
			mu.Lock()
			defer mu.Unlock()
			got[refusal.CodeOf(err)]++
		})
	}
	wg.Wait()
	if got[refusal.AccountWrongPassword] != allowed || got[refusal.AccountTooManyGuesses] != 8-allowed {
		w.Errorf("of 8 guesses at once: %v", got)
	}
	err = login("ann", "correct horse", "192.0.2.99")
	w.refused(err, refusal.AccountTooManyGuesses)
	if r, ok := errors.AsType[*refusal.Error](err); !ok || r.RetryAfter != guessWindow {
		w.Errorf("to come back after %v", r.RetryAfter)
	}
	// By address too, whatever the names.
	for i := range allowed {
		w.refused(login(fmt.Sprint("nobody", i), "x", "2001:db8::1"), refusal.AccountWrongPassword)
	}
	w.refused(login("nobody", "x", "2001:db8::2"), refusal.AccountTooManyGuesses)
	w.refused(login("nobody", "x", "2001:db8:0:1::2"), refusal.AccountWrongPassword)
	w.clock.Add(guessWindow)
	w.check(login("ann", "correct horse", "2001:db8::1"))
}
