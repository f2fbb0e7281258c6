package app_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/scrip-codes/scrip/internal/enginetest"
)

// secrets are what a scenario knows and nobody else may see, by what they are.
type secrets map[string]string

// forms are the ways in which a secret could show.
func forms(secret string) [][]byte {
	out := [][]byte{
		[]byte(secret), []byte(strings.ToUpper(secret)),
		[]byte(hex.EncodeToString([]byte(secret))),
		[]byte(base64.StdEncoding.EncodeToString([]byte(secret))),
		[]byte(base64.RawURLEncoding.EncodeToString([]byte(secret))),
	}
	if b, err := hex.DecodeString(secret); err == nil && len(b) >= 8 {
		out = append(out, b, []byte(base64.StdEncoding.EncodeToString(b)), []byte(base64.RawURLEncoding.EncodeToString(b)))
	}
	return out
}

// absent fails the test if any of the secrets shows in any form.
func (s secrets) absent(t *testing.T, where string, text []byte) {
	t.Helper()
	if len(text) == 0 {
		t.Fatalf("%s is empty: nothing was looked at", where)
	}
	for what, secret := range s {
		if secret == "" {
			t.Fatalf("the scenario has no %s", what)
		}
		for _, form := range forms(secret) {
			if bytes.Contains(text, form) {
				t.Errorf("%s shows the %s", where, what)
				break
			}
		}
	}
}

// scenario does with the server whatever involves a secret, right and wrong.
func scenario(t *testing.T, s *server, env []string) secrets {
	t.Helper()
	ann := createUser(t, env, "ann")
	stdin := "correct horse battery staple"
	keys := s.issue(t, "welcome", 10, 1000)
	out := secrets{
		"root token": rootToken, "user's token": ann.Token, "password": stdin,
		"wrong password": "incorrect horse battery", "redeemed key": keys[0], "disabled key": keys[1], "unused key": keys[2],
		"unknown key": "0123456789abcdef0123456789abcdef", "wrong token": "fedcba9876543210fedcba9876543210",
		"idempotency key": "idempotency-key-of-the-scenario", "replayed key": keys[3],
	}
	s.must(t, root(), http.MethodPost, "/api/user/", map[string]any{"username": "ben", "password": stdin}, nil)
	send := func(u user, method, path, body string, headers ...string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+u.Token)
		req.Header.Set("New-Api-User", strconv.FormatInt(u.ID, 10))
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.Header.Get("Set-Cookie")
	}
	topUp := func(u user, key string, headers ...string) {
		t.Helper()
		send(u, http.MethodPost, "/api/user/topup", fmt.Sprintf(`{"key":%q}`, key), headers...)
	}
	topUp(ann, out["redeemed key"])
	topUp(ann, out["redeemed key"])
	topUp(ann, out["unknown key"])
	send(root(), http.MethodPut, "/api/redemption/?status_only=true", `{"id":2,"status":2}`)
	topUp(ann, out["disabled key"])
	topUp(ann, out["replayed key"], "Idempotency-Key", out["idempotency key"])
	topUp(ann, out["replayed key"], "Idempotency-Key", out["idempotency key"])
	topUp(user{ID: ann.ID, Token: out["wrong token"]}, out["unused key"])
	send(ann, http.MethodPost, "/api/user/topup", `{"key":"`+out["unused key"])        // broken JSON
	send(ann, http.MethodPost, "/api/user/topup", `{"key":["`+out["unused key"]+`"]}`) // wrong type
	send(root(), http.MethodGet, "/api/redemption/search?keyword="+out["unused key"], "")
	send(root(), http.MethodGet, "/api/redemption/"+out["unused key"], "")
	send(root(), http.MethodGet, "/"+out["unused key"]+"?token="+out["wrong token"], "")
	send(root(), http.MethodPost, "/api/redemption/", `{"name":"more","count":5,"quota":1}`, "Idempotency-Key", out["idempotency key"])

	cookie := send(user{}, http.MethodPost, "/api/user/login", `{"username":"ben","password":"`+stdin+`"}`)
	session, _, _ := strings.Cut(cookie[strings.Index(cookie, "=")+1:], ";")
	if session, _ = url.QueryUnescape(session); len(session) < 16 {
		t.Fatalf("no session in %q", cookie)
	}
	out["session"] = session
	send(user{ID: 3}, http.MethodGet, "/api/user/self", "", "Cookie", cookie, "Authorization", "")
	send(user{}, http.MethodPost, "/api/user/login", `{"username":"ben","password":"`+out["wrong password"]+`"}`)
	send(user{}, http.MethodPost, "/api/user/login", `{"username":"`+out["wrong password"]+`","password":"x"}`)

	var renewed string
	s.must(t, ann, http.MethodGet, "/api/user/token", nil, &renewed)
	out["renewed token"] = renewed
	maps.Copy(out, fleetScenario(t, s, env))
	return out
}

// fleetScenario does the same with what machines sign and log in with, over the
// API and on the command line, which must not show it on stderr.
func fleetScenario(t *testing.T, s *server, env []string) secrets {
	t.Helper()
	out := secrets{
		"given app key": "app-key-of-the-scenario", "posted app key": "posted-app-key-of-the-scenario",
		"new app key": "new-app-key-of-the-scenario", "refused app key": strings.Repeat("refused-app-key-", 10),
	}
	var stderr strings.Builder
	command := func(args ...string) string {
		t.Helper()
		stdout, e, _ := tryScrip(t, env, args...) // some are refused
		stderr.WriteString(e)
		return stdout
	}
	machine := []string{"machine", "create", "16327138", "--merchant", "1", "--name", "Lobby", "--timezone", "UTC", "--json"}
	command("merchant", "create", "Acme", "--app-key", out["given app key"])
	out["made app key"] = member(t, command("merchant", "create", "Bon", "--json"), "app_key")
	command("merchant", "create", "Cem", "--app-key", out["refused app key"])
	command("merchant", "change", "2", "--app-key", out["new app key"])
	command("merchant", "change", "2", "--app-key", out["refused app key"])
	command("merchant", "change", "99", "--app-key", out["new app key"])
	command("merchant", "show", "1")
	out["first MQTT password"] = member(t, command(machine...), "mqtt_password")
	command(machine...) // its number is taken
	out["second MQTT password"] = member(t, command("machine", "password", "16327138", "--json"), "mqtt_password")
	out.absent(t, "the stderr of commands", []byte(stderr.String()))

	const again = "idempotency-key-of-the-fleet"
	out["idempotency key of the fleet"] = again
	merchant := `{"name":"Dan","app_key":"` + out["posted app key"] + `"}`
	for range 2 {
		s.postV1(t, http.StatusCreated, "/merchants", merchant, again)
	}
	s.postV1(t, http.StatusBadRequest, "/merchants", merchant[:len(merchant)-1], "") // broken JSON
	s.postV1(t, http.StatusUnprocessableEntity, "/merchants", `{"name":"Dan","app_key":"`+out["refused app key"]+`"}`, "")
	made := s.postV1(t, http.StatusCreated, "/machines",
		`{"merchant_id":1,"machine_no":"00000042","name":"Roof","timezone":"UTC"}`, again+" 2")
	out["posted machine's MQTT password"] = member(t, made, "mqtt_password")
	return out
}

// member is a text in what was answered or printed as JSON.
func member(tb testing.TB, text, name string) string {
	tb.Helper()
	var members map[string]any
	err := json.Unmarshal([]byte(text), &members)
	value, ok := members[name].(string)
	if err != nil || !ok || value == "" {
		tb.Fatalf("no %s in %q: %v", name, text, err)
	}
	return value
}

// TestLogsHoldNoSecret runs the scenario with everything logged.
func TestLogsHoldNoSecret(t *testing.T) {
	t.Parallel()
	env := settings(t, "SCRIP_ROOT_TOKEN="+rootToken, "SCRIP_LOG_LEVEL=debug")
	s := start(t, env)
	known := scenario(t, s, env)
	known["secret"] = readSecret(t, env)
	resp, err := http.Get(s.url + "/metrics") //nolint:noctx // a server of this test, on this machine
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	known.absent(t, "/metrics", metrics)
	s.stop(t)
	known.absent(t, "the log", []byte(s.stderr.String()))
	if out := s.stdout.String(); out != "" {
		t.Errorf("it printed %q", out)
	}
	known.absent(t, "the ledger", []byte(scrip(t, env, "ledger", "list", "--json")))
}

// TestCopiedDatabaseHoldsNoSecret looks through the database, as somebody does
// who has copied it from a running server.
func TestCopiedDatabaseHoldsNoSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := enginetest.NewAlone(t, dir)
	env := settingsFor(db, dir, "SCRIP_ROOT_TOKEN="+rootToken)
	s := start(t, env)
	known := scenario(t, s, env)
	known["secret"] = readSecret(t, env)
	absent := func(when string) {
		t.Helper()
		for name, b := range db.Look(t) {
			known.absent(t, name+" "+when, b)
		}
	}
	absent("of a running server")
	scrip(t, env, "secret", "rotate")
	absent("after a rotation")
	s.stop(t)
	absent("after the server was stopped")
}

// TestSQLiteBackupHoldsNoSecret looks through a backup.
func TestSQLiteBackupHoldsNoSecret(t *testing.T) {
	t.Parallel()
	env := settingsIn(t.TempDir(), "SCRIP_ROOT_TOKEN="+rootToken)
	s := start(t, env)
	known := scenario(t, s, env)
	known["secret"] = readSecret(t, env)
	backup := filepath.Join(t.TempDir(), "backup.db")
	scrip(t, env, "backup", backup)
	b, err := os.ReadFile(backup) //nolint:gosec // G304: in the test's own directory
	if err != nil {
		t.Fatal(err)
	}
	known.absent(t, "a backup", b)
}
