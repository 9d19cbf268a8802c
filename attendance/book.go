package attendance

import "fmt"

// Book is what the ledger says so far: who has checked in to which session and
// whose face template counts. It is rebuilt from the records at every start,
// so a restart forgets nothing. It belongs to one goroutine.
type Book struct {
	checkins   map[checkinKey]FirstCheckin
	counts     map[SessionID]int
	enrolments map[TraineeID]Enrolment
	consents   map[TraineeID]string    // the consent that stands
	ended      map[consentKey]uint64   // seq of the record that withdrew it
	withdrawn  map[TraineeID]Withdrawn // and not yet erased
	packages   map[ClassID]string      // SHA-256 of the last accepted, lower-case hex
	codes      map[string]uint64       // seq of the first record that carries a class code's nonce
	pending    map[string]uint64       // seq of the first pending record of a hash
	sessions   map[sessionKey]met      // that were opened
	command    uint64                  // highest serial of a command that was answered
	used       map[TraineeID]uint64    // seq of the enrol record that the last match relied on
}

type checkinKey struct {
	Session SessionID
	Trainee TraineeID
}

// FirstCheckin is the check-in that counts for a trainee in a session.
type FirstCheckin struct {
	Seq    uint64
	Tapped string // TimeLayout
}

// NewBook makes an empty book.
func NewBook() *Book {
	return &Book{
		checkins:   map[checkinKey]FirstCheckin{},
		counts:     map[SessionID]int{},
		enrolments: map[TraineeID]Enrolment{},
		consents:   map[TraineeID]string{},
		ended:      map[consentKey]uint64{},
		withdrawn:  map[TraineeID]Withdrawn{},
		packages:   map[ClassID]string{},
		codes:      map[string]uint64{},
		pending:    map[string]uint64{},
		sessions:   map[sessionKey]met{},
		used:       map[TraineeID]uint64{},
	}
}

// Observe takes the next record of the ledger, in order. It returns an error,
// and still takes the record, if the body cannot be read or claims what the
// records before it do not bear out: a face match without the trainee's live
// enrolment, a second check-in to one session, one by a class code that was
// used before, an enrolment without consent. Verifier, centre and terminal all
// judge by it.
func (b *Book) Observe(seq uint64, typ RecordType, raw []byte) error {
	switch typ {
	case TypeConsent, TypeEnrol, TypeWithdraw, TypeErase:
		return b.observeEnrolment(seq, typ, raw)
	case TypeCheckin:
		c, err := ReadBody[CheckinBody](raw)
		if err != nil {
			return err
		}
		return b.checkin(seq, c)
	case TypePackage:
		p, err := ReadBody[PackageBody](raw)
		if err != nil {
			return err
		}
		b.packages[p.Class] = p.SHA256
	case TypeSession:
		return b.observeSession(seq, raw)
	case TypeAdmin:
		a, err := ReadBody[AdminBody](raw)
		if err != nil {
			return err
		}
		b.command = max(b.command, a.Serial)
	case TypePending:
		p, err := ReadBody[PendingBody](raw)
		if err != nil {
			return err
		}
		if _, again := b.pending[p.Hash]; !again {
			b.pending[p.Hash] = seq
		}
	}
	return nil
}

func (b *Book) checkin(seq uint64, c CheckinBody) error {
	used, again := b.codes[c.Code]
	if c.Code != "" && !again {
		b.codes[c.Code] = seq
	}
	if c.Decision != OnTime && c.Decision != Late {
		return nil
	}
	key := checkinKey{c.Session, c.Trainee}
	if first, twice := b.checkins[key]; twice {
		return fmt.Errorf("a second check-in to session %s; the first is record %d", c.Session, first.Seq)
	}
	b.checkins[key] = FirstCheckin{Seq: seq, Tapped: c.Tapped}
	b.counts[c.Session]++
	if again {
		return fmt.Errorf("a check-in by a class code that record %d used", used)
	}
	return b.faceHolds(c)
}

func (b *Book) faceHolds(c CheckinBody) error {
	if c.Face == nil || c.Face.Level == FaceNone {
		return nil
	}
	b.used[c.Trainee] = c.Face.Enrol
	enrolment, ok := b.enrolments[c.Trainee]
	if !ok || enrolment.Seq != c.Face.Enrol || enrolment.Model != c.Face.Model {
		return fmt.Errorf("claims a face match by enrol record %d, which is not this trainee's live one", c.Face.Enrol)
	}
	return nil
}

// First gives the check-in that counts, if there is one.
func (b *Book) First(s SessionID, t TraineeID) (FirstCheckin, bool) {
	first, ok := b.checkins[checkinKey{s, t}]
	return first, ok
}

// CodeUsed reports whether a record carries this nonce of a class code,
// whatever came of it.
func (b *Book) CodeUsed(nonce string) bool {
	_, used := b.codes[nonce]
	return used
}

// Pending gives the first pending record of a code, by its hash.
func (b *Book) Pending(hash string) (seq uint64, ok bool) {
	seq, ok = b.pending[hash]
	return seq, ok
}

// LastCommand is the highest serial of a command that a record answers; 0 if
// there is none.
func (b *Book) LastCommand() uint64 { return b.command }

// Count tells how many have checked in to a session.
func (b *Book) Count(s SessionID) int { return b.counts[s] }

// FirstUse reports whether no match relied on this enrolment of a trainee yet.
func (b *Book) FirstUse(t TraineeID, e Enrolment) bool { return b.used[t] != e.Seq }

// HasPackage reports whether the last package accepted for a class is this
// one.
func (b *Book) HasPackage(c ClassID, sha256 string) bool { return b.packages[c] == sha256 }
