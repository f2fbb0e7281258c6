package broker

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/scrip-codes/scrip/internal/delivery"
)

// acknowledgeEvery is how often acknowledgements are written, in the order of
// what they are for, as MQTT 5 asks.
const acknowledgeEvery = 10 * time.Millisecond

// session5 is a connection in MQTT 5.
type session5 struct {
	conn   *brokerConn
	client *paho.Client
	shared bool
	ended  context.Context
	end    context.CancelFunc
}

func open5(ctx context.Context, conn *brokerConn, user *url.Userinfo, c client, hear func(session, incoming)) (session, error) {
	s := &session5{conn: conn}
	s.ended, s.end = context.WithCancel(context.Background())
	var self atomic.Pointer[session5] // what comes before the CONNACK is read is not for us
	s.client = paho.NewClient(paho.ClientConfig{
		Conn: packets.NewThreadSafeConn(conn), PacketTimeout: answerWithin,
		EnableManualAcknowledgment: true, SendAcksInterval: acknowledgeEvery,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			if s := self.Load(); s != nil {
				hear(s, incoming{
					topic: r.Packet.Topic, payload: r.Packet.Payload, qos: r.Packet.QoS,
					acknowledge: func() { _ = r.Client.Ack(r.Packet) }, // of no use any more if it fails
				})
			}
			return true, nil
		}},
		OnServerDisconnect: func(*paho.Disconnect) { s.end() },
		OnClientError:      func(error) { s.end() },
	})
	self.Store(s)
	connect := &paho.Connect{
		ClientID: c.id, KeepAlive: keepAlive, CleanStart: !c.lasting,
		Properties: &paho.ConnectProperties{ReceiveMaximum: new(uint16(unacknowledgedMax)), MaximumPacketSize: new(uint32(packetMax))},
	}
	if c.lasting {
		connect.Properties.SessionExpiryInterval = new(uint32(keptFor))
	}
	if user != nil {
		connect.Username, connect.UsernameFlag = user.Username(), true
		if password, ok := user.Password(); ok {
			connect.Password, connect.PasswordFlag = []byte(password), true
		}
	}
	ack, err := s.client.Connect(ctx, connect)
	if err == nil {
		s.shared = ack.Properties == nil || ack.Properties.SharedSubAvailable
		if c.lasting && ack.Properties != nil && ack.Properties.SessionExpiryInterval != nil && *ack.Properties.SessionExpiryInterval == 0 {
			s.close()
			return nil, errors.New("the broker keeps no session when its connection has ended")
		}
		return s, nil
	}
	s.end()
	switch {
	case conn.refusesVersion():
		return nil, fmt.Errorf("%w: 5", errVersion)
	case ack != nil:
		return nil, fmt.Errorf("the broker refuses the connection: %s", reasonOf(ack))
	case ctx.Err() == nil && conn.silent():
		return nil, fmt.Errorf("%w: %w", errMute, err)
	}
	return nil, err
}

// reasonOf says why a broker refuses a connection.
func reasonOf(ack *paho.Connack) string {
	switch ack.ReasonCode {
	case packets.ConnackBadUsernameOrPassword:
		return "bad user name or password: check those in SCRIP_MQTT_URL"
	case packets.ConnackNotAuthorized:
		return "not authorized: check what the broker lets the user in SCRIP_MQTT_URL do"
	}
	return fmt.Sprintf("reason %#x", ack.ReasonCode)
}

func (s *session5) version() (string, bool) { return "5", s.shared }

func (s *session5) done() <-chan struct{} { return s.ended.Done() }

func (s *session5) subscribe(ctx context.Context, filter string) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	_, err := s.client.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}})
	return err
}

func (s *session5) publish(ctx context.Context, topic string, payload []byte) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	ack, err := s.client.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: payload})
	if ack != nil && ack.ReasonCode >= packets.PubackUnspecifiedError {
		return fmt.Errorf("the broker refuses a message to %s: reason %#x", topic, ack.ReasonCode)
	}
	if err == nil && ack.ReasonCode == packets.PubackNoMatchingSubscribers {
		return delivery.ErrUnheard
	}
	return err
}

// within returns a context that ends with the session too: the library does not
// wake who waits for an answer then.
func (s *session5) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ended, func() { cancel(errEnded) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

func (s *session5) close() {
	if s.ended.Err() == nil {
		s.end()
		s.conn.hasten()
		_ = s.client.Disconnect(&paho.Disconnect{ReasonCode: packets.DisconnectNormalDisconnection}) // it closes, whatever comes of that
	}
}
