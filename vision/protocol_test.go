package vision

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func message(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestMessagesGoThrough(t *testing.T) {
	var pipe bytes.Buffer
	commands := []Command{
		{Do: DoOpen, ID: 1}, {Do: DoLook, ID: 2, Work: Work{Mirror: true}}, {Do: DoClose, ID: 1<<64 - 1},
		{Do: DoPicture, ID: 4, Path: "a/b.jpg", Work: Work{NoEmbedding: true, NoLiveness: true, NoMeasures: true}},
	}
	for _, c := range commands {
		require.NoError(t, WriteCommand(&pipe, c))
	}
	for _, want := range commands {
		got, err := ReadCommand(&pipe)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	answers := []Answer{
		{Kind: KindHello, Version: 1, Models: map[Role]string{RoleEmbed: "ab"}},
		{Kind: KindOpened, ID: 1},
		{Kind: KindFrame, ID: 2, AgeMS: 1.5},
		{Kind: KindFrame, ID: 2, Faces: []Face{
			{
				Box: Box{1, 2, 3, 4}, Score: 0.9, Liveness: 0.5, Embedding: Embedding{0.25, -1},
				Mirrored: Embedding{0.5, 1}, Measures: &Measures{Luminance: 120, Yaw: -3, EyesOpen: -1},
			},
			{Box: Box{-1, 2, 3, 4}, Score: 0.7, Liveness: -1},
		}},
		{Kind: KindFrame, ID: 2, Code: CodeSuspect, Text: "why"},
		{Kind: KindPicture, ID: 4, Width: 250, Height: 240, Took: Times{Decode: 1, Detect: 2, Total: 3}},
		{Kind: KindRefused, ID: 4, Code: CodeTooLarge, Text: "why"},
		{Kind: KindPreview, ID: 2, JPEG: []byte{0xff, 0xd8}},
		{Kind: KindClosed, ID: 3},
		{Kind: KindTrouble, ID: 3, Code: CodeEnded, Text: "why"},
	}
	for _, a := range answers {
		require.NoError(t, WriteAnswer(&pipe, a))
	}
	for _, want := range answers {
		got, err := ReadAnswer(&pipe)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := ReadCommand(&pipe)
	assert.Equal(t, io.EOF, err)
}

func TestReadingRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"end":                    {nil, io.EOF},
		"half a length":          {[]byte{0, 0}, io.ErrUnexpectedEOF},
		"half a message":         {message(`{"do":"open","id":1}`)[:10], io.ErrUnexpectedEOF},
		"a length beyond bounds": {[]byte{0, 16, 0, 1}, ErrProtocol},
		"no JSON":                {message("open"), ErrProtocol},
		"nothing":                {message(""), ErrProtocol},
		"unknown field":          {message(`{"do":"open","kind":"closed","id":1,"x":0}`), ErrProtocol},
		"unknown word":           {message(`{"do":"sing","id":1}`), ErrProtocol},
		"unknown kind":           {message(`{"kind":"sing","id":1}`), ErrProtocol},
		"text after it":          {message(`{"do":"open","id":1}{}`), ErrProtocol},
		"broken embedding":       {message(`{"kind":"frame","id":1,"faces":[{"embedding":"AAA="}]}`), ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadCommand(bytes.NewReader(c.bytes))
			assert.ErrorIs(t, err, c.want)
			_, err = ReadAnswer(bytes.NewReader(c.bytes))
			if name != "unknown word" {
				assert.ErrorIs(t, err, c.want)
			}
		})
	}
}

func TestWritingRefusesWhatCannotBeRead(t *testing.T) {
	err := WriteAnswer(io.Discard, Answer{Kind: KindPreview, JPEG: make([]byte, largestMessage)})
	assert.ErrorContains(t, err, "are more than")
	assert.Equal(t, io.ErrClosedPipe, WriteCommand(closedPipe{}, Command{Do: DoOpen}))
}

type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func FuzzReadAnswer(f *testing.F) {
	var b bytes.Buffer
	require.NoError(f, WriteAnswer(&b, Answer{Kind: KindFrame, ID: 3, Faces: []Face{{Embedding: Embedding{1, 2}}}}))
	f.Add(b.Bytes())
	f.Add(message(`{"kind":"trouble","id":1,"code":"camera","text":"x"}`))
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ReadAnswer(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, ErrProtocol) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		// What was read can be written and reads the same again.
		var once, twice bytes.Buffer
		if err := WriteAnswer(&once, a); err != nil {
			return // larger than it came: escapes
		}
		again, err := ReadAnswer(bytes.NewReader(once.Bytes()))
		require.NoError(t, err)
		require.NoError(t, WriteAnswer(&twice, again))
		assert.Equal(t, once.Bytes(), twice.Bytes())
	})
}

func FuzzReadCommand(f *testing.F) {
	f.Add(message(`{"do":"look","id":18446744073709551615}`))
	f.Add([]byte{0, 0, 0, 1, '{'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ReadCommand(bytes.NewReader(b)); err == nil {
			assert.Contains(t, []Do{DoOpen, DoLook, DoClose}, c.Do)
		}
	})
}
