package queue

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// keptName holds the records that outlast the retention, one line each: what
// they say holds until another says otherwise, and the daemon rebuilds from
// them who is enrolled.
const keptName = "kept"

var lasting = []attendance.RecordType{
	attendance.TypeConsent, attendance.TypeEnrol, attendance.TypeWithdraw, attendance.TypeErase, attendance.TypePackage,
}

// auditPause is between two files that are checked in the background.
const auditPause = 2 * time.Second

// audit checks every file that opening left unchecked once, and that each
// begins where the one before ends; then it lets go what the retention
// allows, now and once an hour.
func (l *Ledger) audit(ctx context.Context) {
	t := time.NewTimer(auditPause)
	defer t.Stop()
	s := l.now()
	for i := range s.Epochs {
		e := &s.Epochs[i]
		var before content
		for _, first := range e.files[:max(0, len(e.files)-1)] {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				t.Reset(auditPause)
			}
			c, err := checkFile(l.path(e, first), e, first)
			if err == nil && before.seq > 0 {
				if want := e.next(before.seq); want < first {
					err = fmt.Errorf("%w: record %d is missing", ErrDamaged, want)
				} else if before.seq+1 == first && c.prev != before.hash {
					err = fmt.Errorf("%w: record %d does not follow the one before it", ErrDamaged, first)
				}
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // else let go meanwhile
				_ = l.damaged(l.path(e, first), err)
				return
			}
			before = c
		}
	}
	for {
		if err := l.letGo(); err != nil {
			l.log.Error("old records were not let go", "err", err)
		}
		t.Reset(time.Hour)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// letGo unlinks files that the centre received longer ago than the retention,
// by its own clock:
//
//  1. Copy the records that outlast it into the file "kept", durably.
//  2. Store the cut in the state, durably.
//  3. Unlink the files, oldest first, and sync the directory.
//
// After a crash between 2 and 3 the next start does 3.
func (l *Ledger) letGo() error {
	s := l.now()
	for i := range s.Epochs {
		log := s.Epochs[i].Log
		for {
			done, err := l.letGoFirst(log)
			if err != nil {
				return err
			}
			if done {
				break
			}
		}
	}
	return nil
}

// letGoFirst lets the oldest file of a log go; done if there is none to.
func (l *Ledger) letGoFirst(log chain.LogID) (done bool, err error) {
	now := l.now()
	e := now.find(log)
	l.mu.Lock()
	r := l.receipts[log]
	l.mu.Unlock()
	if len(e.Covered) == 0 || len(e.files) == 0 || r.At.Sub(e.Covered[0].At.Time) < l.cfg.Retention {
		return true, nil
	}
	first := e.Covered[0].First
	if first != e.files[0] {
		return false, l.write("storing a cut", func() error {
			s := l.now().clone()
			e := s.find(log)
			e.Covered = e.Covered[1:]
			return l.save(s)
		})
	}
	c, err := checkFile(l.path(e, first), e, first)
	if err != nil {
		return true, l.damaged(l.path(e, first), err)
	}
	if c.seq > r.Seq {
		return true, fmt.Errorf("the file from record %d was to be let go, and the centre has only %d", first, r.Seq)
	}
	cut := &Cut{Through: c.seq, Hash: c.hash, Head: string(c.head), Receipt: e.Receipt}
	if err := cut.sign(l.cfg, l.signs().key, log); err != nil {
		return true, err
	}
	err = l.write("storing a cut", func() error {
		if err := l.keepLasting(e, first); err != nil {
			return err
		}
		s := l.now().clone() // a receipt, a file or a resend may have joined meanwhile
		e := s.find(log)
		e.Covered, e.files, e.Cut = e.Covered[1:], e.files[1:], cut
		return l.save(s)
	})
	if err != nil {
		return true, err
	}
	l.log.Info("old records let go", "seq", uint64(c.seq))
	return false, l.removeCut()
}

// sign makes the terminal's word for a cut.
func (c *Cut) sign(cfg Config, key crypto.Signer, log chain.LogID) (err error) {
	c.Signed, err = chain.Sign(key, chain.PurposeCut, chain.Head{Log: log, Seq: c.Through, Hash: c.Hash, Wall: cfg.Stamp().Wall})
	return err
}

// signCuts signs those of a program that did not.
func (l *Ledger) signCuts() error {
	s := l.state.clone()
	for i := range s.Epochs {
		e := &s.Epochs[i]
		if e.Cut == nil || e.Cut.Signed != "" {
			continue
		}
		c := *e.Cut
		e.Cut = &c
		if err := errors.Join(c.sign(l.cfg, l.signs().key, e.Log), l.save(s)); err != nil {
			return err
		}
	}
	return nil
}

// removeCut unlinks files that a cut covers.
func (l *Ledger) removeCut() error {
	s := l.now()
	for i := range s.Epochs {
		e := &s.Epochs[i]
		if e.Cut == nil {
			continue
		}
		there := epoch{Log: e.Log}
		if err := there.listFiles(l.root); err != nil {
			return err
		}
		for _, first := range there.files {
			if first > e.Cut.Through {
				break
			}
			if err := os.Remove(l.path(e, first)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("letting old records go: %w", err)
			}
		}
		if err := syncDir(filepath.Join(l.root, e.name())); err != nil {
			return err
		}
	}
	return nil
}

// keepLasting adds the records of a file that outlast it to the file "kept".
func (l *Ledger) keepLasting(e *epoch, first chain.Seq) error {
	path := filepath.Join(l.root, keptName)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	have := map[chain.Hash]bool{}
	for line := range slices.Values(splitLines(text)) {
		have[chain.HashLine(line)] = true
	}
	before := len(text)
	err = l.read(e, first, func(b *bbolt.Bucket) error {
		return b.ForEach(func(key, line []byte) error {
			if _, head, _ := readKey(key); head || have[chain.HashLine(line)] {
				return nil
			}
			entry, err := chain.ParseLine(line)
			if err == nil && slices.Contains(lasting, attendance.RecordType(entry.Type)) {
				text = append(append(text, line...), '\n')
			}
			return err
		})
	})
	if err != nil || len(text) == before {
		return err
	}
	return replaceFile(path, text)
}
