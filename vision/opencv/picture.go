//go:build cgo && opencv

package opencv

import (
	"errors"
	"fmt"
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
