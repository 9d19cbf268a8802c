package simulator

import (
	"bytes"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"sync"
	"time"
)

// Camera is a network camera: an http.Handler that serves MJPEG
// (multipart/x-mixed-replace) of whoever stands before it, 15 frames a second,
// until the client leaves. Like a real one it has noise: no two frames are the
// same to the bit, unless it is frozen or plays a recording. It may be used
// from several goroutines at once.
type Camera struct {
	// Ticks gives the frames' rhythm to one client, and what ends it. Set it
	// before the first request; nil means a time.Ticker of 1/15 s.
	Ticks func() (frames <-chan time.Time, stop func())

	mu      sync.Mutex // guards what follows
	frame   []byte     // JPEG, as jpeg.Encode writes it
	shown   uint64     // frames so far
	loop    uint64     // length of the recording in frames; 0: live
	fault   cameraFault
	changed chan struct{} // closed when fault changes
}

type cameraFault int

const (
	cameraWorks cameraFault = iota
	cameraStalls
	cameraRefuses
)

// NewCamera gives a camera in an empty room.
func NewCamera() *Camera {
	c := &Camera{changed: make(chan struct{})}
	c.Empty()
	return c
}

// Show puts a person before the camera.
func (c *Camera) Show(p Person, v Variation) { c.see(p.Frame(v)) }

// ShowPicture puts anything before the camera: 640x480.
func (c *Camera) ShowPicture(m image.Image) { c.see(m) }

// Empty lets everybody leave.
func (c *Camera) Empty() { c.see((*Person)(nil).Frame(Variation{})) }

func (c *Camera) see(m image.Image) {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, grained(m), &jpeg.Options{Quality: 85}); err != nil {
		panic("simulator: encoding a frame: " + err.Error()) // only an impossible size
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frame = b.Bytes()
}

// Stall makes every stream, open or new, stop in the middle of a frame; the
// connections stay open.
func (c *Camera) Stall() { c.set(cameraStalls) }

// Refuse cuts every stream and answers 404.
func (c *Camera) Refuse() { c.set(cameraRefuses) }

// Freeze shows one frame again and again.
func (c *Camera) Freeze() { c.Loop(1) }

// Loop plays a recording of so many frames again and again.
func (c *Camera) Loop(frames int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loop = uint64(frames)
}

// Recover ends a fault; stalled streams are cut.
func (c *Camera) Recover() {
	c.Loop(0)
	c.set(cameraWorks)
}

func (c *Camera) set(f cameraFault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Camera) state() ([]byte, cameraFault, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown++
	number := c.shown
	if c.loop > 0 {
		number %= c.loop
	}
	return shimmer(c.frame, number), c.fault, c.changed
}

// grained gives a picture the grain of a sensor, the same to every picture.
// shimmer lets it move.
func grained(m image.Image) *image.RGBA {
	out := image.NewRGBA(m.Bounds())
	draw.Draw(out, out.Bounds(), m, m.Bounds().Min, draw.Src)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range out.Pix {
		if i%4 != 3 {
			out.Pix[i] = uint8(min(255, max(0, float64(out.Pix[i])+3*random.NormFloat64()+0.5)))
		}
	}
	return out
}

// What jpeg.Encode writes first: SOI (2 bytes), DQT (4), number of the table
// (1), and the steps of the 64 luma frequencies.
const (
	firstStep  = 2 + 4 + 1
	calmSteps  = 6 // the lowest frequencies carry the picture
	countSteps = 64
)

// shimmer makes frame number n of a JPEG: it moves the steps of its higher
// frequencies by one up or down, which moves pixels by a level or so and costs
// nothing; to encode each frame anew would take a good part of a core.
func shimmer(frame []byte, n uint64) []byte {
	out := bytes.Clone(frame)
	random := rand.New(rand.NewPCG(n, 3))
	for i := firstStep + calmSteps; i < firstStep+countSteps; i++ {
		out[i] = byte(max(1, int(out[i])+random.IntN(3)-1))
	}
	return out
}

func (c *Camera) ticks() (<-chan time.Time, func()) {
	if c.Ticks != nil {
		return c.Ticks()
	}
	t := time.NewTicker(time.Second / 15)
	return t.C, t.Stop
}

// ServeHTTP streams until the client leaves or a fault cuts the stream.
func (c *Camera) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	frame, fault, changed := c.state()
	if fault == cameraRefuses {
		http.NotFound(w, r)
		return
	}
	out := multipart.NewWriter(w)
	w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary="+out.Boundary())
	w.Header().Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	_ = control.Flush()
	ticks, stop := c.ticks()
	defer stop()
	for fault == cameraWorks {
		if err := writePart(out, frame, len(frame)); err != nil {
			return
		}
		_ = control.Flush()
		select {
		case <-ticks:
		case <-changed:
		case <-r.Context().Done():
			return
		}
		frame, fault, changed = c.state()
	}
	if fault == cameraRefuses {
		return
	}
	_ = writePart(out, frame, len(frame)/2)
	_ = control.Flush()
	select {
	case <-changed:
	case <-r.Context().Done():
	}
}

// writePart writes the first n bytes of a frame under the header of all of it.
func writePart(out *multipart.Writer, frame []byte, n int) error {
	part, err := out.CreatePart(textproto.MIMEHeader{
		"Content-Type":   {"image/jpeg"},
		"Content-Length": {fmt.Sprint(len(frame))},
	})
	if err != nil {
		return err
	}
	_, err = part.Write(frame[:n])
	return err
}
