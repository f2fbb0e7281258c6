package storetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// testFleetFind looks for machines in every way, in pages, and compares with what
// each machine says of itself.
func testFleetFind(w *world) {
	lobby, kiosk := w.merchant("lobbies"), w.merchant("kiosks")
	var all []fleet.Machine
	for i, name := range []string{"Lobby 1", "lobby_2", "50% off", "大堂 一号", "Kiosk", "LOBBY west", "x"} {
		owner := lobby.ID
		if i%3 == 0 {
			owner = kiosk.ID
		}
		m, err := w.fleet.CreateMachine(w.ctx, w.root, fleet.Machine{
			MerchantID: owner, No: fmt.Sprintf("1632%04d", i*111), Name: name, Zone: "UTC", PurchaseLimit: 1,
		}, "password", nil)
		w.check(err)
		all = append(all, m)
	}
	gone := w.machine("16329999")
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, gone.No))
	now := w.clock.Now()
	see := func(i int, p fleet.Presence, at time.Time) {
		w.check(w.engine.See(w.ctx, []fleet.Sighting{{MachineID: all[i].ID, Presence: p, At: at}}))
	}
	see(0, fleet.Connected, now.Add(-time.Hour))
	see(1, fleet.Heard, now)
	see(2, fleet.Heard, now.Add(-fleet.SilentFor))
	see(3, fleet.Heard, now.Add(-fleet.SilentFor+time.Millisecond))
	see(4, fleet.Connected, now)
	see(4, fleet.Offline, now)

	for _, search := range []string{"", "lobby", " LOBBY ", "_", "%", "大堂", "1632", "16320222", "6320", "0", "50% off", `\`, "nothing"} {
		for _, merchant := range []int64{0, lobby.ID, kiosk.ID, 999} {
			for _, online := range []*bool{nil, new(true), new(false)} {
				var want []int64
				for _, m := range slices.Backward(all) {
					m, err := w.fleet.Machine(w.ctx, w.root, m.No)
					w.check(err)
					text := strings.ToLower(strings.TrimSpace(search))
					if (strings.Contains(strings.ToLower(m.Name), text) || strings.HasPrefix(m.No, text)) &&
						(merchant == 0 || m.MerchantID == merchant) && (online == nil || m.Online(now) == *online) {
						want = append(want, m.ID)
					}
				}
				w.pages(want, func(before int64, limit int) (page []int64, err error) {
					list, err := w.fleet.Find(w.ctx, w.root, fleet.MachineQuery{
						Search: search, Merchant: merchant, Online: online, Before: before, Limit: limit,
					})
					for _, m := range list {
						page = append(page, m.ID)
					}
					return page, err
				})
			}
		}
	}
	var online int
	for i := range all {
		m, err := w.fleet.Machine(w.ctx, w.root, all[i].No)
		w.check(err)
		if m.Online(now) {
			online++
		}
	}
	if online != 3 {
		w.Errorf("%d machines are online, want 3", online)
	}
	_, err := w.fleet.Find(w.ctx, w.user("u", 0), fleet.MachineQuery{Limit: 1})
	w.refused(err, refusal.Forbidden)
}

func (w *world) unheard(machines ...fleet.Machine) map[int64]pickup.Waiting {
	w.Helper()
	ids := make([]int64, len(machines))
	for i, m := range machines {
		ids[i] = m.ID
	}
	got, err := w.pickups.Waiting(w.ctx, w.root, ids)
	w.check(err)
	return got
}

// wantWaiting checks what waits for machines. Times are compared as instants.
func (w *world) wantWaiting(what string, got, want map[int64]pickup.Waiting) {
	w.Helper()
	if !maps.EqualFunc(got, want, func(a, b pickup.Waiting) bool {
		same := a.Oldest.Equal(b.Oldest)
		a.Oldest, b.Oldest = time.Time{}, time.Time{}
		return same && a == b
	}) {
		w.Errorf("%s: waiting is %+v, want %+v", what, got, want)
	}
}

func testPickupWaiting(w *world) {
	a, b, idle := w.stocked("00000001", 1), w.stocked("00000002", 1), w.stocked("00000003", 1)
	start := w.clock.Now()
	first := w.pickup(a, 1)
	w.clock.Add(time.Second)
	second, third := w.pickup(a, 1), w.pickup(b, 1)
	w.check(w.fleet.RenewPassword(w.ctx, w.root, idle.No, "new", nil)) // an entry about no code
	all := []fleet.Machine{a, b, idle, {ID: 999}}
	of := func(live, queued, sent int, oldest time.Time) pickup.Waiting {
		return pickup.Waiting{Live: live, Queued: queued, Sent: sent, Oldest: oldest}
	}
	w.wantWaiting("new", w.unheard(all...), map[int64]pickup.Waiting{
		a.ID: of(2, 2, 0, start), b.ID: of(1, 1, 0, start.Add(time.Second)),
	})
	w.wantWaiting("of one", w.unheard(b), map[int64]pickup.Waiting{b.ID: of(1, 1, 0, start.Add(time.Second))})
	w.wantWaiting("of none", w.unheard(), map[int64]pickup.Waiting{})

	entry := func(c pickup.Code) int64 {
		for _, i := range w.outbox() {
			if i.CodeID == c.ID {
				return i.ID
			}
		}
		w.Fatalf("nothing waits of %d", c.ID)
		return 0
	}
	w.check(w.engine.Advance(w.ctx, []delivery.Progress{
		{ID: entry(first), Stage: delivery.Sent}, {ID: entry(third), Stage: delivery.Received},
	}))
	w.wantWaiting("sent and received", w.unheard(all...), map[int64]pickup.Waiting{
		a.ID: of(2, 1, 1, start), b.ID: of(1, 0, 0, time.Time{}),
	})
	w.clock.Add(time.Second)
	w.withdraw(first.ID)
	w.used(third)
	w.wantWaiting("withdrawn and used", w.unheard(all...), map[int64]pickup.Waiting{
		a.ID: of(1, 2, 0, start.Add(time.Second)),
	})
	// What has expired does not wait, swept or not.
	w.clock.Add(time.Hour)
	for range 2 {
		w.wantWaiting("expired", w.unheard(all...), map[int64]pickup.Waiting{})
		w.sweepPickups()
	}
	w.clock.Add(-time.Hour) // it was set wrong: what was swept is live
	w.wantWaiting("live after all", w.unheard(b, a), map[int64]pickup.Waiting{a.ID: of(1, 0, 0, time.Time{})})
	if c := w.getPickup(second.ID); c.State(w.clock.Now()) != pickup.StateLive {
		w.Errorf("the code is %+v", c)
	}
	_, err := w.pickups.Waiting(w.ctx, w.user("u", 0), []int64{a.ID})
	w.refused(err, refusal.Forbidden)
}

func testPickupSilent(w *world) {
	var machines []fleet.Machine
	for i := range 6 {
		machines = append(machines, w.stocked(fmt.Sprintf("0000000%d", i), 1))
	}
	want := func(limit int, order ...int) {
		w.Helper()
		got, err := w.pickups.Silent(w.ctx, w.root, limit)
		w.check(err)
		var nos, wanted []string
		for _, s := range got {
			nos = append(nos, s.No)
			w.wantWaiting("silent", map[int64]pickup.Waiting{s.ID: s.Waiting}, w.unheard(s.Machine))
		}
		for _, i := range order {
			wanted = append(wanted, machines[i].No)
		}
		if !slices.Equal(nos, wanted) {
			w.Errorf("silent are %v, want %v", nos, wanted)
		}
	}
	want(10)
	for _, i := range []int{3, 1, 4, 2, 1} {
		w.clock.Add(time.Second)
		w.pickup(machines[i], 1)
	}
	w.check(w.fleet.RenewPassword(w.ctx, w.root, machines[5].No, "new", nil)) // no code waits there
	want(10, 3, 1, 4, 2)
	want(2, 3, 1)
	want(0)

	// One that is online is not silent, though it has not acknowledged; one that was
	// heard of long ago is.
	see := func(i int, p fleet.Presence) {
		w.check(w.engine.See(w.ctx, []fleet.Sighting{{MachineID: machines[i].ID, Presence: p, At: w.clock.Now()}}))
	}
	see(3, fleet.Connected)
	see(1, fleet.Heard)
	want(10, 4, 2)
	w.clock.Add(fleet.SilentFor)
	want(10, 1, 4, 2)
	see(3, fleet.Offline)
	want(10, 3, 1, 4, 2)
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, machines[4].No))
	want(10, 3, 1, 2)
	w.clock.Add(time.Hour)
	want(10)
	_, err := w.pickups.Silent(w.ctx, w.user("u", 0), 1)
	w.refused(err, refusal.Forbidden)
}

// lateUse makes a late use.
func (w *world) lateUse(m fleet.Machine) pickup.Code {
	w.Helper()
	c := w.pickup(m, 1)
	w.withdraw(c.ID)
	return w.used(c)
}

func testPickupLateUses(w *world) {
	m, other := w.stocked("00000001", 1), w.stocked("00000002", 1)
	var ids []int64
	want := func() {
		w.Helper()
		newest := slices.Clone(ids)
		slices.Reverse(newest)
		w.pages(newest, func(before int64, limit int) (page []int64, err error) {
			list, count, err := w.pickups.LateUses(w.ctx, w.root, before, limit)
			for _, c := range list {
				page = append(page, c.ID)
				w.wantPickup(c, w.getPickup(c.ID))
				if !c.LateUse || c.Acknowledged || len(c.Digits) != 8 {
					w.Errorf("%+v is listed", c)
				}
			}
			if count != len(ids) {
				w.Errorf("%d are counted, want %d", count, len(ids))
			}
			return page, err
		})
		if list, count, err := w.pickups.LateUses(w.ctx, w.root, 0, 0); err != nil || len(list) > 0 || count != len(ids) {
			w.Errorf("counting alone: %d, %d listed, %v", count, len(list), err)
		}
	}
	want()
	inTime := w.pickup(m, 1)
	w.used(inTime)
	for _, at := range []fleet.Machine{m, other, m, m} {
		ids = append(ids, w.lateUse(at).ID)
	}
	want()

	// Once: from the second on nothing changes.
	u := w.user("u", 0)
	w.clock.Add(time.Second)
	var unchanged func()
	for round := range 2 {
		w.check(w.pickups.AcknowledgeLate(w.ctx, w.root, ids[0]))
		e := w.lastEntry()
		if e.Kind != account.KindPickupAcknowledge || e.FirstID != ids[0] || e.LastID != ids[0] || e.Count != 1 ||
			e.MachineID != m.ID || e.ActorID != w.root.ID || e.Address != w.root.Address || !e.At.Equal(w.clock.Now()) {
			w.Errorf("round %d: the entry is %+v", round, e)
		}
		if c := w.getPickup(ids[0]); !c.Acknowledged || !c.LateUse || c.Marked != pickup.StateUsed {
			w.Errorf("round %d: the code is %+v", round, c)
		}
		if round == 0 {
			unchanged = w.unchanged()
		}
	}
	w.check(w.pickups.AcknowledgeLate(w.ctx, w.root, inTime.ID))
	w.refused(w.pickups.AcknowledgeLate(w.ctx, w.root, 999), refusal.PickupNotFound)
	w.refused(w.pickups.AcknowledgeLate(w.ctx, u, ids[1]), refusal.Forbidden)
	_, err := w.pickups.AcknowledgeLateOf(w.ctx, u, m.No)
	w.refused(err, refusal.Forbidden)
	_, _, err = w.pickups.LateUses(w.ctx, u, 0, 1)
	w.refused(err, refusal.Forbidden)
	_, err = w.pickups.AcknowledgeLateOf(w.ctx, w.root, "00000009")
	w.refused(err, refusal.MachineNotFound)
	unchanged()
	ids = ids[1:]
	want()

	for _, n := range []int{2, 0} {
		before := w.entries()
		got, err := w.pickups.AcknowledgeLateOf(w.ctx, w.root, m.No)
		w.check(err)
		if got != n || w.entries()-before != int64(n) {
			w.Errorf("%d are acknowledged and %d recorded, want %d", got, w.entries()-before, n)
		}
		ids = ids[:1] // of the other machine
		want()
	}
	// The list of one machine tells both apart.
	list, err := w.pickups.List(w.ctx, w.root, pickup.Query{MachineNo: m.No, LateUse: true, Limit: 10})
	w.check(err)
	for _, c := range list {
		if !c.Acknowledged {
			w.Errorf("%+v is not acknowledged", c)
		}
	}
	if len(list) != 3 {
		w.Errorf("%d late uses, want 3", len(list))
	}
	// One of a machine that is gone is still to be looked at.
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, other.No))
	want()
	w.check(w.pickups.AcknowledgeLate(w.ctx, w.root, ids[0]))
	ids = nil
	want()
	w.audit()
}

// testPickupLateUsesRace: however many acknowledge, it is on record once.
func testPickupLateUsesRace(w *world) {
	m := w.stocked("00000001", 1)
	for range 5 {
		w.lateUse(m)
	}
	list, _, err := w.pickups.LateUses(w.ctx, w.root, 0, 10)
	w.check(err)
	before := w.entries()
	w.race(8, func(i int) error {
		if i%2 == 0 {
			_, err := w.pickups.AcknowledgeLateOf(w.ctx, w.root, m.No)
			return err
		}
		return w.pickups.AcknowledgeLate(w.ctx, w.root, list[i/2].ID)
	})
	if n := w.entries() - before; n != 5 {
		w.Errorf("%d entries of 5 late uses", n)
	}
	w.audit()
}

func testPickupListLive(w *world) {
	m, other := w.stocked("00000001", 1), w.stocked("00000002", 1)
	create := func(ttl time.Duration) pickup.Code {
		w.Helper()
		r := order(m, 1)
		r.TTL = ttl
		c, err := w.pickups.Create(w.ctx, w.root, r)
		w.check(err)
		w.pickup(other, 1)
		return c
	}
	var codes []pickup.Code
	for i := range 12 {
		codes = append(codes, create(time.Duration(1+i%4)*time.Hour))
		w.clock.Add(time.Second)
	}
	w.withdraw(codes[3].ID)
	w.used(codes[7])
	w.clock.Add(time.Hour)
	w.withdraw(codes[11].ID)
	w.clock.Add(time.Hour)
	check := func(what string) {
		w.Helper()
		now := w.clock.Now()
		for _, since := range []time.Duration{0, 90 * time.Minute, 24 * time.Hour} {
			var live, ended []int64
			for _, c := range slices.Backward(codes) {
				c = w.getPickup(c.ID)
				if c.State(now) == pickup.StateLive {
					live = append(live, c.ID)
					continue
				}
				over := c.Expires
				if c.Marked != pickup.StateLive {
					over = c.Used
					if c.Withdrawn.After(over) {
						over = c.Withdrawn
					}
				}
				if !over.Before(now.Add(-since)) {
					ended = append(ended, c.ID)
				}
			}
			for _, l := range []struct {
				q    pickup.Query
				want []int64
			}{{pickup.Query{Live: true}, live}, {pickup.Query{Ended: now.Add(-since)}, ended}} {
				w.pages(l.want, func(before int64, limit int) (page []int64, err error) {
					l.q.MachineNo, l.q.Before, l.q.Limit = m.No, before, limit
					list, err := w.pickups.List(w.ctx, w.root, l.q)
					for _, c := range list {
						page = append(page, c.ID)
						w.wantPickup(c, w.getPickup(c.ID))
					}
					return page, err
				})
			}
			if what == "swept" && since == 90*time.Minute && (len(live) != 3 || len(ended) != 7) {
				w.Errorf("%s, %v: %v are live, %v have ended", what, since, live, ended)
			}
		}
	}
	check("not swept")
	w.sweepPickups()
	check("swept")
	w.clock.Add(-90 * time.Minute)
	check("set back")
	w.clock.Add(24 * time.Hour)
	check("a day later")
	for _, q := range []pickup.Query{{Live: true}, {Ended: w.clock.Now()}} {
		q.MachineNo, q.Limit = "00000009", 1
		_, err := w.pickups.List(w.ctx, w.root, q)
		w.refused(err, refusal.MachineNotFound)
	}
}
