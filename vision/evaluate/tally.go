package evaluate

import "math"

// bins is how finely a [Tally] holds scores: a threshold is a multiple of
// 2/bins, which no figure of this package shows.
const bins = 1 << 18

// Tally counts the scores of mated comparisons (one person) and non-mated ones
// (two people), so millions of comparisons take 4 MB. At a threshold that it
// gives itself its counts are exact.
type Tally struct {
	mated, nonMated   []int
	nMated, nNonMated int
}

// NewTally gives an empty tally.
func NewTally() *Tally { return &Tally{mated: make([]int, bins), nonMated: make([]int, bins)} }

// Add counts one comparison.
func (t *Tally) Add(mated bool, score float64) {
	if mated {
		t.mated[bin(score)]++
		t.nMated++
		return
	}
	t.nonMated[bin(score)]++
	t.nNonMated++
}

// merge counts what other counted.
func (t *Tally) merge(other *Tally) {
	for i := range t.mated {
		t.mated[i] += other.mated[i]
		t.nonMated[i] += other.nonMated[i]
	}
	t.nMated += other.nMated
	t.nNonMated += other.nNonMated
}

func bin(score float64) int { return max(0, min(bins-1, int((score+1)*(bins/2)))) }

// edge is the least score in a bin.
func edge(bin int) float64 { return float64(bin)/(bins/2) - 1 }

// Mated is how many comparisons of one person there were.
func (t *Tally) Mated() int { return t.nMated }

// NonMated is how many comparisons of two people there were.
func (t *Tally) NonMated() int { return t.nNonMated }

// FMR is the false match rate at a threshold.
func (t *Tally) FMR(threshold float64) Rate {
	return Rate{sum(t.nonMated[first(threshold):]), t.nNonMated}
}

// FNMR is the false non-match rate at a threshold; a picture without a face
// counts.
func (t *Tally) FNMR(threshold float64) Rate {
	return Rate{sum(t.mated[:first(threshold)]), t.nMated}
}

// first is the lowest bin that reaches the threshold.
func first(threshold float64) int {
	return max(0, min(bins, int(math.Ceil((threshold+1)*(bins/2)))))
}

func sum(counts []int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// Threshold is the lowest one with a false match rate of at most target.
// False means that there are too few comparisons to show such a rate.
func (t *Tally) Threshold(target float64) (threshold float64, ok bool) {
	if !Supports(t.nNonMated, target) {
		return 0, false
	}
	allowed := int(target * float64(t.nNonMated) * (1 + 1e-12)) // 1e-3 of 3,000 is 3
	i := bins
	for above := 0; i > 0 && above+t.nonMated[i-1] <= allowed; i-- {
		above += t.nonMated[i-1]
	}
	return edge(i), true
}

// EER is the rate at which as many mated comparisons fail as non-mated ones
// match, between two thresholds by a straight line, as the fraction of the
// smaller of the two counts. Without comparisons of both kinds it is NaN.
func (t *Tally) EER() float64 {
	if t.nMated == 0 || t.nNonMated == 0 {
		return math.NaN()
	}
	fmr, fnmr := 1.0, 0.0
	below, above := 0, t.nNonMated
	for i := range bins {
		below += t.mated[i]
		above -= t.nonMated[i]
		nextFMR, nextFNMR := float64(above)/float64(t.nNonMated), float64(below)/float64(t.nMated)
		if nextFNMR >= nextFMR {
			// fmr-fnmr falls from positive to negative on the way.
			gap, nextGap := fmr-fnmr, nextFMR-nextFNMR
			if gap == nextGap {
				return (nextFMR + nextFNMR) / 2
			}
			return fmr + gap/(gap-nextGap)*(nextFMR-fmr)
		}
		fmr, fnmr = nextFMR, nextFNMR
	}
	return fmr
}

// BoundedEER is the equal error rate as it may be printed: see [Rate.Bounded].
func (t *Tally) BoundedEER() (value float64, isBound bool) {
	n := min(t.nMated, t.nNonMated)
	if n == 0 {
		return 1, true
	}
	eer := t.EER()
	if errors := int(eer * float64(n)); errors < 3 {
		limit, _ := Rate{errors, n}.Bounded()
		return limit, true
	}
	return eer, false
}

// Bar is a part of a histogram: the shares of the mated and the non-mated
// scores that lie from From up to the next bar.
type Bar struct{ From, Mated, NonMated float64 }

// Histogram parts -1 to 1 into n bars of one width.
func (t *Tally) Histogram(n int) []Bar {
	bars := make([]Bar, n)
	for i := range bars {
		low, high := i*bins/n, (i+1)*bins/n
		bars[i] = Bar{
			From:     edge(low),
			Mated:    Rate{sum(t.mated[low:high]), t.nMated}.Share(),
			NonMated: Rate{sum(t.nonMated[low:high]), t.nNonMated}.Share(),
		}
	}
	return bars
}

// Point is one threshold of a detection error trade-off.
type Point struct{ Threshold, FMR, FNMR float64 }

// DET is the trade-off wherever it changes, from the lowest threshold up, but
// only rates that the counts support: 3/n and more.
func (t *Tally) DET() []Point {
	var points []Point
	below, above := 0, t.nNonMated
	for i := range bins {
		if t.mated[i] == 0 && t.nonMated[i] == 0 {
			continue
		}
		below += t.mated[i]
		above -= t.nonMated[i]
		if below >= 3 && above >= 3 {
			points = append(points, Point{edge(i + 1), float64(above) / float64(t.nNonMated), float64(below) / float64(t.nMated)})
		}
	}
	return points
}
