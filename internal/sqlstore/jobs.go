package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const (
	jobColumns = `id, kind, user_id, address, name, quota, expires, total, done, place, ids, state, started, updated, holder`
	selectJob  = `SELECT ` + jobColumns + ` FROM jobs `
	// startTries bounds how often a removal is looked for that has ended when it is
	// looked at.
	startTries = 3
)

func scanJob(row Scanner) (j redemption.Job, err error) {
	var expires, started, updated int64
	var ids string
	if err := row.Scan(&j.ID, (*string)(&j.Kind), &j.By.ID, &j.By.Address, &j.Name, &j.Quota, &expires, &j.Total, &j.Done, &j.Place,
		&ids, &j.State, &started, &updated, &j.Holder); err != nil {
		return j, notFound(err, refusal.RedemptionJobNotFound)
	}
	j.Expires, j.Started, j.Updated = fromMillis(expires), fromMillis(started), fromMillis(updated)
	j.Codes, err = parseRanges(ids)
	return j, err
}

// parseRanges reads what rangesText wrote.
func parseRanges(text string) (ranges []redemption.Range, err error) {
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, _ := strings.Cut(part, "-")
		var r redemption.Range
		if r.First, err = strconv.ParseInt(first, 10, 64); err == nil {
			r.Last, err = strconv.ParseInt(last, 10, 64)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the ids of a job: %w", err)
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

func rangesText(ranges []redemption.Range) string {
	parts := make([]string, len(ranges))
	for i, r := range ranges {
		parts[i] = fmt.Sprintf("%d-%d", r.First, r.Last)
	}
	return strings.Join(parts, ",")
}

// made adds codes that follow each other to what a job has made.
func made(j *redemption.Job, first, n int64) {
	j.Done += n
	if j.Done >= j.Total {
		j.State = redemption.JobDone
	}
	last := len(j.Codes) - 1
	if last >= 0 && j.Codes[last].Last+1 == first {
		j.Codes = slices.Clone(j.Codes) // a transaction may be tried again
		j.Codes[last].Last += n
		return
	}
	j.Codes = append(slices.Clip(j.Codes), redemption.Range{First: first, Last: first + n - 1})
}

// StartIssue implements redemption.Store.
func (d *Store) StartIssue(ctx context.Context, j redemption.Job, b redemption.Batch) (started redemption.Job, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if err := t.fresh(b.Epoch); err != nil {
			return err
		}
		if err := t.replayed(ctx, b.Once); err != nil {
			return err
		}
		first, err := t.issue(ctx, &b)
		if err != nil {
			return err
		}
		started = j
		started.State = redemption.JobUnderWay
		made(&started, first, int64(len(b.Keys)))
		if started.State == redemption.JobUnderWay {
			jobs, err := eachJob(ctx, t.Conn, underWay())
			if err != nil || len(jobs) >= redemption.JobsMax {
				return cmp.Or(err, tooManyJobs())
			}
		}
		if started.ID, err = t.insertJob(ctx, &started); err != nil {
			return err
		}
		return t.remember(ctx, b.Once, started)
	})
	if err != nil {
		return redemption.Job{}, err
	}
	return started, nil
}

func tooManyJobs() error { return refusal.Later(refusal.TooBusy, time.Minute) }

// insertJob writes a new job. It fails with sql.ErrNoRows if another one is in its
// way.
func (t *Tx) insertJob(ctx context.Context, j *redemption.Job) (id int64, err error) {
	return t.insert(ctx, `INSERT INTO jobs
		(kind, user_id, address, name, quota, expires, total, done, place, ids, state, started, updated, holder)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		string(j.Kind), j.By.ID, j.By.Address, j.Name, j.Quota, Millis(j.Expires), j.Total, j.Done, j.Place, rangesText(j.Codes),
		int64(j.State), j.Started.UnixMilli(), j.Updated.UnixMilli(), j.Holder)
}

// StartPurge implements redemption.Store.
func (d *Store) StartPurge(ctx context.Context, j redemption.Job) (started redemption.Job, err error) {
	if j.Total, err = d.CountInvalid(ctx, j.Started); err != nil {
		return redemption.Job{}, err
	}
	j.State = redemption.JobUnderWay
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		for range startTries {
			jobs, err := eachJob(ctx, t.Conn, underWay())
			if err != nil {
				return err
			}
			for _, started = range jobs {
				if started.Kind == redemption.JobPurge {
					return nil
				}
			}
			if len(jobs) >= redemption.JobsMax {
				return tooManyJobs()
			}
			started = j
			started.ID, err = t.insertJob(ctx, &started)
			if !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		return refusal.Later(refusal.TooBusy, time.Second)
	})
	if err != nil {
		return redemption.Job{}, fmt.Errorf("starting a removal: %w", err)
	}
	return started, nil
}

// hold locks a job for its next step, unless it stands otherwise than s.Job says. It
// refuses if whoever has started it may not do that any more.
func (t *Tx) hold(ctx context.Context, s *redemption.Step) (held bool, err error) {
	j := &s.Job
	var id int64
	err = t.Row(ctx, `SELECT id FROM jobs WHERE id = ? AND state = 1 AND done = ? AND place = ? AND holder = ? FOR UPDATE`,
		j.ID, j.Done, j.Place, j.Holder).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil || j.By.ID == 0 { // the command line
		return err == nil, err
	}
	err = t.Row(ctx, `SELECT id FROM users WHERE id = ? AND status = 1 AND role >= ?`, j.By.ID, int64(account.RoleAdmin)).Scan(&id)
	return true, notFound(err, refusal.Unauthenticated)
}

// moveJob writes how far a job that is held has come.
func (t *Tx) moveJob(ctx context.Context, j *redemption.Job, s *redemption.Step) error {
	_, err := t.change(ctx, `UPDATE jobs SET done = ?, place = ?, ids = ?, state = ?, updated = ?, holder = ? WHERE id = ?`,
		j.Done, j.Place, rangesText(j.Codes), int64(j.State), s.At.UnixMilli(), s.Holder, j.ID)
	return err
}

// StepIssue implements redemption.Store.
func (d *Store) StepIssue(ctx context.Context, s redemption.Step, b redemption.Batch) (moved bool, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if err := t.fresh(b.Epoch); err != nil {
			return err
		}
		var err error
		if moved, err = t.hold(ctx, &s); err != nil || !moved {
			return err
		}
		first, err := t.issue(ctx, &b)
		if err != nil {
			return err
		}
		j := s.Job
		made(&j, first, int64(len(b.Keys)))
		return t.moveJob(ctx, &j, &s)
	})
	return moved && err == nil, stepError(&s, err)
}

// StepPurge implements redemption.Store.
func (d *Store) StepPurge(ctx context.Context, s redemption.Step) (moved bool, err error) {
	first, last, err := d.nextInvalid(ctx, s.Job.Place)
	if err != nil {
		return false, stepError(&s, err)
	}
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		var err error
		if moved, err = t.hold(ctx, &s); err != nil || !moved {
			return err
		}
		j := s.Job
		if last == 0 {
			j.State = redemption.JobDone
			return t.moveJob(ctx, &j, &s)
		}
		removed, err := t.purge(ctx, first, last, j.By, s.At)
		if err != nil {
			return err
		}
		j.Done, j.Place = j.Done+removed, last
		return t.moveJob(ctx, &j, &s)
	})
	return moved && err == nil, stepError(&s, err)
}

func stepError(s *redemption.Step, err error) error {
	if err != nil {
		return fmt.Errorf("job %d: %w", s.Job.ID, err)
	}
	return nil
}

// EndJob implements redemption.Store.
func (d *Store) EndJob(
	ctx context.Context, id int64, state redemption.JobState, at time.Time,
) (j redemption.Job, err error) {
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if _, err := t.change(ctx, `UPDATE jobs SET state = ?, updated = ? WHERE id = ? AND state = 1`,
			int64(state), at.UnixMilli(), id); err != nil {
			return err
		}
		var err error
		j, err = scanJob(t.Row(ctx, selectJob+`WHERE id = ?`, id))
		return err
	})
	return j, err
}

// LeaveJobs implements redemption.Store.
func (d *Store) LeaveJobs(ctx context.Context, holder string) error {
	return d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		_, err := t.change(ctx, `UPDATE jobs SET holder = '' WHERE state = 1 AND id > 0 AND holder = ?`, holder)
		return err
	})
}

// Job implements redemption.Store.
func (d *Store) Job(ctx context.Context, id int64) (j redemption.Job, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		j, err = scanJob(s.Row(context.WithoutCancel(ctx), selectJob+`WHERE id = ?`, id))
		return err
	})
	return j, err
}

// Jobs implements redemption.Store.
func (d *Store) Jobs(ctx context.Context, limit int64) ([]redemption.Job, error) {
	return d.jobs(ctx, `WHERE id > 0 ORDER BY id DESC`+Limit(limit))
}

// underWay is which jobs are: a few more than may be, since two servers may have
// begun the last one.
func underWay() string {
	return `INDEXED BY jobs_running WHERE state = 1 AND id > 0 ORDER BY id` + Limit(2*redemption.JobsMax)
}

// JobsUnderWay implements redemption.Store.
func (d *Store) JobsUnderWay(ctx context.Context) ([]redemption.Job, error) {
	return d.jobs(ctx, underWay())
}

func (d *Store) jobs(ctx context.Context, where string) (jobs []redemption.Job, err error) {
	err = d.engine.Read(ctx, func(s Conn) error {
		jobs, err = eachJob(context.WithoutCancel(ctx), s, where)
		return err
	})
	return jobs, err
}

func eachJob(ctx context.Context, s Conn, where string) (jobs []redemption.Job, err error) {
	err = s.Each(ctx, func(row Scanner) error {
		j, err := scanJob(row)
		jobs = append(jobs, j)
		return err
	}, selectJob+where)
	if err != nil {
		return nil, fmt.Errorf("listing jobs: %w", err)
	}
	return jobs, nil
}

// JobCodes implements redemption.Store.
func (d *Store) JobCodes(ctx context.Context, id, after, limit int64) (rows []redemption.Stored, next int64, err error) {
	err = d.engine.Snapshot(ctx, func(s Conn) error {
		ctx := context.WithoutCancel(ctx)
		j, err := scanJob(s.Row(ctx, selectJob+`WHERE id = ?`, id))
		if err != nil {
			return err
		}
		var ids []int64
		ids, next = following(j.Codes, after, limit)
		rows, err = d.codesByID(ctx, s, ids)
		slices.Reverse(rows)
		return err
	})
	return rows, next, err
}

// following are the next limit ids behind after, and the last of them if there are
// more.
func following(ranges []redemption.Range, after, limit int64) (ids []int64, next int64) {
	for _, r := range ranges {
		for id := max(r.First, after+1); id <= r.Last; id++ {
			if int64(len(ids)) == limit {
				return ids, ids[limit-1]
			}
			ids = append(ids, id)
		}
	}
	return ids, 0
}
