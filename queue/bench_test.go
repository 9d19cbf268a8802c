package queue_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
)

var backlogRecords = flag.Int("backlog", 20_000, "records that BenchmarkDrained and BenchmarkRestart fill a ledger with; the goals are for 1,000,000")

// openBench opens a ledger that never is full and says nothing.
func openBench(b *testing.B, dir string) *queue.Ledger {
	b.Helper()
	cfg := queuetest.Config(dir)
	cfg.Capacity, cfg.Retention = 10_000_000, time.Hour
	l, err := queue.Open(cfg, slog.New(slog.DiscardHandler))
	require.NoError(b, err)
	return l
}

// appendMany appends so many records from so many writers, and gives how long
// each waited.
func appendMany(b *testing.B, l *queue.Ledger, records, writers int) []time.Duration {
	b.Helper()
	waits := make([]time.Duration, records)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := w; n < records; n += writers {
				began := time.Now()
				if _, err := l.Append(context.Background(), queuetest.Record(n)); err != nil {
					b.Error(err)
				}
				waits[n] = time.Since(began)
			}
		})
	}
	wg.Wait()
	return waits
}

// BenchmarkAppend asks how long a check-in waits for the disk: p50 and p99 of
// one append, and the rate against a loop that appends as many bytes to a file
// and calls fdatasync. The two take turns on one disk.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			dir := b.TempDir()
			l := openBench(b, dir)
			defer queuetest.Start(b, l)()
			raw, err := os.Create(filepath.Join(dir, "raw"))
			require.NoError(b, err)
			defer raw.Close()
			const rawRecords = 50
			records := rawRecords * writers
			var waits []time.Duration
			var rawTook, took time.Duration
			for b.Loop() {
				began := time.Now()
				appendRaw(b, raw, rawRecords)
				rawTook += time.Since(began)
				began = time.Now()
				waits = append(waits, appendMany(b, l, records, writers)...)
				took += time.Since(began)
			}
			rate := float64(b.N*records) / took.Seconds()
			slices.Sort(waits)
			b.ReportMetric(float64(waits[len(waits)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(rate, "records/s")
			b.ReportMetric(rate/(float64(b.N*rawRecords)/rawTook.Seconds()), "x-raw")
		})
	}
}

// appendRaw is the plainest durable log.
func appendRaw(b *testing.B, f *os.File, n int) {
	line := make([]byte, 400)
	for range n {
		_, err := f.Write(line)
		require.NoError(b, err)
		require.NoError(b, syscall.Fdatasync(int(f.Fd())))
	}
}

// BenchmarkDrained asks what is left of a backlog that was sent and let go: how
// much one commit then writes to the device, the file system's own journal
// included, and how much disk stays. The control is the same in one plain bbolt
// file, which deletes inside it.
func BenchmarkDrained(b *testing.B) {
	b.Run("ledger", func(b *testing.B) {
		d := newDevice(b)
		l := openBench(b, d.dir)
		defer d.detach()
		defer queuetest.Start(b, l)()
		one := func(n int) { appendMany(b, l, n, 1) }
		one(1)
		fresh := d.perCommit(one)
		appendMany(b, l, *backlogRecords, 64)
		drain(b, l)
		for b.Loop() {
			b.ReportMetric(fresh/1000, "kB/commit-fresh")
			b.ReportMetric(d.perCommit(one)/1000, "kB/commit-drained")
			b.ReportMetric(diskUse(b, filepath.Join(d.dir, "ledger"))/(1<<20), "MiB-left")
		}
	})
	b.Run("control: plain bbolt", func(b *testing.B) {
		d := newDevice(b)
		defer d.detach()
		db, err := bbolt.Open(filepath.Join(d.dir, "plain"), 0o600, nil)
		require.NoError(b, err)
		defer db.Close()
		next := plainFilled(b, db, *backlogRecords)
		for b.Loop() {
			b.ReportMetric(d.perCommit(func(n int) {
				for range n {
					next++
					require.NoError(b, db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("r")).Put(plainKey(next), make([]byte, 400)) }))
				}
			})/1000, "kB/commit-drained")
			b.ReportMetric(diskUse(b, d.dir)/(1<<20), "MiB-left")
		}
	})
}

// blockDevice is an ext4 on a loop device of its own: it counts what is written
// to it. (What a process writes, /proc/self/io, counts whole folios of the page
// cache and is far too much.)
type blockDevice struct {
	b         *testing.B
	dir, loop string
}

func newDevice(b *testing.B) blockDevice {
	b.Helper()
	d := blockDevice{b: b, dir: b.TempDir()}
	disk := filepath.Join(b.TempDir(), "disk")
	makeExt4(b, disk, 8<<30)
	d.loop = tool(b, "losetup", "--find", "--show", disk)
	require.NoError(b, syscall.Mount(d.loop, d.dir, "ext4", 0, ""))
	return d
}

func (d blockDevice) detach() {
	require.NoError(d.b, syscall.Unmount(d.dir, 0))
	tool(d.b, "losetup", "--detach", d.loop)
}

// written is how many bytes were written to the device
// (Documentation/block/stat.rst: write sectors, of 512 bytes).
func (d blockDevice) written() float64 {
	top, err := os.Open(d.dir)
	require.NoError(d.b, err)
	defer top.Close()
	require.NoError(d.b, unix.Syncfs(int(top.Fd())))
	text, err := os.ReadFile("/sys/block/" + filepath.Base(d.loop) + "/stat")
	require.NoError(d.b, err)
	sectors, err := strconv.ParseFloat(strings.Fields(string(text))[6], 64)
	require.NoError(d.b, err)
	return sectors * 512
}

// perCommit is what one of a thousand commits writes.
func (d blockDevice) perCommit(commit func(n int)) float64 {
	const n = 1000
	before := d.written()
	commit(n)
	return (d.written() - before) / n
}

// drain sends everything, and lets go all but the last files: the centre's
// clock goes on by two hours.
func drain(b *testing.B, l *queue.Ledger) {
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	receipt := func(log chain.LogID, seq chain.Seq, hash chain.Hash) {
		jws, err := chain.Sign(queuetest.CentreKey, chain.PurposeReceipt, chain.Receipt{Log: log, Seq: seq, Hash: hash, At: chain.NewWall(at)})
		require.NoError(b, err)
		_, err = l.Receipt([]byte(jws))
		require.NoError(b, err)
	}
	log, last, _ := l.Marks()
	for after := chain.Seq(0); after < last; {
		payload, upTo, err := l.Batch(after, chain.MaxBatchRecords, chain.MaxBatchBytes)
		require.NoError(b, err)
		batch, err := chain.ParseBatch(payload)
		require.NoError(b, err)
		if after = upTo; after == last || after%16 == 0 { // a receipt is cumulative
			receipt(log, after, batch.LastHash())
		}
	}
	appendMany(b, l, 1, 1)
	at = at.Add(2 * time.Hour)
	end := l.End()
	receipt(end.Log, end.Seq, end.Hash)
	require.NoError(b, l.LetGo())
}

func plainKey(n int) []byte { return fmt.Appendf(nil, "%020d", n) }

// plainFilled puts records into a bucket and deletes them, from the first on.
func plainFilled(b *testing.B, db *bbolt.DB, records int) (next int) {
	const batch = 128
	for ; next < records; next += batch {
		require.NoError(b, db.Update(func(tx *bbolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte("r"))
			for i := range batch {
				if err == nil {
					err = bucket.Put(plainKey(next+i), make([]byte, 400))
				}
			}
			return err
		}))
	}
	for n := 0; n < next; n += batch {
		require.NoError(b, db.Update(func(tx *bbolt.Tx) (err error) {
			for i := range batch {
				if err == nil {
					err = tx.Bucket([]byte("r")).Delete(plainKey(n + i))
				}
			}
			return err
		}))
	}
	return next
}

// diskUse is what files take on the disk, but for the ballast.
func diskUse(b *testing.B, dir string) (total float64) {
	require.NoError(b, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "ballast" {
			return err
		}
		var st syscall.Stat_t
		err = syscall.Stat(path, &st)
		total += float64(st.Blocks * 512)
		return err
	}))
	return total
}

// BenchmarkRestart asks how long a terminal with a backlog takes to open its
// ledger, and how much memory the process then has. The control opens one that
// is empty.
func BenchmarkRestart(b *testing.B) {
	for _, tc := range []struct {
		name    string
		records int
	}{{"backlog", *backlogRecords}, {"control: empty", 0}} {
		b.Run(tc.name, func(b *testing.B) {
			dir := b.TempDir()
			l := openBench(b, dir)
			stop := queuetest.Start(b, l)
			appendMany(b, l, tc.records, 64)
			stop()
			var took, cpu, most float64
			for b.Loop() {
				child := exec.Command(os.Args[0])
				child.Env = append(os.Environ(), childOpen+"="+dir)
				out, err := child.Output()
				require.NoError(b, err)
				var ms, mb float64
				_, err = fmt.Fscan(bytes.NewReader(out), &ms, &mb)
				require.NoError(b, err)
				took, most = took+ms, max(most, mb)
				cpu += (child.ProcessState.UserTime() + child.ProcessState.SystemTime()).Seconds() * 1000
			}
			b.ReportMetric(took/float64(b.N), "ms-to-open")
			b.ReportMetric(cpu/float64(b.N), "ms-CPU")
			b.ReportMetric(most, "MB-RSS")
		})
	}
}

// A test process that finds this variable opens the ledger in the directory it
// names and says how many ms that took and how many MB the process has.
const childOpen = "ROLLCALL_TEST_OPEN"

func openAndTell(dir string) error {
	cfg := queuetest.Config(dir)
	cfg.Capacity = 10_000_000
	began := time.Now()
	l, err := queue.Open(cfg, slog.New(slog.DiscardHandler))
	took := time.Since(began)
	if err != nil {
		return err
	}
	defer l.Close()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kB, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	fmt.Println(took.Seconds()*1000, kB/1000)
	return err
}
