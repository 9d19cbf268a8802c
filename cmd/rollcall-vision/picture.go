package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"rollcall/vision"
	"rollcall/vision/opencv"
)

// largestFile bounds a picture's bytes.
const largestFile = 32 << 20

// errFile is wrapped by every error about a file that cannot be read.
var errFile = errors.New("picture cannot be read")

// picture analyses one file and answers, or says why not; a picture that the
// nets cannot work on is no reason to end the worker.
func (w *worker) picture(c vision.Command) {
	a, err := w.look(c)
	if err != nil {
		a = vision.Answer{Kind: vision.KindRefused, Code: refusal(err), Text: err.Error()}
	}
	a.ID = c.ID
	w.answer(a)
}

func (w *worker) look(c vision.Command) (vision.Answer, error) {
	began := time.Now()
	p, err := readPicture(c.Path, w.config.MaxPixels)
	if err != nil {
		return vision.Answer{}, err
	}
	defer p.Close()
	decoded := float64(time.Since(began)) / float64(time.Millisecond)
	faces, took, err := w.nets.LookAll(p, c.Work)
	if err != nil {
		return vision.Answer{}, err
	}
	took.Decode = decoded
	took.Total += decoded
	width, height := p.Size()
	return vision.Answer{Kind: vision.KindPicture, Faces: faces, Took: took, Width: width, Height: height}, nil
}

// refusal is the code of an error of readPicture.
func refusal(err error) vision.Code {
	switch {
	case errors.Is(err, errFile):
		return vision.CodeNoFile
	case errors.Is(err, opencv.ErrTooLarge):
		return vision.CodeTooLarge
	}
	return vision.CodeNoPicture
}

// readPicture reads a regular file. Its errors do not repeat the path, which
// may name a person.
func readPicture(path string, mostPixels int) (*opencv.Picture, error) {
	// Without O_NONBLOCK a pipe under that name would hold the worker for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFile, pathless(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFile, pathless(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is no ordinary file", errFile)
	}
	if info.Size() > largestFile {
		return nil, fmt.Errorf("%w: the file has more than %d bytes: make it smaller", opencv.ErrTooLarge, largestFile)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%w: %w", errFile, pathless(err))
	}
	return opencv.DecodePicture(b, mostPixels)
}

func pathless(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}
