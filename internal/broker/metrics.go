package broker

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/wire"
)

// traffic counts the messages.
type traffic struct {
	*uplinks
	sent prometheus.Counter
}

func newTraffic(registry *prometheus.Registry, sent string) *traffic {
	return &traffic{
		newUplinks(registry, "scrip_mqtt_uplinks", "Messages from machines"),
		counter(registry, "scrip_mqtt_messages_sent_total", sent),
	}
}

// uplinks counts what machines say. The values of every label come from lists of
// ours, never from a machine.
type uplinks struct {
	methods map[string]prometheus.Counter
	others  prometheus.Counter
	dropped map[string]prometheus.Counter // by reason
}

// newUplinks returns counters whose names begin with name, of what.
func newUplinks(registry *prometheus.Registry, name, what string) *uplinks {
	methods := vector(registry, name+"_total", what+" that were acted upon or ignored, by method.", "method")
	dropped := vector(registry, name+"_dropped_total", what+" that had no effect, by reason.", "reason")
	u := &uplinks{
		methods: map[string]prometheus.Counter{},
		others:  methods.WithLabelValues("other"),
		dropped: map[string]prometheus.Counter{},
	}
	for _, method := range []string{wire.MethodPut, wire.MethodHeartbeat, wire.MethodOffline} {
		u.methods[method] = methods.WithLabelValues(method)
	}
	for _, reason := range []string{oversized, malformed, foreign, forged, unknown, unavailable} {
		u.dropped[reason] = dropped.WithLabelValues(reason)
	}
	return u
}

// uplink is the counter of a method.
func (u *uplinks) uplink(method string) prometheus.Counter {
	if c, ok := u.methods[method]; ok {
		return c
	}
	return u.others
}

func counter(registry *prometheus.Registry, name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	registry.MustRegister(c)
	return c
}

func vector(registry *prometheus.Registry, name, help, label string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	registry.MustRegister(v)
	return v
}

// metrics counts what passes through Embedded.
type metrics struct {
	*traffic
	refusedFull, refusedOverflow, refusedProtocol    prometheus.Counter
	loginsPassword, loginsGuesses, loginsUnavailable prometheus.Counter
	refusedPublishes, refusedSubscriptions           prometheus.Counter
	acknowledged                                     prometheus.Counter
}

func newMetrics(registry *prometheus.Registry, b *Embedded) *metrics {
	refused := vector(registry, "scrip_mqtt_connections_refused_total",
		"MQTT connections refused: too many machines, far too many connections, or no proper CONNECT in time.", "reason")
	logins := vector(registry, "scrip_mqtt_logins_failed_total", "Logins of machines that failed, by reason.", "reason")
	m := &metrics{
		traffic:           newTraffic(registry, "Messages written to machines' connections."),
		refusedFull:       refused.WithLabelValues("full"),
		refusedOverflow:   refused.WithLabelValues("overflow"),
		refusedProtocol:   refused.WithLabelValues("protocol"),
		loginsPassword:    logins.WithLabelValues("password"),
		loginsGuesses:     logins.WithLabelValues("guesses"),
		loginsUnavailable: logins.WithLabelValues("unavailable"),
		refusedPublishes: counter(registry, "scrip_mqtt_publishes_refused_total",
			"Messages and last wills of machines for a topic that is not theirs to write to."),
		refusedSubscriptions: counter(registry, "scrip_mqtt_subscriptions_refused_total",
			"Topic filters that machines may not subscribe to."),
		acknowledged: counter(registry, "scrip_mqtt_messages_acknowledged_total", "Messages that machines have acknowledged."),
	}
	info := b.server.Info
	registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "scrip_mqtt_connections", Help: "Machines that are connected.",
		}, func() float64 { return float64(b.connected()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "scrip_mqtt_received_bytes_total", Help: "Bytes of MQTT packets received.",
		}, func() float64 { return float64(atomic.LoadInt64(&info.BytesReceived)) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "scrip_mqtt_sent_bytes_total", Help: "Bytes of MQTT packets sent.",
		}, func() float64 { return float64(atomic.LoadInt64(&info.BytesSent)) }),
	)
	return m
}

func (b *Embedded) connected() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.machines)
}
