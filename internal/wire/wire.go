// Package wire is the machine protocol's bytes: how the messages between the
// server and vending machines are signed, written and read. It is pure: bytes
// in, bytes out. Imports: the standard library only.
//
// A message is a flat JSON object of strings, sent as that text or as Base64 of
// it. What Decode returns is well-formed and no more than that: it is to be
// believed once Verify has said so, and only about the machine that it names.
package wire

import "time"

// MaxMessage is how many bytes of an encoded message Decode accepts.
const MaxMessage = 8 << 10

// The methods that mean something to Scrip. The protocol has more, for which
// Message.Method is all there is.
const (
	MethodCreate    = "client.pickup_codes.create"
	MethodDelete    = "client.pickup_codes.delete"
	MethodPut       = "client.pickup_codes.put"
	MethodHeartbeat = "client.heartbeat"
	MethodOffline   = "client.offline"
)

// Payload is how a message's JSON text travels.
type Payload int

// The forms of a payload.
const (
	JSON Payload = iota
	Base64
)

// Signature is how values enter a signature.
type Signature int

// The forms of a signature.
const (
	Raw Signature = iota
	PercentEncoded
)

// Unit is the unit of expired_at.
type Unit int

// The units of expired_at.
const (
	Milliseconds Unit = iota
	Seconds
)

// Style is how one merchant's messages are written.
type Style struct {
	AppKey    string
	Payload   Payload
	Signature Signature
	Expiry    Unit
}

// Head is what every message carries. Nobody checks At and MachineID of an
// uplink: firmware sends what it likes, and a last will is old by nature. So
// what is no number there is read as zero, and a machine that doesn't know its
// MachineID writes zero as "000".
type Head struct {
	At        time.Time
	MachineID int64
	MachineNo string
}

// Create tells a machine about a pickup code.
type Create struct {
	Head
	ID, ProductID int64
	Code          string // 8 digits
	Quantity      int    // 1 to 3
	Expires       time.Time
	// Zone is where the machine's wall clock is; nil: UTC.
	Zone *time.Location
}

// Delete tells a machine that a pickup code was withdrawn.
type Delete struct {
	Head
	ID int64
}

// Put reports that a pickup code was used.
type Put struct {
	Head
	ID int64
}

// Heartbeat says every few minutes that a machine is alive.
type Heartbeat struct {
	Head
	NetworkType, NetworkRSSI string
	UptimeMinutesToday       int
}

// Offline is a machine's last will.
type Offline struct {
	Head
	Reason string
}
