package broker_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/wire"
)

// TestPut reports uses: in both forms, twice, out of order, late and replayed.
func TestPut(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			m := w.machine("16327138", "Asia/Shanghai")
			p := w.connect(v, m, login{})
			var codes [6]pickup.Code
			for i := range codes {
				codes[i] = w.code(m)
			}
			wantUsed := func(c pickup.Code, late bool) {
				t.Helper()
				got := w.get(c.ID)
				if got.Marked != pickup.StateUsed || got.LateUse != late {
					t.Errorf("the code is %s, late %v", got.Marked, got.LateUse)
				}
			}
			styles := []wire.Style{
				{AppKey: appKey},
				{AppKey: appKey, Payload: wire.Base64},
				{AppKey: appKey, Signature: wire.PercentEncoded},
				{AppKey: appKey, Payload: wire.Base64, Signature: wire.PercentEncoded},
			}
			for i := range styles { // the last code first
				put := wire.Put{Head: w.head(m), ID: codes[3-i].ID}.Encode(styles[i])
				p.send(put)
				wantUsed(codes[3-i], false)
				p.send(put)
			}
			used := w.get(codes[0].ID)

			w.check(w.pickups.Withdraw(w.ctx, w.root, codes[4].ID))
			p.send(w.put(m, codes[4].ID))
			wantUsed(codes[4], true)
			w.clock.Add(3 * time.Hour)
			p.send(wire.Put{Head: wire.Head{At: w.clock.Now().Add(-2 * time.Hour), MachineNo: m.No}, ID: codes[5].ID}.Encode(styles[0]))
			wantUsed(codes[5], true)

			// A replay of an old report, over a new connection.
			p.vanish()
			p = w.connect(v, m, login{})
			p.send(w.put(m, codes[0].ID))
			if got := w.get(codes[0].ID); got != used {
				t.Errorf("a replay made %+v of %+v", got, used)
			}
			w.wantMetric(11, "scrip_mqtt_uplinks_total", "client.pickup_codes.put")
		})
	}
}

// TestDropped sends what must have no effect.
func TestDropped(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			m := w.machine("16327138", "Asia/Shanghai")
			other := w.machine("16327139", "Asia/Shanghai")
			p := w.connect(v, m, login{})
			code, theirs := w.code(m), w.code(other)
			p.receive()
			p.send(w.offline(m)) // that a dropped message is no sign of life
			put := string(w.put(m, code.ID))
			twist := func(from, to string) []byte {
				t.Helper()
				if !strings.Contains(put, from) {
					t.Fatalf("%s is not in %s", from, put)
				}
				return []byte(strings.Replace(put, from, to, 1))
			}
			sign := `"sign":"`
			id := strconv.FormatInt(code.ID, 10)
			for _, test := range []struct {
				name, reason string
				payload      []byte
			}{
				{"another app key", "forged", wire.Put{Head: w.head(m), ID: code.ID}.Encode(wire.Style{AppKey: "another"})},
				{"no app key", "forged", wire.Put{Head: w.head(m), ID: code.ID}.Encode(wire.Style{})},
				{"a wrong signature", "forged", twist(sign, sign+"0")},
				{"a changed member", "forged", twist(`"status":"0"`, `"status":"1"`)},
				{"an added member", "forged", twist("{", `{"a":"b",`)},
				{"in another's name", "foreign", w.put(other, code.ID)},
				{"another's code in its name", "foreign", w.put(other, theirs.ID)},
				{"in nobody's name", "foreign", wire.Put{ID: code.ID}.Encode(w.style())},
				{"nothing", "malformed", nil},
				{"text", "malformed", []byte("used")},
				{"a number", "malformed", twist(`"id":"`+id+`"`, `"id":`+id)},
				{"a name twice", "malformed", twist("{", `{"id":"1",`)},
				{"two objects", "malformed", []byte(put + put)},
				{"not UTF-8", "malformed", twist(`"status":"0"`, "\"status\":\"\xff\"")},
				{"no id", "malformed", w.put(m, 0)},
				{"oversized", "oversized", bytes.Repeat([]byte("A"), wire.MaxMessage+1)},
				{"very much so", "oversized", bytes.Repeat([]byte("A"), 60<<10)},
				{"larger than a packet may be", "oversized", bytes.Repeat([]byte("A"), 200<<10)},
			} {
				t.Run(test.name, func(t *testing.T) {
					before := w.metric("scrip_mqtt_uplinks_dropped_total", test.reason)
					var want byte
					if test.reason == "forged" || test.reason == "foreign" { // which may be mended, and sent again
						want = v.pick(0, 0x87)
					}
					if reason, err := p.publish(message{topic: serverTopic, qos: 1, payload: test.payload}); reason != want || err != nil && want == 0 {
						t.Errorf("publishing: %#x, %v", reason, err)
					}
					w.wantMetric(before+1, "scrip_mqtt_uplinks_dropped_total", test.reason)
				})
			}
			if got := w.presence(m); got != fleet.Offline {
				t.Errorf("its presence is %d", got)
			}
			// These are the machine's word; there is just no such code.
			p.send(w.put(m, theirs.ID))
			p.send(w.put(m, 1<<40))
			w.wantMetric(2, "scrip_mqtt_uplinks_dropped_total", "unknown_code")
			for _, c := range []pickup.Code{code, theirs} {
				if got := w.get(c.ID); got.Marked != pickup.StateLive {
					t.Errorf("the code is %s", got.Marked)
				}
			}
			w.wantMetric(0, "scrip_mqtt_uplinks_total", "client.pickup_codes.put")

			text := w.logs.text()
			if !strings.Contains(text, "16327138") || !strings.Contains(text, "reason=forged") {
				t.Errorf("the log does not tell of it:\n%s", text)
			}
			if n := strings.Count(text, "dropped a message"); n > 3 {
				t.Errorf("it is logged %d times:\n%s", n, text)
			}
			for _, secret := range []string{appKey, m.password, code.Digits, "pickup_codes", "AAAA"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s is in the log:\n%s", secret, text)
				}
			}
		})
	}
}

// TestPresence follows whether a machine is online.
func TestPresence(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			m := w.machine("16327138", "Asia/Shanghai")
			want := func(p fleet.Presence) {
				t.Helper()
				if got := w.presence(m); got != p {
					t.Errorf("its presence is %d, not %d", got, p)
				}
			}
			want(fleet.Offline)
			p := w.dial(v, m, login{})
			w.wantPresence(m, fleet.Connected)
			w.clock.Add(time.Hour) // it is connected, however silent
			want(fleet.Connected)
			p.send(w.offline(m))
			want(fleet.Offline)
			p.send(w.heartbeat(m))
			want(fleet.Connected)
			p.send(w.offline(m))
			other := wire.Style{AppKey: appKey}
			forged := strings.Replace(string(wire.Put{Head: w.head(m), ID: 1}.Encode(other)), `"used":"1"`, `"used":"0"`, 1)
			if reason, _ := p.publish(message{topic: serverTopic, qos: 1, payload: []byte(forged)}); reason != v.pick(0, 0x87) {
				t.Errorf("publishing: %#x", reason)
			}
			want(fleet.Offline)
			p.send(w.put(m, w.code(m).ID))
			want(fleet.Connected)
			p.vanish()
			w.wantPresence(m, fleet.Offline)
			p = w.dial(v, m, login{})
			w.wantPresence(m, fleet.Connected)
			p.leave()
			w.wantPresence(m, fleet.Offline)
		})
	}
}

// TestOtherMethods sends what other parts of a machine say.
func TestOtherMethods(t *testing.T) {
	w := newWorld(t, options{})
	m := w.machine("16327138", "Asia/Shanghai")
	p := w.connect(version5{}, m, login{})
	members := map[string]string{"method": "client.temperature", "client_id": m.No, "value": "4"}
	p.send([]byte(`{"method":"client.temperature","client_id":"` + m.No + `","value":"4","sign":"` + wire.Sign(members, appKey, wire.Raw) + `"}`))
	w.wantMetric(1, "scrip_mqtt_uplinks_total", "other")
}

// TestDatabaseFails has the database fail while a use is reported: the machine
// must not take that for reported.
func TestDatabaseFails(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			m := w.machine("16327138", "Asia/Shanghai")
			p := w.connect(v, m, login{})
			code := w.code(m)
			p.receive()
			w.check(w.db.Close())
			p.send(w.heartbeat(m)) // which is not worth to be sent again
			w.wantMetric(1, "scrip_mqtt_uplinks_dropped_total", "unavailable")
			failed := make(chan error, 1)
			go func() {
				_, err := p.publish(message{topic: serverTopic, qos: 1, payload: w.put(m, code.ID)})
				failed <- err
			}()
			if got := p.ended(); got != v.pick(0, 0x89) { // server busy
				t.Errorf("the connection ended with %#x", got)
			}
			if <-failed == nil {
				t.Error("the report was acknowledged")
			}
			w.wantMetric(0, "scrip_mqtt_uplinks_total", "client.pickup_codes.put")
			if _, reason := v.dial(w, login{no: m.No, password: m.password}); reason != v.pick(3, 0x88) { // server unavailable
				t.Errorf("connecting again: %#x", reason)
			}
		})
	}
}

// FuzzUplink gives the broker any bytes: they have no effect unless they are
// signed, and then only the one that they say.
func FuzzUplink(f *testing.F) {
	w := newWorld(f, options{})
	m := w.machine("16327138", "Asia/Shanghai")
	w.connect(version5{}, m, login{})
	code := w.code(m)
	put := w.put(m, code.ID)
	f.Add([]byte(strings.Replace(string(put), `"sign":"`, `"sign":"0`, 1)))
	f.Add(wire.Put{Head: w.head(m), ID: code.ID}.Encode(wire.Style{AppKey: "another", Payload: wire.Base64}))
	f.Add(w.heartbeat(m))
	f.Add(w.offline(w.probe))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		signed := false
		if d, err := wire.Decode(payload); err == nil && d.MachineNo() == m.No {
			signed = d.Verify(appKey)
		}
		if err := w.broker.Uplink(m.ID, payload); err != nil && signed {
			t.Fatal(err)
		}
		if c, err := w.pickups.Get(t.Context(), w.root, code.ID); err != nil || !signed && c.Marked != pickup.StateLive {
			t.Fatalf("the code is %s, %v", c.Marked, err)
		}
	})
}
