package storetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// jobSilence is how long after its last step a job is taken over.
const jobSilence = 10 * time.Second

func jobTests() map[string]func(*world) {
	return map[string]func(*world){
		"Small":      testJobSmall,
		"Large":      testJobLarge,
		"Refusals":   testJobRefusals,
		"TooMany":    testJobTooMany,
		"Stop":       testJobStop,
		"StopPurge":  testJobStopPurge,
		"TakeOver":   testJobTakeOver,
		"Slow":       testJobSlow,
		"SlowHalf":   testJobSlowHalf,
		"Leave":      testJobLeave,
		"Two":        testJobTwo,
		"Rotate":     testJobRotate,
		"Purge":      testJobPurge,
		"PurgeTwice": testJobPurgeTwice,
		"Unswept":    testJobUnswept,
		"PurgeOver":  testJobPurgeTakeOver,
		"InTurn":     testJobInTurn,
		"Disabled":   testJobDisabled,
		"Expired":    testJobExpired,
		"Forgotten":  testJobForgotten,
		"Stale":      testJobStale,
		"Fails":      testJobFails,
	}
}

// stepping is an engine that calls before each step of a job, which fails if that
// does.
type stepping struct {
	Engine
	before func(s redemption.Step) error
}

func (e stepping) StepIssue(ctx context.Context, s redemption.Step, b redemption.Batch) (bool, error) {
	if err := e.before(s); err != nil {
		return false, err
	}
	return e.Engine.StepIssue(ctx, s, b)
}

func (e stepping) StepPurge(ctx context.Context, s redemption.Step) (bool, error) {
	if err := e.before(s); err != nil {
		return false, err
	}
	return e.Engine.StepPurge(ctx, s)
}

// server is another server of the same database, which calls before each step of
// a job.
func (w *world) server(before func(s redemption.Step) error) *redemption.Service {
	return redemption.NewService(stepping{w.engine, before}, w.engine.Keys(), nil, w.clock.Now)
}

func (w *world) startIssue(count int64) redemption.Job {
	w.Helper()
	j, err := w.codes.StartIssue(w.ctx, w.root, redemption.IssueRequest{Name: "made", Count: count, Quota: 3})
	w.check(err)
	return j
}

func (w *world) job(id int64) redemption.Job {
	w.Helper()
	j, err := w.codes.Job(w.ctx, w.root, id)
	w.check(err)
	return j
}

// jobCodes lists what a job has made, so many at once.
func (w *world) jobCodes(id, limit int64) (out []redemption.View) {
	w.Helper()
	for after := int64(0); ; {
		views, next, err := w.codes.JobCodes(w.ctx, w.root, id, after, limit)
		w.check(err)
		if out = append(out, views...); next == 0 {
			return out
		}
		if next <= after || int64(len(views)) > limit {
			w.Fatalf("%d codes behind %d, and on to %d", len(views), after, next)
		}
		after = next
	}
}

// made fails the test unless the job has made so many codes and is in that state,
// and there are no others of its name.
func (w *world) made(id, want int64, state redemption.JobState) redemption.Job {
	w.Helper()
	j := w.job(id)
	if j.Done != want || j.State != state {
		w.Fatalf("the job is %+v, want %d done, in state %d", j, want, state)
	}
	views := w.jobCodes(id, 70)
	_, total, err := w.codes.Search(w.ctx, w.root, "made", redemption.FilterAll, 0, 1)
	w.check(err)
	if int64(len(views)) != want || total != want {
		w.Fatalf("%d codes are listed and %d there, want %d", len(views), total, want)
	}
	var counted int64
	for _, r := range j.Codes {
		counted += r.Last - r.First + 1
	}
	for i, v := range views {
		if i > 0 && v.ID <= views[i-1].ID || v.Name != j.Name || v.Quota != j.Quota || v.CreatorID != j.By.ID || len(v.Key) != 32 {
			w.Fatalf("code %d is %+v", i, v)
		}
	}
	if counted != want {
		w.Fatalf("the ranges %v count %d, want %d", j.Codes, counted, want)
	}
	w.audit()
	return j
}

// A few codes are there at once, with the job.
func testJobSmall(w *world) {
	admin, user := w.person("admin", account.RoleAdmin, 0), w.user("u", 0)
	expires := w.clock.Now().Truncate(time.Second).Add(time.Hour)
	j, err := w.codes.StartIssue(w.ctx, admin, redemption.IssueRequest{Name: " made ", Count: 100, Quota: 7, Expires: expires})
	w.check(err)
	e := w.lastEntry()
	if e.Kind != account.KindIssue || e.Count != 100 || e.ActorID != admin.ID || e.Address != admin.Address {
		w.Errorf("the entry is %+v", e)
	}
	got := w.made(j.ID, 100, redemption.JobDone)
	if got.Name != "made" || got.By.ID != admin.ID || got.By.Address != admin.Address || got.Total != 100 ||
		!got.Expires.Equal(expires) || !got.Started.Equal(w.clock.Now()) || got.Kind != redemption.JobIssue ||
		!slices.Equal(got.Codes, []redemption.Range{{First: e.FirstID, Last: e.LastID}}) {
		w.Errorf("the job is %+v", got)
	}
	if j.Done != got.Done || j.State != got.State || !slices.Equal(j.Codes, got.Codes) {
		w.Errorf("it was answered %+v, and is %+v", j, got)
	}
	unchanged := w.unchanged()
	w.check(w.codes.RunJobs(w.ctx))
	unchanged()
	views := w.jobCodes(j.ID, 1000)
	if n := w.redeem(user, views[99].Key); n != 7 {
		w.Errorf("credited %d", n)
	}
	// Those that are gone or have another name are not forgotten, or made up.
	w.check(w.codes.Delete(w.ctx, w.root, views[0].ID))
	w.change(views[1].ID, redemption.Change{Name: new("other")})
	w.issue("made", 3, 1, time.Time{})
	if now := w.jobCodes(j.ID, 30); !slices.Equal(ids(now), ids(views[1:])) {
		w.Errorf("listed are %v, want all but the first of %v", ids(now), ids(views))
	}
}

// Many follow by themselves, whoever issues in between.
func testJobLarge(w *world) {
	j := w.startIssue(1234)
	if j.State != redemption.JobUnderWay || j.Done != 100 {
		w.Errorf("it is answered as %+v", j)
	}
	w.made(j.ID, 100, redemption.JobUnderWay)
	codes := w.server(func(s redemption.Step) error {
		w.clock.Add(time.Second)
		if s.Job.Done%300 == 0 {
			w.issue("other", 5, 1, time.Time{})
		}
		return nil
	})
	w.check(codes.RunJobs(w.ctx))
	got := w.made(j.ID, 1234, redemption.JobDone)
	if len(got.Codes) != 5 || !got.Updated.After(got.Started) {
		w.Errorf("the job is %+v", got)
	}
	small := w.startIssue(1)
	jobs, err := w.codes.Jobs(w.ctx, w.root, 10)
	if err != nil || len(jobs) != 2 || jobs[0].ID != small.ID || jobs[1].ID != j.ID {
		w.Errorf("the jobs are %+v, %v", jobs, err)
	}
	if jobs, err = w.codes.Jobs(w.ctx, w.root, 1); err != nil || len(jobs) != 1 || jobs[0].ID != small.ID {
		w.Errorf("the newest job is %+v, %v", jobs, err)
	}
}

func testJobRefusals(w *world) {
	user := w.user("u", 0)
	j := w.startIssue(150)
	unchanged := w.unchanged()
	for _, c := range []struct {
		r    redemption.IssueRequest
		want refusal.Code
	}{
		{redemption.IssueRequest{Name: "n", Count: 0, Quota: 1}, refusal.RedemptionCountTooSmall},
		{redemption.IssueRequest{Name: "n", Count: 10_001, Quota: 1}, refusal.RedemptionJobTooLarge},
		{redemption.IssueRequest{Name: "", Count: 500, Quota: 1}, refusal.RedemptionNameLength},
		{redemption.IssueRequest{Name: "n", Count: 500, Quota: 0}, refusal.RedemptionQuota},
		{redemption.IssueRequest{Name: "n", Count: 500, Quota: 1, Expires: time.Unix(1, 0)}, refusal.RedemptionExpiry},
	} {
		_, err := w.codes.StartIssue(w.ctx, w.root, c.r)
		w.refused(err, c.want)
	}
	_, err := w.codes.StartIssue(w.ctx, user, redemption.IssueRequest{Name: "n", Count: 1, Quota: 1})
	w.refused(err, refusal.Forbidden)
	_, err = w.codes.StartPurge(w.ctx, user)
	w.refused(err, refusal.Forbidden)
	_, err = w.codes.Job(w.ctx, user, j.ID)
	w.refused(err, refusal.Forbidden)
	_, err = w.codes.Jobs(w.ctx, user, 1)
	w.refused(err, refusal.Forbidden)
	_, err = w.codes.StopJob(w.ctx, user, j.ID)
	w.refused(err, refusal.Forbidden)
	_, _, err = w.codes.JobCodes(w.ctx, user, j.ID, 0, 1)
	w.refused(err, refusal.Forbidden)
	for _, id := range []int64{0, -1, j.ID + 1, 1 << 62} {
		_, err = w.codes.Job(w.ctx, w.root, id)
		w.refused(err, refusal.RedemptionJobNotFound)
		_, err = w.codes.StopJob(w.ctx, w.root, id)
		w.refused(err, refusal.RedemptionJobNotFound)
		_, _, err = w.codes.JobCodes(w.ctx, w.root, id, 0, 1)
		w.refused(err, refusal.RedemptionJobNotFound)
	}
	unchanged()
	if jobs, err := w.codes.Jobs(w.ctx, w.root, 10); err != nil || len(jobs) != 1 {
		w.Errorf("the jobs are %+v, %v", jobs, err)
	}
}

func testJobTooMany(w *world) {
	for range redemption.JobsMax {
		w.startIssue(101)
	}
	unchanged := w.unchanged()
	_, err := w.codes.StartIssue(w.ctx, w.root, redemption.IssueRequest{Name: "made", Count: 101, Quota: 3})
	w.refused(err, refusal.TooBusy)
	_, err = w.codes.StartPurge(w.ctx, w.root)
	w.refused(err, refusal.TooBusy)
	unchanged()
	w.startIssue(100) // is not under way
	w.check(w.codes.RunJobs(w.ctx))
	if j := w.startIssue(101); j.State != redemption.JobUnderWay {
		w.Errorf("with none under way it is %+v", j)
	}
}

// Once a job is stopped it makes nothing more, not even the step that has begun.
func testJobStop(w *world) {
	j := w.startIssue(1000)
	steps := 0
	codes := w.server(func(s redemption.Step) error {
		if steps++; steps == 4 {
			stopped, err := w.codes.StopJob(w.ctx, w.root, s.Job.ID)
			if err != nil || stopped.State != redemption.JobStopped || stopped.Done != 400 {
				w.Errorf("it is answered as %+v, %v", stopped, err)
			}
		}
		return nil
	})
	w.check(codes.RunJobs(w.ctx))
	w.made(j.ID, 400, redemption.JobStopped)
	w.clock.Add(time.Minute)
	w.check(w.codes.RunJobs(w.ctx))
	at := w.made(j.ID, 400, redemption.JobStopped).Updated
	again, err := w.codes.StopJob(w.ctx, w.root, j.ID)
	if err != nil || again.State != redemption.JobStopped || !again.Updated.Equal(at) {
		w.Errorf("stopped again it is %+v, %v", again, err)
	}
	done := w.startIssue(3)
	if done, err = w.codes.StopJob(w.ctx, w.root, done.ID); err != nil || done.State != redemption.JobDone {
		w.Errorf("a job that is done was stopped: %+v, %v", done, err)
	}
}

var errKilled = errors.New("this server was killed")

// What a server leaves undone that has died, another one does, once it has been
// silent for long enough.
func testJobTakeOver(w *world) {
	j := w.startIssue(1000)
	steps := 0
	killed := w.server(func(redemption.Step) error {
		if steps++; steps == 3 {
			return errKilled
		}
		return nil
	})
	if err := killed.RunJobs(w.ctx); !errors.Is(err, errKilled) {
		w.Errorf("it ended with %v", err)
	}
	for range 2 {
		w.check(w.codes.RunJobs(w.ctx))
		w.made(j.ID, 300, redemption.JobUnderWay)
		w.clock.Add(jobSilence / 2)
	}
	w.check(w.codes.RunJobs(w.ctx))
	w.made(j.ID, 1000, redemption.JobDone)

	// The clock of one may have been set back.
	steps = 1
	j, err := w.codes.StartIssue(w.ctx, w.root, redemption.IssueRequest{Name: "later", Count: 1000, Quota: 3})
	w.check(err)
	if err := killed.RunJobs(w.ctx); !errors.Is(err, errKilled) {
		w.Errorf("it ended with %v", err)
	}
	w.clock.Add(-time.Hour)
	w.check(w.codes.RunJobs(w.ctx))
	if j = w.job(j.ID); j.Done != 1000 {
		w.Errorf("the job is %+v", j)
	}
}

// A server that only was slow finds that its job has been done.
func testJobSlow(w *world) {
	j := w.startIssue(500)
	steps := 0
	slow := w.server(func(redemption.Step) error {
		if steps++; steps == 2 {
			w.clock.Add(jobSilence)
			return w.codes.RunJobs(w.ctx)
		}
		return nil
	})
	w.check(slow.RunJobs(w.ctx))
	w.made(j.ID, 500, redemption.JobDone)
	if steps != 2 {
		w.Errorf("it went on for %d steps", steps)
	}
}

// So it does if the other one has only begun: what is made twice would be too much.
func testJobSlowHalf(w *world) {
	j := w.startIssue(500)
	once := func() {
		others := 0
		err := w.server(func(redemption.Step) error {
			if others++; others == 2 {
				return errKilled
			}
			return nil
		}).RunJobs(w.ctx)
		if !errors.Is(err, errKilled) {
			w.Errorf("it ended with %v", err)
		}
	}
	steps := 0
	slow := w.server(func(redemption.Step) error {
		if steps++; steps == 2 {
			w.clock.Add(jobSilence)
			once()
		}
		return nil
	})
	w.check(slow.RunJobs(w.ctx))
	w.made(j.ID, 300, redemption.JobUnderWay)
	w.clock.Add(jobSilence)
	w.check(slow.RunJobs(w.ctx))
	w.made(j.ID, 500, redemption.JobDone)
}

// A server that stops leaves its jobs to others, who need not wait.
func testJobLeave(w *world) {
	j := w.startIssue(1000)
	work, end := context.WithCancel(w.ctx)
	steps := 0
	leaving := w.server(func(redemption.Step) error {
		if steps++; steps == 3 {
			end()
		}
		return nil
	})
	if err := leaving.RunJobs(work); !errors.Is(err, context.Canceled) {
		w.Errorf("it ended with %v", err)
	}
	if n := w.job(j.ID).Done; n < 300 || n > 400 {
		w.Errorf("%d are made", n)
	}
	w.check(w.codes.RunJobs(w.ctx))
	w.made(j.ID, 1000, redemption.JobDone)
}

// Two servers that both hold each other for dead make as many codes as they
// should, and remove each once.
func testJobTwo(w *world) {
	invalid, left := w.purgeable(60)
	purge, err := w.codes.StartPurge(w.ctx, w.root)
	w.check(err)
	j := w.startIssue(3000)
	var wg sync.WaitGroup
	var steps [2]atomic.Int64
	for i, server := range w.servers() {
		codes := server.server(func(redemption.Step) error {
			steps[i].Add(1)
			w.clock.Add(jobSilence)
			return nil
		})
		wg.Go(func() {
			for {
				if err := codes.RunJobs(w.ctx); err != nil {
					w.Error(err)
					return
				}
				jobs, err := w.engine.JobsUnderWay(w.ctx)
				if err != nil || len(jobs) == 0 {
					if err != nil {
						w.Error(err)
					}
					return
				}
			}
		})
	}
	wg.Wait()
	w.made(j.ID, 3000, redemption.JobDone)
	if p := w.job(purge.ID); p.Done != invalid || p.State != redemption.JobDone {
		w.Errorf("the removal is %+v, want %d", p, invalid)
	}
	if n := w.total(redemption.FilterAll); n != 3000+int64(len(left)) {
		w.Errorf("%d codes", n)
	}
	w.Logf("%d and %d steps", steps[0].Load(), steps[1].Load())
}

// New data keys in the middle of a job are used from then on.
func testJobRotate(w *world) {
	j := w.startIssue(500)
	steps := 0
	codes := w.server(func(redemption.Step) error {
		if steps++; steps == 2 {
			return w.on(w.handle(testSecret)).engine.Rotate(w.ctx, nil)
		}
		return nil
	})
	w.check(codes.RunJobs(w.ctx))
	w.made(j.ID, 500, redemption.JobDone)
}

func testJobPurge(w *world) {
	invalid, left := w.purgeable(100)
	admin := w.person("admin", account.RoleAdmin, 0)
	before := w.entries()
	j, err := w.codes.StartPurge(w.ctx, admin)
	w.check(err)
	if j.Total != invalid || j.Done != 0 || j.State != redemption.JobUnderWay || j.Kind != redemption.JobPurge {
		w.Errorf("the job is %+v, want %d", j, invalid)
	}
	again, err := w.codes.StartPurge(w.ctx, w.root)
	if err != nil || again.ID != j.ID || again.By.ID != admin.ID {
		w.Errorf("another one is %+v, %v", again, err)
	}
	steps := 0
	codes := w.server(func(s redemption.Step) error {
		steps++
		got := w.job(j.ID)
		if all := w.total(redemption.FilterAll); all != invalid+int64(len(left))-got.Done {
			w.Errorf("%d codes are there after %d were removed", all, got.Done)
		}
		return nil
	})
	w.check(codes.RunJobs(w.ctx))
	if j = w.job(j.ID); j.Done != invalid || j.State != redemption.JobDone || steps < 3 {
		w.Errorf("the job is %+v after %d steps, want %d", j, steps, invalid)
	}
	for _, e := range w.ledger()[before:] {
		if e.Kind != account.KindPurge || e.ActorID != admin.ID || e.Address != admin.Address {
			w.Errorf("the entry is %+v", e)
		}
	}
	if n := len(w.allCodes()); n != len(left) {
		w.Errorf("%d are left, want %d", n, len(left))
	}
	w.audit()
	// With nothing to do it is done.
	next, err := w.codes.StartPurge(w.ctx, w.root)
	w.check(err)
	w.check(w.codes.RunJobs(w.ctx))
	if next = w.job(next.ID); next.State != redemption.JobDone || next.Total != 0 || next.Done != 0 {
		w.Errorf("the next job is %+v", next)
	}
}

// What has expired is removed whether the sweep has been there or not.
func testJobUnswept(w *world) {
	const count = 9000
	b, _ := w.newBatch("n", count, 1, w.clock.Now().Truncate(time.Second))
	w.check(w.engine.Issue(w.ctx, b))
	w.issueOne(1)
	w.clock.Add(time.Hour)
	j, err := w.codes.StartPurge(w.ctx, w.root)
	w.check(err)
	w.check(w.codes.RunJobs(w.ctx))
	if j = w.job(j.ID); j.Done != count || j.Total != count || w.total(redemption.FilterAll) != 1 {
		w.Errorf("the job is %+v, and %d codes are left", j, w.total(redemption.FilterAll))
	}
}

// However many begin a removal at once, there is one.
func testJobPurgeTwice(w *world) {
	w.purgeable(10)
	var wg sync.WaitGroup
	var mu sync.Mutex
	started := map[int64]bool{}
	servers := w.servers()
	for i := range 8 {
		wg.Go(func() {
			j, err := servers[i%2].codes.StartPurge(w.ctx, w.root)
			if err != nil {
				w.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			started[j.ID] = true
		})
	}
	wg.Wait()
	if len(started) != 1 {
		w.Errorf("removals %v are under way", started)
	}
}

func testJobStopPurge(w *world) {
	w.purgeable(100)
	j, err := w.codes.StartPurge(w.ctx, w.root)
	w.check(err)
	var all int64
	codes := w.server(func(s redemption.Step) error {
		if s.Job.Done > 0 && all == 0 {
			all = w.total(redemption.FilterAll)
			_, err := w.codes.StopJob(w.ctx, w.root, j.ID)
			return err
		}
		return nil
	})
	w.check(codes.RunJobs(w.ctx))
	if n := w.total(redemption.FilterAll); n != all || all == 0 {
		w.Errorf("%d codes, when it was stopped there were %d", n, all)
	}
	if j = w.job(j.ID); j.State != redemption.JobStopped || j.Done == 0 || j.Done >= j.Total {
		w.Errorf("the job is %+v", j)
	}
	w.audit()
}

func testJobPurgeTakeOver(w *world) {
	invalid, left := w.purgeable(100)
	j, err := w.codes.StartPurge(w.ctx, w.root)
	w.check(err)
	killed := w.server(func(s redemption.Step) error {
		if s.Job.Done > 0 {
			return errKilled
		}
		return nil
	})
	if err := killed.RunJobs(w.ctx); !errors.Is(err, errKilled) {
		w.Errorf("it ended with %v", err)
	}
	done := w.job(j.ID).Done
	w.check(w.codes.RunJobs(w.ctx))
	if n := w.job(j.ID).Done; n != done {
		w.Errorf("%d were removed, then %d", done, n)
	}
	w.clock.Add(jobSilence)
	w.check(w.codes.RunJobs(w.ctx))
	if j = w.job(j.ID); j.Done != invalid || j.State != redemption.JobDone {
		w.Errorf("the job is %+v, want %d", j, invalid)
	}
	if n := len(w.allCodes()); n != len(left) {
		w.Errorf("%d are left, want %d", n, len(left))
	}
	w.audit()
}

// A job does not wait for the end of another one.
func testJobInTurn(w *world) {
	first, second := w.startIssue(1000), w.startIssue(1000)
	var order []int64
	codes := w.server(func(s redemption.Step) error {
		order = append(order, s.Job.ID)
		return nil
	})
	w.check(codes.RunJobs(w.ctx))
	for i, id := range order {
		if want := []int64{first.ID, second.ID}[i%2]; id != want {
			w.Fatalf("the steps were of %v", order)
		}
	}
	if len(order) != 18 {
		w.Errorf("the steps were of %v", order)
	}
}

// A job of somebody who has been disabled makes nothing more.
func testJobDisabled(w *world) {
	admin := w.person("admin", account.RoleAdmin, 0)
	j, err := w.codes.StartIssue(w.ctx, admin, redemption.IssueRequest{Name: "made", Count: 500, Quota: 3})
	w.check(err)
	codes := w.server(func(s redemption.Step) error {
		if s.Job.Done == 300 {
			return w.accounts.SetStatus(w.ctx, w.root, admin.ID, account.StatusDisabled)
		}
		return nil
	})
	w.check(codes.RunJobs(w.ctx))
	w.made(j.ID, 300, redemption.JobFailed)
}

// A job whose codes have expired meanwhile makes no more of them.
func testJobExpired(w *world) {
	expires := w.clock.Now().Truncate(time.Second).Add(time.Hour)
	j, err := w.codes.StartIssue(w.ctx, w.root, redemption.IssueRequest{Name: "made", Count: 500, Quota: 3, Expires: expires})
	w.check(err)
	codes := w.server(func(s redemption.Step) error {
		switch s.Job.Done {
		case 100: // they live to the end of the second
			w.clock.Add(expires.Sub(w.clock.Now()) + time.Second - time.Millisecond)
		case 200:
			w.clock.Add(time.Millisecond)
		}
		return nil
	})
	w.check(codes.RunJobs(w.ctx))
	w.made(j.ID, 300, redemption.JobFailed)
}

// A job that has stood still for more than a day, as in a database that was put
// back, makes nothing more; one that removes codes goes on.
func testJobForgotten(w *world) {
	const day = 24 * time.Hour
	j := w.startIssue(300)
	killed := w.server(func(s redemption.Step) error {
		if s.Job.Done == 200 {
			return errKilled
		}
		return nil
	})
	w.clock.Add(day)
	if err := killed.RunJobs(w.ctx); !errors.Is(err, errKilled) {
		w.Errorf("it ended with %v", err)
	}
	w.made(j.ID, 200, redemption.JobUnderWay)
	invalid, _ := w.purgeable(5)
	purge, err := w.codes.StartPurge(w.ctx, w.root)
	w.check(err)
	w.clock.Add(day + time.Millisecond)
	w.check(w.codes.RunJobs(w.ctx))
	w.made(j.ID, 200, redemption.JobFailed)
	if p := w.job(purge.ID); p.State != redemption.JobDone || p.Done < invalid {
		w.Errorf("the removal is %+v", p)
	}
}

// One that is started under keys that are gone is what was asked for all the same.
func testJobStale(w *world) {
	w.startIssue(1)
	w.check(w.on(w.handle(testSecret)).engine.Rotate(w.ctx, nil))
	j, err := w.codes.StartIssue(w.ctx, w.root, redemption.IssueRequest{Name: "after", Count: 150, Quota: 3})
	w.check(err)
	if j.Name != "after" || j.Total != 150 || j.Done != 100 || j.Kind != redemption.JobIssue {
		w.Errorf("the job is %+v", j)
	}
	for _, c := range w.jobCodes(j.ID, 100) {
		if c.Name != "after" || c.Quota != 3 {
			w.Fatalf("it has made %+v", c)
		}
	}
	w.audit()
}

// A job whose steps fail is left for the next call, and keeps no other one.
func testJobFails(w *world) {
	first, second := w.startIssue(500), w.startIssue(500)
	fails := 0
	codes := w.server(func(s redemption.Step) error {
		if s.Job.ID == first.ID {
			fails++
			return errKilled
		}
		return nil
	})
	if err := codes.RunJobs(w.ctx); !errors.Is(err, errKilled) || fails != 1 {
		w.Errorf("it ended with %v after %d failures", err, fails)
	}
	if j := w.job(second.ID); j.State != redemption.JobDone {
		w.Errorf("the other one is %+v", j)
	}
	w.check(w.codes.RunJobs(w.ctx))
	if j := w.job(first.ID); j.State != redemption.JobDone {
		w.Errorf("the job is %+v", j)
	}
	w.audit()
}
