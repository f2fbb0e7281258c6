package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// connectingMax bounds how many machines of a swarm connect at the same time:
	// more would wait in the listener's queue, or be turned away by it.
	connectingMax = 512
	// handshakeWithin bounds connecting and subscribing.
	handshakeWithin = 30 * time.Second
	// A machine that is refused tries again after a time that doubles from the
	// first to the last of these.
	againFirst = 50 * time.Millisecond
	againLast  = 5 * time.Second
	// gatherWithin bounds how long all machines together take to subscribe.
	gatherWithin = 5 * time.Minute
	// messageMax bounds what a machine reads as one packet.
	messageMax = 16 << 10
)

// credentials are what a machine connects with.
type credentials struct{ no, password string }

// swarm is many virtual machines that stay connected to one broker: each speaks
// as much MQTT 3.1.1 as it takes to be sent messages, on one goroutine and in
// some 4 KiB, acknowledges every message, and connects again when its
// connection ends.
type swarm struct {
	now      func() time.Time
	address  string
	machines []*virtual
	places   chan struct{} // for those that are connecting
	// gathering and tally are who is told of what happens.
	gathering atomic.Pointer[gathering]
	tally     atomic.Pointer[tally]

	end     context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	refused int64 // connections that ended before the machine was subscribed
	lost    int64 // connections that ended afterwards, but for those that were cut
	last    error // the last reason for either
}

// virtual is one machine.
type virtual struct {
	credentials

	swarm   *swarm
	conn    atomic.Pointer[net.TCPConn]
	cut     atomic.Bool // its connection is being ended by the swarm
	counted *gathering  // the last that it was counted in
}

func newSwarm(now func() time.Time, address string, machines []credentials) *swarm {
	s := &swarm{now: now, address: address, places: make(chan struct{}, connectingMax)}
	for _, c := range machines {
		s.machines = append(s.machines, &virtual{credentials: c, swarm: s})
	}
	return s
}

// start has all machines connect at once.
func (s *swarm) start(ctx context.Context) (*sample, error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	s.end = end
	return s.gather(ctx, func() {
		for _, m := range s.machines {
			s.running.Go(func() { m.run(life) })
		}
	})
}

// restart cuts all connections at once, and has the machines connect again.
func (s *swarm) restart(ctx context.Context) (*sample, error) { return s.gather(ctx, s.cut) }

// close ends all connections and waits for the machines.
func (s *swarm) close() {
	if s.end != nil {
		s.end()
		s.cut()
		s.running.Wait()
	}
}

func (s *swarm) cut() {
	for _, m := range s.machines {
		if conn := m.conn.Load(); conn != nil {
			m.cut.Store(true)
			_ = conn.Close() // its reader says what there is to say
		}
	}
}

// gathering counts the machines that have subscribed since it began.
type gathering struct {
	begun time.Time
	all   chan struct{}

	mu   sync.Mutex
	left int
	took sample
}

// gather waits until all machines have subscribed after begin. The sample is
// how long each of them took.
func (s *swarm) gather(ctx context.Context, begin func()) (*sample, error) {
	g := &gathering{begun: s.now(), all: make(chan struct{}), left: len(s.machines)}
	s.gathering.Store(g)
	begin()
	late := time.NewTimer(gatherWithin)
	defer late.Stop()
	var err error
	select {
	case <-g.all:
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
		s.mu.Lock()
		defer s.mu.Unlock()
		err = fmt.Errorf("after %s %d of %d machines are not subscribed; the last reason was: %w",
			gatherWithin, g.left, len(s.machines), s.last)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	took := g.took
	return &took, err
}

// subscribed counts a machine, once.
func (g *gathering) subscribed(m *virtual, at time.Time) {
	if m.counted == g {
		return
	}
	m.counted = g
	g.mu.Lock()
	defer g.mu.Unlock()
	g.took.elapsed = at.Sub(g.begun)
	g.took.hist.add(g.took.elapsed)
	if g.left--; g.left == 0 {
		close(g.all)
	}
}

// failures is how many connections ended before their machines were
// subscribed, and how many broke later.
func (s *swarm) failures() (refused, lost int64, last error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused, s.lost, s.last
}

// run keeps the machine connected until ctx ends.
func (m *virtual) run(ctx context.Context) {
	wait := againFirst
	for ctx.Err() == nil {
		subscribed, err := m.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if m.cut.Swap(false) {
			wait = againFirst
			continue
		}
		m.swarm.mu.Lock()
		m.swarm.last = err
		if subscribed {
			m.swarm.lost++
			wait = againFirst
		} else {
			m.swarm.refused++
		}
		m.swarm.mu.Unlock()
		// With some chance in it: those that failed together should not all come
		// back together.
		pause := time.NewTimer(wait/2 + rand.N(wait/2)) //nolint:gosec // G404: it is only to spread load
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		wait = min(2*wait, againLast)
	}
}

// session is one connection of the machine, until it ends.
func (m *virtual) session(ctx context.Context) (subscribed bool, err error) {
	select {
	case m.swarm.places <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	connecting := true
	arrived := func() {
		if connecting {
			connecting = false
			<-m.swarm.places
		}
	}
	defer arrived()
	dialer := net.Dialer{Timeout: handshakeWithin, KeepAlive: -1}
	dialed, err := dialer.DialContext(ctx, "tcp", m.swarm.address)
	if err != nil {
		return false, err
	}
	conn := dialed.(*net.TCPConn)
	m.conn.Store(conn)
	defer func() {
		m.conn.Store(nil)
		_ = conn.Close()
	}()
	if ctx.Err() != nil { // since the dial: nobody will close it
		return false, ctx.Err()
	}
	// Closing resets the connection: it ends at once, and its port is free.
	if err := errors.Join(conn.SetLinger(0), conn.SetDeadline(m.swarm.now().Add(handshakeWithin))); err != nil {
		return false, err
	}
	if _, err := conn.Write(m.connect()); err != nil {
		return false, err
	}
	r := reading{m: m, in: make([]byte, 1<<10)}
	for {
		if err := r.read(conn); err != nil {
			return subscribed, err
		}
		if r.subscribed && !subscribed {
			subscribed = true
			if err := conn.SetDeadline(time.Time{}); err != nil {
				return true, err
			}
			arrived()
			m.swarm.gathering.Load().subscribed(m, m.swarm.now())
		}
	}
}

// Packets of MQTT 3.1.1, by their first byte.
const (
	packetConnect   = 0x10
	packetConnack   = 0x20
	packetPublish   = 0x30 // and flags
	packetPuback    = 0x40
	packetSubscribe = 0x82
	packetSuback    = 0x90
)

// connect is the machine's first packet. It promises to say something every 18
// hours: no run takes as long.
func (m *virtual) connect() []byte {
	const user, password, clean = 0x80, 0x40, 0x02
	body := appendText(nil, "MQTT")
	body = append(body, 4, user|password|clean, 0xff, 0xff)
	for _, text := range []string{m.no, m.no, m.password} { // the client id, the user and the password
		body = appendText(body, text)
	}
	return appendPacket(nil, packetConnect, body)
}

func (m *virtual) topic() string { return "/clients/" + m.no }

func (m *virtual) subscribe() []byte {
	body := append(appendText([]byte{0, 1}, m.topic()), 1) // the packet's id is 1, QoS too
	return appendPacket(nil, packetSubscribe, body)
}

func appendText(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...) //nolint:gosec // G115: a few bytes
}

func appendPacket(b []byte, first byte, body []byte) []byte {
	return append(binary.AppendUvarint(append(b, first), uint64(len(body))), body...)
}

// reading is the bytes of a connection that have come in, and what they have led
// to.
type reading struct {
	m          *virtual
	in         []byte
	n          int // how much of in is filled
	out        []byte
	ids        []int64 // of the messages in one read
	subscribed bool
}

// read reads once, and answers all packets that are whole by then.
func (r *reading) read(conn *net.TCPConn) error {
	n, err := conn.Read(r.in[r.n:])
	if err != nil {
		return err
	}
	at := r.m.swarm.now()
	r.n += n
	r.out, r.ids = r.out[:0], r.ids[:0]
	rest := r.in[:r.n]
	for {
		first, body, size, err := packetIn(rest)
		if err != nil {
			return err
		}
		if size == 0 {
			break
		}
		if err := r.take(first, body); err != nil {
			return err
		}
		rest = rest[size:]
	}
	r.n = copy(r.in, rest)
	if r.n == len(r.in) {
		r.in = slices.Grow(r.in, len(r.in))[:2*len(r.in)]
	}
	if len(r.out) > 0 {
		if _, err := conn.Write(r.out); err != nil {
			return err
		}
	}
	for _, id := range r.ids {
		r.m.swarm.tally.Load().add(id, at)
	}
	return nil
}

var errPacket = errors.New("what the broker sent is not MQTT 3.1.1")

// packetIn is the first packet of b; its size is 0 if it is not whole.
func packetIn(b []byte) (first byte, body []byte, size int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	length, n := binary.Uvarint(b[1:])
	if n < 0 || length > messageMax {
		return 0, nil, 0, errPacket
	}
	size = 1 + n + int(length)
	if n == 0 || len(b) < size {
		return 0, nil, 0, nil
	}
	return b[0], b[1+n : size], size, nil
}

// take acts on one packet.
func (r *reading) take(first byte, body []byte) error {
	switch {
	case first == packetConnack && len(body) == 2:
		if body[1] != 0 {
			return fmt.Errorf("the broker refused the connection with code %d", body[1])
		}
		r.out = append(r.out, r.m.subscribe()...)
		return nil
	case first == packetSuback && len(body) == 3:
		if body[2] > 1 {
			return fmt.Errorf("the broker refused the subscription with code %d", body[2])
		}
		r.subscribed = true
		return nil
	case first&0xf0 == packetPublish && first&0x06 == 0x02: // QoS 1
		return r.publish(body)
	}
	return fmt.Errorf("%w: a packet that begins with %#x", errPacket, first)
}

// publish takes down a message and acknowledges it.
func (r *reading) publish(body []byte) error {
	if len(body) < 2 {
		return errPacket
	}
	n := 2 + int(binary.BigEndian.Uint16(body))
	if len(body) < n+2 {
		return errPacket
	}
	if string(body[2:n]) != r.m.topic() {
		return fmt.Errorf("machine %s was sent a message to %.40q", r.m.no, body[2:n])
	}
	id, err := idIn(body[n+2:])
	if err != nil {
		return err
	}
	r.ids = append(r.ids, id)
	r.out = append(r.out, packetPuback, 2, body[n], body[n+1])
	return nil
}

// idIn finds the code's id in the JSON text of a message, without a parser: all
// that the machines do is taken from the server.
func idIn(message []byte) (int64, error) {
	_, rest, _ := bytes.Cut(message, []byte(`"id":"`))
	digits, _, ok := bytes.Cut(rest, []byte{'"'})
	if !ok {
		return 0, fmt.Errorf("a message without an id: %.80q", message)
	}
	return strconv.ParseInt(string(digits), 10, 64)
}

// tally takes down when messages arrive, by the ids of their codes, which follow
// one another.
type tally struct {
	begun time.Time
	first int64
	// at is when each came first, in nanoseconds since begun, plus 1; 0: it has not.
	at      []atomic.Int64
	came    atomic.Int64 // how many have
	again   atomic.Int64 // messages about those that had come before
	unknown atomic.Int64 // messages about others
}

func newTally(begun time.Time, first int64, codes int) *tally {
	return &tally{begun: begun, first: first, at: make([]atomic.Int64, codes)}
}

// add takes down a message. A swarm that nobody asks has no tally.
func (t *tally) add(id int64, at time.Time) {
	switch {
	case t == nil:
	case id < t.first || id-t.first >= int64(len(t.at)):
		t.unknown.Add(1)
	case t.at[id-t.first].CompareAndSwap(0, int64(max(at.Sub(t.begun), 0))+1):
		t.came.Add(1)
	default:
		t.again.Add(1)
	}
}

// arrived is how long after begun a code's message came.
func (t *tally) arrived(id int64) (time.Duration, bool) {
	ns := t.at[id-t.first].Load()
	return time.Duration(ns - 1), ns > 0
}

// sample is how long after begun each came.
func (t *tally) sample() *sample {
	out := &sample{}
	for i := range t.at {
		if d, ok := t.arrived(t.first + int64(i)); ok {
			out.hist.add(d)
			out.elapsed = max(out.elapsed, d)
		}
	}
	return out
}

// await waits until done, which is asked often, or for as long as within.
func await(ctx context.Context, within time.Duration, done func() (bool, error)) error {
	late := time.NewTimer(within)
	defer late.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-late.C:
			return errLate
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errLate = errors.New("it took too long")
