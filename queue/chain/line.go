package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Version is the version of the line format, its "v".
const Version = 1

// MaxLine bounds one record line, in bytes. Real lines are under 1 KiB.
const MaxLine = 16 << 10

// ErrMalformed is wrapped by every error about bytes that are not a line, a
// batch or a signature of this format.
var ErrMalformed = errors.New("malformed")

// Seq numbers the records of an epoch from 1, without gaps. 0 is no record.
type Seq uint64

// Hash is the SHA-256 of a record line without its newline. The zero Hash
// stands before line 1 of an epoch.
type Hash [sha256.Size]byte

// strict64 is base64url without padding (RFC 4648 section 5), in its one form.
var strict64 = base64.RawURLEncoding.Strict()

// HashLine hashes a record line (without newline).
func HashLine(line []byte) Hash { return sha256.Sum256(line) }

// MarshalText gives base64url without padding (RFC 4648 section 5).
func (h Hash) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, h[:]), nil
}

// UnmarshalText accepts exactly what MarshalText gives.
func (h *Hash) UnmarshalText(text []byte) error {
	var got Hash
	if len(text) != base64.RawURLEncoding.EncodedLen(len(got)) { // Decode would write past the end
		return fmt.Errorf("hash: %w", ErrMalformed)
	}
	if n, err := strict64.Decode(got[:], text); err != nil || n != len(got) {
		return fmt.Errorf("hash: %w", ErrMalformed)
	}
	*h = got
	return nil
}

func (h Hash) String() string { return base64.RawURLEncoding.EncodeToString(h[:]) }

// Short is the code a trainee can keep: the first four bytes of the hash in
// hexadecimal, "3F9C-21AB". sha256sum over the line starts with the same
// digits.
func (h Hash) Short() string {
	code := strings.ToUpper(hex.EncodeToString(h[:4]))
	return code[:4] + "-" + code[4:]
}

// TerminalID names a terminal for its whole life. It stands in topics and
// certificates: letters, digits and hyphens, at most 64.
type TerminalID string

// Valid reports whether the id may stand in a topic and a file name.
func (t TerminalID) Valid() bool { return validName(string(t)) }

const maxName = 64

func validName(s string) bool {
	for i := range len(s) {
		if !nameByte(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// LogID names one epoch of a terminal's ledger, "terminal/epoch". A store that
// is created anew starts a new epoch with a random name.
type LogID string

// NewLogID joins a terminal and an epoch.
func NewLogID(t TerminalID, epoch string) LogID { return LogID(string(t) + "/" + epoch) }

// Terminal is the part before the slash; it is empty if the id is malformed.
func (l LogID) Terminal() TerminalID {
	t, epoch, ok := strings.Cut(string(l), "/")
	if !ok || !validName(t) || !validName(epoch) {
		return ""
	}
	return TerminalID(t)
}

// ClockLevel says how far the wall clock can be trusted. It is advice: the
// owner of the box runs its time server, so order is by Seq.
type ClockLevel string

const (
	ClockSynced   ClockLevel = "synced"
	ClockHoldover ClockLevel = "holdover" // was synced in this boot
	ClockUnsynced ClockLevel = "unsynced" // not in this boot
	ClockSuspect  ClockLevel = "suspect"  // stepped back, or disagrees with the boot clock
)

// Stamp is when a record was formed, by every clock the terminal has.
type Stamp struct {
	Wall  Wall       `json:"wall"`
	Boot  string     `json:"boot"`  // the kernel's boot id
	UpMS  int64      `json:"up_ms"` // milliseconds since boot, suspend included
	Clock ClockLevel `json:"clock"`
	ErrMS int64      `json:"err_ms,omitempty"` // the clock's estimated maximum error; absent if unknown
}

// Wall is wall time with its zone, to the millisecond. Its zero value is not
// a time.
type Wall struct{ time.Time }

// WallLayout is the one form a wall time has in a line (RFC 3339).
const WallLayout = "2006-01-02T15:04:05.000Z07:00"

// NewWall cuts t to the millisecond.
func NewWall(t time.Time) Wall { return Wall{t.Truncate(time.Millisecond)} }

func (w Wall) String() string { return w.Format(WallLayout) }

// MarshalJSON writes [WallLayout].
func (w Wall) MarshalJSON() ([]byte, error) {
	return []byte(`"` + w.Format(WallLayout) + `"`), nil
}

// UnmarshalJSON accepts exactly what MarshalJSON writes.
func (w *Wall) UnmarshalJSON(text []byte) error {
	t, err := time.Parse(`"`+WallLayout+`"`, string(text))
	if err != nil || t.Format(`"`+WallLayout+`"`) != string(text) {
		return fmt.Errorf("time: %w", ErrMalformed)
	}
	*w = Wall{t}
	return nil
}

// Ack names the last receipt the terminal had when it formed the record: the
// record cannot be older than it.
type Ack struct {
	Seq  Seq  `json:"seq"`
	Hash Hash `json:"hash"`
}

// Entry is one record: the envelope around a body that the room attendance
// encoded once. Body is compact JSON, an object, and is not interpreted here.
type Entry struct {
	V    int             `json:"v"`
	Log  LogID           `json:"log"`
	Seq  Seq             `json:"seq"`
	Prev Hash            `json:"prev"`
	At   Stamp           `json:"at"`
	Type string          `json:"type"`
	Body json.RawMessage `json:"body"`
	Ack  *Ack            `json:"ack,omitempty"`
}

// Line forms the bytes of the record, without newline. It is called once in a
// record's life, by the queue's committer.
func (e Entry) Line() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("forming a record line: %w", err)
	}
	line := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	if len(line) > MaxLine {
		return nil, fmt.Errorf("record line of %d bytes, at most %d: %w", len(line), MaxLine, ErrMalformed)
	}
	return line, nil
}

// ParseLine reads a record line. It accepts only bytes that Line could have
// formed, so that two readers can never see two meanings in one line: known
// keys in their order, compact, valid UTF-8, plain names for log, boot, clock
// and type, and in the body no name twice and
// none but of lower-case letters, digits and underscores (some readers, Go's
// among them, take "Trainee" for "trainee"). The body is a part of line, not a
// copy.
func ParseLine(line []byte) (Entry, error) {
	if len(line) > MaxLine || !utf8.Valid(line) {
		return Entry{}, fmt.Errorf("record line: %w", ErrMalformed)
	}
	s := scanner{text: line}
	e, ok := s.entry()
	if ok {
		return e, nil
	}
	return Entry{}, notALine(line)
}

// notALine says what a person can do with a line that is none.
func notALine(line []byte) error {
	var e struct {
		V   int `json:"v"`
		Seq Seq `json:"seq"`
	}
	switch err := json.Unmarshal(line, &e); {
	case err != nil || e.V == 0:
		return fmt.Errorf("record line: %w", ErrMalformed)
	case e.V != Version:
		return fmt.Errorf("record line of version %d, this program knows %d: %w", e.V, Version, ErrMalformed)
	}
	return fmt.Errorf("record line %d is not in its one form: %w", e.Seq, ErrMalformed)
}
