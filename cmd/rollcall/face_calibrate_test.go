package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/vision"
	"rollcall/vision/evaluate"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// TestFaceCalibrateRefusesWhatFewCannotShow: the rule of three.
func TestFaceCalibrateRefusesWhatFewCannotShow(t *testing.T) {
	out := filepath.Join(t.TempDir(), "calibration.json")
	dir := album(t)
	args := append(workerArgs(t), "-out", out, dir)
	err := calibrateFaces(t.Context(), args, io.Discard, io.Discard, noon)
	assert.ErrorContains(t, err, "-fmr 0.0001: 9 comparisons of different people show no rate under 0.33")
	assert.NoFileExists(t, out)

	// What nine can show is written, and the daemon's own reader takes it.
	var stdout, stderr bytes.Buffer
	require.NoError(t, calibrateFaces(t.Context(), append(args, "-fmr", "0.4"), &stdout, &stderr, noon))
	c, err := vision.LoadCalibration(out)
	require.NoError(t, err)
	assert.Equal(t, vision.DefaultManifest().Model(vision.RoleEmbed).SHA256, c.Embedder)
	assert.Equal(t, noon, c.Made)
	assert.Len(t, c.Data, 64)
	assert.Equal(t, 9, c.Verify.Impostor)
	assert.Equal(t, 1, c.Verify.Genuine)
	assert.Nil(t, c.Identify)
	assert.Nil(t, c.Duplicate)
	assert.Contains(t, stderr.String(), "no threshold for 1:N")
	assert.Contains(t, stderr.String(), "no threshold for one face under two cards")
	assert.Contains(t, stdout.String(), out+" is written")
}

// drawn are people as points, so that there can be many.
func drawn(people, each int) []evaluate.Sample {
	random := rand.New(rand.NewPCG(1, 0))
	var samples []evaluate.Sample
	for p := range people {
		middle := make([]float64, 64)
		for i := range middle {
			middle[i] = random.NormFloat64()
		}
		for range each {
			e := make(vision.Embedding, len(middle))
			for i := range e {
				e[i] = float32(middle[i] + random.NormFloat64())
			}
			samples = append(samples, evaluate.Sample{Person: fmt.Sprint(p), Embedding: e.Unit()})
		}
	}
	return samples
}

func TestOperatingPointsHold(t *testing.T) {
	samples := drawn(150, 4)
	m, err := evaluate.CompareAll(t.Context(), samples, func(int) {})
	require.NoError(t, err)
	verify, err := comparisonPoint(m, 150, 1e-4)
	require.NoError(t, err)
	assert.LessOrEqual(t, float64(verify.FalseMatches), 1e-4*float64(verify.Impostor))
	identify := searchPoint(samples, calibrationTargets{fpir: 1e-2, margin: 0.05, gallery: 60})
	require.NotNil(t, identify)
	assert.LessOrEqual(t, float64(identify.FalseMatches), 1e-2*float64(identify.Impostor))
	c := vision.Calibration{V: 1, Embedder: fmt.Sprintf("%064x", 1), Data: "x", Made: noon, Tool: "x", Verify: verify, Identify: identify}
	_, err = c.Encode()
	assert.NoError(t, err, "what is written can be read")

	// Labels that mean nothing leave no threshold that lets people in.
	for i := range samples {
		samples[i].Person = fmt.Sprint(i % 150)
	}
	m, err = evaluate.CompareAll(t.Context(), samples, func(int) {})
	require.NoError(t, err)
	spoilt, err := comparisonPoint(m, 150, 1e-4)
	if err == nil {
		assert.Greater(t, spoilt.FalseNonMatches, spoilt.Genuine*9/10)
	}
	_, err = comparisonPoint(m, 150, 1e-6)
	assert.ErrorContains(t, err, "show no rate under")
}

func TestDataIDChangesWithThePictures(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a/1.jpg", "x")
	put(t, dir, "b/1.jpg", "y")
	one, err := dataID(dir, []string{"a/1.jpg", "b/1.jpg"})
	require.NoError(t, err)
	same, err := dataID(dir, []string{"b/1.jpg", "a/1.jpg"})
	require.NoError(t, err)
	assert.Equal(t, one, same)
	put(t, dir, "b/1.jpg", "z")
	other, err := dataID(dir, []string{"a/1.jpg", "b/1.jpg"})
	require.NoError(t, err)
	assert.NotEqual(t, one, other)
}

// TestFaceLivenessSaysWhatItIs: one attack that is taken for a person makes no
// rate, and every answer says what was not tested.
func TestFaceLivenessSaysWhatItIs(t *testing.T) {
	dir := album(t)
	_, err := runLiveness(t, append(workerArgs(t), dir))
	assert.ErrorContains(t, err, "needs a folder live/")

	put(t, dir, "live/broken.png", "no picture")
	for _, name := range []string{"live/1.jpg", "print/1.jpg"} {
		put(t, dir, name, picture(t, "gocv-face.jpg"))
	}
	said, err := runLiveness(t, append(workerArgs(t), dir))
	require.NoError(t, err)
	assert.Contains(t, said, "BPCER            below 100 % (0 of 1), interval 0.00–97.50 %, no face in 0")
	assert.Contains(t, said, "APCER print      below 100 % (1 of 1), interval 2.50–100.00 %, no face in 0, AUC 0.500")
	assert.Contains(t, said, "left out: 0 missing, 1 broken")
	assert.Contains(t, said, "Not tested to ISO/IEC 30107-3")
	said, err = runLiveness(t, append(workerArgs(t), "-json", dir))
	require.NoError(t, err)
	assert.Contains(t, said, `"worst": "`)
	assert.Contains(t, said, notTested)
}

func runLiveness(t *testing.T, args []string) (string, error) {
	t.Helper()
	var stdout bytes.Buffer
	err := livenessOfFaces(t.Context(), args, &stdout, io.Discard)
	return stdout.String(), err
}
