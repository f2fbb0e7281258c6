package console

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
)

// verification is the walk through the whole ledger that somebody has asked for:
// one at a time, which goes on when they leave. It is safe for concurrent use.
type verification struct {
	mu   sync.Mutex
	end  context.CancelFunc // nil: none is under way
	last verificationView
}

// verificationView is how far the last one has come.
type verificationView struct {
	Running, Stopped bool
	By               string
	Started, Ended   time.Time
	Done, Total      int64 // entries
	Failed           bool
	Report           *account.Report // nil: not yet
	Left             string          // about how long it takes still; empty: not known
}

// Percent is how much is done.
func (v verificationView) Percent() int64 {
	if v.Total <= 0 {
		return 0
	}
	return min(100, v.Done*100/v.Total)
}

// Whole says that the ledger is whole.
func (v verificationView) Whole() bool { return v.Report != nil && len(v.Report.Faults) == 0 }

// Verify walks the whole ledger and says what is wrong with it. Progress is called
// with how many entries it has walked, and how many there are about.
type Verify func(ctx context.Context, progress func(done, total int64)) (account.Report, error)

func (v *verification) start(work context.Context, log *slog.Logger, now func() time.Time, verify Verify, by string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.end != nil || work.Err() != nil {
		return // it is under way
	}
	ctx, end := context.WithCancel(work)
	v.end, v.last = end, verificationView{Running: true, By: by, Started: now()}
	go func() {
		defer end()
		report, err := verify.safely(ctx, v.progress)
		if err != nil && ctx.Err() == nil {
			log.LogAttrs(ctx, slog.LevelWarn, "verifying the ledger failed", slog.Any("error", err))
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.end, v.last.Running, v.last.Ended = nil, false, now()
		switch {
		case err == nil:
			v.last.Report, v.last.Done = &report, report.Entries
		case ctx.Err() != nil:
			v.last.Stopped = true
		default:
			v.last.Failed = true
		}
	}()
}

// safely is f, whose panics are errors: it runs by itself, and nobody else would
// catch them.
func (f Verify) safely(ctx context.Context, progress func(done, total int64)) (r account.Report, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f(ctx, progress)
}

func (v *verification) progress(done, total int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last.Done, v.last.Total = done, max(done, total)
}

func (v *verification) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.end != nil {
		v.end()
	}
}

// view is how far the last one has come. Brief writes how long something takes.
func (v *verification) view(now time.Time, brief func(time.Duration) string) verificationView {
	v.mu.Lock()
	defer v.mu.Unlock()
	view := v.last
	if view.Running && view.Done > 0 && view.Done < view.Total {
		left := float64(now.Sub(view.Started)) * float64(view.Total-view.Done) / float64(view.Done)
		view.Left = brief(time.Duration(left) + time.Second)
	}
	return view
}
