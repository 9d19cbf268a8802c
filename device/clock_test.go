package device

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

// bench is a kernel whose clocks the test moves.
type bench struct {
	wall   time.Time
	boot   time.Duration
	synced bool
	err    time.Duration
}

func (b *bench) clock() *Clock {
	return NewClock(ClockSource{
		BootID: "boot-1",
		Wall:   func() time.Time { return b.wall },
		Boot:   func() time.Duration { return b.boot },
		Kernel: func() (bool, time.Duration) { return b.synced, b.err },
	})
}

// pass lets time pass on both clocks alike.
func (b *bench) pass(d time.Duration) { b.wall, b.boot = b.wall.Add(d), b.boot+d }

func TestClockLevels(t *testing.T) {
	type step struct {
		name  string
		do    func(b *bench)
		level chain.ClockLevel
		errMS int64
	}
	sync := func(b *bench) { b.synced, b.err = true, 3500*time.Microsecond }
	lose := func(b *bench) { b.synced = false }
	stepBy := func(d time.Duration) func(b *bench) { return func(b *bench) { b.wall = b.wall.Add(d) } }
	pass := func(d time.Duration) func(b *bench) { return func(b *bench) { b.pass(d) } }
	all := func(f ...func(*bench)) func(*bench) {
		return func(b *bench) {
			for _, f := range f {
				f(b)
			}
		}
	}
	for name, steps := range map[string][]step{
		"no time server ever": {
			{"at start", nil, chain.ClockUnsynced, 0},
			{"a day later", pass(24 * time.Hour), chain.ClockUnsynced, 0},
		},
		"synced, then left alone": {
			{"synced", sync, chain.ClockSynced, 4},
			{"server gone", all(lose, pass(time.Hour)), chain.ClockHoldover, 184}, // 3.5 ms + 50 ppm of an hour
			{"back", sync, chain.ClockSynced, 4},
		},
		"the kernel's word with too large an error": {
			{"", func(b *bench) { b.synced, b.err = true, 2*time.Second }, chain.ClockUnsynced, 0},
		},
		"set back by hand": {
			{"synced", sync, chain.ClockSynced, 4},
			{"an hour back", all(lose, stepBy(-time.Hour)), chain.ClockSuspect, 0},
			{"and on", pass(time.Minute), chain.ClockSuspect, 0},
			{"put right by the server", all(stepBy(time.Hour), sync), chain.ClockSynced, 4},
		},
		"set back by a server that lies": {
			{"synced", sync, chain.ClockSynced, 4},
			{"an hour back, still called synced", stepBy(-time.Hour), chain.ClockSuspect, 0},
			{"and on", pass(time.Minute), chain.ClockSuspect, 0},
		},
		"set forward in holdover": {
			{"synced", sync, chain.ClockSynced, 4},
			{"ten years on", all(lose, stepBy(10*365*24*time.Hour)), chain.ClockSuspect, 0},
		},
		"set back before any synchronisation": {
			{"at start", nil, chain.ClockUnsynced, 0},
			{"to 1970", func(b *bench) { b.wall = time.Unix(0, 0) }, chain.ClockSuspect, 0},
			{"first synchronisation", all(sync, func(b *bench) { b.wall = time.Unix(1<<31, 0) }), chain.ClockSynced, 4},
		},
		"first synchronisation steps back from a wrong year": {
			{"at start", nil, chain.ClockUnsynced, 0},
			{"server found", all(stepBy(-365*24*time.Hour), sync), chain.ClockSynced, 4},
		},
		"small corrections are no steps": {
			{"synced", sync, chain.ClockSynced, 4},
			{"two seconds back", stepBy(-2 * time.Second), chain.ClockSynced, 4},
			{"a week away, half a minute lost", all(lose, pass(7*24*time.Hour)), chain.ClockHoldover, 30244},
			{"corrected", all(stepBy(-30*time.Second), sync), chain.ClockSynced, 4},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bench{wall: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC), boot: time.Minute}
			clock := b.clock()
			for _, s := range steps {
				if s.do != nil {
					s.do(b)
				}
				stamp := clock.Stamp()
				assert.Equal(t, s.level, stamp.Clock, s.name)
				assert.Equal(t, s.errMS, stamp.ErrMS, s.name)
				assert.Equal(t, chain.NewWall(b.wall), stamp.Wall, s.name)
				assert.Equal(t, b.boot.Milliseconds(), stamp.UpMS, s.name)
			}
		})
	}
}

func TestSystemClockAgreesWithTheKernel(t *testing.T) {
	clock, err := SystemClock(time.UTC)
	require.NoError(t, err)
	first := clock.Stamp()
	second := clock.Stamp()
	assert.Len(t, first.Boot, 36)
	assert.Positive(t, first.UpMS)
	assert.LessOrEqual(t, first.UpMS, second.UpMS)
	assert.NotEqual(t, chain.ClockSuspect, second.Clock)
	assert.False(t, clock.Now().Before(second.Wall.Time))
}
