package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/wire"
)

// Send makes the message of an item and writes it to the machine's connection.
// See delivery.Sender.
func (b *Embedded) Send(ctx context.Context, item delivery.Item, acknowledged func()) (bool, error) {
	c := b.listening(item.MachineID)
	if c == nil {
		return false, delivery.ErrAway
	}
	_, payload, err := b.writer.write(ctx, item)
	if err != nil {
		return false, err
	}
	will, err := c.publish(payload, acknowledged)
	switch {
	case err == nil:
		b.metrics.sent.Inc()
		return will, nil
	case errors.Is(err, errFull) || errors.Is(err, packets.ErrPacketTooLarge):
		return false, err
	}
	c.client.Stop(err) // half a packet may have been written
	return false, delivery.ErrAway
}

// writer makes the messages to machines.
type writer struct {
	pickups *pickup.Service
	now     func() time.Time
	zones   zones
}

// write makes the message of an item, to the machine with the number no. It fails
// as pickup.Service.MessageOf does.
func (w *writer) write(ctx context.Context, item delivery.Item) (no string, payload []byte, err error) {
	m, err := w.pickups.MessageOf(ctx, item)
	if err != nil {
		return "", nil, err
	}
	head := wire.Head{At: w.now(), MachineID: m.Machine.ID, MachineNo: m.Machine.No}
	style := styleOf(&m.Merchant)
	if item.Kind == delivery.KindDelete {
		return m.Machine.No, wire.Delete{Head: head, ID: m.ID}.Encode(style), nil
	}
	zone, err := w.zones.find(m.Machine.Zone)
	if err != nil {
		return "", nil, err
	}
	return m.Machine.No, wire.Create{
		Head: head, ID: m.ID, ProductID: m.ProductID, Code: m.Digits, Quantity: m.Quantity, Expires: m.Expires, Zone: zone,
	}.Encode(style), nil
}

func styleOf(m *fleet.Merchant) wire.Style {
	s := wire.Style{AppKey: m.AppKey}
	if m.Payload == fleet.PayloadBase64 {
		s.Payload = wire.Base64
	}
	if m.Signature == fleet.SignaturePercentEncoded {
		s.Signature = wire.PercentEncoded
	}
	if m.Expiry == fleet.ExpirySeconds {
		s.Expiry = wire.Seconds
	}
	return s
}

// zones remembers time zones, which take long to read. There are some hundred
// names of them.
type zones struct{ byName sync.Map } // of *time.Location

func (z *zones) find(name string) (*time.Location, error) {
	if l, ok := z.byName.Load(name); ok {
		return l.(*time.Location), nil
	}
	l, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("a machine's time zone is unknown here; set it again: %w", err)
	}
	z.byName.Store(name, l)
	return l, nil
}
