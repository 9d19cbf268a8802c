package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"rsc.io/qr"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/queue/chain"
)

// codeFlags are the flags of the command code.
type codeFlags struct {
	terminal, class, session, trainee, png *string
	life                                   *time.Duration
}

func (c *command) codeFlags() codeFlags {
	text := func(name string) *string { return c.flags.String(name, "", "") }
	return codeFlags{
		text("terminal"), text("class"), text("session"), text("trainee"), text("png"),
		c.flags.Duration("for", 0, ""),
	}
}

// code prints a class code, and draws it if asked to.
func (c *command) code(ctx context.Context, f codeFlags) error {
	if c.flags.NArg() != 0 {
		return errors.New("code takes flags only; rollcall-centre -h shows how")
	}
	ctr, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer ctr.Close()
	text, err := ctr.Code(ctx, centre.CodeRequest{
		Terminal: chain.TerminalID(*f.terminal), Class: attendance.ClassID(*f.class),
		Session: attendance.SessionID(*f.session), Trainee: attendance.TraineeID(*f.trainee), Life: *f.life,
	})
	if err != nil {
		return err
	}
	if *f.png != "" {
		symbol, err := qr.Encode(text, qr.L)
		if err != nil {
			return fmt.Errorf("drawing the code: %w", err)
		}
		if err := os.WriteFile(*f.png, symbol.PNG(), 0o600); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(c.stdout, text)
	return err
}
