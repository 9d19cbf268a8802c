package queue_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
)

var blockCuts = flag.Int("block-cuts", 3, "power cuts that TestF24PowerCutUnderExt4 makes")

// diskSize holds the ballast and some days.
const diskSize = 48 << 20

// A file system of files keeps promises that a real one may not, and the other
// way round. So once more a level below: the store runs on ext4, on a loop
// device, over one file that notes what ext4 writes and when it flushes. What a
// cut leaves is mounted again, journal and all.

// noteBlocks fills a ledger on such a disk.
func noteBlocks(t *testing.T) *journal {
	t.Helper()
	dir, j, root := mount(t)
	disk := filepath.Join(dir, "disk")
	start := makeDisk(t, j, disk)
	under := t.TempDir()
	attach(t, disk, under, func() { j.fill(t, under) })
	j.mu.Lock()
	defer j.mu.Unlock()
	return &journal{Changes: slices.Clone(j.Changes), Root: root, Start: start}
}

// makeDisk makes an empty ext4, synced, and gives how many changes that took.
func makeDisk(t *testing.T, j *journal, disk string) int {
	t.Helper()
	plain := filepath.Join(t.TempDir(), "plain")
	makeExt4(t, plain, diskSize)
	text, err := os.ReadFile(plain)
	require.NoError(t, err)
	f, err := os.Create(disk)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(diskSize))
	empty := make([]byte, 1<<16)
	for at := 0; at < len(text); at += len(empty) {
		if part := text[at : at+len(empty)]; !bytes.Equal(part, empty) {
			_, err := f.WriteAt(part, int64(at))
			require.NoError(t, err)
		}
	}
	require.NoError(t, f.Sync())
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.Changes)
}

func makeExt4(t testing.TB, disk string, size int64) {
	t.Helper()
	require.NoError(t, os.WriteFile(disk, nil, 0o600))
	require.NoError(t, os.Truncate(disk, size))
	tool(t, "mkfs.ext4", "-q", "-F", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0", disk)
}

// attach mounts a disk while f runs. What ext4 has not written by then it
// writes after.
func attach(t *testing.T, disk, at string, f func()) {
	t.Helper()
	loop := tool(t, "losetup", "--find", "--show", disk)
	defer tool(t, "losetup", "--detach", loop)
	require.NoError(t, syscall.Mount(loop, at, "ext4", 0, ""))
	defer func() { require.NoError(t, syscall.Unmount(at, 0)) }()
	f()
}

// tool runs a program of Debian's e2fsprogs and mount, and gives what it says.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command("/sbin/"+name, args...).CombinedOutput()
	require.NoError(t, err, "%s %s: %s (this test mounts a loop device and needs root)", name, args, out)
	return strings.TrimSpace(string(out))
}

// cutBlocks cuts the power so many times, and gives what went wrong by seed.
func (j *journal) cutBlocks(t *testing.T, syncs bool) map[uint64]error {
	t.Helper()
	base, err := os.MkdirTemp("/dev/shm", "rollcall-power-cut-*")
	require.NoError(t, err)
	defer os.RemoveAll(base)
	under := t.TempDir()
	wrong := map[uint64]error{}
	for n := range *blockCuts {
		seed := *cutSeed + uint64(n)
		dir := filepath.Join(base, "image")
		require.NoError(t, os.Mkdir(dir, 0o700))
		acks := j.imageOf(t, seed, syncs, dir)
		if err := afterBlockCut(t, filepath.Join(dir, "disk"), under, acks); err != nil {
			wrong[seed] = err
		}
		require.NoError(t, os.RemoveAll(dir))
		if done := n + 1; done%100 == 0 && done < *blockCuts {
			t.Logf("%d of %d power cuts under ext4, %d went wrong; -cut-seed %d goes on from here", done, *blockCuts, len(wrong), seed+1)
		}
	}
	return wrong
}

// afterBlockCut mounts what a cut left, as the next start does. A disk that
// cannot be mounted has lost everything.
func afterBlockCut(t *testing.T, disk, under string, acks []attendance.Stored) error {
	t.Helper()
	loop := tool(t, "losetup", "--find", "--show", disk)
	defer tool(t, "losetup", "--detach", loop)
	if err := syscall.Mount(loop, under, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	defer func() { require.NoError(t, syscall.Unmount(under, 0)) }()
	return afterCut(under, acks)
}

// No power cut loses a record under a real file system with its own journal.
func TestF24PowerCutUnderExt4(t *testing.T) {
	j := notedBy(t, ".ext4", noteBlocks)
	wrong := j.cutBlocks(t, true)
	t.Logf("%d changes noted below ext4, %d power cuts from seed %d, %d went wrong", len(j.Changes)-j.Start, *blockCuts, *cutSeed, len(wrong))
	j.tell(t, ".ext4", "-block-cuts", wrong)
}

// The same cuts on a disk that takes no notice of flushes must lose records.
func TestF24PowerCutUnderExt4Control(t *testing.T) {
	j := notedBy(t, ".ext4", noteBlocks)
	wrong := j.cutBlocks(t, false)
	t.Logf("control, flushes without effect: %d of %d power cuts under ext4 went wrong", len(wrong), *blockCuts)
	assert.GreaterOrEqual(t, 4*len(wrong), *blockCuts, "the harness would not notice a disk that lies")
}

// from gives a place for a cut, after what made the disk.
func (j *journal) from(r *rand.Rand) int { return j.Start + 1 + r.IntN(len(j.Changes)-j.Start) }
