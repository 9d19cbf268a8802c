package chain

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"time"
)

// The types of record whose bodies say how lines hang together.
const (
	typeOpen = "open"
	typeGap  = "gap"
	typeKey  = "key"
)

// verified is one log as far as it was read.
type verified struct {
	log      LogID
	keyKnown bool
	last     Seq
	signed   Seq
	cut      Seq  // the log was read from the record after this one
	cutHash  Hash // of that record
	runs     []*run
	missing  []missing // passed over, and named by no gap record yet
	before   *Link

	ring  *Ring
	now   inForce // at the last record
	turns []Turn  // where the key in force was another than before

	acked    Seq     // highest receipt that a record named
	floors   []floor // by ack
	receipts []Receipt
	notes    []string
}

// run is a Stretch with the hashes of its lines.
type run struct {
	Stretch
	hashes []Hash
}

// missing is records that are not where they should be.
type missing struct{ from, to Seq }

// floor is the earliest wall time among the records that name one receipt.
type floor struct {
	ack  Seq
	seq  Seq
	wall Wall
	late time.Time // wall and the clock's stated error
}

func (l *verified) problem(seq Seq, format string, args ...any) error {
	return &Problem{Log: l.log, Seq: seq, What: fmt.Sprintf(format, args...)}
}

// lastHash is the hash that the next line must name.
func (l *verified) lastHash() Hash {
	if n := len(l.runs); n > 0 {
		r := l.runs[n-1]
		return r.hashes[len(r.hashes)-1]
	}
	return l.cutHash
}

// runOf is the run that holds a record; nil if it was not read.
func (l *verified) runOf(seq Seq) *run {
	i := sort.Search(len(l.runs), func(i int) bool { return l.runs[i].Last >= seq })
	if i == len(l.runs) || l.runs[i].First > seq {
		return nil
	}
	return l.runs[i]
}

// hashAt gives the hash of a record that was read, of the last that was let
// go, and of the place before line 1.
func (l *verified) hashAt(seq Seq) (Hash, bool) {
	if seq == l.cut {
		return l.cutHash, true
	}
	r := l.runOf(seq)
	if r == nil {
		return Hash{}, false
	}
	return r.hashes[seq-r.First], true
}

// add takes the next record; what it leaves out is missing.
func (l *verified) add(e Entry, hash Hash) {
	if e.Seq > l.last+1 {
		l.missing = append(l.missing, missing{l.last + 1, e.Seq - 1})
	}
	if len(l.runs) == 0 || e.Seq > l.last+1 {
		l.runs = append(l.runs, &run{Stretch: Stretch{First: e.Seq}})
	}
	r := l.runs[len(l.runs)-1]
	r.Last, r.hashes = e.Seq, append(r.hashes, hash)
	l.last = e.Seq
	l.remember(e)
}

// remember keeps what the record says of time and of the epoch before. Clocks
// are advice, so that it can only give rise to a note.
func (l *verified) remember(e Entry) {
	if e.Seq == 1 && e.Type == typeOpen {
		var open struct {
			Last *Link `json:"last"`
		}
		if json.Unmarshal(e.Body, &open) == nil {
			l.before = open.Last
		}
	}
	var ack Seq
	if e.Ack != nil {
		ack = e.Ack.Seq
	}
	if ack < l.acked {
		l.notes = append(l.notes, fmt.Sprintf("record %d does not know of the receipt for %d, which a record before it names", e.Seq, l.acked))
	}
	l.acked = max(l.acked, ack)
	f := floor{l.acked, e.Seq, e.At.Wall, e.At.Wall.Add(time.Duration(e.At.ErrMS) * time.Millisecond)}
	if n := len(l.floors); n > 0 && l.floors[n-1].ack == f.ack {
		if f.late.Before(l.floors[n-1].late) {
			l.floors[n-1] = f
		}
		return
	}
	if f.ack > 0 {
		l.floors = append(l.floors, f)
	}
}

// keyAt gives which key signs the next record.
func (l *verified) keyAt(e Entry) (inForce, error) {
	f := l.now
	f.unsure = f.unsure || e.Seq > l.last+1
	return f.at(e, l.ring)
}

// signs notes which key signs the last record and what follows it.
func (l *verified) signs(f inForce) {
	l.now = f
	if f.place > l.placeAt(l.last) {
		l.turns = append(l.turns, Turn{l.last - 1, f.place})
	}
	if f.hands {
		l.turns = append(l.turns, Turn{l.last, f.place + 1})
	}
}

// placeAt is the place of the key in force at a record, or of one before it where
// that is not known.
func (l *verified) placeAt(seq Seq) int {
	for _, t := range slices.Backward(l.turns) {
		if t.Seq < seq {
			return t.Place
		}
	}
	return 0
}

// letGo begins the log after the record that a cut names, if first is a record
// after it.
func (l *verified) letGo(first Entry, c Head) {
	if c.Log == l.log && l.cut < c.Seq && c.Seq < first.Seq {
		l.cut, l.cutHash, l.last, l.signed = c.Seq, c.Hash, c.Seq, c.Seq
	}
}

// nameGap takes a gap record: the terminal's word that records before it are
// lost, of its own log or of one that stands before it in the file.
func (v *Verifier) nameGap(e Entry) error {
	gap, ok := gapOf(e)
	if !ok {
		return v.find(e.Log).problem(e.Seq, "is a gap record that names no records before it")
	}
	l := v.find(gap.log)
	if l == nil {
		return nil // that log is not in the file
	}
	var left []missing
	for _, m := range l.missing {
		for _, part := range []missing{{m.from, min(m.to, gap.from-1)}, {max(m.from, gap.to+1), m.to}} {
			if part.from <= part.to {
				left = append(left, part)
			}
		}
	}
	l.missing = left
	return nil
}

// NamesGap reports whether a gap record names records that stood before it: of
// its own log, or of an earlier one of its terminal.
func NamesGap(e Entry) bool {
	_, ok := gapOf(e)
	return ok
}

type gap struct {
	log LogID
	missing
}

func gapOf(e Entry) (g gap, ok bool) {
	var body struct {
		Log  LogID `json:"log"`
		From Seq   `json:"from"`
		To   Seq   `json:"to"`
	}
	if json.Unmarshal(e.Body, &body) != nil || body.From == 0 || body.From > body.To {
		return g, false
	}
	g = gap{cmp.Or(body.Log, e.Log), missing{body.From, body.To}}
	return g, g.log.Terminal() == e.Log.Terminal() && (g.log != e.Log || g.to < e.Seq)
}

// unnamed reports the first records that are missing without a gap record.
func (l *verified) unnamed() error {
	if len(l.missing) == 0 {
		return nil
	}
	m := l.missing[0]
	return l.problem(m.from, "is missing: record %d stands in its place", l.next(m.to))
}

// next is the first record that was read after seq.
func (l *verified) next(seq Seq) Seq {
	i := sort.Search(len(l.runs), func(i int) bool { return l.runs[i].First > seq })
	return l.runs[i].First
}

// seal takes a receipt for a record that was read or is known to be missing.
func (l *verified) seal(r Receipt) error {
	h, ok := l.hashAt(r.Seq)
	if !ok {
		return nil // in a gap: it says nothing of the lines that are here
	}
	in := l.runOf(r.Seq)
	if h != r.Hash {
		from := r.Seq
		if in != nil {
			from = max(in.Sealed+1, in.First)
		}
		return l.problem(r.Seq, "is not what the centre stored: its receipt of %s names another hash, so %s were changed", r.At, span(from, r.Seq))
	}
	l.receipts = append(l.receipts, r)
	if in != nil && r.Seq > in.Sealed {
		in.Sealed, in.SealedAt = r.Seq, r.At
	}
	return nil
}

func (l *verified) epoch() Epoch {
	e := Epoch{Log: l.log, Cut: l.cut, First: l.runs[0].First, Last: l.last, KeyKnown: l.keyKnown, Before: l.before}
	for _, r := range l.runs {
		e.Stretches = append(e.Stretches, r.Stretch)
	}
	e.Receipts = slices.SortedFunc(slices.Values(l.receipts), func(a, b Receipt) int { return cmp.Compare(a.Seq, b.Seq) })
	e.Notes = append(slices.Clone(l.notes), l.backdated()...)
	return e
}

// backdated compares the wall time of records with the receipts that they
// name: a record is not older than one. It gives a note, for the owner of the
// box runs its clock.
func (l *verified) backdated() []string {
	receipts := slices.Clone(l.receipts)
	slices.SortFunc(receipts, func(a, b Receipt) int { return int(a.Seq) - int(b.Seq) })
	var notes []string
	for _, f := range l.floors {
		i := sort.Search(len(receipts), func(i int) bool { return receipts[i].Seq > f.ack })
		if i > 0 && f.late.Before(receipts[i-1].At.Time) {
			notes = append(notes, fmt.Sprintf("record %d gives %s, before the receipt that it knew of (%s): the clock was behind, or it was back-dated",
				f.seq, f.wall, receipts[i-1].At))
		}
	}
	return notes
}
