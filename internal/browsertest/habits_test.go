package browsertest

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// TestHabits does what people do with pages beside what they are there for: they go
// back, press twice, compose with an input method, and let a question stand while
// the page goes on.
func TestHabits(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.furnish()
	b := p.tab(t, looks()[0])
	b.signIn(p.token, "/codes")

	// Back, between two searches and between a list and a code: what was ticked is not
	// ticked on other rows, and questions are asked.
	search := func(text string) {
		b.fill(`input[name=q]`, text)
		b.until(fmt.Sprintf(`location.search == %q && !document.querySelector(".htmx-request")`, "?q="+text))
	}
	search("Spring")
	search("F")
	b.back(`document.querySelector("input[name=q]").value == "Spring"`)
	b.click(`tbody tr:nth-child(2) input`)
	b.click(`#bulk button[value=disable]`)
	b.follow(`#ask button[value=yes]`)
	b.until(`document.querySelectorAll("tbody .state.bad").length == 1`)
	b.click(`tbody tr:nth-child(3) input`)
	b.follow(`tbody tr:nth-child(1) td:nth-child(2) a`)
	b.back(`location.pathname == "/codes" && document.readyState == "complete"`)
	if ticked := eval[int](b, `document.querySelectorAll("tbody input:checked").length`); ticked != 0 {
		t.Errorf("%d rows are ticked", ticked)
	}

	// An input method: nothing is asked before the text is composed.
	b.open("/codes")
	if told := eval[int](b, `(() => {
		const q = document.querySelector("input[name=q]");
		let told = 0; // how often the form, which asks, hears that there is something to ask for
		q.form.addEventListener("input", () => { told++; });
		q.value = "xin nian";
		q.dispatchEvent(new InputEvent("input", { bubbles: true, isComposing: true }));
		q.value = "新年";
		q.dispatchEvent(new InputEvent("input", { bubbles: true, isComposing: true }));
		q.dispatchEvent(new CompositionEvent("compositionend", { bubbles: true }));
		return told;
	})()`); told != 1 {
		t.Errorf("the form was told %d times", told)
	}
	b.until(`decodeURIComponent(location.search) == "?q=新年"`)
	if asked := eval[int](b, `performance.getEntriesByType("resource").filter((r) => r.name.includes("/codes?")).length`); asked != 1 {
		t.Errorf("the list was asked for %d times", asked)
	}

	// Enter in the palette goes to what was typed, not to what was there before.
	b.click(`button.find`)
	b.until(`document.querySelectorAll("#found a").length > 0`)
	b.press("Settings" + kb.Enter)
	b.until(`location.pathname == "/settings"`)

	// A question that stands while the part that asked is drawn anew.
	b.open("/machines/" + machineNo)
	b.touch(`.pickups form button`)
	b.until(`document.getElementById("ask").open`)
	p.api("POST", "/api/v1/machines/"+machineNo+"/pickup-codes", `{"product_id":2,"quantity":1}`)
	b.until(`document.querySelectorAll(".pickups form").length == 2`)
	b.click(`#ask button[value=yes]`)
	b.until(`document.querySelectorAll(".pickups form").length == 1`)

	// A tab that nobody sees holds no connection, and is up to date when it is seen.
	see := func(hidden bool) {
		eval[bool](b, fmt.Sprintf(`Object.defineProperty(document, "hidden", { value: %t, configurable: true }) && document.dispatchEvent(new Event("visibilitychange"))`, hidden))
	}
	see(true)
	b.until(`performance.getEntriesByType("resource").some((r) => r.name.includes("/events"))`) // it has ended
	p.api("POST", "/api/v1/machines/"+machineNo+"/pickup-codes", `{"product_id":3,"quantity":1}`)
	see(false)
	b.until(`document.querySelectorAll(".pickups form").length == 2`)

	// Pressed twice: what is shown once is shown.
	b.open("/users/new")
	b.fill(`input[name=username]`, "twice")
	eval[bool](b, `(() => {
		const button = document.querySelector("main form button.main");
		button.click();
		setTimeout(() => button.click(), 1);
		return true;
	})()`)
	b.until(`document.querySelector(".secret [data-copy]")`)
}
