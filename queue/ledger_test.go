package queue_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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

// Of the heads between its records only the last goes along with a batch, and
// takes of its room: a day of single taps goes up in whole batches.
func TestBatchIsFull(t *testing.T) {
	l, err := openLedger(queuetest.Config(t.TempDir()))
	require.NoError(t, err)
	defer l.Close()
	stop := queuetest.Start(t, l)
	defer stop()
	for n := range chain.MaxBatchRecords {
		_, err := l.Append(context.Background(), queuetest.Record(n))
		require.NoError(t, err)
	}
	payload, last, err := l.Batch(0, chain.MaxBatchRecords, chain.MaxBatchBytes)
	require.NoError(t, err)
	assert.Equal(t, chain.Seq(chain.MaxBatchRecords), last, "%d bytes", len(payload))
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
	return certificateOf(t, queuetest.TerminalKey.Public())
}

func certificateOf(t testing.TB, key crypto.PublicKey) (*x509.Certificate, *chain.Trust) {
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
	cert := make(leaf, ca, key)
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
func TestF22DiskError(t *testing.T) {
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
	l.SetDisk(func(write func() error) error {
		if kept {
			require.NoError(t, write())
		}
		return err
	})
	ended := make(chan error, 1)
	go func() { ended <- l.Run(context.Background()) }()
	return l, ended
}

func TestF39OneProcessAtATime(t *testing.T) {
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
func TestF27StoreTakenAway(t *testing.T) {
	for name, receipted := range map[string]chain.Seq{"after a receipt": 4, "before any receipt": 0} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			entries := fill(t, dir, 6, receipted)
			remembered := max(receipted, 1) // before a receipt, what stood when it was opened
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "ledger")))
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
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "ledger")))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "ledger.last"), []byte("{"), 0o600))
		_, body := opening(t, dir)
		assert.Equal(t, "missing", body.Reason)
		assert.Nil(t, body.Last)
	})
	t.Run("with its note", func(t *testing.T) {
		dir := t.TempDir()
		fill(t, dir, 1, 0)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "ledger")))
		require.NoError(t, os.Remove(filepath.Join(dir, "ledger.last")))
		_, body := opening(t, dir)
		assert.Equal(t, "new", body.Reason, "nobody can tell; the centre still sees the new epoch")
	})
}

// A store put back from an older copy does not go on as if nothing was: that
// would fork what the centre has. It begins an epoch that names what it was.
func TestT10OlderCopy(t *testing.T) {
	copyOf := func(dir string) string {
		old := filepath.Join(t.TempDir(), "old")
		require.NoError(t, os.CopyFS(old, os.DirFS(filepath.Join(dir, "ledger"))))
		return old
	}
	putBack := func(dir, old string) {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "ledger")))
		require.NoError(t, os.CopyFS(filepath.Join(dir, "ledger"), os.DirFS(old)))
	}
	noticed := func(t *testing.T, dir string, last chain.Entry) {
		t.Helper()
		l, err := openLedger(queuetest.Config(dir))
		require.NoError(t, err)
		defer l.Close()
		entries := queuetest.Read(t, l)
		line, err := last.Line()
		require.NoError(t, err)
		e := entries[len(entries)-1]
		body, err := attendance.ReadBody[attendance.OpenBody](e.Body)
		require.NoError(t, err)
		assert.EqualValues(t, 1, e.Seq)
		assert.Equal(t, "older", body.Reason)
		assert.Equal(t, &attendance.LastKnown{Log: string(last.Log), Seq: uint64(last.Seq), Hash: chain.HashLine(line).String()}, body.Last)
	}
	t.Run("of this epoch", func(t *testing.T) {
		dir := t.TempDir()
		fill(t, dir, 3, 0)
		old := copyOf(dir)
		entries := fill(t, dir, 3, 6)
		putBack(dir, old)
		noticed(t, dir, entries[5])
	})
	t.Run("of the epoch before", func(t *testing.T) {
		dir := t.TempDir()
		fill(t, dir, 3, 2)
		old := copyOf(dir)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "ledger")))
		entries := fill(t, dir, 3, 0)
		putBack(dir, old)
		noticed(t, dir, entries[0])
	})
	t.Run("power cut between the new store and its note", func(t *testing.T) {
		dir := t.TempDir()
		note := filepath.Join(dir, "ledger.last")
		fill(t, dir, 3, 2)
		old, err := os.ReadFile(note)
		require.NoError(t, err)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "ledger")))
		log, _ := opening(t, dir)
		require.NoError(t, os.WriteFile(note, old, 0o600))
		again, _ := opening(t, dir)
		assert.Equal(t, log, again)
		now, err := os.ReadFile(note)
		require.NoError(t, err)
		assert.Contains(t, string(now), string(log))
	})
}
