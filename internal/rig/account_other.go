//go:build !unix

package rig

import (
	"errors"
	"syscall"
)

type account struct{}

func accountFor(string) (account, error) {
	return account{}, errors.New("throwaway servers need Linux, macOS or another Unix")
}

func (account) own(string) error { return nil }

func (account) attributes() *syscall.SysProcAttr { return nil }

func ownGroup() *syscall.SysProcAttr { return nil }
