package queue

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"rollcall/queue/chain"
)

// smallFile is a file of so many records, of lines that are none.
func smallFile(f *testing.F, records int) []byte {
	path := filepath.Join(f.TempDir(), "file")
	db, err := createFile(path, func(b *bbolt.Bucket) error {
		for n := range records {
			seq := chain.Seq(n + 1)
			if err := b.Put(seqKey(seq), bytes.Repeat([]byte{byte(n)}, 300)); err != nil {
				return err
			}
			if err := b.Put(headKey(seq), []byte("head")); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(f, err)
	require.NoError(f, db.Close())
	text, err := os.ReadFile(path)
	require.NoError(f, err)
	return text
}

// FuzzImage walks and scans pages that may say anything: nothing may panic or
// go on for ever, whatever a careful walk finds sound the others find too, and
// bbolt opens it.
func FuzzImage(f *testing.F) {
	for _, records := range []int{1, 40} {
		text := smallFile(f, records)
		f.Add(text)
		f.Add(text[:len(text)/2])
		for _, page := range []int{0, 1, 2, 3, 5} {
			spoilt := bytes.Clone(text)
			at := page * os.Getpagesize()
			clear(spoilt[at : at+os.Getpagesize()])
			f.Add(spoilt)
			copy(spoilt[at:], text[3*os.Getpagesize():][:os.Getpagesize()])
			f.Add(spoilt)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := imageOf(data)
		var strict, lenient, scanned [][]byte
		m.scan(func(key, _ []byte) { scanned = append(scanned, key) })
		if err != nil {
			return
		}
		soundErr := m.walk(false, func(_ string, key, _ []byte) error { strict = append(strict, key); return nil })
		_ = m.walk(true, func(_ string, key, _ []byte) error { lenient = append(lenient, key); return nil })
		if soundErr != nil {
			return
		}
		assert.Equal(t, strict, lenient)
		for _, key := range strict {
			found := slices.ContainsFunc(scanned, func(k []byte) bool { return bytes.Equal(k, key) })
			assert.True(t, found, "the scan passes over a sound entry")
		}
		if !m.both {
			return
		}
		path := filepath.Join(t.TempDir(), "image")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		db, err := openFile(path, false)
		require.NoError(t, err)
		require.NoError(t, db.Close())
	})
}

// FuzzState reads state files that may say anything; what is taken is written
// as it was read, and its gaps can be counted through.
func FuzzState(f *testing.F) {
	for _, s := range []state{
		{Epochs: []epoch{{Log: "t-1/aaaa", Files: []chain.Seq{1, 40}, Gaps: []Gap{{From: 3, To: 5, Reason: "damaged"}}}}},
		{Epochs: []epoch{{Log: "t-1/aaaa", Ended: "damaged", Cut: &Cut{Through: 9, Signed: "x"}}, {Log: "t-1/bbbb"}}},
	} {
		text, err := s.text()
		require.NoError(f, err)
		line, _, _ := bytes.Cut(text, []byte("\n"))
		f.Add(line)
	}
	f.Add([]byte(`{"epochs":[{"log":"t-1/a","gaps":[{"from":0,"to":18446744073709551615}]}]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		sum := chain.HashLine(line) // what nobody can guess does not stop the fuzzer
		s, err := parseState(slices.Concat(line, []byte("\n"+sum.String()+"\n")))
		if err != nil {
			return
		}
		for i := range s.Epochs {
			assert.Positive(t, s.Epochs[i].next(0))
			_ = s.Epochs[i].missing(0)
		}
		text, err := s.text()
		require.NoError(t, err)
		again, err := parseState(text)
		require.NoError(t, err)
		assert.Equal(t, len(s.Epochs), len(again.Epochs))
	})
}

// FuzzKept reads files of records that outlasted the retention: whatever they
// hold, only whole lines are given out.
func FuzzKept(f *testing.F) {
	text, err := os.ReadFile("chain/testdata/export.txt")
	require.NoError(f, err)
	f.Add(text)
	f.Add([]byte("\n\n{}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		err := eachKept(text, func(e chain.Entry) error {
			line, err := e.Line()
			assert.Contains(t, string(text), string(line))
			return err
		})
		assert.NoError(t, err)
	})
}

// FuzzSalvage gathers evidence from values that may be anything, as a scan of a
// damaged file finds them: what is kept is proved by a head.
func FuzzSalvage(f *testing.F) {
	text, err := os.ReadFile("chain/testdata/export.txt")
	require.NoError(f, err)
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		ring, err := chain.NewRing("t-7Q2M", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public())
		require.NoError(t, err)
		v := &evidence{epoch: &epoch{}, ring: ring, seen: map[chain.Hash]bool{}, lines: map[chain.Seq][][]byte{}, heads: map[chain.Seq][]signed{}}
		for line := range bytes.SplitSeq(text, []byte("\n")) {
			v.take(line)
		}
		assert.Empty(t, v.proved(tail{}).lines, "without the key there is no proof")
	})
}
