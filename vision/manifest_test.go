package vision

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDefaultManifestHasEveryRole(t *testing.T) {
	m := DefaultManifest()
	assert.Len(t, m.Sums(), len(roles))
	for role := range roles {
		assert.Equal(t, role, m.Model(role).Role)
	}
}

func TestParseManifestRefuses(t *testing.T) {
	for name, c := range map[string]struct{ old, new, says string }{
		"unknown field":   {`"licence"`, `"license"`, "unknown field"},
		"unknown role":    {`"role": "points"`, `"role": "pose"`, "unknown role"},
		"unknown kind":    {`"ultraface"`, `"yunet"`, `only "ultraface" is known`},
		"a role twice":    {`"role": "points", "kind": "points68"`, `"role": "embed", "kind": "cosine"`, "stands twice"},
		"a path":          {`"fr_detect.onnx",`, `"../fr_detect.onnx",`, "without a folder"},
		"short sum":       {"6c0256cc", "6c0256", "64 lower-case"},
		"upper-case sum":  {"6c0256cc", "6C0256CC", "64 lower-case"},
		"no input":        {`"width": 320`, `"width": 0`, "sides must be"},
		"unknown colour":  {`"grey"`, `"yuv"`, "must be rgb"},
		"scale of zero":   {`"scale": 1,`, `"scale": 0,`, "above 0"},
		"text after it":   {"  ]\n}\n", "  ]\n}\n{}", "after its end"},
		"not JSON":        {"{\n", "[", "reading model manifest"},
		"one role absent": {`"models": [`, `"models": [], "x": [`, "unknown field"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(string(defaultManifest), c.old, c.new, 1)
			require.NotEqual(t, string(defaultManifest), text)
			_, err := ParseManifest([]byte(text))
			assert.ErrorContains(t, err, c.says)
		})
	}
	_, err := ParseManifest([]byte(`{"name": "x", "models": []}`))
	assert.ErrorContains(t, err, "no model for role")
}

func TestVerifySaysWhichFileAndWhatToDo(t *testing.T) {
	m := DefaultManifest()
	dir := t.TempDir()
	err := m.Verify(dir)
	require.ErrorIs(t, err, ErrModel)
	assert.ErrorContains(t, err, "fr_detect.onnx is missing in "+dir+": run make models")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "fr_detect.onnx"), []byte("not the net"), 0o600))
	err = m.Verify(dir)
	require.ErrorIs(t, err, ErrModel)
	assert.ErrorContains(t, err, "has SHA-256")
	assert.ErrorContains(t, err, "delete it and run make models")
}

func FuzzParseManifest(f *testing.F) {
	f.Add(defaultManifest)
	f.Add([]byte(`{"models":[{"role":"detect"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseManifest(b); err == nil {
			for role := range roles {
				_ = m.Model(role)
			}
		}
	})
}
