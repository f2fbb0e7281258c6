package bench

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestConsole looks at every page of the console, beside a database with fewer
// codes, and redeems while the overview is looked at.
func TestConsole(t *testing.T) {
	// A machine that is busy with other tests is slow now and then: what is too slow is
	// so each time.
	var slow []string
	for range 3 {
		if slow = slowPages(t); len(slow) == 0 {
			return
		}
	}
	t.Errorf("more than %d ms: %s", slower*pageWithin, strings.Join(slow, "; "))
}

// slowPages measures the console, and returns the pages that take too long.
func slowPages(t *testing.T) (slow []string) {
	t.Helper()
	c := consoleCommand{common: small(t), Codes: 20_000, Compare: 2000, Clients: 8}
	c.Duration, c.Names = 200*time.Millisecond, 500
	r := measured(t, &c)
	wantConsole(t, r, benchConsole, benchLive, "20,000", "2,000")
	pages := 0
	for _, x := range r.Results {
		if x.Bench != benchConsole {
			continue
		}
		pages++
		if x.P50 > slower*pageWithin {
			slow = append(slow, fmt.Sprintf("%s with %d codes, %.1f ms", x.Kind, x.Codes, x.P50))
		}
	}
	if pages < 100 {
		t.Errorf("only %d pages in two databases", pages)
	}
	noLeftovers(t, c.Dir)
	return slow
}

// wantConsole checks what is found out about the console.
func wantConsole(t *testing.T, r report, pages, live, codes, compare string) {
	t.Helper()
	wantResults(t, r, live, "redeem over HTTP, nobody looks", "redeem over HTTP, 100 look at the overview")
	wantChecks(t, r, pages, "p50 with "+codes+" codes / with "+compare, "p50 of the slowest page with "+codes, "p99 of the slowest page with "+codes)
	wantChecks(t, r, live, "redeems a second while 100 look / nobody does")
	sent := false
	for _, n := range r.Notes {
		sent = sent || strings.HasPrefix(n, live+": each of those who looked was sent the overview")
	}
	if !sent {
		t.Errorf("it does not say how often the overview was sent: %q", r.Notes)
	}
}
