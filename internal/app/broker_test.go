package app

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/rig"
)

// TestBrokerElsewhere is a customer in front of a machine that is at another
// broker, as Scrip is.
func TestBrokerElsewhere(t *testing.T) {
	t.Parallel()
	m, err := rig.StartMosquitto(t.Context(), rig.MosquittoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := newShop(t, "SCRIP_MQTT_ADDR=", "SCRIP_MQTT_URL="+strings.Replace(m.URL(), "//", "//scrip:hunter2@", 1))
	if s.MQTT != m.URL() {
		t.Errorf("MQTT is said to be at %s, want %s", s.MQTT, m.URL())
	}
	input, keys := io.Pipe()
	screen := newScreenOf(t)
	done := make(chan error, 1)
	go func() {
		done <- s.command(t).Run(t.Context(), &program{Process: Process{Stdin: input, Stdout: screen, Stderr: io.Discard}})
	}()
	screen.event(t, "connected")
	code := s.issue(t)
	if e := screen.event(t, "added"); e.ID != code.ID {
		t.Errorf("%+v", e)
	}
	if _, err := io.WriteString(keys, code.Digits+"\n"); err != nil {
		t.Fatal(err)
	}
	screen.event(t, "vended")
	s.wantDelivery(t, code, pickup.Received)
	if err := keys.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, done); err != nil {
		t.Error(err)
	}
}

// wantDelivery waits until that is said of a code.
func (s *shop) wantDelivery(t *testing.T, c pickup.Code, want pickup.Delivery) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(longest); ; {
		got, err := s.machines.pickups.Get(t.Context(), account.Operator(), c.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.Delivery == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("delivery is %s, want %s", got.Delivery, want)
		}
	}
}

// TestNoBroker: without one, what machines are to be told waits.
func TestNoBroker(t *testing.T) {
	t.Parallel()
	s := newShop(t, "SCRIP_MQTT_ADDR=off")
	if s.MQTT != "" {
		t.Errorf("MQTT is said to be at %s", s.MQTT)
	}
	code := s.issue(t)
	s.wantDelivery(t, code, pickup.Queued)
	waiting, err := s.machines.store.Waiting(t.Context(), code.MachineID, 0, 10)
	if err != nil || len(waiting) != 1 || waiting[0].CodeID != code.ID {
		t.Errorf("there waits %+v, %v", waiting, err)
	}
}
