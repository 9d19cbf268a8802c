// Command rollcall is the operator's tool: the state of a terminal, its ledger,
// its admission by the centre, enrolment.
//
// Exit status: 0 done or sound, 1 a ledger that does not verify or a terminal
// that is not ready, 2 a wrong call or a thing that could not be done.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// errFound is wrapped by the answer "it is not sound": exit status 1.
var errFound = errors.New("not sound")

const usage = `rollcall: the operator's tool of a Rollcall terminal

  rollcall status          [-state DIR] [-json]         what works, what does not, what to do
  rollcall ledger verify   [-trust FILE] FILE|DIR       check an export, or a terminal's own ledger
  rollcall ledger export   DIR                          the whole ledger as text, to standard output
  rollcall ledger salvage  DIR                          set damaged files aside, keep what can be read (rollcalld stopped)
  rollcall ledger disk-check [-time 3s] DIR             does this disk keep what it says it kept, and how fast
  rollcall enrol           [-state DIR] -trainee ID -consent ID -officer ID [-frames N]
  rollcall reader list     [-json]                      smart card readers, and whether a card is in them
  rollcall card read       [-reader NAME] [-profile FILE] [-show] [-json]   what a card gives, step by step
  rollcall card record     [-reader NAME] [-profile FILE] [-source TEXT] FILE
                                                        what an unknown card says, without its holder's data
  rollcall terminal request [-state DIR] -id ID         make this terminal's keys, print the request for the centre
  rollcall terminal admit  [-state DIR] FILE            keep the centre's answer

DIR is the state directory, /var/lib/rollcall unless given.
`

// command is one thing the tool does.
type command func(ctx context.Context, args []string, stdout io.Writer) error

var commands = map[string]command{
	"status":            status,
	"ledger verify":     ledgerVerify,
	"ledger export":     ledgerExport,
	"ledger salvage":    ledgerSalvage,
	"ledger disk-check": ledgerDiskCheck,
	"enrol":             enrol,
	"reader list":       readerList,
	"card read":         cardRead,
	"card record":       cardRecord,
	"terminal request":  terminalRequest,
	"terminal admit":    terminalAdmit,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
	case errors.Is(err, errFound):
		fmt.Fprintln(os.Stderr, "rollcall:", err)
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "rollcall:", err)
		os.Exit(2)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	for words := min(2, len(args)); words > 0; words-- {
		name := args[0]
		if words == 2 {
			name += " " + args[1]
		}
		if do, ok := commands[name]; ok {
			return do(ctx, args[words:], stdout)
		}
	}
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		return flag.ErrHelp
	}
	return fmt.Errorf("no such command %q: rollcall help lists them", args[0])
}

// parse parses flags and checks how many arguments follow.
func parse(flags *flag.FlagSet, args []string, operands int) error {
	flags.SetOutput(io.Discard)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%s: %w: see rollcall help", flags.Name(), err)
	}
	if flags.NArg() != operands {
		return fmt.Errorf("%s: %d arguments given, %d needed: see rollcall help", flags.Name(), flags.NArg(), operands)
	}
	return nil
}

func stateFlag(flags *flag.FlagSet) *string {
	return flags.String("state", "/var/lib/rollcall", "the terminal's state directory")
}
