package evaluate

import (
	"math/rand/v2"
	"slices"
)

// passes is how often every person is looked for, each time with other
// pictures and among other people.
const passes = 10

// Identification is closed-set identification in galleries of N people with
// one picture each (ISO/IEC 19795-1: rank 1).
type Identification struct {
	Rank1    float64  // mean over people of how often the right one comes first
	Interval Interval // by people
	People   int      // who have two pictures, so were looked for
	Searches int
}

// Identify looks for every person with two pictures in galleries of n people.
// A gallery holds such people first, then others. A tie, a probe without a face
// and a gallery picture without a face are errors. With fewer than n people, or
// none to look for, ok is false.
func Identify(samples []Sample, n int) (id Identification, ok bool) {
	people := map[string][]Sample{}
	var names []string
	for _, s := range samples {
		if people[s.Person] == nil {
			names = append(names, s.Person)
		}
		people[s.Person] = append(people[s.Person], s)
	}
	var several []string
	for _, name := range names {
		if len(people[name]) > 1 {
			several = append(several, name)
		}
	}
	if len(names) < n || len(several) == 0 || n < 2 {
		return Identification{}, false
	}
	random := rand.New(rand.NewPCG(seedRank, uint64(n)))
	found := make(map[string]int, len(several))
	for range passes {
		shuffle(random, several)
		for wanted := range slices.Chunk(several, n) {
			gallery := fill(random, wanted, names, n)
			search(random, people, wanted, gallery, found)
		}
	}
	slices.Sort(several) // the interval must not hang on the last shuffle
	shares := make([]float64, 0, len(several))
	for _, name := range several {
		shares = append(shares, float64(found[name])/passes)
	}
	id = Identification{People: len(several), Searches: passes * len(several)}
	id.Rank1, id.Interval = resampledMean(random, shares)
	return id, true
}

// fill makes a gallery of n: who is wanted, then others at random.
func fill(random *rand.Rand, wanted, names []string, n int) []string {
	gallery := slices.Clone(wanted)
	for _, i := range random.Perm(len(names)) {
		if len(gallery) == n {
			break
		}
		if !slices.Contains(wanted, names[i]) {
			gallery = append(gallery, names[i])
		}
	}
	return gallery
}

// search counts in found who of the wanted came first in the gallery. One
// random picture of each person is in it; another one of the wanted is looked
// for.
func search(random *rand.Rand, people map[string][]Sample, wanted, gallery []string, found map[string]int) {
	pictures := make([]Sample, len(gallery))
	probes := make([]Sample, len(wanted))
	for i, name := range gallery {
		order := random.Perm(len(people[name]))
		pictures[i] = people[name][order[0]]
		if i < len(wanted) {
			probes[i] = people[name][order[1]]
		}
	}
	for i, name := range wanted {
		mate := pictures[i].Score(probes[i])
		first := mate > -1
		for j := range pictures {
			first = first && (j == i || pictures[j].Score(probes[i]) < mate)
		}
		if first {
			found[name]++
		}
	}
}

// resampledMean is the mean with its bootstrap interval. Of a sample without
// any failure (or without any success) the bound comes from the rule of three,
// since resampling it shows nothing.
func resampledMean(random *rand.Rand, x []float64) (float64, Interval) {
	mean, n := 0.0, float64(len(x))
	for _, v := range x {
		mean += v / n
	}
	means := make([]float64, rounds)
	for i := range means {
		for range x {
			means[i] += x[random.IntN(len(x))] / n
		}
	}
	slices.Sort(means)
	interval := Interval{means[rounds/40], means[rounds-1-rounds/40]}
	if slices.Min(x) == 1 {
		mean, interval = 1, Interval{max(0, 1-3/n), 1}
	}
	if slices.Max(x) == 0 {
		mean, interval = 0, Interval{0, min(1, 3/n)}
	}
	return mean, interval
}
