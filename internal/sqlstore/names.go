package sqlstore

import (
	"context"

	"github.com/scrip-codes/scrip/internal/fleet"
)

// Usernames implements account.Store.
func (d *Store) Usernames(ctx context.Context, ids []int64) (map[int64]string, error) {
	return names(ctx, d, `SELECT id, username FROM users WHERE id `, ids, func(name *string) []any { return []any{name} })
}

// MachineNames implements fleet.Store.
func (d *Store) MachineNames(ctx context.Context, ids []int64) (map[int64]fleet.Named, error) {
	return names(ctx, d, `SELECT id, machine_no, name, deleted = 1 FROM machines WHERE id `, ids, func(n *fleet.Named) []any {
		return []any{&n.No, &n.Name, &n.Deleted}
	})
}

// names are what a query says of each of those ids.
func names[T any](
	ctx context.Context, d *Store, query string, ids []int64, into func(*T) []any,
) (map[int64]T, error) {
	found := make(map[int64]T, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	in, arg := d.dialect.In(ids)
	err := d.engine.Read(ctx, func(s Conn) error {
		return s.Each(context.WithoutCancel(ctx), func(row Scanner) error {
			var id int64
			var name T
			err := row.Scan(append([]any{&id}, into(&name)...)...)
			found[id] = name
			return err
		}, query+in, arg)
	})
	return found, err
}
