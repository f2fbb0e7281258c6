package storetest

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
)

// claimTests are of what waits to be sent through a broker that is not ours.
func claimTests() map[string]func(w *world) {
	return map[string]func(w *world){
		"Speaker":       claimSpeaker,
		"Lease":         claimLease,
		"LeaseRace":     claimLeaseRace,
		"Pages":         claimPages,
		"Tidy":          claimTidy,
		"Back":          claimBack,
		"BackLate":      claimBackLate,
		"BackSwitched":  claimBackSwitched,
		"BackMeanwhile": claimBackMeanwhile,
		"BackRace":      claimBackRace,
	}
}

// relayTests run a Relay over the engine, with a broker that does as the test
// says. Time is that of synctest.
func relayTests() map[string]func(w *world) {
	return map[string]func(w *world){
		"Order":      relayOrder,
		"Failures":   relayFailures,
		"Unheard":    relayUnheard,
		"Brokerless": relayBrokerless,
		"LeaseLost":  relayLeaseLost,
		"Disconnect": relayDisconnect,
		"Full":       relayFull,
		"Crowd":      relayCrowd,
		"LeaseOver":  relayLeaseOver,
		"TakenOver":  relayTakenOver,
		"Settling":   relaySettling,
	}
}

const leaseFor = 5 * time.Second

// claim is what a holder claims now, from the beginning.
func (w *world) claim(holder string, held ...int64) delivery.Claimed {
	w.Helper()
	now := w.clock.Now()
	got, err := w.engine.Claim(w.ctx, delivery.Claim{
		Holder: holder, Began: now, Now: now, Until: now.Add(leaseFor), Held: held, Most: 100,
	})
	w.check(err)
	w.ascending(got.Items)
	return got
}

// wantClaim checks which codes a holder claims.
func (w *world) wantClaim(holder string, want ...int64) []delivery.Item {
	w.Helper()
	got := w.claim(holder)
	if ids := codesOf(got.Items); !slices.Equal(ids, want) {
		w.Errorf("%s claims %v, want %v", holder, ids, want)
	}
	for _, i := range got.Items {
		if got.Leases[i.MachineID].Before(w.clock.Now().Add(leaseFor / 2)) {
			w.Errorf("the lease on machine %d ends at %v", i.MachineID, got.Leases[i.MachineID])
		}
	}
	return got.Items
}

func codesOf(items []delivery.Item) (ids []int64) {
	for _, i := range items {
		ids = append(ids, i.CodeID)
	}
	return ids
}

// relayed writes that the broker has items.
func (w *world) relayed(items []delivery.Item) {
	w.Helper()
	var progress []delivery.Progress
	for _, i := range items {
		progress = append(progress, delivery.Progress{ID: i.ID, Stage: delivery.Relayed, Round: i.Round})
	}
	w.check(w.engine.Advance(w.ctx, progress))
}

func (w *world) hear(m fleet.Machine, back bool) {
	w.Helper()
	w.check(w.engine.See(w.ctx, []fleet.Sighting{{MachineID: m.ID, Presence: fleet.Heard, At: w.clock.Now(), Back: back}}))
}

func (w *world) newCode(m fleet.Machine, ttl time.Duration) pickup.Code {
	w.Helper()
	c, err := w.pickups.Create(w.ctx, w.root, pickup.Request{MachineNo: m.No, ProductID: 1, Quantity: 1, TTL: ttl, AllowMore: true})
	w.check(err)
	return c
}

func claimSpeaker(w *world) {
	m := w.stocked("10000001", 1)
	id, owner, err := w.fleet.Speaker(w.ctx, m.No)
	if err != nil || id != m.ID || owner.ID != m.MerchantID || owner.AppKey == "" {
		w.Errorf("got %d of %+v, %v", id, owner, err)
	}
	_, _, err = w.fleet.Speaker(w.ctx, "10000002")
	w.refused(err, "machine_not_found")
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, m.No))
	_, _, err = w.fleet.Speaker(w.ctx, m.No)
	w.refused(err, "machine_not_found")
}

func claimLease(w *world) {
	m, other := w.stocked("10000001", 1), w.stocked("10000002", 1)
	a := w.newCode(m, 0)
	w.wantClaim("first", a.ID)
	b := w.newCode(other, 0)
	c := w.newCode(m, 0)
	w.wantClaim("second", b.ID)
	w.wantClaim("first", a.ID, c.ID)
	w.clock.Add(leaseFor - time.Millisecond)
	w.wantClaim("second", b.ID) // renewed
	w.wantClaim("third")
	w.clock.Add(time.Millisecond)
	w.wantClaim("third", a.ID, c.ID) // the first is dead
	got := w.claim("first", m.ID)
	if _, ok := got.Leases[m.ID]; ok || got.Items != nil {
		w.Errorf("another one's lease is renewed: %+v", got)
	}
	if got := w.claim("third", m.ID, other.ID); len(got.Leases) != 1 || !got.Leases[m.ID].Equal(w.clock.Now().Add(leaseFor)) {
		w.Errorf("got the leases %v", got.Leases)
	}
	// A machine that was somebody else's when a walk began stays so for all of it.
	began := w.clock.Now()
	w.clock.Add(leaseFor)
	walk, err := w.engine.Claim(w.ctx, delivery.Claim{
		Holder: "first", Began: began, Now: w.clock.Now(), Until: w.clock.Now().Add(leaseFor), Most: 10,
	})
	w.check(err)
	if walk.Items != nil {
		w.Errorf("got %+v", walk.Items)
	}
}

// claimLeaseRace has many ask for the same machines at once, over two handles.
func claimLeaseRace(w *world) {
	const machines, holders = 8, 6
	for i := range machines {
		m := w.stocked(strconv.Itoa(10000001+i), 1)
		w.newCode(m, 0)
	}
	handles := []*world{w, w.on(w.handle(testSecret))}
	for range 4 {
		w.clock.Add(2 * leaseFor)
		got := make([]delivery.Claimed, holders)
		w.race(holders, func(i int) (err error) {
			now := w.clock.Now()
			got[i], err = handles[i%2].engine.Claim(w.ctx, delivery.Claim{
				Holder: strconv.Itoa(i), Began: now, Now: now, Until: now.Add(leaseFor), Most: 100,
			})
			return err
		})
		holder := map[int64]int{}
		for i := range got {
			for _, item := range got[i].Items {
				if by, taken := holder[item.MachineID]; taken {
					w.Fatalf("machine %d is leased to %d and %d", item.MachineID, by, i)
				}
				holder[item.MachineID] = i
			}
		}
		if len(holder) != machines {
			w.Fatalf("%d machines are leased, want %d", len(holder), machines)
		}
	}
}

func claimPages(w *world) {
	m, other := w.stocked("10000001", 1), w.stocked("10000002", 1)
	var want, got []int64
	for range 5 {
		want = append(want, w.newCode(m, 0).ID, w.newCode(other, 0).ID)
	}
	now := w.clock.Now()
	c := delivery.Claim{Holder: "first", Began: now, Now: now, Until: now.Add(leaseFor), Most: 4}
	for page := range 3 {
		claimed, err := w.engine.Claim(w.ctx, c)
		w.check(err)
		got = append(got, codesOf(claimed.Items)...)
		if c.After = claimed.Last; (c.After == 0) != (page == 2) {
			w.Errorf("page %d ends at %d", page, c.After)
		}
	}
	if !slices.Equal(got, want) {
		w.Errorf("got %v, want %v", got, want)
	}
	// What others have leased takes no room.
	third := w.stocked("10000003", 1)
	last := w.newCode(third, 0)
	c.Holder, c.After, c.Most = "second", 0, 1
	claimed, err := w.engine.Claim(w.ctx, c)
	w.check(err)
	if ids := codesOf(claimed.Items); !slices.Equal(ids, []int64{last.ID}) {
		w.Errorf("got %v, want %d", ids, last.ID)
	}
}

func claimTidy(w *world) {
	m := w.stocked("10000001", 1)
	c := w.newCode(m, 0)
	w.wantClaim("first", c.ID)
	tidy := func(before time.Time) {
		w.Helper()
		_, err := w.engine.Claim(w.ctx, delivery.Claim{Holder: "second", Tidy: before})
		w.check(err)
	}
	tidy(w.clock.Now().Add(leaseFor))
	w.wantClaim("second") // it has not ended before then
	tidy(w.clock.Now().Add(leaseFor + time.Millisecond))
	w.wantClaim("second", c.ID)
}

// claimBack: a machine that comes back is to be told all that it should hold.
func claimBack(w *world) {
	m, other := w.stocked("10000001", 1), w.stocked("10000002", 1)
	known, withdrawn, used, old := w.newCode(m, 0), w.newCode(m, 0), w.newCode(m, 0), w.newCode(m, time.Minute)
	elsewhere := w.newCode(other, 0)
	w.received(m) // at a broker of ours
	w.check(w.pickups.Withdraw(w.ctx, w.root, withdrawn.ID))
	fresh, short := w.newCode(m, 0), w.newCode(m, time.Minute)
	_, err := w.pickups.Used(w.ctx, m.ID, used.ID, "", time.Time{})
	w.check(err)
	w.wantDelivery(known, pickup.Received)
	w.relayed(w.wantClaim("first", elsewhere.ID, withdrawn.ID, fresh.ID, short.ID))
	w.clock.Add(2 * time.Minute) // old and short have expired, and nobody has swept
	w.wantClaim("first")
	w.wantDelivery(fresh, pickup.Sent)

	all := []int64{withdrawn.ID, fresh.ID, known.ID}
	comesBack := func() {
		w.Helper()
		for range 2 { // what is heard first may be from before it left
			w.hear(m, false)
			w.relayed(w.wantClaim("first", all...))
		}
	}
	comesBack()
	w.wantDelivery(known, pickup.Sent) // it was, and nobody can tell what has become of it
	w.clock.Add(9 * time.Minute)
	w.hear(m, false)
	w.wantClaim("first") // it has not been away
	w.hear(m, true)
	w.relayed(w.wantClaim("first", all...))
	w.hear(m, false)
	w.wantClaim("first") // that it was back is sure
	w.clock.Add(11 * time.Minute)
	comesBack()
	w.hear(m, false)
	w.wantClaim("first")
	w.check(w.engine.See(w.ctx, []fleet.Sighting{{MachineID: m.ID, Presence: fleet.Offline}}))
	w.wantClaim("first")
	comesBack()
	w.check(w.engine.See(w.ctx, []fleet.Sighting{{MachineID: m.ID, Presence: fleet.Offline}}))
	w.hear(m, false)
	w.relayed(w.wantClaim("first", all...))
	w.clock.Add(11 * time.Minute) // and it was silent once more
	comesBack()
	w.check(w.engine.Miss(w.ctx)) // the broker was away
	w.wantOnline(m, true)
	w.wantClaim("first")
	w.hear(m, false)
	w.relayed(w.wantClaim("first", withdrawn.ID, fresh.ID, known.ID))
	w.hear(m, false)
	w.wantClaim("first")
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, m.No))
	w.hear(m, true)
	if got := w.claim("first").Items; len(got) != 1 || got[0].Kind != delivery.KindDisconnect {
		w.Errorf("a machine that is gone is told %+v", got)
	}
	w.wantDelivery(old, pickup.Received)
}

// claimBackLate: what a machine has said before it left is heard by another server
// after that has heard that it left. Its return still counts.
func claimBackLate(w *world) {
	m := w.stocked("10000001", 1)
	w.hear(m, true)
	w.clock.Add(time.Second)
	w.check(w.engine.See(w.ctx, []fleet.Sighting{{MachineID: m.ID, Presence: fleet.Offline, At: w.clock.Now()}}))
	c := w.newCode(m, 0)
	w.relayed(w.wantClaim("first", c.ID)) // to nobody
	w.clock.Add(time.Second)
	w.hear(m, false)                      // late
	w.relayed(w.wantClaim("first", c.ID)) // to nobody
	w.clock.Add(time.Minute)
	w.hear(m, false)
	w.relayed(w.wantClaim("first", c.ID))
	w.hear(m, false)
	w.wantClaim("first")
}

// claimBackSwitched: a machine that was connected to the broker of a server that
// was killed comes to another broker.
func claimBackSwitched(w *world) {
	m := w.stocked("10000001", 1)
	connected := func() {
		w.Helper()
		w.check(w.engine.See(w.ctx, []fleet.Sighting{{MachineID: m.ID, Presence: fleet.Connected, At: w.clock.Now()}}))
	}
	c := w.newCode(m, 0)
	w.received(m)
	connected()
	for range 2 {
		w.hear(m, false)
		w.relayed(w.wantClaim("first", c.ID))
	}
	// It may be there still, when a server comes that has the other broker.
	connected()
	w.check(w.engine.Miss(w.ctx))
	w.wantOnline(m, true)
	connected()
	w.wantOnline(m, true)
	w.check(w.engine.Miss(w.ctx))
	w.hear(m, false)
	w.relayed(w.wantClaim("first", c.ID))
	connected()
	w.check(w.engine.Miss(w.ctx))
	w.clock.Add(fleet.SilentFor) // it was not heard of anywhere
	w.wantOnline(m, false)
}

func (w *world) wantOnline(m fleet.Machine, want bool) {
	w.Helper()
	got, err := w.fleet.Machine(w.ctx, w.root, m.No)
	w.check(err)
	if got.Online(w.clock.Now()) != want {
		w.Errorf("online is %t, with presence %d", !want, got.Presence)
	}
}

// claimBackMeanwhile: that the broker has taken a message does not count if the
// machine came back since it was claimed: it may have been sent to nobody.
func claimBackMeanwhile(w *world) {
	m := w.stocked("10000001", 1)
	c := w.newCode(m, 0)
	claimed := w.wantClaim("first", c.ID)
	w.hear(m, true)
	w.relayed(claimed)
	w.wantDelivery(c, pickup.Sent)
	w.relayed(w.wantClaim("first", c.ID))
	w.relayed(claimed)
	w.wantClaim("first")
}

// claimBackRace has a machine come back while its codes change.
func claimBackRace(w *world) {
	m := w.stocked("10000001", 1)
	var codes []pickup.Code
	for range 12 {
		codes = append(codes, w.newCode(m, 0))
	}
	w.received(m)
	other := w.on(w.handle(testSecret))
	w.race(2*len(codes), func(i int) error {
		c := codes[i/2]
		switch i % 4 {
		case 0:
			return w.pickups.Withdraw(w.ctx, w.root, c.ID)
		case 2:
			_, err := w.pickups.Used(w.ctx, m.ID, c.ID, "", time.Time{})
			return err
		}
		return other.engine.See(w.ctx, []fleet.Sighting{{MachineID: m.ID, Presence: fleet.Heard, At: w.clock.Now(), Back: true}})
	})
	var want []int64
	for i := 0; i < len(codes); i += 2 { // the others are used
		want = append(want, codes[i].ID)
	}
	got := w.claim("first").Items
	if ids := codesOf(got); !slices.Equal(slices.Sorted(slices.Values(ids)), want) {
		w.Errorf("claimed %v, want the withdrawals of %v", ids, want)
	}
	for _, i := range got {
		if i.Kind != delivery.KindDelete {
			w.Errorf("got %+v", i)
		}
	}
}

// station is a Relay with a broker that does as the test says.
type station struct {
	*line
	relay *delivery.Relay
	stop  func()
	// slow, if it is set, is called between the writing of a message and its sending.
	slow func(ctx context.Context)
	// cut counts the messages that were given up before they were acknowledged, and
	// away says that the database does not answer.
	cut  atomic.Int64
	away atomic.Bool
}

// paged is the database of a station. It is asked for whole pages alone: each length
// is a statement of its own.
type paged struct {
	delivery.Store
	*station
}

func (p paged) Claim(ctx context.Context, c delivery.Claim) (delivery.Claimed, error) {
	if c.Most != 0 && c.Most != 512 {
		p.Errorf("asked for %d entries", c.Most)
	}
	if p.away.Load() {
		return delivery.Claimed{}, errors.New("the database is away")
	}
	return p.Store.Claim(ctx, c)
}

// relaying runs test in a bubble with a Relay, whose broker acknowledges what the
// test does.
func (w *world) relaying(test func(s *station)) {
	w.Helper()
	synctest.Test(w.T, func(t *testing.T) {
		inside := *w
		inside.T, inside.ctx = t, t.Context()
		s := inside.station()
		s.relay.Up()
		test(s)
		s.stop()
	})
}

func (w *world) station() *station {
	s := &station{line: &line{world: w, sent: make(chan sending, 1000), disconnected: make(chan int64, 10)}}
	s.relay = delivery.NewRelay(paged{w.engine, s}, w.clock.Now, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(w.ctx)
	var running sync.WaitGroup
	running.Go(func() { s.relay.Run(ctx, s) })
	s.stop = func() {
		cancel()
		running.Wait()
	}
	return s
}

// Send implements delivery.Sender: it waits for the acknowledgement.
func (s *station) Send(ctx context.Context, item delivery.Item, _ func()) (bool, error) {
	if s.slow != nil {
		s.slow(ctx)
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	got := make(chan struct{})
	if _, err := s.line.Send(ctx, item, sync.OnceFunc(func() { close(got) })); err != nil {
		return false, err
	}
	select {
	case <-got:
		return false, nil
	case <-ctx.Done():
		s.cut.Add(1)
		return false, ctx.Err()
	}
}

func relayOrder(w *world) {
	w.relaying(func(s *station) {
		m, other := s.stocked("10000001", 1), s.stocked("10000002", 1)
		ids := s.codes(m, 3)
		first := s.next()
		if first.CodeID != ids[0] || first.Kind != delivery.KindCreate {
			s.Fatalf("got %+v", first.Item)
		}
		s.quiet(time.Second) // the second waits for the first
		s.acknowledged(s.codes(other, 2)...)
		more := s.codes(m, 1)
		first.acknowledged()
		s.acknowledged(ids[1], ids[2], more[0])
		s.quiet(time.Minute)
		if got := s.delivery(ids[0]); got != pickup.Sent {
			s.Errorf("delivery is %s", got)
		}
		s.hear(m, true)
		s.acknowledged(ids[0], ids[1], ids[2], more[0])
		s.quiet(time.Minute)
	})
}

func relayFailures(w *world) {
	w.relaying(func(s *station) {
		m, other := s.stocked("10000001", 1), s.stocked("10000002", 1)
		poison := s.codes(m, 1)[0]
		var mu sync.Mutex
		tries := 0
		s.fail = func(i delivery.Item) error {
			mu.Lock()
			defer mu.Unlock()
			if i.CodeID == poison && tries < 4 {
				tries++
				return errors.New("it does not go")
			}
			return nil
		}
		s.acknowledged(s.codes(other, 1)...)
		s.acknowledged(s.codes(m, 2)...) // what fails holds up nobody
		s.quiet(time.Minute)
		mu.Lock()
		if tries != 1 {
			s.Errorf("%d tries while no time has passed", tries)
		}
		mu.Unlock()
		for range 3 {
			s.clock.Add(30 * time.Second)
			s.quiet(time.Second)
		}
		s.clock.Add(30 * time.Second)
		s.acknowledged(poison)
		s.quiet(time.Minute)
	})
}

// relayUnheard: what nobody listens for is tried for a moment, and then waits for
// the machine to come back.
func relayUnheard(w *world) {
	w.relaying(func(s *station) {
		m, other := s.stocked("10000001", 1), s.stocked("10000002", 1)
		var tries atomic.Int64
		s.fail = func(i delivery.Item) error {
			if i.MachineID == m.ID {
				tries.Add(1)
				return delivery.ErrUnheard
			}
			return nil
		}
		lost := s.codes(m, 1)[0]
		s.acknowledged(s.codes(other, 1)...)
		for range 100 {
			if got := s.delivery(lost); (got == pickup.Sent) != (tries.Load() == 9) && tries.Load() < 9 {
				s.Fatalf("after %d tries delivery is %s", tries.Load(), got)
			}
			s.clock.Add(time.Second)
			s.quiet(time.Second)
		}
		if tries.Load() != 9 || s.delivery(lost) != pickup.Sent {
			s.Errorf("after %d tries delivery is %s", tries.Load(), s.delivery(lost))
		}
		s.hear(m, true)
		s.quiet(time.Second)
		if tries.Load() == 9 {
			s.Error("the machine has come back, and is told nothing")
		}
	})
}

func relayBrokerless(w *world) {
	w.relaying(func(s *station) {
		m := s.stocked("10000001", 1)
		s.relay.Down()
		ids := s.codes(m, 2)
		s.quiet(time.Minute)
		s.wantClaim("another", ids...) // who has a broker may
		s.clock.Add(leaseFor)
		s.relay.Up()
		first := s.next()
		s.relay.Down()
		first.acknowledged()
		s.quiet(time.Minute)
		s.relay.Up()
		s.acknowledged(ids[1])
		s.quiet(time.Minute)
	})
}

// relayLeaseLost: what is not sent when the lease ends is left to who has it then.
func relayLeaseLost(w *world) {
	w.relaying(func(s *station) {
		m := s.stocked("10000001", 1)
		ids := s.codes(m, 2)
		first := s.next()
		// Another one's clock is ahead.
		now := s.clock.Now().Add(leaseFor)
		got, err := s.engine.Claim(s.ctx, delivery.Claim{Holder: "another", Began: now, Now: now, Until: now.Add(leaseFor), Most: 10})
		s.check(err)
		if want := ids; !slices.Equal(codesOf(got.Items), want) {
			s.Fatalf("got %v", codesOf(got.Items))
		}
		s.clock.Add(leaseFor/2 + 100*time.Millisecond)
		s.quiet(time.Second) // when it wants to renew the lease, the relay hears of it
		first.acknowledged()
		s.quiet(time.Minute)
		s.clock.Add(2 * leaseFor)
		second := s.next()
		// And when it cannot ask anybody, it goes by its own clock.
		s.codes(m, 1)
		s.quiet(time.Second + time.Millisecond) // between two of its looks
		synctest.Wait()
		s.clock.Add(leaseFor - time.Second)
		second.acknowledged()
		synctest.Wait()
		if len(s.sent) > 0 {
			s.Errorf("%+v is sent although the lease is about to end", (<-s.sent).Item)
		}
	})
}

// relayFull: with more than there is room for, a machine is kept all the same until
// all of it is sent.
func relayFull(w *world) {
	w.relaying(func(s *station) {
		const each = 900 // three times that is more than there is room for
		var machines []fleet.Machine
		for i := range 3 {
			m := s.stocked(strconv.Itoa(10000001+i), 1)
			machines = append(machines, m)
			var makers sync.WaitGroup
			for range 9 {
				makers.Go(func() { s.codes(m, each/9) })
			}
			makers.Wait()
		}
		var flying []sending
		for range machines {
			flying = append(flying, s.next())
		}
		for range 15 {
			s.clock.Add(leaseFor / 3)
			s.quiet(time.Second)
		}
		s.wantClaim("another")
		for n := range len(machines) * each {
			flying[0].acknowledged()
			flying = flying[1:]
			if n < len(machines)*(each-1) {
				flying = append(flying, s.next())
			}
		}
		s.quiet(time.Second)
		s.clock.Add(leaseFor)
		s.wantClaim("another")
	})
}

// crowd makes n machines with a code each.
func (s *station) crowd(first, n int) {
	s.Helper()
	merchant := s.merchant(strconv.Itoa(first))
	var makers sync.WaitGroup
	for i := range 16 {
		makers.Go(func() {
			for no := first + i; no < first+n; no += 16 {
				m, err := s.fleet.CreateMachine(s.ctx, s.root, fleet.Machine{
					MerchantID: merchant.ID, No: strconv.Itoa(no), Name: "m", Zone: "Asia/Shanghai", PurchaseLimit: 1, PickupCodes: true,
				}, "", nil)
				s.check(err)
				s.product(m, 1)
				s.codes(m, 1)
			}
		})
	}
	makers.Wait()
}

// relayCrowd: a relay that loses as many machines as there is room for takes no
// others until those have left it.
func relayCrowd(w *world) {
	w.relaying(func(s *station) {
		const many, others = 2048, 300
		s.relay.Down()
		s.crowd(10000001, many)
		release := make(chan struct{})
		s.slow = func(context.Context) { <-release }
		s.relay.Up()
		s.quiet(time.Second)
		lease := func(holder string, at time.Time, want int) {
			s.Helper()
			got, err := s.engine.Claim(s.ctx, delivery.Claim{Holder: holder, Began: at, Now: at, Until: at.Add(leaseFor), Most: 2 * many})
			s.check(err)
			if len(got.Items) != want {
				s.Fatalf("%s claims %d entries, want %d", holder, len(got.Items), want)
			}
		}
		lease("another", s.clock.Now().Add(leaseFor), many) // its clock is ahead
		s.clock.Add(leaseFor/2 + 100*time.Millisecond)
		s.quiet(time.Second) // when it wants to renew the leases, the relay hears of it
		s.crowd(20000001, others)
		s.quiet(time.Second)
		lease("a third", s.clock.Now(), others)
		s.clock.Add(3 * leaseFor)
		close(release)
		sent := map[int64]bool{}
		for len(sent) < many+others {
			next := s.within(time.Minute)
			sent[next.CodeID] = true
			next.acknowledged()
		}
	})
}

// relayLeaseOver: a message is given up with the lease, so that it does not come
// behind what others have sent.
func relayLeaseOver(w *world) {
	w.relaying(func(s *station) {
		s.relay.Down()
		m := s.stocked("10000001", 1)
		ids := s.codes(m, 2)
		// One that is written for so long is not sent any more, without a timer's help.
		var tries atomic.Int64
		s.slow = func(ctx context.Context) {
			if tries.Add(1) > 1 {
				return
			}
			s.clock.Add(leaseFor - time.Second - time.Millisecond)
			if err := ctx.Err(); err != nil {
				s.Errorf("a moment before the end of its time: %v", err)
			}
			s.clock.Add(time.Millisecond)
			if ctx.Err() == nil || context.Cause(ctx) == nil {
				s.Error("its time is over")
			}
			select {
			case <-ctx.Done():
			default:
				s.Error("it has ended, and is not done")
			}
		}
		s.relay.Up()
		s.acknowledged(ids[0])
		if n := tries.Load(); n < 2 {
			s.Errorf("sent after %d tries", n)
		}
		// Nor is one waited for that the broker does not acknowledge, unless the lease
		// is renewed.
		s.next()
		for range 4 {
			s.clock.Add(leaseFor - 2*time.Second)
			s.quiet(leaseFor)
		}
		cut := func(want int64) {
			s.Helper()
			if got := s.cut.Load(); got != want {
				s.Errorf("given up %d times, want %d", got, want)
			}
		}
		cut(0)
		s.away.Store(true)
		s.clock.Add(leaseFor - time.Second)
		s.quiet(leaseFor)
		cut(1)
		s.away.Store(false)
		s.next()
		// Nor when another one has got the lease, whatever this one's clock says.
		now := s.clock.Now().Add(leaseFor)
		got, err := s.engine.Claim(s.ctx, delivery.Claim{Holder: "another", Began: now, Now: now, Until: now.Add(leaseFor), Most: 10})
		s.check(err)
		if !slices.Equal(codesOf(got.Items), ids[1:]) {
			s.Fatalf("got %v", codesOf(got.Items))
		}
		s.clock.Add(leaseFor/2 + 100*time.Millisecond)
		s.quiet(time.Second)
		cut(2)
		s.clock.Add(2 * leaseFor)
		// Nor when it may have been another one's before it is renewed.
		s.next()
		s.away.Store(true)
		s.quiet(2 * time.Second) // the timer has two more
		s.clock.Add(2 * leaseFor)
		s.away.Store(false)
		s.acknowledged(ids[1])
		cut(3)
		s.quiet(time.Minute)
	})
}

// relayDisconnect: nobody can end a connection at a broker that is not ours.
func relayDisconnect(w *world) {
	w.relaying(func(s *station) {
		m := s.stocked("10000001", 1)
		s.check(s.fleet.RenewPassword(s.ctx, s.root, m.No, fleet.NewPassword(), nil))
		ids := s.codes(m, 1)
		s.acknowledged(ids...)
		s.quiet(time.Second)
		if got := codesOf(s.world.outbox()); !slices.Equal(got, ids) {
			s.Errorf("the outbox holds %v", got)
		}
	})
}

// relayTakenOver: two relays share the machines; what one of them has leased when
// it dies is sent by the other.
func relayTakenOver(w *world) {
	w.relaying(func(s *station) {
		m, other := s.stocked("10000001", 1), s.stocked("10000002", 1)
		ids := s.codes(m, 2)
		s.next() // and is never acknowledged
		second := s.station()
		second.relay.Up()
		second.acknowledged(s.codes(other, 1)...)
		second.quiet(time.Minute)
		s.stop()
		second.quiet(time.Minute)
		s.clock.Add(leaseFor)
		second.acknowledged(ids...)
		second.stop()
	})
}

// relaySettling: a machine that is heard of has a moment to listen before it is
// told what it has missed.
func relaySettling(w *world) {
	synctest.Test(w.T, func(t *testing.T) {
		inside := *w
		inside.T, inside.ctx = t, t.Context()
		w := &inside
		watch := fleet.NewWatch(w.engine, w.clock.Now, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(w.ctx)
		var running sync.WaitGroup
		running.Go(func() { watch.Run(ctx) })
		m := w.stocked("10000001", 1)
		c := w.newCode(m, 0)
		w.relayed(w.wantClaim("first", c.ID))
		wait := func(d time.Duration, want ...int64) {
			t.Helper()
			time.Sleep(d) //nolint:forbidigo // in a bubble
			synctest.Wait()
			w.relayed(w.wantClaim("first", want...))
		}
		watch.Hear(m.ID, false)
		wait(time.Second - 1)
		watch.Hear(m.ID, false) // still from the first on
		wait(1, c.ID)
		watch.Hear(m.ID, false)
		wait(time.Second, c.ID) // the first may have been late
		watch.Hear(m.ID, false)
		wait(time.Minute) // it has not been away
		watch.Hear(m.ID, false)
		watch.Hear(m.ID, true)
		wait(time.Second, c.ID)
		watch.Hear(m.ID, true)
		watch.See(m.ID, fleet.Offline) // gone again
		wait(time.Minute)
		watch.Hear(m.ID, false)
		wait(time.Second, c.ID)
		cancel()
		running.Wait()

		// That it left may not be written when it is heard of.
		for _, back := range []bool{false, true} {
			watch.See(m.ID, fleet.Offline)
			watch.Hear(m.ID, back)
			wait(time.Second)
			ctx, cancel := context.WithCancel(w.ctx)
			running.Go(func() { watch.Run(ctx) })
			wait(0, c.ID)
			watch.Hear(m.ID, false)
			if back {
				wait(time.Second)
			} else {
				wait(time.Second, c.ID) // the first may have been late
			}
			watch.Hear(m.ID, false)
			wait(time.Second)
			cancel()
			running.Wait()
		}
	})
}
