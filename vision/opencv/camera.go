//go:build cgo && opencv

package opencv

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"gocv.io/x/gocv"
)

// Camera is an open stream of pictures.
type Camera struct {
	folder  *folder // nil unless it plays a folder of pictures; then there is no capture
	capture *gocv.VideoCapture
	spare   gocv.Mat
	kept    bool // the frame that Skip waited for is in spare already
}

// OpenCamera opens what the address names: a device ("/dev/video0"), a network
// stream (MJPEG at "http://" or "https://", "rtsp://"), a video file, or a
// folder, whose pictures it shows once, by name, five a second. It blocks until the camera answers, which a dead one may never do. The error does not
// repeat the address, which may hold a password.
//
// FFmpeg opens an MJPEG stream in a millisecond and holds back no frame as it
// is; "nobuffer" would throw the first one away (docs/decisions/02). Who needs
// other options sets OPENCV_FFMPEG_CAPTURE_OPTIONS.
//
// A device is asked for frames of width x height; streams have their own size.
func OpenCamera(address string, width, height int) (*Camera, error) {
	if info, err := os.Stat(address); err == nil && info.IsDir() {
		return openFolder(address)
	}
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
	if c.folder != nil {
		return c.folder.wait()
	}
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
	if c.folder != nil {
		return c.folder.show(p)
	}
	if c.kept {
		p.mat, c.spare, c.kept = c.spare, p.mat, false
		return true
	}
	return c.capture.Retrieve(&p.mat) && !p.mat.Empty()
}

// Read takes the next frame into p. False means that the stream has ended.
func (c *Camera) Read(p *Picture) bool {
	if c.folder != nil {
		return c.folder.wait() && c.folder.show(p)
	}
	return c.capture.Read(&p.mat) && !p.mat.Empty()
}

// Close closes the camera.
func (c *Camera) Close() {
	if c.folder != nil {
		c.folder.rhythm.Stop()
		return
	}
	_ = c.capture.Close()
	_ = c.spare.Close()
}

// folder is a camera that shows pictures.
type folder struct {
	files  []string // still to be shown
	rhythm *time.Ticker
	first  bool
}

const (
	folderRate   = 5       // pictures a second
	folderPixels = 4 << 20 // of one picture
)

func openFolder(dir string) (*Camera, error) {
	entries, err := os.ReadDir(dir) // by name
	if err != nil {
		return nil, ErrNoCamera
	}
	f := &folder{first: true}
	for _, e := range entries {
		switch strings.ToLower(filepath.Ext(e.Name())) {
		case ".jpg", ".jpeg", ".png", ".pgm", ".ppm":
			f.files = append(f.files, filepath.Join(dir, e.Name()))
		}
	}
	if len(f.files) == 0 {
		return nil, ErrNoCamera
	}
	f.rhythm = time.NewTicker(time.Second / folderRate)
	return &Camera{folder: f}, nil
}

// wait waits for the next picture; it is false after the last.
func (f *folder) wait() bool {
	if !f.first && len(f.files) > 0 {
		<-f.rhythm.C
		f.files = f.files[1:]
	}
	f.first = false
	return len(f.files) > 0
}

// show takes the picture that is due into p, or the next one that is a picture.
func (f *folder) show(p *Picture) bool {
	for ; len(f.files) > 0; f.files = f.files[1:] {
		b, err := os.ReadFile(f.files[0])
		if err != nil {
			continue
		}
		next, err := DecodePicture(b, folderPixels)
		if err != nil {
			continue
		}
		p.mat, next.mat = next.mat, p.mat
		next.Close()
		return true
	}
	return false
}
