package broker_test

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/rig"
	"github.com/scrip-codes/scrip/internal/wire"
)

// settings are the lines of a configuration that set something, without where files
// are, and on which addresses it listens.
func settings(text string) (lines []string) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || strings.HasPrefix(fields[0], "#"):
		case strings.HasSuffix(fields[0], "_file") || fields[0] == "persistence_location":
		case fields[0] == "listener":
			lines = append(lines, "listener "+fields[1])
		default:
			lines = append(lines, strings.Join(fields, " "))
		}
	}
	return lines
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path) //nolint:gosec // G304: files of this repository
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMosquittoConfigurations: docs/brokers.md and deploy/compose set the same, but
// for what a container needs.
func TestMosquittoConfigurations(t *testing.T) {
	docs := read(t, "../../docs/brokers.md")
	block := func(after string) string {
		_, text, _ := strings.Cut(docs, after)
		_, text, _ = strings.Cut(text, "```\n")
		text, _, _ = strings.Cut(text, "```\n")
		return text
	}
	for file, want := range map[string][]string{
		"mosquitto.conf": append(settings(block("`/etc/mosquitto/mosquitto.conf`")), "max_packet_size 65536", "log_dest stdout"),
		"mosquitto.acl":  append(settings(block("`/etc/mosquitto/acl`")), "topic read $SYS/broker/uptime"),
	} {
		got := settings(read(t, "../../deploy/compose/"+file))
		slices.Sort(got)
		slices.Sort(want)
		if len(got) < 5 || !slices.Equal(got, want) {
			t.Errorf("%s has\n%s\nwant\n%s", file, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// deployed starts Mosquitto with the configuration in deploy/compose, and other
// ports. It returns where Scrip finds it, and where machines do.
func deployed(t *testing.T, users map[string]string) (scrip, machines string) {
	t.Helper()
	ports := map[string]string{"listener 1883": strconv.Itoa(freePort(t)), "listener 1884": strconv.Itoa(freePort(t))}
	var lines []string
	for _, line := range settings(read(t, "../../deploy/compose/mosquitto.conf")) {
		if port, ok := ports[line]; ok {
			line = "listener " + port + " 127.0.0.1"
		}
		switch line {
		case "allow_anonymous false", "log_dest stdout", "persistence true": // the rig's own, which keeps nothing on disk
		default:
			lines = append(lines, line)
		}
	}
	mosquitto(t, rig.MosquittoOptions{
		Users: users, ACL: read(t, "../../deploy/compose/mosquitto.acl"), Config: strings.Join(lines, "\n"),
	})
	return "127.0.0.1:" + ports["listener 1884"], "127.0.0.1:" + ports["listener 1883"]
}

// TestMosquittoWalls: with the configuration in deploy/compose a machine needs its
// password, and is kept from what is not its own. Machines have a listener of
// their own there, on which a client id is the username, whatever they say.
func TestMosquittoWalls(t *testing.T) {
	t.Parallel()
	const scripPassword, ownPassword, otherPassword = "scrip's p@ssword", "own", "other"
	scrip, machines := deployed(t, map[string]string{"scrip": scripPassword, "16327138": ownPassword, "16327139": otherPassword})
	r := outside(t, "mqtt://scrip:scrip%27s%20p%40ssword@"+scrip)
	r.inboxed()
	r.address = machines
	if log := r.logs.text(); strings.Contains(log, "ssword") || !strings.Contains(log, "shared=true") {
		t.Errorf("the log: %s", log)
	}
	own, other := r.machine("16327138", "Asia/Shanghai"), r.machine("16327139", "Asia/Shanghai")
	own.password, other.password = ownPassword, otherPassword
	p, q := r.connect(version3{}, own, login{clientID: "anything"}), r.connect(version3{}, other, login{})

	wrong := *own
	wrong.password = otherPassword
	if _, reason := (version3{}).dial(r.world, login{no: wrong.No, password: wrong.password}); reason == 0 {
		t.Error("a machine comes in with another one's password")
	}
	if _, reason := (version3{}).dial(r.world, login{}); reason == 0 {
		t.Error("somebody comes in without a name")
	}
	// Nobody ends another one's session with its client id.
	intruder, reason := version3{}.dial(r.world, login{no: other.No, password: other.password, clientID: own.No})
	if reason != 0 {
		t.Fatalf("connecting: %#x", reason)
	}
	q.ended() // it is the other's second connection
	q = intruder
	if got := q.subscribe(topicOf(other), 1); got != 1 {
		t.Fatalf("subscribing: %#x", got)
	}
	p.alive(own)

	for _, filter := range []string{
		topicOf(own), "/clients/+", "/clients/#", "#", "/server/app", "$share/scrip//server/app", "$share/x/" + topicOf(own), "$SYS/#",
	} {
		q.subscribe(filter, 1) // Mosquitto lets it, and what it hears is what counts
	}
	// It is acknowledged, and goes nowhere.
	forged := wire.Create{
		Head: r.head(own), ID: 99, ProductID: 1, Code: "12345678", Quantity: 3,
		Expires: r.clock.Now().Add(time.Hour), Zone: time.UTC,
	}.Encode(r.style())
	for _, topic := range []string{topicOf(own), "/clients/x", "/server/apps", "$SYS/brokers/x/clients/y/connected"} {
		if _, err := q.publish(message{topic: topic, qos: 1, payload: forged}); err != nil {
			t.Errorf("publishing to %s: %v", topic, err)
		}
	}
	for range 5 { // nor does anything get lost on its way to Scrip
		c := r.code(own)
		p.wantAbout(wire.MethodCreate, c)
		p.send(r.put(own, c.ID))
		r.wantDelivery(c, pickup.Received)
	}
	mark := r.code(other)
	q.wantAbout(wire.MethodCreate, mark) // and nothing before it, of all that it has asked for
	if got := r.metric("scrip_mqtt_uplinks_dropped_total", "malformed") + r.metric("scrip_mqtt_uplinks_dropped_total", "foreign"); got != 0 {
		t.Errorf("%v messages came where they do not belong", got)
	}
}

// TestExternalWrongPassword: a broker that does not let Scrip in is said to, and
// the password is not.
func TestExternalWrongPassword(t *testing.T) {
	t.Parallel()
	m := mosquitto(t, rig.MosquittoOptions{Users: map[string]string{"scrip": "right"}})
	w := newDatabase(t)
	r := w.disconnected(strings.Replace(m.URL(), "mqtt://", "mqtt://scrip:wrong-wrong@", 1), nil)
	r.eventually("a complaint", func() bool {
		return strings.Contains(r.logs.text(), "bad user name or password") ||
			strings.Contains(r.logs.text(), "not authorized")
	})
	if strings.Contains(r.logs.text(), "wrong-wrong") {
		t.Errorf("the log: %s", r.logs.text())
	}
}
