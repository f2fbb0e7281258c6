package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// serve is the life of one connection.
func (b *Embedded) serve(c *connection) {
	defer b.drop(c)
	if b.connect(c) != nil {
		if !c.known {
			b.metrics.refusedProtocol.Inc()
		}
		return
	}
	err := b.listen(c)
	if code, ok := errors.AsType[packets.Code](err); ok && code.Code >= packets.ErrUnspecifiedError.Code {
		b.end(c, code)
	}
	c.client.Stop(err)
	_ = b.stacks.run(func() error {
		if !c.goodbye {
			b.execute(c)
		}
		b.server.UnsubscribeClient(c.client)
		return nil
	})
}

// connect waits for the first packet and lets the machine in that it names.
func (b *Embedded) connect(c *connection) error {
	if err := c.SetReadDeadline(in(connectWithin)); err != nil {
		return err
	}
	kind, err := c.reader.Peek(1)
	if err != nil {
		return err
	}
	if kind[0] != packets.Connect<<4 { // another protocol, mostly
		return packets.ErrProtocolViolationRequireFirstConnect
	}
	packet, err := c.next(connectMax)
	if err != nil {
		return err
	}
	return b.stacks.run(func() error { return b.welcome(c, packet) })
}

// listen hears what a machine says until the connection ends.
func (b *Embedded) listen(c *connection) error {
	silence := time.Duration(c.client.State.Keepalive) * time.Second * 3 / 2
	for !c.client.Closed() {
		var deadline time.Time // without a keep-alive, none
		if silence > 0 {
			deadline = in(silence)
		}
		if err := c.SetReadDeadline(deadline); err != nil {
			return err
		}
		packet, err := c.next(packetMax)
		if large, ok := errors.AsType[*tooLarge](err); ok {
			if err := b.tooLarge(c, large); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		// Most of what machines send needs neither the library nor a deep stack.
		switch {
		case packet[0] == packets.Pingreq<<4 && len(packet) == 2:
			err = b.pong(c)
		case packet[0] == packets.Puback<<4 && len(packet) == 4: // it has no reason to give: all is well
			atomic.AddInt64(&b.server.Info.BytesReceived, 4)
			b.acknowledged(c, binary.BigEndian.Uint16(packet[2:]))
		default:
			err = b.stacks.run(func() error { return b.process(c, packet) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tooLarge passes over a message that is too large to be looked at, and
// acknowledges it as every message that is dropped. Nothing else is that large,
// nor in good faith larger still: that ends the connection.
func (b *Embedded) tooLarge(c *connection, t *tooLarge) error {
	who := c.speaker()
	_ = b.hearing.dropped(b.work, &who, oversized) // it says that it was
	qos := t.head >> 1 & 0x03
	if t.head>>4 != packets.Publish || t.rest > skipMax || qos > 1 {
		return packets.ErrPacketTooLarge
	}
	id, err := c.skip(t)
	if err != nil || qos == 0 {
		return err
	}
	_, err = c.Write(binary.BigEndian.AppendUint16([]byte{packets.Puback << 4, 2}, id))
	return err
}

// acknowledged says that a machine has the message with that id.
func (b *Embedded) acknowledged(c *connection, id uint16) {
	if f, ok := c.land(id); ok {
		b.metrics.acknowledged.Inc()
		f.acknowledged()
	}
}

// pong answers a PINGREQ.
func (b *Embedded) pong(c *connection) error {
	atomic.AddInt64(&b.server.Info.BytesReceived, 2)
	n, err := c.Write([]byte{packets.Pingresp << 4, 0})
	atomic.AddInt64(&b.server.Info.BytesSent, int64(n))
	return err
}

// welcome checks a CONNECT, and lets the machine in or answers why not.
func (b *Embedded) welcome(c *connection, packet []byte) error {
	cl := b.server.NewClient(c, "", "", false)
	pk, err := c.decode(cl, packet)
	if err != nil {
		return err
	}
	pk.Connect.Clean = true // the outbox knows what a machine should be told, not a session
	cl.ParseConnect("", pk)
	answer := pk.ConnectValidate()
	if answer == packets.CodeSuccess {
		answer = b.admit(c, cl, &pk)
	}
	limits := &packets.Properties{MaximumPacketSize: packetMax}
	if err := b.server.SendConnack(cl, answer, false, limits); err != nil {
		return err
	}
	if answer != packets.CodeSuccess {
		return answer
	}
	b.enter(c)
	return nil
}

// admit checks a machine's password, and returns the answer to its CONNECT.
func (b *Embedded) admit(c *connection, cl *mqtt.Client, pk *packets.Packet) packets.Code {
	c.revoked = b.revocations()
	c.known = true
	no := string(pk.Connect.Username)
	m, err := b.config.Fleet.Login(b.work, no, string(pk.Connect.Password), c.address)
	if err == nil && b.full(m.ID) {
		err = errConnections
	}
	if err != nil {
		return b.refuse(c, no, err, pk.ProtocolVersion)
	}
	c.client, c.machine, c.no = cl, m.ID, m.No
	// The library knows subscriptions by this. What the machine calls itself is of
	// no interest.
	cl.ID = m.No + "#" + strconv.FormatUint(b.next(), 10)
	if pk.Connect.WillFlag {
		c.will = &will{pk.Connect.WillTopic, bytes.Clone(pk.Connect.WillPayload)}
	}
	// The packet, which the password is in, is kept no longer.
	cl.Properties.Will = mqtt.Will{}
	cl.Properties.Username = nil
	return packets.CodeSuccess
}

func (b *Embedded) revocations() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.revoked
}

func (b *Embedded) next() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counter++
	return b.counter
}

// errConnections says that as many machines are connected as may be.
var errConnections = errors.New("as many machines are connected as may be")

// full reports whether there is no room for a machine. One that is connected
// takes over from itself.
func (b *Embedded) full(machine int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.machines) >= b.config.ConnectionsMax && b.machines[machine] == nil
}

// refuse counts and logs a machine that is not let in, and returns what to
// answer. MQTT 3 has fewer words.
func (b *Embedded) refuse(c *connection, no string, err error, version byte) packets.Code {
	answer, reason, counter := packets.ErrServerUnavailable, "unavailable", b.metrics.loginsUnavailable
	switch code := refusal.CodeOf(err); {
	case code == refusal.MachineWrongPassword:
		answer, reason, counter = packets.ErrBadUsernameOrPassword, "password", b.metrics.loginsPassword
		if version < 5 {
			answer = packets.ErrMalformedUsername // which becomes 4, "bad user name or password"
		}
	case code == refusal.AccountTooManyGuesses:
		reason, counter = "guesses", b.metrics.loginsGuesses
		if version >= 5 {
			answer = packets.ErrConnectionRateExceeded
		}
	case errors.Is(err, errConnections):
		reason, counter = "full", b.metrics.refusedFull
		if version >= 5 {
			answer = packets.ErrServerBusy
		}
	case b.work.Err() == nil:
		if left, ok := b.failures.due(); ok {
			b.config.Log.LogAttrs(b.work, slog.LevelError, "checking the password of a machine", slog.Any("error", err), slog.Int("left_out", left))
		}
	}
	counter.Inc()
	if !fleet.ValidNo(no) {
		no = "none" // it may be anything, a password too
	}
	if left, ok := b.logins.due(); ok {
		b.config.Log.LogAttrs(b.work, slog.LevelWarn, "a machine was not let in", slog.String("machine_no", no),
			slog.String("address", c.address), slog.String("reason", reason), slog.Int("left_out", left))
	}
	return answer
}

// A machine has one connection: its newest. What happens to another one is no
// longer about the machine. Watch and Outbox are told under Embedded.mu, so that
// they hear everything in the order in which it happened; neither waits for
// anything, nor calls back.

// enter makes c its machine's connection. The one before, if any, is ended.
func (b *Embedded) enter(c *connection) {
	old, ok := b.replace(c)
	switch {
	case !ok:
		b.end(c, packets.ErrAdministrativeAction)
	case old != nil:
		// It may be deaf, which takes a while to find out.
		b.running.Go(func() { b.end(old, packets.ErrSessionTakenOver) })
	}
}

func (b *Embedded) replace(c *connection) (old *connection, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// A connection was to be ended while this one's password was checked. It may
	// have been this one: let it come again.
	if b.closing || c.revoked != b.revoked {
		return nil, false
	}
	old = b.machines[c.machine]
	if old != nil && old.ready {
		b.config.Outbox.Disconnected(c.machine)
	}
	b.machines[c.machine] = c
	b.config.Watch.See(c.machine, fleet.Connected)
	return old, true
}

// leave says that a connection is at its end.
func (b *Embedded) leave(c *connection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(c)
}

// forget is called with the lock. It does nothing for a connection that is not
// its machine's any more.
func (b *Embedded) forget(c *connection) {
	if b.machines[c.machine] != c {
		return
	}
	delete(b.machines, c.machine)
	b.config.Watch.See(c.machine, fleet.Offline)
	if c.ready {
		c.ready = false
		b.config.Outbox.Disconnected(c.machine)
	}
}

// current reports whether c is its machine's connection.
func (b *Embedded) current(c *connection) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.machines[c.machine] == c
}

// see notes what a machine's connection has shown of it.
func (b *Embedded) see(c *connection, p fleet.Presence) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.machines[c.machine] == c {
		b.config.Watch.See(c.machine, p)
	}
}

// subscribed says that a machine listens to its topic. It can be sent messages
// from here on.
func (b *Embedded) subscribed(c *connection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.machines[c.machine] == c && !c.ready {
		c.ready = true
		b.config.Outbox.Connected(c.machine)
	}
}

// unsubscribed says that a machine does not listen any more.
func (b *Embedded) unsubscribed(c *connection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.machines[c.machine] == c && c.ready {
		c.ready = false
		b.config.Outbox.Disconnected(c.machine)
	}
}

// listening is the connection over which a machine can be sent messages; nil if
// there is none.
func (b *Embedded) listening(machine int64) *connection {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.machines[machine]; c != nil && c.ready {
		return c
	}
	return nil
}

// Disconnect ends a machine's connection, if it has one.
func (b *Embedded) Disconnect(machine int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.revoked++
	c := b.machines[machine]
	if c == nil || b.closing {
		return
	}
	b.forget(c)
	b.running.Go(func() { b.end(c, packets.ErrAdministrativeAction) })
}
