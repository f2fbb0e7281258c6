package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/web"
)

// surface is a part of the API with answers of its own form.
type surface int

const (
	dropIn surface = iota // for existing clients: envelopes, and HTTP 200 for nearly all
	v1                    // our own: objects, problems and real statuses
)

func surfaceOf(path string) surface {
	if path == "/api/v1" || strings.HasPrefix(path, "/api/v1/") {
		return v1
	}
	return dropIn
}

// tongue is the language of those who do not say which they like: Chinese is
// what existing clients show as it comes.
func (s surface) tongue() web.Tongue {
	if s == v1 {
		return web.English
	}
	return web.Chinese
}

func (s surface) contentType(a *answer) string {
	if s == v1 && a.code != "" {
		return "application/problem+json"
	}
	return "application/json; charset=utf-8"
}

// envelope is the form of every answer of the drop-in surface.
type envelope struct {
	Success bool         `json:"success"`
	Message string       `json:"message"`
	Code    refusal.Code `json:"code,omitempty"`
	Data    any          `json:"data,omitempty"`
}

// created is a new object of /api/v1, and the path that it has from now on.
type created struct {
	location string
	object   any
}

// answer is what is sent.
type answer struct {
	status   int
	code     refusal.Code // empty for a success
	lang     web.Tongue
	location string // of what was created
	body     []byte
	wait     time.Duration
	replayed bool
}

// success is the answer to a request that was done. Data may be a created, and
// is nil for none.
func (c *call) success(data any) (answer, error) {
	a := answer{status: http.StatusOK, lang: c.lang}
	if c.surface == dropIn {
		data = envelope{Success: true, Data: data}
	}
	switch d := data.(type) {
	case nil:
		a.status = http.StatusNoContent
		return a, nil
	case created:
		a.status, a.location, data = http.StatusCreated, d.location, d.object
	}
	body, err := json.Marshal(data)
	if err != nil {
		return answer{}, fmt.Errorf("encoding the answer: %w", err)
	}
	a.body = body
	return a, nil
}

// refusalAnswer is what a refusal is answered with: its statuses, its words, and
// the drop-in surface's body in each language, made once.
type refusalAnswer struct {
	status web.Status
	words  web.Words
	bodies [web.Tongues][]byte
}

func refusalAnswers() map[refusal.Code]refusalAnswer {
	texts := web.Messages()
	out := make(map[refusal.Code]refusalAnswer, len(texts))
	for code, status := range web.Statuses() {
		a := refusalAnswer{status: status, words: texts[code]}
		for l := range web.Tongues {
			a.bodies[l] = refusalBody(code, a.words.In(l))
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
	r := c.s.refusals[e.Code]
	a := answer{status: c.surface.status(r.status), code: e.Code, lang: c.lang, wait: e.RetryAfter}
	if a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable {
		a.wait = max(a.wait, time.Second)
	}
	if c.surface == v1 {
		a.body = c.problem(&a, r.words.In(c.lang))
	} else {
		a.body = r.bodies[c.lang]
	}
	return a
}

// explain is refuse, with the words of a fault if err is one.
func (c *call) explain(e *refusal.Error, err error) answer {
	a := c.refuse(e)
	f, ok := errors.AsType[*fault](err)
	if !ok {
		return a
	}
	text := f.in(c.s.hints, c.lang)
	if c.surface == v1 {
		a.body = c.problem(&a, text)
	} else {
		a.body = refusalBody(e.Code, text)
	}
	return a
}

func asRefusal(err error) (*refusal.Error, bool) { return errors.AsType[*refusal.Error](err) }

func (s surface) status(p web.Status) int {
	if s == v1 {
		return p.HTTP
	}
	return p.DropIn
}
