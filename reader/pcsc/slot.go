package pcsc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rollcall/attendance"
	"rollcall/reader"
)

// slot is a reader for trainees' cards. Its goroutine owns what follows inbox.
type slot struct {
	driver *Driver
	name   string
	taps   chan<- attendance.Tap
	twin   *twin         // nil for a device with one slot
	again  chan struct{} // by twin: claim the card again
	inbox

	line   line
	down   bool            // reported as hung or busy
	card   presence        // in the slot; not present: empty
	tapped bool            // CardSeen was given for it
	spent  bool            // it gives none: the device's other slot had it
	later  *time.Timer     // when a card in its cool-down is to be read
	recent map[string]turn // by ATR, the cards of the last cool-down
	next   *presence       // taken from the inbox too early
}

// turn is a card's last time in a slot.
type turn struct {
	seen, left time.Time // left is zero while it is in
	chance     bool      // it failed, and may come back at once
	last       bool      // that was its second chance
}

func newSlot(d *Driver, name string, taps chan<- attendance.Tap, twin *twin) *slot {
	later := time.NewTimer(time.Hour)
	later.Stop()
	return &slot{
		driver: d, name: name, taps: taps, twin: twin, again: make(chan struct{}, 1), inbox: newInbox(),
		line: line{driver: d, name: name}, later: later, recent: map[string]turn{},
	}
}

// run turns states into taps until end is called.
func (s *slot) run(ctx context.Context) {
	defer s.line.drop()
	defer s.later.Stop()
	for {
		if s.next != nil {
			p := *s.next
			s.next = nil
			s.change(ctx, p)
			continue
		}
		select {
		case p, open := <-s.states:
			if !open {
				s.down = false
				s.driver.ended(s.name, s.cause)
				s.leave(ctx, presence{at: s.driver.now(), when: time.Now()})
				return
			}
			s.change(ctx, p)
		case <-s.later.C:
			s.consider(ctx)
		case <-s.again:
			s.consider(ctx)
		}
	}
}

// change takes what the watcher saw.
func (s *slot) change(ctx context.Context, p presence) {
	if s.card.present && (!p.present || p.count != s.card.count) {
		s.leave(ctx, p)
	}
	if p.present && !s.card.present {
		s.card = p
		s.consider(ctx)
	}
}

// leave takes that the card in the slot has left it, as p shows.
func (s *slot) leave(ctx context.Context, p presence) {
	if t, ok := s.recent[s.card.atr]; ok && s.card.present {
		t.left = p.when
		s.recent[s.card.atr] = t
	}
	tapped := s.tapped
	s.card, s.tapped, s.spent = presence{}, false, false
	s.later.Stop()
	s.twin.leave(s, p.when)
	if tapped {
		s.send(ctx, attendance.Tap{Kind: attendance.CardGone, At: p.at})
		s.recovered()
	}
}

// consider reads the card in the slot, if it is its turn.
func (s *slot) consider(ctx context.Context) {
	if !s.card.present || s.tapped || s.spent {
		return
	}
	wait, turn := s.turn()
	if wait > 0 {
		s.later.Reset(wait)
		return
	}
	switch s.twin.claim(s) {
	case mine:
		s.recent[s.card.atr] = turn
		s.take(ctx)
	case theirs:
		s.spent = true
	case pending:
	}
}

// turn says how long the card still has to wait, and what to remember when it
// is taken. The same card twice within the cool-down is somebody playing, or a
// bad contact; but one that failed and then stayed out for a moment is an honest
// second try, once.
func (s *slot) turn() (wait time.Duration, next turn) {
	now := time.Now()
	for atr, t := range s.recent {
		if now.Sub(t.seen) >= s.driver.cfg.CoolDown {
			delete(s.recent, atr)
		}
	}
	last, found := s.recent[s.card.atr]
	if !found {
		return 0, turn{seen: now}
	}
	if last.chance && !last.left.IsZero() && now.Sub(last.left) >= s.driver.cfg.Debounce {
		return 0, turn{seen: now, last: true}
	}
	return s.driver.cfg.CoolDown - now.Sub(last.seen), turn{}
}

// maxBounces is how often a card may slip out and back while it is read.
const maxBounces = 3

// take reads the card, from CardSeen to CardRead or CardFailed.
func (s *slot) take(ctx context.Context) {
	s.tapped = true
	s.send(ctx, attendance.Tap{Kind: attendance.CardSeen, At: s.card.at})
	cred, err := s.read(ctx)
	for range maxBounces {
		if !errors.Is(err, reader.ErrCardRemoved) || !s.returns(ctx) {
			break
		}
		cred, err = s.read(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.failed(ctx, err)
		return
	}
	s.recovered()
	s.twin.settle(s, settled)
	s.send(ctx, attendance.Tap{Kind: attendance.CardRead, At: s.driver.now(), Credential: cred})
}

func (s *slot) failed(ctx context.Context, err error) {
	fault := reader.FaultOf(err)
	s.driver.log.Info("card not read", "reader", s.name, "fault", string(fault), "err", err)
	if errors.Is(err, reader.ErrReaderHung) || errors.Is(err, reader.ErrReaderBusy) {
		s.down = true
		s.driver.report(s.name, err)
	}
	t := s.recent[s.card.atr]
	t.chance = !t.last
	s.recent[s.card.atr] = t
	if fault == attendance.FaultRemoved || fault == attendance.FaultMute {
		s.twin.settle(s, lost)
	} else {
		s.twin.settle(s, settled)
	}
	s.send(ctx, attendance.Tap{Kind: attendance.CardFailed, At: s.driver.now(), Fault: fault})
}

// returns waits whether the card that slipped out comes back at once. Another
// card, or none, is left for run.
func (s *slot) returns(ctx context.Context) bool {
	t := time.NewTimer(s.driver.cfg.Debounce)
	defer t.Stop()
	for {
		select {
		case p, open := <-s.states:
			switch {
			case !open:
				return false
			case !p.present:
				s.next = &p
			case p.atr != s.card.atr:
				s.next = &p
				return false
			case p.count != s.card.count:
				s.next = nil
				s.card.count = p.count
				return true
			}
		case <-t.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
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

// read reads the card, with its limit. Another program that keeps the card to
// itself gets three more chances to let go, and a card that is mute one, for it
// is so too while another program resets it. Errors wrap the sentinels of reader.
func (s *slot) read(ctx context.Context) (cred attendance.Credential, err error) {
	const busyTries, muteTries, apart = 3, 1, 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, s.driver.cfg.ReadLimit)
	defer cancel()
	for try := 0; ; try++ {
		cred, err = s.readOnce(ctx)
		if err == nil {
			return cred, nil
		}
		again := errors.Is(err, reader.ErrReaderBusy) && try < busyTries || errors.Is(err, reader.ErrCardMute) && try < muteTries
		if !again || !pause(ctx, apart) {
			return cred, fmt.Errorf("reader %q: %w", s.name, err)
		}
	}
}

func (s *slot) readOnce(ctx context.Context) (cred attendance.Credential, err error) {
	link, err := s.line.connect()
	if err != nil {
		return cred, err
	}
	defer link.close()
	card := reader.NewCard(link)
	card.ATR, card.Today = []byte(s.card.atr), s.driver.cfg.Today()
	if module := s.driver.seat.take(ctx); module != nil {
		card.PSAM = module.psam
		defer module.used()
	}
	cred, err = card.Read(ctx, s.driver.profile)
	if errors.Is(err, reader.ErrCardReset) {
		if err = link.reconnect(); err == nil {
			cred, err = card.Read(ctx, s.driver.profile)
		}
	}
	if doubt := card.Doubt(); doubt != nil {
		s.driver.log.Warn("card earned no higher level", "reader", s.name, "level", string(cred.Level), "err", doubt)
	}
	return cred, err
}

// pause waits; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
