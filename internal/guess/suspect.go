package guess

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// SuspectsMax bounds how many Limited lists.
	SuspectsMax = 100
	// refreshMax bounds how many subjects one Refresh asks about.
	refreshMax = 1000
	// labelMax bounds a label, in bytes. None is longer that stands for an address.
	labelMax = 100
)

// Suspect is a subject that has used up half of its guesses or more.
type Suspect struct {
	Subject string
	// AccountID is the account, 0 if it is none.
	AccountID int64
	// Address is the address, with "/64" behind it for all those of an IPv6 network.
	Address string
	// MachineNo is the machine that is tried from there, empty if it is none.
	MachineNo string
	// Failed is how many guesses have failed in the window that lasts until Until.
	Failed int64
	Until  time.Time
}

// SuspectOf reads what Account, Address or Machine made.
func SuspectOf(subject string) Suspect {
	s := Suspect{Subject: subject}
	if no, address, ok := strings.Cut(subject, " "); ok && strings.HasPrefix(no, "m") {
		s.MachineNo, subject = no[1:], address
	}
	if id, ok := strings.CutPrefix(subject, "u"); ok {
		s.AccountID, _ = strconv.ParseInt(id, 10, 64) // 0 if it is none
	} else if address, ok := strings.CutPrefix(subject, "a"); ok {
		s.Address = address
	}
	return s
}

// ParseSuspect reads the Subject of a Suspect, and reports whether it is one: what
// Account, Address or Machine made, and Limited may list.
func ParseSuspect(subject string) (Suspect, bool) {
	s := SuspectOf(subject)
	made := Address(s.Address)
	switch {
	case s.AccountID > 0:
		made = Account(s.AccountID)
	case s.MachineNo != "":
		made = Machine(s.MachineNo, s.Address)
	}
	return s, label(subject) != "" && subject == made
}

// label is what may be kept of a subject in clear: not a name, which may be a
// password in the wrong field.
func label(subject string) string {
	if strings.HasPrefix(subject, "n") || len(subject) > labelMax || !utf8.ValidString(subject) || strings.Contains(subject, "\x00") {
		return ""
	}
	return subject
}

// Limited lists the accounts, addresses and machines that have used up half of their
// guesses or more, those with most failed first: at most SuspectsMax. Of several
// servers that share a store it is what all have counted.
func (l *Limiter) Limited(ctx context.Context) ([]Suspect, error) {
	if l == nil {
		return nil, nil
	}
	least := (l.limit + 1) / 2
	if !l.shared() {
		return l.worst(least), nil
	}
	counts, err := l.store.WorstGuesses(ctx, l.name, least, l.now().Add(-l.window), SuspectsMax)
	if err != nil {
		return nil, fmt.Errorf("reading failed guesses: %w", err)
	}
	suspects := make([]Suspect, len(counts))
	for i, c := range counts {
		suspects[i] = SuspectOf(c.Label)
		suspects[i].Failed, suspects[i].Until = c.Failed, c.Began.Add(l.window)
	}
	return suspects, nil
}

// worst is Limited by what memory knows.
func (l *Limiter) worst(least int64) []Suspect {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.forget(now)
	var suspects []Suspect
	keep := func(most int) {
		if len(suspects) < most {
			return
		}
		slices.SortStableFunc(suspects, func(a, b Suspect) int { return cmp.Compare(b.Failed, a.Failed) })
		suspects = suspects[:min(len(suspects), SuspectsMax)]
	}
	for e := l.oldest.Front(); e != nil; e = e.Next() {
		w := e.Value.(*window)
		if w.failed < least || l.passed(w.start, now) || label(w.key) == "" {
			continue
		}
		s := SuspectOf(w.key)
		s.Failed, s.Until = w.failed, w.start.Add(l.window)
		suspects = append(suspects, s)
		keep(10 * SuspectsMax)
	}
	keep(0)
	return suspects
}

// Forgive forgets the failed guesses of the subjects. Of several servers the others
// learn of it by Refresh.
func (l *Limiter) Forgive(ctx context.Context, subjects ...string) error {
	if l == nil {
		return nil
	}
	if l.shared() {
		if err := l.store.ForgiveGuesses(ctx, l.Subjects(subjects...)); err != nil {
			return fmt.Errorf("forgiving failed guesses: %w", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range subjects {
		if e, ok := l.windows[l.key(s)]; ok {
			l.drop(e)
		}
	}
	return nil
}

// Refresh asks the store about those who are refused by what memory knows, so that
// a Forgive of another server reaches this one. It is to be called every few
// seconds.
func (l *Limiter) Refresh(ctx context.Context) error {
	if !l.shared() {
		return nil
	}
	refused := l.refused()
	if refused == nil {
		return nil
	}
	counts, err := l.store.Guesses(ctx, refused, l.now().Add(-l.window))
	if err != nil {
		return fmt.Errorf("reading failed guesses: %w", err)
	}
	l.Learn(counts)
	return nil
}

// refused are the subjects that are refused, the newest of them if there are too
// many.
func (l *Limiter) refused() (keys [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(l.now())
	for e := l.oldest.Back(); e != nil && len(keys) < refreshMax; e = e.Prev() {
		if w := e.Value.(*window); w.failed >= l.limit {
			keys = append(keys, []byte(w.key))
		}
	}
	return keys
}
