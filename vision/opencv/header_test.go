package opencv

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/jpeg"
	"image/png"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// giantJPEG is the smallest JPEG that claims to have so many pixels.
func giantJPEG(width, height int) []byte {
	b := append([]byte{0xff, 0xd8, 0xff, 0xe0, 0, 16}, "JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"...)
	b = append(b, 0xff, 0xc0, 0, 11, 8)
	b = binary.BigEndian.AppendUint16(b, uint16(height))
	b = binary.BigEndian.AppendUint16(b, uint16(width))
	return append(b, 1, 1, 0x11, 0, 0xff, 0xd9)
}

func encoded(t testing.TB, width, height int) (asJPEG, asPNG []byte) {
	t.Helper()
	var j, p bytes.Buffer
	m := image.NewGray(image.Rect(0, 0, width, height))
	require.NoError(t, jpeg.Encode(&j, m, nil))
	require.NoError(t, png.Encode(&p, m))
	return j.Bytes(), p.Bytes()
}

func TestCheckHeader(t *testing.T) {
	asJPEG, asPNG := encoded(t, 20, 10)
	for name, c := range map[string]struct {
		bytes []byte
		most  int
		want  error
	}{
		"JPEG":                  {asJPEG, 200, nil},
		"JPEG one too large":    {asJPEG, 199, ErrTooLarge},
		"PNG":                   {asPNG, 200, nil},
		"PNG too large":         {asPNG, 199, ErrTooLarge},
		"PGM":                   {[]byte("P5\n# made by hand\n20 10\n255\n..."), 200, nil},
		"PPM":                   {[]byte("P6 20 10 255 "), 200, nil},
		"PPM too large":         {[]byte("P6 99999 99999 255 "), 4e6, ErrTooLarge},
		"65,535 x 65,535":       {giantJPEG(65535, 65535), 4e6, ErrTooLarge},
		"nothing":               {nil, 4e6, ErrNoPicture},
		"text":                  {[]byte("no picture at all"), 4e6, ErrNoPicture},
		"no width":              {giantJPEG(0, 10), 4e6, ErrNoPicture},
		"PGM without size":      {[]byte("P5\n#"), 4e6, ErrNoPicture},
		"PGM of half a size":    {[]byte("P5 20"), 4e6, ErrNoPicture},
		"PGM of a huge number":  {[]byte("P5 9999999999 1 255 "), 4e6, ErrNoPicture},
		"a format not let in":   {[]byte("BM" + string(make([]byte, 100))), 4e6, ErrNoPicture},
		"JPEG cut in its head":  {asJPEG[:10], 4e6, ErrNoPicture},
		"PNG with damaged head": {append(bytes.Clone(asPNG[:20]), make([]byte, 20)...), 4e6, ErrNoPicture},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkHeader(c.bytes, c.most)
			if c.want == nil {
				assert.NoError(t, err)
				return
			}
			assert.ErrorIs(t, err, c.want)
		})
	}
}

func FuzzCheckHeader(f *testing.F) {
	asJPEG, asPNG := encoded(f, 20, 10)
	for _, b := range [][]byte{asJPEG, asPNG, giantJPEG(65535, 65535), []byte("P5\n# x\n20 10\n255\n")} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkHeader(b, 4e6) == nil {
			width, height, err := headerSize(b)
			require.NoError(t, err)
			assert.LessOrEqual(t, width*height, 4_000_000)
		}
	})
}
