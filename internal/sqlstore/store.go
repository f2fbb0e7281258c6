// Package sqlstore is the transactions of the domain in SQL: what the engines
// have in common. An engine brings its connections, says when a transaction
// commits, and does those better that it can. Imports: account, delivery, figures,
// fleet, keyring, pickup, redemption, refusal and the standard library.
//
// The texts are in the SQL that both engines speak, with parameters written ?
// or ?1, and two things that each engine leaves out if it has no use for them:
// INDEXED BY tells SQLite's planner what it would not see, and FOR UPDATE
// tells PostgreSQL which rows are about to be changed by what is read: SQLite
// has one writer anyway. So a transaction must be right when others run beside
// it: it locks what it decides upon, machines before codes, and a statement that
// chooses rows by a subquery says its condition outside of it too, where
// PostgreSQL looks again once it has waited for a row.
package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/figures"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// Engine is what Store needs of a database.
type Engine interface {
	// Read calls do with a connection, for one statement.
	Read(ctx context.Context, do func(Conn) error) error
	// Snapshot is Read for several statements that see the same state.
	Snapshot(ctx context.Context, do func(Conn) error) error
	// Long is Snapshot for what takes long: it has a connection of its own.
	Long(ctx context.Context, do func(Conn) error) error
	// Write runs do in a transaction and commits it with what do has left in the
	// Tx, or rolls back if it fails or has written nothing. Do may be called
	// again, in another transaction, if one fails for no fault of its own.
	Write(ctx context.Context, do func(context.Context, *Tx) error) error
	// Grouped is Write for what may share a commit with others, if that is cheaper:
	// do refuses, having changed nothing, or writes. Size is how much it writes,
	// counted in redeems.
	Grouped(ctx context.Context, size int, do func(context.Context, *Tx) error) error
}

// Dialect is what is said differently to each engine.
type Dialect interface {
	// In is the end of a condition that chooses these ids, and its argument.
	In(ids []int64) (text string, arg any)
	// Contains is a condition that a text contains the argument of its one
	// parameter, whatever the case of the letters a-z.
	Contains(column string) string
	// Pattern is that argument.
	Pattern(fragment string) string
	// Bytes is a text to be compared and put in order byte by byte.
	Bytes(text string) string
	// Salt reads the salt of the data keys.
	Salt() string
	// Counter reads the highest id that a table has ever given, 0 if none.
	Counter(table string) string
	// NextUser is the id that a new user gets. No other transaction gets one
	// before this one has ended.
	NextUser(ctx context.Context, t *Tx) (int64, error)
	// InsertCodes writes the rows of a batch and returns the first id: they follow
	// each other.
	InsertCodes(ctx context.Context, t *Tx, b *redemption.Batch, name int64) (first int64, err error)
	// Claim has other transactions that claim the same request wait for the end of
	// this one.
	Claim(ctx context.Context, t *Tx, once *account.Once) error
	// LockCodes has other transactions wait that are about to change the codes with
	// these indexes. Codes are locked before accounts.
	LockCodes(ctx context.Context, t *Tx, indexes [][]byte) error
	// Alone has all other transactions wait that have something to commit.
	Alone(ctx context.Context, t *Tx) error
	// LedgerLanes is how the ledger is read in an order that nothing is added before: the
	// query for lanes with entries that activity may not add up yet, and how far it
	// does; the condition that an entry is in lane ?1; the column of its place there.
	LedgerLanes() (behind, in, place string)
	// ActivityIn adds up, for each of the kinds in asked (of) and each of the slots
	// (slot, first, behind), the activity of the quarters from first on and before
	// behind: slot, kind, entries, count, billions and units, if there is any, in the
	// order of slot and kind.
	ActivityIn() string
	// Unfolded reads what the counts do not say yet.
	Unfolded(ctx context.Context, s Conn, do func(Change) error) error
}

// Store is the domain's stores over an engine. It is safe for concurrent use.
type Store struct {
	engine  Engine
	dialect Dialect
	keys    *keyring.Keys
	now     func() time.Time
}

var (
	_ account.Store    = (*Store)(nil)
	_ redemption.Store = (*Store)(nil)
	_ fleet.Store      = (*Store)(nil)
	_ pickup.Store     = (*Store)(nil)
	_ figures.Store    = (*Store)(nil)
)

// New returns a Store over an engine, for the keys with these secrets, newest
// first.
func New(e Engine, d Dialect, secrets []string, now func() time.Time) *Store {
	s := &Store{engine: e, dialect: d, now: now}
	s.keys = keyring.NewKeys(secrets, s.storedKeys)
	return s
}

// Keys are the database's data keys.
func (d *Store) Keys() *keyring.Keys { return d.keys }

// Scanner is a row of a result.
type Scanner interface {
	// Scan writes the row's values to where dest points.
	Scan(dest ...any) error
}

// Driver is a connection of an engine, or a transaction on it. It serves one
// goroutine at a time.
type Driver interface {
	// Row is the one row of a query; its errors come out of Scan: sql.ErrNoRows if
	// there is none.
	Row(ctx context.Context, text string, args ...any) Scanner
	// Each calls scan for each row of a query, until it fails; ErrEnough ends it
	// without a failure.
	Each(ctx context.Context, scan func(Scanner) error, text string, args ...any) error
	// Exec runs a statement and returns how many rows it has changed.
	Exec(ctx context.Context, text string, args ...any) (rows int64, err error)
}

// ErrEnough says that the rows that are left are not wanted.
var ErrEnough = errors.New("enough rows")

// Conn is a Driver with the look-ups that reads and writes share.
type Conn struct{ Driver }

// Tx is a write transaction.
type Tx struct {
	Conn

	// Epoch is that of the data keys. The engine reads it when the transaction
	// begins, and sees to it that it is the same at its end.
	Epoch int64
	// Entries are to be written to the ledger, and Changes to the counts, when do
	// has returned.
	Entries []account.Entry
	Changes []Change
	// Wrote is set once anything has been written: else there is nothing to
	// commit.
	Wrote bool
	// Sealed is set once the transaction relies on Epoch, and Alone by
	// Dialect.Alone.
	Sealed, Alone bool
	// Redeems is how many redeems were tried in it.
	Redeems int

	dialect  Dialect
	balances map[int64]balance
}

// Tx returns a transaction of the store on c.
func (d *Store) Tx(c Conn, epoch int64) *Tx {
	return &Tx{Conn: c, Epoch: epoch, dialect: d.dialect}
}

// Decided reports whether err is what a transaction decided, and no failure.
func Decided(err error) bool {
	_, refused := errors.AsType[*refusal.Error](err)
	_, replayed := errors.AsType[*account.Replay](err)
	return refused || replayed || errors.Is(err, keyring.ErrStale) || errors.Is(err, pickup.ErrTaken)
}

// fresh fails with keyring.ErrStale if epoch is not the database's.
func (t *Tx) fresh(epoch int64) error {
	t.Sealed = true
	if epoch != t.Epoch {
		return keyring.ErrStale
	}
	return nil
}

// change is Exec for statements that write.
func (t *Tx) change(ctx context.Context, text string, args ...any) (rows int64, err error) {
	t.Wrote = true
	return t.Exec(ctx, text, args...)
}

// insert is change for an INSERT of one row, and returns its id.
func (t *Tx) insert(ctx context.Context, text string, args ...any) (id int64, err error) {
	t.Wrote = true
	err = t.Row(ctx, text+` RETURNING id`, args...).Scan(&id)
	return id, err
}

// Append puts an entry at the end of the ledger.
func (t *Tx) Append(e account.Entry, by account.Actor, at time.Time) {
	e.ActorID, e.Address, e.At = by.ID, by.Address, at.Truncate(time.Millisecond)
	t.Entries = append(t.Entries, e)
	t.Wrote = true
}

// balance is what an account will have at the end of a transaction.
type balance struct {
	quota   int64
	changed bool
}

// setBalance says what an account will have.
func (t *Tx) setBalance(id int64, b balance) {
	if t.balances == nil {
		t.balances = map[int64]balance{}
	}
	t.balances[id] = b
}

// WriteBalances writes each balance that has changed, once. The engine calls it
// when do has returned.
func (t *Tx) WriteBalances(ctx context.Context) error {
	ids := make([]int64, 0, len(t.balances))
	for id, b := range t.balances {
		if b.changed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids) // in one order, so that two transactions do not wait for each other
	for _, id := range ids {
		if _, err := t.change(ctx, `UPDATE users SET quota = ? WHERE id = ?`, t.balances[id].quota, id); err != nil {
			return fmt.Errorf("crediting: %w", err)
		}
	}
	return nil
}
