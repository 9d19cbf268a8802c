package serial

import "time"

// presence tells sightings of one thing from those of another, and what is
// there from what came back. It holds what it was shown only until that cools
// down. Its zero value with the two durations set is ready.
type presence struct {
	debounce time.Duration // unseen for so long, it is gone
	coolDown time.Duration // unseen for so long, it is new

	now  string    // what is there; "" nothing
	seen time.Time // when it was sighted last
	told bool      // a tap told of it
	last map[string]time.Time
}

// unreadable is the key of a thing that could not be read: it is one thing until
// it cools down, so that a broken one does not fill the ledger.
const unreadable = "\x00"

// maxRecent bounds what is remembered: more things in one cool-down than people
// can show.
const maxRecent = 32

// sight takes that key is there. gone: the thing before it, of which a tap told,
// is not any more. fresh: a tap must tell of key.
func (p *presence) sight(key string, at time.Time) (gone, fresh bool) {
	p.forget(at)
	_, recent := p.last[key]
	if p.last == nil {
		p.last = map[string]time.Time{}
	}
	// What could not be read cools down from its tap on: whoever tries again
	// and again must be told again.
	if recent && key != unreadable || !recent && len(p.last) < maxRecent {
		p.last[key] = at
	}
	p.seen = at
	if key == p.now {
		return false, false
	}
	gone = p.told
	p.now, p.told = key, !recent
	return gone, !recent
}

// unseen takes that nothing was sighted at a time; gone: what was there, and a
// tap told of it, is not any more.
func (p *presence) unseen(at time.Time) (gone bool) {
	if p.now == "" || at.Sub(p.seen) < p.debounce {
		return false
	}
	gone = p.told
	p.now, p.told = "", false
	return gone
}

// recent reports whether anything was sighted within the cool-down: it may be
// that thing again.
func (p *presence) recent(at time.Time) bool {
	p.forget(at)
	return len(p.last) > 0
}

func (p *presence) forget(at time.Time) {
	for key, seen := range p.last {
		if key != p.now && at.Sub(seen) >= p.coolDown {
			delete(p.last, key)
		}
	}
}
