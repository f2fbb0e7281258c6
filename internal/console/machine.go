package console

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const (
	productsShown = 200
	pickupsOnPage = 50
	endedShown    = 20
	endedFor      = 24 * time.Hour
	lateShown     = 100
)

// machineHead is what the pages of one machine have on top.
type machineHead struct {
	fleet.Machine
	Merchant string
	Tab      string
	On       bool
	Sent     bool
}

func (s *server) machineHead(v *visit, m fleet.Machine, tab string) (machineHead, error) {
	o, err := s.Fleet.Merchant(v.ctx(), v.actor(), m.MerchantID)
	return machineHead{Machine: m, Merchant: o.Name, Tab: tab, On: m.Online(s.Now())}, err
}

// machineView is a machine's page.
type machineView struct {
	machineHead
	Now machineNow
}

// machineNow is the part of it that changes by itself.
type machineNow struct {
	machineHead
	Gone     bool // the machine was deleted
	Products int  // productsShown+1: more
	Shelves  []shelf
	Live     []pickupRow // of this page
	Count    int
	First    string // addresses; empty: there is none
	Older    string
	Events   string
	Ended    []pickupRow
	Late     []pickupRow
}

// shelf is a row of the machine's front.
type shelf []slot

// slot is a place in it, with the code that ends first.
type slot struct {
	fleet.Product
	Codes int
	First *pickupRow
}

// pickupRow is a pickup code in a list.
type pickupRow struct {
	pickup.Code
	Name, Slot  string // of the product; empty: it is no longer there
	MachineName string
	Gone        bool // the machine was deleted
	Zone        string
	State       pickup.State
	Over        time.Time // when it came to that
}

func newPickupRow(c pickup.Code, p fleet.Product, zone string, now time.Time) pickupRow {
	r := pickupRow{Code: c, Name: p.Name, Slot: p.Slot, Zone: zone, State: c.State(now)}
	switch r.State {
	case pickup.StateUsed:
		r.Over = c.Used
	case pickup.StateWithdrawn:
		r.Over = c.Withdrawn
	case pickup.StateExpired:
		r.Over = c.Expires
	case pickup.StateLive:
	}
	return r
}

// machine shows one machine.
func (s *server) machine(v *visit) error {
	m, err := s.asked(v)
	if err != nil {
		return err
	}
	head, err := s.machineHead(v, m, "codes")
	if err != nil {
		return err
	}
	now, err := s.machineNow(v.ctx(), v.actor(), m.No, v.cursor())
	if err != nil {
		return err
	}
	return v.page(http.StatusOK, "machine", "machines", machineView{head, now})
}

// machineEvents keeps it up to date.
func (s *server) machineEvents(v *visit) error {
	no, before := v.r.PathValue("no"), v.cursor()
	if !fleet.ValidNo(no) {
		return refusal.New(refusal.MachineNotFound)
	}
	return v.stream("machine "+no+" "+strconv.FormatInt(before, 10), "machine", "now", func(ctx context.Context) (any, error) {
		n, err := s.machineNow(ctx, v.actor(), no, before)
		n.Sent = true
		if refusal.CodeOf(err) == refusal.MachineNotFound {
			n.Gone, err = true, nil
		}
		return n, err
	})
}

func (s *server) machineNow(ctx context.Context, by account.Actor, no string, before int64) (n machineNow, err error) {
	now := s.Now()
	m, err := s.Fleet.Machine(ctx, by, no)
	if err != nil {
		return n, err
	}
	n.machineHead = machineHead{Machine: m, On: m.Online(now)}
	products, err := s.Fleet.Products(ctx, by, no, 0, productsShown+1)
	if err != nil {
		return n, err
	}
	named := map[int64]fleet.Product{}
	for _, p := range products {
		named[p.ID] = p
	}
	rows := func(q pickup.Query) (list []pickupRow, err error) {
		q.MachineNo = no
		codes, err := s.Pickups.List(ctx, by, q)
		for _, c := range codes {
			list = append(list, newPickupRow(c, named[c.ProductID], m.Zone, now))
		}
		return list, err
	}
	live, err := rows(pickup.Query{Live: true, Limit: pickup.LiveMax})
	if err != nil {
		return n, err
	}
	// What ends at this moment may be over in this list.
	live = slices.DeleteFunc(live, func(r pickupRow) bool { return r.State != pickup.StateLive })
	n.Products, n.Shelves, n.Count = len(products), shelves(products[:min(len(products), productsShown)], live), len(live)
	n.page(live, before)
	if n.Ended, err = rows(pickup.Query{Ended: now.Add(-endedFor), Limit: endedShown}); err != nil {
		return n, err
	}
	if n.Late, err = rows(pickup.Query{LateUse: true, Limit: lateShown}); err != nil {
		return n, err
	}
	n.Late = slices.DeleteFunc(n.Late, func(r pickupRow) bool { return r.Acknowledged })
	return n, nil
}

// page shows those live codes that are behind the one before.
func (n *machineNow) page(live []pickupRow, before int64) {
	at := "/machines/" + n.No
	n.Events = at + "/events"
	if before > 0 {
		live = slices.DeleteFunc(live, func(r pickupRow) bool { return r.ID >= before })
		n.First = at
		n.Events += "?before=" + strconv.FormatInt(before, 10)
	}
	if len(live) > pickupsOnPage {
		live = live[:pickupsOnPage]
		n.Older = at + "?before=" + strconv.FormatInt(live[pickupsOnPage-1].ID, 10)
	}
	n.Live = live
}

// shelves puts products in rows, by the letters that their slots begin with.
func shelves(products []fleet.Product, live []pickupRow) []shelf {
	first := map[int64]*slot{}
	for i := range live {
		at := first[live[i].ProductID]
		if at == nil {
			at = &slot{}
			first[live[i].ProductID] = at
		}
		at.Codes++
		if at.First == nil || live[i].Expires.Before(at.First.Expires) {
			at.First = &live[i]
		}
	}
	rows := map[string]shelf{}
	for _, p := range products {
		at := slot{Product: p}
		if codes := first[p.ID]; codes != nil {
			at.Codes, at.First = codes.Codes, codes.First
		}
		row, _ := slotOrder(p.Slot)
		rows[row] = append(rows[row], at)
	}
	all := make([]shelf, 0, len(rows))
	for _, row := range slices.SortedFunc(maps.Keys(rows), rowOrder) {
		slices.SortFunc(rows[row], func(a, b slot) int {
			_, na := slotOrder(a.Slot)
			_, nb := slotOrder(b.Slot)
			return cmp.Or(cmp.Compare(na, nb), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.ID, b.ID))
		})
		all = append(all, rows[row])
	}
	return all
}

// slotOrder is the row that a slot is in, and its number there: A and 12 of A12.
// Slots without letters are in rows of ten.
func slotOrder(name string) (row string, number int) {
	digits := strings.TrimLeftFunc(name, func(r rune) bool { return r < '0' || r > '9' })
	row = strings.ToUpper(strings.TrimRight(name[:len(name)-len(digits)], "-_ ."))
	end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		digits = digits[:end]
	}
	number, err := strconv.Atoi(digits)
	if err != nil {
		number = 0
	}
	if row == "" {
		row = strconv.Itoa(number / 10)
	}
	return row, number
}

// rowOrder puts rows of letters behind those of numbers.
func rowOrder(a, b string) int {
	number := func(s string) int {
		if s != "" && unicode.IsDigit(rune(s[0])) {
			n, _ := strconv.Atoi(s) // too long a number stands first
			return n
		}
		return 1 << 30
	}
	return cmp.Or(cmp.Compare(number(a), number(b)), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// pickupID is the pickup code that the address names.
func pickupID(v *visit) (int64, error) {
	if id := v.pathID(); id > 0 {
		return id, nil
	}
	return 0, refusal.New(refusal.PickupNotFound)
}

// withdrawPickup withdraws a code.
func (s *server) withdrawPickup(v *visit) error {
	id, err := pickupID(v)
	if err != nil {
		return err
	}
	if err := s.Pickups.Withdraw(v.ctx(), v.actor(), id); err != nil {
		return err
	}
	return s.afterwards(v, "machine.withdrawn")
}

// acknowledgeOf acknowledges all late uses of a machine.
func (s *server) acknowledgeOf(v *visit) error {
	m, err := s.asked(v)
	if err != nil {
		return err
	}
	if _, err := s.Pickups.AcknowledgeLateOf(v.ctx(), v.actor(), m.No); err != nil {
		return err
	}
	return s.afterwards(v, "late.acknowledged")
}

// afterwards answers to what was done on a machine's page: with the part of it
// that has changed, or the page.
func (s *server) afterwards(v *visit, text string) error {
	m, err := s.asked(v)
	if err != nil {
		return err
	}
	if !v.isHTMX() {
		v.say(v.t(text))
		return v.redirect("/machines/" + m.No)
	}
	n, err := s.machineNow(v.ctx(), v.actor(), m.No, v.cursor())
	if err != nil {
		return err
	}
	n.Sent = true
	return v.part("machine", "now", n)
}
