package console_test

import (
	"context"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// TestMakeCodesOnce: however often the button is pressed, a batch is made once, and
// each time it is that one's page which is shown.
func TestMakeCodesOnce(t *testing.T) {
	p := newPeople(t)
	onceOf := func(page string) string {
		t.Helper()
		m := regexp.MustCompile(`name="once" value="([^"]+)"`).FindStringSubmatch(page)
		if m == nil {
			t.Fatalf("there is no field: %s", page)
		}
		return m[1]
	}
	once := onceOf(p.get(t, "admin", "/codes/new").body)
	p.post(t, "root", "/codes", "name", "other", "count", "2", "quota", "1").to(t, "/jobs/1")
	form := []string{"once", once, "name", "many", "count", "300", "quota", "2"}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if r := p.send(t, p.as["admin"], "POST", "/codes", values(form)); r.status != 303 || r.location != "/jobs/2" {
				t.Errorf("%d, to %q", r.status, r.location)
			}
		})
	}
	all.Wait()
	if err := p.codes.RunJobs(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.post(t, "admin", "/codes", form...).to(t, "/jobs/2")
	total := func() int64 {
		t.Helper()
		found, err := p.codes.Find(t.Context(), account.Operator(), redemption.Search{}, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		return found.Total
	}
	if n := total(); n != 302 {
		t.Errorf("%d codes", n)
	}
	// Gone back to and edited, it is refused; sent from there it is a new one.
	form[5] = "30"
	r := p.post(t, "admin", "/codes", form...)
	r.has(t, 422, "sent before", `value="many"`, `value="30"`, "!"+once)
	if form[1] = onceOf(r.body); total() != 302 {
		t.Errorf("%d codes", total())
	}
	p.post(t, "admin", "/codes", form...).to(t, "/jobs/3")
	// What was refused has not been sent.
	form[1], form[7] = onceOf(p.get(t, "admin", "/codes/new").body), "0"
	p.post(t, "admin", "/codes", form...).has(t, 422)
	form[7] = "5"
	p.post(t, "admin", "/codes", form...).to(t, "/jobs/4")
}

// values are a form's, of names and values in turn.
func values(of []string) url.Values {
	form := url.Values{}
	for i := 0; i+1 < len(of); i += 2 {
		form.Add(of[i], of[i+1])
	}
	return form
}

// TestVerificationSurvivesPanics: a verification that goes wrong neither ends the
// program nor stands in the next one's way.
func TestVerificationSurvivesPanics(t *testing.T) {
	p := newPeople(t)
	ended := func(logged, text string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; { //nolint:forbidigo // a deadline of the test's own
			if strings.Contains(p.logs.String(), logged) && strings.Contains(p.get(t, "root", "/ledger").body, text) {
				return
			}
			if time.Now().After(end) { //nolint:forbidigo // the same
				t.Fatalf("%q does not come; the log has %s", text, p.logs.String())
			}
		}
	}
	for _, c := range []struct {
		logged string
		verify func() (account.Report, error)
	}{
		{"panic: out of range", func() (account.Report, error) { panic("out of range") }},
		{"no such table", func() (account.Report, error) { return account.Report{}, errors.New("no such table") }},
	} {
		p.verify = func(context.Context, func(done, total int64)) (account.Report, error) { return c.verify() }
		p.post(t, "admin", "/ledger/verify").to(t, "/ledger")
		ended(c.logged, "could not be read to its end")
	}
	p.verify = func(context.Context, func(done, total int64)) (account.Report, error) {
		return account.Report{Lanes: 1, Entries: 1, Accounts: 4}, nil
	}
	p.post(t, "admin", "/ledger/verify").to(t, "/ledger")
	ended("", "The ledger is whole.")
}
