package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/web"
)

// began is how /api/v1 writes the time at which every test begins.
const began = "2027-01-15T08:00:00.000Z"

// v1 is a request to /api/v1 of the admin.
func (w *world) v1(method, path, body string) request {
	return request{method: method, path: "/api/v1" + path, body: body, as: w.admin}
}

// must is do for a request that is done.
func (w *world) must(tb testing.TB, r request) reply {
	tb.Helper()
	got, err := w.try(tb, r)
	if err != nil || !got.Success {
		tb.Fatalf("%s %s: %v, %s", r.method, r.path, err, got.text)
	}
	return got
}

func object[T any](tb testing.TB, r reply) (v T) {
	tb.Helper()
	if err := json.Unmarshal([]byte(r.text), &v); err != nil {
		tb.Fatalf("%s: %v", r.text, err)
	}
	return v
}

func (w *world) merchant(tb testing.TB) merchantObject {
	tb.Helper()
	m := object[merchantObject](tb, w.must(tb, w.v1("POST", "/merchants", `{"name":"Corner Shops"}`)))
	w.secret(m.AppKey)
	return m
}

// machine makes one; more is of its body, and begins with a comma.
func (w *world) machine(tb testing.TB, merchant int64, no, more string) {
	tb.Helper()
	r := w.must(tb, w.v1("POST", "/machines", fmt.Sprintf(
		`{"merchant_id":%d,"machine_no":%q,"name":"Hall","timezone":"Asia/Shanghai"%s}`, merchant, no, more)))
	w.secret(object[struct {
		MQTTPassword string `json:"mqtt_password"`
	}](tb, r).MQTTPassword)
}

func (w *world) product(tb testing.TB, no string, id int64) {
	tb.Helper()
	w.must(tb, w.v1("POST", "/machines/"+no+"/products", fmt.Sprintf(`{"id":%d,"name":"Tea","slot":"A1"}`, id)))
}

// pickupCode makes one on machine 10000001; more is as that of machine.
func (w *world) pickupCode(tb testing.TB, product int64, more string) pickupObject {
	tb.Helper()
	p := object[pickupObject](tb, w.must(tb, w.v1("POST", "/machines/10000001/pickup-codes",
		fmt.Sprintf(`{"product_id":%d,"quantity":1%s}`, product, more))))
	w.secret(p.Code)
	return p
}

func (w *world) used(t *testing.T, p *pickupObject) {
	t.Helper()
	if _, err := w.config.Pickups.Used(t.Context(), p.MachineID, p.ID, "192.0.2.1", time.Time{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) fleetList(t *testing.T, path string) string {
	t.Helper()
	return w.must(t, w.v1("GET", path+"?limit=100", "")).text
}

// TestV1 is every route of /api/v1: what it does, and what its answer shows.
func TestV1(t *testing.T) {
	w := newWorld(t, options{})
	exactly := func(want string) func(*testing.T, reply) {
		return func(t *testing.T, r reply) {
			t.Helper()
			if r.text != want {
				t.Errorf("answered\n%s, want\n%s", r.text, want)
			}
		}
	}
	located := func(path string, then func(*testing.T, reply)) func(*testing.T, reply) {
		return func(t *testing.T, r reply) {
			t.Helper()
			if r.header.Get("Location") != path {
				t.Errorf("Location %q, want %q", r.header.Get("Location"), path)
			}
			if then != nil {
				then(t, r)
			}
		}
	}
	empty := exactly("")

	const key = "an app key, of spaces & ünïcode"
	w.secret(key)
	shops := `{"id":1,"name":"Corner Shops","app_key":"` + key + `","payload":"json","signature":"raw","expiry_unit":"ms","created_at":"` + began + `"}`
	shops = strings.ReplaceAll(shops, "&", `\u0026`) // as encoding/json writes it
	based := strings.Replace(shops, `"json"`, `"base64"`, 1)
	machine := `{"id":1,"merchant_id":1,"machine_no":"00327138","name":"Hall 2","timezone":"Asia/Shanghai","purchase_limit":1,` +
		`"pickup_codes_enabled":true,"online":false,"last_seen":null,"created_at":"` + began + `"}`
	secondMachine := `{"id":2,"merchant_id":1,"machine_no":"16327138","name":"Gate","timezone":"America/New_York","purchase_limit":3,` +
		`"pickup_codes_enabled":false,"online":false,"last_seen":null,"created_at":"` + began + `"}`
	tea := `{"id":20001,"machine_no":"00327138","name":"Tea 茶","slot":"A3","created_at":"` + began + `"}`
	nuts := `{"id":20002,"machine_no":"00327138","name":"Nuts","slot":"12","created_at":"` + began + `"}`
	list := func(items ...string) string {
		return `{"items":[` + strings.Join(items, ",") + `],"next_cursor":null}`
	}
	var password string
	withPassword := func(want string) func(*testing.T, reply) {
		return func(t *testing.T, r reply) {
			t.Helper()
			password = w.secret(object[map[string]any](t, r)["mqtt_password"].(string))
			exactly(strings.TrimSuffix(want, "}")+`,"mqtt_password":"`+password+`"}`)(t, r)
		}
	}
	var code pickupObject
	pickups := func(p pickupObject) string {
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}

	for _, s := range []scenario{
		{name: "no merchants", request: w.v1("GET", "/merchants", ""), then: exactly(list())},
		{name: "no machines", request: w.v1("GET", "/machines/", ""), then: exactly(list())},
		{
			name:    "a merchant",
			request: w.v1("POST", "/merchants", `{"id":99,"name":" Corner Shops ","app_key":"`+key+`","payload":null,"more":[{}]}`),
			status:  201, then: located("/api/v1/merchants/1", exactly(shops)),
		},
		{
			name:    "a merchant in other forms",
			request: w.v1("POST", "/merchants/", `{"name":"x","payload":"base64","signature":"percent-encoded","expiry_unit":"s"}`),
			status:  201, has: []string{`"payload":"base64","signature":"percent-encoded","expiry_unit":"s"`},
			then: located("/api/v1/merchants/2", func(t *testing.T, r reply) {
				t.Helper()
				if k := w.secret(object[merchantObject](t, r).AppKey); len(k) != 32 {
					t.Errorf("app key %q", k)
				}
			}),
		},
		{name: "read a merchant", request: w.v1("GET", "/merchants/1", ""), then: exactly(shops)},
		{name: "change a merchant", request: w.v1("PATCH", "/merchants/1", `{"payload":"base64","name":null,"created_at":5}`), then: exactly(based)},
		{name: "change nothing of a merchant", request: w.v1("PATCH", "/merchants/1", `{}`), then: exactly(based)},
		{name: "change a merchant to what it is", request: w.v1("PATCH", "/merchants/1", `{"payload":"base64","name":" Corner Shops"}`), then: exactly(based)},
		{name: "change it back", request: w.v1("PATCH", "/merchants/1/", `{"payload":"json"}`), then: exactly(shops)},

		{
			name:    "a machine",
			request: w.v1("POST", "/machines", `{"merchant_id":1,"machine_no":"00327138","name":" Hall 2 ","timezone":"Asia/Shanghai","id":7,"online":true,"mqtt_password":"mine"}`),
			status:  201, hasNot: []string{"app_key", key, "mine"},
			then: located("/api/v1/machines/00327138", withPassword(machine)),
		},
		{
			name:    "a machine with all that may be said",
			request: w.v1("POST", "/machines", `{"merchant_id":1,"machine_no":"16327138","name":"Gate","timezone":"America/New_York","purchase_limit":3,"pickup_codes_enabled":false}`),
			status:  201, then: withPassword(secondMachine),
		},
		{name: "read a machine", request: w.v1("GET", "/machines/00327138", ""), hasNot: []string{"password", "app_key"}, then: exactly(machine)},
		{name: "list machines", request: w.v1("GET", "/machines", ""), hasNot: []string{"password", "app_key"}, then: exactly(list(secondMachine, machine))},
		{name: "change a machine", request: w.v1("PATCH", "/machines/16327138", `{"name":"Gate 2","timezone":"Asia/Kathmandu","purchase_limit":2,"pickup_codes_enabled":true,"machine_no":"11111111","merchant_id":2}`), then: exactly(
			strings.NewReplacer("Gate", "Gate 2", "America/New_York", "Asia/Kathmandu", ":3,", ":2,", "enabled\":false", "enabled\":true").Replace(secondMachine))},
		{name: "change nothing of a machine", request: w.v1("PATCH", "/machines/00327138", `{"name":null,"timezone":null,"purchase_limit":null,"pickup_codes_enabled":null}`), hasNot: []string{"password"}, then: exactly(machine)},
		{name: "a new password", request: w.v1("POST", "/machines/16327138/mqtt-password", ""), then: func(t *testing.T, r reply) {
			t.Helper()
			old := password
			withPassword(`{"machine_no":"16327138"}`)(t, r)
			if password == old || len(password) != 32 {
				t.Error("the password is the old one")
			}
			if m, err := w.config.Fleet.Login(t.Context(), "16327138", password, "192.0.2.1"); err != nil || m.ID != 2 {
				t.Errorf("%+v %v", m, err)
			}
		}},
		{name: "a new password again, whatever the body", request: w.v1("POST", "/machines/16327138/mqtt-password/", "{"), then: withPassword(`{"machine_no":"16327138"}`)},

		{name: "a product", request: w.v1("POST", "/machines/00327138/products", `{"id":20001,"name":" Tea 茶","slot":" A3","machine_no":"11111111"}`), status: 201, then: located("/api/v1/machines/00327138/products/20001", exactly(tea))},
		{name: "a product with the next id, in a numbered slot", request: w.v1("POST", "/machines/00327138/products", `{"id":null,"name":"Nuts","slot":12}`), status: 201, then: located("/api/v1/machines/00327138/products/20002", exactly(nuts))},
		{name: "list products", request: w.v1("GET", "/machines/00327138/products", ""), then: exactly(list(nuts, tea))},
		{name: "no products", request: w.v1("GET", "/machines/16327138/products", ""), then: exactly(list())},
		{name: "change a product", request: w.v1("PATCH", "/machines/00327138/products/20002", `{"name":"Nuts 2","slot":-7,"id":5}`), then: exactly(strings.NewReplacer("Nuts", "Nuts 2", `"12"`, `"-7"`).Replace(nuts))},
		{name: "change a product's slot", request: w.v1("PATCH", "/machines/00327138/products/20002", `{"slot":"0007","name":null}`), then: exactly(strings.NewReplacer("Nuts", "Nuts 2", `"12"`, `"0007"`).Replace(nuts))},
		{name: "change nothing of a product", request: w.v1("PATCH", "/machines/00327138/products/20001", `{"slot":null}`), then: exactly(tea)},

		{name: "no pickup codes", request: w.v1("GET", "/machines/00327138/pickup-codes", ""), then: exactly(list())},
		{
			name:    "a pickup code",
			request: w.v1("POST", "/machines/00327138/pickup-codes", `{"product_id":20001,"quantity":1,"code":"12345678","state":"used"}`),
			status:  201, hasNot: []string{"12345678", "password", "app_key"},
			then: located("/api/v1/pickup-codes/1", func(t *testing.T, r reply) {
				t.Helper()
				code = object[pickupObject](t, r)
				if len(w.secret(code.Code)) != 8 || strings.Trim(code.Code, "0123456789") != "" {
					t.Errorf("code %q", code.Code)
				}
				want := pickupObject{
					ID: 1, Code: code.Code, MachineID: 1, MachineNo: "00327138", ProductID: 20001, Quantity: 1, State: "live",
					Delivery: "queued", CreatedBy: w.admin.id, CreatedAt: began, ExpiresAt: "2027-01-15T10:00:00.000Z",
				}
				exactly(pickups(want))(t, r)
			}),
		},
		{name: "read a pickup code", request: w.v1("GET", "/pickup-codes/1", ""), then: func(t *testing.T, r reply) {
			t.Helper()
			exactly(pickups(code))(t, r)
		}},
		{name: "more for the product, for a second", request: w.v1("POST", "/machines/00327138/pickup-codes", `{"product_id":20001,"quantity":1,"allow_more":true,"ttl_seconds":1}`), status: 201, has: []string{`"expires_at":"2027-01-15T08:00:01.000Z"`}},
		{name: "for thirty days, of another product", request: w.v1("POST", "/machines/00327138/pickup-codes", `{"product_id":20002,"quantity":1,"ttl_seconds":2592000,"allow_more":null}`), status: 201, has: []string{`"expires_at":"2027-02-14T08:00:00.000Z"`}, then: func(t *testing.T, _ reply) {
			t.Helper()
			w.clock.advance(1500 * time.Millisecond)
		}},
		{name: "withdraw", request: w.v1("DELETE", "/pickup-codes/1", ""), status: 204, then: empty},
		{name: "withdraw again", request: w.v1("DELETE", "/pickup-codes/1", ""), status: 204, then: empty},
		{name: "withdrawn", request: w.v1("GET", "/pickup-codes/1", ""), then: func(t *testing.T, r reply) {
			t.Helper()
			code.State, code.WithdrawnAt = "withdrawn", new("2027-01-15T08:00:01.500Z")
			exactly(pickups(code))(t, r)
			w.used(t, &code)
		}},
		{name: "used all the same", request: w.v1("GET", "/machines/00327138/pickup-codes?late_use=true", ""), then: func(t *testing.T, r reply) {
			t.Helper()
			late := object[listing[pickupObject]](t, r).Items
			if len(late) != 1 || late[0].ID != 1 || late[0].State != "used" || !late[0].LateUse || *late[0].UsedAt != "2027-01-15T08:00:01.500Z" {
				t.Errorf("%+v", late)
			}
		}},
		{name: "list pickup codes", request: w.v1("GET", "/machines/00327138/pickup-codes?late_use=false", ""), then: func(t *testing.T, r reply) {
			t.Helper()
			var states []pickup.State
			for _, p := range object[listing[pickupObject]](t, r).Items {
				states = append(states, p.State)
			}
			if !slices.Equal(states, []pickup.State{"live", "expired", "used"}) {
				t.Errorf("%v", states)
			}
			// One machine is connected, the other has just been heard of.
			if err := w.db.See(t.Context(), []fleet.Sighting{
				{MachineID: 1, Presence: fleet.Connected, At: w.clock.now()}, {MachineID: 2, Presence: fleet.Heard, At: w.clock.now()},
			}); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "online", request: w.v1("GET", "/machines/16327138", ""), has: []string{`"online":true,"last_seen":"2027-01-15T08:00:01.500Z"`}, then: func(t *testing.T, _ reply) {
			t.Helper()
			w.clock.advance(fleet.SilentFor)
		}},
		{name: "silent", request: w.v1("GET", "/machines/16327138", ""), has: []string{`"online":false,"last_seen":"2027-01-15T08:00:01.500Z"`}},
		{name: "connected", request: w.v1("GET", "/machines/00327138", ""), has: []string{`"online":true`}},

		{name: "remove a product", request: w.v1("DELETE", "/machines/00327138/products/20002", ""), status: 204, then: empty},
		{name: "its code is withdrawn", request: w.v1("GET", "/pickup-codes/3", ""), has: []string{`"state":"withdrawn"`}},
		{name: "the other product is left", request: w.v1("GET", "/machines/00327138/products", ""), then: exactly(list(tea))},
		{name: "remove a machine", request: w.v1("DELETE", "/machines/16327138", ""), status: 204, then: empty},
		{name: "it is gone", request: w.v1("GET", "/machines/16327138", ""), status: 404, code: refusal.MachineNotFound},
		{name: "its number is free", request: w.v1("POST", "/machines", `{"merchant_id":2,"machine_no":"16327138","name":"New","timezone":"UTC"}`), status: 201, has: []string{`"id":3,"merchant_id":2`}},
		{name: "list merchants", request: w.v1("GET", "/merchants?limit=100&cursor=&unknown=5", ""), hasNot: []string{"password"}, has: []string{`{"items":[{"id":2,`, shops + `],"next_cursor":null}`}},
	} {
		t.Run(s.name, func(t *testing.T) {
			s.broken = s.body == "{"
			s.check(t, w.do(t, s.request))
		})
	}
	w.everyOperationSeen(t, v1)
	if report := w.verify(t); report.Entries == 0 {
		t.Error("the ledger is empty")
	}
}

// TestV1Access: an admin's access token opens it, and nothing else does.
func TestV1Access(t *testing.T) {
	w := newWorld(t, options{})
	m := w.merchant(t)
	w.machine(t, m.ID, "10000001", "")
	w.product(t, "10000001", 5)
	code := w.pickupCode(t, 5, "")
	disabled := w.newMember(t, "carol", account.RoleAdmin)
	if err := w.accounts.SetStatus(t.Context(), account.Operator(), disabled.id, account.StatusDisabled); err != nil {
		t.Fatal(err)
	}
	if _, err := w.accounts.Create(t.Context(), account.Operator(), account.CreateRequest{
		Username: "dave", Password: "correct horse", Role: account.RoleAdmin,
	}); err != nil {
		t.Fatal(err)
	}
	login := w.do(t, request{method: "POST", path: "/api/user/login", body: `{"username":"dave","password":"correct horse"}`})
	cookie, _, _ := strings.Cut(login.header.Get("Set-Cookie"), ";")
	dave := fmt.Sprint(data[userObject](t, login).ID)

	routes := []request{
		w.v1("GET", "/merchants", ""), w.v1("POST", "/merchants", `{"name":"x"}`), w.v1("GET", "/merchants/1", ""),
		w.v1("PATCH", "/merchants/1", `{"name":"x"}`), w.v1("GET", "/machines", ""),
		w.v1("POST", "/machines", `{"merchant_id":1,"machine_no":"10000002","name":"x","timezone":"UTC"}`),
		w.v1("GET", "/machines/10000001", ""), w.v1("PATCH", "/machines/10000001", `{"name":"x"}`), w.v1("DELETE", "/machines/10000001", ""),
		w.v1("POST", "/machines/10000001/mqtt-password", ""), w.v1("GET", "/machines/10000001/products", ""),
		w.v1("POST", "/machines/10000001/products", `{"name":"x","slot":"x"}`), w.v1("PATCH", "/machines/10000001/products/5", `{"name":"x"}`),
		w.v1("DELETE", "/machines/10000001/products/5", ""), w.v1("GET", "/machines/10000001/pickup-codes", ""),
		w.v1("POST", "/machines/10000001/pickup-codes", `{"product_id":5,"quantity":1,"allow_more":true}`),
		w.v1("GET", fmt.Sprintf("/pickup-codes/%d", code.ID), ""), w.v1("DELETE", fmt.Sprintf("/pickup-codes/%d", code.ID), ""),
	}
	if all := (&server{}).routesV1(); len(routes) != len(all) {
		t.Fatalf("%d routes are tried, there are %d", len(routes), len(all))
	}
	look := func() string {
		return w.must(t, w.v1("GET", "/merchants", "")).text + w.must(t, w.v1("GET", "/machines", "")).text +
			w.must(t, w.v1("GET", "/machines/10000001/products", "")).text + w.must(t, w.v1("GET", "/machines/10000001/pickup-codes", "")).text
	}
	before := look()
	secrets := []string{m.AppKey, code.Code, "Corner", "Tea", "success"}
	admin := fmt.Sprint(w.admin.id)
	for _, r := range routes {
		t.Run(r.method+" "+r.path, func(t *testing.T) {
			for name, h := range map[string]http.Header{
				"nothing":               {},
				"an id":                 {"New-Api-User": {admin}},
				"the bare token":        {"Authorization": {w.admin.token}, "New-Api-User": {admin}},
				"another scheme":        {"Authorization": {"Basic " + w.admin.token}},
				"no token":              {"Authorization": {"Bearer "}},
				"a wrong token":         {"Authorization": {"Bearer 0123456789abcdef0123456789abcdef"}, "New-Api-User": {admin}},
				"a disabled admin's":    {"Authorization": {"Bearer " + disabled.token}},
				"a session":             {"Cookie": {cookie}, "New-Api-User": {dave}},
				"a session as a bearer": {"Authorization": {"Bearer " + strings.TrimPrefix(cookie, "scrip_session=")}},
			} {
				r := r
				r.as, r.header = member{}, h
				got := w.do(t, r)
				(&scenario{status: 401, code: refusal.Unauthenticated, message: hints()[hintBearer].EN, hasNot: secrets}).check(t, got)
				if t.Failed() {
					t.Fatal("with", name)
				}
			}
			r := r
			r.as, r.body = w.alice, "{" // the role is looked at before the body
			r.broken = true
			(&scenario{status: 403, code: refusal.Forbidden, hasNot: secrets}).check(t, w.do(t, r))
		})
	}
	if after := look(); after != before {
		t.Errorf("it was\n%s, is\n%s", before, after)
	}
	for _, h := range []http.Header{
		{"Authorization": {"bearer  " + w.admin.token}},
		{"Authorization": {"BEARER " + w.root.token}, "New-Api-User": {"999"}, "Cookie": {"scrip_session=x"}},
	} {
		r := w.v1("GET", "/merchants", "")
		r.as, r.header = member{}, h
		(&scenario{has: []string{m.AppKey}}).check(t, w.do(t, r))
	}
}

// TestV1NoSuchRoute: 404 and 405 are problems too, and nothing redirects.
func TestV1NoSuchRoute(t *testing.T) {
	w := newWorld(t, options{})
	w.server.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, path := range []string{
		"/api/v1", "/api/v1/", "/api/v1/x", "/api/v1/redemption", "/api/v1/merchants/1/2", "/api/v1//merchants", "/api/v1/./merchants",
		"/api/v1/machines//products", "/api/v1/machines/10000001/x", "/api/v1/merchants//", "/api/v1/Merchants", "/api/v1/machines/10000001/products/1/x",
		"/api/v1/pickup-codes", "/api/v1%2Fmerchants", "/api/v1/../v1/merchants",
	} {
		r := w.do(t, request{method: "GET", path: path, unchecked: true})
		t.Run(path, func(t *testing.T) {
			(&scenario{status: 404, code: refusal.NoRoute, hasNot: []string{"success"}}).check(t, r)
			if r.header.Get("Location") != "" {
				t.Error("a redirect:", r.header)
			}
		})
	}
	for _, c := range []struct{ method, path, allow string }{
		{"DELETE", "/api/v1/merchants", "GET, HEAD, POST"},
		{"PUT", "/api/v1/merchants/1", "GET, HEAD, PATCH"},
		{"POST", "/api/v1/machines/10000001/", "DELETE, GET, HEAD, PATCH"},
		{"GET", "/api/v1/machines/10000001/mqtt-password", "POST"},
		{"GET", "/api/v1/machines/10000001/products/5", "DELETE, PATCH"},
		{"OPTIONS", "/api/v1/pickup-codes/1", "DELETE, GET, HEAD"},
		{"BREW", "/api/v1/machines/10000001/pickup-codes", "GET, HEAD, POST"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			r := w.do(t, request{method: c.method, path: c.path, unchecked: true})
			(&scenario{status: 405, code: refusal.MethodNotAllowed, hasNot: []string{"success"}}).check(t, r)
			if r.header.Get("Allow") != c.allow {
				t.Errorf("Allow %q, want %q", r.header.Get("Allow"), c.allow)
			}
		})
	}
	head := w.v1("HEAD", "/merchants", "")
	if r := w.do(t, head); r.status != 200 || r.text != "" {
		t.Errorf("%d %s", r.status, r.text)
	}
	// What only begins like it is none of it.
	if r := w.do(t, request{method: "GET", path: "/api/v10", unchecked: true}); !strings.Contains(r.text, `"success":false`) {
		t.Error(r.text)
	}
}

// TestV1Languages: what is not asked for in Chinese or Japanese is English.
func TestV1Languages(t *testing.T) {
	w := newWorld(t, options{})
	texts := web.Messages()[refusal.MerchantNotFound]
	for accept, want := range map[string]web.Tongue{
		"": web.English, "en": web.English, "fr": web.English, "*": web.English, "xx": web.English, "garbage;;;q=": web.English, strings.Repeat("zh,", 300): web.English,
		"zh": web.Chinese, "zh-CN,zh;q=0.9,en;q=0.8": web.Chinese, "zh-TW": web.Chinese, "fr-FR, zh;q=0.5, ja;q=0.4": web.Chinese,
		"ja": web.Japanese, "ja-JP,ja;q=0.9,en-US;q=0.8": web.Japanese,
	} {
		r := w.v1("GET", "/merchants/77", "")
		r.header = http.Header{"Accept-Language": {accept}}
		got := w.do(t, r)
		if got.Message != texts.In(want) || got.header.Get("Content-Language") != want.Tag() || got.header.Get("Vary") != "Accept-Language" {
			t.Errorf("%q: %s in %q", accept, got.text, got.header.Get("Content-Language"))
		}
	}
}

// TestV1Pages: a list that is followed to its end shows each object once, also
// when others come while it is followed.
func TestV1Pages(t *testing.T) {
	w := newWorld(t, options{})
	m := w.merchant(t)
	w.machine(t, m.ID, "10000001", "")
	w.machine(t, m.ID, "10000002", "")
	w.product(t, "10000001", 1)
	w.product(t, "10000002", 1)
	w.pickupCode(t, 1, "")
	for i := range 6 {
		w.merchant(t)
		w.machine(t, m.ID, fmt.Sprintf("2000000%d", i), "")
		w.product(t, "10000001", int64(i+2))
		w.pickupCode(t, int64(i+2), "")
	}
	for path, make1 := range map[string]request{
		"/merchants":                      w.v1("POST", "/merchants", `{"name":"late"}`),
		"/machines":                       w.v1("POST", "/machines", `{"merchant_id":1,"machine_no":"30000000","name":"late","timezone":"UTC"}`),
		"/machines/10000001/products":     w.v1("POST", "/machines/10000001/products", `{"name":"late","slot":"x"}`),
		"/machines/10000001/pickup-codes": w.v1("POST", "/machines/10000001/pickup-codes", `{"product_id":1,"quantity":1,"allow_more":true}`),
	} {
		t.Run(path, func(t *testing.T) {
			type item struct {
				ID int64 `json:"id"`
			}
			get := func(query string) listing[item] {
				return object[listing[item]](t, w.must(t, w.v1("GET", path+query, "")))
			}
			whole := get("")
			if len(whole.Items) < 7 || whole.Next != nil {
				t.Fatalf("%+v", whole)
			}
			for _, limit := range []int{1, 2, 3, len(whole.Items) - 1} {
				var got []item
				part := get(fmt.Sprintf("?limit=%d", limit))
				for first := true; ; first = false {
					got = append(got, part.Items...)
					if part.Next == nil {
						break
					}
					if len(part.Items) != limit || len(got) > len(whole.Items) {
						t.Fatalf("%d items, %d in all", len(part.Items), len(got))
					}
					if first && limit == 2 {
						w.must(t, make1)
					}
					part = get(fmt.Sprintf("?limit=%d&cursor=%s", limit, *part.Next))
				}
				if !slices.Equal(got, whole.Items) {
					t.Errorf("limit %d: %v, want %v", limit, got, whole.Items)
				}
				whole = get("")
			}
			if whole = get(fmt.Sprintf("?limit=%d", len(whole.Items))); whole.Next != nil {
				t.Error("nothing follows, and yet there is a cursor")
			}
		})
	}
	// A cursor is of one list.
	next := object[listing[productObject]](t, w.must(t, w.v1("GET", "/machines/10000001/products?limit=1", ""))).Next
	for path, code := range map[string]refusal.Code{
		"/machines/10000002/products": refusal.InvalidCursor, "/machines/10000001/pickup-codes": refusal.InvalidCursor,
		"/merchants": refusal.InvalidCursor, "/machines/10000001/products/": "",
	} {
		if r := w.do(t, w.v1("GET", path+"?cursor="+*next, "")); r.Code != code {
			t.Errorf("%s: %s", path, r.text)
		}
	}
}

// TestV1Failures: a failure inside Scrip is a 503; what it was stands in the log,
// under the request's id.
func TestV1Failures(t *testing.T) {
	w := newWorld(t, options{})
	m := w.merchant(t)
	w.machine(t, m.ID, "10000001", "")
	w.product(t, "10000001", 5)
	for method, r := range map[string]request{
		"Machine":        w.v1("GET", "/machines/10000001", ""),
		"CreateMerchant": w.v1("POST", "/merchants", `{"name":"x"}`),
		"CreatePickup":   w.v1("POST", "/machines/10000001/pickup-codes", `{"product_id":5,"quantity":1}`),
		"UserByToken":    w.v1("GET", "/machines", ""),
	} {
		for name, hook := range map[string]func() error{
			"error": func() error { return errBroken }, "panic": func() error { panic(errBroken) },
		} {
			t.Run(method+" "+name, func(t *testing.T) {
				w.store.fail(method, hook, nil)
				defer w.store.fail(method, nil, nil)
				got := w.do(t, r)
				(&scenario{status: 503, code: refusal.Unavailable, hasNot: []string{"disk", "secret/path", "panic"}}).check(t, got)
				if got.header.Get("Retry-After") != "1" {
					t.Error(got.header)
				}
				line := "request_id=" + got.header.Get("X-Request-Id")
				if !slices.ContainsFunc(strings.Split(w.logs.text(), "\n"), func(l string) bool {
					return strings.Contains(l, line) && strings.Contains(l, "level=ERROR") && strings.Contains(l, errBroken.Error())
				}) {
					t.Error("the log does not have the cause")
				}
			})
		}
	}
	busy := func() error { return refusal.Later(refusal.TooBusy, 3*time.Second) }
	w.store.fail("CreatePickup", busy, nil)
	got := w.do(t, w.v1("POST", "/machines/10000001/pickup-codes", `{"product_id":5,"quantity":1}`))
	(&scenario{status: 429, code: refusal.TooBusy}).check(t, got)
	if got.header.Get("Retry-After") != "3" {
		t.Error(got.header)
	}
	large := w.v1("POST", "/merchants", `{"name":"x"}`+strings.Repeat(" ", bodyMax))
	(&scenario{status: 413, code: refusal.BodyTooLarge}).check(t, w.do(t, large))
}
