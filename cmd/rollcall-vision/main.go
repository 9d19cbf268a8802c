// Command rollcall-vision is the camera worker: it opens the camera when told,
// finds and embeds faces, and answers. It holds no key, no template and no
// name. rollcalld starts it, watches it and kills it when a camera blocks it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"rollcall/vision"
	"rollcall/vision/opencv"
)

func main() {
	err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)
	if err == nil {
		return
	}
	if !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "rollcall-vision:", err)
	}
	os.Exit(exitCode(err))
}

// Exit codes: what the caretaker can mend in the configuration is 2.
func exitCode(err error) int {
	if errors.Is(err, errConfig) || errors.Is(err, flag.ErrHelp) {
		return 2
	}
	return 1
}

// checkDeadline is how long -check waits for a frame.
const checkDeadline = 10 * time.Second

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("rollcall-vision", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "/etc/rollcall/vision.toml", "configuration `file`")
	check := flags.Bool("check", false, "load the models, take one frame from the camera, say what was seen, and end")
	load := flags.String("load", "", "load the model set of this `name` or manifest from the directory -models, run each net once, and end")
	models := flags.String("models", "", "with -load: the `directory` of the models")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	if *load != "" {
		return loadOnce(*models, *load, stdout)
	}
	config, err := loadConfig(*path)
	if err != nil {
		return err
	}
	if err := limit(config.MemoryMB); err != nil {
		return err
	}
	if *check {
		return checkOnce(ctx, config, stdout)
	}
	commands, answers, err := pipes()
	if err != nil {
		return err
	}
	signal.Ignore(os.Interrupt) // Ctrl-C reaches the whole group; the daemon says when to go
	return serve(config, commands, answers)
}

// pipes takes over the two pipes from the daemon.
func pipes() (commands, answers *os.File, err error) {
	commands, answers = os.NewFile(vision.CommandFD, "commands"), os.NewFile(vision.AnswerFD, "answers")
	for _, f := range []*os.File{commands, answers} {
		info, err := f.Stat()
		if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
			return nil, nil, errors.New("no pipes on file descriptors 3 and 4: rollcalld starts this program; to try a configuration use -check")
		}
	}
	return commands, answers, nil
}

func checkOnce(ctx context.Context, config Config, stdout io.Writer) error {
	_, nets, err := loadSet(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, checkDeadline)
	defer cancel()
	type result struct {
		faces []vision.Face
		err   error
	}
	// A dead camera may block its goroutine for ever; the process ends without it.
	done := make(chan result, 1)
	go func() {
		faces, err := lookOnce(config, nets)
		done <- result{faces, err}
	}()
	select {
	case r := <-done:
		if r.err == nil {
			fmt.Fprintf(stdout, "models loaded, camera gives frames, %d face(s) in view\n", len(r.faces))
		}
		return r.err
	case <-ctx.Done():
		return opencv.ErrNoCamera
	}
}

// loadOnce tries a model set, as rollcall models does before it uses one.
func loadOnce(models, manifest string, stdout io.Writer) error {
	if err := limit(defaultMemoryMB); err != nil {
		return err
	}
	set, nets, err := loadSet(Config{Models: models, Manifest: manifest, Threads: 1})
	if err != nil {
		return err
	}
	nets.Close()
	fmt.Fprintf(stdout, "model set %s loads\n", set.Name)
	return nil
}

// loadSet finds and loads the model set of the configuration.
func loadSet(config Config) (vision.Manifest, *opencv.Nets, error) {
	set, err := vision.FindSet(config.Models, config.Manifest)
	if err != nil {
		return vision.Manifest{}, nil, err
	}
	nets, err := opencv.LoadNets(set.Manifest, set.Dir, config.Threads)
	return set.Usable(set.Dir), nets, err
}

func lookOnce(config Config, nets *opencv.Nets) ([]vision.Face, error) {
	camera, err := openCamera(config)
	if err != nil {
		return nil, err
	}
	defer camera.Close()
	picture := opencv.NewPicture()
	defer picture.Close()
	if !camera.Read(picture) {
		return nil, opencv.ErrNoCamera
	}
	faces, _, err := nets.Look(picture, vision.Work{})
	return faces, err
}
