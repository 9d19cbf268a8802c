package simulator_test

import (
	"context"
	"image/jpeg"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/simulator"
)

// watch opens a stream on a camera whose frames come when ticked.
func watch(t *testing.T) (*simulator.Camera, *multipart.Reader, chan<- time.Time, func()) {
	t.Helper()
	ticks := make(chan time.Time)
	stopped := make(chan struct{})
	c := simulator.NewCamera()
	c.Ticks = func() (<-chan time.Time, func()) { return ticks, func() { close(stopped) } }
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
	require.NoError(t, err)
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	_, parameters, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	require.NoError(t, err)
	leave := func() {
		cancel()
		_ = answer.Body.Close()
		<-stopped // the handler has ended
	}
	return c, multipart.NewReader(answer.Body, parameters["boundary"]), ticks, leave
}

func TestCameraSendsAFrameAtEachTick(t *testing.T) {
	_, parts, ticks, leave := watch(t)
	for range 3 {
		part, err := parts.NextPart()
		require.NoError(t, err)
		assert.Equal(t, "image/jpeg", part.Header.Get("Content-Type"))
		frame, err := jpeg.Decode(part)
		require.NoError(t, err)
		assert.Equal(t, 640, frame.Bounds().Dx())
		assert.Equal(t, 480, frame.Bounds().Dy())
		ticks <- time.Time{} // the part's end comes with the next part
	}
	leave()
}

func TestCameraFaults(t *testing.T) {
	c, parts, ticks, _ := watch(t)
	part, err := parts.NextPart()
	require.NoError(t, err)
	_, err = jpeg.Decode(part)
	require.NoError(t, err)
	c.Stall()
	part, err = parts.NextPart()
	require.NoError(t, err)
	half := make([]byte, 1000)
	_, err = io.ReadFull(part, half)
	require.NoError(t, err)
	select {
	case ticks <- time.Time{}:
		assert.Fail(t, "a stalled camera waits for no tick")
	default:
	}
	c.Refuse() // cuts the stream
	_, err = io.Copy(io.Discard, part)
	assert.Error(t, err)

	refused := httptest.NewRecorder()
	c.ServeHTTP(refused, httptest.NewRequest(http.MethodGet, "/", nil))
	assert.Equal(t, http.StatusNotFound, refused.Code)
}

func TestPeopleWithoutPictures(t *testing.T) {
	_, err := simulator.LoadPeople(t.TempDir())
	assert.ErrorContains(t, err, "run make models")
}
