package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
)

// machineAddress is where machines report from.
const machineAddress = "203.0.113.9"

func (w *world) merchant(name string) fleet.Merchant {
	w.Helper()
	m, err := w.fleet.CreateMerchant(w.ctx, w.root, fleet.Merchant{Name: name, AppKey: "the app key of " + name}, nil)
	w.check(err)
	return m
}

// machine makes a machine that takes pickup codes, and a merchant for it.
func (w *world) machine(no string) fleet.Machine {
	w.Helper()
	m, err := w.fleet.CreateMachine(w.ctx, w.root, fleet.Machine{
		MerchantID: w.merchant("of " + no).ID, No: no, Name: "machine " + no, Zone: "Asia/Shanghai", PurchaseLimit: 3,
		PickupCodes: true,
	}, "password of "+no, nil)
	w.check(err)
	return m
}

func (w *world) product(m fleet.Machine, id int64) fleet.Product {
	w.Helper()
	p, err := w.fleet.CreateProduct(w.ctx, w.root, m.No, fleet.Product{
		ID: id, Name: fmt.Sprint("product ", id), Slot: "A1",
	}, nil)
	w.check(err)
	return p
}

// stocked is a machine with products of those ids.
func (w *world) stocked(no string, products ...int64) fleet.Machine {
	w.Helper()
	m := w.machine(no)
	for _, id := range products {
		w.product(m, id)
	}
	return m
}

// order asks for one piece, for an hour, whatever else is live.
func order(m fleet.Machine, product int64) pickup.Request {
	return pickup.Request{MachineNo: m.No, ProductID: product, Quantity: 1, TTL: time.Hour, AllowMore: true}
}

func (w *world) pickup(m fleet.Machine, product int64) pickup.Code {
	w.Helper()
	c, err := w.pickups.Create(w.ctx, w.root, order(m, product))
	w.check(err)
	return c
}

func (w *world) getPickup(id int64) pickup.Code {
	w.Helper()
	c, err := w.pickups.Get(w.ctx, w.root, id)
	w.check(err)
	return c
}

func (w *world) withdraw(id int64) {
	w.Helper()
	w.check(w.pickups.Withdraw(w.ctx, w.root, id))
}

// used has the code's own machine report it.
func (w *world) used(c pickup.Code) pickup.Code {
	w.Helper()
	got, err := w.pickups.Used(w.ctx, c.MachineID, c.ID, machineAddress, time.Time{})
	w.check(err)
	return got
}

func (w *world) sweepPickups() {
	w.Helper()
	w.check(w.pickups.Sweep(w.ctx))
}

// samePickup compares codes with their times as instants.
func samePickup(a, b pickup.Code) bool {
	if !a.Created.Equal(b.Created) || !a.Expires.Equal(b.Expires) || !a.Used.Equal(b.Used) ||
		!a.Withdrawn.Equal(b.Withdrawn) {
		return false
	}
	a.Created, a.Expires, a.Used, a.Withdrawn = b.Created, b.Expires, b.Used, b.Withdrawn
	return a == b
}

func (w *world) wantPickup(got, want pickup.Code) {
	w.Helper()
	if !samePickup(got, want) {
		w.Errorf("the code is %+v, want %+v", got, want)
	}
}

// newDigits are a code's digits as the use cases hand them to a store.
func newDigits(ring *keyring.Ring, no, digits string) pickup.NewDigits {
	indexes := ring.Indexes("pickup code " + no + digits)
	return pickup.NewDigits{
		Digits: digits, Indexes: indexes,
		Sealed: ring.Seal(append([]byte("pickup code "), indexes[0]...), []byte(no+digits)),
	}
}

// createOf orders a code of those digits, for an hour.
func (w *world) createOf(m fleet.Machine, product int64, digits ...string) (c pickup.Code, err error) {
	w.Helper()
	err = w.engine.Keys().Use(w.ctx, func(ring *keyring.Ring) error {
		o := pickup.Order{
			Epoch: ring.Epoch(), MachineNo: m.No, ProductID: product, Quantity: 1, AllowMore: true,
			At: w.clock.Now(), Expires: w.clock.Now().Add(time.Hour), By: w.root,
		}
		for _, text := range digits {
			o.Digits = append(o.Digits, newDigits(ring, m.No, text))
		}
		made, err := w.engine.CreatePickup(w.ctx, o)
		c = made.Code
		return err
	})
	return c, err
}

// auditPickups checks that the pickup codes are what the ledger says of them,
// each entry being possible after those before it.
func (w *world) auditPickups() {
	w.Helper()
	told := map[int64]*pickup.Code{}
	for _, e := range w.ledger() {
		if e.MachineID > 0 && e.FirstID > 0 {
			if err := followPickup(told, e); err != nil {
				w.Errorf("entry %d %+v: %v", e.Seq, e, err)
			}
		}
	}
	for id, want := range told {
		got := w.getPickup(id)
		if len(got.Digits) != 8 {
			w.Errorf("pickup code %d has the digits %q", id, got.Digits)
		}
		got.Digits, got.MachineNo, got.Delivery = "", "", "" // of which the ledger says nothing
		w.wantPickup(got, *want)
	}
	var newest int64
	for id := range told {
		newest = max(newest, id)
	}
	if c, err := w.engine.Pickup(w.ctx, newest+1); err == nil {
		w.Errorf("the ledger says nothing of %+v", c)
	}
}

// followPickup does to codes what e says, and fails if that was not possible.
func followPickup(codes map[int64]*pickup.Code, e account.Entry) error {
	c := codes[e.FirstID]
	if e.FirstID != e.LastID || e.Count != 1 || e.Kind != account.KindPickupCreate && (c == nil || c.MachineID != e.MachineID) {
		return errors.New("it is not about one code that was there")
	}
	var d struct {
		Product  int64 `json:"product_id"`
		Quantity int   `json:"quantity"`
		Expires  int64 `json:"expires_at"`
	}
	if e.Detail != "" {
		if err := json.Unmarshal([]byte(e.Detail), &d); err != nil {
			return err
		}
	}
	ok := false
	switch e.Kind { //nolint:exhaustive // the others name no pickup code
	case account.KindPickupCreate:
		ok = c == nil
		codes[e.FirstID] = &pickup.Code{
			ID: e.FirstID, MachineID: e.MachineID, ProductID: d.Product, Quantity: d.Quantity, Marked: pickup.StateLive,
			CreatorID: e.ActorID, Created: e.At, Expires: time.UnixMilli(d.Expires),
		}
	case account.KindPickupWithdraw:
		ok = c.State(e.At) == pickup.StateLive
		c.Marked, c.Withdrawn = pickup.StateWithdrawn, e.At
	case account.KindPickupUse, account.KindPickupLateUse:
		late := e.Kind == account.KindPickupLateUse
		ok = c.Marked != pickup.StateUsed && late == (c.State(e.At) != pickup.StateLive) && e.ActorID == -1 &&
			d.Product == c.ProductID && d.Quantity == c.Quantity
		c.Marked, c.Used, c.LateUse = pickup.StateUsed, e.At, late
	case account.KindPickupAcknowledge:
		ok = c.LateUse && !c.Acknowledged && e.ActorID > 0 && e.Detail == ""
		c.Acknowledged = true
	}
	if !ok {
		return fmt.Errorf("the code was %+v", c)
	}
	return nil
}
