package console

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const (
	machinesOnPage = 50
	// merchantsShown is how many merchants there are to choose from.
	merchantsShown = 100
	searchMax      = 100 // characters
)

// machineFilter is what the list's address says.
type machineFilter struct {
	Search   string
	Online   string // yes, no or empty
	Merchant int64
	Before   int64
}

// machineFilterOf reads the filter of an address; what is no filter is none.
func machineFilterOf(r *http.Request) machineFilter {
	f := machineFilter{
		Search: searchText(r.FormValue("q")), Online: r.FormValue("online"),
		Merchant: wholeNumber(r.FormValue("merchant")), Before: wholeNumber(r.FormValue("before")),
	}
	if f.Online != "yes" && f.Online != "no" {
		f.Online = ""
	}
	return f
}

// searchText is what to search for: a text that a database takes.
func searchText(s string) string {
	s = strings.TrimSpace(s)
	if !account.CleanText(s) || utf8.RuneCountInString(s) > searchMax {
		return ""
	}
	return s
}

// wholeNumber reads a number above 0; else it is 0.
func wholeNumber(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0
	}
	return max(0, n)
}

// query is the filter in an address, with its question mark if there is any.
func (f machineFilter) query() string {
	q := url.Values{}
	for name, value := range map[string]string{"q": f.Search, "online": f.Online} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, value := range map[string]int64{"merchant": f.Merchant, "before": f.Before} {
		if value > 0 {
			q.Set(name, strconv.FormatInt(value, 10))
		}
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// machinesView is the list of machines.
type machinesView struct {
	machineFilter
	Merchants []fleet.Merchant
	Rows      []machineRow
	// All is how many machines there are, and On how many of them are online.
	All, On      int64
	First, Older string // addresses; empty: there is none
	Events       string
	// Sent says that the part is sent into a page that is there.
	Sent bool
}

// Filtered reports whether not all machines are asked for.
func (m *machinesView) Filtered() bool { return m.Search != "" || m.Online != "" || m.Merchant != 0 }

// machineRow is one machine in the list.
type machineRow struct {
	fleet.Machine
	pickup.Waiting
	Here     bool // it is online
	Merchant string
}

// Unheard is how many messages the machine has not acknowledged.
func (r *machineRow) Unheard() int { return r.Queued + r.Sent }

// machines lists machines.
func (s *server) machines(v *visit) error {
	f := machineFilterOf(v.r)
	m, err := s.machineList(v.ctx(), v.actor(), f)
	if err != nil {
		return err
	}
	if v.isHTMX() {
		m.Sent = true
		return v.partAt("/machines"+f.query(), "machines", "list", m)
	}
	return v.page(http.StatusOK, "machines", "machines", m)
}

// machinesEvents keeps the list up to date.
func (s *server) machinesEvents(v *visit) error {
	f := machineFilterOf(v.r)
	return v.stream("machines"+f.query(), "machines", "rows", func(ctx context.Context) (any, error) {
		m, err := s.machineList(ctx, v.actor(), f)
		m.Sent = true
		return m, err
	})
}

func (s *server) machineList(ctx context.Context, by account.Actor, f machineFilter) (m *machinesView, err error) {
	m = &machinesView{machineFilter: f, Events: "/machines/events" + f.query()}
	q := fleet.MachineQuery{Search: f.Search, Merchant: f.Merchant, Before: f.Before, Limit: machinesOnPage + 1}
	if f.Online != "" {
		online := f.Online == "yes"
		q.Online = &online
	}
	found, err := s.Fleet.Find(ctx, by, q)
	if err != nil {
		return m, err
	}
	if len(found) > machinesOnPage {
		found = found[:machinesOnPage]
		next := f
		next.Before = found[machinesOnPage-1].ID
		m.Older = "/machines" + next.query()
	}
	if f.Before > 0 {
		first := f
		first.Before = 0
		m.First = "/machines" + first.query()
	}
	if m.Merchants, err = s.Fleet.Merchants(ctx, by, 0, merchantsShown); err != nil {
		return m, err
	}
	names := map[int64]string{}
	for i := range m.Merchants {
		names[m.Merchants[i].ID] = m.Merchants[i].Name
	}
	ids := make([]int64, len(found))
	for i := range found {
		ids[i] = found[i].ID
		if owner := found[i].MerchantID; names[owner] == "" {
			o, err := s.Fleet.Merchant(ctx, by, owner)
			if err != nil {
				return m, err
			}
			names[owner] = o.Name
		}
	}
	waiting, err := s.Pickups.Waiting(ctx, by, ids)
	if err != nil {
		return m, err
	}
	now := s.Now()
	for _, found := range found {
		m.Rows = append(m.Rows, machineRow{
			Machine: found, Waiting: waiting[found.ID], Here: found.Online(now), Merchant: names[found.MerchantID],
		})
	}
	sum, err := s.Figures.Summary(ctx, by)
	m.All, m.On = sum.Machines, sum.Online
	return m, err
}

// machineForm is a machine that is to be made.
type machineForm struct {
	No, Name, Zone string
	Limit          int64
	Merchant       int64
	MerchantName   string // of the one to be made with it
	Merchants      []fleet.Merchant
	Problem        string
}

// newMachine shows the form that adds a machine.
func (s *server) newMachine(v *visit) error {
	return s.machineForm(v, http.StatusOK, &machineForm{Zone: v.zone().String(), Limit: 1})
}

func (s *server) machineForm(v *visit, status int, f *machineForm) (err error) {
	if f.Merchants, err = s.Fleet.Merchants(v.ctx(), v.actor(), 0, merchantsShown); err != nil {
		return err
	}
	return v.page(status, "machine-new", "machines", f)
}

// addMachine makes a machine, and its merchant if there is none yet. It answers
// with its connection, which has the password: this once.
func (s *server) addMachine(v *visit) error {
	f := &machineForm{
		No: strings.TrimSpace(v.r.PostFormValue("machine_no")), Name: v.r.PostFormValue("name"),
		Zone: strings.TrimSpace(v.r.PostFormValue("zone")), Limit: wholeNumber(v.r.PostFormValue("limit")),
		Merchant: wholeNumber(v.r.PostFormValue("merchant")), MerchantName: v.r.PostFormValue("merchant_name"),
	}
	password := fleet.NewPassword()
	m, err := s.makeMachine(v, f, password)
	if err != nil {
		if f.Problem, err = v.refused(err); err != nil {
			return err
		}
		return s.machineForm(v, http.StatusUnprocessableEntity, f)
	}
	return s.connectionPage(v, m, password, false)
}

func (s *server) makeMachine(v *visit, f *machineForm, password string) (fleet.Machine, error) {
	m := fleet.Machine{
		No: f.No, Name: f.Name, Zone: f.Zone, PurchaseLimit: int(min(f.Limit, fleet.PurchaseLimitMax+1)),
		PickupCodes: true, MerchantID: f.Merchant,
	}
	if m.MerchantID == 0 {
		o, err := s.Fleet.CreateMerchant(v.ctx(), v.actor(), fleet.Merchant{Name: f.MerchantName}, nil)
		if err != nil {
			return m, err
		}
		m.MerchantID, f.Merchant = o.ID, o.ID
	}
	return s.Fleet.CreateMachine(v.ctx(), v.actor(), m, password, nil)
}

// asked finds the machine that the address names.
func (s *server) asked(v *visit) (fleet.Machine, error) {
	no := v.r.PathValue("no")
	if !fleet.ValidNo(no) {
		return fleet.Machine{}, refusal.New(refusal.MachineNotFound)
	}
	return s.Fleet.Machine(v.ctx(), v.actor(), no)
}
