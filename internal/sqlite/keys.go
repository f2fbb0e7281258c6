package sqlite

import (
	"context"
	"fmt"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// createKeys makes the keys and the ledger's head of an empty database.
func (d *DB) createKeys(ctx context.Context) error {
	const exists = `SELECT count(*) FROM settings WHERE name = 'key_epoch'`
	w := d.writer
	var n int64
	if err := w.Row(ctx, exists).Scan(&n); err != nil || n > 0 {
		return err
	}
	keys, ledgerKey := d.Keys().Create()
	if _, err := w.Exec(ctx, `BEGIN IMMEDIATE`); err != nil {
		return err
	}
	// Another process may have been first.
	err := w.Row(ctx, exists).Scan(&n)
	if err == nil && n == 0 {
		err = insertKeys(ctx, d.Tx(sqlstore.Conn{Driver: w}, 0), keys, account.NewChain(ledgerKey))
	}
	if err == nil {
		_, err = w.Exec(ctx, `COMMIT`)
	}
	if err != nil {
		_, _ = w.Exec(ctx, `ROLLBACK`)
		return fmt.Errorf("making the data keys: %w", err)
	}
	return nil
}

func insertKeys(ctx context.Context, t *sqlstore.Tx, keys keyring.Stored, chain *account.Chain) error {
	head := account.Head{Lane: lane, MAC: []byte{}}
	chain.SealHead(&head)
	if _, err := t.Exec(ctx, `INSERT INTO ledger_heads (lane, count, mac, seal) VALUES (?, 0, ?, ?)`,
		lane, head.MAC, head.Seal); err != nil {
		return err
	}
	if _, err := t.Exec(ctx, `INSERT INTO settings (name, value) VALUES ('key_salt', ?)`, keys.Salt); err != nil {
		return err
	}
	return t.PutKeys(ctx, keys)
}
