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
}

// Stage is how far an entry has come.
type Stage int

// How far an entry may have come.
const (
	Sent     Stage = iota // the broker has it
	Received              // the machine has acknowledged it: the entry is done
)

// Progress is how far an entry has come.
type Progress struct {
	ID    int64
	Stage Stage
}

// Store is what delivery needs of a database. Each method is one transaction;
// all are safe for concurrent use.
type Store interface {
	// Newest is the id of the newest entry that there has ever been. It also drops
	// the entries of KindDisconnect, since nothing is connected yet.
	Newest(ctx context.Context) (int64, error)
	// Since lists entries behind the id after, oldest first. None appears later
	// with a lower id.
	Since(ctx context.Context, after int64, limit int) ([]Item, error)
	// Waiting lists a machine's entries behind the id after, oldest first.
	Waiting(ctx context.Context, machine, after int64, limit int) ([]Item, error)
	// Holding lists the live codes that a machine has acknowledged, behind the
	// code with the id after, oldest first, as items without an ID.
	Holding(ctx context.Context, machine, after int64, limit int) ([]Item, error)
	// Advance writes how far entries have come; Received removes them. One that
	// is gone is passed over.
	Advance(ctx context.Context, progress []Progress) error
	// Backlog counts what waits.
	Backlog(ctx context.Context) (Backlog, error)
}

// BacklogMax bounds what Backlog counts to.
const BacklogMax = 100_000

// Backlog is how much waits.
type Backlog struct {
	Entries int64     // BacklogMax if there are more
	Oldest  time.Time // when the oldest came in; zero if there is none
}

// Sender makes the message of an item and hands it to the machine.
type Sender interface {
	// Send hands the message to the machine's connection. Acknowledged is called
	// once, from any goroutine, when the machine has acknowledged it; will says
	// whether it ever will. Send fails with ErrGone if there is nothing to be said
	// any more and with ErrAway if the machine is not connected.
	Send(ctx context.Context, item Item, acknowledged func()) (will bool, err error)
	// Disconnect ends a machine's connection, if it has one.
	Disconnect(machine int64)
}

var (
	// ErrGone says that an item's code is no longer what the item says.
	ErrGone = errors.New("there is nothing to send any more")
	// ErrAway says that the machine is not connected.
	ErrAway = errors.New("the machine is not connected")
)
