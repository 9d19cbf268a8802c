package vision_test

import (
	"image"
	"image/color"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"

	"rollcall/attendance"
	"rollcall/simulator"
)

// repaint gives a frame whose pixels are what of gives.
func repaint(of func(x, y int) color.Color) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, 640, 480))
	for y := range 480 {
		for x := range 640 {
			m.Set(x, y, of(x, y))
		}
	}
	return m
}

// TestWhatIsWrongIsTold shows people of the registry's pictures to the real
// worker, spoilt in one way at a time: each way has its own advice, and the
// picture as it is has none.
func TestWhatIsWrongIsTold(t *testing.T) {
	b := newBooth(t)
	enrolment := b.enrol(t, "t1", b.people[0])
	p := b.people[0]
	as := func(v simulator.Variation) image.Image { return p.Frame(v) }
	whole := as(simulator.Variation{})
	turning := b.people[9].Frame(simulator.Variation{}) // half turned as it is
	empty := (*simulator.Person)(nil).Frame(simulator.Variation{})
	other := b.people[1].Frame(simulator.Variation{X: 150})
	left := as(simulator.Variation{X: -150})
	dim := as(simulator.Variation{Light: 0.45})
	nobody := (*simulator.Person)(nil).Frame(simulator.Variation{Light: 0.45})

	for _, c := range []struct {
		name    string
		picture image.Image
		advice  attendance.Advice
	}{
		{"nobody", empty, attendance.AdviceNoFace},
		{"as it is", whole, attendance.AdviceNone},
		{"too far", as(simulator.Variation{Size: 62}), attendance.AdviceCloser},
		{"much too far", as(simulator.Variation{Size: 38}), attendance.AdviceCloser},
		{"too near", as(simulator.Variation{Size: 420}), attendance.AdviceFarther},
		{"too dark", as(simulator.Variation{Light: 0.2}), attendance.AdviceBrighter},
		{"too bright", as(simulator.Variation{Light: 2.6}), attendance.AdviceDarker},
		{"blurred", as(simulator.Variation{Blur: 6}), attendance.AdviceStill},
		{"turned to the side", repaint(func(x, y int) color.Color { // the nose moves, the eyes stay
			u, v := float64(x-320), float64(y-240)
			return turning.At(x-int(45*math.Exp(-(u*u+v*v)/(2*40*40))), y)
		}), attendance.AdviceTurnTo},
		{"two people", repaint(func(x, y int) color.Color {
			if x < 320 {
				return left.At(x, y)
			}
			return other.At(x, y)
		}), attendance.AdviceOne},
		{"before a window", repaint(func(x, y int) color.Color {
			if dim.At(x, y) == nobody.At(x, y) {
				return color.White
			}
			return dim.At(x, y)
		}), attendance.AdviceBacklight},
		{"in a mask", repaint(func(x, y int) color.Color {
			if x > 250 && x < 390 && y > 255 && y < 340 {
				return color.RGBA{90, 140, 200, 255}
			}
			return whole.At(x, y)
		}), attendance.AdviceUncover},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.camera.ShowPicture(c.picture)
			looks := b.checker.Verify(t.Context(), "t1", enrolment)
			defer b.checker.Close()
			l := until(t, looks, "advice "+string(c.advice), func(l attendance.Look) bool {
				if l.Advice != c.advice {
					t.Logf("advice %q", l.Advice)
				}
				return l.Advice == c.advice
			})
			if c.advice == attendance.AdviceNone {
				assert.True(t, matched(l))
			}
		})
	}
	for i := range b.people {
		b.camera.Show(b.people[i], simulator.AtEnrolment)
		looks := b.checker.Verify(t.Context(), "t1", enrolment)
		l := until(t, looks, "a look", func(l attendance.Look) bool { return l.Match != nil })
		assert.Equal(t, attendance.AdviceNone, l.Advice, "person %d as they are", i)
		b.checker.Close()
	}
}
