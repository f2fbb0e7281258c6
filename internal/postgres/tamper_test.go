package postgres_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// tampered is a database with a history in two lanes, and another connection that
// can put back what it has done to it.
type tampered struct {
	*fixture
	raw  *pgx.Conn
	user account.Actor
	keys []string
}

// proven are the tables that the ledger's proof is about.
func proven() []string { return []string{"ledger", "ledger_heads", "users"} }

// newTampered makes the history: in lane 1 the root admin, a user, 20 codes of 3,
// their redeem but for the last ten, a checkpoint, a redeem, a change; in lane 2
// changes and two redeems, of which the last of each were before the checkpoint. What
// lane 2 and the user's account were before those is kept in old_… .
func newTampered(t *testing.T) *tampered {
	t.Helper()
	f := &tampered{fixture: newFixture(t)}
	f.raw = f.fixture.raw()
	f.user = f.fixture.user("u")
	f.keys = f.issue(20, 3)
	for n := range 8 {
		f.check(f.redeem(f.user, f.keys[n]))
		f.clock.Add(time.Second)
	}
	f.second(func() {
		f.check(f.redeem(f.user, f.keys[8]))
		f.rename(12, "other")
	})
	f.copies("old")
	f.second(func() {
		f.check(f.redeem(f.user, f.keys[9]))
		f.rename(12, "another")
	})
	f.check(f.db.Checkpoint(f.ctx))
	f.check(f.redeem(f.user, f.keys[10]))
	f.rename(13, "last")
	f.copies("kept")
	return f
}

// second calls do while nobody can write to lane 1.
func (f *tampered) second(do func()) {
	f.Helper()
	f.exec(f.raw, `BEGIN`, `SELECT lane FROM ledger_heads WHERE lane = 1 FOR UPDATE`)
	do()
	f.exec(f.raw, `ROLLBACK`)
}

func (f *tampered) rename(id int64, name string) {
	f.Helper()
	_, err := f.codes.Change(f.ctx, f.root, id, redemption.Change{Name: &name})
	f.check(err)
}

func (f *tampered) copies(name string) {
	f.Helper()
	for _, table := range proven() {
		f.exec(f.raw, fmt.Sprintf(`CREATE TABLE %s_%s AS SELECT * FROM %s`, name, table, table))
	}
}

func (f *tampered) restore() {
	f.Helper()
	for _, table := range proven() {
		f.exec(f.raw, `DELETE FROM `+table, fmt.Sprintf(`INSERT INTO %s SELECT * FROM kept_%s`, table, table))
	}
}

// Lane 2 put back to what it was, with the head that it had, which is genuine.
func putBack() []string {
	return []string{
		`DELETE FROM ledger l WHERE lane = 2 AND NOT EXISTS (SELECT 1 FROM old_ledger o WHERE o.id = l.id)`,
		`UPDATE ledger_heads h SET count = o.count, mac = o.mac, seal = o.seal FROM old_ledger_heads o
			WHERE h.lane = 2 AND o.lane = 2`,
		`UPDATE users SET quota = quota - 3 WHERE id = 2`,
	}
}

// TestTampering changes the database past the engine, in every way that this list
// knows, and expects Verify to find each.
func TestTampering(t *testing.T) {
	f := newTampered(t)
	f.whole()
	type attack struct {
		name, says string
		sql        []string
	}
	attacks := []attack{
		{"entry removed", "lane 1: entries 9 to 9 are missing", []string{`DELETE FROM ledger WHERE lane = 1 AND seq = 9`}},
		{"entry removed from the second lane", "lane 2: entries 1 to 1 are missing", []string{`DELETE FROM ledger WHERE lane = 2 AND seq = 1`}},
		{"entry removed and the gap closed", "was altered or moved", []string{
			`DELETE FROM ledger WHERE lane = 1 AND seq = 9`,
			`UPDATE ledger SET seq = -seq WHERE lane = 1 AND seq > 9`,
			`UPDATE ledger SET seq = -seq - 1 WHERE seq < 0`,
		}},
		{"two entries swapped", "was altered or moved", []string{
			`UPDATE ledger SET seq = 1000, id = -1 WHERE lane = 1 AND seq = 9`,
			`UPDATE ledger SET seq = 9, id = id - 1 WHERE lane = 1 AND seq = 10`,
			`UPDATE ledger SET seq = 10, id = (SELECT id + 1 FROM ledger WHERE lane = 1 AND seq = 9) WHERE seq = 1000`,
		}},
		{"entry moved to another lane", "lane 3", []string{`UPDATE ledger SET lane = 3 WHERE lane = 2 AND seq = 1`}},
		{"a lane made another", "was altered or moved", []string{
			`UPDATE ledger SET lane = 3 WHERE lane = 2`,
			`UPDATE ledger_heads a SET count = b.count, mac = b.mac FROM ledger_heads b WHERE a.lane = 3 AND b.lane = 2`,
			`UPDATE ledger_heads SET count = 0, mac = '' WHERE lane = 2`,
		}},
		{"entry repeated at the end", "was altered or moved", []string{
			`INSERT INTO ledger (lane, seq, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount, detail, mac)
			SELECT 2, 5, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount, detail, mac
			FROM ledger WHERE lane = 2 AND seq = 1`,
		}},
		{"tail cut", "lane 2: cut off", []string{`DELETE FROM ledger WHERE lane = 2 AND seq > 2`}},
		{"everything cut", "cut off", []string{`DELETE FROM ledger`}},
		{"a lane cut and its head made to fit", "lane 2: the head row was altered", []string{
			`DELETE FROM ledger WHERE lane = 2 AND seq > 2`,
			`UPDATE ledger_heads SET count = 2, mac = (SELECT mac FROM ledger WHERE lane = 2 AND seq = 2) WHERE lane = 2`,
		}},
		{"a lane put back, with its head", "lane 2: it ends at entry 2, where a checkpoint says 4", putBack()},
		{"a lane put back, and the money left", "its entries add up to", putBack()[:2]},
		{"a lane put back, and the checkpoint's entry made to fit", "was altered or moved", append(putBack(),
			`UPDATE ledger SET detail = (SELECT '{"heads":"' || string_agg(lane || ':' || count || ':' || encode(mac, 'hex'), ',' ORDER BY lane) || '"}'
				FROM old_ledger_heads) WHERE kind = 'checkpoint'`)},
		{"a lane put back, and the checkpoint removed", "are missing", append(putBack(), `DELETE FROM ledger WHERE kind = 'checkpoint'`)},
		{"a head put back", "lane 2: it ends at entry 4, its head says 2", putBack()[1:2]},
		{"an entry before all others", "lane 3", []string{
			`INSERT INTO ledger (id, lane, seq, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount, detail, mac)
			SELECT -7, 3, 1, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount, detail, mac
			FROM ledger WHERE lane = 2 AND seq = 1`,
		}},
		{"head count", "lane 2: the head row was altered", []string{`UPDATE ledger_heads SET count = count + 1 WHERE lane = 2`}},
		{"head seal", "lane 5: the head row was altered", []string{`UPDATE ledger_heads SET seal = '' WHERE lane = 5`}},
		{"seals swapped", "lane 2: the head row was altered", []string{
			`UPDATE ledger_heads a SET seal = b.seal FROM ledger_heads b WHERE a.lane IN (2, 3) AND b.lane = 5 - a.lane`,
		}},
		{"head removed", "lane 2: it has entries but no head", []string{`DELETE FROM ledger_heads WHERE lane = 2`}},
		{"all heads removed", "no head", []string{`DELETE FROM ledger_heads`}},
		{"balance raised", "account 2: the balance is 34, its entries add up to 33", []string{`UPDATE users SET quota = quota + 1 WHERE id = 2`}},
		{"balance lowered", "account 2: the balance is 0", []string{`UPDATE users SET quota = 0 WHERE id = 2`}},
		{"balances swapped", "account 1: the balance is 33", []string{`UPDATE users SET quota = 33 - quota`}},
		{"account removed", "there is no such account", []string{`DELETE FROM users WHERE id = 2`}},
	}
	changes := map[string]string{
		"seq": "seq + 1000", "at": "at + 1", "kind": "kind || ' '", "actor_id": "actor_id + 1", "address": "substr(address, 2)",
		"account_id": "account_id + 1", "first_id": "first_id + 1", "last_id": "last_id - 1", "machine_id": "machine_id + 1",
		"count": "count + 1", "amount": "amount + 1", "detail": "detail || ' '", "lane": "9 - lane",
		"mac": "set_byte(mac, 31, get_byte(mac, 31) # 1)",
	}
	for column, change := range changes {
		for _, at := range []string{
			"lane = 1 AND seq = 1", "lane = 1 AND seq = 5", "lane = 2 AND seq = 1", "lane = 2 AND seq = 4",
			"kind = 'checkpoint'", "id = (SELECT max(id) FROM ledger)",
		} {
			attacks = append(attacks, attack{column + " where " + at, "lane", []string{`UPDATE ledger SET ` + column + ` = ` + change + ` WHERE ` + at}})
		}
	}
	f.everyColumn(changes)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			f := &tampered{fixture: f.in(t), raw: f.raw}
			f.exec(f.raw, a.sql...)
			if faults := f.faults(); len(faults) == 0 || !strings.Contains(strings.Join(faults, "\n"), a.says) {
				t.Errorf("found %q, want %q", faults, a.says)
			}
			f.restore()
			if faults := f.faults(); faults != nil {
				t.Fatalf("put back, it finds %q", faults)
			}
		})
	}
}

// everyColumn fails if the ledger has a column that no attack changes. The place
// in the order of all lanes is not proven by itself: the seq is.
func (f *tampered) everyColumn(attacked map[string]string) {
	f.Helper()
	rows, err := f.raw.Query(f.ctx, `SELECT column_name FROM information_schema.columns WHERE table_name = 'ledger'`)
	f.check(err)
	columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	f.check(err)
	for _, column := range columns {
		if attacked[column] == "" && column != "id" {
			f.Errorf("no attack changes the column %s", column)
		}
	}
	if !slices.Contains(columns, "mac") {
		f.Errorf("the ledger has the columns %q: this looks in the wrong place", columns)
	}
}

// TestPutBackUnseen shows what the checkpoint is for: without one that comes after
// it, a lane that is put back is as good as new, unless somebody has kept the heads.
func TestPutBackUnseen(t *testing.T) {
	f := newFixture(t)
	g := &tampered{fixture: f, raw: f.raw()}
	g.user, g.keys = f.user("u"), f.issue(20, 3)
	g.second(func() { f.check(f.redeem(g.user, g.keys[0])) })
	g.copies("old")
	g.second(func() { f.check(f.redeem(g.user, g.keys[1])) })
	heads, err := f.db.Heads(f.ctx)
	f.check(err)
	since, err := account.ParseCheckpoints(account.Checkpoints(heads))
	f.check(err)
	f.exec(g.raw, putBack()...)
	f.whole()
	if faults := f.faults(since...); len(faults) != 1 || !strings.Contains(faults[0], "lane 2: it has 1 entries, at the checkpoint it had 2") {
		t.Errorf("with the heads it finds %q", faults)
	}
}

// TestCheckpoint writes one when there is something new, and ties all lanes.
func TestCheckpoint(t *testing.T) {
	f := newTampered(t)
	count := func() int64 { return f.number(f.raw, `SELECT count(*) FROM ledger WHERE kind = 'checkpoint'`) }
	for want := int64(2); want < 4; want++ {
		for range 3 {
			f.check(f.db.Checkpoint(f.ctx))
			if n := count(); n != want {
				t.Fatalf("%d checkpoints, want %d", n, want)
			}
		}
		f.check(f.redeem(f.user, f.keys[10+want]))
	}
	f.whole()
}

// A code that is made redeemable again past the engine pays again, but Verify says
// so.
func TestRedeemedTwice(t *testing.T) {
	f := newTampered(t)
	f.exec(f.raw, `UPDATE redemptions SET state = 1, used_by = 0, redeemed = 0 WHERE id = 5`)
	f.second(func() { f.check(f.redeem(f.user, f.keys[4])) })
	if faults := f.faults(); len(faults) != 1 || !strings.Contains(faults[0], "redeems code 5 a second time") {
		t.Errorf("found %q", faults)
	}
}
