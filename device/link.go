package device

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/scrip-codes/scrip/internal/wire"
)

const (
	// uplinkTopic is where all machines publish; each listens at its own
	// downlinkTopic and nowhere else.
	uplinkTopic   = "/server/app"
	downlinkTopic = "/clients/"

	atLeastOnce = 1
	keepAlive   = 60 // seconds
	patience    = 10 * time.Second
	// inFlight is how many messages the broker may send ahead of their
	// acknowledgement.
	inFlight = 16
	// packetMax is room for the largest message and its envelope.
	packetMax = wire.MaxMessage + 1<<10
	// lasting is how long a connection must have stood for the next one to be
	// tried without a pause that grows.
	lasting = time.Minute
)

// ErrLogin says that the broker does not let the machine in. Trying again does
// not help, and counts as guessing.
var ErrLogin = errors.New("the broker refuses the machine's login: check its number and its MQTT password")

// Run connects the machine, and keeps it connected until ctx ends: it returns
// nil then, and ErrLogin when the broker refuses the machine's password.
// Enter works without it.
func (d *Device) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := &link{Device: d, up: make(chan context.Context)}
	client, err := autopaho.NewConnection(ctx, l.config(ctx, cancel))
	if err != nil {
		return err
	}
	l.client = client
	l.work(ctx)

	select {
	case <-client.Done():
	case <-time.After(patience): // the network takes no goodbye
		l.drop()
		<-client.Done()
	}
	if err := context.Cause(ctx); errors.Is(err, ErrLogin) {
		return err
	}
	return nil
}

// link is a machine's connection, over and over again.
type link struct {
	*Device
	client *autopaho.ConnectionManager
	up     chan context.Context // each connection's, which ends with it
	conn   atomic.Pointer[net.Conn]
	// listening is set while the machine does; lost once it has failed to
	// keep a message that came over the connection.
	listening, lost atomic.Bool

	// The client's own goroutine alone uses these.
	attempts int       // since a connection lasted
	since    time.Time // when the connection was made
	down     func()    // ends its context
}

// config says how to connect. The session is clean each time: the server knows
// what the machine should hold and sends it, so nothing is left to a broker's
// memory.
func (l *link) config(ctx context.Context, cancel context.CancelCauseFunc) autopaho.ClientConfig {
	return autopaho.ClientConfig{
		ServerUrls:       []*url.URL{l.broker},
		KeepAlive:        keepAlive,
		ConnectTimeout:   patience,
		ReconnectBackoff: func(int) time.Duration { return l.backoff() },
		ConnectUsername:  l.cfg.MachineNo,
		ConnectPassword:  []byte(l.cfg.Password),
		AttemptConnection: func(ctx context.Context, _ autopaho.ClientConfig, u *url.URL) (net.Conn, error) {
			return l.dial(ctx, u)
		},
		ConnectPacketBuilder: func(c *paho.Connect, _ *url.URL) (*paho.Connect, error) {
			c.CleanStart = true
			c.Properties = &paho.ConnectProperties{
				ReceiveMaximum: new(uint16(inFlight)), MaximumPacketSize: new(uint32(packetMax)), RequestProblemInfo: true,
			}
			c.WillMessage = l.will()
			c.WillProperties = &paho.WillProperties{}
			return c, nil
		},
		// A machine that is switched off says so by its will.
		DisconnectPacketBuilder: func() *paho.Disconnect {
			return &paho.Disconnect{ReasonCode: packets.DisconnectDisconnectWithWillMessage}
		},
		OnConnectionUp: func(*autopaho.ConnectionManager, *paho.Connack) {
			l.since = l.cfg.Now()
			// The client does not wake who waits for an answer of a
			// connection that is gone: this context does.
			var connection context.Context
			connection, l.down = context.WithCancel(ctx)
			select {
			case l.up <- connection:
			case <-ctx.Done():
			}
		},
		OnConnectionDown: func() bool {
			l.down()
			if l.cfg.Now().Sub(l.since) >= lasting {
				l.attempts = 0
			}
			if l.listening.Swap(false) {
				l.cfg.On(Event{Kind: Disconnected})
			}
			return true
		},
		OnConnectError: func(err error) {
			l.cfg.Log.WarnContext(ctx, "no connection to the broker", slog.String("broker", l.broker.Redacted()), slog.Any("error", err))
			if refused, ok := errors.AsType[*autopaho.ConnackError](err); ok && badLogin(refused.ReasonCode) {
				cancel(fmt.Errorf("%w (it says: %w)", ErrLogin, err))
			}
		},
		ClientConfig: paho.ClientConfig{
			ClientID:      l.cfg.MachineNo,
			PacketTimeout: patience,
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){
				func(p paho.PublishReceived) (bool, error) { return true, l.hear(ctx, p.Packet.Payload) },
			},
		},
	}
}

func badLogin(reason byte) bool {
	return reason == packets.ConnackBadUsernameOrPassword || reason == packets.ConnackNotAuthorized
}

// backoff is how long to wait before the next attempt: not at all at first,
// then a quarter of a second that doubles up to half a minute; and a random
// part of that, so that a fleet does not come back in one moment.
func (l *link) backoff() time.Duration {
	l.attempts++
	if l.attempts == 1 {
		return 0
	}
	longest := min(30*time.Second, 250*time.Millisecond<<min(l.attempts-2, 10))
	return longest/2 + rand.N(longest/2) //nolint:gosec // nobody gains from guessing it
}

func (l *link) dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var conn net.Conn
	var err error
	if u.Scheme == "mqtts" {
		d := tls.Dialer{Config: l.cfg.TLS}
		if conn, err = d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "8883"))); err == nil {
			conn = packets.NewThreadSafeConn(conn)
		}
	} else {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "1883")))
	}
	if err != nil {
		return nil, err
	}
	l.conn.Store(&conn)
	l.lost.Store(false)
	return conn, nil
}

// drop ends the connection as a loss of network does. What was not
// acknowledged is sent again on the next one.
func (l *link) drop() {
	if conn := l.conn.Load(); conn != nil {
		_ = (*conn).Close()
	}
}

// will is what the broker says for the machine once it is gone.
func (l *link) will() *paho.WillMessage {
	m := wire.Offline{Head: l.head(), Reason: "connection lost or machine switched off"}
	return &paho.WillMessage{QoS: atLeastOnce, Topic: uplinkTopic, Payload: m.Encode(l.style())}
}

// work does what is due until ctx ends: listen on each new connection, say that
// the machine lives, report uses, forget what is over.
func (l *link) work(ctx context.Context) {
	heartbeat := time.NewTicker(l.cfg.Heartbeat)
	defer heartbeat.Stop()
	retry := time.NewTicker(l.retry)
	defer retry.Stop()
	connection := ctx //nolint:contextcheck // until there is one; nobody listens before
	for {
		select {
		case <-ctx.Done():
			return
		case connection = <-l.up:
			l.listen(connection)
			l.heartbeat(connection) // so a server behind another broker knows that the machine is back
		case <-heartbeat.C:
			l.heartbeat(connection)
		case <-retry.C:
			l.forget(ctx)
		case <-l.used:
		}
		l.report(connection)
	}
}

// listen subscribes to the machine's own topic.
func (l *link) listen(ctx context.Context) {
	_, err := l.client.Subscribe(ctx, &paho.Subscribe{
		Subscriptions: []paho.SubscribeOptions{{Topic: downlinkTopic + l.cfg.MachineNo, QoS: atLeastOnce}},
	})
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		l.cfg.Log.WarnContext(ctx, "the broker takes no subscription: trying on a new connection", slog.Any("error", err))
		l.drop()
		return
	}
	l.listening.Store(true)
	l.cfg.On(Event{Kind: Connected})
}

// heartbeat says that the machine lives.
func (l *link) heartbeat(ctx context.Context) {
	if ctx.Err() != nil || !l.listening.Load() {
		return
	}
	h := wire.Heartbeat{Head: l.head(), NetworkType: "ethernet", NetworkRSSI: "0", UptimeMinutesToday: uptimeToday(l.started, l.cfg.Now())}
	if err := l.say(ctx, h.Encode(l.style())); err != nil && ctx.Err() == nil {
		l.cfg.Log.WarnContext(ctx, "no heartbeat was sent", slog.Any("error", err))
	}
}

// uptimeToday is the whole minutes since the machine's midnight, or since its
// start if that was later.
func uptimeToday(started, now time.Time) int {
	year, month, day := now.Date()
	since := time.Date(year, month, day, 0, 0, 0, 0, now.Location())
	if started.After(since) {
		since = started
	}
	return int(max(0, now.Sub(since)) / time.Minute)
}

// report reports the uses that the broker does not know of. One that it does
// not acknowledge stays in the file, and is reported again a little later.
func (l *link) report(ctx context.Context) {
	for ctx.Err() == nil && l.listening.Load() {
		l.mu.Lock()
		use, ok := l.memory.unreported(l.vending)
		l.mu.Unlock()
		if !ok {
			return
		}
		put := wire.Put{Head: l.head(), ID: use.ID}
		if err := l.say(ctx, put.Encode(l.style())); err != nil {
			if ctx.Err() != nil {
				return // the next connection reports it
			}
			l.cfg.Log.WarnContext(ctx, "a use could not be reported: trying again", slog.Int64("id", use.ID), slog.Any("error", err))
			return
		}
		l.mu.Lock()
		err := l.change(func(m *memory) bool { m.set(use, stateReported); return true })
		l.mu.Unlock()
		if err != nil { // reported twice is harmless
			l.cfg.Log.ErrorContext(ctx, "a reported use could not be noted: reporting it again", slog.Int64("id", use.ID), slog.Any("error", err))
			return
		}
		l.cfg.On(Event{Reported, use.Pickup})
	}
}

// say publishes a message, and returns nil once the broker has it. One that
// the broker took and threw away, for want of a listener, it does not have.
func (l *link) say(ctx context.Context, message []byte) error {
	answer, err := l.client.Publish(ctx, &paho.Publish{QoS: atLeastOnce, Topic: uplinkTopic, Payload: message})
	if err == nil && answer.ReasonCode == packets.PubackNoMatchingSubscribers {
		err = errors.New("no server listens at the broker")
	}
	return err
}

// forget forgets what is over, in the file too.
func (l *link) forget(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.change(func(*memory) bool { return false }); err != nil {
		l.cfg.Log.ErrorContext(ctx, "expired codes could not be forgotten", slog.Any("error", err))
	}
}

// hear takes a message. The client acknowledges it when hear returns, unless
// the connection is gone by then: so a message that the file could not take
// ends the connection, after a pause that keeps this from becoming a storm.
// What came behind it comes again behind it.
func (l *link) hear(ctx context.Context, payload []byte) error {
	if l.lost.Load() {
		return net.ErrClosed
	}
	err := l.receive(ctx, payload)
	if err == nil {
		return nil
	}
	l.lost.Store(true)
	l.cfg.Log.ErrorContext(ctx, "a message could not be kept: asking for it again", slog.Any("error", err))
	select {
	case <-ctx.Done():
	case <-time.After(l.retry):
	}
	l.drop()
	return err
}

// receive does what a message says. It drops, and lets be acknowledged, what is
// not to be believed: that would be no better the next time.
func (d *Device) receive(ctx context.Context, payload []byte) error {
	m, err := wire.Decode(payload)
	switch {
	case err != nil:
	case m.MachineNo() != d.cfg.MachineNo:
		err = fmt.Errorf("it is for the machine %q", m.MachineNo())
	case !m.Verify(d.cfg.AppKey):
		err = errors.New("its signature is wrong: if all are, check the app key")
	}
	if err != nil {
		d.dropped(ctx, err)
		return nil
	}
	switch m.Method() {
	case wire.MethodCreate:
		create, err := m.Create()
		if err != nil {
			d.dropped(ctx, err)
			return nil
		}
		return d.add(ctx, create)
	case wire.MethodDelete:
		deletion, err := m.Delete()
		if err != nil {
			d.dropped(ctx, err)
			return nil
		}
		return d.withdraw(deletion)
	}
	return nil // the protocol has methods that are not about pickup codes
}

func (d *Device) dropped(ctx context.Context, why error) {
	d.cfg.Log.WarnContext(ctx, "a message was dropped", slog.Any("error", why))
}

// add keeps a code. The same may come again on each connection.
func (d *Device) add(ctx context.Context, c wire.Create) error {
	p := Pickup{ID: c.ID, ProductID: c.ProductID, Code: c.Code, Quantity: c.Quantity, Expires: c.Expires.UTC()}
	added, again, refused := false, false, error(nil)
	d.mu.Lock()
	err := d.change(func(m *memory) bool {
		learned := m.learn(c.MachineID)
		again = m.unheard(p.ID, p.Code)
		if now := d.cfg.Now(); again {
			return true
		} else if p.past(now) {
			refused = errors.New("its code has expired: check the machine's clock")
		} else {
			added, refused = m.add(p, now)
		}
		return added || learned
	})
	d.mu.Unlock()
	switch {
	case err != nil:
		return err
	case again:
		tell(d.used)
	case refused != nil:
		d.dropped(ctx, refused)
	case added:
		d.cfg.On(Event{Added, p})
	}
	return nil
}

// withdraw removes a code that was not used.
func (d *Device) withdraw(w wire.Delete) error {
	var p Pickup
	withdrawn, again := false, false
	d.mu.Lock()
	err := d.change(func(m *memory) bool {
		learned := m.learn(w.MachineID)
		p, withdrawn = m.withdraw(w.ID)
		again = m.unheard(w.ID, "")
		return withdrawn || again || learned
	})
	d.mu.Unlock()
	switch {
	case err != nil:
		return err
	case withdrawn:
		d.cfg.On(Event{Withdrawn, p})
	case again:
		tell(d.used)
	}
	return nil
}

// tell wakes whoever waits at c. If nobody has taken the last one yet, that one
// will do.
func tell(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
