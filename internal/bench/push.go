package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
)

const benchPush = "push"

type pushCommand struct {
	Machines int           `default:"10000" help:"How many virtual machines are connected; up to 20000."`
	Rate     int           `default:"1000" help:"How many pickup codes are made a second, whether or not the server keeps up."`
	Backlog  int           `default:"20000" help:"How many codes wait for the machines that are to be told of them all at once."`
	Duration time.Duration `default:"10s" help:"How long codes are made at that rate."`
	Ceiling  bool          `help:"Send the backlog in turns with the bare broker, followed by the bare driver, and print the ratio."`
	Dir      string        `placeholder:"DIR" help:"Put the database in a directory below this one, and remove it at the end. Choose the disk that matters; the default is the system's directory for temporary files."`
	JSON     bool          `help:"Print JSON."`
}

// Run measures pickup codes on their way to machines.
func (c *pushCommand) Run(ctx context.Context, env *Env) error {
	s := settings{machines: c.Machines, rate: c.Rate, backlog: c.Backlog, codes: 1, clients: 1, ceiling: c.Ceiling}
	if err := s.checkPush(c.Duration); err != nil {
		return err
	}
	common := common{Duration: c.Duration, Dir: c.Dir, Names: 1, JSON: c.JSON}
	return common.run(ctx, env, &s, nil, s.push)
}

// The most that may be asked for.
const (
	machinesMax = 20_000
	pushRateMax = 100_000
	backlogMax  = 1_000_000
	// liveEach bounds the codes that one machine is given: it may not have many
	// more, and they are dealt out evenly.
	liveEach = pickup.LiveMax * 9 / 10
)

func (s *settings) checkPush(d time.Duration) error {
	most := int64(s.machines) * liveEach
	switch {
	case s.machines < 1 || s.machines > machinesMax:
		return fmt.Errorf("--machines: give a number between 1 and %d", machinesMax)
	case s.rate < 1 || s.rate > pushRateMax:
		return fmt.Errorf("--rate: give a number between 1 and %d", pushRateMax)
	case int64(d.Seconds()*float64(s.rate)) > most:
		return fmt.Errorf("--rate and --duration: %d machines hold up to %d codes: give less of one, or more --machines", s.machines, most)
	case s.backlog < 1 || s.backlog > backlogMax || int64(s.backlog) > most:
		return fmt.Errorf("--backlog: give a number between 1 and %d for so many machines", min(most, backlogMax))
	}
	return nil
}

const (
	// pushClients make codes over HTTP: enough that one is free whenever it is
	// time for the next code, unless the server is far behind.
	pushClients = 128
	// filesSpare is how many files a process has open beside its machines.
	filesSpare = pushClients + 128
	// settleFor is how long the server is left alone before its memory is read.
	settleFor = 5 * time.Second
	// arriveWithin bounds the wait for what has not arrived when everything has
	// been sent.
	arriveWithin = time.Minute
	pushTTL      = 24 * time.Hour
	// pushMost bounds how long codes are made if that is but one of many things to
	// measure.
	pushMost = 10 * time.Second
)

// vending is a database with machines, each of which sells one product.
type vending struct {
	*database
	merchant fleet.Merchant
	machines []credentials
}

// product is the id of the one that each machine sells.
const product = 1

// push measures pickup codes on their way to machines: with the server in a
// process of its own, and then, for the backlog, in this one.
func (s *settings) push(ctx context.Context) error {
	if most := openFilesMax(); most > 0 && s.machines+filesSpare > most {
		return fmt.Errorf("--machines: %d need %d open files in one process, and %d are allowed: raise the hard limit "+
			"(ulimit -Hn, or LimitNOFILE= of systemd), or give at most %d", s.machines, s.machines+filesSpare, most, most-filesSpare)
	}
	v, err := s.newVending(ctx)
	if err != nil {
		return err
	}
	if err := s.pushOut(ctx, v); err != nil || over(ctx) {
		return err
	}
	return s.drain(ctx, v)
}

// newVending makes a database with machines, and closes it: another process is
// to serve it.
func (s *settings) newVending(ctx context.Context) (_ *vending, err error) {
	v := &vending{}
	if v.database, err = newDatabase(ctx, s.dir, s.env.Now); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if v.merchant, v.machines, err = v.addMachines(ctx, s.machines, s.progress); err != nil {
		return nil, err
	}
	shuffle(v.machines)
	return v, nil
}

// addMachines makes n machines of one merchant, each of which sells one product.
func (d *database) addMachines(ctx context.Context, n int, say *progress) (m fleet.Merchant, list []credentials, err error) {
	use := fleet.NewService(d.engine, d.Keys(), nil, d.now, nil)
	by := d.actor()
	if m, err = use.CreateMerchant(ctx, by, fleet.Merchant{Name: "bench"}, nil); err != nil {
		return m, nil, fmt.Errorf("making a merchant: %w", err)
	}
	say.begin("making machines", "machines", int64(n))
	for i := range n {
		c := credentials{fmt.Sprintf("%08d", 10_000_000+i), fleet.NewPassword()}
		_, err := use.CreateMachine(ctx, by, fleet.Machine{
			MerchantID: m.ID, No: c.no, Name: "bench", Zone: "Asia/Shanghai", PurchaseLimit: 1, PickupCodes: true,
		}, c.password, nil)
		if err == nil {
			_, err = use.CreateProduct(ctx, by, c.no, fleet.Product{ID: product, Name: "bench", Slot: "1"}, nil)
		}
		if err != nil {
			return m, nil, fmt.Errorf("making machines: %w", err)
		}
		list = append(list, c)
		say.done(int64(i + 1))
	}
	return m, list, nil
}

// pushOut measures the server as a process: how soon all machines are
// connected, how soon each has a code that is made for it, how soon all are back
// when all connections have broken, and how much memory that takes.
func (s *settings) pushOut(ctx context.Context, v *vending) (err error) {
	p, err := s.start(ctx, v.database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	used := s.footprintOfMachines(p)
	machines := newSwarm(s.env.Now, p.mqtt, v.machines)
	defer machines.close()
	base := result{Bench: benchPush, Clients: len(v.machines)}

	s.measuring("connecting %s machines at once", grouped(int64(len(v.machines))))
	connected, err := machines.start(ctx)
	base.Kind = "connect and subscribe, all at once"
	s.report.add(base, []*sample{connected}, 1)
	if err != nil {
		return err
	}
	pause(ctx, min(s.duration, settleFor))
	used.idle()

	s.measuring("making %s codes a second for them, %s", grouped(int64(s.rate)), s.duration)
	made, err := s.makeCodes(ctx, v, p.target, machines)
	if err != nil {
		return err
	}
	pushed := made.sample()
	base.Kind = "POST to machine, " + grouped(int64(s.rate)) + "/s"
	s.report.add(base, []*sample{pushed}, 1)
	if over(ctx) {
		return nil
	}
	s.checkPushed(made, pushed)
	used.busy()

	s.measuring("cutting all connections")
	again := newTally(s.env.Now(), 1, len(made.tally.at))
	machines.tally.Store(again)
	back, err := machines.restart(ctx)
	base.Kind = "reconnect and subscribe, all at once"
	s.report.add(base, []*sample{back}, 1)
	if err != nil {
		return err
	}
	err = await(ctx, arriveWithin, func() (bool, error) { return again.came.Load() >= made.made(), nil })
	base.Kind = "and each is sent what it should hold"
	s.report.add(base, []*sample{again.sample()}, 1)
	if errors.Is(err, errLate) {
		err = fmt.Errorf("of %d codes that the machines should hold, %d were sent again after they had reconnected",
			made.made(), again.came.Load())
	}
	if err == nil {
		used.peak()
		refused, lost, last := machines.failures()
		s.report.note("push: %d logins were refused or failed and were tried again, and %d connections broke by themselves%s.",
			refused, lost, because(last))
	}
	return err
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf(" (the last reason was: %v)", err)
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// made is codes that were made over HTTP, and how soon they arrived.
type made struct {
	tally  *tally
	begun  []time.Duration // by id - 1: when the request was due; negative: none was answered with that id
	load   sample          // what the requests did
	target int             // how many a second were asked for
}

// made is how many codes were made.
func (m *made) made() int64 { return int64(m.load.hist.n) } //nolint:gosec // G115: it was counted up from 0

// lost is how many were made and have not arrived.
func (m *made) lost() (n int64) {
	for i, begun := range m.begun {
		if _, ok := m.tally.arrived(int64(i + 1)); begun >= 0 && !ok {
			n++
		}
	}
	return n
}

// sample is how long each took from when its request was due until its machine
// had it.
func (m *made) sample() *sample {
	out := &sample{errors: m.load.errors, first: m.load.first}
	for i, begun := range m.begun {
		if at, ok := m.tally.arrived(int64(i + 1)); begun >= 0 && ok {
			out.hist.add(at - begun)
			out.elapsed = max(out.elapsed, at)
		}
	}
	return out
}

// makeCodes makes codes over HTTP at the rate that was asked for, whether or not
// they arrive, dealt out to the machines in turn; and waits until they have.
func (s *settings) makeCodes(ctx context.Context, v *vending, t *target, machines *swarm) (*made, error) {
	n := max(int(s.duration.Seconds()*float64(s.rate)), 1)
	callers := callersOf(t, []identity{v.root}, min(pushClients, n))
	defer closeAll(callers)
	for _, c := range callers { // its connection is there when the time runs
		if _, err := c.ask(ctx, "GET", "/api/user/self", nil); err != nil {
			return nil, fmt.Errorf("asking who makes the codes: %w", err)
		}
	}
	start := s.env.Now()
	m := &made{tally: newTally(start, 1, n), begun: make([]time.Duration, n), target: s.rate}
	for i := range m.begun {
		m.begun[i] = -1
	}
	machines.tally.Store(m.tally)
	body := fmt.Appendf(nil, `{"product_id":%d,"quantity":1,"ttl_seconds":%d,"allow_more":true}`, product, int(pushTTL.Seconds()))
	var next atomic.Int64
	var mu sync.Mutex // of m
	var wg sync.WaitGroup
	for _, c := range callers {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return
				}
				due := time.Duration(i) * time.Second / time.Duration(s.rate)
				pause(ctx, start.Add(due).Sub(s.env.Now()))
				if over(ctx) {
					return
				}
				id, err := c.makeCode(ctx, v.machines[i%int64(len(v.machines))].no, body)
				mu.Lock()
				switch {
				case over(ctx):
				case err == nil && (id < 1 || id > int64(n)):
					err = fmt.Errorf("the code has the id %d, though only %d were asked for", id, n)
					fallthrough
				case err != nil:
					m.load.errors++
					if m.load.first == nil {
						m.load.first = err
					}
				default:
					m.load.hist.add(s.env.Now().Sub(start) - due)
					m.begun[id-1] = due
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := failed(ctx, &m.load); err != nil {
		return nil, err
	}
	err := await(ctx, arriveWithin, func() (bool, error) { return m.tally.came.Load() >= m.made(), nil })
	if over(ctx) || errors.Is(err, errLate) { // what is lost is counted
		err = nil
	}
	return m, err
}

// makeCode makes a pickup code and returns its id.
func (c *caller) makeCode(ctx context.Context, no string, body []byte) (int64, error) {
	status, answer, err := c.call(ctx, "POST", "/api/v1/machines/"+no+"/pickup-codes", body)
	if err != nil {
		return 0, err
	}
	var code struct {
		ID int64 `json:"id"`
	}
	if err := json.Unmarshal(answer, &code); err != nil || status != 201 {
		return 0, fmt.Errorf("HTTP %d: %.200s", status, answer)
	}
	return code.ID, nil
}

// checkPushed holds what was pushed against the targets.
func (s *settings) checkPushed(m *made, pushed *sample) {
	n, lost := m.made(), m.lost()
	s.report.check(check{
		Bench: benchPush, Kind: "p99 from POST to machine", Value: milliseconds(0.99)(pushed), Unit: "ms", Bound: atMost, Target: 100,
	})
	s.report.check(check{
		Bench: benchPush, Kind: "codes a second / asked for", Value: pushed.rate() / float64(m.target), Bound: atLeast, Target: 0.95,
	})
	s.report.check(check{
		Bench: benchPush, Kind: "codes that arrived / made", Value: float64(n-lost) / float64(n), Bound: atLeast, Target: 1,
	})
	s.report.note("push: of %s codes made over HTTP (p50 %s, p99 %s until the answer) %s were lost, and %s messages came twice.",
		grouped(n), duration(milliseconds(0.5)(&m.load)), duration(milliseconds(0.99)(&m.load)), grouped(lost), grouped(m.tally.again.Load()))
	if n := m.tally.unknown.Load(); n > 0 {
		s.report.note("push: %s messages were about codes that nobody had made.", grouped(n))
	}
}

// footprintOfMachines is how much memory the server has for its machines.
type footprintOfMachines struct {
	s      *settings
	p      *process
	before float64 // MiB, before the first has connected
}

func (s *settings) footprintOfMachines(p *process) *footprintOfMachines {
	f := &footprintOfMachines{s: s, p: p}
	var err error
	if f.before, _, err = memory(p.cmd.Process.Pid); err != nil {
		s.report.note("push: how much memory a process has is read on Linux only (%v).", err)
	}
	return f
}

// each is what the server has gained for each machine, in KiB, now and at its
// most; false if nobody knows.
func (f *footprintOfMachines) each() (now, most float64, ok bool) {
	now, most, err := memory(f.p.cmd.Process.Pid)
	each := func(mib float64) float64 { return (mib - f.before) * 1024 / float64(f.s.machines) }
	return each(now), each(most), err == nil
}

func (f *footprintOfMachines) idle() {
	if now, _, ok := f.each(); ok {
		f.s.report.check(check{
			Bench: benchPush, Kind: "memory of the server for each connected machine", Value: now, Unit: "KiB", Bound: atMost, Target: 40,
		})
	}
}

func (f *footprintOfMachines) busy() {
	if now, _, ok := f.each(); ok {
		f.s.report.check(check{
			Bench: benchPush, Kind: "the same, after all those codes", Value: now, Unit: "KiB", Bound: atMost, Target: 40,
		})
	}
}

func (f *footprintOfMachines) peak() {
	if now, most, ok := f.each(); ok {
		f.s.report.note("push: the server had %.1f MiB before the first machine. For each machine it had %s KiB more after all had "+
			"reconnected, and %s KiB at its most.", f.before, strconv.FormatFloat(now, 'f', 1, 64), strconv.FormatFloat(most, 'f', 1, 64))
	}
}
