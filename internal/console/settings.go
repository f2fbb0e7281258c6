package console

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// settingsPage is what the server is set to.
type settingsPage struct {
	Merchants    []fleet.Merchant
	First, Older string // addresses; empty: there is none

	GuessLimit  int
	GuessWindow string
	Limited     []limited

	Version, Database, MQTT string
}

// limited is somebody who has guessed often.
type limited struct {
	guess.Suspect
	Where    string // signin, redeem or machine
	Username string
	Out      bool // all guesses are used up
	Mine     bool // whoever looks may let them in again
}

func (s *server) serverSettings(v *visit) error {
	p := settingsPage{
		GuessLimit: s.GuessLimit, GuessWindow: v.brief(s.GuessWindow), Version: s.Version, Database: s.Database,
	}
	if broker := s.brokerFor(v.r); broker != nil {
		p.MQTT = broker.Redacted()
	}
	var err error
	before := v.cursor()
	if p.Merchants, err = s.Fleet.Merchants(v.ctx(), v.actor(), before, pageSize+1); err != nil {
		return err
	}
	if before != 0 {
		p.First = "/settings"
	}
	if len(p.Merchants) > pageSize {
		p.Merchants = p.Merchants[:pageSize]
		p.Older = "/settings?before=" + plain(p.Merchants[pageSize-1].ID)
	}
	for i := range p.Merchants {
		p.Merchants[i].AppKey = "" // not for a page that shows none
	}
	if p.Limited, err = s.limited(v); err != nil {
		return err
	}
	return v.page(http.StatusOK, "settings", "settings", p)
}

// brief writes a length of time in hours, minutes or seconds: the largest of which
// it is two or more, or that it is exactly.
func (v *visit) brief(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		text string
	}{{time.Hour, "settings.hours"}, {time.Minute, "settings.minutes"}} {
		if d >= 2*u.unit || d == u.unit {
			return v.t(u.text, int(d.Round(u.unit)/u.unit))
		}
	}
	return v.t("settings.seconds", int(d/time.Second))
}

// guarded is what guesses are made at.
type guarded struct {
	where    string
	guessing func(context.Context, account.Actor) ([]guess.Suspect, error)
	forgive  func(context.Context, account.Actor, string) error
}

func (s *server) guarded() []guarded {
	return []guarded{
		{"signin", s.Accounts.Guessing, s.Accounts.Forgive},
		{"redeem", s.Redemptions.Guessing, s.Redemptions.Forgive},
		{"machine", s.Fleet.Guessing, s.Fleet.Forgive},
	}
}

// limited lists who has guessed often, at whatever.
func (s *server) limited(v *visit) ([]limited, error) {
	var all []limited
	ids := map[int64]bool{}
	for _, g := range s.guarded() {
		list, err := g.guessing(v.ctx(), v.actor())
		if err != nil {
			return nil, err
		}
		for _, suspect := range list {
			all = append(all, limited{Suspect: suspect, Where: g.where, Out: suspect.Failed >= int64(s.GuessLimit)})
			ids[suspect.AccountID] = true
		}
	}
	names, err := s.Accounts.Names(v.ctx(), v.actor(), positive(ids))
	if err != nil {
		return nil, err
	}
	mine := map[int64]bool{0: true} // what is no account's
	for id := range ids {
		if mine[id], err = s.mayDecide(v, id); err != nil {
			return nil, err
		}
	}
	for i := range all {
		all[i].Username, all[i].Mine = names[all[i].AccountID], mine[all[i].AccountID]
	}
	return all, nil
}

// mayDecide reports whether who looks may decide about an account.
func (s *server) mayDecide(v *visit, id int64) (bool, error) {
	by := v.actor()
	if id <= 0 || by.Role >= account.RoleRoot {
		return true, nil
	}
	u, err := s.Accounts.Get(v.ctx(), by, id)
	if refusal.CodeOf(err) == refusal.AccountNotFound {
		return false, nil
	}
	return err == nil && by.MustBeOver(u) == nil, err
}

// forgive lets somebody guess again.
func (s *server) forgive(v *visit) error {
	for _, g := range s.guarded() {
		if g.where != v.r.PostFormValue("where") {
			continue
		}
		if err := g.forgive(v.ctx(), v.actor(), v.r.PostFormValue("subject")); err != nil {
			return err
		}
		v.say(v.t("settings.forgiven"))
		return v.redirect("/settings")
	}
	return refusal.New(refusal.InvalidRequest)
}

// merchantPage is a merchant, or the form for a new one.
type merchantPage struct {
	fleet.Merchant
	Once    string
	Shown   bool // the app key is
	New     bool // it was made just now
	Problem string
	Example example
}

// example is a message as a merchant's machines get it.
type example struct {
	Signed string // the text that is signed
	Sent   string // the payload
}

// styleOf reads the forms of messages; what is not there is the default.
func styleOf(get func(string) string) fleet.Style {
	s := fleet.Style{Payload: fleet.PayloadJSON, Signature: fleet.SignatureRaw, Expiry: fleet.ExpiryMilliseconds}
	if get("payload") == string(fleet.PayloadBase64) {
		s.Payload = fleet.PayloadBase64
	}
	if get("signature") == string(fleet.SignaturePercentEncoded) {
		s.Signature = fleet.SignaturePercentEncoded
	}
	if get("expiry") == string(fleet.ExpirySeconds) {
		s.Expiry = fleet.ExpirySeconds
	}
	return s
}

// exampleOf writes a message about a made-up code. It is to be looked at: what
// machines are sent, the broker writes.
func exampleOf(style fleet.Style) example {
	expires := time.Date(2026, 12, 31, 15, 59, 59, 0, time.UTC)
	number := expires.UnixMilli()
	if style.Expiry == fleet.ExpirySeconds {
		number = expires.Unix()
	}
	day := "2026-12-31 23:59:59"
	members := [][2]string{ // in the order of their names, as they are signed
		{"client_id", "16327138"},
		{"code", "04739921"},
		{"expired_at", plain(number)},
		{"expired_day", day},
		{"id", "1001"},
		{"machine_id", "7"},
		{"method", "client.pickup_codes.create"},
		{"product_id", "12"},
		{"quantity", "1"},
		{"status", "0"},
		{"timestamp", "1798732799"},
		{"used", "0"},
	}
	var signed, sent strings.Builder
	for _, m := range members {
		value := m[1]
		if style.Signature == fleet.SignaturePercentEncoded {
			value = url.QueryEscape(value)
		}
		signed.WriteString(m[0] + "=" + value + "&")
	}
	signed.WriteString("key=…")
	sent.WriteString("{")
	for i, m := range members {
		if i > 0 {
			sent.WriteString(",")
		}
		sent.WriteString(strconv.Quote(m[0]) + ":" + strconv.Quote(m[1]))
		if m[0] == "quantity" {
			sent.WriteString(`,"sign":"5D41402ABC4B2A76B9719D911017C592"`)
		}
	}
	sent.WriteString("}")
	e := example{Signed: signed.String(), Sent: sent.String()}
	if style.Payload == fleet.PayloadBase64 {
		e.Sent = base64.StdEncoding.EncodeToString([]byte(e.Sent))
	}
	return e
}

func (s *server) exampleMessage(v *visit) error {
	return v.part("merchant", "example", exampleOf(styleOf(v.r.FormValue)))
}

func (s *server) newMerchantPage(v *visit) error {
	style := styleOf(func(string) string { return "" })
	return v.page(http.StatusOK, "merchant", "settings", merchantPage{
		Merchant: fleet.Merchant{Style: style}, Once: newOnce(), Example: exampleOf(style),
	})
}

// newMerchant makes a merchant. Sent twice, the second time leads to the list.
func (s *server) newMerchant(v *visit) error {
	p := merchantPage{Once: v.r.PostFormValue("once")}
	p.Name, p.AppKey, p.Style = v.r.PostFormValue("name"), strings.TrimSpace(v.r.PostFormValue("app_key")), styleOf(v.r.PostFormValue)
	var made fleet.Merchant
	err := v.once(func(ctx context.Context, once *account.Once) (err error) {
		made, err = s.Fleet.CreateMerchant(ctx, v.actor(), p.Merchant, once)
		return err
	})
	if err != nil {
		if p.Problem, err = v.refused(err); err != nil {
			return err
		}
		p.Once, p.Example = newOnce(), exampleOf(p.Style)
		return v.page(http.StatusUnprocessableEntity, "merchant", "settings", p)
	}
	if made.ID == 0 {
		return v.redirect("/settings")
	}
	v.say(v.t("settings.merchant_made", made.Name))
	return v.redirect("/settings/merchants/" + plain(made.ID))
}

func (s *server) merchantPage(v *visit) error {
	return s.showMerchant(v, http.StatusOK, merchantPage{})
}

func (s *server) showMerchant(v *visit, status int, p merchantPage) error {
	m, err := s.Fleet.Merchant(v.ctx(), v.actor(), v.pathID())
	if err != nil {
		return err
	}
	if p.Problem != "" { // what was typed stays
		m.Name, m.Style = p.Name, p.Style
	}
	if !p.Shown {
		m.AppKey = ""
	}
	p.Merchant, p.Example = m, exampleOf(m.Style)
	return v.page(status, "merchant", "settings", p)
}

func (s *server) changeMerchant(v *visit) error {
	name, style := v.r.PostFormValue("name"), styleOf(v.r.PostFormValue)
	m, err := s.Fleet.ChangeMerchant(v.ctx(), v.actor(), v.pathID(), fleet.MerchantChange{
		Name: &name, Payload: &style.Payload, Signature: &style.Signature, ExpiryUnit: &style.Expiry,
	})
	if err != nil {
		if refusal.CodeOf(err) == refusal.MerchantNotFound {
			return err
		}
		p := merchantPage{Merchant: fleet.Merchant{Name: v.r.PostFormValue("name"), Style: style}}
		if p.Problem, err = v.refused(err); err != nil {
			return err
		}
		return s.showMerchant(v, http.StatusUnprocessableEntity, p)
	}
	v.say(v.t("settings.merchant_changed", m.Name))
	return v.redirect("/settings/merchants/" + plain(m.ID))
}

func (s *server) revealAppKey(v *visit) error {
	if _, err := s.Fleet.RevealAppKey(v.ctx(), v.actor(), v.pathID()); err != nil {
		return err
	}
	return s.showMerchant(v, http.StatusOK, merchantPage{Shown: true})
}

// newAppKey gives a merchant another app key, made up or brought along, and shows
// it.
func (s *server) newAppKey(v *visit) error {
	key := strings.TrimSpace(v.r.PostFormValue("app_key"))
	if key == "" {
		key = account.NewToken()
	}
	_, err := s.Fleet.ChangeMerchant(v.ctx(), v.actor(), v.pathID(), fleet.MerchantChange{AppKey: &key})
	if err != nil {
		if refusal.CodeOf(err) != refusal.MerchantAppKey {
			return err
		}
		old, err2 := s.Fleet.Merchant(v.ctx(), v.actor(), v.pathID())
		if err2 != nil {
			return err2
		}
		p := merchantPage{Merchant: old}
		if p.Problem, err = v.refused(err); err != nil {
			return err
		}
		return s.showMerchant(v, http.StatusUnprocessableEntity, p)
	}
	return s.showMerchant(v, http.StatusOK, merchantPage{Shown: true, New: true})
}
