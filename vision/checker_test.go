package vision_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/device"
	"rollcall/simulator"
	"rollcall/vision"
)

// These tests run the real worker: OpenCV, the default model set, and a
// simulated camera on the loopback.

const (
	modelsDir = "../build/models"
	peopleDir = "../build/people"
	tags      = "opencv gocv_specific_modules gocv_calib3d gocv_videoio"
)

// patience bounds waits that a busy machine may stretch; no test asserts how
// long anything took.
const patience = 60 * time.Second

var workerPath string

func TestMain(m *testing.M) {
	if scene := os.Getenv(sceneVariable); scene != "" {
		playScene(scene)
		return
	}
	dir, err := os.MkdirTemp("", "rollcall-vision")
	if err != nil {
		panic(err)
	}
	workerPath = filepath.Join(dir, "rollcall-vision")
	build := exec.Command("go", "build", "-tags", tags, "-o", workerPath, "rollcall/cmd/rollcall-vision")
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	code := 1
	if build.Run() == nil {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// booth is a terminal's camera side: camera, gallery, checker.
type booth struct {
	camera  *simulator.Camera
	people  []simulator.Person
	checker *vision.Checker
	gallery *vision.Gallery
	log     *lines

	mu       sync.Mutex // guards what follows
	states   []device.PartState
	previews int
	seats    map[attendance.TraineeID]attendance.Seat
}

// lines keeps what was logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) count(s string) int { return strings.Count(l.String(), s) }

func workerConfig(t testing.TB, camera string) string {
	t.Helper()
	models, err := filepath.Abs(modelsDir)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "vision.toml")
	text := "camera = " + strconv.Quote(camera) + "\nmodels = " + strconv.Quote(models) + "\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

var readPeople = sync.OnceValues(func() ([]simulator.Person, error) { return simulator.LoadPeople(peopleDir) })

func loadPeople(t *testing.T) []simulator.Person {
	t.Helper()
	people, err := readPeople()
	require.NoError(t, err)
	return people
}

// newBooth starts a booth that ends with the test.
func newBooth(t *testing.T) *booth {
	t.Helper()
	require.NoError(t, vision.DefaultManifest().Verify(modelsDir), "run make models")
	camera := simulator.NewCamera()
	server := httptest.NewServer(camera)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return boothAt(t, server.URL, camera, time.Now)
}

// boothAt starts a booth whose worker looks at an address.
func boothAt(t *testing.T, address string, camera *simulator.Camera, now func() time.Time) *booth {
	t.Helper()
	b := &booth{camera: camera, people: loadPeople(t), log: &lines{}}
	b.gallery, _ = openGallery(t)
	var err error
	b.checker, err = vision.New(vision.Config{
		Worker:       workerPath,
		WorkerConfig: workerConfig(t, address),
		Report: func(s device.PartState, _ device.Sentence) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.states = append(b.states, s)
		},
		Preview: func(jpeg []byte) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.previews++
		},
		Now: now,
		Log: slog.New(slog.NewTextHandler(b.log, nil)),
	}, b.gallery)
	require.NoError(t, err)
	runUntilDone(t, b.checker)
	return b
}

// runUntilDone runs a checker until the test ends.
func runUntilDone(t *testing.T, c *vision.Checker) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ran)
	})
}

// enrol captures who stands before the camera and commits the template.
func (b *booth) enrol(t *testing.T, trainee attendance.TraineeID, p simulator.Person) attendance.Enrolment {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := b.checker.Capture(ctx, b.pose(t, p))
	require.NoError(t, err)
	assert.Equal(t, []attendance.Pose{"front", "left", "right", "front", "front"}, got.Poses)
	assert.Greater(t, got.Quality, 0.65)
	assert.Greater(t, got.Likeness, 0.6)
	pending, err := b.gallery.Prepare(trainee, got.Template)
	require.NoError(t, err)
	require.NoError(t, pending.Commit())
	enrolment := attendance.Enrolment{Seq: 1, Model: got.Template.Model, Salt: pending.Salt, Hash: pending.Hash}
	b.seat(trainee, enrolment)
	return enrolment
}

// pose has somebody stand before the camera and do as they are told.
func (b *booth) pose(t *testing.T, p simulator.Person) func(vision.CaptureStep) {
	steps := make(chan vision.CaptureStep, 64)
	done := make(chan struct{})
	b.camera.Show(p, simulator.AtEnrolment)
	go func() {
		defer close(done)
		for s := range steps {
			b.camera.Show(p, simulator.Posed(s.Pose))
		}
	}()
	t.Cleanup(func() { close(steps); <-done })
	return func(s vision.CaptureStep) { steps <- s }
}

// seat lets a trainee into the session that is open.
func (b *booth) seat(trainee attendance.TraineeID, enrolment attendance.Enrolment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	seats := map[attendance.TraineeID]attendance.Seat{trainee: {Session: "s-1", Enrolment: enrolment}}
	for id, s := range b.seats {
		if id != trainee {
			seats[id] = s
		}
	}
	b.seats = seats
	b.checker.Seat(seats)
}

// until takes looks until one is as wanted.
func until(t *testing.T, looks <-chan attendance.Look, what string, wanted func(attendance.Look) bool) attendance.Look {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case l, open := <-looks:
			require.True(t, open, "looks ended before: %s", what)
			if wanted(l) {
				return l
			}
		case <-late.C:
			require.FailNow(t, "no look", what)
		}
	}
}

func matched(l attendance.Look) bool { return l.Match != nil && l.Match.Score >= threshold }
func advised(a attendance.Advice) func(attendance.Look) bool {
	return func(l attendance.Look) bool { return l.Advice == a }
}

// threshold of the default set, specs: FAR 1e-4 on LFW.
const threshold = 0.412

func TestTheEnrolledPersonMatchesAndNobodyElse(t *testing.T) {
	b := newBooth(t)
	enrolment := b.enrol(t, "t1", b.people[0])

	b.camera.Show(b.people[0], simulator.AtCheckIn)
	ctx, cancel := context.WithCancel(t.Context())
	b.checker.Open()
	looks := b.checker.Verify(ctx, "t1", enrolment)
	l := until(t, looks, "match", matched)
	assert.Equal(t, enrolment.Model, l.Match.Model)
	assert.Equal(t, attendance.AdviceNone, l.Advice)

	b.camera.Show(b.people[1], simulator.AtCheckIn)
	until(t, looks, "somebody else", func(l attendance.Look) bool { return l.Match != nil && l.Match.Score < threshold })
	b.camera.Empty()
	until(t, looks, "nobody", advised(attendance.AdviceNoFace))
	b.camera.Show(b.people[0], simulator.Variation{Size: 40})
	until(t, looks, "far away", advised(attendance.AdviceCloser))

	cancel()
	for range looks { // closed at the end of ctx
	}
	b.checker.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	assert.Positive(t, b.previews)
	assert.Equal(t, []device.PartState{device.StateOK}, b.states)
	assert.NotContains(t, b.log.String(), "t1")
}

func TestALookNeverSeesFramesOfTheLookBefore(t *testing.T) {
	b := newBooth(t)
	first, second := b.enrol(t, "t1", b.people[0]), b.enrol(t, "t2", b.people[1])
	for range 5 {
		b.camera.Show(b.people[0], simulator.AtCheckIn)
		until(t, b.checker.Verify(t.Context(), "t1", first), "match", matched)
		// The camera shows the first person's last frames when the second's look begins.
		looks := b.checker.Verify(t.Context(), "t2", second)
		b.camera.Show(b.people[1], simulator.AtCheckIn)
		until(t, looks, "match", matched)
		b.checker.Close()
		for range looks { // Close ends it
		}
	}
}

func TestF9AKilledWorkerComesBackAndMatches(t *testing.T) {
	b := newBooth(t)
	enrolment := b.enrol(t, "t1", b.people[0])
	looks := b.checker.Verify(t.Context(), "t1", enrolment)
	until(t, looks, "match", matched)
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGSTOP} {
		lives := b.log.count("vision worker ready")
		pid, restarts := b.checker.Worker()
		killed := time.Now()
		require.NoError(t, syscall.Kill(pid, signal))
		until(t, looks, "match of the next worker", func(l attendance.Look) bool {
			return matched(l) && b.log.count("vision worker ready") > lives
		})
		t.Logf("%v to next match: %v", signal, time.Since(killed).Round(time.Millisecond))
		assert.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, "the former worker must be gone")
		_, now := b.checker.Worker()
		assert.Equal(t, restarts+1, now)
	}
}

func TestF7F8AStalledOrAbsentCameraIsAwaited(t *testing.T) {
	for name, fault := range map[string]func(*simulator.Camera){
		"stalled": (*simulator.Camera).Stall,
		"refuses": (*simulator.Camera).Refuse,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBooth(t)
			enrolment := b.enrol(t, "t1", b.people[0])
			looks := b.checker.Verify(t.Context(), "t1", enrolment)
			until(t, looks, "match", matched)
			fault(b.camera)
			until(t, looks, "no camera", advised(attendance.AdviceCamera))
			if name == "stalled" {
				require.Eventually(t, func() bool { return b.log.count("killed") > 0 }, patience, 10*time.Millisecond)
			} else {
				require.Eventually(t, func() bool { return b.log.count("camera lost") > 1 }, patience, 10*time.Millisecond)
				assert.Equal(t, 1, b.log.count("vision worker ready"), "a camera that refuses needs no new worker")
			}
			b.camera.Recover()
			until(t, looks, "match", matched)
			b.mu.Lock()
			defer b.mu.Unlock()
			assert.Contains(t, b.states, device.StateDown)
			assert.Equal(t, device.StateOK, b.states[len(b.states)-1])
		})
	}
}

func TestNewRefuses(t *testing.T) {
	gallery, _ := openGallery(t)
	whole := vision.Config{Worker: "w", WorkerConfig: "c", Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	_, err := vision.New(whole, gallery)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		spoil func(*vision.Config)
		says  string
	}{
		"no worker":        {func(c *vision.Config) { c.Worker = "" }, `worker = ""`},
		"no configuration": {func(c *vision.Config) { c.WorkerConfig = "" }, `worker_config = ""`},
		"no clock":         {func(c *vision.Config) { c.Now = nil }, "must be set"},
		"no log":           {func(c *vision.Config) { c.Log = nil }, "must be set"},
		"no calibration":   {func(c *vision.Config) { c.Calibration = "none.json" }, `calibration = "none.json"`},
		"no likeness":      {func(c *vision.Config) { c.DuplicateThreshold = 1.5 }, "duplicate_threshold = 1.5"},
		"no quality":       {func(c *vision.Config) { c.Quality.MostTurn = 120 }, "quality.most_turn = 120"},
	} {
		t.Run(name, func(t *testing.T) {
			config := whole
			c.spoil(&config)
			_, err := vision.New(config, gallery)
			assert.ErrorContains(t, err, c.says)
		})
	}
}

func TestAFaceThatCannotBeCheckedEndsItsLooks(t *testing.T) {
	b := newBooth(t)
	enrolment := b.enrol(t, "t1", b.people[0])
	other := enrolment
	other.Hash = "AAAA"
	for name, seated := range map[string]bool{"not in an open session": false, "not the template on record": true} {
		if seated {
			b.seat("t1", other)
		}
		for range b.checker.Verify(t.Context(), "t1", other) {
			assert.Fail(t, "a look", name)
		}
	}
	// A template of another embedder, well sealed and on record, is found out at the first frame.
	pending, err := b.gallery.Prepare("t2", vision.Template{Model: "other", Embedding: vision.Embedding{1, 2}})
	require.NoError(t, err)
	require.NoError(t, pending.Commit())
	strange := attendance.Enrolment{Model: "other", Salt: pending.Salt, Hash: pending.Hash}
	b.seat("t2", strange)
	for l := range b.checker.Verify(t.Context(), "t2", strange) {
		assert.Nil(t, l.Match)
	}
}

func TestCaptureWaitsForWhoChecksIn(t *testing.T) {
	b := newBooth(t)
	enrolled := b.enrol(t, "t1", b.people[0])
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	looks := b.checker.Verify(ctx, "t1", enrolled)
	_, err := b.checker.Capture(t.Context(), nil)
	require.ErrorIs(t, err, vision.ErrBusy)
	_, open := <-looks
	assert.True(t, open, "the look goes on")
}

func TestCaptureNeedsOneSteadyFace(t *testing.T) {
	b := newBooth(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := b.checker.Capture(ctx, nil)
	assert.ErrorIs(t, err, vision.ErrNoFace)

	captured := make(chan error, 1)
	go func() {
		_, err := b.checker.Capture(t.Context(), nil)
		captured <- err
	}()
	require.Eventually(t, func() bool {
		b.checker.Close() // takes the camera away, as soon as the capture has it
		select {
		case err := <-captured:
			return assert.ErrorIs(t, err, vision.ErrBusy)
		default:
			return false
		}
	}, patience, 10*time.Millisecond)
}

func TestAWorkerThatCannotStartIsReported(t *testing.T) {
	models := t.TempDir()
	for _, m := range vision.DefaultManifest().Models {
		text, err := os.ReadFile(filepath.Join(modelsDir, m.File))
		require.NoError(t, err, "run make models")
		if m.Role == vision.RoleEmbed {
			text[len(text)/2] ^= 1
		}
		require.NoError(t, os.WriteFile(filepath.Join(models, m.File), text, 0o600))
	}
	config := filepath.Join(t.TempDir(), "vision.toml")
	require.NoError(t, os.WriteFile(config, []byte("camera = \"x\"\nmodels = "+strconv.Quote(models)), 0o600))
	unread := filepath.Join(t.TempDir(), "none.toml")
	for name, c := range map[string]struct{ worker, config, says string }{
		"model with a wrong sum": {workerPath, config, "delete it and run make models"},
		"no configuration":       {workerPath, unread, "none.toml"},
		"no program":             {filepath.Join(t.TempDir(), "none"), config, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			said := make(chan string, 100)
			gallery, _ := openGallery(t)
			checker, err := vision.New(vision.Config{
				Worker: c.worker, WorkerConfig: c.config, Now: time.Now, Log: slog.New(slog.DiscardHandler),
				Report: func(s device.PartState, text device.Sentence) {
					assert.Equal(t, device.StateDown, s)
					said <- text.En
				},
			}, gallery)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- checker.Run(ctx) }()
			assert.Contains(t, <-said, c.says)
			cancel()
			assert.NoError(t, <-ran)
		})
	}
}

// TestTheBareWorkerSpeaksItsProtocol talks to the worker without the checker.
func TestTheBareWorkerSpeaksItsProtocol(t *testing.T) {
	camera := simulator.NewCamera()
	camera.Show(loadPeople(t)[0], simulator.AtEnrolment)
	server := httptest.NewServer(camera)
	defer server.Close()
	defer server.CloseClientConnections()
	w := startBare(t, workerConfig(t, server.URL))

	hello := w.next(vision.KindHello)
	assert.Equal(t, vision.ProtocolVersion, hello.Version)
	assert.Equal(t, vision.DefaultManifest().Sums(), hello.Models)

	w.tell(vision.DoOpen, 7)
	assert.Equal(t, uint64(7), w.next(vision.KindOpened).ID)
	w.tell(vision.DoLook, 8)
	frame := w.next(vision.KindFrame)
	assert.Equal(t, uint64(8), frame.ID)
	require.Len(t, frame.Faces, 1)
	assert.Len(t, frame.Faces[0].Embedding, 512)
	assert.Equal(t, "frame", frame.String())
	preview := w.next(vision.KindPreview)
	assert.Equal(t, uint64(8), preview.ID)
	assert.Equal(t, []byte{0xff, 0xd8}, preview.JPEG[:2])
	w.tell(vision.DoClose, 9)
	assert.Equal(t, uint64(9), w.next(vision.KindClosed).ID)

	w.end() // a daemon that is killed leaves no worker behind
}

// TestTheWorkerAnalysesPictures asks for files by path, as the measuring of
// faces does: what cannot be analysed is refused in words, and the next comes.
func TestTheWorkerAnalysesPictures(t *testing.T) {
	w := startBare(t, workerConfig(t, "/dev/null"))
	w.next(vision.KindHello)
	pictures, err := filepath.Abs(peopleDir)
	require.NoError(t, err)
	id := uint64(0)
	ask := func(path string, work vision.Work) vision.Answer {
		id++
		require.NoError(t, vision.WriteCommand(w.commands, vision.Command{Do: vision.DoPicture, ID: id, Path: path, Work: work}))
		a, err := vision.ReadAnswer(w.answers)
		require.NoError(t, err)
		assert.Equal(t, id, a.ID)
		return a
	}

	whole := ask(filepath.Join(pictures, "sample1.jpg"), vision.Work{Mirror: true})
	require.Equal(t, vision.KindPicture, whole.Kind, whole.Text)
	require.Len(t, whole.Faces, 3)
	for _, f := range whole.Faces {
		assert.Len(t, f.Embedding, 512)
		mirrored := vision.Cosine(f.Embedding, f.Mirrored)
		assert.Greater(t, mirrored, 0.7, "the same person")
		assert.Less(t, mirrored, 0.9999, "another picture")
		assert.NotNil(t, f.Measures)
	}
	assert.Positive(t, whole.Took.Detect)
	assert.Positive(t, whole.Took.Liveness)
	assert.GreaterOrEqual(t, whole.Took.Total, whole.Took.Decode+whole.Took.Detect+whole.Took.Points+whole.Took.Embed+whole.Took.Liveness)
	assert.Positive(t, whole.Width*whole.Height)

	part := ask(filepath.Join(pictures, "gocv-face.jpg"), vision.Work{NoLiveness: true, NoMeasures: true})
	require.Len(t, part.Faces, 1)
	assert.Nil(t, part.Faces[0].Mirrored)
	assert.Nil(t, part.Faces[0].Measures)
	assert.Equal(t, -1.0, part.Faces[0].Liveness)
	assert.Zero(t, part.Took.Liveness)

	dir := t.TempDir()
	text, pipe := filepath.Join(dir, "text.jpg"), filepath.Join(dir, "pipe.jpg")
	require.NoError(t, os.WriteFile(text, []byte("no picture"), 0o600))
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for path, code := range map[string]vision.Code{
		filepath.Join(dir, "none.jpg"): vision.CodeNoFile,
		dir:                            vision.CodeNoFile,
		pipe:                           vision.CodeNoFile,
		text:                           vision.CodeNoPicture,
	} {
		a := ask(path, vision.Work{})
		assert.Equal(t, vision.KindRefused, a.Kind)
		assert.Equal(t, code, a.Code)
		assert.NotEmpty(t, a.Text)
		assert.NotContains(t, a.Text, dir, "a path may name a person")
	}
	w.end()
}
