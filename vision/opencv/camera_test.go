//go:build cgo && opencv

package opencv_test

import (
	"image/jpeg"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/simulator"
	"rollcall/vision"
	"rollcall/vision/opencv"
)

func TestCameraShowsWhoStandsThere(t *testing.T) {
	people, err := simulator.LoadPeople("../../build/people")
	require.NoError(t, err)
	nets, err := opencv.LoadNets(vision.DefaultManifest(), "../../build/models", 1)
	require.NoError(t, err)
	defer nets.Close()
	camera := simulator.NewCamera()
	camera.Show(people[0], simulator.AtCheckIn)
	server := httptest.NewServer(camera)
	defer server.Close()
	defer server.CloseClientConnections()

	began := time.Now()
	c, err := opencv.OpenCamera(server.URL, 640, 480)
	require.NoError(t, err)
	defer c.Close()
	p := opencv.NewPicture()
	defer p.Close()
	require.True(t, c.Read(p))
	t.Logf("open to first frame: %v", time.Since(began).Round(time.Millisecond))
	seen := func() int {
		faces, _, err := nets.Look(p, vision.Work{})
		require.NoError(t, err)
		return len(faces)
	}
	assert.Equal(t, 1, seen())

	// Frames that nobody read wait in the socket, and come first.
	camera.Empty()
	for frames := 0; seen() > 0; frames++ {
		require.Less(t, frames, 100)
		require.True(t, c.Skip())
		require.True(t, c.Keep(p))
	}

	camera.Refuse()
	ended := false
	for range 100 {
		ended = ended || !c.Skip()
	}
	assert.True(t, ended, "Skip notices the end of the stream")
	assert.False(t, c.Read(p))
	_, err = opencv.OpenCamera(server.URL, 640, 480)
	assert.ErrorIs(t, err, opencv.ErrNoCamera)
	assert.NotContains(t, err.Error(), server.URL)
}

func TestCamerasThatAreNone(t *testing.T) {
	for _, address := range []string{"/dev/video199", filepath.Join(t.TempDir(), "none.mp4"), "http://127.0.0.1:1/"} {
		_, err := opencv.OpenCamera(address, 640, 480)
		assert.ErrorIs(t, err, opencv.ErrNoCamera)
	}
}

// TestAFileIsACamera plays frames that were written one after the other, as a
// recording camera leaves them.
func TestAFileIsACamera(t *testing.T) {
	path := filepath.Join(t.TempDir(), "frames.mjpeg")
	f, err := os.Create(path)
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, jpeg.Encode(f, (*simulator.Person)(nil).Frame(simulator.Variation{}), nil))
	}
	require.NoError(t, f.Close())
	c, err := opencv.OpenCamera(path, 640, 480)
	require.NoError(t, err)
	defer c.Close()
	p := opencv.NewPicture()
	defer p.Close()
	frames := 0
	for c.Read(p) {
		frames++
	}
	assert.Equal(t, 3, frames)
}
