package serial

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"

	"rollcall/reader"
)

// port is what the driver needs of a serial line. A Read that reaches the read
// timeout gives 0 and nil.
type port interface {
	Read(b []byte) (int, error)
	Write(b []byte) (int, error)
	Close() error
	SetReadTimeout(d time.Duration) error
	SetSpeed(bitsPerSecond int) error
	Flush() error // forgets what was neither sent nor read yet
}

// maxDescriptor is the highest descriptor that the library, which waits with
// select(2), can use, less some room.
const maxDescriptor = 1000

// devicePort is a serial device and the lock on it. The library's own lock
// does not hold against root.
type devicePort struct {
	serial.Port
	lock *os.File
}

// openPort opens a device at a speed, 8N1, with no line for flow control.
// Errors wrap the sentinels of reader.
func openPort(path string, speed int) (port, error) {
	lock, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, opening(err)
	}
	fd := int(lock.Fd())
	if fd > maxDescriptor {
		lock.Close()
		return nil, fmt.Errorf("%d files are open, too many for a serial port: restart this program: %w", fd, reader.ErrReaderHung)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, reader.ErrReaderBusy
		}
		return nil, opening(err)
	}
	p, err := serial.Open(path, &serial.Mode{BaudRate: speed, DataBits: 8})
	if err != nil {
		lock.Close()
		return nil, opening(err)
	}
	return &devicePort{p, lock}, nil
}

// opening gives meaning to an error of opening a device. Missing permission is
// no fs.ErrPermission here: a device that was just plugged in belongs to root
// until udev has given it away, so it is worth another try.
func opening(err error) error {
	var trouble *serial.PortError
	if errors.As(err, &trouble) {
		switch trouble.Code() {
		case serial.PortBusy:
			return reader.ErrReaderBusy
		case serial.PermissionDenied:
			err = fs.ErrPermission
		case serial.InvalidSerialPort:
			return fmt.Errorf("not a serial line, check the path: %w", reader.ErrReaderGone)
		case serial.InvalidSpeed:
			return fmt.Errorf("the line cannot run at this speed: %w", reader.ErrReaderGone)
		}
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return reader.ErrReaderBusy
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission, put this program's user into the group of the device: %w", reader.ErrReaderGone)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no such device: %w", reader.ErrReaderGone)
	}
	return fmt.Errorf("%v: %w", err, reader.ErrReaderGone)
}

func (p *devicePort) Close() error { return errors.Join(p.Port.Close(), p.lock.Close()) }

func (p *devicePort) SetSpeed(speed int) error {
	return p.SetMode(&serial.Mode{BaudRate: speed, DataBits: 8})
}

func (p *devicePort) Flush() error {
	return errors.Join(p.ResetInputBuffer(), p.ResetOutputBuffer())
}

// slice is how long one wait in the library lasts at most, so that the end of a
// context is noticed. The port is closed by the goroutine that reads it, never
// under a read: the library waits on the number of the descriptor.
const slice = 100 * time.Millisecond

// line is an open port in use by one goroutine.
type line struct {
	port
	buf [1024]byte
}

// read gives what comes, or nothing when the limit is over. Errors wrap
// reader.ErrReaderGone, or are the context's.
func (l *line) read(ctx context.Context, limit time.Duration) ([]byte, error) {
	end := time.Now().Add(limit)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		wait := min(time.Until(end), slice)
		if wait <= 0 {
			return nil, nil
		}
		if err := l.SetReadTimeout(wait); err != nil {
			return nil, lost(err)
		}
		n, err := l.Read(l.buf[:])
		if err != nil {
			return nil, lost(err)
		}
		if n > 0 {
			return l.buf[:n], nil
		}
	}
}

// send writes a small frame. What an earlier one left in either direction goes
// first: so a write never waits, and a late answer is not taken for this one's.
func (l *line) send(frame []byte) error {
	if err := l.Flush(); err != nil {
		return lost(err)
	}
	if _, err := l.Write(frame); err != nil {
		return lost(err)
	}
	return nil
}

// lost gives meaning to an error of a line in use: it is gone, whatever it
// says.
func lost(err error) error { return fmt.Errorf("%v: %w", err, reader.ErrReaderGone) }
