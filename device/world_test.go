package device

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/scrip-codes/scrip/internal/wire"
)

const (
	machineNo = "16327138"
	password  = "let me in"
	appKey    = "kva"
	longest   = 30 * time.Second // that anything may take
)

func noon() time.Time { return time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) }

// clock is a machine's clock.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
}

// next waits for what comes out of c.
func next[T any](tb testing.TB, c <-chan T, what string) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(longest):
		tb.Fatalf("no %s within %v", what, longest)
		panic("unreachable")
	}
}

// broker is a real broker over TCP, that tells what it sees.
type broker struct {
	mqtt.HookBase
	server  *mqtt.Server
	address string
	stop    func()

	subscribed chan string       // topics
	acks       chan struct{}     // of downlinks
	uplinks    chan wire.Message // that were acknowledged
	wills      chan wire.Message

	mu sync.Mutex
	// refuse decides what becomes of an uplink: nil to take it.
	refuse func(cl *mqtt.Client, method string) error
}

// startBroker starts a broker at address; at a free one if that is empty.
func startBroker(tb testing.TB, address string) *broker {
	tb.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	return startBrokerOn(tb, listeners.Config{ID: "tcp", Address: address})
}

func startBrokerOn(tb testing.TB, on listeners.Config) *broker {
	tb.Helper()
	b := &broker{
		server:     mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)}),
		subscribed: make(chan string, 100), acks: make(chan struct{}, 100),
		uplinks: make(chan wire.Message, 100), wills: make(chan wire.Message, 100),
	}
	listener := listeners.NewTCP(on)
	if err := errors.Join(b.server.AddHook(b, nil), b.server.AddListener(listener), b.server.Serve()); err != nil {
		tb.Fatal(err)
	}
	b.address = listener.Address()
	b.stop = sync.OnceFunc(func() { _ = b.server.Close() })
	tb.Cleanup(b.stop)
	return b
}

// cut ends the machine's connection without a word.
func (b *broker) cut(tb testing.TB) {
	tb.Helper()
	cl, ok := b.server.Clients.Get(machineNo)
	if !ok {
		tb.Fatal("the machine is not connected")
	}
	cl.Stop(errors.New("cut"))
}

// settled waits until the broker has forgotten the machine's last connection.
// The library may end the next one with it.
func (b *broker) settled(tb testing.TB) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(longest); ; {
		if _, ok := b.server.Clients.Get(machineNo); !ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatal("the broker does not forget the machine")
		}
	}
}

func (b *broker) refusing(f func(cl *mqtt.Client, method string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = f
}

// send sends a downlink.
func (b *broker) send(tb testing.TB, payload []byte) {
	tb.Helper()
	if err := b.server.Publish("/clients/"+machineNo, payload, false, 1); err != nil {
		tb.Fatal(err)
	}
}

// give sends a downlink and waits until the machine has acknowledged it.
func (b *broker) give(tb testing.TB, payload []byte) {
	tb.Helper()
	b.send(tb, payload)
	next(tb, b.acks, "acknowledgement")
}

// uplink waits for the next uplink with that method.
func (b *broker) uplink(tb testing.TB, method string) wire.Message {
	tb.Helper()
	for {
		if m := next(tb, b.uplinks, method); m.Method() == method {
			return m
		}
	}
}

// ID names the hook.
func (b *broker) ID() string { return "test" }

// Provides lists what follows.
func (b *broker) Provides(hook byte) bool {
	switch hook {
	case mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnSubscribed, mqtt.OnPacketProcessed, mqtt.OnPacketEncode, mqtt.OnPublish, mqtt.OnWill:
		return true
	}
	return false
}

// OnConnectAuthenticate lets one machine in.
func (b *broker) OnConnectAuthenticate(_ *mqtt.Client, pk packets.Packet) bool {
	return string(pk.Connect.Username) == machineNo && string(pk.Connect.Password) == password
}

// OnACLCheck allows what a machine may do.
func (b *broker) OnACLCheck(_ *mqtt.Client, topic string, write bool) bool {
	return write == (topic == "/server/app") && (write || topic == "/clients/"+machineNo)
}

// OnSubscribed tells.
func (b *broker) OnSubscribed(_ *mqtt.Client, pk packets.Packet, _ []byte) {
	b.subscribed <- pk.Filters[0].Filter
}

// OnPacketProcessed tells of acknowledgements.
func (b *broker) OnPacketProcessed(_ *mqtt.Client, pk packets.Packet, _ error) {
	if pk.FixedHeader.Type == packets.Puback {
		b.acks <- struct{}{}
	}
}

// OnPacketEncode gives a reason to acknowledgements that are not quite one: the
// library leaves the reason's number out where there is no text.
func (b *broker) OnPacketEncode(_ *mqtt.Client, pk packets.Packet) packets.Packet {
	if none := packets.CodeNoMatchingSubscribers; pk.FixedHeader.Type == packets.Puback && pk.ReasonCode == none.Code {
		pk.Properties.ReasonString = none.Reason
	}
	return pk
}

// OnPublish takes uplinks.
func (b *broker) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if cl.Net.Inline {
		return pk, nil
	}
	m, err := wire.Decode(pk.Payload)
	if err != nil || pk.TopicName != "/server/app" || pk.FixedHeader.Qos != 1 || pk.FixedHeader.Retain {
		panic("not as the protocol has it: " + pk.TopicName + " " + string(pk.Payload))
	}
	b.mu.Lock()
	refuse := b.refuse
	b.mu.Unlock()
	if refuse != nil {
		if err := refuse(cl, m.Method()); err != nil {
			return pk, err
		}
	}
	b.uplinks <- m
	return pk, nil
}

// OnWill tells.
func (b *broker) OnWill(_ *mqtt.Client, will mqtt.Will) (mqtt.Will, error) {
	m, err := wire.Decode(will.Payload)
	if err != nil || will.TopicName != "/server/app" || will.Qos != 1 || will.Retain {
		panic("not as the protocol has it: " + will.TopicName + " " + string(will.Payload))
	}
	b.wills <- m
	return will, nil
}

// machine is a device and what it is surrounded by.
type machine struct {
	*Device
	clock  *clock
	events chan Event
	vended chan Pickup
}

// setting is a machine's configuration, with a state file that is not there yet.
func setting(tb testing.TB, address string, c *clock) Config {
	tb.Helper()
	return Config{
		Broker: "mqtt://" + address, MachineNo: machineNo, Password: password, AppKey: appKey,
		State: filepath.Join(tb.TempDir(), "machine.json"), Now: c.read,
	}
}

// open opens the machine; that of a file that is there already is the one that
// a crash left.
func open(tb testing.TB, cfg Config, c *clock) *machine {
	tb.Helper()
	m := &machine{clock: c, events: make(chan Event, 100), vended: make(chan Pickup, 100)}
	cfg.On = func(e Event) { m.events <- e }
	if cfg.Vend == nil {
		cfg.Vend = func(_ context.Context, p Pickup) error { m.vended <- p; return nil }
	}
	var err error
	if m.Device, err = Open(cfg); err != nil {
		tb.Fatal(err)
	}
	m.retry = 20 * time.Millisecond
	return m
}

// run runs the machine until stop is called, or the test ends.
func (m *machine) run(tb testing.TB) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("Run: %v", err)
		}
	})
	tb.Cleanup(stop)
	return stop
}

// event waits for the next event of that kind.
func (m *machine) event(tb testing.TB, kind Kind) Event {
	tb.Helper()
	for {
		if e := next(tb, m.events, string(kind)); e.Kind == kind {
			return e
		}
	}
}

// vends counts what has been vended.
func (m *machine) vends() int { return len(m.vended) }

// pickup is a code that is good for two hours.
func pickup(id int64, code string) Pickup {
	return Pickup{ID: id, ProductID: 20001, Code: code, Quantity: 2, Expires: noon().Add(2 * time.Hour)}
}

func create(p Pickup) wire.Create {
	return wire.Create{
		Head: wire.Head{At: noon(), MachineID: 10009, MachineNo: machineNo},
		ID:   p.ID, ProductID: p.ProductID, Code: p.Code, Quantity: p.Quantity, Expires: p.Expires,
	}
}

func withdrawal(id int64) wire.Delete {
	return wire.Delete{Head: wire.Head{At: noon(), MachineID: 10009, MachineNo: machineNo}, ID: id}
}

func style() wire.Style { return wire.Style{AppKey: appKey} }
