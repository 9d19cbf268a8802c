package evaluate

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"rollcall/vision"
)

// Sample is one picture of one person.
type Sample struct {
	Path, Person string
	// Embedding has length 1, or is nil where no face was found.
	Embedding vision.Embedding
	// Template is what an enrolment would keep of the picture, of length 1. Nil
	// stands for Embedding.
	Template vision.Embedding
}

// Score is the likeness of s, enrolled, and a probe; -1 if one shows no face.
func (s Sample) Score(probe Sample) float64 {
	enrolled := s.Template
	if enrolled == nil {
		enrolled = s.Embedding
	}
	if len(enrolled) == 0 || len(enrolled) != len(probe.Embedding) {
		return -1
	}
	return dot(enrolled, probe.Embedding)
}

// dot of vectors of one length. Four sums keep the processor busy.
func dot(a, b []float32) float64 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float32
	for len(a) >= 4 && len(b) >= 4 {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
		a, b = a[4:], b[4:]
	}
	for i := range a {
		s0 += a[i] * b[i]
	}
	return float64(s0+s1) + float64(s2+s3)
}

// Matrix is every sample compared with every other.
type Matrix struct {
	*Tally

	pictures []int       // per person: how many samples
	mated    [][]float32 // per person: scores, rising
	near     []encounter // the highest non-mated scores, falling
}

// encounter is the score of two people.
type encounter struct {
	score float32
	a, b  int32
}

// What of the non-mated scores is kept by person, for resampling: enough for
// rates up to 1e-2, within memory.
const (
	nearShare = 0.03
	mostNear  = 4_000_000
)

// CompareAll compares all samples, on all processors, in rows; done is called
// from several goroutines with the number of finished comparisons so far. It
// ends early with ctx's error.
func CompareAll(ctx context.Context, samples []Sample, done func(comparisons int)) (*Matrix, error) {
	m := &Matrix{Tally: NewTally()}
	people := map[string]int32{}
	person := make([]int32, len(samples))
	for i, s := range samples {
		p, known := people[s.Person]
		if !known {
			p = int32(len(people))
			people[s.Person] = p
			m.pictures = append(m.pictures, 0)
		}
		person[i] = p
		m.pictures[p]++
	}
	m.mated = make([][]float32, len(people))
	limit := max(1000, min(mostNear, int(nearShare*float64(len(samples))*float64(len(samples)-1)/2)))

	var mu sync.Mutex // guards m and near
	near := &crowd{limit: limit}
	var row, compared atomic.Int64
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			own := &Matrix{Tally: NewTally(), mated: make([][]float32, len(people))}
			mine := &crowd{limit: limit}
			for ctx.Err() == nil {
				i := int(row.Add(1)) - 1
				if i >= len(samples) {
					break
				}
				own.compareRow(samples, person, i, mine)
				done(int(compared.Add(int64(i))))
			}
			mu.Lock()
			defer mu.Unlock()
			m.Tally.merge(own.Tally)
			for p, scores := range own.mated {
				m.mated[p] = append(m.mated[p], scores...)
			}
			for _, e := range mine.kept {
				near.add(e)
			}
		})
	}
	group.Wait()
	for _, scores := range m.mated {
		slices.Sort(scores)
	}
	m.near = near.finish()
	return m, ctx.Err()
}

// compareRow compares sample i, enrolled, with those before it.
func (m *Matrix) compareRow(samples []Sample, person []int32, i int, near *crowd) {
	for j, other := range samples[:i] {
		score := samples[i].Score(other)
		mated := person[i] == person[j]
		m.Add(mated, score)
		if mated {
			m.mated[person[i]] = append(m.mated[person[i]], float32(score))
		} else {
			near.add(encounter{float32(score), person[i], person[j]})
		}
	}
}

// crowd keeps the highest of the scores it is given, up to its limit.
type crowd struct {
	limit int
	least float32 // what is below is not kept; set when the crowd was first full
	full  bool
	kept  []encounter
}

func (c *crowd) add(e encounter) {
	if c.full && e.score < c.least {
		return
	}
	if c.kept = append(c.kept, e); len(c.kept) >= 2*c.limit {
		c.finish()
	}
}

// finish sorts what is kept, the highest first, and drops what is too much.
func (c *crowd) finish() []encounter {
	slices.SortFunc(c.kept, func(a, b encounter) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		case a.a != b.a: // whoever found it first: the same data give the same figures
			return int(a.a - b.a)
		}
		return int(a.b - b.b)
	})
	if len(c.kept) > c.limit {
		c.kept = c.kept[:c.limit]
		c.full, c.least = true, c.kept[c.limit-1].score
	}
	return c.kept
}
