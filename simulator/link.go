package simulator

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

// Link is the network between a terminal and its centre: a TCP relay on
// loopback that can be cut and mended, is slow if it is told so, and can turn
// into a black hole. Cut, Mend and Swallow may be called from any goroutine.
type Link struct {
	// Delay is how long each byte takes one way, Jitter what a random part of is
	// added to it, in order. Rate is how many bytes a second go each way, 0
	// without a limit. Set before Run.
	Delay, Jitter time.Duration
	Rate          int
	// Exact waits in the kernel, to 0.1 ms; timers are late by up to 1 ms each
	// way. Not for virtual time. Set before Run.
	Exact bool

	listener net.Listener
	target   string

	mu    sync.Mutex // guards what follows
	cut   bool
	hole  bool
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

// Swallow keeps connections open and passes nothing on, until Mend.
func (l *Link) Swallow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hole = true
}

// Mend lets connections through again. What was swallowed stays lost, and with
// it the connections it was lost from.
func (l *Link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.hole = false, false
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
		l.Carry(near, far)
		near.Close()
	})
	l.Carry(far, near)
	far.Close()
	back.Wait()
}

// segment is what was read at once, and when it is at the other end.
type segment struct {
	data []byte
	due  time.Time
}

// underWay bounds the segments that are under way; TCP then holds the sender.
const underWay = 1024

// Carry passes on what from says, with the link's delay and rate, until one of
// them is closed; the caller closes both. It serves any connection, one in
// memory as well.
func (l *Link) Carry(to io.Writer, from io.Reader) {
	way := make(chan segment, underWay)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(way)
		free := time.Now() // when the line can take the next byte
		for last := free; ; {
			data := make([]byte, 4<<10)
			n, err := from.Read(data)
			if err != nil {
				return
			}
			if free = later(free, time.Now()); l.Rate > 0 {
				free = free.Add(time.Duration(n) * time.Second / time.Duration(l.Rate))
			}
			due := free.Add(l.Delay)
			if l.Jitter > 0 {
				due = due.Add(rand.N(l.Jitter))
			}
			last = later(last, due)
			way <- segment{data[:n], last}
		}
	})
	for s := range way {
		l.await(s.due)
		if l.swallows() {
			continue
		}
		if _, err := to.Write(s.data); err != nil {
			break
		}
	}
	for range way { // the reader ends when its connection is closed
	}
	reading.Wait()
}

func (l *Link) await(due time.Time) {
	for wait := time.Until(due); wait > 0; wait = time.Until(due) {
		if !l.Exact {
			<-time.After(wait)
			continue
		}
		t := syscall.NsecToTimespec(int64(wait))
		_ = syscall.Nanosleep(&t, nil) // a signal ends it early
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (l *Link) swallows() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hole
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
