package main

import "time"

const (
	// remembered is how many frames a recording may be long to be found out:
	// over two minutes at 15 a second.
	remembered = 2048
	// longestGap is the most that one frame counts for; a longer time since the
	// frame before means that the camera was off between them.
	longestGap = time.Second
)

// repeats finds out a camera whose picture is frozen or a recording: every
// frame of the last while was seen before, to the bit. A sensor has noise, so
// that of a live camera is new; one that gives each frame twice is let pass,
// and so is a scene so still that a video codec skips whole pictures, as long
// as a new one comes in between. A recording that is encoded anew is not
// found out.
//
// It counts the time with frames, and remembers frames while the camera is
// off: a recording that begins anew with each connection is found out too.
type repeats struct {
	after time.Duration // so long without a new frame is suspect

	seen    map[uint64]int // how often a fingerprint is in ring
	ring    [remembered]uint64
	next    int
	last    uint64
	at      time.Time
	same    bool          // all of run was one frame
	run     time.Duration // since the last new frame
	fresh   time.Duration // of new frames while suspect
	suspect bool
}

func newRepeats(after time.Duration) *repeats {
	return &repeats{after: after, seen: map[uint64]int{}}
}

// see takes the next frame's fingerprint and reports whether the camera is suspect.
func (r *repeats) see(print uint64, now time.Time) bool {
	gap := now.Sub(r.at)
	if r.at.IsZero() || gap > longestGap {
		gap = 0
	}
	r.at = now
	if r.seen[print] > 0 {
		r.same = print == r.last && (r.same || r.run == 0)
		r.run += gap
		if r.run >= r.after {
			r.suspect, r.fresh = true, 0
		}
	} else {
		r.run = 0
		r.fresh += gap
		if r.fresh >= r.after {
			r.suspect = false
		}
	}
	r.remember(print)
	return r.suspect
}

func (r *repeats) remember(print uint64) {
	r.last = print
	if old := r.ring[r.next]; r.seen[old] > 1 {
		r.seen[old]--
	} else {
		delete(r.seen, old)
	}
	r.ring[r.next] = print
	r.next = (r.next + 1) % remembered
	r.seen[print]++
}

// text says what the picture does, and what to do.
func (r *repeats) text() string {
	if r.same {
		return "camera's picture is frozen: switch the camera off and on, and see that nobody has put another device in its place"
	}
	return "camera repeats a recording: see that nobody has put another device in the camera's place"
}
