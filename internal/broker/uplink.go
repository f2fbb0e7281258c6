package broker

import (
	"log/slog"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/wire"
)

// Why an uplink is dropped.
const (
	oversized   = "oversized"
	malformed   = "malformed"
	foreign     = "foreign" // in the name of another machine
	forged      = "forged"
	unknown     = "unknown_code"
	unavailable = "unavailable" // it could not be checked
)

// notBelieved is why a message had no effect that may have one another time:
// once the machine has the app key that the server has.
type notBelieved string

// Error says why.
func (n notBelieved) Error() string { return "a message was dropped: " + string(n) }

// uplink acts on what a machine says. It fails with a notBelieved if the message
// was dropped and the machine should know that, and with any other error if it is
// to say it again.
func (b *Embedded) uplink(c *connection, payload []byte) error {
	if len(payload) > wire.MaxMessage {
		return b.dropped(c, oversized)
	}
	m, err := wire.Decode(payload)
	if err != nil {
		return b.dropped(c, malformed)
	}
	if m.MachineNo() != c.no {
		return b.dropped(c, foreign)
	}
	owner, err := b.config.Fleet.OwnerOf(b.work, c.machine)
	if err != nil {
		return b.failed(c, m.Method(), err)
	}
	if !m.Verify(owner.AppKey) {
		return b.dropped(c, forged)
	}
	return b.believe(c, m)
}

// believe acts on a message that comes from the machine.
func (b *Embedded) believe(c *connection, m wire.Message) error {
	presence := fleet.Connected
	switch m.Method() {
	case wire.MethodPut:
		put, err := m.Put()
		if err != nil {
			return b.dropped(c, malformed)
		}
		_, err = b.config.Pickups.Used(b.work, c.machine, put.ID, c.address, put.At)
		if refusal.CodeOf(err) == refusal.PickupNotFound {
			b.see(c, presence)
			return b.dropped(c, unknown)
		}
		if err != nil {
			return b.failed(c, wire.MethodPut, err)
		}
	case wire.MethodOffline:
		presence = fleet.Offline
	}
	b.metrics.uplink(m.Method()).Inc()
	b.see(c, presence)
	return nil
}

// dropped counts and logs a message that has no effect. Nothing of the message
// is logged.
func (b *Embedded) dropped(c *connection, reason string) error {
	b.metrics.dropped[reason].Inc()
	if left, ok := b.drops.due(); ok {
		b.config.Log.LogAttrs(b.work, slog.LevelWarn, "dropped a message from a machine", slog.String("machine_no", c.no),
			slog.String("address", c.address), slog.String("reason", reason), slog.Int("left_out", left))
	}
	if reason == forged || reason == foreign {
		return notBelieved(reason)
	}
	return nil
}

// failed is for a message that could not be acted upon, for which the machine
// can do nothing. Only the report of a use is worth to be sent again.
func (b *Embedded) failed(c *connection, method string, err error) error {
	if b.work.Err() == nil && refusal.CodeOf(err) != refusal.MachineNotFound { // which has just been deleted
		if left, ok := b.failures.due(); ok {
			b.config.Log.LogAttrs(b.work, slog.LevelError, "acting on a message from a machine",
				slog.String("machine_no", c.no), slog.Any("error", err), slog.Int("left_out", left))
		}
	}
	if method == wire.MethodPut {
		b.metrics.dropped[unavailable].Inc()
		return err
	}
	return b.dropped(c, unavailable)
}

// seldom says once a second that it is time to log.
type seldom struct {
	now func() time.Time

	mu   sync.Mutex
	last time.Time
	left int
}

// due reports whether it is time, and how often it was not since the last.
func (s *seldom) due() (left int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if since := now.Sub(s.last); since >= 0 && since < time.Second {
		s.left++
		return 0, false
	}
	left, s.left, s.last = s.left, 0, now
	return left, true
}
