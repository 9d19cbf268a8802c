package simulator

import "slices"

// Spoilers for what a serial device sends; each spoils everything it is given.

// PreambleLonger puts one AA more before a frame.
func PreambleLonger(b []byte) [][]byte { return [][]byte{append([]byte{0xAA}, b...)} }

// PreambleShorter leaves out the first byte of a frame.
func PreambleShorter(b []byte) [][]byte { return [][]byte{b[1:]} }

// LengthOf writes another length into a frame of an identity card module.
func LengthOf(n uint16) Spoiler {
	return func(b []byte) [][]byte {
		b = slices.Clone(b)
		b[5], b[6] = byte(n>>8), byte(n)
		return [][]byte{b}
	}
}

// BitFlipped flips one bit, counted from the first byte's highest and around.
func BitFlipped(bit int) Spoiler {
	return func(b []byte) [][]byte {
		b = slices.Clone(b)
		at := bit % (8 * len(b))
		b[at/8] ^= 0x80 >> (at % 8)
		return [][]byte{b}
	}
}

// SplitAt sends a frame in two pieces.
func SplitAt(n int) Spoiler {
	return func(b []byte) [][]byte {
		n := min(n, len(b))
		return [][]byte{b[:n], b[n:]}
	}
}

// CutAt sends the beginning only.
func CutAt(n int) Spoiler {
	return func(b []byte) [][]byte { return [][]byte{b[:min(n, len(b))]} }
}

// Twice sends everything two times in one go.
func Twice(b []byte) [][]byte { return [][]byte{slices.Concat(b, b)} }

// Amid puts noise before and after.
func Amid(noise []byte) Spoiler {
	return func(b []byte) [][]byte { return [][]byte{slices.Concat(noise, b, noise)} }
}

// PreviousFirst sends what was sent last before each frame: an answer to the
// previous command.
func PreviousFirst() Spoiler {
	var last []byte
	return func(b []byte) [][]byte {
		sent := slices.Concat(last, b)
		last = slices.Clone(b)
		return [][]byte{sent}
	}
}

// Never sends nothing.
func Never([]byte) [][]byte { return nil }

// Once spoils only the n-th thing sent, counted from 1.
func Once(n int, s Spoiler) Spoiler {
	return func(b []byte) [][]byte {
		if n--; n == 0 {
			return s(b)
		}
		return [][]byte{b}
	}
}
