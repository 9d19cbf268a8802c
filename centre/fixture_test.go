package centre_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/centre/centretest"
	"rollcall/queue/chain"
)

// The row's 1,000 replays are always run against the store itself.
var long = flag.Bool("long", false, "1,000 replays through the listener instead of 200, 5 tampered disks of each kind instead of 2")

// rounds is how often a test repeats itself.
func rounds(short, full int) int {
	if *long {
		return full
	}
	return short
}

// TestMain has tests run beside each other, more than there are processors:
// most of them wait for a broker, a disk or a timeout.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
	os.Exit(centretest.Main(m)) // it parses the flags, which may say otherwise
}

// today is when the tests happen: a day with sessions of the sample class.
var today = time.Date(2026, 11, 22, 9, 0, 0, 0, time.FixedZone("", 8*3600))

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newCentre makes a centre with keys in a directory of the test.
func newCentre(t testing.TB, change ...func(*centre.Config)) (*centre.Centre, centre.Config, *logBuffer) {
	t.Helper()
	cfg := centre.Config{Tenant: "test", Dir: filepath.Join(t.TempDir(), "centre")}
	for _, c := range change {
		c(&cfg)
	}
	begin(t, cfg, time.Now())
	log := &logBuffer{}
	return open(t, cfg, log), cfg, log
}

// begin makes a centre's keys and, in a file, its empty database.
func begin(t testing.TB, cfg centre.Config, now time.Time) {
	t.Helper()
	require.NoError(t, centre.Init(cfg, now))
	if cfg.Database == "" {
		require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, "centre.db"), emptyDatabase(t), 0o600))
	}
}

var made struct {
	once  sync.Once
	bytes []byte
}

// emptyDatabase is what the centre makes of no file at all. It is made once:
// under the race detector that takes longer than most tests.
func emptyDatabase(t testing.TB) []byte {
	t.Helper()
	made.once.Do(func() {
		dir, err := os.MkdirTemp("", "")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		cfg := centre.Config{Tenant: "test", Dir: filepath.Join(dir, "centre")}
		require.NoError(t, centre.Init(cfg, time.Now()))
		c, err := centre.Open(context.Background(), cfg, discard(), time.Now)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		made.bytes, err = os.ReadFile(filepath.Join(cfg.Dir, "centre.db"))
		require.NoError(t, err)
	})
	return made.bytes
}

// onEachDatabase runs a test of the store on both that a centre can keep its
// records in, beside other tests.
func onEachDatabase(t *testing.T, test func(t *testing.T, on func(*centre.Config))) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, func(*centre.Config) {})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, onPostgres(t))
	})
}

// onPostgres gives each centre that is made with it an empty database.
func onPostgres(t testing.TB) func(*centre.Config) {
	return func(cfg *centre.Config) {
		db := centretest.Postgres(t)
		cfg.Database, cfg.DatabasePassword = db.Address, db.PasswordFile
	}
}

func open(t testing.TB, cfg centre.Config, log *logBuffer) *centre.Centre {
	t.Helper()
	c, err := centre.Open(context.Background(), cfg, slog.New(slog.NewTextHandler(log, nil)), time.Now)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// box is a terminal's keys and ledger, as far as the centre can see them.
type box struct {
	id        chain.TerminalID
	ledger    crypto.Signer
	handovers []string // that lead to it from the certificate's
	uplink    *ecdsa.PrivateKey
	sealing   *ecdh.PrivateKey
	admission chain.Admission
	centre    crypto.PublicKey // that signs receipts; set by receipt

	log  chain.LogID
	last chain.Seq
	prev chain.Hash
	ack  *chain.Ack // what the next records name
	wall time.Time  // of the next records; zero: today
}

func newBox(t testing.TB, id chain.TerminalID) *box {
	t.Helper()
	b := &box{id: id, log: chain.NewLogID(id, "e1")}
	var err error
	_, b.ledger, err = ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	b.uplink, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	b.sealing, err = ecdh.X25519().GenerateKey(rand.Reader)
	require.NoError(t, err)
	return b
}

func (b *box) request(t testing.TB) []byte {
	t.Helper()
	text, err := json.Marshal(chain.Request{
		V: 1, Terminal: b.id, Sealing: b.sealing.PublicKey().Bytes(),
		Ledger: signingRequest(t, b.id, chain.RoleLedger, b.ledger), Handovers: b.handovers,
		Uplink: signingRequest(t, b.id, chain.RoleUplink, b.uplink),
	})
	require.NoError(t, err)
	return text
}

func signingRequest(t testing.TB, id chain.TerminalID, role chain.Role, key crypto.Signer) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: string(id), OrganizationalUnit: []string{string(role)}},
	}, key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// admitted makes a terminal that the centre knows.
func admitted(t testing.TB, c *centre.Centre, id chain.TerminalID) *box {
	t.Helper()
	b := newBox(t, id)
	var err error
	b.admission, err = c.Admit(context.Background(), b.request(t))
	require.NoError(t, err)
	return b
}

// tls is the terminal's side of the connection.
func (b *box) tls(t testing.TB) *tls.Config {
	t.Helper()
	trust, err := b.admission.Trust()
	require.NoError(t, err)
	cert, err := chain.ParseCertificate(b.admission.Uplink)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(trust.CA)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "127.0.0.1",
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: b.uplink}},
	}
}

// append forms the next lines of the ledger.
func (b *box) append(t testing.TB, records ...attendance.Record) [][]byte {
	t.Helper()
	wall := b.wall
	if wall.IsZero() {
		wall = today
	}
	var lines [][]byte
	for _, r := range records {
		e := chain.Entry{V: chain.Version, Log: b.log, Seq: b.last + 1, Prev: b.prev, Type: string(r.Type), Body: r.Body, Ack: b.ack,
			At: chain.Stamp{Wall: chain.NewWall(wall), Boot: "b", UpMS: int64(b.last), Clock: chain.ClockSynced}}
		line, err := e.Line()
		require.NoError(t, err)
		b.last, b.prev = e.Seq, chain.HashLine(line)
		lines = append(lines, line)
	}
	return lines
}

// batch puts a head on lines.
func (b *box) batch(t testing.TB, lines [][]byte) []byte {
	t.Helper()
	return chain.FormBatch(lines, head(t, b.ledger, lines[len(lines)-1]))
}

func head(t testing.TB, key crypto.Signer, last []byte) []byte {
	t.Helper()
	e, err := chain.ParseLine(last)
	require.NoError(t, err)
	jws, err := chain.Sign(key, chain.PurposeHead, chain.Head{Log: e.Log, Seq: e.Seq, Hash: chain.HashLine(last), Wall: e.At.Wall})
	require.NoError(t, err)
	return []byte(jws)
}

// newEpoch begins another ledger, as after the loss of the store.
func (b *box) newEpoch(name string) {
	b.log, b.last, b.prev = chain.NewLogID(b.id, name), 0, chain.Hash{}
}

// receipt checks a receipt's signature.
func (b *box) receipt(t testing.TB, jws []byte) chain.Receipt {
	t.Helper()
	if b.centre == nil { // it is asked thousands of times
		trust, err := b.admission.Trust()
		require.NoError(t, err)
		b.centre = trust.Receipt
	}
	r, err := chain.OpenReceipt(b.centre, jws)
	require.NoError(t, err)
	return r
}

func openRecord() attendance.Record {
	return attendance.NewRecord(attendance.TypeOpen, attendance.OpenBody{Reason: "new", Terminal: "t-1", Software: "test"})
}

func checkin(trainee string) attendance.Record {
	return attendance.NewRecord(attendance.TypeCheckin, attendance.CheckinBody{
		Trainee: attendance.TraineeID(trainee), Class: "c-1", Session: "s-1", Decision: attendance.OnTime,
		Tapped:  today.Format(attendance.TimeLayout),
		Card:    attendance.CardEvidence{Kind: attendance.KindSSC, Level: attendance.LevelFile, Reader: "r"},
		Profile: attendance.ProfileRef{ID: "generic", Version: 1},
	})
}

func checkins(n int) []attendance.Record {
	out := make([]attendance.Record, n)
	for i := range out {
		out[i] = checkin("p-1")
	}
	return out
}

// stored lists what the centre has.
func stored(t testing.TB, c *centre.Centre) []centre.Row {
	t.Helper()
	var rows []centre.Row
	require.NoError(t, c.Records(context.Background(), "", true, func(r centre.Row) error {
		rows = append(rows, r)
		return nil
	}))
	return rows
}

// contiguous checks that a log is stored once, without gaps, up to last.
func contiguous(t testing.TB, c *centre.Centre, b *box, last chain.Seq) {
	t.Helper()
	rows := stored(t, c)
	require.Len(t, rows, int(last))
	for i, r := range rows {
		assert.Equal(t, uint64(i+1), r.Seq)
	}
	assert.Equal(t, b.prev.String(), rows[last-1].Hash)
}
