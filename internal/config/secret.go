package config

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "redacted"

// Redacted holds a value that must not be seen: however it is printed, encoded
// or logged, it says "redacted". It keeps a pointer so that even printing a
// struct around it that fmt cannot ask shows an address only.
type Redacted[T any] struct{ value *T }

// Secret is a text that must not be seen.
type Secret = Redacted[string]

// Redact hides a value.
func Redact[T any](value T) Redacted[T] { return Redacted[T]{&value} }

// NewSecret hides a text.
func NewSecret(text string) Secret { return Redact(text) }

// Reveal returns the value itself; the zero one if there is none.
func (r Redacted[T]) Reveal() T {
	if r.value == nil {
		var zero T
		return zero
	}
	return *r.value
}

// String says "redacted".
func (Redacted[T]) String() string { return redacted }

// GoString says "redacted".
func (Redacted[T]) GoString() string { return redacted }

// Format says "redacted", whatever the verb.
func (Redacted[T]) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText says "redacted", in JSON and elsewhere.
func (Redacted[T]) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue says "redacted".
func (Redacted[T]) LogValue() slog.Value { return slog.StringValue(redacted) }

// UnmarshalText hides a text that a flag gave.
func (r *Redacted[T]) UnmarshalText(text []byte) error {
	v, ok := any(string(text)).(T)
	if !ok {
		return fmt.Errorf("%T is not read from text", v)
	}
	r.value = &v
	return nil
}
