package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
	"rollcall/cmd/internal/probe"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/simulator"
)

// theProgram lets the test binary be rollcalld, so that tests can kill it: with
// "yes" as it is; with "early" it answers a moment before the disk has the
// record; else it kills itself at the point of a command that [dieAt] knows.
const theProgram = "ROLLCALLD_IS_THE_PROGRAM"

// programs is where tests build other programs.
var programs string

func TestMain(m *testing.M) {
	probe.Main()
	switch how := os.Getenv(theProgram); how {
	case "":
		_ = os.Setenv("PCSCLITE_CSOCK_NAME", "/nonexistent/pcscd") // no test here has a card reader
		var err error
		if programs, err = os.MkdirTemp("", "rollcalld-test-"); err != nil {
			panic(err)
		}
		status := m.Run()
		_ = os.RemoveAll(programs)
		os.Exit(status)
	case "yes":
		main()
		os.Exit(0)
	case "early":
		fmt.Fprintln(os.Stderr, runSpoilt(os.Args[2], func(d *daemon) { d.terminal.Ledger = early{d.ledger} }))
	default:
		fmt.Fprintln(os.Stderr, runSpoilt(os.Args[2], func(d *daemon) { dieAt(d, how) }))
	}
	os.Exit(1)
}

func runSpoilt(file string, spoil func(*daemon)) error {
	cfg, zone, err := loadConfig(file)
	if err != nil {
		return err
	}
	d, err := wire(cfg, zone, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	spoil(d)
	return d.run(context.Background())
}

// early is the fault that the harness must find.
type early struct{ attendance.Ledger }

func (e early) Append(ctx context.Context, r attendance.Record) (attendance.Stored, error) {
	time.AfterFunc(20*time.Millisecond, func() { _, _ = e.Ledger.Append(ctx, r) })
	return attendance.Stored{Seq: 1 << 40, Code: "0000-0000"}, nil
}

// program starts rollcalld as a process of its own.
func program(t testing.TB, file, how string) (p *exec.Cmd, said *bytes.Buffer) {
	t.Helper()
	p, said = exec.Command(os.Args[0], "-config", file), &bytes.Buffer{}
	p.Env = append(os.Environ(), theProgram+"="+how, "GORACE=atexit_sleep_ms=0")
	p.Stderr = said
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that times out must not leave it behind
	require.NoError(t, p.Start())
	return p, said
}

// Two daemons on one state directory: the second ends with status 1 and a plain
// sentence.
func TestF39SecondDaemonEnds(t *testing.T) {
	t.Parallel()
	file, state := admitted(t)
	stop := start(t, file, state)
	second, said := program(t, file, "yes")
	assert.Error(t, second.Wait())
	assert.Equal(t, 1, second.ProcessState.ExitCode())
	assert.Contains(t, said.String(), queue.ErrInUse.Error())
	assert.NotContains(t, said.String(), "goroutine")
	require.NoError(t, stop())
}

var kills = flag.Int("kills", 8, "times that TestF23KilledDaemon kills rollcalld")

// scanRoom is a terminal with a scanner, and people who watch its screen.
type scanRoom struct {
	file, state string
	scanner     *simulator.GM65
	codes       int // shown so far
}

func newScanRoom(t *testing.T) *scanRoom {
	r := &scanRoom{scanner: &simulator.GM65{End: "\r"}}
	r.file, r.state = admitted(t)
	dir := filepath.Dir(r.state)
	line, err := simulator.PlugSerial(filepath.Join(dir, "scanner"), 115200, r.scanner)
	require.NoError(t, err)
	t.Cleanup(line.Unplug)
	publish(t, dir, r.state, simulator.InventHolder(7))
	text, err := os.ReadFile(r.file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(r.file, fmt.Appendf(text, "[[serial]]\nkind = \"qr-gm65\"\npath = %q\n", filepath.Join(dir, "scanner")), 0o600))
	return r
}

// killed starts the daemon, shows codes until so many were answered by a screen
// that says stored, shows another and kills the daemon at some moment of it.
// With 0 answers it is killed at some moment of its start. It gives the codes
// that were on the screen.
func (r *scanRoom) killed(t *testing.T, answers int, how string) (seen []string) {
	t.Helper()
	p, said := program(t, r.file, how)
	if answers == 0 {
		timer := time.AfterFunc(rand.N(60*time.Millisecond), func() { _ = p.Process.Kill() })
		defer timer.Stop()
		_ = p.Wait()
		return nil
	}
	viewer := simulator.NewViewer(r.panel(t, said))
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	var watching sync.WaitGroup
	watching.Go(func() { _ = viewer.Run(ctx) })
	for range answers {
		mark := viewer.Mark()
		r.show()
		sight, err := viewer.Await(ctx, mark, stored)
		require.NoError(t, err, "%s", said)
		seen = append(seen, sight.Screen.Code)
	}
	mark := viewer.Mark()
	timer := time.AfterFunc(rand.N(25*time.Millisecond), func() { _ = p.Process.Kill() })
	r.show()
	_ = p.Wait()
	timer.Stop()
	stop()
	watching.Wait()
	over, ended := context.WithCancel(t.Context())
	ended()
	if sight, err := viewer.Await(over, mark, stored); err == nil {
		seen = append(seen, sight.Screen.Code)
	}
	return seen
}

func stored(s attendance.Screen) bool { return s.State.Stored() && s.Code != "" }

func (r *scanRoom) show() {
	r.codes++
	r.scanner.Show(fmt.Sprintf("860132450123%08d", r.codes))
}

// panel waits until the daemon can store a check-in and gives its address.
func (r *scanRoom) panel(t *testing.T, said *bytes.Buffer) string {
	t.Helper()
	address := ""
	require.Eventually(t, func() bool {
		status, err := control.NewClient(r.state).Status(t.Context())
		address = strings.TrimPrefix(status.Panel, "http://")
		reader, spoke := status.Health.Part(device.PartReader) // the scanner, and no card reader
		return err == nil && status.Health.Ready && spoke && reader.State == device.StateDegraded
	}, 20*time.Second, 5*time.Millisecond, "%s", said)
	return address
}

// records gives the codes of what was scanned, in order, and checks the chain.
func (r *scanRoom) records(t *testing.T) (codes []string) {
	t.Helper()
	store, err := queue.OpenReadOnly(r.state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // killed before it made one
	}
	require.NoError(t, err)
	defer store.Close()
	admission, err := device.LoadAdmission(filepath.Join(r.state, "keys"))
	require.NoError(t, err)
	trust, err := admission.Trust()
	require.NoError(t, err)
	cert, err := chain.ParseCertificate(admission.Ledger)
	require.NoError(t, err)
	require.NoError(t, verifyExport(store, cert, &trust))
	require.NoError(t, store.Each(func(e chain.Entry) error {
		line, err := e.Line()
		if e.Type == string(attendance.TypePending) {
			codes = append(codes, chain.HashLine(line).Short())
		}
		return err
	}))
	return codes
}

func verifyExport(store *queue.Store, cert *x509.Certificate, trust *chain.Trust) error {
	var text bytes.Buffer
	if err := store.Export(&text, cert); err != nil {
		return err
	}
	v := chain.NewVerifier(trust, nil)
	for line := range bytes.Lines(text.Bytes()) {
		if err := v.Line(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return err
		}
	}
	_, err := v.Report()
	return err
}

// What the screen said is stored is on disk, whenever the daemon is killed.
func TestF23KilledDaemon(t *testing.T) {
	t.Parallel()
	r := newScanRoom(t)
	var seen []string
	for round := range *kills {
		before := len(seen)
		seen = append(seen, r.killed(t, round%4, "yes")...)
		codes := r.records(t)
		require.Subset(t, codes, seen[before:], "round %d", round)
		require.GreaterOrEqual(t, len(codes), len(seen))
	}
	assert.Subset(t, r.records(t), seen)
	t.Logf("%d kills of the daemon, %d of them while it started; %d records that the screen had shown, none lost", *kills, (*kills+3)/4, len(seen))
}

// The harness finds a daemon that answers 20 ms before it stores.
func TestF23KilledDaemonControl(t *testing.T) {
	t.Parallel()
	r := newScanRoom(t)
	require.NoError(t, start(t, r.file, r.state)()) // makes the ledger
	shown, lost := 0, 0
	for range max(4, *kills/10) {
		before := len(r.records(t))
		seen := len(r.killed(t, 2, "early"))
		shown += seen
		lost += max(0, seen-(len(r.records(t))-before))
	}
	t.Logf("control: %d of %d records that the screen had shown were lost", lost, shown)
	assert.Positive(t, lost, "the harness would not notice a lost record")
}
