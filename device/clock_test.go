package device

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// bench is a kernel whose clocks the test moves.
type bench struct {
	wall   time.Time
	boot   time.Duration
	synced bool
	err    time.Duration
	of     *Clock
}

func (b *bench) clock() *Clock {
	b.of = NewClock(ClockSource{
		BootID: "boot-1",
		Wall:   func() time.Time { return b.wall },
		Boot:   func() time.Duration { return b.boot },
		Kernel: func() (bool, time.Duration) { return b.synced, b.err },
	})
	return b.of
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
	// told is a receipt that took a second, from a centre whose clock is off
	// against the wall clock.
	told := func(off time.Duration) func(b *bench) {
		return func(b *bench) {
			sent := b.boot
			b.pass(time.Second)
			b.of.Witness(chain.Receipt{Seq: 7, At: chain.NewWall(b.wall.Add(off))}, sent, b.boot)
		}
	}
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
		"set forward before any synchronisation": {
			{"at start", nil, chain.ClockUnsynced, 0},
			{"ten years on", stepBy(10 * 365 * 24 * time.Hour), chain.ClockSuspect, 0},
		},
		"the centre bears it out": {
			{"at start", nil, chain.ClockUnsynced, 0},
			{"told", told(100 * time.Millisecond), chain.ClockHoldover, 1101}, // half a second ago it was 600 ms ahead, give or take 501
			{"set back", stepBy(-time.Minute), chain.ClockSuspect, 0},
			{"put right, told again", all(stepBy(time.Minute), told(0)), chain.ClockHoldover, 1001},
		},
		"the centre contradicts it": {
			{"at start", nil, chain.ClockUnsynced, 0},
			{"told", told(time.Hour), chain.ClockSuspect, 0},
			{"put right", all(stepBy(time.Hour), told(0)), chain.ClockHoldover, 1001},
		},
		"F30: a time server that lies by an hour": {
			{"synced", sync, chain.ClockSynced, 4},
			{"the centre says otherwise", told(time.Hour), chain.ClockSuspect, 0},
			{"and on", pass(time.Hour), chain.ClockSuspect, 0},
			{"the server is put right", stepBy(time.Hour), chain.ClockSuspect, 0}, // it stepped; who lied is not known yet
			{"the centre bears it out", told(0), chain.ClockSynced, 4},
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

// A receipt that took longer than ten seconds tells nothing.
func TestWitnessMustBeQuick(t *testing.T) {
	b := &bench{wall: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC), boot: time.Minute}
	clock := b.clock()
	far := chain.Receipt{At: chain.NewWall(b.wall.Add(time.Hour))}
	clock.Witness(far, b.boot-11*time.Second, b.boot)
	clock.Witness(far, b.boot+time.Second, b.boot)
	assert.Equal(t, chain.ClockUnsynced, clock.Stamp().Clock)
	assert.Empty(t, clock.Anchors())
	_, ok := clock.Witnessed()
	assert.False(t, ok)
	clock.Witness(far, b.boot-10*time.Second, b.boot)
	assert.Equal(t, chain.ClockSuspect, clock.Stamp().Clock)
	b.pass(time.Minute)
	now, ok := clock.Witnessed()
	assert.True(t, ok)
	assert.WithinDuration(t, b.wall.Add(time.Hour), now, 6*time.Second)
}

// Trusted time is recorded when it comes and when it changed, not with each
// receipt: the uplink must find an end.
func TestAnchors(t *testing.T) {
	b := &bench{wall: time.Date(2026, 11, 21, 9, 0, 0, 0, time.FixedZone("", 8*3600)), boot: time.Minute}
	clock := b.clock()
	clock.Stamp()
	assert.Empty(t, clock.Anchors())
	tell := func(off time.Duration) {
		clock.Witness(chain.Receipt{Seq: 7, At: chain.NewWall(b.wall.Add(off).UTC())}, b.boot-2*time.Second, b.boot)
	}
	tell(0)
	assert.Equal(t, []attendance.AnchorBody{{
		Source: attendance.TimeReceipt, Wall: "2026-11-21T09:00:01.000+08:00", UpMS: 60_000, ErrMS: 1001, Seq: 7,
	}}, clock.Anchors())
	for range 100 {
		b.pass(time.Minute)
		tell(50 * time.Millisecond)
		clock.Stamp()
	}
	assert.Empty(t, clock.Anchors())
	b.synced, b.err = true, time.Millisecond
	clock.Stamp()
	clock.Stamp()
	assert.Equal(t, []attendance.AnchorBody{{
		Source: attendance.TimeKernel, Wall: "2026-11-21T10:40:00.000+08:00", UpMS: 6_060_000, ErrMS: 1,
	}}, clock.Anchors())
	tell(time.Hour)
	require.Len(t, clock.Anchors(), 1, "the centre's time changed")
	for range 100 {
		b.pass(time.Hour)
		tell(time.Duration(b.boot.Hours()) * time.Hour)
	}
	assert.LessOrEqual(t, len(clock.Anchors()), maxAnchors)
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

// TestF30LyingTimeServerIsSuspect: a time server that is off by an hour is
// believed until the centre's time comes; then the clock is suspect, however
// sure the kernel is, and the centre's time is anchored. Without a receipt
// nobody can tell.
func TestF30LyingTimeServerIsSuspect(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			truth := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
			b := &bench{wall: truth.Add(off), boot: time.Minute, synced: true, err: 3 * time.Millisecond}
			c := b.clock()
			assert.Equal(t, chain.ClockSynced, c.Stamp().Clock, "control: nobody can tell yet")
			sent := b.boot
			b.pass(time.Second)
			c.Witness(chain.Receipt{Seq: 3, At: chain.NewWall(b.wall.Add(-off))}, sent, b.boot)
			assert.Equal(t, chain.ClockSuspect, c.Stamp().Clock)
			b.pass(time.Hour)
			assert.Equal(t, chain.ClockSuspect, c.Stamp().Clock, "and stays so")
			anchors := c.Anchors()
			require.Len(t, anchors, 2, "what the kernel said, and what the centre did")
			assert.Equal(t, attendance.TimeKernel, anchors[0].Source)
			assert.Equal(t, attendance.TimeReceipt, anchors[1].Source)
			centre, err := time.Parse(attendance.TimeLayout, anchors[1].Wall)
			require.NoError(t, err)
			assert.WithinDuration(t, truth.Add(time.Duration(anchors[1].UpMS)*time.Millisecond-time.Minute), centre, time.Duration(anchors[1].ErrMS)*time.Millisecond)
			b.wall = b.wall.Add(-off) // the server tells the truth again
			sent = b.boot
			b.pass(time.Second)
			c.Witness(chain.Receipt{Seq: 4, At: chain.NewWall(b.wall)}, sent, b.boot)
			assert.Equal(t, chain.ClockSynced, c.Stamp().Clock)
		})
	}
}
