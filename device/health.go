package device

import (
	"slices"
	"sync"
	"time"
)

// Part is something of the terminal that can fail on its own.
type Part string

const (
	PartReader Part = "reader"
	PartCamera Part = "camera"
	PartLedger Part = "ledger"
	PartUplink Part = "uplink"
	PartClock  Part = "clock"
	PartDisk   Part = "disk"
	PartPanel  Part = "panel"
)

// Parts lists every part, in the order a caretaker should look at them.
var Parts = []Part{PartLedger, PartDisk, PartReader, PartCamera, PartPanel, PartClock, PartUplink}

// PartState is how a part does.
type PartState string

const (
	StateOK       PartState = "ok"
	StateDegraded PartState = "degraded" // works, with something to put right
	StateDown     PartState = "down"
)

// Sentence tells the caretaker what is wrong and what to do, in both
// languages. Never a number, a name or a picture of a person.
type Sentence struct {
	Zh string `json:"zh,omitempty"`
	En string `json:"en,omitempty"`
}

// PartHealth is how a part does, since when, and how often it came back.
type PartHealth struct {
	Part       Part      `json:"part"`
	State      PartState `json:"state"`
	Since      time.Time `json:"since"`
	Sentence   Sentence  `json:"sentence"`
	Recoveries int       `json:"recoveries"`
}

// HealthReport is how the terminal does. Parts nobody spoke of yet are absent.
type HealthReport struct {
	Ready bool         `json:"ready"`
	Parts []PartHealth `json:"parts"`
}

// Part gives one part's health; ok is false if nobody spoke of it yet.
func (r HealthReport) Part(p Part) (h PartHealth, ok bool) {
	i := slices.IndexFunc(r.Parts, func(h PartHealth) bool { return h.Part == p })
	if i < 0 {
		return PartHealth{}, false
	}
	return r.Parts[i], true
}

// Health gathers what each part says of itself. It may be used from several
// goroutines at once.
type Health struct {
	now func() time.Time

	mu      sync.Mutex // guards what follows
	parts   map[Part]PartHealth
	changed chan struct{} // closed at the next change
}

// NewHealth makes a Health in which no part has spoken yet.
func NewHealth(now func() time.Time) *Health {
	return &Health{now: now, parts: map[Part]PartHealth{}, changed: make(chan struct{})}
}

// Set says how a part does. A part that is ok again counts one recovery.
// Saying the same again changes nothing.
func (h *Health) Set(part Part, state PartState, sentence Sentence) {
	if !slices.Contains(Parts, part) {
		panic("device: no part " + string(part))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	before, spoke := h.parts[part]
	after := before
	after.Part, after.State, after.Sentence = part, state, sentence
	if after == before {
		return
	}
	if state != before.State {
		after.Since = h.now()
	}
	if spoke && before.State != StateOK && state == StateOK {
		after.Recoveries++
	}
	h.parts[part] = after
	close(h.changed)
	h.changed = make(chan struct{})
}

// OK says that a part works.
func (h *Health) OK(part Part) { h.Set(part, StateOK, Sentence{}) }

// Ready reports whether a check-in can be stored, which is all that readiness
// means: a terminal that is offline or has no camera is ready.
func (h *Health) Ready() bool { return h.Snapshot().Ready }

// Snapshot is the health of every part that spoke, in the order of [Parts].
func (h *Health) Snapshot() HealthReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := HealthReport{Parts: []PartHealth{}}
	for _, p := range Parts {
		if s, ok := h.parts[p]; ok {
			r.Parts = append(r.Parts, s)
		}
	}
	ledger, ok := h.parts[PartLedger]
	r.Ready = ok && ledger.State != StateDown && h.parts[PartDisk].State != StateDown
	return r
}

// Changed gives a channel that is closed at the next change. Take it before
// the snapshot it is to follow, else a change between the two is missed.
func (h *Health) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}
