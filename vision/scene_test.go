package vision_test

import (
	"encoding/gob"
	"fmt"
	"image/jpeg"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/device"
	"rollcall/simulator"
	"rollcall/vision"
)

// Hundreds of check-ins by real faces would take minutes of nets. Here the
// nets see each person twice, as enrolled and as at a check-in, and a worker
// that this test binary plays says again what they said: all the rest, from the
// protocol to the record, is the real thing.

// sceneVariable makes the test binary a worker; it names the scene's file.
const sceneVariable = "ROLLCALL_TEST_SCENE"

// scene is what the played camera sees: one face, or none, or what is wrong.
type scene struct {
	Model string
	Face  []float32 // nil: nobody
	Live  float64
	Code  vision.Code
}

func (s scene) write(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "scene")
	if err != nil {
		return err
	}
	if err := gob.NewEncoder(f).Encode(s); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func readScene(path string) (s scene, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	return s, gob.NewDecoder(f).Decode(&s)
}

// answer is a frame of the scene.
func (s scene) answer(id uint64) vision.Answer {
	a := vision.Answer{Kind: vision.KindFrame, ID: id, Code: s.Code, Text: "camera's picture is what the test says", Width: 640, Height: 480}
	if s.Face != nil {
		a.Faces = []vision.Face{{Box: vision.Box{X: 240, Y: 160, W: 150, H: 180}, Score: 0.98, Liveness: s.Live, Embedding: s.Face}}
	}
	return a
}

// playScene is a worker without camera and nets.
func playScene(path string) {
	commands, answers := os.NewFile(vision.CommandFD, "commands"), os.NewFile(vision.AnswerFD, "answers")
	now, err := readScene(path)
	if err != nil {
		panic(err)
	}
	say := func(a vision.Answer) { _ = vision.WriteAnswer(answers, a) }
	say(vision.Answer{Kind: vision.KindHello, Version: vision.ProtocolVersion, Models: map[vision.Role]string{vision.RoleEmbed: now.Model}})
	orders := make(chan vision.Command)
	go func() {
		defer close(orders)
		for {
			c, err := vision.ReadCommand(commands)
			if err != nil {
				return
			}
			orders <- c
		}
	}()
	frames := time.NewTicker(time.Millisecond)
	var order vision.Command
	for {
		select {
		case c, open := <-orders:
			if !open {
				return
			}
			order = c
			note(path, c.Do)
			switch c.Do {
			case vision.DoOpen:
				say(vision.Answer{Kind: vision.KindOpened, ID: c.ID})
			case vision.DoClose:
				say(vision.Answer{Kind: vision.KindClosed, ID: c.ID})
			}
		case <-frames.C:
			if order.Do != vision.DoLook {
				continue
			}
			if now, err = readScene(path); err != nil {
				panic(err)
			}
			say(now.answer(order.ID))
		}
	}
}

// note writes down what the played worker was told.
func note(path string, do vision.Do) {
	f, err := os.OpenFile(path+".orders", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	_, _ = fmt.Fprintln(f, do)
}

// orders gives what the worker was told since the last time, when it has been
// told to close the camera.
func (h *hall) orders() string {
	h.t.Helper()
	var all string
	require.Eventually(h.t, func() bool {
		text, err := os.ReadFile(h.file + ".orders")
		all = strings.Join(strings.Fields(string(text)), " ")
		return err == nil && strings.HasSuffix(all, "close")
	}, patience, time.Millisecond)
	require.NoError(h.t, os.Remove(h.file+".orders"))
	return all
}

// seenPerson is what the real nets said of one of the registry's people.
type seenPerson struct {
	enrolled, checkIn vision.Embedding
	live              float64 // of the check-in
}

// seePeople lets the real worker look at everybody, once for all tests.
var seePeople = sync.OnceValues(func() ([]seenPerson, error) {
	people, err := readPeople()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rollcall-people")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var seen []seenPerson
	for i := range people {
		seen = append(seen, seenPerson{})
		for name, v := range map[string]simulator.Variation{"enrolled": simulator.AtEnrolment, "check-in": simulator.AtCheckIn} {
			f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%02d-%s.jpg", i, name)))
			if err != nil {
				return nil, err
			}
			if err := jpeg.Encode(f, people[i].Frame(v), &jpeg.Options{Quality: 90}); err != nil {
				return nil, err
			}
			if err := f.Close(); err != nil {
				return nil, err
			}
		}
	}
	return seen, analysePeople(dir, seen)
})

func analysePeople(dir string, seen []seenPerson) error {
	models, err := filepath.Abs(modelsDir)
	if err != nil {
		return err
	}
	config := filepath.Join(dir, "vision.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "camera = %q\nmodels = %q\n", "/dev/null", models), 0o600); err != nil {
		return err
	}
	w, err := newBare(config)
	if err != nil {
		return err
	}
	defer w.close()
	if _, err := vision.ReadAnswer(w.answers); err != nil { // hello
		return err
	}
	look := func(name string) (vision.Face, error) {
		if err := vision.WriteCommand(w.commands, vision.Command{Do: vision.DoPicture, ID: 1, Path: filepath.Join(dir, name)}); err != nil {
			return vision.Face{}, err
		}
		a, err := vision.ReadAnswer(w.answers)
		if err != nil || len(a.Faces) != 1 {
			return vision.Face{}, fmt.Errorf("%s: %d faces: %s: %w", name, len(a.Faces), a.Text, err)
		}
		return a.Faces[0], nil
	}
	for i := range seen {
		enrolled, err := look(fmt.Sprintf("%02d-enrolled.jpg", i))
		if err != nil {
			return err
		}
		checkIn, err := look(fmt.Sprintf("%02d-check-in.jpg", i))
		if err != nil {
			return err
		}
		seen[i] = seenPerson{enrolled.Embedding, checkIn.Embedding, checkIn.Liveness}
	}
	return nil
}

// hall is a terminal without a screen: roster, book, gallery, checker and a
// clock of its own, before a played camera.
type hall struct {
	t       *testing.T
	people  []seenPerson
	scene   scene
	file    string
	gallery *vision.Gallery
	checker *vision.Checker
	log     *lines
	roster  *attendance.Roster
	book    *attendance.Book
	seq     uint64
	now     time.Time
	look    time.Duration // how long one takes, by now

	mu       sync.Mutex // guards suspects
	suspects []bool     // what was told
}

var lookup = []byte("a lookup key of thirty-two bytes")

// newHall opens a session of everybody, and of a twin: the first person again,
// enrolled under another name.
func newHall(t *testing.T, change func(*vision.Config)) *hall {
	t.Helper()
	people, err := seePeople()
	require.NoError(t, err)
	h := &hall{t: t, people: people, log: &lines{}, book: attendance.NewBook(), now: time.Date(2026, 11, 23, 9, 1, 0, 0, time.UTC), look: 800 * time.Millisecond}
	dir := t.TempDir()
	h.file = filepath.Join(dir, "scene")
	h.scene.Model = vision.DefaultManifest().Sums()[vision.RoleEmbed]
	require.NoError(t, h.scene.write(h.file))
	worker := filepath.Join(dir, "worker")
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(worker, fmt.Appendf(nil, "#!/bin/sh\n%s=%s exec %s \"$@\"\n", sceneVariable, h.file, self), 0o700))
	h.gallery, _ = openGallery(t)
	opened := h.now // a look's own time decides nothing; the hall's moves on
	config := vision.Config{
		Worker: worker, WorkerConfig: "none", Now: func() time.Time { return opened }, Log: slog.New(slog.NewTextHandler(h.log, nil)),
		Report: func(device.PartState, device.Sentence) {},
		Suspect: func(now bool) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.suspects = append(h.suspects, now)
		},
	}
	if change != nil {
		change(&config)
	}
	h.checker, err = vision.New(config, h.gallery)
	require.NoError(t, err)
	runUntilDone(t, h.checker)
	h.enrol()
	return h
}

// twin is the second name of the first person.
const twin = attendance.TraineeID("twin")

// unenrolled is of the class and never gave their face.
const unenrolled = attendance.TraineeID("unenrolled")

func name(i int) attendance.TraineeID { return attendance.TraineeID(fmt.Sprintf("t%02d", i)) }

func (h *hall) enrol() {
	faces := map[attendance.TraineeID]vision.Embedding{twin: h.people[0].checkIn} // of another picture than t00's
	for i, p := range h.people {
		faces[name(i)] = p.enrolled
	}
	p := &attendance.Package{
		V: 1, Tenant: "demo", Terminal: "t-1", Serial: 1, Class: attendance.ClassInfo{ID: "c-1"},
		Profile: attendance.Profile{ID: "generic", Version: 1, EarlyWindowMin: 30, LateGraceMin: 60, FaceThreshold: threshold, FaceTries: 3, ConfirmDeadlineS: 15, Identify: true},
	}
	for i, hour := range []int{9, 14} {
		start := time.Date(2026, 11, 23, hour, 0, 0, 0, time.UTC)
		p.Sessions = append(p.Sessions, attendance.Session{ID: attendance.SessionID(fmt.Sprintf("s-%d", i+1)), Start: start, End: start.Add(2 * time.Hour)})
	}
	for id, face := range faces {
		hash := attendance.HashNumber(lookup, attendance.KeyUID, string(id))
		p.Trainees = append(p.Trainees, attendance.Trainee{ID: id, Keys: []attendance.RosterKey{{Kind: attendance.KeyUID, Hash: hash[:]}}})
		pending, err := h.gallery.Prepare(id, vision.Template{Model: h.scene.Model, Embedding: face})
		require.NoError(h.t, err)
		h.observe(attendance.NewRecord(attendance.TypeConsent, attendance.ConsentBody{Trainee: id, Consent: "k-" + string(id), Scope: attendance.ScopeFace, Officer: "o-1"}))
		h.observe(attendance.NewRecord(attendance.TypeEnrol, attendance.EnrolBody{
			Trainee: id, Consent: "k-" + string(id), Officer: "o-1", Model: h.scene.Model, Salt: pending.Salt, Hash: pending.Hash, Frames: 3, Quality: 0.9,
		}))
		require.NoError(h.t, pending.Commit())
	}
	hash := attendance.HashNumber(lookup, attendance.KeyUID, string(unenrolled))
	p.Trainees = append(p.Trainees, attendance.Trainee{ID: unenrolled, Keys: []attendance.RosterKey{{Kind: attendance.KeyUID, Hash: hash[:]}}})
	h.roster = attendance.NewRoster([]byte("the terminal's own key, 32 bytes")).With(p, lookup)
	h.seat()
}

// seat does what the terminal's loop does at every tap.
func (h *hall) seat() { h.checker.Seat(h.roster.Seats(h.book, h.now)) }

func (h *hall) observe(r attendance.Record) {
	h.t.Helper()
	h.seq++
	require.NoError(h.t, h.book.Observe(h.seq, r.Type, r.Body))
}

// show lets a face stand before the camera.
func (h *hall) show(face vision.Embedding, live float64) {
	h.t.Helper()
	h.scene.Face, h.scene.Live = face, live
	require.NoError(h.t, h.scene.write(h.file))
}

// tap is one visit with a trainee's card. It gives the record that it made, if
// that is of a check-in.
func (h *hall) tap(card attendance.TraineeID) attendance.CheckinBody {
	h.t.Helper()
	h.seat()
	h.checker.Open()
	tap := attendance.Tap{Kind: attendance.CardSeen, Reader: "r", At: h.now}
	visit, _ := attendance.NewVisit(h.roster, h.book, nil, tap)
	tap.Kind, tap.Credential = attendance.CardRead, attendance.Credential{
		Kind: attendance.KindUID, Level: attendance.LevelUID, UID: attendance.NewUID(string(card)),
	}
	record := h.play(visit, visit.Tap(tap, h.now))
	if record.Type != attendance.TypeCheckin {
		return attendance.CheckinBody{}
	}
	body, err := attendance.ReadBody[attendance.CheckinBody](record.Body)
	require.NoError(h.t, err)
	return body
}

// touch is one visit without a card. It gives the record that it made.
func (h *hall) touch() attendance.Record {
	h.t.Helper()
	h.seat()
	h.checker.Open()
	visit, actions := attendance.NewIdentification(h.roster, h.book, attendance.Tap{Kind: attendance.Touched, At: h.now}, h.now)
	require.NotNil(h.t, visit, "the session is open and allows it")
	return h.play(visit, actions)
}

// play does what a visit asks, in the terminal's order; a look takes h.look of
// the hall's time. It gives the visit's record.
func (h *hall) play(visit *attendance.Visit, actions []attendance.Action) attendance.Record {
	h.t.Helper()
	var looks <-chan attendance.Look
	for {
		for _, a := range actions {
			switch a := a.(type) {
			case attendance.VerifyFace:
				looks = h.checker.Verify(h.t.Context(), a.Trainee, a.Enrolment)
			case attendance.IdentifyFace:
				looks = h.checker.Identify(h.t.Context(), a.Candidates)
			case attendance.AcceptFace:
				h.checker.Accept(a.Trainee)
			case attendance.CloseCamera:
				h.checker.Close()
			case attendance.StoreRecord:
				h.observe(a.Record)
				return a.Record
			}
		}
		h.now = h.now.Add(h.look)
		if actions = visit.Tick(h.now); len(actions) > 0 && !onlyWakes(actions) {
			continue
		}
		look, open := <-looks
		if !open {
			actions = visit.Unusable()
			continue
		}
		actions = visit.Look(look, h.now)
	}
}

func onlyWakes(actions []attendance.Action) bool {
	for _, a := range actions {
		if _, ok := a.(attendance.WakeAt); !ok {
			return false
		}
	}
	return true
}
