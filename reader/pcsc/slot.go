//go:build cgo

package pcsc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ebfe/scard"

	"rollcall/attendance"
	"rollcall/reader"
)

// presence is what the watcher saw at a reader.
type presence struct {
	present bool
	count   uint16 // insertions and removals so far: another count is another card
	at      time.Time
}

// slot is one reader. Its goroutine owns everything but inbox, which the
// watcher fills.
type slot struct {
	driver *Driver
	name   string
	taps   chan<- attendance.Tap
	inbox  chan presence // holds the latest state only

	pcsc *scard.Context // nil until the first card, and after a hung call
	down bool           // reported as hung or busy
}

// post replaces a state that the slot had no time for yet. Only the watcher
// calls it, so there is room after the first step.
func (s *slot) post(p presence) {
	select {
	case <-s.inbox:
	default:
	}
	s.inbox <- p
}

// end makes run return: the reader is gone, or the service with all readers.
func (s *slot) end(cause error) {
	select {
	case <-s.inbox:
	default:
	}
	close(s.inbox)
	if errors.Is(cause, context.Canceled) {
		return
	}
	s.driver.log.Warn("card reader is gone", "reader", s.name, "err", cause)
	s.driver.report(s.name, cause)
}

// run turns states into taps until end is called.
func (s *slot) run(ctx context.Context) {
	defer s.drop()
	var card presence
	for p := range s.inbox {
		if card.present && (!p.present || p.count != card.count) {
			s.send(ctx, attendance.Tap{Kind: attendance.CardGone, At: p.at})
			s.recovered()
			card = presence{}
		}
		if p.present && !card.present {
			card = p
			s.take(ctx, p.at)
		}
	}
	if card.present {
		s.send(ctx, attendance.Tap{Kind: attendance.CardGone, At: s.driver.now()})
	}
}

// take reads the card that was just presented.
func (s *slot) take(ctx context.Context, at time.Time) {
	s.send(ctx, attendance.Tap{Kind: attendance.CardSeen, At: at})
	cred, err := s.read(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		fault := reader.FaultOf(err)
		s.driver.log.Info("card not read", "reader", s.name, "fault", string(fault), "err", err)
		if errors.Is(err, reader.ErrReaderHung) || errors.Is(err, reader.ErrReaderBusy) {
			s.down = true
			s.driver.report(s.name, err)
		}
		s.send(ctx, attendance.Tap{Kind: attendance.CardFailed, At: s.driver.now(), Fault: fault})
		return
	}
	s.recovered()
	s.send(ctx, attendance.Tap{Kind: attendance.CardRead, At: s.driver.now(), Credential: cred})
}

// recovered takes back a report. A removal proves it too: pcscd does not see
// one while a command hangs.
func (s *slot) recovered() {
	if s.down {
		s.down = false
		s.driver.report(s.name, nil)
	}
}

func (s *slot) send(ctx context.Context, tap attendance.Tap) {
	tap.Reader = s.name
	select {
	case s.taps <- tap:
	case <-ctx.Done():
	}
}

// read reads one card, with its limit. Errors wrap the sentinels of reader.
func (s *slot) read(ctx context.Context) (cred attendance.Credential, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("reader %q: %w", s.name, err)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, s.driver.cfg.ReadLimit)
	defer cancel()
	handle, err := s.connect(ctx)
	if err != nil {
		return cred, err
	}
	link := &link{slot: s, handle: handle}
	defer link.close()
	card := reader.NewCard(link)
	cred, err = card.Read(ctx, s.driver.profile)
	if errors.Is(err, reader.ErrCardReset) {
		if err = link.reconnect(); err == nil {
			cred, err = card.Read(ctx, s.driver.profile)
		}
	}
	return cred, err
}

// connect opens the card for shared use. Another program that keeps the reader
// to itself gets three more chances to let go.
func (s *slot) connect(ctx context.Context) (*scard.Card, error) {
	const retries, apart = 3, 200 * time.Millisecond
	for try := 0; ; try++ {
		handle, err := s.connectOnce()
		if !errors.Is(err, reader.ErrReaderBusy) || try == retries {
			return handle, err
		}
		t := time.NewTimer(apart)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, err
		}
	}
}

func (s *slot) connectOnce() (*scard.Card, error) {
	if s.pcsc == nil {
		pcsc, err := s.driver.establish()
		if err != nil {
			return nil, err
		}
		s.pcsc = pcsc
	}
	pcsc := s.pcsc
	handle, err := call(s, func() (*scard.Card, error) {
		return pcsc.Connect(s.name, scard.ShareShared, scard.ProtocolAny)
	})
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	// The binding panics on commands in any other protocol.
	if p := handle.ActiveProtocol(); p != scard.ProtocolT0 && p != scard.ProtocolT1 {
		(&link{slot: s, handle: handle}).close()
		return nil, fmt.Errorf("connecting: protocol %d: %w", p, reader.ErrUnsupportedCard)
	}
	return handle, nil
}

// call makes one call on the slot's context. A context with a hung call is
// useless from then on: it is released when the call returns, if ever.
func call[T any](s *slot, f func() (T, error)) (T, error) {
	pcsc := s.pcsc
	value, err := within(s.driver, f, func(T) { pcsc.Release() })
	if errors.Is(err, reader.ErrReaderHung) {
		s.pcsc = nil
	}
	return value, err
}

// drop releases the slot's context.
func (s *slot) drop() {
	if s.pcsc != nil {
		_ = s.pcsc.Release()
		s.pcsc = nil
	}
}

// link is the connection to one card; a reader.Transmitter.
type link struct {
	slot   *slot
	handle *scard.Card
}

// Transmit carries one command, for at most Config.CommandLimit. After
// ErrReaderHung the link is dead.
func (l *link) Transmit(command []byte) ([]byte, error) {
	if l.slot.pcsc == nil {
		return nil, reader.ErrReaderHung
	}
	return call(l.slot, func() ([]byte, error) { return l.handle.Transmit(command) })
}

func (l *link) reconnect() error {
	_, err := call(l.slot, func() (struct{}, error) {
		return struct{}{}, l.handle.Reconnect(scard.ShareShared, scard.ProtocolAny, scard.LeaveCard)
	})
	return err
}

// close leaves the card powered, so that a second reading of it costs no reset.
func (l *link) close() {
	if l.slot.pcsc != nil {
		_, _ = call(l.slot, func() (struct{}, error) { return struct{}{}, l.handle.Disconnect(scard.LeaveCard) })
	}
}

// meaning maps what PC/SC says onto the sentinels of reader. The code is
// written out here because the binding's Error calls C for its text.
func meaning(err error) error {
	code, ok := err.(scard.Error)
	if !ok {
		return err
	}
	kind := reader.ErrBadFormat
	switch code {
	case scard.ErrSuccess:
		return nil
	case scard.ErrUnknownReader, scard.ErrReaderUnavailable:
		kind = reader.ErrReaderGone
	case scard.ErrNoService, scard.ErrServiceStopped, scard.ErrCommError, scard.ErrInvalidHandle:
		kind = reader.ErrServiceDown
	case scard.ErrSharingViolation:
		kind = reader.ErrReaderBusy
	case scard.ErrRemovedCard, scard.ErrNotTransacted, scard.ErrNoSmartcard:
		kind = reader.ErrCardRemoved
	case scard.ErrResetCard:
		kind = reader.ErrCardReset
	case scard.ErrUnresponsiveCard, scard.ErrUnpoweredCard,
		scard.ErrProtoMismatch: // the answer to reset offers no protocol: as good as none
		kind = reader.ErrCardMute
	case scard.ErrUnsupportedCard:
		kind = reader.ErrUnsupportedCard
	}
	return fmt.Errorf("pc/sc %08X: %w", uint32(code), kind)
}
