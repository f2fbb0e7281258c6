package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
)

// stacksKept is how many goroutines wait for work with a stack that has grown.
const stacksKept = 64

// stacks runs what needs a deep stack, which the library and the database do, on
// goroutines that have one. A stack that has grown stays large for a long time:
// those of ten thousand connections, each of which does next to nothing, would
// be most of the memory that they need.
type stacks struct {
	jobs   chan job
	kept   atomic.Int32
	ended  <-chan struct{}
	broken func(panicked any, stack []byte)
}

type job struct {
	do   func() error
	done chan error
}

// errBroken says that something has panicked.
var errBroken = errors.New("it panicked")

// newStacks returns stacks that tell broken of what has panicked. When ended is
// closed nobody waits for work any more.
func newStacks(ended <-chan struct{}, broken func(any, []byte)) *stacks {
	return &stacks{jobs: make(chan job), ended: ended, broken: broken}
}

// run runs do, and returns what it does.
func (s *stacks) run(do func() error) error {
	j := job{do, make(chan error, 1)}
	select {
	case s.jobs <- j:
	default: // nobody waits
		go s.work(j)
	}
	return <-j.done
}

// work does a job, and then others, unless enough wait for them.
func (s *stacks) work(j job) {
	s.finish(j)
	defer s.kept.Add(-1)
	if s.kept.Add(1) > stacksKept {
		return
	}
	for {
		select {
		case j := <-s.jobs:
			s.finish(j)
		case <-s.ended:
			return
		}
	}
}

func (s *stacks) finish(j job) {
	err := errBroken
	defer func() {
		// What upsets the library must not end everybody else.
		if p := recover(); p != nil {
			s.broken(p, debug.Stack())
		}
		j.done <- err
	}()
	err = j.do()
}

// broken tells of what has panicked on behalf of one connection.
func (b *Embedded) broken(panicked any, stack []byte) {
	b.config.Log.LogAttrs(b.work, slog.LevelError, "an MQTT connection failed badly; please report this",
		slog.String("panic", fmt.Sprint(panicked)), slog.String("stack", string(stack)))
}
