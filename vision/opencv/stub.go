//go:build !cgo || !opencv

package opencv

import (
	"errors"

	"rollcall/vision"
)

var errStub = errors.New("built without OpenCV: install g++, pkg-config and libopencv-dev, and build with make " +
	`(CGO_ENABLED=1, -tags "opencv gocv_specific_modules gocv_calib3d gocv_videoio")`)

// Camera, Picture and Nets cannot be had in this build.
type (
	Camera  struct{}
	Picture struct{}
	Nets    struct{}
)

// OpenCamera, DecodePicture and LoadNets say how to build the package.
func OpenCamera(string, int, int) (*Camera, error)         { return nil, errStub }
func DecodePicture([]byte, int) (*Picture, error)          { return nil, errStub }
func LoadNets(vision.Manifest, string, int) (*Nets, error) { return nil, errStub }
func NewPicture() *Picture                                 { return &Picture{} }
func (*Camera) Skip() bool                                 { return false }
func (*Camera) Keep(*Picture) bool                         { return false }
func (*Camera) Read(*Picture) bool                         { return false }
func (*Camera) Close()                                     {}
func (*Picture) Preview(int) ([]byte, error)               { return nil, errStub }
func (*Picture) Fingerprint() uint64                       { return 0 }
func (*Picture) Black() bool                               { return false }
func (*Picture) Close()                                    {}
func (*Picture) Size() (int, int)                          { return 0, 0 }
func (*Nets) Look(*Picture, vision.Work) ([]vision.Face, vision.Times, error) {
	return nil, vision.Times{}, errStub
}
func (*Nets) LookAll(*Picture, vision.Work) ([]vision.Face, vision.Times, error) {
	return nil, vision.Times{}, errStub
}
func (*Nets) Close() {}
