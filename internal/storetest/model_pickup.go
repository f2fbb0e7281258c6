package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// ModelPickup is Model for pickup codes, their machines and the outbox: create,
// withdraw, use, acknowledge, sweep, delete products and machines, rotate, move
// the clock forward and back, close and open again.
func ModelPickup(t *testing.T, create func(t *testing.T) Opener) {
	t.Helper()
	const steps = 600
	runModel(t, create, func(w *world, seed uint64) walker { return newPickupModel(w, seed) }, steps)
}

// modelCode is a code, and what its machine is still to be told of it.
type modelCode struct {
	pickup.Code
	waits bool // in the outbox
	sent  bool // by the broker, if it waits or was given up
	// given up by a sweep, since it had expired
	unheard bool
}

// modelMachine is a machine that there is.
type modelMachine struct {
	fleet.Machine
	products map[int64]bool
	made     int64 // the highest id that a product has ever had
}

// pickupModel is what the database should hold, and the random source of the
// steps.
type pickupModel struct {
	diary

	world    *world
	random   *rand.Rand
	merchant int64
	machines map[string]*modelMachine
	codes    map[int64]*modelCode
	lastCode int64
	entries  int64
}

func newPickupModel(w *world, seed uint64) *pickupModel {
	w.Helper()
	m := &pickupModel{
		diary: diary{clock: w.clock}, world: w, random: seeded(seed), merchant: w.merchant("owner").ID,
		machines: map[string]*modelMachine{}, codes: map[int64]*modelCode{},
	}
	m.entries = w.entries()
	for _, no := range m.numbers() {
		m.createMachine(no)
		for range 3 {
			m.createProduct(m.machines[no])
		}
	}
	return m
}

func (*pickupModel) numbers() []string { return []string{"00000000", "12345678", "99999999"} }

func (m *pickupModel) now() time.Time { return m.world.clock.Now() }

// want compares how a call ended with how it should have.
func (m *pickupModel) want(err error, code refusal.Code) {
	m.world.Helper()
	if (err == nil) != (code == "") || refusal.CodeOf(err) != code {
		m.world.Fatalf("%s: %v, want %q", m.last(), err, code)
	}
}

func (m *pickupModel) step() {
	m.world.Helper()
	switch n := m.random.IntN(100); {
	case n < 22:
		m.create()
	case n < 27:
		m.createOf()
	case n < 37:
		m.withdraw()
	case n < 50:
		m.use()
	case n < 64:
		m.advance()
	case n < 72:
		m.sweep()
	case n < 84:
		m.moveClock()
	case n < 86:
		m.deleteProduct()
	case n < 89:
		m.createProduct(m.machine())
	case n < 90:
		m.replaceMachine()
	case n < 92:
		m.rotate()
	case n < 94:
		m.reopen()
	case n < 96:
		m.compareCodes()
	default:
		m.compareAll()
	}
}

func (m *pickupModel) machine() *modelMachine {
	return m.machines[m.numbers()[m.random.IntN(len(m.numbers()))]]
}

// anyCode is a code that there is; nil if there is none.
func (m *pickupModel) anyCode() *modelCode {
	if m.lastCode == 0 {
		return nil
	}
	// Mostly one of the last: the others have ended long ago.
	return m.codes[max(1, m.lastCode-m.random.Int64N(1+min(m.lastCode, int64(4)<<m.random.IntN(6))))]
}

func (m *pickupModel) createMachine(no string) {
	m.world.Helper()
	m.log("create machine %s", no)
	made, err := m.world.fleet.CreateMachine(m.world.ctx, m.world.root, fleet.Machine{
		MerchantID: m.merchant, No: no, Name: "n", Zone: "UTC", PurchaseLimit: 1 + m.random.IntN(3), PickupCodes: true,
	}, "password", nil)
	m.want(err, "")
	m.machines[no] = &modelMachine{Machine: made, products: map[int64]bool{}}
	m.entries++
}

func (m *pickupModel) replaceMachine() {
	m.world.Helper()
	old := m.machine()
	m.log("delete machine %s", old.No)
	m.want(m.world.fleet.DeleteMachine(m.world.ctx, m.world.root, old.No), "")
	m.entries++
	for _, c := range m.codes {
		if c.MachineID != old.ID {
			continue
		}
		if c.State(m.now()) == pickup.StateLive {
			m.markWithdrawn(c)
		} else if !c.waits {
			continue
		}
		c.waits, c.sent, c.unheard = false, false, false
		c.Delivery = pickup.Queued
	}
	m.createMachine(old.No)
}

func (m *pickupModel) markWithdrawn(c *modelCode) {
	c.Marked, c.Withdrawn = pickup.StateWithdrawn, m.now()
	m.entries++
}

func (m *pickupModel) createProduct(machine *modelMachine) {
	m.world.Helper()
	ask := int64(0)
	var want refusal.Code
	if m.random.IntN(3) > 0 {
		if ask = 1 + m.random.Int64N(5); machine.products[ask] {
			want = refusal.ProductIDTaken
		}
	}
	m.log("create product %d of %s", ask, machine.No)
	p, err := m.world.fleet.CreateProduct(m.world.ctx, m.world.root, machine.No, fleet.Product{ID: ask, Name: "n", Slot: "1"}, nil)
	m.want(err, want)
	if err != nil {
		return
	}
	if ask == 0 {
		ask = machine.made + 1
	}
	if p.ID != ask {
		m.world.Fatalf("%s: it has the id %d", m.last(), p.ID)
	}
	machine.products[ask], machine.made = true, max(machine.made, ask)
	m.entries++
}

func (m *pickupModel) product(machine *modelMachine) int64 {
	return 1 + m.random.Int64N(min(machine.made, 6)+1)
}

func (m *pickupModel) deleteProduct() {
	m.world.Helper()
	machine := m.machine()
	id := m.product(machine)
	var want refusal.Code
	if !machine.products[id] {
		want = refusal.ProductNotFound
	}
	m.log("delete product %d of %s", id, machine.No)
	m.want(m.world.fleet.DeleteProduct(m.world.ctx, m.world.root, machine.No, id), want)
	if want != "" {
		return
	}
	delete(machine.products, id)
	m.entries++
	for _, c := range m.codes {
		if c.MachineID == machine.ID && c.ProductID == id && c.State(m.now()) == pickup.StateLive {
			m.markWithdrawn(c)
			m.enqueue(c)
		}
	}
}

// enqueue has the machine to be told what the code is now.
func (m *pickupModel) enqueue(c *modelCode) {
	c.waits, c.sent, c.unheard, c.Delivery = true, false, false, pickup.Queued
}

func (m *pickupModel) create() {
	m.world.Helper()
	machine := m.machine()
	r := pickup.Request{
		MachineNo: machine.No, ProductID: m.product(machine), Quantity: 1 + m.random.Int64N(3),
		TTL: []time.Duration{time.Second, time.Minute, time.Hour}[m.random.IntN(3)], AllowMore: m.random.IntN(2) == 0,
	}
	live := false
	for _, c := range m.codes {
		live = live || c.MachineID == machine.ID && c.ProductID == r.ProductID && c.State(m.now()) == pickup.StateLive
	}
	var want refusal.Code
	switch {
	case !machine.products[r.ProductID]:
		want = refusal.ProductNotFound
	case int(r.Quantity) > machine.PurchaseLimit:
		want = refusal.PickupOverLimit
	case live && !r.AllowMore:
		want = refusal.PickupProductHasLive
	}
	m.log("create %+v", r)
	c, err := m.world.pickups.Create(m.world.ctx, m.world.root, r)
	m.want(err, want)
	if err == nil {
		m.created(machine, c, pickup.Code{
			ProductID: r.ProductID, Digits: c.Digits, Quantity: int(r.Quantity), Expires: m.now().Add(r.TTL),
		})
	}
}

// created adds a code: want says what is its own, the rest is as for all.
func (m *pickupModel) created(machine *modelMachine, got, want pickup.Code) {
	m.world.Helper()
	m.lastCode++
	m.entries++
	want.ID, want.MachineID, want.MachineNo = m.lastCode, machine.ID, machine.No
	want.Marked, want.CreatorID, want.Created = pickup.StateLive, m.world.root.ID, m.now()
	c := &modelCode{Code: want}
	m.enqueue(c)
	m.codes[m.lastCode] = c
	m.same(got, c)
	for _, other := range m.codes {
		if other != c && other.MachineNo == c.MachineNo && other.Digits == c.Digits && m.taken(other) {
			m.world.Fatalf("%s: code %d has the same digits", m.last(), other.ID)
		}
	}
}

// taken reports whether a code's digits may not be issued again.
func (m *pickupModel) taken(c *modelCode) bool {
	return m.now().Before(c.Expires.Add(pickup.ReuseAfter))
}

func (m *pickupModel) same(got pickup.Code, want *modelCode) {
	m.world.Helper()
	if !samePickup(got, want.Code) {
		m.world.Fatalf("%s: the code is %+v, want %+v", m.last(), got, want.Code)
	}
}

// createOf creates with one of a few digits, which come up again and again.
func (m *pickupModel) createOf() {
	m.world.Helper()
	machine := m.machine()
	digits := fmt.Sprintf("%08d", m.random.IntN(4))
	products := slices.Sorted(maps.Keys(machine.products))
	if len(products) == 0 {
		return
	}
	taken := false
	for _, c := range m.codes {
		taken = taken || c.MachineNo == machine.No && c.Digits == digits && m.taken(c)
	}
	m.log("create %s on %s", digits, machine.No)
	c, err := m.world.createOf(machine.Machine, products[0], digits)
	if taken != errors.Is(err, pickup.ErrTaken) || !taken && err != nil {
		m.world.Fatalf("%s: %v, want taken %v", m.last(), err, taken)
	}
	if err == nil {
		m.created(machine, c, pickup.Code{
			ProductID: products[0], Digits: digits, Quantity: 1, Expires: m.now().Add(time.Hour),
		})
	}
}

func (m *pickupModel) withdraw() {
	m.world.Helper()
	c := m.anyCode()
	if c == nil {
		return
	}
	state := c.State(m.now())
	want := map[pickup.State]refusal.Code{
		pickup.StateLive: "", pickup.StateWithdrawn: "",
		pickup.StateUsed: refusal.PickupUsed, pickup.StateExpired: refusal.PickupExpired,
	}[state]
	m.log("withdraw %d, which is %s", c.ID, state)
	m.want(m.world.pickups.Withdraw(m.world.ctx, m.world.root, c.ID), want)
	if state == pickup.StateLive {
		m.markWithdrawn(c)
		m.enqueue(c)
	}
}

func (m *pickupModel) use() {
	m.world.Helper()
	c := m.anyCode()
	if c == nil {
		return
	}
	machine, want := c.MachineID, refusal.Code("")
	if m.random.IntN(8) == 0 {
		machine, want = machine+1<<32, refusal.PickupNotFound // no machine is its successor
	}
	state := c.State(m.now())
	m.log("machine %d uses %d of %d, which is %s", machine, c.ID, c.MachineID, state)
	got, err := m.world.pickups.Used(m.world.ctx, machine, c.ID, machineAddress, time.Time{})
	m.want(err, want)
	if err != nil {
		return
	}
	if state != pickup.StateUsed {
		c.Marked, c.Used, c.LateUse, c.Delivery = pickup.StateUsed, m.now(), state != pickup.StateLive, pickup.Received
		c.waits, c.unheard = false, false
		m.entries++
	}
	got.Digits = c.Digits
	m.same(got, c)
}

// advance writes how far a few messages have come.
func (m *pickupModel) advance() {
	m.world.Helper()
	var progress []delivery.Progress
	for _, i := range m.world.outbox() {
		c := m.codes[i.CodeID]
		if c == nil || m.random.IntN(3) > 0 {
			continue
		}
		p := delivery.Progress{ID: i.ID, Stage: delivery.Sent}
		c.sent, c.Delivery = true, pickup.Sent
		if m.random.IntN(2) == 0 {
			p.Stage = delivery.Received
			c.waits, c.Delivery = false, pickup.Received
		}
		progress = append(progress, p)
	}
	m.log("advance %v", progress)
	m.world.check(m.world.engine.Advance(m.world.ctx, progress))
}

func (m *pickupModel) sweep() {
	m.world.Helper()
	m.log("sweep")
	m.world.sweepPickups()
	for _, c := range m.codes {
		switch expired := !m.now().Before(c.Expires); {
		case c.waits && expired:
			c.waits, c.unheard = false, true
		case c.unheard && !expired:
			c.waits, c.unheard = true, false
		}
	}
}

func (m *pickupModel) moveClock() {
	d := []time.Duration{
		time.Millisecond, 400 * time.Millisecond, time.Second, 30 * time.Second, time.Minute, time.Hour, -time.Second,
		-time.Minute, -time.Hour, 24 * time.Hour,
	}[m.random.IntN(10)]
	if d < 0 && m.random.IntN(2) == 0 {
		m.sweep() // so that there is something to take back
	}
	m.world.clock.Add(d)
	m.log("the clock moves by %v", d)
}

// rotate begins, or goes on with, a rotation, and is cut off early or not.
func (m *pickupModel) rotate() {
	m.world.Helper()
	ctx, cancel := context.WithCancel(m.world.ctx)
	defer cancel()
	left := m.random.IntN(4)
	m.log("rotate, cut off after %d steps", left)
	err := m.world.engine.Rotate(ctx, func(done, total int64) {
		if left--; left <= 0 && done < total {
			cancel()
		}
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		m.world.Fatal(err)
	}
	m.entries = m.world.entries() // the other model counts them
}

func (m *pickupModel) reopen() {
	m.world.Helper()
	m.log("close and open")
	m.world.check(m.world.engine.Close())
	m.world.use(m.world.handle(testSecret))
	_, err := m.world.engine.Newest(m.world.ctx)
	m.world.check(err)
}

func (m *pickupModel) compareCodes() {
	m.world.Helper()
	m.log("compare the codes")
	for id, c := range m.codes {
		m.same(m.world.getPickup(id), c)
	}
}

// compareAll compares everything that can be seen, once a sweep is through.
func (m *pickupModel) compareAll() {
	m.world.Helper()
	m.sweep()
	m.compareCodes()
	waits := map[int64]delivery.Item{}
	for _, i := range m.world.outbox() {
		if i.Kind == delivery.KindDisconnect {
			continue
		}
		if _, twice := waits[i.CodeID]; twice {
			m.world.Fatalf("the outbox has two entries of code %d", i.CodeID)
		}
		waits[i.CodeID] = i
	}
	holding := map[int64][]int64{}
	for id := int64(1); id <= m.lastCode; id++ {
		c := m.codes[id]
		want := delivery.Item{ID: waits[id].ID, MachineID: c.MachineID, Kind: delivery.KindCreate, CodeID: id}
		if c.Marked == pickup.StateWithdrawn {
			want.Kind = delivery.KindDelete
		}
		if got, ok := waits[id]; ok != c.waits || ok && got != want {
			m.world.Fatalf("the outbox says %+v, of the code %+v", got, *c)
		}
		if !c.waits && c.State(m.now()) == pickup.StateLive {
			holding[c.MachineID] = append(holding[c.MachineID], id)
		}
	}
	for _, no := range m.numbers() {
		m.compareMachine(m.machines[no], holding[m.machines[no].ID])
	}
	if n := m.world.entries(); n != m.entries {
		m.world.Fatalf("the ledger has %d entries, want %d", n, m.entries)
	}
	m.world.verify(nil)
	if m.world.Failed() {
		m.world.FailNow()
	}
}

func (m *pickupModel) compareMachine(machine *modelMachine, holding []int64) {
	m.world.Helper()
	m.world.wantHolding(machine.Machine, holding...)
	list, err := m.world.pickups.List(m.world.ctx, m.world.root, pickup.Query{MachineNo: machine.No, Limit: 10_000})
	m.world.check(err)
	for _, c := range m.codes {
		if c.MachineID == machine.ID {
			at := slices.IndexFunc(list, func(l pickup.Code) bool { return l.ID == c.ID })
			if at < 0 {
				m.world.Fatalf("code %d is not in the list", c.ID)
			}
			m.same(list[at], c)
			list = slices.Delete(list, at, at+1)
		}
	}
	products, err := m.world.fleet.Products(m.world.ctx, m.world.root, machine.No, 0, 1000)
	m.world.check(err)
	var got []int64
	for _, p := range products {
		got = append(got, p.ID)
	}
	slices.Reverse(got)
	if want := slices.Sorted(maps.Keys(machine.products)); len(list) > 0 || !slices.Equal(got, want) {
		m.world.Fatalf("machine %s has the products %v, want %v, and too many codes: %+v", machine.No, got, want, list)
	}
}
