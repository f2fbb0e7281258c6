package broker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/wire"
)

// modelSteps is how many things happen in one run of the model check.
const modelSteps = 400

// TestModel lets codes be made, withdrawn and used, machines come and go and lose
// their memory, the server crash, and the clock jump, all at random; at the end
// every machine holds exactly what the server says is live, and every use is
// recorded once. SCRIP_MODEL_SEED runs one seed only.
func TestModel(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6, rand.Uint64()} //nolint:gosec // G404: the random seed is printed
	if text := os.Getenv("SCRIP_MODEL_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Logf("SCRIP_MODEL_SEED=%d", seed)
			newModel(t, seed).run()
		})
	}
}

// model is the world as it should be.
type model struct {
	*world
	rand     *rand.Rand
	machines []*modelMachine
	codes    map[int64]*modelCode
	queue    *mortal
	stop     func()
	wentBack bool // the clock did
}

// modelCode is what is known of a code by who did everything to it.
type modelCode struct {
	pickup.Code
	withdrawn bool
	reported  bool
	late      bool
}

// modelMachine is a machine at the other end. What it is told it keeps at once.
type modelMachine struct {
	*machine
	version version
	peer    *peer  // nil while it is away
	deaf    func() // ends the listening to peer

	mu   sync.Mutex
	held map[int64]wire.Create
	used map[int64]bool // to be reported: true; reported: false
}

// mortal is a store that a crash takes the queue away from: what had not been
// written by then never will be.
type mortal struct {
	delivery.Store
	dead atomic.Bool
}

var errDead = errors.New("the process is dead")

// Advance implements delivery.Store.
func (m *mortal) Advance(ctx context.Context, progress []delivery.Progress) error {
	if m.dead.Load() {
		return errDead
	}
	return m.Store.Advance(ctx, progress)
}

func newModel(t *testing.T, seed uint64) *model {
	t.Helper()
	m := &model{
		world: newWorld(t, options{}), codes: map[int64]*modelCode{},
		rand: rand.New(rand.NewPCG(seed, 0)), //nolint:gosec // G404: it must be repeatable
	}
	m.start()
	for i, v := range []version{version3{}, version5{}, version3{}, version5{}, version5{}} {
		m.machines = append(m.machines, &modelMachine{
			machine: m.machine(fmt.Sprintf("1000000%d", i), "Asia/Shanghai"), version: v,
			held: map[int64]wire.Create{}, used: map[int64]bool{},
		})
	}
	t.Cleanup(func() { m.stop() })
	return m
}

func (m *model) start() {
	m.queue = &mortal{Store: m.db}
	m.stop = m.serve(options{}, m.queue)
}

func (m *model) run() {
	steps := []struct {
		weight int
		do     func()
	}{
		{30, m.create},
		{8, m.withdraw},
		{20, m.use},
		{15, m.come},
		{10, m.leave},
		{3, m.forget},
		{3, m.crash},
		{8, m.forward},
		{1, m.back},
		{4, m.sweep},
		{3, m.replay},
	}
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	for range modelSteps {
		n := m.rand.IntN(total)
		for _, s := range steps {
			if n -= s.weight; n < 0 {
				s.do()
				break
			}
		}
	}
	m.settle()
}

func (m *model) any() *modelMachine { return m.machines[m.rand.IntN(len(m.machines))] }

func (m *model) anyCode() *modelCode {
	ids := slices.Sorted(maps.Keys(m.codes))
	if len(ids) == 0 {
		return nil
	}
	return m.codes[ids[m.rand.IntN(len(ids))]]
}

// live are the codes of a machine that the model takes to be live.
func (m *model) live(at *modelMachine) map[int64]*modelCode {
	out := map[int64]*modelCode{}
	for id, c := range m.codes {
		if c.MachineID == at.ID && !c.withdrawn && !c.reported && m.clock.Now().Before(c.Expires) {
			out[id] = c
		}
	}
	return out
}

func (m *model) create() {
	at := m.any()
	more := m.rand.IntN(4) > 0
	c, err := m.pickups.Create(m.ctx, m.root, pickup.Request{
		MachineNo: at.No, ProductID: at.product, Quantity: 1 + m.rand.Int64N(3), AllowMore: more,
		TTL: time.Minute + time.Duration(m.rand.Int64N(int64(2*time.Hour))),
	})
	if !more && len(m.live(at)) > 0 {
		if refusal.CodeOf(err) != refusal.PickupProductHasLive {
			m.Fatalf("a second live code of a product: %v", err)
		}
		return
	}
	m.check(err)
	for _, other := range m.live(at) {
		if other.Digits == c.Digits {
			m.Fatalf("%s is live twice on one machine", c.Digits)
		}
	}
	m.codes[c.ID] = &modelCode{Code: c}
}

func (m *model) withdraw() {
	c := m.anyCode()
	if c == nil {
		return
	}
	err := m.pickups.Withdraw(m.ctx, m.root, c.ID)
	switch {
	case c.reported:
		m.want(err, refusal.PickupUsed)
	case c.withdrawn:
		m.check(err)
	case !m.clock.Now().Before(c.Expires):
		m.want(err, refusal.PickupExpired)
	default:
		m.check(err)
		c.withdrawn = true
	}
}

func (m *model) want(err error, code refusal.Code) {
	m.Helper()
	if refusal.CodeOf(err) != code {
		m.Fatalf("got %v, want %s", err, code)
	}
}

// use lets a customer use a code, and the machine report it if it can.
func (m *model) use() {
	at := m.any()
	at.mu.Lock()
	var ids []int64
	for _, id := range slices.Sorted(maps.Keys(at.held)) {
		if _, used := at.used[id]; !used && m.clock.Now().Before(at.held[id].Expires) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		at.mu.Unlock()
		return
	}
	at.used[ids[m.rand.IntN(len(ids))]] = true
	at.mu.Unlock()
	m.report(at)
}

// report reports what was used, some of it twice.
func (m *model) report(at *modelMachine) {
	if at.peer == nil {
		return
	}
	at.mu.Lock()
	ids := slices.Sorted(maps.Keys(at.used))
	at.mu.Unlock()
	m.rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		at.mu.Lock()
		fresh := at.used[id]
		at.used[id] = false
		at.mu.Unlock()
		if !fresh {
			continue
		}
		at.peer.send(m.put(at.machine, id))
		c := m.codes[id]
		if !c.reported {
			c.reported = true
			c.late = c.withdrawn || !m.clock.Now().Before(c.Expires)
		}
		if m.rand.IntN(4) == 0 {
			at.peer.send(m.put(at.machine, id))
		}
	}
}

// replay sends an old report again, and one about another machine's code.
func (m *model) replay() {
	at, c := m.any(), m.anyCode()
	if at.peer == nil || c == nil || c.MachineID == at.ID && !c.reported {
		return
	}
	at.peer.send(m.put(at.machine, c.ID))
}

func (m *model) come() {
	at := m.any()
	if at.peer != nil && m.rand.IntN(3) > 0 { // else its second connection takes over
		return
	}
	m.dialIn(at)
	m.report(at)
}

// dialIn connects a machine. Only what came over the connection before has been
// kept does it listen to the new one.
func (m *model) dialIn(at *modelMachine) {
	p := m.connect(at.version, at.machine, login{})
	at.hangUp()
	ctx, cancel := context.WithCancel(m.ctx)
	var listening sync.WaitGroup
	listening.Go(func() {
		for {
			select {
			case got := <-p.got:
				at.hear(p.w, got)
			case <-ctx.Done():
				return
			}
		}
	})
	at.peer = p
	at.deaf = func() {
		cancel()
		listening.Wait()
	}
}

// hangUp ends a machine's connection. What it has acknowledged it has taken in
// before; what comes after the end it has not acknowledged.
func (at *modelMachine) hangUp() {
	if at.peer == nil {
		return
	}
	at.peer.vanish()
	at.deaf()
	for len(at.peer.got) > 0 {
		at.hear(at.peer.w, <-at.peer.got)
	}
	at.peer = nil
}

func (at *modelMachine) hear(w *world, got message) {
	decoded, err := wire.Decode(got.payload)
	if err != nil || !decoded.Verify(appKey) || decoded.MachineNo() != at.No || got.topic != topicOf(at.machine) {
		w.Errorf("machine %s was sent %q on %s: %v", at.No, got.payload, got.topic, err)
		return
	}
	at.mu.Lock()
	defer at.mu.Unlock()
	switch decoded.Method() {
	case wire.MethodCreate:
		c, err := decoded.Create()
		if err != nil {
			w.Error(err)
		}
		at.held[c.ID] = c
	case wire.MethodDelete:
		d, err := decoded.Delete()
		if err != nil {
			w.Error(err)
		}
		delete(at.held, d.ID)
	default:
		w.Errorf("machine %s was sent a %s", at.No, decoded.Method())
	}
}

func (m *model) leave() { m.any().hangUp() }

// forget takes a machine's codes away, as a new memory card does. What it has
// used it still knows.
func (m *model) forget() {
	at := m.any()
	at.hangUp()
	at.mu.Lock()
	defer at.mu.Unlock()
	clear(at.held)
}

// crash ends the server with whatever it has in memory, and starts another.
func (m *model) crash() {
	m.queue.dead.Store(true)
	m.stop()
	for _, at := range m.machines {
		at.hangUp()
	}
	m.start()
}

func (m *model) forward() { m.clock.Add(time.Duration(m.rand.Int64N(int64(40 * time.Minute)))) }

func (m *model) back() {
	m.clock.Add(-time.Duration(m.rand.Int64N(int64(10 * time.Minute))))
	m.wentBack = true
}

func (m *model) sweep() { m.check(m.pickups.Sweep(m.ctx)) }

// settle lets everything come to its end, and compares.
func (m *model) settle() {
	m.sweep()
	for _, at := range m.machines {
		if at.peer == nil || m.wentBack { // what had expired and has not any more is told with the next connection
			m.dialIn(at)
		}
		m.report(at)
	}
	for id, c := range m.codes {
		m.eventually(fmt.Sprintf("code %d to be settled", id), func() bool {
			got := m.get(id)
			state := got.State(m.clock.Now())
			return state != pickup.StateLive && state != pickup.StateWithdrawn ||
				!m.clock.Now().Before(c.Expires) || got.Delivery == pickup.Received
		})
	}
	for _, at := range m.machines {
		want := slices.Sorted(maps.Keys(m.live(at)))
		m.eventually(fmt.Sprintf("machine %s to hold %v", at.No, want), func() bool {
			return slices.Equal(at.holds(m.clock.Now()), want)
		})
		at.mu.Lock()
		for _, id := range want {
			if got, c := at.held[id], m.codes[id]; got.Code != c.Digits || got.Quantity != c.Quantity || !got.Expires.Equal(c.Expires) {
				m.Errorf("machine %s holds %+v, want %+v", at.No, got, c)
			}
		}
		at.mu.Unlock()
	}
	m.compare()
}

// holds are the codes that a machine would honour.
func (at *modelMachine) holds(now time.Time) (ids []int64) {
	at.mu.Lock()
	defer at.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(at.held)) {
		if _, used := at.used[id]; !used && now.Before(at.held[id].Expires) {
			ids = append(ids, id)
		}
	}
	return ids
}

// compare compares what the server says with the model.
func (m *model) compare() {
	uses := 0
	for id, c := range m.codes {
		got := m.get(id)
		want := pickup.StateLive
		switch {
		case c.reported:
			want = pickup.StateUsed
			uses++
		case c.withdrawn:
			want = pickup.StateWithdrawn
		case !m.clock.Now().Before(c.Expires):
			want = pickup.StateExpired
		}
		if state := got.State(m.clock.Now()); state != want || got.LateUse != c.late {
			m.Errorf("code %d is %s, late %t; want %s, late %t", id, state, got.LateUse, want, c.late)
		}
		entries, err := m.db.Ledger(m.ctx, account.LedgerFilter{PickupID: id, Limit: 100})
		m.check(err)
		recorded := 0
		for _, e := range entries {
			if e.Kind == account.KindPickupUse || e.Kind == account.KindPickupLateUse {
				recorded++
			}
		}
		if used := c.reported; used != (recorded == 1) || recorded > 1 {
			m.Errorf("the use of code %d is recorded %d times, used: %t", id, recorded, used)
		}
	}
	m.Logf("%d codes, %d of them used", len(m.codes), uses)
}
