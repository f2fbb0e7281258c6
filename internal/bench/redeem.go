package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// supply is codes to redeem, each given out once, in random order: people do
// not redeem in the order of issue.
type supply struct {
	make func(ctx context.Context, n int64, take func(key string)) error
	// rate is about how many are used up a second: never taken for less than
	// least, since it may have been measured while the machine was busy.
	rate, least float64

	keys []string
	next atomic.Int64
	// taken is how many redeems have succeeded.
	redeemed atomic.Int64
}

// ensure makes codes until there are enough for that long.
func (s *supply) ensure(ctx context.Context, d time.Duration) error {
	s.keys = s.keys[min(int(s.next.Load()), len(s.keys)):]
	s.next.Store(0)
	need := int64(s.rate*d.Seconds()*spare) + batchMax - int64(len(s.keys))
	if need <= 0 {
		return nil
	}
	if err := s.make(ctx, min(need, suppliedMax), func(key string) { s.keys = append(s.keys, key) }); err != nil {
		return err
	}
	shuffle(s.keys)
	return nil
}

const (
	// suppliedMax bounds how many codes are made at once.
	suppliedMax = 2_000_000
	// spare is how many times what the last turn used is made for the next.
	spare = 1.7
)

func shuffle[T any](all []T) {
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) //nolint:gosec // G404: no secret, an order
}

// take gives out the next key, if there is one.
func (s *supply) take() (key string, ok bool) {
	i := s.next.Add(1) - 1
	if i >= int64(len(s.keys)) {
		return "", false
	}
	return s.keys[i], true
}

// redeem redeems the next code; errNoMore if there is none.
func (s *supply) redeem(ctx context.Context, c *caller) error {
	key, ok := s.take()
	if !ok {
		return errNoMore
	}
	err := c.redeem(ctx, key, quota)
	if err == nil {
		s.redeemed.Add(1)
	}
	return err
}

// load is a phase in which the clients redeem.
func (s *supply) load(now func() time.Time, callers []*caller, before func(context.Context) error) phase {
	return func(ctx context.Context, d time.Duration) (*sample, error) {
		if err := s.ensure(ctx, d); err != nil {
			return nil, err
		}
		if err := before(ctx); err != nil {
			return nil, err
		}
		out := run(ctx, now, len(callers), d, func(ctx context.Context, client int) error {
			return s.redeem(ctx, callers[client])
		})
		s.rate = max(out.rate(), s.least)
		return out, failed(ctx, out)
	}
}

// failed is the error of a sample in which nothing worked.
func failed(ctx context.Context, s *sample) error {
	if s.hist.n == 0 && s.first != nil && ctx.Err() == nil {
		return s.first
	}
	return nil
}

func callersOf(t *target, who []identity, n int) []*caller {
	out := make([]*caller, n)
	for i := range out {
		out[i] = t.caller(who[i%len(who)])
	}
	return out
}

func closeAll(callers []*caller) {
	for _, c := range callers {
		c.close()
	}
}

// Rates that are assumed before the first measurement.
const (
	assumedRedeems = 10_000
	assumedRemote  = 2_500
	assumedIssues  = 500
)

// ready is a filled database with its server and, of SQLite, a connection beside it.
type ready struct {
	*database
	*server
	raw      *raw
	contents *contents
	purged   int64 // up to which id cleanUp has removed codes
}

// prepare fills a database and serves it.
func (s *settings) prepare(ctx context.Context, f filling) (_ *ready, err error) {
	r := &ready{}
	if r.database, err = s.newDatabase(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := r.addUsers(ctx, f.users); err != nil {
		return nil, err
	}
	f.sorted = f.codes >= sortedFrom
	if r.contents, err = r.fill(ctx, f, s.progress); err != nil {
		return nil, err
	}
	if err := r.addUp(ctx); err != nil {
		return nil, err
	}
	if r.address == "" {
		if r.raw, err = openRaw(ctx, r.path()); err != nil {
			return nil, err
		}
	}
	r.server, err = r.serve(ctx)
	return r, err
}

// settle is called before each measurement. PostgreSQL empties its write-ahead log
// while it serves.
func (r *ready) settle(ctx context.Context) error {
	if r.raw == nil {
		return nil
	}
	return r.raw.checkpoint(ctx)
}

func (r *ready) close() error {
	var err error
	if r.server != nil {
		err = r.stop()
	}
	if r.raw != nil {
		r.raw.close()
	}
	return errors.Join(err, r.Close())
}

func (r *ready) supply() *supply {
	return &supply{rate: assumedRedeems, least: assumedRedeems / 4, make: func(ctx context.Context, n int64, take func(string)) error {
		return r.fresh(ctx, n, r.contents.names, func(key string, _ redemption.NewKey) { take(key) })
	}}
}

// redeem measures redeems.
func (s *settings) redeem(ctx context.Context) error {
	if s.remote != nil {
		return s.redeemRemote(ctx)
	}
	r, err := s.prepare(ctx, filling{codes: s.codes, names: s.names, expired: 1, users: s.clients})
	if err != nil {
		return err
	}
	defer func() { s.closing(r.close()) }()
	switch {
	case s.ceiling && s.postgres != nil:
		return s.redeemPostgres(ctx, r)
	case s.ceiling:
		return s.redeemAgainstCeiling(ctx, r)
	}
	s.measuring("redeeming, %d clients, %s", s.clients, s.duration)
	codes, callers := r.supply(), callersOf(r.target, r.users, s.clients)
	defer closeAll(callers)
	kept, err := rounds(ctx, s.duration, codes.load(s.env.Now, callers, r.settle))
	s.report.add(result{Bench: s.title("redeem"), Kind: "over HTTP", Codes: s.codes, Clients: s.clients}, kept[0], 1)
	return errors.Join(err, r.checkBalances(ctx, codes))
}

// checkBalances compares what the accounts own with what was redeemed. After an
// interrupt some redeems have happened whose answers nobody waited for.
func (r *ready) checkBalances(ctx context.Context, from ...*supply) error {
	if over(ctx) {
		return nil
	}
	var want, got int64
	for _, s := range from {
		want += s.redeemed.Load() * quota
	}
	for _, u := range r.users {
		found, err := r.accounts.Get(ctx, account.Operator(), u.id)
		if err != nil {
			return err
		}
		got += found.Quota
	}
	if got != want {
		return fmt.Errorf("the accounts own %d together, and %d was credited to them", got, want)
	}
	return nil
}

// redeemAgainstCeiling measures redeems over HTTP, the same transactions
// straight through the driver, and the same handler over a store that answers
// at once; and one client alone, and one bare commit.
func (s *settings) redeemAgainstCeiling(ctx context.Context, r *ready) error {
	ceiling, err := s.newCeiling(ctx, r)
	if err != nil {
		return err
	}
	defer func() { s.closing(ceiling.close()) }()
	atOnce, err := serve(ctx, loopback, stores{accounts: newInstantAccounts(r.users), codes: instantCodes{}}, r.newMachines(), r.Keys(), r.limiter(), s.env.Now)
	if err != nil {
		return err
	}
	defer func() { s.closing(atOnce.stop()) }()

	codes, callers := r.supply(), callersOf(r.target, r.users, s.clients)
	defer closeAll(callers)
	instantCallers := callersOf(atOnce.target, r.users, s.clients)
	defer closeAll(instantCallers)
	lone, loneCodes := callers[:1], r.supply()
	loneCodes.rate = loneCodes.least

	overHTTP := codes.load(s.env.Now, callers, r.settle)
	var sizes []float64
	measured := func(ctx context.Context, d time.Duration) (*sample, error) {
		groups, redeems := r.groups.Load(), r.grouped.Load()
		out, err := overHTTP(ctx, d)
		if n := r.groups.Load() - groups; n > 0 {
			sizes = append(sizes, float64(r.grouped.Load()-redeems)/float64(n))
		}
		return out, err
	}
	size := func() int {
		if len(sizes) == 0 {
			return 1
		}
		return max(int(sizes[len(sizes)-1]+0.5), 1)
	}
	s.measuring("redeeming, %d clients, in turns with the ceilings, %s each", s.clients, s.duration)
	kept, err := rounds(ctx, s.duration,
		measured,
		ceiling.redeems(size, 2*assumedRedeems),
		s.instantRedeems(instantCallers),
		half(loneCodes.load(s.env.Now, lone, r.settle)),
		half(ceiling.redeems(func() int { return 1 }, assumedRemote)),
	)
	base := result{Bench: "redeem", Codes: s.codes, Clients: s.clients}
	for i, kind := range []string{
		"over HTTP", "bare driver, same groups", "over HTTP, store answers at once", "over HTTP, one client",
		"bare driver, one a commit",
	} {
		base.Kind = kind
		if base.Clients = 1; i == 0 || i == 2 {
			base.Clients = s.clients
		}
		s.report.add(base, kept[i], 1)
	}
	if err != nil {
		return err
	}
	if len(kept[4]) == 0 {
		return nil
	}
	s.report.note("redeem: the commits over HTTP held %.1f redeems on average, and those of the bare driver as many.",
		median(sizes))
	s.report.check(check{
		Bench: "redeem", Kind: redeemOfDriver, Value: paired(kept[0], kept[1], (*sample).rate), Bound: atLeast, Target: 0.5,
		Or: redeemOfInstant,
	})
	s.report.check(check{
		Bench: "redeem", Kind: redeemOfInstant, Value: paired(kept[0], kept[2], (*sample).rate), Bound: atLeast, Target: 0.8,
		Or: redeemOfDriver,
	})
	p50 := milliseconds(0.5)
	commit := medianOf(kept[4], p50)
	s.report.check(check{
		Bench: "redeem", Kind: fmt.Sprintf("one client's p50 (1.5 × bare commit of %s + 0.3 ms)", duration(commit)),
		Value: medianOf(kept[3], p50), Unit: "ms", Bound: atMost, Target: 1.5*commit + 0.3,
	})
	return r.checkBalances(ctx, codes, loneCodes)
}

const (
	redeemOfDriver  = "rate over HTTP / bare driver"
	redeemOfInstant = "rate over HTTP / same handler, store answers at once"
)

// half runs a phase for half the time.
func half(p phase) phase {
	return func(ctx context.Context, d time.Duration) (*sample, error) { return p(ctx, d/2) }
}

// instantRedeems redeems keys that nobody looks at.
func (s *settings) instantRedeems(callers []*caller) phase {
	keys := make([]string, len(callers))
	for i := range keys {
		keys[i] = account.NewToken() // of the length of a key
	}
	return func(ctx context.Context, d time.Duration) (*sample, error) {
		out := run(ctx, s.env.Now, len(callers), d, func(ctx context.Context, client int) error {
			return callers[client].redeem(ctx, keys[client], quota)
		})
		return out, failed(ctx, out)
	}
}

// ceiling is a database like the measured one, written to straight through the
// driver.
type ceiling struct {
	*database
	raw      *raw
	key      []byte // the ledger's
	contents *contents
}

func (s *settings) newCeiling(ctx context.Context, r *ready) (_ *ceiling, err error) {
	c := &ceiling{}
	if c.database, err = newDatabase(ctx, s.dir, s.env.Now); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if err := c.addUsers(ctx, len(r.users)); err != nil {
		return nil, err
	}
	f := filling{codes: r.contents.codes, names: r.contents.names, expired: 1}
	if c.contents, err = c.fill(ctx, f, s.progress); err != nil {
		return nil, err
	}
	ring, err := c.Keys().Reload(ctx)
	if err != nil {
		return nil, err
	}
	c.key = ring.LedgerKey()
	c.raw, err = openRaw(ctx, c.path())
	return c, err
}

func (c *ceiling) close() error {
	if c.raw != nil {
		c.raw.close()
	}
	return c.Close()
}

// redeems is a phase of bare transactions, each of as many redeems as size
// says. What they write has been computed before the clock starts.
func (c *ceiling) redeems(size func() int, assumed float64) phase {
	perSecond := assumed
	return func(ctx context.Context, d time.Duration) (*sample, error) {
		each := size()
		n := int64(perSecond*d.Seconds()*spare) + int64(each)
		codes := make([]redemption.NewKey, 0, n+batchMax)
		if err := c.fresh(ctx, n, c.contents.names, func(_ string, code redemption.NewKey) { codes = append(codes, code) }); err != nil {
			return nil, err
		}
		shuffle(codes)
		p, err := c.raw.planner(ctx, c.key)
		if err != nil {
			return nil, err
		}
		codes = codes[:len(codes)/each*each] // full groups only: they are counted as such
		plan, err := p.redeems(ctx, codes, c.users, each, c.now())
		if err != nil {
			return nil, err
		}
		out, err := c.run(ctx, d, plan)
		out.each = int64(each)
		perSecond = max(out.rate(), perSecond/2)
		return out, err
	}
}

// run commits the planned transactions for that long.
func (c *ceiling) run(ctx context.Context, d time.Duration, plan []transaction) (*sample, error) {
	if err := c.raw.checkpoint(ctx); err != nil {
		return &sample{}, err
	}
	next := 0
	runtime.GC() // of planning
	out := run(ctx, c.now, 1, d, func(ctx context.Context, _ int) error {
		if next == len(plan) {
			return errNoMore
		}
		next++
		return c.raw.commit(context.WithoutCancel(ctx), &plan[next-1])
	})
	out.ranOut = false // its rate is right all the same
	return out, out.first
}

// remote is a server that is running elsewhere.
type remote struct {
	target *target
	admin  identity
}

// check asks the server who is asking: it must be an admin.
func (r *remote) check(ctx context.Context) error {
	c := r.target.caller(r.admin)
	defer c.close()
	data, err := c.ask(ctx, "GET", "/api/user/self", nil)
	if err != nil {
		return fmt.Errorf("asking %s who the token belongs to: %w", r.target.host, err)
	}
	return mustBeAdmin(data)
}

func (s *settings) redeemRemote(ctx context.Context) error {
	name := s.remoteName()
	s.report.note("redeem: the codes were made on the server under the name %q, and those redeemed were credited to user %d.",
		name, s.remote.admin.id)
	codes := &supply{rate: assumedRemote, least: 1, make: func(ctx context.Context, n int64, take func(string)) error {
		return s.remote.fresh(ctx, name, n, take)
	}}
	callers := callersOf(s.remote.target, []identity{s.remote.admin}, s.clients)
	defer closeAll(callers)
	s.measuring("redeeming, %d clients, %s", s.clients, s.duration)
	kept, err := rounds(ctx, s.duration, codes.load(s.env.Now, callers, func(context.Context) error { return nil }))
	s.report.add(result{Bench: "redeem", Kind: "over HTTP", Clients: s.clients}, kept[0], 1)
	return err
}

// remoteName is the name of what is made on a server that is not ours.
func (s *settings) remoteName() string { return "bench " + s.env.Now().UTC().Format("0102 150405") }

// fresh makes n codes over HTTP, in full batches.
func (r *remote) fresh(ctx context.Context, name string, n int64, take func(key string)) error {
	const atOnce = 8
	var mu sync.Mutex
	var failed error
	left := (n + batchMax - 1) / batchMax
	more := func() bool {
		mu.Lock()
		defer mu.Unlock()
		left--
		return left >= 0 && failed == nil
	}
	body := issueBody(name, batchMax, quota)
	var wg sync.WaitGroup
	for range min(atOnce, left) {
		wg.Go(func() {
			c := r.target.caller(r.admin)
			defer c.close()
			for more() {
				keys, err := c.issue(ctx, body, batchMax)
				mu.Lock()
				if err != nil {
					failed = fmt.Errorf("making codes to redeem: %w", err)
				}
				for _, key := range keys {
					take(key)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}
