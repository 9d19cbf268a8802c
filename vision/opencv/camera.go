//go:build cgo && opencv

package opencv

import (
	"fmt"
	"os"
	"strings"
	"time"

	"gocv.io/x/gocv"
)

// Camera is an open stream of pictures.
type Camera struct{ capture *gocv.VideoCapture }

// ffmpegOptions makes FFmpeg take a stream at its word instead of collecting
// seconds of it first (OpenCV passes them on as "key;value|key;value").
const ffmpegOptions = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|probesize;65536|analyzeduration;0|fpsprobesize;0"

// OpenCamera opens what the address names: a device ("/dev/video0"), a network
// stream ("http://", "https://" MJPEG, "rtsp://"), or a file. It blocks until
// the camera answers, which a dead one may never do. The error does not repeat
// the address, which may hold a password.
func OpenCamera(address string) (*Camera, error) {
	backend := gocv.VideoCaptureFFmpeg
	if strings.HasPrefix(address, "/dev/video") {
		backend = gocv.VideoCaptureV4L2
	}
	if _, set := os.LookupEnv("OPENCV_FFMPEG_CAPTURE_OPTIONS"); !set {
		if err := os.Setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", ffmpegOptions); err != nil {
			return nil, fmt.Errorf("opening camera: %w", err)
		}
	}
	capture, err := gocv.VideoCaptureFileWithAPI(address, backend)
	if err != nil {
		_ = capture.Close()
		return nil, ErrNoCamera
	}
	// A device driver queues frames; one is enough to miss none. Streams ignore it.
	capture.Set(gocv.VideoCaptureBufferSize, 1)
	return &Camera{capture}, nil
}

// tooFast is a wait for the next frame that no camera has.
const tooFast = 2 * time.Millisecond

// Discard takes the next frame and throws it away undecoded where the driver
// allows it. False means that the stream has ended.
func (c *Camera) Discard(spare *Picture) bool {
	began := time.Now()
	if err := c.capture.Grab(1); err != nil {
		return false
	}
	if time.Since(began) >= tooFast {
		return true
	}
	// gocv's Grab does not say whether there was a frame; one that did not
	// wait may be the end of the stream, and only a read tells.
	return c.capture.Read(&spare.mat)
}

// Read takes the next frame into p. False means that the stream has ended.
func (c *Camera) Read(p *Picture) bool { return c.capture.Read(&p.mat) && !p.mat.Empty() }

// Close closes the camera.
func (c *Camera) Close() { _ = c.capture.Close() }
