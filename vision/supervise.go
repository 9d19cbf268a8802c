package vision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"rollcall/device"
)

// How long the worker may take to answer, and how often it is asked when it
// has nothing to do. A worker that is late is killed: a read from a dead
// camera may block for ever, and only a signal ends it.
const (
	helloDeadline = 30 * time.Second // an old board reads and checks 10 MB of nets from a slow card
	openDeadline  = 5 * time.Second  // an RTSP camera waits for its next key frame
	frameDeadline = 2 * time.Second  // a frame, or the end of one that is in the way
	endDeadline   = 2 * time.Second

	askOpen   = time.Second      // camera on, nobody looked at
	askClosed = 10 * time.Second // camera off

	cameraPause = 500 * time.Millisecond // before a camera that refused is tried again
)

var errGone = errors.New("worker ended")

var errSilent = errors.New("worker did not answer in time and was killed: the camera may hold it, check its power and cable")

// workerEnvironment is read by libraries before the worker's main: OpenCV
// refuses larger pictures by itself, should one pass the worker's own look at
// the header, and the C library keeps two heaps, not one for each thread.
var workerEnvironment = []string{
	"OPENCV_IO_MAX_IMAGE_WIDTH=32768", "OPENCV_IO_MAX_IMAGE_HEIGHT=32768", "OPENCV_IO_MAX_IMAGE_PIXELS=100000000",
	"MALLOC_ARENA_MAX=2",
}

// A worker that is lost so often within so long is not well, though it comes
// back each time.
const (
	oftenLost = 3
	lostSpan  = time.Minute
)

// process is one life of the worker, owned by live.
type process struct {
	cmd      *exec.Cmd
	commands *os.File
	answers  chan Answer   // closed when the worker ends or speaks nonsense
	broken   error         // why answers was closed; set before
	gone     chan struct{} // closed to let the reader of answers go
	readers  sync.WaitGroup
	stderr   *tail

	ready   bool    // it said hello
	open    bool    // the camera is on
	sent    Command // the last order
	waiting bool    // an answer is due when timer fires
	timer   *time.Timer
	pause   *time.Timer // runs after a trouble; orders wait for it
	paused  bool
}

// start starts a worker with its two pipes.
func start(worker, workerConfig string) (*process, error) {
	commandsOut, commandsIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answersOut, answersIn, err := os.Pipe()
	if err != nil {
		_ = commandsOut.Close()
		_ = commandsIn.Close()
		return nil, err
	}
	p := &process{
		cmd:      exec.Command(worker, "-config", workerConfig),
		commands: commandsIn,
		answers:  make(chan Answer, 4), // more wait in the pipe, then in the worker
		gone:     make(chan struct{}),
		stderr:   &tail{},
		waiting:  true,
		timer:    time.NewTimer(helloDeadline),
		pause:    stoppedTimer(),
	}
	p.cmd.ExtraFiles = []*os.File{commandsOut, answersIn} // file descriptors 3 and 4
	p.cmd.Stderr = p.stderr
	p.cmd.Env = append(os.Environ(), workerEnvironment...)
	err = p.cmd.Start()
	_ = commandsOut.Close()
	_ = answersIn.Close()
	if err != nil {
		_ = commandsIn.Close()
		_ = answersOut.Close()
		return nil, fmt.Errorf("starting vision worker: %w", err)
	}
	p.readers.Go(func() { p.read(answersOut) })
	return p, nil
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

func (p *process) read(answers *os.File) {
	defer answers.Close()
	defer close(p.answers)
	for {
		a, err := ReadAnswer(answers)
		if err != nil {
			p.broken = err
			return
		}
		select {
		case p.answers <- a:
		case <-p.gone:
			return
		}
	}
}

// end ends the worker and waits for it: at the end of its commands it goes by
// itself, and if a camera holds it, it is killed.
func (p *process) end(grace time.Duration) {
	close(p.gone)
	_ = p.commands.Close()
	kill := time.AfterFunc(grace, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	kill.Stop()
	p.readers.Wait()
	p.timer.Stop()
	p.pause.Stop()
}

// live runs one worker until it is lost or ctx ends.
func (c *Checker) live(ctx context.Context) error {
	p, err := start(c.config.Worker, c.config.WorkerConfig)
	if err != nil {
		return err
	}
	c.setWorker(p.cmd.Process.Pid)
	err = c.talk(ctx, p)
	c.setModel("")
	c.setWorker(0)
	if err == nil || errors.Is(err, errGone) {
		p.end(endDeadline)
	} else {
		p.end(0)
	}
	if errors.Is(err, errGone) {
		return p.why()
	}
	return err
}

// talk gives orders and takes answers; nil means that ctx ended.
func (c *Checker) talk(ctx context.Context, p *process) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case a, ok := <-p.answers:
			if !ok {
				return errGone
			}
			if err := c.take(p, a); err != nil {
				return err
			}
		case <-c.changed:
		case <-p.pause.C:
			p.paused = false
		case <-p.timer.C:
			if p.waiting {
				return errSilent
			}
			p.sent = Command{} // ask again: the answer shows that it lives
		}
		if err := p.tell(c.ordered()); err != nil {
			return errGone
		}
	}
}

// why says why the worker ended: its last words, if it had any. It has ended.
func (p *process) why() error {
	if errors.Is(p.broken, ErrProtocol) {
		return p.broken
	}
	if words := p.stderr.lastLine(); words != "" {
		return fmt.Errorf("%w: %s", errGone, words)
	}
	return fmt.Errorf("%w: %s", errGone, p.cmd.ProcessState)
}

// tell sends the order if it is a new one and the worker can take it.
func (p *process) tell(order Command) error {
	if !p.ready || p.paused || order == p.sent {
		return nil
	}
	deadline := openDeadline // also to close: the camera may be about to open
	if p.open {
		deadline = frameDeadline
	}
	p.sent = order
	p.expect(deadline)
	if err := p.commands.SetWriteDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	return WriteCommand(p.commands, order)
}

// expect lets the next answer be due.
func (p *process) expect(d time.Duration) {
	p.waiting = true
	p.timer.Reset(d)
}

// rest lets the worker be asked again after d.
func (p *process) rest(d time.Duration) {
	p.waiting = false
	p.timer.Reset(d)
}

// take acts on one answer.
func (c *Checker) take(p *process, a Answer) error {
	switch a.Kind {
	case KindHello:
		if a.Version != ProtocolVersion {
			return versionError(a.Version)
		}
		p.ready = true
		p.rest(askClosed)
		c.setModel(a.Models[RoleEmbed])
		c.config.Log.Info("vision worker ready", "pid", p.cmd.Process.Pid)
		if c.ordered().Do == DoClose { // else the camera has yet to show that it works
			c.works()
		}
	case KindOpened:
		p.open = true
		c.works()
		if a.ID == p.sent.ID {
			p.rest(askOpen)
		}
	case KindFrame:
		if a.ID != p.sent.ID { // of the look before; the camera may be off by now
			return nil
		}
		p.open = true
		c.suspects(a)
		p.expect(frameDeadline)
		if a.Code == "" {
			c.works()
		} else {
			c.report(device.StateDown, pictureSentence(a))
		}
		c.frame(a)
	case KindPreview:
		c.preview(a)
	case KindClosed:
		p.open = false
		c.recovers()
		if a.ID == p.sent.ID {
			p.rest(askClosed)
		}
	case KindTrouble:
		p.open = false
		c.config.Log.Warn("camera lost", "code", string(a.Code))
		c.report(device.StateDown, cameraSentence(a))
		p.sent = Command{}
		p.paused = true
		p.pause.Reset(cameraPause)
		p.rest(askClosed)
	}
	return nil
}

func versionError(version int) error {
	return fmt.Errorf("%w: worker speaks version %d, this program %d: install both from one release: %w",
		ErrProtocol, version, ProtocolVersion, device.ErrPermanent)
}

// lose notes that a worker was lost, and tells of it.
func (c *Checker) lose(err error) {
	c.mu.Lock()
	c.losses = append(c.losses, c.config.Now())
	if extra := len(c.losses) - oftenLost; extra > 0 {
		c.losses = c.losses[extra:]
	}
	c.mu.Unlock()
	c.report(device.StateDown, workerSentence(err))
}

// works reports that worker and camera work, or that they do between losses.
func (c *Checker) works() {
	c.mu.Lock()
	often := len(c.losses) == oftenLost && c.config.Now().Sub(c.losses[0]) < lostSpan
	c.mu.Unlock()
	if often {
		c.report(device.StateDegraded, oftenSentence())
		return
	}
	c.report(device.StateOK, device.Sentence{})
}

// recovers ends a degraded state while the camera is off: nothing else says
// then that the worker is well.
func (c *Checker) recovers() {
	c.mu.Lock()
	degraded := c.state == device.StateDegraded
	c.mu.Unlock()
	if degraded {
		c.works()
	}
}

// tail keeps the end of what the worker says to the console.
type tail struct {
	mu    sync.Mutex // guards bytes
	bytes []byte
}

const tailLength = 2048

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes = append(t.bytes, b...)
	if extra := len(t.bytes) - tailLength; extra > 0 {
		t.bytes = append(t.bytes[:0], t.bytes[extra:]...)
	}
	return len(b), nil
}

func (t *tail) lastLine() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.bytes), []byte("\n"))
	return strings.ToValidUTF8(string(lines[len(lines)-1]), "?")
}
