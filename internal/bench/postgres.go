package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/rig"
)

// The engines that are measured.
const (
	enginePostgres = "postgres"
	engineBoth     = "both"
)

// postgresServer is a PostgreSQL on which databases are made to be measured.
type postgresServer struct {
	url     string // of a database of it, from which others are made
	pgbench string // the program
	rig     *rig.Postgres
	made    []string
}

// startPostgres starts a durable PostgreSQL of its own, or uses the one at the URL.
func startPostgres(ctx context.Context, at, dir string) (*postgresServer, error) {
	if at != "" {
		u, err := url.Parse(at)
		if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
			return nil, errors.New("--postgres-url: give the address of a database, like postgres://user@host/postgres")
		}
		// Without it there is no ceiling, and everything else.
		program, _ := exec.LookPath("pgbench")
		return &postgresServer{url: at, pgbench: program}, nil
	}
	if dir != "" {
		// PostgreSQL does not run as root, and must get there.
		if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // G302: to go through, not to read
			return nil, err
		}
	}
	p, err := rig.StartPostgres(ctx, rig.PostgresOptions{Durable: true, Dir: dir})
	if err != nil {
		return nil, err
	}
	return &postgresServer{url: p.URL("postgres"), pgbench: p.Bin("pgbench"), rig: p}, nil
}

// create makes an empty database and returns its address.
func (c *postgresServer) create(ctx context.Context) (address string, err error) {
	conn, err := openSQL(ctx, c.url)
	if err != nil {
		return "", err
	}
	defer conn.close()
	name := "scrip_bench_" + strings.ToLower(rand.Text())
	if _, err := conn.Exec(ctx, `CREATE DATABASE `+name+` TEMPLATE template0 ENCODING 'UTF8'`); err != nil {
		return "", fmt.Errorf("making a database to measure: %w", err)
	}
	c.made = append(c.made, name)
	u, err := url.Parse(c.url)
	if err != nil {
		return "", err
	}
	u.Path = "/" + name
	return u.String(), nil
}

// stop removes what was made.
func (c *postgresServer) stop(ctx context.Context) error {
	if c.rig != nil {
		return c.rig.Stop()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.url)
	if err != nil {
		return fmt.Errorf("removing the databases that were measured: %w", err)
	}
	var errs []error
	for _, name := range c.made {
		_, err := conn.Exec(ctx, `DROP DATABASE `+name)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, conn.Close(ctx))...)
}

// connection is one straight to a database on PostgreSQL.
type connection struct {
	*pgx.Conn

	end func()
}

func openSQL(ctx context.Context, address string) (connection, error) {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return connection{}, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	// Nothing is kept in it that could be lost.
	return connection{conn, func() { _ = conn.Close(context.WithoutCancel(ctx)) }}, nil
}

func (c connection) close() { c.end() }

func (c connection) exec(ctx context.Context, text string, args ...any) error {
	if _, err := c.Exec(ctx, text, args...); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

// dropIndex implements beside.
func (c connection) dropIndex(ctx context.Context) error {
	return c.exec(ctx, `DROP INDEX redemptions_key`)
}

// createIndex implements beside.
func (c connection) createIndex(ctx context.Context) error {
	return c.exec(ctx, `CREATE UNIQUE INDEX redemptions_key ON redemptions (key_index)`)
}

// checkpoint implements beside: it does what the server would have done by itself
// some minutes later.
func (c connection) checkpoint(ctx context.Context) error {
	return errors.Join(c.exec(ctx, `VACUUM (ANALYZE)`), c.exec(ctx, `CHECKPOINT`))
}

// pgbench is a database like the measured one, in which PostgreSQL's own program
// redeems: one code at a time, each in one statement.
type pgbench struct {
	*database
	conn    connection
	program string
	script  string
	users   int64
	sealed  int   // bytes of a sealed key
	next    int64 // number of the next code
	rate    float64
}

// redeemScript redeems codes by number, each client those behind its own first.
// It writes what the engine does but for the counts and the chain of the ledger:
// less than that is no redeem.
const redeemScript = `\set i :i + 1
\set n :first + :client_id * :each + :i
\set by 2 + :client_id
WITH used AS (
	UPDATE redemptions SET state = 3, redeemed = :at, used_by = :by
	WHERE key_index = sha256(convert_to(CAST(CAST(:n AS BIGINT) AS TEXT), 'UTF8')) AND state = 1 AND (expires = 0 OR expires >= :at)
	RETURNING id, quota
), credited AS (
	UPDATE users SET quota = users.quota + used.quota FROM used WHERE users.id = :by AND users.status = 1 RETURNING users.id
)
INSERT INTO ledger (lane, seq, at, kind, actor_id, address, account_id, machine_id, first_id, last_id, count, amount, detail, mac)
SELECT 100 + :client_id, :n, :at, 'redeem', :by, '127.0.0.1', credited.id, 0, used.id, used.id, 1, used.quota, '',
	'\x0102030405060708091011121314151617181920212223242526272829303132' FROM used, credited;
`

// newPgbench makes the database, with as many accounts and codes as the measured
// one has.
func (s *settings) newPgbench(ctx context.Context, r *ready) (_ *pgbench, err error) {
	if s.postgres.pgbench == "" {
		return nil, errors.New("--ceiling: pgbench is not installed; on Debian, install the package postgresql-contrib, or leave out --ceiling")
	}
	b := &pgbench{program: s.postgres.pgbench, script: filepath.Join(s.dir, "redeem.sql"), users: int64(len(r.users)), next: 1, rate: assumedRedeems}
	if err := os.WriteFile(b.script, []byte(redeemScript), 0o600); err != nil {
		return nil, err
	}
	if b.database, err = s.newDatabase(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if err := b.addUsers(ctx, len(r.users)); err != nil {
		return nil, err
	}
	if _, err := b.fill(ctx, filling{codes: r.contents.codes, names: r.contents.names, expired: 1}, s.progress); err != nil {
		return nil, err
	}
	if b.conn, err = openSQL(ctx, b.address); err != nil {
		return nil, err
	}
	if err := b.conn.QueryRow(ctx, `SELECT length(sealed) FROM redemptions LIMIT 1`).Scan(&b.sealed); err != nil {
		return nil, fmt.Errorf("reading a code: %w", err)
	}
	return b, nil
}

func (b *pgbench) close() error {
	if b.conn.Conn != nil {
		b.conn.close()
	}
	return b.Close()
}

// supply makes n codes that are as large as the engine's. Their ids are in another
// order than their numbers: people do not redeem in the order of issue.
func (b *pgbench) supply(ctx context.Context, n int64) error {
	_, err := b.conn.Exec(ctx, `INSERT INTO redemptions (id, name_id, user_id, quota, created, expires, key_index, sealed)
		SELECT (SELECT coalesce(max(id), 0) FROM redemptions) + row_number() OVER (), 1, 1, $3, $4, 0,
			sha256(convert_to(CAST(i AS TEXT), 'UTF8')), decode(repeat('ab', $5), 'hex')
		FROM (SELECT i FROM generate_series($1::bigint, $1::bigint + $2::bigint - 1) AS i ORDER BY random()) AS codes`,
		b.next, n, int64(quota), b.now().UnixMilli(), b.sealed)
	if err != nil {
		return fmt.Errorf("making codes for pgbench: %w", err)
	}
	return nil
}

// redeems is a phase in which as many clients of pgbench as the database has
// accounts redeem.
func (b *pgbench) redeems(ctx context.Context, d time.Duration) (*sample, error) {
	seconds := max(int64(d.Seconds()+0.5), 1)
	each := int64(b.rate*float64(seconds)*2)/b.users + batchMax
	if err := b.supply(ctx, each*b.users); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, b.program, //nolint:gosec // G204: PostgreSQL's own program
		"--no-vacuum", "--protocol=prepared", "--client="+strconv.FormatInt(b.users, 10), "--jobs="+strconv.FormatInt(min(b.users, 2), 10),
		"--time="+strconv.FormatInt(seconds, 10), "--file="+b.script, "--define=i=-1",
		"--define=first="+strconv.FormatInt(b.next, 10), "--define=each="+strconv.FormatInt(each, 10),
		"--define=at="+strconv.FormatInt(b.now().UnixMilli(), 10), b.address)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("pgbench: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	var n int64
	if err := b.conn.QueryRow(ctx, `SELECT count(*) FROM redemptions WHERE state = 3 AND key_index IN
		(SELECT sha256(convert_to(CAST(i AS TEXT), 'UTF8')) FROM generate_series($1::bigint, $1::bigint + $2::bigint - 1) AS i)`,
		b.next, each*b.users).Scan(&n); err != nil {
		return nil, err
	}
	b.next += each * b.users
	s, err := readPgbench(out)
	if err == nil && s.operations() != n {
		err = fmt.Errorf("pgbench ran %d transactions and redeemed %d codes", s.operations(), n)
	}
	if err == nil {
		b.rate = max(s.rate(), b.rate/2)
	}
	return s, err
}

// readPgbench reads what pgbench says of a run: how many transactions there were,
// how many a second without the time to connect, and their mean, which stands for
// all quantiles.
func readPgbench(out []byte) (*sample, error) {
	find := func(pattern string) (float64, error) {
		m := regexp.MustCompile(pattern).FindSubmatch(out)
		if m == nil {
			return 0, fmt.Errorf("pgbench has not said %s: %s", pattern, out)
		}
		return strconv.ParseFloat(string(m[1]), 64)
	}
	n, err := find(`transactions actually processed: (\d+)`)
	tps, err2 := find(`tps = ([0-9.]+) \(without`)
	mean, err3 := find(`latency average = ([0-9.]+) ms`)
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, err
	}
	s := &sample{elapsed: time.Duration(n / tps * float64(time.Second))}
	for range int64(n) {
		s.hist.add(time.Duration(mean * float64(time.Millisecond)))
	}
	return s, nil
}

// redeemPostgres measures redeems on PostgreSQL in turns with pgbench: calling the
// engine, and over HTTP.
func (s *settings) redeemPostgres(ctx context.Context, r *ready) error {
	b, err := s.newPgbench(ctx, r)
	if err != nil {
		return err
	}
	defer func() { s.closing(b.close()) }()
	codes, overHTTP, callers := r.supply(), r.supply(), callersOf(r.target, r.users, s.clients)
	codes.rate, codes.least = 2*codes.rate, codes.rate
	defer closeAll(callers)
	service := redemption.NewService(r.engine, r.Keys(), r.limiter(), r.now)
	var sizes []float64
	direct := func(ctx context.Context, d time.Duration) (*sample, error) {
		if err := codes.ensure(ctx, d); err != nil {
			return nil, err
		}
		groups, redeems := r.groups.Load(), r.grouped.Load()
		out := run(ctx, s.env.Now, s.clients, d, func(ctx context.Context, client int) error {
			key, ok := codes.take()
			if !ok {
				return errNoMore
			}
			u := r.users[client%len(r.users)]
			_, err := service.Redeem(ctx, account.Actor{ID: u.id, Role: account.RoleUser, Address: "127.0.0.1"}, key, nil)
			if err == nil {
				codes.redeemed.Add(1)
			}
			return err
		})
		codes.rate = max(out.rate(), codes.least)
		if n := r.groups.Load() - groups; n > 0 {
			sizes = append(sizes, float64(r.grouped.Load()-redeems)/float64(n))
		}
		return out, failed(ctx, out)
	}
	s.measuring("redeeming, %d clients, in turns with pgbench, %s each", s.clients, s.duration)
	kept, err := rounds(ctx, s.duration, direct, b.redeems, overHTTP.load(s.env.Now, callers, r.settle))
	base := result{Bench: s.title("redeem"), Codes: s.codes, Clients: s.clients}
	for i, kind := range []string{"calling the engine", "pgbench, one redeem a statement", "over HTTP"} {
		base.Kind = kind
		s.report.add(base, kept[i], 1)
	}
	if err != nil || len(kept[2]) == 0 {
		return err
	}
	s.report.note("%s: the groups that were committed together held %.1f redeems on average, when the engine was called. "+
		"Of pgbench only the mean is known.", base.Bench, median(sizes))
	s.report.check(check{
		Bench: base.Bench, Kind: redeemOfPgbench, Value: paired(kept[0], kept[1], (*sample).rate), Bound: atLeast, Target: 2,
	})
	s.report.check(check{
		Bench: base.Bench, Kind: httpOfPgbench, Value: paired(kept[2], kept[1], (*sample).rate), Bound: atLeast, Target: 1,
	})
	return r.checkBalances(ctx, codes, overHTTP)
}

const (
	redeemOfPgbench = "rate calling the engine / pgbench"
	httpOfPgbench   = "rate over HTTP / pgbench"
)

const (
	// issuedMost is how many codes one turn of issue makes on PostgreSQL, and
	// issuedTimes how many times as many as there are, at the most: what is small
	// stays so.
	issuedMost  = 1_000_000
	issuedTimes = 100
	// copyBatch is how many codes are issued together when the engine is called.
	copyBatch = 10_000
)

// copied is a database like the measured one, into which codes are copied.
type copied struct {
	*database
	conn connection
}

// issuePostgres measures how long many codes take: over HTTP, and calling the
// engine in turns with one bare COPY of the same rows.
func (s *settings) issuePostgres(ctx context.Context, r *ready, overHTTP phase) (err error) {
	c := &copied{}
	if c.database, err = s.newDatabase(ctx); err != nil {
		return err
	}
	defer func() { s.closing(c.Close()) }()
	if c.conn, err = openSQL(ctx, c.address); err != nil {
		return err
	}
	defer c.conn.close()
	if _, err := c.fill(ctx, filling{codes: r.contents.codes, names: r.contents.names, expired: 1}, s.progress); err != nil {
		return err
	}
	all := max(min(issuedMost, issuedTimes*s.codes)/batchMax, 1)
	n := max(all/10, 1) // for warming up
	var batches []redemption.Batch
	issue := func(ctx context.Context, _ time.Duration) (*sample, error) {
		var err error
		if batches, err = r.sealed(ctx, n); err != nil {
			return nil, err
		}
		return one(ctx, s.env.Now, n*batchMax, func(ctx context.Context) error {
			for _, b := range batches {
				if err := r.Issue(ctx, b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	bare := func(ctx context.Context, _ time.Duration) (*sample, error) {
		defer func() { n = all }()
		rows, err := c.rows(ctx, batches)
		if err != nil {
			return nil, err
		}
		return one(ctx, s.env.Now, n*batchMax, func(ctx context.Context) error {
			_, err := c.conn.CopyFrom(ctx, pgx.Identifier{"redemptions"}, []string{
				"id", "name_id", "user_id", "state", "quota", "created", "expires", "key_index", "sealed",
			}, rows)
			return err
		})
	}
	s.progress.say("issuing %s codes at a time, in turns with a bare COPY", grouped(all*batchMax))
	kept, err := rounds(ctx, s.duration, overHTTP, issue, bare)
	base := result{Bench: s.title("issue"), Kind: "over HTTP, 100 codes a call", Codes: s.codes, Clients: s.clients}
	s.report.add(base, kept[0], batchMax)
	base.Clients = 1
	base.Kind = fmt.Sprintf("calling the engine, %s codes a batch", grouped(min(copyBatch, all*batchMax)))
	s.report.add(base, kept[1], 1)
	base.Kind = fmt.Sprintf("one COPY of %s codes", grouped(all*batchMax))
	s.report.add(base, kept[2], 1)
	if err == nil && len(kept[2]) > 0 {
		s.report.check(check{
			Bench: base.Bench, Kind: fmt.Sprintf("time to issue %s codes, calling the engine / one COPY", grouped(all*batchMax)),
			Value: paired(kept[2], kept[1], (*sample).rate), Bound: atMost, Target: 2,
		})
	}
	return err
}

// one measures one call that is about n codes.
func one(ctx context.Context, now func() time.Time, n int64, do func(context.Context) error) (*sample, error) {
	runtime.GC() // of what has been prepared
	begun := now()
	if err := do(ctx); err != nil {
		return nil, err
	}
	s := &sample{each: n, elapsed: now().Sub(begun)}
	s.hist.add(s.elapsed)
	return s, nil
}

// sealed makes n hundred codes, ready to be issued in large batches.
func (d *database) sealed(ctx context.Context, n int64) (batches []redemption.Batch, err error) {
	err = sealBatches(ctx, d.Keys(), d.actor(), d.now(), n,
		func(number int64) redemption.IssueRequest {
			return redemption.IssueRequest{Name: nameOf(number % 10), Count: batchMax, Quota: quota}
		},
		func(b batch) error {
			last := len(batches) - 1
			if last < 0 || len(batches[last].Keys) >= copyBatch {
				batches = append(batches, b.Batch)
			} else {
				batches[last].Keys = append(batches[last].Keys, b.Keys...)
			}
			return nil
		})
	return batches, err
}

// rows are those that the engine writes of the batches.
func (c *copied) rows(ctx context.Context, batches []redemption.Batch) (pgx.CopyFromSource, error) {
	var id int64
	if err := c.conn.QueryRow(ctx, `SELECT coalesce(max(id), 0) FROM redemptions`).Scan(&id); err != nil {
		return nil, err
	}
	var b *redemption.Batch
	at := 0
	return pgx.CopyFromFunc(func() ([]any, error) {
		if b == nil || at == len(b.Keys) {
			if len(batches) == 0 {
				return nil, nil
			}
			b, batches, at = &batches[0], batches[1:], 0
		}
		k := &b.Keys[at]
		at++
		id++
		return []any{id, int64(1), b.Creator.ID, int64(1), b.Quota, b.Created.UnixMilli(), int64(0), k.Indexes[0], k.Sealed}, nil
	}), nil
}
