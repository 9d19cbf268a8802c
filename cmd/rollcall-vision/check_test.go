//go:build cgo && opencv

package main

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/simulator"
	"rollcall/vision"
)

const modelsDir = "../../build/models"

func check(t *testing.T, camera, models string) (string, error) {
	t.Helper()
	config := write(t, fmt.Sprintf("camera = %q\nmodels = %q\n", camera, models))
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), []string{"-check", "-config", config}, &stdout, &stderr)
	return stdout.String(), err
}

func TestCheckSaysWhatItSaw(t *testing.T) {
	camera := simulator.NewCamera()
	server := httptest.NewServer(camera)
	defer server.Close()
	defer server.CloseClientConnections()

	said, err := check(t, server.URL, modelsDir)
	require.NoError(t, err)
	assert.Equal(t, "models loaded, camera gives frames, 0 face(s) in view\n", said)

	camera.Refuse()
	_, err = check(t, server.URL, modelsDir)
	assert.ErrorContains(t, err, "correct the address's path")
	assert.Equal(t, 1, exitCode(err))
	server.Close()
	_, err = check(t, server.URL, modelsDir)
	assert.ErrorContains(t, err, "check that it has power")
}

func TestCheckRefusesAWrongModel(t *testing.T) {
	dir := t.TempDir()
	_, err := check(t, "/dev/null", dir)
	assert.ErrorIs(t, err, vision.ErrModel)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "fr_detect.onnx"), []byte("x"), 0o600))
	_, err = check(t, "/dev/null", dir)
	assert.ErrorIs(t, err, vision.ErrModel)
	assert.ErrorContains(t, err, "make models")
}
