package attendance

import "time"

// TraineeID is the centre's opaque id of a person. Records carry it and
// nothing else about them.
type TraineeID string

// FaceLevel is what a face check proved.
type FaceLevel string

const (
	FaceNone      FaceLevel = "none"
	FaceMatch     FaceLevel = "match"           // the template matched
	FacePAD       FaceLevel = "match+pad"       // and a measured presentation-attack check passed
	FaceChallenge FaceLevel = "match+challenge" // and a random challenge was answered
)

// Advice is the one thing the person before the camera should change. It is a
// key of the panel's texts.
type Advice string

const (
	AdviceNone      Advice = ""
	AdviceNoFace    Advice = "no_face"     // nobody to be seen: look at the camera
	AdviceOne       Advice = "one_person"  // more than one face
	AdviceCloser    Advice = "closer"      // face under the smallest usable size
	AdviceFarther   Advice = "farther"     // face larger than the camera sees whole
	AdviceCamera    Advice = "camera_wait" // the camera is being brought back
	AdviceNotSure   Advice = "not_sure"    // a clear face, not (yet) the enrolled one; set by the visit
	AdviceTurnTo    Advice = "face_camera" // turned away
	AdviceBrighter  Advice = "brighter"    // too dark to tell
	AdviceDarker    Advice = "darker"      // too much light on the face
	AdviceBacklight Advice = "backlight"   // the light stands behind the person
	AdviceStill     Advice = "still"       // blurred: moving, or out of focus
	AdviceEyes      Advice = "open_eyes"   // eyes closed
	AdviceUncover   Advice = "uncover"     // a mask, glasses or a hand before the face
	AdviceLeft      Advice = "turn_left"   // at an enrolment: turn the head a little, to one's own left
	AdviceRight     Advice = "turn_right"  // the same to the right
)

// Match compares the face before the camera, as the last usable frames saw it,
// with the enrolled template; or, where nobody was named, with those of all
// candidates, and is then of the most like one. Whether it passes is for the
// rules of the class to say.
type Match struct {
	Trainee  TraineeID // whose template it was compared with
	Score    float64   // cosine
	Margin   float64   // of an identification: cosine by which Score leads the second candidate's; to -1 if there is none
	Frames   int       // usable frames in a row of this face that Score was made of, from 1
	Quality  float64   // 0 to 1, the detector's score of the face
	Liveness float64   // 0 to 1, advice only; negative if not measured
	Model    string    // SHA-256 of the embedder, lower-case hex

	// Threshold is the cosine that was calibrated for Model; 0 if none was, and
	// then the rules of the class say one. LeastMargin is the calibrated margin of
	// an identification. Calibration names the file.
	Threshold   float64
	LeastMargin float64
	Calibration string

	Like *Likeness // nil if no other trainee of this session looked like it
}

// Likeness says that this face was accepted for another trainee of the same
// session: one person, perhaps, with two cards.
type Likeness struct {
	Trainee TraineeID
	Score   float64 // cosine of the two faces
}

// Look is what one camera frame said, or that there is no camera: a Match, an
// Advice, or both if the picture is poor and a Match may be wronged by it.
type Look struct {
	At      time.Time // when the worker's answer arrived
	Advice  Advice
	Match   *Match
	Suspect bool // the camera shows a still or a repeated film: no look of it counts
}

// Seat is a trainee's place in a session that is open: whose face may be
// checked, and with which template.
type Seat struct {
	Session   SessionID
	Enrolment Enrolment
}

// poorPicture reports whether the advice is about a face that is there but not
// seen well enough to judge it.
func (a Advice) poorPicture() bool {
	switch a {
	case AdviceCloser, AdviceFarther, AdviceTurnTo, AdviceBrighter, AdviceDarker, AdviceBacklight, AdviceStill, AdviceEyes, AdviceUncover:
		return true
	}
	return false
}
