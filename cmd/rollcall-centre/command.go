package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/queue/chain"
)

// order makes a command, or lists those there are.
func (c *command) order(ctx context.Context, terminal chain.TerminalID, life time.Duration, asJSON bool) error {
	ctr, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer ctr.Close()
	if c.flags.NArg() == 0 {
		return c.listCommands(ctx, ctr, terminal, asJSON)
	}
	if terminal == "" {
		return errors.New("name the terminal that is to do it with -terminal")
	}
	order, err := parseOrder(c.flags.Args())
	if err != nil {
		return err
	}
	made, err := ctr.Order(ctx, terminal, order, life)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(c.stdout).Encode(made)
	}
	_, err = fmt.Fprintf(c.stdout, "command %d to %s: %s; it waits for the terminal until %s\n",
		made.Serial, made.Terminal, made.Kind, made.Expires.Format(time.DateTime))
	return err
}

// parseOrder reads KIND and what goes with it.
func parseOrder(args []string) (attendance.Command, error) {
	kind := attendance.CommandKind(args[0])
	wants := map[attendance.CommandKind]string{
		attendance.CommandResend: "LOG SEQ", attendance.CommandErase: "TRAINEE centre|consent",
		attendance.CommandCorrect: "LOG SEQ DECISION OPERATOR REASON",
	}
	want, known := wants[kind]
	if !known {
		return attendance.Command{}, fmt.Errorf("no kind of command %q: resend, erase or correct", kind)
	}
	args = args[1:]
	if len(args) != len(strings.Fields(want)) {
		return attendance.Command{}, fmt.Errorf("%s needs %q after it, one word or one quoted text each", kind, want)
	}
	order := attendance.Command{Kind: kind}
	var err error
	switch kind {
	case attendance.CommandResend:
		order.Resend = &attendance.Resend{Log: args[0]}
		order.Resend.Seq, err = strconv.ParseUint(args[1], 10, 63)
	case attendance.CommandErase:
		order.Erase = &attendance.Erase{Trainee: attendance.TraineeID(args[0]), Reason: attendance.WithdrawReason(args[1])}
	case attendance.CommandCorrect:
		order.Correct = &attendance.Correct{Log: args[0], Decision: attendance.Outcome(args[2]), Operator: args[3], Reason: args[4]}
		order.Correct.Seq, err = strconv.ParseUint(args[1], 10, 63)
	}
	if err != nil {
		return order, fmt.Errorf("%s: %q is no record's number", kind, args[1])
	}
	return order, nil
}

func (c *command) listCommands(ctx context.Context, ctr *centre.Centre, terminal chain.TerminalID, asJSON bool) error {
	commands, err := ctr.Commands(ctx, terminal)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(c.stdout).Encode(commands)
	}
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TERMINAL\tSERIAL\tKIND\tISSUED\tEXPIRES\tSTATE\tREASON\tANSWER")
	for _, m := range commands {
		answer := ""
		if m.Seq > 0 {
			answer = fmt.Sprintf("record %d of %s", m.Seq, m.Log)
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Terminal, m.Serial, m.Kind,
			m.Issued.Format(time.DateTime), m.Expires.Format(time.DateTime), m.State, m.Reason, answer)
	}
	return table.Flush()
}
