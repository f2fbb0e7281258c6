package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func pickupTests() map[string]func(*world) {
	return map[string]func(*world){
		"Create":       testPickupCreate,
		"Refusals":     testPickupRefusals,
		"LiveMax":      testPickupLiveMax,
		"Digits":       testPickupDigits,
		"Withdraw":     testPickupWithdraw,
		"Use":          testPickupUse,
		"Foreign":      testPickupForeign,
		"List":         testPickupList,
		"ListLive":     testPickupListLive,
		"Waiting":      testPickupWaiting,
		"Silent":       testPickupSilent,
		"LateUses":     testPickupLateUses,
		"LateUsesRace": testPickupLateUsesRace,
		"Message":      testPickupMessage,
		"Successor":    testPickupSuccessor,
		"Race":         testPickupRace,
		"Rotation":     testPickupRotation,
		"ClockSetBack": testPickupClockSetBack,
		"AfterClose":   testPickupAfterClose,
		"Ledger":       testPickupLedger,
	}
}

// race calls do in so many goroutines at once and counts those that succeed. The
// others must be refused with one of the codes.
func (w *world) race(n int, do func(i int) error, codes ...refusal.Code) int {
	w.Helper()
	var won atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			err := do(i)
			if w.allow(err, codes...); err == nil {
				won.Add(1)
			}
		})
	}
	close(start)
	wg.Wait()
	return int(won.Load())
}

func testPickupCreate(w *world) {
	m := w.stocked("00000042", 1, 20001)
	admin := w.person("admin", account.RoleAdmin, 0)
	c, err := w.pickups.Create(w.ctx, admin, pickup.Request{MachineNo: m.No, ProductID: 20001, Quantity: 3})
	w.check(err)
	want := pickup.Code{
		ID: c.ID, MachineID: m.ID, MachineNo: m.No, ProductID: 20001, Digits: c.Digits, Quantity: 3,
		Marked: pickup.StateLive, Delivery: pickup.Queued, CreatorID: admin.ID, Created: w.clock.Now(),
		Expires: w.clock.Now().Add(2 * time.Hour),
	}
	w.wantPickup(c, want)
	w.wantPickup(w.getPickup(c.ID), want)
	if len(c.Digits) != 8 {
		w.Errorf("the digits are %q", c.Digits)
	}
	e := w.lastEntry()
	if detail := fmt.Sprintf(`{"expires_at":%d,"product":%q,"product_id":20001,"quantity":3}`, want.Expires.UnixMilli(), "product 20001"); e.Detail != detail ||
		e.Kind != account.KindPickupCreate || e.MachineID != m.ID || e.FirstID != c.ID || e.LastID != c.ID || e.Count != 1 ||
		e.ActorID != admin.ID || e.Address != admin.Address || !e.At.Equal(w.clock.Now()) || e.Amount != 0 {
		w.Errorf("the entry is %+v", e)
	}
	w.wantOutbox(delivery.Item{MachineID: m.ID, Kind: delivery.KindCreate, CodeID: c.ID})
	w.audit()
}

func testPickupRefusals(w *world) {
	m := w.stocked("00000001", 1, 2, 3)
	w.check(w.fleet.DeleteProduct(w.ctx, w.root, m.No, 3))
	off := w.stocked("00000002", 1)
	_, err := w.fleet.ChangeMachine(w.ctx, w.root, off.No, fleet.MachineChange{PickupCodes: new(false)})
	w.check(err)
	single := w.stocked("00000003", 1)
	_, err = w.fleet.ChangeMachine(w.ctx, w.root, single.No, fleet.MachineChange{PurchaseLimit: new(int64(1))})
	w.check(err)
	gone := w.stocked("00000004", 1)
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, gone.No))
	live := w.pickup(m, 1)
	unchanged, outbox := w.unchanged(), w.outbox()
	for _, c := range []struct {
		r    pickup.Request
		want refusal.Code
	}{
		{pickup.Request{MachineNo: "00000009", ProductID: 1, Quantity: 1}, refusal.MachineNotFound},
		{pickup.Request{MachineNo: gone.No, ProductID: 1, Quantity: 1}, refusal.MachineNotFound},
		{pickup.Request{MachineNo: m.No, ProductID: 9, Quantity: 1}, refusal.ProductNotFound},
		{pickup.Request{MachineNo: m.No, ProductID: 3, Quantity: 1}, refusal.ProductNotFound},
		{pickup.Request{MachineNo: off.No, ProductID: 1, Quantity: 1}, refusal.PickupMachineOff},
		{pickup.Request{MachineNo: single.No, ProductID: 1, Quantity: 2}, refusal.PickupOverLimit},
		{pickup.Request{MachineNo: m.No, ProductID: 1, Quantity: 1}, refusal.PickupProductHasLive},
		{pickup.Request{MachineNo: m.No, ProductID: 2, Quantity: 0}, refusal.PickupQuantity},
		{pickup.Request{MachineNo: m.No, ProductID: 2, Quantity: 4, AllowMore: true}, refusal.PickupQuantity},
		{pickup.Request{MachineNo: m.No, ProductID: 2, Quantity: 1, TTL: time.Millisecond}, refusal.PickupTTL},
		{pickup.Request{MachineNo: m.No, ProductID: 2, Quantity: 1, TTL: pickup.TTLMax + time.Second}, refusal.PickupTTL},
	} {
		_, err := w.pickups.Create(w.ctx, w.root, c.r)
		if refusal.CodeOf(err) != c.want {
			w.Errorf("%+v: %v, want %q", c.r, err, c.want)
		}
		unchanged()
	}
	_, err = w.pickups.Create(w.ctx, w.user("u", 0), order(m, 2))
	w.refused(err, refusal.Forbidden)
	if got := w.outbox(); !slices.Equal(got, outbox) {
		w.Errorf("the outbox is %+v, it was %+v", got, outbox)
	}
	// Each of these makes room for another code of the product.
	ask := pickup.Request{MachineNo: m.No, ProductID: 1, Quantity: 1, TTL: time.Hour}
	create := func() pickup.Code {
		w.Helper()
		c, err := w.pickups.Create(w.ctx, w.root, ask)
		w.check(err)
		_, err = w.pickups.Create(w.ctx, w.root, ask)
		w.refused(err, refusal.PickupProductHasLive)
		return c
	}
	w.withdraw(live.ID)
	w.used(create())
	create()
	w.clock.Add(time.Hour) // it expires at that moment, and not before
	create()
	w.clock.Add(time.Hour)
	w.sweepPickups()
	create()
	w.clock.Add(time.Hour - time.Millisecond)
	_, err = w.pickups.Create(w.ctx, w.root, ask)
	w.refused(err, refusal.PickupProductHasLive)
	w.audit()
}

func testPickupLiveMax(w *world) {
	m := w.stocked("00000001", 1, 2)
	other := w.stocked("00000002", 1)
	first := w.pickup(m, 1)
	won := w.race(25, func(i int) error {
		for range 40 {
			if _, err := w.pickups.Create(w.ctx, w.root, order(m, int64(1+i%2))); err != nil {
				return err
			}
		}
		return nil
	}, refusal.PickupTooManyLive)
	if won != 24 { // one of them had one left to make
		w.Errorf("%d made all that they wanted", won)
	}
	_, err := w.pickups.Create(w.ctx, w.root, order(m, 2))
	w.refused(err, refusal.PickupTooManyLive)
	w.pickup(other, 1)
	w.withdraw(first.ID)
	w.pickup(m, 1)
	_, err = w.pickups.Create(w.ctx, w.root, order(m, 1))
	w.refused(err, refusal.PickupTooManyLive)
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, m.No))
	w.audit()
}

// The same digits are never live twice on a machine, and not issued again until
// a day after they have expired, whatever has become of them.
func testPickupDigits(w *world) {
	m, other := w.stocked("00000001", 1), w.stocked("00000002", 1)
	free := func(at *fleet.Machine, digits string) {
		w.Helper()
		c, err := w.createOf(*at, 1, digits)
		w.check(err)
		if got := w.getPickup(c.ID); got.Digits != digits {
			w.Errorf("code %d has the digits %q, want %q", c.ID, got.Digits, digits)
		}
	}
	taken := func(digits ...string) {
		w.Helper()
		before := w.entries()
		if c, err := w.createOf(m, 1, digits...); !errors.Is(err, pickup.ErrTaken) {
			w.Fatalf("the digits %q are issued again: %+v, %v", digits, c, err)
		}
		if w.entries() != before {
			w.Error("the refusal is in the ledger")
		}
	}
	const live, withdrawn, used = "00000000", "00000001", "99999999"
	start := w.clock.Now()
	free(&m, live)
	free(&m, withdrawn)
	free(&m, used)
	free(&other, live)
	list, err := w.pickups.List(w.ctx, w.root, pickup.Query{MachineNo: m.No, Limit: 3})
	w.check(err)
	w.withdraw(list[1].ID)
	w.used(list[0])
	all := []string{live, withdrawn, used}
	// The first that is free is taken.
	c, err := w.createOf(m, 1, live, "12345678", "87654321")
	w.check(err)
	if c.Digits != "12345678" {
		w.Errorf("the digits are %q", c.Digits)
	}
	if err := w.rotateStep(); !errors.Is(err, context.Canceled) {
		w.Fatal(err)
	}
	for _, at := range []time.Duration{
		0, time.Hour - time.Millisecond, time.Hour, time.Hour + time.Millisecond, 25*time.Hour - time.Millisecond,
	} {
		w.clock.Set(start.Add(at))
		for _, digits := range all {
			taken(digits, digits)
		}
		if at >= time.Hour {
			w.sweepPickups()
		}
		taken(all...)
		w.check(w.engine.Rotate(w.ctx, nil))
	}
	w.clock.Set(start.Add(25 * time.Hour))
	for _, digits := range all {
		free(&m, digits)
	}
	taken(all...)
	// The digits belong to the number, whose machine was replaced.
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, m.No))
	m = w.stocked(m.No, 1)
	taken(all...)
	free(&m, "11111111")
	w.audit()
}

// outcome is what a code was before, and what is done to it.
type outcome struct {
	name    string
	prepare func(pickup.Code)
}

// outcomes are the ways in which a code may have ended, or not.
func (w *world) outcomes() []outcome {
	expire := func(pickup.Code) { w.clock.Add(time.Hour) }
	return []outcome{
		{"live", func(pickup.Code) {}},
		{"received", func(c pickup.Code) { w.received(fleet.Machine{ID: c.MachineID}) }},
		{"about to expire", func(pickup.Code) { w.clock.Add(time.Hour - time.Millisecond) }},
		{"expired", expire},
		{"swept", func(c pickup.Code) { expire(c); w.sweepPickups() }},
		{"swept, and the clock set back", func(c pickup.Code) {
			expire(c)
			w.sweepPickups()
			w.clock.Add(-time.Hour)
		}},
		{"withdrawn", func(c pickup.Code) { w.withdraw(c.ID) }},
		{"withdrawn and expired", func(c pickup.Code) { w.withdraw(c.ID); expire(c); w.sweepPickups() }},
		{"used", func(c pickup.Code) { w.used(c) }},
		{"used late", func(c pickup.Code) { w.withdraw(c.ID); w.used(c) }},
	}
}

func testPickupWithdraw(w *world) {
	m := w.stocked("00000001", 1)
	want := map[string]refusal.Code{
		"expired": refusal.PickupExpired, "swept": refusal.PickupExpired, "used": refusal.PickupUsed, "used late": refusal.PickupUsed,
	}
	idempotent := map[string]bool{"withdrawn": true, "withdrawn and expired": true}
	for _, o := range w.outcomes() {
		c := w.pickup(m, 1)
		o.prepare(c)
		was, before, outbox := w.getPickup(c.ID), w.entries(), w.outbox()
		err := w.pickups.Withdraw(w.ctx, w.root, c.ID)
		if refusal.CodeOf(err) != want[o.name] || (err == nil) != (want[o.name] == "") {
			w.Errorf("%s: %v", o.name, err)
		}
		if err != nil || idempotent[o.name] {
			w.wantPickup(w.getPickup(c.ID), was)
			if w.entries() != before || !slices.Equal(w.outbox(), outbox) {
				w.Errorf("%s: it changed something", o.name)
			}
			continue
		}
		was.Marked, was.Withdrawn, was.Delivery = pickup.StateWithdrawn, w.clock.Now(), pickup.Queued
		w.wantPickup(w.getPickup(c.ID), was)
		e := w.lastEntry()
		if w.entries() != before+1 || e.Kind != account.KindPickupWithdraw || e.FirstID != c.ID || e.MachineID != m.ID ||
			e.ActorID != w.root.ID || e.Detail != "" {
			w.Errorf("%s: the entry is %+v", o.name, e)
		}
		var about []delivery.Kind
		for _, i := range w.outbox() {
			if i.CodeID == c.ID {
				about = append(about, i.Kind)
			}
		}
		if !slices.Equal(about, []delivery.Kind{delivery.KindDelete}) {
			w.Errorf("%s: the outbox says %v of it", o.name, about)
		}
	}
	w.refused(w.pickups.Withdraw(w.ctx, w.root, 9999), refusal.PickupNotFound)
	w.audit()
}

// A report is never dropped, and counts once.
func testPickupUse(w *world) {
	m := w.stocked("00000001", 1)
	late := map[string]bool{"expired": true, "swept": true, "withdrawn": true, "withdrawn and expired": true}
	again := map[string]bool{"used": true, "used late": true}
	for _, o := range w.outcomes() {
		c := w.pickup(m, 1)
		o.prepare(c)
		was, before := w.getPickup(c.ID), w.entries()
		want := was
		want.Digits = ""
		if !again[o.name] {
			want.Marked, want.Used, want.LateUse, want.Delivery = pickup.StateUsed, w.clock.Now(), late[o.name], pickup.Received
		}
		for round := range 3 {
			got, err := w.pickups.Used(w.ctx, m.ID, c.ID, machineAddress, time.Unix(1750000000, 0))
			w.check(err)
			if got.Digits != "" {
				w.Error("the engine knows the digits")
			}
			w.wantPickup(got, want)
			got = w.getPickup(c.ID)
			if got.Digits != c.Digits {
				w.Errorf("the digits are %q", got.Digits)
			}
			got.Digits = ""
			w.wantPickup(got, want)
			wantEntries := before + 1
			if again[o.name] {
				wantEntries = before
			}
			if n := w.entries(); n != wantEntries {
				w.Fatalf("%s, report %d: %d entries, want %d", o.name, round, n, wantEntries)
			}
			w.clock.Add(time.Second)
		}
		if again[o.name] {
			continue
		}
		kind := account.KindPickupUse
		if late[o.name] {
			kind = account.KindPickupLateUse
		}
		e := w.lastEntry()
		if e.Kind != kind || e.ActorID != -1 || e.Address != machineAddress || e.MachineID != m.ID || e.FirstID != c.ID ||
			e.Detail != `{"product_id":1,"quantity":1,"reported_at":1750000000}` || !e.At.Equal(want.Used) {
			w.Errorf("%s: the entry is %+v", o.name, e)
		}
		for _, i := range w.outbox() {
			if i.CodeID == c.ID {
				w.Errorf("%s: the machine is still to be told: %+v", o.name, i)
			}
		}
	}
	c := w.pickup(m, 1)
	w.used(c)
	if e := w.lastEntry(); e.Detail != `{"product_id":1,"quantity":1}` {
		w.Errorf("without a time the entry says %s", e.Detail)
	}
	w.audit()
}

func testPickupForeign(w *world) {
	m, other := w.stocked("00000001", 1), w.stocked("00000002", 1)
	c := w.pickup(m, 1)
	unchanged := w.unchanged()
	for _, r := range []struct{ machine, code int64 }{{other.ID, c.ID}, {999, c.ID}, {m.ID, c.ID + 1}, {m.ID, 0}} {
		_, err := w.pickups.Used(w.ctx, r.machine, r.code, machineAddress, time.Time{})
		w.refused(err, refusal.PickupNotFound)
		unchanged()
	}
	w.wantPickup(w.getPickup(c.ID), c)
	w.wantOutbox(delivery.Item{MachineID: m.ID, Kind: delivery.KindCreate, CodeID: c.ID})
	w.audit()
}

func testPickupList(w *world) {
	m, other := w.stocked("00000001", 1, 2), w.stocked("00000002", 1)
	var ids, lateIDs []int64
	for i := range 9 {
		c := w.pickup(m, int64(1+i%2))
		ids = append(ids, c.ID)
		w.pickup(other, 1)
		switch i % 3 {
		case 0:
			w.withdraw(c.ID)
			w.used(c)
			lateIDs = append(lateIDs, c.ID)
		case 1:
			w.used(c)
		}
	}
	slices.Reverse(ids)
	slices.Reverse(lateIDs)
	for _, late := range []bool{false, true} {
		want := ids
		if late {
			want = lateIDs
		}
		w.pages(want, func(before int64, limit int) (page []int64, err error) {
			list, err := w.pickups.List(w.ctx, w.root, pickup.Query{MachineNo: m.No, Before: before, Limit: limit, LateUse: late})
			for _, c := range list {
				page = append(page, c.ID)
				w.wantPickup(c, w.getPickup(c.ID))
			}
			return page, err
		})
	}
}

// A machine that was deleted and made again may be the same iron: what it used of
// the codes that it had is recorded.
func testPickupSuccessor(w *world) {
	m, other := w.stocked("00000001", 1), w.stocked("00000002", 1)
	c, theirs := w.pickup(m, 1), w.pickup(other, 1)
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, m.No))
	successor := w.machine(m.No)
	got, err := w.pickups.Used(w.ctx, successor.ID, c.ID, machineAddress, time.Time{})
	w.check(err)
	if got.Marked != pickup.StateUsed || !got.LateUse {
		w.Errorf("the code is %+v", got)
	}
	_, err = w.pickups.Used(w.ctx, successor.ID, theirs.ID, machineAddress, time.Time{})
	w.refused(err, refusal.PickupNotFound)
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, other.No))
	_, err = w.pickups.Used(w.ctx, successor.ID, theirs.ID, machineAddress, time.Time{})
	w.refused(err, refusal.PickupNotFound)
}

// What a message is made of is there for as long as it may be sent.
func testPickupMessage(w *world) {
	m := w.stocked("00000001", 1)
	c := w.pickup(m, 1)
	item := delivery.Item{ID: 1, MachineID: m.ID, Kind: delivery.KindCreate, CodeID: c.ID}
	gone := func(i delivery.Item) {
		w.Helper()
		if got, err := w.pickups.MessageOf(w.ctx, i); !errors.Is(err, delivery.ErrGone) {
			w.Errorf("there is a message %+v, %v", got, err)
		}
	}
	said := func(i delivery.Item) {
		w.Helper()
		got, err := w.pickups.MessageOf(w.ctx, i)
		w.check(err)
		want := w.getPickup(c.ID)
		w.wantPickup(got.Code, pickup.Code{
			ID: want.ID, ProductID: want.ProductID, Digits: want.Digits, Quantity: want.Quantity, Marked: want.Marked, Expires: want.Expires,
		})
		if got.Machine.ID != m.ID || got.Machine.No != m.No || got.Machine.Zone != "Asia/Shanghai" || got.Merchant.AppKey != "the app key of of 00000001" ||
			got.Merchant.ID != m.MerchantID || got.Merchant.Payload != fleet.PayloadJSON {
			w.Errorf("the message is from %+v to %+v", got.Merchant, got.Machine)
		}
	}
	said(item)
	withdrawal := item
	withdrawal.Kind = delivery.KindDelete
	gone(withdrawal)
	w.withdraw(c.ID)
	said(withdrawal)
	gone(item)
	w.clock.Add(time.Hour)
	gone(withdrawal)
	gone(delivery.Item{ID: 1, MachineID: m.ID, Kind: delivery.KindCreate, CodeID: 999})
	second := w.pickup(m, 1)
	item.CodeID, c = second.ID, second
	said(item)
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, m.No))
	gone(item)
}

func testPickupRace(w *world) {
	m := w.stocked("00000001", 1)
	// Of many that want the one code of a product, one gets it.
	won := w.race(24, func(int) error {
		r := order(m, 1)
		r.AllowMore = false
		_, err := w.pickups.Create(w.ctx, w.root, r)
		return err
	}, refusal.PickupProductHasLive)
	if won != 1 {
		w.Errorf("%d codes of one product were made", won)
	}
	// Of many that are given the same digits, one is.
	var free atomic.Int64
	w.race(24, func(int) error {
		_, err := w.createOf(m, 1, "12345678")
		if errors.Is(err, pickup.ErrTaken) {
			return nil
		}
		free.Add(1)
		return err
	})
	if n := free.Load(); n != 1 {
		w.Errorf("%d have the same digits", n)
	}
	list, err := w.pickups.List(w.ctx, w.root, pickup.Query{MachineNo: m.No, Limit: 10})
	w.check(err)
	if len(list) != 2 {
		w.Fatalf("there are %d codes", len(list))
	}
	before := w.entries()
	if won := w.race(16, func(int) error { return w.pickups.Withdraw(w.ctx, w.root, list[0].ID) }); won != 16 {
		w.Errorf("%d of 16 withdrawals succeeded", won)
	}
	w.race(16, func(int) error {
		_, err := w.pickups.Used(w.ctx, m.ID, list[1].ID, machineAddress, time.Time{})
		return err
	})
	if n := w.entries() - before; n != 2 {
		w.Errorf("%d entries, want a withdrawal and a use", n)
	}
	// Withdrawn or used first, the use counts.
	codes := make([]pickup.Code, 30)
	for i := range codes {
		codes[i] = w.pickup(m, 1)
	}
	before = w.entries()
	w.race(4*len(codes), func(i int) error {
		c := codes[i/4]
		if i%2 == 0 {
			return w.pickups.Withdraw(w.ctx, w.root, c.ID)
		}
		_, err := w.pickups.Used(w.ctx, m.ID, c.ID, machineAddress, time.Time{})
		return err
	}, refusal.PickupUsed)
	late := int64(0)
	for _, c := range codes {
		got := w.getPickup(c.ID)
		if got.Marked != pickup.StateUsed || got.LateUse == got.Withdrawn.IsZero() {
			w.Errorf("the code is %+v", got)
		}
		if got.LateUse {
			late++
		}
	}
	if n := w.entries() - before; n != int64(len(codes))+late {
		w.Errorf("%d entries for %d codes, of which %d were used late", n, len(codes), late)
	}
	if left := w.outbox(); len(left) != 1 { // the withdrawal at the beginning
		w.Errorf("the outbox still says %+v", left)
	}
	w.audit()
}

// Codes are sealed anew like everything else, and all works meanwhile.
func testPickupRotation(w *world) {
	m := w.stocked("00000001", 1)
	codes := make([]pickup.Code, 600)
	won := w.race(20, func(worker int) (err error) {
		for i := worker; i < len(codes); i += 20 {
			if codes[i], err = w.pickups.Create(w.ctx, w.root, order(m, 1)); err != nil {
				return err
			}
		}
		return nil
	})
	if won != 20 {
		w.FailNow()
	}
	ring, err := w.engine.Keys().Reload(w.ctx)
	w.check(err)
	for range 2 {
		if err := w.rotateStep(); !errors.Is(err, context.Canceled) {
			w.Fatal(err)
		}
	}
	_, err = w.engine.CreatePickup(w.ctx, pickup.Order{Epoch: ring.Epoch(), MachineNo: m.No, ProductID: 1, Quantity: 1})
	w.stale(err)
	readable := func(all []pickup.Code) {
		w.Helper()
		for _, c := range all {
			if got := w.getPickup(c.ID); got.Digits != c.Digits {
				w.Fatalf("code %d has the digits %q, it had %q", c.ID, got.Digits, c.Digits)
			}
			if _, err := w.createOf(m, 1, c.Digits); !errors.Is(err, pickup.ErrTaken) {
				w.Fatalf("the digits of code %d are free: %v", c.ID, err)
			}
		}
	}
	readable(codes[:20])
	readable(codes[580:])
	between := w.pickup(m, 1)
	w.withdraw(codes[0].ID)
	w.used(codes[599])
	w.check(w.engine.Rotate(w.ctx, nil))
	codes = append(codes, between)
	readable(codes)
	rows, err := w.engine.Pickups(w.ctx, pickup.Query{MachineNo: m.No, Limit: 1000})
	w.check(err)
	for _, row := range rows {
		if n := keyring.SealedUnder(row.Sealed); n != ring.Newest()+1 {
			w.Errorf("code %d is sealed under generation %d", row.ID, n)
		}
	}
	if len(rows) != len(codes) {
		w.Errorf("%d codes are listed, want %d", len(rows), len(codes))
	}
	w.audit()
}

// What was swept as expired is live again if it has not expired after all: it
// counts, and its machine is told what it had not heard.
func testPickupClockSetBack(w *world) {
	m := w.stocked("00000001", 1, 2, 3)
	held, sent := w.pickup(m, 1), w.pickup(m, 2)
	w.received(m)
	withdrawn := w.pickup(m, 3)
	w.withdraw(withdrawn.ID)
	w.withdraw(sent.ID)
	w.advance(delivery.Sent, sent.ID)
	w.clock.Add(time.Hour)
	w.sweepPickups()
	w.wantOutbox()
	w.wantHolding(m)
	for c, want := range map[int64]pickup.Delivery{
		held.ID: pickup.Received, withdrawn.ID: pickup.Queued, sent.ID: pickup.Sent,
	} {
		if got := w.getPickup(c); got.Delivery != want {
			w.Errorf("of code %d it says %q, want %q", c, got.Delivery, want)
		}
	}
	w.clock.Add(-time.Minute)
	ask := order(m, 1)
	ask.AllowMore = false
	_, err := w.pickups.Create(w.ctx, w.root, ask)
	w.refused(err, refusal.PickupProductHasLive)
	w.sweepPickups()
	w.wantHolding(m, held.ID)
	if got := w.outbox(); len(got) != 2 || got[0].Kind != delivery.KindDelete || got[1].Kind != delivery.KindDelete {
		w.Errorf("the outbox says %+v", got)
	}
	for c, want := range map[int64]pickup.Delivery{
		held.ID: pickup.Received, withdrawn.ID: pickup.Queued, sent.ID: pickup.Sent,
	} {
		if got := w.getPickup(c); got.Delivery != want {
			w.Errorf("of code %d it says %q, want %q", c, got.Delivery, want)
		}
	}
	_, err = w.pickups.Create(w.ctx, w.root, ask)
	w.refused(err, refusal.PickupProductHasLive)
	w.clock.Add(time.Minute)
	_, err = w.pickups.Create(w.ctx, w.root, ask)
	w.check(err)
	w.sweepPickups()
	w.audit()
}

func testPickupAfterClose(w *world) {
	m := w.stocked("00000001", 1)
	c := w.pickup(m, 1)
	w.check(w.engine.Close())
	ctx := w.eventually()
	_, err := w.pickups.Create(ctx, w.root, order(m, 1))
	_, useErr := w.pickups.Used(ctx, m.ID, c.ID, machineAddress, time.Time{})
	for name, err := range map[string]error{
		"create": err, "use": useErr, "withdraw": w.pickups.Withdraw(ctx, w.root, c.ID),
		"advance": w.engine.Advance(ctx, []delivery.Progress{{ID: 1}}), "see": w.engine.See(ctx, nil),
		"sweep": w.pickups.Sweep(ctx),
	} {
		if err == nil || refusal.CodeOf(err) != "" || errors.Is(err, context.DeadlineExceeded) {
			w.Errorf("%s: %v", name, err)
		}
	}
}

// The ledger is searched by machine and by pickup code, and neither is taken for
// a redemption code.
func testPickupLedger(w *world) {
	w.issue("n", 5, 1, time.Time{}) // the same ids
	m, other := w.stocked("00000001", 1), w.stocked("00000002", 1)
	for i := range 3 {
		c := w.pickup(m, 1)
		w.pickup(other, 1)
		w.clock.Add(time.Duration(1-i) * time.Second)
		w.withdraw(c.ID)
		w.used(c)
	}
	w.disable(1)
	all := w.ledger()
	times := []time.Time{{}, w.clock.Now()}
	matched := 0
	for _, f := range []account.LedgerFilter{
		{CodeID: 1},
		{CodeID: 3},
		{PickupID: 1},
		{PickupID: 2},
		{PickupID: 99},
		{MachineID: m.ID},
		{MachineID: other.ID},
		{MachineID: 99},
		{MachineID: m.ID, PickupID: 1},
		{MachineID: m.ID, PickupID: 2},
		{MachineID: m.ID, CodeID: 1},
	} {
		for _, f.UserID = range []int64{0, -1, 1} {
			for _, f.From = range times {
				for _, f.To = range times {
					matched += w.compareLedger(all, f)
				}
			}
		}
	}
	if matched < 50 {
		w.Errorf("the filters chose %d entries in all: too few to say anything", matched)
	}
	w.audit()
}
