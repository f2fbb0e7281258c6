package broker_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/scrip-codes/scrip/internal/broker"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/rig"
	"github.com/scrip-codes/scrip/internal/wire"
)

// webTimeout is how long the HTTP server of these tests gives a request.
const webTimeout = 100 * time.Millisecond

// webbed serves MQTT over WebSocket, and has what connects from here on do so. It
// returns what is served.
func (w *world) webbed(serve func(func(*http.Request) string) *broker.Web) *broker.Web {
	w.Helper()
	web := serve(func(r *http.Request) string {
		if told := r.Header.Get("X-Told"); told != "" {
			return told
		}
		return "192.0.2.77"
	})
	s := httptest.NewUnstartedServer(web)
	s.Config.ReadTimeout, s.Config.WriteTimeout = webTimeout, webTimeout
	s.Start()
	w.Cleanup(func() {
		web.Close()
		s.Close()
	})
	w.web = "ws" + strings.TrimPrefix(s.URL, "http") + "/mqtt"
	return web
}

func newWeb(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, options{})
	w.webbed(w.broker.Web)
	return w
}

// shake asks for a WebSocket.
func (w *world) shake(subprotocol string, headers http.Header) (*websocket.Conn, int) {
	w.Helper()
	d := websocket.Dialer{HandshakeTimeout: patience}
	if subprotocol != "" {
		d.Subprotocols = []string{subprotocol}
	}
	c, answer, err := d.DialContext(w.ctx, w.web, headers)
	if answer == nil {
		w.Fatal(err)
	}
	_ = answer.Body.Close() // it has been read, as far as it is kept
	if err != nil {
		return nil, answer.StatusCode
	}
	w.Cleanup(func() { _ = c.Close() })
	w.check(c.SetReadDeadline(w.deadline()))
	return c, answer.StatusCode
}

// from is the header of a browser that shows a page of origin.
func from(origin string) http.Header { return http.Header{"Origin": {origin}} }

// TestWeb: a machine does over WebSocket what it does over TCP.
func TestWeb(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWeb(t)
			m, other := w.machine("16327138", "Asia/Shanghai"), w.machine("16327139", "Asia/Shanghai")
			if _, got := v.dial(w, login{no: m.No, password: other.password}); got != v.pick(4, 0x86) {
				t.Errorf("a wrong password: %#x", got)
			}
			if !strings.Contains(w.logs.text(), "192.0.2.77") {
				t.Errorf("the log should tell who tried:\n%s", w.logs.text())
			}
			p := w.connect(v, m, login{will: &message{topic: serverTopic, payload: w.offline(m)}})
			w.wantPresence(m, fleet.Connected)
			if got := p.subscribe(topicOf(other), 1); got < 0x80 {
				t.Errorf("subscribing to another's topic: %#x", got)
			}
			c := w.code(m)
			p.wantAbout(wire.MethodCreate, c)
			p.send(w.put(m, c.ID))
			if got := w.get(c.ID); got.Marked != pickup.StateUsed || got.LateUse {
				t.Errorf("the code is %+v", got)
			}
			// The server's timeouts are those of requests.
			for timeout := time.After(5 * webTimeout); ; {
				p.alive(m)
				select {
				case <-timeout:
				default:
					continue
				}
				break
			}
			// One that connects over TCP takes over.
			over := *w
			over.web = ""
			q := over.connect(v, m, login{})
			p.ended()
			q.alive(m)
			q.leave()
			w.wantPresence(m, fleet.Offline)
			// Without a word it has a will.
			p = w.connect(v, m, login{will: &message{topic: serverTopic, payload: w.offline(m)}})
			p.vanish()
			w.eventually("the will", func() bool { return w.metric("scrip_mqtt_uplinks_total", "client.offline") == 1 })
		})
	}
}

// TestWebGuesses: guesses count by the client's address, and not by that of a proxy
// through which all come.
func TestWebGuesses(t *testing.T) {
	w := newWeb(t)
	m := w.machine("16327138", "Asia/Shanghai")
	try := func(password, address string) byte {
		t.Helper()
		c, _ := w.shake("mqtt", http.Header{"X-Told": {address}})
		wrong := *m
		wrong.password = password
		w.check(c.WriteMessage(websocket.BinaryMessage, connectPacket("MQTT", 4, &wrong)))
		_, answer, err := c.ReadMessage()
		w.check(err)
		return answer[3]
	}
	for range 20 {
		if got := try("wrong", "2001:db8::1"); got != 4 {
			t.Fatalf("a guess: %#x", got)
		}
	}
	if got := try(m.password, "2001:db8::1"); got != 3 {
		t.Errorf("after too many guesses: %#x", got)
	}
	if got := try(m.password, "2001:db8:ffff::1"); got != 0 {
		t.Errorf("from elsewhere: %#x", got)
	}
}

// TestWebHandshake: who is let in.
func TestWebHandshake(t *testing.T) {
	w := newWeb(t)
	host := strings.TrimSuffix(strings.TrimPrefix(w.web, "ws://"), "/mqtt")
	for _, test := range []struct {
		name, subprotocol string
		headers           http.Header
		want              int
	}{
		{"no browser", "mqtt", nil, http.StatusSwitchingProtocols},
		{"same origin", "mqtt", from("http://" + host), http.StatusSwitchingProtocols},
		{"another site", "mqtt", from("http://evil.example"), http.StatusForbidden},
		{"another port", "mqtt", from("http://127.0.0.1:1"), http.StatusForbidden},
		{"no origin at all", "mqtt", from("null"), http.StatusForbidden},
		{"no subprotocol", "", nil, http.StatusBadRequest},
		{"another subprotocol", "graphql", nil, http.StatusBadRequest},
	} {
		c, got := w.shake(test.subprotocol, test.headers)
		if got != test.want || c != nil && c.Subprotocol() != "mqtt" {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
	r, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http"+strings.TrimPrefix(w.web, "ws"), nil)
	w.check(err)
	answer, err := http.DefaultClient.Do(r)
	w.check(err)
	body, err := io.ReadAll(answer.Body)
	w.check(err)
	w.check(answer.Body.Close())
	if answer.StatusCode != http.StatusUpgradeRequired || answer.Header.Get("Upgrade") != "websocket" || !bytes.Contains(body, []byte("MQTT")) {
		t.Errorf("a request for a page: %d %s", answer.StatusCode, body)
	}
}

// TestWebFrames: how bytes are cut into frames means nothing, and what is no MQTT
// ends the connection, and nothing else.
func TestWebFrames(t *testing.T) {
	w := newWeb(t)
	m := w.machine("16327138", "Asia/Shanghai")
	c, _ := w.shake("mqtt", nil)
	send := func(c *websocket.Conn, b []byte) {
		t.Helper()
		w.check(c.WriteMessage(websocket.BinaryMessage, b))
	}
	publish := framed(0x30, text(serverTopic), w.put(m, 1))
	for _, b := range connectPacket("MQTT", 4, m) {
		send(c, []byte{b})
		send(c, nil)
	}
	if _, answer, err := c.ReadMessage(); err != nil || !bytes.Equal(answer, []byte{0x20, 2, 0, 0}) {
		t.Fatalf("byte by byte: %x, %v", answer, err)
	}
	// Several in one.
	send(c, bytes.Join([][]byte{publish, {0xc0, 0}, publish, {0xc0, 0}}, nil))
	for range 2 {
		if _, answer, err := c.ReadMessage(); err != nil || !bytes.Equal(answer, []byte{0xd0, 0}) {
			t.Fatalf("several in one: %x, %v", answer, err)
		}
	}
	w.wantMetric(2, "scrip_mqtt_uplinks_dropped_total", "unknown_code")

	large := framed(0x32, text(serverTopic), []byte{0, 7}, make([]byte, 900<<10))
	send(c, large) // it is passed over
	if _, answer, err := c.ReadMessage(); err != nil || !bytes.Equal(answer, []byte{0x40, 2, 0, 7}) {
		t.Fatalf("a large message: %x, %v", answer, err)
	}
	for name, test := range map[string]struct {
		kind  int
		first bool // without a CONNECT
		bytes []byte
		want  int
	}{
		"text":                {websocket.TextMessage, true, connectPacket("MQTT", 4, m), websocket.CloseUnsupportedData},
		"text, later":         {websocket.TextMessage, false, []byte{0xc0, 0}, websocket.CloseUnsupportedData},
		"garbage":             {websocket.BinaryMessage, true, []byte("GET / HTTP/1.1\r\n\r\n"), websocket.CloseNormalClosure},
		"garbage, later":      {websocket.BinaryMessage, false, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, websocket.CloseNormalClosure},
		"a CONNECT too large": {websocket.BinaryMessage, true, framed(0x10, make([]byte, 64<<10)), websocket.CloseNormalClosure},
		"a frame too large":   {websocket.BinaryMessage, false, bytes.Repeat(large, 2), websocket.CloseMessageTooBig},
		"a message too large": {websocket.BinaryMessage, false, framed(0x30, text(serverTopic), make([]byte, 1<<20)), websocket.CloseNormalClosure},
	} {
		c, _ := w.shake("mqtt", nil)
		if !test.first {
			send(c, connectPacket("MQTT", 4, m))
			if _, answer, err := c.ReadMessage(); err != nil || answer[3] != 0 {
				t.Fatalf("%s: connecting: %x, %v", name, answer, err)
			}
		}
		_ = c.WriteMessage(test.kind, test.bytes) // it may be cut short
		_, _, err := c.ReadMessage()
		for err == nil {
			_, _, err = c.ReadMessage()
		}
		// What was not read may have the system break the connection.
		if !websocket.IsCloseError(err, test.want) && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "pipe") {
			t.Errorf("%s: the connection ended with %v, want %d", name, err, test.want)
		}
	}
	w.connect(version5{}, m, login{}).alive(m)
	if text := w.logs.text(); strings.Contains(text, "failed badly") {
		t.Errorf("the log: %s", text)
	}
}

// TestWebSlow: who says nothing is not waited for.
func TestWebSlow(t *testing.T) {
	t.Parallel()
	w := newWeb(t)
	m := w.machine("16327138", "Asia/Shanghai")
	c, _ := w.shake("mqtt", nil)
	packet := connectPacket("MQTT", 4, m)
	w.check(c.WriteMessage(websocket.BinaryMessage, packet[:len(packet)-1]))
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the connection ended with %v", err)
	}
}

// TestWebFull: there are no more connections than may be, and one that ends makes
// room for another.
func TestWebFull(t *testing.T) {
	w := newWeb(t)
	open := make([]*websocket.Conn, broker.WebMax)
	for i := range open {
		c, got := w.shake("mqtt", http.Header{"X-Told": {fmt.Sprintf("198.51.100.%d", i/broker.WebEach)}})
		if c == nil {
			t.Fatalf("connection %d: %d", i, got)
		}
		open[i] = c
	}
	if _, got := w.shake("mqtt", nil); got != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", got)
	}
	w.check(open[0].Close())
	w.eventually("room", func() bool {
		_, got := w.shake("mqtt", nil)
		return got == http.StatusSwitchingProtocols
	})
	for _, c := range open[1:] {
		w.check(c.Close())
	}
	w.eventually("room for a refused one", func() bool { // which takes none
		_, got := w.shake("mqtt", from("http://evil.example"))
		return got == http.StatusForbidden
	})
	for range broker.WebMax {
		if _, got := w.shake("mqtt", from("http://evil.example")); got != http.StatusForbidden {
			t.Fatalf("a refused one: %d", got)
		}
	}
	m := w.machine("16327138", "Asia/Shanghai")
	w.connect(version3{}, m, login{}).alive(m)
}

// TestWebEach: there are no more connections from one address than may be, and
// others come in all the same.
func TestWebEach(t *testing.T) {
	w := newWeb(t)
	told := func(address string) http.Header { return http.Header{"X-Told": {address}} }
	for address, others := range map[string][2]string{
		"192.0.2.1":   {"192.0.2.1", "192.0.2.2"},
		"2001:db8::1": {"2001:db8::ffff:1", "2001:db8:0:1::1"}, // who has one address has its network
	} {
		var last *websocket.Conn
		for i := range broker.WebEach {
			c, got := w.shake("mqtt", told(address))
			if c == nil {
				t.Fatalf("connection %d from %s: %d", i, address, got)
			}
			last = c
		}
		if _, got := w.shake("mqtt", told(others[0])); got != http.StatusServiceUnavailable {
			t.Errorf("one too many from %s: %d", others[0], got)
		}
		if _, got := w.shake("mqtt", told(others[1])); got != http.StatusSwitchingProtocols {
			t.Errorf("from %s: %d", others[1], got)
		}
		w.check(last.Close())
		w.eventually("room", func() bool {
			_, got := w.shake("mqtt", told(others[0]))
			return got == http.StatusSwitchingProtocols
		})
	}
	for range 2 * broker.WebEach { // who is refused takes no place
		if _, got := w.shake("mqtt", http.Header{"Origin": {"http://evil.example"}, "X-Told": {"192.0.2.3"}}); got != http.StatusForbidden {
			t.Fatalf("a refused one: %d", got)
		}
	}
}

// TestWebClose: the end of the broker is that of the connections.
func TestWebClose(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			web := w.webbed(w.broker.Web)
			m := w.machine("16327138", "Asia/Shanghai")
			p := w.connect(v, m, login{will: &message{topic: serverTopic, payload: w.offline(m)}})
			silent, _ := w.shake("mqtt", nil)
			w.check(w.broker.Close())
			if got := p.ended(); got != v.pick(0, 0x8b) { // server shutting down
				t.Errorf("the connection ended with %#x", got)
			}
			if _, _, err := silent.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
				t.Errorf("a connection that had said nothing: %v", err)
			}
			w.wantMetric(0, "scrip_mqtt_uplinks_total", "client.offline")
			late, _ := w.shake("mqtt", nil)
			if _, _, err := late.ReadMessage(); err == nil {
				t.Error("a closed broker serves a connection")
			}
			web.Close()
			if _, got := w.shake("mqtt", nil); got != http.StatusServiceUnavailable {
				t.Errorf("once it is closed: %d", got)
			}
		})
	}
}

// renew gives a machine a password of the test's choice.
func (w *world) renew(m *machine, password string) {
	w.Helper()
	w.check(w.fleet.RenewPassword(w.ctx, w.root, m.No, password, nil))
	m.password = password
}

// TestWebExternalGuesses: where the broker is another one, guesses count by the
// client's address, and never get there: it would take all for Scrip's own.
func TestWebExternalGuesses(t *testing.T) {
	t.Parallel()
	r := outside(t, mosquitto(t, rig.MosquittoOptions{}).URL()) // which lets everybody in
	r.webbed(r.external.Web)
	m := r.machine("16327138", "Asia/Shanghai")
	try := func(level byte, no, password, address string) []byte {
		t.Helper()
		c, _ := r.shake("mqtt", http.Header{"X-Told": {address}})
		properties := []byte{}
		if level == 5 {
			properties = []byte{0}
		}
		r.check(c.WriteMessage(websocket.BinaryMessage, framed(0x10, text("MQTT"), []byte{level, 0b1100_0010, 0, 0}, properties,
			text(no), text(no), text(password))))
		_, answer, err := c.ReadMessage()
		r.check(err)
		r.check(c.Close())
		return answer
	}
	for i := range 20 {
		level, want := byte(4), []byte{0x20, 2, 0, 4}
		if i%2 == 1 {
			level, want = 5, []byte{0x20, 3, 0, 0x86, 0}
		}
		if got := try(level, m.No, "wrong", "2001:db8::1"); !bytes.Equal(got, want) {
			t.Fatalf("guess %d: %x", i, got)
		}
	}
	if got := try(4, "00000000", "wrong", "2001:db8::2"); !bytes.Equal(got, []byte{0x20, 2, 0, 4}) {
		t.Errorf("a machine that is none: %x", got)
	}
	if got := try(4, m.No, m.password, "2001:db8::1"); !bytes.Equal(got, []byte{0x20, 2, 0, 3}) {
		t.Errorf("after too many guesses: %x", got)
	}
	if got := try(5, m.No, m.password, "2001:db8::1"); !bytes.Equal(got, []byte{0x20, 3, 0, 0x9f, 0}) {
		t.Errorf("after too many guesses, 5: %x", got)
	}
	if got := try(4, m.No, m.password, "2001:db8:ffff::1"); !bytes.Equal(got, []byte{0x20, 2, 0, 0}) {
		t.Errorf("from elsewhere: %x", got)
	}
	// What the broker would ask.
	if _, err := r.fleet.Login(r.ctx, m.No, m.password, "127.0.0.1"); err != nil {
		t.Errorf("from Scrip's own address: %v", err)
	}
	if !strings.Contains(r.logs.text(), "2001:db8::1") {
		t.Errorf("the log should tell who tried:\n%s", r.logs.text())
	}
}

// TestWebExternal: where the broker is another one, that is who answers.
func TestWebExternal(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	m := mosquitto(t, rig.MosquittoOptions{
		Users:  map[string]string{"scrip": "scrips", "16327138": "own", "16327139": "theirs"},
		Config: fmt.Sprintf("listener %d 127.0.0.1\nprotocol websockets\n", port),
	})
	for name, address := range map[string]string{
		"mqtt": strings.Replace(m.URL(), "mqtt://", "mqtt://scrip:scrips@", 1),
		"ws":   fmt.Sprintf("ws://scrip:scrips@127.0.0.1:%d", port),
	} {
		t.Run(name, func(t *testing.T) {
			r := outside(t, address)
			web := r.webbed(r.external.Web)
			v := r.machine("16327138", "Asia/Shanghai")
			r.renew(v, "own")
			if _, got := (version3{}).dial(r.world, login{no: v.No, password: "theirs", clientID: v.No, clean: true}); got != 4 {
				t.Errorf("a wrong password: %#x", got)
			}
			r.renew(v, "new") // of which the broker has not been told
			if _, got := (version3{}).dial(r.world, login{no: v.No, password: "new", clientID: v.No, clean: true}); got != 5 {
				t.Errorf("a password that is not the broker's: %#x", got)
			}
			r.renew(v, "own")
			p := r.connect(version3{}, v, login{clientID: v.No, clean: true, will: &message{topic: serverTopic, qos: 1, payload: r.offline(v)}})
			r.heartbeats(p, v)
			c := r.code(v)
			p.wantAbout(wire.MethodCreate, c)
			p.send(r.put(v, c.ID))
			r.wantDelivery(c, pickup.Received)
			p.vanish()
			r.wantOnline(v, false) // by its will

			// More than one buffer's worth, at once.
			p = r.connect(version3{}, v, login{clientID: v.No, clean: true})
			p.send(bytes.Repeat([]byte{'{'}, 60<<10))
			r.heartbeats(p, v)
			r.external.Close()
			web.Close()
			p.ended()
		})
	}
}

// TestWebExternalGone: the end of either connection is that of the other, and a
// broker that is not there is said to be.
func TestWebExternalGone(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{}, 8)
	l := listen(t)
	accepted := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var head [512]byte
			n, _ := c.Read(head[:])
			if !bytes.Contains(head[:n], []byte("16327138")) {
				_ = c.Close() // it is Scrip itself
				continue
			}
			accepted <- c
			go func() {
				_, _ = io.Copy(io.Discard, c)
				ended <- struct{}{}
			}()
		}
	}()
	r := newDatabase(t).disconnected("mqtt://"+l.Addr().String(), nil)
	r.populate(fleet.Style{})
	r.webbed(r.external.Web)
	v := r.machine("16327138", "Asia/Shanghai")
	packet := framed(0x10, text("MQTT"), []byte{4, 0b1100_0000, 0, 0}, text(v.No), text(v.No), text(v.password))
	begin := func() (*websocket.Conn, net.Conn) {
		t.Helper()
		c, _ := r.shake("mqtt", nil)
		r.check(c.WriteMessage(websocket.BinaryMessage, packet))
		select {
		case there := <-accepted:
			return c, there
		case <-time.After(patience):
			t.Fatal("the broker is not connected")
			return nil, nil
		}
	}
	c, there := begin()
	_, err := there.Write([]byte{0x20, 2, 0, 0})
	r.check(err)
	if _, answer, err := c.ReadMessage(); err != nil || len(answer) != 4 {
		t.Errorf("the answer: %x, %v", answer, err)
	}
	r.check(there.Close())
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the broker has ended, and the connection with %v", err)
	}
	<-ended
	c, _ = begin()
	r.check(c.Close())
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the client has gone, and the broker was not told")
	}
	// With a keep-alive of a second, silence ends both.
	packet = framed(0x10, text("MQTT"), []byte{4, 0b1100_0000, 0, 1}, text(v.No), text(v.No), text(v.password))
	c, _ = begin()
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("after silence the connection ended with %v", err)
	}
	<-ended

	r.check(l.Close())
	c, _ = r.shake("mqtt", nil)
	r.check(c.WriteMessage(websocket.BinaryMessage, packet))
	if _, answer, err := c.ReadMessage(); err != nil || !bytes.Equal(answer, []byte{0x20, 2, 0, 3}) {
		t.Errorf("without a broker: %x, %v", answer, err)
	}
	if !strings.Contains(r.logs.text(), "over WebSocket") {
		t.Errorf("the log: %s", r.logs.text())
	}
}

// TestWebExternalNames: through Scrip a machine comes to the broker under its own
// name alone, and nobody comes as Scrip.
func TestWebExternalNames(t *testing.T) {
	t.Parallel()
	r := outside(t, mosquitto(t, rig.MosquittoOptions{}).URL())
	r.webbed(r.external.Web)
	v := r.machine("16327138", "Asia/Shanghai")
	r.renew(r.machine("16327139", "Asia/Shanghai"), "x")
	p := r.connect(version3{}, v, login{clientID: v.No, clean: true})
	connect := func(level byte, id, username string) []byte {
		properties := []byte{}
		if level == 5 {
			properties = []byte{0}
		}
		return framed(0x10, text("MQTT"), []byte{level, 0b1100_0010, 0, 0}, properties, text(id), text(username), text("x"))
	}
	for name, test := range map[string]struct {
		packet, want []byte // nil: no answer
	}{
		"another's client id":      {connect(4, "16327138", "16327139"), []byte{0x20, 2, 0, 2}},
		"another's client id, 5":   {connect(5, "16327138", "16327139"), []byte{0x20, 3, 0, 0x85, 0}},
		"no client id":             {connect(4, "", "16327139"), []byte{0x20, 2, 0, 2}},
		"Scrip's client id":        {connect(4, "scrip", "16327139"), []byte{0x20, 2, 0, 2}},
		"Scrip's name":             {connect(4, "scrip", "scrip"), []byte{0x20, 2, 0, 4}},
		"Scrip's name, 5":          {connect(5, "scrip", "scrip"), []byte{0x20, 3, 0, 0x86, 0}},
		"no name":                  {framed(0x10, text("MQTT"), []byte{4, 2, 0, 0}, text("16327139")), []byte{0x20, 2, 0, 4}},
		"a bridge":                 {connect(0x84, "16327139", "16327139"), []byte{0x20, 3, 0, 0x84, 0}},
		"its own":                  {connect(4, "16327139", "16327139"), []byte{0x20, 2, 0, 0}},
		"another packet":           {framed(0x30, text(serverTopic), []byte("x")), nil},
		"a CONNECT that is cut":    {framed(0x10, text("MQTT"), []byte{4}), nil},
		"a CONNECT of another way": {framed(0x10, text("MQXX"), []byte{4, 0b1100_0010, 0, 0}, text("16327139"), text("16327139"), text("x")), nil},
		"a CONNECT that is huge":   {binary.AppendUvarint([]byte{0x10}, 1<<20), nil},
	} {
		c, _ := r.shake("mqtt", nil)
		r.check(c.WriteMessage(websocket.BinaryMessage, test.packet))
		_, answer, err := c.ReadMessage()
		if !bytes.Equal(answer, test.want) || (err == nil) != (test.want != nil) {
			t.Errorf("%s: the answer is %x, want %x, %v", name, answer, test.want, err)
		}
	}
	r.heartbeats(p, v) // nobody has ended it
}
