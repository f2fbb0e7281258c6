package console_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/console"
	"github.com/scrip-codes/scrip/internal/fleet"
)

// anything is a console that is sent anything.
type anything struct {
	*people
	handler http.Handler
	routes  []console.Route
}

func newAnything(tb testing.TB) *anything {
	tb.Helper()
	p := newPeople(tb)
	p.verify = func(context.Context, func(done, total int64)) (account.Report, error) { return account.Report{}, nil }
	h := p.server.Config.Handler
	if _, err := p.fleet.CreateMerchant(tb.Context(), account.Operator(), fleet.Merchant{Name: "Acme"}, nil); err != nil {
		tb.Fatal(err)
	}
	if _, err := p.fleet.CreateMachine(tb.Context(), account.Operator(), fleet.Machine{
		MerchantID: 1, No: machineNo, Name: "Lobby", Zone: "Asia/Tokyo", PurchaseLimit: 2, PickupCodes: true,
	}, fleet.NewPassword(), nil); err != nil {
		tb.Fatal(err)
	}
	if _, err := p.fleet.CreateProduct(tb.Context(), account.Operator(), machineNo, fleet.Product{Name: "Cola", Slot: "A1"}, nil); err != nil {
		tb.Fatal(err)
	}
	p.batch(tb, "spring", 3, time.Time{})
	return &anything{p, h, console.Routes()}
}

// What forms and filters are sent: what may be right, what is not, and what would
// do harm in a page.
const (
	likely = "q=1&name=<xss>&username=x&display_name=x&role=1&status=1&count=2&quota=5&amount=5&way=more&reason=x&expires=2033-06-01T10:00&" +
		"from=2033-05-01&to=2033-05-31&user=admin&batch=spring&before=5&at=1&id=1&do=csv&back=/codes&once=1&key=x&by=hours&next=/codes&" +
		"machine=16327138&merchant=1&machine_no=20000001&zone=Asia/Tokyo&limit=2&slot=A2&product=1&quantity=1&lifetime=2h&unit=m&" +
		"payload=base64&signature=raw&expiry=s&where=redeem&subject=u2&app_key=k&password=longenough&again=longenough&code=1&online=yes"
	junk = "q=%00&name=%ff%fe&username=%00&display_name=%ed%a0%80&role=99999999999999999999&status=-1&count=-1&quota=1e9&amount=9223372036854775808&" +
		"way=x&reason=%00&expires=9999-99-99T99:99&from=0000-00-00&to=-1&user=%00&batch=%00&before=-9223372036854775808&at=9223372036854775807&id=-1&" +
		"do=a4&back=//x&once=%00&key=%00&by=%ff&next=//x&machine=%00&merchant=-1&machine_no=%00&zone=../../x&limit=-1&slot=%00&product=-1&quantity=-1&" +
		"lifetime=custom&unit=%00&payload=%00&signature=%00&expiry=%00&where=%00&subject=%00&app_key=%00&password=%00&again=%00&code=-1&online=%00"
	script = "q=<xss>&name=<xss>&username=<xss>&user=<xss>&batch=<xss>&id=1&id=2&do=keys&next=<xss>&key=<xss>&machine_no=<xss>&slot=<xss>&" +
		"app_key=<xss>&reason=<xss>&count=<xss>&quota=<xss>&expires=<xss>&zone=<xss>"
)

// send sends a form to a route, as root.
func (a *anything) send(t *testing.T, route uint8, id, form, zone string, part bool) {
	t.Helper()
	session := account.NewToken()
	_, password, err := a.engine.UserAndPassword(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.engine.StartSession(t.Context(), account.NewSession{
		UserID: 1, Password: password, Session: account.HashToken(session), Ends: a.config.Now().Add(time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	rt := a.routes[int(route)%len(a.routes)]
	req := request(t.Context(), session, rt.Method, "/", form)
	req.URL = &url.URL{Path: strings.NewReplacer("{$}", "", "{no}", id, "{id}", id, "{link}", id).Replace(rt.Path)}
	if rt.Method == http.MethodGet {
		req.URL.RawQuery = form
	}
	req.RequestURI = req.URL.RequestURI()
	req.Header.Set("Referer", "http://example.com"+req.RequestURI)
	req.Header.Add("Cookie", "scrip_zone="+zone)
	if part {
		req.Header.Set("HX-Request", "true")
	}
	rec := httptest.NewRecorder()
	a.handler.ServeHTTP(rec, req)
	if log := a.logs.forget(); rec.Code >= http.StatusInternalServerError || strings.Contains(log, "level=ERROR") {
		t.Errorf("%s %s %q: %d\n%s", rt.Method, req.RequestURI, form, rec.Code, log)
	}
	if strings.Contains(rec.Header().Get("Content-Type"), "html") && strings.Contains(rec.Body.String(), "<xss>") {
		t.Errorf("%s %s %q is in the page as it is:\n%s", rt.Method, req.RequestURI, form, rec.Body)
	}
}

// idOf is one that there is, for that route.
func (*anything) idOf(rt console.Route) string {
	if strings.Contains(rt.Path, "{no}") {
		return machineNo
	}
	return "1"
}

// TestConsoleTakesAnything: see FuzzConsole.
func TestConsoleTakesAnything(t *testing.T) {
	t.Parallel()
	a := newAnything(t)
	for i, rt := range a.routes {
		route, id := uint8(i), a.idOf(rt)
		a.send(t, route, id, likely, "UTC", false)
		a.send(t, route, id, junk, "Asia/Tokyo", true)
		a.send(t, route, id, script, "", true)
		if strings.Contains(rt.Path, "}") {
			a.send(t, route, "99999999999999999999", "&&;=%zz", "../x", false)
			a.send(t, route, "\x00\xff<xss>/../", "", "Local", true)
		}
	}
}

// FuzzConsole: whatever is sent to whichever page, it is done or refused. It is
// never a failure of ours, and never put into a page as it is.
func FuzzConsole(f *testing.F) {
	a := newAnything(f)
	for i, rt := range a.routes {
		f.Add(uint8(i), a.idOf(rt), likely, "UTC", i%2 == 0)
	}
	f.Fuzz(a.send)
}
