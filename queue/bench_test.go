package queue_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/queue/queuetest"
)

// BenchmarkAppend asks how long a check-in waits for the disk: p50 and p99 of
// one append, and the rate against a loop that appends the same bytes to a
// file and calls fdatasync, in the same run on the same disk.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			dir := b.TempDir()
			rawRate := appendRaw(b, dir)
			cfg := queuetest.Config(dir)
			cfg.Capacity = 10_000_000
			l, err := openLedger(cfg)
			require.NoError(b, err)
			defer queuetest.Start(b, l)()

			var mu sync.Mutex
			var took []time.Duration
			var wg sync.WaitGroup
			work := make(chan int)
			for range writers {
				wg.Go(func() {
					for n := range work {
						began := time.Now()
						if _, err := l.Append(context.Background(), queuetest.Record(n)); err != nil {
							b.Error(err)
						}
						mu.Lock()
						took = append(took, time.Since(began))
						mu.Unlock()
					}
				})
			}
			began := time.Now()
			for n := 0; b.Loop(); n++ {
				work <- n
			}
			close(work)
			wg.Wait()
			rate := float64(len(took)) / time.Since(began).Seconds()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(rate, "records/s")
			b.ReportMetric(rate/rawRate, "x-raw")
		})
	}
}

// appendRaw gives lines per second of the plainest durable log.
func appendRaw(b *testing.B, dir string) float64 {
	f, err := os.Create(filepath.Join(dir, "raw"))
	require.NoError(b, err)
	defer f.Close()
	line := make([]byte, 400)
	const n = 500
	began := time.Now()
	for range n {
		_, err := f.Write(line)
		require.NoError(b, err)
		require.NoError(b, syscall.Fdatasync(int(f.Fd())))
	}
	return n / time.Since(began).Seconds()
}

// BenchmarkOpen asks how long a terminal with 100,000 records takes to check
// them all when it starts.
func BenchmarkOpen(b *testing.B) {
	const records = 100_000
	dir := b.TempDir()
	cfg := queuetest.Config(dir)
	cfg.Capacity = 2 * records
	l, err := openLedger(cfg)
	require.NoError(b, err)
	stop := queuetest.Start(b, l)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for n := range records / 100 {
				if _, err := l.Append(context.Background(), queuetest.Record(n)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	stop()
	for b.Loop() {
		l, err := openLedger(cfg)
		require.NoError(b, err)
		require.NoError(b, l.Close())
	}
}
