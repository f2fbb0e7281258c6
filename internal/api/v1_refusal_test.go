package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/web"
)

// no is one request of /api/v1 that is refused.
type no struct {
	request
	status int
	code   refusal.Code
	fault  *fault // whose words it is refused with; nil for the code's own
}

// TestV1Refusals: each refusal that the document lists for an operation is said
// there, in each language, in English to those who ask for none.
func TestV1Refusals(t *testing.T) {
	w := newWorld(t, options{})
	m := w.merchant(t)
	w.machine(t, m.ID, "10000001", "")
	w.machine(t, m.ID, "10000002", `,"pickup_codes_enabled":false`)
	w.machine(t, m.ID, "10000003", "")
	for _, no := range []string{"10000001", "10000002", "10000003"} {
		w.product(t, no, 5)
	}
	w.product(t, "10000001", 6)
	expired, used := w.pickupCode(t, 5, `,"ttl_seconds":1`), w.pickupCode(t, 6, "")
	w.used(t, &used)
	w.clock.advance(time.Second)
	w.pickupCode(t, 5, "")
	gather(t, 50, func(int) (string, error) {
		for range pickup.LiveMax / 50 {
			if _, err := w.config.Pickups.Create(t.Context(), account.Operator(), pickup.Request{
				MachineNo: "10000003", ProductID: 5, Quantity: 1, AllowMore: true,
			}); err != nil {
				return "", err
			}
		}
		return "", nil
	})

	var every []no
	add := func(status int, code refusal.Code, requests ...request) {
		for _, r := range requests {
			every = append(every, no{request: r, status: status, code: code})
		}
	}
	faulty := func(f fault, requests ...request) {
		for _, r := range requests {
			every = append(every, no{request: r, status: 422, code: refusal.InvalidRequest, fault: &f})
		}
	}
	bodies := func(method, path string, bodies ...string) (out []request) {
		for _, b := range bodies {
			out = append(out, w.v1(method, path, b))
		}
		return out
	}
	long := func(n int) string { return strings.Repeat("長", n) }

	// Bodies, whatever is asked.
	writes := []request{
		w.v1("POST", "/merchants", `{"name":"x"}`), w.v1("PATCH", "/merchants/1", ""),
		w.v1("POST", "/machines", `{"merchant_id":1,"machine_no":"19999999","name":"x","timezone":"UTC"}`), w.v1("PATCH", "/machines/10000001", ""),
		w.v1("POST", "/machines/10000001/products", `{"name":"x","slot":"x"}`), w.v1("PATCH", "/machines/10000001/products/5", ""),
		w.v1("POST", "/machines/10000001/pickup-codes", `{"product_id":6,"quantity":1}`),
	}
	for _, r := range writes {
		add(400, refusal.InvalidJSON, bodies(r.method, r.path[7:], "", "{", "x", `{"name":"x"} {}`, "{'a':1}")...)
		add(400, refusal.NotUTF8, bodies(r.method, r.path[7:], "{\"name\":\"\xff\"}")...)
		faulty(fault{hint: hintObject}, bodies(r.method, r.path[7:], "[]", "null", "5", `"{}"`)...)
	}
	// Idempotency keys, on every POST.
	for _, r := range append(writes, w.v1("POST", "/machines/10000001/mqtt-password", "")) {
		if r.method != http.MethodPost {
			continue
		}
		key := func(values ...string) request {
			r := r
			r.header = http.Header{"Idempotency-Key": values}
			return r
		}
		add(422, refusal.IdempotencyKeyTooLong, key(strings.Repeat("k", 256)))
		faulty(fault{hint: hintIdempotencyKey}, key(""), key("a", "b"))
		if first := w.do(t, key("taken")); !first.Success {
			t.Fatal(first.text)
		}
		other := key("taken")
		other.body += " "
		add(422, refusal.IdempotencyKeyReused, other)
	}
	// Lists.
	for _, path := range []string{"/merchants", "/machines", "/machines/10000001/products", "/machines/10000001/pickup-codes"} {
		for _, limit := range []string{"0", "-1", "101", "1.5", "x", "1e1", "99999999999999999999", "%20"} {
			faulty(fault{hint: hintLimit}, w.v1("GET", path+"?limit="+limit, ""))
		}
		foreign := &stretch{list: "/api/v1/others"}
		own := &stretch{list: "/api/v1" + path}
		for _, cursor := range []string{"x", "!", "1", "AAAAAAAA", foreign.cursor(5), own.cursor(0), own.cursor(-5), own.cursor(5) + "A", own.cursor(5)[1:], "%00%ff"} {
			add(422, refusal.InvalidCursor, w.v1("GET", path+"?cursor="+cursor, ""))
		}
	}
	faulty(fault{hint: hintTruth, name: "late_use"}, w.v1("GET", "/machines/10000001/pickup-codes?late_use=yes", ""))
	// Paths.
	for _, bad := range []string{"abc", "1.0", "99999999999999999999", "+1", "%20", "1%2F2"} {
		faulty(fault{hint: hintPathID}, w.v1("GET", "/merchants/"+bad, ""), w.v1("PATCH", "/merchants/"+bad, `{}`),
			w.v1("GET", "/pickup-codes/"+bad, ""), w.v1("DELETE", "/pickup-codes/"+bad, ""),
			w.v1("PATCH", "/machines/10000001/products/"+bad, `{}`), w.v1("DELETE", "/machines/10000001/products/"+bad, ""))
	}
	for _, id := range []string{"777777", "0", "-1", "9223372036854775807"} {
		add(404, refusal.MerchantNotFound, w.v1("GET", "/merchants/"+id, ""), w.v1("PATCH", "/merchants/"+id, `{"name":"x"}`),
			w.v1("POST", "/machines", `{"merchant_id":`+id+`,"machine_no":"19999998","name":"x","timezone":"UTC"}`))
		add(404, refusal.PickupNotFound, w.v1("GET", "/pickup-codes/"+id, ""), w.v1("DELETE", "/pickup-codes/"+id, ""))
		add(404, refusal.ProductNotFound, w.v1("PATCH", "/machines/10000001/products/"+id, `{}`), w.v1("DELETE", "/machines/10000001/products/"+id, ""),
			w.v1("POST", "/machines/10000001/pickup-codes", `{"product_id":`+id+`,"quantity":1}`))
	}
	ofMachine := func(no string) []request {
		return []request{
			w.v1("GET", "/machines/"+no, ""), w.v1("PATCH", "/machines/"+no, `{}`), w.v1("DELETE", "/machines/"+no, ""),
			w.v1("POST", "/machines/"+no+"/mqtt-password", ""),
			w.v1("GET", "/machines/"+no+"/products", ""), w.v1("POST", "/machines/"+no+"/products", `{"name":"x","slot":"x"}`),
			w.v1("PATCH", "/machines/"+no+"/products/5", `{}`), w.v1("DELETE", "/machines/"+no+"/products/5", ""),
			w.v1("GET", "/machines/"+no+"/pickup-codes", ""), w.v1("POST", "/machines/"+no+"/pickup-codes", `{"product_id":5,"quantity":1}`),
		}
	}
	add(404, refusal.MachineNotFound, ofMachine("00000000")...)
	for _, bad := range []string{"1000001", "100000010", "1000000a", "%D9%A10000001", "-1000000"} {
		add(422, refusal.MachineNo, ofMachine(bad)...)
	}

	// Merchants.
	both := func(path, format string, values ...string) (out []request) {
		for _, v := range values {
			body := fmt.Sprintf(format, v)
			out = append(out, w.v1("POST", path, body), w.v1("PATCH", path+"/1", body))
		}
		return out
	}
	add(422, refusal.MerchantName, both("/merchants", `{"name":%s}`, `""`, `"  "`, `"`+long(65)+`"`, `"a\u0000"`, `"\ud800"`)...)
	add(422, refusal.MerchantName, bodies("POST", "/merchants", `{}`, `{"name":null}`)...)
	add(422, refusal.MerchantAppKey, both("/merchants", `{"name":"x","app_key":%s}`, `""`, `"`+long(129)+`"`, `"a\nb"`)...)
	add(422, refusal.MerchantPayload, both("/merchants", `{"name":"x","payload":%s}`, `"xml"`, `""`, `"JSON"`)...)
	add(422, refusal.MerchantSignature, both("/merchants", `{"name":"x","signature":%s}`, `"md5"`, `""`)...)
	add(422, refusal.MerchantExpiryUnit, both("/merchants", `{"name":"x","expiry_unit":%s}`, `"min"`, `""`)...)
	for _, member := range []string{"name", "app_key", "payload", "signature", "expiry_unit"} {
		faulty(fault{hint: hintText, name: member}, both("/merchants", `{"`+member+`":%s}`, `5`, `true`, `{}`, `["x"]`)...)
	}

	// Machines.
	machine := func(member, value string) []request {
		body := map[string]json.RawMessage{
			"merchant_id": json.RawMessage("1"), "machine_no": json.RawMessage(`"19999997"`), "name": json.RawMessage(`"x"`),
			"timezone": json.RawMessage(`"UTC"`),
		}
		body[member] = json.RawMessage(value)
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		return []request{w.v1("POST", "/machines", string(b)), w.v1("PATCH", "/machines/10000001", fmt.Sprintf(`{%q:%s}`, member, value))}
	}
	values := func(code refusal.Code, of func(member, value string) []request, member string, values ...string) {
		for _, v := range values {
			add(422, code, of(member, v)...)
		}
	}
	values(refusal.MachineName, machine, "name", `""`, `" "`, `"`+long(65)+`"`, `"a\u0007"`)
	values(refusal.MachineZone, machine, "timezone", `""`, `"Local"`, `"Shanghai"`, `"../etc/passwd"`, `"+08:00"`)
	values(refusal.MachinePurchaseLimit, machine, "purchase_limit", `0`, `-1`, `4`, `4294967297`, `-9223372036854775808`)
	for _, v := range []string{`""`, `"1234567"`, `"123456789"`, `"1234567x"`, `" 1234567"`, `"１２３４５６７８"`, `null`} {
		add(422, refusal.MachineNo, machine("machine_no", v)[0])
	}
	add(409, refusal.MachineNoTaken, machine("machine_no", `"10000001"`)[0])
	faulty(fault{hint: hintMissing, name: "merchant_id"}, machine("merchant_id", "null")[0], w.v1("POST", "/machines", `{}`))
	faulty(fault{hint: hintInteger, name: "merchant_id"}, machine("merchant_id", `"1"`)[0], machine("merchant_id", `1.0`)[0])
	faulty(fault{hint: hintText, name: "machine_no"}, machine("machine_no", `10000009`)[0])
	for _, v := range []string{`1.5`, `"1"`, `true`, `1e0`} {
		faulty(fault{hint: hintInteger, name: "purchase_limit"}, machine("purchase_limit", v)...)
	}
	for _, v := range []string{`1`, `"true"`, `{}`} {
		faulty(fault{hint: hintTruth, name: "pickup_codes_enabled"}, machine("pickup_codes_enabled", v)...)
	}

	// Products.
	product := func(member, value string) []request {
		body := fmt.Sprintf(`{"name":"x","slot":"x",%q:%s}`, member, value)
		return []request{w.v1("POST", "/machines/10000001/products", body), w.v1("PATCH", "/machines/10000001/products/5", body)}
	}
	values(refusal.ProductName, product, "name", `""`, `"`+long(65)+`"`, `"a\u0000"`)
	values(refusal.ProductSlot, product, "slot", `""`, `" "`, `"`+long(17)+`"`, `12345678901234567`, `"a\tb"`)
	for _, v := range []string{`0`, `-1`, `9007199254740992`} {
		add(422, refusal.ProductID, product("id", v)[0])
	}
	add(409, refusal.ProductIDTaken, product("id", "5")[0])
	add(422, refusal.ProductName, w.v1("POST", "/machines/10000001/products", `{"slot":"x"}`))
	add(422, refusal.ProductSlot, w.v1("POST", "/machines/10000001/products", `{"name":"x","slot":null}`))
	faulty(fault{hint: hintInteger, name: "id"}, product("id", `"5"`)[0])
	for _, v := range []string{`1.5`, `1e1`, `true`, `["1"]`, `{}`} {
		faulty(fault{hint: hintTextOrInteger, name: "slot"}, product("slot", v)...)
	}

	// Pickup codes.
	order := func(no, more string) request {
		return w.v1("POST", "/machines/"+no+"/pickup-codes", `{"product_id":5,"quantity":1`+more+`}`)
	}
	for _, v := range []string{"0", "-1", "4", "4294967297", "null"} {
		r := order("10000001", `,"quantity":`+v)
		if v == "null" {
			r.body = `{"product_id":5,"quantity":null}`
		}
		add(422, refusal.PickupQuantity, r)
	}
	for _, v := range []string{"0", "-1", "2592001", "9223372036854775807", "-9223372036854775808", "9223372037"} {
		add(422, refusal.PickupTTL, order("10000001", `,"ttl_seconds":`+v))
	}
	add(409, refusal.PickupMachineOff, order("10000002", ""))
	add(422, refusal.PickupOverLimit, order("10000001", `,"quantity":2,"allow_more":true`))
	add(409, refusal.PickupProductHasLive, order("10000001", ""), order("10000001", `,"allow_more":false`))
	add(409, refusal.PickupTooManyLive, order("10000003", `,"allow_more":true`))
	add(409, refusal.PickupUsed, w.v1("DELETE", fmt.Sprintf("/pickup-codes/%d", used.ID), ""))
	add(409, refusal.PickupExpired, w.v1("DELETE", fmt.Sprintf("/pickup-codes/%d", expired.ID), ""))
	faulty(fault{hint: hintMissing, name: "product_id"}, w.v1("POST", "/machines/10000001/pickup-codes", `{"quantity":1}`))
	faulty(fault{hint: hintInteger, name: "ttl_seconds"}, order("10000001", `,"ttl_seconds":"60"`), order("10000001", `,"ttl_seconds":60.0`))
	faulty(fault{hint: hintInteger, name: "product_id"}, order("10000001", `,"product_id":"5"`))
	faulty(fault{hint: hintTruth, name: "allow_more"}, order("10000001", `,"allow_more":1`))

	before := w.shown(t)
	texts, faults := web.Messages(), hints()
	for _, n := range every {
		name := fmt.Sprintf("%s %s %.60q %s", n.method, n.path, n.body, n.code)
		t.Run(name, func(t *testing.T) {
			for accept, lang := range map[string]web.Tongue{"": web.English, "en": web.English, "ja": web.Japanese, "zh-CN": web.Chinese} {
				want := texts[n.code].In(lang)
				if n.fault != nil {
					want = n.fault.in(faults, lang)
				}
				r := n.request
				r.header = maps.Clone(r.header)
				if r.header == nil {
					r.header = http.Header{}
				}
				r.header["Accept-Language"] = []string{accept}
				r.broken = true
				got := w.do(t, r)
				if got.status != n.status || got.Code != n.code || got.Message != want || got.header.Get("Content-Language") != lang.Tag() {
					t.Errorf("%q: answered %d %s, want %d %s %s", accept, got.status, got.text, n.status, n.code, want)
				}
			}
		})
	}
	for path, after := range w.shown(t) {
		if after != before[path] {
			t.Errorf("a refusal had an effect: %s was\n%.500s, is\n%.500s", path, before[path], after)
		}
	}
	w.verify(t)

	for path, item := range w.document.doc.Paths.Map() {
		for method, op := range item.Operations() {
			listed, _ := op.Extensions["x-refusals"].([]any)
			for _, c := range listed {
				code := refusal.Code(c.(string))
				if surfaceOf(path) == v1 && code != refusal.IdempotencyKeyBusy && !w.document.seen[op.OperationID][code] {
					t.Errorf("%s %s was not seen to refuse with %s", method, path, code)
				}
			}
		}
	}
}

// shown is the newest that every list of /api/v1 shows, by path.
func (w *world) shown(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, path := range []string{
		"/merchants", "/machines", "/machines/10000001/products", "/machines/10000002/products", "/machines/10000003/products",
		"/machines/10000001/pickup-codes", "/machines/10000002/pickup-codes", "/machines/10000003/pickup-codes",
	} {
		all[path] = w.fleetList(t, path)
	}
	return all
}
