package attendance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// CommandKind is what a command asks for.
type CommandKind string

const (
	CommandResend    CommandKind = "resend"     // send records of a log again
	CommandErase     CommandKind = "erase"      // erase a trainee's face template
	CommandRotateKey CommandKind = "rotate_key" // make a new ledger key
	CommandCorrect   CommandKind = "correct"    // write a correction of a record
)

// CommandKinds lists every kind.
var CommandKinds = []CommandKind{CommandResend, CommandErase, CommandRotateKey, CommandCorrect}

// Command is what the centre orders one terminal to do. It comes signed and is
// parsed only after its signature was checked. Exactly the field that goes with
// Kind is there; rotate_key needs none.
type Command struct {
	V        int         `json:"v"`
	Tenant   string      `json:"tenant"`
	Terminal string      `json:"terminal"`
	Serial   uint64      `json:"serial"` // grows with every command of this terminal
	Issued   time.Time   `json:"issued"`
	Expires  time.Time   `json:"expires"`
	Kind     CommandKind `json:"kind"`

	Resend  *Resend  `json:"resend,omitempty"`
	Erase   *Erase   `json:"erase,omitempty"`
	Correct *Correct `json:"correct,omitempty"`
}

// Resend asks for the records after Seq of a log of the terminal's.
type Resend struct {
	Log string `json:"log"`
	Seq uint64 `json:"seq"`
}

// Erase asks for the end of a trainee's face template. Reason is centre, or
// consent if the trainee withdrew it there.
type Erase struct {
	Trainee TraineeID      `json:"trainee"`
	Reason  WithdrawReason `json:"reason"`
}

// Correct says what a record should have said. The record stays as it is.
type Correct struct {
	Log      string  `json:"log"`
	Seq      uint64  `json:"seq"`
	Hash     string  `json:"hash"`     // of the record's line, base64url
	Decision Outcome `json:"decision"` // what counts instead; "void" takes the record out of account
	Operator string  `json:"operator"` // id of who ordered it
	Reason   string  `json:"reason"`
}

// Void is the decision of a correction that takes a record out of account.
const Void Outcome = "void"

// Corrected lists what a correction may decide.
var Corrected = []Outcome{OnTime, Late, Unconfirmed, NoSession, Void}

// CommandResult is what became of a command.
type CommandResult string

const (
	CommandDone        CommandResult = "done"
	CommandRefused     CommandResult = "refused"     // nothing was begun
	CommandFailed      CommandResult = "failed"      // it was begun and did not come about
	CommandInterrupted CommandResult = "interrupted" // the terminal stopped while it was at it, and cannot say how far it came
)

// CommandResults lists every result.
var CommandResults = []CommandResult{CommandDone, CommandRefused, CommandFailed, CommandInterrupted}

// CommandReason says why a command was refused or failed.
type CommandReason string

const (
	CommandMalformed CommandReason = "malformed" // no signed command, or larger than one may be
	CommandSignature CommandReason = "signature" // not by the centre's key, or not for this purpose
	CommandVersion   CommandReason = "version"   // of a version that this terminal does not know
	CommandAddress   CommandReason = "address"   // for another terminal
	CommandReplayed  CommandReason = "replayed"  // its serial is not above the last one's
	CommandExpired   CommandReason = "expired"
	CommandUnknown   CommandReason = "kind"     // of a kind that this terminal does not know
	CommandArgument  CommandReason = "argument" // what goes with its kind is missing or wrong
	CommandNotHere   CommandReason = "not_here" // the record or trainee is not on this terminal
	CommandStorage   CommandReason = "storage"  // the disk refused
)

// CommandReasons lists every reason.
var CommandReasons = []CommandReason{
	CommandMalformed, CommandSignature, CommandVersion, CommandAddress, CommandReplayed, CommandExpired,
	CommandUnknown, CommandArgument, CommandNotHere, CommandStorage,
}

// ErrCommand is wrapped by every error of this file.
var ErrCommand = errors.New("command refused")

// CommandError is a refusal or a failure with its reason. It unwraps to
// [ErrCommand].
type CommandError struct {
	Reason CommandReason
	Err    error // for the log; never nil
}

func (e *CommandError) Error() string { return fmt.Sprintf("command refused: %s: %v", e.Reason, e.Err) }

// Unwrap gives ErrCommand and the cause.
func (e *CommandError) Unwrap() []error { return []error{ErrCommand, e.Err} }

func refuse(reason CommandReason, format string, args ...any) *CommandError {
	return &CommandError{reason, fmt.Errorf(format, args...)}
}

// MaxCommand bounds a command as it comes, in bytes.
const MaxCommand = 8 << 10

// maxReason bounds what a person gives as a reason, in characters.
const maxReason = 200

// ParseCommand reads the payload of a command. Unknown names are refused: an
// order that is not understood must not be carried out in part. The error is a
// [*CommandError]; with a reason other than malformed the command's Serial is
// to be believed.
func ParseCommand(payload []byte) (Command, error) {
	var c Command
	if err := json.Unmarshal(payload, &struct { // what every version has
		V        *int    `json:"v"`
		Tenant   *string `json:"tenant"`
		Terminal *string `json:"terminal"`
		Serial   *uint64 `json:"serial"`
	}{&c.V, &c.Tenant, &c.Terminal, &c.Serial}); err != nil {
		return Command{}, refuse(CommandMalformed, "payload: %w", err)
	}
	if c.Serial == 0 || c.Terminal == "" || c.Tenant == "" {
		return Command{}, refuse(CommandMalformed, "serial, tenant and terminal must be given")
	}
	if c.V != 1 {
		return c, refuse(CommandVersion, "version %d, this program knows 1", c.V)
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, refuse(CommandArgument, "payload: %w", err)
	}
	return c, c.check()
}

func (c Command) check() error {
	given := map[CommandKind]bool{CommandResend: c.Resend != nil, CommandErase: c.Erase != nil, CommandCorrect: c.Correct != nil}
	switch {
	case !slices.Contains(CommandKinds, c.Kind):
		return refuse(CommandUnknown, "kind %q", c.Kind)
	case !c.Expires.After(c.Issued):
		return refuse(CommandArgument, "it expires before it was issued")
	}
	for kind, there := range given {
		if there != (kind == c.Kind) {
			return refuse(CommandArgument, "%s, with the field %s given: %t", c.Kind, kind, there)
		}
	}
	switch {
	case c.Resend != nil && c.Resend.Log == "":
		return refuse(CommandArgument, "resend names no log")
	case c.Erase != nil && (c.Erase.Trainee == "" || c.Erase.Reason != WithdrawCentre && c.Erase.Reason != WithdrawConsent):
		return refuse(CommandArgument, "erase needs a trainee and the reason centre or consent")
	case c.Correct != nil && !c.Correct.valid():
		return refuse(CommandArgument, "correct needs log, seq, hash, a decision that a correction may make, operator, and a reason of at most %d characters", maxReason)
	}
	return nil
}

func (c Correct) valid() bool {
	return c.Log != "" && c.Seq > 0 && c.Hash != "" && c.Operator != "" && len(c.Operator) <= 64 &&
		slices.Contains(Corrected, c.Decision) && validReason(c.Reason)
}

func validReason(s string) bool {
	return s != "" && utf8.ValidString(s) && utf8.RuneCountInString(s) <= maxReason
}

// AdminBody is the body of an admin record: the answer to a command, or to
// bytes that came as one. Without Serial nobody knows who sent them.
type AdminBody struct {
	Serial uint64        `json:"serial,omitempty"`
	Kind   CommandKind   `json:"kind,omitempty"`
	SHA256 string        `json:"sha256"` // of the command as it came, lower-case hex
	Result CommandResult `json:"result"`
	Reason CommandReason `json:"reason,omitempty"` // with refused and failed
	More   int           `json:"more,omitempty"`   // refusals for this reason since the last such record, which were not written down
}

// CorrectionBody is the body of a correction record: what a record before it
// should have said, by whose word and why. Both stay.
type CorrectionBody struct {
	Correct
	Serial uint64 `json:"serial"` // of the command that ordered it
}
