package bench

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/wire"
)

func TestPlanned(t *testing.T) {
	const lasting = 40 * time.Second
	for seed := range uint64(200) {
		plan := planned(seed, lasting)
		if !reflect.DeepEqual(plan, planned(seed, lasting)) {
			t.Fatalf("seed %d has two plans", seed)
		}
		kinds := make(map[faultKind]bool)
		last := time.Duration(0)
		for _, f := range plan {
			kinds[f.Kind] = true
			if f.At <= last || f.At >= lasting || f.Held < 0 || f.Kind == killServer && (f.Which < 1 || f.Which > chaosReplicas) ||
				f.Kind == cutMachine && (f.Which < 1 || f.Which > chaosMachines) {
				t.Errorf("seed %d: %+v after %s", seed, f, last)
			}
			last = f.At
		}
		if len(kinds) != len(faultKinds()) {
			t.Errorf("seed %d: only %v", seed, kinds)
		}
	}
}

func TestChaosRefuses(t *testing.T) {
	for _, minutes := range []float64{0, -1, chaosMinutesMax + 1} {
		c := chaosCommand{Minutes: minutes}
		if err := c.Run(t.Context(), &Env{Stdout: &stream{}, Stderr: &stream{}, Now: clock}); err == nil || !strings.HasPrefix(err.Error(), "--minutes") {
			t.Errorf("%v minutes: %v", minutes, err)
		}
	}
}

// newChaos is a run in which nothing has been done yet.
func newChaos(t *testing.T) *chaos {
	t.Helper()
	x := &chaos{env: &Env{Now: clock}, dir: t.TempDir(), progress: newProgress(&stream{}, clock), history: newHistory(clock)}
	x.cluster = &cluster{x: x, appKey: "key", spy: &spy{x: x, heard: map[int64]map[string]int{}}}
	return x
}

// wantViolations checks that each text is in a violation of its own, and that
// there are no others.
func wantViolations(t *testing.T, x *chaos, texts ...string) {
	t.Helper()
	if len(x.violations) != len(texts) {
		t.Errorf("violations %q, want %q", x.violations, texts)
		return
	}
	for i, text := range texts {
		if !strings.Contains(x.violations[i], text) {
			t.Errorf("violation %q, want %q", x.violations[i], text)
		}
	}
}

func TestCheckRedeems(t *testing.T) {
	entry := func(user, amount int64) account.Entry {
		return account.Entry{Kind: account.KindRedeem, FirstID: 7, AccountID: user, Amount: amount}
	}
	done := attempt{deed: deedRedeem, outcome: outcomeDone, user: 2, quota: 5, call: 1, back: 2}
	for name, c := range map[string]struct {
		attempts []attempt
		ledger   []account.Entry
		owns     int64 // user 2
		want     []string
	}{
		"as it should be": {[]attempt{done}, []account.Entry{entry(2, 5)}, 5, nil},
		"unknown, and not done": {
			[]attempt{{deed: deedRedeem, user: 2, call: 1, back: forever}}, nil, 0, nil,
		},
		"unknown, and done":     {[]attempt{{deed: deedRedeem, user: 2, call: 1, back: forever}}, []account.Entry{entry(2, 5)}, 5, nil},
		"lost":                  {[]attempt{done}, nil, 0, []string{"LOST"}},
		"lost to somebody else": {[]attempt{done}, []account.Entry{entry(3, 5)}, 0, []string{"user 3", "LOST"}},
		"doubled":               {[]attempt{done}, []account.Entry{entry(2, 5), entry(2, 5)}, 10, []string{"DOUBLED"}},
		"balance":               {[]attempt{done}, []account.Entry{entry(2, 5)}, 10, []string{"user 2 owns 10, and has redeemed 5"}},
		"another quota": {
			[]attempt{{deed: deedRedeem, outcome: outcomeDone, user: 2, quota: 6, call: 1, back: 2}},
			[]account.Entry{entry(2, 6)},
			6,
			[]string{"is worth 5"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			x, b := newChaos(t), newBooks()
			x.history.codes = []*codeHistory{{id: 7, quota: 5, attempts: c.attempts}}
			for _, e := range c.ledger {
				if err := b.Entry(e); err != nil {
					t.Fatal(err)
				}
			}
			b.balances[2], b.balances[3] = c.owns, 0
			x.checkRedeems(b, func([]*codeHistory) []string { return nil })
			wantViolations(t, x, c.want...)
		})
	}
}

func TestCheckPickups(t *testing.T) {
	for name, c := range map[string]struct {
		ledger                []account.Kind
		made, withdrawn, used bool
		want                  []string
	}{
		"made":             {ledger: []account.Kind{account.KindPickupCreate}, made: true},
		"made and lost":    {made: true, want: []string{"says 0 times"}},
		"made twice":       {ledger: []account.Kind{account.KindPickupCreate, account.KindPickupCreate}, made: true, want: []string{"says 2 times"}},
		"withdrawn":        {ledger: []account.Kind{account.KindPickupWithdraw}, withdrawn: true},
		"withdrawal lost":  {withdrawn: true, want: []string{"is in the ledger 0 times"}},
		"used":             {ledger: []account.Kind{account.KindPickupUse}, used: true},
		"used late":        {ledger: []account.Kind{account.KindPickupLateUse}, used: true},
		"use lost":         {used: true, want: []string{"LOST"}},
		"used twice":       {ledger: []account.Kind{account.KindPickupUse, account.KindPickupLateUse}, used: true, want: []string{"DOUBLED"}},
		"used by no means": {ledger: []account.Kind{account.KindPickupUse}, want: []string{"no machine does"}},
	} {
		t.Run(name, func(t *testing.T) {
			x, b := newChaos(t), newBooks()
			for _, kind := range c.ledger {
				if err := b.Entry(account.Entry{Kind: kind, FirstID: 7}); err != nil {
					t.Fatal(err)
				}
			}
			x.cluster.machines = []*vendor{{x: x, used: map[int64]bool{}}}
			if c.made {
				x.history.made[7] = true
			}
			if c.withdrawn {
				x.history.withdrawn[7] = true
			}
			if c.used {
				x.cluster.machines[0].used[7] = true
			}
			x.checkPickups(b)
			wantViolations(t, x, c.want...)
		})
	}
}

func TestSpyHears(t *testing.T) {
	x := newChaos(t)
	style := wire.Style{AppKey: "key"}
	head := wire.Head{At: clock(), MachineID: 1, MachineNo: "10000001"}
	create := wire.Create{Head: head, ID: 7, ProductID: 1, Code: "00000001", Quantity: 1, Expires: clock().Add(time.Hour)}.Encode(style)
	withdrawal := wire.Delete{Head: head, ID: 7}.Encode(style)
	for _, payload := range [][]byte{create, create, withdrawal, withdrawal} {
		x.cluster.spy.hear(payload)
	}
	wantViolations(t, x)
	if n := x.cluster.spy.times(7, wire.MethodCreate); n != 2 {
		t.Errorf("it was told %d times", n)
	}
	x.cluster.spy.hear(create)
	x.cluster.spy.hear([]byte("{}"))
	wantViolations(t, x, "after it was told of its withdrawal", "was sent")
}

func TestSameAnswer(t *testing.T) {
	h := newHistory(clock)
	var a answered
	for i, c := range []struct {
		reply reply
		same  bool
	}{
		{reply{status: 200, body: []byte("one")}, true},
		{reply{status: 200, body: []byte("one")}, true},
		{reply{status: 200, body: []byte("two")}, false},
		{reply{status: 201, body: []byte("one")}, false},
	} {
		if got := h.same(&a, &c.reply); got != c.same {
			t.Errorf("answer %d: %t", i, got)
		}
	}
	if h.repeated != 3 {
		t.Errorf("%d were repeated", h.repeated)
	}
}

func TestRecovery(t *testing.T) {
	var f faults
	one, other := &fault{Kind: killServer, Which: 1, begun: 10}, &fault{Kind: killServer, Which: 2, begun: 10}
	f.add(one)
	f.add(other)
	f.success(killServer, 1, 9, 11)    // it was asked before
	f.success(killPostgres, 1, 12, 13) // that is another thing
	f.success(killServer, 1, 12, 15)
	f.success(killServer, 1, 20, 21)
	if one.recovery != 5 || other.recovery != 0 {
		t.Errorf("%d and %d, want 5 and 0", one.recovery, other.recovery)
	}
}

func TestChaosReport(t *testing.T) {
	x := newChaos(t)
	x.seed = 42
	x.faults.add(&fault{Kind: killMosquitto, begun: time.Second, recovery: 2 * time.Second})
	for i := range violationsMax + 2 {
		x.violated("promise %d", i)
	}
	r := x.report()
	var out stream
	if err := r.write(&Env{Stdout: &out}, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--seed 42", "kill Mosquitto", "2000 ms", "VIOLATED: promise 0", "VIOLATED: and 2 more", x.dir} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s", want, out.String())
		}
	}
	if n := len(r.Violations); n != violationsMax+1 {
		t.Error(fmt.Sprint(n, " violations are spelt out"))
	}
}
