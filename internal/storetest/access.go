package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func accessTests() map[string]func(*world) {
	return map[string]func(*world){
		"SignIn":        testAccessSignIn,
		"SignOut":       testAccessSignOut,
		"Link":          testAccessLink,
		"LinkOnce":      testAccessLinkOnce,
		"LinkGuesses":   testAccessLinkGuesses,
		"LinkForgotten": testAccessLinkForgotten,
		"LateSignIn":    testAccessLateSignIn,
		"Places":        testAccessPlaces,
		"Password":      testAccessPassword,
		"PasswordOnce":  testAccessPasswordOnce,
		"Who":           testAccessWho,
		"Role":          testAccessRole,
		"Promotion":     testAccessPromotion,
		"LastRootRole":  testAccessLastRootRole,
		"DisplayName":   testAccessDisplayName,
		"Quota":         testAccessQuota,
		"QuotaAtOnce":   testAccessQuotaAtOnce,
		"Search":        testAccessSearch,
		"History":       testAccessHistory,
		"Reveal":        testAccessReveal,
		"Guessing":      testAccessGuessing,
		"Forgive":       testAccessForgive,
	}
}

const addressA, addressB = "192.0.2.9", "198.51.100.9"

// signedIn reports whether a session is one of that user.
func (w *world) signedIn(session string, id int64) bool {
	w.Helper()
	u, err := w.accounts.Session(w.ctx, session)
	if err != nil {
		w.refused(err, refusal.Unauthenticated)
		return false
	}
	if u.ID != id {
		w.Fatalf("the session is of %+v, want user %d", u, id)
	}
	return true
}

// wantAct checks the newest ledger entry.
func (w *world) wantAct(kind account.Kind, id int64, by account.Actor, detail string) {
	w.Helper()
	if e := w.lastEntry(); e.Kind != kind || e.AccountID != id || e.ActorID != by.ID || e.Address != by.Address || e.Detail != detail {
		w.Errorf("the entry is %+v, want %s of %d by %+v with %s", e, kind, id, by, detail)
	}
}

func testAccessSignIn(w *world) {
	user := w.user("ann", 0)
	token, err := w.accounts.RenewToken(w.ctx, user, user.ID)
	w.check(err)
	u, session, err := w.accounts.LoginToken(w.ctx, " "+token+"\n", addressA)
	w.check(err)
	if u.ID != user.ID || u.Username != "ann" || !w.signedIn(session, user.ID) {
		w.Errorf("signed in as %+v", u)
	}
	for _, wrong := range []string{"", "x", token + "0", session} {
		_, _, err := w.accounts.LoginToken(w.ctx, wrong, addressA)
		w.refused(err, refusal.AccountWrongToken)
		_, err = w.accounts.Session(w.ctx, wrong)
		if wrong != session {
			w.refused(err, refusal.Unauthenticated)
		}
	}
	w.check(w.accounts.SetStatus(w.ctx, w.root, user.ID, account.StatusDisabled))
	_, _, err = w.accounts.LoginToken(w.ctx, token, addressA)
	w.refused(err, refusal.AccountDisabled)
	w.check(w.accounts.SetStatus(w.ctx, w.root, user.ID, account.StatusEnabled))
	if w.signedIn(session, user.ID) {
		w.Error("disabling did not end the session")
	}
	_, session, err = w.accounts.LoginToken(w.ctx, token, addressA)
	w.check(err)
	w.clock.Add(account.SessionFor)
	if w.signedIn(session, user.ID) {
		w.Error("the session never ends")
	}

	// Wrong tokens are guesses of the address, and never of anybody else's.
	guarded := account.NewService(w.engine, guess.New(3, guessWindow, w.clock.Now), w.clock.Now)
	var wg sync.WaitGroup
	var wrong, refused atomic.Int64
	for range 8 {
		wg.Go(func() {
			_, _, err := guarded.LoginToken(w.ctx, "wrong", addressA)
			if code := refusal.CodeOf(err); code == refusal.AccountWrongToken {
				wrong.Add(1)
			} else if code == refusal.AccountTooManyGuesses {
				refused.Add(1)
			} else {
				w.Error(err)
			}
		})
	}
	wg.Wait()
	if wrong.Load() != 3 || refused.Load() != 5 {
		w.Errorf("%d were tried and %d refused, of 8 with 3 allowed", wrong.Load(), refused.Load())
	}
	_, _, err = guarded.LoginToken(w.ctx, token, addressA)
	w.tooMany(err, guessWindow)
	_, _, err = guarded.LoginToken(w.ctx, token, addressB)
	w.check(err)
	w.audit()
}

func testAccessSignOut(w *world) {
	ann, ben := w.user("ann", 0), w.user("ben", 0)
	begin := func(u account.Actor) string {
		session := account.NewToken()
		w.begin(u.ID, session, w.clock.Now().Add(account.SessionFor))
		return session
	}
	one, two, other := begin(ann), begin(ann), begin(ben)
	unchanged := w.unchanged()
	w.check(w.accounts.EndSession(w.ctx, one))
	w.check(w.accounts.EndSession(w.ctx, one))
	w.check(w.accounts.EndSession(w.ctx, ""))
	unchanged()
	if w.signedIn(one, ann.ID) || !w.signedIn(two, ann.ID) || !w.signedIn(other, ben.ID) {
		w.Error("not that one session has ended")
	}
	w.refused(w.accounts.EndSessions(w.ctx, ben, ann.ID), refusal.Forbidden)
	one = begin(ann)
	w.check(w.accounts.EndSessions(w.ctx, ann, ann.ID))
	w.wantAct(account.KindUserSignOut, ann.ID, ann, "")
	if w.signedIn(one, ann.ID) || w.signedIn(two, ann.ID) || !w.signedIn(other, ben.ID) {
		w.Error("not all of that user's sessions have ended")
	}
	// Who does it without end is stopped: each is an entry of the ledger.
	w.allow(w.accounts.EndSessions(w.ctx, ann, ann.ID))
	for range 60 {
		w.allow(w.accounts.EndSessions(w.ctx, ann, ann.ID), refusal.TooBusy)
	}
	w.refused(w.accounts.EndSessions(w.ctx, ann, ann.ID), refusal.TooBusy)
	w.check(w.accounts.EndSessions(w.ctx, w.root, ann.ID))
	w.audit()
}

func testAccessLink(w *world) {
	ann := w.user("ann", 0)
	_, session, err := w.accounts.LoginToken(w.ctx, rootToken, addressA)
	w.check(err)
	link, ends, err := w.accounts.NewLink(w.ctx, w.root, ann.ID)
	w.check(err)
	w.wantAct(account.KindUserLink, ann.ID, w.root, "")
	if len(link) != 32 || !ends.Equal(w.clock.Now().Add(24*time.Hour)) {
		w.Errorf("the link %q lasts until %v", link, ends)
	}
	for _, wrong := range []string{"", link + "0", link[1:], rootToken, session} {
		_, err := w.accounts.Link(w.ctx, wrong)
		w.refused(err, refusal.AccountLink)
		_, _, err = w.accounts.SetPasswordByLink(w.ctx, wrong, "correct horse", addressA)
		w.refused(err, refusal.AccountLink)
	}
	whose := func(link string, want int64) {
		w.Helper()
		u, err := w.accounts.Link(w.ctx, link)
		w.check(err)
		if u.ID != want {
			w.Errorf("the link is of %+v", u)
		}
	}
	whose(link, ann.ID)
	// What may not be a password leaves the link as it was.
	for _, bad := range []string{"", "1234567", "七个字符的密码", strings.Repeat("x", 129), "\xff\xff\xff\xff\xff\xff\xff\xff"} {
		_, _, err := w.accounts.SetPasswordByLink(w.ctx, link, bad, addressA)
		w.refused(err, refusal.AccountPassword)
	}
	whose(link, ann.ID)

	old := account.NewToken()
	w.begin(ann.ID, old, w.clock.Now().Add(time.Hour))
	const eight = "八个字符的密码！" // 24 bytes
	u, mine, err := w.accounts.SetPasswordByLink(w.ctx, link, eight, addressB)
	w.check(err)
	w.wantAct(account.KindUserPassword, ann.ID, account.Actor{ID: ann.ID, Address: addressB}, `{"link":true}`)
	if u.ID != ann.ID || !w.signedIn(mine, ann.ID) || w.signedIn(old, ann.ID) || !w.signedIn(session, w.root.ID) {
		w.Errorf("set for %+v, or the wrong sessions ended", u)
	}
	_, _, err = w.accounts.Login(w.ctx, "ann", eight, addressA)
	w.check(err)
	_, err = w.accounts.Link(w.ctx, link)
	w.refused(err, refusal.AccountLink)
	_, _, err = w.accounts.SetPasswordByLink(w.ctx, link, eight, addressA)
	w.refused(err, refusal.AccountLink)

	// A new one is in place of the one before.
	first, _, err := w.accounts.NewLink(w.ctx, w.root, ann.ID)
	w.check(err)
	second, _, err := w.accounts.NewLink(w.ctx, account.Operator(), ann.ID)
	w.check(err)
	_, err = w.accounts.Link(w.ctx, first)
	w.refused(err, refusal.AccountLink)
	whose(second, ann.ID)
	w.clock.Add(account.LinkFor - time.Millisecond)
	whose(second, ann.ID)
	w.clock.Add(time.Millisecond)
	_, _, err = w.accounts.SetPasswordByLink(w.ctx, second, eight, addressA)
	w.refused(err, refusal.AccountLink)

	// Disabling ends it for good.
	third, _, err := w.accounts.NewLink(w.ctx, w.root, ann.ID)
	w.check(err)
	w.check(w.accounts.SetStatus(w.ctx, w.root, ann.ID, account.StatusDisabled))
	_, _, err = w.accounts.NewLink(w.ctx, w.root, ann.ID)
	w.refused(err, refusal.AccountDisabled)
	w.check(w.accounts.SetStatus(w.ctx, w.root, ann.ID, account.StatusEnabled))
	_, err = w.accounts.Link(w.ctx, third)
	w.refused(err, refusal.AccountLink)
	w.audit()
}

// atOnce calls do as often as it says, all at the same time.
func (w *world) atOnce(n int, do func(i int)) {
	w.Helper()
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			do(i)
		})
	}
	close(start)
	wg.Wait()
}

// passwordsAtOnce has several set a user's password at the same time, and sees that
// one of them does. It goes straight to the store: the use cases look before.
func (w *world) passwordsAtOnce(p account.NewPassword, user int64, refused refusal.Code) {
	w.Helper()
	const at = 8
	var sessions [at]string
	w.atOnce(at, func(i int) {
		mine := p
		session := account.NewToken()
		mine.Hash, mine.Session, mine.Ends, mine.At = fmt.Sprint("hash ", session), account.HashToken(session), w.clock.Now().Add(time.Hour), w.clock.Now()
		_, err := w.engine.SetUserPassword(w.ctx, mine)
		if err == nil {
			sessions[i] = session
		}
		w.allow(err, refused)
	})
	won := slices.IndexFunc(sessions[:], func(s string) bool { return s != "" })
	if won < 0 || slices.ContainsFunc(sessions[won+1:], func(s string) bool { return s != "" }) {
		w.Fatalf("it was set by %q", sessions)
	}
	_, hash, err := w.engine.UserAndPassword(w.ctx, user)
	w.check(err)
	if hash != "hash "+sessions[won] || !w.signedIn(sessions[won], user) {
		w.Errorf("%d won, the password is %q", won, hash)
	}
}

// rounds is how often what happens at once is tried: the first time, connections
// are made one after the other.
const rounds = 5

// However many use a link at once, one sets the password.
func testAccessLinkOnce(w *world) {
	ann := w.user("ann", 0)
	for range rounds {
		link, _, err := w.accounts.NewLink(w.ctx, w.root, ann.ID)
		w.check(err)
		entries := w.entries()
		w.passwordsAtOnce(account.NewPassword{Link: account.HashToken(link), By: account.Actor{Address: addressA}}, ann.ID, refusal.AccountLink)
		if n := w.entries() - entries; n != 1 {
			w.Errorf("%d entries for one link", n)
		}
	}
	w.audit()
}

func testAccessLinkGuesses(w *world) {
	ann := w.user("ann", 0)
	accounts := account.NewService(w.engine, guess.New(3, guessWindow, w.clock.Now), w.clock.Now)
	link, _, err := accounts.NewLink(w.ctx, w.root, ann.ID)
	w.check(err)
	for range 20 {
		_, err = accounts.Link(w.ctx, "wrong")
		w.refused(err, refusal.AccountLink)
		_, _, err = accounts.SetPasswordByLink(w.ctx, "wrong", "correct horse", addressA)
		w.refused(err, refusal.AccountLink)
	}
	token, err := accounts.RenewToken(w.ctx, ann, ann.ID)
	w.check(err)
	_, _, err = accounts.LoginToken(w.ctx, token, addressA)
	w.check(err)
	// Nor is one who has guessed too often kept from the link that they were given.
	for range 3 {
		_, _, err = accounts.Login(w.ctx, "ann", "wrong", addressA)
		w.refused(err, refusal.AccountWrongPassword)
	}
	_, _, err = accounts.LoginToken(w.ctx, token, addressA)
	w.tooMany(err, guessWindow)
	_, _, err = accounts.SetPasswordByLink(w.ctx, link, "correct horse", addressA)
	w.check(err)
}

// begin begins a session of a user by the password that there is, if any.
func (w *world) begin(id int64, session string, ends time.Time) {
	w.Helper()
	_, hash, err := w.engine.UserAndPassword(w.ctx, id)
	w.check(err)
	w.check(w.engine.StartSession(w.ctx, account.NewSession{
		UserID: id, Password: hash, Session: account.HashToken(session), Ends: ends,
	}))
}

// meanwhile is a database in which something happens after a user was looked up.
type meanwhile struct {
	Engine
	then func()
}

func (m *meanwhile) UserByName(ctx context.Context, name string) (account.User, string, error) {
	u, hash, err := m.Engine.UserByName(ctx, name)
	m.then()
	return u, hash, err
}

func (m *meanwhile) UserByToken(ctx context.Context, token account.Hash) (account.User, error) {
	u, err := m.Engine.UserByToken(ctx, token)
	m.then()
	return u, err
}

// What was right when it was looked at, and is so no longer, begins no session.
func testAccessLateSignIn(w *world) {
	ann := w.user("ann", 0)
	password := func() {
		link, _, err := w.accounts.NewLink(w.ctx, w.root, ann.ID)
		w.check(err)
		_, _, err = w.accounts.SetPasswordByLink(w.ctx, link, "correct horse", addressB)
		w.check(err)
	}
	password()
	token := func() string {
		token, err := w.accounts.RenewToken(w.ctx, w.root, ann.ID)
		w.check(err)
		return token
	}
	status := func(s account.Status) { w.check(w.accounts.SetStatus(w.ctx, w.root, ann.ID, s)) }
	for name, c := range map[string]struct {
		then         func()
		login, token refusal.Code
	}{
		"nothing": {func() {}, "", ""},
		// The same password: its hash is another.
		"a new password": {password, refusal.AccountWrongPassword, ""},
		"a new token":    {func() { token() }, "", refusal.AccountWrongToken},
		"disabled":       {func() { status(account.StatusDisabled) }, refusal.AccountDisabled, refusal.AccountDisabled},
	} {
		accounts := account.NewService(&meanwhile{w.engine, c.then}, nil, w.clock.Now)
		see := func(session string, err error, want refusal.Code) {
			w.Helper()
			status(account.StatusEnabled)
			if want != "" {
				w.refused(err, want)
			} else if w.check(err); !w.signedIn(session, ann.ID) {
				w.Errorf("%s: it is no session", name)
			}
		}
		_, session, err := accounts.Login(w.ctx, "ann", "correct horse", addressA)
		see(session, err, c.login)
		_, session, err = accounts.LoginToken(w.ctx, token(), addressA)
		see(session, err, c.token)
	}
	w.refused(w.engine.StartSession(w.ctx, account.NewSession{UserID: 99}), refusal.AccountWrongPassword)
	w.audit()
}

// While passwords are computed, as many as may be at once, links and tokens are
// looked at all the same.
func testAccessPlaces(w *world) {
	ann := w.user("ann", 0)
	token, err := w.accounts.RenewToken(w.ctx, ann, ann.ID)
	w.check(err)
	link, _, err := w.accounts.NewLink(w.ctx, w.root, ann.ID)
	w.check(err)
	const at = 2
	in, out := make(chan struct{}, at), make(chan struct{})
	var first atomic.Int64
	accounts := account.NewService(&meanwhile{w.engine, func() {
		if first.Add(1) <= at {
			in <- struct{}{}
			<-out
		}
	}}, nil, w.clock.Now)
	var wg sync.WaitGroup
	for range at {
		wg.Go(func() {
			_, _, err := accounts.Login(w.ctx, "ann", "wrong", addressA)
			w.allow(err, refusal.AccountWrongPassword)
		})
	}
	defer wg.Wait()
	defer close(out)
	for range at {
		<-in
	}
	ctx := w.eventually()
	_, _, err = accounts.LoginToken(ctx, token, addressA)
	w.check(err)
	_, err = accounts.Link(ctx, link)
	w.check(err)
	_, err = accounts.Link(ctx, "wrong")
	w.refused(err, refusal.AccountLink)
}

func testAccessLinkForgotten(w *world) {
	var links []string
	for i := range 5 {
		link, _, err := w.accounts.NewLink(w.ctx, w.root, w.user(fmt.Sprint("u", i), 0).ID)
		w.check(err)
		links = append(links, link)
		w.clock.Add(time.Second)
	}
	start := w.clock.Now()
	w.clock.Add(account.LinkFor - 3*time.Second)
	w.check(w.accounts.Forget(w.ctx))
	w.clock.Set(start) // those forgotten are gone even if the clock comes back
	for i, link := range links {
		_, err := w.accounts.Link(w.ctx, link)
		if there := err == nil; there != (i > 2) {
			w.Errorf("link %d is there: %v", i, there)
		}
	}
}

func testAccessPassword(w *world) {
	ann := w.user("ann", 0)
	accounts := account.NewService(w.engine, guess.New(3, guessWindow, w.clock.Now), w.clock.Now)
	has := func(want bool) {
		w.Helper()
		if got, err := accounts.HasPassword(w.ctx, ann); err != nil || got != want {
			w.Errorf("has a password: %v, %v", got, err)
		}
	}
	has(false)
	_, err := accounts.SetPassword(w.ctx, ann, "", "short")
	w.refused(err, refusal.AccountPassword)
	_, err = accounts.SetPassword(w.ctx, ann, "something", "correct horse")
	w.refused(err, refusal.AccountWrongPassword)
	first, err := accounts.SetPassword(w.ctx, ann, "", "correct horse")
	w.check(err)
	w.wantAct(account.KindUserPassword, ann.ID, ann, "")
	has(true)
	link, _, err := accounts.NewLink(w.ctx, w.root, ann.ID)
	w.check(err)
	second, err := accounts.SetPassword(w.ctx, ann, "correct horse", "battery staple")
	w.check(err)
	if w.signedIn(first, ann.ID) || !w.signedIn(second, ann.ID) {
		w.Error("not the sessions of before have ended")
	}
	_, err = accounts.Link(w.ctx, link)
	w.refused(err, refusal.AccountLink) // it would set another
	_, _, err = accounts.Login(w.ctx, "ann", "battery staple", addressB)
	w.check(err)
	unchanged := w.unchanged()
	for range 2 { // and one of before
		_, err = accounts.SetPassword(w.ctx, ann, "correct horse", "another horse")
		w.refused(err, refusal.AccountWrongPassword)
	}
	_, err = accounts.SetPassword(w.ctx, ann, "battery staple", "another horse")
	w.tooMany(err, guessWindow)
	_, _, err = accounts.Login(w.ctx, "ann", "battery staple", "203.0.113.77") // the same guesses
	w.tooMany(err, guessWindow)
	_, err = accounts.SetPassword(w.ctx, account.Operator(), "", "correct horse")
	w.refused(err, refusal.AccountNotFound)
	unchanged()
	w.audit()
}

// Of those who change a password at once, all knowing the old one, one does.
func testAccessPasswordOnce(w *world) {
	ann := w.user("ann", 0)
	for range rounds {
		_, old, err := w.engine.UserAndPassword(w.ctx, ann.ID)
		w.check(err)
		w.passwordsAtOnce(account.NewPassword{Old: old, By: ann}, ann.ID, refusal.AccountWrongPassword)
	}
	w.audit()
}

// Who may decide about whom.
func testAccessWho(w *world) {
	people := map[string]account.Actor{
		"cli": account.Operator(), "root": w.root, "root2": w.person("root2", account.RoleRoot, 0),
		"admin": w.person("admin", account.RoleAdmin, 0), "admin2": w.person("admin2", account.RoleAdmin, 0),
		"user": w.user("user", 0), "user2": w.user("user2", 0),
	}
	for whom, u := range people {
		if whom != "cli" { // something to take away
			_, err := w.accounts.AddQuota(w.ctx, w.root, u.ID, 100, "a test", nil)
			w.check(err)
		}
	}
	name := "New name"
	acts := map[string]func(by account.Actor, id int64) error{
		"link": func(by account.Actor, id int64) error {
			_, _, err := w.accounts.NewLink(w.ctx, by, id)
			return err
		},
		"sign out": func(by account.Actor, id int64) error { return w.accounts.EndSessions(w.ctx, by, id) },
		"token": func(by account.Actor, id int64) error {
			_, err := w.accounts.RenewToken(w.ctx, by, id)
			return err
		},
		"status": func(by account.Actor, id int64) error {
			return w.accounts.SetStatus(w.ctx, by, id, account.StatusEnabled)
		},
		"name": func(by account.Actor, id int64) error { return w.accounts.SetDisplayName(w.ctx, by, id, name) },
		"quota": func(by account.Actor, id int64) error {
			_, err := w.accounts.AddQuota(w.ctx, by, id, 1, "a test", nil)
			return err
		},
		"take": func(by account.Actor, id int64) error {
			_, err := w.accounts.AddQuota(w.ctx, by, id, -1, "a test", nil)
			return err
		},
		"role": func(by account.Actor, id int64) error {
			return w.accounts.SetRole(w.ctx, by, id, account.RoleUser)
		},
	}
	over := []string{
		"cli>root", "cli>root2", "cli>admin", "cli>admin2", "cli>user", "cli>user2",
		"root>root", "root>root2", "root>admin", "root>admin2", "root>user", "root>user2",
		"admin>user", "admin>user2",
	}
	self := []string{"root>root", "admin>admin", "user>user"}
	for act, do := range acts {
		if act == "role" {
			continue // in a test of its own
		}
		for _, by := range []string{"cli", "root", "admin", "user"} {
			for whom, u := range people {
				if whom == "cli" {
					continue
				}
				may := slices.Contains(over, by+">"+whom)
				switch act {
				case "sign out", "token", "name":
					may = may || slices.Contains(self, by+">"+whom)
				case "quota":
					may = by != "user"
				}
				err := do(people[by], u.ID)
				if may && err != nil || !may && refusal.CodeOf(err) != refusal.Forbidden {
					w.Errorf("%s: %s of %s: %v", act, by, whom, err)
				}
			}
			if people[by].Role >= account.RoleAdmin {
				w.refused(do(people[by], 99), refusal.AccountNotFound)
			} else {
				w.refused(do(people[by], 99), refusal.Forbidden)
			}
		}
	}
	w.refused(w.accounts.SetStatus(w.ctx, w.root, w.root.ID, account.StatusDisabled), refusal.AccountOneself)
	w.refused(w.accounts.SetStatus(w.ctx, people["admin"], people["admin"].ID, account.StatusDisabled), refusal.Forbidden)
	w.check(w.accounts.SetStatus(w.ctx, people["admin"], people["user"].ID, account.StatusDisabled))
	w.wantAct(account.KindUserDisable, people["user"].ID, people["admin"], "")
	w.check(w.accounts.SetStatus(w.ctx, people["root2"], w.root.ID, account.StatusDisabled))
	w.audit()
}

func testAccessRole(w *world) {
	admin, user := w.person("admin", account.RoleAdmin, 0), w.user("user", 0)
	for _, c := range []struct {
		by   account.Actor
		id   int64
		role account.Role
		want refusal.Code
	}{
		{admin, user.ID, account.RoleUser, refusal.Forbidden},
		{user, user.ID, account.RoleAdmin, refusal.Forbidden},
		{w.root, user.ID, account.RoleRoot, refusal.AccountRoleTooHigh},
		{w.root, user.ID, 5, refusal.AccountRole},
		{w.root, 99, account.RoleAdmin, refusal.AccountNotFound},
		{w.root, 1, account.RoleAdmin, refusal.AccountLastRoot},
		{account.Operator(), 1, account.RoleUser, refusal.AccountLastRoot},
	} {
		unchanged := w.unchanged()
		w.refused(w.accounts.SetRole(w.ctx, c.by, c.id, c.role), c.want)
		unchanged()
	}
	set := func(by account.Actor, id int64, role account.Role, detail string) {
		w.Helper()
		w.check(w.accounts.SetRole(w.ctx, by, id, role))
		w.wantAct(account.KindUserRole, id, by, detail)
		u, err := w.engine.UserByID(w.ctx, id)
		w.check(err)
		if u.Role != role {
			w.Errorf("the user is %+v", u)
		}
	}
	set(w.root, user.ID, account.RoleAdmin, `{"role":[1,10]}`)
	unchanged := w.unchanged()
	w.check(w.accounts.SetRole(w.ctx, w.root, user.ID, account.RoleAdmin))
	unchanged()
	set(account.Operator(), user.ID, account.RoleRoot, `{"role":[10,100]}`)
	// A disabled root is no other root.
	w.check(w.accounts.SetStatus(w.ctx, w.root, user.ID, account.StatusDisabled))
	w.refused(w.accounts.SetRole(w.ctx, w.root, 1, account.RoleUser), refusal.AccountLastRoot)
	set(w.root, user.ID, account.RoleUser, `{"role":[100,1]}`)
	set(account.Operator(), admin.ID, account.RoleRoot, `{"role":[10,100]}`)
	set(w.root, 1, account.RoleUser, `{"role":[100,1]}`)
	w.audit()
}

// Who was over a user and made a link or a token for them, or chose a password by
// a link, is not in by it once the user has a higher role.
func testAccessPromotion(w *world) {
	admin, bob := w.person("admin", account.RoleAdmin, 0), w.user("bob", 0)
	for _, c := range []struct {
		by   account.Actor
		role account.Role
		ends bool
	}{
		{w.root, account.RoleUser, false}, // as it is
		{w.root, account.RoleAdmin, true},
		{w.root, account.RoleUser, false}, // lower
		{account.Operator(), account.RoleRoot, true},
	} {
		by := admin
		if u, err := w.accounts.Get(w.ctx, w.root, bob.ID); err != nil || u.Role >= by.Role {
			by = w.root
		}
		link, _, err := w.accounts.NewLink(w.ctx, by, bob.ID)
		w.check(err)
		_, _, err = w.accounts.SetPasswordByLink(w.ctx, link, "correct horse", addressA)
		w.check(err)
		link, _, err = w.accounts.NewLink(w.ctx, by, bob.ID)
		w.check(err)
		token, err := w.accounts.RenewToken(w.ctx, by, bob.ID)
		w.check(err)
		_, session, err := w.accounts.LoginToken(w.ctx, token, addressA)
		w.check(err)
		w.check(w.accounts.SetRole(w.ctx, c.by, bob.ID, c.role))
		_, linkErr := w.accounts.Link(w.ctx, link)
		_, tokenErr := w.accounts.AuthenticateToken(w.ctx, token)
		_, _, passwordErr := w.accounts.Login(w.ctx, "bob", "correct horse", addressB)
		if c.ends {
			w.refused(passwordErr, refusal.AccountWrongPassword)
			w.refused(linkErr, refusal.AccountLink)
			w.refused(tokenErr, refusal.Unauthenticated)
		} else {
			w.check(linkErr)
			w.check(tokenErr)
			w.check(passwordErr)
		}
		if w.signedIn(session, bob.ID) == c.ends {
			w.Errorf("to %d: that the session ended is not %v", c.role, c.ends)
		}
	}
	w.audit()
}

// However many roots lose their role, or are disabled, at once, one stays.
func testAccessLastRootRole(w *world) {
	roots := []int64{1}
	for i := range 5 {
		roots = append(roots, w.person(fmt.Sprint("root", i), account.RoleRoot, 0).ID)
	}
	var wg sync.WaitGroup
	var refusedN atomic.Int64
	for i, id := range roots {
		wg.Go(func() {
			err := w.accounts.SetRole(w.ctx, account.Operator(), id, account.RoleUser)
			if i%2 == 1 {
				err = w.accounts.SetStatus(w.ctx, account.Operator(), id, account.StatusDisabled)
			}
			if refusal.CodeOf(err) == refusal.AccountLastRoot {
				refusedN.Add(1)
			} else if err != nil {
				w.Error(err)
			}
		})
	}
	wg.Wait()
	left := 0
	for _, id := range roots {
		u, err := w.engine.UserByID(w.ctx, id)
		w.check(err)
		if u.Status == account.StatusEnabled && u.Role == account.RoleRoot {
			left++
		}
	}
	if left != 1 {
		w.Errorf("%d roots are left, %d calls were refused", left, refusedN.Load())
	}
	w.audit()
}

func testAccessDisplayName(w *world) {
	ann := w.user("ann", 0)
	w.check(w.accounts.SetDisplayName(w.ctx, ann, ann.ID, " 安 \"A\" "))
	w.wantAct(account.KindUserChange, ann.ID, ann, `{"display_name":["ann","安 \"A\""]}`)
	u, err := w.engine.UserByID(w.ctx, ann.ID)
	w.check(err)
	if u.DisplayName != `安 "A"` || u.Username != "ann" {
		w.Errorf("the user is %+v", u)
	}
	for _, bad := range []string{"", "  ", "a\nb", strings.Repeat("x", 65), "\xff"} {
		w.refused(w.accounts.SetDisplayName(w.ctx, ann, ann.ID, bad), refusal.AccountDisplayName)
	}
	unchanged := w.unchanged()
	w.check(w.accounts.SetDisplayName(w.ctx, ann, ann.ID, u.DisplayName))
	unchanged()
	w.audit()
}

func testAccessQuota(w *world) {
	ann, admin := w.user("ann", 5), w.person("admin", account.RoleAdmin, 0)
	add := func(amount int64, reason string) error {
		_, err := w.accounts.AddQuota(w.ctx, admin, ann.ID, amount, reason, nil)
		return err
	}
	u, err := w.accounts.AddQuota(w.ctx, admin, ann.ID, 10, " for <\"help\"> 谢谢 ", nil)
	w.check(err)
	if u.ID != ann.ID || u.Quota != 15 {
		w.Errorf("the user is %+v", u)
	}
	w.wantAct(account.KindQuota, ann.ID, admin, `{"reason":"for \u003c\"help\"\u003e 谢谢"}`)
	w.check(add(-15, "mistake"))
	if e := w.lastEntry(); e.Amount != -15 {
		w.Errorf("the entry is %+v", e)
	}
	w.wantBalance(ann.ID, 0)
	unchanged := w.unchanged()
	w.refused(add(-1, "x"), refusal.AccountBalanceTooLow)
	w.refused(add(math.MinInt64, "x"), refusal.AccountBalanceTooLow)
	w.refused(add(0, "x"), refusal.AccountQuotaChange)
	for _, bad := range []string{"", " ", "a\nb", strings.Repeat("因", 201), "\xff"} {
		w.refused(add(1, bad), refusal.AccountReason)
	}
	unchanged()
	w.check(add(math.MaxInt64, strings.Repeat("因", 200)))
	unchanged = w.unchanged()
	w.refused(add(1, "x"), refusal.AccountBalanceTooHigh)
	w.refused(add(math.MaxInt64, "x"), refusal.AccountBalanceTooHigh)
	unchanged()
	w.check(add(-math.MaxInt64, "all"))
	w.check(w.accounts.SetStatus(w.ctx, admin, ann.ID, account.StatusDisabled))
	w.check(add(3, "a disabled user's balance can be mended"))

	ring, err := w.engine.Keys().Reload(w.ctx)
	w.check(err)
	for i := range 2 {
		_, err := w.accounts.AddQuota(w.ctx, admin, ann.ID, 4, "once", w.once(ring, "grant", "body"))
		if _, replayed := errors.AsType[*account.Replay](err); replayed != (i == 1) || !replayed && err != nil {
			w.Errorf("time %d: %v", i, err)
		}
	}
	w.wantBalance(ann.ID, 7)
	w.audit()
}

// Grants and redeems of one account at once add up, and none goes below 0.
func testAccessQuotaAtOnce(w *world) {
	ann := w.user("ann", 10)
	codes := w.issue("codes", 8, 5, time.Time{})
	var wg sync.WaitGroup
	var taken atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			_, err := w.codes.Redeem(w.ctx, ann, codes[i].Key, nil)
			w.allow(err)
		})
		wg.Go(func() {
			_, err := w.accounts.AddQuota(w.ctx, w.root, ann.ID, -7, "taken", nil)
			if err == nil {
				taken.Add(7)
			}
			w.allow(err, refusal.AccountBalanceTooLow)
		})
	}
	wg.Wait()
	w.wantBalance(ann.ID, 50-taken.Load())
	w.audit()
}

func testAccessSearch(w *world) {
	for i := range 12 {
		w.user(fmt.Sprintf("u%02d", i), 0) // 2 to 13
	}
	for _, name := range []string{"U00", "u", "安全", "安", "é", "u0", "10", "2", "101"} { // 14 to 22
		w.user(name, 0)
	}
	w.person("u-admin", account.RoleAdmin, 0) // 23
	w.person("boss", account.RoleAdmin, 0)    // 24
	for _, id := range []int64{3, 5, 24} {
		w.check(w.accounts.SetStatus(w.ctx, w.root, id, account.StatusDisabled))
	}
	for _, c := range []struct {
		name string
		q    account.UserQuery
		want []int64
	}{
		{"all", account.UserQuery{Limit: 100}, []int64{24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}},
		{"admins", account.UserQuery{Role: account.RoleAdmin}, []int64{24, 23}},
		{"roots", account.UserQuery{Role: account.RoleRoot}, []int64{1}},
		{"disabled", account.UserQuery{Status: account.StatusDisabled}, []int64{24, 5, 3}},
		{"disabled admins", account.UserQuery{Status: account.StatusDisabled, Role: account.RoleAdmin}, []int64{24}},
		{"disabled users", account.UserQuery{Status: account.StatusDisabled, Role: account.RoleUser}, []int64{5, 3}},
		{"enabled u", account.UserQuery{Status: account.StatusEnabled, Prefix: "u0"}, []int64{19, 2, 4, 6, 7, 8, 9, 10, 11}},
		{"u0", account.UserQuery{Prefix: "u0"}, []int64{19, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
		{"u", account.UserQuery{Prefix: "u"}, []int64{15, 23, 19, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}},
		{"disabled u", account.UserQuery{Prefix: "u", Status: account.StatusDisabled}, []int64{3, 5}},
		{"admin u", account.UserQuery{Prefix: "u", Role: account.RoleAdmin}, []int64{23}},
		{"U", account.UserQuery{Prefix: "U"}, []int64{14}},
		{"han", account.UserQuery{Prefix: "安"}, []int64{17, 16}},
		{"accent", account.UserQuery{Prefix: "é"}, []int64{18}},
		{"an id, and names", account.UserQuery{Prefix: "10"}, []int64{20, 22, 10}},
		{"an id and a name", account.UserQuery{Prefix: "2"}, []int64{21, 2}},
		{"an id of another role", account.UserQuery{Prefix: "2", Role: account.RoleAdmin}, nil},
		{"nobody", account.UserQuery{Prefix: "nobody"}, nil},
		{"no name", account.UserQuery{Prefix: "a\x00"}, nil},
		{"no pattern", account.UserQuery{Prefix: "%"}, nil},
	} {
		for _, limit := range []int{100, 3, 1} {
			q := c.q
			q.Limit = limit
			var got []int64
			for {
				page, err := w.accounts.Search(w.ctx, w.root, q)
				w.check(err)
				if len(page) > limit {
					w.Errorf("%s: a page of %d", c.name, len(page))
				}
				for _, u := range page {
					got = append(got, u.ID)
				}
				if len(page) < limit {
					break
				}
				q.Before = page[len(page)-1].ID
			}
			if !slices.Equal(got, c.want) {
				w.Errorf("%s by %d: found %v, want %v", c.name, limit, got, c.want)
			}
		}
	}
	if found, err := w.accounts.Search(w.ctx, w.root, account.UserQuery{}); err != nil || len(found) != 1 {
		w.Errorf("without a limit: %d, %v", len(found), err)
	}
	_, err := w.accounts.Search(w.ctx, w.root, account.UserQuery{Role: 7})
	w.refused(err, refusal.AccountRole)
	_, err = w.accounts.Search(w.ctx, w.root, account.UserQuery{Status: 7})
	w.refused(err, refusal.InvalidRequest)
	_, err = w.accounts.Search(w.ctx, account.Actor{ID: 2, Role: account.RoleUser}, account.UserQuery{})
	w.refused(err, refusal.Forbidden)
}

func testAccessHistory(w *world) {
	ann, ben := w.user("ann", 3), w.person("ben", account.RoleAdmin, 0)
	codes := w.issue("codes", 30, 5, time.Time{})
	var want []int64 // amounts, newest first
	note := func(amount int64) { want = append([]int64{amount}, want...) }
	note(3)
	for i, c := range codes[:20] {
		w.redeem(ann, c.Key)
		note(5)
		if i%5 == 0 {
			_, err := w.accounts.AddQuota(w.ctx, ben, ann.ID, int64(-i-1), "taken", nil)
			w.check(err)
			note(int64(-i - 1))
		}
		if i%7 == 0 {
			w.check(w.accounts.SetDisplayName(w.ctx, ann, ann.ID, fmt.Sprint("ann ", i)))
		}
	}
	_, err := w.accounts.AddQuota(w.ctx, ben, ann.ID, 2, "given", nil)
	w.check(err)
	note(2)
	// Of no interest to ann, and in the way of ben.
	w.redeem(ben, codes[20].Key)
	_, err = w.accounts.AddQuota(w.ctx, ben, ben.ID, 9, "own", nil)
	w.check(err)
	for range 25 {
		w.check(w.accounts.EndSessions(w.ctx, ben, ann.ID))
	}
	w.redeem(ben, codes[21].Key)
	for _, c := range []struct {
		by   account.Actor
		want []int64
	}{{ann, want}, {ben, []int64{5, 9, 5}}, {account.Actor{ID: 99, Role: account.RoleUser}, nil}} {
		for _, limit := range []int{1000, 4, 1} {
			var got []int64
			var last int64 = math.MaxInt64
			for before, pages := int64(0), 0; ; pages++ {
				entries, next, err := w.accounts.History(w.ctx, c.by, before, limit)
				w.check(err)
				if len(entries) > limit || pages > 100 {
					w.Fatalf("page %d has %d entries", pages, len(entries))
				}
				for _, e := range entries {
					if e.ID >= last || e.AccountID != c.by.ID || e.Kind != account.KindRedeem && e.Kind != account.KindQuota {
						w.Errorf("after %d comes %+v", last, e)
					}
					last = e.ID
					got = append(got, e.Amount)
				}
				if before = next; next == 0 {
					break
				}
			}
			if !slices.Equal(got, c.want) {
				w.Errorf("the history of %d by %d is %v, want %v", c.by.ID, limit, got, c.want)
			}
		}
	}
}

func testAccessReveal(w *world) {
	codes := w.issue("codes", 12, 5, time.Time{})
	first := codes[0].ID
	ids := func(places ...int64) (out []int64) {
		for _, p := range places {
			out = append(out, first+p)
		}
		return out
	}
	w.check(w.codes.Delete(w.ctx, w.root, first+11))
	for _, c := range []struct {
		ask, want []int64
		count     int64
		detail    string
	}{
		{ids(0), ids(0), 1, ""},
		{ids(3, 2, 1), ids(3, 2, 1), 3, ""},
		{ids(9, 1, 1, 2, 5), ids(9, 1, 2, 5), 4, fmt.Sprintf(`{"ids":"%d-%d,%d,%d"}`, first+1, first+2, first+5, first+9)},
		{ids(11, 4), ids(4), 1, ""},
		{ids(6, 8), ids(6, 8), 2, fmt.Sprintf(`{"ids":"%d,%d"}`, first+6, first+8)},
	} {
		views, err := w.codes.Reveal(w.ctx, w.root, c.ask)
		w.check(err)
		var got []int64
		for _, v := range views {
			got = append(got, v.ID)
			if v.Key != codes[v.ID-first].Key {
				w.Errorf("code %d has the key %q", v.ID, v.Key)
			}
		}
		if !slices.Equal(got, c.want) {
			w.Errorf("asked for %v: got %v", c.ask, got)
		}
		e := w.lastEntry()
		if e.Kind != account.KindReveal || e.FirstID != slices.Min(c.want) || e.LastID != slices.Max(c.want) || e.Count != c.count ||
			e.Detail != c.detail || e.ActorID != w.root.ID || e.Address != w.root.Address || e.Amount != 0 {
			w.Errorf("asked for %v: the entry is %+v", c.ask, e)
		}
	}
	user := w.user("u", 0)
	unchanged := w.unchanged()
	for _, c := range []struct {
		by   account.Actor
		ids  []int64
		want refusal.Code
	}{
		{user, ids(0), refusal.Forbidden},
		{w.root, nil, refusal.InvalidRequest},
		{w.root, make([]int64, 101), refusal.InvalidRequest},
		{w.root, ids(11), refusal.RedemptionNotFound},
		{w.root, []int64{-1, 0, math.MaxInt64}, refusal.RedemptionNotFound},
	} {
		_, err := w.codes.Reveal(w.ctx, c.by, c.ids)
		w.refused(err, c.want)
	}
	unchanged()
	entries, err := w.accounts.Ledger(w.ctx, w.root, account.LedgerFilter{CodeID: first + 1, Limit: 10})
	w.check(err)
	if len(entries) != 3 { // issued, and shown twice
		w.Errorf("the story of a code is %+v", entries)
	}
	w.audit()
}

func testAccessGuessing(w *world) {
	w.guessing(func(name string) *guess.Limiter { return guess.New(4, guessWindow, w.clock.Now) })
}

// guessing sees who guesses, and that they are forgiven.
func (w *world) guessing(limiter func(name string) *guess.Limiter) {
	w.Helper()
	accounts := account.NewService(w.engine, limiter("logins"), w.clock.Now)
	codes := w.guarded(limiter("redeems"))
	ann := w.user("ann", 0)
	link, _, err := accounts.NewLink(w.ctx, w.root, ann.ID)
	w.check(err)
	_, _, err = accounts.SetPasswordByLink(w.ctx, link, "correct horse", addressB)
	w.check(err)
	login := func(name, password, address string) error {
		_, _, err := accounts.Login(w.ctx, name, password, address)
		return err
	}
	begun := w.clock.Now()
	w.refused(login("ann", "wrong", addressA), refusal.AccountWrongPassword)
	want := func(list func() ([]guess.Suspect, error), want ...guess.Suspect) {
		w.Helper()
		got, err := list()
		w.check(err)
		slices.SortStableFunc(got, func(a, b guess.Suspect) int { return strings.Compare(a.Subject, b.Subject) })
		slices.SortStableFunc(got, func(a, b guess.Suspect) int { return int(b.Failed - a.Failed) })
		if len(got) != len(want) {
			w.Fatalf("%d suspects, want %d: %+v", len(got), len(want), got)
		}
		for i := range got {
			if !got[i].Until.Equal(want[i].Until) {
				w.Errorf("until %v, want %v", got[i].Until, want[i].Until)
			}
			if got[i].Until = want[i].Until; got[i] != want[i] {
				w.Errorf("the suspect is %+v, want %+v", got[i], want[i])
			}
		}
	}
	logins := func() ([]guess.Suspect, error) { return accounts.Guessing(w.ctx, w.root) }
	redeems := func() ([]guess.Suspect, error) { return codes.Guessing(w.ctx, w.root) }
	want(logins) // less than half
	w.clock.Add(time.Second)
	w.refused(login("ann", "wrong", addressA), refusal.AccountWrongPassword)
	w.refused(login("a password in the wrong field", "wrong", addressA), refusal.AccountWrongPassword)
	w.refused(login("a password in the wrong field", "wrong", "2001:db8::7"), refusal.AccountWrongPassword)
	_, _, err = accounts.LoginToken(w.ctx, "wrong", "2001:db8::8")
	w.refused(err, refusal.AccountWrongToken)
	until := begun.Add(guessWindow)
	a := guess.Suspect{Subject: guess.Address(addressA), Address: addressA, Failed: 3, Until: until}
	six := guess.Suspect{
		Subject: guess.Address("2001:db8::7"), Address: "2001:db8::/64", Failed: 2, Until: w.clock.Now().Add(guessWindow),
	}
	u := guess.Suspect{Subject: guess.Account(ann.ID), AccountID: ann.ID, Failed: 2, Until: until}
	want(logins, a, six, u)
	want(redeems)
	for range 2 {
		w.refused(login("ann", "wrong", addressB), refusal.AccountWrongPassword)
	}
	w.tooMany(login("ann", "correct horse", "203.0.113.1"), guessWindow-time.Second)

	// Forgiving an account lets its user in; the address stays what it was.
	w.refused(accounts.Forgive(w.ctx, ann, u.Subject), refusal.Forbidden)
	_, err = accounts.Guessing(w.ctx, ann)
	w.refused(err, refusal.Forbidden)
	w.check(accounts.Forgive(w.ctx, w.root, u.Subject))
	w.check(login("ann", "correct horse", "203.0.113.1"))
	w.refused(login("ann", "wrong", addressA), refusal.AccountWrongPassword)
	w.tooMany(login("ben", "wrong", addressA), guessWindow-time.Second)
	w.check(accounts.Forgive(w.ctx, w.root, a.Subject))
	w.check(login("ann", "correct horse", addressA))
	for range 4 {
		_, err := codes.Redeem(w.ctx, ann, account.NewToken(), nil)
		w.refused(err, refusal.RedemptionUnknown)
	}
	_, err = codes.Redeem(w.ctx, ann, account.NewToken(), nil)
	w.tooMany(err, guessWindow)
	until = w.clock.Now().Add(guessWindow)
	home := guess.Suspect{Subject: guess.Address(ann.Address), Address: ann.Address, Failed: 4, Until: until}
	want(redeems, home, guess.Suspect{Subject: guess.Account(ann.ID), AccountID: ann.ID, Failed: 4, Until: until})
	for _, s := range []string{guess.Account(ann.ID), home.Subject} {
		w.check(codes.Forgive(w.ctx, w.root, s))
	}
	want(redeems)
	_, err = codes.Redeem(w.ctx, ann, account.NewToken(), nil)
	w.refused(err, refusal.RedemptionUnknown)
	w.clock.Add(guessWindow)
	want(logins)
}

// Who may forgive whose guesses, and that it is on record.
func testAccessForgive(w *world) {
	limiter := func() *guess.Limiter { return guess.New(4, guessWindow, w.clock.Now) }
	accounts, codes := account.NewService(w.engine, limiter(), w.clock.Now), w.guarded(limiter())
	admin, ann := w.person("admin", account.RoleAdmin, 0), w.user("ann", 0)
	for where, forgive := range map[string]func(by account.Actor, subject string) error{
		"signin":  func(by account.Actor, subject string) error { return accounts.Forgive(w.ctx, by, subject) },
		"redeem":  func(by account.Actor, subject string) error { return codes.Forgive(w.ctx, by, subject) },
		"machine": func(by account.Actor, subject string) error { return w.fleet.Forgive(w.ctx, by, subject) },
	} {
		in := fmt.Sprintf(`{"where":"%s"`, where)
		for _, c := range []struct {
			by      account.Actor
			subject string
			account int64
			detail  string
		}{
			{admin, guess.Account(ann.ID), ann.ID, in + "}"},
			{w.root, guess.Account(1), 1, in + "}"},
			{account.Operator(), guess.Account(admin.ID), admin.ID, in + "}"},
			{admin, guess.Address(addressA), 0, in + `,"address":"192.0.2.9"}`},
			{admin, guess.Address("2001:db8::1"), 0, in + `,"address":"2001:db8::/64"}`},
			{admin, guess.Machine("16327138", addressA), 0, in + `,"machine_no":"16327138","address":"192.0.2.9"}`},
		} {
			w.check(forgive(c.by, c.subject))
			w.wantAct(account.KindGuessForgive, c.account, c.by, c.detail)
		}
		unchanged := w.unchanged()
		for _, whom := range []int64{1, admin.ID} {
			w.refused(forgive(admin, guess.Account(whom)), refusal.Forbidden)
		}
		w.refused(forgive(ann, guess.Account(ann.ID)), refusal.Forbidden)
		w.refused(forgive(ann, guess.Address(addressA)), refusal.Forbidden)
		w.refused(forgive(w.root, guess.Account(99)), refusal.AccountNotFound)
		for _, other := range []string{
			"", "nonsense", guess.Name("root"), "u0", "u-1", "u01", "u1 ", "m16327138 u1", "m16327138", "a2001:db8::1",
			"a\x00", "a\xff", "a" + strings.Repeat("x", 100),
		} {
			w.refused(forgive(w.root, other), refusal.InvalidRequest)
		}
		unchanged()
	}

	// So an admin cannot go on guessing at root's password.
	link, _, err := accounts.NewLink(w.ctx, account.Operator(), 1)
	w.check(err)
	_, _, err = accounts.SetPasswordByLink(w.ctx, link, "correct horse", addressB)
	w.check(err)
	for range 4 {
		_, _, err = accounts.Login(w.ctx, "root", "wrong", addressA)
		w.refused(err, refusal.AccountWrongPassword)
	}
	w.refused(accounts.Forgive(w.ctx, admin, guess.Account(1)), refusal.Forbidden)
	w.check(accounts.Forgive(w.ctx, admin, guess.Address(addressA)))
	_, _, err = accounts.Login(w.ctx, "root", "wrong", addressA)
	w.tooMany(err, guessWindow)
	w.audit()
}
