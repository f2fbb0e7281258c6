package delivery

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"math/bits"
	"sync"
	"time"
)

const (
	// senders bounds the messages that are on their way to the broker.
	senders = 128
	// claimPage is how many entries are looked for at once.
	claimPage = 512
	// itemsMax bounds the entries in memory: those claimed, those on their way,
	// and those sent and not yet written down.
	itemsMax = 2048
	// claimRest is how long a Relay rests between two looks at least, so that under
	// load there is something to see.
	claimRest = 10 * time.Millisecond
	// leaseFor is how long a machine is one Relay's. Its end is told by the clocks
	// of two servers, which may differ by leaseMargin, less the time that a message
	// needs to the broker: nothing is begun any more when so little is left, and what
	// has not come to its end is given up when that is down to leaseEnd.
	leaseFor    = 5 * time.Second
	leaseMargin = 2 * time.Second
	leaseEnd    = time.Second
	// tidyEvery is how often leases are removed that have ended as long ago.
	tidyEvery = time.Minute
	// restsMax bounds the failures that are remembered. With more of them the Relay
	// claims nothing for a while: what fails so often is not one entry's fault.
	restsMax = 4096
	// unheardTries bounds how often a message is sent that nobody listens for, within
	// half a minute: the machine may be on its way. Then it waits for it to come back.
	unheardTries = 9
	// goneRest is for an entry that there is nothing to say of any more: its removal
	// is under way.
	goneRest = 5 * time.Second
)

// Relay sends what waits through a broker that is not ours, beside others that
// do the same on the same database: each machine is served by one of them at a
// time, in order, and by another one within seconds if that dies. It does not
// learn what machines have acknowledged: an entry that the broker has is sent
// again once the machine comes back, as fleet.Store.See has it. It is safe for
// concurrent use.
type Relay struct {
	store   Store
	log     *slog.Logger
	now     func() time.Time
	sender  Sender
	holder  string
	changed chan struct{}
	ready   chan *share // each share of machines once at most, so that nobody waits to put one in

	// The loop's alone.
	after  int64     // the last entry looked at
	began  time.Time // when this walk through the entries did
	tidied time.Time // when leases were that have ended long ago
	failed int       // looks in a row
	warned bool      // that nobody ends a connection

	mu     sync.Mutex
	up     bool // the broker is connected
	shares map[int64]*share
	known  map[round]struct{} // what is in memory
	rests  map[round]rest     // what has failed
	paused time.Time          // nothing is claimed until then
	sent   []Progress         // not written down yet
}

// share is one machine and what is to be sent to it. As long as there is one it
// is in Relay.ready or with a sender. Relay.mu guards it.
type share struct {
	machine int64
	until   time.Time // of its lease
	items   []Item
	flying  *leased // what is with a sender; nil: nothing
}

// giveUp gives up what is with a sender: others may have spoken to the machine
// since.
func (s *share) giveUp() {
	if s.flying != nil {
		s.flying.end()
	}
}

// round is an entry, once for each time that it is to be sent.
type round struct{ id, round int64 }

func roundOf(i *Item) round { return round{i.ID, i.Round} }

// rest is how often something has failed, and until when it is left alone.
type rest struct {
	failed int
	until  time.Time
}

// NewRelay returns a Relay over store. It sends nothing before Run and Up.
func NewRelay(store Store, now func() time.Time, log *slog.Logger) *Relay {
	return &Relay{
		store: store, log: log, now: now, holder: rand.Text(),
		changed: make(chan struct{}, 1), ready: make(chan *share, itemsMax+senders),
		shares: map[int64]*share{}, known: map[round]struct{}{}, rests: map[round]rest{},
	}
}

// Changed says that entries have come into the outbox.
func (r *Relay) Changed() {
	select {
	case r.changed <- struct{}{}:
	default: // somebody has said so
	}
}

// Up says that the broker is connected.
func (r *Relay) Up() {
	r.mu.Lock()
	r.up = true
	clear(r.rests) // it may be another broker, or have been told otherwise
	r.paused = time.Time{}
	r.mu.Unlock()
	r.Changed()
}

// Down says that the broker is not connected: others may be, and take over.
func (r *Relay) Down() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up = false
	for _, s := range r.shares {
		r.drop(s)
	}
}

// drop forgets what was to be sent to a machine. It is called with the lock.
func (r *Relay) drop(s *share) {
	for i := range s.items {
		delete(r.known, roundOf(&s.items[i]))
	}
	s.items = nil
}

// Run sends until ctx ends, and then writes down what has been sent.
func (r *Relay) Run(ctx context.Context, sender Sender) {
	r.sender = sender
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() { r.work(ctx) })
	}
	r.look(ctx)
	sending.Wait()
	r.write(context.WithoutCancel(ctx))
}

// look writes down what has been sent and claims what waits, over and over.
func (r *Relay) look(ctx context.Context) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		written := r.write(ctx)
		more := r.claim(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(claimRest):
		}
		if more && written {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-r.changed:
		case <-tick.C:
		}
	}
}

// claim takes what waits, as far as there is room for it, and reports whether
// there is more.
func (r *Relay) claim(ctx context.Context) (more bool) {
	now := r.now()
	c, full, ok := r.wanted(now)
	if !ok {
		return full
	}
	claimed, err := r.store.Claim(ctx, c)
	if err != nil {
		r.failed++
		if ctx.Err() == nil && bits.OnesCount(uint(r.failed)) == 1 { // 1, 2, 4, 8, …
			r.log.LogAttrs(ctx, slog.LevelError, "reading the outbox", slog.Int("tries", r.failed), slog.Any("error", err))
		}
		return false
	}
	r.failed = 0
	if lost := r.take(ctx, &c, &claimed); lost {
		r.after = 0
		return true
	}
	if c.Most == 0 {
		return full
	}
	if r.after = claimed.Last; r.after == 0 {
		r.forget(now)
	}
	return r.after != 0
}

// wanted is what to claim, if there is anything; full says that there is no room
// for more entries.
func (r *Relay) wanted(now time.Time) (c Claim, full, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.up {
		r.after = 0
		return c, false, false
	}
	// A machine whose lease ends during a walk is left to the next one: what was
	// passed over of it comes before what has not been.
	if r.after == 0 {
		r.began = now
	}
	c = Claim{Holder: r.holder, Began: r.began, Now: now, Until: now.Add(leaseFor), After: r.after}
	if now.Sub(r.tidied) >= tidyEvery {
		r.tidied, c.Tidy = now, now.Add(-tidyEvery)
	}
	for machine, s := range r.shares {
		if s.until.Sub(now) < leaseFor/2 {
			c.Held = append(c.Held, machine)
		}
	}
	if now.Before(r.paused) {
		return c, false, len(c.Held) > 0
	}
	// A share that was dropped takes its place in ready until a sender comes to it.
	// Of a page there is all or nothing, as each length is a statement of its own.
	if full = itemsMax-max(len(r.known), len(r.shares)) < claimPage; !full {
		c.Most = claimPage
	}
	return c, full, !full || len(c.Held) > 0
}

// take has sent what was claimed, and reports whether a machine has passed to
// somebody else: what was in memory of it must be looked up again.
func (r *Relay) take(ctx context.Context, c *Claim, claimed *Claimed) (lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.up {
		return false
	}
	for _, machine := range c.Held {
		if s, ok := r.shares[machine]; ok && claimed.Leases[machine].IsZero() {
			r.drop(s)
			s.giveUp()
			lost = true
		}
	}
	for machine, until := range claimed.Leases {
		if s, ok := r.shares[machine]; ok {
			if r.left(s) <= 0 { // it may have been somebody else's meanwhile
				s.giveUp()
			}
			s.until = until
		}
	}
	for _, item := range claimed.Items {
		key := roundOf(&item)
		if _, known := r.known[key]; known || c.Now.Before(r.rests[key].until) {
			continue
		}
		if item.Kind == KindDisconnect {
			r.cannotDisconnect(ctx)
			r.known[key] = struct{}{}
			r.sent = append(r.sent, Progress{ID: item.ID, Stage: Received})
			continue
		}
		s, ok := r.shares[item.MachineID]
		if !ok {
			s = &share{machine: item.MachineID, until: claimed.Leases[item.MachineID]}
			r.shares[item.MachineID] = s
		}
		r.known[key] = struct{}{}
		if s.items = append(s.items, item); !ok {
			r.ready <- s
		}
	}
	return lost
}

func (r *Relay) cannotDisconnect(ctx context.Context) {
	if r.warned {
		return
	}
	r.warned = true
	r.log.LogAttrs(ctx, slog.LevelWarn, "a machine was deleted or its password replaced, which ends no connection at a broker "+
		"that is not Scrip's: end it there, if the machine is not to be trusted; this is said once")
}

// forget forgets the failures of what does not wait any more: it would have been
// tried again.
func (r *Relay) forget(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, rest := range r.rests {
		if now.Sub(rest.until) > retryLast {
			delete(r.rests, key)
		}
	}
}

// work sends one message after the other, of whichever machine has waited for
// longest.
func (r *Relay) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-r.ready:
			r.send(ctx, s)
		}
	}
}

// send sends the first message of a share.
func (r *Relay) send(ctx context.Context, s *share) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		if len(s.items) > 0 {
			r.ready <- s // behind the others
		} else {
			delete(r.shares, s.machine)
		}
	}()
	if !r.up || s.until.Sub(r.now()) < leaseMargin {
		r.drop(s) // it still waits, for whoever has the lease next
		return
	}
	if len(s.items) == 0 {
		return
	}
	item := s.items[0]
	s.items = s.items[1:]
	key := roundOf(&item)
	lease := r.leased(ctx, s)
	s.flying = lease
	r.mu.Unlock()
	_, err := r.sender.Send(lease, item, func() {}) //nolint:contextcheck // lease is made of ctx
	r.mu.Lock()
	s.flying = nil
	over := lease.Context.Err() != nil
	lease.end()
	tries := r.rests[key].failed + 1
	switch {
	case err == nil || errors.Is(err, ErrUnheard) && (tries >= unheardTries || len(r.rests) >= restsMax):
		delete(r.rests, key)
		r.sent = append(r.sent, Progress{ID: item.ID, Stage: Relayed, Round: item.Round})
		return // known until that is written down
	case over || errors.Is(err, ErrAway): // when Down will be called
		r.drop(s)
	case errors.Is(err, ErrUnheard):
		r.restFor(key, tries, restFor(tries))
	case errors.Is(err, ErrGone):
		r.restFor(key, r.rests[key].failed, goneRest)
	default:
		r.fail(ctx, &item, err)
	}
	delete(r.known, key)
}

// leased is a context that ends leaseEnd before the lease on a machine does, as
// long as that is renewed. Whoever asks it is told by the clock: after the process
// has stood still a timer may be late.
type leased struct {
	context.Context
	end   context.CancelFunc
	relay *Relay
	share *share
	timer *time.Timer
}

// leased is called with the lock. The context is to be ended.
func (r *Relay) leased(ctx context.Context, s *share) *leased {
	l := &leased{relay: r, share: s}
	var cancel context.CancelFunc
	l.Context, cancel = context.WithCancel(ctx)
	l.timer = time.AfterFunc(r.left(s), l.look)
	l.end = func() {
		cancel()
		l.timer.Stop()
	}
	return l
}

// look ends the context, or looks again when it may be time.
func (l *leased) look() {
	left := l.left()
	switch {
	case left <= 0:
		l.end()
	case l.Context.Err() == nil:
		l.timer.Reset(left)
	}
}

func (l *leased) left() time.Duration {
	l.relay.mu.Lock()
	defer l.relay.mu.Unlock()
	return l.relay.left(l.share)
}

// left is how long messages to a machine may still take. It is called with the lock.
func (r *Relay) left(s *share) time.Duration { return s.until.Sub(r.now()) - leaseEnd }

// Err is that of context.Context.
func (l *leased) Err() error {
	if l.left() <= 0 {
		l.end()
	}
	return l.Context.Err()
}

// fail leaves an entry alone for a while after a failure.
func (r *Relay) fail(ctx context.Context, item *Item, err error) {
	key := roundOf(item)
	tries := r.rests[key].failed + 1
	r.restFor(key, tries, restFor(tries))
	if ctx.Err() == nil && bits.OnesCount(uint(tries)) == 1 {
		r.log.LogAttrs(ctx, slog.LevelWarn, "delivery failed, and will be tried again",
			slog.String("while", "sending to a machine"), slog.Int64("machine_id", item.MachineID), slog.Int("tries", tries), slog.Any("error", err))
	}
}

func (r *Relay) restFor(key round, failed int, d time.Duration) {
	until := r.now().Add(d)
	if _, known := r.rests[key]; known || len(r.rests) < restsMax {
		r.rests[key] = rest{failed, until}
		return
	}
	r.paused = until
}

// write writes down what has been sent, and reports whether it could. What a
// crash, or a database that fails, loses of it is sent again.
func (r *Relay) write(ctx context.Context) (ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.sent) > 0 {
		batch := r.sent[:min(len(r.sent), progressStep)]
		r.mu.Unlock()
		err := r.store.Advance(ctx, batch)
		r.mu.Lock()
		if err != nil {
			if ctx.Err() == nil {
				r.log.LogAttrs(ctx, slog.LevelError, "writing down what the broker has; this will be tried again",
					slog.Int("entries", len(batch)), slog.Any("error", err))
			}
			return false
		}
		for _, p := range batch {
			delete(r.known, round{p.ID, p.Round})
		}
		r.sent = r.sent[len(batch):]
	}
	r.sent = nil
	return true
}
