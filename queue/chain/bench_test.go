package chain_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

// body is a check-in as large as they come.
const body = `{"trainee":"tr-0007","class":"c-2026-031","session":"s-1","decision":"late","late_min":7,"tapped":"2026-11-21T09:07:01.870+08:00",` +
	`"card":{"kind":"ssc","level":"file","reader":"Reader 1"},"face":{"level":"match","tries":1,"score":0.71,"threshold":0.412,"uncalibrated":true,` +
	`"quality":0.95,"liveness":0.81,"model":"5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f","enrol":3},"profile":{"id":"generic","version":1}}`

// How much does verifying cost beside the signatures that have to be checked,
// and beside a SHA-256 and a reading of each line? The controls do these and
// nothing else, in the same run.
func BenchmarkVerify(b *testing.B) {
	for _, records := range []int{1, 32} {
		b.Run(fmt.Sprintf("head every %d", records), func(b *testing.B) {
			h := newHouse(b)
			l := &ledger{h: h, key: terminalKey, log: logA}
			file := [][]byte{chain.CertificateLine(h.cert)}
			var heads [][]byte
			for i := range 256 {
				l.append("checkin", body, nil, 0)
				file = append(file, l.lines[i])
				if (i+1)%records == 0 {
					file, heads = append(file, l.heads[i]), append(heads, l.heads[i])
				}
			}
			signatures := bareSignatures(b, heads)
			var whole, bare, lines time.Duration
			for b.Loop() {
				whole += took(func() {
					_, err := feed(chain.NewVerifier(&h.trust, nil), file)
					require.NoError(b, err)
				})
				bare += took(signatures)
				lines += took(func() {
					for _, line := range l.lines {
						_ = chain.HashLine(line)
						_, _ = chain.ParseLine(line)
					}
				})
			}
			b.ReportMetric(float64(whole.Nanoseconds())/float64(b.N*len(l.lines)), "ns/record")
			b.ReportMetric(whole.Seconds()/bare.Seconds(), "of-bare-signatures")
			b.ReportMetric(whole.Seconds()/(bare+lines).Seconds(), "of-signatures-hashes-reading")
		})
	}
}

// bareSignatures checks signatures with Ed25519 alone.
func bareSignatures(b *testing.B, heads [][]byte) func() {
	type signed struct{ input, sig []byte }
	var all []signed
	for _, head := range heads {
		dot := bytes.LastIndexByte(head, '.')
		sig, err := base64.RawURLEncoding.DecodeString(string(head[dot+1:]))
		require.NoError(b, err)
		all = append(all, signed{head[:dot], sig})
	}
	pub := terminalKey.Public().(ed25519.PublicKey)
	return func() {
		for _, s := range all {
			if !ed25519.Verify(pub, s.input, s.sig) {
				b.Error("a signature does not verify")
			}
		}
	}
}

// took is the processor time of f in this process: what others do on the
// machine does not count.
func took(f func()) time.Duration {
	began := processorTime()
	f()
	return processorTime() - began
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkParseLine(b *testing.B) {
	l := &ledger{h: newHouse(b), key: terminalKey, log: logA}
	l.append("checkin", body, nil, 0)
	for b.Loop() {
		_, err := chain.ParseLine(l.lines[0])
		require.NoError(b, err)
	}
}

// What does the signature add to a record when 32 share one?
func BenchmarkSign(b *testing.B) {
	l := &ledger{h: newHouse(b), key: terminalKey, log: logA}
	l.append("checkin", body, nil, 0)
	head := chain.Head{Log: logA, Seq: 1, Hash: l.hash(1), Wall: chain.NewWall(morning)}
	for b.Loop() {
		_, err := chain.Sign(terminalKey, chain.PurposeHead, head)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/32, "ns/record")
}

// FuzzVerifier gives whole files to a verifier: nothing may panic, and what is
// sealed can only be what the centre sealed.
func FuzzVerifier(f *testing.F) {
	h := newHouse(f)
	for i := range len(classes) {
		_, s := spoil(h, 1, i)
		f.Add(bytes.Join(s.files[0].file(), []byte("\n")))
	}
	receipt := receiptKey.Public().(ed25519.PublicKey)
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, trust := range []*chain.Trust{nil, &h.trust} {
			epochs, err := feed(chain.NewVerifier(trust, nil), bytes.Split(file, []byte("\n")))
			if err != nil {
				continue
			}
			for _, e := range epochs {
				require.Equal(t, e.Last, e.Stretches[len(e.Stretches)-1].Last)
				if seq := sealedBelow(e); seq > 0 {
					require.True(t, receiptFor(receipt, file, e.Log, seq), "sealed to %d without a receipt", seq)
				}
			}
		}
	})
}

func receiptFor(key ed25519.PublicKey, file []byte, log chain.LogID, seq chain.Seq) bool {
	for line := range bytes.SplitSeq(file, []byte("\n")) {
		if r, err := chain.OpenReceipt(key, line); err == nil && r.Log == log && r.Seq == seq {
			return true
		}
	}
	return false
}
