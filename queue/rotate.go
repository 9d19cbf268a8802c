package queue

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// ErrFixedKey says that this ledger was opened without a place to keep another
// key.
var ErrFixedKey = errors.New("the ledger's key cannot be changed here")

// Keys keeps the ledger's private key where no crash takes it.
type Keys interface {
	// Prepare makes a key and has the one in force sign its handover. Both are
	// durable when it returns, beside the key in force.
	Prepare(chain.TerminalID) (handover string, err error)
	// Settle puts the prepared key in the place of the one in force, durably, if
	// handover leads to it, and else throws it away. It gives the key in force. It
	// may be asked again.
	Settle(handover string) (crypto.Signer, error)
}

// signing is what signs at a time. It is replaced whole.
type signing struct {
	key  crypto.Signer
	ring *chain.Ring // to it, from the certificate's
}

// keyed is a record that says which key signs after it: line 1 or a key record.
type keyed struct {
	Seq chain.Seq `json:"seq"`
	Key string    `json:"key"` // its id
}

// Rotate changes the key that signs the ledger, and returns when the next one is
// in force. It waits for [Ledger.Run]. It returns [ErrFixedKey], [ErrDiskFull],
// [ErrStopped], ctx's error, or that of [Keys].
func (l *Ledger) Rotate(ctx context.Context) error {
	if l.cfg.Keys == nil {
		return ErrFixedKey
	}
	answer := make(chan error, 1) // so that the committer never waits
	select {
	case l.rotations <- answer:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.broken:
		return l.stopped()
	case <-l.over:
		return l.stopped()
	}
	return <-answer
}

// rotate changes the key. The committer calls it, so that nothing else is
// committed meanwhile:
//
//  1. Make the next key and have the one in force sign its handover; both are
//     durable beside the key in force (Keys.Prepare).
//  2. Commit the key record, alone, with a head by the key in force.
//  3. Put the next key in the place of the one in force, durably (Keys.Settle).
//  4. Sign with it from here on.
//
// After a crash the next start looks at the last record: if it is the key record
// of the prepared key it goes on with 3, and else throws that key away. The same
// start finishes what fails after 2; until then nothing is acknowledged.
func (l *Ledger) rotate() error {
	handover, err := l.cfg.Keys.Prepare(l.cfg.Terminal)
	if err != nil {
		return err
	}
	now := l.signs()
	next := now.ring.Clone()
	if err := next.Follow(handover); err != nil {
		return fmt.Errorf("changing the ledger's key: %w", err)
	}
	l.mu.Lock()
	g := group{cfg: l.cfg, key: now.key, end: l.tail, receipt: l.receipts[l.tail.log], force: true}
	l.mu.Unlock()
	record := attendance.NewRecord(attendance.TypeKey, attendance.KeyBody{
		Old: now.ring.ID(now.ring.Last()), New: next.ID(next.Last()), Handover: handover,
	})
	if err := errors.Join(g.add(record), g.sign()); err != nil {
		return err
	}
	if err := l.write("storing a key record", func() error { return l.store(&g) }); err != nil {
		if errors.Is(err, ErrDiskFull) {
			_, settled := l.cfg.Keys.Settle("")
			err = errors.Join(err, settled)
		}
		return err
	}
	if err := l.take(handover); err != nil {
		l.fail(fmt.Errorf("%w: changing the ledger's key: %w", ErrStopped, err))
		return l.stopped()
	}
	l.noteKey(g.end.seq)
	l.advance(func() { l.tail = g.end })
	l.log.Info("ledger key changed", "seq", uint64(g.end.seq), "key", next.ID(next.Last()))
	return nil
}

// take puts the key in force that a handover leads to.
func (l *Ledger) take(handover string) error {
	key, err := l.cfg.Keys.Settle(handover)
	if err != nil {
		return err
	}
	ring := l.signs().ring.Clone()
	if handover != "" {
		if err := ring.Follow(handover); err != nil {
			return err
		}
	}
	if ring.ID(ring.Last()) != chain.KeyID(key.Public()) {
		return errors.New("the key that was kept is another than the one handed over to")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signing = signing{key, ring}
	return nil
}

// settle ends a change of the key that a crash cut short.
func (l *Ledger) settle(last *attendance.LastKnown) error {
	if l.cfg.Keys == nil {
		return nil
	}
	handover := ""
	if last != nil {
		line, err := l.line(chain.LogID(last.Log), chain.Seq(last.Seq))
		if err != nil {
			return err
		}
		if e, err := chain.ParseLine(line); err == nil && e.Type == string(attendance.TypeKey) {
			body, err := attendance.ReadBody[attendance.KeyBody](e.Body)
			if err != nil {
				return err
			}
			handover = body.Handover
		}
	}
	before := l.signs()
	if err := l.take(handover); err != nil {
		return fmt.Errorf("changing the ledger's key: %w", err)
	}
	if now := l.signs(); now.ring.Last() > before.ring.Last() {
		l.log.Info("change of the ledger key ended", "seq", last.Seq, "key", now.ring.ID(now.ring.Last()))
	}
	return nil
}

// signs is what signs now.
func (l *Ledger) signs() signing {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.signing
}

// noteKey notes that a record says which key signs now. A note that is not kept
// costs some bytes in every batch.
func (l *Ledger) noteKey(seq chain.Seq) {
	now := l.signs()
	err := l.writeState("noting a key", func() error {
		s := l.now().clone()
		e := s.current()
		e.Keys = append(e.Keys, keyed{seq, now.ring.ID(now.ring.Last())})
		return l.save(s)
	})
	if err != nil {
		l.log.Warn("a change of the ledger key was not noted in the state", "err", err)
	}
}

// openHead checks a head of the epoch as [chain.Ring.OpenHead] does, and that no
// key signed it which another had followed by then.
func (e *epoch) openHead(ring *chain.Ring, jws []byte) (chain.Head, int, error) {
	head, by, err := ring.OpenHead(jws)
	if err != nil {
		return head, by, err
	}
	for _, k := range e.Keys { // line 1 is signed by the key that it names, a key record by the one before
		if (k.Seq < head.Seq || k.Seq == 1) && by < ring.Place(k.Key) {
			return head, by, chain.ErrRetired
		}
	}
	return head, by, nil
}

// explains reports whether a record of the epoch up to seq says that a key signs.
func (e *epoch) explains(key string, seq chain.Seq) bool {
	return slices.ContainsFunc(e.Keys, func(k keyed) bool {
		return k.Key == key && k.Seq <= seq && e.next(k.Seq-1) == k.Seq
	})
}

// SignAlert signs an alert with the key in force, and gives what is sent.
func (l *Ledger) SignAlert(a chain.Alert) ([]byte, error) {
	now := l.signs()
	jws, err := chain.Sign(now.key, chain.PurposeAlert, a)
	if err != nil {
		return nil, err
	}
	return chain.FormAlert(jws, now.ring.Handovers()...), nil
}
