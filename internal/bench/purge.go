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
	return nil
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
