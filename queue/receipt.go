package queue

import (
	"errors"
	"fmt"
	"time"

	"rollcall/queue/chain"
)

// Receipt takes the centre's receipt. One that is signed with the pinned key,
// names a log of this store and the hash of our own line is stored durably
// before Receipt returns; it covers every record up to it. One for a record
// that is covered already is true, changes nothing, and is returned too: it
// says where the centre stands.
//
// It returns chain.ErrSignature, [ErrReceipt] for a receipt of another log or
// of other bytes, and [ErrStopped].
func (l *Ledger) Receipt(jws []byte) (chain.Receipt, error) {
	r, err := l.CheckReceipt(jws)
	if err != nil {
		return r, err
	}
	var older, ends bool
	err = l.writeState("storing a receipt", func() error {
		older, ends = r.Seq <= l.receipted(r.Log), l.endsAgain(r)
		if older && !ends {
			return nil
		}
		s := l.now().clone()
		e := s.find(r.Log)
		if !older {
			e.Receipt = string(jws)
			l.cover(e, r)
		}
		if ends {
			e.Again = nil
		}
		return l.save(s)
	})
	if err != nil {
		return r, err
	}
	l.goneAgain(r, ends)
	if older {
		return r, nil
	}
	l.advance(func() { l.receipts[r.Log] = r })
	l.log.Info("records received by the centre", "seq", uint64(r.Seq))
	if r.Log == l.Status().Log {
		if err := remember(l.dir, tail{r.Log, r.Seq, r.Hash}); err != nil {
			// The store has the receipt; the next one tries again.
			l.log.Warn("last receipt was not noted beside the store", "err", err)
		}
	}
	return r, nil
}

// writeState makes a change of the state alone. It is a new file: where the
// disk is full the ballast makes room for it.
func (l *Ledger) writeState(doing string, change func() error) error {
	err := l.write(doing, change)
	if errors.Is(err, ErrDiskFull) {
		err = l.write(doing, change)
	}
	return err
}

// CheckReceipt says of a receipt what [Ledger.Receipt] would, and stores
// nothing.
func (l *Ledger) CheckReceipt(jws []byte) (chain.Receipt, error) {
	r, err := chain.OpenReceipt(l.cfg.ReceiptKey, jws)
	if err == nil {
		err = l.owns(r)
	}
	return r, err
}

// ReceivedAt is the centre's time of its latest receipt for any log of this
// store; zero before the first.
func (l *Ledger) ReceivedAt() (at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.receipts {
		if r.At.After(at) {
			at = r.At.Time
		}
	}
	return at
}

func (l *Ledger) receipted(log chain.LogID) chain.Seq {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.receipts[log].Seq
}

// owns compares a receipt with our own line.
func (l *Ledger) owns(r chain.Receipt) error {
	s := l.now()
	e := s.find(r.Log)
	if e == nil {
		return fmt.Errorf("%w: it is for %s, which is not in this store", ErrReceipt, r.Log)
	}
	if r.Seq == 0 && r.Hash == (chain.Hash{}) {
		return nil // the place before line 1: the centre has nothing of this log
	}
	if e.Cut != nil && 0 < r.Seq && r.Seq <= e.Cut.Through {
		return nil
	}
	line, err := l.line(r.Log, r.Seq)
	if err != nil {
		return err
	}
	if line != nil {
		if chain.HashLine(line) != r.Hash {
			return fmt.Errorf("%w: the centre stored another record %d than this ledger holds", ErrReceipt, r.Seq)
		}
		return nil
	}
	if r.Seq > 0 && (e.next(r.Seq-1) != r.Seq || e.Ended != "" && e.Log != s.current().Log) {
		return nil // lost here after the centre had it
	}
	return fmt.Errorf("%w: it is for record %d, which this ledger does not have: is this an older copy of the file?", ErrReceipt, r.Seq)
}

// cover notes which files the centre has whole now.
func (l *Ledger) cover(e *epoch, r chain.Receipt) {
	for i, first := range e.files {
		if i == len(e.files)-1 && e.Ended == "" {
			return // records are still added to it
		}
		end := l.lastOf(e.Log)
		if i < len(e.files)-1 {
			end = e.files[i+1] - 1
		}
		if end <= r.Seq && (len(e.Covered) == 0 || e.Covered[len(e.Covered)-1].First < first) {
			e.Covered = append(e.Covered, covered{First: first, At: r.At})
		}
	}
}

// recallReceipts learns from the state what the centre has.
func (l *Ledger) recallReceipts() error {
	l.receipts, l.lasts = map[chain.LogID]chain.Receipt{}, map[chain.LogID]chain.Seq{}
	for i := range l.state.Epochs {
		e := &l.state.Epochs[i]
		if i < len(l.state.Epochs)-1 && len(e.files) > 0 {
			first := e.files[len(e.files)-1]
			c, err := checkFile(l.path(e, first), e, first)
			if err != nil {
				return l.damaged(l.path(e, first), err)
			}
			l.lasts[e.Log] = c.seq
		}
		if e.Receipt == "" {
			continue
		}
		r, err := chain.OpenReceipt(l.cfg.ReceiptKey, []byte(e.Receipt))
		if err == nil {
			err = l.owns(r)
		}
		if err != nil {
			// The centre has another key now, or was given another ledger. Its
			// next receipt says where it is.
			l.log.Warn("stored receipt is not the centre's word for this ledger", "err", err)
			continue
		}
		l.receipts[e.Log] = r
	}
	return nil
}
