package sqlite

import (
	"context"
	"fmt"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// lane is the ledger's only one: SQLite has one writer at a time.
const lane = 1

// writeLedger writes the transaction's entries behind the ledger's head.
func (d *DB) writeLedger(ctx context.Context, t *sqlstore.Tx, head account.Head) error {
	if t.Entries == nil {
		return nil
	}
	for i := range t.Entries {
		e := &t.Entries[i]
		d.chain.Append(&head, e)
		if _, err := t.Exec(ctx, `INSERT INTO ledger
			(seq, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount, detail, mac)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, e.Seq, e.At.UnixMilli(), string(e.Kind), e.ActorID, e.Address,
			e.AccountID, e.MachineID, e.FirstID, e.LastID, e.Count, e.Amount, e.Detail, e.MAC); err != nil {
			return fmt.Errorf("writing to the ledger: %w", err)
		}
	}
	d.chain.SealHead(&head)
	if _, err := t.Exec(ctx, `UPDATE ledger_heads SET count = ?, mac = ?, seal = ? WHERE lane = ?`,
		head.Count, head.MAC, head.Seal, head.Lane); err != nil {
		return fmt.Errorf("writing the ledger's head: %w", err)
	}
	return nil
}
