//go:build cgo && opencv

package opencv

import (
	"strings"
	"time"

	"gocv.io/x/gocv"
)

// Camera is an open stream of pictures.
type Camera struct {
	capture *gocv.VideoCapture
	spare   gocv.Mat
	kept    bool // the frame that Skip waited for is in spare already
}

// OpenCamera opens what the address names: a device ("/dev/video0"), a network
// stream (MJPEG at "http://" or "https://", "rtsp://"), or a file. It blocks
// until the camera answers, which a dead one may never do. The error does not
// repeat the address, which may hold a password.
//
// FFmpeg opens an MJPEG stream in a millisecond and holds back no frame as it
// is; "nobuffer" would throw the first one away (docs/decisions/02). Who needs
// other options sets OPENCV_FFMPEG_CAPTURE_OPTIONS.
//
// A device is asked for frames of width x height; streams have their own size.
func OpenCamera(address string, width, height int) (*Camera, error) {
	backend := gocv.VideoCaptureFFmpeg
	if strings.HasPrefix(address, "/dev/video") {
		backend = gocv.VideoCaptureV4L2
	}
	capture, err := gocv.VideoCaptureFileWithAPI(address, backend)
	if err != nil {
		_ = capture.Close()
		return nil, ErrNoCamera
	}
	if backend == gocv.VideoCaptureV4L2 {
		capture.Set(gocv.VideoCaptureFOURCC, capture.ToCodec("MJPG")) // USB 2 carries no raw video of this size at full rate
		capture.Set(gocv.VideoCaptureFrameWidth, float64(width))
		capture.Set(gocv.VideoCaptureFrameHeight, float64(height))
		capture.Set(gocv.VideoCaptureBufferSize, 1) // or the driver queues old frames
	}
	return &Camera{capture: capture, spare: gocv.NewMat()}, nil
}

// tooFast is a wait for the next frame that no camera has.
const tooFast = 2 * time.Millisecond

// Skip waits for the next frame and leaves it undecoded where the driver
// allows it. False means that the stream has ended.
func (c *Camera) Skip() bool {
	began := time.Now()
	err := c.capture.Grab(1)
	c.kept = false
	if err != nil || time.Since(began) >= tooFast {
		return err == nil
	}
	// gocv's Grab does not say whether there was a frame; one that did not
	// wait may be the end of the stream, and only a read tells.
	c.kept = c.capture.Read(&c.spare) && !c.spare.Empty()
	return c.kept
}

// Keep takes the frame that the last Skip waited for into p.
func (c *Camera) Keep(p *Picture) bool {
	if c.kept {
		p.mat, c.spare, c.kept = c.spare, p.mat, false
		return true
	}
	return c.capture.Retrieve(&p.mat) && !p.mat.Empty()
}

// Read takes the next frame into p. False means that the stream has ended.
func (c *Camera) Read(p *Picture) bool { return c.capture.Read(&p.mat) && !p.mat.Empty() }

// Close closes the camera.
func (c *Camera) Close() {
	_ = c.capture.Close()
	_ = c.spare.Close()
}
