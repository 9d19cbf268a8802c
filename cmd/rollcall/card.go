package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"rollcall/attendance"
	"rollcall/cmd/internal/tomlfile"
	"rollcall/reader"
	"rollcall/reader/pcsc"
)

// readLimit is how long the tool reads one card.
const readLimit = 10 * time.Second

// cardFlags are what reading and recording have in common.
type cardFlags struct {
	*flag.FlagSet
	config, reader, profile *string
}

func newCardFlags(name string) cardFlags {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	return cardFlags{f,
		configFlag(f),
		f.String("reader", "", "the slot's name, as rollcall reader list gives it"),
		f.String("profile", "", "a card profile: cn-ssc, cn-ssc-short or a file"),
	}
}

func configFlag(f *flag.FlagSet) *string {
	return f.String("config", "", "the terminal's configuration, whose [cards] says profile, slots and security module")
}

// cardConfig reads the table [cards] of a terminal's configuration; without a
// file the defaults hold.
func cardConfig(file string) (c pcsc.Config, err error) {
	if file != "" {
		err = tomlfile.LoadTable(file, "cards", &c)
	}
	return c, err
}

// open gives the card and the profile to read it by.
func (f cardFlags) open() (*pcsc.Opened, *reader.Profile, pcsc.Config, error) {
	cfg, err := cardConfig(*f.config)
	if err != nil {
		return nil, nil, cfg, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if *f.profile != "" {
		cfg.Profile = *f.profile
	}
	profile, err := reader.LoadProfile(cfg.Profile)
	if err != nil {
		return nil, nil, cfg, fmt.Errorf("%s: %w", f.Name(), err)
	}
	card, err := pcsc.Open(cfg, *f.reader)
	if err != nil {
		return nil, nil, cfg, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return card, profile, cfg, nil
}

// reading is what reading a card gave, as JSON prints it.
type reading struct {
	Reader   string               `json:"reader"`
	Profile  string               `json:"profile"`
	Kind     string               `json:"kind,omitempty"`
	Level    attendance.CardLevel `json:"level,omitempty"`
	Doubt    string               `json:"doubt,omitempty"` // why the level is not higher
	Partial  bool                 `json:"partial"`
	Spec     string               `json:"spec_version,omitempty"`
	Ident    string               `json:"card_ident,omitempty"`
	CardNo   string               `json:"card_no,omitempty"`
	PersonNo string               `json:"person_no,omitempty"`
	Name     string               `json:"name,omitempty"`
	ValidTo  string               `json:"valid_to,omitempty"`
	Masked   bool                 `json:"masked"`
	Fault    attendance.CardFault `json:"fault,omitempty"`
	Steps    []step               `json:"steps"`
	CardMS   float64              `json:"card_ms"`  // inside commands
	TotalMS  float64              `json:"total_ms"` // our share is the difference
}

// step is one command: what it was for, how the card answered, how long it took.
type step struct {
	Step   string  `json:"step"`
	Status string  `json:"status"`
	MS     float64 `json:"ms"`
}

// stopwatch times the commands of a reading.
type stopwatch struct {
	profile *reader.Profile
	steps   []step
	inside  time.Duration
}

// watched is a chip whose commands a stopwatch times; a reader.Transmitter.
type watched struct {
	reader.Transmitter
	watch *stopwatch
	chip  string // before each step
}

func (w watched) Transmit(command []byte) ([]byte, error) {
	began := time.Now()
	answer, err := w.Transmitter.Transmit(command)
	took := time.Since(began)
	w.watch.inside += took
	status := "no answer"
	if n := len(answer); err == nil && n >= 2 {
		status = fmt.Sprintf("%X", answer[n-2:])
	}
	w.watch.steps = append(w.watch.steps, step{w.chip + w.watch.profile.Step(command), status, milliseconds(took)})
	return answer, err
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// cardRead shows what the card in a reader gives, beside a running daemon, which
// takes its own tap of it.
func cardRead(ctx context.Context, args []string, stdout io.Writer) error {
	flags := newCardFlags("card read")
	asJSON := flags.Bool("json", false, "print one JSON object")
	show := flags.Bool("show", false, "print numbers and name in full")
	if err := parse(flags.FlagSet, args, 0); err != nil {
		return err
	}
	opened, profile, cfg, err := flags.open()
	if err != nil {
		return err
	}
	defer opened.Close()
	watch := &stopwatch{profile: profile}
	card := reader.NewCard(watched{opened, watch, ""})
	card.ATR = opened.Slot.ATR
	if cfg.PSAM.Slot != "" {
		module, err := pcsc.OpenPSAM(cfg)
		if err != nil {
			return fmt.Errorf("card read: %w", err)
		}
		defer module.Close()
		if card.PSAM, err = reader.NewPSAM(watched{module, watch, "module: "}, cfg.PSAM.PSAMConfig); err != nil {
			return fmt.Errorf("card read: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	began := time.Now()
	cred, err := card.Read(ctx, profile)
	r := reading{
		Reader: opened.Slot.Name, Profile: profile.Name, Masked: !*show, Fault: reader.FaultOf(err),
		Steps: watch.steps, CardMS: milliseconds(watch.inside), TotalMS: milliseconds(time.Since(began)),
	}
	if err == nil {
		r.take(cred)
	}
	if doubt := card.Doubt(); doubt != nil {
		r.Doubt = doubt.Error()
	}
	if *asJSON {
		if jsonErr := printJSON(stdout, r); jsonErr != nil {
			return jsonErr
		}
	} else {
		r.print(stdout)
	}
	if err != nil {
		return fmt.Errorf("card read: reader %q: %w", opened.Slot.Name, err)
	}
	return nil
}

// take takes the credential, masked or not.
func (r *reading) take(c attendance.Credential) {
	number, name := attendance.MaskNumber, attendance.MaskName
	if !r.Masked {
		number = func(s string) string { return s }
		name = number
	}
	r.Kind, r.Level, r.Partial, r.Spec, r.ValidTo = string(c.Kind), c.Level, c.Partial(), c.Spec, c.ValidTo
	if !c.Ident.IsZero() {
		r.Ident = number(c.Ident.Reveal())
	}
	if !c.CardNo.IsZero() {
		r.CardNo = number(c.CardNo.Reveal())
	}
	if !c.PersonNo.IsZero() {
		r.PersonNo = number(c.PersonNo.Reveal())
	}
	if !c.Name.IsZero() {
		r.Name = name(c.Name.Reveal())
	}
}

// levels says what a level proves.
var levels = map[attendance.CardLevel]string{
	attendance.LevelFile:          "readable data, which can be copied",
	attendance.LevelOpened:        "a security module opened it, which a copy can allow too",
	attendance.LevelAuthenticated: "the card answered a fresh challenge",
}

func (r *reading) print(w io.Writer) {
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-10s %s\n", label, value)
		}
	}
	line("reader", r.Reader)
	line("profile", r.Profile)
	if r.Fault == "" {
		line("level", fmt.Sprintf("%s: %s", r.Level, levels[r.Level]))
		line("no higher", r.Doubt)
		line("version", r.Spec)
		line("ident", r.Ident)
		line("card no", r.CardNo)
		line("person no", r.PersonNo)
		line("name", r.Name)
		line("valid to", r.ValidTo)
		if r.Partial {
			line("partial", "the card keeps its holder to itself; the roster finds its holder by the card's own numbers")
		}
		if r.Masked {
			line("masked", "numbers and name: -show prints them in full")
		}
	}
	fmt.Fprintln(w)
	for _, s := range r.Steps {
		fmt.Fprintf(w, "%9.3f ms  %-9s %s\n", s.MS, s.Status, s.Step)
	}
	fmt.Fprintf(w, "%9.3f ms  in %d commands; %.3f ms besides\n", r.CardMS, len(r.Steps), r.TotalMS-r.CardMS)
}

// cardRecord writes the dialogue of a card into a new file, without its holder's
// data.
func cardRecord(ctx context.Context, args []string, stdout io.Writer) (err error) {
	flags := newCardFlags("card record")
	source := flags.String("source", "", "what the card is: region, version, reader model; never a number from it")
	if err := parse(flags.FlagSet, args, 1); err != nil {
		return err
	}
	card, profile, _, err := flags.open()
	if err != nil {
		return err
	}
	defer card.Close()
	file, err := os.OpenFile(flags.Arg(0), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("card record: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if *source == "" {
		*source = "a card not described"
	}
	ctx, cancel := context.WithTimeout(ctx, 6*readLimit)
	defer cancel()
	about := fmt.Sprintf("%s, recorded in reader %s with profile %s", *source, card.Slot.Name, profile.Name)
	recorder := reader.NewRecorder(file, card, profile, about, card.Slot.ATR)
	_, readErr := reader.NewCard(recorder).Read(ctx, profile)
	if err := errors.Join(reader.Explore(ctx, recorder, profile), recorder.Err()); err != nil {
		return fmt.Errorf("card record: reader %q: %w", card.Slot.Name, err)
	}
	fmt.Fprintf(stdout, "%s: written, without the holder's data\n", flags.Arg(0))
	if readErr != nil {
		fmt.Fprintf(stdout, "the terminal would say of this card: %v\n", readErr)
	}
	return nil
}
