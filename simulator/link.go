package simulator

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
)

// Link is the network between a terminal and its centre: a TCP relay on
// loopback that can be cut and mended. Cut and Mend may be called from any
// goroutine.
type Link struct {
	listener net.Listener
	target   string

	mu    sync.Mutex // guards what follows
	cut   bool
	conns map[net.Conn]struct{}
}

// NewLink listens on a free port and will relay to target once Run runs.
func NewLink(target string) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("network link: %w", err)
	}
	return &Link{listener: listener, target: target, conns: map[net.Conn]struct{}{}}, nil
}

// Addr is where the terminal finds its centre.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// Cut ends every connection and refuses new ones.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for conn := range l.conns {
		conn.Close()
	}
}

// Mend lets connections through again.
func (l *Link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// Run relays until ctx ends.
func (l *Link) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { l.listener.Close(); l.Cut() })()
	var relays sync.WaitGroup
	defer relays.Wait()
	for {
		near, err := l.listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("network link: %w", err)
		}
		relays.Go(func() { l.relay(near) })
	}
}

func (l *Link) relay(near net.Conn) {
	defer near.Close()
	if !l.hold(near) {
		return
	}
	defer l.drop(near)
	far, err := net.Dial("tcp", l.target)
	if err != nil {
		return // the centre is away: the terminal sees a closed connection
	}
	defer far.Close()
	if !l.hold(far) {
		return
	}
	defer l.drop(far)
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(near, far)
		near.Close()
	})
	_, _ = io.Copy(far, near)
	far.Close()
	back.Wait()
}

func (l *Link) hold(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	l.conns[conn] = struct{}{}
	return true
}

func (l *Link) drop(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}
