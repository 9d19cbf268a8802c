package attendance

import "time"

// Outcome is what a tap came to.
type Outcome string

const (
	OnTime      Outcome = "on_time"
	Late        Outcome = "late"
	Duplicate   Outcome = "duplicate"   // already checked in to this session
	Unconfirmed Outcome = "unconfirmed" // the card is good, the person was not confirmed: a person decides
	NoSession   Outcome = "no_session"  // on the roster, but the class does not meet now
	NotOnRoster Outcome = "not_on_roster"
)

// Reason says why an outcome is not a check-in.
type Reason string

const (
	ReasonNone        Reason = ""
	ReasonNoFace      Reason = "no_face"        // nobody stood before the camera
	ReasonPoorPicture Reason = "poor_picture"   // a face, in no picture clear enough to judge it
	ReasonNotMatched  Reason = "not_matched"    // a face, not the enrolled one's
	ReasonNoCamera    Reason = "no_camera"      // the camera did not come back in time
	ReasonSuspect     Reason = "camera_suspect" // the camera shows a still or a repeated film
	ReasonNoEnrolment Reason = "no_enrolment"   // no consented template: not a fault of the trainee
	ReasonCodeUsed    Reason = "code_used"      // a code that was shown before
	ReasonCodeTime    Reason = "code_time"      // a class code that is not valid at this time
	// ReasonNotIdentified is of a look that nobody was named for: a face that is
	// not clearly one of the session's.
	ReasonNotIdentified Reason = "not_identified"
	ReasonCodePending   Reason = "code_pending" // a code that cannot be checked here; of a screen, not of a decision
)

// Evidence is what is known of a tap when it is decided.
type Evidence struct {
	OnRoster bool
	Open     bool          // the trainee's class has a session open
	First    *FirstCheckin // an earlier check-in to this session, if any
	Face     *FaceEvidence // nil while no face check was made
	Reason   Reason        // why the face check gave no match
}

// Decision is what a tap came to, and why.
type Decision struct {
	Outcome Outcome
	Reason  Reason
	LateMin int // whole minutes after the session's start, with Late
}

// Decide applies the rules of a profile to the evidence of one tap. It is
// pure: the same evidence gives the same decision at the terminal, at the
// centre and in the verifier. tapped is the time of the tap, not of the
// decision, so a slow camera makes nobody late.
func Decide(ev Evidence, s Session, p Profile, tapped time.Time) Decision {
	switch {
	case !ev.OnRoster:
		return Decision{Outcome: NotOnRoster}
	case !ev.Open:
		return Decision{Outcome: NoSession}
	case ev.First != nil:
		return Decision{Outcome: Duplicate}
	case ev.Face == nil || ev.Face.Level == FaceNone:
		return Decision{Outcome: Unconfirmed, Reason: ev.Reason}
	}
	late := tapped.Sub(s.Start)
	if late > time.Duration(p.LateGraceMin)*time.Minute {
		return Decision{Outcome: Late, LateMin: int(late / time.Minute)}
	}
	return Decision{Outcome: OnTime}
}
