package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
)

// ask asks as a broker does.
func (w *world) ask(t *testing.T, path, body string) reply {
	t.Helper()
	return w.do(t, request{
		method: "POST", path: path, body: body, broken: !strings.HasPrefix(body, "{"),
		header: http.Header{"Authorization": {"Bearer " + w.config.MQTT.Token}, "Content-Type": {"application/json"}},
	})
}

func (w *world) wantVerdict(t *testing.T, path string, q question, want string, superuser bool) {
	t.Helper()
	body, err := json.Marshal(q) //nolint:gosec // G117: a broker sends it so
	if err != nil {
		t.Fatal(err)
	}
	if path == "/mqtt/acl" && q.Action != "publish" && q.Action != "subscribe" {
		body = []byte(" " + string(body)) // not what the document describes
	}
	r := w.ask(t, path, string(body))
	var got verdict
	if err := json.Unmarshal([]byte(r.text), &got); err != nil || r.status != http.StatusOK {
		t.Fatalf("%+v: status %d, %q", q, r.status, r.text)
	}
	if got != (verdict{want, superuser}) || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("%+v: got %+v, %s, want %s", q, got, r.header, want)
	}
}

// newMachine makes a machine and returns its password.
func (w *world) newMachine(t *testing.T, no string) (m fleet.Machine, password string) {
	t.Helper()
	by := account.Operator()
	owner, err := w.config.Fleet.CreateMerchant(t.Context(), by, fleet.Merchant{Name: "Corner"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	password = w.secret(fleet.NewPassword())
	m, err = w.config.Fleet.CreateMachine(t.Context(), by, fleet.Machine{
		MerchantID: owner.ID, No: no, Name: "Lobby", Zone: "UTC", PurchaseLimit: 1, PickupCodes: true,
	}, password, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m, password
}

// TestBrokerAsksWhoMayLogIn: machines with their password, and Scrip itself.
func TestBrokerAsksWhoMayLogIn(t *testing.T) {
	w := newWorld(t, options{})
	const no = "16327138"
	_, password := w.newMachine(t, no)
	_, foreign := w.newMachine(t, "16327139")
	own := w.config.MQTT.Password
	for _, tt := range []struct {
		client, user, password string
		want                   string
		superuser              bool
	}{
		{no, no, password, "allow", false},
		{no, no, foreign, "deny", false},
		{no, no, "", "deny", false},
		{no, no, w.root.token, "deny", false},
		{"16327139", no, password, "deny", false}, // it would end the other's session
		{"", no, password, "deny", false},
		{"16327140", "16327140", password, "deny", false},
		{"scripABC", "scrip", own, "allow", true},
		{"scripABC", "scrip", own + "x", "deny", false},
		{"scrip", "scrip", "", "deny", false},
		{"scripABC", "Scrip", own, "deny", false},
		{no, no, own, "deny", false},
		{"", "", "", "deny", false},
		{"root", "root", w.root.token, "deny", false},
		{strings.Repeat("1", 5000), strings.Repeat("1", 5000), "x", "deny", false},
	} {
		w.wantVerdict(t, "/mqtt/auth", question{
			ClientID: tt.client, Username: tt.user, Password: tt.password, Peerhost: "192.0.2.7",
		}, tt.want, tt.superuser)
	}
	if w.subscribed.Load() != 0 {
		t.Error("a login counts as a subscription")
	}
}

// TestBrokerAsksWhatTheyMayDo: the walls between machines.
func TestBrokerAsksWhatTheyMayDo(t *testing.T) {
	w := newWorld(t, options{})
	const no = "16327138"
	m, _ := w.newMachine(t, no)
	w.newMachine(t, "16327139")
	for _, tt := range []struct{ client, user, topic, action, want string }{
		{no, no, "/server/app", "publish", "allow"},
		{no, no, "/clients/" + no, "publish", "deny"},
		{no, no, "/clients/16327139", "publish", "deny"},
		{no, no, "/server/app/x", "publish", "deny"},
		{no, no, "server/app", "publish", "deny"},
		{no, no, "$SYS/brokers/a/clients/b/connected", "publish", "deny"},
		{no, no, "/server/app", "subscribe", "deny"},
		{no, no, "$share/scrip//server/app", "subscribe", "deny"},
		{no, no, "$share/x//clients/" + no, "subscribe", "deny"},
		{no, no, "/clients/16327139", "subscribe", "deny"},
		{no, no, "/clients/+", "subscribe", "deny"},
		{no, no, "/clients/#", "subscribe", "deny"},
		{no, no, "#", "subscribe", "deny"},
		{no, no, "$SYS/#", "subscribe", "deny"},
		{no, no, "/clients/" + no, "", "deny"},
		{"16327139", no, "/clients/" + no, "subscribe", "deny"},
		{"16327139", no, "/server/app", "publish", "deny"},
		{"16327140", "16327140", "/clients/16327140", "subscribe", "deny"}, // there is none
		{"+", "+", "/clients/+", "subscribe", "deny"},
		{"", "", "/clients/", "subscribe", "deny"},
		{"scrip", "scrip", "/server/app", "subscribe", "deny"}, // EMQX does not ask about who may do everything
	} {
		w.wantVerdict(t, "/mqtt/acl", question{ClientID: tt.client, Username: tt.user, Topic: tt.topic, Action: tt.action}, tt.want, false)
	}
	if got := w.subscribed.Load(); got != 0 {
		t.Errorf("machine %d is said to subscribe", got)
	}
	w.wantVerdict(t, "/mqtt/acl", question{ClientID: no, Username: no, Topic: "/clients/" + no, Action: "subscribe"}, "allow", false)
	if got := w.subscribed.Load(); got != m.ID {
		t.Errorf("machine %d is said to subscribe, want %d", got, m.ID)
	}
}

// TestBrokerGuesses: guesses at a machine's password are limited, through a broker
// too.
func TestBrokerGuesses(t *testing.T) {
	w := newWorld(t, options{logins: 3})
	const no = "16327138"
	_, password := w.newMachine(t, no)
	try := func(password, peer, want string) {
		t.Helper()
		w.wantVerdict(t, "/mqtt/auth", question{ClientID: no, Username: no, Password: password, Peerhost: peer}, want, false)
	}
	for range 3 {
		try("guess", "192.0.2.7", "deny")
	}
	try(password, "192.0.2.7", "deny")
	try(password, "192.0.2.8", "allow")
	w.clock.advance(11 * time.Minute)
	try(password, "192.0.2.7", "allow")
}

// TestBrokerMustShowItsToken: nobody else is answered, and nothing that is sent is
// an error of ours.
func TestBrokerMustShowItsToken(t *testing.T) {
	w := newWorld(t, options{})
	mute := newWorld(t, options{mute: true})
	const body = `{"clientid":"1","username":"1","password":"1","topic":"/server/app","action":"publish"}`
	for _, path := range []string{"/mqtt/auth", "/mqtt/acl"} {
		for _, token := range []string{"", "Bearer ", "Bearer wrong", "Bearer " + w.root.token, "Bearer " + w.config.MQTT.Token + "x"} {
			r := request{method: "POST", path: path, body: body, header: http.Header{"Authorization": {token}, "Content-Type": {"application/json"}}}
			if got := w.do(t, r); got.status != http.StatusUnauthorized || strings.Contains(got.text, w.config.MQTT.Token) {
				t.Errorf("%s with %q: %d %s", path, token, got.status, got.text)
			}
			if got := mute.do(t, r); got.status != http.StatusNotFound {
				t.Errorf("%s with %q, and none set: %d %s", path, token, got.status, got.text)
			}
		}
		for _, nonsense := range []string{"", "x", "[]", "null", `"x"`, `[{"username":1}]`, " " + strings.Repeat(`{"username":`, 4000), "\xff"} {
			got := w.ask(t, path, nonsense)
			if got.status != http.StatusOK || !strings.Contains(got.text, `"deny"`) {
				t.Errorf("%s %.20q: %d %s", path, nonsense, got.status, got.text)
			}
		}
	}
}

// TestBrokerIsToldOfFailure: what cannot be looked up is no denial.
func TestBrokerIsToldOfFailure(t *testing.T) {
	w := newWorld(t, options{})
	w.newMachine(t, "16327138")
	broken := func() error { return errors.New("the disk is gone") }
	w.store.fail("Login", broken, nil)
	w.store.fail("Speaker", broken, nil)
	for path, body := range map[string]string{
		"/mqtt/auth": `{"clientid":"16327138","username":"16327138","password":"x"}`,
		"/mqtt/acl":  `{"clientid":"16327138","username":"16327138","topic":"/clients/16327138","action":"subscribe"}`,
	} {
		if got := w.ask(t, path, body); got.status != http.StatusServiceUnavailable || strings.Contains(got.text, "disk") {
			t.Errorf("%s: %d %s", path, got.status, got.text)
		}
	}
	if !strings.Contains(w.logs.text(), "the disk is gone") {
		t.Error("the log does not say why")
	}
}
