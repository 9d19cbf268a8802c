package reader

import "fmt"

// maxATR is the longest answer to reset: TS and 32 bytes (ISO 7816-3 8.2.1).
const maxATR = 33

// historicalBytes finds the historical bytes in an answer to reset (ISO 7816-3
// 8.2): behind the interface bytes that T0 and each TDi announce, before the
// check byte. Contactless cards have one made by their reader (PC/SC part 3).
func historicalBytes(atr []byte) ([]byte, error) {
	bad := func(what string) ([]byte, error) {
		return nil, fmt.Errorf("answer to reset: %s: %w", what, ErrBadFormat)
	}
	switch {
	case len(atr) < 2:
		return bad("cut")
	case len(atr) > maxATR:
		return bad("too long")
	case atr[0] != 0x3B && atr[0] != 0x3F:
		return bad("first byte")
	}
	n := int(atr[1] & 0x0F)
	rest := atr[2:]
	checked := false // any protocol but T=0 has a check byte
	for more := atr[1] >> 4; more != 0; {
		announced := 0
		for bit := range 4 {
			announced += int(more >> bit & 1)
		}
		if len(rest) < announced {
			return bad("cut")
		}
		last := rest[announced-1]
		rest = rest[announced:]
		if more&8 == 0 {
			break
		}
		more = last >> 4
		checked = checked || last&0x0F != 0
	}
	want := n
	if checked {
		want++
	}
	if len(rest) != want {
		return bad("length")
	}
	if checked && xor(atr[1:]) != 0 {
		return bad("check byte")
	}
	return rest[:n], nil
}

func xor(b []byte) (sum byte) {
	for _, v := range b {
		sum ^= v
	}
	return sum
}

// Ciphers that file control information names in item 86 of 9F0C.
const (
	tripleDES = 0x01 // also if the item is missing
	ssf33     = 0x02
	sm4       = 0x03
)

// cipherOf finds the card's cipher in the file control information of its
// application: 6F { 84 name, A5 { ... 9F0C { 86 cipher } } } (ISO 7816-4 5.3.3).
func cipherOf(fci []byte) (byte, error) {
	template, err := find(fci, 0x6F)
	if err != nil {
		return 0, err
	}
	if template == nil {
		return 0, fmt.Errorf("file control information missing: %w", ErrBadFormat)
	}
	at := template
	for _, tag := range []uint16{0xA5, 0x9F0C, 0x86} {
		if at, err = find(at, tag); err != nil {
			return 0, err
		}
	}
	switch len(at) {
	case 0:
		return tripleDES, nil
	case 1:
		return at[0], nil
	}
	return 0, fmt.Errorf("file control information: cipher of %d bytes: %w", len(at), ErrBadFormat)
}

// find gives the value of the first data object with a tag in a sequence of
// BER-TLV data objects (ISO 7816-4 5.2.2, tags of one or two bytes), nil if
// there is none. The whole sequence must be well formed.
func find(b []byte, tag uint16) (value []byte, err error) {
	cut := fmt.Errorf("file control information cut: %w", ErrBadFormat)
	for len(b) > 0 {
		t := uint16(b[0])
		b = b[1:]
		if t == 0 { // filling, which is allowed between data objects
			continue
		}
		if t&0x1F == 0x1F {
			if len(b) == 0 {
				return nil, cut
			}
			t = t<<8 | uint16(b[0])
			b = b[1:]
		}
		if len(b) == 0 {
			return nil, cut
		}
		n := int(b[0])
		b = b[1:]
		if n == 0x81 && len(b) > 0 {
			n = int(b[0])
			b = b[1:]
		} else if n >= 0x80 {
			return nil, cut
		}
		if n > len(b) {
			return nil, cut
		}
		if t == tag && value == nil {
			value = b[:n:n]
		}
		b = b[n:]
	}
	return value, nil
}
