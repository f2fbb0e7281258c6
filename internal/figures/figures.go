// Package figures is what an overview shows: what codes are worth, what the ledger
// adds up to, who was online. Each is added up beside the work, so that to look at
// it costs the same however much there is. Imports: account, refusal and the
// standard library.
package figures

import (
	"context"
	"math/big"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const (
	// Quarter is the time by which activity is added up. It divides the time
	// differences of all zones.
	Quarter = 15 * time.Minute
	// ActivityMax bounds the time of which activity is asked for.
	ActivityMax = 400 * 24 * time.Hour
	// PresenceEvery is how often it is noted how many machines are online.
	PresenceEvery = 5 * time.Minute
	// PresenceFor is how long that is kept.
	PresenceFor = 8 * 24 * time.Hour
	// OutstandingEvery is how often it is noted what live codes are worth.
	OutstandingEvery = Quarter
	// OutstandingFor is how long that is kept.
	OutstandingFor = ActivityMax
	// WaitingMax bounds what a Summary counts of messages that wait.
	WaitingMax = 10_000

	// recountAfter is how long what codes are worth is relied upon: recountDoubted
	// for as long as that after it was found wrong.
	recountAfter   = 24 * time.Hour
	recountDoubted = time.Hour
	// recountRest is the least time between two recounts. If something speaks against
	// what is recorded again and again, it doubles, up to recountDoubted.
	recountRest = time.Minute
)

// Codes is how many redemption codes are in each state, as the clock has it.
type Codes struct{ Live, Disabled, Used, Expired int64 }

// Worth is what the codes in each state are worth together. A code counts as
// expired once a sweep has found it so: a moment later than in Codes.
type Worth struct{ Live, Disabled, Used, Expired *big.Int }

// Summary is how things stand now.
type Summary struct {
	Codes Codes
	// Worth is nil while it is not known: it is soon added up.
	Worth *Worth
	// Machines is how many there are, and Online how many of them are online.
	Machines, Online int64
	// Waiting is how many messages about pickup codes machines have not
	// acknowledged; WaitingMax: that many or more.
	Waiting int64
	// WaitingSince is since when the oldest of them waits; zero if there is none.
	WaitingSince time.Time
}

// Counted is how far what codes are worth can be relied upon.
type Counted struct {
	// At is when it was last added up; zero if never.
	At time.Time
	// Sound says that nothing speaks against it.
	Sound bool
	// Wrong is when it was last added up and what was recorded was found wrong, which
	// the first time always counts as; zero if never.
	Wrong time.Time
	// Vain is how often in a row something spoke against it when it was added up.
	Vain int64
}

// Activity is what the ledger's entries of one kind in a time add up to.
type Activity struct {
	From    time.Time // when it begins
	Kind    account.Kind
	Entries int64
	Count   int64 // codes
	// Amount is quota: of an entry of KindIssue that of all its codes.
	Amount *big.Int
}

// Presence is how many machines there were at a time, and were online.
type Presence struct {
	At               time.Time
	Machines, Online int64
}

// Outstanding is what live codes were worth together at a time.
type Outstanding struct {
	At    time.Time
	Worth *big.Int
}

// Store is what the use cases need of a database. All methods are safe for
// concurrent use, also by several servers at once.
type Store interface {
	// Summary is how things stand at now, from one state of the database.
	Summary(ctx context.Context, now time.Time) (Summary, error)
	// Activity lists what has been added up of those kinds in the quarters that begin
	// between each of the times and the next, oldest first, by kind. There is a kind or
	// more, and there are two times or more.
	Activity(ctx context.Context, kinds []account.Kind, times []time.Time) ([]Activity, error)
	// FoldActivity adds up a bounded number of entries more, each once, and reports
	// whether there may be others left.
	FoldActivity(ctx context.Context) (more bool, err error)
	// Presence lists what was noted in a time, oldest first.
	Presence(ctx context.Context, from, to time.Time) ([]Presence, error)
	// NotePresence notes at a time, once, how many machines are online at now, and
	// drops what was noted before another time.
	NotePresence(ctx context.Context, at, now, before time.Time) error
	// Outstanding lists what live codes were worth at each of the times, as it was noted
	// last by then, in their order. A time before anything was noted is left out.
	Outstanding(ctx context.Context, times []time.Time) ([]Outstanding, error)
	// NoteOutstanding notes at a time, once, what live codes are worth, if that is
	// known, and drops what was noted before another time.
	NoteOutstanding(ctx context.Context, at, before time.Time) error
	// WorthCounted is how far what codes are worth can be relied upon.
	WorthCounted(ctx context.Context) (Counted, error)
	// CountWorth adds up what all codes are worth and corrects what is recorded by
	// what it was wrong by; what is issued and redeemed meanwhile is in it. It reads
	// all codes, and goes on until ctx ends.
	CountWorth(ctx context.Context, now time.Time) error
}

// Service is the use cases of the figures.
type Service struct {
	store Store
	now   func() time.Time
}

// NewService returns the use cases over store.
func NewService(store Store, now func() time.Time) *Service { return &Service{store, now} }

// Summary is how things stand now, for an admin.
func (s *Service) Summary(ctx context.Context, by account.Actor) (Summary, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Summary{}, err
	}
	return s.store.Summary(ctx, s.now())
}

// Activity lists what the ledger's entries of those kinds add up to between each of the times, which are in
// order, and the next, oldest first and by kind, for an admin: a quarter of an hour
// belongs to where it begins, and the last few seconds are not there yet. It refuses
// with refusal.InvalidRequest if that is longer than ActivityMax.
func (s *Service) Activity(ctx context.Context, by account.Actor, kinds []account.Kind, times ...time.Time) ([]Activity, error) {
	if len(kinds) == 0 || len(times) < 2 {
		return nil, by.MustBe(account.RoleAdmin)
	}
	if err := check(by, times[0], times[len(times)-1]); err != nil {
		return nil, err
	}
	return s.store.Activity(ctx, kinds, times)
}

// Presence lists how many machines were online from one time on and before
// another, every PresenceEvery, oldest first, for an admin. A time at which no
// server was running is left out. It refuses as Activity does.
func (s *Service) Presence(ctx context.Context, by account.Actor, from, to time.Time) ([]Presence, error) {
	if err := check(by, from, to); err != nil {
		return nil, err
	}
	return s.store.Presence(ctx, from, to)
}

// Outstanding lists what live codes were worth together at each of the times, which
// are in order, for an admin: what was noted last by then, every OutstandingEvery. A
// time before anything was noted is left out. It refuses as Activity does.
func (s *Service) Outstanding(ctx context.Context, by account.Actor, times ...time.Time) ([]Outstanding, error) {
	if len(times) == 0 {
		return nil, by.MustBe(account.RoleAdmin)
	}
	if err := check(by, times[0], times[len(times)-1]); err != nil {
		return nil, err
	}
	return s.store.Outstanding(ctx, times)
}

func check(by account.Actor, from, to time.Time) error {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return err
	}
	if to.Sub(from) > ActivityMax {
		return refusal.New(refusal.InvalidRequest)
	}
	return nil
}

// Fold adds up the ledger's new entries until none is left, or ctx ends. Between
// steps it makes way for others.
func (s *Service) Fold(ctx context.Context) error {
	for more := true; more && ctx.Err() == nil; {
		var err error
		more, err = s.store.FoldActivity(ctx)
		if refusal.CodeOf(err) == refusal.TooBusy {
			return nil // another time will do
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// NotePresence notes how many machines are online, unless it has been noted for
// this PresenceEvery.
func (s *Service) NotePresence(ctx context.Context) error {
	now := s.now()
	at := now.Truncate(PresenceEvery)
	return s.store.NotePresence(ctx, at, now, at.Add(-PresenceFor))
}

// NoteOutstanding notes what live codes are worth, unless it has been noted for this
// OutstandingEvery or is not known.
func (s *Service) NoteOutstanding(ctx context.Context) error {
	at := s.now().Truncate(OutstandingEvery)
	return s.store.NoteOutstanding(ctx, at, at.Add(-OutstandingFor))
}

// Recount adds up what codes are worth if it is time to: the first time, once an
// hour for a day after it was wrong, then once a day, and soon after something has
// come up that speaks against what is recorded. A program of an older version that
// works beside this one may have it wrong without anything that speaks against it.
func (s *Service) Recount(ctx context.Context) error {
	c, err := s.store.WorthCounted(ctx)
	if err != nil {
		return err
	}
	now := s.now()
	rest := recountAfter
	switch {
	case !c.Sound:
		rest = min(recountRest<<min(c.Vain, 6), recountDoubted)
	case now.Sub(c.Wrong) < recountAfter:
		rest = recountDoubted
	}
	if since := now.Sub(c.At); since >= 0 && since < rest {
		return nil
	}
	return s.store.CountWorth(ctx, now)
}
