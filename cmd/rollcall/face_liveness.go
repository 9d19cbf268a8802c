package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"rollcall/vision"
	"rollcall/vision/evaluate"
)

// notTested stands under every liveness figure.
const notTested = "Not tested to ISO/IEC 30107-3: that takes an accredited laboratory and attacks of its own."

// liveFolder holds the bona fide presentations; every other folder is a species.
const liveFolder = "live"

// faceLiveness measures how well the liveness net parts people from pictures of
// people, by the species of attack.
func faceLiveness(ctx context.Context, args []string, stdout io.Writer) error {
	return livenessOfFaces(ctx, args, stdout, os.Stderr)
}

func livenessOfFaces(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFaceFlags("face liveness", stderr)
	threshold := flags.Float64("threshold", 0.5, "score from which somebody is taken for live")
	asJSON := flags.Bool("json", false, "print one JSON object")
	dir, err := flags.parseFolder(args)
	if err != nil {
		return err
	}
	names, err := pictureNames(dir)
	if err != nil {
		return fmt.Errorf("face liveness: %w", err)
	}
	set, err := flags.analyse(ctx, dir, names)
	if err != nil {
		return err
	}
	species := set.presentations()
	live, ok := species[liveFolder]
	if !ok || len(species) < 2 {
		return errors.New("face liveness: the folder needs a folder live/ and one for each species of attack, such as print/ and replay/")
	}
	delete(species, liveFolder)
	r := livenessReport{
		Model: set.models[vision.RoleLiveness], Threshold: *threshold, Note: notTested,
		BPCER: presentationOf(live.Rejected(*threshold), live), Species: map[string]presentation{},
	}
	r.Missing, r.Broken = set.refused()
	for name, attack := range species {
		p := presentationOf(attack.Accepted(*threshold), attack)
		if area, ok := evaluate.AUC(live.Scores, attack.Scores); ok {
			p.AUC = &area
		}
		r.Species[name] = p
		if r.Worst == "" || p.Value > r.Species[r.Worst].Value {
			r.Worst = name
		}
	}
	if *asJSON {
		return printJSON(stdout, r)
	}
	r.print(stdout)
	return nil
}

// presentations sorts the scores by the uppermost folder.
func (s analysed) presentations() map[string]evaluate.Presentations {
	species := map[string]evaluate.Presentations{}
	for _, c := range s.captures {
		folder, _, below := strings.Cut(c.Path, "/")
		if c.code != "" || !below {
			continue
		}
		p := species[folder]
		if c.live < 0 {
			p.Silent++
		} else {
			p.Scores = append(p.Scores, c.live)
		}
		species[folder] = p
	}
	return species
}

// livenessReport is what face liveness prints.
type livenessReport struct {
	Model     string                  `json:"model"` // SHA-256 of the liveness net
	Threshold float64                 `json:"threshold"`
	BPCER     presentation            `json:"bpcer"`
	Species   map[string]presentation `json:"apcer"` // by species
	Worst     string                  `json:"worst"` // the species with the highest APCER: that one counts
	Missing   int                     `json:"missing"`
	Broken    int                     `json:"broken"`
	Note      string                  `json:"note"`
}

// presentation is an error rate of ISO/IEC 30107-3 with its 95 % interval, its
// non-responses, and for attacks the AUC against the live ones.
type presentation struct {
	rate
	Interval    evaluate.Interval `json:"interval"`
	NonResponse int               `json:"non_response"` // no face found
	AUC         *float64          `json:"auc,omitempty"`
}

func presentationOf(r evaluate.Rate, p evaluate.Presentations) presentation {
	return presentation{rate: rateOf(r), Interval: r.Interval(), NonResponse: p.Silent}
}

func (r livenessReport) print(w io.Writer) {
	fmt.Fprintf(w, "liveness net %.12s…, threshold %.2f; left out: %d missing, %d broken\n", r.Model, r.Threshold, r.Missing, r.Broken)
	fmt.Fprintf(w, "BPCER            %s, interval %s, no face in %d\n", r.BPCER.rate, r.BPCER.Interval, r.BPCER.NonResponse)
	for _, name := range slices.Sorted(maps.Keys(r.Species)) {
		p := r.Species[name]
		area := "not measured"
		if p.AUC != nil {
			area = fmt.Sprintf("%.3f", *p.AUC)
		}
		fmt.Fprintf(w, "APCER %-10s %s, interval %s, no face in %d, AUC %s\n", name, p.rate, p.Interval, p.NonResponse, area)
	}
	fmt.Fprintln(w, r.Note)
}
