package guess_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/scrip-codes/scrip/internal/guess"
)

func TestSuspectOf(t *testing.T) {
	for subject, want := range map[string]guess.Suspect{
		guess.Account(7):                          {AccountID: 7},
		guess.Address("192.0.2.1"):                {Address: "192.0.2.1"},
		guess.Address("::ffff:192.0.2.1"):         {Address: "192.0.2.1"},
		guess.Address("2001:db8::1"):              {Address: "2001:db8::/64"},
		guess.Address("local"):                    {Address: "local"},
		guess.Machine("16327138", "192.0.2.1"):    {MachineNo: "16327138", Address: "192.0.2.1"},
		guess.Machine("16327138", "2001:db8::12"): {MachineNo: "16327138", Address: "2001:db8::/64"},
		guess.Name("ann"):                         {},
		"u":                                       {},
		"unknown":                                 {},
		"":                                        {},
	} {
		want.Subject = subject
		if got := guess.SuspectOf(subject); got != want {
			t.Errorf("%q is %+v, want %+v", subject, got, want)
		}
	}
}

// Names are kept nowhere: they may be passwords in the wrong field.
func TestLimited(t *testing.T) {
	c := newClock()
	d := newDatabase()
	// The hash of a name may look like text.
	var readable string
	for i := 0; !utf8.ValidString(readable) || readable == ""; i++ {
		readable = guess.Name(fmt.Sprint(i))
	}
	for what, l := range map[string]*guess.Limiter{
		"alone": guess.New(4, time.Minute, c.now), "shared": guess.Shared("logins", 4, time.Minute, c.now, d),
		"off": guess.New(0, time.Minute, c.now),
	} {
		fail := func(n int, subjects ...string) {
			for range n {
				if err := l.Failed(t.Context(), subjects...); err != nil {
					t.Fatal(err)
				}
			}
		}
		fail(1, guess.Address("192.0.2.1"), guess.Name("ann"))
		fail(2, guess.Address("192.0.2.2"), guess.Name("correct horse"))
		fail(4, guess.Account(5), guess.Name("correct horse"), readable)
		fail(4, guess.Address(strings.Repeat("x", 101)))
		fail(4, guess.Address("a\x00b"))
		got, err := l.Limited(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []guess.Suspect{
			{Subject: "u5", AccountID: 5, Failed: 4, Until: c.now().Add(time.Minute)},
			{Subject: "a192.0.2.2", Address: "192.0.2.2", Failed: 2, Until: c.now().Add(time.Minute)},
		}
		if l == nil {
			want = nil
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	for s := range d.counts {
		if strings.Contains(fmt.Sprint(d.counts[s]), "horse") || strings.HasPrefix(d.counts[s].Label, "n") {
			t.Errorf("a name is kept: %+v", d.counts[s])
		}
	}
	c.add(time.Minute)
	l := guess.New(4, time.Minute, c.now)
	l.Note("a1", "a1", "a1")
	c.add(time.Minute)
	if got, err := l.Limited(t.Context()); len(got) != 0 || err != nil {
		t.Errorf("after the window: %v, %v", got, err)
	}
}

// However many guess, the worst are listed.
func TestLimitedIsBounded(t *testing.T) {
	c := newClock()
	l := guess.New(200, time.Minute, c.now)
	for i := range 1500 {
		subject := guess.Account(int64(i + 1))
		for range 100 + i%90 {
			l.Note(subject)
		}
	}
	got, err := l.Limited(t.Context())
	if err != nil || len(got) != guess.SuspectsMax {
		t.Fatalf("%d are listed, %v", len(got), err)
	}
	for i, s := range got {
		if s.Failed < 183 || i > 0 && s.Failed > got[i-1].Failed {
			t.Errorf("at %d: %+v", i, s)
		}
	}
}

func TestForgive(t *testing.T) {
	c := newClock()
	d := newDatabase()
	s := c.servers(t, d, "logins", 2)
	alone := guess.New(2, time.Minute, c.now)
	alone.Note("a", "a", "b", "b")
	if err := alone.Forgive(t.Context(), "a", "nobody"); err != nil {
		t.Fatal(err)
	}
	if alone.Known("a") != nil || alone.Known("b") == nil {
		t.Error("not a alone was forgiven")
	}
	if err := (*guess.Limiter)(nil).Forgive(t.Context(), "a"); err != nil {
		t.Error(err)
	}

	s[0].fail(2, "a")
	s[1].want(60_000, "a")
	if err := s[0].Forgive(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	s[0].want(0, "a")
	s[1].want(60_000, "a") // by what it knows
	if err := s[1].Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s[1].want(0, "a")
	// What memory learned late does not bring back what was forgiven.
	s[1].Learn([]guess.Count{{Subject: s[1].Subjects("a")[0], Began: c.now(), Failed: 0, Forgiven: 1}})
	s[1].want(0, "a")
	reads := d.reads
	if err := s[1].Refresh(t.Context()); err != nil || d.reads != reads {
		t.Errorf("%d reads for nobody, %v", d.reads-reads, err)
	}
	s[1].fail(2, "a")
	s[0].want(60_000, "a")
	// The next window counts anew what is forgiven in it.
	c.add(time.Minute)
	s[0].fail(2, "a")
	s[1].want(60_000, "a")
	if err := s[1].Forgive(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s[0].Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s[0].want(0, "a")
	d.err = errors.New("away")
	s[0].Note("a", "a")
	if s[0].Refresh(t.Context()) == nil || s[0].Forgive(t.Context(), "a") == nil {
		t.Error("no error from a store that fails")
	}
	if _, err := s[0].Limited(t.Context()); err == nil {
		t.Error("no error from a store that fails")
	}
	s[0].want(60_000, "a")
}
