package vision

import "rollcall/attendance"

// sitting is what stands in memory of the sessions that are open: whose faces
// may be checked, and the faces that were accepted so far, by which one person
// with two cards is found. It is wiped with its session. It belongs to the
// Checker, guarded by its mu.
//
// Templates are no part of it: one is opened when its owner is looked at, and
// wiped when the look ends.
type sitting struct {
	seats    map[attendance.TraineeID]attendance.Seat
	model    string // embedder of accepted
	accepted map[attendance.TraineeID]acceptedFace
}

type acceptedFace struct {
	session attendance.SessionID
	face    Embedding
}

// seat replaces the people of the open sessions, and wipes what is kept of a
// session that is not open any more, or of who is not in it any more.
func (s *sitting) seat(seats map[attendance.TraineeID]attendance.Seat) {
	s.seats = seats
	for id, a := range s.accepted {
		if seat, ok := seats[id]; !ok || seat.Session != a.session {
			s.forget(id)
		}
	}
}

// accept keeps the face that was taken for a trainee's.
func (s *sitting) accept(id attendance.TraineeID, face Embedding, model string) {
	seat, ok := s.seats[id]
	if !ok {
		return
	}
	if model != s.model { // faces of two embedders cannot be compared
		for other := range s.accepted {
			s.forget(other)
		}
		s.model, s.accepted = model, map[attendance.TraineeID]acceptedFace{}
	}
	s.forget(id)
	s.accepted[id] = acceptedFace{seat.Session, append(Embedding(nil), face...)}
}

func (s *sitting) forget(id attendance.TraineeID) {
	clear(s.accepted[id].face)
	delete(s.accepted, id)
}

// like finds the other trainee of the same session whose accepted face is most
// like this one, if any reaches the threshold.
func (s *sitting) like(id attendance.TraineeID, face Embedding, model string, threshold float64) *attendance.Likeness {
	if model != s.model {
		return nil
	}
	var best *attendance.Likeness
	for other, a := range s.accepted {
		if other == id || a.session != s.seats[id].Session {
			continue
		}
		score := Cosine(face, a.face)
		if score >= threshold && (best == nil || score > best.Score) {
			best = &attendance.Likeness{Trainee: other, Score: score}
		}
	}
	return best
}
