package fleet

import (
	"context"
	"crypto/subtle"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// Service is the use cases of merchants, machines and products. Unless a method
// says otherwise it is for admins.
type Service struct {
	store  Store
	keys   *keyring.Keys
	logins *guess.Limiter
	now    func() time.Time
	// changed is told when an entry has come into the outbox.
	changed func()
}

// NewService returns the use cases over store. Logins of machines that fail
// count against logins. Changed, if not nil, is called whenever an entry has
// come into the outbox.
func NewService(
	store Store, keys *keyring.Keys, logins *guess.Limiter, now func() time.Time, changed func(),
) *Service {
	if changed == nil {
		changed = func() {}
	}
	return &Service{store: store, keys: keys, logins: logins, now: now, changed: changed}
}

// CreateMerchant makes a merchant. An empty app key asks for a random one;
// empty forms ask for the defaults.
func (s *Service) CreateMerchant(
	ctx context.Context, by account.Actor, m Merchant, once *account.Once,
) (Merchant, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Merchant{}, err
	}
	m.Name = strings.TrimSpace(m.Name)
	if m.AppKey == "" {
		m.AppKey = account.NewToken()
	}
	m.Style = m.orDefault()
	if err := m.check(); err != nil {
		return Merchant{}, err
	}
	m.Created = s.now()
	err := s.keys.Use(ctx, func(ring *keyring.Ring) error {
		made, err := s.store.CreateMerchant(ctx, NewMerchant{
			Merchant: m, Epoch: ring.Epoch(), By: by, Once: once,
			Seal: func(id int64) []byte { return ring.Seal(appKeyContext(id), []byte(m.AppKey)) },
		})
		m.ID = made.ID
		return err
	})
	return m, err
}

func (s Style) orDefault() Style {
	if s.Payload == "" {
		s.Payload = PayloadJSON
	}
	if s.Signature == "" {
		s.Signature = SignatureRaw
	}
	if s.Expiry == "" {
		s.Expiry = ExpiryMilliseconds
	}
	return s
}

// Merchant finds a merchant.
func (s *Service) Merchant(ctx context.Context, by account.Actor, id int64) (m Merchant, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Merchant{}, err
	}
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		stored, err := s.store.Merchant(ctx, id)
		if err != nil {
			return err
		}
		m, err = Open(ring, stored)
		return err
	})
	return m, err
}

// Merchants lists merchants, newest first, behind the id before.
func (s *Service) Merchants(ctx context.Context, by account.Actor, before int64, limit int) (list []Merchant, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		rows, err := s.store.Merchants(ctx, before, limit)
		if err != nil {
			return err
		}
		list = make([]Merchant, len(rows))
		for i := range rows {
			if list[i], err = Open(ring, rows[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

// Open opens a stored merchant: it is for who has read one together with
// something else.
func Open(ring *keyring.Ring, m StoredMerchant) (Merchant, error) {
	key, err := ring.Open(appKeyContext(m.ID), m.Sealed)
	m.AppKey = string(key)
	return m.Merchant, err
}

// ChangeMerchant changes a merchant and returns it as it is then.
func (s *Service) ChangeMerchant(
	ctx context.Context, by account.Actor, id int64, c MerchantChange,
) (m Merchant, err error) {
	trim(c.Name)
	return s.editMerchant(ctx, by, id, account.KindMerchantChange, c.Apply)
}

// editMerchant changes a merchant as apply says, and writes an entry of that kind
// if there is a detail to it.
func (s *Service) editMerchant(
	ctx context.Context, by account.Actor, id int64, kind account.Kind, apply func(Merchant) (Merchant, string),
) (m Merchant, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Merchant{}, err
	}
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		_, err := s.store.ChangeMerchant(ctx, id, Edit[StoredMerchant]{
			Kind: kind, Epoch: ring.Epoch(), By: by, At: s.now(),
			Apply: func(old StoredMerchant) (StoredMerchant, string, error) {
				opened, err := Open(ring, old)
				if err != nil {
					return old, "", err
				}
				var detail string
				if m, detail = apply(opened); detail == "" {
					return old, "", nil
				}
				return StoredMerchant{m, ring.Seal(appKeyContext(id), []byte(m.AppKey))}, detail, m.check()
			},
		})
		return err
	})
	return m, err
}

// CreateMachine makes a machine and returns it with its MQTT password, which is
// shown only this once. The password is made before the call, by NewPassword,
// since the answer that is kept for an Idempotency-Key holds it.
func (s *Service) CreateMachine(
	ctx context.Context, by account.Actor, m Machine, password string, once *account.Once,
) (Machine, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Machine{}, err
	}
	m.Name = strings.TrimSpace(m.Name)
	if err := m.check(); err != nil {
		return Machine{}, err
	}
	m.Created, m.Presence, m.LastSeen = s.now(), Offline, time.Time{}
	return s.store.CreateMachine(ctx, NewMachine{
		Machine: m, Password: account.HashToken(password), By: by, Once: once,
	})
}

// NewPassword makes an MQTT password: 128 random bits.
func NewPassword() string { return account.NewToken() }

// Machine finds a machine by its number.
func (s *Service) Machine(ctx context.Context, by account.Actor, no string) (Machine, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Machine{}, err
	}
	return s.store.Machine(ctx, no)
}

// Machines lists machines, newest first, behind the id before.
func (s *Service) Machines(ctx context.Context, by account.Actor, before int64, limit int) ([]Machine, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	return s.store.Machines(ctx, before, limit)
}

// Find lists the machines that q chooses, newest first, for an admin.
func (s *Service) Find(ctx context.Context, by account.Actor, q MachineQuery) ([]Machine, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	q.Search, q.Limit, q.At = strings.TrimSpace(q.Search), min(q.Limit, FindMax), s.now()
	return s.store.FindMachines(ctx, q)
}

// ChangeMachine changes a machine and returns it as it is then.
func (s *Service) ChangeMachine(ctx context.Context, by account.Actor, no string, c MachineChange) (Machine, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Machine{}, err
	}
	trim(c.Name)
	if c.PurchaseLimit != nil && (*c.PurchaseLimit < 1 || *c.PurchaseLimit > PurchaseLimitMax) {
		return Machine{}, refusal.New(refusal.MachinePurchaseLimit)
	}
	return s.store.ChangeMachine(ctx, no, Edit[Machine]{By: by, At: s.now(), Apply: func(old Machine) (Machine, string, error) {
		m, detail := c.Apply(old)
		return m, detail, m.check()
	}})
}

// RenewPassword replaces a machine's MQTT password by one that NewPassword has
// made, and ends its connection.
func (s *Service) RenewPassword(
	ctx context.Context, by account.Actor, no, password string, once *account.Once,
) error {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return err
	}
	err := s.store.SetPassword(ctx, no, account.HashToken(password), by, s.now(), once)
	if err == nil {
		s.changed()
	}
	return err
}

// DeleteMachine removes a machine, withdraws its live pickup codes and ends its
// connection.
func (s *Service) DeleteMachine(ctx context.Context, by account.Actor, no string) error {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return err
	}
	err := s.store.DeleteMachine(ctx, no, by, s.now())
	if err == nil {
		s.changed()
	}
	return err
}

// CreateProduct makes a product of a machine. An ID of 0 asks for the next free
// one.
func (s *Service) CreateProduct(
	ctx context.Context, by account.Actor, no string, p Product, once *account.Once,
) (Product, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Product{}, err
	}
	p.Name, p.Slot, p.Created = strings.TrimSpace(p.Name), strings.TrimSpace(p.Slot), s.now()
	if err := p.check(); err != nil {
		return Product{}, err
	}
	return s.store.CreateProduct(ctx, NewProduct{Product: p, MachineNo: no, By: by, Once: once})
}

// Products lists a machine's products, newest first, behind the id before.
func (s *Service) Products(
	ctx context.Context, by account.Actor, no string, before int64, limit int,
) ([]Product, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	return s.store.Products(ctx, no, before, limit)
}

// ChangeProduct changes a product and returns it as it is then.
func (s *Service) ChangeProduct(
	ctx context.Context, by account.Actor, no string, id int64, c ProductChange,
) (Product, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Product{}, err
	}
	trim(c.Name)
	trim(c.Slot)
	return s.store.ChangeProduct(ctx, no, id, Edit[Product]{By: by, At: s.now(), Apply: func(old Product) (Product, string, error) {
		p, detail := c.Apply(old)
		return p, detail, p.check()
	}})
}

// DeleteProduct removes a product and withdraws its live pickup codes.
func (s *Service) DeleteProduct(ctx context.Context, by account.Actor, no string, id int64) error {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return err
	}
	err := s.store.DeleteProduct(ctx, no, id, by, s.now())
	if err == nil {
		s.changed()
	}
	return err
}

func trim(text *string) {
	if text != nil {
		*text = strings.TrimSpace(*text)
	}
}

// Login checks the MQTT password of a machine that asks from address. It
// refuses with refusal.MachineWrongPassword, and with AccountTooManyGuesses
// after too many failures of that machine from there. It is for the broker.
func (s *Service) Login(ctx context.Context, no, password, address string) (Machine, error) {
	if !ValidNo(no) {
		return Machine{}, refusal.New(refusal.MachineWrongPassword)
	}
	// Together, not each by itself: one machine with a wrong password must not
	// lock out all behind its address, nor somebody far away a machine.
	subject := guess.Machine(no, address)
	if err := s.logins.Admit(ctx, subject); err != nil {
		return Machine{}, err
	}
	m, hash, err := s.store.Login(ctx, no)
	given := account.HashToken(password)
	switch {
	case err != nil && refusal.CodeOf(err) != refusal.MachineNotFound:
		return Machine{}, err
	case err != nil:
		// Of no use to others, and there is no end to the numbers that are nobody's.
		s.logins.Note(subject)
		return Machine{}, refusal.New(refusal.MachineWrongPassword)
	case subtle.ConstantTimeCompare(given[:], hash[:]) != 1:
		if err := s.logins.Failed(ctx, subject); err != nil {
			return Machine{}, err
		}
		return Machine{}, refusal.New(refusal.MachineWrongPassword)
	}
	return m, nil
}

// Speaker finds the machine that a message names, and its merchant. It is for
// who is told by a broker that is not ours.
func (s *Service) Speaker(ctx context.Context, no string) (machine int64, m Merchant, err error) {
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		var stored StoredMerchant
		var err error
		if machine, stored, err = s.store.Speaker(ctx, no); err != nil {
			return err
		}
		m, err = Open(ring, stored)
		return err
	})
	return machine, m, err
}

// OwnerOf finds the merchant of a machine. It is for the broker.
func (s *Service) OwnerOf(ctx context.Context, machine int64) (m Merchant, err error) {
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		stored, err := s.store.OwnerOf(ctx, machine)
		if err != nil {
			return err
		}
		m, err = Open(ring, stored)
		return err
	})
	return m, err
}
