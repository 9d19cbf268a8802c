package attendance

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Enrolment is what the ledger says of a trainee's consented face template:
// the sequence number of the enrol record, the consent it rests on, the
// embedder's SHA-256 (lower-case hex) and the salted hash of the sealed
// template, SHA-256(salt || sealed), both base64url without padding. A template
// that does not hash to it is not used.
type Enrolment struct {
	Seq     uint64
	Consent string
	Model   string
	Salt    string
	Hash    string
	Key     string // id of the subject key, as in [EnrolBody]
}

// ConsentScope is what a consent allows.
type ConsentScope string

// ScopeFace allows a face template, sealed and kept on this terminal, to
// confirm attendance and nothing else.
const ScopeFace ConsentScope = "face"

// ConsentBody is the body of a consent record. The consent itself, with the
// notice that was read and the signature, is on file under its id.
type ConsentBody struct {
	Trainee TraineeID     `json:"trainee"`
	Consent string        `json:"consent"` // id of the consent on file
	Scope   ConsentScope  `json:"scope"`
	Officer string        `json:"officer"`        // who took it, id from the class package
	Card    *CardEvidence `json:"card,omitempty"` // the trainee's own card, which confirmed it; absent if the officer named the trainee
}

// Pose is how a face was turned in a frame of an enrolment, as the person
// sees it.
type Pose string

const (
	PoseFront Pose = "front"
	PoseLeft  Pose = "left"
	PoseRight Pose = "right"
)

// EnrolBody is the body of an enrol record. It is worth the word of the
// officer it names.
type EnrolBody struct {
	Trainee     TraineeID     `json:"trainee"`
	Consent     string        `json:"consent"`                // id of the consent on file
	Officer     string        `json:"officer"`                // id from the class package
	OfficerCard *CardEvidence `json:"officer_card,omitempty"` // the officer's card; absent in records of the first builds
	Model       string        `json:"model"`                  // SHA-256 of the embedder
	Salt        string        `json:"salt"`                   // base64url
	Hash        string        `json:"hash"`                   // SHA-256(salt || sealed template), base64url
	Key         string        `json:"key,omitempty"`          // id of the subject key that sealed it, base64url
	Frames      int           `json:"frames"`
	Poses       []Pose        `json:"poses,omitempty"` // of the frames, in the order taken
	Quality     float64       `json:"quality"`
	Likeness    float64       `json:"likeness,omitempty"`  // least cosine of a frame with the template: self-consistency
	Duplicate   float64       `json:"duplicate,omitempty"` // greatest cosine with another trainee's template here; absent if there is none
	Resembles   TraineeID     `json:"resembles,omitempty"` // whose template is that like, where the officer decided that they are two people
}

// WithdrawReason says why an enrolment counts no more.
type WithdrawReason string

const (
	WithdrawConsent  WithdrawReason = "consent"  // the trainee withdrew the consent, which cannot be used again
	WithdrawCentre   WithdrawReason = "centre"   // the centre ordered it; the consent stands
	WithdrawOperator WithdrawReason = "operator" // somebody at the terminal ordered it: a mistake, the end of a course; the consent stands
)

// WithdrawBody is the body of a withdraw record. From it on the template is not
// used; an erase record follows when it is gone.
type WithdrawBody struct {
	Trainee TraineeID      `json:"trainee"`
	Consent string         `json:"consent"`
	Enrol   uint64         `json:"enrol,omitempty"` // seq of the enrol record; absent if there was a consent and no template
	Reason  WithdrawReason `json:"reason"`
}

// EraseBody is the body of an erase record: the key and the file of the
// template that Withdraw names are gone.
type EraseBody struct {
	Trainee  TraineeID `json:"trainee"`
	Withdraw uint64    `json:"withdraw"`      // seq of the withdraw record
	Key      string    `json:"key,omitempty"` // id of the subject key that was destroyed, as in the enrol record
}

// Withdrawn is an enrolment that counts no more and whose template may still
// be on this box.
type Withdrawn struct {
	Trainee   TraineeID
	Seq       uint64    // of the withdraw record
	Enrolment Enrolment // zero if there was a consent and no template
}

type consentKey struct {
	Trainee TraineeID
	ID      string
}

func (b *Book) observeEnrolment(seq uint64, typ RecordType, raw []byte) error {
	switch typ {
	case TypeConsent:
		return observe(seq, raw, b.consent)
	case TypeEnrol:
		return observe(seq, raw, b.enrol)
	case TypeWithdraw:
		return observe(seq, raw, b.withdraw)
	default:
		return observe(seq, raw, b.erase)
	}
}

func observe[B body](seq uint64, raw []byte, take func(uint64, B) error) error {
	read, err := ReadBody[B](raw)
	if err != nil {
		return err
	}
	return take(seq, read)
}

// consent takes a consent, which stands in place of any earlier one.
func (b *Book) consent(_ uint64, c ConsentBody) error {
	if ended, withdrawn := b.ended[consentKey{c.Trainee, c.Consent}]; withdrawn {
		return fmt.Errorf("gives a consent again that record %d withdrew", ended)
	}
	b.consents[c.Trainee] = c.Consent
	return nil
}

// enrol takes a template into use, unless its consent was withdrawn. Records of
// the first builds, which name no officer's card, came without consent records.
func (b *Book) enrol(seq uint64, e EnrolBody) error {
	if ended, withdrawn := b.ended[consentKey{e.Trainee, e.Consent}]; withdrawn {
		return fmt.Errorf("enrols under a consent that record %d withdrew", ended)
	}
	b.enrolments[e.Trainee] = Enrolment{Seq: seq, Consent: e.Consent, Model: e.Model, Salt: e.Salt, Hash: e.Hash, Key: e.Key}
	if b.consents[e.Trainee] != e.Consent && e.OfficerCard != nil {
		return errors.New("enrols under a consent that no record gives")
	}
	return nil
}

func (b *Book) withdraw(seq uint64, w WithdrawBody) error {
	live, enrolled := b.enrolments[w.Trainee]
	delete(b.enrolments, w.Trainee) // whatever the record names: in doubt a template is not used
	b.withdrawn[w.Trainee] = Withdrawn{Trainee: w.Trainee, Seq: seq, Enrolment: live}
	if w.Reason == WithdrawConsent {
		b.ended[consentKey{w.Trainee, w.Consent}] = seq
		delete(b.consents, w.Trainee)
	}
	if w.Enrol != 0 && (!enrolled || live.Seq != w.Enrol) {
		return fmt.Errorf("withdraws enrol record %d, which is not this trainee's live one", w.Enrol)
	}
	return nil
}

func (b *Book) erase(_ uint64, e EraseBody) error {
	w, open := b.withdrawn[e.Trainee]
	if !open || w.Seq != e.Withdraw {
		return fmt.Errorf("says that a template was erased which record %d did not withdraw", e.Withdraw)
	}
	delete(b.withdrawn, e.Trainee)
	return nil
}

// Enrolment gives the template that counts for a trainee.
func (b *Book) Enrolment(t TraineeID) (Enrolment, bool) {
	e, ok := b.enrolments[t]
	return e, ok
}

// Enrolments gives every template that counts.
func (b *Book) Enrolments() map[TraineeID]Enrolment { return maps.Clone(b.enrolments) }

// Consent gives the id of the trainee's consent that stands.
func (b *Book) Consent(t TraineeID) (id string, ok bool) {
	id, ok = b.consents[t]
	return id, ok
}

// ConsentEnded gives the record that withdrew a trainee's consent.
func (b *Book) ConsentEnded(t TraineeID, id string) (seq uint64, ended bool) {
	seq, ended = b.ended[consentKey{t, id}]
	return seq, ended
}

// Unerased lists what was withdrawn and has no erase record yet, in the order
// of the withdrawals.
func (b *Book) Unerased() []Withdrawn {
	return slices.SortedFunc(maps.Values(b.withdrawn), func(x, y Withdrawn) int { return cmp.Compare(x.Seq, y.Seq) })
}

// EnrolFault is why an enrolment does not go on. It is a key of the panel's
// texts.
type EnrolFault string

const (
	EnrolCardUnread EnrolFault = "card_unread" // the card gave nothing: again
	EnrolNotTrainee EnrolFault = "not_trainee" // a card of nobody on the roster, or of another trainee than the one named
	EnrolNotOfficer EnrolFault = "not_officer" // not the card of an officer of the trainee's class
	EnrolNoCard     EnrolFault = "no_card"     // nobody presented a card in time
	EnrolNoFace     EnrolFault = "no_face"     // no steady view of one face in time
	EnrolDuplicate  EnrolFault = "duplicate"   // another trainee's template looks alike: the officer decides
	EnrolStopped    EnrolFault = "stopped"     // the officer's program ended it
	EnrolNotStored  EnrolFault = "not_stored"  // the disk did not take it
)
