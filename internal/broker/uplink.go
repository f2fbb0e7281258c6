package broker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
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

// hearing acts on what machines say, to whichever broker.
type hearing struct {
	fleet   *fleet.Service
	pickups *pickup.Service
	log     *slog.Logger
	metrics *uplinks
	// What strangers can cause is logged once a second at most.
	drops, failures *seldom
}

// speaker is who says something.
type speaker struct {
	machine int64
	no      string // empty: the broker does not say
	address string
}

// hear acts on what somebody says, and calls see with the machine if it was that.
// It fails with a notBelieved if the message was dropped and the machine should
// know that, and with any other error if it is to be heard again.
func (h *hearing) hear(ctx context.Context, who speaker, payload []byte, see func(machine int64, alive bool)) error {
	m, reason := decode(payload)
	if reason != "" {
		return h.dropped(ctx, &who, reason)
	}
	return h.act(ctx, who, m, see)
}

// decode reads a message; reason is why it is dropped, if it is.
func decode(payload []byte) (m wire.Message, reason string) {
	if len(payload) > wire.MaxMessage {
		return m, oversized
	}
	m, err := wire.Decode(payload)
	if err != nil {
		return m, malformed
	}
	return m, ""
}

// act is hear for a message that is decoded.
func (h *hearing) act(ctx context.Context, who speaker, m wire.Message, see func(machine int64, alive bool)) error {
	owner, err := h.owner(ctx, &who, m.MachineNo())
	switch {
	case refusal.CodeOf(err) == refusal.MachineNotFound && who.machine == 0 || errors.Is(err, notBelieved(foreign)):
		return h.dropped(ctx, &who, foreign)
	case err != nil:
		return h.failed(ctx, &who, m.Method(), err)
	case !m.Verify(owner.AppKey):
		return h.dropped(ctx, &who, forged)
	}
	return h.believe(ctx, &who, m, see)
}

// owner finds the merchant of who is speaking in the name of that machine; if the
// broker does not say who it is, it takes their word, until the signature is seen.
func (h *hearing) owner(ctx context.Context, who *speaker, no string) (m fleet.Merchant, err error) {
	switch {
	case who.no == no:
		return h.fleet.OwnerOf(ctx, who.machine)
	case who.no != "" || !fleet.ValidNo(no):
		return m, notBelieved(foreign)
	}
	who.no = no
	who.machine, m, err = h.fleet.Speaker(ctx, no)
	return m, err
}

// believe acts on a message that comes from the machine.
func (h *hearing) believe(ctx context.Context, who *speaker, m wire.Message, see func(machine int64, alive bool)) error {
	alive := true
	switch m.Method() {
	case wire.MethodPut:
		put, err := m.Put()
		if err != nil {
			return h.dropped(ctx, who, malformed)
		}
		_, err = h.pickups.Used(ctx, who.machine, put.ID, who.address, put.At)
		if refusal.CodeOf(err) == refusal.PickupNotFound {
			see(who.machine, alive)
			return h.dropped(ctx, who, unknown)
		}
		if err != nil {
			return h.failed(ctx, who, wire.MethodPut, err)
		}
	case wire.MethodOffline:
		alive = false
	}
	h.metrics.uplink(m.Method()).Inc()
	see(who.machine, alive)
	return nil
}

// dropped counts and logs a message that has no effect. Nothing of the message
// is logged.
func (h *hearing) dropped(ctx context.Context, who *speaker, reason string) error {
	h.metrics.dropped[reason].Inc()
	if left, ok := h.drops.due(); ok {
		h.log.LogAttrs(ctx, slog.LevelWarn, "dropped a message from a machine", slog.String("machine_no", who.no),
			slog.String("address", who.address), slog.String("reason", reason), slog.Int("left_out", left))
	}
	if reason == forged || reason == foreign {
		return notBelieved(reason)
	}
	return nil
}

// failed is for a message that could not be acted upon, for which the machine
// can do nothing. Only the report of a use is worth to be heard again.
func (h *hearing) failed(ctx context.Context, who *speaker, method string, err error) error {
	if ctx.Err() == nil && refusal.CodeOf(err) != refusal.MachineNotFound { // which has just been deleted
		if left, ok := h.failures.due(); ok {
			h.log.LogAttrs(ctx, slog.LevelError, "acting on a message from a machine",
				slog.String("machine_no", who.no), slog.Any("error", err), slog.Int("left_out", left))
		}
	}
	if method == wire.MethodPut {
		h.metrics.dropped[unavailable].Inc()
		return err
	}
	return h.dropped(ctx, who, unavailable)
}

// uplink acts on what a machine says over its connection, as hear does.
func (b *Embedded) uplink(c *connection, payload []byte) error {
	return b.hearing.hear(b.work, c.speaker(), payload, func(_ int64, alive bool) {
		presence := fleet.Connected
		if !alive {
			presence = fleet.Offline
		}
		b.see(c, presence)
	})
}

func (c *connection) speaker() speaker { return speaker{c.machine, c.no, c.address} }

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
