package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/device"
	"github.com/scrip-codes/scrip/internal/config"
)

// reportsFor is how long a machine that is switched off in order waits for its
// reports to be acknowledged.
const reportsFor = 5 * time.Second

type machineRun struct {
	MachineNo      string        `required:"" placeholder:"NO" help:"Its machine_no: 8 digits."`
	Broker         string        `default:"mqtt://127.0.0.1:1883" placeholder:"URL" help:"Where the broker is: mqtt://host:port, or mqtts:// for TLS."`
	Password       string        `placeholder:"PASSWORD" env:"SCRIP_MACHINE_PASSWORD" setting:"SCRIP_MACHINE_PASSWORD" help:"Its MQTT password. Better set in the environment: other users of this computer can see flags."`
	AppKey         string        `placeholder:"KEY" env:"SCRIP_MACHINE_APP_KEY" setting:"SCRIP_MACHINE_APP_KEY" help:"App key of its merchant. Better set in the environment too."`
	State          string        `placeholder:"FILE" help:"File that it keeps its codes in. Empty: machine-NO.json in the current directory."`
	Base64         bool          `help:"Send messages as Base64."`
	PercentEncoded bool          `help:"Sign messages with percent-encoded values."`
	Auto           bool          `help:"Use each code by itself, without a customer, until interrupted."`
	AutoAfter      time.Duration `default:"1s" help:"How long --auto waits before it uses a code."`
	JSON           bool          `help:"Print a line of JSON for each event."`
}

// Help is shown with the command's flags.
func (*machineRun) Help() string {
	return "Customers type pickup codes of 8 digits; spaces don't matter. A line with ? shows how the machine does. " +
		"Without a network it vends all the same, and reports later."
}

// Run is a vending machine until its input ends, or an interrupt.
func (c *machineRun) Run(ctx context.Context, p *program) error {
	switch {
	case c.Password == "":
		return &config.Error{
			Setting: "SCRIP_MACHINE_PASSWORD", Problem: "the machine's MQTT password is missing",
			Do: "set it; scrip machine password " + c.MachineNo + " makes a new one",
		}
	case c.AppKey == "":
		return &config.Error{
			Setting: "SCRIP_MACHINE_APP_KEY", Problem: "the merchant's app key is missing",
			Do: "set it; scrip merchant show prints it",
		}
	case c.AutoAfter < 0:
		return fmt.Errorf("--auto-after is %v: use 0s or more", c.AutoAfter)
	}
	cfg := device.Config{
		Broker: c.Broker, MachineNo: c.MachineNo, Password: c.Password, AppKey: c.AppKey,
		State: c.State, Base64: c.Base64, PercentEncoded: c.PercentEncoded,
		Log: slog.New(slog.NewTextHandler(p.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if cfg.State == "" {
		cfg.State = "machine-" + c.MachineNo + ".json"
	}
	s := &screen{w: p.Stdout, json: c.JSON, prompting: !c.JSON && !c.Auto && terminal(p.Stdin) && terminal(p.Stdout)}
	if c.Auto {
		return runVirtual(ctx, cfg, c.AutoAfter, s.show)
	}
	v, err := openVirtual(cfg, s.show)
	if err != nil {
		return err
	}
	return v.serve(ctx, p.Stdin, s)
}

// terminal reports whether a person is at the other end.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// machineEvent is what a virtual machine shows. It never has the digits of a
// code: who stands in front of the machine must know them.
type machineEvent struct {
	Event     string         `json:"event"` // those of package device; vended, refused, failed, status
	MachineNo string         `json:"machine_no"`
	ID        int64          `json:"id,omitempty"`
	ProductID int64          `json:"product_id,omitempty"`
	Quantity  int            `json:"quantity,omitempty"`
	ExpiresAt string         `json:"expires_at,omitempty"`
	Reason    string         `json:"reason,omitempty"` // of refused: digits, used, expired, unknown, paused
	Left      *int           `json:"left,omitempty"`   // of unknown: tries
	Until     string         `json:"until,omitempty"`  // of paused
	Status    *machineStatus `json:"status,omitempty"`
	Text      string         `json:"text"`
}

// machineStatus is how a machine does.
type machineStatus struct {
	Online     bool `json:"online"`
	Codes      int  `json:"codes"`
	Unreported int  `json:"unreported"`
}

// virtual is a vending machine without goods.
type virtual struct {
	*device.Device
	no      string
	show    func(machineEvent)
	changed chan struct{} // told when something has happened

	mu     sync.Mutex
	online bool
}

// runVirtual is a machine that uses each of its codes after a moment, until ctx
// ends. Show is told what happens, and must be safe for concurrent use.
func runVirtual(ctx context.Context, cfg device.Config, after time.Duration, show func(machineEvent)) error {
	v, err := openVirtual(cfg, show)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- v.run(ctx) }()
	var due <-chan time.Time
	for {
		if due == nil && len(v.Codes()) > 0 {
			due = time.After(after)
		}
		select {
		case err := <-ran:
			return err
		case <-due:
			due = nil
			// The code may have been withdrawn or have expired meanwhile.
			if codes := v.Codes(); len(codes) > 0 && !v.enter(ctx, codes[0].Code) {
				after = max(after, time.Second) // whatever is wrong, it takes time to change
			}
		case <-v.changed:
		}
	}
}

func openVirtual(cfg device.Config, show func(machineEvent)) (*virtual, error) {
	v := &virtual{no: cfg.MachineNo, show: show, changed: make(chan struct{}, 1)}
	cfg.Now = now
	cfg.On = v.happened
	cfg.Vend = func(_ context.Context, p device.Pickup) error {
		v.tell("vended", p, fmt.Sprintf("Vending %s …", goods(p)))
		return nil
	}
	var err error
	v.Device, err = device.Open(cfg)
	return v, err
}

// run connects the machine until ctx ends.
func (v *virtual) run(ctx context.Context) error {
	err := v.Run(ctx)
	if errors.Is(err, device.ErrLogin) {
		return fmt.Errorf("%w; scrip machine password %s makes a new one", err, v.no)
	}
	return err
}

// serve serves whoever types, until the input ends, or ctx.
func (v *virtual) serve(ctx context.Context, input io.Reader, s *screen) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- v.run(ctx) }()
	typed := lines(ctx, input)
	for {
		s.ask()
		select {
		case err := <-ran:
			return err
		case line, ok := <-typed:
			s.asked(ok)
			if !ok {
				v.settle(ctx)
				cancel()
				return <-ran
			}
			switch line = strings.TrimSpace(line); line {
			case "":
			case "?":
				v.status()
			default:
				v.enter(ctx, line)
			}
		}
	}
}

// lines is the lines of r, as they come. It is closed when they end.
func lines(ctx context.Context, r io.Reader) <-chan string {
	c := make(chan string)
	go func() {
		defer close(c)
		for s := bufio.NewScanner(r); s.Scan(); {
			select {
			case c <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return c
}

// settle waits for the reports of what was used, for a while. Those that are
// left are reported the next time.
func (v *virtual) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reportsFor)
	defer cancel()
	for v.Unreported() > 0 {
		select {
		case <-v.changed:
		case <-ctx.Done():
			v.status()
			return
		}
	}
}

func (v *virtual) status() {
	s := machineStatus{Codes: len(v.Codes()), Unreported: v.Unreported()}
	v.mu.Lock()
	s.Online = v.online
	v.mu.Unlock()
	connection := "Not connected"
	if s.Online {
		connection = "Connected"
	}
	v.show(machineEvent{
		Event: "status", MachineNo: v.no, Status: &s,
		Text: fmt.Sprintf("%s; pickup codes that can be used: %d; uses to be reported: %d. Type the 8 digits of a code to get your goods.",
			connection, s.Codes, s.Unreported),
	})
}

// happened shows what happened to the machine.
func (v *virtual) happened(e device.Event) {
	text := ""
	switch e.Kind {
	case device.Connected, device.Disconnected:
		v.mu.Lock()
		v.online = e.Kind == device.Connected
		v.mu.Unlock()
		text = "Connected."
		if e.Kind == device.Disconnected {
			text = "Disconnected: codes work all the same, and their use is reported later."
		}
	case device.Added:
		text = fmt.Sprintf("New pickup code %d: %s, until %s.", e.Pickup.ID, goods(e.Pickup), e.Pickup.Expires.Local().Format(time.DateTime+" MST"))
	case device.Withdrawn:
		text = fmt.Sprintf("Pickup code %d was withdrawn.", e.Pickup.ID)
	case device.Reported:
		text = fmt.Sprintf("The use of pickup code %d is reported.", e.Pickup.ID)
	}
	v.tell(string(e.Kind), e.Pickup, text)
	select {
	case v.changed <- struct{}{}:
	default: // whoever waits has not looked yet
	}
}

func goods(p device.Pickup) string { return fmt.Sprintf("%d × product %d", p.Quantity, p.ProductID) }

func (v *virtual) tell(event string, p device.Pickup, text string) {
	e := machineEvent{Event: event, MachineNo: v.no, ID: p.ID, ProductID: p.ProductID, Quantity: p.Quantity, Text: text}
	if !p.Expires.IsZero() {
		e.ExpiresAt = instant(p.Expires)
	}
	v.show(e)
}

// enter enters a code, and reports whether it was good.
func (v *virtual) enter(ctx context.Context, code string) bool {
	_, err := v.Enter(ctx, code)
	if err == nil {
		return true
	}
	e := machineEvent{Event: "refused", MachineNo: v.no, Text: "No: " + err.Error() + "."}
	unknown, isUnknown := errors.AsType[*device.UnknownError](err)
	paused, isPaused := errors.AsType[*device.PausedError](err)
	switch {
	case errors.Is(err, device.ErrDigits):
		e.Reason = "digits"
	case errors.Is(err, device.ErrUsed):
		e.Reason = "used"
	case errors.Is(err, device.ErrExpired):
		e.Reason = "expired"
	case isUnknown:
		e.Reason, e.Left = "unknown", &unknown.Left
		e.Text = fmt.Sprintf("No such code here: check the digits. Tries left: %d.", unknown.Left)
	case isPaused:
		e.Reason, e.Until = "paused", instant(paused.Until)
		e.Text = fmt.Sprintf("Too many wrong codes: try again in %v.", paused.Until.Sub(now()).Round(time.Second))
	default:
		e.Event, e.Text = "failed", "Out of order: "+err.Error()+"."
	}
	v.show(e)
	return false
}

// screen is the front of a machine.
type screen struct {
	w         io.Writer
	json      bool
	prompting bool // a person sits at a terminal

	mu      sync.Mutex
	waiting bool // for that person
}

const prompt = "Pickup code: "

func (s *screen) ask() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = s.prompting
	s.print("")
}

// asked is called with the answer, or without one if the input has ended.
func (s *screen) asked(answered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = false
	if s.prompting && !answered {
		s.print("\n")
	}
}

// show shows an event, above the prompt if there is one.
func (s *screen) show(e machineEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.json {
		_ = printJSON(s.w, e) // a machine goes on without a screen
		return
	}
	s.print(e.Text + "\n")
}

func (s *screen) print(text string) {
	if s.waiting {
		text = "\r\x1b[K" + text + prompt // in the prompt's place
	}
	_, _ = io.WriteString(s.w, text) // as above
}
