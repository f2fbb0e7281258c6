package redemption

import (
	"context"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/refusal"
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
	// ChangeMany applies e.Change to each of those codes that it can, as Change does,
	// and says why not to the others. e.ID is not looked at.
	ChangeMany(ctx context.Context, ids []int64, e Edit) (refused map[int64]refusal.Code, err error)
	// DeleteMany removes each of those codes that is there, and says which are not.
	DeleteMany(ctx context.Context, ids []int64, by account.Actor, at time.Time) (refused map[int64]refusal.Code, err error)
	// Reveal finds those of up to RevealMax codes that are there, in the order of
	// their ids, and writes into the ledger that their keys were shown. It refuses
	// with RedemptionNotFound if none is.
	Reveal(ctx context.Context, r Revelation) ([]Stored, error)

	// Forgive is that of account.Store.
	Forgive(ctx context.Context, f account.Forgiving) (account.User, error)

	// ListUsed finds a page of the codes that the account has redeemed and that pass
	// the query, by the ledger's entries behind before, the last one first. The
	// query's Offset is not looked at.
	ListUsed(ctx context.Context, q Query, by, before int64) (Used, error)
	// Batches finds the names that contain the fragment, with an id below before if
	// that is not 0, newest first. Next is before for the next page, 0 if there is
	// none.
	Batches(ctx context.Context, fragment string, before, limit int64, now time.Time) (batches []BatchCount, next int64, err error)
	// CountInvalid is how many codes are used, disabled or expired.
	CountInvalid(ctx context.Context, now time.Time) (int64, error)

	// Sweep is a step of moving codes that have passed their time at now between
	// the counts that List reads. It reports how many it moved; with none left
	// that is 0.
	Sweep(ctx context.Context, now time.Time) (int64, error)
	// Purge is a step of removing codes that are used, disabled, or expired and
	// swept. It begins behind the id after, and reports how many it removed and
	// where the next step begins; 0 when nothing is left.
	Purge(ctx context.Context, after int64, by account.Actor, at time.Time) (removed, next int64, err error)

	// StartIssue writes a job that makes codes, together with b, the first of them,
	// and returns it. It refuses with TooBusy if JobsMax are under way.
	StartIssue(ctx context.Context, j Job, b Batch) (Job, error)
	// StartPurge writes a job that removes invalid codes and counts them, and returns
	// it; or the one that is under way. It refuses with TooBusy if JobsMax are.
	StartPurge(ctx context.Context, j Job) (Job, error)
	// StepIssue makes b for a job and takes it over, if the job stands as s.Job says;
	// if not, it does nothing and says so. It refuses with Unauthenticated if whoever
	// has started the job may not do that any more.
	StepIssue(ctx context.Context, s Step, b Batch) (moved bool, err error)
	// StepPurge is StepIssue for a step of removing what is invalid and swept: before
	// the first one, Sweep has nothing left to move. The last one ends the job.
	StepPurge(ctx context.Context, s Step) (moved bool, err error)
	// EndJob puts a job that is under way into that state, and returns it as it is
	// then. It refuses with RedemptionJobNotFound.
	EndJob(ctx context.Context, id int64, state JobState, at time.Time) (Job, error)
	// LeaveJobs gives up the jobs of that holder.
	LeaveJobs(ctx context.Context, holder string) error
	// Job finds a job. It refuses with RedemptionJobNotFound.
	Job(ctx context.Context, id int64) (Job, error)
	// Jobs lists the newest jobs first.
	Jobs(ctx context.Context, limit int64) ([]Job, error)
	// JobsUnderWay lists the oldest first.
	JobsUnderWay(ctx context.Context) ([]Job, error)
	// JobCodes finds those of the job's next limit codes behind the id after that are
	// still there, the oldest first, and behind which id to go on; 0 when none is left. It
	// refuses with RedemptionJobNotFound.
	JobCodes(ctx context.Context, id, after, limit int64) (rows []Stored, next int64, err error)
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
	// Once is of Issue and StartIssue. By Issue its Answer is given nil: what to
	// answer is known before; by StartIssue the Job.
	Once *account.Once
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
	// Name keeps only codes that bear exactly that name, if not nil.
	Name *string
	// From and To keep only codes that were made at From or later and before To, if
	// not zero. Codes are in the order in which they were made but for those made at
	// nearly the same time, which may be taken for either.
	From, To time.Time
}

// Used is a page of the codes that an account has redeemed.
type Used struct {
	Rows  []Stored
	Total int64 // on all pages; -1 if that is not known
	Next  int64 // before for the next page, 0 if there is none
}

// BatchCount is a name and how many codes bear it, by what they are.
type BatchCount struct {
	ID                            int64 // a cursor
	Name                          string
	Live, Disabled, Used, Expired int64
}

// Edit is a Change to be made to one code.
type Edit struct {
	ID     int64
	Change Change
	By     account.Actor
	At     time.Time
}

// Revelation is codes whose keys are to be shown.
type Revelation struct {
	Epoch int64
	IDs   []int64 // in order, each once
	By    account.Actor
	At    time.Time
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
