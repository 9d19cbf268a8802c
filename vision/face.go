package vision

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
)

// Embedding is a face as a vector. It is biometric data: it prints as "***"
// and refuses to become JSON; only the worker's protocol and the sealed
// gallery carry its bytes.
type Embedding []float32

func (e Embedding) String() string { return "***" }

// Format prints the redaction for every verb.
func (e Embedding) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "***") }

// LogValue implements slog.LogValuer.
func (e Embedding) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalText keeps the numbers out of JSON and TOML.
func (e Embedding) MarshalText() ([]byte, error) { return []byte("***"), nil }

// bytes gives the numbers as little-endian float32.
func (e Embedding) bytes() []byte {
	out := make([]byte, 0, 4*len(e))
	for _, x := range e {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
	}
	return out
}

const maxDimensions = 4096

var errEmbedding = errors.New("not an embedding")

// embeddingOf reads what bytes wrote; of nothing it makes nil.
func embeddingOf(b []byte) (Embedding, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b)%4 != 0 || len(b) > 4*maxDimensions {
		return nil, errEmbedding
	}
	e := make(Embedding, 0, len(b)/4)
	for ; len(b) > 0; b = b[4:] {
		x := math.Float32frombits(binary.LittleEndian.Uint32(b))
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return nil, errEmbedding
		}
		e = append(e, x)
	}
	return e, nil
}

// Unit gives e at length 1, and nil for a vector without direction.
func (e Embedding) Unit() Embedding {
	var sum float64
	for _, x := range e {
		sum += float64(x) * float64(x)
	}
	if sum == 0 {
		return nil
	}
	norm := math.Sqrt(sum)
	out := make(Embedding, len(e))
	for i, x := range e {
		out[i] = float32(float64(x) / norm)
	}
	return out
}

// Cosine compares two vectors of the same embedder, -1 to 1. Vectors of
// different length or without direction have similarity -1.
func Cosine(a, b Embedding) float64 {
	if len(a) != len(b) {
		return -1
	}
	var dot, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		dot += x * y
		aa += x * x
		bb += y * y
	}
	if aa == 0 || bb == 0 {
		return -1
	}
	return dot / math.Sqrt(aa*bb)
}

// Box is where a face is, in pixels of the frame.
type Box struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
	W float64 `json:"w"`
	H float64 `json:"h"`
}

// Face is one face of a frame. Of a camera's frame only the person before the
// camera gets an embedding and measures, and only if [Usable] says so.
type Face struct {
	Box       Box
	Score     float64   // 0 to 1, how sure the detector is
	Liveness  float64   // 0 to 1, advice only; -1 if not measured
	Embedding Embedding // unit length; nil if the face was not embedded
	Mirrored  Embedding // of the same crop mirrored; nil unless [Work.Mirror] asked for it
	Measures  *Measures // nil if not measured
}

// Measures is how good a capture of a face is, in the terms of ISO/IEC 29794-5
// where it has one. Light and sharpness are taken from the aligned crop of
// 112x112 pixels, so they do not depend on the size of the face.
type Measures struct {
	// InterEyeDistance is the distance of the centres of the eyes, in pixels
	// of the frame.
	InterEyeDistance float64 `json:"inter_eye_distance"`
	// Luminance is the mean luma of the face, 0 to 255.
	Luminance float64 `json:"luminance"`
	// Under and Over are the shares of the face's pixels with a luma of 0 to
	// 25 and of 247 to 255, 0 to 1.
	Under float64 `json:"under"`
	Over  float64 `json:"over"`
	// Backlight is the mean luma round the face less Luminance, -255 to 255:
	// far above 0 is a window behind the person.
	Backlight float64 `json:"backlight"`
	// Sharpness is the variance of the Laplacian of the luma, 0 and up. It
	// grows with the square of the contrast, so it is divided by the variance
	// of the luma.
	Sharpness float64 `json:"sharpness"`
	// Yaw (right in the picture), Pitch (up) and Roll (clockwise) in degrees,
	// 0 for a face that looks straight at the camera. They come from five
	// points, or from the set's net for poses if it has one: good enough to
	// ask somebody to turn, no goniometer.
	Yaw   float64 `json:"yaw"`
	Pitch float64 `json:"pitch"`
	Roll  float64 `json:"roll"`
	// EyesOpen is how sure the set's net for eyes is that both eyes are open,
	// 0 to 1; -1 if the set has none.
	EyesOpen float64 `json:"eyes_open"`
	// Covered is the share of mouth and chin that does not have the colour of
	// the same face's cheeks and nose, 0 to 1: a mask, a scarf, a hand in a
	// glove. -1 for a picture without colour.
	Covered float64 `json:"covered"`
}

// String keeps the numbers out of logs: they are about a person.
func (Measures) String() string { return "***" }

// Format prints the redaction for every verb.
func (Measures) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "***") }
