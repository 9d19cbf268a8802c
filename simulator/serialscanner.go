package simulator

import (
	"bytes"
	"context"
	"io"
	"sync"
)

// A Scanner is a virtual QR scanner that sends what it is shown.
type Scanner struct {
	End   string  // after each code; "" leaves the silence
	Spoil Spoiler // of each code; nil spoils nothing

	shown chan []byte
	once  sync.Once
}

func (s *Scanner) codes() chan []byte {
	s.once.Do(func() { s.shown = make(chan []byte, 64) })
	return s.shown
}

// Show holds a code before the scanner. It waits while 64 are waiting.
func (s *Scanner) Show(code string) { s.codes() <- []byte(code) }

// Serve implements [SerialTwin].
func (s *Scanner) Serve(ctx context.Context, line io.ReadWriter) {
	for {
		select {
		case <-ctx.Done():
			return
		case code := <-s.codes():
			s.Spoil.say(ctx, line, append(code, s.End...))
		}
	}
}

// A GM65 is a virtual scanner of the GM65 family in its command mode: it looks
// when it is told to, and rests after each code.
type GM65 struct {
	End   string  // after each code
	Spoil Spoiler // of each answer; nil spoils nothing

	mu      sync.Mutex
	looking bool
	code    []byte // held before it; nil none
	wake    func() // sends what there is to send; set by Serve
}

// Show holds a code before the scanner until the next.
func (g *GM65) Show(code string) {
	g.mu.Lock()
	g.code = []byte(code)
	wake := g.wake
	g.mu.Unlock()
	if wake != nil {
		wake()
	}
}

// Looking reports whether the scanner was told to look and saw nothing since.
func (g *GM65) Looking() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.looking
}

// Serve implements [SerialTwin].
func (g *GM65) Serve(ctx context.Context, line io.ReadWriter) {
	var writing sync.Mutex
	scan := func() {
		writing.Lock()
		defer writing.Unlock()
		g.mu.Lock()
		code := g.code
		if !g.looking || code == nil {
			g.mu.Unlock()
			return
		}
		g.looking, g.code = false, nil
		g.mu.Unlock()
		_, _ = line.Write(append(code, g.End...))
	}
	g.mu.Lock()
	g.wake = scan
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.wake, g.looking = nil, false
	}()
	var got []byte
	var buf [256]byte
	for {
		n, err := line.Read(buf[:])
		if err != nil || ctx.Err() != nil {
			return
		}
		got = append(got, buf[:n]...)
		for {
			var answer []byte
			answer, got = g.take(got)
			if answer == nil {
				break
			}
			writing.Lock()
			g.Spoil.say(ctx, line, answer)
			writing.Unlock()
			scan()
		}
	}
}

// take takes the next command out of b: 7E 00, type, count, address, data and
// a check that is AB CD or true. A command that fails its check is not
// answered.
func (g *GM65) take(b []byte) (answer, rest []byte) {
	for {
		at := bytes.Index(b, []byte{0x7E, 0x00})
		if at < 0 || len(b) < at+4 {
			return nil, b[max(0, at):]
		}
		f := b[at:]
		n := 6 + int(f[3]) + 2
		if len(f) < n {
			return nil, f
		}
		body, check := f[2:n-2], uint16(f[n-2])<<8|uint16(f[n-1])
		b = f[n:]
		if check != 0xABCD && check != gm65CRC(body) {
			continue
		}
		if bytes.Equal(body[:4], []byte{0x08, 0x01, 0x00, 0x02}) {
			g.mu.Lock()
			g.looking = body[4]&1 == 1
			g.mu.Unlock()
		}
		reply := []byte{0x00, 0x01, 0x00}
		crc := gm65CRC(reply)
		return append(append([]byte{0x02, 0x00}, reply...), byte(crc>>8), byte(crc)), b
	}
}

// gm65CRC follows the program that the scanner's manual prints.
func gm65CRC(b []byte) uint16 {
	var crc uint
	for _, c := range b {
		for i := uint(0x80); i != 0; i /= 2 {
			crc *= 2
			if crc&0x10000 != 0 {
				crc ^= 0x11021
			}
			if uint(c)&i != 0 {
				crc ^= 0x1021
			}
		}
	}
	return uint16(crc)
}
