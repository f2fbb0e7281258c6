package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

func raceTests() map[string]func(*world) {
	return map[string]func(*world){
		"ManyForEach": testRaceManyForEach,
		"Admins":      testRaceAdmins,
		"Everything":  testRaceEverything,
	}
}

// 32 clients go for each of many codes: each pays once, to one.
func testRaceManyForEach(w *world) {
	const clients, count, quota = 32, 60, 7
	codes := w.issue("race", count, quota, time.Time{})
	users := make([]account.Actor, clients)
	for i := range users {
		users[i] = w.user(fmt.Sprint("u", i), 0)
	}
	won := make([]atomic.Int64, count)
	var wins [clients]int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i, by := range users {
		wg.Go(func() {
			<-start
			for at := range codes {
				at := (at + i/8*7) % count // in step with some, against others
				_, err := w.codes.Redeem(w.ctx, by, codes[at].Key, nil)
				if w.allow(err, refusal.RedemptionUsed); err == nil {
					won[at].Add(1)
					wins[i]++
				}
			}
		})
	}
	close(start)
	wg.Wait()
	for i := range won {
		if n := won[i].Load(); n != 1 {
			w.Errorf("code %d was redeemed %d times", codes[i].ID, n)
		}
	}
	for i, by := range users {
		w.wantBalance(by.ID, wins[i]*quota)
	}
	w.audit()
}

// Admins edit, disable, enable and delete the codes that users redeem. The
// audit at the end follows every entry: had an edit written back a state that
// it read earlier, what comes after would not be possible.
func testRaceAdmins(w *world) {
	const codesN, admins, users, rounds = 40, 4, 8, 60
	codes := w.issue("race", codesN, 1, time.Time{})
	var wg sync.WaitGroup
	start := make(chan struct{})
	var credited [users]int64
	people := make([]account.Actor, users)
	for i := range people {
		people[i] = w.user(fmt.Sprint("u", i), 0)
	}
	var seed uint64
	for i, by := range people {
		seed++
		r := seeded(seed)
		wg.Go(func() {
			<-start
			for range rounds {
				n, err := w.codes.Redeem(w.ctx, by, codes[r.IntN(codesN)].Key, nil)
				w.allow(err, refusal.RedemptionUsed, refusal.RedemptionUsedByYou, refusal.RedemptionDisabled,
					refusal.RedemptionUnknown)
				credited[i] += n
			}
		})
	}
	for range admins {
		seed++
		r := seeded(seed)
		wg.Go(func() {
			<-start
			for range rounds {
				id := codes[r.IntN(codesN)].ID
				switch r.IntN(20) {
				case 0:
					w.allow(w.codes.Delete(w.ctx, w.root, id), refusal.RedemptionNotFound)
				default:
					_, err := w.codes.Change(w.ctx, w.root, id, randomChange(r))
					w.allow(err, refusal.RedemptionNotFound, refusal.RedemptionUsedUnchanging)
				}
			}
		})
	}
	close(start)
	wg.Wait()
	for i, by := range people {
		w.wantBalance(by.ID, credited[i])
	}
	w.audit()
}

func randomChange(r *rand.Rand) (ch redemption.Change) {
	switch r.IntN(4) {
	case 0:
		ch.Status = new(redemption.StatusDisabled)
	case 1, 2:
		ch.Status = new(redemption.StatusEnabled)
	}
	if r.IntN(3) == 0 {
		ch.Quota = new(1 + r.Int64N(3))
	}
	if r.IntN(3) == 0 {
		ch.Name = new(fmt.Sprint("name ", r.IntN(3)))
	}
	return ch
}

// seeded is a random source that is the same each time.
func seeded(seed uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // G404: it must be reproducible, not secret
}

// Issue, redeem, list, sweep and purge at once: no page is ever torn, and all
// agrees at the end.
func testRaceEverything(w *world) {
	const rounds = 12
	soon := w.clock.Now().Truncate(time.Second)
	user := w.user("u", 0)
	keys := make(chan string, 100*rounds)
	var issuing, others sync.WaitGroup
	for i := range 2 {
		issuing.Go(func() {
			for n := range rounds {
				got, err := w.codes.Issue(w.ctx, w.root, redemption.IssueRequest{
					Name: fmt.Sprint("n", i, n%3), Count: 30, Quota: 1, Expires: soon.Add(time.Duration(n%4) * time.Second),
				})
				if err != nil && refusal.CodeOf(err) != refusal.RedemptionExpiry {
					w.Error(err)
				}
				for _, key := range got {
					keys <- key
				}
				if i == 0 {
					w.clock.Add(400 * time.Millisecond)
				}
			}
		})
	}
	for range 3 {
		others.Go(func() {
			for key := range keys {
				_, err := w.codes.Redeem(w.ctx, user, key, nil)
				w.allow(err, refusal.RedemptionExpired, refusal.RedemptionUnknown)
			}
		})
	}
	stop := make(chan struct{})
	repeat := func(do func() error) {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := do(); err != nil {
					w.Error(err)
					return
				}
			}
		})
	}
	repeat(func() error { return w.codes.Sweep(w.ctx) })
	repeat(func() error {
		_, err := w.codes.DeleteInvalid(w.ctx, w.ctx, w.root)
		return err
	})
	for _, f := range allFilters() {
		repeat(func() error {
			page, total, err := w.codes.Search(w.ctx, w.root, "n", f, 3, 50)
			if want := min(max(total-3, 0), 50); err == nil && int64(len(page)) != want {
				return fmt.Errorf("filter %d: a page of %d of %d codes, want %d", f, len(page), total, want)
			}
			return err
		})
	}
	issuing.Wait()
	close(keys)
	close(stop)
	others.Wait()
	w.audit()
}
