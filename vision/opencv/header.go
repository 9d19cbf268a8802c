package opencv

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // header of a JPEG
	_ "image/png"  // header of a PNG
)

var (
	// ErrNoPicture is wrapped by every error about bytes that are no picture.
	ErrNoPicture = errors.New("not a picture")
	// ErrTooLarge is wrapped by every error about a picture with too many pixels.
	ErrTooLarge = errors.New("picture too large")
)

// checkHeader reads a picture's size from its header and refuses more than
// mostPixels: a file of a kilobyte may claim to be 65,535 pixels wide and high,
// and OpenCV would make room for them. Of the formats that OpenCV reads, JPEG,
// PNG and the binary netpbm ones (PGM, PPM) are let through, no others.
func checkHeader(b []byte, mostPixels int) error {
	width, height, err := headerSize(b)
	if err != nil {
		return err
	}
	if width < 1 || height < 1 {
		return fmt.Errorf("%w: it is %d pixels wide and %d high", ErrNoPicture, width, height)
	}
	if width > mostPixels/height {
		return fmt.Errorf("%w: it has %d x %d pixels, more than %d in all: make it smaller", ErrTooLarge, width, height, mostPixels)
	}
	return nil
}

func headerSize(b []byte) (width, height int, err error) {
	if len(b) == 0 {
		return 0, 0, fmt.Errorf("%w: it is empty", ErrNoPicture)
	}
	if len(b) > 2 && b[0] == 'P' && (b[1] == '5' || b[1] == '6') {
		return netpbmSize(b[2:])
	}
	header, _, err := image.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return 0, 0, fmt.Errorf("%w: it is no JPEG, PNG, PGM or PPM, or its header is damaged", ErrNoPicture)
	}
	return header.Width, header.Height, nil
}

// longestComments bounds how far the size in a netpbm header is looked for.
const longestComments = 4096

// netpbmSize reads width and height after the magic number: decimal, parted
// by white space and by comments that run from # to the end of the line.
func netpbmSize(b []byte) (width, height int, err error) {
	damaged := fmt.Errorf("%w: its header is damaged", ErrNoPicture)
	b = b[:min(len(b), longestComments)]
	for _, into := range []*int{&width, &height} {
		for len(b) > 0 && (b[0] == '#' || b[0] == ' ' || b[0] == '\t' || b[0] == '\r' || b[0] == '\n') {
			if b[0] == '#' {
				_, b, _ = bytes.Cut(b, []byte("\n"))
				continue
			}
			b = b[1:]
		}
		digits := 0
		for ; digits < len(b) && b[digits] >= '0' && b[digits] <= '9'; digits++ {
			*into = 10**into + int(b[digits]-'0')
		}
		if digits == 0 || digits > 9 || digits == len(b) {
			return 0, 0, damaged
		}
		b = b[digits:]
	}
	return width, height, nil
}
