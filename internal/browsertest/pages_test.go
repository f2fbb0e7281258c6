package browsertest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

const machineNo = "16327138"

// furnish fills a program with some of everything.
func (p *program) furnish() {
	p.Helper()
	for _, name := range []string{"新年活动", "一二三四五六七八九十一二三四五六七八九十", "Spring 2026"} {
		p.api("POST", "/api/redemption/", fmt.Sprintf(`{"name":%q,"count":60,"quota":100000}`, name))
	}
	keys := regexp.MustCompile(`[0-9a-f]{32}`).FindAllString(
		p.api("POST", "/api/redemption/", `{"name":"Fête <b>\"&","count":5,"quota":500}`), -1)
	p.api("POST", "/api/user/topup", fmt.Sprintf(`{"key":%q}`, keys[0]))
	p.api("POST", "/api/user/", `{"username":"alice","display_name":"阿丽丝","password":"correct horse"}`)
	p.api("POST", "/api/v1/merchants", `{"name":"Corner shops"}`)
	p.api("POST", "/api/v1/machines", fmt.Sprintf(
		`{"machine_no":%q,"merchant_id":1,"name":"上海虹桥火车站二层西侧候车厅","timezone":"Asia/Shanghai","purchase_limit":3}`, machineNo))
	for _, slot := range []string{"A1", "A2", "B1", "B2", "C1"} {
		p.api("POST", "/api/v1/machines/"+machineNo+"/products", fmt.Sprintf(`{"name":"无糖绿茶 Green tea 500 ml","slot":%q}`, slot))
	}
	p.api("POST", "/api/v1/machines/"+machineNo+"/pickup-codes", `{"product_id":1,"quantity":2}`)
}

// page is one page, for whoever is root.
type aPage struct{ name, path string }

func everyPage() []aPage {
	m := "/machines/" + machineNo
	return []aPage{
		{"overview", "/"},
		{"overview-hours", "/?by=hours"},
		{"codes", "/codes"},
		{"codes-found", "/codes?status=used"},
		{"codes-none-found", "/codes?q=nosuch"},
		{"codes-nobody", "/codes?user=nosuch"},
		{"codes-new", "/codes/new"},
		{"code", "/codes/1"},
		{"batches", "/batches"},
		{"codes-invalid", "/codes/invalid"},
		{"machines", "/machines"},
		{"machines-none-found", "/machines?q=nosuch"},
		{"machine-new", "/machines/new"},
		{"machine", m},
		{"machine-settings", m + "/settings"},
		{"machine-connection", m + "/connection"},
		{"machine-virtual", m + "/virtual"},
		{"late", "/late"},
		{"users", "/users"},
		{"users-none-found", "/users?q=nosuch"},
		{"user-new", "/users/new"},
		{"user", "/users/2"},
		{"ledger", "/ledger"},
		{"ledger-none-found", "/ledger?machine=99999999"},
		{"verify", "/ledger/verify"},
		{"settings", "/settings"},
		{"merchant-new", "/settings/merchants/new"},
		{"merchant", "/settings/merchants/1"},
		{"redeem", "/redeem?key=ABCD-1234"},
		{"account", "/account"},
	}
}

// TestEveryPage looks at every page in every language, width and theme: nothing
// fails, nothing is asked of another host, nothing is wider than the window, and,
// once in each theme, nothing is out of reach for those who do not use a mouse or
// their eyes.
func TestEveryPage(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.furnish()
	for i, l := range looks() {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			b := p.tab(t, l)
			b.signIn(p.token, "/redeem")
			for _, at := range everyPage() {
				b.open(at.path)
				if i < 2 {
					b.sound(at.name)
				} else {
					b.fits(at.name)
				}
				b.picture(at.name + "-" + l.String())
			}
			b.tolerate("404")
			b.open("/nosuch")
			b.fits("a page that is not there")
		})
	}
}

// TestSizes: no page, with all that it loads, is larger over the wire than it may
// be.
func TestSizes(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.furnish()
	loads := regexp.MustCompile(`(?:href|src)="(/assets/[^"]+)"`)
	for _, at := range everyPage() {
		most := 150_000
		if at.name == "machine-virtual" {
			most = 250_000
		}
		sum, body := p.wire(at.path)
		for _, m := range loads.FindAllStringSubmatch(body, -1) {
			n, _ := p.wire(m[1])
			sum += n
		}
		if sum > most {
			t.Errorf("%s is %d bytes over the wire, of %d", at.name, sum, most)
		}
	}
}

// wire is how large an answer is over the wire, and what it says.
func (p *program) wire(path string) (int, string) {
	p.Helper()
	req, err := http.NewRequestWithContext(p.Context(), http.MethodGet, p.base+path, nil)
	p.check(err)
	req.Header.Set("Accept-Encoding", "gzip")
	res, err := p.client.Do(req) // it does not unpack what it did not ask for itself
	p.check(err)
	defer func() { _ = res.Body.Close() }()
	packed, err := io.ReadAll(res.Body)
	p.check(err)
	if res.StatusCode >= 400 {
		p.Fatalf("%s: %s", path, res.Status)
	}
	if res.Header.Get("Content-Encoding") != "gzip" {
		return len(packed), string(packed)
	}
	return len(packed), unzip(p, packed)
}

// head reads the beginning of a download.
func head(r io.Reader, n int) string {
	b, _ := bufio.NewReader(io.LimitReader(r, int64(n))).Peek(n)
	return strings.TrimPrefix(string(b), "\ufeff")
}
