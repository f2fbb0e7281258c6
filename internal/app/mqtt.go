package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/api"
	"github.com/scrip-codes/scrip/internal/broker"
	"github.com/scrip-codes/scrip/internal/config"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/web"
)

// machines is the part of the server that is for vending machines: the use
// cases, the outbox and the broker.
type machines struct {
	fleet   *fleet.Service
	pickups *pickup.Service
	watch   *fleet.Watch
	store   *store
	log     *slog.Logger

	// What sends: through a broker of ours, or another one; nil for neither.
	outbox *delivery.Outbox
	relay  *delivery.Relay

	// overWeb is MQTT over WebSocket; nil if no MQTT is served or used.
	overWeb *broker.Web

	stopBroker func() error
	stopJobs   context.CancelFunc
	jobs       sync.WaitGroup
}

func newMachines(s *store, c *config.Config, log *slog.Logger, logins *guess.Limiter) *machines {
	m := &machines{store: s, log: log, watch: fleet.NewWatch(s, now, log), stopBroker: func() error { return nil }}
	var changed func()
	switch {
	case c.MQTTURL != nil:
		m.relay = delivery.NewRelay(s, now, log)
		changed = m.relay.Changed
	case c.MQTTAddr != "":
		m.outbox = delivery.New(s, log)
		changed = m.outbox.Changed
	}
	m.fleet = fleet.NewService(s, s.Keys(), logins, now, changed)
	m.pickups = pickup.NewService(s, s.Keys(), now, changed)
	return m
}

// start serves MQTT, or connects to the broker that is used instead, and sends
// what waits; with neither, that waits for another server of the same database.
// It returns where machines find the broker. GiveUp is told if that may not go on.
func (m *machines) start(
	ctx context.Context, c *config.Config, d *duties, giveUp func(error), registry *prometheus.Registry,
) (address string, err error) {
	registry.MustRegister(newBacklog(ctx, m.store, m.outbox != nil))
	work, stopJobs := context.WithCancel(context.WithoutCancel(ctx))
	m.stopJobs = stopJobs
	switch {
	case m.relay != nil:
		address, err = m.startExternal(ctx, work, c, d, registry)
	case m.outbox != nil:
		if err = d.takeBroker(ctx); err == nil {
			m.jobs.Go(func() {
				d.keepBroker(work, func(err error) {
					stopJobs() // at once: another server does that now
					giveUp(err)
				})
			})
			address, err = m.startEmbedded(ctx, work, c, registry)
		}
	}
	if err != nil {
		stopJobs()
		return "", err
	}
	m.jobs.Go(func() { m.watch.Run(work) })
	return address, nil
}

func (m *machines) startEmbedded(ctx, work context.Context, c *config.Config, registry *prometheus.Registry) (string, error) {
	l, err := listenMQTT(ctx, c)
	if err != nil {
		return "", err
	}
	if err := errors.Join(m.store.Begin(ctx), m.outbox.Begin(ctx)); err != nil {
		return "", errors.Join(err, l.Close())
	}
	b, err := broker.Start(broker.Config{
		Listener: l, Fleet: m.fleet, Watch: m.watch, Pickups: m.pickups, Outbox: m.outbox,
		Log: m.log, Now: now, Registry: registry,
	})
	if err != nil {
		return "", fmt.Errorf("starting the MQTT broker: %w", err)
	}
	m.stopBroker = b.Close
	m.overWeb = b.Web(web.NewAddresses(m.log, c.TrustedProxies).Of)
	m.jobs.Go(func() { m.outbox.Run(work, b) })
	return address("mqtt", l, c.MQTTCertificate != nil), nil
}

func (m *machines) startExternal(
	ctx, work context.Context, c *config.Config, d *duties, registry *prometheus.Registry,
) (string, error) {
	// No machine is connected to a broker of ours any more.
	if err := m.store.Begin(ctx); err != nil {
		return "", err
	}
	u := c.MQTTURL.Reveal()
	b := broker.Connect(broker.ExternalConfig{
		URL: &u, Fleet: m.fleet, Watch: m.watch, Pickups: m.pickups, Relay: m.relay,
		Alone: func(ctx context.Context, do func(context.Context) error) error { return d.alone(ctx, inboxDuty, do) },
		Log:   m.log, Now: now, Registry: registry,
	})
	m.stopBroker = func() error {
		b.Close()
		return nil
	}
	m.overWeb = b.Web(web.NewAddresses(m.log, c.TrustedProxies).Of) //nolint:contextcheck // what clients do is no part of the start
	m.jobs.Go(func() { m.relay.Run(work, b) })
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String(), nil
}

// stop ends all connections, and writes down what has arrived and, if machines
// were connected here, that none is any more.
func (m *machines) stop(ctx context.Context) error {
	err := m.stopBroker()
	if m.overWeb != nil {
		m.overWeb.Close()
	}
	m.stopJobs()
	m.jobs.Wait()
	if m.outbox != nil {
		err = errors.Join(err, m.store.Begin(ctx))
	}
	return err
}

// web serves MQTT over WebSocket, once start has returned.
func (m *machines) web() http.Handler {
	if m.overWeb != nil {
		return m.overWeb
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "This server serves no MQTT: SCRIP_MQTT_ADDR is off, and SCRIP_MQTT_URL is not set.", http.StatusNotFound)
	})
}

// mayAsk is what the broker may ask of the API that is used instead of ours.
func (m *machines) mayAsk(c *config.Config) api.MQTT {
	asks := api.MQTT{Token: c.MQTTAuthToken.Reveal(), Subscribes: func(machine int64) { m.watch.Hear(machine, true) }}
	if c.MQTTURL != nil {
		u := c.MQTTURL.Reveal()
		asks.Username = u.User.Username()
		asks.Password, _ = u.User.Password()
	}
	return asks
}

// backlogFor bounds a look at how much waits.
const backlogFor = 2 * time.Second

// backlog shows how much waits in the outbox whenever somebody looks, and nothing
// if that cannot be read. With a broker of ours that is every entry: each waits for
// the machine to acknowledge it. Else it is what no broker has yet. It is a
// prometheus.Collector.
type backlog struct {
	look            func() (delivery.Backlog, error)
	entries, oldest *prometheus.Desc
}

func newBacklog(ctx context.Context, s delivery.Store, all bool) *backlog {
	ctx = context.WithoutCancel(ctx)
	return &backlog{
		look: func() (delivery.Backlog, error) {
			ctx, cancel := context.WithTimeout(ctx, backlogFor)
			defer cancel()
			return s.Backlog(ctx, all)
		},
		entries: prometheus.NewDesc("scrip_outbox_entries",
			fmt.Sprintf("Messages that wait for the broker to take them, up to %d; with the broker inside, for the machine to acknowledge them.", delivery.BacklogMax), nil, nil),
		oldest: prometheus.NewDesc("scrip_outbox_oldest_seconds",
			"How long the oldest of the messages in scrip_outbox_entries has waited; 0 if none does.", nil, nil),
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
