package queue

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"rollcall/queue/chain"
)

var (
	// ErrInUse says that another process has the ledger open.
	ErrInUse = errors.New("the ledger is in use by another process: stop that one first")

	// ErrDamaged says that a file cannot be what this terminal wrote. Opening
	// the ledger to write sets it aside and goes on with what can be read.
	ErrDamaged = errors.New("a ledger file is damaged")
)

// maxOpenFiles is how many files besides the last are held open for readers.
const maxOpenFiles = 4

// Store reads a ledger.
type Store struct {
	dir  string // the state directory
	root string // the store's own
	lock *os.File

	mu     sync.Mutex                   // guards what follows
	state  state                        // replaced whole: a copy may be read without the lock
	open   []*file                      // of sealed files of any epoch, the last used last
	active *file                        // the one that records are added to; nil in a store that is only read
	notice func(path string, err error) // told of damage; nil in a store that is only read
}

// OpenReadOnly opens the ledger in a state directory for reading. It returns
// [ErrInUse] while the daemon runs, and fs.ErrNotExist if there is none. It
// changes and mends nothing: give an [Store.Export] to a chain.Verifier.
func OpenReadOnly(dir string) (*Store, error) {
	s, err := lockStore(dir, syscall.LOCK_SH)
	if err != nil {
		return nil, err
	}
	if s.state, err = loadState(s.root); err == nil {
		for i := range s.state.Epochs {
			err = errors.Join(err, s.state.Epochs[i].listFiles(s.root))
		}
	} else if errors.Is(err, fs.ErrNotExist) {
		if _, old := os.Stat(filepath.Join(dir, oldName)); old == nil {
			err = fmt.Errorf("%s is a ledger of the first version: start rollcalld once, which takes it over", oldName)
		}
	}
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("opening the ledger in %s: %w", dir, err)
	}
	return s, nil
}

// lockStore takes the lock of a state directory: one process writes, or
// several read.
func lockStore(dir string, how int) (*Store, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	for until := time.Now().Add(lockTimeout); ; time.Sleep(lockTimeout / 20) {
		err = syscall.Flock(int(d.Fd()), how|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(until) {
			break
		}
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrInUse
	}
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("opening the ledger in %s: %w", dir, err)
	}
	return &Store{dir: dir, root: filepath.Join(dir, storeName), lock: d}, nil
}

// Close closes the files. For a [Ledger] it comes after Run has returned.
func (s *Store) Close() error {
	if err := errors.Join(s.closeAll(), s.lock.Close()); err != nil {
		return fmt.Errorf("closing the ledger: %w", err)
	}
	return nil
}

func (s *Store) closeAll() (err error) {
	s.mu.Lock()
	files := s.open
	if s.active != nil {
		files = append(files, s.active)
	}
	s.open, s.active = nil, nil
	s.mu.Unlock()
	for _, f := range files {
		err = errors.Join(err, f.db.Close())
	}
	return err
}

// closeActive closes the last file.
func (s *Store) closeActive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active != nil {
		_ = s.active.db.Close()
		s.active = nil
	}
}

// forget closes a file that readers had open.
func (s *Store) forget(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = slices.DeleteFunc(s.open, func(f *file) bool {
		if f.path == path {
			_ = f.db.Close()
		}
		return f.path == path
	})
}

// path is where a file of records lies.
func (s *Store) path(e *epoch, first chain.Seq) string {
	return filepath.Join(s.root, e.name(), fileName(first))
}

// now gives the state as it stands. It must not be changed.
func (s *Store) now() state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// read runs f on the file that begins with a record.
func (s *Store) read(e *epoch, first chain.Seq, f func(*bbolt.Bucket) error) error {
	opened, err := s.take(e, first)
	if err != nil {
		return err
	}
	err = view(opened.db, f)
	s.mu.Lock()
	opened.uses--
	s.mu.Unlock()
	if errors.Is(err, ErrDamaged) {
		return s.damaged(s.path(e, first), err)
	}
	return err
}

// take gives an open file. One that is opened is checked first.
func (s *Store) take(e *epoch, first chain.Seq) (*file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.path(e, first)
	if s.active != nil && s.active.path == path {
		s.active.uses++
		return s.active, nil
	}
	if i := slices.IndexFunc(s.open, func(f *file) bool { return f.path == path }); i >= 0 {
		f := s.open[i]
		s.open = append(slices.Delete(s.open, i, i+1), f)
		f.uses++
		return f, nil
	}
	if _, err := checkFile(path, e, first); err != nil {
		return nil, s.damaged(path, err)
	}
	db, err := openFile(path, true)
	if err != nil {
		return nil, s.damaged(path, err)
	}
	f := &file{path: path, db: db, uses: 1}
	s.open = append(s.open, f)
	for i := 0; i < len(s.open) && len(s.open) > maxOpenFiles; i++ {
		if s.open[i].uses == 0 {
			_ = s.open[i].db.Close()
			s.open = slices.Delete(s.open, i, i+1)
			i--
		}
	}
	return f, nil
}

// damaged says what a person does about a file that cannot be read, and tells
// who has the ledger open to write.
func (s *Store) damaged(path string, err error) error {
	if !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("reading %s: %w", path, err) // rights, memory, a disk that is away
	}
	err = fmt.Errorf("%w: %s; nothing was changed: start rollcalld or run rollcall ledger salvage, "+
		"which sets it aside, keeps every record that can be read and names those that cannot", err, path)
	if s.notice != nil {
		s.notice(path, err)
	}
	return err
}

// Each calls f with every record that is kept, epoch by epoch in order, and
// with those that are appended meanwhile; first with those that outlasted the
// retention. It ends at f's first error and returns it.
func (s *Store) Each(f func(chain.Entry) error) error {
	text, err := os.ReadFile(filepath.Join(s.root, keptName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the ledger: %w", err)
	}
	if err := eachKept(text, f); err != nil {
		return err
	}
	return s.eachFrom(s.now().Epochs, 0, f)
}

func eachKept(text []byte, f func(chain.Entry) error) error {
	for _, line := range splitLines(text) {
		e, err := chain.ParseLine(line)
		if err != nil {
			continue // damaged; the centre has it
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

// EachSince calls f as [Store.Each] does, with the records after one that the
// caller has seen with all before it. It reports false, and calls nothing, if
// the ledger does not hold that record: it was let go, lost, or is another.
func (s *Store) EachSince(seen chain.Link, f func(chain.Entry) error) (ok bool, err error) {
	line, err := s.line(seen.Log, seen.Seq)
	if err != nil || line == nil || chain.HashLine(line) != seen.Hash {
		return false, err
	}
	epochs := s.now().Epochs
	i := slices.IndexFunc(epochs, func(e epoch) bool { return e.Log == seen.Log })
	return true, s.eachFrom(epochs[i:], seen.Seq, f)
}

// eachFrom calls f with the records of epochs, in the first of them after one.
func (s *Store) eachFrom(epochs []epoch, after chain.Seq, f func(chain.Entry) error) error {
	for i := range epochs {
		if err := s.eachOf(epochs[i].Log, after, f); err != nil {
			return err
		}
		after = 0
	}
	return nil
}

func (s *Store) eachOf(log chain.LogID, after chain.Seq, f func(chain.Entry) error) error {
	for {
		r, err := s.run(log, after, chain.MaxBatchRecords, chain.MaxBatchBytes)
		if err != nil || len(r.lines) == 0 {
			return err
		}
		for _, line := range r.lines {
			e, err := chain.ParseLine(line)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			if err := f(e); err != nil {
				return err
			}
		}
		after = r.last
	}
}

// Export writes the whole ledger as text that a chain.Verifier accepts: the
// certificate of the ledger key, the handovers given, which lead from it to the
// key in force, then for each epoch record lines with a head
// after every few, and the last receipt; where records were let go, the cut
// stands first. It may run beside appends; it then
// ends with a line that was the last at some moment of the export.
func (s *Store) Export(w io.Writer, cert *x509.Certificate, handovers ...string) error {
	if err := put(w, chain.CertificateLine(cert)); err != nil {
		return err
	}
	for _, jws := range handovers {
		if err := put(w, []byte(jws)); err != nil {
			return err
		}
	}
	epochs := s.now().Epochs // with receipts from before the lines, so that none names one that is missing
	for i := range epochs {
		if err := s.exportEpoch(w, &epochs[i]); err != nil {
			return err
		}
	}
	return nil
}

func put(w io.Writer, line []byte) error {
	if _, err := w.Write(append(bytes.Clone(line), '\n')); err != nil {
		return fmt.Errorf("exporting the ledger: %w", err)
	}
	return nil
}

func (s *Store) exportEpoch(w io.Writer, e *epoch) error {
	if e.Cut != nil && e.Cut.Signed != "" { // names the record before the first that is left
		if err := put(w, []byte(e.Cut.Signed)); err != nil {
			return err
		}
	}
	var after chain.Seq
	for {
		r, err := s.run(e.Log, after, chain.MaxBatchRecords, chain.MaxBatchBytes)
		if err != nil {
			return err
		}
		if len(r.lines) == 0 {
			break
		}
		if err := put(w, chain.FormBatch(r.lines, r.head)); err != nil {
			return err
		}
		after = r.last
	}
	if e.Receipt == "" {
		return nil
	}
	return put(w, []byte(e.Receipt))
}

// stretch is consecutive lines and the head that covers the last of them.
type stretch struct {
	lines [][]byte
	head  []byte
	last  chain.Seq
}

// run copies lines of a log after a record, up to the next gap or the end of a
// file, within limits if one commit allows it. It is empty at the end.
func (s *Store) run(log chain.LogID, after chain.Seq, maxRecords, maxBytes int) (stretch, error) {
	now := s.now()
	e := now.find(log)
	if e == nil {
		return stretch{}, nil
	}
	if e.Cut != nil {
		after = max(after, e.Cut.Through)
	}
	from := e.next(after)
	first, ok := e.file(from)
	if !ok {
		return stretch{}, nil
	}
	r, err := s.runIn(e, max(first, from), first, maxRecords, maxBytes)
	if err == nil && (len(r.lines) > 0 && r.last-chain.Seq(len(r.lines))+1 != from || len(r.lines) == 0 && e.after(first) > 0) {
		err = s.damaged(s.path(e, first), fmt.Errorf("%w: record %d is missing", ErrDamaged, from))
	}
	return r, err
}

func (s *Store) runIn(e *epoch, from, first chain.Seq, maxRecords, maxBytes int) (stretch, error) {
	var r, whole stretch
	size := 0
	err := s.read(e, first, func(b *bbolt.Bucket) error {
		c := b.Cursor()
		for key, value := c.Seek(seqKey(from)); key != nil; key, value = c.Next() {
			seq, head, _ := readKey(key)
			with := size + len(value) + 1
			if whole.head != nil && with > maxBytes {
				break
			}
			if head { // only the last one goes along
				whole = stretch{lines: r.lines, head: bytes.Clone(value), last: r.last}
				continue
			}
			if len(r.lines) > 0 && seq != r.last+1 || whole.head != nil && len(r.lines) >= maxRecords {
				break
			}
			r.lines, r.last, size = append(r.lines, bytes.Clone(value)), seq, with
		}
		return nil
	})
	if err == nil && len(whole.lines) == 0 && len(r.lines) > 0 {
		err = s.damaged(s.path(e, first), fmt.Errorf("%w: no head covers record %d", ErrDamaged, r.last))
	}
	return whole, err
}

// line copies one line; it is nil if there is none.
func (s *Store) line(log chain.LogID, seq chain.Seq) (line []byte, err error) {
	now := s.now()
	e := now.find(log)
	if e == nil {
		return nil, nil
	}
	first, ok := e.file(seq)
	if !ok || first > seq {
		return nil, nil
	}
	err = s.read(e, first, func(b *bbolt.Bucket) error {
		line = bytes.Clone(b.Get(seqKey(seq)))
		return nil
	})
	return line, err
}
