package queue

import (
	"errors"
	"fmt"

	"rollcall/queue/chain"
)

// ErrNotKept says that records are not, or not any more, in this ledger.
var ErrNotKept = errors.New("the records are not in this ledger")

// Rewind has the records of a log after seq sent again, whatever the centre has
// said that it has. What is stored and what waits does not change, and a
// restart forgets it. It returns an error that wraps [ErrNotKept] if the log is
// not here, or does not go on after seq, or the record after it was let go.
func (l *Ledger) Rewind(log chain.LogID, seq chain.Seq) error {
	now := l.now()
	e := now.find(log)
	if e == nil {
		return fmt.Errorf("%w: log %s", ErrNotKept, log)
	}
	l.mu.Lock()
	last := l.lastOf(log)
	l.mu.Unlock()
	if e.Cut != nil && seq < e.Cut.Through || seq >= last {
		return fmt.Errorf("%w: record %d of %s", ErrNotKept, seq+1, log)
	}
	l.advance(func() {
		if l.again == nil {
			l.again = map[chain.LogID]chain.Seq{}
		}
		l.again[log] = seq
	})
	return nil
}

// goneAgain takes a receipt for records that were to go again. It ends where
// the centre is known to have been before.
func (l *Ledger) goneAgain(r chain.Receipt) {
	l.mu.Lock()
	_, again := l.again[r.Log]
	known := max(r.Seq, l.receipts[r.Log].Seq)
	l.mu.Unlock()
	if !again {
		return
	}
	l.advance(func() {
		if l.again[r.Log] = r.Seq; r.Seq >= known {
			delete(l.again, r.Log)
		}
	})
}

// Line gives the bytes of a record, or an error that wraps [ErrNotKept].
func (l *Ledger) Line(log chain.LogID, seq chain.Seq) ([]byte, error) {
	line, err := l.line(log, seq)
	if err == nil && line == nil {
		err = fmt.Errorf("%w: record %d of %s", ErrNotKept, seq, log)
	}
	return line, err
}
