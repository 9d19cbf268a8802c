package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"rollcall/attendance"
	"rollcall/reader"
)

// codes decodes what a scanner sends.
type codes struct{ reader.CodeLines }

func (c *codes) next() (string, attendance.Credential, error) {
	text, err := c.Next()
	if err != nil {
		return "", attendance.Credential{}, err
	}
	return text.Reveal(), attendance.Credential{Kind: attendance.KindQR, Code: text}, nil
}

// serials decodes what a reader of serial numbers sends. Damaged frames count
// only in a row.
type serials struct {
	reader.UIDFrames
	bad int
}

func (s *serials) next() (string, attendance.Credential, error) {
	for {
		uid, err := s.Next()
		switch {
		case err == nil:
			s.bad = 0
			return uid.Reveal(), attendance.Credential{Kind: attendance.KindUID, Level: attendance.LevelUID, UID: uid}, nil
		case errors.Is(err, io.EOF):
			return "", attendance.Credential{}, io.EOF
		}
		if s.bad++; s.bad >= maxBad {
			s.bad = 0
			return "", attendance.Credential{}, err
		}
	}
}

// gm65 is a scanner that looks when it is told to.
type gm65 struct {
	driver *Driver
	line   *line
	codes  codes
}

const (
	answerLimit = 500 * time.Millisecond
	// lookLimit is how long the scanner is left to look before it is told
	// again: less than the 5 s after which it stops by itself.
	lookLimit = 4 * time.Second
)

// run keeps the scanner looking until the line is lost.
func (g *gm65) run(ctx context.Context) error {
	if err := g.line.Flush(); err != nil {
		return lost(err)
	}
	if err := g.find(ctx); err != nil {
		return err
	}
	defer g.line.send(reader.GM65Stop)
	for {
		if err := g.look(ctx); err != nil {
			return err
		}
		if err := g.trigger(ctx); err != nil {
			return fmt.Errorf("the scanner stopped answering: %w", err)
		}
	}
}

// find tries the speeds until the scanner answers. Something else on the line
// is reported as no reader.
func (g *gm65) find(ctx context.Context) error {
	for _, speed := range g.driver.cfg.speeds() {
		if err := g.line.SetSpeed(speed); err != nil {
			continue // not every adapter has every speed
		}
		err := g.triggerOnce(ctx)
		if err == nil {
			g.driver.working()
			return nil
		}
		if !errors.Is(err, reader.ErrReaderHung) {
			return err
		}
	}
	return fmt.Errorf("no scanner of this kind answers at any speed, check kind and path: %w", reader.ErrReaderGone)
}

// trigger tells the scanner to look, three times if need be: noise may spoil a
// command or an answer.
func (g *gm65) trigger(ctx context.Context) (err error) {
	for range 3 {
		if err = g.triggerOnce(ctx); !errors.Is(err, reader.ErrReaderHung) {
			return err
		}
	}
	return err
}

// triggerOnce waits until the scanner says that it looks. Codes that come around
// the answer are taken. ErrReaderHung: no good answer.
func (g *gm65) triggerOnce(ctx context.Context) error {
	if _, err := g.line.Write(reader.GM65Trigger); err != nil {
		return lost(err)
	}
	var got []byte
	for end := time.Now().Add(answerLimit); ; {
		b, err := g.line.read(ctx, time.Until(end))
		if err != nil {
			return err
		}
		if b == nil {
			return reader.ErrReaderHung
		}
		got = append(got, b...)
		before, after, err := reader.CutGM65Answer(got)
		if err == nil {
			if codes := slices.Concat(before, after); len(codes) > 0 {
				g.driver.hear(ctx, &g.codes, codes)
			}
			return nil
		}
		if !errors.Is(err, io.EOF) || len(got) > maxAround {
			return reader.ErrReaderHung
		}
	}
}

// maxAround bounds what is kept while an answer is awaited.
const maxAround = 8192

// look takes codes until one came, after which the scanner rests, or until it
// has to be told again.
func (g *gm65) look(ctx context.Context) error {
	for end := time.Now().Add(lookLimit); time.Now().Before(end); {
		b, err := g.line.read(ctx, silence)
		if err != nil {
			return err
		}
		if g.driver.hear(ctx, &g.codes, b) > 0 {
			return nil
		}
	}
	return nil
}
