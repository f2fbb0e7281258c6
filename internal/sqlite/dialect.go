package sqlite

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/delivery"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// insertRows is how many codes one INSERT writes. Larger ones gain nothing.
const insertRows = 20

// dialect is what is SQLite's own in what the engines share.
type dialect struct{}

var _ sqlstore.Dialect = dialect{}

// In implements sqlstore.Dialect.
func (dialect) In(ids []int64) (text string, arg any) {
	b := []byte{'['}
	for i, n := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return `IN (SELECT value FROM json_each(?1))`, string(append(b, ']'))
}

// Contains implements sqlstore.Dialect: LIKE ignores the case of the letters a-z.
func (dialect) Contains(column string) string { return column + ` LIKE ? ESCAPE '\'` }

// Pattern implements sqlstore.Dialect.
func (dialect) Pattern(fragment string) string { return sqlstore.LikeAnywhere(fragment) }

// Bytes implements sqlstore.Dialect.
func (dialect) Bytes(text string) string { return text }

// Salt implements sqlstore.Dialect.
func (dialect) Salt() string { return `SELECT value FROM settings WHERE name = 'key_salt'` }

// Counter implements sqlstore.Dialect.
func (dialect) Counter(table string) string {
	return `SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = '` + table + `'), 0),
		coalesce((SELECT max(id) FROM ` + table + `), 0))`
}

// NextUser implements sqlstore.Dialect.
func (dialect) NextUser(ctx context.Context, t *sqlstore.Tx) (id int64, err error) {
	err = t.Row(ctx, `SELECT coalesce(max(id), 0) + 1 FROM users`).Scan(&id)
	return id, err
}

// InsertCodes implements sqlstore.Dialect. Ids within a transaction follow each
// other.
func (dialect) InsertCodes(ctx context.Context, t *sqlstore.Tx, b *redemption.Batch, name int64) (first int64, err error) {
	for keys := b.Keys; len(keys) > 0; {
		n := insertRows
		if len(keys) < n {
			n = 1
		}
		args := append(make([]any, 0, 5+2*n), name, b.Creator.ID, b.Quota, b.Created.UnixMilli(), sqlstore.Millis(b.Expires))
		for _, k := range keys[:n] {
			if err := t.Unindexed(ctx, k.Indexes[1:]); err != nil {
				return 0, err
			}
			args = append(args, k.Indexes[0], k.Sealed)
		}
		if _, err := t.Exec(ctx, insertText(n), args...); err != nil {
			return 0, err
		}
		keys = keys[n:]
	}
	var last int64
	err = t.Row(ctx, `SELECT last_insert_rowid()`).Scan(&last)
	return last - int64(len(b.Keys)) + 1, err
}

func insertText(rows int) string {
	var b strings.Builder
	b.WriteString(`INSERT INTO redemptions
		(name_id, user_id, quota, created, expires, state, redeemed, used_by, key_index, sealed) VALUES `)
	for i := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "(?1, ?2, ?3, ?4, ?5, 1, 0, 0, ?%d, ?%d)", 6+2*i, 7+2*i)
	}
	return b.String()
}

// Claim implements sqlstore.Dialect: no other transaction writes.
func (dialect) Claim(context.Context, *sqlstore.Tx, *account.Once) error { return nil }

// LockCodes implements sqlstore.Dialect.
func (dialect) LockCodes(context.Context, *sqlstore.Tx, [][]byte) error { return nil }

// Alone implements sqlstore.Dialect: this one is.
func (dialect) Alone(context.Context, *sqlstore.Tx) error { return nil }

// LedgerLanes implements sqlstore.Dialect: there is one writer, so the entries of
// all lanes are there in the order of their ids.
func (dialect) LedgerLanes() (behind, in, place string) {
	return `SELECT 0, coalesce(max(seq), 0) FROM activity_heads WHERE lane = 0`, `?1 = 0`, `id`
}

// ActivityIn implements sqlstore.Dialect. What stands first is gone through first.
func (dialect) ActivityIn() string {
	return `SELECT slot, kind, sum(entries), sum(count), sum(billions), sum(units)
		FROM slots CROSS JOIN asked CROSS JOIN activity WHERE kind = asked.of AND quarter >= first AND quarter < behind
		GROUP BY slot, kind ORDER BY slot, kind`
}

// Unfolded implements sqlstore.Dialect: the counts say all.
func (dialect) Unfolded(context.Context, sqlstore.Conn, func(sqlstore.Change) error) error {
	return nil
}

// Newest implements delivery.Store.
func (d *DB) Newest(ctx context.Context) (id int64, err error) {
	err = d.Write(ctx, func(ctx context.Context, t *sqlstore.Tx) error {
		if err := t.DropDisconnects(ctx); err != nil {
			return err
		}
		return t.Row(ctx, `SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'`).Scan(&id)
	})
	return id, err
}

// Since implements delivery.Store.
func (d *DB) Since(ctx context.Context, after int64, most int) (items []delivery.Item, err error) {
	err = d.Read(ctx, func(s sqlstore.Conn) error {
		return s.Each(context.WithoutCancel(ctx), func(row sqlstore.Scanner) error {
			i, err := sqlstore.ScanItem(row)
			items = append(items, i)
			return err
		}, `SELECT `+sqlstore.ItemColumns+` FROM outbox WHERE id > ? ORDER BY id`+sqlstore.Limit(most), after)
	})
	return items, err
}
