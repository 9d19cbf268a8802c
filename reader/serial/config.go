// Package serial is the driver for readers on serial lines, and the only place
// that sees a serial port: modules for resident identity cards, scanners for
// codes, and readers of a chip's serial number. Each thing presented becomes
// taps as with PC/SC: one CardSeen, then exactly one CardRead or CardFailed,
// then CardGone.
//
// It goes on without its device and when that comes back, found by the same
// path. A device keeps its line to itself by a lock on it. What lies there or
// is shown again and again gives one tap: see [Config.CoolDown]. The bytes are
// understood in package reader; nothing of them is logged.
//
// One [Driver] serves one line; Run belongs to one goroutine.
package serial

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"rollcall/reader"
)

// Kind is what stands at the other end of the line.
type Kind string

const (
	KindIDCard    Kind = "id-card"       // resident identity card module, GA 450
	KindQR        Kind = "qr"            // scanner that sends what it sees
	KindGM65      Kind = "qr-gm65"       // scanner of the GM65 family, told when to look
	KindEM4100    Kind = "uid-em4100"    // RDM6300 and its like
	KindDual      Kind = "uid-dual"      // reader for 125 kHz and 13.56 MHz
	KindWiegand26 Kind = "uid-wiegand26" // Wiegand in bytes
	KindWiegand34 Kind = "uid-wiegand34"
)

// Kinds lists every kind.
var Kinds = []Kind{KindIDCard, KindQR, KindGM65, KindEM4100, KindDual, KindWiegand26, KindWiegand34}

// speeds gives what is tried, in order, where the configuration says nothing.
// One-way devices cannot be asked: theirs is one guess.
var speeds = map[Kind][]int{
	KindIDCard:    {115200, 9600, 57600, 38400, 19200, 230400},
	KindQR:        {9600},
	KindGM65:      {9600, 115200, 57600, 38400, 19200},
	KindEM4100:    {9600},
	KindDual:      {9600},
	KindWiegand26: {9600},
	KindWiegand34: {9600},
}

var uidForms = map[Kind]reader.UIDForm{
	KindEM4100:    reader.UIDEM4100,
	KindDual:      reader.UIDDual,
	KindWiegand26: reader.UIDWiegand26,
	KindWiegand34: reader.UIDWiegand34,
}

// ByteOrder is how a reader writes a serial number.
type ByteOrder string

const (
	AsSent   ByteOrder = "as-sent"
	Reversed ByteOrder = "reversed"
)

// Config is one device on a serial line.
type Config struct {
	// Kind is what the device is. It must be set.
	Kind Kind `toml:"kind"`
	// Path is the device file. It must be set, and be one that stays the same:
	// under /dev/serial/by-path or by-id, or a name that udev gives. The number
	// of a ttyUSB changes with the order of plugging.
	Path string `toml:"path"`
	// Name stands in records, logs and on the caretaker's page; default the
	// kind. Two devices of one kind need names.
	Name string `toml:"name"`
	// Speed is in bits per second; 0 tries what the kind is sold with. A
	// scanner or a UID reader cannot be asked: 0 is 9600, and another speed
	// gives nothing but noise.
	Speed int `toml:"speed"`
	// ByteOrder of a UID reader: as-sent (default) or reversed. With the wrong
	// one no card is found on any roster.
	ByteOrder ByteOrder `toml:"byte_order"`
	// FindEvery is how often an identity card module looks for a card; 0 means
	// 300 ms. Less finds a card sooner and warms the module.
	FindEvery time.Duration `toml:"find_every"`
	// Debounce is how long a card or code may be unseen and still be there; 0
	// means 400 ms.
	Debounce time.Duration `toml:"debounce"`
	// CoolDown is how long after it was last seen a card or code gives no
	// other tap, and how long after its tap one that could not be read; 0 means
	// 3 s.
	CoolDown time.Duration `toml:"cool_down"`
	// RefuseExpired refuses identity cards past their date instead of marking
	// them, while Today is known.
	RefuseExpired bool `toml:"refuse_expired"`

	// Today gives the day, "2006-01-02", or "" where the clock is not known to
	// be good; nil counts as never.
	Today func() string `toml:"-"`
}

// withDefaults fills what was left out and refuses what cannot be.
func (c Config) withDefaults() (Config, error) {
	switch {
	case !slices.Contains(Kinds, c.Kind):
		return c, fmt.Errorf("kind = %q: must be one of %s", c.Kind, listed(Kinds))
	case c.Path == "":
		return c, fmt.Errorf("path = \"\": name the device file, such as one under /dev/serial/by-path")
	case c.Speed < 0:
		return c, fmt.Errorf("speed = %d: must be in bits per second, such as 9600", c.Speed)
	case c.ByteOrder != "" && uidForms[c.Kind] == "":
		return c, fmt.Errorf("byte_order = %q: only readers of serial numbers have one", c.ByteOrder)
	case c.ByteOrder != "" && c.ByteOrder != AsSent && c.ByteOrder != Reversed:
		return c, fmt.Errorf("byte_order = %q: must be as-sent or reversed", c.ByteOrder)
	}
	if c.Name == "" {
		c.Name = string(c.Kind)
	}
	for _, d := range []struct {
		key      string
		value    *time.Duration
		standard time.Duration
	}{
		{"find_every", &c.FindEvery, 300 * time.Millisecond},
		{"debounce", &c.Debounce, 400 * time.Millisecond},
		{"cool_down", &c.CoolDown, 3 * time.Second},
	} {
		if *d.value < 0 {
			return c, fmt.Errorf("%s = %v: must not be negative", d.key, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	return c, nil
}

func listed(kinds []Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

// speeds to try.
func (c Config) speeds() []int {
	if c.Speed != 0 {
		return []int{c.Speed}
	}
	return speeds[c.Kind]
}
