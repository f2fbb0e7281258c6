package sqlstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// Reveal implements redemption.Store.
func (d *Store) Reveal(ctx context.Context, r redemption.Revelation) (rows []redemption.Stored, err error) {
	in, arg := d.dialect.In(r.IDs)
	err = d.engine.Write(ctx, func(ctx context.Context, t *Tx) error {
		if err := t.fresh(r.Epoch); err != nil {
			return err
		}
		rows = nil
		var ids []int64
		if err := t.Each(ctx, func(row Scanner) error {
			c, _, err := scanCode(row)
			rows, ids = append(rows, c), append(ids, c.ID)
			return err
		}, selectCode+`WHERE r.id `+in+` ORDER BY r.id FOR SHARE OF r`, arg); err != nil {
			return fmt.Errorf("reading keys: %w", err)
		}
		if len(ids) == 0 {
			return refusal.New(refusal.RedemptionNotFound)
		}
		for len(ids) > 0 {
			// Codes that lie far apart are in entries of their own: the story of a code
			// does not look for wider ones.
			n := 1
			for n < len(ids) && ids[n]-ids[0] < widestRange {
				n++
			}
			t.Append(revealed(ids[:n]), r.By, r.At)
			ids = ids[n:]
		}
		return nil
	})
	return rows, err
}

// revealed is the ledger entry that says that these keys were shown. The ids are in
// order.
func revealed(ids idRanges) account.Entry {
	e := account.Entry{
		Kind: account.KindReveal, FirstID: ids[0], LastID: ids[len(ids)-1], Count: int64(len(ids)),
	}
	if e.LastID-e.FirstID >= e.Count {
		var b strings.Builder
		ids.write(&b)
		e.Detail = `{"ids":"` + b.String() + `"}`
	}
	return e
}
