package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/web"
)

// noRoute stands for the route of requests that have none.
const noRoute = "none"

// metrics counts requests. The values of every label come from lists of ours,
// never from a request.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	refusals map[refusal.Code]prometheus.Counter
}

// routeMetrics are the metrics of one route, found once.
type routeMetrics struct {
	seconds prometheus.Observer
	byCode  *prometheus.CounterVec
	ok      prometheus.Counter // nearly all answers
}

func newMetrics(reg *prometheus.Registry, version string) *metrics {
	m := &metrics{
		registry: reg,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "scrip_http_requests_total", Help: "HTTP requests answered.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "scrip_http_request_seconds", Help: "Time to answer an HTTP request.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"route"}),
		refusals: make(map[refusal.Code]prometheus.Counter),
	}
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "scrip_refusals_total", Help: "HTTP requests refused, by the code of the refusal.",
	}, []string{"code"})
	for code := range web.Messages() {
		m.refusals[code] = refused.WithLabelValues(string(code))
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "scrip_build_info", Help: "Always 1; the label names the running version.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	reg.MustRegister(m.requests, m.seconds, refused, build)
	return m
}

// route returns the metrics of the route with that pattern.
func (m *metrics) route(pattern string) *routeMetrics {
	method, _, _ := strings.Cut(pattern, " ")
	return m.of(pattern, method)
}

// none returns the metrics of requests without a route.
func (m *metrics) none(method string) *routeMetrics { return m.of(noRoute, knownMethod(method)) }

func (m *metrics) of(route, method string) *routeMetrics {
	byCode := m.requests.MustCurryWith(prometheus.Labels{"route": route, "method": method})
	return &routeMetrics{seconds: m.seconds.WithLabelValues(route), byCode: byCode, ok: byCode.WithLabelValues("200")}
}

func (r *routeMetrics) observe(status int, took time.Duration) {
	r.seconds.Observe(took.Seconds())
	if status == http.StatusOK {
		r.ok.Inc()
		return
	}
	r.byCode.WithLabelValues(strconv.Itoa(status)).Inc()
}

func (m *metrics) refused(code refusal.Code) {
	if counter, ok := m.refusals[code]; ok { // a stored answer's code may be of another version
		counter.Inc()
	}
}

func (m *metrics) handler() http.HandlerFunc {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}).ServeHTTP
}

// knownMethod keeps methods that somebody made up out of labels and logs.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return method
	}
	return "other"
}
