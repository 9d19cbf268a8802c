package vision

import (
	"context"
	"maps"

	"rollcall/attendance"
)

// Identify searches the candidates for who stands before the camera, frame by
// frame, until ctx ends; then it closes the channel. A look's match is of the
// candidate most like the face, with the margin to the second. All else is as
// with [Checker.Verify].
//
// The candidates' templates are opened when the first face is clear enough to
// be compared, not before, and wiped when the look ends. The channel is closed
// early if none of them has a seat with this enrolment, or none has a template
// that can be used with the worker's embedder.
func (c *Checker) Identify(ctx context.Context, candidates map[attendance.TraineeID]attendance.Enrolment) <-chan attendance.Look {
	looks := make(chan attendance.Look, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	seated := maps.Clone(candidates)
	maps.DeleteFunc(seated, func(id attendance.TraineeID, e attendance.Enrolment) bool {
		seat, ok := c.sitting.seats[id]
		return !ok || seat.Enrolment != e
	})
	if len(seated) == 0 {
		c.config.Log.Warn("nobody to search: no candidate is in a session that is open")
		close(looks)
		return looks
	}
	s := &search{checker: c, candidates: seated}
	c.compare(ctx, looks, &comparison{with: s.match, wipe: s.wipe})
	return looks
}

// search is the candidates of one look. Its functions are called with
// Checker.mu held.
type search struct {
	checker    *Checker
	candidates map[attendance.TraineeID]attendance.Enrolment
	index      *Index // nil until the first face
}

// match finds who is most like a face, or nil if no template fits the embedder.
func (s *search) match(face Embedding, model string) *attendance.Match {
	if s.index == nil {
		s.open(model)
	}
	if s.index.Len() == 0 || s.index.model != model {
		s.checker.config.Log.Warn("no candidate has a template of this embedder", "candidates", len(s.candidates))
		return nil
	}
	found := s.index.Search(face)
	m := &attendance.Match{
		Trainee: found.Trainee, Score: found.Score, Margin: found.Margin, Model: model,
		Like: s.checker.sitting.like(found.Trainee, face, model, s.checker.config.DuplicateThreshold),
	}
	if k := s.checker.calibration; k != nil && k.Identify != nil && k.Embedder == model {
		m.Threshold, m.LeastMargin, m.Calibration = k.Identify.Threshold, k.Identify.Margin, k.ID
	}
	return m
}

// open opens the templates of one embedder. One that cannot be used leaves its
// owner to the card.
func (s *search) open(model string) {
	s.index = NewIndex(model)
	for id, enrolment := range s.candidates {
		if enrolment.Model != model {
			continue
		}
		template, err := s.checker.gallery.Load(id, enrolment)
		if err == nil {
			err = s.index.Add(id, template)
			template.Wipe()
		}
		if err != nil {
			s.checker.config.Log.Warn("template not usable", "enrol", enrolment.Seq, "err", err)
		}
	}
}

func (s *search) wipe() {
	if s.index != nil {
		s.index.Wipe()
	}
}
