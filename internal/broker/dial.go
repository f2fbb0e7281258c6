package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"
)

// dialer opens connections to one broker, in the version of the protocol that
// the broker speaks.
type dialer struct {
	url *url.URL

	three bool // the broker has refused MQTT 5
	mute  int  // connections in a row that ended without an answer to MQTT 5's CONNECT
}

// errVersion says that a broker does not speak a version of the protocol.
var errVersion = errors.New("the broker does not speak this version of MQTT")

// errMute says that a broker has not said why.
var errMute = errors.New("the broker has ended the connection instead of an answer")

// client is who connects.
type client struct {
	id string
	// lasting has the broker keep the session when the connection has ended, and
	// what comes for it meanwhile.
	lasting bool
}

// open connects. What comes in is given to hear, one after the other.
func (d *dialer) open(ctx context.Context, c client, hear func(session, incoming)) (session, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	conn, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	s, err := d.handshake(ctx, &brokerConn{Conn: conn}, c, hear)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

// handshake says CONNECT. Which version a broker speaks can change: it may be
// another broker.
func (d *dialer) handshake(ctx context.Context, conn *brokerConn, c client, hear func(session, incoming)) (session, error) {
	if d.three || d.mute >= mutesMax {
		s, err := open3(ctx, conn, d.url.User, c, hear)
		if err != nil {
			d.three, d.mute = false, 0
		}
		return s, err
	}
	s, err := open5(ctx, conn, d.url.User, c, hear)
	switch {
	case err == nil:
		d.mute = 0
	case errors.Is(err, errVersion):
		d.three = true
	case errors.Is(err, errMute):
		d.mute++
	}
	return s, err
}

// dial opens the network connection. The system's certificates are trusted.
func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	host, port := d.url.Hostname(), d.url.Port()
	or := func(otherwise string) string {
		if port == "" {
			port = otherwise
		}
		return net.JoinHostPort(host, port)
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	switch d.url.Scheme {
	case "mqtt":
		return new(net.Dialer).DialContext(ctx, "tcp", or("1883"))
	case "mqtts":
		return (&tls.Dialer{Config: secure}).DialContext(ctx, "tcp", or("8883"))
	case "ws", "wss":
		u := url.URL{Scheme: d.url.Scheme, Host: d.url.Host, Path: d.url.Path}
		if u.Path == "" {
			u.Path = "/mqtt" // where most brokers have it
		}
		return dialWeb(ctx, u.String(), secure)
	}
	return nil, fmt.Errorf("%q is not a way to a broker", d.url.Scheme)
}

// dialWeb opens a WebSocket. The library's own time limit is the same as ctx's;
// ctx may end sooner.
func dialWeb(ctx context.Context, address string, secure *tls.Config) (net.Conn, error) {
	type result struct {
		net.Conn
		error
	}
	dialled := make(chan result, 1)
	go func() {
		c, err := mqtt3.NewWebsocket(address, secure, answerWithin, nil, nil)
		dialled <- result{c, err}
	}()
	select {
	case r := <-dialled:
		return r.Conn, r.error
	case <-ctx.Done():
		go func() {
			if r := <-dialled; r.error == nil {
				_ = r.Close() // nobody wants it any more
			}
		}()
		return nil, ctx.Err()
	}
}

// brokerConn is a connection to a broker. It remembers how the broker begins:
// with an answer in another version of the protocol, maybe, which a library does
// not make out. And it bounds every write.
type brokerConn struct {
	net.Conn
	writing sync.Mutex

	mu    sync.Mutex
	words []byte
}

// Read implements net.Conn.
func (c *brokerConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if room := wordsKept - len(c.words); room > 0 {
		c.words = append(c.words, p[:min(n, room)]...)
	}
	return n, err
}

// Write implements net.Conn. A WebSocket takes one at a time.
func (c *brokerConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.SetWriteDeadline(in(answerWithin)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// hasten ends the connection soon, whatever is still to be written.
func (c *brokerConn) hasten() {
	time.AfterFunc(writeWithin, func() { _ = c.Close() }) // most often it is closed
}

// refusesVersion reports whether the other end has said, in 3.1.1 or in 5, that it
// does not speak 5.
func (c *brokerConn) refusesVersion() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.words) == wordsKept && c.words[0] == packets.CONNACK<<4 &&
		(c.words[3] == mqttRefused3 || c.words[3] == packets.ConnackUnsupportedProtocolVersion)
}

// silent reports whether it has said nothing.
func (c *brokerConn) silent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.words) == 0
}

const (
	wordsKept = 4 // a CONNACK's head, flags and reason
	// mqttRefused3 is how 3.1.1 says that a version is not spoken.
	mqttRefused3 = 1
)
