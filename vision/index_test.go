package vision

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
)

// randomFace gives a vector as an embedder's are: any direction.
func randomFace(r *rand.Rand, dimensions int) Embedding {
	e := make(Embedding, dimensions)
	for i := range e {
		e[i] = float32(r.NormFloat64())
	}
	return e.Unit()
}

// TestSearchFindsWhatAPlainLoopFinds compares with Cosine, one by one.
func TestSearchFindsWhatAPlainLoopFinds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, dimensions := range []int{1, 7, 61, 512} {
		x := NewIndex("m")
		var all []Embedding
		for i := range 103 {
			all = append(all, randomFace(r, dimensions))
			require.NoError(t, x.Add(attendance.TraineeID(fmt.Sprint(i)), Template{"m", all[i]}))
		}
		for range 20 {
			face := randomFace(r, dimensions)
			want, first, second := 0, -2.0, -2.0
			for i, e := range all {
				if s := Cosine(face, e); s > first {
					want, first, second = i, s, first
				} else if s > second {
					second = s
				}
			}
			got := x.Search(face)
			assert.InDelta(t, first, got.Score, 1e-5)
			assert.InDelta(t, first-second, got.Margin, 1e-5)
			if first-second > 1e-5 {
				assert.Equal(t, attendance.TraineeID(fmt.Sprint(want)), got.Trainee)
			}
		}
	}
}

func TestAnIndexRefusesWhatCannotBeCompared(t *testing.T) {
	x := NewIndex("m")
	assert.Equal(t, Candidate{Score: -1}, x.Search(Embedding{1, 0}), "nobody in it")
	require.NoError(t, x.Add("a", Template{"m", Embedding{0.6, 0.8}}))
	assert.Error(t, x.Add("b", Template{"n", Embedding{1, 0}}), "another embedder")
	assert.Error(t, x.Add("b", Template{"m", Embedding{1, 0, 0}}), "another length")
	assert.Error(t, x.Add("b", Template{"m", Embedding{0, 0}}), "no direction")
	assert.Equal(t, 1, x.Len())
	assert.Equal(t, Candidate{Score: -1}, x.Search(Embedding{1, 0, 0}))
	alone := x.Search(Embedding{3, 4})
	assert.Equal(t, attendance.TraineeID("a"), alone.Trainee)
	assert.InDelta(t, 2, alone.Margin, 1e-6)
}

func TestAWipedIndexHoldsNothing(t *testing.T) {
	x := NewIndex("m")
	var held [][]float32 // every array that it ever had
	for i := range 50 {
		require.NoError(t, x.Add(attendance.TraineeID(fmt.Sprint(i)), Template{"m", Embedding{0.6, 0.8}}))
		held = append(held, x.vectors[:cap(x.vectors)])
	}
	x.Wipe()
	for _, array := range held {
		for _, v := range array {
			require.Zero(t, v)
		}
	}
	assert.Zero(t, x.Len())
	assert.Equal(t, Candidate{Score: -1}, x.Search(Embedding{0.6, 0.8}))
}

// BenchmarkSearch asks what 1:2,000 costs, against the plain loop over Cosine.
func BenchmarkSearch(b *testing.B) {
	const people = 2000
	r := rand.New(rand.NewPCG(3, 4))
	x := NewIndex("m")
	var all []Embedding
	for i := range people {
		all = append(all, randomFace(r, 512))
		require.NoError(b, x.Add(attendance.TraineeID(fmt.Sprint(i)), Template{"m", all[i]}))
	}
	face := randomFace(r, 512)
	plain := func() (best float64) {
		for _, e := range all {
			best = max(best, Cosine(face, e))
		}
		return best
	}
	want := plain()
	var ours, theirs []time.Duration // in turn, so that a busy machine is busy for both
	for b.Loop() {
		began := time.Now()
		got := x.Search(face)
		found := time.Now()
		again := plain()
		ours, theirs = append(ours, found.Sub(began)), append(theirs, time.Since(found))
		if again != want || math.Abs(got.Score-want) > 1e-5 {
			b.Fatal("they do not agree")
		}
	}
	report := func(name string, all []time.Duration) float64 {
		slices.Sort(all)
		b.ReportMetric(float64(all[0])/1e6, name+"-best-ms")
		b.ReportMetric(float64(all[len(all)/2])/1e6, name+"-p50-ms")
		return float64(all[len(all)/2])
	}
	b.ReportMetric(report("search", ours)/report("plain", theirs), "of-plain")
	b.ReportMetric(0, "ns/op")
}
