package reader

import (
	"errors"
	"fmt"

	"rollcall/attendance"
)

// The ways reading a card ends without a credential. Drivers map what their
// device says onto these; callers branch on them, and [FaultOf] says what goes
// into a record.
var (
	ErrReaderGone      = errors.New("the reader is not there: check its cable")
	ErrServiceDown     = errors.New("the smart card service does not run: start pcscd")
	ErrReaderBusy      = errors.New("another program keeps the reader to itself: end it")
	ErrReaderHung      = errors.New("the reader or its card stopped answering: take the card out, end other programs that use the reader, then plug it in again")
	ErrCardRemoved     = errors.New("the card was taken out while it was read: insert it again")
	ErrCardReset       = errors.New("another program reset the card")
	ErrCardMute        = errors.New("the card does not answer: turn it over")
	ErrUnsupportedCard = errors.New("not a card this terminal knows")
	ErrAccessRefused   = errors.New("the card refused access")
	ErrCardBlocked     = errors.New("the card is locked by its issuer")
	ErrBadFormat       = errors.New("the card gave unusable data: insert it again")
	ErrBadNumber       = errors.New("a number on the card fails its check")
	ErrExpired         = errors.New("the card is past its date: its holder needs a new one")
	ErrTimeout         = errors.New("reading the card took too long: insert it again")
)

// StatusError is an answer with a status word other than success. It unwraps
// to the sentinel the status word stands for.
type StatusError struct {
	SW   uint16
	kind error
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %04X: %v", e.SW, e.kind) }
func (e *StatusError) Unwrap() error { return e.kind }

// FaultOf gives the fault that records and screens carry for err, and "" for
// nil. What it does not know is unreadable: insert the card again.
func FaultOf(err error) attendance.CardFault {
	if err == nil {
		return ""
	}
	for _, row := range faults {
		if errors.Is(err, row.err) {
			return row.fault
		}
	}
	return attendance.FaultUnreadable
}

// faults joins sentinels to faults. A reader that vanishes takes its card
// along: to the trainee both are a card that was gone too early.
var faults = []struct {
	err   error
	fault attendance.CardFault
}{
	{ErrBadCode, attendance.FaultBadCode}, // before ErrBadFormat, which it is too
	{ErrCardRemoved, attendance.FaultRemoved},
	{ErrReaderGone, attendance.FaultRemoved},
	{ErrServiceDown, attendance.FaultRemoved},
	{ErrCardMute, attendance.FaultMute},
	{ErrUnsupportedCard, attendance.FaultUnsupported},
	{ErrAccessRefused, attendance.FaultUnsupported},
	{ErrCardBlocked, attendance.FaultBlocked},
	{ErrBadNumber, attendance.FaultBadNumber},
	{ErrExpired, attendance.FaultExpired},
	{ErrTimeout, attendance.FaultTimeout},
	{ErrReaderHung, attendance.FaultTimeout},
	{ErrReaderBusy, attendance.FaultUnreadable},
	{ErrCardReset, attendance.FaultUnreadable},
	{ErrBadFormat, attendance.FaultUnreadable},
}
