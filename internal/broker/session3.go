package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	mqtt3 "github.com/eclipse/paho.mqtt.golang"
	packets3 "github.com/eclipse/paho.mqtt.golang/packets"
)

// goodbyeWithin is how long a DISCONNECT of 3.1.1 may take, in milliseconds.
const goodbyeWithin = 100

// session3 is a connection in MQTT 3.1.1.
type session3 struct {
	conn   *brokerConn
	client mqtt3.Client
	ended  context.Context
	end    context.CancelFunc
}

func open3(ctx context.Context, conn *brokerConn, user *url.Userinfo, c client, hear func(session, incoming)) (session, error) {
	s := &session3{conn: conn}
	s.ended, s.end = context.WithCancel(context.Background())
	o := mqtt3.NewClientOptions().AddBroker("tcp://" + conn.RemoteAddr().String()). // which conn is connected to
											SetCustomOpenConnectionFn(func(*url.URL, mqtt3.ClientOptions) (net.Conn, error) { return conn, nil }).
											SetClientID(c.id).SetProtocolVersion(4).SetCleanSession(!c.lasting).SetKeepAlive(keepAlive * time.Second).
											SetConnectTimeout(answerWithin).SetAutoReconnect(false).SetAutoAckDisabled(true).
											SetDefaultPublishHandler(func(_ mqtt3.Client, m mqtt3.Message) {
			hear(s, incoming{topic: m.Topic(), payload: m.Payload(), qos: m.Qos(), acknowledge: m.Ack})
		}).
		SetConnectionLostHandler(func(mqtt3.Client, error) { s.end() })
	if user != nil {
		password, _ := user.Password()
		o.SetUsername(user.Username()).SetPassword(password)
	}
	s.client = mqtt3.NewClient(o)
	err := s.wait(ctx, s.client.Connect())
	if err == nil {
		return s, nil
	}
	s.end()
	s.client.Disconnect(0)
	if errors.Is(err, packets3.ErrorRefusedBadProtocolVersion) {
		return nil, fmt.Errorf("%w: 3.1.1", errVersion)
	}
	return nil, fmt.Errorf("the broker refuses the connection: %w", err)
}

// Shared subscriptions are none of 3.1.1's business. A broker that takes the
// filter for a topic's name would leave all replicas deaf, and not say so.
func (*session3) version() (string, bool) { return "3.1.1", false }

func (s *session3) done() <-chan struct{} { return s.ended.Done() }

// refused3 is how a SUBACK of 3.1.1 says no.
const refused3 = 0x80

func (s *session3) subscribe(ctx context.Context, filter string) error {
	token := s.client.Subscribe(filter, 1, nil)
	if err := s.wait(ctx, token); err != nil {
		return err
	}
	for _, granted := range token.(*mqtt3.SubscribeToken).Result() {
		if granted >= refused3 {
			return errors.New("the broker refuses the subscription")
		}
	}
	return nil
}

func (s *session3) publish(ctx context.Context, topic string, payload []byte) error {
	return s.wait(ctx, s.client.Publish(topic, 1, false, payload))
}

func (s *session3) wait(ctx context.Context, t mqtt3.Token) error {
	select {
	case <-t.Done():
		return t.Error()
	case <-s.ended.Done():
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *session3) close() {
	if s.ended.Err() == nil {
		s.end()
		s.conn.hasten()
		s.client.Disconnect(goodbyeWithin)
	}
}
