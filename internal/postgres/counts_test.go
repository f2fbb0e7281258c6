package postgres_test

import (
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/redemption"
)

// TestSweepWaitsForFold has a sweep come while somebody else, who has not
// committed, is about to add changes to the counts that it goes by: it sees them
// all the same.
func TestSweepWaitsForFold(t *testing.T) {
	f := newFixture(t)
	folder, watch := f.raw(), f.raw()
	expires := f.clock.Now().Add(time.Hour).Truncate(time.Second)
	var issued int64
	f.eventually("changes were there before they were added", func() bool {
		_, err := f.codes.Issue(f.ctx, f.root, redemption.IssueRequest{Name: "n", Count: 1, Quota: 1, Expires: expires})
		f.check(err)
		issued++
		f.exec(folder, `BEGIN`)
		if f.number(folder, `SELECT count(*) FROM (SELECT id FROM redemption_changes FOR UPDATE) AS locked`) > 0 {
			return true
		}
		f.exec(folder, `ROLLBACK`)
		return false
	})
	f.clock.Add(2 * time.Hour)
	var moved int64
	end := begin(func() (err error) {
		moved, err = f.db.Sweep(f.ctx, f.clock.Now())
		return err
	})
	f.waiting(watch, 2) // it, and the engine's own work
	f.exec(folder, `COMMIT`)
	if err := end(); err != nil || moved != issued {
		t.Errorf("moved %d, %v, want %d", moved, err, issued)
	}
}
