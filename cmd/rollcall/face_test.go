package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/cmd/internal/probe"
	"rollcall/vision"
)

// These tests run the real worker on the pictures that make models fetches.

const (
	modelsDir  = "../../build/models"
	peopleDir  = "../../build/people"
	sharedDir  = "../../../shared/faces"
	workerTags = "opencv gocv_specific_modules gocv_calib3d gocv_videoio"
)

var workerDir string

func TestMain(m *testing.M) {
	probe.Main()
	dir, err := os.MkdirTemp("", "rollcall-face-test")
	if err != nil {
		panic(err)
	}
	workerDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

var buildWorker = sync.OnceValues(func() (string, error) {
	path := filepath.Join(workerDir, "rollcall-vision")
	build := exec.Command("go", "build", "-tags", workerTags, "-o", path, "rollcall/cmd/rollcall-vision")
	build.Stderr = os.Stderr
	return path, build.Run()
})

func workerArgs(t *testing.T) []string {
	t.Helper()
	require.NoError(t, vision.DefaultManifest().Verify(modelsDir), "run make models")
	path, err := buildWorker()
	require.NoError(t, err)
	return []string{"-worker", path, "-models", modelsDir}
}

// album is a folder with a folder per person: one man twice and six groups.
func album(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{
		"gocv-face.jpg": "man/1.jpg", "gocv-face-detect.jpg": "man/2.jpg",
		"sample1.jpg": "a/1.jpg", "sample2.jpg": "b/1.jpg", "sample3.jpg": "c/1.jpg",
	} {
		put(t, dir, to, picture(t, from))
	}
	return dir
}

func picture(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(peopleDir, name))
	require.NoError(t, err, "run make models")
	return string(text)
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// TestFaceEvalGoesOn: a pairs file with a missing and a broken picture. What is
// wrong is said and counted, and one object is on standard output.
func TestFaceEvalGoesOn(t *testing.T) {
	dir := album(t)
	put(t, dir, "b/broken.jpg", "no picture")
	put(t, dir, "b/empty.jpg", "")
	put(t, dir, "pairs.csv", "fold,same,a,b\n"+
		"1,1,man/1.jpg,man/2.jpg\n1,0,man/1.jpg,a/1.jpg\n1,1,man/1.jpg,man/none.jpg\n"+
		"2,1,man/2.jpg,man/1.jpg\n2,0,man/2.jpg,b/1.jpg\n2,0,b/broken.jpg,b/empty.jpg\n")
	var stdout, stderr bytes.Buffer
	out := filepath.Join(t.TempDir(), "charts")
	args := append([]string{dir, "--all", "--json", "--out", out, "--rank", "2,50"}, workerArgs(t)...)
	require.NoError(t, evalFaces(t.Context(), args, &stdout, &stderr))

	d := json.NewDecoder(&stdout)
	var r map[string]any
	require.NoError(t, d.Decode(&r))
	_, err := d.Token()
	assert.ErrorIs(t, err, io.EOF, "exactly one object")

	for key, want := range map[string]any{
		"images": 4.0, "people": 3.0, "missing": 1.0, "broken": 2.0, "missed": 0.0,
		"pairs": 4.0, "pairs_left_out": 2.0, "accuracy": 1.0, "accuracy_std": 0.0, "all": true, "manifest": "default",
		"model": vision.DefaultManifest().Sums()[vision.RoleEmbed],
		"eer":   1.0, // two mated pairs show nothing
	} {
		assert.Equal(t, want, r[key], key)
	}
	assert.Equal(t, []any{"eer"}, r["bounds"])
	assert.Equal(t, map[string]any{"1e-2": nil, "1e-3": nil, "1e-4": nil, "1e-5": nil}, r["tar"])
	assert.Equal(t, map[string]any{"2": 1.0, "50": nil}, r["rank1"])
	for _, stage := range []string{"detect", "points", "embed", "liveness", "total", "mirror"} {
		assert.Positive(t, r["ms"].(map[string]any)[stage], stage)
	}
	for _, name := range []string{"man/none.jpg", "b/broken.jpg", "b/empty.jpg"} {
		assert.Contains(t, stderr.String(), name+": left out: ")
	}
	for _, name := range []string{"det.svg", "histogram.svg"} {
		assert.FileExists(t, filepath.Join(out, name))
	}
}

func TestFaceEvalOfFolders(t *testing.T) {
	var stdout, stderr bytes.Buffer
	dir := album(t)
	put(t, dir, "groups.csv", "prefix,group\nman/,men\n")
	args := append(workerArgs(t), "-groups", filepath.Join(dir, "groups.csv"), "-rank", "4", dir)
	require.NoError(t, evalFaces(t.Context(), args, &stdout, &stderr))
	for _, line := range []string{
		"pictures   5 of 4 people; left out: 0 missing, 0 broken",
		"one side enrolled with its mirror image",
		"no face    below 60 % (0 of 5) of the pictures",
		"a terminal would have asked for another picture: one_person 3",
		"all against all: 1 mated, 9 non-mated comparisons",
		"FAR 1e-2  not measured: too few comparisons",
		"rank 1     N=4: 100.00 % (0.00–100.00 %), 1 people in 10 searches",
	} {
		assert.Contains(t, stdout.String(), line)
	}
	assert.Empty(t, stderr.String())
}

func TestFaceEvalRefuses(t *testing.T) {
	empty, folder := t.TempDir(), t.TempDir()
	put(t, folder, "pairs.csv", "a,b\n")
	put(t, folder, "groups.csv", "a,b\n")
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no folder":      {nil, "folder of the pictures is missing"},
		"two folders":    {[]string{empty, folder}, "1 arguments given, 0 needed"},
		"not there":      {[]string{filepath.Join(empty, "x")}, "is not a folder"},
		"nothing in it":  {[]string{empty}, "one folder per person"},
		"no pairs file":  {[]string{folder}, "fold,same,a,b"},
		"no groups file": {[]string{folder, "-groups", filepath.Join(folder, "groups.csv")}, "prefix,group"},
		"rank":           {[]string{folder, "-rank", "1"}, "-rank \"1\""},
		"flag":           {[]string{folder, "-fast"}, "-fast"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			err := evalFaces(t.Context(), c.args, &stdout, &stderr)
			assert.ErrorContains(t, err, c.says)
			assert.Equal(t, 2, exitStatus(err))
			assert.Empty(t, stdout.String())
		})
	}
	dir := album(t)
	args := append(workerArgs(t), "-models", empty, dir)
	assert.ErrorContains(t, evalFaces(t.Context(), args, io.Discard, io.Discard), "fr_detect.onnx is missing")
	for _, name := range []string{"man/1.jpg", "man/2.jpg", "a/1.jpg", "b/1.jpg", "c/1.jpg"} {
		put(t, dir, name, "spoilt")
	}
	assert.ErrorIs(t, evalFaces(t.Context(), append(workerArgs(t), dir), io.Discard, io.Discard), errPictures)
}

func TestSubject(t *testing.T) {
	face := func(x, y, w float64) vision.Face { return vision.Face{Box: vision.Box{X: x, Y: y, W: w, H: w}} }
	for name, c := range map[string]struct {
		faces []vision.Face
		want  int
	}{
		"none":                      {nil, -1},
		"one at the edge":           {[]vision.Face{face(0, 0, 40)}, 0},
		"the middle one":            {[]vision.Face{face(0, 80, 80), face(85, 85, 70)}, 1},
		"no speck in the middle":    {[]vision.Face{face(70, 60, 100), face(120, 120, 10)}, 0},
		"a passer-by in the corner": {[]vision.Face{face(75, 75, 100), face(200, 0, 50)}, 0},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, subject(c.faces, 250, 250)) })
	}
}

func TestProgressIsRareAndEnds(t *testing.T) {
	var out strings.Builder
	p := newProgress(&out, "pictures", 1000)
	for i := range 1000 {
		p.at(i + 1)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	assert.Len(t, lines, 20)
	assert.Equal(t, "pictures: 1000 of 1000, 100 %", lines[19])
	out.Reset()
	short := newProgress(&out, "pictures", 100)
	short.at(100)
	assert.Empty(t, out.String())
}

// TestOnTheSharedFaces measures where those pictures are: they may not be
// published, so nobody else needs them. docs/faces.md has the figures of all.
func TestOnTheSharedFaces(t *testing.T) {
	if _, err := os.Stat(sharedDir); err != nil {
		t.Skip("no ../shared/faces")
	}
	dir := t.TempDir()
	for _, name := range []string{"Freddy_Garcia", "Maria_Soledad_Alvear_Valenzuela", "Lesley_McCulloch", "Anna_Faris"} {
		from, err := filepath.Abs(filepath.Join(sharedDir, "lfwa", name))
		require.NoError(t, err)
		require.NoError(t, os.CopyFS(filepath.Join(dir, name), os.DirFS(from)))
	}
	var stdout bytes.Buffer
	require.NoError(t, evalFaces(t.Context(), append(workerArgs(t), "-json", "-rank", "4", dir), &stdout, io.Discard))
	var r faceReport
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r))
	assert.Greater(t, r.Images, 8)
	assert.Zero(t, r.Missed, "grey pictures of 250x250")
	assert.InDelta(t, 1, *r.Rank1["4"], 0.1)
}
