package centre

import (
	"context"
	"fmt"
	"slices"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// audit looks at what the new records claim. What it finds is an alarm: the
// records are the terminal's signed word and are stored as they are.
func (s *storing) audit(ctx context.Context, group []*intake) error {
	if err := s.auditReceipts(ctx, group); err != nil {
		return err
	}
	if err := s.noteAnswers(ctx, group); err != nil {
		return err
	}
	return s.auditFaces(ctx, group)
}

// record names one record of a log.
type record struct {
	log chain.LogID
	seq chain.Seq
}

// auditReceipts looks whether each record that names a receipt names one that
// this centre gave.
func (s *storing) auditReceipts(ctx context.Context, group []*intake) error {
	given, err := s.givenReceipts(ctx, group)
	if err != nil {
		return err
	}
	for _, in := range group {
		wrong := chain.Seq(0) // every record after a forged receipt names it: one alarm
		for _, e := range in.fresh {
			if e.Ack == nil || in.gave(*e.Ack) || e.Ack.Seq == wrong {
				continue
			}
			if hash, ok := given[record{e.Log, e.Ack.Seq}]; ok && hash == e.Ack.Hash {
				continue
			}
			wrong = e.Ack.Seq
			detail := fmt.Sprintf("it names a receipt for record %d that this centre never gave: somebody else signs as the centre, or this database lost it", e.Ack.Seq)
			if err := s.raise(ctx, in, alarm{kind: AlarmReceipt, log: e.Log, seq: e.Seq, detail: detail}); err != nil {
				return err
			}
		}
	}
	return nil
}

// gave knows the usual receipts without looking: the last one, and that for
// the place before line 1.
func (in *intake) gave(a chain.Ack) bool {
	return a.Seq == in.mark.seq && a.Hash == in.mark.hash || a == chain.Ack{}
}

// givenReceipts reads the receipts that the new records name.
func (s *storing) givenReceipts(ctx context.Context, group []*intake) (map[record]chain.Hash, error) {
	var seqs []int64
	for _, in := range group {
		for _, e := range in.fresh {
			if e.Ack != nil && !in.gave(*e.Ack) && !slices.Contains(seqs, int64(e.Ack.Seq)) {
				seqs = append(seqs, int64(e.Ack.Seq))
			}
		}
	}
	if len(seqs) == 0 {
		return nil, nil
	}
	db := s.centre.db
	rows, err := s.tx.QueryContext(ctx, `SELECT g.log, g.seq, r.hash FROM receipts g JOIN records r ON r.log = g.log AND r.seq = g.seq
		WHERE `+db.among("g.log", 1)+" AND "+db.among("g.seq", 2), db.list(logsOf(group)), db.list(seqs))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	given := map[record]chain.Hash{}
	for rows.Next() {
		var r record
		var hash []byte
		if err := rows.Scan(&r.log, &r.seq, &hash); err != nil {
			return nil, err
		}
		given[r] = chain.Hash(hash)
	}
	return given, rows.Err()
}

// faceTypes are the records that say whose face template counts.
var faceTypes = []string{string(attendance.TypeEnrol), string(attendance.TypeWithdraw), string(attendance.TypeErase)}

// enrolment is what such a record says: with model "" that there is none.
type enrolment struct {
	trainee attendance.TraineeID
	seq     chain.Seq
	model   string
}

// auditFaces looks whether each face match names the enrolment of that trainee
// that was live in the same ledger when the record was formed. A ledger that
// begins anew says again who is enrolled.
func (s *storing) auditFaces(ctx context.Context, group []*intake) error {
	enrolments, err := s.enrolments(ctx, group)
	if err != nil {
		return err
	}
	for _, in := range group {
		live := map[attendance.TraineeID]enrolment{}
		for _, e := range enrolments[in.batch.Log()] {
			if e.seq <= in.mark.seq {
				live[e.trainee] = e
			}
		}
		for i, e := range in.batch.Entries {
			if e.Seq <= in.mark.seq {
				continue
			}
			if said, ok := enrolmentOf(e); ok {
				live[said.trainee] = said
				continue
			}
			face := in.bodies[i].face
			if face == nil || in.bodies[i].founded(live) {
				continue
			}
			detail := fmt.Sprintf("it relies on enrolment %d, which is not the live enrolment of this trainee in this ledger", face.Enrol)
			if err := s.raise(ctx, in, alarm{kind: AlarmNoEnrolment, log: e.Log, seq: e.Seq, detail: detail}); err != nil {
				return err
			}
		}
	}
	return nil
}

// founded reports whether the match that a body claims names the trainee's
// live enrolment.
func (b body) founded(live map[attendance.TraineeID]enrolment) bool {
	if b.trainee == nil {
		return false
	}
	e, ok := live[attendance.TraineeID(*b.trainee)]
	return ok && e.model != "" && e.seq == chain.Seq(b.face.Enrol) && e.model == b.face.Model
}

// enrolmentOf reads a record that changes whose template counts.
func enrolmentOf(e chain.Entry) (enrolment, bool) {
	if !slices.Contains(faceTypes, e.Type) {
		return enrolment{}, false
	}
	body, err := attendance.ReadBody[attendance.EnrolBody](e.Body)
	if e.Type != string(attendance.TypeEnrol) {
		body.Model = ""
	}
	return enrolment{body.Trainee, e.Seq, body.Model}, err == nil
}

// enrolments reads what the ledgers of a group said of the trainees whose
// faces are claimed, in order.
func (s *storing) enrolments(ctx context.Context, group []*intake) (map[chain.LogID][]enrolment, error) {
	var trainees []string
	for _, in := range group {
		for _, b := range in.bodies {
			if b.face != nil && b.trainee != nil {
				trainees = append(trainees, *b.trainee)
			}
		}
	}
	if len(trainees) == 0 {
		return nil, nil
	}
	slices.Sort(trainees)
	db := s.centre.db
	rows, err := s.tx.QueryContext(ctx, `SELECT line FROM records WHERE type IN ('enrol', 'withdraw', 'erase')
		AND `+db.among("trainee", 1)+" AND "+db.among("log", 2)+" ORDER BY log, seq",
		db.list(slices.Compact(trainees)), db.list(logsOf(group)))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[chain.LogID][]enrolment{}
	for rows.Next() {
		var line []byte
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		e, err := chain.ParseLine(line)
		if err != nil {
			return nil, err
		}
		if said, ok := enrolmentOf(e); ok {
			out[e.Log] = append(out[e.Log], said)
		}
	}
	return out, rows.Err()
}
