package chain_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

func TestBatch(t *testing.T) {
	h := newHouse(t)
	l := h.ledger(terminalKey, logA, 200)
	other := h.ledger(terminalKey, "t-1/bbbb", 10)
	payload := chain.FormBatch(l.lines[4:8], l.heads[7])

	b, err := chain.ParseBatch(payload)
	require.NoError(t, err)
	assert.Equal(t, logA, b.Log())
	assert.Equal(t, chain.Seq(5), b.First())
	assert.Equal(t, chain.Seq(8), b.Last())
	assert.Equal(t, l.hash(8), b.LastHash())
	turns, by, err := b.Check(ringOf(t), 0)
	require.NoError(t, err)
	assert.Empty(t, turns)
	assert.Zero(t, by)

	for name, payload := range map[string][]byte{
		"nothing":          nil,
		"a head alone":     l.heads[0],
		"a gap":            chain.FormBatch([][]byte{l.lines[4], l.lines[6]}, l.heads[6]),
		"other order":      chain.FormBatch([][]byte{l.lines[5], l.lines[4]}, l.heads[4]),
		"doubled":          chain.FormBatch([][]byte{l.lines[4], l.lines[4]}, l.heads[4]),
		"two logs":         chain.FormBatch([][]byte{l.lines[4], other.lines[5]}, other.heads[5]),
		"too many records": chain.FormBatch(l.lines[:chain.MaxBatchRecords+1], l.heads[chain.MaxBatchRecords]),
		"too many bytes":   bytes.Repeat([]byte("x"), chain.MaxBatchBytes+1),
		"an empty line":    chain.FormBatch([][]byte{l.lines[4], nil}, l.heads[4]),
		"a newline more":   append(bytes.Clone(payload), '\n'),
	} {
		_, err := chain.ParseBatch(payload)
		assert.ErrorIs(t, err, chain.ErrMalformed, name)
	}
	for name, head := range map[string][]byte{
		"of an earlier line": l.heads[6],
		"of another log":     other.heads[7],
		"by another key":     l.head(strangerKey, 8),
		"a receipt":          l.receipt(terminalKey, 8),
	} {
		b, err := chain.ParseBatch(chain.FormBatch(l.lines[4:8], head))
		require.NoError(t, err, name)
		_, _, err = b.Check(ringOf(t), 0)
		assert.ErrorIs(t, err, chain.ErrSignature, name)
	}
}

func FuzzParseBatch(f *testing.F) {
	l := newHouse(f).ledger(terminalKey, logA, 3)
	f.Add(chain.FormBatch(l.lines, l.heads[2]))
	f.Add(chain.FormBatch(l.lines[1:2], l.heads[1]))
	f.Add(chain.FormBatch(l.lines, l.heads[2], handovers(f, terminalKey, nextKey, tpmKey)...))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		b, err := chain.ParseBatch(payload)
		if err != nil {
			if !errors.Is(err, chain.ErrMalformed) {
				t.Fatalf("%v does not unwrap to ErrMalformed", err)
			}
			return
		}
		assert.Equal(t, payload, chain.FormBatch(b.Lines, b.Head, b.Handovers...))
		assert.Equal(t, b.First()+chain.Seq(len(b.Lines))-1, b.Last())
		_, _, _ = b.Check(ringOf(t), 0)
	})
}
