package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"rollcall/reader/pcsc"
)

// readerList prints the slots of all PC/SC readers and whether a card is in
// them.
func readerList(_ context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("reader list", flag.ContinueOnError)
	config := configFlag(flags)
	asJSON := flags.Bool("json", false, "print one JSON array")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	cfg, err := cardConfig(*config)
	if err != nil {
		return fmt.Errorf("reader list: %w", err)
	}
	slots, err := pcsc.Slots(cfg)
	if err != nil {
		return fmt.Errorf("reader list: %w", err)
	}
	if *asJSON {
		if slots == nil {
			slots = []pcsc.Slot{}
		}
		return printJSON(stdout, slots)
	}
	if len(slots) == 0 {
		fmt.Fprintln(stdout, "no reader: plug one in; if it is in, its driver is missing (Debian: libccid)")
	}
	for _, s := range slots {
		fmt.Fprintf(stdout, "%-40s %s\n", s.Name, describe(s))
	}
	return nil
}

func describe(s pcsc.Slot) string {
	text := "empty"
	switch {
	case s.Busy:
		text = "another program keeps the card to itself: end it"
	case s.Mute:
		text = "a card that does not answer: turn it over"
	case s.Present:
		text = "card present"
	}
	if s.SAM {
		text += ", for a security module: gives no taps"
	}
	return text
}
