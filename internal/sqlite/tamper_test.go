package sqlite_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// tampered is a database with a history, and a second connection that can put
// back what it has done to it.
type tampered struct {
	*fixture
	user  account.Actor
	keys  []string
	old   account.Checkpoint // before the last few entries
	since account.Checkpoint // behind the last
}

func newTampered(t *testing.T) *tampered {
	t.Helper()
	f := &tampered{fixture: newFixture(t, nil)}
	f.user = f.fixture.user()
	f.keys = f.issue("n", 20, 3)
	redeem := func(n int) {
		_, err := f.codes.Redeem(f.ctx, f.user, f.keys[n], nil)
		f.check(err)
	}
	for n := range 8 {
		redeem(n)
		f.clock.Add(time.Second)
		_, err := f.codes.Change(f.ctx, f.root, int64(n+10), redemption.Change{Name: new(fmt.Sprint("name ", n))})
		f.check(err)
	}
	f.old = f.checkpoint()
	redeem(8)
	f.check(f.codes.Delete(f.ctx, f.root, 20))
	f.since = f.checkpoint()
	return f
}

func (f *tampered) checkpoint() account.Checkpoint {
	f.Helper()
	heads, err := f.db.Heads(f.ctx)
	f.check(err)
	points, err := account.ParseCheckpoints(account.Checkpoints(heads))
	f.check(err)
	return points[0]
}

// The tables that the ledger's proof is about.
func proven() []string { return []string{"ledger", "ledger_heads", "users"} }

// TestTampering changes the database past the engine, in every way that this
// list knows, and expects Verify to find each.
func TestTampering(t *testing.T) {
	f := newTampered(t)
	f.whole()
	raw := f.raw()
	for _, table := range proven() {
		f.exec(raw, fmt.Sprintf(`CREATE TABLE kept_%s AS SELECT %s FROM %s`, table, f.columns(table), table))
	}
	restore := func() {
		for _, table := range proven() {
			f.exec(raw, `DELETE FROM `+table)
			f.exec(raw, fmt.Sprintf(`INSERT INTO %s SELECT * FROM kept_%s`, table, table))
		}
	}
	const last = 21 // entries: root, user, issue, 8 times redeem and change, redeem, delete
	type attack struct {
		name, says string
		since      bool // only found with the checkpoint
		sql        []string
	}
	attacks := []attack{
		{name: "first entry removed", says: "entries 1 to 1 are missing", sql: []string{`DELETE FROM ledger WHERE seq = 1`}},
		{name: "entry removed", says: "entries 9 to 9 are missing", sql: []string{`DELETE FROM ledger WHERE seq = 9`}},
		{name: "entry removed and the gap closed", says: "was altered or moved", sql: []string{
			`DELETE FROM ledger WHERE seq = 9`,
			`UPDATE ledger SET id = -id WHERE seq > 9`,
			`UPDATE ledger SET id = -id - 1 WHERE id < 0`,
		}},
		{name: "two entries swapped", says: "entry 9 was altered or moved", sql: []string{
			`UPDATE ledger SET id = 1000 WHERE id = 9`,
			`UPDATE ledger SET id = 9 WHERE id = 10`,
			`UPDATE ledger SET id = 10 WHERE id = 1000`,
		}},
		{name: "entry repeated at the end", says: "was altered or moved", sql: []string{
			fmt.Sprintf(`INSERT INTO ledger SELECT %d, at, kind, actor_id, address, account_id, first_id, last_id, count,
				amount, detail, mac, machine_id, lane, ahead FROM ledger WHERE seq = 4`, last+1),
		}},
		{name: "tail cut", says: "cut off", sql: []string{`DELETE FROM ledger WHERE seq > 19`}},
		{name: "last entry cut", says: "cut off", sql: []string{fmt.Sprintf(`DELETE FROM ledger WHERE seq = %d`, last)}},
		{name: "everything cut", says: "cut off", sql: []string{`DELETE FROM ledger`}},
		{name: "tail cut and the head made to fit", says: "head row was altered", sql: []string{
			`DELETE FROM ledger WHERE seq > 19`,
			`UPDATE ledger_heads SET count = 19, mac = (SELECT mac FROM ledger WHERE seq = 19)`,
		}},
		{name: "tail cut and the old head put back", says: "its entries add up to", sql: []string{
			`DELETE FROM ledger WHERE seq > 19`,
			fmt.Sprintf(`UPDATE ledger_heads SET count = 19, mac = x'%x', seal = x'%x'`, f.old.MAC, f.oldSeal()),
		}},
		{name: "an older copy", says: "older copy", since: true, sql: []string{
			`DELETE FROM ledger WHERE seq > 19`,
			fmt.Sprintf(`UPDATE ledger_heads SET count = 19, mac = x'%x', seal = x'%x'`, f.old.MAC, f.oldSeal()),
			`UPDATE users SET quota = quota - 3 WHERE id = 2`,
		}},
		{name: "head put back", says: "entries were added, or the head was put back", sql: []string{
			fmt.Sprintf(`UPDATE ledger_heads SET count = 19, mac = x'%x', seal = x'%x'`, f.old.MAC, f.oldSeal()),
		}},
		{name: "head count", says: "head row was altered", sql: []string{`UPDATE ledger_heads SET count = count + 1`}},
		{name: "head mac", says: "head row was altered", sql: []string{`UPDATE ledger_heads SET mac = (SELECT mac FROM ledger WHERE seq = 3)`}},
		{name: "head seal", says: "head row was altered", sql: []string{`UPDATE ledger_heads SET seal = zeroblob(32)`}},
		{name: "head seal gone", says: "head row was altered", sql: []string{`UPDATE ledger_heads SET seal = x''`}},
		{name: "head removed", says: "no head", sql: []string{`DELETE FROM ledger_heads`}},
		{name: "head and entries removed", says: "no head", sql: []string{`DELETE FROM ledger_heads`, `DELETE FROM ledger`}},
		{name: "another head", says: "head row was altered", sql: []string{
			`INSERT INTO ledger_heads SELECT 2, 0, x'', seal FROM ledger_heads`,
		}},
		{name: "balance raised", says: "account 2: the balance is 28, its entries add up to 27", sql: []string{
			`UPDATE users SET quota = quota + 1 WHERE id = 2`,
		}},
		{name: "balance lowered", says: "account 2: the balance is 0", sql: []string{`UPDATE users SET quota = 0 WHERE id = 2`}},
		{name: "account removed", says: "there is no such account", sql: []string{`DELETE FROM users WHERE id = 2`}},
		{name: "balances swapped", says: "account 1: the balance is 27", sql: []string{
			`UPDATE users SET quota = 27 - quota`,
		}},
		{name: "account made up", says: "account 3: the balance is 7", sql: []string{
			`INSERT INTO users SELECT 3, 'x', 'x', 100, 1, 7, '', NULL, 0`,
		}},
	}
	for column, change := range map[string]string{
		"id": "id + 1000", "lane": "lane + 1", "ahead": "ahead - 1", "at": "at + 1", "kind": "kind || ' '", "actor_id": "actor_id + 1",
		"address": "substr(address, 2)", "account_id": "account_id + 1", "first_id": "first_id + 1",
		"last_id": "last_id - 1", "machine_id": "machine_id + 1", "count": "count + 1", "amount": "amount + 1", "detail": "detail || ' '",
		"mac": "CAST(substr(mac, 1, 31) || iif(substr(mac, 32) = x'01', x'02', x'01') AS BLOB)",
	} {
		for _, seq := range []int{1, 4, 11, last} {
			attacks = append(attacks, attack{
				name: fmt.Sprintf("%s of entry %d", column, seq),
				sql:  []string{fmt.Sprintf(`UPDATE ledger SET %s = %s WHERE seq = %d`, column, change, seq)},
			})
		}
	}
	f.everyColumn(attackNames(attacks, func(a attack) string { return a.name }))
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			f := &tampered{fixture: f.in(t), since: f.since}
			for _, text := range a.sql {
				f.exec(raw, text)
			}
			faults := f.faults()
			if a.since {
				if faults != nil {
					t.Errorf("without the checkpoint it finds %q: then this test is not about it", faults)
				}
				faults = f.faults(f.since)
			}
			if len(faults) == 0 || !strings.Contains(strings.Join(faults, "\n"), a.says) {
				t.Errorf("found %q, want %q", faults, a.says)
			}
			restore()
			if faults := f.faults(f.since); faults != nil {
				t.Fatalf("put back, it finds %q", faults)
			}
		})
	}
}

func attackNames[T any](attacks []T, name func(T) string) map[string]bool {
	out := map[string]bool{}
	for _, a := range attacks {
		column, _, _ := strings.Cut(name(a), " of entry")
		out[column] = true
	}
	return out
}

// everyColumn fails if the ledger has a column that no attack changes.
func (f *tampered) everyColumn(attacked map[string]bool) {
	f.Helper()
	for column := range strings.SplitSeq(f.columns("ledger"), ",") {
		if !attacked[column] {
			f.Errorf("no attack changes the column %s", column)
		}
	}
}

// columns are those of a table that hold something.
func (f *tampered) columns(table string) (names string) {
	f.Helper()
	f.check(f.raw().QueryRowContext(f.ctx, `SELECT group_concat(name) FROM pragma_table_info(?)`, table).Scan(&names))
	return names
}

// oldSeal is the seal of the head at the checkpoint, as a thief of an older copy
// has it.
func (f *tampered) oldSeal() []byte {
	f.Helper()
	ring, err := f.db.Keys().Reload(f.ctx)
	f.check(err)
	h := account.Head{Lane: f.old.Lane, Count: f.old.Count, MAC: f.old.MAC}
	account.NewChain(ring.LedgerKey()).SealHead(&h)
	return h.Seal
}

// A code that is made redeemable again past the engine pays again, but Verify
// says so.
func TestRedeemedTwice(t *testing.T) {
	f := newTampered(t)
	raw := f.raw()
	f.exec(raw, `UPDATE redemptions SET state = 1, used_by = 0, redeemed = 0 WHERE id = 5`)
	_, err := f.codes.Redeem(f.ctx, f.user, f.keys[4], nil)
	f.check(err)
	faults := f.faults()
	if len(faults) != 1 || !strings.Contains(faults[0], "redeems code 5 a second time") {
		t.Errorf("found %q", faults)
	}
}
