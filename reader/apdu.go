package reader

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A Transmitter carries one command APDU to a card and brings the answer, data
// and status word. It has its own time limit per command and its own goroutine
// rules; a [Card] calls it from one goroutine. Errors wrap the sentinels of
// this package.
type Transmitter interface {
	Transmit(command []byte) (answer []byte, err error)
}

// CommandBudget is how many commands one presented card gets, whatever it
// answers: eight times what a good one needs.
const CommandBudget = 64

// Card is one card as presented: it counts the commands spent on it, over all
// attempts to read it. It belongs to one goroutine. The exported fields are set
// before the first reading; each may stay empty.
type Card struct {
	// PSAM opens cards of version 3.00 and proves them. Without it they are
	// read as far as they are open.
	PSAM *PSAM
	// ATR is the card's answer to reset, whose end a PSAM derives keys by.
	ATR []byte
	// Today is the day, "2006-01-02", by which expired cards are refused with
	// ErrExpired. Leave it empty where the clock is not known to be good, and
	// where expired cards are only to be marked: the credential says until when.
	Today string

	transmitter Transmitter
	left        int
	random      func([]byte)
	notOpened   bool  // it refused a PSAM: a second try could lock it
	doubt       error // of the last reading
}

// NewCard starts the budget of a card that has just been presented.
func NewCard(t Transmitter) *Card {
	return &Card{
		transmitter: t,
		left:        CommandBudget,
		random:      func(b []byte) { rand.Read(b) }, // never fails
	}
}

// Status words that are steps and not ends (ISO 7816-4 5.6).
const (
	swOK       = 0x9000
	swMore     = 0x61 // first byte: that much more to fetch
	swWrongLe  = 0x6C // first byte: ask again for that much
	swRefused  = 0x6982
	swNotNow   = 0x6985
	swLocked   = 0x6983
	swNoFunc   = 0x6A81 // on SELECT: application locked
	swNoFile   = 0x6A82
	swNoRecord = 0x6A83
	swForever  = 0x9303 // application locked for good
)

// once sends one command and takes the status word off its answer.
func (c *Card) once(ctx context.Context, command []byte) ([]byte, uint16, error) {
	if err := ctx.Err(); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = ErrTimeout
		}
		return nil, 0, err
	}
	if c.left == 0 {
		return nil, 0, fmt.Errorf("no end after %d commands: %w", CommandBudget, ErrBadFormat)
	}
	c.left--
	answer, err := c.transmitter.Transmit(command)
	if err != nil {
		return nil, 0, err
	}
	n := len(answer) - 2
	if n < 0 {
		// PC/SC gives zero bytes and no error for a card that vanishes.
		return nil, 0, fmt.Errorf("answer of %d bytes: %w", len(answer), ErrCardRemoved)
	}
	return answer[:n], binary.BigEndian.Uint16(answer[n:]), nil
}

// send sends a command and whatever T=0 wants besides: a command again with the
// right length after 6Cxx, and GET RESPONSE after 61xx (ISO 7816-3, 7816-4 5.3).
func (c *Card) send(ctx context.Context, command []byte) ([]byte, error) {
	data, sw, err := c.once(ctx, command)
	if err == nil && sw>>8 == swWrongLe {
		command = append(slices.Clone(command[:4]), byte(sw))
		data, sw, err = c.once(ctx, command)
	}
	all := slices.Clone(data)
	for err == nil && sw>>8 == swMore {
		data, sw, err = c.once(ctx, []byte{0x00, 0xC0, 0x00, 0x00, byte(sw)})
		all = append(all, data...)
	}
	if err != nil {
		return nil, err
	}
	if sw != swOK {
		return nil, statusError(sw)
	}
	return all, nil
}

// tell sends a command whose answer is not wanted. A T=0 card keeps it ready
// (61xx), and forgets it at the next command; that saves an exchange.
func (c *Card) tell(ctx context.Context, command []byte) error {
	_, sw, err := c.once(ctx, command)
	if err != nil {
		return err
	}
	if sw != swOK && sw>>8 != swMore {
		return statusError(sw)
	}
	return nil
}

// statusError gives a status word the meaning it has anywhere but on the
// selection of the application.
func statusError(sw uint16) *StatusError {
	kind := ErrBadFormat
	switch sw {
	case swRefused, swNotNow, swLocked:
		kind = ErrAccessRefused
	case swForever:
		kind = ErrCardBlocked
	}
	return &StatusError{SW: sw, kind: kind}
}
