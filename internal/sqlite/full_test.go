package sqlite_test

import (
	"sync"
	"testing"

	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// TestFull lets the database grow no more: writes fail, whole and without
// harm, and work again when there is room.
func TestFull(t *testing.T) {
	f := newFixture(t, nil)
	user := f.user()
	var keys []string
	for range 20 {
		keys = append(keys, f.issue("n", 100, 3)...)
	}
	f.check(f.db.LimitPages(f.ctx, 0))

	var mu sync.Mutex
	acknowledged, failed := 0, 0
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := worker; i < len(keys); i += 4 {
				_, err := f.codes.Redeem(f.ctx, user, keys[i], nil)
				mu.Lock()
				switch {
				case err == nil:
					acknowledged++
				case refusal.CodeOf(err) == "":
					failed++
				default:
					t.Errorf("a redeem is refused: %v", err)
				}
				enough := failed >= 20
				mu.Unlock()
				if enough {
					return
				}
			}
		})
	}
	wg.Wait()
	if failed == 0 {
		t.Fatal("nothing failed: the database is not full")
	}
	for range 3 {
		if _, err := f.codes.Issue(f.ctx, f.root, issueRequest("new", 100)); err == nil || refusal.CodeOf(err) != "" {
			t.Fatalf("issuing: %v", err)
		}
		f.check(f.db.Idle(f.ctx))
	}
	same := func() {
		f.Helper()
		_, used, err := f.codes.List(f.ctx, f.root, redemption.FilterUsed, 0, 1)
		f.check(err)
		_, total, err := f.codes.List(f.ctx, f.root, redemption.FilterAll, 0, 1)
		f.check(err)
		u, err := f.accounts.Get(f.ctx, f.root, user.ID)
		f.check(err)
		if int(used) != acknowledged || u.Quota != 3*used || int(total) != len(keys) {
			t.Errorf("%d were acknowledged; %d of %d codes are used, the balance is %d", acknowledged, used, total, u.Quota)
		}
		f.whole()
	}
	same()

	f.check(f.db.LimitPages(f.ctx, 1<<30))
	for _, key := range keys {
		if _, err := f.codes.Redeem(f.ctx, user, key, nil); err == nil {
			acknowledged++
		} else if refusal.CodeOf(err) != refusal.RedemptionUsedByYou {
			t.Fatal(err)
		}
	}
	if acknowledged != len(keys) {
		t.Errorf("%d of %d were acknowledged in the end", acknowledged, len(keys))
	}
	same()
	f.issue("new", 100, 1)
	f.check(f.db.Close())
	f.open(nil)
	keys = append(keys, make([]string, 100)...)
	same()
}
