package reader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Recorder carries commands to a card and writes the dialogue down, so that a
// card nobody has seen yet can be learned from without its holder's data. Lines
// are those of a dialogue in testdata: "# source: ", then "> " and a command,
// "< " and the answer, in hexadecimal. Of an answer it shows the status word,
// the tag and length of a record, the structure of file control information with
// what names files and ciphers, and the values that the profile calls public.
// Every other byte it writes as xx, and all bytes of what it does not
// understand. It belongs to one goroutine.
type Recorder struct {
	transmitter Transmitter
	profile     *Profile
	out         io.Writer
	err         error

	asked []byte // the command that the next GET RESPONSE answers
}

// NewRecorder starts a dialogue with line 1: its source, and the answer to reset
// without the serial number.
func NewRecorder(out io.Writer, t Transmitter, p *Profile, source string, atr []byte) *Recorder {
	r := &Recorder{transmitter: t, profile: p, out: out}
	r.line("# source: " + strings.Join(strings.Fields(source), " ") +
		"; answer to reset " + shown(atr, publicATR(atr)) + "; xx is a byte that is left out")
	return r
}

// Err gives the error of the first line that could not be written.
func (r *Recorder) Err() error { return r.err }

// Transmit implements [Transmitter].
func (r *Recorder) Transmit(command []byte) ([]byte, error) {
	answer, err := r.transmitter.Transmit(command)
	r.line("> " + shown(command, publicCommand(command)))
	if err != nil {
		r.line("# no answer: " + err.Error())
		return answer, err
	}
	if !isGetResponse(command) {
		r.asked = slices.Clone(command)
	}
	r.line("< " + shown(answer, r.public(answer)))
	return answer, nil
}

func (r *Recorder) line(s string) {
	if r.err == nil {
		_, r.err = io.WriteString(r.out, s+"\n")
	}
}

// shown writes the first bytes in hexadecimal and the others as xx, by mask.
func shown(b []byte, public []bool) string {
	var s strings.Builder
	for i, v := range b {
		if i > 0 {
			s.WriteByte(' ')
		}
		if public[i] {
			fmt.Fprintf(&s, "%02X", v)
		} else {
			s.WriteString("xx")
		}
	}
	return s.String()
}

// mask is which bytes may be shown: none, until said otherwise.
type mask []bool

func (m mask) show(from, to int) {
	for i := from; i < to; i++ {
		m[i] = true
	}
}

func isGetResponse(command []byte) bool { return len(command) >= 2 && command[1] == 0xC0 }

// publicCommand shows the commands that only select and read, and of any other
// its header: what follows may come from a card.
func publicCommand(command []byte) []bool {
	m := make(mask, len(command))
	m.show(0, min(4, len(m)))
	if len(command) > 1 && bytes.IndexByte([]byte{0xA4, 0xB0, 0xB2, 0xC0}, command[1]) >= 0 {
		m.show(0, len(m))
	}
	return m
}

// publicATR shows what tells kinds of cards apart. The last 6 of the 13
// historical bytes of a social security card are its serial number, and a check
// byte would give one of them away. Of other cards no more than the interface
// bytes is known to be public.
func publicATR(atr []byte) []bool {
	m := make(mask, len(atr))
	historical, err := historicalBytes(atr)
	if err != nil {
		m.show(0, min(2, len(m)))
		return m
	}
	start := cap(atr) - cap(historical) // it is a part of atr
	m.show(0, start)
	if len(historical) == 13 {
		m.show(start, start+7)
	}
	return m
}

// public says which bytes of an answer may be shown.
func (r *Recorder) public(answer []byte) []bool {
	m := make(mask, len(answer))
	if len(answer) < 2 {
		return m
	}
	n := len(answer) - 2
	m.show(n, len(m))
	data, sw := answer[:n], binary.BigEndian.Uint16(answer[n:])
	switch {
	case sw != swOK || len(r.asked) < 4:
	case r.asked[1] == 0xA4:
		r.showTemplate(m[:n], data, 0)
	case r.asked[1] == 0xB2:
		r.showRecord(m[:n], data)
	}
	return m
}

// showRecord shows tag and length of a record that has the tag it was asked for
// by, or one that the profile knows, and the right length.
func (r *Recorder) showRecord(m mask, data []byte) {
	if len(data) < 2 || int(data[1]) != len(data)-2 {
		return
	}
	it := r.profile.itemOf(data[0])
	byTag := r.asked[3]&7 == 0 && r.asked[2] == data[0]
	if it == nil && !byTag {
		return
	}
	m.show(0, 2)
	if it != nil && it.Public && it.Len == len(data)-2 {
		m.show(2, len(data))
	}
}

// itemOf gives the item with a tag, nil if the profile has none.
func (p *Profile) itemOf(tag byte) *Item {
	for i := range p.Files {
		for j := range p.Files[i].Items {
			if it := &p.Files[i].Items[j]; it.Tag[0] == tag {
				return it
			}
		}
	}
	return nil
}

// showTemplate shows the structure of file control information (ISO 7816-4
// 5.3.3), and the values that say what a file is: size, kind, identifier, short
// identifier, life cycle, and the cipher in 9F0C. A name is shown if it is the
// one that the profile selects by.
func (r *Recorder) showTemplate(m mask, b []byte, within uint16) {
	for i := 0; i < len(b); {
		tag, head, n, ok := header(b[i:])
		if !ok {
			return
		}
		value := b[i+head : i+head+n]
		m.show(i, i+head)
		inside := m[i+head : i+head+n]
		switch {
		case tag == 0x6F || tag == 0x62 || tag == 0x64 || tag == 0xA5 || tag == 0x9F0C:
			r.showTemplate(inside, value, tag)
		case within == 0x9F0C && tag == 0x86 && n == 1,
			within != 0x9F0C && n <= 2 && (tag == 0x80 || tag == 0x82 || tag == 0x83 || tag == 0x88 || tag == 0x8A),
			tag == 0x84 && bytes.Equal(value, r.profile.AID):
			inside.show(0, n)
		}
		i += head + n
	}
}

// header reads the tag and length of a BER-TLV data object.
func header(b []byte) (tag uint16, head, n int, ok bool) {
	tag, head = uint16(b[0]), 1
	if tag&0x1F == 0x1F && len(b) > 1 {
		tag, head = tag<<8|uint16(b[1]), 2
	}
	if len(b) <= head || b[head] >= 0x80 {
		return 0, 0, 0, false
	}
	n = int(b[head])
	head++
	return tag, head, n, head+n <= len(b)
}

// Explore asks an unknown card for what a recording is made for: the profile's
// application and its files by both forms of selection, then each record by tag,
// by number, and by number with a short file identifier. It only selects and
// reads, and goes on after a refusal; only errors of the reader end it.
func Explore(ctx context.Context, t Transmitter, p *Profile) error {
	c := &Card{transmitter: t, left: exploreBudget}
	ask := func(command []byte) (sw uint16, err error) {
		_, err = c.send(ctx, command)
		if status, ok := errors.AsType[*StatusError](err); ok {
			return status.SW, nil
		}
		return swOK, err
	}
	if sw, err := ask(slices.Concat([]byte{0x00, 0xA4, 0x04, 0x00, byte(len(p.AID))}, p.AID)); err != nil || sw != swOK {
		return err
	}
	for i := range p.Files {
		if err := p.Files[i].explore(ask); err != nil {
			return err
		}
	}
	return nil
}

const (
	exploreBudget  = 400 // commands
	exploreRecords = 20  // of a file, by number
)

func (f *File) explore(ask func([]byte) (uint16, error)) error {
	for _, p1 := range []byte{0x00, 0x02} {
		if _, err := ask(slices.Concat([]byte{0x00, 0xA4, p1, 0x00, byte(len(f.FID))}, f.FID)); err != nil {
			return err
		}
	}
	for _, it := range f.Items {
		if _, err := ask([]byte{0x00, 0xB2, it.Tag[0], 0x00, 0x00}); err != nil {
			return err
		}
	}
	for _, p2 := range []byte{0x04, f.SFI<<3 | 0x04} {
		for n := byte(1); n <= exploreRecords; n++ {
			sw, err := ask([]byte{0x00, 0xB2, n, p2, 0x00})
			if err != nil {
				return err
			}
			if sw != swOK {
				break
			}
		}
	}
	return nil
}

// Step says what a command does, for people.
func (p *Profile) Step(command []byte) string {
	if len(command) < 4 {
		return "unknown command"
	}
	switch command[1] {
	case 0xA4:
		if command[2] == 0x04 {
			return "select the application"
		}
		for _, f := range p.Files {
			if bytes.HasSuffix(command, f.FID) {
				return "select file " + f.ID
			}
		}
		return "select a file"
	case 0xB2:
		if it := p.itemOf(command[2]); it != nil && command[3]&7 == 0 {
			return "read " + it.Name
		}
		return fmt.Sprintf("read record %d", command[2])
	case 0xC0:
		return "fetch the answer"
	case 0x84:
		return "ask for a challenge"
	case 0x82:
		return "external authentication"
	case 0x88:
		return "internal authentication"
	}
	return fmt.Sprintf("command %02X", command[1])
}
