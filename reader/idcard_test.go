package reader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
)

// moduleFrame makes a frame with a true check byte.
func moduleFrame(content ...byte) []byte {
	f := binary.BigEndian.AppendUint16(nil, uint16(len(content)+1))
	f = append(f, content...)
	return append(append(bytes.Clone(idCardPreamble), f...), lrc(f))
}

// utf16Field overwrites a field of a text block.
func utf16Field(text []byte, at int, s string) {
	for i, unit := range utf16.Encode([]rune(s)) {
		binary.LittleEndian.PutUint16(text[at+2*i:], unit)
	}
}

// citizen is the text block of a citizen's card. The number is a sample printed
// in GB 11643-1999.
func citizen() []byte {
	text := bytes.Repeat([]byte{' ', 0}, 128)
	utf16Field(text, 0, "王小明")
	utf16Field(text, 122, "11010519491231002X")
	utf16Field(text, 204, "20400101")
	return text
}

func TestIDCardCommandsAreThePublishedFrames(t *testing.T) {
	for _, c := range []struct {
		command IDCardCommand
		want    string
	}{
		{IDCardStatus, "AAAAAA9669000311FFED"},
		{IDCardNumber, "AAAAAA9669000312FFEE"},
		{IDCardFind, "AAAAAA96690003200122"},
		{IDCardSelect, "AAAAAA96690003200221"},
		{IDCardRead, "AAAAAA96690003300132"},
		{IDCardReset, "AAAAAA9669000310FFEC"},
		{IDCardAddress, "AAAAAA96690003300330"},
		{IDCardReadAll, "AAAAAA96690003301023"},
		{IDCardRadioPacket, "AAAAAA9669000461FF50CA"},
	} {
		assert.Equal(t, c.want, fmt.Sprintf("%X", c.command.Frame()))
	}
}

// allFrames takes every frame and every error out of the pieces.
func allFrames(pieces ...[]byte) (answers []string, bad int) {
	var f IDCardFrames
	for _, p := range pieces {
		_, _ = f.Write(p)
		for {
			a, err := f.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				bad++
				continue
			}
			answers = append(answers, fmt.Sprintf("%X:%X", a.SW, a.Data))
		}
	}
	return answers, bad
}

func TestIDCardFramesComeOutHoweverTheyComeIn(t *testing.T) {
	found := moduleFrame(0, 0, 0x9F, 1, 2, 3, 4)
	none := moduleFrame(0, 0, 0x80)
	const wantFound, wantNone = "00009F:01020304", "000080:"
	for n := range found {
		answers, bad := allFrames(found[:n], found[n:], none)
		require.Equal(t, []string{wantFound, wantNone}, answers, "split at %d", n)
		require.Zero(t, bad)
	}
	for _, c := range []struct {
		name string
		in   []byte
		want []string
		bad  int
	}{
		{"two in one read", append(bytes.Clone(found), none...), []string{wantFound, wantNone}, 0},
		{"noise between", bytes.Join([][]byte{{1, 0xAA, 0xAA}, found, {0xAA, 0x96}, none, {0xAA}}, nil), []string{wantFound, wantNone}, 0},
		{"one AA too many", append([]byte{0xAA}, found...), []string{wantFound}, 0},
		{"one AA too few", append(bytes.Clone(found[1:]), none...), []string{wantNone}, 0},
		{"length 0000", append([]byte{0xAA, 0xAA, 0xAA, 0x96, 0x69, 0, 0}, none...), []string{wantNone}, 1},
		{"length 0001", append([]byte{0xAA, 0xAA, 0xAA, 0x96, 0x69, 0, 1, 1}, none...), []string{wantNone}, 1},
		{"length FFFF", append([]byte{0xAA, 0xAA, 0xAA, 0x96, 0x69, 0xFF, 0xFF}, none...), []string{wantNone}, 1},
		{"a frame inside a damaged one", append(append([]byte{0xAA, 0xAA, 0xAA, 0x96, 0x69, 0, 20}, none...), make([]byte, 20)...), []string{wantNone}, 1},
		{"nothing", nil, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			answers, bad := allFrames(c.in)
			assert.Equal(t, c.want, answers)
			assert.Equal(t, c.bad, bad)
			one := make([][]byte, len(c.in))
			for i, b := range c.in {
				one[i] = []byte{b}
			}
			answers, _ = allFrames(one...)
			assert.Equal(t, c.want, answers, "byte by byte")
		})
	}
}

func TestIDCardFrameWithAnyBitFlippedIsNoFrame(t *testing.T) {
	frame := moduleFrame(0, 0, 0x9F, 1, 2, 3, 4)
	for bit := range 8 * len(frame) {
		f := bytes.Clone(frame)
		f[bit/8] ^= 0x80 >> (bit % 8)
		answers, _ := allFrames(f)
		require.Empty(t, answers, "bit %d", bit)
	}
}

func TestIDCardAnswerFitsItsOwnCommandOnly(t *testing.T) {
	answer := func(sw3 byte, n int) IDCardAnswer { return IDCardAnswer{SW: [3]byte{0, 0, sw3}, Data: make([]byte, n)} }
	for _, c := range []struct {
		name    string
		command IDCardCommand
		answer  IDCardAnswer
		fits    bool
	}{
		{"found", IDCardFind, answer(0x9F, 4), true},
		{"none", IDCardFind, answer(0x80, 0), true},
		{"selected, late", IDCardFind, answer(0x90, 8), false},
		{"found, late", IDCardSelect, answer(0x9F, 4), false},
		{"none, late", IDCardSelect, answer(0x80, 0), false},
		{"status, late", IDCardSelect, answer(0x90, 0), false},
		{"selected", IDCardSelect, answer(0x90, 8), true},
		{"selected, late, for a reading", IDCardRead, answer(0x90, 8), false},
		{"read", IDCardRead, answer(0x90, 1284), true},
		{"any trouble", IDCardRead, answer(0x33, 0), true},
		{"trouble with data", IDCardRead, answer(0x33, 3), false},
	} {
		assert.Equal(t, c.fits, c.answer.Fits(c.command), c.name)
	}
}

func TestEveryModuleStatusHasItsError(t *testing.T) {
	for sw, want := range map[byte]error{
		0x90: nil, 0x9F: nil,
		0x10: ErrBadFormat, 0x11: ErrBadFormat, 0x21: ErrBadFormat, 0x24: ErrBadFormat, 0x33: ErrBadFormat, 0x41: ErrBadFormat, 0x91: ErrBadFormat,
		0x31: ErrUnsupportedCard, 0x32: ErrUnsupportedCard, 0x40: ErrUnsupportedCard,
		0x47: ErrReaderFault, 0x60: ErrReaderFault, 0x66: ErrReaderFault,
		0x80: ErrCardRemoved, 0x81: ErrCardRemoved,
		0x77: ErrBadFormat, 0x00: ErrBadFormat,
	} {
		assert.ErrorIs(t, IDCardAnswer{SW: [3]byte{0, 0, sw}}.Err(), want, "%02X", sw)
	}
}

func TestBlocksMustFillTheAnswer(t *testing.T) {
	whole := slicesOf(2, 3, nil)
	for name, c := range map[string]struct {
		data []byte
		ok   bool
	}{
		"text and photo":   {whole, true},
		"with fingerprint": {append(append([]byte{0, 2, 0, 3, 0, 1}, 1, 2, 3, 4, 5), 6), true},
		"no photo":         {slicesOf(2, 0, nil), true},
		"a byte too many":  {append(bytes.Clone(whole), 0), false},
		"a byte too few":   {whole[:len(whole)-1], false},
		"lengths beyond":   {slicesOf(0xFFFF, 0xFFFF, []byte{1}), false},
		"no lengths":       {[]byte{0, 2, 0}, false},
		"empty":            {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			text, photo, err := IDCardAnswer{Data: c.data}.Blocks()
			if !c.ok {
				assert.ErrorIs(t, err, ErrBadFormat)
				return
			}
			require.NoError(t, err)
			assert.Len(t, text, 2)
			assert.LessOrEqual(t, len(photo), 3)
		})
	}
}

func slicesOf(text, photo int, content []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(text))
	b = binary.BigEndian.AppendUint16(b, uint16(photo))
	if content == nil {
		content = make([]byte, text+photo)
	}
	return append(b, content...)
}

func TestParseIDCard(t *testing.T) {
	photo := []byte("WLT\x00\xff")
	for _, c := range []struct {
		name   string
		change func(text []byte)
		want   error
		until  string
	}{
		{"as it should be", func([]byte) {}, nil, "2040-01-01"},
		{"valid for ever", func(b []byte) { utf16Field(b, 204, "长期    ") }, nil, ""},
		{"no such day", func(b []byte) { utf16Field(b, 204, "20230229") }, nil, ""},
		{"lower x", func(b []byte) { utf16Field(b, 122, "11010519491231002x") }, nil, "2040-01-01"},
		{"wrong check digit", func(b []byte) { utf16Field(b, 122, "110105194912310021") }, ErrBadNumber, ""},
		{"full-width digits", func(b []byte) { utf16Field(b, 122, "１１０１０５１９４９１２３１００２X") }, ErrBadNumber, ""},
		{"no number", func(b []byte) { utf16Field(b, 122, strings.Repeat(" ", 18)) }, ErrBadNumber, ""},
		{"no name", func(b []byte) { utf16Field(b, 0, "   ") }, ErrBadFormat, ""},
		{"half a surrogate pair in the name", func(b []byte) { binary.LittleEndian.PutUint16(b[2:], 0xD800) }, ErrBadFormat, ""},
		{"right-to-left mark in the name", func(b []byte) { utf16Field(b, 2, "\u200f") }, ErrBadFormat, ""},
		{"rare character in the name", func(b []byte) { utf16Field(b, 0, "王𠮷明") }, nil, "2040-01-01"},
		{"another kind of card", func(b []byte) { utf16Field(b, 248, "Q") }, ErrUnsupportedCard, ""},
		{"resident of Hong Kong, Macao or Taiwan", func(b []byte) { utf16Field(b, 248, "J") }, nil, "2040-01-01"},
		{"all FF", func(b []byte) { copy(b, bytes.Repeat([]byte{0xFF}, len(b))) }, ErrUnsupportedCard, ""},
		{"all 00", func(b []byte) { clear(b) }, ErrBadNumber, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := citizen()
			c.change(text)
			cred, err := ParseIDCard(text, photo)
			require.ErrorIs(t, err, c.want)
			if c.want != nil {
				assert.Equal(t, attendance.Credential{}, cred)
				return
			}
			assert.Equal(t, attendance.KindID, cred.Kind)
			assert.Equal(t, attendance.LevelFile, cred.Level)
			assert.Equal(t, "11010519491231002X", cred.PersonNo.Reveal())
			assert.Equal(t, c.until, cred.ValidTo)
			assert.Equal(t, string(photo), cred.Photo.Reveal(), "passed through untouched")
		})
	}
	for _, n := range []int{0, 1, 255} {
		_, err := ParseIDCard(citizen()[:n], photo)
		assert.ErrorIs(t, err, ErrBadFormat, "text of %d bytes", n)
	}
}

func FuzzIDCardFrames(f *testing.F) {
	f.Add(moduleFrame(0, 0, 0x9F, 1, 2, 3, 4), 3)
	f.Add(append(moduleFrame(0, 0, 0x80), moduleFrame(append([]byte{0, 0, 0x90}, slicesOf(256, 3, append(citizen(), 1, 2, 3))...)...)...), 7)
	f.Add(bytes.Repeat([]byte{0xAA}, 64), 1)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		cut = min(max(cut, 0), len(in))
		var frames IDCardFrames
		for _, p := range [][]byte{in[:cut], in[cut:]} {
			_, _ = frames.Write(p)
			for steps := 0; ; steps++ {
				require.LessOrEqual(t, steps, len(in), "no end")
				a, err := frames.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					require.ErrorIs(t, err, ErrBadFormat)
					continue
				}
				_ = a.Fits(IDCardRead)
				if text, photo, err := a.Blocks(); err == nil {
					_, _ = ParseIDCard(text, photo)
				}
			}
			require.LessOrEqual(t, len(frames.buf), maxIDCardLength+len(idCardPreamble)+2, "memory")
		}
	})
}

func FuzzParseIDCard(f *testing.F) {
	f.Add(citizen())
	for _, mark := range []string{"J", "I", "Y"} {
		text := citizen()
		utf16Field(text, 248, mark)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cred, err := ParseIDCard(text, nil)
		if err != nil {
			require.True(t, errors.Is(err, ErrBadFormat) || errors.Is(err, ErrBadNumber) || errors.Is(err, ErrUnsupportedCard))
			return
		}
		assert.False(t, cred.PersonNo.IsZero())
		assert.False(t, cred.Name.IsZero())
	})
}

// What devices on serial lines send appears in no error and in no print.
func TestSerialParsersKeepDataOutOfErrors(t *testing.T) {
	const canary = "CANARY7391"
	var out strings.Builder
	text := citizen()
	utf16Field(text, 122, canary)
	utf16Field(text, 0, canary)
	_, err := ParseIDCard(text, []byte(canary))
	fmt.Fprintf(&out, "%v %+v\n", err, err)
	answer := IDCardAnswer{SW: [3]byte{0, 0, 0x90}, Data: []byte(canary)}
	fmt.Fprintf(&out, "%v %+v %#v %s %x %d\n", answer, answer, answer, answer, answer, answer)
	_, _, err = answer.Blocks()
	fmt.Fprintln(&out, err)
	_, err = ParseCode([]byte(canary + "\x80"))
	fmt.Fprintln(&out, err)
	_, err = ParseCode([]byte(canary))
	fmt.Fprintln(&out, err)
	for _, form := range UIDForms {
		frames := UIDFrames{Form: form}
		_, _ = frames.Write([]byte("\x02" + canary + "00\x03"))
		frames.Silence()
		for range 8 {
			uid, err := frames.Next()
			fmt.Fprintln(&out, uid, err)
		}
	}
	assert.NotContains(t, out.String(), canary)
	assert.NotContains(t, strings.ToLower(out.String()), fmt.Sprintf("%x", canary))
}
