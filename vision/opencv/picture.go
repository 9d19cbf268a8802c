//go:build cgo && opencv

package opencv

import (
	"errors"
	"fmt"
	"hash/maphash"
	"image"

	"gocv.io/x/gocv"
)

// Picture is one frame, BGR. It lives in memory only: there is no way to
// write it to a file.
type Picture struct{ mat, small gocv.Mat }

// NewPicture makes room for a frame; the caller closes it.
func NewPicture() *Picture { return &Picture{gocv.NewMat(), gocv.NewMat()} }

// DecodePicture reads a JPEG, PNG, PGM or PPM of at most mostPixels, as it is
// meant to be seen: turned as its EXIF says, 8 bits, three colours. The error
// wraps [ErrNoPicture] or [ErrTooLarge].
func DecodePicture(b []byte, mostPixels int) (*Picture, error) {
	if err := checkHeader(b, mostPixels); err != nil {
		return nil, err
	}
	mat, err := gocv.IMDecode(b, gocv.IMReadColor)
	if err == nil && mat.Empty() {
		err = errors.New("its pixels cannot be decoded")
	}
	if err != nil {
		_ = mat.Close()
		return nil, fmt.Errorf("%w: %w", ErrNoPicture, err)
	}
	return &Picture{mat, gocv.NewMat()}, nil
}

// Size is the frame's width and height in pixels.
func (p *Picture) Size() (width, height int) { return p.mat.Cols(), p.mat.Rows() }

// seed of all fingerprints of this process.
var seed = maphash.MakeSeed()

// Fingerprint stands for every bit of the frame. Two frames of a live camera
// have the same one practically never: a sensor has noise.
func (p *Picture) Fingerprint() uint64 {
	frame, err := rasterOf(&p.mat)
	if err != nil {
		return 0
	}
	return maphash.Bytes(seed, frame.pixels)
}

// darkest is the mean luma up to which a frame is black: a covered lens, or
// no light at all.
const darkest = 8

// Black reports whether there is nothing to be seen on the frame.
func (p *Picture) Black() bool {
	frame, err := rasterOf(&p.mat)
	if err != nil || len(frame.pixels) == 0 {
		return true
	}
	const step = 97 // every so many pixels; no divisor of a usual width
	sum, n := 0, 0
	for i := 0; i+2 < len(frame.pixels); i += 3 * step {
		sum += luma(frame.pixels[i:])
		n++
	}
	return sum <= darkest*n
}

// Close frees the frame.
func (p *Picture) Close() {
	_ = p.mat.Close()
	_ = p.small.Close()
}

// previewQuality keeps a 320x240 preview near 12 kB.
const previewQuality = 75

// Preview is the frame as a JPEG of the given width.
func (p *Picture) Preview(width int) ([]byte, error) {
	if p.mat.Empty() {
		return nil, errors.New("making preview: no frame")
	}
	height := max(1, width*p.mat.Rows()/p.mat.Cols())
	if err := gocv.Resize(p.mat, &p.small, image.Pt(width, height), 0, 0, gocv.InterpolationLinear); err != nil {
		return nil, fmt.Errorf("making preview: %w", err)
	}
	buf, err := gocv.IMEncodeWithParams(gocv.JPEGFileExt, p.small, []int{gocv.IMWriteJpegQuality, previewQuality})
	if buf != nil {
		defer buf.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("making preview: %w", err)
	}
	return append([]byte(nil), buf.GetBytes()...), nil
}
