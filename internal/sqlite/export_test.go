package sqlite

import (
	"context"
	"fmt"
	"slices"

	driver "modernc.org/sqlite"
)

// Queued is how many jobs wait for the writer.
func (d *DB) Queued() int { return d.group.Waiting() }

// Hold takes the writer's turn until it is released.
func (d *DB) Hold() (release func()) {
	<-d.writeTurn
	return func() { d.writeTurn <- struct{}{} }
}

// Statements are the texts of what the connections have prepared.
func (d *DB) Statements() (texts []string) {
	d.eachSession(func(s *session) {
		for text := range s.stmts {
			texts = append(texts, withoutLocks(text))
		}
	})
	slices.Sort(texts)
	return slices.Compact(texts)
}

// eachSession calls do with each connection, while nobody else uses any.
func (d *DB) eachSession(do func(*session)) {
	<-d.writeTurn
	do(d.writer)
	var pool []*session
	for range readers {
		s := <-d.readPool
		do(s)
		pool = append(pool, s)
	}
	for _, s := range pool {
		d.readPool <- s
	}
	d.writeTurn <- struct{}{}
}

// PagesRead is how many pages the reading connections have asked their caches
// for since they were opened.
func (d *DB) PagesRead() (n int64, err error) {
	d.eachSession(func(s *session) {
		if s == d.writer || err != nil {
			return
		}
		err = s.conn.Raw(func(c any) error {
			status, ok := c.(driver.DBStatus)
			if !ok {
				return fmt.Errorf("%T tells no status", c)
			}
			for _, op := range []driver.DBStatusOp{driver.DBStatusCacheHit, driver.DBStatusCacheMiss} {
				count, _, err := status.Status(op, false)
				if err != nil {
					return err
				}
				n += int64(count)
			}
			return nil
		})
	})
	return n, err
}

// LimitPages bounds how many pages the database may have; 0 means those that it
// has now.
func (d *DB) LimitPages(ctx context.Context, most int64) (err error) {
	<-d.writeTurn
	defer func() { d.writeTurn <- struct{}{} }()
	if most == 0 {
		if err := d.writer.Row(ctx, `PRAGMA page_count`).Scan(&most); err != nil {
			return err
		}
	}
	var got int64
	return d.writer.conn.QueryRowContext(ctx, fmt.Sprintf(`PRAGMA max_page_count = %d`, most)).Scan(&got)
}

// Idle fails if the writing connection is inside a transaction.
func (d *DB) Idle(ctx context.Context) error {
	<-d.writeTurn
	defer func() { d.writeTurn <- struct{}{} }()
	if _, err := d.writer.Exec(ctx, `BEGIN`); err != nil {
		return err
	}
	_, err := d.writer.Exec(ctx, `ROLLBACK`)
	return err
}

// Careless lets the writer not wait for the disk: for tests that write much and
// are about something else.
func (d *DB) Careless(ctx context.Context) error {
	<-d.writeTurn
	defer func() { d.writeTurn <- struct{}{} }()
	_, err := d.writer.conn.ExecContext(ctx, `PRAGMA synchronous = off`)
	return err
}
