package app_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestSQLiteDemo watches the demonstration, which has a file of its own, until
// every machine has vended and reported, calls what it says to call, and ends it:
// nothing is left.
func TestSQLiteDemo(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "scrip", "demo", "--every", "100ms")
	out, problems := &output{}, &output{}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + temp}
	cmd.Stdout, cmd.Stderr = out, problems
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	said := func(pattern string) []string { return regexp.MustCompile(pattern).FindStringSubmatch(out.String()) }
	eventually(t, "every machine to vend and report", func() error {
		for _, no := range []string{"10000001", "10000002", "10000003"} {
			if said(`machine `+no+`  Vending`) == nil || said(`machine `+no+`  The use of pickup code \d+ is reported`) == nil {
				return errors.New(out.String() + problems.String())
			}
		}
		return nil
	})
	s := &server{url: said(`HTTP\s+(\S+)`)[1]}
	key := said(`'\{"key":"([0-9a-f]+)"\}'`)[1]
	if a, err := s.redeem(t.Context(), user{ID: 1, Token: said(`TOKEN\s+(\S+)`)[1]}, key); err != nil || string(a.Data) != "500" {
		t.Errorf("redeeming the key that it shows: %+v, %v", a, err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v\n%s", err, problems)
	}
	if left, err := filepath.Glob(filepath.Join(temp, "*")); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	if text := problems.String(); strings.Contains(text, "ERROR") || strings.Contains(text, "DATA RACE") {
		t.Errorf("it printed\n%s", text)
	}
}
