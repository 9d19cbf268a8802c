package simulator

import "time"

// Line is how long bytes take between a reader and a chip. The zero value takes
// no time. The chip's own work comes on top: CardFaults.Delay.
type Line struct {
	perByte  time.Duration
	perFrame time.Duration // T=CL: what stands around a block
}

// Contact is a line of contacts at T=0 with a clock in hertz, 3.57, 4 or 4.8 MHz
// in the field: 12 bit times a byte of 372 clocks each (ISO 7816-3 7.1, 7.3),
// as cards without TA1 have it.
func Contact(hertz float64) Line {
	return Line{perByte: time.Duration(12 * 372 / hertz * float64(time.Second))}
}

// Contactless is a line of ISO 14443 type A at 106 kbit/s: 9 bits a byte, and a
// prologue and a check of 3 bytes around each block (ISO 14443-3, 14443-4).
func Contactless() Line {
	const perByte = 9 * 128 * time.Second / 13_560_000
	return Line{perByte: perByte, perFrame: 3 * perByte}
}

// Reset gives the time of an answer to reset. A contactless card's is made by
// its reader.
func (l Line) Reset(atr []byte) time.Duration {
	if l.perFrame > 0 {
		return 0
	}
	return time.Duration(len(atr)) * l.perByte
}

// Exchange gives the time of a command and its answer.
func (l Line) Exchange(command, answer []byte) time.Duration {
	if l.perFrame > 0 {
		return time.Duration(len(command)+len(answer))*l.perByte + 2*l.perFrame
	}
	// T=0: a header of five bytes; if there are data either way, a procedure
	// byte and the data; two bytes of status (ISO 7816-3 10.3).
	data := max(0, len(command)-5) + max(0, len(answer)-2)
	n := 5 + 2 + data
	if data > 0 {
		n++
	}
	return time.Duration(n) * l.perByte
}
