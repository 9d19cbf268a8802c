package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"rollcall/cmd/internal/tomlfile"
	"rollcall/vision"
)

// errConfig is wrapped by every error that the configuration can mend.
var errConfig = errors.New("rollcall-vision cannot start")

// Config is the worker's configuration file; deploy/vision.toml explains it.
type Config struct {
	// Camera is where frames come from: a device, an MJPEG address ("http://",
	// "https://"), "rtsp://", or for trying a video file or a folder of
	// pictures. It must be set. A device by its stable path
	// ("/dev/v4l/by-path/...", "/dev/v4l/by-id/...") is the one at that USB
	// port, or the one of that serial number; "/dev/video0" is whichever came
	// first. It may hold a password, so the file should be readable by the
	// service only.
	Camera string `toml:"camera"`
	// CameraCertificate is a PEM file with the certificate of an "https://"
	// camera. Default none: then whatever answers at the address is taken for
	// the camera. With it another server is refused.
	CameraCertificate string `toml:"camera_certificate"`
	// Width and Height in pixels are asked of a device; streams have their
	// own. Default 640x480: smaller finds no face at arm's length, larger
	// costs decoding time and finds no more.
	Width  int `toml:"width"`
	Height int `toml:"height"`
	// Models is the directory of the model files. It must be set.
	Models string `toml:"models"`
	// Manifest is the model set: the name of one that was imported or that is
	// shipped (rollcall models list shows them), or the path of a manifest.
	// Default "default". Another embedder needs new enrolments.
	Manifest string `toml:"manifest"`
	// Threads is how many threads the nets may use, 1 to 16. Default 1: a
	// second one saves a quarter of a check at most and takes it from the rest.
	Threads int `toml:"threads"`
	// PreviewWidth in pixels of the picture on the panel, 80 to 640. Default
	// 320, about 12 kB a frame.
	PreviewWidth int `toml:"preview_width"`
	// MaxPixels is how many pixels a picture file may have, 10,000 to
	// 100,000,000. Default 4,194,304 (2048 x 2048): a larger one is refused by
	// its header, before room is made for it.
	MaxPixels int `toml:"max_pixels"`
	// SuspectSeconds is how long a camera may give frames that were all there
	// before, to the bit, until it is suspected of showing a frozen picture or
	// a recording, 1 to 60. Default 5: a recording of three seconds is found
	// out after eight. Meanwhile nobody's face is checked.
	SuspectSeconds int `toml:"suspect_seconds"`
	// MemoryMB is how much memory in megabytes the worker may hold, 300 to
	// 8000. Default 600, three times what the default set needs: a stream that
	// asks for more ends the worker, which is started anew.
	MemoryMB int `toml:"memory_mb"`
}

// loadConfig reads the file, refuses keys it does not know, and fills in
// defaults.
func loadConfig(path string) (Config, error) {
	c := Config{Manifest: vision.DefaultSet, Width: 640, Height: 480, Threads: 1, PreviewWidth: 320, MaxPixels: 1 << 22, SuspectSeconds: 5, MemoryMB: defaultMemoryMB}
	if err := tomlfile.Load(path, &c); err != nil {
		return Config{}, fmt.Errorf("%w: %w", errConfig, err)
	}
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("%w: configuration %s: %w", errConfig, path, err)
	}
	return c, nil
}

func (c Config) check() error {
	if err := checkCamera(c.Camera); err != nil {
		return err
	}
	if c.CameraCertificate != "" && !strings.HasPrefix(c.Camera, "https://") {
		return errors.New("camera_certificate: only a camera at https:// has one")
	}
	if c.Models == "" {
		return errors.New(`models = "": must name the directory of the model files`)
	}
	for _, n := range []struct {
		key              string
		value, low, high int
	}{
		{"width", c.Width, 160, 4096},
		{"height", c.Height, 120, 4096},
		{"threads", c.Threads, 1, 16},
		{"preview_width", c.PreviewWidth, 80, 640},
		{"max_pixels", c.MaxPixels, 1e4, 1e8},
		{"suspect_seconds", c.SuspectSeconds, 1, 60},
		{"memory_mb", c.MemoryMB, 300, 8000},
	} {
		if n.value < n.low || n.value > n.high {
			return fmt.Errorf("%s = %d: must be %d to %d", n.key, n.value, n.low, n.high)
		}
	}
	return nil
}

func checkCamera(address string) error {
	if address == "" {
		return errors.New(`camera = "": must be a device, an address, a file or a folder`)
	}
	scheme, _, isURL := strings.Cut(address, "://")
	if !isURL {
		return nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("camera: not an address") // the error would repeat a password
	}
	switch scheme {
	case "http", "https", "rtsp", "rtsps":
	default:
		return fmt.Errorf("camera = %q: must start with http, https, rtsp or rtsps, or be a device or a file", u.Redacted())
	}
	if u.Host == "" {
		return fmt.Errorf("camera = %q: has no host", u.Redacted())
	}
	return nil
}
