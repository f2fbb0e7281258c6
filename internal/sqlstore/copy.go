package sqlstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
)

// Table is one of those that both engines have, and that a copy carries.
type Table struct {
	Name    string
	Columns []string // those of the key first
	Key     int      // how many of them are the key
	// Counted says that the first column is an id that is never given twice, not
	// even if its row has gone.
	Counted bool
}

// Tables are all that a copy carries. Beside them are the epoch and the salt of
// the data keys, what is added up anew, jobs, which are over, and what means nothing to other servers than those that wrote it: failed guesses,
// leases and duties.
func Tables() []Table {
	t := func(name string, key int, counted bool, columns string) Table {
		return Table{Name: name, Columns: strings.Fields(columns), Key: key, Counted: counted}
	}
	return []Table{
		t("data_keys", 1, false, `generation wrapped`),
		t("users", 1, true, `id username display_name role status quota password_hash token_hash created`),
		t("sessions", 1, false, `hash user_id ends`),
		t("links", 1, false, `user_id hash ends`),
		t("answers", 1, true, `id scope caller refused request answer at`),
		t("redemption_names", 1, true, `id name`),
		t("redemptions", 1, true, `id name_id user_id state quota created expires redeemed used_by key_index sealed`),
		t("redemption_counts", 3, false, `name_id level block enabled disabled used expired`),
		t("redemption_due", 3, false, `expires name_id block enabled`),
		t("merchants", 1, true, `id name app_key payload signature expiry_unit created`),
		t("machines", 1, true, `id merchant_id machine_no name timezone purchase_limit pickup_codes password_hash presence
			last_seen created deleted`),
		t("products", 2, false, `machine_id id name slot created deleted`),
		t("pickup_codes", 1, true, `id machine_id product_id quantity state late unheard user_id created expires used withdrawn
			code_index sealed acknowledged`),
		t("outbox", 1, true, `id machine_id kind code_id sent pending at expires`),
		t("ledger", 1, true, `id lane seq at kind actor_id address account_id machine_id first_id last_id count amount detail mac`),
		t("ledger_heads", 1, false, `lane count mac seal`),
		t("presence_history", 1, false, `at machines online`),
		t("worth_history", 1, false, `at billions units`),
	}
}

// Database is one state of a database, in what its engine speaks.
type Database interface {
	Driver
	Dialect
}

// Source is one state of a database that is copied.
type Source interface {
	Database
	// Hold has whoever would write to the database wait until the copy has ended,
	// and reads the ends of its lanes as they are then: not those of the state.
	Hold(ctx context.Context) ([]account.Head, error)
}

// Target is an empty database, in the transaction that fills it.
type Target interface {
	Database
	// Insert writes rows of a table: an int64, string or []byte for each column, or
	// nil. It may change them.
	Insert(ctx context.Context, t Table, rows [][]any) error
	// SetCounter sees to it that the ids of a table go on behind last.
	SetCounter(ctx context.Context, table string, last int64) error
	// PutSalt writes the salt of the data keys.
	PutSalt(ctx context.Context, salt []byte) error
	// Lanes is how many lanes of the ledger the engine writes to, from 1 on.
	Lanes() int64
}

var (
	// ErrWritten says that a database was written to while it was copied.
	ErrWritten = errors.New("it was written to meanwhile: stop every server of it, and whatever else writes to it, then copy again")
	// ErrRotating says that a database is not in a state to be copied.
	ErrRotating = errors.New("a rotation of its data keys is under way: end it with scrip secret rotate, then copy again")
	// ErrJob says that codes are being made or removed, which a copy does not carry.
	ErrJob = errors.New("codes are still being made or removed, and a copy would not go on with that: start a server of it, wait for the end " +
		"or stop it in the console, under Codes, then stop the server and copy again")
	// ErrNothing says that a database has no accounts.
	ErrNothing = errors.New("there is nothing in it")
	// ErrNotEmpty says that a database is not fit to be copied to.
	ErrNotEmpty = errors.New("it is not empty, and nothing is overwritten: copy to a new one")
)

// copyBatch is how many rows are held in memory.
const copyBatch = 1000

// Copying is how to copy.
type Copying struct {
	Secrets []string // newest first
	// Heads reads the ends of the lanes of what is copied, as they are now.
	Heads func(context.Context) ([]account.Head, error)
	// Progress is called now and then with how many rows, of how many, are copied,
	// checked or verified, as doing says.
	Progress func(doing string, done, total int64)
}

// Copied is what was copied.
type Copied struct {
	Rows   map[string]int64 // of each table
	Report account.Report   // without faults

	heads []account.Head // of the source
}

// Unchanged fails with ErrWritten if the source has been written to since it was
// read, and else has whoever would write to it wait. It is the last that is done
// before the copy is there: what is redeemed after it was looked could be redeemed
// once more on the copy.
func (c *Copied) Unchanged(ctx context.Context, from Source) error {
	heads, err := from.Hold(ctx)
	if err == nil && !slices.EqualFunc(c.heads, heads, sameHead) {
		err = ErrWritten
	}
	return err
}

// Copy copies everything, reads all of it back, opens the keys, and verifies the
// ledger and the balances of the copy. If any of that fails, so does it, and the
// target is of no use. So it is until Unchanged has succeeded too. Nothing is decrypted, and no entry of the ledger gets
// another MAC.
func Copy(ctx context.Context, from Source, to Target, c Copying) (Copied, error) {
	x := copier{from: from, to: to, Copying: c, rows: map[string]int64{}, digests: map[string][]byte{}}
	steps := []func(context.Context) error{x.count, x.copyTables, x.copyKeys, x.addLanes, x.check, x.verify, x.unchanged}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return Copied{}, err
		}
	}
	return Copied{Rows: x.rows, Report: x.report, heads: x.heads}, nil
}

type copier struct {
	Copying

	from        Database
	to          Target
	done, total int64 // rows
	rows        map[string]int64
	digests     map[string][]byte // of what was read, by table
	heads       []account.Head    // of the source
	ledgerKey   []byte
	report      account.Report
}

// count looks whether there is something that can be copied, and how much.
func (x *copier) count(ctx context.Context) (err error) {
	var rotating bool
	if err := x.from.Row(ctx, `SELECT EXISTS (SELECT 1 FROM settings WHERE name LIKE 'rotate_%')`).Scan(&rotating); err != nil {
		return err
	}
	if rotating {
		return ErrRotating
	}
	var underWay bool
	if err := x.from.Row(ctx, `SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 1)`).Scan(&underWay); err != nil {
		return err
	}
	if underWay {
		return ErrJob
	}
	for _, t := range Tables() {
		var n int64
		if err := x.from.Row(ctx, `SELECT count(*) FROM `+t.Name).Scan(&n); err != nil {
			return fmt.Errorf("counting the rows of %s: %w", t.Name, err)
		}
		if t.Name == "users" && n == 0 {
			return ErrNothing
		}
		x.rows[t.Name], x.total = 0, x.total+n
	}
	x.heads, err = ReadHeads(ctx, Conn{x.from})
	return err
}

// copyTables copies the rows, and keeps a digest of them.
func (x *copier) copyTables(ctx context.Context) error {
	for _, t := range Tables() {
		var batch [][]any
		flush := func() error {
			if len(batch) == 0 {
				return nil
			}
			if err := x.to.Insert(ctx, t, batch); err != nil {
				return fmt.Errorf("writing to %s: %w", t.Name, err)
			}
			x.done += int64(len(batch))
			x.rows[t.Name] += int64(len(batch))
			x.Progress("copied", x.done, x.total)
			batch = batch[:0]
			return ctx.Err()
		}
		digest, err := eachRow(ctx, x.from, t, func(row []any) error {
			if batch = append(batch, slices.Clone(row)); len(batch) < copyBatch {
				return nil
			}
			return flush()
		})
		if err == nil {
			err = flush()
		}
		if err == nil && t.Counted {
			err = x.copyCounter(ctx, t.Name)
		}
		if err != nil {
			return err
		}
		x.digests[t.Name] = digest
	}
	return nil
}

func (x *copier) copyCounter(ctx context.Context, table string) error {
	var last int64
	if err := x.from.Row(ctx, x.from.Counter(table)).Scan(&last); err != nil {
		return fmt.Errorf("reading the last id of %s: %w", table, err)
	}
	if err := x.to.SetCounter(ctx, table, last); err != nil {
		return fmt.Errorf("setting the last id of %s: %w", table, err)
	}
	return nil
}

// copyKeys copies what belongs to the data keys beside them, and opens them.
func (x *copier) copyKeys(ctx context.Context) error {
	keys, err := readKeys(ctx, x.from)
	if err != nil {
		return fmt.Errorf("reading the data keys: %w", err)
	}
	_, err = x.to.Exec(ctx, `INSERT INTO settings (name, value) VALUES ('key_epoch', ?)`, keys.Epoch)
	if err == nil {
		err = x.to.PutSalt(ctx, keys.Salt)
	}
	if err != nil {
		return fmt.Errorf("writing the data keys: %w", err)
	}
	ring, err := keyring.NewKeys(x.Secrets, func(ctx context.Context) (keyring.Stored, error) { return readKeys(ctx, x.to) }).Reload(ctx)
	if err != nil {
		return err
	}
	x.ledgerKey = ring.LedgerKey()
	return nil
}

// addLanes adds those lanes that the engine writes to and the source has not.
func (x *copier) addLanes(ctx context.Context) error {
	chain := account.NewChain(x.ledgerKey)
	heads := Table{Name: "ledger_heads", Columns: []string{"lane", "count", "mac", "seal"}}
	for lane := int64(1); lane <= x.to.Lanes(); lane++ {
		if slices.ContainsFunc(x.heads, func(h account.Head) bool { return h.Lane == lane }) {
			continue
		}
		h := account.Head{Lane: lane}
		chain.SealHead(&h)
		if err := x.to.Insert(ctx, heads, [][]any{{h.Lane, h.Count, []byte{}, h.Seal}}); err != nil {
			return fmt.Errorf("adding a lane to the ledger: %w", err)
		}
	}
	return nil
}

// check reads all of the copy and compares it with what was read before.
func (x *copier) check(ctx context.Context) error {
	x.done = 0
	for _, t := range Tables() {
		left := x.rows[t.Name]
		digest, err := eachRow(ctx, x.to, t, func([]any) error {
			left--
			if x.done++; x.done%copyBatch == 0 {
				x.Progress("checked", x.done, x.total)
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
		if t.Name == "ledger_heads" {
			continue // it may have lanes more: verify compares those that were copied
		}
		if left != 0 || !bytes.Equal(digest, x.digests[t.Name]) {
			return fmt.Errorf("the rows of %s are not those that were copied: there are %d of %d", t.Name,
				x.rows[t.Name]-left, x.rows[t.Name])
		}
	}
	return nil
}

// verify verifies the ledger and the balances of the copy.
func (x *copier) verify(ctx context.Context) (err error) {
	entries := x.rows["ledger"]
	x.report, err = account.Verify(ctx, audited{x.to}, x.ledgerKey, nil, func(n int64) { x.Progress("verified", n, entries) })
	if err != nil {
		return fmt.Errorf("verifying the copy: %w", err)
	}
	for _, h := range x.heads {
		if !slices.ContainsFunc(x.report.Heads, func(other account.Head) bool { return sameHead(h, other) }) {
			return fmt.Errorf("lane %d of the ledger does not end as it did", h.Lane)
		}
	}
	if f := x.report.Faults; f != nil {
		return fmt.Errorf("the ledger is not whole, as scrip ledger verify finds too; nothing was copied: keep this database as it is, "+
			"and compare it with a backup: %s", f[0])
	}
	return nil
}

// unchanged fails if the source has been written to since it was read: what is
// left to do before Copied.Unchanged takes long.
func (x *copier) unchanged(ctx context.Context) error {
	heads, err := x.Heads(ctx)
	if err == nil && !slices.EqualFunc(x.heads, heads, sameHead) {
		err = ErrWritten
	}
	return err
}

func sameHead(a, b account.Head) bool {
	return a.Lane == b.Lane && a.Count == b.Count && bytes.Equal(a.MAC, b.MAC) && bytes.Equal(a.Seal, b.Seal)
}

type audited struct{ Driver }

// Audit shows the ledger to a.
func (s audited) Audit(ctx context.Context, a account.Auditor) error {
	return AuditAll(ctx, Conn(s), a)
}

// eachRow calls do with each row of a table, in the order of its key, and returns
// a digest of them all. The row is do's until it returns.
func eachRow(ctx context.Context, db Driver, t Table, do func(row []any) error) (digest []byte, err error) {
	row, into := make([]any, len(t.Columns)), make([]any, len(t.Columns))
	for i := range row {
		into[i] = &row[i]
	}
	sum, buf := sha256.New(), []byte(nil)
	err = db.Each(ctx, func(r Scanner) error {
		if err := r.Scan(into...); err != nil {
			return err
		}
		for i, v := range row {
			switch v := v.(type) {
			case bool: // SQLite has none
				row[i] = int64(0)
				if v {
					row[i] = int64(1)
				}
			case []byte:
				if v == nil { // empty, and not NULL
					row[i] = []byte{}
				}
			}
		}
		if buf, err = digestRow(sum, buf[:0], row); err != nil {
			return err
		}
		return do(row)
	}, `SELECT `+strings.Join(t.Columns, `, `)+` FROM `+t.Name+` ORDER BY `+strings.Join(t.Columns[:t.Key], `, `))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", t.Name, err)
	}
	return sum.Sum(nil), nil
}

// digestRow adds a row to a digest, so that no two rows add the same. Buf is for
// its use.
func digestRow(sum hash.Hash, buf []byte, row []any) ([]byte, error) {
	for _, v := range row {
		switch v := v.(type) {
		case nil:
			buf = append(buf, 'n')
		case int64:
			buf = binary.BigEndian.AppendUint64(append(buf, 'i'), uint64(v)) //nolint:gosec // G115: the same 64 bits
		case string:
			buf = append(binary.BigEndian.AppendUint64(append(buf, 't'), uint64(len(v))), v...)
		case []byte:
			buf = append(binary.BigEndian.AppendUint64(append(buf, 'b'), uint64(len(v))), v...)
		default:
			return nil, fmt.Errorf("a value of the type %T", v)
		}
	}
	_, _ = sum.Write(buf) // never fails
	return buf, nil
}
