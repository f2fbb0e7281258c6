// Package device is the reference machine: a vending machine's half of the
// pickup codes, for whoever writes firmware to read from top to bottom, and for
// the virtual machines of the scrip command. It imports internal/wire, the MQTT
// client eclipse/paho.golang, and the standard library.
//
// A machine must keep five promises, of which this package is one way:
//
//   - It believes no message that is not signed with its app key and addressed
//     to it (receive, in link.go).
//   - It acknowledges a message once its file holds what the message says, so
//     that no loss of power makes it forget a code (link.go, file.go).
//   - It vends once for a code: the file says "used" before the goods move, and
//     says so until the code could not be sent again (Enter; memory.go).
//   - It reports each use until the broker has acknowledged the report, however
//     long the network is away and however often the power fails; and once more
//     whenever the server speaks of the code all the same, as it does not know
//     of the use then (report, add and withdraw, in link.go).
//   - It gives a guesser 5 tries, then a pause, which ends neither with a
//     restart nor with a change of the clock (take).
//
// Begin here; memory.go is what the machine knows, file.go how it keeps that,
// link.go how it talks.
package device

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/wire"
)

// Bounds.
const (
	// Tries is how many wrong codes may be entered in a row.
	Tries = 5
	// Pause is how long nothing may be entered after that.
	Pause = 5 * time.Minute
	// CodesMax is how many codes a machine keeps, used ones included.
	CodesMax = 10_000
)

// Config is what a machine needs to know. Without what is not said to be
// optional it does not start.
type Config struct {
	Broker    string      // mqtt://host:port or mqtts://host:port
	TLS       *tls.Config // optional, for mqtts
	MachineNo string      // 8 digits
	Password  string      // the machine's own, for the broker
	AppKey    string      // the merchant's, for signatures
	// State is the file that holds what the machine must not forget. Two
	// machines never share one.
	State string
	// Base64 and PercentEncoded are how the machine writes its own messages;
	// it reads both forms of either.
	Base64, PercentEncoded bool
	// Heartbeat is how often the machine says that it lives; zero: every 5
	// minutes, as the protocol has it.
	Heartbeat time.Duration
	Now       func() time.Time
	// Vend moves the goods. It is called at most once for a code: the code is
	// used, whatever Vend returns.
	Vend func(ctx context.Context, p Pickup) error
	Log  *slog.Logger // optional
	// On is told what happens, for a display; optional. It must not block,
	// and must be safe for concurrent use.
	On func(Event)
}

// Pickup is what a pickup code is good for.
type Pickup struct {
	ID        int64     `json:"id"`
	ProductID int64     `json:"product_id"`
	Code      string    `json:"code"`
	Quantity  int       `json:"quantity"`
	Expires   time.Time `json:"expires"`
}

// Event is something that happened to a machine.
type Event struct {
	Kind   Kind
	Pickup Pickup // what Added, Withdrawn and Reported are about
}

// Kind says what happened.
type Kind string

// What may happen.
const (
	Connected    Kind = "connected"
	Disconnected Kind = "disconnected"
	Added        Kind = "added"     // a code that is kept from now on
	Withdrawn    Kind = "withdrawn" // a code that was not used
	Reported     Kind = "reported"  // a use that the broker has acknowledged
)

// Why a code is not accepted, beside the two types below.
var (
	ErrDigits  = errors.New("a pickup code has 8 digits: enter all of them")
	ErrUsed    = errors.New("this code has been used already")
	ErrExpired = errors.New("this code has expired: ask for a new one")
)

// UnknownError says that there is no such code on this machine.
type UnknownError struct {
	Left int // how many more tries there are before a pause
}

// Error says how many tries are left.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("there is no such code on this machine: check the digits, %d more wrong ones and it pauses", e.Left)
}

// PausedError says that too many codes were wrong.
type PausedError struct{ Until time.Time }

// Error says until when.
func (e *PausedError) Error() string {
	return "too many wrong codes: try again after " + e.Until.Format(time.TimeOnly)
}

// Device is a machine. It is safe for concurrent use.
type Device struct {
	cfg     Config
	broker  *url.URL
	started time.Time
	retry   time.Duration // between attempts at what has failed

	slot sync.Mutex    // held by whoever stands in front of the machine
	used chan struct{} // told when there is a use to report

	mu      sync.Mutex // guards what follows
	file    file
	memory  memory
	vending *Pickup // what is on its way out; nil for nothing
}

// Open makes a machine that knows what its file holds. It needs no network.
func Open(cfg Config) (*Device, error) {
	broker, err := cfg.check()
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.On == nil {
		cfg.On = func(Event) {}
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 5 * time.Minute
	}
	d := &Device{
		cfg: cfg, broker: broker, started: cfg.Now(), retry: 5 * time.Second,
		used: make(chan struct{}, 1),
		file: file{path: cfg.State},
	}
	if d.memory, err = d.file.load(cfg.MachineNo); err != nil {
		return nil, err
	}
	return d, nil
}

func (c *Config) check() (*url.URL, error) {
	broker, err := url.Parse(c.Broker)
	switch {
	case err != nil || broker.Host == "" || broker.Scheme != "mqtt" && broker.Scheme != "mqtts":
		return nil, fmt.Errorf("%q is not the address of a broker: write mqtt://host:port, or mqtts:// for TLS", c.Broker)
	case !eightDigits(c.MachineNo):
		return nil, fmt.Errorf("%q is not a machine number: it has 8 digits", c.MachineNo)
	case c.Password == "":
		return nil, errors.New("the machine's MQTT password is missing: it is shown when the machine is made")
	case c.AppKey == "":
		return nil, errors.New("the merchant's app key is missing: without it no message can be believed")
	case c.State == "" || c.Now == nil || c.Vend == nil || c.Heartbeat < 0:
		return nil, errors.New("a machine needs a State file, Now, Vend, and no negative Heartbeat")
	}
	return broker, nil
}

// eightDigits is the form of a machine's number and of a pickup code.
func eightDigits(s string) bool { return len(s) == 8 && strings.Trim(s, "0123456789") == "" }

// Codes lists the codes that may be used now, by their id.
func (d *Device) Codes() []Pickup {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.memory.usable(d.cfg.Now())
}

// Unreported is how many uses the broker has not acknowledged yet.
func (d *Device) Unreported() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, h := range d.memory.Codes {
		if h.State == stateUsed {
			n++
		}
	}
	return n
}

// Enter takes a code that a customer has typed, and vends what it is good for.
// Spaces don't matter. It needs no network: the use is reported when there is
// one. One customer is served at a time.
//
// It refuses with ErrDigits, ErrUsed, ErrExpired, *UnknownError and
// *PausedError; any other error is the file's, and nothing was vended, or
// Vend's, and the code is used.
func (d *Device) Enter(ctx context.Context, typed string) (Pickup, error) {
	d.slot.Lock()
	defer d.slot.Unlock()
	code := strings.Join(strings.Fields(typed), "")
	if !eightDigits(code) {
		return Pickup{}, ErrDigits
	}
	p, err := d.take(code)
	if err != nil {
		return Pickup{}, err
	}
	err = d.cfg.Vend(ctx, p)

	d.mu.Lock()
	d.vending = nil
	d.mu.Unlock()
	tell(d.used)
	if err != nil {
		return p, fmt.Errorf("vending %d × product %d for code %d: %w", p.Quantity, p.ProductID, p.ID, err)
	}
	return p, nil
}

// take marks a code used. When it returns, the file says so: if the power fails
// while the goods move, the machine does not move them again. A wrong code is
// counted in the file too, before anybody is told that it is wrong.
func (d *Device) take(code string) (Pickup, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.cfg.Now()
	if err := d.paused(now); err != nil {
		return Pickup{}, err
	}
	known, ok := d.memory.find(code, now)
	switch {
	case !ok:
		return Pickup{}, d.wrong(now)
	case known.State == stateUsed || known.State == stateReported:
		return Pickup{}, ErrUsed
	case known.State == stateExpired || known.past(now):
		return Pickup{}, ErrExpired
	}
	err := d.change(func(m *memory) bool {
		m.set(known, stateUsed)
		m.Wrong, m.PausedFrom, m.PausedUntil = 0, time.Time{}, time.Time{}
		return true
	})
	if err != nil {
		return Pickup{}, err
	}
	d.vending = &known.Pickup
	return known.Pickup, nil
}

// paused refuses while there is a pause. If the clock was set back behind the
// beginning of the pause, it begins again: it must not end early, and it must
// not last until the clock has caught up either.
func (d *Device) paused(now time.Time) error {
	m := &d.memory
	if m.PausedUntil.IsZero() || !now.Before(m.PausedUntil) {
		return nil
	}
	if now.Before(m.PausedFrom) {
		if err := d.change(func(m *memory) bool { m.pause(now); return true }); err != nil {
			return err
		}
	}
	return &PausedError{m.PausedUntil}
}

// wrong counts a wrong code.
func (d *Device) wrong(now time.Time) error {
	err := d.change(func(m *memory) bool {
		m.PausedFrom, m.PausedUntil = time.Time{}, time.Time{} // one that is over
		if m.Wrong++; m.Wrong == Tries {
			m.pause(now)
		}
		return true
	})
	switch {
	case err != nil:
		return err
	case d.memory.Wrong == 0:
		return &PausedError{d.memory.PausedUntil}
	}
	return &UnknownError{Left: Tries - d.memory.Wrong}
}

// change makes a change to what the machine knows, if f says that it made one,
// and returns once the file has it. If the file cannot be written, the machine
// knows what it knew before. d.mu is held.
func (d *Device) change(f func(m *memory) bool) error {
	next := d.memory.clone()
	forgot := next.forget(d.cfg.Now())
	if changed := f(&next); !changed && !forgot {
		return nil
	}
	if err := d.file.save(next); err != nil {
		return err
	}
	d.memory = next
	return nil
}

// style is how the machine writes its messages.
func (d *Device) style() wire.Style {
	s := wire.Style{AppKey: d.cfg.AppKey}
	if d.cfg.Base64 {
		s.Payload = wire.Base64
	}
	if d.cfg.PercentEncoded {
		s.Signature = wire.PercentEncoded
	}
	return s
}

// head is what the machine's messages begin with. Until a message has told the
// machine its id, it is 0.
func (d *Device) head() wire.Head {
	d.mu.Lock()
	defer d.mu.Unlock()
	return wire.Head{At: d.cfg.Now(), MachineID: d.memory.MachineID, MachineNo: d.cfg.MachineNo}
}
