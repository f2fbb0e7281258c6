package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/device"
	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/config"
	"github.com/scrip-codes/scrip/internal/enginetest"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
)

const (
	testMachine = "16327138"
	// longest bounds every wait for something that must happen.
	longest = 60 * time.Second
)

// shop is a server with one machine, for one test.
type shop struct {
	*running
	program   *program
	appKey    string
	password  string
	productID int64
}

// newShop starts a shop; env comes before its own settings.
func newShop(t *testing.T, env ...string) *shop {
	t.Helper()
	s := &shop{program: &program{Process: Process{Stdout: io.Discard, Stderr: io.Discard}}, password: fleet.NewPassword()}
	dir := t.TempDir()
	c, err := config.Load(config.Flags{}, slices.Concat([]string{
		"SCRIP_DATA_DIR=" + dir, "SCRIP_HTTP_ADDR=127.0.0.1:0", "SCRIP_MQTT_ADDR=127.0.0.1:0",
	}, enginetest.New(t, dir).Settings(), env))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ready, stopped := make(chan *running, 1), make(chan error, 1)
	go func() { stopped <- s.program.serve(ctx, &c, func(r *running) { ready <- r }) }()
	select {
	case s.running = <-ready:
	case err := <-stopped:
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})

	operator := account.Operator()
	merchant, err := s.machines.fleet.CreateMerchant(t.Context(), operator, fleet.Merchant{Name: "Acme"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.appKey = merchant.AppKey
	_, err = s.machines.fleet.CreateMachine(t.Context(), operator, fleet.Machine{
		MerchantID: merchant.ID, No: testMachine, Name: "Lobby", Zone: "Asia/Shanghai", PurchaseLimit: 3, PickupCodes: true,
	}, s.password, nil)
	if err != nil {
		t.Fatal(err)
	}
	product, err := s.machines.fleet.CreateProduct(t.Context(), operator, testMachine, fleet.Product{Name: "Tea", Slot: "A1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.productID = product.ID
	return s
}

func (s *shop) issue(t *testing.T) pickup.Code {
	t.Helper()
	c, err := s.machines.pickups.Create(t.Context(), account.Operator(), pickup.Request{
		MachineNo: testMachine, ProductID: s.productID, Quantity: 2, AllowMore: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// command is scrip machine run, for that shop's machine.
func (s *shop) command(t *testing.T) *machineRun {
	t.Helper()
	return &machineRun{
		MachineNo: testMachine, Broker: s.MQTT, Password: s.password, AppKey: s.appKey,
		State: filepath.Join(t.TempDir(), "machine.json"), JSON: true,
	}
}

// screenOf is what a machine shows: its events, and all of its text.
type screenOf struct {
	io.Writer
	events <-chan machineEvent

	mu   sync.Mutex
	text bytes.Buffer
}

func newScreenOf(t *testing.T) *screenOf {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	events := make(chan machineEvent, 1000)
	s := &screenOf{Writer: w, events: events}
	go func() {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			s.mu.Lock()
			s.text.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			var e machineEvent
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				e.Event = lines.Text() // it is for people
			}
			events <- e
		}
	}()
	return s
}

// event waits for an event of that name.
func (s *screenOf) event(t *testing.T, name string) machineEvent {
	t.Helper()
	for deadline := time.After(longest); ; {
		select {
		case e := <-s.events:
			if strings.HasPrefix(e.Event, name) {
				return e
			}
		case <-deadline:
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Fatalf("no %s in\n%s", name, &s.text)
		}
	}
}

func ended(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(longest):
		t.Fatal("it does not end")
		return nil
	}
}

// TestMachineRun is a customer in front of a machine.
func TestMachineRun(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	input, keys := io.Pipe()
	screen := newScreenOf(t)
	done := make(chan error, 1)
	go func() {
		done <- s.command(t).Run(t.Context(), &program{Process: Process{Stdin: input, Stdout: screen, Stderr: io.Discard}})
	}()
	enter := func(text string) {
		t.Helper()
		if _, err := io.WriteString(keys, text+"\n"); err != nil {
			t.Fatal(err)
		}
	}

	screen.event(t, "connected")
	code := s.issue(t)
	if e := screen.event(t, "added"); e.ID != code.ID || e.ProductID != s.productID || e.Quantity != 2 || e.MachineNo != testMachine || e.ExpiresAt != instant(code.Expires) {
		t.Errorf("%+v, want %+v", e, code)
	}
	enter("?")
	if e := screen.event(t, "status"); *e.Status != (machineStatus{Online: true, Codes: 1}) {
		t.Errorf("%+v", e.Status)
	}
	enter("123")
	if e := screen.event(t, "refused"); e.Reason != "digits" {
		t.Errorf("%+v", e)
	}
	digits := code.Digits
	wrong := "00000000"
	if digits == wrong {
		wrong = "00000001"
	}
	enter(wrong)
	if e := screen.event(t, "refused"); e.Reason != "unknown" || *e.Left != 4 {
		t.Errorf("%+v", e)
	}
	enter(" " + digits[:4] + " " + digits[4:])
	if e := screen.event(t, "vended"); e.ID != code.ID || e.Quantity != 2 {
		t.Errorf("%+v", e)
	}
	screen.event(t, "reported")
	if used, err := s.machines.pickups.Get(t.Context(), account.Operator(), code.ID); err != nil || used.State(now()) != pickup.StateUsed {
		t.Errorf("%+v, %v", used, err)
	}
	enter("") // nothing happens
	enter(digits)
	if e := screen.event(t, "refused"); e.Reason != "used" {
		t.Errorf("%+v", e)
	}
	for range device.Tries {
		enter(wrong)
		screen.event(t, "refused")
	}
	enter(wrong)
	if e := screen.event(t, "refused"); e.Reason != "paused" || e.Until == "" {
		t.Errorf("%+v", e)
	}

	if err := keys.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, done); err != nil {
		t.Error(err)
	}
	screen.mu.Lock()
	defer screen.mu.Unlock()
	if strings.Contains(screen.text.String(), digits) {
		t.Errorf("it shows the code: %s", &screen.text)
	}
}

// TestMachineRunAuto: a machine without customers, for people to look at.
func TestMachineRunAuto(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	screen := newScreenOf(t)
	c := s.command(t)
	c.Auto, c.AutoAfter, c.JSON, c.Base64, c.PercentEncoded = true, time.Millisecond, false, true, true
	ctx, interrupt := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.Run(ctx, &program{Process: Process{Stdin: strings.NewReader(""), Stdout: screen, Stderr: io.Discard}})
	}()
	for range 3 {
		code := s.issue(t)
		screen.event(t, fmt.Sprintf("New pickup code %d: 2 × product %d, until ", code.ID, s.productID))
		screen.event(t, fmt.Sprintf("Vending 2 × product %d …", s.productID))
		screen.event(t, fmt.Sprintf("The use of pickup code %d is reported.", code.ID))
	}
	interrupt()
	if err := ended(t, done); err != nil {
		t.Error(err)
	}
}

// TestMachineRunRefused: what cannot work ends with what to do about it.
func TestMachineRunRefused(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for what, c := range map[string]struct {
		spoil func(*machineRun)
		say   string
	}{
		"a wrong password":    {func(m *machineRun) { m.Password = "guess" }, "scrip machine password " + testMachine},
		"no password":         {func(m *machineRun) { m.Password = "" }, "SCRIP_MACHINE_PASSWORD"},
		"no app key":          {func(m *machineRun) { m.AppKey = "" }, "SCRIP_MACHINE_APP_KEY"},
		"no machine":          {func(m *machineRun) { m.MachineNo = "../1" }, "8 digits"},
		"no broker":           {func(m *machineRun) { m.Broker = "127.0.0.1" }, "mqtt://host:port"},
		"a negative moment":   {func(m *machineRun) { m.AutoAfter = -1 }, "--auto-after"},
		"another file":        {func(m *machineRun) { m.State = os.Args[0] }, "not a machine's file"},
		"a wrong one, --auto": {func(m *machineRun) { m.Password, m.Auto = "guess", true }, "scrip machine password " + testMachine},
	} {
		m := s.command(t)
		c.spoil(m)
		input, keys := io.Pipe()
		err := m.Run(t.Context(), &program{Process: Process{Stdin: input, Stdout: io.Discard, Stderr: io.Discard}})
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, want %q in it", what, err, c.say)
		}
		if err := errors.Join(keys.Close(), input.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestScreen: what happens while somebody types stands above the prompt.
func TestScreen(t *testing.T) {
	t.Parallel()
	var w bytes.Buffer
	s := screen{w: &w, prompting: true}
	event := machineEvent{Text: "Connected."}
	s.ask()
	s.show(event)
	s.asked(true)
	s.show(event)
	s.ask()
	s.asked(false)
	const again = "\r\x1b[K"
	if want := again + prompt + again + "Connected.\n" + prompt + "Connected.\n" + again + prompt + "\n"; w.String() != want {
		t.Errorf("got %q, want %q", w.String(), want)
	}
}
