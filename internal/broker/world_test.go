package broker_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/broker"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/enginetest"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/storetest"
	"github.com/scrip-codes/scrip/internal/wire"
)

const (
	patience = time.Minute // with what comes over the network, on a machine with other work
	appKey   = "192006250b4c09247ec02edce69f6a2d"
)

// logs collects what is logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// world is a whole server for machines, over the engine under test and TCP.
type world struct {
	testing.TB
	ctx      context.Context // the test's
	clock    *storetest.Clock
	db       storetest.Engine
	turn     chan struct{} // that of the one replica that keeps the inbox
	fleet    *fleet.Service
	pickups  *pickup.Service
	watch    *fleet.Watch
	broker   *broker.Embedded
	address  string
	web      string // where MQTT over WebSocket is served; empty: it is not
	logs     *logs
	registry *prometheus.Registry
	root     account.Actor
	merchant fleet.Merchant
	probe    *machine
}

// machine is a machine that exists, with a product.
type machine struct {
	fleet.Machine
	password string
	product  int64
}

type options struct {
	at             time.Time // when it begins
	style          fleet.Style
	connectionsMax int
	fleet          func(storetest.Engine) fleet.Store // nil: the database
}

func newWorld(tb testing.TB, o options) *world {
	tb.Helper()
	w := newDatabase(tb)
	if !o.at.IsZero() {
		w.clock.Set(o.at)
	}
	stop := w.serve(o, w.db)
	tb.Cleanup(func() { stop() })
	w.populate(o.style)
	return w
}

// newDatabase returns a world that nothing serves.
func newDatabase(tb testing.TB) *world {
	tb.Helper()
	w := &world{
		TB: tb, ctx: tb.Context(), clock: storetest.NewClock(), turn: make(chan struct{}, 1), logs: &logs{},
		root: account.Actor{ID: 1, Role: account.RoleRoot, Address: "192.0.2.1"},
	}
	db, err := enginetest.New(tb, tb.TempDir()).Open(w.ctx, storetest.Options{
		Secrets: []string{"a secret for tests"}, Now: w.clock.Now,
	})
	w.check(err)
	w.db = db
	tb.Cleanup(func() { w.check(db.Close()) })
	_, err = account.NewService(db, nil, w.clock.Now).Bootstrap(w.ctx, "the root token")
	w.check(err)
	return w
}

// populate makes a merchant and a machine.
func (w *world) populate(style fleet.Style) {
	w.Helper()
	var err error
	w.merchant, err = w.fleet.CreateMerchant(w.ctx, w.root, fleet.Merchant{Name: "Corner", AppKey: appKey, Style: style}, nil)
	w.check(err)
	w.probe = w.machine("99999999", "Asia/Shanghai")
}

// serve starts what serves machines, and returns what stops it. What is to be
// delivered is kept in queue.
func (w *world) serve(o options, queue delivery.Store) (stop func()) {
	w.Helper()
	log := slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	outbox := delivery.New(queue, log)
	store := fleet.Store(w.db)
	if o.fleet != nil {
		store = o.fleet(w.db)
	}
	keys := w.db.Keys()
	w.fleet = fleet.NewService(store, keys, guess.New(20, 10*time.Minute, w.clock.Now), w.clock.Now, outbox.Changed)
	w.pickups = pickup.NewService(w.db, keys, w.clock.Now, outbox.Changed)
	w.watch = fleet.NewWatch(w.db, w.clock.Now, log)
	w.registry = prometheus.NewRegistry()

	var lc net.ListenConfig
	l, err := lc.Listen(w.ctx, "tcp", "127.0.0.1:0")
	w.check(err)
	w.address = l.Addr().String()
	w.check(outbox.Begin(w.ctx))
	w.broker, err = broker.Start(broker.Config{
		Listener: l, Fleet: w.fleet, Watch: w.watch, Pickups: w.pickups, Outbox: outbox,
		Log: log, Now: w.clock.Now, Registry: w.registry, ConnectionsMax: o.connectionsMax,
	})
	w.check(err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.ctx))
	var jobs sync.WaitGroup
	watch, running := w.watch, w.broker // those of w may be others by the time that they run
	jobs.Go(func() { watch.Run(ctx) })
	jobs.Go(func() { outbox.Run(ctx, running) })
	return func() {
		w.check(running.Close())
		cancel()
		jobs.Wait()
	}
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// machine makes a machine.
func (w *world) machine(no, zone string) *machine {
	w.Helper()
	m := &machine{password: fleet.NewPassword()}
	var err error
	m.Machine, err = w.fleet.CreateMachine(w.ctx, w.root, fleet.Machine{
		MerchantID: w.merchant.ID, No: no, Name: "Lobby", Zone: zone, PurchaseLimit: 3, PickupCodes: true,
	}, m.password, nil)
	w.check(err)
	product, err := w.fleet.CreateProduct(w.ctx, w.root, no, fleet.Product{Name: "Tea", Slot: "A1"}, nil)
	w.check(err)
	m.product = product.ID
	return m
}

// code makes a pickup code.
func (w *world) code(m *machine) pickup.Code {
	w.Helper()
	c, err := w.pickups.Create(w.ctx, w.root, pickup.Request{MachineNo: m.No, ProductID: m.product, Quantity: 2, AllowMore: true})
	w.check(err)
	return c
}

func (w *world) get(id int64) pickup.Code {
	w.Helper()
	c, err := w.pickups.Get(w.ctx, w.root, id)
	w.check(err)
	return c
}

// eventually waits for something that another goroutine does.
func (w *world) eventually(what string, is func() bool) {
	w.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			w.Fatalf("in vain waited for: %s", what)
		}
	}
}

// presence is what is written down of a machine once all that has been seen by
// now is.
func (w *world) presence(m *machine) fleet.Presence {
	w.Helper()
	w.watch.See(w.probe.ID, fleet.Heard)
	stamp := w.clock.Now()
	w.eventually("sightings to be written down", func() bool {
		p, err := w.fleet.Machine(w.ctx, w.root, w.probe.No)
		w.check(err)
		return p.LastSeen.Equal(stamp)
	})
	w.clock.Add(time.Millisecond) // the next time is another
	got, err := w.fleet.Machine(w.ctx, w.root, m.No)
	w.check(err)
	return got.Presence
}

func (w *world) wantPresence(m *machine, want fleet.Presence) {
	w.Helper()
	w.eventually("the presence of "+m.No, func() bool { return w.presence(m) == want })
}

// metric is the value of a metric; of a labelled one, that with the label's value.
func (w *world) metric(name string, label ...string) float64 {
	w.Helper()
	families, err := w.registry.Gather()
	w.check(err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(label) == 0 || m.GetLabel()[0].GetValue() == label[0] {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	w.Fatalf("there is no metric %s %v", name, label)
	return 0
}

func (w *world) wantMetric(want float64, name string, label ...string) {
	w.Helper()
	if got := w.metric(name, label...); got != want {
		w.Errorf("%s %s = %v, want %v", name, strings.Join(label, ""), got, want)
	}
}

func (w *world) style() wire.Style { return wire.Style{AppKey: appKey} }

func (w *world) head(m *machine) wire.Head { return wire.Head{At: w.clock.Now(), MachineNo: m.No} }

func (w *world) put(m *machine, id int64) []byte {
	return wire.Put{Head: w.head(m), ID: id}.Encode(w.style())
}

func (w *world) heartbeat(m *machine) []byte {
	return wire.Heartbeat{Head: w.head(m), NetworkType: "4G", NetworkRSSI: "-71"}.Encode(w.style())
}

func (w *world) offline(m *machine) []byte {
	return wire.Offline{Head: w.head(m), Reason: "power"}.Encode(w.style())
}
