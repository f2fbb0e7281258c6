package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/scrip-codes/scrip/internal/app"
	"github.com/scrip-codes/scrip/internal/enginetest"
)

// TestMain makes this test binary the scrip command too: run under that name
// it is nothing else. So the tests run the real thing, as other processes, and
// under the race detector when they are.
func TestMain(m *testing.M) {
	testscript.Main(enginetest.Main{M: m}, map[string]func(){
		"scrip": func() { os.Exit(app.Run(app.OS("test"))) },
	})
}

// patience bounds every wait for something that must happen.
const patience = 60 * time.Second

// eventually calls try, with short breaks, until it returns nil.
func eventually(tb testing.TB, what string, try func() error) {
	tb.Helper()
	if err := poll(tb.Context(), try); err != nil {
		tb.Fatalf("%s: %v", what, err)
	}
}

func poll(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", patience, err)
		}
	}
}

// output collects what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// address finds the address that a server says it is ready at.
func address(log string) (string, bool) {
	m := regexp.MustCompile(`msg=ready address=(\S+)`).FindStringSubmatch(log)
	if m == nil {
		return "", false
	}
	return m[1], true
}

// settings is the environment of a command: nothing of the tests' own but the
// path. It has an empty database of the engine under test.
func settings(tb testing.TB, more ...string) []string {
	tb.Helper()
	dir := tb.TempDir()
	return settingsFor(enginetest.New(tb, dir), dir, more...)
}

// settingsFor is settings with that database and data directory.
func settingsFor(d *enginetest.Database, dir string, more ...string) []string {
	return slices.Concat(settingsIn(dir), d.Settings(), more)
}

// settingsIn is settings with the database that is in the data directory.
func settingsIn(dir string, more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "SCRIP_DATA_DIR=" + dir, "SCRIP_HTTP_ADDR=127.0.0.1:0", "SCRIP_MQTT_ADDR=127.0.0.1:0"}, more...)
}

// setting is the value of a setting in an environment, or "".
func setting(env []string, name string) (value string) {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// server is a running scrip serve.
type server struct {
	cmd            *exec.Cmd
	url            string
	stdout, stderr *output
	exited         chan struct{} // closed once it has
	err            error         // how, then
}

// start starts a server and waits until it is ready.
func start(tb testing.TB, env []string) *server {
	tb.Helper()
	return startCommand(tb, exec.CommandContext(tb.Context(), "scrip", "serve"), env)
}

func startCommand(tb testing.TB, cmd *exec.Cmd, env []string) *server {
	tb.Helper()
	s := &server{cmd: cmd, stdout: &output{}, stderr: &output{}, exited: make(chan struct{})}
	cmd.Env, cmd.Stdout, cmd.Stderr = env, s.stdout, s.stderr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		s.err = cmd.Wait()
		close(s.exited)
	}()
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-s.exited
		if strings.Contains(s.stderr.String(), "DATA RACE") || strings.Contains(s.stderr.String(), "panic") {
			tb.Errorf("the server's log:\n%s", s.stderr)
		}
	})
	eventually(tb, "the server's start", func() error {
		select {
		case <-s.exited:
			tb.Fatalf("the server ended: %v\n%s", s.err, s.stderr)
		default:
		}
		var ok bool
		if s.url, ok = address(s.stderr.String()); !ok {
			return errors.New(s.stderr.String())
		}
		return s.ready()
	})
	return s
}

func (s *server) ready() error {
	resp, err := http.Get(s.url + "/readyz") //nolint:noctx // a server of this test, on this machine
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// kill ends the server without warning, if it has not been already; it must
// not have ended by itself.
func (s *server) kill(tb testing.TB) {
	tb.Helper()
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		tb.Fatal(err)
	}
	<-s.exited
	if status, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		tb.Fatalf("the server ended by itself: %v\n%s", s.err, s.stderr)
	}
}

// stop ends the server as an operator does.
func (s *server) stop(tb testing.TB) {
	tb.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		tb.Fatal(err)
	}
	select {
	case <-s.exited:
	case <-time.After(patience):
		tb.Fatalf("the server did not stop:\n%s", s.stderr)
	}
	if s.err != nil {
		tb.Fatalf("the server stopped with %v:\n%s", s.err, s.stderr)
	}
}

// scrip runs a command and returns what it prints on stdout.
func scrip(tb testing.TB, env []string, args ...string) string {
	tb.Helper()
	stdout, stderr, err := tryScrip(tb, env, args...)
	if err != nil {
		tb.Fatalf("scrip %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

func tryScrip(tb testing.TB, env []string, args ...string) (stdout, stderr string, err error) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "scrip", args...) //nolint:gosec // G204: the program under test
	var o, e bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// user is an account that a test acts as.
type user struct {
	ID       int64  `json:"id"`
	Username string `json:"username"`
	Token    string `json:"access_token"`
}

// createUser makes an account on the command line, beside whatever runs.
func createUser(tb testing.TB, env []string, name string, args ...string) user {
	tb.Helper()
	var u user
	out := scrip(tb, env, append([]string{"user", "create", name, "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &u); err != nil {
		tb.Fatalf("%v in %q", err, out)
	}
	return u
}

// rootToken is the access token that tests give root.
const rootToken = "root-token-for-the-tests-only"

func root() user { return user{ID: 1, Username: "root", Token: rootToken} }

// answer is what the API answers.
type answer struct {
	Success bool            `json:"success"`
	Message string          `json:"message"`
	Code    string          `json:"code"`
	Data    json.RawMessage `json:"data"`
}

// call sends a request. An error is one of the connection: the answer, if
// there was one, was lost.
func (s *server) call(ctx context.Context, u user, method, path string, body any) (answer, error) {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return answer{}, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(b))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+u.Token)
	req.Header.Set("New-Api-User", strconv.FormatInt(u.ID, 10))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	if resp.StatusCode >= http.StatusInternalServerError {
		return answer{}, fmt.Errorf("%w: %s %s: %s: %s", errServer, method, path, resp.Status, text)
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return answer{}, fmt.Errorf("%w: %s %s: %w in %q", errServer, method, path, err, text)
	}
	return a, nil
}

// callV1 sends a request to /api/v1 as root, with an Idempotency-Key unless that
// is empty, and returns the body of the answer, which must have that status.
func (s *server) callV1(ctx context.Context, status int, method, path, body, key string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url+"/api/v1"+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+rootToken)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != status {
		err = fmt.Errorf("%s %s: %s, not %d: %s", method, path, resp.Status, status, text)
	}
	return string(text), err
}

// v1 is callV1 without a key; what is answered goes into data unless nil.
func (s *server) v1(ctx context.Context, status int, method, path, body string, data any) error {
	text, err := s.callV1(ctx, status, method, path, body, "")
	if err != nil || data == nil {
		return err
	}
	return json.Unmarshal([]byte(text), data)
}

// postV1 is callV1 for a POST that must be answered.
func (s *server) postV1(tb testing.TB, status int, path, body, key string) string {
	tb.Helper()
	text, err := s.callV1(tb.Context(), status, http.MethodPost, path, body, key)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// keys are the data of a create.
func (a answer) keys() (keys []string, err error) {
	err = json.Unmarshal(a.Data, &keys)
	return keys, err
}

// readSecret is the secret that is set, or that the secret file holds.
func readSecret(tb testing.TB, env []string) string {
	tb.Helper()
	if secret := setting(env, "SCRIP_SECRET"); secret != "" {
		return secret
	}
	b, err := os.ReadFile(filepath.Join(setting(env, "SCRIP_DATA_DIR"), "secret"))
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// errServer is an answer that the API must never give.
var errServer = errors.New("not an answer of the API")

// must is call for what has to succeed; its data goes into data unless nil.
func (s *server) must(tb testing.TB, u user, method, path string, body, data any) {
	tb.Helper()
	a, err := s.call(tb.Context(), u, method, path, body)
	if err != nil {
		tb.Fatal(err)
	}
	if !a.Success {
		tb.Fatalf("%s %s: %s %s", method, path, a.Code, a.Message)
	}
	if data != nil {
		if err := json.Unmarshal(a.Data, data); err != nil {
			tb.Fatalf("%s %s: %v", method, path, err)
		}
	}
}

type batch struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
	Quota int64  `json:"quota"`
}

// issue makes codes and returns their keys.
func (s *server) issue(tb testing.TB, name string, count int, quota int64) (keys []string) {
	tb.Helper()
	s.must(tb, root(), http.MethodPost, "/api/redemption/", batch{name, count, quota}, &keys)
	if len(keys) != count {
		tb.Fatalf("got %d keys, want %d", len(keys), count)
	}
	return keys
}

// redeem tries a key.
func (s *server) redeem(ctx context.Context, u user, key string) (answer, error) {
	return s.call(ctx, u, http.MethodPost, "/api/user/topup", map[string]string{"key": key})
}

// code is a code as admins see it.
type code struct {
	ID     int64  `json:"id"`
	Name   string `json:"name"`
	Key    string `json:"key"`
	Status int    `json:"status"`
	Quota  int64  `json:"quota"`
	UsedBy int64  `json:"used_user_id"`
}

// codes lists all codes, by key.
func (s *server) codes(tb testing.TB) map[string]code {
	tb.Helper()
	out := map[string]code{}
	for p := 1; ; p++ {
		var page struct {
			Items []code `json:"items"`
			Total int    `json:"total"`
		}
		s.must(tb, root(), http.MethodGet, fmt.Sprintf("/api/redemption/?p=%d&page_size=100", p), nil, &page)
		for _, c := range page.Items {
			out[c.Key] = c
		}
		if len(page.Items) == 0 {
			if len(out) != page.Total {
				tb.Errorf("listed %d codes of %d", len(out), page.Total)
			}
			return out
		}
	}
}

// balance is what a user owns.
func (s *server) balance(tb testing.TB, u user) int64 {
	tb.Helper()
	var self struct {
		Quota int64 `json:"quota"`
	}
	s.must(tb, u, http.MethodGet, "/api/user/self", nil, &self)
	return self.Quota
}

// audit checks what must always be true: each acknowledged redeem is there,
// each balance is the sum of the codes that its owner used, and the ledger is
// whole. Acknowledged says who redeemed which key.
func (s *server) audit(tb testing.TB, env []string, users []user, acknowledged map[string]user) {
	tb.Helper()
	all := s.codes(tb)
	sums := map[int64]int64{}
	for _, c := range all {
		if (c.Status == 3) != (c.UsedBy != 0) {
			tb.Errorf("code %d has status %d and was used by %d", c.ID, c.Status, c.UsedBy)
		}
		sums[c.UsedBy] += c.Quota
	}
	for key, u := range acknowledged {
		if all[key].UsedBy != u.ID {
			tb.Errorf("LOST: code %d was acknowledged to user %d, it was used by %d", all[key].ID, u.ID, all[key].UsedBy)
		}
	}
	for _, u := range users {
		if got := s.balance(tb, u); got != sums[u.ID] {
			tb.Errorf("user %d owns %d, the codes that it used were worth %d", u.ID, got, sums[u.ID])
		}
	}
	scrip(tb, env, "ledger", "verify")
}
