package mqtt

import (
	"context"
	"sync"
)

// maxWaiting bounds the class packages that wait to be taken in, in bytes.
const maxWaiting = 16 << 20

// inbox holds the newest message of each topic until somebody has time for it.
type inbox struct {
	arrived chan struct{} // holds one

	mu    sync.Mutex // guards what follows
	order []string   // topics that wait, oldest first
	held  map[string][]byte
	size  int
}

func newInbox() *inbox {
	return &inbox{arrived: make(chan struct{}, 1), held: map[string][]byte{}}
}

// put never blocks. It reports false, and drops the message, when too much
// waits; it comes again with the next connection. An empty message withdraws a
// retained one and is passed over.
func (b *inbox) put(topic string, payload []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(payload) == 0 {
		return true
	}
	before, waits := b.held[topic]
	size := b.size - len(before) + len(payload)
	if size > maxWaiting {
		return false
	}
	if !waits {
		b.order = append(b.order, topic)
	}
	b.held[topic], b.size = payload, size
	select {
	case b.arrived <- struct{}{}:
	default:
	}
	return true
}

func (b *inbox) take() (payload []byte, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.order) == 0 {
		return nil, false
	}
	topic := b.order[0]
	payload = b.held[topic]
	b.order = b.order[1:]
	delete(b.held, topic)
	b.size -= len(payload)
	return payload, true
}

// deliver hands messages to f, one at a time, until ctx ends.
func (b *inbox) deliver(ctx context.Context, f func(context.Context, []byte)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.arrived:
		}
		for payload, ok := b.take(); ok && ctx.Err() == nil; payload, ok = b.take() {
			f(ctx, payload)
		}
	}
}
