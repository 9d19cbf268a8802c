package pcsc

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"rollcall/reader"
)

// Slot is one slot of the readers that are there, as an operator sees it.
type Slot struct {
	Name    string `json:"name"`
	SAM     bool   `json:"sam"` // for a security module: gives no taps
	Present bool   `json:"present"`
	Mute    bool   `json:"mute"`      // a card that gives no answer to reset
	Busy    bool   `json:"exclusive"` // another program keeps it to itself
	ATR     []byte `json:"-"`         // ends with a card's serial number
}

// Slots lists the slots of all readers, beside a [Driver] of this process or of
// another. No reader is an empty list. Errors wrap the sentinels of reader.
func Slots(cfg Config) ([]Slot, error) {
	line, err := toolLine(cfg)
	if err != nil {
		return nil, err
	}
	defer line.drop()
	return line.slots()
}

// toolLine is the conversation of an operator's tool.
func toolLine(cfg Config) (*line, error) {
	d, err := New(cfg, time.Now, slog.New(slog.DiscardHandler), func(string, error) {})
	if err != nil {
		return nil, err
	}
	l := &line{driver: d}
	return l, l.establish()
}

func (l *line) slots() ([]Slot, error) {
	names, err := call(l, l.pcsc.Readers)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	states := make([]State, len(names))
	for i, name := range names {
		states[i].Reader = name
	}
	pcsc := l.pcsc
	if _, err = call(l, func() (struct{}, error) { return struct{}{}, wait(pcsc, states, 0) }); err != nil {
		return nil, err
	}
	slots := make([]Slot, len(states))
	for i, s := range states {
		slots[i] = Slot{
			Name: s.Reader, SAM: l.driver.cfg.isSAM(s.Reader), ATR: s.ATR,
			Present: s.Event&StatePresent != 0, Mute: s.Event&StateMute != 0, Busy: s.Event&StateExclusive != 0,
		}
	}
	return slots, nil
}

// Opened is a card that an operator's tool has opened: a reader.Transmitter, with
// the driver's limit for each command. It belongs to one goroutine.
type Opened struct {
	Slot Slot
	*link
}

// Open opens the card in the slot of that name, or, if it is empty, the only
// card that lies in a slot for cards. Close it.
func Open(cfg Config, name string) (*Opened, error) {
	return open(cfg, func(slots []Slot) (Slot, error) { return choose(slots, name) })
}

// OpenPSAM opens the security module that cfg names, beside a [Driver] that may
// use it too: a card that is tapped meanwhile may earn less than it could. Close
// what it gives.
func OpenPSAM(cfg Config) (*Opened, error) {
	return open(cfg, func(slots []Slot) (Slot, error) {
		for _, s := range slots {
			if cfg.isPSAM(s.Name) {
				return s, nil
			}
		}
		return Slot{}, fmt.Errorf("security module in %q: %w: rollcall reader list names the slots that are there", cfg.PSAM.Slot, reader.ErrReaderGone)
	})
}

func open(cfg Config, choose func([]Slot) (Slot, error)) (_ *Opened, err error) {
	line, err := toolLine(cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			line.drop()
		}
	}()
	slots, err := line.slots()
	if err != nil {
		return nil, err
	}
	slot, err := choose(slots)
	if err != nil {
		return nil, err
	}
	line.name = slot.Name
	link, err := line.connect()
	if err != nil {
		return nil, fmt.Errorf("reader %q: %w", slot.Name, err)
	}
	return &Opened{Slot: slot, link: link}, nil
}

// Close gives the card back.
func (o *Opened) Close() {
	o.close()
	o.line.drop()
}

// errNoCard is the answer when there is nothing to open.
var errNoCard = errors.New("no card in any reader: insert one")

func choose(slots []Slot, name string) (Slot, error) {
	var with []Slot
	for _, s := range slots {
		switch {
		case name != "" && s.Name == name:
			return s, nil
		case !s.SAM && s.Present:
			with = append(with, s)
		}
	}
	switch {
	case name != "":
		return Slot{}, fmt.Errorf("reader %q: %w: rollcall reader list names those that are there", name, reader.ErrReaderGone)
	case len(slots) == 0:
		return Slot{}, fmt.Errorf("no reader: %w", reader.ErrReaderGone)
	case len(with) == 0:
		return Slot{}, errNoCard
	case len(with) > 1:
		return Slot{}, fmt.Errorf("cards in %q and %q: take one out or name a reader with -reader", with[0].Name, with[1].Name)
	}
	return with[0], nil
}
