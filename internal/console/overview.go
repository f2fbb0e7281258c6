package console

import (
	"context"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/figures"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/pickup"
)

const (
	newsLength   = 9 // entries
	silentLength = 5 // machines
	chartDays    = 30
	chartHours   = 24
	// backlogAfter is how long a push may wait before it needs a look.
	backlogAfter = time.Minute
)

// overview is the first page: for who only redeems, that of redeeming.
func (s *server) overview(v *visit) error {
	if v.user.Role < account.RoleAdmin {
		return v.redirect("/redeem")
	}
	now, err := s.standing(v.ctx(), v)
	if err != nil {
		return err
	}
	charts, err := s.charts(v, now.Worth)
	if err != nil {
		return err
	}
	return v.page(http.StatusOK, "overview", "overview", &overview{standing: now, charts: charts})
}

// overviewEvents keeps what the page says of now up to date.
func (s *server) overviewEvents(v *visit) error {
	return v.stream("overview", "overview", "now", func(ctx context.Context) (any, error) {
		now, err := s.standing(ctx, v)
		return &now, err
	})
}

type overview struct {
	standing
	charts
}

// standing is how things stand now.
type standing struct {
	figures.Summary
	Backlog bool // pushes wait for longer than they should
	Late    int
	Silent  []pickup.Silent
	Guesses []guess.Suspect
	News    []entryView
}

// Fresh reports whether there is nothing to look at yet.
func (n *standing) Fresh() bool { return n.Codes == figures.Codes{} && n.Machines == 0 }

// Calm reports whether nothing needs a look.
func (n *standing) Calm() bool {
	return !n.Backlog && n.Late == 0 && len(n.Silent) == 0 && len(n.Guesses) == 0
}

func (s *server) standing(ctx context.Context, v *visit) (n standing, err error) {
	by := v.actor()
	if n.Summary, err = s.Figures.Summary(ctx, by); err != nil {
		return n, err
	}
	n.Backlog = n.Waiting > 0 && s.Now().Sub(n.WaitingSince) > backlogAfter
	if _, n.Late, err = s.Pickups.LateUses(ctx, by, 0, 0); err != nil {
		return n, err
	}
	if n.Silent, err = s.Pickups.Silent(ctx, by, silentLength); err != nil {
		return n, err
	}
	if n.Guesses, err = s.guessing(ctx, by); err != nil {
		return n, err
	}
	list, err := s.Accounts.Ledger(ctx, by, account.LedgerFilter{Limit: newsLength})
	if err != nil {
		return n, err
	}
	n.News, err = s.entries(ctx, v, list)
	return n, err
}

// charts are what happened, by day or by hour.
type charts struct {
	Hours  bool
	Charts []chart
	// Presence is how many machines were online in the last day; nil before anything
	// was noted.
	Presence *chart
}

// chart is a strip of bars, or a line.
type chart struct {
	Name  string // a key of the texts
	Total *big.Int
	Worth *big.Int // what that is worth, nil where it has none
	Bars  []bar
	Most  *big.Int
	Line  string // the path of it; empty: bars are drawn
}

// bar is one day or hour.
type bar struct {
	Label  string
	Count  *big.Int // of a line: how high it is there, nil where that is not known
	Worth  *big.Int
	X, Y   int // of the top left corner, and the height below it, in the drawing
	Height int
}

// The drawing of a chart, in its own units.
const (
	chartHeight = 64
	barStep     = 10
)

// Width is that of the whole drawing.
func (c *chart) Width() int { return len(c.Bars) * barStep }

// charted says which kinds of entries are counted under which name.
func charted() []struct {
	name string
	kind account.Kind
} {
	return []struct {
		name string
		kind account.Kind
	}{
		{"issued", account.KindIssue},
		{"redeemed", account.KindRedeem},
		{"made", account.KindPickupCreate},
		{"used", account.KindPickupUse},
		{"late", account.KindPickupLateUse},
	}
}

// charts are drawn up to now, when live codes are worth what worth says, if it does.
func (s *server) charts(v *visit, worth *figures.Worth) (charts, error) {
	c := charts{Hours: v.r.FormValue("by") == "hours"}
	slots := chartSlots(s.Now().In(v.zone()), c.Hours)
	times := []time.Time{slots[0].from}
	for _, sl := range slots {
		times = append(times, sl.to)
	}
	var kinds []account.Kind
	for _, of := range charted() {
		kinds = append(kinds, of.kind)
	}
	list, err := s.Figures.Activity(v.ctx(), v.actor(), kinds, times...)
	if err != nil {
		return c, err
	}
	for _, of := range charted() {
		c.Charts = append(c.Charts, drawn(of.name, of.kind, slots, list))
	}
	outstanding, err := s.outstanding(v, slots, worth)
	if err != nil {
		return c, err
	}
	if outstanding != nil { // beside those of codes
		c.Charts = slices.Insert(c.Charts, 2, *outstanding)
	}
	c.Presence, err = s.online(v)
	return c, err
}

// period is the time that one bar stands for.
type period struct {
	label    string
	from, to time.Time
}

// chartSlots are the last days, or hours, up to the one that now is in.
func chartSlots(now time.Time, hours bool) []period {
	var slots []period
	if hours {
		// Not Truncate, which counts from the epoch: in zones that are half an hour apart
		// from others, hours begin in the middle of it.
		this := now.Add(-time.Duration(now.Minute())*time.Minute - time.Duration(now.Second())*time.Second -
			time.Duration(now.Nanosecond()))
		for i := chartHours - 1; i >= 0; i-- {
			from := this.Add(-time.Duration(i) * time.Hour)
			slots = append(slots, period{from.Format("01-02 15:00"), from, from.Add(time.Hour)})
		}
		return slots
	}
	y, m, d := now.Date()
	for i := chartDays - 1; i >= 0; i-- {
		from := time.Date(y, m, d-i, 0, 0, 0, 0, now.Location())
		slots = append(slots, period{from.Format("2006-01-02"), from, time.Date(y, m, d-i+1, 0, 0, 0, 0, now.Location())})
	}
	return slots
}

// drawn is the chart of one kind. List is in the order of time.
func drawn(name string, kind account.Kind, slots []period, list []figures.Activity) chart {
	c := chart{Name: name, Total: new(big.Int), Bars: make([]bar, len(slots))}
	worth := kind == account.KindIssue || kind == account.KindRedeem
	if worth {
		c.Worth = new(big.Int)
	}
	for i, sl := range slots {
		c.Bars[i] = bar{Label: sl.label, Count: new(big.Int)}
		if worth {
			c.Bars[i].Worth = new(big.Int)
		}
	}
	at := 0
	for _, a := range list {
		for at < len(slots)-1 && !a.From.Before(slots[at].to) {
			at++
		}
		if a.Kind != kind {
			continue
		}
		b := &c.Bars[at]
		b.Count.Add(b.Count, big.NewInt(a.Count))
		c.Total.Add(c.Total, big.NewInt(a.Count))
		if worth {
			b.Worth.Add(b.Worth, a.Amount)
			c.Worth.Add(c.Worth, a.Amount)
		}
	}
	c.scale()
	return c
}

// measure finds the most that is in the chart.
func (c *chart) measure() {
	c.Most = new(big.Int)
	for i := range c.Bars {
		if n := c.Bars[i].Count; n != nil && n.Cmp(c.Most) > 0 {
			c.Most = n
		}
	}
}

// scale places the bars in the drawing.
func (c *chart) scale() {
	c.measure()
	for i := range c.Bars {
		b := &c.Bars[i]
		b.X = i * barStep
		if b.Count.Sign() > 0 {
			h := new(big.Int).Mul(b.Count, big.NewInt(chartHeight))
			b.Height = max(2, int(h.Div(h, c.Most).Int64())) // what is there is seen
		}
		b.Y = chartHeight - b.Height
	}
}

// outstanding is what live codes were worth at the end of each slot, and are worth
// now; nil if that was never known.
func (s *server) outstanding(v *visit, slots []period, worth *figures.Worth) (*chart, error) {
	times := make([]time.Time, len(slots))
	for i, sl := range slots {
		times[i] = sl.to
	}
	list, err := s.Figures.Outstanding(v.ctx(), v.actor(), times...)
	if err != nil {
		return nil, err
	}
	c := &chart{Name: "outstanding", Bars: make([]bar, len(slots))}
	for i, sl := range slots {
		c.Bars[i] = bar{Label: sl.label, X: i * barStep}
		if len(list) > 0 && list[0].At.Equal(sl.to) {
			c.Bars[i].Count, list = list[0].Worth, list[1:]
		}
	}
	last := &c.Bars[len(slots)-1]
	if worth != nil {
		last.Count = worth.Live
	}
	if last.Count == nil {
		return nil, nil
	}
	c.Total = last.Count
	c.draw()
	return c, nil
}

// draw draws the line, which is level in each slot.
func (c *chart) draw() {
	const low, high = chartHeight - 1, 2 // all of the line's width is in the drawing
	c.measure()
	var line strings.Builder
	for i := range c.Bars {
		b := &c.Bars[i]
		if b.Count == nil {
			continue
		}
		b.Y = low
		if b.Count.Sign() > 0 {
			h := new(big.Int).Mul(b.Count, big.NewInt(low-high))
			b.Y -= int(h.Div(h, c.Most).Int64())
		}
		b.Height = chartHeight - b.Y
		to := "L"
		if line.Len() == 0 {
			to = "M"
		}
		fmt.Fprintf(&line, "%s%d %dh%d", to, b.X, b.Y, barStep)
	}
	c.Line = line.String()
}

// online is how many machines were online in the last day.
func (s *server) online(v *visit) (*chart, error) {
	now := s.Now()
	list, err := s.Figures.Presence(v.ctx(), v.actor(), now.Add(-24*time.Hour), now)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	c := &chart{Name: "online", Total: big.NewInt(list[len(list)-1].Online)}
	const strip = 96 // bars: a quarter of an hour each
	from := now.Add(-24 * time.Hour).Truncate(figures.Quarter)
	c.Bars = make([]bar, strip+1)
	for i := range c.Bars {
		c.Bars[i] = bar{Label: from.Add(time.Duration(i) * figures.Quarter).In(v.zone()).Format("01-02 15:04"), Count: new(big.Int)}
	}
	for _, p := range list {
		if i := int(p.At.Sub(from) / figures.Quarter); i >= 0 && i < len(c.Bars) && p.Online > c.Bars[i].Count.Int64() {
			c.Bars[i].Count = big.NewInt(p.Online)
		}
	}
	c.scale()
	return c, nil
}

// guessing is who guesses passwords, keys or machines' passwords now.
func (s *server) guessing(ctx context.Context, by account.Actor) (all []guess.Suspect, err error) {
	for _, g := range s.guarded() {
		list, err := g.guessing(ctx, by)
		if err != nil {
			return nil, fmt.Errorf("asking who guesses: %w", err)
		}
		all = append(all, list...)
	}
	return all, nil
}
