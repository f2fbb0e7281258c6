package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/web"
)

// uniqueKeyMax bounds an Idempotency-Key, in bytes.
const uniqueKeyMax = 255

// unique is a request with an Idempotency-Key: it takes effect once, and is
// answered the same from then on.
type unique struct {
	scope, request account.Hash
	ring           *keyring.Ring // of the try under way
}

// checkUniqueKey takes the header's values and returns the key.
func checkUniqueKey(values []string) (string, error) {
	if len(values) != 1 || values[0] == "" {
		return "", &fault{hint: hintIdempotencyKey}
	}
	key := values[0]
	if len(key) > uniqueKeyMax {
		return "", refusal.New(refusal.IdempotencyKeyTooLong)
	}
	return key, nil
}

// scopeOf is a hash of the parts. Each follows its length, so that no two lists
// of parts have the same.
func scopeOf(parts ...string) account.Hash {
	var b []byte
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(p)))
		b = append(b, p...)
	}
	return sha256.Sum256(b)
}

// tryOnce answers a request with an Idempotency-Key.
func (c *call) tryOnce(ctx context.Context, rt *route, header []string) (answer, error) {
	key, err := checkUniqueKey(header)
	if err != nil {
		return answer{}, err
	}
	body, err := c.readBody()
	if err != nil {
		return answer{}, err
	}
	u := &unique{
		scope:   scopeOf(strconv.FormatInt(c.user.ID, 10), c.r.Method, c.r.URL.Path, key),
		request: sha256.Sum256(body),
	}
	replay, err := c.s.Accounts.Recall(ctx, u.scope)
	if err != nil {
		return answer{}, err
	}
	if replay != nil {
		return c.replay(ctx, u, replay)
	}

	if c.surface == v1 {
		if err := c.s.runs.begin(u); err != nil {
			return answer{}, err
		}
		defer c.s.runs.end(u)
	}

	c.unique = u
	var data any
	err = c.s.Keys.Use(ctx, func(ring *keyring.Ring) (err error) {
		u.ring = ring
		data, err = rt.do(c)
		return err
	})
	if err == nil {
		return c.success(data)
	}
	if replay, ok := errors.AsType[*account.Replay](err); ok { // a twin was first
		return c.replay(ctx, u, replay)
	}
	if e, ok := asRefusal(err); ok {
		return c.remember(ctx, u, c.explain(e, err))
	}
	return answer{}, err
}

// runs is the requests to /api/v1 with an Idempotency-Key that are under way, and
// so never more than there are requests.
type runs struct {
	mu     sync.Mutex
	bodies map[account.Hash]account.Hash // fingerprints, by scope
}

// begin refuses a request whose twin is under way.
func (r *runs) begin(u *unique) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, ok := r.bodies[u.scope]
	switch {
	case ok && body != u.request:
		return refusal.New(refusal.IdempotencyKeyReused)
	case ok:
		return refusal.Later(refusal.IdempotencyKeyBusy, time.Second)
	}
	r.bodies[u.scope] = u.request
	return nil
}

func (r *runs) end(u *unique) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.bodies, u.scope)
}

// onceFor is call.once for a use case whose result is an R.
func onceFor[R any](c *call, data func(R) any) *account.Once {
	return c.once(func(result any) any { return data(result.(R)) })
}

// once is what makes the use case under way take effect once; nil if the
// request does not ask for that. Data makes the answer's data of the use case's
// result; nil means that they are the same.
func (c *call) once(data func(any) any) *account.Once {
	u := c.unique
	if u == nil {
		return nil
	}
	ring := u.ring
	return &account.Once{
		Caller: c.user.ID, Scope: u.scope, Request: u.request, At: c.s.Now(), Epoch: ring.Epoch(),
		Answer: func(result any) []byte {
			if data != nil {
				result = data(result)
			}
			a, err := c.success(result)
			if err != nil {
				panic(err) // then the answer itself could not be made either
			}
			return ring.Seal(account.AnswerContext(u.scope), a.stored())
		},
	}
}

// isOrdinary reports whether a refusal is for what was asked. All others are for
// who asks, or waiting changes them.
func (a *answer) isOrdinary() bool {
	switch a.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests,
		http.StatusServiceUnavailable:
		return false
	}
	return a.code != refusal.Unavailable && a.code != refusal.IdempotencyKeyBusy
}

// remember stores an ordinary refusal and returns what to answer. Others are not
// stored: then the key is free for the next try.
func (c *call) remember(ctx context.Context, u *unique, a answer) (answer, error) {
	if !a.isOrdinary() {
		return a, nil
	}
	err := c.s.Keys.Use(ctx, func(ring *keyring.Ring) error {
		return c.s.Accounts.Remember(ctx, &account.Once{
			Caller: c.user.ID, Scope: u.scope, Request: u.request, At: c.s.Now(), Epoch: ring.Epoch(),
			Answer: func(any) []byte { return ring.Seal(account.AnswerContext(u.scope), a.stored()) },
		})
	})
	if replay, ok := errors.AsType[*account.Replay](err); ok {
		return c.replay(ctx, u, replay)
	}
	return a, err
}

// replay answers again what was answered before.
func (c *call) replay(ctx context.Context, u *unique, r *account.Replay) (answer, error) {
	if r.Request != u.request {
		return answer{}, refusal.New(refusal.IdempotencyKeyReused)
	}
	var plain []byte
	err := c.s.Keys.Use(ctx, func(ring *keyring.Ring) (err error) {
		plain, err = ring.Open(account.AnswerContext(u.scope), r.Answer)
		return err
	})
	if err != nil {
		return answer{}, fmt.Errorf("opening a stored answer: %w", err)
	}
	return restored(plain)
}

// stored is an answer as it is kept: status, language, code and, if it has one,
// location in a line of their own, and the body.
func (a *answer) stored() []byte {
	line := fmt.Appendf(nil, "%d,%d,%s", a.status, a.lang, a.code)
	if a.location != "" {
		line = append(append(line, ','), a.location...)
	}
	return append(append(line, '\n'), a.body...)
}

func restored(b []byte) (answer, error) {
	line, body, ok := bytes.Cut(b, []byte("\n"))
	f := bytes.Split(line, []byte(","))
	if !ok || len(f) != 3 && len(f) != 4 {
		return answer{}, errStoredAnswer
	}
	var location string
	if len(f) == 4 {
		location = string(f[3])
	}
	status, err1 := strconv.Atoi(string(f[0]))
	lang, err2 := strconv.Atoi(string(f[1]))
	if errors.Join(err1, err2) != nil || lang < 0 || lang >= int(web.Tongues) {
		return answer{}, errStoredAnswer
	}
	return answer{
		status: status, lang: web.Tongue(lang), code: refusal.Code(f[2]), location: location, body: body, replayed: true,
	}, nil
}

var errStoredAnswer = errors.New("a stored answer is not in the form that this program writes")
