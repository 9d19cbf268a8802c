package vision

import (
	"fmt"
	"math"

	"rollcall/attendance"
)

// Quality says from which measurement on the person before the camera is asked
// to change something. A limit of 0 means its default; page 14
// of docs/decisions says on which pictures the defaults were set.
type Quality struct {
	// LeastWidth is the width of a face in pixels under which its owner is asked
	// closer, 48 to 400. Default 80. Under 48 pixels a face is not compared at all.
	LeastWidth float64 `toml:"least_width"`
	// MostWidth is the share of the picture's width above which a face is too
	// near, 0.1 to 1. Default 0.6.
	MostWidth float64 `toml:"most_width"`
	// LeastLuminance is the mean luma of a face (0 to 255) under which it is too
	// dark. Default 45.
	LeastLuminance float64 `toml:"least_luminance"`
	// MostOver is the share of a face's pixels without shades, blown out to
	// white, above which it is too bright, 0 to 1. Default 0.3.
	MostOver float64 `toml:"most_over"`
	// MostBacklight is how much lighter than the face (mean luma, 0 to 255) its
	// surroundings may be. Default 110.
	MostBacklight float64 `toml:"most_backlight"`
	// MostTurn is how many degrees a face may be turned to a side, up or down, 5
	// to 90. Default 40; what five points say of a turn is rough.
	MostTurn float64 `toml:"most_turn"`
	// LeastSharpness is the variance of the Laplacian over the variance of the
	// luma under which a face is blurred. Default 0.04.
	LeastSharpness float64 `toml:"least_sharpness"`
	// LeastEyesOpen is how sure the net for eyes must be that they are open, 0 to
	// 1. Default 0.2. Of no effect with a model set without that net.
	LeastEyesOpen float64 `toml:"least_eyes_open"`
	// MostCovered is the share of mouth and chin that may have another colour
	// than the rest of the face, 0 to 1. Default 0.9: beards and shadows reach 0.8.
	MostCovered float64 `toml:"most_covered"`
}

// limits lists every limit with its default and what it may be.
func (q *Quality) limits() []limit {
	return []limit{
		{"least_width", &q.LeastWidth, 80, smallestFace, 400},
		{"most_width", &q.MostWidth, 0.6, 0.1, 1},
		{"least_luminance", &q.LeastLuminance, 45, 1, 255},
		{"most_over", &q.MostOver, 0.3, 0.01, 1},
		{"most_backlight", &q.MostBacklight, 110, 1, 255},
		{"most_turn", &q.MostTurn, 40, 5, 90},
		{"least_sharpness", &q.LeastSharpness, 0.04, 1e-6, 100},
		{"least_eyes_open", &q.LeastEyesOpen, 0.2, 0.01, 1},
		{"most_covered", &q.MostCovered, 0.9, 0.01, 1},
	}
}

type limit struct {
	key             string
	value           *float64
	standard        float64
	lowest, highest float64
}

// complete fills in defaults and refuses what cannot be meant.
func (q Quality) complete() (Quality, error) {
	for _, l := range q.limits() {
		if *l.value == 0 {
			*l.value = l.standard
		}
		if !(*l.value >= l.lowest && *l.value <= l.highest) {
			return q, fmt.Errorf("vision: quality.%s = %g: must lie between %g and %g", l.key, *l.value, l.lowest, l.highest)
		}
	}
	return q, nil
}

// A measurement that trembles must not change the screen's mind with every
// frame: each is smoothed over some frames, and must be better than its limit
// by a share of firmness before its advice is withdrawn.
const (
	firmness  = 0.1
	freshness = 0.3 // weight of the newest frame
)

// gate turns measurements into one advice at a time. One that was given stands
// until it is followed, whatever else there is to say. The zero value has given
// none; a gate is for one person.
type gate struct {
	quality Quality
	given   attendance.Advice
	smooth  map[attendance.Advice]float64
}

// finding is how far a measurement lies beyond its limit, as a share of the
// limit; 0 and less is good.
type finding struct {
	advice attendance.Advice
	beyond float64
}

// advise judges a face in a picture of so many pixels' width; 0 if not known.
func (g *gate) advise(f Face, width int) attendance.Advice {
	found := g.quality.findings(f, width)
	g.settle(found)
	for _, x := range found {
		if x.advice == g.given && x.beyond > -firmness {
			return g.given
		}
	}
	g.given = attendance.AdviceNone
	for _, x := range found {
		if x.beyond > 0 {
			g.given = x.advice
			break
		}
	}
	return g.given
}

// settle smooths what was found. The first frame counts as it is.
func (g *gate) settle(found []finding) {
	if g.smooth == nil {
		g.smooth = map[attendance.Advice]float64{}
	}
	for i, x := range found {
		now := min(1, max(-1, x.beyond)) // so that one wild frame weighs no more than any
		if before, ok := g.smooth[x.advice]; ok {
			now = before + freshness*(now-before)
		}
		g.smooth[x.advice], found[i].beyond = now, now
	}
}

// findings lists what was measured, the first thing to change first: light
// before what only good light can show.
func (q Quality) findings(f Face, width int) []finding {
	out := []finding{{attendance.AdviceCloser, under(f.Box.W, q.LeastWidth)}}
	if width > 0 {
		out = append(out, finding{attendance.AdviceFarther, over(f.Box.W/float64(width), q.MostWidth)})
	}
	m := f.Measures
	if m == nil {
		return out
	}
	turn := max(math.Abs(m.Yaw), math.Abs(m.Pitch)) // one tilted over is set upright before it is compared
	out = append(out,
		finding{attendance.AdviceBacklight, over(m.Backlight, q.MostBacklight)},
		finding{attendance.AdviceBrighter, under(m.Luminance, q.LeastLuminance)},
		finding{attendance.AdviceDarker, over(m.Over, q.MostOver)},
		finding{attendance.AdviceTurnTo, over(turn, q.MostTurn)},
		finding{attendance.AdviceStill, under(m.Sharpness, q.LeastSharpness)})
	if m.EyesOpen >= 0 && math.Abs(m.Roll) <= mostRollOfEyes {
		out = append(out, finding{attendance.AdviceEyes, under(m.EyesOpen, q.LeastEyesOpen)})
	}
	if m.Covered >= 0 {
		out = append(out, finding{attendance.AdviceUncover, over(m.Covered, q.MostCovered)})
	}
	return out
}

// mostRollOfEyes is how far over a face may be tilted, in degrees, for its eyes
// to be judged: of open eyes that are tilted more the net says that they are
// closed.
const mostRollOfEyes = 10

func under(value, limit float64) float64 { return (limit - value) / limit }
func over(value, limit float64) float64  { return (value - limit) / limit }
