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
	AdviceNone     Advice = ""
	AdviceNoFace   Advice = "no_face"     // nobody to be seen: look at the camera
	AdviceOne      Advice = "one_person"  // more than one face
	AdviceCloser   Advice = "closer"      // face under the smallest usable size
	AdviceCamera   Advice = "camera_wait" // the camera is being brought back
	AdviceNotSure  Advice = "not_sure"    // a clear face, not (yet) the enrolled one
	AdviceTurnTo   Advice = "face_camera" // turned away
	AdviceBrighter Advice = "brighter"    // too dark to tell
)

// Match is the answer to "is this that person?" for one frame with one usable
// face. Score and Threshold are cosines; a threshold belongs to a model and to
// the data it was calibrated on, so Calibrated false is said in the record.
type Match struct {
	Score      float64
	Threshold  float64
	Calibrated bool
	Quality    float64 // 0 to 1, the detector's score of the face
	Liveness   float64 // 0 to 1, advice only; negative if not measured
	Model      string  // SHA-256 of the embedder, lower-case hex
}

// Pass reports whether the face is taken for the enrolled person's.
func (m Match) Pass() bool { return m.Score >= m.Threshold }

// Look is what one camera frame said, or that there is no camera. Exactly one
// of Match and Advice is set, except that a Match that does not pass carries
// AdviceNotSure too.
type Look struct {
	At     time.Time
	Advice Advice
	Match  *Match
}
