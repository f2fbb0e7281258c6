package fleet

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// watchRetry is how long a Watch waits after the database has failed.
const watchRetry = time.Second

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
}

// NewWatch returns a Watch that writes into store.
func NewWatch(store Store, now func() time.Time, log *slog.Logger) *Watch {
	return &Watch{store: store, now: now, log: log, seen: map[int64]Sighting{}, some: make(chan struct{}, 1)}
}

// See notes what became known of a machine now.
func (w *Watch) See(machine int64, p Presence) {
	s := Sighting{MachineID: machine, Presence: p}
	if p != Offline {
		s.At = w.now()
	}
	w.mu.Lock()
	if old, ok := w.seen[machine]; ok && s.At.IsZero() {
		s.At = old.At // it was seen before it left
	}
	w.seen[machine] = s
	w.mu.Unlock()
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
		if _, newer := w.seen[s.MachineID]; !newer {
			w.seen[s.MachineID] = s
		}
	}
	select {
	case w.some <- struct{}{}:
	default:
	}
}
