package bench

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errNoMore ends a client: there is nothing left for it to do.
var errNoMore = errors.New("nothing is left to do")

// errorsInRow is how many failures one after the other end a client: what
// follows would only measure how fast it fails.
const errorsInRow = 20

// sample is what a stretch of load did.
type sample struct {
	hist    histogram
	each    int64 // how many operations one of the calls was; 0 is 1
	errors  int64
	first   error // the first of them
	elapsed time.Duration
	ranOut  bool // of something to do, before its time was over
}

func (s *sample) rate() float64 {
	if s.elapsed <= 0 {
		return 0
	}
	return float64(s.operations()) / s.elapsed.Seconds()
}

func (s *sample) operations() int64 {
	return int64(s.hist.n) * max(s.each, 1) //nolint:gosec // G115: it was counted up from 0
}

func (s *sample) merge(other *sample) {
	s.hist.merge(&other.hist)
	s.errors += other.errors
	if s.first == nil {
		s.first = other.first
	}
	s.elapsed += other.elapsed
	s.ranOut = s.ranOut || other.ranOut
}

// run has each of the clients call do, one call after the other, until the time
// is over, ctx ends, or do fails with errNoMore. A call that has begun is
// waited for, unless ctx has ended: then it counts as neither done nor failed.
func run(
	ctx context.Context, now func() time.Time, clients int, d time.Duration,
	do func(ctx context.Context, client int) error,
) *sample {
	var out sample
	var mu sync.Mutex // of out
	// record takes down a call and reports whether there is to be another.
	record := func(err error, begun, ended, start time.Time, failed *int) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case errors.Is(err, errNoMore):
			out.ranOut = true
			return false
		case ctx.Err() != nil:
			return false
		case err != nil:
			*failed++
			out.errors++
			if out.first == nil {
				out.first = err
			}
		default:
			*failed = 0
			out.hist.add(ended.Sub(begun))
		}
		out.elapsed = max(out.elapsed, ended.Sub(start))
		return ended.Sub(start) < d && *failed < errorsInRow
	}
	var wg sync.WaitGroup
	start := now()
	for i := range clients {
		wg.Go(func() {
			failed := 0
			for begun, more := start, true; more; {
				err := do(ctx, i)
				ended := now()
				more = record(err, begun, ended, start, &failed)
				begun = ended
			}
		})
	}
	wg.Wait()
	return &out
}

// over reports whether ctx has ended: what there is then is the result, and no
// error.
func over(ctx context.Context) bool { return ctx.Err() != nil }

// rounds measures several things in turns, so that a machine that gets faster
// or slower does so for all of them: each of the phases runs for its share of d,
// several times over. The first turn is for warming up and is not kept. It
// returns the samples of each phase, in order, as many of each.
func rounds(ctx context.Context, d time.Duration, phases ...phase) ([][]*sample, error) {
	turns := int(max(min(d/roundTime, 5), d/roundMax, 3))
	each := d / time.Duration(turns)
	kept := make([][]*sample, len(phases))
	for turn := range turns + 1 {
		took := make([]*sample, 0, len(phases))
		for _, p := range phases {
			within := each
			if turn == 0 {
				within = min(each, roundTime/4)
			}
			s, err := p(ctx, within)
			if err != nil && !over(ctx) {
				return kept, err
			}
			if s != nil {
				took = append(took, s)
			}
			if over(ctx) {
				break
			}
		}
		if interrupted := over(ctx); turn > 0 || interrupted {
			for i, s := range took {
				kept[i] = append(kept[i], s)
			}
			if interrupted {
				break
			}
		}
	}
	return kept, nil
}

const (
	// roundTime is about how long one phase of one turn takes; roundMax bounds
	// it, and with it how much has to be prepared at once.
	roundTime = 2 * time.Second
	roundMax  = 10 * time.Second
)

// phase runs one kind of load for about that long.
type phase func(ctx context.Context, d time.Duration) (*sample, error)

// paired is the median, over the turns, of what one phase did against another.
func paired(a, b []*sample, of func(*sample) float64) float64 {
	var out []float64
	for i := range min(len(a), len(b)) {
		if under := of(b[i]); under > 0 {
			out = append(out, of(a[i])/under)
		}
	}
	return median(out)
}

// medianOf is the median of a figure over the turns.
func medianOf(samples []*sample, of func(*sample) float64) float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = of(s)
	}
	return median(out)
}

// milliseconds is a quantile as a figure of a sample.
func milliseconds(q float64) func(*sample) float64 {
	return func(s *sample) float64 { return s.hist.quantile(q).Seconds() * 1000 }
}
