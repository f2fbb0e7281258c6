package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/scrip-codes/scrip/internal/keyring"
)

// database is the stored keys of a test.
type database struct {
	mu     sync.Mutex
	stored keyring.Stored
	loads  int
	err    error
}

func (d *database) load(context.Context) (keyring.Stored, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.loads++
	s := d.stored
	s.Rows = slices.Clone(s.Rows)
	return s, d.err
}

func (d *database) set(s keyring.Stored) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stored = s
}

func newDatabase(t *testing.T) (*database, *keyring.Keys, []byte) {
	t.Helper()
	d := &database{}
	keys := keyring.NewKeys([]string{"secret"}, d.load)
	stored, ledger := keys.Create()
	d.set(stored)
	return d, keys, ledger
}

func reload(t *testing.T, keys *keyring.Keys) *keyring.Ring {
	t.Helper()
	ring, err := keys.Reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// rotated is what is stored after a rotation has begun.
func rotated(t *testing.T, keys *keyring.Keys, s keyring.Stored) keyring.Stored {
	t.Helper()
	next, err := keys.Rotation(s)
	if err != nil {
		t.Fatal(err)
	}
	return keyring.Stored{Epoch: s.Epoch + 1, Salt: s.Salt, Rows: append(slices.Clone(s.Rows), next)}
}

func TestSealAndOpen(t *testing.T) {
	_, keys, ledger := newDatabase(t)
	ring := reload(t, keys)
	if ring.Epoch() != 1 || ring.Newest() != 1 || ring.Generations() != 1 || !bytes.Equal(ring.LedgerKey(), ledger) {
		t.Errorf("the first ring has epoch %d, generation %d of %d", ring.Epoch(), ring.Newest(), ring.Generations())
	}
	for _, plain := range [][]byte{nil, {}, {0}, []byte("a key"), bytes.Repeat([]byte{7}, 100_000)} {
		sealed := ring.Seal([]byte("context"), plain)
		if n := keyring.SealedUnder(sealed); n != 1 {
			t.Errorf("sealed under %d", n)
		}
		got, err := ring.Open([]byte("context"), sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("it opens to %q, %v", got, err)
		}
		if bytes.Equal(sealed, ring.Seal([]byte("context"), plain)) {
			t.Error("the same is sealed the same twice")
		}
		if _, err := ring.Open([]byte("contexT"), sealed); !errors.Is(err, keyring.ErrSealed) {
			t.Errorf("in another context: %v", err)
		}
		for _, at := range []int{4, 10, 16, len(sealed) - 1} {
			bad := slices.Clone(sealed)
			bad[at] ^= 1
			if _, err := ring.Open([]byte("context"), bad); !errors.Is(err, keyring.ErrSealed) {
				t.Errorf("with byte %d changed: %v", at, err)
			}
		}
		bad := slices.Clone(sealed)
		bad[3] = 9
		if _, err := ring.Open([]byte("context"), bad); !errors.Is(err, keyring.ErrStale) {
			t.Errorf("of an unknown generation: %v", err)
		}
		for n := range 20 {
			if _, err := ring.Open([]byte("context"), sealed[:n]); err == nil {
				t.Errorf("%d bytes open", n)
			}
		}
	}
}

func TestIndex(t *testing.T) {
	_, keys, _ := newDatabase(t)
	ring := reload(t, keys)
	a := ring.Index("a key")
	if len(a) != keyring.IndexSize || !bytes.Equal(a, ring.Index("a key")) || bytes.Equal(a, ring.Index("a kez")) {
		t.Errorf("the index is %x", a)
	}
	if all := ring.Indexes("a key"); len(all) != 1 || !bytes.Equal(all[0], a) {
		t.Errorf("the indexes are %x", all)
	}
	_, other, _ := newDatabase(t)
	if bytes.Equal(a, reload(t, other).Index("a key")) {
		t.Error("two databases index the same")
	}
}

func TestRotation(t *testing.T) {
	d, keys, ledger := newDatabase(t)
	old := reload(t, keys)
	sealed, index := old.Seal([]byte("c"), []byte("plain")), old.Index("text")

	d.set(rotated(t, keys, d.stored))
	both := reload(t, keys)
	if both.Generations() != 2 || both.Newest() != 2 || both.Epoch() != 2 || !bytes.Equal(both.LedgerKey(), ledger) {
		t.Errorf("during a rotation: epoch %d, generation %d of %d", both.Epoch(), both.Newest(), both.Generations())
	}
	if plain, err := both.Open([]byte("c"), sealed); err != nil || string(plain) != "plain" {
		t.Errorf("the old generation: %q, %v", plain, err)
	}
	indexes := both.Indexes("text")
	if len(indexes) != 2 || !bytes.Equal(indexes[1], index) || !bytes.Equal(indexes[0], both.Index("text")) ||
		bytes.Equal(indexes[0], index) {
		t.Errorf("the indexes are %x", indexes)
	}
	fresh := both.Seal([]byte("c"), []byte("plain"))
	if _, err := old.Open([]byte("c"), fresh); !errors.Is(err, keyring.ErrStale) {
		t.Errorf("an old ring opens what is new: %v", err)
	}

	end := keyring.Stored{Epoch: 3, Salt: d.stored.Salt}
	for _, row := range d.stored.Rows {
		if row.Generation != 1 {
			end.Rows = append(end.Rows, row)
		}
	}
	d.set(end)
	last := reload(t, keys)
	if last.Generations() != 1 || last.Newest() != 2 || !bytes.Equal(last.LedgerKey(), ledger) {
		t.Errorf("after the rotation: generation %d of %d", last.Newest(), last.Generations())
	}
	if _, err := last.Open([]byte("c"), sealed); !errors.Is(err, keyring.ErrStale) {
		t.Errorf("the dropped generation: %v", err)
	}
}

func TestSecrets(t *testing.T) {
	d, _, _ := newDatabase(t)
	with := func(secrets ...string) error {
		_, err := keyring.NewKeys(secrets, d.load).Reload(t.Context())
		return err
	}
	if err := errors.Join(with("secret"), with("new", "secret"), with("secret", "new")); err != nil {
		t.Fatal(err)
	}
	if err := with("wrong"); !errors.Is(err, keyring.ErrWrongSecret) {
		t.Errorf("the wrong secret: %v", err)
	}
	both := keyring.NewKeys([]string{"new", "secret"}, d.load)
	d.set(rotated(t, both, d.stored))
	if err := with("new"); !errors.Is(err, keyring.ErrWrongSecret) {
		t.Errorf("during a rotation the new secret alone: %v", err)
	}
	rows, err := both.Rewrap(d.stored)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows are wrapped anew, want the two older ones: %v", len(rows), err)
	}
	end := d.stored
	end.Epoch++
	for _, row := range rows {
		at := slices.IndexFunc(end.Rows, func(r keyring.Row) bool { return r.Generation == row.Generation })
		end.Rows[at] = row
	}
	d.set(end)
	if err := with("new"); err != nil {
		t.Errorf("after it: %v", err)
	}
	if err := with("secret"); !errors.Is(err, keyring.ErrWrongSecret) {
		t.Errorf("after it the old secret: %v", err)
	}
	if rows, err := both.Rewrap(d.stored); err != nil || rows != nil {
		t.Errorf("wrapped anew once more: %d rows, %v", len(rows), err)
	}
}

func TestDamagedKeys(t *testing.T) {
	d, _, _ := newDatabase(t)
	whole := d.stored
	for name, damage := range map[string]func(*keyring.Stored){
		"no rows":       func(s *keyring.Stored) { s.Rows = nil },
		"no ledger key": func(s *keyring.Stored) { s.Rows = s.Rows[1:] },
		"no data key":   func(s *keyring.Stored) { s.Rows = s.Rows[:1] },
		"swapped": func(s *keyring.Stored) {
			s.Rows[0].Wrapped, s.Rows[1].Wrapped = s.Rows[1].Wrapped, s.Rows[0].Wrapped
		},
		"renumbered": func(s *keyring.Stored) { s.Rows[1].Generation = 2 },
		"cut":        func(s *keyring.Stored) { s.Rows[1].Wrapped = s.Rows[1].Wrapped[:5] },
		"empty":      func(s *keyring.Stored) { s.Rows[0].Wrapped = nil },
		"other salt": func(s *keyring.Stored) { s.Salt = slices.Repeat([]byte{1}, 32) },
	} {
		s := whole
		s.Rows = slices.Clone(whole.Rows)
		damage(&s)
		d.set(s)
		if ring, err := keyring.NewKeys([]string{"secret"}, d.load).Reload(t.Context()); err == nil {
			t.Errorf("%s: it loads %+v", name, ring)
		}
	}
}

// Use tries again with what is stored then, a few times, and passes other
// errors on.
func TestUse(t *testing.T) {
	d, keys, _ := newDatabase(t)
	var seen []int64
	err := keys.Use(t.Context(), func(r *keyring.Ring) error {
		seen = append(seen, r.Epoch())
		if len(seen) == 1 {
			d.set(rotated(t, keys, d.stored)) // another process, at this very moment
			return keyring.ErrStale
		}
		return nil
	})
	if err != nil || !slices.Equal(seen, []int64{1, 2}) {
		t.Errorf("it was called with the epochs %v, %v", seen, err)
	}

	n := 0
	if err := keys.Use(t.Context(), func(*keyring.Ring) error { n++; return keyring.ErrStale }); !errors.Is(err, keyring.ErrStale) || n > 10 {
		t.Errorf("what stays stale: %d calls, %v", n, err)
	}
	n = 0
	mine := errors.New("mine")
	if err := keys.Use(t.Context(), func(*keyring.Ring) error { n++; return mine }); !errors.Is(err, mine) || n != 1 {
		t.Errorf("another error: %d calls, %v", n, err)
	}
	loads := d.loads
	for range 5 {
		if err := keys.Use(t.Context(), func(*keyring.Ring) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if d.loads != loads {
		t.Errorf("it was loaded %d times more for nothing", d.loads-loads)
	}

	d.err = mine
	if err := keyring.NewKeys([]string{"secret"}, d.load).Use(t.Context(), func(*keyring.Ring) error {
		t.Error("called without keys")
		return nil
	}); !errors.Is(err, mine) {
		t.Errorf("loading fails: %v", err)
	}
}

func TestUseAtOnce(t *testing.T) {
	d, keys, _ := newDatabase(t)
	old := reload(t, keys)
	d.set(rotated(t, keys, d.stored))
	loads := d.loads
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := keys.Use(t.Context(), func(r *keyring.Ring) error {
				if r.Epoch() == old.Epoch() {
					return keyring.ErrStale
				}
				_, err := r.Open([]byte("c"), old.Seal([]byte("c"), []byte("x")))
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := d.loads - loads; n < 1 || n > 16 {
		t.Errorf("it was loaded %d times", n)
	}
}

func FuzzOpen(f *testing.F) {
	d := &database{}
	keys := keyring.NewKeys([]string{"secret"}, d.load)
	stored, _ := keys.Create()
	d.set(stored)
	ring, err := keys.Reload(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("context"), []byte{})
	f.Add([]byte("context"), []byte{0, 0, 0, 1})
	f.Add([]byte{}, append([]byte{0, 0, 0, 1}, make([]byte, 28)...))
	f.Add([]byte("context"), ring.Seal([]byte("context"), []byte("plain")))
	f.Fuzz(func(t *testing.T, where, sealed []byte) {
		// Only what is genuine opens: the last of the seeds.
		plain, err := ring.Open(where, sealed)
		if err == nil && string(plain) != "plain" {
			t.Errorf("%x opens to %q", sealed, plain)
		}
		if err != nil && !errors.Is(err, keyring.ErrSealed) && !errors.Is(err, keyring.ErrStale) {
			t.Errorf("%v", err)
		}
		// What is sealed here opens here, and nowhere else.
		again := ring.Seal(where, sealed)
		got, err := ring.Open(where, again)
		if err != nil || !bytes.Equal(got, sealed) {
			t.Errorf("sealed and opened: %x, %v", got, err)
		}
		if _, err := ring.Open(append(slices.Clone(where), 0), again); !errors.Is(err, keyring.ErrSealed) {
			t.Errorf("in another context: %v", err)
		}
	})
}
