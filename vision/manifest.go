package vision

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrModel is wrapped by every error about a model file that is missing or is
// not the one that the manifest names.
var ErrModel = errors.New("model set not usable")

// Role is what a net does in a check.
type Role string

const (
	RoleDetect   Role = "detect"   // finds faces
	RolePoints   Role = "points"   // finds the points that a face is aligned by
	RoleEmbed    Role = "embed"    // turns an aligned face into a vector
	RoleLiveness Role = "liveness" // person or picture of a person: advice only
)

// roles says for every role which kinds of net the worker can decode.
var roles = map[Role]string{
	RoleDetect:   "ultraface", // scores Nx2 and boxes Nx4 as corners in 0..1
	RolePoints:   "points68",  // 68 points in iBUG order, 0..1 of the box
	RoleEmbed:    "cosine",    // compared by cosine after 5-point alignment to 112x112
	RoleLiveness: "live0of3",  // three classes, the first is live
}

// Model describes one net: which file, how a picture is fed to it (each value
// x becomes (x-Mean)*Scale), how its output is read, and where it is from.
type Model struct {
	Role   Role   `json:"role"`
	Kind   string `json:"kind"`
	File   string `json:"file"`   // name in the models directory
	SHA256 string `json:"sha256"` // lower-case hex of the file
	Input  struct {
		Width  int `json:"width"`
		Height int `json:"height"`
	} `json:"input"` // pixels
	Colour  string  `json:"colour"` // rgb, bgr or grey
	Mean    float64 `json:"mean"`
	Scale   float64 `json:"scale"`
	Licence string  `json:"licence"`
	Source  string  `json:"source"`
}

// Manifest is a set of models that work together.
type Manifest struct {
	Name   string  `json:"name"`
	Models []Model `json:"models"`
}

//go:embed default.json
var defaultManifest []byte

// DefaultManifest is the set that "make models" fetches.
func DefaultManifest() Manifest {
	m, err := ParseManifest(defaultManifest)
	if err != nil {
		panic("vision: embedded manifest: " + err.Error())
	}
	return m
}

// ParseManifest reads a manifest and refuses unknown fields, kinds that the
// worker cannot decode, and a set without one model for every role.
func ParseManifest(b []byte) (Manifest, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var m Manifest
	if err := d.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("reading model manifest: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Manifest{}, errors.New("reading model manifest: text after its end")
	}
	seen := map[Role]bool{}
	for _, model := range m.Models {
		if err := model.check(); err != nil {
			return Manifest{}, fmt.Errorf("reading model manifest: role %q: %w", model.Role, err)
		}
		if seen[model.Role] {
			return Manifest{}, fmt.Errorf("reading model manifest: role %q stands twice", model.Role)
		}
		seen[model.Role] = true
	}
	for role := range roles {
		if !seen[role] {
			return Manifest{}, fmt.Errorf("reading model manifest: no model for role %q", role)
		}
	}
	return m, nil
}

const largestInput = 1024

func (m Model) check() error {
	kind, ok := roles[m.Role]
	if !ok {
		return errors.New("unknown role")
	}
	if m.Kind != kind {
		return fmt.Errorf("kind %q: only %q is known", m.Kind, kind)
	}
	if m.File == "" || m.File != filepath.Base(m.File) || m.File == "." || m.File == ".." {
		return fmt.Errorf("file %q: must be a name without a folder", m.File)
	}
	if sum, err := hex.DecodeString(m.SHA256); err != nil || len(sum) != sha256.Size || m.SHA256 != hex.EncodeToString(sum) {
		return fmt.Errorf("sha256 %q: must be 64 lower-case hexadecimal digits", m.SHA256)
	}
	if m.Input.Width < 1 || m.Input.Width > largestInput || m.Input.Height < 1 || m.Input.Height > largestInput {
		return fmt.Errorf("input %dx%d: sides must be 1 to %d", m.Input.Width, m.Input.Height, largestInput)
	}
	if m.Colour != "rgb" && m.Colour != "bgr" && m.Colour != "grey" {
		return fmt.Errorf("colour %q: must be rgb, bgr or grey", m.Colour)
	}
	if m.Scale <= 0 {
		return fmt.Errorf("scale %v: must be above 0", m.Scale)
	}
	return nil
}

// Model gives the model of a role. A parsed manifest has one for each.
func (m Manifest) Model(role Role) Model {
	for _, model := range m.Models {
		if model.Role == role {
			return model
		}
	}
	panic("vision: manifest without role " + string(role))
}

// Sums gives the SHA-256 of every model by role.
func (m Manifest) Sums() map[Role]string {
	sums := map[Role]string{}
	for _, model := range m.Models {
		sums[model.Role] = model.SHA256
	}
	return sums
}

// Verify reads every file of the set in dir and compares its sum, so that
// nothing unknown is ever parsed by OpenCV. The error says what to do.
func (m Manifest) Verify(dir string) error {
	for _, model := range m.Models {
		sum, err := sumOf(filepath.Join(dir, model.File))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w: %s is missing in %s: run make models, or set the models directory", ErrModel, model.File, dir)
		case err != nil:
			return fmt.Errorf("%w: %w: run make models, or correct the rights", ErrModel, err)
		case sum != model.SHA256:
			return fmt.Errorf("%w: %s in %s has SHA-256 %s, the manifest says %s: delete it and run make models",
				ErrModel, model.File, dir, sum, model.SHA256)
		}
	}
	return nil
}

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
