package queue

import (
	"fmt"

	"go.etcd.io/bbolt"

	"rollcall/queue/chain"
)

// Receipt takes the centre's receipt. One that is signed with the pinned key,
// names this log and the hash of our own line is stored durably before Receipt
// returns; it covers every record up to it. One for a record that is covered
// already is true, changes nothing, and is returned too: it says where the
// centre stands.
//
// It returns chain.ErrSignature, [ErrReceipt] for a receipt of another log or
// of other bytes, and [ErrStopped].
func (l *Ledger) Receipt(jws []byte) (chain.Receipt, error) {
	r, err := chain.OpenReceipt(l.cfg.ReceiptKey, jws)
	if err != nil {
		return r, err
	}
	if err := l.owns(r); err != nil {
		return r, err
	}
	l.sealing.Lock()
	defer l.sealing.Unlock()
	if r.Seq <= l.Status().Receipted {
		return r, nil
	}
	err = l.write("storing a receipt", func(tx *bbolt.Tx) error { return tx.Bucket(bucketState).Put(stateReceipt, jws) })
	if err != nil {
		return r, err
	}
	l.advance(func() { l.receipt = r })
	l.log.Info("records received by the centre", "seq", uint64(r.Seq))
	if err := remember(l.cfg.Dir, tail{r.Log, r.Seq, r.Hash}); err != nil {
		// The store has the receipt; the next one tries again.
		l.log.Warn("last receipt was not noted beside the store", "err", err)
	}
	return r, nil
}

// owns compares a receipt with our own line.
func (l *Ledger) owns(r chain.Receipt) error {
	if r.Log != l.id {
		return fmt.Errorf("%w: it is for %s, this is %s", ErrReceipt, r.Log, l.id)
	}
	line, err := l.line(r.Seq)
	if err != nil {
		return err
	}
	if line == nil {
		return fmt.Errorf("%w: it is for record %d, which this ledger does not have: is this an older copy of the file?", ErrReceipt, r.Seq)
	}
	if chain.HashLine(line) != r.Hash {
		return fmt.Errorf("%w: the centre stored another record %d than this ledger holds", ErrReceipt, r.Seq)
	}
	return nil
}
