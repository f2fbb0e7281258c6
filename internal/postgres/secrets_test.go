package postgres_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/scrip-codes/scrip/internal/storetest"
)

// TestSecretsAtRest looks for secrets in a dump of the database and in what the
// server logs.
func TestSecretsAtRest(t *testing.T) {
	url := newDatabase(t)
	storetest.Secrets(t, openerOf(t, url), func() []byte {
		dump, err := exec.CommandContext(t.Context(), server.Bin("pg_dump"), "--inserts", url).Output() //nolint:gosec // G204: of the server of these tests
		if err != nil {
			t.Fatal(err)
		}
		log, err := os.ReadFile(server.Log())
		if err != nil {
			t.Fatal(err)
		}
		return append(dump, log...)
	})
}
