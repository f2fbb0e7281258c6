package postgres_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/postgres"
)

func TestText(t *testing.T) {
	for shared, want := range map[string]string{
		`SELECT 1`:                                                     `SELECT 1`,
		`SELECT a FROM t WHERE a = ? AND b = ?`:                        `SELECT a FROM t WHERE a = $1 AND b = $2`,
		`SELECT ?2, ?1, ?2 WHERE a = ?12`:                              `SELECT $2, $1, $2 WHERE a = $12`,
		`SELECT a FROM t INDEXED BY t_a WHERE ?`:                       `SELECT a FROM t  WHERE $1`,
		`SELECT a FROM t x INDEXED BY t_a JOIN u INDEXED BY u_b ON ?1`: `SELECT a FROM t x  JOIN u  ON $1`,
		`VALUES (?,?,?,?,?,?,?,?,?,?,?)`:                               `VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)`,
		`a LIKE ? ESCAPE '\'`:                                          `a LIKE $1 ESCAPE '\'`,
	} {
		if got := postgres.Text(shared); got != want {
			t.Errorf("%s\nbecomes %s\n   want %s", shared, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	for _, c := range []struct{ in, want any }{
		{"plain", "plain"},
		{"ünï", "ünï"},
		{"a\x00b", "a\uFFFDb"},
		{"a\xff\xfeb\xc3", "a\uFFFDb\uFFFD"},
		{[]byte(nil), []byte{}},
		{[]byte{0, 255}, []byte{0, 255}},
		{int64(3), int64(3)},
		{nil, nil},
	} {
		if got := postgres.Clean(c.in)[0]; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q becomes %q, want %q", c.in, got, c.want)
		}
	}
}

// TestOddText has in the ledger what PostgreSQL cannot hold: the entry is over what
// it holds instead.
func TestOddText(t *testing.T) {
	f := newFixture(t)
	f.root.Address = "a\x00b\xffc"
	f.issue(1, 1)
	f.whole()
	entries, err := f.db.Ledger(f.ctx, account.LedgerFilter{Limit: 1})
	f.check(err)
	if want := "a\uFFFDb\uFFFDc"; len(entries) != 1 || entries[0].Address != want {
		t.Errorf("the ledger holds %+v, want the address %q", entries, want)
	}
}

// TestNamesInOrder finds users by how their names begin, and pages through them,
// where the database's locale puts letters in another order than their bytes are in.
func TestNamesInOrder(t *testing.T) {
	f := newFixture(t)
	f.exec(f.raw(), `ALTER TABLE users ALTER COLUMN username TYPE TEXT COLLATE "en-x-icu"`)
	for _, name := range []string{"ub", "Ua", "uA", "u-c", "U", "uZ", "ü", "u"} {
		f.user(name)
	}
	var got []string
	for q := (account.UserQuery{Prefix: "u", Limit: 2}); ; {
		page, err := f.db.SearchUsers(f.ctx, q)
		f.check(err)
		if len(page) == 0 {
			break
		}
		for _, u := range page {
			got = append(got, u.Username)
		}
		q.Before = page[len(page)-1].ID
	}
	if want := []string{"u", "u-c", "uA", "uZ", "ub"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
