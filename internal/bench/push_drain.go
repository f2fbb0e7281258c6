package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/wire"
)

const (
	// drainWithin bounds the time that a backlog takes.
	drainWithin = 5 * time.Minute
	// makers make the codes of a backlog: they share commits.
	makers = 256
	// markedMax is how many entries of the outbox one commit removes, as
	// delivery has it.
	markedMax = 512
	// publishers publish to the bare broker at the same time: with one or with
	// four it was no faster.
	publishers = 2
)

// drains is a database whose machines are to be told of many codes at once, by
// Scrip's broker and outbox, or by the bare broker followed by the bare driver:
// each in this process, as the machines are.
type drains struct {
	s        *settings
	v        *vending
	raw      *raw
	machines []credentials

	codes []pickup.Code // of the last backlog
	copy  string        // of the database with that backlog in it

	published, marked []float64 // seconds, of each turn of the bare broker and driver
}

// drain measures how fast a backlog reaches machines.
func (s *settings) drain(ctx context.Context, v *vending) (err error) {
	d := &drains{s: s, v: v, machines: v.machines, copy: filepath.Join(v.dir, "copy.db")}
	// Both ends of each connection are in this process.
	if most := openFilesMax(); most > 0 && 2*len(d.machines)+filesSpare > most {
		d.machines = d.machines[:max((most-filesSpare)/2, 1)]
		s.report.note("push: %d open files are allowed in one process, so that the backlog was for %s machines.",
			most, grouped(int64(len(d.machines))))
	}
	if err := v.open(ctx); err != nil {
		return err
	}
	defer func() { s.closing(v.Close()) }()
	if d.raw, err = openRaw(ctx, v.path()); err != nil {
		return err
	}
	defer d.raw.close()
	s.measuring("sending backlogs of %s codes to %s machines", grouped(int64(s.backlog)), grouped(int64(len(d.machines))))
	phases := []phase{d.ours}
	if s.ceiling {
		phases = append(phases, d.bare)
	}
	kept, err := rounds(ctx, s.duration, phases...)
	base := result{Bench: benchPush, Kind: "backlog, until acknowledged and marked", Clients: len(d.machines)}
	s.report.add(base, kept[0], 1)
	if !s.ceiling {
		return err
	}
	base.Kind = "bare broker, then bare driver, same bytes and rows"
	s.report.add(base, kept[1], 1)
	if err == nil && len(kept[1]) > 0 {
		s.report.check(check{
			Bench: benchPush, Kind: "rate of a backlog / bare broker, then bare driver", Value: paired(kept[0], kept[1], (*sample).rate),
			Bound: atLeast, Target: 0.5,
		})
		s.report.note("push: of its time the bare broker took %.0f ms, and the bare driver %.0f ms.",
			1000*median(d.published), 1000*median(d.marked))
	}
	return err
}

// ours is a phase: all machines are connected, and then the outbox starts to
// send what has been made for them.
func (d *drains) ours(ctx context.Context, _ time.Duration) (_ *sample, err error) {
	if err := d.empty(ctx); err != nil {
		return nil, err
	}
	m, err := d.v.serveMachines(ctx, loopback)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	machines := newSwarm(d.s.env.Now, m.address, d.machines)
	defer machines.close()
	if _, err := machines.start(ctx); err != nil {
		return nil, err
	}
	if err := d.fill(ctx, m.pickups); err != nil {
		return nil, err
	}
	t := d.begin(machines)
	m.send()
	if err := d.arrived(ctx, t); err != nil {
		return nil, err
	}
	err = await(ctx, drainWithin, func() (bool, error) {
		b, err := d.v.Backlog(ctx, true)
		return b.Entries == 0, err
	})
	out := t.sample()
	out.elapsed = d.s.env.Now().Sub(t.begun)
	if n := t.again.Load() + t.unknown.Load(); err == nil && n > 0 {
		err = fmt.Errorf("%d messages of the backlog came twice, or were of another", n)
	}
	return out, err
}

// empty has the machines use what they hold, so that they are sent nothing but
// what is made next.
func (d *drains) empty(ctx context.Context) error {
	for _, text := range []string{
		`DELETE FROM outbox`,
		`UPDATE pickup_codes SET state = 2, used = created WHERE state = 1`,
	} {
		if err := d.raw.exec(ctx, text); err != nil {
			return fmt.Errorf("emptying the machines: %w", err)
		}
	}
	return nil
}

// fill makes a backlog, and a copy of the database with it in.
func (d *drains) fill(ctx context.Context, use *pickup.Service) error {
	d.codes = make([]pickup.Code, d.s.backlog)
	var next atomic.Int64
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	for range min(makers, d.s.backlog) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(d.codes)); i = next.Add(1) - 1 {
				code, err := use.Create(ctx, d.v.actor(), pickup.Request{
					MachineNo: d.machines[i%int64(len(d.machines))].no, ProductID: product, Quantity: 1, TTL: pushTTL, AllowMore: true,
				})
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				d.codes[i] = code
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return fmt.Errorf("making a backlog: %w", failed)
	}
	slices.SortFunc(d.codes, func(a, b pickup.Code) int { return int(a.ID - b.ID) })
	if d.s.ceiling {
		if err := d.v.backup(ctx, d.copy); err != nil {
			return err
		}
	}
	return d.raw.checkpoint(ctx)
}

// begin has the machines count the codes of the backlog from now on.
func (d *drains) begin(machines *swarm) *tally {
	runtime.GC() // of what has been prepared
	t := newTally(d.s.env.Now(), d.codes[0].ID, len(d.codes))
	machines.tally.Store(t)
	return t
}

// arrived waits until the machines have acknowledged all of the backlog.
func (d *drains) arrived(ctx context.Context, t *tally) error {
	err := await(ctx, drainWithin, func() (bool, error) { return t.came.Load() == int64(len(t.at)), nil })
	if errors.Is(err, errLate) {
		return fmt.Errorf("after %s %d of a backlog of %d codes had arrived", drainWithin, t.came.Load(), len(t.at))
	}
	return err
}

// bare is a phase: the bare broker publishes the same messages to as many
// machines, and then the bare driver marks them in a copy of the database.
func (d *drains) bare(ctx context.Context, _ time.Duration) (_ *sample, err error) {
	defer func() { err = errors.Join(err, removeDatabase(d.copy)) }()
	raw, err := openRaw(ctx, d.copy)
	if err != nil {
		return nil, err
	}
	defer raw.close()
	plan, err := raw.marks(ctx)
	if err != nil {
		return nil, err
	}
	b, err := startBareBroker(ctx)
	if err != nil {
		return nil, err
	}
	machines := newSwarm(d.s.env.Now, b.address, d.machines)
	defer func() {
		machines.close()
		err = errors.Join(err, b.stop(ctx))
	}()
	if _, err := machines.start(ctx); err != nil {
		return nil, err
	}
	messages := d.messages()

	t := d.begin(machines)
	if err := b.publish(messages); err != nil {
		return nil, err
	}
	if err := d.arrived(ctx, t); err != nil {
		return nil, err
	}
	out := t.sample()
	begun := d.s.env.Now()
	for i := range plan {
		if err := raw.commit(ctx, &plan[i]); err != nil {
			return nil, err
		}
	}
	marking := d.s.env.Now().Sub(begun)
	d.published, d.marked = append(d.published, out.elapsed.Seconds()), append(d.marked, marking.Seconds())
	out.elapsed += marking
	return out, nil
}

// message is what the bare broker is given.
type message struct {
	topic string
	text  []byte
}

// messages are those that Scrip sends of the backlog.
func (d *drains) messages() []message {
	zone, err := time.LoadLocation("Asia/Shanghai")
	if err != nil {
		panic(err) // it is built in
	}
	style := wire.Style{AppKey: d.v.merchant.AppKey}
	out := make([]message, len(d.codes))
	for i := range d.codes {
		c := &d.codes[i]
		out[i] = message{"/clients/" + c.MachineNo, wire.Create{
			Head: wire.Head{At: c.Created, MachineID: c.MachineID, MachineNo: c.MachineNo},
			ID:   c.ID, ProductID: c.ProductID, Code: c.Digits, Quantity: c.Quantity, Expires: c.Expires, Zone: zone,
		}.Encode(style)}
	}
	return out
}

// marks plans the transactions that remove all entries of the outbox, as the
// engine removes them.
func (r *raw) marks(ctx context.Context) ([]transaction, error) {
	var list []byte
	if err := r.row(ctx, `SELECT json_group_array(id) FROM (SELECT id FROM outbox ORDER BY id)`, []any{&list}); err != nil {
		return nil, fmt.Errorf("reading the outbox: %w", err)
	}
	var ids []int64
	if err := json.Unmarshal(list, &ids); err != nil {
		return nil, err
	}
	var plan []transaction
	for group := range slices.Chunk(ids, markedMax) {
		list, err := json.Marshal(group)
		if err != nil {
			return nil, err
		}
		t := transaction{items: len(group)}
		t.add(`DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))`, string(list))
		plan = append(plan, t)
	}
	return plan, nil
}

// removeDatabase removes the files of a database that nobody has open.
func removeDatabase(path string) error {
	var err error
	for _, end := range []string{"", "-wal", "-shm"} {
		if e := os.Remove(path + end); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// allowAll lets everybody in, to everything.
type allowAll struct{ mqtt.HookBase }

// Provides implements mqtt.Hook.
func (*allowAll) Provides(b byte) bool {
	return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck
}

// OnConnectAuthenticate implements mqtt.Hook.
func (*allowAll) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

// OnACLCheck implements mqtt.Hook.
func (*allowAll) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

// bareBroker is the MQTT library as it comes.
type bareBroker struct {
	server  *mqtt.Server
	address string
}

func startBareBroker(ctx context.Context) (*bareBroker, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", loopback)
	if err != nil {
		return nil, err
	}
	b := &bareBroker{address: l.Addr().String(), server: mqtt.New(&mqtt.Options{
		InlineClient: true, Logger: slog.New(slog.DiscardHandler),
	})}
	err = b.server.AddHook(new(allowAll), nil)
	if err == nil {
		err = b.server.AddListener(listeners.NewNet("bench", l))
	}
	if err == nil {
		err = b.server.Serve()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the bare broker: %w", err), l.Close())
	}
	return b, nil
}

// stop waits until all machines are gone and ends the broker: the library locks
// itself up if one leaves meanwhile.
func (b *bareBroker) stop(ctx context.Context) error {
	err := await(context.WithoutCancel(ctx), stopWithin, func() (bool, error) {
		return atomic.LoadInt64(&b.server.Info.ClientsConnected) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("ending the bare broker: %w", err)
	}
	return b.server.Close()
}

// publish gives the broker all messages as fast as it takes them.
func (b *bareBroker) publish(messages []message) error {
	var next atomic.Int64
	failed := make([]error, publishers)
	var wg sync.WaitGroup
	for worker := range publishers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(messages)) && failed[worker] == nil; i = next.Add(1) - 1 {
				failed[worker] = b.server.Publish(messages[i].topic, messages[i].text, false, 1)
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}
