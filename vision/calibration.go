package vision

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Calibration says which thresholds were measured, for which embedder, on what.
// A threshold without it is a guess, and records say so. `rollcall face
// calibrate` writes the file; the words are those of ISO/IEC 19795-1.
type Calibration struct {
	V        int       `json:"v"`                  // 1
	Embedder string    `json:"embedder"`           // SHA-256, lower-case hex: scores of any other embedder mean something else
	Liveness string    `json:"liveness,omitempty"` // SHA-256 of the liveness net, where one took part
	Data     string    `json:"data"`               // names the pictures: SHA-256 over their names and sums, lower-case hex
	Made     time.Time `json:"made"`
	Tool     string    `json:"tool"` // program and version that measured

	Verify    *OperatingPoint `json:"verify,omitempty"`    // 1:1, a card's holder against their own template
	Identify  *OperatingPoint `json:"identify,omitempty"`  // 1:N, nobody named, within one roster
	Duplicate *OperatingPoint `json:"duplicate,omitempty"` // one face under two names

	// ID is the SHA-256 of the file, lower-case hex; [LoadCalibration] sets it.
	ID string `json:"-"`
}

// OperatingPoint is one threshold with what was counted to set it. With
// identify an impostor trial is a search of a gallery that does not hold the
// person, and the rates are FPIR and FNIR; with the others it is one comparison
// and they are FMR and FNMR.
type OperatingPoint struct {
	Threshold float64 `json:"threshold"`         // cosine from which two are taken for one person
	Margin    float64 `json:"margin,omitempty"`  // identify: cosine by which the first must lead the second
	Gallery   int     `json:"gallery,omitempty"` // identify: people in the gallery that was searched

	People    int     `json:"people"`
	Genuine   int     `json:"genuine"`  // trials of one person
	Impostor  int     `json:"impostor"` // trials of two
	TargetFMR float64 `json:"target_fmr"`

	FalseMatches    int        `json:"false_matches"`
	FalseNonMatches int        `json:"false_non_matches"`
	FMR             [2]float64 `json:"fmr"`  // 95 % interval, the upper end at least 3/impostor
	FNMR            [2]float64 `json:"fnmr"` // 95 % interval, the upper end at least 3/genuine
}

// ErrCalibration is wrapped by every refusal of a calibration file.
var ErrCalibration = errors.New("calibration file refused")

// largestCalibration bounds a calibration file in bytes.
const largestCalibration = 64 << 10

// LoadCalibration reads a calibration file. A claim that its own counts cannot
// bear is refused.
func LoadCalibration(path string) (*Calibration, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading calibration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, largestCalibration+1))
	if err != nil {
		return nil, fmt.Errorf("reading calibration: %w", err)
	}
	return ParseCalibration(text)
}

// ParseCalibration reads the text of a calibration file.
func ParseCalibration(text []byte) (*Calibration, error) {
	if len(text) > largestCalibration {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrCalibration, largestCalibration)
	}
	var c Calibration
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCalibration, err)
	}
	if len(bytes.TrimSpace(text[d.InputOffset():])) > 0 {
		return nil, fmt.Errorf("%w: there is text after its end", ErrCalibration)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCalibration, err)
	}
	sum := sha256.Sum256(text)
	c.ID = hex.EncodeToString(sum[:])
	return &c, nil
}

// Encode gives the text of the file, ended by a newline. It refuses what
// ParseCalibration would refuse.
func (c Calibration) Encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCalibration, err)
	}
	text, err := json.MarshalIndent(c, "", "  ")
	return append(text, '\n'), err
}

func (c Calibration) check() error {
	switch {
	case c.V != 1:
		return fmt.Errorf("version %d, this program knows 1: calibrate again with this release", c.V)
	case !isSum(c.Embedder):
		return errors.New("embedder is not the SHA-256 of a net in lower-case hexadecimal")
	case c.Liveness != "" && !isSum(c.Liveness):
		return errors.New("liveness is not the SHA-256 of a net in lower-case hexadecimal")
	case c.Data == "" || c.Tool == "" || c.Made.IsZero():
		return errors.New("data, made and tool must say what was measured, when and with what")
	case c.Verify == nil && c.Identify == nil && c.Duplicate == nil:
		return errors.New("it holds no threshold")
	}
	for name, p := range map[string]*OperatingPoint{"verify": c.Verify, "identify": c.Identify, "duplicate": c.Duplicate} {
		if p == nil {
			continue
		}
		if err := p.check(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// check holds a point to its own counts: by the rule of three, n trials
// without an error show no more than that the rate lies under 3/n.
func (p OperatingPoint) check() error {
	switch {
	case !(p.Threshold > 0 && p.Threshold < 1): // NaN too
		return errors.New("threshold must lie between 0 and 1")
	case !(p.Margin >= 0 && p.Margin < 1):
		return errors.New("margin must lie between 0 and 1")
	case p.People < 2 || p.Genuine < 1 || p.Impostor < 1 || p.Gallery < 0:
		return errors.New("people, genuine and impostor must be counted")
	case p.FalseMatches < 0 || p.FalseMatches > p.Impostor || p.FalseNonMatches < 0 || p.FalseNonMatches > p.Genuine:
		return errors.New("more errors than trials")
	case !(p.TargetFMR < 1) || p.TargetFMR*float64(p.Impostor) < 3-1e-9:
		return fmt.Errorf("target_fmr %g cannot be shown with %d impostor trials: it takes %d", p.TargetFMR, p.Impostor, trialsFor(p.TargetFMR))
	}
	if err := checkInterval(p.FMR, p.FalseMatches, p.Impostor); err != nil {
		return fmt.Errorf("fmr: %w", err)
	}
	if err := checkInterval(p.FNMR, p.FalseNonMatches, p.Genuine); err != nil {
		return fmt.Errorf("fnmr: %w", err)
	}
	return nil
}

func trialsFor(rate float64) int {
	if !(rate > 0) {
		return 0
	}
	return int(3/rate + 0.5)
}

func checkInterval(i [2]float64, errorsSeen, trials int) error {
	rate := float64(errorsSeen) / float64(trials)
	switch {
	case !(i[0] >= 0 && i[0] <= rate && rate <= i[1] && i[1] <= 1):
		return fmt.Errorf("the interval does not hold the rate %g that was counted", rate)
	case i[1] < min(1, 3/float64(trials))-1e-9:
		return fmt.Errorf("%d trials show no rate below %g", trials, 3/float64(trials))
	}
	return nil
}

// isSum reports whether s is a SHA-256 in lower-case hexadecimal.
func isSum(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && s == hex.EncodeToString(b)
}
