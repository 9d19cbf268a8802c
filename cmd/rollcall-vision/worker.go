package main

import (
	"errors"
	"io"
	"sync"
	"time"

	"rollcall/vision"
	"rollcall/vision/opencv"
)

// mostWaiting is how many commands may wait for the camera. The daemon sends
// the next but rarely before the answer to the last.
const mostWaiting = 16

// worker is three loops: serve reads commands, capture owns the camera,
// analyse owns the nets.
type worker struct {
	config   Config
	nets     *opencv.Nets
	commands chan vision.Command // from serve to capture
	newest   *slot               // from capture to analyse

	mu  sync.Mutex // guards out
	out io.Writer
}

// serve loads the nets, says hello and obeys until the commands end. It does
// not wait for its loops: a camera may hold capture for ever, and the end of
// the process frees all.
func serve(config Config, commands io.Reader, answers io.Writer) error {
	manifest := vision.DefaultManifest()
	nets, err := opencv.LoadNets(manifest, config.Models, config.Threads)
	if err != nil {
		return err
	}
	w := &worker{
		config: config, nets: nets, out: answers,
		commands: make(chan vision.Command, mostWaiting), newest: newSlot(),
	}
	w.answer(vision.Answer{Kind: vision.KindHello, Version: vision.ProtocolVersion, Models: manifest.Sums()})
	failed := make(chan error, 2)
	go func() { failed <- w.capture() }()
	go func() { failed <- w.analyse() }()
	go func() { failed <- w.obey(commands) }()
	return <-failed
}

// obey hands commands to capture. Their end means that the daemon is gone.
func (w *worker) obey(commands io.Reader) error {
	for {
		c, err := vision.ReadCommand(commands)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case w.commands <- c:
		default:
			return errors.New("camera takes no commands any more: it is stuck")
		}
	}
}

// answer sends an answer. If that fails the daemon is gone, and the end of the
// commands says so too.
func (w *worker) answer(a vision.Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = vision.WriteAnswer(w.out, a)
}

// capture opens, reads and closes the camera as told. While it only keeps the
// camera open it throws frames away unread.
func (w *worker) capture() error {
	var camera *opencv.Camera // nil is off
	var now vision.Command
	spare := opencv.NewPicture()
	off := func(a vision.Answer) {
		if camera != nil {
			camera.Close()
			camera = nil
		}
		a.ID = now.ID
		w.answer(a)
	}
	for {
		told := w.next(&now, camera == nil)
		if told && now.Do == vision.DoClose {
			off(vision.Answer{Kind: vision.KindClosed})
			continue
		}
		if camera == nil {
			var err error
			if camera, err = opencv.OpenCamera(w.config.Camera, w.config.Width, w.config.Height); err != nil {
				off(vision.Answer{Kind: vision.KindTrouble, Code: vision.CodeCamera, Text: err.Error()})
				continue
			}
		}
		if told && now.Do == vision.DoOpen {
			w.answer(vision.Answer{Kind: vision.KindOpened, ID: now.ID})
		}
		var ok bool
		if spare, ok = w.frame(camera, now, spare); !ok {
			off(vision.Answer{Kind: vision.KindTrouble, Code: vision.CodeEnded, Text: "camera stream broke off: check its cable, power and network"})
		}
	}
}

// next takes the next command, waiting for it only if told to.
func (w *worker) next(now *vision.Command, wait bool) bool {
	if wait {
		*now = <-w.commands
		return true
	}
	select {
	case *now = <-w.commands:
		return true
	default:
		return false
	}
}

// frame takes one frame and gives a picture to take the next one into.
func (w *worker) frame(camera *opencv.Camera, now vision.Command, spare *opencv.Picture) (*opencv.Picture, bool) {
	if now.Do == vision.DoOpen {
		return spare, camera.Discard(spare)
	}
	if !camera.Read(spare) {
		return spare, false
	}
	return w.newest.put(shot{spare, now.ID, time.Now()}), true
}

// previewPeriod keeps the panel's picture at ten a second.
const previewPeriod = 100 * time.Millisecond

// analyse checks the newest frame, again and again. The preview comes after
// the answer, so that it delays nobody.
func (w *worker) analyse() error {
	picture := opencv.NewPicture()
	var due time.Time
	for {
		s := w.newest.take(picture)
		picture = s.picture
		faces, err := w.nets.Look(picture)
		if err != nil {
			return err
		}
		age := float64(time.Since(s.taken)) / float64(time.Millisecond)
		w.answer(vision.Answer{Kind: vision.KindFrame, ID: s.id, AgeMS: age, Faces: faces})
		if s.taken.Before(due) {
			continue
		}
		if due = due.Add(previewPeriod); due.Before(s.taken) {
			due = s.taken
		}
		jpeg, err := picture.Preview(w.config.PreviewWidth)
		if err != nil {
			return err
		}
		w.answer(vision.Answer{Kind: vision.KindPreview, ID: s.id, JPEG: jpeg})
	}
}

// shot is a frame, the look it was taken for, and when.
type shot struct {
	picture *opencv.Picture
	id      uint64
	taken   time.Time
}

// slot holds one shot, the newest. Who puts or takes leaves a picture in
// exchange, so three pictures are enough for ever.
type slot struct {
	full chan struct{} // one token while a shot waits

	mu   sync.Mutex // guards shot
	shot shot
}

func newSlot() *slot {
	return &slot{full: make(chan struct{}, 1), shot: shot{picture: opencv.NewPicture()}}
}

// put leaves s, replacing a shot that nobody took, and gives the picture of
// the shot before.
func (s *slot) put(next shot) *opencv.Picture {
	s.mu.Lock()
	defer s.mu.Unlock()
	former := s.shot.picture
	s.shot = next
	select {
	case s.full <- struct{}{}:
	default:
	}
	return former
}

// take waits for a shot and leaves spare in its place.
func (s *slot) take(spare *opencv.Picture) shot {
	<-s.full
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.full: // of a shot put since: it is taken now
	default:
	}
	taken := s.shot
	s.shot = shot{picture: spare}
	return taken
}
