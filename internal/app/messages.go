package app

import (
	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// sentence turns an error into English. Of the refusals only those are spelled
// out that a command can meet.
func sentence(err error) string {
	code := refusal.CodeOf(err)
	for _, s := range sentences() {
		if s.code == code {
			return s.text
		}
	}
	if code != "" {
		return "refused: " + string(code)
	}
	return err.Error()
}

type refusalText struct {
	code refusal.Code
	text string
}

func sentences() []refusalText {
	return []refusalText{
		{refusal.AccountNotFound, "there is no such user: see scrip user list"},
		{refusal.AccountNameTaken, "that username is taken: choose another"},
		{refusal.AccountNameInvalid, "that is not a username: use 1 to 64 characters, without spaces"},
		{refusal.AccountPassword, "that is not a password: use 8 to 256 bytes of text"},
		{refusal.AccountRole, "that is not a role: use user or admin"},
		{refusal.AccountQuota, "a quota cannot be negative: use 0 or more"},
		{refusal.AccountLastRoot, "the last enabled root account cannot be disabled"},
		{refusal.AccountBalanceFull, "the balance would be more than 64 bits hold: use a smaller quota"},
	}
}

// roleName is a role in words.
func roleName(r account.Role) string {
	switch r {
	case account.RoleUser:
		return "user"
	case account.RoleAdmin:
		return "admin"
	case account.RoleRoot:
		return "root"
	}
	return "unknown"
}

// statusName is an account's status in words.
func statusName(s account.Status) string {
	switch s {
	case account.StatusEnabled:
		return "enabled"
	case account.StatusDisabled:
		return "disabled"
	}
	return "unknown"
}
