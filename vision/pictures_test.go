package vision_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/vision"
)

// TestAnalyse: pictures that are none are refused in words, and the rest goes on.
func TestAnalyse(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.jpg")
	require.NoError(t, os.WriteFile(broken, []byte("no picture"), 0o600))
	paths := []string{
		filepath.Join(peopleDir, "gocv-face.jpg"), broken, filepath.Join(peopleDir, "none.jpg"),
		filepath.Join(peopleDir, "gocv-face-detect.jpg"),
	}
	for i := range paths {
		path, err := filepath.Abs(paths[i])
		require.NoError(t, err)
		paths[i] = path
	}
	var got []vision.Answer
	models, err := vision.Analyse(t.Context(), workerPath, workerConfig(t, "/dev/null"), paths, vision.Work{}, func(i int, a vision.Answer) {
		require.Equal(t, len(got), i)
		got = append(got, a)
	})
	require.NoError(t, err)
	assert.Equal(t, vision.DefaultManifest().Sums(), models)
	require.Len(t, got, 4)
	for _, i := range []int{0, 3} {
		require.Equal(t, vision.KindPicture, got[i].Kind)
		require.Len(t, got[i].Faces, 1)
		assert.Positive(t, got[i].Took.Detect)
	}
	assert.Greater(t, vision.Cosine(got[0].Faces[0].Embedding, got[3].Faces[0].Embedding), 0.75)
	assert.Equal(t, vision.CodeNoPicture, got[1].Code)
	assert.Equal(t, vision.CodeNoFile, got[2].Code)
	for _, i := range []int{1, 2} {
		assert.Equal(t, vision.KindRefused, got[i].Kind)
		assert.NotEmpty(t, got[i].Text)
		assert.NotContains(t, got[i].Text, paths[i], "a path may name a person")
	}
}

// deadlyWorker stands in for a worker that does not survive some pictures: those
// named deadly.
const deadlyWorker = `#!/usr/bin/env python3
import os, struct, sys
def send(text):
    os.write(4, struct.pack(">I", len(text)) + text.encode())
send('{"kind":"hello","id":0,"version":%d,"models":{"embed":"x"}}' % VERSION)
while True:
    head = os.read(3, 4)
    if not head: sys.exit(0)
    body = os.read(3, struct.unpack(">I", head)[0]).decode()
    if "deadly" in body: print("out of memory", file=sys.stderr); os._exit(9)
    send('{"kind":"picture","id":%s}' % body.split('"id":')[1].split(",")[0])
`

func writeWorker(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "worker")
	text := strings.Replace(deadlyWorker, "VERSION", strconv.Itoa(vision.ProtocolVersion), 1)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o700))
	return path
}

func TestAnalyseGoesOnAfterADeadlyPicture(t *testing.T) {
	worker := writeWorker(t)
	paths := []string{"a", "deadly", "b", "deadly", "deadly", "c"}
	var kinds []vision.Kind
	_, err := vision.Analyse(t.Context(), worker, "x", paths, vision.Work{}, func(_ int, a vision.Answer) {
		kinds = append(kinds, a.Kind)
		if a.Kind == vision.KindRefused {
			assert.Equal(t, vision.CodeLost, a.Code)
			assert.Contains(t, a.Text, "out of memory")
		}
	})
	require.NoError(t, err)
	p, r := vision.KindPicture, vision.KindRefused
	assert.Equal(t, []vision.Kind{p, r, p, r, r, p}, kinds)

	// A worker that dies over everything is broken itself.
	_, err = vision.Analyse(t.Context(), worker, "x", []string{"deadly", "deadly", "deadly", "deadly", "deadly", "a"}, vision.Work{}, func(int, vision.Answer) {})
	assert.ErrorContains(t, err, "out of memory")
}

func TestAnalyseEnds(t *testing.T) {
	worker := writeWorker(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := vision.Analyse(ctx, worker, "x", []string{"a", "b", "c"}, vision.Work{}, func(i int, _ vision.Answer) {
		require.Less(t, i, 2)
		if i == 1 {
			cancel()
		}
	})
	assert.ErrorIs(t, err, context.Canceled)

	_, err = vision.Analyse(t.Context(), filepath.Join(t.TempDir(), "none"), "x", []string{"a"}, vision.Work{}, nil)
	assert.ErrorContains(t, err, "starting vision worker")
	_, err = vision.Analyse(t.Context(), workerPath, filepath.Join(t.TempDir(), "none.toml"), []string{"a"}, vision.Work{}, nil)
	assert.ErrorContains(t, err, "none.toml", "the worker's last words")
}
