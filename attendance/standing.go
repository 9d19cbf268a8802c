package attendance

import "slices"

// Standing collects what outlasts an epoch of the ledger: who is enrolled under
// which consent, and what was withdrawn. The next epoch begins by saying it
// again. The zero value is ready; it belongs to one goroutine.
type Standing struct {
	order []TraineeID
	of    map[TraineeID]*standing
}

// standing is what holds of one trainee, as the records that say it.
type standing struct {
	consents  []Record // a withdrawn one stands as its withdraw record
	ids       []string // of the consents
	enrolment *Record
	unerased  *Record // a withdrawal that no erase record follows, and no withdrawn consent
}

// Observe takes the next record, in order. Types that do not outlast an epoch
// are passed over.
func (s *Standing) Observe(r Record) error {
	switch r.Type {
	case TypeConsent:
		c, err := ReadBody[ConsentBody](r.Body)
		if err == nil {
			s.trainee(c.Trainee).consent(c.Consent, r)
		}
		return err
	case TypeEnrol:
		e, err := ReadBody[EnrolBody](r.Body)
		if err == nil {
			s.trainee(e.Trainee).enrolment = &r
		}
		return err
	case TypeWithdraw:
		w, err := ReadBody[WithdrawBody](r.Body)
		if err == nil {
			s.trainee(w.Trainee).withdraw(w)
		}
		return err
	case TypeErase:
		e, err := ReadBody[EraseBody](r.Body)
		if err == nil {
			s.trainee(e.Trainee).unerased = nil
		}
		return err
	}
	return nil
}

func (s *Standing) trainee(id TraineeID) *standing {
	if s.of == nil {
		s.of = map[TraineeID]*standing{}
	}
	if s.of[id] == nil {
		s.of[id] = &standing{}
		s.order = append(s.order, id)
	}
	return s.of[id]
}

func (s *standing) consent(id string, r Record) {
	if i := slices.Index(s.ids, id); i >= 0 {
		s.consents[i] = r
		return
	}
	s.ids, s.consents = append(s.ids, id), append(s.consents, r)
}

// withdraw keeps the withdrawal without the enrol record's number, which is of
// the epoch that ended.
func (s *standing) withdraw(w WithdrawBody) {
	s.enrolment = nil
	w.Enrol = 0
	r := NewRecord(TypeWithdraw, w)
	if w.Reason == WithdrawConsent {
		s.consent(w.Consent, r)
		return
	}
	s.unerased = &r
}

// Records gives what stands, each trainee's in the order in which it must be
// said: a template that was withdrawn is erased once more.
func (s *Standing) Records() (records []Record) {
	for _, id := range s.order {
		of := s.of[id]
		records = append(records, of.consents...)
		for _, r := range []*Record{of.unerased, of.enrolment} {
			if r != nil {
				records = append(records, *r)
			}
		}
	}
	return records
}
