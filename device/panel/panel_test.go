package panel

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/device"
)

// newPanel makes a panel whose ledger works.
func newPanel(t *testing.T, cfg Config) *Panel {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	health := device.NewHealth(time.Now)
	health.OK(device.PartLedger)
	p, err := New(cfg, health, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	listener := p.listener
	t.Cleanup(func() { _ = listener.Close() })
	return p
}

// run runs p until the test or the function it returns ends it.
func run(t *testing.T, p *Panel) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		assert.NoError(t, <-ended)
	}
	t.Cleanup(stop)
	return stop
}

func TestConfigIsChecked(t *testing.T) {
	for name, test := range map[string]struct {
		cfg  Config
		want string
	}{
		"all interfaces":   {Config{Listen: ":8080"}, "for this box alone"},
		"the network":      {Config{Listen: "192.0.2.1:8080"}, "for this box alone"},
		"unspecified":      {Config{Listen: "0.0.0.0:8080"}, "for this box alone"},
		"a host name":      {Config{Listen: "terminal.example:8080"}, "for this box alone"},
		"no port":          {Config{Listen: "127.0.0.1"}, "give host and port"},
		"another language": {Config{Listen: "127.0.0.1:0", Language: "fr"}, "zh and en"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(test.cfg, device.NewHealth(time.Now), slog.New(slog.DiscardHandler))
			assert.ErrorContains(t, err, test.want)
		})
	}
	p := newPanel(t, Config{})
	_, err := New(Config{Listen: p.Addr().String()}, device.NewHealth(time.Now), slog.New(slog.DiscardHandler))
	assert.ErrorContains(t, err, "is another rollcalld running")
}

// sse reads events of a stream.
type sse struct {
	t    *testing.T
	body *bufio.Scanner
}

type got struct{ id, name, data string }

func (s sse) next() got {
	s.t.Helper()
	var e got
	for s.body.Scan() {
		key, value, _ := strings.Cut(s.body.Text(), ": ")
		switch key {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			e.data = value
		case "":
			if e.name != "" {
				return e
			}
		}
	}
	require.NoError(s.t, s.body.Err())
	s.t.Fatal("the stream ended")
	return e
}

// nextBut skips events of one name.
func (s sse) nextBut(name string) got {
	for {
		if e := s.next(); e.name != name {
			return e
		}
	}
}

func listen(t *testing.T, url, lastSeen string) sse {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/events", nil)
	require.NoError(t, err)
	if lastSeen != "" {
		req.Header.Set("Last-Event-ID", lastSeen)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	return sse{t, bufio.NewScanner(resp.Body)}
}

func screenOf(t *testing.T, e got) attendance.Screen {
	t.Helper()
	var s attendance.Screen
	require.NoError(t, json.Unmarshal([]byte(e.data), &s), e.data)
	return s
}

func TestEveryPageSeesEveryScreenInOrder(t *testing.T) {
	p := newPanel(t, Config{})
	server := httptest.NewServer(p.Handler())
	defer server.Close()
	defer server.CloseClientConnections()

	p.Show(attendance.Screen{State: attendance.ScreenIdle})
	pages := []sse{listen(t, server.URL, ""), listen(t, server.URL, "")}
	var ids []string
	for _, page := range pages {
		e := page.next()
		assert.Equal(t, "snapshot", e.name)
		var s snapshot
		require.NoError(t, json.Unmarshal([]byte(e.data), &s))
		assert.Equal(t, attendance.ScreenIdle, s.Screen.State)
		ids = append(ids, e.id)
	}
	for i := range 20 {
		p.Show(attendance.Screen{State: attendance.ScreenRecorded, Ordinal: i + 1})
	}
	for n, page := range pages {
		for i := range 20 {
			e := page.nextBut("ping")
			assert.Equal(t, "screen", e.name)
			assert.Equal(t, i+1, screenOf(t, e).Ordinal)
			assert.Equal(t, p.eventID(uint64(i+2)), e.id, "ids grow by one")
			ids[n] = e.id
		}
	}
	assert.Equal(t, ids[0], ids[1])

	p.Show(attendance.Screen{State: attendance.ScreenIdle})
	behind := listen(t, server.URL, ids[0])
	assert.Equal(t, "snapshot", behind.next().name, "a page that missed something starts anew")
	upToDate := listen(t, server.URL, p.eventID(22))
	p.Show(attendance.Screen{State: attendance.ScreenReading})
	assert.Equal(t, attendance.ScreenReading, screenOf(t, upToDate.nextBut("ping")).State, "a page that missed nothing goes on")
	another := listen(t, server.URL, "OTHERRUN-23")
	assert.Equal(t, "snapshot", another.next().name)
}

// pipes is a listener without a network: net.Pipe holds no byte that is not
// read, so that a page can be slow at will, and works in virtual time.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { close(p.done); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (p pipes) get(t *testing.T, path string) net.Conn {
	t.Helper()
	here, there := net.Pipe()
	p.conns <- there
	_, err := io.WriteString(here, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(t, err)
	return here
}

func TestASlowPageIsCutOffAndNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, wire := newPanel(t, Config{}), pipes{make(chan net.Conn), make(chan struct{})}
		p.listener = wire
		stop := run(t, p)

		slow, fast := wire.get(t, "/events"), wire.get(t, "/events")
		read := make(chan int, 1)
		go func() {
			text, _ := io.ReadAll(fast)
			read <- bytes.Count(text, []byte("event: screen"))
		}()
		synctest.Wait()
		began := time.Now()
		for range clientQueue + 10 {
			p.Show(attendance.Screen{State: attendance.ScreenIdle})
			synctest.Wait()
		}
		assert.Zero(t, time.Since(began), "Show waited")
		p.mu.Lock()
		assert.Len(t, p.clients, 1)
		p.mu.Unlock()
		stop()
		assert.Equal(t, clientQueue+10, <-read, "the other page saw everything")
		_ = slow.Close()
	})
}

func TestAnIdleStreamIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, wire := newPanel(t, Config{}), pipes{make(chan net.Conn), make(chan struct{})}
		p.listener = wire
		stop := run(t, p)
		page := wire.get(t, "/events")
		pings := make(chan int, 1)
		go func() {
			text, _ := io.ReadAll(page)
			pings <- bytes.Count(text, []byte("event: ping"))
		}()
		time.Sleep(time.Minute + time.Second) // virtual; longer than the server's time limits
		stop()
		assert.Equal(t, 30, <-pings)
	})
}

func TestStalledConnectionsDisturbNobody(t *testing.T) {
	p := newPanel(t, Config{})
	run(t, p)
	for range 300 {
		conn, err := net.Dial("tcp", p.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: ")
		require.NoError(t, err)
	}
	page := listen(t, "http://"+p.Addr().String(), "")
	assert.Equal(t, "snapshot", page.next().name)
	p.Show(attendance.Screen{State: attendance.ScreenIdle})
	for page.nextBut("ping").name != "screen" {
	}
}

func TestAnOversizedHeaderIsRefused(t *testing.T) {
	p := newPanel(t, Config{})
	run(t, p)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.Addr().String()+"/", nil)
	require.NoError(t, err)
	req.Header.Set("X-Long", strings.Repeat("x", 32<<10))
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	_ = resp.Body.Close()
	assert.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
}

func TestTheNumberOfPagesIsBounded(t *testing.T) {
	p := newPanel(t, Config{})
	server := httptest.NewServer(p.Handler())
	defer server.Close()
	defer server.CloseClientConnections()
	for range maxClients {
		listen(t, server.URL, "").next()
	}
	resp, err := http.Get(server.URL + "/events")
	require.NoError(t, err)
	_ = resp.Body.Close()
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
}

func TestBadgesFollowHealth(t *testing.T) {
	p := newPanel(t, Config{})
	run(t, p)
	page := listen(t, "http://"+p.Addr().String(), "")
	p.health.Set(device.PartUplink, device.StateDown, device.Sentence{})
	p.Unsent(128)
	p.health.Set(device.PartDisk, device.StateDown, device.Sentence{Zh: "存储已满", En: "Disk full"})

	var b badges
	for b.Unsent != 128 || b.Why.En == "" { // several changes may come as one
		e := page.nextBut("ping")
		if e.name == "badges" {
			b = badges{}
			require.NoError(t, json.Unmarshal([]byte(e.data), &b))
		}
	}
	assert.Equal(t, badges{Offline: true, Unsent: 128, Why: device.Sentence{Zh: "存储已满", En: "Disk full"}}, b)
}

func TestBadgesOf(t *testing.T) {
	for name, test := range map[string]struct {
		set  func(h *device.Health)
		want badges
	}{
		"nobody spoke": {func(*device.Health) {}, badges{}},
		"all is well": {func(h *device.Health) {
			for _, p := range device.Parts {
				h.OK(p)
			}
		}, badges{Ready: true}},
		"one of two readers": {func(h *device.Health) {
			h.OK(device.PartLedger)
			h.Set(device.PartReader, device.StateDegraded, device.Sentence{})
		}, badges{Ready: true}},
		"reader, camera and clock": {func(h *device.Health) {
			h.OK(device.PartLedger)
			h.Set(device.PartReader, device.StateDown, device.Sentence{})
			h.Set(device.PartCamera, device.StateDown, device.Sentence{})
			h.Set(device.PartClock, device.StateDegraded, device.Sentence{})
		}, badges{Ready: true, Reader: true, Camera: true, Clock: true}},
		"ledger down": {func(h *device.Health) {
			h.Set(device.PartLedger, device.StateDown, device.Sentence{En: "damaged"})
			h.Set(device.PartDisk, device.StateDown, device.Sentence{En: "full"})
		}, badges{Why: device.Sentence{En: "damaged"}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := device.NewHealth(time.Now)
			test.set(h)
			assert.Equal(t, test.want, badgesOf(h.Snapshot()))
		})
	}
}

func TestThePanelKnowsWhetherAnyoneSeesIt(t *testing.T) {
	p := newPanel(t, Config{})
	stop := run(t, p)
	page := listen(t, "http://"+p.Addr().String(), "")
	page.next()
	part, _ := p.health.Snapshot().Part(device.PartPanel)
	assert.Equal(t, device.StateOK, part.State)
	stop()
	part, _ = p.health.Snapshot().Part(device.PartPanel)
	assert.Equal(t, device.StateDown, part.State)
	assert.Contains(t, part.Sentence.En, "check that the browser")
}

func TestEveryRouteIsGuarded(t *testing.T) {
	p := newPanel(t, Config{})
	handler := p.Handler()
	require.Len(t, p.routes(), 10)
	ask := func(method, path, host string, header ...string) *httptest.ResponseRecorder {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond) // ends streams
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, method, path, nil)
		r.Host = host
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	paths := []string{"/nothing-here"}
	for _, r := range p.routes() {
		_, path, _ := strings.Cut(r.pattern, " ")
		paths = append(paths, strings.TrimSuffix(path, "{$}"))
	}
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			for _, host := range []string{"evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "192.0.2.1"} {
				w := ask(http.MethodGet, path, host)
				assert.Equal(t, http.StatusMisdirectedRequest, w.Code, "host %q", host)
			}
			for _, host := range []string{"127.0.0.1", "127.0.0.1:8080", "localhost:8080", "[::1]:8080", "[::1]"} {
				w := ask(http.MethodGet, path, host)
				assert.NotEqual(t, http.StatusMisdirectedRequest, w.Code, "host %q", host)
				assert.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
				assert.NotContains(t, w.Header().Get("Content-Security-Policy"), "unsafe")
				assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
				assert.Equal(t, "same-origin", w.Header().Get("Cross-Origin-Resource-Policy"))
			}
			for _, foreign := range [][]string{{"Origin", "http://evil.example"}, {"Sec-Fetch-Site", "cross-site"}} {
				w := ask(http.MethodPost, path, "localhost", foreign...)
				assert.Equal(t, http.StatusForbidden, w.Code, foreign)
			}
			assert.GreaterOrEqual(t, ask(http.MethodPost, path, "localhost").Code, 404, "nothing is changed by anyone")
		})
	}
}

func TestProbes(t *testing.T) {
	p := newPanel(t, Config{})
	server := httptest.NewServer(p.Handler())
	defer server.Close()
	get := func(path string) (int, string) {
		resp, err := http.Get(server.URL + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	p.health.Set(device.PartUplink, device.StateDown, device.Sentence{Zh: "离线", En: "Offline"})
	code, _ := get("/readyz")
	assert.Equal(t, http.StatusOK, code, "offline is ready")
	p.health.Set(device.PartDisk, device.StateDown, device.Sentence{Zh: "存储已满", En: "Disk full"})
	code, _ = get("/readyz")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	code, _ = get("/livez")
	assert.Equal(t, http.StatusOK, code)

	code, body := get("/healthz")
	assert.Equal(t, http.StatusOK, code)
	var report device.HealthReport
	require.NoError(t, json.Unmarshal([]byte(body), &report))
	assert.False(t, report.Ready)
	disk, ok := report.Part(device.PartDisk)
	assert.True(t, ok)
	assert.Equal(t, "Disk full", disk.Sentence.En)
}

var jpegA, jpegB = []byte("\xff\xd8\xff picture A"), []byte("\xff\xd8\xff picture B")

func TestPreviewOnlyWhileAPersonIsAskedToLook(t *testing.T) {
	p := newPanel(t, Config{})
	for _, state := range attendance.ScreenStates {
		p.Show(attendance.Screen{State: state})
		p.Preview(jpegA)
		held, more, _ := p.nextFrame()
		looking := state == attendance.ScreenLook || state == attendance.ScreenRetry || state == attendance.ScreenEnrolLook
		assert.Equal(t, looking, more, state)
		assert.Equal(t, looking, held != nil, state)
	}
	p.Show(attendance.Screen{State: attendance.ScreenLook})
	p.Preview([]byte("no jpeg"))
	p.Preview(append(bytes.Clone(jpegStart), make([]byte, maxFrame)...))
	held, _, _ := p.nextFrame()
	assert.Nil(t, held)
	p.Preview(jpegA)
	p.Preview(jpegB)
	held, _, _ = p.nextFrame()
	assert.Equal(t, jpegB, held, "the newest wins")
	p.Show(attendance.Screen{State: attendance.ScreenRetry})
	held, _, _ = p.nextFrame()
	assert.Equal(t, jpegB, held, "the second try goes on")
	p.Show(attendance.Screen{State: attendance.ScreenRecorded})
	held, _, _ = p.nextFrame()
	assert.Nil(t, held, "none is kept")
}

func TestPreviewStream(t *testing.T) {
	p := newPanel(t, Config{})
	server := httptest.NewServer(p.Handler())
	defer server.Close()
	p.Show(attendance.Screen{State: attendance.ScreenLook})
	p.Preview(jpegA)

	resp, err := http.Get(server.URL + "/preview")
	require.NoError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, "multipart/x-mixed-replace; boundary=frame", resp.Header.Get("Content-Type"))
	want := partHead + string(part(jpegA))
	first := make([]byte, len(want))
	_, err = io.ReadFull(resp.Body, first)
	require.NoError(t, err)
	assert.Equal(t, want, string(first))

	p.Preview(jpegB)
	second := make([]byte, len(part(jpegB)))
	_, err = io.ReadFull(resp.Body, second)
	require.NoError(t, err)
	assert.Contains(t, string(second), "picture B")

	p.Show(attendance.Screen{State: attendance.ScreenIdle})
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Empty(t, rest, "the stream ends with the look")
}

func TestTidy(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"masked":             {"张*明", "张*明"},
		"with a dot":         {"阿*·买*提", "阿*·买*提"},
		"markup is text":     {"<img onerror=x>", "<img onerror=x>"},
		"turned direction":   {"张\u202e*明", "张*明"},
		"control characters": {"张\x00\n*明", "张*明"},
		"marks on marks":     {"e" + strings.Repeat("\u0301", 4000), "e\u0301\u0301"},
		"too long":           {strings.Repeat("名", 40), strings.Repeat("名", maxName) + "…"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, tidy(test.in))
		})
	}
}

// TestATouchCountsOnTheScreenThatOffersIt: whatever a page sends, a face is
// looked for only when the idle screen asks for it, and never for another origin.
func TestATouchCountsOnTheScreenThatOffersIt(t *testing.T) {
	touches := 0
	p := newPanel(t, Config{Touch: func() { touches++ }})
	handler := p.Handler()
	touch := func(method, origin string) int {
		r := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1/identify", nil)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code
	}
	for name, s := range map[string]attendance.Screen{
		"not allowed":        {State: attendance.ScreenIdle},
		"somebody is served": {State: attendance.ScreenLook, Identify: true},
		"no class":           {State: attendance.ScreenNoClass},
	} {
		p.Show(s)
		assert.Equal(t, http.StatusConflict, touch(http.MethodPost, ""), name)
	}
	p.Show(attendance.Screen{State: attendance.ScreenIdle, Identify: true})
	assert.Equal(t, http.StatusForbidden, touch(http.MethodPost, "http://evil.example"))
	assert.Equal(t, http.StatusMethodNotAllowed, touch(http.MethodGet, ""))
	require.Zero(t, touches)
	assert.Equal(t, http.StatusNoContent, touch(http.MethodPost, "http://127.0.0.1"))
	assert.Equal(t, 1, touches)
}
