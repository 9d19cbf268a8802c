package panel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"rollcall/attendance"
	"rollcall/device"
)

// Config says where the screen is served and how it greets.
type Config struct {
	// Listen is the address of the page, on loopback. Default
	// "127.0.0.1:8080"; port 0 takes a free one. A page anyone on the network
	// could open would show the class to the neighbours, so others are refused.
	Listen string `toml:"listen"`
	// Language the page starts in and returns to: "zh" (default) or "en".
	Language string `toml:"language"`
	// Quiet turns the short tones off. Default false; tones also need a browser
	// started with --autoplay-policy=no-user-gesture-required.
	Quiet bool `toml:"quiet"`

	// Zone is the time zone of the clock on the page, so that it shows the time
	// that records carry. Nil leaves it to the browser.
	Zone *time.Location `toml:"-"`
	// Touch, if not nil, is told when the button of the idle screen was touched,
	// to check in by face alone. It must not block.
	Touch func() `toml:"-"`
}

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8080"
	}
	if c.Language == "" {
		c.Language = "zh"
	}
	return c
}

func (c Config) check() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen = %q: give host and port, like 127.0.0.1:8080", c.Listen)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("listen = %q: the panel is for this box alone; use 127.0.0.1, [::1] or localhost", c.Listen)
	}
	if c.Language != "zh" && c.Language != "en" {
		return fmt.Errorf("language = %q: the panel speaks zh and en", c.Language)
	}
	return nil
}

// Panel serves the screen. It is made by [New] and works while [Panel.Run]
// does.
type Panel struct {
	cfg      Config
	health   *device.Health
	log      *slog.Logger
	page     page
	listener net.Listener
	instance string // goes before event ids, so that those of an earlier run are no match

	mu      sync.Mutex // guards what follows
	last    uint64     // id of the newest event
	screen  attendance.Screen
	badges  badges
	unsent  int
	clients map[*client]bool
	frame   []byte        // newest preview; nil unless the screen asks to look
	stirred chan struct{} // closed when frame changes
	viewers int
}

// New checks the configuration and takes the address, so that a port in use is
// known at start. It serves nothing before Run.
func New(cfg Config, health *device.Health, log *slog.Logger) (*Panel, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("panel: %w", err)
	}
	page, err := newPage(cfg)
	if err != nil {
		return nil, fmt.Errorf("panel: %w", err)
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("panel: listening on %s: %w; is another rollcalld running, or the port taken?", cfg.Listen, err)
	}
	return &Panel{
		cfg: cfg, health: health, log: log, page: page, instance: newInstance(), listener: listener,
		screen:  attendance.Screen{State: attendance.ScreenStarting},
		clients: map[*client]bool{},
		stirred: make(chan struct{}),
	}, nil
}

// Addr is the address of the page.
func (p *Panel) Addr() net.Addr { return p.listener.Addr() }

// Run serves until ctx ends, then gives the address back.
func (p *Panel) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           p.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      writeTimeout, // streams move it on with every write
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends the streams
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	var group sync.WaitGroup
	group.Go(func() { p.watchHealth(ctx) })
	group.Go(func() {
		<-ctx.Done()
		shutDown(server)
	})
	err := server.Serve(p.listener)
	cancel()
	group.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("panel: serving %s: %w", p.Addr(), err)
}

// shutDown lets answers in hand finish, within reason.
func shutDown(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close()
	}
}
