package app_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/enginetest"
)

// TestPostgresAway takes the database away while serving: whoever asks is told so,
// on both surfaces, by the probe and by a command, and all goes on when it is
// back, without a restart.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	database := enginetest.NewServer(t)
	d, err := database.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	env := settingsFor(d, t.TempDir(), "SCRIP_ROOT_TOKEN="+rootToken)
	s := start(t, env)
	u := createUser(t, env, "ann")
	keys := s.issue(t, "welcome", 10, 7)
	if a, err := s.redeem(t.Context(), u, keys[0]); err != nil || !a.Success {
		t.Fatalf("%+v, %v", a, err)
	}
	// get answers a request to /api/v1, and how long to wait before the next.
	get := func() (status int, text, wait string) {
		t.Helper()
		began := time.Now()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/api/v1/merchants", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+rootToken)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var b strings.Builder
		if err := resp.Write(&b); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("the answer took %v", took)
		}
		return resp.StatusCode, b.String(), resp.Header.Get("Retry-After")
	}
	const words = "The service is temporarily unavailable. Please try again later."
	for round := range 2 {
		if err := database.Kill(); err != nil {
			t.Fatal(err)
		}
		if status, text, wait := get(); status != http.StatusServiceUnavailable || wait == "" ||
			!strings.Contains(text, words) || !strings.Contains(text, `"code":"unavailable"`) {
			t.Errorf("%s", text)
		}
		for what, do := range map[string]func() (answer, error){
			"a redeem": func() (answer, error) { return s.redeem(t.Context(), u, keys[round+1]) },
			"a batch": func() (answer, error) {
				return s.call(t.Context(), root(), http.MethodPost, "/api/redemption/", batch{"more", 1, 1})
			},
			"a list": func() (answer, error) {
				return s.call(t.Context(), root(), http.MethodGet, "/api/redemption/", nil)
			},
		} {
			if a, err := do(); err != nil || a.Success || a.Message == "" ||
				a.Code != "unavailable" && a.Code != "redemption_list_failed" {
				t.Errorf("%s: %+v, %v", what, a, err)
			}
		}
		if err := s.ready(); err == nil || !strings.HasPrefix(err.Error(), "503 ") {
			t.Errorf("it says that it is ready: %v", err)
		}
		if _, stderr, err := tryScrip(t, env, "user", "list"); err == nil || !strings.Contains(stderr, "scrip: opening the database postgres://") {
			t.Errorf("a command: %v, %s", err, stderr)
		}
		if err := database.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "readiness", s.ready)
		eventually(t, "a redeem", func() error {
			a, err := s.redeem(t.Context(), u, keys[round+1])
			if err == nil && !a.Success {
				err = fmt.Errorf("%w: %s", errRefused, a.Code)
			}
			return err
		})
		if status, text, _ := get(); status != http.StatusOK {
			t.Errorf("%s", text)
		}
	}
	if got := s.balance(t, u); got != 3*7 {
		t.Errorf("the balance is %d", got)
	}
	scrip(t, env, "ledger", "verify")
	if strings.Contains(s.stderr.String(), "panic") {
		t.Error(errors.New(s.stderr.String()))
	}
	s.stop(t)
}
