package evaluate

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Where a chart's plot stands, in SVG units.
const (
	chartWidth, chartHeight        = 720, 480
	plotLeft, plotTop              = 80, 50
	plotWidth, plotHeight          = 600, 360
	matedColour, nonMatedColour    = "#1a7f37", "#b3261e"
	lineColour, gridColour, ground = "#0b57d0", "#dddddd", "#ffffff"
)

// chart collects the pieces of an SVG picture. Its plot's coordinates are 0..1
// from the lower left corner.
type chart struct{ strings.Builder }

func newChart(title, x, y string) *chart {
	c := &chart{}
	c.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, chartWidth, chartHeight)
	c.add(`<rect width="%d" height="%d" fill="%s"/>`, chartWidth, chartHeight, ground)
	c.add(`<text x="%d" y="28" font-size="15">%s</text>`, plotLeft, html.EscapeString(title))
	c.add(`<text x="%d" y="%d" text-anchor="middle">%s</text>`, plotLeft+plotWidth/2, chartHeight-16, html.EscapeString(x))
	c.add(`<text transform="translate(20 %d) rotate(-90)" text-anchor="middle">%s</text>`, plotTop+plotHeight/2, html.EscapeString(y))
	return c
}

func (c *chart) add(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }

func (c *chart) x(at float64) float64 { return plotLeft + at*plotWidth }
func (c *chart) y(at float64) float64 { return plotTop + (1-at)*plotHeight }

func (c *chart) gridX(at float64, label string) {
	c.add(`<path d="M%.1f %d v%d" stroke="%s"/>`, c.x(at), plotTop, plotHeight, gridColour)
	c.add(`<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, c.x(at), plotTop+plotHeight+18, label)
}

func (c *chart) gridY(at float64, label string) {
	c.add(`<path d="M%d %.1f h%d" stroke="%s"/>`, plotLeft, c.y(at), plotWidth, gridColour)
	c.add(`<text x="%d" y="%.1f" text-anchor="end">%s</text>`, plotLeft-6, c.y(at)+4, label)
}

func (c *chart) line(points [][2]float64, colour string) {
	var d strings.Builder
	for i, p := range points {
		fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(i, 1)], c.x(p[0]), c.y(p[1]))
	}
	c.add(`<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`, d.String(), colour)
}

func (c *chart) end() string {
	c.add(`<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#444444"/>`, plotLeft, plotTop, plotWidth, plotHeight)
	c.add(`</svg>`)
	return c.String()
}

// The lowest and highest rate that a DET chart shows.
const lowestDrawn, highestDrawn = 1e-5, 0.5

// DETChart draws the detection error trade-off as SVG, on normal deviate axes
// (ISO/IEC 19795-1). Rates that the counts do not support are not drawn.
func DETChart(t *Tally) string {
	c := newChart(fmt.Sprintf("DET, %d mated and %d non-mated comparisons", t.Mated(), t.NonMated()),
		"FMR, false match rate 误匹配率", "FNMR, false non-match rate 误不匹配率")
	low, high := deviate(lowestDrawn), deviate(highestDrawn)
	place := func(rate float64) float64 {
		return (deviate(max(lowestDrawn, min(highestDrawn, rate))) - low) / (high - low)
	}
	for _, rate := range []float64{1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.2, 0.5} {
		label := fmt.Sprintf("%g %%", 100*rate)
		c.gridX(place(rate), label)
		c.gridY(place(rate), label)
	}
	var points [][2]float64
	for _, p := range t.DET() {
		next := [2]float64{place(p.FMR), place(p.FNMR)}
		if n := len(points); n == 0 || math.Hypot(next[0]-points[n-1][0], next[1]-points[n-1][1]) > 1e-3 {
			points = append(points, next)
		}
	}
	c.line(points, lineColour)
	return c.end()
}

// deviate is the inverse of the normal distribution.
func deviate(p float64) float64 { return -math.Sqrt2 * math.Erfcinv(2*p) }

const bars = 100

// HistogramChart draws how the scores of both kinds lie, and a threshold.
func HistogramChart(t *Tally, threshold float64) string {
	c := newChart(fmt.Sprintf("Scores of %d mated and %d non-mated comparisons; threshold %.3f", t.Mated(), t.NonMated(), threshold),
		"score (cosine) 相似度", "share 比例")
	histogram := t.Histogram(bars)
	top := 1e-9
	for _, b := range histogram {
		top = max(top, b.Mated, b.NonMated)
	}
	for i := range 9 {
		score := -1 + 0.25*float64(i)
		c.gridX((score+1)/2, fmt.Sprintf("%g", score))
	}
	for i := range 5 {
		c.gridY(float64(i)/4, fmt.Sprintf("%.1f %%", 25*top*float64(i)))
	}
	var mated, nonMated [][2]float64
	for i, b := range histogram {
		for _, at := range []float64{float64(i) / bars, float64(i+1) / bars} {
			mated = append(mated, [2]float64{at, b.Mated / top})
			nonMated = append(nonMated, [2]float64{at, b.NonMated / top})
		}
	}
	c.line(nonMated, nonMatedColour)
	c.line(mated, matedColour)
	at := c.x((threshold + 1) / 2)
	c.add(`<path d="M%.1f %d v%d" stroke="#444444" stroke-dasharray="4"/>`, at, plotTop, plotHeight)
	c.add(`<text x="%d" y="%d" fill="%s">mated 同一人</text>`, plotLeft+12, plotTop+20, matedColour)
	c.add(`<text x="%d" y="%d" fill="%s">non-mated 不同人</text>`, plotLeft+12, plotTop+38, nonMatedColour)
	return c.end()
}
