package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// defaultMemoryMB is three times what the default set needs with a camera on.
const defaultMemoryMB = 600

// setrlimit is the system's; tests, which run in the process that they would
// bound, give another.
var setrlimit = unix.Setrlimit

// limit bounds this process: a picture or a stream that asks for more memory
// than megabytes gets an error or ends the worker, not the terminal; and a
// crash leaves no core file, which would hold faces.
//
// The limit is on data (RLIMIT_DATA), not on address space (RLIMIT_AS): the
// worker reserves two gigabytes of addresses that it never touches, so that a
// limit on them would have to be too wide to help (docs/decisions/15).
func limit(megabytes int) error {
	for what, n := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_DATA: uint64(megabytes) << 20} {
		if err := setrlimit(what, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("limiting memory to %d MB: %w", megabytes, err)
		}
	}
	return nil
}
