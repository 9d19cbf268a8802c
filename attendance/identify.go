package attendance

import "time"

// An identification without a calibration asks for this threshold and margin:
// more than a card's holder must reach, since whoever is most like was chosen
// from many. Nobody measured them for the embedder in use, and records say
// uncalibrated.
const (
	identifyThreshold = 0.45
	identifyMargin    = 0.05
)

// NewIdentification begins a visit with a touch on the screen: no card says who
// it is, and the face is searched among the enrolled trainees of the sessions
// that are open and allow it. It gives nil if none allows it now.
func NewIdentification(roster *Roster, book *Book, touched Tap, now time.Time) (*Visit, []Action) {
	place, allowed := roster.identifying(touched.At)
	if !allowed {
		return nil, nil
	}
	v := &Visit{
		roster: roster, book: book, tap: touched, stage: looking, place: place,
		candidates: roster.candidates(book, touched.At),
		face:       FaceEvidence{Level: FaceNone, Mode: FaceIdentified, Tries: 1},
		deadline:   now.Add(time.Duration(place.Package.Profile.ConfirmDeadlineS) * time.Second),
	}
	if len(v.candidates) == 0 {
		return v, v.storeUnidentified(ReasonNoEnrolment)
	}
	enrolments := make(map[TraineeID]Enrolment, len(v.candidates))
	for id, c := range v.candidates {
		enrolments[id] = c.Enrolment
	}
	return v, append(v.advise(AdviceNone), OpenCamera{}, IdentifyFace{enrolments}, WakeAt{v.deadline})
}

// yields reports whether a card may take the visit's place: nobody is named yet,
// and no record is on its way.
func (v *Visit) yields() bool { return v.candidates != nil && v.stage == looking }

// compared gives whose template a match is with, and where they belong.
func (v *Visit) compared(m Match) candidate {
	if v.candidates != nil {
		return v.candidates[m.Trainee]
	}
	return candidate{v.place, v.enrolment}
}

// reaches reports whether a match is over its threshold, and clear of the
// second candidate if nobody was named.
func (v *Visit) reaches(m Match) bool {
	return m.Score >= v.threshold(m) && (v.candidates == nil || m.Margin >= leastMargin(m))
}

// passes reports whether a match may be accepted. A card's holder passes at once
// if far above the threshold; who was chosen from many never does.
func (v *Visit) passes(m Match) bool {
	sure := v.candidates == nil && m.Score >= v.threshold(m)+sureMargin
	return v.reaches(m) && (sure || m.Frames >= settledFrames)
}

// leastMargin is the margin that an identification must reach.
func leastMargin(m Match) float64 {
	if m.Threshold > 0 {
		return m.LeastMargin
	}
	return identifyMargin
}

// storeUnidentified notes a face that nobody could be named by. It guesses
// nobody: whom the face came nearest to is not kept.
func (v *Visit) storeUnidentified(reason Reason) []Action {
	record := NewRecord(TypeUnknown, UnknownBody{
		Tapped: formatTime(v.tap.At), Reason: reason, Face: &v.face, Signals: v.signals,
	})
	return v.store(record, Screen{State: ScreenNoted, At: clockTime(v.tap.At), Reason: string(reason)})
}
