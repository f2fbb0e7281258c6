package app_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slowRedeem is a request that has arrived but for its last byte.
type slowRedeem struct {
	conn net.Conn
	r    *bufio.Reader
	rest string
}

// slow sends the request and returns once the server is reading its body.
func (s *server) slow(t *testing.T, u user, key string) *slowRedeem {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"key":%q}`, key)
	_, err = fmt.Fprintf(conn, "POST /api/user/topup HTTP/1.1\r\nHost: test\r\nAuthorization: %s\r\nNew-Api-User: %d\r\n"+
		"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n", u.Token, u.ID, len(body))
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	line, err := textproto.NewReader(r).ReadLine()
	if err != nil || line != "HTTP/1.1 100 Continue" {
		t.Fatalf("got %q, %v", line, err)
	}
	if _, err := textproto.NewReader(r).ReadLine(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(body[:len(body)-1])); err != nil {
		t.Fatal(err)
	}
	return &slowRedeem{conn, r, body[len(body)-1:]}
}

// finish sends the last byte and returns the answer.
func (q *slowRedeem) finish(t *testing.T) answer {
	t.Helper()
	if _, err := q.conn.Write([]byte(q.rest)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(q.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		t.Fatal(err)
	}
	return a
}

// refuses waits until the server takes no new connections.
func (s *server) refuses(t *testing.T) {
	t.Helper()
	var d net.Dialer
	eventually(t, "the listener's end", func() error {
		conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
		if err == nil {
			return errors.Join(errors.New("it is still open"), conn.Close())
		}
		return nil
	})
}

// TestDrain ends the server with SIGTERM while a request is under way: it is
// answered, and only then does the server end.
func TestDrain(t *testing.T) {
	t.Parallel()
	env := settings(t, "SCRIP_ROOT_TOKEN="+rootToken)
	s := start(t, env)
	u := createUser(t, env, "ann")
	q := s.slow(t, u, s.issue(t, "welcome", 1, 7)[0])
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.refuses(t)
	if a := q.finish(t); !a.Success || string(a.Data) != "7" {
		t.Errorf("got %+v", a)
	}
	select {
	case <-s.exited:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if s.err != nil || !strings.Contains(s.stderr.String(), "msg=stopped") {
		t.Errorf("got %v\n%s", s.err, s.stderr)
	}
	s = start(t, env)
	if got := s.balance(t, u); got != 7 {
		t.Errorf("the balance is %d", got)
	}
}

// TestSQLiteIsOneFile: closed cleanly, the database is one file.
func TestSQLiteIsOneFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, settingsIn(dir))
	if _, err := os.Stat(dir + "/scrip.db-wal"); err != nil {
		t.Error(err)
	}
	s.stop(t)
	if _, err := os.Stat(dir + "/scrip.db-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the write-ahead log is still there: %v", err)
	}
}

// TestSecondSignal ends the server at once, whatever is under way.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	env := settings(t, "SCRIP_ROOT_TOKEN="+rootToken)
	s := start(t, env)
	s.slow(t, createUser(t, env, "ann"), s.issue(t, "welcome", 1, 7)[0])
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.refuses(t)
	began := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.exited
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if status, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v", s.err)
	}
}

// TestFirstStartsTogether starts several commands on nothing at once: there is
// one secret, one database and one root.
func TestFirstStartsTogether(t *testing.T) {
	t.Parallel()
	env := settings(t)
	type result struct {
		stderr string
		err    error
	}
	const n = 4
	results := make(chan result, n)
	for i := range n {
		go func() {
			_, stderr, err := tryScrip(t, env, "user", "create", fmt.Sprintf("user%d", i))
			results <- result{stderr, err}
		}()
	}
	tokens := 0
	for range n {
		r := <-results
		if r.err != nil {
			t.Errorf("%v: %s", r.err, r.stderr)
		}
		tokens += strings.Count(r.stderr, "Access token of root")
	}
	if tokens != 1 {
		t.Errorf("root's token was printed %d times", tokens)
	}
	if out := scrip(t, env, "user", "list", "--json"); strings.Count(out, "\n") != n+1 {
		t.Errorf("got\n%s", out)
	}
	scrip(t, env, "ledger", "verify")
}
