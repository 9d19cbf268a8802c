package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// lastName is the file that remembers, outside the store, a record that the
// store held: the last one the centre is known to have, or before its first
// receipt the last one when the store was opened. So a store that was deleted
// or put back from an older copy is noticed.
const lastName = "ledger.last"

// Reasons of an open record.
const (
	reasonNew     = "new"     // this terminal never had a ledger here
	reasonMissing = "missing" // the store was taken away; last names what it held
	reasonDamaged = "damaged" // the end of the epoch before may be missing; last is what can be read
	reasonOlder   = "older"   // the store was put back from an older copy; last names what it held before
)

// openRecord is line 1 of the first epoch of a store.
func (l *Ledger) openRecord() attendance.Record {
	body := l.openBody()
	last, err := readLast(l.cfg.Dir)
	if !errors.Is(err, fs.ErrNotExist) {
		body.Reason, body.Last = reasonMissing, last
	}
	return attendance.NewRecord(attendance.TypeOpen, body)
}

func (l *Ledger) openBody() attendance.OpenBody {
	now := l.signs()
	return attendance.OpenBody{
		Reason:    reasonNew,
		Terminal:  string(l.cfg.Terminal),
		Key:       now.ring.ID(now.ring.Last()),
		Software:  l.cfg.Software,
		Handovers: now.ring.Handovers(),
	}
}

// compareLast reports whether the store does not hold what was remembered of
// it, and renews the note.
func (l *Ledger) compareLast() (older bool, err error) {
	last, err := readLast(l.dir)
	if err == nil {
		if older, err := l.olderThan(last); older || err != nil {
			return older, err
		}
		if last.Log == string(l.tail.log) {
			return false, nil
		}
	}
	if err := remember(l.dir, l.tail); err != nil {
		return false, fmt.Errorf("noting the last record beside the ledger: %w", err)
	}
	return false, nil
}

func (l *Ledger) olderThan(last *attendance.LastKnown) (bool, error) {
	e := l.state.find(chain.LogID(last.Log))
	if e == nil {
		// Right only if this store was made after that one went missing and
		// the note was not yet renewed.
		open, err := l.Opening()
		return err != nil || open.Last == nil || *open.Last != *last, nil
	}
	seq := chain.Seq(last.Seq)
	if open, err := l.Opening(); err == nil && open.Last != nil && *open.Last == *last {
		return false, nil // this epoch names it
	}
	if e.Cut != nil && seq <= e.Cut.Through || e.next(seq-1) != seq {
		return false, nil
	}
	line, err := l.line(e.Log, seq)
	if err != nil {
		return false, err
	}
	return line == nil || chain.HashLine(line).String() != last.Hash, nil
}

// Opening gives what line 1 of the current epoch says. It is an error if that
// was let go.
func (l *Ledger) Opening() (attendance.OpenBody, error) {
	now := l.now()
	line, err := l.line(now.current().Log, 1)
	if err != nil {
		return attendance.OpenBody{}, err
	}
	e, err := chain.ParseLine(line)
	if err != nil {
		return attendance.OpenBody{}, err
	}
	return attendance.ReadBody[attendance.OpenBody](e.Body)
}

// readLast reads the note. It returns fs.ErrNotExist if there is none, and
// another error if it cannot be read: then only that there was a ledger is
// known.
func readLast(dir string) (*attendance.LastKnown, error) {
	text, err := os.ReadFile(filepath.Join(dir, lastName))
	if err != nil {
		return nil, err
	}
	var last attendance.LastKnown
	if err := json.Unmarshal(text, &last); err != nil {
		return nil, err
	}
	return &last, nil
}

// remember replaces the note durably.
func remember(dir string, t tail) error {
	text, err := json.Marshal(attendance.LastKnown{Log: string(t.log), Seq: uint64(t.seq), Hash: t.hash.String()})
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, lastName), append(text, '\n'))
}
