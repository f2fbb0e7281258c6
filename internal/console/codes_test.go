package console_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/csv"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// batch makes codes under a name, and returns their keys.
func (p *people) batch(tb testing.TB, name string, n int64, expires time.Time) []string {
	tb.Helper()
	keys, err := p.codes.Issue(tb.Context(), account.Operator(), redemption.IssueRequest{Name: name, Count: n, Quota: 1000, Expires: expires})
	if err != nil {
		tb.Fatal(err)
	}
	return keys
}

// use redeems codes, for alice.
func (p *people) use(t *testing.T, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if _, err := p.codes.Redeem(t.Context(), account.Actor{ID: p.ids["alice"], Role: account.RoleUser, Address: "192.0.2.9"}, key, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *people) disable(t *testing.T, ids ...int64) {
	t.Helper()
	status := redemption.StatusDisabled
	if _, err := p.codes.ChangeMany(t.Context(), account.Operator(), ids, redemption.Change{Status: &status}); err != nil {
		t.Fatal(err)
	}
}

// ban disables an account.
func (p *people) ban(t *testing.T, who string) {
	t.Helper()
	if err := p.accounts.SetStatus(t.Context(), account.Operator(), p.ids[who], account.StatusDisabled); err != nil {
		t.Fatal(err)
	}
}

func (p *people) codeOf(t *testing.T, id int64) redemption.View {
	t.Helper()
	c, err := p.codes.Get(t.Context(), account.Operator(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ids are the codes that a list has, in its order.
func (r reply) ids() string {
	var ids []string
	for _, m := range regexp.MustCompile(`name="id" value="(\d+)" aria-label`).FindAllStringSubmatch(r.body, -1) {
		ids = append(ids, m[1])
	}
	return strings.Join(ids, " ")
}

// link is where the link with that text leads.
func (r reply) link(text string) string {
	m := regexp.MustCompile(`href="([^"]+)">` + text + `<`).FindStringSubmatch(r.body)
	if m == nil {
		return ""
	}
	return html.UnescapeString(m[1])
}

func TestMakeCodes(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.get(t, "admin", "/codes").has(t, 200, "No codes yet", `href="/codes/new"`)
	p.get(t, "admin", "/codes/new?name=again&quota=7").has(t, 200, `value="again"`, `value="7"`)
	before := p.kinds(t, 1)
	good := map[string]string{"name": "spring", "count": "3", "quota": "500", "expires": ""}
	for _, c := range []struct{ field, value, says string }{
		{"name", "", "name"},
		{"name", "   ", "name"},
		{"name", strings.Repeat("n", 21), "name"},
		{"name", "a\tb", "name"},
		{"name", "a\xffb", "name"},
		{"name", "a\x00b", "name"},
		{"count", "0", "codes"},
		{"count", "-1", "codes"},
		{"count", "ten", "codes"},
		{"count", "1.5", "codes"},
		{"count", "", "codes"},
		{"count", "10001", "10,000"},
		{"count", "99999999999999999999", "codes"},
		{"quota", "0", "quota"},
		{"quota", "-5", "quota"},
		{"quota", "x", "quota"},
		{"quota", "9223372036854775808", "quota"},
		{"expires", "2033-05-18T03:32", "past"},
		{"expires", "1969-01-01T00:00", "past"},
		{"expires", "soon", "9999"},
		{"expires", "2033-13-01T00:00", "9999"},
		{"expires", "10000-01-01T00:00", "9999"},
	} {
		form := url.Values{}
		for name, value := range good {
			form.Set(name, value)
		}
		form.Set(c.field, c.value)
		r := p.send(t, p.as["admin"], "POST", "/codes", form)
		problem := regexp.MustCompile(`<p class="notice bad" role="alert">([^<]+)</p>`).FindStringSubmatch(r.body)
		if r.status != 422 || problem == nil || !strings.Contains(strings.ToLower(problem[1]), c.says) {
			t.Errorf("%s %q: %d, %v", c.field, c.value, r.status, problem)
		}
		for name, value := range good {
			if name != c.field && value != "" && !strings.Contains(r.body, `name="`+name+`" value="`+value+`"`) {
				t.Errorf("%s %q: %s is not kept", c.field, c.value, name)
			}
		}
		if c.value != "" && account.CleanText(c.value) && !strings.Contains(r.body, `value="`+c.value+`"`) {
			t.Errorf("%s: %q is not kept", c.field, c.value)
		}
	}
	if after := p.kinds(t, 1); after != before {
		t.Errorf("the ledger has %s on top", after)
	}

	p.zone(t, "Asia/Tokyo")
	p.post(t, "admin", "/codes", "name", " spring <b> ", "count", "３", "quota", "1,000,000", "expires", "2033-06-01T09:30").to(t, "/jobs/1")
	r := p.get(t, "admin", "/jobs/1")
	r.has(t, 200, "spring &lt;b&gt;", "!<progress", "each worth 1,000,000", "Hand them out", `/codes/new?name=spring%20%3cb%3e&amp;quota=1000000`)
	if c := p.codeOf(t, 3); c.Name != "spring <b>" || c.Quota != 1_000_000 || c.Expires.UTC().Format(time.RFC3339) != "2033-06-01T00:30:59Z" || c.CreatorID != p.ids["admin"] {
		t.Errorf("it is %+v", c)
	}
	if list := p.get(t, "admin", "/codes"); list.ids() != "3 2 1" {
		t.Errorf("there are %s", list.ids())
	}
}

// TestJobs: ten thousand codes are made while people do other things.
func TestJobs(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.post(t, "admin", "/codes", "name", "many", "count", "10,000", "quota", "2").to(t, "/jobs/1")
	p.get(t, "admin", "/jobs/1").has(t, 200, `<progress max="100" value="1"`, "100 of 10,000", "/jobs/1/stop", "sse-connect=\"/jobs/1/events\"", "!Hand them out")
	p.get(t, "admin", "/codes").has(t, 200, "Making many: 100 of 10,000")
	if err := p.codes.RunJobs(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.get(t, "admin", "/jobs/1").has(t, 200, "10,000 codes", "Hand them out", "!<progress", "!/stop")
	p.get(t, "admin", "/codes?batch=many").has(t, 200, "1–50 of 10,000", "!Making many")

	// One that is stopped keeps what it has made.
	p.post(t, "admin", "/codes", "once", "2", "name", "fewer", "count", "300", "quota", "2").to(t, "/jobs/2")
	p.post(t, "admin", "/jobs/2/stop").to(t, "/jobs/2")
	if err := p.codes.RunJobs(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.get(t, "admin", "/jobs/2").has(t, 200, "Stopped at 100 of 300", "Hand them out", "!<progress")
	p.post(t, "admin", "/jobs/2/stop").to(t, "/jobs/2")

	// It shows its keys when it is asked, and that is on record.
	page := p.post(t, "admin", "/jobs/2/codes", "do", "keys")
	page.has(t, 200, "100 keys", "stands in the ledger")
	if keys := regexp.MustCompile(`\b[0-9a-f]{32}\b`).FindAllString(page.body, -1); len(keys) != 100 {
		t.Errorf("%d keys", len(keys))
	}
	if got := p.kinds(t, 1); got != "reveal" {
		t.Errorf("the ledger has %s", got)
	}
	rows := readTable(t, p.post(t, "admin", "/jobs/2/codes", "do", "csv"))
	if len(rows) != 101 {
		t.Errorf("%d rows", len(rows))
	}
	for _, how := range []string{"a4", "letter"} {
		r := p.post(t, "admin", "/jobs/2/codes", "do", how)
		if r.status != 200 || !strings.HasPrefix(r.body, "%PDF-") || r.header.Get("Content-Type") != "application/pdf" ||
			!strings.HasPrefix(r.header.Get("Content-Disposition"), `attachment; filename="codes-2033-05-18-`) {
			t.Errorf("%s: %d %v %.100s", how, r.status, r.header, r.body)
		}
	}

	p.post(t, "admin", "/jobs/2/codes", "do", "nothing").has(t, 422)
	p.post(t, "admin", "/codes/invalid").to(t, "/jobs/3")
	p.post(t, "admin", "/jobs/3/codes", "do", "keys").has(t, 422)
	for _, id := range []string{"0", "-1", "4", "x", "99999999999999999999", "%00"} {
		p.get(t, "admin", "/jobs/"+id).has(t, 404)
		p.get(t, "admin", "/jobs/"+id+"/events").has(t, 404)
		p.post(t, "admin", "/jobs/"+id+"/stop").has(t, 404)
		p.post(t, "admin", "/jobs/"+id+"/codes", "do", "csv").has(t, 404)
	}
}

func TestJobsAreBounded(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	for i := range redemption.JobsMax {
		p.post(t, "admin", "/codes", "once", fmt.Sprint(i), "name", "many", "count", "101", "quota", "2")
	}
	p.post(t, "admin", "/codes", "once", "another", "name", "many", "count", "101", "quota", "2").has(t, 422, `role="alert"`, `value="many"`)
}

func TestCodesAreFound(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	never := time.Time{}
	keys := p.batch(t, "spring <b>", 3, never)                                               // 1 2 3
	p.batch(t, "summer", 2, time.Unix(2_000_000_060, 0))                                     // 4 5
	p.use(t, keys[1])                                                                        // 2
	p.disable(t, 3)                                                                          // 3
	p.now.Store(time.Date(2033, 5, 20, 12, 0, 0, 0, time.UTC).Unix())                        // 4 and 5 are past their time
	p.batch(t, "spring", 1, time.Date(2033, 7, 1, 0, 0, 0, 0, time.UTC).Add(12*time.Second)) // 6
	for _, c := range []struct{ query, want string }{
		{"", "6 5 4 3 2 1"},
		{"status=live", "6 1"},
		{"status=used", "2"},
		{"status=disabled", "3"},
		{"status=expired", "5 4"},
		{"status=junk", "6 5 4 3 2 1"},
		{"batch=spring", "6"},
		{"batch=spring+%3Cb%3E", "3 2 1"},
		{"batch=none", ""},
		{"batch=%00", ""},
		{"batch=%ff", ""},
		{"q=spring", "6 3 2 1"},
		{"q=4", "4"},
		{"q=umm&status=live", ""},
		{"q=" + strings.ToUpper(keys[0]), "1"},
		{"q=" + keys[0][:31], ""},
		{"user=alice", "2"},
		{"user=+alice+", "2"},
		{"user=bob", ""},
		{"user=nobody", ""},
		{"user=alice&status=live", ""},
		{"user=%00", ""},
		{"user=%ff", ""},
		{"user=alice&batch=spring+%3Cb%3E", "2"},
		{"user=alice&batch=summer", ""},
		{"from=2033-05-18&to=2033-05-18", "5 4 3 2 1"},
		{"from=2033-05-19", "6"},
		{"to=2033-05-19", "5 4 3 2 1"},
		{"to=2033-05-17", ""},
		{"from=junk&to=9999-99-99", "6 5 4 3 2 1"},
		{"from=0001-01-01&to=9999-12-31", "6 5 4 3 2 1"},
		{"from=2033-05-20&to=2033-05-18", ""},
		{"at=3", "3 2 1"},
		{"at=-3", "6 5 4 3 2 1"},
		{"at=99999999999999999999", "6 5 4 3 2 1"},
		{"at=9223372036854775807", ""},
		{"before=-9&user=alice", "2"},
		{"before=x", "6 5 4 3 2 1"},
		{"q=" + strings.Repeat("x", 5000), ""},
		{"q=%25_", ""},
		{"q=%00", ""},
		{"q=%ff%fe", ""},
		{"%zz&;", "6 5 4 3 2 1"},
	} {
		r := p.get(t, "admin", "/codes?"+c.query)
		r.has(t, 200, "!<b>spring", "!spring <b>", "<html")
		if got := r.ids(); got != c.want {
			t.Errorf("%s: %s, want %s", c.query, got, c.want)
		}
		part := p.ask(t, "admin", "GET", "/codes?"+c.query+"&q=&from=", nil, "HX-Request", "true")
		asked, _ := url.ParseQuery(c.query) // of what cannot be read it has the rest
		maps.DeleteFunc(asked, func(name string, v []string) bool {
			return v[0] == "" || !slices.Contains([]string{"q", "status", "batch", "user", "from", "to"}, name)
		})
		if asked.Has("user") {
			asked.Set("user", strings.TrimSpace(asked.Get("user")))
		}
		if to, _ := url.Parse(part.header.Get("HX-Push-Url")); to.Path != "/codes" || to.Query().Encode() != asked.Encode() {
			t.Errorf("%s is pushed as %s", c.query, to)
		}
		if part.status != 200 || part.ids() != c.want || strings.Contains(part.body, "<html") {
			t.Errorf("%s as a part: %d, %s", c.query, part.status, part.ids())
		}
	}
	// Days are those of where one is.
	p.zone(t, "America/Los_Angeles") // where it was the 17th
	for query, want := range map[string]string{"to=2033-05-17": "5 4 3 2 1", "from=2033-05-18": "6", "from=2033-05-17&to=2033-05-17": "5 4 3 2 1"} {
		if got := p.get(t, "admin", "/codes?"+query).ids(); got != want {
			t.Errorf("%s in Los Angeles: %s, want %s", query, got, want)
		}
	}
	p.get(t, "admin", "/codes?user=nobody").has(t, 200, "Nobody is called nobody", `href="/codes"`)
	p.get(t, "admin", "/codes?q=zzz").has(t, 200, "No code matches", "Show all", `value="zzz"`)
	p.get(t, "admin", "/codes?status=used").has(t, 200, `href="/users/`+strconv.FormatInt(p.ids["alice"], 10)+`">alice</a>`, `<option value="used" selected>`)
	p.get(t, "admin", "/codes").has(t, 200, "2 live · 1 used · 2 expired", "1–6 of 6")
	for _, id := range []string{"0", "-1", "7", "x", "99999999999999999999", "%00", "1%2f2"} {
		p.get(t, "admin", "/codes/"+id).has(t, 404)
		p.post(t, "admin", "/codes/"+id, "name", "x", "quota", "1").has(t, 404)
		p.post(t, "admin", "/codes/"+id+"/key").has(t, 404)
	}
}

// TestCodesOlder: the pages of a list have each code once, and keep its filter.
func TestCodesOlder(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	for range 2 {
		keys := p.batch(t, "a & b", 60, time.Time{})
		p.batch(t, "other", 20, time.Time{})
		p.use(t, keys[:35]...)
	}
	for first, want := range map[string]int{"/codes?batch=a+%26+b&q=a": 120, "/codes?user=alice&batch=a+%26+b": 70, "/codes?from=2033-05-18&status=live": 90} {
		seen, pages := map[string]bool{}, 0
		var back []string
		for at := first; at != "" && pages < 9; pages++ {
			r := p.get(t, "admin", at)
			r.has(t, 200)
			for id := range strings.FieldsSeq(r.ids()) {
				if seen[id] {
					t.Errorf("%s has %s twice", first, id)
				}
				seen[id] = true
			}
			if newer := r.link("Newer"); (newer == "") != (pages == 0) {
				t.Errorf("%s: newer than page %d is %q", first, pages, newer)
			} else if newer != "" {
				back = append(back, newer)
			}
			at = r.link("Older")
		}
		if len(seen) != want || pages != (want+49)/50 {
			t.Errorf("%s: %d codes on %d pages", first, len(seen), pages)
		}
		was, _ := url.Parse(first)
		for _, at := range back {
			u, err := url.Parse(at)
			if err != nil {
				t.Fatal(err)
			}
			for name, values := range was.Query() {
				if u.Query().Get(name) != values[0] {
					t.Errorf("%s: back to %s", first, at)
				}
			}
			if r := p.get(t, "admin", at); len(strings.Fields(r.ids())) != 50 {
				t.Errorf("%s has %s", at, r.ids())
			}
		}
	}
}

// TestKeysAreMasked: no page shows a key that was not asked for.
func TestKeysAreMasked(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	keys := p.batch(t, "spring", 2, time.Time{})
	p.post(t, "admin", "/codes", "name", "summer", "count", "1", "quota", "1").to(t, "/jobs/1")
	keys = append(keys, p.codeOf(t, 3).Key)
	p.use(t, keys[0])
	for _, at := range []string{"/codes", "/codes?batch=spring", "/codes?user=alice", "/codes/1", "/codes/2", "/codes/3", "/jobs/1", "/batches", "/", "/ledger", "/ledger.csv", "/codes/invalid", "/find?q=1"} {
		r := p.get(t, "admin", at)
		r.has(t, 200)
		for _, key := range keys {
			if text := strings.ReplaceAll(r.body, " ", ""); strings.Contains(text, key) || strings.Contains(text, key[:16]) {
				t.Errorf("%s shows a key", at)
			}
		}
	}
	// Found by its key it is masked too, but in the field in which it was typed.
	part := p.ask(t, "admin", "GET", "/codes?q="+keys[1], nil, "HX-Request", "true")
	part.has(t, 200, keys[1][:4]+" ···· "+keys[1][30:], "!value=\""+keys[1])
	grouped := regexp.MustCompile(`.{4}`).ReplaceAllString(strings.ToUpper(keys[1]), "$0 ") // as its page shows it
	if list := p.get(t, "admin", "/codes?q="+url.QueryEscape(grouped)); list.ids() != "2" {
		t.Errorf("%q finds %s", grouped, list.ids())
	}

	if got := p.kinds(t, 1); got != "redeem" {
		t.Errorf("the ledger has %s", got)
	}
	r := p.ask(t, "admin", "POST", "/codes/2/key", nil, "Referer", p.server.URL+"/codes/2?x=1", "Accept-Language", "en")
	r.has(t, 200, `data-copy="`+keys[1]+`"`, "<svg", "/redeem?key="+keys[1], "!"+keys[0], "looked at the key of code", "/language?to=zh&amp;next=%2fcodes%2f2%3fx%3d1")
	list, err := p.accounts.Ledger(t.Context(), account.Operator(), account.LedgerFilter{Limit: 1})
	if err != nil || list[0].Kind != account.KindReveal || list[0].FirstID != 2 || list[0].LastID != 2 || list[0].ActorID != p.ids["admin"] {
		t.Errorf("the ledger has %+v, %v", list, err)
	}
	p.get(t, "admin", "/codes/2").has(t, 200, "!"+keys[1])
	// Where nobody says from where, or another site does, or it was a page that cannot be
	// read, the page above is next.
	for _, from := range []string{"https://evil.example/x", p.server.URL + "/codes/2/key", ""} {
		p.ask(t, "admin", "POST", "/codes/2/key", nil, "Referer", from).has(t, 200, "next=%2fcodes%2f2\"", "!evil")
	}
	if log := p.logs.String(); slices.ContainsFunc(keys, func(key string) bool { return strings.Contains(log, key) }) {
		t.Error("the log has keys")
	}
}

// said is what the next page says.
func (p *people) said(t *testing.T, r reply) string {
	t.Helper()
	if r.status != http.StatusSeeOther {
		t.Fatalf("%d\n%s", r.status, r.body)
	}
	next := p.ask(t, "admin", "GET", r.location, nil, "Accept-Language", "en")
	m := regexp.MustCompile(`<p class="notice( bad)?"(?: role="status")?>([^<]*)</p>`).FindStringSubmatch(next.body)
	if m == nil {
		t.Fatalf("%s says nothing:\n%s", r.location, next.body)
	}
	return strings.TrimSpace(m[1] + " " + m[2])
}

func TestManyCodes(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	keys := p.batch(t, "=spring", 6, time.Time{})
	p.use(t, keys[0], keys[1])
	many := func(do string, ids ...int) reply {
		t.Helper()
		form := url.Values{"do": {do}, "back": {"/codes?batch=%3Dspring"}}
		for _, id := range ids {
			form.Add("id", strconv.Itoa(id))
		}
		return p.send(t, p.as["admin"], "POST", "/codes/many", form)
	}
	for _, c := range []struct {
		do   string
		ids  []int
		want string
	}{
		{"disable", []int{1, 2, 3, 4}, "2 codes disabled. 2 not: A used redemption code keeps its status, quota and expiry time; only its name can be changed."},
		{"disable", []int{5, 5, 5}, "1 code disabled."},
		{"disable", []int{1}, "bad 0 codes disabled. 1 not: A used redemption code keeps its status, quota and expiry time; only its name can be changed."},
		{"enable", []int{3, 5, 77}, "2 codes enabled. 1 not: "},
		{"delete", []int{6, 77}, "1 code deleted. 1 not: "},
		{"delete", []int{77}, "bad 0 codes deleted. 1 not: "},
	} {
		r := many(c.do, c.ids...)
		r.to(t, "/codes?batch=%3Dspring")
		if got := p.said(t, r); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %v says %q, want %q", c.do, c.ids, got, c.want)
		}
	}
	if list := p.get(t, "admin", "/codes?status=disabled"); list.ids() != "4" {
		t.Errorf("disabled are %s", list.ids())
	}
	p.get(t, "admin", "/codes/6").has(t, 404)
	p.get(t, "admin", "/ledger").has(t, 200, "disabled code", "enabled code", "deleted code")

	r := many("keys", 4, 3, 77)
	r.has(t, 200, "2 keys", keys[2]+"\n"+keys[3], "!"+keys[0])
	if got := p.kinds(t, 1); got != "reveal" {
		t.Errorf("the ledger has %s", got)
	}
	if rows := readTable(t, many("csv", 5, 3, 4)); len(rows) != 4 || rows[1][0] != "3" || rows[3][2] != keys[4] || rows[1][6] != "live" ||
		rows[2][6] != "disabled" {
		t.Errorf("the table is %v", rows)
	}
	for _, how := range []string{"a4", "letter"} {
		if r := many(how, 3, 4); r.status != 200 || !strings.HasPrefix(r.body, "%PDF-") || r.header.Get("Content-Type") != "application/pdf" {
			t.Errorf("%s: %d %.50s", how, r.status, r.body)
		}
		// What nobody can redeem is not to be handed out.
		many(how, 4).has(t, 409, "disabled", "!%PDF")
	}

	before := p.kinds(t, 3)
	for _, do := range []string{"keys", "csv", "a4", "letter"} {
		r := many(do, 77, 78)
		r.has(t, 404)
		if kind := r.header.Get("Content-Disposition"); kind != "" {
			t.Errorf("%s: a problem is sent as %s", do, kind)
		}
	}
	many("delete").has(t, 422)
	many("destroy", 1).has(t, 422)
	many("", 1).has(t, 422)
	many("delete", 1, -2).has(t, 422)
	many("delete", 0).has(t, 422)
	hundred := make([]int, 101)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, do := range []string{"delete", "keys", "csv"} {
		many(do, hundred...).has(t, 422)
	}
	p.post(t, "admin", "/codes/many", "do", "delete", "id", "1", "id", "x").has(t, 422)
	if after := p.kinds(t, 3); after != before {
		t.Errorf("the ledger has %s on top", after)
	}
	p.post(t, "admin", "/codes/many", "do", "enable", "id", "3", "back", "//evil.example").to(t, "/codes")
}

// TestEveryCodeOfAList: what can be done with ticked codes can be done with all that
// a list has, on however many pages, and with no other.
func TestEveryCodeOfAList(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.batch(t, "other", 60, time.Time{})
	keys := p.batch(t, "leaked & lost", 100, time.Time{})
	keys = append(keys, p.batch(t, "leaked & lost", 60, time.Time{})...)
	p.use(t, keys[0], keys[159])
	const at = "/codes?batch=leaked+%26+lost"
	seen := func(of int, do, back, newest string) reply {
		t.Helper()
		return p.post(t, "admin", "/codes/many", "do", do, "back", back, "all", newest, "of", strconv.Itoa(of), "zone", "UTC", "id", "1")
	}
	every := func(do, back, newest string) reply {
		t.Helper()
		return seen(160, do, back, newest)
	}
	said := func(r reply, back, want string) {
		t.Helper()
		r.to(t, back)
		if got := p.said(t, r); !strings.HasPrefix(got, want) {
			t.Errorf("says %q, want %q", got, want)
		}
	}
	p.get(t, "admin", at).has(t, 200, `name="of" value="160"`, `name="zone" value="UTC"`, `name="all" value="220" data-every="160"`)
	p.get(t, "admin", "/codes").has(t, 200, `name="all" value="220" data-every="220"`)
	for _, none := range []string{at + "&at=50", at + "&status=used", "/codes?user=alice"} {
		p.get(t, "admin", none).has(t, 200, `!name="all"`)
	}

	p.batch(t, "leaked & lost", 1, time.Time{}) // which nobody has seen in the list
	p.post(t, "alice", "/codes/many", "do", "delete", "back", at, "all", "220").has(t, 403)
	said(every("disable", at, "220"), at, "158 codes disabled. 2 not: A used")
	for id, want := range map[int64]redemption.Status{
		1: redemption.StatusEnabled, 60: redemption.StatusEnabled, 61: redemption.StatusUsed, 62: redemption.StatusDisabled,
		219: redemption.StatusDisabled, 220: redemption.StatusUsed, 221: redemption.StatusEnabled,
	} {
		if c := p.codeOf(t, id); c.Status != want {
			t.Errorf("code %d is %d, want %d", id, c.Status, want)
		}
	}
	// Somebody has seen 100 of them, and more came into the list since: which were not to
	// be enabled. Or they saw it in another zone, where days are others.
	const changed = "bad The list has changed."
	said(seen(100, "enable", at+"&status=disabled", "219"), at+"&status=disabled", changed)
	said(p.post(t, "admin", "/codes/many", "do", "enable", "back", at, "all", "220", "of", "160", "zone", "Asia/Tokyo"), at, changed)
	if list := p.get(t, "admin", at+"&status=disabled"); !strings.Contains(list.body, `data-every="158"`) {
		t.Errorf("disabled are %s", list.ids())
	}
	said(every("enable", at+"&status=disabled", "219"), at+"&status=disabled", "158 codes enabled.")

	if rows := readTable(t, every("csv", at, "220")); len(rows) != 161 || rows[1][0] != "220" || rows[160][2] != keys[0] {
		t.Errorf("the table has %d rows", len(rows))
	}
	every("keys", at, "220").has(t, 200, "160 keys", keys[1]+"\n"+keys[0])
	if got := p.kinds(t, 4); got != "reveal reveal reveal reveal" {
		t.Errorf("the ledger has %s", got)
	}

	before := p.kinds(t, 3)
	for _, c := range [][2]string{
		{at, "x"},
		{at, "0"},
		{at, "-1"},
		{"/codes?user=alice", "220"},
		{"/codes?user=nobody", "220"},
		{"", "220"},
		{"/", "220"},
		{"//evil.example/codes", "220"},
		{"https://evil.example/codes", "220"},
		{"/codes/1", "220"},
	} {
		every("delete", c[0], c[1]).has(t, 422)
	}
	said(every("delete", "/codes?batch=none", "220"), "/codes?batch=none", changed)
	if after := p.kinds(t, 3); after != before {
		t.Errorf("the ledger has %s on top", after)
	}
	said(every("delete", at, "220"), at, "160 codes deleted.")
	if list := p.get(t, "admin", at); list.ids() != "221" {
		t.Errorf("left are %s", list.ids())
	}
}

// TestTooManyForOnce: no list offers, and nobody gets, more codes at once than may
// be.
func TestTooManyForOnce(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	for range 100 {
		p.batch(t, "spring", 100, time.Time{})
	}
	p.get(t, "admin", "/codes").has(t, 200, `name="all" value="10000" data-every="10000"`)
	p.batch(t, "spring", 1, time.Time{})
	p.get(t, "admin", "/codes").has(t, 200, `!name="all"`)
	r := p.post(t, "admin", "/codes/many", "do", "delete", "back", "/codes", "all", "10000", "of", "10000", "zone", "UTC")
	if got := p.said(t, r); !strings.HasPrefix(got, "bad The list has changed.") {
		t.Errorf("says %q", got)
	}
	p.get(t, "admin", "/codes/1").has(t, 200)
}

// deadlines is a viewer that has something happen whenever a step is given time.
type deadlines struct {
	*viewer

	given int
	then  func(given int)
}

func (d *deadlines) SetWriteDeadline(time.Time) error {
	d.given++
	d.then(d.given)
	return nil
}

// TestManyInSteps: who leaves has all done that they asked for. Where a step fails, or
// they may do it no more, the rest is left alone and they are told.
func TestManyInSteps(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		second func(p *people, leave func()) // what happens before the second step
		want   string
		left   int64
	}{
		"left":     {func(_ *people, leave func()) { leave() }, "160 codes deleted.", 0},
		"failing":  {func(p *people, _ func()) { p.database.Alter(t, `ALTER TABLE ledger RENAME TO gone`) }, "100 codes deleted. 60 not: ", 60},
		"disabled": {func(p *people, _ func()) { p.ban(t, "admin") }, "100 codes deleted. 60 not: ", 60},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeople(t)
			p.batch(t, "n", 100, time.Time{})
			p.batch(t, "n", 60, time.Time{})
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			v := &deadlines{viewer: newViewer(), then: func(given int) {
				if given == 2 {
					c.second(p, leave)
				}
			}}
			p.server.Config.Handler.ServeHTTP(v, request(ctx, p.session(t, "admin"), "POST", "/codes/many",
				"do=delete&back=/codes&all=160&of=160&zone=UTC"))
			said := ""
			for _, c := range v.Result().Cookies() {
				if c.Name == "scrip_said" {
					text, err := base64.RawURLEncoding.DecodeString(c.Value)
					if err != nil {
						t.Fatal(err)
					}
					said = string(text)
				}
			}
			if !strings.Contains(said, `"`+c.want) {
				t.Errorf("%d, says %s", v.Code, said)
			}
			if _, n, err := p.codes.List(t.Context(), account.Operator(), redemption.FilterAll, 0, 1); err != nil || n != c.left {
				t.Errorf("%d codes are left, %v", n, err)
			}
			if failed := strings.Contains(p.logs.forget(), "request failed"); failed != (name == "failing") {
				t.Errorf("a failure is in the log: %t", failed)
			}
		})
	}
}

// readTable reads a table that was sent as a file.
func readTable(t *testing.T, r reply) [][]string {
	t.Helper()
	text, marked := strings.CutPrefix(r.body, "\ufeff")
	if r.status != 200 || !marked || r.header.Get("Content-Type") != "text/csv; charset=utf-8" ||
		!strings.HasPrefix(r.header.Get("Content-Disposition"), `attachment; filename="codes-2033-05-18-`) {
		t.Fatalf("%d %v %.100s", r.status, r.header, r.body)
	}
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestCodesAsATable(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.zone(t, "Asia/Kolkata")
	ends := time.Date(2033, 6, 1, 10, 20, 30, 0, time.UTC)
	names := []string{"=1+1", "+1", "-1", "@SUM(A1)", "plain", `"quoted", 名`}
	for _, name := range names {
		p.batch(t, name, 1, ends)
	}
	p.batch(t, "for ever", 1, time.Time{})
	form := url.Values{"do": {"csv"}}
	for id := range 7 {
		form.Add("id", strconv.Itoa(id+1))
	}
	rows := readTable(t, p.send(t, p.as["admin"], "POST", "/codes/many", form))
	if want := []string{"id", "name", "key", "quota", "expires", "link", "status"}; len(rows) != 8 || !slices.Equal(rows[0], want) {
		t.Fatalf("%v", rows)
	}
	for i, row := range rows[1:] {
		c := p.codeOf(t, int64(i)+1)
		name, expires := c.Name, "2033-06-01T15:50:30+05:30"
		if i < 4 {
			name = "'" + name
		}
		if i == 6 {
			expires = ""
		}
		if want := []string{strconv.Itoa(i + 1), name, c.Key, "1000", expires, p.server.URL + "/redeem?key=" + c.Key, "live"}; !slices.Equal(row, want) {
			t.Errorf("%v, want %v", row, want)
		}
	}
}

func TestCodeIsChanged(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.zone(t, "Asia/Tokyo")
	ends := time.Date(2033, 6, 1, 10, 20, 30, 0, time.UTC)
	keys := p.batch(t, "spring", 2, ends)
	p.get(t, "admin", "/codes/1").has(t, 200, `name="expires" value="2033-06-01T19:20"`, `name="expires_was" value="2033-06-01T19:20"`, `value="1000"`, "Disable", "!/users/0")
	change := func(pairs ...string) reply {
		t.Helper()
		return p.post(t, "admin", "/codes/1", pairs...)
	}
	// To the minute its end is the same: its seconds stay.
	r := change("name", "autumn", "quota", "2,000", "expires", "2033-06-01T19:20", "expires_was", "2033-06-01T19:20")
	r.to(t, "/codes/1")
	if got := p.said(t, r); got != "Code 1 is changed." {
		t.Errorf("it says %q", got)
	}
	if c := p.codeOf(t, 1); c.Name != "autumn" || c.Quota != 2000 || !c.Expires.Equal(ends) {
		t.Errorf("it is %+v", c)
	}
	if got := p.kinds(t, 1); got != "change" {
		t.Errorf("the ledger has %s", got)
	}
	change("name", "autumn", "quota", "2000", "expires", "2033-06-01T19:21", "expires_was", "2033-06-01T19:20").to(t, "/codes/1")
	if c := p.codeOf(t, 1); c.Expires.UTC().Format(time.RFC3339) != "2033-06-01T10:21:59Z" {
		t.Errorf("it ends %s", c.Expires)
	}
	change("name", "autumn", "quota", "2000", "expires", "", "expires_was", "2033-06-01T19:21").to(t, "/codes/1")
	if c := p.codeOf(t, 1); !c.Expires.IsZero() {
		t.Errorf("it ends %s", c.Expires)
	}
	for _, bad := range [][]string{
		{"name", "", "quota", "2000"},
		{"name", strings.Repeat("n", 21), "quota", "2000"},
		{"name", "a\x00b", "quota", "2000"},
		{"name", "kept", "quota", "0"},
		{"name", "kept", "quota", "x"},
		{"name", "kept", "quota", "2000", "expires", "2033-05-18T12:32"},
		{"name", "kept", "quota", "2000", "expires", "junk"},
		{},
	} {
		r := change(bad...)
		r.has(t, 422, `class="notice bad" role="alert"`)
		if len(bad) > 0 && bad[1] == "kept" {
			r.has(t, 422, `name="name" value="kept"`, `name="quota" value="`+bad[3]+`"`)
		}
	}
	if c := p.codeOf(t, 1); c.Name != "autumn" || c.Quota != 2000 {
		t.Errorf("it is %+v", c)
	}

	// A form that was refused still knows what is stored; what was not touched in it
	// stays, though somebody else has changed it since.
	r = change("name", "autumn", "name_was", "autumn", "quota", "0", "quota_was", "2000", "expires", "2033-06-02T10:00", "expires_was", "")
	r.has(t, 422, `name="expires" value="2033-06-02T10:00"`, `name="expires_was" value=""`, `name="quota_was" value="2000"`, `name="name_was" value="autumn"`)
	change("name", "autumn", "name_was", "autumn", "quota", "3000", "quota_was", "2000", "expires", "2033-06-02T10:00", "expires_was", "").to(t, "/codes/1")
	change("name", "winter", "name_was", "autumn", "quota", "2000", "quota_was", "2000", "expires", "", "expires_was", "").to(t, "/codes/1")
	if c := p.codeOf(t, 1); c.Name != "winter" || c.Quota != 3000 || c.Expires.UTC().Format(time.RFC3339) != "2033-06-02T01:00:59Z" {
		t.Errorf("it is %+v", c)
	}
	// A time that clocks leave out is as much later.
	p.zone(t, "America/New_York")
	change("name", "winter", "quota", "3000", "expires", "2034-03-12T02:30").to(t, "/codes/1")
	if c := p.codeOf(t, 1); c.Expires.UTC().Format(time.RFC3339) != "2034-03-12T07:30:59Z" {
		t.Errorf("it ends %s", c.Expires)
	}

	// What is used can only be renamed.
	p.use(t, keys[1])
	p.get(t, "admin", "/codes/2").has(t, 200, `name="used" value="1"`, `!name="quota"`, `!name="expires"`, `!value="disable"`, `!value="enable"`, ">alice</a>")
	p.post(t, "admin", "/codes/2", "used", "1", "name", "old").to(t, "/codes/2")
	p.post(t, "admin", "/codes/2", "name", "older", "quota", "5", "expires", "").has(t, 422, "only its name can be changed")
	if c := p.codeOf(t, 2); c.Name != "old" || c.Quota != 1000 || !c.Expires.Equal(ends) {
		t.Errorf("it is %+v", c)
	}
}

func TestInvalidCodes(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.get(t, "admin", "/codes/invalid").has(t, 200, "Nothing to remove", "!data-ask-bad")
	keys := p.batch(t, "spring", 5, time.Time{})
	p.batch(t, "short", 2, time.Unix(2_000_000_010, 0))
	p.use(t, keys[0])
	p.disable(t, 2, 3)
	p.now.Add(100)
	p.get(t, "admin", "/codes/invalid").has(t, 200, `<dd class="mono">1</dd>`, `<dd class="mono">2</dd>`, `<b class="mono">5</b>`, "Remove 5 codes")
	p.post(t, "admin", "/codes/invalid").to(t, "/jobs/1")
	p.post(t, "admin", "/codes/invalid").to(t, "/jobs/1") // the same one
	if err := p.codes.RunJobs(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.get(t, "admin", "/jobs/1").has(t, 200, "5 codes removed", "!Hand them out")
	p.get(t, "admin", "/codes/invalid").has(t, 200, "Nothing to remove")
	if list := p.get(t, "admin", "/codes"); list.ids() != "5 4" {
		t.Errorf("left are %s", list.ids())
	}
}

func TestBatches(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.get(t, "admin", "/batches").has(t, 200, "No codes yet")
	for i := range 60 {
		p.batch(t, fmt.Sprintf("a & b %d", i), 1, time.Time{})
	}
	keys := p.batch(t, "<i>", 3, time.Time{})
	p.use(t, keys[0])
	p.disable(t, 62)
	names := regexp.MustCompile(`href="/codes\?batch=([^"]+)"`)
	first := p.get(t, "admin", "/batches")
	first.has(t, 200, "&lt;i&gt;", "!<i>", `<td class="num">1</td><td class="num">1</td><td class="num">1</td><td class="num">0</td>`)
	seen := map[string]bool{}
	pages := 0
	for at := "/batches?q=%26"; at != "" && pages < 5; pages++ {
		r := p.get(t, "admin", at)
		r.has(t, 200, "!&lt;i&gt;")
		for _, m := range names.FindAllStringSubmatch(r.body, -1) {
			seen[m[1]] = true
		}
		at = r.link("Older")
	}
	if len(seen) != 60 || pages != 2 {
		t.Errorf("%d names on %d pages", len(seen), pages)
	}
	p.get(t, "admin", "/batches?q=zzz").has(t, 200, "No batch has that in its name", `value="zzz"`)
	part := p.ask(t, "admin", "GET", "/batches?q=b+59", nil, "HX-Request", "true")
	part.has(t, 200, "a &amp; b 59", "!<html", "!a &amp; b 58")
	if to := part.header.Get("HX-Push-Url"); to != "/batches?q=b+59" {
		t.Errorf("it is pushed as %s", to)
	}
	for _, junk := range []string{"q=%00", "q=%ff", "before=-1", "before=x", "before=99999999999999999999", "q=%25", "q=" + strings.Repeat("x", 3000)} {
		p.get(t, "admin", "/batches?"+junk).has(t, 200)
	}
}

// TestTablesAreWhole: a table that breaks off is not taken for a whole one.
func TestTablesAreWhole(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.post(t, "admin", "/codes", "name", "many", "count", "300", "quota", "2").to(t, "/jobs/1")
	if err := p.codes.RunJobs(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows := readTable(t, p.post(t, "admin", "/jobs/1/codes", "do", "csv")); len(rows) != 301 {
		t.Fatalf("%d rows", len(rows))
	}
	p.database.Alter(t, `UPDATE redemptions SET sealed = (SELECT sealed FROM redemptions WHERE id = 1) WHERE id = 250`)
	req, err := http.NewRequestWithContext(t.Context(), "POST", p.server.URL+"/jobs/1/codes", strings.NewReader("do=csv"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := p.as["admin"].Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var got bytes.Buffer
	if _, err := got.ReadFrom(res.Body); err == nil {
		t.Errorf("it ends as if it were whole, after %d lines", strings.Count(got.String(), "\n"))
	}
	if !strings.Contains(p.logs.forget(), "level=ERROR") {
		t.Error("it is not in the log")
	}
	// Before anything is out it is told.
	p.post(t, "admin", "/jobs/1/codes", "do", "a4").has(t, 500)
	p.post(t, "admin", "/jobs/1/codes", "do", "keys").has(t, 500)
	p.logs.forget()
}
