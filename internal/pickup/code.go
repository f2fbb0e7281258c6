// Package pickup holds pickup codes: 8 digits that are worth some pieces of one
// product in one vending machine. It has the rules they obey, and the use cases
// that make, withdraw and list them and record their use. Imports: account,
// delivery, fleet, keyring, refusal and the standard library.
package pickup

import (
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// Bounds and times.
const (
	QuantityMax = 3
	TTLDefault  = 2 * time.Hour
	TTLMax      = 30 * 24 * time.Hour
	// ReuseAfter is how long after its expiry a code's digits stay taken on its
	// machine, withdrawn or not.
	ReuseAfter = 24 * time.Hour
	// LiveMax bounds the live codes of one machine.
	LiveMax = 1000
	// WaitingMax bounds what is counted of a machine's messages that wait.
	WaitingMax = 1000
	// MachinesMax bounds the machines of which it is asked at once what waits, and
	// PageMax the late uses that are listed at once.
	MachinesMax, PageMax = 100, 100
	// SilentAmong bounds the machines with messages that wait among which those are
	// looked for that are silent.
	SilentAmong = 5000
	// LateMax is what late uses are counted to.
	LateMax = 1000
	// EndedAmong is how many of the newest codes of a machine are looked at for
	// those that have ended lately.
	EndedAmong = 1000
	// digits is how many a code has.
	digits = 8
)

// State is what a code is.
type State string

// The states of a code.
const (
	StateLive      State = "live"
	StateUsed      State = "used"
	StateExpired   State = "expired"
	StateWithdrawn State = "withdrawn"
)

// Delivery is how far the last message about a code has come: that it is there,
// or that it is withdrawn.
type Delivery string

// How far a message may have come.
const (
	Queued   Delivery = "queued"
	Sent     Delivery = "sent"     // the broker has it
	Received Delivery = "received" // the machine has acknowledged it
)

// Code is one pickup code.
type Code struct {
	ID        int64
	MachineID int64
	MachineNo string
	ProductID int64
	Digits    string // the code itself
	Quantity  int    // pieces
	// Marked is what was recorded of the code, never StateExpired: that is for
	// the clock to say, through State.
	Marked  State
	LateUse bool
	// Acknowledged says that somebody has looked at the late use.
	Acknowledged bool
	Delivery     Delivery
	CreatorID    int64
	Created      time.Time
	Expires      time.Time
	Used         time.Time // when the server heard of it; zero: not used
	Withdrawn    time.Time // zero: not withdrawn
}

// State is what the code is at now. It expires at Expires, not after it.
func (c *Code) State(now time.Time) State {
	if c.Marked == StateLive && !now.Before(c.Expires) {
		return StateExpired
	}
	return c.Marked
}

// Waiting is what a machine has, and what it has not heard.
type Waiting struct {
	Live int // codes that are live; LiveMax at most
	// Queued are the messages that nobody has yet to give to the machine, and Sent
	// those that it was given, or its broker was, and has not acknowledged: of one
	// code each; WaitingMax of both at most.
	Queued, Sent int
	Oldest       time.Time // since when the oldest of these waits; zero: there is none
}

// Silent is a machine that is not online, with codes that it has not heard of.
type Silent struct {
	fleet.Machine
	Waiting
}

// Facts are what decides whether a machine may have another code.
type Facts struct {
	Machine fleet.Machine
	Product fleet.Product // its ID is 0 if the machine has none like that
	// OfProduct and Live are how many live codes of the product, and in all, the
	// machine has; a store may stop counting at 1 and at LiveMax.
	OfProduct, Live int
}

// Refuse says why an order may not be filled; nil if it may.
func (f *Facts) Refuse(quantity int, allowMore bool) error {
	switch {
	case !f.Machine.PickupCodes:
		return refusal.New(refusal.PickupMachineOff)
	case f.Product.ID == 0:
		return refusal.New(refusal.ProductNotFound)
	case quantity > f.Machine.PurchaseLimit:
		return refusal.New(refusal.PickupOverLimit)
	case f.OfProduct > 0 && !allowMore:
		return refusal.New(refusal.PickupProductHasLive)
	case f.Live >= LiveMax:
		return refusal.New(refusal.PickupTooManyLive)
	}
	return nil
}

// Withdraw returns c withdrawn at now, and whether that changes it: what is
// withdrawn already stays so. It refuses with PickupUsed and PickupExpired.
func (c Code) Withdraw(now time.Time) (Code, bool, error) {
	switch c.State(now) {
	case StateLive:
		c.Marked, c.Withdrawn, c.Delivery = StateWithdrawn, now, Queued
		return c, true, nil
	case StateWithdrawn:
		return c, false, nil
	case StateUsed:
		return c, false, refusal.New(refusal.PickupUsed)
	case StateExpired:
	}
	return c, false, refusal.New(refusal.PickupExpired)
}

// Use returns c used at now, and the kind of the ledger's entry; the kind is
// empty if it was used before. The goods are gone: so a code that is withdrawn
// or expired is used too, late.
func (c Code) Use(now time.Time) (Code, account.Kind) {
	state := c.State(now)
	if state == StateUsed {
		return c, ""
	}
	c.Marked, c.Used = StateUsed, now
	if state != StateLive {
		c.LateUse = true
		return c, account.KindPickupLateUse
	}
	return c, account.KindPickupUse
}
