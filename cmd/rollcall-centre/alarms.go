package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"text/tabwriter"
	"time"
)

// alarmFlags are the flags of the command alarms.
type alarmFlags struct {
	all         *bool
	reason, who *string
}

// alarmPage is how many alarms are read at once.
const alarmPage = 500

// alarms lists alarms, or closes one.
func (c *command) alarms(ctx context.Context, f alarmFlags) error {
	if c.flags.NArg() > 0 {
		return c.closeAlarm(ctx, f)
	}
	ctr, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer ctr.Close()
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tRAISED\tKIND\tTERMINAL\tLOG\tSEQ\tDETAIL\tCLOSED\tBY\tREASON")
	for after := int64(0); ; {
		alarms, err := ctr.Alarms(ctx, *f.all, after, alarmPage)
		if err != nil {
			return err
		}
		for _, a := range alarms {
			closed, who, reason := "", "", ""
			if a.Closed != nil {
				closed, who, reason = a.Closed.At.Format(time.DateTime), a.Closed.Who, a.Closed.Reason
			}
			fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", a.ID, a.Raised.Format(time.DateTime), a.Kind, a.Terminal, a.Log, a.Seq, a.Detail, closed, who, reason)
			after = a.ID
		}
		if len(alarms) < alarmPage {
			return table.Flush()
		}
	}
}

// closeAlarm reads "close ID", with flags before or after it.
func (c *command) closeAlarm(ctx context.Context, f alarmFlags) error {
	if c.flags.Arg(0) != "close" || c.flags.NArg() < 2 {
		return errors.New("alarms lists them; alarms close ID -reason TEXT closes one")
	}
	id, err := strconv.ParseInt(c.flags.Arg(1), 10, 64)
	if err != nil {
		return fmt.Errorf("%q is not the number of an alarm; rollcall-centre alarms lists them", c.flags.Arg(1))
	}
	if err := c.flags.Parse(c.flags.Args()[2:]); err != nil {
		return err
	}
	ctr, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer ctr.Close()
	if err := ctr.CloseAlarm(ctx, id, cmp.Or(*f.who, whoIsThis()), *f.reason); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "alarm %d is closed\n", id)
	return err
}

// whoIsThis names the person at this machine as well as the machine knows.
func whoIsThis() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}
