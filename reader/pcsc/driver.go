//go:build cgo

package pcsc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebfe/scard"

	"rollcall/attendance"
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
}

// New checks cfg; it opens nothing. now is the clock that taps carry.
func New(cfg Config, now func() time.Time, log *slog.Logger, report Report) (*Driver, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Driver{cfg: cfg, now: now, log: log, report: report, profile: reader.SocialSecurityCard()}, nil
}

// Run sends taps until ctx ends, and then returns nil, at the latest when the
// command in hand has reached its limit. A missing or dying pcscd is reported
// and tried again. When nobody takes the taps, the readers concerned wait, each
// with one tap in hand; nothing is dropped, but of the cards that came and went
// meanwhile only the last is read. The one error is ErrTooManyHung; calls
// that hang then, or at the end of ctx, are left behind.
func (d *Driver) Run(ctx context.Context, taps chan<- attendance.Tap) error {
	var pause pause
	for down := false; ; {
		err := d.serve(ctx, taps, func() {
			d.log.Info("smart card service is up")
			d.report("", nil)
			pause.reset()
			down = false
		})
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrTooManyHung) {
			return err
		}
		if !down {
			d.log.Warn("smart card service is down", "err", err)
			d.report("", err)
			down = true
		}
		pause.wait(ctx)
	}
}

// serve works with one incarnation of pcscd until that ends or ctx does.
func (d *Driver) serve(ctx context.Context, taps chan<- attendance.Tap, up func()) error {
	pcsc, err := d.establish()
	if err != nil {
		return err
	}
	defer pcsc.Release()
	up()
	stop := context.AfterFunc(ctx, func() { pcsc.Cancel() })
	defer stop()
	w := watcher{driver: d, pcsc: pcsc, taps: taps, slots: map[string]*slot{}}
	err = w.watch(ctx)
	w.end(err)
	return err
}

func (d *Driver) establish() (*scard.Context, error) {
	pcsc, err := within(d, scard.EstablishContext, func(late *scard.Context) {
		if late != nil {
			late.Release()
		}
	})
	if errors.Is(err, reader.ErrReaderHung) {
		err = fmt.Errorf("pcscd does not answer: %w", reader.ErrServiceDown)
	}
	return pcsc, err
}

// within makes one call into PC/SC, which may block for ever, and waits for it
// as long as one command may take. A call that takes longer is given up: it
// gives ErrReaderHung and counts as hung, and late gets what it returns in the
// end.
func within[T any](d *Driver, call func() (T, error), late func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := call()
		done <- result{value, err}
	}()
	limit := time.NewTimer(d.cfg.CommandLimit)
	defer limit.Stop()
	select {
	case r := <-done:
		return r.value, meaning(r.err)
	case <-limit.C:
	}
	d.hung.Add(1)
	go func() {
		r := <-done
		late(r.value)
		d.hung.Add(-1)
	}()
	var none T
	return none, reader.ErrReaderHung
}

// waiting serialises the waits of the whole process: the binding keeps the C
// copy of a reader's name in one table, and a second wait would free the name
// that the first still uses.
var waiting sync.Mutex

// pnp is the pseudo reader that changes when readers come or go.
const pnp = `\\?PnP?\Notification`

const (
	waitLimit   = time.Second     // a lost Cancel costs no more than this
	relistEvery = 3 * time.Second // pnp misses a reader when two come at once
)

// watcher is the one goroutine that waits for changes. It hands them to one
// slot per reader, which does the slow work.
type watcher struct {
	driver *Driver
	pcsc   *scard.Context
	taps   chan<- attendance.Tap
	slots  map[string]*slot
	states []scard.ReaderState // pnp, then one for each slot
	busy   sync.WaitGroup      // the goroutines of the slots
}

// watch returns when the service is lost, when too many calls hang, or when ctx
// ends.
func (w *watcher) watch(ctx context.Context) error {
	w.states = []scard.ReaderState{{Reader: pnp}}
	var listed time.Time
	for ctx.Err() == nil {
		if w.driver.hung.Load() > int32(w.driver.cfg.MaxHung) {
			return ErrTooManyHung
		}
		if time.Since(listed) >= relistEvery {
			if err := w.list(ctx); err != nil {
				return err
			}
			listed = time.Now()
		}
		waiting.Lock()
		err := w.pcsc.GetStatusChange(w.states, waitLimit)
		waiting.Unlock()
		switch err {
		case nil:
			if w.dispatch() {
				listed = time.Time{}
			}
		case scard.ErrUnknownReader:
			listed = time.Time{}
		case scard.ErrTimeout, scard.ErrCancelled:
		default:
			return meaning(err)
		}
	}
	return ctx.Err()
}

// list brings slots and states in line with the readers that are there.
func (w *watcher) list(ctx context.Context) error {
	names, err := w.pcsc.ListReaders()
	if err != nil && err != scard.ErrNoReadersAvailable {
		return meaning(err)
	}
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
		if w.slots[name] == nil {
			w.add(ctx, name)
		}
	}
	states := w.states[:1]
	for _, state := range w.states[1:] {
		if there[state.Reader] {
			states = append(states, state)
			continue
		}
		w.slots[state.Reader].end(reader.ErrReaderGone)
		delete(w.slots, state.Reader)
	}
	w.states = states
	return nil
}

func (w *watcher) add(ctx context.Context, name string) {
	s := &slot{driver: w.driver, name: name, taps: w.taps, inbox: make(chan presence, 1)}
	w.slots[name] = s
	w.states = append(w.states, scard.ReaderState{Reader: name})
	w.driver.log.Info("card reader is there", "reader", name)
	w.driver.report(name, nil)
	w.busy.Go(func() { s.run(ctx) })
}

// dispatch hands what has changed to the slots and reports whether readers came
// or went.
func (w *watcher) dispatch() (relist bool) {
	at := w.driver.now()
	for i := range w.states {
		state := &w.states[i]
		if state.EventState&scard.StateChanged == 0 {
			continue
		}
		state.CurrentState = state.EventState &^ scard.StateChanged
		gone := state.EventState&(scard.StateUnknown|scard.StateIgnore|scard.StateUnavailable) != 0
		if i == 0 || gone {
			relist = true
		}
		if i > 0 {
			w.slots[state.Reader].post(presence{
				present: !gone && state.EventState&scard.StatePresent != 0,
				count:   uint16(state.EventState >> 16),
				at:      at,
			})
		}
	}
	return relist
}

// end ends all slots and waits for them.
func (w *watcher) end(cause error) {
	for _, s := range w.slots {
		s.end(cause)
	}
	w.busy.Wait()
}

// pause is the growing wait between two attempts to reach the service.
type pause struct{ next time.Duration }

func (p *pause) reset() { p.next = 0 }

// wait waits from a quarter of a second, twice as long each time, up to two
// seconds, with a fifth of jitter, or until ctx ends.
func (p *pause) wait(ctx context.Context) {
	p.next = min(max(2*p.next, 250*time.Millisecond), 2*time.Second)
	t := time.NewTimer(p.next - rand.N(p.next/5))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
