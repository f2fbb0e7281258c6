package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
)

const (
	// distinctNames is how many names the codes share.
	distinctNames = 1000
	// rare is how many codes are used, however many there are in all.
	rare = 50
)

// filled is a database with codes.
type filled struct {
	*fixture
	raw  *pgx.Conn
	user account.Actor
	keys []string // of codes that can be redeemed
	key  string   // of the code with the id
	id   int64
	// Half of the codes were made in this time.
	from, to time.Time
}

// fill issues so many codes under distinctNames names, in rounds, so that those of one
// name lie far apart. A tenth of them has expired, another expires later, every
// hundredth is disabled, and rare of them are used. A round takes a second. Nothing has looked at the tables
// for the planner, as in the minutes after a large batch.
func fill(t *testing.T, codes, rounds int) *filled {
	t.Helper()
	f := &filled{fixture: newFixture(t)}
	f.raw, f.user = f.fixture.raw(), f.fixture.user("u")
	f.exec(f.raw, `ALTER TABLE redemptions SET (autovacuum_enabled = false)`,
		`ALTER TABLE redemption_counts SET (autovacuum_enabled = false)`)
	ring, err := f.db.Keys().Reload(f.ctx)
	f.check(err)
	soon := f.clock.Now().Truncate(time.Second)
	length := time.Duration(rounds) * time.Second
	f.from, f.to = f.clock.Now().Add(length/4), f.clock.Now().Add(length*3/4)
	for range rounds {
		for name := range distinctNames {
			b := redemption.Batch{
				Epoch: ring.Epoch(), Creator: f.root, Name: fmt.Sprintf("name %03d", name), Quota: 1, Created: f.clock.Now(),
				Keys: make([]redemption.NewKey, codes/distinctNames/rounds),
			}
			switch name % 10 {
			case 3:
				b.Expires = soon
			case 7:
				b.Expires = soon.Add(24 * time.Hour)
			}
			for i := range b.Keys {
				text := account.NewToken()
				f.id++
				if f.key = text; b.Expires.IsZero() && f.id%100 != 50 && len(f.keys) < 500 {
					f.keys = append(f.keys, text)
				}
				indexes := ring.Indexes(text)
				b.Keys[i] = redemption.NewKey{
					Sealed: ring.Seal(append([]byte("redemption key "), indexes[0]...), []byte(text)), Indexes: indexes,
				}
			}
			f.check(f.db.Issue(f.ctx, b))
			f.clock.Add(time.Second / distinctNames)
		}
	}
	disabled := redemption.StatusDisabled
	for at := int64(50); at <= int64(codes); at += 100 {
		_, err = f.codes.Change(f.ctx, f.root, at, redemption.Change{Status: &disabled})
		f.check(err)
	}
	for range rare {
		f.use()
	}
	f.clock.Add(time.Hour)
	f.check(f.codes.Sweep(f.ctx))
	return f
}

// use redeems a code.
func (f *filled) use() {
	f.Helper()
	_, err := f.codes.Redeem(f.ctx, f.user, f.keys[0], nil)
	f.check(err)
	f.keys = f.keys[1:]
}

// blocks is how many blocks of tables and indexes the engine touches while do runs,
// with what is folded behind it.
func (f *filled) blocks(do func()) int64 {
	f.Helper()
	count := func() int64 {
		f.eventually("the counts are up to date", func() bool {
			return f.number(f.raw, `SELECT count(*) FROM redemption_changes`) == 0
		})
		// Each connection tells what it has done when it comes to it.
		f.check(f.db.EachIdle(f.ctx, func(conn *pgx.Conn) error {
			_, err := conn.Exec(f.ctx, `SELECT pg_stat_force_next_flush()`)
			return err
		}))
		return f.number(f.raw, `SELECT coalesce(sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0)), 0)::bigint
			FROM pg_statio_user_tables WHERE relname <> 'redemption_changes'`)
	}
	before := count()
	do()
	return count() - before
}

// operation is something that must not cost more with more codes.
type operation struct {
	name string
	do   func(f *filled)
}

func operations() []operation {
	look := func(name, keyword string, filter redemption.Filter, hundredths int64) operation {
		return operation{fmt.Sprintf("%s at %d%%", name, hundredths), func(f *filled) {
			f.Helper()
			keyword := keyword
			switch keyword {
			case "id":
				keyword = fmt.Sprint(f.id)
			case "key":
				keyword = f.key
			}
			_, total, err := f.codes.Search(f.ctx, f.root, keyword, filter, 0, 20)
			f.check(err)
			if (total == 0) != (keyword == "zzz") {
				f.Errorf("%s finds %d", name, total)
			}
			_, _, err = f.codes.Search(f.ctx, f.root, keyword, filter, max(total-20, 0)*hundredths/100, 20)
			f.check(err)
		}}
	}
	out := []operation{
		look("by id", "id", redemption.FilterAll, 0), look("by key", "key", redemption.FilterAll, 0),
		look("one name", "name 012", redemption.FilterAll, 50), look("ten names", "name 01", redemption.FilterAll, 50),
		look("a third of the names", "4", redemption.FilterAll, 50), look("most names", "a", redemption.FilterAll, 99),
		look("no name", "zzz", redemption.FilterAll, 0),
	}
	for _, at := range []int64{0, 50, 100} {
		out = append(out, look("list", "", redemption.FilterAll, at))
		for _, filter := range []redemption.Filter{redemption.FilterLive, redemption.FilterDisabled, redemption.FilterExpired} {
			out = append(out, look(fmt.Sprint("filter ", filter), "", filter, at))
		}
	}
	find := func(name string, search func(f *filled) redemption.Search) {
		out = append(out, operation{name, func(f *filled) {
			f.Helper()
			s := search(f)
			found, err := f.codes.Find(f.ctx, f.root, s, 0, 20)
			f.check(err)
			if found.Total == 0 {
				f.Errorf("%s finds nothing", name)
			}
			_, err = f.codes.Find(f.ctx, f.root, s, max(found.Total-20, 0)/2, 20)
			f.check(err)
		}})
	}
	find("a batch", func(*filled) redemption.Search { return redemption.Search{Batch: new("name 012")} })
	find("a batch in a time", func(f *filled) redemption.Search {
		return redemption.Search{Batch: new("name 400"), From: f.from, To: f.to}
	})
	find("a time", func(f *filled) redemption.Search { return redemption.Search{From: f.from, To: f.to} })
	find("expired in a time", func(f *filled) redemption.Search {
		return redemption.Search{From: f.from, To: f.to, Filter: redemption.FilterExpired}
	})
	find("used by somebody", func(f *filled) redemption.Search { return redemption.Search{UsedBy: f.user.ID} })
	batches := func(f *filled) {
		_, _, err := f.codes.Batches(f.ctx, f.root, "4", 500, 20)
		f.check(err)
	}
	invalid := func(f *filled) {
		_, err := f.codes.CountInvalid(f.ctx, f.root)
		f.check(err)
	}
	redeems := func(f *filled) {
		for range 20 {
			f.use()
		}
	}
	ledger := func(f *filled) {
		for _, of := range []account.LedgerFilter{{Limit: 20}, {UserID: f.user.ID, Limit: 20}, {CodeID: f.id, Limit: 20}, {UserID: f.root.ID, To: f.from.Add(-time.Hour), Limit: 20}} {
			_, err := f.accounts.Ledger(f.ctx, f.root, of)
			f.check(err)
		}
	}
	sweep := func(f *filled) {
		if _, err := f.db.Sweep(f.ctx, f.clock.Now().Add(48*time.Hour)); err != nil {
			f.Fatal(err)
		}
	}
	purge := func(f *filled) {
		if n, _, err := f.db.Purge(f.ctx, 0, f.root, f.clock.Now()); err != nil || n == 0 {
			f.Fatalf("%d codes were removed, %v", n, err)
		}
	}
	return append(out, operation{"ledger", ledger}, operation{"20 redeems", redeems},
		operation{"batches", batches}, operation{"invalid", invalid},
		operation{"a step of the sweep", sweep}, operation{"a step of the removal", purge})
}

// TestFlat compares how many blocks PostgreSQL touches for an operation with 200,000
// codes and with 2,000. Ten million are `scrip bench`'s to look at.
func TestFlat(t *testing.T) {
	small, large := fill(t, 2_000, 1), fill(t, 200_000, 2)
	for _, o := range operations() {
		t.Run(o.name, func(t *testing.T) {
			var blocks [2]int64
			for i, f := range []*filled{small, large} {
				f := *f
				f.fixture = f.in(t)
				o.do(&f) // what is new is looked at once more the first time
				blocks[i] = f.blocks(func() { o.do(&f) })
				[]*filled{small, large}[i].keys = f.keys
			}
			t.Logf("%d and %d blocks", blocks[0], blocks[1])
			// The trees are a level or two deeper, a page of codes lies in more blocks, and of some
			// names 2,000 codes have not as many as a page.
			if most := 2*blocks[0] + 300; blocks[1] > most {
				t.Errorf("%d blocks were touched with 200,000 codes, %d with 2,000: more than %d", blocks[1], blocks[0], most)
			}
			if blocks[0] == 0 {
				t.Error("nothing was counted")
			}
		})
	}
}
