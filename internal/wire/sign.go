package wire

import (
	"crypto/md5" //nolint:gosec // the protocol's, for firmware that nobody can change
	"encoding/hex"
	"slices"
	"strings"
)

const nameSign = "sign"

// member is one name and value of a message.
type member struct{ name, value string }

func byName(a, b member) int { return strings.Compare(a.name, b.name) }

// Sign returns the signature of members, of which "sign" is not a part.
func Sign(members map[string]string, appKey string, form Signature) string {
	list := make([]member, 0, len(members))
	for name, value := range members {
		list = append(list, member{name, value})
	}
	slices.SortFunc(list, byName)
	s := sign(list, appKey, form)
	return string(s[:])
}

// signature is 32 upper-case hexadecimal digits.
type signature [2 * md5.Size]byte

// sign signs members, which are in the order of their names.
func sign(members []member, appKey string, form Signature) signature {
	text := make([]byte, 0, 1<<10) // on the stack, for all but very large messages
	for _, m := range members {
		if m.name == nameSign || m.value == "" {
			continue
		}
		if len(text) > 0 {
			text = append(text, '&')
		}
		text = append(text, m.name...)
		text = append(text, '=')
		if form == PercentEncoded {
			text = appendPercentEncoded(text, m.value)
		} else {
			text = append(text, m.value...)
		}
	}
	text = append(text, "&key="...)
	text = append(text, appKey...)

	sum := md5.Sum(text) //nolint:gosec // as above
	var s signature
	hex.Encode(s[:], sum[:])
	for i, c := range s {
		if c >= 'a' {
			s[i] = c - 'a' + 'A'
		}
	}
	return s
}

// appendPercentEncoded appends value as HTML forms write it. That is not quite
// what package net/url does: "*" stays, and "~" does not.
func appendPercentEncoded(text []byte, value string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(value) {
		switch c := value[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '*', c == '-', c == '.', c == '_':
			text = append(text, c)
		case c == ' ':
			text = append(text, '+')
		default:
			text = append(text, '%', digits[c>>4], digits[c&15])
		}
	}
	return text
}
