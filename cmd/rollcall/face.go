package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"rollcall/attendance"
	"rollcall/vision"
	"rollcall/vision/evaluate"
)

// faceFlags are what the commands on faces have in common: which worker
// analyses the pictures, with which nets, and who is told how far it is.
type faceFlags struct {
	*flag.FlagSet
	worker, models, manifest *string
	plain                    *bool
	stderr                   io.Writer
}

func newFaceFlags(name string, stderr io.Writer) faceFlags {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	return faceFlags{f,
		f.String("worker", "", "the camera worker; beside this program unless given"),
		f.String("models", "", "the nets' directory"),
		f.String("manifest", "", "the model set: a name, or a manifest file; the default set unless given"),
		f.Bool("plain", false, "compare plain vectors, as published figures do; else one side is enrolled with its mirror image, as terminals do"),
		stderr,
	}
}

// parseFolder parses flags before and after the one operand, a folder.
func (f faceFlags) parseFolder(args []string) (dir string, err error) {
	if err := parseFlags(f.FlagSet, args); err != nil {
		return "", err
	}
	if f.NArg() == 0 {
		return "", fmt.Errorf("%s: the folder of the pictures is missing: see rollcall help", f.Name())
	}
	dir = f.Arg(0)
	if err := parse(f.FlagSet, f.Args()[1:], 0); err != nil {
		return "", err
	}
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		return "", fmt.Errorf("%s: %s is not a folder that can be read", f.Name(), dir)
	}
	return dir, nil
}

// modelDirs are where nets lie, the first that exists counts: of an installed
// package, and of a source tree whose bin/ this program is in.
func modelDirs() []string {
	dirs := []string{"/usr/share/rollcall/models"}
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Join(filepath.Dir(self), "..", "build", "models"))
	}
	return append(dirs, filepath.Join("build", "models"))
}

// workerSetup gives the worker's path and writes its configuration to a
// temporary file, which done removes.
func (f faceFlags) workerSetup() (worker, config string, done func(), err error) {
	if worker, err = f.workerPath(); err != nil {
		return "", "", nil, err
	}
	models := *f.models
	if models == "" {
		dirs := modelDirs()
		i := slices.IndexFunc(dirs, func(dir string) bool { _, err := os.Stat(dir); return err == nil })
		if i < 0 {
			return "", "", nil, fmt.Errorf("%s: no nets in %s: run make models, or name their directory with -models", f.Name(), strings.Join(dirs, ", "))
		}
		models = dirs[i]
	}
	if models, err = filepath.Abs(models); err != nil {
		return "", "", nil, err
	}
	dir, err := os.MkdirTemp("", "rollcall-face")
	if err != nil {
		return "", "", nil, err
	}
	done = func() { _ = os.RemoveAll(dir) }
	text := fmt.Sprintf("camera = %q\nmodels = %q\n", os.DevNull, models) // the camera is never opened
	if *f.manifest != "" {
		text += fmt.Sprintf("manifest = %q\n", *f.manifest)
	}
	config = filepath.Join(dir, "vision.toml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		done()
		return "", "", nil, err
	}
	return worker, config, done, nil
}

func (f faceFlags) workerPath() (string, error) {
	if *f.worker != "" {
		return *f.worker, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "rollcall-vision")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("rollcall-vision")
	if err != nil {
		return "", fmt.Errorf("%s: rollcall-vision is not beside this program nor on the path: name it with -worker", f.Name())
	}
	return path, nil
}

// capture is what the worker made of one picture.
type capture struct {
	evaluate.Sample
	code   vision.Code       // why it was refused; empty if it was analysed
	advice attendance.Advice // what a terminal would have told this person; empty: it would have gone on
	live   float64           // -1 if not measured
	took   vision.Times
}

// analysed is a set of pictures after the worker.
type analysed struct {
	captures []capture
	models   map[vision.Role]string
}

// mostTold bounds how many refused pictures are named.
const mostTold = 20

// analyse has the worker look at pictures of a folder. A picture that cannot be
// used is named on standard error with the reason, and the rest goes on.
func (f faceFlags) analyse(ctx context.Context, dir string, names []string) (analysed, error) {
	worker, config, done, err := f.workerSetup()
	if err != nil {
		return analysed{}, err
	}
	defer done()
	root, err := filepath.Abs(dir)
	if err != nil {
		return analysed{}, err
	}
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = filepath.Join(root, filepath.FromSlash(name))
	}
	set := analysed{captures: make([]capture, 0, len(names))}
	told, progress := 0, newProgress(f.stderr, "pictures", len(names))
	set.models, err = vision.Analyse(ctx, worker, config, paths, vision.Work{Mirror: !*f.plain}, func(i int, a vision.Answer) {
		c := captureOf(names[i], a)
		set.captures = append(set.captures, c)
		if c.code != "" {
			if told++; told <= mostTold {
				fmt.Fprintf(f.stderr, "%s: left out: %s\n", names[i], a.Text)
			}
		}
		progress.at(i + 1)
	})
	if told > mostTold {
		fmt.Fprintf(f.stderr, "and %d more left out\n", told-mostTold)
	}
	if err != nil {
		return analysed{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return set, nil
}

func captureOf(name string, a vision.Answer) capture {
	c := capture{Sample: evaluate.Sample{Path: name, Person: evaluate.Person(name)}, live: -1, took: a.Took}
	if a.Kind == vision.KindRefused {
		c.code = a.Code
		return c
	}
	c.advice = vision.Advise(a.Faces, a.Width)
	if i := subject(a.Faces, a.Width, a.Height); i >= 0 {
		c.Embedding, c.live = a.Faces[i].Embedding, a.Faces[i].Liveness
		c.Template = template(a.Faces[i])
	}
	return c
}

// template is what an enrolment keeps of a face: the mean of its vector and its
// mirror image's. Nil if that was not asked for.
func template(f vision.Face) vision.Embedding {
	if len(f.Mirrored) == 0 || len(f.Mirrored) != len(f.Embedding) {
		return nil
	}
	sum := make(vision.Embedding, len(f.Embedding))
	for i, x := range f.Embedding {
		sum[i] = x + f.Mirrored[i]
	}
	return sum.Unit()
}

// subject picks whose picture it is where it shows several faces, or -1: the
// largest, less twice the squared distance of its middle from the picture's,
// since collections such as LFW centre the person they name. A terminal does
// not pick: it asks the others to step aside.
func subject(faces []vision.Face, width, height int) int {
	best, most := -1, 0.0
	for i, f := range faces {
		dx := f.Box.X + f.Box.W/2 - float64(width)/2
		dy := f.Box.Y + f.Box.H/2 - float64(height)/2
		if weight := f.Box.W*f.Box.H - 2*(dx*dx+dy*dy); best < 0 || weight > most {
			best, most = i, weight
		}
	}
	return best
}

// pictureNames lists the pictures below a folder, by their endings.
func pictureNames(dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		ending := strings.ToLower(filepath.Ext(path))
		if entry.IsDir() || !slices.Contains([]string{".jpg", ".jpeg", ".png", ".pgm", ".ppm"}, ending) {
			return nil
		}
		name, err := filepath.Rel(dir, path)
		names = append(names, filepath.ToSlash(name))
		return err
	})
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("no pictures in %s: it needs one folder per person with .jpg, .png or .pgm files, or a pairs.csv", dir)
	}
	return names, err
}

var errPictures = errors.New("no picture could be used")

// progress says on out how far long work is, every twentieth of it.
type progress struct {
	out   io.Writer
	what  string
	total int
	step  int
}

// longWork is how much work is worth a word.
const longWork = 200

func newProgress(out io.Writer, what string, total int) *progress {
	return &progress{out: out, what: what, total: total}
}

func (p *progress) at(n int) {
	if step := 20 * n / max(1, p.total); step > p.step && p.total >= longWork {
		p.step = step
		fmt.Fprintf(p.out, "%s: %d of %d, %d %%\n", p.what, n, p.total, 5*step)
	}
}
