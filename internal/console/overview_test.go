package console_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
)

// count brings the figures up to date.
func (p *people) count(t *testing.T) {
	t.Helper()
	p.now.Add(60)
	if err := p.config.Figures.Fold(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.config.Figures.Recount(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestOverview: its figures are what was done.
func TestOverview(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.get(t, "admin", "/").has(t, 200, "Nothing needs a look", ">0<span class=\"of\"> / 0<", "First steps", `href="/codes/new"`, `href="/machines/new"`)
	m := p.machine(t)
	p.get(t, "admin", "/").has(t, 200, "!First steps")
	keys := p.batch(t, "spring", 5, time.Time{}) // each worth 1,000
	p.batch(t, "short", 2, time.Unix(2_000_000_010, 0))
	p.use(t, keys[0], keys[1])
	p.disable(t, 3)
	c := p.pickup(t, 1)
	if _, err := p.pickups.Used(t.Context(), m.ID, c.ID, "192.0.2.1", time.Time{}); err != nil {
		t.Fatal(err)
	}
	p.now.Add(30)
	if err := p.codes.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.count(t)
	r := p.get(t, "admin", "/")
	r.inOrder(t,
		"Outstanding value", ">2,000<", "2 live codes",
		"Redeemed value", ">2,000<", "2 codes",
		"Expired value", ">2,000<", "2 codes",
		"Machines online", "> / 1<",
		"Newest activity", "disabled code",
		"The last 30 days",
		"Codes made", "<b>7</b>", "worth 7,000",
		"Codes redeemed", "<b>2</b>", "worth 2,000",
		"Pickup codes made", "<b>1</b>",
		"Pickups", "<b>1</b>",
		"Late uses", "<b>0</b>",
	)
	for _, key := range keys {
		if strings.Contains(r.body, key) {
			t.Error("it shows a key")
		}
	}
	// Each day has a bar, the last of which is today, with what was made.
	bars := regexp.MustCompile(`<title>(2033-\d\d-\d\d): ([\d,]+)`).FindAllStringSubmatch(r.body, -1)
	if len(bars) != 5*30+1 || // the line has today alone
		bars[0][1] != "2033-04-19" || bars[29][1] != "2033-05-18" || bars[29][2] != "7" || bars[28][2] != "0" {
		t.Errorf("%d bars: %v", len(bars), bars)
	}
	p.get(t, "admin", "/?by=junk").has(t, 200, "The last 30 days")
}

// TestOverviewLooks: what needs a look is named, and leads to where it is.
func TestOverviewLooks(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	m := p.machine(t)
	p.lateUse(t, m, 1)
	p.pickup(t, 2)
	p.now.Add(600)
	for range limitOfGuesses {
		_, _ = p.codes.Redeem(t.Context(), account.Actor{ID: p.ids["alice"], Role: account.RoleUser, Address: "192.0.2.9"}, "no such key", nil)
	}
	r := p.get(t, "admin", "/")
	r.has(t, 200, "!Nothing needs a look", "1 code was used after its end", `href="/late"`, "Lobby is silent", `href="/machines/`+machineNo+`"`,
		"to be delivered", `href="/settings#guesses"`)
	if !regexp.MustCompile(`\d guess passwords or keys|Someone is guessing`).MatchString(r.body) {
		t.Error("who guesses is not there")
	}
	p.get(t, "admin", "/settings").has(t, 200, `id="guesses"`)
	p.post(t, "admin", "/machines/"+machineNo+"/late/all")
	p.get(t, "admin", "/").has(t, 200, "!used after its end")

	// Whoever tries passwords of people or machines guesses too.
	p.now.Add(3600)
	p.get(t, "admin", "/").has(t, 200, "!guess passwords", "!Someone is guessing")
	for range limitOfGuesses {
		_, _ = p.fleet.Login(t.Context(), machineNo, "wrong", "192.0.2.77")
	}
	p.get(t, "admin", "/").has(t, 200, "Someone is guessing")
	p.now.Add(3600)
	for range limitOfGuesses {
		_, _, _ = p.accounts.LoginToken(t.Context(), "wrong", "192.0.2.78")
	}
	p.get(t, "admin", "/").has(t, 200, "Someone is guessing")
}

// TestChartsByHour: hours begin when they do where one is, and the one that is
// under way counts.
func TestChartsByHour(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.batch(t, "spring", 3, time.Time{})
	p.count(t)
	for zone, want := range map[string]string{
		"UTC": "05-18 03:00", "Asia/Kolkata": "05-18 09:00", "Asia/Kathmandu": "05-18 09:00", "Australia/Adelaide": "05-18 13:00", "America/St_Johns": "05-18 01:00",
	} {
		p.zone(t, zone)
		r := p.get(t, "admin", "/?by=hours")
		r.inOrder(t, "The last 24 hours", "Codes made", "<b>3</b>")
		bars := regexp.MustCompile(`<title>([^:]+:\d\d): ([\d,]+)`).FindAllStringSubmatch(r.body, -1)
		if len(bars) != 5*24+1 || bars[23][1] != want || bars[23][2] != "3" {
			t.Errorf("%s: %d bars, the last %v, want %s", zone, len(bars), bars[23], want)
		}
	}
}

// TestOnline: how many machines were online is drawn once it was noted.
func TestOnline(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.machine(t)
	p.get(t, "admin", "/").has(t, 200, "!Machines online, 24 hours")
	if err := p.config.Figures.NotePresence(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.get(t, "admin", "/").has(t, 200, "Machines online, 24 hours")
}

// TestOutstanding: what codes are worth is drawn as a line, from when it was first
// known up to now.
func TestOutstanding(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	note := func(later int64) {
		t.Helper()
		p.now.Add(later)
		if err := p.config.Figures.NoteOutstanding(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := func(path, figure, line string, bars ...string) {
		t.Helper()
		r := p.get(t, "admin", path)
		r.inOrder(t, "Codes redeemed", "<span>Outstanding value</span><b>"+figure+"</b>", `<path class="line" d="`+line+`"/>`, "Pickup codes made")
		_, chart, _ := strings.Cut(r.body, "<span>Outstanding value")
		chart, _, _ = strings.Cut(chart, "</svg>")
		var got []string
		for _, m := range regexp.MustCompile(`<title>([^<]+)`).FindAllStringSubmatch(chart, -1) {
			got = append(got, m[1])
		}
		if !slices.Equal(got, bars) {
			t.Errorf("%s: the line goes through %q, want %q", path, got, bars)
		}
	}
	p.batch(t, "spring", 1, time.Time{}) // worth 1,000
	want("/", "1,000", "M290 2h10", "2033-05-18: 1,000")
	note(0)
	p.batch(t, "spring", 3, time.Time{})
	note(3600)
	p.disable(t, 1)
	note(24 * 3600)
	p.disable(t, 2)
	want("/", "2,000", "M280 2h10L290 33h10", "2033-05-18: 4,000", "2033-05-19: 2,000")
	line, bars := "M0 2h10", []string{"05-18 05:00: 4,000"}
	for i := 1; i < 23; i++ {
		line += fmt.Sprintf("L%d 2h10", 10*i)
		bars = append(bars, time.Date(2033, 5, 18, 5+i, 0, 0, 0, time.UTC).Format("01-02 15:00: ")+"4,000")
	}
	want("/?by=hours", "2,000", line+"L230 33h10", append(bars, "05-19 04:00: 2,000")...)
}
