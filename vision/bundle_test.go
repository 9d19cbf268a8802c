package vision

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// entry is a file of a test's archive.
type entry struct {
	name, text string
	kind       byte // 0 is an ordinary file
}

func archive(t testing.TB, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o777, Typeflag: tar.TypeReg, Size: int64(len(e.text))}
		if e.kind != 0 {
			h.Typeflag, h.Linkname, h.Size = e.kind, "/etc/passwd", 0
		}
		require.NoError(t, w.WriteHeader(h))
		if e.kind == 0 {
			_, err := io.WriteString(w, e.text)
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return &b
}

// ownSet is a manifest of two files of these texts, for which no net need load.
func ownSet(t testing.TB, name, detect, embed string) entry {
	t.Helper()
	text := strings.Replace(manifestText(t, "opencv-zoo"), `"opencv-zoo"`, `"`+name+`"`, 1)
	for i, m := range mustParse(t, text).Models {
		sum := sha256.Sum256([]byte([]string{detect, embed}[i]))
		text = strings.Replace(text, m.SHA256, hex.EncodeToString(sum[:]), 1)
		text = strings.Replace(text, `"file": "`+m.File, `"file": "`+[]string{"d.onnx", "e.onnx"}[i], 1)
	}
	return entry{name: "set/manifest.json", text: text}
}

func mustParse(t testing.TB, text string) Manifest {
	t.Helper()
	m, err := ParseManifest([]byte(text))
	require.NoError(t, err)
	return m
}

func loads(string) error { return nil }

// whatIsIn lists a directory, hidden entries too.
func whatIsIn(t testing.TB, dir string) (found []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		found = append(found, e.Name())
	}
	return found
}

func TestImportABundle(t *testing.T) {
	models := t.TempDir()
	tried := ""
	set, err := ImportSet(archive(t, ownSet(t, "own", "D1", "E1"),
		entry{"set/d.onnx", "D1", 0}, entry{"set/e.onnx", "E1", 0}, entry{"set/README", "x", 0}, entry{"set/other.onnx", "x", 0}),
		models, func(dir string) error {
			tried = dir
			assert.Equal(t, []string{"d.onnx", "e.onnx", "manifest.json"}, whatIsIn(t, dir))
			return nil
		})
	require.NoError(t, err)
	assert.NotEmpty(t, tried)
	assert.Equal(t, filepath.Join(models, "own"), set.Dir)
	assert.NoError(t, set.Verify(set.Dir))
	found, err := FindSet(models, "own")
	require.NoError(t, err)
	assert.Equal(t, set, found)

	// The next of that name takes its place, gzipped this time.
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err = archive(t, ownSet(t, "own", "D2", "E2"), entry{"d.onnx", "D2", 0}, entry{"e.onnx", "E2", 0}).WriteTo(z)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	set, err = ImportSet(&zipped, models, loads)
	require.NoError(t, err)
	assert.NoError(t, set.Verify(set.Dir))
	assert.Equal(t, []string{"own"}, whatIsIn(t, models), "nothing is left of the former")

	// One that does not load leaves it as it was.
	_, err = ImportSet(archive(t, ownSet(t, "own", "D3", "E3"), entry{"d.onnx", "D3", 0}, entry{"e.onnx", "E3", 0}),
		models, func(string) error { return errors.New("no net") })
	require.ErrorIs(t, err, ErrBundle)
	assert.ErrorContains(t, err, "no net")
	assert.NoError(t, set.Verify(set.Dir))
	assert.Equal(t, []string{"own"}, whatIsIn(t, models))
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	manifest := ownSet(t, "own", "D", "E")
	d, e := entry{"d.onnx", "D", 0}, entry{"e.onnx", "E", 0}
	zoo := entry{"manifest.json", strings.Replace(manifestText(t, "opencv-zoo"), "0ba9fbfa", "0ba9fbfb", 1), 0}
	var package0 []entry
	for _, m := range DefaultManifest().Models {
		package0 = append(package0, entry{"package/model/" + m.File, "not the net", 0})
	}
	whole := archive(t, manifest, d, e).Bytes()
	for name, c := range map[string]struct {
		archive io.Reader
		says    string
	}{
		"a wrong sum":                   {archive(t, manifest, d, entry{"e.onnx", "F", 0}), "has SHA-256"},
		"the package with wrong sums":   {archive(t, package0...), "fr_detect.onnx in"},
		"a file missing":                {archive(t, manifest, d), "e.onnx is missing"},
		"no manifest":                   {archive(t, d, e), "neither a manifest.json"},
		"a manifest that is none":       {archive(t, entry{"manifest.json", "{}", 0}, d, e), "reading model manifest"},
		"another's name":                {archive(t, zoo), "shipped set and other files"},
		"a path out of it":              {archive(t, entry{"../../d.onnx", "D", 0}), "leads out of it"},
		"an absolute path":              {archive(t, entry{"/tmp/d.onnx", "D", 0}), "leads out of it"},
		"a symbolic link":               {archive(t, entry{"d.onnx", "", tar.TypeSymlink}), "no ordinary file"},
		"a hard link":                   {archive(t, entry{"d.onnx", "", tar.TypeLink}), "no ordinary file"},
		"a device":                      {archive(t, entry{"d.onnx", "", tar.TypeChar}), "no ordinary file"},
		"a file twice":                  {archive(t, manifest, d, entry{"x/d.onnx", "D", 0}), "two entries are called d.onnx"},
		"a hidden file":                 {archive(t, entry{".onnx", "D", 0}), "its name must be"},
		"no archive":                    {strings.NewReader(strings.Repeat("no archive", 100)), "no tar archive"},
		"nothing":                       {strings.NewReader(""), "neither"},
		"half an archive":               {bytes.NewReader(whole[:len(whole)-1024-512-300]), "damaged"},
		"half a gzip":                   {strings.NewReader("\x1f\x8b\x08"), "damaged"},
		"a claim of more than is right": {huge(t), "more than"},
		"a bomb of zeroes":              {zeroes(t), "more than"},
		"entries without end":           {many(t), "more than 1000 entries"},
	} {
		t.Run(name, func(t *testing.T) {
			models := t.TempDir()
			_, err := ImportSet(c.archive, models, func(string) error {
				assert.Fail(t, "the set was loaded")
				return nil
			})
			assert.ErrorIs(t, err, ErrBundle)
			assert.ErrorContains(t, err, c.says)
			assert.Empty(t, whatIsIn(t, models), "nothing stays")
		})
	}
	_, err := ImportSet(bytes.NewReader(whole), filepath.Join(t.TempDir(), "none"), loads)
	assert.ErrorContains(t, err, "right to write")
}

// huge claims a file that is larger than any net.
func huge(t testing.TB) io.Reader {
	var b bytes.Buffer
	require.NoError(t, tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "d.onnx", Typeflag: tar.TypeReg, Size: 1 << 40}))
	return &b
}

// zeroes is a third of a gigabyte in a few hundred kilobytes: an entry of 64
// MiB, packed once (RFC 1952 2.2: members follow one another), again and again.
func zeroes(t testing.TB) io.Reader {
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	require.NoError(t, err)
	w := tar.NewWriter(z)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "readme", Typeflag: tar.TypeReg, Size: 64 << 20}))
	block := make([]byte, 1<<20)
	for range 64 {
		_, err := w.Write(block)
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return bytes.NewReader(bytes.Repeat(packed.Bytes(), 5))
}

func many(t testing.TB) io.Reader {
	entries := make([]entry, mostEntries+1)
	for i := range entries {
		entries[i] = entry{"readme", "x", 0}
	}
	return archive(t, entries...)
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, ownSet(f, "own", "D", "E"), entry{"d.onnx", "D", 0}, entry{"e.onnx", "E", 0}).Bytes())
	f.Add(archive(f, entry{"../d.onnx", "D", 0}).Bytes())
	f.Add([]byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := filepath.Join(t.TempDir(), "stage")
		require.NoError(t, os.Mkdir(dir, 0o700))
		_ = unpack(bytes.NewReader(b), dir)
		assert.Equal(t, []string{"stage"}, whatIsIn(t, filepath.Dir(dir)), "nothing is written elsewhere")
		for _, name := range whatIsIn(t, dir) {
			assert.Regexp(t, names, name)
		}
	})
}
