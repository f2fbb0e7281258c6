package bench

import (
	"math/bits"
	"slices"
	"time"
)

// subBuckets is how many buckets of a histogram one doubling has: what it says
// is within one percent.
const subBuckets = 128

// histogram counts durations in bounded memory, however long the run.
type histogram struct {
	counts [36 * subBuckets]uint64
	n      uint64
	most   time.Duration
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.n++
	h.most = max(h.most, d)
}

// bucketOf counts nanoseconds singly up to subBuckets, and then ever coarser.
func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-bits.Len64(subBuckets), 0)
	return min(shift*subBuckets+int(v>>shift), len(histogram{}.counts)-1) //nolint:gosec // G115: below 2*subBuckets
}

// middleOf is the middle of a bucket.
func middleOf(bucket int) time.Duration {
	if bucket < 2*subBuckets {
		return time.Duration(bucket)
	}
	shift := bucket/subBuckets - 1
	low := int64(bucket-shift*subBuckets) << shift
	return time.Duration(low + int64(1)<<shift/2)
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.n += other.n
	h.most = max(h.most, other.most)
}

// quantile is the duration that a share q of all stays within; 0 if there is
// none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.n))
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen > rank {
			return min(middleOf(i), h.most)
		}
	}
	return h.most
}

// median is the middle one of the values; 0 if there is none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}
