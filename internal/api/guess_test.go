package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func TestGuessLimit(t *testing.T) {
	w := newWorld(t, options{guesses: 20})
	keys := w.issue(t, "codes", 3, 5)
	unknown := scenario{code: refusal.RedemptionUnknown}
	limited := scenario{status: 429, code: refusal.AccountTooManyGuesses}

	// Known keys consume nothing, whatever becomes of them.
	for range 30 {
		w.topUp(t, w.alice, keys[0])
		(&scenario{code: refusal.RedemptionUsedByYou}).check(t, w.topUp(t, w.alice, keys[0]))
		w.topUp(t, w.alice, "")
	}
	for i := range 20 {
		unknown.check(t, w.topUp(t, w.alice, fmt.Sprintf("unknown%d", i)))
		w.clock.advance(time.Second)
	}
	r := w.topUp(t, w.alice, keys[1])
	limited.check(t, r)
	if s := r.header.Get("Retry-After"); s != "580" { // ten minutes from the first
		t.Errorf("Retry-After %q", s)
	}
	limited.check(t, w.topUp(t, w.bob, keys[1])) // from the same address
	w.clock.advance(579*time.Second + 999*time.Millisecond)
	r = w.topUp(t, w.alice, keys[1])
	limited.check(t, r)
	if s := r.header.Get("Retry-After"); s != "1" {
		t.Errorf("Retry-After %q", s)
	}
	w.clock.advance(time.Millisecond)
	(&scenario{has: []string{`"data":5`}}).check(t, w.topUp(t, w.alice, keys[1]))
	(&scenario{has: []string{`"data":5`}}).check(t, w.topUp(t, w.bob, keys[2]))
}

// TestGuessLimitBeforeAll: over the limit nothing of a request is looked at,
// and what it would have been answered makes no difference.
func TestGuessLimitBeforeAll(t *testing.T) {
	w := newWorld(t, options{guesses: 1})
	keys := w.issue(t, "codes", 2, 5)
	topUp := func(body string) request {
		return request{method: "POST", path: "/api/user/topup", as: w.alice, body: body, broken: true}
	}
	redeem := withKey(topUp(`{"key":"`+keys[0]+`"}`), "k")
	(&scenario{}).check(t, w.do(t, redeem))
	w.topUp(t, w.alice, "unknown")
	for name, r := range map[string]request{
		"a good key":             topUp(`{"key":"` + keys[1] + `"}`),
		"no body":                topUp(""),
		"broken JSON":            topUp("{"),
		"a key of a wrong type":  topUp(`{"key":5}`),
		"a body that is too big": topUp(strings.Repeat(" ", bodyMax+1)),
		"a replay":               redeem,
		"a reused key":           withKey(topUp("{}"), "k"),
		"an empty key":           withKey(topUp(`{"key":"x"}`), ""),
	} {
		t.Run(name, func(t *testing.T) {
			got := w.do(t, r)
			(&scenario{status: 429, code: refusal.AccountTooManyGuesses}).check(t, got)
			if replayed(got) || got.header.Get("Retry-After") != "600" {
				t.Error(got.header)
			}
		})
	}
	(&scenario{}).check(t, w.do(t, request{method: "GET", path: "/api/user/self", as: w.alice}))
	w.clock.advance(10 * time.Minute)
	if r := w.do(t, redeem); !r.Success || !replayed(r) {
		t.Error(r.text)
	}
}

// TestGuessesAtOnce: of a hundred that come together, twenty are looked up.
func TestGuessesAtOnce(t *testing.T) {
	w := newWorld(t, options{guesses: 20})
	key := w.issue(t, "codes", 1, 5)[0]
	counts := gather(t, 100, func(i int) (string, error) {
		r, err := w.try(t, request{method: "POST", path: "/api/user/topup", as: w.alice, body: fmt.Sprintf(`{"key":"unknown%d"}`, i)})
		return string(r.Code), err
	})
	if counts["redemption_unknown"] != 20 || counts["too_many_guesses"] != 80 {
		t.Error(counts)
	}
	w.clock.advance(10 * time.Minute)
	// Known ones are not slowed down by one another.
	counts = gather(t, 100, func(int) (string, error) {
		r, err := w.try(t, request{method: "POST", path: "/api/user/topup", as: w.bob, body: `{"key":"` + key + `"}`})
		return strconv.FormatBool(r.Success) + " " + string(r.Code), err
	})
	if counts["true "] != 1 || counts["false redemption_used_by_you"] != 99 {
		t.Error(counts)
	}
}

// gather does something n times at once and counts the outcomes.
func gather(t *testing.T, n int, do func(i int) (string, error)) map[string]int {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	counts := map[string]int{}
	for i := range n {
		wg.Go(func() {
			outcome, err := do(i)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			counts[outcome]++
		})
	}
	wg.Wait()
	return counts
}

func TestLoginLimit(t *testing.T) {
	w := newWorld(t, options{logins: 3})
	if _, err := w.accounts.Create(t.Context(), account.Operator(), account.CreateRequest{
		Username: "carol", Password: w.secret("correct horse battery"),
	}); err != nil {
		t.Fatal(err)
	}
	login := func(name, password string) reply {
		t.Helper()
		return w.do(t, request{method: "POST", path: "/api/user/login", body: fmt.Sprintf(`{"username":%q,"password":%q}`, name, password)})
	}
	limited := scenario{status: http.StatusTooManyRequests, code: refusal.AccountTooManyGuesses, then: noCookie}
	(&scenario{}).check(t, login("carol", "correct horse battery"))
	for range 3 {
		(&scenario{code: refusal.AccountWrongPassword}).check(t, login("carol", "incorrect horse"))
	}
	r := login("carol", "correct horse battery")
	limited.check(t, r)
	if r.header.Get("Retry-After") != "600" {
		t.Error(r.header.Get("Retry-After"))
	}
	limited.check(t, login("dave", "incorrect horse")) // from the same address
	w.clock.advance(10 * time.Minute)
	(&scenario{}).check(t, login("carol", "correct horse battery"))
}
