package sqlstore

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/scrip-codes/scrip/internal/refusal"
)

// QueueLength bounds the jobs of a Group that wait.
const QueueLength = 4096

// ErrClosed says that the database has been closed.
var ErrClosed = errors.New("the database is closed")

// Job is one write of a Group.
type Job[T any] struct {
	Value T
	Err   error // set by the Group's commit
	done  chan struct{}
}

// Group has writes that arrive together commit together. Whoever gets a turn
// first commits all that have arrived by then: a lone job waits for no company
// and for no other goroutine, and whatever arrives during a commit makes the
// next group. It is safe for concurrent use.
type Group[T any] struct {
	// Commit decides and commits the jobs, in their order.
	Commit func(ctx context.Context, jobs []*Job[T])
	// Size is how much a job writes. A group is taken together until it has
	// reached Max; the job that reaches it may go beyond it.
	Size func(T) int
	Max  int
	// Turns holds one token for each commit that may be under way.
	Turns chan struct{}
	// Closed is closed when nothing is committed any more.
	Closed <-chan struct{}

	jobs chan *Job[T]
}

// Open makes the Group ready, once its fields are set.
func (g *Group[T]) Open() { g.jobs = make(chan *Job[T], QueueLength) }

// Waiting is how many jobs have arrived and are in no commit yet.
func (g *Group[T]) Waiting() int { return len(g.jobs) }

// Do waits until somebody has committed the write. It refuses with TooBusy if too
// many wait.
//
// It does not stop waiting when ctx ends: an answer must not be lost between
// the two. What the job has found out counts only if the error is nil.
func (g *Group[T]) Do(ctx context.Context, value T) error {
	j := &Job[T]{Value: value, done: make(chan struct{})}
	select {
	case g.jobs <- j:
	default:
		return refusal.Later(refusal.TooBusy, time.Second)
	}
	for {
		select {
		case <-j.done:
			return j.Err
		case <-g.Turns:
			// Those that the last group has just told may be about to come back.
			runtime.Gosched()
			g.commitArrived(context.WithoutCancel(ctx))
			g.Turns <- struct{}{}
		case <-g.Closed:
			select {
			case <-j.done: // by the last group
				return j.Err
			default: // nobody will
				return ErrClosed
			}
		}
	}
}

// commitArrived commits the jobs that have arrived, for who has a turn. All are
// told before the turn goes on: else those of them who wait for it would get it
// for nothing.
func (g *Group[T]) commitArrived(ctx context.Context) {
	var jobs []*Job[T]
	for size := 0; size < g.Max; {
		select {
		case j := <-g.jobs:
			size += g.Size(j.Value)
			jobs = append(jobs, j)
			continue
		default:
		}
		break
	}
	if jobs == nil {
		return
	}
	g.Commit(ctx, jobs)
	for _, j := range jobs {
		close(j.done)
	}
}
