package broker_test

import (
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/rig"
	"github.com/scrip-codes/scrip/internal/wire"
)

// inboxed waits until the replica keeps the inbox.
func (r *replica) inboxed() {
	r.Helper()
	r.eventually("the inbox", func() bool { return r.metric("scrip_mqtt_inbox_connected") == 1 })
}

// wantUsedOnce waits until a code is used, and checks that the ledger says so once.
func (r *replica) wantUsedOnce(c pickup.Code) {
	r.Helper()
	r.eventually("a use to be recorded", func() bool { return r.get(c.ID).Marked == pickup.StateUsed })
	entries, err := account.NewService(r.db, nil, r.clock.Now).Ledger(r.ctx, r.root, account.LedgerFilter{PickupID: c.ID, Limit: 100})
	r.check(err)
	uses := 0
	for _, e := range entries {
		if e.Kind == account.KindPickupUse || e.Kind == account.KindPickupLateUse {
			uses++
		}
	}
	if uses != 1 {
		r.Errorf("the ledger has %d uses of code %d, want 1", uses, c.ID)
	}
}

// TestInbox: what a machine reports while no server is there is not lost, and what
// all hear twice counts once.
func TestInbox(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string][]byte{"5": nil, "3.1.1": {0x20, 2, 0, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := mosquitto(t, rig.MosquittoOptions{}).URL()
			if refusal != nil {
				address = old(t, strings.TrimPrefix(address, "mqtt://"), refusal)
			}
			r := outside(t, address)
			r.inboxed()
			m := r.machine("16327138", "Asia/Shanghai")
			p := r.connect(version3{}, m, login{})
			r.heartbeats(p, m)
			twice, kept, late := r.code(m), r.code(m), r.code(m)
			p.wantAbout(wire.MethodCreate, twice, kept, late)
			p.send([]byte("{"))
			p.send(wire.Put{Head: r.head(m), ID: twice.ID}.Encode(wire.Style{AppKey: "another key"}))
			p.send(r.put(m, twice.ID))
			r.wantUsedOnce(twice)
			r.eventually("both to have heard it", func() bool {
				return r.metric("scrip_mqtt_uplinks_total", wire.MethodPut) == 1 && r.metric("scrip_mqtt_inbox_uplinks_total", wire.MethodPut) == 1
			})
			r.wantMetric(2, "scrip_mqtt_uplinks_total", wire.MethodHeartbeat)
			r.wantMetric(0, "scrip_mqtt_inbox_uplinks_total", wire.MethodHeartbeat)
			r.wantMetric(1, "scrip_mqtt_uplinks_dropped_total", "forged")
			r.wantMetric(1, "scrip_mqtt_uplinks_dropped_total", "malformed")

			// Nobody is there.
			r.stop()
			p.send(r.heartbeat(m))
			p.send(r.put(m, kept.ID))
			p.send(r.put(m, kept.ID))
			p.leave()
			if got := r.get(kept.ID); got.Marked != pickup.StateLive {
				t.Errorf("the code is %s", got.Marked)
			}

			next := r.replica(address, nil)
			next.wantUsedOnce(kept)
			next.eventually("all of it to be heard", func() bool { return next.metric("scrip_mqtt_inbox_uplinks_total", wire.MethodPut) == 2 })
			next.wantMetric(0, "scrip_mqtt_uplinks_total", wire.MethodPut)
			// That a machine was there once says nothing of now.
			next.stop()
			got, err := next.fleet.Machine(next.ctx, next.root, m.No)
			next.check(err)
			if got.Presence != fleet.Missed {
				t.Errorf("its presence is %v", got.Presence)
			}
			// Nothing is kept that was acted upon, but for what a server that ends has
			// not acknowledged yet.
			heard := func() float64 { return next.metric("scrip_mqtt_inbox_uplinks_total", wire.MethodPut) }
			for range 50 {
				next.stop()
				next = next.replica(address, nil)
				next.inboxed()
				p = next.connect(version3{}, m, login{})
				p.send(next.put(m, late.ID))
				next.wantUsedOnce(late)
				next.eventually("it to be heard", func() bool { return heard() >= 1 })
				if heard() == 1 {
					return
				}
			}
			t.Error("the broker keeps what was acknowledged")
		})
	}
}

// TestInboxUnacknowledged: a report that was heard and not acted upon before the
// server died is heard by the next one.
func TestInboxUnacknowledged(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string][]byte{"5": nil, "3.1.1": {0x20, 2, 0, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := mosquitto(t, rig.MosquittoOptions{}).URL()
			if refusal != nil {
				address = old(t, strings.TrimPrefix(address, "mqtt://"), refusal)
			}
			w := newDatabase(t)
			f := &failing{Store: w.db}
			r := w.replica(address, f)
			r.populate(fleet.Style{})
			r.inboxed()
			report := func(no string) pickup.Code {
				v := r.machine(no, "Asia/Shanghai")
				p := r.connect(version3{}, v, login{})
				c := r.code(v)
				p.wantAbout(wire.MethodCreate, c)
				if f.code.Load() == 0 {
					f.code.Store(c.ID)
				}
				p.send(r.put(v, c.ID))
				return c
			}
			c := report("16327138")
			// What came behind it is heard; not all of it is in the same lane.
			for i := range 4 {
				report(strconv.Itoa(20000000 + i))
			}
			r.eventually("the inbox", func() bool { return r.metric("scrip_mqtt_inbox_uplinks_total", wire.MethodPut) >= 1 })
			r.stop()
			if got := r.get(c.ID).Marked; got != pickup.StateLive {
				t.Errorf("the code is %s", got)
			}
			r.replica(address, nil).wantUsedOnce(c)
		})
	}
}

// TestInboxTakenOver: one of several servers keeps the inbox, and another one once
// that has ended.
func TestInboxTakenOver(t *testing.T) {
	t.Parallel()
	m := mosquitto(t, rig.MosquittoOptions{})
	a := outside(t, m.URL())
	a.inboxed()
	b := a.replica(m.URL(), nil)
	b.wantMetric(0, "scrip_mqtt_inbox_connected")
	a.stop()
	b.inboxed()
	a.wantMetric(0, "scrip_mqtt_inbox_connected")
	// It ends with the connection to the broker, and comes back with it.
	b.check(m.Kill())
	b.eventually("the end of the inbox", func() bool { return b.metric("scrip_mqtt_inbox_connected") == 0 })
	b.check(m.Start(b.ctx))
	b.inboxed()
}

// counted lets everybody do everything, and counts connections of inboxes.
type counted struct {
	open
	lasting atomic.Int32
}

func (*counted) Provides(what byte) bool {
	return what == mqtt.OnConnect || (&open{}).Provides(what)
}

func (c *counted) OnConnect(_ *mqtt.Client, p packets.Packet) error {
	if !p.Connect.Clean {
		c.lasting.Add(1)
	}
	return nil
}

// TestInboxRefused: a broker that keeps no session is no hindrance, and that is
// said once.
func TestInboxRefused(t *testing.T) {
	t.Parallel()
	limits := mqtt.NewDefaultServerCapabilities()
	limits.MaximumSessionExpiryInterval = 0
	s := mqtt.New(&mqtt.Options{Capabilities: limits, Logger: slog.New(slog.DiscardHandler)})
	hook := &counted{}
	if err := s.AddHook(hook, nil); err != nil {
		t.Fatal(err)
	}
	l := listeners.NewTCP(listeners.Config{ID: "t", Address: "127.0.0.1:0"})
	if err := s.AddListener(l); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	r := outside(t, "mqtt://"+l.Address())
	r.eventually("the inbox to be tried again", func() bool { return hook.lasting.Load() >= 4 })
	if n := strings.Count(r.logs.text(), "no lasting session at the MQTT broker"); n != 1 {
		t.Errorf("that is said %d times, want once", n)
	}
	r.wantMetric(0, "scrip_mqtt_inbox_connected")
	v := r.machine("16327138", "Asia/Shanghai")
	p := r.connect(version3{}, v, login{})
	c := r.code(v)
	p.wantAbout(wire.MethodCreate, c)
	p.send(r.put(v, c.ID))
	r.wantUsedOnce(c)
}
