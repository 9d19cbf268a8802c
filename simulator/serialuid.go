package simulator

import (
	"context"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"
	"time"
)

// UIDRepeat is how often a reader of serial numbers repeats itself while a chip
// is held to it.
const UIDRepeat = 65 * time.Millisecond

// A UIDReader is a virtual reader of serial numbers: it repeats the frame of the
// chip that is held to it.
type UIDReader struct {
	Frame func(serial []byte) []byte // EM4100Frame and its like
	Spoil Spoiler                    // of each frame; nil spoils nothing

	mu     sync.Mutex
	serial []byte
}

// Hold holds a chip to the reader in place of any other. remove takes it away.
func (r *UIDReader) Hold(serial []byte) (remove func()) {
	r.set(slices.Clone(serial))
	return func() { r.set(nil) }
}

func (r *UIDReader) set(serial []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serial = serial
}

// Serve implements [SerialTwin].
func (r *UIDReader) Serve(ctx context.Context, line io.ReadWriter) {
	tick := time.NewTicker(UIDRepeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		serial := r.serial
		r.mu.Unlock()
		if serial != nil {
			r.Spoil.say(ctx, line, r.Frame(serial))
		}
	}
}

// EM4100Frame is what an RDM6300 sends for five bytes.
func EM4100Frame(serial []byte) []byte {
	var sum byte
	for _, c := range serial[:5] {
		sum ^= c
	}
	return fmt.Appendf(nil, "\x02%X%02X\x03", serial[:5], sum)
}

// EM4100LineFrame is the same with CR LF before the end, as some send.
func EM4100LineFrame(serial []byte) []byte {
	f := EM4100Frame(serial)
	return append(f[:len(f)-1], '\r', '\n', 0x03)
}

// DualFrame is what a reader for two frequencies sends for the kind of chip
// (01 Mifare, 02 EM4100) and four bytes.
func DualFrame(serial []byte) []byte {
	f := append([]byte{0x02, 0x09}, serial[:5]...)
	var sum byte
	for _, c := range f[1:] {
		sum ^= c
	}
	return append(f, sum, 0x03)
}

// WiegandFrame is the bits of the wire for three or four bytes, packed into
// bytes from the highest bit on.
func WiegandFrame(serial []byte) []byte {
	width := 8 * len(serial)
	var v uint64
	for _, c := range serial {
		v = v<<8 | uint64(c)
	}
	even := uint64(bits.OnesCount64(v>>(width/2)) % 2)
	odd := uint64(1 - bits.OnesCount64(v&(1<<(width/2)-1))%2)
	v = even<<(width+1) | v<<1 | odd
	v <<= 6
	f := make([]byte, len(serial)+1)
	for i := range f {
		f[len(f)-1-i] = byte(v >> (8 * i))
	}
	return f
}
