package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/scrip-codes/scrip/internal/refusal"
)

// envelope is the form of every answer of the drop-in surface.
type envelope struct {
	Success bool         `json:"success"`
	Message string       `json:"message"`
	Code    refusal.Code `json:"code,omitempty"`
	Data    any          `json:"data,omitempty"`
}

// answer is an envelope as it is sent.
type answer struct {
	status   int
	code     refusal.Code // empty for a success
	lang     tongue
	body     []byte
	wait     time.Duration
	replayed bool
}

func (c *call) success(data any) (answer, error) {
	body, err := json.Marshal(envelope{Success: true, Data: data})
	if err != nil {
		return answer{}, fmt.Errorf("encoding the answer: %w", err)
	}
	return answer{status: http.StatusOK, lang: c.lang, body: body}, nil
}

// statusRefused is the status of an ordinary refusal.
const statusRefused = http.StatusOK

// refusalAnswer is what a refusal is answered with, made once: its status, and
// its body in each language.
type refusalAnswer struct {
	status int
	bodies [tongues][]byte
}

func refusalAnswers() map[refusal.Code]refusalAnswer {
	texts := messages()
	out := make(map[refusal.Code]refusalAnswer, len(texts))
	for code, status := range statuses() {
		a := refusalAnswer{status: status}
		for l := range tongues {
			a.bodies[l] = refusalBody(code, texts[code].in(l))
		}
		out[code] = a
	}
	return out
}

func refusalBody(code refusal.Code, message string) []byte {
	body, err := json.Marshal(envelope{Message: message, Code: code})
	if err != nil {
		panic(err) // two strings always marshal
	}
	return body
}

// refuse is the answer to a refusal.
func (c *call) refuse(e *refusal.Error) answer {
	a := c.s.refusals[e.Code]
	out := answer{status: a.status, code: e.Code, lang: c.lang, body: a.bodies[c.lang], wait: e.RetryAfter}
	if a.status == http.StatusTooManyRequests {
		out.wait = max(e.RetryAfter, time.Second)
	}
	return out
}

// explain is refuse, with the words of a fault if err is one.
func (c *call) explain(e *refusal.Error, err error) answer {
	a := c.refuse(e)
	if f, ok := errors.AsType[*fault](err); ok {
		a.body = refusalBody(e.Code, f.in(c.s.hints, c.lang))
	}
	return a
}

func asRefusal(err error) (*refusal.Error, bool) { return errors.AsType[*refusal.Error](err) }

// statuses is the HTTP status of each refusal on the drop-in surface. Its
// clients read success from the body, so nearly all are 200.
func statuses() map[refusal.Code]int {
	return map[refusal.Code]int{
		refusal.Unauthenticated:       http.StatusUnauthorized,
		refusal.Forbidden:             http.StatusForbidden,
		refusal.NoRoute:               http.StatusNotFound,
		refusal.MethodNotAllowed:      http.StatusMethodNotAllowed,
		refusal.BodyTooLarge:          http.StatusRequestEntityTooLarge,
		refusal.AccountTooManyGuesses: http.StatusTooManyRequests,
		refusal.TooBusy:               http.StatusTooManyRequests,

		refusal.RedemptionNotFound:       http.StatusOK,
		refusal.RedemptionKeyMissing:     http.StatusOK,
		refusal.RedemptionUnknown:        http.StatusOK,
		refusal.RedemptionUsed:           http.StatusOK,
		refusal.RedemptionUsedByYou:      http.StatusOK,
		refusal.RedemptionDisabled:       http.StatusOK,
		refusal.RedemptionExpired:        http.StatusOK,
		refusal.RedemptionNameLength:     http.StatusOK,
		refusal.RedemptionNameCharacters: http.StatusOK,
		refusal.RedemptionCountTooSmall:  http.StatusOK,
		refusal.RedemptionCountTooLarge:  http.StatusOK,
		refusal.RedemptionQuota:          http.StatusOK,
		refusal.RedemptionExpiry:         http.StatusOK,
		refusal.RedemptionExpiryRange:    http.StatusOK,
		refusal.RedemptionStatus:         http.StatusOK,
		refusal.RedemptionUsedUnchanging: http.StatusOK,
		refusal.AccountNotFound:          http.StatusOK,
		refusal.AccountNameTaken:         http.StatusOK,
		refusal.AccountNameInvalid:       http.StatusOK,
		refusal.AccountDisplayName:       http.StatusOK,
		refusal.AccountPassword:          http.StatusOK,
		refusal.AccountRole:              http.StatusOK,
		refusal.AccountRoleTooHigh:       http.StatusOK,
		refusal.AccountQuota:             http.StatusOK,
		refusal.AccountLastRoot:          http.StatusOK,
		refusal.AccountBalanceFull:       http.StatusOK,
		refusal.AccountWrongPassword:     http.StatusOK,
		refusal.AccountDisabled:          http.StatusOK,
		refusal.InvalidRequest:           http.StatusOK,
		refusal.InvalidJSON:              http.StatusOK,
		refusal.NotUTF8:                  http.StatusOK,
		refusal.IdempotencyKeyTooLong:    http.StatusOK,
		refusal.IdempotencyKeyReused:     http.StatusOK,
		refusal.Unavailable:              http.StatusOK,
		refusal.RedemptionListFailed:     http.StatusOK,
		refusal.RedemptionSearchFailed:   http.StatusOK,
		refusal.RedemptionDeleteFailed:   http.StatusOK,
	}
}
