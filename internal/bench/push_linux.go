package bench

import "syscall"

// openFilesMax is how many files, and connections, a process may have open. Go
// raises its own limit to that by itself. It is 0 where nobody knows.
func openFilesMax() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	return int(min(l.Max, 1<<30))
}
