//go:build cgo && opencv

package opencv

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/vision"
)

// sharedDir is where nets and pictures may lie that no package registry has.
const sharedDir = "../../../shared"

// loadSet loads a shipped set, of what "make models" fetched and what else
// lies beside the project. Where that is absent the test is skipped.
func loadSet(t testing.TB, name string) *Nets {
	t.Helper()
	dir := t.TempDir()
	i := slices.IndexFunc(vision.Shipped(), func(m vision.Manifest) bool { return m.Name == name })
	m := vision.Shipped()[i]
	for _, model := range m.Models {
		from := filepath.Join(modelsDir, model.File)
		if _, err := os.Stat(from); err != nil {
			from = filepath.Join(shared(), "models", model.File)
		}
		b, err := os.ReadFile(from)
		if err != nil && m.Package == nil {
			t.Skipf("%s is in no package registry and not beside the project", model.File)
		}
		require.NoError(t, err, "run make models")
		require.NoError(t, os.WriteFile(filepath.Join(dir, model.File), b, 0o600))
	}
	nets, err := LoadNets(m, dir, 1)
	require.NoError(t, err)
	t.Cleanup(nets.Close)
	return nets
}

// shared is where the optional data lie.
func shared() string {
	if dir := os.Getenv("ROLLCALL_SHARED"); dir != "" {
		return dir
	}
	return sharedDir
}

func openFile(t testing.TB, path string) *Picture {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	p, err := DecodePicture(b, 4e6)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

// TestYuNetFindsTheSameFaces decodes YuNet's outputs: 22 of 22 faces, each
// where the other detector, another decoder, sees it, and its points where the
// net for points sees them.
func TestYuNetFindsTheSameFaces(t *testing.T) {
	nets := loadSet(t, "yunet+minifas")
	other := loadNets(t, 1)
	total, sum := 0, 0.0
	for _, name := range []string{"sample1.jpg", "sample2.jpg", "sample3.jpg", "sample4.jpg", "sample5.jpg", "sample6.jpg"} {
		p := open(t, name)
		faces, err := nets.find(p)
		require.NoError(t, err)
		known, err := other.find(p)
		require.NoError(t, err)
		require.Len(t, faces, len(known), name)
		total += len(faces)
		for _, f := range faces {
			assert.True(t, slices.ContainsFunc(known, func(k sighting) bool { return cover(k.Box, f.Box) > 0.5 }), "%s at %.0f", name, f.Box.X)
			marks, err := nets.landmarks(p, &f)
			require.NoError(t, err)
			far := 0.0 // mean distance of the points, in widths of the box
			for i, q := range f.five {
				far += math.Hypot(marks.five[i].x-q.x, marks.five[i].y-q.y) / f.Box.W / 5
			}
			assert.Less(t, far, 0.3, "%s at %.0f", name, f.Box.X) // two lie on their side
			sum += far
		}
	}
	assert.Equal(t, 22, total)
	assert.Less(t, sum/22, 0.1)
}

// TestYuNetsPointsAlignToo leaves out the net for points.
func TestYuNetsPointsAlignToo(t *testing.T) {
	nets := loadSet(t, "yunet+minifas")
	nets.points = nil
	var seen []vision.Embedding
	for _, name := range []string{"gocv-face.jpg", "gocv-face-detect.jpg"} {
		faces, _, err := nets.Look(open(t, name), vision.Work{})
		require.NoError(t, err)
		require.Len(t, faces, 1)
		seen = append(seen, faces[0].Embedding)
	}
	assert.GreaterOrEqual(t, vision.Cosine(seen[0], seen[1]), 0.75)
}

// TestLiveAndReplayAreToldApart is no measurement (one man, tight crops): it
// finds a net that is fed at a wrong scale or read at a wrong class, which
// calls all of them alive or none.
func TestLiveAndReplayAreToldApart(t *testing.T) {
	for _, set := range []string{"default", "yunet+minifas"} {
		t.Run(set, func(t *testing.T) {
			nets := loadSet(t, set)
			mean := func(folder string) (sum float64) {
				files, err := filepath.Glob(filepath.Join(shared(), "faces/liveness", folder, "*"))
				require.NoError(t, err)
				if len(files) == 0 {
					t.Skip("no pictures of attacks beside the project")
				}
				for _, file := range files {
					p := openFile(t, file)
					w, h := p.Size()
					score, err := nets.live(p, vision.Box{X: 0.1 * float64(w), Y: 0.1 * float64(h), W: 0.8 * float64(w), H: 0.8 * float64(h)})
					require.NoError(t, err)
					sum += score / float64(len(files))
				}
				return sum
			}
			live, replay := mean("live"), mean("replay")
			t.Logf("live %.2f, replay %.2f", live, replay)
			assert.Greater(t, live, replay)
		})
	}
}

// TestPoseAgreesWithPoints compares the net for poses with the angles from
// five points, on faces that are turned one way or the other.
func TestPoseAgreesWithPoints(t *testing.T) {
	nets := loadSet(t, "default+pose")
	var both, squares, fives float64
	for _, name := range []string{"sample1.jpg", "sample3.jpg", "sample4.jpg", "sample5.jpg", "sample6.jpg"} {
		p := open(t, name)
		faces, err := nets.find(p)
		require.NoError(t, err)
		for _, f := range faces {
			marks, err := nets.landmarks(p, &f)
			require.NoError(t, err)
			yaw, _, roll := poseOf(marks.five)
			y, _, r, err := nets.turned(p, f.Box)
			require.NoError(t, err)
			assert.InDelta(t, roll, r, 25, "%s at %.0f", name, f.Box.X)
			both, squares, fives = both+yaw*y, squares+y*y, fives+yaw*yaw
		}
	}
	assert.Greater(t, both*both/(squares*fives), 0.6, "yaw of points and net go together")
	assert.Positive(t, both, "and in the same direction")
}

func TestEyesOfAManWhoLooksAtTheCamera(t *testing.T) {
	nets := loadNets(t, 1)
	require.NotNil(t, nets.eyes, "fr_eye.onnx is missing: run make models")
	p := open(t, "gocv-face.jpg")
	faces, err := nets.find(p)
	require.NoError(t, err)
	marks, err := nets.landmarks(p, &faces[0])
	require.NoError(t, err)
	for _, e := range marks.eyes {
		open, err := nets.open(p, e)
		require.NoError(t, err)
		assert.Greater(t, open, 0.5)
		e.centre.y += 2 * e.width // the cheek
		cheek, err := nets.open(p, e)
		require.NoError(t, err)
		assert.Less(t, cheek, 0.5, "a cheek is no open eye")
	}
}

// TestANetOfAnotherKind gives each role a net of another one: a clear sentence,
// before the first frame.
func TestANetOfAnotherKind(t *testing.T) {
	for name, c := range map[string]struct {
		role, from vision.Role
		says       string
	}{
		"points from the embedder's file":     {vision.RolePoints, vision.RoleEmbed, "fr_feature.onnx"},
		"liveness from the points' file":      {vision.RoleLiveness, vision.RolePoints, "fr_landmark.onnx"},
		"eyes from the net for liveness":      {vision.RoleEyes, vision.RoleLiveness, "fr_liveness.onnx: it is no net of kind eye: output is 3 numbers instead of 2"},
		"a detector without those outputs":    {vision.RoleDetect, vision.RoleEmbed, "fr_feature.onnx"},
		"an embedder without a vector's name": {vision.RoleEmbed, vision.RoleDetect, "fr_detect.onnx"},
	} {
		t.Run(name, func(t *testing.T) {
			m := vision.DefaultManifest()
			other := m.Of(c.from)[0]
			for i := range m.Models {
				if m.Models[i].Role == c.role {
					m.Models[i].File, m.Models[i].SHA256 = other.File, other.SHA256
					if c.role == vision.RoleEyes { // fed as its own kind, so that it runs
						m.Models[i].Input, m.Models[i].Colour = other.Input, other.Colour
					}
				}
			}
			_, err := LoadNets(m, modelsDir, 1)
			assert.ErrorContains(t, err, c.says)
		})
	}
}
