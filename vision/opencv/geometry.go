package opencv

import (
	"cmp"
	"image"
	"math"
	"slices"

	"rollcall/vision"
)

// affine maps (x, y) to (m[0]x + m[1]y + m[2], m[3]x + m[4]y + m[5]). Pixel
// centres stand at whole numbers, as in OpenCV's warpAffine.
type affine [6]float64

type point struct{ x, y float64 }

// rect is a part of a picture: corner and size, in pixels.
type rect struct{ x, y, w, h float64 }

// stretch maps a part of a picture onto a whole one of a size, edges to edges.
func stretch(r rect, size image.Point) affine {
	sx, sy := float64(size.X)/r.w, float64(size.Y)/r.h
	return affine{sx, 0, (0.5-r.x)*sx - 0.5, 0, sy, (0.5-r.y)*sy - 0.5}
}

// canvas is the part that the detector sees: the picture widened to the
// proportions w:h, never stretched, and crop times as large.
func canvas(width, height, w, h int, crop float64) rect {
	scale := crop * max(float64(width)/float64(w), float64(height)/float64(h))
	r := rect{w: scale * float64(w), h: scale * float64(h)}
	r.x, r.y = (float64(width)-r.w)/2, (float64(height)-r.h)/2
	return r
}

// inView reports whether there is enough of a box in the picture to look at:
// the detector also sees the margin.
func inView(b vision.Box, width, height int) bool {
	x, y := b.X+b.W/2, b.Y+b.H/2
	return b.W >= 8 && b.H >= 8 && x >= 0 && y >= 0 && x < float64(width) && y < float64(height)
}

// square is the part that the 68 points are looked for in: crop times as high
// as the box, same centre, clipped to the picture.
func square(b vision.Box, width, height int, crop float64) rect {
	cx, cy, half := b.X+b.W/2, b.Y+b.H/2, crop*b.H/2
	x0, y0 := max(0, cx-half), max(0, cy-half)
	x1, y1 := min(float64(width), cx+half), min(float64(height), cy+half)
	return rect{x0, y0, x1 - x0, y1 - y0}
}

// surroundings is the box at crop times its size, or as far as the picture
// allows, pushed back into the picture.
func surroundings(b vision.Box, width, height int, crop float64) rect {
	w, h := float64(width), float64(height)
	scale := min(crop, (w-1)/b.W, (h-1)/b.H)
	r := rect{w: b.W * scale, h: b.H * scale}
	r.x = max(0, min(b.X+b.W/2-r.w/2, w-r.w))
	r.y = max(0, min(b.Y+b.H/2-r.h/2, h-r.h))
	return r
}

// scaled is the box at crop times its size, wherever that lies.
func scaled(b vision.Box, crop float64) rect {
	return rect{b.X + b.W*(1-crop)/2, b.Y + b.H*(1-crop)/2, b.W * crop, b.H * crop}
}

// eye is where an eye is looked for.
type eye struct {
	centre point
	width  float64 // from corner to corner
}

// cut is the square that an eye's net sees.
func (e eye) cut(crop float64) rect {
	side := crop * e.width
	return rect{e.centre.x - side/2, e.centre.y - side/2, side, side}
}

// landmarks are what alignment and measures need of a face's points.
type landmarks struct {
	five [5]point
	eyes [2]eye // left and right in the picture
}

// fromFive guesses the width of the eyes: as a rule it is 0.41 of their
// distance (50 eyes of LFW-a). A detector's points are coarser than those of a
// net for points: of what a net for eyes then says a fifth is wrong.
func fromFive(five [5]point) landmarks {
	width := 0.41 * math.Hypot(five[1].x-five[0].x, five[1].y-five[0].y)
	return landmarks{five, [2]eye{{five[0], width}, {five[1], width}}}
}

// from68 takes them from the 68 points in iBUG order.
func from68(p [68]point) landmarks {
	l := landmarks{five: five(p)}
	l.eyes[0] = eye{l.five[0], math.Hypot(p[39].x-p[36].x, p[39].y-p[36].y)}
	l.eyes[1] = eye{l.five[1], math.Hypot(p[45].x-p[42].x, p[45].y-p[42].y)}
	return l
}

// aligned is where eyes, nose tip and mouth corners stand in a 112x112 crop
// (the positions of InsightFace and OpenCV's FaceRecognizerSF.alignCrop).
var aligned = [5]point{
	{38.2946, 51.6963}, {73.5318, 51.5014}, {56.0252, 71.7366}, {41.5493, 92.3655}, {70.7299, 92.2041},
}

// five takes the alignment points from the 68 in iBUG order.
func five(p [68]point) [5]point {
	centre := func(points []point) point {
		var c point
		for _, q := range points {
			c.x += q.x / float64(len(points))
			c.y += q.y / float64(len(points))
		}
		return c
	}
	return [5]point{centre(p[36:42]), centre(p[42:48]), p[30], p[48], p[54]}
}

// similarity is the rotation, scale and shift that brings from nearest to to
// by least squares. OpenCV's estimateAffinePartial2D is RANSAC and costs half
// a point of accuracy on five points.
func similarity(from, to [5]point) affine {
	var f, t point
	for i := range from {
		f.x += from[i].x / 5
		f.y += from[i].y / 5
		t.x += to[i].x / 5
		t.y += to[i].y / 5
	}
	var a, b, norm float64
	for i := range from {
		x, y := from[i].x-f.x, from[i].y-f.y
		u, v := to[i].x-t.x, to[i].y-t.y
		a += x*u + y*v
		b += x*v - y*u
		norm += x*x + y*y
	}
	a, b = a/norm, b/norm
	return affine{a, -b, t.x - a*f.x + b*f.y, b, a, t.y - b*f.x - a*f.y}
}

// sighting is a face as the detector gives it.
type sighting struct {
	vision.Face
	five *[5]point // nil if the detector gives no points
}

// distinct keeps the best of boxes that cover each other by more than overlap
// (intersection over union), best first.
func distinct(faces []sighting, overlap float64) []sighting {
	slices.SortFunc(faces, func(a, b sighting) int { return cmp.Compare(b.Score, a.Score) })
	var kept []sighting
	for _, f := range faces {
		if !slices.ContainsFunc(kept, func(k sighting) bool { return cover(k.Box, f.Box) > overlap }) {
			kept = append(kept, f)
		}
	}
	return kept
}

func cover(a, b vision.Box) float64 {
	w := min(a.X+a.W, b.X+b.W) - max(a.X, b.X)
	h := min(a.Y+a.H, b.Y+b.H) - max(a.Y, b.Y)
	if w <= 0 || h <= 0 {
		return 0
	}
	return w * h / (a.W*a.H + b.W*b.H - w*h)
}

// softmax turns what a net says into probabilities.
func softmax(x []float32) []float64 {
	top := float64(slices.Max(x))
	out := make([]float64, len(x))
	var sum float64
	for i, v := range x {
		out[i] = math.Exp(float64(v) - top)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}
