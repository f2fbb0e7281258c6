package app_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/device"
)

// pickupCode is a pickup code as /api/v1 has it.
type pickupCode struct {
	ID       int64  `json:"id"`
	Code     string `json:"code"`
	State    string `json:"state"`
	Delivery string `json:"delivery"`
	LateUse  bool   `json:"late_use"`
}

// vending is a machine: the reference machine.
type vending struct {
	testing.TB
	dir, no, password, appKey string
	device                    *device.Device
	vended                    []int64
	off                       func() // switches it off
}

// mqttURL is where a server serves MQTT.
func (s *server) mqttURL(tb testing.TB) string {
	tb.Helper()
	m := regexp.MustCompile(`msg=ready .*mqtt=(\S+)`).FindStringSubmatch(s.stderr.String())
	if m == nil {
		tb.Fatalf("no address for MQTT in\n%s", s.stderr)
	}
	return m[1]
}

// on switches the machine on, with that broker.
func (v *vending) on(broker string) {
	v.Helper()
	var err error
	v.device, err = device.Open(device.Config{
		Broker: broker, MachineNo: v.no, Password: v.password, AppKey: v.appKey,
		State: filepath.Join(v.dir, "machine.json"), Now: time.Now,
		Vend: func(_ context.Context, p device.Pickup) error {
			v.vended = append(v.vended, p.ID)
			return nil
		},
	})
	if err != nil {
		v.Fatal(err)
	}
	ctx, cancel := context.WithCancel(v.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = v.device.Run(ctx) })
	v.off = func() {
		cancel()
		running.Wait()
	}
	v.Cleanup(v.off)
}

func (v *vending) use(c pickupCode) {
	v.Helper()
	if _, err := v.device.Enter(v.Context(), c.Code); err != nil {
		v.Fatalf("using code %d: %v", c.ID, err)
	}
}

// holds waits until the machine holds just those codes.
func (v *vending) holds(want ...pickupCode) {
	v.Helper()
	var ids []int64
	for _, c := range want {
		ids = append(ids, c.ID)
	}
	slices.Sort(ids)
	eventually(v, "what the machine holds", func() error {
		var got []int64
		for _, p := range v.device.Codes() {
			got = append(got, p.ID)
		}
		slices.Sort(got)
		if !slices.Equal(got, ids) {
			return fmt.Errorf("it holds %v, want %v", got, ids)
		}
		return nil
	})
}

// TestCrashesOnTheWayToAMachine kills the server between the commit of codes and
// their push, again and again, and switches the machine off in between: the
// machine holds in the end what it should, and each use is known once.
func TestCrashesOnTheWayToAMachine(t *testing.T) {
	t.Parallel()
	env := settings(t, "SCRIP_ROOT_TOKEN="+rootToken)
	s := start(t, env)
	v := &vending{TB: t, dir: t.TempDir(), no: "16327138"}
	v.appKey = member(t, scrip(t, env, "merchant", "create", "Acme", "--json"), "app_key")
	v.password = member(t, scrip(t, env, "machine", "create", v.no,
		"--merchant", "1", "--name", "Lobby", "--timezone", "Asia/Shanghai", "--json"), "mqtt_password")
	scrip(t, env, "product", "add", v.no, "Tea", "--slot", "A1", "--id", "20001")

	create := func() (c pickupCode) {
		t.Helper()
		if err := s.v1(t.Context(), http.StatusCreated, http.MethodPost, "/machines/"+v.no+"/pickup-codes",
			`{"product_id":20001,"quantity":1,"allow_more":true}`, &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	withdraw := func(c pickupCode) {
		t.Helper()
		if err := s.v1(t.Context(), http.StatusNoContent, http.MethodDelete, fmt.Sprintf("/pickup-codes/%d", c.ID), "", nil); err != nil {
			t.Fatal(err)
		}
	}
	is := func(c pickupCode, state string, late bool) {
		t.Helper()
		eventually(t, fmt.Sprintf("code %d", c.ID), func() error {
			var got pickupCode
			err := s.v1(t.Context(), http.StatusOK, http.MethodGet, fmt.Sprintf("/pickup-codes/%d", c.ID), "", &got)
			if err == nil && (got.State != state || got.LateUse != late) {
				err = fmt.Errorf("it is %s, late %t", got.State, got.LateUse)
			}
			return err
		})
	}
	restart := func() { s = start(t, env) }

	// Made while the machine is away; the server dies right after its answer.
	offline := []pickupCode{create(), create(), create(), create()}
	s.kill(t)
	restart()
	v.on(s.mqttURL(t))
	v.holds(offline...)

	// Made while it is connected; the server dies at whatever point of the push.
	held := slices.Clone(offline)
	for round := range 5 {
		for range 3 * round {
			held = append(held, create())
		}
		held = append(held, create())
		s.kill(t)
		v.off()
		restart()
		v.on(s.mqttURL(t))
		v.holds(held...)
	}

	// Used and withdrawn while the server is down or the machine is off.
	s.kill(t)
	used, gone, late := held[0], held[1], held[2]
	v.use(used)
	restart()
	v.off()
	withdraw(gone)
	withdraw(late)
	v.on("mqtt://127.0.0.1:1") // where nobody is: it hears nothing of that
	v.use(late)
	v.off()
	s.kill(t)
	restart()
	v.on(s.mqttURL(t))
	is(used, "used", false)
	is(late, "used", true)
	is(gone, "withdrawn", false)
	v.holds(held[3:]...)
	if !slices.Equal(v.vended, []int64{used.ID, late.ID}) {
		t.Errorf("it vended %v", v.vended)
	}
	if _, err := v.device.Enter(t.Context(), gone.Code); err == nil {
		t.Error("a withdrawn code works")
	}
	out := scrip(t, env, "ledger", "list", "--json")
	if n := strings.Count(out, `"pickup_use"`) + strings.Count(out, `"pickup_late_use"`); n != 2 {
		t.Errorf("%d uses are recorded", n)
	}
	scrip(t, env, "ledger", "verify")
}
