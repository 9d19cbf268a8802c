//go:build control

package main

import (
	"context"
	"os"
	"time"

	"rollcall/attendance"
)

// sabotage spoils the terminal in the way that ROLLCALL_SABOTAGE names.
func sabotage(c attendance.TerminalConfig) attendance.TerminalConfig {
	switch how := os.Getenv("ROLLCALL_SABOTAGE"); how {
	case "none":
	case "accept-all":
		c.Faces = acceptAll{c.Faces}
	case "screen-first":
		c.Ledger = &screenFirst{Ledger: c.Ledger}
	default:
		panic("rollcalld: control build: ROLLCALL_SABOTAGE is " + how)
	}
	return c
}

// acceptAll takes every face for the enrolled one.
type acceptAll struct{ attendance.Faces }

func (a acceptAll) Verify(ctx context.Context, id attendance.TraineeID, e attendance.Enrolment) <-chan attendance.Look {
	looks := make(chan attendance.Look, 1)
	go func() {
		defer close(looks)
		for l := range a.Faces.Verify(ctx, id, e) {
			if l.Match != nil {
				l.Match.Score = 0.99
			}
			looks <- l
		}
	}()
	return looks
}

// screenFirst says that a record is stored, and stores it a little later.
type screenFirst struct {
	attendance.Ledger
	seq uint64
}

func (s *screenFirst) Append(ctx context.Context, r attendance.Record) (attendance.Stored, error) {
	if r.Type != attendance.TypeCheckin {
		return s.Ledger.Append(ctx, r)
	}
	time.AfterFunc(300*time.Millisecond, func() { _, _ = s.Ledger.Append(ctx, r) })
	s.seq++
	return attendance.Stored{Seq: 1<<40 + s.seq, Code: "0000-0000"}, nil
}
