// Package pcsc is the driver for smart card readers behind PC/SC, and the only
// place that sees PC/SC. Each card presented to any reader becomes taps: one
// CardSeen at once, then exactly one CardRead or CardFailed, then CardGone.
//
// It goes on without readers, without pcscd, and when either comes back. A
// reader whose card stops answering is given up while the others go on. It
// never sends a PIN and never touches the bank's application on a card.
//
// The rules it keeps towards its binding, github.com/ebfe/scard, stand in
// docs/decisions/03-pcsc-binding.md. Without cgo there is only a stub whose
// error says how to build it.
package pcsc

import (
	"errors"
	"fmt"
	"time"
)

// Config is what a site may change. The zero value is what most sites need.
type Config struct {
	// CommandLimit is how long a card may take for one command; 0 means 2 s.
	// After it the reader counts as hung and is reported.
	CommandLimit time.Duration `toml:"command_limit"`
	// ReadLimit is how long reading one card may take in all; 0 means 5 s.
	// After it the tap fails and the trainee is asked to insert the card again.
	ReadLimit time.Duration `toml:"read_limit"`
	// MaxHung is how many calls into PC/SC may hang at once before Run gives
	// up and returns ErrTooManyHung; 0 means 8. Each holds a thread that only
	// the end of the process, or the reader, can free.
	MaxHung int `toml:"max_hung"`
}

// ErrTooManyHung ends Run: so many calls into PC/SC hang that only a new process
// helps.
var ErrTooManyHung = errors.New("too many calls to smart card readers hang: restart this program and plug the readers in again")

// Report is told how the service (reader "") and each reader fare: nil when it
// works, else an error that wraps reader.ErrServiceDown, ErrReaderGone,
// ErrReaderHung or ErrReaderBusy. It is called from several goroutines, once
// per change, and must not block.
type Report func(reader string, err error)

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.CommandLimit < 0:
		return c, fmt.Errorf("command_limit: %v, must not be negative", c.CommandLimit)
	case c.ReadLimit < 0:
		return c, fmt.Errorf("read_limit: %v, must not be negative", c.ReadLimit)
	case c.MaxHung < 0:
		return c, fmt.Errorf("max_hung: %d, must not be negative", c.MaxHung)
	}
	if c.CommandLimit == 0 {
		c.CommandLimit = 2 * time.Second
	}
	if c.ReadLimit == 0 {
		c.ReadLimit = 5 * time.Second
	}
	if c.MaxHung == 0 {
		c.MaxHung = 8
	}
	return c, nil
}
