package sqlite_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/scrip-codes/scrip/internal/storetest"
)

// TestSecretsAtRest looks for secrets in the bytes of the files.
func TestSecretsAtRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "scrip.db")
	storetest.Secrets(t, openerOf(path), func() (all []byte) {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			b, err := os.ReadFile(filepath.Clean(path + suffix))
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		return all
	})
}
