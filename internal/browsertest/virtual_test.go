package browsertest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
)

// TestVirtualMachine has the page be a machine: it takes a code over MQTT, gives
// out the product for it, also while it is unplugged, and reports that once it is
// plugged in again.
func TestVirtualMachine(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.api("POST", "/api/v1/merchants", `{"name":"Corner shops","payload":"base64","signature":"percent-encoded","expiry_unit":"s"}`)
	var machine struct {
		Password string `json:"mqtt_password"`
	}
	p.check(json.Unmarshal([]byte(p.api("POST", "/api/v1/machines", fmt.Sprintf(
		`{"machine_no":%q,"merchant_id":1,"name":"大厅","timezone":"Asia/Shanghai"}`, machineNo))), &machine))
	p.api("POST", "/api/v1/machines/"+machineNo+"/products", `{"name":"绿茶","slot":"A1"}`)
	order := func() (id int64, digits string) {
		var made struct {
			ID   int64
			Code string
		}
		p.check(json.Unmarshal([]byte(p.api("POST", "/api/v1/machines/"+machineNo+"/pickup-codes", `{"product_id":1,"quantity":1,"allow_more":true}`)), &made))
		return made.ID, made.Code
	}
	for _, l := range looks()[1:2] {
		b := p.tab(t, l)
		b.signIn(p.token, "/machines/"+machineNo+"/virtual")
		b.fill(`#vm-password`, machine.Password)
		b.click(`#vm-keep`)
		b.click(`#vm-login button.main`)
		b.until(`document.querySelector("#vm-state.live")`)

		first, digits := order()
		b.until(`document.querySelector("#vm-codes").innerText == "1"`)
		b.enter(digits)
		b.until(`!document.querySelector("#vm-hatch").disabled`)
		p.becomes(b, first, "used")
		b.picture("machine-vends-" + l.String())
		b.click(`#vm-hatch`)

		// Made on the page, and typed with its keyboard.
		b.click(`#vm-make`)
		b.click(`#make-body button.main`)
		b.until(`document.querySelector("#make-body .made")`)
		made := regexp.MustCompile(`\D`).ReplaceAllString(b.text(`#make-body .made`), "")
		b.click(`#make-body button.main`)
		b.until(`document.querySelector("#vm-codes").innerText == "1" && !document.querySelector("dialog[open]")`)
		b.press(made + kb.Enter)
		b.until(`!document.querySelector("#vm-hatch").disabled`)
		b.click(`#vm-hatch`)

		_, kept := order()
		second, offline := order()
		b.until(`document.querySelector("#vm-codes").innerText == "2"`)
		b.click(`#vm-unplug`)
		b.until(`!document.querySelector("#vm-state.live")`)
		b.enter(offline)
		b.until(`!document.querySelector("#vm-hatch").disabled`)
		b.until(`document.querySelector("#vm-unreported").innerText == "1"`)
		b.click(`#vm-hatch`)
		b.open("/machines/" + machineNo + "/virtual") // a reload forgets nothing
		b.until(`document.querySelector("#vm-unreported").innerText == "1" || document.querySelector("#vm-state.live")`)
		if eval[bool](b, `!document.querySelector("#vm-state.live")`) {
			b.click(`#vm-unplug`) // back in
		}
		p.becomes(b, second, "used")
		b.until(`document.querySelector("#vm-state.live")`)
		b.enter(offline) // once is enough
		b.until(`document.querySelector("#vm-message").innerText.length > 3`)
		b.press(kb.Escape)
		b.enter(kept)
		b.until(`!document.querySelector("#vm-hatch").disabled`)
		b.click(`#vm-hatch`)
		b.until(`document.querySelector("#vm-codes").innerText == "0"`)
		b.sound("the virtual machine")
	}
}

// TestPictures takes the README's pictures.
func TestPictures(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.furnish()
	b := p.tab(t, looks()[0])
	b.signIn(p.token, "/machines/"+machineNo+"/connection")
	password := p.newPassword()
	b.open("/machines/" + machineNo + "/virtual")
	b.fill(`#vm-password`, password)
	b.click(`#vm-login button.main`)
	b.until(`document.querySelector("#vm-state.live")`)
	b.until(`document.querySelector("#vm-codes").innerText == "1"`)
	digits := regexp.MustCompile(`"code":"(\d{8})"`).FindStringSubmatch(p.api("GET", "/api/v1/machines/"+machineNo+"/pickup-codes", ""))
	b.enter(digits[1])
	b.until(`!document.querySelector("#vm-hatch").disabled`)
	p.becomes(b, 1, "used")
	b.window("readme-machine")
	o := p.tab(t, looks()[0]) // the machine stays where it is
	o.signIn(p.token, "/")
	o.shows(`.figures`, "1 / 1")
	o.shows(`.story`, "gave out")
	o.window("readme-overview")
}

// newPassword gives the machine a new password.
func (p *program) newPassword() string {
	p.Helper()
	var made struct {
		Password string `json:"mqtt_password"`
	}
	p.check(json.Unmarshal([]byte(p.api("POST", "/api/v1/machines/"+machineNo+"/mqtt-password", "")), &made))
	return made.Password
}

// enter types a code and presses OK on the keypad.
func (t *tab) enter(digits string) {
	t.Helper()
	t.press(digits)
	t.click(`[data-key=ok]`)
}

// becomes waits until a pickup code is in a state.
func (p *program) becomes(b *tab, id int64, state string) {
	p.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	often := time.NewTicker(50 * time.Millisecond)
	defer often.Stop()
	for {
		got := p.api("GET", fmt.Sprintf("/api/v1/pickup-codes/%d", id), "")
		if strings.Contains(got, fmt.Sprintf(`"state":%q`, state)) {
			return
		}
		select {
		case <-often.C:
		case <-deadline.C:
			b.stuck(fmt.Errorf("it is not %s: %s", state, got))
		}
	}
}
