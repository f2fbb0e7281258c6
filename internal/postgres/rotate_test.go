package postgres_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// TestRotateOnTwo has two servers rotate the keys beside redeems, alone and in
// groups, and issues on both: nothing is lost, and no key is forgotten.
func TestRotateOnTwo(t *testing.T) {
	f := newFixture(t)
	servers := []*fixture{f, f.through(f.url)}
	const workers = 3 // of each kind on each server
	var mu sync.Mutex
	issued, redeemed := map[string]bool{}, map[string]int64{}
	var wg, rotators sync.WaitGroup
	stop := make(chan struct{})
	turns := make(chan struct{}, 2*workers)
	done := f.ctx.Done()
	for i := range cap(turns) {
		on, by := servers[i%2], f.user(fmt.Sprint("u", i))
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				keys, err := on.codes.Issue(on.ctx, on.root, redemption.IssueRequest{Name: "n", Count: 4, Quota: 3})
				if err != nil {
					t.Errorf("issuing: %v", err)
					return
				}
				// One each is left for the other server's sort, and one for the end.
				other := servers[(i+1)%2]
				for k, do := range []func() error{
					func() error { return on.redeem(by, keys[0]) },
					func() error { return other.redeem(by, keys[1]) },
					func() error {
						return on.db.Keys().Use(on.ctx, func(ring *keyring.Ring) error {
							_, err := on.codes.Redeem(on.ctx, by, keys[2], on.once(ring, fmt.Sprint(i, "/", n)))
							return err
						})
					},
				} {
					if err := do(); err != nil {
						t.Errorf("redeeming: %v", err)
						return
					}
					mu.Lock()
					redeemed[keys[k]] = by.ID
					mu.Unlock()
				}
				mu.Lock()
				for _, key := range keys {
					issued[key] = true
				}
				mu.Unlock()
				select {
				case turns <- struct{}{}:
				default:
				}
			}
		})
	}
	for _, on := range servers {
		rotators.Go(func() {
			for range 4 {
				if err := on.db.Rotate(on.ctx, nil); err != nil {
					t.Errorf("rotating: %v", err)
				}
				// Keys that change faster than anybody can use them are of no use.
				for range cap(turns) {
					select {
					case <-turns:
					case <-done:
						return
					}
				}
			}
		})
	}
	rotators.Wait()
	close(stop)
	wg.Wait()

	balances := map[int64]int64{}
	for key, by := range redeemed {
		balances[by] += 3
		page, total, err := f.codes.Search(f.ctx, f.root, key, redemption.FilterUsed, 0, 1)
		f.check(err)
		if total != 1 || page[0].Key != key || page[0].UsedBy != by {
			t.Fatalf("LOST: a key that was redeemed finds %+v", page)
		}
	}
	for by, want := range balances {
		if n := f.balance(by); n != want {
			t.Errorf("account %d has %d, want %d", by, n, want)
		}
	}
	late := account.Actor{ID: slices.Min(slices.Collect(maps.Keys(balances))), Role: account.RoleUser}
	n := 0
	for key := range issued {
		if redeemed[key] == 0 {
			f.check(servers[n%2].redeem(late, key))
			n++
		}
	}
	ring, err := servers[1].db.Keys().Reload(f.ctx)
	f.check(err)
	if ring.Generations() != 1 {
		t.Errorf("%d generations are left", ring.Generations())
	}
	t.Logf("%d codes, generation %d", len(issued), ring.Newest())
	f.whole()
}

// moving has something happen while the counts of guesses are read, which is after a
// redeem's transaction has begun and before it looks for its code.
type moving struct {
	guess.Store

	move func()
}

func (m moving) Guesses(ctx context.Context, subjects [][]byte, since time.Time) ([]guess.Count, error) {
	m.move()
	return m.Store.Guesses(ctx, subjects, since)
}

// TestKeysMoveUnderARedeem: a code that is indexed anew between the beginning of a
// redeem and its look is found all the same, and nobody has guessed wrong.
func TestKeysMoveUnderARedeem(t *testing.T) {
	f := newFixture(t)
	by, key := f.user("alice"), f.issue(1, 5)[0]
	other := f.through(f.url)
	move := sync.OnceFunc(func() { f.check(other.db.Rotate(f.ctx, nil)) })
	guesses := guess.Shared("redeem", 1, time.Minute, f.clock.Now, moving{f.db, move})
	codes := redemption.NewService(f.db, f.db.Keys(), guesses, f.clock.Now)
	f.check(f.db.Keys().Use(f.ctx, func(ring *keyring.Ring) error {
		_, err := codes.Redeem(f.ctx, by, key, f.once(ring, "x")) // decided alone, since it is to be remembered
		return err
	}))
	if n := f.balance(by.ID); n != 5 {
		t.Errorf("the balance is %d", n)
	}
	if ring, err := f.db.Keys().Reload(f.ctx); err != nil || ring.Newest() != 2 || ring.Generations() != 1 {
		t.Errorf("generation %d, %v", ring.Newest(), err)
	}
	f.whole()
}
