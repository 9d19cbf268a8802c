package serial_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/reader/serial"
	"rollcall/simulator"
)

// plug plugs a twin in behind a device file of the test.
func plug(t testing.TB, path string, speed int, twin simulator.SerialTwin) *simulator.SerialLine {
	t.Helper()
	line, err := simulator.PlugSerial(path, speed, twin)
	require.NoError(t, err)
	t.Cleanup(line.Unplug)
	return line
}

func devicePath(t testing.TB) string {
	return filepath.Join(t.TempDir(), "platform-usb-0:1.2:1.0-port0")
}

func TestIDCardModuleIsFoundAtItsSpeed(t *testing.T) {
	for _, speed := range []int{115200, 38400} {
		t.Run(fmt.Sprint(speed), func(t *testing.T) {
			m := &simulator.IDCardModule{}
			path := devicePath(t)
			plug(t, path, speed, m)
			d, reports := newDriver(t, serial.Config{Kind: serial.KindIDCard, Path: path}, quiet())
			s := start(t, d, reports)
			require.NoError(t, s.report())
			m.Place(idCard(1))
			assert.Equal(t, simulator.InventHolder(1).PersonNo, s.card().PersonNo.Reveal())
		})
	}
}

func TestIDCardModuleAtAnotherSpeedThanConfigured(t *testing.T) {
	path := devicePath(t)
	plug(t, path, 9600, &simulator.IDCardModule{})
	d, reports := newDriver(t, serial.Config{Kind: serial.KindIDCard, Path: path, Speed: 115200}, quiet())
	s := start(t, d, reports)
	err := s.report()
	require.ErrorIs(t, err, reader.ErrReaderGone)
	assert.ErrorContains(t, err, "at any speed")
}

func TestOneWayDevices(t *testing.T) {
	uid := &simulator.UIDReader{Frame: simulator.EM4100Frame}
	scanner := &simulator.Scanner{End: "\r\n"}
	gm65 := &simulator.GM65{End: "\r"}
	for _, c := range []struct {
		kind  serial.Kind
		twin  simulator.SerialTwin
		speed int
		do    func()
		want  string
	}{
		{serial.KindEM4100, uid, 9600, func() { uid.Hold([]byte{0x14, 0x00, 0x50, 0x89, 0x31}) }, "00508931"},
		{serial.KindQR, scanner, 9600, func() { scanner.Show("86013245012345678901") }, "86013245012345678901"},
		{serial.KindGM65, gm65, 115200, func() { gm65.Show("86013245012345678902") }, "86013245012345678902"},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			path := devicePath(t)
			plug(t, path, c.speed, c.twin)
			d, reports := newDriver(t, serial.Config{Kind: c.kind, Path: path}, quiet())
			s := start(t, d, reports)
			require.NoError(t, s.report())
			c.do()
			assert.Equal(t, c.want, show(s.card()))
		})
	}
}

// A scanner at another speed sends noise: no code comes out of it.
func TestWrongSpeedGivesNoCode(t *testing.T) {
	scanner := &simulator.Scanner{End: "\r"}
	path := devicePath(t)
	plug(t, path, 115200, scanner)
	d, reports := newDriver(t, serial.Config{Kind: serial.KindQR, Path: path, Speed: 9600}, quiet())
	s := start(t, d, reports)
	require.NoError(t, s.report())
	scanner.Show("86013245012345678901")
	assert.Equal(t, attendance.FaultBadCode, s.fault())
}

func TestUnpluggedAndBack(t *testing.T) {
	path := devicePath(t)
	d, reports := newDriver(t, serial.Config{Kind: serial.KindIDCard, Path: path}, quiet())
	s := start(t, d, reports)
	err := s.report()
	require.ErrorIs(t, err, reader.ErrReaderGone, "absent at the start")
	assert.ErrorContains(t, err, "no such device")
	for n := range 3 {
		m := &simulator.IDCardModule{}
		line := plug(t, path, 0, m)
		require.NoError(t, s.report())
		m.Place(idCard(n))
		assert.Equal(t, simulator.InventHolder(n).PersonNo, s.card().PersonNo.Reveal())
		line.Unplug()
		require.ErrorIs(t, s.report(), reader.ErrReaderGone)
		for len(s.taps) > 0 {
			s.next(attendance.CardGone)
		}
	}
}

// Pulled out in the middle of a card: the tap ends, and ends once.
func TestUnpluggedWhileReading(t *testing.T) {
	path := devicePath(t)
	var line *simulator.SerialLine
	pulled := make(chan struct{})
	m := &simulator.IDCardModule{Work: func(c [2]byte) time.Duration {
		if c[0] == 0x30 {
			close(pulled)
			return time.Minute
		}
		return 0
	}}
	line = plug(t, path, 115200, m)
	m.Place(idCard(1))
	d, reports := newDriver(t, serial.Config{Kind: serial.KindIDCard, Path: path}, quiet())
	s := start(t, d, reports)
	s.next(attendance.CardSeen)
	<-pulled
	line.Unplug()
	assert.Equal(t, attendance.FaultRemoved, s.next(attendance.CardFailed).Fault)
	s.next(attendance.CardGone)
}

func TestLineIsKept(t *testing.T) {
	m := &simulator.IDCardModule{}
	path := devicePath(t)
	plug(t, path, 0, m)
	first, reports := newDriver(t, serial.Config{Kind: serial.KindIDCard, Path: path}, quiet())
	a := start(t, first, reports)
	require.NoError(t, a.report())
	second, reports := newDriver(t, serial.Config{Kind: serial.KindIDCard, Path: path}, quiet())
	b := start(t, second, reports)
	require.ErrorIs(t, b.report(), reader.ErrReaderBusy, "the same line, by two programs, as root too")
	a.stop()
	require.NoError(t, b.report(), "and let go")
}

func TestWhatIsNoSerialLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for path, want := range map[string]string{file: "not a serial line", t.TempDir(): "", "/dev/null": "not a serial line", file + "/x": ""} {
		_, err := serial.OpenPort(path, 9600)
		require.ErrorIs(t, err, reader.ErrReaderGone, path)
		assert.ErrorContains(t, err, want)
	}
}

// TestMissingPermission opens a device in a process of another user.
func TestMissingPermission(t *testing.T) {
	if path := os.Getenv("ROLLCALL_SERIAL_OPEN"); path != "" {
		_, err := serial.OpenPort(path, 9600)
		fmt.Println("opened:", err)
		return
	}
	dir, err := os.MkdirTemp("/tmp", "rollcall-serial-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	device := filepath.Join(dir, "closed")
	require.NoError(t, os.WriteFile(device, nil, 0o000))
	self, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	program := filepath.Join(dir, "test")
	require.NoError(t, os.WriteFile(program, self, 0o755))
	cmd := exec.Command(program, "-test.run", "^TestMissingPermission$")
	cmd.Env = append(os.Environ(), "ROLLCALL_SERIAL_OPEN="+device)
	cmd.Dir = dir
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), "opened: no permission, put this program's user into the group of the device")
}

// The kernel's words for a device in trouble, each with its meaning.
func TestErrorsOfOpening(t *testing.T) {
	for _, c := range []struct{ err, want error }{
		{&fs.PathError{Err: syscall.ENOENT}, reader.ErrReaderGone},
		{&fs.PathError{Err: syscall.EACCES}, reader.ErrReaderGone},
		{&fs.PathError{Err: syscall.EIO}, reader.ErrReaderGone},
		{&fs.PathError{Err: syscall.ENXIO}, reader.ErrReaderGone},
		{&fs.PathError{Err: syscall.EBUSY}, reader.ErrReaderBusy},
		{errors.New("something new"), reader.ErrReaderGone},
	} {
		err := serial.Opening(c.err)
		assert.ErrorIs(t, err, c.want)
		assert.NotErrorIs(t, err, fs.ErrPermission, "a device just plugged in belongs to root for a moment: not given up")
	}
}

func TestNothingIsLeftOpen(t *testing.T) {
	path := devicePath(t)
	cycle := func() {
		line, err := simulator.PlugSerial(path, 0, &simulator.IDCardModule{})
		require.NoError(t, err)
		defer line.Unplug()
		p, err := serial.OpenPort(path, 115200)
		require.NoError(t, err)
		require.NoError(t, p.Close())
	}
	cycle()
	files, routines := openFiles(t), runtime.NumGoroutine()
	for range 30 {
		cycle()
	}
	assert.LessOrEqual(t, openFiles(t), files)
	assert.LessOrEqual(t, runtime.NumGoroutine(), routines+1)
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.Contains(target, "/proc/") {
			n++
		}
	}
	return n
}
