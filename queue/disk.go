package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

const (
	// FreeNeeded is what must be free for a ledger to be started, in bytes.
	FreeNeeded = ballastSize + 2*roomNeeded
	// FastestDisk is below what a durable write takes on any storage that
	// keeps its word (an NVMe disk with capacitors: 10 to 20 µs).
	FastestDisk = 5 * time.Microsecond
)

// DiskCheck is what a disk did.
type DiskCheck struct {
	Writes             int
	Median, P99, Worst time.Duration // of one write with fdatasync
	Free               int64         // bytes
}

// CheckDisk writes to a file in dir for some time, waits for the disk after
// each write, and removes the file. It shows a disk that is full, slow, or too
// fast to be true; no program can see more of one that lies.
func CheckDisk(ctx context.Context, dir string, limit time.Duration) (c DiskCheck, err error) {
	f, err := os.CreateTemp(dir, "disk-check-*")
	if err != nil {
		return c, fmt.Errorf("checking the disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if c.Free, err = freeBytes(dir); err != nil {
		return c, fmt.Errorf("checking the disk: %w", err)
	}
	var took []time.Duration
	block := make([]byte, 4096)
	for began := time.Now(); len(took) == 0 || time.Since(began) < limit && ctx.Err() == nil; {
		block[0]++
		at := time.Now()
		if _, err := f.WriteAt(block, int64(len(took)%256)*int64(len(block))); err != nil {
			return c, fmt.Errorf("checking the disk: %w", err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return c, fmt.Errorf("checking the disk: %w", err)
		}
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	c.Writes, c.Median, c.P99, c.Worst = len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	return c, nil
}
