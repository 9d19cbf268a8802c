package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The race detector's own memory is beyond any limit that the worker has: what it
// asks for later would be refused. Package vision tries the limit on a process of
// its own.
func init() {
	setrlimit = func(int, *unix.Rlimit) error { return nil }
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vision.toml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestConfig(t *testing.T) {
	c, err := loadConfig(write(t, "camera = \"rtsp://u:p@host/1\"\nmodels = \"m\"\n"))
	require.NoError(t, err)
	assert.Equal(t, Config{
		Camera: "rtsp://u:p@host/1", Models: "m", Manifest: "default", Width: 640, Height: 480, Threads: 1, PreviewWidth: 320, MaxPixels: 1 << 22, SuspectSeconds: 5, MemoryMB: 600,
	}, c)
}

func TestConfigSample(t *testing.T) {
	c, err := loadConfig("../../deploy/vision.toml")
	require.NoError(t, err)
	assert.Equal(t, "/dev/video0", c.Camera)
}

func TestConfigRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"no camera":       {`models = "m"`, `camera = ""`},
		"no models":       {`camera = "/dev/video0"`, `models = ""`},
		"unknown key":     {"camera = \"x\"\nmodels = \"m\"\nthread = 2", `unknown key thread`},
		"unknown scheme":  {"camera = \"ftp://u:secret@h/\"\nmodels = \"m\"", `camera = "ftp://u:xxxxx@h/"`},
		"no host":         {"camera = \"http:///x\"\nmodels = \"m\"", "has no host"},
		"broken address":  {"camera = \"http://u:secret@h:x/\"\nmodels = \"m\"", "camera: not an address"},
		"threads":         {"camera = \"x\"\nmodels = \"m\"\nthreads = 0", "threads = 0: must be 1 to 16"},
		"width":           {"camera = \"x\"\nmodels = \"m\"\nwidth = 10", "width = 10"},
		"height":          {"camera = \"x\"\nmodels = \"m\"\nheight = 10", "height = 10"},
		"preview":         {"camera = \"x\"\nmodels = \"m\"\npreview_width = 10000", "preview_width = 10000"},
		"not TOML":        {"camera = ", "vision.toml"},
		"a wrong type":    {"camera = 3", "camera"},
		"a quoted number": {"camera = \"x\"\nmodels = \"m\"\nthreads = \"2\"", "threads"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadConfig(write(t, c.text))
			assert.ErrorIs(t, err, errConfig)
			assert.ErrorContains(t, err, c.says)
			assert.NotContains(t, err.Error(), "secret")
		})
	}
}

func TestRunRefuses(t *testing.T) {
	empty := t.TempDir()
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no configuration": {[]string{"-config", filepath.Join(empty, "none.toml")}, 2, "none.toml"},
		"unknown flag":     {[]string{"-cfg", "x"}, 2, "-cfg"},
		"no pipes":         {[]string{"-config", write(t, "camera = \"x\"\nmodels = \"m\"")}, 1, "rollcalld starts this program"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			err := run(t.Context(), c.args, &stdout, &stderr)
			require.ErrorContains(t, err, c.says)
			assert.Equal(t, c.code, exitCode(err))
			assert.Empty(t, stdout.String())
		})
	}
	assert.ErrorIs(t, run(t.Context(), []string{"-h"}, &bytes.Buffer{}, &bytes.Buffer{}), flag.ErrHelp)
}

func FuzzConfig(f *testing.F) {
	f.Add("camera = \"http://h/\"\nmodels = \"m\"\n")
	f.Add("camera = [1]\n[models]\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "c.toml")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		if c, err := loadConfig(path); err == nil {
			assert.NoError(t, c.check())
		} else {
			assert.ErrorIs(t, err, errConfig)
		}
	})
}
