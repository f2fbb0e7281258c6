package broker_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"
)

const serverTopic = "/server/app"

func topicOf(m *machine) string { return "/clients/" + m.No }

// message is what a machine was sent.
type message struct {
	topic      string
	payload    []byte
	qos        byte
	retained   bool
	identifier int
}

// login says how a machine connects.
type login struct {
	no, password string
	clientID     string
	will         *message
	hold         bool // acknowledge nothing
	clean        bool // also with a clientID
}

// peer is a machine at the other end.
type peer struct {
	client
	w    *world
	conn net.Conn
	got  chan message
	gone chan byte // closed at the end of the connection, after MQTT 5's reason for it
	end  sync.Once
}

// client is one of the client libraries.
type client interface {
	// subscribe returns what was granted.
	subscribe(filter string, qos byte) byte
	unsubscribe(filter string)
	// publish returns the reason with which it was acknowledged.
	publish(m message) (byte, error)
	leave()
}

// versions are those of MQTT: every test runs with each.
func versions() map[string]version { return map[string]version{"3.1.1": version3{}, "5": version5{}} }

type version interface {
	// dial returns the reason with which a connection is refused, or a peer.
	dial(w *world, l login) (*peer, byte)
	// pick picks what is said in one version or the other.
	pick(three, five byte) byte
}

func newPeer(w *world) *peer {
	w.Helper()
	conn, err := w.reach()
	w.check(err)
	p := &peer{w: w, conn: conn, got: make(chan message, 64), gone: make(chan byte, 1)}
	w.Cleanup(p.vanish)
	return p
}

// reach opens a connection, over WebSocket if that is served.
func (w *world) reach() (net.Conn, error) {
	if w.web != "" {
		return mqtt3.NewWebsocket(w.web, nil, patience, nil, nil)
	}
	var d net.Dialer
	return d.DialContext(w.ctx, "tcp", w.address)
}

// connect connects a machine, and subscribes it to its topic.
func (w *world) connect(v version, m *machine, l login) *peer {
	w.Helper()
	p := w.dial(v, m, l)
	if got := p.subscribe(topicOf(m), 1); got != 1 {
		w.Fatalf("subscribing a machine to its own topic: %#x", got)
	}
	return p
}

// dial connects a machine.
func (w *world) dial(v version, m *machine, l login) *peer {
	w.Helper()
	l.no, l.password = m.No, m.password
	p, reason := v.dial(w, l)
	if reason != 0 {
		w.Fatalf("connecting: %#x", reason)
	}
	return p
}

// vanish ends the connection without a word.
func (p *peer) vanish() { _ = p.conn.Close() }

// receive waits for a message.
func (p *peer) receive() message {
	p.w.Helper()
	select {
	case m := <-p.got:
		return m
	case <-time.After(patience):
		p.w.Fatal("no message has come")
		panic("unreachable")
	}
}

// ended waits for the end of the connection, and returns why it was.
func (p *peer) ended() byte {
	p.w.Helper()
	select {
	case reason := <-p.gone:
		return reason
	case <-time.After(patience):
		p.w.Fatal("the connection has not ended")
		panic("unreachable")
	}
}

// alive checks that the connection is.
func (p *peer) alive(m *machine) {
	p.w.Helper()
	p.send(p.w.heartbeat(m))
}

// send sends the server what it acknowledges.
func (p *peer) send(payload []byte) {
	p.w.Helper()
	if reason, err := p.publish(message{topic: serverTopic, qos: 1, payload: payload}); err != nil || reason != 0 {
		p.w.Fatalf("publishing: %#x, %v", reason, err)
	}
}

type version3 struct{}

func (version3) pick(three, _ byte) byte { return three }

type client3 struct {
	mqtt3.Client
	w *world
}

func (version3) dial(w *world, l login) (*peer, byte) {
	w.Helper()
	p := newPeer(w)
	o := mqtt3.NewClientOptions().AddBroker("tcp://" + w.address).
		SetClientID(l.clientID).SetUsername(l.no).SetPassword(l.password).
		SetProtocolVersion(4).SetCleanSession(l.clientID == "" || l.clean).SetAutoReconnect(false).SetConnectTimeout(patience).
		SetAutoAckDisabled(l.hold).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt3.ClientOptions) (net.Conn, error) { return p.conn, nil }).
		SetDefaultPublishHandler(func(_ mqtt3.Client, m mqtt3.Message) {
			p.got <- message{topic: m.Topic(), payload: m.Payload(), qos: m.Qos(), retained: m.Retained()}
		}).
		SetConnectionLostHandler(func(mqtt3.Client, error) { p.end.Do(func() { close(p.gone) }) })
	if l.will != nil {
		o.SetBinaryWill(l.will.topic, l.will.payload, l.will.qos, l.will.retained)
	}
	c := mqtt3.NewClient(o)
	p.client = client3{c, w}
	token := c.Connect().(*mqtt3.ConnectToken)
	if !token.WaitTimeout(patience) {
		w.Fatal("connecting takes too long")
	}
	if token.SessionPresent() {
		w.Error("the broker says that it kept a session")
	}
	return p, token.ReturnCode()
}

func (c client3) wait(t mqtt3.Token) error {
	if !t.WaitTimeout(patience) {
		return errors.New("no answer")
	}
	return t.Error()
}

func (c client3) subscribe(filter string, qos byte) byte {
	c.w.Helper()
	token := c.Subscribe(filter, qos, nil).(*mqtt3.SubscribeToken)
	c.w.check(c.wait(token))
	for _, granted := range token.Result() { // its name there is not always what was asked for
		return granted
	}
	c.w.Fatal("no answer to a subscription")
	panic("unreachable")
}

func (c client3) unsubscribe(filter string) {
	c.w.Helper()
	c.w.check(c.wait(c.Unsubscribe(filter)))
}

func (c client3) publish(m message) (byte, error) {
	return 0, c.wait(c.Publish(m.topic, m.qos, m.retained, m.payload))
}

func (c client3) leave() { c.Disconnect(100) }

type version5 struct{}

func (version5) pick(_, five byte) byte { return five }

type client5 struct {
	*paho.Client
	w   *world
	ctx context.Context // ends with the connection
}

func (version5) dial(w *world, l login) (*peer, byte) {
	w.Helper()
	p := newPeer(w)
	ctx, cancel := context.WithCancel(w.ctx)
	c := paho.NewClient(paho.ClientConfig{
		Conn: p.conn, PacketTimeout: patience, EnableManualAcknowledgment: l.hold,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			m := message{topic: r.Packet.Topic, payload: r.Packet.Payload, qos: r.Packet.QoS, retained: r.Packet.Retain}
			if id := r.Packet.Properties.SubscriptionIdentifier; id != nil {
				m.identifier = *id
			}
			p.got <- m
			return true, nil
		}},
		OnServerDisconnect: func(d *paho.Disconnect) {
			p.end.Do(func() {
				p.gone <- d.ReasonCode
				close(p.gone)
			})
			cancel()
		},
		OnClientError: func(error) {
			p.end.Do(func() { close(p.gone) })
			cancel()
		},
	})
	p.client = client5{c, w, ctx}
	connect := &paho.Connect{
		ClientID: l.clientID, KeepAlive: 30, CleanStart: l.clientID == "",
		Username: l.no, UsernameFlag: true, Password: []byte(l.password), PasswordFlag: true,
		Properties: &paho.ConnectProperties{SessionExpiryInterval: new(uint32(3600)), RequestProblemInfo: true},
	}
	if l.will != nil {
		connect.WillMessage = &paho.WillMessage{Topic: l.will.topic, Payload: l.will.payload, QoS: l.will.qos, Retain: l.will.retained}
		connect.WillProperties = &paho.WillProperties{WillDelayInterval: new(uint32(3600))}
	}
	ack, err := c.Connect(w.ctx, connect)
	if ack == nil {
		w.Fatal(err)
	}
	if ack.ReasonCode != 0 {
		return nil, ack.ReasonCode
	}
	if ack.SessionPresent || ack.Properties.SessionExpiryInterval == nil || *ack.Properties.SessionExpiryInterval != 0 {
		w.Error("the broker says that it keeps a session")
	}
	return p, 0
}

func (c client5) subscribe(filter string, qos byte) byte {
	c.w.Helper()
	ack, err := c.Subscribe(c.w.ctx, &paho.Subscribe{
		Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}},
		Properties:    &paho.SubscribeProperties{SubscriptionIdentifier: new(7)},
	})
	if ack == nil {
		c.w.Fatal(err)
	}
	return ack.Reasons[0]
}

func (c client5) unsubscribe(filter string) {
	c.w.Helper()
	_, err := c.Unsubscribe(c.w.ctx, &paho.Unsubscribe{Topics: []string{filter}})
	c.w.check(err)
}

func (c client5) publish(m message) (byte, error) {
	r, err := c.Publish(c.ctx, &paho.Publish{Topic: m.topic, QoS: m.qos, Retain: m.retained, Payload: m.payload})
	if r != nil {
		return r.ReasonCode, nil
	}
	return 0, err
}

func (c client5) leave() { _ = c.Disconnect(&paho.Disconnect{}) }
