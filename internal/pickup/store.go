package pickup

import (
	"context"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
)

// Store is what the use cases need of a database. Each method is one
// transaction, but for SweepPickups, which is a step; all are safe for
// concurrent use, and every success is durable. What writes for an actor writes
// the ledger too, and what a machine is to be told writes the outbox. Methods
// that are given a Once or an Epoch fail as those of redemption.Store do. Those
// that are called together may share a commit; the refusal of one touches no
// other.
type Store interface {
	// CreatePickup makes a code of the first of o.Digits that is free on the
	// machine: that no code of it has that is live or has expired less than
	// ReuseAfter ago.
	// It refuses with MachineNotFound and as Facts.Refuse does, and fails with
	// ErrTaken if none is free.
	CreatePickup(ctx context.Context, o Order) (Stored, error)
	// Pickup finds a code. It refuses with PickupNotFound.
	Pickup(ctx context.Context, id int64) (Stored, error)
	// Pickups lists a machine's codes, newest first. It refuses with MachineNotFound.
	Pickups(ctx context.Context, q Query) ([]Stored, error)
	// WaitingOf says what waits for these machines, and for whom nothing does and
	// who has no live codes nothing.
	WaitingOf(ctx context.Context, machines []int64, at time.Time) (map[int64]Waiting, error)
	// SilentMachines lists machines that are not online, with codes that they have
	// not heard of: those first for which one has waited for longest. It looks among
	// SilentAmong of the machines for which something waits.
	SilentMachines(ctx context.Context, limit int, at time.Time) ([]Silent, error)
	// LateUses lists those late uses of all machines that nobody has acknowledged,
	// newest codes first, behind the code with the id before, and counts all of
	// them, to LateMax.
	LateUses(ctx context.Context, before int64, limit int) ([]Stored, int, error)
	// AcknowledgeLate writes that somebody has looked at the late use of a code.
	// What is no late use, or is acknowledged, stays as it is. It refuses with
	// PickupNotFound.
	AcknowledgeLate(ctx context.Context, id int64, by account.Actor, at time.Time) error
	// AcknowledgeLateOf is a step of AcknowledgeLate for the codes of a machine. It
	// reports how many it has acknowledged; with none left that is 0. It refuses
	// with MachineNotFound.
	AcknowledgeLateOf(ctx context.Context, machineNo string, by account.Actor, at time.Time) (int, error)
	// Withdraw withdraws a code, as Code.Withdraw says. It refuses so, and with
	// PickupNotFound. Of the outbox it removes what tells the machine of the code.
	Withdraw(ctx context.Context, id int64, by account.Actor, at time.Time) error
	// Use records that the machine has honoured a code, as Code.Use says, and
	// removes what the outbox says of it. It refuses with PickupNotFound, also a
	// code of another machine, unless that was deleted and this has its number.
	Use(ctx context.Context, r Report) (Code, error)
	// Message finds all that a message about a code is made of. It refuses with
	// PickupNotFound.
	Message(ctx context.Context, id int64) (Material, error)

	// SweepPickups is a step of putting aside codes and entries of the outbox whose
	// codes have expired at now, and of taking back those that have not after all,
	// since the clock was set back. It reports how many it moved; with none left
	// that is 0.
	SweepPickups(ctx context.Context, now time.Time) (int64, error)
}

// Order asks for a code.
type Order struct {
	Epoch     int64
	MachineNo string
	ProductID int64
	Quantity  int
	AllowMore bool
	At        time.Time
	Expires   time.Time
	By        account.Actor
	Digits    []NewDigits   // to choose from, in this order
	Once      *account.Once // its Answer is given the Code
}

// NewDigits is a code that may be issued.
type NewDigits struct {
	Digits string
	Sealed []byte
	// Indexes are its blind indexes under each live generation, newest first.
	Indexes [][]byte
}

// Stored is a code as the database holds it: without its digits, which are
// sealed.
type Stored struct {
	Code
	Index  []byte // blind index of the digits: what Sealed is bound to
	Sealed []byte
}

// Query chooses a page of a machine's codes.
type Query struct {
	MachineNo string
	Before    int64 // behind the code with this id; 0: from the newest
	Limit     int
	// LateUse keeps only codes that were used late.
	LateUse bool
	// Live keeps only codes that are live.
	Live bool
	// Ended keeps only codes that were used or withdrawn, or have expired, then or
	// later, of the newest EndedAmong; zero: all.
	Ended time.Time
	At    time.Time // when it is asked; List sets it
}

// Report is a machine's word that a code was used.
type Report struct {
	MachineID int64
	CodeID    int64
	By        account.Actor // the machine
	At        time.Time
	// Claimed is when the machine says that it was; zero if it does not.
	Claimed time.Time
}

// Material is what a message about a code is made of. Nothing else is set of the
// code (only ID, ProductID, Quantity, Marked, Expires, Index and Sealed), of the
// machine (ID, No, Zone) and of the merchant (ID, Style, Sealed): this is read
// for every message.
type Material struct {
	Stored
	Machine  fleet.Machine
	Merchant fleet.StoredMerchant
}

// text is what is sealed and indexed of a code: its digits are unique within
// its machine's number, also when that number has passed to another machine.
func text(machineNo, digits string) string { return machineNo + digits }

// sealContext binds sealed digits to the row that their index stands in.
func sealContext(index []byte) []byte { return append([]byte("pickup code "), index...) }

// indexed is what is indexed, which must not be found by a redemption key.
func indexed(text string) string { return "pickup code " + text }

// Reseal seals stored digits again under the ring's newest generation, with
// their index there. It is what a rotation does to each code.
func Reseal(r *keyring.Ring, index, sealed []byte) (newIndex, newSealed []byte, err error) {
	plain, err := r.Open(sealContext(index), sealed)
	if err != nil {
		return nil, nil, err
	}
	newIndex = r.Index(indexed(string(plain)))
	return newIndex, r.Seal(sealContext(newIndex), plain), nil
}
