// Package redemption holds redemption codes: what they are, the rules they
// obey, and the use cases that issue, change, list, redeem and remove them.
// Imports: account, guess, keyring, refusal and the standard library.
package redemption

import (
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// Status is what a code is. The numbers are part of the redemption API.
// Expired is not a status: an enabled code may be past its time.
type Status int

// The statuses of a code.
const (
	StatusEnabled  Status = 1
	StatusDisabled Status = 2
	StatusUsed     Status = 3
)

// Code is one redemption code without its key.
type Code struct {
	ID        int64
	CreatorID int64 // the admin who issued it
	Name      string
	Status    Status
	Quota     int64 // what it is worth
	Created   time.Time
	Redeemed  time.Time // zero: not redeemed
	Expires   time.Time // zero: never
	UsedBy    int64     // who redeemed it, 0 if nobody
}

// Expired reports whether the code is enabled but past its time at now. Codes
// live to the end of the second that they name.
func (c *Code) Expired(now time.Time) bool {
	return c.Status == StatusEnabled && past(c.Expires, now)
}

// past reports whether t is before the second that now is in; never if zero.
func past(t, now time.Time) bool { return !t.IsZero() && t.Before(Second(now)) }

// Second is the beginning of the second that t is in: expiry is compared in
// whole seconds, which is what the redemption API's times are.
func Second(t time.Time) time.Time { return t.Truncate(time.Second) }

// Refuse says why the code cannot be redeemed by that account at now; nil if
// it can.
func (c *Code) Refuse(by int64, now time.Time) error {
	switch {
	case c.Status == StatusUsed && c.UsedBy == by:
		return refusal.New(refusal.RedemptionUsedByYou)
	case c.Status == StatusUsed:
		return refusal.New(refusal.RedemptionUsed)
	case c.Status == StatusDisabled:
		return refusal.New(refusal.RedemptionDisabled)
	case c.Expired(now):
		return refusal.New(refusal.RedemptionExpired)
	}
	return nil
}

// Bounds of what makes a code.
const (
	NameMax  = 20 // characters
	CountMax = 100
)

// latestExpiry is the last second that a code may expire in: the end of year
// 9999, beyond which no calendar writes dates. It also catches milliseconds
// given for seconds.
const latestExpiry = 253402300799

// cleanName trims a name and checks it.
func cleanName(name string) (string, error) {
	name = strings.TrimSpace(name)
	if n := utf8.RuneCountInString(name); n < 1 || n > NameMax {
		return "", refusal.New(refusal.RedemptionNameLength)
	}
	if !account.CleanText(name) {
		return "", refusal.New(refusal.RedemptionNameCharacters)
	}
	return name, nil
}

func checkQuota(quota int64) error {
	if quota <= 0 {
		return refusal.New(refusal.RedemptionQuota)
	}
	return nil
}

func checkExpiry(t, now time.Time) error {
	switch {
	case t.IsZero():
		return nil
	case t.Unix() > latestExpiry:
		return refusal.New(refusal.RedemptionExpiryRange)
	case past(t, now):
		return refusal.New(refusal.RedemptionExpiry)
	}
	return nil
}

// Normalize is the form of a key that is stored and looked up: without
// surrounding spaces, without hyphens, in lower case. An empty result means
// that there is no key in text.
func Normalize(text string) string {
	return strings.ToLower(strings.TrimSpace(strings.ReplaceAll(text, "-", "")))
}

// Change is what an admin changes about a code. Nil fields stay as they are.
type Change struct {
	Name    *string
	Quota   *int64
	Expires *time.Time
	Status  *Status
}

// Apply decides what the code is after the change and which entries go into
// the ledger: one for its fields, one for its status, each only if something
// is different. A store calls it inside the transaction that writes the result,
// with the code as it stands there.
//
// It refuses with RedemptionStatus, RedemptionUsedUnchanging, and the reasons
// for which a batch is refused.
func (ch Change) Apply(old Code, now time.Time) (Code, []account.Entry, error) {
	c := old
	if ch.Name != nil {
		name, err := cleanName(*ch.Name)
		if err != nil {
			return old, nil, err
		}
		c.Name = name
	}
	if ch.Quota != nil && *ch.Quota != old.Quota {
		if err := checkQuota(*ch.Quota); err != nil {
			return old, nil, err
		}
		c.Quota = *ch.Quota
	}
	if ch.Expires != nil && !ch.Expires.Equal(old.Expires) {
		if err := checkExpiry(*ch.Expires, now); err != nil {
			return old, nil, err
		}
		c.Expires = *ch.Expires
	}
	if ch.Status != nil {
		if *ch.Status != StatusEnabled && *ch.Status != StatusDisabled {
			return old, nil, refusal.New(refusal.RedemptionStatus)
		}
		c.Status = *ch.Status
	}
	if old.Status == StatusUsed && (c.Status != old.Status || c.Quota != old.Quota || !c.Expires.Equal(old.Expires)) {
		return old, nil, refusal.New(refusal.RedemptionUsedUnchanging)
	}
	return c, entries(old, c), nil
}

func entries(old, c Code) []account.Entry {
	var out []account.Entry
	if d := changes(old, c); d != "" {
		out = append(out, account.Entry{
			Kind: account.KindChange, FirstID: c.ID, LastID: c.ID, Count: 1, Amount: c.Quota, Detail: d,
		})
	}
	if c.Status != old.Status {
		kind := account.KindEnable
		if c.Status == StatusDisabled {
			kind = account.KindDisable
		}
		out = append(out, account.Entry{Kind: kind, FirstID: c.ID, LastID: c.ID, Count: 1, Amount: c.Quota})
	}
	return out
}

// changes writes what differs as a JSON object, {"name":["from","to"],…}; empty
// if nothing does.
func changes(old, c Code) string {
	d := map[string][2]any{}
	if c.Name != old.Name {
		d["name"] = [2]any{old.Name, c.Name}
	}
	if c.Quota != old.Quota {
		d["quota"] = [2]any{old.Quota, c.Quota}
	}
	if !c.Expires.Equal(old.Expires) {
		d["expired_time"] = [2]any{unix(old.Expires), unix(c.Expires)}
	}
	if len(d) == 0 {
		return ""
	}
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // texts and numbers always marshal
	}
	return string(b)
}

// unix is a time in the redemption API's seconds; 0 for none.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
