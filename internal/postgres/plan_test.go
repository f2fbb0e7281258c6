package postgres_test

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/postgres"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// planned is an engine of the conformance suite: when it is closed, the plans of all
// that it has asked of the server are looked at, as the server runs them from then
// on. Most of them were made when the tables were empty.
type planned struct {
	*postgres.DB
	t *testing.T
}

// Close implements storetest.Engine.
func (p planned) Close() error {
	// The test's own context may have ended.
	for _, fault := range walks(context.WithoutCancel(p.t.Context()), p.DB) {
		p.t.Error(fault)
	}
	return p.DB.Close()
}

// explained has the statements that were looked at already.
var explained sync.Map //nolint:gochecknoglobals // of all tests

// walks says which statements read a table from end to end that may be large.
func walks(ctx context.Context, db *postgres.DB) []string {
	return explain(ctx, db, func(text string, plan *node) string {
		if _, known := explained.LoadOrStore(text, true); known || mayWalk(text) {
			return ""
		}
		return plan.walk(false)
	})
}

// explain looks at the plans of what was asked of the server, and says which have
// a fault.
func explain(ctx context.Context, db *postgres.DB, fault func(text string, plan *node) string) (faults []string) {
	err := db.EachIdle(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT name, statement, cardinality(parameter_types) FROM pg_prepared_statements`)
		if err != nil {
			return err
		}
		type prepared struct {
			name, text string
			parameters int
		}
		statements, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p prepared, err error) {
			return p, row.Scan(&p.name, &p.text, &p.parameters)
		})
		if err != nil {
			return err
		}
		for _, s := range statements {
			if !regexp.MustCompile(`(?i)^\s*(WITH|SELECT|INSERT|UPDATE|DELETE)`).MatchString(s.text) {
				continue
			}
			call := pgx.Identifier{s.name}.Sanitize()
			if s.parameters > 0 {
				call += `(` + strings.TrimSuffix(strings.Repeat(`NULL, `, s.parameters), `, `) + `)`
			}
			var plans []struct {
				Plan node `json:"Plan"`
			}
			var text []byte
			if err := conn.QueryRow(ctx, `EXPLAIN (FORMAT JSON) EXECUTE `+call, pgx.QueryExecModeSimpleProtocol).Scan(&text); err != nil {
				return fmt.Errorf("explaining %q: %w", s.text, err)
			}
			if err := json.Unmarshal(text, &plans); err != nil {
				return err
			}
			for _, p := range plans {
				if what := fault(s.text, &p.Plan); what != "" {
					faults = append(faults, fmt.Sprintf("%q\nis run as %s:\n%s", s.text, what, text))
				}
			}
		}
		return nil
	})
	if err != nil {
		faults = append(faults, err.Error())
	}
	return faults
}

// node is a step of a plan.
type node struct {
	Type     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Index    string `json:"Index Name"`
	Cond     string `json:"Index Cond"`
	Filter   string `json:"Filter"`
	Plans    []node `json:"Plans"`
}

// walk says where a plan reads a large table from end to end, unless a limit ends
// that.
func (n *node) walk(limited bool) string {
	limited = limited || n.Type == "Limit"
	large := regexp.MustCompile(`^(redemptions|redemption_counts|ledger|users|answers|sessions|links|guesses|merchants|machines|` +
		`products|pickup_codes|outbox|leases|jobs)$`).MatchString(n.Relation)
	if large && (n.Type == "Seq Scan" || strings.HasPrefix(n.Type, "Index") && n.Cond == "" && !limited) {
		return n.Type + " of " + n.Relation
	}
	if n.Type == "Nested Loop" && n.Plans[1].has("Limit") {
		return "a subquery with a limit, once for each row"
	}
	for i := range n.Plans {
		if fault := n.Plans[i].walk(limited); fault != "" {
			return fault
		}
	}
	return ""
}

// has reports whether a step is of that type, or one below it.
func (n *node) has(kind string) bool {
	return n.Type == kind || slices.ContainsFunc(n.Plans, func(below node) bool { return below.has(kind) })
}

// mayWalk reports whether a statement may walk a table: because it is an audit's, about
// who is root, of a start, or never run.
func mayWalk(text string) bool {
	for _, allowed := range []string{
		`SELECT id, quota FROM users ORDER BY id`,
		`FROM users WHERE role >= $1`,
		`UPDATE machines SET presence = $1 WHERE presence = $2`,
		`last_seen > $3 THEN 1 END)`,           // how many machines are online: there are not many
		`select "id", "name_id", "user_id"`,    // the driver asks for the types before a COPY
		`DELETE FROM leases WHERE until < $1 `, // of servers that are gone: there are few
		`max(at) FROM worth_history`,           // a step in the index of what it is looked up by
	} {
		if strings.Contains(text, allowed) {
			return true
		}
	}
	return false
}

// TestPlans sees that a statement that walks is found.
func TestPlans(t *testing.T) {
	f := newFixture(t)
	f.issue(10, 1)
	for text, walking := range map[string]bool{
		`SELECT id FROM redemptions WHERE quota = $1`:             true,
		`SELECT id FROM redemptions WHERE quota = $1 ORDER BY id`: true,
		`SELECT id FROM redemptions WHERE id = $1`:                false,
		`SELECT max(id) FROM redemptions WHERE 0 < $1`:            false,
	} {
		f.check(f.db.EachIdle(f.ctx, func(conn *pgx.Conn) error {
			var n *int64
			err := conn.QueryRow(f.ctx, text, int64(1)).Scan(&n)
			if err == pgx.ErrNoRows { //nolint:errorlint // as it comes
				err = nil
			}
			return err
		}))
		faults := strings.Join(walks(f.ctx, f.db), "\n")
		if got := strings.Contains(faults, "redemptions"); got != walking {
			t.Errorf("%s: walks: %t, %s", text, got, faults)
		}
	}
}

// TestLedgerPlans: what is about an account, a machine or a code is found by that
// one's index, also where nearly all of the ledger is about another: a planner that
// goes by that walks from the newest entry to the oldest for who has none.
func TestLedgerPlans(t *testing.T) {
	f := newFixture(t)
	raw := f.raw()
	f.exec(raw, `INSERT INTO ledger (lane, seq, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount, detail, mac)
		SELECT 9, n, n, 'redeem', 1, '', 1, CASE WHEN n % 10 = 0 THEN 1 ELSE 0 END, n, n, 1, 1, '', '' FROM generate_series(1, 100000) AS n`,
		`INSERT INTO ledger (lane, seq, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount, detail, mac)
		SELECT 10, n, n, 'issue', 1, '', 0, 0, n * 100, n * 100 + 99, 100, 1, '', '' FROM generate_series(1, 10000) AS n`,
		`ANALYZE ledger`)
	day := time.UnixMilli(50_000)
	for _, filter := range []account.LedgerFilter{
		{UserID: 77}, {UserID: -1}, {MachineID: 77}, {CodeID: 7}, {PickupID: 7}, {UserID: 77, From: day}, {UserID: 77, To: day}, {MachineID: 77, From: day, To: day},
	} {
		for _, before := range []int64{0, 50_000} {
			filter.Before, filter.Limit = before, 50
			_, err := f.db.Ledger(f.ctx, filter)
			f.check(err)
		}
	}
	_, _, err := f.db.History(f.ctx, 77, 0, 20)
	f.check(err)
	_, err = f.codes.Find(f.ctx, f.root, redemption.Search{UsedBy: 77}, 0, 20)
	f.check(err)
	others := regexp.MustCompile(`(actor_id|account_id|machine_id|first_id|ROW)\W`)
	var past func(n *node) string
	past = func(n *node) string {
		if n.Relation == "ledger" && (n.Index == "ledger_at" || n.Index == "ledger_pkey") && others.MatchString(n.Filter) {
			return "a walk along " + n.Index + " past what is not asked for"
		}
		for i := range n.Plans {
			if fault := past(&n.Plans[i]); fault != "" {
				return fault
			}
		}
		return ""
	}
	looked := 0
	for _, fault := range explain(f.ctx, f.db, func(text string, plan *node) string {
		if strings.Contains(text, "FROM ledger WHERE") {
			looked++
		}
		return past(plan)
	}) {
		t.Error(fault)
	}
	if looked < 16 { // two of each filter; the few others may be on another connection
		t.Errorf("only %d plans of the ledger were looked at", looked)
	}
}
