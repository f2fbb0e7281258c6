package account

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/scrip-codes/scrip/internal/refusal"
)

// Bounds of a password, in characters. The upper one keeps a request from making
// argon2id read a megabyte.
const (
	PasswordMin = 8
	PasswordMax = 128
)

// Argon2id parameters: 19 MiB, 2 passes, one lane; about 30 ms.
const (
	argonMemory = 19 * 1024
	argonPasses = 2
	argonLanes  = 1
	argonKey    = 32
	argonSalt   = 16
)

// placesAtOnce bounds argon2id's memory.
const placesAtOnce = 2

// places lets in a few at once, with a short queue before them.
type places struct {
	running chan struct{}
	waiting chan struct{}
}

func newPlaces() *places {
	return &places{running: make(chan struct{}, placesAtOnce), waiting: make(chan struct{}, 32)}
}

// hasher computes argon2id in its places.
type hasher struct{ *places }

func newHasher() *hasher { return &hasher{newPlaces()} }

// enter waits for one of the places; leave gives it back. With the queue full
// it refuses with refusal.TooBusy.
func (p *places) enter(ctx context.Context) (leave func(), err error) {
	select {
	case p.waiting <- struct{}{}:
	default:
		return nil, refusal.Later(refusal.TooBusy, time.Second)
	}
	defer func() { <-p.waiting }()
	select {
	case p.running <- struct{}{}:
		return func() { <-p.running }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// checkPassword refuses, with refusal.AccountPassword, what may not be a password.
func checkPassword(password string) error {
	n := utf8.RuneCountInString(password)
	if !utf8.ValidString(password) || n < PasswordMin || n > PasswordMax {
		return refusal.New(refusal.AccountPassword)
	}
	return nil
}

// hash returns the password's hash in the usual text form. It refuses as
// checkPassword does, and as enter.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails
	key := argon2.IDKey([]byte(password), salt, argonPasses, argonMemory, argonLanes, argonKey)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonPasses, argonLanes,
		b64.EncodeToString(salt), b64.EncodeToString(key)), nil
}

// matches reports whether the password has that hash. An empty hash matches
// nothing, and takes as long to say so.
func matches(hash, password string) bool {
	if len(password) > utf8.UTFMax*PasswordMax {
		return false
	}
	salt, want, ok := parseHash(hash)
	if !ok {
		salt, want = make([]byte, argonSalt), make([]byte, argonKey)
	}
	got := argon2.IDKey([]byte(password), salt, argonPasses, argonMemory, argonLanes, argonKey)
	return subtle.ConstantTimeCompare(got, want) == 1 && ok
}

func parseHash(hash string) (salt, key []byte, ok bool) {
	prefix := fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, argonMemory, argonPasses, argonLanes)
	rest, ok := strings.CutPrefix(hash, prefix)
	if !ok {
		return nil, nil, false
	}
	s, k, ok := strings.Cut(rest, "$")
	if !ok {
		return nil, nil, false
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(s)
	key, err2 := base64.RawStdEncoding.DecodeString(k)
	return salt, key, err1 == nil && err2 == nil && len(key) == argonKey
}
