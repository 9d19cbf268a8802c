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
)

// openRecord is line 1 of a new epoch.
func openRecord(cfg Config) attendance.Record {
	body := attendance.OpenBody{
		Reason:   reasonNew,
		Terminal: string(cfg.Terminal),
		Key:      chain.KeyID(cfg.Key.Public()),
		Software: cfg.Software,
	}
	last, err := readLast(cfg.Dir)
	if !errors.Is(err, fs.ErrNotExist) {
		body.Reason, body.Last = reasonMissing, last
	}
	return attendance.NewRecord(attendance.TypeOpen, body)
}

// compareLast refuses a store that does not hold what was remembered of it.
func (l *Ledger) compareLast() error {
	last, err := readLast(l.cfg.Dir)
	if err == nil && last.Log == string(l.id) {
		line, err := l.line(chain.Seq(last.Seq))
		if err != nil {
			return err
		}
		if line == nil || chain.HashLine(line).String() != last.Hash {
			return damaged(l.path, fmt.Errorf("it is an older copy: it does not hold record %d as the centre received it", last.Seq))
		}
		return nil
	}
	if err == nil {
		// Right only if this store was made after that one went missing and
		// the note was not yet renewed.
		if open, err := l.openBody(); err != nil || open.Last == nil || *open.Last != *last {
			return damaged(l.path, fmt.Errorf("it is an older copy: %s is newer", last.Log))
		}
	}
	if err := remember(l.cfg.Dir, l.end); err != nil {
		return fmt.Errorf("noting the last record beside the ledger: %w", err)
	}
	return nil
}

func (l *Ledger) openBody() (attendance.OpenBody, error) {
	line, err := l.line(1)
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

// remember replaces the note:
//
//  1. Write it under another name and sync the file.
//  2. Rename it over the old one.
//  3. Sync the directory.
func remember(dir string, t tail) error {
	text, err := json.Marshal(attendance.LastKnown{Log: string(t.log), Seq: uint64(t.seq), Hash: t.hash.String()})
	if err != nil {
		return err
	}
	path := filepath.Join(dir, lastName)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
