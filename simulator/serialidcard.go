package simulator

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"sync"
	"time"
	"unicode/utf16"
)

// IDKind is the mark on a resident identity card.
type IDKind byte

const (
	IDCitizen       IDKind = ' '
	IDResident      IDKind = 'J' // of Hong Kong, Macao or Taiwan
	IDForeigner2017 IDKind = 'I' // the layout of 2017
	IDForeigner2023 IDKind = 'Y' // the layout of 2023
)

// IDCard is a virtual resident identity card. Every holder here is invented.
type IDCard struct {
	Kind    IDKind // zero is a citizen's
	Name    string
	English string // with the foreigners' kinds
	Number  string
	Born    string // YYYYMMDD
	Until   string // YYYYMMDD or 长期
	Photo   []byte // nil is 1,024 bytes that are no picture
}

// InventIDCard makes an identity card for an invented holder.
func InventIDCard(h Holder) *IDCard {
	return &IDCard{Name: h.Name, Number: h.PersonNo, Born: h.PersonNo[6:14], Until: h.ValidTo}
}

// idPhotoSize and idTextSize are those of GA 450.
const (
	idTextSize  = 256
	idPhotoSize = 1024
)

// Text is the card's text block: UTF-16LE, filled with spaces.
func (c *IDCard) Text() []byte {
	b := bytes.Repeat([]byte{' ', 0}, idTextSize/2)
	put := func(at, size int, s string) {
		for i, unit := range utf16.Encode([]rune(s)) {
			if 2*i == size {
				panic("simulator: value too long for an identity card")
			}
			binary.LittleEndian.PutUint16(b[at+2*i:], unit)
		}
	}
	put(188, 16, "20200101")
	put(204, 16, c.Until)
	switch c.Kind {
	case IDForeigner2017:
		put(0, 120, c.English)
		put(120, 2, "1")
		put(122, 30, c.Number)
		put(152, 6, "ZZZ")
		put(158, 30, c.Name)
		put(220, 16, c.Born)
		put(236, 4, "01")
		put(240, 8, "9900")
	default:
		put(0, 30, c.Name)
		put(30, 2, "1")
		put(32, 4, "01")
		put(36, 16, c.Born)
		put(122, 36, c.Number)
		if c.Kind == IDForeigner2023 {
			put(52, 70, c.English)
			break
		}
		put(52, 70, "无此地址一号")
		put(158, 30, "无此机关")
		if c.Kind == IDResident {
			put(220, 18, "H00000000")
			put(238, 4, "01")
		}
	}
	if c.Kind != 0 {
		put(248, 2, string(rune(c.Kind)))
	}
	return b
}

func (c *IDCard) photo() []byte {
	if c.Photo != nil {
		return c.Photo
	}
	return bytes.Repeat([]byte("WLT\x00"), idPhotoSize/4)
}

// An IDCardModule is a virtual module for resident identity cards. It takes one
// card at a time. Its methods may be called at once.
type IDCardModule struct {
	Spoil  Spoiler                     // of each answer; nil spoils nothing
	Refuse map[[2]byte]byte            // third status byte to answer a command and parameter with
	Refind bool                        // finds a card again that was read, as some do
	PullAt int                         // the card leaves at this command after it was found; 0 never
	Work   func([2]byte) time.Duration // the module's own time for a command; nil is none

	mu       sync.Mutex
	card     *IDCard
	read     bool // the card was read and did not leave since
	found    bool
	selected bool
	commands int // since the card was found
}

// Place lays a card on the module in place of any other. remove takes it away.
func (m *IDCardModule) Place(c *IDCard) (remove func()) {
	m.set(c)
	return func() { m.set(nil) }
}

func (m *IDCardModule) set(c *IDCard) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.card, m.read, m.found, m.selected, m.commands = c, false, false, false, 0
}

// Serve implements [SerialTwin].
func (m *IDCardModule) Serve(ctx context.Context, line io.ReadWriter) {
	var got []byte
	var buf [256]byte
	for {
		n, err := line.Read(buf[:])
		if err != nil || ctx.Err() != nil {
			return
		}
		got = append(got, buf[:n]...)
		for {
			frame, rest := cutModuleFrame(got)
			got = rest
			if frame == nil {
				break
			}
			if m.Work != nil && len(frame) >= 4 {
				pass(ctx, m.Work([2]byte(frame[2:4])))
			}
			m.Spoil.say(ctx, line, m.Answer(frame))
		}
	}
}

var modulePreamble = []byte{0xAA, 0xAA, 0xAA, 0x96, 0x69}

// cutModuleFrame gives the next frame without its preamble, nil if there is
// none yet.
func cutModuleFrame(b []byte) (frame, rest []byte) {
	at := bytes.Index(b, modulePreamble)
	if at < 0 {
		return nil, b[max(0, len(b)-4):]
	}
	f := b[at+len(modulePreamble):]
	if len(f) < 2 {
		return nil, b[at:]
	}
	n := 2 + int(binary.BigEndian.Uint16(f))
	if n > 64 { // no command is that long
		return nil, f
	}
	if len(f) < n {
		return nil, b[at:]
	}
	return f[:n], f[n:]
}

// Answer gives the module's answer to a command: length, command, parameter,
// data and check byte, without the preamble.
func (m *IDCardModule) Answer(frame []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var sum byte
	for _, c := range frame {
		sum ^= c
	}
	switch {
	case len(frame) < 5:
		return moduleAnswer(0x11)
	case sum != 0:
		return moduleAnswer(0x10)
	}
	command := [2]byte(frame[2:4])
	if sw, ok := m.Refuse[command]; ok {
		return moduleAnswer(sw)
	}
	if m.found {
		if m.commands++; m.PullAt > 0 && m.commands >= m.PullAt {
			m.card, m.found, m.selected = nil, false, false
		}
	}
	switch command {
	case [2]byte{0x10, 0xFF}, [2]byte{0x11, 0xFF}, [2]byte{0x61, 0xFF},
		[2]byte{0x60, 0x00}, [2]byte{0x60, 0x01}, [2]byte{0x60, 0x02}, [2]byte{0x60, 0x03}, [2]byte{0x60, 0x04}:
		return moduleAnswer(0x90)
	case [2]byte{0x12, 0xFF}:
		return moduleAnswer(0x90, []byte("\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")...)
	case [2]byte{0x20, 0x01}:
		return m.find()
	case [2]byte{0x20, 0x02}:
		if !m.found {
			return moduleAnswer(0x81)
		}
		m.selected = true
		return moduleAnswer(0x90, make([]byte, 8)...)
	case [2]byte{0x30, 0x01}, [2]byte{0x30, 0x10}:
		return m.content(command[1] == 0x10)
	case [2]byte{0x30, 0x03}:
		return moduleAnswer(0x91)
	}
	return moduleAnswer(0x21)
}

func (m *IDCardModule) find() []byte {
	m.selected = false
	if m.found = m.card != nil && (!m.read || m.Refind); !m.found {
		return moduleAnswer(0x80)
	}
	m.commands = 0
	return moduleAnswer(0x9F, 0, 0, 0, 0)
}

func (m *IDCardModule) content(fingerprint bool) []byte {
	if !m.selected {
		return moduleAnswer(0x41)
	}
	m.read, m.found, m.selected = true, false, false
	text, photo := m.card.Text(), m.card.photo()
	lengths := binary.BigEndian.AppendUint16(nil, uint16(len(text)))
	lengths = binary.BigEndian.AppendUint16(lengths, uint16(len(photo)))
	blocks := append(text, photo...)
	if fingerprint {
		lengths = binary.BigEndian.AppendUint16(lengths, idPhotoSize)
		blocks = append(blocks, make([]byte, idPhotoSize)...)
	}
	return moduleAnswer(0x90, append(lengths, blocks...)...)
}

func moduleAnswer(sw3 byte, data ...byte) []byte {
	f := append([]byte(nil), modulePreamble...)
	f = binary.BigEndian.AppendUint16(f, uint16(3+len(data)+1))
	f = append(f, 0, 0, sw3)
	f = append(f, data...)
	var sum byte
	for _, c := range f[len(modulePreamble):] {
		sum ^= c
	}
	return append(f, sum)
}
