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

// Template is a consented face, bound to the embedder that made it.
type Template struct {
	Model     string // SHA-256 of the embedder, lower-case hex
	Embedding Embedding
}

// Wipe overwrites the template in memory.
func (t Template) Wipe() { clear(t.Embedding) }

// Gallery keeps templates, sealed under a key each, one file per trainee, named
// by the SHA-256 of the trainee's id. Calls for different trainees may be made
// at once; enrolling one trainee is for one caller at a time.
type Gallery struct {
	dir  string
	keys *device.SubjectKeys
}

// A sealed template is a kind, the id of its subject key, and what the key
// sealed.
const (
	kindSealed   = "RCT\x02" // the enrol record has the hash of all these bytes
	kindResealed = "RCT\x03" // the enrol record has the hash of what the first builds sealed: it is bound into the seal
	kindSize     = len(kindSealed)
)

// pendingSuffix marks a template whose enrol record is not known to be durable.
const pendingSuffix = ".pending"

// OpenGallery uses dir, and makes it if it is not there.
func OpenGallery(dir string, keys *device.SubjectKeys) (*Gallery, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening gallery: %w", err)
	}
	return &Gallery{dir, keys}, nil
}

// Pending is a sealed template on disk that no record names yet. Salt, Hash and
// Key go into the enrol record.
type Pending struct {
	Salt string // base64url without padding
	Hash string // SHA-256(salt || sealed), base64url without padding
	Key  string // id of the subject key

	gallery *Gallery
	path    string // where it will stand
	key     device.SubjectKeyID
}

// An enrolment ends well or not at all, whenever the power goes:
//
//  1. Prepare makes a subject key, seals the template into NAME.pending and syncs it;
//  2. the caller makes the enrol record, with Salt, Hash and Key, durable;
//  3. Commit renames NAME.pending to NAME and syncs the directory;
//  4. Commit destroys the key of the template that stood there before.
//
// Before 2 the former template and the former record hold, and the pending
// file and its key are deleted by the next TakeUp. Between 2 and 3 the record
// names the pending file, and TakeUp renames it. TakeUp destroys every key that
// no file names.

// Prepare seals a template. It is durable when Prepare returns, but not used
// before Commit.
func (g *Gallery) Prepare(trainee attendance.TraineeID, t Template) (Pending, error) {
	if len(t.Embedding) == 0 || len(t.Embedding) > maxDimensions {
		return Pending{}, fmt.Errorf("sealing template: %w", errEmbedding)
	}
	ids, err := g.keys.New(1)
	if err != nil {
		return Pending{}, err
	}
	sealed, err := g.seal(kindSealed, ids[0], t.Embedding.bytes(), binding(kindSealed, trainee, t.Model))
	if err != nil {
		return Pending{}, fmt.Errorf("sealing template: %w", err)
	}
	salt := make([]byte, 32)
	_, _ = rand.Read(salt) // never fails
	p := Pending{
		Salt: base64.RawURLEncoding.EncodeToString(salt), Hash: saltedHash(salt, sealed), Key: ids[0].String(),
		gallery: g, path: g.path(trainee), key: ids[0],
	}
	if err := device.WriteDurable(p.path+pendingSuffix, sealed, 0o600); err != nil {
		return Pending{}, fmt.Errorf("sealing template: %w", errors.Join(pathless(err), g.keys.Destroy(p.key)))
	}
	return p, nil
}

// seal forms a sealed template and wipes plain.
func (g *Gallery) seal(kind string, key device.SubjectKeyID, plain, aad []byte) ([]byte, error) {
	defer clear(plain)
	sealed, err := g.keys.Seal(key, plain, aad)
	return append(append([]byte(kind), key[:]...), sealed...), err
}

// parse takes a sealed template apart; ok is false for what the first builds
// sealed.
func parse(file []byte) (kind string, key device.SubjectKeyID, sealed []byte, ok bool) {
	if len(file) < kindSize+len(key) {
		return "", key, nil, false
	}
	kind = string(file[:kindSize])
	return kind, device.SubjectKeyID(file[kindSize:]), file[kindSize+len(key):], kind == kindSealed || kind == kindResealed
}

// keyOf gives the key that a file names; false if there is no such file or it
// names none.
func keyOf(path string) (device.SubjectKeyID, bool, error) {
	file, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return device.SubjectKeyID{}, false, nil
	}
	_, key, _, ok := parse(file)
	return key, ok, pathless(err)
}

// Commit puts the template to use. It is called after the enrol record is durable.
func (p Pending) Commit() error {
	former, had, err := keyOf(p.path)
	if err != nil {
		return fmt.Errorf("taking up template: %w", err)
	}
	if err := os.Rename(p.path+pendingSuffix, p.path); err != nil {
		return fmt.Errorf("taking up template: %w", pathless(err))
	}
	if err := syncDirectory(p.gallery.dir); err != nil || !had {
		return err
	}
	return p.gallery.keys.Destroy(former)
}

// Discard deletes the template, when its record was not made.
func (p Pending) Discard() error {
	if err := remove(p.path + pendingSuffix); err != nil {
		return fmt.Errorf("discarding template: %w", err)
	}
	return errors.Join(p.gallery.keys.Destroy(p.key), syncDirectory(p.gallery.dir))
}

// Erase destroys the keys of a trainee's templates and deletes their files. It
// does no harm to call it again, which ends what a crash interrupted.
func (g *Gallery) Erase(trainee attendance.TraineeID) error {
	paths := []string{g.path(trainee), g.path(trainee) + pendingSuffix, g.path(trainee) + newSuffix, g.path(trainee) + pendingSuffix + newSuffix}
	var keys []device.SubjectKeyID
	for _, path := range paths {
		key, ok, err := keyOf(path)
		if err != nil {
			return fmt.Errorf("erasing template: %w", err)
		}
		if ok {
			keys = append(keys, key)
		}
	}
	if err := g.keys.Destroy(keys...); err != nil {
		return fmt.Errorf("erasing template: %w", err)
	}
	for _, path := range paths {
		if err := remove(path); err != nil {
			return fmt.Errorf("erasing template: %w", err)
		}
	}
	return syncDirectory(g.dir)
}

// TakeUp ends what a crash interrupted. It is called at start, before any
// Prepare, with the enrolments in force: a pending template that one of them
// names is taken up; every other was never consented to on record and is
// deleted. Keys that no file names are destroyed.
func (g *Gallery) TakeUp(enrolments map[attendance.TraineeID]attendance.Enrolment) error {
	for trainee, enrolment := range enrolments {
		p := Pending{gallery: g, path: g.path(trainee)}
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
	return g.tidy()
}

// tidy deletes pending files and destroys keys that no file names.
func (g *Gallery) tidy() error {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return fmt.Errorf("reading gallery: %w", err)
	}
	var keys []device.SubjectKeyID
	for _, entry := range entries {
		path := filepath.Join(g.dir, entry.Name())
		if strings.Contains(entry.Name(), pendingSuffix) || strings.HasSuffix(entry.Name(), newSuffix) {
			if err := remove(path); err != nil {
				return fmt.Errorf("deleting pending template: %w", err)
			}
			continue
		}
		key, ok, err := keyOf(path)
		if err != nil {
			return fmt.Errorf("reading gallery: %w", err)
		}
		if ok {
			keys = append(keys, key)
		}
	}
	if err := g.keys.DestroyBut(keys...); err != nil {
		return err
	}
	return syncDirectory(g.dir)
}

// newSuffix is what [device.WriteDurable] leaves behind in a crash.
const newSuffix = ".new"

// Reseal seals anew, under a key each, what the first builds sealed under one
// key for all, which open opens. Only what an enrolment in force names is
// taken over; a crash in between is made good by calling it again. It gives how
// many it sealed.
func (g *Gallery) Reseal(open func(sealed, aad []byte) ([]byte, error), enrolments map[attendance.TraineeID]attendance.Enrolment) (int, error) {
	var old []attendance.TraineeID
	plains := map[attendance.TraineeID][]byte{}
	for trainee, e := range enrolments {
		file, err := os.ReadFile(g.path(trainee))
		if err != nil {
			continue
		}
		if _, _, _, ok := parse(file); ok || !named(e, file) {
			continue
		}
		if plain, err := open(file, formerBinding(trainee, e.Model)); err == nil {
			old, plains[trainee] = append(old, trainee), plain
		}
	}
	if len(old) == 0 {
		return 0, nil
	}
	keys, err := g.keys.New(len(old))
	if err != nil {
		return 0, err
	}
	for i, trainee := range old {
		e := enrolments[trainee]
		sealed, err := g.seal(kindResealed, keys[i], plains[trainee], resealedBinding(trainee, e))
		if err != nil {
			return i, fmt.Errorf("sealing template anew: %w", err)
		}
		if err := device.WriteDurable(g.path(trainee), sealed, 0o600); err != nil {
			return i, fmt.Errorf("sealing template anew: %w", pathless(err))
		}
	}
	return len(old), nil
}

// Resemblance is the template of another trainee that is most like one.
type Resemblance struct {
	Trainee attendance.TraineeID
	Score   float64 // cosine
}

// Nearest compares a template with that of every enrolment but the trainee's
// own. Each is opened, compared and wiped before the next. It is false if there
// is none of the same embedder to compare with.
func (g *Gallery) Nearest(trainee attendance.TraineeID, t Template, enrolments map[attendance.TraineeID]attendance.Enrolment) (nearest Resemblance, ok bool) {
	for other, e := range enrolments {
		if other == trainee || e.Model != t.Model {
			continue
		}
		template, err := g.Load(other, e)
		if err != nil {
			continue // it is of no use at the door either
		}
		if score := Cosine(t.Embedding, template.Embedding); !ok || score > nearest.Score {
			nearest, ok = Resemblance{other, score}, true
		}
		template.Wipe()
	}
	return nearest, ok
}

// Load opens the template that the enrolment names, and no other: else it
// gives [ErrNoTemplate]. The caller wipes it after use.
func (g *Gallery) Load(trainee attendance.TraineeID, enrolment attendance.Enrolment) (Template, error) {
	file, err := os.ReadFile(g.path(trainee))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Template{}, fmt.Errorf("%w (no file)", ErrNoTemplate)
	case err != nil:
		return Template{}, fmt.Errorf("%w: %w", ErrNoTemplate, pathless(err))
	}
	kind, key, sealed, ok := parse(file)
	aad := binding(kindSealed, trainee, enrolment.Model)
	switch {
	case !ok:
		return Template{}, fmt.Errorf("%w (not a sealed template)", ErrNoTemplate)
	case kind == kindResealed:
		aad = resealedBinding(trainee, enrolment)
	case !named(enrolment, file):
		return Template{}, fmt.Errorf("%w (not the one on record)", ErrNoTemplate)
	}
	plain, err := g.keys.Open(key, sealed, aad)
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

// remove deletes a file, if it is there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pathless(err)
	}
	return nil
}

// binding ties sealed bytes to their kind, trainee and embedder.
func binding(kind string, trainee attendance.TraineeID, model string) []byte {
	b := []byte("rollcall template " + kind + "\x00")
	b = binary.BigEndian.AppendUint32(b, uint32(len(trainee)))
	b = append(b, trainee...)
	return append(b, model...)
}

// resealedBinding ties them to the enrol record as well, whose hash is of other
// bytes.
func resealedBinding(trainee attendance.TraineeID, e attendance.Enrolment) []byte {
	return append(binding(kindResealed, trainee, e.Model), e.Salt+e.Hash...)
}

// formerBinding is the binding of the first builds.
func formerBinding(trainee attendance.TraineeID, model string) []byte {
	return binding("1", trainee, model)
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
