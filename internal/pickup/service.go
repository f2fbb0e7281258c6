package pickup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// ErrTaken says that all the digits to choose from are taken.
var ErrTaken = errors.New("those digits are taken on this machine")

const (
	// choices is how many digits an order chooses from: on a machine with
	// thousands of codes one in some ten thousand is taken.
	choices = 2
	// createTries bounds how often an order is tried with other digits.
	createTries = 8
)

// Service is the use cases of pickup codes.
type Service struct {
	store Store
	keys  *keyring.Keys
	now   func() time.Time
	// changed is told when an entry has come into the outbox.
	changed func()
}

// NewService returns the use cases over store. Changed, if not nil, is called
// whenever an entry has come into the outbox.
func NewService(store Store, keys *keyring.Keys, now func() time.Time, changed func()) *Service {
	if changed == nil {
		changed = func() {}
	}
	return &Service{store: store, keys: keys, now: now, changed: changed}
}

// Request asks for a code.
type Request struct {
	MachineNo string
	ProductID int64
	Quantity  int64
	TTL       time.Duration // 0: TTLDefault
	AllowMore bool          // also if the product has a live code
	Once      *account.Once // its Answer is given the Code
}

// Create makes a pickup code and the promise to push it, for an admin.
func (s *Service) Create(ctx context.Context, by account.Actor, r Request) (c Code, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Code{}, err
	}
	if r.TTL == 0 {
		r.TTL = TTLDefault
	}
	switch {
	case r.Quantity < 1 || r.Quantity > QuantityMax:
		return Code{}, refusal.New(refusal.PickupQuantity)
	case r.TTL < time.Second || r.TTL > TTLMax:
		return Code{}, refusal.New(refusal.PickupTTL)
	}
	now := s.now()
	o := Order{
		MachineNo: r.MachineNo, ProductID: r.ProductID, Quantity: int(r.Quantity), AllowMore: r.AllowMore,
		At: now, Expires: now.Add(r.TTL), By: by, Once: r.Once,
	}
	for try := 0; ; try++ {
		c, err = s.create(ctx, o)
		if !errors.Is(err, ErrTaken) {
			break
		}
		if try == createTries {
			return Code{}, fmt.Errorf("%d times in a row: %w", createTries+1, err)
		}
	}
	if err == nil {
		s.changed()
	}
	return c, err
}

func (s *Service) create(ctx context.Context, o Order) (c Code, err error) {
	numbers := make([]string, choices)
	for i := range numbers {
		numbers[i] = newDigits()
	}
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		o.Epoch, o.Digits = ring.Epoch(), make([]NewDigits, choices)
		for i, n := range numbers {
			t := text(o.MachineNo, n)
			indexes := ring.Indexes(indexed(t))
			o.Digits[i] = NewDigits{n, ring.Seal(sealContext(indexes[0]), []byte(t)), indexes}
		}
		made, err := s.store.CreatePickup(ctx, o)
		c = made.Code
		return err
	})
	return c, err
}

// newDigits makes a code: 8 digits, each as likely as any other.
func newDigits() string {
	n, err := rand.Int(rand.Reader, big.NewInt(1e8))
	if err != nil {
		panic(err) // the system's source never fails
	}
	return fmt.Sprintf("%0*d", digits, n)
}

// Get finds a code, for an admin.
func (s *Service) Get(ctx context.Context, by account.Actor, id int64) (c Code, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Code{}, err
	}
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		stored, err := s.store.Pickup(ctx, id)
		if err != nil {
			return err
		}
		c, err = open(ring, &stored)
		return err
	})
	return c, err
}

// List lists a machine's codes, newest first, for an admin.
func (s *Service) List(ctx context.Context, by account.Actor, q Query) (list []Code, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	q.At = s.now()
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		rows, err := s.store.Pickups(ctx, q)
		if err != nil {
			return err
		}
		list, err = openAll(ring, rows)
		return err
	})
	return list, err
}

func openAll(ring *keyring.Ring, rows []Stored) (list []Code, err error) {
	list = make([]Code, len(rows))
	for i := range rows {
		if list[i], err = open(ring, &rows[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Waiting says what waits for machines, by their ids, for an admin: of the first
// MachinesMax. A machine for which nothing waits, and that has no live codes, is
// left out.
func (s *Service) Waiting(ctx context.Context, by account.Actor, machines []int64) (map[int64]Waiting, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	return s.store.WaitingOf(ctx, machines[:min(len(machines), MachinesMax)], s.now())
}

// Silent lists machines that are not online while codes wait for them, those first
// for which one has waited for longest, MachinesMax at most, for an admin.
func (s *Service) Silent(ctx context.Context, by account.Actor, limit int) ([]Silent, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	return s.store.SilentMachines(ctx, min(limit, MachinesMax), s.now())
}

// LateUses lists the late uses of all machines that nobody has acknowledged, newest
// codes first, behind the code with the id before (0: from the newest), and counts
// all of them, to LateMax. It lists limit at most, and PageMax; with 0 it only
// counts. It is for an admin.
func (s *Service) LateUses(
	ctx context.Context, by account.Actor, before int64, limit int,
) (list []Code, count int, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, 0, err
	}
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		rows, n, err := s.store.LateUses(ctx, before, min(limit, PageMax))
		if err != nil {
			return err
		}
		count = n
		list, err = openAll(ring, rows)
		return err
	})
	return list, count, err
}

// AcknowledgeLate records that somebody has looked at the late use of a code, for
// an admin. What is acknowledged already, or no late use, stays as it is, without
// an error. It refuses with refusal.PickupNotFound.
func (s *Service) AcknowledgeLate(ctx context.Context, by account.Actor, id int64) error {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return err
	}
	return s.store.AcknowledgeLate(ctx, id, by, s.now())
}

// AcknowledgeLateOf does that for all late uses of a machine, and reports how many
// it has acknowledged. It refuses with refusal.MachineNotFound.
func (s *Service) AcknowledgeLateOf(ctx context.Context, by account.Actor, machineNo string) (count int, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return 0, err
	}
	for {
		n, err := s.store.AcknowledgeLateOf(ctx, machineNo, by, s.now())
		count += n
		if err != nil || n == 0 {
			return count, err
		}
		if err := ctx.Err(); err != nil {
			return count, err
		}
	}
}

func open(ring *keyring.Ring, c *Stored) (Code, error) {
	plain, err := ring.Open(sealContext(c.Index), c.Sealed)
	if err != nil {
		return Code{}, err
	}
	if len(plain) < digits {
		return Code{}, keyring.ErrSealed
	}
	code := c.Code
	code.Digits = string(plain[len(plain)-digits:])
	return code, nil
}

// Withdraw withdraws a code before its use, and promises to tell the machine,
// for an admin. One that is withdrawn already stays so, without an error. It
// refuses with refusal.PickupNotFound, PickupUsed and PickupExpired.
func (s *Service) Withdraw(ctx context.Context, by account.Actor, id int64) error {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return err
	}
	err := s.store.Withdraw(ctx, id, by, s.now())
	if err == nil {
		s.changed()
	}
	return err
}

// Used records that a machine has honoured a code, once. It refuses with
// refusal.PickupNotFound. It is for the broker.
func (s *Service) Used(ctx context.Context, machine, code int64, address string, claimed time.Time) (Code, error) {
	return s.store.Use(ctx, Report{
		MachineID: machine, CodeID: code, By: account.OfMachine(address), At: s.now(), Claimed: claimed,
	})
}

// Message is what a machine is told of a code.
type Message struct {
	Code
	Machine  fleet.Machine
	Merchant fleet.Merchant
}

// MessageOf finds what an item of the outbox says. It fails with
// delivery.ErrGone if the code is no longer what the item says of it, or has
// expired: a machine forgets those by itself. It is for the broker.
func (s *Service) MessageOf(ctx context.Context, item delivery.Item) (m Message, err error) {
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		stored, err := s.store.Message(ctx, item.CodeID)
		if refusal.CodeOf(err) == refusal.PickupNotFound {
			return delivery.ErrGone
		}
		if err != nil {
			return err
		}
		now := s.now()
		if !now.Before(stored.Expires) || stored.Marked != said(item.Kind) {
			return delivery.ErrGone
		}
		m.Machine = stored.Machine
		if m.Merchant, err = fleet.Open(ring, stored.Merchant); err != nil {
			return err
		}
		m.Code, err = open(ring, &stored.Stored)
		return err
	})
	return m, err
}

// said is what an item of a kind says that the code is.
func said(k delivery.Kind) State {
	switch k {
	case delivery.KindCreate:
		return StateLive
	case delivery.KindDelete:
		return StateWithdrawn
	case delivery.KindDisconnect:
	}
	return ""
}

// Sweep puts aside what has expired until nothing is left, or ctx ends. Between
// steps it makes way for others.
func (s *Service) Sweep(ctx context.Context) error {
	for {
		n, err := s.store.SweepPickups(ctx, s.now())
		if err != nil || n == 0 {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
