package delivery

import (
	"context"
	"errors"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// workers make and send messages.
	workers = 4
	// page is how many entries of a machine are looked up at once.
	page = 32
	// followPage is how many new entries are looked up at once.
	followPage = 256
	// followEvery is how often the outbox is looked at unasked: other processes
	// write to it too.
	followEvery = 250 * time.Millisecond
	// patience is how long a machine may take to acknowledge a message before
	// the next is sent all the same.
	patience = 10 * time.Second
	// overdueMax bounds the messages that a connection has not acknowledged: with
	// so many it is ended, and the machine told everything again over the next.
	overdueMax = 16
	// A message that could not be sent is tried again after a time that doubles
	// from the first to the last of these.
	retryFirst = 100 * time.Millisecond
	retryLast  = 30 * time.Second
)

// Outbox sends what waits to the machines that are connected: to each machine
// one message at a time, in order, and to many machines at once. It is safe for
// concurrent use.
type Outbox struct {
	store   Store
	log     *slog.Logger
	sender  Sender
	changed chan struct{}
	marks   marker
	last    int64 // the newest entry when it began

	mu    sync.Mutex
	lines map[int64]*line // by machine
	ready []*line         // those to be looked at, first come, first served
	some  *sync.Cond      // ready is not empty, or ended is set
	ended bool
}

// line is one connection of a machine. Outbox.mu guards it.
type line struct {
	machine int64
	closed  bool
	queued  bool // in ready
	working bool // a worker has it
	again   bool // something came up while it had

	next   []Item // to be sent, read from the store
	more   bool   // the store may have entries behind cursor
	cursor int64  // the last entry read
	recall bool   // the machine may hold codes behind held: they are sent once again
	held   int64  // the last code read
	// told are the codes that it has been sent over this connection, kept while
	// recall is set: they are not sent over it again.
	told    map[int64]struct{}
	flying  bool // a message is not acknowledged yet, and not overdue
	overdue int  // messages that should have been acknowledged long ago
	resting bool // until the next try
	failed  int  // tries in a row
}

// New returns an Outbox over store. Nothing is sent before Run.
func New(store Store, log *slog.Logger) *Outbox {
	o := &Outbox{
		store: store, log: log, changed: make(chan struct{}, 1), lines: map[int64]*line{},
		marks: marker{store: store, log: log, received: make(chan int64, receivedQueue), ended: make(chan struct{})},
	}
	o.some = sync.NewCond(&o.mu)
	return o
}

// Changed says that entries have come into the outbox.
func (o *Outbox) Changed() {
	select {
	case o.changed <- struct{}{}:
	default: // somebody has said so
	}
}

// Connected says that a machine can be sent messages, over a new connection. It
// is sent what it has not acknowledged, and once again what it has.
func (o *Outbox) Connected(machine int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.close(machine)
	l := &line{machine: machine, more: true, recall: true}
	o.lines[machine] = l
	o.enqueue(l)
}

// Disconnected says that the machine's connection has ended.
func (o *Outbox) Disconnected(machine int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.close(machine)
}

func (o *Outbox) close(machine int64) {
	if l, ok := o.lines[machine]; ok {
		l.closed = true
		delete(o.lines, machine)
	}
}

// Begin is called once before the first machine may connect: whatever ends a
// connection from here on is followed.
func (o *Outbox) Begin(ctx context.Context) (err error) {
	o.last, err = o.store.Newest(ctx)
	return err
}

// Run sends, after Begin, until ctx ends, and then writes down how far everything
// has come.
func (o *Outbox) Run(ctx context.Context, sender Sender) {
	o.sender = sender
	defer context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.ended = true
		o.some.Broadcast()
	})()
	var senders, marks sync.WaitGroup
	marks.Go(func() { o.marks.run(context.WithoutCancel(ctx)) })
	for range workers {
		senders.Go(func() { o.work(ctx) })
	}
	o.follow(ctx, o.last)
	senders.Wait()
	close(o.marks.ended)
	marks.Wait()
}

// follow reads the entries that come in behind last, and wakes the lines of
// their machines.
func (o *Outbox) follow(ctx context.Context, last int64) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		items, err := o.store.Since(ctx, last, followPage)
		if err != nil && ctx.Err() == nil {
			o.log.LogAttrs(ctx, slog.LevelError, "reading the outbox", slog.Any("error", err))
			o.wakeAll() // entries may have been listed that did not arrive
		}
		for _, item := range items {
			last = item.ID
			if item.Kind == KindDisconnect {
				o.sender.Disconnect(item.MachineID)
				o.marks.done(item.ID)
				continue
			}
			o.wake(item.MachineID)
		}
		if len(items) == followPage {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-o.changed:
		case <-tick.C:
		}
	}
}

func (o *Outbox) wake(machine int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l, ok := o.lines[machine]; ok {
		l.more = true
		o.enqueue(l)
	}
}

// wakeAll has all lines look for entries.
func (o *Outbox) wakeAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.lines {
		l.more = true
		o.enqueue(l)
	}
}

// enqueue has a line looked at, unless it will be anyway.
func (o *Outbox) enqueue(l *line) {
	switch {
	case l.closed || l.queued:
	case l.working:
		l.again = true
	default:
		l.queued = true
		o.ready = append(o.ready, l)
		o.some.Signal()
	}
}

// work looks at one line after the other.
func (o *Outbox) work(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for len(o.ready) == 0 && !o.ended {
			o.some.Wait()
		}
		if o.ended {
			return
		}
		l := o.ready[0]
		o.ready = o.ready[1:]
		l.queued, l.working, l.again = false, true, false
		o.advance(ctx, l)
		l.working = false
		if l.again {
			o.enqueue(l)
		}
	}
}

// advance sends the line's next message, if it is time for that. It is called
// with the lock, and gives it up while it reads and sends.
func (o *Outbox) advance(ctx context.Context, l *line) {
	for !l.closed && !l.flying && !l.resting && l.overdue < overdueMax {
		// What goes on failing does not hold up what comes in behind it.
		stuck := l.failed > 0 && l.more && len(l.next) < page
		if (len(l.next) == 0 || stuck) && !o.read(ctx, l) {
			return
		}
		if len(l.next) > 0 {
			o.send(ctx, l)
		}
	}
}

// read looks up what comes next, and reports whether there may be anything:
// what is not acknowledged first, and then what is.
func (o *Outbox) read(ctx context.Context, l *line) bool {
	lookup, after := o.store.Waiting, l.cursor
	entries := l.more
	switch {
	case l.more:
		l.more = false // if an entry comes in from here on, it is true again
	case l.recall:
		lookup, after = o.store.Holding, l.held
	default:
		l.next = nil // the memory of an idle line
		return false
	}
	o.mu.Unlock()
	items, err := lookup(ctx, l.machine, after, page)
	o.mu.Lock()
	if err != nil {
		l.more = l.more || entries
		o.rest(ctx, l, "reading the outbox", err)
		return false
	}
	full := len(items) == page
	if entries {
		l.more = l.more || full
	} else {
		l.recall = full
	}
	for _, item := range items {
		if entries {
			l.cursor = item.ID
		} else {
			l.held = item.CodeID
		}
		_, told := l.told[item.CodeID]
		if item.Kind == KindDisconnect || told && !entries { // the former is not for the machine to hear
			continue
		}
		l.next = append(l.next, item)
		if entries && l.recall {
			l.tell(item.CodeID)
		}
	}
	if !l.recall {
		l.told = nil
	}
	return true
}

func (l *line) tell(code int64) {
	if l.told == nil {
		l.told = map[int64]struct{}{}
	}
	l.told[code] = struct{}{}
}

// send sends the first of l.next.
func (o *Outbox) send(ctx context.Context, l *line) {
	item := l.next[0]
	l.flying = true // before it is sent: the answer may be faster than the return
	f := &flight{o: o, l: l, item: item}
	o.mu.Unlock()
	o.marks.sent(item.ID)
	will, err := o.sender.Send(ctx, item, f.acknowledged)
	if err != nil {
		o.marks.notSent(item.ID)
	}
	o.mu.Lock()
	switch {
	case err == nil && will:
		l.next, l.failed = l.next[1:], 0
		if !f.landed {
			f.timer = time.AfterFunc(patience, f.overdue)
		}
		return
	case err == nil: // nothing more will be heard of it
		l.next, l.failed = l.next[1:], 0
	case errors.Is(err, ErrGone):
		l.next = l.next[1:]
	case errors.Is(err, ErrAway):
		l.closed = true // who said Connected will say Disconnected, or Connected again
	default:
		// The others first: those about the same code know what it is by then.
		l.next = append(l.next[1:], item)
		o.rest(ctx, l, "sending to a machine", err)
	}
	l.flying = false
}

// rest leaves a line alone for a while after a failure.
func (o *Outbox) rest(ctx context.Context, l *line, what string, err error) {
	l.failed++
	l.resting = true
	if ctx.Err() != nil {
		return // it rests for good
	}
	if bits.OnesCount(uint(l.failed)) == 1 { // 1, 2, 4, 8, …
		o.log.LogAttrs(ctx, slog.LevelWarn, "delivery failed, and will be tried again",
			slog.String("while", what), slog.Int64("machine_id", l.machine), slog.Int("tries", l.failed), slog.Any("error", err))
	}
	time.AfterFunc(restFor(l.failed), func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		l.resting = false
		o.enqueue(l)
	})
}

// restFor is how long to wait after so many failures, with some chance in it:
// what failed together should not all come back together.
func restFor(failures int) time.Duration {
	d := retryFirst << min(failures-1, 20)
	d = min(d, retryLast)
	return d/2 + rand.N(d/2) //nolint:gosec // G404: it is only to spread load
}

// flight is one message on its way.
type flight struct {
	o      *Outbox
	l      *line
	item   Item
	timer  *time.Timer
	landed bool // acknowledged
	late   bool // overdue
}

// acknowledged is called when the machine has acknowledged the message.
func (f *flight) acknowledged() {
	f.o.marks.done(f.item.ID)
	f.o.mu.Lock()
	defer f.o.mu.Unlock()
	if f.landed {
		return
	}
	f.landed = true
	if f.late {
		f.l.overdue--
	} else {
		f.l.flying = false
	}
	if f.timer != nil {
		f.timer.Stop()
	}
	f.o.enqueue(f.l)
}

// overdue is called when the machine has kept the message too long. The entry
// stays; but the next message need not wait for it.
func (f *flight) overdue() {
	if f.tooMany() {
		f.o.sender.Disconnect(f.l.machine) // without the lock: it will be told of the end
	}
}

// tooMany counts the message as overdue, and reports whether there are too many.
func (f *flight) tooMany() bool {
	f.o.mu.Lock()
	defer f.o.mu.Unlock()
	if f.landed || f.l.closed {
		return false
	}
	f.late = true
	f.l.flying = false
	f.l.overdue++
	f.o.enqueue(f.l)
	return f.l.overdue == overdueMax
}
