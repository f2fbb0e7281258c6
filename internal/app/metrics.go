package app

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// meters are what the engine and the process tell; those of HTTP are api's.
type meters struct {
	registry *prometheus.Registry
	group    prometheus.Histogram
	commit   prometheus.Histogram
}

func newMeters() *meters {
	m := &meters{
		registry: prometheus.NewRegistry(),
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "scrip_redeem_group_size",
			Help:    "How many redeems shared a commit.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "scrip_redeem_commit_seconds",
			Help:    "How long a commit of redeems took.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 14),
		}),
	}
	m.registry.MustRegister(m.group, m.commit,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// committed is told of each group of redeems.
func (m *meters) committed(redeems int, took time.Duration) {
	m.group.Observe(float64(redeems))
	m.commit.Observe(took.Seconds())
}
