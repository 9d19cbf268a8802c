package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

const rate = 15 // frames a second

// suspectAt plays frames and gives when the camera first was suspect, and
// whether it is at the end.
func suspectAt(r *repeats, frames int, fingerprint func(i int) uint64) (first time.Duration, last bool) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if !r.at.IsZero() {
		began = r.at.Add(time.Second / rate)
	}
	first = -1
	for i := range frames {
		at := time.Duration(i) * time.Second / rate
		if last = r.see(fingerprint(i), began.Add(at)); last && first < 0 {
			first = at
		}
	}
	return first, last
}

func TestRepeats(t *testing.T) {
	const never = -1
	for name, c := range map[string]struct {
		fingerprint func(i int) uint64
		from, to    time.Duration // when it is suspect
		says        string
	}{
		"live":                      {func(i int) uint64 { return uint64(i) + 1 }, never, never, ""},
		"frozen":                    {func(int) uint64 { return 7 }, 5 * time.Second, 5200 * time.Millisecond, "frozen"},
		"frozen after 20 s":         {func(i int) uint64 { return uint64(min(i, 20*rate)) + 1 }, 25 * time.Second, 25200 * time.Millisecond, "frozen"},
		"a loop of 3 s":             {func(i int) uint64 { return uint64(i%(3*rate)) + 1 }, 8 * time.Second, 8200 * time.Millisecond, "recording"},
		"a loop of a minute":        {func(i int) uint64 { return uint64(i%(60*rate)) + 1 }, 65 * time.Second, 65200 * time.Millisecond, "recording"},
		"longer than is remembered": {func(i int) uint64 { return uint64(i%(remembered+1)) + 1 }, never, never, ""},
		"each frame twice":          {func(i int) uint64 { return uint64(i/2) + 1 }, never, never, ""},
		"new every four seconds":    {func(i int) uint64 { return uint64(i/(4*rate)) + 1 }, never, never, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepeats(5 * time.Second)
			first, last := suspectAt(r, 300*rate, c.fingerprint)
			if c.says == "" {
				assert.EqualValues(t, never, first)
				return
			}
			assert.GreaterOrEqual(t, first, c.from-time.Second/10, "a frame's time counts when the next one comes")
			assert.LessOrEqual(t, first, c.to)
			assert.True(t, last)
			assert.True(t, strings.Contains(r.text(), c.says), r.text())
			assert.LessOrEqual(t, len(r.seen), remembered+1, "memory is bounded")

			_, last = suspectAt(r, 4*rate, func(i int) uint64 { return uint64(i) + 1e6 })
			assert.True(t, last, "not cleared by a moment")
			_, last = suspectAt(r, 2*rate, func(i int) uint64 { return uint64(i) + 2e6 })
			assert.False(t, last, "cleared by as long a time of new frames")
		})
	}
}

// TestRepeatsRemembersOverOpenings: each check-in opens the camera for a
// second only, and a player begins its recording anew.
func TestRepeatsRemembersOverOpenings(t *testing.T) {
	r := newRepeats(5 * time.Second)
	suspect := false
	openings := 0
	for ; !suspect && openings < 20; openings++ {
		r.at = r.at.Add(time.Hour)
		_, suspect = suspectAt(r, rate, func(i int) uint64 { return uint64(i) + 1 })
	}
	assert.Equal(t, 7, openings, "of a second each: the first is new, and 14 frames count for 0.93 s each")
}
