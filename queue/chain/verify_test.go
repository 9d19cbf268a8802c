package chain_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

func TestVerifySays(t *testing.T) {
	h := newHouse(t)
	l := h.ledger(terminalKey, logA, 10)
	second := h.ledger(terminalKey, "t-1/bbbb", 4)
	early := slices.Insert(l.export(), 0, l.receipt(receiptKey, 7), l.receipt(receiptKey, 7))
	for _, tc := range []struct {
		name  string
		trust *chain.Trust
		file  [][]byte
		want  []string
	}{
		{"no receipt", &h.trust, l.export(), []string{"verified 1-10; own word 1-10"}},
		{"sealed in part", &h.trust, l.export(l.receipt(receiptKey, 7)),
			[]string{"verified 1-10; sealed to 7 at 2026-11-21T09:30:00.000+08:00 (centre); own word 8-10"}},
		{"sealed whole", &h.trust, l.export(l.receipt(receiptKey, 10)),
			[]string{"verified 1-10; sealed to 10 at 2026-11-21T09:30:00.000+08:00 (centre)"}},
		{"the highest receipt counts", &h.trust, l.export(l.receipt(receiptKey, 9), l.receipt(receiptKey, 3)),
			[]string{"verified 1-10; sealed to 9 at 2026-11-21T09:30:00.000+08:00 (centre); own word 10"}},
		{"receipts before their record, one twice", &h.trust, early,
			[]string{"verified 1-10; sealed to 7 at 2026-11-21T09:30:00.000+08:00 (centre); own word 8-10"}},
		{"without trust", nil, l.export(l.receipt(receiptKey, 7)),
			[]string{"verified 1-10; own word 1-10; key taken from the file itself"}},
		{"two epochs, receipts at the end", &h.trust, slices.Concat(l.export(), second.export(), [][]byte{second.receipt(receiptKey, 1), l.receipt(receiptKey, 10)}),
			[]string{
				"verified 1-10; sealed to 10 at 2026-11-21T09:30:00.000+08:00 (centre)",
				"verified 1-4; sealed to 1 at 2026-11-21T09:30:00.000+08:00 (centre); own word 2-4",
			}},
		{"every head", &h.trust, func() [][]byte {
			file := [][]byte{chain.CertificateLine(h.cert)}
			for i := range l.lines {
				file = append(file, l.lines[i], l.heads[i])
			}
			return append(file, l.heads[4])
		}(), []string{"verified 1-10; own word 1-10"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			epochs, err := verify(tc.trust, tc.file)
			require.NoError(t, err)
			var got []string
			for _, e := range epochs {
				got = append(got, e.String())
			}
			assert.Equal(t, tc.want, got)
		})
	}
}

// resign makes the ledger anew from a record on, with a changed body, as the
// holder of the key can.
func (l *ledger) resign(from int, body string) *ledger {
	forged := &ledger{h: l.h, key: l.key, log: l.log, lines: slices.Clone(l.lines[:from-1]), heads: slices.Clone(l.heads[:from-1])}
	forged.add(body)
	for seq := from + 1; seq <= len(l.lines); seq++ {
		e, err := chain.ParseLine(l.lines[seq-1])
		require.NoError(l.h.t, err)
		forged.add(string(e.Body))
	}
	return forged
}

// Every kind of manipulation is found, with the first bad record.
func TestManipulationIsFound(t *testing.T) {
	h := newHouse(t)
	l := h.ledger(terminalKey, logA, 12)
	foreign := h.ledger(otherKey, "t-2/cccc", 12)
	sealed := func(change func(lines, heads [][]byte) ([][]byte, [][]byte)) [][]byte {
		c := *l
		c.lines, c.heads = change(slices.Clone(l.lines), slices.Clone(l.heads))
		return append(c.export(), l.receipt(receiptKey, 12))
	}
	at := func(seq int) int { return 1 + (seq - 1) + (seq-1)/3 } // place of a record in an export
	file := func(change func(f [][]byte) [][]byte) [][]byte { return change(l.export(l.receipt(receiptKey, 12))) }

	for _, tc := range []struct {
		name string
		file [][]byte
		seq  chain.Seq
		what string
	}{
		{"a body altered", file(func(f [][]byte) [][]byte {
			f[at(5)] = bytes.Replace(f[at(5)], []byte(`{"n":5}`), []byte(`{"n":6}`), 1)
			return f
		}), 5, "was changed: record 6 names another hash"},
		{"the last body altered", file(func(f [][]byte) [][]byte {
			f[at(12)] = bytes.Replace(f[at(12)], []byte(`{"n":12}`), []byte(`{"n":13}`), 1)
			return f
		}), 12, "head was signed for"},
		{"a time altered", file(func(f [][]byte) [][]byte {
			f[at(5)] = bytes.Replace(f[at(5)], []byte(`T08:30:04`), []byte(`T08:29:04`), 1)
			return f
		}), 5, "was changed: record 6 names another hash"},
		{"spaces added", file(func(f [][]byte) [][]byte {
			f[at(5)] = bytes.Replace(f[at(5)], []byte(`"seq":5`), []byte(`"seq": 5`), 1)
			return f
		}), 5, "not in its one form"},
		{"removed", file(func(f [][]byte) [][]byte { return slices.Delete(f, at(5), at(5)+1) }), 5, "is missing: record 6"},
		{"the first removed", file(func(f [][]byte) [][]byte { return slices.Delete(f, at(1), at(1)+1) }), 1, "is missing"},
		{"inserted", file(func(f [][]byte) [][]byte { return slices.Insert(f, at(5), l.resign(5, `{"n":0}`).lines[4]) }), 5, "stands here again"},
		{"doubled", file(func(f [][]byte) [][]byte { return slices.Insert(f, at(5), f[at(5)]) }), 5, "stands here again"},
		{"two swapped", file(func(f [][]byte) [][]byte {
			f[at(5)], f[at(6)] = f[at(6)], f[at(5)]
			return f
		}), 5, "is missing: record 6"},
		{"tail cut at a head, receipt kept", sealed(func(lines, heads [][]byte) ([][]byte, [][]byte) { return lines[:9], heads[:9] }), 10, "receipt"},
		{"tail cut at a head, later head kept", append(h.cut(l, 9), l.heads[11]), 10, "a head signs for record 12"},
		{"tail cut between heads", file(func(f [][]byte) [][]byte { return f[:at(11)] }), 10, "no head covers 10"},
		{"last head cut", file(func(f [][]byte) [][]byte { return slices.Delete(f, at(12)+1, at(12)+2) }), 10, "no head covers 10-12"},
		{"rewritten by the key holder below a receipt", append(l.resign(5, `{"n":0}`).export(), l.receipt(receiptKey, 12)), 12, "not what the centre stored"},
		{"rewritten by another key", func() [][]byte {
			forged := *l
			forged.key, forged.lines, forged.heads = strangerKey, nil, nil
			for range 12 {
				forged.add(`{"n":0}`)
			}
			return forged.export()
		}(), 3, "head: "},
		{"another terminal's certificate", file(func(f [][]byte) [][]byte {
			f[0] = chain.CertificateLine(h.other)
			return f
		}), 1, `another terminal than the certificate's, "t-2"`},
		{"another terminal's certificate in the middle", func() [][]byte {
			// t-2 signs on, in t-1's name, after t-1's own head.
			c := *l
			c.key = otherKey
			forged := c.resign(4, `{"n":0}`)
			f := forged.export()
			return slices.Insert(f, at(4), chain.CertificateLine(h.other))
		}(), 4, "another terminal"},
		{"a head for another terminal", append(l.export(), jws(t, terminalKey, chain.PurposeHead, chain.Head{Log: foreign.log, Seq: 3, Hash: foreign.hash(3)})), 12, "does not sign for"},
		{"no certificate", file(func(f [][]byte) [][]byte { return f[1:] }), 1, "before the certificate"},
		{"a certificate by a stranger", file(func(f [][]byte) [][]byte {
			ca := certificate(t, nil, strangerKey, "", "authority", strangerKey)
			f[0] = chain.CertificateLine(certificate(t, ca, strangerKey, chain.RoleLedger, "t-1", terminalKey))
			return f
		}), 0, "not signed by the centre's authority"},
		{"the terminal's TLS certificate", file(func(f [][]byte) [][]byte {
			f[0] = chain.CertificateLine(certificate(t, h.trust.CA, caKey, chain.RoleUplink, "t-1", terminalKey))
			return f
		}), 0, "it is the uplink certificate"},
		{"head of other bytes", file(func(f [][]byte) [][]byte {
			f[at(6)+1] = l.resign(6, `{"n":0}`).heads[5]
			return f
		}), 6, "head was signed for"},
		{"a receipt as a head", file(func(f [][]byte) [][]byte {
			f[at(6)+1] = jws(t, terminalKey, chain.PurposeReceipt, chain.Receipt{Log: logA, Seq: 6, Hash: l.hash(6)})
			return f
		}), 6, "receipt: "},
		{"receipt of another hash", append(l.export(), l.resign(6, `{"n":0}`).receipt(receiptKey, 6)), 6, "not what the centre stored"},
		{"receipt by the terminal", append(l.export(), l.receipt(terminalKey, 6)), 12, "receipt: "},
		{"receipt of a log that is not there", append(l.export(), foreign.receipt(receiptKey, 3)), 1, "is missing"},
		{"both branches of a clone", slices.Concat(l.export(), l.resign(6, `{"n":0}`).export()), 1, "stands here again"},
		{"an ack of another line", func() [][]byte {
			return h.acked(l, chain.Ack{Seq: 3, Hash: l.hash(4)})
		}(), 13, "names a receipt for record 3"},
		{"an ack of a record to come", h.acked(l, chain.Ack{Seq: 13, Hash: l.hash(4)}), 13, "names a receipt for record 13"},
		{"a line of garbage", file(func(f [][]byte) [][]byte { return slices.Insert(f, at(5), []byte("garbage")) }), 5, "neither record"},
		{"an empty line", file(func(f [][]byte) [][]byte { return slices.Insert(f, at(5), nil) }), 5, "neither record"},
		{"nothing", nil, 0, "no record"},
		{"only a certificate", l.export()[:1], 0, "no record"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := verify(&h.trust, tc.file)
			problem, ok := errors.AsType[*chain.Problem](err)
			require.True(t, ok, "not found: %v", err)
			assert.Equal(t, tc.seq, problem.Seq, "%v", err)
			assert.Contains(t, err.Error(), tc.what)
		})
	}
}

// cut exports a ledger up to a record.
func (h house) cut(l *ledger, n int) [][]byte {
	c := *l
	c.lines, c.heads = l.lines[:n], l.heads[:n]
	return c.export()
}

// acked exports a ledger with one more record that names a receipt.
func (h house) acked(l *ledger, ack chain.Ack) [][]byte {
	c := *l
	c.lines, c.heads = slices.Clone(l.lines), slices.Clone(l.heads)
	c.add(`{}`)
	e, err := chain.ParseLine(c.lines[12])
	require.NoError(h.t, err)
	e.Ack = &ack
	c.lines[12], err = e.Line()
	require.NoError(h.t, err)
	c.heads[12] = c.head(c.key, 13)
	return c.export()
}

// What nobody can find is said: after the last receipt the holder of the key
// may write the tail again, and the report calls it own word.
func TestRewrittenTailIsOwnWord(t *testing.T) {
	h := newHouse(t)
	l := h.ledger(terminalKey, logA, 10)
	forged := l.resign(8, `{"n":0}`)
	require.NotEqual(t, l.hash(10), forged.hash(10))
	epochs, err := verify(&h.trust, forged.export(l.receipt(receiptKey, 7)))
	require.NoError(t, err, "not detectable")
	assert.Equal(t, "verified 1-10; sealed to 7 at 2026-11-21T09:30:00.000+08:00 (centre); own word 8-10", epochs[0].String())

	_, err = verify(&h.trust, forged.export(l.receipt(receiptKey, 8)))
	assert.Error(t, err, "one receipt later it is found")
}

func TestVerifierAsksForEachRecord(t *testing.T) {
	h := newHouse(t)
	l := h.ledger(terminalKey, logA, 5)
	v := chain.NewVerifier(&h.trust, func(e chain.Entry) error {
		if e.Seq == 4 {
			return errors.New("claims a match without an enrolment")
		}
		return nil
	})
	var err error
	for _, line := range l.export() {
		if err = v.Line(line); err != nil {
			break
		}
	}
	assert.EqualError(t, err, "record 4 of t-1/aaaa: claims a match without an enrolment")
}

// Any single byte changed anywhere in a sealed export is found, except in the
// parts of a certificate line that are not the certificate.
func TestEveryFlippedByteIsFound(t *testing.T) {
	h := newHouse(t)
	l := h.ledger(terminalKey, logA, 6)
	file := l.export(l.receipt(receiptKey, 6))
	for i, line := range file {
		for j := range line {
			spoiled := slices.Clone(file)
			spoiled[i] = slices.Clone(line)
			spoiled[i][j] ^= 1
			_, err := verify(&h.trust, spoiled)
			assert.Error(t, err, "line %d, byte %d", i, j)
		}
	}
}

func FuzzVerifierLine(f *testing.F) {
	h := newHouse(f)
	l := h.ledger(terminalKey, logA, 4)
	for _, line := range l.export(l.receipt(receiptKey, 3)) {
		f.Add(line)
	}
	f.Add([]byte(`{"certificate":null}`))
	f.Add([]byte(`{"certificate":"AAAA"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, trust := range []*chain.Trust{nil, &h.trust} {
			v := chain.NewVerifier(trust, nil)
			for _, before := range l.export() {
				require.NoError(t, v.Line(before))
			}
			// Only what the keys signed for may pass, and nothing may panic.
			if v.Line(line) != nil {
				continue
			}
			epochs, err := v.Report()
			if err == nil {
				assert.EqualValues(t, 4, epochs[0].Last)
			}
		}
	})
}
