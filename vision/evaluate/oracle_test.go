package evaluate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// question is what testdata/oracle.py is asked.
type question struct {
	Trials       [][3]float64 `json:"trials"`
	FARs         []float64    `json:"fars"`
	Live, Attack []float64
	Rates        [][2]int `json:"rates"`
}

func (q question) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"trials": q.Trials, "fars": q.FARs, "live": q.Live, "attack": q.Attack, "rates": q.Rates})
}

type oracle struct {
	Folds struct{ Accuracy, Deviation, Threshold float64 }
	EER   float64
	TAR   []*float64
	AUC   float64
	CP    [][2]float64 `json:"clopper_pearson"`
}

func ask(t *testing.T, q question) oracle {
	t.Helper()
	text, err := json.Marshal(q)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "python3", "testdata/oracle.py")
	cmd.Stdin = bytes.NewReader(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var o oracle
	require.NoError(t, json.Unmarshal(out, &o))
	return o
}

// drawTrials draws scores of overlapping classes, in the middle of bins so that
// the tally's grain cannot make a difference.
func drawTrials(random *rand.Rand, n int, apart float64, ties bool) []Trial {
	trials := make([]Trial, n)
	for i := range trials {
		same := random.IntN(2) == 1
		score := 0.1 + 0.15*random.NormFloat64()
		if same {
			score += apart
		}
		score = edge(bin(score)) + 1.0/bins
		if ties {
			score = math.Round(score*10) / 10
		}
		trials[i] = Trial{1 + i%7, same, max(-1, min(1, score))}
	}
	return trials
}

// TestAgainstTheDefinitions compares with a second implementation in another
// language, on overlapping, separate, tied and meaningless scores.
func TestAgainstTheDefinitions(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 0))
	for name, c := range map[string]struct {
		n     int
		apart float64
		ties  bool
	}{
		"overlapping": {600, 0.45, false},
		"ties":        {400, 0.4, true},
		"separate":    {300, 1.5, false},
		"meaningless": {500, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			trials := drawTrials(random, c.n, c.apart, c.ties)
			q := question{FARs: []float64{0.1, 0.02, 1e-4}, Rates: [][2]int{{0, 10}, {1, 10}, {5, 10}, {10, 10}, {3, 700}}}
			tally := NewTally()
			for _, trial := range trials {
				same := 0.0
				if trial.Same {
					same = 1
					q.Live = append(q.Live, trial.Score)
				} else {
					q.Attack = append(q.Attack, trial.Score)
				}
				q.Trials = append(q.Trials, [3]float64{float64(trial.Fold), same, trial.Score})
				tally.Add(trial.Same, trial.Score)
			}
			want := ask(t, q)
			folds, ok := JudgeFolds(trials)
			require.True(t, ok)
			assert.InDelta(t, want.Folds.Accuracy, folds.Accuracy, 1e-12)
			assert.InDelta(t, want.Folds.Deviation, folds.Deviation, 1e-12)
			assert.InDelta(t, want.Folds.Threshold, folds.Threshold, 1e-12)
			assert.InDelta(t, want.EER, tally.EER(), 1e-12)
			area, ok := AUC(q.Live, q.Attack)
			require.True(t, ok)
			assert.InDelta(t, want.AUC, area, 1e-12)
			for i, far := range q.FARs {
				a, ok := tally.AcceptAt(far)
				require.Equal(t, want.TAR[i] != nil, ok, "FAR %g", far)
				if ok {
					assert.InDelta(t, *want.TAR[i], a.TAR, 1e-12, "FAR %g", far)
				}
			}
			for i, r := range q.Rates {
				got := Rate{r[0], r[1]}.Interval()
				assert.InDelta(t, want.CP[i][0], got.Low, 1e-9, fmt.Sprint(r))
				assert.InDelta(t, want.CP[i][1], got.High, 1e-9, fmt.Sprint(r))
			}
		})
	}
}

// TestControlTheOracleNotices spoils one score: figures must part.
func TestControlTheOracleNotices(t *testing.T) {
	trials := drawTrials(rand.New(rand.NewPCG(5, 0)), 300, 0.45, false)
	tally := NewTally()
	q := question{FARs: []float64{0.1}, Live: []float64{1}, Attack: []float64{0}, Rates: [][2]int{{0, 10}}}
	for i, trial := range trials {
		same := 0.0
		if trial.Same != (i < 20) { // the labels of twenty are turned
			same = 1
		}
		q.Trials = append(q.Trials, [3]float64{float64(trial.Fold), same, trial.Score})
		tally.Add(trial.Same, trial.Score)
	}
	want := ask(t, q)
	folds, _ := JudgeFolds(trials)
	assert.Greater(t, math.Abs(want.Folds.Accuracy-folds.Accuracy), 0.01)
	assert.Greater(t, math.Abs(want.EER-tally.EER()), 0.01)
}
