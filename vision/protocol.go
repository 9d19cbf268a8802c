package vision

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ProtocolVersion is said in the worker's hello; the daemon refuses another.
// 2 brought measures, mirrored crops, pictures by path, and the suspect camera.
const ProtocolVersion = 2

// The worker takes commands from file descriptor 3 and answers on 4, so that a
// library that prints to stdout cannot break the dialogue. Each message is its
// length (4 bytes, big-endian, at most largestMessage) and so much JSON.
const (
	CommandFD = 3
	AnswerFD  = 4

	largestMessage = 1 << 20
)

// ErrProtocol is wrapped by every error about bytes that are not a message.
var ErrProtocol = errors.New("not a message of the vision worker")

// Do is what the worker is told.
type Do string

const (
	DoOpen    Do = "open"    // camera on, frames thrown away unread; answered by opened
	DoLook    Do = "look"    // camera on, frames analysed, newest wins; answered by frame after frame, and previews
	DoClose   Do = "close"   // camera off; answered by closed, also when it was off
	DoPicture Do = "picture" // one file analysed, whatever the camera does; answered by picture or refused
)

// Command is one order. The daemon numbers its commands; every answer names
// the command it belongs to, so a frame of the former person is never taken
// for the next one's.
type Command struct {
	Do   Do     `json:"do"`
	ID   uint64 `json:"id"`
	Path string `json:"path,omitempty"` // picture: a file of this machine, JPEG, PNG, PGM or PPM
	Work Work   `json:"work,omitzero"`  // look, picture
}

// Work says what is done with a face beyond finding it. The zero value is the
// whole check: points, measures, embedding, liveness.
type Work struct {
	Mirror      bool `json:"mirror,omitempty"` // embed the mirrored crop too: costs one embedding more
	NoEmbedding bool `json:"no_embedding,omitempty"`
	NoLiveness  bool `json:"no_liveness,omitempty"`
	NoMeasures  bool `json:"no_measures,omitempty"`
}

// Kind is what an answer says.
type Kind string

const (
	KindHello   Kind = "hello"   // first, when the nets are loaded
	KindOpened  Kind = "opened"  // the camera gives frames
	KindFrame   Kind = "frame"   // one analysed frame
	KindPreview Kind = "preview" // a JPEG for the panel
	KindClosed  Kind = "closed"  // the camera is off
	KindTrouble Kind = "trouble" // the camera is off, and why
	KindPicture Kind = "picture" // one analysed file
	KindRefused Kind = "refused" // the file cannot be analysed, and why; the worker goes on
)

// Answer is one message of the worker. It may hold biometric data and prints
// as its kind.
type Answer struct {
	Kind Kind
	ID   uint64 // of the command that it answers; 0 in hello

	Version int             // hello: ProtocolVersion
	Models  map[Role]string // hello: SHA-256 by role

	AgeMS float64 // frame: milliseconds since it was taken
	Faces []Face  // frame, picture: best first; in a picture every face is embedded
	Took  Times   // frame, picture

	Width, Height int // frame, picture: pixels, as it is seen (turned as its EXIF says)

	JPEG []byte // preview: 320x240

	// Code in a frame is CodeSuspect or CodeBlack while the camera's picture is
	// not to be relied on: then Faces carry no embeddings. In trouble and
	// refused it says what is wrong.
	Code Code
	Text string // frame with a code, trouble, refused: cause and cure
}

// Times is what the stages of a check took, in milliseconds; a stage that was
// not run is 0. In a picture they are sums over its faces.
type Times struct {
	Decode   float64 `json:"decode,omitempty"` // file to pixels; picture only
	Detect   float64 `json:"detect,omitempty"`
	Points   float64 `json:"points,omitempty"`
	Embed    float64 `json:"embed,omitempty"`
	Mirror   float64 `json:"mirror,omitempty"` // mirrored embedding, if it was asked for
	Liveness float64 `json:"liveness,omitempty"`
	Measures float64 `json:"measures,omitempty"` // nets for eyes and pose included
	Total    float64 `json:"total,omitempty"`
}

func (a Answer) String() string { return string(a.Kind) }

// Format prints the kind for every verb.
func (a Answer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, string(a.Kind)) }

// Code says what went wrong, for who branches on it.
type Code string

const (
	CodeCamera   Code = "camera"   // it does not answer
	CodeEnded    Code = "ended"    // the stream broke off
	CodeAddress  Code = "address"  // something answers, and gives no video
	CodeRights   Code = "rights"   // it asks for another password, or the device for other rights
	CodeIdentity Code = "identity" // it is not the camera of the configuration
	CodeSuspect  Code = "suspect"  // the stream repeats itself to the bit: frozen, or a recording
	CodeBlack    Code = "black"    // there is nothing to be seen: a covered lens, or no light

	CodeNoFile    Code = "no_file"    // refused: absent, or not to be read
	CodeNoPicture Code = "no_picture" // refused: not a picture that can be decoded
	CodeTooLarge  Code = "too_large"  // refused: more pixels or bytes than allowed
	CodeLost      Code = "lost"       // refused, said by Analyse: the worker ended over it
)

// The wire's form of an answer: here, and in the sealed gallery, embeddings
// have bytes.
type wireAnswer struct {
	Kind    Kind            `json:"kind"`
	ID      uint64          `json:"id"`
	Version int             `json:"version,omitempty"`
	Models  map[Role]string `json:"models,omitempty"`
	AgeMS   float64         `json:"age_ms,omitempty"`
	Faces   []wireFace      `json:"faces,omitempty"`
	Took    Times           `json:"took,omitzero"`
	Width   int             `json:"width,omitempty"`
	Height  int             `json:"height,omitempty"`
	JPEG    []byte          `json:"jpeg,omitempty"`
	Code    Code            `json:"code,omitempty"`
	Text    string          `json:"text,omitempty"`
}

type wireFace struct {
	Box
	Score     float64   `json:"score"`
	Liveness  float64   `json:"liveness"`
	Embedding []byte    `json:"embedding,omitempty"` // little-endian float32
	Mirrored  []byte    `json:"mirrored,omitempty"`
	Measures  *Measures `json:"measures,omitempty"`
}

// WriteCommand sends a command.
func WriteCommand(w io.Writer, c Command) error { return writeMessage(w, c) }

// ReadCommand waits for the next command. At the end of the stream it gives
// io.EOF: the daemon is gone and the worker must go too.
func ReadCommand(r io.Reader) (Command, error) {
	var c Command
	if err := readMessage(r, &c); err != nil {
		return Command{}, err
	}
	switch c.Do {
	case DoOpen, DoLook, DoClose, DoPicture:
		return c, nil
	}
	return Command{}, fmt.Errorf("%w: unknown command", ErrProtocol)
}

// WriteAnswer sends an answer.
func WriteAnswer(w io.Writer, a Answer) error {
	wire := wireAnswer{
		Kind: a.Kind, ID: a.ID, Version: a.Version, Models: a.Models,
		AgeMS: a.AgeMS, Took: a.Took, Width: a.Width, Height: a.Height,
		JPEG: a.JPEG, Code: a.Code, Text: a.Text,
	}
	for _, f := range a.Faces {
		wire.Faces = append(wire.Faces, wireFace{
			f.Box, f.Score, f.Liveness, f.Embedding.bytes(), f.Mirrored.bytes(), f.Measures,
		})
	}
	return writeMessage(w, wire)
}

// ReadAnswer waits for the next answer; at the end of the stream it gives io.EOF.
func ReadAnswer(r io.Reader) (Answer, error) {
	var wire wireAnswer
	if err := readMessage(r, &wire); err != nil {
		return Answer{}, err
	}
	switch wire.Kind {
	case KindHello, KindOpened, KindFrame, KindPreview, KindClosed, KindTrouble, KindPicture, KindRefused:
	default:
		return Answer{}, fmt.Errorf("%w: unknown answer", ErrProtocol)
	}
	a := Answer{
		Kind: wire.Kind, ID: wire.ID, Version: wire.Version, Models: wire.Models,
		AgeMS: wire.AgeMS, Took: wire.Took, Width: wire.Width, Height: wire.Height,
		JPEG: wire.JPEG, Code: wire.Code, Text: wire.Text,
	}
	for _, f := range wire.Faces {
		face := Face{Box: f.Box, Score: f.Score, Liveness: f.Liveness, Measures: f.Measures}
		var err error
		if face.Embedding, err = embeddingOf(f.Embedding); err != nil {
			return Answer{}, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if face.Mirrored, err = embeddingOf(f.Mirrored); err != nil {
			return Answer{}, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		a.Faces = append(a.Faces, face)
	}
	return a, nil
}

func writeMessage(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing message: %w", err)
	}
	if len(body) > largestMessage {
		return fmt.Errorf("writing message: %d bytes are more than %d", len(body), largestMessage)
	}
	// One write, so that two halves of a message cannot be parted.
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

func readMessage(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > largestMessage {
		return fmt.Errorf("%w: %d bytes are more than %d", ErrProtocol, n, largestMessage)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return err
	}
	if len(body) < int(n) {
		return io.ErrUnexpectedEOF
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %s", ErrProtocol, "bad JSON") // the text could hold personal data
	}
	if d.InputOffset() != int64(n) {
		return fmt.Errorf("%w: text after its end", ErrProtocol)
	}
	return nil
}
