package console_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
)

const machineNo = "16327138"

// machine makes a machine with three products.
func (p *people) machine(t *testing.T) fleet.Machine {
	t.Helper()
	by := account.Operator()
	o, err := p.fleet.CreateMerchant(t.Context(), by, fleet.Merchant{Name: "Corner shops", AppKey: "the app key"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.fleet.CreateMachine(t.Context(), by, fleet.Machine{
		MerchantID: o.ID, No: machineNo, Name: "Lobby", Zone: "Asia/Tokyo", PurchaseLimit: 2, PickupCodes: true,
	}, fleet.NewPassword(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, product := range []fleet.Product{{Name: "Crisps", Slot: "B1"}, {Name: "Cola", Slot: "A10"}, {Name: "Green tea", Slot: "A2"}} {
		if _, err := p.fleet.CreateProduct(t.Context(), by, machineNo, product, nil); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (p *people) pickup(t *testing.T, product int64) pickup.Code {
	t.Helper()
	c, err := p.pickups.Create(t.Context(), account.Operator(), pickup.Request{MachineNo: machineNo, ProductID: product, Quantity: 1, AllowMore: true})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lateUse makes a code that is used after it was withdrawn.
func (p *people) lateUse(t *testing.T, m fleet.Machine, product int64) pickup.Code {
	t.Helper()
	c := p.pickup(t, product)
	if err := p.pickups.Withdraw(t.Context(), account.Operator(), c.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := p.pickups.Used(t.Context(), m.ID, c.ID, "192.0.2.1", time.Time{}); err != nil {
		t.Fatal(err)
	}
	return c
}

// part is what htmx is answered.
func (p *people) part(t *testing.T, method, path string, form url.Values, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("HX-Request", "true")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	req.Header.Set("Accept-Language", "en")
	if method == "POST" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r := p.answer(t, "admin", req)
	r.location = r.header.Get("HX-Redirect")
	return r
}

func digitsOf(c pickup.Code) string { return c.Digits[:4] + " " + c.Digits[4:] }

// inOrder fails unless the texts are in the page, one behind the other.
func (r reply) inOrder(t *testing.T, texts ...string) {
	t.Helper()
	rest := r.body
	for _, text := range texts {
		_, after, ok := strings.Cut(rest, text)
		if !ok {
			t.Fatalf("%q is not there, or not behind what is before it:\n%s", text, r.body)
		}
		rest = after
	}
}

func TestMachinesAreForAdmins(t *testing.T) {
	p := newPeople(t)
	m := p.machine(t)
	c := p.lateUse(t, m, 1)
	for _, path := range []string{
		"/machines", "/machines/events", "/machines/new", "/machines/" + machineNo, "/machines/" + machineNo + "/events",
		"/machines/" + machineNo + "/make", "/machines/" + machineNo + "/settings", "/machines/" + machineNo + "/connection",
		"/machines/" + machineNo + "/virtual", "/late", fmt.Sprintf("/machines/%s/pickups/%d", machineNo, c.ID),
	} {
		p.get(t, "alice", path).has(t, http.StatusForbidden, "!Lobby", "!"+digitsOf(c), "!the app key")
		p.get(t, "nobody", path).to(t, "/signin?next="+url.QueryEscape(path))
	}
	before := p.kinds(t, 1)
	for _, path := range []string{
		"/machines", "/machines/" + machineNo + "/make", "/machines/" + machineNo + "/settings", "/machines/" + machineNo + "/delete",
		"/machines/" + machineNo + "/products", "/machines/" + machineNo + "/products/1", "/machines/" + machineNo + "/products/1/delete",
		"/machines/" + machineNo + "/connection", "/machines/" + machineNo + "/virtual", "/late", "/machines/" + machineNo + "/late/all",
		fmt.Sprintf("/machines/%s/pickups/%d/withdraw", machineNo, c.ID),
	} {
		p.post(t, "alice", path, "do", "password", "id", fmt.Sprint(c.ID)).has(t, http.StatusForbidden)
	}
	if after := p.kinds(t, 1); after != before {
		t.Errorf("the ledger has %s on top", after)
	}
}

func TestMachineIsAdded(t *testing.T) {
	p := newPeople(t)
	p.get(t, "admin", "/machines").has(t, http.StatusOK, "No machines yet", "0 of 0 online")
	p.get(t, "admin", "/machines/new").has(t, http.StatusOK, `name="merchant_name"`)
	p.post(t, "admin", "/machines", "machine_no", machineNo, "name", "Lobby", "zone", "Nowhere/Land", "limit", "3", "merchant_name", "Corner shops").
		has(t, http.StatusUnprocessableEntity, `value="Lobby"`, `role="alert"`, `value="Nowhere/Land"`)
	// The merchant is there now: it is chosen.
	made := p.post(t, "admin", "/machines", "machine_no", machineNo, "name", "<Lobby>", "zone", "Asia/Tokyo", "limit", "3", "merchant", "1")
	made.has(t, http.StatusOK, "&lt;Lobby&gt;", "!<Lobby>", "mqtt://broker.example:1883", "/clients/"+machineNo, "Set-up of machine "+machineNo, "!the app key")
	password := regexp.MustCompile(`<code>([0-9a-f]{32})</code>`).FindStringSubmatch(made.body)
	if password == nil {
		t.Fatalf("no password in\n%s", made.body)
	}
	if _, err := p.fleet.Login(t.Context(), machineNo, password[1], "192.0.2.1"); err != nil {
		t.Errorf("logging in with it: %v", err)
	}
	p.get(t, "admin", "/machines/"+machineNo+"/connection").has(t, http.StatusOK, "!"+password[1])
	p.post(t, "admin", "/machines", "machine_no", machineNo, "name", "Twin", "zone", "Asia/Tokyo", "limit", "1", "merchant", "1").
		has(t, http.StatusUnprocessableEntity, "Another machine has this")
	p.get(t, "admin", "/machines").has(t, http.StatusOK, "0 of 1 online", machineNo, "Corner shops", "Never")

	again := p.post(t, "admin", "/machines/"+machineNo+"/connection", "do", "password")
	again.has(t, http.StatusOK, "!"+password[1])
	if _, err := p.fleet.Login(t.Context(), machineNo, password[1], "192.0.2.1"); err == nil {
		t.Error("the old password is good")
	}
	if strings.Contains(p.logs.String(), password[1]) {
		t.Error("the password is in the log")
	}
}

func TestMachinesAreFound(t *testing.T) {
	p := newPeople(t)
	p.machine(t)
	for i := range 60 {
		if _, err := p.fleet.CreateMachine(t.Context(), account.Operator(), fleet.Machine{
			MerchantID: 1, No: fmt.Sprintf("2000%04d", i), Name: fmt.Sprintf("Platform %d", i), Zone: "UTC", PurchaseLimit: 1, PickupCodes: true,
		}, fleet.NewPassword(), nil); err != nil {
			t.Fatal(err)
		}
	}
	p.pickup(t, 1)
	first := p.get(t, "admin", "/machines")
	first.has(t, http.StatusOK, "Platform 59", "!Platform 9<", `href="/machines?before=`, "0 of 61 online")
	older := regexp.MustCompile(`href="(/machines\?before=\d+)"`).FindStringSubmatch(first.body)[1]
	p.get(t, "admin", older).has(t, http.StatusOK, "Platform 9<", "Lobby", "1 message waits", "!Platform 59", `href="/machines"`)
	p.get(t, "admin", "/machines?q=lob").has(t, http.StatusOK, "Lobby", "!Platform", `value="lob"`)
	p.get(t, "admin", "/machines?q=20000007&online=no&merchant=1").has(t, http.StatusOK, "Platform 7<", "!Lobby<")
	p.get(t, "admin", "/machines?online=yes").has(t, http.StatusOK, "No machine fits", "!Platform")
	part := p.part(t, "GET", "/machines?q=lob&online=&merchant=", nil)
	part.has(t, http.StatusOK, "Lobby", "!<html")
	if to := part.header.Get("HX-Push-Url"); to != "/machines?q=lob" {
		t.Errorf("the address becomes %q", to)
	}
	// Who goes back is shown a whole page again.
	p.part(t, "GET", "/machines?q=lob", nil, "HX-History-Restore-Request", "true").has(t, http.StatusOK, "Lobby", "<html")
	for _, junk := range []string{"?q=%00", "?q=%ff%fe", "?q=" + strings.Repeat("x", 5000), "?before=-1&merchant=x&online=maybe", "?before=99999999999999999999", "?q=%25_'\"<script>"} {
		if r := p.get(t, "admin", "/machines"+junk); r.status != http.StatusOK || strings.Contains(r.body, "<script>") {
			t.Errorf("%s: %d", junk, r.status)
		}
	}
}

func TestPickupCodeOnThePage(t *testing.T) {
	p := newPeople(t)
	p.machine(t)
	at := "/machines/" + machineNo
	// Rows by letter, and in them by number.
	p.get(t, "admin", at).inOrder(t, ">A2<", ">A10<", ">B1<")
	form := p.part(t, "GET", at+"/make?product=3", nil)
	form.has(t, http.StatusOK, "Green tea", `value="2"`, "!value=\"3\"><span>", "!<html", "!name=\"more\"")
	once := regexp.MustCompile(`name="once" value="([^"]+)"`).FindStringSubmatch(form.body)[1]
	send := url.Values{"once": {once}, "product": {"3"}, "quantity": {"2"}, "lifetime": {"custom"}, "count": {"90"}, "unit": {"m"}}
	made := p.part(t, "POST", at+"/make", send)
	digits := regexp.MustCompile(`data-copy="(\d{8})"`).FindStringSubmatch(made.body)
	if made.status != http.StatusOK || digits == nil {
		t.Fatalf("%d:\n%s", made.status, made.body)
	}
	made.has(t, http.StatusOK, "Queued", `hx-trigger="every 1s"`, "Green tea")
	// The same form again does nothing.
	if r := p.part(t, "POST", at+"/make", send); r.location != at {
		t.Errorf("sent twice: %d to %q", r.status, r.location)
	}
	list, err := p.pickups.List(t.Context(), account.Operator(), pickup.Query{MachineNo: machineNo, Limit: 9})
	if err != nil || len(list) != 1 || list[0].Digits != digits[1] || list[0].Quantity != 2 || list[0].Expires.Sub(list[0].Created) != 90*time.Minute {
		t.Fatalf("%+v, %v", list, err)
	}
	c := list[0]
	p.get(t, "admin", at).has(t, http.StatusOK, digitsOf(c), `data-until="`+fmt.Sprint(c.Expires.UnixMilli()), "JST", "Withdraw "+digitsOf(c)+" from machine "+machineNo+"?")

	// A second one for the product is asked for on purpose.
	p.part(t, "POST", at+"/make", url.Values{"once": {"2"}, "product": {"3"}, "quantity": {"1"}, "lifetime": {"2h"}}).
		has(t, http.StatusUnprocessableEntity, `role="alert"`, `name="more"`)
	p.post(t, "admin", at+"/make", "once", "3", "product", "3", "quantity", "1", "lifetime", "2h", "more", "1").to(t, at)
	for name, bad := range map[string]url.Values{
		"too many":   {"product": {"3"}, "quantity": {"3"}, "lifetime": {"2h"}, "more": {"1"}},
		"none":       {"product": {"3"}, "quantity": {"0"}, "lifetime": {"2h"}, "more": {"1"}},
		"for ever":   {"product": {"3"}, "quantity": {"1"}, "lifetime": {"custom"}, "count": {"9223372036854775807"}, "unit": {"d"}, "more": {"1"}},
		"no time":    {"product": {"3"}, "quantity": {"1"}, "lifetime": {"custom"}, "count": {"x"}, "unit": {"d"}, "more": {"1"}},
		"no unit":    {"product": {"3"}, "quantity": {"1"}, "lifetime": {"custom"}, "count": {"1"}, "unit": {"y"}, "more": {"1"}},
		"no product": {"product": {"77"}, "quantity": {"1"}, "lifetime": {"2h"}},
	} {
		bad.Set("once", name)
		if r := p.part(t, "POST", at+"/make", bad); r.status != http.StatusUnprocessableEntity || !strings.Contains(r.body, `role="alert"`) {
			t.Errorf("%s: %d\n%s", name, r.status, r.body)
		}
	}

	withdraw := fmt.Sprintf("%s/pickups/%d/withdraw", at, c.ID)
	p.part(t, "POST", withdraw, nil).has(t, http.StatusOK, "Withdrawn", "!"+withdraw, "!<html")
	if kinds := p.kinds(t, 1); kinds != string(account.KindPickupWithdraw) {
		t.Errorf("the ledger has %s", kinds)
	}
	p.part(t, "GET", fmt.Sprintf("%s/pickups/%d", at, c.ID), nil).has(t, http.StatusOK, "Withdrawn", "!hx-trigger")
}

// TestProductsInTheStory: what a code was made for stands there by its name of that
// time; entries from before that was written down have the number.
func TestProductsInTheStory(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.machine(t)
	p.pickup(t, 2)
	name := "Cola & ice"
	if _, err := p.fleet.ChangeProduct(t.Context(), account.Operator(), machineNo, 2, fleet.ProductChange{Name: &name}); err != nil {
		t.Fatal(err)
	}
	p.pickup(t, 2)
	p.get(t, "admin", "/ledger").has(t, 200, "<b>1</b> × <b>Cola</b>", "<b>1</b> × <b>Cola &amp; ice</b>")
	p.database.Alter(t, `UPDATE ledger SET detail = '{"product_id":2,"quantity":1}' WHERE kind = 'pickup_create'`)
	p.get(t, "admin", "/ledger").has(t, 200, "<b>1</b> × <b>product 2</b>", "!× <b>Cola")
}

func TestLateUsesAreAcknowledged(t *testing.T) {
	p := newPeople(t)
	m := p.machine(t)
	var late []pickup.Code
	for i := range 4 {
		late = append(late, p.lateUse(t, m, int64(i%3)+1))
	}
	at := "/machines/" + machineNo
	p.get(t, "admin", at).has(t, http.StatusOK, "4 late uses", digitsOf(late[0]))
	p.get(t, "admin", "/late").has(t, http.StatusOK, "4 to look at", "Lobby", "Green tea", digitsOf(late[3]), "Withdrawn")
	p.part(t, "POST", at+"/late", url.Values{"id": {fmt.Sprint(late[0].ID)}}).has(t, http.StatusOK, "3 late uses", "!Acknowledge "+digitsOf(late[0]))
	p.post(t, "admin", "/late", "id", fmt.Sprint(late[1].ID), "id", fmt.Sprint(late[2].ID)).to(t, "/late")
	p.get(t, "admin", "/late").has(t, http.StatusOK, "1 to look at", "!"+digitsOf(late[1]))
	p.post(t, "admin", at+"/late/all").to(t, at)
	p.get(t, "admin", "/late").has(t, http.StatusOK, "No late uses")
	if kinds := p.kinds(t, 1); kinds != string(account.KindPickupAcknowledge) {
		t.Errorf("the ledger has %s", kinds)
	}
	p.lateUse(t, m, 1)
	p.post(t, "admin", at+"/delete").to(t, "/machines")
	p.get(t, "admin", "/late").has(t, http.StatusOK, "Machine deleted", "!href=\""+at+"\"")
	for _, junk := range []string{"x", "0", "-1", "99999999999999999999", "424242"} {
		p.post(t, "admin", "/late", "id", junk).has(t, http.StatusNotFound)
	}
}

func TestMachineIsChanged(t *testing.T) {
	p := newPeople(t)
	p.machine(t)
	at := "/machines/" + machineNo
	c := p.pickup(t, 1)
	settings := at + "/settings"
	p.post(t, "admin", settings, "name", "Hall", "zone", "Europe/Paris", "limit", "1").to(t, settings)
	p.get(t, "admin", at).has(t, http.StatusOK, "Hall", "Europe/Paris", "switched off", digitsOf(c), "CEST")
	p.post(t, "admin", settings, "name", "", "zone", "Europe/Paris", "limit", "9", "pickups", "1").has(t, http.StatusUnprocessableEntity, `role="alert"`)
	p.part(t, "POST", at+"/make", url.Values{"once": {"1"}, "product": {"2"}, "quantity": {"1"}, "lifetime": {"2h"}}).has(t, http.StatusUnprocessableEntity, `role="alert"`)

	p.post(t, "admin", at+"/products", "once", "1", "name", "Umbrella", "slot", "C1", "id", "120").to(t, settings+"?added=1#add")
	p.post(t, "admin", at+"/products", "once", "1", "name", "Umbrella", "slot", "C1", "id", "120").to(t, settings+"?added=1#add") // the same form
	p.get(t, "admin", settings).has(t, http.StatusOK, "Umbrella", "#120", "!#121")
	p.get(t, "admin", settings).has(t, 200, "!more than one product")
	p.post(t, "admin", at+"/products", "once", "4", "name", "Cape", "slot", "C1", "id", "121").to(t, settings+"?added=1#add")
	p.get(t, "admin", settings).has(t, 200, "Slot C1 holds more than one product")
	p.post(t, "admin", at+"/products/121/delete").to(t, settings)
	p.post(t, "admin", at+"/products", "once", "2", "name", "Torch", "slot", "", "id", "").has(t, http.StatusUnprocessableEntity, `value="Torch"`)
	p.post(t, "admin", at+"/products", "once", "3", "name", "Torch", "slot", "C2", "id", "x").has(t, http.StatusUnprocessableEntity, `value="Torch"`)
	p.post(t, "admin", at+"/products/120", "name", "Parasol", "slot", "C3").to(t, settings)
	p.post(t, "admin", at+"/products/120", "name", "", "slot", "C3").has(t, http.StatusUnprocessableEntity)
	p.get(t, "admin", settings).has(t, http.StatusOK, "Parasol", "!Umbrella", `value="C3"`)
	p.post(t, "admin", at+"/products/1/delete").to(t, settings)
	p.get(t, "admin", at).has(t, http.StatusOK, "Product 1, deleted", "Withdrawn")
	for _, id := range []string{"0", "x", "-3", "999"} {
		p.post(t, "admin", at+"/products/"+id+"/delete").has(t, http.StatusNotFound)
	}
	p.post(t, "admin", at+"/delete").to(t, "/machines")
	p.get(t, "admin", at).has(t, http.StatusNotFound)
	p.get(t, "admin", "/machines/%00bad").has(t, http.StatusNotFound)
	p.get(t, "admin", "/machines/123/events").has(t, http.StatusNotFound)
}

func TestAppKeyOfMachine(t *testing.T) {
	p := newPeople(t)
	p.machine(t)
	at := "/machines/" + machineNo + "/connection"
	p.get(t, "admin", at).has(t, http.StatusOK, "Corner shops", "!the app key")
	p.post(t, "admin", at, "do", "key").has(t, http.StatusOK, "the app key")
	if kinds := p.kinds(t, 1); kinds != string(account.KindReveal) {
		t.Errorf("the ledger has %s", kinds)
	}
}

func TestVirtualMachineIsServed(t *testing.T) {
	p := newPeople(t)
	p.machine(t)
	at := "/machines/" + machineNo + "/virtual"
	p.get(t, "admin", at).has(t, http.StatusOK, `"app_key":"the app key"`, `"slot":"A10"`, `"zone":"Asia/Tokyo"`, "!data-password")
	made := p.post(t, "admin", at)
	made.has(t, http.StatusOK, "data-password=")
	password := regexp.MustCompile(`data-password="([0-9a-f]+)"`).FindStringSubmatch(made.body)[1]
	if _, err := p.fleet.Login(t.Context(), machineNo, password, "192.0.2.1"); err != nil {
		t.Errorf("logging in with it: %v", err)
	}
}

// TestMachineLive: who looks at a machine sees what others do.
func TestMachineLive(t *testing.T) {
	p := newPeople(t)
	p.machine(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.server.URL+"/machines/"+machineNo+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := p.as["admin"].Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	until := func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("%q was not sent: %v", text, lines.Err())
	}
	until("event: now")
	until("Green tea")
	c := p.pickup(t, 3)
	until(digitsOf(c))
	if err := p.pickups.Withdraw(ctx, account.Operator(), c.ID); err != nil {
		t.Fatal(err)
	}
	until(">Withdrawn<")
	if err := p.fleet.DeleteMachine(ctx, account.Operator(), machineNo); err != nil {
		t.Fatal(err)
	}
	until("This machine was deleted")
}
