package panel

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/device"
)

// chromium is the one browser of this package's tests, ended by TestMain.
var chromium struct {
	once sync.Once
	ctx  context.Context
	end  []func()
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, end := range chromium.end {
		end()
	}
	os.Exit(code)
}

func startChromium() {
	path, err := exec.LookPath("chromium")
	if err != nil {
		chromium.err = fmt.Errorf("the panel is tested in a real browser: apt-get install chromium (%w)", err)
		return
	}
	fonts, err := exec.Command("fc-list", ":lang=zh-cn").Output()
	if err != nil || len(fonts) == 0 {
		chromium.err = fmt.Errorf("no font for Chinese: apt-get install fontconfig fonts-wqy-microhei (%v)", err)
		return
	}
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.Headless, chromedp.NoFirstRun, chromedp.NoSandbox, chromedp.DisableGPU}
	for _, flag := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage", "disable-extensions", "no-default-browser-check"} {
		options = append(options, chromedp.Flag(flag, true))
	}
	options = append(options,
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")) // calls nobody
	alloc, endAlloc := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(alloc)
	chromium.end = []func(){func() { _ = chromedp.Cancel(ctx) }, cancel, endAlloc}
	chromium.ctx, chromium.err = ctx, chromedp.Do(ctx)
}

// tab is one page of the browser. It remembers what the browser complained of.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	complaints []string
}

func openTab(t *testing.T, width, height int64, url string) *tab {
	t.Helper()
	chromium.once.Do(startChromium)
	require.NoError(t, chromium.err)
	ctx, cancel := chromedp.NewContext(chromium.ctx)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	require.NoError(t, chromedp.Listen(ctx, b.listen))
	require.NoError(t, chromedp.Do(ctx, chromedp.EmulateViewport(width, height), chromedp.Navigate(url)))
	return b
}

func (b *tab) listen(event any) {
	var complaint string
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			complaint = e.Entry.Text
		}
	case *runtime.EventConsoleAPICalled:
		complaint = "console." + string(e.Type)
	case *runtime.EventExceptionThrown:
		complaint = e.ExceptionDetails.Text
	}
	if complaint != "" {
		b.mu.Lock()
		b.complaints = append(b.complaints, complaint)
		b.mu.Unlock()
	}
}

func (b *tab) complained() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.complaints...)
}

// wait waits until a JavaScript expression is true.
func (b *tab) wait(expression string) {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Poll[bool](expression))
	require.NoError(b.t, err, "%s; the page says %q", expression, b.text())
}

// waitFor waits until the page has drawn the newest event of p.
func (b *tab) waitFor(p *Panel) {
	b.t.Helper()
	p.mu.Lock()
	id := p.eventID(p.last)
	p.mu.Unlock()
	b.wait(fmt.Sprintf("document.body.dataset.event === %q", id))
}

func (b *tab) text() string { return eval[string](b, "document.body.innerText") }

func (b *tab) click(selector string) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.ctx, chromedp.Click(selector)))
}

func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	require.NoError(b.t, err, expression)
	return v
}

// screenshot writes what the page shows to ROLLCALL_SCREENSHOTS, if that is set.
func (b *tab) screenshot(name string) {
	dir := os.Getenv("ROLLCALL_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	require.NoError(b.t, err)
	require.NoError(b.t, os.MkdirAll(dir, 0o755))
	require.NoError(b.t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

// layout is what measure.js finds on the page.
type layout struct {
	Headline   string   `json:"headline"`
	Overflows  []string `json:"overflows"`
	HeadlinePx float64  `json:"headlinePx"`
	AdvicePx   float64  `json:"advicePx"` // 0 if there is none
	CodePx     float64  `json:"codePx"`   // 0 if there is none
	Faint      []string `json:"faint"`    // text with too little contrast
	Icons      []string `json:"icons"`    // shown
	Small      []string `json:"small"`    // buttons under 60 px
}

func (b *tab) measure() layout {
	b.t.Helper()
	script, err := os.ReadFile("testdata/measure.js")
	require.NoError(b.t, err)
	return eval[layout](b, string(script))
}

const maskedName = "张*明"

// gallery is every screen a trainee may meet: each state, with every reason,
// fault and advice that goes with it.
func gallery(t *testing.T) map[string]attendance.Screen {
	base := attendance.Screen{
		Class: "电工初级班", Name: maskedName, At: "09:03", Minutes: 12, Ordinal: 23, Code: "3F9C-21AB", Try: 2, Tries: 3, Until: "11:30",
	}
	shots := map[string]attendance.Screen{}
	add := func(name string, state attendance.ScreenState, change func(s *attendance.Screen)) {
		s := base
		s.State = state
		if change != nil {
			change(&s)
		}
		shots[name] = s
	}
	words := wordsOfAttendance(t)
	for _, state := range attendance.ScreenStates {
		switch state {
		case attendance.ScreenLook, attendance.ScreenRetry:
			for _, advice := range words["Advice"] {
				add(string(state)+"-"+advice, state, func(s *attendance.Screen) { s.Advice = attendance.Advice(advice) })
			}
		case attendance.ScreenEnrolLook:
			for _, advice := range []attendance.Advice{attendance.AdviceNone, attendance.AdviceLeft, attendance.AdviceRight} {
				add(string(state)+"-"+string(advice), state, func(s *attendance.Screen) { s.Advice = advice })
			}
		case attendance.ScreenNotEnrolled:
			for _, fault := range words["EnrolFault"] {
				add(string(state)+"-"+fault, state, func(s *attendance.Screen) { s.Reason = fault })
			}
		case attendance.ScreenNoted:
			for _, reason := range append(words["Reason"], string(attendance.NoSession)) {
				add(string(state)+"-"+reason, state, func(s *attendance.Screen) { s.Reason = reason })
			}
		case attendance.ScreenCardFault:
			for _, fault := range words["CardFault"] {
				add(string(state)+"-"+fault, state, func(s *attendance.Screen) { s.Reason, s.Name = fault, "" })
			}
		case attendance.ScreenPaused:
			add(string(state), state, func(s *attendance.Screen) { s.Reason, s.Name = "E18", "" })
		case attendance.ScreenIdle:
			add(string(state), state, func(s *attendance.Screen) { s.Name = "" })
			add(string(state)+"-identify", state, func(s *attendance.Screen) { s.Name, s.Identify = "", true })
		case attendance.ScreenStarting, attendance.ScreenNoClass, attendance.ScreenReading, attendance.ScreenUnknown:
			add(string(state), state, func(s *attendance.Screen) { s.Name = "" })
		default:
			add(string(state), state, nil)
		}
	}
	return shots
}

// headline is what the page should say in large print.
func headline(texts texts, s attendance.Screen) string {
	text := texts.State[string(s.State)].Headline
	if s.State == attendance.ScreenCardFault {
		text = texts.Fault[s.Reason].Headline
	}
	return strings.NewReplacer("{try}", "2", "{tries}", "3", "{minutes}", "12", "{at}", "09:03").Replace(text)
}

func TestEveryScreenInTheBrowser(t *testing.T) {
	for _, size := range []struct {
		name          string
		width, height int64
		large         bool
	}{
		{"landscape", 1280, 800, false},
		{"landscape-large", 1280, 800, true},
		{"portrait", 800, 1280, false},
		{"portrait-large", 800, 1280, true},
	} {
		for _, lang := range []string{"zh", "en"} {
			t.Run(size.name+"-"+lang, func(t *testing.T) {
				p := newPanel(t, Config{Language: lang})
				run(t, p)
				page := openTab(t, size.width, size.height, "http://"+p.Addr().String())
				if size.large {
					page.click("#size")
					require.Equal(t, "32px", eval[string](page, "getComputedStyle(document.documentElement).fontSize"))
				}
				for name, screen := range gallery(t) {
					p.Show(attendance.Screen{State: attendance.ScreenStarting}) // so that advice comes at once
					p.Show(screen)
					page.waitFor(p)
					page.screenshot(size.name + "-" + lang + "-" + name)
					got := page.measure()
					assert.Equal(t, headline(readTexts(t, lang), screen), got.Headline, name)
					assert.Empty(t, got.Overflows, name)
					assert.Empty(t, got.Faint, name)
					assert.Empty(t, got.Small, name)
					assert.Contains(t, got.Icons, string(screen.State), name)
					assert.GreaterOrEqual(t, got.HeadlinePx, 77.0, name)
					if got.AdvicePx > 0 {
						assert.GreaterOrEqual(t, got.AdvicePx, 41.0, name)
					}
					if screen.State == attendance.ScreenRecorded {
						assert.GreaterOrEqual(t, got.CodePx, 41.0, name)
					}
					if screen.Name != "" {
						assert.Equal(t, 1, strings.Count(eval[string](page, "document.documentElement.outerHTML"), maskedName), name)
					}
					assert.NotContains(t, page.text(), "非本人", name)
					assert.NotRegexp(t, `\{\w+\}|undefined|null|NaN`, page.text(), name)
				}
				assert.Empty(t, page.complained())
			})
		}
	}
}

func TestBadgesInTheBrowser(t *testing.T) {
	for _, lang := range []string{"zh", "en"} {
		for _, large := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s-large-%v", lang, large), func(t *testing.T) {
				p := newPanel(t, Config{Language: lang})
				run(t, p)
				page := openTab(t, 1280, 800, "http://"+p.Addr().String())
				if large {
					page.click("#size")
				}
				texts := readTexts(t, lang)
				p.Show(attendance.Screen{State: attendance.ScreenIdle, Class: "电工初级班", Until: "11:30"})
				page.wait("document.body.dataset.state === 'idle'")
				assert.NotContains(t, page.text(), texts.Badge["offline"])

				for _, part := range []device.Part{device.PartUplink, device.PartCamera, device.PartClock} {
					p.health.Set(part, device.StateDown, device.Sentence{})
				}
				p.Unsent(128)
				page.wait("document.querySelectorAll('[data-badge]:not([hidden])').length === 3 && document.body.innerText.includes('128')")
				assert.Contains(t, page.text(), strings.ReplaceAll(texts.Badge["saved"], "{unsent}", "128"))
				assert.True(t, eval[bool](page, "document.getElementById('time').hidden"), "a wrong time is not shown")
				assert.Empty(t, page.measure().Overflows)
				page.screenshot(fmt.Sprintf("badges-%s-large-%v", lang, large))

				p.health.Set(device.PartReader, device.StateDown, device.Sentence{})
				page.wait("document.body.dataset.state === 'no_reader'")
				assert.Contains(t, page.text(), texts.State["no_reader"].Headline, "no page asks for a card that nothing can read")
				assert.Empty(t, page.measure().Overflows)
				page.screenshot(fmt.Sprintf("no-reader-%s-large-%v", lang, large))

				sentence := device.Sentence{Zh: "存储已满：请插入新的存储卡", En: "Storage is full: insert a new card"}
				p.health.Set(device.PartDisk, device.StateDown, sentence)
				page.wait("document.body.dataset.state === 'paused'")
				want := map[string]string{"zh": sentence.Zh, "en": sentence.En}[lang]
				page.wait(fmt.Sprintf("document.body.innerText.includes(%q)", want))
				assert.Empty(t, page.measure().Overflows)

				for _, part := range device.Parts {
					p.health.OK(part)
				}
				page.wait("document.body.dataset.state === 'idle'")
				assert.Empty(t, page.complained())
			})
		}
	}
}

// TestTheFaceButton touches the button in a real browser: it is there when the
// class allows it and a camera works, and a touch arrives once.
func TestTheFaceButton(t *testing.T) {
	touches := make(chan struct{}, 4)
	p := newPanel(t, Config{Touch: func() { touches <- struct{}{} }})
	run(t, p)
	page := openTab(t, 1280, 800, "http://"+p.Addr().String())
	hidden := func() bool {
		page.waitFor(p)
		return eval[bool](page, "document.getElementById('identify').hidden")
	}
	idle := attendance.Screen{State: attendance.ScreenIdle, Class: "电工初级班", Until: "11:30"}
	p.Show(idle)
	assert.True(t, hidden(), "not allowed")
	idle.Identify = true
	p.Show(idle)
	require.False(t, hidden())
	assert.Empty(t, page.measure().Overflows)
	page.screenshot("identify")
	page.click("#identify")
	<-touches
	p.health.Set(device.PartReader, device.StateDown, device.Sentence{})
	page.wait("document.body.dataset.state === 'no_reader'")
	assert.False(t, hidden(), "a face needs no reader")
	p.health.Set(device.PartCamera, device.StateDown, device.Sentence{})
	page.wait("document.getElementById('identify').hidden")
	p.health.OK(device.PartCamera)
	page.wait("!document.getElementById('identify').hidden")
	p.Show(attendance.Screen{State: attendance.ScreenLook, Try: 1, Tries: 3})
	assert.True(t, hidden(), "somebody is served")
	assert.Empty(t, touches)
	assert.Empty(t, page.complained())
}

func TestLanguageButton(t *testing.T) {
	p := newPanel(t, Config{})
	run(t, p)
	p.Show(attendance.Screen{State: attendance.ScreenIdle})
	page := openTab(t, 1280, 800, "http://"+p.Addr().String())
	for _, lang := range []string{"zh", "en", "zh"} {
		page.wait(fmt.Sprintf("document.getElementById('headline').textContent === %q", readTexts(t, lang).State["idle"].Headline))
		assert.Equal(t, lang, eval[string](page, "document.documentElement.lang.slice(0, 2)"))
		page.click("#language")
	}
}

func TestAHostileNameIsText(t *testing.T) {
	for name, display := range map[string]string{
		"markup":         `<img src=x onerror="document.title='owned'">`,
		"script":         `<script>document.title='owned'</script>`,
		"marks":          "e" + strings.Repeat("\u0301", 4000),
		"long":           strings.Repeat("W", 4000),
		"compound":       "欧阳·买买提·*·阿卜杜热合曼·阿不都",
		"turned writing": "\u202e\u2067张*明",
	} {
		t.Run(name, func(t *testing.T) {
			p := newPanel(t, Config{})
			run(t, p)
			page := openTab(t, 1280, 800, "http://"+p.Addr().String())
			p.Show(attendance.Screen{State: attendance.ScreenRecorded, Name: display, Class: display, At: "09:03", Ordinal: 1, Code: "3F9C-21AB"})
			page.waitFor(p)
			assert.Equal(t, tidy(display), eval[string](page, "document.getElementById('name').textContent"))
			assert.Equal(t, "签到", eval[string](page, "document.title"))
			assert.Equal(t, 1, eval[int](page, "document.images.length"), "the preview alone")
			assert.Empty(t, page.measure().Overflows)
			assert.Empty(t, page.complained())
			page.screenshot("hostile-" + name)
		})
	}
}

func TestClockShowsTheTimeThatRecordsCarry(t *testing.T) {
	for _, name := range []string{"Asia/Shanghai", "America/Los_Angeles"} {
		zone, err := time.LoadLocation(name)
		require.NoError(t, err)
		p := newPanel(t, Config{Zone: zone})
		run(t, p)
		page := openTab(t, 1280, 800, "http://"+p.Addr().String())
		p.Show(attendance.Screen{State: attendance.ScreenIdle})
		page.waitFor(p)
		before := time.Now().In(zone).Format("15:04")
		shown := eval[string](page, "document.getElementById('time').textContent")
		assert.Contains(t, []string{before, time.Now().In(zone).Format("15:04")}, shown, name)
	}
}

func TestTheMirrorShowsTheNewestPicture(t *testing.T) {
	p := newPanel(t, Config{})
	run(t, p)
	page := openTab(t, 1280, 800, "http://"+p.Addr().String())
	p.Show(attendance.Screen{State: attendance.ScreenLook, Try: 1, Tries: 3})
	page.waitFor(p)
	for _, shot := range []struct {
		name string
		c    color.RGBA
		test string
	}{
		{"red", color.RGBA{R: 255, A: 255}, "r > 200 && g < 50"},
		{"green", color.RGBA{G: 255, A: 255}, "g > 200 && r < 50"},
	} {
		p.Preview(picture(t, shot.c))
		page.wait(`(() => {
			const img = document.getElementById('preview');
			if (!img.naturalWidth) return false;
			const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
			const pen = canvas.getContext('2d');
			pen.drawImage(img, 0, 0, 1, 1);
			const [r, g] = pen.getImageData(0, 0, 1, 1).data;
			return ` + shot.test + `;
		})()`)
		page.screenshot("mirror-" + shot.name)
	}
	assert.Equal(t, "matrix(-1, 0, 0, 1, 0, 0)", eval[string](page, "getComputedStyle(document.getElementById('preview')).transform"), "mirrored")
	p.Show(attendance.Screen{State: attendance.ScreenRecorded, Name: maskedName})
	page.waitFor(p)
	assert.False(t, eval[bool](page, "document.getElementById('preview').hasAttribute('src')"))
	assert.Empty(t, page.complained())
}

func picture(t *testing.T, c color.Color) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 320, 240))
	draw.Draw(img, img.Bounds(), image.NewUniform(c), image.Point{}, draw.Src)
	var out bytes.Buffer
	require.NoError(t, jpeg.Encode(&out, img, nil))
	return out.Bytes()
}

func TestAdviceStandsLongEnoughToBeRead(t *testing.T) {
	p := newPanel(t, Config{})
	run(t, p)
	page := openTab(t, 1280, 800, "http://"+p.Addr().String())
	p.Show(attendance.Screen{State: attendance.ScreenStarting})
	page.waitFor(p)
	eval[bool](page, `(() => {
		window.changes = [];
		new MutationObserver(() => changes.push(performance.now()))
			.observe(document.getElementById('advice'), {childList: true, characterData: true, subtree: true});
		return true;
	})()`)
	advices := []attendance.Advice{attendance.AdviceCloser, attendance.AdviceBrighter}
	for i := range 400 {
		p.Show(attendance.Screen{State: attendance.ScreenLook, Advice: advices[i%2]})
		if i%10 == 9 {
			page.waitFor(p) // or the page falls behind and is cut off
		}
	}
	p.Show(attendance.Screen{State: attendance.ScreenLook, Advice: attendance.AdviceTurnTo})
	page.wait("document.getElementById('advice').textContent === " + fmt.Sprintf("%q", readTexts(t, "zh").Advice["face_camera"]))
	changes := eval[[]float64](page, "changes.slice(1)") // the first is the change into the state
	for i := 1; i < len(changes); i++ {
		assert.GreaterOrEqual(t, changes[i]-changes[i-1], 750.0) // two clock readings of the page, not of this test
	}
	page.wait("changes.length > 1")
}

func TestThePageFindsBackToADaemonThatWasAway(t *testing.T) {
	p := newPanel(t, Config{})
	stop := run(t, p)
	address := p.Addr().String()
	p.Show(attendance.Screen{State: attendance.ScreenIdle, Class: "电工初级班"})
	page := openTab(t, 1280, 800, "http://"+address)
	page.wait("document.body.dataset.state === 'idle'")
	stop()
	page.wait("document.body.dataset.state === 'lost'")
	assert.Contains(t, page.text(), readTexts(t, "zh").State["lost"].Headline)
	assert.Empty(t, page.measure().Overflows)
	page.screenshot("lost")

	again := newPanel(t, Config{Listen: address})
	run(t, again)
	began := time.Now()
	again.Show(attendance.Screen{State: attendance.ScreenIdle})
	page.wait("document.body.dataset.state === 'idle'")
	t.Logf("back on the screen %v after the daemon", time.Since(began).Round(time.Millisecond))
}

func TestThePageLeavesADaemonThatHangs(t *testing.T) {
	p := newPanel(t, Config{})
	p.Show(attendance.Screen{State: attendance.ScreenIdle})
	p.refreshBadges()
	handler := p.Handler()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" && asked.Add(1) == 1 {
			w.Header().Set("Content-Type", "text/event-stream")
			_ = newStream(w).write([]byte(": and nothing more\n\n"))
			<-r.Context().Done()
			return
		}
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	defer server.CloseClientConnections()
	page := openTab(t, 1280, 800, server.URL)
	page.wait("document.body.dataset.state === 'idle'")
	assert.GreaterOrEqual(t, asked.Load(), int32(2))
}

// texts is the shape of zh.json and en.json.
type texts struct {
	State  map[string]struct{ Headline, Advice string }
	Fault  map[string]struct{ Headline, Advice string }
	Advice map[string]string
	Noted  map[string]string
	Enrol  map[string]string
	Badge  map[string]string
}

func readTexts(t *testing.T, lang string) texts {
	t.Helper()
	raw, err := pageFiles.ReadFile("page/" + lang + ".json")
	require.NoError(t, err)
	var out texts
	require.NoError(t, json.Unmarshal(raw, &out))
	return out
}
