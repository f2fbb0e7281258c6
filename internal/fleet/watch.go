package fleet

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// watchRetry is how long a Watch waits after the database has failed.
const watchRetry = time.Second

// settleFor is what a machine is given from its first word to its subscription.
const settleFor = time.Second

// settlingMax bounds the machines that are given it.
const settlingMax = 1 << 16

// watchStep bounds how many sightings are written in one transaction.
const watchStep = 512

// Watch writes down what becomes known of machines' connections: many at once,
// a moment after it was seen. A crash loses that moment, which the machine's
// next sign of life makes good.
type Watch struct {
	store Store
	now   func() time.Time
	log   *slog.Logger

	mu   sync.Mutex
	seen map[int64]Sighting // by machine: the last of each is what counts
	some chan struct{}
	// settling are machines that have been heard of and may not listen yet.
	settling map[int64]*settling
}

type settling struct {
	timer *time.Timer
	at    time.Time // when it was heard of
	back  bool
}

// NewWatch returns a Watch that writes into store.
func NewWatch(store Store, now func() time.Time, log *slog.Logger) *Watch {
	return &Watch{store: store, now: now, log: log, seen: map[int64]Sighting{}, some: make(chan struct{}, 1), settling: map[int64]*settling{}}
}

// See notes what became known of a machine now.
func (w *Watch) See(machine int64, p Presence) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, ok := w.settling[machine]; ok {
		s.timer.Stop()
		delete(w.settling, machine)
	}
	w.see(machine, p, false, w.now())
}

// Hear notes that a machine was heard of, through a broker that is not ours;
// back says that it has just come there. Since a machine may speak before it
// listens, and is told everything again if it has been away, that is written down
// a moment later.
func (w *Watch) Hear(machine int64, back bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, ok := w.settling[machine]; ok {
		s.back = s.back || back
		return
	}
	if len(w.settling) >= settlingMax {
		w.see(machine, Heard, back, w.now())
		return
	}
	s := &settling{back: back, at: w.now()}
	w.settling[machine] = s
	s.timer = time.AfterFunc(settleFor, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.settling[machine] == s { // nothing else has become known since
			delete(w.settling, machine)
			w.see(machine, Heard, s.back, s.at)
		}
	})
}

// Miss says that the broker that is not ours was away, so that any machine may
// have been.
func (w *Watch) Miss(ctx context.Context) error { return w.store.Miss(ctx) }

// settle notes those that were given a moment.
func (w *Watch) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for machine, s := range w.settling {
		s.timer.Stop()
		w.see(machine, Heard, s.back, s.at)
	}
	clear(w.settling)
}

// see is called with the lock.
func (w *Watch) see(machine int64, p Presence, back bool, at time.Time) {
	s := Sighting{MachineID: machine, Presence: p, Back: back, At: at}
	if old, ok := w.seen[machine]; ok {
		s = s.after(old)
	}
	w.seen[machine] = s
	select {
	case w.some <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends, and then what is left.
func (w *Watch) Run(ctx context.Context) {
	for {
		select {
		case <-w.some:
		case <-ctx.Done():
			w.settle()
			_ = w.write(context.WithoutCancel(ctx)) // logged
			return
		}
		if w.write(ctx) == nil {
			continue
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
		}
	}
}

// write writes all that has been seen.
func (w *Watch) write(ctx context.Context) error {
	for {
		batch := w.take()
		if batch == nil {
			return nil
		}
		if err := w.store.See(ctx, batch); err != nil {
			w.putBack(batch)
			w.log.LogAttrs(ctx, slog.LevelError, "writing down which machines are online", slog.Any("error", err))
			return err
		}
	}
}

func (w *Watch) take() (batch []Sighting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for machine, s := range w.seen {
		if len(batch) == watchStep {
			break
		}
		batch = append(batch, s)
		delete(w.seen, machine)
	}
	return batch
}

// putBack keeps what was not written, but for what is known better since.
func (w *Watch) putBack(batch []Sighting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range batch {
		if newer, ok := w.seen[s.MachineID]; ok {
			s = newer.after(s)
		}
		w.seen[s.MachineID] = s
	}
	select {
	case w.some <- struct{}{}:
	default:
	}
}
