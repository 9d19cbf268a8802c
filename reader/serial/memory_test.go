package serial_test

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader/serial"
	"rollcall/simulator"
)

// wire is a serial line in memory, which also works in virtual time. The
// driver's end is a serial.Port, the device's an io.ReadWriter.
type wire struct {
	toHost, toDevice chan []byte
	gone             chan struct{}
	opened           chan struct{} // closed when the driver has opened the line
	open             func()
	unplug           func()

	timeout time.Duration // the driver's
	rest    []byte
}

func newWire() *wire {
	w := &wire{toHost: make(chan []byte, 4096), toDevice: make(chan []byte, 64), gone: make(chan struct{}), opened: make(chan struct{})}
	w.open = sync.OnceFunc(func() { close(w.opened) })
	w.unplug = sync.OnceFunc(func() { close(w.gone) })
	return w
}

func (w *wire) Read(b []byte) (int, error) {
	if len(w.rest) == 0 {
		t := time.NewTimer(w.timeout)
		defer t.Stop()
		select {
		case w.rest = <-w.toHost:
		case <-t.C:
			return 0, nil
		case <-w.gone:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(b, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *wire) Write(b []byte) (int, error) {
	select {
	case w.toDevice <- append([]byte(nil), b...):
		return len(b), nil
	case <-w.gone:
		return 0, io.ErrClosedPipe
	}
}

func (w *wire) SetReadTimeout(d time.Duration) error { w.timeout = d; return nil }
func (w *wire) SetSpeed(int) error                   { return nil }
func (w *wire) Close() error                         { return nil }
func (w *wire) Flush() error {
	w.rest = nil
	defer w.open()
	for {
		select {
		case <-w.toHost:
		default:
			return nil
		}
	}
}

// end is the device's end of a wire.
type end struct{ *wire }

func (e end) Read(b []byte) (int, error) {
	select {
	case got := <-e.toDevice:
		return copy(b, got), nil
	case <-e.gone:
		return 0, io.EOF
	}
}

func (e end) Write(b []byte) (int, error) {
	select {
	case e.toHost <- append([]byte(nil), b...):
		return len(b), nil
	case <-e.gone:
		return 0, io.ErrClosedPipe
	}
}

// station is a driver at work.
type station struct {
	t       *testing.T
	taps    chan attendance.Tap
	reports chan error
	stop    func()
}

// start runs a driver until the test ends.
func start(t *testing.T, d *serial.Driver, reports chan error) *station {
	t.Helper()
	s := &station{t: t, taps: make(chan attendance.Tap, 1024), reports: reports}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, s.taps) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	t.Cleanup(s.stop)
	return s
}

func newDriver(t *testing.T, cfg serial.Config, log *slog.Logger) (*serial.Driver, chan error) {
	t.Helper()
	reports := make(chan error, 1024)
	if cfg.Path == "" {
		cfg.Path = "in memory"
	}
	d, err := serial.New(cfg, time.Now, log, func(_ string, err error) { reports <- err })
	require.NoError(t, err)
	return d, reports
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// inMemory runs a driver against a twin over a wire; it may be called in a
// bubble of virtual time.
func inMemory(t *testing.T, cfg serial.Config, twin simulator.SerialTwin) (*station, *wire) {
	t.Helper()
	w := newWire()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { twin.Serve(ctx, end{w}) })
	d, reports := newDriver(t, cfg, quiet())
	d.OpenWith(func(string, int) (serial.Port, error) { return w, nil })
	s := start(t, d, reports)
	<-w.opened // what came before is nobody's
	t.Cleanup(func() {
		s.stop()
		cancel()
		w.unplug()
		serving.Wait()
	})
	return s, w
}

const patience = 20 * time.Second

// next gives the next tap and wants it to be of a kind.
func (s *station) next(kind attendance.TapKind) attendance.Tap {
	s.t.Helper()
	select {
	case tap := <-s.taps:
		require.Equal(s.t, kind.String(), tap.Kind.String(), "fault %q", tap.Fault)
		return tap
	case <-time.After(patience):
		require.Fail(s.t, "no tap", "want %s", kind)
	}
	panic("unreachable")
}

// report gives the next report.
func (s *station) report() error {
	s.t.Helper()
	select {
	case err := <-s.reports:
		return err
	case <-time.After(patience):
		require.Fail(s.t, "no report")
	}
	return nil
}

// card wants a card seen and read.
func (s *station) card() attendance.Credential {
	s.t.Helper()
	s.next(attendance.CardSeen)
	return s.next(attendance.CardRead).Credential
}

// fault wants something seen and not read.
func (s *station) fault() attendance.CardFault {
	s.t.Helper()
	s.next(attendance.CardSeen)
	return s.next(attendance.CardFailed).Fault
}

// count tells the taps that came so far by kind.
func (s *station) count() map[attendance.TapKind]int {
	n := map[attendance.TapKind]int{}
	for {
		select {
		case tap := <-s.taps:
			n[tap.Kind]++
		default:
			return n
		}
	}
}
