package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/postgres"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/sqlstore"
	"github.com/scrip-codes/scrip/internal/storetest"
)

// failing has the server fail what writes to the ledger, with that code, the first
// times, and count how often. A sequence counts on when a transaction is undone.
func (f *fixture) failing(code string, times int) (tried func() int64) {
	raw := f.raw()
	f.exec(raw,
		`CREATE SEQUENCE tried`,
		fmt.Sprintf(`CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('tried') <= %d THEN RAISE EXCEPTION 'on purpose' USING ERRCODE = '%s'; END IF;
			RETURN NULL;
		END $$`, times, code),
		`CREATE TRIGGER fail AFTER INSERT ON ledger FOR EACH STATEMENT EXECUTE FUNCTION fail()`)
	return func() int64 {
		return f.number(raw, `SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM tried`)
	}
}

// TestRetry has transactions fail for reasons that pass, and for others.
func TestRetry(t *testing.T) {
	for code, again := range map[string]bool{
		"40001": true,  // serialization failure
		"40P01": true,  // deadlock
		"55P03": true,  // lock timeout
		"40003": true,  // the server does not know
		"57P01": true,  // shutting down
		"25006": true,  // read only
		"08006": true,  // connection failure
		"57014": false, // cancelled
		"23514": false, // a check
		"53100": false, // disk full
		"XX000": false,
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			by, keys := f.user("u"), f.issue(2, 3)
			tried := f.failing(code, 2)
			for i, do := range []func() error{
				func() error { return f.redeem(by, keys[0]) },
				func() error { _, err := f.codes.Change(f.ctx, f.root, 2, disabling()); return err },
			} {
				before := tried()
				if err := do(); again != (err == nil) && i == 0 {
					t.Errorf("%v", err)
				} else if !again && i == 0 {
					e, _ := errors.AsType[*pgconn.PgError](err)
					if e == nil || e.Code != code || f.balance(by.ID) != 0 {
						t.Errorf("%v, and the account has %d", err, f.balance(by.ID))
					}
				}
				want := int64(1)
				if again && i == 0 {
					want = 3
				}
				if n := tried() - before; n != want {
					t.Errorf("it was tried %d times, want %d", n, want)
				}
			}
			f.whole()
		})
	}
}

func disabling() redemption.Change {
	return redemption.Change{Status: new(redemption.StatusDisabled)}
}

// TestRetryEnds never lets a transaction through: it is given up.
func TestRetryEnds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	by, keys := f.user("u"), f.issue(1, 3)
	tried := f.failing("40001", 1<<30)
	f.says(f.redeem(by, keys[0]), "on purpose")
	if n := tried(); n != postgres.Tries {
		t.Errorf("it was tried %d times, want %d", n, postgres.Tries)
	}
	f.exec(f.raw(), `DROP TRIGGER fail ON ledger`)
	f.check(f.redeem(by, keys[0]))
	f.whole()
}

// TestDeadlock has another connection hold what the engine locks next, and wait
// for what it has: the server ends the engine's transaction, which is tried again.
func TestDeadlock(t *testing.T) {
	for name, do := range map[string]func(f *fixture, by account.Actor, key string) error{
		"group": func(f *fixture, by account.Actor, key string) error { return f.redeem(by, key) },
		"alone": func(f *fixture, by account.Actor, key string) error {
			return f.db.Keys().Use(f.ctx, func(ring *keyring.Ring) error {
				_, err := f.codes.Redeem(f.ctx, by, key, f.once(ring, "once"))
				return err
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			by, keys := f.user("u"), f.issue(1, 3)
			raw, watch := f.raw(), f.raw()
			f.exec(raw, `SET deadlock_timeout = '1h'`, // so that it is not this that is ended
				`BEGIN`, `SELECT id FROM users WHERE id = 2 FOR UPDATE`)
			end := begin(func() error { return do(f, by, keys[0]) })
			f.waiting(watch, 1)
			f.exec(raw, `SELECT id FROM redemptions WHERE id = 1 FOR UPDATE`, `COMMIT`)
			f.check(end())
			if n := f.balance(by.ID); n != 3 {
				t.Errorf("credited %d, want 3", n)
			}
			f.eventually("the server tells of a deadlock", func() bool {
				return f.number(watch, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`) > 0
			})
			f.whole()
		})
	}
}

// TestLockTimeout holds a lock for longer than the engine waits for one: it is
// tried again for a while, and then fails.
func TestLockTimeout(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	by, keys := f.user("u"), f.issue(2, 3)
	short := f.through(with(f.url, "lock_timeout=50ms"))
	raw, watch := f.raw(), f.raw()
	hold := func() { f.exec(raw, `BEGIN`, `SELECT id FROM users WHERE id = 2 FOR UPDATE`) }
	hold()
	err := short.redeem(by, keys[0])
	if e, _ := errors.AsType[*pgconn.PgError](err); e == nil || e.Code != "55P03" {
		t.Errorf("the lock was never let go, and it says %v", err)
	}
	f.exec(raw, `ROLLBACK`)
	f.check(short.redeem(by, keys[0]))

	hold()
	end := begin(func() error { return short.redeem(by, keys[1]) })
	seen := map[string]bool{}
	f.eventually("it waits a second time", func() bool {
		var since string
		f.check(watch.QueryRow(f.ctx, `SELECT coalesce(max(xact_start)::text, '') FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&since))
		if since != "" {
			seen[since] = true
		}
		return len(seen) > 1
	})
	f.exec(raw, `ROLLBACK`)
	f.check(end())
	if n := f.balance(by.ID); n != 6 {
		t.Errorf("credited %d, want 6", n)
	}
	f.whole()
}

// TestDurable finds that an engine's commits wait for the disk, whatever the
// database, the role or the address say.
func TestDurable(t *testing.T) {
	for _, c := range []struct{ alter, address, want string }{
		{"", "", "on"}, // the server of these tests is set to off
		{"DATABASE %s SET synchronous_commit = off", "", "on"},
		{"ROLE app IN DATABASE %s SET synchronous_commit = off", "", "on"},
		{"", "synchronous_commit=off", "on"},
		{"DATABASE %s SET synchronous_commit = local", "", "local"}, // which waits too
		{"ROLE app IN DATABASE %s SET synchronous_commit = remote_apply", "", "remote_apply"},
	} {
		t.Run(c.alter+c.address, func(t *testing.T) {
			f := newFixture(t)
			raw := f.raw()
			if c.alter != "" {
				f.exec(raw, fmt.Sprintf(`ALTER `+c.alter, raw.Config().Database))
			}
			f = f.through(with(f.url, c.address))
			main, side, err := f.db.Setting(f.ctx, "synchronous_commit")
			f.check(err)
			if main != c.want || side != c.want {
				t.Errorf("it is %s, and %s beside, want %s", main, side, c.want)
			}
		})
	}
}

// TestFewConnections has many more calls at once than connections: all are served.
func TestFewConnections(t *testing.T) {
	f := newFixture(t)
	by, keys := f.user("u"), f.issue(40, 3)
	few := f.through(with(f.url, "pool_max_conns=2"))
	var wg sync.WaitGroup
	for i, key := range keys {
		for _, do := range []func() error{
			func() error { return few.redeem(by, key) },
			func() error {
				return few.db.Keys().Use(few.ctx, func(ring *keyring.Ring) error {
					_, err := few.codes.Redeem(few.ctx, by, key, few.once(ring, key))
					return err
				})
			},
			func() error {
				_, err := few.codes.Issue(few.ctx, few.root, redemption.IssueRequest{Name: "more", Count: 3, Quota: 1})
				return err
			},
			func() error { _, err := few.codes.Get(few.ctx, few.root, int64(i)+1); return err },
			func() error {
				_, _, err := few.codes.Search(few.ctx, few.root, "n", redemption.FilterAll, 0, 10)
				return err
			},
			func() error {
				_, err := few.accounts.Create(few.ctx, few.root, account.CreateRequest{Username: fmt.Sprint("v", i)})
				return err
			},
			func() error { _, err := few.db.Duty(few.ctx, "d", "a", time.Second); return err },
		} {
			wg.Go(func() {
				if err := do(); err != nil && refusal.CodeOf(err) != refusal.RedemptionUsedByYou {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if n := f.balance(by.ID); n != 120 {
		t.Errorf("40 codes of 3 have credited %d", n)
	}
	f.whole()
}

// TestNoConnection has all connections taken: who waits for one gives up when its
// caller does, and the others go on when there is one again.
func TestNoConnection(t *testing.T) {
	f := newFixture(t)
	few := f.through(with(f.url, "pool_max_conns=2"))
	raw, watch := f.raw(), f.raw()
	f.exec(raw, `BEGIN`, `SELECT lane FROM ledger_heads FOR UPDATE`)
	var ends []func() error
	for i := range 10 {
		ends = append(ends, begin(func() error {
			_, err := few.accounts.Create(few.ctx, few.root, account.CreateRequest{Username: fmt.Sprint("u", i)})
			return err
		}))
	}
	f.waiting(watch, 2)
	ctx, cancel := context.WithTimeout(f.ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := few.db.UserByID(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who waits for a connection gets %v", err)
	}
	f.exec(raw, `ROLLBACK`)
	for _, end := range ends {
		f.check(end())
	}
	f.whole()
}

// TestClose closes the database under calls of all kinds: what was acknowledged is
// there, what fails says why, and nothing hangs or stays connected.
func TestClose(t *testing.T) {
	f := newFixture(t)
	by, keys := f.user("u"), slices.Concat(f.issue(100, 1), f.issue(100, 1), f.issue(100, 1), f.issue(100, 1))
	other := f.through(with(f.url, "application_name=closing"))
	var wg sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	some := make(chan struct{})
	allowed := func(err error) {
		if !errors.Is(err, sqlstore.ErrClosed) && !strings.Contains(err.Error(), "closed pool") {
			t.Errorf("while it was closed: %v", err)
		}
	}
	for worker := range 8 {
		wg.Go(func() {
			for _, key := range keys[worker*50 : worker*50+50] {
				if err := other.redeem(by, key); err != nil {
					allowed(err)
					return
				}
				mu.Lock()
				acknowledged[key] = true
				if len(acknowledged) == 20 {
					close(some)
				}
				mu.Unlock()
			}
		})
		wg.Go(func() {
			for {
				if _, _, err := other.codes.List(other.ctx, other.root, redemption.FilterAll, 0, 100); err != nil {
					allowed(err)
					return
				}
			}
		})
	}
	<-some
	f.check(other.db.Close())
	wg.Wait()
	for name, do := range map[string]func() error{
		"redeem": func() error { return other.redeem(by, keys[0]) },
		"issue": func() error {
			_, err := other.codes.Issue(other.ctx, other.root, redemption.IssueRequest{Name: "n", Count: 1, Quota: 1})
			return err
		},
		"get":        func() error { _, err := other.db.UserByID(other.ctx, 1); return err },
		"list":       func() error { _, _, err := other.db.Users(other.ctx, 0, 1); return err },
		"ping":       func() error { return other.db.Ping(other.ctx) },
		"checkpoint": func() error { return other.db.Checkpoint(other.ctx) },
		"duty":       func() error { _, err := other.db.Duty(other.ctx, "d", "a", time.Hour); return err },
		"rotate":     func() error { return other.db.Rotate(other.ctx, nil) },
		"purge":      func() error { _, _, err := other.db.Purge(other.ctx, 0, by, f.clock.Now()); return err },
	} {
		if err := do(); err == nil || refusal.CodeOf(err) != "" {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	f.check(other.db.Close())
	raw := f.raw()
	f.eventually("all connections are closed", func() bool {
		return f.number(raw, `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'closing'`) == 0
	})
	if n := f.number(raw, `SELECT count(*) FROM redemptions WHERE state = 3`); n < int64(len(acknowledged)) {
		t.Errorf("%d codes are used, %d redeems were acknowledged", n, len(acknowledged))
	}
	f.whole()
}

// TestFirstAtOnce opens an empty database from many handles at once: all do, with
// the same keys.
func TestFirstAtOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 3 {
		url, err := server.Create(ctx, fmt.Sprintf("empty%d", databases.Add(1)), "")
		if err != nil {
			t.Fatal(err)
		}
		f := &fixture{T: t, ctx: ctx, url: url, clock: storetest.NewClock()}
		var wg sync.WaitGroup
		var keys sync.Map
		for i := range 8 {
			wg.Go(func() {
				if i%2 == 0 {
					if _, _, err := postgres.Migrate(ctx, url); err != nil {
						t.Error(err)
					}
					return
				}
				db, err := postgres.Open(ctx, postgres.Options{URL: url, Secrets: []string{secret}, Now: f.clock.Now})
				if err != nil {
					t.Error(err)
					return
				}
				ring, err := db.Keys().Reload(ctx)
				if err != nil {
					t.Error(err)
				} else {
					keys.Store(string(ring.LedgerKey()), true)
				}
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		n := 0
		keys.Range(func(any, any) bool { n++; return true })
		if n != 1 {
			t.Errorf("they have %d ledger keys", n)
		}
		if heads := f.number(f.raw(), `SELECT count(*) FROM ledger_heads`); heads != 8 {
			t.Errorf("%d lanes", heads)
		}
	}
}
