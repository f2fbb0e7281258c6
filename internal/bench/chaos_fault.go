package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// faultKind is what is broken.
type faultKind string

const (
	killServer    faultKind = "kill server"
	killPostgres  faultKind = "restart PostgreSQL"
	killMosquitto faultKind = "kill Mosquitto"
	cutMachine    faultKind = "disconnect machine"
)

// String is its name.
func (k faultKind) String() string { return string(k) }

func faultKinds() []faultKind {
	return []faultKind{killServer, killPostgres, killMosquitto, cutMachine}
}

// fault is something that is broken for a while.
type fault struct {
	At    time.Duration // since the load began
	Kind  faultKind
	Which int // the server or the machine, from 1 on
	Held  time.Duration

	begun    time.Duration // in the history
	recovery time.Duration // from begun to the first success; 0: none yet
}

// planned is what is to be broken and when, which is all in the seed. Each kind
// comes at least once, however short the run is.
func planned(seed uint64, lasting time.Duration) []fault {
	r := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // G404: it must be repeatable
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(r.Int64N(int64(most-least)))
	}
	kinds := faultKinds()
	r.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	bag := append(kinds, killServer, killServer, killMosquitto, killPostgres, cutMachine)
	var out []fault
	for at := between(time.Second, 2*time.Second); at < lasting-2*time.Second || len(out) < len(kinds); at += between(time.Second, 4*time.Second) {
		f := fault{At: at, Kind: bag[r.IntN(len(bag))]}
		if len(out) < len(kinds) {
			f.Kind = kinds[len(out)]
		}
		switch f.Kind {
		case killServer:
			f.Which, f.Held = 1+r.IntN(chaosReplicas), between(0, 3*time.Second)
		case killPostgres, killMosquitto:
			f.Held = between(0, 2*time.Second)
		case cutMachine:
			f.Which, f.Held = 1+r.IntN(chaosMachines), between(time.Second, 5*time.Second)
		}
		out = append(out, f)
	}
	return out
}

// faults is what has been broken, and how soon it was over.
type faults struct {
	mu   sync.Mutex
	done []*fault
}

func (f *faults) add(one *fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = append(f.done, one)
}

// success says that something worked that such faults keep from working, begun
// at a time of the history and done at another.
func (f *faults) success(kind faultKind, which int, begun, now time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.done) - 1; i >= 0 && i >= len(f.done)-16; i-- {
		one := f.done[i]
		if one.Kind == kind && one.Which == which && one.recovery == 0 && begun > one.begun {
			one.recovery = now - one.begun
		}
	}
}

// breakThings breaks what the plan says, each healed in its time while the next
// is broken; when it returns all is healed.
func (x *chaos) breakThings(ctx context.Context, plan []fault) error {
	begun := x.env.Now()
	always := context.WithoutCancel(ctx)
	var healing sync.WaitGroup
	var mu sync.Mutex
	var failed error
	busy := map[string]bool{} // what is broken
	for i := range plan {
		f := &plan[i]
		pause(ctx, begun.Add(f.At).Sub(x.env.Now()))
		if over(ctx) {
			break
		}
		what := fmt.Sprint(f.Kind, f.Which)
		mu.Lock()
		down := 0
		for n := range chaosReplicas {
			if busy[fmt.Sprint(killServer, n+1)] {
				down++
			}
		}
		skip := busy[what] || f.Kind == killServer && down == chaosReplicas-1 || failed != nil
		busy[what] = busy[what] || !skip
		mu.Unlock()
		if skip { // it is broken already, or it is the last
			continue
		}
		x.progress.say("%6.1f s  %s%s, for %s", f.At.Seconds(), f.Kind, numbered(f.Which), f.Held.Round(time.Millisecond))
		f.begun = x.history.now()
		err := x.breakOne(f)
		x.faults.add(f)
		if err != nil {
			return errors.Join(err, x.heal(always, f))
		}
		healing.Go(func() {
			pause(always, f.Held)
			err := x.heal(always, f)
			mu.Lock()
			defer mu.Unlock()
			delete(busy, what)
			failed = errors.Join(failed, err)
		})
	}
	<-ctx.Done()
	healing.Wait()
	return failed
}

func numbered(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" %d", n)
}

func (x *chaos) breakOne(f *fault) error {
	switch f.Kind {
	case killServer:
		x.cluster.replicas[f.Which-1].kill()
	case killPostgres:
		return x.cluster.postgres.Kill()
	case killMosquitto:
		return x.cluster.mosquitto.Kill()
	case cutMachine:
		x.cluster.machines[f.Which-1].off()
	}
	return nil
}

func (x *chaos) heal(ctx context.Context, f *fault) error {
	switch f.Kind {
	case killServer:
		return x.cluster.replicas[f.Which-1].start(ctx)
	case killPostgres:
		return x.cluster.postgres.Start(ctx)
	case killMosquitto:
		return x.cluster.mosquitto.Start(ctx)
	case cutMachine:
		x.cluster.machines[f.Which-1].on(ctx)
	}
	return nil
}
