package reader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"rollcall/attendance"
)

// The resident identity card module speaks in frames, both ways alike (GA 450,
// GA/T 467): a preamble, a length in two bytes that counts all after itself,
// content, and the XOR of everything from the length on.
var idCardPreamble = []byte{0xAA, 0xAA, 0xAA, 0x96, 0x69}

const (
	// maxIDCardLength is more than any answer has: 2,314 with a fingerprint.
	maxIDCardLength = 4096
	minIDCardLength = 4 // status in three bytes, and the check byte
)

// IDCardCommand is what the host asks of an identity card module: command,
// parameter, data.
type IDCardCommand []byte

// The commands of a module. The driver needs status, find, select and read; the
// rest is for whoever looks at a module by hand.
var (
	IDCardReset       = IDCardCommand{0x10, 0xFF}
	IDCardStatus      = IDCardCommand{0x11, 0xFF}
	IDCardNumber      = IDCardCommand{0x12, 0xFF} // of the module
	IDCardFind        = IDCardCommand{0x20, 0x01}
	IDCardSelect      = IDCardCommand{0x20, 0x02}
	IDCardRead        = IDCardCommand{0x30, 0x01} // text and photo
	IDCardAddress     = IDCardCommand{0x30, 0x03} // added later to the card
	IDCardReadAll     = IDCardCommand{0x30, 0x10} // text, photo and fingerprint
	IDCardRadioPacket = IDCardCommand{0x61, 0xFF, 0x50}
)

// Frame gives the bytes of a command.
func (c IDCardCommand) Frame() []byte {
	f := slices.Clone(idCardPreamble)
	f = binary.BigEndian.AppendUint16(f, uint16(len(c)+1))
	f = append(f, c...)
	return append(f, lrc(f[len(idCardPreamble):]))
}

// lrc is the longitudinal redundancy check: the XOR of all bytes.
func lrc(b []byte) (sum byte) {
	for _, c := range b {
		sum ^= c
	}
	return sum
}

// The third status byte of an answer.
const (
	idCardOK     = 0x90
	idCardFound  = 0x9F
	idCardNone   = 0x80
	idCardLost   = 0x81 // select failed
	idCardUnread = 0x41
)

// ErrReaderFault says that a reader reports a fault of its own.
var ErrReaderFault = errors.New("the reader reports a fault of its own: cut its power for a moment, and replace it if that does not help")

// IDCardAnswer is what a module said to a command. Data may be a person's: it
// prints as its length.
type IDCardAnswer struct {
	SW   [3]byte
	Data []byte
}

// Format prints the status and the length for every verb.
func (a IDCardAnswer) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "status %02X%02X%02X, %d bytes", a.SW[0], a.SW[1], a.SW[2], len(a.Data))
}

// Found reports whether the answer to [IDCardFind] says that a card is there.
func (a IDCardAnswer) Found() bool { return a.SW[2] == idCardFound }

// Fits reports whether the answer can be one to this command. Answers do not
// name their command, and one that came late is not to be taken for the next.
func (a IDCardAnswer) Fits(c IDCardCommand) bool {
	n, sw := len(a.Data), a.SW[2]
	if meaning, known := idCardTroubles[sw]; known && meaning != nil {
		return n == 0
	}
	switch {
	case bytes.Equal(c, IDCardFind):
		return sw == idCardFound && n == 4 || sw == idCardNone && n == 0
	case bytes.Equal(c, IDCardSelect):
		return sw == idCardOK && n == 8 || sw == idCardLost && n == 0
	case bytes.Equal(c, IDCardRead), bytes.Equal(c, IDCardReadAll), bytes.Equal(c, IDCardAddress):
		return sw == idCardOK && n > 8 || sw == idCardUnread && n == 0
	case bytes.Equal(c, IDCardNumber):
		return sw == idCardOK && n == 16
	}
	return sw == idCardOK && n == 0
}

// idCardTroubles gives meaning to third status bytes that any command may get.
var idCardTroubles = map[byte]error{
	0x10: ErrBadFormat,       // check byte of the command wrong
	0x11: ErrBadFormat,       // length of the command wrong
	0x21: ErrBadFormat,       // no such command
	0x24: ErrBadFormat,       // unknown
	0x31: ErrUnsupportedCard, // the card does not accept the module
	0x32: ErrUnsupportedCard, // the module does not accept the card
	0x33: ErrBadFormat,       // data of the card fail their check
	0x40: ErrUnsupportedCard, // another type of card
	0x47: ErrReaderFault,     // no random number
	0x60: ErrReaderFault,     // self test
	0x66: ErrReaderFault,     // not authorised
	0x91: ErrBadFormat,       // no such data on the card
}

// Err gives the meaning of an answer that is no success, nil for one that is.
func (a IDCardAnswer) Err() error {
	kind := idCardTroubles[a.SW[2]]
	switch a.SW[2] {
	case idCardOK, idCardFound:
		return nil
	case idCardNone, idCardLost:
		kind = ErrCardRemoved
	}
	if kind == nil {
		kind = ErrBadFormat
	}
	return fmt.Errorf("module status %02X%02X%02X: %w", a.SW[0], a.SW[1], a.SW[2], kind)
}

// IDCardFrames takes the frames out of what a module sends, however it is cut
// into pieces and whatever stands between. The zero value is ready. It belongs
// to one goroutine.
type IDCardFrames struct{ buf []byte }

// Write takes bytes as they come; it never fails. What is kept is bounded: a
// frame is complete or refused before the next [IDCardFrames.Next] returns
// io.EOF.
func (f *IDCardFrames) Write(b []byte) (int, error) {
	f.buf = append(f.buf, b...)
	return len(b), nil
}

// Reset forgets what has come so far.
func (f *IDCardFrames) Reset() { f.buf = nil }

// Next gives the next frame; io.EOF if none is complete. A frame that fails its
// check gives an error that wraps [ErrBadFormat], and the search goes on behind
// its preamble.
func (f *IDCardFrames) Next() (IDCardAnswer, error) {
	var none IDCardAnswer
	at := bytes.Index(f.buf, idCardPreamble)
	if at < 0 {
		f.buf = f.buf[max(0, len(f.buf)-len(idCardPreamble)+1):]
		return none, io.EOF
	}
	f.buf = f.buf[at:]
	frame := f.buf[len(idCardPreamble):]
	if len(frame) < 2 {
		return none, io.EOF
	}
	n := int(binary.BigEndian.Uint16(frame))
	if n < minIDCardLength || n > maxIDCardLength {
		f.buf = f.buf[len(idCardPreamble):]
		return none, fmt.Errorf("frame of length %d: %w", n, ErrBadFormat)
	}
	if len(frame) < 2+n {
		return none, io.EOF
	}
	content, check := frame[2:1+n], frame[1+n]
	if lrc(frame[:1+n]) != check {
		f.buf = f.buf[len(idCardPreamble):]
		return none, fmt.Errorf("check byte of a frame: %w", ErrBadFormat)
	}
	f.buf = frame[2+n:]
	return IDCardAnswer{SW: [3]byte(content), Data: slices.Clone(content[3:])}, nil
}

// Blocks cuts the answer to [IDCardRead] into text and photo, by the lengths in
// it. Blocks after these are left alone.
func (a IDCardAnswer) Blocks() (text, photo []byte, err error) {
	if len(a.Data) >= 4 {
		nText, nPhoto := int(binary.BigEndian.Uint16(a.Data)), int(binary.BigEndian.Uint16(a.Data[2:]))
		if rest := a.Data[4:]; len(rest) == nText+nPhoto {
			return rest[:nText], rest[nText:], nil
		}
		if rest := a.Data[4:]; len(rest) >= 2 && len(rest) == 2+nText+nPhoto+int(binary.BigEndian.Uint16(rest)) {
			return rest[2 : 2+nText], rest[2+nText : 2+nText+nPhoto], nil // with a fingerprint
		}
	}
	return nil, nil, fmt.Errorf("blocks of a card that do not fill its answer: %w", ErrBadFormat)
}

// idCardText is how long a text block is; later versions may append to it.
const idCardText = 256

// idCardLayout says where a kind of identity card has what a credential needs,
// as offset and length in bytes of UTF-16.
type idCardLayout struct {
	name, otherName, number, until [2]int
}

// idCardLayouts by the mark at offset 248.
var idCardLayouts = map[string]idCardLayout{
	"":  {name: [2]int{0, 30}, number: [2]int{122, 36}, until: [2]int{204, 16}},                              // citizen
	"J": {name: [2]int{0, 30}, number: [2]int{122, 36}, until: [2]int{204, 16}},                              // Hong Kong, Macao, Taiwan
	"I": {name: [2]int{158, 30}, otherName: [2]int{0, 120}, number: [2]int{122, 30}, until: [2]int{204, 16}}, // foreigner, 2017
	"Y": {name: [2]int{0, 30}, otherName: [2]int{52, 70}, number: [2]int{122, 36}, until: [2]int{204, 16}},   // foreigner, 2023
}

// ParseIDCard makes a credential of the blocks of an identity card. The photo is
// passed through untouched. The level is `file`: the module proves the card to
// itself, and to the host it is plain text that any module could send. Errors
// are ErrBadFormat, ErrBadNumber and ErrUnsupportedCard.
func ParseIDCard(text, photo []byte) (attendance.Credential, error) {
	var none attendance.Credential
	if len(text) < idCardText {
		return none, fmt.Errorf("text of %d bytes: %w", len(text), ErrBadFormat)
	}
	mark, err := idCardField(text, [2]int{248, 2})
	if err != nil {
		return none, fmt.Errorf("kind of card: %w", err)
	}
	layout, known := idCardLayouts[mark]
	if !known {
		return none, fmt.Errorf("kind of identity card: %w", ErrUnsupportedCard)
	}
	cred := attendance.Credential{Kind: attendance.KindID, Level: attendance.LevelFile}
	number, err := idCardField(text, layout.number)
	if err != nil {
		return none, fmt.Errorf("number: %w", err)
	}
	if cred.PersonNo, err = ParsePersonNo(number); err != nil {
		return none, fmt.Errorf("number: %w", err)
	}
	name, err := idCardField(text, layout.name)
	if err == nil && name == "" && layout.otherName[1] > 0 {
		name, err = idCardField(text, layout.otherName)
	}
	if err != nil {
		return none, fmt.Errorf("name: %w", err)
	}
	if name == "" {
		return none, fmt.Errorf("name: blank: %w", ErrBadFormat)
	}
	cred.Name = attendance.NewPersonName(name)
	// 长期 and an issuer's slip alike give no date.
	if until, err := idCardField(text, layout.until); err == nil {
		if day, err := time.Parse("20060102", until); err == nil {
			cred.ValidTo = day.Format(time.DateOnly)
		}
	}
	if len(photo) > 0 {
		cred.Photo = attendance.NewPersonPhoto(photo)
	}
	return cred, nil
}

// idCardField reads a field of UTF-16LE, filled with spaces.
func idCardField(text []byte, at [2]int) (string, error) {
	units := make([]uint16, at[1]/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(text[at[0]+2*i:])
	}
	s := strings.Trim(string(utf16.Decode(units)), " \x00\u3000")
	if strings.ContainsFunc(s, func(r rune) bool { return r == unicode.ReplacementChar || unicode.In(r, unicode.Cc, unicode.Cf) }) {
		return "", ErrBadFormat
	}
	return s, nil
}
