package evaluate

import (
	"cmp"
	"math"
	"slices"
)

// Trial is a compared pair.
type Trial struct {
	Fold  int
	Same  bool
	Score float64
}

// Folds is what a protocol of folds says: each fold is judged at the threshold
// that is best on all others (LFW view 2).
type Folds struct {
	Accuracy  float64   // mean of the folds
	Deviation float64   // standard deviation of the folds' accuracies (n-1); NaN for one fold
	Threshold float64   // mean of the folds' thresholds
	Each      []float64 // accuracy of every fold
}

// JudgeFolds judges every fold by the others. It needs two folds or more;
// otherwise ok is false.
func JudgeFolds(trials []Trial) (f Folds, ok bool) {
	var numbers []int
	for _, t := range trials {
		if !slices.Contains(numbers, t.Fold) {
			numbers = append(numbers, t.Fold)
		}
	}
	if len(numbers) < 2 {
		return Folds{}, false
	}
	slices.Sort(numbers)
	sorted := slices.Clone(trials)
	slices.SortFunc(sorted, func(a, b Trial) int { return cmp.Compare(a.Score, b.Score) })
	for _, fold := range numbers {
		threshold := bestThreshold(sorted, fold)
		right, all := 0, 0
		for _, t := range trials {
			if t.Fold == fold {
				all++
				if t.Same == (t.Score >= threshold) {
					right++
				}
			}
		}
		f.Each = append(f.Each, float64(right)/float64(all))
		f.Threshold += threshold / float64(len(numbers))
	}
	f.Accuracy, f.Deviation = meanAndDeviation(f.Each)
	return f, true
}

// bestThreshold is where the most trials outside the fold are judged rightly.
// Where several places between two scores are as good, it is the middle one.
// It is never so low that a picture without a face matches.
func bestThreshold(sorted []Trial, without int) float64 {
	right, best := 0, -1
	for _, t := range sorted {
		if t.Fold != without && t.Same {
			right++
		}
	}
	var places []float64
	for i, t := range sorted {
		if t.Fold == without {
			continue
		}
		if right++; t.Same {
			right -= 2
		}
		next := 1.0
		if j := slices.IndexFunc(sorted[i+1:], func(n Trial) bool { return n.Fold != without }); j >= 0 {
			next = sorted[i+1+j].Score
		}
		if next == t.Score || right < best {
			continue
		}
		if right > best {
			best, places = right, places[:0]
		}
		places = append(places, (t.Score+next)/2)
	}
	return places[len(places)/2]
}

func meanAndDeviation(x []float64) (mean, deviation float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		deviation += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(deviation / float64(len(x)-1))
}
