package evaluate

import "slices"

// Presentations are the scores of what was shown to a liveness check, 0 to 1,
// higher for a live person, and how often it had nothing to say.
type Presentations struct {
	Scores []float64
	Silent int // no face found: the non-responses of ISO/IEC 30107-3
}

// Accepted is how many were taken for a live person at a threshold, of those
// that had an answer. For attacks of one species it is the APCER of ISO/IEC
// 30107-3 13.2.
func (p Presentations) Accepted(threshold float64) Rate {
	r := Rate{Of: len(p.Scores)}
	for _, s := range p.Scores {
		if s >= threshold {
			r.Errors++
		}
	}
	return r
}

// Rejected is how many were taken for an attack. For live people it is the
// BPCER.
func (p Presentations) Rejected(threshold float64) Rate {
	accepted := p.Accepted(threshold)
	return Rate{accepted.Of - accepted.Errors, accepted.Of}
}

// Silence is how many had no answer.
func (p Presentations) Silence() Rate { return Rate{p.Silent, p.Silent + len(p.Scores)} }

// AUC is how often a live person has a higher score than an attack; a tie
// counts half. Without both it is 0.5 and ok is false.
func AUC(live, attack []float64) (area float64, ok bool) {
	if len(live) == 0 || len(attack) == 0 {
		return 0.5, false
	}
	sorted := slices.Sorted(slices.Values(attack))
	for _, s := range live {
		below, _ := slices.BinarySearch(sorted, s)
		equal := below
		for equal < len(sorted) && sorted[equal] == s {
			equal++
		}
		area += float64(below) + float64(equal-below)/2
	}
	return area / float64(len(live)) / float64(len(attack)), true
}
