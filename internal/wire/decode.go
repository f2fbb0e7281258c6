package wire

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxMembers bounds a message's members; the protocol's largest has 13.
const maxMembers = 64

// Message is a decoded message: well-formed, and not yet believed.
type Message struct{ members []member } // in the order of their names

// Decode reads a message: one JSON object whose values are all strings, with
// no name twice, or standard Base64 of one. The first byte tells which.
func Decode(b []byte) (Message, error) {
	if len(b) > MaxMessage {
		return Message{}, fmt.Errorf("a message of %d bytes is more than the %d that one may have", len(b), MaxMessage)
	}
	if !looksLikeJSON(b) {
		text, err := base64.StdEncoding.AppendDecode(nil, b)
		if err != nil {
			return Message{}, errors.New("the message is neither JSON nor Base64")
		}
		b = text
	}
	if !utf8.Valid(b) {
		return Message{}, errors.New("the message is not UTF-8")
	}
	members, err := object(json.NewDecoder(bytes.NewReader(b)))
	if err != nil {
		return Message{}, err
	}
	slices.SortFunc(members, byName)
	for i := range members[min(1, len(members)):] {
		if members[i].name == members[i+1].name {
			return Message{}, fmt.Errorf("the message has the member %q twice", members[i].name)
		}
	}
	return Message{members}, nil
}

// looksLikeJSON goes by the first byte. No Base64 begins with one of these.
func looksLikeJSON(b []byte) bool {
	return len(b) > 0 && strings.IndexByte("{ \t\r\n", b[0]) >= 0
}

// object reads the members of the one object of strings that d holds.
func object(d *json.Decoder) ([]member, error) {
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("the message is not a JSON object")
	}
	members := make([]member, 0, 16)
	for d.More() {
		if len(members) == maxMembers {
			return nil, fmt.Errorf("the message has more than %d members", maxMembers)
		}
		name, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("the message is not JSON: %w", err)
		}
		value, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("the message is not JSON: %w", err)
		}
		text, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf("the message's member %q is not a string", name)
		}
		members = append(members, member{name.(string), text}) // where a name stands, Token returns nothing else
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("the message is not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the message's JSON object")
	}
	return members, nil
}

// Get returns a member's value; empty if there is none.
func (m Message) Get(name string) string {
	i, ok := slices.BinarySearchFunc(m.members, name, func(a member, name string) int {
		return strings.Compare(a.name, name)
	})
	if !ok {
		return ""
	}
	return m.members[i].value
}

// Method is what the message is about.
func (m Message) Method() string { return m.Get("method") }

// MachineNo is the machine that the message names as its sender or receiver.
func (m Message) MachineNo() string { return m.Get("client_id") }

// Verify reports whether the message was signed, in either form, with the app
// key. Without an app key nothing is.
func (m Message) Verify(appKey string) bool {
	return appKey != "" && (m.signed(appKey, Raw) || m.signed(appKey, PercentEncoded))
}

func (m Message) signed(appKey string, form Signature) bool {
	want := sign(m.members, appKey, form)
	return subtle.ConstantTimeCompare([]byte(m.Get(nameSign)), want[:]) == 1
}

// Create reads the message as a Create, without its zone.
func (m Message) Create() (Create, error) {
	c := Create{Head: m.head(), Code: m.Get("code")}
	var err error
	if err = m.expect(MethodCreate); err != nil {
		return Create{}, err
	}
	if c.ID, err = m.positive("id"); err != nil {
		return Create{}, err
	}
	if c.ProductID, err = m.positive("product_id"); err != nil {
		return Create{}, err
	}
	if len(c.Code) != 8 || strings.Trim(c.Code, "0123456789") != "" {
		return Create{}, errors.New("code is not 8 digits")
	}
	quantity, err := m.positive("quantity")
	if err != nil || quantity > 3 {
		return Create{}, fmt.Errorf("quantity is %q, not 1 to 3", m.Get("quantity"))
	}
	c.Quantity = int(quantity)
	expires, err := m.positive("expired_at")
	if err != nil {
		return Create{}, err
	}
	if c.Expires = instant(expires); c.Expires.Year() > 9999 {
		return Create{}, fmt.Errorf("expired_at is %q, beyond the year 9999", m.Get("expired_at"))
	}
	if used := m.Get("used"); used != "0" {
		return Create{}, fmt.Errorf("used is %q: that code is no more to be used", used)
	}
	return c, nil
}

// instant tells seconds and milliseconds apart by their size: seconds reach
// the bound in the year 5138, milliseconds did in 1973.
func instant(n int64) time.Time {
	const bound = 1e11
	if n < bound {
		return time.Unix(n, 0).UTC()
	}
	return time.UnixMilli(n).UTC()
}

// Delete reads the message as a Delete.
func (m Message) Delete() (Delete, error) {
	if err := m.expect(MethodDelete); err != nil {
		return Delete{}, err
	}
	id, err := m.positive("id")
	return Delete{Head: m.head(), ID: id}, err
}

// Put reads the message as a Put.
func (m Message) Put() (Put, error) {
	if err := m.expect(MethodPut); err != nil {
		return Put{}, err
	}
	if used := m.Get("used"); used != "1" {
		return Put{}, fmt.Errorf("used is %q, not 1", used)
	}
	id, err := m.positive("id")
	return Put{Head: m.head(), ID: id}, err
}

// Heartbeat reads the message as a Heartbeat. An uptime that is no number is
// read as 0: the machine lives all the same.
func (m Message) Heartbeat() (Heartbeat, error) {
	if err := m.expect(MethodHeartbeat); err != nil {
		return Heartbeat{}, err
	}
	uptime, err := strconv.ParseUint(m.Get("uptime_minutes_today"), 10, 31)
	if err != nil {
		uptime = 0
	}
	return Heartbeat{m.head(), m.Get("network_type"), m.Get("network_rssi"), int(uptime)}, nil
}

// Offline reads the message as an Offline.
func (m Message) Offline() (Offline, error) {
	if err := m.expect(MethodOffline); err != nil {
		return Offline{}, err
	}
	return Offline{m.head(), m.Get("reason")}, nil
}

func (m Message) head() Head {
	h := Head{MachineNo: m.MachineNo()}
	if n, err := m.positive("timestamp"); err == nil {
		h.At = instant(n)
	}
	if n, err := m.positive("machine_id"); err == nil {
		h.MachineID = n
	}
	return h
}

func (m Message) expect(method string) error {
	if have := m.Method(); have != method {
		return fmt.Errorf("method is %q, not %q", have, method)
	}
	return nil
}

func (m Message) positive(name string) (int64, error) {
	n, err := strconv.ParseUint(m.Get(name), 10, 63)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s is %q, not a positive integer", name, m.Get(name))
	}
	return int64(n), nil
}
