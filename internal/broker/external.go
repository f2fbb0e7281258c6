package broker

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/bits"
	mathrand "math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const (
	// eventTopics are where EMQX says who comes and goes.
	eventTopics = "$SYS/brokers/+/clients/+/"

	// answerWithin is how long a broker may take for any answer. One that takes
	// longer is given up, and connected to again.
	answerWithin = 10 * time.Second
	// keepAlive is how long a connection may be silent, in seconds.
	keepAlive = 30
	// unacknowledgedMax bounds the messages of machines that the broker has sent
	// and that are not done with, where the broker asks (MQTT 5).
	unacknowledgedMax = 1024
	// lanes is how many messages of machines are acted upon at once, and laneMax
	// how many wait for one.
	lanes   = 32
	laneMax = 1024
	// A connection is tried again after a time that doubles from the first to the
	// last of these, until one has lasted.
	reconnectFirst = 500 * time.Millisecond
	reconnectLast  = 30 * time.Second
	lasting        = 10 * time.Second
	// hearAgainLast is the longest pause before the report of a use that could not
	// be written is tried again.
	hearAgainLast = 5 * time.Second
	// mutesMax is how often a broker may leave MQTT 5's CONNECT without an answer
	// before it is asked in 3.1.1.
	mutesMax = 3
)

// ExternalConfig says what the client of a broker works with.
type ExternalConfig struct {
	// URL is mqtt://, mqtts://, ws:// or wss://, with the username and the
	// password, if the broker wants them.
	URL     *url.URL
	Fleet   *fleet.Service
	Watch   *fleet.Watch
	Pickups *pickup.Service
	Relay   *delivery.Relay
	// Alone runs do on one server at a time: it waits until no other does, ends
	// do's context when another one may begin, and returns what do does, or why ctx
	// has ended.
	Alone    func(ctx context.Context, do func(context.Context) error) error
	Log      *slog.Logger
	Now      func() time.Time
	Registry *prometheus.Registry
}

// External is the client of a broker that is not ours, in MQTT 5 or, if the
// broker does not speak that, 3.1.1. It is a delivery.Sender, and safe for
// concurrent use.
type External struct {
	config  ExternalConfig
	hearing *hearing
	sent    prometheus.Counter
	inbox   inbox
	writer  writer
	lanes   [lanes]chan func()
	seed    maphash.Seed
	// Where the broker is, without the password.
	address string

	work    context.Context // ends with Close
	endWork context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	session session // nil: not connected
}

var _ delivery.Sender = (*External)(nil)

// session is one connection to a broker, in either version of the protocol.
type session interface {
	// version is that of the protocol, and shares whether a subscription can be
	// shared.
	version() (name string, shares bool)
	subscribe(ctx context.Context, filter string) error
	// publish returns once the broker has acknowledged the message, with
	// delivery.ErrUnheard if it has said that nobody listens.
	publish(ctx context.Context, topic string, payload []byte) error
	// done is closed at the end.
	done() <-chan struct{}
	// close ends it.
	close()
}

// incoming is a message from the broker.
type incoming struct {
	topic   string
	payload []byte
	qos     byte
	// acknowledge may be called when the session has ended.
	acknowledge func()
}

// Connect connects to a broker, and again whenever the connection has ended,
// until Close. It does not wait for it.
func Connect(c ExternalConfig) *External {
	e := &External{
		config: c, writer: writer{pickups: c.Pickups, now: c.Now}, seed: maphash.MakeSeed(),
		address: (&url.URL{Scheme: c.URL.Scheme, Host: c.URL.Host, Path: c.URL.Path}).String(),
	}
	counts := newTraffic(c.Registry, "Messages to machines that the broker has acknowledged.")
	e.sent = counts.sent
	e.hearing = &hearing{
		fleet: c.Fleet, pickups: c.Pickups, log: c.Log, metrics: counts.uplinks,
		drops: &seldom{now: c.Now}, failures: &seldom{now: c.Now},
	}
	e.inbox.hearing = *e.hearing
	e.inbox.hearing.metrics = newUplinks(c.Registry, "scrip_mqtt_inbox_uplinks",
		"Reports of uses in the inbox, which the servers have heard already unless none was connected,")
	c.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "scrip_mqtt_inbox_connected", Help: "Whether this server keeps the inbox at the broker: 1 or 0. One of all servers does.",
	}, func() float64 {
		if e.inbox.connected.Load() {
			return 1
		}
		return 0
	}))
	c.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "scrip_mqtt_broker_connected", Help: "Whether the broker is connected: 1 or 0.",
	}, func() float64 {
		if e.current() == nil {
			return 0
		}
		return 1
	}))
	e.work, e.endWork = context.WithCancel(context.Background())
	for i := range e.lanes {
		lane := make(chan func(), laneMax)
		e.lanes[i] = lane
		e.running.Go(func() { e.act(lane) })
	}
	e.running.Go(e.stay)
	return e
}

// Close ends the connection. What machines have said and is not acted upon is
// not acknowledged either.
func (e *External) Close() {
	e.endWork()
	e.running.Wait()
}

// stay keeps a connection.
func (e *External) stay() {
	d := dialer{url: e.config.URL}
	failed := 0
	for e.work.Err() == nil {
		begun := e.config.Now()
		err := e.once(&d)
		if e.config.Now().Sub(begun) >= lasting {
			failed = 0
		}
		failed++
		if e.work.Err() != nil {
			return
		}
		if bits.OnesCount(uint(failed)) == 1 { // 1, 2, 4, 8, …
			e.config.Log.LogAttrs(e.work, slog.LevelWarn, "not connected to the MQTT broker, and trying again",
				slog.String("broker", e.address), slog.Int("tries", failed), slog.Any("error", err))
		}
		select {
		case <-time.After(reconnectAfter(failed)):
		case <-e.work.Done():
		}
	}
}

// reconnectAfter is how long to wait after so many failures, with some chance in
// it: replicas that have lost a broker together should not come back together.
func reconnectAfter(failures int) time.Duration {
	d := min(reconnectFirst<<min(failures-1, 20), reconnectLast)
	return d/2 + mathrand.N(d/2) //nolint:gosec // G404: it is only to spread load
}

// once is the life of one connection; it returns why that ended.
func (e *External) once(d *dialer) error {
	// A name of its own, and as short as 3.1.1 allows.
	s, err := d.open(e.work, client{id: "scrip" + rand.Text()[:16]}, e.route)
	if err != nil {
		return err
	}
	defer s.close()
	shared, err := e.subscribe(s)
	if err != nil {
		return err
	}
	// Nobody knows what machines have missed while there was no broker, or what was
	// said of them while there was no Scrip.
	if err := e.config.Watch.Miss(e.work); err != nil {
		return err
	}
	version, _ := s.version()
	e.config.Log.LogAttrs(e.work, slog.LevelInfo, "connected to the MQTT broker",
		slog.String("broker", e.address), slog.String("version", version), slog.Bool("shared", shared))
	e.set(s)
	e.config.Relay.Up()
	connected, end := context.WithCancel(e.work)
	var inbox sync.WaitGroup
	inbox.Go(func() { e.keepInbox(connected) })
	defer func() {
		end()
		e.set(nil)
		e.config.Relay.Down()
		inbox.Wait()
	}()
	select {
	case <-s.done():
		return errEnded
	case <-e.work.Done():
		return nil
	}
}

// errEnded says that a connection has ended.
var errEnded = errors.New("the connection has ended")

// subscribe asks for what machines say and, where the broker tells, for who comes
// and goes; each for one of the replicas, if the broker can do that.
func (e *External) subscribe(s session) (shared bool, err error) {
	prefix := ""
	if _, shares := s.version(); shares {
		prefix = shareOf(e.config.URL.User)
	}
	err = e.ask(e.work, s, prefix+serverTopic)
	if err != nil && prefix != "" {
		e.config.Log.LogAttrs(e.work, slog.LevelWarn, "the MQTT broker refuses a shared subscription: every replica will hear every message, which only costs work",
			slog.String("broker", e.address), slog.Any("error", err))
		prefix = ""
		err = e.ask(e.work, s, serverTopic)
	}
	if err != nil {
		return false, fmt.Errorf("subscribing to %s: %w", serverTopic, err)
	}
	for _, event := range []string{"connected", "disconnected", "subscribed"} {
		if err := e.ask(e.work, s, prefix+eventTopics+event); err != nil { // most brokers have no such thing
			e.config.Log.LogAttrs(e.work, slog.LevelDebug, "the MQTT broker will not tell who comes and goes", slog.Any("error", err))
			break
		}
	}
	return prefix != "", nil
}

// shareOf begins a subscription that replicas with the same login share. Nobody
// else can guess it: some brokers let everybody into every group, and drop what
// those who may not hear it get.
func shareOf(login *url.Userinfo) string {
	group := "scrip"
	if _, ok := login.Password(); ok {
		group += "-" + hex.EncodeToString(secretOf(login, "shared subscription")[:16])
	}
	return "$share/" + group + "/"
}

// secretOf is what those with the same login, and nobody else, call something.
func secretOf(login *url.Userinfo, what string) []byte {
	password, _ := login.Password()
	mac := hmac.New(sha256.New, []byte(password))
	_, _ = mac.Write([]byte(what + " of " + login.Username())) // never fails
	return mac.Sum(nil)
}

func (e *External) ask(ctx context.Context, s session, filter string) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return s.subscribe(ctx, filter)
}

func (e *External) set(s session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.session = s
}

func (e *External) current() session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.session
}

// Send makes the message of an item and returns once the broker has it. See
// delivery.Sender.
func (e *External) Send(ctx context.Context, item delivery.Item, _ func()) (bool, error) {
	s := e.current()
	if s == nil {
		return false, delivery.ErrAway
	}
	no, payload, err := e.writer.write(ctx, item)
	if err != nil {
		return false, err
	}
	// The database may have taken its time, and others may speak to the machine since.
	if err := ctx.Err(); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	err = s.publish(ctx, clientTopics+no, payload)
	if err == nil || errors.Is(err, delivery.ErrUnheard) {
		e.sent.Inc()
		return false, err
	}
	if ctx.Err() != nil {
		s.close() // what is on its way must not come behind what is sent by others
	}
	select {
	case <-s.done():
		return false, delivery.ErrAway
	default:
		return false, err
	}
}

// Disconnect does nothing: a broker that is not ours cannot be asked to.
func (*External) Disconnect(int64) {}

// route has a message acted upon, behind the others of the same machine. It does
// not wait, but for a broker that sends more than it was told that it may.
func (e *External) route(s session, in incoming) {
	if strings.HasPrefix(in.topic, "$SYS/") {
		e.event(s, in)
		return
	}
	// A broker sends again only what another connection finds, and with a session
	// that ends with its connection not even that: it is kept here, whatever ends.
	e.hear(e.hearing, s, in, e.work.Done(), e.see)
}

// hear has a message acted upon, until that is done or given up, when the broker
// will send it again.
func (e *External) hear(h *hearing, s session, in incoming, givenUp <-chan struct{}, see func(machine int64, alive bool)) {
	who := speaker{address: "mqtt"}
	m, reason := decode(in.payload)
	if reason != "" {
		_ = h.dropped(e.work, &who, reason) // it says that it was
		in.acknowledge()
		return
	}
	e.queue(h, s, m.MachineNo(), in.qos, func() {
		for tries := 1; ; tries++ {
			select {
			case <-givenUp:
				return
			default:
			}
			err := h.act(e.work, who, m, see)
			if _, ok := errors.AsType[notBelieved](err); err == nil || ok {
				in.acknowledge()
				return
			}
			select {
			case <-time.After(min(reconnectFirst<<min(tries-1, 10), hearAgainLast)):
			case <-givenUp:
			case <-e.work.Done():
				return
			}
		}
	})
}

func (e *External) see(machine int64, alive bool) {
	if alive {
		e.config.Watch.Hear(machine, false)
	} else {
		e.config.Watch.See(machine, fleet.Offline)
	}
}

// queue puts work about a machine behind what else there is about it.
func (e *External) queue(h *hearing, s session, no string, qos byte, do func()) {
	lane := e.lanes[maphash.String(e.seed, no)%lanes]
	select {
	case lane <- do:
		return
	default:
	}
	if qos == 0 { // it may get lost, and there is no other way to slow the broker down
		h.metrics.dropped[unavailable].Inc()
		return
	}
	select {
	case lane <- do:
	case <-s.done():
	case <-e.work.Done():
	}
}

// act does what is in a lane.
func (e *External) act(lane <-chan func()) {
	for {
		select {
		case do := <-lane:
			do()
		case <-e.work.Done():
			return
		}
	}
}

// event acts on what the broker says of who comes and goes.
func (e *External) event(s session, in incoming) {
	defer in.acknowledge()
	var said struct {
		Username string `json:"username"`
		Reason   string `json:"reason"`
	}
	if json.Unmarshal(in.payload, &said) != nil || !fleet.ValidNo(said.Username) {
		return // one of ours, mostly
	}
	gone := strings.HasSuffix(in.topic, "/disconnected")
	if gone && (said.Reason == "takenover" || said.Reason == "discarded") {
		return // it has another connection
	}
	e.queue(e.hearing, s, said.Username, in.qos, func() {
		machine, _, err := e.config.Fleet.Speaker(e.work, said.Username)
		switch {
		case err == nil && gone:
			e.config.Watch.See(machine, fleet.Offline)
		case err == nil:
			e.config.Watch.Hear(machine, true)
		case refusal.CodeOf(err) != refusal.MachineNotFound && e.work.Err() == nil:
			if left, ok := e.hearing.failures.due(); ok {
				e.config.Log.LogAttrs(e.work, slog.LevelError, "acting on what the MQTT broker says",
					slog.String("machine_no", said.Username), slog.Any("error", err), slog.Int("left_out", left))
			}
		}
	})
}
