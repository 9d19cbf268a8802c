package device

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

const (
	// a wall clock that jumps further than this against the boot clock was set
	// by someone
	stepLimit = 2 * time.Second
	// beyond this error the kernel's "synchronised" is not worth the word
	syncedLimit = time.Second
	// a receipt that took longer does not tell the time
	witnessLimit = 10 * time.Second
	// how many anchors wait to be recorded, at most
	maxAnchors = 8
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
	trusted *reading      // when last synced, or found right by the centre's time
	centre  *reading      // the centre's time when it last came
	suspect bool
	kernel  *reading // of the last anchor by the kernel's word
	anchors []attendance.AnchorBody
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
// synced, until it agrees again; so is one that disagrees with the centre's
// time, whatever was seen.
func (c *Clock) judge(wall time.Time, boot time.Duration) (chain.ClockLevel, time.Duration) {
	offset := time.Duration(wall.UnixNano()) - boot
	synced, estimate := c.src.Kernel()
	synced = synced && estimate < syncedLimit
	agrees := c.trusted.agrees(boot, offset) && c.centre.agrees(boot, offset)
	stepped := c.seen && (offset-c.offset).Abs() > stepLimit
	c.seen, c.offset = true, offset
	switch {
	case synced && agrees:
		c.suspect = false
		c.trusted = &reading{boot: boot, offset: offset, err: estimate}
		c.anchorKernel(wall)
		return chain.ClockSynced, estimate
	case stepped || !agrees:
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

// agrees reports whether the wall clock may be where a reading puts it. No
// reading says nothing.
func (r *reading) agrees(boot, offset time.Duration) bool {
	return r == nil || (offset-r.offset).Abs() <= stepLimit+r.err+drift(boot-r.boot, correctionPPM)
}

// Witness takes the time in a receipt of the centre's for records that went up
// at sent for the first time and were answered at got, both by [Clock.Up]. The
// centre's clock showed it between the two, so a receipt that took longer than
// ten seconds says too little. A wall clock that it bears out is as good as one
// that was synced in this boot; one that disagrees is suspect.
func (c *Clock) Witness(r chain.Receipt, sent, got time.Duration) {
	if got < sent || got-sent > witnessLimit {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	half := (got - sent) / 2
	centre := &reading{boot: got, offset: time.Duration(r.At.UnixNano()) - got + half, err: half + time.Millisecond}
	if before := c.centre; before == nil || !before.agrees(got, centre.offset) {
		c.anchor(attendance.AnchorBody{
			Source: attendance.TimeReceipt, Wall: r.At.In(c.src.Wall().Location()).Add(half).Format(attendance.TimeLayout), UpMS: got.Milliseconds(),
			ErrMS: ceilMS(centre.err), Seq: uint64(r.Seq),
		})
	}
	c.centre = centre
	boot := c.src.Boot()
	offset := time.Duration(c.src.Wall().UnixNano()) - boot
	if !centre.agrees(boot, offset) {
		return // judge will say so
	}
	if c.suspect || c.trusted == nil || !c.trusted.agrees(got, centre.offset) {
		c.suspect, c.trusted = false, &reading{boot: boot, offset: offset, err: (offset - centre.offset).Abs() + centre.err}
		c.seen, c.offset = true, offset
	}
}

// Witnessed gives the centre's time of now, by its last receipt that told it in
// this boot.
func (c *Clock) Witnessed() (now time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.centre == nil {
		return time.Time{}, false
	}
	return time.Unix(0, int64(c.src.Boot()+c.centre.offset)), true
}

// anchorKernel notes the time that the kernel vouches for, when it first does
// and when it was set since.
func (c *Clock) anchorKernel(wall time.Time) {
	now := *c.trusted
	if c.kernel != nil && c.kernel.agrees(now.boot, now.offset) {
		return
	}
	c.kernel = &now
	c.anchor(attendance.AnchorBody{
		Source: attendance.TimeKernel, Wall: wall.Format(attendance.TimeLayout), UpMS: now.boot.Milliseconds(), ErrMS: ceilMS(now.err),
	})
}

func (c *Clock) anchor(a attendance.AnchorBody) {
	if len(c.anchors) < maxAnchors {
		c.anchors = append(c.anchors, a)
	}
}

// Anchors gives what is to be recorded of trusted time that arrived since the
// last call.
func (c *Clock) Anchors() []attendance.AnchorBody {
	c.mu.Lock()
	defer c.mu.Unlock()
	anchors := c.anchors
	c.anchors = nil
	return anchors
}

func drift(d time.Duration, ppm int64) time.Duration {
	return time.Duration(d.Microseconds() * ppm / 1000) // ns
}

func ceilMS(d time.Duration) int64 { return (d + time.Millisecond - 1).Milliseconds() }
