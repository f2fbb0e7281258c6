package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/sheet"
)

const (
	pageSize    = 50
	batchesSize = 50
	// allMax is how many codes can be chosen at once: as many as one sheet takes.
	allMax = sheet.MaxCards
	// offsetMax keeps a page number from meaning nothing.
	offsetMax = 1 << 40
)

// codeFilter is what the list of codes is narrowed down by, as it stands in the
// address.
type codeFilter struct {
	Query, Status, Batch, User, From, To string
}

// codeFilterOf reads what link wrote.
func codeFilterOf(get func(name string) string) codeFilter {
	return codeFilter{
		Query: get("q"), Status: get("status"), Batch: get("batch"),
		User: strings.TrimSpace(get("user")), From: get("from"), To: get("to"),
	}
}

// Narrow reports whether anything is left out.
func (f codeFilter) Narrow() bool { return f != codeFilter{} }

// link is the address of a page of the list.
func (f codeFilter) link(extra ...string) string {
	q := url.Values{}
	for name, value := range map[string]string{
		"q": f.Query, "status": f.Status, "batch": f.Batch, "user": f.User, "from": f.From, "to": f.To,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for i := 0; i+1 < len(extra); i += 2 {
		q.Set(extra[i], extra[i+1])
	}
	return at("/codes", q)
}

// Link is the address of the list.
func (f codeFilter) Link() string { return f.link() }

// statuses are the filters by their name in the address.
func statuses() map[string]redemption.Filter {
	return map[string]redemption.Filter{
		"live": redemption.FilterLive, "disabled": redemption.FilterDisabled,
		"used": redemption.FilterUsed, "expired": redemption.FilterExpired,
	}
}

// search is what the filter chooses. Who is found by name; a name that nobody has
// is told.
func (f codeFilter) search(v *visit) (s redemption.Search, nobody bool, err error) {
	s = redemption.Search{Keyword: keyword(f.Query), Filter: statuses()[f.Status], From: dayIn(v, f.From), To: dayIn(v, f.To)}
	if !s.To.IsZero() {
		s.To = s.To.AddDate(0, 0, 1) // to the end of the day
	}
	if f.Batch != "" {
		s.Batch = &f.Batch
	}
	if f.User != "" {
		u, err := v.s.Accounts.ByName(v.ctx(), v.actor(), f.User)
		if refusal.CodeOf(err) == refusal.AccountNotFound {
			return s, true, nil
		}
		if err != nil {
			return s, false, err
		}
		s.UsedBy = u.ID
	}
	return s, false, nil
}

// keyword is what to look for. What is too long for a name may be a key in groups, as
// pages and sheets show it.
func keyword(text string) string {
	if utf8.RuneCountInString(text) > redemption.NameMax {
		return unspaced(text)
	}
	return text
}

// dayIn is the beginning of a day that was typed, where the visitor is; zero if it
// is none.
func dayIn(v *visit, text string) time.Time {
	t, err := v.typed(time.DateOnly, text)
	if err != nil || t.Year() < 1971 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// codeRow is a code in the list: its key is not there.
type codeRow struct {
	redemption.Code
	State  string // live, disabled, used or expired
	Kind   string // of the mark beside it
	Masked string
	By     string // who redeemed it
}

type codeList struct {
	Filter     codeFilter
	Nobody     bool // has the name that is asked for
	Rows       []codeRow
	Total      int64 // -1: not known
	Older      string
	Newer      string
	Batches    []redemption.BatchCount // to choose from
	Jobs       []redemption.Job        // under way
	LiveWorth  string
	First, End int64 // which rows of Total these are
	// All is what may be chosen at once, if that is more than this page; else nil.
	All *offer
}

func (s *server) codes(v *visit) error {
	list, err := s.codeList(v)
	if err != nil {
		return err
	}
	if v.isHTMX() {
		return v.partAt(list.Filter.Link(), "codes", "rows", list)
	}
	if list.Batches, _, err = s.Redemptions.Batches(v.ctx(), v.actor(), "", 0, batchesSize); err != nil {
		return err
	}
	jobs, err := s.Redemptions.Jobs(v.ctx(), v.actor(), 5)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if j.State == redemption.JobUnderWay {
			list.Jobs = append(list.Jobs, j)
		}
	}
	sum, err := s.Figures.Summary(v.ctx(), v.actor())
	if err != nil {
		return err
	}
	return v.page(http.StatusOK, "codes", "codes", map[string]any{"List": list, "Sum": sum})
}

func (s *server) codeList(v *visit) (list codeList, err error) {
	list.Filter = codeFilterOf(v.r.FormValue)
	search, nobody, err := list.Filter.search(v)
	if err != nil || nobody {
		list.Nobody = nobody
		return list, err
	}
	offset := min(max(number64(v.r.FormValue("at")), 0), offsetMax)
	search.Before = max(number64(v.r.FormValue("before")), 0)
	found, err := s.Redemptions.Find(v.ctx(), v.actor(), search, offset, pageSize)
	if err != nil {
		return list, err
	}
	list.Total = found.Total
	if list.Rows, err = s.codeRows(v, found.Codes); err != nil {
		return list, err
	}
	switch {
	case search.UsedBy != 0:
		if found.Next != 0 {
			list.Older = list.Filter.link("before", plain(found.Next))
		}
		if search.Before != 0 {
			list.Newer = list.Filter.link()
		}
	default:
		list.First, list.End = offset+1, offset+int64(len(list.Rows))
		if list.End < list.Total {
			list.Older = list.Filter.link("at", plain(offset+pageSize))
		}
		if offset > 0 {
			list.Newer = list.Filter.link("at", plain(max(0, offset-pageSize)))
		} else if list.End < list.Total && list.Total <= allMax && len(list.Rows) > 0 {
			list.All = &offer{list.Rows[0].ID, list.Total, v.zone().String()}
		}
	}
	return list, nil
}

// number64 reads a number of an address; 0 if it is none.
func number64(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (s *server) codeRows(v *visit, codes []redemption.View) ([]codeRow, error) {
	users := map[int64]bool{}
	for i := range codes {
		users[codes[i].UsedBy] = true
	}
	names, err := s.Accounts.Names(v.ctx(), v.actor(), positive(users))
	if err != nil {
		return nil, err
	}
	rows := make([]codeRow, len(codes))
	for i := range codes {
		rows[i] = codeRow{Code: codes[i].Code, Masked: masked(codes[i].Key), By: names[codes[i].UsedBy]}
		rows[i].State, rows[i].Kind = codeState(&codes[i].Code, s.Now())
	}
	return rows, nil
}

// codeState is what a code is, and the mark of that.
func codeState(c *redemption.Code, now time.Time) (state, kind string) {
	switch {
	case c.Status == redemption.StatusUsed:
		return "used", "over"
	case c.Status == redemption.StatusDisabled:
		return "disabled", "bad"
	case c.Expired(now):
		return "expired", "over"
	}
	return "live", "live"
}

// masked leaves of a key what tells it from others, and is of no use to guess the
// rest.
func masked(key string) string {
	if len(key) < 16 {
		return "····"
	}
	return key[:4] + " ···· " + key[len(key)-2:]
}

// codeForm is what the form for new codes holds.
type codeForm struct {
	Name, Count, Quota, Expires string
	Once                        string
	Problem                     string
}

func (s *server) newCodes(v *visit) error {
	return v.page(http.StatusOK, "codes-new", "codes", codeForm{
		Count: "10", Quota: v.r.FormValue("quota"), Name: v.r.FormValue("name"), Once: newOnce(),
	})
}

// makeCodes makes a batch. Sent twice, the second time leads to the first one's.
func (s *server) makeCodes(v *visit) error {
	f := codeForm{
		Name: v.r.PostFormValue("name"), Count: v.r.PostFormValue("count"),
		Quota: v.r.PostFormValue("quota"), Expires: v.r.PostFormValue("expires"), Once: newOnce(),
	}
	r := redemption.IssueRequest{Name: f.Name}
	// What is no number is 0, which is refused.
	r.Count, _ = amount(f.Count)
	r.Quota, _ = amount(f.Quota)
	var err error
	if r.Expires, err = typedTime(v, f.Expires); err == nil {
		id := func(result any) string {
			job, _ := result.(redemption.Job)
			return plain(job.ID)
		}
		var job redemption.Job
		var first string
		first, err = v.onceAnswered(id, func(ctx context.Context, once *account.Once) (err error) {
			r.Once = once
			job, err = s.Redemptions.StartIssue(ctx, v.actor(), r)
			return err
		})
		if err == nil {
			return v.redirect("/jobs/" + cmp.Or(first, plain(job.ID)))
		}
	}
	if f.Problem, err = v.refused(err); err != nil {
		return err
	}
	return v.page(http.StatusUnprocessableEntity, "codes-new", "codes", f)
}

// typedTime reads a moment that a person typed, to the end of its minute; zero for
// none.
func typedTime(v *visit, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := v.typed("2006-01-02T15:04", text)
	if err != nil {
		return time.Time{}, refusal.New(refusal.RedemptionExpiryRange)
	}
	return t.Add(time.Minute - time.Second), nil
}

// typed reads a moment where the visitor is. One that is left out there, since clocks
// are put forward, is as much later, as browsers have it.
func (v *visit) typed(form, text string) (time.Time, error) {
	t, err := time.ParseInLocation(form, text, v.zone())
	if err != nil {
		return t, err
	}
	_, offset := t.Zone()
	said, err := time.Parse(form, text)
	return t.Add(said.Sub(t.Add(time.Duration(offset) * time.Second))), err
}

// codePage is one code, with its story.
type codePage struct {
	codeRow
	Key     string // empty unless it was asked for
	Link    string // where it is redeemed
	Maker   string
	Story   []entryView
	Problem string
	Edit    codeForm
	Was     codeForm // as it is stored
}

func (s *server) code(v *visit) error { return s.showCode(v, http.StatusOK, nil) }

// showCode shows a code; change has the page say more.
func (s *server) showCode(v *visit, status int, change func(*codePage) error) error {
	id := number64(v.r.PathValue("id"))
	c, err := s.Redemptions.Get(v.ctx(), v.actor(), id)
	if err != nil {
		return err
	}
	rows, err := s.codeRows(v, []redemption.View{c})
	if err != nil {
		return err
	}
	p := codePage{codeRow: rows[0], Edit: codeForm{Name: c.Name, Quota: plain(c.Quota)}}
	if !c.Expires.IsZero() {
		p.Edit.Expires = c.Expires.In(v.zone()).Format("2006-01-02T15:04")
	}
	p.Was = p.Edit
	names, err := s.Accounts.Names(v.ctx(), v.actor(), []int64{c.CreatorID})
	if err != nil {
		return err
	}
	p.Maker = names[c.CreatorID]
	if change != nil {
		if err := change(&p); err != nil {
			return err
		}
	}
	list, err := s.Accounts.Ledger(v.ctx(), v.actor(), account.LedgerFilter{CodeID: id, Limit: pageSize})
	if err != nil {
		return err
	}
	if p.Story, err = s.entries(v.ctx(), v, list); err != nil {
		return err
	}
	return v.page(status, "code", "codes", p)
}

// revealCode shows a code with its key; that is on record.
func (s *server) revealCode(v *visit) error {
	return s.showCode(v, http.StatusOK, func(p *codePage) error {
		found, err := s.Redemptions.Reveal(v.ctx(), v.actor(), []int64{p.ID})
		if err != nil {
			return err
		}
		p.Key, p.Link = found[0].Key, v.redeemLink(found[0].Key)
		return nil
	})
}

// redeemLink is where a key is redeemed.
func (v *visit) redeemLink(key string) string {
	return v.origin() + "/redeem?key=" + url.QueryEscape(key)
}

// changeCode changes of a code's name, worth and end what is other than it was when
// the form was shown: somebody else may have changed the rest.
func (s *server) changeCode(v *visit) error {
	post := v.r.PostFormValue
	f := codeForm{Name: post("name"), Quota: post("quota"), Expires: post("expires")}
	quota, _ := amount(f.Quota) // 0 is refused
	expires, err := typedTime(v, f.Expires)
	if err == nil {
		touched := func(name string) bool { return !v.r.PostForm.Has(name+"_was") || post(name) != post(name+"_was") }
		var ch redemption.Change
		if touched("name") {
			ch.Name = &f.Name
		}
		if post("used") == "" && touched("quota") {
			ch.Quota = &quota
		}
		if post("used") == "" && touched("expires") {
			ch.Expires = &expires
		}
		var c redemption.View
		if c, err = s.Redemptions.Change(v.ctx(), v.actor(), number64(v.r.PathValue("id")), ch); err == nil {
			v.say(v.t("code.changed", plain(c.ID)))
			return v.redirect("/codes/" + plain(c.ID))
		}
	}
	problem, err := v.refused(err)
	if err != nil {
		return err
	}
	return s.showCode(v, http.StatusUnprocessableEntity, func(p *codePage) error {
		p.Problem, p.Edit = problem, f
		return nil
	})
}

// ticked are the ids of the rows that were ticked.
func ticked(v *visit) ([]int64, error) {
	var ids []int64
	for _, text := range v.r.PostForm["id"] {
		id := number64(text)
		if id <= 0 {
			return nil, refusal.New(refusal.InvalidRequest)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) == 0 || len(ids) > redemption.CountMax {
		return nil, refusal.New(refusal.InvalidRequest)
	}
	return ids, nil
}

// offer is all that a list had when somebody looked at it.
type offer struct {
	Newest, Total int64
	Zone          string // in which days were read
}

// errChanged says that a list is not what it was when somebody chose all of it.
var errChanged = errors.New("the list has changed")

// listed are the ids of all codes that the list at an address has, but for those that
// are newer than any that somebody saw there. It fails with errChanged if that may be
// others than those that were offered.
func (s *server) listed(v *visit, link string, seen offer) (ids []int64, err error) {
	where, err := url.Parse(local(link, ""))
	if err != nil || where.Path != "/codes" || seen.Newest <= 0 {
		return nil, refusal.New(refusal.InvalidRequest)
	}
	search, nobody, err := codeFilterOf(where.Query().Get).search(v)
	if err != nil {
		return nil, err
	}
	if nobody || search.UsedBy != 0 { // of these a list offers no such choice
		return nil, refusal.New(refusal.InvalidRequest)
	}
	found, err := s.Redemptions.Find(v.ctx(), v.actor(), search, 0, allMax) // in one snapshot: pages would shift
	if err != nil {
		return nil, err
	}
	for i := range found.Codes {
		if id := found.Codes[i].ID; id <= seen.Newest {
			ids = append(ids, id)
		}
	}
	// Fewer there may be: what was redeemed meanwhile has left a list of live codes.
	if n := int64(len(ids)); n == 0 || n > seen.Total || found.Total > allMax || seen.Zone != v.zone().String() {
		return nil, errChanged
	}
	return ids, nil
}

// manyCodes does something with the codes that were ticked, or with all of the list.
func (s *server) manyCodes(v *visit) error {
	post := v.r.PostFormValue
	back := local(post("back"), "/codes")
	var ids []int64
	var err error
	if post("all") == "" {
		ids, err = ticked(v)
	} else {
		ids, err = s.listed(v, post("back"), offer{number64(post("all")), number64(post("of")), post("zone")})
	}
	if errors.Is(err, errChanged) {
		v.sayLater(said{Text: v.t("codes.list_changed"), Bad: true})
		return v.redirect(back)
	}
	if err != nil {
		return err
	}
	switch what := post("do"); what {
	case "enable", "disable":
		status := redemption.StatusEnabled
		if what == "disable" {
			status = redemption.StatusDisabled
		}
		err = v.inSteps("codes."+what+"d", ids, func(ctx context.Context, ids []int64) (map[int64]refusal.Code, error) {
			return s.Redemptions.ChangeMany(ctx, v.actor(), ids, redemption.Change{Status: &status})
		})
	case "delete":
		err = v.inSteps("codes.deleted", ids, func(ctx context.Context, ids []int64) (map[int64]refusal.Code, error) {
			return s.Redemptions.DeleteMany(ctx, v.actor(), ids)
		})
	case "csv", "a4", "letter", "keys":
		return s.handOut(v, what, v.t("codes.title"), func(yield func([]redemption.View, error) bool) {
			for some := range slices.Chunk(ids, redemption.RevealMax) {
				if !s.reveal(v, some, yield) {
					return
				}
			}
		})
	default:
		return refusal.New(refusal.InvalidRequest)
	}
	if err != nil {
		return err
	}
	return v.redirect(back)
}

// inSteps does something with so many codes at a time as the domain takes, and has
// the next page say what has become of them. Once begun it goes on to the end, or
// until a step fails or the visitor may not do that any more: who has a batch disabled
// and leaves is not to have half of it disabled.
func (v *visit) inSteps(
	key string, ids []int64, do func(ctx context.Context, ids []int64) (map[int64]refusal.Code, error),
) error {
	ctx := context.WithoutCancel(v.ctx())
	refused := map[int64]refusal.Code{}
	done := 0
	for some := range slices.Chunk(ids, redemption.CountMax) {
		_ = v.goOn() // where no time can be set there is none
		var err error
		var not map[int64]refusal.Code
		if done > 0 && !v.still(ctx) {
			err = refusal.New(refusal.Unauthenticated)
		} else {
			not, err = do(ctx, some)
		}
		if err != nil && done == 0 {
			return err
		}
		if err != nil {
			code := refusal.CodeOf(err)
			if code == "" {
				v.logFailure(ctx, err)
				code = refusal.Unavailable
			}
			for _, id := range ids[done:] {
				refused[id] = code
			}
			break
		}
		maps.Copy(refused, not)
		done += len(some)
	}
	v.sayOf(key, ids, refused)
	return nil
}

// sayOf has the next page say how many of the codes something was done to, and
// why not to the others.
func (v *visit) sayOf(key string, ids []int64, refused map[int64]refusal.Code) {
	reasons := make(map[string]int, len(refused))
	for _, code := range refused {
		reasons[v.s.refusals.words[code].In(v.lang)]++
	}
	counted := func(key string, n int, more ...any) string {
		return v.t(key, append([]any{n, mustNumber(int64(n))}, more...)...)
	}
	parts := []string{counted(key, len(ids)-len(refused))}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		parts = append(parts, counted("codes.not", reasons[reason], reason))
	}
	text := strings.Join(parts, " ")
	v.sayLater(said{Text: text, Bad: len(refused) == len(ids)})
}

// batches lists the names under which codes were made.
func (s *server) batches(v *visit) error {
	query := v.r.FormValue("q")
	list, next, err := s.Redemptions.Batches(v.ctx(), v.actor(), query, max(0, number64(v.r.FormValue("before"))), batchesSize)
	if err != nil {
		return err
	}
	set := url.Values{}
	if query != "" {
		set.Set("q", query)
	}
	here, older := at("/batches", set), ""
	if next != 0 {
		set.Set("before", plain(next))
		older = at("/batches", set)
	}
	data := map[string]any{"Query": query, "Rows": list, "Older": older}
	if v.isHTMX() {
		return v.partAt(here, "batches", "rows", data)
	}
	return v.page(http.StatusOK, "batches", "codes", data)
}

// invalidPage says how many codes a removal would remove.
func (s *server) invalidPage(v *visit) error {
	n, err := s.Redemptions.CountInvalid(v.ctx(), v.actor())
	if err != nil {
		return err
	}
	sum, err := s.Figures.Summary(v.ctx(), v.actor())
	if err != nil {
		return err
	}
	return v.page(http.StatusOK, "codes-invalid", "codes", map[string]any{"Count": n, "Codes": sum.Codes})
}

func (s *server) removeInvalid(v *visit) error {
	job, err := s.Redemptions.StartPurge(v.ctx(), v.actor())
	if err != nil {
		return err
	}
	return v.redirect("/jobs/" + plain(job.ID))
}

// handOut shows keys, or sends them as a file. Pages are those of the codes.
func (s *server) handOut(v *visit, how, title string, pages func(func([]redemption.View, error) bool)) error {
	switch how {
	case "csv":
		return s.sendCSV(v, pages)
	case "a4", "letter":
		return s.sendSheet(v, how, title, pages)
	case "keys":
		var all []redemption.View
		for list, err := range pages {
			if err != nil {
				return err
			}
			all = append(all, list...)
		}
		if len(all) == 0 {
			return refusal.New(refusal.RedemptionNotFound)
		}
		return v.page(http.StatusOK, "keys", "codes", map[string]any{"Title": title, "Codes": all})
	}
	return fmt.Errorf("no way of handing out is named %q", how)
}
