//go:build cgo && opencv

package opencv

import (
	"image"
	"image/color"
	"math"

	"gocv.io/x/gocv"

	"rollcall/vision"
)

// What the detector's answers must reach, as the figures in docs/performance.md
// were measured.
const (
	leastScore  = 0.65
	mostOverlap = 0.4
	mostFaces   = 64
)

// find gives the faces in a picture, best first, without embedding.
func (n *Nets) find(p *Picture) ([]sighting, error) {
	view, err := n.letterbox(p)
	if err != nil {
		return nil, err
	}
	outs, err := n.detect.forward(n.crop)
	if err != nil {
		return nil, err
	}
	var all []sighting
	if n.detect.model.Kind == vision.KindYuNet {
		all, err = n.detect.yunet(outs)
	} else {
		all, err = n.detect.ultraface(outs)
	}
	if err != nil {
		return nil, err
	}
	var faces []sighting
	for _, f := range all {
		if f = placed(f, view, n.detect.size()); inView(f.Box, p.mat.Cols(), p.mat.Rows()) {
			faces = append(faces, f)
		}
	}
	faces = distinct(faces, mostOverlap)
	return faces[:min(len(faces), mostFaces)], nil
}

// letterbox shrinks the picture into n.crop, of the detector's input size, and
// gives the part of the picture's plane that is on it. It averages areas: with
// fewer samples the stripes of a window blind became a face.
func (n *Nets) letterbox(p *Picture) (rect, error) {
	in := n.detect.size()
	view := canvas(p.mat.Cols(), p.mat.Rows(), in.X, in.Y, n.detect.model.Crop)
	scale := float64(in.X) / view.w
	w := max(1, int(scale*float64(p.mat.Cols())+0.5))
	h := max(1, int(scale*float64(p.mat.Rows())+0.5))
	if err := gocv.Resize(p.mat, &n.small, image.Pt(w, h), 0, 0, gocv.InterpolationArea); err != nil {
		return rect{}, err
	}
	left, top := (in.X-w)/2, (in.Y-h)/2
	err := gocv.CopyMakeBorder(n.small, &n.crop, top, in.Y-h-top, left, in.X-w-left, gocv.BorderConstant, color.RGBA{})
	view.x, view.y = -float64(left)/scale, -float64(top)/scale
	return view, err
}

// ultraface reads scores Nx2 and boxes Nx4; places are in pixels of the input.
func (n *net) ultraface(outs []output) ([]sighting, error) {
	scores, corners := outs[0], outs[1]
	if scores.width != 2 || corners.width != 4 || len(corners.data) != 2*len(scores.data) {
		return nil, n.misfit("%d scores and %d corners", len(scores.data), len(corners.data))
	}
	w, h := float64(n.model.Input.Width), float64(n.model.Input.Height)
	var found []sighting
	for i := range len(scores.data) / 2 {
		score := float64(scores.data[2*i+1])
		if score < leastScore {
			continue
		}
		c := corners.data[4*i : 4*i+4]
		x0, y0, x1, y1 := w*float64(c[0]), h*float64(c[1]), w*float64(c[2]), h*float64(c[3])
		found = append(found, sighting{Face: vision.Face{
			Box: vision.Box{X: x0, Y: y0, W: x1 - x0, H: y1 - y0}, Score: min(score, 1), Liveness: -1,
		}})
	}
	return found, nil
}

// yunetStrides are the sides of the cells that YuNet looks at, in pixels.
var yunetStrides = [3]int{8, 16, 32}

// yunet reads, for each stride, class and object scores, boxes and points of
// every cell (OpenCV 4.8's FaceDetectorYN; that of 4.6 fails on this file):
// centres and points count from the cell's corner in strides, sizes are
// logarithms of strides.
func (n *net) yunet(outs []output) ([]sighting, error) {
	var found []sighting
	for i, stride := range yunetStrides {
		classes, objects, boxes, points := outs[i].data, outs[i+3].data, outs[i+6].data, outs[i+9].data
		columns := n.model.Input.Width / stride
		cells := columns * (n.model.Input.Height / stride)
		if len(classes) != cells || len(objects) != cells || len(boxes) != 4*cells || len(points) != 10*cells {
			return nil, n.misfit("not %d cells of %d pixels", cells, stride)
		}
		for c := range cells {
			score := math.Sqrt(unit(classes[c]) * unit(objects[c]))
			if score < leastScore {
				continue
			}
			found = append(found, yunetCell(score, float64(stride), c%columns, c/columns, boxes[4*c:], points[10*c:]))
		}
	}
	return found, nil
}

func unit(x float32) float64 { return min(1, max(0, float64(x))) }

func yunetCell(score, stride float64, column, row int, box, points []float32) sighting {
	x, y := stride*float64(column), stride*float64(row)
	w, h := stride*math.Exp(float64(box[2])), stride*math.Exp(float64(box[3]))
	f := sighting{five: new([5]point)}
	f.Face = vision.Face{Score: score, Liveness: -1, Box: vision.Box{
		X: x + stride*float64(box[0]) - w/2, Y: y + stride*float64(box[1]) - h/2, W: w, H: h,
	}}
	for i := range f.five {
		f.five[i] = point{x + stride*float64(points[2*i]), y + stride*float64(points[2*i+1])}
	}
	return f
}

// placed brings a sighting from the detector's input into the picture.
func placed(f sighting, view rect, in image.Point) sighting {
	scale := view.w / float64(in.X)
	b := f.Box
	f.Box = vision.Box{X: view.x + scale*b.X, Y: view.y + scale*b.Y, W: scale * b.W, H: scale * b.H}
	if f.five != nil {
		for i, q := range f.five {
			f.five[i] = point{view.x + scale*q.x, view.y + scale*q.y}
		}
	}
	return f
}
