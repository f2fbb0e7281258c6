package console

import (
	"cmp"
	"context"
	"encoding/json"
	"html"
	"html/template"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/web"
)

// entryView is an entry of the ledger as a sentence.
type entryView struct {
	ID   int64
	Kind account.Kind
	At   time.Time
	// Tone is the class of the mark beside it: live, wait, bad or over.
	Tone string
	// Text says who did what to what; Note what else there is to it, if anything.
	Text, Note template.HTML
	From       string // where they were
	// Place is where the entry stands, as lane:seq.
	Place string
}

// entries are sentences of entries, which the template "story" lists.
func (s *server) entries(ctx context.Context, v *visit, list []account.Entry) ([]entryView, error) {
	if len(list) == 0 {
		return nil, nil
	}
	users, machines, err := s.named(ctx, v.actor(), list)
	if err != nil {
		return nil, err
	}
	b := teller{s, v.lang, users, machines}
	views := make([]entryView, len(list))
	for i := range list {
		views[i] = b.tell(&list[i])
	}
	return views, nil
}

func positive(ids map[int64]bool) []int64 {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(ids)), func(id int64) bool { return id <= 0 })
}

// teller tells entries.
type teller struct {
	s        *server
	lang     web.Tongue
	users    map[int64]string
	machines map[int64]fleet.Named
}

// link is a value in a text that leads somewhere.
type link struct{ text, href string }

// rich is a text with values in it: links, HTML that is safe already, and texts,
// which stand out.
func (b *teller) rich(key string, values ...any) template.HTML {
	places := make([]any, len(values))
	var parts []string
	for i, v := range values {
		var as string
		switch v := v.(type) {
		case int: // how many, for the plural
			places[i] = v
			continue
		case link:
			as = `<a href="` + html.EscapeString(v.href) + `">` + html.EscapeString(v.text) + `</a>`
		case template.HTML:
			as = string(v)
		case string:
			as = `<b>` + html.EscapeString(v) + `</b>`
		}
		place := "\x01" + strconv.Itoa(i) + "\x02"
		places[i] = place
		parts = append(parts, place, as)
	}
	text := html.EscapeString(b.s.texts.in(b.lang, key, places...))
	return template.HTML(strings.NewReplacer(parts...).Replace(text)) //nolint:gosec // G203: all of it was escaped above
}

func (b *teller) t(key string, values ...any) string { return b.s.texts.in(b.lang, key, values...) }

// who is an account, or who acts without one.
func (b *teller) who(id int64, e *account.Entry) any {
	switch {
	case id < 0:
		return b.machine(e)
	case id == 0 && e.Kind == account.KindCheckpoint:
		return b.t("story.server")
	case id == 0:
		return b.t("story.operator")
	case b.users[id] == "":
		return link{b.t("story.user", plain(id)), "/users/" + plain(id)}
	}
	return link{b.users[id], "/users/" + plain(id)}
}

func (b *teller) machine(e *account.Entry) any {
	m, ok := b.machines[e.MachineID]
	if !ok {
		return plain(e.MachineID)
	}
	if m.Deleted {
		return m.No
	}
	return link{m.No, "/machines/" + m.No}
}

// codes are the codes that an entry is about.
func (b *teller) codes(e *account.Entry, name string) any {
	if e.FirstID == e.LastID {
		return link{"#" + plain(e.FirstID), "/codes/" + plain(e.FirstID)}
	}
	text := "#" + plain(e.FirstID) + "–" + plain(e.LastID)
	if name == "" {
		return text
	}
	return link{text, "/codes?batch=" + url.QueryEscape(name)}
}

// detail is what the JSON of an entry may say.
type detail struct {
	Name       json.RawMessage `json:"name"`
	Role       [2]account.Role `json:"role"`
	Reason     string          `json:"reason"`
	Link       bool            `json:"link"`
	Step       string          `json:"step"`
	MerchantID int64           `json:"merchant_id"`
	MachineNo  string          `json:"machine_no"`
	ProductID  int64           `json:"product_id"`
	Product    string          `json:"product"` // older entries do not say
	Slot       json.RawMessage `json:"slot"`
	Quantity   int64           `json:"quantity"`
	Where      string          `json:"where"`
	Address    string          `json:"address"`
}

func (b *teller) tell(e *account.Entry) entryView {
	v := entryView{
		ID: e.ID, Kind: e.Kind, At: e.At, From: e.Address, Tone: tone(e),
		Place: plain(e.Lane) + ":" + plain(e.Seq),
	}
	if e.Address == "local" {
		v.From = b.t("story.local")
	}
	var d detail
	_ = json.Unmarshal([]byte(e.Detail), &d) // what cannot be read is not said
	actor, subject := b.who(e.ActorID, e), b.who(e.AccountID, e)
	self := e.ActorID == e.AccountID
	number := mustNumber
	key := "story." + string(e.Kind)
	switch e.Kind {
	case account.KindIssue:
		v.Text = b.rich(key, few(e.Count), actor, number(e.Count), b.codes(e, text(d.Name)), number(e.Amount), text(d.Name))
	case account.KindChange:
		v.Text, v.Note = b.rich(key, actor, b.codes(e, "")), b.changes(e.Detail)
	case account.KindDisable, account.KindEnable, account.KindDelete:
		v.Text = b.rich(key, actor, b.codes(e, ""))
	case account.KindPurge:
		v.Text = b.rich(key, few(e.Count), actor, number(e.Count), b.codes(e, ""))
	case account.KindReveal:
		if d.MerchantID != 0 {
			v.Text = b.rich("story.reveal_merchant", actor, b.merchant(d.MerchantID, text(d.Name)))
			break
		}
		v.Text = b.rich(key, few(e.Count), actor, number(e.Count), b.codes(e, text(d.Name)))
	case account.KindRedeem:
		v.Text = b.rich(key, actor, b.codes(e, ""), number(e.Amount))
	case account.KindQuota:
		if e.Amount < 0 {
			v.Text = b.rich("story.quota_less", actor, subject, number(-e.Amount))
		} else {
			v.Text = b.rich(key, actor, subject, number(e.Amount))
		}
		if d.Reason != "" {
			v.Note = template.HTML(html.EscapeString(d.Reason)) //nolint:gosec // G203: escaped
		}
	case account.KindUserToken, account.KindUserSignOut, account.KindUserChange:
		if self {
			key += "_self"
		}
		v.Text = b.rich(key, actor, subject)
		v.Note = b.changes(e.Detail)
	case account.KindUserPassword:
		if d.Link {
			v.Text = b.rich("story.user_password_link", subject)
		} else {
			v.Text = b.rich(key, subject)
		}
	case account.KindUserCreate, account.KindUserEnable, account.KindUserDisable, account.KindUserLink:
		v.Text = b.rich(key, actor, subject)
	case account.KindUserRole:
		v.Text = b.rich(key, actor, subject, b.role(d.Role[0]), b.role(d.Role[1]))
	case account.KindGuessForgive:
		switch d.Where {
		case "signin", "redeem", "machine":
			key += "_" + d.Where
		}
		if e.AccountID == 0 {
			subject = d.Address
		}
		v.Text = b.rich(key, actor, subject, d.MachineNo)
	case account.KindRotate:
		switch d.Step {
		case "begin", "end":
			key += "_" + d.Step
		}
		v.Text = b.rich(key, actor)
	case account.KindCheckpoint:
		v.Text = b.rich(key, actor)
	case account.KindMerchantCreate:
		v.Text = b.rich(key, actor, b.merchant(d.MerchantID, text(d.Name)))
	case account.KindMerchantChange:
		v.Text, v.Note = b.rich(key, actor, b.merchant(d.MerchantID, "")), b.changes(e.Detail)
	case account.KindMachineCreate, account.KindMachinePassword, account.KindMachineDelete:
		v.Text = b.rich(key, actor, b.machine(e))
	case account.KindMachineChange:
		v.Text, v.Note = b.rich(key, actor, b.machine(e)), b.changes(e.Detail)
	case account.KindProductCreate, account.KindProductDelete:
		v.Text = b.rich(key, actor, b.machine(e), text(d.Name), text(d.Slot))
	case account.KindProductChange:
		v.Text, v.Note = b.rich(key, actor, b.machine(e), plain(d.ProductID)), b.changes(e.Detail)
	case account.KindPickupCreate:
		v.Text = b.rich(key, actor, b.machine(e), b.pickup(e), plain(d.Quantity), cmp.Or(d.Product, b.t("story.product", plain(d.ProductID))))
	case account.KindPickupWithdraw, account.KindPickupUse, account.KindPickupLateUse, account.KindPickupAcknowledge:
		v.Text = b.rich(key, actor, b.machine(e), b.pickup(e))
	default:
		v.Text = b.rich("story.other", actor, string(e.Kind))
	}
	return v
}

// tone is how an entry is marked.
func tone(e *account.Entry) string {
	switch e.Kind {
	case account.KindIssue, account.KindEnable, account.KindRedeem, account.KindUserEnable, account.KindPickupCreate,
		account.KindPickupUse:
		return "live"
	case account.KindQuota:
		if e.Amount < 0 {
			return "wait"
		}
		return "live"
	case account.KindPickupLateUse:
		return "bad"
	case account.KindDisable, account.KindDelete, account.KindPurge, account.KindReveal, account.KindUserDisable,
		account.KindMachineDelete, account.KindProductDelete, account.KindPickupWithdraw:
		return "wait"
	case account.KindChange, account.KindUserCreate, account.KindUserToken, account.KindUserChange, account.KindUserRole,
		account.KindUserPassword, account.KindUserSignOut, account.KindUserLink, account.KindGuessForgive, account.KindRotate, account.KindCheckpoint,
		account.KindMerchantCreate, account.KindMerchantChange, account.KindMachineCreate, account.KindMachineChange,
		account.KindMachinePassword, account.KindProductCreate, account.KindProductChange, account.KindPickupAcknowledge:
	}
	return "over"
}

func (b *teller) pickup(e *account.Entry) any {
	text := "#" + plain(e.FirstID)
	if m, ok := b.machines[e.MachineID]; ok && !m.Deleted {
		return link{text, "/machines/" + m.No + "#pickup-" + plain(e.FirstID)}
	}
	return text
}

func (b *teller) merchant(id int64, name string) any {
	if name == "" {
		name = b.t("story.merchant", plain(id))
	}
	return link{name, "/settings/merchants/" + plain(id)}
}

func (b *teller) role(r account.Role) string { return b.t("role." + strconv.Itoa(int(r))) }

// changes says from what to what an entry's detail has changed things: its
// members that are pairs.
func (b *teller) changes(detail string) template.HTML {
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(detail), &members) != nil {
		return ""
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		var pair [2]any
		if name == "app_key" {
			out = append(out, html.EscapeString(b.t("story.new_app_key")))
		}
		if members[name][0] != '[' || json.Unmarshal(members[name], &pair) != nil {
			continue
		}
		out = append(out, string(b.rich("story.from_to", template.HTML(html.EscapeString(b.t("story.member."+name))), //nolint:gosec // G203: escaped
			b.value(name, members[name], 0), b.value(name, members[name], 1))))
	}
	return template.HTML(strings.Join(out, "<br>")) //nolint:gosec // G203: of what is escaped
}

// value is one side of a change.
func (b *teller) value(member string, pair json.RawMessage, side int) any {
	var raw [2]json.RawMessage
	_ = json.Unmarshal(pair, &raw) // it was read before
	var n int64
	if json.Unmarshal(raw[side], &n) == nil {
		switch {
		case member == "expired_time" && n == 0:
			return b.t("story.never")
		case member == "expired_time":
			return moment("at", time.Unix(n, 0))
		}
		return mustNumber(n)
	}
	var yes bool
	if json.Unmarshal(raw[side], &yes) == nil {
		if yes {
			return b.t("story.on")
		}
		return b.t("story.off")
	}
	return text(raw[side])
}

// text is a JSON text; empty if it is none.
func text(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s) // then it is empty
	return s
}

func plain(n int64) string { return strconv.FormatInt(n, 10) }

// few is a number for a plural: 1, or more.
func few(n int64) int { return int(min(n, 2)) }

// mustNumber is number, which never fails of one.
func mustNumber(n int64) string {
	text, err := number(n)
	if err != nil {
		panic(err)
	}
	return text
}
