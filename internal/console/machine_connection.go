package console

import (
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/sheet"
)

// machineConnection is the page of what is set up in a machine.
type machineConnection struct {
	machineHead
	// Broker is where the machine finds it: a URL; empty: MQTT is not served here.
	Broker     string
	Host, Port string
	TLS        bool
	Listens    string // the topic
	Speaks     string
	AppKey     string // empty: it was not asked for
	Password   string // empty: it was not made just now
	QR         template.HTML
	// Address is that of the page, if it is the answer to something else.
	Address string
}

func (s *server) machineConnection(v *visit) error {
	m, err := s.asked(v)
	if err != nil {
		return err
	}
	return s.connectionPage(v, m, "", false)
}

// changeConnection shows the app key, or makes a new password and shows that.
func (s *server) changeConnection(v *visit) error {
	m, err := s.asked(v)
	if err != nil {
		return err
	}
	if v.r.PostFormValue("do") != "password" {
		return s.connectionPage(v, m, "", true)
	}
	password := fleet.NewPassword()
	if err := s.Fleet.RenewPassword(v.ctx(), v.actor(), m.No, password, nil); err != nil {
		return err
	}
	return s.connectionPage(v, m, password, false)
}

// connectionPage shows the connection of a machine, with the password if there is
// one to show, and with the app key if that is asked for.
func (s *server) connectionPage(v *visit, m fleet.Machine, password string, appKey bool) error {
	find := s.Fleet.Merchant
	if appKey {
		find = s.Fleet.RevealAppKey // which is on record
	}
	o, err := find(v.ctx(), v.actor(), m.MerchantID)
	if err != nil {
		return err
	}
	c := &machineConnection{
		machineHead: machineHead{Machine: m, Merchant: o.Name, Tab: "connection", On: m.Online(s.Now())},
		Listens:     "/clients/" + m.No, Speaks: "/server/app", Password: password,
	}
	if v.r.Method == http.MethodPost {
		c.Address = "/machines/" + m.No + "/connection"
	}
	if appKey {
		c.AppKey = o.AppKey
	}
	if u := s.brokerFor(v.r); u != nil {
		c.Broker, c.Host, c.Port, c.TLS = u.String(), u.Hostname(), u.Port(), u.Scheme == "mqtts" || u.Scheme == "wss"
		if c.Port == "" {
			c.Port = map[string]string{"mqtt": "1883", "mqtts": "8883", "ws": "80", "wss": "443"}[u.Scheme]
		}
		setUp := *u
		setUp.User = url.User(m.No)
		if password != "" {
			setUp.User = url.UserPassword(m.No, password)
		}
		if c.QR, err = sheet.QR(setUp.String(), v.t("machine.qr_title", m.No)); err != nil {
			return err
		}
	}
	return v.page(http.StatusOK, "machine-connection", "machines", c)
}

// brokerFor is where machines find the broker, as far as it is known: one of ours
// that listens on all addresses is found where the console is.
func (s *server) brokerFor(r *http.Request) *url.URL {
	u, err := url.Parse(s.MQTTAddress)
	if err != nil || u.Host == "" {
		return nil
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsUnspecified() {
		here := (&url.URL{Host: r.Host}).Hostname()
		if here == "" {
			return u
		}
		u.Host = net.JoinHostPort(here, u.Port())
	}
	return u
}
