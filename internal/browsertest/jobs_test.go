package browsertest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
)

func unzip(p *program, packed []byte) string {
	p.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	p.check(err)
	plain, err := io.ReadAll(z)
	p.check(err)
	return string(plain)
}

// TestJobs does what people come for, in every language, width and theme.
func TestJobs(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.api("POST", "/api/v1/merchants", `{"name":"Corner shops"}`)
	for i, l := range looks() {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			b := p.tab(t, l)
			b.signIn(p.token, "/codes")
			name := "批次 " + l.String()
			keys := b.makeBatch(p, name[:min(len(name), 26)])
			no := fmt.Sprintf("200000%02d", i)
			b.addMachine(no)
			b.makePickup(no)
			b.withdraw(no)
			invitation := b.addUser(fmt.Sprintf("user%d", i))
			b.verify()
			p.tab(t, l).redeem(invitation, keys[0])
		})
	}
}

var keyPattern = regexp.MustCompile(`[0-9a-f]{32}`)

// makeBatch makes codes, shows and downloads them, disables some and then all that
// the list has, on both its pages, enables them again, and looks at one.
func (t *tab) makeBatch(p *program, name string) (keys []string) {
	t.Helper()
	t.follow(`a[href="/codes/new"]`)
	t.fill(`input[name=name]`, name)
	t.fill(`input[name=count]`, "62")
	t.fill(`input[name=quota]`, "１,500") // as some type it
	t.shows(`[data-worth]`, "93,000")
	t.follow(`#new-codes button`)
	t.until(`location.pathname.startsWith("/jobs/")`)
	job := eval[string](t, `location.pathname`)
	t.follow(`button[value=keys]`)
	keys = keyPattern.FindAllString(eval[string](t, `document.getElementById("all-keys").value`), -1)
	if len(keys) != 62 {
		t.Fatalf("%d keys are shown", len(keys))
	}
	for _, how := range []string{"csv", "a4", "letter"} {
		res := p.submit(p.client, job+"/codes", url.Values{"do": {how}})
		got := head(res.Body, 200)
		p.check(res.Body.Close())
		if how == "csv" && !strings.HasPrefix(got, "id,name,key,") || how != "csv" && !strings.HasPrefix(got, "%PDF") {
			t.Errorf("as %s it is %q", how, got)
		}
	}
	t.open("/codes?batch=" + url.QueryEscape(name))
	t.until(`document.querySelectorAll("tbody tr").length == 50`)
	if found := eval[string](t, `document.body.innerText`); keyPattern.MatchString(found) {
		t.Error("the list shows a key")
	}
	t.click(`tbody tr:nth-child(1) input`)
	t.click(`tbody tr:nth-child(2) input`)
	t.click(`#bulk button[value=disable]`)
	t.follow(`#ask button[value=yes]`)
	t.until(`document.querySelectorAll("tbody .state.bad").length == 2`)
	for _, c := range []struct{ do, state string }{{"disable", "bad"}, {"enable", "live"}} {
		t.click(`thead input`)
		t.shows(`#bulk [data-count]`, "50")
		t.click(`#bulk [data-every]`)
		t.shows(`#bulk [data-count]`, "62")
		t.click(`#bulk button[value=` + c.do + `]`)
		t.shows(`#ask-title`, "62")
		t.follow(`#ask button[value=yes]`)
		t.until(`document.querySelectorAll("tbody .state.` + c.state + `").length == 50`)
		t.follow(`a[rel=next]`)
		t.until(`document.querySelectorAll("tbody .state.` + c.state + `").length == 12`)
		t.follow(`a[rel=prev]`)
	}
	t.follow(`tbody tr:nth-child(3) td:nth-child(2) a`)
	t.follow(`form[action$="/key"] button`)
	if !keyPattern.MatchString(strings.ReplaceAll(t.text(`#key`), " ", "")) {
		t.Errorf("the key is %q", t.text(`#key`))
	}
	t.until(`document.querySelector(".qr svg")`)
	return keys
}

// addMachine adds a machine with a product.
func (t *tab) addMachine(no string) {
	t.Helper()
	t.open("/machines/new")
	t.fill(`input[name=machine_no]`, no)
	t.fill(`input[name=name]`, "候车厅 "+no)
	t.follow(`main form button.main`)
	t.until(`location.pathname.includes(` + fmt.Sprintf("%q", no) + `)`)
	t.open("/machines/" + no + "/settings")
	t.fill(`form[action$="/products"] input[name=name]`, "绿茶")
	t.fill(`form[action$="/products"] input[name=slot]`, "A1")
	t.follow(`form[action$="/products"] button`)
}

// makePickup makes a pickup code by the slot.
func (t *tab) makePickup(no string) {
	t.Helper()
	t.open("/machines/" + no)
	t.touch(`.slot`)
	t.until(`document.querySelector("#make[open] form button.main")`)
	t.click(`#make form button.main`)
	t.until(`document.querySelector("[id^=pickup-] .digits")`)
	if got := t.text(`[id^=pickup-] .digits`); !regexp.MustCompile(`^\d{4} \d{4}$`).MatchString(strings.TrimSpace(got)) {
		t.Errorf("the code is %q", got)
	}
}

// withdraw takes a pickup code back by keys alone.
func (t *tab) withdraw(no string) {
	t.Helper()
	t.open("/machines/" + no)
	t.until(`document.querySelector("[id^=withdraw-]")`)
	for range 60 {
		if eval[bool](t, `document.activeElement.id.startsWith("withdraw-")`) {
			break
		}
		t.press(kb.Tab)
	}
	t.press(kb.Enter)
	t.until(`document.querySelector("#ask[open]")`)
	for range 3 {
		if eval[bool](t, `document.activeElement.value == "yes"`) {
			break
		}
		t.press(kb.Tab)
	}
	t.press(kb.Enter)
	t.until(`!document.querySelector("[id^=withdraw-]")`)
}

// addUser adds a user, and changes their balance. It returns the link that lets
// them choose a password.
func (t *tab) addUser(name string) (invitation string) {
	t.Helper()
	t.open("/users/new")
	t.fill(`input[name=username]`, name)
	t.follow(`main form button.main`)
	t.until(`document.querySelector('form[action$="/quota"]')`)
	invitation = eval[string](t, `document.body.innerHTML.match(/\/welcome\/[0-9a-f]+/)[0]`)
	t.fill(`input[name=amount]`, "2,500")
	t.fill(`[name=reason]`, "開店のお祝い")
	t.follow(`form[action$="/quota"] button`)
	t.shows(`main`, "2,500")
	return invitation
}

// verify has the ledger verified.
func (t *tab) verify() {
	t.Helper()
	t.open("/ledger")
	t.until(`document.querySelectorAll("tbody tr").length > 5`)
	t.follow(`form[action="/ledger/verify"] button`)
	t.until(`document.querySelector("main .notice:not(.bad), main .state.live")`)
}

// redeem has somebody who was invited choose a password and redeem a key, as people
// type it, and once more.
func (t *tab) redeem(invitation, key string) {
	t.Helper()
	t.open(invitation)
	t.fill(`input[name=password]`, "correct horse")
	t.fill(`input[name=again]`, "correct horse")
	t.follow(`main form button`)
	t.until(`location.pathname == "/redeem"`)
	typed := " " + strings.ToUpper(key[:8]) + " " + key[8:16] + "-" + key[16:]
	t.fill(`[name=key]`, typed)
	t.follow(`.redeem-form button`)
	t.shows(`main`, "1,500")
	t.shows(`.redeem-sum`, "4,000")
	t.open("/redeem?key=" + url.QueryEscape(key))
	t.follow(`.redeem-form button`)
	t.shows(`.redeem-sum`, "4,000")
	t.tolerate("status of 4")
	t.open("/codes")
	t.fits("a page that one may not see")
}

// TestBatchByKeys makes a batch with the keyboard alone.
func TestBatchByKeys(t *testing.T) {
	t.Parallel()
	p := start(t)
	b := p.tab(t, looks()[0])
	b.signIn(p.token, "/codes")
	b.press("n")
	b.until(`location.pathname == "/codes/new" && document.activeElement.name == "name"`)
	b.press("By keys" + kb.Tab + kb.End + "0" + kb.Tab + "500" + kb.Enter)
	b.until(`location.pathname.startsWith("/jobs/")`)
	b.shows(`h1`, "By keys")
	b.press("g")
	b.press("m")
	b.until(`location.pathname == "/machines"`)
	b.press("?")
	b.until(`document.querySelector("#keys[open]")`)
	b.press(kb.Escape)
	b.press("/")
	b.until(`document.activeElement.matches("[data-search]")`)
}
