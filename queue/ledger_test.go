package queue_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
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

func open(cfg queue.Config) (queuetest.Ledger, error) { return openLedger(cfg) }

func openLedger(cfg queue.Config) (*queue.Ledger, error) {
	return queue.Open(cfg, slog.New(slog.DiscardHandler))
}

func TestContract(t *testing.T) { queuetest.Test(t, open) }

// fill makes a ledger of n records after the first, with a receipt for some,
// and closes it.
func fill(t testing.TB, dir string, n int, receipted chain.Seq) []chain.Entry {
	t.Helper()
	l, err := openLedger(queuetest.Config(dir))
	require.NoError(t, err)
	stop := queuetest.Start(t, l)
	for i := range n {
		_, err := l.Append(context.Background(), queuetest.Record(i))
		require.NoError(t, err)
	}
	if receipted > 0 {
		receive(t, l, receipted)
	}
	entries := queuetest.Read(t, l)
	stop()
	return entries
}

// receive gives a ledger the centre's receipt up to a record.
func receive(t testing.TB, l *queue.Ledger, seq chain.Seq) {
	t.Helper()
	_, err := l.Receipt(queuetest.Receipt(t, queuetest.CentreKey, l.Status().Log, seq, queuetest.HashOf(t, l, seq)))
	require.NoError(t, err)
}

// certificate is the test terminal's, by an authority of its own.
func certificate(t testing.TB) (*x509.Certificate, *chain.Trust) {
	t.Helper()
	make := func(template, parent *x509.Certificate, pub any) *x509.Certificate {
		template.SerialNumber = big.NewInt(1)
		template.NotBefore, template.NotAfter = time.Unix(0, 0), time.Unix(1<<33, 0)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, queuetest.StrangerKey)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return cert
	}
	root := &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	ca := make(root, root, queuetest.StrangerKey.Public())
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: string(queuetest.Terminal), OrganizationalUnit: []string{string(chain.RoleLedger)}}}
	cert := make(leaf, ca, queuetest.TerminalKey.Public())
	return cert, &chain.Trust{CA: ca, Receipt: queuetest.CentreKey.Public()}
}

// verify exports a ledger, reads it as an auditor does, and gives the report.
func verify(t testing.TB, s *queue.Store) string {
	t.Helper()
	cert, trust := certificate(t)
	var text bytes.Buffer
	require.NoError(t, s.Export(&text, cert))
	v := chain.NewVerifier(trust, nil)
	for line := range bytes.Lines(text.Bytes()) {
		require.NoError(t, v.Line(bytes.TrimSuffix(line, []byte("\n"))))
	}
	epochs, err := v.Report()
	require.NoError(t, err)
	require.Len(t, epochs, 1)
	return epochs[0].String()
}

func TestExportVerifies(t *testing.T) {
	dir := t.TempDir()
	entries := fill(t, dir, 300, 0)
	s, err := queue.OpenReadOnly(dir)
	require.NoError(t, err)
	assert.Equal(t, "verified 1-301; own word 1-301", verify(t, s))
	assert.Equal(t, entries, queuetest.Read(t, s))
	require.NoError(t, s.Close())

	l, err := openLedger(queuetest.Config(dir))
	require.NoError(t, err)
	stop := queuetest.Start(t, l)
	receive(t, l, 200)
	assert.Equal(t, "verified 1-301; sealed to 200 at 2026-11-21T09:00:00.000Z (centre); own word 201-301", verify(t, l.Store))

	var writers sync.WaitGroup // it may be exported while records come
	for range 4 {
		writers.Go(func() {
			for n := range 50 {
				_, err := l.Append(context.Background(), queuetest.Record(n))
				assert.NoError(t, err)
			}
		})
	}
	for range 5 {
		assert.Contains(t, verify(t, l.Store), "sealed to 200")
	}
	writers.Wait()
	stop()
}

// What the disk did and what it said may differ. Whichever it was, nothing is
// acknowledged after it said that it failed, and the next start finds a whole
// ledger.
func TestDiskError(t *testing.T) {
	broken := errors.New("input/output error")
	for _, tc := range []struct {
		name string
		kept bool
	}{{"the write was kept", true}, {"the write was lost", false}} {
		t.Run("record, "+tc.name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, 3, 0)
			l, ended := failing(t, dir, tc.kept, broken)
			_, err := l.Append(t.Context(), queuetest.Record(100))
			assert.ErrorIs(t, err, queue.ErrStopped)
			assert.ErrorIs(t, err, broken)
			assert.ErrorIs(t, <-ended, broken, "Run says why")
			_, err = l.Append(t.Context(), queuetest.Record(101))
			assert.ErrorIs(t, err, queue.ErrStopped)
			_, err = l.Receipt(queuetest.Receipt(t, queuetest.CentreKey, l.Status().Log, 1, queuetest.HashOf(t, l, 1)))
			assert.ErrorIs(t, err, queue.ErrStopped)
			require.NoError(t, l.Close())

			want := 4
			if tc.kept {
				want = 5
			}
			assert.Len(t, fill(t, dir, 1, 0), want+1, "the next start goes on without a gap")
			s, err := queue.OpenReadOnly(dir)
			require.NoError(t, err)
			verify(t, s)
			require.NoError(t, s.Close())
		})
		t.Run("receipt, "+tc.name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, 3, 0)
			l, ended := failing(t, dir, tc.kept, broken)
			_, err := l.Receipt(queuetest.Receipt(t, queuetest.CentreKey, l.Status().Log, 2, queuetest.HashOf(t, l, 2)))
			assert.ErrorIs(t, err, queue.ErrStopped)
			assert.ErrorIs(t, <-ended, broken, "Run ends although it waited for records")
			require.NoError(t, l.Close())

			l, err = openLedger(queuetest.Config(dir))
			require.NoError(t, err)
			want := chain.Seq(0)
			if tc.kept {
				want = 2
			}
			assert.Equal(t, want, l.Status().Receipted)
			require.NoError(t, l.Close())
		})
	}
}

// failing runs a ledger whose disk reports an error at the next commit.
func failing(t *testing.T, dir string, kept bool, err error) (*queue.Ledger, <-chan error) {
	l, openErr := openLedger(queuetest.Config(dir))
	require.NoError(t, openErr)
	l.SetUpdate(func(tx func(*bbolt.Tx) error, disk func(func(*bbolt.Tx) error) error) error {
		if kept {
			require.NoError(t, disk(tx))
		}
		return err
	})
	ended := make(chan error, 1)
	go func() { ended <- l.Run(context.Background()) }()
	return l, ended
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	l, err := openLedger(queuetest.Config(dir))
	require.NoError(t, err)
	_, err = openLedger(queuetest.Config(dir))
	assert.ErrorIs(t, err, queue.ErrInUse)
	_, err = queue.OpenReadOnly(dir)
	assert.ErrorIs(t, err, queue.ErrInUse)
	require.NoError(t, l.Close())
	l, err = openLedger(queuetest.Config(dir))
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 2, 0)
	for _, tc := range []struct {
		name   string
		change func(*queue.Config)
		want   string
	}{
		{"no directory", func(c *queue.Config) { c.Dir = "" }, "name the state directory"},
		{"a directory that is not there", func(c *queue.Config) { c.Dir += "/none" }, "no such file or directory"},
		{"capacity below 0", func(c *queue.Config) { c.Capacity = -1 }, "capacity = -1"},
		{"a bad terminal id", func(c *queue.Config) { c.Terminal = "t 1" }, `"t 1"`},
		{"no key", func(c *queue.Config) { c.Key = nil }, "key"},
		{"another terminal's ledger", func(c *queue.Config) { c.Terminal = "t-other" }, `of terminal "t-test"`},
		{"another key", func(c *queue.Config) { c.Key = queuetest.StrangerKey }, "were the keys replaced?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := queuetest.Config(dir)
			tc.change(&cfg)
			_, err := openLedger(cfg)
			assert.ErrorContains(t, err, tc.want)
		})
	}
	_, err := queue.OpenReadOnly(t.TempDir())
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

// A receipt that another key of the centre's signed is not believed, and
// everything is sent again.
func TestReceiptKeyReplaced(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 5, 3)
	cfg := queuetest.Config(dir)
	cfg.ReceiptKey = queuetest.StrangerKey.Public()
	l, err := openLedger(cfg)
	require.NoError(t, err)
	defer l.Close()
	assert.Zero(t, l.Status().Receipted)
	assert.Equal(t, 6, l.Status().Unsent)
}

// opening gives the body of line 1 of a ledger that is opened anew.
func opening(t *testing.T, dir string) (chain.LogID, attendance.OpenBody) {
	t.Helper()
	e := fill(t, dir, 0, 0)[0]
	body, err := attendance.ReadBody[attendance.OpenBody](e.Body)
	require.NoError(t, err)
	return e.Log, body
}

// Taking the store away does not wash off what was in it.
func TestStoreTakenAway(t *testing.T) {
	for name, receipted := range map[string]chain.Seq{"after a receipt": 4, "before any receipt": 0} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			entries := fill(t, dir, 6, receipted)
			remembered := max(receipted, 1) // before a receipt, what stood when it was opened
			require.NoError(t, os.Remove(filepath.Join(dir, "ledger.db")))
			log, body := opening(t, dir)
			assert.Equal(t, "missing", body.Reason)
			assert.Equal(t, &attendance.LastKnown{
				Log: string(entries[0].Log), Seq: uint64(remembered), Hash: entries[remembered].Prev.String(),
			}, body.Last)
			assert.NotEqual(t, entries[0].Log, log)
			again, _ := opening(t, dir)
			assert.Equal(t, log, again, "one new epoch, not one for each start")
		})
	}
	t.Run("with a note that cannot be read", func(t *testing.T) {
		dir := t.TempDir()
		fill(t, dir, 1, 0)
		require.NoError(t, os.Remove(filepath.Join(dir, "ledger.db")))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "ledger.last"), []byte("{"), 0o600))
		_, body := opening(t, dir)
		assert.Equal(t, "missing", body.Reason)
		assert.Nil(t, body.Last)
	})
	t.Run("with its note", func(t *testing.T) {
		dir := t.TempDir()
		fill(t, dir, 1, 0)
		require.NoError(t, os.Remove(filepath.Join(dir, "ledger.db")))
		require.NoError(t, os.Remove(filepath.Join(dir, "ledger.last")))
		_, body := opening(t, dir)
		assert.Equal(t, "new", body.Reason, "nobody can tell; the centre still sees the new epoch")
	})
}

// A store put back from an older copy is refused: going on from there would
// fork what the centre has.
func TestOlderCopy(t *testing.T) {
	read := func(path string) []byte {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return text
	}
	refused := func(t *testing.T, dir string) {
		t.Helper()
		_, err := openLedger(queuetest.Config(dir))
		assert.ErrorIs(t, err, queue.ErrDamaged)
		assert.ErrorContains(t, err, "older copy")
	}
	t.Run("of this epoch", func(t *testing.T) {
		dir := t.TempDir()
		db := filepath.Join(dir, "ledger.db")
		fill(t, dir, 3, 0)
		old := read(db)
		fill(t, dir, 3, 6)
		require.NoError(t, os.WriteFile(db, old, 0o600))
		refused(t, dir)
	})
	t.Run("of the epoch before", func(t *testing.T) {
		dir := t.TempDir()
		db := filepath.Join(dir, "ledger.db")
		fill(t, dir, 3, 2)
		old := read(db)
		require.NoError(t, os.Remove(db))
		fill(t, dir, 3, 0)
		require.NoError(t, os.WriteFile(db, old, 0o600))
		refused(t, dir)
	})
	t.Run("power cut between the new store and its note", func(t *testing.T) {
		dir := t.TempDir()
		note := filepath.Join(dir, "ledger.last")
		fill(t, dir, 3, 2)
		old := read(note)
		require.NoError(t, os.Remove(filepath.Join(dir, "ledger.db")))
		log, _ := opening(t, dir)
		require.NoError(t, os.WriteFile(note, old, 0o600))
		again, _ := opening(t, dir)
		assert.Equal(t, log, again)
		assert.Contains(t, string(read(note)), string(log))
	})
}

// A file that cannot be right is reported and left alone, whatever is wrong
// with it; a file that opens holds what was written.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ledger.db")
	entries := fill(t, dir, 200, 100)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	random := mathrand.New(mathrand.NewPCG(1, 2))
	page := os.Getpagesize()

	spoil := map[string]func([]byte) []byte{
		"empty":              func([]byte) []byte { return nil },
		"text":               func([]byte) []byte { return []byte(strings.Repeat("not a ledger\n", 2000)) },
		"both metas zeroed":  func(b []byte) []byte { clear(b[:2*page]); return b },
		"cut to a page":      func(b []byte) []byte { return b[:page] },
		"cut in half":        func(b []byte) []byte { return b[:len(b)/2] },
		"all but metas gone": func(b []byte) []byte { clear(b[2*page:]); return b },
		"a body altered":     func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("reader 77"), []byte("reader 78")) },
	}
	for name, f := range spoil {
		t.Run(name, func(t *testing.T) {
			assert.True(t, openSpoiled(t, dir, f(bytes.Clone(whole)), entries), "opened")
		})
	}
	found := 0
	for range 150 {
		b := bytes.Clone(whole)
		switch at := random.IntN(len(b)); random.IntN(3) {
		case 0:
			for i := at; i < min(at+16, len(b)); i++ {
				b[i] = byte(random.Uint32())
			}
		case 1:
			clear(b[at/page*page : at/page*page+page])
		case 2:
			b = b[:at]
		}
		if openSpoiled(t, dir, b, entries) {
			found++
		}
	}
	t.Logf("%d of 150 random damages lay in pages that are in use", found)
	assert.Greater(t, found, 50)
}

// openSpoiled opens a spoiled file and reports whether it was refused.
func openSpoiled(t *testing.T, dir string, text []byte, entries []chain.Entry) bool {
	t.Helper()
	path := filepath.Join(dir, "ledger.db")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	l, err := openLedger(queuetest.Config(dir))
	if err == nil {
		assert.Equal(t, entries, queuetest.Read(t, l))
		require.NoError(t, l.Close())
		return false
	}
	assert.ErrorIs(t, err, queue.ErrDamaged)
	assert.ErrorContains(t, err, "Move it to "+path+".bad")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(text, after), "the file was touched")
	return true
}
