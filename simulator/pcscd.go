package simulator

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Where Debian's pcscd and vsmartcard-vpcd put their parts.
const (
	pcscdPath  = "/usr/sbin/pcscd"
	vpcdDriver = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"
)

// Pcscd is a real pcscd of our own, with virtual readers, beside which the
// system's goes on as before, but for one file: at its end it deletes
// /run/pcscd/pcscd.pid. Never start it on a terminal in service.
//
// Its readers are vsmartcard's vpcd, whose driver listens on all interfaces,
// not on loopback alone; there is no setting. So it belongs on build machines.
//
// A client finds it by PCSCLITE_CSOCK_NAME, which must be set to Address before
// the client's first PC/SC call: the library reads it once per process, so a
// process, and with it a test package, talks to one Pcscd for life. Start, Stop
// and Kill belong to one goroutine; it may be started again, at the same
// address and with the same slots.
type Pcscd struct {
	dir   string
	names []string
	ports []int
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
}

// NewPcscd prepares a pcscd with these readers, at most 8, in a directory of
// its own. Each reader has two slots, NAME 00 00 and NAME 00 01. It starts
// nothing.
func NewPcscd(dir string, readers ...string) (*Pcscd, error) {
	if len(readers) == 0 || len(readers) > 8 {
		return nil, fmt.Errorf("virtual readers: %d, pcscd takes 1 to 8", len(readers))
	}
	driver, err := os.ReadFile(vpcdDriver)
	if err != nil {
		return nil, fmt.Errorf("virtual readers: %w: install vsmartcard-vpcd", err)
	}
	if _, err := os.Stat(pcscdPath); err != nil {
		return nil, fmt.Errorf("virtual readers: %w: install pcscd", err)
	}
	p := &Pcscd{dir: dir, names: readers}
	if err := os.MkdirAll(p.config(), 0o755); err != nil {
		return nil, err
	}
	for i := range readers {
		// The driver keeps its slots in a static array, so readers that share a
		// file share their slots: each gets a copy.
		if err := os.WriteFile(p.driver(i), driver, 0o755); err != nil {
			return nil, err
		}
	}
	return p, p.choosePorts()
}

func (p *Pcscd) config() string      { return filepath.Join(p.dir, "reader.conf.d") }
func (p *Pcscd) driver(i int) string { return filepath.Join(p.dir, fmt.Sprintf("vpcd%d.so", i)) }

// Address is the value for PCSCLITE_CSOCK_NAME.
func (p *Pcscd) Address() string { return filepath.Join(p.dir, "pcscd.comm") }

// Slot gives slot n (0 or 1) of the i-th reader.
func (p *Pcscd) Slot(i, n int) *Slot {
	return &Slot{
		Name: fmt.Sprintf("%s 00 %02d", p.names[i], n),
		addr: fmt.Sprintf("127.0.0.1:%d", p.ports[i]+n),
	}
}

// Start starts the daemon and returns when it is ready.
func (p *Pcscd) Start() error {
	const tries = 5
	for try := 1; ; try++ {
		err := p.startOnce()
		if !errors.Is(err, errPortTaken) || try == tries {
			return err
		}
		if err := p.choosePorts(); err != nil {
			return err
		}
	}
}

// Stop ends the daemon as its service manager would; Kill without warning.
// Both return when it has ended, and do nothing if it does not run.
func (p *Pcscd) Stop() error { return p.end(syscall.SIGTERM) }
func (p *Pcscd) Kill() error { return p.end(syscall.SIGKILL) }

// Freeze stops the daemon without ending it: whoever calls it waits. Thaw lets it
// go on.
func (p *Pcscd) Freeze() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }
func (p *Pcscd) Thaw() error   { return p.cmd.Process.Signal(syscall.SIGCONT) }

func (p *Pcscd) end(sig syscall.Signal) error {
	if p.cmd == nil {
		return nil
	}
	_ = p.Thaw() // a frozen daemon ends only by SIGKILL
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	if err == nil {
		<-p.ended
		p.cmd = nil
	}
	return err
}

// choosePorts finds two neighbouring free ports per reader and writes the
// configuration. It looks by listening, never by connecting, which would insert
// a card. The range lies below the one that the kernel gives to other sockets.
func (p *Pcscd) choosePorts() error {
	const first, last, tries = 20000, 32000, 200
	p.ports = p.ports[:0]
	for range tries {
		port := first + 2*rand.IntN((last-first)/2)
		if !free(port) || !free(port+1) {
			continue
		}
		if p.ports = append(p.ports, port); len(p.ports) == len(p.names) {
			return p.writeConfig()
		}
	}
	return errors.New("virtual readers: no free ports")
}

func free(port int) bool {
	l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func (p *Pcscd) writeConfig() error {
	for i, name := range p.names {
		text := fmt.Sprintf("FRIENDLYNAME %q\nDEVICENAME /dev/null:0x%04X\nLIBPATH %s\nCHANNELID 0x%04X\n",
			name, p.ports[i], p.driver(i), p.ports[i])
		if err := os.WriteFile(filepath.Join(p.config(), fmt.Sprintf("vpcd%d", i)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

var errPortTaken = errors.New("pcscd: the port of a virtual reader is taken")

// startOnce starts pcscd the way systemd would: with a listening socket as
// descriptor 3, so that it neither looks for nor minds another one.
func (p *Pcscd) startOnce() error {
	socket, err := p.listen()
	if err != nil {
		return fmt.Errorf("pcscd: %w", err)
	}
	// With a copy of the socket open here, a client that connects after the
	// daemon died would wait for ever.
	defer socket.Close()
	cmd := exec.Command("/bin/sh", "-c",
		`LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" --foreground --info --config "$1"`, pcscdPath, p.config())
	cmd.ExtraFiles = []*os.File{socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	started, ready := make(chan error, 1), make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// The parent-death signal comes when the thread that started the
		// process ends, so this goroutine keeps its thread until then.
		runtime.LockOSThread()
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("pcscd: %w", err)
			return
		}
		started <- nil
		ready <- awaitReady(out)
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	}()
	if err := <-started; err != nil {
		return err
	}
	p.cmd, p.ended = cmd, ended

	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	select {
	case err = <-ready:
	case <-limit.C:
		err = errors.New("pcscd: not ready after 10 s")
	}
	if err != nil {
		return errors.Join(err, p.Kill())
	}
	return nil
}

// awaitReady reads pcscd's messages until it says that it is ready.
func awaitReady(out io.Reader) error {
	var last string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		last = lines.Text()
		switch {
		case strings.Contains(last, "daemon ready"):
			return nil
		case strings.Contains(last, "Could not initialize connection to virtual ICC"):
			return errPortTaken
		case strings.Contains(last, "cannot create /run/pcscd"):
			return errors.New("pcscd needs the directory /run/pcscd, which only root can make: sudo mkdir /run/pcscd")
		}
	}
	return fmt.Errorf("pcscd ended before it was ready: %q", last)
}

func (p *Pcscd) listen() (*os.File, error) {
	if err := os.Remove(p.Address()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.Address(), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	return l.File()
}
