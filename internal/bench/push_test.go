package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// wantPush checks that all figures are there, and that nothing was lost.
func wantPush(t *testing.T, r report) {
	t.Helper()
	var kinds []string
	for _, x := range r.Results {
		if x.Bench == benchPush {
			kinds = append(kinds, x.Kind)
		}
	}
	for i, want := range []string{
		"connect and subscribe", "POST to machine", "reconnect and subscribe", "each is sent what it should hold",
		"backlog", "bare broker, then bare driver",
	} {
		if i >= len(kinds) || !strings.Contains(kinds[i], want) {
			t.Fatalf("kinds %q, want %q in place %d", kinds, want, i)
		}
	}
	found := map[string]check{}
	for _, c := range r.Checks {
		if c.Bench == benchPush {
			found[c.Kind] = c
		}
	}
	wanted := []string{
		"p99 from POST to machine", "codes a second / asked for", "codes that arrived / made",
		"rate of a backlog / bare broker, then bare driver",
	}
	if runtime.GOOS == "linux" {
		wanted = append(wanted, "memory of the server for each connected machine", "the same, after all those codes")
	}
	for _, kind := range wanted {
		// What so few machines take is less than what a server gives back that has started.
		if c := found[kind]; c.Value == 0 || c.Value < 0 && c.Unit != "KiB" {
			t.Errorf("check %q: %+v", kind, found[kind])
		}
	}
	if len(found) != len(wanted) {
		t.Errorf("checks %v, want %q", found, wanted)
	}
	if c := found["codes that arrived / made"]; c.Value != 1 || !c.Met {
		t.Errorf("codes were lost: %+v", c)
	}
	notes := strings.Join(r.Notes, "\n")
	for _, want := range []string{" 0 were lost, and 0 messages came twice", "push: 0 logins were refused or failed", "0 connections broke"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no %q in the notes: %s", want, notes)
		}
	}
}

// TestPush runs the server as a process: this very binary, as TestMain has it.
func TestPush(t *testing.T) {
	t.Setenv(serveEnv, "1")
	c := pushCommand{
		Machines: 20, Rate: 100, Backlog: 100, Duration: time.Second, Ceiling: true, Dir: t.TempDir(), JSON: true,
	}
	r := measured(t, &c)
	wantPush(t, r)
	for i, want := range []int64{20, 100, 20, 100, 300, 300} {
		if x := r.Results[i]; x.Operations != want || x.Clients != 20 {
			t.Errorf("%d operations, want %d: %+v", x.Operations, want, x)
		}
	}
	noLeftovers(t, c.Dir)
}

func TestPushRefuses(t *testing.T) {
	for flag, c := range map[string]pushCommand{
		"--machines": {Machines: machinesMax + 1, Rate: 1, Backlog: 1, Duration: time.Second},
		"--rate":     {Machines: 1, Rate: 0, Backlog: 1, Duration: time.Second},
		"--rate and": {Machines: 2, Rate: 1000, Backlog: 1, Duration: 2 * time.Second},
		"--backlog":  {Machines: 1, Rate: 1, Backlog: 1000, Duration: time.Second},
		"--duration": {Machines: 1, Rate: 1, Backlog: 1},
	} {
		c.Dir = t.TempDir()
		err := c.Run(t.Context(), &Env{Stdout: &stream{}, Stderr: &stream{}, Now: clock})
		if err == nil || !strings.HasPrefix(err.Error(), flag) {
			t.Errorf("%+v: %v, want an error about %s", c, err, flag)
		}
		noLeftovers(t, c.Dir)
	}
}

// TestSwarm has machines connect to a broker that refuses the first connection,
// sends its answers in pieces, and a message twice.
func TestSwarm(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	s := newSwarm(clock, l.Addr().String(), []credentials{{"00000001", "secret"}})
	got := newTally(clock(), 7, 2)
	s.tally.Store(got)
	acknowledged := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		err := fakeBroker(l)
		if err != nil {
			cancel() // nobody else will end what waits for it
		}
		acknowledged <- err
	}()
	sample, err := s.start(ctx)
	defer s.close()
	if err != nil || sample.hist.n != 1 || sample.elapsed <= 0 {
		t.Fatalf("%v, %v", err, <-acknowledged)
	}
	if err := <-acknowledged; err != nil {
		t.Fatal(err)
	}
	s.close() // and with that, all is counted
	if refused, lost, last := s.failures(); refused != 1 || lost != 0 || last == nil || !strings.Contains(last.Error(), "code 5") {
		t.Errorf("%d refused, %d lost, %v", refused, lost, last)
	}
	_, first := got.arrived(7)
	_, second := got.arrived(8)
	if !first || second || got.came.Load() != 1 || got.again.Load() != 1 || got.unknown.Load() != 1 {
		t.Errorf("%+v", got)
	}
}

// fakeBroker refuses the first connection, and ends when the second has
// acknowledged three messages.
func fakeBroker(l net.Listener) (err error) {
	defer func() { err = errors.Join(err, l.Close()) }()
	for try := range 2 {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		if err := converse(conn, try == 0); err != nil {
			return errors.Join(err, conn.Close())
		}
		if try == 0 {
			err = conn.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func converse(conn net.Conn, refuse bool) error {
	const user = "\x00\x0800000001"
	if err := expect(conn, "\x10\x26\x00\x04MQTT\x04\xc2\xff\xff"+user+user+"\x00\x06secret"); err != nil {
		return err
	}
	if refuse {
		_, err := conn.Write([]byte("\x20\x02\x00\x05"))
		return err
	}
	if _, err := conn.Write([]byte("\x20\x02\x00\x00")); err != nil {
		return err
	}
	if err := expect(conn, "\x82\x16\x00\x01\x00\x11/clients/00000001\x01"); err != nil {
		return err
	}
	text := "\x90\x03\x00\x01\x01"
	for packet, id := range []string{"7", "7", "9"} {
		body := binary.BigEndian.AppendUint16([]byte("\x00\x11/clients/00000001"), uint16(packet+1))
		body = append(body, `{"machine_id":"5","id":"`+id+`","x":"`+strings.Repeat("x", 2000)+`"}`...)
		text += string(appendPacket(nil, packetPublish|0x02, body))
	}
	for _, piece := range []string{text[:1], text[1:9], text[9:1500], text[1500:]} {
		if _, err := conn.Write([]byte(piece)); err != nil {
			return err
		}
	}
	return expect(conn, "\x40\x02\x00\x01\x40\x02\x00\x02\x40\x02\x00\x03")
}

// expect reads exactly that.
func expect(conn net.Conn, text string) error {
	if err := conn.SetDeadline(clock().Add(10 * time.Second)); err != nil {
		return err
	}
	b := make([]byte, len(text))
	for n := 0; n < len(b); {
		k, err := conn.Read(b[n:])
		if err != nil {
			return err
		}
		n += k
	}
	if string(b) != text {
		return errors.New("read " + string(b) + ", want " + text)
	}
	return nil
}
