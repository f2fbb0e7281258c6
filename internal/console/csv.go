package console

import "strings"

// cell is a text as a cell of a table: one that begins like a formula is kept from
// being one.
func cell(text string) string {
	if strings.ContainsAny(text[:min(1, len(text))], "=+-@\t\r") {
		return "'" + text
	}
	return text
}
