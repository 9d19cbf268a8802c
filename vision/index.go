package vision

import (
	"errors"

	"rollcall/attendance"
)

// Index searches the templates of one roster for a face that nobody named, 1:N.
// It holds them in clear and is wiped with its session. It is for one goroutine
// at a time.
type Index struct {
	model      string
	dimensions int
	people     []attendance.TraineeID
	vectors    []float32 // one after the other, unit length
}

// NewIndex makes an empty index for the templates of one embedder.
func NewIndex(model string) *Index { return &Index{model: model} }

var errOtherModel = errors.New("template of another embedder: vectors of two cannot be compared")

// Add takes a copy of a template.
func (x *Index) Add(id attendance.TraineeID, t Template) error {
	unit := t.Embedding.Unit()
	switch {
	case t.Model != x.model || unit == nil:
		return errOtherModel
	case x.dimensions == 0:
		x.dimensions = len(unit)
	case len(unit) != x.dimensions:
		return errOtherModel
	}
	x.people = append(x.people, id)
	if cap(x.vectors) < len(x.vectors)+len(unit) { // copied and wiped, so that growing leaves nothing behind
		grown := make([]float32, len(x.vectors), 2*cap(x.vectors)+len(unit))
		copy(grown, x.vectors)
		clear(x.vectors)
		x.vectors = grown
	}
	x.vectors = append(x.vectors, unit...)
	clear(unit)
	return nil
}

// Len is how many templates it holds.
func (x *Index) Len() int { return len(x.people) }

// Wipe forgets all templates.
func (x *Index) Wipe() {
	clear(x.vectors[:cap(x.vectors)])
	x.vectors, x.people = nil, nil
}

// Candidate is who a search found, and how like the next one was.
type Candidate struct {
	Trainee attendance.TraineeID // empty if the index is
	Score   float64              // cosine
	Margin  float64              // to the second; to -1 if there is none
}

// Search finds who is most like a face.
func (x *Index) Search(face Embedding) Candidate {
	unit := face.Unit()
	if len(unit) != x.dimensions || x.Len() == 0 {
		return Candidate{Score: -1}
	}
	defer clear(unit)
	best := podium{first: -1, second: -1}
	rest := x.vectors
	person, d := 0, x.dimensions
	for ; len(rest) >= 4*d; rest, person = rest[4*d:], person+4 {
		s0, s1, s2, s3 := dot4(unit, rest[:d], rest[d:2*d], rest[2*d:3*d], rest[3*d:4*d])
		best.take(person, s0)
		best.take(person+1, s1)
		best.take(person+2, s2)
		best.take(person+3, s3)
	}
	for ; len(rest) > 0; rest, person = rest[d:], person+1 {
		s, _, _, _ := dot4(unit, rest[:d], rest[:d], rest[:d], rest[:d])
		best.take(person, s)
	}
	return Candidate{x.people[best.at], float64(best.first), float64(best.first) - float64(best.second)}
}

// podium keeps the best two.
type podium struct {
	first, second float32
	at            int
}

func (p *podium) take(person int, score float32) {
	switch {
	case score > p.first:
		p.first, p.second, p.at = score, p.first, person
	case score > p.second:
		p.second = score
	}
}

// dot4 is the scalar product of one vector with four as long, so that each of
// its numbers is fetched once for four.
func dot4(q, a, b, c, d []float32) (sa, sb, sc, sd float32) {
	a, b, c, d = a[:len(q)], b[:len(q)], c[:len(q)], d[:len(q)] // no bounds checks below
	for i, x := range q {
		sa += x * a[i]
		sb += x * b[i]
		sc += x * c[i]
		sd += x * d[i]
	}
	return sa, sb, sc, sd
}
