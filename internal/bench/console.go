package bench

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/figures"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
)

const (
	benchConsole = "console"
	benchLive    = "live"
)

type consoleCommand struct {
	common
	where

	Codes   int64 `default:"100000" help:"How many codes are in the database; up to 10000000."`
	Compare int64 `default:"10000" placeholder:"N" help:"Ask a second database with N codes too, in turns, and print how much longer each page takes in the first; 0: none."`
	Clients int   `default:"64" help:"How many redeem at once while the overview is looked at."`
}

// Run measures the console.
func (c *consoleCommand) Run(ctx context.Context, env *Env) error {
	s := settings{codes: c.Codes, clients: c.Clients, compare: c.Compare, where: c.where}
	return c.run(ctx, env, &s, nil, s.console)
}

// console measures every page, and then redeems while the overview is looked at.
func (s *settings) console(ctx context.Context) error {
	r, err := s.prepare(ctx, filling{codes: s.codes, names: s.names, expired: 1})
	if err != nil {
		return err
	}
	err = s.consoleIn(ctx, r)
	s.closing(r.close())
	if err != nil || over(ctx) {
		return err
	}
	return s.apart(ctx, (*settings).live, func(c *settings) { c.codes = min(s.codes, 10_000) })
}

// What a page may take, and by how much redeems may be slower while the overview
// is looked at.
const (
	pageWithin = 100 // ms
	viewers    = 100
	liveLeast  = 0.95
)

// consoleIn measures every page of the console of a database, beside those of a
// small one if one is to be compared with.
func (s *settings) consoleIn(ctx context.Context, r *ready) error {
	pages := func(r *ready) (shelf, error) {
		f, err := r.furnish(ctx, s.machinesShown(), s.progress)
		if err != nil {
			return shelf{}, err
		}
		return shelf{
			caller: func() *caller { return r.target.visit(f.visitor) }, codes: r.contents.codes, requests: f.pages(r),
		}, r.settle(ctx)
	}
	first, err := pages(r)
	if err != nil {
		return err
	}
	shelves := []shelf{first}
	if s.compare > 0 {
		small, err := s.prepare(ctx, filling{codes: s.compare, names: s.names, expired: 1})
		if err != nil {
			return err
		}
		defer func() { s.closing(small.close()) }()
		second, err := pages(small)
		if err != nil {
			return err
		}
		shelves = append(shelves, second)
	}
	alone := func(c *settings) { c.clients = 1 }
	if err := s.apart(ctx, func(c *settings, ctx context.Context) error { return c.pages(ctx, shelves...) }, alone); err != nil {
		return err
	}
	s.checkPages(r.contents.codes)
	return nil
}

// checkPages holds the slowest page against the target.
func (s *settings) checkPages(codes int64) {
	for _, q := range []struct {
		name string
		of   func(*result) float64
	}{
		{"p50", func(r *result) float64 { return r.P50 }},
		{"p99", func(r *result) float64 { return r.P99 }},
	} {
		var worst *result
		for i := range s.report.Results {
			x := &s.report.Results[i]
			if x.Bench == s.title(benchConsole) && x.Codes == codes && (worst == nil || q.of(x) > q.of(worst)) {
				worst = x
			}
		}
		if worst != nil {
			s.report.check(check{
				Bench: worst.Bench, Kind: fmt.Sprintf("%s of the slowest page with %s codes (%s)", q.name, grouped(codes), worst.Kind),
				Value: q.of(worst), Unit: "ms", Bound: atMost, Target: pageWithin,
			})
		}
	}
}

// machinesShown is how many machines there are beside the codes, as many in a
// database that is compared with.
func (s *settings) machinesShown() int { return int(min(max(s.codes/200, 1), 500)) }

// furniture is what else is in a database whose console is looked at.
type furniture struct {
	visitor  visitor
	merchant fleet.Merchant
	machine  string // the busiest, with all that can be
	pickup   int64
	job      int64
}

const (
	// shownLive and shownEnded are the codes of the machine that is looked at; those
	// that have ended were withdrawn, and half of them used all the same.
	shownLive, shownEnded = 200, 40
	shownProducts         = 60
	historyDays           = 30
)

// furnish adds users, machines, pickup codes and a month's history, as a server in
// use has them.
func (d *database) furnish(ctx context.Context, n int, say *progress) (f furniture, err error) {
	if err := d.addUsers(ctx, n); err != nil {
		return f, err
	}
	var machines []credentials
	if f.merchant, machines, err = d.addMachines(ctx, n, say); err != nil {
		return f, err
	}
	f.machine = machines[0].no
	by := d.actor()
	things := fleet.NewService(d.engine, d.Keys(), nil, d.now, nil)
	for i := product + 1; i <= shownProducts; i++ {
		p := fleet.Product{ID: int64(i), Name: "bench", Slot: fmt.Sprint(i)}
		if _, err := things.CreateProduct(ctx, by, f.machine, p, nil); err != nil {
			return f, fmt.Errorf("making products: %w", err)
		}
	}
	if f.pickup, err = d.addPickups(ctx, machines); err != nil {
		return f, fmt.Errorf("making pickup codes: %w", err)
	}
	codes := redemption.NewService(d.engine, d.Keys(), nil, d.now)
	job, err := codes.StartIssue(ctx, by, redemption.IssueRequest{Name: nameOf(0), Count: batchMax, Quota: quota})
	if err == nil {
		_, err = codes.StopJob(ctx, by, job.ID)
	}
	if err != nil {
		return f, fmt.Errorf("beginning to make many codes: %w", err)
	}
	f.job = job.ID
	if _, f.visitor.session, err = d.accounts.LoginToken(ctx, d.root.token, by.Address); err != nil {
		return f, fmt.Errorf("signing in: %w", err)
	}
	if err := d.addUp(ctx); err != nil {
		return f, err
	}
	return f, d.addHistory(ctx)
}

// addPickups makes codes for the machines, most for the first, and returns the
// last of that.
func (d *database) addPickups(ctx context.Context, machines []credentials) (last int64, err error) {
	by := d.actor()
	use := pickup.NewService(d.engine, d.Keys(), d.now, nil)
	for i, m := range machines {
		n := 1
		if i == 0 {
			n = min(shownLive, len(machines)) + shownEnded
		}
		for k := range n {
			c, err := use.Create(ctx, by, pickup.Request{
				MachineNo: m.no, ProductID: product, Quantity: 1, TTL: pushTTL, AllowMore: true,
			})
			if err != nil {
				return 0, err
			}
			if i > 0 {
				continue
			}
			last = c.ID
			if k >= shownEnded {
				continue
			}
			if err := use.Withdraw(ctx, by, c.ID); err != nil {
				return 0, err
			}
			if k%2 == 0 {
				if _, err := use.Used(ctx, c.MachineID, c.ID, "", time.Time{}); err != nil {
					return 0, err
				}
			}
		}
	}
	return last, nil
}

// addUp adds up what an overview shows, as a server has done long before anybody
// looks at it.
func (d *database) addUp(ctx context.Context) error {
	f := figures.NewService(d.engine, d.now)
	if err := errors.Join(f.Fold(ctx), f.Recount(ctx)); err != nil {
		return fmt.Errorf("adding up what the overview shows: %w", err)
	}
	return nil
}

// addHistory puts in what a month adds up to: each kind of entry in each quarter of
// an hour, and who was online.
func (d *database) addHistory(ctx context.Context) error {
	beside, err := d.beside(ctx)
	if err != nil {
		return err
	}
	defer beside.close()
	now := d.now()
	var kinds []string
	for _, k := range []account.Kind{
		account.KindIssue, account.KindRedeem, account.KindPickupCreate, account.KindPickupUse, account.KindPickupLateUse,
		account.KindPickupWithdraw, account.KindReveal, account.KindDisable, account.KindDelete, account.KindPurge,
	} {
		kinds = append(kinds, "('"+string(k)+"')")
	}
	times := func(of time.Duration, every time.Duration) string {
		last := now.UnixMilli() / every.Milliseconds()
		return fmt.Sprintf(`WITH RECURSIVE times (at) AS (SELECT CAST(%d AS BIGINT) UNION ALL SELECT at + 1 FROM times WHERE at < %d) `,
			last-int64(of/every), last)
	}
	return errors.Join(
		beside.exec(ctx, times(historyDays*24*time.Hour, figures.Quarter)+
			`INSERT INTO activity (quarter, kind, entries, count, billions, units)
			SELECT at, column1, 100, 100, 0, 50000 FROM times CROSS JOIN (VALUES `+strings.Join(kinds, ", ")+`) AS kinds
			WHERE true ON CONFLICT DO NOTHING`),
		beside.exec(ctx, times(figures.OutstandingFor, figures.OutstandingEvery)+
			fmt.Sprintf(`INSERT INTO worth_history (at, billions, units)
			SELECT at * %d, 1, at FROM times WHERE true ON CONFLICT DO NOTHING`, figures.OutstandingEvery.Milliseconds())),
		beside.exec(ctx, times(figures.PresenceFor, figures.PresenceEvery)+
			fmt.Sprintf(`INSERT INTO presence_history (at, machines, online)
			SELECT at * %d, 500, 480 FROM times WHERE true ON CONFLICT DO NOTHING`, figures.PresenceEvery.Milliseconds())),
	)
}

// pages are all that can be looked at, and what narrows them down.
func (f *furniture) pages(r *ready) []request {
	c := r.contents
	root, some := "root", fmt.Sprintf("bench-%d", len(r.users))
	day := func(ago int) string { return r.now().UTC().AddDate(0, 0, -ago).Format(time.DateOnly) }
	machine := "/machines/" + f.machine
	const (
		page    = "</html>"
		code    = `href="/codes/`
		entries = "<time"
	)
	var list []request
	add := func(kind, path string, query []string, html string) {
		q := url.Values{}
		for i := 0; i+1 < len(query); i += 2 {
			q.Set(query[i], query[i+1])
		}
		if len(q) > 0 {
			path += "?" + q.Encode()
		}
		list = append(list, request{bench: benchConsole, kind: kind, path: path, html: html})
	}
	add("overview", "/", nil, "<svg")
	add("overview, by hours", "/", []string{"by", "hours"}, "<svg")

	add("codes", "/codes", nil, code)
	add("codes, middle", "/codes", []string{"at", fmt.Sprint(c.codes / 2)}, code)
	add("codes, last", "/codes", []string{"at", fmt.Sprint(c.codes - 1)}, code)
	add("codes, live", "/codes", []string{"status", "live"}, code)
	add("codes, live, middle", "/codes", []string{"status", "live", "at", fmt.Sprint(c.live() / 2)}, code)
	add("codes, disabled", "/codes", []string{"status", "disabled"}, page)
	add("codes, used, middle", "/codes", []string{"status", "used", "at", fmt.Sprint(c.used / 2)}, page)
	add("codes, expired", "/codes", []string{"status", "expired"}, page)
	add("codes, every name", "/codes", []string{"q", everyName}, code)
	add("codes, every name, middle", "/codes", []string{"q", everyName, "at", fmt.Sprint(c.codes / 2)}, code)
	add("codes, a tenth of names, used", "/codes", []string{"q", tenthName, "status", "used"}, page)
	add("codes, nothing found", "/codes", []string{"q", noName}, page)
	add("codes, a key", "/codes", []string{"q", c.key}, code)
	add("codes, a batch", "/codes", []string{"batch", c.name}, code)
	add("codes, a batch, live", "/codes", []string{"batch", c.name, "status", "live"}, code)
	add("codes, of days", "/codes", []string{"from", day(2), "to", day(0)}, code)
	add("codes, of days with none", "/codes", []string{"from", day(20), "to", day(10)}, page)
	add("codes, a batch, of days", "/codes", []string{"batch", c.name, "from", day(2), "to", day(0)}, page)
	add("codes, a tenth of names, of days", "/codes", []string{"q", tenthName, "from", day(2), "to", day(0)}, page)
	add("codes, by a user with many", "/codes", []string{"user", root}, page)
	add("codes, by a user with none", "/codes", []string{"user", some}, page)
	add("codes, by a user, a batch", "/codes", []string{"user", root, "batch", c.name}, page)
	add("codes, by a user, nothing found", "/codes", []string{"user", root, "q", noName}, page)
	add("codes, by a user, of days with none", "/codes", []string{"user", root, "from", day(20), "to", day(10)}, page)
	add("codes, new", "/codes/new", nil, page)
	add("code", fmt.Sprintf("/codes/%d", c.id), nil, page)
	add("batches", "/batches", nil, everyName)
	add("batches, a tenth of names", "/batches", []string{"q", tenthName}, page)
	add("batches, nothing found", "/batches", []string{"q", noName}, page)
	add("invalid codes", "/codes/invalid", nil, page)
	add("job", fmt.Sprintf("/jobs/%d", f.job), nil, page)

	add("machines", "/machines", nil, f.machine[:3])
	add("machines, found", "/machines", []string{"q", f.machine}, f.machine)
	add("machines, offline", "/machines", []string{"online", "no"}, page)
	add("machines, of a merchant", "/machines", []string{"merchant", fmt.Sprint(f.merchant.ID)}, page)
	add("machine, new", "/machines/new", nil, page)
	add("machine", machine, nil, f.machine)
	add("machine, make a code", machine+"/make", nil, page)
	add("machine, settings", machine+"/settings", nil, f.machine)
	add("machine, connection", machine+"/connection", nil, f.machine)
	add("machine, virtual", machine+"/virtual", nil, f.machine)
	add("late uses", "/late", nil, f.machine)

	add("users", "/users", nil, some)
	add("users, found", "/users", []string{"q", "bench"}, "bench-")
	add("users, of a role", "/users", []string{"role", "100"}, root)
	add("users, disabled", "/users", []string{"status", "2"}, page)
	add("user, new", "/users/new", nil, page)
	add("user with many", fmt.Sprintf("/users/%d", r.root.id), nil, entries)
	add("user", fmt.Sprintf("/users/%d", r.users[len(r.users)-1].id), nil, some)

	add("ledger", "/ledger", nil, entries)
	add("ledger, older", "/ledger", []string{"before", "1000"}, entries)
	add("ledger, of a code", "/ledger", []string{"code", fmt.Sprint(c.id)}, page)
	add("ledger, of a pickup code", "/ledger", []string{"pickup", fmt.Sprint(f.pickup)}, entries)
	add("ledger, of a machine", "/ledger", []string{"machine", f.machine}, entries)
	add("ledger, of a user with many", "/ledger", []string{"user", root}, entries)
	add("ledger, of a user", "/ledger", []string{"user", some}, page)
	add("ledger, of the command line", "/ledger", []string{"user", "0"}, entries)
	add("ledger, of days", "/ledger", []string{"from", day(2), "to", day(0)}, entries)
	add("ledger, of days with none", "/ledger", []string{"from", day(20), "to", day(10)}, page)
	add("ledger, of a user, days with none", "/ledger", []string{"user", root, "from", day(20), "to", day(10)}, page)
	add("ledger, of a machine and a user", "/ledger", []string{"machine", f.machine, "user", root}, entries)
	add("ledger, of a machine and another user", "/ledger", []string{"machine", f.machine, "user", some}, page)

	add("settings", "/settings", nil, page)
	add("merchant, new", "/settings/merchants/new", nil, page)
	add("merchant", fmt.Sprintf("/settings/merchants/%d", f.merchant.ID), nil, page)
	add("redeem", "/redeem", []string{"key", "ABCD-1234"}, page)
	add("account", "/account", nil, page)
	add("palette, an id", "/find", []string{"q", fmt.Sprint(c.id)}, code)
	add("palette, a key", "/find", []string{"q", c.key}, code)
	add("palette, a name", "/find", []string{"q", everyName}, everyName)
	return list
}

// verifyPage checks a page for people, which comes packed.
func (q *request) verifyPage(status int, answer []byte) error {
	if status != 200 {
		return fmt.Errorf("%s: HTTP %d for %s", q.kind, status, q.path)
	}
	if z, err := gzip.NewReader(bytes.NewReader(answer)); err == nil {
		if answer, err = io.ReadAll(io.LimitReader(z, answerMax)); err != nil {
			return fmt.Errorf("%s: unpacking the page: %w", q.kind, err)
		}
	}
	if !bytes.Contains(answer, []byte(q.html)) {
		return fmt.Errorf("%s: %s is without %q", q.kind, q.path, q.html)
	}
	return nil
}

// live measures redeems, in turns with the same while the overview is looked at by
// many, who are sent it anew whenever it changes.
func (s *settings) live(ctx context.Context) error {
	r, err := s.prepare(ctx, filling{codes: s.codes, names: s.names, expired: 1, users: s.clients})
	if err != nil {
		return err
	}
	defer func() { s.closing(r.close()) }()
	before := len(r.users)
	f, err := r.furnish(ctx, s.machinesShown(), s.progress)
	if err != nil {
		return err
	}
	codes, callers := r.supply(), callersOf(r.target, r.users[:before], s.clients)
	defer closeAll(callers)
	var sent int64
	var looked float64
	alone := half(codes.load(s.env.Now, callers, r.settle))
	seen := half(codes.load(s.env.Now, callers, r.settle))
	watched := func(ctx context.Context, d time.Duration) (*sample, error) {
		a, err := r.target.look(ctx, f.visitor, viewers)
		if err != nil {
			return nil, fmt.Errorf("looking at the overview: %w", err)
		}
		out, err := seen(ctx, d)
		n, lost := a.end()
		if out != nil {
			sent, looked = sent+n, looked+out.elapsed.Seconds()
		}
		return out, errors.Join(err, lost)
	}
	s.measuring("redeeming, %d clients, in turns with the same while %d look at the overview, %s each", s.clients, viewers, s.duration)
	// Each is once the first of two: what is only later in the day does not count.
	kept, err := rounds(ctx, s.duration, alone, watched, watched, alone)
	without, with := append(kept[0], kept[3]...), append(kept[1], kept[2]...)
	base := result{Bench: s.title(benchLive), Codes: s.codes, Clients: s.clients}
	base.Kind = "redeem over HTTP, nobody looks"
	s.report.add(base, without, 1)
	base.Kind = fmt.Sprintf("redeem over HTTP, %d look at the overview", viewers)
	s.report.add(base, with, 1)
	if err != nil || over(ctx) {
		return err
	}
	s.report.check(check{
		Bench: s.title(benchLive), Kind: fmt.Sprintf("redeems a second while %d look / nobody does", viewers),
		Value: paired(with, without, (*sample).rate), Bound: atLeast, Target: liveLeast,
	})
	s.report.note("%s: each of those who looked was sent the overview %.1f times a second, while it changed.",
		s.title(benchLive), float64(sent)/viewers/max(looked, 0.001))
	return r.checkBalances(ctx, codes)
}

// audience looks at the overview.
type audience struct {
	callers []*caller
	wg      sync.WaitGroup
	ended   atomic.Bool

	sent atomic.Int64 // how often one of them was sent the overview
	lost atomic.Int64 // of them, before their time
}

// look has n look at the overview; each has been sent it once when it returns.
func (t *target) look(ctx context.Context, who visitor, n int) (a *audience, err error) {
	a = &audience{}
	defer func() {
		if err != nil {
			_, _ = a.end() // there is an error already
		}
	}()
	for range n {
		c := t.visit(who)
		a.callers = append(a.callers, c)
		if err := c.connect(ctx); err != nil {
			return nil, err
		}
		if err := c.conn.SetDeadline(t.now().Add(answerWithin)); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(c.conn, "GET "+t.prefix+"/overview/events"+c.head+"\r\n"); err != nil {
			return nil, err
		}
	}
	for _, c := range a.callers {
		if err := c.nextEvent(); err != nil {
			return nil, err
		}
		if err := c.conn.SetDeadline(time.Time{}); err != nil {
			return nil, err
		}
	}
	for _, c := range a.callers {
		a.wg.Go(func() {
			for {
				if err := c.nextEvent(); err != nil {
					if !a.ended.Load() {
						a.lost.Add(1)
					}
					return
				}
				a.sent.Add(1)
			}
		})
	}
	return a, nil
}

// nextEvent reads up to where an event begins.
func (c *caller) nextEvent() error {
	for {
		line, err := c.reader.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull): // a long line of the page
		case err != nil:
			return fmt.Errorf("reading the live events: %w", err)
		case bytes.HasPrefix(line, []byte("HTTP/1.1 ")) && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")):
			return fmt.Errorf("asking for live events was answered: %s", bytes.TrimSpace(line))
		case bytes.HasPrefix(line, []byte("event: ")):
			return nil
		}
	}
}

// end has them leave, and returns how often one of them was sent the overview.
func (a *audience) end() (sent int64, err error) {
	a.ended.Store(true)
	for _, c := range a.callers {
		if c.conn != nil {
			_ = c.conn.Close() // which ends its reading
		}
	}
	a.wg.Wait()
	closeAll(a.callers)
	if n := a.lost.Load(); n > 0 {
		err = fmt.Errorf("the live events of %d of those who looked at the overview ended by themselves", n)
	}
	return a.sent.Load(), err
}
