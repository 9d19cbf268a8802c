package pcsc

import (
	"context"
	"errors"
	"sync"
	"time"

	"rollcall/attendance"
	"rollcall/reader"
)

// waiting serialises the waits of the whole process: the binding keeps the C
// copy of a reader's name in one table, and a second wait would free the name
// that the first still uses.
var waiting sync.Mutex

// wait waits for changes, once no one else does.
func wait(pcsc Context, states []State, limit time.Duration) error {
	waiting.Lock()
	defer waiting.Unlock()
	return pcsc.Wait(states, limit)
}

// pnp is the pseudo reader that changes when readers come or go.
const pnp = `\\?PnP?\Notification`

const (
	waitLimit   = time.Second     // a lost Cancel costs no more than this
	relistEvery = 3 * time.Second // pnp misses a reader when two come at once
)

// presence is what the watcher saw at a reader.
type presence struct {
	present bool
	count   uint16    // insertions and removals so far: another count is another insertion
	atr     string    // bytes; empty if the card gave none
	at      time.Time // as taps carry it
	when    time.Time // to measure by: no one sets this clock
}

// station is one reader's own goroutine, which does the slow work and makes all
// reports on it. Only the watcher calls post and end.
type station interface {
	run(ctx context.Context)
	post(p presence) // replaces a state that run had no time for yet
	end(cause error) // makes run return
}

// inbox holds the latest state only, until the watcher closes it.
type inbox struct {
	states chan presence
	cause  error // set when states is closed
}

func newInbox() inbox { return inbox{states: make(chan presence, 1)} }

// post finds room after the first step, for only the watcher fills.
func (i *inbox) post(p presence) {
	i.empty()
	i.states <- p
}

func (i *inbox) end(cause error) {
	i.empty()
	i.cause = cause
	close(i.states)
}

func (i *inbox) empty() {
	select {
	case <-i.states:
	default:
	}
}

// watcher is the one goroutine that waits for changes. It hands them to a
// station per reader.
type watcher struct {
	driver   *Driver
	pcsc     Context
	taps     chan<- attendance.Tap
	stations map[string]station
	twins    map[int]*twin  // by number of the device
	states   []State        // pnp, then one for each station
	psam     bool           // the slot of the PSAM was there, or was missed
	busy     sync.WaitGroup // the goroutines of the stations
}

func newWatcher(d *Driver, pcsc Context, taps chan<- attendance.Tap) *watcher {
	return &watcher{
		driver: d, pcsc: pcsc, taps: taps,
		stations: map[string]station{}, twins: map[int]*twin{}, states: []State{{Reader: pnp}},
	}
}

// watch returns when the service is lost, when too many calls hang, or when ctx
// ends.
func (w *watcher) watch(ctx context.Context) error {
	var listed time.Time
	unknown := false // a reader was unknown, and a new list was made for that
	for ctx.Err() == nil {
		if w.driver.Hung() > w.driver.cfg.MaxHung {
			return ErrTooManyHung
		}
		if time.Since(listed) >= relistEvery {
			if err := w.list(ctx); err != nil {
				return err
			}
			listed = time.Now()
		}
		err := w.wait(ctx)
		switch {
		case err == nil:
			unknown = false
			if w.dispatch() {
				listed = time.Time{}
			}
		case errors.Is(err, CodeUnknownReader) && !unknown:
			unknown = true
			listed = time.Time{}
		case errors.Is(err, CodeTimeout), errors.Is(err, CodeCancelled):
			unknown = false
		default:
			return err
		}
		if w.driver.down {
			w.driver.serviceUp() // it was stopped and goes on
		}
	}
	return ctx.Err()
}

// wait waits for the next change. The call has states of its own, for it may be
// left behind.
func (w *watcher) wait(ctx context.Context) error {
	states := append([]State(nil), w.states...)
	_, err := patiently(ctx, w.driver, waitLimit+w.driver.cfg.CommandLimit, func() (struct{}, error) {
		return struct{}{}, wait(w.pcsc, states, waitLimit)
	}, func(struct{}) { _ = w.pcsc.Release() })
	if err == nil {
		w.states = states
	}
	return err
}

// list brings stations and states in line with the readers that are there.
func (w *watcher) list(ctx context.Context) error {
	names, err := patiently(ctx, w.driver, w.driver.cfg.CommandLimit, w.pcsc.Readers,
		func([]string) { _ = w.pcsc.Release() })
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
		if w.stations[name] == nil {
			w.add(ctx, name)
		}
	}
	states := w.states[:1]
	for _, state := range w.states[1:] {
		if there[state.Reader] {
			states = append(states, state)
			continue
		}
		w.stations[state.Reader].end(reader.ErrReaderGone)
		delete(w.stations, state.Reader)
	}
	w.states = states
	w.missPSAM()
	return nil
}

// missPSAM reports a PSAM whose slot was never there.
func (w *watcher) missPSAM() {
	slot := w.driver.cfg.PSAM.Slot
	if slot == "" || w.psam {
		return
	}
	w.psam = true
	w.driver.log.Warn("no reader has the name of the security module's slot", "reader", slot)
	w.driver.report(slot, reader.ErrReaderGone)
	w.driver.seat.settle(nil)
}

// add starts a station for a new reader. A slot for security modules other than
// the one in use gets none.
func (w *watcher) add(ctx context.Context, name string) {
	d := w.driver
	var s station
	switch {
	case d.cfg.isPSAM(name):
		if w.psam && d.cfg.PSAM.Slot != name {
			d.report(d.cfg.PSAM.Slot, nil) // it was missed under the name it has in the configuration
		}
		w.psam = true
		s = &module{driver: d, name: name, inbox: newInbox()}
	case d.cfg.isSAM(name):
		return
	default:
		s = newSlot(d, name, w.taps, w.twin(name))
		d.report(name, nil)
	}
	d.log.Info("card reader is there", "reader", name, "sam", d.cfg.isSAM(name))
	w.stations[name] = s
	w.states = append(w.states, State{Reader: name})
	w.busy.Go(func() { s.run(ctx) })
}

// twin gives what the slots of one device share; nil if this one is alone.
func (w *watcher) twin(name string) *twin {
	i := w.driver.cfg.device(name)
	if i < 0 {
		return nil
	}
	if w.twins[i] == nil {
		w.twins[i] = newTwin(w.driver.cfg.Debounce)
	}
	return w.twins[i]
}

// dispatch hands what has changed to the stations and reports whether readers
// came or went.
func (w *watcher) dispatch() (relist bool) {
	at, when := w.driver.now(), time.Now()
	for i := range w.states {
		state := &w.states[i]
		if state.Event&StateChanged == 0 {
			continue
		}
		state.Current = state.Event &^ StateChanged
		if i == 0 || state.Event.gone() {
			relist = true
		}
		if i > 0 {
			w.stations[state.Reader].post(presence{
				present: !state.Event.gone() && state.Event&StatePresent != 0,
				count:   state.Event.count(),
				atr:     string(state.ATR),
				at:      at,
				when:    when,
			})
		}
	}
	return relist
}

// ended reports a reader that is no more, unless everything ends.
func (d *Driver) ended(reader string, cause error) {
	if errors.Is(cause, context.Canceled) || errors.Is(cause, errLeft) {
		return
	}
	d.log.Warn("card reader is gone", "reader", reader, "err", cause)
	d.report(reader, cause)
}

// end ends all stations and waits for them.
func (w *watcher) end(cause error) {
	for _, s := range w.stations {
		s.end(cause)
	}
	w.busy.Wait()
}
