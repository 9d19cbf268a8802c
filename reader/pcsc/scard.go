//go:build cgo

package pcsc

import (
	"time"

	"github.com/ebfe/scard"
)

// System gives the PC/SC of this machine. This file alone knows its binding,
// github.com/ebfe/scard; docs/decisions/03-pcsc-binding.md lists the binding's
// faults and where each is kept in.
func System() Binding { return system{} }

type system struct{}

func (system) Establish() (Context, error) {
	c, err := scard.EstablishContext()
	if err != nil {
		return nil, code(err)
	}
	return systemContext{c}, nil
}

type systemContext struct{ context *scard.Context }

func (c systemContext) Readers() ([]string, error) {
	names, err := c.context.ListReaders()
	if err == scard.ErrNoReadersAvailable {
		return nil, nil
	}
	return names, code(err)
}

// Wait hands the binding states of its own each time: it keeps an old ATR where
// there is none any more.
func (c systemContext) Wait(states []State, limit time.Duration) error {
	own := make([]scard.ReaderState, len(states))
	for i, s := range states {
		own[i] = scard.ReaderState{Reader: s.Reader, CurrentState: scard.StateFlag(s.Current)}
	}
	if err := c.context.GetStatusChange(own, limit); err != nil {
		return code(err)
	}
	for i := range states {
		states[i].Event, states[i].ATR = Flags(own[i].EventState), own[i].Atr
	}
	return nil
}

// Connect never asks for a direct connection, on which the binding's Transmit
// panics, and refuses a card with any other protocol for the same reason.
func (c systemContext) Connect(reader string) (Handle, error) {
	card, err := c.context.Connect(reader, scard.ShareShared, scard.ProtocolAny)
	if err != nil {
		return nil, code(err)
	}
	if p := card.ActiveProtocol(); p != scard.ProtocolT0 && p != scard.ProtocolT1 {
		_ = card.Disconnect(scard.LeaveCard)
		return nil, CodeUnsupportedCard
	}
	return systemHandle{card}, nil
}

func (c systemContext) Cancel() error  { return code(c.context.Cancel()) }
func (c systemContext) Release() error { return code(c.context.Release()) }

type systemHandle struct{ card *scard.Card }

// Transmit refuses an empty command, on which the binding panics.
func (h systemHandle) Transmit(command []byte) ([]byte, error) {
	if len(command) == 0 {
		return nil, CodeProtocol
	}
	answer, err := h.card.Transmit(command)
	return answer, code(err)
}

func (h systemHandle) Reconnect() error {
	return code(h.card.Reconnect(scard.ShareShared, scard.ProtocolAny, scard.LeaveCard))
}

func (h systemHandle) Disconnect() error { return code(h.card.Disconnect(scard.LeaveCard)) }

func code(err error) error {
	if e, ok := err.(scard.Error); ok {
		if e == scard.ErrSuccess {
			return nil
		}
		return Code(uint32(e))
	}
	return err
}
