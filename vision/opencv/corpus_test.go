//go:build cgo && opencv

package opencv

import (
	"bytes"
	"encoding/binary"
	"flag"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gocv.io/x/gocv"

	"rollcall/vision"
)

// face is a picture of one man, decoded by Go.
func face(t testing.TB) image.Image {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(peopleDir, "gocv-face.jpg"))
	require.NoError(t, err, "run make models")
	m, err := jpeg.Decode(bytes.NewReader(b))
	require.NoError(t, err)
	return m
}

func asJPEG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, jpeg.Encode(&b, m, nil))
	return b.Bytes()
}

// turned is the picture a quarter to the left, with an EXIF entry that says so.
func turned(t testing.TB, m image.Image) []byte {
	t.Helper()
	r := m.Bounds()
	out := image.NewRGBA(image.Rect(0, 0, r.Dy(), r.Dx()))
	for y := range r.Dy() {
		for x := range r.Dx() {
			out.Set(y, r.Dx()-1-x, m.At(r.Min.X+x, r.Min.Y+y))
		}
	}
	plain := asJPEG(t, out)
	exif := append([]byte("Exif\x00\x00"), "II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"...)
	b := append([]byte{0xff, 0xd8, 0xff, 0xe1}, binary.BigEndian.AppendUint16(nil, uint16(len(exif)+2))...)
	return append(append(b, exif...), plain[2:]...)
}

func progressive(t testing.TB) []byte {
	t.Helper()
	p := open(t, "gocv-face.jpg")
	buf, err := gocv.IMEncodeWithParams(gocv.JPEGFileExt, p.mat, []int{gocv.IMWriteJpegProgressive, 1})
	require.NoError(t, err)
	defer buf.Close()
	return bytes.Clone(buf.GetBytes())
}

func sixteenBits(t testing.TB, m image.Image) []byte {
	t.Helper()
	deep := image.NewRGBA64(m.Bounds())
	draw.Draw(deep, deep.Bounds(), m, m.Bounds().Min, draw.Src)
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, deep))
	return b.Bytes()
}

func blank(w, h int) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(m, m.Bounds(), image.NewUniform(color.RGBA{90, 120, 150, 255}), image.Point{}, draw.Src)
	return m
}

// TestF36PicturesOfEveryKind decodes and checks what cameras, phones and
// scanners give, and refuses the rest in words.
func TestF36PicturesOfEveryKind(t *testing.T) {
	nets := loadNets(t, 1)
	whole := asJPEG(t, face(t))
	cmyk, err := os.ReadFile("testdata/cmyk.jpg")
	require.NoError(t, err)
	flipped := bytes.Clone(whole)
	for i := 1000; i < len(flipped); i += 500 {
		flipped[i] ^= 0x55
	}
	for name, c := range map[string]struct {
		bytes         []byte
		faces         int // -1: whatever
		width, height int
		refused       error
	}{
		"baseline":            {whole, 1, 640, 480, nil},
		"progressive":         {progressive(t), 1, 640, 480, nil},
		"turned by its EXIF":  {turned(t, face(t)), 1, 640, 480, nil},
		"16 bits":             {sixteenBits(t, face(t)), 1, 640, 480, nil},
		"CMYK":                {cmyk, 0, 64, 48, nil},
		"one pixel":           {asJPEG(t, blank(1, 1)), 0, 1, 1, nil},
		"one pixel high":      {asJPEG(t, blank(3000, 1)), 0, 3000, 1, nil},
		"as large as allowed": {asJPEG(t, blank(2000, 2000)), 0, 2000, 2000, nil},
		"its end missing":     {whole[:len(whole)*2/3], -1, 640, 480, nil},
		"broken inside":       {flipped, -1, 640, 480, nil},
		"too large":           {asJPEG(t, blank(2001, 2000)), 0, 0, 0, ErrTooLarge},
		"only a header":       {whole[:300], 0, 0, 0, ErrNoPicture},
		"zero bytes":          {nil, 0, 0, 0, ErrNoPicture},
		"zeroes":              {make([]byte, 1000), 0, 0, 0, ErrNoPicture},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := DecodePicture(c.bytes, 4e6)
			if c.refused != nil {
				require.ErrorIs(t, err, c.refused)
				return
			}
			require.NoError(t, err)
			defer p.Close()
			w, h := p.Size()
			assert.Equal(t, [2]int{c.width, c.height}, [2]int{w, h})
			faces, _, err := nets.LookAll(p, vision.Work{Mirror: true})
			require.NoError(t, err)
			if c.faces >= 0 {
				assert.Len(t, faces, c.faces)
			}
		})
	}
}

// FuzzDecodePicture holds that no bytes end the process.
func FuzzDecodePicture(f *testing.F) {
	f.Add(asJPEG(f, blank(16, 16)))
	f.Add(sixteenBits(f, blank(4, 4)))
	f.Add([]byte("P6 2 2 255 abcdefghijkl"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePicture(b, 1e5)
		if err != nil {
			return
		}
		defer p.Close()
		w, h := p.Size()
		assert.LessOrEqual(t, w*h, 100_000)
	})
}

var soak = flag.Bool("soak", false, "run tests of endurance, which take minutes")

// TestSoakNothingGrows checks pictures again and again: what is made in C for
// a frame, every matrix above all, is gone after it. -soak makes it 20,000.
func TestSoakNothingGrows(t *testing.T) {
	nets := loadNets(t, 1)
	b, err := os.ReadFile(filepath.Join(peopleDir, "gocv-face.jpg"))
	require.NoError(t, err)
	checks := func(n int) {
		for i := range n {
			p, err := DecodePicture(b, 4e6)
			require.NoError(t, err)
			_, _, err = nets.Look(p, vision.Work{Mirror: true})
			require.NoError(t, err)
			_, err = p.Preview(320)
			require.NoError(t, err)
			p.Close()
			if i%10 == 0 { // OpenCV prints a line about each
				_, err = DecodePicture([]byte("P6 200 200 255 "), 4e6)
				require.Error(t, err)
			}
		}
	}
	n := 20
	if *soak {
		n = 20_000
	}
	checks(5)
	before := heapBytes()
	checks(n)
	grown := heapBytes() - before
	t.Logf("%d checks: the C heap grew by %d bytes", n, grown)
	assert.Less(t, grown, 100_000)

	leaked := gocv.NewMatWithSize(480, 640, gocv.MatTypeCV8UC3)
	assert.Greater(t, heapBytes()-before, 900_000, "a frame that is left open is counted")
	require.NoError(t, leaked.Close())
}
