package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"strconv"
	"strings"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// newOnce is the value of the field "once" of a form that is to take effect once,
// however often its button is pressed.
func newOnce() string { return rand.Text() }

// once calls do, whose effect is that of a form with the field "once": sent a
// second time it has none, and no error. It refuses with
// refusal.IdempotencyKeyReused a form that was sent before with something else in
// it: a page that was gone back to.
func (v *visit) once(do func(ctx context.Context, once *account.Once) error) error {
	scope := account.Hash(sha256.Sum256([]byte(strings.Join([]string{
		"console", strconv.FormatInt(v.user.ID, 10), v.r.URL.Path, v.r.PostFormValue("once"),
	}, "\x00"))))
	request := account.Hash(sha256.Sum256([]byte(v.r.PostForm.Encode())))
	replay, err := v.s.Accounts.Recall(v.ctx(), scope)
	if err != nil {
		return err
	}
	if replay != nil {
		return sentBefore(replay, request)
	}
	err = v.s.Keys.Use(v.ctx(), func(ring *keyring.Ring) error {
		return do(v.ctx(), &account.Once{
			Caller: v.user.ID, Scope: scope, Request: request, At: v.s.Now(), Epoch: ring.Epoch(),
			Answer: func(any) []byte { return ring.Seal(account.AnswerContext(scope), []byte("done")) },
		})
	})
	if replay, twin := errors.AsType[*account.Replay](err); twin {
		return sentBefore(replay, request)
	}
	return err
}

func sentBefore(replay *account.Replay, request account.Hash) error {
	if replay.Request != request {
		return refusal.New(refusal.IdempotencyKeyReused)
	}
	return nil
}

// origin is the address of this server as the visitor knows it.
func (v *visit) origin() string {
	scheme := "http"
	if v.s.SecureCookies || v.r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + v.r.Host
}

// amount reads a whole number as people type it: with groups, and a sign.
func amount(text string) (int64, bool) {
	text = strings.NewReplacer(",", "", " ", "", "\u00a0", "", "\u202f", "", "_", "", "，", "", "−", "-", "＋", "+").Replace(text)
	text = strings.Map(func(r rune) rune {
		if r >= '０' && r <= '９' {
			return r - '０' + '0'
		}
		return r
	}, text)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil { // what is too large is none
		return 0, false
	}
	return n, true
}

// pathID reads the id in the path; nothing has the id 0.
func (v *visit) pathID() int64 { return wholeNumber(v.r.PathValue("id")) }

// cursor reads where a page of a list begins; 0 for the first.
func (v *visit) cursor() int64 { return wholeNumber(v.r.FormValue("before")) }
