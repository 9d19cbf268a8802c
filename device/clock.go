package device

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rollcall/queue/chain"
)

const (
	// a wall clock that jumps further than this against the boot clock was set
	// by someone
	stepLimit = 2 * time.Second
	// beyond this error the kernel's "synchronised" is not worth the word
	syncedLimit = time.Second
	// how fast an undisciplined crystal is taken to drift, in parts per million
	crystalPPM = 50
	// how far a new synchronisation may correct what holdover lost: the rate at
	// which the kernel itself lets its error estimate grow (MAXFREQ)
	correctionPPM = 500
)

// ClockSource is where a [Clock] reads. Tests give their own.
type ClockSource struct {
	BootID string                                  // names this boot
	Wall   func() time.Time                        // may jump
	Boot   func() time.Duration                    // since boot, suspend included; never jumps
	Kernel func() (synced bool, err time.Duration) // the kernel's own estimate
}

// Clock tells the time and how far it can be trusted. It judges by what it saw
// itself since the program started: a claim is only ever too low. It may be
// used from several goroutines at once.
type Clock struct {
	src ClockSource

	mu      sync.Mutex // guards what follows
	seen    bool
	offset  time.Duration // wall against boot clock when last read
	trusted *reading      // when last synced
	suspect bool
}

type reading struct {
	boot, offset, err time.Duration
}

// NewClock makes a clock over src.
func NewClock(src ClockSource) *Clock { return &Clock{src: src} }

// SystemClock is a clock over this machine's kernel: CLOCK_REALTIME,
// CLOCK_BOOTTIME and adjtimex(2).
func SystemClock(zone *time.Location) (*Clock, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("reading the boot id: %w", err)
	}
	return NewClock(ClockSource{
		BootID: strings.TrimSpace(string(id)),
		Wall:   func() time.Time { return time.Now().In(zone) },
		Boot:   bootTime,
		Kernel: kernelEstimate,
	}), nil
}

func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("device: CLOCK_BOOTTIME: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

func kernelEstimate() (bool, time.Duration) {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	if err != nil || state == unix.TIME_ERROR || tx.Status&unix.STA_UNSYNC != 0 {
		return false, 0
	}
	return true, time.Duration(tx.Maxerror) * time.Microsecond
}

// Now is the wall time, right or wrong. Durations come from [Clock.Stamp]'s
// UpMS, which no one can set.
func (c *Clock) Now() time.Time { return c.src.Wall() }

// Up is the time since boot, suspend included. No one can set it.
func (c *Clock) Up() time.Duration { return c.src.Boot() }

// Stamp reads every clock at once, for a record.
func (c *Clock) Stamp() chain.Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, boot := c.src.Wall(), c.src.Boot()
	level, estimate := c.judge(wall, boot)
	return chain.Stamp{
		Wall:  chain.NewWall(wall),
		Boot:  c.src.BootID,
		UpMS:  boot.Milliseconds(),
		Clock: level,
		ErrMS: ceilMS(estimate),
	}
}

// judge compares wall and boot clock. Slewing moves both alike, so only
// setting the wall clock changes their offset. Once a synced time was seen, a
// wall clock that disagrees with it is suspect, even if the kernel calls it
// synced, until it agrees again.
func (c *Clock) judge(wall time.Time, boot time.Duration) (chain.ClockLevel, time.Duration) {
	offset := time.Duration(wall.UnixNano()) - boot
	synced, estimate := c.src.Kernel()
	synced = synced && estimate < syncedLimit
	agrees := c.trusted == nil || (offset-c.trusted.offset).Abs() <= stepLimit+drift(boot-c.trusted.boot, correctionPPM)
	back := c.seen && offset < c.offset-stepLimit
	c.seen, c.offset = true, offset
	switch {
	case synced && agrees:
		c.suspect = false
		c.trusted = &reading{boot: boot, offset: offset, err: estimate}
		return chain.ClockSynced, estimate
	case back || !agrees:
		c.suspect = true
	}
	switch {
	case c.suspect:
		return chain.ClockSuspect, 0
	case c.trusted != nil:
		return chain.ClockHoldover, c.trusted.err + drift(boot-c.trusted.boot, crystalPPM)
	}
	return chain.ClockUnsynced, 0
}

func drift(d time.Duration, ppm int64) time.Duration {
	return time.Duration(d.Microseconds() * ppm / 1000) // ns
}

func ceilMS(d time.Duration) int64 { return (d + time.Millisecond - 1).Milliseconds() }
