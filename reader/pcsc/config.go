// Package pcsc is the driver for smart card readers behind PC/SC, and the only
// place that sees PC/SC. Each card presented to any reader becomes taps: one
// CardSeen at once, then exactly one CardRead or CardFailed, then CardGone.
// Slots for security modules give none.
//
// It goes on without readers, without pcscd, and when either comes back. A
// reader whose card stops answering is given up while the others go on. A card
// whose contacts bounce, or that somebody pushes in and out, gives one tap and
// not twenty. It never sends a PIN and never touches the bank's application on
// a card.
//
// The driver stands on a [Binding], the few calls of PC/SC it makes; the rules
// it keeps towards the real one stand in docs/decisions/03-pcsc-binding.md.
// Without cgo there is only a stub of it, whose error says how to build it.
package pcsc

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"rollcall/device"
	"rollcall/reader"
)

// Config is what a site may change. The zero value is what most sites need.
// Where a field names slots, * stands for any text, and case does not matter.
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
	// Debounce is how long a card may be away and still be the same insertion
	// while it is being read; 0 means 400 ms. A card pulled out too early is
	// reported that much later.
	Debounce time.Duration `toml:"debounce"`
	// CoolDown is how long after its tap a card gives no other at the same
	// reader; 0 means 3 s. It is read then, if it is still there. Other cards do
	// not wait.
	CoolDown time.Duration `toml:"cool_down"`
	// SAMSlots name the slots that hold a security module and never a trainee's
	// card; unset means "*SAM*". Readers that do not name theirs so need it.
	SAMSlots []string `toml:"sam_slots"`
	// Devices say which slots are one device, a contact and a contactless one
	// mostly: a card that both see gives one tap. One list of names for each.
	Devices [][]string `toml:"devices"`
	// Profile says how cards are read: "cn-ssc", "cn-ssc-short" (person number and
	// name only, 90 ms sooner by contact), or a profile file; unset means cn-ssc.
	Profile string `toml:"profile"`
	// PSAM is the security module that opens cards of version 3.00.
	PSAM PSAM `toml:"psam"`
	// RefuseExpired refuses cards past their date instead of marking them, while
	// Today is known.
	RefuseExpired bool `toml:"refuse_expired"`

	// Today gives the day, "2006-01-02", or "" where the clock is not known to be
	// good; nil counts as never.
	Today func() string `toml:"-"`
	// Binding is the PC/SC to use; nil is this machine's.
	Binding Binding `toml:"-"`
}

// PSAM says where the security module is and which of its keys to use. Without
// Slot there is none, and cards of version 3.00 stay partial.
type PSAM struct {
	// Slot names the slot that holds the module.
	Slot string `toml:"slot"`
	reader.PSAMConfig
}

// ErrTooManyHung ends Run: so many calls into PC/SC hang that only a new process
// helps.
var ErrTooManyHung = fmt.Errorf("too many calls to smart card readers hang, restart this program and plug the readers in again: %w", device.ErrPermanent)

// Report is told how the service (reader "") and each reader fare: nil when it
// works, else an error that wraps reader.ErrServiceDown, ErrReaderGone,
// ErrReaderHung or ErrReaderBusy, and for the slot of the PSAM whatever keeps
// that from working. It is called from several goroutines, once
// per change, and must not block.
type Report func(reader string, err error)

func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		key   string
		value *time.Duration
		unset time.Duration
	}{
		{"command_limit", &c.CommandLimit, 2 * time.Second},
		{"read_limit", &c.ReadLimit, 5 * time.Second},
		{"debounce", &c.Debounce, 400 * time.Millisecond},
		{"cool_down", &c.CoolDown, 3 * time.Second},
	} {
		if *d.value < 0 {
			return c, fmt.Errorf("%s: %v, must not be negative", d.key, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.unset
		}
	}
	if c.MaxHung < 0 {
		return c, fmt.Errorf("max_hung: %d, must not be negative", c.MaxHung)
	}
	if c.MaxHung == 0 {
		c.MaxHung = 8
	}
	if c.SAMSlots == nil {
		c.SAMSlots = []string{"*SAM*"}
	}
	for _, names := range c.Devices {
		if len(names) < 2 {
			return c, errors.New("devices: a device with one slot needs no entry: name two or more")
		}
	}
	if c.PSAM.Slot != "" {
		if _, err := reader.NewPSAM(nil, c.PSAM.PSAMConfig); err != nil {
			return c, err
		}
	}
	if c.Today == nil || !c.RefuseExpired {
		c.Today = func() string { return "" }
	}
	if c.Binding == nil {
		c.Binding = System()
	}
	return c, nil
}

// isSAM reports whether a slot holds a security module, isPSAM whether it is
// the one to use.
func (c Config) isSAM(slot string) bool { return c.isPSAM(slot) || matchesAny(c.SAMSlots, slot) }

func (c Config) isPSAM(slot string) bool {
	return c.PSAM.Slot != "" && matchesAny([]string{c.PSAM.Slot}, slot)
}

// device gives which of Devices a slot belongs to; -1 if to none.
func (c Config) device(slot string) int {
	for i, names := range c.Devices {
		if matchesAny(names, slot) {
			return i
		}
	}
	return -1
}

func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if matches(strings.ToLower(p), strings.ToLower(name)) {
			return true
		}
	}
	return false
}

// matches compares a name with a pattern in which * stands for any text. Names
// of readers are full of brackets, so nothing else has a meaning.
func matches(pattern, name string) bool {
	head, tail, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == name
	}
	if !strings.HasPrefix(name, head) {
		return false
	}
	for rest := name[len(head):]; ; rest = rest[1:] {
		if matches(tail, rest) {
			return true
		}
		if rest == "" {
			return false
		}
	}
}
