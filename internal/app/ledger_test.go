package app_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/scrip-codes/scrip/internal/enginetest"
)

// TestAlteredHead: a checkpoint is printed of a genuine end of the ledger only.
func TestAlteredHead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := enginetest.New(t, dir)
	env := settingsFor(db, dir)
	createUser(t, env, "ann")
	scrip(t, env, "ledger", "head")
	db.Alter(t, "UPDATE ledger_heads SET count = count + 1")
	stdout, stderr, err := tryScrip(t, env, "ledger", "head")
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 1 || stdout != "" || !strings.Contains(stderr, "run scrip ledger verify") {
		t.Errorf("%v\n%s%s", err, stdout, stderr)
	}
}
