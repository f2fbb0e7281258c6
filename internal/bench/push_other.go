//go:build !linux

package bench

// openFilesMax is how many files, and connections, a process may have open; here
// nobody knows.
func openFilesMax() int { return 0 }
