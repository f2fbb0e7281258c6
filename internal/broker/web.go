package broker

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const (
	// webMax bounds the connections over WebSocket, and webEach those from one
	// address: nobody shuts out all others.
	webMax  = 500
	webEach = 20
	// frameMax bounds what a client sends in one piece, in bytes: the largest packet
	// that does not end a connection, with its head.
	frameMax = skipMax + 5
	// webBuffer is that of each direction of a connection, in bytes.
	webBuffer = 1 << 10
	// closeWord bounds how long a word of farewell may take.
	closeWord = 100 * time.Millisecond
	// subprotocol is how MQTT is asked for.
	subprotocol = "mqtt"
)

// Web is MQTT over WebSocket, for browsers and for machines that can speak
// nothing else. It is an http.Handler, and safe for concurrent use.
type Web struct {
	address  func(*http.Request) string
	begin    func(*webConn)
	upgrader websocket.Upgrader
	running  sync.WaitGroup

	mu      sync.Mutex
	closing bool
	places  int            // those that are taken
	from    map[string]int // and from which address, as guesses have it
	open    map[*webConn]struct{}
}

// newWeb returns a Web that knows clients by the address of their requests and
// gives each connection to begin.
func newWeb(address func(*http.Request) string, begin func(*webConn)) *Web {
	return &Web{
		address: address, begin: begin, from: map[string]int{}, open: map[*webConn]struct{}{},
		// It refuses browsers that come from another site.
		upgrader: websocket.Upgrader{
			HandshakeTimeout: connectWithin, ReadBufferSize: webBuffer, WriteBufferSize: webBuffer,
			Subprotocols: []string{subprotocol},
		},
	}
}

// Web serves the broker's MQTT over WebSocket. Address finds the address of who
// asks.
func (b *Embedded) Web(address func(*http.Request) string) *Web {
	return newWeb(address, func(c *webConn) { b.adopt(c) })
}

// Web serves the other broker's MQTT over WebSocket: it connects to it for each
// client and passes on what both say. Address finds the address of who asks.
func (e *External) Web(address func(*http.Request) string) *Web {
	r := relay{
		url: e.config.URL, fleet: e.config.Fleet, work: e.work, log: e.config.Log,
		failures: &seldom{now: e.config.Now}, logins: &seldom{now: e.config.Now},
	}
	var w *Web
	w = newWeb(address, func(c *webConn) { w.running.Go(func() { r.serve(newConnection(c)) }) })
	return w
}

// ServeHTTP turns the request into a connection.
func (w *Web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	c := &webConn{address: webAddress(w.address(r)), leave: w.leave}
	switch {
	case !websocket.IsWebSocketUpgrade(r):
		rw.Header().Set("Upgrade", "websocket")
		http.Error(rw, "This is MQTT over WebSocket. Connect to it with an MQTT client.", http.StatusUpgradeRequired)
		return
	case !slices.Contains(websocket.Subprotocols(r), subprotocol):
		http.Error(rw, "Ask for the WebSocket subprotocol mqtt.", http.StatusBadRequest)
		return
	case !w.place(c):
		http.Error(rw, "There are as many MQTT connections over WebSocket as may be, in all or from your address. Close one, or try again later.",
			http.StatusServiceUnavailable)
		return
	}
	ws, err := w.upgrader.Upgrade(hijacker{rw}, r, nil)
	if err != nil { // it has answered
		w.leave(c)
		return
	}
	ws.SetReadLimit(frameMax)
	c.ws = ws
	w.enter(c)
}

// place takes a place, if one is left.
func (w *Web) place(c *webConn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	from := guess.Address(c.address.String())
	if w.closing || w.places == webMax || w.from[from] == webEach {
		return false
	}
	w.places++
	w.from[from]++
	return true
}

// enter begins a connection that has a place.
func (w *Web) enter(c *webConn) {
	if !w.note(c) {
		_ = c.Close() // nobody waits for it
		return
	}
	defer w.running.Done()
	w.begin(c)
}

// note says that a connection begins, which Close waits for, unless it was called.
func (w *Web) note(c *webConn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return false
	}
	w.running.Add(1)
	w.open[c] = struct{}{}
	return true
}

// leave gives back a place.
func (w *Web) leave(c *webConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.places--
	from := guess.Address(c.address.String())
	if w.from[from]--; w.from[from] == 0 {
		delete(w.from, from)
	}
	delete(w.open, c)
}

// Close ends all connections. It is to be called when the broker is closed, or the
// client of another one.
func (w *Web) Close() {
	w.mu.Lock()
	w.closing = true
	open := slices.Collect(maps.Keys(w.open))
	w.mu.Unlock()
	var ending sync.WaitGroup
	for _, c := range open {
		ending.Go(func() { _ = c.Close() }) // most often it is closed
	}
	ending.Wait()
	w.running.Wait()
}

// hijacker finds the connection of a response that others have wrapped.
type hijacker struct{ http.ResponseWriter }

// Hijack implements http.Hijacker.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(h.ResponseWriter).Hijack()
}

// webConn is a WebSocket as a connection of bytes.
type webConn struct {
	ws      *websocket.Conn
	address net.Addr
	leave   func(*webConn)
	frame   io.Reader // what is left of it; nil: the next is to be read
	writing sync.Mutex
	closed  sync.Once
}

// errText says that a client sends text.
var errText = errors.New("MQTT over WebSocket is binary")

// Read implements net.Conn. How bytes are cut into frames has no meaning.
func (c *webConn) Read(p []byte) (int, error) {
	for {
		if c.frame == nil {
			kind, frame, err := c.ws.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				_ = c.farewell(websocket.CloseUnsupportedData)
				return 0, errText
			}
			c.frame = frame
		}
		n, err := c.frame.Read(p)
		if errors.Is(err, io.EOF) {
			c.frame, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write implements net.Conn. A WebSocket takes one at a time.
func (c *webConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// farewell tells the other end that the connection ends.
func (c *webConn) farewell(why int) error {
	return c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(why, ""), in(closeWord))
}

// Close implements net.Conn.
func (c *webConn) Close() (err error) {
	c.closed.Do(func() {
		_ = c.farewell(websocket.CloseNormalClosure) // it may have gone, or have been told already
		err = c.ws.Close()
		c.leave(c)
	})
	return err
}

// LocalAddr implements net.Conn.
func (c *webConn) LocalAddr() net.Addr { return c.ws.LocalAddr() }

// RemoteAddr is the client's, and not that of a proxy before it.
func (c *webConn) RemoteAddr() net.Addr { return c.address }

// SetDeadline implements net.Conn.
func (c *webConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *webConn) SetReadDeadline(t time.Time) error { return c.ws.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn. It is that of the next Write.
func (c *webConn) SetWriteDeadline(t time.Time) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.ws.SetWriteDeadline(t)
}

// webAddress is the address of a client.
type webAddress string

// Network implements net.Addr.
func (webAddress) Network() string { return "websocket" }

// String implements net.Addr.
func (a webAddress) String() string { return string(a) }

// relay connects clients with another broker.
type relay struct {
	url   *url.URL
	fleet *fleet.Service
	work  context.Context
	log   *slog.Logger
	// What strangers can cause is logged once a second at most.
	failures, logins *seldom
}

// serve is the life of one connection. It looks at the first packet alone.
func (r *relay) serve(c *connection) {
	defer func() { _ = c.Close() }() // most often it is closed
	if c.SetReadDeadline(in(connectWithin)) != nil {
		return
	}
	if kind, err := c.reader.Peek(1); err != nil || kind[0] != packets.Connect<<4 {
		return
	}
	packet, err := c.next(connectMax)
	if err != nil {
		return
	}
	pk, err := decodeConnect(packet)
	if err != nil {
		return
	}
	if refused := mayPass(&pk); refused != nil {
		_, _ = c.Write(refused.in(pk.ProtocolVersion)) // it is gone after this anyway
		return
	}
	if pk.ConnectValidate() != packets.CodeSuccess {
		return
	}
	if refused := r.login(c, &pk); refused != nil {
		_, _ = c.Write(refused.in(pk.ProtocolVersion))
		return
	}
	there, err := r.dial(c, &pk)
	if err != nil {
		return
	}
	defer func() { _ = there.Close() }()
	if _, err := there.Write(packet); err != nil {
		return
	}
	var answers sync.WaitGroup
	answers.Go(func() {
		defer func() { _ = c.Close() }()
		pass(c, there, func() error { return nil })
	})
	silence := time.Duration(pk.Connect.Keepalive) * time.Second * 3 / 2
	pass(there, c.reader, func() error {
		if silence == 0 {
			return c.SetReadDeadline(time.Time{})
		}
		return c.SetReadDeadline(in(silence))
	})
	_ = there.Close()
	answers.Wait()
}

// login refuses who does not know the machine's password, though the broker checks
// it too: that sees Scrip's address alone, from where anybody's guesses would lock
// all clients over WebSocket out.
func (r *relay) login(c *connection, pk *packets.Packet) *answer {
	no := string(pk.Connect.Username)
	ctx, cancel := context.WithTimeout(r.work, answerWithin)
	defer cancel()
	_, err := r.fleet.Login(ctx, no, string(pk.Connect.Password), c.address)
	refused := &answer{3, packets.ErrServerUnavailable.Code}
	switch code := refusal.CodeOf(err); {
	case err == nil:
		return nil
	case code == refusal.MachineWrongPassword:
		refused = &answer{4, packets.ErrBadUsernameOrPassword.Code}
	case code == refusal.AccountTooManyGuesses:
		refused = &answer{3, packets.ErrConnectionRateExceeded.Code}
	default:
		if left, ok := r.failures.due(); ok && r.work.Err() == nil {
			r.log.LogAttrs(r.work, slog.LevelError, "checking the password of a machine", slog.Any("error", err), slog.Int("left_out", left))
		}
		return refused
	}
	if left, ok := r.logins.due(); ok {
		r.log.LogAttrs(r.work, slog.LevelWarn, "a machine was not let in over WebSocket", slog.String("machine_no", no),
			slog.String("address", c.address), slog.Any("reason", err), slog.Int("left_out", left))
	}
	return refused
}

// dial connects to the broker for a client.
func (r *relay) dial(c *connection, pk *packets.Packet) (*brokerConn, error) {
	ctx, cancel := context.WithTimeout(r.work, answerWithin)
	defer cancel()
	d := dialer{url: r.url}
	there, err := d.dial(ctx)
	if err != nil {
		if left, ok := r.failures.due(); ok {
			r.log.LogAttrs(r.work, slog.LevelWarn, "the MQTT broker was not there for a client over WebSocket",
				slog.Any("error", err), slog.Int("left_out", left))
		}
		_, _ = c.Write(answer{3, packets.ErrServerUnavailable.Code}.in(pk.ProtocolVersion))
		return nil, err
	}
	return &brokerConn{Conn: there}, nil
}

// pass passes on what comes, until either end fails. Before each read it calls
// ready.
func pass(to io.Writer, from io.Reader, ready func() error) {
	buf := make([]byte, readStep)
	for {
		if ready() != nil {
			return
		}
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// decodeConnect reads a CONNECT. What upsets the library must not end everybody
// else.
func decodeConnect(packet []byte) (pk packets.Packet, err error) {
	defer func() {
		if recover() != nil {
			err = errBroken
		}
	}()
	body := packet[1:]
	for body[0]&0x80 != 0 {
		body = body[1:]
	}
	pk.FixedHeader = packets.FixedHeader{Type: packets.Connect, Remaining: len(body) - 1}
	return pk, pk.ConnectDecode(body[1:])
}

// answer is a refusal in MQTT 3 and in 5.
type answer struct{ three, five byte }

// in is the CONNACK in that version of the protocol.
func (a answer) in(version byte) []byte {
	if version >= 5 {
		return []byte{packets.Connack << 4, 3, 0, a.five, 0}
	}
	return []byte{packets.Connack << 4, 2, 0, a.three}
}

// mayPass refuses who does not come as a machine, under its own name. Where Scrip
// connects the broker may take any client id, which machines elsewhere cannot
// choose: it would end the session of another machine, or Scrip's own.
func mayPass(pk *packets.Packet) *answer {
	no := string(pk.Connect.Username)
	switch {
	case pk.ProtocolVersion < 3 || pk.ProtocolVersion > 5: // others may be read in two ways
		return &answer{1, packets.ErrUnsupportedProtocolVersion.Code}
	case !fleet.ValidNo(no):
		return &answer{4, packets.ErrBadUsernameOrPassword.Code}
	case pk.Connect.ClientIdentifier != no:
		return &answer{2, packets.ErrClientIdentifierNotValid.Code}
	}
	return nil
}
