//go:build unix

package rig

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// account is the user as whom a server runs.
type account struct {
	credential *syscall.Credential // nil for that of this program
}

// accountFor is the named user if this program is root, and else its own:
// PostgreSQL refuses to run as root, and Mosquitto leaves it.
func accountFor(name string) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, fmt.Errorf("as root it needs the user %s to run as: %w", name, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", name, err)
	}
	return account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

// own gives a file to the account.
func (a account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// attributes make a command run as the account.
func (a account) attributes() *syscall.SysProcAttr {
	attributes := ownGroup()
	attributes.Credential = a.credential
	return attributes
}

// ownGroup takes a command out of the reach of ^C: whoever pressed it ended
// this program, which ends its servers in its own order.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
