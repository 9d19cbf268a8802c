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
	AdviceNotSure  Advice = "not_sure"    // a clear face, not (yet) the enrolled one; set by the visit
	AdviceTurnTo   Advice = "face_camera" // turned away
	AdviceBrighter Advice = "brighter"    // too dark to tell
)

// Match compares one usable face with the enrolled template. Whether it passes
// is for the rules of the class to say.
type Match struct {
	Score    float64 // cosine
	Quality  float64 // 0 to 1, the detector's score of the face
	Liveness float64 // 0 to 1, advice only; negative if not measured
	Model    string  // SHA-256 of the embedder, lower-case hex
}

// Look is what one camera frame said, or that there is no camera: either a
// Match or an Advice.
type Look struct {
	At     time.Time // when the worker's answer arrived
	Advice Advice
	Match  *Match
}
