package simulator

import (
	"context"
	"slices"
	"sync"
	"time"

	"rollcall/reader/pcsc"
)

// PCSC is PC/SC in memory: a pcsc.Binding for what virtual readers behind a real
// pcscd cannot do. Readers come and go, a card is swapped between two looks, the
// service freezes, and any call gives any code. For the rest it does as
// pcsc-lite 1.9.9 was seen to: the calls of a context wait for each other, a
// Cancel with nothing to cancel is lost, a card that vanishes under a command
// may give no bytes and no error, and a card that hangs holds its reader.
//
// Its methods may be called at once, and it runs in virtual time
// (testing/synctest).
type PCSC struct {
	mu       sync.Mutex // guards what follows
	readers  map[string]*fakeReader
	order    []string
	changed  chan struct{} // closed at the next change
	life     int           // of the service: contexts belong to one; even while it is dead
	frozen   bool
	blindPnP bool
	fails    map[Call][]pcsc.Code
	calls    map[Call]int
	contexts int
	handles  int
	waiters  int
	crowd    int // most waiters at once
}

// Call is a call into PC/SC.
type Call string

const (
	CallEstablish Call = "establish"
	CallReaders   Call = "readers"
	CallWait      Call = "wait"
	CallConnect   Call = "connect"
	CallTransmit  Call = "transmit"
	CallReconnect Call = "reconnect"
)

type fakeReader struct {
	name      string
	chip      Chip // nil: empty
	count     uint16
	inUse     int
	exclusive bool // another program keeps it to itself
	vanish    bool // the next card that leaves under a command gives no bytes and no error
	resets    int
	busy      chan struct{} // holds one token while a command runs
	out       context.CancelFunc
	in        context.Context // ends when the card leaves
}

// NewPCSC makes a service that runs, with these readers.
func NewPCSC(readers ...string) *PCSC {
	p := &PCSC{
		readers: map[string]*fakeReader{}, changed: make(chan struct{}), life: 1,
		fails: map[Call][]pcsc.Code{}, calls: map[Call]int{},
	}
	for _, name := range readers {
		p.Plug(name)
	}
	return p
}

// change makes a change that waiting calls see.
func (p *PCSC) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// Plug adds a reader, which must not be there.
func (p *PCSC) Plug(name string) {
	p.change(func() {
		p.readers[name] = &fakeReader{name: name, busy: make(chan struct{}, 1)}
		p.order = append(p.order, name)
	})
}

// Unplug takes a reader away, with the card in it.
func (p *PCSC) Unplug(name string) {
	p.change(func() {
		p.readers[name].remove()
		delete(p.readers, name)
		p.order = slices.DeleteFunc(p.order, func(n string) bool { return n == name })
	})
}

// Insert puts a chip into an empty reader.
func (p *PCSC) Insert(name string, chip Chip) {
	p.change(func() { p.readers[name].insert(chip) })
}

// Remove takes the chip out of a reader, if there is one.
func (p *PCSC) Remove(name string) {
	p.change(func() { p.readers[name].remove() })
}

// Swap takes the chip out and puts another in before anyone looks.
func (p *PCSC) Swap(name string, chip Chip) {
	p.change(func() {
		p.readers[name].remove()
		p.readers[name].insert(chip)
	})
}

// Miscount has the reader count an insertion that nobody made.
func (p *PCSC) Miscount(name string) {
	p.change(func() { p.readers[name].count++ })
}

// Reset has another program reset the card.
func (p *PCSC) Reset(name string) {
	p.change(func() {
		r := p.readers[name]
		r.resets++
		if r.chip != nil {
			r.chip.PowerOff()
		}
	})
}

// Exclusive has another program keep a reader to itself, or let go.
func (p *PCSC) Exclusive(name string, on bool) {
	p.change(func() { p.readers[name].exclusive = on })
}

// Vanish has the next card that leaves under a command give no bytes and no
// error.
func (p *PCSC) Vanish(name string) {
	p.change(func() { p.readers[name].vanish = true })
}

// Kill ends the service: calls that wait fail at once, later ones too, and
// contexts are lost. Start starts it anew; the cards are still there.
func (p *PCSC) Kill() {
	p.change(func() {
		p.life += p.life % 2
		p.frozen = false
	})
}

func (p *PCSC) Start() { p.change(func() { p.life += 1 - p.life%2 }) }

// Freeze stops the service as SIGSTOP does: calls do not return. Thaw lets it go
// on.
func (p *PCSC) Freeze() { p.change(func() { p.frozen = true }) }
func (p *PCSC) Thaw()   { p.change(func() { p.frozen = false }) }

// BlindPnP makes the pseudo reader miss every change from now on.
func (p *PCSC) BlindPnP() { p.change(func() { p.blindPnP = true }) }

// Fail gives these codes to the next calls of a kind, in order.
func (p *PCSC) Fail(call Call, codes ...pcsc.Code) {
	p.change(func() { p.fails[call] = append(p.fails[call], codes...) })
}

// Calls gives how often a call was made.
func (p *PCSC) Calls(call Call) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[call]
}

// Open gives how many contexts and connections were opened and not closed.
func (p *PCSC) Open() (contexts, handles int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.contexts, p.handles
}

// Crowd gives the largest number of calls that were waiting for changes at
// once; more than one spoils the real binding.
func (p *PCSC) Crowd() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.crowd
}

func (r *fakeReader) insert(chip Chip) {
	if r.chip != nil {
		panic("simulator: two cards in " + r.name)
	}
	r.chip = chip
	r.count++
	r.in, r.out = context.WithCancel(context.Background())
}

func (r *fakeReader) remove() {
	if r.chip == nil {
		return
	}
	r.out()
	r.chip.PowerOff()
	r.chip = nil
	r.count++
}

func (r *fakeReader) flags() pcsc.Flags {
	f := pcsc.Flags(r.count) << 16
	switch {
	case r.chip == nil:
		return f | pcsc.StateEmpty
	case len(r.chip.ATR()) < 2:
		f |= pcsc.StateMute
	case r.exclusive:
		f |= pcsc.StateExclusive | pcsc.StateInUse
	case r.inUse > 0:
		f |= pcsc.StateInUse
	}
	return f | pcsc.StatePresent
}

// lockThawed locks mu once the service is not frozen.
func (p *PCSC) lockThawed() {
	p.mu.Lock()
	for p.frozen {
		changed := p.changed
		p.mu.Unlock()
		<-changed
		p.mu.Lock()
	}
}

// enter begins a call: it waits while the service is frozen, and gives the
// failure that is due. It returns with mu locked if there is none.
func (p *PCSC) enter(call Call, life int) error {
	p.lockThawed()
	p.calls[call]++
	var code pcsc.Code
	switch codes := p.fails[call]; {
	case len(codes) > 0:
		code, p.fails[call] = codes[0], codes[1:]
	case p.life%2 == 0 || life != 0 && life != p.life:
		code = pcsc.CodeNoService
	default:
		return nil
	}
	p.mu.Unlock()
	return code
}

// Establish implements pcsc.Binding.
func (p *PCSC) Establish() (pcsc.Context, error) {
	if err := p.enter(CallEstablish, 0); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	p.contexts++
	return &fakeContext{service: p, life: p.life, turn: make(chan struct{}, 1), handles: map[*fakeHandle]bool{}}, nil
}

type fakeContext struct {
	service  *PCSC
	life     int
	turn     chan struct{} // holds one token while a call runs
	waiting  bool          // guarded by service.mu, as the rest
	canceled bool
	released bool
	handles  map[*fakeHandle]bool // open ones
}

func (c *fakeContext) begin() { c.turn <- struct{}{} }
func (c *fakeContext) end()   { <-c.turn }

// Readers implements pcsc.Context.
func (c *fakeContext) Readers() ([]string, error) {
	c.begin()
	defer c.end()
	if err := c.service.enter(CallReaders, c.life); err != nil {
		return nil, err
	}
	defer c.service.mu.Unlock()
	return slices.Clone(c.service.order), nil
}

// Wait implements pcsc.Context.
func (c *fakeContext) Wait(states []pcsc.State, limit time.Duration) error {
	c.begin()
	defer c.end()
	p := c.service
	if err := p.enter(CallWait, c.life); err != nil {
		return err
	}
	defer p.mu.Unlock()
	for _, s := range states {
		if p.readers[s.Reader] == nil && s.Reader != pcscPnP {
			return pcsc.CodeUnknownReader
		}
	}
	p.waiters++
	p.crowd = max(p.crowd, p.waiters)
	c.waiting, c.canceled = true, false
	defer func() { p.waiters--; c.waiting = false }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for over := false; ; {
		switch {
		case p.life != c.life:
			return pcsc.CodeCommunication
		case p.frozen:
		case c.canceled:
			return pcsc.CodeCancelled
		case p.look(states):
			return nil
		case over:
			return pcsc.CodeTimeout
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			over = true
		}
		p.mu.Lock()
	}
}

const pcscPnP = `\\?PnP?\Notification`

// look fills in the states and reports whether one has changed.
func (p *PCSC) look(states []pcsc.State) (changed bool) {
	now := slices.Clone(states)
	for i := range now {
		s := &now[i]
		r := p.readers[s.Reader]
		s.Event, s.ATR = pcsc.StateUnknown|pcsc.StateUnavailable, nil
		switch {
		case s.Reader == pcscPnP && p.blindPnP:
			s.Event = s.Current
		case s.Reader == pcscPnP:
			s.Event = pcsc.Flags(len(p.order)) << 16
		case r != nil:
			if s.Event = r.flags(); r.chip != nil {
				s.ATR = r.chip.ATR()
			}
		}
		if s.Event != s.Current {
			s.Event |= pcsc.StateChanged
			changed = true
		}
	}
	if changed {
		copy(states, now)
	}
	return changed
}

// Cancel implements pcsc.Context.
func (c *fakeContext) Cancel() error {
	c.service.change(func() { c.canceled = c.waiting })
	return nil
}

// Release implements pcsc.Context. It closes what is connected, as the library
// does.
func (c *fakeContext) Release() error {
	c.begin()
	defer c.end()
	c.service.lockThawed()
	defer c.service.mu.Unlock()
	if c.released {
		panic("simulator: a context released twice")
	}
	for h := range c.handles {
		h.close()
	}
	c.released = true
	c.service.contexts--
	return nil
}

// Connect implements pcsc.Context.
func (c *fakeContext) Connect(reader string) (pcsc.Handle, error) {
	c.begin()
	defer c.end()
	p := c.service
	r, err := p.reserve(CallConnect, c.life, reader)
	if err != nil {
		return nil, err
	}
	defer r.free()
	defer p.mu.Unlock()
	switch {
	case r.chip == nil:
		return nil, pcsc.CodeNoCard
	case r.exclusive:
		return nil, pcsc.CodeSharing
	case len(r.chip.ATR()) < 2:
		return nil, pcsc.CodeUnresponsiveCard
	}
	h := &fakeHandle{context: c, reader: r, count: r.count, resets: r.resets}
	c.handles[h] = true
	p.handles++
	r.inUse++
	return h, nil
}

// reserve waits for the command that runs in a reader and returns with the
// reader's token and mu.
func (p *PCSC) reserve(call Call, life int, name string) (*fakeReader, error) {
	if err := p.enter(call, life); err != nil {
		return nil, err
	}
	r := p.readers[name]
	p.mu.Unlock()
	if r == nil {
		return nil, pcsc.CodeUnknownReader
	}
	r.busy <- struct{}{}
	p.mu.Lock()
	return r, nil
}

func (r *fakeReader) free() { <-r.busy }

type fakeHandle struct {
	context *fakeContext
	reader  *fakeReader
	count   uint16
	resets  int
}

// Transmit implements pcsc.Handle.
func (h *fakeHandle) Transmit(command []byte) ([]byte, error) {
	h.context.begin()
	defer h.context.end()
	p := h.context.service
	if len(command) == 0 {
		panic("simulator: the real binding panics on an empty command")
	}
	r, err := p.reserve(CallTransmit, h.context.life, h.reader.name)
	if err != nil {
		return nil, err
	}
	defer r.free()
	chip, in := r.chip, r.in
	switch {
	case r != h.reader || chip == nil || r.count != h.count:
		err = pcsc.CodeRemovedCard
	case r.exclusive:
		err = pcsc.CodeSharing
	case r.resets != h.resets:
		err = pcsc.CodeResetCard
	}
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	answer, ok := chip.serve(in, command)
	if ok {
		return answer, nil
	}
	// It left. If it did so by itself, the reader sees that too.
	defer p.change(func() {
		if r.chip == chip {
			r.remove()
		}
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.vanish {
		r.vanish = false
		return nil, nil
	}
	return nil, pcsc.CodeNotTransacted
}

// Reconnect implements pcsc.Handle.
func (h *fakeHandle) Reconnect() error {
	h.context.begin()
	defer h.context.end()
	r, err := h.context.service.reserve(CallReconnect, h.context.life, h.reader.name)
	if err != nil {
		return err
	}
	defer r.free()
	defer h.context.service.mu.Unlock()
	if r.chip == nil {
		return pcsc.CodeNoCard
	}
	h.count, h.resets = r.count, r.resets
	return nil
}

// Disconnect implements pcsc.Handle.
func (h *fakeHandle) Disconnect() error {
	h.context.begin()
	defer h.context.end()
	h.context.service.lockThawed()
	h.context.service.mu.Unlock()
	h.context.service.change(h.close)
	return nil
}

// close needs the service's mu.
func (h *fakeHandle) close() {
	if h.context.handles[h] {
		delete(h.context.handles, h)
		h.context.service.handles--
		h.reader.inUse--
	}
}
