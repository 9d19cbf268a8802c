package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"rollcall/attendance"
	"rollcall/vision"
	"rollcall/vision/evaluate"
)

// faceEval measures how well the terminal's own check knows people on a given
// folder of pictures.
func faceEval(ctx context.Context, args []string, stdout io.Writer) error {
	return evalFaces(ctx, args, stdout, os.Stderr)
}

// evalOptions are what face eval is asked beyond the folder.
type evalOptions struct {
	all       bool
	ranks     []int
	groups    evaluate.Groups
	hasGroups bool
}

func evalFaces(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFaceFlags("face eval", stderr)
	options := evalOptions{}
	flags.BoolVar(&options.all, "all", false, "compare all pictures with all")
	asJSON := flags.Bool("json", false, "print one JSON object")
	out := flags.String("out", "", "folder for det.svg and histogram.svg")
	groups := flags.String("groups", "", "CSV file, prefix,group: a table by group")
	ranks := flags.String("rank", "100", "gallery sizes for rank 1, with commas between")
	dir, err := flags.parseFolder(args)
	if err != nil {
		return err
	}
	if options.ranks, err = parseRanks(*ranks); err != nil {
		return err
	}
	if *groups != "" {
		if options.groups, err = readGroups(*groups); err != nil {
			return err
		}
		options.hasGroups = true
	}
	names, pairs, err := readSet(dir)
	if err != nil {
		return fmt.Errorf("face eval: %w", err)
	}
	options.all = options.all || len(pairs) == 0
	set, err := flags.analyse(ctx, dir, names)
	if err != nil {
		return err
	}
	if len(pairs) == 0 {
		pairs = evaluate.DrawPairs(set.usable())
	}
	e, err := evaluateSet(ctx, set, pairs, options, stderr)
	if err != nil {
		return fmt.Errorf("face eval: %w", err)
	}
	e.report.Manifest, e.report.Plain = flags.manifestName(), *flags.plain
	if *out != "" {
		if err := e.draw(*out); err != nil {
			return fmt.Errorf("face eval: %w", err)
		}
	}
	if *asJSON {
		return printJSON(stdout, e.report)
	}
	e.report.print(stdout)
	return nil
}

func (f faceFlags) manifestName() string {
	if *f.manifest == "" {
		return "default"
	}
	return filepath.Base(*f.manifest)
}

func parseRanks(text string) ([]int, error) {
	var ranks []int
	for _, word := range strings.Split(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 2 {
			return nil, fmt.Errorf("face eval: -rank %q: must be numbers of people, 2 or more, with commas between", text)
		}
		ranks = append(ranks, n)
	}
	return ranks, nil
}

func readGroups(path string) (evaluate.Groups, error) {
	f, err := os.Open(path)
	if err != nil {
		return evaluate.Groups{}, fmt.Errorf("face eval: %w", err)
	}
	defer f.Close()
	groups, err := evaluate.ReadGroups(f)
	if err != nil {
		return evaluate.Groups{}, fmt.Errorf("face eval: %s: %w", path, err)
	}
	return groups, nil
}

// readSet gives the pictures of a folder: those that its pairs.csv names, or
// without one all that are in it, a folder per person.
func readSet(dir string) (names []string, pairs []evaluate.Pair, err error) {
	f, err := os.Open(filepath.Join(dir, "pairs.csv"))
	if errors.Is(err, fs.ErrNotExist) {
		names, err = pictureNames(dir)
		return names, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if pairs, err = evaluate.ReadPairs(f); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return evaluate.Pictures(pairs), pairs, nil
}

// usable are the pictures that were analysed, with a face or without.
func (s analysed) usable() []string {
	var names []string
	for _, c := range s.captures {
		if c.code == "" {
			names = append(names, c.Path)
		}
	}
	return names
}

func (s analysed) samples() []evaluate.Sample {
	var samples []evaluate.Sample
	for _, c := range s.captures {
		if c.code == "" {
			samples = append(samples, c.Sample)
		}
	}
	return samples
}

// evaluation is a report with the counts that its charts are drawn from.
type evaluation struct {
	report  faceReport
	tally   *evaluate.Tally  // of all comparisons, or of the pairs
	pairs   []evaluate.Pair  // whose pictures are both there
	trials  []evaluate.Trial // one a pair
	options evalOptions
}

func evaluateSet(ctx context.Context, set analysed, pairs []evaluate.Pair, options evalOptions, stderr io.Writer) (*evaluation, error) {
	samples := set.samples()
	if len(samples) == 0 {
		return nil, errPictures
	}
	e := &evaluation{report: newFaceReport(set), options: options}
	e.judgePairs(set, pairs)
	var accept func(float64) (evaluate.Acceptance, bool)
	if options.all {
		m, err := compareAll(ctx, samples, stderr)
		if err != nil {
			return nil, err
		}
		e.tally, accept = m.Tally, m.AcceptAt
	} else {
		accept = e.tally.AcceptAt
	}
	e.report.All = options.all
	e.report.Comparisons = counts{e.tally.Mated(), e.tally.NonMated()}
	for _, far := range fars {
		if a, ok := accept(far.rate); ok {
			e.report.accept(far.name, a)
		} else {
			e.report.TAR[far.name] = nil
		}
	}
	for _, n := range options.ranks {
		e.report.identify(samples, n)
	}
	if options.hasGroups {
		return e, e.judgeGroups(ctx, samples, set)
	}
	return e, nil
}

// fars are the false accept rates that TAR is given for.
var fars = []struct {
	name string
	rate float64
}{{"1e-2", 1e-2}, {"1e-3", 1e-3}, {"1e-4", 1e-4}, {"1e-5", 1e-5}}

func compareAll(ctx context.Context, samples []evaluate.Sample, stderr io.Writer) (*evaluate.Matrix, error) {
	var mu sync.Mutex // CompareAll tells from several goroutines
	progress := newProgress(stderr, "comparisons", len(samples)*(len(samples)-1)/2)
	return evaluate.CompareAll(ctx, samples, func(n int) {
		mu.Lock()
		defer mu.Unlock()
		progress.at(n)
	})
}

// judgePairs scores the pairs and judges each fold by the others. A pair with a
// picture that is missing or broken is left out; one with a picture that shows
// no face stays in and does not match.
func (e *evaluation) judgePairs(set analysed, pairs []evaluate.Pair) {
	samples := map[string]evaluate.Sample{}
	for _, s := range set.samples() {
		samples[s.Path] = s
	}
	e.tally = evaluate.NewTally()
	for _, p := range pairs {
		a, okA := samples[p.A]
		b, okB := samples[p.B]
		if !okA || !okB {
			e.report.PairsLeftOut++
			continue
		}
		t := evaluate.Trial{Fold: p.Fold, Same: p.Same, Score: a.Score(b)}
		e.pairs, e.trials = append(e.pairs, p), append(e.trials, t)
		e.tally.Add(t.Same, t.Score)
	}
	e.report.Pairs = len(e.trials)
	e.report.judge(e.trials, e.tally)
}

// judgeGroups compares within each group, at the threshold of all.
func (e *evaluation) judgeGroups(ctx context.Context, samples []evaluate.Sample, set analysed) error {
	threshold := e.report.operating()
	if threshold == nil {
		return nil
	}
	e.report.GroupsThreshold = threshold
	members := map[string][]evaluate.Sample{}
	for _, s := range samples {
		if group := e.options.groups.Of(s.Path); group != "" {
			members[group] = append(members[group], s)
		}
	}
	for _, group := range slices.Sorted(maps.Keys(members)) {
		m, err := evaluate.CompareAll(ctx, members[group], func(int) {})
		if err != nil {
			return err
		}
		g := groupReport{Group: group, Images: len(members[group]), People: people(members[group])}
		for _, s := range members[group] {
			if s.Embedding == nil {
				g.Missed++
			}
		}
		g.FNMR, g.FMR = rateOf(m.FNMR(*threshold)), rateOf(m.FMR(*threshold))
		var trials []evaluate.Trial
		tally := evaluate.NewTally()
		for i, p := range e.pairs {
			if e.options.groups.Of(p.A) == group && e.options.groups.Of(p.B) == group {
				trials = append(trials, e.trials[i])
				tally.Add(e.trials[i].Same, e.trials[i].Score)
			}
		}
		g.Pairs = len(trials)
		if folds, ok := evaluate.JudgeFolds(trials); ok {
			g.Accuracy = &folds.Accuracy
		}
		if tally.Mated() > 0 && tally.NonMated() > 0 {
			eer, _ := tally.BoundedEER()
			g.EER = &eer
		}
		e.report.Groups = append(e.report.Groups, g)
	}
	return nil
}

func people(samples []evaluate.Sample) int {
	seen := map[string]bool{}
	for _, s := range samples {
		seen[s.Person] = true
	}
	return len(seen)
}

// draw writes the charts.
func (e *evaluation) draw(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	threshold := 0.0
	if t := e.report.operating(); t != nil {
		threshold = *t
	}
	for name, svg := range map[string]string{
		"det.svg":       evaluate.DETChart(e.tally),
		"histogram.svg": evaluate.HistogramChart(e.tally, threshold),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// gate counts what a terminal would have said to who is on the pictures.
func (s analysed) gate() map[attendance.Advice]int {
	said := map[attendance.Advice]int{}
	for _, c := range s.captures {
		if c.code == "" && c.advice != attendance.AdviceNone {
			said[c.advice]++
		}
	}
	return said
}

// refused counts the pictures that were left out: absent, and unusable.
func (s analysed) refused() (missing, broken int) {
	for _, c := range s.captures {
		switch c.code {
		case "":
		case vision.CodeNoFile:
			missing++
		default:
			broken++
		}
	}
	return missing, broken
}
