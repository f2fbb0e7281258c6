// Package keyring keeps the data keys: it seals what must be read again,
// indexes what must be found again, and holds the key of the ledger's chain.
// The data keys are random, live in the database, and are wrapped there under
// the secret, which does not. Imports: the standard library and x/crypto.
//
// A generation is one pair of keys, for sealing and for the blind index. There
// is one, but for the time of a rotation, when there are two: the newest seals
// and indexes, both open and look up. The ledger's key is apart and stays.
package keyring

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
)

var (
	// ErrWrongSecret says that none of the secrets opens the stored keys.
	ErrWrongSecret = errors.New("the secret does not open this database's keys")
	// ErrStale says that the database's keys have changed since the ring was
	// loaded. Keys.Use loads it again.
	ErrStale = errors.New("the data keys have changed")
	// ErrSealed says that sealed bytes were altered or moved.
	ErrSealed = errors.New("sealed value does not open: it was altered or moved")
)

const (
	keySize   = 32
	nonceSize = 12
	// IndexSize is the length of a blind index in bytes: HMAC-SHA-256, cut to
	// 128 bits, which keeps the index half the size and still without chance
	// collisions.
	IndexSize = 16
	// ledgerGeneration is the row of the ledger's key.
	ledgerGeneration = 0
	// staleRetries bounds how often Use loads the ring again for one call.
	staleRetries = 5
)

// Row is one wrapped key as the database holds it. Generation 0 is the
// ledger's key, the others are data keys.
type Row struct {
	Generation int64
	Wrapped    []byte
}

// Stored is the state of the keys in the database.
type Stored struct {
	// Epoch grows by one with every change to Rows.
	Epoch int64
	// Salt stretches the secret; it belongs to the database and never changes.
	Salt []byte
	Rows []Row
}

// Ring is the unwrapped keys of one epoch. It is immutable and safe for
// concurrent use.
type Ring struct {
	epoch       int64
	generations []generation // newest first
	ledger      []byte
}

type generation struct {
	number int64
	aead   cipher.AEAD
	index  []byte
}

// Epoch is the state of the database that the ring was loaded from.
func (r *Ring) Epoch() int64 { return r.epoch }

// Newest is the number of the generation that seals and indexes.
func (r *Ring) Newest() int64 { return r.generations[0].number }

// Generations is how many are live: 1, or 2 during a rotation.
func (r *Ring) Generations() int { return len(r.generations) }

// LedgerKey is the key of the ledger's chain.
func (r *Ring) LedgerKey() []byte { return r.ledger }

// Seal encrypts plain under the newest generation. The context says what it
// is and where it belongs; it opens only with the same. The result begins with
// the generation's number in 4 bytes.
func (r *Ring) Seal(context, plain []byte) []byte {
	g := &r.generations[0]
	out := make([]byte, 4+nonceSize, 4+nonceSize+len(plain)+g.aead.Overhead())
	binary.BigEndian.PutUint32(out, uint32(g.number)) //nolint:gosec // G115: generations count rotations
	_, _ = rand.Read(out[4:])                         // never fails
	return g.aead.Seal(out, out[4:4+nonceSize], plain, context)
}

// Open decrypts what Seal made. It fails with ErrStale if the generation is
// not in this ring and with ErrSealed if the bytes or the context are not what
// was sealed.
func (r *Ring) Open(context, sealed []byte) ([]byte, error) {
	if len(sealed) < 4+nonceSize {
		return nil, ErrSealed
	}
	number := SealedUnder(sealed)
	for i := range r.generations {
		if g := &r.generations[i]; g.number == number {
			plain, err := g.aead.Open(nil, sealed[4:4+nonceSize], sealed[4+nonceSize:], context)
			if err != nil {
				return nil, ErrSealed
			}
			return plain, nil
		}
	}
	return nil, ErrStale
}

// SealedUnder is the generation that sealed was made with; 0 if it is too
// short to be sealed at all.
func SealedUnder(sealed []byte) int64 {
	if len(sealed) < 4 {
		return 0
	}
	return int64(binary.BigEndian.Uint32(sealed))
}

// Index is the blind index of text under the newest generation.
func (r *Ring) Index(text string) []byte { return r.generations[0].blind(text) }

// Indexes are the blind indexes of text under each live generation, newest
// first.
func (r *Ring) Indexes(text string) [][]byte {
	out := make([][]byte, len(r.generations))
	for i := range r.generations {
		out[i] = r.generations[i].blind(text)
	}
	return out
}

func (g *generation) blind(text string) []byte {
	m := hmac.New(sha256.New, g.index)
	m.Write([]byte(text))
	return m.Sum(nil)[:IndexSize]
}

// Fingerprint stands for bytes that are to be recognised and not kept: their
// HMAC under a key that no rotation changes. A plain hash would let who copies
// the database try what they may have been.
func (r *Ring) Fingerprint(b []byte) [sha256.Size]byte {
	m := hmac.New(sha256.New, r.ledger)
	m.Write([]byte("scrip fingerprint 1\x00"))
	m.Write(b)
	return [sha256.Size]byte(m.Sum(nil))
}

// Keys holds the ring of a running program and follows the database's.
type Keys struct {
	secrets []string
	load    func(context.Context) (Stored, error)

	ring atomic.Pointer[Ring]
	mu   sync.Mutex        // one unlock at a time, and guards keks
	keks map[string][]byte // by salt and secret: stretching is slow on purpose
}

// NewKeys returns Keys that wrap under the first of the secrets and unwrap
// with any of them. Load reads the stored state. Nothing is read before the
// first use.
func NewKeys(secrets []string, load func(context.Context) (Stored, error)) *Keys {
	return &Keys{secrets: secrets, load: load, keks: map[string][]byte{}}
}

// Use calls do with the current ring, and again with a fresh one each time it
// fails with ErrStale, a few times at most.
func (k *Keys) Use(ctx context.Context, do func(*Ring) error) error {
	r := k.ring.Load()
	for try := 0; ; try++ {
		if r == nil {
			var err error
			if r, err = k.Reload(ctx); err != nil {
				return err
			}
		}
		err := do(r)
		if !errors.Is(err, ErrStale) || try == staleRetries {
			return err
		}
		r = nil
	}
}

// LedgerKey is the ledger's key, which stays when the data keys are changed.
func (k *Keys) LedgerKey(ctx context.Context) (key []byte, err error) {
	err = k.Use(ctx, func(r *Ring) error {
		key = r.LedgerKey()
		return nil
	})
	return key, err
}

// Reload reads the stored keys and unwraps them. It fails with ErrWrongSecret
// if none of the secrets does.
func (k *Keys) Reload(ctx context.Context) (*Ring, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	stored, err := k.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading the data keys: %w", err)
	}
	if r := k.ring.Load(); r != nil && r.epoch == stored.Epoch {
		return r, nil
	}
	r, err := k.unlock(stored)
	if err != nil {
		return nil, err
	}
	k.ring.Store(r)
	return r, nil
}

// Create makes the first keys of an empty database: the ledger's, which it
// returns in the clear too, and one generation.
func (k *Keys) Create() (stored Stored, ledger []byte) {
	salt, ledger := random(keySize), random(keySize)
	k.mu.Lock()
	defer k.mu.Unlock()
	return Stored{Epoch: 1, Salt: salt, Rows: []Row{
		k.wrap(salt, ledgerGeneration, ledger),
		k.wrap(salt, 1, random(2*keySize)),
	}}, ledger
}

// Rotation returns what a rotation adds to the stored keys: the next generation.
func (k *Keys) Rotation(stored Stored) (next Row, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r, err := k.unlock(stored)
	if err != nil {
		return Row{}, err
	}
	return k.wrap(stored.Salt, r.Newest()+1, random(2*keySize)), nil
}

// Rewrap returns those of the stored rows that the first secret alone does not
// open, wrapped under it: once they are stored the other secrets can go.
func (k *Keys) Rewrap(stored Stored) (rows []Row, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, row := range stored.Rows {
		if _, err := k.unwrap(stored.Salt, row, k.secrets[:1]); err == nil {
			continue
		}
		plain, err := k.unwrap(stored.Salt, row, k.secrets)
		if err != nil {
			return nil, err
		}
		rows = append(rows, k.wrap(stored.Salt, row.Generation, plain))
	}
	return rows, nil
}

func (k *Keys) unlock(s Stored) (*Ring, error) {
	r := &Ring{epoch: s.Epoch}
	for _, row := range s.Rows {
		plain, err := k.unwrap(s.Salt, row, k.secrets)
		if err != nil {
			return nil, err
		}
		if row.Generation == ledgerGeneration {
			r.ledger = plain
			continue
		}
		if len(plain) != 2*keySize {
			return nil, fmt.Errorf("data key %d: %w", row.Generation, ErrSealed)
		}
		g := generation{number: row.Generation, aead: newAEAD(plain[:keySize]), index: plain[keySize:]}
		at := 0
		for at < len(r.generations) && r.generations[at].number > g.number {
			at++
		}
		r.generations = append(r.generations[:at], append([]generation{g}, r.generations[at:]...)...)
	}
	if r.ledger == nil || len(r.generations) == 0 {
		return nil, errors.New("the database holds no complete set of data keys")
	}
	return r, nil
}

func (k *Keys) wrap(salt []byte, number int64, plain []byte) Row {
	aead := newAEAD(k.kek(salt, k.secrets[0]))
	nonce := random(nonceSize)
	return Row{Generation: number, Wrapped: aead.Seal(nonce, nonce, plain, wrapContext(number))}
}

func (k *Keys) unwrap(salt []byte, row Row, secrets []string) ([]byte, error) {
	if len(row.Wrapped) < nonceSize {
		return nil, fmt.Errorf("data key %d: %w", row.Generation, ErrSealed)
	}
	for _, secret := range secrets {
		aead := newAEAD(k.kek(salt, secret))
		plain, err := aead.Open(nil, row.Wrapped[:nonceSize], row.Wrapped[nonceSize:], wrapContext(row.Generation))
		if err == nil {
			return plain, nil
		}
	}
	return nil, ErrWrongSecret
}

func wrapContext(number int64) []byte { return fmt.Appendf(nil, "scrip data key %d", number) }

// kek stretches a secret into the key that wraps data keys: argon2id, since a
// secret that a person chose may be weak. RFC 9106, second recommended option
// scaled to 19 MiB, as for passwords.
func (k *Keys) kek(salt []byte, secret string) []byte {
	id := string(salt) + "\x00" + secret
	if _, ok := k.keks[id]; !ok {
		k.keks[id] = argon2.IDKey([]byte(secret), salt, 2, 19*1024, 1, keySize)
	}
	return k.keks[id]
}

func newAEAD(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key's length is ours
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES always fits GCM
	}
	return aead
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
