package attendance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// RecordType is the "type" of a record line. docs/record.md lists the body of
// each.
type RecordType string

const (
	TypeOpen     RecordType = "open"     // line 1 of an epoch
	TypeCheckin  RecordType = "checkin"  // a trainee's tap and what was decided
	TypeUnknown  RecordType = "unknown"  // a card that stands on no roster
	TypeFault    RecordType = "fault"    // a device failed a person; no attendance
	TypeConsent  RecordType = "consent"  // a trainee's consent to a face template
	TypeEnrol    RecordType = "enrol"    // a consented face template
	TypeWithdraw RecordType = "withdraw" // an enrolment counts no more, and why
	TypeErase    RecordType = "erase"    // a withdrawn template's key and file are gone
	TypePackage  RecordType = "package"  // a class package was accepted
	TypeGap      RecordType = "gap"      // records were lost with a damaged file
	TypePending  RecordType = "pending"  // a code that cannot be checked here; no attendance
	TypeSession  RecordType = "session"  // a session opened or closed
	TypeAnchor   RecordType = "anchor"   // trusted time arrived

	TypeAdmin      RecordType = "admin"      // the answer to a command
	TypeCorrection RecordType = "correction" // what a record before it should have said
	TypeKey        RecordType = "key"        // the ledger key was changed
)

// Record is a type and the bytes of its body, encoded once and from then on
// bytes.
type Record struct {
	Type RecordType
	Body []byte
}

// Stored is the ledger's answer once a record is on disk.
type Stored struct {
	Seq  uint64
	Code string // short code, prefix of the line's hash
}

// TimeLayout is the one form a time has in a body (RFC 3339, milliseconds).
const TimeLayout = "2006-01-02T15:04:05.000Z07:00"

// CardEvidence is what a record says of a card. Never a number of it.
type CardEvidence struct {
	Kind    CredentialKind `json:"kind"`
	Level   CardLevel      `json:"level"`
	Partial bool           `json:"partial,omitempty"`
	Reader  string         `json:"reader"`
}

// Evidence is what a record says of the card of a tap that was read; nothing if
// it was a touch on the screen.
func (t Tap) Evidence() CardEvidence {
	if t.Kind == Touched {
		return CardEvidence{}
	}
	c := t.Credential
	return CardEvidence{Kind: c.Kind, Level: c.Level, Partial: c.Partial(), Reader: t.Reader}
}

// FaceEvidence is what a record says of a face check: scores, never a picture
// or a template.
type FaceEvidence struct {
	Level        FaceLevel `json:"level"`
	Mode         FaceMode  `json:"mode,omitempty"` // absent: compared with the one trainee whom the card named
	Tries        int       `json:"tries"`
	Score        float64   `json:"score,omitempty"`        // best cosine; absent if no face was usable
	Threshold    float64   `json:"threshold,omitempty"`    // the one applied
	Margin       float64   `json:"margin,omitempty"`       // identified: by which Score led the second candidate's
	LeastMargin  float64   `json:"least_margin,omitempty"` // identified: the one asked for
	Uncalibrated bool      `json:"uncalibrated,omitempty"`
	Quality      float64   `json:"quality,omitempty"`
	Liveness     *float64  `json:"liveness,omitempty"`    // advice only
	Model        string    `json:"model,omitempty"`       // SHA-256 of the embedder
	Enrol        uint64    `json:"enrol,omitempty"`       // seq of the enrol record relied on
	Frames       int       `json:"frames,omitempty"`      // frames that Score was made of
	Calibration  string    `json:"calibration,omitempty"` // SHA-256 of the calibration file that Threshold is from
	Like         *LikeFace `json:"like,omitempty"`        // with signal same_face
}

// FaceMode says what a face was compared with.
type FaceMode string

// FaceIdentified is of a check-in without a card: the face was searched among
// the enrolled trainees of the sessions that were open, 1:N.
const FaceIdentified FaceMode = "identified"

// LikeFace names the check-in of another trainee of this session whose face
// looked like this one.
type LikeFace struct {
	Checkin uint64  `json:"checkin"` // its seq
	Score   float64 `json:"score"`   // cosine of the two faces
}

// Signal is what a person should look into. It never decides anything.
type Signal string

const (
	SignalFirstUse Signal = "first_use"      // the first match with this enrolment
	SignalSameFace Signal = "same_face"      // the face of another trainee's check-in to this session
	SignalCamera   Signal = "camera_suspect" // the camera shows a still or a repeated film
)

// CheckinBody is the body of a checkin record.
type CheckinBody struct {
	Trainee  TraineeID     `json:"trainee"`
	Class    ClassID       `json:"class"`
	Session  SessionID     `json:"session,omitempty"` // absent with no_session
	Decision Outcome       `json:"decision"`
	Reason   Reason        `json:"reason,omitempty"`
	LateMin  int           `json:"late_min,omitempty"`
	First    uint64        `json:"first,omitempty"` // with duplicate: seq of the check-in that counts
	Tapped   string        `json:"tapped"`          // wall time of the tap, which the decision used
	Card     CardEvidence  `json:"card,omitzero"`   // absent where a face alone was presented
	Face     *FaceEvidence `json:"face,omitempty"`  // absent where no face check was due
	Profile  ProfileRef    `json:"profile"`
	Code     string        `json:"code,omitempty"` // with level signed: the nonce of the class code
	Signals  []Signal      `json:"signals,omitempty"`
}

// UnknownBody is the body of an unknown record. Hash is keyed with the
// terminal's own lookup key (base64url), so that the centre can tell who it
// was and nobody else can. Where a face alone was presented there is neither
// hash nor card, and nobody is guessed: Reason and Face say what was seen.
type UnknownBody struct {
	KeyKind KeyKind       `json:"key_kind,omitempty"`
	Hash    string        `json:"hash,omitempty"`
	Tapped  string        `json:"tapped"`
	Card    CardEvidence  `json:"card,omitzero"`
	Reason  Reason        `json:"reason,omitempty"`
	Face    *FaceEvidence `json:"face,omitempty"`
	Signals []Signal      `json:"signals,omitempty"`
}

// PendingBody is the body of a pending record: a code was shown that only
// somebody else could check, such as the electronic social security card's.
// Hash is keyed as in UnknownBody, so that the centre can tell the same code
// again; the text itself is kept nowhere. It identifies nobody.
type PendingBody struct {
	Hash   string `json:"hash"`
	Tapped string `json:"tapped"` // wall time of the scan
	Reader string `json:"reader"`
	First  uint64 `json:"first,omitempty"` // seq of the first pending record of this code: it was shown before
}

// FaultBody is the body of a fault record.
type FaultBody struct {
	Part   string `json:"part"` // "reader" or "camera"
	Code   string `json:"code"` // a CardFault, or CameraSuspect
	Tapped string `json:"tapped"`
	Reader string `json:"reader,omitempty"` // with reader
}

// CameraSuspect is the code of a fault record about a camera that shows a still
// or a repeated film.
const CameraSuspect = string(SignalCamera)

// PackageBody is the body of a package record: the terminal's answer to a
// class package.
type PackageBody struct {
	Class    ClassID `json:"class"`
	Serial   uint64  `json:"serial"`
	SHA256   string  `json:"sha256"` // of the package as it came down, lower-case hex
	Sessions int     `json:"sessions"`
	Trainees int     `json:"trainees"`
}

// OpenBody is the body of an open record, line 1 of an epoch.
type OpenBody struct {
	Reason   string `json:"reason"` // "new" or what became of the store before
	Terminal string `json:"terminal"`
	Key      string `json:"key"` // key id of the ledger key
	Software string `json:"software"`
	// Handovers lead from the certificate's key to Key, in order, where key
	// records changed it.
	Handovers []string   `json:"handovers,omitempty"`
	Last      *LastKnown `json:"last,omitempty"`
}

// GapBody is the body of a gap record: records From to To were lost with a
// damaged file of this log, or of the earlier one that Log names.
type GapBody struct {
	Log    string `json:"log,omitempty"`
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Reason string `json:"reason"` // "damaged" or "missing"
}

// SessionEvent is what a session record tells of.
type SessionEvent string

const (
	SessionOpened SessionEvent = "opened" // check-in began, by the class package's timetable
	SessionClosed SessionEvent = "closed"
)

// SessionEvents lists every event.
var SessionEvents = []SessionEvent{SessionOpened, SessionClosed}

// SessionBody is the body of a session record.
type SessionBody struct {
	Class   ClassID      `json:"class"`
	Session SessionID    `json:"session"`
	Event   SessionEvent `json:"event"`
	Start   string       `json:"start"` // by the timetable
	End     string       `json:"end"`
	Serial  uint64       `json:"serial"`            // of the class package that the timetable stands in
	Present *int         `json:"present,omitempty"` // with closed: how many had checked in
}

// TimeSource is who brought trusted time.
type TimeSource string

const (
	TimeKernel  TimeSource = "kernel"  // the kernel says that it is synchronised (NTP, PTP, a good clock chip)
	TimeReceipt TimeSource = "receipt" // the centre signed a receipt within ten seconds of asking
)

// TimeSources lists every source.
var TimeSources = []TimeSource{TimeKernel, TimeReceipt}

// AnchorBody is the body of an anchor record: at UpMS of the boot that the
// record's own stamp names it was Wall, give or take ErrMS. Earlier records of
// the same boot are dated by it.
type AnchorBody struct {
	Source TimeSource `json:"source"`
	Wall   string     `json:"wall"`
	UpMS   int64      `json:"up_ms"`
	ErrMS  int64      `json:"err_ms"`
	Seq    uint64     `json:"seq,omitempty"` // with receipt: the record that it names
}

// KeyBody is the body of a key record: heads after it are by the new key.
// Handover is the old key's signed word for it.
type KeyBody struct {
	Old      string `json:"old"` // key ids
	New      string `json:"new"`
	Handover string `json:"handover"` // JWS
}

// LastKnown is the last line a terminal remembers of its ledger before this
// epoch.
type LastKnown struct {
	Log  string `json:"log"`
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// body is any of the types above.
type body interface {
	CheckinBody | UnknownBody | PendingBody | FaultBody | PackageBody | OpenBody | GapBody |
		ConsentBody | EnrolBody | WithdrawBody | EraseBody |
		SessionBody | AnchorBody | KeyBody | AdminBody | CorrectionBody
}

// NewRecord encodes a body. It is the one place where that is done.
func NewRecord[B body](typ RecordType, b B) Record {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(b); err != nil {
		panic("attendance: encoding a " + string(typ) + " body: " + err.Error())
	}
	return Record{Type: typ, Body: bytes.TrimSuffix(buf.Bytes(), []byte("\n"))}
}

// ReadBody decodes a body. Fields of a later version are passed over.
func ReadBody[B body](raw []byte) (B, error) {
	var b B
	if err := json.Unmarshal(raw, &b); err != nil {
		return b, fmt.Errorf("reading a record body: %w", err)
	}
	return b, nil
}

func formatTime(t time.Time) string { return t.Format(TimeLayout) }
