package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// ModelSeed is the environment variable that fixes the seed of the model check.
const ModelSeed = "SCRIP_MODEL_SEED"

// Model compares an engine with a plain map over random steps: issue, redeem,
// change, delete, purge, sweep, rotate, move the clock, close and open again.
// It runs some fixed seeds and a random one; with ModelSeed set, only that.
func Model(t *testing.T, create func(t *testing.T) Opener) {
	t.Helper()
	const steps = 250
	runModel(t, create, func(w *world, seed uint64) walker { return newModel(w, seed) }, steps)
}

// walker is a model that takes random steps beside a database.
type walker interface {
	step()
	compareAll()
	lastSteps() string
}

func runModel(
	t *testing.T, create func(t *testing.T) Opener, begin func(w *world, seed uint64) walker, steps int,
) {
	t.Helper()
	seeds := []uint64{1, 2, 3, rand.Uint64()} //nolint:gosec // G404: any number will do
	if text := os.Getenv(ModelSeed); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s=%q is not a seed: %v", ModelSeed, text, err)
		}
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			w := newWorld(t, create)
			m := begin(w, seed)
			defer func() {
				if t.Failed() {
					t.Logf("the last steps were:\n%s", m.lastSteps())
					t.Logf("run it again with %s=%d", ModelSeed, seed)
				}
			}()
			for range steps {
				m.step()
			}
			m.compareAll()
			w.audit()
		})
	}
}

// diary is the steps that a model has taken.
type diary struct {
	clock *Clock
	steps []string
}

func (d *diary) log(format string, args ...any) {
	d.steps = append(d.steps, fmt.Sprintf("%s  ", d.clock.Now().UTC().Format("15:04:05.000"))+fmt.Sprintf(format, args...))
}

func (d *diary) last() string { return d.steps[len(d.steps)-1] }

func (d *diary) lastSteps() string { return strings.Join(d.steps[max(len(d.steps)-25, 0):], "\n") }

// model is what the database should hold, and the random source of the steps.
type model struct {
	diary

	world  *world
	random *rand.Rand

	codes    map[int64]*redemption.View
	lastCode int64
	keys     []string // ever made
	users    []*account.User
	ledger   []account.Entry // what it should say; a purge as one entry a code
	rotating bool
}

func newModel(w *world, seed uint64) *model {
	w.Helper()
	m := &model{diary: diary{clock: w.clock}, world: w, random: seeded(seed), codes: map[int64]*redemption.View{}}
	root, err := w.engine.UserByID(w.ctx, 1)
	w.check(err)
	m.users = []*account.User{&root}
	m.note(account.Operator(), account.Entry{Kind: account.KindUserCreate, AccountID: 1})
	return m
}

// note adds what the ledger should say.
func (m *model) note(by account.Actor, e account.Entry) {
	e.ActorID, e.Address, e.At = by.ID, by.Address, m.world.clock.Now()
	m.ledger = append(m.ledger, e)
}

// want compares how a call ended with how it should have.
func (m *model) want(err error, code refusal.Code) {
	m.world.Helper()
	if (err == nil) != (code == "") || refusal.CodeOf(err) != code {
		m.world.Fatalf("%s: %v, want %q", m.last(), err, code)
	}
}

func (m *model) step() {
	m.world.Helper()
	switch n := m.random.IntN(100); {
	case n < 10:
		m.issue()
	case n < 40:
		m.redeem()
	case n < 60:
		m.change()
	case n < 65:
		m.delete()
	case n < 67:
		m.purge()
	case n < 70:
		m.sweep()
	case n < 74:
		m.rotate()
	case n < 84:
		m.moveClock()
	case n < 86:
		m.reopen()
	case n < 89:
		m.createUser()
	case n < 92:
		m.setUserStatus()
	case n < 94:
		m.world.check(m.world.accounts.Forget(m.world.ctx))
	case n < 99:
		m.compareSome()
	default:
		m.compareAll()
	}
}

func (m *model) now() time.Time    { return m.world.clock.Now() }
func (m *model) second() time.Time { return time.Unix(m.now().Unix(), 0) }

// expiry is never, soon, or later.
func (m *model) expiry() time.Time {
	switch m.random.IntN(3) {
	case 0:
		return time.Time{}
	case 1:
		return m.second().Add(time.Duration(m.random.IntN(5)) * time.Second)
	}
	return m.second().Add(time.Duration(m.random.IntN(300)) * time.Second)
}

func (m *model) name() string {
	return []string{"alpha", "beta", "alphabet", "新年", "a_b", "100%"}[m.random.IntN(6)]
}

func (m *model) issue() {
	m.world.Helper()
	r := redemption.IssueRequest{
		Name: m.name(), Count: 1 + m.random.Int64N(30), Quota: 1 + m.random.Int64N(50), Expires: m.expiry(),
	}
	if m.random.IntN(20) == 0 {
		r.Quota = 1<<63 - 1 - m.random.Int64N(100)
	}
	var want refusal.Code
	switch m.random.IntN(20) {
	case 0:
		r.Count, want = 101, refusal.RedemptionCountTooLarge
	case 1:
		r.Expires, want = m.second().Add(-time.Second), refusal.RedemptionExpiry
	}
	m.log("issue %+v", r)
	keys, err := m.world.codes.Issue(m.world.ctx, m.world.root, r)
	m.want(err, want)
	if err != nil {
		return
	}
	first := m.lastCode + 1
	for _, key := range keys {
		m.lastCode++
		m.codes[m.lastCode] = &redemption.View{Key: key, Code: redemption.Code{
			ID: m.lastCode, CreatorID: 1, Name: r.Name, Status: redemption.StatusEnabled, Quota: r.Quota, Created: m.now(),
			Expires: r.Expires,
		}}
	}
	m.keys = append(m.keys, keys...)
	m.note(m.world.root, account.Entry{
		Kind: account.KindIssue, FirstID: first, LastID: m.lastCode, Count: r.Count, Amount: r.Quota,
		Detail: fmt.Sprintf(`{"expired_time":%d,"name":%q}`, toUnix(r.Expires), r.Name),
	})
}

// anyCode is a code that there is, mostly; nil if there is none.
func (m *model) anyCode() *redemption.View {
	all := slices.Sorted(maps.Keys(m.codes))
	if len(all) == 0 {
		return nil
	}
	return m.codes[all[m.random.IntN(len(all))]]
}

func (m *model) redeem() {
	m.world.Helper()
	user := m.users[m.random.IntN(len(m.users))]
	by := account.Actor{ID: user.ID, Role: user.Role, Address: "192.0.2.77"}
	key, want := "0123456789abcdef0123456789abcdef", refusal.RedemptionUnknown
	if len(m.keys) > 0 && m.random.IntN(20) > 0 {
		key = m.keys[m.random.IntN(len(m.keys))]
	}
	var code *redemption.View
	for _, c := range m.codes {
		if c.Key == key {
			code, want = c, m.redeemable(c, user)
		}
	}
	if user.Status == account.StatusDisabled {
		want = refusal.Unauthenticated
	}
	m.log("redeem %q by %d", key, user.ID)
	n, err := m.world.codes.Redeem(m.world.ctx, by, key, nil)
	m.want(err, want)
	if err != nil {
		return
	}
	if n != code.Quota {
		m.world.Fatalf("%s: credited %d, want %d", m.last(), n, code.Quota)
	}
	user.Quota += code.Quota
	code.Status, code.UsedBy, code.Redeemed = redemption.StatusUsed, user.ID, m.now()
	m.note(by, account.Entry{
		Kind: account.KindRedeem, AccountID: user.ID, FirstID: code.ID, LastID: code.ID, Count: 1, Amount: code.Quota,
	})
}

func (m *model) expired(c *redemption.View) bool {
	return !c.Expires.IsZero() && c.Expires.Unix() < m.now().Unix()
}

func (m *model) redeemable(c *redemption.View, user *account.User) refusal.Code {
	switch {
	case c.Status == redemption.StatusUsed && c.UsedBy == user.ID:
		return refusal.RedemptionUsedByYou
	case c.Status == redemption.StatusUsed:
		return refusal.RedemptionUsed
	case c.Status == redemption.StatusDisabled:
		return refusal.RedemptionDisabled
	case m.expired(c):
		return refusal.RedemptionExpired
	case user.Quota+c.Quota < 0:
		return refusal.AccountBalanceFull
	}
	return ""
}

func (m *model) change() {
	m.world.Helper()
	c := m.anyCode()
	if c == nil {
		return
	}
	var ch redemption.Change
	was, becomes := *c, *c
	var want refusal.Code
	if m.random.IntN(3) == 0 {
		becomes.Name = m.name()
		ch.Name = &becomes.Name
	}
	if m.random.IntN(4) == 0 {
		becomes.Quota = 1 + m.random.Int64N(50)
		ch.Quota = &becomes.Quota
	}
	if m.random.IntN(4) == 0 {
		becomes.Expires = m.expiry()
		ch.Expires = &becomes.Expires
	}
	if m.random.IntN(2) == 0 {
		becomes.Status = []redemption.Status{redemption.StatusEnabled, redemption.StatusDisabled}[m.random.IntN(2)]
		ch.Status = &becomes.Status
	}
	if was.Status == redemption.StatusUsed &&
		(becomes.Status != was.Status || becomes.Quota != was.Quota || !becomes.Expires.Equal(was.Expires)) {
		want = refusal.RedemptionUsedUnchanging
	}
	m.log("change %+v to %+v", was.Code, becomes.Code)
	v, err := m.world.codes.Change(m.world.ctx, m.world.root, c.ID, ch)
	m.want(err, want)
	if err != nil {
		return
	}
	sameViews(m.world.T, []redemption.View{v}, []redemption.View{becomes})
	*c = becomes
	m.noteChange(was, becomes)
}

func (m *model) noteChange(was, becomes redemption.View) {
	about := account.Entry{FirstID: was.ID, LastID: was.ID, Count: 1, Amount: becomes.Quota}
	var parts []string
	if !was.Expires.Equal(becomes.Expires) {
		parts = append(parts, fmt.Sprintf(`"expired_time":[%d,%d]`, toUnix(was.Expires), toUnix(becomes.Expires)))
	}
	if was.Name != becomes.Name {
		parts = append(parts, fmt.Sprintf(`"name":[%q,%q]`, was.Name, becomes.Name))
	}
	if was.Quota != becomes.Quota {
		parts = append(parts, fmt.Sprintf(`"quota":[%d,%d]`, was.Quota, becomes.Quota))
	}
	if len(parts) > 0 {
		e := about
		e.Kind, e.Detail = account.KindChange, "{"+strings.Join(parts, ",")+"}"
		m.note(m.world.root, e)
	}
	if was.Status != becomes.Status {
		e := about
		e.Kind = account.KindEnable
		if becomes.Status == redemption.StatusDisabled {
			e.Kind = account.KindDisable
		}
		m.note(m.world.root, e)
	}
}

func (m *model) delete() {
	m.world.Helper()
	c := m.anyCode()
	if c == nil {
		return
	}
	m.log("delete %d", c.ID)
	m.want(m.world.codes.Delete(m.world.ctx, m.world.root, c.ID), "")
	delete(m.codes, c.ID)
	m.note(m.world.root, account.Entry{
		Kind: account.KindDelete, FirstID: c.ID, LastID: c.ID, Count: 1, Amount: c.Quota,
	})
}

func (m *model) purge() {
	m.world.Helper()
	m.log("purge")
	n, err := m.world.codes.DeleteInvalid(m.world.ctx, m.world.ctx, m.world.root)
	m.want(err, "")
	var want int64
	for _, id := range slices.Sorted(maps.Keys(m.codes)) {
		if c := m.codes[id]; c.Status != redemption.StatusEnabled || m.expired(c) {
			delete(m.codes, id)
			m.note(m.world.root, account.Entry{Kind: account.KindPurge, FirstID: id, LastID: id, Count: 1})
			want++
		}
	}
	if n != want {
		m.world.Fatalf("purge removed %d, want %d", n, want)
	}
}

func (m *model) sweep() {
	m.world.Helper()
	if m.random.IntN(2) == 0 {
		m.log("sweep")
		m.world.check(m.world.codes.Sweep(m.world.ctx))
		return
	}
	m.log("one step of a sweep")
	_, err := m.world.engine.Sweep(m.world.ctx, m.now())
	m.world.check(err)
}

// rotate begins, or goes on with, a rotation, and is cut off early or not.
func (m *model) rotate() {
	m.world.Helper()
	step := func(name string) account.Entry {
		return account.Entry{Kind: account.KindRotate, Detail: `{"step":"` + name + `"}`}
	}
	begins := !m.rotating
	ctx, cancel := context.WithCancel(m.world.ctx)
	defer cancel()
	left := m.random.IntN(4)
	m.log("rotate, cut off after %d steps", left)
	ended := false
	err := m.world.engine.Rotate(ctx, func(done, total int64) {
		ended = done == total
		if left--; left <= 0 && !ended {
			cancel()
		}
	})
	if err != nil && !errors.Is(err, context.Canceled) || ended != (err == nil) {
		m.world.Fatalf("rotate: %v, ended %v", err, ended)
	}
	if begins {
		m.note(account.Operator(), step("begin"))
	}
	if m.rotating = !ended; ended {
		m.note(account.Operator(), step("end"))
	}
}

func (m *model) moveClock() {
	d := []time.Duration{
		time.Millisecond, 400 * time.Millisecond, time.Second, 2 * time.Second, time.Minute, time.Hour, -time.Second,
		-10 * time.Second, -time.Minute, 25 * time.Hour,
	}[m.random.IntN(10)]
	m.world.clock.Add(d)
	m.log("the clock moves by %v", d)
}

func (m *model) reopen() {
	m.world.Helper()
	m.log("close and open")
	m.world.check(m.world.engine.Close())
	m.world.use(m.world.handle(testSecret))
}

func (m *model) createUser() {
	m.world.Helper()
	if len(m.users) > 5 {
		return
	}
	quota := m.random.Int64N(100)
	if m.random.IntN(4) == 0 {
		quota = 1<<63 - 1 - quota
	}
	name := fmt.Sprint("user", len(m.users))
	m.log("create %s with %d", name, quota)
	u, err := m.world.accounts.Create(m.world.ctx, m.world.root, account.CreateRequest{Username: name, Quota: quota})
	m.want(err, "")
	m.users = append(m.users, &u)
	m.note(m.world.root, account.Entry{Kind: account.KindUserCreate, AccountID: u.ID})
	if quota > 0 {
		m.note(m.world.root, account.Entry{Kind: account.KindQuota, AccountID: u.ID, Amount: quota})
	}
}

func (m *model) setUserStatus() {
	m.world.Helper()
	u := m.users[m.random.IntN(len(m.users))]
	status, kind := account.StatusEnabled, account.KindUserEnable
	if m.random.IntN(2) == 0 {
		status, kind = account.StatusDisabled, account.KindUserDisable
	}
	var want refusal.Code
	if u.ID == 1 && status == account.StatusDisabled {
		want = refusal.AccountOneself
	}
	m.log("user %d becomes %d", u.ID, status)
	err := m.world.accounts.SetStatus(m.world.ctx, m.world.root, u.ID, status)
	m.want(err, want)
	if err == nil && u.Status != status {
		u.Status = status
		m.note(m.world.root, account.Entry{Kind: kind, AccountID: u.ID})
	}
}

// compareSome compares a few lists and balances.
func (m *model) compareSome() {
	m.world.Helper()
	for range 5 {
		keyword := []string{"", "a", "alpha", "年", "_", "1", "zzz"}[m.random.IntN(7)]
		if c := m.anyCode(); c != nil && m.random.IntN(3) == 0 {
			keyword = []string{c.Key, fmt.Sprint(c.ID), c.Name}[m.random.IntN(3)]
		}
		m.log("search %q", keyword)
		m.world.compare(m.random, m.codes, keyword, allFilters()[m.random.IntN(5)])
	}
	u := m.users[m.random.IntN(len(m.users))]
	got, err := m.world.engine.UserByID(m.world.ctx, u.ID)
	m.world.check(err)
	m.sameUser(got, *u)
}

func (m *model) sameUser(got, want account.User) {
	m.world.Helper()
	if got.Created.Equal(want.Created) {
		got.Created = want.Created
	}
	if got != want {
		m.world.Fatalf("account %+v, want %+v", got, want)
	}
}

// compareAll compares everything that can be seen.
func (m *model) compareAll() {
	m.world.Helper()
	m.log("compare everything")
	for _, f := range allFilters() {
		m.world.walk(m.codes, "", f, 1+m.random.Int64N(100))
		m.world.walk(m.codes, "alpha", f, 100)
	}
	users, total, err := m.world.engine.Users(m.world.ctx, 0, 100)
	m.world.check(err)
	if int(total) != len(m.users) || len(users) != len(m.users) {
		m.world.Fatalf("%d of %d users, want %d", len(users), total, len(m.users))
	}
	for i, u := range users {
		m.sameUser(u, *m.users[len(users)-1-i])
	}
	m.world.verify(nil)
	m.compareLedger()
	if m.world.Failed() {
		m.world.FailNow()
	}
}

func (m *model) compareLedger() {
	m.world.Helper()
	var got []account.Entry
	for _, e := range m.world.ledger() {
		e.ID, e.Lane, e.Seq, e.MAC = 0, 0, 0, nil
		if e.Kind != account.KindPurge {
			got = append(got, e)
			continue
		}
		gone, err := purged(e)
		m.world.check(err)
		for _, id := range gone {
			e.FirstID, e.LastID, e.Count, e.Detail = id, id, 1, ""
			got = append(got, e)
		}
	}
	if len(got) != len(m.ledger) {
		m.world.Fatalf("the ledger has %d entries, want %d", len(got), len(m.ledger))
	}
	for i := range got {
		if !sameEntry(got[i], m.ledger[i]) {
			m.world.Fatalf("entry %+v, want %+v", got[i], m.ledger[i])
		}
	}
}
