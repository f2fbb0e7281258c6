package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/scrip-codes/scrip/internal/config"
)

// load returns the configuration of a new data directory.
func load(t *testing.T, environ ...string) config.Config {
	t.Helper()
	c, err := config.Load(config.Flags{}, append([]string{"SCRIP_DATA_DIR=" + t.TempDir()}, environ...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSecretFileIsMadeOnce(t *testing.T) {
	t.Parallel()
	c := load(t)
	if c.HasSecret() {
		t.Error("there is a secret before there is one")
	}
	// Many that start at once agree.
	got := make([]string, 16)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			c := c
			s, err := c.OpenSecrets()
			if err != nil || len(s) != 1 {
				t.Errorf("got %d secrets, %v", len(s), err)
				return
			}
			got[i] = s[0]
		})
	}
	wg.Wait()
	for _, s := range got {
		if s != got[0] || !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(s) {
			t.Fatalf("got %q", got)
		}
	}
	info, err := os.Stat(c.SecretFile())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(c.DataDir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if !c.HasSecret() || c.Warnings != nil {
		t.Errorf("got %t, %q", c.HasSecret(), c.Warnings)
	}
}

func TestSecretFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		mode       os.FileMode
		want       []string
		refused    string
		warned     bool
	}{
		{"several", "newest-newest-newest\n\n older-older-older-older \r\n", 0o600, []string{"newest-newest-newest", "older-older-older-older"}, "", false},
		{"read only", "newest-newest-newest", 0o400, []string{"newest-newest-newest"}, "", false},
		{"short", "hunter2\n", 0o600, []string{"hunter2"}, "", true},
		{"group", "newest-newest-newest\n", 0o640, nil, "chmod 600", false},
		{"world", "newest-newest-newest\n", 0o604, nil, "chmod 600", false},
		{"empty", " \n\n", 0o600, nil, "is empty", false},
		{"huge", strings.Repeat("x", 1<<20), 0o600, nil, "not a file of a few lines", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := load(t)
			if err := os.WriteFile(c.SecretFile(), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(c.SecretFile(), tt.mode); err != nil {
				t.Fatal(err)
			}
			got, err := c.OpenSecrets()
			if !slices.Equal(got, tt.want) || (err == nil) != (tt.refused == "") || (c.Warnings != nil) != tt.warned {
				t.Errorf("got %q, %v, %q", got, err, c.Warnings)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.refused) || strings.Contains(err.Error(), "newest-newest")) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSettingComesBeforeSecretFile(t *testing.T) {
	t.Parallel()
	c := load(t, "SCRIP_SECRET=newest-newest-newest,older-older-older-older")
	got, err := c.OpenSecrets()
	if err != nil || !slices.Equal(got, []string{"newest-newest-newest", "older-older-older-older"}) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := os.Stat(c.SecretFile()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
}

func TestMissingSecretOfADatabaseIsNotMade(t *testing.T) {
	t.Parallel()
	c := load(t)
	if err := os.WriteFile(c.Database, []byte("something"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := c.OpenSecrets()
	if err == nil || !strings.Contains(err.Error(), "is missing") || !strings.Contains(err.Error(), c.SecretFile()) {
		t.Errorf("got %v", err)
	}
	if c.HasSecret() {
		t.Error("a secret was made")
	}
}

func TestDatabaseExists(t *testing.T) {
	t.Parallel()
	c := load(t)
	expect := func(want bool) {
		t.Helper()
		if got, err := c.DatabaseExists(); got != want || err != nil {
			t.Errorf("got %t, %v", got, err)
		}
	}
	expect(false)
	if err := os.WriteFile(c.Database, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(false) // left by a start that was cut off
	if err := os.WriteFile(c.Database, []byte("something"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(true)
	c.Database = c.DataDir
	if _, err := c.DatabaseExists(); err == nil {
		t.Error("a directory is no database")
	}
}

func TestMakeDirs(t *testing.T) {
	t.Parallel()
	c := load(t)
	c.DataDir = filepath.Join(c.DataDir, "a", "b")
	c.Database = filepath.Join(c.DataDir, "c", "scrip.db")
	if err := c.MakeDirs(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Dir(c.Database))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v", info, err)
	}
	if err := os.WriteFile(filepath.Join(c.DataDir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.DataDir = filepath.Join(c.DataDir, "file", "d")
	var wrong *config.Error
	if err := c.MakeDirs(); !errors.As(err, &wrong) || wrong.Setting != "SCRIP_DATA_DIR" {
		t.Errorf("got %v", err)
	}
}
