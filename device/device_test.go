package device

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/scrip-codes/scrip/internal/wire"
)

// TestPickup is a code's way through a machine, in all forms of messages.
func TestPickup(t *testing.T) {
	for _, base64 := range []bool{false, true} {
		for _, percent := range []bool{false, true} {
			t.Run(fmt.Sprintf("base64=%t,percent=%t", base64, percent), func(t *testing.T) {
				down := style()
				if base64 {
					down.Payload = wire.Base64
				}
				if percent {
					down.Signature = wire.PercentEncoded
				}
				c := &clock{now: noon()}
				b := startBroker(t, "")
				cfg := setting(t, b.address, c)
				cfg.Base64, cfg.PercentEncoded = base64, percent
				m := open(t, cfg, c)
				m.run(t)

				if topic := next(t, b.subscribed, "subscription"); topic != "/clients/"+machineNo {
					t.Errorf("it listens at %s", topic)
				}
				m.event(t, Connected)
				hello := b.uplink(t, wire.MethodHeartbeat)
				if !hello.Verify(appKey) || hello.MachineNo() != machineNo || hello.Get("machine_id") != "000" || hello.Get("uptime_minutes_today") != "0" {
					t.Errorf("%v", hello)
				}

				want := pickup(7, "00112233")
				b.give(t, create(want).Encode(down))
				if e := m.event(t, Added); e.Pickup != want {
					t.Errorf("%+v, want %+v", e.Pickup, want)
				}
				if codes := m.Codes(); !slices.Equal(codes, []Pickup{want}) {
					t.Errorf("it holds %+v", codes)
				}

				if p, err := m.Enter(t.Context(), " 0011 2233 "); err != nil || p != want {
					t.Fatalf("%+v, %v", p, err)
				}
				put := b.uplink(t, wire.MethodPut)
				if read, err := put.Put(); err != nil || read.ID != 7 || !put.Verify(appKey) || put.Get("machine_id") != "10009" {
					t.Errorf("%v, %v", put, err)
				}
				m.event(t, Reported)

				b.give(t, create(want).Encode(down)) // again: the server does not know of the use
				m.event(t, Reported)
				if p, err := m.Enter(t.Context(), "00112233"); !errors.Is(err, ErrUsed) {
					t.Errorf("entered again: %+v, %v", p, err)
				}
				if m.vends() != 1 || len(m.Codes()) != 0 || m.Unreported() != 0 {
					t.Errorf("%d vends, codes %v, %d to report", m.vends(), m.Codes(), m.Unreported())
				}
			})
		}
	}
}

func TestDropsWhatIsNotToBeBelieved(t *testing.T) {
	c := &clock{now: noon()}
	b := startBroker(t, "")
	m := open(t, setting(t, b.address, c), c)
	m.run(t)
	m.event(t, Connected)

	foreign := create(pickup(1, "00000001"))
	foreign.MachineNo = "16327139"
	late := pickup(3, "00000003")
	late.Expires = noon()
	wrong := string(create(pickup(4, "00000004")).Encode(style()))
	for what, payload := range map[string][]byte{
		"for another machine":        foreign.Encode(style()),
		"signed with another key":    create(pickup(2, "00000002")).Encode(wire.Style{AppKey: "kvb"}),
		"signed with no key":         create(pickup(2, "00000002")).Encode(wire.Style{}),
		"expired":                    create(late).Encode(style()),
		"changed on its way":         []byte(strings.Replace(wrong, `"quantity":"2"`, `"quantity":"3"`, 1)),
		"no message":                 []byte("hello"),
		"nothing":                    nil,
		"a use, which is the server": wire.Put{Head: create(late).Head, ID: 1}.Encode(style()),
		"with an impossible code":    create(pickup(5, "0000000x")).Encode(style()),
	} {
		b.give(t, payload)
		if codes := m.Codes(); len(codes) != 0 {
			t.Errorf("%s: it holds %v", what, codes)
		}
	}

	b.give(t, create(pickup(9, "00000009")).Encode(style()))
	forged := withdrawal(9)
	b.give(t, forged.Encode(wire.Style{AppKey: "kvb"}))
	forged.MachineNo = "16327139"
	b.give(t, forged.Encode(style()))
	if codes := m.Codes(); len(codes) != 1 || codes[0].ID != 9 {
		t.Errorf("it holds %v", codes)
	}
}

// TestCrashWhileVending: the power fails while the goods move. The machine that
// comes up does not vend again, and reports the use.
func TestCrashWhileVending(t *testing.T) {
	c := &clock{now: noon()}
	b := startBroker(t, "")
	cfg := setting(t, b.address, c)
	crashed := make(chan *machine, 1)
	first := cfg
	first.Vend = func(context.Context, Pickup) error {
		crashed <- open(t, cfg, c)
		return nil
	}
	m := open(t, first, c)
	stop := m.run(t)
	m.event(t, Connected)
	b.give(t, create(pickup(7, "00112233")).Encode(style()))
	stop()
	b.settled(t)
	if _, err := m.Enter(t.Context(), "00112233"); err != nil {
		t.Fatal(err)
	}

	again := next(t, crashed, "crash")
	if again.Unreported() != 1 || len(again.Codes()) != 0 {
		t.Errorf("after the crash: %d to report, codes %v", again.Unreported(), again.Codes())
	}
	if _, err := again.Enter(t.Context(), "00112233"); !errors.Is(err, ErrUsed) {
		t.Errorf("after the crash: %v", err)
	}
	again.run(t)
	if put := b.uplink(t, wire.MethodPut); put.Get("id") != "7" || put.Get("machine_id") != "10009" {
		t.Errorf("it reports %v", put)
	}
	b.give(t, create(pickup(7, "00112233")).Encode(style()))
	if len(again.Codes()) != 0 || again.vends() != 0 {
		t.Errorf("it holds %v and has vended %d times", again.Codes(), again.vends())
	}
}

// TestVendFails: the goods may be gone or not; the code is.
func TestVendFails(t *testing.T) {
	c := &clock{now: noon()}
	b := startBroker(t, "")
	cfg := setting(t, b.address, c)
	jam := errors.New("a coil is jammed")
	cfg.Vend = func(context.Context, Pickup) error { return jam }
	m := open(t, cfg, c)
	m.run(t)
	m.event(t, Connected)
	b.give(t, create(pickup(7, "00112233")).Encode(style()))
	if _, err := m.Enter(t.Context(), "00112233"); !errors.Is(err, jam) {
		t.Error(err)
	}
	b.uplink(t, wire.MethodPut)
	if _, err := m.Enter(t.Context(), "00112233"); !errors.Is(err, ErrUsed) {
		t.Error(err)
	}
}

// TestOffline: without a network a machine vends, across restarts, and reports
// all once it is back.
func TestOffline(t *testing.T) {
	c := &clock{now: noon()}
	b := startBroker(t, "")
	cfg := setting(t, b.address, c)
	m := open(t, cfg, c)
	stop := m.run(t)
	m.event(t, Connected)
	for id := range int64(3) {
		b.give(t, create(pickup(id+1, fmt.Sprintf("0000000%d", id))).Encode(style()))
	}
	b.stop()
	m.event(t, Disconnected)
	if _, err := m.Enter(t.Context(), "00000001"); err != nil {
		t.Error(err)
	}
	stop()
	m = open(t, cfg, c)
	if _, err := m.Enter(t.Context(), "00000000"); err != nil { // nothing runs at all
		t.Error(err)
	}
	m = open(t, cfg, c)
	m.run(t)
	if _, err := m.Enter(t.Context(), "00000002"); err != nil {
		t.Error(err)
	}
	if n := m.Unreported(); n != 3 {
		t.Errorf("%d to report", n)
	}

	b = startBroker(t, b.address)
	var ids []string
	for range 3 {
		ids = append(ids, b.uplink(t, wire.MethodPut).Get("id"))
	}
	slices.Sort(ids)
	if !slices.Equal(ids, []string{"1", "2", "3"}) {
		t.Errorf("it reports %v", ids)
	}
}

// TestReportsUntilAcknowledged: a broker that refuses, has no listener, or goes
// away in between has not got the report.
func TestReportsUntilAcknowledged(t *testing.T) {
	c := &clock{now: noon()}
	b := startBroker(t, "")
	cfg := setting(t, b.address, c)
	m := open(t, cfg, c)
	stop := m.run(t)
	m.event(t, Connected)
	b.give(t, create(pickup(7, "00112233")).Encode(style()))

	tries := make(chan int, 100)
	n := 0
	b.refusing(func(cl *mqtt.Client, method string) error {
		if method != wire.MethodPut {
			return nil
		}
		n++
		tries <- n
		switch n {
		case 1:
			return packets.ErrQuotaExceeded
		case 2:
			return packets.CodeNoMatchingSubscribers
		case 3:
			cl.Stop(errors.New("cut"))
			return packets.ErrRejectPacket
		}
		return nil
	})
	if _, err := m.Enter(t.Context(), "00112233"); err != nil {
		t.Fatal(err)
	}
	for want := 1; want <= 4; want++ {
		if got := next(t, tries, "attempt"); got != want {
			t.Errorf("attempt %d, want %d", got, want)
		}
	}
	m.event(t, Reported)
	stop()
	b.settled(t)

	m = open(t, cfg, c) // the file knows that it was reported
	if m.Unreported() != 0 {
		t.Error("it would report again")
	}
	m.run(t)
	m.event(t, Connected)
	b.uplink(t, wire.MethodHeartbeat)
	if _, err := m.Enter(t.Context(), "00112233"); !errors.Is(err, ErrUsed) || n != 4 {
		t.Errorf("%v, after %d reports", err, n)
	}
}

// TestReportsAgain: a server that speaks of a code which was used does not know
// that it was.
func TestReportsAgain(t *testing.T) {
	c := &clock{now: noon()}
	b := startBroker(t, "")
	m := open(t, setting(t, b.address, c), c)
	m.run(t)
	m.event(t, Connected)
	used := pickup(7, "00112233")
	told := [][]byte{
		create(used).Encode(style()),
		create(used).Encode(style()), // the server has been heard of again
		withdrawal(7).Encode(style()),
	}
	for i, payload := range told {
		b.give(t, payload)
		if i == 0 {
			m.event(t, Added)
			if _, err := m.Enter(t.Context(), "00112233"); err != nil {
				t.Fatal(err)
			}
		}
		if put, err := b.uplink(t, wire.MethodPut).Put(); err != nil || put.ID != 7 {
			t.Errorf("message %d: %+v, %v", i, put, err)
		}
		m.event(t, Reported)
		if _, err := m.Enter(t.Context(), "00112233"); !errors.Is(err, ErrUsed) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	b.give(t, create(pickup(7, "33221100")).Encode(style())) // of a server that was set up anew
	m.event(t, Added)
	if m.vends() != 1 || len(b.uplinks) != 0 || m.Unreported() != 0 {
		t.Errorf("%d vended, %d more uplinks, %d to be reported", m.vends(), len(b.uplinks), m.Unreported())
	}
}

func TestWithdrawal(t *testing.T) {
	c := &clock{now: noon()}
	b := startBroker(t, "")
	cfg := setting(t, b.address, c)
	m := open(t, cfg, c)
	stop := m.run(t)
	m.event(t, Connected)
	one, two := pickup(1, "00000001"), pickup(2, "00000002")
	b.give(t, create(one).Encode(style()))
	b.give(t, create(two).Encode(style()))
	b.give(t, withdrawal(1).Encode(style()))
	if e := m.event(t, Withdrawn); e.Pickup != one {
		t.Errorf("%+v", e)
	}
	b.give(t, withdrawal(1).Encode(style()))   // again
	b.give(t, create(one).Encode(style()))     // and the create that comes late
	b.give(t, withdrawal(404).Encode(style())) // one that it does not know
	stop()
	b.settled(t)

	m = open(t, cfg, c)
	m.run(t)
	m.event(t, Connected)
	if codes := m.Codes(); !slices.Equal(codes, []Pickup{two}) {
		t.Errorf("it holds %v", codes)
	}
	if _, err := m.Enter(t.Context(), one.Code); !isUnknown(err) {
		t.Errorf("a withdrawn code: %v", err)
	}
	if _, err := m.Enter(t.Context(), two.Code); err != nil {
		t.Error(err)
	}
	b.give(t, withdrawal(2).Encode(style())) // too late
	if _, err := m.Enter(t.Context(), two.Code); !errors.Is(err, ErrUsed) {
		t.Errorf("a code that was withdrawn after its use: %v", err)
	}
	b.uplink(t, wire.MethodPut)
}

func isUnknown(err error) bool { _, ok := errors.AsType[*UnknownError](err); return ok }
func isPaused(err error) bool  { _, ok := errors.AsType[*PausedError](err); return ok }

func TestExpiry(t *testing.T) {
	c := &clock{now: noon()}
	b := startBroker(t, "")
	cfg := setting(t, b.address, c)
	m := open(t, cfg, c)
	stop := m.run(t)
	m.event(t, Connected)
	b.give(t, create(pickup(1, "00000001")).Encode(style()))
	b.give(t, create(pickup(2, "00000002")).Encode(style()))
	stop()
	b.settled(t)
	if _, err := m.Enter(t.Context(), "00000002"); err != nil {
		t.Fatal(err)
	}

	c.move(2*time.Hour - 1)
	if len(m.Codes()) != 1 {
		t.Error("it has forgotten a code too early")
	}
	c.move(1)
	if codes := m.Codes(); len(codes) != 0 {
		t.Errorf("it holds %v", codes)
	}
	if _, err := m.Enter(t.Context(), "00000001"); !errors.Is(err, ErrExpired) {
		t.Errorf("an expired code: %v", err)
	}
	if _, err := m.Enter(t.Context(), "99999999"); !isUnknown(err) { // and the file says what time it is
		t.Error(err)
	}
	c.move(-time.Hour) // the clock does not bring a code back
	m = open(t, cfg, c)
	if codes := m.Codes(); len(codes) != 0 {
		t.Errorf("it holds %v", codes)
	}

	c.move(25 * time.Hour)
	if _, err := m.Enter(t.Context(), "00000001"); !isUnknown(err) {
		t.Errorf("a code of yesterday: %v", err)
	}
	text, err := os.ReadFile(cfg.State)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "00000001") || !strings.Contains(string(text), "00000002") {
		t.Errorf("not only what is still to be reported is kept: %s", text)
	}
	m.run(t)
	b.uplink(t, wire.MethodPut)
	m.event(t, Reported)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.change(func(*memory) bool { return true }); err != nil || len(m.memory.Codes) != 0 {
		t.Errorf("%v; it keeps %v", err, m.memory.Codes)
	}
}

func TestGuessing(t *testing.T) {
	c := &clock{now: noon()}
	cfg := setting(t, "127.0.0.1:1", c)
	m := open(t, cfg, c)
	for id := range int64(2) {
		if err := m.receive(t.Context(), create(pickup(id+1, fmt.Sprintf("0000000%d", id+1))).Encode(style())); err != nil {
			t.Fatal(err)
		}
	}
	guess := func(left int) {
		t.Helper()
		m = open(t, cfg, c) // after a loss of power
		_, err := m.Enter(t.Context(), "99999999")
		if unknown, ok := errors.AsType[*UnknownError](err); !ok || unknown.Left != left {
			t.Errorf("%v, want %d left", err, left)
		}
	}
	paused := func(until time.Time) {
		t.Helper()
		m = open(t, cfg, c)
		for _, code := range []string{"99999999", "00000001"} {
			_, err := m.Enter(t.Context(), code)
			if pause, ok := errors.AsType[*PausedError](err); !ok || !pause.Until.Equal(until) {
				t.Errorf("%s: %v, want a pause until %v", code, err, until)
			}
		}
	}

	guess(4)
	guess(3)
	for _, typed := range []string{"", "1234567", "123456789", "1234567x", "１２３４５６７８"} { // not a guess
		if _, err := m.Enter(t.Context(), typed); !errors.Is(err, ErrDigits) {
			t.Errorf("%q: %v", typed, err)
		}
	}
	if _, err := m.Enter(t.Context(), "00000002"); err != nil { // a right one starts anew
		t.Fatal(err)
	}
	if _, err := m.Enter(t.Context(), "00000002"); !errors.Is(err, ErrUsed) { // not a guess
		t.Error(err)
	}
	for left := Tries - 1; left > 0; left-- {
		guess(left)
	}
	if _, err := m.Enter(t.Context(), "99999999"); !isPaused(err) {
		t.Errorf("the fifth: %v", err)
	}
	paused(noon().Add(Pause))
	c.move(Pause - 1)
	paused(noon().Add(Pause))
	c.move(-time.Hour) // it begins again by the new time
	paused(c.read().Add(Pause))
	c.move(Pause)
	guess(4)
	c.move(-time.Hour) // and does not come back once it is over
	guess(3)
	if _, err := m.Enter(t.Context(), "00000001"); err != nil {
		t.Error(err)
	}
}

// TestFileCannotBeWritten: what the file does not hold is not acknowledged, not
// vended and not counted as known.
func TestFileCannotBeWritten(t *testing.T) {
	c := &clock{now: noon()}
	b := startBroker(t, "")
	cfg := setting(t, b.address, c)
	cfg.State = filepath.Join(t.TempDir(), "disk", "machine.json")
	mount := func() {
		t.Helper()
		if err := os.Mkdir(filepath.Dir(cfg.State), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mount()
	m := open(t, cfg, c)
	stop := m.run(t)
	m.event(t, Connected)
	b.give(t, create(pickup(1, "00000001")).Encode(style()))

	if err := os.RemoveAll(filepath.Dir(cfg.State)); err != nil {
		t.Fatal(err)
	}
	b.send(t, create(pickup(2, "00000002")).Encode(style()))
	m.event(t, Disconnected)
	m.event(t, Connected)
	if len(b.acks) != 0 {
		t.Error("a message is acknowledged that the file does not hold")
	}
	if _, err := m.Enter(t.Context(), "00000001"); err == nil || errors.Is(err, ErrUsed) {
		t.Errorf("%v", err)
	}
	if m.vends() != 0 || len(m.Codes()) != 1 {
		t.Errorf("%d vends, codes %v", m.vends(), m.Codes())
	}

	mount()
	b.give(t, create(pickup(2, "00000002")).Encode(style()))
	for _, code := range []string{"00000001", "00000002"} {
		if _, err := m.Enter(t.Context(), code); err != nil {
			t.Error(err)
		}
	}
	stop()
	info, err := os.Stat(cfg.State)
	if err != nil {
		t.Fatal(err)
	}
	if others := info.Mode().Perm() & 0o077; others != 0 {
		t.Errorf("others may do %o with the file", others)
	}
	if err := os.WriteFile(cfg.State+"-1.tmp", nil, 0o600); err != nil { // a loss of power
		t.Fatal(err)
	}
	open(t, cfg, c)
	if left, err := filepath.Glob(cfg.State + "-*"); err != nil || len(left) != 0 {
		t.Errorf("%v, %v is left", err, left)
	}
}

// TestOneProcess: of two processes with one file, one vends.
func TestOneProcess(t *testing.T) {
	c := &clock{now: noon()}
	cfg := setting(t, "127.0.0.1:1", c)
	one := open(t, cfg, c)
	if err := one.receive(t.Context(), create(pickup(1, "00000001")).Encode(style())); err != nil {
		t.Fatal(err)
	}
	two := open(t, cfg, c)
	if _, err := two.Enter(t.Context(), "00000001"); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Enter(t.Context(), "00000001"); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("%v", err)
	}
	if one.vends() != 0 || two.vends() != 1 {
		t.Errorf("%d and %d vends", one.vends(), two.vends())
	}
}

func TestLoginRefused(t *testing.T) {
	c := &clock{now: noon()}
	b := startBroker(t, "")
	cfg := setting(t, b.address, c)
	cfg.Password = "guess"
	m := open(t, cfg, c)
	if err := m.Run(t.Context()); !errors.Is(err, ErrLogin) {
		t.Errorf("%v", err)
	}
}

// TestTLS: a machine talks to a broker whose certificate it trusts, and to no
// other.
func TestTLS(t *testing.T) {
	authority := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(authority.Close)
	roots := x509.NewCertPool()
	roots.AddCert(authority.Certificate())

	c := &clock{now: noon()}
	b := startBrokerOn(t, listeners.Config{
		ID: "tls", Address: "127.0.0.1:0",
		TLSConfig: &tls.Config{Certificates: authority.TLS.Certificates, MinVersion: tls.VersionTLS12},
	})
	cfg := setting(t, b.address, c)
	cfg.Broker = "mqtts://" + b.address
	failures := make(chan string, 100)
	cfg.Log = slog.New(slog.NewTextHandler(told(failures), nil))
	stranger := open(t, cfg, c)
	stop := stranger.run(t)
	if line := next(t, failures, "failure"); !strings.Contains(line, "certificate") {
		t.Errorf("without the authority: %s", line)
	}
	stop()

	cfg.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	m := open(t, cfg, c)
	m.run(t)
	m.event(t, Connected)
	b.give(t, create(pickup(1, "00000001")).Encode(style()))
	if _, err := m.Enter(t.Context(), "00000001"); err != nil {
		t.Error(err)
	}
	b.uplink(t, wire.MethodPut)
}

// told is a log that is read line by line.
type told chan<- string

func (c told) Write(line []byte) (int, error) {
	c <- string(line)
	return len(line), nil
}

// TestWill: the broker says that the machine is gone, whether it lost power or
// was switched off.
func TestWill(t *testing.T) {
	c := &clock{now: noon()}
	b := startBroker(t, "")
	m := open(t, setting(t, b.address, c), c)
	stop := m.run(t)
	m.event(t, Connected)
	for _, end := range []func(){func() { b.cut(t); m.event(t, Connected) }, stop} {
		end()
		will := next(t, b.wills, "will")
		if offline, err := will.Offline(); err != nil || !will.Verify(appKey) || offline.MachineNo != machineNo || offline.Reason == "" {
			t.Errorf("%+v, %v", offline, err)
		}
	}
}

func TestHeartbeat(t *testing.T) {
	c := &clock{now: noon()}
	b := startBroker(t, "")
	cfg := setting(t, b.address, c)
	cfg.Heartbeat = 10 * time.Millisecond
	m := open(t, cfg, c)
	m.run(t)
	for range 3 {
		b.uplink(t, wire.MethodHeartbeat)
	}
}

func TestUptimeToday(t *testing.T) {
	zone, err := time.LoadLocation("Asia/Kathmandu")
	if err != nil {
		t.Fatal(err)
	}
	midnight := time.Date(2026, 11, 25, 0, 0, 0, 0, zone)
	for _, c := range []struct {
		started, now time.Time
		want         int
	}{
		{midnight.Add(-time.Hour), midnight.Add(90 * time.Second), 1},
		{midnight.Add(time.Hour), midnight.Add(2 * time.Hour), 60},
		{midnight.Add(time.Hour), midnight.Add(30 * time.Minute), 0}, // the clock was set back
		{midnight, midnight.Add(-time.Minute), 0},
	} {
		if got := uptimeToday(c.started, c.now); got != c.want {
			t.Errorf("from %v to %v: %d, want %d", c.started, c.now, got, c.want)
		}
	}
}

func TestConfig(t *testing.T) {
	c := &clock{now: noon()}
	for what, spoil := range map[string]func(*Config){
		"no broker":         func(c *Config) { c.Broker = "" },
		"a host alone":      func(c *Config) { c.Broker = "localhost:1883" },
		"HTTP":              func(c *Config) { c.Broker = "http://localhost:1883" },
		"a short number":    func(c *Config) { c.MachineNo = "1" },
		"no password":       func(c *Config) { c.Password = "" },
		"no app key":        func(c *Config) { c.AppKey = "" },
		"no file":           func(c *Config) { c.State = "" },
		"nothing to vend":   func(c *Config) { c.Vend = nil },
		"no clock":          func(c *Config) { c.Now = nil },
		"a negative rhythm": func(c *Config) { c.Heartbeat = -1 },
	} {
		cfg := setting(t, "127.0.0.1:1", c)
		cfg.Vend = func(context.Context, Pickup) error { return nil }
		if _, err := Open(cfg); err != nil {
			t.Fatal(err)
		}
		spoil(&cfg)
		if _, err := Open(cfg); err == nil {
			t.Errorf("%s: it opens", what)
		}
	}
}
