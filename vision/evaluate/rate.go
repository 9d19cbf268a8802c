package evaluate

import (
	"fmt"
	"math"
)

// confidence of the bounds and intervals in this package.
const confidence = 0.95

// Rate is how often something went wrong.
type Rate struct{ Errors, Of int }

// Share is Errors in Of as counted, and 0 of nothing.
func (r Rate) Share() float64 {
	if r.Of == 0 {
		return 0
	}
	return float64(r.Errors) / float64(r.Of)
}

// Bounded is the rate as it may be printed. Fewer than three errors do not
// make a rate: then the value is the upper limit at 95 % (one-sided; 3/n where
// nothing went wrong, the rule of three of ISO/IEC 19795-1 annex B), and
// isBound says so. Of nothing it is 1.
func (r Rate) Bounded() (value float64, isBound bool) {
	switch {
	case r.Of == 0:
		return 1, true
	case r.Errors == 0:
		return min(1, 3/float64(r.Of)), true
	case r.Errors < 3:
		return upperLimit(r.Errors, r.Of, 1-confidence), true
	}
	return r.Share(), false
}

// String is the rate per cent, or its bound, with n.
func (r Rate) String() string {
	if r.Of == 0 {
		return "not measured"
	}
	value, isBound := r.Bounded()
	if isBound {
		return fmt.Sprintf("below %.3g %% (%d of %d)", 100*value, r.Errors, r.Of)
	}
	return fmt.Sprintf("%.3g %% (%d of %d)", 100*value, r.Errors, r.Of)
}

// Interval is the exact 95 % confidence interval of Clopper and Pearson, for
// trials that do not depend on each other.
func (r Rate) Interval() Interval {
	alpha := (1 - confidence) / 2
	i := Interval{0, 1}
	if r.Of == 0 {
		return i
	}
	if r.Errors > 0 {
		i.Low = 1 - upperLimit(r.Of-r.Errors, r.Of, alpha)
	}
	if r.Errors < r.Of {
		i.High = upperLimit(r.Errors, r.Of, alpha)
	}
	return i
}

// Interval is a confidence interval at 95 %.
type Interval struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

func (i Interval) String() string { return fmt.Sprintf("%.2f–%.2f %%", 100*i.Low, 100*i.High) }

// Supports reports whether n comparisons can show a rate as low as target:
// by the rule of three none of them wrong would bound it at 3/n.
func Supports(n int, target float64) bool { return target > 0 && float64(n)*target >= 3 }

// upperLimit is the rate at which so few errors or fewer come with probability
// alpha. The binomial tail falls as the rate grows, so halving finds it.
func upperLimit(errors, of int, alpha float64) float64 {
	if errors >= of {
		return 1
	}
	low, high := 0.0, 1.0
	for range 60 {
		p := (low + high) / 2
		if binomialTail(errors, of, p) > alpha {
			low = p
		} else {
			high = p
		}
	}
	return (low + high) / 2
}

// binomialTail is the probability of at most k errors in n trials at rate p,
// summed from the largest term down so that millions of trials stay exact.
func binomialTail(k, n int, p float64) float64 {
	if p <= 0 {
		return 1
	}
	if p >= 1 {
		return 0
	}
	mode := min(k, int(float64(n)*p))
	peak := logBinomial(mode, n, p)
	sum, term := 1.0, 1.0
	for i := mode; i > 0 && term > 1e-17; i-- {
		term *= float64(i) / float64(n-i+1) * (1 - p) / p
		sum += term
	}
	term = 1.0
	for i := mode; i < k && term > 1e-17; i++ {
		term *= float64(n-i) / float64(i+1) * p / (1 - p)
		sum += term
	}
	return min(1, sum*math.Exp(peak))
}

func logBinomial(k, n int, p float64) float64 {
	lg := func(x int) float64 { v, _ := math.Lgamma(float64(x)); return v }
	return lg(n+1) - lg(k+1) - lg(n-k+1) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p)
}
