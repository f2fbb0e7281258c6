package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"

	"github.com/scrip-codes/scrip/device"
	"github.com/scrip-codes/scrip/internal/wire"
)

const (
	chaosOperators = 2
	// chaosPickupsMax bounds what each machine is given in a run: it remembers
	// all of it, in a file that it writes anew each time.
	chaosPickupsMax = 2000
	// operateEach is the shortest time between two things that an operator does.
	operateEach = 60 * time.Millisecond
	// chaosTTL is longer than any run.
	chaosTTL = 12 * time.Hour
	// chaosHeartbeat is how often a machine says that it lives.
	chaosHeartbeat = 2 * time.Second
	// settleWithin bounds the wait until each machine holds what it should, once
	// nothing is broken any more. It is longer than any retry rests.
	settleWithin = 2 * time.Minute
	// calmFor is how long nothing may be sent before it counts as calm: by then
	// each machine has been heard of, and told again what it may have missed.
	calmFor = 3 * chaosHeartbeat
	// spyAgain is how soon who listens to everything connects again.
	spyAgain = 50 * time.Millisecond
)

// vendor is a machine: the reference machine, with customers in front of it.
type vendor struct {
	x      *chaos
	number int
	credentials
	device *device.Device

	mu      sync.Mutex
	end     func() // ends its connection; nil: it is to be disconnected
	listens bool   // it is connected
	used    map[int64]bool
}

func (c *cluster) newVendor(v credentials) (*vendor, error) {
	m := &vendor{x: c.x, number: len(c.machines) + 1, credentials: v, used: map[int64]bool{}}
	var err error
	m.device, err = device.Open(device.Config{
		Broker: c.mosquitto.URL(), MachineNo: v.no, Password: v.password, AppKey: c.appKey,
		State: filepath.Join(c.x.dir, "machine-"+v.no), Heartbeat: chaosHeartbeat, Now: c.x.env.Now,
		Vend: func(_ context.Context, p device.Pickup) error { return m.vend(p) },
		On:   m.happened,
	})
	return m, err
}

// on connects the machine.
func (m *vendor) on(ctx context.Context) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end = func() {
		cancel()
		<-done
	}
	go func() {
		defer close(done)
		if err := m.device.Run(ctx); err != nil {
			m.x.violated("machine %s ended: %v", m.no, err)
		}
	}()
}

// off disconnects it, if it is connected.
func (m *vendor) off() {
	m.mu.Lock()
	end := m.end
	m.end = nil
	m.mu.Unlock()
	if end != nil {
		end()
	}
}

func (m *vendor) online() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.listens
}

// vend moves the goods.
func (m *vendor) vend(p device.Pickup) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used[p.ID] {
		m.x.violated("machine %s vended twice for code %d", m.no, p.ID)
	}
	m.used[p.ID] = true
	return nil
}

// happened is told what happens to the machine.
func (m *vendor) happened(e device.Event) {
	now := m.x.history.now()
	switch e.Kind {
	case device.Connected, device.Disconnected:
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.listens = e.Kind == device.Connected; m.listens {
			m.x.faults.success(cutMachine, m.number, now, now)
		}
	case device.Added, device.Withdrawn:
		m.x.faults.success(killMosquitto, 0, now, now)
	case device.Reported:
	}
}

// serve lets customers come until ctx ends.
func (m *vendor) serve(ctx context.Context) {
	left := device.Tries
	for ; !over(ctx); pause(ctx, 200*time.Millisecond+mathrand.N(600*time.Millisecond)) { //nolint:gosec // G404: no secret
		codes := m.device.Codes()
		if len(codes) == 0 {
			continue
		}
		code, wrong := codes[mathrand.IntN(len(codes))].Code, left > 2 && chance(10) //nolint:gosec // G404: no secret
		if wrong {                                                                   // though never so often that there is a pause
			code = fmt.Sprintf("%08d", mathrand.IntN(1e8)) //nolint:gosec // G404: no secret
		}
		online := m.online()
		_, err := m.device.Enter(ctx, code)
		unknown, _ := errors.AsType[*device.UnknownError](err)
		left = device.Tries
		switch {
		case err == nil && online:
			m.x.history.count(countUsed)
		case err == nil:
			m.x.history.count(countOffline)
		case unknown != nil:
			left = unknown.Left
			m.x.history.count(countWrong)
		case wrong && errors.Is(err, device.ErrUsed): // a code as good as any
		default:
			m.x.violated("machine %s refuses a code that it holds: %v", m.no, err)
		}
	}
}

// vending has operators make and withdraw pickup codes, and customers use them,
// until ctx ends.
func (x *chaos) vending(ctx context.Context) {
	always := context.WithoutCancel(ctx)
	each := max(operateEach, x.lasting*chaosOperators/(chaosPickupsMax*chaosMachines))
	var working sync.WaitGroup
	for _, m := range x.cluster.machines {
		working.Go(func() { m.serve(ctx) })
	}
	for range chaosOperators {
		working.Go(func() {
			var live []int64
			for ; !over(ctx); pause(ctx, each) {
				if len(live) > 0 && chance(35) {
					i := mathrand.IntN(len(live)) //nolint:gosec // G404: no secret
					x.withdraw(always, live[i])
					live = slices.Delete(live, i, i+1)
				} else if id, ok := x.makePickup(always, mathrand.IntN(chaosMachines)); ok { //nolint:gosec // G404: no secret
					live = append(live, id)
				}
			}
		})
	}
	working.Wait()
}

// makePickup makes a pickup code for a machine, and returns its id.
func (x *chaos) makePickup(always context.Context, machine int) (id int64, ok bool) {
	path := "/api/v1/machines/" + x.cluster.machines[machine].no + "/pickup-codes"
	body := fmt.Appendf(nil, `{"product_id":%d,"quantity":1,"ttl_seconds":%d,"allow_more":true}`, product, int(chaosTTL.Seconds()))
	var t tried
	if chance(50) {
		t = x.insist(always, x.cluster.root, http.MethodPost, path, body)
	} else {
		t = x.try(always, x.cluster.root, http.MethodPost, path, body, "")
	}
	r := &t.reply
	if !t.ok || r.code == "pickup_too_many_live_codes" {
		return 0, false
	}
	var made struct {
		ID int64 `json:"id"`
	}
	if err := json.Unmarshal(r.body, &made); err != nil || r.status != http.StatusCreated || made.ID == 0 {
		x.violated("a pickup code was answered %d %.300s", r.status, r.body)
		return 0, false
	}
	x.history.count(countMade)
	x.history.mu.Lock()
	defer x.history.mu.Unlock()
	x.history.made[made.ID] = true
	return made.ID, true
}

// withdraw withdraws a pickup code.
func (x *chaos) withdraw(always context.Context, id int64) {
	for n := range chaosAgain {
		t := x.try(always, x.cluster.root, http.MethodDelete, "/api/v1/pickup-codes/"+strconv.FormatInt(id, 10), nil, "")
		switch r := &t.reply; {
		case !t.ok:
			pause(always, time.Duration(n+1)*50*time.Millisecond)
			continue
		case r.status == http.StatusNoContent:
			x.history.count(countTaken)
			x.history.mu.Lock()
			x.history.withdrawn[id] = true
			x.history.mu.Unlock()
		case r.code != "pickup_code_used":
			x.violated("the withdrawal of pickup code %d was answered %d %.300s", id, r.status, r.body)
		}
		return
	}
}

// settle waits until each machine holds what the database says that it should.
func (x *chaos) settle(ctx context.Context) error {
	for _, r := range x.cluster.replicas {
		if err := await(ctx, readyWithin, func() (bool, error) { return r.ready(ctx), nil }); err != nil {
			x.violated("server %d is not ready though nothing is broken any more; its log is %s", r.number, r.log)
		}
	}
	var wrong []string
	err := await(ctx, settleWithin, func() (ok bool, err error) {
		if wrong, err = x.differences(ctx); err != nil {
			return false, err
		}
		if len(wrong) > 0 {
			pause(ctx, time.Second/5)
		}
		return len(wrong) == 0, nil
	})
	if !errors.Is(err, errLate) {
		return err
	}
	const spelt = 10 // the others have most likely the same reason
	for _, text := range wrong[:min(spelt, len(wrong))] {
		x.violated("%s after nothing was broken: %s", settleWithin, text)
	}
	if n := len(wrong) - spelt; n > 0 {
		x.violated("and %d more codes like these", n)
	}
	return nil
}

// differences is what a machine holds and should not, or does not and should.
func (x *chaos) differences(ctx context.Context) (wrong []string, err error) {
	for _, m := range x.cluster.machines {
		if !m.online() {
			wrong = append(wrong, fmt.Sprintf("machine %s is not connected", m.no))
		}
		if n := m.device.Unreported(); n > 0 {
			wrong = append(wrong, fmt.Sprintf("machine %s has %d uses that it could not report", m.no, n))
		}
		states, err := x.pickups(ctx, m.no)
		if err != nil {
			return nil, err
		}
		holds := map[int64]bool{}
		for _, p := range m.device.Codes() {
			holds[p.ID] = true
			if states[p.ID] != "live" {
				wrong = append(wrong, fmt.Sprintf("machine %s holds code %d, which is %q", m.no, p.ID, states[p.ID]))
			}
		}
		m.mu.Lock()
		for id, state := range states {
			if state == "live" && !holds[id] && !m.used[id] {
				wrong = append(wrong, fmt.Sprintf("LOST: machine %s does not hold code %d, which is live", m.no, id))
			}
			if m.used[id] && state != "used" {
				wrong = append(wrong, fmt.Sprintf("LOST: machine %s was used with code %d, which is %q", m.no, id, state))
			}
		}
		m.mu.Unlock()
	}
	return wrong, nil
}

// pickups are the states of all of a machine's codes, by their ids.
func (x *chaos) pickups(ctx context.Context, no string) (map[int64]string, error) {
	states := map[int64]string{}
	path := "/api/v1/machines/" + no + "/pickup-codes?limit=100"
	for next := path; next != ""; {
		r, err := x.cluster.any().call(ctx, x.cluster.root, http.MethodGet, next, nil, "")
		if err == nil && r.status != http.StatusOK {
			err = fmt.Errorf("GET %s: HTTP %d %.300s", next, r.status, r.body)
		}
		var page struct {
			Items []struct {
				ID    int64  `json:"id"`
				State string `json:"state"`
			} `json:"items"`
			Next string `json:"next_cursor"`
		}
		if err == nil {
			err = json.Unmarshal(r.body, &page)
		}
		if err != nil {
			return nil, fmt.Errorf("listing pickup codes: %w", err)
		}
		for _, item := range page.Items {
			states[item.ID] = item.State
		}
		if next = ""; page.Next != "" {
			next = path + "&cursor=" + url.QueryEscape(page.Next)
		}
	}
	return states, nil
}

// calm makes and withdraws some more codes while nothing is broken: each message
// goes out once then, however many servers could send it.
func (x *chaos) calm(ctx context.Context) error {
	const each = 3
	var ids []int64
	// sent waits until all have been spoken of, and nothing more is said.
	sent := func(about string) error {
		err := await(ctx, settleWithin, func() (bool, error) {
			for _, id := range ids {
				if x.cluster.spy.times(id, about) == 0 {
					return false, nil
				}
			}
			return x.cluster.spy.silent() > calmFor, nil
		})
		if err != nil && !errors.Is(err, errLate) {
			return err
		}
		for _, id := range ids {
			if n := x.cluster.spy.times(id, about); n != 1 {
				x.violated("the message %s of code %d was sent %d times though nothing was broken", about, id, n)
			}
		}
		return nil
	}
	if err := sent(""); err != nil {
		return err
	}
	for n := range each * chaosMachines {
		if id, ok := x.makePickup(ctx, n%chaosMachines); ok {
			ids = append(ids, id)
		}
	}
	if len(ids) < each*chaosMachines {
		x.violated("only %d of %d pickup codes could be made though nothing is broken any more", len(ids), each*chaosMachines)
	}
	if err := sent(wire.MethodCreate); err != nil {
		return err
	}
	for _, id := range ids {
		x.withdraw(ctx, id)
	}
	return errors.Join(sent(wire.MethodDelete), x.settle(ctx))
}

// spy hears what all machines are told.
type spy struct {
	x      *chaos
	client *autopaho.ConnectionManager
	end    context.CancelFunc

	mu       sync.Mutex
	messages int64
	last     time.Duration            // when the last came
	heard    map[int64]map[string]int // by code and method, how often
}

func (x *chaos) newSpy(ctx context.Context, broker string) (*spy, error) {
	u, err := url.Parse(broker)
	if err != nil {
		return nil, err
	}
	s := &spy{x: x, heard: map[int64]map[string]int{}}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	s.end = end
	listening := make(chan struct{}, 1)
	s.client, err = autopaho.NewConnection(life, autopaho.ClientConfig{
		ServerUrls: []*url.URL{u}, KeepAlive: 60, CleanStartOnInitialConnection: true, ConnectTimeout: dialWithin,
		ReconnectBackoff: func(int) time.Duration { return spyAgain },
		OnConnectionUp: func(c *autopaho.ConnectionManager, _ *paho.Connack) {
			if _, err := c.Subscribe(life, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "/clients/+", QoS: 1}}}); err != nil {
				return // the connection is gone: there will be another
			}
			select {
			case listening <- struct{}{}:
			default:
			}
		},
		ClientConfig: paho.ClientConfig{
			ClientID: "chaos",
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
				s.hear(p.Packet.Payload)
				return true, nil
			}},
		},
	})
	if err != nil {
		end()
		return nil, err
	}
	select {
	case <-listening:
		return s, nil
	case <-time.After(dialWithin):
		s.stop()
		return nil, errors.New("nobody can listen at the broker")
	}
}

func (s *spy) stop() {
	s.end()
	<-s.client.Done()
}

// hear notes a message, and that none tells of a code after its withdrawal.
func (s *spy) hear(payload []byte) {
	m, err := wire.Decode(payload)
	if err != nil || !m.Verify(s.x.cluster.appKey) {
		s.x.violated("a machine was sent %.300q: %v", payload, err)
		return
	}
	var id int64
	switch m.Method() {
	case wire.MethodCreate:
		c, err := m.Create()
		if err != nil {
			s.x.violated("a machine was sent %.300q: %v", payload, err)
			return
		}
		id = c.ID
	case wire.MethodDelete:
		d, err := m.Delete()
		if err != nil {
			s.x.violated("a machine was sent %.300q: %v", payload, err)
			return
		}
		id = d.ID
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages++
	s.last = s.x.history.now()
	if s.heard[id] == nil {
		s.heard[id] = map[string]int{}
	}
	s.heard[id][m.Method()]++
	if m.Method() == wire.MethodCreate && s.heard[id][wire.MethodDelete] > 0 {
		s.x.violated("machine %s was told of code %d after it was told of its withdrawal", m.MachineNo(), id)
	}
}

// times is how often a code was spoken of so.
func (s *spy) times(id int64, method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard[id][method]
}

// silent is for how long nothing has been said.
func (s *spy) silent() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.x.history.now() - s.last
}
