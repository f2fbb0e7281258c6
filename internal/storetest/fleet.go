package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func fleetTests() map[string]func(*world) {
	return map[string]func(*world){
		"Merchants":     testFleetMerchants,
		"Machines":      testFleetMachines,
		"Find":          testFleetFind,
		"Names":         testNames,
		"Passwords":     testFleetPasswords,
		"Presence":      testFleetPresence,
		"ProductIDs":    testFleetProductIDs,
		"Products":      testFleetProducts,
		"NotFound":      testFleetNotFound,
		"DeleteMachine": testFleetDeleteMachine,
		"DeleteProduct": testFleetDeleteProduct,
		"NumberRace":    testFleetNumberRace,
		"Rotation":      testFleetRotation,
	}
}

// wantEntry checks what the last entry of the ledger says.
func (w *world) wantEntry(kind account.Kind, machine int64, detail string) {
	w.Helper()
	e := w.lastEntry()
	if e.Kind != kind || e.MachineID != machine || e.Detail != detail || e.ActorID != w.root.ID ||
		e.Address != w.root.Address || !e.At.Equal(w.clock.Now()) || e.FirstID != 0 || e.AccountID != 0 {
		w.Errorf("the entry is %+v, want %s of machine %d with %s", e, kind, machine, detail)
	}
}

func testFleetMerchants(w *world) {
	made, err := w.fleet.CreateMerchant(w.ctx, w.root, fleet.Merchant{Name: " Ämter & <Co> "}, nil)
	w.check(err)
	if len(made.AppKey) != 32 || made.Name != "Ämter & <Co>" || made.Style != (fleet.Style{
		Payload: fleet.PayloadJSON, Signature: fleet.SignatureRaw, Expiry: fleet.ExpiryMilliseconds,
	}) {
		w.Errorf("the merchant is %+v", made)
	}
	w.wantEntry(account.KindMerchantCreate, 0, fmt.Sprintf(
		`{"expiry_unit":"ms","merchant_id":%d,"name":"Ämter \u0026 \u003cCo\u003e","payload":"json","signature":"raw"}`, made.ID))
	same := func(want fleet.Merchant) {
		w.Helper()
		got, err := w.fleet.Merchant(w.ctx, w.root, want.ID)
		w.check(err)
		if got.Created = want.Created; got != want {
			w.Errorf("the merchant is %+v, want %+v", got, want)
		}
	}
	same(made)

	w.clock.Add(time.Second)
	want := made
	want.Name, want.AppKey, want.Payload, want.Expiry = "new", "another key", fleet.PayloadBase64, fleet.ExpirySeconds
	changed, err := w.fleet.ChangeMerchant(w.ctx, w.root, made.ID, fleet.MerchantChange{
		Name: new("new"), AppKey: new("another key"), Payload: new(fleet.PayloadBase64), ExpiryUnit: new(fleet.ExpirySeconds),
	})
	w.check(err)
	w.wantEntry(account.KindMerchantChange, 0, fmt.Sprintf(
		`{"app_key":"changed","expiry_unit":["ms","s"],"merchant_id":%d,"name":["Ämter \u0026 \u003cCo\u003e","new"],"payload":["json","base64"]}`, made.ID))
	if changed.AppKey != "another key" {
		w.Errorf("the changed merchant is %+v", changed)
	}
	same(want)
	before := w.entries()
	_, err = w.fleet.ChangeMerchant(w.ctx, w.root, made.ID, fleet.MerchantChange{Name: new("new")})
	w.check(err)
	_, err = w.fleet.ChangeMerchant(w.ctx, w.root, made.ID, fleet.MerchantChange{Name: new("x"), AppKey: new("\n")})
	w.refused(err, refusal.MerchantAppKey)
	if n := w.entries(); n != before {
		w.Errorf("%d entries of changes that change nothing", n-before)
	}
	same(want)

	ids := []int64{made.ID}
	for i := range 4 {
		ids = append(ids, w.merchant(fmt.Sprint("m", i)).ID)
	}
	slices.Reverse(ids)
	w.pages(ids, func(before int64, limit int) (page []int64, err error) {
		list, err := w.fleet.Merchants(w.ctx, w.root, before, limit)
		for _, m := range list {
			page = append(page, m.ID)
		}
		return page, err
	})
	w.audit()
}

// pages reads a list in pages of different sizes and compares it with want.
func (w *world) pages(want []int64, read func(before int64, limit int) ([]int64, error)) {
	w.Helper()
	for _, limit := range []int{1, 2, 100} {
		var got []int64
		for before := int64(0); ; before = got[len(got)-1] {
			page, err := read(before, limit)
			w.check(err)
			if got = append(got, page...); len(page) < limit {
				break
			}
		}
		if !slices.Equal(got, want) {
			w.Errorf("in pages of %d it lists %v, want %v", limit, got, want)
		}
	}
}

func testFleetMachines(w *world) {
	owner := w.merchant("owner")
	ask := fleet.Machine{
		MerchantID: owner.ID, No: "00012345", Name: "Lobby", Zone: "Asia/Kathmandu", PurchaseLimit: 2, PickupCodes: true,
	}
	made, err := w.fleet.CreateMachine(w.ctx, w.root, ask, "pw", nil)
	w.check(err)
	w.wantEntry(account.KindMachineCreate, made.ID, fmt.Sprintf(
		`{"machine_no":"00012345","merchant_id":%d,"name":"Lobby","pickup_codes_enabled":true,"purchase_limit":2,"timezone":"Asia/Kathmandu"}`, owner.ID))
	same := func(want fleet.Machine) {
		w.Helper()
		got, err := w.fleet.Machine(w.ctx, w.root, want.No)
		w.check(err)
		if !got.Created.Equal(want.Created) {
			w.Errorf("it was made at %v, want %v", got.Created, want.Created)
		}
		if got.Created = want.Created; got != want {
			w.Errorf("the machine is %+v, want %+v", got, want)
		}
	}
	ask.ID, ask.Created = made.ID, w.clock.Now()
	same(ask)

	_, err = w.fleet.CreateMachine(w.ctx, w.root, ask, "pw", nil)
	w.refused(err, refusal.MachineNoTaken)
	orphan := ask
	orphan.MerchantID, orphan.No = 999, "00000009"
	_, err = w.fleet.CreateMachine(w.ctx, w.root, orphan, "pw", nil)
	w.refused(err, refusal.MerchantNotFound)

	w.clock.Add(time.Second)
	_, err = w.fleet.ChangeMachine(w.ctx, w.root, ask.No, fleet.MachineChange{
		Name: new("Roof"), Zone: new("UTC"), PurchaseLimit: new(int64(1)), PickupCodes: new(false),
	})
	w.check(err)
	w.wantEntry(account.KindMachineChange, made.ID, `{"machine_no":"00012345","name":["Lobby","Roof"],`+
		`"pickup_codes_enabled":[true,false],"purchase_limit":[2,1],"timezone":["Asia/Kathmandu","UTC"]}`)
	ask.Name, ask.Zone, ask.PurchaseLimit, ask.PickupCodes = "Roof", "UTC", 1, false
	same(ask)
	unchanged := w.unchanged()
	_, err = w.fleet.ChangeMachine(w.ctx, w.root, ask.No, fleet.MachineChange{Name: new("Roof")})
	w.check(err)
	_, err = w.fleet.ChangeMachine(w.ctx, w.root, ask.No, fleet.MachineChange{Name: new("x"), Zone: new("nowhere")})
	w.refused(err, refusal.MachineZone)
	unchanged()
	same(ask)

	// A number is free again; an id is not.
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, ask.No))
	_, err = w.fleet.Machine(w.ctx, w.root, ask.No)
	w.refused(err, refusal.MachineNotFound)
	again := w.machine(ask.No)
	if again.ID <= made.ID {
		w.Errorf("the new machine has the id %d, the old one had %d", again.ID, made.ID)
	}
	ids := []int64{again.ID}
	for i := range 4 {
		m := w.machine(fmt.Sprintf("0000001%d", i))
		if ids = append(ids, m.ID); i == 2 {
			w.check(w.fleet.DeleteMachine(w.ctx, w.root, m.No))
			ids = ids[:len(ids)-1]
		}
	}
	slices.Reverse(ids)
	w.pages(ids, func(before int64, limit int) (page []int64, err error) {
		list, err := w.fleet.Machines(w.ctx, w.root, before, limit)
		for _, m := range list {
			page = append(page, m.ID)
		}
		return page, err
	})
	w.audit()
}

func testFleetPasswords(w *world) {
	m := w.machine("00000001")
	login := func(no, password string) error {
		got, err := w.fleet.Login(w.ctx, no, password, machineAddress)
		if err == nil && got.ID != m.ID {
			w.Errorf("it is logged in as %+v", got)
		}
		return err
	}
	w.check(login(m.No, "password of 00000001"))
	w.refused(login(m.No, "password of 00000002"), refusal.MachineWrongPassword)
	w.refused(login("00000002", "password of 00000001"), refusal.MachineWrongPassword)

	w.check(w.fleet.RenewPassword(w.ctx, w.root, m.No, "new", nil))
	w.wantEntry(account.KindMachinePassword, m.ID, `{"machine_no":"00000001"}`)
	w.check(login(m.No, "new"))
	w.refused(login(m.No, "password of 00000001"), refusal.MachineWrongPassword)
	w.wantOutbox(delivery.Item{MachineID: m.ID, Kind: delivery.KindDisconnect})

	w.check(w.fleet.DeleteMachine(w.ctx, w.root, m.No))
	w.refused(login(m.No, "new"), refusal.MachineWrongPassword)
	m = w.machine(m.No)
	w.check(login(m.No, "password of 00000001"))
	w.audit()
}

func testFleetPresence(w *world) {
	machines := []fleet.Machine{w.machine("00000001"), w.machine("00000002"), w.machine("00000003")}
	start := w.clock.Now()
	see := func(sightings ...fleet.Sighting) {
		w.Helper()
		w.check(w.engine.See(w.ctx, sightings))
	}
	want := func(i int, presence fleet.Presence, seen time.Time) {
		w.Helper()
		m, err := w.fleet.Machine(w.ctx, w.root, machines[i].No)
		w.check(err)
		if m.Presence != presence || !m.LastSeen.Equal(seen) {
			w.Errorf("machine %d: presence %d, seen %v, want %d, %v", i, m.Presence, m.LastSeen, presence, seen)
		}
	}
	before := w.entries()
	want(0, fleet.Offline, time.Time{})
	see(fleet.Sighting{MachineID: machines[0].ID, Presence: fleet.Connected, At: start},
		fleet.Sighting{MachineID: 999, Presence: fleet.Connected, At: start},
		fleet.Sighting{MachineID: machines[1].ID, Presence: fleet.Heard, At: start.Add(time.Second)})
	want(0, fleet.Connected, start)
	want(1, fleet.Missed, start.Add(time.Second))
	see(fleet.Sighting{MachineID: machines[1].ID, Presence: fleet.Heard, At: start.Add(time.Second)})
	want(1, fleet.Heard, start.Add(time.Second))
	want(2, fleet.Offline, time.Time{})
	see(fleet.Sighting{MachineID: machines[0].ID, Presence: fleet.Offline})
	want(0, fleet.Offline, start)
	see(fleet.Sighting{MachineID: machines[0].ID, Presence: fleet.Connected, At: start.Add(time.Minute)})
	// A change does not touch it, and a start ends what was connected.
	_, err := w.fleet.ChangeMachine(w.ctx, w.root, machines[0].No, fleet.MachineChange{Name: new("x")})
	w.check(err)
	want(0, fleet.Connected, start.Add(time.Minute))
	w.check(w.engine.Begin(w.ctx))
	want(0, fleet.Offline, start.Add(time.Minute))
	want(1, fleet.Heard, start.Add(time.Second))
	if n := w.entries() - before; n != 1 {
		w.Errorf("%d entries, want that of the change", n)
	}
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, machines[1].No))
	see(fleet.Sighting{MachineID: machines[1].ID, Presence: fleet.Connected, At: start})
	w.audit()

	// Servers hear different words of a machine and write them when they can: what
	// was heard before it left does not bring it back.
	left := start.Add(time.Hour)
	of := func(p fleet.Presence, at time.Time, back bool) fleet.Sighting {
		return fleet.Sighting{MachineID: machines[2].ID, Presence: p, At: at, Back: back}
	}
	see(of(fleet.Heard, left.Add(-time.Minute), false))
	see(of(fleet.Offline, left, false))
	see(of(fleet.Heard, left.Add(-time.Millisecond), false))
	want(2, fleet.Offline, left)
	see(of(fleet.Heard, left.Add(-time.Millisecond), true)) // the broker says so
	want(2, fleet.Heard, left.Add(-time.Millisecond))
	see(of(fleet.Offline, left, false))
	see(of(fleet.Heard, left.Add(time.Second), false))
	want(2, fleet.Missed, left.Add(time.Second)) // it may have been heard late
	see(of(fleet.Heard, left.Add(2*time.Second), false))
	want(2, fleet.Heard, left.Add(2*time.Second))
}

func testFleetProductIDs(w *world) {
	m, other := w.machine("00000001"), w.machine("00000002")
	create := func(id int64) (int64, error) {
		p, err := w.fleet.CreateProduct(w.ctx, w.root, m.No, fleet.Product{ID: id, Name: "n", Slot: "1"}, nil)
		return p.ID, err
	}
	want := func(id, want int64) {
		w.Helper()
		got, err := create(id)
		w.check(err)
		if got != want {
			w.Errorf("asked for product %d, got %d, want %d", id, got, want)
		}
	}
	remove := func(id int64) { w.check(w.fleet.DeleteProduct(w.ctx, w.root, m.No, id)) }
	want(0, 1)
	want(0, 2)
	want(20001, 20001)
	want(0, 20002)
	_, err := create(2)
	w.refused(err, refusal.ProductIDTaken)
	remove(20002)
	want(0, 20003) // what was made up does not come back
	want(20002, 20002)
	_, err = create(20002)
	w.refused(err, refusal.ProductIDTaken)
	remove(20003)
	remove(20002)
	want(0, 20004)
	want(fleet.ProductIDMax, fleet.ProductIDMax)
	_, err = create(0)
	w.refused(err, refusal.ProductID)
	remove(fleet.ProductIDMax)
	_, err = create(0)
	w.refused(err, refusal.ProductID)
	if p := w.product(other, 0); p.ID != 1 {
		w.Errorf("another machine's first product has the id %d", p.ID)
	}
	w.audit()
}

func testFleetProducts(w *world) {
	m := w.stocked("00000001", 5, 9)
	w.stocked("00000002", 5, 6)
	p, err := w.fleet.CreateProduct(w.ctx, w.root, m.No, fleet.Product{ID: 7, Name: " 可乐 ", Slot: " C3 "}, nil)
	w.check(err)
	if p.Name != "可乐" || p.Slot != "C3" || p.MachineID != m.ID || !p.Created.Equal(w.clock.Now()) {
		w.Errorf("the product is %+v", p)
	}
	w.wantEntry(account.KindProductCreate, m.ID, `{"name":"可乐","product_id":7,"slot":"C3"}`)
	changed, err := w.fleet.ChangeProduct(w.ctx, w.root, m.No, 7, fleet.ProductChange{Name: new("Cola"), Slot: new("C4")})
	w.check(err)
	w.wantEntry(account.KindProductChange, m.ID, `{"name":["可乐","Cola"],"product_id":7,"slot":["C3","C4"]}`)
	before := w.entries()
	_, err = w.fleet.ChangeProduct(w.ctx, w.root, m.No, 7, fleet.ProductChange{Slot: new("C4")})
	w.check(err)
	_, err = w.fleet.ChangeProduct(w.ctx, w.root, m.No, 7, fleet.ProductChange{Name: new("x"), Slot: new("")})
	w.refused(err, refusal.ProductSlot)
	if w.entries() != before {
		w.Error("a change that changes nothing is in the ledger")
	}
	list, err := w.fleet.Products(w.ctx, w.root, m.No, 0, 10)
	w.check(err)
	if len(list) != 3 || list[1].Name != "Cola" || list[1].Slot != "C4" || list[1] != changed {
		w.Errorf("it lists %+v, and changed %+v", list, changed)
	}
	w.check(w.fleet.DeleteProduct(w.ctx, w.root, m.No, 5))
	w.wantEntry(account.KindProductDelete, m.ID, `{"name":"product 5","product_id":5,"slot":"A1"}`)
	w.product(m, 30)
	w.pages([]int64{30, 9, 7}, func(before int64, limit int) (page []int64, err error) {
		list, err := w.fleet.Products(w.ctx, w.root, m.No, before, limit)
		for _, p := range list {
			page = append(page, p.ID)
		}
		return page, err
	})
	w.audit()
}

// What is not there, or no longer, is refused by everything that asks for it.
func testFleetNotFound(w *world) {
	m := w.stocked("00000001", 1, 2)
	w.check(w.fleet.DeleteProduct(w.ctx, w.root, m.No, 2))
	gone := w.stocked("00000002", 1)
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, gone.No))
	unchanged := w.unchanged()
	for _, no := range []string{gone.No, "00000003", "x", ""} {
		for name, do := range map[string]func() error{
			"machine": func() error { _, err := w.engine.Machine(w.ctx, no); return err },
			"change": func() error {
				_, err := w.engine.ChangeMachine(w.ctx, no, fleet.Edit[fleet.Machine]{By: w.root, At: w.clock.Now()})
				return err
			},
			"password": func() error {
				return w.engine.SetPassword(w.ctx, no, account.HashToken("x"), w.root, w.clock.Now(), nil)
			},
			"delete": func() error { return w.engine.DeleteMachine(w.ctx, no, w.root, w.clock.Now()) },
			"login":  func() error { _, _, err := w.engine.Login(w.ctx, no); return err },
			"product": func() error {
				_, err := w.engine.CreateProduct(w.ctx, fleet.NewProduct{MachineNo: no, By: w.root})
				return err
			},
			"products": func() error { _, err := w.engine.Products(w.ctx, no, 0, 10); return err },
			"change product": func() error {
				_, err := w.engine.ChangeProduct(w.ctx, no, 1, fleet.Edit[fleet.Product]{By: w.root, At: w.clock.Now()})
				return err
			},
			"delete product": func() error { return w.engine.DeleteProduct(w.ctx, no, 1, w.root, w.clock.Now()) },
			"pickup codes": func() error {
				_, err := w.engine.Pickups(w.ctx, pickup.Query{MachineNo: no, Limit: 10})
				return err
			},
		} {
			if err := do(); refusal.CodeOf(err) != refusal.MachineNotFound {
				w.Errorf("%s of machine %q: %v", name, no, err)
			}
		}
	}
	for _, id := range []int64{gone.ID, 999} {
		_, err := w.fleet.OwnerOf(w.ctx, id)
		w.refused(err, refusal.MachineNotFound)
	}
	for _, id := range []int64{2, 3, -1} {
		_, err := w.fleet.ChangeProduct(w.ctx, w.root, m.No, id, fleet.ProductChange{Name: new("x")})
		w.refused(err, refusal.ProductNotFound)
		w.refused(w.fleet.DeleteProduct(w.ctx, w.root, m.No, id), refusal.ProductNotFound)
	}
	_, err := w.fleet.Merchant(w.ctx, w.root, 999)
	w.refused(err, refusal.MerchantNotFound)
	_, err = w.fleet.ChangeMerchant(w.ctx, w.root, 999, fleet.MerchantChange{Name: new("x")})
	w.refused(err, refusal.MerchantNotFound)
	unchanged()
}

// With a machine go its live codes, and all that it was still to be told.
func testFleetDeleteMachine(w *world) {
	m, other := w.stocked("00000001", 1, 2), w.stocked("00000002", 1)
	held, received, withdrawn, used := w.pickup(m, 1), w.pickup(m, 2), w.pickup(m, 1), w.pickup(m, 1)
	expired, err := w.pickups.Create(w.ctx, w.root, pickup.Request{
		MachineNo: m.No, ProductID: 1, Quantity: 1, TTL: time.Second, AllowMore: true,
	})
	w.check(err)
	kept := w.pickup(other, 1)
	w.received(m)
	live := w.pickup(m, 1)
	w.withdraw(withdrawn.ID)
	w.used(used)
	w.clock.Add(time.Second)
	before := w.entries()
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, m.No))
	w.wantEntry(account.KindMachineDelete, m.ID, `{"machine_no":"00000001"}`)
	if n := w.entries() - before; n != 4 {
		w.Errorf("%d entries, want three withdrawals and the machine", n)
	}
	w.wantOutbox(delivery.Item{MachineID: other.ID, Kind: delivery.KindCreate, CodeID: kept.ID},
		delivery.Item{MachineID: m.ID, Kind: delivery.KindDisconnect})
	for _, c := range []pickup.Code{live, held, received, withdrawn} {
		got := w.getPickup(c.ID)
		if got.Marked != pickup.StateWithdrawn || got.Delivery != pickup.Queued || got.MachineNo != m.No {
			w.Errorf("the code is %+v", got)
		}
		_, err := w.engine.Message(w.ctx, c.ID)
		w.refused(err, refusal.PickupNotFound)
	}
	if got := w.getPickup(expired.ID); got.State(w.clock.Now()) != pickup.StateExpired {
		w.Errorf("the expired code is %+v", got)
	}
	if got := w.getPickup(used.ID); got.Marked != pickup.StateUsed || got.LateUse {
		w.Errorf("the used code is %+v", got)
	}
	if got := w.getPickup(kept.ID); got.Marked != pickup.StateLive {
		w.Errorf("another machine's code is %+v", got)
	}
	// The next machine of that number has none of them.
	again := w.stocked(m.No, 1)
	list, err := w.pickups.List(w.ctx, w.root, pickup.Query{MachineNo: m.No, Limit: 10})
	w.check(err)
	if len(list) != 0 {
		w.Errorf("the new machine has the codes %+v", list)
	}
	w.pickup(again, 1)
	w.audit()
}

func testFleetDeleteProduct(w *world) {
	m := w.stocked("00000001", 1, 2)
	w.stocked("00000002", 1)
	first, kept, second := w.pickup(m, 1), w.pickup(m, 2), w.pickup(m, 1)
	used := w.pickup(m, 1)
	w.used(used)
	w.received(m)
	before := w.entries()
	w.check(w.fleet.DeleteProduct(w.ctx, w.root, m.No, 1))
	if n := w.entries() - before; n != 3 {
		w.Errorf("%d entries, want two withdrawals and the product", n)
	}
	for _, c := range []pickup.Code{first, second} {
		if got := w.getPickup(c.ID); got.Marked != pickup.StateWithdrawn || got.Delivery != pickup.Queued {
			w.Errorf("the code is %+v", got)
		}
	}
	if got := w.getPickup(kept.ID); got.Marked != pickup.StateLive {
		w.Errorf("another product's code is %+v", got)
	}
	w.wantOutbox(delivery.Item{MachineID: m.ID, Kind: delivery.KindDelete, CodeID: first.ID},
		delivery.Item{MachineID: m.ID, Kind: delivery.KindDelete, CodeID: second.ID})
	_, err := w.pickups.Create(w.ctx, w.root, order(m, 1))
	w.refused(err, refusal.ProductNotFound)
	w.audit()

	// What a sweep put aside before the clock was set back goes too.
	late := w.pickup(m, 2)
	w.clock.Add(2 * time.Hour)
	w.sweepPickups()
	w.clock.Add(-2 * time.Hour)
	w.check(w.fleet.DeleteProduct(w.ctx, w.root, m.No, 2))
	for _, c := range []pickup.Code{kept, late} {
		if got := w.getPickup(c.ID); got.Marked != pickup.StateWithdrawn {
			w.Errorf("the code is %+v", got)
		}
	}
	w.sweepPickups()
	w.audit()
}

// Of many that ask for one number, one gets it.
func testFleetNumberRace(w *world) {
	owner := w.merchant("owner")
	won := w.race(16, func(int) error {
		_, err := w.fleet.CreateMachine(w.ctx, w.root, fleet.Machine{
			MerchantID: owner.ID, No: "00000001", Name: "n", Zone: "UTC", PurchaseLimit: 1,
		}, "pw", nil)
		return err
	}, refusal.MachineNoTaken)
	if won != 1 {
		w.Errorf("%d machines got the number", won)
	}
	won = w.race(16, func(int) error {
		_, err := w.fleet.CreateProduct(w.ctx, w.root, "00000001", fleet.Product{ID: 4, Name: "n", Slot: "1"}, nil)
		return err
	}, refusal.ProductIDTaken)
	if won != 1 {
		w.Errorf("%d products got the id", won)
	}
	w.audit()
}

// App keys are sealed anew like everything else, and readable all the while.
func testFleetRotation(w *world) {
	var merchants []fleet.Merchant
	for i := range 300 {
		merchants = append(merchants, w.merchant(fmt.Sprint("m", i)))
	}
	m := w.machine("00000001")
	readable := func() {
		w.Helper()
		for _, i := range []int{0, 150, 299} {
			got, err := w.fleet.Merchant(w.ctx, w.root, merchants[i].ID)
			w.check(err)
			if got.AppKey != merchants[i].AppKey {
				w.Errorf("merchant %d has the app key %q", i, got.AppKey)
			}
		}
		owner, err := w.fleet.OwnerOf(w.ctx, m.ID)
		w.check(err)
		if !strings.HasSuffix(owner.AppKey, "of 00000001") {
			w.Errorf("the owner's app key is %q", owner.AppKey)
		}
	}
	ring, err := w.engine.Keys().Reload(w.ctx)
	w.check(err)
	if err := w.rotateStep(); !errors.Is(err, context.Canceled) {
		w.Fatalf("the interrupted rotation: %v", err)
	}
	readable()
	_, err = w.fleet.ChangeMerchant(w.ctx, w.root, merchants[0].ID, fleet.MerchantChange{Name: new("during")})
	w.check(err)
	merchants = append(merchants, w.merchant("between"))
	readable()
	// What is sealed under keys that are on their way out is not stored.
	_, err = w.engine.CreateMerchant(w.ctx, fleet.NewMerchant{
		Merchant: fleet.Merchant{Name: "stale"}, Epoch: ring.Epoch(), By: w.root, Seal: func(int64) []byte { return nil },
	})
	w.stale(err)
	_, err = w.engine.ChangeMerchant(w.ctx, merchants[0].ID, fleet.Edit[fleet.StoredMerchant]{Epoch: ring.Epoch(), By: w.root})
	w.stale(err)
	w.check(w.engine.Rotate(w.ctx, nil))
	readable()
	list, err := w.engine.Merchants(w.ctx, 0, 1000)
	w.check(err)
	for _, m := range list {
		if n := keyring.SealedUnder(m.Sealed); n != ring.Newest()+1 {
			w.Errorf("merchant %d is sealed under generation %d", m.ID, n)
		}
	}
	w.audit()
}
