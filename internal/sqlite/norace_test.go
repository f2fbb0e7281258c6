//go:build !race

package sqlite_test

import "time"

// noise is by how much a time may be off on a busy machine.
const noise = 300 * time.Microsecond
