package evaluate

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/vision"
)

func TestRateIsNeverBelowWhatNShows(t *testing.T) {
	for name, c := range map[string]struct {
		rate    Rate
		value   float64
		isBound bool
		text    string
	}{
		"nothing counted":      {Rate{}, 1, true, "not measured"},
		"no error in 3,000":    {Rate{0, 3000}, 0.001, true, "below 0.1 % (0 of 3000)"},
		"no error in two":      {Rate{0, 2}, 1, true, "below 100 % (0 of 2)"},
		"one in 100":           {Rate{1, 100}, 0.046560, true, "below 4.66 % (1 of 100)"}, // tables of binomial limits: 0.0466
		"two in 100":           {Rate{2, 100}, 0.061619, true, "below 6.16 % (2 of 100)"}, // 0.0616
		"three in 100":         {Rate{3, 100}, 0.03, false, "3 % (3 of 100)"},
		"all":                  {Rate{7, 7}, 1, false, "100 % (7 of 7)"},
		"one in thirty millon": {Rate{1, 30_000_000}, 4.743865 / 30e6, true, "below 1.58e-05 % (1 of 30000000)"},
	} {
		t.Run(name, func(t *testing.T) {
			value, isBound := c.rate.Bounded()
			assert.InEpsilon(t, c.value, value, 1e-4)
			assert.Equal(t, c.isBound, isBound)
			assert.Equal(t, c.text, c.rate.String())
			if c.rate.Of > 0 {
				assert.GreaterOrEqual(t, value, min(1, 3/float64(c.rate.Of)))
			}
		})
	}
}

func TestSupports(t *testing.T) {
	assert.True(t, Supports(3000, 1e-3))
	assert.False(t, Supports(2999, 1e-3))
	assert.False(t, Supports(2999, 0))
	assert.False(t, Supports(0, 0.1))
}

// TestTallyByHand: four mated and five non-mated scores, on paper.
func TestTallyByHand(t *testing.T) {
	tally := NewTally()
	for _, s := range []float64{0.3, 0.5, 0.6, -1} { // the last has no face
		tally.Add(true, s)
	}
	for _, s := range []float64{-0.2, 0, 0.1, 0.2, 0.4} {
		tally.Add(false, s)
	}
	assert.Equal(t, Rate{1, 5}, tally.FMR(0.35))
	assert.Equal(t, Rate{2, 4}, tally.FNMR(0.35))
	assert.Equal(t, Rate{5, 5}, tally.FMR(-1))
	assert.Equal(t, Rate{0, 5}, tally.FMR(1))
	threshold, ok := tally.Threshold(0.6) // three of five may pass
	require.True(t, ok)
	assert.Equal(t, 3, tally.FMR(threshold).Errors)
	_, ok = tally.Threshold(0.5)
	assert.False(t, ok, "five comparisons show no 0.5")
	// FMR 2/5 and FNMR 1/4 just above 0.1; 1/5 and 1/4 above 0.2: they cross on the way.
	assert.InDelta(t, 0.25, tally.EER(), 1e-12)
	value, isBound := tally.BoundedEER()
	assert.True(t, isBound)
	assert.GreaterOrEqual(t, value, 0.75)
}

// TestShuffledLabelsAreWorthNothing: the negative control of all accuracy.
func TestShuffledLabelsAreWorthNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 0))
	trials := drawTrials(random, 4000, 0.6, false)
	f, ok := JudgeFolds(trials)
	require.True(t, ok)
	assert.Greater(t, f.Accuracy, 0.9)
	labels := make([]bool, len(trials))
	for i, trial := range trials {
		labels[i] = trial.Same
	}
	shuffle(random, labels)
	tally := NewTally()
	for i := range trials {
		trials[i].Same = labels[i]
		tally.Add(labels[i], trials[i].Score)
	}
	f, _ = JudgeFolds(trials)
	assert.InDelta(t, 0.5, f.Accuracy, 0.04)
	assert.InDelta(t, 0.5, tally.EER(), 0.04)
}

func TestJudgeFoldsNeedsTwo(t *testing.T) {
	_, ok := JudgeFolds([]Trial{{1, true, 0.5}, {1, false, 0.1}})
	assert.False(t, ok)
	f, ok := JudgeFolds([]Trial{{1, true, -1}, {1, false, -0.5}, {2, true, 0.8}, {2, false, -1}})
	require.True(t, ok)
	assert.Equal(t, []float64{0.5, 1}, f.Each, "a picture without a face fails its mated pair only")
}

// draw makes people whose pictures lie round a point of their own; spread 0 is
// one picture over and over.
func draw(random *rand.Rand, people, each int, spread float64) []Sample {
	const dimensions = 32
	var samples []Sample
	for p := range people {
		middle := make([]float64, dimensions)
		for i := range middle {
			middle[i] = random.NormFloat64()
		}
		for k := range each {
			e := make(vision.Embedding, dimensions)
			for i := range e {
				e[i] = float32(middle[i] + spread*random.NormFloat64())
			}
			person := fmt.Sprintf("person%03d", p)
			samples = append(samples, Sample{Path: fmt.Sprintf("%s/%d", person, k), Person: person, Embedding: e.Unit()})
		}
	}
	return samples
}

func compare(t *testing.T, samples []Sample) *Matrix {
	t.Helper()
	m, err := CompareAll(t.Context(), samples, func(int) {})
	require.NoError(t, err)
	return m
}

func TestCompareAllCountsEveryPairOnce(t *testing.T) {
	samples := draw(rand.New(rand.NewPCG(7, 0)), 30, 4, 1.2)
	samples[5].Embedding = nil
	m := compare(t, samples)
	want := NewTally()
	for i, a := range samples {
		for _, b := range samples[:i] {
			score := -1.0
			if a.Embedding != nil && b.Embedding != nil {
				score = a.Score(b)
				assert.InDelta(t, vision.Cosine(a.Embedding, b.Embedding), score, 1e-6)
			}
			want.Add(a.Person == b.Person, score)
		}
	}
	assert.Equal(t, want, m.Tally)
	assert.Equal(t, 30*6, m.Mated())
	assert.Equal(t, 120*119/2-30*6, m.NonMated())
	assert.Equal(t, 3, m.FNMR(-0.9).Errors, "of the picture without a face")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := CompareAll(ctx, samples, func(int) {})
	assert.ErrorIs(t, err, context.Canceled)
}

func TestAcceptanceGrowsWithWhatIsAllowed(t *testing.T) {
	m := compare(t, draw(rand.New(rand.NewPCG(8, 0)), 80, 5, 1.6))
	last := -1.0
	for _, far := range []float64{1e-4, 1e-3, 1e-2} {
		a, ok := m.AcceptAt(far)
		require.True(t, ok, "FAR %g", far)
		assert.GreaterOrEqual(t, a.TAR, last)
		assert.LessOrEqual(t, a.FMR.Share(), far)
		require.NotNil(t, a.Interval)
		assert.LessOrEqual(t, a.Interval.Low, a.TAR)
		assert.GreaterOrEqual(t, a.Interval.High, a.TAR)
		assert.Less(t, a.Interval.Low, a.Interval.High)
		again, _ := m.AcceptAt(far)
		assert.Equal(t, a, again, "the same data give the same figures")
		last = a.TAR
	}
	_, ok := m.AcceptAt(1e-5)
	assert.False(t, ok, "79,000 comparisons show no 1e-5")

	// A rate of which few comparisons are left in a round: one that weighs more
	// than all that is allowed takes away what lies under it, not everything.
	easy := compare(t, draw(rand.New(rand.NewPCG(16, 0)), 60, 4, 0.2))
	a, ok := easy.AcceptAt(1.1e-4)
	require.True(t, ok)
	assert.Equal(t, Interval{1, 1}, *a.Interval)
}

// TestIntervalsAreOfPeople: half of the people match always and half never, so
// more pictures of the same people must not make the interval narrower, as it
// would be if each comparison were taken for itself.
func TestIntervalsAreOfPeople(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 0))
	samples := append(draw(random, 20, 12, 0), draw(random, 20, 12, 30)...)
	for i := range samples[240:] {
		samples[240+i].Person = "b" + samples[240+i].Person
	}
	a, ok := compare(t, samples).AcceptAt(1e-2)
	require.True(t, ok)
	assert.InDelta(t, 0.5, a.TAR, 0.05)
	require.NotNil(t, a.Interval)
	assert.Greater(t, a.Interval.High-a.Interval.Low, 0.2, "40 people")
	naive := a.FNMR.Interval()
	assert.Less(t, naive.High-naive.Low, 0.1, "2,640 comparisons")
}

func TestCrowdKeepsTheHighest(t *testing.T) {
	random := rand.New(rand.NewPCG(10, 0))
	var all, some []encounter
	c := &crowd{limit: 100}
	for i := range 5000 {
		e := encounter{float32(random.IntN(400)) / 400, int32(i), 0}
		all, some = append(all, e), append(some, e)
		c.add(e)
	}
	everything := &crowd{limit: 5000, kept: all}
	assert.Equal(t, everything.finish()[:100], c.finish())
	shuffle(random, some)
	other := &crowd{limit: 100}
	for _, e := range some {
		other.add(e)
	}
	assert.Equal(t, c.kept, other.finish(), "whoever comes first")
}

func TestIdentify(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 0))
	samples := draw(random, 40, 2, 0)
	id, ok := Identify(samples, 10)
	require.True(t, ok)
	assert.Equal(t, 1.0, id.Rank1)
	assert.Equal(t, Interval{1 - 3.0/40, 1}, id.Interval, "40 people without an error are no proof of more")
	assert.Equal(t, 400, id.Searches)

	// A person whose pictures show no face is never found; the others are.
	samples[0].Embedding = nil
	id, _ = Identify(samples, 40)
	assert.InDelta(t, 39.0/40, id.Rank1, 1e-12)

	// Meaningless vectors are found as often as chance has it.
	id, _ = Identify(draw(random, 60, 2, 1000), 20)
	assert.InDelta(t, 1.0/20, id.Rank1, 0.06)

	// One picture in common is a tie, and a tie is an error.
	same := draw(random, 1, 1, 0)[0].Embedding
	samples = draw(random, 5, 2, 0)
	for i := range samples {
		samples[i].Embedding = same
	}
	id, _ = Identify(samples, 5)
	assert.Zero(t, id.Rank1)

	_, ok = Identify(samples, 6)
	assert.False(t, ok, "five people make no gallery of six")
	_, ok = Identify(draw(random, 5, 1, 0), 5)
	assert.False(t, ok, "nobody has two pictures")
}

func TestReadPairs(t *testing.T) {
	pairs, err := ReadPairs(strings.NewReader("fold,same,a,b\n1,1,a/1.jpg,a/2.jpg\n2,0,a/1.jpg,\"b,c/./1.jpg\"\n"))
	require.NoError(t, err)
	assert.Equal(t, []Pair{{1, true, "a/1.jpg", "a/2.jpg"}, {2, false, "a/1.jpg", "b,c/1.jpg"}}, pairs)
	assert.Equal(t, []string{"a/1.jpg", "a/2.jpg", "b,c/1.jpg"}, Pictures(pairs))
	for name, c := range map[string]struct{ text, says string }{
		"empty":        {"", "fold,same,a,b"},
		"no pairs":     {"fold,same,a,b\n", "no pairs"},
		"other header": {"a,b,same,fold\n", "fold,same,a,b"},
		"short":        {"fold,same,a,b\n1,1,a\n", "wrong number of fields"},
		"fold":         {"fold,same,a,b\nx,1,a,b\n", "line 2: fold"},
		"same":         {"fold,same,a,b\n1,yes,a,b\n", "line 2: same"},
		"outside":      {"fold,same,a,b\n1,1,../a,b\n", "line 2: a and b"},
		"absolute":     {"fold,same,a,b\n1,1,/a,b\n", "line 2: a and b"},
		"no name":      {"fold,same,a,b\n1,1,,b\n", "line 2: a and b"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadPairs(strings.NewReader(c.text))
			assert.ErrorIs(t, err, errPairs)
			assert.ErrorContains(t, err, c.says)
		})
	}
}

func TestDrawPairs(t *testing.T) {
	var pictures []string
	for p := range 40 {
		for k := range 1 + p%30 {
			pictures = append(pictures, fmt.Sprintf("p%02d/%02d.jpg", p, k))
		}
	}
	pairs := DrawPairs(pictures)
	assert.Equal(t, pairs, DrawPairs(pictures), "the same pictures give the same pairs")
	foldOf := map[string]int{}
	counts := map[int][2]int{}
	seen := map[Pair]bool{}
	for _, p := range pairs {
		for _, name := range []string{p.A, p.B} {
			if fold, known := foldOf[Person(name)]; known {
				require.Equal(t, fold, p.Fold, "no person in two folds")
			}
			foldOf[Person(name)] = p.Fold
		}
		require.NotEqual(t, p.A, p.B)
		require.Equal(t, p.Same, Person(p.A) == Person(p.B))
		require.False(t, seen[p])
		seen[p] = true
		n := counts[p.Fold]
		if p.Same {
			n[1]++
		} else {
			n[0]++
		}
		counts[p.Fold] = n
	}
	assert.Len(t, counts, 10)
	for fold, n := range counts {
		assert.LessOrEqual(t, n[1], 300)
		assert.Equal(t, n[1], n[0], "fold %d", fold)
	}
	assert.Empty(t, DrawPairs([]string{"a/1", "a/2", "b/1"}))
	assert.Empty(t, DrawPairs([]string{"a/1", "b/1", "c/1", "d/1"}))
}

func TestGroups(t *testing.T) {
	g, err := ReadGroups(strings.NewReader("\ufeffprefix,group\r\nlfwa/,press\nlfwa/A,A\norl/,office\n"))
	require.NoError(t, err)
	for picture, group := range map[string]string{"lfwa/B/1": "press", "lfwa/Ann/1": "A", "orl/s1/1": "office", "x/1": ""} {
		assert.Equal(t, group, g.Of(picture))
	}
	assert.Empty(t, Groups{}.Of("x"))
	for name, text := range map[string]string{"header": "group,prefix\n", "empty": "", "no group": "prefix,group\na,\n", "short": "prefix,group\na\n"} {
		_, err := ReadGroups(strings.NewReader(text))
		assert.ErrorIs(t, err, errGroups, name)
	}
}

func TestPresentations(t *testing.T) {
	live := Presentations{Scores: []float64{0.9, 0.8, 0.4, 0.5}, Silent: 1}
	photo := Presentations{Scores: []float64{0.1, 0.2, 0.5, 0.6}}
	assert.Equal(t, Rate{1, 4}, live.Rejected(0.5))
	assert.Equal(t, Rate{2, 4}, photo.Accepted(0.5))
	assert.Equal(t, Rate{1, 5}, live.Silence())
	area, ok := AUC(live.Scores, photo.Scores)
	require.True(t, ok)
	assert.InDelta(t, (4+4+2+2.5)/16, area, 1e-12)
	_, ok = AUC(live.Scores, nil)
	assert.False(t, ok)
}

func TestChartsAreXMLAndShowNoMoreThanCounted(t *testing.T) {
	random := rand.New(rand.NewPCG(12, 0))
	tally := NewTally()
	for _, trial := range drawTrials(random, 3000, 0.5, false) {
		tally.Add(trial.Same, trial.Score)
	}
	for _, svg := range []string{DETChart(tally), HistogramChart(tally, 0.3), DETChart(NewTally()), HistogramChart(NewTally(), 0)} {
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			_, err := d.Token()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
		}
		assert.NotContains(t, svg, "NaN")
		assert.NotContains(t, svg, "Inf")
	}
	points := tally.DET()
	require.NotEmpty(t, points)
	for i, p := range points {
		assert.GreaterOrEqual(t, p.FMR, 3/float64(tally.NonMated()))
		assert.GreaterOrEqual(t, p.FNMR, 3/float64(tally.Mated()))
		if i > 0 {
			assert.LessOrEqual(t, p.FMR, points[i-1].FMR)
			assert.GreaterOrEqual(t, p.FNMR, points[i-1].FNMR)
		}
	}
	bars := tally.Histogram(100)
	var mated, nonMated float64
	for _, b := range bars {
		mated += b.Mated
		nonMated += b.NonMated
	}
	assert.InDelta(t, 1, mated, 1e-9)
	assert.InDelta(t, 1, nonMated, 1e-9)
}

func TestDeviate(t *testing.T) {
	for p, z := range map[float64]float64{0.5: 0, 0.975: 1.959964, 0.001: -3.090232} {
		assert.InDelta(t, z, deviate(p), 1e-6)
	}
	assert.False(t, math.IsNaN(deviate(lowestDrawn)))
}

func FuzzReadPairs(f *testing.F) {
	f.Add("fold,same,a,b\n1,1,a/1.jpg,a/2.jpg\n")
	f.Add("fold,same,a,b\r\n2,0,\"a\",b/../c\r\n")
	f.Add("fold,same,a,b\n1,1,\"a\nb\",..\n")
	f.Fuzz(func(t *testing.T, text string) {
		pairs, err := ReadPairs(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, name := range Pictures(pairs) {
			require.NotContains(t, strings.Split(name, "/"), "..")
			require.False(t, strings.HasPrefix(name, "/"))
		}
	})
}

func FuzzReadGroups(f *testing.F) {
	f.Add("prefix,group\na/,x\n", "a/1.jpg")
	f.Add("prefix,group\n,\"x\ny\"\n", "")
	f.Fuzz(func(_ *testing.T, text, picture string) {
		if g, err := ReadGroups(strings.NewReader(text)); err == nil {
			g.Of(picture)
		}
	})
}

// BenchmarkCompareAll asks how long all against all takes: LFW view 2 has
// 29.6 million comparisons.
func BenchmarkCompareAll(b *testing.B) {
	random := rand.New(rand.NewPCG(13, 0))
	const pictures = 1000
	samples := make([]Sample, pictures)
	for i := range samples {
		e := make(vision.Embedding, 512)
		for k := range e {
			e[k] = float32(random.NormFloat64())
		}
		samples[i] = Sample{Person: fmt.Sprint(i / 2), Embedding: e.Unit()}
	}
	for b.Loop() {
		if _, err := CompareAll(b.Context(), samples, func(int) {}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(pictures*(pictures-1)/2), "ns/comparison")
}
