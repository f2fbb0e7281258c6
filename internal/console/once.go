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
	_, err := v.onceAnswered(func(any) string { return "done" }, do)
	return err
}

// onceAnswered is once for a form of whose effect something is to be known when it
// is sent a second time: what answer made of the first one's result. The first time
// it is empty.
func (v *visit) onceAnswered(
	answer func(result any) string, do func(ctx context.Context, once *account.Once) error,
) (before string, err error) {
	scope := account.Hash(sha256.Sum256([]byte(strings.Join([]string{
		"console", strconv.FormatInt(v.user.ID, 10), v.r.URL.Path, v.r.PostFormValue("once"),
	}, "\x00"))))
	request := account.Hash(sha256.Sum256([]byte(v.r.PostForm.Encode())))
	replay, err := v.s.Accounts.Recall(v.ctx(), scope)
	if err != nil {
		return "", err
	}
	if replay != nil {
		return v.sentBefore(replay, scope, request)
	}
	err = v.s.Keys.Use(v.ctx(), func(ring *keyring.Ring) error {
		return do(v.ctx(), &account.Once{
			Caller: v.user.ID, Scope: scope, Request: request, At: v.s.Now(), Epoch: ring.Epoch(),
			Answer: func(result any) []byte { return ring.Seal(account.AnswerContext(scope), []byte(answer(result))) },
		})
	})
	if replay, twin := errors.AsType[*account.Replay](err); twin {
		return v.sentBefore(replay, scope, request)
	}
	return "", err
}

// sentBefore is what was answered when the form was sent before.
func (v *visit) sentBefore(replay *account.Replay, scope, request account.Hash) (answer string, err error) {
	if replay.Request != request {
		return "", refusal.New(refusal.IdempotencyKeyReused)
	}
	err = v.s.Keys.Use(v.ctx(), func(ring *keyring.Ring) error {
		plain, err := ring.Open(account.AnswerContext(scope), replay.Answer)
		answer = string(plain)
		return err
	})
	return answer, err
}

// origin is the address of this server as the visitor knows it.
func (v *visit) origin() string {
	scheme := "http"
	if v.secure() {
		scheme = "https"
	}
	return scheme + "://" + v.r.Host
}

// amount reads a whole number as people type it: with a sign, and with marks before
// groups of three digits. A mark elsewhere may be meant as a decimal point: that is
// no whole number.
func amount(text string) (int64, bool) {
	text = strings.Map(func(r rune) rune {
		switch {
		case r >= '０' && r <= '９':
			return r - '０' + '0'
		case r == '−':
			return '-'
		case r == '＋':
			return '+'
		case strings.ContainsRune(" \u00a0\u202f_，’'", r):
			return ','
		}
		return r
	}, strings.TrimSpace(text))
	groups := strings.Split(text, ",")
	for i, group := range groups[1:] {
		first := len(strings.TrimLeft(groups[0], "+-"))
		if len(group) != 3 || i == 0 && (first < 1 || first > 3) {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(strings.Join(groups, ""), 10, 64)
	if err != nil { // what is too large is none
		return 0, false
	}
	return n, true
}

// pathID reads the id in the path; nothing has the id 0.
func (v *visit) pathID() int64 { return wholeNumber(v.r.PathValue("id")) }

// cursor reads where a page of a list begins; 0 for the first.
func (v *visit) cursor() int64 { return wholeNumber(v.r.FormValue("before")) }
