package queue_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
)

// onFaultyDisk appends on a disk that fails from the record after some on, as
// fault says. It gives what was acknowledged before and after, and why the
// process ended.
func onFaultyDisk(t *testing.T, fault func(changeKind) syscall.Errno, env ...string) (dir string, before, after []attendance.Stored, why string) {
	t.Helper()
	top, j, _ := mount(t)
	child := exec.Command(os.Args[0])
	child.Env = append(append(os.Environ(), childDir+"="+top), env...)
	var said bytes.Buffer
	child.Stderr = &said
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	failed := false
	j.setFault(func(kind changeKind) syscall.Errno {
		if len(before) < 20 { // guarded by j
			return 0
		}
		errno := fault(kind)
		failed = failed || errno != 0
		return errno
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var s attendance.Stored
		_, err := fmt.Sscanf(lines.Text(), "%d %s", &s.Seq, &s.Code)
		require.NoError(t, err)
		j.mu.Lock()
		if failed {
			after = append(after, s)
		} else {
			before = append(before, s)
		}
		j.mu.Unlock()
		if len(after) > 100 {
			require.NoError(t, child.Process.Kill()) // it would go on for ever
		}
	}
	_ = child.Wait()
	j.setFault(nil)
	return j.back, before, after, said.String()
}

// once fails one call of a kind and no more.
func once(kind changeKind) func(changeKind) syscall.Errno {
	done := false
	return func(k changeKind) syscall.Errno {
		if done || k != kind {
			return 0
		}
		done = true
		return syscall.EIO
	}
}

// A sync that failed once is never believed again: the kernel has dropped what
// it could not write, and the next sync says yes. Nothing more is acknowledged
// until the process has started again and read what is there. (Four writers
// wait at a time; what was acknowledged at the moment of the fault may be read
// after it.)
func TestF22SyncFailsOnceThenSaysYes(t *testing.T) {
	dir, before, after, why := onFaultyDisk(t, once(synced))
	assert.LessOrEqual(t, len(after), 4, "acknowledged after the disk failed")
	assert.Contains(t, why, queue.ErrStopped.Error())
	assert.Contains(t, why, "input/output error")
	startsWith(t, dir, append(before, after...))
}

// A store that tries the sync again goes on acknowledging: the harness sees it.
func TestF22SyncFailsOnceControl(t *testing.T) {
	_, _, after, _ := onFaultyDisk(t, once(synced), childAgain+"=1")
	assert.Greater(t, len(after), 4, "the harness would not notice a retry")
}

// A disk that answers every write with an error ends the process with that
// error, and nothing acknowledged is lost.
func TestF21DiskGivesErrors(t *testing.T) {
	for name, errno := range map[string]syscall.Errno{"input/output error": syscall.EIO, "read-only file system": syscall.EROFS} {
		t.Run(name, func(t *testing.T) {
			dir, before, after, why := onFaultyDisk(t, func(changeKind) syscall.Errno { return errno })
			assert.LessOrEqual(t, len(after), 4)
			assert.Contains(t, why, name)
			startsWith(t, dir, append(before, after...))
		})
	}
}

// A state directory that became read-only is refused at the start with a
// sentence, again and again the same and with nothing changed; writable again
// it goes on.
func TestF21ReadOnly(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"), "this test mounts a small disk and needs root")
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	entries := fill(t, dir, 5, 2)
	require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	for range 3 {
		_, err := openLedger(queuetest.Config(dir))
		assert.ErrorIs(t, err, syscall.EROFS)
	}
	require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""))
	assert.Equal(t, entries, fill(t, dir, 0, 0))
}

// startsWith opens a ledger after a fault and finds what was acknowledged.
func startsWith(t *testing.T, dir string, stored []attendance.Stored) {
	t.Helper()
	require.NotEmpty(t, stored)
	l, err := openLedger(queuetest.Config(dir))
	require.NoError(t, err)
	defer l.Close()
	assert.Zero(t, lost(t, l, stored))
	verify(t, l.Store)
}

var tornStep = flag.Int("torn-step", 787, "bytes between two truncations of TestF26TornAtEveryByte; 1 takes every byte")

// The newest file is cut at every byte of its last pages: the daemon starts,
// keeps what is left, and names what is lost.
func TestF26TornAtEveryByte(t *testing.T) {
	base := t.TempDir()
	before := fillFiles(t, base, 50)
	newest := recordFiles(t, base)[2]
	text, err := os.ReadFile(newest)
	require.NoError(t, err)
	rel, err := filepath.Rel(base, newest)
	require.NoError(t, err)
	end := len(bytes.TrimRight(text, "\x00")) // bbolt makes files longer than it needs
	pages := 4 * os.Getpagesize()
	var sum outcome
	tries := 0
	shm, err := os.MkdirTemp("/dev/shm", "rollcall-torn-*") // many small files
	require.NoError(t, err)
	defer os.RemoveAll(shm)
	for cut := end - pages; cut < end; cut += *tornStep {
		dir := filepath.Join(shm, "torn")
		require.NoError(t, os.CopyFS(dir, os.DirFS(base)))
		require.NoError(t, os.Truncate(filepath.Join(dir, rel), int64(cut)))
		o := judge(t, dir, before)
		sum.kept, sum.lost, sum.newEpoch = sum.kept+o.kept, sum.lost+o.lost, sum.newEpoch+o.newEpoch
		tries++
		require.NoError(t, os.RemoveAll(dir))
	}
	require.Positive(t, sum.lost, "no place was in use")
	t.Logf("cut at %d places of the last %d bytes: %d records kept, %d lost and named, %d new epochs", tries, pages, sum.kept, sum.lost, sum.newEpoch)
}

// Newest file and state file damaged at once: both are kept, what can be read
// stays, and the new epoch is linked to it.
func TestF27NewestFileAndStateDamaged(t *testing.T) {
	base := t.TempDir()
	before := fillFiles(t, base, 50)
	names := []string{"16 random bytes", "a zeroed page", "cut anywhere", "both metas"}
	for n := range 12 {
		name := names[n%len(names)]
		t.Run(fmt.Sprintf("%s, seed %d", name, n), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(n), 27))
			dir := filepath.Join(t.TempDir(), "state")
			require.NoError(t, os.CopyFS(dir, os.DirFS(base)))
			for _, path := range []string{recordFiles(t, dir)[2], filepath.Join(dir, "ledger", "state")} {
				text, err := os.ReadFile(path)
				require.NoError(t, err)
				if len(text) < 8192 {
					text[r.IntN(len(text))] ^= 0x55
				} else {
					text = damages[name](r, text)
				}
				require.NoError(t, os.WriteFile(path, text, 0o600))
			}
			judge(t, dir, before)
			assert.FileExists(t, filepath.Join(dir, "ledger", "state.bad"))
		})
	}
}

// A clock that jumps changes what records say of time and nothing else: every
// record is taken, in its order, and the chain verifies.
func TestT12ClockJumpsLeaveTheOrder(t *testing.T) {
	dir := t.TempDir()
	cfg := queuetest.Config(dir)
	day := time.Date(2026, 11, 21, 9, 0, 0, 0, time.FixedZone("", 8*3600))
	jumps := []time.Time{day, day.AddDate(0, 0, -1), day.AddDate(10, 0, 0), time.Unix(0, 0).UTC(), day.In(time.FixedZone("", -3*3600)), day}
	at := 0
	cfg.Stamp = func() chain.Stamp {
		at++
		return chain.Stamp{Wall: chain.NewWall(jumps[at/5%len(jumps)]), Boot: "b", UpMS: int64(1000 * at), Clock: chain.ClockSuspect}
	}
	l, err := openLedger(cfg)
	require.NoError(t, err)
	stop := queuetest.Start(t, l)
	for n := range 60 {
		s, err := l.Append(t.Context(), queuetest.Record(n))
		require.NoError(t, err, "refused at %s", jumps[at/5%len(jumps)])
		assert.EqualValues(t, n+2, s.Seq)
	}
	verify(t, l.Store)
	stop()
	l, err = openLedger(cfg)
	require.NoError(t, err)
	defer l.Close()
	var up int64
	for _, e := range queuetest.Read(t, l) {
		assert.Greater(t, e.At.UpMS, up, "record %d", e.Seq)
		up = e.At.UpMS
	}
	assert.EqualValues(t, 61, l.Status().Last)
}

// The newest file with one bit changed, at each bit that bbolt finds its way by:
// the headers of pages, where entries lie, the keys of branch pages. What bbolt
// finds wrong with them when it opens a file, it says in a goroutine of its own
// or goes on after, where nothing can catch it: our own check must find it first.
func TestF25EveryBitThatLeadsTheWay(t *testing.T) {
	base := t.TempDir()
	before := fillFiles(t, base, 50)
	newest := recordFiles(t, base)[2]
	text, err := os.ReadFile(newest)
	require.NoError(t, err)
	rel, err := filepath.Rel(base, newest)
	require.NoError(t, err)
	shm, err := os.MkdirTemp("/dev/shm", "rollcall-bits-*") // many small files
	require.NoError(t, err)
	defer os.RemoveAll(shm)
	var sum outcome
	bits := waymarks(text)
	step := max(1, *tornStep/8)
	tries := 0
	for n := 0; n < len(bits); n += step {
		dir := filepath.Join(shm, "bits")
		require.NoError(t, os.CopyFS(dir, os.DirFS(base)))
		spoilt := bytes.Clone(text)
		spoilt[bits[n]/8] ^= 1 << (bits[n] % 8)
		require.NoError(t, os.WriteFile(filepath.Join(dir, rel), spoilt, 0o600))
		o := judge(t, dir, before)
		sum.kept, sum.lost, sum.unchanged, sum.newEpoch = sum.kept+o.kept, sum.lost+o.lost, sum.unchanged+o.unchanged, sum.newEpoch+o.newEpoch
		if tries++; tries%2000 == 0 {
			t.Logf("%d of %d bits", tries, (len(bits)+step-1)/step)
		}
		require.NoError(t, os.RemoveAll(dir))
	}
	require.Positive(t, sum.newEpoch, "no place mattered")
	t.Logf("%d of %d bits: %d records kept, %d lost and named, %d new epochs", tries, len(bits), sum.kept, sum.lost, sum.newEpoch)
}

// waymarks gives the bits of a bbolt file by which its pages are found.
func waymarks(text []byte) (bits []int) {
	size := os.Getpagesize()
	for page := 2 * size; page+size <= len(text); page += size {
		header := text[page:]
		if bytes.Equal(header[:16], make([]byte, 16)) {
			continue // not in use
		}
		marks := 16
		if kind, count := binary.LittleEndian.Uint16(header[8:]), int(binary.LittleEndian.Uint16(header[10:])); kind == 2 {
			marks += 16 * count // a leaf: where each entry lies
		} else if kind == 1 {
			marks += 25 * count // a branch: and the keys, of at most 9 bytes
		}
		for bit := range 8 * marks {
			bits = append(bits, 8*page+bit)
		}
	}
	return bits
}

// What another process says of the last file decides, after our own check: a file
// that ended it is salvaged, and one that it could not be started for is opened.
func TestF25AnotherProcessIsAskedFirst(t *testing.T) {
	for _, tc := range []struct {
		name     string
		says     error
		setAside int
	}{
		{"it opens", nil, 0},
		{"it ends", fmt.Errorf("%w: exit status 2", queue.ErrDamaged), 1},
		{"it cannot be started", errors.New("no such program"), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			before := fillFiles(t, dir, 50)
			newest := recordFiles(t, dir)[2]
			var asked []string
			cfg := queuetest.Config(dir)
			cfg.Probe = func(path string) error {
				if asked = append(asked, path); len(asked) > 1 {
					return nil // the file that was put in its place
				}
				return tc.says
			}
			l, err := openLedger(cfg)
			require.NoError(t, err)
			defer l.Close()
			assert.Equal(t, newest, asked[0])
			assert.Len(t, asked, 1+tc.setAside)
			assert.Equal(t, tc.setAside, l.Status().SetAside)
			assert.Equal(t, before, queuetest.Read(t, l), "whole, in the same epoch")
		})
	}
}
