package vision_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/device"
	"rollcall/vision"
)

var sample = vision.Template{Model: "m1", Embedding: vision.Embedding{0.6, 0.8}}

func openGallery(t *testing.T) (*vision.Gallery, string) {
	t.Helper()
	b := box{t.TempDir()}
	require.NoError(t, os.MkdirAll(b.keys(), 0o700))
	g, _ := b.open(t)
	return g, b.templates()
}

// box is what a terminal keeps of faces: keys in one directory, the list of
// subject keys and the templates in another.
type box struct{ dir string }

func (b box) keys() string      { return filepath.Join(b.dir, "keys") }
func (b box) state() string     { return filepath.Join(b.dir, "state") }
func (b box) templates() string { return filepath.Join(b.state(), "templates") }

func (b box) open(t *testing.T) (*vision.Gallery, *device.SubjectKeys) {
	t.Helper()
	require.NoError(t, os.MkdirAll(b.state(), 0o700))
	keys, err := device.OpenSubjectKeys(b.keys(), filepath.Join(b.state(), "subjects"))
	require.NoError(t, err)
	g, err := vision.OpenGallery(b.templates(), keys)
	require.NoError(t, err)
	return g, keys
}

// with is a box of this one's state and another's keys, copied.
func (b box) with(t *testing.T, keys string) box {
	t.Helper()
	stolen := box{t.TempDir()}
	require.NoError(t, os.CopyFS(stolen.state(), os.DirFS(b.state())))
	require.NoError(t, os.Mkdir(stolen.keys(), 0o700))
	files, err := os.ReadDir(keys)
	require.NoError(t, err)
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(keys, f.Name()))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(stolen.keys(), f.Name()), text, 0o600))
	}
	return stolen
}

func prepare(t *testing.T, g *vision.Gallery, id attendance.TraineeID, tpl vision.Template) (vision.Pending, attendance.Enrolment) {
	t.Helper()
	p, err := g.Prepare(id, tpl)
	require.NoError(t, err)
	return p, attendance.Enrolment{Seq: 1, Model: tpl.Model, Salt: p.Salt, Hash: p.Hash}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestATemplateIsUsedOnlyAsRecorded(t *testing.T) {
	g, dir := openGallery(t)
	p, e := prepare(t, g, "t1", sample)
	_, err := g.Load("t1", e)
	assert.ErrorIs(t, err, vision.ErrNoTemplate, "before Commit")
	require.NoError(t, p.Commit())
	got, err := g.Load("t1", e)
	require.NoError(t, err)
	assert.Equal(t, sample.Embedding[1], got.Embedding[1])
	assert.Equal(t, "m1", got.Model)

	otherModel, otherHash, badSalt := e, e, e
	otherModel.Model = "m2"
	otherHash.Hash = "AAAA"
	badSalt.Salt = "*"
	for name, c := range map[string]struct {
		id attendance.TraineeID
		e  attendance.Enrolment
	}{
		"nobody":          {"t2", e},
		"other model":     {"t1", otherModel},
		"other hash":      {"t1", otherHash},
		"not a salt":      {"t1", badSalt},
		"empty enrolment": {"t1", attendance.Enrolment{}},
	} {
		_, err := g.Load(c.id, c.e)
		assert.ErrorIs(t, err, vision.ErrNoTemplate, name)
	}

	// Another person's file under this name is refused: the seal names the person.
	names := files(t, dir)
	require.Len(t, names, 1)
	_, e2 := prepare(t, g, "t2", sample)
	for _, name := range files(t, dir) {
		if name != names[0] {
			require.NoError(t, os.Rename(filepath.Join(dir, name), filepath.Join(dir, names[0])))
		}
	}
	_, err = g.Load("t1", e2)
	assert.ErrorIs(t, err, vision.ErrNoTemplate)
	assert.NotContains(t, err.Error(), names[0], "an error does not say who")
}

func TestTemplatesAreNeverWrittenInClear(t *testing.T) {
	g, dir := openGallery(t)
	p, _ := prepare(t, g, "trainee-17", sample)
	require.NoError(t, p.Commit())
	for _, name := range files(t, dir) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.NotContains(t, name+string(text), "trainee-17")
		assert.NotContains(t, string(text), "\xcd\xcc\x4c\x3f", "0.8 as float32")
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
}

// TestACrashDuringEnrolment stops an enrolment after each of its steps, opens
// the gallery anew and looks which template holds.
func TestACrashDuringEnrolment(t *testing.T) {
	renewed := vision.Template{Model: "m1", Embedding: vision.Embedding{1, 0}}
	for name, c := range map[string]struct {
		recorded, committed bool
		holds               vision.Template
	}{
		"before the record":         {false, false, sample},
		"between record and Commit": {true, false, renewed},
		"after Commit":              {true, true, renewed},
	} {
		t.Run(name, func(t *testing.T) {
			g, dir := openGallery(t)
			p, onRecord := prepare(t, g, "t1", sample)
			require.NoError(t, p.Commit())
			p, e := prepare(t, g, "t1", renewed)
			if c.recorded {
				onRecord = e
			}
			if c.committed {
				require.NoError(t, p.Commit())
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "half.pending.new"), []byte("torn"), 0o600))
			prepare(t, g, "t2", sample) // never recorded

			require.NoError(t, g.TakeUp(map[attendance.TraineeID]attendance.Enrolment{"t1": onRecord, "t3": e}))
			got, err := g.Load("t1", onRecord)
			require.NoError(t, err)
			assert.Equal(t, c.holds.Embedding[0], got.Embedding[0])
			assert.Len(t, files(t, dir), 1, "nothing pending is left")
			require.NoError(t, g.TakeUp(map[attendance.TraineeID]attendance.Enrolment{"t1": onRecord}), "twice does no harm")
		})
	}
}

func TestADiscardedTemplateIsGone(t *testing.T) {
	g, dir := openGallery(t)
	p, _ := prepare(t, g, "t1", sample)
	require.NoError(t, p.Discard())
	assert.Empty(t, files(t, dir))
	require.NoError(t, p.Discard(), "twice does no harm")
	assert.Error(t, p.Commit())
}

func TestPrepareRefusesWhatIsNoFace(t *testing.T) {
	g, _ := openGallery(t)
	_, err := g.Prepare("t1", vision.Template{Model: "m"})
	assert.Error(t, err)
}

// enrolled enrols so many trainees and gives their records.
func enrolled(t *testing.T, g *vision.Gallery, ids ...attendance.TraineeID) map[attendance.TraineeID]attendance.Enrolment {
	t.Helper()
	all := map[attendance.TraineeID]attendance.Enrolment{}
	for i, id := range ids {
		p, e := prepare(t, g, id, vision.Template{Model: "m1", Embedding: vision.Embedding{1, float32(i)}})
		require.NoError(t, p.Commit())
		all[id] = e
	}
	return all
}

// decrypts counts the templates that a box gives.
func (b box) decrypts(t *testing.T, records map[attendance.TraineeID]attendance.Enrolment) (n int) {
	t.Helper()
	g, _ := b.open(t)
	for id, e := range records {
		if _, err := g.Load(id, e); err == nil {
			n++
		} else {
			assert.ErrorIs(t, err, vision.ErrNoTemplate)
		}
	}
	return n
}

// TestT31AStolenBoxGivesNoTemplate: the state directory without the keys opens
// nothing, and neither does a copy of it from before an erasure with the keys of
// after. The controls are the same copies with their own keys.
func TestT31AStolenBoxGivesNoTemplate(t *testing.T) {
	b := box{t.TempDir()}
	require.NoError(t, os.MkdirAll(b.keys(), 0o700))
	g, _ := b.open(t)
	people := enrolled(t, g, "t1", "t2", "t3", "t4")
	before := b.with(t, b.keys())

	require.NoError(t, g.Erase("t1"))
	require.NoError(t, g.Erase("t2"))
	erased := map[attendance.TraineeID]attendance.Enrolment{"t1": people["t1"], "t2": people["t2"]}
	kept := map[attendance.TraineeID]attendance.Enrolment{"t3": people["t3"], "t4": people["t4"]}
	assert.Zero(t, b.decrypts(t, erased))
	assert.Equal(t, 2, b.decrypts(t, kept), "control: the others' are there")
	assert.Len(t, files(t, b.templates()), 2)

	assert.Zero(t, before.with(t, b.keys()).decrypts(t, erased), "the state of before, the keys of after")
	assert.Zero(t, b.with(t, t.TempDir()).decrypts(t, people), "no keys")
	assert.Zero(t, before.with(t, t.TempDir()).decrypts(t, people), "no keys")
	assert.Equal(t, 4, before.decrypts(t, people), "control: state and keys of before")
}

// TestACrashDuringAnErasure leaves what each step of Erase leaves behind, opens
// the gallery anew and erases again.
func TestACrashDuringAnErasure(t *testing.T) {
	for name, interrupted := range map[string]func(t *testing.T, b box, key string){
		"before the key": func(*testing.T, box, string) {},
		"after the key": func(t *testing.T, b box, key string) {
			_, keys := b.open(t)
			id, err := base64.RawURLEncoding.DecodeString(key)
			require.NoError(t, err)
			require.NoError(t, keys.Destroy(device.SubjectKeyID(id)))
		},
		"with a pending template besides": func(t *testing.T, b box, _ string) {
			g, _ := b.open(t)
			prepare(t, g, "t1", sample)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := box{t.TempDir()}
			require.NoError(t, os.MkdirAll(b.keys(), 0o700))
			g, _ := b.open(t)
			p, e := prepare(t, g, "t1", sample)
			require.NoError(t, p.Commit())
			people := enrolled(t, g, "t2")
			interrupted(t, b, p.Key)

			g, _ = b.open(t)
			require.NoError(t, g.TakeUp(people), "t1 is withdrawn on record")
			require.NoError(t, g.Erase("t1"))
			require.NoError(t, g.Erase("t1"), "twice does no harm")
			assert.Zero(t, b.decrypts(t, map[attendance.TraineeID]attendance.Enrolment{"t1": e}))
			assert.Equal(t, 1, b.decrypts(t, people))
			assert.Len(t, files(t, b.templates()), 1)
		})
	}
}

// TestATemplateThatWasReplacedIsErased: its key goes with the new one's Commit,
// or with the next TakeUp if the power went in between.
func TestATemplateThatWasReplacedIsErased(t *testing.T) {
	b := box{t.TempDir()}
	require.NoError(t, os.MkdirAll(b.keys(), 0o700))
	g, _ := b.open(t)
	first := enrolled(t, g, "t1")
	before := b.with(t, b.keys())
	p, e := prepare(t, g, "t1", sample)
	assert.Equal(t, 1, before.with(t, b.keys()).decrypts(t, first), "control: not yet")
	require.NoError(t, p.Commit())
	assert.Zero(t, before.with(t, b.keys()).decrypts(t, first))

	again := b.with(t, b.keys())
	_, renewed := prepare(t, g, "t1", sample)
	require.NoError(t, os.Rename(filepath.Join(b.templates(), files(t, b.templates())[0]+".pending"), filepath.Join(b.templates(), files(t, b.templates())[0])))
	assert.Equal(t, 1, again.with(t, b.keys()).decrypts(t, map[attendance.TraineeID]attendance.Enrolment{"t1": e}), "control: the crash left its key")
	now := map[attendance.TraineeID]attendance.Enrolment{"t1": renewed}
	require.NoError(t, g.TakeUp(now))
	assert.Zero(t, again.with(t, b.keys()).decrypts(t, map[attendance.TraineeID]attendance.Enrolment{"t1": e}))
	assert.Equal(t, 1, b.decrypts(t, now))
}

// TestTemplatesOfTheFirstBuildsAreTakenOver: sealed under one key for all, they
// are sealed anew under a key each, and still belong to the record that names
// what they were.
func TestTemplatesOfTheFirstBuildsAreTakenOver(t *testing.T) {
	block, err := aes.NewCipher(make([]byte, 32))
	require.NoError(t, err)
	former, err := cipher.NewGCMWithRandomNonce(block)
	require.NoError(t, err)
	open := func(sealed, aad []byte) ([]byte, error) { return former.Open(nil, nil, sealed, aad) }
	b := box{t.TempDir()}
	require.NoError(t, os.MkdirAll(b.templates(), 0o700))
	require.NoError(t, os.MkdirAll(b.keys(), 0o700))
	records := map[attendance.TraineeID]attendance.Enrolment{}
	for _, id := range []attendance.TraineeID{"t1", "t2", "t3"} {
		aad := append(binary.BigEndian.AppendUint32([]byte("rollcall template 1\x00"), uint32(len(id))), string(id)+"m1"...)
		sealed := former.Seal(nil, nil, []byte("\x9a\x99\x19\x3f\xcd\xcc\x4c\x3f"), aad) // 0.6, 0.8
		hash := sha256.Sum256(append([]byte("salt"), sealed...))
		name := sha256.Sum256([]byte(id))
		require.NoError(t, os.WriteFile(filepath.Join(b.templates(), hex.EncodeToString(name[:])), sealed, 0o600))
		records[id] = attendance.Enrolment{Seq: 1, Model: "m1", Salt: base64.RawURLEncoding.EncodeToString([]byte("salt")), Hash: base64.RawURLEncoding.EncodeToString(hash[:])}
	}
	unrecorded := records["t3"]
	delete(records, "t3")
	assert.Zero(t, b.decrypts(t, records), "control: not before")

	g, _ := b.open(t)
	require.NoError(t, g.TakeUp(records))
	n, err := g.Reseal(open, records)
	require.NoError(t, err)
	assert.Equal(t, 2, n)
	n, err = g.Reseal(open, records)
	require.NoError(t, err)
	assert.Zero(t, n, "once")
	require.NoError(t, g.TakeUp(records))
	assert.Equal(t, 2, b.decrypts(t, records))
	got, err := g.Load("t1", records["t1"])
	require.NoError(t, err)
	assert.Equal(t, sample.Embedding, got.Embedding)
	_, err = g.Load("t3", unrecorded)
	assert.ErrorIs(t, err, vision.ErrNoTemplate)

	other := records["t1"]
	other.Hash = records["t2"].Hash
	_, err = g.Load("t1", other)
	assert.ErrorIs(t, err, vision.ErrNoTemplate, "another record than the one it was taken over for")
	before := b.with(t, b.keys())
	require.NoError(t, g.Erase("t1"))
	assert.Equal(t, 1, b.decrypts(t, records), "control: t2 is there")
	assert.Zero(t, before.with(t, b.keys()).decrypts(t, records), "erased like any other")
}

func TestNearestIsAnotherTrainees(t *testing.T) {
	g, _ := openGallery(t)
	_, found := g.Nearest("t1", sample, nil)
	assert.False(t, found, "nobody to compare with")
	records := enrolled(t, g, "t1", "t2", "t3") // at 0, 45 and 63 degrees
	own := vision.Template{Model: "m1", Embedding: vision.Embedding{1, 0.1}}
	nearest, found := g.Nearest("t1", own, records)
	require.True(t, found)
	assert.Equal(t, attendance.TraineeID("t2"), nearest.Trainee, "not the trainee's own")
	assert.InDelta(t, vision.Cosine(own.Embedding, vision.Embedding{1, 1}), nearest.Score, 1e-6)
	_, found = g.Nearest("t1", vision.Template{Model: "m2", Embedding: own.Embedding}, records)
	assert.False(t, found, "vectors of two embedders are never compared")
}

func TestWipe(t *testing.T) {
	template := vision.Template{Model: "m1", Embedding: vision.Embedding{0.6, 0.8}}
	template.Wipe()
	assert.Equal(t, vision.Embedding{0, 0}, template.Embedding)
}

// FuzzSealedTemplate: whatever stands in a template's file, nothing is opened
// but what was sealed for this record.
func FuzzSealedTemplate(f *testing.F) {
	dir := f.TempDir()
	require.NoError(f, os.MkdirAll(filepath.Join(dir, "keys"), 0o700))
	keys, err := device.OpenSubjectKeys(filepath.Join(dir, "keys"), filepath.Join(dir, "subjects"))
	require.NoError(f, err)
	g, err := vision.OpenGallery(filepath.Join(dir, "templates"), keys)
	require.NoError(f, err)
	p, err := g.Prepare("t1", sample)
	require.NoError(f, err)
	require.NoError(f, p.Commit())
	name := sha256.Sum256([]byte("t1"))
	path := filepath.Join(dir, "templates", hex.EncodeToString(name[:]))
	good, err := os.ReadFile(path)
	require.NoError(f, err)
	for _, seed := range [][]byte{good, good[:20], append([]byte("RCT\x03"), good[4:]...), nil, []byte("RCT\x02")} {
		f.Add(seed)
	}
	e := attendance.Enrolment{Seq: 1, Model: "m1", Salt: p.Salt, Hash: p.Hash}
	f.Fuzz(func(t *testing.T, file []byte) {
		require.NoError(t, os.WriteFile(path, file, 0o600))
		_, err := g.Load("t1", e)
		assert.Equal(t, bytes.Equal(file, good), err == nil, "%v", err)
	})
}
