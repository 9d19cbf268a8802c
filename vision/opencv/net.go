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
	"image"
	"unsafe"

	"gocv.io/x/gocv"

	"rollcall/vision"
)

const mostOutputs = 12

// net is one loaded net with the way it is fed.
type net struct {
	handle  unsafe.Pointer
	model   vision.Model
	feed    C.dnn_feed
	outputs [mostOutputs]output
}

// output is one blob of a net, width values to a row. The values are the
// net's, until it runs again.
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

// heapBytes is what C has in use: nothing of it is seen by Go's profiles.
func heapBytes() int { return int(C.dnn_heap()) }

var orders = map[string]C.int{"bgr": C.DNN_BGR, "rgb": C.DNN_RGB, "grey": C.DNN_GREY}

func loadNet(path string, model vision.Model) (*net, error) {
	n := &net{model: model}
	n.feed.order = orders[model.Colour]
	for i := range 3 {
		n.feed.mean[i], n.feed.scale[i] = C.double(model.Mean[i]), C.double(model.Scale[i])
	}
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	var names [mostOutputs]*C.char
	for i, name := range model.Outputs {
		names[i] = C.CString(name)
		defer C.free(unsafe.Pointer(names[i]))
	}
	if err := textOf(C.dnn_load(p, &names[0], C.int(len(model.Outputs)), &n.handle)); err != nil {
		return nil, fmt.Errorf("loading %s: %w", model.File, err)
	}
	return n, nil
}

func (n *net) close() { C.dnn_close(n.handle) }

func (n *net) size() image.Point { return image.Pt(n.model.Input.Width, n.model.Input.Height) }

// forward runs the net on a BGR picture of its input size. The outputs come in
// the order of the manifest.
func (n *net) forward(picture gocv.Mat) ([]output, error) {
	var outs [mostOutputs]C.dnn_output
	if err := textOf(C.dnn_forward(n.handle, unsafe.Pointer(picture.Ptr()), &n.feed, &outs[0])); err != nil {
		return nil, fmt.Errorf("running %s: %w", n.model.File, err)
	}
	outputs := n.outputs[:len(n.model.Outputs)]
	for i := range outputs {
		outputs[i] = output{unsafe.Slice((*float32)(unsafe.Pointer(outs[i].data)), int(outs[i].count)), int(outs[i].width)}
	}
	return outputs, nil
}

// one gives the single output of a net, of the length it must have.
func (n *net) one(picture gocv.Mat, length int) ([]float32, error) {
	outs, err := n.forward(picture)
	if err != nil {
		return nil, err
	}
	if len(outs[0].data) != length {
		return nil, n.misfit("%d numbers instead of %d", len(outs[0].data), length)
	}
	return outs[0].data, nil
}

// misfit says that a net is not of the kind that the manifest calls it.
func (n *net) misfit(format string, a ...any) error {
	return fmt.Errorf("running %s: it is no net of kind %s: output is %s", n.model.File, n.model.Kind, fmt.Sprintf(format, a...))
}
