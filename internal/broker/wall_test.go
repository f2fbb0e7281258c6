package broker_test

import (
	"strings"
	"testing"

	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
)

// TestWall has a machine try what is not its own. Whatever that is, the
// connection lives, and the other machine notices nothing.
func TestWall(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			victim := w.machine("16327138", "Asia/Shanghai")
			thief := w.machine("16327139", "Asia/Shanghai")
			theirs := w.connect(v, victim, login{})
			p := w.connect(v, thief, login{})

			filters := []string{
				"#", "+", "/#", "/+/+", "/clients/#", "/clients/+", "/clients/16327138", "/clients/16327139/#", "clients/16327139",
				"$share/g//clients/16327138", "$share/g//clients/16327139", "$share/g/#", "$SYS/#", serverTopic, "/CLIENTS/16327139",
			}
			for _, f := range filters {
				if got := p.subscribe(f, 1); got < 0x80 {
					t.Errorf("subscribing to %s was granted: %#x", f, got)
				}
			}
			w.wantMetric(float64(len(filters)), "scrip_mqtt_subscriptions_refused_total")

			topics := []string{topicOf(victim), topicOf(thief), "/server/app/", "/server", "server/app", "$share/g//server/app", "$SYS/x", "$share"}
			refused := 0
			for _, topic := range topics {
				for qos := range byte(3) {
					reason, err := p.publish(message{topic: topic, qos: qos, payload: w.offline(victim), retained: true})
					want := v.pick(0, 0x87) // not authorized
					if qos == 0 {
						want = 0
					}
					if err != nil || reason != want {
						t.Errorf("publishing to %s with QoS %d: %#x, %v", topic, qos, reason, err)
					}
					refused++
				}
			}
			w.eventually("all refusals to be counted", func() bool {
				return w.metric("scrip_mqtt_publishes_refused_total") == float64(refused)
			})

			p.alive(thief)
			theirs.alive(victim)
			code := w.code(victim)
			if got := theirs.receive(); !strings.Contains(string(got.payload), code.Digits) {
				t.Errorf("the victim was sent %s first", got.payload)
			}
			own := w.code(thief)
			if got := p.receive(); !strings.Contains(string(got.payload), own.Digits) {
				t.Errorf("the thief was sent %s first", got.payload)
			}
		})
	}
}

// TestWills has machines leave wills behind that they should not, and one that
// they should.
func TestWills(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			m := w.machine("16327138", "Asia/Shanghai")
			other := w.machine("16327139", "Asia/Shanghai")
			theirs := w.connect(v, other, login{})
			code := w.code(other)
			theirs.receive()
			forged := []byte(strings.Replace(string(w.offline(m)), "power", "Power", 1))
			for _, test := range []struct {
				name   string
				will   message
				metric string
				label  []string
			}{
				{"on another's topic", message{topic: topicOf(other), payload: w.offline(other)}, "scrip_mqtt_publishes_refused_total", nil},
				{"on its own topic", message{topic: topicOf(m), payload: w.offline(m)}, "scrip_mqtt_publishes_refused_total", nil},
				{"about another", message{payload: w.offline(other)}, "scrip_mqtt_uplinks_dropped_total", []string{"foreign"}},
				{"in another's name", message{payload: w.put(other, code.ID)}, "scrip_mqtt_uplinks_dropped_total", []string{"foreign"}},
				{"forged", message{payload: forged}, "scrip_mqtt_uplinks_dropped_total", []string{"forged"}},
				{"malformed", message{payload: []byte("bye")}, "scrip_mqtt_uplinks_dropped_total", []string{"malformed"}},
				{"proper", message{payload: w.offline(m)}, "scrip_mqtt_uplinks_total", []string{"client.offline"}},
			} {
				t.Run(test.name, func(t *testing.T) {
					before := w.metric(test.metric, test.label...)
					if test.will.topic == "" {
						test.will.topic = serverTopic
					}
					test.will.qos, test.will.retained = 1, true
					p := w.connect(v, m, login{will: &test.will})
					w.wantPresence(m, fleet.Connected)
					p.vanish()
					w.eventually("the will to be counted", func() bool { return w.metric(test.metric, test.label...) == before+1 })
					w.wantPresence(m, fleet.Offline)
				})
			}
			t.Run("not when it says goodbye", func(t *testing.T) {
				before := w.metric("scrip_mqtt_uplinks_total", "client.offline")
				p := w.connect(v, m, login{will: &message{topic: serverTopic, payload: w.offline(m), qos: 1}})
				p.leave()
				w.wantPresence(m, fleet.Offline)
				w.wantMetric(before, "scrip_mqtt_uplinks_total", "client.offline")
			})
			w.wantPresence(other, fleet.Connected)
			if got := w.get(code.ID); got.State(w.clock.Now()) != pickup.StateLive {
				t.Errorf("the other's code is %s", got.Marked)
			}
			next := w.code(other)
			if got := theirs.receive(); !strings.Contains(string(got.payload), next.Digits) {
				t.Errorf("the other was sent %s first", got.payload)
			}
		})
	}
}

// TestClientIDs has machines choose client ids that are not theirs.
func TestClientIDs(t *testing.T) {
	for name, v := range versions() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			m := w.machine("16327138", "Asia/Shanghai")
			thief := w.machine("16327139", "Asia/Shanghai")
			theirs := w.connect(v, m, login{clientID: "firmware"})
			for _, id := range []string{"firmware", "16327138", "16327138#1", "16327138#2"} {
				p := w.dial(v, thief, login{clientID: id})
				p.alive(thief)
			}
			theirs.alive(m)
			code := w.code(m)
			if got := theirs.receive(); !strings.Contains(string(got.payload), code.Digits) {
				t.Errorf("the machine was sent %s first", got.payload)
			}
			// Nor when the connection is over: there is no session to be taken.
			theirs.vanish()
			w.wantPresence(m, fleet.Offline)
			w.code(m)
			p := w.dial(v, thief, login{clientID: "firmware"})
			own := w.code(thief)
			p.subscribe(topicOf(thief), 1)
			if got := p.receive(); !strings.Contains(string(got.payload), own.Digits) {
				t.Errorf("the thief was sent %s first", got.payload)
			}
		})
	}
}

// TestTakeOver has a machine connect again before its first connection is over.
func TestTakeOver(t *testing.T) {
	for _, ids := range [][2]string{{"", ""}, {"same", "same"}, {"one", "another"}} {
		t.Run(ids[0]+" "+ids[1], func(t *testing.T) {
			for name, v := range versions() {
				t.Run(name, func(t *testing.T) {
					w := newWorld(t, options{})
					m := w.machine("16327138", "Asia/Shanghai")
					will := &message{topic: serverTopic, payload: w.offline(m), qos: 1}
					first := w.connect(v, m, login{clientID: ids[0], will: will})
					second := w.connect(v, m, login{clientID: ids[1], will: will})
					if got := first.ended(); got != v.pick(0, 0x8e) { // session taken over
						t.Errorf("the first connection ended with %#x", got)
					}
					second.alive(m)
					if got := w.presence(m); got != fleet.Connected {
						t.Errorf("its presence is %d", got)
					}
					w.wantMetric(0, "scrip_mqtt_uplinks_total", "client.offline")
					w.wantMetric(1, "scrip_mqtt_connections")
					code := w.code(m)
					if got := second.receive(); !strings.Contains(string(got.payload), code.Digits) {
						t.Errorf("it was sent %s first", got.payload)
					}
				})
			}
		})
	}
}
