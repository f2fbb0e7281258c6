package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
)

// Benches that read pages.
const (
	benchList   = "list"
	benchSearch = "search"
	benchClean  = "clean-up"
)

// request is one kind of request for a page, and what its answer must hold.
type request struct {
	bench, kind string
	path        string
	items       int64  // on the page; -1: at least one
	total       int64  // on all pages; -1: not known
	single      bool   // the answer is one code, not a page
	html        string // the answer is a page for people, with this in it
}

// pagesOf are requests for the first, middle and last page of that size of a
// list of total codes.
func pagesOf(bench, kind, query string, total, size int64, which ...string) []request {
	path := "/api/redemption/?"
	if bench == benchSearch {
		path = "/api/redemption/search?"
	}
	if query != "" {
		path += query + "&"
	}
	pages := max((total+size-1)/size, 1)
	var out []request
	for _, w := range which {
		p := int64(1)
		switch w {
		case "middle":
			p = (pages + 1) / 2
		case "last":
			p = pages
		}
		out = append(out, request{
			bench: bench, kind: fmt.Sprintf("%s, %s page of %d", kind, w, size),
			path:  fmt.Sprintf("%sp=%d&page_size=%d", path, p, size),
			items: min(max(total-(p-1)*size, 0), size), total: total,
		})
	}
	return out
}

// listRequests are those for pages of the list.
func (c *contents) listRequests() []request {
	var out []request
	for _, size := range []int64{20, 100} {
		out = append(out, pagesOf(benchList, "all", "", c.codes, size, "first", "middle", "last")...)
	}
	for _, f := range []struct {
		kind, status string
		total        int64
	}{
		{"live", "1", c.live()},
		{"disabled", "2", c.disabled},
		{"used", "3", c.used},
		{"expired", "expired", c.expired},
	} {
		out = append(out, pagesOf(benchList, f.kind, "status="+f.status, f.total, 20, "first", "middle", "last")...)
	}
	return append(out, request{
		bench: benchList, kind: "one code, by id", path: fmt.Sprintf("/api/redemption/%d", c.id), single: true,
	})
}

// searchRequests are those for what a keyword finds.
func (c *contents) searchRequests() []request {
	find := func(word string) string { return "keyword=" + url.QueryEscape(word) }
	var out []request
	out = append(out, pagesOf(benchSearch, "a fragment of every name", find(everyName), c.codes, 20, "first", "middle", "last")...)
	out = append(out, pagesOf(benchSearch, "of a tenth of them", find(tenthName), c.ofTenth, 20, "first", "middle", "last")...)
	out = append(out, pagesOf(benchSearch, "one name", find(c.name), c.ofName, 20, "first", "middle", "last")...)
	out = append(out, pagesOf(benchSearch, "nothing", find(noName), 0, 20, "first")...)
	return append(
		out,
		// The digits of an id may stand in a name too.
		request{benchSearch, "an id", "/api/redemption/search?" + find(strconv.FormatInt(c.id, 10)), -1, -1, false, ""},
		request{benchSearch, "a key", "/api/redemption/search?" + find(c.key), 1, 1, false, ""},
	)
}

// verify checks an answer.
func (q *request) verify(status int, answer []byte) error {
	if q.html != "" {
		return q.verifyPage(status, answer)
	}
	data, err := open(status, answer)
	if err != nil {
		return err
	}
	if q.single {
		return nil
	}
	var page struct {
		Items []json.RawMessage `json:"items"`
		Total int64             `json:"total"`
	}
	if err := json.Unmarshal(data, &page); err != nil {
		return fmt.Errorf("not a page: %w", err)
	}
	n := int64(len(page.Items))
	if q.total >= 0 && page.Total != q.total {
		return fmt.Errorf("%s: total %d, expected %d", q.kind, page.Total, q.total)
	}
	if q.items >= 0 && n != q.items || q.items < 0 && n == 0 {
		return fmt.Errorf("%s: %d codes on the page, expected %d", q.kind, n, q.items)
	}
	return nil
}

// shelf is a server with codes, and the requests to be measured there.
type shelf struct {
	caller   func() *caller
	codes    int64
	requests []request
}

const (
	// leastAsked is how often each client asks for each kind of page, at least:
	// some are rare in a short time.
	leastAsked  = 3
	askedWithin = 2 * durationMax
)

// pages measures each kind of request on each of the shelves, which have the
// same kinds in the same order. The clients go round and round, and ask each
// shelf in turn before the next kind, so that a machine that gets slower does
// so for all of them. What is read is checked when the clock has stopped.
func (s *settings) pages(ctx context.Context, shelves ...shelf) error {
	kinds := len(shelves[0].requests)
	type client struct {
		callers []*caller
		samples []sample // by kind and shelf
		turn    int
		kept    int // of the turns, how many were measured
	}
	clients := make([]client, s.clients)
	for i := range clients {
		c := client{samples: make([]sample, kinds*len(shelves)), turn: i * kinds * len(shelves) / s.clients}
		for _, sh := range shelves {
			c.callers = append(c.callers, sh.caller())
		}
		defer closeAll(c.callers)
		clients[i] = c
	}
	ask := func(ctx context.Context, i int, keep bool) error {
		c := &clients[i]
		at := c.turn % len(c.samples)
		which := at % len(shelves)
		if round := c.turn / len(c.samples); round%2 == 1 { // the one that was second is first
			which = len(shelves) - 1 - which
		}
		c.turn++
		q := &shelves[which].requests[at/len(shelves)]
		begun := s.env.Now()
		status, answer, err := c.callers[which].call(ctx, "GET", q.path, nil)
		took := s.env.Now().Sub(begun)
		if err == nil {
			err = q.verify(status, answer)
		}
		out := &c.samples[at/len(shelves)*len(shelves)+which]
		switch {
		case ctx.Err() != nil || !keep && err == nil:
		case err != nil:
			out.errors++
			if out.first == nil {
				out.first = err
			}
		default:
			out.hist.add(took)
			out.elapsed += took
		}
		return err
	}
	s.measuring("asking for pages: %d kinds, %d databases, %d clients, %s", kinds, len(shelves), s.clients, s.duration)
	run(ctx, s.env.Now, s.clients, min(s.duration/10, roundTime), func(ctx context.Context, i int) error {
		return ask(ctx, i, false)
	})
	begun := s.env.Now()
	whole := run(ctx, s.env.Now, s.clients, askedWithin, func(ctx context.Context, i int) error {
		c := &clients[i]
		if c.kept >= leastAsked*len(c.samples) && s.env.Now().Sub(begun) >= s.duration {
			return errNoMore
		}
		c.kept++
		return ask(ctx, i, true)
	})

	samples := make([]sample, kinds*len(shelves))
	for _, c := range clients {
		for i := range c.samples {
			samples[i].merge(&c.samples[i])
		}
	}
	for k := range kinds {
		p50 := milliseconds(0.5)
		for w, sh := range shelves {
			q := &sh.requests[k]
			row := result{Bench: s.title(q.bench), Kind: q.kind, Codes: sh.codes, Clients: s.clients}
			if few := &samples[(k+1)*len(shelves)-1]; w == 0 && len(shelves) == 2 && few.hist.n > 0 {
				row.Ratio = p50(&samples[k*len(shelves)]) / p50(few)
			}
			s.report.add(row, []*sample{&samples[k*len(shelves)+w]}, 1)
		}
	}
	var benches []string
	for _, q := range shelves[0].requests {
		if !slices.Contains(benches, q.bench) {
			benches = append(benches, q.bench)
		}
	}
	s.checkFlat(benches...)
	return failed(ctx, whole)
}

// checkFlat holds, of each bench, the kind whose cost grew most against the target.
func (s *settings) checkFlat(benches ...string) {
	worst := map[string]*result{}
	for i := range s.report.Results {
		if r := &s.report.Results[i]; r.Ratio > 0 && (worst[r.Bench] == nil || r.Ratio > worst[r.Bench].Ratio) {
			worst[r.Bench] = r
		}
	}
	for _, bench := range benches {
		if r := worst[s.title(bench)]; r != nil {
			s.report.check(check{
				Bench: r.Bench,
				Kind:  fmt.Sprintf("p50 with %s codes / with %s, at worst (%s)", grouped(r.Codes), grouped(s.compare), r.Kind),
				Value: r.Ratio, Bound: atMost, Target: 2,
			})
		}
	}
}

// list and search measure their kinds of requests.
func (s *settings) list(ctx context.Context) error { return s.pagesOf(ctx, benchList) }

func (s *settings) search(ctx context.Context) error { return s.pagesOf(ctx, benchSearch) }

func (s *settings) pagesOf(ctx context.Context, benches ...string) error {
	if s.remote != nil {
		return s.pagesRemote(ctx, benches)
	}
	r, err := s.prepare(ctx, filling{codes: s.codes, names: s.names, expired: 1})
	if err != nil {
		return err
	}
	defer func() { s.closing(r.close()) }()
	return s.pagesIn(ctx, r, benches...)
}

// pagesIn measures those benches in a database, beside a small one if one is to
// be compared with.
func (s *settings) pagesIn(ctx context.Context, r *ready, benches ...string) error {
	shelves := []shelf{r.shelf(benches)}
	if s.compare > 0 {
		small, err := s.prepare(ctx, filling{codes: s.compare, names: s.names, expired: 1})
		if err != nil {
			return err
		}
		defer func() { s.closing(small.close()) }()
		shelves = append(shelves, small.shelf(benches))
	}
	return s.pages(ctx, shelves...)
}

func (r *ready) shelf(benches []string) shelf {
	sh := shelf{caller: func() *caller { return r.target.caller(r.root) }, codes: r.contents.codes}
	for _, b := range benches {
		if b == benchList {
			sh.requests = append(sh.requests, r.contents.listRequests()...)
		} else {
			sh.requests = append(sh.requests, r.contents.searchRequests()...)
		}
	}
	return sh
}

// pagesRemote measures pages of what a server holds, and searches for a batch
// that it makes there.
func (s *settings) pagesRemote(ctx context.Context, benches []string) error {
	c := s.remote.target.caller(s.remote.admin)
	defer c.close()
	name := s.remoteName()
	keys, err := c.issue(ctx, issueBody(name, batchMax, quota), batchMax)
	if err != nil {
		return fmt.Errorf("making codes to look for: %w", err)
	}
	s.report.note("%s: %d codes were made on the server under the name %q.", benches[0], batchMax, name)
	sh := shelf{caller: func() *caller { return s.remote.target.caller(s.remote.admin) }}
	add := func(bench, kind, query string, which ...string) error {
		// How many there are is asked first; others may use the server, so that
		// later answers are not held to it.
		q := pagesOf(bench, kind, query, 0, 20, "first")[0]
		data, err := c.ask(ctx, "GET", q.path, nil)
		if err != nil {
			return err
		}
		var page struct {
			Total int64 `json:"total"`
		}
		if err := json.Unmarshal(data, &page); err != nil {
			return err
		}
		if kind == "all" {
			sh.codes = page.Total
		}
		for _, q := range pagesOf(bench, kind, query, page.Total, 20, which...) {
			q.total = -1
			if q.items > 0 {
				q.items = -1
			}
			sh.requests = append(sh.requests, q)
		}
		return nil
	}
	for _, b := range benches {
		if b == benchList {
			err = errors.Join(
				add(b, "all", "", "first", "middle", "last"),
				add(b, "live", "status=1", "first", "middle"),
				add(b, "disabled", "status=2", "first"),
				add(b, "used", "status=3", "first"),
				add(b, "expired", "status=expired", "first"),
			)
		} else {
			find := func(word string) string { return "keyword=" + url.QueryEscape(word) }
			err = errors.Join(
				add(b, "a fragment of few names", find("bench"), "first"),
				add(b, "one name", find(name), "first", "last"),
				add(b, "nothing", find(keys[0][:16]), "first"),
				add(b, "a key", find(keys[0]), "first"),
			)
		}
		if err != nil {
			return err
		}
	}
	return s.pages(ctx, sh)
}
