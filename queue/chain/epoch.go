package chain

import (
	"fmt"
	"sort"
	"strings"
)

// Epoch is what a verifier found in one log. A head or receipt after a gap says
// nothing of the records before it: no line after the gap names one of those.
type Epoch struct {
	Log       LogID
	Cut       Seq // records up to here were let go against a receipt; 0 if none
	First     Seq
	Last      Seq
	Stretches []Stretch // at least one; between two lie records that a gap record names
	KeyKnown  bool      // the ledger key's certificate was checked against a trusted centre
	Before    *Link     // what line 1 names of the epoch before
	Receipts  []Receipt // of the centre, for records that were read, lowest first
	Notes     []string  // what a person should look at, and proof of nothing
}

// SealedAt is when the centre had a record, by the first of the receipts in the
// file that cover it; ok is false for the terminal's own word. The centre may
// have had it earlier: a file need not hold every receipt.
func (e Epoch) SealedAt(seq Seq) (at Wall, ok bool) {
	for _, s := range e.Stretches {
		if seq < s.First || seq > s.Last {
			continue
		}
		i := sort.Search(len(e.Receipts), func(i int) bool { return e.Receipts[i].Seq >= seq })
		if i < len(e.Receipts) && e.Receipts[i].Seq <= s.Last {
			return e.Receipts[i].At, true
		}
	}
	return Wall{}, false
}

// Stretch is records of one log without a gap between them.
type Stretch struct {
	First    Seq
	Last     Seq
	Signed   Seq // covered by a head of the terminal; below Last only before a gap
	Sealed   Seq // covered by a receipt of the centre; 0 if none
	SealedAt Wall
}

// Link is an open record's word for the last record of the epoch before.
type Link struct {
	Log  LogID `json:"log"`
	Seq  Seq   `json:"seq"`
	Hash Hash  `json:"hash"`
}

// Whole reports whether every record from 1 to the last is there. Records that
// were let go after the retention are not: the key's holder can sign a cut for
// more than was, and only an earlier export or the centre, which has them, can
// tell.
func (e Epoch) Whole() bool { return len(e.Stretches) == 1 && e.First == 1 }

// String is the sentence an auditor reads.
func (e Epoch) String() string {
	var parts []string
	next := Seq(1)
	if e.Cut > 0 {
		parts, next = append(parts, "let go "+span(1, e.Cut)), e.Cut+1
	}
	for _, s := range e.Stretches {
		if s.First > next {
			parts = append(parts, "gap "+span(next, s.First-1))
		}
		parts, next = append(parts, s.String()), s.Last+1
	}
	if !e.KeyKnown {
		parts = append(parts, "key taken from the file itself")
	}
	return strings.Join(parts, "; ")
}

func (s Stretch) String() string {
	var parts []string
	known := max(s.Signed, s.Sealed)
	if known > 0 {
		parts = append(parts, "verified "+span(s.First, known))
	}
	if s.Sealed > 0 {
		parts = append(parts, fmt.Sprintf("sealed to %d at %s (centre)", s.Sealed, s.SealedAt))
	}
	if s.Sealed < known {
		parts = append(parts, "own word "+span(max(s.Sealed+1, s.First), known))
	}
	if known < s.Last {
		parts = append(parts, "no signature "+span(max(known+1, s.First), s.Last))
	}
	return strings.Join(parts, "; ")
}

func span(first, last Seq) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}
