package attendance

// ScreenState names what the panel shows; docs/design.md lists the words and
// shapes of each. The value is the key of the panel's texts.
type ScreenState string

const (
	ScreenStarting  ScreenState = "starting"   // not ready to store a check-in yet
	ScreenNoClass   ScreenState = "no_class"   // no session is open now
	ScreenIdle      ScreenState = "idle"       // insert your card
	ScreenReading   ScreenState = "reading"    // keep the card in
	ScreenLook      ScreenState = "look"       // look at the camera, with preview and one advice
	ScreenRetry     ScreenState = "retry"      // not confirmed, try again (2/3)
	ScreenRecorded  ScreenState = "recorded"   // green: on disk
	ScreenLate      ScreenState = "late"       // amber: on disk, late by Minutes
	ScreenAlready   ScreenState = "already"    // checked in before, at At
	ScreenUnknown   ScreenState = "unknown"    // not on this list, noted: see the teacher
	ScreenNoted     ScreenState = "noted"      // not confirmed, noted: see the teacher
	ScreenCardFault ScreenState = "card_fault" // insert again; Reason says why
	ScreenPaused    ScreenState = "paused"     // cannot store; Reason is the code for the caretaker

	ScreenEnrolTrainee ScreenState = "enrol_trainee" // enrolment: the trainee's card, please
	ScreenEnrolOfficer ScreenState = "enrol_officer" // enrolment: the officer's card, please
	ScreenEnrolLook    ScreenState = "enrol_look"    // enrolment: look at the camera; picture Try of Tries, with preview and one advice
	ScreenEnrolled     ScreenState = "enrolled"      // enrolment: on disk
	ScreenNotEnrolled  ScreenState = "not_enrolled"  // enrolment: did not come about; Reason says why
)

// ScreenStates lists every state, in the order a person may meet them.
var ScreenStates = []ScreenState{
	ScreenStarting, ScreenNoClass, ScreenIdle, ScreenReading, ScreenLook, ScreenRetry, ScreenRecorded,
	ScreenLate, ScreenAlready, ScreenUnknown, ScreenNoted, ScreenCardFault, ScreenPaused,
	ScreenEnrolTrainee, ScreenEnrolOfficer, ScreenEnrolLook, ScreenEnrolled, ScreenNotEnrolled,
}

// Screen is what a trainee sees. It carries the masked display name from the
// class package and never a number of a card or a person.
type Screen struct {
	State   ScreenState `json:"state"`
	Name    string      `json:"name,omitempty"`    // masked, "张*明"
	At      string      `json:"at,omitempty"`      // local time of day, "09:03"; with already: of the first check-in
	Minutes int         `json:"minutes,omitempty"` // with late
	Ordinal int         `json:"ordinal,omitempty"` // how many have checked in to this session, this one included
	Code    string      `json:"code,omitempty"`    // short code of the record, "3F9C-21AB"
	Try     int         `json:"try,omitempty"`     // with retry: the try that starts now
	Tries   int         `json:"tries,omitempty"`
	Advice  Advice      `json:"advice,omitempty"` // with look and retry
	Reason  string      `json:"reason,omitempty"` // with noted, card_fault, paused, enrol_trainee, enrol_officer, not_enrolled: a key of the panel's texts
	Session string      `json:"session,omitempty"`
	Class   string      `json:"class,omitempty"` // the class's name, for the top bar
	Until   string      `json:"until,omitempty"` // with idle: when the session ends; with no_class: when the next begins

	Identify bool `json:"identify,omitempty"` // with idle: a touch may start a check-in by face alone
}

// Stored reports whether this screen tells the trainee that something was
// recorded. No such screen may be shown before the record is on disk.
func (s ScreenState) Stored() bool {
	switch s {
	case ScreenRecorded, ScreenLate, ScreenUnknown, ScreenNoted, ScreenEnrolled:
		return true
	}
	return false
}
