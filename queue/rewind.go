package queue

import (
	"errors"
	"fmt"

	"rollcall/queue/chain"
)

// ErrNotKept says that records are not, or not any more, in this ledger.
var ErrNotKept = errors.New("the records are not in this ledger")

// Rewind has the records of a log after seq sent again, whatever the centre has
// said that it has. What is stored and what waits does not change. It is on disk
// when Rewind returns: a restart begins it anew, until a receipt says that the
// centre is where it was known to be. It returns an error that wraps
// [ErrNotKept] if the log is not here, or does not go on after seq, or the
// record after it was let go; and [ErrDiskFull] or [ErrStopped].
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
	err := l.writeState("storing what goes again", func() error {
		s := l.now().clone()
		s.find(log).Again = &seq
		return l.save(s)
	})
	if err != nil {
		return err
	}
	l.advance(func() { l.again[log] = seq })
	return nil
}

// endsAgain reports whether a receipt ends what was to go again: the centre is
// where it is known to have been before.
func (l *Ledger) endsAgain(r chain.Receipt) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, again := l.again[r.Log]
	return again && r.Seq >= l.receipts[r.Log].Seq
}

// goneAgain takes a receipt for records that were to go again.
func (l *Ledger) goneAgain(r chain.Receipt, ends bool) {
	l.mu.Lock()
	_, again := l.again[r.Log]
	l.mu.Unlock()
	if !again {
		return
	}
	l.advance(func() {
		if l.again[r.Log] = r.Seq; ends {
			delete(l.again, r.Log)
		}
	})
}

// recallAgain learns from the state what is to go again. What was let go since
// cannot.
func (l *Ledger) recallAgain() {
	l.again = map[chain.LogID]chain.Seq{}
	for _, e := range l.state.Epochs {
		if e.Again != nil && *e.Again < l.lastOf(e.Log) && (e.Cut == nil || *e.Again >= e.Cut.Through) {
			l.again[e.Log] = *e.Again
		}
	}
}

// Line gives the bytes of a record, or an error that wraps [ErrNotKept].
func (l *Ledger) Line(log chain.LogID, seq chain.Seq) ([]byte, error) {
	line, err := l.line(log, seq)
	if err == nil && line == nil {
		err = fmt.Errorf("%w: record %d of %s", ErrNotKept, seq, log)
	}
	return line, err
}
