// Package refusal holds the reasons for which Scrip says no: each is a stable,
// machine-readable code that every transport maps to its own words and status
// in one table. Imports: the standard library only.
package refusal

import (
	"errors"
	"time"
)

// Code is a stable, machine-readable reason. It is part of the public API: a
// code is never renamed, only added.
type Code string

// The reasons. Each is said by the package its name begins with, but for the
// general ones at the end.
const (
	RedemptionNotFound       Code = "redemption_not_found"
	RedemptionKeyMissing     Code = "redemption_key_missing"
	RedemptionUnknown        Code = "redemption_unknown"
	RedemptionUsed           Code = "redemption_used"
	RedemptionUsedByYou      Code = "redemption_used_by_you"
	RedemptionDisabled       Code = "redemption_disabled"
	RedemptionExpired        Code = "redemption_expired"
	RedemptionNameLength     Code = "redemption_name_length"
	RedemptionNameCharacters Code = "redemption_name_characters"
	RedemptionCountTooSmall  Code = "redemption_count_too_small"
	RedemptionCountTooLarge  Code = "redemption_count_too_large"
	RedemptionQuota          Code = "redemption_quota"
	RedemptionExpiry         Code = "redemption_expiry"
	RedemptionExpiryRange    Code = "redemption_expiry_range"
	RedemptionStatus         Code = "redemption_status"
	RedemptionUsedUnchanging Code = "redemption_used_unchanging"
	RedemptionJobNotFound    Code = "redemption_job_not_found"
	RedemptionJobTooLarge    Code = "redemption_job_too_large"

	MerchantNotFound   Code = "merchant_not_found"
	MerchantName       Code = "merchant_name_invalid"
	MerchantAppKey     Code = "merchant_app_key_invalid"
	MerchantPayload    Code = "merchant_payload_invalid"
	MerchantSignature  Code = "merchant_signature_invalid"
	MerchantExpiryUnit Code = "merchant_expiry_unit_invalid"

	MachineNotFound      Code = "machine_not_found"
	MachineNo            Code = "machine_no_invalid"
	MachineNoTaken       Code = "machine_no_taken"
	MachineName          Code = "machine_name_invalid"
	MachineZone          Code = "machine_timezone_invalid"
	MachinePurchaseLimit Code = "machine_purchase_limit_invalid"
	MachineWrongPassword Code = "machine_wrong_password" // said over MQTT only

	ProductNotFound Code = "product_not_found"
	ProductID       Code = "product_id_invalid"
	ProductIDTaken  Code = "product_id_taken"
	ProductName     Code = "product_name_invalid"
	ProductSlot     Code = "product_slot_invalid"

	PickupNotFound       Code = "pickup_code_not_found"
	PickupQuantity       Code = "pickup_quantity_invalid"
	PickupTTL            Code = "pickup_ttl_invalid"
	PickupMachineOff     Code = "pickup_codes_disabled"
	PickupOverLimit      Code = "pickup_quantity_over_limit"
	PickupProductHasLive Code = "pickup_product_has_live_code"
	PickupTooManyLive    Code = "pickup_too_many_live_codes"
	PickupUsed           Code = "pickup_code_used"
	PickupExpired        Code = "pickup_code_expired"

	AccountNotFound       Code = "user_not_found"
	AccountNameTaken      Code = "user_name_taken"
	AccountNameInvalid    Code = "user_name_invalid"
	AccountDisplayName    Code = "user_display_name_invalid"
	AccountPassword       Code = "user_password_invalid"
	AccountRole           Code = "user_role_invalid"
	AccountRoleTooHigh    Code = "user_role_too_high"
	AccountQuota          Code = "user_quota_invalid"
	AccountLastRoot       Code = "user_last_root"
	AccountBalanceFull    Code = "user_balance_full"
	AccountWrongPassword  Code = "user_wrong_password"
	AccountDisabled       Code = "user_disabled"
	AccountTooManyGuesses Code = "too_many_guesses"
	AccountWrongToken     Code = "user_wrong_token"
	AccountLink           Code = "user_link_invalid"
	AccountOneself        Code = "user_oneself"
	AccountQuotaChange    Code = "user_quota_change_invalid"
	AccountReason         Code = "user_reason_invalid"
	AccountBalanceTooLow  Code = "user_balance_too_low"
	AccountBalanceTooHigh Code = "user_balance_too_high"

	Unauthenticated        Code = "unauthenticated"
	Forbidden              Code = "forbidden"
	InvalidRequest         Code = "invalid_request"
	InvalidJSON            Code = "invalid_json"
	NotUTF8                Code = "not_utf8"
	BodyTooLarge           Code = "body_too_large"
	IdempotencyKeyTooLong  Code = "idempotency_key_too_long"
	IdempotencyKeyReused   Code = "idempotency_key_reused"
	IdempotencyKeyBusy     Code = "idempotency_key_in_progress"
	InvalidCursor          Code = "invalid_cursor"
	NoRoute                Code = "no_route"
	MethodNotAllowed       Code = "method_not_allowed"
	TooBusy                Code = "too_busy"
	Unavailable            Code = "unavailable"
	RedemptionListFailed   Code = "redemption_list_failed"
	RedemptionSearchFailed Code = "redemption_search_failed"
	RedemptionDeleteFailed Code = "redemption_delete_failed"
)

// Error is a refusal: a business "no", safe to show to whoever asked. What
// went wrong inside Scrip is never one.
type Error struct {
	Code Code
	// RetryAfter is how long to wait before asking again; zero when waiting
	// does not help.
	RetryAfter time.Duration
}

// New returns a refusal with that code.
func New(code Code) error { return &Error{Code: code} }

// Later returns a refusal with that code that asks to come back after wait.
func Later(code Code, wait time.Duration) error {
	return &Error{Code: code, RetryAfter: wait}
}

// Error returns the code: people's words are the transports' to choose.
func (e *Error) Error() string { return "refused: " + string(e.Code) }

// Is reports whether target is a refusal with the same code, so that
// errors.Is(err, refusal.New(code)) works.
func (e *Error) Is(target error) bool {
	t, ok := errors.AsType[*Error](target)
	return ok && t.Code == e.Code
}

// CodeOf returns the refusal's code in err's chain, or "" if there is none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}
