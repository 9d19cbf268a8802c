package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/queue/chain"
)

// terminalRequest makes the terminal's keys, unless they are there, and prints
// what the centre needs to admit it. It holds public keys only.
func terminalRequest(_ context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("terminal request", flag.ContinueOnError)
	state := stateFlag(flags)
	id := flags.String("id", "", "the terminal's id: letters, digits and hyphens")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	if !chain.TerminalID(*id).Valid() {
		return fmt.Errorf("terminal request: -id %q: give the id the centre assigned: letters, digits and hyphens, at most 64", *id)
	}
	if err := os.MkdirAll(*state, 0o700); err != nil {
		return err
	}
	dir := filepath.Join(*state, "keys")
	keys, err := device.CreateKeys(dir)
	if errors.Is(err, fs.ErrExist) {
		keys, err = device.OpenKeys(dir)
	}
	if err != nil {
		return err
	}
	request, err := keys.Request(chain.TerminalID(*id))
	if err != nil {
		return err
	}
	return printJSON(stdout, request)
}

// terminalAdmit keeps the centre's answer, after checking that it is for this
// terminal's keys.
func terminalAdmit(_ context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("terminal admit", flag.ContinueOnError)
	state := stateFlag(flags)
	if err := parse(flags, args, 1); err != nil {
		return err
	}
	text, err := os.ReadFile(flags.Arg(0))
	if err != nil {
		return err
	}
	var a chain.Admission
	if err := json.Unmarshal(text, &a); err != nil {
		return fmt.Errorf("%s is not an admission: %w", flags.Arg(0), err)
	}
	if err := device.SaveAdmission(filepath.Join(*state, "keys"), a); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "terminal %s is admitted by %s\n", a.Terminal, a.Tenant)
	return nil
}

// status prints one screen: a sentence, then the parts.
func status(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	state := stateFlag(flags)
	asJSON := flags.Bool("json", false, "print one JSON object")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	s, err := control.NewClient(*state).Status(ctx)
	if err != nil {
		return fmt.Errorf("status: %w: start rollcalld, or name its state directory with -state", err)
	}
	if *asJSON {
		err = printJSON(stdout, s)
	} else {
		printStatus(stdout, s)
	}
	if err == nil && !s.Health.Ready {
		err = fmt.Errorf("%w: the terminal cannot store a check-in now", errFound)
	}
	return err
}

func printStatus(w io.Writer, s control.Status) {
	fmt.Fprintf(w, "terminal %s of %s, %s, up %s\n", s.Terminal, s.Tenant, s.Software, time.Since(s.Started).Round(time.Second))
	fmt.Fprintf(w, "panel    %s, showing %q\n", s.Panel, s.Screen.State)
	fmt.Fprintf(w, "ledger   %d records, %d confirmed by the centre, %d on their way\n", s.Ledger.Last, s.Ledger.Receipted, s.Ledger.Last-s.Ledger.Receipted)
	for _, c := range s.Classes {
		fmt.Fprintf(w, "class    %s: package %d, %d sessions, %d trainees\n", c.Class, c.Serial, c.Sessions, c.Trainees)
	}
	for _, p := range s.Health.Parts {
		fmt.Fprintf(w, "%s %-8s %s since %s\n", mark(p.State), p.Part, p.State, p.Since.Format("2006-01-02 15:04:05"))
		if p.Sentence.En != "" {
			fmt.Fprintf(w, "           %s\n           %s\n", p.Sentence.Zh, p.Sentence.En)
		}
	}
	if s.Screen.State == attendance.ScreenNoClass && len(s.Classes) == 0 {
		fmt.Fprintln(w, "no class package yet: the centre sends one with rollcall-centre package")
	}
}

func mark(s device.PartState) string {
	switch s {
	case device.StateOK:
		return "✔"
	case device.StateDegraded:
		return "⚠"
	}
	return "✘"
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
