// Command rollcall-sim plays a classroom without devices: real programs, a real
// pcscd with virtual cards, a network camera that shows people, a network that
// can be cut.
//
//	rollcall-sim run      a scripted class arrives, again and again, until Ctrl-C
//	rollcall-sim demo     it arrives once; exit 0 only if everything equals the truth
//	rollcall-sim bench    taps to measure
//
// Exit status: 0, 1 if something does not equal the truth, 2 if it could not
// be played.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"rollcall/simulator"
)

// errUntrue says that what happened does not equal the scenario's truth.
var errUntrue = errors.New("what happened does not equal the truth")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUntrue):
		fmt.Fprintln(os.Stderr, "rollcall-sim:", err)
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "rollcall-sim:", err)
		os.Exit(2)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New("say what to do: run, demo or bench")
	}
	play, ok := map[string]func(context.Context, *player) error{"run": playOn, "demo": playOnce, "bench": measure}[args[0]]
	if !ok {
		return fmt.Errorf("%q: say run, demo or bench", args[0])
	}
	p := &player{StageConfig: simulator.StageConfig{Out: stdout}}
	flags := flag.NewFlagSet("rollcall-sim "+args[0], flag.ContinueOnError)
	flags.StringVar(&p.scenario, "scenario", "class", "a built-in scenario (class, control, bench) or a `file`")
	flags.StringVar(&p.Dir, "dir", "build/stage", "`directory` for state, logs and configuration; emptied first")
	flags.StringVar(&p.Bin, "bin", "bin", "`directory` of the programs")
	flags.StringVar(&p.Models, "models", "build/models", "`directory` of the nets")
	flags.StringVar(&p.People, "people", "build/people", "`directory` of the pictures")
	flags.StringVar(&p.Panel, "panel", "", "`address` of the panel; a free port unless given")
	flags.StringVar(&p.Daemon, "daemon", "", "another daemon `program`")
	flags.IntVar(&p.rounds, "rounds", 3, "bench: how often the class arrives")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	for _, dir := range []*string{&p.Dir, &p.Bin, &p.Models, &p.People} {
		absolute, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = absolute
	}
	return play(ctx, p)
}

// player is what the flags say.
type player struct {
	simulator.StageConfig
	scenario string
	rounds   int
}

// load reads the scenario: a file if there is one of that name.
func (p *player) load() (*simulator.Scenario, error) {
	if filepath.Ext(p.scenario) == "" {
		return simulator.BuiltIn(p.scenario)
	}
	return simulator.LoadScenario(os.DirFS(filepath.Dir(p.scenario)), filepath.Base(p.scenario))
}

// open brings up the stage, with the class enrolled and the first round's
// packages delivered.
func (p *player) open(ctx context.Context, scenario *simulator.Scenario) (*simulator.Stage, *simulator.Round, error) {
	stage, err := simulator.OpenStage(ctx, p.StageConfig)
	if err != nil {
		return nil, nil, err
	}
	round := &simulator.Round{Number: 1, Scenario: scenario, Began: time.Now()}
	if err := stage.Prepare(ctx, round); err != nil {
		stage.Close()
		return nil, nil, err
	}
	return stage, round, nil
}

// playOnce plays the scenario once and compares everything with the truth.
func playOnce(ctx context.Context, p *player) error {
	scenario, err := p.load()
	if err != nil {
		return err
	}
	heard, err := newWire()
	if err != nil {
		return err
	}
	p.Wire = heard.hear
	stage, round, err := p.open(ctx, scenario)
	if err != nil {
		return err
	}
	defer stage.Close()
	if err := stage.Play(ctx, round); err != nil {
		return err
	}
	if err := stage.Receipted(ctx); err != nil {
		return err
	}
	verdict, err := stage.Judge(ctx, round)
	if err != nil {
		return err
	}
	verdict.Print(p.Out)
	if !verdict.OK() {
		return errUntrue
	}
	if err := heard.judge(p.Out); err != nil {
		return err
	}
	fmt.Fprintf(p.Out, "%d taps: screens, the centre's database and the verified export all equal the truth\n", len(verdict.Rows))
	return nil
}

// playOn plays the scenario again and again until ctx ends.
func playOn(ctx context.Context, p *player) error {
	if p.Panel == "" {
		p.Panel = usualPanel()
	}
	scenario, err := p.load()
	if err != nil {
		return err
	}
	stage, round, err := p.open(ctx, scenario)
	if err != nil {
		return ended(ctx, err)
	}
	defer stage.Close()
	for {
		fmt.Fprintf(p.Out, "\nthe panel is at http://%s/ - round %d - Ctrl-C ends\n", stage.Panel, round.Number)
		if err := stage.Play(ctx, round); err != nil {
			return ended(ctx, err)
		}
		round = round.Next()
		if err := stage.Publish(ctx, round); err != nil {
			return ended(ctx, err)
		}
	}
}

// ended turns the end that was asked for into success.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// usualPanel is port 8080, or nothing (a free port) where that is taken.
func usualPanel() string {
	const usual = "127.0.0.1:8080"
	listener, err := net.Listen("tcp", usual)
	if err != nil {
		return ""
	}
	listener.Close()
	return usual
}
