//go:build race

package sqlite_test

import "time"

// noise is by how much a time may be off on a busy machine, where the race
// detector makes everything some ten times slower.
const noise = 5 * time.Millisecond
