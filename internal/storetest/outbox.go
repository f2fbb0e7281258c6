package storetest

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
)

// outboxTests run the outbox over the engine, with machines at its other end
// that do as the test says. Time is that of synctest.
func outboxTests() map[string]func(w *world) {
	return map[string]func(w *world){
		"OneAtATimeInOrder":     outboxOrder,
		"UnacknowledgedFirst":   outboxUnacknowledgedFirst,
		"SilentMachine":         outboxSilentMachine,
		"NeverAcknowledges":     outboxNeverAcknowledges,
		"QualityOfServiceZero":  outboxWithoutAcknowledgement,
		"RetriesWithBackoff":    outboxRetries,
		"FailureHoldsUpNobody":  outboxPoison,
		"WithdrawnWhileWaiting": outboxWithdrawn,
		"ExpiredWhileWaiting":   outboxExpired,
		"DisconnectEntry":       outboxDisconnect,
		"AwayUntilConnected":    outboxAway,
		"ProgressIsWritten":     outboxProgress,
		"BacklogOfPages":        outboxPages,
	}
}

// line is the other end of the outbox: what it sends comes out of sent.
type line struct {
	*world
	outbox       *delivery.Outbox
	sent         chan sending
	disconnected chan int64
	// fail, if it returns an error, is why a message is not sent.
	fail func(delivery.Item) error
	// mute says that no acknowledgement will come.
	mute bool
}

// sending is one message, with the acknowledgement to be called.
type sending struct {
	delivery.Item
	acknowledged func()
}

// Send implements delivery.Sender.
func (l *line) Send(ctx context.Context, item delivery.Item, acknowledged func()) (bool, error) {
	if l.fail != nil {
		if err := l.fail(item); err != nil {
			return false, err
		}
	}
	if _, err := l.pickups.MessageOf(ctx, item); err != nil {
		return false, err
	}
	l.sent <- sending{item, acknowledged}
	return !l.mute, nil
}

// Disconnect implements delivery.Sender.
func (l *line) Disconnect(machine int64) { l.disconnected <- machine }

// lined runs test in a bubble, with the outbox running.
func (w *world) lined(test func(l *line)) {
	w.Helper()
	synctest.Test(w.T, func(t *testing.T) {
		inside := *w
		inside.T, inside.ctx = t, t.Context()
		l := &line{world: &inside, sent: make(chan sending, 1000), disconnected: make(chan int64, 10)}
		l.outbox = delivery.New(w.engine, slog.New(slog.DiscardHandler))
		l.fleet = fleet.NewService(w.engine, w.engine.Keys(), nil, w.clock.Now, l.outbox.Changed)
		l.pickups = pickup.NewService(w.engine, w.engine.Keys(), w.clock.Now, l.outbox.Changed)
		ctx, cancel := context.WithCancel(t.Context())
		l.check(l.outbox.Begin(ctx))
		var running sync.WaitGroup
		running.Go(func() { l.outbox.Run(ctx, l) })
		test(l)
		cancel()
		running.Wait()
	})
}

func (l *line) codes(m fleet.Machine, n int) (ids []int64) {
	l.Helper()
	for range n {
		c, err := l.pickups.Create(l.ctx, l.root, pickup.Request{MachineNo: m.No, ProductID: 1, Quantity: 1, AllowMore: true})
		l.check(err)
		ids = append(ids, c.ID)
	}
	return ids
}

// next is the next message, which must come by itself and without time passing
// but for what the outbox waits to look around.
func (l *line) next() sending {
	l.Helper()
	return l.within(time.Second)
}

func (l *line) within(d time.Duration) sending {
	l.Helper()
	select {
	case s := <-l.sent:
		return s
	case <-time.After(d):
		l.Fatal("nothing is sent")
		return sending{}
	}
}

// quiet fails the test if a message comes within d.
func (l *line) quiet(d time.Duration) {
	l.Helper()
	select {
	case s := <-l.sent:
		l.Fatalf("%+v is sent", s.Item)
	case <-time.After(d):
	}
}

// acknowledged takes the next messages, acknowledges them, and checks which
// codes they are about.
func (l *line) acknowledged(want ...int64) {
	l.Helper()
	var got []int64
	for range want {
		s := l.next()
		got = append(got, s.CodeID)
		s.acknowledged()
	}
	if !slices.Equal(got, want) {
		l.Fatalf("sent %v, want %v", got, want)
	}
}

func (l *line) delivery(id int64) pickup.Delivery {
	l.Helper()
	c, err := l.pickups.Get(l.ctx, l.root, id)
	l.check(err)
	return c.Delivery
}

func outboxOrder(w *world) {
	w.lined(func(l *line) {
		m, other := l.stocked("10000001", 1), l.stocked("10000002", 1)
		ids, others := l.codes(m, 3), l.codes(other, 1)
		l.quiet(time.Minute) // nobody is connected
		l.outbox.Connected(m.ID)
		first := l.next()
		if first.CodeID != ids[0] || first.Kind != delivery.KindCreate {
			l.Fatalf("got %+v", first.Item)
		}
		l.quiet(time.Second) // the second waits for the first
		l.outbox.Connected(other.ID)
		l.acknowledged(others...) // but no other machine does
		first.acknowledged()
		first.acknowledged() // twice makes no difference
		l.acknowledged(ids[1:]...)
		later := l.codes(m, 2)
		l.acknowledged(later...)
		l.quiet(time.Minute)
	})
}

func outboxUnacknowledgedFirst(w *world) {
	w.lined(func(l *line) {
		m := l.stocked("10000001", 1)
		known := l.codes(m, 3)
		l.outbox.Connected(m.ID)
		l.acknowledged(known...)
		l.outbox.Disconnected(m.ID)
		l.check(l.pickups.Withdraw(l.ctx, l.root, known[1]))
		fresh := l.codes(m, 1)
		l.quiet(time.Minute)
		l.outbox.Connected(m.ID)
		withdrawal := l.next()
		if withdrawal.Kind != delivery.KindDelete || withdrawal.CodeID != known[1] {
			l.Fatalf("got %+v, want the withdrawal first", withdrawal.Item)
		}
		withdrawal.acknowledged()
		l.acknowledged(fresh[0], known[0], known[2]) // what it has had comes last, and once
		l.quiet(time.Minute)
	})
}

func outboxSilentMachine(w *world) {
	w.lined(func(l *line) {
		m := l.stocked("10000001", 1)
		ids := l.codes(m, 2)
		l.outbox.Connected(m.ID)
		first := l.next()
		l.quiet(9 * time.Second)
		second := l.within(2 * time.Second) // patience has an end
		if second.CodeID != ids[1] {
			l.Fatalf("got %+v", second.Item)
		}
		first.acknowledged() // late, and good all the same
		second.acknowledged()
		<-time.After(time.Second)
		for _, id := range ids {
			if d := l.delivery(id); d != pickup.Received {
				l.Errorf("code %d is %s", id, d)
			}
		}
	})
}

func outboxNeverAcknowledges(w *world) {
	w.lined(func(l *line) {
		m := l.stocked("10000001", 1)
		ids := l.codes(m, 20)
		l.outbox.Connected(m.ID)
		for _, id := range ids[:16] {
			if s := l.within(11 * time.Second); s.CodeID != id {
				l.Fatalf("got %+v, want code %d", s.Item, id)
			}
		}
		if got := <-l.disconnected; got != m.ID { // enough is under way
			l.Fatalf("machine %d is disconnected", got)
		}
		l.outbox.Disconnected(m.ID)
		l.quiet(time.Hour)
		l.outbox.Connected(m.ID)
		l.acknowledged(ids...) // all of them again
	})
}

func outboxWithoutAcknowledgement(w *world) {
	w.lined(func(l *line) {
		l.mute = true
		m := l.stocked("10000001", 1)
		ids := l.codes(m, 3)
		l.outbox.Connected(m.ID)
		for _, id := range ids {
			if s := l.next(); s.CodeID != id {
				l.Fatalf("got %+v", s.Item)
			}
		}
		<-time.After(time.Second)
		if d := l.delivery(ids[0]); d != pickup.Sent {
			l.Errorf("it is %s", d)
		}
		l.outbox.Connected(m.ID)
		if s := l.next(); s.CodeID != ids[0] {
			l.Errorf("got %+v, want all of it again", s.Item)
		}
	})
}

func outboxRetries(w *world) {
	w.lined(func(l *line) {
		m := l.stocked("10000001", 1)
		ids := l.codes(m, 1)
		var tries []time.Time
		l.fail = func(delivery.Item) error {
			tries = append(tries, time.Now()) //nolint:forbidigo // of the bubble
			if len(tries) <= 12 {
				return errors.New("the cable is out")
			}
			return nil
		}
		l.outbox.Connected(m.ID)
		s := l.within(10 * time.Minute)
		if s.CodeID != ids[0] || len(tries) != 13 {
			l.Fatalf("got %+v after %d tries", s.Item, len(tries))
		}
		for i := 1; i < len(tries); i++ {
			pause := tries[i].Sub(tries[i-1])
			whole := min(100*time.Millisecond<<(i-1), 30*time.Second)
			if pause < whole/2 || pause > whole {
				l.Errorf("pause %d is %v, want between %v and %v", i, pause, whole/2, whole)
			}
		}
		s.acknowledged()
	})
}

func outboxPoison(w *world) {
	w.lined(func(l *line) {
		m := l.stocked("10000001", 1)
		bad := l.codes(m, 1)[0]
		l.fail = func(item delivery.Item) error {
			if item.CodeID == bad {
				return errors.New("this one never goes")
			}
			return nil
		}
		l.outbox.Connected(m.ID)
		<-time.After(5 * time.Minute)
		good := l.codes(m, 3)
		for _, id := range good {
			s := l.within(2 * time.Minute)
			if s.CodeID != id {
				l.Fatalf("got %+v, want code %d", s.Item, id)
			}
			s.acknowledged()
		}
	})
}

func outboxWithdrawn(w *world) {
	w.lined(func(l *line) {
		m := l.stocked("10000001", 1)
		ids := l.codes(m, 3)
		l.outbox.Connected(m.ID)
		first := l.next()
		l.check(l.pickups.Withdraw(l.ctx, l.root, ids[1]))
		l.check(l.pickups.Withdraw(l.ctx, l.root, ids[0])) // its creation is under way
		first.acknowledged()
		var got []delivery.Item
		for range 3 {
			s := l.next()
			got = append(got, delivery.Item{Kind: s.Kind, CodeID: s.CodeID})
			s.acknowledged()
		}
		want := []delivery.Item{
			{Kind: delivery.KindCreate, CodeID: ids[2]},
			{Kind: delivery.KindDelete, CodeID: ids[1]},
			{Kind: delivery.KindDelete, CodeID: ids[0]},
		}
		if !slices.Equal(got, want) {
			l.Errorf("got %+v, want %+v", got, want)
		}
		l.quiet(time.Minute)
	})
}

func outboxExpired(w *world) {
	w.lined(func(l *line) {
		m := l.stocked("10000001", 1)
		ids := l.codes(m, 2)
		l.outbox.Connected(m.ID)
		first := l.next()
		l.clock.Add(pickup.TTLDefault)
		first.acknowledged()
		l.quiet(time.Minute)
		l.check(l.pickups.Sweep(l.ctx))
		for i, want := range []pickup.Delivery{pickup.Received, pickup.Queued} {
			if d := l.delivery(ids[i]); d != want {
				l.Errorf("code %d is %s, want %s", ids[i], d, want)
			}
		}
		l.outbox.Connected(m.ID)
		l.quiet(time.Minute)
	})
}

func outboxDisconnect(w *world) {
	w.lined(func(l *line) {
		m := l.stocked("10000001", 1)
		l.outbox.Connected(m.ID)
		l.check(l.fleet.RenewPassword(l.ctx, l.root, m.No, fleet.NewPassword(), nil))
		if got := <-l.disconnected; got != m.ID {
			l.Errorf("machine %d is disconnected, want %d", got, m.ID)
		}
		l.outbox.Disconnected(m.ID)
		// As another process does it, which cannot tell the outbox.
		elsewhere := fleet.NewService(l.engine, l.engine.Keys(), nil, l.clock.Now, nil)
		l.check(elsewhere.DeleteMachine(l.ctx, l.root, m.No))
		begun := time.Now() //nolint:forbidigo // of the bubble
		<-l.disconnected
		if waited := time.Since(begun); waited > time.Second {
			l.Errorf("it took %v", waited)
		}
		<-time.After(time.Second)
		if b, err := l.engine.Backlog(l.ctx, true); err != nil || b.Entries != 0 {
			l.Errorf("%+v is left, %v", b, err)
		}
	})
}

func outboxAway(w *world) {
	w.lined(func(l *line) {
		m := l.stocked("10000001", 1)
		away := true
		l.fail = func(delivery.Item) error {
			if away {
				return delivery.ErrAway
			}
			return nil
		}
		ids := l.codes(m, 1)
		l.outbox.Connected(m.ID)
		l.quiet(time.Hour)
		away = false
		l.quiet(time.Hour)
		l.outbox.Connected(m.ID)
		l.acknowledged(ids...)
	})
}

func outboxProgress(w *world) {
	w.lined(func(l *line) {
		m := l.stocked("10000001", 1)
		id := l.codes(m, 1)[0]
		if d := l.delivery(id); d != pickup.Queued {
			l.Errorf("before it is sent it is %s", d)
		}
		l.outbox.Connected(m.ID)
		s := l.next()
		<-time.After(time.Second)
		if d := l.delivery(id); d != pickup.Sent {
			l.Errorf("once it is sent it is %s", d)
		}
		s.acknowledged()
		<-time.After(time.Second)
		if d := l.delivery(id); d != pickup.Received {
			l.Errorf("once it is acknowledged it is %s", d)
		}
		l.check(l.pickups.Withdraw(l.ctx, l.root, id))
		if d := l.delivery(id); d == pickup.Received {
			l.Errorf("of the withdrawal it has heard nothing yet, and it is %s", d)
		}
		l.acknowledged(id)
	})
}

func outboxPages(w *world) {
	w.lined(func(l *line) {
		m := l.stocked("10000001", 1)
		ids := l.codes(m, 100) // more than are looked up at once
		l.outbox.Connected(m.ID)
		l.acknowledged(ids...)
		<-time.After(time.Second)
		l.outbox.Connected(m.ID)
		l.acknowledged(ids...) // once per connection
		l.quiet(time.Minute)
	})
}
