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

func embeddingOf(b []byte) (Embedding, error) {
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

// Face is one face of a frame. Only the person before the camera gets an
// embedding, and only if [Usable] says so.
type Face struct {
	Box       Box
	Score     float64   // 0 to 1, how sure the detector is
	Liveness  float64   // 0 to 1, advice only; -1 if not measured
	Embedding Embedding // unit length; nil if the face was not embedded
}
