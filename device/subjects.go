package device

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

const (
	wrappingFile  = "wrapping.pem"      // 32 random bytes, seals the list of subject keys
	nextFile      = "wrapping.next.pem" // the one that takes its place
	wrappingBlock = "ROLLCALL WRAPPING KEY"
	keySize       = 32 // AES-256
)

// listBinding is what the list of subject keys is sealed for.
var listBinding = []byte("rollcall subject keys 1")

// SubjectKeyID names one subject key. It says nothing about the subject.
type SubjectKeyID [16]byte

// String gives the id as records carry it, base64url without padding.
func (id SubjectKeyID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

type subjectKey [keySize]byte

// SubjectKeys seal face templates, each under a key of its own. The keys stand
// in one small file, sealed under a wrapping key that stands in the key
// directory, so that whoever has only one of the two has nothing. Destroying a
// key writes the list anew under a new wrapping key and destroys the former
// one: a copy of the list made before opens no more, except with a copy of the
// former wrapping key made before too.
//
// What that is worth on flash is limited: the medium may keep overwritten
// blocks (docs/decisions: subject keys).
//
// They may be used from several goroutines at once and print as "***".
type SubjectKeys struct {
	list, keyDir string
	setAside     bool

	mu       sync.Mutex // guards what follows
	wrapping []byte
	keys     map[SubjectKeyID]subjectKey
	unsure   bool // the list on disk may be under another wrapping key than this one
	former   bool // the former wrapping key is still to be destroyed
}

// OpenSubjectKeys opens the list and ends what a crash interrupted. keyDir is
// the directory of [OpenKeys]; list is outside it. Nothing there yet makes an
// empty list and a wrapping key. A list that no wrapping key opens is set aside
// as list + ".bad" (see [SubjectKeys.SetAside]): the terminal works on, and its
// people are enrolled again.
func OpenSubjectKeys(keyDir, list string) (*SubjectKeys, error) {
	s := &SubjectKeys{list: list, keyDir: keyDir, keys: map[SubjectKeyID]subjectKey{}}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("opening subject keys: %w", err)
	}
	return s, nil
}

func (s *SubjectKeys) open() error {
	sealed, err := os.ReadFile(s.list)
	if errors.Is(err, fs.ErrNotExist) {
		sealed, err = nil, nil
	}
	if err != nil {
		return err
	}
	wrapping, err := readWrapping(s.path(wrappingFile))
	if err != nil {
		return err
	}
	next, err := readWrapping(s.path(nextFile))
	if err != nil {
		return err
	}
	switch {
	case wrapping != nil && s.read(sealed, wrapping): // a rotation may have stopped before its second step
		return s.forget(nextFile)
	case next != nil && s.read(sealed, next): // after it
		return s.retire(next)
	case sealed != nil:
		s.setAside = true
		if err := os.Rename(s.list, s.list+".bad"); err != nil {
			return err
		}
	}
	return s.begin()
}

// SetAside reports whether the list could not be opened, so that every template
// before is lost.
func (s *SubjectKeys) SetAside() bool { return s.setAside }

func (s *SubjectKeys) path(name string) string { return filepath.Join(s.keyDir, name) }

// readWrapping gives nil for a key that is missing or was overwritten.
func readWrapping(path string) ([]byte, error) {
	if err := checkMode(path, 0o600); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != wrappingBlock || len(block.Bytes) != keySize {
		return nil, nil
	}
	return block.Bytes, nil
}

// read takes the list if this key opens it. No list is an empty one.
func (s *SubjectKeys) read(sealed, wrapping []byte) bool {
	const entry = len(SubjectKeyID{}) + keySize
	var plain []byte
	if sealed != nil {
		var err error
		if plain, err = aead(wrapping).Open(nil, nil, sealed, listBinding); err != nil || len(plain)%entry != 0 {
			return false
		}
	}
	for e := range slices.Chunk(plain, entry) {
		s.keys[SubjectKeyID(e)] = subjectKey(e[len(SubjectKeyID{}):])
	}
	clear(plain)
	s.wrapping = wrapping
	return true
}

// begin makes the first wrapping key, or a new one after a list was set aside.
func (s *SubjectKeys) begin() error {
	if err := s.forget(nextFile); err != nil {
		return err
	}
	key := random(keySize)
	if err := s.writeWrapping(wrappingFile, key); err != nil {
		return err
	}
	s.wrapping = key
	return nil
}

// New makes n keys, which are on disk when it returns.
func (s *SubjectKeys) New(n int) ([]SubjectKeyID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]SubjectKeyID, n)
	keys := maps.Clone(s.keys)
	for i := range ids {
		ids[i] = SubjectKeyID(random(len(ids[i])))
		keys[ids[i]] = subjectKey(random(keySize))
	}
	if err := s.write(keys, s.wrapping); err != nil {
		return nil, fmt.Errorf("making subject keys: %w", err)
	}
	s.keys = keys
	return ids, nil
}

// Seal encrypts with AES-256-GCM (NIST SP 800-38D) under a fresh random nonce,
// which goes before the text. aad says what the bytes are for; [SubjectKeys.Open]
// must be given the same. The id must be one of New.
func (s *SubjectKeys) Seal(id SubjectKeyID, plain, aad []byte) ([]byte, error) {
	key, ok := s.key(id)
	if !ok {
		return nil, ErrSeal
	}
	return aead(key[:]).Seal(nil, nil, plain, aad), nil
}

// Open is the inverse of [SubjectKeys.Seal]; all it can say is [ErrSeal].
func (s *SubjectKeys) Open(id SubjectKeyID, sealed, aad []byte) ([]byte, error) {
	key, ok := s.key(id)
	if !ok {
		return nil, ErrSeal
	}
	plain, err := aead(key[:]).Open(nil, nil, sealed, aad)
	if err != nil {
		return nil, ErrSeal
	}
	return plain, nil
}

func (s *SubjectKeys) key(id SubjectKeyID) (subjectKey, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, ok := s.keys[id]
	return key, ok
}

// Destroy destroys keys. Ids that are unknown, or were destroyed before, do no
// harm. When it returns nil, nothing that is left on this box opens the list of
// before:
//
//  1. write a new wrapping key beside the one in use, durably
//  2. write the list without these keys, sealed under the new one, durably
//  3. overwrite the former wrapping key, fsync, rename the new one over it, fsync the directory
//
// Opening after a crash before 2 finds the list of before, after it the list
// without them, and finishes 3.
func (s *SubjectKeys) Destroy(ids ...SubjectKeyID) error {
	return s.keep(func(id SubjectKeyID) bool { return !slices.Contains(ids, id) })
}

// DestroyBut destroys every key but these.
func (s *SubjectKeys) DestroyBut(ids ...SubjectKeyID) error {
	wanted := map[SubjectKeyID]bool{}
	for _, id := range ids {
		wanted[id] = true
	}
	return s.keep(func(id SubjectKeyID) bool { return wanted[id] })
}

func (s *SubjectKeys) keep(wanted func(SubjectKeyID) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := maps.Clone(s.keys)
	maps.DeleteFunc(left, func(id SubjectKeyID, _ subjectKey) bool { return !wanted(id) })
	if len(left) < len(s.keys) {
		if err := s.rotate(left); err != nil {
			return fmt.Errorf("destroying subject keys: %w", err)
		}
	}
	if s.former {
		if err := s.retire(s.wrapping); err != nil {
			return fmt.Errorf("destroying subject keys: %w", err)
		}
	}
	return nil
}

// rotate does steps 1 and 2. The caller holds mu.
func (s *SubjectKeys) rotate(left map[SubjectKeyID]subjectKey) error {
	if s.former { // else step 1 would overwrite the only key that opens the list
		if err := s.retire(s.wrapping); err != nil {
			return err
		}
	}
	if s.unsure {
		if err := s.write(s.keys, s.wrapping); err != nil {
			return err
		}
	}
	next := random(keySize)
	if err := s.writeWrapping(nextFile, next); err != nil {
		return err
	}
	if err := s.write(left, next); err != nil {
		return err
	}
	clear(s.wrapping)
	clear(s.keys)
	s.wrapping, s.keys, s.former = next, left, true
	return nil
}

// retire does step 3.
func (s *SubjectKeys) retire(next []byte) error {
	s.wrapping, s.former = next, true
	if err := overwrite(s.path(wrappingFile)); err != nil {
		return err
	}
	if err := os.Rename(s.path(nextFile), s.path(wrappingFile)); err != nil {
		return err
	}
	if err := syncDirectory(s.keyDir); err != nil {
		return err
	}
	s.former = false
	return nil
}

// write puts a list on disk. A write that fails may have happened all the same.
func (s *SubjectKeys) write(keys map[SubjectKeyID]subjectKey, wrapping []byte) error {
	var plain bytes.Buffer
	for _, id := range slices.SortedFunc(maps.Keys(keys), func(a, b SubjectKeyID) int { return bytes.Compare(a[:], b[:]) }) {
		key := keys[id]
		plain.Write(id[:])
		plain.Write(key[:])
	}
	sealed := aead(wrapping).Seal(nil, nil, plain.Bytes(), listBinding)
	clear(plain.Bytes())
	s.unsure = true
	if err := WriteDurable(s.list, sealed, 0o600); err != nil {
		return err
	}
	s.unsure = false
	return nil
}

func (s *SubjectKeys) writeWrapping(name string, key []byte) error {
	return WriteDurable(s.path(name), pem.EncodeToMemory(&pem.Block{Type: wrappingBlock, Bytes: key}), 0o600)
}

// forget overwrites and removes a file of the key directory, if it is there.
func (s *SubjectKeys) forget(name string) error { return destroyFile(s.path(name)) }

// destroyFile overwrites a file, removes it and syncs its directory. A file
// that is not there is no error.
func destroyFile(path string) error {
	if err := overwrite(path); err != nil {
		return err
	}
	if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// overwrite writes random bytes over a file in place and has them on disk. A
// file that is not there is no error.
func overwrite(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(random(int(info.Size())), 0); err != nil {
		return err
	}
	return f.Sync()
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// aead makes AES-256-GCM of a key that has the right size.
func aead(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("device: " + err.Error())
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("device: " + err.Error())
	}
	return gcm
}

// Format prints the redaction for every verb.
func (s *SubjectKeys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (s *SubjectKeys) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the keys out of JSON and TOML as well.
func (s *SubjectKeys) MarshalText() ([]byte, error) { return []byte(redacted), nil }
