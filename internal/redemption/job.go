package redemption

import (
	"context"
	"errors"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// Bounds of jobs.
const (
	JobCountMax = 10_000 // codes that one makes
	JobsMax     = 16     // under way at the same time
	// jobSilence is how long after its last step a job is taken over.
	jobSilence = 10 * time.Second
	// jobForgotten is how long after its last step a job that makes codes goes on no
	// more: nobody expects them any longer.
	jobForgotten = 24 * time.Hour
)

// JobKind is what a job does.
type JobKind string

// The kinds of job.
const (
	JobIssue JobKind = "issue" // makes codes
	JobPurge JobKind = "purge" // removes invalid codes
)

// JobState is what has become of a job.
type JobState int

// The states of a job.
const (
	JobUnderWay JobState = 1
	JobDone     JobState = 2
	JobStopped  JobState = 3 // by a person; what was done stays
	// JobFailed is that of one whose starter may not do that any more, and of one
	// whose codes would have expired, or that has stood still for more than a day.
	JobFailed JobState = 4
)

// Job is work on many codes that goes on by itself, in steps, on whichever server
// is there.
type Job struct {
	ID      int64
	Kind    JobKind
	By      account.Actor // who started it, without a role
	Name    string        // of the codes that are made
	Quota   int64         // of each
	Expires time.Time     // zero: never
	Total   int64         // codes to be made, or that were invalid at the start
	Done    int64         // codes made, or removed
	Codes   []Range       // that were made, in order
	State   JobState
	Started time.Time
	Updated time.Time // of the last step

	Place  int64  // behind which id a removal goes on
	Holder string // which server did the last step; empty: any may do the next
}

// Range is the ids from First to Last.
type Range struct{ First, Last int64 }

// Step is the next step of a job.
type Step struct {
	Job    Job // as it was read
	Holder string
	At     time.Time
}

// StartIssue begins to make up to JobCountMax codes, for an admin: the first
// CountMax of them are there when it returns, the others follow by themselves. It
// refuses as Issue does, and with RedemptionJobTooLarge and TooBusy.
func (s *Service) StartIssue(ctx context.Context, by account.Actor, r IssueRequest) (started Job, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Job{}, err
	}
	if r.Count > JobCountMax {
		return Job{}, refusal.New(refusal.RedemptionJobTooLarge)
	}
	now, count := s.now(), r.Count
	r.Count = min(r.Count, CountMax)
	name, err := s.checkIssue(&r, now)
	if err != nil {
		return Job{}, err
	}
	j := Job{Kind: JobIssue, By: by, Name: name, Quota: r.Quota, Expires: r.Expires, Total: count, Started: now, Updated: now}
	err = s.withBatch(ctx, &j, now, func(b Batch) (err error) {
		b.Once = r.Once
		started, err = s.store.StartIssue(ctx, j, b)
		return err
	})
	return started, err
}

// withBatch calls do with the job's next codes.
func (s *Service) withBatch(ctx context.Context, j *Job, at time.Time, do func(Batch) error) error {
	keys := newKeys(min(j.Total-j.Done, CountMax))
	return s.keys.Use(ctx, func(ring *keyring.Ring) error {
		b := batch(ring, keys)
		b.Creator, b.Name, b.Quota, b.Created, b.Expires = j.By, j.Name, j.Quota, at, j.Expires
		return do(b)
	})
}

// StartPurge begins to remove all codes that are used, disabled or expired, for
// an admin. If that is under way it returns that job. It refuses with TooBusy.
func (s *Service) StartPurge(ctx context.Context, by account.Actor) (Job, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Job{}, err
	}
	now := s.now()
	return s.store.StartPurge(ctx, Job{Kind: JobPurge, By: by, Started: now, Updated: now})
}

// CountInvalid is how many codes a removal would remove now, for an admin.
func (s *Service) CountInvalid(ctx context.Context, by account.Actor) (int64, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return 0, err
	}
	return s.store.CountInvalid(ctx, s.now())
}

// Job finds a job, for an admin. It refuses with RedemptionJobNotFound.
func (s *Service) Job(ctx context.Context, by account.Actor, id int64) (Job, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Job{}, err
	}
	return s.store.Job(ctx, id)
}

// Jobs lists the newest jobs first, for an admin.
func (s *Service) Jobs(ctx context.Context, by account.Actor, limit int64) ([]Job, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, err
	}
	return s.store.Jobs(ctx, limit)
}

// StopJob stops a job, for an admin: when it returns, no further code is made or
// removed by it. One that has ended is left as it is. It returns the job as it is
// then, and refuses with RedemptionJobNotFound.
func (s *Service) StopJob(ctx context.Context, by account.Actor, id int64) (Job, error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Job{}, err
	}
	return s.store.EndJob(ctx, id, JobStopped, s.now())
}

// JobCodes lists the codes that a job has made and that are still there, with
// their keys, for an admin: the oldest first, of the next limit ids behind after.
// Next is after for the next call, 0 when none is left. It refuses with
// RedemptionJobNotFound.
func (s *Service) JobCodes(
	ctx context.Context, by account.Actor, id, after, limit int64,
) (views []View, next int64, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, 0, err
	}
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		var rows []Stored
		if rows, next, err = s.store.JobCodes(ctx, id, after, limit); err != nil {
			return err
		}
		views, err = viewAll(ring, rows)
		return err
	})
	return views, next, err
}

// RunJobs does the steps of the jobs that are under way, in turn, until none is
// left that this server can do: those that another one is at it leaves alone,
// until that has been silent for jobSilence. Every server calls it now and then. A
// job with a step that fails is left for the next call. If ctx ends, others may go
// on at once.
func (s *Service) RunJobs(ctx context.Context) error {
	err := s.runJobs(ctx)
	if ctx.Err() != nil {
		err = errors.Join(err, s.store.LeaveJobs(context.WithoutCancel(ctx), s.holder))
	}
	return err
}

func (s *Service) runJobs(ctx context.Context) error {
	failed := map[int64]error{}
	for {
		jobs, err := s.store.JobsUnderWay(ctx)
		if err != nil {
			return err
		}
		worked := false
		for _, j := range jobs {
			if err := ctx.Err(); err != nil {
				return err
			}
			if failed[j.ID] != nil || !s.mayTake(&j) {
				continue
			}
			worked = true
			if err := s.step(ctx, &j); err != nil {
				failed[j.ID] = err
			}
		}
		if !worked {
			break
		}
	}
	var errs []error
	for _, err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// mayTake reports whether this server may do the job's next step. Clocks of
// servers differ, and are set back.
func (s *Service) mayTake(j *Job) bool {
	silent := s.now().Sub(j.Updated).Abs()
	return j.Holder == "" || j.Holder == s.holder || silent >= jobSilence
}

// step does the next step of a job. If somebody else does, it does nothing.
func (s *Service) step(ctx context.Context, j *Job) error {
	st := Step{Job: *j, Holder: s.holder, At: s.now()}
	var err error
	if j.Kind == JobIssue && (past(j.Expires, st.At) || st.At.Sub(j.Updated) > jobForgotten) {
		_, err = s.store.EndJob(ctx, j.ID, JobFailed, st.At)
		return err
	}
	switch j.Kind {
	case JobIssue:
		err = s.withBatch(ctx, j, st.At, func(b Batch) error {
			_, err := s.store.StepIssue(ctx, st, b)
			return err
		})
	case JobPurge:
		if j.Place == 0 { // the counts that it goes by are up to date when nothing is left to be swept
			if moved, err := s.store.Sweep(ctx, st.At); err != nil || moved > 0 {
				return err
			}
		}
		_, err = s.store.StepPurge(ctx, st)
	}
	if refusal.CodeOf(err) == refusal.Unauthenticated {
		_, err = s.store.EndJob(ctx, j.ID, JobFailed, st.At)
	}
	return err
}
