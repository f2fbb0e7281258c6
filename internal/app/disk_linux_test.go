package app_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSQLiteFullDisk takes the space away while clients redeem and issue. Requests
// are then refused, nothing that was acknowledged is lost, and all goes on when
// the space is back. A limit on the size of files is a full disk that any user
// can have; a small file system is one that fails in other places too. PostgreSQL's
// disk is its own affair: to Scrip it is a database that does not answer.
func TestSQLiteFullDisk(t *testing.T) {
	t.Parallel()
	t.Run("file size limit", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		testFullDisk(t, dir, func(s *server) (restore func()) {
			largest := int64(0)
			for _, name := range []string{"scrip.db", "scrip.db-wal"} {
				if info, err := os.Stat(filepath.Join(dir, name)); err == nil {
					largest = max(largest, info.Size())
				}
			}
			var before unix.Rlimit
			limit := func(l *unix.Rlimit) {
				if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_FSIZE, l, nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_FSIZE, nil, &before); err != nil {
				t.Fatal(err)
			}
			limit(&unix.Rlimit{Cur: uint64(largest), Max: before.Max})
			return func() { limit(&before) }
		})
	})
	t.Run("small file system", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
			t.Skipf("this user may not mount (%v): only the file size limit is tested", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		testFullDisk(t, dir, func(*server) (restore func()) {
			filler := filepath.Join(dir, "filler")
			fill(t, filler)
			return func() {
				if err := os.Remove(filler); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
}

// fill writes a file until there is no space left.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name) //nolint:gosec // G304: in the test's own directory
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for page := make([]byte, 4096); ; {
		if _, err := f.Write(page); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func testFullDisk(t *testing.T, dir string, take func(*server) (restore func())) {
	t.Helper()
	env := settingsIn(dir, "SCRIP_ROOT_TOKEN="+rootToken, "SCRIP_GUESS_LIMIT=0")
	var users []user
	for i := range 8 {
		users = append(users, createUser(t, env, fmt.Sprintf("user%d", i)))
	}
	s := start(t, env)
	c := newCrowd(users)
	// some lets the crowd run until that many more are acknowledged.
	some := func(after int64) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c.run(ctx, s, after, cancel)
	}
	for range 2 { // it survives more than one
		some(50)
		c.full.Store(true)
		restore := take(s)
		refused := c.refused.Load()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.run(ctx, s, 1, func() {})
		}()
		eventually(t, "refusals", func() error {
			if n := c.refused.Load() - refused; n < 50 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		cancel()
		<-done
		restore()
		eventually(t, "recovery", func() error {
			a, err := s.call(t.Context(), root(), http.MethodPost, "/api/redemption/", batch{"after", batchSize, 1})
			if err == nil && !a.Success {
				err = errors.New(a.Message)
			}
			return err
		})
		if err := s.ready(); err != nil {
			t.Error(err)
		}
		c.full.Store(false)
		some(50)
	}
	c.check(t, s, env)
	t.Logf("%d acknowledged, %d refused for want of space", c.acked.Load(), c.refused.Load())
	s.stop(t)
	scrip(t, env, "ledger", "verify")
}
