package attendance

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"maps"
)

// memory is a Book as it is written down, field by field.
type memory struct {
	Checkins   map[checkinKey]FirstCheckin
	Enrolments map[TraineeID]Enrolment
	Consents   map[TraineeID]string
	Ended      map[consentKey]uint64
	Withdrawn  map[TraineeID]Withdrawn
	Packages   map[ClassID]string
	Codes      map[string]uint64
	Pending    map[string]uint64
	Used       map[TraineeID]uint64
	Command    uint64
	Sessions   map[sessionKey]met
}

// Forget drops check-ins and codes of records before one, but for check-ins to
// sessions that are live: those that a package still names, whatever the clock
// says. A book that is told so now and then stays small; one that judges a
// whole ledger never is.
func (b *Book) Forget(live func(SessionID) bool, before uint64) {
	maps.DeleteFunc(b.checkins, func(k checkinKey, first FirstCheckin) bool {
		gone := first.Seq < before && !live(k.Session)
		if gone {
			b.counts[k.Session]--
		}
		return gone
	})
	maps.DeleteFunc(b.counts, func(_ SessionID, n int) bool { return n == 0 })
	old := func(_ string, seq uint64) bool { return seq < before }
	maps.DeleteFunc(b.sessions, func(k sessionKey, m met) bool { return m.Seq < before && !live(k.Session) })
	maps.DeleteFunc(b.codes, old)
	maps.DeleteFunc(b.pending, old)
}

// Memory gives the book as bytes for [RecallBook] of the same program.
func (b *Book) Memory() ([]byte, error) {
	var text bytes.Buffer
	err := gob.NewEncoder(&text).Encode(memory{
		b.checkins, b.enrolments, b.consents, b.ended, b.withdrawn, b.packages, b.codes, b.pending, b.used, b.command, b.sessions,
	})
	if err != nil {
		return nil, fmt.Errorf("writing the book down: %w", err)
	}
	return text.Bytes(), nil
}

// RecallBook is the inverse of [Book.Memory]. The bytes must be whole: who keeps
// them checks that.
func RecallBook(text []byte) (*Book, error) {
	var m memory
	if err := gob.NewDecoder(bytes.NewReader(text)).Decode(&m); err != nil {
		return nil, fmt.Errorf("reading the book: %w", err)
	}
	b := NewBook()
	maps.Copy(b.checkins, m.Checkins)
	maps.Copy(b.enrolments, m.Enrolments)
	maps.Copy(b.consents, m.Consents)
	maps.Copy(b.ended, m.Ended)
	maps.Copy(b.withdrawn, m.Withdrawn)
	maps.Copy(b.packages, m.Packages)
	maps.Copy(b.codes, m.Codes)
	maps.Copy(b.pending, m.Pending)
	maps.Copy(b.used, m.Used)
	maps.Copy(b.sessions, m.Sessions)
	b.command = m.Command
	for k := range b.checkins {
		b.counts[k.Session]++
	}
	return b, nil
}
