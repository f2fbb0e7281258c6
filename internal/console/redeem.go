package console

import (
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// historyLength is how many entries a page of one's own history has.
const historyLength = 20

// typedMax bounds what may be typed for a key, in bytes: it is shown again.
const typedMax = 256

// keyLength is how many characters a key has that Scrip made.
const keyLength = 32

// redeemPage is what the page for those who redeem shows.
type redeemPage struct {
	Key     string
	Problem string
	// From and Until are set while too many guesses have failed.
	From, Until time.Time
	Balance     int64
	History     []movement
	Later       bool  // the history does not begin with the newest
	Next        int64 // where its next page begins; 0: there is none
}

// movement is something that was credited, or taken.
type movement struct {
	At     time.Time
	Amount int64
	Less   bool
	Code   int64 // the code redeemed; 0: somebody changed the balance
	Reason string
}

func (s *server) redeemPage(v *visit) error {
	p := redeemPage{Key: typed(v.r.FormValue("key"))}
	if key := unspaced(p.Key); len(key) == keyLength {
		p.Key = grouped(key) // easier to compare with a card
	}
	return s.showRedeem(v, http.StatusOK, p)
}

func typed(key string) string {
	if len(key) > typedMax {
		key = key[:typedMax]
	}
	return strings.ToValidUTF8(strings.TrimSpace(key), "")
}

func (s *server) showRedeem(v *visit, status int, p redeemPage) error {
	before := v.cursor()
	entries, next, err := s.Accounts.History(v.ctx(), v.actor(), before, historyLength)
	if err != nil {
		return err
	}
	p.Balance, p.Later, p.Next = v.user.Quota, before != 0, next
	for i := range entries {
		p.History = append(p.History, movementOf(&entries[i]))
	}
	return v.page(status, "redeem", "redeem", p)
}

func movementOf(e *account.Entry) movement {
	m := movement{At: e.At, Amount: e.Amount, Less: e.Amount < 0}
	if e.Kind == account.KindRedeem {
		m.Code = e.FirstID
	} else {
		m.Reason = reasonOf(e)
	}
	return m
}

// redeem redeems a key. Anyone may send one: who is not signed in is asked to
// first, and finds it in the field then.
func (s *server) redeem(v *visit) error {
	key := typed(v.r.PostFormValue("key"))
	if v.user.ID == 0 {
		return v.redirect("/signin?next=" + url.QueryEscape("/redeem?key="+url.QueryEscape(key)))
	}
	credited, err := s.Redemptions.Redeem(v.ctx(), v.actor(), unspaced(key), nil)
	if refusal.CodeOf(err) == refusal.RedemptionUsedByYou {
		// Pressed twice, or come back to: the value is there.
		v.say(v.t("redeem.yours"))
		return v.redirect("/redeem")
	}
	if err == nil {
		v.say(v.t("redeem.done", mustNumber(credited)))
		return v.redirect("/redeem")
	}
	p := redeemPage{Key: key}
	if p.Problem, err = s.notRedeemed(v, err, &p); err != nil {
		return err
	}
	status := http.StatusUnprocessableEntity
	if !p.Until.IsZero() {
		status = http.StatusTooManyRequests
	}
	return s.showRedeem(v, status, p)
}

// notRedeemed is why a key was not redeemed, and until when none will be.
func (s *server) notRedeemed(v *visit, err error, p *redeemPage) (string, error) {
	if e, ok := errors.AsType[*refusal.Error](err); ok && e.RetryAfter > 0 {
		seconds := int64(math.Ceil(e.RetryAfter.Seconds()))
		v.w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
		p.From = s.Now()
		p.Until = p.From.Add(e.RetryAfter)
	}
	return v.refused(err)
}

// unspaced is a key as it may be typed or read out: with spaces anywhere, or in
// the wide letters of Chinese and Japanese keyboards.
func unspaced(key string) string {
	return redemption.Normalize(strings.Map(func(r rune) rune {
		switch {
		case r == '　' || r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '\u00a0' || r == '－' || r == '‐' || r == '–':
			return -1
		case r >= '！' && r <= '～':
			return r - '！' + '!'
		}
		return r
	}, key))
}
