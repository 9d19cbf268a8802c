package chain_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

// Fixed keys: nothing here is secret.
var (
	caKey       = key(1)
	terminalKey = key(2)
	otherKey    = key(3)
	receiptKey  = key(4)
	strangerKey = key(5)
)

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), seed))
}

const logA chain.LogID = "t-1/aaaa"

var morning = time.Date(2026, 11, 21, 8, 30, 0, 0, time.FixedZone("", 8*3600))

// certificate is what a centre's authority says of a key.
func certificate(t testing.TB, ca *x509.Certificate, by ed25519.PrivateKey, role chain.Role, name string, k ed25519.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7),
		Subject:      pkix.Name{CommonName: name, OrganizationalUnit: []string{string(role)}},
		NotBefore:    morning.Add(-time.Hour), NotAfter: morning.AddDate(20, 0, 0),
	}
	if ca == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		ca = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, k.Public(), by)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// house is a centre with two terminals.
type house struct {
	t     testing.TB
	trust chain.Trust
	cert  *x509.Certificate // of t-1
	other *x509.Certificate // of t-2
}

func newHouse(t testing.TB) house {
	ca := certificate(t, nil, caKey, "", "authority", caKey)
	return house{
		t:     t,
		trust: chain.Trust{CA: ca, Receipt: receiptKey.Public(), Package: receiptKey.Public()},
		cert:  certificate(t, ca, caKey, chain.RoleLedger, "t-1", terminalKey),
		other: certificate(t, ca, caKey, chain.RoleLedger, "t-2", otherKey),
	}
}

// ledger is records 1..n of a log, each with its head.
type ledger struct {
	h     house
	key   crypto.Signer
	log   chain.LogID
	lines [][]byte // lines[i] is record i+1
	heads [][]byte
}

func (h house) ledger(k ed25519.PrivateKey, log chain.LogID, n int) *ledger {
	l := &ledger{h: h, key: k, log: log}
	for i := range n {
		l.add(fmt.Sprintf(`{"n":%d}`, i+1))
	}
	return l
}

func (l *ledger) add(body string) { l.record("checkin", body) }

func (l *ledger) record(typ, body string) {
	n := len(l.lines)
	e := chain.Entry{
		V: chain.Version, Log: l.log, Seq: chain.Seq(n + 1), Type: typ, Body: []byte(body),
		At: chain.Stamp{Wall: chain.NewWall(morning.Add(time.Duration(n) * time.Second)), Boot: "b", UpMS: int64(n), Clock: chain.ClockSynced},
	}
	if n > 0 {
		e.Prev = chain.HashLine(l.lines[n-1])
	}
	line, err := e.Line()
	require.NoError(l.h.t, err)
	l.lines = append(l.lines, line)
	l.heads = append(l.heads, l.head(l.key, n+1))
}

func (l *ledger) hash(seq int) chain.Hash { return chain.HashLine(l.lines[seq-1]) }

func (l *ledger) head(k crypto.Signer, seq int) []byte {
	return jws(l.h.t, k, chain.PurposeHead, chain.Head{Log: l.log, Seq: chain.Seq(seq), Hash: l.hash(seq), Wall: chain.NewWall(morning)})
}

func (l *ledger) receipt(k ed25519.PrivateKey, seq int) []byte {
	at := chain.NewWall(morning.Add(time.Hour))
	return jws(l.h.t, k, chain.PurposeReceipt, chain.Receipt{Log: l.log, Seq: chain.Seq(seq), Hash: l.hash(seq), At: at})
}

func jws(t testing.TB, k crypto.Signer, purpose chain.Purpose, payload any) []byte {
	t.Helper()
	s, err := chain.Sign(k, purpose, payload)
	require.NoError(t, err)
	return []byte(s)
}

// export is the certificate, records with a head after every third and the
// last, and the receipts given.
func (l *ledger) export(receipts ...[]byte) [][]byte {
	out := [][]byte{chain.CertificateLine(l.h.cert)}
	for i, line := range l.lines {
		out = append(out, line)
		if (i+1)%3 == 0 || i+1 == len(l.lines) {
			out = append(out, l.heads[i])
		}
	}
	return append(out, receipts...)
}

// verify gives what a verifier says of a file.
func verify(trust *chain.Trust, file [][]byte) ([]chain.Epoch, error) {
	v := chain.NewVerifier(trust, nil)
	for _, line := range file {
		if err := v.Line(line); err != nil {
			return nil, err
		}
	}
	return v.Report()
}

// ringOf is t-1's, with the handovers that lead through keys.
func ringOf(t testing.TB, keys ...crypto.Signer) *chain.Ring {
	t.Helper()
	ring, err := chain.NewRing("t-1", terminalKey.Public(), handovers(t, append([]crypto.Signer{terminalKey}, keys...)...)...)
	require.NoError(t, err)
	return ring
}

// handovers lead from the first key through the others.
func handovers(t testing.TB, keys ...crypto.Signer) (out []string) {
	t.Helper()
	for i, next := range keys[1:] {
		h, err := chain.SignHandover(keys[i], "t-1", next.Public())
		require.NoError(t, err)
		out = append(out, h)
	}
	return out
}
