package evaluate

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// Search is one probe among the people of a gallery, one picture each.
type Search struct {
	Mated         bool    // the person is in the gallery
	Right         bool    // and comes first
	First, Second float64 // the highest scores
}

// accepted reports whether a terminal would have taken the first for the
// person.
func (s Search) accepted(threshold, margin float64) bool {
	return s.First > -1 && s.First >= threshold && s.First-s.Second >= margin
}

// Searches lets every picture be looked for in galleries of n people: once
// without its person, and once with another picture of the same person if there
// is one. With n people or fewer there is no gallery of n others, and none come.
func Searches(samples []Sample, n int) []Search {
	people := map[string][]int{}
	var names []string
	for i, s := range samples {
		if people[s.Person] == nil {
			names = append(names, s.Person)
		}
		people[s.Person] = append(people[s.Person], i)
	}
	if len(names) <= n || n < 2 {
		return nil
	}
	random := rand.New(rand.NewPCG(seedSearch, uint64(n)))
	var searches []Search
	for i, probe := range samples {
		gallery := others(random, names, probe.Person, n)
		pick := func(name string) Sample { return samples[people[name][random.IntN(len(people[name]))]] }
		var s Search
		s.First, s.Second = -1, -1
		for _, name := range gallery {
			s.see(pick(name).Score(probe), false)
		}
		searches = append(searches, s)
		own := slices.DeleteFunc(slices.Clone(people[probe.Person]), func(k int) bool { return k == i })
		if len(own) == 0 {
			continue
		}
		s = Search{Mated: true, First: -1, Second: -1}
		s.see(samples[own[random.IntN(len(own))]].Score(probe), true)
		for _, name := range gallery[1:] {
			s.see(pick(name).Score(probe), false)
		}
		searches = append(searches, s)
	}
	return searches
}

// see takes one more score of the gallery; right says that it is the person's.
func (s *Search) see(score float64, right bool) {
	switch {
	case score > s.First:
		s.First, s.Second, s.Right = score, s.First, right
	case score > s.Second:
		s.Second = score
	}
}

func others(random *rand.Rand, names []string, without string, n int) []string {
	gallery := make([]string, 0, n)
	for _, i := range random.Perm(len(names)) {
		if len(gallery) == n {
			break
		}
		if names[i] != without {
			gallery = append(gallery, names[i])
		}
	}
	return gallery
}

// FPIR is how often somebody who is not in the gallery is taken for one who is.
func FPIR(searches []Search, threshold, margin float64) Rate {
	var r Rate
	for _, s := range searches {
		if !s.Mated {
			r.Of++
			if s.accepted(threshold, margin) {
				r.Errors++
			}
		}
	}
	return r
}

// FNIR is how often somebody who is in the gallery is not named rightly.
func FNIR(searches []Search, threshold, margin float64) Rate {
	var r Rate
	for _, s := range searches {
		if s.Mated {
			r.Of++
			if !s.Right || !s.accepted(threshold, margin) {
				r.Errors++
			}
		}
	}
	return r
}

// SearchThreshold is the lowest one with an FPIR of at most target. False means
// that there are too few searches to show such a rate.
func SearchThreshold(searches []Search, target, margin float64) (threshold float64, ok bool) {
	var firsts []float64
	n := FPIR(searches, -1, 0).Of
	for _, s := range searches {
		if !s.Mated && s.accepted(-1, margin) {
			firsts = append(firsts, s.First)
		}
	}
	if !Supports(n, target) {
		return 0, false
	}
	slices.SortFunc(firsts, func(a, b float64) int { return cmp.Compare(b, a) })
	allowed := int(target * float64(n) * (1 + 1e-12))
	if allowed >= len(firsts) {
		return edge(1), true
	}
	return edge(bin(firsts[allowed]) + 1), true
}
