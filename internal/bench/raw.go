package bench

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver that the engine uses

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// raw is one connection straight to the driver, with the pragmas that the
// engine's writer has. Its transactions write the rows that the engine writes,
// and what they hold has been computed beforehand: they are the ceiling.
type raw struct {
	db    *sql.DB
	conn  *sql.Conn
	stmts map[string]*sql.Stmt

	indexText string // of the index that was dropped
}

// pragmas are those of the engine's writer; a test compares them.
const pragmas = "?_pragma=busy_timeout(15000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)" +
	"&_pragma=cache_size(-16384)&_pragma=temp_store(memory)&_pragma=secure_delete(fast)&_pragma=wal_autocheckpoint(4000)" +
	"&_pragma=journal_size_limit(67108864)&_txlock=immediate"

func openRaw(ctx context.Context, path string) (*raw, error) {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+pragmas)
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &raw{db: db, conn: conn, stmts: map[string]*sql.Stmt{}}, nil
}

func (r *raw) close() {
	// Nothing is kept in it that could be lost.
	_ = r.conn.Close()
	_ = r.db.Close()
}

func (r *raw) stmt(ctx context.Context, text string) (*sql.Stmt, error) {
	if s, ok := r.stmts[text]; ok {
		return s, nil
	}
	s, err := r.conn.PrepareContext(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("preparing %q: %w", text, err)
	}
	r.stmts[text] = s
	return s, nil
}

func (r *raw) exec(ctx context.Context, text string, args ...any) error {
	s, err := r.stmt(ctx, text) //nolint:sqlclosecheck // kept for the connection's life
	if err == nil {
		_, err = s.ExecContext(ctx, args...)
	}
	return err
}

// row reads the one row of a query.
func (r *raw) row(ctx context.Context, text string, into []any, args ...any) error {
	s, err := r.stmt(ctx, text) //nolint:sqlclosecheck // kept for the connection's life
	if err != nil {
		return err
	}
	return s.QueryRowContext(ctx, args...).Scan(into...)
}

// dropIndex takes away the index of keys, to be built at the end.
func (r *raw) dropIndex(ctx context.Context) error {
	err := r.row(ctx, `SELECT sql FROM sqlite_schema WHERE name = 'redemptions_key'`, []any{&r.indexText})
	if err == nil {
		_, err = r.conn.ExecContext(ctx, `DROP INDEX redemptions_key`)
	}
	if err != nil {
		return fmt.Errorf("dropping the index of keys: %w", err)
	}
	return nil
}

// createIndex builds it again, sorting in files: ten million keys are many.
func (r *raw) createIndex(ctx context.Context) error {
	for _, text := range []string{`PRAGMA temp_store = FILE`, r.indexText, `PRAGMA temp_store = MEMORY`} {
		if _, err := r.conn.ExecContext(ctx, text); err != nil {
			return fmt.Errorf("building the index of keys: %w", err)
		}
	}
	return nil
}

// checkpoint empties the write-ahead log, so that no measurement begins with
// what is left of filling.
func (r *raw) checkpoint(ctx context.Context) error {
	if _, err := r.conn.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
		return fmt.Errorf("emptying the write-ahead log: %w", err)
	}
	return nil
}

// transaction is the statements of one commit, ready to be run. Each must
// change, or return, a row.
type transaction struct {
	texts []string
	args  [][]any
	items int
}

func (t *transaction) add(text string, args ...any) {
	t.texts = append(t.texts, text)
	t.args = append(t.args, args)
}

// commit runs a transaction. It is all that is timed.
func (r *raw) commit(ctx context.Context, t *transaction) error {
	if err := r.exec(ctx, `BEGIN IMMEDIATE`); err != nil {
		return err
	}
	for i, text := range t.texts {
		var err error
		if text == useCode {
			var id, name, worth int64
			err = r.row(ctx, text, []any{&id, &name, &worth}, t.args[i]...)
		} else {
			err = r.exec(ctx, text, t.args[i]...)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("straight through the driver: %w", err), r.exec(ctx, `ROLLBACK`))
		}
	}
	return r.exec(ctx, `COMMIT`)
}

// The statements, as the engine has them.
const (
	useCode = `UPDATE redemptions SET state = 3, redeemed = ?, used_by = ? WHERE key_index = ? AND state = 1
		AND (expires = 0 OR expires >= ?) RETURNING id, name_id, quota`
	addQuota  = `UPDATE users SET quota = quota + ? WHERE id = ? AND status = 1`
	writeHead = `UPDATE ledger_heads SET count = ?, mac = ?, seal = ? WHERE lane = 1`
)

const (
	entryColumns = 13
	countColumns = 7
)

func insertEntries(rows int) string {
	return `INSERT INTO ledger (id, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount,
		detail, mac) VALUES ` + placeholders(rows, entryColumns)
}

func addCounts(rows int) string {
	return `INSERT INTO redemption_counts (name_id, level, block, enabled, disabled, used, expired)
		VALUES ` + placeholders(rows, countColumns) + ` ON CONFLICT DO UPDATE SET enabled = enabled + excluded.enabled,
		disabled = disabled + excluded.disabled, used = used + excluded.used, expired = expired + excluded.expired`
}

// insertCodes takes what the codes of a batch share once.
func insertCodes(rows int) string {
	return `INSERT INTO redemptions (name_id, user_id, quota, created, expires, state, redeemed, used_by, key_index, sealed)
		VALUES ` + strings.TrimSuffix(strings.Repeat(`(?1, ?2, ?3, ?4, 0, 1, 0, 0, ?, ?), `, rows), `, `)
}

func placeholders(rows, columns int) string {
	row := "(" + strings.TrimSuffix(strings.Repeat("?, ", columns), ", ") + ")"
	return strings.TrimSuffix(strings.Repeat(row+", ", rows), ", ")
}

// addRows adds statements for the rows, several at once, in few sizes so that
// the prepared statements are few.
func (t *transaction) addRows(text func(rows int) string, columns int, args []any) {
	for len(args) > 0 {
		n := 1
		for _, size := range [...]int{64, 16, 4} {
			if len(args) >= size*columns {
				n = size
				break
			}
		}
		t.add(text(n), args[:n*columns]...)
		args = args[n*columns:]
	}
}

// planner computes transactions from the state that the database is in, each
// following the one before.
type planner struct {
	raw    *raw
	chain  *account.Chain
	head   account.Head
	next   int64   // the id of the next code
	levels []int64 // of the blocks in which the engine counts codes
}

func (r *raw) planner(ctx context.Context, ledgerKey []byte) (*planner, error) {
	p := &planner{raw: r, chain: account.NewChain(ledgerKey), head: account.Head{Lane: 1}}
	if err := r.row(ctx, `SELECT count, mac FROM ledger_heads WHERE lane = 1`, []any{&p.head.Count, &p.head.MAC}); err != nil {
		return nil, fmt.Errorf("reading the ledger's head: %w", err)
	}
	if err := r.row(ctx, `SELECT seq + 1 FROM sqlite_sequence WHERE name = 'redemptions'`, []any{&p.next}); err != nil {
		return nil, fmt.Errorf("reading the last code's id: %w", err)
	}
	rows, err := r.conn.QueryContext(ctx, `SELECT DISTINCT level FROM redemption_counts WHERE name_id = 0`)
	if err != nil {
		return nil, fmt.Errorf("reading the counts: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err has its error
	for rows.Next() {
		var level int64
		if err := rows.Scan(&level); err != nil {
			return nil, err
		}
		p.levels = append(p.levels, level)
	}
	return p, rows.Err()
}

// entry is the columns of the next entry of the ledger.
func (p *planner) entry(e account.Entry, by account.Actor, at time.Time) []any {
	e.ActorID, e.Address, e.At = by.ID, by.Address, at.Truncate(time.Millisecond)
	p.chain.Append(&p.head, &e)
	return []any{
		e.Seq, e.At.UnixMilli(), string(e.Kind), e.ActorID, e.Address, e.AccountID, e.MachineID, e.FirstID, e.LastID,
		e.Count, e.Amount, e.Detail, e.MAC,
	}
}

// finish adds the counts and the ledger's head.
func (p *planner) finish(t *transaction, counts map[cell][2]int64) {
	var rows []any
	for c, n := range counts {
		rows = append(rows, c.name, c.level, c.block, n[0], 0, n[1], 0)
	}
	t.addRows(addCounts, countColumns, rows)
	p.chain.SealHead(&p.head)
	t.add(writeHead, p.head.Count, p.head.MAC, p.head.Seal)
}

// cell is a block of ids of a name, or of all names together, as the engine
// counts them: here how many are enabled and used.
type cell struct{ name, level, block int64 }

// count counts a code, at each level of blocks.
func (p *planner) count(counts map[cell][2]int64, id, name, enabled, used int64) {
	for _, level := range p.levels {
		for _, who := range [...]int64{0, name} {
			c := cell{who, level, id >> level}
			n := counts[c]
			counts[c] = [2]int64{n[0] + enabled, n[1] + used}
		}
	}
}

// redeems plans the transactions that redeem the codes, each by one of the
// accounts in turn, in groups of that size.
func (p *planner) redeems(
	ctx context.Context, codes []redemption.NewKey, users []identity, size int, at time.Time,
) ([]transaction, error) {
	var plan []transaction
	turn := 0
	for len(codes) > 0 {
		n := min(size, len(codes))
		t := transaction{items: n}
		counts := map[cell][2]int64{}
		credits := map[int64]int64{}
		var entries []any
		for _, code := range codes[:n] {
			by := account.Actor{ID: users[turn%len(users)].id, Address: "127.0.0.1"}
			turn++
			var id, name int64
			if err := p.raw.row(ctx, `SELECT id, name_id FROM redemptions WHERE key_index = ?`, []any{&id, &name},
				code.Indexes[0]); err != nil {
				return nil, fmt.Errorf("finding a code to redeem: %w", err)
			}
			t.add(useCode, at.UnixMilli(), by.ID, code.Indexes[0], redemption.Second(at).UnixMilli())
			entries = append(entries, p.entry(account.Entry{
				Kind: account.KindRedeem, AccountID: by.ID, FirstID: id, LastID: id, Count: 1, Amount: quota,
			}, by, at)...)
			p.count(counts, id, name, -1, 1)
			credits[by.ID] += quota
		}
		t.addRows(insertEntries, entryColumns, entries)
		for id, sum := range credits {
			t.add(addQuota, sum, id)
		}
		p.finish(&t, counts)
		plan = append(plan, t)
		codes = codes[n:]
	}
	return plan, nil
}

// issue plans the transaction that issues a batch.
func (p *planner) issue(ctx context.Context, b *redemption.Batch) (transaction, error) {
	t := transaction{items: len(b.Keys)}
	var name int64
	if err := p.raw.row(ctx, `SELECT id FROM redemption_names WHERE name = ?`, []any{&name}, b.Name); err != nil {
		return t, fmt.Errorf("finding a name: %w", err)
	}
	counts := map[cell][2]int64{}
	first := p.next
	for keys := range slices.Chunk(b.Keys, insertRows) {
		args := []any{name, b.Creator.ID, b.Quota, b.Created.UnixMilli()}
		for _, k := range keys {
			args = append(args, k.Indexes[0], k.Sealed)
			p.count(counts, p.next, name, 1, 0)
			p.next++
		}
		t.add(insertCodes(len(keys)), args...)
	}
	detail, err := json.Marshal(map[string]any{"name": b.Name, "expired_time": 0})
	if err != nil {
		return t, err
	}
	t.add(insertEntries(1), p.entry(account.Entry{
		Kind: account.KindIssue, FirstID: first, LastID: p.next - 1, Count: int64(len(b.Keys)), Amount: b.Quota,
		Detail: string(detail),
	}, b.Creator, b.Created)...)
	p.finish(&t, counts)
	return t, nil
}

// insertRows is how many codes one INSERT writes, as in the engine.
const insertRows = 20
