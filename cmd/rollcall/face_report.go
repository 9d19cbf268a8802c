package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"rollcall/attendance"
	"rollcall/vision"
	"rollcall/vision/evaluate"
)

// faceReport is what face eval prints. Rates are fractions, 0 to 1; what the
// data cannot show is null, and an error rate that is only an upper bound is
// named in Bounds.
type faceReport struct {
	Manifest string                 `json:"manifest"`
	Model    string                 `json:"model"`  // SHA-256 of the embedder
	Models   map[vision.Role]string `json:"models"` // SHA-256 by role
	Plain    bool                   `json:"plain"`  // plain vectors on both sides; else one side is enrolled with its mirror image

	Images  int                       `json:"images"` // analysed
	People  int                       `json:"people"` // folders
	Missing int                       `json:"missing"`
	Broken  int                       `json:"broken"`
	Missed  int                       `json:"missed"`       // analysed, no face found
	FTE     rate                      `json:"fte"`          // people of whom no picture can be compared
	Gate    map[attendance.Advice]int `json:"gate_refused"` // pictures at which a terminal would have asked for another

	Pairs        int       `json:"pairs"`
	PairsLeftOut int       `json:"pairs_left_out"`
	Accuracy     *float64  `json:"accuracy"`
	AccuracyStd  *float64  `json:"accuracy_std"` // of the folds, n-1
	Folds        []float64 `json:"folds"`
	Threshold    *float64  `json:"threshold"` // mean of the folds'
	EER          *float64  `json:"eer"`

	All         bool                  `json:"all"`         // TAR from all against all, else from the pairs
	Comparisons counts                `json:"comparisons"` // behind tar
	TAR         map[string]*float64   `json:"tar"`         // by FAR
	TARDetail   map[string]acceptance `json:"tar_detail"`

	Rank1       map[string]*float64       `json:"rank1"` // by people in the gallery
	Rank1Detail map[string]identification `json:"rank1_detail"`

	Groups          []groupReport `json:"groups,omitempty"`
	GroupsThreshold *float64      `json:"groups_threshold,omitempty"`

	Bounds []string `json:"bounds"` // fields that are upper bounds, since fewer than three errors were seen
	MS     stageMS  `json:"ms"`     // medians over the pictures
}

type counts struct {
	Mated    int `json:"mated"`
	NonMated int `json:"non_mated"`
}

// rate is an error rate with what it was counted from; Value is the bound where
// the counts show no rate.
type rate struct {
	Value  float64 `json:"value"`
	Bound  bool    `json:"bound"`
	Errors int     `json:"errors"`
	Of     int     `json:"of"`
}

func rateOf(r evaluate.Rate) rate {
	value, isBound := r.Bounded()
	return rate{value, isBound, r.Errors, r.Of}
}

func (r rate) String() string { return evaluate.Rate{Errors: r.Errors, Of: r.Of}.String() }

type acceptance struct {
	Threshold float64            `json:"threshold"`
	FMR       rate               `json:"fmr"`
	FNMR      rate               `json:"fnmr"`
	Interval  *evaluate.Interval `json:"tar_interval"` // 95 %, by people; null without -all or with too few people
}

type identification struct {
	Interval evaluate.Interval `json:"interval"` // 95 %, by people
	People   int               `json:"people"`
	Searches int               `json:"searches"`
}

type groupReport struct {
	Group    string   `json:"group"`
	Images   int      `json:"images"`
	People   int      `json:"people"`
	Missed   int      `json:"missed"`
	Pairs    int      `json:"pairs"`
	Accuracy *float64 `json:"accuracy"` // folds of the pairs within the group
	EER      *float64 `json:"eer"`      // of the pairs within the group, or its bound
	FNMR     rate     `json:"fnmr"`     // all within the group, at groups_threshold
	FMR      rate     `json:"fmr"`
}

type stageMS struct {
	Decode   float64 `json:"decode"`
	Detect   float64 `json:"detect"`
	Points   float64 `json:"points"`
	Embed    float64 `json:"embed"`
	Liveness float64 `json:"liveness"`
	Measures float64 `json:"measures"`
	Total    float64 `json:"total"`  // a check-in: without mirror
	Mirror   float64 `json:"mirror"` // an enrolment's second embedding
}

func newFaceReport(set analysed) faceReport {
	r := faceReport{
		Model: set.models[vision.RoleEmbed], Models: set.models, Gate: set.gate(),
		TAR: map[string]*float64{}, TARDetail: map[string]acceptance{},
		Rank1: map[string]*float64{}, Rank1Detail: map[string]identification{},
		Bounds: []string{}, MS: set.medians(),
	}
	r.Missing, r.Broken = set.refused()
	samples := set.samples()
	r.Images, r.People = len(samples), people(samples)
	enrolled := map[string]bool{}
	for _, s := range samples {
		if s.Embedding == nil {
			r.Missed++
		} else {
			enrolled[s.Person] = true
		}
	}
	r.FTE = rateOf(evaluate.Rate{Errors: r.People - len(enrolled), Of: r.People})
	return r
}

// judge fills in what the pairs say.
func (r *faceReport) judge(trials []evaluate.Trial, tally *evaluate.Tally) {
	if folds, ok := evaluate.JudgeFolds(trials); ok {
		r.Accuracy, r.AccuracyStd = &folds.Accuracy, &folds.Deviation
		r.Threshold, r.Folds = &folds.Threshold, folds.Each
	}
	if tally.Mated() > 0 && tally.NonMated() > 0 {
		eer, isBound := tally.BoundedEER()
		r.EER = &eer
		if isBound {
			r.Bounds = append(r.Bounds, "eer")
		}
	}
}

func (r *faceReport) accept(far string, a evaluate.Acceptance) {
	tar := a.TAR
	r.TAR[far] = &tar
	r.TARDetail[far] = acceptance{a.Threshold, rateOf(a.FMR), rateOf(a.FNMR), a.Interval}
}

func (r *faceReport) identify(samples []evaluate.Sample, n int) {
	key := strconv.Itoa(n)
	r.Rank1[key] = nil
	if id, ok := evaluate.Identify(samples, n); ok {
		r.Rank1[key] = &id.Rank1
		r.Rank1Detail[key] = identification{id.Interval, id.People, id.Searches}
	}
}

// operating is the threshold at which groups are compared and that the
// histogram shows: that of FAR 1e-3 if it was found, else the folds'.
func (r *faceReport) operating() *float64 {
	if a, ok := r.TARDetail["1e-3"]; ok {
		return &a.Threshold
	}
	return r.Threshold
}

// medians of the stages, over the pictures that were analysed.
func (s analysed) medians() stageMS {
	median := func(stage func(vision.Times) float64) float64 {
		var all []float64
		for _, c := range s.captures {
			if c.code == "" {
				all = append(all, stage(c.took))
			}
		}
		if len(all) == 0 {
			return 0
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return stageMS{
		median(func(t vision.Times) float64 { return t.Decode }),
		median(func(t vision.Times) float64 { return t.Detect }),
		median(func(t vision.Times) float64 { return t.Points }),
		median(func(t vision.Times) float64 { return t.Embed }),
		median(func(t vision.Times) float64 { return t.Liveness }),
		median(func(t vision.Times) float64 { return t.Measures }),
		median(func(t vision.Times) float64 { return t.Total - t.Mirror }),
		median(func(t vision.Times) float64 { return t.Mirror }),
	}
}

func (r *faceReport) print(w io.Writer) {
	how := "one side enrolled with its mirror image, as terminals do"
	if r.Plain {
		how = "plain vectors"
	}
	fmt.Fprintf(w, "model set  %s, embedder %.12s…; %s\n", r.Manifest, r.Model, how)
	fmt.Fprintf(w, "pictures   %d of %d people; left out: %d missing, %d broken\n", r.Images, r.People, r.Missing, r.Broken)
	fmt.Fprintf(w, "no face    %s of the pictures; failure to enrol %s of the people\n", evaluate.Rate{Errors: r.Missed, Of: r.Images}, r.FTE)
	if len(r.Gate) > 0 {
		fmt.Fprintf(w, "gate       a terminal would have asked for another picture: %s\n", gateText(r.Gate))
	}
	r.printPairs(w)
	r.printAcceptance(w)
	for _, n := range slices.SortedFunc(maps.Keys(r.Rank1), numerically) {
		if r.Rank1[n] == nil {
			fmt.Fprintf(w, "rank 1     N=%s: not measured: too few people\n", n)
			continue
		}
		d := r.Rank1Detail[n]
		fmt.Fprintf(w, "rank 1     N=%s: %s (%s), %d people in %d searches\n", n, percent(r.Rank1[n]), d.Interval, d.People, d.Searches)
	}
	r.printGroups(w)
	fmt.Fprintf(w, "ms         detect %.1f, points %.1f, embed %.1f, liveness %.1f, total %.1f (medians, one thread)\n",
		r.MS.Detect, r.MS.Points, r.MS.Embed, r.MS.Liveness, r.MS.Total)
}

func (r *faceReport) printPairs(w io.Writer) {
	fmt.Fprintf(w, "pairs      %d, and %d left out\n", r.Pairs, r.PairsLeftOut)
	if r.Accuracy != nil {
		fmt.Fprintf(w, "accuracy   %s ± %.2f (standard deviation of %d folds), threshold %.3f\n",
			percent(r.Accuracy), 100**r.AccuracyStd, len(r.Folds), *r.Threshold)
	}
	if r.EER != nil {
		below := ""
		if slices.Contains(r.Bounds, "eer") {
			below = "below "
		}
		fmt.Fprintf(w, "EER        %s%s\n", below, percent(r.EER))
	}
}

func (r *faceReport) printAcceptance(w io.Writer) {
	what := "the pairs"
	if r.All {
		what = "all against all"
	}
	fmt.Fprintf(w, "%s: %d mated, %d non-mated comparisons\n", what, r.Comparisons.Mated, r.Comparisons.NonMated)
	for _, far := range fars {
		tar := r.TAR[far.name]
		if tar == nil {
			fmt.Fprintf(w, "  FAR %s  not measured: too few comparisons\n", far.name)
			continue
		}
		d := r.TARDetail[far.name]
		interval := "no interval"
		if d.Interval != nil {
			interval = d.Interval.String() + " by people"
		}
		fmt.Fprintf(w, "  FAR %s  TAR %s (%s), threshold %.3f, FNMR %s\n", far.name, percent(tar), interval, d.Threshold, d.FNMR)
	}
}

func (r *faceReport) printGroups(w io.Writer) {
	if r.GroupsThreshold == nil {
		return
	}
	fmt.Fprintf(w, "groups, compared within each at threshold %.3f:\n", *r.GroupsThreshold)
	for _, g := range r.Groups {
		fmt.Fprintf(w, "  %-16s %d pictures of %d people, no face in %d; FNMR %s; FMR %s", g.Group, g.Images, g.People, g.Missed, g.FNMR, g.FMR)
		if g.Accuracy != nil && g.EER != nil {
			fmt.Fprintf(w, "; %d pairs: accuracy %s, EER at most %s", g.Pairs, percent(g.Accuracy), percent(g.EER))
		}
		fmt.Fprintln(w)
	}
}

func percent(share *float64) string { return fmt.Sprintf("%.2f %%", 100**share) }

func numerically(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }

func gateText(gate map[attendance.Advice]int) string {
	var parts []string
	for _, advice := range slices.Sorted(maps.Keys(gate)) {
		parts = append(parts, fmt.Sprintf("%s %d", advice, gate[advice]))
	}
	return strings.Join(parts, ", ")
}
