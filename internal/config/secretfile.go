package config

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	secretFile = "secret"
	// secretFileMax bounds what is read of it: a few lines are all there is.
	secretFileMax = 64 << 10
)

// SecretFile is the path of the file that holds the secrets when no setting
// does.
func (c *Config) SecretFile() string { return filepath.Join(c.DataDir, secretFile) }

// DatabaseExists reports whether there is anything in the database's file.
//
// A PostgreSQL database always exists: somebody has made it.
func (c *Config) DatabaseExists() (bool, error) {
	if !c.Embedded() {
		return true, nil
	}
	info, err := os.Stat(c.Database)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, &Error{settingDataDir, "cannot look at " + reason(err), "let this user read it"}
	case info.IsDir():
		return false, &Error{settingDatabaseURL, c.Database + " is a directory", "name a file"}
	}
	return info.Size() > 0, nil
}

// MakeDirs makes the data directory and that of the database, readable by
// their owner only.
func (c *Config) MakeDirs() error {
	for _, d := range [][2]string{{settingDataDir, c.DataDir}, {settingDatabaseURL, filepath.Dir(c.Database)}} {
		if err := os.MkdirAll(d[1], 0o700); err != nil {
			return &Error{d[0], "cannot make the directory " + reason(err), "make it, or name one where this user may write"}
		}
	}
	return nil
}

// OpenSecrets returns the secrets, newest first: those set, else those of the
// secret file. When there is neither and no database yet, it makes the file,
// with one random secret; of a database whose secret is missing it only says
// so. It adds to c.Warnings.
func (c *Config) OpenSecrets() ([]string, error) {
	secrets := c.Secrets
	if secrets == nil {
		var err error
		if secrets, err = c.readOrMakeSecretFile(); err != nil {
			return nil, err
		}
		if tooShort(secrets) {
			c.Warnings = append(c.Warnings, c.SecretFile()+" holds a secret shorter than "+strconv.Itoa(shortSecret)+
				" characters: whoever copies the database may guess it")
		}
	}
	out := make([]string, len(secrets))
	for i, s := range secrets {
		out[i] = s.Reveal()
	}
	return out, nil
}

// HasSecret reports whether there are secrets to open, without making any.
func (c *Config) HasSecret() bool {
	_, err := os.Stat(c.SecretFile())
	return c.Secrets != nil || err == nil
}

func (c *Config) readOrMakeSecretFile() ([]Secret, error) {
	secrets, err := c.readSecretFile()
	if !errors.Is(err, fs.ErrNotExist) {
		return secrets, err
	}
	exists, err := c.DatabaseExists()
	if err != nil {
		return nil, err
	}
	if !c.Embedded() {
		return nil, &Error{
			settingSecret, "it is not set, and there is no file " + c.SecretFile(),
			"set it, on every server of the database to the same: at first to what openssl rand -hex 32 prints, say, and keep a copy",
		}
	}
	if exists {
		return nil, &Error{
			settingSecret, fmt.Sprintf("the secret of the database %s is missing: it is not set, and there is no file %s",
				c.Database, c.SecretFile()), "put back the one that the database was made with; no other opens it",
		}
	}
	if err := c.makeSecretFile(); err != nil {
		return nil, err
	}
	return c.readSecretFile()
}

func (c *Config) readSecretFile() ([]Secret, error) {
	path := c.SecretFile()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	const do = "let this user read it"
	if err != nil {
		return nil, &Error{settingSecret, "cannot read " + reason(err), do}
	}
	if othersMayRead(info) {
		return nil, &Error{
			settingSecret, "other users of this machine can read " + path, "chmod 600 it, and consider it known to them",
		}
	}
	if info.Size() > secretFileMax || !info.Mode().IsRegular() {
		return nil, &Error{settingSecret, path + " is not a file of a few lines", "write one secret a line, newest first"}
	}
	text, err := os.ReadFile(path) //nolint:gosec // G304: in the operator's data directory
	if err != nil {
		return nil, &Error{settingSecret, "cannot read " + reason(err), do}
	}
	var out []Secret
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, NewSecret(line))
		}
	}
	if out == nil {
		return nil, &Error{
			settingSecret, path + " is empty",
			"put back the secret that the database was made with, or delete the file if there is no database yet",
		}
	}
	return out, nil
}

// makeSecretFile writes a new secret. It is on the disk before anything is
// locked with it, and it never replaces another: of two programs that start at
// once, one makes it and both use it.
func (c *Config) makeSecretFile() error {
	failed := func(err error) error {
		return &Error{settingSecret, "cannot make " + reason(err), "let this user write there, or set the secret"}
	}
	f, err := os.CreateTemp(c.DataDir, secretFile+"-*.tmp") // mode 0600
	if err != nil {
		return failed(err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	_, err = f.WriteString(hex.EncodeToString(secret) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return failed(err)
	}
	if err := os.Link(f.Name(), c.SecretFile()); err != nil && !errors.Is(err, fs.ErrExist) {
		return failed(err)
	}
	return SyncDir(c.DataDir)
}

// SyncDir makes a new or renamed file in dir last through a loss of power,
// where the system has such a thing.
func SyncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // G304: a directory of the operator's choice
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}
