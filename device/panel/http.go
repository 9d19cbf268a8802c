package panel

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"

	"rollcall/attendance"
)

const maxBody = 64 << 10 // nothing here reads a body

// route is one path of the panel. Tests walk them all.
type route struct {
	pattern string
	serve   http.HandlerFunc
}

func (p *Panel) routes() []route {
	routes := []route{
		{"GET /events", p.serveEvents},
		{"GET /preview", p.servePreview},
		{"POST /identify", p.serveIdentify},
		{"GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "alive") }},
		{"GET /readyz", p.serveReady},
		{"GET /healthz", p.serveHealth},
	}
	for _, f := range p.page.files {
		routes = append(routes, route{"GET " + f.path, f.serve})
	}
	return routes
}

// Handler is everything the panel serves, guards included.
func (p *Panel) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range p.routes() {
		mux.HandleFunc(r.pattern, r.serve)
	}
	var h http.Handler = http.MaxBytesHandler(mux, maxBody)
	h = http.NewCrossOriginProtection().Handler(h)
	return loopbackOnly(withHeaders(h))
}

// loopbackOnly refuses requests whose Host is no name of this box: a page from
// elsewhere that rebinds its own name to 127.0.0.1 still says that name.
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.Trim(r.Host, "[]") // without a port
		}
		switch host {
		case "127.0.0.1", "::1", "localhost":
			next.ServeHTTP(w, r)
		default:
			answer(w, http.StatusMisdirectedRequest, "this is the check-in panel of another address")
		}
	})
}

// withHeaders lets a page use what this server sends and nothing else.
func withHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
			"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// serveIdentify takes a touch of the idle screen's button. A touch that comes
// when that screen does not stand, or stands without the button, is refused.
func (p *Panel) serveIdentify(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	offered := p.screen.State == attendance.ScreenIdle && p.screen.Identify
	p.mu.Unlock()
	if !offered || p.cfg.Touch == nil {
		answer(w, http.StatusConflict, "nothing to touch on this screen")
		return
	}
	p.cfg.Touch()
	w.WriteHeader(http.StatusNoContent)
}

func (p *Panel) serveReady(w http.ResponseWriter, _ *http.Request) {
	if p.health.Ready() {
		answer(w, http.StatusOK, "ready: a check-in can be stored")
		return
	}
	answer(w, http.StatusServiceUnavailable, "not ready: a check-in cannot be stored; see /healthz")
}

func (p *Panel) serveHealth(w http.ResponseWriter, _ *http.Request) {
	text, err := json.MarshalIndent(p.health.Snapshot(), "", "  ")
	if err != nil {
		panic("panel: encoding the health report: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n'))
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}
