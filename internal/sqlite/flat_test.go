package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const (
	// distinctNames is how many names the codes share.
	distinctNames = 1000
	// rare is how many codes are used, however many there are in all.
	rare = 50
)

// fill issues so many codes under distinctNames names, in rounds, so that those
// of one name lie far apart. A tenth of them expires, every hundredth is
// disabled, and rare of them are used. A round takes a second. It returns a key and
// the id of its code.
func (f *fixture) fill(codes, rounds int) (key string, id int64) {
	f.Helper()
	f.check(f.db.Careless(f.ctx))
	ring, err := f.db.Keys().Reload(f.ctx)
	f.check(err)
	batch := codes / distinctNames / rounds
	soon := f.clock.Now().Truncate(time.Second)
	issued := 0
	for range rounds {
		for name := range distinctNames {
			b := redemption.Batch{
				Epoch: ring.Epoch(), Creator: f.root, Name: fmt.Sprintf("name %03d", name), Quota: 1, Created: f.clock.Now(),
				Keys: make([]redemption.NewKey, batch),
			}
			if name%10 == 3 {
				b.Expires = soon
			}
			for i := range b.Keys {
				issued++
				text := account.NewToken()
				if issued == codes/3 {
					key, id = text, int64(issued)
				}
				indexes := ring.Indexes(text)
				b.Keys[i] = redemption.NewKey{
					Sealed: ring.Seal(append([]byte("redemption key "), indexes[0]...), []byte(text)), Indexes: indexes,
				}
			}
			f.check(f.db.Issue(f.ctx, b))
			f.clock.Add(time.Second / distinctNames)
		}
	}
	for at := int64(50); at <= int64(codes); at += 100 {
		_, err = f.codes.Change(f.ctx, f.root, at, disabling())
		f.check(err)
	}
	for i := range rare {
		v, err := f.codes.Get(f.ctx, f.root, int64(1+i*codes/rare))
		f.check(err)
		_, err = f.codes.Redeem(f.ctx, f.root, v.Key, nil)
		f.check(err)
	}
	f.clock.Add(time.Hour)
	f.check(f.codes.Sweep(f.ctx))
	f.exec(f.raw(), `PRAGMA wal_checkpoint(TRUNCATE)`)
	return key, id
}

// look is one way to look at the codes.
type look struct {
	name    string
	keyword string
	filter  redemption.Filter
	page    int64 // in hundredths of the way to the last

	more redemption.Search // without those two
}

// looks are all ways to look at codes that were made from start on, in so many
// rounds.
func looks(key string, id int64, start time.Time, rounds int) []look {
	length := time.Duration(rounds) * time.Second
	within := redemption.Search{From: start.Add(length / 4), To: start.Add(length * 3 / 4)}
	out := []look{
		{name: "by id", keyword: fmt.Sprint(id)},
		{name: "by key", keyword: key},
		{name: "one name", keyword: "name 012"},
		{name: "ten names", keyword: "name 01", page: 50},
		{name: "a third of the names", keyword: "4", page: 50},
		{name: "most names", keyword: "a", page: 99},
		{name: "no name", keyword: "zzz"},
		{name: "a batch", page: 50, more: redemption.Search{Batch: new("name 012")}},
		{name: "a batch, by part of its name", keyword: "12", more: redemption.Search{Batch: new("name 012")}},
		{name: "ten names in a time", keyword: "name 01", page: 50, more: redemption.Search{To: within.To}},
		{name: "a batch in a time", more: redemption.Search{Batch: new("name 400"), From: within.From, To: within.To}},
		{name: "used by somebody", more: redemption.Search{UsedBy: 1}},
	}
	for _, page := range []int64{0, 50, 100} {
		out = append(out, look{name: "list", page: page}, look{name: "all names", keyword: "name", page: page},
			look{name: "a time", page: page, more: within}, look{name: "expired in a time", filter: redemption.FilterExpired, page: page, more: within})
		for _, filter := range []redemption.Filter{
			redemption.FilterLive, redemption.FilterDisabled, redemption.FilterExpired,
		} {
			out = append(out, look{name: fmt.Sprint("filter ", filter), filter: filter, page: page})
		}
	}
	return out
}

// at is the offset of the page that l looks at.
func (f *fixture) at(l look) int64 {
	f.Helper()
	total := f.look(l, 0).Total
	if (total == 0) != (l.keyword == "zzz") {
		f.Errorf("%s finds %d", l.name, total)
	}
	return max(total-20, 0) * l.page / 100
}

func (f *fixture) look(l look, offset int64) redemption.Found {
	f.Helper()
	search := l.more
	search.Keyword, search.Filter = l.keyword, l.filter
	found, err := f.codes.Find(f.ctx, f.root, search, offset, 20)
	f.check(err)
	return found
}

// pages is how many pages of the database a look reads.
func (f *fixture) pages(l look, offset int64) int64 {
	f.Helper()
	return f.reads(func(f *fixture) error {
		f.look(l, offset)
		return nil
	})
}

// reads is how many pages of the database do reads the second time.
func (f *fixture) reads(do func(*fixture) error) int64 {
	f.Helper()
	f.check(do(f))
	before, err := f.db.PagesRead()
	f.check(err)
	f.check(do(f))
	after, err := f.db.PagesRead()
	f.check(err)
	return after - before
}

// TestFlat compares what a look at 200,000 codes costs with what one at 2,000
// costs: the pages read, which says it exactly, and the time, which says it
// roughly. Ten million are `scrip bench`'s to look at.
func TestFlat(t *testing.T) {
	small, large := newFixture(t, nil), newFixture(t, nil)
	start := small.clock.Now()
	smallKey, smallID := small.fill(2_000, 1)
	largeKey, largeID := large.fill(200_000, 2)
	t.Run("rare", func(t *testing.T) {
		// A page of what is rare lies in as many blocks as it has codes.
		f := large.in(t)
		l := look{filter: redemption.FilterUsed}
		if n := f.pages(l, 0); n > 150 {
			t.Errorf("%d pages were read for 20 of %d codes in 200,000", n, rare)
		}
	})
	t.Run("counts", func(t *testing.T) {
		for what, do := range map[string]func(f *fixture) error{
			"batches": func(f *fixture) error {
				_, _, err := f.codes.Batches(f.ctx, f.root, "4", 500, 20)
				return err
			},
			"invalid": func(f *fixture) error {
				_, err := f.codes.CountInvalid(f.ctx, f.root)
				return err
			},
			"what an account did in a time": func(f *fixture) error {
				_, err := f.accounts.Ledger(f.ctx, f.root, account.LedgerFilter{UserID: f.root.ID, To: start.Add(-time.Hour), Limit: 20})
				return err
			},
		} {
			few, many := small.in(t).reads(do), large.in(t).reads(do)
			if t.Logf("%s: %d and %d pages", what, few, many); many > 2*few+20 {
				t.Errorf("%s: %d pages were read of 200,000 codes, %d of 2,000", what, many, few)
			}
		}
	})
	largeLooks := looks(largeKey, largeID, start, 2)
	for i, l := range looks(smallKey, smallID, start, 1) {
		t.Run(fmt.Sprintf("%s at %d%%", l.name, l.page), func(t *testing.T) {
			sides := []struct {
				f      *fixture
				l      look
				offset int64
				pages  int64
				times  []time.Duration
			}{{f: small.in(t), l: l}, {f: large.in(t), l: largeLooks[i]}}
			for i := range sides {
				s := &sides[i]
				s.offset = s.f.at(s.l)
				s.pages = s.f.pages(s.l, s.offset)
			}
			// The trees are a level or two deeper, and a page of codes lies in more blocks.
			if n, most := sides[1].pages, 2*sides[0].pages+40; n > most {
				t.Errorf("%d pages were read of 200,000 codes, %d of 2,000: more than %d", n, sides[0].pages, most)
			}

			const rounds = 9
			for range rounds {
				for i := range sides {
					s := &sides[i]
					begun := time.Now() //nolint:forbidigo // it measures
					s.f.look(s.l, s.offset)
					s.times = append(s.times, time.Since(begun))
				}
			}
			a, b := median(sides[0].times), median(sides[1].times)
			t.Logf("%d and %d pages, %v and %v", sides[0].pages, sides[1].pages, a, b)
			if most := 2*a + noise; b > most {
				t.Errorf("it takes %v with 200,000 codes, %v with 2,000", b, a)
			}
		})
	}
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// TestPlans lets the engine prepare every statement that it has, and reads how
// SQLite will run each: none may walk the codes or the ledger from end to end.
func TestPlans(t *testing.T) {
	f := newFixture(t, nil)
	f.everything()
	texts := f.db.Statements()
	if len(texts) < 100 {
		t.Fatalf("it has prepared %d statements only", len(texts))
	}
	raw := f.raw()
	plain := regexp.MustCompile(`^\s*(BEGIN|COMMIT|ROLLBACK|PRAGMA)`)
	scan := regexp.MustCompile(`^SCAN (redemptions|redemption_counts|ledger|users|answers|sessions|links|r|u|s|l|` +
		`merchants|machines|products|pickup_codes|outbox|jobs|o|m|c)\b`)
	for _, text := range texts {
		if plain.MatchString(text) {
			continue
		}
		for _, step := range f.plan(raw, text) {
			if scan.MatchString(step) && !mayWalk(text) {
				t.Errorf("%q\nis run as %q", text, step)
			}
		}
	}
}

// mayWalk reports whether a statement may walk a table: because a LIMIT ends
// the walk, because it is an audit's, about who is root, or of a start.
func mayWalk(text string) bool {
	for _, allowed := range []string{
		`SELECT id FROM ledger WHERE true ORDER BY id DESC LIMIT `,
		`SELECT id, quota FROM users ORDER BY id`,
		`FROM users WHERE role >= ?`,
		`SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT `,
		`UPDATE machines SET presence = ? WHERE presence = ?`, // once, at the start
		`last_seen > ? THEN 1 END)`,                           // how many machines are online: there are not many
	} {
		if strings.Contains(text, allowed) {
			return true
		}
	}
	return false
}

func (f *fixture) plan(db *sql.DB, text string) (steps []string) {
	f.Helper()
	// As many arguments as it asks for, at least: names are counted once too often.
	for n := strings.Count(text, "?"); ; n++ {
		rows, err := db.QueryContext(f.ctx, `EXPLAIN QUERY PLAN `+text, make([]any, n)...)
		if err != nil && strings.Contains(err.Error(), "missing") && n < 1000 {
			continue
		}
		f.check(err)
		defer func() { f.check(rows.Close()) }()
		for rows.Next() {
			var id, parent, unused int64
			var detail string
			f.check(rows.Scan(&id, &parent, &unused, &detail))
			steps = append(steps, detail)
		}
		f.check(rows.Err())
		return steps
	}
}

// everything calls every method of the engine, in all the ways that lead to
// other statements.
func (f *fixture) everything() {
	f.Helper()
	ctx := f.ctx
	user := f.user()
	var keys []string
	for i := range 4 {
		keys = append(keys, f.issue(fmt.Sprint("name ", i), 100, 1)...)
	}
	second := f.clock.Now().Truncate(time.Second)
	_, err := f.codes.Issue(ctx, f.root, redemption.IssueRequest{Name: "soon", Count: 25, Quota: 1, Expires: second})
	f.check(err)
	f.check(f.db.Keys().Use(ctx, func(ring *keyring.Ring) error {
		once := &account.Once{At: f.clock.Now(), Epoch: ring.Epoch(), Answer: func(any) []byte {
			return ring.Seal(account.AnswerContext(account.Hash{}), nil)
		}}
		return f.accounts.Remember(ctx, once)
	}))
	for n := range 3 {
		_, err := f.codes.Redeem(ctx, user, keys[n], nil)
		f.check(err)
	}
	for _, key := range []string{keys[0], "unknown"} {
		if _, err := f.codes.Redeem(ctx, user, key, nil); refusal.CodeOf(err) == "" {
			f.Errorf("redeeming %q: %v", key, err)
		}
	}
	f.search()
	f.clock.Add(time.Hour)
	f.check(f.codes.Sweep(ctx))
	f.clock.Add(-time.Hour) // so that some were swept that are in time
	_, soon, err := f.codes.Search(ctx, f.root, "soon", redemption.FilterAll, 0, 1)
	if err != nil || soon != 25 {
		f.Fatalf("%d codes, %v", soon, err)
	}
	views, _, err := f.codes.Search(ctx, f.root, "soon", redemption.FilterAll, 0, 1)
	f.check(err)
	_, err = f.codes.Redeem(ctx, user, views[0].Key, nil)
	f.check(err)
	f.search()
	_, err = f.codes.Change(ctx, f.root, 5, redemption.Change{Name: new("other"), Status: new(redemption.StatusDisabled)})
	f.check(err)
	f.check(f.codes.Delete(ctx, f.root, 6))
	f.work()
	f.check(f.codes.Sweep(ctx))
	_, err = f.codes.DeleteInvalid(ctx, ctx, f.root)
	f.check(err)

	f.managed(user)
	m := f.vending()
	ctxRotate, cut := context.WithCancel(ctx)
	_ = f.db.Rotate(ctxRotate, func(int64, int64) { cut() })
	cut()
	f.search()
	f.issue("between", 30, 1)
	f.check(f.db.Rotate(ctx, nil))

	for _, about := range []account.LedgerFilter{{}, {CodeID: 3}, {PickupID: 2}, {MachineID: m.ID}} {
		for _, who := range []int64{0, -1, 1} {
			for _, from := range []time.Time{{}, second} {
				for _, to := range []time.Time{{}, second} {
					for _, before := range []int64{0, 9} {
						about.UserID, about.From, about.To, about.Before, about.Limit = who, from, to, before, 10
						_, err := f.accounts.Ledger(ctx, f.root, about)
						f.check(err)
					}
				}
			}
		}
	}
	f.whole()
	f.people(user)
}

// vending calls what is about machines, pickup codes and the outbox. What it
// returns is there, with a code, until it is deleted at the end.
func (f *fixture) vending() fleet.Machine {
	f.Helper()
	ctx, m := f.ctx, f.machine()
	_, err := f.fleet.ChangeMerchant(ctx, f.root, m.MerchantID, fleet.MerchantChange{Name: new("x")})
	f.check(err)
	_, err = f.fleet.ChangeMachine(ctx, f.root, m.No, fleet.MachineChange{Name: new("x")})
	f.check(err)
	_, err = f.fleet.CreateProduct(ctx, f.root, m.No, fleet.Product{Name: "next", Slot: "2"}, nil)
	f.check(err)
	_, err = f.fleet.ChangeProduct(ctx, f.root, m.No, 1, fleet.ProductChange{Name: new("x")})
	f.check(err)
	_, err = f.fleet.Merchants(ctx, f.root, 0, 10)
	f.check(err)
	_, err = f.fleet.Machines(ctx, f.root, 0, 10)
	f.check(err)
	_, err = f.fleet.Products(ctx, f.root, m.No, 0, 10)
	f.check(err)
	_, err = f.fleet.Login(ctx, m.No, machineKey, "203.0.113.9")
	f.check(err)
	_, err = f.fleet.OwnerOf(ctx, m.ID)
	f.check(err)
	f.check(f.db.Begin(ctx))
	f.check(f.db.See(ctx, []fleet.Sighting{{MachineID: m.ID, Presence: fleet.Heard, At: f.clock.Now()}}))

	var codes []pickup.Code
	for range 6 {
		codes = append(codes, f.pickup())
	}
	_, err = f.pickups.MessageOf(ctx, delivery.Item{MachineID: m.ID, Kind: delivery.KindCreate, CodeID: codes[0].ID})
	f.check(err)
	f.check(f.pickups.Withdraw(ctx, f.root, codes[0].ID))
	_, err = f.pickups.Used(ctx, m.ID, codes[1].ID, "203.0.113.9", time.Time{})
	f.check(err)
	for _, late := range []bool{false, true} {
		_, err = f.pickups.List(ctx, f.root, pickup.Query{MachineNo: m.No, Limit: 10, LateUse: late})
		f.check(err)
	}
	f.watched(m)
	f.summedUp()
	_, err = f.db.Since(ctx, 0, 10)
	f.check(err)
	_, err = f.db.Holding(ctx, m.ID, 0, 10)
	f.check(err)
	for _, all := range []bool{true, false} {
		_, err = f.db.Backlog(ctx, all)
		f.check(err)
	}
	waiting, err := f.db.Waiting(ctx, m.ID, 0, 10)
	f.check(err)
	f.check(f.db.Advance(ctx, []delivery.Progress{
		{ID: waiting[0].ID, Stage: delivery.Sent}, {ID: waiting[1].ID, Stage: delivery.Received},
	}))
	for _, d := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		f.clock.Add(d)
		f.check(f.pickups.Sweep(ctx))
	}
	f.check(f.fleet.RenewPassword(ctx, f.root, m.No, "new", nil))
	_, err = f.db.Newest(ctx)
	f.check(err)
	f.check(f.fleet.DeleteProduct(ctx, f.root, m.No, 1))
	f.check(f.fleet.DeleteMachine(ctx, f.root, m.No))
	return m
}

// managed looks for users, and at what is theirs, in every way.
func (f *fixture) managed(user account.Actor) {
	f.Helper()
	for _, role := range []account.Role{0, account.RoleUser, account.RoleAdmin} {
		for _, status := range []account.Status{0, account.StatusEnabled, account.StatusDisabled} {
			for _, prefix := range []string{"", "u", "1"} {
				for _, before := range []int64{0, 5} {
					_, err := f.accounts.Search(f.ctx, f.root, account.UserQuery{
						Prefix: prefix, Role: role, Status: status, Before: before, Limit: 10,
					})
					f.check(err)
				}
			}
		}
	}
	_, _, err := f.accounts.History(f.ctx, user, 0, 10)
	f.check(err)
	link, _, err := f.accounts.NewLink(f.ctx, f.root, user.ID)
	f.check(err)
	_, session, err := f.accounts.SetPasswordByLink(f.ctx, link, "correct horse", "192.0.2.1")
	f.check(err)
	f.check(f.accounts.EndSession(f.ctx, session))
	f.check(f.accounts.EndSessions(f.ctx, f.root, user.ID))
	_, err = f.codes.Reveal(f.ctx, f.root, []int64{1, 2, 9})
	f.check(err)
}

// watched looks at machines and pickup codes as people do.
func (f *fixture) watched(m fleet.Machine) {
	f.Helper()
	ctx := f.ctx
	for _, q := range []fleet.MachineQuery{{}, {Search: "x", Merchant: 1, Online: new(true)}, {Online: new(false)}} {
		q.Limit = 10
		_, err := f.fleet.Find(ctx, f.root, q)
		f.check(err)
	}
	for _, q := range []pickup.Query{{Live: true}, {Ended: f.clock.Now()}} {
		q.MachineNo, q.Limit = m.No, 10
		_, err := f.pickups.List(ctx, f.root, q)
		f.check(err)
	}
	_, err := f.pickups.Waiting(ctx, f.root, []int64{m.ID})
	f.check(err)
	_, err = f.pickups.Silent(ctx, f.root, 10)
	f.check(err)
	c := f.pickup()
	f.check(f.pickups.Withdraw(ctx, f.root, c.ID))
	_, err = f.pickups.Used(ctx, m.ID, c.ID, "203.0.113.9", time.Time{})
	f.check(err)
	_, _, err = f.pickups.LateUses(ctx, f.root, 0, 10)
	f.check(err)
	_, err = f.pickups.AcknowledgeLateOf(ctx, f.root, m.No)
	f.check(err)
}

// search looks for codes in every way.
func (f *fixture) search() {
	f.Helper()
	for _, keyword := range []string{"", "name", "name 1", "soon", "zzz", "1", strings.Repeat("0", 32)} {
		for filter := redemption.FilterAll; filter <= redemption.FilterExpired; filter++ {
			_, _, err := f.codes.Search(f.ctx, f.root, keyword, filter, 3, 20)
			f.check(err)
			for _, search := range []redemption.Search{
				{Batch: new("name 1"), From: f.clock.Now(), To: f.clock.Now()}, {UsedBy: 2}, {UsedBy: 2, Before: 100},
			} {
				search.Keyword, search.Filter = keyword, filter
				_, err = f.codes.Find(f.ctx, f.root, search, 3, 20)
				f.check(err)
			}
		}
	}
	_, _, err := f.codes.Batches(f.ctx, f.root, "n", 0, 20)
	f.check(err)
}

// work has many codes made and removed, and does what there is to do with a page of
// them.
func (f *fixture) work() {
	f.Helper()
	ctx := f.ctx
	j, err := f.codes.StartIssue(ctx, f.root, redemption.IssueRequest{Name: "many", Count: 250, Quota: 1})
	f.check(err)
	refused, err := f.codes.ChangeMany(ctx, f.root, []int64{j.Codes[0].First}, disabling())
	f.check(err)
	gone, err := f.codes.DeleteMany(ctx, f.root, []int64{j.Codes[0].First + 1})
	f.check(err)
	if len(refused)+len(gone) > 0 {
		f.Errorf("refused were %v and %v", refused, gone)
	}
	_, err = f.codes.StartPurge(ctx, f.root)
	f.check(err)
	f.check(f.codes.RunJobs(ctx))
	_, _, err = f.codes.JobCodes(ctx, f.root, j.ID, 0, 100)
	f.check(err)
	_, err = f.codes.StopJob(ctx, f.root, j.ID)
	f.check(err)
	_, err = f.codes.Job(ctx, f.root, j.ID)
	f.check(err)
	_, err = f.codes.Jobs(ctx, f.root, 10)
	f.check(err)
	ended, end := context.WithCancel(ctx)
	end()
	_ = f.codes.RunJobs(ended) // leaves them
}

// people calls what is about accounts.
func (f *fixture) people(user account.Actor) {
	f.Helper()
	ctx := f.ctx
	_, _, err := f.accounts.List(ctx, f.root, 0, 20)
	f.check(err)
	token, err := f.accounts.RenewToken(ctx, user, user.ID)
	f.check(err)
	_, err = f.accounts.Authenticate(ctx, account.Credentials{Token: token, UserID: user.ID})
	f.check(err)
	f.check(f.db.StartSession(ctx, account.NewSession{
		UserID: user.ID, Token: account.HashToken(token), Session: account.HashToken("session"), Ends: f.clock.Now().Add(time.Minute),
	}))
	_, err = f.accounts.Authenticate(ctx, account.Credentials{Session: "session", UserID: user.ID})
	f.check(err)
	f.check(f.accounts.SetStatus(ctx, f.root, user.ID, account.StatusDisabled))
	if err := f.accounts.SetStatus(ctx, account.Operator(), 1, account.StatusDisabled); refusal.CodeOf(err) != refusal.AccountLastRoot {
		f.Errorf("disabling the last root: %v", err)
	}
	if _, err := f.accounts.ByName(ctx, f.root, "nobody"); refusal.CodeOf(err) != refusal.AccountNotFound {
		f.Errorf("finding nobody: %v", err)
	}
	_, err = f.accounts.Recall(ctx, account.Hash{})
	f.check(err)
	f.clock.Add(48 * time.Hour)
	f.check(f.db.StartSession(ctx, account.NewSession{
		UserID: 1, Token: account.HashToken("the root token"), Session: account.HashToken("old"), Ends: f.clock.Now(),
	}))
	f.check(f.accounts.Forget(ctx))
	f.check(f.db.Ping(ctx))
}

// TestUnsweptFlat: codes that expire all at once cost a list little even before
// the sweep has reached the first of them.
func TestUnsweptFlat(t *testing.T) {
	pages := map[int]int64{}
	for _, codes := range []int{2_000, 60_000} {
		f := newFixture(t, nil)
		f.check(f.db.Careless(f.ctx))
		ring, err := f.db.Keys().Reload(f.ctx)
		f.check(err)
		for range codes / 1000 {
			b := redemption.Batch{
				Epoch: ring.Epoch(), Creator: f.root, Name: "campaign", Quota: 1, Created: f.clock.Now(),
				Expires: f.clock.Now().Truncate(time.Second), Keys: make([]redemption.NewKey, 1000),
			}
			for i := range b.Keys {
				text := account.NewToken()
				indexes := ring.Indexes(text)
				b.Keys[i] = redemption.NewKey{
					Sealed: ring.Seal(append([]byte("redemption key "), indexes[0]...), []byte(text)), Indexes: indexes,
				}
			}
			f.check(f.db.Issue(f.ctx, b))
		}
		f.clock.Add(time.Hour)
		if _, total, err := f.codes.List(f.ctx, f.root, redemption.FilterLive, 0, 20); err != nil || total != 0 {
			t.Errorf("of %d expired codes %d are live, %v", codes, total, err)
		}
		l := look{filter: redemption.FilterExpired, page: 50}
		offset := f.at(l)
		if page, total, err := f.codes.List(f.ctx, f.root, l.filter, offset, 20); err != nil || total != int64(codes) ||
			len(page) != 20 || page[0].ID != int64(codes)-offset {
			t.Errorf("the middle of %d expired codes has %d of %d, %v", codes, len(page), total, err)
		}
		pages[codes] = f.pages(l, offset)
	}
	if few, many := pages[2_000], pages[60_000]; many > 2*few+100 {
		t.Errorf("%d pages were read of 60,000 codes, %d of 2,000", many, few)
	}
}
