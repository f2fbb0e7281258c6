// Package delivery is the outbox: what must reach a machine, in which order, how
// it is tried again, and what has arrived. An entry names what to send; its
// bytes are made when it is sent. Imports: account, guess, keyring, refusal and
// the standard library.
//
// The database holds the queue, and nothing else does. A machine that comes back
// is sent what the database says that it should hold; whatever is kept in memory
// only saves looking that up again.
package delivery

import (
	"context"
	"errors"
	"time"
)

// Kind is what an entry of the outbox asks for. The numbers are stored.
type Kind int

// The kinds of entry.
const (
	KindCreate     Kind = 1 // tell the machine of a pickup code
	KindDelete     Kind = 2 // tell it that a pickup code is withdrawn
	KindDisconnect Kind = 3 // end its connection: its password is no longer good
)

// Item is one entry of the outbox.
type Item struct {
	ID        int64 // 0: of no entry; the machine is told again what it has acknowledged before
	MachineID int64
	Kind      Kind
	CodeID    int64 // the pickup code; 0 for KindDisconnect
	// Round tells the times apart that an entry is to be sent through a broker
	// that is not ours: it grows whenever the machine comes back. 0 elsewhere.
	Round int64
}

// Stage is how far an entry has come.
type Stage int

// How far an entry may have come.
const (
	Sent     Stage = iota // the broker has it
	Received              // the machine has acknowledged it: the entry is done
	Relayed               // another broker has it: it is sent, and waits for the machine to come back
)

// Progress is how far an entry has come.
type Progress struct {
	ID    int64
	Stage Stage
	// Round is that of the item that was Relayed: if the machine has come back
	// since, the entry waits all the same.
	Round int64
}

// Store is what delivery needs of a database. Each method is one transaction;
// all are safe for concurrent use.
type Store interface {
	// Newest is where whoever follows the outbox begins: Since lists what comes in
	// from here on, and perhaps some of what was there. It also drops the entries
	// of KindDisconnect, since nothing is connected yet.
	Newest(ctx context.Context) (int64, error)
	// Since lists entries that have come in behind the last that it listed, the one
	// with the id after: each once, those of a machine in their order. One may
	// follow the outbox at a time.
	Since(ctx context.Context, after int64, limit int) ([]Item, error)
	// Waiting lists a machine's entries behind the id after, oldest first.
	Waiting(ctx context.Context, machine, after int64, limit int) ([]Item, error)
	// Holding lists the live codes that a machine has acknowledged, behind the
	// code with the id after, oldest first, as items without an ID.
	Holding(ctx context.Context, machine, after int64, limit int) ([]Item, error)
	// Advance writes how far entries have come; Received removes them. One that
	// is gone is passed over.
	Advance(ctx context.Context, progress []Progress) error
	// Claim leases machines for which entries wait that are to be sent through a
	// broker that is not ours, and lists those entries.
	Claim(ctx context.Context, c Claim) (Claimed, error)
	// Backlog counts the entries that wait to be sent, or with all every entry:
	// those that another broker has wait for what the machine says of them.
	Backlog(ctx context.Context, all bool) (Backlog, error)
}

// Claim asks for what waits, from the entry behind the one with the id After on,
// oldest first and Most at most, of machines on which nobody but Holder has a
// lease that runs at Began; and, whatever waits, for longer leases on the
// machines Held. The times are those of the clock of who asks. A lease that
// another one's clock sees end early may have two send to a machine at once, and
// one seen to end late has its messages wait: so Until should be further away
// than clocks differ, and nothing be sent when less than that is left of it.
type Claim struct {
	Holder     string
	Began      time.Time // when this walk through the entries began, at After 0
	Now, Until time.Time // of the leases
	Held       []int64
	After      int64
	Most       int
	// Tidy removes leases that ended before then; zero: none.
	Tidy time.Time
}

// Claimed is what a Claim got.
type Claimed struct {
	Items []Item
	// Leases are when those end that Holder has on the machines of the items, and
	// on Held as far as nobody else has got one.
	Leases map[int64]time.Time
	// Last is the last entry that was looked at; 0: nothing is behind it.
	Last int64
}

// BacklogMax bounds what Backlog counts to.
const BacklogMax = 100_000

// Backlog is how much waits.
type Backlog struct {
	Entries int64     // BacklogMax if there are more
	Oldest  time.Time // since when the oldest waits; zero if there is none
}

// Sender makes the message of an item and hands it to the machine.
type Sender interface {
	// Send hands the message to the machine's connection. Acknowledged is called
	// once, from any goroutine, when the machine has acknowledged it; will says
	// whether it ever will. Send fails with ErrGone if there is nothing to be said
	// any more and with ErrAway if the machine is not connected. Once ctx has ended
	// nothing is sent any more, through a broker that is not ours.
	Send(ctx context.Context, item Item, acknowledged func()) (will bool, err error)
	// Disconnect ends a machine's connection, if it has one.
	Disconnect(machine int64)
}

var (
	// ErrGone says that an item's code is no longer what the item says.
	ErrGone = errors.New("there is nothing to send any more")
	// ErrAway says that the machine is not connected.
	ErrAway = errors.New("the machine is not connected")
	// ErrUnheard says that another broker has the message, and nobody to give it to.
	ErrUnheard = errors.New("nobody listens")
)
