package console

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const (
	exportMax  = 1_000_000 // entries of one export
	exportStep = 1000
)

// ledgerFilter is what the list shows, as it stands in its address.
type ledgerFilter struct {
	Code, Pickup, Machine, User string
	From, To                    string // days, the last one too
}

// values are the filter's for an address.
func (f *ledgerFilter) values() url.Values {
	set := url.Values{}
	for _, p := range [][2]string{
		{"code", f.Code}, {"pickup", f.Pickup}, {"machine", f.Machine}, {"user", f.User}, {"from", f.From}, {"to", f.To},
	} {
		if p[1] != "" {
			set.Set(p[0], p[1])
		}
	}
	return set
}

// ledgerPage is the list of entries.
type ledgerPage struct {
	Filter              ledgerFilter
	Filtered            bool
	Nothing             string // why nothing can be found
	Entries             []entryView
	First, Older, Table string // addresses; empty: there is none
	Verification        *verificationView
}

// readLedgerFilter reads the filter from the address. Nothing is why there can be
// no such entries.
func (s *server) readLedgerFilter(v *visit) (shown ledgerFilter, f account.LedgerFilter, nothing string, err error) {
	field := func(name string) string { return searchText(v.r.FormValue(name)) }
	shown = ledgerFilter{
		Code: field("code"), Pickup: field("pickup"), Machine: field("machine"), User: field("user"),
		From: field("from"), To: field("to"),
	}
	number := func(text, word string) int64 {
		if text == "" {
			return 0
		}
		n, err := strconv.ParseInt(strings.TrimPrefix(text, "#"), 10, 64)
		if err != nil || n < 1 {
			nothing = v.t(word, text)
			return 0
		}
		return n
	}
	f.CodeID = number(shown.Code, "ledger.no_code")
	f.PickupID = number(shown.Pickup, "ledger.no_pickup")
	if shown.Machine != "" {
		m, err := s.Fleet.Machine(v.ctx(), v.actor(), shown.Machine)
		if refusal.CodeOf(err) == refusal.MachineNotFound {
			nothing = v.t("ledger.no_machine", shown.Machine)
		} else if err != nil {
			return shown, f, "", err
		}
		f.MachineID = m.ID
	}
	if shown.User != "" {
		var found bool
		if f.UserID, found, err = s.userNamed(v, shown.User); err != nil {
			return shown, f, "", err
		}
		if !found {
			nothing = v.t("ledger.no_user", shown.User)
		}
	}
	f.From = dayIn(v, shown.From)
	if f.To = dayIn(v, shown.To); !f.To.IsZero() {
		f.To = f.To.AddDate(0, 0, 1)
	}
	if f.From.IsZero() {
		shown.From = ""
	}
	if f.To.IsZero() {
		shown.To = ""
	}
	return shown, f, nothing, nil
}

// userNamed is the account of a username, or of an id: 0 is the command line,
// which the filter knows as -1.
func (s *server) userNamed(v *visit, text string) (id int64, found bool, err error) {
	u, err := s.Accounts.ByName(v.ctx(), v.actor(), text)
	switch {
	case err == nil:
		return u.ID, true, nil
	case refusal.CodeOf(err) != refusal.AccountNotFound:
		return 0, false, err
	}
	id, err = strconv.ParseInt(strings.TrimPrefix(text, "#"), 10, 64)
	switch {
	case err != nil || id < 0:
		return 0, false, nil //nolint:nilerr // it is a name then, that nobody has
	case id == 0:
		return -1, true, nil
	}
	return id, true, nil
}

func (s *server) ledgerPage(v *visit) error {
	shown, f, nothing, err := s.readLedgerFilter(v)
	if err != nil {
		return err
	}
	set := shown.values()
	p := ledgerPage{Filter: shown, Filtered: len(set) > 0, Nothing: nothing, Table: at("/ledger.csv", set)}
	if nothing == "" {
		f.Before, f.Limit = v.cursor(), pageSize+1
		list, err := s.Accounts.Ledger(v.ctx(), v.actor(), f)
		if err != nil {
			return err
		}
		if f.Before != 0 {
			p.First = at("/ledger", set)
		}
		if len(list) > pageSize {
			list = list[:pageSize]
			older := shown.values()
			older.Set("before", plain(list[pageSize-1].ID))
			p.Older = at("/ledger", older)
		}
		if p.Entries, err = s.entries(v.ctx(), v, list); err != nil {
			return err
		}
	}
	if v.isHTMX() {
		return v.partAt(at("/ledger", set), "ledger", "list", p)
	}
	if p.Verification, err = s.verification(v); err != nil {
		return err
	}
	return v.page(http.StatusOK, "ledger", "ledger", p)
}

// exportLedger sends the entries that the filter chooses as a table, newest first.
func (s *server) exportLedger(v *visit) error {
	_, f, nothing, err := s.readLedgerFilter(v)
	if err != nil {
		return err
	}
	if nothing != "" {
		return refusal.New(refusal.InvalidRequest)
	}
	f.Limit = exportStep
	list, err := s.Accounts.Ledger(v.ctx(), v.actor(), f)
	if err != nil {
		return err
	}
	h := v.w.Header()
	h.Set("Content-Type", "text/csv; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="ledger-`+s.Now().In(v.zone()).Format("20060102-150405")+`.csv"`)
	h.Set("Cache-Control", "no-store")
	// Without the mark in front, Excel takes what is not ASCII for something else.
	if _, err := v.w.Write([]byte("\ufeff")); err != nil {
		return nil //nolint:nilerr // the visitor has left, and needs no answer
	}
	out := csv.NewWriter(v.w)
	_ = out.Write([]string{
		"id", "lane", "seq", "time", "kind", "actor_id", "actor", "address", "account_id", "account", "machine_no",
		"first_id", "last_id", "count", "amount", "detail",
	}) // what fails is told by Error
	for sent := 0; ; {
		users, machines, err := s.named(v.ctx(), v.actor(), list)
		if err != nil {
			return err
		}
		for i := range list {
			_ = out.Write(record(&list[i], users, machines)) // what fails is told by Error
		}
		out.Flush()
		sent += len(list)
		if out.Error() != nil || len(list) < exportStep { // the visitor has left, or it is done
			return nil //nolint:nilerr // who has left needs no answer
		}
		if sent >= exportMax {
			_ = out.Write([]string{v.t("ledger.export_cut", mustNumber(exportMax))}) // what fails is told by Error
			out.Flush()
			return nil
		}
		if err := v.goOn(); err != nil {
			return err
		}
		f.Before = list[len(list)-1].ID
		if list, err = s.Accounts.Ledger(v.ctx(), v.actor(), f); err != nil {
			return err
		}
	}
}

// record is an entry as a row of a table.
func record(e *account.Entry, users map[int64]string, machines map[int64]fleet.Named) []string {
	return []string{
		plain(e.ID), plain(e.Lane), plain(e.Seq), e.At.UTC().Format("2006-01-02T15:04:05.000Z"), string(e.Kind),
		plain(e.ActorID), cell(users[e.ActorID]), cell(e.Address), plain(e.AccountID), cell(users[e.AccountID]),
		machines[e.MachineID].No, plain(e.FirstID), plain(e.LastID), plain(e.Count), plain(e.Amount), cell(e.Detail),
	}
}

// reasonOf is why a balance was changed, as far as somebody said.
func reasonOf(e *account.Entry) string {
	var d detail
	if json.Unmarshal([]byte(e.Detail), &d) != nil {
		return ""
	}
	return d.Reason
}

// verificationView is how far the last verification has come.
type verificationView struct {
	account.Verification
	Running, Stopped, Failed bool
	Left                     string // about how long it takes still; empty: not known
}

// Percent is how much is done.
func (w *verificationView) Percent() int64 {
	if w.Total <= 0 {
		return 0
	}
	return min(100, w.Done*100/w.Total)
}

// Whole says that the ledger is whole.
func (w *verificationView) Whole() bool { return w.Report != nil && len(w.Report.Faults) == 0 }

func (s *server) verification(v *visit) (*verificationView, error) {
	last, err := s.Verifications.Last(v.ctx(), v.actor())
	if err != nil {
		return nil, err
	}
	w := &verificationView{
		Verification: last, Running: last.State == account.VerificationUnderWay,
		Stopped: last.State == account.VerificationStopped, Failed: last.State == account.VerificationFailed,
	}
	if took := last.Updated.Sub(last.Started); w.Running && took > 0 && last.Done > 0 && last.Done < last.Total {
		left := float64(took) * float64(last.Total-last.Done) / float64(last.Done)
		w.Left = v.brief(time.Duration(left) + time.Second)
	}
	return w, nil
}

func (s *server) verificationPage(v *visit) error {
	view, err := s.verification(v)
	if err != nil {
		return err
	}
	if v.isHTMX() {
		return v.part("ledger", "verification", view)
	}
	return v.redirect("/ledger")
}

func (s *server) startVerification(v *visit) error {
	if err := s.Verifications.Begin(v.ctx(), v.actor(), v.user.Username); err != nil {
		return err
	}
	return v.redirect("/ledger")
}

func (s *server) stopVerification(v *visit) error {
	if err := s.Verifications.Stop(v.ctx(), v.actor()); err != nil {
		return err
	}
	return v.redirect("/ledger")
}

// named are the names of those whom entries speak of.
func (s *server) named(
	ctx context.Context, by account.Actor, list []account.Entry,
) (users map[int64]string, machines map[int64]fleet.Named, err error) {
	people, fleetIDs := map[int64]bool{}, map[int64]bool{}
	for i := range list {
		people[list[i].ActorID], people[list[i].AccountID], fleetIDs[list[i].MachineID] = true, true, true
	}
	if users, err = s.Accounts.Names(ctx, by, positive(people)); err != nil {
		return nil, nil, err
	}
	machines, err = s.Fleet.Names(ctx, by, positive(fleetIDs))
	return users, machines, err
}
