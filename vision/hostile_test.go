package vision_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/device"
	"rollcall/simulator"
	"rollcall/vision"
)

// bombs are small files that claim to be large pictures.
func bombs() map[string][]byte {
	jpeg := append([]byte{0xff, 0xd8, 0xff, 0xe0, 0, 16}, "JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"...)
	jpeg = append(jpeg, 0xff, 0xc0, 0, 17, 8, 0xff, 0xff, 0xff, 0xff, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0)
	chunk := func(name string, body []byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
		b = append(append(b, name...), body...)
		return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
	}
	size := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 65535), 65535)
	png := append([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(size, 8, 2, 0, 0, 0))...)
	png = append(png, chunk("IDAT", bytes.Repeat([]byte{0}, 100))...)
	return map[string][]byte{
		"JPEG of 65,535 x 65,535": append(jpeg, 0xff, 0xd9),
		"PNG of 65,535 x 65,535":  png,
		"PPM of 60,000 x 60,000":  []byte("P6 60000 60000 255 "),
		"a file of 40 MB":         make([]byte, 40<<20),
	}
}

// TestT27ImageBombsAreRefusedByTheirHeader asks the worker for each bomb: a
// refusal in 100 ms at the best of five, hardly any memory, and the next
// picture is analysed. The control is an honest picture, which needs both.
func TestT27ImageBombsAreRefusedByTheirHeader(t *testing.T) {
	w := startBare(t, workerConfig(t, "/dev/null"))
	w.next(vision.KindHello)
	ask := func(path string) (vision.Answer, time.Duration) {
		began := time.Now()
		require.NoError(t, vision.WriteCommand(w.commands, vision.Command{Do: vision.DoPicture, ID: 1, Path: path}))
		a, err := vision.ReadAnswer(w.answers)
		require.NoError(t, err)
		return a, time.Since(began)
	}
	honest, err := filepath.Abs(filepath.Join(peopleDir, "sample1.jpg"))
	require.NoError(t, err)
	for range 2 {
		a, _ := ask(honest)
		require.Equal(t, vision.KindPicture, a.Kind)
	}
	dir := t.TempDir()
	for name, b := range bombs() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "bomb")
			require.NoError(t, os.WriteFile(path, b, 0o600))
			before := peakMB(t, w.cmd.Process.Pid)
			best := time.Hour
			for range 5 {
				a, took := ask(path)
				require.Equal(t, vision.KindRefused, a.Kind)
				assert.Equal(t, vision.CodeTooLarge, a.Code, a.Text)
				best = min(best, took)
			}
			grown := peakMB(t, w.cmd.Process.Pid) - before
			t.Logf("refused in %v, memory grew by %.1f MB", best.Round(time.Microsecond), grown)
			assert.Less(t, best, 100*time.Millisecond)
			assert.Less(t, grown, 32.0)
		})
	}
	a, _ := ask(honest)
	assert.Len(t, a.Faces, 3, "the worker goes on")
	w.end()
}

// peakMB is the most memory that a process ever held.
func peakMB(t testing.TB, pid int) float64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, after, found := strings.Cut(string(status), "VmHWM:")
	require.True(t, found)
	kB, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
	require.NoError(t, err)
	return kB / 1024
}

// moody is a camera that a test can make hostile; zero is the camera itself.
type moody struct {
	camera *simulator.Camera
	mood   atomic.Pointer[func(w http.ResponseWriter, r *http.Request)]
}

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if mood := m.mood.Load(); mood != nil {
		(*mood)(w, r)
		return
	}
	m.camera.ServeHTTP(w, r)
}

func video(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=b")
}

// flood writes b until the client has gone.
func flood(w io.Writer, r *http.Request, b []byte) {
	for r.Context().Err() == nil {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

// TestF8HostileStreamsAreSurvived turns the camera into each of these, waits
// until the checker says that there is no picture, and turns it back: the next
// look matches. The worker never holds more memory than its limit.
func TestF8HostileStreamsAreSurvived(t *testing.T) {
	part := func(header, body string) []byte { return []byte("--b\r\n" + header + "\r\n\r\n" + body) }
	jpeg := string(bombs()["JPEG of 65,535 x 65,535"])
	for name, mood := range map[string]func(w http.ResponseWriter, r *http.Request){
		"headers only": func(w http.ResponseWriter, r *http.Request) {
			video(w)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"a frame without end": func(w http.ResponseWriter, r *http.Request) {
			video(w)
			_, _ = w.Write(part("Content-Type: image/jpeg", "\xff\xd8"))
			flood(w, r, bytes.Repeat([]byte{0x55}, 64<<10))
		},
		"frames that are none": func(w http.ResponseWriter, r *http.Request) {
			video(w)
			flood(w, r, part("Content-Type: image/jpeg\r\nContent-Length: 8", "nothing!\r\n"))
		},
		"frames of 65,535 x 65,535": func(w http.ResponseWriter, r *http.Request) {
			video(w)
			flood(w, r, part("Content-Type: image/jpeg\r\nContent-Length: "+fmt.Sprint(len(jpeg)), jpeg+"\r\n"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &moody{camera: simulator.NewCamera()}
			server := httptest.NewServer(m)
			defer server.Close()
			defer server.CloseClientConnections()
			b := boothAt(t, server.URL, m.camera, time.Now)
			enrolment := b.enrol(t, "t1", b.people[0])
			m.mood.Store(&mood)
			server.CloseClientConnections()
			looks := b.checker.Verify(t.Context(), "t1", enrolment)
			until(t, looks, "no camera", advised(attendance.AdviceCamera))
			require.Eventually(t, func() bool { return b.told(device.StateDown) }, patience, 10*time.Millisecond)
			if pid, _ := b.checker.Worker(); pid != 0 {
				if _, err := os.Stat(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
					assert.Less(t, peakMB(t, pid), 700.0)
				}
			}
			m.mood.Store(nil)
			server.CloseClientConnections()
			until(t, looks, "match", matched)
		})
	}
}

// TestF7ARTSPServerThatNeverAnswersIsKilledOff listens and says nothing, as a
// camera that hangs.
func TestF7ARTSPServerThatNeverAnswersIsKilledOff(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	b := boothAt(t, "rtsp://"+listener.Addr().String()+"/1", simulator.NewCamera(), time.Now)
	b.checker.Open()
	require.Eventually(t, func() bool { return b.log.count("killed") > 0 }, patience, 10*time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	assert.Equal(t, device.StateDown, b.states[len(b.states)-1])
}

// TestF9ThreeLossesInAMinuteAreDegraded kills the worker three times; it works
// again each time, but says so only when a minute has passed.
func TestF9ThreeLossesInAMinuteAreDegraded(t *testing.T) {
	camera := simulator.NewCamera()
	server := httptest.NewServer(camera)
	defer server.Close()
	defer server.CloseClientConnections()
	var ahead atomic.Int64
	b := boothAt(t, server.URL, camera, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	enrolment := b.enrol(t, "t1", b.people[0])
	looks := b.checker.Verify(t.Context(), "t1", enrolment)
	for range 3 {
		until(t, looks, "match", matched)
		assert.False(t, b.told(device.StateDegraded), "not before the third")
		lives := b.log.count("vision worker ready")
		pid, _ := b.checker.Worker()
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		require.Eventually(t, func() bool { return b.log.count("vision worker ready") > lives }, patience, 10*time.Millisecond)
	}
	until(t, looks, "match", matched)
	assert.True(t, b.told(device.StateDegraded))
	last := func() device.PartState {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.states[len(b.states)-1]
	}
	assert.Equal(t, device.StateDegraded, last())
	ahead.Store(int64(time.Minute))
	require.Eventually(t, func() bool { return last() == device.StateOK }, patience, 10*time.Millisecond)
}

// TestF9MemoryEndsTheWorkerNotTheTerminal gives the worker too little memory
// to load its nets: a sentence, again and again, and nothing else.
func TestF9MemoryEndsTheWorkerNotTheTerminal(t *testing.T) {
	var mu sync.Mutex
	var said string
	gallery, _ := openGallery(t)
	script := filepath.Join(t.TempDir(), "worker")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\nulimit -d 150000\nexec "+workerPath+" \"$@\"\n"), 0o700))
	checker, err := vision.New(vision.Config{
		Worker: script, WorkerConfig: workerConfig(t, "/dev/null"), Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Report: func(s device.PartState, text device.Sentence) {
			mu.Lock()
			defer mu.Unlock()
			said = text.En
		},
	}, gallery)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- checker.Run(ctx) }()
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(said, "bad_alloc") || strings.Contains(said, "memory")
	}, patience, 10*time.Millisecond)
	cancel()
	assert.NoError(t, <-ran)
}

// told reports whether a state was ever reported.
func (b *booth) told(s device.PartState) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, was := range b.states {
		if was == s {
			return true
		}
	}
	return false
}
