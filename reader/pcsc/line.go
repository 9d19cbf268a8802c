package pcsc

import (
	"errors"
	"fmt"

	"rollcall/reader"
)

// line is the conversation about one reader's cards. It belongs to one
// goroutine.
type line struct {
	driver *Driver
	name   string
	pcsc   Context // nil until the first card, and after a hung call
}

// establish begins the conversation, if it has not begun.
func (l *line) establish() error {
	if l.pcsc != nil {
		return nil
	}
	pcsc, err := within(l.driver, l.driver.cfg.Binding.Establish, releaseLate)
	if errors.Is(err, reader.ErrReaderHung) {
		err = fmt.Errorf("pcscd does not answer: %w", reader.ErrServiceDown)
	}
	if err == nil {
		l.pcsc = pcsc
	}
	return err
}

// connect opens the card in the reader.
func (l *line) connect() (*link, error) {
	if err := l.establish(); err != nil {
		return nil, err
	}
	pcsc := l.pcsc
	handle, err := call(l, func() (Handle, error) { return pcsc.Connect(l.name) })
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	return &link{line: l, pcsc: pcsc, handle: handle}, nil
}

// call makes one call in the conversation. One that hangs makes the
// conversation useless: it is released when the call returns, if ever.
func call[T any](l *line, f func() (T, error)) (T, error) {
	pcsc := l.pcsc
	value, err := within(l.driver, f, func(T) { releaseLate(pcsc) })
	if errors.Is(err, reader.ErrReaderHung) {
		l.pcsc = nil
	}
	return value, err
}

// drop ends the conversation.
func (l *line) drop() {
	if l.pcsc != nil {
		l.driver.release(l.pcsc)
		l.pcsc = nil
	}
}

// link is the connection to one card; a reader.Transmitter.
type link struct {
	line   *line
	pcsc   Context // the conversation it belongs to
	handle Handle
}

func (l *link) alive() bool { return l.line.pcsc == l.pcsc }

// Transmit carries one command, for at most Config.CommandLimit. After
// ErrReaderHung the link is dead.
func (l *link) Transmit(command []byte) ([]byte, error) {
	if !l.alive() {
		return nil, reader.ErrReaderHung
	}
	return call(l.line, func() ([]byte, error) { return l.handle.Transmit(command) })
}

func (l *link) reconnect() error {
	if !l.alive() {
		return reader.ErrReaderHung
	}
	_, err := call(l.line, func() (struct{}, error) { return struct{}{}, l.handle.Reconnect() })
	return err
}

// close leaves the card powered, so that a second reading of it costs no reset.
func (l *link) close() {
	if l.alive() {
		_, _ = call(l.line, func() (struct{}, error) { return struct{}{}, l.handle.Disconnect() })
	}
}
