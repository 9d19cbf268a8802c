package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"

	"rollcall/queue/chain"
)

// A file of records is at most this large; the next record begins another.
const (
	maxFileRecords = 16_384
	maxFileBytes   = 8 << 20
	maxFileAge     = 24 * time.Hour // by the wall clock of its records
)

// lockTimeout is how long opening waits for another process to let go.
const lockTimeout = time.Second

// bucketRecords holds lines, keyed by the sequence number (8 bytes,
// big-endian), and after each that has one its head, keyed by the same with an
// "h" behind. One bucket, so that a commit writes few pages.
var bucketRecords = []byte("records")

func seqKey(seq chain.Seq) []byte { return binary.BigEndian.AppendUint64(nil, uint64(seq)) }

func headKey(seq chain.Seq) []byte { return append(seqKey(seq), 'h') }

// readKey is the inverse of seqKey and headKey.
func readKey(key []byte) (seq chain.Seq, head, ok bool) {
	if len(key) < 8 || len(key) > 9 || len(key) == 9 && key[8] != 'h' {
		return 0, false, false
	}
	return chain.Seq(binary.BigEndian.Uint64(key)), len(key) == 9, true
}

// file is an open file of records.
type file struct {
	path string
	db   *bbolt.DB
	uses int // guarded by Store.mu
}

// openFile gives a file that was checked to bbolt. It creates none.
func openFile(path string, readOnly bool) (*bbolt.DB, error) {
	var db *bbolt.DB
	var f *os.File
	err := guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:        lockTimeout,
			ReadOnly:       readOnly,
			NoFreelistSync: true, // one page less in every commit; the list is found again at the opening
			FreelistType:   bbolt.FreelistMapType,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				f, err = os.OpenFile(name, flag&^os.O_CREATE, mode)
				return f, err
			},
		})
		return err
	})
	if err != nil && f != nil {
		_ = f.Close() // and its lock: a panic leaves it to nobody
	}
	return db, err
}

// Probe opens a file of records as [Open] does the last one, all that bbolt
// reads then included, and changes nothing. It may end the process: it is for
// one that was started for this ([Config.Probe]).
func Probe(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, ReadOnly: true, PreLoadFreelist: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return err
	}
	return db.Close()
}

// createFile makes a file that holds what put puts into it:
//
//  1. Make it under another name, with its bucket and first records in one
//     commit, which syncs it.
//  2. Rename it. It is part of the ledger from here on.
//  3. Sync the directory.
//
// A file left by a crash before step 2 was seen by nobody and is made anew.
func createFile(path string, put func(*bbolt.Bucket) error) (*bbolt.DB, error) {
	db, err := makeFile(path+newSuffix, put)
	if err == nil {
		err = os.Rename(path+newSuffix, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil && db != nil {
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		return nil, err
	}
	return db, nil
}

// makeFile is step 1.
func makeFile(fresh string, put func(*bbolt.Bucket) error) (*bbolt.DB, error) {
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	db, err := bbolt.Open(fresh, 0o600, &bbolt.Options{Timeout: lockTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(bucketRecords)
		if err != nil {
			return err
		}
		return put(b)
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// update changes a file and gives the bytes that it then uses.
func update(db *bbolt.DB, put func(*bbolt.Bucket) error) (size int64, err error) {
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketRecords)
		if b == nil {
			return fmt.Errorf("%w: its bucket is missing", ErrDamaged)
		}
		return put(b)
	})
	if err != nil {
		return 0, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	return size, err
}

// view runs a short read transaction. What f keeps it must copy.
func view(db *bbolt.DB, f func(*bbolt.Bucket) error) error {
	return guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketRecords)
			if b == nil {
				return fmt.Errorf("%w: its bucket is missing", ErrDamaged)
			}
			return f(b)
		})
	})
}

// guard turns a panic or a memory fault inside bbolt into an error: the disk
// may change under a file that was checked.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return f()
}

// tail is where a ledger ends.
type tail struct {
	log  chain.LogID
	seq  chain.Seq
	hash chain.Hash
}

// content is what a check found in a file.
type content struct {
	tail            // its last line
	prev chain.Hash // what its first line says of the one before
	wall chain.Wall // of its first line
	head []byte     // of its last line
	size int64      // bytes in use
}

// checkFile reads a file of records from its first to its last byte in use: the
// pages, that each line is the one which the next names, that no seq is
// missing but those of known gaps, and that the last line has a head. Bodies
// are not parsed (a line that hashes right was parsed when it was written),
// and signatures are not checked. One file takes some 10 ms.
func checkFile(path string, e *epoch, first chain.Seq) (c content, err error) {
	m, err := readImage(path)
	if err != nil {
		return c, err
	}
	if !m.both {
		return c, fmt.Errorf("%w: one of its two first pages cannot be read: the last record may be missing", ErrDamaged)
	}
	c.tail = tail{log: e.Log, seq: first - 1}
	c.size = int64(m.meta.high) * int64(m.size)
	err = m.walk(false, func(_ string, key, value []byte) error {
		seq, head, ok := readKey(key)
		switch {
		case !ok:
			return errors.New("an entry is neither record nor head")
		case head && seq == c.seq && c.head == nil:
			c.head = bytes.Clone(value)
			return nil
		case head:
			return fmt.Errorf("a head for record %d stands after %d", seq, c.seq)
		}
		return c.add(e, seq, first, value)
	})
	if err == nil && c.seq < first {
		err = errors.New("it holds no record")
	}
	if err == nil && c.head == nil {
		err = fmt.Errorf("its last record, %d, has no head", c.seq)
	}
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return c, nil
}

func (c *content) add(e *epoch, seq, first chain.Seq, line []byte) error {
	if want := e.next(c.seq); seq != want && (c.seq >= first || seq != first) {
		return fmt.Errorf("record %d is missing", want)
	}
	if c.seq+1 == seq && c.seq >= first {
		if !bytes.HasPrefix(line, linePrefix(c.tail)) {
			return fmt.Errorf("record %d does not follow the one before it", seq)
		}
	} else {
		entry, err := chain.ParseLine(line)
		if err != nil || entry.Log != c.log || entry.Seq != seq {
			return fmt.Errorf("record %d is not where it should be", seq)
		}
		if c.seq < first {
			c.prev, c.wall = entry.Prev, entry.At.Wall
		}
	}
	c.seq, c.hash, c.head = seq, chain.HashLine(line), nil
	return nil
}

// linePrefix is how the line after t begins.
func linePrefix(t tail) []byte {
	return fmt.Appendf(nil, `{"v":%d,"log":%q,"seq":%d,"prev":"%s"`, chain.Version, string(t.log), t.seq+1, t.hash)
}
