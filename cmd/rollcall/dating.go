package main

import (
	"fmt"
	"sort"
	"time"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// crystalPPM is how fast the boot clock is taken to drift from true time, in
// parts per million.
const crystalPPM = 50

// history dates records better than their own wall clock could. Within one boot
// of a terminal only one thing is unknown: when the boot began. It follows from
//
//   - anchors of the boot, each with its stated error and the drift since: those
//     by the centre's receipt before those by the kernel's word;
//   - without an anchor, the boots around it: it began after the last record of
//     the boot before, and that one's last record came before the next began;
//   - receipts: a record is not older than the one it names, and not younger than
//     the first that covers it.
//
// Receipts are the centre's word, the rest is the terminal's own. First
// every record is observed, in order, then any may be dated.
type history struct {
	receipts func(chain.Entry) bounds // what receipts say of a record
	boots    []*boot                  // in the order of their first records
	named    map[string]*boot         // by terminal and boot id
	settled  bool
}

// bounds is a span of time; a zero end is not known.
type bounds struct{ from, to time.Time }

// within gives what both say; false if they contradict each other.
func (b bounds) within(other bounds) (bounds, bool) {
	if other.from.After(b.from) {
		b.from = other.from
	}
	if b.to.IsZero() || !other.to.IsZero() && other.to.Before(b.to) {
		b.to = other.to
	}
	return b, b.to.IsZero() || !b.from.After(b.to)
}

// plus moves the ends that are known.
func (b bounds) plus(from, to time.Duration) bounds {
	if !b.from.IsZero() {
		b.from = b.from.Add(from)
	}
	if !b.to.IsZero() {
		b.to = b.to.Add(to)
	}
	return b
}

// boot is one boot of a terminal.
type boot struct {
	began   bounds
	last    time.Duration // of its records, since it began
	anchors []anchor
}

// anchor is trusted time that arrived.
type anchor struct {
	source attendance.TimeSource
	seq    chain.Seq // of its record
	up     time.Duration
	wall   time.Time
	err    time.Duration
}

// dated is when a record was formed.
type dated struct {
	bounds
	by     dating
	anchor chain.Seq // with byAnchor: the record of it
	// against says that what the terminal gives does not fit the receipts,
	// which then count alone.
	against bool
}

// dating is what a record is dated by.
type dating string

const (
	byAnchor  dating = "anchor"  // of its boot
	byClock   dating = "clock"   // its own, which said that it was right
	byBoots   dating = "boots"   // those before and after its own, and receipts
	byReceipt dating = "receipt" // those before and after it alone
	byNothing dating = ""
)

func newHistory(receipts func(chain.Entry) bounds) *history {
	return &history{receipts: receipts, named: map[string]*boot{}}
}

func (h *history) boot(e chain.Entry) *boot {
	name := string(e.Log.Terminal()) + " " + e.At.Boot
	b, ok := h.named[name]
	if !ok {
		b = &boot{}
		h.named[name], h.boots = b, append(h.boots, b)
	}
	return b
}

// observe takes the next record.
func (h *history) observe(e chain.Entry) {
	b, up := h.boot(e), sinceBoot(e)
	b.last = max(b.last, up)
	b.learn(h.receipts(e).plus(-up, -up))
	if e.Type != string(attendance.TypeAnchor) {
		return
	}
	body, err := attendance.ReadBody[attendance.AnchorBody](e.Body)
	if err != nil {
		return // advice that nobody can read
	}
	if wall, err := time.Parse(attendance.TimeLayout, body.Wall); err == nil {
		b.anchors = append(b.anchors, anchor{body.Source, e.Seq, bounded(body.UpMS), wall, bounded(body.ErrMS)})
	}
}

// settle passes on between boots what each knows of its beginning.
func (h *history) settle() {
	if h.settled {
		return
	}
	h.settled = true
	for _, b := range h.boots {
		if a := b.nearest(0); a != nil {
			b.learn(a.at(0))
		}
	}
	for i := 1; i < len(h.boots); i++ {
		b := h.boots[i-1]
		h.boots[i].learn(bounds{from: b.began.plus(b.last-drift(b.last), 0).from})
	}
	for i := len(h.boots) - 2; i >= 0; i-- {
		b := h.boots[i]
		b.learn(bounds{to: h.boots[i+1].began.plus(0, drift(b.last)-b.last).to})
	}
}

// learn takes what is said of the boot's beginning, unless it contradicts what
// was said before.
func (b *boot) learn(other bounds) {
	if began, fits := b.began.within(other); fits {
		b.began = began
	}
}

// nearest is the anchor that dates a moment best; nil without any.
func (b *boot) nearest(up time.Duration) (best *anchor) {
	for i := range b.anchors {
		a := &b.anchors[i]
		if best == nil || (a.source == best.source && (a.up-up).Abs() < (best.up-up).Abs()) ||
			a.source != best.source && a.source == attendance.TimeReceipt {
			best = a
		}
	}
	return best
}

// at is the span of a moment of the anchor's boot.
func (a *anchor) at(up time.Duration) bounds {
	wall, off := a.wall.Add(up-a.up), a.err+drift(a.up-up)
	return bounds{wall.Add(-off), wall.Add(off)}
}

func drift(d time.Duration) time.Duration { return d.Abs() / 1e6 * crystalPPM }

func sinceBoot(e chain.Entry) time.Duration { return bounded(e.At.UpMS) }

// bounded keeps milliseconds that somebody wrote within what can be counted
// with: 0 to 50 years.
func bounded(n int64) time.Duration {
	return time.Duration(min(max(n, 0), 50*365*24*3600*1000)) * time.Millisecond
}

// date says when a record was formed.
func (h *history) date(e chain.Entry) dated {
	h.settle()
	b, up := h.boot(e), sinceBoot(e)
	var d dated
	if a := b.nearest(up); a != nil {
		d = dated{bounds: a.at(up), by: byAnchor, anchor: a.seq}
	} else if own, ok := byItself(e); ok {
		d = dated{bounds: own, by: byClock}
	} else {
		off := drift(b.last)
		d = dated{bounds: b.began.plus(up-off, up+off), by: byBoots}
	}
	receipts := h.receipts(e)
	all, fits := d.within(receipts)
	if !fits {
		return dated{bounds: receipts, by: byReceipt, against: true}
	}
	if d.bounds = all; all == (bounds{}) {
		d.by = byNothing
	}
	return d
}

// byItself is what a record says of its own time; ok is false if it does not
// vouch for it.
func byItself(e chain.Entry) (b bounds, ok bool) {
	if e.At.Clock != chain.ClockSynced && e.At.Clock != chain.ClockHoldover {
		return b, false
	}
	off := bounded(e.At.ErrMS)
	return bounds{e.At.Wall.Add(-off), e.At.Wall.Add(off)}, true
}

// String is for a person: a time and how far it may be off, or the span.
func (d dated) String() string {
	var span string
	switch {
	case d.from.IsZero() && d.to.IsZero():
		span = "at a time that nothing bounds"
	case d.from.IsZero():
		span = "before " + d.to.Format(time.DateTime)
	case d.to.IsZero():
		span = "after " + d.from.Format(time.DateTime)
	case d.to.Sub(d.from) < 2*time.Minute:
		half := d.to.Sub(d.from) / 2
		span = fmt.Sprintf("at %s, give or take %s", d.from.Add(half).Format(time.DateTime), half.Round(time.Millisecond))
	default:
		span = fmt.Sprintf("between %s and %s", d.from.Format(time.DateTime), d.to.Format(time.DateTime))
	}
	switch {
	case d.against:
		span += " by receipts, which its own clock contradicts"
	case d.by == byAnchor:
		span += fmt.Sprintf(" by the anchor in record %d", d.anchor)
	case d.by == byBoots:
		span += " by what came before and after"
	}
	return span
}

// amiss reports whether a record's own time is not to be believed as it stands:
// its clock was not set, or gives a time that does not fit d.
func (d dated) amiss(e chain.Entry) bool {
	own, vouched := byItself(e)
	if !vouched || d.against {
		return true
	}
	_, fits := own.within(d.bounds)
	return !fits
}

// received is the centre's receipts of each log, by rising seq.
type received map[chain.LogID][]chain.Receipt

// bounds is what they say of a record: not older than the last that it knew of,
// nor younger than the first that covers it.
func (r received) bounds(e chain.Entry) (b bounds) {
	receipts := r[e.Log]
	from := func(seq chain.Seq) int { // the first of receipts that names seq or a record after it
		return sort.Search(len(receipts), func(i int) bool { return receipts[i].Seq >= seq })
	}
	if e.Ack != nil {
		if i := from(e.Ack.Seq + 1); i > 0 {
			b.from = receipts[i-1].At.Time
		}
	}
	if i := from(e.Seq); i < len(receipts) {
		b.to = receipts[i].At.Time
	}
	return b
}

// sealedBounds is what the receipts that a verifier believed say of a record.
func sealedBounds(epochs []chain.Epoch) func(chain.Entry) bounds {
	receipts := received{}
	for _, epoch := range epochs {
		receipts[epoch.Log] = epoch.Receipts
	}
	return func(e chain.Entry) bounds {
		b := receipts.bounds(e)
		_, sealed := wordFor(epochs, e.Log, e.Seq) // a receipt behind a gap covers nothing before it
		b.to = sealed.Time
		return b
	}
}

// in gives the times in the zone of the record's own.
func (d dated) in(e chain.Entry) dated {
	zone := e.At.Wall.Location()
	if !d.from.IsZero() {
		d.from = d.from.In(zone)
	}
	if !d.to.IsZero() {
		d.to = d.to.In(zone)
	}
	return d
}

// lag is the whole minutes from a record to what covers it, at most: from the
// earliest moment that it may be of, or what its own clock said if nothing
// bounds it.
func (d dated) lag(e chain.Entry, sealed time.Time) int {
	from := d.from
	if from.IsZero() {
		from = e.At.Wall.Time
	}
	return int(sealed.Sub(from).Minutes())
}
