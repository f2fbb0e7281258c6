package delivery

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// receivedQueue bounds the acknowledgements that wait to be written. When it
	// is full, those who bring more wait.
	receivedQueue = 4096
	// progressStep bounds what is written in one transaction.
	progressStep = 512
	// sentEvery is how often what has been sent and not acknowledged is written:
	// most is acknowledged sooner, and then this is never written at all.
	sentEvery = 100 * time.Millisecond
	// gatherFor is how long acknowledgements are gathered before they are written,
	// unless they make up a step sooner: each commit costs a wait for the disk.
	gatherFor = 20 * time.Millisecond
	// progressTries bounds how often the same progress is tried to be written.
	progressTries = 5
)

// marker writes down how far entries have come, many at once, a moment
// after it happened. What a crash loses is sent again, which machines can tell.
type marker struct {
	store    Store
	log      *slog.Logger
	received chan int64
	ended    chan struct{} // closed when nothing more is to be waited for

	mu sync.Mutex
	// What has been sent and not acknowledged since the last tick, and before it.
	fresh, old map[int64]struct{}
}

// sent notes that an entry has been sent. What has no entry has no progress.
func (p *marker) sent(id int64) {
	if id == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fresh == nil {
		p.fresh = map[int64]struct{}{}
	}
	p.fresh[id] = struct{}{}
}

// notSent takes back that an entry has been sent.
func (p *marker) notSent(id int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.fresh, id)
	delete(p.old, id)
}

// done notes that an entry is done.
func (p *marker) done(id int64) {
	if id == 0 {
		return
	}
	p.notSent(id)
	select {
	case p.received <- id:
	case <-p.ended: // it will be sent again
	}
}

// run writes until ended is closed, and then what is left.
func (p *marker) run(ctx context.Context) {
	tick := time.NewTicker(sentEvery)
	defer tick.Stop()
	gather := time.NewTimer(0)
	var batch []Progress
	for {
		select {
		case id := <-p.received:
			if len(batch) == 0 {
				gather.Reset(gatherFor)
			}
			if batch = append(batch, Progress{ID: id, Stage: Received}); len(batch) < progressStep {
				continue
			}
		case <-tick.C:
			batch = p.takeSent(batch)
		case <-gather.C:
		case <-p.ended:
			p.write(ctx, p.takeSent(p.takeSent(p.takeReceived(batch))))
			return
		}
		p.write(ctx, batch)
		batch = batch[:0]
	}
}

// takeReceived adds what else has been acknowledged by now.
func (p *marker) takeReceived(batch []Progress) []Progress {
	for {
		select {
		case id := <-p.received:
			batch = append(batch, Progress{ID: id, Stage: Received})
		default:
			return batch
		}
	}
}

// takeSent adds what was sent before the last tick.
func (p *marker) takeSent(batch []Progress) []Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.old {
		batch = append(batch, Progress{ID: id, Stage: Sent})
	}
	p.old, p.fresh = p.fresh, nil
	return batch
}

// write writes a batch. If the database goes on failing it is left: then the
// entries are sent once more.
func (p *marker) write(ctx context.Context, batch []Progress) {
	for len(batch) > 0 {
		n := min(len(batch), progressStep)
		var err error
		for try := range progressTries {
			if err = p.store.Advance(ctx, batch[:n]); err == nil {
				break
			}
			select {
			case <-time.After(restFor(try + 1)):
			case <-p.ended:
			}
		}
		if err != nil {
			p.log.LogAttrs(ctx, slog.LevelError, "writing down what machines have acknowledged; they will be told again",
				slog.Int("entries", n), slog.Any("error", err))
		}
		batch = batch[n:]
	}
}
