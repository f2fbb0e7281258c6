// Package web is what HTTP for programs and HTTP for people share: who asks, in
// which language, and the words and status of every refusal. Imports: refusal,
// x/text and the standard library.
package web

import (
	"crypto/rand"
	"encoding/hex"
)

// RequestID makes the name of a request in the log: 64 random bits, in 16
// characters of 0-9a-f.
func RequestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
