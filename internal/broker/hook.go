package broker

import (
	"errors"
	"slices"
	"strings"

	"github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// The topics.
const (
	serverTopic  = "/server/app" // machines to server
	clientTopics = "/clients/"   // server to the machine whose number follows
)

// process has the library act on a packet and answer it, which asks hook on the
// way; and then does what is to be done after the answer.
func (b *Embedded) process(c *connection, packet []byte) error {
	pk, err := c.decode(c.client, packet)
	if err != nil {
		return err
	}
	if strings.HasPrefix(pk.TopicName, "$") {
		pk.TopicName = "refused" // as any other: to those the library would not say a word
	}
	if err := b.server.InjectPacket(c.client, pk); err != nil {
		return err
	}
	switch pk.FixedHeader.Type {
	case packets.Subscribe:
		if c.granted == nil {
			return nil
		}
		c.mu.Lock()
		c.grant, c.granted = *c.granted, nil
		c.mu.Unlock()
		b.subscribed(c)
	case packets.Unsubscribe:
		if slices.ContainsFunc(pk.Filters, func(f packets.Subscription) bool { return f.Filter == c.topic() }) {
			b.unsubscribed(c)
		}
	case packets.Puback:
		if pk.ReasonCode < packets.ErrUnspecifiedError.Code {
			b.acknowledged(c, pk.PacketID)
		} else { // a machine that refuses a message does not have it
			c.land(pk.PacketID)
		}
	case packets.Disconnect:
		c.goodbye = true
	}
	return nil
}

// hook is where the library asks.
type hook struct {
	mqtt.HookBase
	b *Embedded
}

// ID names the hook.
func (*hook) ID() string { return "scrip" }

// Provides says what the library is to ask.
func (*hook) Provides(what byte) bool {
	return what == mqtt.OnACLCheck || what == mqtt.OnSubscribed || what == mqtt.OnPublish
}

func connectionOf(cl *mqtt.Client) *connection { return cl.Net.Conn.(*connection) } // nothing else is given to the library

// OnACLCheck is the wall: a machine hears what is sent to it, under exactly that
// name, and speaks to the server. What MQTT 3 has no answer for OnPublish
// refuses: here it would end the connection.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	if !write {
		return topic == connectionOf(cl).topic()
	}
	if topic == serverTopic || cl.Properties.ProtocolVersion < 5 {
		return true
	}
	h.b.metrics.refusedPublishes.Inc()
	return false
}

// OnSubscribed is called before the answer to a SUBSCRIBE is sent.
func (h *hook) OnSubscribed(cl *mqtt.Client, pk packets.Packet, codes []byte) {
	c := connectionOf(cl)
	for i, filter := range pk.Filters {
		if codes[i] >= packets.ErrUnspecifiedError.Code {
			h.b.metrics.refusedSubscriptions.Inc()
			continue
		}
		c.granted = &grant{qos: codes[i], identifier: filter.Identifier}
	}
}

// OnPublish is given what a machine sends. No message goes any further: neither
// to subscribers nor to be retained.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connectionOf(cl)
	if pk.TopicName != serverTopic {
		h.b.metrics.refusedPublishes.Inc()
		return pk, packets.CodeSuccessIgnore
	}
	err := h.b.uplink(c, pk.Payload)
	if _, ok := errors.AsType[notBelieved](err); ok {
		// MQTT 5 has a word for that, and the library knows it for QoS 1.
		if cl.Properties.ProtocolVersion >= 5 && pk.FixedHeader.Qos == 1 {
			return pk, packets.ErrNotAuthorized
		}
		return pk, packets.CodeSuccessIgnore
	}
	if err != nil {
		// Without an acknowledgement, and for want of a better way to have it sent
		// again, without a connection.
		h.b.end(c, packets.ErrServerBusy)
		return pk, packets.ErrRejectPacket
	}
	return pk, packets.CodeSuccessIgnore
}

// execute acts on the last will of a machine that has gone without a word. It is
// what the machine would have said: so it passes the same wall.
func (b *Embedded) execute(c *connection) {
	switch {
	case c.will == nil || !b.current(c): // replaced: the machine is still there
	case c.will.topic != serverTopic:
		b.metrics.refusedPublishes.Inc()
	default:
		_ = b.uplink(c, c.will.payload) // logged; nobody is there to be asked again
	}
}
