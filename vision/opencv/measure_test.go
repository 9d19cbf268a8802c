package opencv

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"

	"rollcall/vision"
)

// project shows a face of the aligned positions as a distant camera sees it:
// turned by yaw, or by pitch, then by roll, at twice the size.
func project(yaw, pitch, roll float64) (p [5]point) {
	radians := math.Pi / 180
	sinY, cosY := math.Sincos(yaw * radians)
	sinP, cosP := math.Sincos(pitch * radians)
	sinR, cosR := math.Sincos(roll * radians)
	for i, a := range aligned {
		z := 0.0
		if i == 2 {
			z = noseHeight
		}
		x, y := a.x-56, a.y-72
		x, z = cosY*x+sinY*z, cosY*z-sinY*x
		y = cosP*y - sinP*z
		p[i] = point{200 + 2*(cosR*x-sinR*y), 100 + 2*(sinR*x+cosR*y)}
	}
	return p
}

func TestPoseOfATurnedFace(t *testing.T) {
	for name, want := range map[string][3]float64{
		"straight": {0, 0, 0},
		"right":    {30, 0, 0},
		"left":     {-20, 0, 0},
		"up":       {0, 15, 0},
		"down":     {0, -25, 0},
		"tilted":   {0, 0, 12},
		"two ways": {20, 0, -10},
	} {
		t.Run(name, func(t *testing.T) {
			yaw, pitch, roll := poseOf(project(want[0], want[1], want[2]))
			// The aligned positions are not quite level, so a turned line of the
			// eyes is a little off; a degree does not matter here.
			assert.InDelta(t, want[0], yaw, 1)
			assert.InDelta(t, want[1], pitch, 1)
			assert.InDelta(t, want[2], roll, 1)
		})
	}
}

// filled makes a square crop pixel by pixel.
func filled(side int, at func(x, y int) (b, g, r byte)) raster {
	pixels := make([]byte, 0, 3*side*side)
	for y := range side {
		for x := range side {
			b, g, r := at(x, y)
			pixels = append(pixels, b, g, r)
		}
	}
	return raster{pixels, side, side}
}

func TestLightOfAFace(t *testing.T) {
	flat := lightOf(filled(112, func(x, y int) (b, g, r byte) { return 120, 120, 120 }))
	assert.Equal(t, luminance{mean: 120}, flat)
	dark := lightOf(filled(112, func(x, y int) (b, g, r byte) { return 10, 10, 10 }))
	assert.Equal(t, 1.0, dark.under)
	half := lightOf(filled(112, func(x, y int) (b, g, r byte) {
		if x < 56 {
			return 250, 250, 250
		}
		return 100, 100, 100
	}))
	assert.InDelta(t, 0.5, half.over, 0.02)
	assert.InDelta(t, 175, half.mean, 3)
	fine := lightOf(filled(112, func(x, y int) (b, g, r byte) { v := byte(100 + 50*((x+y)%2)); return v, v, v }))
	coarse := lightOf(filled(112, func(x, y int) (b, g, r byte) { v := byte(100 + 50*((x/8+y/8)%2)); return v, v, v }))
	assert.Greater(t, fine.sharpness, 5*coarse.sharpness)
	faint := lightOf(filled(112, func(x, y int) (b, g, r byte) { v := byte(100 + 10*((x/8+y/8)%2)); return v, v, v }))
	assert.InEpsilon(t, coarse.sharpness, faint.sharpness, 0.01, "contrast alone is no sharpness")
}

func TestCoveredIsOfAnotherColour(t *testing.T) {
	skin := func(x, y int) (b, g, r byte) { return 110, 140, 190 }
	assert.Zero(t, coveredShare(filled(112, skin)))
	mask := func(x, y int) (b, g, r byte) {
		if y >= 76 {
			return 210, 190, 150
		}
		return skin(x, y)
	}
	assert.Equal(t, 1.0, coveredShare(filled(112, mask)))
	shadow := func(x, y int) (b, g, r byte) {
		if y >= 76 {
			return 55, 70, 95
		}
		return skin(x, y)
	}
	assert.Zero(t, coveredShare(filled(112, shadow)), "the same colour with less light")
	for name, c := range map[string][3]byte{"black": {20, 20, 20}, "white": {250, 250, 250}} {
		assert.Equal(t, 1.0, coveredShare(filled(112, func(x, y int) (b, g, r byte) {
			if y >= 76 {
				return c[0], c[1], c[2]
			}
			return skin(x, y)
		})), name)
	}
	grey := func(x, y int) (b, g, r byte) { return 120, 120, 120 }
	assert.Equal(t, -1.0, coveredShare(filled(112, grey)))
}

func TestLumaAroundAFace(t *testing.T) {
	frame := filled(200, func(x, y int) (b, g, r byte) {
		if x >= 75 && x < 125 && y >= 75 && y < 125 {
			return 50, 50, 50
		}
		return 220, 220, 220
	})
	got, ok := lumaAround(frame, vision.Box{X: 75, Y: 75, W: 50, H: 50})
	assert.True(t, ok)
	assert.InDelta(t, 220, got, 0.01)
	_, ok = lumaAround(frame, vision.Box{X: 0, Y: 0, W: 900, H: 900})
	assert.False(t, ok, "the face fills the picture")
}
