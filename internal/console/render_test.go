package console

import (
	"testing"

	"github.com/scrip-codes/scrip/internal/web"
)

// TestPagesParse: pages are parsed when they are looked at, and each can be.
func TestPagesParse(t *testing.T) {
	e, err := load()
	if err != nil {
		t.Fatal(err)
	}
	for tongue := range web.Tongues {
		if len(e.pages[tongue]) < 25 {
			t.Errorf("%d pages", len(e.pages[tongue]))
		}
		for name := range e.pages[tongue] {
			if _, err := e.pages.of(tongue, name); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := e.pages.of(web.English, "nothing"); err == nil {
		t.Error("a page is named nothing")
	}
}
