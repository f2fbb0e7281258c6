// Package broker is where vending machines meet Scrip over MQTT: it lets them
// in, keeps them apart, hears what they report and tells them of pickup codes.
// Embedded is a broker in this process; External is the client of another one.
// Imports: delivery, fleet, guess, pickup, refusal, wire, the MQTT libraries,
// Prometheus and the standard library.
//
// The libraries speak MQTT and no more than that: who may be connected, what is
// sent and what an uplink does is decided here. docs/decisions/mqtt-broker.md
// and docs/decisions/external-broker.md say why.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
)

const (
	// connectionsDefault is how many machines may be connected unless the
	// configuration says otherwise.
	connectionsDefault = 25_000
	// connectWithin is how long a connection may take to say who it is.
	connectWithin = 10 * time.Second
	// connectMax bounds a CONNECT in bytes: room is made for it before it is known
	// who sends it.
	connectMax = 16 << 10
	// packetMax bounds every later packet in bytes.
	packetMax = 64 << 10
	// skipMax bounds a larger message in bytes: beyond it the connection ends.
	skipMax = 1 << 20
	// readStep is how much room is made at once for a packet, in bytes.
	readStep = 2 << 10
	// bufferSize is that of a connection's reads: of most packets, in bytes.
	bufferSize = 256
	// receiveMax bounds the messages of a machine that are not done with.
	receiveMax = 16
	// writeWithin bounds every write to a connection: one that takes longer is that
	// of a machine that does not read, and others wait behind it.
	writeWithin = time.Second
	// acceptRest is how long nothing is accepted after that has failed.
	acceptRest = 100 * time.Millisecond
	// closeWithin bounds how long Close waits for what is under way.
	closeWithin = 2 * time.Second
)

// Config says what a broker works with.
type Config struct {
	Listener net.Listener // of TLS already, if so wanted; the broker closes it
	Fleet    *fleet.Service
	Watch    *fleet.Watch
	Pickups  *pickup.Service
	Outbox   *delivery.Outbox
	Log      *slog.Logger
	Now      func() time.Time
	Registry *prometheus.Registry
	// ConnectionsMax bounds the machines that are connected; 0: 25,000.
	ConnectionsMax int
}

// Embedded is an MQTT broker in this process. It is a delivery.Sender, and safe
// for concurrent use.
type Embedded struct {
	config  Config
	server  *mqtt.Server
	metrics *metrics
	stacks  *stacks
	writer  writer
	hearing *hearing
	// What strangers can cause is logged once a second at most.
	logins, failures seldom

	// work is the context of what connections ask of the domain; it ends when
	// Close does not wait any longer.
	work    context.Context
	endWork context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	closing  bool
	accepted map[*connection]struct{} // every connection, known or not
	machines map[int64]*connection    // the one connection of each machine
	counter  uint64                   // of connections that were let in
	revoked  uint64                   // counts the calls of Disconnect
}

var _ delivery.Sender = (*Embedded)(nil)

// Start serves MQTT on c.Listener until Close.
func Start(c Config) (*Embedded, error) {
	if c.ConnectionsMax == 0 {
		c.ConnectionsMax = connectionsDefault
	}
	b := &Embedded{
		config: c, server: newServer(), writer: writer{pickups: c.Pickups, now: c.Now},
		logins: seldom{now: c.Now}, failures: seldom{now: c.Now},
		accepted: map[*connection]struct{}{}, machines: map[int64]*connection{},
	}
	b.metrics = newMetrics(c.Registry, b)
	b.hearing = &hearing{
		fleet: c.Fleet, pickups: c.Pickups, log: c.Log, metrics: b.metrics.uplinks,
		drops: &seldom{now: c.Now}, failures: &b.failures,
	}
	if err := b.server.AddHook(&hook{b: b}, nil); err != nil {
		return nil, fmt.Errorf("setting up the MQTT library: %w", errors.Join(err, c.Listener.Close()))
	}
	b.work, b.endWork = context.WithCancel(context.Background())
	b.stacks = newStacks(b.work.Done(), b.broken)
	b.running.Go(b.accept)
	return b, nil
}

// newServer returns the library's server. It is never asked to serve: it is
// given one packet after another. Its log stays unread, since it would write
// down whole packets.
func newServer() *mqtt.Server {
	limits := mqtt.NewDefaultServerCapabilities()
	limits.MaximumPacketSize = packetMax
	limits.ReceiveMaximum = receiveMax
	limits.MaximumInflight = flyingMax
	limits.MaximumClientWritesPending = 1 // no message goes through that queue
	limits.MaximumSessionExpiryInterval = 0
	limits.TopicAliasMaximum = 0
	limits.Compatibilities.NoInheritedPropertiesOnAck = true
	return mqtt.New(&mqtt.Options{
		Capabilities:            limits,
		ClientNetReadBufferSize: 1, // the least that there is: connection has a buffer
		Logger:                  slog.New(slog.DiscardHandler),
	})
}

// accept takes connections until the listener is closed.
func (b *Embedded) accept() {
	for {
		conn, err := b.config.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, mostly: that passes
			if left, ok := b.failures.due(); ok {
				b.config.Log.LogAttrs(b.work, slog.LevelError, "accepting MQTT connections", slog.Any("error", err), slog.Int("left_out", left))
			}
			select {
			case <-time.After(acceptRest):
			case <-b.work.Done():
			}
			continue
		}
		b.adopt(conn)
	}
}

// adopt serves a new connection, or closes it.
func (b *Embedded) adopt(conn net.Conn) {
	if !b.take(newConnection(conn)) {
		_ = conn.Close() // nobody is there to be told
	}
}

// take serves a new connection, unless there are far too many: more than may be
// connected, with some room for those that are about to take over from another
// or to be refused.
func (b *Embedded) take(c *connection) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return false
	}
	if len(b.accepted) >= b.config.ConnectionsMax+b.config.ConnectionsMax/8+64 {
		b.metrics.refusedOverflow.Inc()
		return false
	}
	b.accepted[c] = struct{}{}
	b.running.Go(func() { b.serve(c) })
	return true
}

// drop forgets a connection.
func (b *Embedded) drop(c *connection) {
	_ = c.Close() // most often it is closed
	b.leave(c)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.accepted, c)
}

// Close ends all connections. It tells neither Watch nor Outbox of each: when
// there is no broker no machine is connected.
func (b *Embedded) Close() error {
	err := b.config.Listener.Close()
	b.mu.Lock()
	b.closing = true
	known := slices.Collect(maps.Values(b.machines))
	for _, c := range known {
		delete(b.accepted, c)
	}
	others := slices.Collect(maps.Keys(b.accepted)) // of nobody, or of nobody any more
	clear(b.machines)
	b.mu.Unlock()

	for _, c := range others {
		_ = c.Close()
	}
	defer b.endWork()
	cut := time.AfterFunc(closeWithin, func() {
		b.endWork()
		for _, c := range known {
			_ = c.Close()
		}
	})
	defer cut.Stop()
	for _, c := range known {
		b.end(c, packets.ErrServerShuttingDown)
	}
	b.running.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("closing the MQTT listener: %w", err)
	}
	return nil
}

// end ends a connection, with a word why where the protocol has one.
func (b *Embedded) end(c *connection, why packets.Code) {
	if c.client.Properties.ProtocolVersion >= 5 {
		_ = b.server.DisconnectClient(c.client, why) // it returns why
	}
	c.client.Stop(why)
}
