package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// scenario is one request, what must be in its answer, what must not, and what
// it must have done.
type scenario struct {
	name string
	request
	status int          // 0: 200
	code   refusal.Code // empty: success
	// message is the exact one, where the API documents it.
	message string
	has     []string
	hasNot  []string
	then    func(*testing.T, reply)
}

func (s *scenario) check(t *testing.T, got reply) {
	t.Helper()
	want := s.status
	if want == 0 {
		want = http.StatusOK
	}
	if got.status != want || got.Code != s.code || got.Success != (s.code == "") {
		t.Fatalf("status %d, want %d; code %q, want %q; answer %s", got.status, want, got.Code, s.code, got.text)
	}
	if s.code == "" && got.Message != "" {
		t.Errorf("message %q on success", got.Message)
	}
	if s.code != "" && (got.Message == "" || got.Data != nil) {
		t.Errorf("a refusal has a message and no data: %s", got.text)
	}
	if s.message != "" && got.Message != s.message {
		t.Errorf("message %q, want %q", got.Message, s.message)
	}
	for _, text := range s.has {
		if !strings.Contains(got.text, text) {
			t.Errorf("no %s in %s", text, got.text)
		}
	}
	for _, text := range s.hasNot {
		if strings.Contains(got.text, text) {
			t.Errorf("%s in %s", text, got.text)
		}
	}
	language, kind := "zh-CN", "application/json; charset=utf-8"
	if got.v1 {
		language, kind = "en", got.header.Get("Content-Type") // which was looked at
	}
	for name, value := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Vary": "Accept-Language",
		"Content-Language": language, "Content-Type": kind,
	} {
		if got.header.Get(name) != value {
			t.Errorf("%s: %q, want %q", name, got.header.Get(name), value)
		}
	}
	if s.then != nil {
		s.then(t, got)
	}
}

// TestScenarios is every route: what it does, whom it refuses and why.
func TestScenarios(t *testing.T) {
	w := newWorld(t, options{})
	keys := w.issue(t, "新年活动兑换码", 6, 500)
	code := func(i int) redemptionObject { return w.mustFind(t, keys[i]) }
	id := make([]int64, len(keys))
	for i := range keys {
		id[i] = code(i).ID
	}
	w.topUp(t, w.bob, keys[4])
	full, err := w.accounts.Create(t.Context(), account.Operator(), account.CreateRequest{
		Username: "full", Quota: 1<<63 - 1, Token: w.secret("the token of the full one"),
	})
	if err != nil {
		t.Fatal(err)
	}
	rich := member{full.ID, "full", "the token of the full one"}

	var every []scenario
	add := func(s ...scenario) { every = append(every, s...) }

	// Who may do what: every route, without credentials and below its role.
	type call struct{ method, path, body string }
	adminCalls := []call{
		{"GET", "/api/redemption/", ""},
		{"GET", "/api/redemption", ""},
		{"GET", "/api/redemption/search?keyword=x", ""},
		{"GET", fmt.Sprintf("/api/redemption/%d", id[0]), ""},
		{"POST", "/api/redemption/", `{"name":"x","count":1,"quota":1}`},
		{"PUT", "/api/redemption/", fmt.Sprintf(`{"id":%d,"name":"x"}`, id[0])},
		{"PUT", "/api/redemption/?status_only=true", fmt.Sprintf(`{"id":%d,"status":2}`, id[0])},
		{"DELETE", "/api/redemption/invalid", ""},
		{"DELETE", fmt.Sprintf("/api/redemption/%d", id[0]), ""},
		{"GET", "/api/user/", ""},
		{"GET", "/api/user/1", ""},
		{"POST", "/api/user/", `{"username":"x","password":"long enough"}`},
	}
	userCalls := []call{
		{"POST", "/api/user/topup", fmt.Sprintf(`{"key":%q}`, keys[0])},
		{"GET", "/api/user/self", ""},
		{"GET", "/api/user/token", ""},
	}
	secrets := append([]string{w.root.token, w.admin.token, w.alice.token}, keys...)
	unchanged := func(t *testing.T, _ reply) {
		t.Helper()
		if c := code(0); c.Status != 1 || c.Name != "新年活动兑换码" || c.Quota != 500 {
			t.Errorf("it had an effect: %+v", c)
		}
	}
	unauthenticated := func(name string, c call, as member, h http.Header) scenario {
		return scenario{
			name:    fmt.Sprintf("401 %s %s %s", c.method, c.path, name),
			request: request{method: c.method, path: c.path, body: c.body, as: as, header: h},
			status:  401, code: refusal.Unauthenticated, hasNot: secrets, then: func(t *testing.T, r reply) {
				t.Helper()
				if r.header.Get("WWW-Authenticate") != "Bearer" {
					t.Error("no WWW-Authenticate")
				}
				unchanged(t, r)
			},
		}
	}
	for _, c := range append(slices.Clone(adminCalls), userCalls...) {
		add(unauthenticated("without credentials", c, member{}, nil))
		add(unauthenticated("with a wrong token", c, member{id: w.admin.id, token: "0123456789abcdef0123456789abcdef"}, nil))
		add(unauthenticated("with another's id", c, member{id: w.alice.id, token: w.root.token}, nil))
		add(unauthenticated("without New-Api-User", c, member{}, http.Header{"Authorization": {"Bearer " + w.root.token}}))
	}
	for _, c := range adminCalls {
		add(scenario{
			name:    fmt.Sprintf("403 %s %s", c.method, c.path),
			request: request{method: c.method, path: c.path, body: c.body, as: w.alice},
			status:  403, code: refusal.Forbidden, hasNot: secrets, then: unchanged,
		})
	}
	add(scenario{ // the role is looked at before the body
		name:    "403 before a broken body",
		request: request{method: "POST", path: "/api/redemption/", body: `{`, as: w.alice, broken: true},
		status:  403, code: refusal.Forbidden,
	}, scenario{
		name:    "401 before a broken body",
		request: request{method: "POST", path: "/api/user/topup", body: `{`, broken: true},
		status:  401, code: refusal.Unauthenticated,
	})

	get := func(path string) request { return request{method: "GET", path: path, as: w.admin} }
	put := func(query, body string) request {
		return request{method: "PUT", path: "/api/redemption/" + query, body: body, as: w.admin}
	}
	post := func(body string) request {
		return request{method: "POST", path: "/api/redemption/", body: body, as: w.admin, broken: true}
	}

	// Credentials in their forms.
	for _, auth := range []string{w.alice.token, "Bearer " + w.alice.token, "bearer " + w.alice.token, "BEARER  " + w.alice.token} {
		add(scenario{
			name: "credentials " + auth[:7],
			request: request{method: "GET", path: "/api/user/self", header: http.Header{
				"Authorization": {auth}, "New-Api-User": {fmt.Sprint(w.alice.id)},
			}},
			has:    []string{`"username":"alice"`, `"role":1`, `"status":1`, `"quota":`, `"display_name":"alice"`, `"created_time":1800000000`},
			hasNot: secrets,
		})
	}

	// Lists and search.
	add(
		scenario{name: "list", request: get("/api/redemption/"), has: []string{`"total":6`, `"page":1`, `"page_size":20`, keys[5]}},
		scenario{name: "list without the slash", request: get("/api/redemption"), has: []string{`"total":6`}},
		scenario{name: "list, second page", request: get("/api/redemption/?p=2&page_size=4"), has: []string{`"page":2`, `"page_size":4`, keys[0], keys[1]}, hasNot: []string{keys[2]}},
		scenario{name: "list, past the end", request: get("/api/redemption/?p=3&page_size=4"), has: []string{`"items":[]`, `"total":6`, `"page":3`}},
		scenario{name: "list, far past the end", request: get("/api/redemption/?p=9223372036854775807&page_size=100"), has: []string{`"items":[]`, `"page":9223372036854775807`}},
		scenario{name: "list, redeemable", request: get("/api/redemption/?status=1"), has: []string{`"total":5`}, hasNot: []string{keys[4]}},
		scenario{name: "list, disabled", request: get("/api/redemption/?status=2"), has: []string{`"total":0`, `"items":[]`}},
		scenario{name: "list, used", request: get("/api/redemption/?status=3"), has: []string{`"total":1`, keys[4], fmt.Sprintf(`"used_user_id":%d`, w.bob.id), `"redeemed_time":1800000000`}},
		scenario{name: "list, expired", request: get("/api/redemption/?status=expired"), has: []string{`"total":0`}},
		scenario{name: "list, unknown status", request: get("/api/redemption/?status=7"), has: []string{`"total":6`}},
		scenario{name: "search by name", request: get("/api/redemption/search?keyword=%E5%B9%B4%E6%B4%BB"), has: []string{`"total":6`}},
		scenario{name: "search by name, nothing", request: get("/api/redemption/search?keyword=nothing"), has: []string{`"total":0`, `"items":[]`}},
		scenario{name: "search by name, nothing special", request: get("/api/redemption/search?keyword=%25"), has: []string{`"total":0`}},
		scenario{name: "search by id", request: get(fmt.Sprintf("/api/redemption/search?keyword=%d", id[2])), has: []string{`"total":1`, keys[2]}},
		scenario{name: "search by key", request: get("/api/redemption/search?keyword=" + strings.ToUpper(keys[3])), has: []string{`"total":1`, keys[3]}},
		scenario{name: "search for bytes", request: get("/api/redemption/search?keyword=%ff%00"), has: []string{`"total":0`}},
		scenario{name: "search for nothing", request: get("/api/redemption/search?keyword=&page_size=2"), has: []string{`"total":6`, `"page_size":2`}},
		scenario{name: "search among the used", request: get("/api/redemption/search?keyword=%E5%B9%B4&status=3"), has: []string{`"total":1`, keys[4]}},
	)
	for query, has := range map[string]string{
		"p=0": `"page":1`, "p=-3": `"page":1`, "p=two": `"page":1`, "p=1.5": `"page":1`, "p=": `"page":1`,
		"page_size=0": `"page_size":20`, "page_size=-1": `"page_size":20`, "page_size=x": `"page_size":20`,
		"page_size=101": `"page_size":100`, "page_size=99999999999999999999": `"page_size":100`,
		"p=99999999999999999999": `"page":9223372036854775807`, "p=-99999999999999999999": `"page":1`,
	} {
		r := get("/api/redemption/?" + query)
		r.broken = true
		add(scenario{name: "list " + query, request: r, has: []string{has, `"total":6`}})
		r.path = "/api/user/?" + query
		add(scenario{name: "users " + query, request: r, has: []string{has, `"total":5`}})
	}

	// One code.
	object := fmt.Sprintf(`{"id":%d,"user_id":%d,"name":"新年活动兑换码","key":%q,"status":1,"quota":500,`+
		`"created_time":1800000000,"redeemed_time":0,"expired_time":0,"used_user_id":0}`, id[0], w.admin.id, keys[0])
	add(
		scenario{name: "get", request: get(fmt.Sprintf("/api/redemption/%d", id[0])), has: []string{object}},
		scenario{name: "get with a slash", request: get(fmt.Sprintf("/api/redemption/%d/", id[0])), has: []string{object}},
		scenario{name: "get, unknown", request: get("/api/redemption/999999"), code: refusal.RedemptionNotFound, message: "兑换码不存在"},
		scenario{name: "get, negative", request: get("/api/redemption/-1"), code: refusal.RedemptionNotFound, message: "兑换码不存在"},
		scenario{name: "get, the greatest", request: get("/api/redemption/9223372036854775807"), code: refusal.RedemptionNotFound, message: "兑换码不存在"},
	)
	for _, bad := range []string{"abc", "1.0", "1e3", "99999999999999999999", "9223372036854775808", "+1", "1_0", "%D9%A1", "%20", "0x1", "1%2F2"} {
		for _, method := range []string{"GET", "DELETE"} {
			add(scenario{
				name:    method + " id " + bad,
				request: request{method: method, path: "/api/redemption/" + bad, as: w.admin, broken: true},
				code:    refusal.InvalidRequest, message: "路径中的 ID 必须是 64 位范围内的整数", then: unchanged,
			})
		}
		r := get("/api/user/" + bad)
		r.broken = true
		add(scenario{name: "user id " + bad, request: r, code: refusal.InvalidRequest, message: "路径中的 ID 必须是 64 位范围内的整数"})
	}

	// Making codes.
	total := int64(6)
	made := func(n int64) func(*testing.T, reply) {
		return func(t *testing.T, r reply) {
			t.Helper()
			if r.Success {
				for _, k := range data[[]string](t, r) {
					w.secret(k)
				}
			}
			total += n
			if p := data[page[redemptionObject]](t, w.do(t, get("/api/redemption/"))); p.Total != total {
				t.Errorf("%d codes, want %d", p.Total, total)
			}
		}
	}
	add(
		scenario{name: "issue", request: request{method: "POST", path: "/api/redemption", as: w.admin, body: `{"name":" Ünïcode <b>&amp; ","count":3,"quota":7,"expired_time":1800000100}`}, then: made(3)},
		scenario{name: "issue, members ignored", request: request{method: "POST", path: "/api/redemption/", as: w.root, body: `{"id":1,"key":"k","status":3,"user_id":9,"more":[{}],"name":"ignored","count":1,"quota":7,"expired_time":null}`}, then: func(t *testing.T, r reply) {
			t.Helper()
			made(1)(t, r)
			c := w.mustFind(t, data[[]string](t, r)[0])
			if c.Status != 1 || c.UserID != 1 || c.ExpiredTime != 0 || c.Key == "k" {
				t.Errorf("%+v", c)
			}
		}},
		scenario{name: "issue, 20 characters", request: post(`{"name":"一二三四五六七八九十一二三四五六七八九十","count":1,"quota":1}`), then: made(1)},
		scenario{name: "issue, 100 codes", request: post(`{"name":"hundred","count":100,"quota":9223372036854775807}`), then: made(100)},
		scenario{name: "issue, expiring this second", request: post(`{"name":"now","count":1,"quota":1,"expired_time":1800000000}`), then: made(1)},
		scenario{name: "issue, the last expiry", request: post(`{"name":"last","count":1,"quota":1,"expired_time":253402300799}`), then: made(1)},
	)
	for body, why := range map[string]struct {
		code    refusal.Code
		message string
	}{
		`{"name":"","count":1,"quota":1}`:    {refusal.RedemptionNameLength, "兑换码名称长度必须在1-20之间"},
		`{"count":1,"quota":1}`:              {refusal.RedemptionNameLength, "兑换码名称长度必须在1-20之间"},
		`{"name":"   ","count":1,"quota":1}`: {refusal.RedemptionNameLength, "兑换码名称长度必须在1-20之间"},
		`{"name":"一二三四五六七八九十一二三四五六七八九十一","count":1,"quota":1}`:                 {refusal.RedemptionNameLength, "兑换码名称长度必须在1-20之间"},
		`{"name":"a\u0000b","count":1,"quota":1}`:                              {refusal.RedemptionNameCharacters, ""},
		`{"name":"a\nb","count":1,"quota":1}`:                                  {refusal.RedemptionNameCharacters, ""},
		`{"name":"a\ud800b","count":1,"quota":1}`:                              {refusal.RedemptionNameCharacters, ""},
		`{"name":"x","count":0,"quota":1}`:                                     {refusal.RedemptionCountTooSmall, "兑换码个数必须大于0"},
		`{"name":"x","count":-5,"quota":1}`:                                    {refusal.RedemptionCountTooSmall, "兑换码个数必须大于0"},
		`{"name":"x","quota":1}`:                                               {refusal.RedemptionCountTooSmall, "兑换码个数必须大于0"},
		`{"name":"x","count":101,"quota":1}`:                                   {refusal.RedemptionCountTooLarge, "一次兑换码批量生成的个数不能大于 100"},
		`{"name":"x","count":9223372036854775807,"quota":1}`:                   {refusal.RedemptionCountTooLarge, "一次兑换码批量生成的个数不能大于 100"},
		`{"name":"x","count":1,"quota":0}`:                                     {refusal.RedemptionQuota, ""},
		`{"name":"x","count":1,"quota":-1}`:                                    {refusal.RedemptionQuota, ""},
		`{"name":"x","count":1}`:                                               {refusal.RedemptionQuota, ""},
		`{"name":"x","count":1,"quota":1,"expired_time":1}`:                    {refusal.RedemptionExpiry, "过期时间不能早于当前时间"},
		`{"name":"x","count":1,"quota":1,"expired_time":-1}`:                   {refusal.RedemptionExpiry, "过期时间不能早于当前时间"},
		`{"name":"x","count":1,"quota":1,"expired_time":-62135596800}`:         {refusal.RedemptionExpiry, "过期时间不能早于当前时间"},
		`{"name":"x","count":1,"quota":1,"expired_time":-9223372036854775808}`: {refusal.RedemptionExpiry, "过期时间不能早于当前时间"},
		`{"name":"x","count":1,"quota":1,"expired_time":1799999999}`:           {refusal.RedemptionExpiry, "过期时间不能早于当前时间"},
		`{"name":"x","count":1,"quota":1,"expired_time":253402300800}`:         {refusal.RedemptionExpiryRange, ""},
		`{"name":"x","count":1,"quota":1,"expired_time":1800000000000}`:        {refusal.RedemptionExpiryRange, ""},
		`{"name":"x","count":1,"quota":1,"expired_time":9223372036854775807}`:  {refusal.RedemptionExpiryRange, ""},
	} {
		add(scenario{name: "issue " + body, request: post(body), code: why.code, message: why.message, then: made(0)})
	}

	// Changing one.
	is := func(i int, want func(redemptionObject) bool) func(*testing.T, reply) {
		return func(t *testing.T, r reply) {
			t.Helper()
			if c := code(i); !want(c) {
				t.Errorf("it is %+v now", c)
			} else if r.Success && data[redemptionObject](t, r) != c {
				t.Errorf("answered %s, it is %+v", r.text, c)
			}
		}
	}
	one := func(format string) string { return fmt.Sprintf(format, id[1]) }
	used := func(format string) string { return fmt.Sprintf(format, id[4]) }
	stays := is(4, func(c redemptionObject) bool { return c.Status == 3 && c.Quota == 500 && c.ExpiredTime == 0 })
	add(
		scenario{name: "change the name", request: put("", one(`{"id":%d,"name":"other"}`)), then: is(1, func(c redemptionObject) bool {
			return c.Name == "other" && c.Quota == 500 && c.ExpiredTime == 0 && c.Status == 1
		})},
		scenario{name: "change without the slash", request: request{method: "PUT", path: "/api/redemption", as: w.admin, body: one(`{"id":%d,"quota":600}`)}, then: is(1, func(c redemptionObject) bool {
			return c.Name == "other" && c.Quota == 600
		})},
		scenario{name: "change the expiry, nulls, status ignored", request: put("?status_only=false", one(`{"id":%d,"expired_time":1800000050,"name":null,"quota":null,"status":2,"key":"x"}`)), then: is(1, func(c redemptionObject) bool {
			return c.Name == "other" && c.Quota == 600 && c.ExpiredTime == 1800000050 && c.Status == 1 && c.Key == keys[1]
		})},
		scenario{name: "change nothing", request: put("?status_only=0", one(`{"id":%d}`)), has: []string{`"name":"other"`}},
		scenario{name: "disable", request: put("?status_only=true", one(`{"id":%d,"status":2,"quota":9,"name":"no"}`)), then: is(1, func(c redemptionObject) bool {
			return c.Status == 2 && c.Quota == 600 && c.Name == "other"
		})},
		scenario{name: "redeem a disabled one", request: request{method: "POST", path: "/api/user/topup", as: w.alice, body: fmt.Sprintf(`{"key":%q}`, keys[1])}, code: refusal.RedemptionDisabled, message: "该兑换码已被禁用"},
		scenario{name: "enable", request: put("?status_only=yes", one(`{"id":%d,"status":1}`)), then: is(1, func(c redemptionObject) bool { return c.Status == 1 })},
		scenario{name: "never expire", request: put("", one(`{"id":%d,"expired_time":0}`)), then: is(1, func(c redemptionObject) bool { return c.ExpiredTime == 0 })},
		scenario{name: "change, past", request: put("", one(`{"id":%d,"expired_time":5}`)), code: refusal.RedemptionExpiry, message: "过期时间不能早于当前时间"},
		scenario{name: "change, unknown", request: put("", `{"id":999999,"name":"x"}`), code: refusal.RedemptionNotFound, message: "兑换码不存在"},
		scenario{name: "status, unknown", request: put("?status_only=true", `{"id":999999,"status":2}`), code: refusal.RedemptionNotFound, message: "兑换码不存在"},
		scenario{name: "used: name", request: put("", used(`{"id":%d,"name":"renamed","quota":500,"expired_time":0,"status":1}`)), then: is(4, func(c redemptionObject) bool { return c.Name == "renamed" && c.Status == 3 })},
		scenario{name: "used: quota", request: put("", used(`{"id":%d,"quota":501}`)), code: refusal.RedemptionUsedUnchanging, then: stays},
		scenario{name: "used: expiry", request: put("", used(`{"id":%d,"expired_time":1800000050}`)), code: refusal.RedemptionUsedUnchanging, then: stays},
		scenario{name: "used: enable", request: put("?status_only=true", used(`{"id":%d,"status":1}`)), code: refusal.RedemptionUsedUnchanging, then: stays},
		scenario{name: "used: disable", request: put("?status_only=1", used(`{"id":%d,"status":2}`)), code: refusal.RedemptionUsedUnchanging, then: stays},
	)
	for body, why := range map[string]refusal.Code{
		`{"name":"x"}`:                                      refusal.InvalidRequest,
		`{"id":null,"name":"x"}`:                            refusal.InvalidRequest,
		one(`{"id":%d,"name":""}`):                          refusal.RedemptionNameLength,
		one(`{"id":%d,"name":"a\tb"}`):                      refusal.RedemptionNameCharacters,
		one(`{"id":%d,"quota":0}`):                          refusal.RedemptionQuota,
		one(`{"id":%d,"quota":1.5}`):                        refusal.InvalidRequest,
		one(`{"id":%d,"name":5}`):                           refusal.InvalidRequest,
		one(`{"id":"%d","name":"x"}`):                       refusal.InvalidRequest,
		one(`{"id":%d,"expired_time":9223372036854775807}`): refusal.RedemptionExpiryRange,
	} {
		r := put("", body)
		r.broken = true
		add(scenario{name: "change " + body, request: r, code: why, then: is(1, func(c redemptionObject) bool { return c.Name == "other" && c.Quota == 600 })})
	}
	for status, why := range map[string]refusal.Code{
		`3`: refusal.RedemptionStatus, `0`: refusal.RedemptionStatus, `-1`: refusal.RedemptionStatus, `4294967297`: refusal.RedemptionStatus,
		`null`: refusal.RedemptionStatus, `"2"`: refusal.InvalidRequest, `2.0`: refusal.InvalidRequest, `true`: refusal.InvalidRequest,
	} {
		r := put("?status_only=true", one(`{"id":%d,"status":`)+status+`}`)
		r.broken = true
		add(scenario{name: "status " + status, request: r, code: why, then: is(1, func(c redemptionObject) bool { return c.Status == 1 })})
	}
	add(scenario{name: "status left out", request: put("?status_only=true", one(`{"id":%d}`)), code: refusal.RedemptionStatus})

	// Redeeming.
	redeem := func(as member, body string) request {
		return request{method: "POST", path: "/api/user/topup", as: as, body: body}
	}
	dressed := "  " + strings.ToUpper(keys[0][:8]) + "-" + keys[0][8:20] + "--" + keys[0][20:] + " "
	add(
		scenario{name: "redeem", request: redeem(w.alice, fmt.Sprintf(`{"key":%q}`, dressed)), has: []string{`"data":500}`}, hasNot: []string{keys[0]}, then: func(t *testing.T, _ reply) {
			t.Helper()
			if b := w.balance(t, w.alice); b != 500 {
				t.Errorf("balance %d", b)
			}
			if c := code(0); c.Status != 3 || c.UsedUserID != w.alice.id || c.RedeemedTime != start {
				t.Errorf("%+v", c)
			}
		}},
		scenario{name: "redeem again", request: redeem(w.alice, fmt.Sprintf(`{"key":%q}`, keys[0])), code: refusal.RedemptionUsedByYou, message: "该兑换码已被使用", hasNot: []string{keys[0]}},
		scenario{name: "redeem another's", request: redeem(w.bob, fmt.Sprintf(`{"key":%q}`, keys[0])), code: refusal.RedemptionUsed, message: "该兑换码已被使用", hasNot: []string{keys[0], "alice"}},
		scenario{name: "redeem an unknown key", request: redeem(w.alice, `{"key":"00000000000000000000000000000000"}`), code: refusal.RedemptionUnknown, message: "无效的兑换码"},
		scenario{name: "redeem no key", request: redeem(w.alice, `{"key":""}`), code: refusal.RedemptionKeyMissing, message: "未提供兑换码"},
		scenario{name: "redeem spaces", request: redeem(w.alice, `{"key":" - "}`), code: refusal.RedemptionKeyMissing, message: "未提供兑换码"},
		scenario{name: "redeem, member left out", request: request{method: "POST", path: "/api/user/topup", as: w.alice, body: `{}`, broken: true}, code: refusal.RedemptionKeyMissing, message: "未提供兑换码"},
		scenario{name: "redeem, null", request: request{method: "POST", path: "/api/user/topup", as: w.alice, body: `{"key":null}`, broken: true}, code: refusal.RedemptionKeyMissing},
		scenario{name: "redeem, a number", request: request{method: "POST", path: "/api/user/topup", as: w.alice, body: `{"key":5}`, broken: true}, code: refusal.InvalidRequest, message: "参数 key 必须是字符串"},
		scenario{name: "redeem too much", request: redeem(rich, fmt.Sprintf(`{"key":%q}`, keys[2])), code: refusal.AccountBalanceFull, then: is(2, func(c redemptionObject) bool { return c.Status == 1 && c.UsedUserID == 0 })},
		scenario{name: "admins redeem too", request: redeem(w.admin, fmt.Sprintf(`{"key":%q}`, keys[2])), has: []string{`"data":500`}},
	)

	// Users.
	add(
		scenario{name: "self", request: request{method: "GET", path: "/api/user/self/", as: w.alice}, has: []string{fmt.Sprintf(`"id":%d,`, w.alice.id), `"quota":500`}, hasNot: secrets},
		scenario{name: "users", request: get("/api/user/"), has: []string{`"username":"root"`, `"username":"alice"`, `"total":5`}, hasNot: append(secrets, "argon2", "password", "token")},
		scenario{name: "users without the slash", request: get("/api/user?page_size=2&p=2"), has: []string{`"page_size":2`, `"page":2`}},
		scenario{name: "user", request: get(fmt.Sprintf("/api/user/%d", w.alice.id)), has: []string{`"username":"alice"`}, hasNot: secrets},
		scenario{name: "user, unknown", request: get("/api/user/12345"), code: refusal.AccountNotFound},
		scenario{name: "create a user", request: request{method: "POST", path: "/api/user/", as: w.admin, body: `{"username":"carol","password":"` + w.secret("correct horse 1") + `","display_name":"Carol 卡","quota":12}`}, hasNot: []string{"data", "horse"}, then: func(t *testing.T, _ reply) {
			t.Helper()
			u, err := w.accounts.ByName(t.Context(), account.Operator(), "carol")
			if err != nil || u.Role != account.RoleUser || u.Quota != 12 || u.DisplayName != "Carol 卡" {
				t.Errorf("%+v, %v", u, err)
			}
		}},
		scenario{name: "create an admin", request: request{method: "POST", path: "/api/user", as: w.root, body: `{"username":"dave","password":"correct horse 2","role":10}`}},
	)
	for body, why := range map[string]refusal.Code{
		`{"username":"carol","password":"long enough"}`:                        refusal.AccountNameTaken,
		`{"username":"","password":"long enough"}`:                             refusal.AccountNameInvalid,
		`{"username":"a b","password":"long enough"}`:                          refusal.AccountNameInvalid,
		`{"username":"eve","password":"long enough","display_name":"a\u0007"}`: refusal.AccountDisplayName,
		`{"username":"eve","password":"short"}`:                                refusal.AccountPassword,
		`{"username":"eve","password":""}`:                                     refusal.AccountPassword,
		`{"username":"eve"}`:                                                   refusal.AccountPassword,
		`{"username":"eve","password":"long enough","role":5}`:                 refusal.AccountRole,
		`{"username":"eve","password":"long enough","role":-1}`:                refusal.AccountRole,
		`{"username":"eve","password":"long enough","role":4294967297}`:        refusal.AccountRole,
		`{"username":"eve","password":"long enough","role":10}`:                refusal.AccountRoleTooHigh,
		`{"username":"eve","password":"long enough","role":100}`:               refusal.AccountRoleTooHigh,
		`{"username":"eve","password":"long enough","quota":-1}`:               refusal.AccountQuota,
		`{"username":"eve","password":"long enough","quota":1e3}`:              refusal.InvalidRequest,
		`{"username":"eve","password":12345678}`:                               refusal.InvalidRequest,
	} {
		add(scenario{
			name: "create " + body, request: request{method: "POST", path: "/api/user/", as: w.admin, body: body, broken: true},
			code: why, hasNot: []string{"long enough"}, then: func(t *testing.T, _ reply) {
				t.Helper()
				if _, err := w.accounts.ByName(t.Context(), account.Operator(), "eve"); refusal.CodeOf(err) != refusal.AccountNotFound {
					t.Error("the user was made", err)
				}
			},
		})
	}
	add(
		scenario{name: "login", request: request{method: "POST", path: "/api/user/login", body: `{"username":"carol","password":"correct horse 1"}`}, has: []string{`"username":"carol"`, `"quota":12`}, hasNot: []string{"horse", "session"}},
		scenario{name: "login, wrong password", request: request{method: "POST", path: "/api/user/login", body: `{"username":"carol","password":"wrong horse 1"}`}, code: refusal.AccountWrongPassword, hasNot: []string{"carol"}, then: noCookie},
		scenario{name: "login, unknown user", request: request{method: "POST", path: "/api/user/login", body: `{"username":"nobody","password":"wrong horse 1"}`}, code: refusal.AccountWrongPassword, then: noCookie},
		scenario{name: "login, no password", request: request{method: "POST", path: "/api/user/login", body: `{"username":"alice","password":""}`}, code: refusal.AccountWrongPassword, then: noCookie},
		scenario{name: "login, broken", request: request{method: "POST", path: "/api/user/login", body: `{"username":1}`, broken: true}, code: refusal.InvalidRequest, then: noCookie},
	)

	// Removing.
	del := func(path string) request {
		return request{method: "DELETE", path: "/api/redemption/" + path, as: w.admin}
	}
	add(
		scenario{name: "delete", request: del(fmt.Sprint(id[0])), hasNot: []string{"data"}, then: func(t *testing.T, _ reply) {
			t.Helper()
			if _, ok := w.find(t, keys[0]); ok {
				t.Error("it is still there")
			}
			entries, err := w.accounts.Ledger(t.Context(), account.Operator(), account.LedgerFilter{CodeID: id[0], Limit: 10})
			if err != nil || len(entries) != 3 || entries[1].Kind != account.KindRedeem || entries[1].ActorID != w.alice.id || entries[1].Amount != 500 {
				t.Errorf("the record: %+v, %v", entries, err)
			}
		}},
		scenario{name: "delete again", request: del(fmt.Sprint(id[0])), code: refusal.RedemptionNotFound, message: "兑换码不存在"},
		scenario{name: "redeem a deleted one", request: redeem(w.alice, fmt.Sprintf(`{"key":%q}`, keys[0])), code: refusal.RedemptionUnknown, message: "无效的兑换码"},
	)

	// Time passes: what was issued to expire has.
	add(scenario{name: "at its last second", request: get("/api/redemption/?status=expired"), has: []string{`"total":0`}, then: func(t *testing.T, _ reply) {
		t.Helper()
		w.clock.advance(200 * time.Second)
	}})
	expiredID, expiredKey := int64(0), ""
	add(scenario{name: "expired", request: get("/api/redemption/?status=expired"), has: []string{`"total":4`, `"status":1`}, then: func(t *testing.T, r reply) {
		t.Helper()
		p := data[page[redemptionObject]](t, r)
		expiredID, expiredKey = p.Items[0].ID, p.Items[0].Key
		(&scenario{code: refusal.RedemptionExpired, message: "该兑换码已过期"}).check(t, w.topUp(t, w.alice, expiredKey))
		// The whole object, sent back by a panel, with its past expiry.
		back := put("", fmt.Sprintf(`{"id":%d,"name":"sent back","quota":%d,"expired_time":%d}`, expiredID, p.Items[0].Quota, p.Items[0].ExpiredTime))
		(&scenario{has: []string{`"name":"sent back"`}}).check(t, w.do(t, back))
	}})
	add(scenario{name: "delete invalid", request: del("invalid/"), has: []string{`"data":6`}, then: func(t *testing.T, _ reply) {
		t.Helper()
		for _, status := range []string{"2", "3", "expired"} {
			if p := data[page[redemptionObject]](t, w.do(t, get("/api/redemption/?status="+status))); p.Total != 0 {
				t.Errorf("%d codes of status %s are left", p.Total, status)
			}
		}
	}}, scenario{name: "delete invalid again", request: del("invalid"), has: []string{`"data":0`}})

	// The token changes last: the old one is dead at once.
	add(scenario{name: "token", request: request{method: "GET", path: "/api/user/token", as: w.bob}, then: func(t *testing.T, r reply) {
		t.Helper()
		fresh := member{id: w.bob.id, token: w.secret(data[string](t, r))}
		if fresh.token == w.bob.token {
			t.Error("it is the old one")
		}
		self := request{method: "GET", path: "/api/user/self", as: w.bob}
		(&scenario{status: 401, code: refusal.Unauthenticated}).check(t, w.do(t, self))
		self.as = fresh
		(&scenario{has: []string{`"username":"bob"`}}).check(t, w.do(t, self))
		w.bob = fresh
	}}, scenario{name: "HEAD token has no effect", request: request{method: "HEAD", path: "/api/user/token", as: w.alice}, then: nil})
	every[len(every)-1].status = http.StatusMethodNotAllowed

	for _, s := range every {
		t.Run(s.name, func(t *testing.T) {
			got := w.do(t, s.request)
			if s.method == http.MethodHead {
				if got.status != s.status || got.header.Get("Allow") != "GET" {
					t.Errorf("status %d, Allow %q", got.status, got.header.Get("Allow"))
				}
				(&scenario{}).check(t, w.do(t, request{method: "GET", path: "/api/user/self", as: w.alice}))
				return
			}
			s.check(t, got)
		})
	}
	w.operations(t)
	if report := w.verify(t); report.Entries == 0 {
		t.Error("the ledger is empty")
	}
	w.everyOperationSeen(t, dropIn)
}

func noCookie(t *testing.T, r reply) {
	t.Helper()
	if r.header.Get("Set-Cookie") != "" {
		t.Error("a cookie was set")
	}
}

// operations calls what operators read.
func (w *world) operations(t *testing.T) {
	t.Helper()
	for path, want := range map[string]struct{ kind, has string }{
		"/healthz":      {"text/plain; charset=utf-8", "ok\n"},
		"/readyz":       {"text/plain; charset=utf-8", "ok\n"},
		"/metrics":      {"text/plain; version=0.0.4; charset=utf-8; escaping=underscores", "scrip_http_requests_total{"},
		"/openapi.yaml": {"application/yaml", "openapi: 3.1.0"},
		"/docs":         {"text/html; charset=utf-8", "<h1>Scrip API</h1>"},
	} {
		r := w.do(t, request{method: "GET", path: path})
		if r.status != http.StatusOK || r.header.Get("Content-Type") != want.kind || !strings.Contains(r.text, want.has) {
			t.Errorf("%s: %d, %s", path, r.status, r.header)
		}
	}
	for _, path := range []string{"/mqtt/auth", "/mqtt/acl"} {
		w.wantVerdict(t, path, question{ClientID: "x", Username: "x", Action: "publish"}, "deny", false)
	}
}

func (w *world) everyOperationSeen(t *testing.T, s surface) {
	t.Helper()
	for path, item := range w.document.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if surfaceOf(path) == s && !w.document.seen[op.OperationID][""] {
				t.Errorf("%s %s was not exercised", method, path)
			}
		}
	}
}
