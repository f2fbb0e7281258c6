package bench

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/rig"
)

func TestRedeem(t *testing.T) {
	c := redeemCommand{common: small(t), Codes: 200, Clients: 4}
	r := measured(t, &c)
	wantResults(t, r, "redeem", "over HTTP")
	if x := r.Results[0]; x.Codes != 200 || x.Clients != 4 {
		t.Errorf("%+v", x)
	}
	noLeftovers(t, c.Dir)
}

func TestListAndSearch(t *testing.T) {
	c := paging{common: small(t), Codes: 600, Clients: 2, Compare: 200}
	for bench, command := range map[string]command{"list": &listCommand{c}, "search": &searchCommand{c}} {
		t.Run(bench, func(t *testing.T) {
			r := measured(t, command)
			wantChecks(t, r, bench, "p50 with 600 codes / with 200")
			for i, x := range r.Results {
				if x.Codes != []int64{600, 200}[i%2] || (x.Ratio > 0) != (i%2 == 0) {
					t.Errorf("result %d: %+v", i, x)
				}
			}
			if n := len(r.Results); n < 20 {
				t.Errorf("only %d kinds", n)
			}
			noLeftovers(t, c.Dir)
		})
	}
}

// TestAll runs every measurement, and the server as a process: this very
// binary, as TestMain has it.
func TestAll(t *testing.T) {
	t.Setenv(serveEnv, "1")
	c := allCommand{common: small(t), Codes: 400, Compare: 200, Clients: 2, Machines: 4, Ceiling: true, Engine: engineBoth}
	reachable(t, c.Dir)
	r := measured(t, &c)
	wantPostgres(t, r)
	wantResults(t, r, "redeem", "over HTTP", "bare driver, same groups", "over HTTP, store answers at once",
		"over HTTP, one client", "bare driver, one a commit")
	wantChecks(t, r, "redeem", redeemOfDriver, redeemOfInstant, "one client's p50")
	wantResults(t, r, "issue", "over HTTP, 100 codes a call", "bare driver, 100 codes a commit")
	wantChecks(t, r, "issue", "bare driver")
	wantResults(t, r, "purge", "redeems before it", "redeems during it", "DELETE /api/redemption/invalid")
	wantPush(t, r)
	wantResults(t, r, "clean-up", "a step of the sweep", "a step of the sweep", "a step of the removal", "a step of the removal")
	wantChecks(t, r, "clean-up", "p50 with 400 codes / with 200")
	wantChecks(t, r, "list", "p50 with 400 codes / with 200")
	wantChecks(t, r, "search", "p50 with 400 codes / with 200")
	wantConsole(t, r, benchConsole, benchLive, "400", "200")
	wantConsole(t, r, benchConsole+", PostgreSQL", benchLive+", PostgreSQL", "400", "200")
	wantResults(t, r, "footprint", "redeem over HTTP, server in a process of its own")
	if runtime.GOOS == "linux" {
		wantChecks(t, r, "footprint", "memory with 400 codes", "start with 400 codes")
	}
	for _, x := range r.Results {
		if x.Bench == "issue" && x.CodeRate != 100*x.Rate {
			t.Errorf("%g codes a second in %g calls", x.CodeRate, x.Rate)
		}
	}
	noLeftovers(t, c.Dir)
}

// wantPostgres checks what is measured on PostgreSQL.
func wantPostgres(t *testing.T, r report) {
	t.Helper()
	wantResults(t, r, "redeem, PostgreSQL", "calling the engine", "pgbench, one redeem a statement", "over HTTP")
	wantChecks(t, r, "redeem, PostgreSQL", redeemOfPgbench, httpOfPgbench)
	wantResults(t, r, "issue, PostgreSQL", "over HTTP, 100 codes a call", "calling the engine, 10,000 codes a batch", "one COPY of 40,000 codes")
	wantChecks(t, r, "issue, PostgreSQL", "time to issue 40,000 codes")
	wantResults(t, r, "purge, PostgreSQL", "redeems before it", "redeems during it", "DELETE /api/redemption/invalid")
	wantChecks(t, r, "list, PostgreSQL", "p50 with 400 codes / with 200")
	wantChecks(t, r, "search, PostgreSQL", "p50 with 400 codes / with 200")
	wantChecks(t, r, "clean-up, PostgreSQL", "p50 with 400 codes / with 200")
}

// reachable lets PostgreSQL reach a test's directory: it does not run as root.
func reachable(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o711); err != nil { //nolint:gosec // G302: to go through, not to read
			t.Fatal(err)
		}
	}
}

// TestPostgresElsewhere measures on a PostgreSQL that was there before, and leaves
// nothing there.
func TestPostgresElsewhere(t *testing.T) {
	ctx := t.Context()
	there, err := rig.StartPostgres(ctx, rig.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := there.Stop(); err != nil {
			t.Error(err)
		}
	}()
	at := where{enginePostgres, there.URL("postgres")}
	for bench, command := range map[string]command{
		"redeem": &redeemCommand{common: small(t), where: at, Codes: 200, Clients: 2},
		"issue":  &issueCommand{common: small(t), where: at, Codes: 200, Clients: 2},
		"list":   &listCommand{paging{common: small(t), where: at, Codes: 200, Clients: 2}},
		"purge":  &purgeCommand{common: small(t), where: at, Codes: 400, Clients: 2, Compare: 200},
	} {
		t.Run(bench, func(t *testing.T) {
			if r := measured(t, command); len(r.Results) == 0 || r.Results[0].Bench != bench+", PostgreSQL" {
				t.Errorf("%+v", r.Results)
			}
		})
	}
	conn, err := openSQL(ctx, at.PostgresURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	var left int
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_database WHERE datname LIKE 'scrip%'`).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d databases were left behind, %v", left, err)
	}
}

// TestReadPgbench reads what pgbench prints.
func TestReadPgbench(t *testing.T) {
	s, err := readPgbench([]byte("number of transactions actually processed: 500\nlatency average = 4.000 ms\n" +
		"tps = 250.000000 (without initial connection time)\n"))
	if err != nil || s.operations() != 500 || s.rate() != 250 || milliseconds(0.5)(s) < 3.9 || milliseconds(0.5)(s) > 4.1 {
		t.Errorf("%d at %g/s, %v", s.operations(), s.rate(), err)
	}
	if _, err := readPgbench([]byte("tps = 1 (without")); err == nil {
		t.Error("half of it is taken for all")
	}
}

// TestElsewhere measures a server that was there before.
func TestElsewhere(t *testing.T) {
	s := settings{env: &Env{Now: clock}, dir: t.TempDir(), progress: newProgress(&stream{}, clock)}
	there, err := s.prepare(t.Context(), filling{codes: 200, names: 20, expired: 1, users: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := there.close(); err != nil {
			t.Error(err)
		}
	}()
	admin := elsewhere{URL: there.url + "/", Token: there.root.token, UserID: there.root.id}
	for bench, command := range map[string]command{
		"redeem": &redeemCommand{common: small(t), elsewhere: admin, Clients: 2, Codes: 1},
		"issue":  &issueCommand{common: small(t), elsewhere: admin, Clients: 2, Codes: 1},
		"list":   &listCommand{paging{common: small(t), elsewhere: admin, Clients: 2, Codes: 1}},
		"search": &searchCommand{paging{common: small(t), elsewhere: admin, Clients: 2, Codes: 1}},
	} {
		t.Run(bench, func(t *testing.T) {
			r := measured(t, command)
			if len(r.Results) == 0 || r.Results[0].Bench != bench {
				t.Errorf("%+v", r.Results)
			}
			if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], `under the name "bench `) {
				t.Errorf("it does not say what it has left there: %q", r.Notes)
			}
		})
	}
	t.Run("table", func(t *testing.T) {
		c := redeemCommand{common: small(t), elsewhere: admin, Clients: 2, Codes: 1}
		c.JSON = false
		var out stream
		if err := c.Run(t.Context(), &Env{Stdout: &out, Stderr: &stream{}, Now: clock}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"redeem ", "operations", "p99", "\nover HTTP "} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("it printed no %q:\n%s", want, &out)
			}
		}
	})
	user := elsewhere{URL: there.url, Token: there.users[0].token, UserID: there.users[0].id}
	for what, c := range map[string]struct {
		command
		want string
	}{
		"no admin":  {&redeemCommand{common: small(t), elsewhere: user, Clients: 1, Codes: 1}, "is no admin"},
		"no token":  {&redeemCommand{common: small(t), elsewhere: elsewhere{URL: there.url}, Clients: 1, Codes: 1}, "--token"},
		"bad token": {&issueCommand{common: small(t), elsewhere: elsewhere{URL: there.url, Token: "x", UserID: 1}, Clients: 1, Codes: 1}, "HTTP 401"},
		"no URL":    {&issueCommand{common: small(t), elsewhere: elsewhere{URL: "localhost"}, Clients: 1, Codes: 1}, "--url"},
		"ceiling":   {&issueCommand{common: small(t), elsewhere: admin, Ceiling: true, Clients: 1, Codes: 1}, "leave out --url"},
		"engine":    {&issueCommand{common: small(t), where: where{Engine: enginePostgres}, elsewhere: admin, Clients: 1, Codes: 1}, "leave out --url"},
		"address":   {&issueCommand{common: small(t), where: where{enginePostgres, "mysql://x"}, Clients: 1, Codes: 1}, "--postgres-url"},
		"no codes":  {&issueCommand{common: small(t), Clients: 1}, "--codes"},
		"clients":   {&issueCommand{common: small(t), Codes: 1}, "--clients"},
		"compare":   {&listCommand{paging{common: small(t), Clients: 1, Codes: 1, Compare: -1}}, "--compare"},
		"names":     {&issueCommand{common: common{Duration: time.Second}, Codes: 1, Clients: 1}, "--names"},
		"duration":  {&issueCommand{common: common{Names: 1}, Codes: 1, Clients: 1}, "--duration"},
	} {
		t.Run(what, func(t *testing.T) {
			var out stream
			err := c.Run(t.Context(), &Env{Stdout: &out, Stderr: &stream{}, Now: clock})
			if err == nil || !strings.Contains(err.Error(), c.want) || out.String() != "" {
				t.Errorf("error %v, printed %q", err, &out)
			}
		})
	}
}

// TestInterrupt cuts a run off at several points: each ends without an error,
// prints what it has, and leaves nothing behind.
func TestInterrupt(t *testing.T) {
	c := redeemCommand{common: small(t), Codes: 200, Clients: 2, Ceiling: true}
	// interrupted runs it until the clock has been read so often.
	interrupted := func(after int64) (r report, calls int64) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var read atomic.Int64
		var out stream
		err := c.Run(ctx, &Env{Stdout: &out, Stderr: &stream{}, Now: func() time.Time {
			if read.Add(1) == after {
				cancel()
			}
			return clock()
		}})
		if err != nil {
			t.Fatalf("after %d: %v", after, err)
		}
		noLeftovers(t, c.Dir)
		return readReport(t, out.String()), read.Load()
	}
	_, whole := interrupted(-1)
	cut, some := 0, 0
	const points = 3
	for i := range int64(points) {
		r, _ := interrupted(1 + whole*(2*i+1)/(2*points))
		if r.Interrupted {
			cut++
		}
		if r.Interrupted && len(r.Results) > 0 {
			some++
		}
		for _, x := range r.Results {
			if x.Errors > 0 {
				t.Errorf("the interrupt counts as an error: %+v", x)
			}
		}
	}
	if cut < points/2 || some == 0 {
		t.Errorf("of %d runs %d were cut off, %d of them with results", points, cut, some)
	}
}

// TestCeilingWritesWhatTheEngineWrites holds what was written straight through
// the driver against the engine: a ceiling that did less would be none.
func TestCeilingWritesWhatTheEngineWrites(t *testing.T) {
	ctx := t.Context()
	s := settings{env: &Env{Now: clock}, dir: t.TempDir(), progress: newProgress(&stream{}, clock)}
	there, err := s.prepare(ctx, filling{codes: 500, names: 20, expired: 1, users: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := there.close(); err != nil {
			t.Error(err)
		}
	}()
	c, err := s.newCeiling(ctx, there)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}()
	redeemed, err := c.redeems(func() int { return 7 }, 5000)(ctx, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := c.issues()(ctx, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if redeemed.operations() == 0 || issued.operations() == 0 {
		t.Fatal("nothing was done")
	}

	report, err := account.Verify(ctx, c.engine, c.key, nil, nil)
	if err != nil || len(report.Faults) > 0 {
		t.Errorf("the ledger: %v, %q", err, report.Faults)
	}
	q := redemption.Query{Filter: redemption.FilterUsed, Now: clock(), Limit: 1}
	if _, used, err := c.List(ctx, q); err != nil || used != c.contents.used+redeemed.operations() {
		t.Errorf("%d are counted as used, %v; want %d", used, err, c.contents.used+redeemed.operations())
	}
	// Each page is found through the counts: those that were issued too.
	q.Filter, q.Limit = redemption.FilterAll, 100
	var last int64
	_, total, err := c.List(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	for q.Offset = 0; q.Offset < total; q.Offset += q.Limit {
		rows, _, err := c.List(ctx, q)
		if err != nil || int64(len(rows)) != min(q.Limit, total-q.Offset) || last > 0 && rows[0].ID != last-1 {
			t.Fatalf("the page at %d has %d codes, %v", q.Offset, len(rows), err)
		}
		last = rows[len(rows)-1].ID
	}
	if last != 1 {
		t.Errorf("the last code has id %d", last)
	}
}

// TestPragmas reads the engine's pragmas from its source, so that the ceiling is
// not measured under others.
func TestPragmas(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "sqlite", "sqlite.go"))
	if err != nil {
		t.Fatal(err)
	}
	pragma := regexp.MustCompile(`_pragma=(\w+)\(([^)]*)\)`)
	ours := map[string]string{}
	for _, m := range pragma.FindAllStringSubmatch(pragmas, -1) {
		ours[m[1]] = m[2]
	}
	found := 0
	for _, m := range pragma.FindAllStringSubmatch(string(source), -1) {
		switch name, value := m[1], m[2]; {
		case name == "query_only": // of readers
		case ours[name] == "" || !strings.Contains(value, "%") && ours[name] != value:
			t.Errorf("the engine sets %s(%s), the ceiling %q", name, value, ours[name])
		default:
			found++
		}
	}
	if found != len(ours) {
		t.Errorf("the engine sets %d of the ceiling's %d pragmas", found, len(ours))
	}
}

// TestFill compares the short way with the usual one, and both with what they
// say.
func TestFill(t *testing.T) {
	ctx := t.Context()
	for _, f := range []filling{
		{codes: 1050, names: 30, expired: 1, sorted: true},
		{codes: 1010, names: 300, expired: 1},
	} {
		d, err := newDatabase(ctx, t.TempDir(), clock)
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.fill(ctx, f, newProgress(&stream{}, clock))
		if err != nil {
			t.Fatalf("%+v: %v", f, err)
		}
		for filter, want := range map[redemption.Filter]int64{
			redemption.FilterAll: f.codes, redemption.FilterLive: c.live(), redemption.FilterUsed: c.used,
			redemption.FilterDisabled: c.disabled, redemption.FilterExpired: c.expired,
		} {
			_, got, err := d.List(ctx, redemption.Query{Filter: filter, Now: clock(), Limit: 1})
			if err != nil || got != want {
				t.Errorf("%+v: filter %d counts %d, %v; want %d", f, filter, got, err, want)
			}
		}
		if f.codes > 1000 && min(c.live(), c.used, c.disabled, c.expired) == 0 {
			t.Errorf("%+v: some kind is missing: %+v", f, c)
		}
		r, err := openRaw(ctx, d.path())
		if err != nil {
			t.Fatal(err)
		}
		var unique int64
		if err := r.row(ctx, `SELECT count(*) FROM pragma_index_list('redemptions') WHERE name = 'redemptions_key' AND "unique"`,
			[]any{&unique}); err != nil || unique != 1 {
			t.Errorf("the index of keys: %d, %v", unique, err)
		}
		r.close()
		ring, err := d.Keys().Reload(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if report, err := account.Verify(ctx, d.engine, ring.LedgerKey(), nil, nil); err != nil || len(report.Faults) > 0 {
			t.Errorf("%+v: the ledger: %v, %q", f, err, report.Faults)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}
