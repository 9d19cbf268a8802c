package reader

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
)

// codesOf takes all codes out of the pieces, with silence after the last.
func codesOf(pieces ...string) (codes []string, bad int) {
	var l CodeLines
	take := func() {
		for {
			code, err := l.Next()
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				bad++
			default:
				codes = append(codes, code.Reveal())
			}
		}
	}
	for _, p := range pieces {
		_, _ = l.Write([]byte(p))
		take()
	}
	l.Silence()
	take()
	return codes, bad
}

func TestCodeLines(t *testing.T) {
	const code = "86013245012345678901"
	for _, c := range []struct {
		name, in string
		want     []string
		bad      int
	}{
		{"CR", code + "\r", []string{code}, 0},
		{"CR LF", code + "\r\n", []string{code}, 0},
		{"LF", code + "\n", []string{code}, 0},
		{"silence", code, []string{code}, 0},
		{"two", code + "\r\n" + code + "0\r\n", []string{code, code + "0"}, 0},
		{"nothing", "", nil, 0},
		{"empty lines", "\r\n\r\n\n", nil, 0},
		{"NUL and ESC are dropped", "\x00" + code[:4] + "\x1b" + code[4:] + "\x7f\r", []string{code}, 0},
		{"only control characters", "\x00\x1b\r", nil, 1},
		{"15 characters", code[:15] + "\r", nil, 1},
		{"16 characters", code[:16] + "\r", []string{code[:16]}, 0},
		{"512 characters", strings.Repeat("a", 512) + "\r", []string{strings.Repeat("a", 512)}, 0},
		{"513 characters", strings.Repeat("a", 513) + "\r", nil, 1},
		{"UTF-8", "电子社保卡电子社保卡\r", nil, 1},
		{"no UTF-8", strings.Repeat("\xff", 20) + "\r", nil, 1},
		{"an address", "https://example.invalid/a?b=c#d\r", []string{"https://example.invalid/a?b=c#d"}, 0},
		{"4,096 bytes of NUL and a code", strings.Repeat("\x00", 4096-len(code)) + code + "\r", []string{code}, 0},
		{"5,000 bytes", strings.Repeat("a", 5000) + "\r" + code + "\r", []string{code}, 1},
		{"5,000 bytes and silence", strings.Repeat("a", 5000), nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			codes, bad := codesOf(c.in)
			assert.Equal(t, c.want, codes)
			assert.Equal(t, c.bad, bad)
			for n := 0; n < len(c.in); n += 1 + len(c.in)/64 {
				codes, bad := codesOf(c.in[:n], c.in[n:])
				require.Equal(t, c.want, codes, "split at %d", n)
				require.Equal(t, c.bad, bad, "split at %d", n)
			}
		})
	}
}

func TestABadCodeHasItsOwnFault(t *testing.T) {
	_, err := ParseCode([]byte("short"))
	require.ErrorIs(t, err, ErrBadCode)
	require.ErrorIs(t, err, ErrBadFormat)
	assert.Equal(t, attendance.FaultBadCode, FaultOf(err))
}

func TestCutGM65Answer(t *testing.T) {
	ok := unhexed(t, "02000001003331")
	assert.Equal(t, uint16(0xDEC8), crc16([]byte(unhexed(t, "0901000000"))), "of the manual's save command")
	for _, c := range []struct {
		name, in, before, after string
		want                    error
	}{
		{"alone", ok, "", "", nil},
		{"a code before and after", "abc\r" + ok + "def", "abc\r", "def", nil},
		{"cut", ok[:6], "", "", io.EOF},
		{"one byte", ok[:1], "", "", io.EOF},
		{"nothing", "", "", "", io.EOF},
		{"a code alone", "abc\r", "", "", io.EOF},
		{"wrong check", ok[:6] + "\x00", "", "", ErrBadFormat},
		{"a failure", string(binary.BigEndian.AppendUint16([]byte{2, 0, 1, 1, 0}, crc16([]byte{1, 1, 0}))), "", "", ErrBadFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, after, err := CutGM65Answer([]byte(c.in))
			require.ErrorIs(t, err, c.want)
			assert.Equal(t, c.before, string(before))
			assert.Equal(t, c.after, string(after))
		})
	}
}

func FuzzCodeLines(f *testing.F) {
	f.Add([]byte("86013245012345678901\r\n"), 4)
	f.Add([]byte(strings.Repeat("a", 5000)), 100)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		cut = min(max(cut, 0), len(in))
		var l CodeLines
		for _, p := range [][]byte{in[:cut], in[cut:], nil} {
			if p == nil {
				l.Silence()
			}
			_, _ = l.Write(p)
			for steps := 0; ; steps++ {
				require.LessOrEqual(t, steps, len(in)+1, "no end")
				code, err := l.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					require.ErrorIs(t, err, ErrBadCode)
					continue
				}
				assert.Regexp(t, `^[ -~]{16,512}$`, code.Reveal())
			}
			require.LessOrEqual(t, len(l.buf), maxCodeLine, "memory")
		}
	})
}

func FuzzCutGM65Answer(f *testing.F) {
	f.Add([]byte("abc\r\x02\x00\x00\x01\x00\x33\x31def"))
	f.Fuzz(func(t *testing.T, in []byte) {
		before, after, err := CutGM65Answer(in)
		if err == nil {
			assert.LessOrEqual(t, len(before)+len(after), len(in)-6)
		}
	})
}
