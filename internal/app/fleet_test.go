package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// TestCommandsEndConnections: what the command line does to a machine reaches
// its connection through the server that runs beside.
func TestCommandsEndConnections(t *testing.T) {
	t.Parallel()
	env := settings(t)
	s := start(t, env)
	address := s.mqttURL(t)
	connect := func(password string) (lost chan struct{}, err error) {
		lost = make(chan struct{})
		c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(address).SetClientID("any").
			SetUsername("16327138").SetPassword(password).SetAutoReconnect(false).SetConnectTimeout(patience).
			SetConnectionLostHandler(func(mqtt.Client, error) { close(lost) }))
		t.Cleanup(func() { c.Disconnect(0) })
		token := c.Connect()
		token.Wait()
		return lost, token.Error()
	}
	ends := func(lost <-chan struct{}, after string) {
		t.Helper()
		select {
		case <-lost:
		case <-time.After(patience):
			t.Fatalf("still connected after %s\n%s", after, s.stderr)
		}
	}

	scrip(t, env, "merchant", "create", "Acme")
	first := member(t, scrip(t, env, "machine", "create", "16327138",
		"--merchant", "1", "--name", "Lobby", "--timezone", "UTC", "--json"), "mqtt_password")
	lost, err := connect(first)
	if err != nil {
		t.Fatal(err)
	}
	second := member(t, scrip(t, env, "machine", "password", "16327138", "--json"), "mqtt_password")
	ends(lost, "a new password")
	if _, err := connect(first); err == nil {
		t.Error("the old password works")
	}
	if lost, err = connect(second); err != nil {
		t.Fatal(err)
	}
	scrip(t, env, "machine", "delete", "16327138")
	ends(lost, "the machine was deleted")
	if _, err := connect(second); err == nil {
		t.Error("the password of a deleted machine works")
	}
}

// TestWebSocket: a machine reaches the server over WebSocket too, on the port of
// HTTP, until the server stops. A server without MQTT says so.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	env := settings(t)
	s := start(t, env)
	scrip(t, env, "merchant", "create", "Acme")
	password := member(t, scrip(t, env, "machine", "create", "16327138",
		"--merchant", "1", "--name", "Lobby", "--timezone", "UTC", "--json"), "mqtt_password")
	lost := make(chan struct{})
	connect := func(password string) mqtt.Client {
		c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("ws" + strings.TrimPrefix(s.url, "http") + "/mqtt").
			SetUsername("16327138").SetPassword(password).SetAutoReconnect(false).SetConnectTimeout(patience).
			SetConnectionLostHandler(func(mqtt.Client, error) { close(lost) }))
		t.Cleanup(func() { c.Disconnect(0) })
		c.Connect().Wait()
		return c
	}
	if connect("wrong").IsConnected() {
		t.Error("a wrong password works")
	}
	c := connect(password)
	token := c.Subscribe("/clients/16327138", 1, nil)
	if token.Wait(); token.Error() != nil || !c.IsConnected() {
		t.Fatalf("subscribing: %v\n%s", token.Error(), s.stderr)
	}
	s.stop(t)
	select {
	case <-lost:
	case <-time.After(patience):
		t.Error("still connected to a server that has stopped")
	}

	s = start(t, append(settings(t), "SCRIP_MQTT_ADDR=off"))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/mqtt", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusNotFound || !strings.Contains(string(body), "SCRIP_MQTT_ADDR") {
		t.Errorf("without MQTT: %d %s, %v", answer.StatusCode, body, err)
	}
}

// TestListsHoldEverything: a list that is longer than what is asked for at once
// is whole and in order.
func TestListsHoldEverything(t *testing.T) {
	t.Parallel()
	env := settings(t, "SCRIP_ROOT_TOKEN="+rootToken)
	s := start(t, env)
	const rows = 1001
	var want strings.Builder
	for i := range rows {
		s.postV1(t, http.StatusCreated, "/merchants", fmt.Sprintf(`{"name":"merchant %d"}`, i+1), "")
		_, _ = fmt.Fprintln(&want, rows-i)
	}
	var got strings.Builder
	for line := range strings.Lines(scrip(t, env, "merchant", "list", "--json")) {
		var m struct {
			ID int64 `json:"id"`
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		_, _ = fmt.Fprintln(&got, m.ID)
	}
	if got.String() != want.String() {
		t.Errorf("got the ids\n%swant %d down to 1", got.String(), rows)
	}
}
