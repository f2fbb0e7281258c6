package postgres_test

import (
	"reflect"
	"testing"

	"github.com/scrip-codes/scrip/internal/postgres"
)

func TestText(t *testing.T) {
	for shared, want := range map[string]string{
		`SELECT 1`:                               `SELECT 1`,
		`SELECT a FROM t WHERE a = ? AND b = ?`:  `SELECT a FROM t WHERE a = $1 AND b = $2`,
		`SELECT ?2, ?1, ?2 WHERE a = ?12`:        `SELECT $2, $1, $2 WHERE a = $12`,
		`SELECT a FROM t INDEXED BY t_a WHERE ?`: `SELECT a FROM t  WHERE $1`,
		`SELECT a FROM t x INDEXED BY t_a JOIN u INDEXED BY u_b ON ?1`: `SELECT a FROM t x  JOIN u  ON $1`,
		`VALUES (?,?,?,?,?,?,?,?,?,?,?)`:                              `VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)`,
		`a LIKE ? ESCAPE '\'`:                                         `a LIKE $1 ESCAPE '\'`,
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

// TestOddText has what PostgreSQL cannot hold in every text that a caller may
// write, and finds that all is written and the ledger whole.
func TestOddText(t *testing.T) {
	f := newFixture(t)
	odd := "a\x00b\xffc"
	f.root.Address = odd
	f.issue(odd, 1, 1)
	f.whole()
	views, _, err := f.codes.List(f.ctx, f.root, 0, 0, 1)
	f.check(err)
	if want := "a\uFFFDb\uFFFDc"; len(views) != 1 || views[0].Name != want {
		t.Errorf("listed %+v, want the name %q", views, want)
	}
}
