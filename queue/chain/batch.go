package chain

import (
	"bytes"
	"crypto"
	"fmt"
)

// A batch is the payload of one uplink message: record lines in order, then
// one head that covers the last of them, newline-separated.
const (
	MaxBatchRecords = 128
	MaxBatchBytes   = 64 << 10
)

// Batch is a parsed uplink message. Lines[i] are the bytes of Entries[i].
type Batch struct {
	Lines   [][]byte
	Entries []Entry
	Head    []byte
}

// FormBatch joins lines and the head that covers the last.
func FormBatch(lines [][]byte, head []byte) []byte {
	return bytes.Join(append(append([][]byte(nil), lines...), head), []byte("\n"))
}

// ParseBatch splits a payload and parses its lines. The lines must follow one
// another within one log; nothing is checked against a signature or against
// what came before: that is [Batch.Check].
func ParseBatch(payload []byte) (Batch, error) {
	if len(payload) > MaxBatchBytes {
		return Batch{}, fmt.Errorf("batch of %d bytes, at most %d: %w", len(payload), MaxBatchBytes, ErrMalformed)
	}
	parts := bytes.Split(payload, []byte("\n"))
	lines, head := parts[:len(parts)-1], parts[len(parts)-1]
	if len(lines) == 0 || len(lines) > MaxBatchRecords {
		return Batch{}, fmt.Errorf("batch of %d records: %w", len(lines), ErrMalformed)
	}
	b := Batch{Lines: lines, Head: head, Entries: make([]Entry, len(lines))}
	for i, line := range lines {
		e, err := ParseLine(line)
		if err != nil {
			return Batch{}, err
		}
		if i > 0 && !follows(e, b.Entries[i-1].Log, b.Entries[i-1].Seq, HashLine(lines[i-1])) {
			return Batch{}, fmt.Errorf("batch: record %d does not follow %d: %w", e.Seq, b.Entries[i-1].Seq, ErrMalformed)
		}
		b.Entries[i] = e
	}
	return b, nil
}

// Log is the log of every record in the batch.
func (b Batch) Log() LogID { return b.Entries[0].Log }

// First and Last are the sequence numbers the batch runs from and to.
func (b Batch) First() Seq { return b.Entries[0].Seq }
func (b Batch) Last() Seq  { return b.Entries[len(b.Entries)-1].Seq }

// LastHash is the hash of the last line.
func (b Batch) LastHash() Hash { return HashLine(b.Lines[len(b.Lines)-1]) }

// Check verifies the head against the terminal's ledger key, and that it
// covers the last line.
func (b Batch) Check(pub crypto.PublicKey) (Head, error) {
	head, err := OpenHead(pub, b.Head)
	if err != nil {
		return head, err
	}
	if head.Log != b.Log() || head.Seq != b.Last() || head.Hash != b.LastHash() {
		return head, fmt.Errorf("head does not cover record %d: %w", b.Last(), ErrSignature)
	}
	return head, nil
}

// follows reports whether e is the record after (log, seq, hash).
func follows(e Entry, log LogID, seq Seq, hash Hash) bool {
	return e.Log == log && e.Seq == seq+1 && e.Prev == hash
}
