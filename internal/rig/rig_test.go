package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startEnv makes the test binary a program that starts both servers, says where
// they are, and then waits to be killed.
const startEnv = "RIG_TEST_START"

func TestMain(m *testing.M) {
	if os.Getenv(startEnv) == "" {
		os.Exit(m.Run())
	}
	if err := startAndWait(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func startAndWait() error {
	ctx := context.Background()
	p, err := StartPostgres(ctx, PostgresOptions{})
	if err != nil {
		return err
	}
	m, err := StartMosquitto(ctx, MosquittoOptions{})
	if err != nil {
		return err
	}
	fmt.Println(p.dir, p.address())
	fmt.Println(m.dir, m.address())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func startPostgres(t *testing.T, options PostgresOptions) *Postgres {
	t.Helper()
	p, err := StartPostgres(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, p.Server)
	return p
}

func startMosquitto(t *testing.T, options MosquittoOptions) *Mosquitto {
	t.Helper()
	m, err := StartMosquitto(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, m.Server)
	return m
}

func stopAtEnd(t *testing.T, s *Server) {
	t.Helper()
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// openDir makes a directory that others than this user may go through, unlike
// TempDir's. It must be empty at the end of the test.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rig-test-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // G302: see above
		t.Fatal(err)
	}
	return dir
}

// query runs SQL through psql.
func query(t *testing.T, p *Postgres, database, sql string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), p.Bin("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, p.URL(database)).CombinedOutput() //nolint:gosec // G204: a test's own command
	if err != nil {
		t.Fatalf("%s: %v: %s", sql, err, out)
	}
	return strings.TrimSpace(string(out))
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s = %q, want %q", what, got, want)
	}
}

// wantGone checks that a server left nothing: no directory and no listener.
func wantGone(t *testing.T, dir, address string) {
	t.Helper()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Errorf("the port is still taken: %v", err)
		return
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestPostgres(t *testing.T) {
	p := startPostgres(t, PostgresOptions{})
	query(t, p, "postgres", "create database pattern")
	query(t, p, "pattern", "create table kept as select 7 as n")

	url, err := p.Create(t.Context(), "copy-1", "pattern")
	if err != nil {
		t.Fatal(err)
	}
	want(t, "the URL", url, p.URL("copy-1"))
	want(t, "the copy", query(t, p, "copy-1", "select n from kept"), "7")
	if _, err := p.Create(t.Context(), "empty", ""); err != nil {
		t.Fatal(err)
	}
	want(t, "tables of a new database", query(t, p, "empty", "select count(*) from pg_tables where schemaname = 'public'"), "0")
	if _, err := p.Create(t.Context(), "empty", ""); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("a database that exists: %v", err)
	}
	want(t, "max_connections", query(t, p, "postgres", "show max_connections"), "300")
	want(t, "fsync", query(t, p, "postgres", "show fsync"), "off")
	if err := p.Start(t.Context()); err == nil {
		t.Error("it was started twice")
	}

	dir, address := p.dir, p.address()
	for range 2 {
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	wantGone(t, dir, address)
}

func TestPostgresCrash(t *testing.T) {
	dir := openDir(t)
	t.Chdir(filepath.Dir(dir))
	p := startPostgres(t, PostgresOptions{Durable: true, Dir: filepath.Base(dir)})
	want(t, "the directory", filepath.Dir(p.dir), dir)
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		want(t, setting, query(t, p, "postgres", "show "+setting), "on")
	}
	query(t, p, "postgres", "create table kept (n int)")
	url := p.URL("postgres")
	for round, crash := range []func() error{
		func() error { return p.Restart(t.Context()) },
		func() error { return errors.Join(p.Kill(), p.Kill(), p.Start(t.Context())) },
	} {
		query(t, p, "postgres", "insert into kept values (1)")
		if err := crash(); err != nil {
			t.Fatal(err)
		}
		want(t, "the URL", p.URL("postgres"), url)
		want(t, "rows", query(t, p, "postgres", "select count(*) from kept"), fmt.Sprint(round+1))
	}
	log, err := os.ReadFile(p.Log())
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(log), "was not properly shut down"); n != 2 {
		t.Errorf("%d recoveries from a crash in the log, want 2:\n%s", n, log)
	}
}

func TestTwoAtOnce(t *testing.T) {
	p := []*Postgres{startPostgres(t, PostgresOptions{}), startPostgres(t, PostgresOptions{})}
	query(t, p[0], "postgres", "create database mine")
	want(t, "the other's databases", query(t, p[1], "postgres", "select count(*) from pg_database where datname = 'mine'"), "0")
	m := []*Mosquitto{startMosquitto(t, MosquittoOptions{}), startMosquitto(t, MosquittoOptions{})}
	if m[0].URL() == m[1].URL() {
		t.Errorf("both are at %s", m[0].URL())
	}
}

// mosquitto prepares a command of Mosquitto's clients.
func mosquitto(t *testing.T, m *Mosquitto, program, topic string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, program, append([]string{"-L", m.URL() + "/" + topic, "-q", "1"}, args...)...) //nolint:gosec // G204: a test's own command
}

// deliver publishes, subscribes, and returns what arrived.
func deliver(t *testing.T, m *Mosquitto, topic string, args ...string) string {
	t.Helper()
	if out, err := mosquitto(t, m, "mosquitto_pub", topic, append([]string{"-r", "-m", "hello"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("publishing: %v: %s", err, out)
	}
	out, err := mosquitto(t, m, "mosquitto_sub", topic, append([]string{"-C", "1"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("subscribing: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestMosquitto(t *testing.T) {
	m := startMosquitto(t, MosquittoOptions{})
	url := m.URL()
	want(t, "the message", deliver(t, m, "a/b"), "hello")
	if err := m.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, "the URL", m.URL(), url)
	want(t, "the message after a crash", deliver(t, m, "a/b"), "hello")

	dir, address := m.dir, m.address()
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
	wantGone(t, dir, address)
}

func TestMosquittoUsers(t *testing.T) {
	m := startMosquitto(t, MosquittoOptions{
		Users: map[string]string{"server": "open sesame", "10000001": "password"},
		ACL:   "user server\ntopic readwrite #\n\npattern readwrite /machine/%u\n",
	})
	want(t, "the server's message", deliver(t, m, "x", "-u", "server", "-P", "open sesame"), "hello")
	want(t, "the machine's message", deliver(t, m, "/machine/10000001", "-u", "10000001", "-P", "password"), "hello")
	for what, args := range map[string][]string{
		"nobody":           {},
		"a wrong password": {"-u", "server", "-P", "wrong"},
		"beyond the walls": {"-u", "10000001", "-P", "password", "-V", "mqttv5"},
	} {
		if out, err := mosquitto(t, m, "mosquitto_pub", "/machine/10000002", append([]string{"-m", "x"}, args...)...).CombinedOutput(); err == nil && !strings.Contains(string(out), "Not authorized") {
			t.Errorf("%s came through: %s", what, out)
		}
	}
	if err := m.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, "the message after a crash", deliver(t, m, "x", "-u", "server", "-P", "open sesame"), "hello")
}

// TestBadOptions: the error says what is wrong, and nothing is left.
func TestBadOptions(t *testing.T) {
	t.Setenv("TMPDIR", openDir(t)) // which must be empty in the end
	for says, options := range map[string]MosquittoOptions{
		"nonsense": {Config: "nonsense 1"},
		"a colon":  {Users: map[string]string{"a": "b:c"}},
	} {
		m, err := StartMosquitto(t.Context(), options)
		if err == nil {
			stopAtEnd(t, m.Server)
			t.Fatalf("%s: it started", says)
		}
		if !strings.Contains(err.Error(), says) {
			t.Errorf("the error doesn't say %q: %v", says, err)
		}
	}
}

// TestTakenPort: somebody may take the port between the look and the start.
func TestTakenPort(t *testing.T) {
	start := map[string]func() *Server{
		"PostgreSQL": func() *Server { return startPostgres(t, PostgresOptions{}).Server },
		"Mosquitto":  func() *Server { return startMosquitto(t, MosquittoOptions{}).Server },
	}
	for name, start := range start {
		s, other := start(), start()
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		s.port = other.port
		if err := s.Start(t.Context()); !errors.Is(err, errEnded) {
			t.Errorf("%s on the port of another: %v", name, err)
		}
		// As at its first start: it may look for another.
		s.known = false
		if err := s.Start(t.Context()); err != nil {
			t.Errorf("%s on another port: %v", name, err)
		}
	}
}

// TestKilled: a program that is killed leaves no server and no file.
func TestKilled(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // G204: the test itself
	cmd.Env = append(os.Environ(), startEnv+"=1")
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	place := make(map[string]string)
	for lines := bufio.NewScanner(out); len(place) < 2 && lines.Scan(); {
		dir, address, _ := strings.Cut(lines.Text(), " ")
		place[dir] = address
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || len(place) != 2 {
		t.Fatalf("it ended with %v and started %v", err, place)
	}
	for dir, address := range place {
		gone := time.NewTicker(10 * time.Millisecond)
		defer gone.Stop()
		for range 2000 {
			if _, err := os.Stat(dir); err != nil {
				break
			}
			<-gone.C
		}
		wantGone(t, dir, address)
	}
}

func TestPostgresBin(t *testing.T) {
	root := t.TempDir()
	for _, file := range []string{"9.6/bin/initdb", "15/bin/initdb", "16/bin/psql", "other/bin/initdb"} {
		file = filepath.Join(root, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o750), os.WriteFile(file, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	bin, err := postgresBin(root)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "the newest", bin, filepath.Join(root, "15/bin"))

	t.Setenv("PATH", root)
	if _, err := postgresBin(t.TempDir()); err == nil || !strings.Contains(err.Error(), "install the package postgresql") {
		t.Errorf("no PostgreSQL: %v", err)
	}
}
