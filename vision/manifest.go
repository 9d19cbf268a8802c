package vision

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Role is what a net does in a check.
type Role string

const (
	RoleDetect   Role = "detect"   // finds faces
	RolePoints   Role = "points"   // finds the points that a face is aligned by
	RoleEmbed    Role = "embed"    // turns an aligned face into a vector
	RoleLiveness Role = "liveness" // person or picture of a person: advice only
	RoleEyes     Role = "eyes"     // open or closed: advice only
	RolePose     Role = "pose"     // how the head is turned: advice only
)

// Kinds of net that the worker can feed and decode. Shapes leave out the 1 of
// the batch; N is as many as the net likes.
const (
	KindUltraface = "ultraface" // scores Nx2 (the second is a face) and boxes Nx4, corners in 0..1 of the input
	KindYuNet     = "yunet2023" // cls, obj, bbox and kps, each at strides 8, 16 and 32: boxes and five points
	KindPoints68  = "points68"  // 68 points x, y in iBUG order, 0..1 of the cut
	KindArc112    = "arc112"    // a vector of a face aligned to 112x112 by five points
	KindMiniFAS   = "minifas"   // three classes before softmax, LiveClass is live; several nets give their mean
	KindEye       = "eye"       // one eye: two classes before softmax, closed and open
	KindPose      = "pose"      // yaw, pitch, roll: 66 bins each of 3 degrees from -99, before softmax
)

// kind is what the worker asks of the description of a net.
type kind struct {
	role    Role
	outputs int  // how many, in the order that the kind's comment gives
	crop    bool // it sees a cut of the picture, of Crop sizes
	points  bool // it gives the five points as well
}

var kinds = map[string]kind{
	KindUltraface: {role: RoleDetect, outputs: 2, crop: true},
	KindYuNet:     {role: RoleDetect, outputs: 12, crop: true, points: true},
	KindPoints68:  {role: RolePoints, outputs: 1, crop: true},
	KindArc112:    {role: RoleEmbed, outputs: 1},
	KindMiniFAS:   {role: RoleLiveness, outputs: 1, crop: true},
	KindEye:       {role: RoleEyes, outputs: 1, crop: true},
	KindPose:      {role: RolePose, outputs: 3, crop: true},
}

// Model describes one net: which file, how a picture is fed to it (each value
// x of a channel becomes (x-Mean)*Scale), how its output is read, and where it
// is from.
type Model struct {
	Role   Role   `json:"role"`
	Kind   string `json:"kind"`
	File   string `json:"file"`   // name in the directory of the set
	SHA256 string `json:"sha256"` // lower-case hex of the file
	Input  struct {
		Width  int `json:"width"`
		Height int `json:"height"`
	} `json:"input"` // pixels
	Colour    string   `json:"colour"`     // order of the channels: rgb, bgr or grey
	Mean      Channels `json:"mean"`       // in the order of Colour
	Scale     Channels `json:"scale"`      // the same
	Outputs   []string `json:"outputs"`    // their names in the file, in the order of the kind
	Crop      float64  `json:"crop"`       // size of the cut that it sees, 1 to 8: in sizes of the picture (detect), the box, the eye (eyes)
	Template  string   `json:"template"`   // embed: the positions that a face is aligned to, "arcface-112"
	Metric    string   `json:"metric"`     // embed: how vectors are compared, "cosine"
	LiveClass *int     `json:"live_class"` // liveness: the class of a live person, 0 to 2
	Licence   string   `json:"licence"`
	Source    string   `json:"source"`
}

// Channels is a number for each channel. In JSON one number stands for all.
type Channels [3]float64

// UnmarshalJSON reads a number, or three in a list.
func (c *Channels) UnmarshalJSON(b []byte) error {
	var one float64
	if err := json.Unmarshal(b, &one); err == nil {
		*c = Channels{one, one, one}
		return nil
	}
	var three []float64
	if err := json.Unmarshal(b, &three); err != nil || len(three) != len(c) {
		return errors.New("must be a number or a list of three")
	}
	copy(c[:], three)
	return nil
}

// Package is where a whole set can be had: an npm package, pinned.
type Package struct {
	NPM    string `json:"npm"`    // name@version
	SHA256 string `json:"sha256"` // of the tarball
	Folder string `json:"folder"` // of the models in it
}

// Manifest is a set of models that work together.
type Manifest struct {
	Name    string   `json:"name"`
	Package *Package `json:"package"` // nil if no package has it
	Models  []Model  `json:"models"`
}

// LargestManifest bounds a manifest's bytes.
const LargestManifest = 64 << 10

// ParseManifest reads a manifest and refuses unknown fields, kinds that the
// worker cannot decode, and a set that cannot find, align and embed a face.
func ParseManifest(b []byte) (Manifest, error) {
	if len(b) > LargestManifest {
		return Manifest{}, fmt.Errorf("reading model manifest: %d bytes are more than %d", len(b), LargestManifest)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var m Manifest
	if err := d.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("reading model manifest: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Manifest{}, errors.New("reading model manifest: text after its end")
	}
	if err := m.check(); err != nil {
		return Manifest{}, fmt.Errorf("reading model manifest: %w", err)
	}
	return m, nil
}

// names of sets and files: they become names in a directory.
var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,79}$`)

func (m Manifest) check() error {
	if !names.MatchString(m.Name) {
		return fmt.Errorf("name %q: must be up to 80 letters, digits, dots, plus and minus signs", m.Name)
	}
	if p := m.Package; p != nil && (p.NPM == "" || strings.HasPrefix(p.NPM, "-") || !isSum(p.SHA256)) {
		return errors.New("package: must have npm and a sha256 of 64 lower-case hexadecimal digits")
	}
	sums := map[string]string{}
	for _, model := range m.Models {
		if err := model.check(); err != nil {
			return fmt.Errorf("role %q: %w", model.Role, err)
		}
		if sum, ok := sums[model.File]; ok && sum != model.SHA256 {
			return fmt.Errorf("file %s stands twice with different sums", model.File)
		}
		sums[model.File] = model.SHA256
		if model.Role != RoleLiveness && len(m.Of(model.Role)) > 1 {
			return fmt.Errorf("role %q stands twice", model.Role)
		}
	}
	for _, role := range []Role{RoleDetect, RoleEmbed} {
		if len(m.Of(role)) == 0 {
			return fmt.Errorf("no model for role %q", role)
		}
	}
	if !kinds[m.Of(RoleDetect)[0].Kind].points && len(m.Of(RolePoints)) == 0 {
		return fmt.Errorf("no model for role %q, and the detector gives no points", RolePoints)
	}
	return nil
}

const (
	largestInput = 1024
	largestCrop  = 8
	classes      = 3 // of a MiniFASNet
)

func (m Model) check() error {
	k, known := kinds[m.Kind]
	switch {
	case !knownRole(m.Role):
		return errors.New("unknown role")
	case !known || k.role != m.Role:
		return fmt.Errorf("kind %q: known are %s", m.Kind, strings.Join(kindsOf(m.Role), ", "))
	case m.File != filepath.Base(m.File) || !names.MatchString(m.File):
		return fmt.Errorf("file %q: must be a name without a folder", m.File)
	case !isSum(m.SHA256):
		return fmt.Errorf("sha256 %q: must be 64 lower-case hexadecimal digits", m.SHA256)
	case m.Input.Width < 1 || m.Input.Width > largestInput || m.Input.Height < 1 || m.Input.Height > largestInput:
		return fmt.Errorf("input %dx%d: sides must be 1 to %d", m.Input.Width, m.Input.Height, largestInput)
	case m.Kind == KindYuNet && (m.Input.Width%32 != 0 || m.Input.Height%32 != 0):
		return fmt.Errorf("input %dx%d: sides must be multiples of 32 for %s", m.Input.Width, m.Input.Height, m.Kind)
	case m.Kind == KindArc112 && (m.Input.Width != 112 || m.Input.Height != 112):
		return fmt.Errorf("input %dx%d: must be 112x112 for %s", m.Input.Width, m.Input.Height, m.Kind)
	case m.Colour != "rgb" && m.Colour != "bgr" && m.Colour != "grey":
		return fmt.Errorf("colour %q: must be rgb, bgr or grey", m.Colour)
	case slices.Min(m.Scale[:]) <= 0:
		return fmt.Errorf("scale %v: must be above 0", m.Scale)
	case len(m.Outputs) != k.outputs || slices.Contains(m.Outputs, ""):
		return fmt.Errorf("outputs: %d named, %s has %d", len(m.Outputs), m.Kind, k.outputs)
	case k.crop && (m.Crop < 1 || m.Crop > largestCrop), !k.crop && m.Crop != 0:
		return fmt.Errorf("crop %v: must be 1 to %d, and is not for %s", m.Crop, largestCrop, KindArc112)
	case m.Role == RoleEmbed && (m.Template != "arcface-112" || m.Metric != "cosine"):
		return fmt.Errorf(`template %q and metric %q: known are "arcface-112" and "cosine"`, m.Template, m.Metric)
	case m.Role != RoleEmbed && m.Template+m.Metric != "":
		return errors.New("template and metric are for role embed only")
	case m.Role == RoleLiveness && (m.LiveClass == nil || *m.LiveClass < 0 || *m.LiveClass >= classes):
		return fmt.Errorf("live_class: must be 0 to %d", classes-1)
	case m.Role != RoleLiveness && m.LiveClass != nil:
		return errors.New("live_class is for role liveness only")
	}
	return nil
}

func knownRole(r Role) bool { return len(kindsOf(r)) > 0 }

func kindsOf(r Role) []string {
	var found []string
	for name, k := range kinds {
		if k.role == r {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// Of gives the models of a role: none, one, or for liveness several.
func (m Manifest) Of(role Role) []Model {
	var found []Model
	for _, model := range m.Models {
		if model.Role == role {
			found = append(found, model)
		}
	}
	return found
}

// Model gives the model of a role that a set has one of, the zero value if it
// has none.
func (m Manifest) Model(role Role) Model {
	for _, model := range m.Models {
		if model.Role == role {
			return model
		}
	}
	return Model{}
}

// Sums gives the SHA-256 of the models by role; several are joined by "+".
func (m Manifest) Sums() map[Role]string {
	sums := map[Role]string{}
	for _, model := range m.Models {
		if sums[model.Role] != "" {
			sums[model.Role] += "+"
		}
		sums[model.Role] += model.SHA256
	}
	return sums
}
