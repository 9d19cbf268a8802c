package pcsc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"rollcall/device"
	"rollcall/reader"
)

// module is the slot of the security module (PSAM), which is kept open.
type module struct {
	driver *Driver
	name   string
	inbox

	card presence // what the watcher saw last
	down bool     // reported as not working
}

// errNoModule is an empty slot.
var errNoModule = errors.New("no security module in its slot: put it in")

// run keeps the module open until end is called.
func (m *module) run(all context.Context) {
	ctx, cancel := context.WithCancel(all)
	defer cancel()
	cfg := device.ReopenConfig{Max: 10 * time.Second, Lost: func(err error, _ time.Duration) { m.lack(err) }}
	_ = device.Reopen(ctx, cfg, func(ctx context.Context) error {
		err := m.use(ctx)
		if errors.Is(err, errLeft) {
			cancel()
		}
		return err
	})
	if all.Err() == nil {
		m.driver.ended(m.name, m.cause)
	}
}

// fares reports a change for the better or the worse.
func (m *module) fares(err error) {
	switch {
	case err != nil && !m.down:
		m.driver.log.Warn("security module does not work", "reader", m.name, "err", err)
	case err == nil && m.down:
		m.driver.log.Info("security module works", "reader", m.name)
	default:
		return
	}
	m.down = err != nil
	m.driver.report(m.name, err)
}

// lack says that the module does not work, and why.
func (m *module) lack(err error) {
	m.fares(err)
	m.driver.seat.settle(nil)
}

// use opens the module and lets it be used until it is lost. It returns
// errLeft when end was called.
func (m *module) use(ctx context.Context) error {
	if err := m.await(ctx); err != nil {
		return err
	}
	line := &line{driver: m.driver, name: m.name}
	defer line.drop()
	link, err := line.connect()
	if err != nil {
		return err
	}
	shared := &shared{link: link, lost: make(chan error, 1)}
	defer shared.close()
	psam, err := reader.NewPSAM(shared, m.driver.cfg.PSAM.PSAMConfig)
	if err != nil {
		return fmt.Errorf("%w: %w", err, device.ErrPermanent)
	}
	use := &moduleInUse{psam: psam, after: make(chan struct{}, 1)}
	m.fares(nil)
	m.driver.seat.settle(use)
	defer m.driver.seat.settle(nil)
	count := m.card.count
	for {
		select {
		case err := <-shared.lost:
			return err
		case <-use.after:
			m.fares(psam.Err())
		case p, open := <-m.states:
			if !open {
				return errLeft
			}
			if m.card = p; !p.present || p.count != count {
				return fmt.Errorf("security module: %w", reader.ErrCardRemoved)
			}
		case <-ctx.Done():
			return errLeft
		}
	}
}

// await waits until the watcher sees a module in the slot.
func (m *module) await(ctx context.Context) error {
	for {
		select { // the newest that is known
		case p, open := <-m.states:
			if !open {
				return errLeft
			}
			m.card = p
			continue
		default:
		}
		if m.card.present {
			return nil
		}
		if !m.card.at.IsZero() {
			m.lack(errNoModule)
		}
		select {
		case p, open := <-m.states:
			if !open {
				return errLeft
			}
			m.card = p
		case <-ctx.Done():
			return errLeft
		}
	}
}

// seat is where the slots find the module.
type seat struct {
	mu    sync.Mutex    // guards what follows
	use   *moduleInUse  // nil while there is none
	known chan struct{} // closed once the module is open or known to be wanting
}

// expect says that the module is about to be opened, as when pcscd starts.
func (s *seat) expect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use, s.known = nil, make(chan struct{})
}

// settle says what came of it, and each later change.
func (s *seat) settle(use *moduleInUse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use = use
	select {
	case <-s.known:
	default:
		close(s.known)
	}
}

// take gives the module in use; nil if there is none. A card that lay in its
// slot before the module was open waits for it, else it would earn less than it
// can prove.
func (s *seat) take(ctx context.Context) *moduleInUse {
	s.mu.Lock()
	known := s.known
	s.mu.Unlock()
	select {
	case <-known:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.use
}

// moduleInUse is the open module as the slots see it.
type moduleInUse struct {
	psam  *reader.PSAM
	after chan struct{}
}

// used says that a card was read with it, so that its state is looked at.
func (u *moduleInUse) used() {
	select {
	case u.after <- struct{}{}:
	default:
	}
}

// shared is a link that the slots use, one at a time, until its opener closes
// it.
type shared struct {
	lost chan error // gets the first error

	mu   sync.Mutex
	link *link // nil once closed
}

func (s *shared) Transmit(command []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return nil, reader.ErrReaderGone
	}
	answer, err := s.link.Transmit(command)
	if err != nil {
		select {
		case s.lost <- err:
		default:
		}
	}
	return answer, err
}

func (s *shared) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link.close()
	s.link = nil
}
