package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// removal is how invalid codes are removed while others redeem.
type removal struct {
	removed int64
	took    time.Duration
	err     error
}

// purge measures the removal of invalid codes, and how long redeems take
// meanwhile.
func (s *settings) purge(ctx context.Context) error {
	r, err := s.prepare(ctx, filling{codes: s.codes, names: s.names, expired: 19, users: s.clients})
	if err != nil {
		return err
	}
	defer func() { s.closing(r.close()) }()
	codes, callers := r.supply(), callersOf(r.target, r.users, s.clients)
	defer closeAll(callers)
	load := codes.load(s.env.Now, callers, r.settle)
	// The first is for warming up, and to learn the rate.
	if _, err := load(ctx, min(s.duration/4, roundTime)); err != nil {
		return err
	}
	s.measuring("redeeming, %d clients, %s", s.clients, s.duration)
	alone, err := load(ctx, s.duration)
	if err != nil {
		return err
	}
	base := result{Bench: s.title("purge"), Kind: "redeems before it", Codes: s.codes, Clients: s.clients}
	s.report.add(base, []*sample{alone}, 1)
	if over(ctx) {
		return nil
	}

	invalid := r.contents.codes - r.contents.live() + codes.redeemed.Load()
	if err := codes.ensure(ctx, max(min(time.Duration(invalid)*time.Second/removedAssumed, purgeLoad), s.duration/4)); err != nil {
		return err
	}
	s.progress.say("removing %s codes while redeeming", grouped(invalid))
	finished := make(chan struct{})
	var gone removal
	begun := s.env.Now()
	go func() {
		defer close(finished)
		gone = removeInvalid(ctx, r)
		gone.took = s.env.Now().Sub(begun)
	}()
	during := run(ctx, s.env.Now, s.clients, askedWithin, func(ctx context.Context, client int) error {
		select {
		case <-finished:
			return errNoMore
		default:
			return codes.redeem(ctx, callers[client])
		}
	})
	<-finished
	during.ranOut = during.elapsed < s.env.Now().Sub(begun)/2
	base.Kind = "redeems during it"
	s.report.add(base, []*sample{during}, 1)
	if gone.err != nil {
		if over(ctx) {
			return nil
		}
		return gone.err
	}
	if gone.removed < invalid {
		return fmt.Errorf("%d of %d invalid codes were removed", gone.removed, invalid)
	}
	one := &sample{elapsed: gone.took}
	one.hist.add(gone.took)
	base.Kind, base.Clients = "DELETE /api/redemption/invalid", 1
	s.report.add(base, []*sample{one}, gone.removed)
	if s.compare == 0 || over(ctx) {
		return nil
	}
	large, err := s.prepare(ctx, filling{codes: s.codes, names: s.names, expired: 1})
	if err != nil {
		return err
	}
	defer func() { s.closing(large.close()) }()
	return s.cleanUp(ctx, large)
}

const (
	// cleanSteps is how many steps of each kind are measured, in each database.
	cleanSteps = 100
	// later is when all that expires in a filled database has, before when what has
	// expired had not.
	later  = 31 * 24 * time.Hour
	before = 25 * time.Hour
)

// cleanUp measures the steps in which codes are swept and removed, in turns with
// those in a small database. The codes are gone when it is done.
func (s *settings) cleanUp(ctx context.Context, large *ready) error {
	small, err := s.prepare(ctx, filling{codes: s.compare, names: s.names, expired: 1})
	if err != nil {
		return err
	}
	defer func() { s.closing(small.close()) }()
	both := []*ready{large, small}
	for _, r := range both {
		// Its sweep knows what time it is.
		if r.server != nil {
			if err := r.stop(); err != nil {
				return err
			}
			r.server = nil
		}
	}
	s.measuring("cleaning up: %d steps of each kind, in two databases", cleanSteps)
	for _, step := range []struct {
		kind string
		do   func(ctx context.Context, r *ready) (bool, error)
	}{{"a step of the sweep", s.sweepStep}, {"a step of the removal", s.purgeStep}} {
		samples := make([]*sample, len(both))
		for i := range both {
			samples[i] = &sample{}
		}
		for range cleanSteps {
			for i, r := range both {
				begun := s.env.Now()
				did, err := step.do(ctx, r)
				if over(ctx) {
					return nil
				}
				if err != nil {
					return fmt.Errorf("cleaning up: %w", err)
				}
				if took := s.env.Now().Sub(begun); did {
					samples[i].hist.add(took)
					samples[i].elapsed += took
				}
			}
		}
		p50 := milliseconds(0.5)
		for i, r := range both {
			row := result{Bench: s.title(benchClean), Kind: step.kind, Codes: r.contents.codes, Clients: 1}
			if i == 0 && samples[1].hist.n > 0 {
				row.Ratio = p50(samples[0]) / p50(samples[1])
			}
			s.report.add(row, samples[i:i+1], 1)
		}
	}
	s.checkFlat(benchClean)
	return nil
}

// sweepStep moves the next codes whose time is over. When there are none left they
// are all moved back, which is not measured.
func (s *settings) sweepStep(ctx context.Context, r *ready) (bool, error) {
	n, err := r.Sweep(ctx, r.now().Add(later))
	if err != nil || n > 0 {
		return n > 0, err
	}
	for n = 1; n > 0 && err == nil && !over(ctx); {
		n, err = r.Sweep(ctx, r.now().Add(-before))
	}
	return false, err
}

// purgeStep removes the next codes that nobody can redeem any more.
func (s *settings) purgeStep(ctx context.Context, r *ready) (bool, error) {
	removed, next, err := r.Purge(ctx, r.purged, r.actor(), r.now().Add(later))
	if next > 0 {
		r.purged = next
	}
	return removed > 0, err
}

const (
	// removedAssumed is how many codes are removed a second, at least: there
	// are codes to redeem for so long, and for purgeLoad at most.
	removedAssumed = 8000
	purgeLoad      = time.Minute
)

func removeInvalid(ctx context.Context, r *ready) (out removal) {
	c := r.target.caller(r.root)
	defer c.close()
	status, answer, err := c.callWithin(ctx, 24*time.Hour, "DELETE", "/api/redemption/invalid", nil)
	if err == nil {
		var data json.RawMessage
		if data, err = open(status, answer); err == nil {
			err = json.Unmarshal(data, &out.removed)
		}
	}
	out.err = err
	return out
}
