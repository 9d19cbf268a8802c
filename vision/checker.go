package vision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"rollcall/attendance"
	"rollcall/device"
)

// Config says how a [Checker] gets its worker and whom it tells what.
type Config struct {
	// Worker is the path of the worker program. It must be set.
	Worker string `toml:"worker"`
	// WorkerConfig is the path of the worker's configuration file. It must be set.
	WorkerConfig string `toml:"worker_config"`

	// Report, if not nil, is told of every change of the camera's or the
	// worker's state, with a sentence for the caretaker. It must not block.
	Report func(device.PartState, device.Sentence) `toml:"-"`
	// Preview, if not nil, is given the newest picture for the panel while
	// somebody is looked at, and none after Close. It must not block, nor call
	// the Checker.
	Preview func(jpeg []byte) `toml:"-"`
	// Now is the clock of a look's time. It must be set.
	Now func() time.Time `toml:"-"`
	// Log must be set.
	Log *slog.Logger `toml:"-"`
}

// Checker answers "is this that person?". It owns the worker process: Run
// starts it, watches it and brings it back. Open, Verify, Capture and Close may
// be called from several goroutines at once, before, during and after Run; one
// look is in hand at a time, and a new one ends the one before.
type Checker struct {
	config  Config
	gallery *Gallery
	changed chan struct{} // one token: order has changed

	mu     sync.Mutex // guards what follows
	order  Command    // what the worker is to do
	lastID uint64
	look   *look  // nil if nobody is looked at
	model  string // SHA-256 of the worker's embedder; empty while there is no worker
	told   device.Sentence
	state  device.PartState
	pid    int // of the worker; 0 while there is none
	starts int
}

// New checks the configuration. It starts nothing.
func New(config Config, gallery *Gallery) (*Checker, error) {
	switch {
	case config.Worker == "":
		return nil, errors.New(`vision: worker = "": must be the path of rollcall-vision`)
	case config.WorkerConfig == "":
		return nil, errors.New(`vision: worker_config = "": must be the path of the worker's configuration`)
	case config.Now == nil || config.Log == nil || gallery == nil:
		return nil, errors.New("vision: Now, Log and gallery must be set")
	}
	return &Checker{
		config: config, gallery: gallery, changed: make(chan struct{}, 1),
		order: Command{Do: DoClose},
	}, nil
}

// Open lets the camera open; frames are thrown away unread. It does not block.
func (c *Checker) Open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.order.Do == DoClose {
		c.command(DoOpen)
	}
}

// Close ends the look in hand and lets the camera close. It does not block.
func (c *Checker) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
	if c.order.Do != DoClose {
		c.command(DoClose)
	}
}

// Verify compares who stands before the camera with the trainee's template,
// frame by frame, until ctx ends; then it closes the channel. A look that
// nobody took gives way to the next. While there is no camera or no worker a
// look with AdviceCamera comes about once a second.
//
// The channel is closed early if this trainee's face cannot be checked here:
// the gallery has no template that the enrolment names, or the worker's
// embedder is another one.
func (c *Checker) Verify(ctx context.Context, trainee attendance.TraineeID, enrolment attendance.Enrolment) <-chan attendance.Look {
	looks := make(chan attendance.Look, 1)
	template, err := c.gallery.Load(trainee, enrolment)
	if err != nil {
		c.config.Log.Warn("template not usable", "enrol", enrolment.Seq, "err", err)
		close(looks)
		return looks
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin(ctx, &look{
		frame: func(faces []Face, model string) bool {
			if model != template.Model {
				c.config.Log.Warn("template of another embedder", "enrol", enrolment.Seq)
				return false
			}
			offer(looks, verdict(faces, template, c.config.Now()))
			return true
		},
		blind: func() { offer(looks, attendance.Look{At: c.config.Now(), Advice: attendance.AdviceCamera}) },
		done:  func() { close(looks) },
	})
	return looks
}

// verdict is what one frame says about the enrolled person.
func verdict(faces []Face, template Template, at time.Time) attendance.Look {
	person, advice := Usable(faces)
	if person < 0 {
		return attendance.Look{At: at, Advice: advice}
	}
	f := faces[person]
	return attendance.Look{At: at, Match: &attendance.Match{
		Score:    Cosine(template.Embedding, f.Embedding),
		Quality:  f.Score,
		Liveness: f.Liveness,
		Model:    template.Model,
	}}
}

// offer puts a look into a channel of one, in place of one that nobody took.
func offer(looks chan attendance.Look, l attendance.Look) {
	for {
		select {
		case looks <- l:
			return
		default:
		}
		select {
		case <-looks:
		default:
		}
	}
}

// look is what is done with the frames of one person. Its functions are called
// one at a time, with Checker.mu held, and not after done.
type look struct {
	frame func(faces []Face, model string) bool // false ends the look
	blind func()                                // a second without a frame
	done  func()
	seen  bool // a frame came since the last tick of blindness
	stop  func() bool
}

// begin replaces the look in hand. The caller holds mu.
func (c *Checker) begin(ctx context.Context, l *look) {
	c.end()
	l.seen = true // the camera has a second to open
	c.look = l
	l.stop = context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.look == l {
			c.end()
			c.command(DoOpen)
		}
	})
	c.command(DoLook)
}

// end finishes the look in hand. The caller holds mu.
func (c *Checker) end() {
	if c.look == nil {
		return
	}
	c.look.stop()
	c.look.done()
	c.look = nil
}

// command gives the worker a new order. The caller holds mu.
func (c *Checker) command(do Do) {
	c.lastID++
	c.order = Command{Do: do, ID: c.lastID}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// Capture is what an enrolment needs: the mean of good frames of one face.
type Capture struct {
	Template Template
	Quality  float64 // mean of the detector's scores, 0 to 1
	Frames   int
}

var (
	// ErrBusy means that somebody is checking in, who comes first.
	ErrBusy = errors.New("camera is needed for somebody who checks in: try again")
	// ErrNoFace means that ctx ended before enough good frames of one face.
	ErrNoFace = errors.New("no steady view of one face: stand alone before the camera, at arm's length, in good light")
)

// samePerson is the least likeness of a frame with the first one of a capture;
// frames of one face within seconds lie above 0.9.
const samePerson = 0.6

// Capture opens the camera, takes so many good frames of one face, closes the
// camera and gives their mean. If the face changes it starts over. A deadline
// is the caller's, in ctx.
func (c *Checker) Capture(ctx context.Context, frames int) (Capture, error) {
	if frames < 1 {
		return Capture{}, fmt.Errorf("capturing %d frames: must be 1 or more", frames)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var got Capture
	var first, sum Embedding
	ended := make(chan struct{})
	c.mu.Lock()
	if c.look != nil { // somebody is checking in: they come first
		c.mu.Unlock()
		return Capture{}, ErrBusy
	}
	c.begin(ctx, &look{
		frame: func(faces []Face, model string) bool {
			person, _ := Usable(faces)
			if person < 0 || faces[person].Embedding == nil {
				return true
			}
			f := faces[person]
			if first == nil || model != got.Template.Model || Cosine(first, f.Embedding) < samePerson {
				got, first, sum = Capture{Template: Template{Model: model}}, f.Embedding, make(Embedding, len(f.Embedding))
			}
			for i, x := range f.Embedding {
				sum[i] += x
			}
			got.Quality += f.Score
			got.Frames++
			return got.Frames < frames
		},
		blind: func() {},
		done:  func() { close(ended) },
	})
	c.mu.Unlock()
	<-ended
	c.release()
	switch {
	case got.Frames == frames:
	case ctx.Err() != nil:
		return Capture{}, fmt.Errorf("%w: %w", ErrNoFace, ctx.Err())
	default:
		return Capture{}, ErrBusy
	}
	got.Template.Embedding = sum.Unit()
	got.Quality /= float64(got.Frames)
	return got, nil
}

// release closes the camera unless it was taken for somebody else.
func (c *Checker) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.look == nil && c.order.Do != DoClose {
		c.command(DoClose)
	}
}

// Run keeps a worker running until ctx ends, and returns when it is gone. It
// does not end for a worker that cannot be started: that is reported, and the
// terminal goes on without faces.
func (c *Checker) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() { c.watchBlindness(ctx) })
	defer group.Wait()
	defer cancel()
	err := device.Reopen(ctx, device.ReopenConfig{
		First: 100 * time.Millisecond,
		Lost: func(err error, wait time.Duration) {
			c.config.Log.Warn("vision worker lost", "err", err, "wait", wait)
			c.report(device.StateDown, workerSentence(err))
		},
	}, c.live)
	if err != nil {
		<-ctx.Done()
	}
	return nil
}

// watchBlindness tells the look in hand of every second without a frame.
func (c *Checker) watchBlindness(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		c.mu.Lock()
		if l := c.look; l != nil {
			if !l.seen {
				l.blind()
			}
			l.seen = false
		}
		c.mu.Unlock()
	}
}

// frame hands an answer of the worker to the look that it belongs to.
func (c *Checker) frame(a Answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.look == nil || a.ID != c.order.ID {
		return
	}
	if a.Code != "" { // as good as none: the look stays blind
		return
	}
	c.look.seen = true
	if !c.look.frame(a.Faces, c.model) {
		c.end()
		c.command(DoOpen)
	}
}

// preview hands a picture on, under the lock, so that none comes after Close.
func (c *Checker) preview(a Answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.look != nil && a.ID == c.order.ID && c.config.Preview != nil {
		c.config.Preview(a.JPEG)
	}
}

func (c *Checker) ordered() Command {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order
}

func (c *Checker) setModel(model string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.model = model
}

// Worker gives the worker's process id, 0 while none runs, and how often it had
// to be started again.
func (c *Checker) Worker() (pid, restarts int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid, max(0, c.starts-1)
}

func (c *Checker) setWorker(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = pid
	if pid != 0 {
		c.starts++
	}
}

// report tells of a change, once.
func (c *Checker) report(state device.PartState, s device.Sentence) {
	c.mu.Lock()
	same := state == c.state && s == c.told
	c.state, c.told = state, s
	c.mu.Unlock()
	if !same && c.config.Report != nil {
		c.config.Report(state, s)
	}
}

func workerSentence(err error) device.Sentence {
	return device.Sentence{
		Zh: "人脸识别程序停止，正在自动重启；签到请找教师确认。原因：" + err.Error(),
		En: "The face program stopped and is being restarted; let the teacher confirm check-ins. Cause: " + err.Error(),
	}
}

func cameraSentence(text string) device.Sentence {
	return device.Sentence{
		Zh: "摄像头没有画面：请检查电源、连接线和配置中的地址；签到请找教师确认。",
		En: "No picture from the camera: " + text + "; let the teacher confirm check-ins.",
	}
}

// pictureSentence tells of frames that nobody can be known by.
func pictureSentence(a Answer) device.Sentence {
	zh := "摄像头画面全黑：请打开镜头盖或开灯；签到请找教师确认。"
	if a.Code == CodeSuspect {
		zh = "摄像头画面静止或在重复播放：请重启摄像头，并检查是否被换成了别的设备；签到请找教师确认。"
	}
	return device.Sentence{Zh: zh, En: "The " + a.Text + "; let the teacher confirm check-ins."}
}
