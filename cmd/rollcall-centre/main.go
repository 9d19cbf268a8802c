// Command rollcall-centre is the reference central system: it makes its keys,
// admits terminals, publishes class packages, takes in records and lists them.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"rollcall/centre"
	"rollcall/cmd/internal/tomlfile"
	"rollcall/queue/chain"
)

const usage = `rollcall-centre takes in attendance records and sends class packages.

  rollcall-centre init                                  make the centre's keys, once
  rollcall-centre renew                                 make its TLS certificate anew, for the names configured
  rollcall-centre admit [-out FILE] REQUEST             admit a terminal; REQUEST is the file it wrote
  rollcall-centre revoke -reason TEXT [-who NAME] ID    shut a terminal out, for good
  rollcall-centre package -terminal ID CLASS            publish a class (CLASS is JSON)
  rollcall-centre package -terminal ID -plan PLAN ROSTER    the same with the roster as CSV
  rollcall-centre serve [-debug]                        take in records until told to stop
  rollcall-centre records [-terminal ID] [-all] [-json]     list what is stored
  rollcall-centre alarms [-all]                         list the alarms that nobody has closed
  rollcall-centre alarms close ID -reason TEXT [-who NAME]  say why one is settled; it is kept for good
  rollcall-centre reader [-add NAME [-request FILE] | -remove NAME]
                         who may read over the network; -add prints a token, once, or a certificate for a PEM request
  rollcall-centre code -terminal ID -class ID -session ID -trainee ID [-for 5m] [-png FILE]
                                                        print a class code, which stands in for a card once
  rollcall-centre command [-terminal ID] [-json]        list commands and what became of them
  rollcall-centre command -terminal ID [-life 168h] KIND ...
                         order a terminal to: resend LOG SEQ (the records after it), erase TRAINEE centre|consent,
                         rotate_key (sign with another ledger key from there on), correct LOG SEQ DECISION OPERATOR REASON (DECISION: on_time, late,
                         unconfirmed, no_session, or void: it does not count)

All take -config FILE, which is TOML, default /etc/rollcall/centre.toml; docs/class-file.md describes CLASS, PLAN
and ROSTER, docs/centre.md databases, alarms and reading.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "rollcall-centre:", err)
		os.Exit(1)
	}
}

// command is the work of one subcommand; fs holds its parsed flags.
type command struct {
	config *string
	flags  *flag.FlagSet
	stdout io.Writer
	stderr io.Writer
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		_, err := io.WriteString(stdout, usage)
		return err
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	c := &command{flags: flags, stdout: stdout, stderr: stderr}
	c.config = flags.String("config", "/etc/rollcall/centre.toml", "")
	work, err := c.named(args[0])
	if err != nil {
		return err
	}
	if err := flags.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		_, err := io.WriteString(stdout, usage)
		return err
	} else if err != nil {
		return fmt.Errorf("%w; rollcall-centre -h lists what there is", err)
	}
	return work(ctx)
}

func (c *command) named(name string) (func(context.Context) error, error) {
	switch name {
	case "init":
		return c.init, nil
	case "renew":
		return c.renew, nil
	case "admit":
		out := c.flags.String("out", "", "")
		return func(ctx context.Context) error { return c.admit(ctx, *out) }, nil
	case "revoke":
		reason, who := c.flags.String("reason", "", ""), c.flags.String("who", "", "")
		return func(ctx context.Context) error { return c.revoke(ctx, *who, *reason) }, nil
	case "package":
		terminal, plan := c.flags.String("terminal", "", ""), c.flags.String("plan", "", "")
		return func(ctx context.Context) error { return c.publish(ctx, chain.TerminalID(*terminal), *plan) }, nil
	case "serve":
		debug := c.flags.Bool("debug", false, "")
		return func(ctx context.Context) error { return c.serve(ctx, *debug) }, nil
	case "alarms":
		f := alarmFlags{c.flags.Bool("all", false, ""), c.flags.String("reason", "", ""), c.flags.String("who", "", "")}
		return func(ctx context.Context) error { return c.alarms(ctx, f) }, nil
	case "reader":
		f := readerFlags{c.flags.String("add", "", ""), c.flags.String("request", "", ""), c.flags.String("remove", "", "")}
		return func(ctx context.Context) error { return c.reader(ctx, f) }, nil
	case "code":
		f := c.codeFlags()
		return func(ctx context.Context) error { return c.code(ctx, f) }, nil
	case "command":
		terminal, life, asJSON := c.flags.String("terminal", "", ""), c.flags.Duration("life", 0, ""), c.flags.Bool("json", false, "")
		return func(ctx context.Context) error {
			return c.order(ctx, chain.TerminalID(*terminal), *life, *asJSON)
		}, nil
	case "records":
		terminal, all, asJSON := c.flags.String("terminal", "", ""), c.flags.Bool("all", false, ""), c.flags.Bool("json", false, "")
		return func(ctx context.Context) error { return c.records(ctx, chain.TerminalID(*terminal), *all, *asJSON) }, nil
	}
	return nil, fmt.Errorf("no command %q; rollcall-centre -h lists what there is", name)
}

func (c *command) readConfig() (centre.Config, error) {
	var cfg centre.Config
	err := tomlfile.Load(*c.config, &cfg)
	return cfg, err
}

func (c *command) open(ctx context.Context) (*centre.Centre, error) {
	cfg, err := c.readConfig()
	if err != nil {
		return nil, err
	}
	return centre.Open(ctx, cfg, c.logger(slog.LevelWarn), time.Now)
}

func (c *command) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: level}))
}

// file is the one file, or other thing, named after the flags.
func (c *command) file(what string) (string, error) {
	if c.flags.NArg() != 1 {
		return "", fmt.Errorf("name %s after the flags; rollcall-centre -h shows how", what)
	}
	return c.flags.Arg(0), nil
}

func (c *command) init(context.Context) error {
	cfg, err := c.readConfig()
	if err != nil {
		return err
	}
	if err := centre.Init(cfg, time.Now()); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.stdout, "keys made; keep a copy of them where the machine cannot lose it: without them no terminal can be admitted or answered")
	return err
}

func (c *command) renew(context.Context) error {
	cfg, err := c.readConfig()
	if err != nil {
		return err
	}
	until, err := centre.Renew(cfg, time.Now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "the certificate holds until %s; a centre that serves takes it with the next connection\n", until.Format(time.DateOnly))
	return err
}

func (c *command) admit(ctx context.Context, out string) error {
	path, err := c.file("the terminal's request")
	if err != nil {
		return err
	}
	request, err := readFile(path)
	if err != nil {
		return err
	}
	ctr, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer ctr.Close()
	admission, err := ctr.Admit(ctx, request)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(admission, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if out == "" {
		_, err = c.stdout.Write(text)
		return err
	}
	if err := os.WriteFile(out, text, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s is admitted; take %s to it (nothing in it is secret)\n", admission.Terminal, out)
	return err
}

func (c *command) revoke(ctx context.Context, who, reason string) error {
	id, err := c.file("the terminal")
	if err != nil {
		return err
	}
	ctr, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer ctr.Close()
	if err := ctr.Revoke(ctx, chain.TerminalID(id), cmp.Or(who, whoIsThis()), reason); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s is shut out; what it sent before stays\n", id)
	return err
}

func (c *command) publish(ctx context.Context, terminal chain.TerminalID, planPath string) error {
	path, err := c.file("the class file or roster")
	if err != nil {
		return err
	}
	if terminal == "" {
		return errors.New("name the terminal that the class meets at with -terminal")
	}
	ctr, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer ctr.Close()
	plan, err := readPlan(ctr, path, planPath)
	if err != nil {
		return err
	}
	done, err := ctr.Publish(ctx, terminal, plan)
	if err != nil {
		return err
	}
	p := done.Package
	fmt.Fprintf(c.stdout, "class %s: %d trainees, %d sessions, published to %s as number %d; it goes out within a second if the centre serves, else when it next does\n",
		p.Class.ID, len(p.Trainees), len(p.Sessions), terminal, p.Serial)
	if len(done.Warnings) > 0 {
		fmt.Fprintf(c.stdout, "please look again: %s\n", strings.Join(done.Warnings, "; "))
	}
	return nil
}

// readPlan reads a class file, and the roster where that is a file of its own:
// named in the class file (beside it), or on the command line with the class
// file as -plan.
func readPlan(ctr *centre.Centre, path, planPath string) (*centre.Plan, error) {
	rosterPath := ""
	if planPath != "" {
		path, rosterPath = planPath, path
	}
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	plan, err := ctr.ParsePlan(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if rosterPath == "" && plan.Roster != "" {
		rosterPath = filepath.Join(filepath.Dir(path), plan.Roster)
	}
	if rosterPath == "" {
		return plan, nil
	}
	if len(plan.Trainees) > 0 {
		return nil, fmt.Errorf("%s holds trainees and a roster is given too: keep one of them", path)
	}
	if text, err = readFile(rosterPath); err != nil {
		return nil, err
	}
	if plan.Trainees, err = centre.ParseRoster(text); err != nil {
		return nil, fmt.Errorf("%s: %w", rosterPath, err)
	}
	return plan, nil
}

// maxFile is more than any file that is taken; the rooms check their own limits.
const maxFile = 16 << 20

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// door is a way into the centre: for terminals, or for those who read.
type door interface {
	Run(context.Context) error
}

func (c *command) serve(ctx context.Context, debug bool) error {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	cfg, err := c.readConfig()
	if err != nil {
		return err
	}
	ctr, err := centre.Open(ctx, cfg, c.logger(level), time.Now)
	if err != nil {
		return err
	}
	defer ctr.Close()
	var parts []door
	reading, err := ctr.Reading()
	if err != nil {
		return err
	}
	if reading != nil {
		parts = append(parts, reading)
	}
	if cfg.Broker != "" {
		parts = append(parts, ctr.Subscriber())
		fmt.Fprintf(c.stdout, "ready: through the broker at %s\n", cfg.Broker)
	} else {
		listener, err := ctr.Listen()
		if err != nil {
			return err
		}
		parts = append(parts, listener)
		fmt.Fprintf(c.stdout, "ready: listening on %s\n", listener.Address())
	}
	if reading != nil {
		fmt.Fprintf(c.stdout, "reading at https://%s/v1/\n", reading.Address())
	}
	return runAll(ctx, parts)
}

// runAll runs parts until ctx ends or one of them fails, and returns when all
// have ended.
func runAll(ctx context.Context, parts []door) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ended <- part.Run(ctx) }()
	}
	var all error
	for range parts {
		err := <-ended
		all = errors.Join(all, err)
		cancel()
	}
	return all
}

func (c *command) records(ctx context.Context, terminal chain.TerminalID, all, asJSON bool) error {
	ctr, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer ctr.Close()
	if asJSON {
		return recordsJSON(ctx, ctr, c.stdout, terminal, all)
	}
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LOG\tSEQ\tAT\tTYPE\tTRAINEE\tCLASS\tSESSION\tDECISION\tREASON\tCODE\tRECEIVED")
	err = ctr.Records(ctx, terminal, all, func(r centre.Row) error {
		_, err := fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Log, r.Seq, r.At, r.Type,
			r.Trainee, r.Class, r.Session, r.Decision, r.Reason, r.Code, r.Received.Format(time.DateTime))
		return err
	})
	return errors.Join(err, table.Flush())
}

// recordsJSON writes an array of [centre.Row], one to a line.
func recordsJSON(ctx context.Context, ctr *centre.Centre, w io.Writer, terminal chain.TerminalID, all bool) error {
	separator := "[\n"
	err := ctr.Records(ctx, terminal, all, func(r centre.Row) error {
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s%s", separator, text)
		separator = ",\n"
		return err
	})
	if err != nil {
		return err
	}
	if separator == "[\n" {
		_, err = io.WriteString(w, "[]\n")
		return err
	}
	_, err = io.WriteString(w, "\n]\n")
	return err
}
