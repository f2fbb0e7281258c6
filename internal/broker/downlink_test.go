package broker_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/wire"
)

// TestDownlinks compares what machines are sent with the protocol, member by
// member.
func TestDownlinks(t *testing.T) {
	plain := fleet.Style{Payload: fleet.PayloadJSON, Signature: fleet.SignatureRaw, Expiry: fleet.ExpiryMilliseconds}
	for _, test := range []struct {
		name  string
		style fleet.Style
		zone  string
		at    string // a code expires two hours later
		day   string
	}{
		{"Shanghai", plain, "Asia/Shanghai", "2025-10-23T10:51:37.334Z", "2025-10-23 20:51:37"},
		{"New York into summer", plain, "America/New_York", "2026-03-08T05:30:00Z", "2026-03-08 03:30:00"},
		{"New York out of summer", plain, "America/New_York", "2026-11-01T04:30:00Z", "2026-11-01 01:30:00"},
		{"Kathmandu", plain, "Asia/Kathmandu", "2026-06-30T16:20:05Z", "2026-07-01 00:05:05"},
		{"Base64", fleet.Style{Payload: fleet.PayloadBase64}, "Asia/Shanghai", "2026-01-01T00:00:00Z", "2026-01-01 10:00:00"},
		{"percent-encoded", fleet.Style{Signature: fleet.SignaturePercentEncoded}, "Asia/Shanghai", "2026-01-01T00:00:00Z", "2026-01-01 10:00:00"},
		{"seconds", fleet.Style{Expiry: fleet.ExpirySeconds}, "Asia/Shanghai", "2026-01-01T00:00:00.789Z", "2026-01-01 10:00:00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, v := range versions() {
				t.Run(name, func(t *testing.T) {
					at, err := time.Parse(time.RFC3339, test.at)
					if err != nil {
						t.Fatal(err)
					}
					w := newWorld(t, options{at: at, style: test.style})
					m := w.machine("16327138", test.zone)
					p := w.connect(v, m, login{})
					c := w.code(m)
					expires := strconv.FormatInt(at.Add(2*time.Hour).UnixMilli(), 10)
					if test.style.Expiry == fleet.ExpirySeconds {
						expires = strconv.FormatInt(at.Add(2*time.Hour).Unix(), 10)
					}
					common := map[string]string{
						"timestamp": strconv.FormatInt(at.Unix(), 10), "machine_id": strconv.FormatInt(m.ID, 10),
						"client_id": "16327138", "id": strconv.FormatInt(c.ID, 10), "status": "0",
					}
					want := maps.Clone(common)
					maps.Copy(want, map[string]string{
						"method": "client.pickup_codes.create", "product_id": strconv.FormatInt(m.product, 10), "code": c.Digits,
						"quantity": "2", "expired_at": expires, "expired_day": test.day, "used": "0",
					})
					w.wantMessage(p.receive(), m, test.style, want)

					w.check(w.pickups.Withdraw(w.ctx, w.root, c.ID))
					want = maps.Clone(common)
					want["method"] = "client.pickup_codes.delete"
					w.wantMessage(p.receive(), m, test.style, want)
					w.eventually("the messages to be counted", func() bool { return w.metric("scrip_mqtt_messages_sent_total") == 2 })
				})
			}
		})
	}
}

func (w *world) wantMessage(got message, m *machine, style fleet.Style, want map[string]string) {
	w.Helper()
	if got.topic != topicOf(m) || got.qos != 1 || got.retained {
		w.Errorf("topic %q, QoS %d, retained %v", got.topic, got.qos, got.retained)
	}
	text := got.payload
	if style.Payload == fleet.PayloadBase64 {
		var err error
		text, err = base64.StdEncoding.Strict().DecodeString(string(text))
		w.check(err)
	}
	var members map[string]string
	w.check(json.Unmarshal(text, &members))
	form := wire.Raw
	if style.Signature == fleet.SignaturePercentEncoded {
		form = wire.PercentEncoded
	}
	want["sign"] = wire.Sign(want, appKey, form)
	if !maps.Equal(members, want) {
		w.Errorf("got  %v\nwant %v", members, want)
	}
}

// TestAcknowledged follows a code until the machine has it.
func TestAcknowledged(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			m := w.machine("16327138", "Asia/Shanghai")
			early := w.code(m)
			p := w.dial(v, m, login{})
			if got := w.get(early.ID).Delivery; got != pickup.Queued {
				t.Errorf("before it has subscribed: %s", got)
			}
			if got := p.subscribe(topicOf(m), 2); got != 2 {
				t.Fatalf("granted %#x", got)
			}
			got := p.receive()
			if got.qos != 1 {
				t.Errorf("QoS %d", got.qos)
			}
			if got.identifier != int(v.pick(0, 7)) {
				t.Errorf("subscription identifier %d", got.identifier)
			}
			w.eventually("the acknowledgement", func() bool { return w.get(early.ID).Delivery == pickup.Received })
			w.wantMetric(1, "scrip_mqtt_messages_acknowledged_total")

			// Not while it does not listen; then what it holds comes once again.
			p.unsubscribe(topicOf(m))
			late := w.code(m)
			if _, err := w.broker.Send(w.ctx, delivery.Item{MachineID: m.ID, Kind: delivery.KindCreate, CodeID: late.ID}, nil); err != delivery.ErrAway { //nolint:errorlint // it is that very error
				t.Errorf("while it does not listen: %v", err)
			}
			p.subscribe(topicOf(m), 1)
			seen := map[string]bool{}
			for range 2 {
				got, err := wire.Decode(p.receive().payload)
				w.check(err)
				seen[got.Get("id")] = true
			}
			if !seen[strconv.FormatInt(early.ID, 10)] || !seen[strconv.FormatInt(late.ID, 10)] {
				t.Errorf("it was sent %v", seen)
			}
		})
	}
}

// TestUnacknowledged leaves messages without an answer.
func TestUnacknowledged(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			m := w.machine("16327138", "Asia/Shanghai")
			c := w.code(m)
			p := w.connect(v, m, login{hold: true})
			p.receive()
			w.eventually("the code to be sent", func() bool { return w.get(c.ID).Delivery == pickup.Sent })
			p.alive(m) // other messages are acknowledged, which changes nothing of it
			p.vanish()
			again := w.connect(v, m, login{})
			again.receive()
			w.eventually("the acknowledgement", func() bool { return w.get(c.ID).Delivery == pickup.Received })
		})
	}
}

// TestQoS0 serves a machine that wants no acknowledgements.
func TestQoS0(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			m := w.machine("16327138", "Asia/Shanghai")
			p := w.dial(v, m, login{})
			if got := p.subscribe(topicOf(m), 0); got != 0 {
				t.Fatalf("granted %#x", got)
			}
			for range 3 {
				c := w.code(m)
				if got := p.receive(); got.qos != 0 {
					t.Errorf("QoS %d", got.qos)
				}
				w.eventually("the code to be sent", func() bool { return w.get(c.ID).Delivery == pickup.Sent })
			}
			w.wantMetric(0, "scrip_mqtt_messages_acknowledged_total")
		})
	}
}
