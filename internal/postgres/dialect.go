package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// dialect is what is PostgreSQL's own in what the engines share.
type dialect struct{ d *DB }

var _ sqlstore.Dialect = dialect{}

// In implements sqlstore.Dialect.
func (dialect) In(ids []int64) (text string, arg any) { return `= ANY(CAST(?1 AS BIGINT[]))`, ids }

const (
	upper = `ABCDEFGHIJKLMNOPQRSTUVWXYZ`
	lower = `abcdefghijklmnopqrstuvwxyz`
)

// Contains implements sqlstore.Dialect. What lower and ILIKE do depends on the
// database's locale.
func (dialect) Contains(column string) string {
	return `translate(` + column + `, '` + upper + `', '` + lower + `') LIKE ? ESCAPE '\'`
}

// Pattern implements sqlstore.Dialect.
func (dialect) Pattern(fragment string) string {
	return sqlstore.LikeAnywhere(strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, fragment))
}

// Bytes implements sqlstore.Dialect. Else the database's locale has a say.
func (dialect) Bytes(text string) string { return text + ` COLLATE "C"` }

// Salt implements sqlstore.Dialect.
func (dialect) Salt() string { return `SELECT value FROM key_salt` }

// Counter implements sqlstore.Dialect.
func (dialect) Counter(table string) string {
	if counted(table) {
		return `SELECT value FROM counters WHERE name = '` + table + `'`
	}
	return `SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM ` + table + `_id_seq`
}

// counted reports whether the ids of a table come from the table of counters.
func counted(table string) bool { return table == "users" || table == "redemptions" }

// NextUser implements sqlstore.Dialect. The row of the counter is locked until
// the transaction ends, so that no id is left out.
func (dialect) NextUser(ctx context.Context, t *sqlstore.Tx) (id int64, err error) {
	err = t.Row(ctx, `UPDATE counters SET value = value + 1 WHERE name = 'users' RETURNING value`).Scan(&id)
	return id, err
}

// InsertCodes implements sqlstore.Dialect. The ids are taken beside the
// transaction, so that those who issue do not wait for each other; if it fails
// they are left out.
func (l dialect) InsertCodes(ctx context.Context, t *sqlstore.Tx, b *redemption.Batch, name int64) (first int64, err error) {
	if err := unindexed(ctx, t, b); err != nil {
		return 0, err
	}
	n := int64(len(b.Keys))
	aside, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	if err := l.d.side.QueryRow(aside, `UPDATE counters SET value = value + $1 WHERE name = 'redemptions' RETURNING value - $1 + 1`,
		n).Scan(&first); err != nil {
		return 0, fmt.Errorf("taking ids: %w", err)
	}
	created, expires := b.Created.UnixMilli(), sqlstore.Millis(b.Expires)
	s, ok := t.Driver.(*session)
	if !ok {
		return 0, fmt.Errorf("%T is no connection of this engine", t.Driver)
	}
	_, err = s.conn.CopyFrom(s.ctx, pgx.Identifier{"redemptions"}, //nolint:contextcheck // the session's own
		[]string{"id", "name_id", "user_id", "state", "quota", "created", "expires", "key_index", "sealed"},
		pgx.CopyFromSlice(len(b.Keys), func(i int) ([]any, error) {
			k := &b.Keys[i]
			return []any{first + int64(i), name, b.Creator.ID, int64(1), b.Quota, created, expires, k.Indexes[0], k.Sealed}, nil
		}))
	return first, err
}

// unindexed is sqlstore.Tx.Unindexed for a whole batch.
func unindexed(ctx context.Context, t *sqlstore.Tx, b *redemption.Batch) error {
	var older [][]byte
	for i := range b.Keys {
		older = append(older, b.Keys[i].Indexes[1:]...)
	}
	if older == nil {
		return nil
	}
	var id int64
	err := t.Row(ctx, `SELECT id FROM redemptions WHERE key_index = ANY(CAST(? AS BYTEA[])) LIMIT 1`, older).Scan(&id)
	if err == nil {
		return fmt.Errorf("code %d has one of those keys", id)
	}
	return ifAny(err)
}

// Claim implements sqlstore.Dialect: who claims the same request waits for the
// row.
func (dialect) Claim(ctx context.Context, t *sqlstore.Tx, once *account.Once) error {
	_, err := t.Exec(ctx, `INSERT INTO answers (scope, caller, refused, request, answer, at) VALUES (?, ?, 0, ?, ?, ?)
		ON CONFLICT (scope) DO UPDATE SET scope = excluded.scope`,
		once.Scope[:], once.Caller, once.Request[:], []byte{}, once.At.UnixMilli())
	return err
}

// LockCodes implements sqlstore.Dialect.
func (dialect) LockCodes(ctx context.Context, t *sqlstore.Tx, indexes [][]byte) error {
	_, err := t.Exec(ctx, `SELECT id FROM redemptions WHERE key_index = ANY(CAST(? AS BYTEA[])) ORDER BY id FOR UPDATE`, indexes)
	return err
}

// Alone implements sqlstore.Dialect: whoever commits has a lane.
func (dialect) Alone(ctx context.Context, t *sqlstore.Tx) error {
	if _, err := t.Exec(ctx, `SELECT lane FROM ledger_heads ORDER BY lane FOR UPDATE`); err != nil {
		return fmt.Errorf("waiting for all who write: %w", err)
	}
	t.Alone = true
	return t.Row(ctx, sqlstore.SelectEpoch).Scan(&t.Epoch)
}

// LedgerLanes implements sqlstore.Dialect. Ids will not do: of two that are written
// at the same time the higher may be there first.
func (dialect) LedgerLanes() (behind, in, place string) {
	return `SELECT h.lane, coalesce(a.seq, 0) FROM ledger_heads h LEFT JOIN activity_heads a ON a.lane = h.lane
		WHERE h.count > coalesce(a.seq, 0) ORDER BY h.lane`, `lane = ?1`, `seq`
}

// ActivityIn implements sqlstore.Dialect. Joined, all of a kind that there ever was
// would be read and compared with each slot.
func (dialect) ActivityIn() string {
	return `SELECT slot, asked.of, sums.entries, sums.count, sums.billions, sums.units
		FROM slots CROSS JOIN asked CROSS JOIN LATERAL (
			SELECT CAST(sum(entries) AS BIGINT) AS entries, CAST(sum(count) AS BIGINT) AS count,
				CAST(sum(billions) AS BIGINT) AS billions, CAST(sum(units) AS BIGINT) AS units
			FROM activity WHERE kind = asked.of AND quarter >= first AND quarter < behind) AS sums
		WHERE sums.entries IS NOT NULL ORDER BY slot, asked.of COLLATE "C"`
}

// Newest implements delivery.Store. Since does not go by ids: of two that are
// written at the same time the higher may be there first.
func (d *DB) Newest(ctx context.Context) (id int64, err error) {
	return 0, d.Write(ctx, func(ctx context.Context, t *sqlstore.Tx) error { return t.DropDisconnects(ctx) })
}

// Since implements delivery.Store: each entry is listed to the first who asks,
// unless another server has the broker: then it is for that one.
func (d *DB) Since(ctx context.Context, _ int64, most int) (items []delivery.Item, err error) {
	follower := d.follower.Load()
	if follower == nil {
		follower = new(string)
	}
	var some int64
	if err := d.Read(ctx, func(s sqlstore.Conn) error {
		return s.Row(ctx, `SELECT count(*) FROM (SELECT 1 FROM outbox WHERE pending > 0 LIMIT 1) AS found`).Scan(&some)
	}); err != nil || some == 0 {
		return nil, err
	}
	err = d.Write(ctx, func(ctx context.Context, t *sqlstore.Tx) error {
		t.Wrote = true
		// What an earlier try has listed stays: if its connection was lost at the
		// commit, nobody would be told of it again.
		return t.Each(ctx, func(row sqlstore.Scanner) error {
			i, err := sqlstore.ScanItem(row)
			items = append(items, i)
			return err
		}, `UPDATE outbox SET pending = 0 WHERE pending > 0 AND id IN
			(SELECT id FROM outbox WHERE pending > 0 ORDER BY id`+sqlstore.Limit(most)+`)
			AND NOT EXISTS (SELECT 1 FROM duties WHERE name = '`+BrokerDuty+`' AND holder <> ?) RETURNING `+sqlstore.ItemColumns,
			*follower)
	})
	slices.SortFunc(items, func(a, b delivery.Item) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(items, func(a, b delivery.Item) bool { return a.ID == b.ID }), err
}

// createKeys makes the keys and the ledger's heads of an empty database.
func (d *DB) createKeys(ctx context.Context) error {
	var there bool
	if err := d.Read(ctx, func(s sqlstore.Conn) error {
		return s.Row(ctx, `SELECT EXISTS (`+sqlstore.SelectEpoch+`)`).Scan(&there)
	}); err != nil || there {
		return err
	}
	keys, ledgerKey := d.Keys().Create()
	chain := account.NewChain(ledgerKey)
	err := d.retry(ctx, func(s *session) error {
		return pgx.BeginFunc(s.ctx, s.conn, func(pgx.Tx) error {
			t := d.Tx(sqlstore.Conn{Driver: s}, 0)
			// Another process may be first: this waits for it.
			n, err := t.Exec(s.ctx, `INSERT INTO settings (name, value) VALUES ('keys_made', 1) ON CONFLICT DO NOTHING`)
			if err != nil || n == 0 {
				return err
			}
			if err := insertLanes(s, chain); err != nil {
				return err
			}
			if _, err := t.Exec(s.ctx, `INSERT INTO key_salt (value) VALUES (?)`, keys.Salt); err != nil {
				return err
			}
			return t.PutKeys(s.ctx, keys)
		})
	})
	if err != nil {
		return fmt.Errorf("making the data keys: %w", err)
	}
	return nil
}

func insertLanes(s *session, chain *account.Chain) error {
	for i := range int64(lanes) {
		head := account.Head{Lane: i + 1, MAC: []byte{}}
		chain.SealHead(&head)
		if _, err := s.Exec(s.ctx, `INSERT INTO ledger_heads (lane, count, mac, seal) VALUES (?, 0, ?, ?)`,
			head.Lane, head.MAC, head.Seal); err != nil {
			return err
		}
	}
	return nil
}
