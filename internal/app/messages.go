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
		{refusal.AccountPassword, "that is not a password: use 8 to 128 characters"},
		{refusal.AccountRole, "that is not a role: use user or admin"},
		{refusal.AccountQuota, "a quota cannot be negative: use 0 or more"},
		{refusal.AccountLastRoot, "the last enabled root account cannot be disabled"},
		{refusal.AccountDisabled, "that user is disabled: see scrip user enable"},
		{refusal.AccountBalanceFull, "the balance would be more than 64 bits hold: use a smaller quota"},

		{refusal.MerchantNotFound, "there is no such merchant: see scrip merchant list"},
		{refusal.MerchantName, "that is not a name for a merchant: use 1 to 64 characters"},
		{refusal.MerchantAppKey, "that is not an app key: use 1 to 128 characters, none of them control characters"},
		{refusal.MerchantPayload, "that is not a form of payload: use json or base64"},
		{refusal.MerchantSignature, "that is not a form of signature: use raw or percent-encoded"},
		{refusal.MerchantExpiryUnit, "that is not a unit of expiry times: use ms or s"},
		{refusal.MachineNotFound, "there is no such machine: see scrip machine list"},
		{refusal.MachineNo, "that is not a machine_no: use 8 digits"},
		{refusal.MachineNoTaken, "there is a machine with that machine_no: see scrip machine list"},
		{refusal.MachineName, "that is not a name for a machine: use 1 to 64 characters"},
		{refusal.MachineZone, "that is not a time zone: use a name like Asia/Shanghai or UTC"},
		{refusal.MachinePurchaseLimit, "that is not a purchase limit: use 1 to 3"},
		{refusal.ProductNotFound, "the machine has no such product: see scrip product list"},
		{refusal.ProductID, "that is not an id for a product: use 1 to 9007199254740991, or leave it out"},
		{refusal.ProductIDTaken, "the machine has a product with that id: use another, or scrip product change"},
		{refusal.ProductName, "that is not a name for a product: use 1 to 64 characters"},
		{refusal.ProductSlot, "that is not a slot: use 1 to 16 characters"},
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
