package device

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// box is a key directory and a list of subject keys outside it.
type box struct{ keys, list string }

func newBox(t *testing.T) (box, *SubjectKeys) {
	t.Helper()
	dir := t.TempDir()
	b := box{filepath.Join(dir, "keys"), filepath.Join(dir, "subjects")}
	require.NoError(t, os.Mkdir(b.keys, 0o700))
	return b, b.open(t)
}

func (b box) open(t *testing.T) *SubjectKeys {
	t.Helper()
	s, err := OpenSubjectKeys(b.keys, b.list)
	require.NoError(t, err)
	return s
}

// copyOf copies a file or the files of a directory, as a thief would.
func copyOf(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), filepath.Base(path))
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		require.NoError(t, os.CopyFS(to, os.DirFS(path)))
		require.NoError(t, os.Chmod(to, 0o700))
		entries, err := os.ReadDir(to)
		require.NoError(t, err)
		for _, e := range entries {
			require.NoError(t, os.Chmod(filepath.Join(to, e.Name()), 0o600))
		}
		return to
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, text, 0o600))
	return to
}

var use = []byte("use")

func seal(t *testing.T, s *SubjectKeys, id SubjectKeyID) []byte {
	t.Helper()
	sealed, err := s.Seal(id, []byte("template"), use)
	require.NoError(t, err)
	return sealed
}

func newKey(t *testing.T, s *SubjectKeys) SubjectKeyID {
	t.Helper()
	ids, err := s.New(1)
	require.NoError(t, err)
	return ids[0]
}

// opens reports whether a box opens what was sealed under a key.
func (b box) opens(t *testing.T, id SubjectKeyID, sealed []byte) bool {
	t.Helper()
	plain, err := b.open(t).Open(id, sealed, use)
	if err != nil {
		assert.ErrorIs(t, err, ErrSeal)
		return false
	}
	return assert.Equal(t, "template", string(plain))
}

func TestSubjectKeysSurviveAReopen(t *testing.T) {
	b, s := newBox(t)
	first, second := newKey(t, s), newKey(t, s)
	sealed := seal(t, s, first)
	assert.NotEqual(t, sealed, seal(t, s, first), "each seal has its own nonce")
	assert.True(t, b.opens(t, first, sealed))
	assert.False(t, b.opens(t, second, sealed), "another subject's key")
	_, err := s.Open(first, sealed, []byte("other use"))
	assert.ErrorIs(t, err, ErrSeal)
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		_, err := s.Open(first, bad, use)
		assert.ErrorIs(t, err, ErrSeal)
		_, err = s.Open(first, sealed[:i], use)
		assert.ErrorIs(t, err, ErrSeal)
	}
	_, err = s.Seal(SubjectKeyID{}, nil, use)
	assert.ErrorIs(t, err, ErrSeal, "no key of that id")
	for _, path := range []string{b.list, filepath.Join(b.keys, wrappingFile)} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	}
}

// TestT31ADestroyedKeyIsInNoCopyOfTheList: a copy of the list made before, and
// the keys of after it, open nothing; the same copy with the keys of before is
// the control, and a key that was not destroyed opens still.
func TestT31ADestroyedKeyIsInNoCopyOfTheList(t *testing.T) {
	b, s := newBox(t)
	erased, kept := newKey(t, s), newKey(t, s)
	sealedErased, sealedKept := seal(t, s, erased), seal(t, s, kept)
	listBefore, keysBefore := copyOf(t, b.list), copyOf(t, b.keys)

	require.NoError(t, s.Destroy(erased))
	_, err := s.Open(erased, sealedErased, use)
	assert.ErrorIs(t, err, ErrSeal)
	assert.False(t, b.opens(t, erased, sealedErased))
	assert.True(t, b.opens(t, kept, sealedKept), "control: the other's key works on")

	thief := box{copyOf(t, b.keys), copyOf(t, listBefore)}
	assert.False(t, thief.opens(t, erased, sealedErased), "the list of before, the keys of after")
	thief = box{filepath.Join(t.TempDir(), "none"), copyOf(t, listBefore)}
	require.NoError(t, os.Mkdir(thief.keys, 0o700))
	assert.False(t, thief.opens(t, kept, sealedKept), "the list without any key")
	thief = box{keysBefore, listBefore}
	assert.True(t, thief.opens(t, erased, sealedErased), "control: list and keys of before open it")

	require.NoError(t, s.Destroy(erased), "twice does no harm")
	require.NoError(t, s.DestroyBut(kept))
	assert.True(t, b.opens(t, kept, sealedKept))
	require.NoError(t, s.DestroyBut())
	assert.False(t, b.opens(t, kept, sealedKept))
}

// TestACrashWhileAKeyIsDestroyed stops after each step and opens anew.
func TestACrashWhileAKeyIsDestroyed(t *testing.T) {
	for _, tc := range []struct {
		name  string
		after func(t *testing.T, s *SubjectKeys, left map[SubjectKeyID]subjectKey, next []byte)
		gone  bool
	}{
		{"before the new wrapping key", func(*testing.T, *SubjectKeys, map[SubjectKeyID]subjectKey, []byte) {}, false},
		{"half a new wrapping key", func(t *testing.T, s *SubjectKeys, _ map[SubjectKeyID]subjectKey, _ []byte) {
			require.NoError(t, os.WriteFile(s.path(nextFile)+".new", []byte("-----BEG"), 0o600))
		}, false},
		{"new wrapping key", func(t *testing.T, s *SubjectKeys, _ map[SubjectKeyID]subjectKey, next []byte) {
			require.NoError(t, s.writeWrapping(nextFile, next))
		}, false},
		{"half a new list", func(t *testing.T, s *SubjectKeys, _ map[SubjectKeyID]subjectKey, next []byte) {
			require.NoError(t, s.writeWrapping(nextFile, next))
			require.NoError(t, os.WriteFile(s.list+".new", []byte("half"), 0o600))
		}, false},
		{"new list", func(t *testing.T, s *SubjectKeys, left map[SubjectKeyID]subjectKey, next []byte) {
			require.NoError(t, s.writeWrapping(nextFile, next))
			require.NoError(t, s.write(left, next))
		}, true},
		{"former wrapping key overwritten", func(t *testing.T, s *SubjectKeys, left map[SubjectKeyID]subjectKey, next []byte) {
			require.NoError(t, s.writeWrapping(nextFile, next))
			require.NoError(t, s.write(left, next))
			require.NoError(t, overwrite(s.path(wrappingFile)))
		}, true},
		{"former wrapping key removed", func(t *testing.T, s *SubjectKeys, left map[SubjectKeyID]subjectKey, next []byte) {
			require.NoError(t, s.writeWrapping(nextFile, next))
			require.NoError(t, s.write(left, next))
			require.NoError(t, os.Remove(s.path(wrappingFile)))
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, s := newBox(t)
			erased, kept := newKey(t, s), newKey(t, s)
			sealedErased, sealedKept := seal(t, s, erased), seal(t, s, kept)
			before := copyOf(t, b.list)
			tc.after(t, s, map[SubjectKeyID]subjectKey{kept: s.keys[kept]}, random(keySize))

			again := b.open(t)
			assert.False(t, again.SetAside())
			_, err := again.Open(erased, sealedErased, use)
			assert.Equal(t, tc.gone, err != nil, "%v", err)
			require.NoError(t, again.Destroy(erased), "what was interrupted is asked for again")
			assert.False(t, b.opens(t, erased, sealedErased))
			assert.True(t, b.opens(t, kept, sealedKept))
			assert.False(t, box{copyOf(t, b.keys), before}.opens(t, erased, sealedErased))
			assert.NoFileExists(t, filepath.Join(b.keys, nextFile))
			id := newKey(t, b.open(t))
			assert.True(t, b.opens(t, kept, sealedKept), "and more can be made")
			assert.NotEqual(t, kept, id)
		})
	}
}

// TestADiskThatRefusesDuringADestruction: what failed is said, and done by the
// next try, without a restart as well as after one.
func TestADiskThatRefusesDuringADestruction(t *testing.T) {
	for _, name := range []string{"list", "wrapping key"} {
		t.Run(name, func(t *testing.T) {
			b, s := newBox(t)
			erased, kept := newKey(t, s), newKey(t, s)
			sealedErased, sealedKept := seal(t, s, erased), seal(t, s, kept)
			block := b.list + ".new"
			if name == "wrapping key" {
				block = filepath.Join(b.keys, nextFile+".new")
			}
			require.NoError(t, os.MkdirAll(filepath.Join(block, "in the way"), 0o700))
			require.Error(t, s.Destroy(erased))
			_, err := s.Open(kept, sealedKept, use)
			require.NoError(t, err)
			require.NoError(t, os.RemoveAll(block))
			require.NoError(t, s.Destroy(erased))
			assert.False(t, b.opens(t, erased, sealedErased))
			assert.True(t, b.opens(t, kept, sealedKept))
		})
	}
}

func TestAListThatDoesNotOpenIsSetAside(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, b box){
		"damaged list":         func(t *testing.T, b box) { require.NoError(t, overwrite(b.list)) },
		"damaged wrapping key": func(t *testing.T, b box) { require.NoError(t, overwrite(filepath.Join(b.keys, wrappingFile))) },
		"no wrapping key":      func(t *testing.T, b box) { require.NoError(t, os.Remove(filepath.Join(b.keys, wrappingFile))) },
	} {
		t.Run(name, func(t *testing.T) {
			b, s := newBox(t)
			id := newKey(t, s)
			sealed := seal(t, s, id)
			spoil(t, b)
			again := b.open(t)
			assert.True(t, again.SetAside())
			assert.FileExists(t, b.list+".bad")
			_, err := again.Open(id, sealed, use)
			assert.ErrorIs(t, err, ErrSeal)
			id = newKey(t, again)
			assert.True(t, b.opens(t, id, seal(t, again, id)), "the terminal works on")
			assert.False(t, b.open(t).SetAside(), "said once")
		})
	}
	b, _ := newBox(t)
	require.NoError(t, os.Chmod(filepath.Join(b.keys, wrappingFile), 0o640))
	_, err := OpenSubjectKeys(b.keys, b.list)
	assert.ErrorContains(t, err, "chmod 600")
}

func TestSubjectKeysNeverPrint(t *testing.T) {
	_, s := newBox(t)
	newKey(t, s)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		assert.Equal(t, redacted, fmt.Sprintf(verb, s), verb)
	}
	text, err := json.Marshal(map[string]any{"keys": s})
	require.NoError(t, err)
	assert.Equal(t, `{"keys":"***"}`, string(text))
	assert.Equal(t, redacted, s.LogValue().String())
}
