// Package guess counts the failed guesses of an account or an address and says
// when one has had too many. Imports: refusal, and the standard library.
package guess

import (
	"container/list"
	"crypto/sha256"
	"math"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/refusal"
)

// Subjects bounds how many subjects a Limiter remembers. Past it the one whose
// window ends first is forgotten: it would have been the next to be anyway.
const Subjects = 1 << 17

// Limiter allows each subject a number of failed guesses in a window of time
// that begins with the first of them. It is safe for concurrent use. A nil
// Limiter allows everything.
type Limiter struct {
	limit  int
	window time.Duration
	now    func() time.Time

	mu      sync.Mutex
	windows map[string]*list.Element // of *window
	oldest  *list.List               // by start: all windows are of one length
}

type window struct {
	subject string
	start   time.Time
	failed  int
}

// New returns a Limiter of limit failed guesses a window. A limit of 0 turns
// it off: New then returns nil.
func New(limit int, length time.Duration, now func() time.Time) *Limiter {
	if limit <= 0 {
		return nil
	}
	return &Limiter{limit: limit, window: length, now: now, windows: map[string]*list.Element{}, oldest: list.New()}
}

// Admit refuses, with refusal.AccountTooManyGuesses and the time to wait, when
// any of the subjects has used up its guesses.
func (l *Limiter) Admit(subjects ...string) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.forget(now)
	var wait time.Duration
	for _, s := range subjects {
		if e, ok := l.windows[s]; ok {
			if w := e.Value.(*window); w.failed >= l.limit {
				wait = max(wait, w.start.Add(l.window).Sub(now))
			}
		}
	}
	if wait > 0 {
		return refusal.Later(refusal.AccountTooManyGuesses, wait)
	}
	return nil
}

// Left is how many guesses the one of the subjects that has fewest still has.
func (l *Limiter) Left(subjects ...string) int {
	if l == nil {
		return math.MaxInt
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(l.now())
	left := l.limit
	for _, s := range subjects {
		if e, ok := l.windows[s]; ok {
			left = min(left, l.limit-e.Value.(*window).failed)
		}
	}
	return max(left, 0)
}

// Failed counts one failed guess against each of the subjects.
func (l *Limiter) Failed(subjects ...string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.forget(now)
	for _, s := range subjects {
		e, ok := l.windows[s]
		if !ok {
			if len(l.windows) >= Subjects {
				l.drop(l.oldest.Front())
			}
			e = l.oldest.PushBack(&window{subject: s, start: now})
			l.windows[s] = e
		}
		e.Value.(*window).failed++
	}
}

// forget drops the windows that have passed, and those that begin in the
// future, which a clock set back leaves behind and which would never end.
func (l *Limiter) forget(now time.Time) {
	for e := l.oldest.Front(); e != nil; e = l.oldest.Front() {
		if start := e.Value.(*window).start; now.Sub(start) < l.window && !start.After(now) {
			return
		}
		l.drop(e)
	}
}

func (l *Limiter) drop(e *list.Element) {
	delete(l.windows, e.Value.(*window).subject)
	l.oldest.Remove(e)
}

// Account is the subject that stands for the account with that id.
func Account(id int64) string { return "u" + strconv.FormatInt(id, 10) }

// Name is the subject that stands for a username, known or not. It is a hash,
// since who guesses chooses how long a name is.
func Name(username string) string {
	hash := sha256.Sum256([]byte(username))
	return "n" + string(hash[:16])
}

// Address is the subject that stands for a client's address: the address
// itself for IPv4, its /64 for IPv6, where one client commands a whole one.
// Text that is no address stands for itself.
func Address(text string) string {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return "a" + text
	}
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		a = p.Addr()
	}
	return "a" + string(a.AsSlice())
}
