package evaluate

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSearches(t *testing.T) {
	random := rand.New(rand.NewPCG(14, 0))
	samples := append(draw(random, 50, 2, 0.2), draw(random, 10, 1, 0.2)[5:]...) // the last five are of others, once
	for i := range samples[100:] {
		samples[100+i].Person = "x" + samples[100+i].Person
	}
	searches := Searches(samples, 20)
	assert.Equal(t, 105, FPIR(searches, 0.5, 0).Of, "every picture once among others")
	assert.Equal(t, 100, FNIR(searches, 0.5, 0).Of, "and once with its person, if there is another picture")
	assert.Zero(t, FNIR(searches, 0.6, 0.05).Errors)
	assert.Equal(t, 100, FNIR(searches, 0.6, 1.5).Errors, "nobody leads by so much")
	assert.Equal(t, searches, Searches(samples, 20))

	samples[0].Embedding = nil
	searches = Searches(samples, 20)
	assert.GreaterOrEqual(t, FNIR(searches, -1, 0).Errors, 1, "no face, no name, at any threshold")
	assert.Nil(t, Searches(samples, 55), "55 people are no 55 others")

	// Against a count by definition.
	for _, target := range []float64{0.05, 0.2, 0.5} {
		threshold, ok := SearchThreshold(searches, target, 0.02)
		require.True(t, ok)
		assert.LessOrEqual(t, FPIR(searches, threshold, 0.02).Share(), target)
		assert.Greater(t, FPIR(searches, threshold-3.0/bins, 0.02).Share(), target, "the lowest such threshold")
	}
	_, ok := SearchThreshold(searches, 0.01, 0)
	assert.False(t, ok, "105 searches show no 1 %")
}

func TestSeeKeepsTheTwoHighest(t *testing.T) {
	s := Search{First: -1, Second: -1}
	s.see(0.3, true)
	s.see(0.1, false)
	assert.Equal(t, Search{Right: true, First: 0.3, Second: 0.1}, s)
	s.see(0.3, false)
	assert.Equal(t, Search{Right: true, First: 0.3, Second: 0.3}, s)
	s.see(0.5, false)
	assert.Equal(t, Search{First: 0.5, Second: 0.3}, s)
}

// TestIntervalsAt: never narrower than the counts, and by people where those
// hang together.
func TestIntervalsAt(t *testing.T) {
	random := rand.New(rand.NewPCG(15, 0))
	m := compare(t, draw(random, 60, 4, 1.5))
	threshold, ok := m.Threshold(1e-3)
	require.True(t, ok)
	fmr, fnmr := m.IntervalsAt(threshold)
	for name, c := range map[string]struct {
		got  Interval
		rate Rate
	}{"FMR": {fmr, m.FMR(threshold)}, "FNMR": {fnmr, m.FNMR(threshold)}} {
		counted := c.rate.Interval()
		assert.LessOrEqual(t, c.got.Low, counted.Low, name)
		assert.GreaterOrEqual(t, c.got.High, counted.High, name)
	}
	naive := m.FNMR(threshold).Interval()
	assert.Greater(t, fnmr.High-fnmr.Low, naive.High-naive.Low, "the four pictures of a person hang together")

	fmr, _ = m.IntervalsAt(0.9999)
	assert.Equal(t, 0.0, fmr.Low)
	assert.GreaterOrEqual(t, fmr.High, 3/float64(m.NonMated()))
}
