package redemption

import (
	"context"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/keyring"
)

// Store is what the use cases need of a database. Each method is one
// transaction, but for those that say "step"; all are safe for concurrent use,
// and every success is durable. Those that are given an Epoch fail with
// keyring.ErrStale, having done nothing, when the database's keys have moved on.
// Those that are given a Once fail with an *account.Replay, having done nothing,
// when it has been answered before.
type Store interface {
	// Issue writes a batch, whole or not at all.
	Issue(ctx context.Context, b Batch) error
	// Redeem marks an enabled code used and credits its quota, in one
	// transaction with the ledger entry. Attempts that arrive together may share
	// a commit; the refusal of one touches no other. It refuses as Code.Refuse
	// does, with RedemptionUnknown and AccountBalanceFull, with Unauthenticated if
	// the account is no longer enabled, and as Attempt.Guesses does.
	Redeem(ctx context.Context, a Attempt) (credited int64, err error)
	// Get finds a code. It refuses with RedemptionNotFound.
	Get(ctx context.Context, id int64) (Stored, error)
	// List finds one page of codes, newest first, and how many there are on all
	// pages, from one consistent view.
	List(ctx context.Context, q Query) (rows []Stored, total int64, err error)
	// Change applies e.Change to the code as it stands in the transaction that
	// writes the result. It refuses with RedemptionNotFound and as Change.Apply.
	Change(ctx context.Context, e Edit) (Stored, error)
	// Delete removes a code. It refuses with RedemptionNotFound.
	Delete(ctx context.Context, id int64, by account.Actor, at time.Time) error

	// Sweep is a step of moving codes that have passed their time at now between
	// the counts that List reads. It reports how many it moved; with none left
	// that is 0.
	Sweep(ctx context.Context, now time.Time) (int64, error)
	// Purge is a step of removing codes that are used, disabled, or expired and
	// swept. It begins behind the id after, and reports how many it removed and
	// where the next step begins; 0 when nothing is left.
	Purge(ctx context.Context, after int64, by account.Actor, at time.Time) (removed, next int64, err error)
}

// Batch is codes to be issued together.
type Batch struct {
	Epoch   int64
	Creator account.Actor
	Name    string
	Quota   int64
	Created time.Time
	Expires time.Time // zero: never
	Keys    []NewKey
	Once    *account.Once // its Answer is given nil: what to answer is known before
}

// NewKey is the key of a code to be issued.
type NewKey struct {
	Sealed []byte
	// Indexes are its blind indexes under each live generation, newest first.
	// The first is stored; none may be taken.
	Indexes [][]byte
}

// Attempt is one attempt to redeem a key.
type Attempt struct {
	Epoch   int64
	Indexes [][]byte // under each live generation, newest first
	By      account.Actor
	At      time.Time
	// Guesses is asked to admit Guessers right before the key is looked up, and
	// its refusal is the attempt's. Right after a look-up that found nothing, a
	// failed guess of theirs is counted there. Of attempts that share a commit,
	// each is done before the next is admitted. Nil admits everything.
	Guesses  *guess.Limiter
	Guessers []string
	Once     *account.Once // its Answer is given the int64 credited
}

// Stored is a code as the database holds it.
type Stored struct {
	Code
	Index  []byte // blind index of the key: what Sealed is bound to
	Sealed []byte
}

// Filter chooses codes by what they are at the time of the query.
type Filter int

// The filters of a list.
const (
	FilterAll      Filter = iota
	FilterLive            // enabled and not expired: redeemable now
	FilterDisabled        //
	FilterUsed            //
	FilterExpired         // enabled but past their time
)

// Query chooses a page of codes. With Search unset, all codes that pass Filter.
type Query struct {
	Filter Filter
	Now    time.Time
	Offset int64
	Limit  int64
	// Search keeps only codes whose name contains Fragment (if not empty), whose
	// id is ID (if not 0), or whose key has one of Indexes.
	Search   bool
	Fragment string
	ID       int64
	Epoch    int64 // of Indexes; looked at only with them
	Indexes  [][]byte
}

// Edit is a Change to be made to one code.
type Edit struct {
	ID     int64
	Change Change
	By     account.Actor
	At     time.Time
}

// sealContext binds a sealed key to the row that its index stands in.
func sealContext(index []byte) []byte { return append([]byte("redemption key "), index...) }

// Reseal seals a stored key again under the ring's newest generation, with its
// index there. It is what a rotation does to each code.
func Reseal(r *keyring.Ring, index, sealed []byte) (newIndex, newSealed []byte, err error) {
	key, err := r.Open(sealContext(index), sealed)
	if err != nil {
		return nil, nil, err
	}
	newIndex = r.Index(string(key))
	return newIndex, r.Seal(sealContext(newIndex), key), nil
}
