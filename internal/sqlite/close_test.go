package sqlite_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCloseLetsGo opens and closes, and looks for what was left open.
func TestCloseLetsGo(t *testing.T) {
	const descriptors = "/proc/self/fd"
	if _, err := os.Stat(descriptors); err != nil {
		t.Skip("no " + descriptors + " on this system")
	}
	f := newFixture(t, nil)
	f.issue("n", 100, 1)
	held := func() (out []string) {
		entries, err := os.ReadDir(descriptors)
		f.check(err)
		for _, e := range entries {
			if to, err := os.Readlink(filepath.Join(descriptors, e.Name())); err == nil && strings.HasPrefix(to, f.path) {
				out = append(out, to)
			}
		}
		return out
	}
	if len(held()) == 0 {
		t.Fatal("while it is open nothing is: this looks in the wrong place")
	}
	f.check(f.db.Close())
	if left := held(); len(left) > 0 {
		t.Errorf("after Close these are open: %q", left)
	}
	// The last to leave writes the log back into the file, which can then be
	// copied alone.
	if fi, err := os.Stat(f.path + "-wal"); err == nil && fi.Size() > 0 {
		t.Errorf("after Close there is a log of %d bytes", fi.Size())
	}
}
