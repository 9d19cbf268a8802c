package vision_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/simulator"
	"rollcall/vision"
)

// TestT6ARecordingIsSuspect plays a recording of three seconds and shows a
// frozen picture; the control is a live camera before a scene as still, which
// has the noise of its sensor only.
func TestT6ARecordingIsSuspect(t *testing.T) {
	people := loadPeople(t)
	for name, c := range map[string]struct {
		loop int // frames; 0 is live
		says string
	}{
		"a recording of three seconds": {45, "recording"},
		"a frozen picture":             {1, "frozen"},
		"a live camera":                {0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			camera := simulator.NewCamera()
			camera.Show(people[0], simulator.AtCheckIn)
			camera.Loop(c.loop)
			server := httptest.NewServer(camera)
			defer server.Close()
			defer server.CloseClientConnections()
			w := startBare(t, workerConfig(t, server.URL))
			w.next(vision.KindHello)
			began := time.Now()
			w.tell(vision.DoLook, 1)
			frame := w.next(vision.KindFrame)
			assert.NotEmpty(t, frame.Faces[0].Embedding)
			for frame.Code == "" && time.Since(began) < 10*time.Second {
				frame = w.next(vision.KindFrame)
			}
			if c.says == "" {
				assert.Empty(t, frame.Code)
				w.end()
				return
			}
			require.Equal(t, vision.CodeSuspect, frame.Code, "within ten seconds")
			t.Logf("suspect after %v", time.Since(began).Round(100*time.Millisecond))
			assert.Contains(t, frame.Text, c.says)
			for _, f := range frame.Faces {
				assert.Empty(t, f.Embedding, "nobody is known by a recording")
			}
			w.end()
		})
	}
}

// TestF8ABlackPictureIsItsOwnFault shows what a covered lens shows.
func TestF8ABlackPictureIsItsOwnFault(t *testing.T) {
	camera := simulator.NewCamera()
	camera.Show(loadPeople(t)[0], simulator.Variation{Light: 0.001})
	server := httptest.NewServer(camera)
	defer server.Close()
	defer server.CloseClientConnections()
	w := startBare(t, workerConfig(t, server.URL))
	w.next(vision.KindHello)
	w.tell(vision.DoLook, 1)
	frame := w.next(vision.KindFrame)
	assert.Equal(t, vision.CodeBlack, frame.Code)
	assert.Contains(t, frame.Text, "lens")
	w.end()
}
