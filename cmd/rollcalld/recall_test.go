package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
)

// backlog stores check-ins that no centre receives, as the daemon of a state
// directory would.
func backlog(t testing.TB, state string, n int) {
	t.Helper()
	keys, err := device.OpenKeys(filepath.Join(state, "keys"))
	require.NoError(t, err)
	clock, err := device.SystemClock(time.UTC)
	require.NoError(t, err)
	l, err := queue.Open(queue.Config{
		Dir: state, Capacity: 10_000_000, Terminal: "t-1", Key: keys.Ledger(), ReceiptKey: keys.Ledger().Public(), Stamp: clock.Stamp, Software: "test",
	}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	var writers sync.WaitGroup
	const at = 64
	for w := range at {
		writers.Go(func() {
			for i := w; i < n; i += at {
				_, err := l.Append(ctx, attendance.NewRecord(attendance.TypeCheckin, attendance.CheckinBody{
					Trainee: attendance.TraineeID(fmt.Sprintf("p-%03d", i%40)), Class: "c-1", Session: attendance.SessionID(fmt.Sprintf("s-%06d", i/40)),
					Decision: attendance.OnTime, Tapped: "2026-11-21T09:07:01.870+08:00",
				}))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	stop()
	require.NoError(t, <-ended)
	require.NoError(t, l.Close())
}

// recalled gives what a start knows, and how much it had to read for it.
func recalled(t *testing.T, state string) (book *attendance.Book, seen chain.Link) {
	t.Helper()
	l, err := queue.OpenReadOnly(state)
	require.NoError(t, err)
	defer l.Close()
	d := &daemon{log: slog.New(slog.DiscardHandler), cfg: config{State: state}, ledger: &queue.Ledger{Store: l}}
	require.NoError(t, d.recallBook())
	return d.book, d.booked
}

// A start reads the records after those that the book was written down with,
// and knows the same as one that reads all. A book that is damaged, or not of
// this ledger, is not believed.
func TestBookIsWrittenDownAndRecalled(t *testing.T) {
	t.Parallel()
	file, state := admitted(t)
	backlog(t, state, bookEvery+10)
	require.NoError(t, start(t, file, state)())
	name := filepath.Join(state, bookName)
	require.FileExists(t, name)
	backlog(t, state, 50) // of sessions that the book knows: each a second check-in

	book, seen := recalled(t, state)
	assert.EqualValues(t, bookEvery+11, seen.Seq)
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	for what, spoil := range map[string]func() error{
		"a byte changed":    func() error { return os.WriteFile(name, append(text[:len(text)-9:len(text)-9], "xxxxxxxxx"...), 0o600) },
		"cut short":         func() error { return os.WriteFile(name, text[:40], 0o600) },
		"of another ledger": func() error { return saveBook(name, chain.Link{Log: seen.Log, Seq: 3, Hash: chain.Hash{1}}, nil) },
		"not a book":        func() error { return saveBook(name, seen, []byte("book")) },
		"gone":              func() error { return os.Remove(name) },
	} {
		require.NoError(t, spoil(), what)
		all, none := recalled(t, state)
		assert.Equal(t, chain.Link{}, none, what)
		assert.Equal(t, all, book, what)
	}
}

var restartRecords = flag.Int("restart-records", 20_000, "records that wait for the centre in BenchmarkColdRestart")

// How long does a daemon that was killed take until it can store a check-in
// again, with so many records unsent, and how much memory has it then? The
// program is the daemon as it is shipped. The
// controls are the same with an empty ledger and without the book, in the same
// run.
func BenchmarkColdRestart(b *testing.B) {
	shipped := filepath.Join(b.TempDir(), "rollcalld")
	out, err := exec.Command("go", "build", "-trimpath", "-o", shipped, ".").CombinedOutput()
	require.NoError(b, err, "%s", out)
	file, state := admitted(b)
	text, err := os.ReadFile(file)
	require.NoError(b, err)
	require.NoError(b, os.WriteFile(file, append(text, "[ledger]\ncapacity = 10_000_000\n"...), 0o600))
	known := 0 // records that the book must have seen
	measure := func(name string, prepare func()) {
		restarted(b, shipped, file, state, known) // makes the ledger, or writes the book down
		b.Run(name, func(b *testing.B) {
			var took time.Duration
			var most float64
			for b.Loop() {
				prepare()
				one, rss := restarted(b, shipped, file, state, known)
				took, most = took+one, max(most, rss)
			}
			b.ReportMetric(float64(took.Milliseconds())/float64(b.N), "ms-to-ready")
			b.ReportMetric(most, "MB-RSS")
		})
	}
	measure("control: an empty ledger", func() {})
	backlog(b, state, *restartRecords)
	known = max(0, *restartRecords-bookEvery)
	measure("with the book", func() {})
	measure("control: the whole ledger", func() { require.NoError(b, os.Remove(filepath.Join(state, bookName))) })
}

// restarted starts the daemon, waits until it is ready and has its book, and
// kills it.
func restarted(b *testing.B, shipped, file, state string, known int) (took time.Duration, MB float64) {
	b.Helper()
	began := time.Now()
	p, said := exec.Command(shipped, "-config", file), &bytes.Buffer{}
	p.Stderr = said
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(b, p.Start())
	client := control.NewClient(state)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for took == 0 {
		<-tick.C
		if status, err := client.Status(b.Context()); err == nil && status.Health.Ready {
			took = time.Since(began)
		}
		require.Less(b, time.Since(began), 10*time.Minute, "%s", said)
	}
	MB = memoryOf(b, p.Process.Pid)
	require.Eventually(b, func() bool {
		_, seen, err := loadBook(filepath.Join(state, bookName))
		return err == nil && int(seen.Seq) >= known
	}, time.Minute, time.Millisecond)
	require.NoError(b, p.Process.Signal(syscall.SIGKILL))
	_ = p.Wait()
	return took, MB
}

// memoryOf is the memory that a process has, in MB (proc(5), VmRSS).
func memoryOf(b *testing.B, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(b, err)
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kB, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	require.NoError(b, err)
	return kB / 1000
}
