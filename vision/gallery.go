package vision

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"rollcall/attendance"
	"rollcall/device"
)

// ErrNoTemplate means that the gallery holds no template that the enrolment
// names: none, another one, or one that this box cannot open.
var ErrNoTemplate = errors.New("no usable template: the trainee must be enrolled again at this terminal")

// Sealer encrypts at rest; the terminal's key store is one. Open fails on
// anything but what Seal gave for the same aad.
type Sealer interface {
	Seal(plain, aad []byte) []byte
	Open(sealed, aad []byte) ([]byte, error)
}

// Template is a consented face, bound to the embedder that made it.
type Template struct {
	Model     string // SHA-256 of the embedder, lower-case hex
	Embedding Embedding
}

// Gallery keeps templates, sealed, one file per trainee, named by the SHA-256
// of the trainee's id. Calls for different trainees may be made at once;
// enrolling one trainee is for one caller at a time.
type Gallery struct {
	dir    string
	sealer Sealer
}

// pendingSuffix marks a template whose enrol record is not known to be durable.
const pendingSuffix = ".pending"

// OpenGallery uses dir, and makes it if it is not there.
func OpenGallery(dir string, sealer Sealer) (*Gallery, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening gallery: %w", err)
	}
	return &Gallery{dir, sealer}, nil
}

// Pending is a sealed template on disk that no record names yet. Salt and Hash
// go into the enrol record.
type Pending struct {
	Salt string // base64url without padding
	Hash string // SHA-256(salt || sealed), base64url without padding
	path string // where it will stand
}

// An enrolment ends well or not at all, whenever the power goes:
//
//  1. Prepare seals the template into NAME.pending and syncs it;
//  2. the caller makes the enrol record, with Salt and Hash, durable;
//  3. Commit renames NAME.pending to NAME and syncs the directory.
//
// Before 2 the former template and the former record hold, and the pending
// file is deleted by the next TakeUp. Between 2 and 3 the record names the
// pending file, and TakeUp renames it.

// Prepare seals a template. It is durable when Prepare returns, but not used
// before Commit.
func (g *Gallery) Prepare(trainee attendance.TraineeID, t Template) (Pending, error) {
	if len(t.Embedding) == 0 || len(t.Embedding) > maxDimensions {
		return Pending{}, fmt.Errorf("sealing template: %w", errEmbedding)
	}
	sealed := g.sealer.Seal(t.Embedding.bytes(), binding(trainee, t.Model))
	salt := make([]byte, 32)
	_, _ = rand.Read(salt) // never fails
	p := Pending{
		Salt: base64.RawURLEncoding.EncodeToString(salt),
		Hash: saltedHash(salt, sealed),
		path: g.path(trainee),
	}
	if err := device.WriteDurable(p.path+pendingSuffix, sealed, 0o600); err != nil {
		return Pending{}, fmt.Errorf("sealing template: %w", pathless(err))
	}
	return p, nil
}

// Commit puts the template to use. It is called after the enrol record is durable.
func (p Pending) Commit() error {
	if err := os.Rename(p.path+pendingSuffix, p.path); err != nil {
		return fmt.Errorf("taking up template: %w", pathless(err))
	}
	return syncDirectory(filepath.Dir(p.path))
}

// Discard deletes the template, when its record was not made.
func (p Pending) Discard() error {
	if err := os.Remove(p.path + pendingSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("discarding template: %w", pathless(err))
	}
	return syncDirectory(filepath.Dir(p.path))
}

// TakeUp ends what a crash interrupted. It is called at start, before any
// Prepare, with the enrolments in force: a pending template that one of them
// names is taken up; every other was never consented to on record and is
// deleted.
func (g *Gallery) TakeUp(enrolments map[attendance.TraineeID]attendance.Enrolment) error {
	for trainee, enrolment := range enrolments {
		p := Pending{path: g.path(trainee)}
		sealed, err := os.ReadFile(p.path + pendingSuffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("taking up template: %w", pathless(err))
		}
		if !named(enrolment, sealed) {
			continue
		}
		if err := p.Commit(); err != nil {
			return err
		}
	}
	return g.deletePending()
}

// Erase deletes what the gallery holds of a trainee. It does no harm to call it
// again.
func (g *Gallery) Erase(trainee attendance.TraineeID) error {
	for _, path := range []string{g.path(trainee), g.path(trainee) + pendingSuffix} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("erasing template: %w", pathless(err))
		}
	}
	return syncDirectory(g.dir)
}

func (g *Gallery) deletePending() error {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return fmt.Errorf("reading gallery: %w", err)
	}
	for _, entry := range entries {
		if !strings.Contains(entry.Name(), pendingSuffix) { // an interrupted write has a suffix more
			continue
		}
		if err := os.Remove(filepath.Join(g.dir, entry.Name())); err != nil {
			return fmt.Errorf("deleting pending template: %w", pathless(err))
		}
	}
	return syncDirectory(g.dir)
}

// Load opens the template that the enrolment names, and no other: else it
// gives [ErrNoTemplate].
func (g *Gallery) Load(trainee attendance.TraineeID, enrolment attendance.Enrolment) (Template, error) {
	sealed, err := os.ReadFile(g.path(trainee))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Template{}, fmt.Errorf("%w (no file)", ErrNoTemplate)
	case err != nil:
		return Template{}, fmt.Errorf("%w: %w", ErrNoTemplate, pathless(err))
	case !named(enrolment, sealed):
		return Template{}, fmt.Errorf("%w (not the one on record)", ErrNoTemplate)
	}
	plain, err := g.sealer.Open(sealed, binding(trainee, enrolment.Model))
	if err != nil {
		return Template{}, fmt.Errorf("%w: %w", ErrNoTemplate, err)
	}
	defer clear(plain)
	e, err := embeddingOf(plain)
	if err != nil {
		return Template{}, fmt.Errorf("%w: %w", ErrNoTemplate, err)
	}
	return Template{enrolment.Model, e}, nil
}

func (g *Gallery) path(trainee attendance.TraineeID) string {
	sum := sha256.Sum256([]byte(trainee))
	return filepath.Join(g.dir, hex.EncodeToString(sum[:]))
}

// pathless leaves out the file's name, which stands for a person.
func pathless(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	if link := (*os.LinkError)(nil); errors.As(err, &link) {
		return link.Err
	}
	return err
}

// binding ties sealed bytes to their trainee and embedder.
func binding(trainee attendance.TraineeID, model string) []byte {
	b := []byte("rollcall template 1\x00")
	b = binary.BigEndian.AppendUint32(b, uint32(len(trainee)))
	b = append(b, trainee...)
	return append(b, model...)
}

func saltedHash(salt, sealed []byte) string {
	h := sha256.New()
	h.Write(salt)
	h.Write(sealed)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func named(e attendance.Enrolment, sealed []byte) bool {
	salt, err := base64.RawURLEncoding.DecodeString(e.Salt)
	return err == nil && subtle.ConstantTimeCompare([]byte(e.Hash), []byte(saltedHash(salt, sealed))) == 1
}

func syncDirectory(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing directory: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Sync()
}
