package panel

import (
	"context"

	"rollcall/device"
)

// badges are the small signs of the top bar, and what the big ones need to
// stay honest: no page says "insert your card" while no card can be read or
// stored.
type badges struct {
	Ready   bool            `json:"ready"`            // a check-in can be stored
	Offline bool            `json:"offline"`          // the centre is not reached
	Unsent  int             `json:"unsent,omitempty"` // records the centre has not receipted
	Reader  bool            `json:"reader,omitempty"` // no reader works
	Camera  bool            `json:"camera,omitempty"` // no camera works
	Clock   bool            `json:"clock,omitempty"`  // the time is not to be relied on
	Why     device.Sentence `json:"why,omitzero"`     // for the caretaker, unless ready
}

// Unsent tells how many records wait for the centre's receipt.
func (p *Panel) Unsent(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unsent = n
	p.refreshBadges()
}

func (p *Panel) watchHealth(ctx context.Context) {
	p.mu.Lock()
	p.reportScreen()
	p.mu.Unlock()
	for {
		changed := p.health.Changed()
		p.mu.Lock()
		p.refreshBadges()
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// refreshBadges publishes the badges if they changed. The caller holds mu.
func (p *Panel) refreshBadges() {
	now := badgesOf(p.health.Snapshot())
	if now.Offline {
		now.Unsent = p.unsent
	}
	if now != p.badges {
		p.badges = now
		p.publish("badges", now)
	}
}

func badgesOf(h device.HealthReport) badges {
	is := func(p device.Part, bad ...device.PartState) bool {
		part, _ := h.Part(p)
		for _, s := range bad {
			if part.State == s {
				return true
			}
		}
		return false
	}
	b := badges{
		Ready:   h.Ready,
		Offline: is(device.PartUplink, device.StateDown, device.StateDegraded),
		Reader:  is(device.PartReader, device.StateDown),
		Camera:  is(device.PartCamera, device.StateDown),
		Clock:   is(device.PartClock, device.StateDown, device.StateDegraded),
	}
	for _, p := range []device.Part{device.PartLedger, device.PartDisk} {
		if is(p, device.StateDown) && b.Why == (device.Sentence{}) {
			part, _ := h.Part(p)
			b.Why = part.Sentence
		}
	}
	return b
}
