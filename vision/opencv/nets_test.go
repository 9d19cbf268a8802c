//go:build cgo && opencv

package opencv

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/vision"
)

const (
	modelsDir = "../../build/models"
	peopleDir = "../../build/people"
	threshold = 0.412 // FAR 1e-4 of the default set on LFW
)

func loadNets(t testing.TB, threads int) *Nets {
	t.Helper()
	nets, err := LoadNets(vision.DefaultManifest(), modelsDir, threads)
	require.NoError(t, err)
	t.Cleanup(nets.Close)
	return nets
}

func open(t testing.TB, name string) *Picture {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(peopleDir, name))
	require.NoError(t, err, "run make models")
	p, err := DecodePicture(b, 4e6)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func TestTheSameManOnTwoDays(t *testing.T) {
	nets := loadNets(t, 1)
	var seen []vision.Embedding
	for _, name := range []string{"gocv-face.jpg", "gocv-face-detect.jpg"} {
		faces, _, err := nets.Look(open(t, name), vision.Work{})
		require.NoError(t, err)
		require.Len(t, faces, 1, name)
		require.Len(t, faces[0].Embedding, 512, name)
		assert.InDelta(t, 1, vision.Cosine(faces[0].Embedding, faces[0].Embedding), 1e-6)
		assert.Greater(t, faces[0].Liveness, 0.5, "%s: a live person", name)
		seen = append(seen, faces[0].Embedding)
	}
	score := vision.Cosine(seen[0], seen[1])
	t.Logf("genuine pair %.3f", score)
	assert.GreaterOrEqual(t, score, 0.75)
}

// TestGroupPictures finds all 22 faces and compares every pair of different
// people: one woman is on two pictures, and one pair of others passes the
// threshold, at 0.43. Such pairs are not among the demo's people.
func TestGroupPictures(t *testing.T) {
	nets := loadNets(t, 1)
	counts := []int{3, 3, 3, 4, 5, 4}
	type person struct {
		name string
		vision.Embedding
	}
	var people []person
	for i, want := range counts {
		name := fmt.Sprintf("sample%d.jpg", i+1)
		p := open(t, name)
		faces, err := nets.find(p)
		require.NoError(t, err)
		require.Len(t, faces, want, name)
		for _, f := range faces {
			marks, err := nets.landmarks(p, &f)
			require.NoError(t, err)
			require.NoError(t, nets.align(p, marks.five))
			e, err := nets.vector(nets.crop)
			require.NoError(t, err)
			people = append(people, person{fmt.Sprintf("%s at %.0f", name, f.Box.X), e})
		}
	}
	same, above := 0, 0
	for i, a := range people {
		for _, b := range people[:i] {
			switch score := vision.Cosine(a.Embedding, b.Embedding); {
			case score > 0.6:
				same++
				t.Logf("the same woman: %s, %s: %.3f", a.name, b.name, score)
			case score > threshold:
				above++
				assert.Less(t, score, 0.45, "%s, %s", a.name, b.name)
			}
		}
	}
	assert.Equal(t, 1, same)
	assert.LessOrEqual(t, above, 1, "of 230 pairs of different people")
}

func TestLoadNetsRefuses(t *testing.T) {
	_, err := LoadNets(vision.DefaultManifest(), t.TempDir(), 1)
	assert.ErrorIs(t, err, vision.ErrModel)

	// A file with the right sum that is no net: OpenCV's exception comes back as text.
	m := vision.DefaultManifest()
	dir := t.TempDir()
	for _, model := range m.Models {
		b, err := os.ReadFile(filepath.Join(modelsDir, model.File))
		require.NoError(t, err, "run make models")
		require.NoError(t, os.WriteFile(filepath.Join(dir, model.File), b, 0o600))
	}
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	require.NoError(t, os.WriteFile(filepath.Join(dir, m.Models[2].File), nil, 0o600))
	m.Models[2].SHA256 = empty
	_, err = LoadNets(m, dir, 1)
	assert.ErrorContains(t, err, "loading fr_feature.onnx")

	// A net fed at a size it was not made for is an error, not the end of the process.
	m = vision.DefaultManifest()
	m.Models[2].Input.Width = 50
	_, err = LoadNets(m, modelsDir, 1)
	assert.ErrorContains(t, err, "running fr_feature.onnx")
}

func TestPicturesThatAreNone(t *testing.T) {
	for name, b := range map[string][]byte{"empty": nil, "text": []byte(strings.Repeat("no picture ", 50)), "cut": {0xff, 0xd8, 0xff}} {
		_, err := DecodePicture(b, 4e6)
		assert.Error(t, err, name)
	}
	p := NewPicture()
	defer p.Close()
	_, err := p.Preview(320)
	assert.Error(t, err)
}

func TestPreviewKeepsItsShape(t *testing.T) {
	jpeg, err := open(t, "sample1.jpg").Preview(320)
	require.NoError(t, err)
	small, err := DecodePicture(jpeg, 4e6)
	require.NoError(t, err)
	defer small.Close()
	assert.Equal(t, [2]int{320, 213}, [2]int{small.mat.Cols(), small.mat.Rows()})
}

// BenchmarkCheck asks what one check costs on a camera's frame, and which
// stage of it.
func BenchmarkCheck(b *testing.B) {
	nets := loadNets(b, 1)
	p := open(b, "gocv-face.jpg") // 640x480
	faces, err := nets.find(p)
	require.NoError(b, err)
	face := &faces[0]
	marks, err := nets.landmarks(p, face)
	require.NoError(b, err)
	for _, stage := range []struct {
		name string
		run  func() error
	}{
		{"find", func() error { _, err := nets.find(p); return err }},
		{"points", func() error { _, err := nets.landmarks(p, face); return err }},
		{"embed", func() error {
			if err := nets.align(p, marks.five); err != nil {
				return err
			}
			_, err := nets.vector(nets.crop)
			return err
		}},
		{"liveness", func() error { _, err := nets.live(p, face.Box); return err }},
		{"whole", func() error { _, _, err := nets.Look(p, vision.Work{}); return err }},
		{"preview", func() error { _, err := p.Preview(320); return err }},
	} {
		b.Run(stage.name, func(b *testing.B) {
			for b.Loop() {
				if err := stage.run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCheckAgainstItsNets asks what a check costs beyond the forward runs
// of its nets: both are run in turn, frame by frame, so that neither has the
// processor's caches or a quiet moment for itself. "bare" feeds the nets with
// pictures of their size and does nothing else; what no code of ours can save.
func BenchmarkCheckAgainstItsNets(b *testing.B) {
	for name, work := range map[string]vision.Work{"check": {NoMeasures: true}, "with-measures": {}} {
		b.Run(name, func(b *testing.B) {
			nets := loadNets(b, 1)
			p := open(b, "gocv-face.jpg") // 640x480
			var bare []func() error
			for _, n := range nets.all {
				times := 1
				if n == nets.eyes {
					times = 2
				}
				if n == nets.eyes && work.NoMeasures {
					times = 0
				}
				require.NoError(b, nets.cut(p, stretch(rect{0, 0, 640, 480}, n.size()), n.size()))
				picture := nets.crop.Clone()
				b.Cleanup(func() { _ = picture.Close() })
				for range times {
					bare = append(bare, func() error { _, err := n.forward(picture); return err })
				}
			}
			var whole, sum, ratio []float64
			for b.Loop() {
				began := time.Now()
				if _, _, err := nets.Look(p, work); err != nil {
					b.Fatal(err)
				}
				took := time.Since(began)
				began = time.Now()
				for _, run := range bare {
					if err := run(); err != nil {
						b.Fatal(err)
					}
				}
				control := time.Since(began)
				whole = append(whole, took.Seconds()*1e3)
				sum = append(sum, control.Seconds()*1e3)
				ratio = append(ratio, float64(took)/float64(control))
			}
			b.ReportMetric(median(whole), "check-ms")
			b.ReportMetric(median(sum), "bare-ms")
			b.ReportMetric(median(ratio), "ratio")
			b.ReportMetric(slices.Min(whole)/slices.Min(sum), "ratio-of-best")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
