package broker_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/storetest"
)

// TestLogin guesses passwords.
func TestLogin(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			m := w.machine("16327138", "Asia/Shanghai")
			other := w.machine("16327139", "Asia/Shanghai")
			want := func(no, password string, want byte) {
				t.Helper()
				if _, got := v.dial(w, login{no: no, password: password}); got != want {
					t.Errorf("logging in as %q: %#x, want %#x", no, got, want)
				}
			}
			wrong := v.pick(4, 0x86) // bad user name or password
			for range 20 {
				want(m.No, other.password, wrong)
			}
			want(m.No, m.password, v.pick(3, 0x9f)) // server unavailable, connection rate exceeded
			want(other.No, other.password, 0)
			want("16327140", m.password, wrong)
			want("the password is 1234", "1234", wrong)
			w.clock.Add(10 * time.Minute)
			want(m.No, m.password, 0)
			w.wantMetric(22, "scrip_mqtt_logins_failed_total", "password")
			w.wantMetric(1, "scrip_mqtt_logins_failed_total", "guesses")
			text := w.logs.text()
			if !strings.Contains(text, "127.0.0.1") || strings.Contains(text, other.password) || strings.Contains(text, "1234") {
				t.Errorf("the log should tell who tried, and not with what:\n%s", text)
			}
		})
	}
}

// TestRevoked ends connections whose passwords are no longer good.
func TestRevoked(t *testing.T) {
	for name, revoke := range map[string]func(*world, *machine) error{
		"new password": func(w *world, m *machine) error {
			return w.fleet.RenewPassword(w.ctx, w.root, m.No, fleet.NewPassword(), nil)
		},
		"deleted": func(w *world, m *machine) error { return w.fleet.DeleteMachine(w.ctx, w.root, m.No) },
	} {
		t.Run(name, func(t *testing.T) {
			for name, v := range versions() {
				t.Run(name, func(t *testing.T) {
					w := newWorld(t, options{})
					m := w.machine("16327138", "Asia/Shanghai")
					other := w.machine("16327139", "Asia/Shanghai")
					p, theirs := w.connect(v, m, login{}), w.connect(v, other, login{})
					w.check(revoke(w, m))
					if got := p.ended(); got != v.pick(0, 0x98) { // administrative action
						t.Errorf("the connection ended with %#x", got)
					}
					if _, got := v.dial(w, login{no: m.No, password: m.password}); got != v.pick(4, 0x86) {
						t.Errorf("connecting again: %#x", got)
					}
					theirs.alive(other)
					w.wantMetric(1, "scrip_mqtt_connections")
				})
			}
		})
	}
}

// slowLogin is a store that something happens to while it checks a password.
type slowLogin struct {
	storetest.Engine
	during atomic.Pointer[func()]
}

func (s *slowLogin) Login(ctx context.Context, no string) (fleet.Machine, account.Hash, error) {
	m, hash, err := s.Engine.Login(ctx, no)
	if during := s.during.Load(); during != nil {
		(*during)()
	}
	return m, hash, err
}

// TestRevokedMeanwhile replaces a password while the old one is checked.
func TestRevokedMeanwhile(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			store := &slowLogin{}
			w := newWorld(t, options{fleet: func(db storetest.Engine) fleet.Store {
				store.Engine = db
				return store
			}})
			m := w.machine("16327138", "Asia/Shanghai")
			store.during.Store(new(func() {
				if err := w.fleet.RenewPassword(w.ctx, w.root, m.No, fleet.NewPassword(), nil); err != nil {
					t.Error(err)
				}
				w.broker.Disconnect(m.ID)
			}))
			p, _ := v.dial(w, login{no: m.No, password: m.password})
			p.ended()
			w.wantMetric(0, "scrip_mqtt_connections")
		})
	}
}

// TestPanic breaks something on behalf of one machine. The others go on.
func TestPanic(t *testing.T) {
	store := &slowLogin{}
	w := newWorld(t, options{fleet: func(db storetest.Engine) fleet.Store {
		store.Engine = db
		return store
	}})
	m := w.machine("16327138", "Asia/Shanghai")
	p := w.connect(version5{}, w.probe, login{})
	store.during.Store(new(func() { panic("something is wrong") }))
	broken := newPeer(w)
	broken.raw(connectPacket("MQTT", 4, m)...)
	w.check(broken.conn.SetReadDeadline(w.deadline()))
	if _, err := broken.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is served")
	}
	p.alive(w.probe)
	if log := w.logs.text(); !strings.Contains(log, "something is wrong") {
		t.Errorf("the log does not tell of it:\n%s", log)
	}
}

// TestFull connects more machines than may be.
func TestFull(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{connectionsMax: 1})
			m := w.machine("16327138", "Asia/Shanghai")
			other := w.machine("16327139", "Asia/Shanghai")
			first := w.connect(v, m, login{})
			if _, got := v.dial(w, login{no: other.No, password: other.password}); got != v.pick(3, 0x89) { // server busy
				t.Errorf("connecting another: %#x", got)
			}
			w.wantMetric(1, "scrip_mqtt_connections_refused_total", "full")
			second := w.connect(v, m, login{}) // takes over from itself
			first.ended()
			second.vanish()
			w.wantPresence(m, fleet.Offline)
			w.connect(v, other, login{})
		})
	}
}

// TestOverflow opens many more connections than machines may be connected.
func TestOverflow(t *testing.T) {
	w := newWorld(t, options{connectionsMax: 1})
	for range 65 {
		newPeer(w)
	}
	p := newPeer(w)
	w.check(p.conn.SetReadDeadline(w.deadline()))
	if _, err := p.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is served")
	}
	w.wantMetric(1, "scrip_mqtt_connections_refused_total", "overflow")
}

// TestClose stops a broker that has connections of all kinds.
func TestClose(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			m := w.machine("16327138", "Asia/Shanghai")
			p := w.connect(v, m, login{will: &message{topic: serverTopic, payload: w.offline(m)}})
			silent := newPeer(w)
			w.alive(v, "16327139") // the silent one was accepted before it
			w.check(w.broker.Close())
			if got := p.ended(); got != v.pick(0, 0x8b) { // server shutting down
				t.Errorf("the connection ended with %#x", got)
			}
			w.check(silent.conn.SetReadDeadline(w.deadline()))
			if _, err := silent.conn.Read(make([]byte, 1)); err != io.EOF && !strings.Contains(err.Error(), "reset") { //nolint:errorlint // Read returns it bare
				t.Errorf("a connection that had said nothing: %v", err)
			}
			w.wantMetric(0, "scrip_mqtt_uplinks_total", "client.offline")
			w.check(w.broker.Close()) // once more does no harm
		})
	}
}

// alive connects a machine of that number to see whether the broker serves.
func (w *world) alive(v version, no string) {
	w.Helper()
	m := w.machine(no, "Asia/Shanghai")
	p := w.dial(v, m, login{})
	p.alive(m)
}

// deadline is for what is read from a connection.
func (*world) deadline() time.Time { return time.Now().Add(patience) } //nolint:forbidigo // the network's clock

// raw sends bytes.
func (p *peer) raw(b ...byte) {
	p.w.Helper()
	_, err := p.conn.Write(b)
	p.w.check(err)
}

// packet reads one packet: its first byte, and what follows its length.
func (p *peer) packet() (byte, []byte) {
	p.w.Helper()
	p.w.check(p.conn.SetReadDeadline(p.w.deadline()))
	var head [2]byte
	_, err := io.ReadFull(p.conn, head[:])
	p.w.check(err)
	length := int(head[1] & 0x7f)
	if head[1]&0x80 != 0 {
		_, err = io.ReadFull(p.conn, head[1:])
		p.w.check(err)
		length |= int(head[1]) << 7
	}
	body := make([]byte, length)
	_, err = io.ReadFull(p.conn, body)
	p.w.check(err)
	return head[0], body
}

// text is how MQTT writes one.
func text(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) //nolint:gosec // G115: the texts here are short
}

// framed is a packet.
func framed(kind byte, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	return append(binary.AppendUvarint([]byte{kind}, uint64(len(body))), body...)
}

// connectPacket is a CONNECT of MQTT 3.1.1, or of 3.1, without a keep-alive.
func connectPacket(protocol string, level byte, m *machine) []byte {
	return framed(0x10, text(protocol), []byte{level, 0b1100_0000, 0, 0}, text(""), text(m.No), text(m.password))
}

// TestPacketIDs has a machine choose the ids that the server has chosen too:
// each side has its own.
func TestPacketIDs(t *testing.T) {
	for name, packet := range map[string]func(*machine) []byte{
		"3.1":   func(m *machine) []byte { return connectPacket("MQIsdp", 3, m) },
		"3.1.1": func(m *machine) []byte { return connectPacket("MQTT", 4, m) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			m := w.machine("16327138", "Asia/Shanghai")
			code := w.code(m)
			p := newPeer(w)
			for _, b := range packet(m) { // a slow line
				p.raw(b)
			}
			if kind, body := p.packet(); kind != 0x20 || body[1] != 0 {
				t.Fatalf("CONNACK: %#x % x", kind, body)
			}
			subscribe := framed(0x82, []byte{0, 1}, text(topicOf(m)), []byte{1})
			p.raw(subscribe...)
			if kind, body := p.packet(); kind != 0x90 || body[2] != 1 {
				t.Fatalf("SUBACK: %#x % x", kind, body)
			}
			kind, body := p.packet()
			if id := body[2+len(topicOf(m)):][:2]; kind != 0x32 || id[0] != 0 || id[1] != 1 {
				t.Fatalf("PUBLISH: %#x % x", kind, body)
			}
			p.raw(framed(0x32, text(serverTopic), []byte{0, 1}, w.heartbeat(m))...)
			if kind, body := p.packet(); kind != 0x40 || body[1] != 1 {
				t.Fatalf("PUBACK: %#x % x", kind, body)
			}
			p.raw(subscribe...)
			if kind, body := p.packet(); kind != 0x90 || body[2] != 1 {
				t.Fatalf("the second SUBACK: %#x % x", kind, body)
			}
			p.raw(0x40, 2, 0, 1)
			w.eventually("the acknowledgement", func() bool { return w.get(code.ID).Delivery == pickup.Received })
			p.raw(0x40, 2, 0, 1) // once more, of nothing
			p.raw(0xc0, 0)
			if kind, _ := p.packet(); kind != 0xd0 {
				t.Errorf("PINGRESP: %#x", kind)
			}
		})
	}
}

// TestImproper connects with something else than a CONNECT of a decent length.
func TestImproper(t *testing.T) {
	w := newWorld(t, options{})
	for i, bytes := range [][]byte{
		[]byte("GET / HTTP/1.1\r\n\r\n"),
		{0x32, 2, 0, 0},
		{0x10, 0xff, 0xff, 0xff, 0xff, 0xff},
		{0x10, 0x81, 0x80, 0x01}, // 16 KiB and a byte
		{0x10, 0xff, 0xff, 0x03}, // 64 KiB, none of which ever comes
		{0x10, 2, 0, 4},
		append([]byte{0x10, 10}, "\x00\x04MQTT\x09\xff\xff\xff"...),
	} {
		p := newPeer(w)
		p.raw(bytes...)
		w.check(p.conn.SetReadDeadline(w.deadline()))
		if _, err := io.Copy(io.Discard, p.conn); err != nil {
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // Copy returns it bare
				t.Errorf("%d: the connection is still open", i)
			}
		}
	}
	w.eventually("all to be counted", func() bool { return w.metric("scrip_mqtt_connections_refused_total", "protocol") == 7 })
	w.alive(version5{}, "16327138")
}

// FuzzConnection says anything to the broker, before and after a login. It must
// go on serving others.
func FuzzConnection(f *testing.F) {
	w := newWorld(f, options{})
	m := w.machine("16327138", "Asia/Shanghai")
	p := w.connect(version5{}, w.probe, login{})
	hello := connectPacket("MQTT", 4, m)
	f.Add(hello, false)
	f.Add(framed(0x82, []byte{0, 1}, text(topicOf(m)), []byte{1}), true)
	f.Add(framed(0x30, text(serverTopic), []byte("{}")), true)
	f.Add(framed(0x34, text(serverTopic), []byte{0, 1}, []byte("{}")), true)
	f.Add([]byte{0x40, 2, 0, 1, 0x62, 2, 0, 1, 0xa2, 2, 0, 1, 0xe0, 0}, true)
	f.Fuzz(func(t *testing.T, said []byte, known bool) {
		var d net.Dialer
		conn, err := d.DialContext(t.Context(), "tcp", w.address)
		if err != nil {
			t.Fatal(err)
		}
		if known {
			said = append(slices.Clone(hello), said...)
		}
		_, _ = conn.Write(said) // it may be refused half way
		if err := conn.(*net.TCPConn).CloseWrite(); err == nil {
			_, _ = io.Copy(io.Discard, conn)
		}
		_ = conn.Close()
		if reason, err := p.publish(message{topic: serverTopic, qos: 1, payload: w.heartbeat(w.probe)}); err != nil || reason != 0 {
			t.Fatalf("another machine is not served any more: %#x, %v", reason, err)
		}
		if log := w.logs.text(); strings.Contains(log, "failed badly") {
			t.Fatal(log)
		}
	})
}
