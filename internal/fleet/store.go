package fleet

import (
	"context"
	"strconv"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
)

// Store is what the use cases need of a database. Each method is one
// transaction; all are safe for concurrent use, and every success is durable.
// What writes for an actor writes the ledger too. Methods that are given a Once
// or an Epoch fail as those of redemption.Store do. Lists are newest first,
// begin behind the id before (0: at the newest), and hold limit rows at most.
//
// Refusals are MerchantNotFound, MachineNotFound and ProductNotFound, and those
// that a method names.
type Store interface {
	// CreateMerchant makes a merchant; its AppKey is sealed by Seal.
	CreateMerchant(ctx context.Context, n NewMerchant) (StoredMerchant, error)
	// Merchant finds a merchant.
	Merchant(ctx context.Context, id int64) (StoredMerchant, error)
	// Merchants lists merchants.
	Merchants(ctx context.Context, before int64, limit int) ([]StoredMerchant, error)
	// ChangeMerchant puts what Apply makes of a merchant, as it stands in the
	// transaction, in its place. If the detail is empty it writes nothing.
	ChangeMerchant(ctx context.Context, id int64, e Edit[StoredMerchant]) (StoredMerchant, error)

	// CreateMachine makes a machine. It refuses with MachineNoTaken if one has
	// its number.
	CreateMachine(ctx context.Context, n NewMachine) (Machine, error)
	// Machine finds a machine by its number.
	Machine(ctx context.Context, no string) (Machine, error)
	// Machines lists machines.
	Machines(ctx context.Context, before int64, limit int) ([]Machine, error)
	// MachineNames finds what machines are called, those too that are no more.
	MachineNames(ctx context.Context, ids []int64) (map[int64]Named, error)
	// FindMachines lists the machines that q chooses. It may look at every machine.
	FindMachines(ctx context.Context, q MachineQuery) ([]Machine, error)
	// ChangeMachine is to machines what ChangeMerchant is to merchants. Presence
	// is not changed by it.
	ChangeMachine(ctx context.Context, no string, e Edit[Machine]) (Machine, error)
	// SetPassword replaces a machine's MQTT password; an entry of the outbox ends
	// its connection.
	SetPassword(ctx context.Context, no string, password account.Hash, by account.Actor, at time.Time, once *account.Once) error
	// DeleteMachine removes a machine and withdraws its live pickup codes; an
	// entry of the outbox ends its connection. Its number is free again; what the
	// ledger and the pickup codes say of it stays.
	DeleteMachine(ctx context.Context, no string, by account.Actor, at time.Time) error

	// CreateProduct makes a product of a machine; an ID of 0 asks for the next
	// free one. It refuses with ProductIDTaken, and ProductID if none is left.
	CreateProduct(ctx context.Context, n NewProduct) (Product, error)
	// Products lists a machine's products.
	Products(ctx context.Context, no string, before int64, limit int) ([]Product, error)
	// ChangeProduct is to products what ChangeMerchant is to merchants.
	ChangeProduct(ctx context.Context, no string, id int64, e Edit[Product]) (Product, error)
	// DeleteProduct removes a product and withdraws its live pickup codes.
	DeleteProduct(ctx context.Context, no string, id int64, by account.Actor, at time.Time) error

	// Forgive is that of account.Store.
	Forgive(ctx context.Context, f account.Forgiving) (account.User, error)
	// Login finds a machine and the hash of its MQTT password.
	Login(ctx context.Context, no string) (Machine, account.Hash, error)
	// Speaker finds the machine with that number, and its merchant.
	Speaker(ctx context.Context, no string) (machine int64, m StoredMerchant, err error)
	// OwnerOf finds the merchant of the machine with that id.
	OwnerOf(ctx context.Context, machine int64) (StoredMerchant, error)
	// See writes what is known of machines' connections. One that is gone is
	// passed over. One that is Heard of and has come back, since it was not online
	// or as the sighting says, is to be sent all that it should hold once again: its
	// live codes, and what else waits for it, wait in the outbox to be sent through
	// a broker that is not ours. Unless the sighting says so it is Missed then, since
	// it may have been heard late: the next counts as its coming back, too.
	See(ctx context.Context, sightings []Sighting) error
	// Miss says that a broker that is not ours was away: of a machine that was Heard
	// of, or Connected to one that may be gone, the next that is heard counts as its
	// coming back.
	Miss(ctx context.Context) error
	// Begin says that no machine is connected: the broker has just started.
	Begin(ctx context.Context) error
}

// StoredMerchant is a merchant as the database holds it: without its app key,
// which is Sealed.
type StoredMerchant struct {
	Merchant
	Sealed []byte
}

// NewMerchant is what makes a merchant.
type NewMerchant struct {
	Merchant
	// Seal seals the app key for the id that the merchant gets, under the ring of
	// Epoch. It is called inside the transaction.
	Seal  func(id int64) []byte
	Epoch int64
	By    account.Actor
	Once  *account.Once // its Answer is given the Merchant
}

// NewMachine is what makes a machine.
type NewMachine struct {
	Machine
	Password account.Hash
	By       account.Actor
	Once     *account.Once // its Answer is given the Machine
}

// NewProduct is what makes a product.
type NewProduct struct {
	Product
	MachineNo string
	By        account.Actor
	Once      *account.Once // its Answer is given the Product
}

// Edit is a change to be made to what stands in the database.
type Edit[T any] struct {
	// Kind is of the ledger's entry, if not the one for changes. Of merchants only.
	Kind account.Kind
	// Apply returns what is to stand there instead, and the ledger's detail; an
	// empty detail says that nothing changes.
	Apply func(T) (T, string, error)
	Epoch int64 // of what Apply seals; 0 if it seals nothing
	By    account.Actor
	At    time.Time
}

// Sighting is what became known of a machine's connection.
type Sighting struct {
	MachineID int64
	Presence  Presence
	// At is when it was last heard of, or when it left; zero: leave that as it is.
	// Servers write at different times what they have heard: one that says that the
	// machine was Heard of before it left, without being Back, is passed over.
	At time.Time
	// Back says of a machine that is Heard of, or Missed, that it has been away, also
	// if it is not known to have been.
	Back bool
}

// after is s, with what is to be known of the sighting before it, which is not
// written.
func (s Sighting) after(before Sighting) Sighting {
	if s.Presence != Heard {
		return s
	}
	if before.Presence == Offline && !s.Back {
		s.Presence = Missed // it may have said so before it left
	}
	s.Back = s.Back || before.Back || before.Presence == Offline
	return s
}

// appKeyContext binds a sealed app key to its merchant.
func appKeyContext(id int64) []byte {
	return strconv.AppendInt([]byte("merchant app key "), id, 10)
}

// Reseal seals the app key of the merchant with that id again under the ring's
// newest generation. It is what a rotation does to each merchant.
func Reseal(r *keyring.Ring, id int64, sealed []byte) ([]byte, error) {
	key, err := r.Open(appKeyContext(id), sealed)
	if err != nil {
		return nil, err
	}
	return r.Seal(appKeyContext(id), key), nil
}
