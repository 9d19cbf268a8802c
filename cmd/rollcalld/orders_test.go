package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/vision"
)

// town is a centre with its own listener, and terminals that it knows.
type town struct {
	*testing.T
	dir    string
	cfg    centre.Config
	centre *centre.Centre
}

func newTown(t *testing.T) *town { return townIn(t, t.TempDir()) }

// townIn has the centre in a directory, which may be there already.
func townIn(t *testing.T, dir string) *town {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	v := &town{T: t, dir: dir, cfg: centre.Config{Tenant: "demo", Dir: filepath.Join(dir, "centre"), Listen: l.Addr().String()}}
	if err := centre.Init(v.cfg, time.Now()); !errors.Is(err, centre.ErrKeysExist) {
		require.NoError(t, err)
	}
	v.open()
	t.Cleanup(func() { assert.NoError(t, v.centre.Close()) })
	return v
}

func (v *town) open() {
	var err error
	v.centre, err = centre.Open(context.Background(), v.cfg, slog.New(slog.DiscardHandler), time.Now)
	require.NoError(v, err)
}

// serve lets terminals in until stop.
func (v *town) serve() (stop func()) {
	v.Helper()
	l, err := v.centre.Listen()
	require.NoError(v, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); assert.NoError(v, <-ended) })
	v.Cleanup(stop)
	return stop
}

// station is a terminal whose ledger holds a check-in and an enrolment, all of it
// at the centre, without a reader or a camera.
type station struct {
	*town
	id          chain.TerminalID
	file, state string
	log         chain.LogID
	checkin     chain.Seq // the record that commands correct
	trust       chain.Trust
}

const enrolled = attendance.TraineeID("p-2")

func (v *town) station(id chain.TerminalID) *station {
	v.Helper()
	s := v.admit(id)
	s.fill()
	return s
}

// admit makes a terminal without a ledger.
func (v *town) admit(id chain.TerminalID) *station {
	v.Helper()
	dir := filepath.Join(v.dir, string(id))
	require.NoError(v, os.Mkdir(dir, 0o700))
	s := &station{town: v, id: id}
	s.file, s.state = admittedAs(v.T, v.centre, dir, id, v.cfg.Listen)
	return s
}

// fill writes the ledger and has the centre receive it.
func (s *station) fill() {
	s.Helper()
	keys, err := device.OpenKeys(filepath.Join(s.state, "keys"))
	require.NoError(s, err)
	admission, err := device.LoadAdmission(filepath.Join(s.state, "keys"))
	require.NoError(s, err)
	s.trust, err = admission.Trust()
	require.NoError(s, err)
	clock, err := device.SystemClock(time.UTC)
	require.NoError(s, err)
	l, err := queue.Open(queue.Config{
		Dir: s.state, Terminal: s.id, Key: keys.Ledger(), ReceiptKey: s.trust.Receipt, Stamp: clock.Stamp, Software: "test",
	}, slog.New(slog.DiscardHandler))
	require.NoError(s, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	add := func(r attendance.Record) chain.Seq {
		stored, err := l.Append(ctx, r)
		require.NoError(s, err)
		return chain.Seq(stored.Seq)
	}
	s.checkin = add(attendance.NewRecord(attendance.TypeCheckin, attendance.CheckinBody{
		Trainee: "p-1", Class: "c-1", Session: "s-1", Decision: attendance.OnTime, Tapped: "2026-11-21T09:07:01.870+08:00",
		Card: attendance.CardEvidence{Kind: attendance.KindID, Level: attendance.LevelFile, Reader: "Reader 1"}, Profile: attendance.ProfileRef{ID: "generic", Version: 1},
	}))
	subjects, err := device.OpenSubjectKeys(filepath.Join(s.state, "keys"), filepath.Join(s.state, "subjects"))
	require.NoError(s, err)
	gallery, err := vision.OpenGallery(filepath.Join(s.state, "templates"), subjects)
	require.NoError(s, err)
	p, err := gallery.Prepare(enrolled, vision.Template{Model: "m", Embedding: vision.Embedding{1, 2}})
	require.NoError(s, err)
	add(attendance.NewRecord(attendance.TypeConsent, attendance.ConsentBody{Trainee: enrolled, Consent: "K1", Scope: attendance.ScopeFace, Officer: "O1"}))
	add(attendance.NewRecord(attendance.TypeEnrol, attendance.EnrolBody{Trainee: enrolled, Consent: "K1", Officer: "O1", Model: "m", Salt: p.Salt, Hash: p.Hash, Key: p.Key}))
	require.NoError(s, p.Commit())

	s.log = l.Status().Log
	batch, _, err := l.Batch(0, chain.MaxBatchRecords, chain.MaxBatchBytes)
	require.NoError(s, err)
	receipt, err := s.centre.Ingest(ctx, s.id, batch)
	require.NoError(s, err)
	_, err = l.Receipt(receipt)
	require.NoError(s, err)
	stop()
	require.NoError(s, <-ended)
	require.NoError(s, l.Close())
}

func (s *station) order(kind attendance.CommandKind) centre.Command {
	s.Helper()
	order := attendance.Command{Kind: kind}
	switch kind {
	case attendance.CommandCorrect:
		order.Correct = &attendance.Correct{Log: string(s.log), Seq: uint64(s.checkin), Decision: attendance.Void, Operator: "op-1", Reason: "tapped for another"}
	case attendance.CommandErase:
		order.Erase = &attendance.Erase{Trainee: enrolled, Reason: attendance.WithdrawCentre}
	case attendance.CommandResend:
		order.Resend = &attendance.Resend{Log: string(s.log), Seq: 1}
	}
	made, err := s.centre.Order(context.Background(), s.id, order, 0)
	require.NoError(s, err)
	return made
}

// answered waits until the centre has the answer to the last command.
func (s *station) answered() centre.Command {
	s.Helper()
	var last centre.Command
	require.Eventually(s, func() bool {
		commands, err := s.centre.Commands(context.Background(), s.id)
		if err == nil {
			last = commands[0]
		}
		return err == nil && last.State != centre.CommandWaiting
	}, 60*time.Second, 10*time.Millisecond, "the centre has no answer of %s", s.id)
	return last
}

// killed runs the daemon as a process until it kills itself at a point of
// [dieAt].
func (s *station) killed(point string) {
	s.Helper()
	p, said := program(s.T, s.file, point)
	timer := time.AfterFunc(time.Minute, func() { _ = p.Process.Signal(syscall.SIGQUIT) })
	defer timer.Stop()
	_ = p.Wait()
	status, _ := p.ProcessState.Sys().(syscall.WaitStatus)
	require.Equal(s, syscall.SIGKILL, status.Signal(), "it never came to %s: %s", point, said)
}

// restarted runs the daemon until the centre has its answer and erasures that
// were interrupted are finished, and ends it.
func (s *station) restarted() centre.Command {
	s.Helper()
	p, said := program(s.T, s.file, "yes")
	ready(s.T, s.state)
	command := s.answered()
	require.Eventually(s, func() bool {
		var text bytes.Buffer
		err := control.NewClient(s.state).Export(context.Background(), &text)
		return err == nil && bytes.Count(text.Bytes(), []byte(`"type":"withdraw"`)) == bytes.Count(text.Bytes(), []byte(`"type":"erase"`))
	}, 20*time.Second, 10*time.Millisecond)
	require.NoError(s, p.Process.Signal(syscall.SIGTERM))
	require.NoError(s, p.Wait(), "%s", said)
	return command
}

// count verifies the ledger and counts what a command of this serial left in
// it.
func (s *station) count(serial uint64) (found map[attendance.RecordType]int) {
	s.Helper()
	store, err := queue.OpenReadOnly(s.state)
	require.NoError(s, err)
	defer store.Close()
	admission, err := device.LoadAdmission(filepath.Join(s.state, "keys"))
	require.NoError(s, err)
	cert, err := chain.ParseCertificate(admission.Ledger)
	require.NoError(s, err)
	require.NoError(s, verifyExport(store, cert, &s.trust))
	found = map[attendance.RecordType]int{}
	require.NoError(s, store.Each(func(e chain.Entry) error {
		var body struct{ Serial uint64 }
		if err := json.Unmarshal(e.Body, &body); err != nil {
			return err
		}
		switch typ := attendance.RecordType(e.Type); typ {
		case attendance.TypeAdmin, attendance.TypeCorrection:
			if body.Serial == serial {
				found[typ]++
			}
		case attendance.TypeWithdraw, attendance.TypeErase:
			found[typ]++
		}
		return nil
	}))
	return found
}

// dieAt has a wired daemon kill itself, as by kill -9, at a point of a command.
// With "late" before the point the serial is noted after the execution: the
// fault that the tests must find.
func dieAt(d *daemon, point string) {
	if strings.HasPrefix(point, "rotate ") {
		dieInRotation(d, point)
		return
	}
	point, late := strings.CutPrefix(point, "late, ")
	at := func(here string, a ...any) {
		if fmt.Sprintf(here, a...) == point {
			_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	save, carryOut := d.commands.save, d.commands.carryOut
	d.commands.save = func(noted command) error {
		if late && noted.Result == "" {
			return nil
		}
		err := save(noted)
		switch {
		case noted.Answered:
			at("answer noted")
		case noted.Result != "":
			at("result noted")
		default:
			at("serial noted")
		}
		return err
	}
	d.commands.carryOut = func(ctx context.Context, order attendance.Command) error {
		at("begun")
		err := carryOut(ctx, order)
		at("carried out")
		return err
	}
	d.terminal.Ledger = dying{d.terminal.Ledger, at}
}

type dying struct {
	attendance.Ledger
	at func(here string, a ...any)
}

func (l dying) Append(ctx context.Context, r attendance.Record) (attendance.Stored, error) {
	l.at("before %s", r.Type)
	stored, err := l.Ledger.Append(ctx, r)
	l.at("after %s", r.Type)
	return stored, err
}

// TestT15CommandKilledAtEachStep kills a real daemon at each step of each
// command, with the centre on its own listener. It was done at most once, the
// answer says done or interrupted, once, the ledger verifies, and the centre
// learns it.
func TestT15CommandKilledAtEachStep(t *testing.T) {
	t.Parallel()
	steps := []struct {
		kind  attendance.CommandKind
		point string
		want  attendance.CommandResult
		left  map[attendance.RecordType]int // beside the answer
	}{
		{attendance.CommandCorrect, "serial noted", attendance.CommandInterrupted, nil},
		{attendance.CommandCorrect, "begun", attendance.CommandInterrupted, nil},
		{attendance.CommandCorrect, "before correction", attendance.CommandInterrupted, nil},
		{attendance.CommandCorrect, "after correction", attendance.CommandInterrupted, map[attendance.RecordType]int{attendance.TypeCorrection: 1}},
		{attendance.CommandCorrect, "carried out", attendance.CommandInterrupted, map[attendance.RecordType]int{attendance.TypeCorrection: 1}},
		{attendance.CommandCorrect, "result noted", attendance.CommandDone, map[attendance.RecordType]int{attendance.TypeCorrection: 1}},
		{attendance.CommandCorrect, "before admin", attendance.CommandDone, map[attendance.RecordType]int{attendance.TypeCorrection: 1}},
		{attendance.CommandCorrect, "after admin", attendance.CommandDone, map[attendance.RecordType]int{attendance.TypeCorrection: 1}},
		{attendance.CommandCorrect, "answer noted", attendance.CommandDone, map[attendance.RecordType]int{attendance.TypeCorrection: 1}},
		{attendance.CommandErase, "serial noted", attendance.CommandInterrupted, nil},
		{attendance.CommandErase, "before withdraw", attendance.CommandInterrupted, nil},
		{attendance.CommandErase, "after withdraw", attendance.CommandInterrupted, map[attendance.RecordType]int{attendance.TypeWithdraw: 1, attendance.TypeErase: 1}},
		{attendance.CommandErase, "before erase", attendance.CommandInterrupted, map[attendance.RecordType]int{attendance.TypeWithdraw: 1, attendance.TypeErase: 1}},
		{attendance.CommandErase, "after erase", attendance.CommandInterrupted, map[attendance.RecordType]int{attendance.TypeWithdraw: 1, attendance.TypeErase: 1}},
		{attendance.CommandErase, "result noted", attendance.CommandDone, map[attendance.RecordType]int{attendance.TypeWithdraw: 1, attendance.TypeErase: 1}},
		{attendance.CommandResend, "begun", attendance.CommandInterrupted, nil},
		{attendance.CommandResend, "carried out", attendance.CommandInterrupted, nil},
		{attendance.CommandResend, "after admin", attendance.CommandDone, nil},
	}
	v := newTown(t)
	stations, orders := make([]*station, len(steps)), make([]centre.Command, len(steps))
	for i, step := range steps {
		stations[i] = v.station(chain.TerminalID(fmt.Sprintf("t-%d", i+1)))
		orders[i] = stations[i].order(step.kind)
	}
	v.serve()
	t.Run("steps", func(t *testing.T) {
		for i, step := range steps {
			t.Run(fmt.Sprintf("%s, %s", step.kind, step.point), func(t *testing.T) {
				t.Parallel()
				s := stations[i].in(t)
				s.killed(step.point)
				if step.point == "before erase" {
					assert.False(t, s.hasTemplate(), "key and file are gone, and no record says so yet")
				}
				command := s.restarted()
				assert.Equal(t, string(step.want), command.State)
				want := map[attendance.RecordType]int{attendance.TypeAdmin: 1}
				maps.Copy(want, step.left)
				assert.Equal(t, want, s.count(orders[i].Serial))
				assert.Equal(t, step.left[attendance.TypeErase] == 0, s.hasTemplate())
			})
		}
	})
}

// in is the station for the help of a subtest.
func (s *station) in(t *testing.T) *station {
	town, copied := *s.town, *s
	town.T = t
	copied.town = &town
	return &copied
}

func (s *station) hasTemplate() bool {
	files, err := os.ReadDir(filepath.Join(s.state, "templates"))
	require.NoError(s, err)
	return len(files) > 0
}

// TestT15CommandKilledControl: were the serial noted after the execution, the
// test above would see the command done twice.
func TestT15CommandKilledControl(t *testing.T) {
	t.Parallel()
	s := newTown(t).station("t-1")
	made := s.order(attendance.CommandCorrect)
	s.serve()
	s.killed("late, after correction")
	command := s.restarted()
	found := s.count(made.Serial)
	t.Logf("control: serial noted after the execution: answered %s, done %d times", command.State, found[attendance.TypeCorrection])
	assert.Equal(t, 2, found[attendance.TypeCorrection])
}

var commandKills = flag.Int("command-kills", 6, "times that TestT15CommandKilledAtRandom kills rollcalld")

// TestT15CommandKilledAtRandom kills a real daemon at some moment: in every other
// round between its start and the answer (the first one, which is not killed,
// says how long that takes), else just after the serial is noted.
func TestT15CommandKilledAtRandom(t *testing.T) {
	t.Parallel()
	v := newTown(t)
	var stations []*station
	var orders []centre.Command
	for i := range *commandKills + 1 {
		stations = append(stations, v.station(chain.TerminalID(fmt.Sprintf("t-%d", i+1))))
		orders = append(orders, stations[i].order([]attendance.CommandKind{attendance.CommandCorrect, attendance.CommandErase}[i%2]))
	}
	v.serve()
	began := time.Now()
	require.Equal(t, string(attendance.CommandDone), stations[0].restarted().State)
	span := time.Since(began)
	moments := map[string]int{}
	for i, s := range stations[1:] {
		p, said := program(t, s.file, "yes")
		moment := rand.N(span)
		if i%2 == 0 {
			require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(s.state, commandsFile)); return err == nil }, 20*time.Second, time.Millisecond)
			moment = rand.N(8 * time.Millisecond)
		}
		timer := time.AfterFunc(moment, func() { _ = p.Process.Kill() })
		_ = p.Wait()
		timer.Stop()
		require.NotContains(t, said.String(), "panic")
		noted := "before its serial was noted"
		if text, err := os.ReadFile(filepath.Join(s.state, commandsFile)); err == nil {
			var c command
			require.NoError(t, json.Unmarshal(text, &c))
			switch {
			case c.Answered:
				noted = "after its answer"
			case c.Result == "":
				noted = "at it"
			default:
				noted = "before its answer"
			}
		}
		moments[noted]++
		state := attendance.CommandResult(s.restarted().State)
		assert.Contains(t, []attendance.CommandResult{attendance.CommandDone, attendance.CommandInterrupted}, state)
		found := s.count(orders[i+1].Serial)
		assert.Equal(t, 1, found[attendance.TypeAdmin])
		assert.LessOrEqual(t, found[attendance.TypeCorrection]+found[attendance.TypeErase], 1)
		assert.Equal(t, found[attendance.TypeWithdraw], found[attendance.TypeErase], "what was begun is finished")
		if state == attendance.CommandDone {
			assert.Equal(t, 1, found[attendance.TypeCorrection]+found[attendance.TypeErase])
		}
	}
	t.Logf("%d kills: %v; each done at most once, answered once", *commandKills, moments)
}

// received gives the lines that the centre holds of a terminal, in order.
func (s *station) received() (lines []string) {
	s.Helper()
	rows, err := s.centre.Find(context.Background(), centre.Query{Terminal: string(s.id), Limit: 1000})
	require.NoError(s, err)
	require.NoError(s, s.centre.Records(context.Background(), s.id, true, func(r centre.Row) error {
		lines = append(lines, fmt.Sprint(r.Seq, " ", r.Type, " ", r.Hash))
		return nil
	}))
	require.Len(s, rows, len(lines), "none is stored twice")
	return lines
}

// held gives the same of the terminal's own ledger.
func (s *station) held() (lines []string) {
	s.Helper()
	var text bytes.Buffer
	require.NoError(s, control.NewClient(s.state).Export(context.Background(), &text))
	for line := range bytes.Lines(text.Bytes()) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if e, err := chain.ParseLine(line); err == nil {
			lines = append(lines, fmt.Sprint(uint64(e.Seq), " ", e.Type, " ", chain.HashLine(line)))
		}
	}
	return lines
}

// arrived waits until the centre holds what the terminal does.
func (s *station) arrived() {
	s.Helper()
	require.Eventually(s, func() bool { return slices.Equal(s.held(), s.received()) }, 30*time.Second, 20*time.Millisecond)
}

// online waits until the terminal says so, or the contrary.
func (s *station) online(want device.PartState) {
	s.Helper()
	require.Eventually(s, func() bool {
		status, err := control.NewClient(s.state).Status(context.Background())
		part, _ := status.Health.Part(device.PartUplink)
		return err == nil && part.State == want
	}, 30*time.Second, 10*time.Millisecond)
}

// TestResendAfterTheCentreWasPutBack: a centre whose database is put back from
// an older copy has forgotten records and its own commands; the terminal has
// nothing new to send. It orders resend and has every record again, to the
// byte, each once.
func TestResendAfterTheCentreWasPutBack(t *testing.T) {
	t.Parallel()
	v := newTown(t)
	s := v.station("t-1")
	database := filepath.Join(v.cfg.Dir, "centre.db")
	require.NoError(t, v.centre.Close())
	copied, err := os.ReadFile(database)
	require.NoError(t, err)
	v.open()
	s.order(attendance.CommandCorrect)
	s.order(attendance.CommandErase)
	stop := v.serve()
	end := start(t, s.file, s.state)
	require.Equal(t, string(attendance.CommandDone), s.answered().State)
	s.arrived()
	all := s.received()
	require.GreaterOrEqual(t, len(all), 9, "four and what the commands left")

	stop()
	s.online(device.StateDegraded)
	require.NoError(t, v.centre.Close())
	for _, beside := range []string{database + "-wal", database + "-shm"} {
		require.NoError(t, os.RemoveAll(beside))
	}
	require.NoError(t, os.WriteFile(database, copied, 0o600))
	v.open()
	v.serve()
	s.online(device.StateOK)
	require.Len(t, s.received(), 4, "control: an idle terminal sends nothing of itself")

	made := s.order(attendance.CommandResend)
	answer := s.answered()
	assert.Equal(t, made.Serial, answer.Serial)
	assert.Equal(t, string(attendance.CommandDone), answer.State, answer.Reason)
	s.arrived()
	assert.Equal(t, all, s.received()[:len(all)])
	require.NoError(t, end())
}

// TestT18CorrectionShowsBothVersions: the check-in as it was and what counts
// instead, in what the centre gives to read. (What rollcall ledger show makes of
// them: cmd/rollcall.)
func TestT18CorrectionShowsBothVersions(t *testing.T) {
	t.Parallel()
	v := newTown(t)
	v.cfg.Read = "127.0.0.1:0"
	require.NoError(t, v.centre.Close())
	v.open()
	s := v.station("t-1")
	s.order(attendance.CommandCorrect)
	v.serve()
	end := start(t, s.file, s.state)
	require.Equal(t, string(attendance.CommandDone), s.answered().State)
	require.NoError(t, end())

	var decisions []string
	for _, r := range v.read("/v1/records?terminal=t-1") {
		if r.Decision != "" && r.Type != string(attendance.TypeAdmin) {
			decisions = append(decisions, fmt.Sprint(r.Seq, " ", r.Type, " ", r.Decision, " ", r.Reason))
		}
	}
	require.Len(t, decisions, 2)
	assert.Equal(t, "2 checkin on_time ", decisions[0])
	assert.Contains(t, decisions[1], fmt.Sprintf("correction void record 2 of %s, by op-1: tapped for another", s.log))
}

// read asks the centre as another system does.
func (v *town) read(path string) []centre.Row {
	v.Helper()
	reading, err := v.centre.Reading()
	require.NoError(v, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- reading.Run(ctx) }()
	defer func() { cancel(); assert.NoError(v, <-ended) }()
	token, err := v.centre.AddReader(ctx, "school")
	require.NoError(v, err)
	ca, err := os.ReadFile(filepath.Join(v.cfg.Dir, "keys", "ca.crt"))
	require.NoError(v, err)
	pool := x509.NewCertPool()
	require.True(v, pool.AppendCertsFromPEM(ca))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+reading.Address()+path, nil)
	require.NoError(v, err)
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := client.Do(request)
	require.NoError(v, err)
	defer response.Body.Close()
	require.Equal(v, http.StatusOK, response.StatusCode)
	var answer struct{ Records []centre.Row }
	require.NoError(v, json.NewDecoder(response.Body).Decode(&answer))
	return answer.Records
}
