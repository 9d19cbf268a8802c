package queue_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"rollcall/attendance"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
)

// box is a terminal with its keys in files beside the ledger, as the daemon has
// them.
type box struct {
	t         *testing.T
	dir       string
	admission chain.Admission
	trust     *chain.Trust
	keys      *device.Keys
	steps     *steps

	ring  *chain.Ring // as a centre knows it
	place int
}

// steps stand between a ledger and its keys and disk, so that a test sees each
// step of a change of the key.
type steps struct {
	*device.Keys
	at   func(step string)
	fail map[string]error
}

func (s *steps) Prepare(terminal chain.TerminalID) (string, error) {
	s.at("before")
	handover, err := s.Keys.Prepare(terminal)
	s.at("prepared")
	return handover, errors.Join(err, s.fail["prepare"])
}

func (s *steps) Settle(handover string) (crypto.Signer, error) {
	if handover != "" {
		s.at("recorded")
		if err := s.fail["settle"]; err != nil {
			return nil, err
		}
	}
	key, err := s.Keys.Settle(handover)
	if handover != "" {
		s.at("taken")
	}
	return key, err
}

func newBox(t *testing.T) *box {
	b := &box{t: t, dir: t.TempDir()}
	_, err := device.CreateKeys(filepath.Join(b.dir, "keys"))
	require.NoError(t, err)
	b.reopen()
	cert, trust := certificateOf(t, b.keys.Ledger().Public())
	b.admission, b.trust = chain.Admission{Terminal: queuetest.Terminal, Ledger: chain.EncodeCertificate(cert.Raw)}, trust
	return b
}

// reopen reads the keys anew, as a process that starts does.
func (b *box) reopen() {
	keys, err := device.OpenKeys(filepath.Join(b.dir, "keys"))
	require.NoError(b.t, err)
	b.keys, b.steps = keys, &steps{Keys: keys, at: func(string) {}}
}

// copyKeys copies a key directory, for its owner only.
func copyKeys(t *testing.T, to, from string) {
	require.NoError(t, os.Mkdir(to, 0o700))
	files, err := os.ReadDir(from)
	require.NoError(t, err)
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(from, f.Name()))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(to, f.Name()), text, 0o600))
	}
}

func (b *box) config() queue.Config {
	cfg := queuetest.Config(b.dir)
	ring, err := b.keys.Ring(b.admission)
	require.NoError(b.t, err)
	cfg.Key, cfg.Ring, cfg.Keys = b.keys.Ledger(), ring, b.steps
	return cfg
}

func (b *box) open() *queue.Ledger {
	b.t.Helper()
	l, err := openLedger(b.config())
	require.NoError(b.t, err)
	return l
}

func (b *box) add(l *queue.Ledger, n int) {
	b.t.Helper()
	for i := range n {
		_, err := l.Append(context.Background(), queuetest.Record(i))
		require.NoError(b.t, err)
	}
}

// verify reads an export with both verifiers and gives the report.
func (b *box) verify(s *queue.Store) string {
	b.t.Helper()
	cert, err := chain.ParseCertificate(b.admission.Ledger)
	require.NoError(b.t, err)
	var text bytes.Buffer
	require.NoError(b.t, s.Export(&text, cert, b.keys.Handovers()...))
	v := chain.NewVerifier(b.trust, nil)
	for line := range bytes.Lines(text.Bytes()) {
		require.NoError(b.t, v.Line(bytes.TrimSuffix(line, []byte("\n"))))
	}
	epochs, err := v.Report()
	require.NoError(b.t, err)
	var said []string
	for _, e := range epochs {
		said = append(said, e.String())
	}
	dir := b.t.TempDir()
	receipt, err := chain.EncodePublicKey(queuetest.CentreKey.Public())
	require.NoError(b.t, err)
	trust, err := json.Marshal(chain.Admission{CA: chain.EncodeCertificate(b.trust.CA.Raw), ReceiptKey: receipt})
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(filepath.Join(dir, "trust"), trust, 0o600))
	require.NoError(b.t, os.WriteFile(filepath.Join(dir, "export"), text.Bytes(), 0o600))
	out, err := exec.Command("python3", "../docs/verify.py", "-trust", filepath.Join(dir, "trust"), filepath.Join(dir, "export")).CombinedOutput()
	require.NoError(b.t, err, "docs/verify.py: %s", out)
	return strings.Join(said, "\n")
}

// accept takes everything that waits as a centre does that knows nothing but the
// certificate, and gives the receipts.
func (b *box) accept(l *queue.Ledger) {
	b.t.Helper()
	if b.ring == nil {
		cert, err := chain.ParseCertificate(b.admission.Ledger)
		require.NoError(b.t, err)
		b.ring, err = chain.NewRing(queuetest.Terminal, cert.PublicKey)
		require.NoError(b.t, err)
	}
	for range 100 {
		_, _, after := l.Marks()
		payload, _, err := l.Batch(after, chain.MaxBatchRecords, chain.MaxBatchBytes)
		require.NoError(b.t, err)
		if payload == nil {
			return
		}
		batch, err := chain.ParseBatch(payload)
		require.NoError(b.t, err)
		if batch.First() == 1 {
			b.place = 0
		}
		turns, _, err := batch.Check(b.ring, b.place)
		require.NoError(b.t, err)
		if len(turns) > 0 {
			b.place = turns[len(turns)-1].Place
		}
		_, err = l.Receipt(queuetest.Receipt(b.t, queuetest.CentreKey, batch.Log(), batch.Last(), batch.LastHash()))
		require.NoError(b.t, err)
	}
	require.Fail(b.t, "it never ends")
}

// A ledger goes on with its next key: records before and after are there, both
// verifiers and a centre follow, over restarts and more than one change.
func TestRotate(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	l := b.open()
	stop := queuetest.Start(t, l)
	b.add(l, 5)
	first := b.keys.Ledger()
	require.NoError(t, l.Rotate(t.Context()))
	assert.NotEqual(t, first, b.keys.Ledger())
	b.add(l, 3)
	require.NoError(t, l.Rotate(t.Context()))
	require.NoError(t, l.Rotate(t.Context()))
	b.add(l, 1)
	assert.Equal(t, "verified 1-13; own word 1-13", b.verify(l.Store))
	b.accept(l)
	stop()

	b.reopen()
	assert.Len(t, b.keys.Handovers(), 3)
	l = b.open()
	queuetest.Start(t, l)
	b.add(l, 2)
	b.accept(l)
	assert.Equal(t, "verified 1-15; sealed to 15 at 2026-11-21T09:00:00.000Z (centre)", b.verify(l.Store))
	entries := queuetest.Read(t, l)
	assert.Equal(t, "key", entries[6].Type)
	alert, err := l.SignAlert(chain.Alert{V: 1, Log: entries[0].Log, Kind: chain.AlertDisk})
	require.NoError(t, err)
	ring, err := chain.NewRing(queuetest.Terminal, first.Public())
	require.NoError(t, err)
	_, by, err := chain.OpenAlert(ring, alert)
	require.NoError(t, err)
	assert.Equal(t, 3, by)
}

// Many writers beside changes of the key: nothing is lost, and every head is by
// the key in force.
func TestRotateBesideWriters(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	l := b.open()
	queuetest.Start(t, l)
	wrote := make(chan error)
	for range 4 {
		go func() {
			var err error
			for n := range 50 {
				_, failed := l.Append(context.Background(), queuetest.Record(n))
				err = errors.Join(err, failed)
			}
			wrote <- err
		}()
	}
	done, read := make(chan struct{}), make(chan error, 1)
	go func() { // as the uplink does
		for {
			select {
			case <-done:
				read <- nil
				return
			default:
			}
			_, last, _ := l.Marks()
			if _, _, err := l.Batch(max(last, 3)-3, chain.MaxBatchRecords, chain.MaxBatchBytes); err != nil {
				read <- err
				return
			}
		}
	}()
	for range 5 {
		require.NoError(t, l.Rotate(t.Context()))
	}
	for range 4 {
		require.NoError(t, <-wrote)
	}
	close(done)
	require.NoError(t, <-read)
	assert.Equal(t, "verified 1-206; own word 1-206", b.verify(l.Store))
	b.accept(l)
}

// A process that is killed at any step of a change comes back with every record
// that was acknowledged, and with the key that its last record says. The disk as
// it was at the step is what a kill -9 leaves.
func TestRotateKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	l := b.open()
	stop := queuetest.Start(t, l)
	b.add(l, 5)
	images := map[string]string{}
	b.steps.at = func(step string) {
		images[step] = t.TempDir()
		copyKeys(t, filepath.Join(images[step], "keys"), filepath.Join(b.dir, "keys"))
		require.NoError(t, os.CopyFS(filepath.Join(images[step], "ledger"), os.DirFS(filepath.Join(b.dir, "ledger"))))
	}
	require.NoError(t, l.Rotate(t.Context()))
	b.steps.at("noted")
	b.steps.at = func(string) {}
	b.add(l, 1)
	stop()
	for step, want := range map[string]struct{ records, handovers int }{
		"before": {6, 0}, "prepared": {6, 0}, "recorded": {7, 1}, "taken": {7, 1}, "noted": {7, 1},
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, images, step)
			c := &box{t: t, dir: images[step], admission: b.admission, trust: b.trust}
			for range 2 { // and once more, after it was settled
				c.reopen()
				l := c.open()
				stop := queuetest.Start(t, l)
				assert.Len(t, c.keys.Handovers(), want.handovers)
				assert.NoFileExists(t, filepath.Join(c.dir, "keys", "ledger.pem-next"))
				assert.Len(t, queuetest.Read(t, l), want.records)
				c.add(l, 1)
				want.records++
				c.verify(l.Store)
				c.accept(l)
				stop()
			}
			c.reopen()
			l := c.open()
			queuetest.Start(t, l)
			require.NoError(t, l.Rotate(t.Context()), "and the key can be changed")
			c.verify(l.Store)
		})
	}
}

// What fails after the key record is on disk ends the acknowledging, and the next
// start finishes it. The control does not, and what it signs is found.
func TestRotateFailsAfterTheRecord(t *testing.T) {
	t.Parallel()
	for _, control := range []bool{false, true} {
		b := newBox(t)
		l := b.open()
		ended := make(chan error, 1)
		go func() { ended <- l.Run(context.Background()) }()
		b.add(l, 3)
		b.steps.fail = map[string]error{"settle": errors.New("the directory cannot be synced")}
		err := l.Rotate(t.Context())
		require.ErrorIs(t, err, queue.ErrStopped)
		assert.ErrorContains(t, err, "cannot be synced")
		_, err = l.Append(t.Context(), queuetest.Record(1))
		require.ErrorIs(t, err, queue.ErrStopped)
		require.ErrorIs(t, <-ended, queue.ErrStopped)
		require.NoError(t, l.Close())

		b.reopen()
		cfg := b.config()
		if control {
			cfg.Keys = nil
		}
		l, err = openLedger(cfg)
		require.NoError(t, err)
		queuetest.Start(t, l)
		b.add(l, 1)
		if !control {
			assert.Equal(t, "verified 1-6; own word 1-6", b.verify(l.Store))
			continue
		}
		cert, err := chain.ParseCertificate(b.admission.Ledger)
		require.NoError(t, err)
		var text bytes.Buffer
		require.NoError(t, l.Export(&text, cert))
		v := chain.NewVerifier(b.trust, nil)
		for line := range bytes.Lines(text.Bytes()) {
			err = errors.Join(err, v.Line(bytes.TrimSuffix(line, []byte("\n"))))
		}
		assert.ErrorContains(t, err, "signed by a retired key")
	}
}

// What fails before leaves the key as it was, and the ledger goes on.
func TestRotateFailsBeforeTheRecord(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	l := b.open()
	queuetest.Start(t, l)
	b.steps.fail = map[string]error{"prepare": errors.New("no room for a key")}
	assert.ErrorContains(t, l.Rotate(t.Context()), "no room for a key")
	b.add(l, 1)
	b.steps.fail = nil
	full := true
	l.SetDisk(func(write func() error) error {
		if full {
			return &os.PathError{Op: "write", Err: syscall.ENOSPC}
		}
		return write()
	})
	require.ErrorIs(t, l.Rotate(t.Context()), queue.ErrDiskFull)
	assert.NoFileExists(t, filepath.Join(b.dir, "keys", "ledger.pem-next"))
	full = false
	assert.Equal(t, "verified 1-2; own word 1-2", b.verify(l.Store))
	assert.Empty(t, b.keys.Handovers())
}

func TestRotateRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := openLedger(queuetest.Config(dir))
	require.NoError(t, err)
	stop := queuetest.Start(t, l)
	assert.ErrorIs(t, l.Rotate(t.Context()), queue.ErrFixedKey)
	stop()
	b := newBox(t)
	l = b.open()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, l.Rotate(ctx), context.Canceled, "nobody commits")
	queuetest.Start(t, l)()
	assert.ErrorIs(t, l.Rotate(t.Context()), queue.ErrStopped)
}

// A ledger whose key record is its last and whose key is gone does not go on with
// another.
func TestKeyThatIsGone(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	old := filepath.Join(t.TempDir(), "keys")
	copyKeys(t, old, filepath.Join(b.dir, "keys"))
	l := b.open()
	stop := queuetest.Start(t, l)
	require.NoError(t, l.Rotate(t.Context()))
	stop()
	putBack := func() {
		require.NoError(t, os.RemoveAll(filepath.Join(b.dir, "keys")))
		copyKeys(t, filepath.Join(b.dir, "keys"), old)
		b.reopen()
	}
	now := filepath.Join(t.TempDir(), "keys")
	copyKeys(t, now, filepath.Join(b.dir, "keys"))
	putBack()
	_, err := openLedger(b.config())
	assert.ErrorIs(t, err, device.ErrLedgerKey)

	old, now = now, old // and where records follow
	putBack()
	l = b.open()
	stop = queuetest.Start(t, l)
	b.add(l, 1)
	stop()
	old = now
	putBack()
	_, err = openLedger(b.config())
	assert.ErrorContains(t, err, "were the keys replaced?")
}

// onTPM has the key that follows be of the kind that a TPM has.
type onTPM struct {
	*steps
	path string
}

func (k *onTPM) Prepare(terminal chain.TerminalID) (string, error) {
	next, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	handover, err := chain.SignHandover(k.Ledger(), terminal, next.Public())
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(next)
	if err != nil {
		return "", err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, jws := range append(slices.Clone(k.Handovers()), handover) {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "ROLLCALL HANDOVER", Bytes: []byte(jws)})...)
	}
	return handover, os.WriteFile(k.path, text, 0o600)
}

var queuetestDay = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// From Ed25519 to P-256 and back: the algorithm is the key's.
func TestRotateToES256(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	cfg := b.config()
	cfg.Keys = &onTPM{b.steps, filepath.Join(b.dir, "keys", "ledger.pem-next")}
	l, err := openLedger(cfg)
	require.NoError(t, err)
	stop := queuetest.Start(t, l)
	b.add(l, 2)
	require.NoError(t, l.Rotate(t.Context()))
	b.add(l, 2)
	assert.IsType(t, &ecdsa.PrivateKey{}, b.keys.Ledger())
	stop()
	b.reopen()
	l = b.open()
	queuetest.Start(t, l)
	b.add(l, 1)
	assert.Equal(t, "verified 1-7; own word 1-7", b.verify(l.Store))
	require.NoError(t, l.Rotate(t.Context()))
	b.add(l, 1)
	assert.Equal(t, "verified 1-9; own word 1-9", b.verify(l.Store))
	b.accept(l)
}

// days fills three files, the key changed in the second of them.
func (b *box) days(change int) *queue.Ledger {
	day := 0
	cfg := b.config()
	stamp := cfg.Stamp
	cfg.Stamp = func() chain.Stamp {
		s := stamp()
		s.Wall = chain.NewWall(s.Wall.AddDate(0, 0, day))
		return s
	}
	l, err := openLedger(cfg)
	require.NoError(b.t, err)
	stop := queuetest.Start(b.t, l)
	for ; day < 3; day++ {
		b.add(l, 10)
		if day == change {
			require.NoError(b.t, l.Rotate(context.Background()))
			b.add(l, 10)
		}
	}
	stop()
	require.Len(b.t, recordFiles(b.t, b.dir), 3)
	b.reopen()
	return b.open()
}

// After the retention let the key record go, the rest verifies by the handovers
// that the export begins with.
func TestKeyRecordIsLetGo(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	l := b.days(0)
	stop := queuetest.Start(t, l)
	b.accept(l)
	stop()
	b.reopen()
	cfg := b.config()
	cfg.Retention = 1
	l, err := openLedger(cfg)
	require.NoError(t, err)
	queuetest.Start(t, l)
	b.add(l, 1)
	_, last, _ := l.Marks()
	line, err := l.Line(l.Status().Log, last)
	require.NoError(t, err)
	at := chain.NewWall(queuetestDay.AddDate(1, 0, 0))
	jws, err := chain.Sign(queuetest.CentreKey, chain.PurposeReceipt, chain.Receipt{Log: l.Status().Log, Seq: last, Hash: chain.HashLine(line), At: at})
	require.NoError(t, err)
	_, err = l.Receipt([]byte(jws))
	require.NoError(t, err)
	require.NoError(t, l.LetGo())
	assert.Contains(t, b.verify(l.Store), "let go 1-32; verified 33-43")
	assert.Equal(t, 0, slices.IndexFunc(queuetest.Read(t, l), func(e chain.Entry) bool { return e.Seq == 33 }))
}

// A key record that was lost with its file: the batches carry the handover, and
// an epoch that begins names it.
func TestKeyRecordIsLost(t *testing.T) {
	t.Parallel()
	for _, lost := range []int{1, 2} {
		b := newBox(t)
		l := b.days(lost)
		require.NoError(t, l.Close())
		require.NoError(t, os.Truncate(recordFiles(t, b.dir)[lost], 4096))
		for range 4 {
			b.reopen()
			l = b.open()
			if err := l.Each(func(chain.Entry) error { return nil }); err == nil {
				break
			}
			require.NoError(t, l.Close())
		}
		stop := queuetest.Start(t, l)
		b.add(l, 3)
		entries := queuetest.Read(t, l)
		assert.False(t, slices.ContainsFunc(entries, func(e chain.Entry) bool { return e.Type == string(attendance.TypeKey) }))
		b.verify(l.Store)
		b.accept(l)
		open, err := l.Opening()
		require.NoError(t, err)
		if lost == 2 { // the end may be missing: another epoch
			assert.Equal(t, b.keys.Handovers(), open.Handovers)
		}
		stop()
	}
}

// A file from before the change lost its last head: it is signed anew with the
// key in force now, and both verifiers and a centre that has not heard of that
// key take it, with what stands between by the first.
func TestHeadSignedAnewAfterAChange(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	l := b.days(1)
	require.NoError(t, l.Close())
	file := recordFiles(t, b.dir)[0]
	db, err := bbolt.Open(file, 0o600, nil)
	require.NoError(t, err)
	var lost []byte
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte("records"))
		key, head := bucket.Cursor().Last()
		require.Equal(t, byte('h'), key[len(key)-1])
		lost = bytes.Clone(head)
		return bucket.Delete(key)
	}))
	require.NoError(t, db.Close())
	text, err := os.ReadFile(file) // pages that are free hold it still
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, bytes.ReplaceAll(text, lost, make([]byte, len(lost))), 0o600))
	for range 4 {
		b.reopen()
		l = b.open()
		if err := l.Each(func(chain.Entry) error { return nil }); err == nil {
			break
		}
		require.NoError(t, l.Close())
	}
	queuetest.Start(t, l)
	assert.Equal(t, "verified 1-42; own word 1-42", b.verify(l.Store))
	payload, last, err := l.Batch(0, chain.MaxBatchRecords, chain.MaxBatchBytes)
	require.NoError(t, err)
	batch, err := chain.ParseBatch(payload)
	require.NoError(t, err)
	assert.Equal(t, chain.Seq(11), last, "the file's last")
	assert.Equal(t, b.keys.Handovers(), batch.Handovers)
	b.accept(l)
	assert.Contains(t, b.verify(l.Store), "sealed to 42")
}

// A head by the first key over what was written after the change is not this
// ledger's, whoever put it there: the record before it is the last that counts.
func TestHeadByARetiredKeyIsNotOurs(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	l := b.open()
	stop := queuetest.Start(t, l)
	b.add(l, 3)
	first := b.keys.Ledger()
	require.NoError(t, l.Rotate(t.Context()))
	b.add(l, 1)
	log := l.Status().Log
	line, err := l.Line(log, 6)
	require.NoError(t, err)
	stop()
	forged, err := chain.Sign(first, chain.PurposeHead, chain.Head{Log: log, Seq: 6, Hash: chain.HashLine(line), Wall: chain.NewWall(queuetestDay)})
	require.NoError(t, err)
	db, err := bbolt.Open(recordFiles(t, b.dir)[0], 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte("records"))
		key, _ := bucket.Cursor().Last()
		return bucket.Put(bytes.Clone(key), []byte(forged))
	}))
	require.NoError(t, db.Close())

	b.reopen()
	l = b.open()
	queuetest.Start(t, l)
	b.add(l, 1)
	assert.NotContains(t, b.verify(l.Store), "retired")
	files, err := filepath.Glob(filepath.Join(b.dir, "ledger", "*", "*.bad"))
	require.NoError(t, err)
	assert.NotEmpty(t, files, "it was set aside")
	b.accept(l)
}
