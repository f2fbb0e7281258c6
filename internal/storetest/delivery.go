package storetest

import (
	"slices"
	"time"

	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
)

func deliveryTests() map[string]func(*world) {
	return map[string]func(*world){
		"Order":   testDeliveryOrder,
		"Advance": testDeliveryAdvance,
		"Newest":  testDeliveryNewest,
		"Holding": testDeliveryHolding,
		"Sweep":   testDeliverySweep,
		"Steps":   testDeliverySteps,
		"Backlog": testDeliveryBacklog,
		"Race":    testDeliveryRace,
	}
}

// outbox is all of it, in order.
func (w *world) outbox() []delivery.Item {
	w.Helper()
	var items []delivery.Item
	for machine := range int64(machinesMax) {
		some, err := w.engine.Waiting(w.ctx, machine, 0, 1<<20)
		w.check(err)
		w.ascending(some)
		items = append(items, some...)
	}
	slices.SortFunc(items, func(a, b delivery.Item) int { return int(a.ID - b.ID) })
	return items
}

// machinesMax is more than a test of the outbox makes.
const machinesMax = 100

func (w *world) waiting(m fleet.Machine) []delivery.Item {
	w.Helper()
	items, err := w.engine.Waiting(w.ctx, m.ID, 0, 1<<20)
	w.check(err)
	w.ascending(items)
	return items
}

func (w *world) ascending(items []delivery.Item) {
	w.Helper()
	if !slices.IsSortedFunc(items, func(a, b delivery.Item) int { return int(a.ID - b.ID) }) {
		w.Errorf("the outbox is out of order: %+v", items)
	}
}

// wantOutbox compares the outbox with want, whatever the ids are.
func (w *world) wantOutbox(want ...delivery.Item) {
	w.Helper()
	got := w.outbox()
	for i := range got {
		got[i].ID = 0
	}
	if !slices.Equal(got, want) {
		w.Errorf("the outbox is %+v, want %+v", got, want)
	}
}

// wantHolding compares the codes that a machine holds with want, in order.
func (w *world) wantHolding(m fleet.Machine, want ...int64) {
	w.Helper()
	for _, limit := range []int{1, 2, 100} {
		var got []int64
		for after := int64(0); ; after = got[len(got)-1] {
			items, err := w.engine.Holding(w.ctx, m.ID, after, limit)
			w.check(err)
			for _, i := range items {
				if i != (delivery.Item{MachineID: m.ID, Kind: delivery.KindCreate, CodeID: i.CodeID}) {
					w.Errorf("it holds %+v", i)
				}
				got = append(got, i.CodeID)
			}
			if len(items) < limit {
				break
			}
		}
		if !slices.Equal(got, want) {
			w.Errorf("in pages of %d it holds %v, want %v", limit, got, want)
		}
	}
}

// received has a machine acknowledge all that waits for it.
func (w *world) received(m fleet.Machine) {
	w.Helper()
	var progress []delivery.Progress
	for _, i := range w.waiting(m) {
		progress = append(progress, delivery.Progress{ID: i.ID, Stage: delivery.Received})
	}
	w.check(w.engine.Advance(w.ctx, progress))
}

// advance writes how far what is said of those codes has come.
func (w *world) advance(stage delivery.Stage, codes ...int64) {
	w.Helper()
	var progress []delivery.Progress
	for _, i := range w.outbox() {
		if slices.Contains(codes, i.CodeID) {
			progress = append(progress, delivery.Progress{ID: i.ID, Stage: stage})
		}
	}
	if len(progress) != len(codes) {
		w.Fatalf("of %d codes %d wait", len(codes), len(progress))
	}
	w.check(w.engine.Advance(w.ctx, progress))
}

func (w *world) wantDelivery(c pickup.Code, want pickup.Delivery) {
	w.Helper()
	if got := w.getPickup(c.ID); got.Delivery != want {
		w.Errorf("of code %d it says %q, want %q", c.ID, got.Delivery, want)
	}
}

// Entries come in the order of their causes; of a code only the last counts.
func testDeliveryOrder(w *world) {
	m, other := w.stocked("00000001", 1), w.stocked("00000002", 1)
	first, second, third := w.pickup(m, 1), w.pickup(other, 1), w.pickup(m, 1)
	w.withdraw(first.ID)
	w.check(w.fleet.RenewPassword(w.ctx, w.root, other.No, "new", nil))
	create := func(m fleet.Machine, c pickup.Code) delivery.Item {
		return delivery.Item{MachineID: m.ID, Kind: delivery.KindCreate, CodeID: c.ID}
	}
	w.wantOutbox(create(other, second), create(m, third),
		delivery.Item{MachineID: m.ID, Kind: delivery.KindDelete, CodeID: first.ID},
		delivery.Item{MachineID: other.ID, Kind: delivery.KindDisconnect})
	all := w.outbox()
	var heard []delivery.Item
	for last := int64(0); ; {
		got, err := w.engine.Since(w.ctx, last, 3)
		w.check(err)
		if len(got) > 3 {
			w.Errorf("of 3 at most %d were listed", len(got))
		}
		if len(got) == 0 {
			break
		}
		last = got[len(got)-1].ID
		heard = append(heard, got...)
	}
	slices.SortFunc(heard, func(a, b delivery.Item) int { return int(a.ID - b.ID) })
	if !slices.Equal(heard, all) {
		w.Errorf("whoever follows hears %+v, want %+v", heard, all)
	}
	for machine, want := range map[int64][]delivery.Item{m.ID: {all[1], all[2]}, other.ID: {all[0], all[3]}, 99: nil} {
		got, err := w.engine.Waiting(w.ctx, machine, 0, 10)
		w.check(err)
		if !slices.Equal(got, want) {
			w.Errorf("for machine %d wait %+v, want %+v", machine, got, want)
		}
	}
	got, err := w.engine.Waiting(w.ctx, m.ID, all[1].ID, 10)
	w.check(err)
	if !slices.Equal(got, all[2:3]) {
		w.Errorf("behind the first wait %+v", got)
	}
	w.used(third)
	w.used(first) // the goods are gone: there is nothing to withdraw
	w.wantOutbox(create(other, second), delivery.Item{MachineID: other.ID, Kind: delivery.KindDisconnect})
	w.audit()
}

func testDeliveryAdvance(w *world) {
	m := w.stocked("00000001", 1)
	a, b, c := w.pickup(m, 1), w.pickup(m, 1), w.pickup(m, 1)
	entries := w.entries()
	w.wantDelivery(a, pickup.Queued)
	w.advance(delivery.Sent, a.ID, b.ID)
	w.wantDelivery(a, pickup.Sent)
	w.wantDelivery(b, pickup.Sent)
	w.wantDelivery(c, pickup.Queued)
	w.advance(delivery.Sent, a.ID) // again
	w.advance(delivery.Received, a.ID, c.ID)
	w.wantDelivery(a, pickup.Received)
	w.wantDelivery(c, pickup.Received)
	left := w.outbox()
	if len(left) != 1 || left[0].CodeID != b.ID {
		w.Errorf("the outbox is %+v", left)
	}
	// What is gone is passed over; sent and received together is received.
	w.check(w.engine.Advance(w.ctx, []delivery.Progress{
		{ID: left[0].ID - 1, Stage: delivery.Received},
		{ID: left[0].ID, Stage: delivery.Received},
		{ID: left[0].ID, Stage: delivery.Sent},
		{ID: left[0].ID + 1, Stage: delivery.Sent},
		{ID: 99, Stage: delivery.Received},
	}))
	w.check(w.engine.Advance(w.ctx, nil))
	w.wantOutbox()
	w.wantDelivery(b, pickup.Received)
	// A withdrawal is another message.
	w.withdraw(a.ID)
	w.wantDelivery(a, pickup.Queued)
	w.advance(delivery.Sent, a.ID)
	w.wantDelivery(a, pickup.Sent)
	w.advance(delivery.Received, a.ID)
	w.wantDelivery(a, pickup.Received)
	if n := w.entries() - entries; n != 1 {
		w.Errorf("%d entries, want that of the withdrawal", n)
	}
	w.audit()
}

// Ids are never given twice, not even when the outbox has been empty, and whoever
// begins to follow it at the newest entry hears of the next.
func testDeliveryNewest(w *world) {
	m := w.stocked("00000001", 1)
	w.pickup(m, 1)
	w.pickup(m, 1)
	last := w.waiting(m)[1].ID
	w.received(m)
	w.check(w.engine.Close())
	w = w.on(w.handle(testSecret))
	newest, err := w.engine.Newest(w.ctx)
	w.check(err)
	if newest > last {
		w.Errorf("the newest is %d, want %d at most", newest, last)
	}
	c := w.pickup(m, 1)
	if got := w.waiting(m); len(got) != 1 || got[0].ID <= last || got[0].CodeID != c.ID {
		w.Errorf("behind %d comes %+v", last, got)
	}
	if got, err := w.engine.Since(w.ctx, newest, 10); err != nil || len(got) == 0 || got[len(got)-1].CodeID != c.ID {
		w.Errorf("since %d came %+v, %v", newest, got, err)
	}
	// Nothing is connected yet that would have to be disconnected.
	w.check(w.fleet.RenewPassword(w.ctx, w.root, m.No, "new", nil))
	_, err = w.engine.Newest(w.ctx)
	w.check(err)
	w.wantOutbox(delivery.Item{MachineID: m.ID, Kind: delivery.KindCreate, CodeID: c.ID})
}

// A machine holds what is live and acknowledged.
func testDeliveryHolding(w *world) {
	m, other := w.stocked("00000001", 1, 2), w.stocked("00000002", 1)
	var codes []pickup.Code
	for i := range 6 {
		codes = append(codes, w.pickup(m, int64(2-i%2))) // not in the order of products
	}
	foreign := w.pickup(other, 1)
	w.wantHolding(m)
	w.received(m)
	w.received(other)
	w.wantHolding(other, foreign.ID)
	fresh := w.pickup(m, 1)
	w.advance(delivery.Sent, fresh.ID)
	w.wantHolding(m, codes[0].ID, codes[1].ID, codes[2].ID, codes[3].ID, codes[4].ID, codes[5].ID)
	w.withdraw(codes[0].ID)
	w.used(codes[3])
	w.wantHolding(m, codes[1].ID, codes[2].ID, codes[4].ID, codes[5].ID)
	w.check(w.fleet.DeleteProduct(w.ctx, w.root, m.No, 1))
	w.wantHolding(m, codes[2].ID, codes[4].ID)
	w.clock.Add(time.Hour)
	w.sweepPickups()
	w.wantHolding(m)
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, other.No))
	w.wantHolding(other)
}

// A sweep drops what is of no use any more, and does not forget how far it had
// come. It changes nothing else.
func testDeliverySweep(w *world) {
	m := w.stocked("00000001", 1, 2)
	queued, sent, received, withdrawn := w.pickup(m, 1), w.pickup(m, 1), w.pickup(m, 1), w.pickup(m, 1)
	w.advance(delivery.Sent, sent.ID)
	w.advance(delivery.Received, received.ID, withdrawn.ID)
	w.withdraw(withdrawn.ID)
	w.check(w.fleet.RenewPassword(w.ctx, w.root, m.No, "new", nil))
	w.clock.Add(time.Millisecond)
	later := w.pickup(m, 2)
	entries, before := w.entries(), w.outbox()
	want := map[int64]pickup.Delivery{
		queued.ID: pickup.Queued, sent.ID: pickup.Sent, received.ID: pickup.Received, withdrawn.ID: pickup.Queued,
		later.ID: pickup.Queued,
	}
	same := func() {
		w.Helper()
		for id, delivery := range want {
			if got := w.getPickup(id); got.Delivery != delivery {
				w.Errorf("code %d is %+v, want %q", id, got, delivery)
			}
		}
	}
	w.clock.Set(queued.Expires.Add(-time.Millisecond))
	n, err := w.engine.SweepPickups(w.ctx, w.clock.Now())
	w.check(err)
	if n != 0 || !slices.Equal(w.outbox(), before) {
		w.Errorf("before anything is due a sweep moved %d", n)
	}
	w.clock.Set(queued.Expires)
	w.sweepPickups()
	w.wantOutbox(delivery.Item{MachineID: m.ID, Kind: delivery.KindDisconnect},
		delivery.Item{MachineID: m.ID, Kind: delivery.KindCreate, CodeID: later.ID})
	same()
	for _, c := range []pickup.Code{queued, sent, received} {
		if got := w.getPickup(c.ID); got.State(w.clock.Now()) != pickup.StateExpired {
			w.Errorf("the code is %+v", got)
		}
	}
	n, err = w.engine.SweepPickups(w.ctx, w.clock.Now())
	w.check(err)
	if n != 0 {
		w.Errorf("with nothing left a sweep moved %d", n)
	}
	w.clock.Set(queued.Expires.Add(-time.Second))
	w.sweepPickups()
	same()
	w.clock.Add(100 * 24 * time.Hour)
	w.sweepPickups()
	same()
	w.wantOutbox(delivery.Item{MachineID: m.ID, Kind: delivery.KindDisconnect})
	if w.entries() != entries {
		w.Error("a sweep is in the ledger")
	}
	w.used(queued)
	w.wantDelivery(queued, pickup.Received)
	w.audit()
}

// A sweep goes in steps that make way for others.
func testDeliverySteps(w *world) {
	m := w.stocked("00000001", 1)
	const count = 700
	won := w.race(20, func(int) error {
		for range count / 20 {
			if _, err := w.pickups.Create(w.ctx, w.root, order(m, 1)); err != nil {
				return err
			}
		}
		return nil
	})
	if won != 20 {
		w.FailNow()
	}
	for _, d := range []time.Duration{time.Hour, -time.Hour, time.Hour} {
		w.clock.Add(d)
		steps, sum := 0, int64(0)
		for {
			n, err := w.engine.SweepPickups(w.ctx, w.clock.Now())
			w.check(err)
			if n == 0 {
				break
			}
			if n > stepMax {
				w.Errorf("a step moved %d", n)
			}
			sum += n
			steps++
		}
		if steps < 2 || sum < count {
			w.Errorf("%d steps moved %d", steps, sum)
		}
		left := len(w.outbox())
		if d > 0 && left != 0 || d < 0 && left != count {
			w.Errorf("%d wait", left)
		}
	}
	w.audit()
}

func testDeliveryBacklog(w *world) {
	m := w.stocked("00000001", 1)
	wantOf := func(all bool, entries int64, oldest time.Time) {
		w.Helper()
		got, err := w.engine.Backlog(w.ctx, all)
		w.check(err)
		if got.Entries != entries || !got.Oldest.Equal(oldest) {
			w.Errorf("the backlog is %+v, want %d since %v; all: %v", got, entries, oldest, all)
		}
	}
	want := func(entries int64, oldest time.Time) {
		w.Helper()
		wantOf(true, entries, oldest)
		wantOf(false, entries, oldest)
	}
	want(0, time.Time{})
	start := w.clock.Now()
	first := w.pickup(m, 1)
	w.clock.Add(time.Second)
	w.pickup(m, 1)
	want(2, start)
	w.used(first)
	want(1, start.Add(time.Second))
	w.received(m)
	want(0, time.Time{})

	// What another broker has waits for what the machine says, until it is to be
	// sent again.
	start = w.clock.Now()
	m = w.stocked("00000002", 1)
	w.newCode(m, 0)
	w.relayed(w.claim("first").Items)
	w.clock.Add(time.Second)
	later := w.clock.Now()
	w.newCode(m, 0)
	wantOf(true, 2, start)
	wantOf(false, 1, later)
	w.relayed(w.claim("first").Items)
	wantOf(true, 2, start)
	wantOf(false, 0, time.Time{})
	w.clock.Add(time.Hour)
	w.hear(m, true)
	want(2, w.clock.Now())
	again := w.clock.Now()
	w.clock.Add(time.Minute)
	w.hear(m, true) // what waits does so since then all the same
	want(2, again)
}

// Creates, withdrawals, reports and acknowledgements of many machines at once:
// nothing is lost, and whoever follows the outbox misses nothing.
func testDeliveryRace(w *world) {
	const machines, rounds = 6, 25
	done := make(chan struct{})
	seen := map[int64]bool{}
	var followed []int64
	ended := make(chan error, 1)
	go func() { // the follower
		last := int64(0)
		for finished := false; ; {
			select {
			case <-done:
				finished = true
			default:
			}
			items, err := w.engine.Since(w.ctx, last, 16)
			if err != nil || len(items) == 0 && finished {
				ended <- err
				return
			}
			for _, i := range items {
				if seen[i.ID] {
					w.Errorf("entry %d came twice", i.ID)
				}
				seen[i.ID], last = true, i.ID
				followed = append(followed, i.CodeID)
			}
		}
	}()
	fleet := make([]fleet.Machine, machines)
	codes := make([][]pickup.Code, machines)
	for i := range fleet {
		fleet[i] = w.stocked([]string{"00000000", "00000001", "00000002", "00000003", "00000004", "00000005"}[i], 1)
	}
	won := w.race(machines, func(i int) error {
		for n := range rounds {
			c, err := w.pickups.Create(w.ctx, w.root, order(fleet[i], 1))
			if err != nil {
				return err
			}
			codes[i] = append(codes[i], c)
			switch n % 3 {
			case 1:
				err = w.pickups.Withdraw(w.ctx, w.root, c.ID)
			case 2:
				_, err = w.pickups.Used(w.ctx, c.MachineID, c.ID, machineAddress, time.Time{})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	close(done)
	if err := <-ended; err != nil || won != machines {
		w.Fatalf("%d of %d made it, the follower ends with %v", won, machines, err)
	}
	waits := map[int64]delivery.Kind{}
	for _, i := range w.outbox() {
		waits[i.CodeID] = i.Kind
	}
	for i := range codes {
		for n, c := range codes[i] {
			if want := []delivery.Kind{delivery.KindCreate, delivery.KindDelete, 0}[n%3]; waits[c.ID] != want {
				w.Errorf("of code %d waits %d, want %d", c.ID, waits[c.ID], want)
			}
			if n%3 != 2 && !slices.Contains(followed, c.ID) {
				w.Errorf("the follower heard nothing of code %d", c.ID)
			}
		}
	}
	w.audit()
}
