package chain

import (
	"bytes"
	"fmt"
	"slices"
)

// A batch is the payload of one uplink message: record lines in order, then
// the handovers that lead to the head's key where no record before the head
// brought them to the centre, then one head that covers the last line,
// newline-separated.
const (
	MaxBatchRecords = 128
	MaxBatchBytes   = 64 << 10
)

// Batch is a parsed uplink message. Lines[i] are the bytes of Entries[i].
type Batch struct {
	Lines     [][]byte
	Entries   []Entry
	Handovers []string
	Head      []byte
}

// FormBatch joins lines, handovers and the head that covers the last line. Of
// more handovers than fit the last are taken.
func FormBatch(lines [][]byte, head []byte, handovers ...string) []byte {
	parts := slices.Clone(lines)
	room := MaxBatchBytes - len(head)
	for _, line := range lines {
		room -= len(line) + 1
	}
	first := len(handovers)
	for first > 0 && len(handovers[first-1])+1 <= room {
		first--
		room -= len(handovers[first]) + 1
	}
	for _, jws := range handovers[first:] {
		parts = append(parts, []byte(jws))
	}
	return bytes.Join(append(parts, head), []byte("\n"))
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
	var handovers []string
	for n := len(lines); n > 0 && len(lines[n-1]) > 0 && lines[n-1][0] != '{'; n = len(lines) {
		handovers = append(handovers, string(lines[n-1]))
		lines = lines[:n-1]
	}
	slices.Reverse(handovers)
	if len(lines) == 0 || len(lines) > MaxBatchRecords || len(head) == 0 {
		return Batch{}, fmt.Errorf("batch of %d records: %w", len(lines), ErrMalformed)
	}
	b := Batch{Lines: lines, Handovers: handovers, Head: head, Entries: make([]Entry, len(lines))}
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

// Turn is a change of the key in force that a record tells: the key at Place of
// the ring signs what stands after record Seq; 0 is the place before line 1.
type Turn struct {
	Seq   Seq
	Place int
}

// Check verifies the head, and that it covers the last line. The ring holds the
// keys known so far and grows by what the batch brings; place is that of the key
// in force before its first record. It gives the changes that its records tell,
// and the place of the key that signed: the one in force at the last record, or
// one after it (a damaged file is signed anew when it is read). The error wraps
// [ErrRetired] for a key before it, [ErrUnknownKey] if no handover leads to the
// key, and else [ErrSignature] or [ErrMalformed].
func (b Batch) Check(ring *Ring, place int) (turns []Turn, by int, err error) {
	now := inForce{place: place, unsure: true}
	for _, e := range b.Entries {
		if now, err = now.at(e, ring); err != nil {
			return nil, 0, fmt.Errorf("record %d: %w", e.Seq, err)
		}
		if e.Seq == 1 && now.place > 0 {
			turns = append(turns, Turn{0, now.place})
		}
		if place = now.place; now.hands {
			turns = append(turns, Turn{e.Seq, place + 1})
		}
	}
	if err := ring.Follow(b.Handovers...); err != nil {
		return nil, 0, err
	}
	head, by, err := ring.OpenHead(b.Head)
	switch {
	case err != nil:
		return nil, by, err
	case head.Log != b.Log() || head.Seq != b.Last() || head.Hash != b.LastHash():
		return nil, by, fmt.Errorf("head does not cover record %d: %w", b.Last(), ErrSignature)
	case by < place:
		return nil, by, fmt.Errorf("record %d: %w", b.Last(), ErrRetired)
	}
	return turns, by, nil
}

// follows reports whether e is the record after (log, seq, hash).
func follows(e Entry, log LogID, seq Seq, hash Hash) bool {
	return e.Log == log && e.Seq == seq+1 && e.Prev == hash
}
