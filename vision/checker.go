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
	// Calibration is the path of the calibration file that `rollcall face
	// calibrate` wrote. Default none: the rules' threshold holds, and records
	// say that it is not calibrated. So they do if the file is of another
	// embedder than the worker's.
	Calibration string `toml:"calibration"`
	// DuplicateThreshold is the cosine from which two faces of one session are
	// flagged as one person's with two cards, and from which an enrolment wants
	// an officer's word that two trainees are two people, 0 to 1. Default 0.6, or
	// the calibration's. No check-in is refused by it.
	DuplicateThreshold float64 `toml:"duplicate_threshold"`
	// Quality is when a person is asked to change something.
	Quality Quality `toml:"quality"`

	// Report, if not nil, is told of every change of the camera's or the
	// worker's state, with a sentence for the caretaker. It must not block.
	Report func(device.PartState, device.Sentence) `toml:"-"`
	// Preview, if not nil, is given the newest picture for the panel while
	// somebody is looked at, and none after Close. It must not block, nor call
	// the Checker.
	Preview func(jpeg []byte) `toml:"-"`
	// Suspect, if not nil, is told true when the camera begins to show a still or
	// a repeated film, and false when it has shown a live picture for as long
	// again. It must not block.
	Suspect func(bool) `toml:"-"`
	// Now is the clock of a look's time. It must be set.
	Now func() time.Time `toml:"-"`
	// Log must be set.
	Log *slog.Logger `toml:"-"`
}

// Checker answers "is this that person?". It owns the worker process: Run
// starts it, watches it and brings it back. Its other methods may be called
// from several goroutines at once, before, during and after Run; one look is in
// hand at a time, and a new one ends the one before.
type Checker struct {
	config      Config
	gallery     *Gallery
	calibration *Calibration  // nil if there is none
	changed     chan struct{} // one token: order has changed

	mu      sync.Mutex // guards what follows
	order   Command    // what the worker is to do
	lastID  uint64
	look    *look // nil if nobody is looked at
	sitting sitting
	suspect bool   // the camera shows a still or a repeated film
	model   string // SHA-256 of the worker's embedder; empty while there is no worker
	told    device.Sentence
	state   device.PartState
	pid     int // of the worker; 0 while there is none
	starts  int
	losses  []time.Time // of workers, the last few
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
	c := &Checker{config: config, gallery: gallery, changed: make(chan struct{}, 1), order: Command{Do: DoClose}}
	var err error
	if c.config.Quality, err = config.Quality.complete(); err != nil {
		return nil, err
	}
	if config.Calibration != "" {
		if c.calibration, err = LoadCalibration(config.Calibration); err != nil {
			return nil, fmt.Errorf("vision: calibration = %q: %w", config.Calibration, err)
		}
		if d := c.calibration.Duplicate; d != nil && config.DuplicateThreshold == 0 {
			c.config.DuplicateThreshold = d.Threshold
		}
	}
	if c.config.DuplicateThreshold == 0 {
		c.config.DuplicateThreshold = standardDuplicate
	}
	if d := c.config.DuplicateThreshold; !(d > 0 && d < 1) {
		return nil, fmt.Errorf("vision: duplicate_threshold = %g: must lie between 0 and 1", d)
	}
	return c, nil
}

// standardDuplicate flags a pair of faces of one session without a
// calibration.
const standardDuplicate = 0.6

// Seat says whose faces may be checked from now on: nobody else's template is
// opened, and what is in memory of anybody else is wiped.
func (c *Checker) Seat(seats map[attendance.TraineeID]attendance.Seat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sitting.seat(seats)
}

// Accept says that the look in hand was taken for this trainee: later faces of
// the session are compared with this one. Without a look, or if its newest face
// is another candidate's, it does nothing.
func (c *Checker) Accept(trainee attendance.TraineeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.look != nil && c.look.accept != nil {
		c.look.accept(trainee)
	}
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
// the trainee has no seat with this enrolment, the gallery has no template that
// the enrolment names, or the worker's embedder is another one.
func (c *Checker) Verify(ctx context.Context, trainee attendance.TraineeID, enrolment attendance.Enrolment) <-chan attendance.Look {
	looks := make(chan attendance.Look, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if seat, ok := c.sitting.seats[trainee]; !ok || seat.Enrolment != enrolment {
		c.config.Log.Warn("nobody to check: not in a session that is open", "enrol", enrolment.Seq)
		close(looks)
		return looks
	}
	template, err := c.gallery.Load(trainee, enrolment)
	if err != nil {
		c.config.Log.Warn("template not usable", "enrol", enrolment.Seq, "err", err)
		close(looks)
		return looks
	}
	c.compare(ctx, looks, &comparison{
		with: func(face Embedding, model string) *attendance.Match {
			if model != template.Model {
				c.config.Log.Warn("template of another embedder", "enrol", enrolment.Seq)
				return nil
			}
			return c.match(trainee, face, template)
		},
		wipe: template.Wipe,
	})
	return looks
}

// compare begins a look that compares faces. The caller holds mu.
func (c *Checker) compare(ctx context.Context, looks chan attendance.Look, v *comparison) {
	v.checker, v.looks, v.gate = c, looks, gate{quality: c.config.Quality}
	c.begin(ctx, &look{
		frame:   v.frame,
		blind:   func() { offer(looks, attendance.Look{At: c.config.Now(), Advice: attendance.AdviceCamera}) },
		suspect: func() { offer(looks, attendance.Look{At: c.config.Now(), Suspect: true}) },
		accept:  v.accept,
		done:    v.end,
	})
}

// comparison is a look at one person, named or not. Its functions are called
// with Checker.mu held.
type comparison struct {
	with func(face Embedding, model string) *attendance.Match // nil if nothing can be compared with it
	wipe func()                                               // forgets the templates

	checker *Checker
	looks   chan attendance.Look
	gate    gate
	probe   probe
	best    Embedding            // the face, as it matched best
	of      attendance.TraineeID // whom best matched
	model   string               // embedder of best
	score   float64              // of best
}

// frame says what the newest frame, with those before it, means for the
// enrolled. It reports false if nothing can be compared with it.
func (v *comparison) frame(a Answer, model string) bool {
	l := attendance.Look{At: v.checker.config.Now()}
	person, advice := Usable(a.Faces)
	if person < 0 || len(a.Faces[person].Embedding) == 0 {
		v.probe.wipe()
		l.Advice = advice
		offer(v.looks, l)
		return true
	}
	f := a.Faces[person]
	l.Advice = v.gate.advise(f, a.Width)
	face, frames := v.probe.add(f)
	l.Match = v.with(face, model)
	if l.Match == nil {
		clear(face)
		return false
	}
	l.Match.Frames, l.Match.Quality, l.Match.Liveness = frames, f.Score, f.Liveness
	if v.best == nil || l.Match.Trainee != v.of || l.Match.Score > v.score {
		clear(v.best)
		v.best, v.of, v.model, v.score = face, l.Match.Trainee, model, l.Match.Score
	} else {
		clear(face)
	}
	offer(v.looks, l)
	return true
}

// accept keeps the face for the session, unless a newer frame found somebody
// else.
func (v *comparison) accept(trainee attendance.TraineeID) {
	if v.of == trainee {
		v.checker.sitting.accept(trainee, v.best, v.model)
	}
}

// end wipes what the look held and closes its channel.
func (v *comparison) end() {
	v.probe.wipe()
	clear(v.best)
	v.wipe()
	close(v.looks)
}

// match compares a face with a template and with the faces that were accepted
// in the same session. The caller holds mu.
func (c *Checker) match(trainee attendance.TraineeID, face Embedding, template Template) *attendance.Match {
	m := &attendance.Match{
		Trainee: trainee,
		Score:   Cosine(template.Embedding, face),
		Model:   template.Model,
		Like:    c.sitting.like(trainee, face, template.Model, c.config.DuplicateThreshold),
	}
	if k := c.calibration; k != nil && k.Verify != nil && k.Embedder == template.Model {
		m.Threshold, m.Calibration = k.Verify.Threshold, k.ID
	}
	return m
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
	frame   func(a Answer, model string) bool // false ends the look
	blind   func()                            // a second without a frame
	suspect func()                            // the camera shows a still or a repeated film; may be nil
	accept  func(attendance.TraineeID)        // nil if nothing can be accepted
	done    func()
	work    Work // beyond finding the face
	seen    bool // a frame came since the last tick of blindness
	stop    func() bool
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
	c.order.Work = l.work
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
			c.lose(err)
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
		if a.Code == CodeSuspect && c.look.suspect != nil {
			c.look.suspect()
		}
		return
	}
	c.look.seen = true
	defer wipeFaces(a.Faces)
	if !c.look.frame(a, c.model) {
		c.end()
		c.command(DoOpen)
	}
}

// wipeFaces forgets the vectors of a frame.
func wipeFaces(faces []Face) {
	for _, f := range faces {
		clear(f.Embedding)
		clear(f.Mirrored)
	}
}

// suspects notes whether the camera shows a still or a repeated film, and tells
// when that changes. A black picture says nothing of it.
func (c *Checker) suspects(a Answer) {
	if a.Code == CodeBlack {
		return
	}
	now := a.Code == CodeSuspect
	c.mu.Lock()
	changed := now != c.suspect
	c.suspect = now
	c.mu.Unlock()
	if !changed {
		return
	}
	if now {
		c.config.Log.Warn("camera suspect")
	} else {
		c.config.Log.Info("camera no longer suspect")
	}
	if c.config.Suspect != nil {
		c.config.Suspect(now)
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

func oftenSentence() device.Sentence {
	return device.Sentence{
		Zh: "人脸识别程序一分钟内多次停止又恢复：签到可继续；如不消失，请重启摄像头和终端，并通知维护人员。",
		En: "The face program stopped several times within a minute and came back: check-ins go on; if this stays, switch camera and terminal off and on, and tell who maintains them.",
	}
}

// cameraCures says in Chinese what a code of the worker asks for.
var cameraCures = map[Code]string{
	CodeCamera:   "摄像头没有应答：请检查电源、连接线和网络",
	CodeEnded:    "摄像头画面中断：请检查电源、连接线和网络",
	CodeAddress:  "该地址没有视频：请检查配置中的摄像头地址",
	CodeRights:   "摄像头拒绝访问：请检查配置中的用户名、密码或设备权限",
	CodeIdentity: "应答的不是登记的摄像头：请检查是否被更换，更换后请更新配置中的证书",
	CodeTooLarge: "摄像头画面过大：请把分辨率调低",
}

// cameraSentence tells why there is no picture.
func cameraSentence(a Answer) device.Sentence {
	cure, ok := cameraCures[a.Code]
	if !ok {
		cure = cameraCures[CodeCamera]
	}
	return device.Sentence{
		Zh: "摄像头没有画面。" + cure + "；签到请找教师确认。",
		En: "No picture from the camera: " + a.Text + "; let the teacher confirm check-ins.",
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
