package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// answerWithin bounds one request, but for those that say they take long.
	answerWithin = time.Minute
	dialWithin   = 10 * time.Second
	answerMax    = 8 << 20 // bytes
	// idleFor is how long a connection may have been idle: later the server may
	// be about to close it.
	idleFor = 20 * time.Second
)

// target is a server to be measured, and who asks it.
type target struct {
	address string // host and port
	host    string
	prefix  string // before every path
	secure  *tls.Config
	now     func() time.Time
}

func newTarget(text string, now func() time.Time) (*target, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("--url: %q is not the URL of a server, like http://127.0.0.1:8080", text)
	}
	t := &target{host: u.Host, address: u.Host, prefix: strings.TrimSuffix(u.EscapedPath(), "/"), now: now}
	port := "80"
	if u.Scheme == "https" {
		port = "443"
		t.secure = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	}
	if u.Port() == "" {
		t.address = net.JoinHostPort(u.Hostname(), port)
	}
	return t, nil
}

// identity is an account and its access token.
type identity struct {
	id    int64
	token string
}

// visitor is an account's session, as a browser has it.
type visitor struct{ session string }

// caller sends requests one after the other on a connection that it keeps. It
// is far leaner than net/http's client, since on the machine that is measured
// all it does is taken from the server. It serves one goroutine at a time.
type caller struct {
	target *target
	head   string // the headers that do not change

	conn   net.Conn
	used   time.Time
	reader *bufio.Reader
	cancel func() bool
	out    []byte
	answer bytes.Buffer
	last   []byte // the last answer that was found to be right
}

func (t *target) caller(who identity) *caller {
	return &caller{target: t, head: " HTTP/1.1\r\nHost: " + t.host +
		"\r\nAuthorization: Bearer " + who.token + "\r\nNew-Api-User: " + strconv.FormatInt(who.id, 10) +
		"\r\nContent-Type: application/json\r\n"}
}

// visit is a caller that asks as a browser does.
func (t *target) visit(who visitor) *caller {
	return &caller{target: t, head: " HTTP/1.1\r\nHost: " + t.host +
		"\r\nCookie: scrip_session=" + who.session + "\r\nAccept-Encoding: gzip\r\n"}
}

func (c *caller) close() {
	if c.conn != nil {
		c.cancel()
		_ = c.conn.Close() // nothing is waited for
		c.conn = nil
	}
}

// connect opens the connection if there is none. The end of ctx cuts it.
func (c *caller) connect(ctx context.Context) error {
	if c.conn != nil {
		return nil
	}
	dialer := net.Dialer{Timeout: dialWithin}
	conn, err := dialer.DialContext(ctx, "tcp", c.target.address)
	if err != nil {
		return err
	}
	if c.target.secure != nil {
		s := tls.Client(conn, c.target.secure)
		if err := s.HandshakeContext(ctx); err != nil {
			return errors.Join(err, conn.Close())
		}
		conn = s
	}
	c.conn, c.reader = conn, bufio.NewReaderSize(conn, 16<<10)
	c.cancel = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return nil
}

// call sends a request and reads the answer, which is valid until the next
// call. A connection that fails is opened anew for the next; the request that
// it failed with is not sent again.
func (c *caller) call(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error) {
	return c.callWithin(ctx, answerWithin, method, path, body)
}

func (c *caller) callWithin(
	ctx context.Context, within time.Duration, method, path string, body []byte,
) (status int, answer []byte, err error) {
	now := c.target.now()
	if now.Sub(c.used) > idleFor {
		c.close()
	}
	c.used = now
	if err := c.connect(ctx); err != nil {
		return 0, nil, err
	}
	defer func() {
		if err != nil {
			c.close()
			if ctx.Err() != nil {
				err = ctx.Err()
			}
		}
	}()
	if err := c.conn.SetDeadline(now.Add(within)); err != nil {
		return 0, nil, err
	}
	if err := ctx.Err(); err != nil { // its own deadline may just have been written over
		return 0, nil, err
	}
	b := append(c.out[:0], method...)
	b = append(b, ' ')
	b = append(b, c.target.prefix...)
	b = append(b, path...)
	b = append(b, c.head...)
	if body != nil {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	b = append(b, body...)
	c.out = b
	if _, err := c.conn.Write(b); err != nil {
		return 0, nil, err
	}
	return c.read()
}

var errAnswer = errors.New("the server's answer is not HTTP/1.1")

// read reads one answer.
func (c *caller) read() (status int, answer []byte, err error) {
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < len("HTTP/1.1 200") || string(line[:7]) != "HTTP/1." {
		return 0, nil, errAnswer
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, errAnswer
	}
	length, chunked, closing := int64(-1), false, line[7] == '0'
	for {
		if line, err = c.reader.ReadSlice('\n'); err != nil {
			return 0, nil, err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.ParseInt(string(value), 10, 64); err != nil || length < 0 || length > answerMax {
				return 0, nil, errAnswer
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		case bytes.EqualFold(name, []byte("Connection")):
			closing = bytes.EqualFold(value, []byte("close"))
		}
	}
	c.answer.Reset()
	switch {
	case chunked:
		_, err = c.answer.ReadFrom(io.LimitReader(httputil.NewChunkedReader(c.reader), answerMax))
		if err == nil {
			_, err = c.reader.ReadSlice('\n') // no trailers: the empty line that ends it
		}
	case length >= 0:
		_, err = io.CopyN(&c.answer, c.reader, length)
	default:
		closing = true
		_, err = c.answer.ReadFrom(io.LimitReader(c.reader, answerMax))
	}
	if closing {
		c.close()
	}
	return status, c.answer.Bytes(), err
}

// envelope is the form of the API's answers.
type envelope struct {
	Success bool            `json:"success"`
	Message string          `json:"message"`
	Code    string          `json:"code"`
	Data    json.RawMessage `json:"data"`
}

// ask is call for a request that must succeed; it returns the answer's data.
func (c *caller) ask(ctx context.Context, method, path string, body []byte) (json.RawMessage, error) {
	status, answer, err := c.call(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	return open(status, answer)
}

// open checks that an answer says success, and returns its data.
func open(status int, answer []byte) (json.RawMessage, error) {
	var e envelope
	if err := json.Unmarshal(answer, &e); err != nil {
		return nil, fmt.Errorf("HTTP %d with an answer that is not the API's: %.80q", status, answer)
	}
	if status != 200 || !e.Success {
		return nil, fmt.Errorf("HTTP %d, %s: %s", status, e.Code, e.Message)
	}
	return e.Data, nil
}

// redeem redeems a key and checks that exactly quota was credited.
func (c *caller) redeem(ctx context.Context, key string, quota int64) error {
	body := append(make([]byte, 0, 64), `{"key":"`...)
	body = append(append(body, key...), `"}`...)
	status, answer, err := c.call(ctx, "POST", "/api/user/topup", body)
	if err != nil {
		return err
	}
	// The same success as before needs no second reading.
	if status == 200 && bytes.Equal(answer, c.last) {
		return nil
	}
	data, err := open(status, answer)
	if err != nil {
		return err
	}
	if string(data) != strconv.FormatInt(quota, 10) {
		return fmt.Errorf("%s was credited for a code worth %d", data, quota)
	}
	c.last = bytes.Clone(answer)
	return nil
}

// issueBody is the request for a batch.
func issueBody(name string, count, quota int64) []byte {
	body, err := json.Marshal(map[string]any{"name": name, "count": count, "quota": quota, "expired_time": 0})
	if err != nil {
		panic(err) // text and numbers always marshal
	}
	return body
}

// issue makes a batch and checks that it is whole.
func (c *caller) issue(ctx context.Context, body []byte, count int) ([]string, error) {
	data, err := c.ask(ctx, "POST", "/api/redemption/", body)
	if err != nil {
		return nil, err
	}
	var keys []string
	if err := json.Unmarshal(data, &keys); err != nil || len(keys) != count {
		return nil, fmt.Errorf("a call for %d codes answered %d keys", count, len(keys))
	}
	return keys, nil
}
