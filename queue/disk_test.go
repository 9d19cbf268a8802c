package queue_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue"
	"rollcall/queue/queuetest"
)

// A full disk refuses records with a sentence, takes receipts all the same
// from the ballast, and takes records again by itself when there is room.
func TestF20DiskFull(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"), "this test mounts a small disk and needs root")
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	l, err := openLedger(queuetest.Config(dir))
	require.NoError(t, err)
	defer queuetest.Start(t, l)()
	_, err = l.Append(t.Context(), queuetest.Record(1))
	require.NoError(t, err)
	assert.FileExists(t, filepath.Join(dir, "ledger", "ballast"))

	fillDisk(t, filepath.Join(dir, "rubbish"))
	refused := 0
	for n := range 20 {
		if _, err = l.Append(t.Context(), queuetest.Record(n)); err != nil {
			assert.ErrorIs(t, err, queue.ErrDiskFull)
			refused++
		}
	}
	assert.Equal(t, 20, refused)
	assert.True(t, l.Status().DiskFull)
	receive(t, l, 2)
	assert.EqualValues(t, 2, l.Status().Receipted, "the ballast holds room for receipts")

	require.NoError(t, os.Remove(filepath.Join(dir, "rubbish")))
	_, err = l.Append(t.Context(), queuetest.Record(2))
	assert.NoError(t, err, "resumes by itself")
	assert.False(t, l.Status().DiskFull)
	assert.Len(t, queuetest.Read(t, l), 3, "what was refused left no gap")
	verify(t, l.Store)
}

// fillDisk writes until nothing more fits.
func fillDisk(t *testing.T, path string) {
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	for block := make([]byte, 1<<16); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
			block = block[:len(block)/2]
		}
	}
}

func TestCheckDisk(t *testing.T) {
	dir := t.TempDir()
	c, err := queue.CheckDisk(t.Context(), dir, 20*time.Millisecond)
	require.NoError(t, err)
	assert.Positive(t, c.Writes)
	assert.LessOrEqual(t, c.Median, c.Worst)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
	_, err = queue.CheckDisk(t.Context(), filepath.Join(dir, "none"), time.Millisecond)
	assert.ErrorIs(t, err, os.ErrNotExist)
}
