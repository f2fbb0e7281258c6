package bench

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/redemption"
)

// issue measures calls that make a full batch.
func (s *settings) issue(ctx context.Context) error {
	if s.remote != nil {
		name := s.remoteName()
		s.progress.say("issuing, %d clients, %s: what is made stays on the server, under the name %q",
			s.clients, s.duration, name)
		s.report.note("issue: the codes are on the server under the name %q.", name)
		callers := callersOf(s.remote.target, []identity{s.remote.admin}, s.clients)
		defer closeAll(callers)
		return s.issueTo(ctx, 0, s.issues(callers, func(int64) string { return name }))
	}
	r, err := s.prepare(ctx, filling{codes: s.codes, names: s.names, expired: 1})
	if err != nil {
		return err
	}
	defer func() { s.closing(r.close()) }()
	callers := callersOf(r.target, []identity{r.root}, s.clients)
	defer closeAll(callers)
	calls := s.issues(callers, func(i int64) string { return nameOf(i % r.contents.names) })
	overHTTP := func(ctx context.Context, d time.Duration) (*sample, error) {
		if err := r.settle(ctx); err != nil {
			return nil, err
		}
		return calls(ctx, d)
	}
	s.measuring("issuing, %d clients, %s", s.clients, s.duration)
	if !s.ceiling {
		return s.issueTo(ctx, s.codes, overHTTP)
	}
	if s.postgres != nil {
		return s.issuePostgres(ctx, r, overHTTP)
	}
	ceiling, err := s.newCeiling(ctx, r)
	if err != nil {
		return err
	}
	defer func() { s.closing(ceiling.close()) }()
	return s.issueTo(ctx, s.codes, overHTTP, ceiling.issues())
}

// issueTo measures calls over HTTP and, if it is there, their ceiling.
func (s *settings) issueTo(ctx context.Context, codes int64, phases ...phase) error {
	kept, err := rounds(ctx, s.duration, phases...)
	s.report.add(result{Bench: s.title("issue"), Kind: "over HTTP, 100 codes a call", Codes: codes, Clients: s.clients}, kept[0], batchMax)
	if len(phases) == 1 {
		return err
	}
	s.report.add(result{Bench: "issue", Kind: "bare driver, 100 codes a commit", Codes: codes, Clients: 1}, kept[1], batchMax)
	if err == nil && len(kept[1]) > 0 {
		s.report.check(check{
			Bench: "issue", Kind: "rate over HTTP / bare driver", Value: paired(kept[0], kept[1], (*sample).rate),
			Bound: atLeast, Target: 0.6,
		})
	}
	return err
}

func (s *settings) issues(callers []*caller, name func(i int64) string) phase {
	var next atomic.Int64
	return func(ctx context.Context, d time.Duration) (*sample, error) {
		out := run(ctx, s.env.Now, len(callers), d, func(ctx context.Context, client int) error {
			_, err := callers[client].issue(ctx, issueBody(name(next.Add(1)), batchMax, quota), batchMax)
			return err
		})
		return out, failed(ctx, out)
	}
}

// issues is a phase of bare transactions that each write a batch. Its codes
// have been sealed before the clock starts.
func (c *ceiling) issues() phase {
	perSecond := float64(assumedIssues)
	return func(ctx context.Context, d time.Duration) (*sample, error) {
		n := int64(perSecond*d.Seconds()*spare) + 1
		p, err := c.raw.planner(ctx, c.key)
		if err != nil {
			return nil, err
		}
		var plan []transaction
		if err := sealBatches(ctx, c.Keys(), c.actor(), c.now(), n,
			func(number int64) redemption.IssueRequest {
				return redemption.IssueRequest{Name: nameOf(number % c.contents.names), Count: batchMax, Quota: quota}
			},
			func(b batch) error {
				t, err := p.issue(ctx, &b.Batch)
				plan = append(plan, t)
				return err
			}); err != nil {
			return nil, err
		}
		out, err := c.run(ctx, d, plan)
		perSecond = max(out.rate(), perSecond/2)
		return out, errors.Join(err, failed(ctx, out))
	}
}
