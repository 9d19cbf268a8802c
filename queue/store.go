package queue

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"rollcall/queue/chain"
)

const fileName = "ledger.db"

// lockTimeout is how long opening waits for another process to let go.
const lockTimeout = time.Second

// The buckets and keys of the file. Lines and heads are keyed by the sequence
// number, 8 bytes big-endian.
var (
	bucketLines = []byte("lines") // seq -> record line
	bucketHeads = []byte("heads") // seq of the line it covers -> head
	bucketState = []byte("state")

	stateLog     = []byte("log")     // the log id
	stateReceipt = []byte("receipt") // the last receipt, JWS; absent before the first
)

var (
	// ErrInUse says that another process has the ledger open.
	ErrInUse = errors.New("the ledger is in use by another process: stop that one first")

	// ErrDamaged says that the file cannot be what this terminal wrote. The
	// file was left as it is.
	ErrDamaged = errors.New("the ledger file is damaged")
)

// Store reads a ledger file.
type Store struct {
	db   *bbolt.DB
	path string
}

// OpenReadOnly opens the ledger in a state directory for reading. It returns
// [ErrInUse] while the daemon runs. It checks nothing: give an [Store.Export]
// to a chain.Verifier.
func OpenReadOnly(dir string) (*Store, error) {
	return openStore(filepath.Join(dir, fileName), true)
}

// openStore opens an existing file; it never creates one.
func openStore(path string, readOnly bool) (*Store, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	if info.Size() == 0 {
		return nil, damaged(path, errors.New("it is empty"))
	}
	s := &Store{path: path}
	var file *os.File
	err = guard(func() error {
		var err error
		s.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockTimeout,
			ReadOnly:     readOnly,
			FreelistType: bbolt.FreelistMapType,
			OpenFile: func(name string, _ int, perm os.FileMode) (*os.File, error) {
				// Without O_CREATE.
				flag := os.O_RDWR
				if readOnly {
					flag = os.O_RDONLY
				}
				var err error
				file, err = os.OpenFile(name, flag, perm)
				return file, err
			},
		})
		return err
	})
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("opening %s: %w", path, ErrInUse)
	}
	if file != nil {
		// After a panic bbolt's mapping of the file is left, and closing alone
		// would leave the lock with it.
		_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
		_ = file.Close()
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return nil, fmt.Errorf("opening %s: %w", path, err) // rights, memory, a disk that is away
	}
	return nil, damaged(path, err)
}

// damaged says what a person does about a file that cannot be read.
func damaged(path string, why error) error {
	return fmt.Errorf("%w: %s: %w; nothing was changed. Move it to %s.bad, keep it for support, and start again: "+
		"a new epoch begins and the centre is told", ErrDamaged, path, why, path)
}

// guard turns a panic or a memory fault while reading a damaged file into an
// error. bbolt has no page checksums: it follows whatever a page says.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return f()
}

// Close closes the file. For a [Ledger] it comes after Run has returned.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("closing the ledger: %w", err)
	}
	return nil
}

// view runs a short read transaction. What f keeps it must copy.
func (s *Store) view(f func(lines, heads, state *bbolt.Bucket) error) error {
	err := guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error { return buckets(tx, f) })
	})
	if errors.Is(err, ErrDamaged) {
		return damaged(s.path, err)
	}
	return err
}

func buckets(tx *bbolt.Tx, f func(lines, heads, state *bbolt.Bucket) error) error {
	lines, heads, state := tx.Bucket(bucketLines), tx.Bucket(bucketHeads), tx.Bucket(bucketState)
	if lines == nil || heads == nil || state == nil {
		return fmt.Errorf("%w: a bucket is missing", ErrDamaged)
	}
	return f(lines, heads, state)
}

// Each calls f with every record in order, and with those that are appended
// meanwhile. It ends at f's first error and returns it.
func (s *Store) Each(f func(chain.Entry) error) error {
	var after chain.Seq
	for {
		r, err := s.run(after, chain.MaxBatchRecords, chain.MaxBatchBytes)
		if err != nil || len(r.lines) == 0 {
			return err
		}
		for _, line := range r.lines {
			e, err := chain.ParseLine(line)
			if err != nil {
				return damaged(s.path, err)
			}
			if err := f(e); err != nil {
				return err
			}
		}
		after += chain.Seq(len(r.lines))
	}
}

// Export writes the whole ledger as text that a chain.Verifier accepts: the
// certificate of the ledger key, record lines with a head after every few, and
// the last receipt. It may run beside appends; it then ends with a line that
// was the last at some moment of the export.
func (s *Store) Export(w io.Writer, cert *x509.Certificate) error {
	put := func(line []byte) error {
		_, err := w.Write(append(bytes.Clone(line), '\n'))
		return err
	}
	if err := put(chain.CertificateLine(cert)); err != nil {
		return fmt.Errorf("exporting the ledger: %w", err)
	}
	receipt, err := s.lastReceipt() // before the lines, so that none it names is missing
	if err != nil {
		return err
	}
	var after chain.Seq
	for {
		r, err := s.run(after, chain.MaxBatchRecords, chain.MaxBatchBytes)
		if err != nil {
			return err
		}
		if len(r.lines) == 0 {
			break
		}
		payload := bytes.Join(r.lines, []byte("\n"))
		if r.head != nil {
			payload = chain.FormBatch(r.lines, r.head)
		}
		if err := put(payload); err != nil {
			return fmt.Errorf("exporting the ledger: %w", err)
		}
		after += chain.Seq(len(r.lines))
	}
	if receipt == nil {
		return nil
	}
	if err := put(receipt); err != nil {
		return fmt.Errorf("exporting the ledger: %w", err)
	}
	return nil
}

// stretch is consecutive lines and the head that covers the last of them. Head is
// nil only in a file that somebody cut: then lines run to its end.
type stretch struct {
	lines [][]byte
	head  []byte
}

// run copies lines after a record, within limits if one commit allows it.
func (s *Store) run(after chain.Seq, maxRecords, maxBytes int) (stretch, error) {
	var r stretch
	covered, size := 0, 0
	err := s.view(func(lines, heads, _ *bbolt.Bucket) error {
		c := lines.Cursor()
		for key, line := c.Seek(seqKey(after + 1)); key != nil; key, line = c.Next() {
			head := heads.Get(key)
			size += len(line) + 1
			if covered > 0 && (len(r.lines) >= maxRecords || size+len(head) > maxBytes) {
				break
			}
			if !bytes.Equal(key, seqKey(after+1+chain.Seq(len(r.lines)))) {
				return fmt.Errorf("%w: record %d is not where it should be", ErrDamaged, after+1+chain.Seq(len(r.lines)))
			}
			r.lines = append(r.lines, bytes.Clone(line))
			if head != nil {
				r.head, covered = bytes.Clone(head), len(r.lines)
			}
		}
		return nil
	})
	if covered > 0 {
		r.lines = r.lines[:covered]
	}
	return r, err
}

// line copies one line; it is nil if there is none.
func (s *Store) line(seq chain.Seq) (line []byte, err error) {
	err = s.view(func(lines, _, _ *bbolt.Bucket) error {
		line = bytes.Clone(lines.Get(seqKey(seq)))
		return nil
	})
	return line, err
}

// lastReceipt copies the last receipt; it is nil if there is none.
func (s *Store) lastReceipt() (jws []byte, err error) {
	err = s.view(func(_, _, state *bbolt.Bucket) error {
		jws = bytes.Clone(state.Get(stateReceipt))
		return nil
	})
	return jws, err
}

// tail is where a ledger ends.
type tail struct {
	log  chain.LogID
	seq  chain.Seq
	hash chain.Hash
}

// check hashes every line and compares it with what the next one says, up to
// the last, which a head by pub must cover. So every byte of every line is
// checked; bodies are not parsed (a line that hashes right was parsed when it
// was written). Lines and heads are looked up one by one and counted too,
// because a damaged page may lead a search astray and a walk not. Of heads
// before the last the signature is checked when they are sent.
func (s *Store) check(pub crypto.PublicKey) (t tail, err error) {
	err = s.view(func(lines, heads, state *bbolt.Bucket) error {
		t.log = chain.LogID(state.Get(stateLog))
		found := 0
		for line := lines.Get(seqKey(1)); line != nil; line = lines.Get(seqKey(t.seq + 1)) {
			if !bytes.HasPrefix(line, linePrefix(t)) {
				return fmt.Errorf("%w: record %d does not follow the one before it", ErrDamaged, t.seq+1)
			}
			t.seq, t.hash = t.seq+1, chain.HashLine(line)
			if heads.Get(seqKey(t.seq)) != nil {
				found++
			}
		}
		if count(lines) != int(t.seq) || count(heads) != found {
			return fmt.Errorf("%w: records or heads after %d cannot be reached", ErrDamaged, t.seq)
		}
		head, err := chain.OpenHead(pub, heads.Get(seqKey(t.seq)))
		if err != nil || head.Log != t.log || head.Seq != t.seq || head.Hash != t.hash {
			return fmt.Errorf("%w: the last record, %d, is not signed with this terminal's key (were the keys replaced?)", ErrDamaged, t.seq)
		}
		return nil
	})
	return t, err
}

func count(b *bbolt.Bucket) (n int) {
	c := b.Cursor()
	for key, _ := c.First(); key != nil; key, _ = c.Next() {
		n++
	}
	return n
}

// linePrefix is how the line after t begins.
func linePrefix(t tail) []byte {
	return fmt.Appendf(nil, `{"v":%d,"log":%q,"seq":%d,"prev":"%s"`, chain.Version, string(t.log), t.seq+1, t.hash)
}

func seqKey(seq chain.Seq) []byte { return binary.BigEndian.AppendUint64(nil, uint64(seq)) }
