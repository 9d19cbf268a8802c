package queue

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"rollcall/queue/chain"
)

// A file that is shorter than its newest commit says, though no entry is missing:
// its last page is free. bbolt writes to such a page without growing its map of
// the file, and reads what lies behind the map. proof-crash found it, on the
// control's disk, whose syncs have no effect.
func TestF26AFileWithoutItsLastFreePage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	put := func(seq chain.Seq) func(*bbolt.Bucket) error {
		return func(b *bbolt.Bucket) error { return b.Put(seqKey(seq), bytes.Repeat([]byte{1}, 900)) }
	}
	db, err := createFile(path, put(1))
	require.NoError(t, err)
	for seq := chain.Seq(2); seq < 100; seq++ {
		_, err := update(db, put(seq))
		require.NoError(t, err)
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		m, err := imageOf(text)
		require.NoError(t, err)
		m.data = text[:(m.meta.high-1)*uint64(m.size)]
		entries := chain.Seq(0)
		if m.walk(true, func(string, []byte, []byte) error { entries++; return nil }); entries < seq {
			continue // the last page is in use
		}
		require.ErrorContains(t, m.walk(false, func(string, []byte, []byte) error { return nil }), "shorter than it says")
		require.NoError(t, db.Close())
		return
	}
	t.Fatal("the last page was never free")
}
