package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"rollcall/attendance"
)

// The names of the stage's terminal and tenant.
const (
	stageTerminal = "t-demo"
	stageTenant   = "demo"
)

// StageConfig says where a stage finds what it needs.
type StageConfig struct {
	Dir    string // emptied and filled: state, logs, configuration
	Bin    string // where the programs are
	Models string // the nets, from make models
	People string // the pictures, from make models
	Panel  string // the panel's address; empty takes a free port

	Daemon string    // another daemon than Bin/rollcalld: the control's
	Env    []string  // added to the daemon's environment
	Out    io.Writer // a line for everything that happens

	// Wire is told of every message that terminal and centre publish, by several
	// goroutines; nil leaves their connection alone.
	Wire func(topic string, payload []byte)
}

// Stage is one classroom and its centre on one machine, made of the real
// programs: pcscd with virtual readers, a network camera, a network that can
// be cut, rollcall-centre, rollcalld and its camera worker. Its methods belong
// to one goroutine.
type Stage struct {
	StageConfig
	Viewer *Viewer

	people  map[string]Person
	pcscd   *Pcscd
	slot    *Slot
	camera  *Camera
	cameras *http.Server
	video   string // the camera's address
	link    *Link
	listen  string // the centre's address behind the link
	centre  *Process
	daemon  *Process
	running sync.WaitGroup // link, viewer, camera
	end     context.CancelFunc
}

// OpenStage brings everything up but the centre and the terminal, which
// [Stage.Admit] and [Stage.Start] do. Close ends it, also after an error.
func OpenStage(ctx context.Context, c StageConfig) (*Stage, error) {
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	s := &Stage{StageConfig: c, end: end, people: map[string]Person{}, camera: NewCamera()}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stage) open(ctx context.Context) error {
	if err := s.prepareDir(); err != nil {
		return err
	}
	people, err := LoadPeople(s.People)
	if err != nil {
		return err
	}
	for _, p := range people {
		s.people[p.Label] = p
	}
	if err := s.openCamera(); err != nil {
		return err
	}
	if err := s.openReaders(); err != nil {
		return err
	}
	if s.listen, err = freePort(); err != nil {
		return err
	}
	if s.Panel == "" {
		if s.Panel, err = freePort(); err != nil {
			return err
		}
	}
	target := s.listen
	if s.Wire != nil {
		if target, err = s.openTap(ctx); err != nil {
			return err
		}
	}
	if s.link, err = NewLink(target); err != nil {
		return err
	}
	s.running.Go(func() { _ = s.link.Run(ctx) })
	s.Viewer = NewViewer(s.Panel)
	s.running.Go(func() { _ = s.Viewer.Run(ctx) })
	return s.writeConfig()
}

// prepareDir empties the stage's directory. It refuses one that holds
// something else.
func (s *Stage) prepareDir() error {
	marker := filepath.Join(s.Dir, ".rollcall-stage")
	entries, err := os.ReadDir(s.Dir)
	if err == nil && len(entries) > 0 {
		if _, err := os.Stat(marker); err != nil {
			return fmt.Errorf("%s holds something else: name an empty directory for the stage", s.Dir)
		}
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		return err
	}
	for _, dir := range []string{"terminal", "centre", "pcscd"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, dir), 0o700); err != nil {
			return err
		}
	}
	return os.WriteFile(marker, nil, 0o600)
}

func (s *Stage) openCamera() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.video = "http://" + listener.Addr().String() + "/camera.mjpg"
	s.cameras = &http.Server{Handler: s.camera}
	s.running.Go(func() { _ = s.cameras.Serve(listener) })
	return nil
}

func (s *Stage) openReaders() error {
	pcscd, err := NewPcscd(s.path("pcscd"), "Desk")
	if err != nil {
		return err
	}
	if err := pcscd.Start(); err != nil {
		return err
	}
	s.pcscd, s.slot = pcscd, pcscd.Slot(0, 0)
	return nil
}

// openTap puts a tap before the centre and gives its address.
func (s *Stage) openTap(ctx context.Context) (address string, err error) {
	t := &tap{target: s.listen, centre: s.path("centre", "keys"), terminal: s.path("terminal", "keys"), wire: s.Wire}
	if t.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return "", err
	}
	s.running.Go(func() { t.run(ctx) })
	return t.listener.Addr().String(), nil
}

func (s *Stage) path(parts ...string) string {
	return filepath.Join(append([]string{s.Dir}, parts...)...)
}

// freePort gives a loopback address that was free a moment ago, for programs
// that must come back at the same address after they were killed.
func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// Close ends every program of the stage, the terminal first.
func (s *Stage) Close() {
	for _, p := range []*Process{s.daemon, s.centre} {
		if p != nil {
			p.Stop()
		}
	}
	s.end()
	if s.cameras != nil {
		_ = s.cameras.Close()
	}
	if s.pcscd != nil {
		_ = s.pcscd.Stop()
	}
	s.running.Wait()
}

// tool runs one of the programs to its end and gives what it printed.
func (s *Stage) tool(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(s.Bin, name), args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s %s: %w: %s", name, args[0], err, strings.TrimSpace(complaint.String()))
	}
	return out.Bytes(), nil
}

// Admit makes the centre's keys and the terminal's, and lets the centre admit
// the terminal: what an institution does once for each box.
func (s *Stage) Admit(ctx context.Context) error {
	if _, err := s.tool(ctx, "rollcall-centre", "init", "-config", s.path("centre.toml")); err != nil {
		return err
	}
	request, err := s.tool(ctx, "rollcall", "terminal", "request", "-state", s.path("terminal"), "-id", stageTerminal)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("request.json"), request, 0o600); err != nil {
		return err
	}
	admission, err := s.tool(ctx, "rollcall-centre", "admit", "-config", s.path("centre.toml"), s.path("request.json"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("admission.json"), admission, 0o600); err != nil {
		return err
	}
	_, err = s.tool(ctx, "rollcall", "terminal", "admit", "-state", s.path("terminal"), s.path("admission.json"))
	return err
}

// StartCentre starts the centre and waits until it listens.
func (s *Stage) StartCentre(ctx context.Context) error {
	centre, err := StartProcess(s.path("centre.log"), nil, filepath.Join(s.Bin, "rollcall-centre"), "serve", "-config", s.path("centre.toml"))
	if err != nil {
		return err
	}
	s.centre = centre
	return s.until(ctx, s.centre, "centre.log", func() bool {
		conn, err := net.Dial("tcp", s.listen)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

// StartTerminal starts the daemon and waits until it can store a check-in.
func (s *Stage) StartTerminal(ctx context.Context) error {
	program := s.Daemon
	if program == "" {
		program = filepath.Join(s.Bin, "rollcalld")
	}
	env := append([]string{"PCSCLITE_CSOCK_NAME=" + s.pcscd.Address()}, s.Env...)
	daemon, err := StartProcess(s.path("daemon.log"), env, program, "-config", s.path("rollcalld.toml"))
	if err != nil {
		return err
	}
	s.daemon = daemon
	return s.until(ctx, s.daemon, "daemon.log", func() bool {
		response, err := http.Get("http://" + s.Panel + "/readyz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// until waits for a program to do something, and says what it last logged if
// it ends instead.
func (s *Stage) until(ctx context.Context, p *Process, log string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("%s ended by itself: %s", strings.TrimSuffix(log, ".log"), s.lastLine(log))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; see %s", strings.TrimSuffix(log, ".log"), ctx.Err(), s.path(log))
		}
	}
	return nil
}

func (s *Stage) lastLine(log string) string {
	text, err := os.ReadFile(s.path(log))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// terminalStatus is what the stage reads of `rollcall status --json`.
type terminalStatus struct {
	Ledger struct {
		Last      uint64 `json:"last"`
		Receipted uint64 `json:"receipted"`
	} `json:"ledger"`
	Classes []struct {
		Class  string `json:"class"`
		Serial uint64 `json:"serial"`
	} `json:"classes"`
	Worker struct {
		PID      int `json:"pid"`
		Restarts int `json:"restarts"`
	} `json:"worker"`
	Health struct {
		Parts []struct {
			Part  string `json:"part"`
			State string `json:"state"`
		} `json:"parts"`
	} `json:"health"`
}

func (t terminalStatus) part(name string) string {
	for _, p := range t.Health.Parts {
		if p.Part == name {
			return p.State
		}
	}
	return ""
}

func (s *Stage) status(ctx context.Context) (terminalStatus, error) {
	var status terminalStatus
	text, err := s.tool(ctx, "rollcall", "status", "-state", s.path("terminal"), "-json")
	if err != nil {
		return status, err
	}
	return status, json.Unmarshal(text, &status)
}

// awaitStatus waits until the terminal's status is as wanted.
func (s *Stage) awaitStatus(ctx context.Context, what string, limit time.Duration, wanted func(terminalStatus) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New(what+" did not come about"))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := s.status(ctx)
		if err == nil && wanted(status) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("terminal: %w", context.Cause(ctx))
		}
	}
}

// Receipted waits until the centre has confirmed everything on the terminal.
func (s *Stage) Receipted(ctx context.Context) error {
	return s.awaitStatus(ctx, "the centre's receipt for the last record", 30*time.Second, func(t terminalStatus) bool {
		return t.Ledger.Last > 0 && t.Ledger.Receipted == t.Ledger.Last
	})
}

// Enrol enrols a trainee who stands before the camera and does as the screen
// says, and the officer confirms with a card.
func (s *Stage) Enrol(ctx context.Context, t Trainee) error {
	ctx, cancel := context.WithTimeout(ctx, enrolLimit)
	defer cancel()
	s.camera.Show(s.people[t.Face], AtEnrolment)
	defer s.camera.Empty()
	mark := s.Viewer.Mark()
	var group sync.WaitGroup
	defer group.Wait()
	following, end := context.WithCancel(ctx)
	defer end()
	group.Go(func() { s.confirm(following, mark) })
	group.Go(func() { s.follow(following, mark, t) })
	said, err := s.tool(ctx, "rollcall", "enrol", "-state", s.path("terminal"), "-trainee", t.ID, "-consent", "consent-"+t.ID)
	if err != nil {
		return fmt.Errorf("%w; it said before:\n%s", err, said)
	}
	_, err = s.Viewer.Await(ctx, mark, func(s attendance.Screen) bool { return s.State == attendance.ScreenEnrolled })
	return err
}

// enrolLimit is how long an enrolment may take on the stage.
const enrolLimit = 90 * time.Second

// confirm inserts the officer's card when the screen asks for it, and takes it
// out when the camera looks.
func (s *Stage) confirm(ctx context.Context, mark int) {
	at := func(state attendance.ScreenState) error {
		_, err := s.Viewer.Await(ctx, mark, func(s attendance.Screen) bool { return s.State == state })
		return err
	}
	if at(attendance.ScreenEnrolOfficer) != nil {
		return
	}
	remove, err := s.slot.Insert(NewCard(officerHolder()))
	if err != nil {
		return // the enrolment says that no card came
	}
	_ = at(attendance.ScreenEnrolLook)
	remove()
}

// follow turns the trainee's head as the screen advises.
func (s *Stage) follow(ctx context.Context, mark int, t Trainee) {
	poses := map[attendance.Advice]attendance.Pose{
		attendance.AdviceLeft: attendance.PoseLeft, attendance.AdviceRight: attendance.PoseRight, attendance.AdviceTurnTo: attendance.PoseFront,
	}
	now := attendance.PoseFront
	for {
		sight, err := s.Viewer.Await(ctx, mark, func(s attendance.Screen) bool {
			pose, advised := poses[s.Advice]
			return s.State == attendance.ScreenEnrolLook && advised && pose != now
		})
		if err != nil {
			return
		}
		mark, now = s.Viewer.after(sight), poses[sight.Screen.Advice]
		s.camera.Show(s.people[t.Face], Posed(now))
	}
}

// answered reports whether a screen ends a tap.
func answered(s attendance.Screen) bool {
	switch s.State {
	case attendance.ScreenAlready, attendance.ScreenPaused:
		return true
	case attendance.ScreenCardFault:
		return s.Code != ""
	}
	return s.State.Stored()
}
