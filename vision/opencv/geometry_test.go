package opencv

import (
	"image"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/vision"
)

func (m affine) apply(p point) point {
	return point{m[0]*p.x + m[1]*p.y + m[2], m[3]*p.x + m[4]*p.y + m[5]}
}

func TestSimilarityFindsTurnScaleAndShift(t *testing.T) {
	sin, cos := math.Sincos(0.3)
	m := affine{2 * cos, -2 * sin, 17, 2 * sin, 2 * cos, -5}
	var from [5]point
	for i, p := range aligned { // the inverse of m
		x, y := p.x-17, p.y+5
		from[i] = point{(cos*x + sin*y) / 2, (cos*y - sin*x) / 2}
	}
	got := similarity(from, aligned)
	for i := range m {
		assert.InDelta(t, m[i], got[i], 1e-9)
	}
}

// TestSimilarityIsLeastSquares moves each coefficient a little: the sum of
// squared distances must not fall.
func TestSimilarityIsLeastSquares(t *testing.T) {
	from := [5]point{{30, 40}, {72, 38}, {50, 66}, {36, 90}, {68, 93}}
	sum := func(a, b, x, y float64) (s float64) {
		m := affine{a, -b, x, b, a, y}
		for i, p := range from {
			q := m.apply(p)
			s += math.Pow(q.x-aligned[i].x, 2) + math.Pow(q.y-aligned[i].y, 2)
		}
		return s
	}
	m := similarity(from, aligned)
	best := sum(m[0], m[3], m[2], m[5])
	for _, d := range []float64{-1e-3, 1e-3} {
		assert.Greater(t, sum(m[0]+d, m[3], m[2], m[5]), best)
		assert.Greater(t, sum(m[0], m[3]+d, m[2], m[5]), best)
		assert.Greater(t, sum(m[0], m[3], m[2]+d, m[5]), best)
		assert.Greater(t, sum(m[0], m[3], m[2], m[5]+d), best)
	}
}

func TestParts(t *testing.T) {
	assert.Equal(t, rect{-64, -48, 768, 576}, canvas(640, 480, 320, 240, 1.2), "a fifth more, in the middle")
	tall := canvas(100, 400, 320, 240, 1.2)
	assert.InDelta(t, 4.0/3, tall.w/tall.h, 1e-9, "never stretched")
	assert.InDelta(t, 480, tall.h, 1e-9)

	box := vision.Box{X: 100, Y: 100, W: 50, H: 80}
	assert.Equal(t, rect{85, 100, 80, 80}, square(box, 640, 480, 1))
	assert.Equal(t, rect{0, 0, 65, 40}, square(vision.Box{X: 0, Y: -40, W: 50, H: 80}, 640, 480, 1), "clipped")

	around := surroundings(box, 640, 480, 2.7)
	assert.InDelta(t, 135, around.w, 1e-9)
	assert.InDelta(t, 57.5, around.x, 1e-9)
	pushed := surroundings(vision.Box{X: 600, Y: 400, W: 50, H: 80}, 640, 480, 2.7)
	assert.InDelta(t, 640, pushed.x+pushed.w, 1e-9)
	assert.InDelta(t, 480, pushed.y+pushed.h, 1e-9)
	large := surroundings(vision.Box{X: 0, Y: 0, W: 600, H: 400}, 640, 480, 2.7)
	assert.LessOrEqual(t, large.w, 640.0)

	corner := stretch(rect{10, 20, 100, 50}, image.Pt(200, 100)).apply(point{9.5, 19.5})
	assert.Equal(t, point{-0.5, -0.5}, corner, "edges go to edges")
}

func TestInView(t *testing.T) {
	for name, c := range map[string]struct {
		box  vision.Box
		want bool
	}{
		"inside":            {vision.Box{X: 10, Y: 10, W: 50, H: 50}, true},
		"half outside":      {vision.Box{X: -20, Y: 10, W: 50, H: 50}, true},
		"left of it":        {vision.Box{X: -30, Y: 10, W: 50, H: 50}, false},
		"below it":          {vision.Box{X: 10, Y: 460, W: 50, H: 50}, false},
		"without extension": {vision.Box{X: 10, Y: 10}, false},
		"turned inside out": {vision.Box{X: 10, Y: 10, W: -50, H: 50}, false},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, inView(c.box, 640, 480)) })
	}
}

func TestDistinctKeepsTheBest(t *testing.T) {
	face := func(x, score float64) sighting {
		return sighting{Face: vision.Face{Box: vision.Box{X: x, W: 10, H: 10}, Score: score}}
	}
	got := distinct([]sighting{face(0, 0.7), face(2, 0.9), face(30, 0.8), face(7, 0.75)}, 0.4)
	var scores []float64
	for _, f := range got {
		scores = append(scores, f.Score)
	}
	assert.Equal(t, []float64{0.9, 0.8, 0.75}, scores)
	assert.Zero(t, cover(face(0, 1).Box, face(10, 1).Box))
	assert.InDelta(t, 1, cover(face(3, 1).Box, face(3, 1).Box), 1e-9)
}

func TestFiveTakesTheRightPoints(t *testing.T) {
	var all [68]point
	for i := range all {
		all[i] = point{float64(i), float64(2 * i)}
	}
	got := five(all)
	require.InDelta(t, 38.5, got[0].x, 1e-9)
	require.InDelta(t, 44.5, got[1].x, 1e-9)
	assert.Equal(t, [3]point{{30, 60}, {48, 96}, {54, 108}}, [3]point(got[2:]))
}

func TestSoftmax(t *testing.T) {
	assert.InDelta(t, 1.0/3, softmax([]float32{5, 5, 5})[1], 1e-9)
	assert.InDelta(t, 1, softmax([]float32{900, -900, 0})[0], 1e-9)
}

func TestEyes(t *testing.T) {
	var all [68]point
	all[36], all[39] = point{10, 20}, point{40, 20}
	for i := 36; i < 42; i++ {
		all[i].y = 20
	}
	l := from68(all)
	assert.InDelta(t, 30, l.eyes[0].width, 1e-9)
	assert.Equal(t, rect{1, 2, 48, 48}, eye{point{25, 26}, 30}.cut(1.6))
	assert.InDelta(t, 0.41*35.24, fromFive(aligned).eyes[1].width, 0.01)
	assert.Equal(t, rect{75, 75, 150, 150}, scaled(vision.Box{X: 100, Y: 100, W: 100, H: 100}, 1.5))
}
