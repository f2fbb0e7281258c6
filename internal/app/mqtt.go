package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/broker"
	"github.com/scrip-codes/scrip/internal/config"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/pickup"
)

// machines is the part of the server that is for vending machines: the use
// cases, the outbox and the broker.
type machines struct {
	fleet   *fleet.Service
	pickups *pickup.Service
	outbox  *delivery.Outbox
	watch   *fleet.Watch
	store   *store
	log     *slog.Logger
	broker  *broker.Embedded

	stopJobs context.CancelFunc
	jobs     sync.WaitGroup
}

func newMachines(s *store, log *slog.Logger, logins *guess.Limiter) *machines {
	m := &machines{store: s, log: log, outbox: delivery.New(s, log), watch: fleet.NewWatch(s, now, log)}
	m.fleet = fleet.NewService(s, s.Keys(), logins, now, m.outbox.Changed)
	m.pickups = pickup.NewService(s, s.Keys(), now, m.outbox.Changed)
	return m
}

// start serves MQTT on a listener and sends what waits.
func (m *machines) start(ctx context.Context, l net.Listener, registry *prometheus.Registry) (err error) {
	if err := errors.Join(m.store.Begin(ctx), m.outbox.Begin(ctx)); err != nil {
		return errors.Join(err, l.Close())
	}
	registry.MustRegister(newBacklog(ctx, m.store))
	m.broker, err = broker.Start(broker.Config{
		Listener: l, Fleet: m.fleet, Watch: m.watch, Pickups: m.pickups, Outbox: m.outbox,
		Log: m.log, Now: now, Registry: registry,
	})
	if err != nil {
		return fmt.Errorf("starting the MQTT broker: %w", err)
	}
	ctx, m.stopJobs = context.WithCancel(context.WithoutCancel(ctx))
	m.jobs.Go(func() { m.watch.Run(ctx) })
	m.jobs.Go(func() { m.outbox.Run(ctx, m.broker) })
	return nil
}

// stop ends all connections, writes down what has arrived, and that no machine
// is online any more.
func (m *machines) stop(ctx context.Context) error {
	err := m.broker.Close()
	m.stopJobs()
	m.jobs.Wait()
	return errors.Join(err, m.store.Begin(ctx))
}

// backlogFor bounds a look at how much waits.
const backlogFor = 2 * time.Second

// backlog shows how much waits in the outbox whenever somebody looks, and nothing
// if that cannot be read. It is a prometheus.Collector.
type backlog struct {
	look            func() (delivery.Backlog, error)
	entries, oldest *prometheus.Desc
}

func newBacklog(ctx context.Context, s delivery.Store) *backlog {
	ctx = context.WithoutCancel(ctx)
	return &backlog{
		look: func() (delivery.Backlog, error) {
			ctx, cancel := context.WithTimeout(ctx, backlogFor)
			defer cancel()
			return s.Backlog(ctx)
		},
		entries: prometheus.NewDesc("scrip_outbox_entries",
			fmt.Sprintf("Entries of the outbox that wait, up to %d.", delivery.BacklogMax), nil, nil),
		oldest: prometheus.NewDesc("scrip_outbox_oldest_seconds",
			"Age of the oldest entry of the outbox that waits; 0 if none does.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (b *backlog) Describe(c chan<- *prometheus.Desc) {
	c <- b.entries
	c <- b.oldest
}

// Collect implements prometheus.Collector.
func (b *backlog) Collect(c chan<- prometheus.Metric) {
	found, err := b.look()
	if err != nil {
		return
	}
	age := 0.0
	if !found.Oldest.IsZero() {
		age = now().Sub(found.Oldest).Seconds()
	}
	c <- prometheus.MustNewConstMetric(b.entries, prometheus.GaugeValue, float64(found.Entries))
	c <- prometheus.MustNewConstMetric(b.oldest, prometheus.GaugeValue, age)
}

// listenMQTT opens the address to serve MQTT on.
func listenMQTT(ctx context.Context, c *config.Config) (net.Listener, error) {
	l, err := listen(ctx, "SCRIP_MQTT_ADDR", c.MQTTAddr)
	if err != nil || c.MQTTCertificate == nil {
		return l, err
	}
	return tls.NewListener(l, tlsConfig(c.MQTTCertificate)), nil
}
