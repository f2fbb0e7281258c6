package bench

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// quota is what every code that is made here is worth.
const quota = 500

// batchMax is how many codes one batch has, as many as the API takes.
const batchMax = redemption.CountMax

// nameOf is the name of that number. All contain everyName, a tenth of them
// contain tenthName.
func nameOf(i int64) string { return fmt.Sprintf("%s %06d t%d", everyName, i, i%10) }

const (
	everyName = "batch"
	tenthName = "t3"
	noName    = "absent"
)

// batch is sealed codes ready for a store, and their keys.
type batch struct {
	number int64
	redemption.Batch
	keys []string
}

// catcher is the store of a service that only seals: it keeps the batch.
type catcher struct {
	redemption.Store
	batch redemption.Batch
}

// Issue implements redemption.Store.
func (c *catcher) Issue(_ context.Context, b redemption.Batch) error {
	c.batch = b
	return nil
}

// sealBatches makes n batches, numbered from 0, in parallel and so in any
// order, and gives them to take one after the other. Request says what each
// is. The service that seals them believes that it is at.
func sealBatches(
	ctx context.Context, keys *keyring.Keys, by account.Actor, at time.Time, n int64,
	request func(number int64) redemption.IssueRequest, take func(batch) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	workers := int64(runtime.GOMAXPROCS(0))
	made := make(chan batch, workers)
	failed := make(chan error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			c := &catcher{}
			service := redemption.NewService(c, keys, nil, func() time.Time { return at })
			for number := w; number < n; number += workers {
				keys, err := service.Issue(ctx, by, request(number))
				if err != nil {
					failed <- fmt.Errorf("sealing codes: %w", err)
					return
				}
				select {
				case made <- batch{number, c.batch, keys}:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(made)
	}()
	var err error
	for b := range made {
		if err == nil {
			if err = take(b); err != nil {
				cancel()
			}
		}
	}
	select {
	case e := <-failed:
		return e
	default:
	}
	if err != nil {
		return err
	}
	return ctx.Err()
}

// contents says what a filled database holds, and a code to look for.
type contents struct {
	codes, names int64

	used, disabled, expired int64

	// One code that is live, and a name.
	id   int64
	key  string
	name string
	// ofName is how many codes have that name, ofTenth how many a name with
	// tenthName.
	ofName, ofTenth int64
}

func (c *contents) live() int64 { return c.codes - c.used - c.disabled - c.expired }

// filling says what to fill a database with.
type filling struct {
	codes, names int64
	// expired is how many of each batchesOf batches have expired.
	expired int64
	users   int
	// sorted has the index of keys built at the end, in order, instead of at
	// random places while filling.
	sorted bool
}

// Of the codes that have not expired, by id, a mix is used and disabled
// throughout: neither number shares a divisor with ten, as batches and the number of
// names do, or some names would have all of them and others none. Of each batchesOf
// batches some have expired, and one has yet to.
const (
	usedEvery     = 21
	disabledEvery = 199
	batchesOf     = 20
)

// sortedFrom is how many codes make it worth while to build the index of keys
// sorted, at the end.
const sortedFrom = 500_000

// fill puts codes under names into the empty database through the engine: all
// are issued, and some of them swept as expired, redeemed and disabled. They
// are a day old, and those that have expired did so an hour ago.
func (d *database) fill(ctx context.Context, f filling, say *progress) (*contents, error) {
	codes := f.codes
	c := &contents{codes: codes, names: min(f.names, codes)}
	size := min(max(codes/c.names, 1), batchMax)
	n := (codes + size - 1) / size
	beside, err := d.beside(ctx)
	if err != nil {
		return nil, err
	}
	defer beside.close()
	if f.sorted {
		if err := beside.dropIndex(ctx); err != nil {
			return nil, err
		}
	}

	now := d.now()
	var toUse []redemption.NewKey
	var toDisable []int64
	say.begin("filling", "codes", codes)
	next := int64(1) // the id of the next code: they have no gaps
	epoch := int64(0)
	err = sealBatches(ctx, d.Keys(), d.actor(), now.Add(-24*time.Hour), n,
		func(number int64) redemption.IssueRequest {
			// Each time round another batch is the first, so that no name has
			// only expired codes.
			r := redemption.IssueRequest{
				Name:  nameOf((number + number/c.names) % c.names),
				Count: min(size, codes-number*size), Quota: quota,
			}
			switch at := number % batchesOf; {
			case at < f.expired:
				r.Expires = now.Add(-time.Hour)
			case at == f.expired:
				r.Expires = now.Add(30 * 24 * time.Hour)
			}
			return r
		},
		func(b batch) error {
			if err := d.Issue(ctx, b.Batch); err != nil {
				return err
			}
			epoch = b.Epoch
			expired := b.number%batchesOf < f.expired
			if expired {
				c.expired += int64(len(b.keys))
			}
			if (b.number+b.number/c.names)%c.names%10 == 3 {
				c.ofTenth += int64(len(b.keys))
			}
			if c.name == "" || b.Name == c.name {
				c.name = b.Name
				c.ofName += int64(len(b.keys))
			}
			for i := range b.keys {
				id := next + int64(i)
				switch {
				case expired:
				case id%usedEvery == 5:
					toUse = append(toUse, b.Keys[i])
				case id%disabledEvery == 10:
					toDisable = append(toDisable, id)
				default:
					if c.key == "" || id <= codes/2 {
						c.id, c.key = id, b.keys[i]
					}
				}
			}
			next += int64(len(b.keys))
			say.done(next - 1)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("filling: %w", err)
	}
	if f.sorted {
		say.begin("indexing the keys", "", 0)
		if err := beside.createIndex(ctx); err != nil {
			return nil, err
		}
	}
	if err := d.age(ctx, c, epoch, toUse, toDisable, say); err != nil {
		return nil, err
	}
	return c, beside.checkpoint(ctx)
}

// beside is a connection past the engine.
type beside interface {
	// dropIndex takes away the index of keys, and createIndex builds it again.
	dropIndex(ctx context.Context) error
	createIndex(ctx context.Context) error
	exec(ctx context.Context, text string, args ...any) error
	// checkpoint leaves no work for later.
	checkpoint(ctx context.Context) error
	close()
}

func (d *database) beside(ctx context.Context) (beside, error) {
	if d.address == "" {
		return openRaw(ctx, d.path())
	}
	return openSQL(ctx, d.address)
}

// age sweeps what has expired, redeems and disables what was chosen for it.
func (d *database) age(
	ctx context.Context, c *contents, epoch int64, toUse []redemption.NewKey, toDisable []int64, say *progress,
) error {
	say.begin("sweeping expired codes", "codes", c.expired)
	for swept := int64(0); ; {
		n, err := d.Sweep(ctx, d.now())
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("sweeping: %w", err)
		}
		if n == 0 {
			break
		}
		swept += n
		say.done(swept)
	}
	say.begin("redeeming some", "codes", int64(len(toUse)))
	if err := d.redeemAll(ctx, epoch, toUse, say); err != nil {
		return err
	}
	c.used = int64(len(toUse))
	say.begin("disabling some", "codes", int64(len(toDisable)))
	disabled := redemption.StatusDisabled
	for i, id := range toDisable {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := d.Change(ctx, redemption.Edit{
			ID: id, Change: redemption.Change{Status: &disabled}, By: d.actor(), At: d.now(),
		}); err != nil {
			return fmt.Errorf("disabling: %w", err)
		}
		say.done(int64(i + 1))
	}
	c.disabled = int64(len(toDisable))
	return nil
}

// redeemAll redeems the codes through the engine, many at once so that they
// share commits.
func (d *database) redeemAll(ctx context.Context, epoch int64, codes []redemption.NewKey, say *progress) error {
	const atOnce = 256
	by := d.actor()
	var mu sync.Mutex
	next := 0
	var failed error
	take := func() (redemption.NewKey, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == len(codes) || failed != nil || ctx.Err() != nil {
			return redemption.NewKey{}, false
		}
		next++
		say.done(int64(next))
		return codes[next-1], true
	}
	var wg sync.WaitGroup
	for range min(atOnce, len(codes)) {
		wg.Go(func() {
			for code, ok := take(); ok; code, ok = take() {
				if _, err := d.Redeem(ctx, redemption.Attempt{
					Epoch: epoch, Indexes: code.Indexes, By: by, At: d.now(),
				}); err != nil {
					mu.Lock()
					failed = fmt.Errorf("redeeming: %w", err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return failed
	}
	return ctx.Err()
}

// fresh issues n codes that can be redeemed, in full batches of the names that
// there are, and gives their keys and what the store was given.
func (d *database) fresh(
	ctx context.Context, n int64, names int64, take func(key string, code redemption.NewKey),
) error {
	err := sealBatches(ctx, d.Keys(), d.actor(), d.now(), (n+batchMax-1)/batchMax,
		func(number int64) redemption.IssueRequest {
			return redemption.IssueRequest{Name: nameOf(number % names), Count: batchMax, Quota: quota}
		},
		func(b batch) error {
			if err := d.Issue(ctx, b.Batch); err != nil {
				return err
			}
			for i, key := range b.keys {
				take(key, b.Keys[i])
			}
			return nil
		})
	if err != nil {
		return fmt.Errorf("issuing codes to redeem: %w", err)
	}
	return nil
}
