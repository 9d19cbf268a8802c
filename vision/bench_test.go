package vision_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/simulator"
	"rollcall/vision"
)

// BenchmarkWorkerStart asks how long a new worker takes to its hello, how long
// the camera takes to open, a look to its first answer and a frame to its
// answer, and what memory the worker then holds.
func BenchmarkWorkerStart(b *testing.B) {
	people, err := readPeople()
	require.NoError(b, err)
	camera := simulator.NewCamera()
	camera.Show(people[0], simulator.AtCheckIn)
	server := httptest.NewServer(camera)
	defer server.Close()
	defer server.CloseClientConnections()
	config := workerConfig(b, server.URL)
	var hello, opened, first, age, rss []float64
	for b.Loop() {
		began := time.Now()
		since := func() float64 { return float64(time.Since(began)) / float64(time.Millisecond) }
		w := startBare(b, config)
		w.next(vision.KindHello)
		hello = append(hello, since())
		asked := since()
		w.tell(vision.DoOpen, 1)
		w.next(vision.KindOpened)
		opened = append(opened, since()-asked)
		for range 5 { // frames pass while a card's slow bytes are read
			w.tell(vision.DoOpen, 1)
			w.next(vision.KindOpened)
		}
		asked = since()
		w.tell(vision.DoLook, 2)
		w.next(vision.KindFrame)
		first = append(first, since()-asked)
		for range 20 {
			age = append(age, w.next(vision.KindFrame).AgeMS)
		}
		rss = append(rss, residentMB(b, w.cmd.Process.Pid))
		w.end()
	}
	b.ReportMetric(median(hello), "start-to-hello-ms")
	b.ReportMetric(median(opened), "open-to-opened-ms")
	b.ReportMetric(median(first), "look-to-frame-ms")
	b.ReportMetric(median(age), "frame-to-answer-ms")
	b.ReportMetric(slices.Max(rss), "rss-MB")
	b.ReportMetric(0, "ns/op") // start, open, look and end together say nothing
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

func residentMB(b *testing.B, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(b, err)
	_, after, found := strings.Cut(string(status), "VmRSS:")
	require.True(b, found)
	var kB float64
	_, err = fmt.Sscan(after, &kB)
	require.NoError(b, err)
	return kB / 1024
}

// bare is a worker without a checker.
type bare struct {
	t                 testing.TB
	cmd               *exec.Cmd
	commands, answers *os.File
}

func startBare(t testing.TB, config string) *bare {
	t.Helper()
	w, err := newBare(config)
	require.NoError(t, err)
	w.t = t
	return w
}

// newBare is startBare outside a test.
func newBare(config string) (*bare, error) {
	commandsOut, commands, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answers, answersIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(workerPath, "-config", config)
	cmd.ExtraFiles = []*os.File{commandsOut, answersIn}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &bare{cmd: cmd, commands: commands, answers: answers}, errors.Join(commandsOut.Close(), answersIn.Close())
}

func (w *bare) tell(do vision.Do, id uint64) {
	w.t.Helper()
	require.NoError(w.t, vision.WriteCommand(w.commands, vision.Command{Do: do, ID: id}))
}

// next takes answers until one of the kind; trouble is none that is waited for.
func (w *bare) next(kind vision.Kind) vision.Answer {
	w.t.Helper()
	for {
		a, err := vision.ReadAnswer(w.answers)
		require.NoError(w.t, err)
		if a.Kind == kind {
			return a
		}
		require.NotEqual(w.t, vision.KindTrouble, a.Kind, a.Text)
	}
}

// end closes the commands, as the end of the daemon does, and waits.
func (w *bare) end() {
	w.t.Helper()
	require.NoError(w.t, w.close())
}

func (w *bare) close() error {
	err := w.commands.Close()
	for {
		if _, err := vision.ReadAnswer(w.answers); err != nil {
			break
		}
	}
	return errors.Join(err, w.cmd.Wait(), w.answers.Close())
}
