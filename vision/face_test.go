package vision

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
)

func TestEmbeddingsRedactThemselves(t *testing.T) {
	e := Embedding{0.123456, 0.654321}
	held := []any{e, Face{Embedding: e}, &Face{Embedding: e}, Template{Embedding: e}, Capture{Template: Template{Embedding: e}},
		Answer{Kind: KindFrame, Faces: []Face{{Embedding: e, Mirrored: e}}}, Face{Mirrored: e}}
	for _, v := range held {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
			text := fmt.Sprintf(verb, v)
			assert.NotContains(t, text, "0.12", "%T with %s", v, verb)
			assert.NotContains(t, text, "1f9add3", "%T with %s", v, verb)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		assert.NotContains(t, log.String(), "0.12", "%T in a log", v)
		text, err := json.Marshal(v)
		require.NoError(t, err)
		assert.NotContains(t, string(text), "0.12", "%T as JSON", v)
	}
}

func TestCosine(t *testing.T) {
	for name, c := range map[string]struct {
		a, b Embedding
		want float64
	}{
		"same direction":    {Embedding{1, 2}, Embedding{2, 4}, 1},
		"opposite":          {Embedding{1, 2}, Embedding{-1, -2}, -1},
		"right angle":       {Embedding{1, 0}, Embedding{0, 3}, 0},
		"different lengths": {Embedding{1, 0}, Embedding{1}, -1},
		"no direction":      {Embedding{0, 0}, Embedding{1, 0}, -1},
		"nothing":           {nil, nil, -1},
	} {
		t.Run(name, func(t *testing.T) { assert.InDelta(t, c.want, Cosine(c.a, c.b), 1e-9) })
	}
}

func TestUnit(t *testing.T) {
	assert.Equal(t, Embedding{0.6, 0.8}, Embedding{3, 4}.Unit())
	assert.Nil(t, Embedding{0, 0}.Unit())
}

func TestEmbeddingOfRefusesWhatIsNoVector(t *testing.T) {
	for name, b := range map[string][]byte{
		"odd length": {1, 2, 3},
		"too long":   make([]byte, 4*maxDimensions+4),
		"infinite":   Embedding{float32(math.Inf(1))}.bytes(),
		"no number":  Embedding{float32(math.NaN())}.bytes(),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := embeddingOf(b)
			assert.ErrorIs(t, err, errEmbedding)
		})
	}
}

func TestUsable(t *testing.T) {
	wide := func(w float64) Face { return Face{Box: Box{W: w, H: w}} }
	for name, c := range map[string]struct {
		faces  []Face
		person int
		advice attendance.Advice
	}{
		"nobody":             {nil, -1, attendance.AdviceNoFace},
		"one":                {[]Face{wide(100)}, 0, attendance.AdviceNone},
		"somebody behind":    {[]Face{wide(40), wide(100)}, 1, attendance.AdviceNone},
		"two side by side":   {[]Face{wide(100), wide(50)}, -1, attendance.AdviceOne},
		"one far away":       {[]Face{wide(47.9)}, -1, attendance.AdviceCloser},
		"just near enough":   {[]Face{wide(48)}, 0, attendance.AdviceNone},
		"two far away":       {[]Face{wide(40), wide(40)}, -1, attendance.AdviceOne},
		"two of the largest": {[]Face{wide(90), wide(90)}, -1, attendance.AdviceOne},
	} {
		t.Run(name, func(t *testing.T) {
			person, advice := Usable(c.faces)
			assert.Equal(t, c.person, person)
			assert.Equal(t, c.advice, advice)
		})
	}
}
