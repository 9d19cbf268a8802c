package vision

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
)

func goodFace() Face {
	return Face{
		Box:      Box{W: 150, H: 180},
		Measures: &Measures{Luminance: 130, Backlight: -20, Sharpness: 0.2, Yaw: 5, Pitch: -10, Roll: 3, EyesOpen: 0.9, Covered: 0.1},
	}
}

func standardQuality(t *testing.T) Quality {
	t.Helper()
	q, err := Quality{}.complete()
	require.NoError(t, err)
	return q
}

func TestEachMeasureHasItsAdvice(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(*Face)
		advice attendance.Advice
	}{
		"good":                 {func(*Face) {}, attendance.AdviceNone},
		"too far":              {func(f *Face) { f.Box.W = 60 }, attendance.AdviceCloser},
		"too near":             {func(f *Face) { f.Box.W = 500 }, attendance.AdviceFarther},
		"back light":           {func(f *Face) { f.Measures.Backlight = 120 }, attendance.AdviceBacklight},
		"too dark":             {func(f *Face) { f.Measures.Luminance = 20 }, attendance.AdviceBrighter},
		"too bright":           {func(f *Face) { f.Measures.Over = 0.5 }, attendance.AdviceDarker},
		"turned to the side":   {func(f *Face) { f.Measures.Yaw = -70 }, attendance.AdviceTurnTo},
		"looking down":         {func(f *Face) { f.Measures.Pitch = -70 }, attendance.AdviceTurnTo},
		"tilted over":          {func(f *Face) { f.Measures.Roll, f.Measures.EyesOpen = 40, 0 }, attendance.AdviceNone},
		"blurred":              {func(f *Face) { f.Measures.Sharpness = 0.005 }, attendance.AdviceStill},
		"eyes closed":          {func(f *Face) { f.Measures.EyesOpen = 0.1 }, attendance.AdviceEyes},
		"eyes not measured":    {func(f *Face) { f.Measures.EyesOpen = -1 }, attendance.AdviceNone},
		"covered":              {func(f *Face) { f.Measures.Covered = 0.95 }, attendance.AdviceUncover},
		"cover not measured":   {func(f *Face) { f.Measures.Covered = -1 }, attendance.AdviceNone},
		"nothing measured":     {func(f *Face) { f.Measures = nil }, attendance.AdviceNone},
		"dark, blurred, far":   {func(f *Face) { f.Box.W, f.Measures.Luminance, f.Measures.Sharpness = 60, 20, 0 }, attendance.AdviceCloser},
		"dark and blurred":     {func(f *Face) { f.Measures.Luminance, f.Measures.Sharpness = 20, 0 }, attendance.AdviceBrighter},
		"dark before a window": {func(f *Face) { f.Measures.Luminance, f.Measures.Backlight = 20, 150 }, attendance.AdviceBacklight},
	} {
		t.Run(name, func(t *testing.T) {
			f := goodFace()
			c.spoil(&f)
			g := gate{quality: standardQuality(t)}
			assert.Equal(t, c.advice, g.advise(f, 640))
		})
	}
	near := goodFace()
	near.Box.W = 500
	g := gate{quality: standardQuality(t)}
	assert.Equal(t, attendance.AdviceNone, g.advise(near, 0), "a picture of unknown size")
}

// TestAdviceDoesNotFlicker lets a measurement tremble about its limit, and
// something else go wrong meanwhile: the first advice stands until it is
// followed, and is withdrawn soon after it is.
func TestAdviceDoesNotFlicker(t *testing.T) {
	g := gate{quality: standardQuality(t)}
	limit := g.quality.LeastLuminance
	look := func(luminance, sharpness float64) attendance.Advice {
		f := goodFace()
		f.Measures.Luminance, f.Measures.Sharpness = luminance, sharpness
		return g.advise(f, 640)
	}
	soon := func(wanted attendance.Advice, luminance, sharpness float64) {
		t.Helper()
		for range 12 { // under a second
			if look(luminance, sharpness) == wanted {
				return
			}
		}
		assert.Fail(t, "advice does not change", wanted)
	}
	assert.Equal(t, attendance.AdviceNone, look(limit*1.05, 0.2), "not yet bad enough")
	soon(attendance.AdviceBrighter, limit*0.9, 0.2)
	for i := range 50 {
		assert.Equal(t, attendance.AdviceBrighter, look(limit*(0.94+0.14*float64(i%2)), 0.2))
	}
	soon(attendance.AdviceNone, limit*1.5, 0.2)

	soon(attendance.AdviceStill, limit*1.5, 0)
	for range 50 {
		assert.Equal(t, attendance.AdviceStill, look(limit*0.5, 0), "one thing at a time")
	}
	soon(attendance.AdviceBrighter, limit*0.5, 0.2)

	wild := gate{quality: standardQuality(t)}
	for i := range 50 { // one frame in five says that the eyes are closed
		f := goodFace()
		if i%5 == 4 {
			f.Measures.EyesOpen = 0
		}
		assert.Equal(t, attendance.AdviceNone, wild.advise(f, 640))
	}
}

func TestLimitsAreChecked(t *testing.T) {
	whole := standardQuality(t)
	for _, l := range whole.limits() {
		assert.NotZero(t, *l.value, l.key)
		for _, wrong := range []float64{l.lowest - 1, l.highest + 1} {
			q := standardQuality(t)
			for _, other := range q.limits() {
				if other.key == l.key {
					*other.value = wrong
				}
			}
			if wrong == 0 {
				continue // its default
			}
			_, err := q.complete()
			assert.ErrorContains(t, err, "quality."+l.key)
		}
	}
}
