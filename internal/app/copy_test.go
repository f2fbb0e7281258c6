package app_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/enginetest"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// copySecret is that of both sides of a copy.
const copySecret = "a-secret-for-tests-of-copies"

// side is one of the databases of a copy.
type side struct {
	url    string   // as scrip copy takes it
	driver string   // of database/sql
	source string   // what that opens
	env    []string // to serve it
}

// sqliteSide is a file that does not exist yet.
func sqliteSide(t *testing.T) side {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "scrip.db")
	return side{"sqlite:" + file, "sqlite", file, settingsIn(dir, "SCRIP_SECRET="+copySecret, "SCRIP_ROOT_TOKEN="+rootToken, "SCRIP_GUESS_LIMIT=0")}
}

// postgresSide is an empty database.
func postgresSide(t *testing.T) side {
	t.Helper()
	db, err := enginetest.Postgres(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	env := settingsFor(db, t.TempDir(), "SCRIP_SECRET="+copySecret, "SCRIP_ROOT_TOKEN="+rootToken, "SCRIP_GUESS_LIMIT=0")
	url := setting(env, "SCRIP_DATABASE_URL")
	return side{url, "pgx", url, env}
}

func sides() map[string]func(*testing.T) side {
	return map[string]func(*testing.T) side{"sqlite": sqliteSide, "postgres": postgresSide}
}

// open opens the database past the program.
func (p side) open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open(p.driver, p.source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func (p side) alter(t *testing.T, text string) {
	t.Helper()
	if _, err := p.open(t).ExecContext(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// untouched reports whether a copy to it has not got as far as its first commit.
func (p side) untouched(t *testing.T) bool {
	t.Helper()
	if p.driver == "sqlite" {
		return false
	}
	var n int
	err := p.open(t).QueryRowContext(t.Context(), `SELECT count(*) FROM settings WHERE name IN ('copying', 'keys_made')`).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n == 0
}

func (p side) copyTo(t *testing.T, to side, more ...string) string {
	t.Helper()
	return scrip(t, p.env, append([]string{"copy", "--from", p.url, "--to", to.url}, more...)...)
}

// refuses fails unless the copy does, says that, and leaves nothing of it.
func (p side) refuses(t *testing.T, to side, says string) {
	t.Helper()
	_, stderr, err := tryScrip(t, p.env, "copy", "--from", p.url, "--to", to.url)
	if err == nil || !strings.Contains(stderr, says) {
		t.Errorf("%v\n%s, want %q", err, stderr, says)
	}
}

// history is what was done to a database, and what is known of it from outside.
type history struct {
	*crowd
	machine   *vending
	unused    []string
	idle      []pickupCode // live, and in the machine
	merchant  string       // as the request was answered that made it
	gone      int64        // the id of the last code, which was deleted
	goneOrder int64
}

const (
	merchantBody = `{"name":"Dan"}`
	merchantKey  = "the idempotency key of a merchant"
)

// live does all that leaves rows in a database.
func live(t *testing.T, p side) *history {
	t.Helper()
	s := start(t, p.env)
	var users []user
	for i := range 8 {
		users = append(users, createUser(t, p.env, fmt.Sprintf("user%d", i)))
	}
	h := &history{crowd: newCrowd(users), machine: &vending{TB: t, dir: t.TempDir(), no: "16327138"}}
	h.grow(t, s)
	scrip(t, p.env, "secret", "rotate")
	s.must(t, root(), http.MethodPost, "/api/user/", map[string]any{"username": "ben", "password": "correct horse battery staple"}, nil)
	s.must(t, user{}, http.MethodPost, "/api/user/login", map[string]any{"username": "ben", "password": "correct horse battery staple"}, nil)
	h.merchant = s.postV1(t, http.StatusCreated, "/merchants", merchantBody, merchantKey)

	v := h.machine
	v.appKey = member(t, scrip(t, p.env, "merchant", "create", "Acme", "--json"), "app_key")
	create := []string{"--merchant", "2", "--name", "Lobby", "--timezone", "Asia/Shanghai", "--json"}
	v.password = member(t, scrip(t, p.env, append([]string{"machine", "create", v.no}, create...)...), "mqtt_password")
	scrip(t, p.env, append([]string{"machine", "create", "00000042"}, create...)...)
	scrip(t, p.env, "machine", "delete", "00000042")
	scrip(t, p.env, "product", "add", v.no, "Tea", "--slot", "A1", "--id", "20001")
	order := func() (c pickupCode) {
		t.Helper()
		if err := s.v1(t.Context(), http.StatusCreated, http.MethodPost, "/machines/"+v.no+"/pickup-codes",
			`{"product_id":20001,"quantity":1,"allow_more":true}`, &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	withdraw := func(c pickupCode) {
		t.Helper()
		if err := s.v1(t.Context(), http.StatusNoContent, http.MethodDelete, fmt.Sprintf("/pickup-codes/%d", c.ID), "", nil); err != nil {
			t.Fatal(err)
		}
	}
	used := order()
	h.idle = []pickupCode{order(), order()}
	v.on(s.mqttURL(t))
	v.holds(append(slices.Clone(h.idle), used)...)
	v.use(used)
	eventually(t, "the report", func() error {
		if n := v.device.Unreported(); n != 0 {
			return fmt.Errorf("%d are not reported", n)
		}
		return nil
	})
	v.off()
	withdraw(order())
	h.idle = append(h.idle, order()) // which it has not heard of
	h.goneOrder = h.idle[2].ID

	h.unused = s.issue(t, "unused", 30, 7)
	all := s.codes(t)
	s.must(t, root(), http.MethodPut, "/api/redemption/?status_only=true", map[string]any{"id": all[h.unused[0]].ID, "status": 2}, nil)
	s.must(t, root(), http.MethodDelete, "/api/redemption/invalid", nil, nil)
	h.crowd = newCrowd(users) // the codes that were redeemed are gone
	h.grow(t, s)
	last := s.issue(t, "gone", 1, 1)[0]
	h.gone = s.codes(t)[last].ID
	s.must(t, root(), http.MethodDelete, fmt.Sprintf("/api/redemption/%d", h.gone), nil, nil)
	s.stop(t)
	return h
}

// grow has the crowd redeem some, several at a time.
func (h *history) grow(t *testing.T, s *server) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h.run(ctx, s, 60, cancel)
	for _, err := range h.wrong {
		t.Error(err)
	}
}

// records is what the commands list of a database.
func records(t *testing.T, p side) string {
	t.Helper()
	var out strings.Builder
	for _, args := range [][]string{
		{"ledger", "list", "--json", "--limit", "100000"},
		{"user", "list", "--json"},
		{"merchant", "list", "--json"},
		{"product", "list", "16327138", "--json"},
	} {
		out.WriteString(scrip(t, p.env, args...))
	}
	return out.String()
}

// serves looks whether a server on the database does what the one did that the
// history is of, goes on from there, and audits everything.
func (h *history) serves(t *testing.T, p side) {
	t.Helper()
	s := start(t, p.env)
	if got := s.postV1(t, http.StatusCreated, "/merchants", merchantBody, merchantKey); got != h.merchant {
		t.Errorf("a request is answered %s, it was %s", got, h.merchant)
	}
	if a, err := s.redeem(t.Context(), h.users[0], h.unused[1]); err != nil || !a.Success {
		t.Errorf("an unused code: %+v, %v", a, err)
	}
	h.redeemed[h.unused[1]] = h.users[0]
	h.unused = h.unused[1:]
	h.retry(t, s)
	h.grow(t, s)
	key := s.issue(t, "next", 1, 1)[0]
	all := s.codes(t)
	for _, c := range all {
		if c.ID == h.gone {
			t.Errorf("the id %d was given again", c.ID)
		}
	}
	if all[key].ID <= h.gone {
		t.Errorf("the next id is %d, behind %d", all[key].ID, h.gone)
	}

	v := h.machine
	v.on(s.mqttURL(t))
	v.holds(h.idle...)
	v.use(h.idle[0])
	h.idle = h.idle[1:]
	var c pickupCode
	if err := s.v1(t.Context(), http.StatusCreated, http.MethodPost, "/machines/"+v.no+"/pickup-codes",
		`{"product_id":20001,"quantity":1,"allow_more":true}`, &c); err != nil {
		t.Fatal(err)
	}
	if c.ID <= h.goneOrder {
		t.Errorf("the next pickup code has the id %d, behind %d", c.ID, h.goneOrder)
	}
	h.goneOrder = c.ID
	h.idle = append(h.idle, c)
	v.holds(h.idle...)
	eventually(t, "the report", func() error {
		if n := v.device.Unreported(); n != 0 {
			return fmt.Errorf("%d are not reported", n)
		}
		return nil
	})
	v.off()
	h.gone = all[key].ID
	s.must(t, root(), http.MethodDelete, fmt.Sprintf("/api/redemption/%d", h.gone), nil, nil)
	s.audit(t, p.env, nil, h.redeemed)
	s.stop(t)
}

// TestCopy copies a database from one kind to the other and back, over each of the
// ways, and goes on with each copy where the one before ended.
func TestCopy(t *testing.T) {
	t.Parallel()
	for name, way := range map[string][]func(*testing.T) side{
		"from SQLite":     {sqliteSide, postgresSide, sqliteSide, sqliteSide},
		"from PostgreSQL": {postgresSide, sqliteSide, postgresSide, postgresSide},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := way[0](t)
			h := live(t, at)
			for _, next := range way[1:] {
				to := next(t)
				want, since := records(t, at), scrip(t, at.env, "ledger", "head")
				out := at.copyTo(t, to, "--json")
				if !strings.Contains(out, `"accounts":10`) {
					t.Errorf("it says %s", out)
				}
				if got := records(t, to); got != want {
					t.Errorf("the copy lists\n%s\nwant\n%s", got, want)
				}
				scrip(t, to.env, "ledger", "verify", "--since", strings.TrimSpace(since))
				h.serves(t, to)
				at = to
			}
		})
	}
}

// TestCopyRefused: what must not be copied, or copied to, is not.
func TestCopyRefused(t *testing.T) {
	t.Parallel()
	for name, kind := range sides() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := kind(t)
			createUser(t, from.env, "ann", "--quota", "5")
			for other, kind := range sides() {
				t.Run("to "+other, func(t *testing.T) {
					to := kind(t)
					createUser(t, to.env, "bob")
					before := accountsOf(t, to)
					from.refuses(t, to, map[string]string{"sqlite": "exists: move it away", "postgres": "it is not empty"}[other])
					if after := accountsOf(t, to); after != before {
						t.Errorf("it was %s, it is %s", before, after)
					}
				})
			}
			wrong := from
			wrong.env = append(slices.Clone(from.env), "SCRIP_SECRET=another-secret-altogether")
			wrong.refuses(t, sqliteSide(t), "does not open the database")

			for _, c := range []struct{ name, do, undo, says string }{
				{
					"a raised balance", `UPDATE users SET quota = quota + 1 WHERE id = 2`, `UPDATE users SET quota = quota - 1 WHERE id = 2`,
					"the ledger is not whole",
				},
				{
					"a forged entry", `UPDATE ledger SET amount = amount + 1 WHERE id = 2`, `UPDATE ledger SET amount = amount - 1 WHERE id = 2`,
					"the ledger is not whole",
				},
				{
					"a rotation under way", `INSERT INTO settings (name, value) VALUES ('rotate_codes', 1)`, `DELETE FROM settings WHERE name = 'rotate_codes'`,
					"a rotation of its data keys is under way",
				},
				{
					"codes being made", jobUnderWay, `UPDATE jobs SET state = 3`, // stopped
					"codes are still being made or removed",
				},
			} {
				from.alter(t, c.do)
				for _, kind := range sides() {
					to := kind(t)
					from.refuses(t, to, c.says)
					if _, stderr, err := tryScrip(t, to.env, "ledger", "verify"); err == nil {
						t.Errorf("%s: there is a database after it\n%s", c.name, stderr)
					}
				}
				from.alter(t, c.undo)
			}
			from.copyTo(t, sqliteSide(t)) // nothing else was wrong
		})
	}
}

// jobUnderWay is a job of which a server has made a part when it stops.
const jobUnderWay = `INSERT INTO jobs (kind, user_id, address, name, quota, expires, total, done, place, ids, state, started, updated, holder)
	VALUES ('issue', 1, '', 'many', 1, 0, 10000, 100, 0, '1-100', 1, 2000000000000, 2000000000000, '')`

// accountsOf is what a database with accounts alone says.
func accountsOf(t *testing.T, p side) string {
	t.Helper()
	return scrip(t, p.env, "ledger", "head") + scrip(t, p.env, "user", "list", "--json")
}

// What a copy to PostgreSQL waits for in a test, so that it goes no further.
const (
	writing    = `LOCK TABLE redemptions IN ACCESS EXCLUSIVE MODE`
	analyzing  = `LOCK TABLE redemptions IN SHARE UPDATE EXCLUSIVE MODE` // all has been copied and verified
	committing = `SELECT pg_advisory_xact_lock(4711)`                    // as commitsLate has it
)

// commitsLate has a copy to PostgreSQL wait for a lock when it commits.
const commitsLate = `CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END';
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON data_keys DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()`

// hold begins a transaction that has a lock until it is freed.
func (p side) hold(t *testing.T, lock string) (free func()) {
	t.Helper()
	conn, err := p.open(t).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	for _, text := range []string{map[string]string{"sqlite": `BEGIN IMMEDIATE`, "pgx": `BEGIN`}[p.driver], lock} {
		if _, err := conn.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), `ROLLBACK`); err != nil {
			t.Fatal(err)
		}
	}
}

// waits waits for the copy to wait for a lock of that database.
func (p side) waits(t *testing.T, stderr *output) {
	t.Helper()
	db := p.open(t)
	eventually(t, "the copy to wait", func() error {
		var n int
		err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'scrip' AND wait_event_type = 'Lock'`).Scan(&n)
		if err == nil && n == 0 {
			err = fmt.Errorf("it does not: %s", stderr)
		}
		return err
	})
}

// startCopy starts a copy that waits for locks for as long as the test likes.
func startCopy(t *testing.T, from, to side) (cmd *exec.Cmd, stderr *output) {
	t.Helper()
	patient := func(p side) string {
		if p.driver == "sqlite" {
			return p.url
		}
		return p.url + "&lock_timeout=300s" // as busy as the machine may be
	}
	cmd = exec.CommandContext(t.Context(), "scrip", "copy", "--from", patient(from), "--to", patient(to)) //nolint:gosec // G204: the program under test
	stderr = &output{}
	cmd.Env, cmd.Stderr = from.env, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, stderr
}

// blocked is a copy to PostgreSQL that waits for a lock that the test has.
func blocked(t *testing.T, from, to side, lock string) (cmd *exec.Cmd, stderr *output, free func()) {
	t.Helper()
	free = to.hold(t, lock)
	cmd, stderr = startCopy(t, from, to)
	to.waits(t, stderr)
	return cmd, stderr, free
}

// stopped is a copy from SQLite to SQLite that stands still when everything has
// been written and verified, but the copy is not there yet.
func stopped(t *testing.T, from, to side) (cmd *exec.Cmd, stderr *output, free func()) {
	t.Helper()
	unlock := from.hold(t, `SELECT 1`) // it gets no further than to its last look
	cmd, stderr = startCopy(t, from, to)
	eventually(t, "the copy to be written", func() error {
		files, err := filepath.Glob(filepath.Join(filepath.Dir(to.source), ".scrip-*.tmp", "copy"))
		if err != nil {
			return err
		}
		if len(files) != 1 {
			return fmt.Errorf("%d files: %s", len(files), stderr)
		}
		// Without a lock, that the copy would find. There is something in it once the
		// commit has begun.
		db, err := sql.Open("sqlite", "file:"+files[0]+"?mode=ro&immutable=1")
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		var lane int
		return db.QueryRowContext(t.Context(), `SELECT lane FROM ledger_heads`).Scan(&lane)
	})
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var is syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &is, syscall.WUNTRACED, nil); err != nil || !is.Stopped() {
		t.Fatalf("it has not stopped: %v, %v\n%s", is, err, stderr)
	}
	unlock()
	return cmd, stderr, func() {
		if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}

// lookingLast is a copy from PostgreSQL that waits at its last look, for one lane
// of the ledger: there are others.
func lookingLast(t *testing.T, from, to side) (cmd *exec.Cmd, stderr *output, free func()) {
	t.Helper()
	free = from.hold(t, `SELECT lane FROM ledger_heads WHERE lane = 1 FOR UPDATE`)
	cmd, stderr = startCopy(t, from, to)
	from.waits(t, stderr)
	return cmd, stderr, free
}

// TestCopyOfRedeemedFrom: what is redeemed when everything has been verified, but
// the copy is not there yet, cannot be redeemed once more on it.
func TestCopyOfRedeemedFrom(t *testing.T) {
	t.Parallel()
	indexing := func(t *testing.T, from, to side) (*exec.Cmd, *output, func()) {
		t.Helper()
		return blocked(t, from, to, analyzing)
	}
	for name, c := range map[string]struct {
		from, to func(*testing.T) side
		copies   func(t *testing.T, from, to side) (*exec.Cmd, *output, func())
	}{
		"SQLite to SQLite":               {sqliteSide, sqliteSide, stopped},
		"SQLite to PostgreSQL":           {sqliteSide, postgresSide, indexing},
		"PostgreSQL to SQLite":           {postgresSide, sqliteSide, lookingLast},
		"PostgreSQL to PostgreSQL":       {postgresSide, postgresSide, indexing},
		"PostgreSQL to PostgreSQL, last": {postgresSide, postgresSide, lookingLast},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := c.from(t), c.to(t)
			ann := createUser(t, from.env, "ann")
			s := start(t, from.env)
			key := s.issue(t, "codes", 1, 5)[0]
			s.stop(t)
			cmd, stderr, free := c.copies(t, from, to)
			s = start(t, from.env)
			if a, err := s.redeem(t.Context(), ann, key); err != nil || !a.Success {
				t.Errorf("%+v, %v", a, err)
			}
			s.stop(t)
			free()
			if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "it was written to meanwhile: stop every server") {
				t.Errorf("%v\n%s", err, stderr)
			}
			if _, stderr, err := tryScrip(t, to.env, "ledger", "verify"); err == nil {
				t.Errorf("there is a database after it\n%s", stderr)
			}
			from.copyTo(t, to)
		})
	}
}

// TestCopyHolds: nobody writes between the last look and the copy's being there.
func TestCopyHolds(t *testing.T) {
	t.Parallel()
	for name, kind := range sides() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := kind(t), postgresSide(t)
			createUser(t, from.env, "ann", "--quota", "5")
			to.alter(t, commitsLate)
			cmd, stderr, free := blocked(t, from, to, committing)
			for _, lock := range map[string][]string{
				"sqlite": {`BEGIN IMMEDIATE`}, // which does not wait
				"pgx": {
					`SELECT lane FROM ledger_heads WHERE lane = 1 FOR UPDATE NOWAIT`,
					`SELECT lane FROM ledger_heads WHERE lane = 8 FOR UPDATE NOWAIT`,
				},
			}[from.driver] {
				if _, err := from.open(t).ExecContext(t.Context(), lock); err == nil {
					t.Errorf("%s succeeds", lock)
				}
			}
			free()
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v\n%s", err, stderr)
			}
			createUser(t, from.env, "bob") // it is free again
		})
	}
}

// TestCopyOfWrittenTo: what is written while it is copied is not left behind in
// silence.
func TestCopyOfWrittenTo(t *testing.T) {
	t.Parallel()
	for name, kind := range sides() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := kind(t), postgresSide(t)
			createUser(t, from.env, "ann", "--quota", "5")
			cmd, stderr, free := blocked(t, from, to, writing)
			createUser(t, from.env, "late")
			free()
			if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "it was written to meanwhile: stop every server") {
				t.Errorf("%v\n%s", err, stderr)
			}
			from.copyTo(t, to)
			if got, want := accountsOf(t, to), scrip(t, from.env, "user", "list", "--json"); !strings.HasSuffix(got, want) {
				t.Errorf("the copy lists %s, want %s", got, want)
			}
		})
	}
}

// TestCopyCutOff ends copies at any moment: there is no database then that could
// be served, and another copy succeeds.
func TestCopyCutOff(t *testing.T) {
	t.Parallel()
	random := seed(t)
	from := sqliteSide(t)
	s := start(t, from.env)
	for range 20 {
		s.issue(t, "codes", 100, 1)
	}
	s.stop(t)

	t.Run("while it writes", func(t *testing.T) {
		to := postgresSide(t)
		cmd, _, free := blocked(t, from, to, writing)
		for _, args := range [][]string{{"serve"}, {"user", "list"}} {
			if _, stderr, err := tryScrip(t, to.env, args...); err == nil || !strings.Contains(stderr, "a copy to it has begun and not ended") {
				t.Errorf("%v beside it: %v\n%s", args, err, stderr)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		free()
		if _, stderr, err := tryScrip(t, to.env, "serve"); err == nil || !strings.Contains(stderr, "run the same scrip copy again") {
			t.Errorf("served after it: %v\n%s", err, stderr)
		}
		from.copyTo(t, to)
	})
	t.Run("interrupted", func(t *testing.T) {
		to := postgresSide(t)
		cmd, stderr, free := blocked(t, from, to, writing)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "interrupted: nothing was copied") {
			t.Errorf("%v\n%s", err, stderr)
		}
		free()
		from.copyTo(t, to)
	})
	for name, kind := range sides() {
		t.Run("to "+name, func(t *testing.T) {
			to := kind(t)
			whole := false
			for round := 0; round < 8 && !whole; round++ {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.Int64N(int64(1500*time.Millisecond))))
				cmd := exec.CommandContext(ctx, "scrip", "copy", "--from", from.url, "--to", to.url) //nolint:gosec // G204: the program under test
				cmd.Env = from.env
				err := cmd.Run() // which kills it
				cancel()
				if to.untouched(t) { // and a command would make its keys
					continue
				}
				_, stderr, there := tryScrip(t, to.env, "ledger", "verify")
				whole = there == nil
				switch {
				case err == nil && !whole:
					t.Fatalf("it succeeded, and there is no whole database: %s", stderr)
				case !whole && !strings.Contains(stderr, "a copy to it has begun") && !strings.Contains(stderr, "there is no database"):
					t.Fatalf("round %d: %s", round, stderr)
				}
				if whole {
					break
				}
			}
			if !whole {
				from.copyTo(t, to)
			}
			if got, want := accountsOf(t, to), scrip(t, from.env, "user", "list", "--json"); !strings.HasSuffix(got, want) {
				t.Errorf("the copy lists %s, want %s", got, want)
			}
			s := start(t, to.env)
			if n := len(s.codes(t)); n != 2000 {
				t.Errorf("it has %d codes", n)
			}
			s.stop(t)
		})
	}
}

// TestCopyLeavesNothingOut compares what is copied with the schemas: a table or a
// column that somebody adds is copied, or left out here.
func TestCopyLeavesNothingOut(t *testing.T) {
	t.Parallel()
	left := []string{
		"settings", "counters", "key_salt", "guesses", "leases", "duties", "redemption_changes", "redemption_worth", "activity", "activity_heads",
		"jobs", "verification", "goose_db_version", "goose_lock", "sqlite_sequence", "ledger.ahead",
	}
	var want []string
	for _, table := range sqlstore.Tables() {
		for _, column := range table.Columns {
			want = append(want, table.Name+"."+column)
		}
	}
	slices.Sort(want)
	for name, text := range map[string]string{
		"sqlite":   `SELECT m.name, p.name FROM sqlite_schema m, pragma_table_xinfo(m.name) p WHERE m.type = 'table'`,
		"postgres": `SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := sides()[name](t)
			createUser(t, p.env, "ann")
			rows, err := p.open(t).QueryContext(t.Context(), text)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = rows.Close() }()
			var got []string
			for rows.Next() {
				var table, column string
				if err := rows.Scan(&table, &column); err != nil {
					t.Fatal(err)
				}
				if full := table + "." + column; !slices.Contains(left, table) && !slices.Contains(left, full) {
					got = append(got, full)
				}
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("the schema has\n%v\nwhat is copied\n%v", got, want)
			}
		})
	}
}

// TestSQLiteGetsLanes: a database from before the ledger had several lanes is
// whole, and goes on.
func TestSQLiteGetsLanes(t *testing.T) {
	t.Parallel()
	p := sqliteSide(t)
	createUser(t, p.env, "ann", "--quota", "5")
	for _, text := range []string{
		`DROP TABLE redemption_worth`, `DROP TABLE activity`, `DROP TABLE activity_heads`, `DROP TABLE presence_history`, `DROP TABLE worth_history`, `DROP TABLE verification`,
		`DROP TABLE links`, `DROP TABLE jobs`, `DROP INDEX users_role`, `DROP INDEX users_status`,
		`DROP INDEX pickup_codes_look`, `ALTER TABLE pickup_codes DROP COLUMN acknowledged`,
		`ALTER TABLE ledger DROP COLUMN seq`, `ALTER TABLE ledger DROP COLUMN ahead`, `ALTER TABLE ledger DROP COLUMN lane`,
		`ALTER TABLE ledger RENAME COLUMN id TO seq`, `DELETE FROM goose_db_version WHERE version_id >= 4`,
	} {
		p.alter(t, text)
	}
	before := scrip(t, p.env, "ledger", "head")
	createUser(t, p.env, "bob")
	scrip(t, p.env, "ledger", "verify", "--since", strings.TrimSpace(before))
}
