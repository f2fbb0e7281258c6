package postgres_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/postgres"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/rig"
)

// TestCrash crashes the server under redeems, of a group and alone, and issues.
// What was acknowledged is there, what was not is there at most if nobody knew, and
// each balance is the sum of its entries.
func TestCrash(t *testing.T) {
	t.Parallel()
	crashing, err := rig.StartPostgres(t.Context(), rig.PostgresOptions{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := crashing.Stop(); err != nil {
			t.Error(err)
		}
	})
	url, err := crashing.Create(t.Context(), "scrip", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	f := newFixtureAt(t, url)
	const workers, each, rounds = 8, 2000, 3
	var users []account.Actor
	for i := range workers {
		users = append(users, f.user(fmt.Sprint("u", i)))
	}
	var keys []string
	for len(keys) < workers*100 {
		keys = append(keys, f.issue(100, 1)...)
	}

	var wg sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[string]error{} // of each key that was tried
	stop := make(chan struct{})
	progress := make(chan struct{}, workers*each)
	for i, by := range users {
		wg.Go(func() {
			mine := keys[i*100 : i*100+100]
			for n := 0; n < each; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if n >= len(mine) {
					more, err := f.codes.Issue(f.ctx, f.root, redemption.IssueRequest{Name: "more", Count: 20, Quota: 1})
					if err != nil {
						n--
						continue
					}
					mine = append(mine, more...)
				}
				err := f.redeem(by, mine[n])
				mu.Lock()
				outcomes[mine[n]] = err
				mu.Unlock()
				if err == nil {
					progress <- struct{}{}
				}
			}
		})
	}
	for range rounds {
		for range 60 {
			select {
			case <-progress:
			case <-f.ctx.Done():
				t.Fatal("the redeems do not go on")
			}
		}
		if err := crashing.Restart(f.ctx); err != nil {
			t.Fatal(err)
		}
	}
	for range 60 {
		<-progress
	}
	close(stop)
	wg.Wait()

	after := f.through(url)
	acknowledged, unknown := 0, 0
	for key, err := range outcomes {
		page, total, search := after.codes.Search(f.ctx, f.root, key, redemption.FilterUsed, 0, 1)
		f.check(search)
		used := total == 1 && page[0].Key == key
		switch {
		case err == nil:
			if acknowledged++; !used {
				t.Errorf("LOST: a redeem that was acknowledged")
			}
		case refusal.CodeOf(err) != "":
			t.Errorf("a redeem was refused: %v", err)
		case strings.Contains(err.Error(), "nobody knows"):
			unknown++
		case used:
			t.Errorf("a redeem has taken effect that says %v", err)
		}
	}
	t.Logf("%d acknowledged, %d failed, of which nobody knows of %d", acknowledged, len(outcomes)-acknowledged, unknown)
	after.whole()
}
