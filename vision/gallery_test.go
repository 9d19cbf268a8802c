package vision_test

import (
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
	keys, err := device.CreateKeys(filepath.Join(t.TempDir(), "keys"))
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "gallery")
	g, err := vision.OpenGallery(dir, keys)
	require.NoError(t, err)
	return g, dir
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
