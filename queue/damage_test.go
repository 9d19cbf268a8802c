package queue_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"rollcall/attendance"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
)

var (
	damageRuns = flag.Int("damage", 30, "random damages that TestF25Damage makes")
	damageSeed = flag.Uint64("damage-seed", 1, "seed of the first of them; run n has seed + n")
)

// fillFiles makes a ledger of three files, the centre having received some,
// and closes it.
func fillFiles(t testing.TB, dir string, receipted chain.Seq) []chain.Entry {
	t.Helper()
	cfg := queuetest.Config(dir)
	day := 0
	stamp := cfg.Stamp
	cfg.Stamp = func() chain.Stamp {
		s := stamp()
		s.Wall = chain.NewWall(s.Wall.AddDate(0, 0, day))
		return s
	}
	l, err := openLedger(cfg)
	require.NoError(t, err)
	stop := queuetest.Start(t, l)
	for ; day < 3; day++ {
		for n := range 40 {
			_, err := l.Append(context.Background(), queuetest.Record(100*day+n))
			require.NoError(t, err)
		}
	}
	if receipted > 0 {
		receive(t, l, receipted)
	}
	entries := queuetest.Read(t, l)
	stop()
	require.Len(t, recordFiles(t, dir), 3)
	return entries
}

// recordFiles gives the paths of the files of records, oldest first.
func recordFiles(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "ledger", "*", "*.db"))
	require.NoError(t, err)
	return files
}

// readAll opens a ledger as the daemon does after a fall, as often as it must,
// and reads it.
func readAll(t testing.TB, dir string) (*queue.Ledger, []chain.Entry) {
	t.Helper()
	for range 6 {
		l, err := openLedger(queuetest.Config(dir))
		require.NoError(t, err, "the daemon starts")
		var entries []chain.Entry
		err = l.Each(func(e chain.Entry) error {
			entries = append(entries, e)
			return nil
		})
		if err == nil {
			return l, entries
		}
		require.ErrorIs(t, err, queue.ErrDamaged)
		require.NoError(t, l.Close())
	}
	require.Fail(t, "damage was found again and again")
	return nil, nil
}

// outcome is what became of a damaged ledger.
type outcome struct{ kept, lost, unchanged, newEpoch int }

// judge holds what is read after a damage to what was written: every record
// that is there is one that was written, what is missing is named, and no seq
// is used twice.
func judge(t testing.TB, dir string, before []chain.Entry) (o outcome) {
	t.Helper()
	l, after := readAll(t, dir)
	defer l.Close()
	log := before[0].Log
	have := map[chain.Seq]chain.Entry{}
	named := map[chain.Seq]bool{}
	var linked *attendance.LastKnown
	for _, e := range after {
		if e.Log == log {
			have[e.Seq] = e
		} else if e.Seq == 1 {
			body, err := attendance.ReadBody[attendance.OpenBody](e.Body)
			require.NoError(t, err)
			require.Contains(t, []string{"damaged", "missing", "older"}, body.Reason)
			linked, o.newEpoch = body.Last, 1
		}
		if e.Type == string(attendance.TypeGap) {
			body, err := attendance.ReadBody[attendance.GapBody](e.Body)
			require.NoError(t, err)
			for seq := body.From; seq <= body.To; seq++ {
				named[chain.Seq(seq)] = true
			}
		}
	}
	end := chain.Seq(len(before))
	if o.newEpoch == 1 {
		end = 0
		if linked != nil {
			end = chain.Seq(linked.Seq)
		}
	}
	for _, e := range before {
		got, ok := have[e.Seq]
		switch {
		case ok:
			require.Equal(t, e, got, "a record that was not written")
			require.False(t, named[e.Seq], "record %d is there and named as lost", e.Seq)
			o.kept++
		case e.Seq <= end:
			require.True(t, named[e.Seq], "record %d is lost and not named", e.Seq)
			o.lost++
		default:
			require.Equal(t, 1, o.newEpoch, "record %d is lost without a new epoch", e.Seq)
			o.lost++
		}
	}
	if o.lost == 0 && o.newEpoch == 0 {
		o.unchanged = 1
	}
	return o
}

// damages are what becomes of files.
var damages = map[string]func(r *rand.Rand, b []byte) []byte{
	"16 random bytes": func(r *rand.Rand, b []byte) []byte {
		at := r.IntN(len(b))
		for i := at; i < min(at+16, len(b)); i++ {
			b[i] = byte(r.Uint32())
		}
		return b
	},
	"one bit": func(r *rand.Rand, b []byte) []byte {
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		return b
	},
	"a zeroed page": func(r *rand.Rand, b []byte) []byte {
		at := r.IntN(len(b)) / 4096 * 4096
		clear(b[at:min(at+4096, len(b))])
		return b
	},
	"a page of noise": func(r *rand.Rand, b []byte) []byte {
		at := r.IntN(len(b)) / 4096 * 4096
		for i := at; i < min(at+4096, len(b)); i++ {
			b[i] = byte(r.Uint32())
		}
		return b
	},
	"two pages exchanged": func(r *rand.Rand, b []byte) []byte {
		pages := len(b) / 4096
		x, y := r.IntN(pages)*4096, r.IntN(pages)*4096
		for i := range 4096 {
			b[x+i], b[y+i] = b[y+i], b[x+i]
		}
		return b
	},
	"cut anywhere": func(r *rand.Rand, b []byte) []byte { return b[:r.IntN(len(b))] },
	"empty":        func(*rand.Rand, []byte) []byte { return nil },
	"both metas":   func(_ *rand.Rand, b []byte) []byte { clear(b[:8192]); return b },
	"newest meta": func(_ *rand.Rand, b []byte) []byte {
		at := 0
		if binary.LittleEndian.Uint64(b[4096+64:]) > binary.LittleEndian.Uint64(b[64:]) {
			at = 4096
		}
		clear(b[at : at+4096])
		return b
	},
	"gone": nil,
}

// TestF25Damage spoils one file of a ledger in a random way and starts again: the
// daemon must start, keep every record that can be read, and name the others.
// `make proof-damage` runs it longer.
func TestF25Damage(t *testing.T) {
	base := t.TempDir()
	before := fillFiles(t, base, 50)
	names := make([]string, 0, len(damages))
	for name := range damages {
		names = append(names, name)
	}
	slices.Sort(names)
	table := map[string]*outcome{}
	for n := range *damageRuns {
		seed := *damageSeed + uint64(n)
		r := rand.New(rand.NewPCG(seed, 0))
		name := names[n%len(names)]
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS(base)))
		files := recordFiles(t, dir)
		files = append(files, filepath.Join(dir, "ledger", "state"))
		path := files[r.IntN(len(files))]
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		if spoil := damages[name]; spoil == nil {
			require.NoError(t, os.Remove(path))
		} else if len(text) < 8192 && name != "empty" && name != "cut anywhere" && name != "one bit" {
			require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("x"), len(text)), 0o600))
		} else {
			require.NoError(t, os.WriteFile(path, spoil(r, text), 0o600))
		}
		var o outcome
		if !t.Run(fmt.Sprintf("%s, seed %d", name, seed), func(t *testing.T) { o = judge(t, dir, before) }) {
			t.Logf("%s: replay with -damage 1 -damage-seed %d", filepath.Base(path), seed)
		}
		sum := table[name]
		if sum == nil {
			sum = &outcome{}
			table[name] = sum
		}
		sum.kept, sum.lost, sum.unchanged, sum.newEpoch = sum.kept+o.kept, sum.lost+o.lost, sum.unchanged+o.unchanged, sum.newEpoch+o.newEpoch
		require.NoError(t, os.RemoveAll(dir))
	}
	for _, name := range names {
		if o := table[name]; o != nil {
			t.Logf("%-20s records kept %6d, lost and named %5d; nothing lost in %d, new epochs %d", name, o.kept, o.lost, o.unchanged, o.newEpoch)
		}
	}
}

// Beside the random ones, those whose end is known.
func TestF25DamageKnown(t *testing.T) {
	page := os.Getpagesize()
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, files []string)
		check func(t *testing.T, o outcome)
	}{
		{"a byte of a record in the last file", func(t *testing.T, files []string) {
			replace(t, files[2], "reader 210", "reader 211")
		}, func(t *testing.T, o outcome) { assert.Equal(t, outcome{kept: 120, lost: 1}, o) }},
		{"a byte of the last record", func(t *testing.T, files []string) {
			replace(t, files[2], "reader 239", "reader 238")
		}, func(t *testing.T, o outcome) { assert.Equal(t, outcome{kept: 120, lost: 1, newEpoch: 1}, o) }},
		{"the last file gone", func(t *testing.T, files []string) {
			require.NoError(t, os.Remove(files[2]))
		}, func(t *testing.T, o outcome) { assert.Positive(t, o.lost) }},
		{"only the metas of a sealed file", func(t *testing.T, files []string) {
			text, err := os.ReadFile(files[1])
			require.NoError(t, err)
			clear(text[:2*page])
			require.NoError(t, os.WriteFile(files[1], text, 0o600))
		}, func(t *testing.T, o outcome) { assert.Equal(t, 121, o.kept, "the page scan finds all") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			before := fillFiles(t, dir, 20)
			tc.spoil(t, recordFiles(t, dir))
			tc.check(t, judge(t, dir, before))
			tc.check(t, judge(t, dir, before)) // and once more: nothing is said twice
			bad, err := filepath.Glob(filepath.Join(dir, "ledger", "*", "*.bad*"))
			require.NoError(t, err)
			if tc.name != "the last file gone" {
				assert.Len(t, bad, 1, "the damaged file is kept whole")
			}
		})
	}
}

// verdict is a test whose failure is what is wanted.
type verdict struct {
	testing.TB
	failed bool
}

func (v *verdict) Errorf(string, ...any) { v.failed = true }
func (v *verdict) FailNow()              { v.failed = true; runtime.Goexit() }

// The judge finds a record that was lost without a word, at the end or between
// others, and one that has other bytes.
func TestF25DamageControl(t *testing.T) {
	dir := t.TempDir()
	written := fillFiles(t, dir, 20)
	more := written[len(written)-1]
	more.Seq++
	between := slices.Clone(written)
	for i := range between[60:] {
		between[60+i].Seq++
	}
	other := slices.Clone(written)
	other[60].Body = []byte(`{}`)
	found := 0
	for name, before := range map[string][]chain.Entry{"at the end": append(slices.Clone(written), more), "between": between, "other bytes": other} {
		v := &verdict{TB: t}
		var judged sync.WaitGroup
		judged.Go(func() { judge(v, dir, before) })
		judged.Wait()
		if assert.True(t, v.failed, name) {
			found++
		}
	}
	judge(t, dir, written)
	t.Logf("control: the judge found %d of 3 ledgers that had lost a record without a word", found)
}

func replace(t *testing.T, path, old, new string) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(text), old)
	require.NoError(t, os.WriteFile(path, bytes.ReplaceAll(text, []byte(old), []byte(new)), 0o600))
}

// What is left of an epoch whose end was lost is sent before the next one.
func TestF25DamageLeavesNothingUnsent(t *testing.T) {
	dir := t.TempDir()
	before := fillFiles(t, dir, 20)
	replace(t, recordFiles(t, dir)[2], "reader 239", "reader 238")
	l, err := openLedger(queuetest.Config(dir))
	require.NoError(t, err)
	stop := queuetest.Start(t, l)
	defer stop()
	log, last, at := l.Marks()
	assert.Equal(t, before[0].Log, log)
	assert.EqualValues(t, 120, last)
	assert.EqualValues(t, 20, at)
	assert.Equal(t, 101, l.Status().Unsent, "100 of the old epoch and line 1 of the new")
	for at < last {
		payload, upTo, err := l.Batch(at, chain.MaxBatchRecords, chain.MaxBatchBytes)
		require.NoError(t, err)
		b, err := chain.ParseBatch(payload)
		require.NoError(t, err)
		_, err = l.Receipt(queuetest.Receipt(t, queuetest.CentreKey, log, upTo, b.LastHash()))
		require.NoError(t, err)
		at = upTo
	}
	next, last, at := l.Marks()
	assert.NotEqual(t, log, next)
	assert.EqualValues(t, 1, last)
	assert.Zero(t, at)
	_, err = l.Receipt(queuetest.Receipt(t, queuetest.CentreKey, log, 121, chain.Hash{1}))
	assert.NoError(t, err, "the centre has a record of the old epoch that was lost here")
}

// A ledger of the first version, one file ledger.db, is taken over whole.
func TestTakesOverTheFirstVersion(t *testing.T) {
	dir := t.TempDir()
	entries := fillFiles(t, dir, 0)
	db, err := bbolt.Open(filepath.Join(dir, "ledger.db"), 0o600, nil)
	require.NoError(t, err)
	hash := chain.Hash{}
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		bucket := func(name string) *bbolt.Bucket {
			b, err := tx.CreateBucketIfNotExists([]byte(name))
			require.NoError(t, err)
			return b
		}
		for _, e := range entries {
			line, err := e.Line()
			require.NoError(t, err)
			key := binary.BigEndian.AppendUint64(nil, uint64(e.Seq))
			require.NoError(t, bucket("lines").Put(key, line))
			head, err := chain.Sign(queuetest.TerminalKey, chain.PurposeHead, chain.Head{Log: e.Log, Seq: e.Seq, Hash: chain.HashLine(line), Wall: e.At.Wall})
			require.NoError(t, err)
			if e.Seq%7 == 0 || int(e.Seq) == len(entries) {
				require.NoError(t, bucket("heads").Put(key, []byte(head)))
			}
			if e.Seq == 30 {
				hash = chain.HashLine(line)
			}
		}
		state := bucket("state")
		require.NoError(t, state.Put([]byte("log"), []byte(entries[0].Log)))
		return state.Put([]byte("receipt"), queuetest.Receipt(t, queuetest.CentreKey, entries[0].Log, 30, hash))
	}))
	require.NoError(t, db.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "ledger")))

	for range 2 {
		l, err := openLedger(queuetest.Config(dir))
		require.NoError(t, err)
		assert.Equal(t, entries, queuetest.Read(t, l))
		assert.EqualValues(t, 30, l.Status().Receipted)
		assert.Zero(t, l.Status().SetAside)
		verify(t, l.Store)
		require.NoError(t, l.Close())
	}
	assert.FileExists(t, filepath.Join(dir, "ledger.db.taken"))
	assert.NoFileExists(t, filepath.Join(dir, "ledger.db"))
}

// Records are let go after the retention, by the centre's clock, whole files
// at a time, and never without a receipt.
func TestRetention(t *testing.T) {
	dir := t.TempDir()
	entries := fillFiles(t, dir, 0)
	log := entries[0].Log
	files := recordFiles(t, dir)
	cfg := queuetest.Config(dir)
	receiptAt := func(l *queue.Ledger, seq chain.Seq, day int) {
		jws, err := chain.Sign(ed25519.PrivateKey(queuetest.CentreKey), chain.PurposeReceipt, chain.Receipt{
			Log: log, Seq: seq, Hash: queuetest.HashOf(t, l, seq), At: chain.NewWall(time.Date(2026, 11, 21+day, 9, 0, 0, 0, time.UTC))})
		require.NoError(t, err)
		_, err = l.Receipt([]byte(jws))
		require.NoError(t, err)
	}
	l, err := openLedger(cfg)
	require.NoError(t, err)
	stop := queuetest.Start(t, l)
	receiptAt(l, 60, 0)
	require.NoError(t, l.LetGo())
	assert.FileExists(t, files[0], "too young")
	receiptAt(l, 100, 179)
	require.NoError(t, l.LetGo())
	assert.FileExists(t, files[0], "too young")
	receiptAt(l, 110, 181)
	require.NoError(t, l.LetGo())
	assert.NoFileExists(t, files[0])
	assert.FileExists(t, files[1], "the centre had the second file two days ago only")
	first := len(queuetest.Read(t, l))
	assert.Less(t, first, len(entries))
	stop()

	l, err = openLedger(cfg)
	require.NoError(t, err)
	defer queuetest.Start(t, l)()
	kept := queuetest.Read(t, l)
	assert.Equal(t, entries[len(entries)-first:], kept)
	assert.EqualValues(t, 110, l.Status().Receipted)
	_, err = l.Append(t.Context(), queuetest.Record(1))
	require.NoError(t, err)
	assert.EqualValues(t, len(entries)+1, l.Status().Last)
	assert.Contains(t, verify(t, l.Store), "let go 1-", "an export after a cut verifies, and says what is gone")
}
