package console

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the protocol's
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/gorilla/websocket"

	"github.com/scrip-codes/scrip/internal/web"
)

// TestVirtualRules: the script's rules are the protocol's, to its vectors.
func TestVirtualRules(t *testing.T) {
	var vectors []json.RawMessage
	f, err := os.Open("../wire/testdata/sign.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		vectors = append(vectors, slices.Clone(lines.Bytes()))
	}
	if len(vectors) < 10 {
		t.Fatalf("%d vectors", len(vectors))
	}
	given, err := json.Marshal(vectors)
	if err != nil {
		t.Fatal(err)
	}
	script, err := assetFiles.ReadFile("assets/virtual-rules.js")
	if err != nil {
		t.Fatal(err)
	}
	tries, err := os.ReadFile("testdata/virtual_rules.js")
	if err != nil {
		t.Fatal(err)
	}
	tab := newVirtualTab(t)
	wrong := virtualDo(t, tab, chromedp.Evaluate[[]string](string(script)+string(tries)+";tryMachineRules("+string(given)+")"))
	for _, w := range wrong {
		t.Error(w)
	}
}

// TestVirtualMachine is a machine in a browser that talks to a broker: it takes
// codes, drops what is forged, vends on line and off, forgets nothing when the
// page is loaded again, and reports each use until somebody has it.
func TestVirtualMachine(t *testing.T) {
	b := newVirtualBroker()
	site := virtualSite(t, b, virtualMachine{Base64: true, Percent: true})
	tab := newVirtualTab(t)
	tab.open(t, site+"/?password=wrong")
	tab.shows(t, "#vm-state", "Login refused")
	tab.do(t, `document.getElementById("vm-keep").click()`)
	tab.do(t, `document.getElementById("vm-password").value = "right"; document.querySelector("#vm-login button").click()`)
	tab.shows(t, "#vm-state", "Online")
	hello := b.uplink(t, "client.heartbeat")
	if hello["machine_id"] != "000" || hello["client_id"] != virtualNo {
		t.Errorf("it says %v", hello)
	}

	b.push(t, virtualMessage(t, "create", 1, "00112233", "kva", false))
	b.push(t, virtualMessage(t, "create", 2, "44556677", "kva", true))
	b.push(t, virtualMessage(t, "create", 3, "88889999", "kvb", false))
	tab.shows(t, "#vm-log li:first-child .vm-gist", "Dropped: its signature is wrong. If all are, check the merchant’s app key.")
	tab.shows(t, "#vm-codes", "2")
	if lit := virtualDo(t, tab, chromedp.Evaluate[int](`document.querySelectorAll(".vm-lit").length`)); lit != 1 {
		t.Errorf("%d slots are lit", lit)
	}
	tab.enter(t, "88889999")
	tab.shows(t, "#vm-message", "No such code here")

	tab.enter(t, "00112233")
	tab.shows(t, "#vm-message", "Please take your goods")
	if put := b.uplink(t, "client.pickup_codes.put"); put["id"] != "1" || put["used"] != "1" || put["machine_id"] != "10009" {
		t.Errorf("it reports %v", put)
	}
	tab.shows(t, "#vm-unreported", "0")
	if pieces := virtualDo(t, tab, chromedp.Evaluate[int](`document.querySelectorAll(".vm-piece").length`)); pieces != 2 {
		t.Errorf("%d pieces are in the hatch", pieces)
	}
	tab.do(t, `document.getElementById("vm-hatch").click()`)
	tab.shows(t, "#vm-message", "Thank you")

	tab.drag(t, -100, 0)
	tab.shows(t, "#vm-state", "Unplugged")
	if will := b.uplink(t, "client.offline"); will["reason"] == "" {
		t.Errorf("its will is %v", will)
	}
	tab.open(t, site+"/")
	tab.shows(t, "#vm-state", "Unplugged")
	tab.shows(t, "#vm-codes", "1")
	tab.enter(t, "00112233")
	tab.shows(t, "#vm-message", "This code has been used")
	tab.enter(t, "44556677")
	tab.shows(t, "#vm-message", "Please take your goods")
	tab.shows(t, "#vm-unreported", "1")
	tab.open(t, site+"/")
	tab.shows(t, "#vm-unreported", "1")

	b.refuse(16) // nobody listened
	tab.do(t, `document.getElementById("vm-unplug").click()`)
	tab.shows(t, "#vm-state", "Online") // with the password that it kept
	if put := b.uplink(t, "client.pickup_codes.put"); put["id"] != "2" {
		t.Errorf("it reports %v", put)
	}
	tab.shows(t, "#vm-log .vm-mark.bad", "not acknowledged: trying again")
	tab.shows(t, "#vm-unreported", "1")
	b.refuse(0x97) // too much
	tab.do(t, `document.getElementById("vm-empty").click()`)
	tab.shows(t, "#vm-log .vm-mark.bad", "not acknowledged: trying again")
	tab.shows(t, "#vm-unreported", "1")
	b.refuse(0)
	if put := b.uplink(t, "client.pickup_codes.put"); put["id"] != "2" {
		t.Errorf("it reports %v", put)
	}
	tab.shows(t, "#vm-unreported", "0")

	tab.do(t, `document.getElementById("vm-unplug").click()`)
	tab.shows(t, "#vm-state", "Unplugged")
	tab.waits(t, `document.getElementById("vm-plug").getAttribute("transform")`, "translate(268 84)") // it lies still
	tab.drag(t, 135, -36)
	tab.shows(t, "#vm-state", "Online")

	b.push(t, virtualMessage(t, "create", 4, "12341234", "kva", false))
	tab.shows(t, "#vm-codes", "1")
	b.push(t, virtualMessage(t, "delete", 4, "", "kva", false))
	tab.shows(t, "#vm-codes", "0")
	tab.clean(t)

	// What the browser does not keep is not acknowledged: it must come again.
	tab.do(t, `Storage.prototype.setItem = () => { throw new Error("full") }`)
	b.pushing(virtualMessage(t, "create", 5, "98769876", "kva", false))
	tab.shows(t, "#vm-message", "Out of order")
	b.uplink(t, "client.offline")
	if len(b.acked) > 0 {
		t.Error("it has acknowledged what it could not keep")
	}
}

// TestVirtualOneTab: of two tabs with one machine, the newer runs it.
func TestVirtualOneTab(t *testing.T) {
	b := newVirtualBroker()
	site := virtualSite(t, b, virtualMachine{})
	first := newVirtualTab(t)
	first.open(t, site+"/?password=right")
	first.shows(t, "#vm-state", "Online")
	// A frame is to the browser's storage what a tab is.
	first.do(t, `document.body.append(Object.assign(document.createElement("iframe"), {src: "/?password=right"}))`)
	first.shows(t, "#vm-message", "This machine runs in another tab")
	first.shows(t, "#vm-again", "Run it here")
	first.waits(t, `document.querySelector("iframe").contentDocument?.querySelector("#vm-state")?.textContent`, "Online")
}

// TestVirtualWeight: what the page loads is bounded.
func TestVirtualWeight(t *testing.T) {
	a, err := loadAssets()
	if err != nil {
		t.Fatal(err)
	}
	const most = 250 << 10
	weight := 0
	for _, name := range []string{
		"virtual.js", "virtual-rules.js", "virtual.css", "vendor/mqtt.min.js",
		"app.css", "app.js", "icon.svg", "vendor/htmx.min.js", "vendor/htmx-sse.min.js",
	} {
		p, err := a.path(name)
		if err != nil {
			t.Fatal(err)
		}
		weight += len(a.byPath[p].zipped)
	}
	t.Logf("%d KiB", weight>>10)
	if weight += 20 << 10; weight > most { // and the page itself
		t.Errorf("%d bytes, which is more than %d", weight, most)
	}
}

const (
	virtualNo = "16327138"
	// virtualWait bounds each wait: it is long for a busy computer, and never
	// waited for where all is well.
	virtualWait = 30 * time.Second
)

// virtualSite serves the page without the console, under its policy (but that a
// page may hold another).
func virtualSite(t *testing.T, broker http.Handler, m virtualMachine) string {
	t.Helper()
	a, err := loadAssets()
	if err != nil {
		t.Fatal(err)
	}
	words, err := loadTexts()
	if err != nil {
		t.Fatal(err)
	}
	all, err := loadPages(words, a)
	if err != nil {
		t.Fatal(err)
	}
	m.No, m.Name, m.Zone, m.AppKey, m.PurchaseLimit, m.PickupCodes, m.Created = virtualNo, "大堂 Lobby", "Asia/Shanghai", "kva", 3, true, 1
	m.Products = []virtualProduct{{20001, "绿茶 Green tea", "A1"}, {20002, "Cookies", "B2"}}
	mux := http.NewServeMux()
	mux.Handle("/assets/", a)
	mux.Handle("/mqtt", broker)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-src 'self'")
		var page bytes.Buffer
		virtual, err := all.of(web.English, "virtual")
		if err != nil {
			t.Error(err)
			return
		}
		err = virtual.ExecuteTemplate(&page, "layout", frame{Section: "machines", Data: virtualView{
			Machine: m, Password: r.FormValue("password"), MachinePath: "/machines/" + virtualNo, PasswordPath: "/machines/" + virtualNo + "/virtual",
		}})
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(page.Bytes())
	})
	site := httptest.NewServer(mux)
	t.Cleanup(site.Close)
	return site.URL
}

// virtualTab is a tab of a browser.
type virtualTab struct {
	ctx context.Context

	mu       sync.Mutex
	troubles []string
	hosts    map[string]bool
}

func newVirtualTab(t *testing.T) *virtualTab {
	t.Helper()
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.NoSandbox, chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	tab := &virtualTab{ctx: ctx, hosts: map[string]bool{}}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1280, 900)); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, tab.note); err != nil {
		t.Fatal(err)
	}
	return tab
}

// note keeps what must not happen on a page, and whom it asks.
func (v *virtualTab) note(event any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		v.troubles = append(v.troubles, e.Entry.Text)
	case *runtime.EventExceptionThrown:
		v.troubles = append(v.troubles, e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		v.troubles = append(v.troubles, fmt.Sprint(e.Type))
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err == nil && u.Scheme != "data" {
			v.hosts[u.Hostname()] = true
		}
	}
}

// clean demands that there was no trouble, and no request to another host.
func (v *virtualTab) clean(t *testing.T) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.troubles {
		t.Errorf("the page's console says: %s", s)
	}
	if hosts := slices.Sorted(maps.Keys(v.hosts)); !slices.Equal(hosts, []string{"127.0.0.1"}) {
		t.Errorf("it asks %v", hosts)
	}
}

func virtualDo[T any](t *testing.T, v *virtualTab, a chromedp.Action[T]) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, virtualWait)
	defer cancel()
	got, err := chromedp.Run(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (v *virtualTab) open(t *testing.T, at string) {
	t.Helper()
	virtualDo(t, v, chromedp.Navigate(at))
}

func (v *virtualTab) do(t *testing.T, script string) {
	t.Helper()
	virtualDo(t, v, chromedp.Evaluate[chromedp.Void](script))
}

// shows waits until the element has that text.
func (v *virtualTab) shows(t *testing.T, element, want string) {
	t.Helper()
	v.waits(t, "document.querySelector("+strconv.Quote(element)+")?.textContent", want)
}

// waits waits until the expression is that text.
func (v *virtualTab) waits(t *testing.T, text, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, virtualWait)
	defer cancel()
	same := text + " === " + strconv.Quote(want)
	_, err := chromedp.Run(ctx, chromedp.Poll[bool](same, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(virtualWait/2)))
	if err != nil {
		got, _ := chromedp.Run(ctx, chromedp.Evaluate[any](text))
		lines, _ := chromedp.Run(ctx, chromedp.Evaluate[any](`document.getElementById("vm-log")?.innerText`))
		t.Fatalf("%s is %q, want %q: %v\n%v", text, got, want, err, lines)
	}
}

// drag pulls the plug, by what the drawing counts in.
func (v *virtualTab) drag(t *testing.T, right, down float64) {
	t.Helper()
	at := virtualDo(t, v, chromedp.Evaluate[[]float64](`(() => {
		const cable = document.getElementById("vm-cable"), body = document.querySelector(".vm-plug-body");
		cable.scrollIntoView({block: "center"});
		const r = body.getBoundingClientRect();
		return [r.x + r.width / 2, r.y + r.height / 2, cable.getScreenCTM().a];
	})()`))
	virtualDo(t, v, chromedp.DragAndDropXY(at[0], at[1], at[0]+right*at[2], at[1]+down*at[2]))
}

// enter types a code as a customer does with a keyboard.
func (v *virtualTab) enter(t *testing.T, code string) {
	t.Helper()
	virtualDo(t, v, chromedp.KeyEvent("\x1b"+code+"\r"))
}

// virtualBroker is as much of an MQTT 5 broker as one machine meets, and the
// server behind it: it can refuse what brokers refuse seldom.
type virtualBroker struct {
	upgrader websocket.Upgrader
	uplinks  chan map[string]string
	acked    chan struct{} // a downlink each

	mu     sync.Mutex
	conn   *websocket.Conn
	reason byte // of the acknowledgements of uses
}

func newVirtualBroker() *virtualBroker {
	return &virtualBroker{
		upgrader: websocket.Upgrader{Subprotocols: []string{"mqtt"}},
		uplinks:  make(chan map[string]string, 100), acked: make(chan struct{}, 100),
	}
}

// ServeHTTP speaks to the machine until its connection ends.
func (b *virtualBroker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := b.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(&virtualFrames{conn: conn})
	var will []byte
	for {
		kind, err := in.ReadByte()
		if err != nil {
			break
		}
		size, err := binary.ReadUvarint(in)
		if err != nil {
			break
		}
		body := make(virtualPacket, size)
		if _, err := io.ReadFull(in, body); err != nil {
			break
		}
		switch kind >> 4 {
		case 1: // CONNECT
			body.take(10) // MQTT, 5, flags, keep alive
			body.properties()
			no := body.text()
			body.properties()
			body.text() // the will's topic
			will = []byte(body.text())
			if user, password := body.text(), body.text(); user != no || no != virtualNo || password != "right" {
				b.send(conn, 0x20, 0, 0x86, 0)
				return
			}
			b.mu.Lock()
			b.conn = conn
			b.mu.Unlock()
			b.send(conn, 0x20, 0, 0, 0)
		case 3: // PUBLISH
			topic, id := body.text(), body.take(2)
			body.properties()
			method := b.hear(topic, body)
			b.mu.Lock()
			reason := b.reason
			b.mu.Unlock()
			if method != "client.pickup_codes.put" {
				reason = 0
			}
			b.send(conn, 0x40, id[0], id[1], reason, 0)
		case 4: // PUBACK
			b.acked <- struct{}{}
		case 8: // SUBSCRIBE
			id := body.take(2)
			b.send(conn, 0x90, id[0], id[1], 0, 1)
		case 12: // PINGREQ
			b.send(conn, 0xd0)
		case 14: // DISCONNECT
			will = nil
		}
	}
	if will != nil {
		b.hear("/server/app", will)
	}
}

// send sends a packet.
func (b *virtualBroker) send(conn *websocket.Conn, kind byte, rest ...byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	packet := append(binary.AppendUvarint([]byte{kind}, uint64(len(rest))), rest...)
	_ = conn.WriteMessage(websocket.BinaryMessage, packet) // a machine that is gone is noticed elsewhere
}

// hear hands on uplinks whose form is the merchant's and whose signature is right;
// others have no method.
func (b *virtualBroker) hear(topic string, payload []byte) (method string) {
	members := map[string]string{}
	text, err := base64.StdEncoding.DecodeString(string(payload))
	if err != nil || json.Unmarshal(text, &members) != nil || members["sign"] != virtualSign(members, "kva", true) || topic != "/server/app" {
		members = map[string]string{"payload": string(payload)}
	}
	b.uplinks <- members
	return members["method"]
}

// refuse has uses acknowledged with that reason; 0: it has them.
func (b *virtualBroker) refuse(reason byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reason = reason
}

// virtualFrames is what comes in a WebSocket's messages, without their bounds.
type virtualFrames struct {
	conn *websocket.Conn
	rest []byte
}

func (f *virtualFrames) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		var err error
		if _, f.rest, err = f.conn.ReadMessage(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// virtualPacket is what is left of a packet.
type virtualPacket []byte

func (p *virtualPacket) take(n int) []byte {
	n = min(n, len(*p))
	taken := (*p)[:n]
	*p = (*p)[n:]
	return taken
}

func (p *virtualPacket) text() string {
	size := p.take(2)
	return string(p.take(int(binary.BigEndian.Uint16(size))))
}

func (p *virtualPacket) properties() {
	size, n := binary.Uvarint(*p)
	p.take(n + int(size)) //nolint:gosec // G115: a packet's own size bounds it
}

// uplink waits for a message of that method.
func (b *virtualBroker) uplink(t *testing.T, method string) map[string]string {
	t.Helper()
	deadline := time.After(virtualWait)
	for {
		select {
		case m := <-b.uplinks:
			if m["method"] == method {
				return m
			}
			if m["method"] == "" {
				t.Errorf("an uplink that is not to be believed: %v", m)
			}
		case <-deadline:
			t.Fatalf("no %s came", method)
		}
	}
}

// pushing sends a message.
func (b *virtualBroker) pushing(message []byte) {
	b.mu.Lock()
	conn := b.conn
	b.mu.Unlock()
	b.send(conn, 0x32, message...)
}

// push sends a message and waits until it is acknowledged.
func (b *virtualBroker) push(t *testing.T, message []byte) {
	t.Helper()
	b.pushing(message)
	select {
	case <-b.acked:
	case <-time.After(virtualWait):
		t.Fatalf("%s is not acknowledged", message)
	}
}

// virtualMessage is a packet's topic, id and payload.
func virtualMessage(t *testing.T, what string, id int, code, key string, wrapped bool) []byte {
	t.Helper()
	m := map[string]string{
		"timestamp": "1748330699", "machine_id": "10009", "method": "client.pickup_codes." + what,
		"client_id": virtualNo, "id": strconv.Itoa(id), "status": "0",
	}
	if what == "create" {
		maps.Copy(m, map[string]string{
			"product_id": "20001", "code": code, "quantity": "2", "used": "0",
			"expired_at": "4102444800", "expired_day": "2100-01-01 08:00:00", // in seconds
		})
	}
	m["sign"] = virtualSign(m, key, wrapped)
	payload, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if wrapped {
		payload = []byte(base64.StdEncoding.EncodeToString(payload))
	}
	topic := "/clients/" + virtualNo
	packet := append(binary.BigEndian.AppendUint16(nil, uint16(len(topic))), topic...) //nolint:gosec // G115: it has 17
	packet = binary.BigEndian.AppendUint16(packet, uint16(id))                         //nolint:gosec // G115: it is below 10
	return slices.Concat(packet, []byte{0}, payload)
}

// virtualSign is the signature in its own words: package wire's is for the broker.
func virtualSign(m map[string]string, key string, percent bool) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		value := m[name]
		if name == "sign" || value == "" {
			continue
		}
		if percent {
			value = url.QueryEscape(value) // which differs for * and ~ only
		}
		parts = append(parts, name+"="+value)
	}
	return fmt.Sprintf("%X", md5.Sum([]byte(strings.Join(parts, "&")+"&key="+key))) //nolint:gosec // the protocol's
}
