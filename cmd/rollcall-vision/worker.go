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

// worker is three loops: obey reads commands, capture owns the camera,
// analyse owns the nets.
type worker struct {
	config   Config
	nets     *opencv.Nets
	commands chan vision.Command // from obey to capture
	pictures chan vision.Command // from obey to analyse; while it is full, obey waits
	newest   *slot               // from capture to analyse

	mu  sync.Mutex // guards out
	out io.Writer
}

// serve loads the nets, says hello and obeys until the commands end. It does
// not wait for its loops: a camera may hold capture for ever, and the end of
// the process frees all.
func serve(config Config, commands io.Reader, answers io.Writer) error {
	set, nets, err := loadSet(config)
	if err != nil {
		return err
	}
	w := &worker{
		config: config, nets: nets, out: answers,
		commands: make(chan vision.Command, mostWaiting),
		pictures: make(chan vision.Command, mostWaiting),
		newest:   newSlot(),
	}
	w.answer(vision.Answer{Kind: vision.KindHello, Version: vision.ProtocolVersion, Models: set.Sums()})
	failed := make(chan error, 2)
	go w.capture()
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
		if c.Do == vision.DoPicture {
			w.pictures <- c
			continue
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
// camera open, frames pass undecoded; the one that was awaited when a look was
// asked for is the look's first.
func (w *worker) capture() {
	cam := &handle{worker: w, repeats: newRepeats(time.Duration(w.config.SuspectSeconds) * time.Second)}
	spare := opencv.NewPicture()
	for {
		if cam.camera == nil {
			cam.do(<-w.commands)
			continue
		}
		looking := cam.now.Do == vision.DoLook
		ok := cam.await(looking, spare)
		select {
		case c := <-w.commands:
			cam.do(c)
		default:
		}
		if cam.camera == nil {
			continue
		}
		wanted := cam.now.Do == vision.DoLook
		if ok && wanted && !looking {
			ok = cam.camera.Keep(spare)
		}
		switch {
		case !ok:
			cam.off(vision.Answer{Kind: vision.KindTrouble, Code: vision.CodeEnded, Text: "camera stream broke off: check its cable, power and network"})
		case wanted && tooLarge(spare, w.config.MaxPixels):
			cam.off(vision.Answer{Kind: vision.KindTrouble, Code: vision.CodeTooLarge, Text: "camera's frames have too many pixels: choose a smaller size in its settings"})
		case wanted:
			spare = w.newest.put(cam.judged(shot{picture: spare, order: cam.now, taken: time.Now()}))
		}
	}
}

func tooLarge(p *opencv.Picture, most int) bool {
	width, height := p.Size()
	return width*height > most
}

// handle is the camera and what is to be done with it; it belongs to capture.
type handle struct {
	worker  *worker
	camera  *opencv.Camera // nil is off
	now     vision.Command
	repeats *repeats
}

// judged adds to a shot what is wrong with the camera's picture. Every frame
// that is looked at passes here, also those that analyse leaves out.
func (h *handle) judged(s shot) shot {
	switch {
	case s.picture.Black():
		s.code, s.text = vision.CodeBlack, "camera's picture is black: take the cover off its lens, or switch the light on"
	case h.repeats.see(s.picture.Fingerprint(), s.taken):
		s.code, s.text = vision.CodeSuspect, h.repeats.text()
	}
	return s
}

// await waits for the next frame, and takes it into p if it is looked at.
func (h *handle) await(looking bool, p *opencv.Picture) bool {
	if looking {
		return h.camera.Read(p)
	}
	return h.camera.Skip()
}

// do obeys one command.
func (h *handle) do(c vision.Command) {
	h.now = c
	if c.Do == vision.DoClose {
		h.off(vision.Answer{Kind: vision.KindClosed})
		return
	}
	if h.camera == nil {
		camera, err := openCamera(h.worker.config)
		if err != nil {
			h.off(vision.Answer{Kind: vision.KindTrouble, Code: troubleOf(err), Text: err.Error()})
			return
		}
		h.camera = camera
	}
	if c.Do == vision.DoOpen {
		h.worker.answer(vision.Answer{Kind: vision.KindOpened, ID: c.ID})
	}
}

// off closes the camera and says so.
func (h *handle) off(a vision.Answer) {
	if h.camera != nil {
		h.camera.Close()
		h.camera = nil
	}
	a.ID = h.now.ID
	h.worker.answer(a)
}

// previewPeriod keeps the panel's picture at ten a second.
const previewPeriod = 100 * time.Millisecond

// analyse checks the newest frame, again and again, and pictures as they are asked for.
func (w *worker) analyse() error {
	frame := opencv.NewPicture()
	var due time.Time // of the next preview
	for {
		select {
		case c := <-w.pictures:
			w.picture(c)
		case <-w.newest.full:
			s := w.newest.take(frame)
			frame = s.picture
			if err := w.frame(s, &due); err != nil {
				return err
			}
		}
	}
}

// frame answers one frame. The preview comes after the answer, so that it
// delays nobody.
func (w *worker) frame(s shot, due *time.Time) error {
	work := s.order.Work
	if s.code != "" { // whoever is on such a frame, nobody is known by it
		work = vision.Work{NoEmbedding: true, NoLiveness: true, NoMeasures: true}
	}
	faces, took, err := w.nets.Look(s.picture, work)
	if err != nil {
		return err
	}
	age := float64(time.Since(s.taken)) / float64(time.Millisecond)
	width, height := s.picture.Size()
	w.answer(vision.Answer{
		Kind: vision.KindFrame, ID: s.order.ID, AgeMS: age, Faces: faces, Took: took,
		Width: width, Height: height, Code: s.code, Text: s.text,
	})
	if s.taken.Before(*due) {
		return nil
	}
	if *due = due.Add(previewPeriod); due.Before(s.taken) {
		*due = s.taken
	}
	jpeg, err := s.picture.Preview(w.config.PreviewWidth)
	if err != nil {
		return err
	}
	w.answer(vision.Answer{Kind: vision.KindPreview, ID: s.order.ID, JPEG: jpeg})
	return nil
}

// shot is a frame, the look it was taken for, and when.
type shot struct {
	picture *opencv.Picture
	order   vision.Command
	taken   time.Time
	code    vision.Code // what is wrong with the picture; empty if nothing
	text    string
}

// slot holds one shot, the newest. Who puts or takes leaves a picture in
// exchange, so three pictures are enough for ever.
type slot struct {
	full chan struct{} // one token while a shot waits; who has it may take

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

// take gives the shot whose token the caller took from full, or a newer one,
// and leaves spare in its place.
func (s *slot) take(spare *opencv.Picture) shot {
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
