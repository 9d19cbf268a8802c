package pcsc

import (
	"sync"
	"time"
)

// twin is a device with two or more slots, a contact and a contactless one
// mostly. A card that lies in one is often in the field of the other, so what
// one slot reads the other must not read again.
type twin struct {
	near time.Duration // a card that shows up elsewhere within this is the same

	mu      sync.Mutex // guards what follows
	holder  *slot      // whose card it is; nil when none
	verdict verdict    // on the holder's card, or the last
	last    *slot      // the holder before
	left    time.Time  // when its card left
	waiting map[*slot]bool
}

func newTwin(near time.Duration) *twin { return &twin{near: near, waiting: map[*slot]bool{}} }

type verdict int

const (
	undecided verdict = iota
	settled           // read, or failed for a reason of the card's own
	lost              // the slot could not reach it: another may try
)

// claim is a slot's claim to the card that came to it: it reads it, waits for
// the other slot's verdict, or leaves it alone until it goes.
type claim int

const (
	mine claim = iota
	pending
	theirs
)

func (t *twin) claim(s *slot) claim {
	if t == nil {
		return mine
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	passing := t.holder == nil && t.last != nil && t.last != s && time.Since(t.left) < t.near
	switch {
	case t.holder == s:
		return mine
	case t.holder != nil && t.verdict == undecided:
		t.waiting[s] = true
		return pending
	case t.verdict == settled && (t.holder != nil || passing):
		return theirs
	}
	t.holder, t.verdict = s, undecided
	return mine
}

// settle says how the holder's card ended.
func (t *twin) settle(s *slot, v verdict) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holder == s {
		t.verdict = v
		t.wake()
	}
}

// leave says that the card has left a slot.
func (t *twin) leave(s *slot, when time.Time) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiting, s)
	if t.holder == s {
		t.holder, t.last, t.left = nil, s, when
		t.wake()
	}
}

// wake lets the slots that wait claim again.
func (t *twin) wake() {
	for s := range t.waiting {
		select {
		case s.again <- struct{}{}:
		default:
		}
	}
	clear(t.waiting)
}
