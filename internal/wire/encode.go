package wire

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// Each Encode lists its members twice, in the order of their names for the
// signature and in the order in which the protocol shows them: a server
// encodes some ten thousand messages a second, so nothing is sorted here.

// Encode writes the message.
func (m Create) Encode(s Style) []byte {
	h := m.members(MethodCreate)
	zone := m.Zone
	if zone == nil {
		zone = time.UTC
	}
	expires := m.Expires.UnixMilli()
	if s.Expiry == Seconds {
		expires = m.Expires.Unix()
	}
	id := member{"id", strconv.FormatInt(m.ID, 10)}
	product := member{"product_id", strconv.FormatInt(m.ProductID, 10)}
	code := member{"code", m.Code}
	quantity := member{"quantity", strconv.Itoa(m.Quantity)}
	expiredAt := member{"expired_at", strconv.FormatInt(expires, 10)}
	expiredDay := member{"expired_day", m.Expires.In(zone).Format(time.DateTime)}
	used := member{"used", "0"}
	return s.encode(
		[]member{h.client, code, expiredAt, expiredDay, id, h.machine, h.method, product, quantity, h.status, h.timestamp, used},
		[]member{h.timestamp, h.machine, h.method, {name: nameSign}, h.client, id, product, code, quantity, expiredAt, expiredDay, used, h.status},
	)
}

// Encode writes the message.
func (m Delete) Encode(s Style) []byte {
	h := m.members(MethodDelete)
	id := member{"id", strconv.FormatInt(m.ID, 10)}
	return s.encode(
		[]member{h.client, id, h.machine, h.method, h.status, h.timestamp},
		[]member{h.timestamp, h.machine, h.method, {name: nameSign}, h.client, id, h.status},
	)
}

// Encode writes the message.
func (m Put) Encode(s Style) []byte {
	h := m.members(MethodPut)
	id := member{"id", strconv.FormatInt(m.ID, 10)}
	used := member{"used", "1"}
	return s.encode(
		[]member{h.client, id, h.machine, h.method, h.status, h.timestamp, used},
		[]member{h.timestamp, h.machine, h.method, {name: nameSign}, h.client, id, used, h.status},
	)
}

// Encode writes the message.
func (m Heartbeat) Encode(s Style) []byte {
	h := m.members(MethodHeartbeat)
	network := member{"network_type", text(m.NetworkType)}
	rssi := member{"network_rssi", text(m.NetworkRSSI)}
	uptime := member{"uptime_minutes_today", strconv.Itoa(m.UptimeMinutesToday)}
	return s.encode(
		[]member{h.client, h.machine, h.method, rssi, network, h.status, h.timestamp, uptime},
		[]member{h.timestamp, h.machine, h.method, {name: nameSign}, h.client, network, rssi, uptime, h.status},
	)
}

// Encode writes the message.
func (m Offline) Encode(s Style) []byte {
	h := m.members(MethodOffline)
	reason := member{"reason", text(m.Reason)}
	return s.encode(
		[]member{h.client, h.machine, h.method, reason, h.status, h.timestamp},
		[]member{h.timestamp, h.machine, h.method, {name: nameSign}, h.client, reason, h.status},
	)
}

// head is the members of every message.
type head struct{ client, machine, method, status, timestamp member }

func (h Head) members(method string) head {
	machine := "000"
	if h.MachineID != 0 {
		machine = strconv.FormatInt(h.MachineID, 10)
	}
	return head{
		client:    member{"client_id", h.MachineNo},
		machine:   member{"machine_id", machine},
		method:    member{"method", method},
		status:    member{"status", "0"},
		timestamp: member{"timestamp", strconv.FormatInt(h.At.Unix(), 10)},
	}
}

// text makes free text fit for JSON: the signature is over what the reader
// will read.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// encode signs the one list of members and writes the other, with the
// signature in its place.
func (s Style) encode(signed, written []member) []byte {
	signature := sign(signed, s.AppKey, s.Signature)
	out := append(make([]byte, 0, 512), '{')
	for i, m := range written {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendQuoted(out, m.name)
		out = append(out, ':')
		if m.name == nameSign {
			out = append(out, '"')
			out = append(out, signature[:]...)
			out = append(out, '"')
			continue
		}
		out = appendQuoted(out, m.value)
	}
	out = append(out, '}')
	if s.Payload == Base64 {
		return base64.StdEncoding.AppendEncode(nil, out)
	}
	return out
}

// appendQuoted appends valid UTF-8 as a JSON string. Only what JSON demands is
// escaped: simple firmware reads simple JSON best.
func appendQuoted(out []byte, s string) []byte {
	const digits = "0123456789abcdef"
	out = append(out, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c < ' ':
			out = append(out, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			out = append(out, c)
		}
	}
	return append(out, '"')
}
