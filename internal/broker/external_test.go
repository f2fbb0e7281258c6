package broker_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/broker"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/rig"
	"github.com/scrip-codes/scrip/internal/wire"
)

// mosquitto starts one. Its URL is what Scrip connects to.
func mosquitto(t *testing.T, o rig.MosquittoOptions) *rig.Mosquitto {
	t.Helper()
	m, err := rig.StartMosquitto(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// replica is a server of a world whose machines are at another broker.
type replica struct {
	*world
	external *broker.External
	stop     func() // at once, as if it had died
}

// outside returns a database with one replica that uses the broker at address.
func outside(t *testing.T, address string) *replica {
	t.Helper()
	r := newDatabase(t).replica(address, nil)
	r.populate(fleet.Style{})
	return r
}

// replica adds a server. It connects to address; machines, as this test has them,
// go to the same host. Uses go to pickups, if that is not nil.
func (w *world) replica(address string, pickups pickup.Store) *replica {
	w.Helper()
	r := w.disconnected(address, pickups)
	r.connected()
	return r
}

// disconnected is replica without the wait for the connection.
func (w *world) disconnected(address string, pickups pickup.Store) *replica {
	w.Helper()
	copied := *w
	r := &replica{world: &copied}
	u, err := url.Parse(address)
	w.check(err)
	if u.Scheme == "mqtt" {
		r.address = u.Host
	}
	log := slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if pickups == nil {
		pickups = w.db
	}
	relay := delivery.NewRelay(w.db, w.clock.Now, log)
	r.fleet = fleet.NewService(w.db, w.db.Keys(), guess.New(20, 10*time.Minute, w.clock.Now), w.clock.Now, relay.Changed)
	r.pickups = pickup.NewService(pickups, w.db.Keys(), w.clock.Now, relay.Changed)
	r.watch = fleet.NewWatch(w.db, w.clock.Now, log)
	r.registry = prometheus.NewRegistry()
	r.external = broker.Connect(broker.ExternalConfig{
		URL: u, Fleet: r.fleet, Watch: r.watch, Pickups: r.pickups, Relay: relay, Alone: w.alone,
		Log: log, Now: w.clock.Now, Registry: r.registry,
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.ctx))
	var jobs sync.WaitGroup
	jobs.Go(func() { r.watch.Run(ctx) })
	jobs.Go(func() { relay.Run(ctx, r.external) })
	r.stop = sync.OnceFunc(func() {
		r.external.Close()
		cancel()
		jobs.Wait()
	})
	w.Cleanup(r.stop)
	return r
}

// alone runs do on one replica at a time.
func (w *world) alone(ctx context.Context, do func(context.Context) error) error {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.turn }()
	return do(ctx)
}

// connected waits for the broker.
func (r *replica) connected() {
	r.Helper()
	r.eventually("a connection to the broker", func() bool { return r.metric("scrip_mqtt_broker_connected") == 1 })
}

// wantDelivery waits until that is said of a code.
func (w *world) wantDelivery(c pickup.Code, want pickup.Delivery) {
	w.Helper()
	w.eventually("delivery "+string(want), func() bool { return w.get(c.ID).Delivery == want })
}

// heartbeats has a machine say that it lives, until that it was back is written down
// and sure.
func (r *replica) heartbeats(p *peer, m *machine) {
	r.Helper()
	p.send(r.heartbeat(m))
	r.wantOnline(m, true)
	r.alive(p, m)
}

func (w *world) wantOnline(m *machine, want bool) {
	w.Helper()
	w.eventually(fmt.Sprint("online ", want), func() bool {
		got, err := w.fleet.Machine(w.ctx, w.root, m.No)
		w.check(err)
		return got.Online(w.clock.Now()) == want
	})
}

// about is the method of what a machine is sent, and the code that it is about.
func (p *peer) about() (method string, id int64) {
	p.w.Helper()
	m, err := wire.Decode(p.receive().payload)
	p.w.check(err)
	if !m.Verify(appKey) {
		p.w.Error("the signature is wrong")
	}
	switch m.Method() {
	case wire.MethodCreate:
		c, err := m.Create()
		p.w.check(err)
		return m.Method(), c.ID
	case wire.MethodDelete:
		d, err := m.Delete()
		p.w.check(err)
		return m.Method(), d.ID
	}
	p.w.Fatalf("a machine is sent %s", m.Method())
	panic("unreachable")
}

// wantAbout waits for messages about these codes, in this order.
func (p *peer) wantAbout(method string, codes ...pickup.Code) {
	p.w.Helper()
	for _, c := range codes {
		if gotMethod, id := p.about(); gotMethod != method || id != c.ID {
			p.w.Fatalf("got %s of %d, want %s of %d", gotMethod, id, method, c.ID)
		}
	}
}

// ticking lets time pass, ten times as fast as it does, until it is stopped.
func (w *world) ticking() (stop func()) {
	ctx, cancel := context.WithCancel(w.ctx)
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				w.clock.Add(100 * time.Millisecond)
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// alive has a machine say that it lives, and waits until that is written down.
func (r *replica) alive(p *peer, m *machine) {
	r.Helper()
	r.clock.Add(time.Second)
	stamp := r.clock.Now()
	p.send(r.heartbeat(m))
	r.eventually("a heartbeat to be written down", func() bool {
		got, err := r.fleet.Machine(r.ctx, r.root, m.No)
		r.check(err)
		return got.LastSeen.Equal(stamp)
	})
}

// nothing checks that nothing has come, and nothing does before the next code.
func (r *replica) nothing(p *peer, m *machine) {
	r.Helper()
	p.wantAbout(wire.MethodCreate, r.code(m))
}

// externals are the versions of the protocol, each with what a broker that does
// not speak 5 says to that; nil: it does.
func externals() map[string][]byte {
	return map[string][]byte{
		"5":           nil,
		"3.1.1":       {0x20, 3, 0, 0x84, 0},
		"3.1.1 older": {0x20, 2, 0, 1},
		"3.1.1 mute":  {},
	}
}

// old passes on to another broker what is not in MQTT 5, and returns its URL. A
// CONNECT in 5 gets the answer.
func old(t *testing.T, address string, answer []byte) string {
	t.Helper()
	return "mqtt://" + passOn(t, listen(t), address, func(c net.Conn) []byte {
		head := make([]byte, 10) // fixed header of 2 to 3 bytes, name of 6, version
		if _, err := io.ReadFull(c, head); err != nil {
			return nil
		}
		if version := head[strings.Index(string(head), "MQTT")+4]; version == 5 {
			_, _ = c.Write(answer)
			return nil
		}
		return head
	})
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// passOn passes connections on to address, with what begin has read of them; nil
// ends one. It returns where it listens.
func passOn(t *testing.T, l net.Listener, address string, begin func(net.Conn) []byte) string {
	t.Helper()
	t.Cleanup(func() { _ = l.Close() })
	pass := func(c net.Conn) {
		defer func() { _ = c.Close() }()
		head := begin(c)
		if head == nil {
			return
		}
		d, err := new(net.Dialer).DialContext(context.Background(), "tcp", address) //nolint:usetesting // connections outlive a test's context
		if err != nil {
			return
		}
		defer func() { _ = d.Close() }()
		_, _ = d.Write(head)
		go func() {
			_, _ = io.Copy(c, d)
			_ = c.Close()
		}()
		_, _ = io.Copy(d, c)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go pass(c)
		}
	}()
	return l.Addr().String()
}

// TestExternal: codes reach a machine through another broker, and what it says
// reaches Scrip, in each version of the protocol.
func TestExternal(t *testing.T) {
	t.Parallel()
	for name, refusal := range externals() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := mosquitto(t, rig.MosquittoOptions{}).URL()
			if refusal != nil {
				address = old(t, strings.TrimPrefix(address, "mqtt://"), refusal)
			}
			r := outside(t, address)
			if want := "version=" + name[:min(len(name), 5)]; !strings.Contains(r.logs.text(), want) {
				t.Errorf("the log does not say %s", want)
			}
			m, other := r.machine("16327138", "Asia/Shanghai"), r.machine("16327139", "Asia/Shanghai")
			p := r.connect(version3{}, m, login{will: &message{topic: serverTopic, qos: 1, payload: r.offline(m)}})
			r.heartbeats(p, m)

			c := r.code(m)
			p.wantAbout(wire.MethodCreate, c)
			r.wantDelivery(c, pickup.Sent)

			// What is dropped changes nothing.
			p.send(wire.Put{Head: r.head(m), ID: c.ID}.Encode(wire.Style{AppKey: "another key"}))
			p.send(r.put(other, c.ID))
			p.send(r.put(&machine{Machine: fleet.Machine{No: "11111111"}}, c.ID))
			p.send([]byte("{"))
			for _, reason := range []string{"forged", "unknown_code", "foreign", "malformed"} {
				r.eventually(reason, func() bool { return r.metric("scrip_mqtt_uplinks_dropped_total", reason) == 1 })
			}
			if got := r.get(c.ID); got.Marked != pickup.StateLive {
				t.Errorf("the code is %s", got.Marked)
			}

			// A use is recorded, and with it that the machine had the code.
			p.send(r.put(m, c.ID))
			r.wantDelivery(c, pickup.Received)
			if got := r.get(c.ID); got.Marked != pickup.StateUsed {
				t.Errorf("the code is %s", got.Marked)
			}

			// A withdrawal comes too.
			gone := r.code(m)
			p.wantAbout(wire.MethodCreate, gone)
			r.check(r.pickups.Withdraw(r.ctx, r.root, gone.ID))
			p.wantAbout(wire.MethodDelete, gone)

			p.vanish() // without a word: its will speaks
			r.wantOnline(m, false)
		})
	}
}

// TestExternalAway: a machine that has been away is told all that it should hold.
func TestExternalAway(t *testing.T) {
	t.Parallel()
	m := mosquitto(t, rig.MosquittoOptions{})
	r := outside(t, m.URL())
	v := r.machine("16327138", "Asia/Shanghai")
	p := r.connect(version3{}, v, login{})
	r.heartbeats(p, v)
	kept, withdrawn, used := r.code(v), r.code(v), r.code(v)
	short, err := r.pickups.Create(r.ctx, r.root, pickup.Request{
		MachineNo: v.No, ProductID: v.product, Quantity: 1, TTL: time.Minute, AllowMore: true,
	})
	r.check(err)
	p.wantAbout(wire.MethodCreate, kept, withdrawn, used, short)
	for _, c := range []pickup.Code{kept, withdrawn, used, short} {
		r.wantDelivery(c, pickup.Sent)
	}
	p.send(r.put(v, used.ID))
	r.wantDelivery(used, pickup.Received)
	p.send(r.offline(v))
	r.wantOnline(v, false)
	p.vanish()

	r.check(r.pickups.Withdraw(r.ctx, r.root, withdrawn.ID))
	missed := r.code(v)
	stop := r.ticking()
	r.eventually("the broker to have the withdrawal and the code nine times, for nobody", func() bool {
		return r.metric("scrip_mqtt_messages_sent_total") == 4+2*9
	})
	r.wantDelivery(missed, pickup.Sent)
	stop()
	r.clock.Add(2 * time.Minute)
	p = r.dial(version3{}, v, login{})
	p.send(r.heartbeat(v)) // some firmware says that it is there before it listens
	if got := p.subscribe(topicOf(v), 1); got != 1 {
		t.Fatalf("subscribing: %#x", got)
	}
	all := func() {
		t.Helper()
		p.wantAbout(wire.MethodCreate, kept)
		p.wantAbout(wire.MethodDelete, withdrawn)
		p.wantAbout(wire.MethodCreate, missed)
	}
	all()
	r.alive(p, v)
	all() // the first word may have been heard late
	r.alive(p, v)
	r.nothing(p, v)

	// It was silent for ten minutes, and nobody has said that it left.
	r.clock.Add(11 * time.Minute)
	for range 2 {
		r.alive(p, v)
		all()
		p.about() // the last one
	}

	// Signs of life of a machine that is there have it told nothing.
	r.alive(p, v)
	r.nothing(p, v)
}

// TestExternalRestart: nothing is lost when the broker is killed, whoever finds it
// again first.
func TestExternalRestart(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string][]byte{"5": nil, "3.1.1": {0x20, 2, 0, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := mosquitto(t, rig.MosquittoOptions{})
			address := m.URL()
			if refusal != nil {
				address = old(t, strings.TrimPrefix(address, "mqtt://"), refusal)
			}
			r := outside(t, address)
			v := r.machine("16327138", "Asia/Shanghai")
			p := r.connect(version3{}, v, login{})
			r.heartbeats(p, v)
			before := r.code(v)
			p.wantAbout(wire.MethodCreate, before)
			r.wantDelivery(before, pickup.Sent)
			r.check(m.Kill())
			p.ended()
			r.eventually("the end of the connection", func() bool { return r.metric("scrip_mqtt_broker_connected") == 0 })
			during := []pickup.Code{r.code(v), r.code(v)}
			if got := r.get(during[0].ID).Delivery; got != pickup.Queued {
				t.Errorf("without a broker delivery is %s", got)
			}
			r.check(m.Start(r.ctx))

			// Scrip is back first, and speaks to nobody.
			defer r.ticking()()
			r.connected()
			r.eventually("messages to nobody", func() bool { return r.metric("scrip_mqtt_messages_sent_total") >= 3 })
			p = r.connect(version3{}, v, login{})
			if name == "5" { // the broker has said so: it is tried again
				got := map[int64]bool{}
				for len(got) < len(during) {
					_, id := p.about()
					got[id] = true
				}
			}
			p.send(r.heartbeat(v))
			seen := map[int64]bool{}
			for !seen[before.ID] || !seen[during[0].ID] || !seen[during[1].ID] {
				_, id := p.about()
				seen[id] = true
			}
			p.send(r.put(v, during[1].ID))
			r.wantDelivery(during[1], pickup.Received)
			if !strings.Contains(r.logs.text(), "not connected to the MQTT broker") {
				t.Error("the log does not say that the broker was away")
			}
		})
	}
}

// TestExternalReplicas: two share the work, each machine is served by one of them,
// and by the other once that is dead.
func TestExternalReplicas(t *testing.T) {
	t.Parallel()
	m := mosquitto(t, rig.MosquittoOptions{})
	a := outside(t, m.URL())
	b := a.replica(m.URL(), nil)
	sent := func(r *replica) float64 { return r.metric("scrip_mqtt_messages_sent_total") }

	const machines, each = 4, 8
	var fleet [machines]*machine
	var peers [machines]*peer
	for i := range fleet {
		fleet[i] = a.machine(fmt.Sprint(20000000+i), "Asia/Shanghai")
		peers[i] = a.connect(version3{}, fleet[i], login{})
		a.heartbeats(peers[i], fleet[i])
	}
	var codes [machines][]pickup.Code
	for n := range each {
		for i, v := range fleet { // through either of them
			codes[i] = append(codes[i], []*replica{a, b}[(i+n)%2].code(v))
		}
	}
	for i, p := range peers {
		p.wantAbout(wire.MethodCreate, codes[i]...)
	}
	for i := range codes {
		for _, c := range codes[i] {
			a.wantDelivery(c, pickup.Sent)
		}
	}
	if n := sent(a) + sent(b); n != machines*each {
		t.Errorf("%v messages were sent, want each once: %d", n, machines*each)
	}

	// What machines say is split.
	for i, p := range peers {
		for _, c := range codes[i] {
			p.send(a.put(fleet[i], c.ID))
		}
	}
	for i := range codes {
		for _, c := range codes[i] {
			a.wantDelivery(c, pickup.Received)
		}
	}
	puts := func(r *replica) float64 { return r.metric("scrip_mqtt_uplinks_total", wire.MethodPut) }
	a.eventually("all reports to be counted", func() bool { return puts(a)+puts(b) >= machines*each })
	if puts(a) == 0 || puts(b) == 0 || puts(a)+puts(b) != machines*each {
		t.Errorf("%v and %v reports were heard, want %d in all", puts(a), puts(b), machines*each)
	}

	// One dies. While its lease runs the other leaves the machine alone.
	v, p := fleet[0], peers[0]
	first := a.code(v)
	p.wantAbout(wire.MethodCreate, first)
	a.wantDelivery(first, pickup.Sent)
	dead, heir := a, b
	dead.stop()
	orphan := heir.code(v)
	more := heir.code(v)
	heir.clock.Add(5 * time.Second)
	p.wantAbout(wire.MethodCreate, orphan, more)
	heir.wantDelivery(more, pickup.Sent)
	p.send(heir.put(v, more.ID))
	heir.wantDelivery(more, pickup.Received)
}

// failing is a database that cannot write down a use for some time, or that of one
// code ever.
type failing struct {
	pickup.Store
	times atomic.Int32
	code  atomic.Int64
}

func (f *failing) Use(ctx context.Context, r pickup.Report) (pickup.Code, error) {
	if r.CodeID == f.code.Load() || f.times.Add(-1) >= 0 {
		return pickup.Code{}, io.ErrUnexpectedEOF
	}
	return f.Store.Use(ctx, r)
}

// TestExternalPutIsKept: the report of a use that cannot be written down is
// neither acknowledged nor forgotten.
func TestExternalPutIsKept(t *testing.T) {
	t.Parallel()
	m := mosquitto(t, rig.MosquittoOptions{})
	w := newDatabase(t)
	f := &failing{Store: w.db}
	r := w.replica(m.URL(), f)
	r.populate(fleet.Style{})
	v := r.machine("16327138", "Asia/Shanghai")
	r.inboxed()
	p := r.connect(version3{}, v, login{})
	c := r.code(v)
	p.wantAbout(wire.MethodCreate, c)
	f.times.Store(2)
	p.send(r.put(v, c.ID))
	r.wantDelivery(c, pickup.Received)
	r.eventually("both to have heard it", func() bool {
		return r.metric("scrip_mqtt_uplinks_total", wire.MethodPut) == 1 && r.metric("scrip_mqtt_inbox_uplinks_total", wire.MethodPut) == 1
	})
	if got := r.metric("scrip_mqtt_uplinks_dropped_total", "unavailable") +
		r.metric("scrip_mqtt_inbox_uplinks_dropped_total", "unavailable"); got != 2 {
		t.Errorf("it failed %v times, want 2", got)
	}
}

// late is a database that takes so long over a message that end is called.
type late struct {
	pickup.Store
	end atomic.Pointer[context.CancelFunc]
}

func (l *late) Message(ctx context.Context, id int64) (pickup.Material, error) {
	if end := l.end.Load(); end != nil {
		defer (*end)()
	}
	return l.Store.Message(ctx, id)
}

// TestExternalLate: a message that is written too late is not sent.
func TestExternalLate(t *testing.T) {
	t.Parallel()
	w := newDatabase(t)
	l := &late{Store: w.db}
	r := w.replica(mosquitto(t, rig.MosquittoOptions{}).URL(), l)
	r.populate(fleet.Style{})
	v := r.machine("16327138", "Asia/Shanghai")
	p := r.connect(version3{}, v, login{})
	c := r.code(v)
	p.wantAbout(wire.MethodCreate, c)
	r.wantDelivery(c, pickup.Sent)
	ctx, cancel := context.WithCancel(t.Context())
	l.end.Store(&cancel)
	_, err := r.external.Send(ctx, delivery.Item{MachineID: v.ID, Kind: delivery.KindCreate, CodeID: c.ID}, func() {})
	l.end.Store(nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it is sent: %v", err)
	}
	r.nothing(p, v)
	r.wantMetric(1, "scrip_mqtt_broker_connected") // there was no need to end anything
}

// freePort is one that nothing listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l := listen(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().(*net.TCPAddr).Port
}

// TestExternalWebSocket: ws:// works.
func TestExternalWebSocket(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	m := mosquitto(t, rig.MosquittoOptions{Config: fmt.Sprintf("listener %d 127.0.0.1\nprotocol websockets\n", port)})
	r := outside(t, fmt.Sprintf("ws://127.0.0.1:%d", port))
	r.address = strings.TrimPrefix(m.URL(), "mqtt://")
	v := r.machine("16327138", "Asia/Shanghai")
	p := r.connect(version3{}, v, login{})
	c := r.code(v)
	p.wantAbout(wire.MethodCreate, c)
	p.send(r.put(v, c.ID))
	r.wantDelivery(c, pickup.Received)
}

// TestExternalTLS: mqtts:// works with a broker whose certificate is trusted, and
// with no other.
func TestExternalTLS(t *testing.T) {
	plain := strings.TrimPrefix(mosquitto(t, rig.MosquittoOptions{}).URL(), "mqtt://")
	secure := func(c tls.Certificate) string {
		l := tls.NewListener(listen(t), &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{c}})
		return "mqtts://" + passOn(t, l, plain, func(net.Conn) []byte { return []byte{} })
	}
	trusted, other := trusted(t), certificate(t)
	file := filepath.Join(t.TempDir(), "roots.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: trusted.Certificate[0]})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file) // read once in a process: nothing else here looks at certificates

	r := outside(t, secure(trusted))
	r.address = plain
	v := r.machine("16327138", "Asia/Shanghai")
	p := r.connect(version3{}, v, login{})
	c := r.code(v)
	p.wantAbout(wire.MethodCreate, c)
	p.send(r.put(v, c.ID))
	r.wantDelivery(c, pickup.Received)

	stranger := newDatabase(t).disconnected(secure(other), nil)
	stranger.eventually("a complaint", func() bool {
		return strings.Contains(stranger.logs.text(), "certificate signed by unknown authority")
	})
	if stranger.metric("scrip_mqtt_broker_connected") != 0 {
		t.Error("a stranger's certificate is accepted")
	}
}

// theTrusted is the one certificate that this process trusts.
var theTrusted atomic.Pointer[tls.Certificate] //nolint:gochecknoglobals // the process looks for roots once, and -count runs tests again

func trusted(t *testing.T) tls.Certificate {
	t.Helper()
	c := certificate(t)
	theTrusted.CompareAndSwap(nil, &c)
	return *theTrusted.Load()
}

// certificate makes one for 127.0.0.1.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now() //nolint:forbidigo // certificates are checked by the system's clock
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestReconnectAfter: pauses grow, to 30 seconds and no further, and differ.
func TestReconnectAfter(t *testing.T) {
	for failures, most := range map[int]time.Duration{
		1: 500 * time.Millisecond, 2: time.Second, 5: 8 * time.Second, 7: 30 * time.Second, 1000: 30 * time.Second,
	} {
		seen := map[int64]bool{}
		for range 100 {
			d := broker.ReconnectAfter(failures)
			if d < most/2 || d >= most {
				t.Fatalf("after %d failures: %v, want half of %v to all of it", failures, d, most)
			}
			seen[d.Nanoseconds()] = true
		}
		if len(seen) < 50 {
			t.Errorf("after %d failures there are only %d pauses", failures, len(seen))
		}
	}
}

// open lets everybody do everything.
type open struct{ mqtt.HookBase }

func (*open) Provides(what byte) bool {
	return what == mqtt.OnConnectAuthenticate || what == mqtt.OnACLCheck
}

func (*open) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

func (*open) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

// TestExternalEvents: a broker that says who comes and goes, as EMQX does, is
// listened to; and one that has no shared subscriptions is no hindrance.
func TestExternalEvents(t *testing.T) {
	t.Parallel()
	for name, shared := range map[string]byte{"shared": 1, "plain": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limits := mqtt.NewDefaultServerCapabilities()
			limits.SharedSubAvailable = shared
			s := mqtt.New(&mqtt.Options{InlineClient: true, Capabilities: limits, Logger: slog.New(slog.DiscardHandler)})
			if err := s.AddHook(new(open), nil); err != nil {
				t.Fatal(err)
			}
			l := listeners.NewTCP(listeners.Config{ID: "t", Address: "127.0.0.1:0"})
			if err := s.AddListener(l); err != nil {
				t.Fatal(err)
			}
			if err := s.Serve(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			r := outside(t, "mqtt://"+l.Address())
			v := r.machine("16327138", "Asia/Shanghai")
			event := func(what, username, reason string) {
				t.Helper()
				r.check(s.Publish("$SYS/brokers/emqx@127.0.0.1/clients/"+username+"/"+what,
					fmt.Appendf(nil, `{"username":%q,"clientid":%q,"reason":%q,"ts":1}`, username, username, reason), false, 1))
			}
			p := r.connect(version3{}, v, login{})
			event("connected", v.No, "")
			r.wantOnline(v, true)
			c := r.code(v)
			p.wantAbout(wire.MethodCreate, c)
			r.wantDelivery(c, pickup.Sent)

			// It comes again, and is told again, although it was online.
			event("connected", "scrip", "")
			event("connected", "11111111", "")
			event("subscribed", v.No, "")
			p.wantAbout(wire.MethodCreate, c)
			event("disconnected", v.No, "takenover")
			event("disconnected", v.No, "discarded")
			r.alive(p, v)
			r.nothing(p, v) // it has not been away
			event("disconnected", v.No, "tcp_closed")
			r.wantOnline(v, false)
			r.nothing(p, v)

			p.send(r.put(v, c.ID))
			r.wantDelivery(c, pickup.Received)
		})
	}
}
