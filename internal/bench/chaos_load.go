package bench

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

const (
	chaosAdmins = 2
	// chaosBatch is how many codes a batch has, and chaosTries how often each is
	// put up for whoever comes.
	chaosBatch = 20
	chaosTries = 3
	// chaosAgain bounds how often a request is sent whose outcome is unknown.
	chaosAgain = 6
	// thinkMost is the longest time that a user thinks between two requests.
	thinkMost = 20 * time.Millisecond
	// chaosCodesMax bounds the codes that a run makes.
	chaosCodesMax = 500_000
)

// chance reports true so many times out of a hundred.
func chance(percent int) bool { return mathrand.IntN(100) < percent } //nolint:gosec // G404: no secret

// any is a server chosen at random.
func (c *cluster) any() *replica { return c.replicas[mathrand.IntN(len(c.replicas))] } //nolint:gosec // G404: no secret

// uncertain reports whether an answer leaves open what was done, or will be.
func uncertain(r *reply) bool {
	switch r.code {
	case "unavailable", "too_busy", "idempotency_key_in_progress", "redemption_list_failed", "redemption_search_failed":
		return true
	}
	return r.status >= http.StatusInternalServerError
}

// try sends a request to some server.
func (x *chaos) try(ctx context.Context, who identity, method, path string, body []byte, key string) tried {
	server := x.cluster.any()
	begun := x.history.now()
	r, err := server.call(ctx, who, method, path, body, key)
	now := x.history.now()
	switch {
	case errors.Is(err, errNotSent):
		x.history.count(countNotSent)
		return tried{}
	case err != nil || uncertain(&r):
		x.history.count(countUnknown)
		return tried{sent: true}
	}
	x.faults.success(killServer, server.number, begun, now)
	if method != http.MethodGet {
		x.faults.success(killPostgres, 0, begun, now)
	}
	return tried{r, true, true}
}

// tried is what came of a request.
type tried struct {
	reply    reply
	sent, ok bool // it has reached a server, and was answered for good
}

// insist sends a request with an Idempotency-Key to one server after the other,
// now and then to two at once, until it is answered, and sometimes once more: then
// the answer must be the same.
func (x *chaos) insist(ctx context.Context, who identity, method, path string, body []byte) (out tried) {
	key := rand.Text()
	var given answered
	for n := range chaosAgain {
		several := make([]tried, 1)
		if n == 0 && chance(20) {
			several = make([]tried, 2)
		}
		var asking sync.WaitGroup
		for i := range several {
			asking.Go(func() { several[i] = x.try(ctx, who, method, path, body, key) })
		}
		asking.Wait()
		answered := false
		for i := range several {
			if n+i > 0 {
				x.history.count(countRepeated)
			}
			one := &several[i]
			out.sent, answered = out.sent || one.sent, answered || one.ok
			switch {
			case !one.ok:
				continue
			case !out.ok:
				out.reply, out.ok = one.reply, true
			}
			if !x.history.same(&given, &one.reply) {
				x.violated("%s %s with the Idempotency-Key %s was answered %d %.300s and then %d %.300s",
					method, path, key, given.status, given.first, one.reply.status, one.reply.body)
			}
		}
		if answered && !chance(30) {
			break
		}
		if !answered {
			pause(ctx, time.Duration(n+1)*50*time.Millisecond)
		}
	}
	return out
}

// redeeming has users redeem and admins issue and change codes until ctx ends.
// Requests that have been sent are waited for.
func (x *chaos) redeeming(ctx context.Context) {
	always := context.WithoutCancel(ctx)
	keys := make(chan *codeHistory, 2*chaosBatch*chaosTries)
	var working sync.WaitGroup
	for i := range chaosAdmins {
		working.Go(func() {
			for n := 0; !over(ctx); n++ {
				x.administer(ctx, always, i, n, keys)
			}
		})
	}
	for i, u := range x.cluster.users {
		working.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case c := <-keys:
					x.redeem(ctx, always, i, u, c)
				}
				if chance(2) {
					x.guess(always, u)
				}
				pause(ctx, mathrand.N(thinkMost)) //nolint:gosec // G404: no secret
			}
		})
	}
	working.Wait()
}

// redeem redeems a code, or tries to.
func (x *chaos) redeem(ctx, always context.Context, client int, u identity, c *codeHistory) {
	body := []byte(`{"key":"` + c.key + `"}`)
	const path = "/api/user/topup"
	if chance(30) {
		// All of its requests are one: it takes effect once, and is answered once.
		call := x.history.now()
		if t := x.insist(always, u, http.MethodPost, path, body); t.sent {
			x.redeemed(c, attempt{deed: deedRedeem, client: client, user: u.id, call: call}, &t)
		}
		return
	}
	for n := range chaosAgain {
		call := x.history.now()
		t := x.try(always, u, http.MethodPost, path, body, "")
		if t.sent {
			x.redeemed(c, attempt{deed: deedRedeem, client: client, user: u.id, call: call}, &t)
		}
		if t.ok || chance(20) {
			return
		}
		pause(ctx, time.Duration(n+1)*20*time.Millisecond)
	}
}

// redeemed notes what was answered to a redeem.
func (x *chaos) redeemed(c *codeHistory, a attempt, t *tried) {
	a.back = x.history.now()
	r := &t.reply
	switch {
	case !t.ok:
		a.back = forever
	case r.success:
		a.outcome = outcomeDone
		if err := json.Unmarshal(r.data, &a.quota); err != nil {
			x.violated("a redeem was answered %.300s", r.body)
		}
		x.history.count(countRedeemed)
	default:
		a.outcome = outcomeOf(r)
		if a.outcome == outcomeUnknown {
			x.violated("a redeem of code %d was answered %d %.300s", c.id, r.status, r.body)
			a.back = forever
		}
		x.history.count(countRefused)
	}
	x.history.add(c, a)
}

func outcomeOf(r *reply) outcome {
	switch r.code {
	case "redemption_used", "redemption_used_unchanging":
		return outcomeUsed
	case "redemption_used_by_you":
		return outcomeUsedByYou
	case "redemption_disabled":
		return outcomeDisabled
	case "redemption_unknown", "redemption_not_found":
		return outcomeNoSuchCode
	}
	return outcomeUnknown
}

// guess tries a key that does not exist.
func (x *chaos) guess(always context.Context, u identity) {
	t := x.try(always, u, http.MethodPost, "/api/user/topup", []byte(`{"key":"`+rand.Text()+`"}`), "")
	if !t.ok {
		return
	}
	x.history.count(countGuessed)
	if t.reply.code != "redemption_unknown" {
		x.violated("a key that does not exist was answered %d %.300s", t.reply.status, t.reply.body)
	}
}

// administer does one thing that admins do.
func (x *chaos) administer(ctx, always context.Context, admin, n int, keys chan<- *codeHistory) {
	root := x.cluster.root
	if len(keys) < chaosBatch*chaosTries {
		codes := x.issue(ctx, always, admin, n)
		up := make([]*codeHistory, 0, chaosTries*len(codes))
		for range chaosTries {
			up = append(up, codes...)
		}
		shuffle(up[len(codes)/2:]) // some at once, and others much later
		for _, c := range up {
			select {
			case keys <- c:
			case <-ctx.Done():
				return
			}
			if chance(8) {
				x.change(always, chaosUsers+admin, up[mathrand.IntN(len(up))]) //nolint:gosec // G404: no secret
			}
		}
		return
	}
	paths := []string{
		"/api/redemption/?p=1&page_size=20", "/api/redemption/?p=3&status=1", "/api/redemption/search?keyword=batch",
		"/api/user/?p=1", "/api/v1/machines?limit=5",
	}
	if t := x.try(always, root, http.MethodGet, paths[n%len(paths)], nil, ""); t.ok {
		x.history.count(countLooked)
		if t.reply.status != http.StatusOK {
			x.violated("GET %s was answered %d %.300s", paths[n%len(paths)], t.reply.status, t.reply.body)
		}
	}
	pause(ctx, thinkMost)
}

// issue makes a batch and finds out the ids of its codes.
func (x *chaos) issue(ctx, always context.Context, admin, n int) (codes []*codeHistory) {
	x.history.mu.Lock()
	full := len(x.history.codes) >= chaosCodesMax
	x.history.mu.Unlock()
	if full {
		<-ctx.Done()
		return nil
	}
	root := x.cluster.root
	name, quota := fmt.Sprintf("batch %d-%d", admin, n), int64(1+n%100)
	body := issueBody(name, chaosBatch, quota)
	var t tried
	if chance(50) {
		t = x.insist(always, root, http.MethodPost, "/api/redemption/", body)
	} else {
		t = x.try(always, root, http.MethodPost, "/api/redemption/", body, "")
	}
	if !t.ok {
		return nil
	}
	var keys []string
	if json.Unmarshal(t.reply.data, &keys) != nil || len(keys) != chaosBatch {
		x.violated("a batch was answered %d %.300s", t.reply.status, t.reply.body)
		return nil
	}
	x.history.count(countBatches)
	for !over(ctx) {
		t := x.try(always, root, http.MethodGet, "/api/redemption/search?page_size=100&keyword="+url.QueryEscape(name), nil, "")
		if !t.ok {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		x.history.count(countLooked)
		var page struct {
			Items []struct {
				ID   int64  `json:"id"`
				Name string `json:"name"`
				Key  string `json:"key"`
			} `json:"items"`
		}
		if err := json.Unmarshal(t.reply.data, &page); err != nil {
			x.violated("a search was answered %d %.300s", t.reply.status, t.reply.body)
			return nil
		}
		ids := map[string]int64{}
		for _, item := range page.Items {
			if item.Name == name {
				ids[item.Key] = item.ID
			}
		}
		if len(ids) != chaosBatch {
			x.violated("a batch of %d codes that was acknowledged as %q has %d codes", chaosBatch, name, len(ids))
		}
		for _, key := range keys {
			if ids[key] == 0 {
				x.violated("LOST: an acknowledged batch, %q, misses a code", name)
				return nil
			}
			codes = append(codes, &codeHistory{id: ids[key], quota: quota, key: key})
		}
		x.history.addCodes(codes)
		return codes
	}
	return nil
}

// change disables, enables or deletes a code.
func (x *chaos) change(always context.Context, client int, c *codeHistory) {
	a := attempt{deed: deedDisable, client: client, call: x.history.now()}
	method, path, counted := http.MethodPut, "/api/redemption/?status_only=true", countChanged
	body := fmt.Appendf(nil, `{"id":%d,"status":2}`, c.id)
	switch p := mathrand.IntN(100); { //nolint:gosec // G404: no secret
	case p < 45:
		a.deed, body = deedEnable, fmt.Appendf(nil, `{"id":%d,"status":1}`, c.id)
	case p < 55:
		a.deed, method, path, body, counted = deedDelete, http.MethodDelete, "/api/redemption/"+strconv.FormatInt(c.id, 10), nil, countDeleted
	}
	t := x.try(always, x.cluster.root, method, path, body, "")
	if !t.sent {
		return
	}
	a.back = x.history.now()
	switch r := &t.reply; {
	case !t.ok:
		a.back = forever
	case r.success:
		a.outcome = outcomeDone
		x.history.count(counted)
	default:
		if a.outcome = outcomeOf(r); a.outcome == outcomeUnknown {
			x.violated("%s of code %d was answered %d %.300s", method, c.id, r.status, r.body)
			a.back = forever
		}
	}
	x.history.add(c, a)
}
