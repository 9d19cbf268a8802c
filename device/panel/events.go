package panel

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"rollcall/attendance"
	"rollcall/device"
)

const (
	pingEvery    = 2 * time.Second
	writeTimeout = 5 * time.Second
	maxClients   = 16 // pages at once; a kiosk is one
	clientQueue  = 64 // events a page may be behind before it is cut off
)

// An event of the stream /events (HTML Living Standard, 9.2 Server-sent
// events): "snapshot" first, then "screen" and "badges" as they change, and
// "ping" every two seconds.
type event struct {
	id   uint64 // grows with every event; a ping has none
	name string
	data []byte
}

// client is one open page.
type client struct {
	events chan event // closed when the page is cut off; guarded by Panel.mu
	abort  func()     // ends a write that hangs
}

// snapshot is all a page needs to draw itself.
type snapshot struct {
	Screen attendance.Screen `json:"screen"`
	Badges badges            `json:"badges"`
	Page   string            `json:"page"` // version of the page; another one means: load anew
}

func newInstance() string { return rand.Text()[:8] }

// Show puts s on the screen. It never waits: a page that is too far behind is
// cut off and starts again with the newest screen.
func (p *Panel) Show(s attendance.Screen) {
	s.Name, s.Class = tidy(s.Name), tidy(s.Class)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.screen = s
	if !asksToLook(s.State) {
		p.setFrame(nil)
	}
	p.publish("screen", s)
}

// publish sends an event to every page. The caller holds mu.
func (p *Panel) publish(name string, value any) {
	p.last++
	e := event{id: p.last, name: name, data: encode(value)}
	for c := range p.clients {
		select {
		case c.events <- e:
		default:
			delete(p.clients, c)
			close(c.events)
			c.abort()
		}
	}
}

// join adds a page and gives the events it starts with: a snapshot, or none if
// the page has seen everything.
func (p *Panel) join(lastSeen string, abort func()) (c *client, first []event, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.clients) >= maxClients {
		return nil, nil, false
	}
	c = &client{events: make(chan event, clientQueue), abort: abort}
	p.clients[c] = true
	p.reportScreen()
	if lastSeen == p.eventID(p.last) {
		return c, nil, true
	}
	s := snapshot{Screen: p.screen, Badges: p.badges, Page: p.page.version}
	return c, []event{{id: p.last, name: "snapshot", data: encode(s)}}, true
}

// leave removes a page. Whether it was cut off is logged here, because nothing
// that can block may be done where screens are published.
func (p *Panel) leave(c *client) {
	p.mu.Lock()
	cutOff := !p.clients[c]
	delete(p.clients, c)
	p.reportScreen()
	p.mu.Unlock()
	if cutOff {
		p.log.Warn("page cut off, too far behind")
	}
}

// reportScreen tells the caretaker whether anyone can see the screen. The
// caller holds mu.
func (p *Panel) reportScreen() {
	if len(p.clients) > 0 {
		p.health.OK(device.PartPanel)
		return
	}
	p.health.Set(device.PartPanel, device.StateDown, device.Sentence{
		Zh: "屏幕没有连接：请检查本机浏览器是否打开签到页面",
		En: "No screen is connected: check that the browser on this box shows the check-in page",
	})
}

func (p *Panel) eventID(n uint64) string { return fmt.Sprintf("%s-%d", p.instance, n) }

func (p *Panel) serveEvents(w http.ResponseWriter, r *http.Request) {
	stream := newStream(w)
	c, first, ok := p.join(r.Header.Get("Last-Event-ID"), stream.abort)
	if !ok {
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	defer p.leave(c)
	w.Header().Set("Content-Type", "text/event-stream")
	if stream.write([]byte("retry: 500\n\n")) != nil {
		return
	}
	for _, e := range first {
		if p.send(stream, e) != nil {
			return
		}
	}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		e := event{name: "ping", data: []byte("{}")} // a page hears no event without data
		select {
		case <-r.Context().Done():
			return
		case <-ping.C:
		case e, ok = <-c.events:
			if !ok {
				return
			}
		}
		if p.send(stream, e) != nil {
			return
		}
	}
}

func (p *Panel) send(s stream, e event) error {
	var id string
	if e.name != "ping" {
		id = "id: " + p.eventID(e.id) + "\n"
	}
	return s.write(fmt.Appendf(nil, "%sevent: %s\ndata: %s\n\n", id, e.name, e.data))
}

// stream is an answer that goes on: each write has its own time limit and is
// sent at once.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newStream(w http.ResponseWriter) stream {
	s := stream{w, http.NewResponseController(w)}
	_ = s.rc.SetReadDeadline(time.Time{}) // the server's ends a stream after ten seconds
	return s
}

func (s stream) write(data []byte) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write(data); err != nil {
		return err
	}
	return s.rc.Flush()
}

// abort ends a write that hangs; any goroutine may call it while the handler
// runs.
func (s stream) abort() { _ = s.rc.SetWriteDeadline(time.Unix(1, 0)) }

func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("panel: encoding an event: " + err.Error())
	}
	return text
}
