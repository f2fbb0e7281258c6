package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/scrip-codes/scrip/internal/rig"
)

// postgresFor starts a PostgreSQL for a test, and returns a way to run SQL in its
// one database, and the settings of servers that share it.
func postgresFor(t *testing.T) (sql func(texts ...string) string, env []string) {
	t.Helper()
	pg, err := rig.StartPostgres(t.Context(), rig.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	url, err := pg.Create(t.Context(), "scrip", "")
	if err != nil {
		t.Fatal(err)
	}
	sql = func(texts ...string) string {
		t.Helper()
		args := []string{"-XAt", "-v", "ON_ERROR_STOP=1", "--single-transaction"}
		for _, text := range texts {
			args = append(args, "-c", text)
		}
		out, err := exec.CommandContext(t.Context(), pg.Bin("psql"), append(args, url)...).CombinedOutput() //nolint:gosec // G204: of the server of this test
		if err != nil {
			t.Fatalf("%q: %v: %s", texts, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	return sql, settingsIn(t.TempDir(), "SCRIP_DATABASE_URL="+url, "SCRIP_SECRET=the secret of all of these servers",
		"SCRIP_ROOT_TOKEN="+rootToken, "SCRIP_GUESS_LIMIT=0", "SCRIP_MQTT_ADDR=off")
}

// previous builds the program of the previous commit, the first parent. Where that
// knows no PostgreSQL, or there is no history, the program under test stands in for
// it.
func previous(t *testing.T) (program string) {
	t.Helper()
	const itself = "scrip"
	run := func(dir, name string, args ...string) error {
		cmd := exec.CommandContext(t.Context(), name, args...) //nolint:gosec // G204: git, tar and go
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
		}
		return err
	}
	root := filepath.Join("..", "..")
	if err := run(root, "git", "cat-file", "-e", "HEAD~1:internal/postgres"); err != nil {
		t.Logf("the previous version is the program under test itself: %v", err)
		return itself
	}
	dir := t.TempDir()
	source, archive := filepath.Join(dir, "source"), filepath.Join(dir, "source.tar")
	program = filepath.Join(dir, "scrip")
	if err := os.Mkdir(source, 0o750); err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{
		run(root, "git", "archive", "--output="+archive, "HEAD~1"),
		run(source, "tar", "-xf", archive),
		run(source, "go", "build", "-o", program, "./cmd/scrip"),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	t.Log("the previous version is that of HEAD~1")
	return program
}

// programOutput runs a command of that program.
func programOutput(t *testing.T, program string, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...) //nolint:gosec // G204: a program under test
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// serve starts a server of that program.
func serve(t *testing.T, program string, env []string) *server {
	t.Helper()
	return startCommand(t, exec.CommandContext(t.Context(), program, "serve"), env)
}

// under runs do while the crowd redeems and issues on these servers.
func (c *crowd) under(t *testing.T, servers []*server, do func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg, running sync.WaitGroup
	for _, s := range servers {
		running.Add(1)
		wg.Go(func() { c.run(ctx, s, 20, running.Done) })
	}
	running.Wait()
	do()
	// And it goes on.
	target := c.acked.Load() + 20
	eventually(t, "redeems after that", func() error {
		if n := c.acked.Load(); n < target {
			return fmt.Errorf("%d, not %d", n, target)
		}
		return nil
	})
	cancel()
	wg.Wait()
}

// TestPostgresTwoVersions has servers of the previous version serve while this one brings
// the schema up to date, beside servers of this one, and while a version that is
// yet to come does.
func TestPostgresTwoVersions(t *testing.T) {
	t.Parallel()
	old := previous(t)
	sql, env := postgresFor(t)
	if out, err := programOutput(t, old, env, "migrate"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first := serve(t, old, env)
	var users []user
	for i := range 4 {
		// By the old program: this one would bring the schema up to date.
		out, err := programOutput(t, old, env, "user", "create", fmt.Sprintf("user%d", i), "--json")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var u user
		if err := json.Unmarshal([]byte(out), &u); err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		users = append(users, u)
	}
	c := newCrowd(users)

	// An upgrade: migrate, then one server after the other.
	c.under(t, []*server{first}, func() { t.Log(strings.TrimSpace(scrip(t, env, "migrate"))) })
	second := start(t, env)
	c.under(t, []*server{first, second}, func() {})
	c.check(t, second, env)

	// The next migration, which only adds: columns of the tables that every redeem
	// and batch writes to, an index, a table. Its version is written down as goose
	// does it.
	m := regexp.MustCompile(`version (\d+)`).FindStringSubmatch(scrip(t, env, "migrate"))
	if m == nil {
		t.Fatal("migrate does not say which version the schema has")
	}
	version, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	next := []string{}
	for _, table := range []string{"redemptions", "users", "ledger", "ledger_heads", "redemption_changes", "answers", "outbox", "settings"} {
		next = append(next, `ALTER TABLE `+table+` ADD COLUMN later TEXT`)
	}
	next = append(next, `CREATE TABLE later (id BIGINT PRIMARY KEY)`,
		fmt.Sprintf(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (%d, true)`, version+1))
	c.under(t, []*server{first, second}, func() {
		// Each by itself: a migration does not lock all tables at once.
		for _, text := range next {
			sql(text)
		}
	})
	first.stop(t)
	second.stop(t)
	first, second = serve(t, old, env), start(t, env)
	c.retry(t, first)
	c.under(t, []*server{first, second}, func() {})
	for _, program := range []string{old, "scrip"} {
		if out, err := programOutput(t, program, env, "migrate"); err != nil || !strings.Contains(out, "up to date") {
			t.Errorf("migrate beside a newer schema: %v: %s", err, out)
		}
	}
	c.check(t, first, env)
	c.check(t, second, env)

	// One that the old cannot live with: those that run go on, none starts.
	c.under(t, []*server{first}, func() {
		sql(fmt.Sprintf(`UPDATE settings SET value = %d WHERE name = 'oldest_program'`, version+1))
	})
	for _, program := range []string{old, "scrip"} {
		for _, args := range [][]string{{"serve"}, {"migrate"}, {"user", "create", "late"}, {"ledger", "verify"}} {
			out, err := programOutput(t, program, env, args...)
			if err == nil || !strings.Contains(out, "use the newer program") {
				t.Errorf("%s %v on a schema that it cannot serve: %v: %s", program, args, err, out)
			}
		}
	}
	sql(fmt.Sprintf(`UPDATE settings SET value = %d WHERE name = 'oldest_program'`, version))
	c.check(t, first, env)
	first.stop(t)
	second.stop(t)
}

// TestPostgresFirstStarts starts servers and migrations on an empty database at the same
// moment: all succeed, and serve the same.
func TestPostgresFirstStarts(t *testing.T) {
	t.Parallel()
	sql, env := postgresFor(t)
	const each = 4
	servers := make([]*server, each)
	var wg sync.WaitGroup
	for i := range each {
		wg.Go(func() {
			if out, err := programOutput(t, "scrip", env, "migrate"); err != nil {
				t.Errorf("migrate: %v: %s", err, out)
			}
		})
		wg.Go(func() { servers[i] = start(t, env) })
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	u := createUser(t, env, "u")
	keys := servers[0].issue(t, "n", each, 3)
	for i, s := range servers {
		if a, err := s.redeem(t.Context(), u, keys[i]); err != nil || !a.Success {
			t.Errorf("server %d: %+v, %v", i, a, err)
		}
		s.stop(t)
	}
	if n := sql(`SELECT count(*) || ' ' || max(quota) FROM users`); n != "2 12" {
		t.Errorf("accounts and the balance are %q", n)
	}
	scrip(t, env, "ledger", "verify")
}
