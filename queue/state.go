package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rollcall/queue/chain"
)

// state is what the store knows beside its records: one line of JSON in the
// file "state", replaced whole. Epochs stand in the order they began; records
// are added to the last. Without it everything but receipts and cuts is found
// again in the files.
type state struct {
	Epochs []epoch `json:"epochs"`
}

// epoch is one log of the store.
type epoch struct {
	Log     chain.LogID `json:"log"`
	Receipt string      `json:"receipt,omitempty"` // the last, JWS
	Files   []chain.Seq `json:"files"`             // the first record of each file; the directory may know one more
	Covered []covered   `json:"covered,omitempty"` // whole files the centre has, oldest first
	Cut     *Cut        `json:"cut,omitempty"`
	Gaps    []Gap       `json:"gaps,omitempty"`
	Ended   string      `json:"ended,omitempty"` // why nothing is added to it any more
	Keys    []keyed     `json:"keys,omitempty"`  // where its records say which key signs, if that is not the certificate's
	Again   *chain.Seq  `json:"again,omitempty"` // records after this one go up again; see Rewind

	files []chain.Seq // the first record of each file, in order
}

// covered says when the centre had received all of a file, by its own clock.
type covered struct {
	First chain.Seq  `json:"first"`
	At    chain.Wall `json:"at"`
}

// Cut is what stays of records that were let go after the retention.
type Cut struct {
	Through chain.Seq  `json:"through"` // the last of them
	Hash    chain.Hash `json:"hash"`    // of its line
	Head    string     `json:"head,omitempty"`
	Signed  string     `json:"signed,omitempty"` // chain.PurposeCut over the three
	Receipt string     `json:"receipt,omitempty"`
}

// Gap is records that were lost with a damaged file.
type Gap struct {
	From   chain.Seq `json:"from"`
	To     chain.Seq `json:"to"`
	Reason string    `json:"reason"`
	Told   bool      `json:"told,omitempty"` // a record names it
	By     *told     `json:"by,omitempty"`   // that record; unknown in states of the first builds
}

// current is the epoch that records are added to.
func (s *state) current() *epoch { return &s.Epochs[len(s.Epochs)-1] }

func (s *state) find(log chain.LogID) *epoch {
	i := slices.IndexFunc(s.Epochs, func(e epoch) bool { return e.Log == log })
	if i < 0 {
		return nil
	}
	return &s.Epochs[i]
}

// clone copies what a change may write to; readers keep the old one.
func (s state) clone() state {
	s.Epochs = slices.Clone(s.Epochs)
	for i := range s.Epochs {
		e := &s.Epochs[i]
		e.Covered, e.Gaps, e.files = slices.Clone(e.Covered), slices.Clone(e.Gaps), slices.Clone(e.files)
		e.Keys = slices.Clone(e.Keys)
	}
	return s
}

// name is the directory of an epoch under the store's.
func (e *epoch) name() string {
	_, name, _ := strings.Cut(string(e.Log), "/")
	return name
}

// file gives the first record of the file that holds a record, or of the first
// one after it; ok is false if there is none.
func (e *epoch) file(seq chain.Seq) (first chain.Seq, ok bool) {
	i, found := slices.BinarySearch(e.files, seq)
	if !found && i > 0 {
		i--
	}
	if i >= len(e.files) {
		return 0, false
	}
	return e.files[i], true
}

// after gives the first record of the file after the one that begins with
// first; 0 if that is the last.
func (e *epoch) after(first chain.Seq) chain.Seq {
	i, _ := slices.BinarySearch(e.files, first+1)
	if i == len(e.files) {
		return 0
	}
	return e.files[i]
}

// next is the record after seq, past gaps.
func (e *epoch) next(seq chain.Seq) chain.Seq {
	seq++
	for again := true; again; {
		again = false
		for _, g := range e.Gaps {
			if g.From <= seq && seq <= g.To {
				seq, again = g.To+1, true
			}
		}
	}
	return seq
}

// missing counts the records of gaps after a record.
func (e *epoch) missing(after chain.Seq) (n int) {
	for _, g := range e.Gaps {
		if g.To > after {
			n += int(g.To - max(g.From, after+1) + 1)
		}
	}
	return n
}

const (
	storeName     = "ledger"    // the store's directory in the state directory
	stateName     = "state"     // in the store's directory
	fileSuffix    = ".db"       // of a file of records
	newSuffix     = ".new"      // of what is being made; seen by nobody
	badSuffix     = ".bad"      // of what was damaged, kept whole for support
	oldName       = "ledger.db" // the store of the first version
	takenName     = "ledger.db.taken"
	suspectSuffix = ".suspect" // marks a file that was found damaged while it was read
)

func fileName(first chain.Seq) string { return fmt.Sprintf("%020d%s", first, fileSuffix) }

// loadState reads the state file; fs.ErrNotExist if there is none, and
// [ErrDamaged] if it is not what was written.
func loadState(root string) (state, error) {
	text, err := os.ReadFile(filepath.Join(root, stateName))
	if err != nil {
		return state{}, err
	}
	return parseState(text)
}

func parseState(text []byte) (s state, err error) {
	line, sum, _ := bytes.Cut(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	if string(sum) != chain.HashLine(line).String() || json.Unmarshal(line, &s) != nil || !s.sound() {
		return state{}, fmt.Errorf("%w: the file %s", ErrDamaged, stateName)
	}
	return s, nil
}

// sound reports whether a state can be one that was written.
func (s *state) sound() bool {
	for i := range s.Epochs {
		e := &s.Epochs[i]
		if e.Log.Terminal() == "" || slices.ContainsFunc(e.Gaps, func(g Gap) bool { return g.From == 0 || g.From > g.To || g.To+1 == 0 }) {
			return false
		}
	}
	return len(s.Epochs) > 0
}

// save replaces the state file durably.
func (s state) save(root string) error {
	for i := range s.Epochs { // of a copy that is its caller's
		s.Epochs[i].Files = s.Epochs[i].files
	}
	text, err := s.text()
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(root, stateName), text)
}

func (s state) text() ([]byte, error) {
	line, err := json.Marshal(s)
	return fmt.Appendf(nil, "%s\n%s\n", line, chain.HashLine(line)), err
}

// replaceFile replaces a file:
//
//  1. Write it under another name and sync it.
//  2. Rename it over the old one.
//  3. Sync the directory.
func replaceFile(path string, text []byte) error {
	f, err := os.OpenFile(path+newSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+newSuffix, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// listFiles fills in the files of an epoch.
func (e *epoch) listFiles(root string) error {
	entries, err := os.ReadDir(filepath.Join(root, e.name()))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	e.files = nil
	for _, entry := range entries {
		var first chain.Seq
		name := entry.Name()
		if n, err := fmt.Sscanf(name, "%020d", &first); n != 1 || err != nil || name != fileName(first) {
			continue // new, bad, or not ours
		}
		e.files = append(e.files, first)
	}
	slices.Sort(e.files)
	return nil
}

func splitLines(text []byte) [][]byte {
	text = bytes.TrimSuffix(text, []byte("\n"))
	if len(text) == 0 {
		return nil
	}
	return bytes.Split(text, []byte("\n"))
}

// modified is when a file or directory was last changed.
func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
