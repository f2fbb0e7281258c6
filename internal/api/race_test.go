package api

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// TestRace: 32 clients of 8 users race for each of many codes; each code pays
// out once.
func TestRace(t *testing.T) {
	w := newWorld(t, options{guesses: 20})
	const clients, users, codes, quota = 32, 8, 50, 7
	keys := w.issue(t, "race", codes, quota)
	members := make([]member, users)
	for i := range members {
		members[i] = w.newMember(t, fmt.Sprintf("user%d", i), account.RoleUser)
	}
	var mu sync.Mutex
	wins := map[string]int{}
	credited := map[int64]int64{}
	gather(t, clients, func(i int) (string, error) {
		me := members[i%users]
		for _, k := range keys {
			r, err := w.try(t, request{method: "POST", path: "/api/user/topup", as: me, body: `{"key":"` + k + `"}`, unchecked: true})
			if err != nil {
				return "", err
			}
			switch {
			case r.Success:
				mu.Lock()
				wins[k]++
				credited[me.id] += data[int64](t, r)
				mu.Unlock()
			case r.Code != refusal.RedemptionUsed && r.Code != refusal.RedemptionUsedByYou:
				return "", fmt.Errorf("refused: %s", r.text)
			}
		}
		return "", nil
	})
	for _, k := range keys {
		if wins[k] != 1 {
			t.Errorf("a code paid out %d times", wins[k])
		}
	}
	var sum int64
	for _, m := range members {
		sum += w.balance(t, m)
		if b := w.balance(t, m); b != credited[m.id] {
			t.Errorf("%s was told %d, has %d", m.name, credited[m.id], b)
		}
	}
	if sum != codes*quota {
		t.Errorf("%d credited, want %d", sum, codes*quota)
	}
	w.verify(t)
}

// TestRaceWithAdmins: admins edit, disable, enable and delete codes while users
// redeem them. A used code stays used and pays what its buyer was told.
func TestRaceWithAdmins(t *testing.T) {
	w := newWorld(t, options{})
	keys := w.issue(t, "contested", 60, 1000)
	ids := make([]int64, len(keys))
	for i, k := range keys {
		ids[i] = w.mustFind(t, k).ID
	}
	users := []member{w.alice, w.bob, w.admin, w.root}
	var mu sync.Mutex
	paid := map[string]int{}
	credited := map[int64]int64{}
	var wg sync.WaitGroup
	for i, me := range users {
		wg.Go(func() {
			order := rand.New(rand.NewPCG(1, uint64(i))).Perm(2 * len(keys)) //nolint:gosec // G404: an order, not a secret
			for _, n := range order {
				k := keys[n%len(keys)]
				r, err := w.try(t, request{method: "POST", path: "/api/user/topup", as: me, body: `{"key":"` + k + `"}`, unchecked: true})
				if err != nil {
					t.Error(err)
					return
				}
				if r.Success {
					mu.Lock()
					paid[k]++
					credited[me.id] += data[int64](t, r)
					mu.Unlock()
				}
			}
		})
	}
	for i := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(i))) //nolint:gosec // G404: as above
			for range 150 {
				id := ids[random.IntN(len(ids))]
				r := request{method: "PUT", path: "/api/redemption/", as: w.admin, unchecked: true}
				switch random.IntN(8) {
				case 0, 1:
					r.body = fmt.Sprintf(`{"id":%d,"quota":%d}`, id, 1+random.IntN(5000))
				case 2:
					r.body = fmt.Sprintf(`{"id":%d,"name":"edited","expired_time":%d}`, id, start+1000+random.IntN(50))
				case 3, 4:
					r.path, r.body = r.path+"?status_only=true", fmt.Sprintf(`{"id":%d,"status":2}`, id)
				case 5, 6:
					r.path, r.body = r.path+"?status_only=true", fmt.Sprintf(`{"id":%d,"status":1}`, id)
				case 7:
					r.method, r.path = "DELETE", fmt.Sprintf("/api/redemption/%d", id)
				}
				got, err := w.try(t, r)
				if err != nil {
					t.Error(err)
					return
				}
				if !got.Success && got.Code != refusal.RedemptionNotFound && got.Code != refusal.RedemptionUsedUnchanging {
					t.Errorf("%s %s: %s", r.method, r.body, got.text)
				}
			}
		})
	}
	wg.Wait()

	redeemed := 0
	for i, k := range keys {
		if paid[k] > 1 {
			t.Errorf("code %d paid out %d times", ids[i], paid[k])
		}
		redeemed += paid[k]
		if c, ok := w.find(t, k); ok && (c.Status == 3) != (paid[k] == 1) {
			t.Errorf("code %d paid out %d times and is %+v", c.ID, paid[k], c)
		}
	}
	if redeemed == 0 {
		t.Error("nothing was redeemed")
	}
	for _, m := range users {
		if b := w.balance(t, m); b != credited[m.id] {
			t.Errorf("%s was told %d, has %d", m.name, credited[m.id], b)
		}
	}
	w.verify(t)
}
