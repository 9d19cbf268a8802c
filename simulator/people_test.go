//go:build cgo && opencv

package simulator_test

import (
	"bytes"
	"image/jpeg"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/simulator"
	"rollcall/vision"
	"rollcall/vision/opencv"
)

// TestPeopleAreToldApart holds what every demo relies on: each person, enrolled
// one way and shown another, passes the threshold by far, and no two people
// come near it.
func TestPeopleAreToldApart(t *testing.T) {
	const clear, near = 0.75, 0.35 // threshold is 0.412
	nets, err := opencv.LoadNets(vision.DefaultManifest(), "../build/models", 1)
	require.NoError(t, err)
	defer nets.Close()
	people, err := simulator.LoadPeople("../build/people")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(people), 14)

	variations := map[string]simulator.Variation{
		"check-in": simulator.AtCheckIn,
		"dark":     {Light: 0.5},
		"tilted":   {Angle: -12, Blur: 1.2, Size: 200, X: 60},
	}
	embed := func(p simulator.Person, v simulator.Variation) vision.Embedding {
		var b bytes.Buffer
		require.NoError(t, jpeg.Encode(&b, p.Frame(v), &jpeg.Options{Quality: 85}))
		picture, err := opencv.DecodePicture(b.Bytes(), 4e6)
		require.NoError(t, err)
		defer picture.Close()
		faces, _, err := nets.Look(picture, vision.Work{NoLiveness: true, NoMeasures: true})
		require.NoError(t, err)
		require.Len(t, faces, 1, "%s: only this face is in view", p.Label)
		require.NotEmpty(t, faces[0].Embedding, p.Label)
		return faces[0].Embedding
	}
	var enrolled []vision.Embedding
	for _, p := range people {
		enrolled = append(enrolled, embed(p, simulator.AtEnrolment))
	}
	for name, v := range variations {
		worst, closest := 1.0, -1.0
		for i, p := range people {
			e := embed(p, v)
			for j := range people {
				score := vision.Cosine(e, enrolled[j])
				if i == j {
					worst = min(worst, score)
					assert.GreaterOrEqual(t, score, clear, "%s %s", p.Label, name)
					continue
				}
				closest = max(closest, score)
				assert.LessOrEqual(t, score, near, "%s %s and %s", p.Label, name, people[j].Label)
			}
		}
		t.Logf("%s: same person at least %.3f, different people at most %.3f", name, worst, closest)
	}
}
