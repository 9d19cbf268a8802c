package reader

import (
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const em4100Example = "\x021400508931FC\x03"

func unhexed(t testing.TB, s string) string {
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return string(b)
}

// serialsOf takes all serial numbers out of the pieces, with silence after the
// last.
func serialsOf(f *UIDFrames, pieces ...string) (serials []string, bad int) {
	take := func() {
		for {
			uid, err := f.Next()
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				bad++
			default:
				serials = append(serials, uid.Reveal())
			}
		}
	}
	for _, p := range pieces {
		_, _ = f.Write([]byte(p))
		take()
	}
	f.Silence()
	take()
	return serials, bad
}

func TestUIDFrames(t *testing.T) {
	dual, w26 := unhexed(t, "020902042E5382F003"), unhexed(t, "1E896B40")
	for _, c := range []struct {
		name     string
		form     UIDForm
		reversed bool
		in       string
		want     []string
		bad      int
	}{
		{"em4100", UIDEM4100, false, em4100Example, []string{"00508931"}, 0},
		{"em4100, lower case", UIDEM4100, false, "\x021400508931fc\x03", []string{"00508931"}, 0},
		{"em4100, CR LF before the end", UIDEM4100, false, "\x021400508931FC\r\n\x03", []string{"00508931"}, 0},
		{"em4100, CR alone", UIDEM4100, false, "\x021400508931FC\r\x03", nil, 1},
		{"em4100, reversed", UIDEM4100, true, em4100Example, []string{"31895000"}, 0},
		{"em4100, repeated with noise", UIDEM4100, false, "xx" + em4100Example + "\r\n" + em4100Example + "yy", []string{"00508931", "00508931"}, 0},
		{"em4100, wrong check", UIDEM4100, false, "\x021400508931FD\x03", nil, 1},
		{"em4100, no hexadecimal", UIDEM4100, false, "\x0214005089G1FC\x03", nil, 1},
		{"em4100, a start in the middle", UIDEM4100, false, "\x02140050" + em4100Example, []string{"00508931"}, 1},
		{"em4100, cut", UIDEM4100, false, em4100Example[:9], nil, 1},
		{"em4100, another end", UIDEM4100, false, "\x021400508931FC\x04", nil, 1},
		{"em4100, zeros", UIDEM4100, false, "\x02140000000014\x03", nil, 1},
		{"dual", UIDDual, false, dual, []string{"042E5382"}, 0},
		{"dual, reversed", UIDDual, true, dual, []string{"82532E04"}, 0},
		{"dual, wrong check", UIDDual, false, unhexed(t, "020902042E5382F103"), nil, 2},
		{"dual, another length", UIDDual, false, unhexed(t, "020802042E5382F103"), nil, 2},
		{"dual, after a cut one", UIDDual, false, unhexed(t, "020902") + dual, []string{"042E5382"}, 2},
		{"wiegand 26", UIDWiegand26, false, w26, []string{"3D12D6"}, 0},
		{"wiegand 26, twice", UIDWiegand26, false, w26 + w26, []string{"3D12D6", "3D12D6"}, 0},
		{"wiegand 26, even parity wrong", UIDWiegand26, false, unhexed(t, "9E896B40"), nil, 1},
		{"wiegand 26, odd parity wrong", UIDWiegand26, false, unhexed(t, "1E896B00"), nil, 1},
		{"wiegand 26, filling", UIDWiegand26, false, unhexed(t, "1E896B41"), nil, 1},
		{"wiegand 26, cut", UIDWiegand26, false, w26[:3], nil, 1},
		{"wiegand 34", UIDWiegand34, false, unhexed(t, "0081018200"), []string{"01020304"}, 0},
		{"nothing", UIDDual, false, "", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			serials, bad := serialsOf(&UIDFrames{Form: c.form, Reversed: c.reversed}, c.in)
			assert.Equal(t, c.want, serials)
			assert.Equal(t, c.bad, bad)
			for n := range len(c.in) {
				serials, _ := serialsOf(&UIDFrames{Form: c.form, Reversed: c.reversed}, c.in[:n], c.in[n:])
				require.Equal(t, c.want, serials, "split at %d", n)
			}
		})
	}
}

func TestSilenceParts(t *testing.T) {
	f := &UIDFrames{Form: UIDWiegand26}
	_, _ = f.Write([]byte{0x1E, 0x89})
	f.Silence()
	_, err := f.Next()
	require.ErrorIs(t, err, ErrBadFormat)
	serials, bad := serialsOf(f, unhexed(t, "1E896B40"))
	assert.Equal(t, []string{"3D12D6"}, serials, "what came before a silence spoils nothing after it")
	assert.Zero(t, bad)
}

func TestParseWiegand34(t *testing.T) {
	// 01020304 has two ones in its first half and three in its second: both
	// parity bits are 0.
	serial, err := parseWiegand(0x01020304<<1, 34)
	require.NoError(t, err)
	assert.Equal(t, []byte{1, 2, 3, 4}, serial)
	for bit := range 34 {
		_, err := parseWiegand(0x01020304<<1^1<<bit, 34)
		assert.ErrorIs(t, err, ErrBadFormat, "bit %d flipped", bit)
	}
}

func FuzzUIDFrames(f *testing.F) {
	f.Add([]byte(em4100Example), uint8(0), false)
	f.Add([]byte(unhexed(f, "020902042E5382F003")), uint8(1), true)
	f.Add([]byte(unhexed(f, "1E896B40")), uint8(2), false)
	f.Fuzz(func(t *testing.T, in []byte, form uint8, reversed bool) {
		frames := &UIDFrames{Form: UIDForms[int(form)%len(UIDForms)], Reversed: reversed}
		for _, quiet := range []bool{false, true} {
			_, _ = frames.Write(in)
			if quiet {
				frames.Silence()
			}
			for steps := 0; ; steps++ {
				require.LessOrEqual(t, steps, 2*len(in)+2, "no end")
				uid, err := frames.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					require.ErrorIs(t, err, ErrBadFormat)
					continue
				}
				assert.Regexp(t, `^([0-9A-F]{6}|[0-9A-F]{8})$`, uid.Reveal())
			}
			require.LessOrEqual(t, len(frames.buf), max(64*5, 16), "memory")
		}
	})
}
