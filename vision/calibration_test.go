package vision

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func measured() Calibration {
	point := func(threshold float64) *OperatingPoint {
		return &OperatingPoint{
			Threshold: threshold, People: 200, Genuine: 1000, Impostor: 50000, TargetFMR: 1e-4,
			FalseMatches: 2, FalseNonMatches: 30, FMR: [2]float64{5e-6, 1.5e-4}, FNMR: [2]float64{0.02, 0.043},
		}
	}
	identify := point(0.45)
	identify.Margin, identify.Gallery = 0.05, 100
	return Calibration{
		V: 1, Embedder: strings.Repeat("5f", 32), Data: strings.Repeat("ab", 32), Tool: "rollcall 0.1.0",
		Made:   time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC),
		Verify: point(0.412), Identify: identify, Duplicate: point(0.6),
	}
}

func TestACalibrationIsReadAsWritten(t *testing.T) {
	c := measured()
	text, err := c.Encode()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "calibration.json")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	got, err := LoadCalibration(path)
	require.NoError(t, err)
	assert.Len(t, got.ID, 64)
	c.ID = got.ID
	assert.Equal(t, c, *got)
}

func TestACalibrationMayNotClaimMoreThanItsCountsBear(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Calibration)
		says  string
	}{
		"a later version":        {func(c *Calibration) { c.V = 2 }, "this program knows 1"},
		"no embedder":            {func(c *Calibration) { c.Embedder = "5F" }, "embedder"},
		"a liveness net unnamed": {func(c *Calibration) { c.Liveness = "x" }, "liveness"},
		"no data":                {func(c *Calibration) { c.Data = "" }, "data, made and tool"},
		"nothing measured":       {func(c *Calibration) { c.Verify, c.Identify, c.Duplicate = nil, nil, nil }, "no threshold"},
		"a threshold of nothing": {func(c *Calibration) { c.Verify.Threshold = 0 }, "threshold must"},
		"a margin below nothing": {func(c *Calibration) { c.Identify.Margin = -0.1 }, "margin must"},
		"nobody measured":        {func(c *Calibration) { c.Verify.People = 1 }, "must be counted"},
		"more errors than tries": {func(c *Calibration) { c.Verify.FalseNonMatches = 1001 }, "more errors"},
		"a target out of reach":  {func(c *Calibration) { c.Verify.TargetFMR = 5e-5 }, "it takes 60000"},
		"no target":              {func(c *Calibration) { c.Verify.TargetFMR = 0 }, "cannot be shown"},
		"a rate below 3/n": {func(c *Calibration) { c.Verify.FalseMatches, c.Verify.FMR = 0, [2]float64{0, 5e-5} },
			"no rate below 6e-05"},
		"an interval beside the count": {func(c *Calibration) { c.Duplicate.FNMR = [2]float64{0.04, 0.05} }, "does not hold the rate"},
	} {
		t.Run(name, func(t *testing.T) {
			spoilt := measured()
			c.spoil(&spoilt)
			_, err := spoilt.Encode()
			require.ErrorIs(t, err, ErrCalibration)
			assert.ErrorContains(t, err, c.says)
		})
	}
}

func TestACalibrationFileIsReadStrictly(t *testing.T) {
	whole, err := measured().Encode()
	require.NoError(t, err)
	for name, text := range map[string]string{
		"nothing":       "",
		"no JSON":       "threshold = 0.4",
		"unknown field": strings.Replace(string(whole), `"v": 1`, `"v": 1, "fmr": 0`, 1),
		"text after it": string(whole) + "{}",
		"endless":       string(whole) + strings.Repeat(" ", largestCalibration),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseCalibration([]byte(text))
			assert.ErrorIs(t, err, ErrCalibration)
		})
	}
	_, err = LoadCalibration(filepath.Join(t.TempDir(), "none"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func FuzzParseCalibration(f *testing.F) {
	whole, err := measured().Encode()
	require.NoError(f, err)
	f.Add(whole)
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseCalibration(text)
		if err != nil {
			return
		}
		_, err = c.Encode()
		assert.NoError(t, err, "what was read can be written")
	})
}
