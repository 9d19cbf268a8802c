package evaluate

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
)

const rounds = 500 // of resampling

// Acceptance is how many of the mated comparisons match where so few of the
// non-mated do: TAR at FAR, 1-FNMR at FMR.
type Acceptance struct {
	Threshold float64
	FNMR, FMR Rate      // at Threshold
	TAR       float64   // 1-FNMR as counted
	Interval  *Interval // of TAR, by people; nil if it cannot be had
}

// AcceptAt gives TAR at a FAR. False means that there are too few non-mated
// comparisons to show such a FAR, or no mated ones.
func (t *Tally) AcceptAt(far float64) (Acceptance, bool) {
	threshold, ok := t.Threshold(far)
	if !ok || t.nMated == 0 {
		return Acceptance{}, false
	}
	a := Acceptance{Threshold: threshold, FNMR: t.FNMR(threshold), FMR: t.FMR(threshold)}
	a.TAR = 1 - a.FNMR.Share()
	return a, true
}

// AcceptAt adds the interval to [Tally.AcceptAt]. The comparisons of one person
// hang together, so people are drawn anew with replacement (a bootstrap by
// subject, ISO/IEC 19795-1 annex B), threshold and rate are found anew in each
// round, and the middle 95 % of the rounds are the interval. Copies of one
// person are never compared with each other.
func (m *Matrix) AcceptAt(far float64) (Acceptance, bool) {
	a, ok := m.Tally.AcceptAt(far)
	if !ok {
		return a, false
	}
	random := rand.New(rand.NewPCG(seedPeople, 0))
	weights := make([]int, len(m.pictures))
	var tars []float64
	for range rounds {
		clear(weights)
		for range weights {
			weights[random.IntN(len(weights))]++
		}
		threshold, ok := m.resampledThreshold(weights, far)
		if !ok {
			return a, true // a rate beyond what was kept by person
		}
		if tar, ok := m.resampledTAR(weights, threshold); ok {
			tars = append(tars, tar)
		}
	}
	if len(tars) < rounds*9/10 {
		return a, true // too few people with two pictures
	}
	slices.Sort(tars)
	a.Interval = &Interval{tars[len(tars)/40], tars[len(tars)-1-len(tars)/40]}
	return a, true
}

// resampledThreshold is the lowest one that keeps the weighted false match
// rate at far or below.
func (m *Matrix) resampledThreshold(weights []int, far float64) (float32, bool) {
	allowed := int(far * float64(m.resampledNonMated(weights)))
	above := 0
	for _, e := range m.near {
		if above += weights[e.a] * weights[e.b]; above > allowed {
			return math.Nextafter32(e.score, 2), true
		}
	}
	return 0, len(m.near) == m.nNonMated
}

// resampledNonMated is how many pairs of pictures are of two people: all, less
// those of one person and its copies.
func (m *Matrix) resampledNonMated(weights []int) int {
	total, squares := 0, 0
	for p, w := range weights {
		total += w * m.pictures[p]
		squares += w * w * m.pictures[p] * m.pictures[p]
	}
	return (total*total - squares) / 2
}

func (m *Matrix) resampledTAR(weights []int, threshold float32) (float64, bool) {
	matched, all := 0, 0
	for p, scores := range m.mated {
		below := sort.Search(len(scores), func(i int) bool { return scores[i] >= threshold })
		matched += weights[p] * (len(scores) - below)
		all += weights[p] * len(scores)
	}
	return float64(matched) / float64(max(1, all)), all > 0
}

// IntervalsAt gives the 95 % intervals of FMR and FNMR at a threshold: by
// people, as [Matrix.AcceptAt] does, or of the counts as if no two comparisons
// hung together, whichever reaches farther. The upper ends are 3/n or more. Where
// more non-mated scores reach the threshold than were kept by person, the
// interval of FMR is that of the counts.
func (m *Matrix) IntervalsAt(threshold float64) (fmr, fnmr Interval) {
	random := rand.New(rand.NewPCG(seedPeople, 0))
	weights := make([]int, len(m.pictures))
	least := float32(threshold)
	reach := sort.Search(len(m.near), func(i int) bool { return m.near[i].score < least })
	var matches, misses []float64
	for range rounds {
		clear(weights)
		for range weights {
			weights[random.IntN(len(weights))]++
		}
		above := 0
		for _, e := range m.near[:reach] {
			above += weights[e.a] * weights[e.b]
		}
		if n := m.resampledNonMated(weights); n > 0 && (reach < len(m.near) || len(m.near) == m.nNonMated) {
			matches = append(matches, float64(above)/float64(n))
		}
		if tar, ok := m.resampledTAR(weights, least); ok {
			misses = append(misses, 1-tar)
		}
	}
	return m.FMR(threshold).Interval().widened(matches).atLeast(m.nNonMated),
		m.FNMR(threshold).Interval().widened(misses).atLeast(m.nMated)
}

// widened is the interval that holds i and the middle 95 % of x.
func (i Interval) widened(x []float64) Interval {
	if len(x) < rounds*9/10 {
		return i
	}
	slices.Sort(x)
	return Interval{min(i.Low, x[len(x)/40]), max(i.High, x[len(x)-1-len(x)/40])}
}

// atLeast lets the upper end not lie under what n trials can show.
func (i Interval) atLeast(n int) Interval {
	i.High = max(i.High, min(1, 3/float64(max(1, n))))
	return i
}
