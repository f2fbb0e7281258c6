package browsertest

import (
	"strings"
	"testing"
)

// TestWelcome: the first start's link sets root's password, once; then that signs
// in and out.
func TestWelcome(t *testing.T) {
	p := start(t)
	for _, l := range looks()[:1] {
		b := p.tab(t, l)
		b.open(strings.TrimPrefix(p.welcome, p.base))
		b.sound("welcome")
		b.fill(`input[name=password]`, "correct horse")
		b.fill(`input[name=again]`, "correct horsd")
		b.tolerate("422")
		b.follow(`main form button`)
		b.shows(`[role=alert]`, "differ")
		b.fill(`input[name=password]`, "correct horse")
		b.fill(`input[name=again]`, "correct horse")
		b.follow(`main form button`)
		b.until(`location.pathname == "/"`)
		b.click(`details.menu summary`)
		b.follow(`details.menu form[action="/signout"] button`)
		b.until(`location.pathname == "/signin"`)
		b.sound("sign-in")
		b.fill(`input[name=username]`, "root")
		b.fill(`input[name=password]`, "wrong one")
		b.follow(`main form button`)
		b.shows(`[role=alert]`, "rong")
		b.fill(`input[name=password]`, "correct horse")
		b.follow(`main form button`)
		b.until(`location.pathname == "/"`)
	}
}

// TestZone: the hours and days that the server draws are those of the browser's
// zone, from the first page after the one to sign in on.
func TestZone(t *testing.T) {
	t.Parallel()
	p := start(t)
	b := p.tab(t, looks()[0])
	b.signIn(p.token, "/?by=hours")
	b.until(`[performance.timeOrigin, Date.now()].some((at) => document.querySelector(".chart .col:last-of-type title").textContent
		.includes(" " + String(new Date(at).getHours()).padStart(2, "0") + ":00: "))`)
}
