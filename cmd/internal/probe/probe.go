// Package probe has bbolt open a ledger file in a process of its own, before the
// process that needs it does. What bbolt finds wrong in a file it may say by
// ending the process; then only the other one ends.
//
// A program that hands [File] to a ledger calls [Main] first in its main.
package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"rollcall/queue"
)

// argument tells a program that it was started by File.
const argument = "-probe-ledger-file"

// limit is how long opening a file may take: 8 MiB, on a slow disk, while the
// machine starts. After it the file counts as damaged, and what is in it is kept
// as what is in a damaged one.
const limit = 30 * time.Second

// Main returns, unless File started this process: then it opens the file and ends
// the process.
func Main() {
	if len(os.Args) != 3 || os.Args[1] != argument {
		return
	}
	if err := queue.Probe(os.Args[2]); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// File starts this program again to open a ledger file. The error wraps
// [queue.ErrDamaged] if that process did not end well; any other says that it
// could not be started, and nothing of the file.
func File(path string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("probing %s: %w", path, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err = exec.CommandContext(ctx, self, argument, path).Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("%w: a process that opened it ended with %s", queue.ErrDamaged, ended)
	}
	if err != nil {
		return fmt.Errorf("probing %s: %w", path, err)
	}
	return nil
}
