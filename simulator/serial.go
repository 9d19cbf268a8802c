package simulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// A SerialTwin is a virtual serial device. Serve speaks on the line until ctx
// ends or the line fails.
type SerialTwin interface {
	Serve(ctx context.Context, line io.ReadWriter)
}

// A SerialLine is a serial device as the system shows it: a device file, behind
// it a twin. The file is a pseudo-terminal, which has no modem lines.
type SerialLine struct {
	unplug func()
}

// PlugSerial plugs a twin in: path becomes a link to its device file, as udev
// makes them. The twin speaks at a speed in bits per second, ten bits a byte, in
// both directions; whoever opens the file at another speed gets and gives noise.
// Speed 0 is as fast as it goes, at any speed.
func PlugSerial(path string, speed int, twin SerialTwin) (*SerialLine, error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("plugging in a serial device: %w", err)
	}
	// A line in cooked mode echoes what the twin says before the file is opened.
	if err := makeRaw(slave); err != nil {
		return nil, errors.Join(fmt.Errorf("plugging in a serial device: %w", err), master.Close(), slave.Close())
	}
	if err := os.Symlink(slave.Name(), path); err != nil {
		return nil, errors.Join(fmt.Errorf("plugging in a serial device: %w", err), master.Close(), slave.Close())
	}
	if master, err = wakeable(master); err != nil {
		return nil, errors.Join(fmt.Errorf("plugging in a serial device: %w", err), os.Remove(path), slave.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	var line io.ReadWriter = master
	if speed > 0 {
		line = PacedLine(ctx, master, speed, func() int { return lineSpeed(slave) })
	}
	var serving sync.WaitGroup
	serving.Go(func() { twin.Serve(ctx, line) })
	return &SerialLine{sync.OnceFunc(func() {
		_ = os.Remove(path)
		cancel()
		_ = slave.Close()
		_ = master.Close()
		serving.Wait()
	})}, nil
}

// wakeable gives the same terminal with a descriptor that Close ends at once. On
// the one that package pty opens, a read that is under way would keep it open,
// and whoever has the device file open would not notice that it is gone.
func wakeable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Unplug takes the device away, and returns when the twin has ended. It may be
// called twice.
func (l *SerialLine) Unplug() { l.unplug() }

func makeRaw(f *os.File) error {
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}

// lineSpeed is the speed the device file was set to; 0 once it is closed.
func lineSpeed(f *os.File) (speed int) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	_ = conn.Control(func(fd uintptr) {
		if t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS2); err == nil {
			speed = int(t.Ospeed)
		}
	})
	return speed
}

// pacedLine takes ten bits of time for each byte, in either direction.
type pacedLine struct {
	io.ReadWriter
	ctx   context.Context
	speed int
	other func() int // the speed at the other end
}

// PacedLine makes line as slow as a UART at a speed. other gives the speed at
// the other end: while it is not the same, bytes turn into noise.
func PacedLine(ctx context.Context, line io.ReadWriter, speed int, other func() int) io.ReadWriter {
	return &pacedLine{line, ctx, speed, other}
}

func (l *pacedLine) Read(b []byte) (int, error) {
	n, err := l.ReadWriter.Read(b)
	if n > 0 {
		l.wait(l.time(n))
		l.garble(b[:n])
	}
	return n, err
}

// Write hands the bytes over as they would come in, a millisecond's worth at a
// time.
func (l *pacedLine) Write(b []byte) (int, error) {
	noise := append([]byte(nil), b...)
	l.garble(noise)
	began := time.Now()
	for sent := 0; sent < len(b); {
		l.wait(min(time.Millisecond, l.time(len(b)-sent)))
		if l.ctx.Err() != nil {
			return sent, l.ctx.Err()
		}
		due := min(len(b), int(time.Since(began)*time.Duration(l.speed)/(10*time.Second)))
		if due == sent {
			continue
		}
		n, err := l.ReadWriter.Write(noise[sent:due])
		if sent += n; err != nil {
			return sent, err
		}
	}
	return len(b), nil
}

func (l *pacedLine) time(bytes int) time.Duration {
	// Up, or rounding would stop it short of the last byte.
	return (time.Duration(bytes)*10*time.Second + time.Duration(l.speed) - 1) / time.Duration(l.speed)
}

func (l *pacedLine) wait(d time.Duration) { pass(l.ctx, d) }

// pass lets time pass, or less if ctx ends.
func pass(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// garble makes noise of bytes sampled at the wrong speed.
func (l *pacedLine) garble(b []byte) {
	if l.other() == l.speed {
		return
	}
	for i, c := range b {
		b[i] = c<<3 ^ c>>2 ^ 0xB5
	}
}

// A Spoiler spoils one thing that a device sends: it gives the pieces to send
// in its place, with a pause between each two.
type Spoiler func(sent []byte) [][]byte

// pieceGap is the pause between two pieces, less than what ends a frame.
const pieceGap = 5 * time.Millisecond

// say sends through a spoiler; nil spoils nothing.
func (s Spoiler) say(ctx context.Context, line io.Writer, b []byte) {
	pieces := [][]byte{b}
	if s != nil {
		pieces = s(b)
	}
	for i, piece := range pieces {
		if i > 0 {
			pass(ctx, pieceGap)
		}
		if _, err := line.Write(piece); err != nil {
			return
		}
	}
}
