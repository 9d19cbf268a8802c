//go:build cgo && opencv

package opencv

// #cgo pkg-config: opencv4
// #cgo CXXFLAGS: --std=c++11 -O2
// #include <stdlib.h>
// #include "dnn.h"
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"gocv.io/x/gocv"

	"rollcall/vision"
)

const mostOutputs = 4

// net is one loaded net with the way it is fed.
type net struct {
	handle unsafe.Pointer
	model  vision.Model
	grey   gocv.Mat
}

// output is one blob of a net, width values to a row.
type output struct {
	data  []float32
	width int
}

func textOf(message *C.char) error {
	if message == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(message))
	return errors.New(C.GoString(message))
}

func setThreads(n int) error { return textOf(C.dnn_threads(C.int(n))) }

func loadNet(path string, model vision.Model) (*net, error) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	n := &net{model: model}
	if err := textOf(C.dnn_load(p, &n.handle)); err != nil {
		return nil, fmt.Errorf("loading %s: %w", model.File, err)
	}
	n.grey = gocv.NewMat()
	return n, nil
}

func (n *net) close() {
	C.dnn_close(n.handle)
	_ = n.grey.Close()
}

// forward runs the net on a BGR picture of its input size.
func (n *net) forward(picture gocv.Mat) ([]output, error) {
	if n.model.Colour == "grey" {
		if err := gocv.CvtColor(picture, &n.grey, gocv.ColorBGRToGray); err != nil {
			return nil, err
		}
		picture = n.grey
	}
	swap := C.int(0)
	if n.model.Colour == "rgb" {
		swap = 1
	}
	var outs [mostOutputs]C.dnn_output
	var found C.int
	err := textOf(C.dnn_forward(n.handle, unsafe.Pointer(picture.Ptr()),
		C.double(n.model.Mean), C.double(n.model.Scale), swap, &outs[0], mostOutputs, &found))
	outputs := make([]output, 0, int(found))
	for _, o := range outs[:int(found)] {
		data := make([]float32, int(o.count))
		copy(data, unsafe.Slice((*float32)(unsafe.Pointer(o.data)), int(o.count)))
		C.free(unsafe.Pointer(o.data))
		outputs = append(outputs, output{data, int(o.width)})
	}
	if err != nil {
		return nil, fmt.Errorf("running %s: %w", n.model.File, err)
	}
	return outputs, nil
}

// one gives the single output of a net, of the length it must have.
func (n *net) one(picture gocv.Mat, length int) ([]float32, error) {
	outs, err := n.forward(picture)
	if err != nil {
		return nil, err
	}
	if len(outs) != 1 || len(outs[0].data) != length {
		return nil, fmt.Errorf("running %s: output is not %d numbers", n.model.File, length)
	}
	return outs[0].data, nil
}
