package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rollcall/device"
	"rollcall/vision"
	"rollcall/vision/evaluate"
)

// software is this program's name and release; the build sets it.
var software = "rollcalld/unknown"

// faceCalibrate sets the thresholds on an institution's own pictures and writes
// the calibration file.
func faceCalibrate(ctx context.Context, args []string, stdout io.Writer) error {
	return calibrateFaces(ctx, args, stdout, os.Stderr, time.Now().UTC())
}

// calibrationTargets are the error rates that are wanted.
type calibrationTargets struct {
	fmr     float64
	fpir    float64
	margin  float64
	gallery int
}

func calibrateFaces(ctx context.Context, args []string, stdout, stderr io.Writer, now time.Time) error {
	flags := newFaceFlags("face calibrate", stderr)
	targets := calibrationTargets{}
	flags.Float64Var(&targets.fmr, "fmr", 1e-4, "false match rate of one comparison, 1:1")
	flags.Float64Var(&targets.fpir, "fpir", 1e-2, "how often a stranger may be taken for somebody of the class, 1:N")
	flags.Float64Var(&targets.margin, "margin", 0.05, "by how much the first must lead the second, 1:N")
	flags.IntVar(&targets.gallery, "gallery", 60, "people in a class, 1:N")
	out := flags.String("out", "calibration.json", "file to write")
	dir, err := flags.parseFolder(args)
	if err != nil {
		return err
	}
	names, _, err := readSet(dir)
	if err != nil {
		return fmt.Errorf("face calibrate: %w", err)
	}
	set, err := flags.analyse(ctx, dir, names)
	if err != nil {
		return err
	}
	samples := set.samples()
	matrix, err := compareAll(ctx, samples, stderr)
	if err != nil {
		return fmt.Errorf("face calibrate: %w", err)
	}
	c := vision.Calibration{
		V: 1, Embedder: set.models[vision.RoleEmbed], Made: now.Truncate(time.Second),
		Tool: strings.Replace(software, "rollcalld/", "rollcall/", 1),
	}
	if c.Verify, err = comparisonPoint(matrix, people(samples), targets.fmr); err != nil {
		return fmt.Errorf("face calibrate: -fmr %g: %w", targets.fmr, err)
	}
	c.Identify = searchPoint(samples, targets)
	// A class compares each newcomer with everybody before: one false flag in a
	// thousand check-ins.
	c.Duplicate, err = comparisonPoint(matrix, people(samples), 1e-3/float64(max(1, targets.gallery-1)))
	if err != nil {
		fmt.Fprintf(stderr, "no threshold for one face under two cards: %v\n", err)
	}
	if c.Identify == nil {
		fmt.Fprintf(stderr, "no threshold for 1:N: it takes more than %d people and %.0f pictures\n", targets.gallery, 3/targets.fpir)
	}
	if c.Data, err = dataID(dir, set.usable()); err != nil {
		return fmt.Errorf("face calibrate: %w", err)
	}
	text, err := c.Encode()
	if err != nil {
		return fmt.Errorf("face calibrate: %w", err)
	}
	if err := device.WriteDurable(*out, text, 0o644); err != nil {
		return fmt.Errorf("face calibrate: %w", err)
	}
	printCalibration(stdout, c, *out)
	return nil
}

// lowestThreshold keeps a calibration on few and easy pictures from accepting
// what is hardly alike.
const lowestThreshold = 0.1

// rounded up to four digits: the file is read by people.
func rounded(threshold float64) float64 {
	return max(lowestThreshold, math.Ceil(threshold*1e4)/1e4)
}

// comparisonPoint sets a threshold for one comparison.
func comparisonPoint(m *evaluate.Matrix, people int, target float64) (*vision.OperatingPoint, error) {
	if m.Mated() == 0 {
		return nil, errors.New("nobody is on two pictures: take two or more of each person")
	}
	threshold, ok := m.Threshold(target)
	if !ok {
		return nil, fmt.Errorf("%d comparisons of different people show no rate under %.2g (3 in all): take more people, or ask for more",
			m.NonMated(), 3/float64(max(1, m.NonMated())))
	}
	threshold = rounded(threshold)
	if threshold >= 1 {
		return nil, errors.New("no threshold keeps these people apart: is one of them in two folders?")
	}
	matches, misses := m.FMR(threshold), m.FNMR(threshold)
	fmr, fnmr := m.IntervalsAt(threshold)
	return &vision.OperatingPoint{
		Threshold: threshold, People: people, Genuine: m.Mated(), Impostor: m.NonMated(), TargetFMR: target,
		FalseMatches: matches.Errors, FalseNonMatches: misses.Errors,
		FMR: [2]float64{fmr.Low, fmr.High}, FNMR: [2]float64{fnmr.Low, fnmr.High},
	}, nil
}

// searchPoint sets a threshold for 1:N in a class; nil if the pictures are too
// few.
func searchPoint(samples []evaluate.Sample, t calibrationTargets) *vision.OperatingPoint {
	searches := evaluate.Searches(samples, t.gallery)
	threshold, ok := evaluate.SearchThreshold(searches, t.fpir, t.margin)
	threshold = rounded(threshold)
	if !ok || threshold >= 1 {
		return nil
	}
	matches, misses := evaluate.FPIR(searches, threshold, t.margin), evaluate.FNIR(searches, threshold, t.margin)
	if misses.Of == 0 {
		return nil
	}
	fpir, fnir := matches.Interval(), misses.Interval()
	return &vision.OperatingPoint{
		Threshold: threshold, Margin: t.margin, Gallery: t.gallery, People: people(samples),
		Genuine: misses.Of, Impostor: matches.Of, TargetFMR: t.fpir,
		FalseMatches: matches.Errors, FalseNonMatches: misses.Errors,
		FMR: [2]float64{fpir.Low, fpir.High}, FNMR: [2]float64{fnir.Low, fnir.High},
	}
}

// dataID names a set of pictures: the SHA-256 over their names and sums.
func dataID(dir string, names []string) (string, error) {
	all := sha256.New()
	for _, name := range slices.Sorted(slices.Values(names)) {
		text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(all, "%x  %s\n", sha256.Sum256(text), name)
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

func printCalibration(w io.Writer, c vision.Calibration, path string) {
	for _, p := range []struct {
		what  string
		point *vision.OperatingPoint
	}{{"1:1", c.Verify}, {"1:N", c.Identify}, {"two cards", c.Duplicate}} {
		if p.point == nil {
			continue
		}
		fmt.Fprintf(w, "%-9s  threshold %.4f; wrongly taken for the person: %s; wrongly not: %s\n", p.what, p.point.Threshold,
			evaluate.Rate{Errors: p.point.FalseMatches, Of: p.point.Impostor}, evaluate.Rate{Errors: p.point.FalseNonMatches, Of: p.point.Genuine})
	}
	fmt.Fprintf(w, "%s is written: name it as calibration in the [vision] part of rollcalld.toml\n", path)
}
