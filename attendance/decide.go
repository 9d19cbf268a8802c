package attendance

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
	ReasonNoFace      Reason = "no_face"      // nobody stood before the camera
	ReasonNotMatched  Reason = "not_matched"  // a face, not the enrolled one's
	ReasonNoCamera    Reason = "no_camera"    // the camera did not come back in time
	ReasonNoEnrolment Reason = "no_enrolment" // no consented template: not a fault of the trainee
)
