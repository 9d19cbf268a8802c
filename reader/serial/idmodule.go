package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"rollcall/attendance"
	"rollcall/reader"
)

// idModule works with a resident identity card module.
type idModule struct {
	driver *Driver
	line   *line
	frames reader.IDCardFrames
	speed  int
}

const (
	shortLimit = 500 * time.Millisecond // for an answer of a few bytes at 9600
	readLimit  = 2 * time.Second        // for the module's own work on a card, wire time apart
	readBytes  = 1295                   // an answer with text and photo
	maxSilent  = 3                      // finds in a row without an answer
	cardLimit  = 5 * time.Second        // for all that one card takes

	// afterDamage is how long another answer may follow a damaged one.
	afterDamage = 200 * time.Millisecond
)

// run looks for cards until the line or the module is lost.
func (m *idModule) run(ctx context.Context) error {
	if err := m.findModule(ctx); err != nil {
		return err
	}
	next := time.NewTicker(m.driver.cfg.FindEvery)
	defer next.Stop()
	for silent := 0; ; {
		err := m.look(ctx)
		switch {
		case err == nil:
			silent = 0
		case !errors.Is(err, reader.ErrReaderHung):
			return err
		default:
			if silent++; silent >= maxSilent {
				return fmt.Errorf("the module stopped answering: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next.C:
		}
	}
}

// findModule tries the speeds until the module says how it is.
func (m *idModule) findModule(ctx context.Context) error {
	for _, speed := range m.driver.cfg.speeds() {
		if err := m.line.SetSpeed(speed); err != nil {
			continue // not every adapter has every speed
		}
		m.speed = speed
		answer, err := m.ask(ctx, reader.IDCardStatus, shortLimit)
		if err == nil {
			err = answer.Err()
		}
		switch {
		case err == nil:
			m.driver.log.Info("identity card module answers", "speed", speed)
			m.driver.working()
			return nil
		case !errors.Is(err, reader.ErrReaderHung) && !errors.Is(err, reader.ErrBadFormat):
			return err
		}
	}
	return fmt.Errorf("no identity card module answers at any speed, check kind and path: %w", reader.ErrReaderGone)
}

// look asks once whether a card is there, and reads it. A card that was read is
// mostly not found again until it leaves; a module that finds it all the same
// has it read again, and the same number is the same card. Errors are the
// module's and the line's, not the card's.
func (m *idModule) look(ctx context.Context) error {
	answer, err := m.ask(ctx, reader.IDCardFind, shortLimit)
	if errors.Is(err, reader.ErrBadFormat) {
		return nil // noise: asked again soon
	}
	if err != nil {
		return err
	}
	if err := answer.Err(); errors.Is(err, reader.ErrReaderFault) {
		return err
	}
	d := m.driver
	if !answer.Found() {
		d.unseen(ctx)
		return nil
	}
	s := sighting{at: d.now()}
	// Within the cool-down it may be the last card again, of which no tap may
	// tell: then it is read first.
	if s.seen = !d.presence.recent(time.Now()); s.seen {
		d.send(ctx, attendance.Tap{Kind: attendance.CardSeen, At: s.at})
	}
	s.cred, s.err = m.read(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.key = s.cred.PersonNo.Reveal()
	d.tell(ctx, s)
	if errors.Is(s.err, reader.ErrReaderGone) {
		return s.err
	}
	return nil
}

// read selects and reads the card that was found, a second time from the start
// if what came is unusable.
func (m *idModule) read(ctx context.Context) (attendance.Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, cardLimit)
	defer cancel()
	cred, err := m.readOnce(ctx)
	if errors.Is(err, reader.ErrBadFormat) {
		if answer, findErr := m.ask(ctx, reader.IDCardFind, shortLimit); findErr == nil && answer.Found() {
			cred, err = m.readOnce(ctx)
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = reader.ErrTimeout
	case err == nil && m.driver.expired(cred):
		err = reader.ErrExpired
	}
	if err != nil {
		return attendance.Credential{}, fmt.Errorf("reader %q: %w", m.driver.cfg.Name, err)
	}
	return cred, nil
}

func (d *Driver) expired(cred attendance.Credential) bool {
	if !d.cfg.RefuseExpired || d.cfg.Today == nil {
		return false
	}
	today := d.cfg.Today()
	return today != "" && cred.ValidTo != "" && cred.ValidTo < today
}

func (m *idModule) readOnce(ctx context.Context) (attendance.Credential, error) {
	var none attendance.Credential
	answer, err := m.ask(ctx, reader.IDCardSelect, shortLimit)
	if err == nil {
		err = answer.Err()
	}
	if err != nil {
		return none, fmt.Errorf("selecting the card: %w", err)
	}
	wire := time.Duration(readBytes) * 10 * time.Second / time.Duration(m.speed)
	answer, err = m.ask(ctx, reader.IDCardRead, readLimit+wire)
	if err == nil {
		err = answer.Err()
	}
	if err != nil {
		return none, fmt.Errorf("reading the card: %w", err)
	}
	text, photo, err := answer.Blocks()
	if err != nil {
		return none, err
	}
	return reader.ParseIDCard(text, photo)
}

// ask sends a command and waits for an answer that fits it. ErrReaderHung: none
// came. ErrBadFormat: one came damaged.
func (m *idModule) ask(ctx context.Context, c reader.IDCardCommand, limit time.Duration) (reader.IDCardAnswer, error) {
	m.frames.Reset()
	if err := m.line.send(c.Frame()); err != nil {
		return reader.IDCardAnswer{}, err
	}
	var damaged error
	for end := time.Now().Add(limit); ; {
		b, err := m.line.read(ctx, time.Until(end))
		if err != nil {
			return reader.IDCardAnswer{}, err
		}
		if b == nil {
			if damaged != nil {
				return reader.IDCardAnswer{}, damaged
			}
			return reader.IDCardAnswer{}, reader.ErrReaderHung
		}
		_, _ = m.frames.Write(b)
		for {
			answer, err := m.frames.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				damaged, end = err, earlier(end, time.Now().Add(afterDamage))
				continue
			}
			if answer.Fits(c) {
				return answer, nil
			}
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
