package postgres_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/postgres"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// What is in a statement of every transaction that writes to the ledger.
const ledgerWrite = "INSERT INTO ledger"

// write is a call that must take effect once: it is made through a proxy, and
// done says how often it has.
type write struct {
	name string
	do   func(f *fixture, by account.Actor, keys []string) error
	done func(f *fixture, by account.Actor) int64
}

func writes() []write {
	credited := func(f *fixture, by account.Actor) int64 { return f.balance(by.ID) / 3 }
	return []write{
		{
			name: "redeem",
			do:   func(f *fixture, by account.Actor, keys []string) error { return f.redeem(by, keys[0]) },
			done: credited,
		},
		{
			name: "redeem with an idempotency key",
			do: func(f *fixture, by account.Actor, keys []string) error {
				return f.db.Keys().Use(f.ctx, func(ring *keyring.Ring) error {
					_, err := f.codes.Redeem(f.ctx, by, keys[0], f.once(ring, "redeem"))
					return err
				})
			},
			done: credited,
		},
		{
			name: "issue",
			do: func(f *fixture, _ account.Actor, _ []string) error {
				_, err := f.codes.Issue(f.ctx, f.root, redemption.IssueRequest{Name: "more", Count: 100, Quota: 1})
				return err
			},
			done: func(f *fixture, _ account.Actor) int64 {
				_, total, err := f.codes.Search(f.ctx, f.root, "more", redemption.FilterAll, 0, 1)
				f.check(err)
				if total%100 != 0 {
					f.Errorf("%d codes of a batch of 100", total)
				}
				return total / 100
			},
		},
		{
			name: "account with money",
			do: func(f *fixture, _ account.Actor, _ []string) error {
				_, err := f.accounts.Create(f.ctx, f.root, account.CreateRequest{Username: "rich", Quota: 7})
				return err
			},
			done: func(f *fixture, _ account.Actor) int64 {
				u, _, err := f.db.UserByName(f.ctx, "rich")
				if refusal.CodeOf(err) == refusal.AccountNotFound {
					return 0
				}
				f.check(err)
				return u.Quota / 7
			},
		},
		{
			name: "disable",
			do: func(f *fixture, _ account.Actor, _ []string) error {
				_, err := f.codes.Change(f.ctx, f.root, 2, redemption.Change{Status: new(redemption.StatusDisabled)})
				return err
			},
			done: func(f *fixture, _ account.Actor) (n int64) {
				entries, err := f.db.Ledger(f.ctx, account.LedgerFilter{CodeID: 2, Limit: 100})
				f.check(err)
				for _, e := range entries {
					if e.Kind == account.KindDisable {
						n++
					}
				}
				return n
			},
		},
	}
}

func (f *fixture) once(ring *keyring.Ring, name string) *account.Once {
	scope := account.Hash(sha256.Sum256([]byte(name)))
	return &account.Once{
		Caller: 1, Scope: scope, At: f.clock.Now(), Epoch: ring.Epoch(),
		Answer: func(result any) []byte { return ring.Seal(account.AnswerContext(scope), fmt.Append(nil, result)) },
	}
}

// TestOutcome cuts the connection at the commit. Whether it was lost, was made, is
// made later or the server does not know: the call succeeds, and has taken effect
// once.
func TestOutcome(t *testing.T) {
	for how, name := range map[cut]string{
		cutBefore: "cut before", cutAfter: "cut after", cutHeld: "cut, and committed later", cutUnsure: "the server is not sure",
	} {
		for _, w := range writes() {
			t.Run(name+"/"+w.name, func(t *testing.T) {
				f := newFixture(t)
				by, keys := f.user("u"), f.issue(3, 3)
				p, address := newProxy(t, f.url)
				other := f.through(address)
				fired, release := p.arm(how, ledgerWrite, false)
				defer release()
				end := begin(func() error { return w.do(other, by, keys) })
				if how == cutHeld {
					// It looks, and waits for the end of the transaction.
					<-fired
					f.waiting(f.raw(), 1)
					release()
				}
				f.check(end())
				select {
				case <-fired:
				default:
					t.Error("no commit was cut: this test is about nothing")
				}
				if n := w.done(f, by); n != 1 {
					t.Errorf("it has taken effect %d times", n)
				}
				f.whole()
			})
		}
	}
}

// TestOutcomeOfGroup cuts the connection under many redeems that share commits.
func TestOutcomeOfGroup(t *testing.T) {
	for _, how := range []cut{cutBefore, cutAfter} {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			f := newFixture(t)
			by, keys := f.user("u"), f.issue(60, 3)
			p, address := newProxy(t, f.url)
			other := f.through(address)
			for round := range 3 {
				fired, _ := p.arm(how, ledgerWrite, false)
				var ends []func() error
				for _, key := range keys[round*20 : round*20+20] {
					ends = append(ends, begin(func() error { return other.redeem(by, key) }))
				}
				for _, end := range ends {
					f.check(end())
				}
				<-fired
			}
			if n := f.balance(by.ID); n != 180 {
				t.Errorf("60 codes of 3 have credited %d", n)
			}
			f.whole()
		})
	}
}

// TestOutcomeUnknown lets nobody reach the server after the cut: whatever became
// of the commit, the call says that nobody knows, and is not tried again.
func TestOutcomeUnknown(t *testing.T) {
	for want, how := range []cut{cutBefore, cutAfter} {
		for _, w := range writes()[:3] {
			t.Run(fmt.Sprint(how, "/", w.name), func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				by, keys := f.user("u"), f.issue(3, 3)
				p, address := newProxy(t, f.url)
				other := f.through(address)
				p.arm(how, ledgerWrite, true)
				f.says(w.do(other, by, keys), "nobody knows")
				if n := w.done(f, by); n != int64(want) {
					t.Errorf("it has taken effect %d times, want %d", n, want)
				}
				f.whole()
				p.setDown(false)
				// Who looks, as the error says, finds it out.
				err := other.redeem(by, keys[0])
				if w.name != "issue" && how == cutAfter {
					if refusal.CodeOf(err) != refusal.RedemptionUsedByYou {
						t.Errorf("tried again: %v", err)
					}
					return
				}
				f.check(err)
			})
		}
	}
}

// TestOutcomeWhileClosing closes the database while a commit is looked for: it is
// found all the same.
func TestOutcomeWhileClosing(t *testing.T) {
	for _, w := range writes()[:3] {
		t.Run(w.name, func(t *testing.T) {
			f := newFixture(t)
			by, keys := f.user("u"), f.issue(3, 3)
			p, address := newProxy(t, f.url)
			other := f.through(address)
			p.arm(cutAfter, ledgerWrite, true)
			end := begin(func() error { return w.do(other, by, keys) })
			f.eventually("the engine looks", func() bool { return p.turnedAway() > 0 })
			closed := begin(other.db.Close)
			f.eventually("it is closing", func() bool {
				_, err := other.db.Heads(f.ctx)
				return errors.Is(err, sqlstore.ErrClosed)
			})
			p.setDown(false)
			f.check(end())
			f.check(closed())
			if n := w.done(f, by); n != 1 {
				t.Errorf("it has taken effect %d times", n)
			}
		})
	}
}

// TestRepeatable cuts the connection at the commits of what is written without a
// ledger entry: it is repeated, and nobody notices.
func TestRepeatable(t *testing.T) {
	const password = "correct horse battery staple"
	for _, how := range []cut{cutBefore, cutAfter} {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			f := newFixture(t)
			_, err := f.accounts.Create(f.ctx, f.root, account.CreateRequest{Username: "ann", Password: password})
			f.check(err)
			m := f.machine()
			f.pickup()
			p, address := newProxy(t, f.url)
			other := f.through(address)

			t.Run("login", func(t *testing.T) {
				f := other.in(t)
				fired, _ := p.arm(how, "INSERT INTO sessions", false)
				_, session, err := f.accounts.Login(f.ctx, "ann", password, "192.0.2.7")
				f.check(err)
				<-fired
				_, err = f.db.UserBySession(f.ctx, account.HashToken(session), f.clock.Now())
				f.check(err)
			})
			t.Run("what a machine is to be told", func(t *testing.T) {
				f := other.in(t)
				fired, _ := p.arm(how, "UPDATE outbox", false)
				items, err := f.db.Since(f.ctx, 0, 10)
				f.check(err)
				<-fired
				if len(items) != 1 || items[0].MachineID != m.ID || items[0].Kind == delivery.KindDisconnect {
					t.Errorf("listed %+v", items)
				}
				items, err = f.db.Since(f.ctx, 0, 10)
				if err != nil || len(items) > 0 {
					t.Errorf("listed again: %+v, %v", items, err)
				}
			})
			t.Run("a refusal", func(t *testing.T) {
				f := other.in(t)
				fired, _ := p.arm(how, "INSERT INTO answers", false)
				f.check(f.db.Keys().Use(f.ctx, func(ring *keyring.Ring) error {
					err := f.db.Remember(f.ctx, f.once(ring, "refused"))
					if _, replayed := errors.AsType[*account.Replay](err); replayed && how == cutAfter {
						return nil // it finds its own
					}
					return err
				}))
				<-fired
			})
		})
	}
}

// TestFirstKeys cuts the connection when an empty database gets its keys.
func TestFirstKeys(t *testing.T) {
	for _, how := range []cut{cutBefore, cutAfter} {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			p, address := newProxy(t, newDatabase(t))
			fired, _ := p.arm(how, "INSERT INTO data_keys", false)
			f := newFixtureAt(t, address)
			<-fired
			f.check(f.redeem(f.user("u"), f.issue(1, 1)[0]))
			f.whole()
			_, err := postgres.Open(f.ctx, postgres.Options{URL: address, Secrets: []string{"another"}, Now: f.clock.Now})
			if !errors.Is(err, keyring.ErrWrongSecret) {
				t.Errorf("with another secret: %v", err)
			}
		})
	}
}
