package pcsc

import (
	"fmt"
	"time"

	"rollcall/reader"
)

// Binding is PC/SC itself, as far as the driver uses it: [System], or the
// simulator's, which can do what virtual readers cannot. Errors are a [Code].
// Any call may block for ever but Cancel.
type Binding interface {
	// Establish opens a conversation with the service (SCardEstablishContext).
	Establish() (Context, error)
}

// Context is one conversation with the service. While one of its calls runs, the
// others wait, Cancel excepted.
type Context interface {
	// Readers lists the readers; none is an empty list (SCardListReaders).
	Readers() ([]string, error)
	// Wait returns when a state is no longer as its Current says, and fills in
	// Event and ATR; else CodeTimeout after limit, and the states are as they
	// were (SCardGetStatusChange). In the whole process one call may run at a
	// time: go through [wait].
	Wait(states []State, limit time.Duration) error
	// Connect opens the card in a reader for shared use with T=0 or T=1.
	Connect(reader string) (Handle, error)
	// Cancel ends a Wait that runs; before it runs, Cancel is lost.
	Cancel() error
	// Release ends the conversation.
	Release() error
}

// Handle is the connection to one card.
type Handle interface {
	// Transmit carries one command. It has no limit of its own, and a card that
	// vanishes may give no bytes and no error.
	Transmit(command []byte) (answer []byte, err error)
	// Reconnect takes up a card that another program reset.
	Reconnect() error
	// Disconnect closes the connection and leaves the card powered.
	Disconnect() error
}

// State is what is known of a reader and what is asked.
type State struct {
	Reader  string
	Current Flags // what the caller knows; 0 for nothing
	Event   Flags // what is
	ATR     []byte
}

// Flags is the state of a reader (SCARD_STATE_*). Its upper 16 bits count
// insertions and removals.
type Flags uint32

const (
	StateIgnore      Flags = 0x0001
	StateChanged     Flags = 0x0002
	StateUnknown     Flags = 0x0004
	StateUnavailable Flags = 0x0008
	StateEmpty       Flags = 0x0010
	StatePresent     Flags = 0x0020
	StateExclusive   Flags = 0x0080
	StateInUse       Flags = 0x0100
	StateMute        Flags = 0x0200
)

func (f Flags) count() uint16 { return uint16(f >> 16) }

// gone reports that the reader is not there any more.
func (f Flags) gone() bool { return f&(StateUnknown|StateIgnore|StateUnavailable) != 0 }

// Code is a result code of PC/SC other than success. It prints its number: the
// binding's own text would call C.
type Code uint32

const (
	CodeCancelled         Code = 0x80100002
	CodeInvalidHandle     Code = 0x80100003
	CodeUnknownReader     Code = 0x80100009
	CodeTimeout           Code = 0x8010000A
	CodeSharing           Code = 0x8010000B
	CodeNoCard            Code = 0x8010000C
	CodeProtocol          Code = 0x8010000F
	CodeCommunication     Code = 0x80100013
	CodeNotTransacted     Code = 0x80100016
	CodeReaderUnavailable Code = 0x80100017
	CodeNoService         Code = 0x8010001D
	CodeServiceStopped    Code = 0x8010001E
	CodeNoReaders         Code = 0x8010002E
	CodeUnsupportedCard   Code = 0x80100065
	CodeUnresponsiveCard  Code = 0x80100066
	CodeUnpoweredCard     Code = 0x80100067
	CodeResetCard         Code = 0x80100068
	CodeRemovedCard       Code = 0x80100069
)

func (c Code) Error() string { return fmt.Sprintf("pc/sc %08X", uint32(c)) }

// meanings maps codes onto the sentinels of reader. A code that is not here
// means ErrBadFormat: insert the card again.
var meanings = map[Code]error{
	CodeUnknownReader:     reader.ErrReaderGone,
	CodeReaderUnavailable: reader.ErrReaderGone,
	CodeNoService:         reader.ErrServiceDown,
	CodeServiceStopped:    reader.ErrServiceDown,
	CodeCommunication:     reader.ErrServiceDown,
	CodeInvalidHandle:     reader.ErrServiceDown,
	CodeSharing:           reader.ErrReaderBusy,
	CodeRemovedCard:       reader.ErrCardRemoved,
	CodeNotTransacted:     reader.ErrCardRemoved,
	CodeNoCard:            reader.ErrCardRemoved,
	CodeResetCard:         reader.ErrCardReset,
	CodeUnresponsiveCard:  reader.ErrCardMute,
	CodeUnpoweredCard:     reader.ErrCardMute,
	CodeProtocol:          reader.ErrCardMute, // the answer to reset offers no protocol: as good as none
	CodeUnsupportedCard:   reader.ErrUnsupportedCard,
}

// meaning wraps the sentinel of reader that a code stands for. Other errors
// pass.
func meaning(err error) error {
	code, ok := err.(Code)
	if !ok {
		return err
	}
	kind, ok := meanings[code]
	if !ok {
		kind = reader.ErrBadFormat
	}
	return fmt.Errorf("%w: %w", code, kind)
}
