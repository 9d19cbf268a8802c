package reader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"rollcall/attendance"
)

const (
	maxCodeLine = 4096 // bytes a scanner may send for one code
	minCodeText = 16   // less says nothing that could be told from chance
)

// ErrBadCode says that a code is not one that this terminal can do anything
// with. It is an ErrBadFormat.
var ErrBadCode = fmt.Errorf("not a code for this terminal: %w", ErrBadFormat)

// ParseCode takes the bytes of one code: control characters are dropped, then
// it must be 16 to 512 printable ASCII characters. What it says is not judged
// here. Errors are [ErrBadCode].
func ParseCode(line []byte) (attendance.CodeText, error) {
	text := bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F {
			return -1
		}
		return r
	}, line)
	for _, c := range text {
		if c > '~' {
			return attendance.CodeText{}, fmt.Errorf("characters beyond ASCII: %w", ErrBadCode)
		}
	}
	if len(text) < minCodeText || len(text) > attendance.MaxCodeText {
		return attendance.CodeText{}, fmt.Errorf("%d characters: %w", len(text), ErrBadCode)
	}
	return attendance.NewCodeText(string(text)), nil
}

// CodeLines takes codes out of what a scanner sends: each ends with CR or LF, or
// with silence. The zero value is ready. It belongs to one goroutine.
type CodeLines struct {
	buf  []byte
	over bool // the line has passed its limit: the rest of it is dropped
}

// Write takes bytes as they come; it never fails. Take all codes out with
// [CodeLines.Next] before the next.
func (l *CodeLines) Write(b []byte) (int, error) {
	l.buf = append(l.buf, b...)
	return len(b), nil
}

// Silence ends a code that has no end mark.
func (l *CodeLines) Silence() {
	if len(l.buf) > 0 || l.over {
		l.buf = append(l.buf, '\r')
	}
}

// Next gives the next code; io.EOF if none is complete. A code that is too long
// or not one at all gives an error that wraps [ErrBadCode]. Empty lines are
// passed over.
func (l *CodeLines) Next() (attendance.CodeText, error) {
	for {
		end := bytes.IndexAny(l.buf, "\r\n")
		if end < 0 {
			if len(l.buf) > maxCodeLine {
				l.buf, l.over = nil, true
			}
			return attendance.CodeText{}, io.EOF
		}
		line, over := l.buf[:end], l.over || end > maxCodeLine
		l.buf, l.over = l.buf[end+1:], false
		switch {
		case over:
			return attendance.CodeText{}, fmt.Errorf("more than %d bytes: %w", maxCodeLine, ErrBadCode)
		case end > 0:
			return ParseCode(line)
		}
	}
}

// What the host tells a scanner of the GM65 family, as published. Its last two
// bytes, AB CD, are the check that the scanner does not check.
var (
	GM65Trigger = []byte{0x7E, 0x00, 0x08, 0x01, 0x00, 0x02, 0x01, 0xAB, 0xCD}
	GM65Stop    = []byte{0x7E, 0x00, 0x08, 0x01, 0x00, 0x02, 0x00, 0xAB, 0xCD}
)

var gm65Answer = []byte{0x02, 0x00}

// CutGM65Answer takes the scanner's answer to a command out of what it sent: 02
// 00, a result, a count, so many bytes, a check. before and after are the codes
// around it. It returns io.EOF if no answer is complete, and ErrBadFormat for
// one that fails its check or reports a failure.
func CutGM65Answer(b []byte) (before, after []byte, err error) {
	at := bytes.Index(b, gm65Answer)
	if at < 0 || len(b) < at+4 {
		return nil, nil, io.EOF
	}
	frame := b[at:]
	n := 4 + int(frame[3])
	if len(frame) < n+2 {
		return nil, nil, io.EOF
	}
	if crc16(frame[2:n]) != binary.BigEndian.Uint16(frame[n:]) {
		return nil, nil, fmt.Errorf("check of a scanner's answer: %w", ErrBadFormat)
	}
	if frame[2] != 0 {
		return nil, nil, fmt.Errorf("scanner's answer %02X: %w", frame[2], ErrBadFormat)
	}
	return b[:at], frame[n+2:], nil
}

// crc16 is CRC-16 with polynomial 1021 and start 0 (XMODEM).
func crc16(b []byte) uint16 {
	var crc uint16
	for _, c := range b {
		crc ^= uint16(c) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
