package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// code writes a number as a code.
func code(n int) string { return fmt.Sprintf("%08d", n) }

// TestFull: a machine keeps CodesMax codes and no more, and makes room by what
// nobody needs.
func TestFull(t *testing.T) {
	m := memory{MachineNo: machineNo}
	for i := range CodesMax {
		if _, err := m.add(pickup(int64(i+1), code(i)), noon()); err != nil {
			t.Fatal(err)
		}
	}
	more := pickup(CodesMax+1, code(CodesMax))
	if _, err := m.add(more, noon()); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
	again := m.Codes[0].Pickup
	again.Quantity = 3
	if changed, err := m.add(again, noon()); err != nil || !changed || m.Codes[0].Quantity != 3 {
		t.Errorf("one that it has: %t, %v", changed, err)
	}

	m.set(m.Codes[0], stateUsed)
	m.set(m.Codes[1], stateReported)
	if _, err := m.add(more, noon()); !errors.Is(err, errFull) {
		t.Errorf("a use was forgotten before its time: %v", err)
	}
	over := noon().Add(2 * time.Hour)
	more.Expires = over.Add(time.Hour)
	if changed, err := m.add(more, over); err != nil || !changed || len(m.Codes) != 2 {
		t.Errorf("%t, %v, %d codes: want what is to be reported, and the new one", changed, err, len(m.Codes))
	}
}

// TestNewServer: a server that was set up anew counts from 1 again.
func TestNewServer(t *testing.T) {
	for _, old := range []state{stateLive, stateUsed, stateReported, stateWithdrawn, stateExpired} {
		m := memory{Codes: []held{{pickup(1, "00000001"), old}}}
		if added, err := m.add(pickup(1, "00000002"), noon()); err != nil || !added {
			t.Errorf("%s: %t, %v", old, added, err)
		}
		if h, ok := m.find("00000002", noon()); !ok || h.State != stateLive {
			t.Errorf("%s: %+v", old, h)
		}
		if _, ok := m.find("00000001", noon()); ok != (old == stateUsed) {
			t.Errorf("%s: the old one is kept: %t", old, ok)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	c := &clock{now: noon()}
	good, err := json.Marshal(memory{MachineNo: machineNo, Codes: []held{{pickup(1, "00000001"), stateLive}}})
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"nothing":            "",
		"cut off":            string(good[:len(good)/2]),
		"of another machine": strings.Replace(string(good), machineNo, "16327139", 1),
		"an unknown state":   strings.Replace(string(good), `"live"`, `"lively"`, 1),
		"a short code":       strings.Replace(string(good), `"00000001"`, `"1"`, 1),
		"too large":          string(good) + strings.Repeat(" ", fileMax),
		"something behind":   string(good) + "{}",
	} {
		cfg := setting(t, "127.0.0.1:1", c)
		if err := os.WriteFile(cfg.State, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f := file{path: cfg.State}
		if m, err := f.load(machineNo); err == nil {
			t.Errorf("%s: %+v", what, m)
		}
	}
}

// FuzzParse: nothing makes it panic; what it accepts is written as it was read.
func FuzzParse(f *testing.F) {
	full, err := json.Marshal(memory{
		MachineNo: machineNo, MachineID: 10009, Wrong: 2, PausedFrom: noon(), PausedUntil: noon().Add(Pause),
		Codes: []held{{pickup(1, "00000001"), stateLive}, {pickup(2, "00000002"), stateUsed}},
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{string(full), `{"machine_no":"16327138","codes":null}`, "", "{}", "null", "[]", `{"codes":[{}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parse(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatalf("%q was read, and cannot be written: %v", text, err)
		}
		n, err := parse(again)
		if err != nil {
			t.Fatalf("%q was written as %q: %v", text, again, err)
		}
		once, err := json.Marshal(n)
		if err != nil || !reflect.DeepEqual(again, once) {
			t.Fatalf("%q, then %q", again, once)
		}
	})
}
