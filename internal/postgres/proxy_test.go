package postgres_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// cut is what a proxy does to a connection at a COMMIT.
type cut int

const (
	cutBefore cut = iota + 1 // the server never sees it
	cutAfter                 // the server has it, the client does not see the answer
	cutHeld                  // the client is cut off, and the server gets it later
	cutUnsure                // the server has it, and says that it does not know
)

// cancelRequest is the code of a first message that asks to cancel what another
// connection does: the driver sends it when it loses one. Without it what becomes
// of a cut transaction is not left to chance.
const cancelRequest = 80877102

// proxy stands between an engine and PostgreSQL, and knows a COMMIT when it sees
// one. It is safe for concurrent use.
type proxy struct {
	listener net.Listener
	server   string
	work     sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	how     cut    // 0: not armed
	match   string // in a statement of the transaction
	down    bool   // it lets nobody through
	falling bool   // it goes down with the cut
	refused int    // connections, while down
	fired   chan struct{}
	release chan struct{} // lets a held COMMIT go on
}

// newProxy starts a proxy, and returns the address of the database through it.
func newProxy(t *testing.T, to string) (p *proxy, through string) {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	p = &proxy{server: u.Host, conns: map[net.Conn]bool{}}
	if p.listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		_ = p.listener.Close()
		p.setDown(true)
		p.work.Wait()
	})
	u.Host = p.listener.Addr().String()
	return p, u.String()
}

// arm has the next COMMIT of a transaction that had match in a statement cut so,
// after which, if falling, nobody gets through. Fired is closed then; release lets
// a held COMMIT go on to the server.
func (p *proxy) arm(how cut, match string, falling bool) (fired <-chan struct{}, release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.how, p.match, p.falling = how, match, falling
	p.fired, p.release = make(chan struct{}), make(chan struct{})
	return p.fired, sync.OnceFunc(func() { close(p.release) })
}

// setDown cuts all connections and lets nobody through, or does again.
func (p *proxy) setDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down = down; down {
		for c := range p.conns {
			_ = c.Close()
		}
	}
}

// turnedAway is how many connections were refused.
func (p *proxy) turnedAway() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() {
			defer func() { _ = client.Close() }()
			server := p.connect(client)
			if server == nil {
				return
			}
			c := &proxied{proxy: p, client: client, server: server, unsure: make(chan struct{}), drained: make(chan struct{})}
			p.work.Go(c.answers)
			c.requests()
			_ = server.Close()
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.conns, client)
		})
	}
}

// connect connects a client to the server; nil if it is down.
func (p *proxy) connect(client net.Conn) *net.TCPConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		p.refused++
		return nil
	}
	conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.server)
	if err != nil {
		return nil
	}
	p.conns[client] = true
	server, _ := conn.(*net.TCPConn)
	return server
}

// chosen is what is to become of a COMMIT behind these statements, 0 if nothing.
func (p *proxy) chosen(said []string) cut {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.how == 0 || !strings.Contains(strings.Join(said, "\n"), p.match) {
		return 0
	}
	how := p.how
	p.how = 0
	return how
}

// strike says that the time of a cut has come.
func (p *proxy) strike() (release <-chan struct{}) {
	p.mu.Lock()
	falling := p.falling
	p.mu.Unlock()
	if falling {
		p.setDown(true)
	}
	close(p.fired)
	return p.release
}

// proxied is a connection through a proxy.
type proxied struct {
	*proxy

	client  net.Conn
	server  *net.TCPConn
	unsure  chan struct{} // closed if the server's next answer is to be that it does not know
	drained chan struct{} // closed when the server has closed the connection
}

// answers hands on what the server says, to the end.
func (c *proxied) answers() {
	defer close(c.drained)
	defer func() { _ = c.client.Close() }()
	buf := make([]byte, 1<<16)
	for {
		n, err := c.server.Read(buf)
		if err != nil {
			return
		}
		out := buf[:n]
		select {
		case <-c.unsure:
			message := "SERROR\x00VERROR\x00C40003\x00Mthe result is not known\x00\x00"
			out = binary.BigEndian.AppendUint32([]byte{'E'}, uint32(4+len(message))) //nolint:gosec // G115: it is short
			out = append(append(out, message...), 'Z', 0, 0, 0, 5, 'I')
			_, _ = c.client.Write(out)
			_, _ = io.Copy(io.Discard, c.server)
			return
		default:
		}
		_, _ = c.client.Write(out) // if it has left, what the server says is read all the same
	}
}

// requests hands on what the client says, message by message, and keeps account of
// the statements of the transaction under way.
func (c *proxied) requests() {
	in := bufio.NewReader(c.client)
	prepared := map[string]string{}
	var said []string
	var held []byte // from the COMMIT on, if it is chosen
	var how cut
	for first := true; ; first = false {
		kind, message, err := readMessage(in, first)
		if err != nil {
			return
		}
		if first && len(message) >= 8 && binary.BigEndian.Uint32(message[4:]) == cancelRequest {
			return
		}
		text, ends := "", kind == 'S' || kind == 'Q'
		switch fields := bytes.Split(message[min(5, len(message)):], []byte{0}); kind {
		case 'P': // Parse: a name, a text
			prepared[string(fields[0])] = string(fields[1])
		case 'B': // Bind: a portal, a name
			text = prepared[string(fields[1])]
		case 'Q': // Query: a text
			text = string(fields[0])
		}
		said = append(said, text)
		if strings.EqualFold(text, "commit") {
			how = c.chosen(said)
			said = nil
		}
		if how == 0 {
			if _, err := c.server.Write(message); err != nil {
				return
			}
			continue
		}
		if held = append(held, message...); !ends {
			continue
		}
		if how == cutUnsure {
			close(c.unsure)
			c.strike()
			_, _ = c.server.Write(held)
			how, held = 0, nil
			continue
		}
		_ = c.client.Close()
		release := c.strike()
		if how == cutBefore {
			return
		}
		if how == cutHeld {
			<-release
		}
		_, _ = c.server.Write(held)
		_ = c.server.CloseWrite() // and not all of it, with answers unread: that would take the COMMIT back
		<-c.drained
		return
	}
}

// readMessage reads a message of the protocol; the first has no kind.
func readMessage(in *bufio.Reader, first bool) (kind byte, message []byte, err error) {
	head := make([]byte, 5)
	if first {
		head = head[:4]
	}
	if _, err := io.ReadFull(in, head); err != nil {
		return 0, nil, err
	}
	if !first {
		kind = head[0]
	}
	message = append(head, make([]byte, binary.BigEndian.Uint32(head[len(head)-4:])-4)...)
	_, err = io.ReadFull(in, message[len(head):])
	return kind, message, err
}
