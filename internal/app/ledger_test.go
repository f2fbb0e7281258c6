package app_test

import (
	"database/sql"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAlteredHead: a checkpoint is printed of a genuine end of the ledger only.
func TestAlteredHead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := settings(dir)
	createUser(t, env, "ann")
	scrip(t, env, "ledger", "head")
	db, err := sql.Open("sqlite", filepath.Join(dir, "scrip.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), "UPDATE ledger_heads SET count = count + 1")
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err := tryScrip(t, env, "ledger", "head")
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 1 || stdout != "" || !strings.Contains(stderr, "run scrip ledger verify") {
		t.Errorf("%v\n%s%s", err, stdout, stderr)
	}
}
