// Package guess counts the failed guesses of an account or an address, on one
// server or on several together, and says when one has had too many. Imports: refusal, and the standard library.
package guess

import (
	"container/list"
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/refusal"
)

// SubjectsMax bounds how many subjects a Limiter remembers. Past it the one that
// it has known for longest is forgotten: it would have been the next to be anyway.
const SubjectsMax = 1 << 17

// saveFor bounds how long a count is on its way into the store.
const saveFor = 10 * time.Second

// Limiter allows each subject a number of failed guesses in a window of time
// that begins with the first of them. It is safe for concurrent use. A nil
// Limiter allows everything.
type Limiter struct {
	limit  int64
	window time.Duration
	now    func() time.Time
	name   string
	store  Store // nil: what memory knows is all there is

	mu      sync.Mutex
	windows map[string]*list.Element // of *window
	// oldest has those first that have been known for longest. One that has passed
	// may be behind one that has not, but not for more than a window's length.
	oldest *list.List
}

type window struct {
	key      string
	start    time.Time
	failed   int64
	forgiven int64
}

// Store keeps the counts that the Limiters of several servers share. Subjects
// are as Limiter.Subjects makes them. It is safe for concurrent use.
type Store interface {
	// Guesses finds the counts of those of the subjects that have one which began
	// after since.
	Guesses(ctx context.Context, subjects [][]byte, since time.Time) ([]Count, error)
	// AddGuesses counts one failed guess against the subject of each of the failures,
	// which are of the Limiters with that name: in a window that begins now if there is
	// none, or if it began at since or before, or after now. Of calls at the same time
	// none is lost, and in whatever order they list subjects, none fails for the other.
	AddGuesses(ctx context.Context, name string, failures []Failure, now, since time.Time) error
	// WorstGuesses finds the counts of at least that many failed guesses whose
	// windows began after since, of subjects with a label, of the Limiters with that
	// name: at most so many, those with most first.
	WorstGuesses(ctx context.Context, name string, least int64, since time.Time, most int) ([]Count, error)
	// ForgiveGuesses sets the counts of the subjects to none, and says so in them.
	ForgiveGuesses(ctx context.Context, subjects [][]byte) error
}

// Failure is a failed guess.
type Failure struct {
	Subject []byte
	Label   string // what the subject stands for; empty if that is not to be kept
}

// Count is how many guesses of a subject have failed since its window began.
type Count struct {
	Subject []byte
	Label   string // only from WorstGuesses
	Began   time.Time
	Failed  int64
	// Forgiven is how often the guesses of this window have been forgiven.
	Forgiven int64
}

// New returns a Limiter of limit failed guesses a window, which counts in
// memory. A limit of 0 turns it off: New then returns nil.
func New(limit int, length time.Duration, now func() time.Time) *Limiter {
	return Shared("", limit, length, now, nil)
}

// Shared is New for servers that share a database: all Limiters over it that
// have the same name count together, and memory only holds what this one has
// seen of it. While the store fails, nothing is admitted that must be asked of it.
//
// Together they may go over the limit by the guesses that other servers have
// under way at that moment, and once a window by as far as their clocks differ.
func Shared(name string, limit int, length time.Duration, now func() time.Time, store Store) *Limiter {
	if limit <= 0 {
		return nil
	}
	return &Limiter{
		limit: int64(limit), window: length, now: now, name: name, store: store,
		windows: map[string]*list.Element{}, oldest: list.New(),
	}
}

// Admit refuses, with refusal.AccountTooManyGuesses and the time to wait, when
// any of the subjects has used up its guesses. It fails if the store does.
func (l *Limiter) Admit(ctx context.Context, subjects ...string) error {
	// A count only grows within its window: a refusal that is known holds.
	if err := l.Known(subjects...); err != nil || !l.shared() || len(subjects) == 0 {
		return err
	}
	counts, err := l.store.Guesses(ctx, l.Subjects(subjects...), l.now().Add(-l.window))
	if err != nil {
		return fmt.Errorf("reading failed guesses: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.learn(counts, now)
	return l.known(subjects, now)
}

// Failed counts one failed guess against each of the subjects. An error says
// that other servers may not have learned of it; this one has. That ctx ends
// does not stop it: who hangs up has guessed all the same.
func (l *Limiter) Failed(ctx context.Context, subjects ...string) error {
	l.Note(subjects...)
	return l.Save(ctx, subjects...)
}

// Known is Admit by what memory knows, for a refusal that costs nothing.
func (l *Limiter) Known(subjects ...string) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known(subjects, l.now())
}

// Left is how many guesses the one of the subjects that has fewest still has, by
// what memory knows: right after Admit that is what the store knows too.
func (l *Limiter) Left(subjects ...string) int64 {
	if l == nil {
		return math.MaxInt64
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.forget(now)
	left := l.limit
	for _, s := range subjects {
		if w := l.live(l.key(s), now); w != nil {
			left = min(left, l.limit-w.failed)
		}
	}
	return max(left, 0)
}

// The rest is for a store that decides many attempts in one transaction. It
// reads the counts of all their Subjects in a statement of its own and tells
// them with Learn. Then it decides one attempt after the other: refused if Known
// says so, and after a wrong guess it calls Note, so that the next is decided by
// it. When all is committed it calls Save with what it has noted.

// Subjects are what stands for the subjects in the store, in their order: of one
// size, and other ones for every name. None if the Limiter
// counts in memory alone, and the store is then not concerned.
func (l *Limiter) Subjects(subjects ...string) [][]byte {
	if !l.shared() {
		return nil
	}
	stored := make([][]byte, len(subjects))
	for i, s := range subjects {
		stored[i] = []byte(l.key(s))
	}
	return stored
}

// Learn is told counts that stand in the store. Those whose window has passed
// are ignored, and none makes what memory knows less, unless it was forgiven: what
// Note has counted may not have come there yet.
func (l *Limiter) Learn(counts []Count) {
	if !l.shared() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.learn(counts, l.now())
}

// Note counts one failed guess against each of the subjects in memory alone.
func (l *Limiter) Note(subjects ...string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.forget(now)
	for _, s := range subjects {
		key := l.key(s)
		w := l.live(key, now)
		if w == nil {
			w = l.begin(key, now)
		}
		w.failed++
	}
}

// Save counts in the store what Note has counted in memory: one failed guess
// against each of the subjects, as often as it is listed. That ctx ends does not
// stop it.
func (l *Limiter) Save(ctx context.Context, subjects ...string) error {
	if !l.shared() || len(subjects) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveFor)
	defer cancel()
	failures := make([]Failure, len(subjects))
	for i, stored := range l.Subjects(subjects...) {
		failures[i] = Failure{stored, label(subjects[i])}
	}
	now := l.now()
	if err := l.store.AddGuesses(ctx, l.name, failures, now, now.Add(-l.window)); err != nil {
		return fmt.Errorf("counting a failed guess: %w", err)
	}
	return nil
}

func (l *Limiter) shared() bool { return l != nil && l.store != nil }

// key is what a subject is remembered by.
func (l *Limiter) key(subject string) string {
	if l.store == nil {
		return subject
	}
	hash := sha256.Sum256([]byte(l.name + "\x00" + subject))
	return string(hash[:])
}

func (l *Limiter) known(subjects []string, now time.Time) error {
	l.forget(now)
	var wait time.Duration
	for _, s := range subjects {
		if w := l.live(l.key(s), now); w != nil && w.failed >= l.limit {
			wait = max(wait, w.start.Add(l.window).Sub(now))
		}
	}
	if wait > 0 {
		return refusal.Later(refusal.AccountTooManyGuesses, wait)
	}
	return nil
}

func (l *Limiter) learn(counts []Count, now time.Time) {
	l.forget(now)
	for _, c := range counts {
		if l.passed(c.Began, now) {
			continue
		}
		w := l.live(string(c.Subject), now)
		if w == nil {
			w = l.begin(string(c.Subject), c.Began)
		}
		if c.Forgiven > w.forgiven { // what memory knows is of before that
			w.start, w.failed, w.forgiven = c.Began, c.Failed, c.Forgiven
			continue
		}
		// Servers do not agree to the millisecond when a window began. The earlier
		// is right: a later one would lock out for longer with the guesses of before.
		if c.Began.Before(w.start) {
			w.start = c.Began
		}
		w.failed = max(w.failed, c.Failed)
	}
}

// live finds the window of a subject, nil if there is none that has not passed.
func (l *Limiter) live(key string, now time.Time) *window {
	e, ok := l.windows[key]
	if !ok {
		return nil
	}
	w := e.Value.(*window)
	if l.passed(w.start, now) {
		l.drop(e)
		return nil
	}
	return w
}

// begin makes the window of a subject that has none.
func (l *Limiter) begin(key string, start time.Time) *window {
	if len(l.windows) >= SubjectsMax {
		l.drop(l.oldest.Front())
	}
	w := &window{key: key, start: start}
	l.windows[key] = l.oldest.PushBack(w)
	return w
}

// passed reports whether a window is over, or begins in the future, which a
// clock set back leaves behind and which would never end.
func (l *Limiter) passed(start, now time.Time) bool {
	return now.Sub(start) >= l.window || start.After(now)
}

// forget drops the windows that have passed, up to the first that has not.
func (l *Limiter) forget(now time.Time) {
	for e := l.oldest.Front(); e != nil && l.passed(e.Value.(*window).start, now); e = l.oldest.Front() {
		l.drop(e)
	}
}

func (l *Limiter) drop(e *list.Element) {
	delete(l.windows, e.Value.(*window).key)
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
		return "a" + p.String()
	}
	return "a" + a.String()
}

// Machine is the subject that stands for a machine's number and an address from
// which it is tried, together.
func Machine(no, address string) string { return "m" + no + " " + Address(address) }
