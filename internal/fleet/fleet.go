// Package fleet holds merchants, their vending machines, what those sell, and
// which of them are online. Imports: account, guess, keyring, refusal and the
// standard library.
package fleet

import (
	"encoding/json"
	"strings"
	"time"
	_ "time/tzdata" // a machine's zone is known also where the system has no zones
	"unicode/utf8"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// Bounds of what may be set.
const (
	NameMax          = 64  // characters of any name
	AppKeyMax        = 128 // characters
	SlotMax          = 16  // characters
	ProductIDMax     = 1<<53 - 1
	PurchaseLimitMax = 3 // pieces of one pickup
	machineNoDigits  = 8
)

// SilentFor is how long a machine that is not known to be connected counts as
// online after it was last heard of.
const SilentFor = 10 * time.Minute

// Payload is how a message's JSON text travels to a merchant's machines.
type Payload string

// The forms of a payload.
const (
	PayloadJSON   Payload = "json"
	PayloadBase64 Payload = "base64"
)

// Signature is the form in which values enter a message's signature.
type Signature string

// The forms of a signature.
const (
	SignatureRaw            Signature = "raw"
	SignaturePercentEncoded Signature = "percent-encoded"
)

// ExpiryUnit is the unit of an expiry time in a message.
type ExpiryUnit string

// The units of an expiry time.
const (
	ExpiryMilliseconds ExpiryUnit = "ms"
	ExpirySeconds      ExpiryUnit = "s"
)

// Style is how a merchant's machines want their messages.
type Style struct {
	Payload   Payload
	Signature Signature
	Expiry    ExpiryUnit
}

// Merchant owns machines. Its app key signs what passes between them and the
// server.
type Merchant struct {
	ID     int64
	Name   string
	AppKey string
	Style
	Created time.Time
}

// MerchantChange is what is to be changed of a merchant; nil fields stay.
type MerchantChange struct {
	Name       *string
	AppKey     *string
	Payload    *Payload
	Signature  *Signature
	ExpiryUnit *ExpiryUnit
}

// Presence is what is known of a machine's connection.
type Presence int

// What may be known of a connection.
const (
	Offline   Presence = iota
	Connected          // to the embedded broker, now
	Heard              // of, at LastSeen; it may be connected to another broker
	Missed             // Heard of, but it may have been away since: the next it says counts as its coming back
)

// Machine is one vending machine.
type Machine struct {
	ID         int64
	MerchantID int64
	No         string // its machine_no: 8 digits
	Name       string
	// Zone is the IANA name of the time zone that it stands in.
	Zone string
	// PurchaseLimit is how many pieces it can give out at once: 1 without a cart.
	PurchaseLimit int
	// PickupCodes says whether it takes pickup codes.
	PickupCodes bool
	Presence    Presence
	LastSeen    time.Time // zero: never
	Created     time.Time
}

// FindMax bounds how many machines are found at once.
const FindMax = 100

// MachineQuery chooses a page of machines. What is not set chooses all.
type MachineQuery struct {
	// Search is a part of the name, whatever the case of the letters a-z, or how
	// the machine_no begins.
	Search   string
	Merchant int64
	Online   *bool
	Before   int64     // behind the machine with this id; 0: from the newest
	Limit    int       // FindMax at most
	At       time.Time // when it is asked who is online; Find sets it
}

// Online reports whether the machine is online at now.
func (m *Machine) Online(now time.Time) bool {
	return m.Presence == Connected || m.Presence >= Heard && now.Sub(m.LastSeen) < SilentFor
}

// MachineChange is what is to be changed of a machine; nil fields stay.
type MachineChange struct {
	Name          *string
	Zone          *string
	PurchaseLimit *int64
	PickupCodes   *bool
}

// Product is something that a machine sells.
type Product struct {
	MachineID int64
	ID        int64 // unique within its machine
	Name      string
	Slot      string
	Created   time.Time
}

// ProductChange is what is to be changed of a product; nil fields stay.
type ProductChange struct {
	Name *string
	Slot *string
}

// Apply returns m with the change made, and the ledger's detail of it; that is
// empty if nothing changes.
func (c MerchantChange) Apply(m Merchant) (Merchant, string) {
	d := difference{}
	change(d, "name", &m.Name, c.Name)
	change(d, "payload", &m.Payload, c.Payload)
	change(d, "signature", &m.Signature, c.Signature)
	change(d, "expiry_unit", &m.Expiry, c.ExpiryUnit)
	if c.AppKey != nil && *c.AppKey != m.AppKey {
		m.AppKey = *c.AppKey
		d["app_key"] = "changed" // the key itself is nobody's to read in the ledger
	}
	return m, d.detail("merchant_id", m.ID)
}

// Apply returns m with the change made, and the ledger's detail of it; that is
// empty if nothing changes.
func (c MachineChange) Apply(m Machine) (Machine, string) {
	d := difference{}
	change(d, "name", &m.Name, c.Name)
	change(d, "timezone", &m.Zone, c.Zone)
	change(d, "pickup_codes_enabled", &m.PickupCodes, c.PickupCodes)
	if c.PurchaseLimit != nil {
		limit := int(*c.PurchaseLimit)
		change(d, "purchase_limit", &m.PurchaseLimit, &limit)
	}
	return m, d.detail("machine_no", m.No)
}

// Apply returns p with the change made, and the ledger's detail of it; that is
// empty if nothing changes.
func (c ProductChange) Apply(p Product) (Product, string) {
	d := difference{}
	change(d, "name", &p.Name, c.Name)
	change(d, "slot", &p.Slot, c.Slot)
	return p, d.detail("product_id", p.ID)
}

// difference is what a change changes: from and to, by the name of the field.
type difference map[string]any

func change[T comparable](d difference, name string, have, want *T) {
	if want == nil || *want == *have {
		return
	}
	d[name] = [2]T{*have, *want}
	*have = *want
}

// detail is the difference as JSON, with who it is about; empty for none.
func (d difference) detail(name string, about any) string {
	if len(d) == 0 {
		return ""
	}
	d[name] = about
	return Detail(d)
}

// Detail is what the ledger says in JSON.
func Detail(members map[string]any) string {
	b, err := json.Marshal(members)
	if err != nil {
		panic(err) // texts, numbers and truths always marshal
	}
	return string(b)
}

// ValidNo reports whether text has the form of a machine_no.
func ValidNo(text string) bool {
	return len(text) == machineNoDigits && strings.Trim(text, "0123456789") == ""
}

func checkText(s string, most int, otherwise refusal.Code) error {
	if n := utf8.RuneCountInString(s); n < 1 || n > most || !account.CleanText(s) {
		return refusal.New(otherwise)
	}
	return nil
}

// check refuses a style that has a form that does not exist.
func (s Style) check() error {
	switch {
	case s.Payload != PayloadJSON && s.Payload != PayloadBase64:
		return refusal.New(refusal.MerchantPayload)
	case s.Signature != SignatureRaw && s.Signature != SignaturePercentEncoded:
		return refusal.New(refusal.MerchantSignature)
	case s.Expiry != ExpiryMilliseconds && s.Expiry != ExpirySeconds:
		return refusal.New(refusal.MerchantExpiryUnit)
	}
	return nil
}

func (m *Merchant) check() error {
	if err := checkText(m.Name, NameMax, refusal.MerchantName); err != nil {
		return err
	}
	if err := checkText(m.AppKey, AppKeyMax, refusal.MerchantAppKey); err != nil {
		return err
	}
	return m.Style.check()
}

func (m *Machine) check() error {
	if !ValidNo(m.No) {
		return refusal.New(refusal.MachineNo)
	}
	if err := checkText(m.Name, NameMax, refusal.MachineName); err != nil {
		return err
	}
	if m.PurchaseLimit < 1 || m.PurchaseLimit > PurchaseLimitMax {
		return refusal.New(refusal.MachinePurchaseLimit)
	}
	// "Local" and "" are names to time, but not of a place.
	if _, err := time.LoadLocation(m.Zone); err != nil || m.Zone == "" || m.Zone == "Local" {
		return refusal.New(refusal.MachineZone)
	}
	return nil
}

func (p *Product) check() error {
	if p.ID < 0 || p.ID > ProductIDMax {
		return refusal.New(refusal.ProductID)
	}
	if err := checkText(p.Name, NameMax, refusal.ProductName); err != nil {
		return err
	}
	return checkText(p.Slot, SlotMax, refusal.ProductSlot)
}
