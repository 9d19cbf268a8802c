package vision

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"rollcall/attendance"
)

// Capture is what an enrolment needs: one template of several frames of one
// face.
type Capture struct {
	Template Template
	Quality  float64           // mean of the detector's scores, 0 to 1
	Likeness float64           // least cosine of a frame with the template
	Poses    []attendance.Pose // of the frames, in the order taken
}

// CaptureStep is how far a capture is, and what the person should do now.
type CaptureStep struct {
	Frame  int // that is being taken, from 1
	Frames int
	Pose   attendance.Pose
	Advice attendance.Advice
}

var (
	// ErrBusy means that somebody is checking in, who comes first.
	ErrBusy = errors.New("camera is needed for somebody who checks in: try again")
	// ErrNoFace means that ctx ended before enough good frames of one face.
	ErrNoFace = errors.New("no steady view of one face: stand alone before the camera, at arm's length, in good light")
)

// poses are the frames of a capture, in order. The worker adds the mirror of
// each, so one side stands in for the other where somebody cannot turn.
var poses = []attendance.Pose{attendance.PoseFront, attendance.PoseLeft, attendance.PoseRight, attendance.PoseFront, attendance.PoseFront}

const (
	// samePerson is the least likeness of a frame from the front with the first
	// one; frames of one face within seconds lie above 0.9. sameTurned is that
	// of a turned one; two people lie above it in one of 10,000 comparisons
	// (docs/faces.md).
	samePerson = 0.6
	sameTurned = 0.412

	// mostFront, leastTurn and mostTurn bound the yaw of a pose against the
	// first frame's, in degrees: the measure tells how far a face has turned
	// better than where it looks.
	mostFront = 10
	leastTurn = 8
	mostTurn  = 40

	// poseWait is how long a turned pose is waited for: who cannot turn is
	// enrolled without it, and the record shows it.
	poseWait = 5 * time.Second
	// poseGap parts two frames of one pose, so that they are not one picture.
	poseGap = 400 * time.Millisecond
)

// Capture opens the camera, takes frames of one face from the front and turned
// to both sides, closes the camera and gives the mean of them and their
// mirrors. If another face comes it starts over. progress, if not nil, is told
// of every change; it must not block, nor call the Checker. A deadline is the
// caller's, in ctx.
func (c *Checker) Capture(ctx context.Context, progress func(CaptureStep)) (Capture, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	s := &series{now: c.config.Now, gate: gate{quality: c.config.Quality}, progress: progress}
	c.mu.Lock()
	if c.look != nil { // somebody is checking in: they come first
		c.mu.Unlock()
		return Capture{}, ErrBusy
	}
	c.begin(ctx, &look{
		work:  Work{Mirror: true, NoLiveness: true},
		frame: func(a Answer, model string) bool { s.frame(a, model); return !s.complete() },
		blind: func() { s.tell(attendance.AdviceCamera) },
		done:  func() { close(ended) },
	})
	c.mu.Unlock()
	<-ended
	c.release()
	defer s.wipe()
	switch {
	case s.complete():
		return s.capture(), nil
	case ctx.Err() != nil:
		return Capture{}, fmt.Errorf("%w: %w", ErrNoFace, ctx.Err())
	default:
		return Capture{}, ErrBusy
	}
}

// series is the frames taken so far. Its functions are called one at a time.
type series struct {
	now      func() time.Time
	gate     gate
	progress func(CaptureStep)
	told     CaptureStep

	model  string
	taken  []taken
	next   int       // into poses
	yaw    float64   // of the first frame
	since  time.Time // when the pose was first asked of a face that could be used
	before time.Time // when the last frame was taken

	advised map[attendance.Advice]time.Time // when each was first given
}

// patience is how long an advice stands that may be in vain: measures are wrong
// about some faces for ever (eyes that seem closed, a head that seems turned, a
// beard that seems a mask, dark skin before a white wall), and nobody is kept
// from enrolling by one. An officer sees the picture.
func patience(a attendance.Advice) (wait time.Duration, ends bool) {
	switch a {
	case attendance.AdviceEyes, attendance.AdviceTurnTo, attendance.AdviceUncover:
		return 2 * time.Second, true
	case attendance.AdviceBacklight, attendance.AdviceBrighter, attendance.AdviceDarker, attendance.AdviceStill:
		return 6 * time.Second, true
	}
	return 0, false // closer, farther: that can be followed
}

// waived reports whether an advice has stood long enough in vain.
func (s *series) waived(a attendance.Advice, now time.Time) bool {
	wait, ends := patience(a)
	if !ends {
		return false
	}
	first, given := s.advised[a]
	if !given {
		s.advised[a] = now
		return false
	}
	return now.Sub(first) > wait
}

type taken struct {
	pose           attendance.Pose
	score          float64
	face, mirrored Embedding // mirrored may be nil
}

func (s *series) complete() bool { return s.next == len(poses) }

// frame takes a frame if it shows the pose that is due, of the same face as
// before, well enough; else it says what to change.
func (s *series) frame(a Answer, model string) {
	person, advice := Usable(a.Faces)
	if person < 0 || len(a.Faces[person].Embedding) == 0 {
		s.tell(advice)
		return
	}
	f, now := a.Faces[person], s.now()
	if s.since.IsZero() {
		s.since = now
	}
	if model != s.model {
		s.restart(model, now)
	}
	pose := poses[s.next]
	if pose != attendance.PoseFront && now.Sub(s.since) > poseWait {
		s.advance(now)
		s.tell(attendance.AdviceNone)
		return
	}
	switch advice := s.gate.advise(f, a.Width); {
	case advice == attendance.AdviceNone || advice == attendance.AdviceTurnTo && pose != attendance.PoseFront:
	case !s.waived(advice, now):
		s.tell(advice)
		return
	}
	yaw := yawOf(f)
	if len(s.taken) == 0 {
		s.yaw = yaw
	}
	if advice := poseAdvice(pose, yaw-s.yaw); advice != attendance.AdviceNone {
		s.tell(advice)
		return
	}
	if !s.same(f) {
		s.restart(model, now)
		return
	}
	if now.Sub(s.before) < poseGap {
		return
	}
	s.taken = append(s.taken, taken{pose, f.Score, append(Embedding(nil), f.Embedding...), append(Embedding(nil), f.Mirrored...)})
	s.before = now
	s.advance(now)
	s.tell(attendance.AdviceNone)
}

// yawOf gives 0 for a face that was not measured.
func yawOf(f Face) float64 {
	if f.Measures == nil {
		return 0
	}
	return f.Measures.Yaw
}

// poseAdvice says how to come to a pose from one that is turned so far. To the
// right of the picture is the person's left.
func poseAdvice(pose attendance.Pose, yaw float64) attendance.Advice {
	within := func(x float64) bool { return x >= leastTurn && x <= mostTurn }
	switch {
	case pose == attendance.PoseFront && (yaw < -mostFront || yaw > mostFront):
		return attendance.AdviceTurnTo
	case pose == attendance.PoseLeft && !within(yaw):
		return attendance.AdviceLeft
	case pose == attendance.PoseRight && !within(-yaw):
		return attendance.AdviceRight
	}
	return attendance.AdviceNone
}

// same reports whether a face is the one of the first frame; before the first
// any is.
func (s *series) same(f Face) bool {
	if len(s.taken) == 0 {
		return true
	}
	least := samePerson
	if poses[s.next] != attendance.PoseFront {
		least = sameTurned
	}
	return Cosine(s.taken[0].face, f.Embedding) >= least
}

func (s *series) restart(model string, now time.Time) {
	s.wipe()
	s.model, s.taken, s.next, s.since, s.advised = model, nil, 0, now, map[attendance.Advice]time.Time{}
}

func (s *series) advance(now time.Time) {
	s.next++
	s.since = now
}

func (s *series) tell(advice attendance.Advice) {
	if s.complete() {
		return
	}
	step := CaptureStep{Frame: s.next + 1, Frames: len(poses), Pose: poses[s.next], Advice: advice}
	if step != s.told && s.progress != nil {
		s.progress(step)
	}
	s.told = step
}

// capture makes the template of the frames and their mirrors.
func (s *series) capture() Capture {
	sum := make(Embedding, len(s.taken[0].face))
	c := Capture{Likeness: 1}
	for _, t := range s.taken {
		for _, e := range []Embedding{t.face, t.mirrored} {
			for i, x := range e {
				sum[i] += x
			}
		}
		c.Quality += t.score / float64(len(s.taken))
		c.Poses = append(c.Poses, t.pose)
	}
	c.Template = Template{Model: s.model, Embedding: sum.Unit()}
	clear(sum)
	for _, t := range s.taken {
		c.Likeness = min(c.Likeness, Cosine(t.face, c.Template.Embedding))
	}
	c.Quality, c.Likeness = round(c.Quality), round(c.Likeness)
	return c
}

// round keeps four digits: more say nothing and differ between processors.
func round(x float64) float64 { return math.Round(x*1e4) / 1e4 }

// wipe forgets the frames.
func (s *series) wipe() {
	for _, t := range s.taken {
		clear(t.face)
		clear(t.mirrored)
	}
}

// Duplicate gives the other trainee whose template is most like this one, and
// whether it is like enough to be one person's: from the calibration's
// threshold for duplicates, or the configured one.
func (c *Checker) Duplicate(trainee attendance.TraineeID, t Template, enrolments map[attendance.TraineeID]attendance.Enrolment) (nearest Resemblance, found, like bool) {
	nearest, found = c.gallery.Nearest(trainee, t, enrolments)
	nearest.Score = round(nearest.Score)
	return nearest, found, found && nearest.Score >= c.config.DuplicateThreshold
}
