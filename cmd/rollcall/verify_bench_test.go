package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// BenchmarkVerifyManyReceipts asks what the tool adds to the verifier where every
// record has a receipt, as in a bundle of a terminal that was always online:
// records are dated by the receipts around them. of-bare must not grow with the
// ledger.
func BenchmarkVerifyManyReceipts(b *testing.B) {
	for _, n := range []int{5_000, 20_000} {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			file, text, trust := manyReceipts(b, n)
			var tool, bare time.Duration
			for b.Loop() {
				began := time.Now()
				require.NoError(b, run(b.Context(), []string{"ledger", "verify", "-trust", trust, file}, io.Discard))
				tool += time.Since(began)
				believed, err := readTrust(trust)
				require.NoError(b, err)
				began = time.Now()
				v := chain.NewVerifier(believed, nil)
				for line := range bytes.Lines(text) {
					require.NoError(b, v.Line(bytes.TrimSuffix(line, []byte("\n"))))
				}
				_, err = v.Report()
				require.NoError(b, err)
				bare += time.Since(began)
			}
			b.ReportMetric(float64(tool)/float64(bare), "of-bare")
		})
	}
}

// manyReceipts writes an export with a head and a receipt behind each record,
// and whom to trust.
func manyReceipts(b *testing.B, n int) (file string, text []byte, trust string) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(b, err)
	at := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	cert := func(name string, role chain.Role) *x509.Certificate {
		t := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{string(role)}},
			NotBefore: at.AddDate(-1, 0, 0), NotAfter: at.AddDate(9, 0, 0), IsCA: role == "", BasicConstraintsValid: true,
		}
		issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "authority", OrganizationalUnit: []string{""}}}
		der, err := x509.CreateCertificate(rand.Reader, t, issuer, public, key)
		require.NoError(b, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(b, err)
		return cert
	}
	pem, err := chain.EncodePublicKey(public) // one key is everybody's here
	require.NoError(b, err)
	admission, err := json.Marshal(chain.Admission{CA: chain.EncodeCertificate(cert("authority", "").Raw), ReceiptKey: pem, PackageKey: pem})
	require.NoError(b, err)
	trust = filepath.Join(b.TempDir(), "admission.json")
	require.NoError(b, os.WriteFile(trust, admission, 0o600))

	out := bytes.NewBuffer(append(chain.CertificateLine(cert("t-1", chain.RoleLedger)), '\n'))
	var prev chain.Hash
	for seq := chain.Seq(1); seq <= chain.Seq(n); seq++ {
		record := attendance.NewRecord(attendance.TypeFault, attendance.FaultBody{Part: "reader", Code: "removed", Tapped: "t", Reader: "r"})
		wall := chain.NewWall(at.Add(time.Duration(seq) * time.Second))
		line, err := chain.Entry{
			V: chain.Version, Log: "t-1/aaaaaaaaaaaa", Seq: seq, Prev: prev, Type: string(record.Type), Body: record.Body,
			At: chain.Stamp{Wall: wall, Boot: "b-1", UpMS: int64(seq) * 1000, Clock: chain.ClockSynced, ErrMS: 40},
		}.Line()
		require.NoError(b, err)
		prev = chain.HashLine(line)
		head, err := chain.Sign(key, chain.PurposeHead, chain.Head{Log: "t-1/aaaaaaaaaaaa", Seq: seq, Hash: prev, Wall: wall})
		require.NoError(b, err)
		receipt, err := chain.Sign(key, chain.PurposeReceipt, chain.Receipt{Log: "t-1/aaaaaaaaaaaa", Seq: seq, Hash: prev, At: chain.NewWall(wall.Add(time.Second))})
		require.NoError(b, err)
		for _, part := range [][]byte{line, []byte(head), []byte(receipt)} {
			out.Write(append(part, '\n'))
		}
	}
	file = filepath.Join(b.TempDir(), "export.ndjson")
	require.NoError(b, os.WriteFile(file, out.Bytes(), 0o600))
	return file, out.Bytes(), trust
}
