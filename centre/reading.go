package centre

import (
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	readPage     = 1000             // most records, alarms or logs in one answer
	readPageHere = 200              // and as many if nothing is said
	readBodyMost = 64 << 10         // bytes; no request has a body
	readHeader   = 16 << 10         // bytes
	readAtOnce   = 64               // requests
	readTime     = 30 * time.Second // for a page to go out
	readWait     = 60 * time.Second // most that the feed waits for records
	readLook     = time.Second      // how often it looks
)

// Reading is the way for other systems to read what the centre holds: HTTP over
// TLS 1.3 with the centre's own certificate, each request with the token or the
// client certificate of a reader. It answers GET only: there is no way to change or delete anything.
// Every answer is logged with who read and how much. docs/centre.md describes
// it for users.
type Reading struct {
	centre *Centre
	net    net.Listener
	full   chan struct{} // a slot for each request that is being answered
}

// Reading opens the address in the configuration, or returns nil if it names
// none. Run serves it.
func (c *Centre) Reading() (*Reading, error) {
	if c.cfg.Read == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", c.cfg.Read)
	if err != nil {
		return nil, fmt.Errorf("read = %q: %w", c.cfg.Read, err)
	}
	return &Reading{centre: c, net: l, full: make(chan struct{}, readAtOnce)}, nil
}

// Address is the address that readers dial, with the port that was taken.
func (r *Reading) Address() string { return r.net.Addr().String() }

// Run serves until ctx ends, and then for as long as a page takes.
func (r *Reading) Run(ctx context.Context) error {
	server := &http.Server{
		Handler:           r.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       readWait + readTime, // it also ends a request that waits
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    readHeader,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo), // it quotes what strangers send
		BaseContext:       func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{
			GetCertificate: r.centre.served.forServer,
			ClientAuth:     tls.VerifyClientCertIfGiven,
			ClientCAs:      r.centre.keys.caPool(),
			MinVersion:     tls.VersionTLS13,
			Time:           r.centre.now,
		},
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(r.net, "", "") }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving readers: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTime)
	defer cancel()
	err := server.Shutdown(stop)
	<-ended
	return err
}

// route is one thing that can be read.
type route struct {
	pattern string
	answer  func(w http.ResponseWriter, req *http.Request) (count int, err error)
}

func (r *Reading) routes() []route {
	return []route{
		{"GET /v1/records", r.records},
		{"GET /v1/feed", r.feed},
		{"GET /v1/alarms", r.alarms},
		{"GET /v1/logs", r.logs},
		{"GET /v1/logs/{terminal}/{epoch}/bundle", r.bundle},
	}
}

// handler lets a request through one door after the other: by name (against DNS
// rebinding), not from another site's page, not too many, not from a stranger.
func (r *Reading) handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range r.routes() {
		mux.HandleFunc(route.pattern, func(w http.ResponseWriter, req *http.Request) { r.answer(w, req, route) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "there is nothing here: docs/centre.md lists what there is")
	})
	doors := r.admit(mux)
	doors = r.bounded(doors)
	doors = http.NewCrossOriginProtection().Handler(doors)
	doors = r.named(doors)
	return http.MaxBytesHandler(doors, readBodyMost)
}

// named refuses requests for another host: a page in a browser on this machine
// can make its own name lead here.
func (r *Reading) named(next http.Handler) http.Handler {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, r.centre.cfg.Names...)
	if host, _, err := net.SplitHostPort(r.Address()); err == nil {
		names = append(names, host)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		host := req.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if !slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, strings.Trim(host, "[]")) }) {
			refuse(w, http.StatusMisdirectedRequest, "this centre does not go by that name: use one of names in its configuration")
			return
		}
		next.ServeHTTP(w, req)
	})
}

func (r *Reading) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		select {
		case r.full <- struct{}{}:
			defer func() { <-r.full }()
			next.ServeHTTP(w, req)
		default:
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusServiceUnavailable, "too many read at once: try again in a second")
		}
	})
}

type readerName struct{}

// admit lets in who holds a token or a certificate.
func (r *Reading) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		name, err := r.centre.whoReads(req)
		switch {
		case errors.Is(err, errStranger):
			r.centre.log.WarnContext(req.Context(), "reader refused", "remote", req.RemoteAddr, "err", err)
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, err.Error())
		case err != nil:
			r.failed(w, req, err)
		default:
			next.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), readerName{}, name)))
		}
	})
}

// ErrQuery is wrapped by what is the reader's fault.
var ErrQuery = errors.New("this cannot be answered")

// answer writes an answer and logs it: who, what and how much, and of what was
// asked for only by which names.
func (r *Reading) answer(w http.ResponseWriter, req *http.Request, route route) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	count, err := route.answer(w, req)
	var by []string
	for name := range req.URL.Query() {
		by = append(by, name)
	}
	slices.Sort(by)
	name, _ := req.Context().Value(readerName{}).(string)
	r.centre.log.InfoContext(req.Context(), "read", "reader", name, "route", route.pattern, "by", known(by), "count", count, "whole", err == nil)
	if err != nil && count > 0 {
		panic(http.ErrAbortHandler) // part of an answer went out: it must not look whole
	}
	switch {
	case errors.Is(err, ErrQuery):
		refuse(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, sql.ErrNoRows):
		refuse(w, http.StatusNotFound, "the centre holds nothing of that name")
	case err != nil:
		r.failed(w, req, err)
	}
}

// known keeps a stranger's parameters out of the log.
func known(names []string) string {
	all := []string{"after", "all", "class", "from", "limit", "terminal", "to", "trainee", "wait"}
	return strings.Join(slices.DeleteFunc(names, func(n string) bool { return !slices.Contains(all, n) }), ",")
}

func (r *Reading) failed(w http.ResponseWriter, req *http.Request, err error) {
	if req.Context().Err() != nil {
		return // nobody listens any more
	}
	r.centre.log.ErrorContext(req.Context(), "not read", "err", err)
	refuse(w, http.StatusInternalServerError, "the centre could not read its database: its log says why")
}

// refuse answers with a sentence.
func refuse(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": sentence})
}
