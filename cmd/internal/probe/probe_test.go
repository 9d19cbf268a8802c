package probe_test

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/cmd/internal/probe"
	"rollcall/queue"
	"rollcall/queue/queuetest"
)

func TestMain(m *testing.M) {
	probe.Main()
	os.Exit(m.Run())
}

// ledgerFile is the file of a ledger of 40 records.
func ledgerFile(t *testing.T) string {
	dir := t.TempDir()
	l, err := queue.Open(queuetest.Config(dir), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	stop := queuetest.Start(t, l)
	for n := range 40 {
		_, err := l.Append(t.Context(), queuetest.Record(n))
		require.NoError(t, err)
	}
	stop()
	files, err := filepath.Glob(filepath.Join(dir, "ledger", "*", "*.db"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	return files[0]
}

// A key of a branch page that its child contradicts ends any process that has
// bbolt open the file to write, and this test if it were done here.
func TestF25BboltEndsAnotherProcess(t *testing.T) {
	path := ledgerFile(t)
	require.NoError(t, probe.File(path), "the control: a sound file")
	sound, err := os.ReadFile(path)
	require.NoError(t, err)

	page := os.Getpagesize()
	spoilt := 0
	for at := 2 * page; at+page <= len(sound); at += page {
		if binary.LittleEndian.Uint16(sound[at+8:]) != 1 { // flags: a branch
			continue
		}
		text := bytes.Clone(sound)
		count := int(binary.LittleEndian.Uint16(text[at+10:]))
		require.Greater(t, count, 1)
		text[at+16+16*count] ^= 0x40 // the first key
		require.NoError(t, os.WriteFile(path, text, 0o600))
		if err := probe.File(path); err != nil {
			assert.ErrorIs(t, err, queue.ErrDamaged)
			spoilt++
		}
	}
	assert.Positive(t, spoilt, "no branch was in use")
}
