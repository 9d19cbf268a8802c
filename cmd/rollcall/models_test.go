package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/vision"
)

// packageTar is the package of the default set as npm packs it, with a net that
// the set does not name; spoil changes the text of a file.
func packageTar(t *testing.T, spoil func(name string, text []byte) []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "package.tar")
	f, err := os.Create(path)
	require.NoError(t, err)
	w := tar.NewWriter(f)
	files := []string{"fr_pose.onnx"}
	for _, m := range vision.DefaultManifest().Models {
		files = append(files, m.File)
	}
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(modelsDir, name))
		require.NoError(t, err, "run make models")
		text = spoil(name, text)
		require.NoError(t, w.WriteHeader(&tar.Header{Name: "package/model/" + name, Mode: 0o644, Size: int64(len(text))}))
		_, err = w.Write(text)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())
	return path
}

func asIs(_ string, text []byte) []byte { return text }

func TestModelsImportListAndCheck(t *testing.T) {
	worker := workerArgs(t)[:2]
	models := t.TempDir()
	call := func(words ...string) (string, error) {
		var stdout bytes.Buffer
		name, args := words[:2], words[2:]
		flags := []string{"-models", models}
		if name[1] != "list" {
			flags = append(flags, worker...)
		}
		err := run(t.Context(), append(append(append([]string{}, name...), flags...), args...), &stdout)
		return stdout.String(), err
	}
	said, err := call("models", "import", packageTar(t, asIs))
	require.NoError(t, err)
	assert.Contains(t, said, filepath.Join(models, "default")+": checked and loaded")
	said, err = call("models", "check")
	require.NoError(t, err)
	assert.Contains(t, said, "set default in "+filepath.Join(models, "default")+": 5 files have their sums and load")

	said, err = call("models", "list", "-json")
	require.NoError(t, err)
	var all []listed
	require.NoError(t, json.Unmarshal([]byte(said), &all))
	states := map[string]string{}
	for _, l := range all {
		states[l.Name] = l.State
	}
	assert.Equal(t, map[string]string{"default": "ready", "default+pose": "absent", "opencv-zoo": "absent", "yunet+minifas": "absent"}, states)
	said, err = call("models", "list")
	require.NoError(t, err)
	assert.Contains(t, said, "fr_eye.onnx")

	_, err = call("models", "import", packageTar(t, func(name string, text []byte) []byte {
		if name == "fr_feature.onnx" {
			text[len(text)/2] ^= 1
		}
		return text
	}))
	assert.ErrorContains(t, err, "fr_feature.onnx")
	assert.ErrorContains(t, err, "has SHA-256")
	_, err = call("models", "check")
	assert.NoError(t, err, "the set of before stays")

	// Rotten on the disk: found by check, with the exit status of a finding.
	require.NoError(t, os.WriteFile(filepath.Join(models, "default", "fr_eye.onnx"), []byte("x"), 0o600))
	_, err = call("models", "check")
	assert.ErrorIs(t, err, errFound)
	_, err = call("models", "check", "none")
	assert.ErrorContains(t, err, "rollcall models list")
}

// TestModelsImportTriesTheSetInItsOwnProcess imports a net of another kind
// under the right sum: only loading finds it out.
func TestModelsImportTriesTheSetInItsOwnProcess(t *testing.T) {
	models := t.TempDir()
	m := vision.DefaultManifest()
	wrong := m.Model(vision.RolePoints)
	bundle := filepath.Join(t.TempDir(), "bundle.tar")
	f, err := os.Create(bundle)
	require.NoError(t, err)
	w := tar.NewWriter(f)
	add := func(name string, text []byte) {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
		_, err := w.Write(text)
		require.NoError(t, err)
	}
	text, err := os.ReadFile("../../vision/manifests/default.json")
	require.NoError(t, err)
	text = bytes.Replace(text, []byte(`"default"`), []byte(`"own"`), 1)
	text = bytes.ReplaceAll(text, []byte("fr_feature.onnx"), []byte(wrong.File))
	text = bytes.ReplaceAll(text, []byte(m.Model(vision.RoleEmbed).SHA256), []byte(wrong.SHA256))
	add("manifest.json", text)
	for _, model := range m.Models {
		if model.Role != vision.RoleEmbed {
			net, err := os.ReadFile(filepath.Join(modelsDir, model.File))
			require.NoError(t, err)
			add(model.File, net)
		}
	}
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())

	var stdout bytes.Buffer
	err = run(t.Context(), append([]string{"models", "import", "-models", models}, append(workerArgs(t)[:2], bundle)...), &stdout)
	assert.ErrorContains(t, err, "trying the set")
	assert.ErrorContains(t, err, wrong.File)
	left, err := os.ReadDir(models)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestModelsRefuse(t *testing.T) {
	var stdout bytes.Buffer
	for says, args := range map[string][]string{
		"1 needed":           {"models", "import"},
		"one at most":        {"models", "check", "a", "b"},
		"no such file":       {"models", "import", "-models", t.TempDir(), "-worker", "/bin/true", "/nowhere.tgz"},
		"needs the right to": {"models", "import", "-models", "/nowhere", "-worker", "/bin/true", "/dev/null"},
	} {
		assert.ErrorContains(t, run(t.Context(), args, &stdout), says)
	}
	t.Setenv("PATH", t.TempDir())
	assert.ErrorContains(t, run(t.Context(), []string{"models", "fetch"}, &stdout), "npm is missing: apt-get install npm")
}
