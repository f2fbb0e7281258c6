package wire

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func zone(tb testing.TB, name string) *time.Location {
	tb.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		tb.Fatal(err)
	}
	return z
}

// sample is the create message that the protocol shows.
func sample(tb testing.TB) Create {
	tb.Helper()
	return Create{
		Head: Head{At: time.Unix(1748330699, 0).UTC(), MachineID: 10009, MachineNo: "16327138"},
		ID:   1, ProductID: 20001, Code: "16327138", Quantity: 1,
		Expires: time.UnixMilli(1761223897334).UTC(), Zone: zone(tb, "Asia/Shanghai"),
	}
}

// signed puts the signature of its members into a message to the letter.
func signed(tb testing.TB, text string, s Style) string {
	tb.Helper()
	m, err := Decode([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	sum := sign(m.members, s.AppKey, s.Signature)
	return strings.Replace(text, `"…"`, `"`+string(sum[:])+`"`, 1)
}

func TestToTheLetter(t *testing.T) {
	head := Head{At: time.Unix(1748330699, 0), MachineID: 10009, MachineNo: "16327138"}
	unknown := Head{At: time.Unix(1748330699, 0), MachineNo: "16327138"}
	for _, c := range []struct {
		what    string
		message interface{ Encode(s Style) []byte }
		style   Style
		want    string
	}{
		{
			"create", sample(t),
			Style{},
			`{"timestamp":"1748330699","machine_id":"10009","method":"client.pickup_codes.create","sign":"…","client_id":"16327138",` +
				`"id":"1","product_id":"20001","code":"16327138","quantity":"1","expired_at":"1761223897334",` +
				`"expired_day":"2025-10-23 20:51:37","used":"0","status":"0"}`,
		},
		{
			"create in seconds, signed percent-encoded", sample(t),
			Style{Expiry: Seconds, Signature: PercentEncoded},
			`{"timestamp":"1748330699","machine_id":"10009","method":"client.pickup_codes.create","sign":"…","client_id":"16327138",` +
				`"id":"1","product_id":"20001","code":"16327138","quantity":"1","expired_at":"1761223897",` +
				`"expired_day":"2025-10-23 20:51:37","used":"0","status":"0"}`,
		},
		{
			"delete",
			Delete{head, 7},
			Style{},
			`{"timestamp":"1748330699","machine_id":"10009","method":"client.pickup_codes.delete","sign":"…","client_id":"16327138","id":"7","status":"0"}`,
		},
		{
			"put",
			Put{unknown, 7},
			Style{},
			`{"timestamp":"1748330699","machine_id":"000","method":"client.pickup_codes.put","sign":"…","client_id":"16327138","id":"7","used":"1","status":"0"}`,
		},
		{
			"heartbeat",
			Heartbeat{head, "4G", "-71", 12},
			Style{},
			`{"timestamp":"1748330699","machine_id":"10009","method":"client.heartbeat","sign":"…","client_id":"16327138",` +
				`"network_type":"4G","network_rssi":"-71","uptime_minutes_today":"12","status":"0"}`,
		},
		{
			"last will",
			Offline{head, "a \"b\" \\ <c> & 取\n\x00"},
			Style{Signature: PercentEncoded},
			`{"timestamp":"1748330699","machine_id":"10009","method":"client.offline","sign":"…","client_id":"16327138",` +
				`"reason":"a \"b\" \\ <c> & 取\u000a\u0000","status":"0"}`,
		},
	} {
		t.Run(c.what, func(t *testing.T) {
			c.style.AppKey = "key & secret"
			want := signed(t, c.want, c.style)
			if got := string(c.message.Encode(c.style)); got != want {
				t.Errorf("JSON:\n got %s\nwant %s", got, want)
			}
			c.style.Payload = Base64
			if got := string(c.message.Encode(c.style)); got != base64.StdEncoding.EncodeToString([]byte(want)) {
				t.Errorf("Base64: got %s", got)
			}
		})
	}
}

func TestExpiredDay(t *testing.T) {
	for _, c := range []struct{ zone, instant, want string }{
		{"Asia/Shanghai", "2025-10-23T12:51:37.334Z", "2025-10-23 20:51:37"},
		{"Asia/Kathmandu", "2025-10-23T18:14:59.999Z", "2025-10-23 23:59:59"},
		{"Asia/Kathmandu", "2025-10-23T18:15:00Z", "2025-10-24 00:00:00"},
		// The clock springs from 2 to 3,
		{"America/New_York", "2026-03-08T06:59:59Z", "2026-03-08 01:59:59"},
		{"America/New_York", "2026-03-08T07:00:00Z", "2026-03-08 03:00:00"},
		// and goes back from 2 to 1: that hour is there twice.
		{"America/New_York", "2026-11-01T05:59:59Z", "2026-11-01 01:59:59"},
		{"America/New_York", "2026-11-01T06:00:00Z", "2026-11-01 01:00:00"},
		{"", "2026-11-01T06:00:00Z", "2026-11-01 06:00:00"},
	} {
		m := sample(t)
		m.Zone = nil
		if c.zone != "" {
			m.Zone = zone(t, c.zone)
		}
		var err error
		if m.Expires, err = time.Parse(time.RFC3339Nano, c.instant); err != nil {
			t.Fatal(err)
		}
		for unit, want := range map[Unit]string{Milliseconds: fmt.Sprint(m.Expires.UnixMilli()), Seconds: fmt.Sprint(m.Expires.Unix())} {
			got, err := Decode(m.Encode(Style{AppKey: "k", Expiry: unit}))
			if err != nil {
				t.Fatal(err)
			}
			if day, at := got.Get("expired_day"), got.Get("expired_at"); day != c.want || at != want {
				t.Errorf("%s in %q: %s and %s, want %s and %s", c.instant, c.zone, day, at, c.want, want)
			}
		}
	}
}

// TestThereAndBack: what was encoded in whatever style is decoded to the same.
func TestThereAndBack(t *testing.T) {
	head := Head{At: time.Unix(1748330699, 0).UTC(), MachineNo: "00000001"}
	create := sample(t)
	create.Zone = nil
	whole := create
	whole.Expires = create.Expires.Truncate(time.Second)
	heartbeat := Heartbeat{head, "", "-1 & \xff", 3}
	cleaned := Heartbeat{head, "", "-1 & \uFFFD", 3}
	for _, payload := range []Payload{JSON, Base64} {
		for _, form := range []Signature{Raw, PercentEncoded} {
			for _, unit := range []Unit{Milliseconds, Seconds} {
				style := Style{"key=1&", payload, form, unit}
				read := func(text []byte) Message {
					m, err := Decode(text)
					if err != nil {
						t.Fatal(err)
					}
					if !m.Verify(style.AppKey) || m.Verify("other") {
						t.Errorf("%+v: not verified, or by another key: %s", style, text)
					}
					return m
				}
				want := create
				if unit == Seconds {
					want = whole
				}
				if got, err := read(create.Encode(style)).Create(); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%+v, %v; want %+v", got, err, want)
				}
				if got, err := read(Delete{head, 5}.Encode(style)).Delete(); err != nil || got != (Delete{head, 5}) {
					t.Errorf("%+v, %v", got, err)
				}
				if got, err := read(Put{head, 5}.Encode(style)).Put(); err != nil || got != (Put{head, 5}) {
					t.Errorf("%+v, %v", got, err)
				}
				if got, err := read(heartbeat.Encode(style)).Heartbeat(); err != nil || got != cleaned {
					t.Errorf("%+v, %v", got, err)
				}
				if got, err := read(Offline{head, "取 <>"}.Encode(style)).Offline(); err != nil || got != (Offline{head, "取 <>"}) {
					t.Errorf("%+v, %v", got, err)
				}
			}
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	m := sample(b)
	for name, style := range map[string]Style{
		"plain":  {AppKey: "kva"},
		"base64": {AppKey: "kva", Payload: Base64, Signature: PercentEncoded},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.Encode(style)
			}
		})
	}
}
