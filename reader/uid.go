package reader

import (
	"encoding/hex"
	"fmt"
	"io"
	"math/bits"
	"slices"

	"rollcall/attendance"
)

// UIDForm is the way in which a one-way reader writes the serial number of a
// chip.
type UIDForm string

const (
	// UIDEM4100 is that of the RDM6300 and its like, 125 kHz: 02, ten
	// hexadecimal characters, two of check, maybe CR LF, 03. The serial number
	// is the last four of the five bytes; the first is the maker's.
	UIDEM4100 UIDForm = "em4100"
	// UIDDual is that of readers for two frequencies: 02 09, kind of chip, four
	// bytes of serial number, check, 03.
	UIDDual UIDForm = "dual"
	// UIDWiegand26 and UIDWiegand34 are the bits of the wire, parity included,
	// packed into four or five bytes from the highest bit on and filled with
	// zeros, with silence after.
	UIDWiegand26 UIDForm = "wiegand26"
	UIDWiegand34 UIDForm = "wiegand34"
)

// UIDForms lists every form.
var UIDForms = []UIDForm{UIDEM4100, UIDDual, UIDWiegand26, UIDWiegand34}

// UIDFrames takes serial numbers out of what a reader sends. It belongs to one
// goroutine.
type UIDFrames struct {
	Form     UIDForm
	Reversed bool // the reader writes the lowest byte first

	buf   []byte
	quiet bool // silence followed what is in buf
}

// Write takes bytes as they come; it never fails. Take all frames out with
// [UIDFrames.Next] before the next.
func (f *UIDFrames) Write(b []byte) (int, error) {
	if f.quiet {
		f.buf, f.quiet = nil, false
	}
	f.buf = append(f.buf, b...)
	return len(b), nil
}

// Silence says that nothing came for longer than a frame has gaps: what is
// there is whole or lost.
func (f *UIDFrames) Silence() { f.quiet = true }

// Next gives the next serial number; io.EOF if none is complete. A frame that
// fails its check gives an error that wraps [ErrBadFormat].
func (f *UIDFrames) Next() (attendance.UID, error) {
	var serial []byte
	var err error
	switch f.Form {
	case UIDEM4100:
		serial, err = f.framed(em4100)
	case UIDDual:
		serial, err = f.framed(dual)
	case UIDWiegand26:
		serial, err = f.wiegand(26)
	case UIDWiegand34:
		serial, err = f.wiegand(34)
	default:
		panic("reader: no UID form " + string(f.Form))
	}
	if err != nil {
		return attendance.UID{}, err
	}
	return f.uid(serial)
}

func (f *UIDFrames) uid(serial []byte) (attendance.UID, error) {
	if !slices.ContainsFunc(serial, func(b byte) bool { return b != 0 }) {
		return attendance.UID{}, fmt.Errorf("serial number of zeros: %w", ErrBadFormat)
	}
	if f.Reversed {
		slices.Reverse(serial)
	}
	return attendance.NewUID(fmt.Sprintf("%X", serial)), nil
}

const (
	stx = 0x02
	etx = 0x03
)

// framed finds a frame that starts with 02. parse gives the serial number and
// how many bytes the frame has; io.EOF if it needs more.
func (f *UIDFrames) framed(parse func([]byte) (serial []byte, n int, err error)) ([]byte, error) {
	at := slices.Index(f.buf, stx)
	if at < 0 {
		f.buf = nil
		return nil, io.EOF
	}
	f.buf = f.buf[at:]
	serial, n, err := parse(f.buf)
	switch {
	case err == io.EOF && f.quiet:
		f.buf = nil
		return nil, fmt.Errorf("cut frame: %w", ErrBadFormat)
	case err == io.EOF:
		return nil, err
	case err != nil:
		f.buf = f.buf[1:]
		return nil, err
	}
	f.buf = f.buf[n:]
	return serial, nil
}

func em4100(b []byte) ([]byte, int, error) {
	const digits = 12
	end := 1 + digits
	for _, c := range b[1:min(end, len(b))] {
		if (c < '0' || c > '9') && (c < 'A' || c > 'F') && (c < 'a' || c > 'f') {
			return nil, 0, fmt.Errorf("character in a serial number: %w", ErrBadFormat)
		}
	}
	if len(b) > end && b[end] == '\r' {
		end += 2
		if len(b) >= end && b[end-1] != '\n' {
			return nil, 0, fmt.Errorf("end of a frame: %w", ErrBadFormat)
		}
	}
	if len(b) <= end {
		return nil, 0, io.EOF
	}
	if b[end] != etx {
		return nil, 0, fmt.Errorf("end of a frame: %w", ErrBadFormat)
	}
	var v [digits / 2]byte
	if _, err := hex.Decode(v[:], b[1:1+digits]); err != nil || lrc(v[:]) != 0 {
		return nil, 0, fmt.Errorf("check of a frame: %w", ErrBadFormat)
	}
	return slices.Clone(v[1:5]), end + 1, nil
}

func dual(b []byte) ([]byte, int, error) {
	const size = 9 // 02, length 09, kind, 4 of serial number, check, 03
	switch {
	case len(b) > 1 && b[1] != size:
		return nil, 0, fmt.Errorf("length of a frame: %w", ErrBadFormat)
	case len(b) < size:
		return nil, 0, io.EOF
	case b[size-1] != etx || lrc(b[1:size-1]) != 0:
		return nil, 0, fmt.Errorf("check of a frame: %w", ErrBadFormat)
	}
	return slices.Clone(b[3:7]), size, nil
}

// wiegand takes a burst of whole frames between two silences.
func (f *UIDFrames) wiegand(width int) ([]byte, error) {
	size := (width + 7) / 8
	// A reader that never falls silent must not fill the memory.
	if len(f.buf) > 64*size {
		f.buf = nil
		return nil, fmt.Errorf("no end of a burst: %w", ErrBadFormat)
	}
	if !f.quiet || len(f.buf) == 0 {
		return nil, io.EOF
	}
	if len(f.buf)%size != 0 {
		f.buf = nil
		return nil, fmt.Errorf("cut frame: %w", ErrBadFormat)
	}
	frame := f.buf[:size]
	f.buf = f.buf[size:]
	var v uint64
	for _, b := range frame {
		v = v<<8 | uint64(b)
	}
	fill := 8*size - width
	if v&(1<<fill-1) != 0 {
		return nil, fmt.Errorf("filling of a frame: %w", ErrBadFormat)
	}
	return parseWiegand(v>>fill, width)
}

// parseWiegand checks the parities, even over the first half and odd over the
// second, and gives the bits between.
func parseWiegand(v uint64, width int) ([]byte, error) {
	half := width / 2
	if bits.OnesCount64(v>>half)%2 != 0 || bits.OnesCount64(v&(1<<half-1))%2 != 1 {
		return nil, fmt.Errorf("parity of a frame: %w", ErrBadFormat)
	}
	serial := make([]byte, (width-2)/8)
	for i := range serial {
		serial[i] = byte(v >> (width - 9 - 8*i))
	}
	return serial, nil
}
