package broker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// flyingMax bounds the messages that a machine has not acknowledged.
const flyingMax = 32

// errFull says that a machine has not acknowledged too much already.
var errFull = errors.New("the machine has too many messages that it has not acknowledged")

// connection is a network connection, and what is known of who is at its other
// end. It reads packets by itself; the library, to which it is a net.Conn, reads
// what it is given of them and writes.
type connection struct {
	net.Conn
	reader  *bufio.Reader
	address string
	given   []byte // to the library, to be read

	// Set when the other end has said who it is, before anybody else sees it.
	client  *mqtt.Client
	known   bool // let in, or refused for a reason that was counted
	machine int64
	no      string
	revoked uint64 // Embedded.revoked before its password was checked
	will    *will

	granted *grant // by the SUBSCRIBE that is under way
	goodbye bool   // it has said that it goes

	ready bool // it has subscribed; Embedded.mu guards it

	mu     sync.Mutex
	grant  grant
	lastID uint16
	flying []flight
}

// will is what a machine wants to be said if it goes without a word.
type will struct {
	topic   string
	payload []byte
}

// grant is how a machine has subscribed to its topic.
type grant struct {
	qos        byte
	identifier int // MQTT 5 has it sent back with each message
}

// flight is a message that is not acknowledged yet.
type flight struct {
	id           uint16
	acknowledged func()
}

func newConnection(c net.Conn) *connection {
	address := c.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	return &connection{Conn: c, reader: bufio.NewReaderSize(c, bufferSize), address: address}
}

// next reads a packet, of which no more than most bytes follow its head.
func (c *connection) next(most int) ([]byte, error) {
	kind, err := c.reader.ReadByte()
	if err != nil {
		return nil, err
	}
	packet, length := []byte{kind}, 0
	for more := true; more; {
		if len(packet) == 5 {
			return nil, packets.ErrMalformedVariableByteInteger
		}
		b, err := c.reader.ReadByte()
		if err != nil {
			return nil, err
		}
		length |= int(b&0x7f) << (7 * (len(packet) - 1))
		packet = append(packet, b)
		more = b&0x80 != 0
	}
	if length > most {
		return nil, &tooLarge{kind, length}
	}
	for length > 0 { // room is made for what comes, not for what is announced
		n := min(length, readStep)
		packet = slices.Grow(packet, n)
		begin := len(packet)
		packet = packet[:begin+n]
		if _, err := io.ReadFull(c.reader, packet[begin:]); err != nil {
			return nil, err
		}
		length -= n
	}
	return packet, nil
}

// tooLarge is the error of a packet whose rest has not been read.
type tooLarge struct {
	head byte
	rest int
}

// Error says so.
func (*tooLarge) Error() string { return packets.ErrPacketTooLarge.Error() }

// skip passes over the rest of a PUBLISH, and returns its packet's id, 0 if it
// has none.
func (c *connection) skip(t *tooLarge) (id uint16, err error) {
	var two [2]byte
	if _, err := io.ReadFull(c.reader, two[:]); err != nil {
		return 0, err
	}
	topic := int(binary.BigEndian.Uint16(two[:]))
	left := t.rest - 2 - topic
	if left < 2 {
		return 0, packets.ErrMalformedPacket
	}
	if _, err := c.reader.Discard(topic); err != nil {
		return 0, err
	}
	if t.head&0x06 != 0 {
		if _, err := io.ReadFull(c.reader, two[:]); err != nil {
			return 0, err
		}
		id, left = binary.BigEndian.Uint16(two[:]), left-2
	}
	_, err = c.reader.Discard(left)
	return id, err
}

// decode has the library read a packet.
func (c *connection) decode(cl *mqtt.Client, packet []byte) (packets.Packet, error) {
	c.given = packet
	var head packets.FixedHeader
	if err := cl.ReadFixedHeader(&head); err != nil {
		return packets.Packet{}, err
	}
	return cl.ReadPacket(&head)
}

// Read is for the library: it reads what it is given.
func (c *connection) Read(p []byte) (int, error) {
	if len(c.given) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, c.given)
	c.given = c.given[n:]
	return n, nil
}

// Write writes within a bounded time, whatever the keep-alive.
func (c *connection) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(in(writeWithin)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// in is the time from now, by the clock that the network goes by.
func in(d time.Duration) time.Time {
	return time.Now().Add(d) //nolint:forbidigo // deadlines of the network are the system's, whatever time it is for Scrip
}

// topic is where the machine hears.
func (c *connection) topic() string { return clientTopics + c.no }

// publish sends a message, and reports whether it will be acknowledged.
func (c *connection) publish(payload []byte, acknowledged func()) (bool, error) {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish},
		TopicName:   c.topic(),
		Payload:     payload,
	}
	if err := c.launch(&pk, acknowledged); err != nil {
		return false, err
	}
	err := c.client.WritePacket(pk)
	if err != nil {
		// Unless it has been acknowledged all the same.
		_, flying := c.land(pk.PacketID)
		if flying || pk.FixedHeader.Qos == 0 {
			return false, err
		}
	}
	return pk.FixedHeader.Qos > 0, nil
}

// launch sets what the subscription asks for and, if the message is to be
// acknowledged, gives it an id. The library has ids too, but mixes up those of
// both directions.
func (c *connection) launch(pk *packets.Packet, acknowledged func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.grant.identifier > 0 {
		pk.Properties.SubscriptionIdentifier = []int{c.grant.identifier}
	}
	pk.FixedHeader.Qos = min(1, c.grant.qos)
	if pk.FixedHeader.Qos == 0 {
		return nil
	}
	most := flyingMax
	if told := int(c.client.Properties.Props.ReceiveMaximum); told > 0 {
		most = min(most, told)
	}
	if len(c.flying) >= most {
		return errFull
	}
	for {
		c.lastID++
		if c.lastID != 0 && !slices.ContainsFunc(c.flying, func(f flight) bool { return f.id == c.lastID }) {
			break
		}
	}
	pk.PacketID = c.lastID
	c.flying = append(c.flying, flight{c.lastID, acknowledged})
	return nil
}

// land takes a message out of those that are flying, if it is one of them.
func (c *connection) land(id uint16) (flight, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.flying, func(f flight) bool { return f.id == id })
	if i < 0 {
		return flight{}, false
	}
	f := c.flying[i]
	if c.flying = slices.Delete(c.flying, i, i+1); len(c.flying) == 0 {
		c.flying = nil // most machines have none most of the time
	}
	return f, true
}
