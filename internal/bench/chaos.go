package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"
)

type chaosCommand struct {
	Minutes float64 `default:"1" placeholder:"N" help:"How long things are broken; up to 120. What is made before and checked afterwards takes up to a few minutes more."`
	Seed    uint64  `placeholder:"N" help:"Break the same things at the same times as the run that printed this seed; else each run has one of its own."`
	JSON    bool    `help:"Print JSON."`
}

// chaosMinutesMax bounds a run: its history is kept in memory.
const chaosMinutesMax = 120

// Run breaks things under load and checks that nothing is lost or doubled.
func (c *chaosCommand) Run(ctx context.Context, env *Env) (err error) {
	if !(c.Minutes > 0 && c.Minutes <= chaosMinutesMax) {
		return fmt.Errorf("--minutes: give a number above 0, up to %d", chaosMinutesMax)
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64() //nolint:gosec // G404: it is only to be another one each time
	}
	x := &chaos{
		env: env, seed: c.Seed, lasting: time.Duration(c.Minutes * float64(time.Minute)),
		progress: newProgress(env.Stderr, env.Now), history: newHistory(env.Now),
	}
	defer x.progress.end()
	if x.dir, err = os.MkdirTemp("", "scrip-chaos-"); err != nil {
		return err
	}
	x.progress.say("--seed %d", x.seed)
	if err := x.run(ctx); err != nil {
		return errors.Join(fmt.Errorf("the run with --seed %d did not come to its end; what the servers said is in %s: %w", x.seed, x.dir, err))
	}
	r := x.report()
	if len(r.Violations) == 0 {
		r.Kept = ""
		if err := os.RemoveAll(x.dir); err != nil {
			return err
		}
	}
	if err := r.write(env, c.JSON); err != nil {
		return err
	}
	if n := len(r.Violations); n > 0 {
		return fmt.Errorf("%d promises were broken with --seed %d", n, x.seed)
	}
	return nil
}

// chaos is one run.
type chaos struct {
	env      *Env
	seed     uint64
	lasting  time.Duration
	dir      string
	progress *progress
	history  *history
	cluster  *cluster
	faults   faults
	checked  chaosChecked
	took     time.Duration // the time in which things were broken
	cut      bool          // it was cut short

	mu         sync.Mutex
	violations []string
	more       int
}

// violationsMax bounds how many are spelt out.
const violationsMax = 50

// violated notes a promise that was broken.
func (x *chaos) violated(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.violations) == violationsMax {
		x.more++
		return
	}
	text := fmt.Sprintf(format, args...)
	x.violations = append(x.violations, text)
	x.progress.say("VIOLATED: %s", text)
}

// broken is how many promises were.
func (x *chaos) broken() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.violations)
}

// run makes the servers, breaks them under load, and checks.
func (x *chaos) run(ctx context.Context) (err error) {
	plan := planned(x.seed, x.lasting)
	x.progress.say("starting PostgreSQL, Mosquitto, %d servers and %d machines", chaosReplicas, chaosMachines)
	if x.cluster, err = x.newCluster(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.cluster.stop()) }()

	x.progress.say("breaking things for %s: %d faults", x.lasting.Round(time.Second), len(plan))
	load, cancel := context.WithTimeout(ctx, x.lasting)
	defer cancel()
	begun := x.env.Now()
	var working sync.WaitGroup
	working.Go(func() { x.redeeming(load) })
	working.Go(func() { x.vending(load) })
	broken := x.breakThings(load, plan)
	cancel()
	working.Wait()
	x.took, x.cut = x.env.Now().Sub(begun), ctx.Err() != nil
	if broken != nil {
		return broken
	}
	// Who cuts a run short wants to know what it has found.
	ctx = context.WithoutCancel(ctx)
	x.progress.say("all is healed; waiting until each machine holds what it should")
	if err := x.settle(ctx); err != nil {
		return err
	}
	if x.broken() == 0 { // else it would find the same
		if err := x.calm(ctx); err != nil {
			return err
		}
	}
	x.progress.say("stopping the servers, and checking")
	x.cluster.stopServers()
	if err := x.check(ctx); err != nil || x.broken() == 0 {
		return err
	}
	return x.cluster.dump(ctx)
}

// chaosReport is what a run found.
type chaosReport struct {
	Version string  `json:"version"`
	Machine machine `json:"machine"`
	Seed    uint64  `json:"seed"`
	Seconds float64 `json:"seconds"`
	// Interrupted says that the run was cut off: what had been done was checked.
	Interrupted bool             `json:"interrupted"`
	Operations  map[string]int64 `json:"operations"`
	Faults      []chaosFault     `json:"faults"`
	// Recovery is how long each kind of fault took to be over, in seconds.
	Recovery map[faultKind]chaosRecovery `json:"recovery"`
	// Outage is the longest time without a redeem, in seconds.
	Outage     float64      `json:"worst_outage_seconds"`
	Checked    chaosChecked `json:"checked"`
	Violations []string     `json:"violations"`
	// Kept is the directory with what the servers said and how histories went.
	Kept string `json:"kept,omitempty"`
}

type chaosFault struct {
	At       float64   `json:"at_seconds"`
	Kind     faultKind `json:"kind"`
	Which    int       `json:"which,omitempty"`
	Held     float64   `json:"held_seconds"`
	Recovery float64   `json:"recovery_seconds"` // from its beginning to the first success after that; 0: none was seen
}

type chaosRecovery struct {
	Faults int     `json:"faults"`
	Median float64 `json:"median_seconds"`
	Worst  float64 `json:"worst_seconds"`
}

func (x *chaos) report() *chaosReport {
	r := &chaosReport{
		Version: x.env.Version, Machine: newReport("").Machine, Seed: x.seed, Seconds: x.took.Seconds(), Interrupted: x.cut,
		Operations: x.history.counts(), Faults: []chaosFault{}, Recovery: make(map[faultKind]chaosRecovery),
		Outage: x.history.outage().Seconds(), Checked: x.checked, Violations: append([]string{}, x.violations...), Kept: x.dir,
	}
	if x.more > 0 {
		r.Violations = append(r.Violations, fmt.Sprintf("and %d more", x.more))
	}
	took := make(map[faultKind][]float64)
	for _, f := range x.faults.done {
		r.Faults = append(r.Faults, chaosFault{f.begun.Seconds(), f.Kind, f.Which, f.Held.Seconds(), f.recovery.Seconds()})
		if f.recovery > 0 {
			took[f.Kind] = append(took[f.Kind], f.recovery.Seconds())
		}
	}
	for kind, seconds := range took {
		worst := 0.0
		for _, s := range seconds {
			worst = max(worst, s)
		}
		r.Recovery[kind] = chaosRecovery{len(seconds), median(seconds), worst}
	}
	return r
}

func (r *chaosReport) write(env *Env, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(env.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "scrip %s, %d servers with PostgreSQL and Mosquitto on one machine: %s/%s, %d CPUs\n", r.Version, chaosReplicas,
		r.Machine.OS, r.Machine.Arch, r.Machine.CPUs)
	fmt.Fprintf(&b, "--seed %d, %s of faults\n\n", r.Seed, time.Duration(r.Seconds*float64(time.Second)).Round(time.Second/10))
	rows := [][]string{{"what was done", "times"}}
	for _, name := range operationNames() {
		if n := r.Operations[name]; n > 0 {
			rows = append(rows, []string{name, grouped(n)})
		}
	}
	writeTable(&b, rows)
	b.WriteByte('\n')
	rows = [][]string{{"what was broken", "times", "median until a success", "worst"}}
	for _, kind := range faultKinds() {
		if f := r.Recovery[kind]; f.Faults > 0 {
			rows = append(rows, []string{kind.String(), grouped(int64(f.Faults)), duration(f.Median * 1000), duration(f.Worst * 1000)})
		}
	}
	writeTable(&b, rows)
	fmt.Fprintf(&b, "\nThe longest time without a redeem was %s.\n", duration(r.Outage*1000))
	fmt.Fprintf(&b, "Checked: %s ledger entries, %s accounts, %s codes and their %s attempts, %s pickup codes, %s messages, "+
		"%s answers to a repeated Idempotency-Key.\n",
		grouped(r.Checked.Entries), grouped(r.Checked.Accounts), grouped(r.Checked.Codes), grouped(r.Checked.Attempts),
		grouped(r.Checked.Pickups), grouped(r.Checked.Messages), grouped(r.Checked.Repeated))
	if r.Interrupted {
		b.WriteString("Interrupted: this is what had been done by then.\n")
	}
	if len(r.Violations) == 0 {
		b.WriteString("Nothing was lost, nothing was doubled.\n")
	}
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "VIOLATED: %s\n", v)
	}
	if r.Kept != "" {
		fmt.Fprintf(&b, "What the servers said, and how those histories went, is in %s\n", r.Kept)
	}
	_, err := env.Stdout.Write([]byte(b.String()))
	return err
}
