package sqlite

import (
	"context"
	"fmt"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

// lane is the one that entries are written to: SQLite has one writer at a time.
// Others there may be since the database was copied from elsewhere.
const lane = 1

// end is where the ledger ends.
type end struct {
	account.Head
	id int64 // of the last entry of all lanes; 0 if there is none
}

// writeLedger writes the transaction's entries behind the ledger's end.
func (d *DB) writeLedger(ctx context.Context, t *sqlstore.Tx, at end) error {
	if t.Entries == nil {
		return nil
	}
	head := at.Head
	for i := range t.Entries {
		e := &t.Entries[i]
		d.chain.Append(&head, e)
		e.ID = at.id + 1 + int64(i)
		if _, err := t.Exec(ctx, `INSERT INTO ledger
			(id, ahead, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount, detail, mac)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, e.ID, e.ID-e.Seq, e.At.UnixMilli(), string(e.Kind), e.ActorID, e.Address,
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
