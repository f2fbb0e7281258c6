package storetest

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/figures"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func figuresTests() map[string]func(*world) {
	return map[string]func(*world){
		"Worth":           testFiguresWorth,
		"WorthBesideWork": testFiguresWorthBesideWork,
		"RecountWhen":     testFiguresRecountWhen,
		"Activity":        testFiguresActivity,
		"ActivitySpread":  testFiguresActivitySpread,
		"ActivityBeside":  testFiguresActivityBeside,
		"Presence":        testFiguresPresence,
		"Outstanding":     testFiguresOutstanding,
		"Waiting":         testFiguresWaiting,
		"Forbidden":       testFiguresForbidden,
	}
}

func (w *world) summary() figures.Summary {
	w.Helper()
	s, err := w.figures.Summary(w.ctx, w.root)
	w.check(err)
	return s
}

// wantWorth compares how codes stand with what is known of each. What a sweep has
// not found expired yet is worth something still.
func (w *world) wantWorth(codes []redemption.View) {
	w.Helper()
	var want figures.Codes
	worth := [2][3]*big.Int{} // got and want: by the clock live or expired, disabled, used
	for i := range worth {
		for j := range worth[i] {
			worth[i][j] = new(big.Int)
		}
	}
	now := w.clock.Now()
	for i := range codes {
		c, sum := &codes[i].Code, worth[1][0]
		switch {
		case passes(c, redemption.FilterLive, now):
			want.Live++
		case passes(c, redemption.FilterExpired, now):
			want.Expired++
		case passes(c, redemption.FilterDisabled, now):
			want.Disabled++
			sum = worth[1][1]
		default:
			want.Used++
			sum = worth[1][2]
		}
		sum.Add(sum, big.NewInt(c.Quota))
	}
	got := w.summary()
	if got.Codes != want {
		w.Errorf("the codes are %+v, want %+v", got.Codes, want)
	}
	if got.Worth == nil {
		w.Error("nobody knows what codes are worth")
		return
	}
	worth[0] = [3]*big.Int{new(big.Int).Add(got.Worth.Live, got.Worth.Expired), got.Worth.Disabled, got.Worth.Used}
	if g, want := fmt.Sprint(worth[0]), fmt.Sprint(worth[1]); g != want {
		w.Errorf("live or expired, disabled and used codes are worth %s, want %s", g, want)
	}
}

// wantWorths compares all four, when the sweep has come.
func (w *world) wantWorths(live, disabled, used, expired string) {
	w.Helper()
	got := w.summary().Worth
	if want := (figures.Worth{Live: sum(live), Disabled: sum(disabled), Used: sum(used), Expired: sum(expired)}); got == nil ||
		fmt.Sprint(*got) != fmt.Sprint(want) {
		w.Errorf("codes are worth %v, want %v", got, want)
	}
	w.wantWorth(w.allCodes())
}

func sum(text string) *big.Int {
	n, _ := new(big.Int).SetString(text, 10)
	return n
}

// Whatever becomes of codes, what those in each state are worth is known, and
// fits.
func testFiguresWorth(w *world) {
	w.wantWorths("0", "0", "0", "0")
	user := w.user("u", 0)
	soon := w.clock.Now().Truncate(time.Second).Add(time.Minute)
	codes := w.issue("huge", 5, math.MaxInt64, time.Time{})
	w.wantWorths("46116860184273879035", "0", "0", "0")
	codes = append(codes, w.issue("small", 5, 7, soon)...)
	w.wantWorths("46116860184273879070", "0", "0", "0")
	w.redeem(user, codes[0].Key)
	w.wantWorths("36893488147419103263", "0", "9223372036854775807", "0")
	w.disable(codes[1].ID)
	w.disable(codes[5].ID)
	w.wantWorths("27670116110564327449", "9223372036854775814", "9223372036854775807", "0")
	w.change(codes[1].ID, redemption.Change{Status: new(redemption.StatusEnabled)})
	w.wantWorths("36893488147419103256", "7", "9223372036854775807", "0")
	w.change(codes[1].ID, redemption.Change{Quota: new(int64(1_999_999_999))})
	w.wantWorths("27670116112564327448", "7", "9223372036854775807", "0")
	w.change(codes[5].ID, redemption.Change{Quota: new(int64(5)), Status: new(redemption.StatusEnabled)})
	w.wantWorths("27670116112564327453", "0", "9223372036854775807", "0")
	w.refused(w.refusedRedeem(user, codes[2].Key), refusal.AccountBalanceFull)
	w.wantWorths("27670116112564327453", "0", "9223372036854775807", "0")
	w.check(w.codes.Delete(w.ctx, w.root, codes[2].ID))
	w.wantWorths("18446744075709551646", "0", "9223372036854775807", "0")
	w.clock.Add(2 * time.Minute)
	w.wantWorth(w.allCodes())
	w.check(w.codes.Sweep(w.ctx))
	w.wantWorths("18446744075709551613", "0", "9223372036854775807", "33")
	w.clock.Add(-2 * time.Minute)
	other := w.user("other", 0)
	w.redeem(other, codes[6].Key) // swept, and in time all the same
	w.wantWorths("18446744075709551613", "0", "9223372036854775814", "26")
	w.check(w.codes.Sweep(w.ctx))
	w.wantWorths("18446744075709551639", "0", "9223372036854775814", "0")
	w.clock.Add(2 * time.Minute)
	w.check(w.figures.Recount(w.ctx))
	w.check(w.codes.Sweep(w.ctx))
	w.disable(codes[3].ID)
	_, err := w.codes.DeleteInvalid(w.ctx, w.ctx, w.root)
	w.check(err)
	w.wantWorths("9223372038854775806", "0", "0", "0")
	w.clock.Add(25 * time.Hour)
	w.check(w.figures.Recount(w.ctx))
	w.wantWorths("9223372038854775806", "0", "0", "0")
	w.audit()
}

func (w *world) refusedRedeem(by account.Actor, key string) error {
	_, err := w.codes.Redeem(w.ctx, by, key, nil)
	return err
}

// What is issued, redeemed and removed while all is counted, by two at once, is in
// it once.
func testFiguresWorthBesideWork(w *world) {
	servers := w.servers()
	user := w.user("u", 0)
	codes := w.issue("n", 60, 1_234_567_890_123, time.Time{})
	var done atomic.Bool
	var counting, working sync.WaitGroup
	for _, s := range servers {
		counting.Go(func() {
			for !done.Load() {
				if err := s.engine.CountWorth(w.ctx, w.clock.Now()); err != nil {
					w.Error(err)
					return
				}
			}
		})
	}
	for i := range 3 {
		working.Go(func() {
			for _, c := range codes[i*20 : i*20+20] {
				var err error
				switch i {
				case 0:
					_, err = w.codes.Redeem(w.ctx, user, c.Key, nil)
				case 1:
					_, err = w.codes.Change(w.ctx, w.root, c.ID, redemption.Change{Quota: new(c.ID)})
				case 2:
					err = w.codes.Delete(w.ctx, w.root, c.ID)
				}
				if err != nil {
					w.Error(err)
				}
			}
		})
	}
	working.Wait()
	done.Store(true)
	counting.Wait()
	w.wantWorth(w.allCodes())
}

// All is counted at the first start, once an hour for a day and then once a day, also
// by a clock that was set back.
func testFiguresRecountWhen(w *world) {
	counted := func() time.Time {
		w.Helper()
		w.check(w.figures.Recount(w.ctx))
		c, err := w.engine.WorthCounted(w.ctx)
		w.check(err)
		if !c.Sound {
			w.Error("something speaks against what was counted")
		}
		return c.At
	}
	if c, err := w.engine.WorthCounted(w.ctx); err != nil || c != (figures.Counted{Sound: true}) {
		w.Fatalf("counted: %+v, %v", c, err)
	}
	w.issueOne(5)
	first := w.clock.Now()
	for i, step := range []struct{ add, counted time.Duration }{
		{0, 0},
		{time.Hour - time.Millisecond, 0},
		{time.Millisecond, time.Hour},
		{23*time.Hour - time.Millisecond, 24*time.Hour - time.Millisecond},
		{time.Hour, 24*time.Hour - time.Millisecond}, // a day has passed
		{23*time.Hour - time.Millisecond, 24*time.Hour - time.Millisecond},
		{time.Millisecond, 48*time.Hour - time.Millisecond},
		{-time.Hour, 47*time.Hour - time.Millisecond},
		{0, 47*time.Hour - time.Millisecond},
	} {
		w.clock.Add(step.add)
		if at := counted(); !at.Equal(first.Add(step.counted)) {
			w.Errorf("step %d: counted %v after the first time, want %v", i, at.Sub(first), step.counted)
		}
	}
	w.wantWorths("5", "0", "0", "0")
}

// fold adds up all activity.
func (w *world) fold() {
	w.Helper()
	w.check(w.figures.Fold(w.ctx))
}

func (w *world) activity() []figures.Activity {
	w.Helper()
	now := w.clock.Now()
	return w.byQuarter(now.Add(-300*24*time.Hour), now.Add(100*24*time.Hour))
}

// byQuarter lists what is added up in a time, each quarter by itself that has an
// entry.
func (w *world) byQuarter(from, to time.Time) []figures.Activity {
	w.Helper()
	times := []time.Time{from}
	for _, e := range w.ledger() {
		quarter := e.At.Truncate(figures.Quarter)
		for _, t := range []time.Time{quarter, quarter.Add(figures.Quarter)} {
			if from.Before(t) && t.Before(to) {
				times = append(times, t)
			}
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	times = append(slices.CompactFunc(times, time.Time.Equal), to)
	list, err := w.figures.Activity(w.ctx, w.root, w.ledgerKinds(), times...)
	w.check(err)
	return list
}

// ledgerKinds are the kinds of entries that there are.
func (w *world) ledgerKinds() (kinds []account.Kind) {
	w.Helper()
	for _, e := range w.ledger() {
		if !slices.Contains(kinds, e.Kind) {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

// wantActivity compares what has been added up with the ledger.
func (w *world) wantActivity() {
	w.Helper()
	type at struct {
		quarter int64
		kind    account.Kind
	}
	sums := map[at]*figures.Activity{}
	for _, e := range w.ledger() {
		key := at{e.At.Truncate(15 * time.Minute).UnixMilli(), e.Kind}
		a := sums[key]
		if a == nil {
			a = &figures.Activity{From: time.UnixMilli(key.quarter), Kind: e.Kind, Amount: new(big.Int)}
			sums[key] = a
		}
		a.Entries++
		a.Count += e.Count
		amount := big.NewInt(e.Amount)
		if e.Kind == account.KindIssue {
			amount.Mul(amount, big.NewInt(e.Count))
		}
		a.Amount.Add(a.Amount, amount)
	}
	var want []figures.Activity
	for _, a := range sums {
		want = append(want, *a)
	}
	slices.SortFunc(want, func(a, b figures.Activity) int {
		return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Kind, b.Kind))
	})
	w.sameActivity(w.activity(), want)
}

func (w *world) sameActivity(got, want []figures.Activity) {
	w.Helper()
	if len(got) != len(want) {
		w.Fatalf("%d rows of activity, want %d: %v, want %v", len(got), len(want), got, want)
	}
	for i, g := range got {
		if x := want[i]; !g.From.Equal(x.From) || g.Kind != x.Kind || g.Entries != x.Entries || g.Count != x.Count ||
			g.Amount.Cmp(x.Amount) != 0 {
			w.Errorf("activity %+v, want %+v", g, x)
		}
	}
}

// Each entry of the ledger is added up once, however often that is asked for, and
// found by the quarter of an hour it is in.
func testFiguresActivity(w *world) {
	if list := w.activity(); len(list) != 0 {
		w.Errorf("nothing has been added up, and there is %v", list)
	}
	user := w.user("u", 0)
	codes := w.issue("huge", 10, math.MaxInt64, time.Time{})
	w.fold()
	w.wantActivity()
	w.redeem(user, codes[0].Key)
	w.clock.Add(20 * time.Minute)
	codes = w.issue("n", 10, 2_500_000_000, time.Time{})
	w.redeem(w.user("v", 100), codes[0].Key)
	m := w.stocked("00000001", 1)
	w.used(w.pickup(m, 1))
	w.withdraw(w.pickup(m, 1).ID)
	w.disable(codes[1].ID)
	w.check(w.codes.Delete(w.ctx, w.root, codes[2].ID))
	_, err := w.codes.DeleteInvalid(w.ctx, w.ctx, w.root)
	w.check(err)
	w.fold()
	w.fold()
	w.wantActivity()
	more, err := w.engine.FoldActivity(w.ctx)
	if err != nil || more {
		w.Errorf("behind the last entry: more %v, %v", more, err)
	}
	w.wantActivity()

	all := w.activity()
	begin := w.clock.Now().Truncate(15 * time.Minute) // of the second quarter with anything in it
	var later []figures.Activity
	for _, a := range all {
		if a.From.Equal(begin) {
			later = append(later, a)
		}
	}
	for i, c := range []struct {
		from, to time.Duration
		want     []figures.Activity
	}{
		{0, 15 * time.Minute, later},
		{-14 * time.Minute, time.Millisecond, later},
		{-14 * time.Minute, 0, nil},
		{1 * time.Millisecond, time.Hour, nil},
		{-time.Hour, time.Millisecond, all},
		{time.Hour, -time.Hour, nil},
		{0, figures.ActivityMax, later},
	} {
		got := w.byQuarter(begin.Add(c.from), begin.Add(c.to))
		if len(got) != len(c.want) {
			w.Errorf("case %d: %d rows, want %d", i, len(got), len(c.want))
			continue
		}
		w.sameActivity(got, c.want)
	}
	// What is asked for as one is added up.
	whole, err := w.figures.Activity(w.ctx, w.root, []account.Kind{account.KindIssue}, begin.Add(-time.Hour), begin.Add(time.Hour))
	w.check(err)
	issued := whole
	if len(issued) != 1 || issued[0].Kind != account.KindIssue || issued[0].Entries != 2 || issued[0].Count != 20 || !issued[0].From.Equal(begin.Add(-time.Hour)) ||
		issued[0].Amount.Cmp(sum("92233720393547758070")) != 0 {
		w.Errorf("in two hours together there is %v", issued)
	}
	_, err = w.figures.Activity(w.ctx, w.root, w.ledgerKinds(), begin, begin.Add(figures.ActivityMax+1))
	w.refused(err, refusal.InvalidRequest)
}

// A ledger that is spread over a long time is added up in small steps, each of
// which writes little.
func testFiguresActivitySpread(w *world) {
	for range 600 {
		w.clock.Add(15 * time.Minute)
		w.issueOne(3)
	}
	lanes, err := w.engine.Heads(w.ctx)
	w.check(err)
	most := 256 * len(lanes)
	for more, had := true, 0; more; {
		var err error
		more, err = w.engine.FoldActivity(w.ctx)
		w.check(err)
		n := len(w.activity())
		if n-had > most {
			w.Errorf("a step wrote %d rows", n-had)
		}
		had = n
	}
	w.wantActivity()
}

// While entries are written by two, two others add them up: each is counted once.
func testFiguresActivityBeside(w *world) {
	servers := w.servers()
	folders := [2]*world{w.on(w.handle(testSecret)), w.on(w.handle(testSecret))}
	var done atomic.Bool
	var folding, working sync.WaitGroup
	for _, f := range folders {
		folding.Go(func() {
			for !done.Load() {
				if _, err := f.engine.FoldActivity(w.ctx); err != nil {
					w.Error(err)
					return
				}
			}
		})
	}
	for i, s := range servers {
		working.Go(func() {
			for j := range 40 {
				if _, err := s.codes.Issue(w.ctx, w.root, redemption.IssueRequest{Name: fmt.Sprint(i), Count: 2, Quota: int64(1 + j)}); err != nil {
					w.Error(err)
				}
			}
		})
	}
	working.Wait()
	done.Store(true)
	folding.Wait()
	w.fold()
	w.wantActivity()
}

// Every five minutes it is noted once how many machines are online, and that is
// kept for eight days.
func testFiguresPresence(w *world) {
	start := w.clock.Now().Truncate(figures.PresenceEvery)
	w.clock.Set(start.Add(30 * time.Second))
	see := func(m fleet.Machine, p fleet.Presence) {
		w.check(w.engine.See(w.ctx, []fleet.Sighting{{MachineID: m.ID, Presence: p, At: w.clock.Now()}}))
	}
	note := func(machines, online int64) {
		w.Helper()
		w.check(w.figures.NotePresence(w.ctx))
		if s := w.summary(); s.Machines != machines || s.Online != online {
			w.Errorf("%d of %d machines are online, want %d of %d", s.Online, s.Machines, online, machines)
		}
	}
	note(0, 0)
	var m []fleet.Machine
	for i := range 5 {
		m = append(m, w.machine(fmt.Sprintf("0000000%d", i+1)))
	}
	see(m[0], fleet.Connected)
	see(m[1], fleet.Heard)
	see(m[2], fleet.Missed)
	see(m[3], fleet.Offline)
	note(5, 3) // too late for the first time
	w.clock.Set(start.Add(figures.PresenceEvery))
	note(5, 3)
	w.check(w.fleet.DeleteMachine(w.ctx, w.root, m[4].No))
	w.clock.Set(start.Add(30*time.Second + fleet.SilentFor - time.Millisecond))
	note(4, 3)
	w.clock.Add(time.Millisecond)
	note(4, 1)
	w.clock.Set(start.Add(3 * figures.PresenceEvery))
	see(m[0], fleet.Offline)
	note(4, 0)

	type noted struct {
		at               time.Duration
		machines, online int64
	}
	want := func(from, to time.Duration, want ...noted) {
		w.Helper()
		list, err := w.figures.Presence(w.ctx, w.root, start.Add(from), start.Add(to))
		w.check(err)
		var got []noted
		for _, p := range list {
			got = append(got, noted{p.At.Sub(start), p.Machines, p.Online})
		}
		if !slices.Equal(got, want) {
			w.Errorf("from %v to %v: %v, want %v", from, to, got, want)
		}
	}
	const five = figures.PresenceEvery
	want(-time.Hour, time.Hour, noted{0, 0, 0}, noted{five, 5, 3}, noted{2 * five, 4, 3}, noted{3 * five, 4, 0})
	want(five, 3*five, noted{five, 5, 3}, noted{2 * five, 4, 3})
	want(3*five+time.Millisecond, time.Hour)
	w.clock.Set(start.Add(figures.PresenceFor + five))
	note(4, 0)
	want(-time.Hour, 9*24*time.Hour, noted{five, 5, 3}, noted{2 * five, 4, 3}, noted{3 * five, 4, 0}, noted{figures.PresenceFor + five, 4, 0})
}

// Every quarter of an hour it is noted once what live codes are worth, if that is
// known, and that is kept.
func testFiguresOutstanding(w *world) {
	start := w.clock.Now().Truncate(figures.OutstandingEvery).Add(figures.OutstandingEvery)
	const quarter = figures.OutstandingEvery
	note := func(after time.Duration) {
		w.Helper()
		w.clock.Set(start.Add(after))
		w.check(w.figures.NoteOutstanding(w.ctx))
	}
	want := func(want string, after ...time.Duration) {
		w.Helper()
		times := make([]time.Time, len(after))
		for i, d := range after {
			times[i] = start.Add(d)
		}
		list, err := w.figures.Outstanding(w.ctx, w.root, times...)
		w.check(err)
		var got []string
		for _, o := range list {
			got = append(got, fmt.Sprintf("%v: %d", o.At.Sub(start), o.Worth))
		}
		if strings.Join(got, ", ") != want {
			w.Errorf("at %v: %q, want %q", after, got, want)
		}
	}
	note(0)
	want("", -1)
	want("0s: 0, 15m0s: 0", 0, quarter)
	codes := w.issue("huge", 3, math.MaxInt64, time.Time{})
	note(quarter - 1) // too late for the first time
	want("0s: 0, 15m0s: 0", 0, quarter)
	note(quarter)
	w.disable(codes[0].ID)
	note(2*quarter + time.Minute)
	w.redeem(w.user("u", 0), codes[1].Key)
	note(2*quarter + 2*time.Minute)
	note(5 * quarter)
	want("0s: 0, 14m59s: 0, 15m0s: 27670116110564327421, 30m0s: 18446744073709551614, 1h0m0s: 18446744073709551614, "+
		"1h15m0s: 9223372036854775807, 2h30m0s: 9223372036854775807",
		-time.Second, 0, quarter-time.Second, quarter, 2*quarter, 4*quarter, 5*quarter, 10*quarter)
	note(figures.OutstandingFor + 2*quarter) // what is older than a time is dropped
	want("30m0s: 18446744073709551614", quarter, 2*quarter)
}

// The summary counts what machines have not acknowledged, not what is for their
// connections.
func testFiguresWaiting(w *world) {
	want := func(n int64, since time.Time) {
		w.Helper()
		if s := w.summary(); s.Waiting != n || !s.WaitingSince.Equal(since) {
			w.Errorf("%d wait since %v, want %d since %v", s.Waiting, s.WaitingSince, n, since)
		}
	}
	want(0, time.Time{})
	m := w.stocked("00000001", 1, 2)
	w.check(w.fleet.RenewPassword(w.ctx, w.root, m.No, "new", nil)) // which ends its connection
	want(0, time.Time{})
	w.clock.Add(time.Minute)
	first := w.clock.Now()
	a := w.pickup(m, 1)
	w.clock.Add(time.Second)
	second := w.clock.Now()
	w.pickup(m, 2)
	want(2, first)
	w.used(a)
	want(1, second)
	w.received(m)
	want(0, time.Time{})
}

// Figures are for admins.
func testFiguresForbidden(w *world) {
	user, admin := w.user("u", 0), w.person("a", account.RoleAdmin, 0)
	now := w.clock.Now()
	for _, c := range []struct {
		by   account.Actor
		want refusal.Code
	}{{user, refusal.Forbidden}, {account.Actor{}, refusal.Forbidden}, {admin, ""}} {
		_, err1 := w.figures.Summary(w.ctx, c.by)
		_, err2 := w.figures.Activity(w.ctx, c.by, w.ledgerKinds(), now, now)
		_, err3 := w.figures.Presence(w.ctx, c.by, now, now)
		_, err4 := w.figures.Outstanding(w.ctx, c.by, now)
		for i, err := range []error{err1, err2, err3, err4} {
			if refusal.CodeOf(err) != c.want || (err == nil) != (c.want == "") {
				w.Errorf("query %d by %+v: %v, want %q", i, c.by, err, c.want)
			}
		}
	}
}
