package evaluate

import (
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

// resampledThreshold is the lowest score that keeps the weighted false match
// rate at far or below.
func (m *Matrix) resampledThreshold(weights []int, far float64) (float32, bool) {
	total, squares := 0, 0
	for p, w := range weights {
		total += w * m.pictures[p]
		squares += w * w * m.pictures[p] * m.pictures[p]
	}
	// All pairs of pictures, less those of one person and its copies.
	allowed := int(far * float64((total*total-squares)/2))
	above := 0
	for i, e := range m.near {
		if above += weights[e.a] * weights[e.b]; above > allowed {
			if i == 0 {
				return 2, true
			}
			return m.near[i-1].score, true
		}
	}
	return 0, len(m.near) == m.nNonMated
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
