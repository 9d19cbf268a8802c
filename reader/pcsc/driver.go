package pcsc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"rollcall/attendance"
	"rollcall/device"
	"rollcall/reader"
)

// Driver reads the cards of all PC/SC readers. Make one per process.
type Driver struct {
	cfg     Config
	now     func() time.Time
	log     *slog.Logger
	report  Report
	profile *reader.Profile

	hung atomic.Int32 // calls into PC/SC that were given up and have not returned
	seat seat
	down bool // the service was reported as down; owned by Run
}

// New checks cfg; it opens nothing. now is the clock that taps carry.
func New(cfg Config, now func() time.Time, log *slog.Logger, report Report) (*Driver, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	profile, err := reader.LoadProfile(cfg.Profile)
	if err != nil {
		return nil, err
	}
	return &Driver{cfg: cfg, now: now, log: log, report: report, profile: profile}, nil
}

// Hung gives how many calls into PC/SC were given up and have not come back.
// Each holds a thread. Any goroutine may ask.
func (d *Driver) Hung() int { return int(d.hung.Load()) }

// Run sends taps until ctx ends, and then returns nil, at the latest when the
// command in hand has reached its limit. A pcscd that is missing, dies or stops
// answering is reported and awaited. When nobody takes the taps, the readers
// concerned wait, each with one tap in hand; nothing is dropped, but of the
// cards that came and went meanwhile only the last is read. It gives up only on
// what does not heal: ErrTooManyHung, and a program built without PC/SC. Calls
// that hang then, or at the end of ctx, are left behind.
func (d *Driver) Run(ctx context.Context, taps chan<- attendance.Tap) error {
	reopen := device.ReopenConfig{
		First: 250 * time.Millisecond,
		Max:   2 * time.Second,
		Lost:  func(err error, _ time.Duration) { d.serviceDown(err) },
	}
	return device.Reopen(ctx, reopen, func(ctx context.Context) error { return d.serve(ctx, taps) })
}

func (d *Driver) serviceDown(err error) {
	if !d.down {
		d.down = true
		d.log.Warn("smart card service is down", "err", err, "hung", d.Hung())
		d.report("", err)
	}
}

func (d *Driver) serviceUp() {
	d.down = false
	d.log.Info("smart card service is up", "hung", d.Hung())
	d.report("", nil)
}

// serve works with one incarnation of pcscd until that ends or ctx does.
func (d *Driver) serve(ctx context.Context, taps chan<- attendance.Tap) error {
	pcsc, err := patiently(ctx, d, d.cfg.CommandLimit, d.cfg.Binding.Establish, releaseLate)
	if err != nil {
		return err
	}
	d.serviceUp()
	stop := context.AfterFunc(ctx, func() { _ = pcsc.Cancel() })
	defer stop()
	d.seat.expect()
	if d.cfg.PSAM.Slot == "" {
		d.seat.settle(nil)
	}
	w := newWatcher(d, pcsc, taps)
	err = w.watch(ctx)
	w.end(err)
	if !errors.Is(err, errLeft) {
		d.release(pcsc)
	}
	return err
}

// within makes one call into PC/SC, which may block for ever, and waits for it
// as long as one command may take. A call that takes longer is given up: it
// gives ErrReaderHung and counts as hung, and late gets what it returns in the
// end.
func within[T any](d *Driver, call func() (T, error), late func(T)) (T, error) {
	done := begin(call)
	limit := time.NewTimer(d.cfg.CommandLimit)
	defer limit.Stop()
	select {
	case r := <-done:
		return r.value, meaning(r.err)
	case <-limit.C:
	}
	leave(d, done, late)
	var none T
	return none, reader.ErrReaderHung
}

// patiently makes one call of the watcher. A pcscd that is stopped and not dead
// holds it, and would hold another just as well: so a call that takes longer
// than limit is reported, and awaited all the same. Only the end of ctx gives
// it up.
func patiently[T any](ctx context.Context, d *Driver, limit time.Duration, call func() (T, error), late func(T)) (T, error) {
	done := begin(call)
	overdue := time.NewTimer(limit)
	defer overdue.Stop()
	select {
	case r := <-done:
		return r.value, watchersMeaning(r.err)
	case <-overdue.C:
	}
	if ctx.Err() == nil {
		d.serviceDown(fmt.Errorf("pcscd does not answer: %w", reader.ErrServiceDown))
	}
	select {
	case r := <-done:
		return r.value, watchersMeaning(r.err)
	case <-ctx.Done():
	}
	leave(d, done, late)
	var none T
	return none, errLeft
}

// watchersMeaning is the meaning of a code to the watcher, which speaks of no
// card: whatever it does not expect is a service in trouble. One that was killed
// while a conversation began was seen to give any number.
func watchersMeaning(err error) error {
	code, ok := err.(Code)
	if !ok {
		return err
	}
	return fmt.Errorf("%w: %w", code, reader.ErrServiceDown)
}

// errLeft is the end of a call that was left behind at the end of ctx.
var errLeft = errors.New("left behind")

type result[T any] struct {
	value T
	err   error
}

func begin[T any](call func() (T, error)) <-chan result[T] {
	done := make(chan result[T], 1)
	go func() {
		value, err := call()
		done <- result[T]{value, err}
	}()
	return done
}

// leave counts a call as hung until it returns, and hands what it returned to
// late.
func leave[T any](d *Driver, done <-chan result[T], late func(T)) {
	d.log.Warn("a call to the smart card service hangs", "hung", d.hung.Add(1))
	go func() {
		r := <-done
		late(r.value)
		d.hung.Add(-1)
	}()
}

// release ends a conversation; a service that hangs may hold even that.
func (d *Driver) release(pcsc Context) {
	_, _ = within(d, func() (struct{}, error) { return struct{}{}, pcsc.Release() }, func(struct{}) {})
}

// releaseLate ends the conversation that a call gave which was left.
func releaseLate(pcsc Context) {
	if pcsc != nil {
		_ = pcsc.Release()
	}
}
